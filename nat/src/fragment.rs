//! Fragments, as far as one header tells (RFC 791 3.2).
//!
//! The first fragment of a datagram has its transport header and so a tuple; the others have
//! addresses only. Which fragments belong together is for whoever keeps datagrams.

use crate::endpoint::protocol;
use crate::icmp::{self, Kind};
use crate::malformed::Malformed;
use crate::packet::{Checksum, Packet, Transport, UDP};

/// What a fragment is of its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where its octets begin in the datagram's payload.
    pub offset: u16,
    /// How many they are.
    pub length: u16,
    /// Whether more follow.
    pub more: bool,
}

impl Fragment {
    /// The first octet behind it, in the datagram's payload.
    pub const fn end(&self) -> u16 {
        self.offset + self.length
    }
}

impl Packet {
    /// What it is of its datagram; none for a whole one.
    #[inline(always)]
    pub fn fragment(&self) -> Option<Fragment> {
        self.is_fragment().then(|| self.as_fragment())
    }

    #[cold]
    fn as_fragment(&self) -> Fragment {
        let field = self.fragment_field();
        let length = usize::from(self.total_len()).saturating_sub(self.header_len());
        Fragment {
            offset: (field & 0x1fff) << 3,
            length: u16::try_from(length).unwrap_or(u16::MAX),
            more: field & 0x2000 != 0,
        }
    }

    /// Reads a fragment's transport header, if it has one.
    #[cold]
    pub(crate) fn read_fragment(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        if self.checksum == Checksum::Partial {
            return Err(Malformed::PartialChecksum);
        }
        let fragment = self.fragment().ok_or(Malformed::Fragment)?;
        let is_cut = fragment.more && fragment.length % 8 != 0;
        let is_long =
            u32::from(fragment.offset) + u32::from(fragment.length) + at as u32 > u32::from(u16::MAX);
        if fragment.length == 0 || is_cut || is_long {
            return Err(Malformed::Fragment);
        }
        match (self.protocol(), fragment.offset) {
            (protocol::UDP, 0) => self.read_first_udp(at, payload),
            (protocol::TCP, 0) => self.read_first_tcp(at, payload),
            (protocol::ICMP, 0) => self.read_first_icmp(at, payload),
            (_, 0) => {
                self.read_covered(at, payload);
                Ok(())
            }
            // RFC 3128: it would overwrite the flags that were judged.
            (protocol::TCP, 8) => Err(Malformed::TinyFragment),
            _ => Ok(()),
        }
    }

    /// RFC 1858 3: the first fragment holds the whole transport header, or nothing is known of it.
    fn read_first_udp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        let udp = payload.first_chunk::<UDP>().ok_or(Malformed::TinyFragment)?;
        if usize::from(u16::from_be_bytes([udp[4], udp[5]])) < payload.len() {
            return Err(Malformed::UdpLength);
        }
        self.take(at, udp, Transport::Udp);
        self.read_ports([udp[0], udp[1], udp[2], udp[3]])
    }

    fn read_first_tcp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        self.read_tcp(at, payload).map_err(|malformed| match malformed {
            Malformed::ShortTransport => Malformed::TinyFragment,
            other => other,
        })?;
        // RFC 791 3.1: no datagram is longer than its length field can tell.
        self.segment.rest = u16::MAX - self.total_len();
        Ok(())
    }

    /// An ICMP error in fragments has its quote in the first. Its checksum covers what is not here,
    /// so it is not judged: a wrong one stays wrong (RFC 1624).
    fn read_first_icmp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        let header = payload.first_chunk::<{ icmp::HEADER }>().ok_or(Malformed::TinyFragment)?;
        self.icmp = (header[0], header[1]);
        match Kind::of(header[0]) {
            Kind::Query | Kind::Reply(_) => self.read_icmp(at, payload),
            Kind::Error => self.read_error(payload).map_err(|malformed| match malformed {
                Malformed::EmbeddedShort => Malformed::TinyFragment,
                other => other,
            }),
            Kind::DeadError | Kind::Other => Ok(()),
        }
    }
}
