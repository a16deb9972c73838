//! The appliance and everything around it: simulated clients, servers outside, a capture of the uplink.

use crate::capture::Capture;
use crate::command::{Config, Netdev, Port};
use crate::error::{Error, Result};
use crate::flow::{Flow, sender};
use crate::host::{Host, Identity};
use crate::link::Listener;
use crate::plan::{Client, Plan};
use crate::scratch::Scratch;
use crate::servers::Server;
use crate::vm::Vm;
use smoltcp::wire::{ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The name that the DNS responder outside knows.
pub const NAME: &str = "page.weir.example";

/// How long QEMU may take to start, and the image to boot.
const START: Duration = Duration::from_secs(10);
const BOOT: Duration = Duration::from_secs(15);

/// How often an interrupt is looked for meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// Packets of the uplink that are remembered, the latest ones.
const MEMORY: usize = 4096;

/// A running demo. Fields are dropped in this order: hosts before their VM, files last.
pub struct World {
    /// The simulated clients.
    pub hosts: Vec<Host>,
    /// The appliance.
    pub vm: Vm,
    /// From starting QEMU until the appliance forwarded.
    pub booted_in: Duration,
    /// The web server on the host's loopback.
    pub web: Server,
    /// The DNS responder on the host's loopback.
    pub dns: Server,
    /// What the web server serves.
    pub page: Vec<u8>,
    /// The appliance's address at each client.
    pub gateways: Vec<Ipv4Addr>,
    /// The address outside that stands for the host's loopback.
    pub outside: Ipv4Addr,
    /// The sources that may be seen on the uplink.
    pub external: Vec<Ipv4Addr>,
    uplink_mac: EthernetAddress,
    capture: Capture,
    _scratch: Scratch,
}

/// What was seen to leave by the uplink.
#[derive(Debug, Default)]
pub struct Outside {
    left: Vec<Flow>,
    /// How many IPv4 packets left.
    pub packets: u64,
    /// Sources that no packet there may have.
    pub strangers: BTreeSet<Ipv4Addr>,
}

impl World {
    /// Boots `config` with the ports of `plan` and waits until it forwards. The ports of `config` are replaced.
    ///
    /// # Errors
    /// QEMU does not start, the image does not boot, the plan fits no user-mode network.
    pub fn start(
        plan: &Plan,
        mut config: Config,
        keep_log: Option<&Path>,
        interrupted: &AtomicBool,
    ) -> Result<Self> {
        let user = plan.user_network()?;
        let scratch = Scratch::new()?;
        let pcap = scratch.join("uplink.pcap");
        let page = page();
        let (web, dns) = (Server::web(page.clone())?, Server::dns(NAME, user.host)?);
        let listeners = plan.clients.iter().map(|_| Listener::new()).collect::<Result<Vec<_>>>()?;
        config.ports =
            vec![Port { capture: Some(pcap.clone()), ..Port::new(plan.uplink.mac, Netdev::User(user)) }];
        let connected = plan
            .clients
            .iter()
            .zip(&listeners)
            .map(|(client, listener)| Port::new(client.mac, Netdev::Connect(listener.path().into())));
        config.ports.extend(connected);
        let vm = Vm::start(&config)?;
        if let Some(path) = keep_log {
            vm.keep_log(path)?;
        }
        let links =
            listeners.iter().map(|listener| vm.connect(listener, START)).collect::<Result<Vec<_>>>()?;
        let booted_in = boot(&vm, interrupted)?;
        let hosts = plan
            .clients
            .iter()
            .zip(links)
            .enumerate()
            .map(|(index, (client, link))| Host::start(identity(client, index), link))
            .collect();
        Ok(Self {
            hosts,
            vm,
            booted_in,
            web,
            dns,
            page,
            gateways: plan.clients.iter().map(|client| client.gateway).collect(),
            outside: user.host,
            external: plan.external(),
            uplink_mac: plan.uplink.mac,
            capture: Capture::follow(&pcap),
            _scratch: scratch,
        })
    }

    /// Looks at what has passed the uplink since the last time.
    ///
    /// # Errors
    /// The capture cannot be read.
    pub fn look_outside(&mut self, outside: &mut Outside) -> Result<()> {
        for frame in self.capture.frames()?.iter().filter(|frame| sender(frame) == Some(self.uplink_mac)) {
            outside.see(frame, &self.external);
        }
        Ok(())
    }
}

/// Waits for the appliance, and no longer than it takes to be interrupted.
fn boot(vm: &Vm, interrupted: &AtomicBool) -> Result<Duration> {
    let deadline = Instant::now() + BOOT;
    loop {
        match vm.ready(TICK) {
            Err(_) if vm.exit_status().is_none() && Instant::now() < deadline => {}
            ended => return ended,
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::new("interrupted while the appliance was booting"));
        }
    }
}

impl Outside {
    /// Takes a frame that the appliance sent.
    fn see(&mut self, frame: &[u8], external: &[Ipv4Addr]) {
        let flow = Flow::parse(frame);
        let source = flow.map(|flow| flow.source).or_else(|| arp_sender(frame));
        self.strangers.extend(source.filter(|source| !external.contains(source)));
        let Some(flow) = flow else { return };
        self.packets += 1;
        if self.left.len() == MEMORY {
            self.left.drain(..MEMORY / 2);
        }
        self.left.push(flow);
    }

    /// The packet that left for one that a client sent.
    pub fn translation_of(&self, sent: &Flow) -> Option<Flow> {
        self.left.iter().rev().find(|flow| flow.is_translation_of(sent)).copied()
    }
}

fn arp_sender(frame: &[u8]) -> Option<Ipv4Addr> {
    let ethernet =
        EthernetFrame::new_checked(frame).ok().filter(|frame| frame.ethertype() == EthernetProtocol::Arp)?;
    let arp = ArpPacket::new_checked(ethernet.payload()).ok()?;
    let octets: [u8; 4] = arp.source_protocol_addr().try_into().ok()?;
    // 0.0.0.0 is a probe (RFC 5227, 2.1.1).
    Some(Ipv4Addr::from(octets)).filter(|address| !address.is_unspecified())
}

fn identity(client: &Client, index: usize) -> Identity {
    let number = u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes();
    Identity {
        name: client.name.clone(),
        // Locally administered, and none that the plan generates.
        mac: EthernetAddress([0x02, 0x77, 0x65, 0x00, number[0], number[1]]),
        addresses: client.host_addresses(),
        gateway: Some(client.gateway),
    }
}

/// A page of a size that takes many segments, every line another.
fn page() -> Vec<u8> {
    (0..1000)
        .flat_map(|line| format!("line {line:04} of a page that went through the firewall\n").into_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::frames::udp;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 53);

    #[test]
    fn a_translated_packet_is_found_and_no_stranger() {
        let mut outside = Outside::default();
        outside.see(&udp(MAC, (OURS, 40000), SERVER, b"query"), &[OURS]);
        let sent = Flow::parse(&udp(MAC, (INSIDE, 5000), SERVER, b"query")).unwrap();
        assert_eq!(outside.translation_of(&sent).unwrap().source_port, 40000);
        assert!(outside.strangers.is_empty());
    }

    #[test]
    fn an_untranslated_packet_is_a_stranger() {
        let mut outside = Outside::default();
        outside.see(&udp(MAC, (INSIDE, 5000), SERVER, b"query"), &[OURS]);
        assert_eq!(outside.strangers.into_iter().collect::<Vec<_>>(), [INSIDE]);
    }

    #[test]
    fn an_arp_request_with_an_inner_sender_is_a_stranger() {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&MAC.0);
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&MAC.0);
        frame.extend_from_slice(&INSIDE.octets());
        frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        let mut outside = Outside::default();
        outside.see(&frame, &[OURS]);
        assert!(outside.strangers.contains(&INSIDE) && outside.packets == 0);
    }
}
