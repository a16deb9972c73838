//! What a site says about translation.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use crate::endpoint::{Tuple, protocol};
use crate::session::Class;
use crate::timers::TIMEOUT_MAX;

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

/// Well-known ports (0 to 1023), a set of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WellKnownPorts([u64; 16]);

impl WellKnownPorts {
    /// None of them.
    pub const NONE: Self = Self([0; 16]);

    /// With the ports from `first` to `last` too; those above 1023 are left out.
    #[must_use]
    pub const fn with(mut self, first: u16, last: u16) -> Self {
        let mut port = first as usize;
        while port <= last as usize && port < 1024 {
            self.0[port / 64] |= 1 << (port % 64);
            port += 1;
        }
        self
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0)
    }
}

/// A shorter idle time for UDP sessions to some destination ports (RFC 4787 REQ-5 b).
///
/// ```
/// use nat::{Options, UdpShort, WellKnownPorts};
///
/// let ports = WellKnownPorts::NONE.with(53, 53).with(123, 123);
/// let options = Options { udp_short: UdpShort { ports, seconds: 60 }, ..Options::default() };
/// assert!(options.udp_short.ports.contains(53) && !options.udp_short.ports.contains(54));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpShort {
    /// The destination ports, as the opening packet has them when it arrives; by default none.
    pub ports: WellKnownPorts,
    /// The idle time in seconds, 0 to 2^30.
    pub seconds: u32,
}

/// The idle time of each class of sessions, one second more than the site says: the present second
/// is not whole.
pub(crate) struct Lifetimes([u32; 8]);

impl Lifetimes {
    pub(crate) fn new(timeouts: &Timeouts, short: &UdpShort) -> Self {
        let mut all = [0; 8];
        let of = [
            (Class::Udp, timeouts.udp),
            (Class::UdpShort, short.seconds),
            (Class::Icmp, timeouts.icmp),
            (Class::Other, timeouts.other),
            (Class::TcpTransitory, timeouts.tcp_transitory),
            (Class::TcpEstablished, timeouts.tcp_established),
        ];
        for (class, timeout) in of {
            all[class as usize] = timeout.min(TIMEOUT_MAX) + 1;
        }
        Self(all)
    }

    /// The first second in which a session of a class that was refreshed now is no more.
    #[inline]
    pub(crate) const fn end(&self, class: Class, now: u32) -> u32 {
        now.wrapping_add(self.0[class as usize])
    }
}

/// What a NAT is made for.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Sessions at most, up to 2^23; memory is taken for all of them at once. A mapping that outlives
    /// the session that began it counts as one until another of its internal endpoint comes.
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

/// External ports that no mapping may have (RFC 4787 REQ-3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// TCP, UDP, or ICMP, whose ports are identifiers of queries.
    pub protocol: u8,
    /// The external address.
    pub address: Ipv4Addr,
    /// The ports.
    pub ports: RangeInclusive<u16>,
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
    /// Destination ports whose UDP sessions end sooner.
    pub udp_short: UdpShort,
    /// Whether it is told which sessions have ended, see [`Nat::take_ended`](crate::Nat::take_ended).
    pub tells_ends: bool,
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
            udp_short: UdpShort::default(),
            tells_ends: false,
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

    /// The class of a new session.
    pub(crate) fn class(&self, original: &Tuple) -> Class {
        match original.protocol() {
            protocol::UDP if self.udp_short.ports.contains(original.destination().port) => Class::UdpShort,
            protocol::UDP => Class::Udp,
            protocol::TCP => Class::TcpTransitory,
            protocol::ICMP => Class::Icmp,
            _ => Class::Other,
        }
    }

    /// Whether peers' addresses have to be kept.
    pub(crate) fn knows_contacts(&self) -> bool {
        [self.udp_filtering, self.tcp_filtering].contains(&Filtering::AddressDependent)
    }
}
