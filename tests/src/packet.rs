//! Packets as hosts send them, built by etherparse.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, TcpHeader,
    UdpHeader,
};
use netback::{Checksum, ETHERNET_HEADER, Offload, Segments};

/// What names an endpoint: `"10.0.1.2:5000"`, or an address and a port.
pub trait At {
    /// The endpoint.
    fn at(self) -> SocketAddrV4;
}

impl At for &str {
    fn at(self) -> SocketAddrV4 {
        self.parse().unwrap_or_else(|_| panic!("{self} is an address and a port"))
    }
}

impl At for SocketAddrV4 {
    fn at(self) -> SocketAddrV4 {
        self
    }
}

impl At for (Ipv4Addr, u16) {
    fn at(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.0, self.1)
    }
}

impl At for (&str, u16) {
    fn at(self) -> SocketAddrV4 {
        SocketAddrV4::new(address(self.0), self.1)
    }
}

/// What names an address.
pub trait Host {
    /// The address.
    fn host(self) -> Ipv4Addr;
}

impl Host for &str {
    fn host(self) -> Ipv4Addr {
        address(self)
    }
}

impl Host for Ipv4Addr {
    fn host(self) -> Ipv4Addr {
        self
    }
}

/// An address from its text.
///
/// # Panics
/// If it is none.
pub fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an IPv4 address"))
}

/// An IPv4 packet under construction; its header checksum is computed last, by [`Packet::octets`].
#[derive(Clone, Debug)]
pub struct Packet {
    /// The IPv4 header; length and checksum follow the rest.
    pub header: Ipv4Header,
    /// The transport header and its data.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet of any protocol: TTL 64, no options, DF clear.
    pub fn new(source: impl Host, destination: impl Host, protocol: u8, payload: &[u8]) -> Self {
        let (source, destination) = (source.host().octets(), destination.host().octets());
        let header = Ipv4Header::new(0, 64, IpNumber(protocol), source, destination);
        let header = Ipv4Header { dont_fragment: false, ..header.expect("an empty payload fits") };
        Self { header, payload: payload.to_vec() }
    }

    /// With this time to live.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.header.time_to_live = ttl;
        self
    }

    /// With this second octet of the header: DSCP and ECN.
    pub fn tos(mut self, tos: u8) -> Self {
        self.header.dscp = IpDscp::try_new(tos >> 2).expect("six bits");
        self.header.ecn = IpEcn::try_new(tos & 3).expect("two bits");
        self
    }

    /// With DF set.
    pub fn dont_fragment(mut self) -> Self {
        self.header.dont_fragment = true;
        self
    }

    /// With this identification.
    pub fn identification(mut self, identification: u16) -> Self {
        self.header.identification = identification;
        self
    }

    /// With these IP options, a multiple of four octets.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.header.options = options.try_into().expect("whole words, at most 40 octets");
        self
    }

    /// As the fragment that carries `range` of the payload; offsets are multiples of eight octets.
    pub fn fragment(mut self, range: std::ops::Range<usize>) -> Self {
        let offset = u16::try_from(range.start / 8).expect("an offset of 13 bits");
        self.header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        self.header.more_fragments = range.end < self.payload.len();
        self.payload = self.payload[range].to_vec();
        self
    }

    /// The UDP datagram without a checksum (RFC 768).
    pub fn without_checksum(mut self) -> Self {
        self.payload[6..8].fill(0);
        self
    }

    /// The octets on the wire, header checksum included.
    pub fn octets(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header.set_payload_len(self.payload.len()).expect("a packet below 64 KiB");
        header.header_checksum = header.calc_header_checksum();
        let mut octets = header.to_bytes().to_vec();
        octets.extend_from_slice(&self.payload);
        octets
    }

    /// The octets with a checksum that is only begun (virtio `NEEDS_CSUM`), and what the device
    /// says about it.
    ///
    /// # Panics
    /// If the packet is neither TCP nor UDP.
    pub fn partial(&self) -> (Vec<u8>, Offload) {
        let offset = match self.header.protocol {
            IpNumber::TCP => 16,
            IpNumber::UDP => 6,
            other => panic!("no partial checksum in protocol {other:?}"),
        };
        let mut octets = self.octets();
        let start = self.header.header_len();
        let sum = pseudo_sum(&octets);
        octets[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        let checksum = Checksum::Partial { start: (ETHERNET_HEADER + start) as u16, offset: offset as u16 };
        (octets, checksum.into())
    }

    /// A TCP segment that is still to be cut into those with `size` octets of payload.
    ///
    /// # Panics
    /// If the packet is not TCP.
    pub fn large(&self, size: u16) -> (Vec<u8>, Offload) {
        assert_eq!(self.header.protocol, IpNumber::TCP);
        let (octets, offload) = self.partial();
        let segments = NonZeroU16::new(size).map(|size| Segments { size, is_ecn: false });
        (octets, Offload { segments, ..offload })
    }
}

impl From<Packet> for Vec<u8> {
    fn from(packet: Packet) -> Self {
        packet.octets()
    }
}

impl From<&Packet> for Vec<u8> {
    fn from(packet: &Packet) -> Self {
        packet.octets()
    }
}

/// The sum over the pseudo-header of an IPv4 packet, not inverted: what a partial checksum holds.
pub fn pseudo_sum(octets: &[u8]) -> u16 {
    let start = usize::from(octets[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([octets[2], octets[3]])) - start;
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&octets[12..20])
        .add_2bytes([0, octets[9]])
        .add_2bytes((length as u16).to_be_bytes());
    !sum.ones_complement().to_be()
}

/// A UDP datagram.
pub fn udp(from: impl At, to: impl At, data: &[u8]) -> Packet {
    let (from, to) = (from.at(), to.at());
    let mut packet = Packet::new(*from.ip(), *to.ip(), 17, &[]);
    let header = UdpHeader::with_ipv4_checksum(from.port(), to.port(), &packet.header, data).expect("short");
    packet.payload = header.to_bytes().to_vec();
    packet.payload.extend_from_slice(data);
    packet
}

/// A TCP segment's header fields beside its ports.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The control bits, [`crate::flags`].
    pub flags: u8,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// The window.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// The options, a multiple of four octets.
    pub options: Vec<u8>,
}

impl From<u8> for Segment {
    fn from(flags: u8) -> Self {
        (flags, 1000, 2000).into()
    }
}

impl From<(u8, u32, u32)> for Segment {
    fn from((flags, seq, ack): (u8, u32, u32)) -> Self {
        Self { flags, seq, ack, window: 64_240, ..Self::default() }
    }
}

/// A TCP segment: flags alone, flags with sequence and acknowledgement number, or all fields.
pub fn tcp(from: impl At, to: impl At, segment: impl Into<Segment>, data: &[u8]) -> Packet {
    let (from, to, segment) = (from.at(), to.at(), segment.into());
    let mut packet = Packet::new(*from.ip(), *to.ip(), 6, &[]);
    let mut header = TcpHeader::new(from.port(), to.port(), segment.seq, segment.window);
    header.acknowledgment_number = segment.ack;
    header.urgent_pointer = segment.urgent;
    header.set_options_raw(&segment.options).expect("at most 40 octets");
    let mut octets = header.to_bytes().to_vec();
    octets[13] = segment.flags;
    octets.extend_from_slice(data);
    packet.payload = octets;
    packet.payload[16..18].fill(0);
    let checksum = transport_checksum(&packet);
    packet.payload[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The checksum over pseudo-header and payload, its own field being zero.
fn transport_checksum(packet: &Packet) -> u16 {
    let length = packet.payload.len() as u16;
    etherparse::checksum::Sum16BitWords::new()
        .add_4bytes(packet.header.source)
        .add_4bytes(packet.header.destination)
        .add_2bytes([0, packet.header.protocol.0])
        .add_2bytes(length.to_be_bytes())
        .add_slice(&packet.payload)
        .ones_complement()
        .to_be()
}

/// Any ICMP message: type and code, the word behind the checksum, and what follows.
pub fn icmp(
    source: impl Host,
    destination: impl Host,
    (type_u8, code_u8): (u8, u8),
    bytes5to8: [u8; 4],
    data: &[u8],
) -> Packet {
    let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
    let mut payload = Icmpv4Header::with_checksum(kind, data).to_bytes().to_vec();
    payload.extend_from_slice(data);
    Packet::new(source, destination, 1, &payload)
}

/// An echo request.
pub fn echo(source: impl Host, destination: impl Host, id: u16, seq: u16, data: &[u8]) -> Packet {
    let echo = IcmpEchoHeader { id, seq };
    icmp(source, destination, (8, 0), echo.to_bytes(), data)
}

/// An echo reply.
pub fn echo_reply(source: impl Host, destination: impl Host, id: u16, seq: u16, data: &[u8]) -> Packet {
    let echo = IcmpEchoHeader { id, seq };
    icmp(source, destination, (0, 0), echo.to_bytes(), data)
}

/// An ICMP error about `quote`, its second word as [`error_word`] has it.
pub fn icmp_error(
    source: impl Host,
    destination: impl Host,
    kind: (u8, u8),
    quote: impl Into<Vec<u8>>,
) -> Packet {
    icmp(source, destination, kind, error_word(kind), &quote.into())
}

/// The word behind an error's checksum: an MTU in 3/4, a pointer in 12, else zero.
pub fn error_word(kind: (u8, u8)) -> [u8; 4] {
    match kind {
        (3, 4) => [0, 0, 0x05, 0x14],
        (12, _) => [20, 0, 0, 0],
        _ => [0; 4],
    }
}

impl Packet {
    /// What this packet is once it was forwarded: from and to these endpoints, its time to live
    /// lowered by one, its checksums right, all else as it was. A query's identifier is the port of
    /// who asked.
    pub fn forwarded(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let mut packet = self.clone();
        packet.header.source = from.ip().octets();
        packet.header.destination = to.ip().octets();
        packet.header.time_to_live -= 1;
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()];
        let later = packet.header.fragment_offset.value() > 0;
        match (packet.header.protocol.0, packet.payload.first()) {
            _ if later => {}
            (6 | 17, _) => packet.payload[..4].copy_from_slice(ports.as_flattened()),
            (1, Some(8 | 13 | 15 | 17)) => packet.payload[4..6].copy_from_slice(&ports[0]),
            (1, Some(_)) => packet.payload[4..6].copy_from_slice(&ports[1]),
            _ => {}
        }
        let mut octets = packet.octets();
        if !packet.header.is_fragmenting_payload() {
            crate::judge::mend_transport(&mut octets);
        }
        octets
    }
}
