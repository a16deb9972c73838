//! The sessions in force, and how one begins and ends.
//!
//! A packet is looked up, then decided upon elsewhere, then admitted; or, if it opens something
//! and may, bound. Nothing changes before the packet is sure to leave.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use smoltcp::time::Instant;

use crate::config::{ClientQuota, Config, Filtering, Options, Timeouts};
use crate::contacts::Contacts;
use crate::endpoint::{Direction, Endpoint, Tuple, protocol};
use crate::icmp::Embedded;
use crate::index::{ITEMS_MAX, Index};
use crate::keyed::{Chance, Key};
use crate::mapping::{Mapping, Mappings};
use crate::packet::Packet;
use crate::ports::Ports;
use crate::quota::Quota;
use crate::session::{DNAT, NONE, REPLIED, SNAT, Session, SessionId, Slab};
use crate::tcp::{Connection, History, Refused};
use crate::timers::{TIMEOUT_MAX, Wheel, seconds};
use crate::translate::Translation;
use crate::window::Windows;

/// The session that a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The session.
    pub session: SessionId,
    /// The way the packet travels in it.
    pub direction: Direction,
}

/// What became of an admitted packet's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// It was the first packet in the reply direction: the session is established to the policy.
    pub first_reply: bool,
}

/// The source that a session's packets get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceNat {
    /// Their own.
    None,
    /// This external address, and a port of it.
    Address(Ipv4Addr),
    /// This external address, and a port of it from the first to the last given.
    Range(Ipv4Addr, u16, u16),
    /// This address and the same port: the address is the source's alone (1:1).
    Static(Ipv4Addr),
}

/// A session to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The opening packet's tuple, as it arrived.
    pub original: Tuple,
    /// Its destination behind us. For ICMP the port stays as it is.
    pub destination: Endpoint,
    /// Its source behind us.
    pub source: SourceNat,
    /// What the policy left to do, original and reply direction.
    pub residue: [u32; 2],
}

/// Why no session came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unbound {
    /// No external port of the class is free.
    PortsExhausted,
    /// No room for a session.
    TableFull,
    /// Another session has one of the two tuples.
    Conflict,
    /// The packet opens nothing.
    NotOpening,
    /// The address is not among the external ones.
    NotExternal,
}

/// Why no session of a client came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// The client has as much as it may have.
    Quota,
    /// Everybody would have been refused.
    Unbound(Unbound),
}

impl From<Unbound> for Refusal {
    fn from(unbound: Unbound) -> Self {
        Self::Unbound(unbound)
    }
}

/// How much is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Sessions, those included that ended within the last second or two.
    pub sessions: u32,
    /// Mappings.
    pub mappings: u32,
}

/// The translator.
pub struct Nat {
    pub(crate) sessions: Slab,
    /// Of TCP sessions, by their place.
    windows: Box<[Windows]>,
    /// Whose sessions they are, by their place.
    pub(crate) clients: Box<[u8]>,
    pub(crate) session_quota: Quota,
    /// By kind of port.
    pub(crate) mapping_quotas: Vec<Quota>,
    index: Index,
    key: Key,
    wheel: Wheel,
    pub(crate) mappings: Mappings,
    contacts: Contacts,
    pub(crate) ports: Ports,
    timeouts: Timeouts,
    inbound_refresh: bool,
    pub(crate) options: Options,
    /// The present second, as the last call told it, for ports to rest from.
    second: u32,
    /// Where a full table looks next for a session to let go of.
    pub(crate) hand: u32,
}

/// The timer's share of work when a new session finds no room, in sessions.
const RECLAIM: usize = 64;

impl Nat {
    /// Makes room for everything; this allocates, and nothing later does.
    ///
    /// `reserved` are external endpoints that are not to be given away, those of static forwards
    /// and of the appliance itself. `seed` is secret and new at every boot.
    pub fn new(config: &Config<'_>, reserved: &[(u8, Endpoint)], seed: [u64; 2]) -> Self {
        Self::with_options(config, reserved, seed, Options::default())
    }

    /// As [`Nat::new`], with what a site asked for.
    pub fn with_options(
        config: &Config<'_>,
        reserved: &[(u8, Endpoint)],
        seed: [u64; 2],
        options: Options,
    ) -> Self {
        let capacity = config.sessions.min(ITEMS_MAX / 2);
        let key = Key::new(seed);
        let chance = Chance::new(Key::new(seed.map(|word| word ^ 0x5057_4e54_5057_4e54)));
        let mut ports = Ports::new(config.external, &config.external_ports, chance);
        for &(protocol, endpoint) in reserved {
            ports.reserve(protocol, endpoint);
        }
        let quota = |pool, by: ClientQuota| Quota::new(pool, options.clients, by.floor, by.ceiling);
        let kinds = if options.clients == 0 { 0 } else { ports.kinds() };
        Self {
            clients: vec![0; capacity as usize].into_boxed_slice(),
            session_quota: quota(capacity, options.session_quota),
            mapping_quotas: (0..kinds)
                .map(|kind| quota(ports.pool_len(kind).min(capacity), options.mapping_quota))
                .collect(),
            sessions: Slab::new(capacity),
            windows: vec![Windows::default(); capacity as usize].into_boxed_slice(),
            index: Index::new(2 * capacity),
            key,
            wheel: Wheel::new(),
            mappings: Mappings::new(capacity, ports.kinds(), key),
            contacts: Contacts::new(if options.knows_contacts() { capacity } else { 0 }, key),
            ports,
            timeouts: config.timeouts,
            inbound_refresh: config.inbound_refresh,
            options,
            second: 0,
            hand: 0,
        }
    }

    #[inline]
    fn hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.words())
    }

    /// The session that has this tuple, whether it ended or not.
    #[inline]
    fn find(&self, tuple: &Tuple) -> Option<Hit> {
        let words = tuple.words();
        let item = self.index.find(self.key.hash(words), |item| {
            let session = self.sessions.get(item >> 1);
            session.tuple(direction(item)).words() == words
        })?;
        Some(Hit { session: SessionId(item >> 1), direction: direction(item) })
    }

    /// The session that a packet with this tuple belongs to; one that expired is none.
    #[inline]
    pub fn lookup(&self, tuple: &Tuple, now: Instant) -> Option<Hit> {
        self.find(tuple).filter(|hit| !self.is_expired(hit.session, seconds(now)))
    }

    /// The session that an ICMP error is about, in the direction in which the error travels.
    ///
    /// The error must go to whom the quoted packet came from (RFC 5508 REQ-4, CVE-2019-5598).
    pub fn lookup_error(
        &self,
        embedded: &Embedded,
        outer_destination: Ipv4Addr,
        now: Instant,
    ) -> Option<Hit> {
        match embedded.tuple.source.address == outer_destination {
            true => self.lookup(&embedded.tuple.inverted(), now),
            false => None,
        }
    }

    #[inline]
    pub(crate) fn is_expired(&self, id: SessionId, now: i64) -> bool {
        self.wheel.is_past(self.sessions.get(id.0).expires, now)
    }

    /// A session.
    #[inline]
    pub fn session(&self, id: SessionId) -> &Session {
        self.sessions.get(id.0)
    }

    /// All sessions, those included that ended within the last second or two.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter()
    }

    /// Seconds that a session has left, if nothing refreshes it.
    pub fn remaining(&self, id: SessionId, now: Instant) -> u32 {
        let (expires, now) = (self.sessions.get(id.0).expires, seconds(now));
        match self.wheel.is_past(expires, now) {
            true => 0,
            false => expires.wrapping_sub(now as u32),
        }
    }

    /// Sets what the policy left to do for packets of a direction.
    pub fn set_residue(&mut self, id: SessionId, direction: Direction, residue: u32) {
        if let Some(session) = self.sessions.get_mut(id.0) {
            session.residue[direction as usize] = residue;
        }
    }

    /// How packets of a direction are translated.
    #[inline]
    pub fn translation(&self, hit: Hit) -> Translation {
        let session = self.session(hit.session);
        // What leaves is the inverse of what comes back.
        let (arrives, returns) = match hit.direction {
            Direction::Original => (&session.original, &session.reply),
            Direction::Reply => (&session.reply, &session.original),
        };
        let (addresses, ports) = match hit.direction {
            Direction::Original => (session.addresses, session.ports),
            Direction::Reply => (session.addresses.reversed(), session.ports.reversed()),
        };
        Translation {
            source: returns.destination,
            destination: returns.source,
            addresses,
            ports,
            hides_source: arrives.source.address != returns.destination.address,
        }
    }

    /// The internal endpoint behind an external one, if a mapping is in force.
    pub fn internal(&self, protocol: u8, external: Endpoint) -> Option<Endpoint> {
        let id = self.mappings.id_at_external(protocol, external)?;
        self.mappings.in_use(id).map(|mapping| mapping.internal)
    }

    /// The external endpoint that an internal one has at an external address, if any.
    pub fn external(&self, protocol: u8, internal: Endpoint, external: Ipv4Addr) -> Option<Endpoint> {
        let found = self.mappings.find(protocol, internal, external);
        found.filter(|&(id, _)| self.mappings.in_use(id).is_some()).map(|(_, endpoint)| endpoint)
    }

    /// The internal endpoint that a packet without a session is for, if the mapping at its
    /// destination takes packets from its source (RFC 4787 REQ-8).
    ///
    /// `tuple` is the packet's as it arrived. From inside everybody is let in: that is hairpinning
    /// (RFC 4787 REQ-9, RFC 5382 REQ-8), and the policy has the last word. An outsider finds only
    /// mappings whose internal endpoint itself sent something in a session that lives.
    pub fn inbound(&self, tuple: &Tuple, from_inside: bool) -> Option<Endpoint> {
        let (protocol, external) = (tuple.protocol, tuple.destination);
        if !matches!(protocol, protocol::UDP | protocol::TCP) {
            return None;
        }
        let mapping = self.mappings.id_at_external(protocol, external)?;
        let admits = from_inside
            || match self.options.filtering(protocol) {
                Filtering::AddressAndPortDependent => false,
                Filtering::AddressDependent => self.contacts.knows(mapping, tuple.source.address),
                Filtering::EndpointIndependent => true,
            };
        match admits && self.mappings.is_owned(mapping) {
            true => self.internal(protocol, external),
            false => None,
        }
    }

    /// The external address of an internal one, always the same among the same (RFC 4787 REQ-2).
    pub fn paired(&self, internal: Ipv4Addr, external: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let hash = u64::from(self.key.hash([u64::from(u32::from(internal)), 4 << 32]));
        let at = (hash * external.len() as u64) >> 32;
        external.get(at as usize).copied()
    }

    /// Takes note of a packet that is sure to leave: what it means to TCP, and how long its
    /// session lives. An ICMP error means nothing (RFC 4787 REQ-12, RFC 5382 REQ-10).
    ///
    /// # Errors
    /// [`Refused`], and nothing is changed: the packet is to be dropped.
    #[inline]
    pub fn admit(&mut self, hit: Hit, packet: &Packet, now: Instant) -> Result<Admitted, Refused> {
        let nothing = Admitted { first_reply: false };
        let Some(session) = self.sessions.get_mut(hit.session.0) else {
            return Ok(nothing);
        };
        if packet.embedded().is_some() {
            return Ok(nothing);
        }
        let is_reply = hit.direction == Direction::Reply;
        let first_reply = is_reply && !session.has_reply();
        let before = session.expires;
        if let Some(segment) = packet.tcp() {
            let Some(windows) = self.windows.get_mut(hit.session.0 as usize) else {
                return Ok(nothing);
            };
            let Session { history, syn_end, .. } = session;
            if !(Connection { history, syn_end, windows, judges: self.options.tcp_windows })
                .take(segment, hit.direction)?
            {
                return Ok(nothing);
            }
        } else if hit.direction != session.outbound() && !first_reply && !self.inbound_refresh {
            // RFC 4787 REQ-6: an outsider cannot keep a session alive.
            return Ok(nothing);
        }
        if first_reply {
            session.flags |= REPLIED;
            if !session.is_snat() {
                // Its mapping is the internal endpoint's, which answers.
                self.mappings.own(session.mapping);
            }
        }
        session.expires = self.timeouts.end(session, seconds(now));
        // An end that comes later is found when the slot comes up; a nearer one is not.
        if (session.expires.wrapping_sub(before) as i32) < 0 {
            self.wheel.unlink(&mut self.sessions, hit.session.0);
            self.wheel.link(&mut self.sessions, hit.session.0);
        }
        Ok(Admitted { first_reply })
    }

    /// Begins a session with the packet that opens it, which is sure to leave.
    ///
    /// # Errors
    /// [`Unbound`], and nothing is changed but that sessions which had expired may be gone.
    pub fn bind(&mut self, binding: Binding, packet: &Packet, now: Instant) -> Result<Hit, Unbound> {
        self.bind_for(0, binding, packet, now).map_err(|refusal| match refusal {
            Refusal::Quota => Unbound::TableFull,
            Refusal::Unbound(unbound) => unbound,
        })
    }

    /// As [`Nat::bind`], on account of a client, a number below [`Options::clients`].
    ///
    /// # Errors
    /// [`Refusal`], and nothing is changed but that sessions which had expired, were closed, or
    /// were never answered may be gone.
    pub fn bind_for(
        &mut self,
        client: u8,
        binding: Binding,
        packet: &Packet,
        now: Instant,
    ) -> Result<Hit, Refusal> {
        let is_other = packet.tuple().is_none() && packet.tuple_with(self.options.other_protocols).is_some();
        if !packet.opens() && !is_other && !self.may_pick_up(packet) {
            return Err(Unbound::NotOpening.into());
        }
        let second = seconds(now);
        self.second = second as u32;
        if self.sessions.live() == 0 {
            self.wheel.start(second);
        }
        if self.sessions.is_full() || !self.session_quota.admits(client) {
            self.expire(now, RECLAIM);
        }
        let quota = &self.session_quota;
        let lacks_room = !quota.admits(client) && quota.is_below_ceiling(client);
        if self.sessions.is_full() || lacks_room && quota.largest() != client {
            self.let_go(client, second);
        }
        let sender = binding.original.source.address;
        if !self.session_quota.admits(client) && !self.make_way(client, sender, None) {
            return Err(Refusal::Quota);
        }
        if self.sessions.is_full() {
            return Err(Unbound::TableFull.into());
        }
        self.vacate(&binding.original, second)?;
        let (source, mapping) = self.source(client, &binding, now)?;
        let reply =
            Tuple { protocol: binding.original.protocol, source: binding.destination, destination: source };
        let session = self.session_to_be(&binding, reply, mapping, packet, second);
        let bound = match self.vacate(&reply, second) {
            // Somebody who speaks to itself: its two directions could not be told apart.
            Ok(()) if reply == binding.original => Err(Unbound::Conflict),
            Ok(()) => self.insert(client, session, packet),
            Err(unbound) => Err(unbound),
        };
        // The mapping is used by now, or goes again.
        self.release_mapping(mapping, second as u32);
        Ok(bound?)
    }

    /// Whether a packet may open a session though it begins nothing.
    pub fn may_pick_up(&self, packet: &Packet) -> bool {
        self.options.pickup && packet.tcp().is_some_and(|segment| segment.is_usual())
    }

    pub(crate) fn client(&self, id: u32) -> u8 {
        self.clients.get(id as usize).copied().unwrap_or(0)
    }

    /// Makes sure that no session has this tuple; one that expired is removed.
    fn vacate(&mut self, tuple: &Tuple, now: i64) -> Result<(), Unbound> {
        match self.find(tuple) {
            Some(hit) if self.is_expired(hit.session, now) => self.remove(hit.session),
            Some(_) => return Err(Unbound::Conflict),
            None => {}
        }
        Ok(())
    }

    /// The source behind us, and its mapping with one use held by the caller.
    fn source(&mut self, client: u8, binding: &Binding, now: Instant) -> Result<(Endpoint, u32), Refusal> {
        let (protocol, internal) = (binding.original.protocol, binding.original.source);
        let (address, ports) = match binding.source {
            SourceNat::None => {
                let mapping = self.addressed(binding);
                self.mappings.acquire(mapping);
                return Ok((internal, mapping));
            }
            SourceNat::Static(address) => return Ok((Endpoint::new(address, internal.port), NONE)),
            SourceNat::Address(address) => (address, None),
            SourceNat::Range(address, first, last) => (address, Some(first..=last)),
        };
        if !matches!(protocol, protocol::ICMP | protocol::TCP | protocol::UDP) {
            // Without ports the first client to a peer has the address; a second is a conflict.
            return match self.ports.has(protocol::UDP, address) {
                true => Ok((Endpoint::new(address, 0), NONE)),
                false => Err(Unbound::NotExternal.into()),
            };
        }
        let any = 0..=u16::MAX;
        let among = ports.as_ref().unwrap_or(&any);
        if let Some((mapping, external)) = self.mappings.find_within(protocol, internal, address, among) {
            if self.mappings.in_use(mapping).is_none() {
                self.share(client, protocol, internal, external)?;
                self.mappings.set_client(mapping, client);
                self.count_mapping(mapping, Quota::take);
            }
            self.mappings.acquire(mapping);
            return Ok((external, mapping));
        }
        if !self.ports.has(protocol, address) {
            return Err(Unbound::NotExternal.into());
        }
        let class = ports.unwrap_or_else(|| self.ports.class(protocol, internal.port));
        self.share(client, protocol, internal, Endpoint::new(address, *class.start()))?;
        let external = self.port(&class, protocol, address, internal.port, now);
        let external = external.ok_or(Unbound::PortsExhausted)?;
        if self.mappings.is_full()
            && let Some(oldest) = self.mappings.oldest_of_all(seconds(now) as u32)
        {
            self.end_mapping(oldest);
        }
        let mapping = self.mappings.insert(Mapping { protocol, client, internal, external });
        let Some(mapping) = mapping else {
            self.ports.release(protocol, external);
            return Err(Unbound::TableFull.into());
        };
        self.count_mapping(mapping, Quota::take);
        self.mappings.acquire(mapping);
        Ok((external, mapping))
    }

    /// The mapping that a packet from outside came through; none if it was no mapping's.
    fn addressed(&self, binding: &Binding) -> u32 {
        let (protocol, external) = (binding.original.protocol, binding.original.destination);
        if external == binding.destination {
            return NONE;
        }
        match self.mappings.id_at_external(protocol, external) {
            Some(mapping) if self.internal(protocol, external) == Some(binding.destination) => mapping,
            _ => NONE,
        }
    }

    fn session_to_be(
        &self,
        binding: &Binding,
        reply: Tuple,
        mapping: u32,
        packet: &Packet,
        now: i64,
    ) -> Session {
        let original = binding.original;
        let change = Translation::new(&original, reply.destination, reply.source);
        let is_dnat = binding.destination != original.destination;
        let is_snat = binding.source != SourceNat::None;
        let mut session = Session {
            original,
            reply,
            flags: if is_dnat { DNAT } else { 0 } | if is_snat { SNAT } else { 0 },
            addresses: change.addresses,
            ports: change.ports,
            residue: binding.residue,
            mapping,
            syn_end: packet.tcp().map_or(0, |segment| segment.end()),
            history: match packet.tcp() {
                Some(segment) if !segment.opens() => History::PICKED_UP,
                _ => History::NEW,
            },
            ..Session::VACANT
        };
        session.expires = self.timeouts.end(&session, now);
        session
    }

    /// Gives a session its place, its two keys, its timer and its use of the mapping.
    fn insert(&mut self, client: u8, session: Session, packet: &Packet) -> Result<Hit, Unbound> {
        let (original, reply) = (self.hash(&session.original), self.hash(&session.reply));
        let mapping = session.mapping;
        let id = self.sessions.insert(session).ok_or(Unbound::TableFull)?;
        let indexed = self.index.insert(original, id << 1).and_then(|_| {
            let second = self.index.insert(reply, id << 1 | 1);
            if second.is_none() {
                self.index.remove(original, id << 1);
            }
            second
        });
        if indexed.is_none() {
            self.sessions.remove(id);
            return Err(Unbound::TableFull);
        }
        if let Some((segment, windows)) = packet.tcp().zip(self.windows.get_mut(id as usize)) {
            *windows = match segment.opens() {
                true => Windows::open(segment),
                false => Windows::pick_up(segment),
            };
        }
        if let Some(place) = self.clients.get_mut(id as usize) {
            *place = client;
        }
        self.session_quota.take(client);
        self.wheel.link(&mut self.sessions, id);
        self.mappings.acquire(mapping);
        let session = self.sessions.get(id);
        if mapping != NONE {
            self.contacts.add(mapping, session.peer());
            if session.is_snat() {
                self.mappings.own(mapping);
            }
        }
        Ok(Hit { session: SessionId(id), direction: Direction::Original })
    }

    /// Takes a mapping into its client's account, or out of it.
    fn count_mapping(&mut self, id: u32, count: fn(&mut Quota, u8)) {
        let Some(mapping) = self.mappings.get(id) else {
            return;
        };
        let kind = self.ports.kind(mapping.protocol, mapping.external);
        if let Some(quota) = kind.and_then(|kind| self.mapping_quotas.get_mut(kind)) {
            count(quota, mapping.client);
        }
    }

    /// An external port that is free by now, or whose rest has to be short.
    fn port(
        &mut self,
        class: &RangeInclusive<u16>,
        protocol: u8,
        address: Ipv4Addr,
        preferred: u16,
        now: Instant,
    ) -> Option<Endpoint> {
        let kind = self.ports.kind(protocol, Endpoint::new(address, *class.start()))?;
        // One more than may have come.
        for _ in 0..2 {
            if let Some(rested) = self.mappings.rested(kind, seconds(now) as u32) {
                self.end_mapping(rested);
            }
        }
        let mut allocation = self.ports.allocate_in(class, protocol, address, preferred);
        if allocation.is_none() {
            self.expire(now, RECLAIM);
            if let Some(oldest) = self.mappings.oldest_within(kind, class) {
                self.end_mapping(oldest);
            }
            allocation = self.ports.allocate_in(class, protocol, address, preferred);
        }
        allocation.map(|allocation| Endpoint::new(address, allocation.port))
    }

    fn release_mapping(&mut self, mapping: u32, now: u32) {
        let Some(idle) = self.mappings.release(mapping) else {
            return;
        };
        self.count_mapping(mapping, Quota::give);
        match (self.options.port_rest, self.ports.kind(idle.protocol, idle.external)) {
            (1.., Some(kind)) => {
                let until = now.wrapping_add(self.options.port_rest.min(TIMEOUT_MAX));
                self.mappings.rest(mapping, kind, until);
            }
            _ => self.end_mapping(mapping),
        }
    }

    /// Ends a mapping that no session uses, and gives its port back.
    fn end_mapping(&mut self, mapping: u32) {
        if let Some(ended) = self.mappings.end(mapping) {
            self.ports.release(ended.protocol, ended.external);
        }
    }

    /// Ends a session, and with the last one of its mapping the mapping.
    pub fn remove(&mut self, id: SessionId) {
        let session = self.sessions.get(id.0);
        if !session.is_live() {
            return;
        }
        let (original, reply) = (self.hash(&session.original), self.hash(&session.reply));
        let (mapping, peer) = (session.mapping, session.peer());
        if mapping != NONE {
            if session.is_snat() || session.has_reply() {
                self.mappings.disown(mapping);
            }
            self.contacts.remove(mapping, peer);
        }
        self.wheel.unlink(&mut self.sessions, id.0);
        self.index.remove(original, id.0 << 1);
        self.index.remove(reply, id.0 << 1 | 1);
        self.sessions.remove(id.0);
        self.session_quota.give(self.client(id.0));
        self.release_mapping(mapping, self.second);
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
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let now = seconds(now);
        self.second = now as u32;
        let mut ended = 0;
        for _ in 0..budget {
            let Some(id) = self.wheel.pop(&mut self.sessions, now) else {
                break;
            };
            if self.is_expired(SessionId(id), now) {
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

    /// How much is in use.
    pub const fn counts(&self) -> Counts {
        Counts { sessions: self.sessions.live(), mappings: self.mappings.live() }
    }
}

/// The direction whose tuple an index item stands for.
#[inline]
const fn direction(item: u32) -> Direction {
    match item & 1 {
        0 => Direction::Original,
        _ => Direction::Reply,
    }
}

impl Timeouts {
    /// The first second in which a session that was refreshed now is no more: one more than the
    /// timeout, as the present second is not whole.
    #[inline]
    fn end(&self, session: &Session, now: i64) -> u32 {
        let timeout = match session.original.protocol {
            protocol::UDP => self.udp,
            protocol::TCP if session.history.is_established() => self.tcp_established,
            protocol::TCP => self.tcp_transitory,
            protocol::ICMP => self.icmp,
            _ => self.other,
        };
        (now as u32).wrapping_add(timeout.min(TIMEOUT_MAX) + 1)
    }
}
