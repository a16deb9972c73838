//! Whether every host has its block of ports, once it is known which addresses are one host's alone.

use rules::forward::take_all_of;

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
    let (taken, left): (Vec<_>, Vec<_>) =
        plan.external().partition(|&address| take_all_of(&program.forwards, address));
    let (first, last) = plan.nat.external_ports;
    let blocks = left.len() as u64 * ((u64::from(last - first) + 1) / u64::from(plan.nat.port_blocks));
    if let Some(one) = taken.first().filter(|_| blocks < plan.hosts) {
        let message = format!(
            "{blocks} blocks for {} hosts: rules.nft gives all ports of {one} to one host",
            plan.hosts
        );
        diagnostics.error(source, plan.blocks_span.clone(), message);
    }
}
