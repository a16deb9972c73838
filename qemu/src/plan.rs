//! What the launcher needs to know of a site: the ports, their MACs, and addresses for simulated neighbours.

use crate::error::{Error, Result};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use std::net::Ipv4Addr;

/// The network plan of a site, ports in the order of their devices: the uplink, then the clients of weir.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the site wants the VM to have, in MiB.
    pub memory: Option<u32>,
    /// The port to the outside.
    pub uplink: Uplink,
    /// The ports to client VMs.
    pub clients: Vec<Client>,
}

/// The uplink port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The appliance's own external address and its prefix length.
    pub address: Ipv4Cidr,
    /// The next hop outside.
    pub gateway: Option<Ipv4Addr>,
    /// Further external addresses.
    pub extra: Vec<Ipv4Addr>,
    /// The MAC of its device: the site's, or a generated one.
    pub mac: EthernetAddress,
}

/// A client port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name in weir.toml and rules.nft.
    pub name: String,
    /// The appliance's own address there.
    pub gateway: Ipv4Addr,
    /// An address for a simulated client VM.
    pub host: Ipv4Addr,
    /// The prefix length of the subnet, or 32 for a point-to-point client.
    pub length: u8,
    /// The MAC of its device: the site's, or a generated one.
    pub mac: EthernetAddress,
    /// A place of `[hotplug]`, for a NIC that comes.
    pub is_hotplug: bool,
}

impl Client {
    /// The addresses that a simulated client's interface wants.
    ///
    /// A point-to-point client has no subnet, but its stack believes ARP from its own networks only: it gets the pair
    /// that holds the gateway besides.
    pub fn host_addresses(&self) -> Vec<Ipv4Cidr> {
        let mut addresses = vec![Ipv4Cidr::new(self.host, self.length)];
        if self.length == 32 {
            let neighbour = Ipv4Addr::from_bits(self.gateway.to_bits() ^ 1);
            addresses.push(Ipv4Cidr::new(neighbour, 31));
        }
        addresses
    }
}

/// The addresses of QEMU's user-mode network on the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNetwork {
    /// The network, with host bits zero.
    pub network: Ipv4Cidr,
    /// QEMU's own address there, which also stands for the host's loopback.
    pub host: Ipv4Addr,
    /// Where QEMU forwards DNS.
    pub dns: Ipv4Addr,
    /// The first address QEMU would lend.
    pub dhcp: Ipv4Addr,
}

impl Plan {
    /// Reads the plan of a compiled site. MACs that the site leaves open are generated from `seed`: stable for a seed,
    /// locally unique, and never one that the site gives to another port.
    pub fn of(site: &rules::site::Site, seed: &str) -> Self {
        let given: Vec<Option<[u8; 6]>> =
            std::iter::once(site.uplink.mac).chain(site.clients.iter().map(|client| client.mac)).collect();
        let mut macs = macs(&given, seed).into_iter();
        let mut next_mac = || macs.next().unwrap_or_default();
        let uplink = Uplink {
            address: Ipv4Cidr::new(site.uplink.address.address, site.uplink.address.length),
            gateway: site.uplink.gateway,
            extra: site.uplink.extra.to_vec(),
            mac: next_mac(),
        };
        let clients = site
            .clients
            .iter()
            .map(|client| {
                let (length, host) = match client.network {
                    rules::site::ClientNetwork::Subnet(length) => {
                        let host = client.hosts.first().copied();
                        (
                            length,
                            host.unwrap_or_else(|| {
                                free_host(Ipv4Cidr::new(client.address, length), &[client.address])
                                    .unwrap_or(client.address)
                            }),
                        )
                    }
                    rules::site::ClientNetwork::Peer(peer) => (32, peer),
                };
                Client {
                    name: client.name.to_owned(),
                    gateway: client.address,
                    host,
                    length,
                    mac: next_mac(),
                    is_hotplug: client.is_hotplug,
                }
            })
            .collect();
        Self { memory: site.memory, uplink, clients }
    }

    /// The plan with those clients only that have to be connected: without places of `[hotplug]`, unless one is
    /// `given`; and without all that are not, if they may come later.
    pub fn to_connect(&self, given: &[&str], may_come: bool) -> Self {
        let is_kept =
            |client: &&Client| given.contains(&client.name.as_str()) || !may_come && !client.is_hotplug;
        Self { clients: self.clients.iter().filter(is_kept).cloned().collect(), ..self.clone() }
    }

    /// Every address that may stand as a source on the uplink.
    pub fn external(&self) -> Vec<Ipv4Addr> {
        std::iter::once(self.uplink.address.address()).chain(self.uplink.extra.iter().copied()).collect()
    }

    /// A user-mode network that fits the uplink: QEMU becomes its gateway.
    ///
    /// # Errors
    /// The uplink's subnet has no room for the three addresses QEMU wants besides the appliance's own.
    pub fn user_network(&self) -> Result<UserNetwork> {
        let subnet = self.uplink.address;
        let mut taken = self.external();
        let mut take = |wanted: Option<Ipv4Addr>| {
            let address = wanted.or_else(|| free_host(subnet, &taken))?;
            taken.push(address);
            Some(address)
        };
        let addresses = (|| Some((take(self.uplink.gateway)?, take(None)?, take(None)?)))();
        let (host, dns, dhcp) = addresses.ok_or_else(|| {
            Error::new(format!("the uplink's subnet {subnet} is too small for a user-mode network")).advise(
                "give the uplink at least a /29 in weir.toml, or connect it to a tap: --uplink tap:IF",
            )
        })?;
        Ok(UserNetwork { network: subnet.network(), host, dns, dhcp })
    }
}

/// The lowest host address of a subnet that is not taken.
fn free_host(subnet: Ipv4Cidr, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let first = subnet.network().address().to_bits();
    let size = 1_u64 << (32 - u32::from(subnet.prefix_len()));
    // Network and broadcast address are no hosts, except in a /31 (RFC 3021).
    let hosts = if size > 2 { 1..size - 1 } else { 0..size };
    // One more than is taken is always enough to look at.
    let looked_at = hosts.take(taken.len() + 1);
    looked_at
        .filter_map(|offset| u32::try_from(offset).ok())
        .map(|offset| Ipv4Addr::from_bits(first.wrapping_add(offset)))
        .find(|address| !taken.contains(address))
}

/// One MAC a port: the given one, else 52:54:00 (the range of QEMU's own), two octets of the seed, and the port's number.
fn macs(given: &[Option<[u8; 6]>], seed: &str) -> Vec<EthernetAddress> {
    let [_, _, _, _, _, _, high, low] = fnv(seed.as_bytes()).to_be_bytes();
    let mut number = 0_u8;
    let mut generate = || loop {
        let mac = [0x52, 0x54, 0x00, high, low, number];
        number = number.wrapping_add(1);
        if !given.contains(&Some(mac)) {
            return mac;
        }
    };
    given.iter().map(|mac| EthernetAddress(mac.unwrap_or_else(&mut generate))).collect()
}

/// FNV-1a, 64 bits: the same everywhere and for ever, which is all that is asked of it.
pub(crate) fn fnv(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(address: &str, gateway: Option<&str>) -> Plan {
        let uplink = Uplink {
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            extra: vec![],
            mac: EthernetAddress::default(),
        };
        Plan { memory: None, uplink, clients: vec![] }
    }

    #[test]
    fn the_user_network_of_the_default_site() {
        let user = plan("192.0.2.2/24", Some("192.0.2.1")).user_network().unwrap();
        assert_eq!(user.network.to_string(), "192.0.2.0/24");
        assert_eq!([user.host, user.dns, user.dhcp], [1, 3, 4].map(|last| Ipv4Addr::new(192, 0, 2, last)));
    }

    #[test]
    fn the_user_network_keeps_off_external_addresses() {
        let mut plan = plan("192.0.2.1/29", None);
        plan.uplink.extra = vec![Ipv4Addr::new(192, 0, 2, 2)];
        let user = plan.user_network().unwrap();
        assert_eq!([user.host, user.dns, user.dhcp], [3, 4, 5].map(|last| Ipv4Addr::new(192, 0, 2, last)));
    }

    #[test]
    fn a_tiny_subnet_is_refused_with_advice() {
        for address in ["192.0.2.2/30", "192.0.2.2/31", "192.0.2.2/32"] {
            let error = plan(address, None).user_network().unwrap_err().to_string();
            assert!(error.contains("too small") && error.contains("tap:"), "{error}");
        }
    }

    #[test]
    fn generated_macs_are_stable_distinct_and_keep_off_given_ones() {
        let free = macs(&[None, None, None], "/etc/weir");
        assert_eq!(free, macs(&[None, None, None], "/etc/weir"));
        assert_ne!(free, macs(&[None, None, None], "/etc/other"));
        let mixed = macs(&[None, Some(free[0].0), None], "/etc/weir");
        assert_eq!(mixed, [free[1], free[0], free[2]]);
    }

    #[test]
    fn a_simulated_client_gets_the_first_free_host() {
        let subnet = "10.0.1.1/24".parse().unwrap();
        assert_eq!(free_host(subnet, &[Ipv4Addr::new(10, 0, 1, 1)]), Some(Ipv4Addr::new(10, 0, 1, 2)));
        assert_eq!(
            free_host("10.0.1.1/31".parse().unwrap(), &[Ipv4Addr::new(10, 0, 1, 1)]),
            Some(Ipv4Addr::new(10, 0, 1, 0))
        );
        assert_eq!(free_host("10.0.1.1/32".parse().unwrap(), &[Ipv4Addr::new(10, 0, 1, 1)]), None);
    }

    #[test]
    fn a_point_to_point_client_hears_its_gateway() {
        let client = Client {
            name: "vault".into(),
            gateway: Ipv4Addr::new(10, 137, 0, 1),
            host: Ipv4Addr::new(10, 137, 0, 10),
            length: 32,
            mac: EthernetAddress::default(),
            is_hotplug: false,
        };
        let addresses = client.host_addresses();
        assert_eq!(addresses[0].to_string(), "10.137.0.10/32");
        assert!(addresses.iter().any(|cidr| cidr.contains_addr(&client.gateway)));
        assert!(addresses.iter().all(|cidr| cidr.address() != client.gateway));
    }
}
