//! In software what a device was asked to do and cannot.
//!
//! Completes partial checksums: the field holds the pseudo-header's sum, the octets from `start` on are added
//! (virtio 1.2, 5.1.6.2). Only the checksum field is written.

use crate::{Checksum, Head, Offload};

/// The checksum's place is not inside the head, or its sum begins beyond the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced;

/// Completes the partial checksum of a frame made of `head` and `payload`; nothing if it has none.
///
/// Afterwards `head.offload` asks for nothing, so that a second call changes nothing.
pub fn complete_checksum(head: &mut Head, payload: &[u8]) -> Result<(), Misplaced> {
    if let Checksum::Partial { start, offset } = head.offload.checksum {
        complete(head.as_mut_slice(), payload, start, offset)?;
        head.offload = Offload { checksum: Checksum::Unverified };
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
