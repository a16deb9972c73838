//! What must hold of every frame that leaves, whatever the test is about. etherparse computes the
//! checksums; the appliance's own code has no say.

use std::net::Ipv4Addr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{Icmpv4Header, Ipv4Header, TcpHeader, UdpHeader};
use netback::{Checksum, ETHERNET_HEADER, Offload, Segments};
use rules::site::Prefix;
use smoltcp::wire::EthernetAddress;

use crate::packet::pseudo_sum;

/// What is known about a port, and what is demanded of its frames.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The port's own hardware address.
    pub mac: EthernetAddress,
    /// The port's MTU in octets.
    pub mtu: usize,
    /// Own addresses on this port.
    pub own: Vec<Ipv4Addr>,
    /// Networks whose addresses must not be seen here.
    pub hidden: Vec<Prefix>,
    /// Networks to which every destination belongs; empty: everybody.
    pub behind: Vec<Prefix>,
    /// Whether transport checksums are right because those that came in are.
    pub transport: bool,
}

impl Judge {
    /// Passes a frame; the error tells what is wrong with it.
    ///
    /// # Errors
    /// The first thing that no frame of ours may be.
    pub fn frame(&self, frame: &[u8], offload: Offload) -> Result<(), String> {
        let (ethernet, octets) =
            frame.split_at_checked(ETHERNET_HEADER).ok_or("shorter than an Ethernet header")?;
        check(ethernet[6..12] == self.mac.0, "a source MAC not our own")?;
        let longest = offload.segments.map_or(octets.len(), |segments| largest(octets, segments));
        check(longest <= self.mtu, "longer than the MTU")?;
        let station = EthernetAddress::from_bytes(&ethernet[..6]);
        match ethernet[12..] {
            [8, 6] => self.arp(station, octets),
            [8, 0] => {
                check(station.is_unicast(), "unicast in a group frame")?;
                check(station.0 != [0; 6] && station != self.mac, "no station")?;
                self.packet(octets, offload)
            }
            _ => Err("neither IPv4 nor ARP".into()),
        }
    }

    fn arp(&self, station: EthernetAddress, octets: &[u8]) -> Result<(), String> {
        check(octets.len() == 28, "not the length of ARP")?;
        check(octets[..6] == [0, 1, 8, 0, 6, 4], "not Ethernet and IPv4")?;
        check(octets[8..14] == self.mac.0, "an ARP sender not our own")?;
        let sender = Ipv4Addr::new(octets[14], octets[15], octets[16], octets[17]);
        check(self.own.contains(&sender), "an ARP claim not our own")?;
        match octets[7] {
            // To one station: where a neighbour was (RFC 1122 2.3.2.1, unicast poll).
            1 => check(station.is_broadcast() || station.is_unicast(), "a request to a group"),
            2 => check(station.is_unicast(), "a reply to all"),
            _ => Err("an unknown ARP operation".into()),
        }
    }

    fn packet(&self, octets: &[u8], offload: Offload) -> Result<(), String> {
        let (header, payload) = whole(octets)?;
        check(usize::from(header.total_len) == octets.len(), "octets behind the total length")?;
        check(header.time_to_live > 0, "TTL 0")?;
        let (source, destination) = (header.source.into(), header.destination.into());
        self.address(source)?;
        self.address(destination)?;
        let known = |address| self.behind.iter().any(|prefix| prefix.contains(address));
        check(self.behind.is_empty() || known(destination), "a destination that is not behind this port")?;
        if header.more_fragments || header.fragment_offset.value() > 0 {
            return Ok(());
        }
        match header.protocol.0 {
            1 => self.icmp(&header, payload),
            _ => self.transport(octets, &header, payload, offload),
        }
    }

    fn address(&self, address: Ipv4Addr) -> Result<(), String> {
        match self.hidden.iter().any(|prefix| prefix.contains(address)) {
            true => Err(format!("{address} is seen from outside")),
            false => Ok(()),
        }
    }

    fn transport(
        &self,
        octets: &[u8],
        header: &Ipv4Header,
        payload: &[u8],
        offload: Offload,
    ) -> Result<(), String> {
        if let Some(segments) = offload.segments {
            check(header.protocol.0 == 6, "segments of what is not TCP")?;
            check(largest(octets, segments) < octets.len(), "a single segment to be cut")?;
        }
        let Checksum::Partial { start, offset } = offload.checksum else {
            check(offload.segments.is_none(), "segments without a partial checksum")?;
            return match self.transport {
                true => complete(header, payload),
                false => Ok(()),
            };
        };
        let expected = match header.protocol.0 {
            6 => 16,
            17 => 6,
            _ => return Err("a partial checksum in neither TCP nor UDP".into()),
        };
        check(
            usize::from(start) == ETHERNET_HEADER + header.header_len() && offset == expected,
            "a misplaced partial checksum",
        )?;
        let field = payload
            .get(usize::from(offset)..)
            .and_then(|rest| rest.first_chunk::<2>())
            .ok_or("a partial checksum outside the packet")?;
        // One number has two forms: 0 and 0xffff.
        let same = u16::from_be_bytes(*field) % 0xffff == pseudo_sum(octets) % 0xffff;
        check(same || !self.transport, "a wrong partial checksum")
    }

    fn icmp(&self, header: &Ipv4Header, payload: &[u8]) -> Result<(), String> {
        let is_error = matches!(payload.first(), Some(3 | 4 | 5 | 11 | 12));
        if self.transport || is_error {
            complete(header, payload)?;
        }
        if !is_error {
            return Ok(());
        }
        let quote = &payload[8..];
        let (inner, rest) = whole(quote).map_err(|error| format!("quoted: {error}"))?;
        self.address(inner.source.into())?;
        self.address(inner.destination.into())?;
        // Unless there was no more of it.
        let there = usize::from(inner.total_len).saturating_sub(inner.header_len());
        check(rest.len() >= there.min(8), "less than 8 octets of transport quoted")?;
        let is_whole = quote.len() >= inner.total_len.into() && !inner.is_fragmenting_payload();
        match is_whole && self.transport {
            true => {
                let length = usize::from(inner.total_len) - inner.header_len();
                complete(&inner, &rest[..length]).map_err(|error| format!("quoted: {error}"))
            }
            false => Ok(()),
        }
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise.into()),
    }
}

/// A header with the right checksum, and what is there of its payload.
fn whole(octets: &[u8]) -> Result<(Ipv4Header, &[u8]), String> {
    let (header, payload) = Ipv4Header::from_slice(octets).map_err(|error| error.to_string())?;
    // Over the octets: the fields that etherparse keeps have no place for the reserved bit.
    let sum = Sum16BitWords::new().add_slice(&octets[..header.header_len()]);
    check(sum.ones_complement() == 0, "a wrong IP header checksum")?;
    Ok((header, payload))
}

/// A transport header with the right checksum, over the whole payload.
fn complete(header: &Ipv4Header, payload: &[u8]) -> Result<(), String> {
    let right = match header.protocol.0 {
        17 => {
            let (udp, _) = UdpHeader::from_slice(payload).map_err(|error| error.to_string())?;
            check(usize::from(udp.length) == payload.len(), "a wrong UDP length")?;
            udp.checksum == 0 || excess(header, payload) == 0
        }
        6 => {
            TcpHeader::from_slice(payload).map_err(|error| error.to_string())?;
            excess(header, payload) == 0
        }
        1 => {
            Icmpv4Header::from_slice(payload).map_err(|error| error.to_string())?;
            excess(header, payload) == 0
        }
        _ => true,
    };
    check(right, "a wrong transport checksum")
}

/// By how much a transport checksum is wrong: the sum over everything that it covers and itself,
/// as a number modulo 0xffff (RFC 1071). It is 0 if the checksum is right.
fn excess(header: &Ipv4Header, payload: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new().add_slice(payload);
    let sum = match header.protocol.0 {
        1 => sum,
        protocol => sum
            .add_4bytes(header.source)
            .add_4bytes(header.destination)
            .add_2bytes([0, protocol])
            .add_2bytes((payload.len() as u16).to_be_bytes()),
    };
    !sum.ones_complement().to_be() % 0xffff
}

/// By how much the transport checksum of a whole packet is wrong; 0 if it is right.
///
/// # Panics
/// If it is no IPv4 packet.
pub fn wrong_by(octets: &[u8]) -> u16 {
    let (header, payload) = whole(octets).expect("an IPv4 packet");
    excess(&header, payload)
}

/// Whether the judge finds nothing wrong with the checksums and lengths of a packet.
pub fn is_sound(octets: &[u8]) -> bool {
    whole(octets).is_ok_and(|(header, payload)| complete(&header, payload).is_ok())
}

/// Makes a header's checksum right, if there is a header: so that what is wrong elsewhere is found.
pub fn mend_header(octets: &mut [u8]) {
    let length = octets.first().map_or(0, |first| usize::from(first & 15) * 4).max(20);
    let length = length.min(octets.len());
    if length >= 20 {
        octets[10..12].fill(0);
        let sum = Sum16BitWords::new().add_slice(&octets[..length]).ones_complement().to_be();
        octets[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Makes the transport checksum of a packet without options right, if there is one.
pub fn mend_transport(octets: &mut [u8]) {
    let Ok((header, payload)) = Ipv4Header::from_slice(octets) else {
        return;
    };
    let at = match header.protocol.0 {
        1 => 2,
        6 => 16,
        17 => 6,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    let mut mended = payload.to_vec();
    mended[at..at + 2].fill(0);
    let sum = match 0xffff - excess(&header, &mended) {
        // RFC 768: zero would mean that there is none; elsewhere it is the form that a sum has.
        0xffff if header.protocol.0 != 17 => 0,
        sum => sum,
    };
    let start = octets.len() - mended.len();
    octets[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The longest datagram that a large TCP segment is cut into.
fn largest(octets: &[u8], segments: Segments) -> usize {
    let header = usize::from(octets[0] & 15) * 4;
    let offset = octets.get(header + 12).map_or(0, |octet| usize::from(octet >> 4) * 4);
    octets.len().min(header + offset + usize::from(segments.size.get()))
}
