//! Where a packet goes next, and whether it may have come from where it came from.
//!
//! The table is built once from the site: own addresses, client subnets and peers, routes, the
//! default route through the uplink's gateway. Look-ups are exact longest-prefix matches over a
//! sorted list: sites have a handful of prefixes, and a scan of a few words beats a tree.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use rules::site::{ClientNetwork, Site};

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

/// The routing table of a site.
pub struct Routes {
    attached: Vec<Attached>,
    entries: Vec<Entry>,
    own: Vec<Ipv4Addr>,
    /// Own addresses that are external: the uplink's, and its extra ones.
    external: Vec<Ipv4Addr>,
    /// The same in order.
    sorted: Vec<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
}

impl Routes {
    /// The table of `site`.
    pub fn new(site: &'static Site) -> Self {
        let uplink = &site.uplink;
        let mut attached = Vec::with_capacity(site.clients.len() + 1);
        attached.push(Attached {
            address: uplink.address.address,
            network: uplink.address.address.to_bits() & mask(uplink.address.length),
            mask: mask(uplink.address.length),
            hosts: &[],
        });
        let mut entries = Vec::new();
        entries.push(Entry::new(uplink.address.address, uplink.address.length, UPLINK, None));
        for (index, client) in site.clients.iter().enumerate() {
            let (network, length) = match client.network {
                ClientNetwork::Subnet(length) => (client.address, length),
                ClientNetwork::Peer(peer) => (peer, 32),
            };
            attached.push(Attached {
                address: client.address,
                network: network.to_bits() & mask(length),
                mask: mask(length),
                hosts: client.hosts,
            });
            entries.push(Entry::new(network, length, index + 1, None));
        }
        for route in site.routes {
            let port = attached.iter().position(|link| link.is_on_link(route.via));
            if let Some(port) = port {
                entries.push(Entry::new(route.to.address, route.to.length, port, Some(route.via)));
            }
        }
        if let Some(gateway) = uplink.gateway {
            entries.push(Entry::new(Ipv4Addr::UNSPECIFIED, 0, UPLINK, Some(gateway)));
        }
        // Longest prefix first; the sort is stable, so links come ahead of routes of their size.
        entries.sort_by_key(|entry| core::cmp::Reverse(entry.mask));
        let mut external = Vec::with_capacity(uplink.extra.len() + 1);
        external.push(uplink.address.address);
        external.extend_from_slice(uplink.extra);
        let mut own = external.clone();
        own.extend(site.clients.iter().map(|client| client.address));
        own.dedup();
        let mut sorted = external.clone();
        sorted.sort_unstable();
        Self { attached, entries, own, external, sorted, gateway: uplink.gateway }
    }

    /// The next hop towards `destination`, or `None` where no route leads (ICMP 3/0).
    pub fn lookup(&self, destination: Ipv4Addr) -> Option<Hop> {
        let bits = destination.to_bits();
        let entry = self.entries.iter().find(|entry| entry.contains(bits))?;
        Some(Hop { port: usize::from(entry.port), next: entry.via.unwrap_or(destination) })
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
    pub fn source_is_behind(&self, port: usize, source: Ipv4Addr) -> bool {
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
