//! How a session begins.

use super::eviction::Wanted;
use super::lookup::Vain;
use super::source::Mapped;
use super::{Binding, Hit, Nat, Refusal, SourceNat, Unbound};
use crate::endpoint::{Direction, Tuple};
use crate::index::Spot;
use crate::packet::Packet;
use crate::session::{DNAT, HOLDS, NONE, SNAT, Session, SessionId};
use crate::tcp::{History, LastSyn};
use crate::translate::Translation;
use crate::window::Windows;

/// The timer's share of work when a new session finds no room, in sessions.
pub(super) const RECLAIM: usize = 64;

impl Nat {
    /// Begins a session with the packet that opens it, which is sure to leave.
    ///
    /// # Errors
    /// As [`Nat::bind_for`], where a quota is a full table.
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
    /// were never answered may be gone, and mappings at rest.
    pub fn bind_for(&mut self, client: u8, binding: Binding, packet: &Packet) -> Result<Hit, Refusal> {
        if !packet.opens() && !self.opens_unasked(packet) {
            return Err(Unbound::NotOpening.into());
        }
        if self.sessions.live() == 0 {
            self.wheel.start();
        }
        // The mapping that a packet came through stays, whoever has to go for it.
        let addressed = self.addressed(&binding);
        if addressed != NONE {
            self.sessions.acquire(addressed);
        }
        let bound = self.bind_in_room(client, &binding, packet);
        if addressed != NONE {
            self.hold(addressed, &binding, bound.ok());
        }
        bound
    }

    /// Whether a packet may open a session though it begins nothing, or has no ports.
    #[cold]
    fn opens_unasked(&self, packet: &Packet) -> bool {
        let is_other = packet.tuple().is_none() && packet.tuple_with(self.options.other_protocols).is_some();
        is_other || self.may_pick_up(packet)
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

    /// Whether every place is in use; one where a mapping rests is not.
    #[inline]
    fn is_full(&self) -> bool {
        self.sessions.is_full() && self.mappings.at_rest() == 0
    }

    /// A place for a session; if all are taken, the mapping that rests longest gives way.
    #[inline]
    fn take_place(&mut self) -> Option<u32> {
        if self.sessions.is_full() {
            self.end_oldest();
        }
        self.sessions.take()
    }

    #[cold]
    fn end_oldest(&mut self) {
        if let Some(oldest) = self.mappings.oldest_of_all(&self.sessions, self.wheel.present()) {
            self.end_resting(oldest);
        }
    }

    /// Room for one session more of a client, if it may have one.
    #[inline(never)]
    fn make_room(&mut self, client: u8, binding: &Binding) -> Result<(), Refusal> {
        if self.is_awaited(client, binding) {
            return Ok(());
        }
        if self.lacks_room(client) {
            self.expire(RECLAIM);
        }
        let quota = &self.session_quota;
        if self.is_full() || !quota.admits(client) && quota.is_below_ceiling(client) {
            self.let_go(client);
        }
        if self.is_full() {
            self.let_go_over(None, Wanted::Place);
        }
        if self.lacks_room(client) {
            self.make_way(client, binding.owner(), Wanted::Place);
        }
        if !self.session_quota.admits(client) {
            return Err(Refusal::Quota);
        }
        match self.is_full() {
            true => Err(Unbound::TableFull.into()),
            false => Ok(()),
        }
    }

    /// Whether there is no place, or the client may not have it.
    #[inline]
    fn lacks_room(&self, client: u8) -> bool {
        self.is_full() || !self.session_quota.admits(client)
    }

    #[inline]
    fn bind_in_room(&mut self, client: u8, binding: &Binding, packet: &Packet) -> Result<Hit, Refusal> {
        if self.lacks_room(client) {
            self.make_room(client, binding)?;
        }
        if !self.has_missed(&binding.original) {
            self.seek_in_vain(&binding.original)?;
        }
        let (source, mapped) = self.source(client, binding)?;
        let reply = Tuple::new(binding.original.protocol(), binding.destination, source);
        // Who speaks to itself: its two directions could not be told apart.
        let bound = match reply == binding.original {
            true => Err(Unbound::Conflict),
            false => self.place(client, binding, packet, &reply, mapped),
        };
        match bound {
            Ok(id) => self.begin(id, packet),
            Err(_) => self.give_back(client, reply.protocol(), source, mapped),
        }
        Ok(bound.map(|id| Hit { session: SessionId(id), direction: Direction::Original })?)
    }

    /// Whether a packet may open a session though it begins nothing.
    pub fn may_pick_up(&self, packet: &Packet) -> bool {
        self.options.pickup && packet.tcp().is_some_and(|segment| segment.is_usual())
    }

    /// Makes sure that no session has the tuple: one that has expired goes.
    #[cold]
    fn seek_in_vain(&mut self, tuple: &Tuple) -> Result<(), Unbound> {
        let vain = match self.seek(tuple) {
            Ok(item) => self.vacate(item, tuple)?,
            Err(vain) => vain,
        };
        self.missed = (*tuple, vain);
        Ok(())
    }

    /// The session of this item, which has the tuple, goes if it has expired: then none has it.
    #[cold]
    fn vacate(&mut self, item: u32, tuple: &Tuple) -> Result<Vain, Unbound> {
        let session = SessionId(item >> 1);
        if !self.is_expired(session) {
            return Err(Unbound::Conflict);
        }
        self.remove(session);
        self.seek(tuple).err().ok_or(Unbound::Conflict)
    }

    fn session_to_be(&self, client: u8, binding: &Binding, reply: &Tuple, packet: &Packet) -> Session {
        let original = binding.original;
        let change = Translation::between(&original, reply.ends().inverted());
        let is_dnat = binding.destination != original.destination();
        let is_snat = binding.source != SourceNat::None;
        let mut session = Session {
            protocol: original.protocol(),
            flags: if is_dnat { DNAT } else { 0 } | if is_snat { SNAT } else { 0 },
            changes: change.changes(),
            residue: binding.residue,
            last_syn: packet.tcp().map_or(LastSyn::NONE, |segment| LastSyn::of(segment, Direction::Original)),
            history: match packet.tcp() {
                Some(segment) if !segment.opens() => History::PICKED_UP,
                _ => History::NEW,
            },
            client,
            ..Session::VACANT
        };
        session.set_ends(original.ends(), reply.ends());
        session.set_refreshed(self.inbound_refresh);
        session.class = match packet.tcp() {
            Some(_) => session.history.class(),
            None => self.options.class(&original),
        };
        session.expires = self.lifetimes.end(session.class, self.wheel.present());
        session
    }

    /// Gives a session its place and its keys.
    fn place(
        &mut self,
        client: u8,
        binding: &Binding,
        packet: &Packet,
        reply: &Tuple,
        mapped: Mapped,
    ) -> Result<u32, Unbound> {
        let session = self.session_to_be(client, binding, reply, packet);
        self.is_crossed |= self.may_be_mapped(&binding.original);
        match mapped {
            Mapped::Anew => self.place_anew(session, reply),
            Mapped::By(mapping) => self.place_by(mapping, session, &binding.original, reply),
            Mapped::Not => self.place_alone(session, &binding.original, reply),
        }
    }

    /// A session that a new mapping lives with. Its port was free: nothing has the mapping's hash.
    #[inline(always)]
    fn place_anew(&mut self, mut session: Session, reply: &Tuple) -> Result<u32, Unbound> {
        if self.is_crossed {
            self.vacate_reply(reply)?;
        }
        session.begin_mapping();
        let id = self.place_at(session, self.missed.1.spot, self.external_hash(reply))?;
        self.mappings.begin();
        Ok(id)
    }

    /// A session that uses a mapping in force; the caller holds one use of it.
    fn place_by(
        &mut self,
        mapping: u32,
        mut session: Session,
        original: &Tuple,
        reply: &Tuple,
    ) -> Result<u32, Unbound> {
        let is_snat = session.is_snat();
        match is_snat && !self.is_crossed {
            true => self.vacate_reply_to(mapping, reply)?,
            false => self.vacate_reply(reply)?,
        }
        session.mapping = mapping;
        let host = self.sessions.get(mapping);
        if is_snat && !host.is_live() {
            session.take_mapping(host);
            self.place_with_mapping(mapping, session);
            return Ok(mapping);
        }
        let id = self.place_at(session, Spot::of(self.hash(original)), self.hash(reply))?;
        if is_snat {
            self.sessions.own(mapping);
        }
        Ok(id)
    }

    /// A session without a mapping.
    fn place_alone(&mut self, session: Session, original: &Tuple, reply: &Tuple) -> Result<u32, Unbound> {
        self.vacate_reply(reply)?;
        self.is_crossed |= self.may_be_mapped(reply);
        let id = self.place_at(session, Spot::of(self.hash(original)), self.hash(reply))?;
        self.unmapped += 1;
        Ok(id)
    }

    /// Makes sure that no session has the tuple of the answers to one that is to be.
    fn vacate_reply(&mut self, reply: &Tuple) -> Result<(), Unbound> {
        match self.seek(reply) {
            Ok(item) => self.vacate(item, reply).map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    /// The same for answers that go to a mapping: it is known where that is.
    fn vacate_reply_to(&mut self, mapping: u32, reply: &Tuple) -> Result<(), Unbound> {
        let answers = mapping << 1 | 1;
        let found = if self.is_it(answers, reply) { Some(answers) } else { self.seek_own(reply) };
        match found {
            Some(item) => self.vacate(item, reply).map(|_| ()),
            None => Ok(()),
        }
    }

    /// A session that is found at a spot in the original direction, and by a hash in the other.
    fn place_at(&mut self, session: Session, original: Spot, reply: u32) -> Result<u32, Unbound> {
        let (client, hash) = (session.client, original.hash());
        let id = self.take_place().ok_or(Unbound::TableFull)?;
        let is_placed = self.index.insert_at(original, id << 1) && self.index.insert(reply, id << 1 | 1);
        if !is_placed {
            self.index.remove(hash, id << 1);
            self.sessions.free(id);
            return Err(Unbound::TableFull);
        }
        self.sessions.begin(id, session);
        self.session_quota.take(client);
        Ok(id)
    }

    /// The session that a mapping lived with is over: another of the internal endpoint's takes its
    /// place.
    #[cold]
    fn place_with_mapping(&mut self, id: u32, session: Session) {
        let before = self.sessions.get(id);
        let (other, kind) = (before.client, self.ports.kind(session.protocol, before.external()));
        // Its client may be another one by now.
        self.session_quota.give(other);
        self.session_quota.take(session.client);
        if let Some(quota) = kind.and_then(|kind| self.mapping_quotas.get_mut(kind)) {
            quota.give(other);
            quota.take(session.client);
        }
        self.sessions.begin(id, session);
        // The index has not changed, but there is a session that may have been sought in vain.
        self.missed.1 = Vain::STALE;
    }

    /// A session that has its place gets its timer, and its share of what is counted.
    #[inline(never)]
    fn begin(&mut self, id: u32, packet: &Packet) {
        if let Some((segment, windows)) = packet.tcp().zip(self.windows.get_mut(id as usize)) {
            *windows = match segment.opens() {
                true => Windows::open(segment),
                false => Windows::pick_up(segment),
            };
        }
        self.wheel.link(&mut self.sessions, id);
        let session = self.sessions.get(id);
        // Nothing begins over.
        self.expendable.set(id, !session.is_assured());
        let mapping = session.mapping(id);
        if mapping != NONE {
            self.contacts.add(mapping, session.peer());
        }
    }
}
