//! The external endpoint of a session: its mapping, or a new one.

use core::ops::RangeInclusive;

use super::bind::RECLAIM;
use super::{Binding, Nat, Refusal, SourceNat, Unbound};
use crate::endpoint::{Endpoint, protocol};
use crate::mapping::Mapping;
use crate::ports::Ports;
use crate::quota::Quota;
use crate::session::NONE;
use crate::timers::TIMEOUT_MAX;

impl Nat {
    /// The source behind us, and its mapping with one use held by the caller.
    pub(super) fn source(&mut self, client: u8, binding: &Binding) -> Result<(Endpoint, u32), Refusal> {
        let (protocol, internal) = (binding.original.protocol(), binding.original.source());
        let (address, ports) = match binding.source {
            SourceNat::None => {
                let mapping = self.addressed(binding);
                self.mappings.acquire(mapping);
                return Ok((internal, mapping));
            }
            SourceNat::Static(address) => return Ok((Endpoint::new(address, internal.port), NONE)),
            SourceNat::Address(address) => (address, None),
            SourceNat::Range(address, first, last) => (address, Some(first..=last)),
            SourceNat::Random(address, ports) => (address, ports.map(|(first, last)| first..=last)),
        };
        if !matches!(protocol, protocol::ICMP | protocol::TCP | protocol::UDP) {
            // Without ports the first client to a peer has the address; a second is a conflict.
            return match self.ports.has(protocol::UDP, address) {
                true => Ok((Endpoint::new(address, 0), NONE)),
                false => Err(Unbound::NotExternal.into()),
            };
        }
        let place = self.ports.place(protocol, address).ok_or(Unbound::NotExternal)?;
        let any = 0..=u16::MAX;
        let among = ports.as_ref().unwrap_or(&any);
        let spot = match self.mappings.find_within(protocol, internal, address, among) {
            Ok((mapping, external)) => {
                if self.mappings.in_use(mapping).is_none() {
                    let kind = Ports::kind_at(place, protocol, external.port);
                    self.share(client, internal, kind)?;
                    self.mappings.set_client(mapping, client);
                    self.count_mapping(kind, client, Quota::take);
                }
                self.mappings.acquire(mapping);
                return Ok((external, mapping));
            }
            Err(spot) => spot,
        };
        let class = ports.unwrap_or_else(|| self.ports.class(protocol, internal.port));
        let kind = Ports::kind_at(place, protocol, *class.start());
        self.share(client, internal, kind)?;
        let preferred = match binding.source {
            SourceNat::Random(..) => self.ports.draw(&class),
            _ => internal.port,
        };
        let port = self.port(&class, kind, preferred).ok_or(Unbound::PortsExhausted)?;
        let external = Endpoint::new(address, port);
        if self.mappings.is_full()
            && let Some(oldest) = self.mappings.oldest_of_all(self.wheel.present())
        {
            self.end_mapping(oldest);
        }
        let mapping = self.mappings.insert(Mapping { protocol, client, internal, external }, spot);
        let Some(mapping) = mapping else {
            self.ports.release(protocol, external);
            return Err(Unbound::TableFull.into());
        };
        self.count_mapping(Ports::kind_at(place, protocol, port), client, Quota::take);
        Ok((external, mapping))
    }

    /// The mapping that a packet came through, from outside or hairpinned; none if it was no mapping's.
    #[inline]
    pub(super) fn addressed(&self, binding: &Binding) -> u32 {
        let (protocol, external) = (binding.original.protocol(), binding.original.destination());
        if external == binding.destination {
            return NONE;
        }
        let mapping = self.mappings.id_at_external(protocol, external);
        let in_use = mapping.and_then(|id| self.mappings.in_use(id));
        match in_use.is_some_and(|in_use| in_use.internal == binding.destination) {
            true => mapping.unwrap_or(NONE),
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
            let Some(rested) = self.mappings.rested(kind, self.wheel.present()) else {
                break;
            };
            self.end_mapping(rested);
        }
        let mut allocation = self.ports.allocate_in(kind, class, preferred);
        if allocation.is_none() {
            self.expire(RECLAIM);
            if let Some(oldest) = self.mappings.oldest_within(kind, class) {
                self.end_mapping(oldest);
            }
            allocation = self.ports.allocate_in(kind, class, preferred);
        }
        allocation.map(|allocation| allocation.port)
    }

    pub(super) fn release_mapping(&mut self, mapping: u32) {
        let Some(idle) = self.mappings.release(mapping) else {
            return;
        };
        let kind = self.ports.kind(idle.protocol, idle.external);
        if let Some(kind) = kind {
            self.count_mapping(kind, idle.client, Quota::give);
        }
        match (self.options.port_rest, kind) {
            (1.., Some(kind)) => {
                let now = self.wheel.present();
                let until = now.wrapping_add(self.options.port_rest.min(TIMEOUT_MAX));
                self.mappings.rest(mapping, kind, until);
            }
            _ => self.end_mapping(mapping),
        }
    }

    /// Ends a mapping that no session uses, and gives its port back.
    pub(super) fn end_mapping(&mut self, mapping: u32) {
        if let Some(ended) = self.mappings.end(mapping) {
            self.ports.release(ended.protocol, ended.external);
        }
    }
}
