//! A received frame and the buffers that it lies in.

use core::ops::Range;

use crate::{
    Frame, Offload, header,
    pool::{BUFFER, Buffer, Chain, Pool},
};

/// A frame in buffers of the pool; dropped, they are free again.
///
/// Every buffer but the last is full.
#[derive(Debug)]
pub struct Received {
    buffer: Buffer,
    /// Where the Ethernet header begins in the first buffer.
    start: u16,
    /// Octets from there on.
    length: u32,
    offload: Offload,
}

/// The largest frame that one buffer holds, Ethernet header included.
pub(crate) const FRAME_MAX: usize = BUFFER - header::LENGTH;

impl Received {
    /// A frame of `length` octets behind the device's header, in as many buffers as that takes.
    #[inline]
    pub(crate) fn new(buffer: Buffer, length: usize, offload: Offload) -> Self {
        Self { buffer, start: header::LENGTH as u16, length: length as u32, offload }
    }

    /// A copy of `octets` in a buffer of `pool`.
    pub(crate) fn copy(pool: &Pool, octets: &[u8]) -> Option<Self> {
        Self::gather(pool, core::iter::once(octets))
    }

    /// A copy of all parts, one behind the other, in a buffer of `pool`.
    pub(crate) fn gather<'a>(pool: &Pool, parts: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut buffer = pool.take()?;
        let mut end = header::LENGTH;
        for part in parts {
            let start = end;
            end += part.len();
            buffer.octets_mut().get_mut(start..end)?.copy_from_slice(part);
        }
        Some(Self::new(buffer, end - header::LENGTH, Offload::default()))
    }

    /// The part of the frame that is to be sent: `None` if `range` is not inside it.
    #[inline]
    pub(crate) fn payload(self, range: Range<usize>) -> Option<Payload> {
        let length = range.end.checked_sub(range.start)?;
        if range.end > self.length as usize {
            return None;
        }
        Some(Payload {
            start: u32::from(self.start) + range.start as u32,
            length: length as u32,
            buffer: self.buffer,
        })
    }
}

impl Frame for Received {
    #[inline]
    fn octets(&self) -> &[u8] {
        let start = usize::from(self.start);
        let end = BUFFER.min(start + self.length as usize);
        self.buffer.octets().get(start..end).unwrap_or_default()
    }

    #[inline]
    fn length(&self) -> usize {
        self.length as usize
    }

    #[inline]
    fn offload(&self) -> Offload {
        self.offload
    }
}

/// Octets of a chain of buffers on their way to a device.
#[derive(Debug)]
pub(crate) struct Payload {
    buffer: Buffer,
    /// Counted from the first octet of the first buffer.
    start: u32,
    length: u32,
}

impl Payload {
    /// Octets that are to be sent.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// What is to be sent, if it lies in the first buffer.
    #[inline]
    pub(crate) fn octets(&self) -> Option<&[u8]> {
        let start = self.start as usize;
        self.buffer.octets().get(start..start + self.len())
    }

    /// The buffers that it lies in.
    #[inline]
    pub(crate) fn buffers(&self) -> usize {
        let (start, end) = (self.start as usize, self.start as usize + self.len());
        end.div_ceil(BUFFER) - start / BUFFER
    }

    /// Part of what is to be sent, buffer by buffer; none of the pieces is empty.
    #[inline]
    pub(crate) fn parts(&self, range: Range<usize>) -> Parts<'_> {
        let left = range.end.min(self.len()).saturating_sub(range.start);
        let (mut chain, mut skip) = (self.buffer.chain(), self.start as usize + range.start);
        while skip >= BUFFER && chain.next().is_some() {
            skip -= BUFFER;
        }
        Parts { chain, skip, left }
    }
}

/// Pieces of a payload.
pub(crate) struct Parts<'a> {
    chain: Chain<'a>,
    /// Octets of the next buffer ahead of the piece, and octets from there on.
    skip: usize,
    left: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let rest = self.chain.next()?.get(core::mem::take(&mut self.skip)..)?;
        let part = rest.get(..self.left).unwrap_or(rest);
        self.left -= part.len();
        Some(part)
    }
}
