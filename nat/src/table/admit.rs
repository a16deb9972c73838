//! What a packet of a session means to it, once it is sure to leave.

use super::{Admitted, Hit, Nat};
use crate::endpoint::Direction;
use crate::packet::{Packet, Transport};
use crate::segment::Segment;
use crate::session::REPLIED;
use crate::tcp::{Connection, History, Refused, Taken};

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
            Transport::Tcp => {
                let taken = self.take_segment(hit, &packet.segment);
                if taken != Taken::Counted {
                    return taken.refused().map_or(Ok(Admitted::NOTHING), Err);
                }
            }
            _ => {}
        }
        let Some(session) = self.sessions.get_mut(hit.session.0) else {
            return Ok(Admitted::NOTHING);
        };
        if hit.direction == Direction::Reply && !session.has_reply() {
            self.answered_first(hit.session.0);
            return Ok(Admitted { first_reply: true });
        }
        let end = self.lifetimes.end(session.class, self.wheel.present());
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
            options: &self.options,
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

    /// What is known of the connection of a TCP session.
    #[inline(always)]
    fn connection(&mut self, id: u32) -> Option<Connection<'_>> {
        let session = self.sessions.get_mut(id)?;
        let windows = self.windows.get_mut(id as usize)?;
        let (history, last_syn) = (&mut session.history, &mut session.last_syn);
        Some(Connection { history, last_syn, windows, options: &self.options })
    }

    /// What a segment means to its connection.
    #[inline(never)]
    fn take_segment(&mut self, hit: Hit, segment: &Segment) -> Taken {
        // One way out before anything is kept for later: no register has to be saved for it.
        let awaiting = self.connection(hit.session.0).filter(|connection| connection.awaits(segment));
        let Some(mut connection) = awaiting else {
            return self.take_step(hit, segment);
        };
        let before = *connection.history;
        if let Err(refused) = connection.take_usual(segment, hit.direction) {
            return Taken::Refused(refused);
        }
        match *connection.history == before {
            true => Taken::Counted,
            false => self.turned(hit.session.0, before),
        }
    }

    /// The same for one of those that begin a connection or end it.
    #[inline(never)]
    fn take_step(&mut self, hit: Hit, segment: &Segment) -> Taken {
        let Some(connection) = self.connection(hit.session.0) else {
            return Taken::Passed;
        };
        if !connection.is_step(segment) {
            return self.take_rare(hit, segment);
        }
        let before = *connection.history;
        let taken = connection.take_step(segment, hit.direction).into();
        self.turn(hit.session.0, before);
        taken
    }

    /// The same for any other.
    #[cold]
    fn take_rare(&mut self, hit: Hit, segment: &Segment) -> Taken {
        let Some(connection) = self.connection(hit.session.0) else {
            return Taken::Passed;
        };
        let before = *connection.history;
        let taken = connection.take_rare(segment, hit.direction).into();
        self.turn(hit.session.0, before);
        taken
    }

    /// A segment that counts changed the history of its session.
    #[inline(never)]
    fn turned(&mut self, id: u32, before: History) -> Taken {
        self.turn(id, before);
        Taken::Counted
    }

    /// A TCP session's history may have changed: so may its idle time, and whether it may be let go of.
    #[inline(always)]
    fn turn(&mut self, id: u32, before: History) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let history = session.history;
        if history == before {
            return;
        }
        let meaning = history.meaning();
        session.class = meaning.class;
        if meaning.is_expendable != before.meaning().is_expendable {
            self.expendable.set(id, meaning.is_expendable);
        }
        if meaning.is_over {
            self.tell_end(id);
        }
    }

    /// The first packet came in the reply direction, and leaves.
    #[cold]
    fn answered_first(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let end = self.lifetimes.end(session.class, self.wheel.present());
        if end == session.expires && session.is_snat() {
            session.flags |= REPLIED;
        } else {
            self.refresh(id, end);
            self.answered(id);
        }
    }

    /// The first packet came in the reply direction.
    #[inline]
    fn answered(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.flags |= REPLIED;
        if !session.is_snat() {
            // Its mapping is the internal endpoint's, which answers.
            let mapping = session.mapping;
            self.sessions.own(mapping);
        }
    }
}
