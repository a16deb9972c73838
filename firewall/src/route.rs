//! Where a packet goes next, and whether it may have come from where it came from.
//!
//! The table is built once from the site: own addresses, client subnets and peers, routes, the
//! default route through the uplink's gateway. Look-ups are exact longest-prefix matches over a
//! sorted list, and what they find for an address is remembered until the table changes.

use alloc::vec::Vec;
use core::cell::Cell;
use core::net::Ipv4Addr;

use rules::site::{Prefix, Site};

/// The index of the uplink among the ports.
pub const UPLINK: usize = 0;

/// The next hop of a packet: the port it leaves by, and the on-link address that gets the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the outgoing port.
    pub port: usize,
    /// Whom to ask for by ARP: the gateway, or the destination itself.
    pub next: Ipv4Addr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    network: u32,
    mask: u32,
    port: u8,
    /// `None`: the destination is on the link.
    via: Option<Ipv4Addr>,
}

impl Entry {
    fn new(address: Ipv4Addr, length: u8, port: usize, via: Option<Ipv4Addr>) -> Self {
        let mask = mask(length);
        // At most 33 ports (rules::site), so the index fits.
        Self { network: address.to_bits() & mask, mask, port: port as u8, via }
    }

    fn contains(&self, address: u32) -> bool {
        address & self.mask == self.network
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
}

/// What one port's link looks like.
struct Attached {
    address: Ipv4Addr,
    /// The subnet of the link; a point-to-point link has its peer, with mask /32.
    network: u32,
    mask: u32,
    /// On-link sources that are believed; empty means the whole subnet.
    hosts: &'static [Ipv4Addr],
}

impl Attached {
    fn is_on_link(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.network
    }

    /// The subnet's broadcast or network address (RFC 1812 4.2.2.11); /31 and /32 have none.
    fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask;
        self.mask < 0xffff_fffe && self.is_on_link(address) && (host == 0 || host == !self.mask)
    }

    fn is_host(&self, address: Ipv4Addr) -> bool {
        self.is_on_link(address)
            && !self.is_broadcast(address)
            && (self.hosts.is_empty() || self.hosts.contains(&address))
    }
}

/// What was found for the addresses looked up last, so that it is not looked for again.
struct Recent<T>([Cell<Option<(u32, T)>>; RECENT]);

/// Addresses that are remembered.
const RECENT: usize = 64;

impl<T: Copy> Recent<T> {
    fn new() -> Self {
        Self([const { Cell::new(None) }; RECENT])
    }

    /// Where an address is remembered: anybody may find two for one place, and gain a search.
    #[inline]
    fn place(&self, address: u32) -> &Cell<Option<(u32, T)>> {
        &self.0[(address.wrapping_mul(0x9e37_79b1) >> 26) as usize % RECENT]
    }

    #[inline]
    fn get(&self, address: u32) -> Option<T> {
        self.place(address).get().filter(|&(known, _)| known == address).map(|(_, found)| found)
    }

    fn forget(&self) {
        self.0.iter().for_each(|place| place.set(None));
    }
}

/// The routing table of a site.
pub struct Routes {
    attached: Vec<Attached>,
    entries: Vec<Entry>,
    hops: Recent<Hop>,
    /// Sources, and the port where each is believed.
    believed: Recent<u8>,
    own: Vec<Ipv4Addr>,
    /// Own addresses that are external: the uplink's, and its extra ones.
    external: Vec<Ipv4Addr>,
    /// The same in order.
    sorted: Vec<Ipv4Addr>,
    /// Those that are no host's alone.
    shared: Vec<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
}

impl Routes {
    /// The table of `site`.
    pub fn new(site: &'static Site) -> Self {
        let ports = site.clients.len() + 1;
        let external = site.uplink.extra.len() + 1;
        let mut routes = Self {
            attached: Vec::with_capacity(ports),
            entries: Vec::with_capacity(ports + site.routes.len() + 1),
            hops: Recent::new(),
            believed: Recent::new(),
            own: Vec::with_capacity(external + ports),
            external: Vec::with_capacity(external),
            sorted: Vec::with_capacity(external),
            shared: Vec::with_capacity(external),
            gateway: None,
        };
        routes.renumber(site, site.uplink.address, site.uplink.gateway);
        routes
    }

    /// Makes it the table of `site` with another address and gateway of the uplink. Nothing is
    /// allocated: it has room for all of it.
    pub fn renumber(&mut self, site: &'static Site, address: Prefix, gateway: Option<Ipv4Addr>) {
        self.gateway = gateway;
        self.hops.forget();
        self.believed.forget();
        self.attach(site, address);
        self.entries.clear();
        let overlaps = site.clients.iter().any(|client| client.on_link().overlaps(&address));
        // RFC 4787 REQ-7: the client side keeps working.
        if !overlaps {
            self.entries.push(Entry::new(address.address, address.length, UPLINK, None));
        }
        for (index, client) in site.clients.iter().enumerate() {
            let Prefix { address, length } = client.on_link();
            self.entries.push(Entry::new(address, length, index + 1, None));
        }
        for route in site.routes {
            let port = self.attached.iter().position(|link| link.is_on_link(route.via));
            if let Some(port) = port {
                self.entries.push(Entry::new(route.to.address, route.to.length, port, Some(route.via)));
            }
        }
        if let Some(gateway) = gateway {
            self.entries.push(Entry::new(Ipv4Addr::UNSPECIFIED, 0, UPLINK, Some(gateway)));
        }
        // Longest prefix first, and links ahead of routes of their size.
        self.entries.sort_unstable_by_key(|entry| (core::cmp::Reverse(entry.mask), entry.via.is_some()));
        self.external.clear();
        self.external.push(address.address);
        self.external.extend_from_slice(site.uplink.extra);
        self.sorted.clone_from(&self.external);
        self.sorted.sort_unstable();
        self.shared.clear();
        let policy = &site.policy;
        self.shared.extend(self.external.iter().filter(|&&address| !policy.takes_all_of(address)));
        self.own.clone_from(&self.external);
        self.own.extend(site.clients.iter().map(|client| client.address));
        self.own.dedup();
    }

    /// Notes what the links of the ports look like.
    fn attach(&mut self, site: &'static Site, uplink: Prefix) {
        self.attached.clear();
        self.attached.push(Attached {
            address: uplink.address,
            network: uplink.address.to_bits() & mask(uplink.length),
            mask: mask(uplink.length),
            hosts: &[],
        });
        for client in site.clients {
            let Prefix { address: network, length } = client.on_link();
            self.attached.push(Attached {
                address: client.address,
                network: network.to_bits() & mask(length),
                mask: mask(length),
                hosts: client.hosts,
            });
        }
    }

    /// The next hop towards `destination`, or `None` where no route leads (ICMP 3/0).
    #[inline]
    pub fn lookup(&self, destination: Ipv4Addr) -> Option<Hop> {
        self.hops.get(destination.to_bits()).or_else(|| self.search(destination))
    }

    #[cold]
    fn search(&self, destination: Ipv4Addr) -> Option<Hop> {
        let bits = destination.to_bits();
        let entry = self.entries.iter().find(|entry| entry.contains(bits))?;
        let hop = Hop { port: usize::from(entry.port), next: entry.via.unwrap_or(destination) };
        self.hops.place(bits).set(Some((bits, hop)));
        Some(hop)
    }

    /// Whether `address` is one of the appliance's own.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }

    /// Whether the appliance answers ARP for `address` on `port`.
    pub fn answers_for(&self, port: usize, address: Ipv4Addr) -> bool {
        match port {
            UPLINK => self.external.contains(&address),
            _ => self.attached.get(port).is_some_and(|link| link.address == address),
        }
    }

    /// The appliance's address on `port`.
    pub fn address(&self, port: usize) -> Ipv4Addr {
        self.attached.get(port).map_or(Ipv4Addr::UNSPECIFIED, |link| link.address)
    }

    /// The external addresses: the uplink's first, then its extra ones.
    pub fn external(&self) -> &[Ipv4Addr] {
        &self.external
    }

    /// The external addresses that hosts share: without those that are one host's alone (1:1).
    pub fn shared(&self) -> &[Ipv4Addr] {
        &self.shared
    }

    /// The external addresses from the first to the last given, in order.
    pub fn external_between(&self, first: Ipv4Addr, last: Ipv4Addr) -> &[Ipv4Addr] {
        let from = self.sorted.partition_point(|&address| address < first);
        let to = self.sorted.partition_point(|&address| address <= last);
        self.sorted.get(from..to).unwrap_or_default()
    }

    /// Anti-spoofing (RFC 2827): whether a packet from `source` may arrive on `port`.
    ///
    /// A client port believes its hosts and what is routed through it. The uplink believes
    /// everything that is a host and not ours, nor behind a client.
    #[inline]
    pub fn source_is_behind(&self, port: usize, source: Ipv4Addr) -> bool {
        let bits = source.to_bits();
        self.believed.get(bits).is_some_and(|believed| usize::from(believed) == port) || {
            let is_behind = self.is_behind(port, source);
            if let (true, Ok(port)) = (is_behind, u8::try_from(port)) {
                self.believed.place(bits).set(Some((bits, port)));
            }
            is_behind
        }
    }

    fn is_behind(&self, port: usize, source: Ipv4Addr) -> bool {
        if self.is_own(source) {
            return false;
        }
        let Some(link) = self.attached.get(port) else {
            return false;
        };
        if port != UPLINK && link.is_on_link(source) {
            return link.is_host(source);
        }
        if !is_host(source) || link.is_broadcast(source) {
            return false;
        }
        self.lookup_any(source) == Some(port)
    }

    /// The port that routing would use towards `address`, the uplink when nothing else claims it.
    fn lookup_any(&self, address: Ipv4Addr) -> Option<usize> {
        Some(self.lookup(address).map_or(UPLINK, |hop| hop.port))
    }

    /// Whether a unicast packet may be forwarded towards `destination` (RFC 1812 5.3.4, 5.3.7).
    pub fn is_forwardable(&self, destination: Ipv4Addr) -> bool {
        is_host(destination) && !self.attached.iter().any(|link| link.is_broadcast(destination))
    }

    /// Whether an ARP sender of this address is believed on `port`: on its link, a host there, and
    /// neither ours nor, on a client port, the gateway's.
    pub fn is_neighbor(&self, port: usize, address: Ipv4Addr) -> bool {
        let claims_gateway = port != UPLINK && self.gateway == Some(address);
        !self.is_own(address)
            && !claims_gateway
            && is_host(address)
            && self.attached.get(port).is_some_and(|link| link.is_host(address))
    }
}

/// Whether an address can be a host's at all: not 0/8, 127/8, group, 240/4 (RFC 1812 4.2.2.11).
fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_all_lengths() {
        assert_eq!(mask(0), 0);
        assert_eq!(mask(8), 0xff00_0000);
        assert_eq!(mask(32), u32::MAX);
    }

    #[test]
    fn rfc_1812_martians_are_no_hosts() {
        for martian in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"] {
            assert!(!is_host(martian.parse().unwrap()), "{martian}");
        }
        assert!(is_host(Ipv4Addr::new(198, 51, 100, 1)));
    }
}
