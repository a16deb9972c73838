//! Marks from maps, maps of what routes say, counters of elements, packets without a connection.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, Hook, Residue, Stage, State, Verdict};

fn from(host: u8) -> Candidate {
    Candidate { source: Ipv4Addr::new(10, 0, 1, host), ..segment() }
}

fn to(destination: [u8; 4]) -> Candidate {
    Candidate { destination: destination.into(), ..segment() }
}

/// The verdict of rules of a chain at forward, and the mark that they leave.
fn marked(rules: &str, candidate: &Candidate) -> (Verdict, u32) {
    let (decision, _, candidate) = evaluate(site(&forward(rules)), Hook::Forward, candidate);
    (decision.verdict, candidate.mark)
}

#[test]
fn a_mark_is_looked_up_and_the_rule_goes_on_if_one_is_found() {
    let rules = "meta mark set ip saddr map { 10.0.1.2 : 7, 10.0.1.8/29 : 0x10 } accept";
    assert_eq!(marked(rules, &from(2)), (Verdict::Accept, 7));
    assert_eq!(marked(rules, &from(9)), (Verdict::Accept, 16));
    assert!(matches!(marked(rules, &from(3)), (Verdict::Drop(_), 0)), "without an element the rule ends");
    let others = "meta mark set ip saddr map { 10.0.1.2 : 7, * : 9 } accept";
    assert_eq!(marked(others, &from(3)), (Verdict::Accept, 9));
    let joined = "meta mark set ip saddr . tcp dport map { 10.0.1.2 . 443 : 7 } accept";
    assert_eq!(marked(joined, &from(2)), (Verdict::Accept, 7));
    assert!(matches!(marked(joined, &datagram()), (Verdict::Drop(_), 0)));
}

#[test]
fn what_stands_around_a_map_of_marks_is_done_once() {
    let rules = "counter meta mark set iifname map { work : 1, lab : 2 } counter tcp dport vmap { 443 : accept, 22 : drop }";
    let (decision, counts, candidate) = evaluate(site(&forward(rules)), Hook::Forward, &segment());
    assert_eq!((decision.verdict, candidate.mark), (Verdict::Accept, 1));
    assert_eq!(counts.0, [(0, 60), (1, 60)]);
    let rules = "tcp dport 22 meta mark set iifname map { work : 1 } accept\nmeta mark 0 accept";
    assert_eq!(marked(rules, &segment()), (Verdict::Accept, 0));
}

#[test]
fn a_mark_that_is_looked_up_by_a_mark_is_looked_up_once() {
    let rules = "meta mark set 1\nmeta mark set meta mark map { 1 : 2, 2 : 3 } accept";
    assert_eq!(marked(rules, &segment()), (Verdict::Accept, 2));
}

#[test]
fn a_chain_that_is_called_twice_looks_up_twice() {
    let rules = "table inet f {
chain m { meta mark set meta mark map { 0 : 5, 6 : 7 } counter
}
chain c { type filter hook forward priority filter; policy accept;
jump m
meta mark set 9
jump m
}
}
";
    let (_, counts, candidate) = evaluate(site(rules), Hook::Forward, &segment());
    assert_eq!((counts.0.len(), candidate.mark), (1, 9), "9 is not in the map");
}

#[test]
fn named_maps_of_marks() {
    let rules = "table inet f {
map m { type ipv4_addr : mark
flags interval
elements = { 10.0.1.0/29 : 4 }
}
map t { typeof tcp dport : ct mark
elements = { 443 : 6 }
}
chain c { type filter hook forward priority filter; policy drop;
ct mark set tcp dport map @t
meta mark set ip saddr map @m accept
}
}
";
    let (decision, _, candidate) = evaluate(site(rules), Hook::Forward, &segment());
    let of_connection = candidate.connection.map(|connection| connection.mark);
    assert_eq!((decision.verdict, candidate.mark, of_connection), (Verdict::Accept, 4, Some(6)));
}

#[test]
fn maps_of_marks_are_checked() {
    refuses(&[
        (
            "meta mark set ip saddr map { 10.0.1.2 : 1, 10.0.1.2 : 2 } accept",
            &["4:44: an earlier element of this map has this key, or a part of it"],
        ),
        ("meta mark set ip saddr map { 10.0.1.2 : tcp } accept", &[r#"4:41: "tcp" is not a mark"#]),
        ("meta mark set ip saddr map @m accept", &[r#"4:28: there is no map "m" in this table"#]),
        (
            "meta mark set tcp dport accept",
            &["4:15: a mark is made from a number, from meta mark, from ct mark, or looked up in a map"],
        ),
    ]);
}

#[test]
fn the_way_to_an_address_is_that_of_routes() {
    let accepts = |rule: &str, candidate: &Candidate| {
        verdict(site(&forward(&format!("{rule} accept"))), candidate) == Verdict::Accept
    };
    let (world, lab, routed) = ([198, 51, 100, 7], [10, 0, 2, 9], [172, 16, 5, 5]);
    let (own, broadcast) = ([10, 0, 2, 1], [10, 0, 2, 255]);
    for (rule, yes, no) in [
        ("fib daddr oif lab", vec![lab], vec![world, own, broadcast, routed]),
        ("fib daddr oifname { work, lab }", vec![lab, routed], vec![world, own]),
        ("fib daddr oif != uplink", vec![lab, own, broadcast], vec![world]),
        ("fib daddr oif exists", vec![lab, world, routed], vec![own, broadcast, [224, 0, 0, 1]]),
        ("fib daddr oif missing", vec![own, broadcast], vec![lab, world]),
        ("fib daddr oif 0", vec![own], vec![lab]),
    ] {
        yes.into_iter().for_each(|address| assert!(accepts(rule, &to(address)), "{rule} {address:?}"));
        no.into_iter().for_each(|address| assert!(!accepts(rule, &to(address)), "{rule} {address:?}"));
    }
    assert!(accepts("fib saddr oif work", &segment()));
    let rules = "fib daddr oif vmap { lab : drop, uplink : accept, * : accept }";
    let of = |candidate: &Candidate| verdict(site(&forward(rules)), candidate);
    assert!(matches!(of(&to(lab)), Verdict::Drop(_)));
    assert_eq!((of(&to(world)), of(&to(own))), (Verdict::Accept, Verdict::Accept));
    let rules = "fib daddr type vmap { local : accept, broadcast : accept }";
    let of = |candidate: &Candidate| verdict(site(&forward(rules)), candidate);
    assert_eq!((of(&to(own)), of(&to(broadcast))), (Verdict::Accept, Verdict::Accept));
    assert!(matches!(of(&to(lab)), Verdict::Drop(_)));
    refuses(&[(
        "fib daddr type vmap { local : accept, { local, unicast } : drop }",
        &["4:39: a key of a map is no set: write an element for each"],
    )]);
}

#[test]
fn elements_count_together_and_the_build_says_so() {
    let rules = "table inet f {
set s { type ipv4_addr
counter
elements = { 10.0.1.2 counter packets 0 bytes 0, 10.0.1.3 }
}
chain c { type filter hook forward priority filter; policy drop;
ip saddr @s tcp dport 443 accept
ip saddr != @s accept
}
}
";
    let compiled =
        rules_compiler::compile_text(PLAN, rules).unwrap_or_else(|told| panic!("{}", told.render(false)));
    assert_eq!(
        lines(compiled.warnings()),
        ["rules.nft:3:1: elements are not counted one by one here: this counts them all together"]
    );
    let site = compiled.leak();
    let counts = |candidate: &Candidate| evaluate(site, Hook::Forward, candidate).1.0;
    assert_eq!(counts(&segment()), [(0, 60)]);
    assert_eq!(counts(&datagram()), [(0, 60)], "an element that is met counts, whatever follows");
    assert_eq!(counts(&from(9)), []);
    let (_, counted, _) =
        evaluate(crate::site(&forward("meter m { ip saddr counter } accept")), Hook::Forward, &segment());
    assert_eq!(counted.0, [(0, 60)]);
}

#[test]
fn before_connections_are_known_packets_are_invalid_or_untracked() {
    let rules = "# weir: allow open
table inet f {
chain c { type filter hook prerouting priority raw;
ct state invalid tcp dport 443 notrack
ct state untracked counter
}
}
";
    let site = site(rules);
    let early = Candidate { state: State::Invalid, connection: None, ..segment() };
    let met = |candidate: &Candidate| {
        let mut counts = Counts::default();
        let mut candidate = candidate.clone();
        site.policy.evaluate(Stage::Untracked, &mut candidate, &mut counts);
        (candidate.state, counts.0.len())
    };
    assert_eq!(met(&early), (State::Untracked, 1));
    assert_eq!(met(&Candidate { destination_port: 80, ..early.clone() }), (State::Invalid, 0));
    assert_eq!(site.policy.residue(Stage::Untracked, &early), Residue::PER_PACKET);
    refuses_files(&[(
        "# weir: allow open\ntable inet f {\nchain c { type filter hook prerouting priority raw\nct state new accept\nct mark 5 accept\n}\nchain d { type filter hook prerouting priority mangle\nnotrack\n}\n}\n",
        &[
            "4:1: this can never be true here: before connections are known (priority -200) a packet is invalid, or untracked behind notrack",
            "5:1: ct mark before connections are known (priority -200) is not in this version's subset",
            "8:1: notrack has its place at prerouting before connections are known, such as priority raw",
        ],
    )]);
}

#[test]
fn an_assertion_sees_packets_without_a_connection() {
    let rules = |claim: &str| {
        format!(
            "# weir: {claim}
table inet f {{
chain r {{ type filter hook prerouting priority raw; ip daddr 10.0.2.9 tcp dport 22 notrack
}}
chain c {{ type filter hook forward priority filter; policy drop;
ct state untracked accept
tcp dport 22 accept
}}
chain i {{ type filter hook input priority filter; policy drop; }}
}}
"
        )
    };
    let holds = |claim: &str| rules_compiler::compile_text(PLAN, &rules(claim)).is_ok();
    assert!(holds("always iifname work ip daddr 10.0.2.9 tcp dport 22 accept"));
    assert!(!holds("never iifname work ip daddr 10.0.2.9 tcp dport 22"));
    assert!(holds("never iifname work ip daddr 10.0.2.9 tcp dport 23"));
}

#[test]
fn what_cannot_be_had_says_what_to_do_instead() {
    refuses(&[
        (
            "ip dscp set ef accept",
            &[
                r#"4:1: "ip dscp set" has no place here: headers keep their DSCP; mark packets where they come from, or behind the firewall"#,
            ],
        ),
        (
            "meta priority set 1:10 accept",
            &[
                r#"4:1: "meta priority" has no place here: packets leave in their order, there are no queues; leave it out"#,
            ],
        ),
        ("ether type arp accept", &["4:1: this can never be true: tables of family inet hold IPv4 and IPv6"]),
    ]);
    assert_eq!(verdict(site(&forward("ether type ip accept")), &segment()), Verdict::Accept);
}
