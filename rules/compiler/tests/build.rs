//! What a build gets: files, text of Rust, a summary, errors with carets.

mod common;

use std::fs;
use std::path::PathBuf;

use common::*;
use rules_compiler::{Severity, compile, compile_text};

/// A site directory of its own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-rules-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory can be made");
        Self(path)
    }

    fn write(&self, file: &str, octets: impl AsRef<[u8]>) {
        fs::write(self.0.join(file), octets).expect("a temporary file can be written");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_default_site_compiles_without_a_warning() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../firewall/site");
    let compiled = compile(&directory).unwrap_or_else(|d| panic!("{}", d.render(false)));
    assert_eq!(lines(compiled.warnings()), [""; 0]);
    assert_eq!(compiled.files(), [directory.join("weir.toml"), directory.join("rules.nft")]);
    assert_eq!(compiled.directory(), Some(directory.as_path()));
    let names: Vec<_> = compiled.leak().clients.iter().map(|client| client.name).collect();
    assert_eq!(names, ["work", "lab"]);
}

#[test]
fn a_missing_file_is_an_error() {
    let directory = Directory::new("missing");
    directory.write("weir.toml", PLAN);
    let Err(diagnostics) = compile(&directory.0) else { panic!("it compiles") };
    assert_eq!(diagnostics.errors(), 1);
    assert!(
        diagnostics.render(false).starts_with("error: cannot read rules.nft: "),
        "{}",
        diagnostics.render(false)
    );
}

#[test]
fn invalid_utf8_is_an_error_at_its_place() {
    let directory = Directory::new("utf8");
    directory.write("weir.toml", PLAN);
    directory.write("rules.nft", b"table ip x {\n  \xff\n}\n");
    let Err(diagnostics) = compile(&directory.0) else { panic!("it compiles") };
    assert_eq!(lines(&diagnostics), ["rules.nft:2:3: the file is not UTF-8 from here on"]);
}

#[test]
fn a_file_too_large_is_an_error() {
    let directory = Directory::new("large");
    directory.write("weir.toml", vec![b'#'; (1 << 20) + 1]);
    directory.write("rules.nft", vec![b'#'; (4 << 20) + 1]);
    let Err(diagnostics) = compile(&directory.0) else { panic!("it compiles") };
    let messages: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(messages, ["weir.toml is larger than 1 MiB", "rules.nft is larger than 4 MiB"]);
}

#[test]
fn all_errors_of_both_files_are_told_at_once_with_carets() {
    let directory = Directory::new("both");
    directory.write("weir.toml", PLAN.replace("gateway = \"192.0.2.1\"", "gatway = \"192.0.2.1\""));
    directory.write("rules.nft", forward("iifname \"wrok\" tcp dport 22 accept\nip saddr 22 drop\nqueue"));
    let Err(diagnostics) = compile(&directory.0) else { panic!("it compiles") };
    let shown = diagnostics.render(false).replace(&directory.0.display().to_string(), "site");
    let expected = r#"error: unknown key "gatway" in [uplink]
 --> site/weir.toml:4:1
  |
4 | gatway = "192.0.2.1"
  | ^^^^^^ did you mean "gateway"?

error: client "wrok" is not declared in weir.toml
 --> site/rules.nft:4:9
  |
4 | iifname "wrok" tcp dport 22 accept
  |         ^^^^^^ did you mean "work"?

error: "22" is a number, not an IPv4 address
 --> site/rules.nft:5:10
  |
5 | ip saddr 22 drop
  |          ^^

error: "queue" is not in this version's subset
 --> site/rules.nft:6:1
  |
6 | queue
  | ^^^^^

"#;
    assert_eq!(shown, expected);
    let first = diagnostics.iter().next().expect("there are four");
    assert_eq!(
        (first.severity, first.file.as_str(), first.line, first.column),
        (Severity::Error, "weir.toml", 4, 1)
    );
    assert!(diagnostics.render(true).contains("\u{1b}["));
}

#[test]
fn a_hundred_errors_are_enough() {
    let diagnostics = refused(&forward(&"iifname nobody accept\n".repeat(150)));
    assert_eq!(diagnostics.iter().count(), 100);
}

#[test]
fn the_text_of_rust_is_stable_and_without_std() {
    let rules = forward(
        "ip saddr { 10.0.0.1, 10.0.0.5 } tcp dport 22 counter reject with tcp reset\nreject with icmp 13x",
    )
    .replace("reject with icmp 13x", "reject with icmp host-prohibited")
        + "table ip n { chain p { type nat hook prerouting priority dstnat\ntcp dport 80 dnat to 10.0.1.2:8080\n}\n}\n";
    let text = |_| compile_text(PLAN, &rules).unwrap_or_else(|d| panic!("{}", d.render(false))).to_rust();
    let [first, second] = [0, 1].map(text);
    assert_eq!(first, second);
    assert!(!first.contains("std::") && !first.contains("alloc::"));
    let foreign = first.match_indices("::").filter(|(at, _)| {
        let before = first[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_ascii_alphanumeric())
            && !first[*at..].starts_with("::rules::")
            && !first[*at..].starts_with("::core::")
    });
    assert_eq!(foreign.count(), 0);
    for line in [
        "static SET_0: [(u32, u32); 2] = [(167772161, 167772161), (167772165, 167772165)];",
        "static FILES: [(u32, &str); 1] = [(1, \"rules.nft\")];",
        "static COUNTER_LINES: [u32; 1] = [4];",
        "pub static SITE: ::rules::site::Site = ::rules::site::Site {",
        "        gateway: ::core::option::Option::Some(::core::net::Ipv4Addr::new(192, 0, 2, 1)),",
    ] {
        assert!(first.lines().any(|given| given == line), "{line}\n{first}");
    }
    for part in [
        "::rules::table::Action::Reject(::rules::Reject::TcpReset)",
        "::rules::table::Action::Reject(::rules::Reject::Icmp(10))",
        "::rules::table::Action::Dnat(::rules::translation::DestinationChoice::To { first: ::core::net::Ipv4Addr::new(10, 0, 1, 2), last: ::core::net::Ipv4Addr::new(10, 0, 1, 2), ports: ::core::option::Option::Some((8080, 8080)) })",
        "sets: &[&SET_0],",
        "network: ::rules::site::ClientNetwork::Peer(::core::net::Ipv4Addr::new(10, 137, 0, 10))",
    ] {
        assert!(first.contains(part), "{part}\n{first}");
    }
}

#[test]
fn the_summary_says_rules_sets_octets_and_steps() {
    let compiled = compile_text(PLAN, &forward("tcp dport { 22, 80 } counter accept")).expect("it compiles");
    let expected = format!(
        "1 rules in 1 chains, 1 counters, 1 sets, {} octets of table, at most 7 steps a hook",
        compiled.octets()
    );
    assert_eq!(compiled.summary(), expected);
    assert!((100..1000).contains(&compiled.octets()));
}
