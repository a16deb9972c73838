//! The virtio-net header in front of every frame on a ring (virtio 1.2, 5.1.6).
//!
//! ```text
//! flags 1 | gso type 1 | header length 2 | gso size 2 | csum start 2 | csum offset 2 | buffers 2
//! ```
//!
//! With VERSION_1 it always has twelve octets, little endian.

use crate::{Checksum, Offload};

/// Octets of the header.
pub(crate) const LENGTH: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// A received header asks for what was not negotiated, or points outside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadOffload;

/// Reads the header of a received frame of `length` octets; `checksums` tells whether GUEST_CSUM was negotiated.
#[inline]
pub(crate) fn received(header: &[u8; LENGTH], length: usize, checksums: bool) -> Result<Offload, BadOffload> {
    let [flags, gso, _, _, _, _, start0, start1, offset0, offset1, _, _] = *header;
    if gso != 0 {
        return Err(BadOffload);
    }
    let checksum = match flags & (NEEDS_CSUM | DATA_VALID) {
        0 => Checksum::Unverified,
        _ if !checksums => return Err(BadOffload),
        DATA_VALID => Checksum::Verified,
        _ => Checksum::Partial {
            start: u16::from_le_bytes([start0, start1]),
            offset: u16::from_le_bytes([offset0, offset1]),
        },
    };
    match checksum.field_end() {
        Some(end) if end > length => Err(BadOffload),
        _ => Ok(Offload { checksum }),
    }
}

/// The header of a frame to be sent. DATA_VALID is not for us to say, the number of buffers is zero (5.1.6.2.1).
#[inline]
pub(crate) fn sent(offload: Offload) -> [u8; LENGTH] {
    let mut header = [0; LENGTH];
    if let Checksum::Partial { start, offset } = offload.checksum {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_checksum_is_passed_on_as_received() {
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 } };
        assert_eq!(sent(offload), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(received(&sent(offload), 52, true), Ok(offload));
        assert_eq!(received(&sent(offload), 51, true), Err(BadOffload));
        assert_eq!(received(&sent(offload), 52, false), Err(BadOffload));
    }

    #[test]
    fn sums_that_would_wrap_are_outside_the_frame() {
        let header = [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert_eq!(received(&header, 4084, true), Err(BadOffload));
    }

    #[test]
    fn segmentation_was_not_negotiated() {
        for gso in 1..=255 {
            assert_eq!(received(&[0, gso, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1514, true), Err(BadOffload));
        }
    }

    #[test]
    fn what_the_device_verified_is_not_claimed_when_sent() {
        let offload = received(&[2, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9], 60, true).unwrap();
        assert_eq!(offload.checksum, Checksum::Verified);
        assert_eq!(sent(offload), [0; LENGTH]);
    }
}
