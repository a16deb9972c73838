//! Endpoint-independent mappings (RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1).
//!
//! One internal endpoint has one external endpoint at an external address, whatever its
//! destinations. A mapping lives as long as a session uses it. Then its port may rest: the mapping
//! stays for its internal endpoint to come back to, and no other gets the port meanwhile.
//!
//! It has no place of its own. It lives with the session that began it, its host, which has both
//! of its endpoints anyway, and stays in that place when the session is over:
//!
//! ```text
//!   LIVE | HOSTS    the session that began it lives; others may use it too
//!   HOSTS           that one is over, others use the mapping; or nobody does, and it rests
//! ```
//! The next session of the internal endpoint takes such a place.

mod rest;

use alloc::vec;
use alloc::vec::Vec;

use crate::endpoint::Endpoint;
use crate::session::{HOSTS, NONE, Session, Slab};

/// In place of the number of sessions: none, and the mapping rests. Its kind of port follows.
const RESTS: u32 = 1 << 31;

impl Session {
    /// The place of its mapping, if it has one; `id` is its own.
    #[inline]
    pub(crate) const fn mapping(&self, id: u32) -> u32 {
        match self.hosts() {
            true => id,
            false => self.mapping,
        }
    }

    /// Whether a mapping that does not rest lives here.
    #[inline]
    pub(crate) const fn is_awake(&self) -> bool {
        self.hosts() && self.mapping & RESTS == 0
    }

    /// Whether a mapping rests here.
    #[inline]
    pub(crate) const fn is_resting(&self) -> bool {
        self.hosts() && self.mapping & RESTS != 0
    }

    /// The internal endpoint of the mapping that lives here.
    #[inline]
    pub(crate) const fn internal(&self) -> Endpoint {
        self.original().source()
    }

    /// What that looks like from outside.
    #[inline]
    pub(crate) const fn external(&self) -> Endpoint {
        self.reply().destination()
    }

    /// The protocol of the mapping that lives here.
    #[inline]
    pub(crate) const fn mapped_protocol(&self) -> u8 {
        match self.is_live() {
            true => self.protocol,
            false => !self.protocol,
        }
    }

    /// Whether the mapping of an internal endpoint lives here.
    #[inline]
    pub(crate) fn maps(&self, protocol: u8, internal: Endpoint) -> bool {
        self.hosts() && self.internal() == internal && self.mapped_protocol() == protocol
    }

    /// What is left of the session is the mapping that lives here: no packet is its own any more.
    /// Its protocol becomes one that has no ports, or none at all, and its ports are not 0.
    pub(crate) const fn leave_mapping(&mut self) {
        self.protocol = !self.protocol;
    }

    /// The session, which the internal endpoint opens, begins a mapping.
    pub(crate) const fn begin_mapping(&mut self) {
        self.flags |= HOSTS;
        self.mapping = 1;
        self.own.set(1);
    }

    /// The session is the next one of the mapping that lives in `place`, and takes it.
    pub(crate) const fn take_mapping(&mut self, place: &Self) {
        self.flags |= HOSTS;
        self.mapping = place.mapping;
        self.own.set(place.own.get() + 1);
    }
}

/// The resting mappings of one kind of port, in the order in which they came.
#[derive(Clone)]
struct List {
    oldest: u32,
    newest: u32,
}

/// The mappings in force: how many, and those at rest.
pub(crate) struct Mappings {
    live: u32,
    at_rest: u32,
    resting: Vec<List>,
}

impl Mappings {
    /// Octets that [`Mappings::new`] allocates.
    pub(crate) const fn footprint(kinds: usize) -> usize {
        kinds * size_of::<List>()
    }

    /// For this many kinds of ports to rest.
    pub(crate) fn new(kinds: usize) -> Self {
        Self { live: 0, at_rest: 0, resting: vec![List { oldest: NONE, newest: NONE }; kinds] }
    }

    /// How many do not rest.
    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    /// How many rest.
    #[inline]
    pub(crate) const fn at_rest(&self) -> u32 {
        self.at_rest
    }

    /// A mapping begins with the session that has the place.
    #[inline]
    pub(crate) const fn begin(&mut self) {
        self.live += 1;
    }

    /// An idle mapping, which does not rest, ends.
    pub(crate) const fn end(&mut self) {
        self.live -= 1;
    }
}

impl Slab {
    /// The place of a mapping that does not rest.
    #[inline]
    pub(crate) fn awake(&self, id: u32) -> Option<&Session> {
        Some(self.get(id)).filter(|host| host.is_awake())
    }

    #[inline]
    fn awake_mut(&mut self, id: u32) -> Option<&mut Session> {
        self.get_mut(id).filter(|host| host.is_awake())
    }

    /// Whether a mapping ends with one session.
    pub(crate) fn has_one_session(&self, id: u32) -> bool {
        self.awake(id).is_some_and(|host| host.mapping == 1)
    }

    /// Whether a place is free again when its session is over.
    pub(crate) fn ends_with_session(&self, id: u32) -> bool {
        !self.get(id).hosts() || self.has_one_session(id)
    }

    /// Whether the internal endpoint opened or answered one of a mapping's sessions.
    pub(crate) fn is_owned(&self, id: u32) -> bool {
        self.awake(id).is_some_and(|host| host.own.get() > 0)
    }

    /// The internal endpoint opened or answered one session more of a mapping.
    #[inline]
    pub(crate) fn own(&mut self, id: u32) {
        if let Some(host) = self.awake_mut(id) {
            host.own.set(host.own.get() + 1);
        }
    }

    /// One of those ended.
    #[inline]
    pub(crate) fn disown(&mut self, id: u32) {
        if let Some(host) = self.awake_mut(id) {
            host.own.set(host.own.get().saturating_sub(1));
        }
    }

    /// One more session uses a mapping that does not rest.
    #[inline]
    pub(crate) fn acquire(&mut self, id: u32) {
        if let Some(host) = self.awake_mut(id) {
            host.mapping += 1;
        }
    }

    /// One session less uses a mapping; returns whether it is idle by now, to be laid to rest or
    /// ended.
    #[inline]
    pub(crate) fn release(&mut self, id: u32) -> bool {
        let Some(host) = self.awake_mut(id) else {
            return false;
        };
        host.mapping = host.mapping.saturating_sub(1);
        host.mapping == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Ends, protocol};
    use core::net::Ipv4Addr;

    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn internal(port: u16) -> Endpoint {
        Endpoint::new(Ipv4Addr::new(10, 0, 0, 7), port)
    }

    /// Sessions of one host, and their mappings.
    struct World {
        sessions: Slab,
        mappings: Mappings,
    }

    impl World {
        fn new(capacity: u32, kinds: usize) -> Self {
            Self { sessions: Slab::new(capacity), mappings: Mappings::new(kinds) }
        }

        /// The internal endpoint of a port gets an external one, the port with its last bit changed.
        fn begin(&mut self, port: u16) -> u32 {
            let peer = Endpoint::new(Ipv4Addr::new(198, 51, 100, 1), 53);
            let external = Endpoint::new(EXTERNAL, port ^ 1);
            let mut session = Session { protocol: protocol::UDP, ..Session::VACANT };
            session.set_ends(Ends::new(internal(port), peer), Ends::new(peer, external));
            let id = self.sessions.take().expect("a place");
            session.begin_mapping();
            self.sessions.begin(id, session);
            self.mappings.begin();
            id
        }

        /// Its session is over, and the mapping idle.
        fn leave(&mut self, id: u32) {
            self.sessions.end(id);
            self.sessions.get_mut(id).expect("a place").leave_mapping();
            assert!(self.sessions.release(id));
        }
    }

    #[test]
    fn it_lives_on_without_the_session_that_began_it() {
        let mut world = World::new(2, 2);
        let id = world.begin(5000);
        world.sessions.acquire(id);
        assert!(!world.sessions.has_one_session(id));
        assert!(!world.sessions.release(id));
        for _ in 0..2 {
            let place = world.sessions.get(id);
            assert!(place.maps(protocol::UDP, internal(5000)));
            assert!(!place.maps(protocol::TCP, internal(5000)));
            assert!(!place.maps(protocol::UDP, internal(5002)));
            assert_eq!(place.external(), Endpoint::new(EXTERNAL, 5001));
            if place.is_live() {
                world.leave(id);
            }
        }
    }

    #[test]
    fn no_packet_is_a_mappings_own_when_its_session_is_over() {
        let mut world = World::new(1, 1);
        let id = world.begin(5000);
        let (original, reply) = (world.sessions.get(id).original(), world.sessions.get(id).reply());
        assert!(world.sessions.get(id).has(&reply, crate::Direction::Reply));
        world.leave(id);
        assert!(!world.sessions.get(id).has(&original, crate::Direction::Original));
        assert!(!world.sessions.get(id).has(&reply, crate::Direction::Reply));
    }

    #[test]
    fn those_at_rest_are_in_order_and_wake() {
        let mut world = World::new(3, 1);
        let ids = [1000, 2000, 3000].map(|port| world.begin(port));
        for (id, until) in ids.into_iter().zip([10, 11, 12]) {
            world.leave(id);
            world.mappings.rest(&mut world.sessions, id, 0, until);
        }
        let World { sessions, mappings } = &mut world;
        assert_eq!((mappings.live(), mappings.at_rest()), (0, 3));
        assert_eq!([9, 10].map(|now| mappings.rested(sessions, 0, now)), [None, Some(ids[0])]);
        mappings.wake(sessions, ids[1]);
        assert_eq!(mappings.live(), 1);
        mappings.wake(sessions, ids[0]);
        mappings.end();
        assert_eq!(mappings.oldest(0), Some(ids[2]));
        assert_eq!(mappings.oldest_of_all(sessions, 0), Some(ids[2]));
        assert_eq!(mappings.oldest_within(sessions, 0, &(1..=2000)), None);
        mappings.wake(sessions, ids[2]);
        mappings.end();
        assert_eq!((mappings.oldest(0), mappings.live(), mappings.at_rest()), (None, 1, 0));
    }
}
