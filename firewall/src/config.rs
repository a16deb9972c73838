//! What a site says to the `nat` crate.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat::{Reserved, protocol};
use rules::site::{Site, SynAnswer};

use crate::route::Routes;
use crate::syn;

/// The `nat` crate's view of a site.
pub(crate) fn nat_config<'a>(site: &Site, routes: &'a Routes) -> nat::Config<'a> {
    let (first, last) = site.nat.external_ports;
    let timeout = site.nat.timeout;
    nat::Config {
        sessions: site.nat.sessions,
        external: routes.external(),
        external_ports: first..=last,
        timeouts: nat::Timeouts {
            udp: timeout.udp,
            tcp_established: timeout.tcp_established,
            tcp_transitory: timeout.tcp_transitory,
            icmp: timeout.icmp,
            other: timeout.other,
        },
        inbound_refresh: site.nat.inbound_refresh,
    }
}

/// What the site chooses of translation's ways.
pub(crate) fn nat_options(site: &Site) -> nat::Options {
    nat::Options {
        tcp_windows: true,
        udp_short: udp_short(site),
        udp_filtering: filtering(site.nat.filtering.udp),
        tcp_filtering: filtering(site.nat.filtering.tcp),
        pickup: site.nat.pickup,
        // By address; the rules say which of them pass.
        other_protocols: true,
        tells_ends: !site.policy.counts.is_empty(),
        port_rest: site.nat.port_rest,
        clients: u8::try_from(site.clients.len()).unwrap_or(u8::MAX),
        mapping_quota: nat::ClientQuota {
            floor: chosen(site.nat.client_floor),
            ceiling: chosen(site.nat.client_ceiling),
        },
        ..nat::Options::default()
    }
}

/// The idle time of UDP to some well-known ports (RFC 4787 REQ-5 b).
fn udp_short(site: &Site) -> nat::UdpShort {
    let Some(short) = site.nat.timeout.udp_short else { return nat::UdpShort::default() };
    let all = short.ports.iter().fold(nat::WellKnownPorts::NONE, |all, &(first, last)| all.with(first, last));
    nat::UdpShort { ports: all, seconds: short.seconds }
}

/// How many fragments may wait for their first one: each keeps the buffer that it came in.
pub(crate) fn held_fragments(site: &Site) -> usize {
    site.nat.fragments as usize / netback::pool::BUFFER
}

/// How many unsolicited SYNs may wait to be answered.
pub(crate) fn held_syns(site: &Site) -> usize {
    match site.nat.syn_answer {
        SynAnswer::Silent => 0,
        SynAnswer::PortUnreachable => syn::HELD,
    }
}

/// Frames that the path itself keeps, whose buffers come on top of those of the ports.
pub fn held_frames(site: &Site) -> usize {
    held_fragments(site) + held_syns(site)
}

/// What the site says, unless it leaves the default with 0.
fn chosen(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

fn filtering(filtering: rules::site::Filtering) -> nat::Filtering {
    match filtering {
        rules::site::Filtering::EndpointIndependent => nat::Filtering::EndpointIndependent,
        rules::site::Filtering::AddressDependent => nat::Filtering::AddressDependent,
        rules::site::Filtering::AddressAndPortDependent => nat::Filtering::AddressAndPortDependent,
    }
}

/// External ports that static forwards use: no mapping may take them (RFC 4787 REQ-3).
pub(crate) fn static_forwards(site: &Site, external: &[Ipv4Addr]) -> Vec<Reserved> {
    let mut reserved = Vec::new();
    for &address in external {
        for forward in site.policy.forwards().filter(|forward| forward.takes(forward.protocol, address)) {
            let ports = forward.first..=forward.last;
            reserved.push(Reserved { protocol: forward.protocol, address, ports });
        }
        if site.policy.takes_all_of(address) {
            // The identifiers of queries are the one host's as well.
            reserved.push(Reserved { protocol: protocol::ICMP, address, ports: 0..=u16::MAX });
        }
    }
    reserved
}
