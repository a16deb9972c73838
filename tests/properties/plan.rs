//! Any site: its clients, how it translates, what it chooses of `[nat]`.

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

/// A client network of a site.
#[derive(Clone, Debug)]
pub enum Network {
    Subnet,
    Peer,
}

/// How sources are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// To the uplink's address.
    Masquerade,
    /// To the uplink's address, UDP and TCP to some of its ports.
    Ports,
    /// The first client to an address of its own.
    Own,
    /// To several addresses, each client to one of them.
    Pool,
    /// Each host to a block of ports (RFC 7422).
    Blocks,
}

/// What a site is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: Vec<Network>,
    pub source: Source,
    pub narrow: bool,
    pub mtu: Option<u16>,
    pub lines: Vec<String>,
}

impl Plan {
    /// Any of them.
    pub fn any() -> impl Strategy<Value = Self> {
        let network = prop_oneof![3 => Just(Network::Subnet), 1 => Just(Network::Peer)];
        let filtering = prop_oneof![
            Just("address-and-port-dependent"),
            Just("address-dependent"),
            Just("endpoint-independent")
        ];
        let numbers =
            (prop_oneof![Just(16u32), Just(64), Just(1024)], prop_oneof![Just(0u32), Just(3), Just(120)]);
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        let source = prop_oneof![
            Just(Source::Masquerade),
            Just(Source::Ports),
            Just(Source::Own),
            Just(Source::Pool),
            Just(Source::Blocks)
        ];
        let mtu = proptest::option::of(prop_oneof![Just(576u16), Just(1400)]);
        (vec(network, 1..5), filtering, numbers, flags, source, mtu, 0u32..3).prop_map(
            |(clients, filtering, (sessions, rest), (pickup, refresh, narrow), source, mtu, floor)| {
                let narrow = narrow && ![Source::Blocks, Source::Ports].contains(&source);
                let pool = if narrow { 64 } else { 64_512 };
                let floor = floor.min(pool / clients.len() as u32);
                let mut lines = vec![
                    format!("sessions = {sessions}"),
                    format!("filtering = \"{filtering}\""),
                    format!("port_rest = {rest}"),
                    format!("pickup = {pickup}"),
                    format!("inbound_refresh = {refresh}"),
                    format!("client_floor = {floor}"),
                    format!("external_ports = \"1024-{}\"", if narrow { 1087 } else { 65_535 }),
                ];
                if source == Source::Blocks {
                    lines.push("port_blocks = 32".to_owned());
                }
                Self { clients, source, narrow, mtu, lines }
            },
        )
    }

    /// Its `weir.toml`.
    pub fn text(&self) -> String {
        let mut text = String::from("[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n");
        if [Source::Own, Source::Pool].contains(&self.source) {
            text += "extra = [\"192.0.2.3\", \"192.0.2.4\"]\n";
        }
        if let Some(mtu) = self.mtu {
            text += &format!("mtu = {mtu}\n");
        }
        for (n, network) in self.clients.iter().enumerate() {
            text += &format!("[[client]]\nname = \"c{n}\"\n");
            text += &match network {
                Network::Subnet => format!("address = \"10.0.{n}.1/24\"\n"),
                Network::Peer => format!("address = \"10.137.0.1\"\npeer = \"10.137.{n}.10\"\n"),
            };
        }
        text + "[nat]\n" + &self.lines.join("\n") + "\n"
    }

    /// Its `rules.nft`.
    pub fn rules(&self) -> String {
        let snat = match self.source {
            Source::Masquerade | Source::Blocks => "oifname \"uplink\" masquerade",
            Source::Ports => {
                "oifname \"uplink\" meta l4proto { tcp, udp } masquerade to :20000-20063
                 oifname \"uplink\" masquerade"
            }
            Source::Own => {
                "iifname \"c0\" oifname \"uplink\" snat to 192.0.2.3
                 oifname \"uplink\" masquerade"
            }
            Source::Pool => "oifname \"uplink\" snat to 192.0.2.3-192.0.2.4",
        };
        format!(
            "table ip nat {{
               chain postrouting {{
                 type nat hook postrouting priority srcnat;
                 {snat}
               }}
             }}
             table ip filter {{
               chain forward {{
                 type filter hook forward priority filter; policy drop;
                 ct state invalid drop
                 ct state established,related accept
                 ct status dnat accept
                 oifname \"uplink\" accept
                 tcp dport 7000 accept
                 udp dport 7000 accept
               }}
               chain input {{
                 type filter hook input priority filter; policy drop;
                 icmp type echo-request accept
               }}
             }}"
        )
    }

    /// A host of a client.
    pub fn host(&self, client: usize, host: u8) -> Ipv4Addr {
        match self.clients[client] {
            Network::Subnet => Ipv4Addr::new(10, 0, client as u8, 2 + host % 3),
            Network::Peer => Ipv4Addr::new(10, 137, client as u8, 10),
        }
    }
}
