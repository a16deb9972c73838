//! `weir.toml`: keys, types and single values. What several values mean together is judged in `check`.

use std::net::Ipv4Addr;
use std::ops::Range;

use rules::hosts::Area;
use rules::site::{ClientNetwork, PanicAction, Prefix, Route};
use toml::de::DeTable;

mod hotplug;
mod keys;
mod nat;
mod reader;

use nat::NatPlan;
use reader::{Reader, Section};

use crate::check;
use crate::diagnostics::{Diagnostics, quoted};
use crate::names;
use crate::plan::{Client, Plan, Uplink};
use crate::source::Source;

pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// The uplink as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct UplinkDraft {
    pub address: Option<At<Prefix>>,
    pub gateway: Option<At<Ipv4Addr>>,
    pub extra: Vec<At<Ipv4Addr>>,
    pub mac: Option<At<[u8; 6]>>,
    pub mtu: Option<u16>,
}

/// A client as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct ClientDraft {
    pub name: Option<At<String>>,
    pub address: Option<At<Ipv4Addr>>,
    pub network: Option<At<ClientNetwork>>,
    pub mac: Option<At<[u8; 6]>>,
    pub hosts: Vec<At<Ipv4Addr>>,
    pub mtu: Option<u16>,
    pub is_hotplug: bool,
}

/// A route as far as it could be read.
#[derive(Debug)]
pub(crate) struct RouteDraft {
    pub to: At<Prefix>,
    pub via: At<Ipv4Addr>,
}

/// The addresses of a plan, with their places.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub uplink: UplinkDraft,
    pub clients: Vec<ClientDraft>,
    pub routes: Vec<RouteDraft>,
}

impl Draft {
    /// How many hosts may be behind the clients, as `Site::host_count` has it.
    fn host_count(&self) -> u64 {
        let on_link = |client: &ClientDraft| {
            let address = client.address.as_ref()?.value;
            match client.network.as_ref()?.value {
                ClientNetwork::Subnet(length) => Some(Prefix { address, length }),
                ClientNetwork::Peer(address) => Some(Prefix { address, length: 32 }),
            }
        };
        let clients = self.clients.iter().filter_map(|client| match client.hosts.len() {
            0 => on_link(client).map(|prefix| Area::Network(prefix).size()),
            listed => Some(listed as u64),
        });
        let links: Vec<Prefix> = self.clients.iter().filter_map(on_link).collect();
        let routes =
            self.routes.iter().filter(|route| links.iter().any(|link| link.contains(route.via.value)));
        clients.sum::<u64>() + routes.map(|route| Area::Network(route.to.value).size()).sum::<u64>()
    }
}

/// The most clients a site may have; a port's index is an octet, and sets of ports are kept small.
pub(crate) const CLIENTS_MAX: usize = 32;

/// The most further addresses of the uplink.
const EXTRA_MAX: usize = 256;

/// The most hosts listed for a client.
const HOSTS_MAX: usize = 1024;

/// The most static routes.
const ROUTES_MAX: usize = 256;

/// Reads the plan; everything wrong with it is told.
pub(crate) fn read(source: &Source, diagnostics: &mut Diagnostics) -> Plan {
    let before = diagnostics.errors();
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        diagnostics.error(source, span, error.message().to_owned());
    }
    let mut reader = Reader { source, diagnostics };
    let top = Section { title: "weir.toml".to_owned(), table: root.get_ref(), span: 0..0 };
    reader.keys(&top, &keys::TOP, &[]);
    let mut clients = reader.clients(&top);
    clients.extend(reader.hotplug(&top, clients.len()));
    let draft = Draft { uplink: reader.uplink(&top), clients, routes: reader.routes(&top) };
    let memory = reader.memory(&top);
    let nat = reader.nat(&top, &draft);
    let panic = reader.panic(&top);
    check::plan(&draft, source, diagnostics);
    let is_sound = diagnostics.errors() == before;
    plan(draft, memory, nat, panic, is_sound)
}

fn plan(draft: Draft, memory: Option<At<u32>>, nat: NatPlan, panic: PanicAction, is_sound: bool) -> Plan {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let hosts = draft.host_count();
    let uplink = Uplink {
        address: draft.uplink.address.map_or(Prefix { address: nowhere, length: 32 }, |at| at.value),
        gateway: draft.uplink.gateway.map(|at| at.value),
        extra: draft.uplink.extra.into_iter().map(|at| at.value).collect(),
        mac: draft.uplink.mac.map(|at| at.value),
        mtu: draft.uplink.mtu,
    };
    let client = |client: ClientDraft| Client {
        name: client.name.map_or_else(String::new, |at| at.value),
        address: client.address.map_or(nowhere, |at| at.value),
        network: client.network.map_or(ClientNetwork::Peer(nowhere), |at| at.value),
        mac: client.mac.map(|at| at.value),
        hosts: client.hosts.into_iter().map(|at| at.value).collect(),
        mtu: client.mtu,
        is_hotplug: client.is_hotplug,
    };
    Plan {
        hosts,
        blocks_span: nat.blocks_span,
        memory: memory.as_ref().map(|at| at.value),
        memory_span: memory.map_or(0..0, |at| at.span),
        uplink,
        clients: draft.clients.into_iter().map(client).collect(),
        routes: draft.routes.iter().map(|r| Route { to: r.to.value, via: r.via.value }).collect(),
        nat: nat.nat,
        udp_short: nat.udp_short,
        panic,
        is_sound,
    }
}

/// Whether it has the form of an interface's name.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=15).contains(&text.len()) && text.chars().all(is_plain)
}

impl Reader<'_> {
    fn missing(&mut self, section: &Section, key: &str, example: &str) {
        let span = section.span.start..section.span.start;
        self.error(span, format!("{} has no {}, such as {key} = \"{example}\"", section.title, quoted(key)));
    }

    fn uplink(&mut self, top: &Section) -> UplinkDraft {
        let Some(section) = self.section(top, "uplink") else {
            if self.get(top, "uplink").is_none() {
                self.error(0..0, "weir.toml has no [uplink]");
            }
            return UplinkDraft::default();
        };
        self.keys(&section, &keys::UPLINK, &[]);
        let address = match self.text(&section, "address") {
            None => {
                if self.get(&section, "address").is_none() {
                    self.missing(&section, "address", "192.0.2.2/24");
                }
                None
            }
            Some(text) if text.value == "dhcp" => {
                let message = "address = \"dhcp\": the image has no DHCP client yet; give a static address";
                self.error(text.span, message);
                None
            }
            Some(text) if !text.value.contains('/') && names::address(text.value).is_ok() => {
                self.error(
                    text.span,
                    "the uplink's address needs its prefix length, such as \"192.0.2.2/24\"",
                );
                None
            }
            Some(text) => self.prefix(text),
        };
        let gateway = self.text(&section, "gateway").and_then(|text| self.address(text));
        let extra = self.texts(&section, "extra", EXTRA_MAX);
        let extra = extra.into_iter().filter_map(|text| self.address(text)).collect();
        UplinkDraft { address, gateway, extra, mac: self.mac(&section), mtu: self.mtu(&section) }
    }

    fn clients(&mut self, top: &Section) -> Vec<ClientDraft> {
        let sections = self.sections(top, "client");
        if let Some(over) = sections.get(CLIENTS_MAX) {
            let span = over.span.start..over.span.start;
            self.error(span, format!("a site has at most {CLIENTS_MAX} clients"));
        }
        sections.iter().take(CLIENTS_MAX).map(|section| self.client(section)).collect()
    }

    fn client(&mut self, section: &Section) -> ClientDraft {
        self.keys(section, &keys::CLIENT, &["dhcp"]);
        let (address, network) = self.client_network(section);
        let hosts = self.texts(section, "hosts", HOSTS_MAX);
        if let Some(list) = self.get(section, "hosts")
            && list.get_ref().as_array().is_some_and(|list| list.is_empty())
        {
            self.error(list.span(), "no host would be believed; leave \"hosts\" out for the whole subnet");
        }
        ClientDraft {
            name: self.name(section),
            address,
            network,
            mac: self.mac(section),
            hosts: hosts.into_iter().filter_map(|text| self.address(text)).collect(),
            mtu: self.mtu(section),
            is_hotplug: false,
        }
    }

    fn name(&mut self, section: &Section) -> Option<At<String>> {
        let Some(text) = self.text(section, "name") else {
            if self.get(section, "name").is_none() {
                self.missing(section, "name", "work");
            }
            return None;
        };
        if !is_name(text.value) {
            let name = quoted(text.value);
            self.error(text.span, format!("{name} is no client name: 1 to 15 of a-z A-Z 0-9 _ . -"));
            return None;
        }
        if ["uplink", "lo", "all"].contains(&text.value) {
            self.error(text.span, format!("{} is reserved; a client needs another name", quoted(text.value)));
            return None;
        }
        // The names of directories, which no interface of Linux may have.
        if [".", ".."].contains(&text.value) {
            self.error(text.span, format!("{} is no client name", quoted(text.value)));
            return None;
        }
        Some(At { value: text.value.to_owned(), span: text.span })
    }

    fn client_network(&mut self, section: &Section) -> (Option<At<Ipv4Addr>>, Option<At<ClientNetwork>>) {
        let peer = self.text(section, "peer").and_then(|text| self.address(text));
        let Some(text) = self.text(section, "address") else {
            if self.get(section, "address").is_none() {
                self.missing(section, "address", "10.0.1.1/24");
            }
            return (None, None);
        };
        let has_peer = self.get(section, "peer").is_some();
        if has_peer {
            if text.value.contains('/') && names::prefix(text.value).is_ok() {
                self.error(text.span, "a client with a peer has an address without a prefix length");
                return (None, None);
            }
            let network = peer.map(|peer| At { value: ClientNetwork::Peer(peer.value), span: peer.span });
            return (self.address(text), network);
        }
        if !text.value.contains('/') && names::address(text.value).is_ok() {
            let message = "the client's address needs a prefix length, such as \"10.0.1.1/24\", or a peer";
            self.error(text.span, message);
            return (None, None);
        }
        let Some(prefix) = self.prefix(text) else {
            return (None, None);
        };
        let network = At { value: ClientNetwork::Subnet(prefix.value.length), span: prefix.span.clone() };
        (Some(At { value: prefix.value.address, span: prefix.span }), Some(network))
    }

    fn routes(&mut self, top: &Section) -> Vec<RouteDraft> {
        let sections = self.sections(top, "route");
        if let Some(over) = sections.get(ROUTES_MAX) {
            let span = over.span.start..over.span.start;
            self.error(span, format!("a site has at most {ROUTES_MAX} routes"));
        }
        sections.iter().take(ROUTES_MAX).filter_map(|section| self.route(section)).collect()
    }

    fn route(&mut self, section: &Section) -> Option<RouteDraft> {
        self.keys(section, &keys::ROUTE, &[]);
        for (key, example) in [("to", "172.16.0.0/12"), ("via", "10.0.1.254")] {
            if self.get(section, key).is_none() {
                self.missing(section, key, example);
            }
        }
        let to = self.text(section, "to").and_then(|text| self.prefix(text));
        let via = self.text(section, "via").and_then(|text| self.address(text));
        Some(RouteDraft { to: to?, via: via? })
    }

    /// Memory in MiB, from "32M" or "1G".
    fn memory(&mut self, top: &Section) -> Option<At<u32>> {
        let text = self.text(top, "memory")?;
        let (digits, factor) = match text.value.as_bytes().last() {
            Some(b'M') => (text.value.strip_suffix('M'), 1),
            Some(b'G') => (text.value.strip_suffix('G'), 1024),
            _ => (None, 1),
        };
        let is_number =
            |digits: &&str| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let number = digits.filter(is_number).and_then(|digits| digits.parse::<u32>().ok());
        let mebibytes = number.and_then(|n| n.checked_mul(factor)).filter(|n| (4..=1_048_576).contains(n));
        if mebibytes.is_none() {
            let message = "memory must be a size from \"4M\" to \"1024G\", such as \"32M\"";
            self.error(text.span.clone(), message);
        }
        mebibytes.map(|value| At { value, span: text.span })
    }

    fn panic(&mut self, top: &Section) -> PanicAction {
        let Some(section) = self.section(top, "panic") else {
            return PanicAction::PowerOff;
        };
        self.keys(&section, &keys::PANIC, &[]);
        let Some(text) = self.text(&section, "action") else {
            return PanicAction::PowerOff;
        };
        match text.value {
            "poweroff" => PanicAction::PowerOff,
            "reboot" => PanicAction::Reboot,
            other => {
                self.error(
                    text.span,
                    format!("{} is no action; expected \"poweroff\" or \"reboot\"", quoted(other)),
                );
                PanicAction::PowerOff
            }
        }
    }
}
