//! What a site says about translation.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use crate::endpoint::protocol;

/// Idle times after which sessions end, in seconds, 0 to 2^30.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// UDP (RFC 4787 REQ-5): 300.
    pub udp: u32,
    /// TCP, established (RFC 5382 REQ-5): 7440.
    pub tcp_established: u32,
    /// TCP, opening, closing or reset (RFC 5382 REQ-5): 240.
    pub tcp_transitory: u32,
    /// ICMP queries (RFC 5508 REQ-2): 60.
    pub icmp: u32,
    /// Other protocols: 600.
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { udp: 300, tcp_established: 7440, tcp_transitory: 240, icmp: 60, other: 600 }
    }
}

/// What a NAT is made for.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Sessions at most, up to 2^23; memory is taken for all of them at once.
    pub sessions: u32,
    /// Addresses that sources may be translated to.
    pub external: &'a [Ipv4Addr],
    /// Ports at or above 1024 that sources may be translated to. Ports below 1024 serve internal
    /// ports below 1024 (RFC 4787 REQ-3 a).
    pub external_ports: RangeInclusive<u16>,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Whether inbound packets refresh UDP and ICMP sessions too (RFC 4787 REQ-6).
    pub inbound_refresh: bool,
}

/// What each client has for sure, and what it may have at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientQuota {
    /// Kept for each client whatever the others do; none: an even share of half of the pool.
    pub floor: Option<u32>,
    /// Never exceeded; none: what the others' unused floors leave.
    pub ceiling: Option<u32>,
}

/// From whom a mapping takes packets that no session awaits (RFC 4787 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// From nobody.
    #[default]
    AddressAndPortDependent,
    /// From the addresses that it has a session with.
    AddressDependent,
    /// From anybody.
    EndpointIndependent,
}

/// What a NAT may do besides, for [`Nat::with_options`](crate::Nat::with_options); by default it
/// judges TCP windows and does nothing else of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether TCP segments outside of their windows are refused (RFC 9293 3.10.7.4).
    pub tcp_windows: bool,
    /// From whom UDP mappings take packets (RFC 4787 REQ-8).
    pub udp_filtering: Filtering,
    /// From whom TCP mappings take segments (RFC 5382 REQ-3).
    pub tcp_filtering: Filtering,
    /// Seconds for which a released port is kept from other internal endpoints, unless no other
    /// port is free: 120.
    pub port_rest: u32,
    /// How many clients there are to be fair among; 0: nobody counts.
    pub clients: u8,
    /// A client's sessions.
    pub session_quota: ClientQuota,
    /// A client's mappings at each external address: of each protocol, low and high ports apart.
    pub mapping_quota: ClientQuota,
    /// Whether protocols without ports have sessions, by address: see [`Packet::tuple_with`](crate::Packet::tuple_with).
    pub other_protocols: bool,
    /// Whether a TCP segment in the middle of a connection opens a session: those of before a
    /// start go on then, at windows that nobody knows.
    pub pickup: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tcp_windows: true,
            udp_filtering: Filtering::default(),
            tcp_filtering: Filtering::default(),
            port_rest: 0,
            clients: 0,
            session_quota: ClientQuota::default(),
            mapping_quota: ClientQuota::default(),
            other_protocols: false,
            pickup: false,
        }
    }
}

impl Options {
    /// How packets of a protocol are filtered; ICMP queries have no filter to choose.
    pub(crate) const fn filtering(&self, protocol: u8) -> Filtering {
        match protocol {
            protocol::UDP => self.udp_filtering,
            protocol::TCP => self.tcp_filtering,
            _ => Filtering::AddressAndPortDependent,
        }
    }

    /// Whether peers' addresses have to be kept.
    pub(crate) fn knows_contacts(&self) -> bool {
        [self.udp_filtering, self.tcp_filtering].contains(&Filtering::AddressDependent)
    }
}
