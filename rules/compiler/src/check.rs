//! The network plan as a whole: which addresses may stand beside which.

use std::net::Ipv4Addr;

use rules::site::{ClientNetwork, Prefix};

use crate::diagnostics::{Diagnostics, quoted};
use crate::site_file::{At, ClientDraft, Draft, Span};
use crate::source::Source;

/// Tells everything that is wrong with the addresses, names and MACs of a plan.
pub(crate) fn plan(draft: &Draft, source: &Source, diagnostics: &mut Diagnostics) {
    let mut check = Check { draft, source, diagnostics };
    check.names();
    check.macs();
    check.uplink();
    for client in &draft.clients {
        check.client(client);
    }
    check.networks();
    check.own_addresses();
    check.extra();
    check.routes();
}

struct Check<'a> {
    draft: &'a Draft,
    source: &'a Source,
    diagnostics: &'a mut Diagnostics,
}

/// What is wrong with an address as that of one host, if anything.
pub(crate) fn not_a_host(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("is unspecified or of \"this network\" (0.0.0.0/8)")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.octets()[0] >= 240 {
        Some("is reserved or the broadcast address (240.0.0.0/4)")
    } else {
        None
    }
}

/// What is wrong with an address as that of a host of this network, if anything.
fn not_a_host_of(prefix: Prefix) -> impl Fn(Ipv4Addr) -> Option<&'static str> {
    move |address| {
        if let Some(reason) = not_a_host(address) {
            Some(reason)
        } else if prefix.length < 31 && address == prefix.network() {
            Some("is the address of the network itself")
        } else if prefix.broadcast() == Some(address) {
            Some("is the broadcast address of its network")
        } else {
            None
        }
    }
}

fn shown(prefix: Prefix) -> String {
    format!("{}/{}", prefix.network(), prefix.length)
}

fn on_link(client: &ClientDraft) -> Option<At<Prefix>> {
    let network = client.network.as_ref()?;
    let value = match network.value {
        ClientNetwork::Peer(address) => Prefix { address, length: 32 },
        ClientNetwork::Subnet(length) => Prefix { address: client.address.as_ref()?.value, length },
    };
    Some(At { value, span: network.span.clone() })
}

impl Check<'_> {
    fn error(&mut self, span: &Span, message: String) {
        self.diagnostics.error(self.source, span.clone(), message);
    }

    fn names(&mut self) {
        let names: Vec<_> = self.draft.clients.iter().filter_map(|client| client.name.as_ref()).collect();
        for (index, name) in names.iter().enumerate() {
            if names.iter().take(index).any(|earlier| earlier.value == name.value) {
                self.error(&name.span, format!("a client named {} is there already", quoted(&name.value)));
            }
        }
    }

    fn macs(&mut self) {
        let draft = self.draft;
        let macs: Vec<_> =
            draft.uplink.mac.iter().chain(draft.clients.iter().filter_map(|c| c.mac.as_ref())).collect();
        for (index, mac) in macs.iter().enumerate() {
            if macs.iter().take(index).any(|earlier| earlier.value == mac.value) {
                self.error(&mac.span, "this MAC address is given to another port already".to_owned());
            }
        }
    }

    fn subnet(&mut self, address: &At<Prefix>) -> bool {
        let prefix = address.value;
        if !(1..=31).contains(&prefix.length) {
            self.error(&address.span, format!("a subnet's prefix length is 1 to 31, not {}", prefix.length));
            return false;
        }
        if let Some(reason) = not_a_host_of(prefix)(prefix.address) {
            self.error(&address.span, format!("{} {reason}", prefix.address));
            return false;
        }
        true
    }

    fn uplink(&mut self) {
        let draft = self.draft;
        let Some(address) = &draft.uplink.address else {
            return;
        };
        if !self.subnet(address) {
            return;
        }
        let Some(gateway) = &draft.uplink.gateway else {
            return;
        };
        if !address.value.contains(gateway.value) {
            let subnet = shown(address.value);
            self.error(
                &gateway.span,
                format!("the gateway {} is outside the uplink's subnet {subnet}", gateway.value),
            );
        } else if gateway.value == address.value.address {
            self.error(&gateway.span, "the gateway is the firewall's own address".to_owned());
        } else if let Some(reason) = not_a_host_of(address.value)(gateway.value) {
            self.error(&gateway.span, format!("the gateway {} {reason}", gateway.value));
        }
    }

    fn client(&mut self, client: &ClientDraft) {
        let (Some(address), Some(network)) = (&client.address, &client.network) else {
            return;
        };
        match network.value {
            ClientNetwork::Subnet(length) => {
                let subnet = Prefix { address: address.value, length };
                if self.subnet(&At { value: subnet, span: address.span.clone() }) {
                    self.hosts(client, subnet);
                }
            }
            ClientNetwork::Peer(peer) => {
                if let Some(reason) = not_a_host(address.value) {
                    self.error(&address.span, format!("{} {reason}", address.value));
                }
                if let Some(reason) = not_a_host(peer) {
                    self.error(&network.span, format!("{peer} {reason}"));
                } else if peer == address.value {
                    self.error(&network.span, "the peer has the firewall's own address".to_owned());
                }
                if let Some(host) = client.hosts.first() {
                    self.error(&host.span, "a client with a peer has no other hosts".to_owned());
                }
            }
        }
    }

    fn hosts(&mut self, client: &ClientDraft, subnet: Prefix) {
        for (index, host) in client.hosts.iter().enumerate() {
            let value = host.value;
            if !subnet.contains(value) {
                self.error(&host.span, format!("{value} is outside the client's subnet {}", shown(subnet)));
            } else if value == subnet.address {
                self.error(&host.span, format!("{value} is the firewall's own address"));
            } else if let Some(reason) = not_a_host_of(subnet)(value) {
                self.error(&host.span, format!("{value} {reason}"));
            } else if client.hosts.iter().take(index).any(|earlier| earlier.value == value) {
                self.error(&host.span, format!("{value} is listed twice"));
            }
        }
    }

    /// The on-link networks with the names of their ports.
    fn links(&self) -> Vec<(String, At<Prefix>)> {
        let draft = self.draft;
        let uplink = draft.uplink.address.clone().map(|address| ("the uplink".to_owned(), address));
        let clients = draft.clients.iter().filter_map(|client| {
            let name = client
                .name
                .as_ref()
                .map_or("another client".to_owned(), |name| format!("client {}", quoted(&name.value)));
            Some((name, on_link(client)?))
        });
        uplink.into_iter().chain(clients).collect()
    }

    fn networks(&mut self) {
        let links = self.links();
        for (index, (_, link)) in links.iter().enumerate() {
            let earlier = links.iter().take(index).find(|(_, earlier)| earlier.value.overlaps(&link.value));
            if let Some((name, earlier)) = earlier {
                let (this, that) = (shown(link.value), shown(earlier.value));
                let message = if this == that {
                    format!("{this} is the network of {name} already")
                } else {
                    format!("{this} overlaps {that} of {name}")
                };
                self.error(&link.span, message);
            }
        }
    }

    /// Own addresses of point-to-point ports lie in nobody's network; several such ports may share one.
    fn own_addresses(&mut self) {
        let links = self.links();
        for client in &self.draft.clients {
            let (Some(address), Some(network)) = (&client.address, &client.network) else {
                continue;
            };
            let ClientNetwork::Peer(peer) = network.value else {
                continue;
            };
            let taken =
                links.iter().find(|(_, link)| link.value.contains(address.value) && address.value != peer);
            if let Some((name, link)) = taken {
                let message = format!("{} is in {} of {name}", address.value, shown(link.value));
                self.error(&address.span, message);
            }
        }
    }

    fn extra(&mut self) {
        let draft = self.draft;
        let uplink = draft.uplink.address.as_ref().map(|at| at.value);
        let gateway = draft.uplink.gateway.as_ref().map(|at| at.value);
        let own: Vec<_> =
            draft.clients.iter().filter_map(|c| c.address.as_ref()).map(|at| at.value).collect();
        for (index, extra) in draft.uplink.extra.iter().enumerate() {
            let value = extra.value;
            let behind = draft.clients.iter().filter_map(on_link).any(|link| link.value.contains(value));
            let in_uplink = uplink.filter(|uplink| uplink.contains(value));
            let reason = in_uplink.map_or_else(|| not_a_host(value), |uplink| not_a_host_of(uplink)(value));
            if let Some(reason) = reason {
                self.error(&extra.span, format!("{value} {reason}"));
            } else if uplink.is_some_and(|uplink| uplink.address == value) || own.contains(&value) {
                self.error(&extra.span, format!("{value} is the firewall's own address already"));
            } else if gateway == Some(value) {
                self.error(&extra.span, format!("{value} is the gateway's address"));
            } else if behind {
                self.error(&extra.span, format!("{value} is in a client's network"));
            } else if draft.uplink.extra.iter().take(index).any(|earlier| earlier.value == value) {
                self.error(&extra.span, format!("{value} is listed twice"));
            }
        }
    }

    fn routes(&mut self) {
        let links = self.links();
        let draft = self.draft;
        for (index, route) in draft.routes.iter().enumerate() {
            let to = route.to.value;
            let earlier = draft.routes.iter().take(index).any(|earlier| earlier.to.value == to);
            let on_link = links.iter().find(|(_, link)| shown(link.value) == shown(to));
            if to.address != to.network() {
                let message =
                    format!("{}/{} has host bits set; the network is {}", to.address, to.length, shown(to));
                self.error(&route.to.span, message);
            } else if to.length > 0 && not_a_host(to.address).is_some() {
                self.error(&route.to.span, format!("no route leads to {}", shown(to)));
            } else if earlier {
                self.error(&route.to.span, format!("a route to {} is there already", shown(to)));
            } else if let Some((name, _)) = on_link {
                self.error(&route.to.span, format!("{} is the network of {name}", shown(to)));
            } else if to.length == 0 && draft.uplink.gateway.is_some() {
                self.error(&route.to.span, "the uplink's gateway is the default route already".to_owned());
            }
            self.via(&route.via, &links);
        }
    }

    fn via(&mut self, via: &At<Ipv4Addr>, links: &[(String, At<Prefix>)]) {
        let value = via.value;
        let link = links.iter().find(|(_, link)| link.value.contains(value));
        let own = self.draft.clients.iter().filter_map(|client| client.address.as_ref());
        let is_own = own.into_iter().any(|own| own.value == value)
            || self.draft.uplink.address.as_ref().is_some_and(|own| own.value.address == value);
        match link {
            _ if is_own => self.error(&via.span, format!("{value} is the firewall's own address")),
            // With a port that could not be read, nobody knows.
            None if links.len() <= self.draft.clients.len() => {}
            None => self.error(&via.span, format!("{value} is not on-link at any port")),
            Some((_, link)) => {
                if let Some(reason) = not_a_host_of(link.value)(value) {
                    self.error(&via.span, format!("{value} {reason}"));
                }
            }
        }
    }
}
