//! The network plan of a site: what `weir.toml` says, checked and with its defaults filled in.

use core::net::Ipv4Addr;

use crate::policy::Policy;

/// The largest packet that a port can be told to carry, in octets.
pub const MTU_MAX: u16 = 8166;

/// One site: addresses, clients, limits and the policy.
#[derive(Debug)]
pub struct Site {
    /// Memory the VM will have, in MiB, when the site says.
    pub memory: Option<u32>,
    /// The port towards the world, port index 0.
    pub uplink: Uplink,
    /// The client ports in the order of `weir.toml`: port index 1 and on, at most 32.
    pub clients: &'static [Client],
    /// Networks behind routers that are on-link at some port.
    pub routes: &'static [Route],
    /// Limits and timers of the translation.
    pub nat: Nat,
    /// What the appliance does when it panics.
    pub panic: PanicAction,
    /// The compiled `rules.nft`.
    pub policy: Policy,
}

/// An address with a prefix length: a network, or a host within its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; host bits are kept.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub length: u8,
}

impl Prefix {
    /// The network mask: the `length` leading bits set (32 when `length` is above 32).
    #[must_use]
    pub const fn mask(&self) -> u32 {
        if self.length == 0 {
            0
        } else if self.length >= 32 {
            u32::MAX
        } else {
            u32::MAX << (32 - self.length)
        }
    }

    /// Whether `address` is in this network.
    #[must_use]
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & self.mask() == 0
    }

    /// The first address of the network.
    #[must_use]
    pub const fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// The last address of the network.
    #[must_use]
    pub const fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// The directed broadcast address; a /31 (RFC 3021) and a /32 have none.
    #[must_use]
    pub const fn broadcast(&self) -> Option<Ipv4Addr> {
        if self.length >= 31 { None } else { Some(self.last()) }
    }

    /// Whether the two networks have an address in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        if self.length <= other.length { self.contains(other.address) } else { other.contains(self.address) }
    }
}

/// The port towards the world.
#[derive(Debug)]
pub struct Uplink {
    /// The appliance's own address with the prefix length of its network.
    pub address: Prefix,
    /// The default gateway, inside the uplink's network.
    pub gateway: Option<Ipv4Addr>,
    /// Further external addresses, answered by ARP, for `snat` and `dnat`.
    pub extra: &'static [Ipv4Addr],
    /// The MAC of the NIC to take; without it the first in bus order.
    pub mac: Option<[u8; 6]>,
    /// The MTU in octets, 68 to 65 535; without it what the device says.
    pub mtu: Option<u16>,
}

/// A client port.
#[derive(Debug)]
pub struct Client {
    /// The interface name in `rules.nft`: 1 to 15 of a-z A-Z 0-9 _ . -
    pub name: &'static str,
    /// The appliance's own address on this port.
    pub address: Ipv4Addr,
    /// Who is on the link.
    pub network: ClientNetwork,
    /// The MAC of the NIC to take; without it the next in bus order.
    pub mac: Option<[u8; 6]>,
    /// The on-link sources believed on this port; empty: the whole subnet.
    pub hosts: &'static [Ipv4Addr],
    /// The MTU in octets, 68 to 65 535; without it what the device says.
    pub mtu: Option<u16>,
    /// A place of `[hotplug]`: for NICs that no other client waits for.
    pub is_hotplug: bool,
}

/// Who is on a client's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientNetwork {
    /// The subnet of the appliance's address, by its prefix length (1 to 31).
    Subnet(u8),
    /// One host, point to point.
    Peer(Ipv4Addr),
}

impl Client {
    /// The on-link network: the subnet, or the peer as a /32.
    #[must_use]
    pub const fn on_link(&self) -> Prefix {
        match self.network {
            ClientNetwork::Subnet(length) => Prefix { address: self.address, length },
            ClientNetwork::Peer(address) => Prefix { address, length: 32 },
        }
    }
}

/// A static route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network reached; no host bits are set.
    pub to: Prefix,
    /// The next hop, on-link at some port.
    pub via: Ipv4Addr,
}

/// Limits, timers and behaviour of the translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// The number of sessions that the table holds, 16 to 1 048 576.
    pub sessions: u32,
    /// The first and the last port of the dynamic pool, within 1024 to 65 535.
    pub external_ports: (u16, u16),
    /// Who may answer to a mapping, per protocol (RFC 4787 REQ-8).
    pub filtering: Filterings,
    /// How long a released port waits for its next owner, in seconds, at most 86 400.
    pub port_rest: u32,
    /// The ports of each host behind a client (RFC 7422), of one external address; 0: all share one pool.
    ///
    /// The host of number n, see [`Site::host_number`], has the nth block of this size: blocks fill
    /// `external_ports` of the addresses of [`Site::shared`](Site::shared()), one after the other.
    pub port_blocks: u32,
    /// The mappings kept for each client; 0: the pool divided by twice the clients.
    pub client_floor: u32,
    /// The most mappings of a client; 0: the pool less the others' unused floors.
    pub client_ceiling: u32,
    /// Idle times.
    pub timeout: Timeouts,
    /// Whether inbound packets refresh a mapping too (RFC 4787 REQ-6).
    pub inbound_refresh: bool,
    /// Whether a TCP segment of no session, and in the middle of a stream, opens one.
    pub pickup: bool,
    /// What an unsolicited inbound SYN is told (RFC 5382 REQ-4).
    pub syn_answer: SynAnswer,
    /// The pool for fragments held, in octets, 64 KiB to 16 MiB.
    pub fragments: u32,
}

/// Who may answer to a mapping (RFC 4787, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Addresses that the internal endpoint has sent to.
    AddressDependent,
    /// Endpoints that the internal endpoint has sent to.
    AddressAndPortDependent,
}

/// The filtering of each protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filterings {
    /// Of TCP.
    pub tcp: Filtering,
    /// Of UDP.
    pub udp: Filtering,
    /// Of ICMP queries.
    pub icmp: Filtering,
}

impl Filterings {
    /// The same for every protocol.
    #[must_use]
    pub const fn all(filtering: Filtering) -> Self {
        Self { tcp: filtering, udp: filtering, icmp: filtering }
    }
}

/// What an unsolicited inbound SYN is told (RFC 5382 REQ-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynAnswer {
    /// Nothing.
    Silent,
    /// ICMP port unreachable, when six seconds have passed without a SYN from inside.
    PortUnreachable,
}

/// Idle times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP, RFC 4787 REQ-5: at least 120.
    pub udp: u32,
    /// A shorter time for UDP to some well-known ports.
    pub udp_short: Option<UdpShort>,
    /// Established TCP, RFC 5382 REQ-5: at least 7440.
    pub tcp_established: u32,
    /// Opening, closing or reset TCP, RFC 5382 REQ-5: at least 240.
    pub tcp_transitory: u32,
    /// ICMP queries, RFC 5508 REQ-2: at least 60.
    pub icmp: u32,
    /// Every other protocol.
    pub other: u32,
}

/// The idle time of UDP to well-known destination ports (RFC 4787 REQ-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpShort {
    /// The destination ports, ranges within 1 to 1023, sorted and apart.
    pub ports: &'static [(u16, u16)],
    /// The idle time in seconds, at most that of other UDP.
    pub seconds: u32,
}

impl Timeouts {
    /// What holds when the site says nothing.
    pub const DEFAULT: Self =
        Self { udp: 300, udp_short: None, tcp_established: 7440, tcp_transitory: 240, icmp: 60, other: 600 };
}

impl Nat {
    /// What holds when the site says nothing.
    pub const DEFAULT: Self = Self {
        sessions: 65_536,
        external_ports: (1024, 65_535),
        filtering: Filterings::all(Filtering::AddressAndPortDependent),
        port_rest: 120,
        port_blocks: 0,
        client_floor: 0,
        client_ceiling: 0,
        timeout: Timeouts::DEFAULT,
        inbound_refresh: false,
        pickup: false,
        syn_answer: SynAnswer::Silent,
        fragments: 2 << 20,
    };
}

/// What the appliance does when it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicAction {
    /// It switches itself off.
    PowerOff,
    /// It starts again.
    Reboot,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: [u8; 4], length: u8) -> Prefix {
        Prefix { address: address.into(), length }
    }

    #[test]
    fn a_prefix_knows_its_ends() {
        let subnet = prefix([10, 0, 1, 1], 24);
        assert_eq!(subnet.network(), Ipv4Addr::new(10, 0, 1, 0));
        assert_eq!(subnet.broadcast(), Some(Ipv4Addr::new(10, 0, 1, 255)));
        assert!(
            subnet.contains(Ipv4Addr::new(10, 0, 1, 200)) && !subnet.contains(Ipv4Addr::new(10, 0, 2, 1))
        );
        // RFC 3021: a /31 has two hosts and no broadcast address.
        assert_eq!(
            (prefix([10, 0, 1, 1], 31).broadcast(), prefix([10, 0, 1, 1], 32).broadcast()),
            (None, None)
        );
        assert!(prefix([0; 4], 0).contains(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(prefix([10, 0, 0, 0], 8).overlaps(&prefix([10, 9, 9, 9], 32)));
        assert!(prefix([10, 9, 9, 9], 32).overlaps(&prefix([10, 0, 0, 0], 8)));
        assert!(!prefix([10, 0, 1, 0], 24).overlaps(&prefix([10, 0, 2, 0], 24)));
    }
}
