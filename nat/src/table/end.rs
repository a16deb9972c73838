//! How sessions end, and what goes with them.

use smoltcp::time::Instant;

use super::Nat;
use crate::session::{HOLDS, NONE, Session, SessionId};

impl Nat {
    /// Ends a session, and with the last one of its mapping the mapping.
    pub fn remove(&mut self, id: SessionId) {
        let session = self.sessions.get(id.0);
        if !session.is_live() {
            return;
        }
        let hosts = session.hosts();
        let (original, reply) = (session.original(), session.reply());
        let held = self.held(session);
        let (mapping, peer, client) = (session.mapping(id.0), session.peer(), session.client);
        if mapping != NONE {
            if session.is_snat() || session.has_reply() {
                self.sessions.disown(mapping);
            }
            self.contacts.remove(mapping, peer);
        }
        self.wheel.unlink(&mut self.sessions, id.0);
        self.expendable.set(id.0, false);
        self.sessions.end(id.0);
        self.tell_end(id.0);
        match self.sessions.get_mut(id.0).filter(|_| hosts) {
            Some(host) => host.leave_mapping(),
            None => {
                self.unmapped -= u32::from(mapping == NONE);
                self.index.remove(self.hash(&original), id.0 << 1);
                self.index.remove(self.hash(&reply), id.0 << 1 | 1);
                self.sessions.free(id.0);
                self.session_quota.give(client);
            }
        }
        self.release_mapping(mapping);
        if held != NONE {
            self.release_mapping(held);
        }
    }

    /// Takes note of an end, if that is asked for.
    #[inline]
    pub(super) fn tell_end(&mut self, id: u32) {
        if self.ended.len() < self.ended.capacity() {
            self.ended.push(id);
        }
    }

    /// A session that has ended since it was asked the last time, or was closed by both sides; its place may have
    /// been given to another one only if [`Nat::bind`] was called meanwhile. None without [`Options::tells_ends`](crate::Options::tells_ends).
    pub fn take_ended(&mut self) -> Option<u32> {
        self.ended.pop()
    }

    /// The mapping that a hairpinned session holds besides its own.
    pub(super) fn held(&self, session: &Session) -> u32 {
        let holds = session.flags & HOLDS != 0;
        let original = session.original();
        let at = || self.mapping_at(original.protocol(), original.destination());
        let held = holds.then(at).flatten();
        held.unwrap_or(NONE)
    }

    /// Ends the sessions that `ends` picks, looking at `budget` places from the place `from` on.
    /// Returns where to go on, or nothing at the end.
    pub fn remove_where(
        &mut self,
        from: u32,
        budget: u32,
        mut ends: impl FnMut(&Session) -> bool,
    ) -> Option<u32> {
        let end = from.saturating_add(budget).min(self.sessions.capacity());
        for id in from..end {
            let session = self.sessions.get(id);
            if session.is_live() && ends(session) {
                self.remove(SessionId(id));
            }
        }
        (end < self.sessions.capacity()).then_some(end)
    }

    /// Ends what expired, looking at no more than `budget` sessions, and returns how many ended.
    pub fn expire(&mut self, budget: usize) -> usize {
        let mut ended = 0;
        for _ in 0..budget {
            let Some(id) = self.wheel.pop(&mut self.sessions) else {
                break;
            };
            if self.is_expired(SessionId(id)) {
                self.remove(SessionId(id));
                ended += 1;
            } else {
                self.wheel.link(&mut self.sessions, id);
            }
        }
        ended
    }

    /// When [`Nat::expire`] may have something to do; not before.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.wheel.next_expiry()
    }
}
