//! Short chains for first packets: they change what a packet costs, never what becomes of it.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::object::LogId;
use rules::opening::Openings;
use rules::{
    Candidate, Connection, CounterId, Hook, Memory, Met, Point, Policy, Stage, State, Tally, Verdict,
};
use rules_compiler::compile_text;

/// What a packet meets, in order.
#[derive(Debug, Default, PartialEq)]
struct Watch {
    counts: Vec<(u16, u32)>,
    met: Vec<Met>,
}

impl Tally for Watch {
    fn count(&mut self, counter: CounterId, octets: u32) {
        self.counts.push((counter.0, octets));
    }

    fn log(&mut self, LogId(log): LogId, _: &Candidate) {
        self.counts.push((log, u32::MAX));
    }

    fn memory(&mut self) -> Option<(&mut Memory, u64)> {
        None
    }

    fn met(&mut self, met: Met) {
        self.met.push(met);
    }
}

/// All that a packet meets at every hook.
fn met(policy: &Policy, candidate: &Candidate) -> (Watch, Vec<Candidate>) {
    let (mut watch, mut then) = (Watch::default(), Vec::new());
    let points: [Point; 7] = [
        Stage::Untracked.into(),
        Stage::Received.into(),
        Stage::Translated.into(),
        Hook::Input.into(),
        Hook::Forward.into(),
        Hook::Postrouting.into(),
        Hook::Output.into(),
    ];
    for at in points {
        let mut candidate = candidate.clone();
        let decision = policy.evaluate(at, &mut candidate, &mut watch);
        then.push(candidate.clone());
        let verdict = policy.evaluate_later(at, &mut candidate, &mut watch);
        watch.met.extend((verdict == Verdict::Accept).then_some(Met::Rule(rules::RuleId(u16::MAX), None)));
        watch.counts.push((u16::from(decision.dnat.is_some()), u32::from(decision.snat.is_some())));
        watch.met.extend((decision.verdict == Verdict::Accept).then_some(Met::Rule(rules::RuleId(0), None)));
        then.push(candidate);
    }
    (watch, then)
}

/// The chain of each case, by the numbers of its rules, that a packet meets first at a hook.
fn rules_met(policy: &Policy, hook: Hook, candidate: &Candidate) -> usize {
    let base = policy.hooks[hook as usize][0];
    let class = |port: u8| usize::from(policy.openings.ports[usize::from(port)]);
    let (input, output) = (candidate.input.map_or(0, class), candidate.output.map_or(0, class));
    let at = (input * usize::from(policy.openings.classes) + output) * rules::opening::PROTOCOLS
        + rules::opening::protocol(candidate.protocol);
    let chain = policy.openings.chains[base.openings as usize + at];
    policy.chains[usize::from(chain)].rules.len()
}

const BODY: &str = "ct state established,related accept
ct state invalid drop
iifname work ip daddr 10.0.0.0/8 drop
iifname work tcp dport 25 reject
iifname work udp dport { 137, 138 } drop
iifname work icmp type echo-request accept
iifname work oifname uplink tcp dport 80 accept
iifname work oifname uplink meta l4proto udp accept
iifname lab oifname uplink accept
ip ttl 1 drop comment \"weir: allow shadowed\"";

#[test]
fn a_first_packet_meets_the_rules_for_its_ports_and_protocol_alone() {
    let policy = &site(&forward(BODY)).policy;
    assert_eq!(policy.chains[usize::from(policy.hooks[Hook::Forward as usize][0].chain)].rules.len(), 10);
    let of = |input: u8, output: u8, base: Candidate| {
        rules_met(policy, Hook::Forward, &Candidate { input: Some(input), output: Some(output), ..base })
    };
    // To 10.0.0.0/8, to port 25, to port 80, and a TTL of 1.
    assert_eq!(of(WORK, UPLINK, segment()), 4);
    // The rule for all of UDP ends them.
    assert_eq!(of(WORK, UPLINK, datagram()), 3);
    assert_eq!(of(WORK, UPLINK, echo()), 3);
    assert_eq!(of(WORK, LAB, segment()), 3);
    assert_eq!(of(LAB, UPLINK, segment()), 1);
    assert_eq!(of(LAB, WORK, segment()), 1);
    assert_eq!(of(VIF1, UPLINK, datagram()), 1);
    // Ports that no rule tells apart are of one class; there are those of work, of lab, of uplink and of others.
    assert_eq!(policy.openings.classes, 4);
}

#[test]
fn what_is_remembered_or_counted_ahead_of_a_match_stays() {
    let rules =
        forward("counter tcp dport 22 accept\nlimit rate 5/second udp dport 53 accept\nct state new counter");
    let policy = &site(&rules).policy;
    for (candidate, counted) in [(segment(), 2), (datagram(), 1), (echo(), 2)] {
        let (watch, _) = met(policy, &candidate);
        assert_eq!(watch.counts.iter().filter(|(_, octets)| *octets == 60).count(), 2 * counted);
    }
}

#[test]
fn many_kinds_of_ports_and_long_chains_have_no_short_ones() {
    let clients: String =
        (1..=20).map(|at| format!("[[client]]\nname = \"c{at}\"\naddress = \"10.1.{at}.1/24\"\n")).collect();
    let plan = format!("[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n{clients}");
    let policy_of = |rules: &str| match compile_text(&plan, rules) {
        Ok(compiled) => compiled.leak().policy,
        Err(diagnostics) => panic!("{}", diagnostics.render(false)),
    };
    let few = policy_of(&forward("iifname { c1, c2, c3 } tcp dport 22 accept"));
    assert_eq!((few.openings.classes, few.openings.ports.len()), (2, 22));
    let many: String = (1..=20).map(|at| format!("iifname c{at} tcp dport {at} accept\n")).collect();
    let many = policy_of(&forward(&many));
    assert!(many.openings.chains.is_empty() && many.openings.ports.is_empty());
    let long: String = (1..=65).map(|at| format!("iifname c1 tcp dport {at} accept\n")).collect();
    let long = policy_of(&forward(&long));
    assert!(long.openings.chains.is_empty());
    // What is short for some is short for them alone.
    let half: String = (1..=40).map(|at| format!("iifname c1 tcp dport {at} accept\n")).collect();
    let half = policy_of(&forward(&(half + "udp dport 53 accept")));
    let own = half.hooks[Hook::Forward as usize][0].chain;
    assert!(half.openings.chains.contains(&own) && half.openings.chains.iter().any(|&chain| chain != own));
}

#[test]
fn short_chains_take_a_bounded_part_of_the_image() {
    // Five kinds of ports, each with rules of its own in many chains.
    let chains: String = (0..40)
        .map(|chain| {
            let rules: String = ["uplink", "work", "lab", "vif1", "vif2"]
                .iter()
                .zip(1..)
                .map(|(name, at)| format!("iifname {name} tcp dport {} accept\n", chain * 10 + at))
                .collect();
            format!(
                "chain c{chain} {{\ntype filter hook forward priority {chain}; policy accept;\n{rules}}}\n"
            )
        })
        .collect();
    let policy = &site(&format!("table inet f {{\n{chains}}}\n")).policy;
    let own =
        policy.hooks[Hook::Forward as usize].iter().map(|base| base.chain).max().expect("there are chains");
    let short: usize = policy.chains.iter().skip(usize::from(own) + 1).map(|chain| chain.rules.len()).sum();
    assert!((100..=512).contains(&short), "{short}");
}

/// What a hook knows of a packet.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Raw,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Random {
    /// Matches of a rule that can hold together.
    fn matches(&mut self, at: At) -> Vec<&'static str> {
        let mut parts = Vec::new();
        let mut add = |random: &mut Self, odds: u32, all: &[&'static str]| {
            if random.below(odds) == 0 {
                parts.push(random.of(all));
            }
        };
        if at != At::Output {
            add(self, 3, &["iifname work", "iifname != work", "iifname { lab, vif1 }", "iifname \"vif*\""]);
        }
        if !matches!(at, At::Raw | At::Prerouting | At::Input) {
            add(self, 3, &["oifname uplink", "oifname != { uplink, work }", "oifname lab"]);
        }
        if matches!(at, At::Input | At::Forward | At::Output) {
            add(
                self,
                3,
                &[
                    "ct state new",
                    "ct state established,related",
                    "ct state != new",
                    "ct state { new, invalid }",
                    "ct direction original",
                    "ct status dnat",
                ],
            );
        }
        match self.below(5) {
            0 => add(
                self,
                1,
                &[
                    "tcp dport 22",
                    "tcp dport != 22",
                    "udp dport { 53, 123 }",
                    "meta l4proto { tcp, udp } th dport 1-1024",
                ],
            ),
            1 => add(self, 1, &["meta l4proto { tcp, udp }", "meta l4proto != tcp", "ip protocol icmp"]),
            2 => add(
                self,
                1,
                &[
                    "icmp type echo-request",
                    "meta l4proto sctp",
                    "ip saddr . tcp dport { 10.0.1.2 . 22, 10.0.1.3 . 443 }",
                ],
            ),
            3 => add(self, 1, &["ip saddr 10.0.1.2", "ip ttl 1", "meta mark 1"]),
            _ => {}
        }
        parts
    }

    fn rule(&mut self, at: At, ends: &[&'static str]) -> String {
        let mut parts = self.matches(at);
        for statement in ["counter", "meta mark set 1", "log prefix \"x\"", "ct mark set 2"] {
            if self.below(9) == 0 && (at != At::Raw || statement != "ct mark set 2") {
                parts.insert(self.below(parts.len() as u32 + 1) as usize, statement);
            }
        }
        // Without a match it would be the last rule of its chain.
        let end = if parts.len() < 2 { "counter" } else { self.of(ends) };
        format!("{} {end} comment \"weir: allow shadowed\"\n", parts.join(" "))
    }

    fn chain(&mut self, name: &str, head: &str, at: At, most: u32, ends: &[&'static str]) -> String {
        let rules: String = (0..=self.below(most)).map(|_| self.rule(at, ends)).collect();
        format!("chain {name} {{ comment \"weir: allow unreachable\"\n{head}\n{rules}}}\n")
    }

    fn ruleset(&mut self) -> String {
        let base = |kind: &str, hook: &str, priority: &str| {
            format!("type {kind} hook {hook} priority {priority}; policy accept;")
        };
        let filter = ["accept", "drop", "counter", "return", "jump other", "goto other", "accept"];
        let drops = base("filter", "forward", "0")
            .replace("policy accept", self.of(&["policy accept", "policy drop"]));
        let most = self.of(&[3, 6, 11, 14, 30]);
        let filters = [
            self.chain("other", "", At::Raw, 4, &["accept", "drop", "counter", "return"]),
            self.chain(
                "a",
                &base("filter", "prerouting", "raw"),
                At::Raw,
                2,
                &["notrack", "drop", "counter"],
            ),
            self.chain("b", &base("filter", "prerouting", "mangle"), At::Prerouting, 3, &filter),
            self.chain("c", &base("filter", "input", "0"), At::Input, 3, &filter),
            self.chain("d", &drops, At::Forward, most, &filter),
            self.chain("e", &base("filter", "forward", "5"), At::Forward, 2, &filter),
            self.chain("f", &base("filter", "output", "0"), At::Output, 2, &filter),
        ];
        let nat = [
            self.chain(
                "g",
                &base("nat", "prerouting", "dstnat"),
                At::Prerouting,
                3,
                &["dnat ip to 10.0.1.9", "accept"],
            ),
            self.chain(
                "h",
                &base("nat", "postrouting", "srcnat"),
                At::Postrouting,
                3,
                &["masquerade", "accept"],
            ),
        ];
        format!("table inet f {{\n{}}}\ntable inet n {{\n{}}}\n", filters.concat(), nat.concat())
    }

    fn packet(&mut self) -> Candidate {
        let protocol = self.of(&[6, 6, 17, 1, 132, 47]);
        let has_ports = protocol != 1 && protocol != 47;
        let port = |port: Option<u32>| port.map(|port| port as u8);
        let (input, output) = (self.below(6).checked_sub(1), self.below(6).checked_sub(1));
        let state = self.of(&[State::New, State::New, State::New, State::Established, State::Invalid]);
        let candidate = Candidate {
            input: port(input),
            output: port(output),
            source: Ipv4Addr::new(10, 0, self.of(&[1, 2]), self.of(&[2, 3])),
            protocol,
            has_ports,
            source_port: if has_ports { 40_000 } else { 0 },
            destination_port: if has_ports { self.of(&[22, 53, 443]) } else { 0 },
            icmp: (protocol == 1).then_some((self.of(&[0, 8]), 0)),
            tcp_flags: if protocol == 6 { 2 } else { 0 },
            ttl: self.of(&[1, 63]),
            state,
            mark: self.below(2),
            dnat: self.below(2) == 1,
            connection: None,
            ..segment()
        };
        let is_known = matches!(state, State::New | State::Established);
        let connection = is_known.then(|| Connection::opened(candidate.endpoints()));
        Candidate { connection, ..candidate }
    }
}

#[test]
fn a_packet_meets_the_same_with_short_chains_and_without() {
    let mut random = Random(0x0be1);
    let (mut with, mut short, mut refused) = (0, 0, 0);
    for round in 0..400 {
        let rules = random.ruleset();
        // Some can never hold; those files are refused.
        let Ok(compiled) = compile_text(PLAN, &rules) else {
            refused += 1;
            continue;
        };
        let policy = &compiled.leak().policy;
        let plain = Policy { openings: Openings::NONE, ..*policy };
        let is_short = !policy.openings.chains.is_empty();
        with += usize::from(is_short);
        for _ in 0..40 {
            let candidate = random.packet();
            let (ours, theirs) = (met(policy, &candidate), met(&plain, &candidate));
            assert_eq!(ours, theirs, "round {round}: {candidate:?}\n{rules}");
            short += usize::from(is_short && candidate.state == State::New);
        }
    }
    assert!(with > 150 && short > 2000, "{with} with short chains, {short} new packets, {refused} refused");
}
