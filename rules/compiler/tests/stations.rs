//! `ether saddr` and `ether daddr`: the frame that brought a packet.

mod common;

use common::*;
use rules::{Candidate, Hook, Stations, Verdict};

const PORT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

fn from(source: [u8; 6]) -> Candidate {
    Candidate { stations: Some(Stations { source, destination: PORT }), ..segment() }
}

/// A host of the vendor 52:54:00.
fn host(last: u8) -> Candidate {
    from([0x52, 0x54, 0, 0, 1, last])
}

fn own() -> Candidate {
    Candidate { stations: None, input: None, ..segment() }
}

const SETS: &str = "set known { type ether_addr; elements = { 52:54:00:00:01:02, 52:54:0:0:1:4 } }
set blocks { typeof ether saddr; flags interval; elements = { 52:54:00:00:01:02-52:54:00:00:02:00, 02:00:00:00:00:00/8 } }
set pairs { type ether_addr . ipv4_addr; flags interval; elements = { 52:54:00:00:01:02 . 10.0.1.0/30, 52:54:00:00:01:04-52:54:00:01:00:00 . 10.0.1.2 } }
chain one { counter accept; }
";

/// Whether `rule`, in a chain that drops by policy, accepts.
fn accepts(rule: &str, candidate: &Candidate) -> bool {
    let rules = forward(rule).replacen("{\n", &format!("{{\n{SETS}"), 1);
    let rules = rules.replace("chain one {", "chain one { comment \"weir: allow unreachable\"\n");
    verdict(site(&rules), candidate) == Verdict::Accept
}

#[test]
fn a_station_is_matched_as_nft_matches_it() {
    let edge = from([0x52, 0x54, 0, 0, 2, 0]);
    let cases: &[(&str, &[Candidate], &[Candidate])] = &[
        ("ether saddr 52:54:00:00:01:02", &[host(2)], &[host(3), from([0x52, 0x55, 0, 0, 1, 2]), own()]),
        ("ether saddr \"52:54:0:0:1:2\"", &[host(2)], &[host(3)]),
        ("ether saddr != 52:54:00:00:01:02", &[host(3), from([0x52, 0x55, 0, 0, 1, 2])], &[host(2), own()]),
        ("ether daddr 52:54:00:00:00:01", &[host(2)], &[own()]),
        ("ether daddr != 52:54:00:00:00:01", &[], &[host(2), own()]),
        (
            "ether saddr { 52:54:00:00:01:02, 52:54:00:00:01:05-52:54:00:00:01:09 }",
            &[host(2), host(7)],
            &[host(4), host(10)],
        ),
        ("ether saddr != { 52:54:00:00:01:02, 52:54:00:00:01:05 }", &[host(4)], &[host(2), host(5), own()]),
        ("ether saddr 52:54:00:00:01:02-52:54:00:00:02:00", &[host(2), host(255), edge.clone()], &[host(1)]),
        ("ether saddr 52:53:ff:ff:ff:ff-52:55:00:00:00:00", &[host(2)], &[from([0x52, 0x55, 0, 0, 0, 1])]),
        ("ether saddr 52:54:00:00:00:00/24", &[host(2)], &[from([0x52, 0x54, 1, 0, 1, 2])]),
        ("ether saddr 52:00:00:00:00:00/8", &[host(2)], &[from([0x53, 0x54, 1, 0, 1, 2])]),
        ("ether saddr < 52:54:00:00:01:03", &[host(2), from([0, 0xff, 0, 0, 1, 2])], &[host(3)]),
        ("ether saddr >= 52:54:00:00:01:03", &[host(3), from([0x53, 0, 0, 0, 0, 0])], &[host(2)]),
        (
            "ether saddr & ff:ff:ff:00:00:00 == 52:54:00:00:00:00",
            &[host(2)],
            &[from([0x52, 0x54, 1, 0, 1, 2])],
        ),
        ("ether saddr and 00:00:00:00:00:01 eq 00:00:00:00:00:01", &[host(3)], &[host(2), own()]),
        ("ether saddr & 00:00:00:00:00:01 != 00:00:00:00:00:01", &[host(2)], &[host(3), own()]),
        ("ether saddr @known", &[host(2), host(4)], &[host(3), own()]),
        ("ether saddr != @known", &[host(3)], &[host(4), own()]),
        (
            "ether saddr @blocks",
            &[host(2), edge, from([2, 9, 9, 9, 9, 9])],
            &[host(1), from([3, 9, 9, 9, 9, 9])],
        ),
        (
            "ether saddr . ip saddr @pairs",
            &[host(2), host(4), from([0x52, 0x54, 0, 1, 0, 0])],
            &[host(3), from([0x52, 0x54, 0, 1, 0, 1])],
        ),
        ("ether saddr . ip saddr != @pairs", &[host(3)], &[host(2), own()]),
        ("ip saddr . ether saddr { 10.0.1.2 . 52:54:00:00:01:02 }", &[host(2)], &[host(3), own()]),
        ("ether saddr . ether daddr { 52:54:00:00:01:02 . 52:54:00:00:00:01 }", &[host(2)], &[host(3)]),
        (
            "ether saddr vmap { 52:54:00:00:01:02 : accept, 52:54:00:00:01:04 : jump one }",
            &[host(2), host(4)],
            &[host(3)],
        ),
        ("ether saddr vmap { 52:54:00:00:01:02 : drop, * : accept }", &[host(3)], &[host(2), own()]),
        ("meta mark set ether saddr map { 52:54:00:00:01:02 : 7 } meta mark 7", &[host(2)], &[host(3)]),
    ];
    for (rule, taken, left) in cases {
        let rule = match rule.contains("vmap") {
            true => (*rule).to_owned(),
            false => format!("{rule} accept"),
        };
        assert!(taken.iter().all(|candidate| accepts(&rule, candidate)), "{rule} does not take {taken:?}");
        assert!(!left.iter().any(|candidate| accepts(&rule, candidate)), "{rule} takes one of {left:?}");
    }
}

#[test]
fn stations_in_sets_that_packets_change() {
    let rules = "table inet f {
set seen { type ether_addr; flags dynamic; size 9; elements = { 52:54:00:00:01:04 } }
chain c { type filter hook forward priority 0; policy drop;
ether saddr @seen accept
ether saddr . ip saddr @both drop
add @seen { ether saddr } meter few { ether saddr limit rate 1/second burst 1 packets } accept
}
set both { type ether_addr . ipv4_addr; size 5; flags dynamic; }
}";
    let site = site(&rules.replace("ether saddr . ip saddr @both drop\n", ""));
    let mut memory = Remembering(rules::Memory::new(&site.policy, 1, 0));
    let mut passes = |candidate: &Candidate| {
        site.policy.evaluate(Hook::Forward, &mut candidate.clone(), &mut memory).verdict == Verdict::Accept
    };
    assert!(passes(&host(4)) && passes(&host(2)) && passes(&host(2)) && !passes(&own()));
}

struct Remembering(rules::Memory);

impl rules::Tally for Remembering {
    fn count(&mut self, _: rules::CounterId, _: u32) {}

    fn log(&mut self, _: rules::object::LogId, _: &Candidate) {}

    fn memory(&mut self) -> Option<(&mut rules::Memory, u64)> {
        Some((&mut self.0, 0))
    }
}

#[test]
fn what_is_wrong_with_a_station_is_told_where_it_stands() {
    refuses(&[
        ("ether saddr 52:54:00:00:01 accept", &["4:13: \"52:54:00:00:01\" is not an Ethernet address"]),
        ("ether saddr fe80::1 accept", &["4:13: \"fe80::1\" is an IPv6 address, not an Ethernet address"]),
        ("ether saddr 10.0.1.2 accept", &["4:13: \"10.0.1.2\" is an address, not an Ethernet address"]),
        (
            "ether saddr 5 accept",
            &["4:13: \"5\" is a number, not an Ethernet address, such as 52:54:00:00:00:01"],
        ),
        ("ether saddr host accept", &["4:13: \"host\" is not an Ethernet address"]),
        (
            "ether saddr 52:54:00:00:00:00/49 accept",
            &["4:13: a prefix length of Ethernet addresses is 0 to 48"],
        ),
        (
            "ether saddr 52:54:00:00:00:02-52:54:00:00:00:01 accept",
            &["4:13: the range ends before it begins"],
        ),
        ("ether saddr < 0:0:0:0:0:0 accept", &["4:1: this can never be true"]),
        (
            "ether saddr 52:54:00:00:00:01 ether saddr 52:54:00:00:00:02 accept",
            &["4:31: this can never be true after the earlier matches of the rule"],
        ),
        ("ether saddr & ff:ff:ff:00:00:00 == 52:54:00:00:00:01 accept", &["4:1: this can never be true"]),
        (
            "ether saddr . ether daddr . ip saddr . ip daddr { 52:54:00:00:00:01 . 52:54:00:00:00:02 . 10.0.1.2 . 10.0.2.2 } accept",
            &["4:40: a concatenation joins at most 5 keys, and Ethernet addresses count twice"],
        ),
        (
            "ether saddr 52:54:00:00:00:01 drop\nether saddr 52:54:00:00:00:01 tcp dport 22 accept",
            &[
                "5:1: no packet comes to this rule: the one of line 4 takes them all; if that is meant, say so: comment \"weir: allow shadowed\"",
            ],
        ),
    ]);
    refuses_files(&[(
        "table ip t {\nchain o { type filter hook output priority 0\nether saddr 52:54:00:00:00:01 drop\n}\nchain f { type filter hook forward priority 0; policy accept; }\n}\n",
        &["3:1: ether saddr can never be true here: own packets have no Ethernet header yet"],
    )]);
}

#[test]
fn what_is_said_of_stations_is_proven() {
    let rules = |claim: &str| {
        let body = "ether saddr @known ip saddr 10.0.1.2 accept\nether saddr & ff:ff:ff:00:00:00 == 52:54:00:00:00:00 tcp dport 22 accept";
        format!(
            "# weir: {claim}\n{}",
            forward(body).replacen(
                "{\n",
                "{\nset known { type ether_addr; elements = { 02:00:00:00:00:01, 02:00:00:00:00:02 }; }\n",
                1
            )
        )
    };
    let told = |claim: &str| match rules_compiler::compile_text(PLAN, &rules(claim)) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => lines(&diagnostics),
    };
    for holds in [
        "never iifname work oifname uplink ether saddr 02:00:00:00:00:03",
        "never iifname work oifname uplink ether saddr != { 02:00:00:00:00:01, 02:00:00:00:00:02 } tcp dport != 22",
        "always iifname work oifname uplink ip saddr 10.0.1.2 ether saddr 02:00:00:00:00:02 accept",
        "always iifname work oifname uplink ether saddr 52:54:00:00:00:00-52:54:00:ff:ff:ff tcp dport 22 accept",
    ] {
        assert_eq!(told(holds), Vec::<String>::new(), "{holds}");
    }
    let told = told("never iifname work oifname uplink ether saddr 02:00:00:00:00:00-02:00:00:00:00:0f");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("iif work ip 10.0.1.2 > ") && told[0].contains(" ether 02:00:00:00:00:01;"),
        "{told:?}"
    );
}
