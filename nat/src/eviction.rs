//! Who has to give way when there is no room: never an established session.

use core::net::Ipv4Addr;

use crate::endpoint::Endpoint;
use crate::session::SessionId;
use crate::table::{Nat, Refusal};

/// Places that a full table looks at to let go of a session.
const LOOK: usize = 256;
/// Places that are looked at to find out which host of a client has most.
const SAMPLE: u32 = 16;

impl Nat {
    /// A full table lets go of one session among the next few: one that expired or that both
    /// sides have closed, else, if there are clients to be fair among, an unassured one of the
    /// largest for another. An established one stays.
    pub(crate) fn let_go(&mut self, client: u8, now: i64) {
        let largest = Some(self.session_quota.largest());
        let largest = largest.filter(|&largest| self.options.clients > 0 && largest != client);
        let mut unassured = None;
        for _ in 0..LOOK {
            self.hand = (self.hand + 1) % self.sessions.capacity().max(1);
            let session = self.sessions.get(self.hand);
            if !session.is_live() {
                continue;
            }
            if session.is_closed() || self.is_expired(SessionId(self.hand), now) {
                return self.remove(SessionId(self.hand));
            }
            if unassured.is_none() && !session.is_assured() && largest == Some(self.client(self.hand)) {
                unassured = Some(self.hand);
            }
        }
        if let Some(id) = unassured {
            self.remove(SessionId(id));
        }
    }

    /// Sees to it that the client may have one mapping more of the kind that an external endpoint
    /// is of.
    ///
    /// # Errors
    /// [`Refusal::Quota`]: it may not, and none of its hosts has to give way to this one.
    pub(crate) fn share(
        &mut self,
        client: u8,
        protocol: u8,
        internal: Endpoint,
        external: Endpoint,
    ) -> Result<(), Refusal> {
        let kind = self.ports.kind(protocol, external);
        let quota = kind.and_then(|kind| self.mapping_quotas.get(kind));
        let admits = quota.is_none_or(|quota| quota.admits(client));
        match admits || self.make_way(client, internal.address, kind) {
            true => Ok(()),
            false => Err(Refusal::Quota),
        }
    }

    /// A host finds that others of its client have taken what the client may have: the one that
    /// has most, as far as a sample shows, loses an unassured session, one whose mapping is of
    /// this kind if a kind is given. The host that has most gets nothing.
    pub(crate) fn make_way(&mut self, client: u8, host: Ipv4Addr, kind: Option<usize>) -> bool {
        // A majority vote: each place that says otherwise takes one voice from the candidate.
        let mut candidate: Option<(Ipv4Addr, u32)> = None;
        let mut voices = 0;
        let capacity = self.sessions.capacity().max(1);
        for _ in 0..SAMPLE {
            // Any odd step that is no neighbour: sessions of one burst stand side by side.
            self.hand = (self.hand + 0x9e35) % capacity;
            let session = self.sessions.get(self.hand);
            let is_of_client = session.is_live() && self.client(self.hand) == client;
            if !is_of_client || session.is_assured() || kind.is_some() && self.kind_of(self.hand) != kind {
                continue;
            }
            let owner = session.owner();
            match candidate {
                Some((other, _)) if other == owner => voices += 1,
                Some(_) if voices > 0 => voices -= 1,
                _ => (candidate, voices) = (Some((owner, self.hand)), 1),
            }
        }
        match candidate {
            Some((owner, id)) if owner != host => {
                self.remove(SessionId(id));
                true
            }
            _ => false,
        }
    }

    /// The kind of port that a session alone keeps its mapping of.
    fn kind_of(&self, id: u32) -> Option<usize> {
        let mapping = self.sessions.get(id).mapping;
        let mapping = self.mappings.get(mapping).filter(|_| self.mappings.has_one_session(mapping))?;
        self.ports.kind(mapping.protocol, mapping.external)
    }
}
