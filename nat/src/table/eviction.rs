//! Who has to give way when there is no room: never an established session.

use core::net::Ipv4Addr;

use super::{Nat, Refusal};
use crate::endpoint::Endpoint;
use crate::session::SessionId;

/// Sessions that a full table looks at to let go of one.
const LOOK: u32 = 64;
/// The same where only one that is closed may go.
const LOOK_CLOSED: u32 = 8;
/// Places that are looked at to find out which host of a client has most.
const SAMPLE: u32 = 16;

impl Nat {
    /// A full table lets go of one session: one that both sides have closed, or, if there are
    /// clients to be fair among, an unassured one of the largest for another. An established one
    /// stays.
    pub(super) fn let_go(&mut self, client: u8, largest: u8) {
        let is_fair = self.options.clients > 0 && largest != client;
        let sessions = &self.sessions;
        // Where nobody has to give way, only what is closed counts, and that is rare.
        let looks = if is_fair { LOOK } else { LOOK_CLOSED };
        let found = self.expendable.next(looks, |id| {
            let session = sessions.get(id);
            let may_go = session.is_closed() || is_fair && session.client == largest;
            may_go && sessions.ends_with_session(id)
        });
        if let Some(id) = found {
            self.remove(SessionId(id));
        }
    }

    /// Sees to it that the client may have one mapping more of a kind of port.
    ///
    /// # Errors
    /// [`Refusal::Quota`]: it may not, and none of its hosts has to give way to this one.
    pub(super) fn share(&mut self, client: u8, internal: Endpoint, kind: usize) -> Result<(), Refusal> {
        let admits = self.mapping_quotas.get(kind).is_none_or(|quota| quota.admits(client));
        match admits || self.make_way(client, internal.address, Some(kind)) {
            true => Ok(()),
            false => Err(Refusal::Quota),
        }
    }

    /// A host finds that others of its client have taken what the client may have: the one that
    /// has most loses an unassured session, one whose mapping is of this kind if a kind is given.
    /// The host that has most gets nothing.
    pub(super) fn make_way(&mut self, client: u8, host: Ipv4Addr, kind: Option<usize>) -> bool {
        match self.largest_host(client, kind) {
            Some((owner, id)) if owner != host => {
                self.remove(SessionId(id));
                true
            }
            _ => false,
        }
    }

    /// The host of a client that has most of what may go, as far as a sample shows, and a session
    /// of it.
    fn largest_host(&mut self, client: u8, kind: Option<usize>) -> Option<(Ipv4Addr, u32)> {
        // A majority vote: each place that says otherwise takes one voice from the candidate.
        let (mut candidate, mut voices): (Option<(Ipv4Addr, u32)>, _) = (None, 0);
        let capacity = self.sessions.capacity().max(1);
        // By the golden section, from another place each time: sessions of one burst stand side by
        // side, and no few places in a row tell of all.
        let step = ((u64::from(capacity) * 0x9e37_79b9) >> 32) as u32;
        self.hand = (self.hand + 1) % capacity;
        for _ in 0..SAMPLE {
            self.hand = (self.hand + step) % capacity;
            if !self.may_give_way(self.hand, client, kind) {
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

    /// Whether a session may go for another of its client, and something is free then: its place, or
    /// a port of this kind.
    fn may_give_way(&self, id: u32, client: u8, kind: Option<usize>) -> bool {
        let session = self.sessions.get(id);
        session.is_live()
            && session.client == client
            && !session.is_assured()
            && match kind {
                Some(_) => self.kind_of(id) == kind,
                None => self.sessions.ends_with_session(id),
            }
    }

    /// The kind of port that a session alone keeps its mapping of.
    fn kind_of(&self, id: u32) -> Option<usize> {
        let mapping = self.sessions.get(id).mapping(id);
        let host = self.sessions.awake(mapping).filter(|_| self.sessions.has_one_session(mapping))?;
        self.ports.kind(host.mapped_protocol(), host.external())
    }
}
