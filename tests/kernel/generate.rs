//! Policies by chance, of every form that a rule may have.
//!
//! One rule stands on a line.

use tests::Chance;

use crate::vocabulary::{HOSTS, NETWORKS};

/// Rules of a regular or base chain.
const RULES_MAX: usize = 8;

/// Rules of a long base chain.
const LONG_MAX: usize = 150;

/// Regular chains; each may jump to those after it.
const CHAINS: [&str; 3] = ["alpha", "beta", "gamma"];

const REJECTS: [&str; 9] = [
    "reject",
    "reject with icmp type net-unreachable",
    "reject with icmp type host-unreachable",
    "reject with icmp type port-unreachable",
    "reject with icmp type admin-prohibited",
    "reject with icmp host-prohibited",
    "reject with icmpx type admin-prohibited",
    "reject with icmpx type no-route",
    "reject with tcp reset",
];

/// Where a chain is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// As packets come in.
    Prerouting,
    /// For the router itself.
    Input,
    /// From port to port.
    Forward,
    /// From the router itself.
    Output,
    /// As packets leave.
    Postrouting,
}

/// A policy under construction.
pub struct Text<'a> {
    /// What it is made by.
    pub chance: &'a mut Chance,
    /// Of the table in hand.
    pub family: &'static str,
    /// Whether chains are asked about what the router itself sends.
    asks_about_own: bool,
    /// Whether rules remember packets.
    remembers: bool,
    lines: Vec<String>,
}

/// A policy.
pub fn rules(chance: &mut Chance) -> String {
    let mut text = Text { chance, family: "ip", asks_about_own: false, remembers: false, lines: Vec::new() };
    text.file();
    text.lines.join("\n") + "\n"
}

impl Text<'_> {
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// One of these.
    pub fn one<'b>(&mut self, of: &[&'b str]) -> &'b str {
        self.chance.pick(of)
    }

    fn file(&mut self) {
        self.asks_about_own = self.chance.happens(30);
        self.remembers = self.chance.happens(50);
        self.family = self.one(&["inet", "ip"]);
        self.line(format!("table {} filter {{", self.family));
        self.sets();
        self.memories();
        for at in (0..CHAINS.len()).rev() {
            self.regular(at);
        }
        if self.chance.happens(40) {
            let priority = self.one(&["raw", "mangle", "-199", "-110", "-10", "filter"]);
            self.base("early", At::Prerouting, priority);
        }
        self.base("forward", At::Forward, "filter");
        if self.chance.happens(40) {
            let priority = self.one(&["filter + 10", "security", "filter - 5", "-150"]);
            self.base("again", At::Forward, priority);
        }
        if self.chance.happens(60) {
            self.base("input", At::Input, "filter");
        }
        if self.asks_about_own {
            // What Linux says to strangers outside, Weir does not: chains that are asked about it must not see it.
            self.line("  chain silence {\n    type filter hook input priority -1;");
            self.line("    iifname uplink meta l4proto { tcp, udp } drop\n  }");
            let (name, at) = self.chance.pick(&[("late", At::Postrouting), ("out", At::Output)]);
            self.base(name, at, "mangle");
        }
        self.line("}");
        if self.chance.happens(80) {
            self.nat();
        }
    }

    fn sets(&mut self) {
        let hosts = self.some(&HOSTS);
        let networks = self.some(&NETWORKS[2..]);
        let ports = self.ports();
        self.line(format!("  set hosts {{\n    type ipv4_addr\n    elements = {hosts}\n  }}"));
        self.line(format!("  set networks {{\n    type ipv4_addr\n    flags interval\n    auto-merge\n    elements = {networks}\n  }}"));
        self.line(format!("  set services {{\n    type inet_service\n    flags interval\n    auto-merge\n    elements = {ports}\n  }}"));
    }

    /// Objects and sets that remember.
    fn memories(&mut self) {
        let burst = self.chance.below(30) + 1;
        self.line(format!("  limit few {{\n    rate 2/week burst {burst} packets\n  }}"));
        let octets = 400 * self.chance.below(20) + 100;
        let over = self.one(&["over ", "", "until "]);
        self.line(format!("  quota some {{\n    {over}{octets} bytes\n  }}"));
        self.line("  counter every {\n  }");
        self.line("  set seen {\n    type ipv4_addr\n    size 500\n    flags dynamic\n  }");
        self.line("  set talks {\n    type ipv4_addr . inet_service\n    size 500\n    flags dynamic,timeout\n    timeout 10d\n  }");
        let pairs = self.some(&[
            "10.0.1.2 . 80",
            "10.0.2.5 . 1000-6000",
            "198.51.100.0/24 . 443",
            "10.0.1.0/24 . 22",
        ]);
        self.line(format!("  set pairs {{\n    type ipv4_addr . inet_service\n    flags interval\n    elements = {pairs}\n  }}"));
    }

    fn regular(&mut self, at: usize) {
        self.line(format!("  chain {} {{", CHAINS[at]));
        self.line("    comment \"weir: allow unreachable\"");
        for _ in 0..self.chance.below(RULES_MAX) {
            let rule = self.rule(At::Forward, &CHAINS[at + 1..], true);
            self.line(rule);
        }
        self.line("  }");
    }

    fn base(&mut self, name: &str, at: At, priority: &str) {
        let hook = match at {
            At::Prerouting => "prerouting",
            At::Input => "input",
            At::Forward => "forward",
            At::Output => "output",
            At::Postrouting => "postrouting",
        };
        let policy = self.one(&["accept", "drop", "accept"]);
        let policy = if at == At::Forward { policy } else { "accept" };
        self.line(format!("  chain {name} {{"));
        self.line(format!("    type filter hook {hook} priority {priority}; policy {policy};"));
        if at == At::Forward && self.chance.happens(50) {
            let usual = [
                "    ct state established,related counter accept",
                "    ct state vmap { established : accept, related : accept, invalid : drop }",
                "    ct state invalid counter drop",
            ];
            let usual = self.one(&usual);
            self.line(usual);
        }
        let chains: &[&str] = if at == At::Forward { &CHAINS } else { &[] };
        // Long chains are compiled otherwise.
        let is_long = at == At::Forward && self.chance.happens(25);
        for _ in 0..=self.chance.below(if is_long { LONG_MAX } else { RULES_MAX }) {
            let rule = if is_long { self.access(chains) } else { self.rule(at, chains, false) };
            self.line(rule);
        }
        self.line("  }");
    }

    /// A rule as lists of access rights have them: of addresses and ports, and seldom with a verdict.
    fn access(&mut self, chains: &[&str]) -> String {
        let mut words = Vec::new();
        for (name, percent) in [("iifname", 30), ("oifname", 30), ("ip saddr", 60), ("ip daddr", 60)] {
            if self.chance.happens(percent) {
                let value = if name.starts_with("ip") { self.address() } else { self.interface() };
                words.push(format!("{name} {value}"));
            }
        }
        let transport = self.transport();
        words.push(transport);
        words.push("counter".into());
        if self.chance.happens(15) {
            let verdict = self.one(&["accept", "drop", "reject", "ct state new accept"]);
            words.push(verdict.into());
        } else if self.chance.happens(10) {
            words.push(format!("jump {}", self.one(chains)));
        }
        format!("    {} comment \"weir: allow shadowed\"", words.join(" "))
    }

    fn rule(&mut self, at: At, chains: &[&str], may_return: bool) -> String {
        let (mut words, transport) = self.matches(at);
        if self.remembers && self.chance.happens(25) {
            let memory = self.memory(at);
            // Own packets come in by nothing, and one protocol is enough.
            let is_void = at == At::Output && memory.starts_with("iif");
            let is_second = memory.contains("tcp") && !transport.is_empty();
            if !is_void && !is_second {
                words.push(memory);
            }
        }
        let mut verdict = self.verdict(at, chains, may_return);
        // What can never be true is an error.
        let is_tcp = transport.is_empty() || (transport.contains("tcp ") && !transport.contains("!= tcp"));
        let (about, is_map) = verdict.split_once(" vmap ").map_or(("", false), |(about, _)| (about, true));
        let is_known = words.iter().any(|word| subject(word) == subject(about));
        let is_of_protocol = is_map && !about.starts_with('i') && !transport.is_empty();
        let has_memory = words.iter().any(|word| REMEMBERING.iter().any(|kind| word.starts_with(kind)));
        if is_of_protocol || (is_map && is_known) || (verdict.contains("tcp reset") && !is_tcp) {
            verdict = "drop".into();
        }
        // nft 1.0.6 joins neighbouring fields over what stands between them.
        if has_memory && transport.starts_with("ip ") && words.iter().any(|word| word.starts_with("ip ttl")) {
            words.retain(|word| !word.starts_with("ip ttl"));
        }
        words.push(transport);
        if self.chance.happens(75) || (verdict.is_empty() && words.iter().all(String::is_empty)) {
            words.push("counter".into());
        }
        words.push(verdict);
        words.retain(|word| !word.is_empty());
        format!("    {} comment \"weir: allow shadowed\"", words.join(" "))
    }

    /// Matches that do not contradict each other, and one on a protocol or an empty one.
    fn matches(&mut self, at: At) -> (Vec<String>, String) {
        let mut words: Vec<String> = Vec::new();
        for _ in 0..self.chance.below(3) {
            let matched = self.network(at);
            if words.iter().all(|word| subject(word) != subject(&matched) && !is_joined(word, &matched)) {
                words.push(matched);
            }
        }
        let mut transport = if self.chance.happens(60) { self.transport() } else { String::new() };
        if words.iter().any(|word| is_joined(word, &transport)) {
            transport.clear();
        }
        (words, transport)
    }

    fn verdict(&mut self, at: At, chains: &[&str], may_return: bool) -> String {
        let choice = self.chance.below(100);
        match choice {
            0..28 => "accept".into(),
            28..45 => "drop".into(),
            45..57 if matches!(at, At::Input | At::Forward) => {
                // Linux shows chains the reset of a translated connection as it is before it is translated back.
                let rejects = if self.asks_about_own { &REJECTS[..8] } else { &REJECTS };
                let reject = self.one(rejects);
                if self.family == "inet" {
                    reject.into()
                } else {
                    reject
                        .replace("icmpx type no-route", "icmp type net-unreachable")
                        .replace("icmpx", "icmp")
                }
            }
            57..70 if !chains.is_empty() => {
                let how = self.one(&["jump", "jump", "goto"]);
                format!("{how} {}", self.one(chains))
            }
            70..76 if may_return => "return".into(),
            76..84 => self.verdict_map(at, chains),
            _ => String::new(),
        }
    }

    fn verdict_map(&mut self, at: At, chains: &[&str]) -> String {
        let mut verdicts = vec!["accept".to_owned(), "drop".into(), "continue".into()];
        verdicts.extend(chains.iter().map(|chain| format!("jump {chain}")));
        let (key, values): (&str, &[&str]) = match self.chance.below(6) {
            0 => ("tcp dport", &["22", "80-90", "443", "5000-5001"]),
            1 => ("udp dport", &["53", "5000", "40000"]),
            2 => ("ip saddr", &["10.0.1.2", "10.0.2.0/24", "198.51.100.0/24"]),
            3 => ("meta l4proto", &["tcp", "udp", "icmp"]),
            4 if at != At::Output => ("iifname", &["work", "lab", "uplink"]),
            _ => ("ip daddr", &["10.0.1.0/24", "10.0.2.5", "203.0.113.0/24"]),
        };
        let kept: Vec<&str> = values.iter().copied().filter(|_| self.chance.happens(70)).collect();
        let kept = if kept.is_empty() { vec![values[0]] } else { kept };
        let items =
            kept.iter().map(|value| format!("{value} : {}", verdicts[self.chance.below(verdicts.len())]));
        let items: Vec<String> = items.collect();
        format!("{key} vmap {{ {} }}", items.join(", "))
    }

    fn nat(&mut self) {
        self.line("table ip nat {");
        self.line("  chain prerouting {");
        self.line("    type nat hook prerouting priority dstnat;");
        let forwards = [
            "ip daddr 192.0.2.2 tcp dport 80 counter dnat to 10.0.1.2",
            "ip daddr 192.0.2.2 tcp dport 443 counter dnat to 10.0.1.3:8443",
            "iifname \"uplink\" udp dport 5000-5001 counter dnat to 10.0.2.5",
            "iifname \"uplink\" udp dport 53 counter dnat to 10.0.2.2:53",
            "iifname \"uplink\" tcp dport 22 ip saddr 198.51.100.0/24 counter dnat to 10.0.1.7:22",
            "ip daddr 192.0.2.2 counter dnat to tcp dport map { 1000 : 10.0.1.2 . 80, 5000 : 10.0.2.2 . 22 }",
            "ip daddr 203.0.113.5 tcp dport 40000 counter dnat to 10.0.1.4",
        ];
        for forward in forwards {
            if self.chance.happens(35) {
                self.line(format!("    {forward}"));
            }
        }
        self.line("  }\n  chain postrouting {");
        self.line("    type nat hook postrouting priority srcnat;");
        let sources = [
            "ip saddr 10.0.1.3 oifname \"uplink\" counter accept",
            "oifname \"uplink\" tcp dport 443 counter masquerade to :40000-40999",
            "ip saddr 10.0.2.0/24 oifname \"uplink\" counter snat to 192.0.2.2",
            "iifname \"lab\" oifname \"work\" counter snat to 192.0.2.2",
            "oifname \"uplink\" meta l4proto udp counter masquerade random",
            "oifname \"uplink\" counter masquerade",
        ];
        for source in sources {
            if self.chance.happens(50) {
                self.line(format!("    {source}"));
            }
        }
        self.line("  }\n}");
    }
}

/// How statements that remember begin.
const REMEMBERING: [&str; 6] = ["limit", "quota", "counter", "add", "update", "meta l4proto tcp update"];

/// What a match looks at; lengths are one thing.
fn subject(words: &str) -> &str {
    let key = words.split(" vmap ").next().unwrap_or_default();
    match key.split_whitespace().next().unwrap_or_default() {
        name @ ("iifname" | "oifname") => name,
        _ if key.contains("length") => "length",
        _ => key.match_indices(' ').nth(1).map_or(key, |(at, _)| &key[..at]),
    }
}

/// nft 1.0.6 joins two `!=` on neighbouring fields into one comparison of both, which is another rule.
fn is_joined(one: &str, other: &str) -> bool {
    let is_small = |words: &str| words.contains("!=") && words.starts_with("ip ") && !words.contains("addr");
    is_small(one) && is_small(other)
}
