//! What a site says to the `nat` crate.

use alloc::vec::Vec;

use nat::Endpoint;
use rules::site::Site;

use crate::route::Routes;

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

/// External ports that static forwards use: no mapping may take them (RFC 4787 REQ-3).
pub(crate) fn static_forwards(site: &Site) -> Vec<(u8, Endpoint)> {
    let _ = site;
    Vec::new()
}
