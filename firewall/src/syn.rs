//! Unsolicited SYNs from outside, kept for six seconds (RFC 5382 REQ-4).
//!
//! A SYN that nobody inside asked for is never forwarded. If the site wants its sender told, it is kept
//! meanwhile, for a SYN from inside may cross it (RFC 9293 3.5, simultaneous open): then nothing is
//! said, and the peer's retransmission completes the opening.

use alloc::collections::VecDeque;
use core::net::Ipv4Addr;

use nat::Tuple;
use smoltcp::time::{Duration, Instant};

/// How long nothing is said (RFC 5382 REQ-4).
const SILENCE: Duration = Duration::from_secs(6);
/// SYNs kept: each keeps the buffer that it came in. Those beyond meet silence for good.
pub const HELD: usize = 128;
/// SYNs kept of one source: a flood ends its own answers.
const QUOTA: usize = 8;

/// A SYN that is kept, in the frame that it came in.
struct Held<F> {
    frame: F,
    /// Its tuple, as it arrived.
    tuple: Tuple,
    due: Instant,
}

/// The SYNs that are kept, in the order in which they came.
pub struct Syns<F> {
    held: VecDeque<Held<F>>,
    capacity: usize,
}

impl<F> Syns<F> {
    /// Octets that [`Syns::new`] allocates; the buffers of what is held are the pool's.
    pub const fn footprint(capacity: usize) -> usize {
        capacity * size_of::<Held<F>>()
    }

    /// Room for this many.
    pub fn new(capacity: usize) -> Self {
        Self { held: VecDeque::with_capacity(capacity), capacity }
    }

    /// Whether there is room for any.
    pub fn is_wanted(&self) -> bool {
        self.capacity > 0
    }

    /// Keeps a SYN, unless one like it is kept already, or there is no room for it.
    pub fn hold(&mut self, tuple: Tuple, frame: F, now: Instant) {
        let of =
            |source: Ipv4Addr| self.held.iter().filter(move |held| held.tuple.source().address == source);
        let has_room = self.held.len() < self.capacity && of(tuple.source().address).count() < QUOTA;
        if has_room && of(tuple.source().address).all(|held| held.tuple != tuple) {
            self.held.push_back(Held { frame, tuple, due: now + SILENCE });
        }
    }

    /// A session has begun whose answers have this tuple: a SYN like that is forgotten.
    pub fn cancel(&mut self, answers: &Tuple) {
        if !self.held.is_empty() {
            self.held.retain(|held| held.tuple != *answers);
        }
    }

    /// The link that they came by is another: nobody is told anything.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// The frame of a SYN that has waited long enough.
    pub fn take_due(&mut self, now: Instant) -> Option<F> {
        self.held.front().filter(|oldest| oldest.due <= now)?;
        self.held.pop_front().map(|held| held.frame)
    }

    /// When the next one will have.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.front().map(|oldest| oldest.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat::{Endpoint, protocol};

    fn tuple(host: u8, port: u16) -> Tuple {
        let source = Endpoint::new(Ipv4Addr::new(198, 51, 100, host), port);
        let destination = Endpoint::new(Ipv4Addr::new(192, 0, 2, 2), 80);
        Tuple::new(protocol::TCP, source, destination)
    }

    #[test]
    fn req_4_held_syns_are_bounded_in_all_and_per_source_and_come_in_order() {
        let mut syns = Syns::new(HELD);
        let start = Instant::from_secs(1000);
        for port in 1..1000 {
            syns.hold(tuple(1, port), (1, port), start);
        }
        assert_eq!(syns.held.len(), QUOTA);
        for host in 2..250 {
            syns.hold(tuple(host, 1), (host, 1), start + Duration::from_secs(1));
        }
        assert_eq!(syns.held.len(), HELD);
        assert!(syns.take_due(start + Duration::from_millis(5_999)).is_none());
        assert_eq!(syns.next_due(), Some(start + SILENCE));
        assert_eq!(syns.take_due(start + SILENCE), Some((1, 1)));
    }

    #[test]
    fn req_4_a_retransmission_waits_no_longer_and_a_session_cancels() {
        let mut syns = Syns::new(2);
        let start = Instant::from_secs(1000);
        syns.hold(tuple(1, 1), (), start);
        syns.hold(tuple(1, 1), (), start + Duration::from_secs(3));
        assert_eq!((syns.held.len(), syns.next_due()), (1, Some(start + SILENCE)));
        syns.cancel(&tuple(1, 2));
        assert_eq!(syns.held.len(), 1);
        syns.cancel(&tuple(1, 1));
        assert_eq!((syns.held.len(), syns.next_due()), (0, None));
    }
}
