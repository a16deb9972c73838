//! The hosts behind the clients, numbered through: what port blocks follow from (RFC 7422).
//!
//! The numbers follow from the site alone. They run through the clients in the order of `weir.toml`, then
//! through the routes that lead to client ports: a point-to-point client counts one, a client with `hosts`
//! one for each, any other the addresses of its subnet; a route counts the addresses of its network.

use core::net::Ipv4Addr;

use crate::site::{Client, ClientNetwork, Prefix, Site};

/// A run of numbers: those of the hosts of one client, or of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Every address of a network.
    Network(Prefix),
    /// These hosts of a subnet alone.
    Listed(&'static [Ipv4Addr]),
}

impl Area {
    /// How many numbers it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self {
            Self::Network(prefix) => 1 << (32 - if prefix.length > 32 { 32 } else { prefix.length }),
            Self::Listed(hosts) => hosts.len() as u64,
        }
    }

    /// The place of an address in it.
    fn place(&self, address: Ipv4Addr) -> Option<u64> {
        match self {
            Self::Network(prefix) if prefix.contains(address) => {
                Some(u64::from(address.to_bits() - prefix.network().to_bits()))
            }
            Self::Network(_) => None,
            Self::Listed(hosts) => hosts.iter().position(|&host| host == address).map(|at| at as u64),
        }
    }

    /// The address at a place.
    fn address(&self, place: u64) -> Option<Ipv4Addr> {
        match self {
            Self::Network(prefix) if place < self.size() => {
                let place = u32::try_from(place).ok()?;
                Some(Ipv4Addr::from_bits(prefix.network().to_bits() + place))
            }
            Self::Network(_) => None,
            Self::Listed(hosts) => hosts.get(usize::try_from(place).ok()?).copied(),
        }
    }

    /// How narrow it is: the narrower of two has what is in both.
    const fn length(&self) -> u8 {
        match self {
            Self::Network(prefix) => prefix.length,
            Self::Listed(_) => 32,
        }
    }
}

impl Client {
    const fn area(&self) -> Area {
        match self.network {
            ClientNetwork::Subnet(_) if !self.hosts.is_empty() => Area::Listed(self.hosts),
            ClientNetwork::Subnet(_) | ClientNetwork::Peer(_) => Area::Network(self.on_link()),
        }
    }
}

impl Site {
    /// The external addresses: the uplink's own, then `extra`.
    pub fn external(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        core::iter::once(self.uplink.address.address).chain(self.uplink.extra.iter().copied())
    }

    /// The external addresses that hosts share: without those that are one host's alone (1:1).
    pub fn shared(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.external().filter(|&address| !self.policy.takes_all_of(address))
    }

    /// The areas in the order of their numbers, each with the index of its client.
    pub fn areas(&self) -> impl Iterator<Item = (usize, Area)> + '_ {
        let clients = self.clients.iter().map(Client::area).enumerate();
        let routes = self.routes.iter().filter_map(|route| {
            let client = self.clients.iter().position(|client| client.on_link().contains(route.via))?;
            Some((client, Area::Network(route.to)))
        });
        clients.chain(routes)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn host_count(&self) -> u64 {
        self.areas().map(|(_, area)| area.size()).sum()
    }

    /// The number of a host behind a client, from 0; none for any other address.
    #[must_use]
    pub fn host_number(&self, address: Ipv4Addr) -> Option<u64> {
        let mut best: Option<(u8, u64)> = None;
        let mut before = 0;
        for (_, area) in self.areas() {
            let place = area.place(address).filter(|_| best.is_none_or(|(length, _)| length < area.length()));
            if let Some(place) = place {
                best = Some((area.length(), before + place));
            }
            before += area.size();
        }
        best.map(|(_, number)| number)
    }

    /// The host of a number, and the index of its client; none when it is nobody's.
    #[must_use]
    pub fn host(&self, number: u64) -> Option<(usize, Ipv4Addr)> {
        let mut place = number;
        for (client, area) in self.areas() {
            if let Some(rest) = place.checked_sub(area.size()) {
                place = rest;
                continue;
            }
            // What a narrower area has keeps its number there.
            return area
                .address(place)
                .filter(|&address| self.host_number(address) == Some(number))
                .map(|address| (client, address));
        }
        None
    }
}
