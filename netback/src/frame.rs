//! A received frame and the buffer that it lies in.

use core::ops::Range;

use crate::{
    Frame, Offload, header,
    pool::{BUFFER, Buffer, Pool},
};

/// A frame in a buffer of the pool; dropped, the buffer is free again.
#[derive(Debug)]
pub struct Received {
    buffer: Buffer,
    /// Where the Ethernet header begins.
    start: u16,
    /// Octets from there on; `start + length` is inside the buffer.
    length: u16,
    offload: Offload,
}

/// The largest frame that a buffer holds, Ethernet header included.
pub(crate) const FRAME_MAX: usize = BUFFER - header::LENGTH;

impl Received {
    /// A frame of `length` octets behind the device's header; `length` is at most [`FRAME_MAX`].
    #[inline]
    pub(crate) fn new(buffer: Buffer, length: usize, offload: Offload) -> Self {
        Self { buffer, start: header::LENGTH as u16, length: length.min(FRAME_MAX) as u16, offload }
    }

    /// A copy of `octets` in a buffer of `pool`.
    pub(crate) fn copy(pool: &Pool, octets: &[u8]) -> Option<Self> {
        if octets.len() > FRAME_MAX {
            return None;
        }
        let mut buffer = pool.take()?;
        let (_, room) = buffer.octets_mut().split_at_mut_checked(header::LENGTH)?;
        room.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(Self::new(buffer, octets.len(), Offload::default()))
    }

    /// The part of the frame that is to be sent: `None` if `range` is not inside it.
    #[inline]
    pub(crate) fn payload(self, range: Range<usize>) -> Option<Payload> {
        let length = range.end.checked_sub(range.start)?;
        if range.end > usize::from(self.length) {
            return None;
        }
        // Both fit: the range is inside the buffer.
        Some(Payload { start: self.start + range.start as u16, length: length as u16, buffer: self.buffer })
    }
}

impl Frame for Received {
    #[inline]
    fn octets(&self) -> &[u8] {
        let start = usize::from(self.start);
        self.buffer.octets().get(start..start + usize::from(self.length)).unwrap_or_default()
    }

    #[inline]
    fn offload(&self) -> Offload {
        self.offload
    }
}

/// Octets of a buffer on their way to a device.
#[derive(Debug)]
pub(crate) struct Payload {
    buffer: Buffer,
    start: u16,
    length: u16,
}

impl Payload {
    /// What is to be sent.
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        let start = usize::from(self.start);
        self.buffer.octets().get(start..start + usize::from(self.length)).unwrap_or_default()
    }
}
