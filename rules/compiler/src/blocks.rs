//! Whether every host has its block of ports, once it is known which addresses are one host's alone.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::diagnostics::Diagnostics;
use crate::plan::Plan;
use crate::program::Program;
use crate::source::Source;

/// Tells when the addresses that are left for blocks are too few (RFC 7422).
///
/// That they fit into all addresses was seen when `weir.toml` was read.
pub(crate) fn fit(plan: &Plan, program: &Program, source: &Source, diagnostics: &mut Diagnostics) {
    if plan.nat.port_blocks == 0 || !plan.is_sound || diagnostics.errors() > 0 {
        return;
    }
    let all = |protocol, address: Ipv4Addr| {
        let whole = |first, last| (first, last) == (1, u16::MAX);
        program.forwards.iter().any(|it| it.takes(protocol, address) && whole(it.first, it.last))
    };
    let taken: BTreeSet<_> = plan.external().filter(|&it| all(6, it) && all(17, it)).collect();
    let left = plan.external().filter(|address| !taken.contains(address)).count() as u64;
    let (first, last) = plan.nat.external_ports;
    let blocks = left * ((u64::from(last - first) + 1) / u64::from(plan.nat.port_blocks));
    if let Some(one) = taken.first().filter(|_| blocks < plan.hosts) {
        let message = format!(
            "{blocks} blocks for {} hosts: rules.nft gives all ports of {one} to one host",
            plan.hosts
        );
        diagnostics.error(source, plan.blocks_span.clone(), message);
    }
}
