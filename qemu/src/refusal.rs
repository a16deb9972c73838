//! ICMP errors, as a host that is told "no" reads them.

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet};
use std::fmt;
use std::net::Ipv4Addr;

/// Octets of an ICMP error ahead of the packet it quotes (RFC 792).
const ICMP_HEADER: usize = 8;

/// An ICMP error and what it quotes of the packet it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Who refused.
    pub from: Ipv4Addr,
    /// The ICMP type: 3, 11 or 12.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// The protocol of the quoted packet.
    pub protocol: IpProtocol,
    /// The source of the quoted packet.
    pub source: Ipv4Addr,
    /// The destination of the quoted packet.
    pub destination: Ipv4Addr,
    /// The first eight octets of the quoted transport header.
    pub transport: [u8; 8],
}

impl IcmpError {
    /// Reads a frame; `None` when it is no ICMP error, or one with a wrong checksum.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Ipv4
            || ip.next_header() != IpProtocol::Icmp
            || !ip.verify_checksum()
        {
            return None;
        }
        let icmp = ip.payload();
        let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
        if !matches!(kind, 3 | 11 | 12) || !sums_up(icmp) {
            return None;
        }
        // The quote may be cut behind eight octets of transport: its total length is no longer true.
        let quoted = Ipv4Packet::new_unchecked(icmp.get(ICMP_HEADER..).filter(|quoted| quoted.len() >= 20)?);
        let header = usize::from(quoted.header_len());
        let transport = icmp.get(ICMP_HEADER + header..)?.get(..8)?.try_into().ok()?;
        Some(Self {
            from: ip.src_addr(),
            kind,
            code,
            protocol: quoted.next_header(),
            source: quoted.src_addr(),
            destination: quoted.dst_addr(),
            transport,
        })
    }

    /// The source port of the quoted packet, or the identifier of a quoted ICMP query.
    pub fn source_port(&self) -> u16 {
        let [a, b, _, _, c, d, ..] = self.transport;
        u16::from_be_bytes(if self.protocol == IpProtocol::Icmp { [c, d] } else { [a, b] })
    }

    /// Whether this is how a policy says no: communication administratively prohibited (RFC 1812, 5.2.7.1).
    pub fn is_administrative(&self) -> bool {
        self.kind == 3 && matches!(self.code, 9 | 10 | 13)
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match (self.kind, self.code) {
            (3, 0) => "network unreachable",
            (3, 1) => "host unreachable",
            (3, 2) => "protocol unreachable",
            (3, 3) => "port unreachable",
            (3, 4) => "fragmentation needed",
            (3, 9 | 10 | 13) => "administratively prohibited",
            (3, _) => "unreachable",
            (11, _) => "time exceeded",
            _ => "parameter problem",
        };
        write!(f, "ICMP {}/{} {meaning}, from {}", self.kind, self.code, self.from)
    }
}

/// Whether octets that hold their own Internet checksum add up (RFC 1071).
fn sums_up(octets: &[u8]) -> bool {
    let words = octets.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum = words.fold(0_u32, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.1.1 tells 10.0.1.2 that 10.0.2.2 is prohibited; quotes an echo request with identifier 7.
    fn prohibited() -> Vec<u8> {
        let quoted =
            [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 1, 2, 10, 0, 2, 2, 8, 0, 0, 0, 0, 7, 0, 1];
        let mut icmp = vec![3, 13, 0, 0, 0, 0, 0, 0];
        icmp.extend_from_slice(&quoted);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum);
        let mut ip = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 1, 1, 10, 0, 1, 2];
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0]);
        [frame, ip, icmp].concat()
    }

    fn checksum(octets: &[u8]) -> [u8; 2] {
        let mut sum: u32 =
            octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn a_prohibition_names_who_what_and_whose_query() {
        let error = IcmpError::parse(&prohibited()).unwrap();
        assert!(error.is_administrative());
        assert_eq!(error.destination, Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(error.source_port(), 7);
        assert_eq!(error.to_string(), "ICMP 3/13 administratively prohibited, from 10.0.1.1");
    }

    #[test]
    fn a_wrong_checksum_or_a_cut_makes_it_none() {
        let frame = prohibited();
        for at in 14..frame.len() {
            let mut broken = frame.clone();
            broken[at] ^= 0x10;
            assert_eq!(IcmpError::parse(&broken), None, "octet {at}");
            assert_eq!(IcmpError::parse(&frame[..at]), None, "cut at {at}");
        }
    }
}
