//! What the image will take of the memory that the site says it has.

use rules::site::{Filtering, SynAnswer};

use crate::compiled::octets;
use crate::diagnostics::Diagnostics;
use crate::pack::Packed;
use crate::plan::Plan;
use crate::program::Program;
use crate::source::Source;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A buffer holds a frame, in octets.
const BUFFER: u64 = 4 * KIB;

/// Buffers that are in the pool whatever the number of ports.
const BUFFERS: u64 = 640;

/// Buffers for the rings of a port.
const BUFFERS_OF_PORT: u64 = 384;

/// Rings and heads of a port, in octets.
const RINGS: u64 = 120 * KIB;

/// A session: 64, its index 12, its TCP windows 32, its mapping with what finds it 42, in octets.
const SESSION: u64 = 150;

/// A session's contact with a peer's address, where filtering depends on it, in octets.
const CONTACT: u64 = 24;

/// The free ports of an external address, for each of TCP, UDP and ICMP, in octets: a bit a port, and a tree over them.
const FREE_PORTS: u64 = 9 * KIB;

/// Neighbours, datagrams of which fragments have come, identifications, and the limits on our own answers, in octets.
const TABLES: u64 = 576 * KIB;

/// Unsolicited SYNs that wait to be answered, in octets: a buffer each.
const SYNS: u64 = 128 * BUFFER;

/// The program itself, in octets.
const IMAGE: u64 = MIB;

/// What the machine keeps for itself below the image, in octets.
const KEPT: u64 = MIB;

/// An element of a set that packets change, in octets.
const ELEMENT: u64 = 48;

/// What the sets that packets change take: their elements, and at least two places for each.
fn dynamic_sets(program: &Program) -> u64 {
    let of_set = |size: u64| size * ELEMENT + 4 * (2 * size).next_power_of_two();
    program.dynamic_sets.iter().map(|set| of_set(set.size.into())).sum()
}

/// Tells when the tables do not fit into `memory`.
pub(crate) fn fits(
    plan: &Plan,
    program: &Program,
    packed: &Packed,
    source: &Source,
    diagnostics: &mut Diagnostics,
) {
    let Some(memory) = plan.memory.filter(|_| plan.is_sound) else { return };
    let ports = plan.clients.len() as u64 + 1;
    let addresses = plan.uplink.extra.len() as u64 + 1;
    let filtering = [plan.nat.filtering.tcp, plan.nat.filtering.udp];
    let contact = if filtering.contains(&Filtering::AddressDependent) { CONTACT } else { 0 };
    let parts = [
        ("sessions", u64::from(plan.nat.sessions) * (SESSION + contact)),
        ("free ports", addresses * 3 * FREE_PORTS),
        ("rules", octets(program, packed) as u64),
        ("sets that change", dynamic_sets(program)),
        ("marks", if program.marks_connections { 4 * u64::from(plan.nat.sessions) } else { 0 }),
        ("frames", (BUFFERS + BUFFERS_OF_PORT * ports) * BUFFER + RINGS * ports),
        ("fragments", plan.nat.fragments.into()),
        ("SYNs held", if plan.nat.syn_answer == SynAnswer::Silent { 0 } else { SYNS }),
        ("the machine and the image", KEPT + IMAGE + TABLES),
    ];
    let wanted: u64 = parts.iter().map(|(_, octets)| octets).sum();
    if wanted <= u64::from(memory) * MIB {
        return;
    }
    let told = parts.iter().filter(|(_, octets)| *octets > 0);
    let told: Vec<_> = told.map(|(name, octets)| format!("{name} {} KiB", octets.div_ceil(KIB))).collect();
    let message = format!("the site wants {} MiB, not {memory}: {}", wanted.div_ceil(MIB), told.join(", "));
    diagnostics.error(source, plan.memory_span.clone(), message);
}
