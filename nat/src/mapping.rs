//! Endpoint-independent mappings (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1).
//!
//! One internal endpoint has one external endpoint at an external address, whatever its
//! destinations. A mapping lives as long as a session uses it. Then its port may rest: the mapping
//! stays for its internal endpoint to come back to, and no other gets the port meanwhile.

mod rest;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use crate::endpoint::Endpoint;
use crate::index::{Index, Spot};
use crate::keyed::Key;
use crate::session::NONE;

/// An internal endpoint and what it looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub(crate) protocol: u8,
    /// Whose it is.
    pub(crate) client: u8,
    pub(crate) internal: Endpoint,
    pub(crate) external: Endpoint,
}

struct Place {
    mapping: Mapping,
    /// Sessions that use it; at rest, the second in which its rest is over.
    sessions_or_rested: u32,
    /// Of these, the ones that the internal endpoint opened or answered; at rest, the neighbour
    /// that came to rest before, of the same kind of port.
    own_or_previous: u32,
    /// At rest, the neighbour that came later; a free place has the next free one.
    next: u32,
    /// The next one in the chain of its external endpoint.
    chained: u32,
    /// That kind; no list for one that does not rest.
    list: u16,
}

/// Not at rest.
const AWAKE: u16 = u16::MAX;

/// The resting mappings of one kind of port, in the order in which they came.
#[derive(Clone)]
struct List {
    oldest: u32,
    newest: u32,
}

/// The mappings in force, found from either side.
pub(crate) struct Mappings {
    places: Vec<Place>,
    free: u32,
    live: u32,
    resting: Vec<List>,
    /// By internal endpoint and external address.
    index: Index,
    /// By external endpoint: chains through the places. Ports are given at random or as the
    /// internal side has them, and chains have a keyed hash, so that none grows long.
    chains: Box<[u32]>,
    key: Key,
}

fn bits(address: Ipv4Addr) -> u64 {
    u64::from(u32::from_ne_bytes(address.octets()))
}

impl Mappings {
    /// For this many mappings, and this many kinds of ports to rest.
    pub(crate) fn new(capacity: u32, kinds: usize, key: Key) -> Self {
        let unused = Mapping {
            protocol: 0,
            client: 0,
            internal: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
            external: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
        };
        let place = |next: u32| Place {
            mapping: unused,
            sessions_or_rested: 0,
            own_or_previous: 0,
            next: if next < capacity { next } else { NONE },
            chained: NONE,
            list: AWAKE,
        };
        Self {
            places: (1..=capacity).map(place).collect(),
            free: if capacity > 0 { 0 } else { NONE },
            live: 0,
            resting: vec![List { oldest: NONE, newest: NONE }; kinds],
            index: Index::new(capacity),
            chains: vec![NONE; capacity as usize].into_boxed_slice(),
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

    /// The chain that a mapping with this external endpoint is in.
    fn chain(&self, protocol: u8, external: Endpoint) -> usize {
        let rest = u64::from(external.port) | u64::from(protocol) << 16 | 2 << 24;
        let hash = u64::from(self.key.hash([bits(external.address), rest]));
        ((hash * self.chains.len() as u64) >> 32) as usize
    }

    /// The mapping of an internal endpoint at an external address, of any port.
    pub(crate) fn find(
        &self,
        protocol: u8,
        internal: Endpoint,
        external: Ipv4Addr,
    ) -> Option<(u32, Endpoint)> {
        self.find_within(protocol, internal, external, &(0..=u16::MAX)).ok()
    }

    /// The mapping of an internal endpoint at an external address and a range of its ports; if
    /// there is none, the spot for one.
    pub(crate) fn find_within(
        &self,
        protocol: u8,
        internal: Endpoint,
        external: Ipv4Addr,
        ports: &RangeInclusive<u16>,
    ) -> Result<(u32, Endpoint), Spot> {
        let hash = self.internal_hash(protocol, internal, external);
        let mut endpoint = Endpoint::new(external, 0);
        let id = self.index.find_or_spot(hash, |id| {
            self.get(id).is_some_and(|mapping| {
                endpoint.port = mapping.external.port;
                mapping.protocol == protocol
                    && mapping.internal == internal
                    && mapping.external.address == external
                    && ports.contains(&mapping.external.port)
            })
        })?;
        Ok((id, endpoint))
    }

    /// The place of the mapping that an external endpoint belongs to.
    #[inline(never)]
    pub(crate) fn id_at_external(&self, protocol: u8, external: Endpoint) -> Option<u32> {
        let mut id = *self.chains.get(self.chain(protocol, external))?;
        while let Some(place) = self.places.get(id as usize) {
            if place.mapping.protocol == protocol && place.mapping.external == external {
                return Some(id);
            }
            id = place.chained;
        }
        None
    }

    /// Takes a mapping out of its chain.
    fn unchain(&mut self, id: u32, mapping: &Mapping) {
        let chain = self.chain(mapping.protocol, mapping.external);
        let next = self.places.get(id as usize).map_or(NONE, |place| place.chained);
        let Some(head) = self.chains.get_mut(chain) else {
            return;
        };
        let mut at = *head;
        if at == id {
            *head = next;
            return;
        }
        while let Some(place) = self.places.get_mut(at as usize) {
            if place.chained == id {
                place.chained = next;
                return;
            }
            at = place.chained;
        }
    }

    /// A mapping, whether it rests or not.
    pub(crate) fn get(&self, id: u32) -> Option<&Mapping> {
        self.places.get(id as usize).map(|place| &place.mapping)
    }

    /// It is this client's from now on.
    pub(crate) fn set_client(&mut self, id: u32, client: u8) {
        if let Some(place) = self.places.get_mut(id as usize) {
            place.mapping.client = client;
        }
    }

    fn awake(&self, id: u32) -> Option<&Place> {
        self.places.get(id as usize).filter(|place| place.list == AWAKE)
    }

    fn awake_mut(&mut self, id: u32) -> Option<&mut Place> {
        self.places.get_mut(id as usize).filter(|place| place.list == AWAKE)
    }

    /// A mapping that does not rest.
    pub(crate) fn in_use(&self, id: u32) -> Option<&Mapping> {
        self.awake(id).map(|place| &place.mapping)
    }

    /// Whether it ends with one session.
    pub(crate) fn has_one_session(&self, id: u32) -> bool {
        self.awake(id).is_some_and(|place| place.sessions_or_rested == 1)
    }

    /// Whether the internal endpoint opened or answered one of its sessions.
    pub(crate) fn is_owned(&self, id: u32) -> bool {
        self.awake(id).is_some_and(|place| place.own_or_previous > 0)
    }

    /// The internal endpoint opened or answered one session more of it.
    pub(crate) fn own(&mut self, id: u32) {
        if let Some(place) = self.awake_mut(id) {
            place.own_or_previous += 1;
        }
    }

    /// One of those ended.
    pub(crate) fn disown(&mut self, id: u32) {
        if let Some(place) = self.awake_mut(id) {
            place.own_or_previous = place.own_or_previous.saturating_sub(1);
        }
    }

    /// Takes in a new mapping, which one session uses, at the spot of its internal endpoint.
    pub(crate) fn insert(&mut self, mapping: Mapping, spot: Spot) -> Option<u32> {
        let id = self.free;
        let chain = self.chain(mapping.protocol, mapping.external);
        let (place, head) = self.places.get_mut(id as usize).zip(self.chains.get_mut(chain))?;
        self.index.insert_at(spot, id)?;
        self.free = place.next;
        let chained = core::mem::replace(head, id);
        let (sessions_or_rested, own_or_previous) = (1, 0);
        *place = Place { mapping, sessions_or_rested, own_or_previous, next: NONE, chained, list: AWAKE };
        self.live += 1;
        Some(id)
    }

    /// One more session uses it; it rests no longer.
    #[inline]
    pub(crate) fn acquire(&mut self, id: u32) {
        match self.places.get_mut(id as usize) {
            Some(place) if place.list == AWAKE => place.sessions_or_rested += 1,
            Some(_) => self.acquire_resting(id),
            None => {}
        }
    }

    #[cold]
    fn acquire_resting(&mut self, id: u32) {
        self.wake(id);
        if let Some(place) = self.places.get_mut(id as usize) {
            place.sessions_or_rested = 1;
        }
    }

    /// One session less uses it. With the last one it is idle, and returned so that it can be laid
    /// to rest or ended.
    pub(crate) fn release(&mut self, id: u32) -> Option<Mapping> {
        let place = self.awake_mut(id)?;
        place.sessions_or_rested = place.sessions_or_rested.saturating_sub(1);
        (place.sessions_or_rested == 0).then_some(place.mapping)
    }

    /// Ends an idle mapping.
    pub(crate) fn end(&mut self, id: u32) -> Option<Mapping> {
        self.wake(id);
        let place = self.places.get_mut(id as usize)?;
        let mapping = place.mapping;
        place.next = self.free;
        self.free = id;
        self.live -= 1;
        self.unchain(id, &mapping);
        let internal = self.internal_hash(mapping.protocol, mapping.internal, mapping.external.address);
        self.index.remove(internal, id);
        Some(mapping)
    }

    /// Whether no further mapping has a place.
    pub(crate) const fn is_full(&self) -> bool {
        self.free == NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn mapping(port: u16) -> Mapping {
        Mapping {
            protocol: 17,
            client: 0,
            internal: Endpoint::new(Ipv4Addr::new(10, 0, 0, 7), port),
            external: Endpoint::new(EXTERNAL, port ^ 1),
        }
    }

    fn insert(mappings: &mut Mappings, mapping: Mapping) -> Option<u32> {
        let Mapping { protocol, internal, external, .. } = mapping;
        let spot = mappings.find_within(protocol, internal, external.address, &(0..=u16::MAX)).err()?;
        mappings.insert(mapping, spot)
    }

    #[test]
    fn a_place_is_small() {
        assert_eq!(size_of::<Place>(), 32);
    }

    #[test]
    fn it_is_found_from_both_sides_until_its_last_session_ends() {
        let mut mappings = Mappings::new(2, 2, Key::new([1, 2]));
        let one = mapping(5000);
        let id = insert(&mut mappings, one).expect("room");
        mappings.acquire(id);
        for _ in 0..2 {
            let found = mappings.find(17, one.internal, EXTERNAL);
            assert_eq!(found, Some((id, one.external)));
            assert_eq!(mappings.id_at_external(17, one.external), Some(id));
            assert_eq!(mappings.find(6, one.internal, EXTERNAL), None);
            assert_eq!(mappings.id_at_external(6, one.external), None);
            if mappings.release(id).is_some() {
                assert_eq!(mappings.end(id), Some(one));
            }
        }
        assert_eq!(mappings.live(), 0);
        assert_eq!(mappings.find(17, one.internal, EXTERNAL), None);
        assert_eq!(mappings.id_at_external(17, one.external), None);
    }

    #[test]
    fn those_at_rest_are_in_order_and_wake() {
        let mut mappings = Mappings::new(3, 1, Key::new([1, 2]));
        let ids = [1000, 2000, 3000].map(|port| insert(&mut mappings, mapping(port)).expect("room"));
        for (id, until) in ids.into_iter().zip([10, 11, 12]) {
            mappings.release(id);
            mappings.rest(id, 0, until);
        }
        assert_eq!((mappings.live(), mappings.rested(0, 9), mappings.rested(0, 10)), (0, None, Some(ids[0])));
        mappings.acquire(ids[1]);
        assert_eq!(mappings.live(), 1);
        mappings.end(ids[0]);
        assert_eq!((mappings.oldest(0), mappings.oldest_of_all(0)), (Some(ids[2]), Some(ids[2])));
        assert_eq!(mappings.oldest_within(0, &(1..=2000)), None);
        mappings.end(ids[2]);
        assert_eq!((mappings.oldest(0), mappings.live()), (None, 1));
    }

    #[test]
    fn chains_stay_short_when_every_port_is_in_use() {
        let mut mappings = Mappings::new(65_536, 1, Key::new([0xfeed, 0xbeef]));
        for port in 0..=u16::MAX {
            assert!(insert(&mut mappings, mapping(port)).is_some());
        }
        let length = |&head: &u32| {
            let next = |&id: &u32| mappings.places.get(id as usize).map(|place| place.chained);
            core::iter::successors(Some(head), next).count() - 1
        };
        let lengths: Vec<_> = mappings.chains.iter().map(length).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 65_536);
        assert!(lengths.iter().all(|&length| length <= 12), "{:?}", lengths.iter().max());
    }

    #[test]
    fn whoever_leaves_a_chain_the_others_stay_in_it() {
        let mut mappings = Mappings::new(8, 1, Key::new([3, 4]));
        // One chain for all, so that every place in it comes up.
        mappings.chains = vec![NONE].into_boxed_slice();
        let ports = 1..=8;
        let ids: Vec<_> = ports.clone().filter_map(|port| insert(&mut mappings, mapping(port))).collect();
        let mut left: Vec<_> = ids.into_iter().zip(ports).collect();
        for gone in [3, 0, 5, 2, 3, 1, 0, 0] {
            let (id, port) = left.remove(gone);
            mappings.end(id);
            assert_eq!(mappings.id_at_external(17, mapping(port).external), None);
            for &(id, port) in &left {
                assert_eq!(mappings.id_at_external(17, mapping(port).external), Some(id));
            }
        }
    }

    #[test]
    fn there_are_never_more_than_it_was_made_for() {
        let mut mappings = Mappings::new(2, 2, Key::new([1, 2]));
        assert!(insert(&mut mappings, mapping(1000)).is_some());
        assert!(insert(&mut mappings, mapping(2000)).is_some());
        assert!(insert(&mut mappings, mapping(3000)).is_none());
        assert_eq!(mappings.find(17, mapping(3000).internal, EXTERNAL), None);
    }
}
