//! What the tables say they take is what they take. A binary of its own: it counts every allocation.

use std::alloc::System;

use firewall::Datapath;
use firewall::contract::Contract;
use netback::pool::BUFFER;
use netback::wire::{Settings, Wire};
use rules::site::Site;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::site::{RULES, plan_with, site};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What frames of tests are larger than those of devices, and small lists.
const TOLERANCE: usize = 16 << 10;

/// Rules that remember.
const MEMORY: &str = r#"
table ip remembers {
  set seen { type ipv4_addr; size 4096; flags dynamic, timeout; timeout 60s; }
  chain forward {
    type filter hook forward priority -5; policy accept;
    ct mark set 7
    add @seen { ip saddr limit rate 10/second }
    ip saddr 10.0.1.9 limit rate 5/second counter
    meter busy size 1000 { ip saddr ct count over 100 } drop
    ct count over 5000 drop
    ip saddr 10.0.1.8 quota 10 mbytes
  }
}
"#;

/// Octets that the appliance of a site holds once it is made.
fn taken(site: &'static Site) -> usize {
    let wires: Vec<Wire> = (0..=site.clients.len()).map(|_| Wire::new(Settings::default())).collect();
    let region = Region::new(ALLOCATOR);
    let datapath = Datapath::new(site, wires, [1, 2, 3, 4]);
    let change = region.change();
    drop(datapath);
    change.bytes_allocated - change.bytes_deallocated
}

#[test]
fn tables_take_what_they_say() {
    let rules = format!("{RULES}{MEMORY}");
    for (lines, rules) in [
        ("", RULES),
        ("[nat]\nsessions = 16", RULES),
        ("[nat]\nsessions = 300000\nfragments = \"4M\"", RULES),
        ("[nat]\nsyn_answer = \"port-unreachable\"\nfiltering = \"address-dependent\"", RULES),
        ("", rules.as_str()),
    ] {
        let site = site(&plan_with(lines), rules);
        let contract = Contract::of(site);
        let Contract { sessions, rules, neighbors, fragments, answers, .. } = contract;
        // Buffers are the pool's, which is not the datapath's.
        let held = firewall::held_frames(site) * BUFFER;
        let told = sessions + rules + neighbors + fragments + answers - held;
        let taken = taken(site);
        assert!(told.abs_diff(taken) <= TOLERANCE, "{lines}: told {told}, taken {taken}: {contract:?}");
    }
}
