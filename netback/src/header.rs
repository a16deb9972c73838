//! The virtio-net header in front of every frame on a ring (virtio 1.2, 5.1.6).
//!
//! ```text
//! flags 1 | gso type 1 | header length 2 | gso size 2 | csum start 2 | csum offset 2 | buffers 2
//! ```
//!
//! With VERSION_1 it always has twelve octets, little endian.

use core::num::NonZeroU16;

use crate::{Checksum, Offload, Segments, features::Features};

/// Octets of the header.
pub(crate) const LENGTH: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const TCPV4: u8 = 1;
const ECN: u8 = 0x80;

/// A received header asks for what was not negotiated, or points outside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadOffload;

/// The buffers that a received frame spans, by its header; only of use where merging was negotiated.
#[inline]
pub(crate) fn buffers(header: &[u8; LENGTH]) -> u16 {
    u16::from_le_bytes([header[10], header[11]])
}

/// Reads the header of a received frame of `length` octets.
#[inline]
pub(crate) fn received(
    header: &[u8; LENGTH],
    length: usize,
    features: Features,
) -> Result<Offload, BadOffload> {
    let [flags, gso, _, _, size0, size1, start0, start1, offset0, offset1, _, _] = *header;
    if flags == 0 && gso == 0 {
        return Ok(Offload { checksum: Checksum::Unverified, segments: None });
    }
    let checksum = match flags & (NEEDS_CSUM | DATA_VALID) {
        0 => Checksum::Unverified,
        _ if !features.guest_checksum() => return Err(BadOffload),
        DATA_VALID => Checksum::Verified,
        _ => Checksum::Partial {
            start: u16::from_le_bytes([start0, start1]),
            offset: u16::from_le_bytes([offset0, offset1]),
        },
    };
    let segments = match gso {
        0 => None,
        _ => Some(segments(gso, u16::from_le_bytes([size0, size1]), checksum, features)?),
    };
    match checksum.field_end() {
        Some(end) if end > length => Err(BadOffload),
        _ => Ok(Offload { checksum, segments }),
    }
}

/// Segments are of TCP over IPv4, and each needs a checksum (virtio 1.2, 5.1.6.4.1).
fn segments(gso: u8, size: u16, checksum: Checksum, features: Features) -> Result<Segments, BadOffload> {
    let is_ecn = gso & ECN != 0;
    let is_agreed = gso & !ECN == TCPV4 && features.guest_segments(is_ecn);
    match (NonZeroU16::new(size), checksum) {
        (Some(size), Checksum::Partial { .. }) if is_agreed => Ok(Segments { size, is_ecn }),
        _ => Err(BadOffload),
    }
}

/// The header of a frame to be sent, whose own headers have `head` octets. DATA_VALID is not for us to say, the number
/// of buffers is zero (5.1.6.2.1).
#[inline]
pub(crate) fn sent(offload: Offload, head: u16) -> [u8; LENGTH] {
    // As two words, which are written at once.
    let (mut first, second) = match offload.checksum {
        Checksum::Partial { start, offset } => {
            (u64::from(NEEDS_CSUM) | u64::from(start) << 48, u32::from(offset))
        }
        _ => (0, 0),
    };
    if let Some(Segments { size, is_ecn }) = offload.segments {
        let gso = if is_ecn { TCPV4 | ECN } else { TCPV4 };
        first |= u64::from(gso) << 8 | u64::from(head) << 16 | u64::from(size.get()) << 32;
    }
    let mut header = [0; LENGTH];
    header[..8].copy_from_slice(&first.to_le_bytes());
    header[8..].copy_from_slice(&second.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSUM: u64 = 1 << 1;
    const TSO: u64 = 1 << 7;

    fn read(header: &[u8; LENGTH], length: usize, features: u64) -> Result<Offload, BadOffload> {
        received(header, length, Features::of(features))
    }

    #[test]
    fn a_partial_checksum_is_passed_on_as_received() {
        let offload = Offload::from(Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(sent(offload, 54), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(read(&sent(offload, 54), 52, CSUM), Ok(offload));
        assert_eq!(read(&sent(offload, 54), 51, CSUM), Err(BadOffload));
        assert_eq!(read(&sent(offload, 54), 52, 0), Err(BadOffload));
    }

    #[test]
    fn segments_are_passed_on_as_received() {
        let size = NonZeroU16::new(0x5a8).unwrap();
        for (is_ecn, gso, needs) in [(false, 1, CSUM | TSO), (true, 0x81, CSUM | TSO | 1 << 9)] {
            let segments = Some(Segments { size, is_ecn });
            let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segments };
            let header = sent(offload, 66);
            assert_eq!(header, [1, gso, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
            assert_eq!(read(&header, 40_000, needs), Ok(offload));
            assert_eq!(read(&header, 40_000, CSUM), Err(BadOffload));
            assert_eq!(read(&header, 40_000, needs & !(1 << 9)).is_ok(), !is_ecn);
        }
    }

    #[test]
    fn sums_that_would_wrap_are_outside_the_frame() {
        let header = [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert_eq!(read(&header, 4084, CSUM), Err(BadOffload));
    }

    #[test]
    fn what_was_not_negotiated_or_makes_no_segments_is_refused() {
        for gso in 1..=255 {
            assert_eq!(read(&[0, gso, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], 1514, u64::MAX), Err(BadOffload));
            let bad = read(&[1, gso, 0, 0, 9, 0, 34, 0, 16, 0, 0, 0], 1514, u64::MAX).is_err();
            assert_eq!(bad, gso != 1 && gso != 0x81, "{gso}");
            assert_eq!(read(&[1, gso, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], 1514, u64::MAX), Err(BadOffload));
        }
    }

    #[test]
    fn what_the_device_verified_is_not_claimed_when_sent() {
        let offload = read(&[2, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9], 60, CSUM).unwrap();
        assert_eq!(offload.checksum, Checksum::Verified);
        assert_eq!(sent(offload, 54), [0; LENGTH]);
    }
}
