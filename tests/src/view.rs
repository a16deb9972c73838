//! What a packet says, read from its octets: for comparing, after the judge has seen it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Deref;

use etherparse::{Ipv4Header, TcpHeader};
use netback::{ETHERNET_HEADER, Offload};
use smoltcp::wire::EthernetAddress;

use crate::packet::{At, Packet};

/// An IPv4 packet, or the beginning of one that an ICMP error quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// From the IPv4 header on.
    pub octets: Vec<u8>,
}

impl View {
    /// The packet in these octets.
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self { octets: octets.into() }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.octets[at], self.octets[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        let octets = &self.octets[at..at + 4];
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])
    }

    /// The header.
    ///
    /// # Panics
    /// If etherparse cannot read it.
    pub fn header(&self) -> Ipv4Header {
        Ipv4Header::from_slice(&self.octets).unwrap_or_else(|error| panic!("{error}: {:02x?}", self.octets)).0
    }

    /// Octets of the header.
    pub fn header_len(&self) -> usize {
        usize::from(self.octets[0] & 15) * 4
    }

    /// The IP options.
    pub fn options(&self) -> &[u8] {
        &self.octets[20..self.header_len()]
    }

    /// Octets of the whole packet, as its header says.
    pub fn total_len(&self) -> usize {
        self.word(2).into()
    }

    /// The source address.
    pub fn source(&self) -> Ipv4Addr {
        self.address(12)
    }

    /// The destination address.
    pub fn destination(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.octets[8]
    }

    /// The protocol number.
    pub fn protocol(&self) -> u8 {
        self.octets[9]
    }

    /// DSCP and ECN.
    pub fn tos(&self) -> u8 {
        self.octets[1]
    }

    /// The identification.
    pub fn identification(&self) -> u16 {
        self.word(4)
    }

    /// Flags and fragment offset.
    pub fn fragment_word(&self) -> u16 {
        self.word(6)
    }

    /// The transport header and what follows.
    pub fn transport(&self) -> &[u8] {
        &self.octets[self.header_len()..]
    }

    fn transport_word(&self, at: usize) -> u16 {
        self.word(self.header_len() + at)
    }

    /// Source address and port.
    pub fn from(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.source(), self.transport_word(0))
    }

    /// Destination address and port.
    pub fn to(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.destination(), self.transport_word(2))
    }

    /// The UDP checksum.
    pub fn udp_checksum(&self) -> u16 {
        self.transport_word(6)
    }

    /// The TCP header.
    ///
    /// # Panics
    /// If etherparse cannot read it.
    pub fn tcp(&self) -> TcpHeader {
        TcpHeader::from_slice(self.transport()).expect("a TCP header").0
    }

    /// The octet of TCP's control bits.
    pub fn tcp_flags(&self) -> u8 {
        self.transport()[13]
    }

    /// ICMP type and code.
    pub fn icmp(&self) -> (u8, u8) {
        assert_eq!(self.protocol(), 1, "an ICMP message");
        (self.transport()[0], self.transport()[1])
    }

    /// The word behind the ICMP checksum.
    pub fn icmp_word(&self) -> [u8; 4] {
        let word = &self.transport()[4..8];
        [word[0], word[1], word[2], word[3]]
    }

    /// The identifier of an ICMP query.
    pub fn id(&self) -> u16 {
        self.transport_word(4)
    }

    /// What follows the transport header.
    ///
    /// # Panics
    /// If the protocol is none that the tests use.
    pub fn data(&self) -> &[u8] {
        let header = match self.protocol() {
            1 | 17 => 8,
            6 => usize::from(self.transport()[12] >> 4) * 4,
            other => panic!("no data in protocol {other}"),
        };
        &self.transport()[header..]
    }

    /// The packet that this ICMP error quotes.
    pub fn quote(&self) -> View {
        View::new(self.data())
    }
}

/// An IPv4 packet that the appliance sent, with its frame.
#[derive(Clone)]
pub struct Seen {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// What the link is asked to finish.
    pub offload: Offload,
    packet: View,
}

impl Seen {
    /// The packet in a frame that the judge has passed.
    pub fn new(frame: Vec<u8>, offload: Offload) -> Self {
        let packet = View::new(&frame[ETHERNET_HEADER..]);
        Self { frame, offload, packet }
    }

    /// To which station.
    pub fn station(&self) -> EthernetAddress {
        EthernetAddress::from_bytes(&self.frame[..6])
    }
}

impl std::fmt::Debug for Seen {
    /// The head of the packet: enough to tell what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = &self.packet.octets;
        let head: String = octets.iter().take(64).map(|octet| format!("{octet:02x}")).collect();
        write!(f, "[{} octets: {head} {:?}]", octets.len(), self.offload.checksum)
    }
}

impl Deref for Seen {
    type Target = View;

    fn deref(&self) -> &View {
        &self.packet
    }
}

/// The packet left with these endpoints and is else what was sent.
///
/// The identification of what routers may cut is the NAT's to choose (RFC 6864 5.3.1).
///
/// # Panics
/// If it did not.
#[track_caller]
pub fn same(seen: &Seen, sent: &Packet, from: impl At, to: impl At) {
    let sent = match sent.header.dont_fragment {
        true => sent.clone(),
        false => sent.clone().identification(seen.identification()),
    };
    assert_eq!(seen.octets, sent.forwarded(from.at(), to.at()));
}
