//! Whom a mapping's sessions talk to, for address-dependent filtering (RFC 4787 5).
//!
//! One entry for each pair of mapping and peer address, with the number of its sessions.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::index::Index;
use crate::keyed::Key;
use crate::session::NONE;

#[derive(Clone)]
struct Contact {
    mapping: u32,
    peer: Ipv4Addr,
    /// A free place has none.
    sessions: u32,
    next_free: u32,
}

/// The pairs in force.
pub(crate) struct Contacts {
    places: Vec<Contact>,
    free: u32,
    index: Index,
    key: Key,
}

impl Contacts {
    /// Octets that [`Contacts::new`] allocates.
    pub(crate) const fn footprint(capacity: u32) -> usize {
        capacity as usize * size_of::<Contact>() + Index::footprint(capacity)
    }

    /// With a capacity of 0 nothing is kept, and nobody is known.
    pub(crate) fn new(capacity: u32, key: Key) -> Self {
        let place = |next| Contact {
            mapping: NONE,
            peer: Ipv4Addr::UNSPECIFIED,
            sessions: 0,
            next_free: if next < capacity { next } else { NONE },
        };
        Self {
            places: (1..=capacity).map(place).collect(),
            free: if capacity > 0 { 0 } else { NONE },
            index: Index::new(capacity),
            key,
        }
    }

    fn hash(&self, mapping: u32, peer: Ipv4Addr) -> u32 {
        self.key.hash([u64::from(mapping), u64::from(u32::from(peer)) | 3 << 32])
    }

    fn find(&self, mapping: u32, peer: Ipv4Addr) -> Option<u32> {
        self.index.find(self.hash(mapping, peer), |item| {
            let place = self.places.get(item as usize);
            place.is_some_and(|place| place.mapping == mapping && place.peer == peer)
        })
    }

    /// Whether a session of the mapping talks to this address.
    pub(crate) fn knows(&self, mapping: u32, peer: Ipv4Addr) -> bool {
        self.find(mapping, peer).is_some()
    }

    /// A session of the mapping begins.
    #[inline]
    pub(crate) fn add(&mut self, mapping: u32, peer: Ipv4Addr) {
        if !self.places.is_empty() {
            self.add_known(mapping, peer);
        }
    }

    #[inline(never)]
    fn add_known(&mut self, mapping: u32, peer: Ipv4Addr) {
        let found = self.find(mapping, peer);
        let id = found.unwrap_or(self.free);
        let hash = self.hash(mapping, peer);
        let Some(place) = self.places.get_mut(id as usize) else {
            return;
        };
        if found.is_none() {
            if !self.index.insert(hash, id) {
                return;
            }
            self.free = place.next_free;
            *place = Contact { mapping, peer, sessions: 0, next_free: NONE };
        }
        place.sessions += 1;
    }

    /// A session of the mapping ends.
    #[inline]
    pub(crate) fn remove(&mut self, mapping: u32, peer: Ipv4Addr) {
        if !self.places.is_empty() {
            self.remove_known(mapping, peer);
        }
    }

    #[inline(never)]
    fn remove_known(&mut self, mapping: u32, peer: Ipv4Addr) {
        let Some(id) = self.find(mapping, peer) else {
            return;
        };
        let hash = self.hash(mapping, peer);
        let Some(place) = self.places.get_mut(id as usize) else {
            return;
        };
        place.sessions = place.sessions.saturating_sub(1);
        if place.sessions == 0 {
            *place = Contact { mapping: NONE, peer, sessions: 0, next_free: self.free };
            self.free = id;
            self.index.remove(hash, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_known_until_its_last_session_ends() {
        let mut contacts = Contacts::new(2, Key::new([1, 2]));
        let peer = Ipv4Addr::new(192, 0, 2, 1);
        contacts.add(7, peer);
        contacts.add(7, peer);
        assert!(contacts.knows(7, peer) && !contacts.knows(8, peer));
        contacts.remove(7, peer);
        assert!(contacts.knows(7, peer));
        contacts.remove(7, peer);
        assert!(!contacts.knows(7, peer));
        let mut none = Contacts::new(0, Key::new([1, 2]));
        none.add(7, peer);
        assert!(!none.knows(7, peer));
    }
}
