//! A link in memory, for tests and benches.
//!
//! What the test injects is received; what the datapath transmits can be read back. Clones are the same wire: one
//! goes to the datapath, one stays with the test. Buffers are used again, so that a warm wire does not allocate.

use alloc::{collections::VecDeque, rc::Rc, vec::Vec};
use core::{cell::RefCell, fmt, ops::Range};

use smoltcp::{time::Instant, wire::EthernetAddress};

use crate::{
    Checksum, ETHERNET_HEADER, Frame, Head, Link, Offload, Refused, Statistics,
    frame::FRAME_MAX,
    segment::{self, Cut},
};

/// How a wire behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our hardware address.
    pub mac: EthernetAddress,
    /// Largest IP packet, in octets.
    pub mtu: u16,
    /// Whether there is carrier.
    pub up: bool,
    /// Whether partial checksums leave as they are; otherwise software completes them.
    pub finishes_checksums: bool,
    /// Whether what is to be segmented leaves as it is; otherwise, and without checksums, software cuts it.
    pub cuts_segments: bool,
    /// Whether every frame is refused as if queue and backlog were full.
    pub full: bool,
    /// Frames that wait at most, in each direction.
    pub capacity: usize,
    /// Whether sent frames are counted and thrown away.
    pub discards: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            finishes_checksums: true,
            cuts_segments: true,
            full: false,
            capacity: 1024,
            discards: false,
        }
    }
}

impl Settings {
    fn cuts(&self) -> bool {
        self.cuts_segments && self.finishes_checksums
    }
}

struct State {
    settings: Settings,
    incoming: VecDeque<(Vec<u8>, Offload)>,
    outgoing: VecDeque<(Vec<u8>, Offload)>,
    spare: Vec<Vec<u8>>,
    /// Frames given away that were neither dropped nor sent.
    outstanding: usize,
    statistics: Statistics,
}

impl State {
    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    fn send(&mut self, head: &Head, payload: Option<&[u8]>) -> Result<usize, Refused> {
        let payload = payload.ok_or(Refused::Malformed)?;
        let Some(segments) = head.offload.segments.filter(|_| !self.settings.cuts()) else {
            return self.send_whole(head, payload);
        };
        let cut = Cut::new(head, payload.len(), segments).map_err(|segment::Misplaced| Refused::Malformed)?;
        let mut last = Err(Refused::Malformed);
        for piece in cut.pieces() {
            let mut head = head.clone();
            cut.write(head.as_mut_slice(), &piece);
            head.offload.segments = None;
            let is_last = piece.end == payload.len();
            last = self.send_whole(&head, payload.get(piece).ok_or(Refused::Malformed)?);
            if !is_last {
                self.statistics.sent(Ok(last?))?;
            }
        }
        last
    }

    fn send_whole(&mut self, head: &Head, payload: &[u8]) -> Result<usize, Refused> {
        let settings = &self.settings;
        let length = head.as_slice().len() + payload.len();
        if !settings.up {
            return Err(Refused::Down);
        }
        let longest = head
            .offload
            .segments
            .map_or(payload.len(), |segments| payload.len().min(segments.size.get().into()));
        if head.as_slice().len() + longest > usize::from(settings.mtu) + ETHERNET_HEADER {
            return Err(Refused::TooLong);
        }
        if head.offload.checksum.field_end().is_some_and(|end| end > length) {
            return Err(Refused::Malformed);
        }
        if settings.full || self.outgoing.len() >= settings.capacity {
            return Err(Refused::Full);
        }
        self.put(head, payload).map_err(|segment::Misplaced| Refused::Malformed)?;
        Ok(length)
    }

    fn put(&mut self, head: &Head, payload: &[u8]) -> Result<(), segment::Misplaced> {
        let mut frame = self.buffer();
        let mut offload = head.offload;
        frame.extend_from_slice(head.as_slice());
        if let Checksum::Partial { start, offset } = offload.checksum
            && !self.settings.finishes_checksums
        {
            segment::complete(&mut frame, payload, start, offset)?;
            offload = Offload::default();
        }
        frame.extend_from_slice(payload);
        match self.settings.discards {
            true => self.spare.push(frame),
            false => self.outgoing.push_back((frame, offload)),
        }
        Ok(())
    }
}

/// A link in memory; clones share it.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<State>>);

impl Wire {
    /// A wire with nothing on it.
    pub fn new(settings: Settings) -> Self {
        Self(Rc::new(RefCell::new(State {
            settings,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            spare: Vec::new(),
            outstanding: 0,
            statistics: Statistics::default(),
        })))
    }

    /// Changes the wire's behaviour: carrier, a full queue, a smaller MTU.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.borrow_mut().settings);
    }

    /// Puts a frame where `receive` finds it; `false`, and the frame is lost, if too many wait or carrier is off.
    pub fn inject(&self, octets: &[u8], offload: Offload) -> bool {
        let mut state = self.0.borrow_mut();
        if !state.settings.up || state.incoming.len() >= state.settings.capacity {
            return false;
        }
        let mut frame = state.buffer();
        frame.extend_from_slice(octets);
        state.incoming.push_back((frame, offload));
        true
    }

    /// The oldest frame that was transmitted and not yet read back.
    pub fn pop(&self) -> Option<(Vec<u8>, Offload)> {
        self.0.borrow_mut().outgoing.pop_front()
    }

    /// All frames that were transmitted and not yet read back.
    pub fn sent(&self) -> Vec<(Vec<u8>, Offload)> {
        self.0.borrow_mut().outgoing.drain(..).collect()
    }

    /// Frames that were received and neither dropped nor transmitted: zero after a turn, or one leaks.
    pub fn outstanding(&self) -> usize {
        self.0.borrow().outstanding
    }

    fn frame(&self, octets: Vec<u8>, offload: Offload) -> WireFrame {
        self.0.borrow_mut().outstanding += 1;
        WireFrame { octets, offload, home: self.0.clone() }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("settings", &self.0.borrow().settings).finish_non_exhaustive()
    }
}

impl Link for Wire {
    type Frame = WireFrame;

    fn mac(&self) -> EthernetAddress {
        self.0.borrow().settings.mac
    }

    fn mtu(&self) -> u16 {
        self.0.borrow().settings.mtu
    }

    fn is_up(&self) -> bool {
        self.0.borrow().settings.up
    }

    fn finishes_checksums(&self) -> bool {
        self.0.borrow().settings.finishes_checksums
    }

    fn begin(&mut self, _now: Instant) {}

    fn receive(&mut self) -> Option<WireFrame> {
        let (octets, offload) = {
            let mut state = self.0.borrow_mut();
            let (octets, offload) = state.incoming.pop_front()?;
            state.statistics.received(octets.len());
            (octets, offload)
        };
        Some(self.frame(octets, offload))
    }

    fn transmit(&mut self, head: &Head, payload: Option<(WireFrame, Range<usize>)>) -> Result<(), Refused> {
        let octets = match &payload {
            Some((frame, range)) => frame.octets.get(range.clone()),
            None => Some(&[][..]),
        };
        let mut state = self.0.borrow_mut();
        let result = state.send(head, octets);
        state.statistics.sent(result)
        // `payload` is dropped last, when its home may be borrowed again.
    }

    fn compose(&mut self, octets: &[u8]) -> Option<WireFrame> {
        let mut buffer = self.0.borrow_mut().buffer();
        buffer.extend_from_slice(octets);
        Some(self.frame(buffer, Offload::default()))
    }

    fn finish(&mut self) {}

    fn sleep(&mut self) -> bool {
        self.0.borrow().incoming.is_empty()
    }

    fn wake(&mut self) {}

    fn statistics(&self) -> Statistics {
        let state = self.0.borrow();
        let free = state.settings.capacity.saturating_sub(state.outstanding);
        Statistics { free_buffers: u32::try_from(free).unwrap_or(u32::MAX), ..state.statistics }
    }
}

/// A frame from a [`Wire`].
pub struct WireFrame {
    octets: Vec<u8>,
    offload: Offload,
    home: Rc<RefCell<State>>,
}

impl Frame for WireFrame {
    fn octets(&self) -> &[u8] {
        // As in a port's buffer, the rest lies elsewhere.
        let first = if self.offload.segments.is_some() { FRAME_MAX } else { usize::MAX };
        self.octets.get(..first).unwrap_or(&self.octets)
    }

    fn length(&self) -> usize {
        self.octets.len()
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

impl Drop for WireFrame {
    fn drop(&mut self) {
        let mut home = self.home.borrow_mut();
        home.outstanding -= 1;
        home.spare.push(core::mem::take(&mut self.octets));
    }
}

impl fmt::Debug for WireFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireFrame").field("octets", &self.octets).field("offload", &self.offload).finish()
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetProtocol;

    use super::*;

    fn head() -> Head {
        Head::new(EthernetAddress([2; 6]), EthernetAddress([4; 6]), EthernetProtocol::Ipv4)
    }

    #[test]
    fn what_is_injected_is_received_and_what_is_transmitted_can_be_read() {
        let (a, b) = (Wire::new(Settings::default()), Wire::new(Settings::default()));
        let offload = Offload::from(Checksum::Verified);
        assert!(a.inject(&[7; 60], offload));
        assert!(!a.clone().sleep());
        let frame = a.clone().receive().unwrap();
        assert_eq!((frame.octets(), frame.offload(), a.outstanding()), (&[7; 60][..], offload, 1));
        assert_eq!(b.clone().transmit(&head(), Some((frame, 14..60))), Ok(()));
        assert_eq!(a.outstanding(), 0);
        assert_eq!(b.sent(), [([head().as_slice(), &[7; 46]].concat(), Offload::default())]);
        assert_eq!((a.statistics().rx_octets, b.statistics().tx_octets), (60, 60));
    }

    #[test]
    fn faults_refuse_frames_and_give_them_back() {
        let wire = Wire::new(Settings { capacity: 1, ..Settings::default() });
        let send = |length: usize, range: Range<usize>| {
            let frame = wire.clone().compose(&Vec::from_iter((0..length).map(|_| 1))).unwrap();
            wire.clone().transmit(&head(), Some((frame, range)))
        };
        assert_eq!(send(1501, 0..1501), Err(Refused::TooLong));
        assert_eq!(send(9, 0..10), Err(Refused::Malformed));
        assert_eq!(send(9, 0..9), Ok(()));
        assert_eq!(send(9, 0..9), Err(Refused::Full));
        wire.set(|settings| settings.up = false);
        assert_eq!(send(9, 0..9), Err(Refused::Down));
        assert!(!wire.inject(&[0; 60], Offload::default()));
        assert_eq!((wire.outstanding(), wire.sent().len()), (0, 1));
        let statistics = wire.statistics();
        assert_eq!((statistics.tx_full, statistics.tx_down), (1, 1));
        assert_eq!((statistics.tx_too_long, statistics.tx_malformed), (1, 1));
    }

    #[test]
    fn a_wire_without_offload_completes_checksums() {
        let mut wire = Wire::new(Settings { finishes_checksums: false, ..Settings::default() });
        let mut head = head();
        head.extend_from_slice(&[0x12, 0x34, 0, 0]).unwrap();
        head.offload.checksum = Checksum::Partial { start: 14, offset: 2 };
        wire.transmit(&head, None).unwrap();
        let (sent, offload) = wire.pop().unwrap();
        assert_eq!((&sent[14..], offload), (&[0x12, 0x34, 0xed, 0xcb][..], Offload::default()));
    }
}
