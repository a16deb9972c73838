//! What a packet of a session means to it, once it is sure to leave.

use smoltcp::time::Instant;

use super::{Admitted, Hit, Nat};
use crate::endpoint::Direction;
use crate::packet::{Packet, Transport};
use crate::segment::Segment;
use crate::session::REPLIED;
use crate::tcp::{Connection, Refused};

impl Nat {
    /// Takes note of a packet that is sure to leave: what it means to TCP, and how long its
    /// session lives. An ICMP error means nothing (RFC 4787 REQ-12, RFC 5382 REQ-10).
    ///
    /// # Errors
    /// [`Refused`], and nothing is changed: the packet is to be dropped.
    #[inline(always)]
    pub fn admit(&mut self, hit: Hit, packet: &Packet, now: Instant) -> Result<Admitted, Refused> {
        let counts = match packet.transport {
            Transport::Error => false,
            Transport::Tcp => self.take_segment(hit, &packet.segment)?,
            _ => true,
        };
        let Some(session) = self.sessions.get_mut(hit.session.0).filter(|_| counts) else {
            return Ok(Admitted { first_reply: false });
        };
        let first_reply = hit.direction == Direction::Reply && !session.has_reply();
        // RFC 4787 REQ-6: an outsider cannot keep a session alive.
        if !first_reply && !session.is_refreshed_by(hit.direction) {
            return Ok(Admitted { first_reply });
        }
        let before = session.expires;
        session.expires = self.lifetimes.end(session.class, self.clock.advance(now));
        // An end that comes later is found when the slot comes up; a nearer one is not.
        if (session.expires.wrapping_sub(before) as i32) < 0 {
            self.hasten(hit.session.0);
        }
        if first_reply {
            self.answered(hit.session.0);
        }
        Ok(Admitted { first_reply })
    }

    /// What a segment means to its connection; false if it passes but counts for nothing.
    #[inline(never)]
    fn take_segment(&mut self, hit: Hit, segment: &Segment) -> Result<bool, Refused> {
        let id = hit.session.0;
        let Some((session, windows)) = self.sessions.get_mut(id).zip(self.windows.get_mut(id as usize))
        else {
            return Ok(false);
        };
        let before = session.history;
        let (history, syn_end) = (&mut session.history, &mut session.syn_end);
        let connection = Connection { history, syn_end, windows, judges: self.options.tcp_windows };
        let counts = connection.take(segment, hit.direction)?;
        if session.history != before {
            self.turned(id);
        }
        Ok(counts)
    }

    /// A TCP session's history changed: so may its idle time, and whether it may be let go of.
    #[cold]
    fn turned(&mut self, id: u32) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.classify();
            self.expendable.set(id, session.is_expendable());
        }
    }

    /// The first packet came in the reply direction.
    #[cold]
    fn answered(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.flags |= REPLIED;
        self.expendable.set(id, session.is_expendable());
        if !session.is_snat() {
            // Its mapping is the internal endpoint's, which answers.
            self.mappings.own(session.mapping);
        }
    }

    /// A session ends sooner than it was to end.
    #[cold]
    fn hasten(&mut self, id: u32) {
        self.wheel.unlink(&mut self.sessions, id);
        self.wheel.link(&mut self.sessions, id);
    }
}
