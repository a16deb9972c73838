//! A Linux router with the addresses of a site and nftables loaded from its rules, on taps in a namespace of its own.
//!
//! A frame written to a tap has been routed when the write returns: what leaves is there to be read. Nothing waits.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use qemu::command::mac_text;
use rules::site::{ClientNetwork, Site};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};
use tappers::Interface;
use tappers::linux::Tap;
use tests::world::{arp, arp_octets, frame, port_station, station};

use crate::listing;

/// Longer than any frame at the MTU of the sites.
const FRAME_MAX: usize = 4096;

/// Frames that one frame may cause, ARP included.
const CAUSED_MAX: usize = 64;

/// Does `work` on a thread in a fresh network namespace, which ends with it.
///
/// # Panics
/// If there can be none, and as `work` does.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        work()
    };
    let joined = thread::scope(|scope| scope.spawn(thread).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Why there can be no namespace with taps in it, and no nft, if so.
pub fn obstacle() -> Option<String> {
    in_namespace(|| {
        Tap::new_named(Interface::new("probe").map_err(said)?).map_err(|error| format!("no tap: {error}"))?;
        run("nft", &["--version"], "")
    })
}

/// What the kernel at hand has not been built with, if so: nothing that could be installed.
pub fn lack() -> Option<String> {
    let probe = "table inet probe {
  set s { type ipv4_addr . inet_service; flags dynamic, timeout; size 4; timeout 1m; }
  set i { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1-5 } }
  chain c { type filter hook forward priority 0; policy drop;
    ct state new limit rate 1/day counter quota 5 bytes log prefix \"x\" accept
    add @s { ip saddr . tcp dport } meta mark set 1 ct mark set 2
    ip saddr . tcp dport @i fib daddr type local tcp option maxseg size set 1000 reject
  }
}
table ip nat { chain c { type nat hook postrouting priority 100; oifname \"a\" masquerade; ip saddr 10.0.0.1 snat to 10.0.0.2; }; }
";
    in_namespace(|| run("nft", &["-f", "-"], probe))
}

fn in_namespace(attempt: impl FnOnce() -> Result<(), String> + Send) -> Option<String> {
    let thread = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        attempt()
    };
    let joined = thread::scope(|scope| scope.spawn(thread).join());
    joined.unwrap_or_else(|_| Err("a thread has panicked".into())).err()
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs a tool that only root has in its path; the error is what it said.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    output(program, arguments, input, Path::new("/")).map(drop)
}

fn output(program: &str, arguments: &[&str], input: &str, directory: &Path) -> Result<Vec<u8>, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads as far as it likes; its words tell.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(said)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The router; its ports are those of the site, in the same order.
pub struct Router {
    taps: Vec<Tap>,
}

impl Router {
    /// The router of a site, in this thread's namespace; it forwards everything until rules are loaded.
    ///
    /// # Panics
    /// If Linux refuses.
    pub fn new(site: &Site) -> Self {
        let names: Vec<&str> = names(site).collect();
        let taps = names.iter().map(|name| tap(name)).collect();
        let router = Self { taps };
        for (key, value) in sysctls(site) {
            let path = format!("/proc/sys/net/{key}");
            fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let plan = plan(site);
        run("ip", &["-batch", "-"], &plan).unwrap_or_else(|said| panic!("{plan}: {said}"));
        for name in names {
            for (key, value) in [("rp_filter", "1"), ("send_redirects", "0")] {
                let path = format!("/proc/sys/net/ipv4/conf/{name}/{key}");
                fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
        router
    }

    /// Loads the `rules.nft` of a site's directory as its owner would; the error is what nft says.
    ///
    /// # Errors
    /// What nft says against it.
    pub fn load(&self, directory: &Path) -> Result<(), String> {
        output("nft", &["-I", ".", "-f", "rules.nft"], "", directory).map(drop)
    }

    /// The counters of all rules, in the order of the listing: packets and octets.
    ///
    /// # Panics
    /// If nft does not list them.
    pub fn counters(&self) -> Vec<listing::Counter> {
        let listed = output("nft", &["-j", "list", "ruleset"], "", Path::new("/"));
        listing::counters(&listed.unwrap_or_else(|said| panic!("nft list ruleset: {said}")))
    }

    /// A frame arrives at a port; the IPv4 frames that leave for it, each with its port. Neighbours answer ARP.
    ///
    /// # Panics
    /// If the taps fail.
    pub fn send(&self, port: usize, octets: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.write(port, octets);
        let mut sent = Vec::new();
        for _ in 0..CAUSED_MAX {
            let mut asked = false;
            for port in 0..self.taps.len() {
                while let Some(octets) = self.read(port) {
                    match octets.get(12..14) {
                        Some([8, 0]) => sent.push((port, octets)),
                        Some([8, 6]) => asked |= self.hear(port, &octets),
                        _ => {}
                    }
                }
            }
            if !asked {
                return sent;
            }
        }
        panic!("the router does not come to rest");
    }

    fn write(&self, port: usize, octets: &[u8]) {
        let written = self.taps[port].send(octets).unwrap_or_else(|error| panic!("port {port}: {error}"));
        assert_eq!(written, octets.len(), "octets that port {port} took");
    }

    fn read(&self, port: usize) -> Option<Vec<u8>> {
        let mut octets = vec![0; FRAME_MAX];
        match self.taps[port].recv(&mut octets) {
            Ok(length) => {
                octets.truncate(length);
                Some(octets)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("port {port}: {error}"),
        }
    }

    /// A neighbour answers who asks for it.
    fn hear(&self, port: usize, octets: &[u8]) -> bool {
        let parsed = ArpPacket::new_checked(&octets[14..]).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: asker,
            source_protocol_addr,
            target_protocol_addr: target,
            ..
        }) = parsed
        else {
            return false;
        };
        let mac = station(target);
        let reply = arp(ArpOperation::Reply, (mac, target), (asker, source_protocol_addr));
        self.write(port, &frame(asker, mac, 0x0806, &arp_octets(&reply)));
        true
    }
}

fn tap(name: &str) -> Tap {
    let made = Interface::new(name).and_then(Tap::new_named);
    let tap = made.unwrap_or_else(|error| panic!("no tap {name}: {error}"));
    tap.set_nonblocking(true).unwrap_or_else(|error| panic!("tap {name}: {error}"));
    tap
}

fn names(site: &Site) -> impl Iterator<Item = &'static str> {
    std::iter::once("uplink").chain(site.clients.iter().map(|client| client.name))
}

/// A router that believes sources as the appliance does, and whose connections end when the appliance's do.
fn sysctls(site: &Site) -> Vec<(&'static str, String)> {
    let timeout = &site.nat.timeout;
    let fixed = [
        ("ipv4/ip_forward", 1),
        ("ipv4/conf/all/rp_filter", 1),
        ("ipv4/conf/all/send_redirects", 0),
        ("ipv4/conf/all/accept_redirects", 0),
        // Answers are compared, not their rates.
        ("ipv4/icmp_ratelimit", 0),
        ("ipv4/icmp_msgs_per_sec", 1_000_000),
        ("ipv4/icmp_msgs_burst", 1_000_000),
        ("ipv6/conf/all/disable_ipv6", 1),
        ("ipv6/conf/default/disable_ipv6", 1),
        ("netfilter/nf_conntrack_tcp_loose", u32::from(site.nat.pickup)),
        ("netfilter/nf_conntrack_udp_timeout", timeout.udp),
        ("netfilter/nf_conntrack_udp_timeout_stream", timeout.udp),
        ("netfilter/nf_conntrack_icmp_timeout", timeout.icmp),
        ("netfilter/nf_conntrack_generic_timeout", timeout.other),
        ("netfilter/nf_conntrack_tcp_timeout_established", timeout.tcp_established),
    ];
    let transitory = [
        "netfilter/nf_conntrack_tcp_timeout_syn_sent",
        "netfilter/nf_conntrack_tcp_timeout_syn_recv",
        "netfilter/nf_conntrack_tcp_timeout_fin_wait",
        "netfilter/nf_conntrack_tcp_timeout_close_wait",
        "netfilter/nf_conntrack_tcp_timeout_last_ack",
        "netfilter/nf_conntrack_tcp_timeout_time_wait",
        "netfilter/nf_conntrack_tcp_timeout_close",
    ];
    let transitory = transitory.map(|key| (key, timeout.tcp_transitory));
    fixed.into_iter().chain(transitory).map(|(key, value)| (key, value.to_string())).collect()
}

/// What `ip -batch` is told: addresses, hardware addresses and routes of the site.
fn plan(site: &Site) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    let mut port = |index: usize, name: &str, addresses: &[String], mtu: Option<u16>| {
        let mac = mac_text(port_station(index));
        lines.push(format!("link set {name} address {mac} mtu {}", mtu.unwrap_or(1500)));
        lines.extend(addresses.iter().map(|address| format!("address add {address} dev {name}")));
        lines.push(format!("link set {name} up"));
    };
    let host = |address: &Ipv4Addr| format!("{address}/32");
    let own = site.uplink.address;
    let mut uplink = vec![format!("{}/{}", own.address, own.length)];
    uplink.extend(site.uplink.extra.iter().map(host));
    port(0, "uplink", &uplink, site.uplink.mtu);
    for (index, client) in site.clients.iter().enumerate() {
        let address = match client.network {
            ClientNetwork::Subnet(length) => format!("{}/{length}", client.address),
            ClientNetwork::Peer(peer) => format!("{} peer {peer}", client.address),
        };
        port(index + 1, client.name, &[address], client.mtu);
    }
    lines.extend(site.uplink.gateway.map(|gateway| format!("route add default via {gateway}")));
    let route = |route: &rules::site::Route| {
        format!("route add {}/{} via {}", route.to.address, route.to.length, route.via)
    };
    lines.extend(site.routes.iter().map(route));
    lines.join("\n") + "\n"
}
