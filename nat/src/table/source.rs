//! The external endpoint of a session: its mapping, or a new one.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use super::bind::RECLAIM;
use super::eviction::Wanted;
use super::{Binding, Nat, Refusal, SourceNat, Unbound};
use crate::endpoint::{Endpoint, Tuple, protocol};
use crate::ports::Ports;
use crate::quota::Quota;
use crate::session::NONE;
use crate::timers::TIMEOUT_MAX;

/// All ports.
const ANY: RangeInclusive<u16> = 0..=u16::MAX;
/// Ports of a class that are looked at for one that rests, or that may be had.
const LOOK: usize = 64;

/// The mapping of a session to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mapped {
    /// It has none.
    Not,
    /// One that is in force; the caller holds one use of it.
    By(u32),
    /// A new one; the caller holds the port.
    Anew,
}

impl Nat {
    /// Whether the client's session would take a place that its mapping keeps.
    #[inline(never)]
    pub(super) fn is_awaited(&self, client: u8, binding: &Binding) -> bool {
        if self.sessions.vacated() == self.mappings.at_rest() {
            return false;
        }
        let Some((address, ports)) = binding.source.pool() else {
            return false;
        };
        let found = self.mapping_of(&binding.original, address, &ports.unwrap_or(ANY));
        let host = found.and_then(|id| self.sessions.awake(id));
        host.is_some_and(|host| !host.is_live() && host.client == client)
    }

    /// The source behind us, and its mapping; the tuple was sought in vain, which was taken note of.
    pub(super) fn source(&mut self, client: u8, binding: &Binding) -> Result<(Endpoint, Mapped), Refusal> {
        let (protocol, internal) = (binding.original.protocol(), binding.original.source());
        let Some((address, named)) = binding.source.pool() else {
            return Ok(match binding.source {
                SourceNat::Static(address) => (Endpoint::new(address, internal.port), Mapped::Not),
                _ => (internal, self.mapped_already(binding)),
            });
        };
        let place = self.ports.place(address).ok_or(Unbound::NotExternal)?;
        if !matches!(protocol, protocol::ICMP | protocol::TCP | protocol::UDP) {
            // Without ports the first client to a peer has the address; a second is a conflict.
            return Ok((Endpoint::new(address, 0), Mapped::Not));
        }
        if self.missed.1.is_mapped
            && let Some(mapping) =
                self.mapping_seen(&binding.original, address, named.as_ref().unwrap_or(&ANY))
        {
            return self.known(client, mapping);
        }
        let own = self.ports.class(protocol, internal.port);
        let port = match named {
            None => self.begin_mapping(client, binding, (address, place), &own, true),
            Some(named) => self.begin_mapping_within(client, binding, (address, place), &own, &named),
        };
        Ok((Endpoint::new(address, port?), Mapped::Anew))
    }

    /// The port of a new mapping among those that a rule names: one of the internal port's own class
    /// before others (RFC 4787 REQ-3 a).
    fn begin_mapping_within(
        &mut self,
        client: u8,
        binding: &Binding,
        at: (Ipv4Addr, usize),
        own: &RangeInclusive<u16>,
        named: &RangeInclusive<u16>,
    ) -> Result<u16, Refusal> {
        let mut refusal = Unbound::PortsExhausted.into();
        let other = self.ports.other_class(own);
        let classes = [Some(own), other.as_ref()];
        // Nobody loses a port for one of the other class.
        for (class, evicts) in
            [false, true].into_iter().flat_map(|evicts| classes.map(|class| (class, evicts)))
        {
            let Some(class) = class else { continue };
            let common = *class.start().max(named.start())..=*class.end().min(named.end());
            if common.is_empty() {
                continue;
            }
            match self.begin_mapping(client, binding, at, &common, evicts) {
                Ok(port) => return Ok(port),
                Err(refused) => refusal = refused,
            }
        }
        Err(refusal)
    }

    /// The port of a new mapping at an external address, which has this place: one of this class, on
    /// the client's account, and a session's that may go only if it `evicts`.
    #[inline]
    fn begin_mapping(
        &mut self,
        client: u8,
        binding: &Binding,
        (address, place): (Ipv4Addr, usize),
        class: &RangeInclusive<u16>,
        evicts: bool,
    ) -> Result<u16, Refusal> {
        let (protocol, internal) = (binding.original.protocol(), binding.original.source());
        let kind = Ports::kind_at(place, protocol, *class.start());
        self.share(client, internal, kind)?;
        let preferred = match binding.source {
            SourceNat::Random(..) => self.ports.draw(class),
            _ => internal.port,
        };
        let port = match self.port(class, kind, preferred) {
            Some(port) => port,
            None => {
                self.free_port(client, (protocol, internal.address), (address, kind), class, evicts);
                let allocation = self.ports.allocate_in(kind, class, preferred);
                allocation.map(|allocation| allocation.port).ok_or(Unbound::PortsExhausted)?
            }
        };
        self.count_mapping(kind, client, Quota::take);
        Ok(port)
    }

    /// The mapping that a packet came through, if any, is its session's.
    fn mapped_already(&mut self, binding: &Binding) -> Mapped {
        match self.addressed(binding) {
            NONE => Mapped::Not,
            mapping => {
                self.sessions.acquire(mapping);
                Mapped::By(mapping)
            }
        }
    }

    /// The mapping of an internal endpoint is used once more; if it rests, it is the client's from
    /// now on.
    fn known(&mut self, client: u8, mapping: u32) -> Result<(Endpoint, Mapped), Refusal> {
        let host = self.sessions.get(mapping);
        let external = host.external();
        if host.is_resting() {
            let (protocol, internal) = (host.mapped_protocol(), host.internal());
            if let Some(kind) = self.ports.kind(protocol, external) {
                self.share(client, internal, kind)?;
                self.count_mapping(kind, client, Quota::take);
            }
            self.session_quota.take(client);
            self.mappings.wake(&mut self.sessions, mapping);
            if let Some(host) = self.sessions.get_mut(mapping) {
                host.client = client;
            }
        }
        self.sessions.acquire(mapping);
        Ok((external, Mapped::By(mapping)))
    }

    /// No session came to be: what it held of its source is free again.
    #[cold]
    pub(super) fn give_back(&mut self, client: u8, protocol: u8, source: Endpoint, mapped: Mapped) {
        match mapped {
            Mapped::Not => {}
            Mapped::By(mapping) => self.release_mapping(mapping),
            Mapped::Anew => {
                if let Some(kind) = self.ports.kind(protocol, source) {
                    self.ports.release_in(kind, source.port);
                    self.count_mapping(kind, client, Quota::give);
                }
            }
        }
    }

    /// The mapping that a packet came through, from outside or hairpinned; none if it was no mapping's.
    #[inline]
    pub(super) fn addressed(&self, binding: &Binding) -> u32 {
        let (protocol, external) = (binding.original.protocol(), binding.original.destination());
        if external == binding.destination {
            return NONE;
        }
        let mapping = self.mapping_at(protocol, external).unwrap_or(NONE);
        match self.sessions.awake(mapping).is_some_and(|host| host.internal() == binding.destination) {
            true => mapping,
            false => NONE,
        }
    }

    /// Takes a mapping of a kind of port into its client's account, or out of it.
    fn count_mapping(&mut self, kind: usize, client: u8, count: fn(&mut Quota, u8)) {
        if let Some(quota) = self.mapping_quotas.get_mut(kind) {
            count(quota, client);
        }
    }

    /// An external port that is free by now.
    #[inline]
    fn port(&mut self, class: &RangeInclusive<u16>, kind: usize, preferred: u16) -> Option<u16> {
        // One more than may have come.
        for _ in 0..2 {
            let Some(rested) = self.mappings.rested(&self.sessions, kind, self.wheel.present()) else {
                break;
            };
            self.end_resting(rested);
        }
        self.ports.allocate_in(kind, class, preferred).map(|allocation| allocation.port)
    }

    /// Frees an external port of a class, of which none is free: that of the mapping that rests longest, or of any that
    /// rests among the class; or else, if it `evicts`, that of a session which may go.
    #[cold]
    fn free_port(
        &mut self,
        client: u8,
        (protocol, internal): (u8, Ipv4Addr),
        (address, kind): (Ipv4Addr, usize),
        class: &RangeInclusive<u16>,
        evicts: bool,
    ) {
        self.expire(RECLAIM);
        let any = self.ports.draw(class);
        let oldest = self.mappings.oldest_within(&self.sessions, kind, class);
        let mut over = None;
        let resting = oldest.or_else(|| {
            let mut from_any = (any..=*class.end()).chain(*class.start()..any).take(LOOK);
            from_any.find_map(|port| {
                let mapping = self.mapping_at(protocol, Endpoint::new(address, port))?;
                let session = self.sessions.get(mapping);
                if session.is_live() && self.sessions.has_one_session(mapping) {
                    over = over.or(session.is_over().then_some(mapping));
                }
                session.is_resting().then_some(mapping)
            })
        });
        let wanted = Wanted::Port(kind, class);
        match resting {
            Some(resting) => self.end_resting(resting),
            None if evicts => {
                let _ = over.is_some_and(|id| self.evict(id, wanted))
                    || self.let_go_over(None, wanted)
                    || self.make_way(client, internal, wanted);
            }
            None => {}
        }
    }

    /// One session less uses a mapping, which may be none.
    pub(super) fn release_mapping(&mut self, mapping: u32) {
        if self.sessions.release(mapping) {
            self.settle(mapping);
        }
    }

    /// An idle mapping is laid to rest, or ends.
    fn settle(&mut self, mapping: u32) {
        let host = self.sessions.get(mapping);
        let client = host.client;
        let kind = self.ports.kind(host.mapped_protocol(), host.external());
        self.session_quota.give(client);
        if let Some(kind) = kind {
            self.count_mapping(kind, client, Quota::give);
        }
        match (self.options.port_rest, kind) {
            (1.., Some(kind)) => {
                let now = self.wheel.present();
                let until = now.wrapping_add(self.options.port_rest.min(TIMEOUT_MAX));
                self.mappings.rest(&mut self.sessions, mapping, kind, until);
            }
            _ => self.end_idle(mapping, kind),
        }
    }

    /// Ends a mapping that rests.
    pub(super) fn end_resting(&mut self, mapping: u32) {
        let kind = self.mappings.wake(&mut self.sessions, mapping);
        self.end_idle(mapping, kind);
    }

    /// Ends a mapping that no session uses, and gives its port, of this kind, and its place back.
    fn end_idle(&mut self, mapping: u32, kind: Option<usize>) {
        let host = self.sessions.get(mapping);
        let external = host.external();
        let tuple = Tuple::new(host.mapped_protocol(), host.internal(), external);
        self.index.remove(self.internal_hash(&tuple), mapping << 1);
        self.index.remove(self.external_hash(&tuple), mapping << 1 | 1);
        self.mappings.end();
        self.sessions.free(mapping);
        if let Some(kind) = kind {
            self.ports.release_in(kind, external.port);
        }
    }
}
