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
    /// DCCP (RFC 4340); it has no ports here.
    pub(crate) const DCCP: u8 = 33;
    /// UDP-Lite (RFC 3828); it has no ports here.
    pub(crate) const UDP_LITE: u8 = 136;
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

/// What identifies a packet's session: protocol, source and destination.
///
/// An ICMP query has its identifier as the port of the querying side; the other side's port is the
/// query's type and code, `type << 8 | code`. A reply carries its query's type there, so that the
/// tuple of a reply is the inverted tuple of its query.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tuple {
    addresses: u64,
    ports: u32,
    protocol: u8,
}

/// Source and destination as a packet has them, octet for octet: two words to compare, to hash and
/// to write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ends {
    /// Octets 12 to 19 of the IPv4 header.
    pub(crate) addresses: u64,
    /// The first four octets of the transport header.
    pub(crate) ports: u32,
}

impl Ends {
    /// Nobody's.
    pub(crate) const NONE: Self = Self { addresses: 0, ports: 0 };

    pub(crate) const fn new(source: Endpoint, destination: Endpoint) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (source.address.octets(), destination.address.octets());
        Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: Self::ports_of(source.port, destination.port),
        }
    }

    pub(crate) const fn ports_of(source: u16, destination: u16) -> u32 {
        let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline]
    pub(crate) const fn source(&self) -> Endpoint {
        let ([a, b, c, d, ..], [high, low, ..]) = (self.addresses.to_ne_bytes(), self.ports.to_ne_bytes());
        Endpoint::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
    }

    #[inline]
    pub(crate) const fn destination(&self) -> Endpoint {
        self.inverted().source()
    }

    /// Those of a packet that travels the other way.
    #[inline]
    pub(crate) const fn inverted(&self) -> Self {
        Self { addresses: self.addresses.rotate_left(32), ports: self.ports.rotate_left(16) }
    }
}

impl Tuple {
    /// The tuple of packets of a protocol from an endpoint to another.
    pub const fn new(protocol: u8, source: Endpoint, destination: Endpoint) -> Self {
        Self::of(protocol, Ends::new(source, destination))
    }

    #[inline]
    pub(crate) const fn of(protocol: u8, ends: Ends) -> Self {
        let Ends { addresses, ports } = ends;
        Self { addresses, ports, protocol }
    }

    #[inline]
    pub(crate) const fn ends(&self) -> Ends {
        Ends { addresses: self.addresses, ports: self.ports }
    }

    /// The IP protocol number.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the packet comes from.
    #[inline]
    pub const fn source(&self) -> Endpoint {
        self.ends().source()
    }

    /// Where the packet goes to.
    #[inline]
    pub const fn destination(&self) -> Endpoint {
        self.ends().destination()
    }

    /// The tuple of a packet that travels the other way.
    #[inline]
    pub const fn inverted(&self) -> Self {
        Self::of(self.protocol, self.ends().inverted())
    }

    /// Source and destination address, as a packet has them.
    #[inline]
    pub(crate) const fn addresses(&self) -> u64 {
        self.addresses
    }

    /// The tuple as two words, for hashing.
    #[inline]
    pub(crate) const fn words(&self) -> [u64; 2] {
        [self.addresses, self.ports as u64 | (self.protocol as u64) << 32]
    }
}

impl Tuple {
    /// The words of all tuples with this destination: the source is left out.
    #[inline]
    pub(crate) const fn destination_words(&self) -> [u64; 2] {
        const ADDRESS: u64 = u64::from_ne_bytes([0, 0, 0, 0, 255, 255, 255, 255]);
        const PORT: u32 = u32::from_ne_bytes([0, 0, 255, 255]);
        Self { addresses: self.addresses & ADDRESS, ports: self.ports & PORT, ..*self }.words()
    }

    /// The words of all tuples with this source: the destination is left out.
    #[inline]
    pub(crate) const fn source_words(&self) -> [u64; 2] {
        const ADDRESS: u64 = u64::from_ne_bytes([255, 255, 255, 255, 0, 0, 0, 0]);
        const PORT: u32 = u32::from_ne_bytes([255, 255, 0, 0]);
        Self { addresses: self.addresses & ADDRESS, ports: self.ports & PORT, ..*self }.words()
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source(), self.destination())
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
    #[inline]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
