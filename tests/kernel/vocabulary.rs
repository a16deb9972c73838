//! Words of policies by chance: what rules look at, and what they remember.
//!
//! Values are few, so that rules and packets meet.

use crate::generate::{At, Text};

const CLIENTS: [&str; 2] = ["work", "lab"];

/// Hosts inside and outside.
pub const HOSTS: [&str; 8] =
    ["10.0.1.2", "10.0.1.3", "10.0.1.7", "10.0.2.2", "10.0.2.5", "198.51.100.9", "203.0.113.5", "192.0.2.77"];

/// Networks of theirs, and the clients' own ahead.
pub const NETWORKS: [&str; 7] = [
    "10.0.1.0/24",
    "10.0.2.0/24",
    "10.0.0.0/8",
    "10.0.1.4/30",
    "198.51.100.0/24",
    "203.0.113.0/25",
    "192.0.2.64/26",
];

const PORTS: [u16; 8] = [22, 53, 80, 443, 1000, 5000, 5001, 40_000];

const FLAGS: [&str; 9] = [
    "tcp flags syn",
    "tcp flags == syn",
    "tcp flags & (syn | ack) == syn",
    "tcp flags & (fin | syn | rst | ack) == syn | ack",
    "tcp flags fin,rst",
    "tcp flags != syn",
    "tcp flags syn / syn,ack",
    "tcp flags ! fin,rst",
    "tcp flags { syn, ack, fin | ack, psh | ack }",
];

const ICMP: [&str; 6] = [
    "icmp type echo-request",
    "icmp type { echo-request, echo-reply, destination-unreachable }",
    "icmp type != echo-reply",
    "icmp type destination-unreachable icmp code 1-3",
    "icmp code port-unreachable",
    "icmp type time-exceeded",
];

impl Text<'_> {
    /// `{ a, b }` of these, each at most once.
    pub fn some(&mut self, of: &[&str]) -> String {
        let kept: Vec<&str> = of.iter().copied().filter(|_| self.chance.happens(40)).collect();
        let kept = if kept.is_empty() { vec![self.chance.pick(of)] } else { kept };
        format!("{{ {} }}", kept.join(", "))
    }

    /// Ports and ranges of them that do not overlap.
    pub fn ports(&mut self) -> String {
        let all = ["22", "53", "80-90", "443", "1000-1999", "5000-5001", "30000-40000"];
        self.some(&all)
    }

    /// A statement or match that remembers, or that looks at several things at once.
    pub fn memory(&mut self, at: At) -> String {
        let number = self.chance.below(12) + 1;
        let choice = self.chance.below(18);
        match choice {
            0 => format!("limit rate {number}/week"),
            1 => format!("limit rate over {number}/week burst {} packets", 2 * number),
            2 => format!("limit rate {number}00 bytes/week burst {number} kbytes"),
            3 => format!("quota {number}00 bytes"),
            4 => format!("quota over {number}50 bytes"),
            5 => "limit name few".into(),
            6 => "quota name some".into(),
            7 => "counter name every".into(),
            8 => format!(
                "meta mark set {}",
                self.one(&["1", "0x10", "meta mark or 0x2", "meta mark and 0x12"])
            ),
            9 => format!("meta mark {}", self.one(&["1", "!= 0", "{ 1, 3 }", "& 0x2 == 0x2", "0x10-0x12"])),
            10 => "add @seen { ip saddr }".into(),
            11 => "ip daddr @seen".into(),
            12 => "meta l4proto tcp update @talks { ip saddr . tcp dport timeout 9d }".into(),
            13 => "ip daddr . tcp sport @talks".into(),
            14 => "ip saddr . tcp dport @pairs".into(),
            15 => "iifname . ip saddr { work . 10.0.1.2, lab . 10.0.2.5, uplink . 198.51.100.9 }".into(),
            16 if at == At::Forward => "ct mark set 5".into(),
            17 if at == At::Forward => {
                self.one(&["ct mark 5", "ct direction reply", "ct original ip saddr 10.0.1.0/24"]).into()
            }
            _ => format!("add @seen {{ ip daddr }} ip saddr {}", self.address()),
        }
    }

    /// A match on what any packet has.
    pub fn network(&mut self, at: At) -> String {
        match self.chance.below(16) {
            // What the router says itself comes in no frame. One address alone is not asked for: nft 1.0.6 joins it with
            // the family that a later match implies, and asks for both only there, behind what stands between.
            15 if at != At::Output => self
                .one(&[
                    "ether saddr { 02:00:0a:00:01:02, 02:00:0a:00:01:03 }",
                    "ether saddr != { 02:00:0a:00:01:02, 02:00:0a:00:02:05 }",
                    "ether saddr 02:00:c0:00:00:00/24",
                    "ether saddr . ip saddr { 02:00:0a:00:01:02 . 10.0.1.2, 02:00:0a:00:02:05 . 10.0.0.0/8 }",
                    "ether daddr != 02:ff:00:00:00:01",
                ])
                .into(),
            0 | 1 if at != At::Output => {
                let name = self.interface();
                format!("iifname {name}")
            }
            2 | 3 if matches!(at, At::Forward | At::Output | At::Postrouting) => {
                let name = self.interface();
                format!("oifname {name}")
            }
            4 | 5 => {
                let value = self.address();
                format!("ip saddr {value}")
            }
            6 | 7 => {
                let value = self.address();
                format!("ip daddr {value}")
            }
            // There are no connections ahead of priority -200.
            8 | 9 if at != At::Prerouting => self.state().into(),
            // What Linux and Weir write of themselves there differs in such fields.
            10..=12 if matches!(at, At::Output | At::Postrouting) => "ip ttl 63".into(),
            10 => {
                let (name, values) = self.chance.pick(&[
                    ("ip ttl", ["1", "2", "10", "63", "64"]),
                    ("ip length", ["28", "36", "100", "576", "1000"]),
                    ("meta length", ["28", "36", "100", "576", "1000"]),
                    ("ip id", ["1", "1000", "4660", "30000", "65534"]),
                ]);
                self.compared(name, &values)
            }
            11 => {
                let values = ["cs1", "af11", "ef", "0", "10", "{ cs1, cs2, ef }", "!= cs0", "8-20"];
                format!("ip dscp {}", self.one(&values))
            }
            12 => format!("ip ecn {}", self.one(&["ce", "ect0", "!= not-ect", "{ ect0, ect1 }"])),
            // nft has no use for it elsewhere.
            13 if self.family == "inet" => "meta nfproto ipv4".into(),
            _ if matches!(at, At::Prerouting | At::Output | At::Postrouting) => {
                self.one(&["ip version 4", "meta protocol ip"]).into()
            }
            _ => self
                .one(&[
                    "ip version 4",
                    "meta protocol ip",
                    "ct status dnat",
                    "ct status snat",
                    "ct status ! dnat",
                ])
                .into(),
        }
    }

    fn state(&mut self) -> &'static str {
        self.one(&[
            "ct state new",
            "ct state established",
            "ct state established,related",
            "ct state { new, related }",
            "ct state != established",
            "ct state invalid",
            "ct state != { invalid, untracked }",
            "ct state & (new | invalid) != 0",
        ])
    }

    /// What stands behind `iifname`.
    pub fn interface(&mut self) -> String {
        match self.chance.below(6) {
            0 => "{ work, lab }".into(),
            1 => format!("!= \"{}\"", self.one(&CLIENTS)),
            2 => "\"w*\"".into(),
            3 => "uplink".into(),
            _ => format!("\"{}\"", self.one(&CLIENTS)),
        }
    }

    /// What stands behind `ip saddr`.
    pub fn address(&mut self) -> String {
        let negated = if self.chance.happens(20) { "!= " } else { "" };
        let value = match self.chance.below(6) {
            0 => self.one(&HOSTS).into(),
            1 => self.one(&NETWORKS).into(),
            2 => self.one(&["10.0.1.2-10.0.1.4", "198.51.100.0-203.0.113.255", "10.0.1.7-10.0.2.3"]).into(),
            3 => self.some(&HOSTS),
            4 => "@hosts".into(),
            _ => "@networks".into(),
        };
        format!("{negated}{value}")
    }

    fn compared(&mut self, name: &str, values: &[&str]) -> String {
        let value = self.one(values);
        match self.chance.below(4) {
            0 => format!("{name} {value}"),
            1 => format!("{name} != {value}"),
            2 => format!("{name} {} {value}", self.one(&["<", "<=", ">", ">="])),
            _ => format!("{name} {{ {} }}", values[..3].join(", ")),
        }
    }

    /// A match on a protocol, or on what one protocol has.
    pub fn transport(&mut self) -> String {
        let end = self.one(&["sport", "dport", "dport"]);
        match self.chance.below(10) {
            0..3 => format!("tcp {end} {}", self.port()),
            3..5 => format!("udp {end} {}", self.port()),
            5 => format!("meta l4proto {{ tcp, udp }} th {end} {}", self.port()),
            6 => self.one(&FLAGS).into(),
            7 => self.one(&ICMP).into(),
            8 => {
                format!("meta l4proto {}", self.one(&["tcp", "udp", "icmp", "!= tcp", "{ tcp, udp }", "17"]))
            }
            _ => format!("ip protocol {}", self.one(&["tcp", "udp", "icmp", "!= udp", "{ icmp, 6 }"])),
        }
    }

    fn port(&mut self) -> String {
        let port = self.chance.pick(&PORTS);
        match self.chance.below(7) {
            0 | 1 => port.to_string(),
            2 => format!("!= {port}"),
            3 => format!("{} {port}", self.one(&["<", ">=", "<=", ">"])),
            4 => self.ports(),
            5 => "@services".into(),
            _ => self.one(&["1-1023", "5000-5001", "!= 1024-65535", "ssh", "{ domain, https }"]).into(),
        }
    }
}
