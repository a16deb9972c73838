//! Turns of a port: what it takes from its device and what it gives.

use core::{
    fmt,
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use smoltcp::wire::EthernetAddress;
use virtio_drivers::{Hal, transport::Transport};

use super::{RECEIVE, RESERVE, Rings, TRANSMIT, Violation};
use crate::{
    ETHERNET_HEADER, Head, Link, Refused, Statistics,
    features::Features,
    frame::{FRAME_MAX, Received},
    header,
    pool::{Buffer, Pool},
};

/// Whether a port works, and if not, what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
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
    pub(super) transport: T,
    pub(super) pool: Pool,
    pub(super) name: &'static str,
    pub(super) mac: EthernetAddress,
    pub(super) mtu: u16,
    pub(super) up: bool,
    pub(super) features: Features,
    pub(super) standing: Standing,
    /// `Some` while running.
    pub(super) running: Option<Rings<H>>,
    /// What a failed device may still reach.
    pub(super) stopped: Option<Rings<H>>,
    /// Failures since the last calm minute.
    pub(super) strikes: u8,
    pub(super) calm: u8,
    /// Violations that were logged, a bit each.
    pub(super) logged: u8,
    pub(super) statistics: Statistics,
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
        rings.sender.send(outgoing, self.pool.free() >= RESERVE).map(|()| length)
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
        // A line that stays up cannot rise again: take it down before looking for what made it rise.
        let _ = self.transport.ack_interrupt();
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
