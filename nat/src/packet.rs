//! A packet's headers, read once.
//!
//! Parsing copies the headers to private memory and checks every length, so that a device that
//! changes its buffer afterwards changes nothing. The payload stays where it is.

use core::net::Ipv4Addr;

use crate::checksum;
use crate::endpoint::{Ends, Tuple, protocol};
use crate::icmp::{self, Embedded, Kind};
use crate::malformed::Malformed;
use crate::segment::{Segment, flags};

/// The largest translated head, an ICMP error: outer IPv4 60, ICMP 8, embedded IPv4 60, embedded
/// TCP 20.
pub const HEAD_MAX: usize = 148;

/// An IPv4 header without options (RFC 791 3.1), and the octet that it begins with.
pub(crate) const IPV4: usize = 20;
const USUAL: u8 = 0x45;
pub(crate) const UDP: usize = 8;
pub(crate) const TCP: usize = 20;

/// What the transport checksum field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// A checksum, whether verified or not.
    Complete,
    /// The sum of the pseudo-header, not inverted; the device completes it (virtio `NEEDS_CSUM`).
    Partial,
}

/// What follows the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// Nothing that has a session: a fragment, an ICMP type or a protocol without one.
    Opaque,
    Udp,
    Tcp,
    /// An ICMP query: its identifier is the source's port.
    Query,
    /// An ICMP reply: its identifier is the destination's port.
    Reply,
    /// An ICMP error.
    Error,
    /// DCCP or UDP-Lite: a protocol without ports here, whose checksum covers the addresses.
    Covered,
}

/// The checked headers of one IPv4 packet.
#[derive(Clone, Debug)]
pub struct Packet {
    pub(crate) head: [u8; HEAD_MAX],
    pub(crate) head_len: u8,
    pub(crate) header_len: u8,
    pub(crate) transport: Transport,
    pub(crate) checksum: Checksum,
    /// UDP or TCP without IP options.
    pub(crate) usual: bool,
    pub(crate) total_len: u16,
    /// What [`Packet::datagram_len`] tells.
    pub(crate) datagram_len: u16,
    pub(crate) ends: Ends,
    pub(crate) icmp: (u8, u8),
    pub(crate) segment: Segment,
    embedded: Option<Embedded>,
}

/// Copies `from` into the head at `at`; what would not fit is left out.
#[inline]
pub(crate) fn put<const N: usize>(head: &mut [u8; HEAD_MAX], at: usize, from: &[u8; N]) {
    if let Some(place) = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = *from;
    }
}

impl Packet {
    /// Reads the packet that begins with its IPv4 header; octets behind its total length are
    /// ignored.
    ///
    /// # Errors
    /// [`Malformed`] tells the first thing that is wrong; such a packet is to be dropped.
    #[inline]
    pub fn parse(octets: &[u8], checksum: Checksum) -> Result<Self, Malformed> {
        let mut packet = Self::EMPTY;
        packet.read(octets, checksum)?;
        Ok(packet)
    }

    /// No packet; [`Packet::read`] makes it one.
    pub const EMPTY: Self = Self {
        head: [0; HEAD_MAX],
        head_len: 0,
        header_len: 0,
        transport: Transport::Opaque,
        checksum: Checksum::Complete,
        usual: false,
        total_len: 0,
        datagram_len: 0,
        ends: Ends::NONE,
        icmp: (0, 0),
        segment: Segment::NONE,
        embedded: None,
    };

    /// As [`Packet::parse`], into a packet at hand, which spares copying it.
    ///
    /// # Errors
    /// [`Malformed`]; what the packet then holds is of no use.
    #[inline(always)]
    pub fn read(&mut self, octets: &[u8], checksum: Checksum) -> Result<(), Malformed> {
        let fixed = octets.first_chunk::<IPV4>().ok_or(Malformed::Short)?;
        put(&mut self.head, 0, fixed);
        let addresses = fixed.last_chunk().copied().unwrap_or_default();
        self.ends.addresses = u64::from_ne_bytes(addresses);
        self.total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
        self.datagram_len = self.total_len;
        self.checksum = checksum;
        // What belongs to a transport is not cleared: it is another packet's, and not asked for.
        self.transport = Transport::Opaque;
        if fixed[0] != USUAL {
            return self.read_behind_options(fixed[0], octets.get(..self.total_len.into()));
        }
        let payload = octets.get(IPV4..self.total_len.into()).ok_or(Malformed::TotalLength)?;
        (self.head_len, self.header_len) = (IPV4 as u8, IPV4 as u8);
        // The usual length is a constant from here on: no offset needs checking.
        match checksum::is_right(fixed) {
            true => self.read_transport(IPV4, payload),
            false => Err(Malformed::HeaderChecksum),
        }
    }

    /// Reads a packet whose header has any length.
    #[cold]
    pub(crate) fn read_behind_options(&mut self, first: u8, packet: Option<&[u8]>) -> Result<(), Malformed> {
        let header_len = first << 4 >> 2;
        if first >> 4 != 4 {
            return Err(Malformed::Version);
        }
        if usize::from(header_len) < IPV4 {
            return Err(Malformed::HeaderLength);
        }
        let split = packet.and_then(|packet| packet.split_at_checked(header_len.into()));
        let (header, payload) = split.ok_or(Malformed::TotalLength)?;
        (self.head_len, self.header_len) = (header_len, header_len);
        let place = self.head.get_mut(..header.len());
        place.ok_or(Malformed::HeaderLength)?.copy_from_slice(header);
        match checksum::sum(header) {
            0xffff => self.read_transport(header.len(), payload),
            _ => Err(Malformed::HeaderChecksum),
        }
    }

    #[inline(always)]
    fn read_transport(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        match self.protocol() {
            _ if self.is_fragment() => self.read_fragment(at, payload),
            protocol::UDP => self.read_udp(at, payload),
            protocol::TCP => self.read_tcp(at, payload),
            _ => self.read_other(at, payload),
        }
    }

    #[inline(never)]
    fn read_other(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        match self.protocol() {
            protocol::ICMP => self.read_icmp(at, payload)?,
            _ => self.read_covered(at, payload),
        }
        match self.checksum {
            Checksum::Complete => Ok(()),
            Checksum::Partial => Err(Malformed::PartialChecksum),
        }
    }

    /// Reads the first octets of a UDP or TCP header.
    #[inline]
    pub(crate) fn read_ports(&mut self, ports: [u8; 4]) -> Result<(), Malformed> {
        let ports = u32::from_ne_bytes(ports);
        self.ends.ports = ports;
        match ports as u16 == 0 || ports >> 16 == 0 {
            true => Err(Malformed::PortZero),
            false => Ok(()),
        }
    }

    /// Takes the transport header into the head.
    #[inline(always)]
    pub(crate) fn take<const N: usize>(&mut self, at: usize, header: &[u8; N], transport: Transport) {
        put(&mut self.head, at, header);
        self.head_len = (at + N) as u8;
        self.transport = transport;
        self.usual = at == IPV4;
    }

    /// Reads the start of a header that has a checksum over the addresses where UDP's has it
    /// (RFC 3828 3.1, RFC 4340 5.1); what is too short for one, or another protocol, is let be.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_covered(&mut self, at: usize, payload: &[u8]) {
        if let (protocol::DCCP | protocol::UDP_LITE, Some(header)) =
            (self.protocol(), payload.first_chunk::<UDP>())
        {
            self.take(at, header, Transport::Covered);
        }
    }

    #[inline(always)]
    fn read_udp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        let udp = payload.first_chunk::<UDP>().ok_or(Malformed::ShortTransport)?;
        let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        // Below 8 it is beyond everything.
        if length.wrapping_sub(UDP) > payload.len() - UDP {
            return Err(Malformed::UdpLength);
        }
        self.take(at, udp, Transport::Udp);
        self.read_ports([udp[0], udp[1], udp[2], udp[3]])
    }

    #[inline(always)]
    pub(crate) fn read_tcp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        let tcp = payload.first_chunk::<TCP>().ok_or(Malformed::ShortTransport)?;
        let offset = usize::from(tcp[12] >> 4) * 4;
        if offset < TCP || offset > payload.len() {
            return Err(Malformed::TcpOffset);
        }
        let control = u32::from(tcp[13] & flags::SYN != 0) + u32::from(tcp[13] & flags::FIN != 0);
        self.segment = Segment::read(tcp, (payload.len() - offset) as u32 + control);
        if self.segment.has_syn() {
            self.segment.read_options(payload.get(..offset).unwrap_or_default());
        }
        self.take(at, tcp, Transport::Tcp);
        self.read_ports([tcp[0], tcp[1], tcp[2], tcp[3]])
    }

    #[cold]
    pub(crate) fn read_icmp(&mut self, at: usize, payload: &[u8]) -> Result<(), Malformed> {
        let header = payload.first_chunk::<{ icmp::HEADER }>().ok_or(Malformed::ShortTransport)?;
        self.icmp = (header[0], header[1]);
        let kind = Kind::of(header[0]);
        if let Some((source, destination)) = kind.ports(header) {
            self.ends.ports = Ends::ports_of(source, destination);
        }
        match kind {
            Kind::Query => self.take(at, header, Transport::Query),
            Kind::Reply(_) => self.take(at, header, Transport::Reply),
            Kind::Error if checksum::sum(payload) != 0xffff => return Err(Malformed::IcmpChecksum),
            Kind::Error => return self.read_error(payload),
            Kind::DeadError | Kind::Other => {}
        }
        Ok(())
    }

    /// Reads an ICMP error, or as much of it as came, with the packet that it quotes.
    #[cold]
    pub(crate) fn read_error(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let embedded = Embedded::parse(message.get(icmp::HEADER..).unwrap_or_default())?;
        let length = icmp::HEADER + usize::from(embedded.header_len) + usize::from(embedded.transport_len);
        let start = usize::from(self.header_len);
        let place = self.head.get_mut(start..start + length);
        let (place, kept) = place.zip(message.get(..length)).ok_or(Malformed::EmbeddedShort)?;
        place.copy_from_slice(kept);
        self.head_len = self.header_len + length as u8;
        self.transport = Transport::Error;
        self.embedded = Some(embedded);
        Ok(())
    }

    #[inline]
    const fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.head[at], self.head[at + 1]])
    }

    /// The octets of fragment flags and offset, in the machine's order.
    #[inline]
    fn fragment_octets(&self) -> u16 {
        let octets = self.head.get(6..).and_then(|octets| octets.first_chunk());
        u16::from_ne_bytes(octets.copied().unwrap_or_default())
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        let h = &self.head;
        Ipv4Addr::new(h[12], h[13], h[14], h[15])
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        let h = &self.head;
        Ipv4Addr::new(h[16], h[17], h[18], h[19])
    }

    /// The IP protocol number.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.head[9]
    }

    /// Time to live, as it arrived.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.head[8]
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn tos(&self) -> u8 {
        self.head[1]
    }

    /// Octets of the packet, header included.
    #[inline]
    pub const fn total_len(&self) -> u16 {
        self.total_len
    }

    /// Octets of the largest datagram that it leaves as: [`Packet::total_len`], unless it was read by
    /// [`Packet::read_large`].
    #[inline]
    pub const fn datagram_len(&self) -> u16 {
        self.datagram_len
    }

    /// Octets of the IP header, 20 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.header_len as usize
    }

    /// The identification field.
    #[inline]
    pub const fn identification(&self) -> u16 {
        self.word(4)
    }

    /// Whether DF is set.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.head[6] & 0x40 != 0
    }

    /// The field of fragment flags and offset.
    pub(crate) const fn fragment_field(&self) -> u16 {
        self.word(6)
    }

    /// Whether it is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment_octets() & 0x3fff_u16.to_be() != 0
    }

    /// The tuple of its session; none for a later fragment, an ICMP error, and what has no
    /// sessions.
    #[inline]
    pub const fn tuple(&self) -> Option<Tuple> {
        match self.transport {
            Transport::Opaque | Transport::Error | Transport::Covered => None,
            _ => Some(Tuple::of(self.protocol(), self.ends)),
        }
    }

    /// The same, and if `other` says so that of a protocol which has sessions by address alone:
    /// SCTP, GRE, ESP, IPIP and whatever else is none of ICMP, IGMP, TCP and UDP. Its ports are 0.
    #[inline]
    pub const fn tuple_with(&self, other: bool) -> Option<Tuple> {
        match (self.tuple(), self.protocol()) {
            (None, protocol::ICMP | protocol::IGMP | protocol::TCP | protocol::UDP) => None,
            (None, number) if other => Some(Tuple::of(number, Ends { ports: 0, ..self.ends })),
            (tuple, _) => tuple,
        }
    }

    /// The packet that it quotes, if it is an ICMP error.
    #[inline]
    pub const fn embedded(&self) -> Option<&Embedded> {
        match self.transport {
            Transport::Error => self.embedded.as_ref(),
            _ => None,
        }
    }

    /// ICMP type and code; none for other protocols and for later fragments.
    #[inline]
    pub const fn icmp(&self) -> Option<(u8, u8)> {
        match self.protocol() {
            protocol::ICMP if self.fragment_field() & 0x1fff == 0 => Some(self.icmp),
            _ => None,
        }
    }

    /// TCP control bits; 0 for other protocols.
    #[inline]
    pub const fn tcp_flags(&self) -> u8 {
        match self.transport {
            Transport::Tcp => self.segment.flags,
            _ => 0,
        }
    }

    /// What its TCP header says.
    #[inline]
    pub const fn tcp(&self) -> Option<&Segment> {
        match self.transport {
            Transport::Tcp => Some(&self.segment),
            _ => None,
        }
    }

    /// Whether it may open a session: UDP, an ICMP query, or a TCP SYN without ACK, FIN and RST.
    #[inline]
    pub const fn opens(&self) -> bool {
        match self.transport {
            Transport::Udp | Transport::Query => true,
            Transport::Tcp => self.segment.opens(),
            _ => false,
        }
    }

    /// Octets that a rewritten head replaces; the payload is what follows them, up to the total
    /// length.
    #[inline]
    pub const fn head_len(&self) -> usize {
        self.head_len as usize
    }

    /// What its transport checksum field holds.
    #[inline]
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }
}
