//! How a session begins.

use super::{Binding, Hit, Nat, Refusal, SourceNat, Unbound};
use crate::endpoint::{Direction, Tuple};
use crate::index::Spot;
use crate::packet::Packet;
use crate::session::{DNAT, HOLDS, NONE, SNAT, Session, SessionId};
use crate::tcp::History;
use crate::translate::Translation;
use crate::window::Windows;

/// The timer's share of work when a new session finds no room, in sessions.
pub(super) const RECLAIM: usize = 64;

impl Nat {
    /// Begins a session with the packet that opens it, which is sure to leave.
    ///
    /// # Errors
    /// [`Unbound`], and nothing is changed but that sessions which had expired may be gone.
    pub fn bind(&mut self, binding: Binding, packet: &Packet) -> Result<Hit, Unbound> {
        self.bind_for(0, binding, packet).map_err(|refusal| match refusal {
            Refusal::Quota => Unbound::TableFull,
            Refusal::Unbound(unbound) => unbound,
        })
    }

    /// As [`Nat::bind`], on account of a client, a number below [`Options::clients`](crate::Options::clients).
    ///
    /// # Errors
    /// [`Refusal`], and nothing is changed but that sessions which had expired, were closed, or
    /// were never answered may be gone.
    pub fn bind_for(&mut self, client: u8, binding: Binding, packet: &Packet) -> Result<Hit, Refusal> {
        let is_other = packet.tuple().is_none() && packet.tuple_with(self.options.other_protocols).is_some();
        if !packet.opens() && !is_other && !self.may_pick_up(packet) {
            return Err(Unbound::NotOpening.into());
        }
        if self.sessions.live() == 0 {
            self.wheel.start();
        }
        // The mapping that a packet came through stays, whoever has to go for it.
        let addressed = self.addressed(&binding);
        if addressed != NONE {
            self.mappings.acquire(addressed);
        }
        let bound = self.bind_in_room(client, &binding, packet);
        if addressed != NONE {
            self.hold(addressed, &binding, bound.ok());
        }
        bound
    }

    /// The mapping that a packet came through is used by its session from now on; without one it
    /// may be idle again.
    #[cold]
    fn hold(&mut self, mapping: u32, binding: &Binding, bound: Option<Hit>) {
        // A hairpinned session has two mappings, its opener's and this one.
        let hairpinned = bound.filter(|_| binding.source != SourceNat::None);
        match hairpinned.and_then(|hit| self.sessions.get_mut(hit.session.0)) {
            Some(session) => session.flags |= HOLDS,
            None => self.release_mapping(mapping),
        }
    }

    /// Room for one session more of a client, if it may have one.
    fn make_room(&mut self, client: u8, binding: &Binding) -> Result<(), Refusal> {
        if self.sessions.is_full() || !self.session_quota.admits(client) {
            self.expire(RECLAIM);
        }
        let quota = &self.session_quota;
        let lacks_room = !quota.admits(client) && quota.is_below_ceiling(client);
        if self.sessions.is_full() || lacks_room && quota.largest() != client {
            self.let_go(client);
        }
        if !self.session_quota.admits(client) && !self.make_way(client, binding.owner(), None) {
            return Err(Refusal::Quota);
        }
        match self.sessions.is_full() {
            true => Err(Unbound::TableFull.into()),
            false => Ok(()),
        }
    }

    #[inline]
    fn bind_in_room(&mut self, client: u8, binding: &Binding, packet: &Packet) -> Result<Hit, Refusal> {
        if self.sessions.is_full() || !self.session_quota.admits(client) {
            self.make_room(client, binding)?;
        }
        let original = self.vacate(self.spot_for(&binding.original), &binding.original)?;
        let (source, mapping) = self.source(client, binding)?;
        let reply = Tuple::new(binding.original.protocol(), binding.destination, source);
        // Who speaks to itself: its two directions could not be told apart.
        let bound = match reply == binding.original {
            true => Err(Unbound::Conflict),
            false => {
                let session = self.session_to_be(client, binding, reply, mapping, packet);
                self.insert(session, original, &reply)
            }
        };
        match bound {
            Ok(id) => self.begin(id, packet),
            Err(_) => self.release_mapping(mapping),
        }
        Ok(bound.map(|id| Hit { session: SessionId(id), direction: Direction::Original })?)
    }

    /// Whether a packet may open a session though it begins nothing.
    pub fn may_pick_up(&self, packet: &Packet) -> bool {
        self.options.pickup && packet.tcp().is_some_and(|segment| segment.is_usual())
    }

    /// Makes sure that no session has a tuple, one that expired is removed; returns the spot for one
    /// that will have it, where the item or the spot was found.
    #[inline(always)]
    fn vacate(&mut self, found: Result<u32, Spot>, tuple: &Tuple) -> Result<Spot, Unbound> {
        match found {
            Ok(item) => self.vacate_of(SessionId(item >> 1), tuple),
            Err(spot) => Ok(spot),
        }
    }

    #[cold]
    fn vacate_of(&mut self, session: SessionId, tuple: &Tuple) -> Result<Spot, Unbound> {
        if !self.is_expired(session) {
            return Err(Unbound::Conflict);
        }
        self.remove(session);
        self.spot(tuple).err().ok_or(Unbound::Conflict)
    }

    fn session_to_be(
        &self,
        client: u8,
        binding: &Binding,
        reply: Tuple,
        mapping: u32,
        packet: &Packet,
    ) -> Session {
        let original = binding.original;
        let change = Translation::between(&original, reply.ends().inverted());
        let is_dnat = binding.destination != original.destination();
        let is_snat = binding.source != SourceNat::None;
        let mut session = Session {
            protocol: original.protocol(),
            class: self.options.class(&original),
            flags: if is_dnat { DNAT } else { 0 } | if is_snat { SNAT } else { 0 },
            changes: change.changes(),
            residue: binding.residue,
            mapping,
            syn_end: packet.tcp().map_or(0, |segment| segment.end()),
            history: match packet.tcp() {
                Some(segment) if !segment.opens() => History::PICKED_UP,
                _ => History::NEW,
            },
            client,
            ..Session::VACANT
        };
        session.set_ends(original.ends(), reply.ends());
        session.set_refreshed(self.inbound_refresh);
        session.classify();
        session.expires = self.lifetimes.end(session.class, self.wheel.present());
        session
    }

    /// Gives a session its place and its two keys.
    fn insert(&mut self, session: Session, original: Spot, reply: &Tuple) -> Result<u32, Unbound> {
        let id = self.sessions.insert(session).ok_or(Unbound::TableFull)?;
        let hash = original.hash();
        if self.index.insert_at(original, id << 1).is_none() {
            self.sessions.remove(id);
            return Err(Unbound::TableFull);
        }
        let indexed = self.vacate(self.spot(reply), reply).and_then(|spot| {
            let steps = self.index.insert_at(spot, id << 1 | 1);
            steps.map(|_| id).ok_or(Unbound::TableFull)
        });
        if indexed.is_err() {
            self.index.remove(hash, id << 1);
            self.sessions.remove(id);
        }
        indexed
    }

    /// A session that has its place gets its timer, and its share of what is counted.
    fn begin(&mut self, id: u32, packet: &Packet) {
        if let Some((segment, windows)) = packet.tcp().zip(self.windows.get_mut(id as usize)) {
            *windows = match segment.opens() {
                true => Windows::open(segment),
                false => Windows::pick_up(segment),
            };
        }
        self.wheel.link(&mut self.sessions, id);
        let session = self.sessions.get(id);
        self.expendable.set(id, session.is_expendable());
        self.session_quota.take(session.client);
        if session.mapping != NONE {
            self.contacts.add(session.mapping, session.peer());
            if session.is_snat() {
                self.mappings.own(session.mapping);
            }
        }
    }
}
