//! `weir who`: whose an external port is, from the site alone (RFC 7422).
//!
//! With `port_blocks` the ports of a host follow from its address, and nothing has to be logged to tell later
//! who had one. Forwards are looked up in the policy; a 1:1 address is one whose ports are all forwarded.

use crate::args;
use crate::error::{Error, Result};
use crate::image;
use nat::blocks::{self, Blocks};
use rules::Policy;
use rules::site::Site;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

/// The protocols that forwards are kept for.
const PROTOCOLS: [(u8, &str); 2] = [(6, "tcp"), (17, "udp")];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who had this port of an external address.
    Port(SocketAddrV4),
    /// Which ports this host has.
    Host(Ipv4Addr),
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let port = || text.parse().ok().filter(|external: &SocketAddrV4| external.port() != 0);
        text.parse().map(Self::Host).ok().or_else(|| port().map(Self::Port)).ok_or_else(|| {
            "expected an external address and port, such as 192.0.2.2:40123, or a host's address".to_owned()
        })
    }
}

/// `weir who`: prints the answer.
///
/// # Errors
/// The site has errors, or does not tell.
pub fn run(arguments: &args::Who) -> Result<()> {
    let site = image::Site::open_or_default(arguments.site.site.as_deref(), false)?;
    println!("{}", answer(site.compiled, arguments.question)?);
    Ok(())
}

/// The answer, in lines.
///
/// # Errors
/// All hosts share one pool of ports, or the site does not have the address.
pub fn answer(site: &Site, question: Question) -> Result<String> {
    let external: Vec<Ipv4Addr> = site.external().collect();
    let shared: Vec<Ipv4Addr> = site.shared().collect();
    match question {
        Question::Port(asked) if external.contains(asked.ip()) => owner(site, &shared, asked),
        Question::Port(asked) => {
            let addresses = external.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::new(format!("{} is no external address of this site", asked.ip()))
                .advise(format!("its external addresses are {addresses}")))
        }
        Question::Host(host) if external.contains(&host) => {
            Err(Error::new(format!("{host} is an external address of this site"))
                .advise(format!("ask for a port of it, such as {host}:40123")))
        }
        Question::Host(host) => block(site, &shared, host),
    }
}

/// The blocks of a site.
fn blocks<'a>(site: &Site, shared: &'a [Ipv4Addr]) -> Result<Blocks<'a>> {
    let size = u16::try_from(site.nat.port_blocks).unwrap_or(u16::MAX);
    if size == 0 {
        return Err(Error::new(
            "all hosts of this site share one pool of ports: it does not tell whose one is",
        )
        .advise("port_blocks in [nat] of weir.toml gives each host ports of its own"));
    }
    Ok(Blocks { external: shared, ports: site.nat.external_ports, size })
}

fn owner(site: &Site, shared: &[Ipv4Addr], asked: SocketAddrV4) -> Result<String> {
    let forwarded = forwarded(&site.policy, asked);
    let names = || forwarded.join(" and ");
    let kept = format!("{asked}: forwarded by rules.nft for {}, no host's source port", names());
    if forwarded.len() == PROTOCOLS.len() {
        return Ok(kept);
    }
    let blocks = blocks(site, shared)?;
    let number = blocks::owner(&blocks, *asked.ip(), asked.port()).map(u64::from);
    let host = number.and_then(|number| site.host(number));
    let mut told = match host.and_then(|(client, host)| Some((site.clients.get(client)?.name, host))) {
        Some((name, host)) => format!("{asked}: {name} {host}{}", ports_of(site, &blocks, host)),
        None => format!("{asked}: nobody, the port is outside all blocks"),
    };
    if !forwarded.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(told, "\n{kept}");
    }
    Ok(told)
}

fn block(site: &Site, shared: &[Ipv4Addr], host: Ipv4Addr) -> Result<String> {
    let Some((client, _)) = site.host_number(host).and_then(|number| site.host(number)) else {
        return Err(Error::new(format!("{host} is no host behind a client of this site")));
    };
    let blocks = blocks(site, shared)?;
    let name = site.clients.get(client).map_or("", |client| client.name);
    Ok(format!("{name} {host}{}", ports_of(site, &blocks, host)))
}

/// `: 192.0.2.2 ports 1024-1274`
fn ports_of(site: &Site, blocks: &Blocks, host: Ipv4Addr) -> String {
    let number = site.host_number(host).and_then(|number| u32::try_from(number).ok());
    match number.and_then(|number| blocks::block(blocks, number)) {
        Some((address, ports)) => format!(", {address} ports {}-{}", ports.start(), ports.end()),
        None => ", no ports: there are fewer blocks than hosts".to_owned(),
    }
}

/// The protocols of which rules take this port.
fn forwarded(policy: &Policy, asked: SocketAddrV4) -> Vec<&'static str> {
    let takes = |&(protocol, _): &(u8, &str)| {
        policy.forwards().any(|forward| {
            forward.takes(protocol, *asked.ip()) && (forward.first..=forward.last).contains(&asked.port())
        })
    };
    PROTOCOLS.into_iter().filter(takes).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
extra = ["192.0.2.3"]
[[client]]
name = "work"
address = "10.0.1.1/30"
[[client]]
name = "vault"
address = "10.137.0.1"
peer = "10.137.0.10"
[nat]
external_ports = "2000-2999"
"#;

    fn ask(nat: &str, rules: &str, question: &str) -> std::result::Result<String, String> {
        let rules = format!(
            "# weir: allow open\ntable ip n {{\nchain c {{ type nat hook prerouting priority dstnat\n{rules}\n}}\n}}\n"
        );
        let site = rules_compiler::compile_text(&format!("{PLAN}{nat}"), &rules)
            .unwrap_or_else(|told| panic!("{}", told.render(false)));
        answer(site.leak(), question.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn rfc_7422_a_port_tells_its_host_and_a_host_its_ports() {
        // Five hosts at two addresses: three blocks of 300 at each.
        let blocks = "port_blocks = 300\n";
        for (port, host) in [
            ("192.0.2.2:2000", "work 10.0.1.0, 192.0.2.2 ports 2000-2299"),
            ("192.0.2.2:2299", "work 10.0.1.0, 192.0.2.2 ports 2000-2299"),
            ("192.0.2.2:2300", "work 10.0.1.1, 192.0.2.2 ports 2300-2599"),
            ("192.0.2.3:2000", "work 10.0.1.3, 192.0.2.3 ports 2000-2299"),
            ("192.0.2.3:2599", "vault 10.137.0.10, 192.0.2.3 ports 2300-2599"),
        ] {
            assert_eq!(ask(blocks, "", port), Ok(format!("{port}: {host}")));
            let asked = host.split([' ', ',']).nth(1).unwrap();
            assert_eq!(ask(blocks, "", asked), Ok(host.to_owned()));
        }
        for nobody in ["192.0.2.3:2600", "192.0.2.2:2900", "192.0.2.2:1999", "192.0.2.2:65535", "192.0.2.2:1"]
        {
            let told = format!("{nobody}: nobody, the port is outside all blocks");
            assert_eq!(ask(blocks, "", nobody), Ok(told));
        }
    }

    #[test]
    fn a_forwarded_port_is_no_source() {
        let rules =
            "ip daddr 192.0.2.2 tcp dport 2000-2001 dnat to 10.0.1.2\nudp dport 2001 dnat to 10.0.1.2";
        let blocks = "port_blocks = 300\n";
        assert_eq!(
            ask(blocks, rules, "192.0.2.2:2000"),
            Ok("192.0.2.2:2000: work 10.0.1.0, 192.0.2.2 ports 2000-2299\n192.0.2.2:2000: forwarded by rules.nft for tcp, no host's source port".to_owned())
        );
        let both = "192.0.2.2:2001: forwarded by rules.nft for tcp and udp, no host's source port";
        assert_eq!(ask(blocks, rules, "192.0.2.2:2001"), Ok(both.to_owned()));
        // The rules alone tell that, whoever the rest is.
        assert_eq!(ask("", rules, "192.0.2.2:2001"), Ok(both.to_owned()));
        assert!(!ask(blocks, rules, "192.0.2.3:2000").unwrap().contains("forwarded"));
    }

    #[test]
    fn what_the_site_does_not_tell() {
        let cases = [
            ("", "192.0.2.2:2000", "share one pool"),
            ("", "10.0.1.2", "share one pool"),
            ("port_blocks = 300\n", "192.0.2.4:2000", "its external addresses are 192.0.2.2, 192.0.2.3"),
            ("port_blocks = 300\n", "10.0.9.9", "10.0.9.9 is no host behind a client"),
            ("port_blocks = 300\n", "192.0.2.3", "such as 192.0.2.3:40123"),
        ];
        for (nat, question, told) in cases {
            let error = ask(nat, "", question).unwrap_err();
            assert!(error.starts_with("error: ") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_question_is_an_address_with_or_without_a_port() {
        for wrong in ["", "40123", "192.0.2.2:", "192.0.2.2:0", "192.0.2.2:65536", "host", "::1", "192.0.2:1"]
        {
            assert!(wrong.parse::<Question>().is_err(), "{wrong}");
        }
    }
}
