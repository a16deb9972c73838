//! Endpoint-independent mappings (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1).
//!
//! One internal endpoint has one external endpoint at an external address, whatever its
//! destinations. A mapping lives as long as a session uses it.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::endpoint::Endpoint;
use crate::index::Index;
use crate::keyed::Key;
use crate::session::NONE;

/// An internal endpoint and what it looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub(crate) protocol: u8,
    pub(crate) internal: Endpoint,
    pub(crate) external: Endpoint,
}

struct Place {
    mapping: Mapping,
    /// Sessions that use it; a free place has none.
    sessions: u32,
    /// Of these, the ones that the internal endpoint opened or answered.
    own: u32,
    next_free: u32,
}

/// The mappings in force, found from either side.
pub(crate) struct Mappings {
    places: Vec<Place>,
    free: u32,
    live: u32,
    index: Index,
    key: Key,
}

/// The two keys of a mapping.
const INTERNAL: u32 = 0;
const EXTERNAL: u32 = 1;

fn bits(address: Ipv4Addr) -> u64 {
    u64::from(u32::from_ne_bytes(address.octets()))
}

impl Mappings {
    pub(crate) fn new(capacity: u32, key: Key) -> Self {
        let unused = Mapping {
            protocol: 0,
            internal: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
            external: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
        };
        let place = |next: u32| Place {
            mapping: unused,
            sessions: 0,
            own: 0,
            next_free: if next < capacity { next } else { NONE },
        };
        Self {
            places: (1..=capacity).map(place).collect(),
            free: if capacity > 0 { 0 } else { NONE },
            live: 0,
            index: Index::new(2 * capacity),
            key,
        }
    }

    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    fn internal_hash(&self, protocol: u8, internal: Endpoint, external: Ipv4Addr) -> u32 {
        let addresses = bits(internal.address) | bits(external) << 32;
        let rest = u64::from(internal.port) | u64::from(protocol) << 16 | 1 << 24;
        self.key.hash([addresses, rest])
    }

    fn external_hash(&self, protocol: u8, external: Endpoint) -> u32 {
        let rest = u64::from(external.port) | u64::from(protocol) << 16 | 2 << 24;
        self.key.hash([bits(external.address), rest])
    }

    fn at(&self, item: u32) -> Option<&Mapping> {
        let place = self.places.get((item >> 1) as usize);
        place.map(|place| &place.mapping)
    }

    /// The mapping of an internal endpoint at an external address.
    pub(crate) fn find(
        &self,
        protocol: u8,
        internal: Endpoint,
        external: Ipv4Addr,
    ) -> Option<(u32, Endpoint)> {
        let hash = self.internal_hash(protocol, internal, external);
        let item = self.index.find(hash, |item| {
            item & 1 == INTERNAL
                && self.at(item).is_some_and(|mapping| {
                    mapping.protocol == protocol
                        && mapping.internal == internal
                        && mapping.external.address == external
                })
        })?;
        Some((item >> 1, self.at(item)?.external))
    }

    /// The mapping that an external endpoint belongs to.
    pub(crate) fn at_external(&self, protocol: u8, external: Endpoint) -> Option<&Mapping> {
        self.at(self.id_at_external(protocol, external)? << 1)
    }

    /// The place of the mapping that an external endpoint belongs to.
    pub(crate) fn id_at_external(&self, protocol: u8, external: Endpoint) -> Option<u32> {
        let hash = self.external_hash(protocol, external);
        let item = self.index.find(hash, |item| {
            item & 1 == EXTERNAL
                && self
                    .at(item)
                    .is_some_and(|mapping| mapping.protocol == protocol && mapping.external == external)
        });
        item.map(|item| item >> 1)
    }

    /// Whether the internal endpoint opened or answered one of its sessions.
    pub(crate) fn is_owned(&self, id: u32) -> bool {
        self.places.get(id as usize).is_some_and(|place| place.own > 0)
    }

    /// The internal endpoint opened or answered one session more of it.
    pub(crate) fn own(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id as usize) {
            place.own += 1;
        }
    }

    /// One of those ended.
    pub(crate) fn disown(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id as usize) {
            place.own = place.own.saturating_sub(1);
        }
    }

    /// Takes in a new mapping that no session uses yet.
    pub(crate) fn insert(&mut self, mapping: Mapping) -> Option<u32> {
        let id = self.free;
        let internal = self.internal_hash(mapping.protocol, mapping.internal, mapping.external.address);
        let external = self.external_hash(mapping.protocol, mapping.external);
        let place = self.places.get_mut(id as usize)?;
        self.index.insert(internal, id << 1 | INTERNAL)?;
        if self.index.insert(external, id << 1 | EXTERNAL).is_none() {
            self.index.remove(internal, id << 1 | INTERNAL);
            return None;
        }
        self.free = place.next_free;
        place.mapping = mapping;
        (place.sessions, place.own) = (0, 0);
        self.live += 1;
        Some(id)
    }

    /// One more session uses it.
    pub(crate) fn acquire(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id as usize) {
            place.sessions += 1;
        }
    }

    /// One session less uses it. With the last one the mapping ends, and is returned so that its
    /// port can be given back.
    pub(crate) fn release(&mut self, id: u32) -> Option<Mapping> {
        let place = self.places.get_mut(id as usize)?;
        place.sessions = place.sessions.saturating_sub(1);
        if place.sessions > 0 {
            return None;
        }
        let mapping = place.mapping;
        place.next_free = self.free;
        self.free = id;
        self.live -= 1;
        let internal = self.internal_hash(mapping.protocol, mapping.internal, mapping.external.address);
        let external = self.external_hash(mapping.protocol, mapping.external);
        self.index.remove(internal, id << 1 | INTERNAL);
        self.index.remove(external, id << 1 | EXTERNAL);
        Some(mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn mapping(port: u16) -> Mapping {
        Mapping {
            protocol: 17,
            internal: Endpoint::new(Ipv4Addr::new(10, 0, 0, 7), port),
            external: Endpoint::new(EXTERNAL, port ^ 1),
        }
    }

    #[test]
    fn a_place_is_small() {
        assert_eq!(size_of::<Place>(), 28);
    }

    #[test]
    fn it_is_found_from_both_sides_until_its_last_session_ends() {
        let mut mappings = Mappings::new(2, Key::new([1, 2]));
        let one = mapping(5000);
        let id = mappings.insert(one).expect("room");
        mappings.acquire(id);
        mappings.acquire(id);
        for _ in 0..2 {
            let found = mappings.find(17, one.internal, EXTERNAL);
            assert_eq!(found, Some((id, one.external)));
            assert_eq!(mappings.at_external(17, one.external), Some(&one));
            assert_eq!(mappings.find(6, one.internal, EXTERNAL), None);
            assert_eq!(mappings.at_external(6, one.external), None);
            let ended = mappings.release(id);
            assert_eq!(ended.is_some(), mappings.live() == 0);
        }
        assert_eq!(mappings.find(17, one.internal, EXTERNAL), None);
        assert_eq!(mappings.at_external(17, one.external), None);
    }

    #[test]
    fn there_are_never_more_than_it_was_made_for() {
        let mut mappings = Mappings::new(2, Key::new([1, 2]));
        assert!(mappings.insert(mapping(1000)).is_some());
        assert!(mappings.insert(mapping(2000)).is_some());
        assert!(mappings.insert(mapping(3000)).is_none());
        assert_eq!(mappings.find(17, mapping(3000).internal, EXTERNAL), None);
    }
}
