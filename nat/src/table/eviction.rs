//! Who has to give way when there is no room: never an established session.

use core::net::Ipv4Addr;

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

impl Nat {
    /// A full table lets go of a session that both sides have closed, or of an unassured one of the
    /// largest client for another. An established one stays.
    pub(super) fn let_go(&mut self, client: u8, largest: u8) {
        if self.options.clients == 0 || largest == client {
            return;
        }
        let sessions = &self.sessions;
        let found = self.expendable.next(LOOK, |id| {
            let session = sessions.get(id);
            (session.is_closed() || session.client == largest) && sessions.ends_with_session(id)
        });
        if let Some(id) = found {
            self.remove(SessionId(id));
        }
    }

    /// Lets go of a session that both sides have closed, so that its place is free, or a port of this kind; only one
    /// of this client, if one is named. Whether there was one.
    pub(super) fn let_go_closed(&mut self, client: Option<u8>, kind: Option<usize>) -> bool {
        let Self { sessions, ports, expendable, .. } = self;
        let mut found = None;
        for looks in [GLANCE, LOOK] {
            let mut is_worth_it = false;
            found = expendable.next(looks, |id| {
                let session = sessions.get(id);
                let is_anothers = client.is_some_and(|client| client != session.client);
                is_worth_it |= is_anothers || session.is_closed();
                !is_anothers && session.is_closed() && frees(sessions, ports, id, kind)
            });
            if found.is_some() || !is_worth_it {
                break;
            }
        }
        if let Some(id) = found {
            self.remove(SessionId(id));
        }
        found.is_some()
    }

    /// Sees to it that the client may have one mapping more of a kind of port.
    ///
    /// # Errors
    /// [`Refusal::Quota`]: it may not, none of its connections is closed, and none of its hosts has to give way to this
    /// one.
    pub(super) fn share(&mut self, client: u8, internal: Endpoint, kind: usize) -> Result<(), Refusal> {
        let admits = self.mapping_quotas.get(kind).is_none_or(|quota| quota.admits(client));
        match admits || self.make_way(client, internal.address, Some(kind)) {
            true => Ok(()),
            false => Err(Refusal::Quota),
        }
    }

    /// A host finds that its client has taken what it may have: a closed session of the client goes. Is there none,
    /// the host that has most loses an unassured session, and gets nothing itself. If a kind of port is given, the
    /// session's mapping is of that kind.
    pub(super) fn make_way(&mut self, client: u8, host: Ipv4Addr, kind: Option<usize>) -> bool {
        if self.let_go_closed(Some(client), kind) {
            return true;
        }
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

    /// Whether a session may go for another of its client, and [frees] what that needs.
    fn may_give_way(&self, id: u32, client: u8, kind: Option<usize>) -> bool {
        let session = self.sessions.get(id);
        session.is_live()
            && session.client == client
            && !session.is_assured()
            && frees(&self.sessions, &self.ports, id, kind)
    }
}

/// Whether something is free when this session has gone: a port of this kind, or without one its place.
fn frees(sessions: &Slab, ports: &Ports, id: u32, kind: Option<usize>) -> bool {
    match kind {
        Some(_) => kind_of(sessions, ports, id) == kind,
        None => sessions.ends_with_session(id),
    }
}

/// The kind of port that a session alone keeps its mapping of.
fn kind_of(sessions: &Slab, ports: &Ports, id: u32) -> Option<usize> {
    let mapping = sessions.get(id).mapping(id);
    let host = sessions.awake(mapping).filter(|_| sessions.has_one_session(mapping))?;
    ports.kind(host.mapped_protocol(), host.external())
}
