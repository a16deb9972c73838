//! The appliance's own figures: the JSON line that its console answers to `stats`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Stats {
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// Whether it forwards.
    #[serde(default)]
    pub ready: bool,
    /// Memory in octets.
    #[serde(default)]
    pub memory: Memory,
    /// Sessions alive.
    pub sessions: u64,
    /// Mappings alive.
    pub mappings: u64,
    /// Sessions that had to go for others, as there was no room.
    #[serde(default)]
    pub evicted: u64,
    /// Entries of the neighbour cache.
    #[serde(default)]
    pub neighbors: u64,
    /// Receive buffers that nobody holds.
    #[serde(default)]
    pub buffers_free: u64,
    /// The ports, uplink first.
    pub ports: Vec<Port>,
    /// The counters of the policy.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What this version of the launcher does not know.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// Memory in octets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Memory {
    /// What the machine has.
    pub total: u64,
    /// What was never used.
    #[serde(default)]
    pub heap_free: u64,
    /// What this version of the launcher does not know.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// One port's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Port {
    /// `uplink`, or the client's name.
    pub name: String,
    /// Its MAC.
    #[serde(default)]
    pub mac: String,
    /// Whether the device says that the link is up.
    #[serde(default)]
    pub up: bool,
    /// In octets of IP.
    #[serde(default)]
    pub mtu: u32,
    /// Frames received.
    pub rx_frames: u64,
    /// Octets received.
    #[serde(default)]
    pub rx_octets: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Octets sent.
    #[serde(default)]
    pub tx_octets: u64,
    /// Frames that ended here, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// What this version of the launcher does not know.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// One counter of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rule {
    /// `rules.nft:7`.
    pub at: String,
    /// Packets counted.
    pub packets: u64,
    /// Octets counted.
    pub octets: u64,
}

impl Stats {
    /// The port of that name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// Frames dropped for a reason, over all ports.
    pub fn drops(&self, reason: &str) -> u64 {
        self.ports.iter().filter_map(|port| port.drops.get(reason)).sum()
    }

    /// The packets that the rule at `rules.nft:LINE` counted.
    pub fn rule_packets(&self, at: &str) -> u64 {
        self.rules.iter().filter(|rule| rule.at == at).map(|rule| rule.packets).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"uptime_ms":1200,"ready":true,"memory":{"total":33554432,"heap_free":9},"sessions":3,"mappings":2,"neighbors":1,"buffers_free":250,
        "ports":[{"name":"uplink","mac":"52:54:00:00:00:01","up":true,"mtu":1500,"rx_frames":5,"rx_octets":500,"tx_frames":6,"tx_octets":600,"drops":{"policy":2}},
        {"name":"work","rx_frames":1,"tx_frames":1,"drops":{"policy":1},"backlog":4}],"rules":[{"at":"rules.nft:7","packets":9,"octets":900}],"new":1}"#;

    #[test]
    fn a_line_reads_with_known_and_new_fields() {
        let stats: Stats = serde_json::from_str(LINE).unwrap();
        assert_eq!((stats.sessions, stats.drops("policy"), stats.drops("none")), (3, 3, 0));
        assert_eq!(stats.port("work").unwrap().more["backlog"], 4);
        assert_eq!((stats.rule_packets("rules.nft:7"), stats.rule_packets("rules.nft:8")), (9, 0));
        assert_eq!(stats.more["new"], 1);
    }
}
