//! A virtio-net port: two rings, the frames that are on them, and a short backlog.
//!
//! The device is a stranger. Every identifier that it returns is looked up in a table of what it was given, every
//! length is bounded by the buffer; a device that lies is stopped, reset and started again (`lifecycle.rs`).

mod lifecycle;
#[cfg(test)]
pub(crate) mod tests;

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{
    fmt,
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use smoltcp::wire::EthernetAddress;
use virtio_drivers::{Hal, PAGE_SIZE, queue::VirtQueue, transport::Transport};

use crate::{
    Checksum, ETHERNET_HEADER, Head, Link, Offload, Refused, Statistics,
    features::Features,
    frame::{FRAME_MAX, Payload, Received},
    header,
    pool::{Buffer, OutOfMemory, Pages, Pool},
    segment,
};

pub use lifecycle::{Settings, StartError};

/// Descriptors of a ring, in each direction.
pub const RING: usize = 256;

/// Frames that wait in software when a transmit ring is full: enough that TCP does not lose any.
pub const BACKLOG: usize = 128;

/// Buffers that `ports` ports need so that none ever starves another: a full receive ring, a full transmit ring (two
/// descriptors a frame) and a full backlog each, and a batch on its way.
pub const fn buffers_for(ports: usize) -> usize {
    ports * (RING + RING / 2 + BACKLOG) + 64
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
    head: u8,
    head_length: u8,
    payload: Option<Payload>,
}

/// Octets of head memory for each frame: device header and largest head, rounded up to a cache line.
const HEAD_STRIDE: usize = 192;
const HEADS: usize = 256;

/// The transmit ring, the frames on it, and the backlog in front of it.
struct Sender<H: Hal> {
    queue: Box<VirtQueue<H, RING>>,
    /// Frames that the device has, by token.
    slots: Box<[Option<Outgoing>]>,
    /// Room for [`HEADS`] heads.
    heads: Pages,
    free_heads: Vec<u8>,
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

    /// Puts a composed frame on the ring, or behind those that wait for it.
    fn send(&mut self, outgoing: Outgoing) -> Result<(), Refused> {
        if self.backlog.is_empty() && self.queue.available_desc() >= 2 {
            self.post(outgoing);
            return Ok(());
        }
        if self.backlog.len() >= BACKLOG {
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
                free_heads: (0..=u8::MAX).collect(),
                backlog: VecDeque::with_capacity(BACKLOG),
                unannounced: false,
            },
        })
    }
}

/// Whether a port works, and if not, what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Running,
    /// To be reset at the beginning of the next turn.
    Failed,
    /// To be tried again at the next tick.
    Waiting,
    /// Given up.
    Retired,
}

/// A virtio-net device as a [`Link`].
pub struct Port<H: Hal, T: Transport> {
    transport: T,
    pool: Pool,
    name: &'static str,
    mac: EthernetAddress,
    mtu: u16,
    up: bool,
    features: Features,
    standing: Standing,
    /// `Some` while running.
    running: Option<Rings<H>>,
    /// What a failed device may still reach.
    stopped: Option<Rings<H>>,
    /// Failures since the last calm minute.
    strikes: u8,
    calm: u8,
    /// Violations that were logged, a bit each.
    logged: u8,
    statistics: Statistics,
}

impl<H: Hal, T: Transport> Port<H, T> {
    fn accept(&mut self, buffer: Buffer, used: usize) -> Result<Option<Received>, Violation> {
        let length = used.checked_sub(header::LENGTH).ok_or(Violation::Length)?;
        if length > FRAME_MAX {
            return Err(Violation::Length);
        }
        if length < ETHERNET_HEADER {
            self.statistics.rx_runts += 1;
            return Ok(None);
        }
        let offload = buffer.octets().first_chunk().ok_or(header::BadOffload);
        match offload.and_then(|octets| header::received(octets, length, self.features.guest_checksum())) {
            Ok(offload) => {
                self.statistics.received(length);
                Ok(Some(Received::new(buffer, length, offload)))
            }
            Err(header::BadOffload) => {
                self.statistics.rx_bad_offload += 1;
                Ok(None)
            }
        }
    }

    fn send(&mut self, head: &Head, payload: Option<(Received, Range<usize>)>) -> Result<usize, Refused> {
        let Some(rings) = self.running.as_mut().filter(|_| self.up) else { return Err(Refused::Down) };
        let payload = match payload {
            Some((_, range)) if range.is_empty() => None,
            Some((frame, range)) => Some(frame.payload(range).ok_or(Refused::Malformed)?),
            None => None,
        };
        let length = head.as_slice().len() + payload.as_ref().map_or(0, |payload| payload.octets().len());
        if length > usize::from(self.mtu) + ETHERNET_HEADER {
            return Err(Refused::TooLong);
        }
        if head.offload.checksum.field_end().is_some_and(|end| end > length) {
            return Err(Refused::Malformed);
        }
        let outgoing = rings.sender.compose(head, self.features.checksum(), payload)?;
        rings.sender.send(outgoing).map(|()| length)
    }
}

impl<H: Hal, T: Transport> Link for Port<H, T> {
    type Frame = Received;

    fn mac(&self) -> EthernetAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn finishes_checksums(&self) -> bool {
        self.features.checksum()
    }

    fn begin(&mut self) {
        if self.standing == Standing::Failed {
            self.recover();
        }
        let Some(rings) = &mut self.running else { return };
        match rings.sender.reclaim() {
            Ok(()) => {
                rings.sender.drain();
                self.statistics.rx_no_buffer += u64::from(!rings.receiver.refill(&self.pool));
            }
            Err(violation) => self.fail(violation),
        }
    }

    #[inline]
    fn receive(&mut self) -> Option<Received> {
        // Ends: each round takes a buffer off the ring, none is added.
        loop {
            let popped = self.running.as_mut()?.receiver.pop();
            let accepted = match popped {
                Ok(None) => return None,
                Ok(Some((buffer, used))) => self.accept(buffer, used),
                Err(violation) => Err(violation),
            };
            match accepted {
                Ok(None) => continue,
                Ok(frame) => return frame,
                Err(violation) => {
                    self.fail(violation);
                    return None;
                }
            }
        }
    }

    #[inline]
    fn transmit(&mut self, head: &Head, payload: Option<(Received, Range<usize>)>) -> Result<(), Refused> {
        let result = self.send(head, payload);
        self.statistics.sent(result)
    }

    fn compose(&mut self, octets: &[u8]) -> Option<Received> {
        Received::copy(&self.pool, octets)
    }

    fn finish(&mut self) {
        let Some(Rings { receiver, sender }) = &mut self.running else { return };
        if !receiver.unannounced && !sender.unannounced {
            return;
        }
        // The new indices are visible to the device before we read whether it wants to hear of them.
        fence(Ordering::SeqCst);
        if core::mem::take(&mut receiver.unannounced) && receiver.queue.should_notify() {
            self.transport.notify(RECEIVE);
        }
        if core::mem::take(&mut sender.unannounced) && sender.queue.should_notify() {
            self.transport.notify(TRANSMIT);
        }
    }

    fn sleep(&mut self) -> bool {
        let Some(Rings { receiver, sender }) = &mut self.running else {
            return self.standing != Standing::Failed;
        };
        // A sent frame matters only if something waits for its place or for its buffer.
        let sending = sender.is_sending() && (!sender.backlog.is_empty() || self.pool.free() == 0);
        receiver.queue.set_dev_notify(true);
        sender.queue.set_dev_notify(sending);
        // The request is visible to the device before we look at its index.
        fence(Ordering::SeqCst);
        !(receiver.queue.can_pop() || sending && sender.queue.can_pop())
    }

    fn wake(&mut self) {
        if let Some(Rings { receiver, sender }) = &mut self.running {
            receiver.queue.set_dev_notify(false);
            sender.queue.set_dev_notify(false);
        }
    }

    fn tick(&mut self) {
        self.inspect();
    }

    fn statistics(&self) -> Statistics {
        let backlog = self.running.as_ref().map_or(0, |rings| rings.sender.backlog.len());
        Statistics { backlog: backlog as u32, free_buffers: self.pool.free() as u32, ..self.statistics }
    }
}

impl<H: Hal, T: Transport> fmt::Debug for Port<H, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.name)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}
