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

/// Frames that wait in software when a transmit ring is full: enough that TCP does not lose any.
pub const BACKLOG: usize = 128;

/// Frames on a transmit ring at most: there is room even if each takes two descriptors.
pub const IN_FLIGHT: usize = RING / 2;

/// Buffers that `ports` ports need so that none ever starves another: a full receive ring, a full transmit ring and a
/// full backlog each, and a batch on its way.
pub const fn buffers_for(ports: usize) -> usize {
    ports * (RING + IN_FLIGHT + BACKLOG) + 64
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

/// A frame on its way.
enum Outgoing {
    /// The new head took the place of the old one, in the frame's own buffer: one descriptor.
    Joined(Payload),
    /// The new head is longer than what it replaces and lies in head memory: two descriptors.
    Split(Place, Payload),
    /// There is nothing but a head.
    Alone(Place),
}

/// A head in head memory.
#[derive(Clone, Copy)]
struct Place {
    index: u8,
    length: u8,
}

impl Outgoing {
    fn place(&self) -> Option<Place> {
        match self {
            Outgoing::Joined(_) => None,
            Outgoing::Split(place, _) | Outgoing::Alone(place) => Some(*place),
        }
    }
}

/// Octets of head memory for each frame: device header and largest head, rounded up to a cache line.
const HEAD_STRIDE: usize = 192;
const HEADS: usize = IN_FLIGHT + BACKLOG;

/// The transmit ring, the frames on it, and the backlog in front of it.
struct Sender<H: Hal> {
    queue: Box<VirtQueue<H, RING>>,
    /// Frames that the device has, by token.
    slots: Box<[Option<Outgoing>]>,
    /// Room for [`HEADS`] heads.
    heads: Pages,
    free_heads: Vec<u8>,
    backlog: VecDeque<Outgoing>,
    /// Frames that the device has.
    in_flight: usize,
    /// Frames were added since the device was last told.
    unannounced: bool,
}

impl<H: Hal> Sender<H> {
    /// Builds the head where the device will read it, in front of the payload if there is room.
    fn compose(
        &mut self,
        head: &Head,
        finishes: bool,
        payload: Option<Payload>,
    ) -> Result<Outgoing, Refused> {
        let room = header::LENGTH + head.as_slice().len();
        let Some(mut payload) = payload else {
            let place = self.place(head, finishes, room.max(header::LENGTH + FRAME_MIN), &[])?;
            return Ok(Outgoing::Alone(place));
        };
        if let Some((front, rest)) = payload.split(room) {
            write_head(front, rest, head, finishes)?;
            return Ok(Outgoing::Joined(payload.joined(room)));
        }
        let place = self.place(head, finishes, room, payload.octets())?;
        Ok(Outgoing::Split(place, payload))
    }

    /// Builds the head in head memory, `length` octets with padding.
    fn place(
        &mut self,
        head: &Head,
        finishes: bool,
        length: usize,
        payload: &[u8],
    ) -> Result<Place, Refused> {
        let index = *self.free_heads.last().ok_or(Refused::Full)?;
        let start = usize::from(index) * HEAD_STRIDE;
        let memory = self.heads.octets_mut(start..start + length).ok_or(Refused::Malformed)?;
        write_head(memory, payload, head, finishes)?;
        self.free_heads.pop();
        Ok(Place { index, length: length as u8 })
    }

    /// Puts a composed frame on the ring, or behind those that wait for it.
    #[inline]
    fn send(&mut self, outgoing: Outgoing) -> Result<(), Refused> {
        if self.backlog.is_empty() && self.in_flight < IN_FLIGHT {
            self.post(outgoing);
            return Ok(());
        }
        if self.backlog.len() >= BACKLOG {
            self.release(outgoing.place());
            return Err(Refused::Full);
        }
        self.backlog.push_back(outgoing);
        Ok(())
    }

    /// Gives a frame to the device; fewer than [`IN_FLIGHT`] are there.
    fn post(&mut self, outgoing: Outgoing) {
        // SAFETY: the payload's buffer is owned by `outgoing`, its head memory is not free; both stay so in
        // `slots[token]` until `pop_used` returns the token or the device confirmed a reset. Head memory is written
        // only while it is free.
        let added = unsafe {
            match &outgoing {
                Outgoing::Joined(frame) => self.queue.add(&[frame.octets()], &mut []),
                Outgoing::Split(place, payload) => {
                    self.queue.add(&[head_octets(&self.heads, *place), payload.octets()], &mut [])
                }
                Outgoing::Alone(place) => self.queue.add(&[head_octets(&self.heads, *place)], &mut []),
            }
        };
        match added.ok().and_then(|token| self.slots.get_mut(usize::from(token))) {
            Some(slot) => {
                *slot = Some(outgoing);
                self.in_flight += 1;
                self.unannounced = true;
            }
            None => self.release(outgoing.place()),
        }
    }

    /// Takes back what the device has sent. Ends: each round empties a slot, none is filled.
    fn reclaim(&mut self) -> Result<(), Violation> {
        while let Some(token) = self.queue.peek_used() {
            let slot = self.slots.get_mut(usize::from(token)).ok_or(Violation::Identifier)?;
            let outgoing = slot.as_ref().ok_or(Violation::Identifier)?;
            // SAFETY: these are the octets that `add` was given when it returned `token`.
            let popped = unsafe {
                match outgoing {
                    Outgoing::Joined(frame) => self.queue.pop_used(token, &[frame.octets()], &mut []),
                    Outgoing::Split(place, payload) => {
                        let head = head_octets(&self.heads, *place);
                        self.queue.pop_used(token, &[head, payload.octets()], &mut [])
                    }
                    Outgoing::Alone(place) => {
                        self.queue.pop_used(token, &[head_octets(&self.heads, *place)], &mut [])
                    }
                }
            };
            popped.map_err(|_| Violation::Identifier)?;
            let place = outgoing.place();
            *slot = None;
            self.in_flight = self.in_flight.saturating_sub(1);
            self.release(place);
        }
        Ok(())
    }

    fn release(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.free_heads.push(place.index);
        }
    }

    /// Moves what waited onto the ring.
    fn drain(&mut self) {
        while self.in_flight < IN_FLIGHT {
            let Some(outgoing) = self.backlog.pop_front() else { return };
            self.post(outgoing);
        }
    }

    /// Whether the device has frames.
    fn is_sending(&self) -> bool {
        self.in_flight > 0
    }
}

fn head_octets(heads: &Pages, place: Place) -> &[u8] {
    let start = usize::from(place.index) * HEAD_STRIDE;
    heads.octets(start..start + usize::from(place.length)).unwrap_or_default()
}

/// Writes device header, head and padding in front of `payload`: the only copy of a head before the device.
#[inline]
fn write_head(memory: &mut [u8], payload: &[u8], head: &Head, finishes: bool) -> Result<(), Refused> {
    let octets = head.as_slice();
    let (device, frame) = memory.split_first_chunk_mut().ok_or(Refused::Malformed)?;
    let (ours, padding) = frame.split_at_mut_checked(octets.len()).ok_or(Refused::Malformed)?;
    ours.copy_from_slice(octets);
    padding.fill(0);
    *device = match head.offload.checksum {
        Checksum::Partial { start, offset } if !finishes => {
            segment::complete(ours, payload, start, offset)
                .map_err(|segment::Misplaced| Refused::Malformed)?;
            header::sent(Offload::default())
        }
        _ => header::sent(head.offload),
    };
    Ok(())
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
                free_heads: (0..=u8::MAX).take(HEADS).collect(),
                backlog: VecDeque::with_capacity(BACKLOG),
                in_flight: 0,
                unannounced: false,
            },
        })
    }
}
