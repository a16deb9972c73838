//! Clients that are taken away, and an uplink whose address changes.
//!
//! What has to end is ended a little in each round of upkeep, while packets go on. A link without
//! carrier is no reason: its sessions wait for it.

use nat::Gone;
use rules::site::Prefix;

use super::*;

/// Places of the session and mapping tables that one round looks at.
const PLACES_A_ROUND: u32 = 4096;
/// Changes under way: each client at most once, and some of the uplink's.
const CHANGES: usize = 40;

/// Something that ends, and what comes in its place.
struct Change {
    gone: Gone,
    from: u32,
    /// What is the client's own has ended; others' sessions with hosts behind its port are left.
    is_own_over: bool,
    /// The external address that takes the place of the one that is gone.
    comes: Option<Ipv4Addr>,
}

/// The changes under way, in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Changes(heapless::Deque<Change, CHANGES>);

impl<L: Link> Datapath<L> {
    /// The client of a port is taken away (its VM is gone, its NIC unplugged): its sessions end, and those that
    /// others have with it, its external ports are free at once, and nothing is forwarded from or to it. Its
    /// neighbours are forgotten, and the frames that wait for them or for their fragments.
    ///
    /// False, and nothing is changed, for the uplink, for one that is away already, and if too many
    /// changes are under way.
    pub fn remove_client(&mut self, port: usize) -> bool {
        let Some(client) = port.checked_sub(1).and_then(|client| u8::try_from(client).ok()) else {
            return false;
        };
        let Some(port) = self.ports.get_mut(port).filter(|port| !port.is_removed) else {
            return false;
        };
        let change = Change { gone: Gone::Client(client), from: 0, is_own_over: false, comes: None };
        port.is_removed = self.changes.0.push_back(change).is_ok();
        let is_removed = port.is_removed;
        if is_removed {
            self.let_go(usize::from(client) + 1);
        }
        is_removed
    }

    /// Lets go of what is kept for a port, and of the frames that came in there.
    fn let_go(&mut self, index: usize) {
        let Self { neighbors, ports, fragments, known, .. } = self;
        neighbors.forget(index, |packet| {
            if let Some(port) = ports.get_mut(packet.input) {
                port.counters.drop(Dropped::PortDown);
            }
        });
        if let Some(port) = ports.get_mut(index) {
            port.front = None;
        }
        fragments.forget(index);
        known.forget();
        if index == UPLINK {
            self.syns.forget();
        }
    }

    /// The uplink's device is gone. Its sessions wait for another one.
    pub fn lose_uplink(&mut self) {
        self.let_go(UPLINK);
        self.look_at_links();
    }

    /// A port has a device again, perhaps another one: its hardware address and MTU are what that says, and its
    /// addresses are announced. A client has to be [restored](Self::restore_client) before.
    pub fn refresh(&mut self, port: usize) {
        if let Some(port) = self.ports.get_mut(port) {
            port.refresh();
        }
        self.known.forget();
        self.look_at_links();
    }

    /// A client that was taken away is back.
    ///
    /// False, and nothing is changed, while what it had still ends, and for one that is there.
    pub fn restore_client(&mut self, port: usize) -> bool {
        let leaves = |change: &Change| matches!(change.gone, Gone::Client(it) if usize::from(it) + 1 == port);
        if self.changes.0.iter().any(leaves) {
            return false;
        }
        let port = self.ports.get_mut(port);
        port.is_some_and(|port| core::mem::take(&mut port.is_removed))
    }

    /// The uplink has got another address or gateway (a DHCP lease): sessions at the old address end, and the
    /// new one serves when they have.
    ///
    /// A client's subnet goes before that of the uplink (RFC 4787 REQ-7 wants both to work; here the
    /// neighbours on such an uplink are out of reach but for the gateway). False, and nothing is
    /// changed, if too many changes are under way.
    pub fn renumber_uplink(&mut self, address: Prefix, gateway: Option<Ipv4Addr>) -> bool {
        let old = self.routes.address(UPLINK);
        if self.changes.0.is_full() {
            return false;
        }
        if let Some(client) = self.site.clients.iter().find(|client| client.on_link().overlaps(&address)) {
            log::warn!(target: "route", "the uplink's subnet is a client's too: address={}/{} client={}", address.address, address.length, client.name);
        }
        self.routes.renumber(self.site, address, gateway);
        self.known.forget();
        if old != address.address {
            // What waits, and datagrams that have left in part, show the old one.
            self.let_go(UPLINK);
            // There is room for it: that was seen above.
            let change = Change {
                gone: Gone::External(old),
                from: 0,
                is_own_over: true,
                comes: Some(address.address),
            };
            drop(self.changes.0.push_back(change));
        }
        self.announce(UPLINK);
        true
    }

    /// Does a part of the change that was asked for first; whether there is more to do.
    pub(super) fn change(&mut self) -> bool {
        let Some(change) = self.changes.0.front_mut() else { return false };
        let comes = change.comes;
        let next = match change.gone {
            Gone::Client(client) if change.is_own_over => {
                let (routes, port) = (&self.routes, usize::from(client) + 1);
                let is_behind = |address| routes.lookup(address).is_some_and(|hop| hop.port == port);
                self.nat.remove_where(change.from, PLACES_A_ROUND, |session| {
                    [session.original(), session.reply()]
                        .iter()
                        .any(|tuple| is_behind(tuple.source().address))
                })
            }
            gone => self.nat.forget(gone, change.from, PLACES_A_ROUND),
        };
        if let Some(from) = next {
            change.from = from;
            return true;
        }
        if !core::mem::replace(&mut change.is_own_over, true) {
            change.from = 0;
            return true;
        }
        if let Some(address) = comes {
            self.nat.take_in(address, &static_forwards(self.site, &[address]));
        }
        self.changes.0.pop_front();
        !self.changes.0.is_empty()
    }
}
