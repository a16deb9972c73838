//! What the appliance takes of a machine's memory, by part.
//!
//! The figures are those by which it allocates: each table tells its own beside its constructor. The image compares
//! them with what there is before it begins, the launcher with what the site declares. Nothing is allocated later.

use netback::{Pool, Received, pool::BUFFER, port};
use rules::site::Site;

use crate::config::{held_fragments, held_frames, held_syns, nat_config, nat_options};
use crate::counters::RuleCounters;
use crate::datapath::{KnownWays, LIMITERS};
use crate::effects::Effects;
use crate::fragment::Fragments;
use crate::icmp::Limiter;
use crate::identification::Identifications;
use crate::neighbor::Neighbors;
use crate::route::Routes;
use crate::syn::Syns;

// What a site may say of a port, the port does.
const _: () = assert!(rules::site::MTU_MAX == port::MTU_MAX);

/// Where the image is loaded.
const LOADED_AT: usize = 16 << 20;
/// What is no memory of ours below 1 MiB: the first 64 KiB, and from 639 KiB on.
const LOW: usize = (64 + 385) << 10;
/// What firmware keeps at the end of memory: 128 KiB on QEMU's q35.
const FIRMWARE: usize = 256 << 10;
/// What the machine takes besides: lists of devices, routes, records of ports, gaps in front of pages.
const MACHINE: usize = 16 << 10;
/// The same for each port.
const MACHINE_PORT: usize = 4 << 10;

/// How much of the heap each part takes, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Sessions, mappings, free ports, timers, and the indexes that find them.
    pub sessions: usize,
    /// Counters, limits, quotas, marks, and sets that packets change.
    pub rules: usize,
    /// The neighbour cache.
    pub neighbors: usize,
    /// Incomplete datagrams, with the buffers of the fragments that are held.
    pub fragments: usize,
    /// Limits of our own answers, SYNs held with their buffers, identifications.
    pub answers: usize,
    /// Receive buffers of all ports, and those that their backlogs share.
    pub buffers: usize,
    /// Rings of all ports.
    pub rings: usize,
    /// What the machine takes besides.
    pub machine: usize,
    /// What may be lost between the heap below the image and the one behind it.
    pub gap: usize,
}

impl Contract {
    /// The contract of a site.
    pub fn of(site: &'static Site) -> Self {
        let ports = site.clients.len() + 1;
        let routes = Routes::new(site);
        let (fragments, syns) = (held_fragments(site), held_syns(site));
        let held = held_frames(site);
        let limiters: usize = LIMITERS.iter().map(|each| Limiter::footprint(ports, *each)).sum();
        let mut contract = Self {
            sessions: nat::Nat::footprint(&nat_config(site, &routes), &nat_options(site)),
            rules: Effects::footprint(site) + RuleCounters::footprint(site.policy.lines.len()),
            neighbors: Neighbors::<Received>::footprint(ports),
            fragments: Fragments::<Received>::footprint(fragments) + fragments * BUFFER,
            answers: limiters
                + Identifications::FOOTPRINT
                + KnownWays::FOOTPRINT
                + Syns::<Received>::footprint(syns)
                + syns * BUFFER,
            buffers: Pool::footprint(port::buffers_for(ports) + held) - held * BUFFER,
            rings: ports * port::FOOTPRINT,
            machine: MACHINE + ports * MACHINE_PORT,
            gap: 0,
        };
        // The ports come first. What they leave below the image may be too little for the largest table.
        let below = LOADED_AT.saturating_sub(LOW).saturating_sub(contract.heap() - contract.sessions);
        let largest = site.nat.sessions as usize * size_of::<nat::Session>();
        contract.gap = if largest > below { below } else { 0 };
        contract
    }

    /// The parts of the heap with their names, in octets.
    pub fn parts(&self) -> [(&'static str, usize); 9] {
        [
            ("sessions and indexes", self.sessions),
            ("rules", self.rules),
            ("neighbours", self.neighbors),
            ("fragments", self.fragments),
            ("answers", self.answers),
            ("buffers", self.buffers),
            ("rings", self.rings),
            ("machine", self.machine),
            ("gap below the image", self.gap),
        ]
    }

    /// Octets of heap.
    pub fn heap(&self) -> usize {
        self.parts().iter().map(|(_, octets)| octets).sum()
    }

    /// Octets of memory that a machine must have, for an image of so many, stacks included.
    pub fn memory(&self, image: usize) -> usize {
        // The image is where it is, however little else there is.
        (LOW + image + self.heap()).max(LOADED_AT + image) + FIRMWARE
    }
}

/// Octets of a hash map made for so many entries (hashbrown): a power of two of buckets, at most seven eighths full, a
/// control octet each, and one group more.
pub(crate) const fn hash_map<K, V>(entries: usize) -> usize {
    let buckets = (entries * 8 / 7).next_power_of_two();
    buckets * (size_of::<(K, V)>() + 1) + 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn contract(sessions: u32) -> Contract {
        let plan = format!(
            "[uplink]\naddress = \"192.0.2.2/24\"\n[[client]]\nname = \"a\"\naddress = \"10.0.1.1/24\"\n[nat]\nsessions = {sessions}\n"
        );
        let site = rules_compiler::compile_text(&plan, "# weir: allow open\n");
        Contract::of(site.expect("a site").leak())
    }

    #[test]
    fn what_is_lost_below_the_image_counts() {
        // The table of sessions finds its place below the image, or it does not.
        assert_eq!(contract(65_536).gap, 0);
        assert!((1 << 20..15 << 20).contains(&contract(500_000).gap));
    }

    #[test]
    fn an_image_is_where_it_is_however_little_there_is_besides() {
        let image = 512 << 10;
        assert!(contract(16).memory(image) > LOADED_AT + image);
        let more = contract(65_536).memory(image + 4096) - contract(65_536).memory(image);
        assert_eq!(more, 4096);
    }
}
