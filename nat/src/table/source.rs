//! The external endpoint of a session: its mapping, or a new one.

use core::ops::RangeInclusive;

use super::bind::RECLAIM;
use super::lookup::Vain;
use super::{Binding, Nat, Refusal, SourceNat, Unbound};
use crate::endpoint::{Endpoint, Tuple, protocol};
use crate::index::Spot;
use crate::ports::Ports;
use crate::quota::Quota;
use crate::session::NONE;
use crate::timers::TIMEOUT_MAX;

/// The mapping of a session to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mapped {
    /// It has none.
    Not,
    /// One that is in force; the caller holds one use of it.
    By(u32),
    /// A new one, to be found at this spot; the caller holds the port.
    Anew(Spot),
}

impl Nat {
    /// Whether the client's session would take a place that its mapping keeps.
    #[inline(never)]
    pub(super) fn is_awaited(&self, client: u8, binding: &Binding) -> bool {
        let (address, first, last) = match binding.source {
            _ if self.sessions.vacated() == self.mappings.at_rest() => return false,
            SourceNat::None | SourceNat::Static(_) => return false,
            SourceNat::Address(address) | SourceNat::Random(address, None) => (address, 0, u16::MAX),
            SourceNat::Range(address, first, last) | SourceNat::Random(address, Some((first, last))) => {
                (address, first, last)
            }
        };
        let found = self.mapping_of(&binding.original, address, &(first..=last));
        let host = found.and_then(|id| self.sessions.awake(id));
        host.is_some_and(|host| !host.is_live() && host.client == client)
    }

    /// The source behind us, and its mapping; the tuple was sought in vain.
    pub(super) fn source(
        &mut self,
        client: u8,
        binding: &Binding,
        vain: &Vain,
    ) -> Result<(Endpoint, Mapped), Refusal> {
        let (protocol, internal) = (binding.original.protocol(), binding.original.source());
        let (address, ports) = match binding.source {
            SourceNat::None => return Ok((internal, self.mapped_already(binding))),
            SourceNat::Static(address) => return Ok((Endpoint::new(address, internal.port), Mapped::Not)),
            SourceNat::Address(address) => (address, None),
            SourceNat::Range(address, first, last) => (address, Some(first..=last)),
            SourceNat::Random(address, ports) => (address, ports.map(|(first, last)| first..=last)),
        };
        if !matches!(protocol, protocol::ICMP | protocol::TCP | protocol::UDP) {
            // Without ports the first client to a peer has the address; a second is a conflict.
            return match self.ports.has(protocol::UDP, address) {
                true => Ok((Endpoint::new(address, 0), Mapped::Not)),
                false => Err(Unbound::NotExternal.into()),
            };
        }
        let place = self.ports.place(protocol, address).ok_or(Unbound::NotExternal)?;
        let any = 0..=u16::MAX;
        let among = ports.as_ref().unwrap_or(&any);
        if vain.is_mapped
            && let Some(mapping) = self.mapping_of(&binding.original, address, among)
        {
            return self.known(client, mapping);
        }
        let class = ports.unwrap_or_else(|| self.ports.class(protocol, internal.port));
        let kind = Ports::kind_at(place, protocol, *class.start());
        self.share(client, internal, kind)?;
        let preferred = match binding.source {
            SourceNat::Random(..) => self.ports.draw(&class),
            _ => internal.port,
        };
        let port = self.port(&class, kind, preferred).ok_or(Unbound::PortsExhausted)?;
        self.count_mapping(Ports::kind_at(place, protocol, port), client, Quota::take);
        Ok((Endpoint::new(address, port), Mapped::Anew(vain.spot)))
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
            Mapped::Anew(_) => {
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

    /// An external port that is free by now, or whose rest has to be short.
    fn port(&mut self, class: &RangeInclusive<u16>, kind: usize, preferred: u16) -> Option<u16> {
        // One more than may have come.
        for _ in 0..2 {
            let Some(rested) = self.mappings.rested(&self.sessions, kind, self.wheel.present()) else {
                break;
            };
            self.end_resting(rested);
        }
        let mut allocation = self.ports.allocate_in(kind, class, preferred);
        if allocation.is_none() {
            self.expire(RECLAIM);
            if let Some(oldest) = self.mappings.oldest_within(&self.sessions, kind, class) {
                self.end_resting(oldest);
            }
            allocation = self.ports.allocate_in(kind, class, preferred);
        }
        allocation.map(|allocation| allocation.port)
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
