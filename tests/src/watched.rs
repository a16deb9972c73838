//! A link that notices if anybody writes to a received frame.

use std::ops::Range;

use netback::wire::{Wire, WireFrame};
use netback::{Frame, Head, Link, Offload, Refused, Statistics};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

/// A [`Wire`] whose frames remember what arrived.
#[derive(Clone)]
pub struct Watched(pub Wire);

/// A received frame, and what it was when it was received.
pub struct WatchedFrame {
    frame: WireFrame,
    arrived: Vec<u8>,
}

impl Frame for WatchedFrame {
    fn octets(&self) -> &[u8] {
        self.frame.octets()
    }

    fn length(&self) -> usize {
        self.frame.length()
    }

    fn offload(&self) -> Offload {
        self.frame.offload()
    }
}

impl WatchedFrame {
    fn check(&self) {
        assert_eq!(self.frame.octets(), self.arrived, "a received frame was written to");
    }
}

/// The other end of a frame's life: whoever drops it, it is as it came.
impl Drop for WatchedFrame {
    fn drop(&mut self) {
        self.check();
    }
}

impl Link for Watched {
    type Frame = WatchedFrame;

    fn mac(&self) -> EthernetAddress {
        self.0.mac()
    }

    fn mtu(&self) -> u16 {
        self.0.mtu()
    }

    fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn finishes_checksums(&self) -> bool {
        self.0.finishes_checksums()
    }

    fn begin(&mut self, now: Instant) {
        self.0.begin(now);
    }

    fn receive(&mut self) -> Option<WatchedFrame> {
        let frame = self.0.receive()?;
        let arrived = frame.octets().to_vec();
        Some(WatchedFrame { frame, arrived })
    }

    fn transmit(
        &mut self,
        head: &Head,
        payload: Option<(WatchedFrame, Range<usize>)>,
    ) -> Result<(), Refused> {
        let Some((watched, range)) = payload else {
            return self.0.transmit(head, None);
        };
        watched.check();
        // The wire takes a frame of its own, as a device would.
        let copy = self.0.compose(&watched.arrived).ok_or(Refused::Full)?;
        self.0.transmit(head, Some((copy, range)))
    }

    fn compose(&mut self, octets: &[u8]) -> Option<WatchedFrame> {
        let frame = self.0.compose(octets)?;
        let arrived = octets.to_vec();
        Some(WatchedFrame { frame, arrived })
    }

    fn finish(&mut self) {
        self.0.finish();
    }

    fn sleep(&mut self) -> bool {
        self.0.sleep()
    }

    fn wake(&mut self) {
        self.0.wake();
    }

    fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}
