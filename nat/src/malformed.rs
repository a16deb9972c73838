//! What is wrong with octets that are no packet.

use core::fmt;

/// Why octets are no packet that may be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Malformed {
    /// Fewer octets than an IPv4 header has.
    Short,
    /// The version is not 4.
    Version,
    /// A header of less than 20 octets.
    HeaderLength,
    /// The total length is less than the header's, or more than what arrived.
    TotalLength,
    /// The IP header checksum is wrong (RFC 1812 5.2.2).
    HeaderChecksum,
    /// The transport header is cut.
    ShortTransport,
    /// The UDP length is below 8 or beyond the packet.
    UdpLength,
    /// The TCP data offset is below 5 or beyond the packet.
    TcpOffset,
    /// A TCP or UDP port is 0.
    PortZero,
    /// A partial checksum in something else than a whole UDP or TCP packet.
    PartialChecksum,
    /// An ICMP error with a wrong checksum (RFC 5508 REQ-3 a).
    IcmpChecksum,
    /// An ICMP error that quotes less than an IP header and 8 octets.
    EmbeddedShort,
    /// The embedded version or header length is wrong.
    EmbeddedHeader,
    /// The embedded IP header checksum is wrong (RFC 5508 REQ-3 b).
    EmbeddedChecksum,
    /// A fragment without octets, of an odd length, or beyond what a datagram can have (RFC 791).
    Fragment,
    /// A fragment made to hide the transport header (RFC 1858, RFC 3128).
    TinyFragment,
    /// An error about a fragment other than the first (RFC 1812 4.3.2.7).
    EmbeddedFragment,
    /// An error about a protocol that never has sessions.
    EmbeddedProtocol,
    /// An error about an ICMP message that is neither query nor reply (RFC 1812 4.3.2.7).
    ErrorAboutError,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than an IPv4 header",
            Self::Version => "not IPv4",
            Self::HeaderLength => "bad header length",
            Self::TotalLength => "bad total length",
            Self::HeaderChecksum => "bad header checksum",
            Self::ShortTransport => "transport header cut",
            Self::UdpLength => "bad UDP length",
            Self::TcpOffset => "bad TCP data offset",
            Self::PortZero => "port 0",
            Self::PartialChecksum => "misplaced partial checksum",
            Self::IcmpChecksum => "bad ICMP checksum",
            Self::EmbeddedShort => "ICMP error quotes too little",
            Self::EmbeddedHeader => "bad embedded header",
            Self::EmbeddedChecksum => "bad embedded header checksum",
            Self::Fragment => "bad fragment",
            Self::TinyFragment => "tiny fragment",
            Self::EmbeddedFragment => "ICMP error about a later fragment",
            Self::EmbeddedProtocol => "ICMP error about an unknown protocol",
            Self::ErrorAboutError => "ICMP error about an ICMP error",
        })
    }
}

impl core::error::Error for Malformed {}
