//! Who has to give way when there is no room: never an established session.
//!
//! What is over goes before what is not, a large user before a small one, and where nobody else has to, a host's own
//! half-open flows, and those of which no more is known than a question and its answer, go for its new ones, as a rule
//! the oldest first: a scan stops nothing, not even who scans.
//!
//! Ports are another matter, as what still comes to one would reach whoever has it next: a client has its share of them,
//! and takes none from another one. Among hosts of one client the one that has most gives way to others there, not to
//! itself.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use super::{Nat, Refusal, Slab};
use crate::endpoint::Endpoint;
use crate::ports::Ports;
use crate::session::SessionId;

/// Sessions that a full table looks at to let go of one.
const LOOK: u32 = 64;
/// Sessions that it looks at first where only one that is closed may go: most often they tell whether some are.
const GLANCE: u32 = 8;
/// Places that are looked at to find out which host of a client has most.
const SAMPLE: u32 = 16;

/// What has to be free.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A place for a session.
    Place,
    /// A mapping less of a kind of port.
    Mapping(usize),
    /// A port of a kind, in a range.
    Port(usize, &'a RangeInclusive<u16>),
}

impl Nat {
    /// Lets go of a session that is over, or of an unassured one of the client that has most for another, or else of
    /// any client that has more than this one. An established one stays.
    pub(super) fn let_go(&mut self, client: u8) -> bool {
        if self.expendable.is_empty() {
            return false;
        }
        let Self { sessions, expendable, session_quota: quota, .. } = self;
        let largest = quota.largest();
        if !quota.has_more(largest, client) {
            return false;
        }
        let mut of_larger = None;
        let found = expendable.next(LOOK, |id| {
            let session = sessions.get(id);
            if !sessions.ends_with_session(id) {
                return false;
            }
            if of_larger.is_none() && quota.has_more(session.client, client) {
                of_larger = Some(id);
            }
            session.is_over() || session.client == largest
        });
        found.or(of_larger).is_some_and(|id| self.evict(id, Wanted::Place))
    }

    /// Lets go of a session that is over, so that something is free; only one of this client, if one is named.
    /// Whether there was one.
    pub(super) fn let_go_over(&mut self, client: Option<u8>, wanted: Wanted<'_>) -> bool {
        if self.expendable.is_empty() {
            return false;
        }
        let Self { sessions, ports, expendable, .. } = self;
        let mut found = None;
        for looks in [GLANCE, LOOK] {
            let (mut is_worth_it, before) = (false, expendable.hand());
            found = expendable.next(looks, |id| {
                let session = sessions.get(id);
                let is_anothers = client.is_some_and(|client| client != session.client);
                is_worth_it |= is_anothers || session.is_over();
                !is_anothers && session.is_over() && frees(sessions, ports, id, wanted)
            });
            if found.is_none() && !is_worth_it {
                // They are still the oldest.
                expendable.look_from(before);
            }
            if found.is_some() || !is_worth_it {
                break;
            }
        }
        found.is_some_and(|id| self.evict(id, wanted))
    }

    /// Sees to it that the client may have one mapping more of a kind of port.
    ///
    /// # Errors
    /// [`Refusal::Quota`]: it may not, and nothing of it may go, see [`Nat::make_way`].
    pub(super) fn share(&mut self, client: u8, internal: Endpoint, kind: usize) -> Result<(), Refusal> {
        let admits = self.mapping_quotas.get(kind).is_none_or(|quota| quota.admits(client));
        match admits || self.make_way(client, internal.address, Wanted::Mapping(kind)) {
            true => Ok(()),
            false => Err(Refusal::Quota),
        }
    }

    /// A host finds that its client has taken what it may have: a session of the client that is over goes. Is there
    /// none, the host that has most loses an unassured one; if that is this host itself, one of its oldest, for a place
    /// only: a port goes to no other flow of its host while its mapping may be in use (RFC 4787 REQ-5).
    pub(super) fn make_way(&mut self, client: u8, host: Ipv4Addr, wanted: Wanted<'_>) -> bool {
        if self.expendable.is_empty() {
            return false;
        }
        let oldest = self.expendable.hand();
        if self.let_go_over(Some(client), wanted) {
            return true;
        }
        let found = match self.largest_host(client, wanted) {
            Some((owner, id)) if owner != host => Some(id),
            _ if matches!(wanted, Wanted::Place) => {
                self.expendable.look_from(oldest);
                self.unassured_of(client, host)
            }
            _ => None,
        };
        found.is_some_and(|id| self.evict(id, wanted))
    }

    /// An unassured session of a host: places are taken again in the order in which they became free, so the first one
    /// that is found is one of the oldest.
    fn unassured_of(&mut self, client: u8, host: Ipv4Addr) -> Option<u32> {
        let Self { sessions, expendable, .. } = self;
        expendable.next(LOOK, |id| {
            let session = sessions.get(id);
            session.client == client && session.owner() == host && sessions.ends_with_session(id)
        })
    }

    /// Ends a session for what is wanted; a port of its mapping has no rest then.
    pub(super) fn evict(&mut self, id: u32, wanted: Wanted<'_>) -> bool {
        let session = self.sessions.get(id);
        let mapping = session.mapping(id);
        self.given_way = self.given_way.saturating_add(u32::from(!session.is_over()));
        self.remove(SessionId(id));
        if matches!(wanted, Wanted::Port(..)) && self.sessions.get(mapping).is_resting() {
            self.end_resting(mapping);
        }
        true
    }

    /// How many sessions that were not over had to go for others since this was asked.
    pub fn take_given_way(&mut self) -> u32 {
        core::mem::take(&mut self.given_way)
    }

    /// The host of a client that has most of what may go, as far as a sample shows, and a session
    /// of it.
    fn largest_host(&mut self, client: u8, wanted: Wanted<'_>) -> Option<(Ipv4Addr, u32)> {
        // A majority vote: each place that says otherwise takes one voice from the candidate.
        let (mut candidate, mut voices): (Option<(Ipv4Addr, u32)>, _) = (None, 0);
        let capacity = self.sessions.capacity().max(1);
        // By the golden section, from another place each time: sessions of one burst stand side by
        // side, and no few places in a row tell of all.
        let step = ((u64::from(capacity) * 0x9e37_79b9) >> 32) as u32;
        self.hand = (self.hand + 1) % capacity;
        for _ in 0..SAMPLE {
            self.hand = (self.hand + step) % capacity;
            if !self.may_give_way(self.hand, client, wanted) {
                continue;
            }
            let owner = self.sessions.get(self.hand).owner();
            match candidate {
                Some((other, _)) if other == owner => voices += 1,
                Some(_) if voices > 0 => voices -= 1,
                _ => (candidate, voices) = (Some((owner, self.hand)), 1),
            }
        }
        candidate
    }

    /// Whether a session may go for another of its client, and [frees] what that needs.
    fn may_give_way(&self, id: u32, client: u8, wanted: Wanted<'_>) -> bool {
        let session = self.sessions.get(id);
        session.is_live()
            && session.client == client
            && !session.is_assured()
            && frees(&self.sessions, &self.ports, id, wanted)
    }
}

/// Whether what is wanted is free when this session has gone.
fn frees(sessions: &Slab, ports: &Ports, id: u32, wanted: Wanted<'_>) -> bool {
    let (kind, class) = match wanted {
        Wanted::Place => return sessions.ends_with_session(id),
        Wanted::Mapping(kind) => (kind, None),
        Wanted::Port(kind, class) => (kind, Some(class)),
    };
    // Its mapping goes with it.
    let mapping = sessions.get(id).mapping(id);
    sessions.awake(mapping).filter(|_| sessions.has_one_session(mapping)).is_some_and(|host| {
        let external = host.external();
        class.is_none_or(|class| class.contains(&external.port))
            && ports.kind(host.mapped_protocol(), external) == Some(kind)
    })
}
