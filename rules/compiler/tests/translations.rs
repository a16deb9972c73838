//! What snat, dnat and masquerade offer: ports, ranges of addresses, one to one.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, Decision, Hook, SourceNat};

/// A file with this body in a nat chain at prerouting or postrouting.
fn nat(hook: &str, body: &str) -> String {
    let priority = if hook == "prerouting" { "dstnat" } else { "srcnat" };
    format!(
        "# weir: allow open\ntable ip n {{\nchain c {{ type nat hook {hook} priority {priority}\n{body}\n}}\n}}\n"
    )
}

/// The errors of a body, its first line being line 4 of the file.
fn told(hook: &str, body: &str) -> Vec<String> {
    lines(&refused(&nat(hook, body)))
}

fn source(body: &str, candidate: &Candidate) -> Option<SourceNat> {
    evaluate(site(&nat("postrouting", body)), Hook::Postrouting, candidate).0.snat
}

fn destination(body: &str, candidate: &Candidate) -> Option<(Ipv4Addr, Option<u16>)> {
    let decision: Decision = evaluate(site(&nat("prerouting", body)), Hook::Prerouting, candidate).0;
    decision.dnat
}

/// A segment from the world to this port of the uplink's address.
fn inbound(port: u16) -> Candidate {
    Candidate {
        input: Some(UPLINK),
        output: None,
        source: Ipv4Addr::new(198, 51, 100, 7),
        destination: Ipv4Addr::new(192, 0, 2, 2),
        destination_port: port,
        ..segment()
    }
}

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const EXTRA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

#[test]
fn masquerade_names_its_ports_and_flags() {
    let masquerade = |ports, random| Some(SourceNat::Masquerade { ports, random });
    for (body, expected) in [
        ("masquerade", masquerade(None, false)),
        ("masquerade persistent", masquerade(None, false)),
        ("masquerade random", masquerade(None, true)),
        ("masquerade persistent, fully-random", masquerade(None, true)),
        ("meta l4proto { tcp, udp } masquerade to :2000", masquerade(Some((2000, 2000)), false)),
        ("ip protocol tcp masquerade to :2000-2999 random,persistent", masquerade(Some((2000, 2999)), true)),
        ("udp dport 53 masquerade to :2000", None),
    ] {
        assert_eq!(source(body, &segment()), expected, "{body}");
    }
}

#[test]
fn snat_names_its_addresses_ports_and_flags() {
    let to = |first, last, ports, random| Some(SourceNat::To { first, last, ports, random });
    for (body, expected) in [
        ("snat to 192.0.2.3", to(EXTRA, EXTRA, None, false)),
        ("snat to 192.0.2.2-192.0.2.3", to(OWN, EXTRA, None, false)),
        ("snat ip to 192.0.2.2-192.0.2.3 persistent", to(OWN, EXTRA, None, false)),
        ("tcp dport 443 snat to 192.0.2.3:4000", to(EXTRA, EXTRA, Some((4000, 4000)), false)),
        ("tcp dport 443 snat to 192.0.2.3:4000-4999", to(EXTRA, EXTRA, Some((4000, 4999)), false)),
        (
            "tcp dport 443 snat to 192.0.2.2-192.0.2.3:4000-4999 fully-random",
            to(OWN, EXTRA, Some((4000, 4999)), true),
        ),
        ("define x = 192.0.2.3\nsnat to $x random", to(EXTRA, EXTRA, None, true)),
    ] {
        assert_eq!(source(body, &segment()), expected, "{body}");
    }
}

#[test]
fn req_3_a_destination_port_stays_within_its_range() {
    let host = Ipv4Addr::new(10, 0, 1, 2);
    let body = "tcp dport 8000-8999 dnat to 10.0.1.2:8080-8090 persistent";
    // The kernel keeps a port of the range; any other becomes the first one.
    for (port, expected) in [(8080, 8080), (8085, 8085), (8090, 8090), (8079, 8080), (8091, 8080)] {
        assert_eq!(destination(body, &inbound(port)), Some((host, Some(expected))));
    }
    assert_eq!(destination("dnat to 10.0.1.2 random", &inbound(80)), Some((host, None)));
}

#[test]
fn a_pool_of_destinations_gives_a_source_one_of_them() {
    let body = "dnat to 10.0.1.2-10.0.1.5";
    let mut met = [false; 4];
    for last in 0..=255 {
        let from = Candidate { source: Ipv4Addr::new(198, 51, 100, last), ..inbound(80) };
        let (address, port) = destination(body, &from).expect("it is translated");
        assert_eq!((destination(body, &from), port), (Some((address, None)), None));
        met[usize::from(address.octets()[3] - 2)] = true;
    }
    assert_eq!(met, [true; 4]);
}

#[test]
fn netmap_is_one_to_one_both_ways() {
    let work = "snat ip prefix to ip saddr map { 10.0.1.2/31 : 192.0.2.2/31 }";
    let from = |last| Candidate { source: Ipv4Addr::new(10, 0, 1, last), ..segment() };
    assert_eq!(source(work, &from(2)), Some(SourceNat::Static(OWN)));
    assert_eq!(source(work, &from(3)), Some(SourceNat::Static(EXTRA)));
    assert_eq!(source(work, &from(4)), None);
    let back = "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.9, 192.0.2.3 : 172.16.0.5 }";
    assert_eq!(destination(back, &inbound(80)), Some((Ipv4Addr::new(10, 0, 2, 9), None)));
    let extra = Candidate { destination: EXTRA, ..inbound(80) };
    assert_eq!(destination(back, &extra), Some((Ipv4Addr::new(172, 16, 0, 5), None)));
    let direct = "ip daddr 192.0.2.2/31 dnat ip prefix to 10.0.1.4/31";
    assert_eq!(destination(direct, &extra), Some((Ipv4Addr::new(10, 0, 1, 5), None)));
}

#[test]
fn a_map_leads_each_key_to_its_place() {
    let body = "tcp dport 80 counter\niifname uplink counter dnat to tcp dport map { 80 : 10.0.1.2 . 80, 443-444 : 10.0.1.3 . 8443,\n 22 : 10.0.2.2 . ssh }";
    let site = site(&nat("prerouting", body));
    let to = |port| {
        let (decision, counts, _) = evaluate(site, Hook::Prerouting, &inbound(port));
        (decision.dnat, counts)
    };
    let counted = |ids: &[u16]| Counts(ids.iter().map(|&id| (id, 60)).collect());
    assert_eq!(to(80), (Some((Ipv4Addr::new(10, 0, 1, 2), Some(80))), counted(&[0, 1])));
    assert_eq!(to(444), (Some((Ipv4Addr::new(10, 0, 1, 3), Some(8443))), counted(&[1])));
    assert_eq!(to(22), (Some((Ipv4Addr::new(10, 0, 2, 2), Some(22))), counted(&[1])));
    assert_eq!(to(81), (None, counted(&[1])));
    let others = "dnat to tcp dport map { * : 10.0.1.9, 80 : 10.0.1.2 }";
    assert_eq!(destination(others, &inbound(80)), Some((Ipv4Addr::new(10, 0, 1, 2), None)));
    assert_eq!(destination(others, &inbound(81)), Some((Ipv4Addr::new(10, 0, 1, 9), None)));
    let ranges = "dnat to tcp dport map { 80 : 10.0.1.2 . 8080-8081, 81 : 10.0.1.3 . 81-82 }";
    assert_eq!(destination(ranges, &inbound(80)), Some((Ipv4Addr::new(10, 0, 1, 2), Some(8080))));
    assert_eq!(destination(ranges, &inbound(81)), Some((Ipv4Addr::new(10, 0, 1, 3), Some(81))));
    let datagram = Candidate { protocol: 17, ..inbound(81) };
    assert_eq!(destination(others, &datagram), None);
}

/// Both directions of a site, and what the build warns of.
fn both(prerouting: &str, postrouting: &str) -> (Result<rules_compiler::Compiled, Vec<String>>, Vec<String>) {
    let chain = |hook: &str, priority: &str, body: &str| {
        format!("chain {hook} {{ type nat hook {hook} priority {priority}\n{body}\n}}\n")
    };
    let rules = format!(
        "# weir: allow open\ntable ip n {{\n{}{}}}\n",
        chain("prerouting", "dstnat", prerouting),
        chain("postrouting", "srcnat", postrouting)
    );
    match rules_compiler::compile_text(PLAN, &rules) {
        Ok(compiled) => {
            let warnings = lines(compiled.warnings());
            (Ok(compiled), warnings)
        }
        Err(told) => (Err(lines(&told)), Vec::new()),
    }
}

#[test]
fn a_host_that_has_an_address_both_ways_has_it_alone() {
    let shown = |prerouting, postrouting, from: Ipv4Addr| {
        let (compiled, warnings) = both(prerouting, postrouting);
        let site = compiled.unwrap_or_else(|told| panic!("{told:?}")).leak();
        let candidate = Candidate { source: from, ..segment() };
        (evaluate(site, Hook::Postrouting, &candidate).0.snat, warnings.len())
    };
    let (host, other) = (Ipv4Addr::new(10, 0, 1, 5), Ipv4Addr::new(10, 0, 1, 6));
    let back = "ip daddr 192.0.2.3 dnat to 10.0.1.5";
    let out = "ip saddr 10.0.1.5 snat to 192.0.2.3\noifname uplink masquerade";
    let masquerade = Some(SourceNat::Masquerade { ports: None, random: false });
    assert_eq!(shown(back, out, host), (Some(SourceNat::Static(EXTRA)), 0));
    assert_eq!(shown(back, out, other), (masquerade, 0));
    let netmap = "dnat ip prefix to ip daddr map { 192.0.2.3/32 : 10.0.1.5/32 }";
    assert_eq!(shown(netmap, out, host), (Some(SourceNat::Static(EXTRA)), 0));
    // Whoever has less than all of it takes ports of it.
    let some = Some(SourceNat::To { first: EXTRA, last: EXTRA, ports: None, random: false });
    assert_eq!(shown("ip daddr 192.0.2.3 tcp dport 80 dnat to 10.0.1.5", out, host), (some, 0));
    assert_eq!(shown("ip daddr 192.0.2.3 dnat to 10.0.1.6", out, host), (some, 1));
    assert_eq!(shown(back, "ip saddr 10.0.1.4/31 snat to 192.0.2.3", host), (some, 1));
    assert_eq!(shown("ip daddr 192.0.2.2 dnat to 10.0.1.5", out, host), (some, 1));
}

#[test]
fn a_netmap_shares_its_addresses_with_nobody() {
    let netmap = "snat prefix to ip saddr map { 10.0.1.2/31 : 192.0.2.2/31 }\n";
    let told = |more: &str| both("", &format!("{netmap}{more}")).0.map(|_| ()).err();
    assert_eq!(told(""), None);
    let error = |address| {
        format!("rules.nft:7:1: prefix to gives {address} to one host alone, and other rules show it too")
    };
    assert_eq!(told("masquerade"), Some(vec![error("192.0.2.2")]));
    assert_eq!(told("snat to 192.0.2.3"), Some(vec![error("192.0.2.3")]));
}

#[test]
fn what_a_source_cannot_be_translated_to() {
    let cases = [
        (
            "snat to 192.0.2.2-192.0.2.4",
            "4:9: 192.0.2.4 is neither the uplink's address nor one of its extra addresses; add it to extra in [uplink] of weir.toml",
        ),
        ("snat to 192.0.2.3-192.0.2.2", "4:9: the range ends before it begins"),
        ("tcp dport 1 snat to 192.0.2.3:9-8", "4:31: the range ends before it begins"),
        ("tcp dport 1 snat to 192.0.2.3:0", "4:31: port 0 is no port to send from"),
        ("tcp dport 1 masquerade to :70000", r#"4:28: "70000" is not a port: 0 to 65535"#),
        ("tcp dport 1 masquerade to 5", r#"4:27: expected ":" and the ports to take, found "5""#),
        (
            "ip protocol icmp masquerade to :2000",
            "4:33: a port needs a match on tcp or udp before it, such as tcp dport 80",
        ),
        (
            "snat prefix to ip saddr map { 10.0.1.0/30 : 192.0.2.2/31 }",
            "4:31: one to one, a /30 and a /31 have not the same size",
        ),
        (
            "snat prefix to 192.0.2.0/24",
            "4:16: 192.0.2.0 is neither the uplink's address nor one of its extra addresses; add it to extra in [uplink] of weir.toml",
        ),
        (
            "tcp dport 1 snat prefix to 192.0.2.2/31:80",
            "4:41: a prefix has no port: one to one, each port stays",
        ),
        (
            "snat to 192.0.2.2 random persistent",
            r#"4:26: expected a match or a statement, found "persistent""#,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(told("postrouting", body), [format!("rules.nft:{expected}")], "{body}");
    }
}

const SHAPE: &str =
    "4:45: the elements of a map lead all to single values or all to ranges, all with a port or all without";
const SHAPE_56: &str =
    "4:56: the elements of a map lead all to single values or all to ranges, all with a port or all without";

#[test]
fn what_is_wrong_in_a_map() {
    let cases = [
        (
            "dnat to tcp dport map { 80 : 10.0.1.2, 79-81 : 10.0.1.3 }",
            "4:40: an earlier element of this map has this key, or a part of it",
        ),
        ("dnat to tcp dport map { * : 10.0.1.2, * : 10.0.1.3 }", "4:39: a map has one * at most"),
        ("dnat to tcp dport map { 0-65535 : 10.0.1.2, * : 10.0.1.3 }", "4:45: this can never be true"),
        (
            "tcp dport 1-9 dnat to tcp dport map { 9 : 10.0.1.2, 10 : 10.0.1.3 }",
            "4:53: this can never be true after the earlier matches of the rule",
        ),
        ("dnat to tcp dport map { 80 10.0.1.2 }", r#"4:28: expected ":", found "10.0.1.2""#),
        (
            "dnat ip addr . port to tcp dport map { 80 : 10.0.1.2 }",
            r#"4:45: "addr . port" wants a map with ports here"#,
        ),
        ("dnat ip addr to 10.0.1.2", r#"4:14: expected ". port" after "addr", found "to""#),
        ("dnat interval to 10.0.1.2", r#"4:18: "interval" wants a range here"#),
        ("dnat to tcp dport map { 80 : 10.0.1.2 . 80, 81 : 10.0.1.3 }", SHAPE),
        ("dnat to tcp dport map { 80 : 10.0.1.2 . 80, * : 10.0.1.3 . 1-2 }", SHAPE),
        ("dnat prefix to ip daddr map { 192.0.2.2 : 10.0.1.2,    1.0.0.0/31 : 10.0.1.2/31 }", SHAPE_56),
        ("dnat to tcp dport map @m", r#"4:23: there is no map "m" in this table"#),
        ("dnat to tcp dport { 80 : 10.0.1.2 }", r#"4:19: expected "map", found "{""#),
        (
            "dnat to ip daddr . tcp dport map { 192.0.2.2 : 10.0.1.2 }",
            r#"4:36: expected 2 values joined by ".": ipv4_addr . inet_service"#,
        ),
        (
            "dnat to oifname map { work : 10.0.1.2 }",
            "4:9: oifname can never be true here: no outgoing interface is chosen yet",
        ),
        (
            "dnat to ip daddr map { 192.0.2.2 : 10.0.1.2 . 80 }",
            "4:47: a port needs a match on tcp or udp before it, such as tcp dport 80",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(told("prerouting", body), [format!("rules.nft:{expected}")], "{body}");
    }
}

#[test]
fn ports_outside_of_the_pool_are_warned_of() {
    let plan = format!("{PLAN}\n[nat]\nexternal_ports = \"2000-2999\"\n");
    let told = |ports: &str| {
        let rules = nat(
            "postrouting",
            &format!("meta l4proto {{ tcp, udp }} oifname uplink snat to 192.0.2.3:{ports}"),
        );
        match rules_compiler::compile_text(&plan, &rules) {
            Ok(compiled) => lines(compiled.warnings()),
            Err(diagnostics) => lines(&diagnostics),
        }
    };
    for silent in ["2000-2999", "2500", "100-1000", "500-1023"] {
        assert_eq!(told(silent), [""; 0], "{silent}");
    }
    let at = "rules.nft:4:60:";
    let pool = "is among external_ports of weir.toml, 2000-2999";
    assert_eq!(told("1024-2100"), [format!("{at} from 1024 on only 2000-2100 of 1024-2100 {pool}")]);
    assert_eq!(told("100-65535"), [format!("{at} from 1024 on only 2000-2999 of 100-65535 {pool}")]);
    assert_eq!(told("100-1500"), [format!("{at} from 1024 on no port of 100-1500 {pool}")]);
    assert_eq!(
        told("3000-4000"),
        [format!("{at} no port of 3000-4000 is among external_ports of weir.toml, 2000-2999")]
    );
}
