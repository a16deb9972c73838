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

use alloc::boxed::Box;

use smoltcp::time::Instant;
use virtio_drivers::{Hal, transport::Transport};

use crate::{
    Flow, Refused,
    fair::Fair,
    features::Features,
    frame::Outgoing,
    header,
    pool::{BUFFER, Buffer, OutOfMemory, Parked, Pool},
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

/// Buffers that a device has to receive in: four frames of 64 KiB at least, or a batch of short ones and another.
const OFFERED: usize = RING / 2;

/// Octets that a device is given to send, and a frame besides: more wait in the backlog, where small flows overtake
/// large ones. A third of it halves the wait once more, and costs a fifth more instructions an octet.
const QUEUED: usize = 768 << 10;

/// Free buffers that a backlog leaves to the receive rings: a port whose device stands still starves no other.
const RESERVE: usize = OFFERED / 2;

/// Buffers that all backlogs share.
const SHARED: usize = 224;

/// Buffers for `ports` ports: those to receive in and half as many to send each, and what their backlogs share. A
/// transmit ring that takes more has fewer left to receive with: then those who send too much lose.
pub const fn buffers_for(ports: usize) -> usize {
    ports * (OFFERED + OFFERED / 2) + SHARED + RESERVE
}

/// Octets that a port allocates: its rings, and what says where its buffers are.
pub const FOOTPRINT: usize = 2 * ring::FOOTPRINT
    + control::FOOTPRINT
    + OFFERED * (size_of::<Option<Parked>>() + size_of::<u16>())
    + RING * (size_of::<Option<Sent>>() + size_of::<u16>())
    + Fair::<Outgoing>::footprint(BACKLOG);

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

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
    slots: Box<[Option<Parked>; OFFERED]>,
    /// The first `spares` are descriptors that the device does not have.
    spare: Box<[u16; OFFERED]>,
    spares: usize,
}

impl<H: Hal> Receiver<H> {
    fn new(pool: Pool) -> Result<Self, OutOfMemory> {
        let ring = Ring::new()?;
        ring.make_in(BUFFER);
        let (slots, spare) = (Box::new([const { None }; OFFERED]), Box::new(ALL));
        Ok(Self { ring, pool, slots, spare, spares: OFFERED })
    }

    /// Gives free buffers to the device; `false` if the pool ran out.
    fn refill(&mut self) -> bool {
        let Self { ring, pool, slots, spare, spares } = self;
        let spare = spare.get(..*spares).unwrap_or_default();
        *spares -= pool.park(spare.iter().rev().copied(), |id, buffer, memory| {
            // SAFETY: the buffer rests in its slot, and nobody looks at it, until the device has given the descriptor
            // back or has confirmed a reset.
            unsafe { ring.write_in(id, memory, BUFFER) };
            slots[usize::from(id) % OFFERED] = Some(buffer);
            ring.offer(id);
        });
        *spares == 0
    }

    /// Whether the device has no buffer to receive in.
    fn is_bare(&self) -> bool {
        self.spares == OFFERED
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
        (*self.spare, self.spares) = (ALL, OFFERED);
    }
}

impl<H: Hal> Drop for Receiver<H> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A frame that the device has.
struct Sent {
    /// Its buffers, all of the sender's pool.
    buffer: Parked,
    octets: u32,
    descriptors: u8,
    /// The last of them.
    last: u16,
}

/// Every descriptor to receive in.
const ALL: [u16; OFFERED] = from(0);

/// Every descriptor followed by the next one.
const FOLLOWING: [u16; RING] = from(1);

const fn from<const N: usize>(first: usize) -> [u16; N] {
    let (mut all, mut id) = ([0; N], 0);
    while id < N {
        all[id] = (first + id) as u16;
        id += 1;
    }
    all
}

/// The transmit ring, the frames on it, and the backlog in front of it.
struct Sender<H: Hal> {
    ring: Ring<H>,
    pool: Pool,
    /// Frames that the device has, by their first descriptor; their buffers are of `pool`.
    slots: Box<[Option<Sent>; RING]>,
    /// The descriptor behind each, in its chain or among the free ones. It is ours: the device does not see it.
    next: Box<[u16; RING]>,
    /// Descriptors that the device does not have, and the first of them.
    spares: usize,
    spare: u16,
    /// Octets of the frames that the device has.
    octets: usize,
    backlog: Fair<Outgoing>,
    /// When the turn began.
    now: Instant,
}

impl<H: Hal> Sender<H> {
    fn new(pool: Pool, inputs: u8) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ring: Ring::new()?,
            pool,
            slots: Box::new([const { None }; RING]),
            next: Box::new(FOLLOWING),
            spares: RING,
            spare: 0,
            octets: 0,
            backlog: Fair::new(BACKLOG as u16, inputs),
            now: Instant::ZERO,
        })
    }

    /// Whether a frame in so many buffers may be [posted](Self::post); otherwise it has to [wait](Self::wait).
    #[inline(always)]
    fn takes(&self, buffers: usize) -> bool {
        self.backlog.is_empty() && self.octets < QUEUED && self.spares >= buffers
    }

    /// Has a frame wait. If there are too few buffers, or places, the longest queue makes room.
    #[cold]
    fn wait(&mut self, outgoing: Outgoing, flow: Flow) -> Result<usize, Refused> {
        let Self { backlog, pool, now, .. } = self;
        let (before, has_buffers) = (backlog.len(), pool.free() >= RESERVE);
        if backlog.is_full() || !has_buffers {
            backlog.make_room(drop);
        }
        let dropped = before - backlog.len();
        if !has_buffers && dropped == 0 {
            return Err(Refused::Full);
        }
        let octets = outgoing.len();
        backlog.push(outgoing, octets, flow, *now).map_err(|_| Refused::Full)?;
        Ok(dropped)
    }

    /// The descriptor behind another one.
    #[inline(always)]
    fn next(&self, id: u16) -> u16 {
        self.next[usize::from(id) % RING]
    }

    /// Gives a frame to the device; there are enough descriptors.
    #[inline(always)]
    fn post(&mut self, outgoing: Outgoing) {
        let (first, descriptors, octets) = (self.spare, outgoing.buffers(), outgoing.len());
        // Free descriptors are chained as they are to be used.
        let (mut last, mut following) = (first, self.next(first));
        // SAFETY: the buffers are owned by `outgoing`, and then parked in `slots[first]`, until the device has given the
        // chain back or has confirmed a reset; nobody looks at them meanwhile.
        match outgoing.whole() {
            Some(whole) => unsafe { self.ring.write_out(last, whole, false, following) },
            None => {
                let mut left = descriptors;
                for part in outgoing.parts() {
                    if left < descriptors {
                        (last, following) = (following, self.next(following));
                    }
                    left = left.saturating_sub(1);
                    // SAFETY: as above.
                    unsafe { self.ring.write_out(last, part, left > 0, following) };
                }
            }
        }
        // All buffers here are of one pool: the port refuses others.
        let Some(buffer) = self.pool.park_chain(outgoing.into_buffer()) else { return };
        self.spare = following;
        self.spares -= descriptors;
        self.octets += octets as usize;
        let sent = Sent { buffer, octets, descriptors: descriptors as u8, last };
        self.slots[usize::from(first) % RING] = Some(sent);
        self.ring.offer(first);
    }

    /// Takes back what the device has sent. Ends: each round empties a slot, none is filled.
    fn reclaim(&mut self) -> Result<(), Violation> {
        while let Some((id, _)) = self.ring.take() {
            let slot = self.slots.get_mut(id as usize).ok_or(Violation::Identifier)?;
            let sent = slot.take().ok_or(Violation::Identifier)?;
            // SAFETY: what is in the slots was parked in this pool.
            unsafe { self.pool.free_parked(sent.buffer) };
            self.next[usize::from(sent.last) % RING] = self.spare;
            self.spare = id as u16;
            self.spares += usize::from(sent.descriptors);
            self.octets -= sent.octets as usize;
        }
        Ok(())
    }

    /// Moves what waited onto the ring, in turns; how many frames had waited too long.
    fn drain(&mut self) -> usize {
        let mut late = 0;
        while !self.backlog.is_empty() && self.octets < QUEUED {
            let Self { backlog, spares, now, .. } = self;
            let next = backlog.pop(*now, |outgoing| *spares >= outgoing.buffers(), |_| late += 1);
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
        for sent in self.slots.iter_mut().filter_map(Option::take) {
            // SAFETY: what is in the slots was parked in this pool.
            unsafe { self.pool.free_parked(sent.buffer) };
        }
        self.backlog.clear();
        (*self.next, self.spare, self.spares, self.octets) = (FOLLOWING, 0, RING, 0);
    }
}

impl<H: Hal> Drop for Sender<H> {
    fn drop(&mut self) {
        self.clear();
    }
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
            receiver: Receiver::new(pool.clone())?,
            sender: Sender::new(pool, inputs)?,
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
