//! The appliance between links in memory, and neighbours that answer for every address.

use crate::error::{Error, Result};
use firewall::route::{Routes, UPLINK};
use firewall::{Datapath, Dropped};
use netback::wire::{Settings, Wire};
use netback::{ETHERNET_HEADER, Offload};
use rules::Met;
use rules::site::Site;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};
use std::net::Ipv4Addr;

/// The keys of tables and of the choice of ports: one capture is replayed the same way each time.
const SEED: [u64; 4] = [1, 2, 3, 4];

/// The largest packet that leaves a port of which the site does not say.
const MTU: u16 = 1500;

/// Frames that wait on a link: a datagram of 65 535 octets, cut for the smallest of links, is not more.
const CAPACITY: usize = 4096;

/// Turns after which the appliance is said not to come to rest.
const TURNS_MAX: usize = 100_000;

/// Steps in which time passes between two packets, each at least [`STEP`]: what runs out of time is looked for a
/// little at a time, and this many rounds see all of it.
const STEPS_MAX: u32 = 512;

/// The time between two rounds of the appliance's upkeep.
const STEP: Duration = Duration::from_millis(10);

/// The time of the first packet, in microseconds.
const START: i64 = 1_000_000_000;

/// What became of a packet, or of others while time passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packets that were passed on.
    pub forwarded: u64,
    /// Packets that the appliance sent itself.
    pub answered: u64,
    /// Ways in which packets ended, with how many.
    pub dropped: Vec<(Dropped, u64)>,
    /// Rules and chain policies that had a say.
    pub met: Vec<Met>,
    /// What left, by the index of its port: IPv4 from the header on.
    pub sent: Vec<(usize, Vec<u8>)>,
}

/// Counters at one time.
struct Figures {
    forwarded: u64,
    answered: u64,
    dropped: Vec<u64>,
}

/// The appliance of a site.
pub struct World {
    datapath: Datapath<Wire>,
    wires: Vec<Wire>,
    /// The hardware address of each port.
    macs: Vec<EthernetAddress>,
    routes: Routes,
    gateway: Option<Ipv4Addr>,
    /// The capture's time of the first packet.
    origin: Option<i64>,
    now: Instant,
}

impl World {
    /// The appliance of a site as it is when it has booted.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn new(site: &'static Site) -> Result<Self> {
        Self::with_station(site, None)
    }

    /// The same, with a port of this hardware address.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn with_station(site: &'static Site, of_port: Option<(usize, EthernetAddress)>) -> Result<Self> {
        let macs = std::iter::once(site.uplink.mac).chain(site.clients.iter().map(|client| client.mac));
        let macs = macs.enumerate().map(|(port, mac)| match of_port {
            Some((of, station)) if of == port => station,
            _ => mac.map_or_else(|| own(port), EthernetAddress),
        });
        let macs: Vec<_> = macs.collect();
        let mtus = std::iter::once(site.uplink.mtu).chain(site.clients.iter().map(|client| client.mtu));
        let wire = |(mtu, &mac): (Option<u16>, &EthernetAddress)| {
            let mtu = mtu.unwrap_or(MTU);
            Wire::new(Settings { mac, mtu, capacity: CAPACITY, ..Settings::default() })
        };
        let wires: Vec<Wire> = mtus.zip(&macs).map(wire).collect();
        let mut world = Self {
            datapath: Datapath::new(site, wires.clone(), SEED),
            wires,
            macs,
            routes: Routes::new(site),
            gateway: site.uplink.gateway,
            origin: None,
            now: Instant::from_micros(START),
        };
        world.settle()?;
        Ok(world)
    }

    /// The port behind which an address is: a client's, else the uplink.
    pub fn port_of(&self, source: Ipv4Addr) -> usize {
        self.routes.lookup(source).map_or(UPLINK, |hop| hop.port)
    }

    /// What packets meet is told in full, up to so much of each.
    pub fn watch(&mut self, most: usize) {
        self.datapath.watch(most);
    }

    /// All that packets have met since this was last asked.
    pub fn take_watched(&mut self) -> Vec<Met> {
        self.datapath.take_watched()
    }

    /// It is this time of the capture, in microseconds; time that goes back stands still.
    ///
    /// # Errors
    /// The appliance does not come to rest.
    pub fn advance(&mut self, micros: i64) -> Result<Outcome> {
        let since = micros.saturating_sub(*self.origin.get_or_insert(micros));
        let then = Instant::from_micros(START.saturating_add(since));
        let before = self.figures();
        let mut sent = Vec::new();
        let step = if then > self.now { (then - self.now) / STEPS_MAX } else { STEP };
        while self.now < then {
            self.now = then.min(self.now + step.max(STEP));
            sent.extend(self.settle()?);
        }
        Ok(self.outcome(&before, sent))
    }

    /// An IPv4 packet arrives at a port, in a frame to this station if it is a group, and from this one if it is
    /// a host's.
    ///
    /// # Errors
    /// The appliance does not come to rest.
    pub fn receive(
        &mut self,
        port: usize,
        (to, from): (Option<EthernetAddress>, Option<EthernetAddress>),
        packet: &[u8],
    ) -> Result<Outcome> {
        let before = self.figures();
        let source = super::show::source(packet).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let sender = match port {
            UPLINK => self.gateway.unwrap_or(source),
            _ => source,
        };
        let own = self.macs.get(port).copied().unwrap_or(EthernetAddress::BROADCAST);
        let to = to.filter(|to| !to.is_unicast()).unwrap_or(own);
        let from = from.filter(|from| from.is_unicast() && *from != own).unwrap_or_else(|| station(sender));
        self.inject(port, &frame(to, from, EthernetProtocol::Ipv4, packet));
        let sent = self.settle()?;
        Ok(self.outcome(&before, sent))
    }

    fn inject(&self, port: usize, frame: &[u8]) {
        if let Some(wire) = self.wires.get(port) {
            // The wire is empty between packets: it takes one.
            wire.inject(frame, Offload::default());
        }
    }

    /// Turns until nothing is left to do; what left meanwhile, ARP apart.
    fn settle(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
        let mut sent = Vec::new();
        for _ in 0..TURNS_MAX {
            let worked = self.datapath.turn(self.now);
            let answered = self.collect(&mut sent);
            if !worked && !answered {
                return Ok(sent);
            }
        }
        Err(Error::new(format!("the appliance does not come to rest within {TURNS_MAX} turns")))
    }

    /// Takes what was sent from the wires, and answers ARP requests; whether there were any.
    fn collect(&self, sent: &mut Vec<(usize, Vec<u8>)>) -> bool {
        let mut answered = false;
        for (port, wire) in self.wires.iter().enumerate() {
            while let Some((mut frame, _)) = wire.pop() {
                match frame.get(12..14) {
                    Some([8, 0]) => sent.push((port, frame.split_off(ETHERNET_HEADER))),
                    Some([8, 6]) => answered |= self.answer(port, &frame),
                    _ => {}
                }
            }
        }
        answered
    }

    /// The neighbour that is asked for answers.
    fn answer(&self, port: usize, octets: &[u8]) -> bool {
        let request = octets.get(ETHERNET_HEADER..).and_then(|arp| ArpPacket::new_checked(arp).ok());
        let Some(Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        })) = request.map(|request| ArpRepr::parse(&request))
        else {
            return false;
        };
        // An announcement asks nobody.
        if target_protocol_addr == source_protocol_addr {
            return false;
        }
        let mac = station(target_protocol_addr);
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: mac,
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        let mut arp = vec![0; reply.buffer_len()];
        reply.emit(&mut ArpPacket::new_unchecked(&mut arp));
        self.inject(port, &frame(source_hardware_addr, mac, EthernetProtocol::Arp, &arp));
        true
    }

    fn figures(&self) -> Figures {
        let counters = || self.datapath.ports().iter().map(|port| &port.counters);
        Figures {
            forwarded: counters().map(|it| it.forwarded).sum(),
            answered: counters().map(|it| it.answered).sum(),
            dropped: Dropped::ALL.iter().map(|&why| counters().map(|it| it.dropped(why)).sum()).collect(),
        }
    }

    fn outcome(&mut self, before: &Figures, sent: Vec<(usize, Vec<u8>)>) -> Outcome {
        let met = self.datapath.take_met().into_iter().collect();
        let after = self.figures();
        let dropped = Dropped::ALL.iter().zip(after.dropped.iter().zip(&before.dropped));
        // Answers to ARP are no packets of the capture.
        let dropped = dropped.filter(|(why, _)| **why != Dropped::Arp);
        Outcome {
            forwarded: after.forwarded - before.forwarded,
            answered: after.answered - before.answered,
            dropped: dropped
                .map(|(&why, (after, before))| (why, after - before))
                .filter(|&(_, count)| count > 0)
                .collect(),
            met,
            sent,
        }
    }
}

/// The hardware address of a port of the appliance.
fn own(port: usize) -> EthernetAddress {
    let [_, _, _, _, _, _, high, low] = (port as u64).to_be_bytes();
    EthernetAddress([2, 0xff, 0, 0, high, low])
}

/// The hardware address of a neighbour: its IPv4 address behind `02:00`.
fn station(address: Ipv4Addr) -> EthernetAddress {
    let [a, b, c, d] = address.octets();
    EthernetAddress([2, 0, a, b, c, d])
}

fn frame(to: EthernetAddress, from: EthernetAddress, kind: EthernetProtocol, octets: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, &u16::from(kind).to_be_bytes()[..], octets].concat()
}
