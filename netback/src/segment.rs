//! In software what a device was asked to do and cannot.
//!
//! Completes partial checksums: the field holds the pseudo-header's sum, the octets from `start` on are added
//! (virtio 1.2, 5.1.6.2). Only the checksum field is written. And cuts large TCP segments into those that fit a link.

use core::ops::Range;

use crate::{Checksum, ETHERNET_HEADER, Head, Offload, Segments};

/// The checksum's place is not inside the head, or its sum begins beyond the frame; or the head is not that of a TCP
/// segment, or it would be cut into too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced;

/// Completes the partial checksum of a frame made of `head` and `payload`; nothing if it has none.
///
/// Afterwards `head.offload` asks for nothing, so that a second call changes nothing.
pub fn complete_checksum(head: &mut Head, payload: &[u8]) -> Result<(), Misplaced> {
    if let Checksum::Partial { start, offset } = head.offload.checksum {
        complete(head.as_mut_slice(), payload, start, offset)?;
        head.offload = Offload::default();
    }
    Ok(())
}

/// Completes a partial checksum whose field lies at `start + offset` in `head`.
pub(crate) fn complete(head: &mut [u8], payload: &[u8], start: u16, offset: u16) -> Result<(), Misplaced> {
    let start = usize::from(start);
    let covered = head.get_mut(start..).ok_or(Misplaced)?;
    let mut total = u64::from(sum(covered));
    let rest = sum(payload);
    // RFC 1071, 2(B): behind an odd number of octets the sum's octets change places.
    total += u64::from(if covered.len() % 2 == 1 { rest.swap_bytes() } else { rest });
    let field = covered
        .get_mut(usize::from(offset)..)
        .and_then(|rest| rest.first_chunk_mut::<2>())
        .ok_or(Misplaced)?;
    // RFC 768: zero on the wire means "no checksum"; the other zero is as good for TCP.
    let checksum = match !fold(total) {
        0 => 0xffff,
        checksum => checksum,
    };
    *field = checksum.to_ne_bytes();
    Ok(())
}

/// Segments that one frame is cut into at most: 64 KiB at the 536 octets that every host takes (RFC 9293 3.7.1).
const PIECES_MAX: usize = 128;

const IPV4: usize = 20;
const TCP: usize = 20;
/// Of the IPv4 header: total length, identification, checksum.
const TOTAL_LENGTH: usize = 2;
const IDENTIFICATION: usize = 4;
const IP_CHECKSUM: usize = 10;
/// Of the TCP header: sequence number, control bits, checksum.
const SEQUENCE: usize = 4;
const CONTROL: usize = 13;
const TCP_CHECKSUM: usize = 16;
/// What only the last segment says, and what only the first one does.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// How a TCP segment over IPv4 is cut. Its head is whole, and the payload is TCP's.
pub(crate) struct Cut {
    /// Where the TCP header begins.
    tcp: usize,
    head: usize,
    payload: usize,
    size: usize,
}

impl Cut {
    /// How the frame of `head` and `payload` octets is cut.
    pub(crate) fn new(head: &Head, payload: usize, segments: Segments) -> Result<Self, Misplaced> {
        let octets = head.as_slice();
        let first = *octets.get(ETHERNET_HEADER).ok_or(Misplaced)?;
        let tcp = ETHERNET_HEADER + usize::from(first & 15) * 4;
        let offset = octets.get(tcp + 12).map_or(0, |octet| usize::from(octet >> 4) * 4);
        let place = Checksum::Partial { start: tcp as u16, offset: TCP_CHECKSUM as u16 };
        let size = usize::from(segments.size.get());
        let is_tcp = first >> 4 == 4
            && tcp >= ETHERNET_HEADER + IPV4
            && offset >= TCP
            && tcp + offset == octets.len()
            && head.offload.checksum == place;
        if !is_tcp
            || payload.div_ceil(size) > PIECES_MAX
            || octets.len() - ETHERNET_HEADER + payload > u16::MAX.into()
        {
            return Err(Misplaced);
        }
        Ok(Self { tcp, head: octets.len(), payload, size })
    }

    /// The part of the payload that each segment has.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let (size, payload) = (self.size, self.payload);
        (0..payload).step_by(size).map(move |start| start..payload.min(start + size))
    }

    /// Makes a copy of the whole's head the head of one segment; its partial checksum stays partial.
    pub(crate) fn write(&self, head: &mut [u8], piece: &Range<usize>) {
        let Some((ip, tcp)) = head
            .split_at_mut_checked(self.tcp)
            .and_then(|(front, tcp)| front.get_mut(ETHERNET_HEADER..).zip(Some(tcp)))
        else {
            return;
        };
        let header = self.head - ETHERNET_HEADER;
        change(ip, TOTAL_LENGTH, |_| (header + piece.len()) as u16);
        // RFC 6864: each datagram has its own.
        change(ip, IDENTIFICATION, |first| first.wrapping_add((piece.start / self.size) as u16));
        change(ip, IP_CHECKSUM, |_| 0);
        let checksum = u16::from_be_bytes((!sum(ip)).to_ne_bytes());
        change(ip, IP_CHECKSUM, |_| checksum);
        change_sequence(tcp, piece.start as u32);
        if let Some(control) = tcp.get_mut(CONTROL) {
            let not_last = if piece.end < self.payload { FIN_PSH } else { 0 };
            let not_first = if piece.start > 0 { CWR } else { 0 };
            *control &= !(not_last | not_first);
        }
        // The length in the pseudo-header is less by so much.
        let less = (self.payload - piece.len()) as u16;
        change(tcp, TCP_CHECKSUM, |sum| fold(u64::from(sum) + u64::from(!less)));
    }
}

/// Changes a field of 16 bits in network order.
fn change(header: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(field) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = change(u16::from_be_bytes(*field)).to_be_bytes();
    }
}

fn change_sequence(tcp: &mut [u8], further: u32) {
    if let Some(field) = tcp.get_mut(SEQUENCE..).and_then(|rest| rest.first_chunk_mut()) {
        *field = u32::from_be_bytes(*field).wrapping_add(further).to_be_bytes();
    }
}

/// The ones' complement sum of 16-bit words as they lie in memory (RFC 1071, 2(B): the order of octets is free).
fn sum(octets: &[u8]) -> u16 {
    let (words, rest) = octets.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let total = words.iter().fold(u64::from_ne_bytes(last), |total, word| {
        let (total, carry) = total.overflowing_add(u64::from_ne_bytes(*word));
        total + u64::from(carry)
    });
    fold(total)
}

/// Adds the carries back in until 16 bits are left.
fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use smoltcp::wire::{EthernetAddress, EthernetProtocol};

    use super::*;

    /// RFC 1071 as it is written, over octet pairs in network order.
    fn reference(octets: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in octets.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        !(total as u16)
    }

    fn head(octets: &[u8], start: u16, offset: u16) -> Head {
        let mut head = Head::new(EthernetAddress([2; 6]), EthernetAddress([4; 6]), EthernetProtocol::Ipv4);
        head.extend_from_slice(octets).unwrap();
        head.offload.checksum = Checksum::Partial { start, offset };
        head
    }

    /// A frame of `length` octets of payload, as a device without the offload is to receive it: with smoltcp's
    /// checksums, which judge ours.
    fn whole(length: usize, control: u8) -> (Head, Vec<u8>) {
        let payload: Vec<u8> = (0..length).map(|n| (n * 31 + 5) as u8).collect();
        let mut ip = [0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 63, 6, 0, 0, 10, 0, 1, 2, 192, 0, 2, 9];
        ip[2..4].copy_from_slice(&((52 + length) as u16).to_be_bytes());
        let mut tcp = [0; 32];
        tcp[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        tcp[4..8].copy_from_slice(&0xffff_f000u32.to_be_bytes());
        tcp[12..14].copy_from_slice(&[0x80, control]);
        tcp[20..].copy_from_slice(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        let pseudo = [&ip[12..], &[0, 6], &((32 + length) as u16).to_be_bytes()].concat();
        tcp[16..18].copy_from_slice(&(!reference(&pseudo)).to_be_bytes());
        let head = head(&[&ip[..], &tcp].concat(), 34, 16);
        (head, payload)
    }

    fn segments(size: u16) -> Segments {
        Segments { size: size.try_into().unwrap(), is_ecn: true }
    }

    #[test]
    fn a_segment_is_cut_into_those_that_the_wire_carries() {
        use smoltcp::wire::{Ipv4Packet, TcpPacket};
        for (length, size) in [(4000, 1448), (1449, 1448), (2896, 1448), (1, 9), (65_000, 536)] {
            let (whole, payload) = whole(length, 0x99);
            let cut = Cut::new(&whole, length, segments(size)).unwrap();
            let mut together = Vec::new();
            let count = length.div_ceil(size.into());
            for (index, piece) in cut.pieces().enumerate() {
                let mut head = whole.clone();
                cut.write(head.as_mut_slice(), &piece);
                complete_checksum(&mut head, &payload[piece.clone()]).unwrap();
                let frame = [head.as_slice(), &payload[piece]].concat();
                let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
                let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                assert!(ip.verify_checksum() && ip.total_len() as usize == frame.len() - 14);
                assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()), "{index}");
                assert_eq!(ip.ident(), 0xfffeu16.wrapping_add(index as u16));
                assert_eq!(tcp.seq_number().0 as u32, 0xffff_f000u32.wrapping_add(together.len() as u32));
                let (first, last) = (index == 0, index + 1 == count);
                assert_eq!((tcp.fin(), tcp.psh(), tcp.cwr(), tcp.ack()), (last, last, first, true));
                assert_eq!(tcp.header_len(), 32);
                together.extend_from_slice(tcp.payload());
            }
            assert_eq!(together, payload);
        }
    }

    #[test]
    fn what_is_no_whole_head_or_makes_too_many_pieces_is_not_cut() {
        let (whole, _) = whole(4000, 0x10);
        let refused = |change: &dyn Fn(&mut Head), payload: usize, size: u16| {
            let mut head = whole.clone();
            change(&mut head);
            Cut::new(&head, payload, segments(size)).is_err()
        };
        assert!(!refused(&|_| {}, 4000, 1448));
        assert!(!refused(&|_| {}, 4000, 32));
        assert!(refused(&|_| {}, 4000, 31));
        assert!(refused(&|_| {}, 65_484, 1448) && !refused(&|_| {}, 65_483, 1448));
        assert!(refused(&|head| head.as_mut_slice()[14] = 0x44, 4000, 1448));
        assert!(refused(&|head| head.as_mut_slice()[14] = 0x46, 4000, 1448));
        assert!(refused(&|head| head.as_mut_slice()[14] = 0x65, 4000, 1448));
        assert!(refused(&|head| head.as_mut_slice()[46] = 0x70, 4000, 1448));
        assert!(refused(&|head| head.as_mut_slice()[46] = 0xf0, 4000, 1448));
        assert!(refused(&|head| head.offload = Offload::default(), 4000, 1448));
        assert!(refused(&|head| head.extend_from_slice(&[0; 4]).unwrap(), 4000, 1448));
    }

    #[test]
    fn checksum_agrees_with_rfc_1071_for_every_split_and_length() {
        let octets: Vec<u8> = (0..140u32).map(|n| (n * 167 + 13) as u8).collect();
        for length in 24..octets.len() {
            for split in 10..=length.min(120) {
                let mut head = head(&octets[..split], 16, 4);
                complete_checksum(&mut head, &octets[split..length]).unwrap();
                let expected = match reference(&octets[2..length]) {
                    0 => 0xffff,
                    sum => sum,
                };
                assert_eq!(head.as_slice()[20..22], expected.to_be_bytes(), "length {length} split {split}");
                assert_eq!(head.offload, Offload::default());
            }
        }
    }

    #[test]
    fn rfc_768_a_computed_zero_is_sent_as_ones() {
        // The field's own 0xffff makes the sum all ones, its complement zero.
        let mut head = head(&[0, 0, 0xff, 0xff], 14, 2);
        complete_checksum(&mut head, &[0; 9]).unwrap();
        assert_eq!(head.as_slice()[16..], [0xff, 0xff]);
    }

    #[test]
    fn checksum_is_completed_once() {
        let mut head = head(&[1, 2, 0, 0, 5, 6], 14, 2);
        complete_checksum(&mut head, &[7]).unwrap();
        let once = head.as_slice().to_vec();
        complete_checksum(&mut head, &[7]).unwrap();
        assert_eq!(head.as_slice(), once);
    }

    #[test]
    fn a_field_outside_the_head_changes_nothing() {
        for (start, offset) in [(14, 5), (18, 1), (21, 0), (0xffff, 0xffff), (14, 0xffff)] {
            let mut head = head(&[9; 6], start, offset);
            let before = head.as_slice().to_vec();
            assert_eq!(complete_checksum(&mut head, &[1, 2, 3]), Err(Misplaced), "{start} {offset}");
            assert_eq!(head.as_slice(), before);
        }
    }
}
