//! What a packet of a session means to it, once it is sure to leave.

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
    pub fn admit(&mut self, hit: Hit, packet: &Packet) -> Result<Admitted, Refused> {
        match packet.transport {
            Transport::Error => return Ok(Admitted::NOTHING),
            Transport::Tcp if !self.take_segment(hit, &packet.segment)? => return Ok(Admitted::NOTHING),
            _ => {}
        }
        let Some(session) = self.sessions.get_mut(hit.session.0) else {
            return Ok(Admitted::NOTHING);
        };
        let end = self.lifetimes.end(session.class, self.wheel.present());
        if hit.direction == Direction::Reply && !session.has_reply() {
            self.refresh(hit.session.0, end);
            self.answered(hit.session.0);
            return Ok(Admitted { first_reply: true });
        }
        // RFC 4787 REQ-6: an outsider cannot keep a session alive.
        if end != session.expires && session.is_refreshed_by(hit.direction) {
            self.refresh(hit.session.0, end);
        }
        Ok(Admitted::NOTHING)
    }

    /// Takes note that a packet of a session was seen, though it may not leave: if it is the first
    /// in the reply direction, the session is established to the policy from now on, and nothing
    /// else of it changes. Returns whether it was.
    pub fn see(&mut self, hit: Hit, packet: &Packet) -> bool {
        let session = self.sessions.get(hit.session.0);
        let is_first = hit.direction == Direction::Reply && !session.has_reply();
        let seen = is_first && packet.embedded().is_none() && self.would_count(hit, packet);
        if seen {
            self.answered(hit.session.0);
        }
        seen
    }

    /// Whether a packet would count if it were admitted.
    fn would_count(&self, hit: Hit, packet: &Packet) -> bool {
        let session = self.sessions.get(hit.session.0);
        let windows = self.windows.get(hit.session.0 as usize).copied();
        let Some((segment, mut windows)) = packet.tcp().zip(windows) else {
            return true;
        };
        let (mut history, mut last_syn) = (session.history, session.last_syn);
        let connection = Connection {
            history: &mut history,
            last_syn: &mut last_syn,
            windows: &mut windows,
            judges: self.options.tcp_windows,
        };
        connection.take(segment, hit.direction) == Ok(true)
    }

    /// A session ends at another time.
    fn refresh(&mut self, id: u32, end: u32) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let before = core::mem::replace(&mut session.expires, end);
        if session.may_be_over() {
            session.go_on();
            self.expendable.set(id, session.is_expendable());
        }
        // An end that comes later is found when the slot comes up; a nearer one is not.
        if (end.wrapping_sub(before) as i32) < 0 {
            self.wheel.unlink(&mut self.sessions, id);
            self.wheel.link(&mut self.sessions, id);
        }
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
        let (history, last_syn) = (&mut session.history, &mut session.last_syn);
        let connection = Connection { history, last_syn, windows, judges: self.options.tcp_windows };
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
            if session.is_over() {
                self.tell_end(id);
            }
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
            let mapping = session.mapping;
            self.sessions.own(mapping);
        }
    }
}
