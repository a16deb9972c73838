//! Clients and external addresses that go away, and addresses that come.
//!
//! The work is bounded for each call: the caller goes on where the last one stopped, and forwards
//! packets between.

use core::net::Ipv4Addr;

use super::external::Externals;
use super::{Gone, Nat};
use crate::config::Reserved;
use crate::session::{Session, SessionId};

impl Nat {
    /// Ends the sessions and mappings of what is gone, looking at up to `budget` places, at least
    /// one, from `from` on, which is 0 in the first call. Returns where to go on, or nothing at the
    /// end.
    ///
    /// No session of what is gone may be bound meanwhile: none of the client, none to or from the
    /// address. With the last call the address's reservations are gone too, and its place is
    /// free for [`Nat::take_in`].
    ///
    /// ```
    /// # use nat::{Config, Gone, Nat, Timeouts};
    /// # let config = Config {
    /// #     sessions: 100,
    /// #     external: &[[203, 0, 113, 1].into()],
    /// #     external_ports: 1024..=65535,
    /// #     timeouts: Timeouts::default(),
    /// #     inbound_refresh: false,
    /// # };
    /// # let mut nat = Nat::new(&config, &[], [1, 2]);
    /// let mut next = Some(0);
    /// while let Some(from) = next {
    ///     next = nat.forget(Gone::External([203, 0, 113, 1].into()), from, 64);
    ///     // ... and a turn for packets.
    /// }
    /// assert!(nat.take_in([203, 0, 113, 9].into(), &[]));
    /// ```
    pub fn forget(&mut self, gone: Gone, from: u32, budget: u32) -> Option<u32> {
        if let Gone::External(address) = gone {
            self.ports.close(address);
        }
        let places = self.sessions.capacity();
        let end = from.saturating_add(budget.max(1)).min(2 * places);
        for at in from..end {
            match at.checked_sub(places) {
                None => self.forget_session(gone, at),
                Some(id) => {
                    let place = self.sessions.get(id);
                    if place.is_resting() && is_of(place, gone) {
                        self.end_resting(id);
                    }
                }
            }
        }
        if end < 2 * places {
            return Some(end);
        }
        if let Gone::External(address) = gone {
            self.ports.clear(address);
            self.find_externals();
        }
        None
    }

    /// The external addresses are others.
    fn find_externals(&mut self) {
        self.externals = self.ports.addresses().fold(Externals::NONE, Externals::with);
    }

    fn forget_session(&mut self, gone: Gone, id: u32) {
        let session = self.sessions.get(id);
        let mut mappings =
            [session.mapping(id), self.held(session)].into_iter().filter_map(|id| self.sessions.awake(id));
        if session.is_live() && (concerns(session, gone) || mappings.any(|host| is_of(host, gone))) {
            self.remove(SessionId(id));
        }
    }

    /// Takes in an external address; `reserved` is not to be given away, as in
    /// [`Nat::new`].
    ///
    /// False, and nothing changed, if it is there already or there is no place for it: there are as many as there were
    /// addresses in the beginning, and an unspecified address is a place to be taken later.
    pub fn take_in(&mut self, address: Ipv4Addr, reserved: &[Reserved]) -> bool {
        if address.is_unspecified() {
            return false;
        }
        let Some(kinds) = self.ports.open(address) else {
            return false;
        };
        self.find_externals();
        // Where sessions go may be to a mapping now, as far as their tuples tell.
        self.is_crossed = true;
        reserved.iter().for_each(|run| self.ports.reserve(run));
        for kind in kinds {
            let pool = self.ports.pool_len(kind).min(self.sessions.capacity());
            if let Some(quota) = self.mapping_quotas.get_mut(kind) {
                quota.replace_pool(pool);
            }
        }
        true
    }
}

/// Whether the mapping that lives here is of what is gone.
fn is_of(host: &Session, gone: Gone) -> bool {
    match gone {
        Gone::Client(client) => host.client == client,
        Gone::External(address) => host.external().address == address,
    }
}

fn concerns(session: &Session, gone: Gone) -> bool {
    match gone {
        Gone::Client(client) => session.client == client,
        Gone::External(address) => {
            [session.original(), session.reply()].map(|tuple| tuple.destination().address).contains(&address)
        }
    }
}
