//! Who is behind an external endpoint, and from whom it takes packets.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use super::Nat;
use crate::config::Filtering;
use crate::endpoint::{Endpoint, Tuple, protocol};

/// The bits that all external addresses have in common: what goes elsewhere belongs to no mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Externals {
    /// As in [`Tuple::addresses`], where the source's are nothing.
    mask: u64,
    bits: u64,
}

impl Externals {
    /// No tuple's.
    pub(super) const NONE: Self = Self { mask: 0, bits: u64::MAX };

    /// With one address more; an unspecified one is none.
    pub(super) fn with(self, &address: &Ipv4Addr) -> Self {
        let of = |address| {
            let nobody = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
            Tuple::new(0, nobody, Endpoint::new(address, 0)).addresses()
        };
        let (all, bits) = (of(Ipv4Addr::BROADCAST), of(address));
        match self {
            _ if address.is_unspecified() => self,
            Self { mask: 0, bits: u64::MAX } => Self { mask: all, bits },
            Self { mask, bits: others } => {
                let mask = mask & !(bits ^ others);
                Self { mask, bits: bits & mask }
            }
        }
    }

    /// Whether a packet with this tuple may go to an external address.
    #[inline]
    pub(super) const fn may_have_destination(self, tuple: &Tuple) -> bool {
        tuple.addresses() & self.mask == self.bits
    }
}

impl Nat {
    /// The place of the mapping that an external endpoint belongs to.
    #[inline(never)]
    pub(super) fn mapping_at(&self, protocol: u8, external: Endpoint) -> Option<u32> {
        let tuple = Tuple::new(protocol, Endpoint::new(Ipv4Addr::UNSPECIFIED, 0), external);
        let found = self.index.find(self.external_hash(&tuple), |item| {
            let host = self.sessions.get(item >> 1);
            host.hosts() && host.external() == external && host.mapped_protocol() == protocol
        });
        found.map(|item| item >> 1)
    }

    /// The place of the mapping that a tuple's source has at an external address, with one of these
    /// ports.
    pub(super) fn mapping_of(
        &self,
        tuple: &Tuple,
        external: Ipv4Addr,
        ports: &RangeInclusive<u16>,
    ) -> Option<u32> {
        let is_it = |item: u32| self.is_mapping_of(item >> 1, tuple, external, ports);
        self.index.find(self.internal_hash(tuple), is_it).map(|item| item >> 1)
    }

    /// The same for the tuple that was sought in vain: most often the search has seen it.
    pub(super) fn mapping_seen(
        &self,
        tuple: &Tuple,
        external: Ipv4Addr,
        ports: &RangeInclusive<u16>,
    ) -> Option<u32> {
        let seen = self.missed.1.mapping;
        match self.is_mapping_of(seen, tuple, external, ports) {
            true => Some(seen),
            false => self.mapping_of(tuple, external, ports),
        }
    }

    #[inline]
    fn is_mapping_of(
        &self,
        place: u32,
        tuple: &Tuple,
        external: Ipv4Addr,
        ports: &RangeInclusive<u16>,
    ) -> bool {
        let host = self.sessions.get(place);
        let found = host.external();
        host.maps(tuple.protocol(), tuple.source())
            && found.address == external
            && ports.contains(&found.port)
    }

    /// The internal endpoint behind an external one, if a mapping is in force.
    pub fn internal(&self, protocol: u8, external: Endpoint) -> Option<Endpoint> {
        let id = self.mapping_at(protocol, external)?;
        self.sessions.awake(id).map(|host| host.internal())
    }

    /// The external endpoint that an internal one has at an external address, if any.
    pub fn external(&self, protocol: u8, internal: Endpoint, external: Ipv4Addr) -> Option<Endpoint> {
        let tuple = Tuple::new(protocol, internal, Endpoint::new(external, 0));
        let awake = |item| self.sessions.awake(item >> 1).filter(|host| host.maps(protocol, internal));
        let at = |item| awake(item).map(|host| host.external()).filter(|found| found.address == external);
        let found = self.index.find(self.internal_hash(&tuple), |item| at(item).is_some());
        found.and_then(at)
    }

    /// The internal endpoint that a packet without a session is for, if the mapping at its
    /// destination takes packets from its source (RFC 4787 REQ-8).
    ///
    /// `tuple` is the packet's as it arrived. From inside everybody is let in: that is hairpinning
    /// (RFC 4787 REQ-9, RFC 5382 REQ-8), and the policy has the last word. An outsider finds only
    /// mappings whose internal endpoint itself sent something in a session that lives.
    pub fn inbound(&self, tuple: &Tuple, from_inside: bool) -> Option<Endpoint> {
        let (protocol, external) = (tuple.protocol(), tuple.destination());
        if !matches!(protocol, protocol::UDP | protocol::TCP) || !self.ports.has(protocol, external.address) {
            return None;
        }
        let mapping = self.mapping_at(protocol, external)?;
        let admits = from_inside
            || match self.options.filtering(protocol) {
                Filtering::AddressAndPortDependent => false,
                Filtering::AddressDependent => self.contacts.knows(mapping, tuple.source().address),
                Filtering::EndpointIndependent => true,
            };
        match admits && self.sessions.is_owned(mapping) {
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
}
