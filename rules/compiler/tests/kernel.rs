//! What Weir accepts, nft loads into the kernel too: each form of translations and maps, in a namespace of its own.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::PLAN;
use rules_compiler::compile_text;

/// Bodies of a nat chain at prerouting.
const DESTINATIONS: &[&str] = &[
    "dnat to 10.0.1.2",
    "dnat to 10.0.1.2 random,persistent",
    "tcp dport 80 dnat to 10.0.1.2:8080",
    "tcp dport 80 dnat to 10.0.1.2:ssh persistent",
    "tcp dport 80-90 dnat ip to 10.0.1.2:8080-8090",
    "meta l4proto { tcp, udp } dnat to 10.0.1.2-10.0.1.5:8080-8090",
    "dnat to 10.0.1.2-10.0.1.5",
    "dnat ip interval to 10.0.1.2-10.0.1.5",
    "ip daddr 192.0.2.2/31 dnat ip prefix to 10.0.1.4/31",
    "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.9, 192.0.2.3 : 172.16.0.5 }",
    "dnat ip prefix to ip daddr map { 192.0.2.2/31 : 10.0.1.4/31, 192.0.2.4/30 : 10.0.1.8/30 }",
    "counter dnat to tcp dport map { 80 : 10.0.1.2, 443-444 : 10.0.1.3, * : 10.0.1.4 }",
    "dnat to tcp dport map { * : 10.0.1.9 . 9, 80 : 10.0.1.2 . 8080, }",
    "dnat ip addr . port to udp dport map { 53 : 10.0.1.2 . 5353, 54 : 10.0.1.3 . domain }",
    "dnat to tcp dport map { 80 : 10.0.1.2 . 8080-8081, 81 : 10.0.1.3 . 81-82 }",
    "dnat ip interval to tcp dport map { 80 : 10.0.1.2-10.0.1.3, 81 : 10.0.1.4-10.0.1.5 }",
    "meta l4proto tcp dnat to ip saddr map { 198.51.100.1 : 10.0.1.2 . 80 }",
    "dnat to iifname map { \"uplink\" : 10.0.1.2, * : 10.0.1.3 }",
    "dnat to tcp dport map @places",
    "dnat to tcp dport map @ports",
    "dnat ip prefix to ip daddr map @blocks",
];

/// Bodies of a nat chain at postrouting.
const SOURCES: &[&str] = &[
    "masquerade",
    "masquerade random",
    "masquerade fully-random, persistent",
    "tcp dport 1-65535 masquerade to :1024",
    "meta l4proto { tcp, udp } masquerade to :1024-2048 random,persistent",
    "snat to 192.0.2.3",
    "snat ip to 192.0.2.2-192.0.2.3 persistent",
    "udp dport 53 snat to 192.0.2.3:4000",
    "tcp dport 443 snat to 192.0.2.2-192.0.2.3:4000-4999 fully-random",
    "snat ip prefix to ip saddr map { 10.0.1.2/31 : 192.0.2.2/31 }",
    "ip saddr 10.0.1.2/31 snat prefix to 192.0.2.2/31",
    "snat to ip saddr map { 10.0.1.0/24 : 192.0.2.2, 10.0.2.0/24 : 192.0.2.3 }",
    "snat ip interval to ip saddr map { 10.0.1.0/24 : 192.0.2.2-192.0.2.3 }",
];

/// Bodies of a filter chain at forward.
const VERDICTS: &[&str] = &[
    "tcp dport vmap { 22 : accept, 80-90 : drop, 443 : jump side, 444 : goto side }",
    "ip saddr 10.0.1.0/24 counter tcp dport vmap { * : accept, 22 : continue, 23 : return, }",
    "iifname vmap { \"vif*\" : drop, work : accept, * : continue }",
    "ct state vmap { established : accept, related : accept, invalid : drop }",
    "meta l4proto vmap { tcp : accept, udp : jump side }",
    "meta nfproto vmap { ipv4 : jump side, ipv6 : drop }",
    "icmp type vmap { echo-request : accept, 3 : drop }",
    "ip saddr vmap { 10.0.1.0/24 : accept, 10.0.2.1-10.0.2.9 : drop }",
    "tcp dport vmap @verdicts\nudp dport vmap @verdicts",
    "iifname vmap @clients",
];

const MAPS: &str = "
  map places { type inet_service : ipv4_addr; flags interval; elements = { 80 : 10.0.1.2, 90-99 : 10.0.1.3 }
  }
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.1.2 . 80, * : 10.0.1.3 . 81 }
  }
  map blocks { type ipv4_addr : interval ipv4_addr; flags interval; elements = { 192.0.2.2/31 : 10.0.1.4/31 }
  }
  map verdicts { type inet_service : verdict; comment \"c\"; elements = { 22 : accept, 23 : jump side }
    elements = { 25 : drop }
  }
  map clients { type ifname : verdict; flags interval; elements = { \"vif*\" : accept, work : drop }
  }
  set names { type ifname; flags interval; elements = { \"vif*\", lab }
  }
";

/// A file for each body, with the family of its table.
fn files() -> Vec<String> {
    let file = |family: &str, of: &str, body: &str| {
        format!(
            "# weir: allow open\ntable {family} t {{{MAPS}  chain side {{ comment \"weir: allow unreachable\"; counter\n  }}\n  chain c {{ type {of}\n{body}\n  }}\n}}\n"
        )
    };
    let of = |kind: &'static str, bodies: &'static [&'static str]| {
        bodies.iter().map(move |body| file("ip", kind, body))
    };
    let nat = of("nat hook prerouting priority dstnat", DESTINATIONS);
    let nat = nat.chain(of("nat hook postrouting priority srcnat", SOURCES));
    let filter =
        VERDICTS.iter().map(|body| file("inet", "filter hook forward priority 0; policy drop;", body));
    nat.chain(filter).collect()
}

/// Says on the terminal that a test does not run, past the capture of the test harness. In CI every test runs.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Loads a file into a network namespace that is gone at once; what nft says against it.
fn load(file: &str) -> std::io::Result<Option<String>> {
    let mut nft = Command::new("unshare");
    nft.args(["--user", "--map-root-user", "--net", "nft", "-f", "-"]);
    let mut child = nft.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads as far as it likes; its words tell.
        let _ = stdin.write_all(file.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn what_weir_accepts_nft_loads() {
    for file in files() {
        if let Err(told) = compile_text(PLAN, &file) {
            panic!("{file}\n{}", told.render(false));
        }
    }
    match load("table ip t {\n}\n") {
        Ok(None) => {}
        Ok(Some(said)) => return skip("what_weir_accepts_nft_loads", &said),
        Err(error) => return skip("what_weir_accepts_nft_loads", &format!("unshare: {error}")),
    }
    for file in files() {
        assert_eq!(load(&file).unwrap_or_else(|error| Some(error.to_string())), None, "{file}");
    }
}

/// Forms that nft refuses: Weir may be stricter, never looser.
#[test]
fn what_nft_refuses_weir_refuses() {
    let nat = |body: &str| {
        format!(
            "# weir: allow open\ntable ip t {{\n  chain c {{ type nat hook prerouting priority dstnat\n{body}\n  }}\n}}\n"
        )
    };
    let bodies = [
        "dnat to 10.0.1.2:80",
        "tcp dport 80 dnat to 10.0.1.2:90-80",
        "tcp dport 80 dnat ip to :80",
        "dnat to tcp dport map { 80 : 10.0.1.2 . 80, 443 : 10.0.1.3 }",
        "dnat to tcp dport map { 80 : 10.0.1.2-10.0.1.4, 81 : 10.0.1.2 }",
        "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.9, 192.0.2.4/31 : 172.16.0.4/31 }",
        "dnat ip addr . port to tcp dport map { 80 : 10.0.1.2 }",
        "dnat addr . port to tcp dport map { 80 : 10.0.1.2 . 80 }",
        "dnat ip addr . port to 10.0.1.2:80",
        "dnat to ip saddr map { 198.51.100.1 : 10.0.1.2 . 80 }",
        "tcp dport vmap { 22 : accept, 22 : drop }",
        "tcp dport vmap { 22 : reject }",
        "tcp dport vmap { }",
        "tcp dport != vmap { 22 : accept }",
        "iifname vmap { \"vif1\" : accept, \"vif*\" : drop }",
        "ip saddr vmap { 10.0.1.0/24 : accept, 10.0.1.7 : drop }",
    ];
    for body in bodies {
        assert!(compile_text(PLAN, &nat(body)).is_err(), "{body}");
    }
    if let Some(reason) = load("table ip t {\n}\n").unwrap_or_else(|error| Some(error.to_string())) {
        return skip("what_nft_refuses_weir_refuses", &reason);
    }
    for body in bodies {
        assert!(load(&nat(body)).is_ok_and(|said| said.is_some()), "nft takes this: {body}");
    }
}
