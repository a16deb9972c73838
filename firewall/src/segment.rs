//! The maximum segment size that a SYN offers, lowered as the rules have it (RFC 9293 3.7.1).

use nat::checksum::Difference;
use netback::{ETHERNET_HEADER, Head};

/// The least IPv4 and TCP header: what a link takes less this is left for a segment (RFC 9293 3.7.1).
const HEADERS: usize = 40;

/// What is offered where the links take next to nothing (RFC 9293 3.7.1).
const DEFAULT: u16 = 536;

/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;

/// Where the options of a TCP header begin.
const OPTIONS: usize = 20;

/// What the rules want of the packet that passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clamp {
    /// No more than this.
    octets: u16,
    /// Nor more than the links on its way take.
    by_links: bool,
}

impl Clamp {
    /// This clamp, if there is one, and what a rule wants besides: octets, or 0 for what the links take.
    pub fn and(clamp: Option<Self>, octets: u16) -> Self {
        let Self { octets: before, by_links } = clamp.unwrap_or(Self { octets: u16::MAX, by_links: false });
        match octets {
            0 => Self { octets: before, by_links: true },
            _ => Self { octets: before.min(octets), by_links },
        }
    }

    /// The most octets of a segment between two links.
    pub fn octets(self, mtus: [usize; 2]) -> u16 {
        if !self.by_links {
            return self.octets;
        }
        let mtu = mtus[0].min(mtus[1]);
        let left =
            u16::try_from(mtu.saturating_sub(HEADERS)).ok().filter(|&left| left > 0).unwrap_or(DEFAULT);
        left.min(self.octets)
    }
}

/// Takes the whole TCP header into `head`, which has the first `taken` octets of the packet, with an IPv4 header of
/// `header` octets. Tells how many octets of the packet the head stands for then; `None` when the segment is not whole.
pub(crate) fn take_header(head: &mut Head, packet: &[u8], header: usize, taken: usize) -> Option<usize> {
    let end = (header + offset(head, header)?).max(taken);
    head.extend_from_slice(packet.get(taken..end)?).ok()?;
    Some(end)
}

/// Octets of the TCP header by the offset that was judged: the packet's own octets may have changed since.
fn offset(head: &Head, header: usize) -> Option<usize> {
    head.as_slice().get(ETHERNET_HEADER + header + 12).map(|octet| usize::from(octet >> 4) * 4)
}

/// Lowers what the options of a segment offer, whose headers `head` has whole. A partial checksum covers no options,
/// and stays.
pub(crate) fn lower(head: &mut Head, header: usize, most: u16, is_partial: bool) {
    let length = offset(head, header).unwrap_or(0);
    let tcp = head.as_mut_slice().get_mut(ETHERNET_HEADER + header..).and_then(|tcp| tcp.get_mut(..length));
    if let Some(tcp) = tcp
        && let Some(at) = place(tcp)
    {
        replace(tcp, at, most, is_partial);
    }
}

/// Where the maximum segment size stands in a TCP header.
fn place(tcp: &[u8]) -> Option<usize> {
    let mut at = OPTIONS;
    loop {
        match (*tcp.get(at)?, tcp.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, Some(4)) => return tcp.get(at + 2..at + 4).map(|_| at + 2),
            (_, Some(&length)) if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
}

/// Writes a lesser number, and what that does to the checksum (RFC 1624).
fn replace(tcp: &mut [u8], at: usize, most: u16, is_partial: bool) {
    let read = |tcp: &[u8], at: usize| tcp.get(at..).and_then(|rest| rest.first_chunk()).copied();
    let Some(old) = read(tcp, at).map(u16::from_be_bytes).filter(|&old| old > most) else { return };
    let Some(checksum) = read(tcp, CHECKSUM) else { return };
    // At an odd place the octets belong to the other halves of their words.
    let difference = match at.is_multiple_of(2) {
        true => Difference::of_field(old, most),
        false => Difference::of_field(old.swap_bytes(), most.swap_bytes()),
    };
    let updated = difference.update(u16::from_ne_bytes(checksum)).to_ne_bytes();
    let checksum = if is_partial { checksum } else { updated };
    for (place, value) in [(at, most.to_be_bytes()), (CHECKSUM, checksum)] {
        if let Some(octets) = tcp.get_mut(place..place + 2) {
            octets.copy_from_slice(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use etherparse::TcpOptionElement::{MaximumSegmentSize, Noop, WindowScale};
    use etherparse::{Ipv4Header, TcpHeader};
    use smoltcp::wire::{EthernetAddress, EthernetProtocol};

    /// A SYN with these options, its checksum right, and what leaves of it with `most`.
    fn lowered(options: &[etherparse::TcpOptionElement], most: u16) -> (TcpHeader, u16) {
        let mut tcp = TcpHeader::new(4000, 80, 7, 1000);
        tcp.syn = true;
        tcp.set_options(options).unwrap();
        let ip =
            Ipv4Header::new(tcp.header_len_u16(), 64, etherparse::IpNumber::TCP, [10, 0, 1, 2], [1, 1, 1, 1])
                .unwrap();
        tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).unwrap();
        let mut packet = Vec::new();
        ip.write(&mut packet).unwrap();
        tcp.write(&mut packet).unwrap();
        let station = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let mut head = Head::new(station, station, EthernetProtocol::Ipv4);
        head.extend_from_slice(&packet[..40]).unwrap();
        assert_eq!(take_header(&mut head, &packet, 20, 40), Some(packet.len()));
        lower(&mut head, 20, most, false);
        let (after, _) = TcpHeader::from_slice(&head.as_slice()[ETHERNET_HEADER + 20..]).unwrap();
        let checksum = after.calc_checksum_ipv4(&ip, &[]).unwrap();
        (after, checksum)
    }

    fn offered(tcp: &TcpHeader) -> Option<u16> {
        tcp.options_iterator().find_map(|option| match option {
            Ok(MaximumSegmentSize(octets)) => Some(octets),
            _ => None,
        })
    }

    #[test]
    fn what_is_greater_is_lowered_and_the_checksum_stays_right() {
        for options in [
            &[MaximumSegmentSize(1460)][..],
            &[Noop, MaximumSegmentSize(1460), WindowScale(7)],
            &[WindowScale(7), MaximumSegmentSize(1460), Noop],
        ] {
            let (tcp, checksum) = lowered(options, 1200);
            assert_eq!((offered(&tcp), tcp.checksum), (Some(1200), checksum), "{options:?}");
            let (tcp, checksum) = lowered(options, 1460);
            assert_eq!((offered(&tcp), tcp.checksum), (Some(1460), checksum), "{options:?}");
        }
        let (tcp, checksum) = lowered(&[WindowScale(7)], 1200);
        assert_eq!((offered(&tcp), tcp.checksum), (None, checksum));
    }

    #[test]
    fn several_rules_and_links_leave_the_least() {
        let of_rules = Clamp::and(Some(Clamp::and(None, 1300)), 1400);
        assert_eq!(of_rules.octets([1500, 100]), 1300);
        assert_eq!(Clamp::and(Some(of_rules), 0).octets([1280, 9000]), 1240);
        assert_eq!(Clamp::and(Some(of_rules), 0).octets([1500, 1492]), 1300);
        assert_eq!(Clamp::and(None, 0).octets([68, 30]), DEFAULT);
    }

    #[test]
    fn damaged_options_are_left_alone() {
        for options in [&[2u8, 3, 5, 5][..], &[3, 0, 2, 4], &[2, 4], &[5], &[8, 200, 2, 4], &[]] {
            let tcp: Vec<u8> = [&[0; OPTIONS][..], options].concat();
            assert_eq!(place(&tcp), None, "{options:?}");
        }
    }
}
