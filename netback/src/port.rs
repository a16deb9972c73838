//! A virtio-net port: two rings, the frames that are on them, and a short backlog.
//!
//! The device is a stranger. Every identifier that it returns is looked up in a table of what it was given; a device
//! that lies is stopped, reset and started again (`lifecycle.rs`). What a port does in a turn is in `link.rs`.

mod lifecycle;
mod link;
#[cfg(test)]
pub(crate) mod tests;

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use virtio_drivers::{Hal, PAGE_SIZE, queue::VirtQueue, transport::Transport};

use crate::{
    Checksum, Head, Offload, Refused,
    frame::Payload,
    header,
    pool::{Buffer, OutOfMemory, Pages, Pool},
    segment,
};

pub use lifecycle::{Settings, StartError};
pub use link::Port;

/// Descriptors of a ring, in each direction.
pub const RING: usize = 256;

/// Frames that wait in software when a transmit ring is full: with the ring, what two TCP segments of 64 KiB and a
/// few windows of small packets become when several senders burst at once.
pub const BACKLOG: usize = 384;

/// Free buffers that a backlog leaves to the receive rings: a port whose device stands still starves no other.
const RESERVE: usize = RING / 2;

/// Buffers that all backlogs share.
const SHARED: usize = 512;

/// Buffers for `ports` ports: a full receive ring and a full transmit ring (two descriptors a frame) each, and what
/// their backlogs share.
pub const fn buffers_for(ports: usize) -> usize {
    ports * (RING + RING / 2) + SHARED + RESERVE
}

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Shortest Ethernet frame, without frame check sequence.
const FRAME_MIN: usize = 60;

/// What a device did that no device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A used identifier that is not out, or not any more.
    Identifier,
    /// A used length shorter than the header or longer than the buffer.
    Length,
    /// The device asked for a reset, or forgot that it was started.
    State,
    /// The device is no longer on its bus.
    Gone,
}

/// The receive ring and the buffers on it.
struct Receiver<H: Hal> {
    queue: Box<VirtQueue<H, RING>>,
    /// Buffers that the device has, by token.
    slots: Box<[Option<Buffer>]>,
    /// Buffers were added since the device was last told.
    unannounced: bool,
}

impl<H: Hal> Receiver<H> {
    /// Gives free buffers to the device; `false` if the pool ran out.
    fn refill(&mut self, pool: &Pool) -> bool {
        while self.queue.available_desc() > 0 {
            let Some(mut buffer) = pool.take() else { return false };
            // SAFETY: the buffer moves into `slots[token]`, where nobody reads it, and leaves it when `pop_used` has
            // returned the token or after the device confirmed a reset. Its memory does not move with its token.
            let added = unsafe { self.queue.add(&[], &mut [buffer.octets_mut()]) };
            let Some(slot) = added.ok().and_then(|token| self.slots.get_mut(usize::from(token))) else {
                break;
            };
            *slot = Some(buffer);
            self.unannounced = true;
        }
        true
    }

    /// The next used buffer and the octets that the device says it wrote.
    #[inline]
    fn pop(&mut self) -> Result<Option<(Buffer, usize)>, Violation> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let slot = self.slots.get_mut(usize::from(token)).ok_or(Violation::Identifier)?;
        let mut buffer = slot.take().ok_or(Violation::Identifier)?;
        // SAFETY: this slot's buffer, all of it, is what `add` was given when it returned `token`.
        match unsafe { self.queue.pop_used(token, &[], &mut [buffer.octets_mut()]) } {
            Ok(length) => Ok(Some((buffer, length as usize))),
            Err(_) => {
                // The device changed the entry between two looks: the buffer is still its own.
                *slot = Some(buffer);
                Err(Violation::Identifier)
            }
        }
    }
}

/// A frame on its way: a head in head memory and what follows it.
struct Outgoing {
    head: u16,
    head_length: u8,
    payload: Option<Payload>,
}

/// Octets of head memory for each frame: device header and largest head, rounded up to a cache line.
const HEAD_STRIDE: usize = 192;
const HEADS: usize = RING / 2 + BACKLOG;

/// The transmit ring, the frames on it, and the backlog in front of it.
struct Sender<H: Hal> {
    queue: Box<VirtQueue<H, RING>>,
    /// Frames that the device has, by token.
    slots: Box<[Option<Outgoing>]>,
    /// Room for [`HEADS`] heads.
    heads: Pages,
    free_heads: Vec<u16>,
    backlog: VecDeque<Outgoing>,
    /// Frames were added since the device was last told.
    unannounced: bool,
}

impl<H: Hal> Sender<H> {
    /// Builds the head in head memory: the last copy of it before the device.
    fn compose(
        &mut self,
        head: &Head,
        finishes: bool,
        payload: Option<Payload>,
    ) -> Result<Outgoing, Refused> {
        let octets = head.as_slice();
        let index = *self.free_heads.last().ok_or(Refused::Full)?;
        let padded = if payload.is_none() { octets.len().max(FRAME_MIN) } else { octets.len() };
        let start = usize::from(index) * HEAD_STRIDE;
        let memory =
            self.heads.octets_mut(start..start + header::LENGTH + padded).ok_or(Refused::Malformed)?;
        let (device, frame) = memory.split_first_chunk_mut().ok_or(Refused::Malformed)?;
        let (ours, padding) = frame.split_at_mut_checked(octets.len()).ok_or(Refused::Malformed)?;
        ours.copy_from_slice(octets);
        padding.fill(0);
        *device = match head.offload.checksum {
            Checksum::Partial { start, offset } if !finishes => {
                let payload = payload.as_ref().map_or(&[][..], Payload::octets);
                segment::complete(ours, payload, start, offset).map_err(|_| Refused::Malformed)?;
                header::sent(Offload::default())
            }
            _ => header::sent(head.offload),
        };
        self.free_heads.pop();
        Ok(Outgoing { head: index, head_length: (header::LENGTH + padded) as u8, payload })
    }

    /// Puts a composed frame on the ring, or behind those that wait for it if the buffers allow it.
    fn send(&mut self, outgoing: Outgoing, may_wait: bool) -> Result<(), Refused> {
        if self.backlog.is_empty() && self.queue.available_desc() >= 2 {
            self.post(outgoing);
            return Ok(());
        }
        if self.backlog.len() >= BACKLOG || !may_wait {
            self.free_heads.push(outgoing.head);
            return Err(Refused::Full);
        }
        self.backlog.push_back(outgoing);
        Ok(())
    }

    /// Gives a frame to the device; there are two free descriptors.
    fn post(&mut self, outgoing: Outgoing) {
        let head = head_octets(&self.heads, &outgoing);
        let added = match &outgoing.payload {
            // SAFETY: head memory `outgoing.head` is not free and the payload's buffer is owned by `outgoing`, which
            // moves into `slots[token]` until `pop_used` returns the token or the device confirmed a reset.
            Some(payload) => unsafe { self.queue.add(&[head, payload.octets()], &mut []) },
            // SAFETY: as above, without a payload.
            None => unsafe { self.queue.add(&[head], &mut []) },
        };
        match added.ok().and_then(|token| self.slots.get_mut(usize::from(token))) {
            Some(slot) => {
                *slot = Some(outgoing);
                self.unannounced = true;
            }
            None => self.free_heads.push(outgoing.head),
        }
    }

    /// Takes back what the device has sent. Ends: each round empties a slot, none is filled.
    fn reclaim(&mut self) -> Result<(), Violation> {
        while let Some(token) = self.queue.peek_used() {
            let slot = self.slots.get_mut(usize::from(token)).ok_or(Violation::Identifier)?;
            let outgoing = slot.as_ref().ok_or(Violation::Identifier)?;
            let head = head_octets(&self.heads, outgoing);
            let popped = match &outgoing.payload {
                // SAFETY: this slot's head and payload are what `add` was given when it returned `token`.
                Some(payload) => unsafe { self.queue.pop_used(token, &[head, payload.octets()], &mut []) },
                // SAFETY: as above, without a payload.
                None => unsafe { self.queue.pop_used(token, &[head], &mut []) },
            };
            popped.map_err(|_| Violation::Identifier)?;
            self.free_heads.push(outgoing.head);
            *slot = None;
        }
        Ok(())
    }

    /// Moves what waited onto the ring.
    fn drain(&mut self) {
        while self.queue.available_desc() >= 2 {
            let Some(outgoing) = self.backlog.pop_front() else { return };
            self.post(outgoing);
        }
    }

    /// Whether the device has frames.
    fn is_sending(&self) -> bool {
        self.queue.available_desc() < RING
    }
}

fn head_octets<'a>(heads: &'a Pages, outgoing: &Outgoing) -> &'a [u8] {
    let start = usize::from(outgoing.head) * HEAD_STRIDE;
    heads.octets(start..start + usize::from(outgoing.head_length)).unwrap_or_default()
}

/// Everything that the device may reach. Dropped only after a confirmed reset.
struct Rings<H: Hal> {
    receiver: Receiver<H>,
    sender: Sender<H>,
}

impl<H: Hal> Rings<H> {
    /// Two rings in fresh memory, known to the device (virtio 1.2, 3.1.1, step 7).
    fn new<T: Transport>(transport: &mut T) -> Result<Self, StartError> {
        let mut queue = |index| VirtQueue::new(transport, index, false, false).map(Box::new);
        let mut receive = queue(RECEIVE).map_err(StartError::Queue)?;
        let mut transmit = queue(TRANSMIT).map_err(StartError::Queue)?;
        receive.set_dev_notify(false);
        transmit.set_dev_notify(false);
        let heads = Pages::new::<H>((HEADS * HEAD_STRIDE).div_ceil(PAGE_SIZE));
        Ok(Self {
            receiver: Receiver {
                queue: receive,
                slots: (0..RING).map(|_| None).collect(),
                unannounced: false,
            },
            sender: Sender {
                queue: transmit,
                slots: (0..RING).map(|_| None).collect(),
                heads: heads.map_err(|OutOfMemory| StartError::OutOfMemory)?,
                free_heads: (0..HEADS as u16).collect(),
                backlog: VecDeque::with_capacity(BACKLOG),
                unannounced: false,
            },
        })
    }
}
