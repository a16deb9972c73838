//! A virtio-net port: two rings, the frames that are on them, and a short backlog.
//!
//! The device is a stranger. Every identifier that it returns is looked up in a table of what it was given; a device
//! that lies is stopped, reset and started again (`lifecycle.rs`). What a port does in a turn is in `link.rs`.

mod control;
mod lifecycle;
mod link;
mod ring;
#[cfg(test)]
pub(crate) mod tests;

use alloc::{boxed::Box, vec::Vec};

use smoltcp::time::Instant;
use virtio_drivers::{Hal, PAGE_SIZE, transport::Transport};

use crate::{
    Checksum, Flow, Head, Offload, Refused,
    fair::Fair,
    features::Features,
    frame::Payload,
    header,
    pool::{BUFFER, Buffer, OutOfMemory, Pages, Parked, Pool},
    segment,
};

use control::Control;
pub use lifecycle::{MTU_MAX, Settings, StartError};
pub use link::Port;
use ring::Ring;

/// Descriptors of a ring, in each direction.
pub const RING: usize = 256;

/// Frames that wait in software when a transmit ring is full: with the ring, what several TCP segments of 64 KiB and
/// a few windows of small packets become when several senders burst at once.
pub const BACKLOG: usize = 255;

/// Free buffers that a backlog leaves to the receive rings: a port whose device stands still starves no other.
const RESERVE: usize = RING / 2;

/// Buffers that all backlogs share.
const SHARED: usize = 448;

/// Buffers for `ports` ports: a full receive ring and a full transmit ring (two descriptors a frame) each, and what
/// their backlogs share.
pub const fn buffers_for(ports: usize) -> usize {
    ports * (RING + RING / 2) + SHARED + RESERVE
}

/// Octets that a port allocates: two rings, the heads, and what says where its buffers are.
pub const FOOTPRINT: usize = 2 * ring::FOOTPRINT
    + control::FOOTPRINT
    + (HEADS * HEAD_STRIDE).next_multiple_of(PAGE_SIZE)
    + RING * (size_of::<Option<Parked>>() + size_of::<Option<Outgoing>>() + 2 * size_of::<u16>())
    + HEADS * size_of::<u16>()
    + Fair::<Outgoing>::footprint(BACKLOG);

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Shortest Ethernet frame, without frame check sequence.
const FRAME_MIN: usize = 60;

/// What a device did that no device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A used identifier that is not out, or not any more.
    Identifier,
    /// A used length shorter than the header or longer than the buffer, or a buffer that was not filled before the
    /// next was begun.
    Length,
    /// A frame in no buffer, in more than the largest frame takes, or in some that were not given back with it.
    Buffers,
    /// The device asked for a reset, or forgot that it was started.
    State,
    /// The device is no longer on its bus.
    Gone,
}

/// Buffers of the largest frame, an IPv4 packet of 65 535 octets.
const CHAIN_MAX: usize = (header::LENGTH + crate::ETHERNET_HEADER + u16::MAX as usize).div_ceil(BUFFER);

/// The receive ring and the buffers on it: each descriptor is a buffer of its own.
struct Receiver<H: Hal> {
    ring: Ring<H>,
    pool: Pool,
    /// Buffers that the device has, by descriptor; all of `pool`.
    slots: Box<[Option<Parked>; RING]>,
    /// The first `spares` are descriptors that the device does not have.
    spare: Box<[u16; RING]>,
    spares: usize,
}

impl<H: Hal> Receiver<H> {
    fn new(pool: Pool) -> Result<Self, OutOfMemory> {
        let ring = Ring::new()?;
        ring.make_in(BUFFER);
        let (slots, spare) = (Box::new([const { None }; RING]), Box::new(ALL));
        Ok(Self { ring, pool, slots, spare, spares: RING })
    }

    /// Gives free buffers to the device; `false` if the pool ran out.
    fn refill(&mut self) -> bool {
        let Self { ring, pool, slots, spare, spares } = self;
        let spare = spare.get(..*spares).unwrap_or_default();
        *spares -= pool.park(spare.iter().rev().copied(), |id, buffer, memory| {
            // SAFETY: the buffer rests in its slot, and nobody looks at it, until the device has given the descriptor
            // back or has confirmed a reset.
            unsafe { ring.write_in(id, memory, BUFFER) };
            slots[usize::from(id) % RING] = Some(buffer);
            ring.offer(id);
        });
        *spares == 0
    }

    /// The next used buffer and the octets that the device says it wrote.
    #[inline(always)]
    fn pop(&mut self) -> Result<Option<(Parked, usize)>, Violation> {
        let Some((id, length)) = self.ring.take() else { return Ok(None) };
        let slot = self.slots.get_mut(id as usize).ok_or(Violation::Identifier)?;
        if length as usize > BUFFER {
            return Err(Violation::Length);
        }
        let buffer = slot.take().ok_or(Violation::Identifier)?;
        if let Some(spare) = self.spare.get_mut(self.spares) {
            *spare = id as u16;
            self.spares += 1;
        }
        Ok(Some((buffer, length as usize)))
    }

    /// The next frame: its buffers, and the octets in them with the device's header.
    #[inline(always)]
    fn take(&mut self, features: Features) -> Result<Option<(Buffer, usize)>, Violation> {
        let Some((buffer, length)) = self.pop()? else { return Ok(None) };
        // SAFETY: what is in the slots was parked in this pool.
        let Some(buffer) = (unsafe { self.pool.unpark(buffer) }) else { return Ok(None) };
        if length < header::LENGTH {
            return Err(Violation::Length);
        }
        let count = buffer.octets().first_chunk().map_or(1, header::buffers);
        match count {
            _ if !features.merges() => Ok(Some((buffer, length))),
            1 => Ok(Some((buffer, length))),
            _ => self.gather(buffer, length, count).map(Some),
        }
    }

    /// The other buffers of a frame. They are there: the device shows a frame when it has it all (virtio 1.2, 5.1.6.4).
    #[cold]
    fn gather(
        &mut self,
        mut first: Buffer,
        mut length: usize,
        count: u16,
    ) -> Result<(Buffer, usize), Violation> {
        if !(1..=CHAIN_MAX).contains(&count.into()) {
            return Err(Violation::Buffers);
        }
        for filled in 1..usize::from(count) {
            let (buffer, more) = self.pop()?.ok_or(Violation::Buffers)?;
            // SAFETY: what is in the slots was parked in the pool that the first one is of.
            unsafe { first.append(buffer) };
            // Each is full before the next is begun.
            if length != filled * BUFFER {
                return Err(Violation::Length);
            }
            length += more;
        }
        Ok((first, length))
    }

    /// Takes back all buffers from a device that confirmed a reset.
    fn clear(&mut self) {
        self.ring.clear();
        for buffer in self.slots.iter_mut().filter_map(Option::take) {
            // SAFETY: what is in the slots was parked in this pool.
            drop(unsafe { self.pool.unpark(buffer) });
        }
        (*self.spare, self.spares) = (ALL, RING);
    }
}

impl<H: Hal> Drop for Receiver<H> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A frame on its way: a head in head memory and what follows it.
struct Outgoing {
    head: u16,
    head_length: u16,
    /// Head and parts of the payload.
    descriptors: u8,
    /// The last descriptor, once it has them.
    last: u16,
    payload: Option<Payload>,
}

impl Outgoing {
    fn octets(&self) -> u32 {
        u32::from(self.head_length) + self.payload.as_ref().map_or(0, |payload| payload.len() as u32)
    }
}

/// Octets of head memory for each frame: device header, largest head, and what there is room for behind a smaller one.
const HEAD_STRIDE: usize = 256;
const HEADS: usize = RING + BACKLOG + 1;

/// The largest frame that head memory holds whole.
const SHORT: usize = HEAD_STRIDE - header::LENGTH;

/// Every descriptor.
const ALL: [u16; RING] = from(0);

/// Every descriptor followed by the next one.
const FOLLOWING: [u16; RING] = from(1);

const fn from(first: usize) -> [u16; RING] {
    let (mut all, mut id) = ([0; RING], 0);
    while id < RING {
        all[id] = (first + id) as u16;
        id += 1;
    }
    all
}

/// The transmit ring, the frames on it, and the backlog in front of it.
struct Sender<H: Hal> {
    ring: Ring<H>,
    /// Frames that the device has, by their first descriptor.
    slots: Box<[Option<Outgoing>]>,
    /// The descriptor behind each, in its chain or among the free ones. It is ours: the device does not see it.
    next: Box<[u16; RING]>,
    /// Descriptors that the device does not have, and the first of them.
    spares: usize,
    spare: u16,
    /// Room for [`HEADS`] heads.
    heads: Pages,
    free_heads: Vec<u16>,
    backlog: Fair<Outgoing>,
    /// When the turn began.
    now: Instant,
}

impl<H: Hal> Sender<H> {
    fn new(inputs: u8) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ring: Ring::new()?,
            slots: (0..RING).map(|_| None).collect(),
            next: Box::new(FOLLOWING),
            spares: RING,
            spare: 0,
            heads: Pages::new::<H>((HEADS * HEAD_STRIDE).div_ceil(PAGE_SIZE))?,
            free_heads: (0..HEADS as u16).collect(),
            backlog: Fair::new(BACKLOG as u16, inputs),
            now: Instant::ZERO,
        })
    }

    /// Builds the head in head memory: the last copy of it before the device.
    fn compose(
        &mut self,
        octets: &[u8],
        offload: Offload,
        finishes: bool,
        payload: Payload,
    ) -> Result<Outgoing, Refused> {
        let (index, device, room) = room(&self.free_heads, &mut self.heads)?;
        let ours = room.get_mut(..octets.len()).ok_or(Refused::Malformed)?;
        ours.copy_from_slice(octets);
        *device = match offload.checksum {
            Checksum::Partial { start, offset } if !finishes => {
                let payload = payload.octets().ok_or(Refused::Malformed)?;
                segment::complete(ours, payload, start, offset).map_err(|_| Refused::Malformed)?;
                header::sent(Offload::default(), 0)
            }
            _ => header::sent(offload, octets.len() as u16),
        };
        self.free_heads.pop();
        Ok(Outgoing {
            head: index,
            head_length: (header::LENGTH + octets.len()) as u16,
            descriptors: 1 + payload.buffers() as u8,
            last: 0,
            payload: Some(payload),
        })
    }

    /// The same for a frame that fits into head memory with its payload, whose buffer is then free at once.
    #[inline(always)]
    fn compose_short(&mut self, head: &Head, payload: &[u8], finishes: bool) -> Result<Outgoing, Refused> {
        let (index, device, room) = room(&self.free_heads, &mut self.heads)?;
        let length = head.as_slice().len() + payload.len();
        head.copy_to(room);
        let frame = room.get_mut(..length).ok_or(Refused::Malformed)?;
        let behind = frame.get_mut(head.as_slice().len()..).ok_or(Refused::Malformed)?;
        behind.copy_from_slice(payload);
        *device = match head.offload.checksum {
            Checksum::Partial { start, offset } if !finishes => {
                segment::complete(frame, &[], start, offset).map_err(|_| Refused::Malformed)?;
                header::sent(Offload::default(), 0)
            }
            checksum => header::sent(checksum.into(), 0),
        };
        if let Some(padding) = room.get_mut(length..FRAME_MIN) {
            padding.fill(0);
        }
        self.free_heads.pop();
        let head_length = (header::LENGTH + length.max(FRAME_MIN)) as u16;
        Ok(Outgoing { head: index, head_length, descriptors: 1, last: 0, payload: None })
    }

    /// Puts a composed frame on the ring, or has it wait for that; how many others had to make room for it.
    #[inline(always)]
    fn send(&mut self, outgoing: Outgoing, flow: Flow, has_buffers: bool) -> Result<usize, Refused> {
        if self.backlog.is_empty() && self.spares >= outgoing.descriptors.into() {
            self.post(outgoing);
            return Ok(0);
        }
        self.wait(outgoing, flow, has_buffers)
    }

    /// Has a frame wait. If there are too few buffers, or places, the longest queue makes room.
    #[cold]
    fn wait(&mut self, outgoing: Outgoing, flow: Flow, has_buffers: bool) -> Result<usize, Refused> {
        let Self { backlog, free_heads, .. } = self;
        let before = backlog.len();
        if backlog.is_full() || !has_buffers {
            backlog.make_room(|dropped| free_heads.push(dropped.head));
        }
        let dropped = before - backlog.len();
        if !has_buffers && dropped == 0 {
            free_heads.push(outgoing.head);
            return Err(Refused::Full);
        }
        let octets = outgoing.octets();
        backlog.push(outgoing, octets, flow, self.now).map_err(|refused| {
            free_heads.push(refused.head);
            Refused::Full
        })?;
        Ok(dropped)
    }

    /// Gives a frame to the device; there are enough descriptors.
    #[inline(always)]
    fn post(&mut self, mut outgoing: Outgoing) {
        let first = self.spare;
        let start = usize::from(outgoing.head) * HEAD_STRIDE;
        let head = self.heads.octets(start..start + usize::from(outgoing.head_length)).unwrap_or_default();
        let mut left = outgoing.descriptors - 1;
        // Free descriptors are chained as they are to be used.
        let next = |id: u16| self.next[usize::from(id) % RING];
        let (mut last, mut following) = (first, next(first));
        // SAFETY: head memory `outgoing.head` is not free and the payload's buffers are owned by `outgoing`, which moves
        // into `slots[first]` until the device has given the chain back or has confirmed a reset.
        unsafe { self.ring.write_out(first, head, left > 0, following) };
        if let Some(payload) = &outgoing.payload {
            for part in payload.parts(0..payload.len()) {
                (last, following) = (following, next(following));
                left = left.saturating_sub(1);
                // SAFETY: as above.
                unsafe { self.ring.write_out(last, part, left > 0, following) };
            }
        }
        self.spare = following;
        self.spares -= usize::from(outgoing.descriptors);
        outgoing.last = last;
        if let Some(slot) = self.slots.get_mut(usize::from(first)) {
            *slot = Some(outgoing);
            self.ring.offer(first);
        }
    }

    /// Takes back what the device has sent. Ends: each round empties a slot, none is filled.
    fn reclaim(&mut self) -> Result<(), Violation> {
        while let Some((id, _)) = self.ring.take() {
            let slot = self.slots.get_mut(id as usize).ok_or(Violation::Identifier)?;
            let outgoing = slot.take().ok_or(Violation::Identifier)?;
            self.free_heads.push(outgoing.head);
            self.next[usize::from(outgoing.last) % RING] = self.spare;
            self.spare = id as u16;
            self.spares += usize::from(outgoing.descriptors);
        }
        Ok(())
    }

    /// Moves what waited onto the ring, in turns; how many frames had waited too long.
    fn drain(&mut self) -> usize {
        let mut late = 0;
        while !self.backlog.is_empty() {
            let Self { backlog, free_heads, spares, now, .. } = self;
            let next = backlog.pop(
                *now,
                |outgoing| *spares >= outgoing.descriptors.into(),
                |outgoing| {
                    late += 1;
                    free_heads.push(outgoing.head);
                },
            );
            let Some(outgoing) = next else { break };
            self.post(outgoing);
        }
        late
    }

    /// Whether the device has frames.
    fn is_sending(&self) -> bool {
        self.spares < RING
    }

    /// Takes back all frames from a device that confirmed a reset; they are lost, and so are those that waited.
    fn clear(&mut self) {
        self.ring.clear();
        self.slots.fill_with(|| None);
        self.backlog.clear();
        (*self.next, self.spare, self.spares) = (FOLLOWING, 0, RING);
        self.free_heads.clear();
        self.free_heads.extend(0..HEADS as u16);
    }
}

type Room<'a> = (u16, &'a mut [u8; header::LENGTH], &'a mut [u8; HEAD_STRIDE - header::LENGTH]);

/// Free head memory: its number, where the device's header goes, and what is behind.
#[inline]
fn room<'a>(free: &[u16], heads: &'a mut Pages) -> Result<Room<'a>, Refused> {
    let index = *free.last().ok_or(Refused::Full)?;
    let start = usize::from(index) * HEAD_STRIDE;
    let memory = heads.octets_mut(start..start + HEAD_STRIDE).ok_or(Refused::Malformed)?;
    let (device, room) = memory.split_first_chunk_mut().ok_or(Refused::Malformed)?;
    Ok((index, device, room.first_chunk_mut().ok_or(Refused::Malformed)?))
}

/// Everything that the device may reach. Dropped or used again only after a confirmed reset.
struct Rings<H: Hal> {
    receiver: Receiver<H>,
    sender: Sender<H>,
    control: Control<H>,
}

impl<H: Hal> Rings<H> {
    /// Rings in fresh memory.
    fn new(pool: Pool, inputs: u8) -> Result<Box<Self>, OutOfMemory> {
        Ok(Box::new(Self {
            receiver: Receiver::new(pool)?,
            sender: Sender::new(inputs)?,
            control: Control::new()?,
        }))
    }

    /// Tells the device where they lie (virtio 1.2, 3.1.1, step 7).
    fn announce<T: Transport>(&mut self, transport: &mut T, features: Features) -> Result<(), StartError> {
        self.receiver.ring.announce(transport, RECEIVE)?;
        self.sender.ring.announce(transport, TRANSMIT)?;
        if features.announces() {
            self.control.announce(transport);
        }
        Ok(())
    }

    /// Takes everything back from a device that confirmed a reset.
    fn clear(&mut self) {
        self.receiver.clear();
        self.sender.clear();
        self.control.clear();
    }
}
