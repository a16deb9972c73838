//! Network back ends as they are written on the command line.

use std::path::PathBuf;
use std::str::FromStr;

/// The forms a back end can take, for help texts and errors.
pub const FORMS: &str = "user, tap:IF, stream:PATH, dgram:LOCAL,REMOTE or vhost-user:PATH";

/// The other end of one port of the appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// QEMU's user-mode network: no root, no configuration, connections proxied by the host.
    User,
    /// A tap interface that exists on the host.
    Tap(String),
    /// A unix stream socket with length-framed Ethernet frames.
    Stream(PathBuf),
    /// A pair of unix datagram sockets, one frame a datagram.
    Dgram {
        /// The path QEMU binds.
        local: PathBuf,
        /// The path QEMU sends to.
        remote: PathBuf,
    },
    /// The socket of a vhost-user switch.
    VhostUser(PathBuf),
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("user", "") if text == "user" => Ok(Self::User),
            ("tap", name) if is_interface_name(name) => Ok(Self::Tap(name.to_owned())),
            ("tap", _) => {
                Err("tap: wants the name of an interface, of 1 to 15 characters: tap:tap0".to_owned())
            }
            ("stream", path) if !path.is_empty() => Ok(Self::Stream(path.into())),
            ("vhost-user", path) if !path.is_empty() => Ok(Self::VhostUser(path.into())),
            ("stream" | "vhost-user", _) => {
                Err(format!("{kind}: wants the path of a unix socket: {kind}:/run/vm/net.sock"))
            }
            ("dgram", paths) => match paths.split_once(',') {
                Some((local, remote)) if !local.is_empty() && !remote.is_empty() => {
                    Ok(Self::Dgram { local: local.into(), remote: remote.into() })
                }
                _ => Err(
                    "dgram: wants two paths, our socket and the other's: dgram:/run/vm/a.sock,/run/vm/b.sock"
                        .to_owned(),
                ),
            },
            _ => Err(format!("not a back end; write {FORMS}")),
        }
    }
}

/// Whether Linux takes this as the name of an interface (`dev_valid_name`).
pub(crate) fn is_interface_name(name: &str) -> bool {
    let length_fits = (1..=15).contains(&name.len());
    let characters_fit = !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    length_fits && characters_fit && name != "." && name != ".."
}

/// A client port and what it is connected to: `NAME=BACKEND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientBackend<B = Backend> {
    /// The client's name in weir.toml.
    pub name: String,
    /// What its port is connected to.
    pub backend: B,
}

impl<B: FromStr<Err = String>> FromStr for ClientBackend<B> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, backend)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), backend: backend.parse()? })
            }
            _ => Err("wants NAME=BACKEND, with a client's name of weir.toml: work=tap:tap1".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses() {
        assert_eq!("user".parse(), Ok(Backend::User));
        assert_eq!("tap:tap0".parse(), Ok(Backend::Tap("tap0".into())));
        assert_eq!("stream:/a/b:c".parse(), Ok(Backend::Stream("/a/b:c".into())));
        assert_eq!("dgram:a,b,c".parse(), Ok(Backend::Dgram { local: "a".into(), remote: "b,c".into() }));
        assert_eq!("vhost-user:v".parse(), Ok(Backend::VhostUser("v".into())));
    }

    #[test]
    fn what_is_no_back_end_is_refused_with_the_forms() {
        for text in [
            "",
            "users",
            "user:",
            "user:x",
            "bridge:br0",
            "tap",
            "tap:",
            "tap:a/b",
            "tap:0123456789abcdef",
            "tap:..",
            "stream:",
            "dgram:a",
            "dgram:,b",
            "dgram:a,",
            "vhost-user",
        ] {
            assert!(text.parse::<Backend>().is_err(), "{text:?}");
        }
        assert!("bridge:br0".parse::<Backend>().unwrap_err().contains("vhost-user:PATH"));
    }

    #[test]
    fn a_client_needs_a_name() {
        let parsed = "work=tap:tap1".parse();
        assert_eq!(parsed, Ok(ClientBackend { name: "work".into(), backend: Backend::Tap("tap1".into()) }));
        for text in ["work", "=user", "work=", "work=nothing"] {
            assert!(text.parse::<ClientBackend>().is_err(), "{text:?}");
        }
    }
}
