//! The network plan as it is compiled, before it becomes static.

use std::net::Ipv4Addr;
use std::ops::Range;

use rules::site::{ClientNetwork, Nat, PanicAction, Prefix, Route};

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub memory: Option<u32>,
    /// Where it stands in weir.toml.
    pub memory_span: Range<usize>,
    pub uplink: Uplink,
    pub clients: Vec<Client>,
    pub routes: Vec<Route>,
    /// How many hosts may be behind the clients, see `Site::host_count`.
    pub hosts: u64,
    /// Where `port_blocks` stands.
    pub blocks_span: Range<usize>,
    pub nat: Nat,
    /// Over `nat.timeout.udp_short`, which is static.
    pub udp_short: Option<UdpShort>,
    pub panic: PanicAction,
    /// Whether every line was understood; if not, what depends on addresses is not judged.
    pub is_sound: bool,
}

/// A shorter idle time for UDP to these ports.
#[derive(Debug, Clone)]
pub(crate) struct UdpShort {
    pub ports: Vec<(u16, u16)>,
    pub seconds: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    pub address: Prefix,
    pub gateway: Option<Ipv4Addr>,
    pub extra: Vec<Ipv4Addr>,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u16>,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub name: String,
    pub address: Ipv4Addr,
    pub network: ClientNetwork,
    pub mac: Option<[u8; 6]>,
    pub hosts: Vec<Ipv4Addr>,
    pub mtu: Option<u16>,
    /// Made from `[hotplug]`.
    pub is_hotplug: bool,
}

impl Client {
    pub fn on_link(&self) -> Prefix {
        match self.network {
            ClientNetwork::Subnet(length) => Prefix { address: self.address, length },
            ClientNetwork::Peer(address) => Prefix { address, length: 32 },
        }
    }
}

impl Plan {
    /// The port of a name: 0 for the uplink, 1 and on for the clients.
    pub fn port(&self, name: &str) -> Option<u8> {
        if name == "uplink" {
            return Some(0);
        }
        let index = self.clients.iter().position(|client| client.name == name)?;
        u8::try_from(index + 1).ok()
    }

    /// All interface names, in the order of their ports.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once("uplink").chain(self.clients.iter().map(|client| client.name.as_str()))
    }

    /// Whether a host of this address is behind a client port: on its link, or through a route.
    pub fn is_behind_a_client(&self, address: Ipv4Addr) -> bool {
        // Own addresses, and those of networks themselves and of all of their hosts.
        let is_none = |client: &Client| {
            let link = client.on_link();
            let is_end = link.length < 31 && (address == link.network() || link.broadcast() == Some(address));
            client.address == address || is_end
        };
        if self.clients.iter().any(is_none) {
            return false;
        }
        let behind = |address: Ipv4Addr| self.clients.iter().any(|c| c.on_link().contains(address));
        let route = self
            .routes
            .iter()
            .filter(|route| route.to.contains(address))
            .max_by_key(|route| route.to.length)
            .is_some_and(|route| behind(route.via));
        behind(address) || route
    }

    /// The external addresses: the uplink's own, then `extra`.
    pub fn external(&self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(self.uplink.address.address).chain(self.uplink.extra.iter().copied())
    }

    /// Whether the appliance answers for this address on its uplink.
    pub fn is_external(&self, address: Ipv4Addr) -> bool {
        self.external().any(|own| own == address)
    }
}
