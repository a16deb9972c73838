//! The packets of a conversation, recognised on both sides of a translation.

use crate::plan::fnv;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};
use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 packet, as far as a translation and its observer care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// TCP, UDP or ICMP.
    pub protocol: IpProtocol,
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// The source port; an ICMP query's identifier; 0 where there is none.
    pub source_port: u16,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// The destination port; 0 where there is none.
    pub destination_port: u16,
    /// A hash of what a translation leaves alone: the TCP sequence number and flags, the UDP payload, an ICMP query's
    /// sequence number and data.
    pub mark: u64,
}

impl Flow {
    /// Reads an Ethernet frame. Anything but IPv4 is `None`; a cut transport header leaves ports at 0.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        let (source_port, destination_port, mark) =
            transport(ip.next_header(), ip.payload()).unwrap_or((0, 0, fnv(ip.payload())));
        Some(Self {
            protocol: ip.next_header(),
            source: ip.src_addr(),
            source_port,
            destination: ip.dst_addr(),
            destination_port,
            mark,
        })
    }

    /// Whether this is `other` after its source was translated.
    pub fn is_translation_of(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.destination == other.destination
            && self.destination_port == other.destination_port
            && self.mark == other.mark
    }
}

fn transport(protocol: IpProtocol, octets: &[u8]) -> Option<(u16, u16, u64)> {
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(octets).ok()?;
            // Octets 4 to 13 of a TCP header: sequence and acknowledgement numbers, offset and flags (RFC 9293, 3.1).
            Some((tcp.src_port(), tcp.dst_port(), fnv(octets.get(4..14)?)))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(octets).ok()?;
            Some((udp.src_port(), udp.dst_port(), fnv(udp.payload())))
        }
        IpProtocol::Icmp => {
            // Octet 0 is the type; 4 and 5 are a query's identifier (RFC 792), what follows is left alone.
            let (kind, identifier, rest) = (octets.first()?, octets.get(4..6)?, octets.get(6..)?);
            let identifier = u16::from_be_bytes(identifier.try_into().ok()?);
            let is_query = matches!(kind, 0 | 8 | 13..=18);
            Some((if is_query { identifier } else { 0 }, 0, fnv(rest) ^ u64::from(*kind)))
        }
        _ => None,
    }
}

impl fmt::Display for Flow {
    /// `10.0.1.2:49152 > 192.0.2.1:80`, `10.0.1.2 id 7 > 192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.protocol == IpProtocol::Icmp {
            format!("{} id {} > {}", self.source, self.source_port, self.destination)
        } else {
            format!("{}:{} > {}:{}", self.source, self.source_port, self.destination, self.destination_port)
        };
        f.pad(&text)
    }
}

/// The MAC that sent a frame.
pub fn sender(frame: &[u8]) -> Option<EthernetAddress> {
    EthernetFrame::new_checked(frame).ok().map(|ethernet| ethernet.src_addr())
}

/// Frames for the tests of this crate.
#[cfg(test)]
pub(crate) mod frames {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
        UdpRepr,
    };
    use std::net::Ipv4Addr;

    /// A UDP datagram in an Ethernet frame.
    pub fn udp(
        mac: EthernetAddress,
        source: (Ipv4Addr, u16),
        destination: (Ipv4Addr, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let udp = UdpRepr { src_port: source.1, dst_port: destination.1 };
        let ip = Ipv4Repr {
            src_addr: source.0,
            dst_addr: destination.0,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + payload.len(),
            hop_limit: 64,
        };
        let mut octets = vec![0; 14 + ip.buffer_len() + ip.payload_len];
        let mut frame = EthernetFrame::new_unchecked(&mut octets[..]);
        frame.set_src_addr(mac);
        frame.set_dst_addr(EthernetAddress::BROADCAST);
        frame.set_ethertype(EthernetProtocol::Ipv4);
        let caps = ChecksumCapabilities::default();
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &caps);
        let (from, to) = (source.0.into(), destination.0.into());
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &from,
            &to,
            payload.len(),
            |out| out.copy_from_slice(payload),
            &caps,
        );
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn flow(source: (Ipv4Addr, u16), payload: &[u8]) -> Flow {
        Flow::parse(&frames::udp(MAC, source, (SERVER, 53), payload)).unwrap()
    }

    #[test]
    fn a_translated_datagram_is_recognised() {
        let (before, after) = (flow((INSIDE, 5000), b"query"), flow((OUTSIDE, 40000), b"query"));
        assert!(after.is_translation_of(&before));
        assert!(!flow((OUTSIDE, 40000), b"other").is_translation_of(&before));
    }

    #[test]
    fn it_reads_as_endpoints() {
        assert_eq!(flow((INSIDE, 5000), b"").to_string(), "10.0.1.2:5000 > 192.0.2.1:53");
    }

    #[test]
    fn cut_and_foreign_frames_are_no_flows() {
        let frame = frames::udp(MAC, (INSIDE, 5000), (SERVER, 53), b"query");
        for length in 0..34 {
            assert_eq!(Flow::parse(&frame[..length]), None, "{length} octets");
        }
        let mut arp = frame;
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(Flow::parse(&arp), None);
    }
}
