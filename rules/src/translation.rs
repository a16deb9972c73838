//! Translations: what a rule offers, and what it comes to for the first packet of a session.
//!
//! As the kernel picks: a port within the range stays, an address of several is the same for the same host
//! whatever it talks to. Which ports are free is not known here.

use core::net::Ipv4Addr;

use crate::candidate::Candidate;

/// The source that a session shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceNat {
    /// The address of the outgoing port.
    Masquerade {
        /// The first and the last external port to take; without it any.
        ports: Option<(u16, u16)>,
        /// The port is picked by chance, and not kept (`random`, `fully-random`).
        random: bool,
    },
    /// One of these addresses, for a host always the same (RFC 4787 REQ-2).
    To {
        /// The first address.
        first: Ipv4Addr,
        /// The last address, not below the first.
        last: Ipv4Addr,
        /// The first and the last external port to take; without it any.
        ports: Option<(u16, u16)>,
        /// The port is picked by chance, and not kept (`random`, `fully-random`).
        random: bool,
    },
    /// This address, which is the source's alone (one to one, netmap): its port stays.
    Static(Ipv4Addr),
}

impl SourceNat {
    /// The address that a host shows, where the rules alone decide on it.
    pub(crate) fn shown(&self) -> Option<Ipv4Addr> {
        match *self {
            Self::To { first, last, .. } if first == last => Some(first),
            Self::Static(address) => Some(address),
            Self::To { .. } | Self::Masquerade { .. } => None,
        }
    }
}

/// A block of addresses in place of another, one to one (`prefix to`, netmap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Netmap {
    /// Any address of the new block.
    pub address: Ipv4Addr,
    /// The prefix length of both blocks, 0 to 32.
    pub length: u8,
}

impl Netmap {
    /// The address that takes the place of `address`: its leading bits are new, the others stay.
    #[must_use]
    pub const fn of(&self, address: Ipv4Addr) -> Ipv4Addr {
        let prefix = crate::site::Prefix { address: self.address, length: self.length };
        let mask = prefix.mask();
        Ipv4Addr::from_bits(self.address.to_bits() & mask | address.to_bits() & !mask)
    }
}

/// What a rule makes of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChoice {
    /// The same for every packet.
    Always(SourceNat),
    /// An address of a block for each of another.
    Netmap(Netmap),
}

impl SourceChoice {
    /// What it is for this packet.
    pub(crate) fn of(&self, candidate: &Candidate) -> SourceNat {
        match self {
            Self::Always(source) => *source,
            Self::Netmap(netmap) => SourceNat::Static(netmap.of(candidate.source)),
        }
    }
}

/// What a rule makes of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationChoice {
    /// One of these addresses, for a source always the same.
    To {
        /// The first address.
        first: Ipv4Addr,
        /// The last address, not below the first.
        last: Ipv4Addr,
        /// The first and the last port, at least 1: a port within them stays, any other becomes the first.
        /// Without it each port stays.
        ports: Option<(u16, u16)>,
    },
    /// The same address, and a port from the first to the last: one within them stays, any other becomes the
    /// first.
    Ports {
        /// The first port, at least 1.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// An address of a block for each of another.
    Netmap(Netmap),
}

impl DestinationChoice {
    /// The new destination of this packet: the address, and the port unless that stays.
    pub(crate) fn of(&self, candidate: &Candidate) -> (Ipv4Addr, Option<u16>) {
        let port_of = |first: u16, last: u16| {
            let port = candidate.destination_port;
            if (first..=last).contains(&port) { port } else { first }
        };
        match *self {
            Self::To { first, last, ports } => {
                let port = ports.map(|(first, last)| port_of(first, last));
                (one_of(first, last, candidate.source), port)
            }
            Self::Ports { first, last } => (candidate.destination, Some(port_of(first, last))),
            Self::Netmap(netmap) => (netmap.of(candidate.destination), None),
        }
    }
}

/// One address from `first` to `last` for a host: always the same, and the hosts spread over all of them.
fn one_of(first: Ipv4Addr, last: Ipv4Addr, host: Ipv4Addr) -> Ipv4Addr {
    let span = u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1;
    // Fibonacci hashing: neighbours come apart.
    let spread = u64::from(host.to_bits().wrapping_mul(0x9e37_79b9));
    // Below the span, which is at most 2^32.
    let offset = (spread * span) >> 32;
    Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netmap_keeps_the_bits_behind_the_prefix() {
        let netmap = Netmap { address: [192, 0, 2, 16].into(), length: 28 };
        assert_eq!(netmap.of([10, 0, 1, 37].into()), Ipv4Addr::new(192, 0, 2, 21));
        assert_eq!(Netmap { length: 32, ..netmap }.of(Ipv4Addr::BROADCAST), Ipv4Addr::new(192, 0, 2, 16));
        assert_eq!(Netmap { length: 0, ..netmap }.of(Ipv4Addr::BROADCAST), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn req_2_a_host_has_one_address_of_several_and_each_is_used() {
        let (first, last) = (Ipv4Addr::new(10, 0, 1, 2), Ipv4Addr::new(10, 0, 1, 5));
        let mut used = [0; 4];
        for host in 0..=255 {
            let address = one_of(first, last, [198, 51, 100, host].into());
            assert_eq!(address, one_of(first, last, [198, 51, 100, host].into()));
            used[usize::from(address.octets()[3] - 2)] += 1;
        }
        assert!(used.iter().all(|&count| (48..80).contains(&count)), "{used:?}");
        assert_eq!(one_of(first, first, Ipv4Addr::BROADCAST), first);
        let all = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        assert_eq!(one_of(all.0, all.1, [0, 0, 0, 1].into()).to_bits(), 0x9e37_79b9);
    }
}
