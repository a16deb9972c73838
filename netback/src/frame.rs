//! A received frame and the buffers that it lies in.

use core::ops::Range;

use crate::{
    Checksum, Frame, Head, Offload, header,
    pool::{BUFFER, Buffer, Chain, Pool},
    segment,
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

/// Shortest Ethernet frame, without frame check sequence.
const FRAME_MIN: usize = 60;

impl Received {
    /// A frame of `length` octets behind the device's header, in as many buffers as that takes.
    #[inline]
    pub(crate) fn new(buffer: Buffer, length: usize, offload: Offload) -> Self {
        Self { buffer, start: header::LENGTH as u16, length: length as u32, offload }
    }

    /// A copy of `octets` in a buffer of `pool`.
    pub(crate) fn copy(pool: &Pool, octets: &[u8]) -> Option<Self> {
        Self::gather(pool, octets.len(), core::iter::once(octets))
    }

    /// A copy of all parts, `length` octets together, one behind the other at the end of a buffer of `pool`: a head
    /// finds room in front, and behind a short frame there is room for padding.
    pub(crate) fn gather<'a>(
        pool: &Pool,
        length: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let start = FRAME_MAX.checked_sub(length)?.min(FRAME_MAX - FRAME_MIN) + header::LENGTH;
        let mut buffer = pool.take()?;
        let mut end = start;
        for part in parts {
            let room = buffer.octets_mut().get_mut(end..)?.get_mut(..part.len())?;
            room.copy_from_slice(part);
            end += part.len();
        }
        Some(Self { buffer, start: start as u16, length: length as u32, offload: Offload::default() })
    }

    /// Whether in front of the octet at `place` there is room for a head and the device's header.
    #[inline]
    pub(crate) fn has_room(&self, head: &Head, place: usize) -> bool {
        let place = usize::from(self.start) + place;
        (header::LENGTH + head.as_slice().len()..=BUFFER).contains(&place)
    }

    /// Puts a head in front of a part of the frame, over what was there, and the device's header in front of that: it is
    /// [outgoing](Self::into_outgoing) from then on. `finishes` says whether the device completes a partial checksum; if
    /// not, that is done here.
    ///
    /// `None` if there is [no room](Self::has_room), or if the part or the checksum's place is not inside.
    #[inline(always)]
    pub(crate) fn put_head(&mut self, head: &Head, part: Range<usize>, finishes: bool) -> Option<()> {
        let octets = head.as_slice().len();
        let length = octets + (part.end - part.start);
        let place = usize::from(self.start) + part.start;
        let start = place.checked_sub(header::LENGTH + octets)?;
        let front = self.buffer.octets_mut().get_mut(..place)?.get_mut(start..)?;
        let (device, room) = front.split_first_chunk_mut()?;
        head.copy_to(room);
        *device = header::sent(head.offload, octets as u16);
        let is_partial = matches!(head.offload.checksum, Checksum::Partial { .. });
        if length < FRAME_MIN || is_partial && !finishes {
            self.finish(head.offload.checksum, start, length, finishes)?;
        }
        (self.start, self.length) = (start as u16, (header::LENGTH + length.max(FRAME_MIN)) as u32);
        Some(())
    }

    /// What [`put_head`](Self::put_head) made of it.
    #[inline(always)]
    pub(crate) fn into_outgoing(self) -> Outgoing {
        Outgoing(self)
    }

    /// Does for a frame of `length` octets, whose device header is at `start`, what the device does not: pads it, and
    /// completes its checksum unless that `finishes` it.
    #[cold]
    fn finish(&mut self, checksum: Checksum, start: usize, length: usize, finishes: bool) -> Option<()> {
        let (device, frame) = self.buffer.octets_mut().get_mut(start..)?.split_first_chunk_mut()?;
        if length < FRAME_MIN {
            frame.get_mut(length..FRAME_MIN)?.fill(0);
        }
        if let (Checksum::Partial { start, offset }, false) = (checksum, finishes) {
            segment::complete(frame.get_mut(..length)?, &[], start, offset).ok()?;
            *device = header::sent(Offload::default(), 0);
        }
        Some(())
    }

    /// The buffers that it lies in.
    #[inline]
    pub(crate) fn buffers(&self) -> usize {
        (usize::from(self.start) + self.length as usize).div_ceil(BUFFER)
    }

    /// A part of the frame, buffer by buffer.
    pub(crate) fn parts(&self, part: Range<usize>) -> Parts<'_> {
        let left = part.end.min(self.length()).saturating_sub(part.start);
        let (mut chain, mut skip) = (self.buffer.chain(), usize::from(self.start) + part.start);
        while skip >= BUFFER && chain.next().is_some() {
            skip -= BUFFER;
        }
        Parts { chain, skip, left }
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

/// A frame on its way to a device, the device's header in front.
#[derive(Debug)]
pub(crate) struct Outgoing(Received);

impl Outgoing {
    /// Octets that are to be sent.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.0.length
    }

    /// The buffers that it lies in.
    #[inline]
    pub(crate) fn buffers(&self) -> usize {
        self.0.buffers()
    }

    /// What is to be sent, if it lies in one buffer.
    #[inline(always)]
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        let Received { buffer, start, length, .. } = &self.0;
        buffer.octets().get(usize::from(*start)..usize::from(*start) + *length as usize)
    }

    /// What is to be sent, buffer by buffer; none of the pieces is empty.
    #[inline]
    pub(crate) fn parts(&self) -> Parts<'_> {
        let Received { buffer, start, length, .. } = &self.0;
        Parts { chain: buffer.chain(), skip: usize::from(*start), left: *length as usize }
    }

    /// What holds it.
    #[inline]
    pub(crate) fn into_buffer(self) -> Buffer {
        self.0.buffer
    }
}

/// Pieces of a frame.
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
