//! ICMP: queries that have sessions, and errors with the packet that they quote.

use core::net::Ipv4Addr;

use crate::checksum;
use crate::endpoint::{Endpoint, Tuple, protocol};
use crate::malformed::Malformed;

/// Octets of every ICMP header: type, code, checksum, and a word of the type's own.
pub(crate) const HEADER: usize = 8;

/// What an ICMP type is to a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A query (RFC 5508 3): echo, timestamp, information, address mask.
    Query,
    /// The reply to the query type given.
    Reply(u8),
    /// Destination unreachable, time exceeded, parameter problem.
    Error,
    /// Errors that are never passed on: source quench (RFC 6633) and redirect (RFC 1812 5.2.7.2).
    DeadError,
    /// Anything else; it has no session.
    Other,
}

impl Kind {
    pub(crate) const fn of(icmp_type: u8) -> Self {
        match icmp_type {
            8 | 13 | 15 | 17 => Self::Query,
            0 => Self::Reply(8),
            14 => Self::Reply(13),
            16 => Self::Reply(15),
            18 => Self::Reply(17),
            3 | 11 | 12 => Self::Error,
            4 | 5 => Self::DeadError,
            _ => Self::Other,
        }
    }

    /// The ports of a query or reply, as [`Tuple`] has them.
    pub(crate) const fn ports(self, header: &[u8; HEADER]) -> Option<(u16, u16)> {
        let [icmp_type, code, _, _, id_high, id_low, _, _] = *header;
        let id = u16::from_be_bytes([id_high, id_low]);
        match self {
            Self::Query => Some((id, u16::from_be_bytes([icmp_type, code]))),
            Self::Reply(query) => Some((u16::from_be_bytes([query, code]), id)),
            _ => None,
        }
    }
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Embedded {
    /// Its endpoints as quoted, in the direction in which it travelled: against the error's.
    pub tuple: Tuple,
    /// Octets of its IP header, 20 to 60.
    pub(crate) header_len: u8,
    /// Octets of its transport header that are quoted and kept, 8 to 20.
    pub(crate) transport_len: u8,
    /// Whether it is an ICMP query, whose identifier is on the source's side.
    pub(crate) is_query: bool,
}

/// Octets of transport header that RFC 792 has an error quote at least.
const QUOTE_MIN: usize = 8;
/// A TCP header without options: nothing behind it is translated.
const TCP_HEADER: usize = 20;

impl Embedded {
    /// Reads the quoted packet that begins at `quote`.
    ///
    /// RFC 5508 REQ-3: its header checksum is judged and its options are walked, its transport
    /// checksum is not judged. Its total length is not judged either, as it tells what was sent.
    pub(crate) fn parse(quote: &[u8]) -> Result<Self, Malformed> {
        let fixed = quote.first_chunk::<20>().ok_or(Malformed::EmbeddedShort)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] >> 4 != 4 || header_len < 20 {
            return Err(Malformed::EmbeddedHeader);
        }
        let (header, transport) = quote.split_at_checked(header_len).ok_or(Malformed::EmbeddedShort)?;
        if checksum::sum(header) != 0xffff {
            return Err(Malformed::EmbeddedChecksum);
        }
        if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff != 0 {
            return Err(Malformed::EmbeddedFragment);
        }
        let start = transport.first_chunk::<QUOTE_MIN>().ok_or(Malformed::EmbeddedShort)?;
        let (ports, transport_len, is_query) = Self::transport(fixed[9], start, transport.len())?;
        let address = |at: [u8; 4]| Ipv4Addr::from(at);
        Ok(Self {
            tuple: Tuple::new(
                fixed[9],
                Endpoint::new(address([fixed[12], fixed[13], fixed[14], fixed[15]]), ports.0),
                Endpoint::new(address([fixed[16], fixed[17], fixed[18], fixed[19]]), ports.1),
            ),
            header_len: header_len as u8,
            transport_len,
            is_query,
        })
    }

    /// Ports, octets kept, and whether it is an ICMP query.
    fn transport(
        number: u8,
        start: &[u8; QUOTE_MIN],
        quoted: usize,
    ) -> Result<((u16, u16), u8, bool), Malformed> {
        let ports = (u16::from_be_bytes([start[0], start[1]]), u16::from_be_bytes([start[2], start[3]]));
        match number {
            protocol::UDP | protocol::TCP if ports.0 == 0 || ports.1 == 0 => Err(Malformed::PortZero),
            protocol::UDP => Ok((ports, QUOTE_MIN as u8, false)),
            protocol::TCP => Ok((ports, quoted.min(TCP_HEADER) as u8, false)),
            protocol::ICMP => {
                let kind = Kind::of(start[0]);
                // RFC 1122 3.2.2: no error is sent about an error.
                let ports = kind.ports(start).ok_or(Malformed::ErrorAboutError)?;
                Ok((ports, QUOTE_MIN as u8, kind == Kind::Query))
            }
            protocol::IGMP => Err(Malformed::EmbeddedProtocol),
            // By address, as its sessions are.
            _ => Ok(((0, 0), QUOTE_MIN as u8, false)),
        }
    }
}
