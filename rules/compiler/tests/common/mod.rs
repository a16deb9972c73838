//! A small site and a packet of it.
#![allow(dead_code)]

use std::net::Ipv4Addr;

use rules::object::LogId;
use rules::site::Site;
use rules::{
    Candidate, Connection, CounterId, Decision, Endpoints, Hook, Memory, State, Stations, Tally, Verdict,
};
use rules_compiler::{Diagnostics, compile_text};

/// Uplink and clients work (1), lab (2), vif1 (3), vif2 (4).
pub const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
extra = ["192.0.2.3"]

[[client]]
name = "work"
address = "10.0.1.1/24"

[[client]]
name = "lab"
address = "10.0.2.1/24"

[[client]]
name = "vif1"
address = "10.137.0.1"
peer = "10.137.0.10"

[[client]]
name = "vif2"
address = "10.137.0.1"
peer = "10.137.0.11"

[[route]]
to = "172.16.0.0/12"
via = "10.0.1.254"
"#;

pub const UPLINK: u8 = 0;
pub const WORK: u8 = 1;
pub const LAB: u8 = 2;
pub const VIF1: u8 = 3;
pub const VIF2: u8 = 4;

/// What counters counted, in the order of their statements.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(u16, u32)>);

impl Tally for Counts {
    fn count(&mut self, counter: CounterId, octets: u32) {
        self.0.push((counter.0, octets));
    }

    fn log(&mut self, _: LogId, _: &Candidate) {}

    fn memory(&mut self) -> Option<(&mut Memory, u64)> {
        None
    }
}

/// Those of [`segment`].
pub const ENDPOINTS: Endpoints = Endpoints {
    source: Ipv4Addr::new(10, 0, 1, 2),
    destination: Ipv4Addr::new(198, 51, 100, 7),
    source_port: 40_000,
    destination_port: 443,
};

/// The first segment of a TCP connection from work to the world: 10.0.1.2:40000 to 198.51.100.7:443.
pub fn segment() -> Candidate {
    Candidate {
        input: Some(WORK),
        output: Some(UPLINK),
        source: Ipv4Addr::new(10, 0, 1, 2),
        destination: Ipv4Addr::new(198, 51, 100, 7),
        protocol: 6,
        source_port: 40_000,
        destination_port: 443,
        has_ports: true,
        icmp: None,
        tcp_flags: 0x02,
        tos: 0,
        ttl: 63,
        length: 60,
        identification: 0x1234,
        state: State::New,
        dnat: false,
        snat: false,
        mark: 0,
        stations: Some(Stations { source: [0x52, 0x54, 0, 0, 1, 2], destination: [0x52, 0x54, 0, 0, 0, 1] }),
        connection: Some(Connection::opened(ENDPOINTS)),
    }
}

/// The same by UDP, to port 53.
pub fn datagram() -> Candidate {
    Candidate { protocol: 17, destination_port: 53, tcp_flags: 0, ..segment() }
}

/// An echo request of the same hosts.
pub fn echo() -> Candidate {
    Candidate {
        protocol: 1,
        source_port: 0,
        destination_port: 0,
        has_ports: false,
        tcp_flags: 0,
        icmp: Some((8, 0)),
        ..segment()
    }
}

/// A file with this body in a chain at forward that drops by policy.
pub fn forward(body: &str) -> String {
    format!(
        "table inet f {{\nchain c {{\ntype filter hook forward priority filter; policy drop;\n{body}\n}}\n}}\n"
    )
}

pub fn site(rules: &str) -> &'static Site {
    match compile_text(PLAN, rules) {
        Ok(compiled) => compiled.leak(),
        Err(diagnostics) => panic!("{rules}\n{}", diagnostics.render(false)),
    }
}

pub fn refused(rules: &str) -> Diagnostics {
    match compile_text(PLAN, rules) {
        Ok(_) => panic!("this compiles:\n{rules}"),
        Err(diagnostics) => diagnostics,
    }
}

/// The errors and warnings, one a line.
pub fn lines(diagnostics: &Diagnostics) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

pub fn evaluate(site: &Site, hook: Hook, candidate: &Candidate) -> (Decision, Counts, Candidate) {
    let mut counts = Counts::default();
    let mut candidate = candidate.clone();
    let decision = site.policy.evaluate(hook, &mut candidate, &mut counts);
    (decision, counts, candidate)
}

pub fn verdict(site: &Site, candidate: &Candidate) -> Verdict {
    evaluate(site, Hook::Forward, candidate).0.verdict
}

/// Rules, from line 4 on in a chain at forward, and what is told about them.
pub fn refuses(cases: &[(&str, &[&str])]) {
    for (rules, told) in cases {
        let diagnostics = refused(&forward(rules));
        let told: Vec<String> = told.iter().map(|line| format!("rules.nft:{line}")).collect();
        assert_eq!(lines(&diagnostics), told, "{rules}");
    }
}

/// Whole files, and what is told about them.
pub fn refuses_files(cases: &[(&str, &[&str])]) {
    for (rules, told) in cases {
        let diagnostics = refused(rules);
        let told: Vec<String> = told.iter().map(|line| format!("rules.nft:{line}")).collect();
        assert_eq!(lines(&diagnostics), told, "{rules}");
    }
}

/// Numbers that look like chance (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((z >> 32) * u64::from(bound)) >> 32) as u32
    }

    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }
}
