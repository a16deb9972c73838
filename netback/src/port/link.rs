//! Turns of a port: what it takes from its device and what it gives.

use alloc::boxed::Box;
use core::{
    fmt,
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use smoltcp::{time::Instant, wire::EthernetAddress};
use virtio_drivers::{
    Hal,
    transport::{InterruptStatus, Transport},
};

use super::{RECEIVE, Rings, Settings, TRANSMIT};
use crate::{
    ETHERNET_HEADER, Frame, Head, Link, Refused, Segments, Statistics,
    features::Features,
    frame::{FRAME_MAX, Received},
    header,
    pool::{Buffer, Pool},
    segment::{self, Cut},
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
    /// Without a device, until one is plugged in.
    Absent,
}

/// A virtio-net device as a [`Link`].
pub struct Port<H: Hal, T: Transport> {
    pub(super) transport: T,
    pub(super) pool: Pool,
    pub(super) name: &'static str,
    pub(super) settings: Settings,
    pub(super) mac: EthernetAddress,
    pub(super) mtu: u16,
    pub(super) up: bool,
    pub(super) features: Features,
    pub(super) standing: Standing,
    /// `Some` while running.
    pub(super) running: Option<Box<Rings<H>>>,
    /// What a failed device may still reach.
    pub(super) stopped: Option<Box<Rings<H>>>,
    /// Failures since the last calm minute.
    pub(super) strikes: u8,
    pub(super) calm: u8,
    /// The device has said that its configuration changed.
    pub(super) has_changed: bool,
    /// Of carrier: until when the log was told enough, and changes of which it was not told.
    pub(super) told: Instant,
    pub(super) untold: u32,
    /// The device wishes that our addresses are announced.
    pub(super) is_to_announce: bool,
    /// Violations that were logged, a bit each.
    pub(super) logged: u8,
    pub(super) statistics: Statistics,
}

impl<H: Hal, T: Transport> Port<H, T> {
    /// A frame of `used` octets with the device's header.
    #[inline(always)]
    fn accept(&mut self, buffer: Buffer, used: usize) -> Option<Received> {
        let length = used - header::LENGTH;
        if length < ETHERNET_HEADER {
            self.statistics.rx_runts += 1;
            return None;
        }
        let offload = buffer.octets().first_chunk().ok_or(header::BadOffload);
        let Ok(offload) = offload.and_then(|octets| header::received(octets, length, self.features)) else {
            self.statistics.rx_bad_offload += 1;
            return None;
        };
        if length > FRAME_MAX && offload.segments.is_none() {
            self.statistics.rx_too_long += 1;
            return None;
        }
        self.statistics.received(length);
        Some(Received::new(buffer, length, offload))
    }

    /// Sends a frame in the buffers that it came in; of segments each is to fit the link.
    #[inline(always)]
    fn send(&mut self, head: &Head, mut frame: Received, range: Range<usize>) -> Result<usize, Refused> {
        let Some(rings) = self.running.as_mut().filter(|_| self.up) else { return Err(Refused::Down) };
        let behind = range.end.saturating_sub(range.start);
        let (length, mut longest) = (head.as_slice().len() + behind, behind);
        if let Some(segments) = head.offload.segments {
            if !self.features.segments(segments.is_ecn) {
                return self.send_segments(head, frame, range, segments);
            }
            longest = behind.min(segments.size.get().into());
        }
        if head.as_slice().len() + longest > usize::from(self.mtu) + ETHERNET_HEADER {
            return Err(Refused::TooLong);
        }
        if range.end > frame.length() || head.offload.checksum.field_end().is_some_and(|end| end > length) {
            return Err(Refused::Malformed);
        }
        if !frame.has_room(head, range.start) {
            return self.send_copy(head, frame.parts(range), behind);
        }
        let part = range.start..range.start + behind;
        frame.put_head(head, part, self.features.checksum()).ok_or(Refused::Malformed)?;
        let sender = &mut rings.sender;
        match sender.takes(frame.buffers()) {
            true => sender.post(frame.into_outgoing()),
            false => self.statistics.tx_full += sender.wait(frame.into_outgoing(), head.flow)? as u64,
        }
        Ok(length)
    }

    /// Sends a copy of what leaves no room for its head: `length` octets in all parts, which fit a buffer with it.
    #[cold]
    fn send_copy<'a>(
        &mut self,
        head: &Head,
        parts: impl Iterator<Item = &'a [u8]>,
        length: usize,
    ) -> Result<usize, Refused> {
        let copy = Received::gather(&self.pool, length, parts).ok_or(Refused::Full)?;
        match copy.has_room(head, 0) {
            true => self.send(head, copy, 0..length),
            false => Err(Refused::Malformed),
        }
    }

    /// Sends a frame that is to be cut, and that the device does not cut.
    #[cold]
    fn send_segments(
        &mut self,
        head: &Head,
        frame: Received,
        range: Range<usize>,
        segments: Segments,
    ) -> Result<usize, Refused> {
        let payload = range.end.saturating_sub(range.start);
        let cut = Cut::new(head, payload, segments).map_err(|segment::Misplaced| Refused::Malformed)?;
        if range.end > frame.length() {
            return Err(Refused::Malformed);
        }
        let mut last = Err(Refused::Malformed);
        for piece in cut.pieces() {
            let mut head = head.clone();
            head.offload.segments = None;
            cut.write(head.as_mut_slice(), &piece);
            let part = range.start + piece.start..range.start + piece.end;
            last = self.send_copy(&head, frame.parts(part), piece.len());
            // The caller counts the last one.
            if piece.end < payload {
                self.statistics.sent(Ok(last?))?;
            }
        }
        last
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

    fn is_present(&self) -> bool {
        self.standing != Standing::Absent
    }

    fn take_change(&mut self) -> bool {
        core::mem::take(&mut self.has_changed)
    }

    fn take_announcement(&mut self) -> bool {
        core::mem::take(&mut self.is_to_announce)
    }

    fn wants_tick(&self) -> bool {
        self.untold > 0 && self.running.is_some()
            || matches!(self.standing, Standing::Waiting | Standing::Failed)
    }

    fn finishes_checksums(&self) -> bool {
        self.features.checksum()
    }

    fn begin(&mut self, now: Instant) {
        if self.standing == Standing::Failed {
            self.recover();
        }
        let Some(rings) = &mut self.running else { return };
        match rings.sender.reclaim() {
            Ok(()) => {
                rings.sender.now = now;
                if !rings.sender.backlog.is_empty() {
                    self.statistics.tx_late += rings.sender.drain() as u64;
                }
                self.statistics.rx_no_buffer += u64::from(!rings.receiver.refill());
            }
            Err(violation) => self.fail(violation),
        }
    }

    #[inline(always)]
    fn receive(&mut self) -> Option<Received> {
        // Ends: each round takes a buffer off the ring, none is added.
        loop {
            match self.running.as_mut()?.receiver.take(self.features) {
                Ok(None) => return None,
                Ok(Some((buffer, used))) => {
                    if let Some(frame) = self.accept(buffer, used) {
                        return Some(frame);
                    }
                }
                Err(violation) => {
                    self.fail(violation);
                    return None;
                }
            }
        }
    }

    #[inline(always)]
    fn transmit(&mut self, head: &Head, payload: Option<(Received, Range<usize>)>) -> Result<(), Refused> {
        let result = match payload {
            Some((frame, range)) => self.send(head, frame, range),
            None => self.send_copy(head, core::iter::empty(), 0),
        };
        self.statistics.sent(result)
    }

    fn compose(&mut self, octets: &[u8]) -> Option<Received> {
        Received::copy(&self.pool, octets)
    }

    fn finish(&mut self) {
        let Some(Rings { receiver, sender, .. }) = self.running.as_deref_mut() else { return };
        let (received, sent) = (receiver.ring.publish(), sender.ring.publish());
        if !received && !sent {
            return;
        }
        // The new indices are visible to the device before we read whether it wants to hear of them.
        fence(Ordering::SeqCst);
        if received && receiver.ring.wants_notice() {
            self.transport.notify(RECEIVE);
        }
        if sent && sender.ring.wants_notice() {
            self.transport.notify(TRANSMIT);
        }
    }

    fn sleep(&mut self) -> bool {
        let Some(Rings { receiver, sender, .. }) = self.running.as_deref_mut() else {
            return self.standing != Standing::Failed;
        };
        // A device without a buffer says nothing: it is given some first.
        if receiver.is_bare() && self.pool.free() > 0 {
            return false;
        }
        // A sent frame matters only if something waits for its place or for its buffer.
        let sending = sender.is_sending() && (!sender.backlog.is_empty() || self.pool.free() == 0);
        receiver.ring.interrupts(true);
        sender.ring.interrupts(sending);
        // A line that stays up cannot rise again: take it down before looking for what made it rise.
        let cause = self.transport.ack_interrupt();
        self.has_changed |= cause.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
        // The request is visible to the device before we look at its index.
        fence(Ordering::SeqCst);
        // Others may have kept a shared line up behind our back: it is down once one round finds no cause anywhere.
        cause.is_empty() && !(receiver.ring.can_take() || sending && sender.ring.can_take())
    }

    fn wake(&mut self) {
        if let Some(Rings { receiver, sender, .. }) = self.running.as_deref_mut() {
            receiver.ring.interrupts(false);
            sender.ring.interrupts(false);
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
