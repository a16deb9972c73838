//! Trees over long chains: they change what a packet costs, never what becomes of it.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::opening::Openings;
use rules::table::Chain;
use rules::{Candidate, Hook, Policy, State};
use rules_compiler::compile_text;

impl Random {
    /// An address of few, so that packets meet rules.
    fn address(&mut self) -> Ipv4Addr {
        let [a, b] = self.of(&[[10, 0], [10, 137], [198, 51], [203, 0]]);
        Ipv4Addr::new(a, b, self.below(4) as u8, self.below(8) as u8)
    }

    fn port(&mut self) -> u16 {
        self.of(&[22, 53, 80, 443, 1024, 8080, 40_000, 65_535])
    }

    fn prefix(&mut self) -> String {
        match self.of(&[32, 32, 31, 30, 24, 22, 16, 8]) {
            32 => self.address().to_string(),
            length => {
                let mask = u32::MAX << (32 - length);
                format!("{}/{length}", Ipv4Addr::from_bits(self.address().to_bits() & mask))
            }
        }
    }

    /// Matches of a rule that can hold together.
    fn matches(&mut self) -> Vec<String> {
        let mut parts = Vec::new();
        let mut add = |random: &mut Self, odds: u32, text: &dyn Fn(&mut Self, &str) -> String| {
            if random.below(odds) == 0 {
                let not = random.of(&["", "", "", "!= "]);
                parts.push(text(random, not));
            }
        };
        add(self, 2, &|random, not| format!("ip saddr {not}{}", random.prefix()));
        match self.below(3) {
            0 => add(self, 1, &|_, not| format!("ip daddr {not}{{ 10.0.1.2, 198.51.2.4-198.51.3.1 }}")),
            _ => add(self, 2, &|random, not| format!("ip daddr {not}{}", random.prefix())),
        }
        add(self, 4, &|random, not| {
            format!("iifname {not}{}", random.of(&["work", "lab", "uplink", "{ vif1, vif2 }"]))
        });
        match self.below(4) {
            0 => add(self, 1, &|random, not| {
                format!("meta l4proto {not}{}", random.of(&["tcp", "udp", "icmp"]))
            }),
            1 => {
                add(self, 2, &|random, _| format!("udp sport 53-{}", random.of(&[1024, 40_000, 65_535])));
                add(self, 2, &|random, not| format!("udp dport {not}{}", random.port()));
            }
            _ => {
                add(self, 2, &|random, not| format!("tcp dport {not}{}", random.port()));
                add(self, 4, &|_, not| format!("tcp sport {not}{{ 22, 7000-9000 }}"));
                add(self, 6, &|_, _| "tcp flags & (syn | ack) == syn".into());
            }
        }
        add(self, 8, &|random, _| random.of(&["ip ttl 63", "ct state new", "ip length 60"]).into());
        parts
    }

    fn rule(&mut self) -> String {
        let mut parts = self.matches();
        let at = self.below(parts.len() as u32 + 1) as usize;
        parts.insert(at, self.of(&["counter", "", ""]).into());
        let verdict = self.of(&["accept", "drop", "accept", "counter", "jump other", "goto other", "return"]);
        // Without a match it would be the last rule of its chain.
        let verdict = if parts.len() == 1 { "counter" } else { verdict };
        format!("{} {verdict} comment \"weir: allow shadowed\"\n", parts.join(" "))
    }

    fn candidate(&mut self) -> Candidate {
        let protocol = self.of(&[6, 6, 17, 1, 47]);
        let has_ports = protocol == 6 || protocol == 17;
        Candidate {
            input: Some(self.below(5) as u8),
            output: Some(self.below(5) as u8),
            source: self.address(),
            destination: self.address(),
            protocol,
            source_port: if has_ports { self.port() } else { 0 },
            destination_port: if has_ports { self.port() } else { 0 },
            icmp: (protocol == 1).then_some((8, 0)),
            tcp_flags: if protocol == 6 { self.of(&[2, 16, 18]) } else { 0 },
            ttl: self.of(&[1, 63]),
            state: self.of(&[State::New, State::Established]),
            ..segment()
        }
    }
}

/// The policy without its trees, and without chains for first packets.
fn plain(policy: &Policy) -> Policy {
    let chains: Vec<Chain> = policy.chains.iter().map(|chain| Chain { trees: None, ..*chain }).collect();
    Policy { chains: chains.leak(), openings: Openings::NONE, ..*policy }
}

#[test]
fn a_packet_meets_the_same_rules_with_trees_and_without() {
    let mut random = Random(0x5eed);
    let (mut with_trees, mut refused) = (0, 0);
    for round in 0..300 {
        let count = random.of(&[12, 20, 40, 100, 300]);
        let body: String = (0..count).map(|_| random.rule()).collect();
        let other: String =
            (0..random.of(&[1, 14, 30])).map(|_| random.rule().replace("other", "end")).collect();
        let rules = format!(
            "table ip f {{\n chain end {{ counter\n }}\n chain other {{\n{other} }}\n chain c {{\n type filter hook forward priority filter; policy drop;\n{body} }}\n}}\n"
        );
        // Some can never hold; those files are refused.
        let Ok(compiled) = compile_text(PLAN, &rules) else {
            refused += 1;
            continue;
        };
        let policy = compiled.leak().policy;
        let plain = plain(&policy);
        with_trees += usize::from(policy.chains.iter().any(|chain| chain.trees.is_some()));
        for _ in 0..200 {
            let candidate = random.candidate();
            let [ours, theirs] = [&policy, &plain].map(|policy| {
                let mut counts = Counts::default();
                let decision = policy.evaluate(Hook::Forward, &mut candidate.clone(), &mut counts);
                (decision, counts, policy.residue(Hook::Forward, &candidate))
            });
            assert_eq!(ours, theirs, "round {round}: {candidate:?}\n{rules}");
        }
    }
    assert!(with_trees > 50 && refused < 200, "{with_trees} with trees, {refused} refused");
}

/// Rules as access lists have them: hosts and networks, mostly with a port.
fn access_list(count: u32) -> String {
    let mut random = Random(7);
    let mut rules = String::from("ct state established,related accept\n");
    for _ in 0..count {
        let length = random.of(&[32, 32, 32, 24, 28, 16]);
        let source = (10 << 24 | random.below(1 << 24)) & (u32::MAX << (32 - length));
        let to = random.of(&[32, 32, 32, 24, 28, 20]);
        let destination =
            (random.below(32) << 24 | 0x6000_0000 | random.below(1 << 24)) & (u32::MAX << (32 - to));
        let port = match random.below(4) {
            0 => format!("udp dport {}", random.below(65_536)),
            1 => String::new(),
            _ => format!("tcp dport {}", random.of(&[22, 25, 80, 443, 8080])),
        };
        let addresses = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
        let verdict = random.of(&["accept", "accept", "drop"]);
        rules += &format!(
            "ip saddr {}/{length} ip daddr {}/{to} {port} {verdict} comment \"weir: allow shadowed\"\n",
            addresses.0, addresses.1
        );
    }
    rules
}

#[test]
fn ten_thousand_rules_take_few_steps_and_octets() {
    let plan = PLAN.replace("10.0.1.1/24", "10.0.1.1/9").replace("10.0.2.1/24", "10.200.2.1/16");
    let plan = plan.replace("10.137.0.1\"", "10.237.0.1\"").replace("10.137.0.10", "10.237.0.10");
    let plan = plan.replace("10.137.0.11", "10.237.0.11");
    let of = |count| {
        let compiled = compile_text(&plan, &forward(&access_list(count)));
        let compiled = compiled.unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)));
        let summary = compiled.summary();
        let steps = summary.split("at most ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        (steps.unwrap_or(u32::MAX), compiled.octets())
    };
    let ((few, _), (many, octets)) = (of(10), of(10_000));
    assert!(many <= 3 * few, "{few} steps for 10 rules, {many} for 10 000");
    assert!(octets <= 48 * 10_000, "{octets} octets");
}

#[test]
fn a_chain_with_trees_says_so() {
    let rules = |count: u32| (1..=count).map(|port| format!("tcp dport {port} accept\n")).collect::<String>();
    let explained = |count| {
        let compiled = compile_text(PLAN, &forward(&rules(count)))
            .unwrap_or_else(|told| panic!("{}", told.render(false)));
        compiled.explain().lines().nth(1).unwrap_or_default().to_owned()
    };
    assert!(explained(40).starts_with("  decided by trees: "), "{}", explained(40));
    assert_eq!(explained(3), "  rules.nft:4  protocol 6, dport 1, accept");
}
