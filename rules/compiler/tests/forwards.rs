//! RFC 4787 REQ-3: which external ports dnat rules keep from mappings.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules_compiler::compile_text;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const EXTRA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// A file with these chains besides a nat chain at prerouting with this body.
fn nat(chains: &str, body: &str) -> String {
    format!(
        "# weir: allow open\ntable ip n {{\n{chains}\nchain p {{ type nat hook prerouting priority dstnat\n{body}\n}}\n}}\n"
    )
}

/// The runs of ports of TCP and UDP at both addresses, as `tcp 192.0.2.2 8080-8080`.
fn forwards(rules: &str) -> Vec<String> {
    let site = site(rules);
    let mut told = Vec::new();
    for (number, name) in [(6, "tcp"), (17, "udp")] {
        for address in [OWN, EXTRA] {
            let of = site.policy.forwards().filter(|forward| forward.takes(number, address));
            told.extend(of.map(|run| format!("{name} {address} {}-{}", run.first, run.last)));
        }
    }
    told
}

fn has(rules: &str, expected: &[&str]) {
    assert_eq!(forwards(rules), expected, "{rules}");
}

#[test]
fn req_3_a_rule_keeps_its_ports_at_its_addresses() {
    has(
        &nat("", "ip daddr 192.0.2.2 tcp dport { 80, 443, 81 } dnat to 10.0.1.2"),
        &["tcp 192.0.2.2 80-81", "tcp 192.0.2.2 443-443"],
    );
    has(&nat("", "udp dport 53 dnat to 10.0.1.2:5353"), &["udp 192.0.2.2 53-53", "udp 192.0.2.3 53-53"]);
    has(
        &nat("", "meta l4proto { tcp, udp } ip daddr 192.0.2.3 th dport != 1000-65535 dnat to 10.0.1.2"),
        &["tcp 192.0.2.3 1-999", "udp 192.0.2.3 1-999"],
    );
    has(
        &nat("", "tcp dport 80 ip daddr 192.0.2.2 dnat to 10.0.1.2\ntcp dport 81-90 dnat to 10.0.1.3"),
        &["tcp 192.0.2.2 80-90", "tcp 192.0.2.3 81-90"],
    );
}

#[test]
fn req_3_what_callers_match_counts() {
    let side = "chain side { ip daddr 192.0.2.2 dnat to 10.0.1.2\n}";
    has(&nat(side, "tcp dport 8080 jump side"), &["tcp 192.0.2.2 8080-8080"]);
    has(
        &nat(side, "tcp dport 80 goto side\nudp dport 53 jump side"),
        &["tcp 192.0.2.2 80-80", "udp 192.0.2.2 53-53"],
    );
    let two = "chain a { tcp dport 1-100 jump b\n}\nchain b { ip daddr 192.0.2.3 tcp dport 90-200 dnat to 10.0.1.2\n}";
    has(&nat(two, "jump a"), &["tcp 192.0.2.3 90-100"]);
    // No caller lets these through.
    for caller in ["tcp dport 80 jump a", "udp dport 95 jump a"] {
        let told = lines(&refused(&nat(two, caller)));
        assert!(
            told[0].contains("this can never be true: no caller of the chain leaves it such a packet"),
            "{told:?}"
        );
    }
}

#[test]
fn req_3_a_rule_without_ports_keeps_all_of_them() {
    has(&nat("", "ip daddr 192.0.2.3 dnat to 10.0.1.2"), &["tcp 192.0.2.3 1-65535", "udp 192.0.2.3 1-65535"]);
    has(&nat("", "ip protocol tcp ip daddr 192.0.2.3 dnat to 10.0.1.2"), &["tcp 192.0.2.3 1-65535"]);
    has(&nat("", "icmp type echo-request dnat to 10.0.1.2"), &[]);
}

#[test]
fn a_rule_that_no_packet_from_the_uplink_meets_keeps_none() {
    has(&nat("", "iifname work udp dport 53 dnat to 10.0.2.2"), &[]);
    has(&nat("", "iifname != uplink tcp dport 80 dnat to 10.0.2.2"), &[]);
    has(&nat("", "ip daddr 198.51.100.1 tcp dport 80 dnat to 10.0.2.2"), &[]);
    has(
        &nat("", "iifname { work, uplink } ip daddr 192.0.2.2 tcp dport 80 dnat to 10.0.2.2"),
        &["tcp 192.0.2.2 80-80"],
    );
}

#[test]
fn many_callers_keep_no_fewer_ports() {
    let side = "chain side { dnat to 10.0.1.2\n}";
    let calls: String =
        (0..100).map(|i| format!("ip daddr 192.0.2.2 tcp dport {} jump side\n", 2 * i + 1)).collect();
    let site = site(&nat(side, &calls));
    for port in (1..200).step_by(2) {
        let is_kept =
            site.policy.forwards().any(|run| run.takes(6, OWN) && run.first <= port && port <= run.last);
        assert!(is_kept, "{port}");
    }
    assert!(!site.policy.forwards().any(|run| run.takes(6, EXTRA) || run.takes(17, OWN)));
}

#[test]
fn nothing_left_for_masquerade_is_worth_a_warning() {
    let masquerade = "chain q { type nat hook postrouting priority srcnat; oifname uplink masquerade\n}";
    let told = |body: &str| {
        let compiled =
            compile_text(PLAN, &nat(masquerade, body)).unwrap_or_else(|d| panic!("{}", d.render(false)));
        lines(compiled.warnings())
    };
    assert_eq!(
        told("  iifname uplink dnat to 10.0.1.2"),
        ["rules.nft:6:3: this dnat takes every tcp and udp port of 192.0.2.2: none is left for sources"]
    );
    assert_eq!(told("ip daddr 192.0.2.3 dnat to 10.0.1.2"), [""; 0]);
    assert_eq!(told("tcp dport 1-40000 dnat to 10.0.1.2"), [""; 0]);
}

#[test]
fn the_text_of_rust_holds_them() {
    let rules = nat("", "ip daddr 192.0.2.2 tcp dport 80 dnat to 10.0.1.2\nudp dport 53 dnat to 10.0.1.2");
    let text = compile_text(PLAN, &rules).map(|compiled| compiled.to_rust()).unwrap_or_default();
    let runs = "static FORWARDS: [::rules::Forward; 2] = [::rules::Forward { protocol: 6, address: ::core::option::Option::Some(::core::net::Ipv4Addr::new(192, 0, 2, 2)), first: 80, last: 80 }, ::rules::Forward { protocol: 17, address: ::core::option::Option::None, first: 53, last: 53 }];";
    assert!(text.lines().any(|line| line == runs), "{text}");
}
