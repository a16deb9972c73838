//! Free external ports.
//!
//! Port choice follows RFC 4787 REQ-3 (no overloading) and REQ-4 (parity), at a random start
//! (RFC 6056). Who owns a port is the mapping table's business.

mod pool;
mod tree;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::{Range, RangeInclusive};

use crate::config::Reserved;
use crate::endpoint::{Endpoint, protocol};
use crate::keyed::Chance;
pub(crate) use pool::Allocation;
use pool::{Pool, number};
use tree::Tree;

/// An external address and its ports.
struct At {
    /// None's, if it is unspecified.
    address: Ipv4Addr,
    /// Whether its ports are given away.
    is_open: bool,
    pools: [Pool; 3],
}

/// What is free at all external addresses.
pub(crate) struct Ports {
    /// The ports at or above 1024 that may be used.
    high: RangeInclusive<u16>,
    addresses: Vec<At>,
    chance: Chance,
}

/// Well-known ports stay among themselves (RFC 4787 REQ-3 a).
const LOW: RangeInclusive<u16> = 1..=1023;
/// ICMP identifiers are all alike (RFC 5508 REQ-1).
const IDENTIFIERS: RangeInclusive<u16> = 0..=u16::MAX;

/// Kinds of ports at one address.
const KINDS: usize = 5;

const fn pool_of(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::UDP => Some(0),
        protocol::TCP => Some(1),
        protocol::ICMP => Some(2),
        _ => None,
    }
}

impl Ports {
    /// Octets that [`Ports::new`] allocates for this many addresses.
    pub(crate) const fn footprint(addresses: usize) -> usize {
        addresses * (size_of::<At>() + 3 * Tree::FOOTPRINT)
    }

    /// Kinds of ports at this many addresses.
    pub(crate) const fn kinds_at(addresses: usize) -> usize {
        addresses * KINDS
    }

    /// All ports of the addresses, those at or above 1024 limited to a range.
    pub(crate) fn new(external: &[Ipv4Addr], range: &RangeInclusive<u16>, chance: Chance) -> Self {
        let at = |&address: &Ipv4Addr| At {
            address,
            is_open: !address.is_unspecified(),
            pools: [(); 3].map(|()| Pool { tree: Tree::full() }),
        };
        Self {
            high: (*range.start()).max(1024)..=*range.end(),
            addresses: external.iter().map(at).collect(),
            chance,
        }
    }

    fn pool(&mut self, protocol: u8, address: Ipv4Addr) -> Option<&mut Pool> {
        let at = self.addresses.iter_mut().find(|at| at.address == address)?;
        at.pools.get_mut(pool_of(protocol)?)
    }

    /// No port of this address is given away any more.
    pub(crate) fn close(&mut self, address: Ipv4Addr) {
        for at in self.addresses.iter_mut().filter(|at| at.address == address) {
            at.is_open = false;
        }
    }

    /// A closed address of which nothing is left makes place for another.
    pub(crate) fn clear(&mut self, address: Ipv4Addr) {
        for at in self.addresses.iter_mut().filter(|at| at.address == address && !at.is_open) {
            at.address = Ipv4Addr::UNSPECIFIED;
        }
    }

    /// Opens an address at a free place, all of its ports free, and returns its kinds of ports.
    pub(crate) fn open(&mut self, address: Ipv4Addr) -> Option<Range<usize>> {
        if self.addresses.iter().any(|at| at.address == address) {
            return None;
        }
        let place = self.addresses.iter().position(|at| at.address.is_unspecified())?;
        let at = self.addresses.get_mut(place)?;
        (at.address, at.is_open) = (address, true);
        for pool in &mut at.pools {
            pool.tree.fill();
        }
        Some(place * KINDS..(place + 1) * KINDS)
    }

    /// The addresses; an unspecified one is none's.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Ipv4Addr> {
        self.addresses.iter().map(|at| &at.address)
    }

    /// Whether this address has ports at all.
    pub(crate) fn has(&self, protocol: u8, address: Ipv4Addr) -> bool {
        pool_of(protocol).is_some() && self.addresses.iter().any(|at| at.is_open && at.address == address)
    }

    /// The place of an address that has ports to give.
    #[inline]
    pub(crate) fn place(&self, address: Ipv4Addr) -> Option<usize> {
        self.addresses.iter().position(|at| at.is_open && at.address == address)
    }

    /// How many kinds of ports there are: at each address the low and high ones of UDP and TCP, and
    /// the ICMP identifiers.
    pub(crate) fn kinds(&self) -> usize {
        Self::kinds_at(self.addresses.len())
    }

    /// The kind of a port, as a number below [`Ports::kinds`].
    pub(crate) fn kind(&self, protocol: u8, external: Endpoint) -> Option<usize> {
        pool_of(protocol)?;
        let place = self.addresses.iter().position(|at| at.address == external.address)?;
        Some(Self::kind_at(place, protocol, external.port))
    }

    /// The same where the place of its address is known.
    pub(crate) fn kind_at(place: usize, protocol: u8, port: u16) -> usize {
        let high = usize::from(port >= 1024);
        let kind = match protocol {
            protocol::ICMP => 2 * 2,
            protocol::TCP => 2 + high,
            _ => high,
        };
        place * KINDS + kind
    }

    /// How many ports of a kind there are to give.
    pub(crate) fn pool_len(&self, kind: usize) -> u32 {
        let class = match kind % KINDS {
            4 => IDENTIFIERS,
            low if low % 2 == 0 => LOW,
            _ => self.high.clone(),
        };
        let at = self.addresses.get(kind / KINDS);
        at.and_then(|at| at.pools.get(kind % KINDS / 2)).map_or(0, |pool| pool.free_in(&class))
    }

    /// Keeps ports for ever, as those of a static forward.
    pub(crate) fn reserve(&mut self, run: &Reserved) {
        if let Some(pool) = self.pool(run.protocol, run.address) {
            run.ports.clone().for_each(|port| pool.tree.set(number(port), false));
        }
    }

    /// The ports that one below or above 1024 may become.
    pub(crate) fn class(&self, protocol: u8, preferred: u16) -> RangeInclusive<u16> {
        match protocol {
            protocol::ICMP => IDENTIFIERS,
            _ if preferred < 1024 => LOW,
            _ => self.high.clone(),
        }
    }

    /// The ports on the other side of 1024, which those of a class become only if a rule says so.
    pub(crate) fn other_class(&self, class: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
        match class {
            _ if *class == IDENTIFIERS => None,
            _ if *class == LOW => Some(self.high.clone()),
            _ => Some(LOW),
        }
    }

    /// A port of a class, free or not, that nobody can foresee (RFC 6056 3.1).
    pub(crate) fn draw(&mut self, class: &RangeInclusive<u16>) -> u16 {
        let length = u32::from(class.end().saturating_sub(*class.start())) + 1;
        class.start().saturating_add(self.chance.below(length) as u16)
    }

    /// Takes a free port of a class, which is of a kind, for an internal endpoint's port.
    pub(crate) fn allocate_in(
        &mut self,
        kind: usize,
        class: &RangeInclusive<u16>,
        preferred: u16,
    ) -> Option<Allocation> {
        let at = self.addresses.get_mut(kind / KINDS).filter(|at| at.is_open)?;
        let pool = at.pools.get_mut(kind % KINDS / 2)?;
        pool.allocate(class, preferred, &mut self.chance)
    }

    /// Takes a free port for an internal endpoint's port.
    #[cfg(test)]
    fn allocate(&mut self, protocol: u8, address: Ipv4Addr, preferred: u16) -> Option<Allocation> {
        pool_of(protocol)?;
        let (place, class) = (self.place(address)?, self.class(protocol, preferred));
        self.allocate_in(Self::kind_at(place, protocol, *class.start()), &class, preferred)
    }

    /// Gives a port of a kind back.
    #[inline]
    pub(crate) fn release_in(&mut self, kind: usize, port: u16) {
        let at = self.addresses.get_mut(kind / KINDS);
        if let Some(pool) = at.and_then(|at| at.pools.get_mut(kind % KINDS / 2)) {
            pool.tree.set(number(port), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pool::port;
    use super::*;
    use crate::keyed::Key;
    use std::collections::BTreeSet;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    impl Ports {
        fn release(&mut self, protocol: u8, endpoint: Endpoint) {
            if let Some(pool) = self.pool(protocol, endpoint.address) {
                pool.tree.set(number(endpoint.port), true);
            }
        }
    }

    fn ports(range: RangeInclusive<u16>, seed: u64) -> Ports {
        Ports::new(&[ADDRESS], &range, Chance::new(Key::new([seed, 1])))
    }

    fn udp(ports: &mut Ports, preferred: u16) -> Option<u16> {
        let allocation = ports.allocate(protocol::UDP, ADDRESS, preferred);
        allocation.map(|allocation| allocation.port)
    }

    #[test]
    fn numbers_and_ports_are_one_to_one() {
        for at in 0..=u16::MAX {
            assert_eq!(port(number(at)), at);
            assert_eq!(number(at) >> 15, at & 1);
        }
    }

    #[test]
    fn req_3_all_64512_ports_are_used_once_and_the_last_costs_what_the_first_did() {
        let mut ports = ports(1024..=65535, 3);
        let mut used = BTreeSet::new();
        let mut most = 0;
        for _ in 0..64_512 {
            let allocation = ports.allocate(protocol::UDP, ADDRESS, 40_000).unwrap();
            assert!(used.insert(allocation.port), "{} twice", allocation.port);
            most = most.max(allocation.read);
        }
        assert_eq!((used.first(), used.last()), (Some(&1024), Some(&65535)));
        // Two runs, twice five words each, and the preferred one.
        assert!(most <= 21, "{most} words");
        assert_eq!(udp(&mut ports, 40_000), None);
        assert_eq!(udp(&mut ports, 80), Some(80));
        ports.release(protocol::UDP, Endpoint::new(ADDRESS, 51_234));
        assert_eq!(udp(&mut ports, 40_000), Some(51_234));
        assert_eq!(udp(&mut ports, 40_000), None);
    }

    #[test]
    fn req_4_preserved_then_same_parity_while_there_is_one() {
        let mut ports = ports(50_000..=50_009, 4);
        assert_eq!(udp(&mut ports, 50_003), Some(50_003));
        let odd: BTreeSet<_> = (0..4).filter_map(|_| udp(&mut ports, 50_003)).collect();
        assert_eq!(odd, BTreeSet::from([50_001, 50_005, 50_007, 50_009]));
        assert_eq!(udp(&mut ports, 50_003).map(|port| port & 1), Some(0));
        // A source outside of the range keeps its parity, not its port.
        assert_eq!(udp(&mut ports, 2_000).map(|port| port & 1), Some(0));
    }

    #[test]
    fn req_3a_well_known_ports_stay_among_themselves() {
        let mut ports = ports(1024..=65535, 5);
        let low: BTreeSet<_> = (0..1023).filter_map(|_| udp(&mut ports, 600)).collect();
        assert_eq!((low.len(), low.first(), low.last()), (1023, Some(&1), Some(&1023)));
        assert_eq!(udp(&mut ports, 600), None);
        assert_eq!(udp(&mut ports, 1024), Some(1024));
    }

    #[test]
    fn req_3_reserved_ports_are_never_given() {
        let mut ports = ports(8080..=8081, 6);
        ports.reserve(&Reserved { protocol: protocol::UDP, address: ADDRESS, ports: 8080..=8080 });
        assert_eq!(udp(&mut ports, 8080), Some(8081));
        assert_eq!(udp(&mut ports, 8080), None);
        let tcp = ports.allocate(protocol::TCP, ADDRESS, 8080).unwrap();
        assert_eq!(tcp.port, 8080);
    }

    #[test]
    fn rfc_5508_all_identifiers_are_used_zero_included() {
        let mut ports = ports(1024..=65535, 7);
        let used: BTreeSet<_> = (0..65_536)
            .filter_map(|_| ports.allocate(protocol::ICMP, ADDRESS, 0))
            .map(|allocation| allocation.port)
            .collect();
        assert_eq!(used.len(), 65_536);
    }

    #[test]
    fn rfc_6056_collisions_start_at_random_with_another_seed_elsewhere() {
        let second = |seed| {
            let mut ports = ports(1024..=65535, seed);
            udp(&mut ports, 40_000);
            udp(&mut ports, 40_000)
        };
        let starts: BTreeSet<_> = (0..16).map(second).collect();
        assert!(starts.len() > 12, "{starts:?}");
    }

    #[test]
    fn the_free_set_agrees_with_a_plain_one() {
        let mut ports = ports(1024..=65535, 8);
        let mut chance = Chance::new(Key::new([9, 9]));
        let mut used = BTreeSet::new();
        for _ in 0..60_000 {
            let any = chance.below(64_512) as u16 + 1024;
            if chance.below(3) == 0 && used.remove(&any) {
                ports.release(protocol::UDP, Endpoint::new(ADDRESS, any));
            }
            let port = udp(&mut ports, any).unwrap();
            assert!(used.insert(port));
            assert!(used.contains(&any));
        }
        assert_eq!(ports.pool_len(1), 64_512 - used.len() as u32);
    }

    #[test]
    fn what_is_free_is_counted_from_end_to_end() {
        let mut ports = ports(2001..=2007, 9);
        assert_eq!([0, 1, 2, 3, 4].map(|kind| ports.pool_len(kind)), [1023, 7, 1023, 7, 65_536]);
        for (port, left) in [(2001, 6), (2007, 5), (2000, 5), (2008, 5), (2004, 4)] {
            ports.reserve(&Reserved { protocol: protocol::UDP, address: ADDRESS, ports: port..=port });
            assert_eq!(ports.pool_len(1), left);
        }
        assert_eq!(ports.pool_len(KINDS), 0);
    }

    #[test]
    fn other_addresses_and_protocols_have_none() {
        let mut ports = ports(1024..=65535, 8);
        assert!(!ports.has(47, ADDRESS));
        assert!(ports.allocate(47, ADDRESS, 5).is_none());
        let other = Ipv4Addr::new(203, 0, 113, 2);
        assert!(!ports.has(protocol::UDP, other));
        assert!(ports.allocate(protocol::UDP, other, 5).is_none());
    }
}
