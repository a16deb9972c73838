//! What sessions leave to do once both sides have spoken, where their state alone tells.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, CounterId, Hook, Point, Policy, Residue, Stage, State, Verdict};
use rules_compiler::compile_text;

fn established(rules: &str) -> Residue {
    site(rules).policy.established()
}

/// The same of a body in a chain at forward that drops by policy.
fn of_forward(body: &str) -> Residue {
    established(&forward(body))
}

#[test]
fn a_rule_for_the_state_settles_whatever_the_packet_is() {
    for (body, counters) in [
        ("ct state established,related accept", &[][..]),
        ("ct state established,related counter accept\nct state invalid drop\ntcp dport 22 accept", &[0]),
        (
            "ct state invalid counter drop\nct state new tcp dport 25 reject\nct state established counter accept",
            &[1],
        ),
        ("ct state vmap { established : accept, related : accept, invalid : drop }\nip ttl 5 drop", &[]),
        ("ct state != new counter\nct state established accept", &[0]),
        ("tcp flags syn ip saddr 10.0.1.2\nct state established accept", &[]),
        ("jump known\n}\nchain known {\nct state established counter accept", &[0]),
    ] {
        let residue = of_forward(body);
        assert!(residue.is_settled(), "{body}");
        assert_eq!(residue.counters().map(|CounterId(at)| at).collect::<Vec<_>>(), counters, "{body}");
    }
}

#[test]
fn what_depends_on_more_than_the_state_is_left_to_each_session() {
    for body in [
        "tcp dport 22 accept",
        "ip ttl < 5 drop\nct state established accept",
        "iifname work ct state established accept",
        "tcp dport 22 counter\nct state established accept",
        "ct state new accept",
        "ct state established limit rate 5/second accept",
        "log prefix \"x\"\nct state established accept",
        "ct mark 1 drop\nct state established accept",
        "ip saddr . tcp dport { 10.0.1.2 . 443 } drop\nct state established accept",
        "meta mark set 1\nct state established accept",
        "iifname work jump known\nct state established accept\n}\nchain known {\nip ttl 3 drop",
    ] {
        assert_eq!(of_forward(body), Residue::UNKNOWN, "{body}");
    }
}

#[test]
fn every_hook_on_the_way_has_its_say() {
    let open = forward("ct state established counter accept");
    let with = |rules: &str| established(&format!("{open}table inet g {{\n{rules}\n}}\n"));
    let chain = |hook: &str, priority: &str, body: &str| {
        format!("chain d {{ type filter hook {hook} priority {priority}; policy accept; {body}\n}}")
    };
    assert_eq!(with("").counters().count(), 1);
    for (hook, priority) in
        [("prerouting", "raw"), ("prerouting", "mangle"), ("postrouting", "0"), ("forward", "9")]
    {
        assert_eq!(with(&chain(hook, priority, "counter")).counters().count(), 2, "{hook} {priority}");
        assert_eq!(with(&chain(hook, priority, "ip ttl 5 drop")), Residue::UNKNOWN, "{hook} {priority}");
    }
    // They are not on the way; and sessions are not known at raw priority.
    assert!(with(&chain("input", "0", "ip ttl 5 drop")).is_settled());
    assert!(with(&chain("output", "0", "ip ttl 5 drop")).is_settled());
    assert_eq!(with(&chain("prerouting", "raw", "tcp dport 53 notrack")), Residue::UNKNOWN);
    assert_eq!(with(&chain("prerouting", "raw", "ct state invalid drop")), Residue::UNKNOWN);
    assert!(with(&chain("prerouting", "mangle", "ct state invalid drop")).is_settled());
    assert_eq!(with(&chain("prerouting", "mangle", "ct state established drop")), Residue::UNKNOWN);
}

/// The verdicts and counters that packets of an established session meet from port to port.
fn met(policy: &Policy, candidate: &Candidate) -> (bool, Vec<u16>) {
    let mut counts = Counts::default();
    let mut early = Candidate { state: State::Invalid, connection: None, ..candidate.clone() };
    let mut passes = policy.evaluate_later(Stage::Untracked, &mut early, &mut counts) == Verdict::Accept;
    let mut candidate = candidate.clone();
    let on: [Point; 4] =
        [Stage::Received.into(), Stage::Translated.into(), Hook::Forward.into(), Hook::Postrouting.into()];
    for at in on {
        passes = passes && policy.evaluate_later(at, &mut candidate, &mut counts) == Verdict::Accept;
    }
    (passes, counts.0.iter().map(|&(counter, _)| counter).collect())
}

#[test]
fn what_is_said_ahead_holds_for_every_packet() {
    let mut random = Random(0xe57a);
    let rules = [
        "ct state established accept",
        "ct state established,related counter accept",
        "ct state != established drop",
        "ct state new tcp dport 22 drop",
        "ct state { invalid, new } drop",
        "tcp dport 22",
        "tcp dport 22 counter",
        "ip ttl 1 drop",
        "iifname work accept",
        "ct direction reply ct state new drop",
        "ct state established counter",
        "jump other",
        "ct state new jump other",
        "ct state established goto other",
        "ct state established return",
        "iifname lab jump other",
    ];
    let (mut settled, mut unsettled, mut refused) = (0, 0, 0);
    for round in 0..3000 {
        let mut body = |count: u32, inner: bool| -> String {
            let rules: Vec<_> = rules.into_iter().filter(|rule| !(inner && rule.contains("other"))).collect();
            let count = 1 + random.below(count);
            let filler = if random.below(8) == 0 {
                "ip ttl 200 drop comment \"weir: allow shadowed\"\n".repeat(14)
            } else {
                String::new()
            };
            let lines =
                (0..count).map(|_| format!("{} comment \"weir: allow shadowed\"\n", random.of(&rules)));
            filler + &lines.collect::<String>()
        };
        let (other, first, second) = (body(3, true), body(4, false), body(2, false));
        let rules = format!(
            "table inet f {{\nchain other {{ comment \"weir: allow unreachable\"\n{other}}}\nchain a {{ type filter hook prerouting priority mangle; policy accept;\n{second}}}\nchain c {{ type filter hook forward priority 0; policy {};\n{first}}}\n}}\n",
            random.of(&["accept", "drop"])
        );
        let Ok(compiled) = compile_text(PLAN, &rules) else {
            refused += 1;
            continue;
        };
        let policy = &compiled.leak().policy;
        let residue = policy.established();
        if !residue.is_settled() {
            unsettled += 1;
            continue;
        }
        settled += 1;
        let counters: Vec<u16> = residue.counters().map(|CounterId(at)| at).collect();
        for _ in 0..30 {
            let candidate = random.candidate();
            let (passes, mut counted) = met(policy, &candidate);
            counted.sort_unstable();
            let mut counters = counters.clone();
            counters.sort_unstable();
            assert_eq!((passes, counted), (true, counters), "round {round}: {candidate:?}\n{rules}");
        }
    }
    assert!(settled > 150 && unsettled > 150, "{settled} settled, {unsettled} not, {refused} refused");
}

impl Random {
    fn candidate(&mut self) -> Candidate {
        let protocol = self.of(&[6, 17, 1, 132]);
        let has_ports = protocol != 1;
        Candidate {
            input: Some(self.below(5) as u8),
            output: Some(self.below(5) as u8),
            source: Ipv4Addr::from_bits(self.below(u32::MAX)),
            protocol,
            has_ports,
            destination_port: if has_ports { self.of(&[22, 443]) } else { 0 },
            icmp: (protocol == 1).then_some((8, 0)),
            ttl: self.of(&[1, 63, 200]),
            state: State::Established,
            ..segment()
        }
    }
}
