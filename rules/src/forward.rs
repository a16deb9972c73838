//! Static forwards: the external ports that dnat rules answer for.
//!
//! Whoever gives out external ports must leave these alone (RFC 4787 REQ-3). The compiler finds them: a rule
//! counts with what it, and those who call its chain, say about protocol, destination address and destination
//! port of packets from the uplink; what else is matched makes no port free.

use core::net::Ipv4Addr;

use crate::policy::Policy;

/// A run of external ports that dnat rules answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The protocol, TCP or UDP.
    pub protocol: u8,
    /// The external address; `None` for each of them.
    pub address: Option<Ipv4Addr>,
    /// The first port, at least 1.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Forward {
    /// Whether rules may take packets of this protocol to this external address.
    #[must_use]
    pub fn takes(&self, protocol: u8, address: Ipv4Addr) -> bool {
        self.protocol == protocol && self.address.is_none_or(|own| own == address)
    }
}

/// Whether forwards take every port of an external address (1:1): it has none for other hosts.
#[must_use]
pub fn take_all_of(forwards: &[Forward], address: Ipv4Addr) -> bool {
    let all = |protocol| {
        let whole = |forward: &Forward| (forward.first, forward.last) == (1, u16::MAX);
        forwards.iter().any(|forward| forward.takes(protocol, address) && whole(forward))
    };
    all(6) && all(17)
}

impl Policy {
    /// The external ports that dnat rules answer for; the runs of an address and protocol are sorted and apart.
    pub fn forwards(&self) -> impl Iterator<Item = Forward> {
        self.forwards.iter().copied()
    }

    /// Whether dnat rules answer for every port of an external address, see [`take_all_of`].
    #[must_use]
    pub fn takes_all_of(&self, address: Ipv4Addr) -> bool {
        take_all_of(self.forwards, address)
    }
}
