//! Who talks to whom: endpoints, and the tuple that a session is found by.

use core::fmt;
use core::net::Ipv4Addr;

/// Protocol numbers that have sessions here (RFC 790).
pub mod protocol {
    /// ICMP; its sessions are queries (RFC 5508 3).
    pub const ICMP: u8 = 1;
    /// IGMP; it has no sessions, ever: it is between neighbours.
    pub(crate) const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// An address and a port. For ICMP queries see [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// The port, in host order.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint of a port at an address.
    pub const fn new(address: Ipv4Addr, port: u16) -> Self {
        Self { address, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// What identifies a packet's session.
///
/// An ICMP query has its identifier as the port of the querying side; the other side's port is the
/// query's type and code, `type << 8 | code`. A reply carries its query's type there, so that the
/// tuple of a reply is the inverted tuple of its query.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tuple {
    /// The IP protocol number.
    pub protocol: u8,
    /// Where the packet comes from.
    pub source: Endpoint,
    /// Where the packet goes to.
    pub destination: Endpoint,
}

impl Tuple {
    /// The tuple of a packet that travels the other way.
    #[inline]
    pub const fn inverted(&self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }

    /// The tuple as two words, for hashing.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 2] {
        let source = u32::from_ne_bytes(self.source.address.octets());
        let destination = u32::from_ne_bytes(self.destination.address.octets());
        let ports = u32::from(self.source.port) | u32::from(self.destination.port) << 16;
        [u64::from(source) | u64::from(destination) << 32, u64::from(ports) | u64::from(self.protocol) << 32]
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

/// The way a packet of a session travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// As the packet that opened the session.
    Original,
    /// As the answers to it.
    Reply,
}

impl Direction {
    /// The other way.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
