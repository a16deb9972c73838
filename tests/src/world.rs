//! The appliance between links in memory, and the hosts around it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use firewall::counters::RuleCounter;
use firewall::datapath::Occupancy;
use firewall::{Datapath, Dropped};
use netback::wire::{Settings, Wire};
use netback::{Link, Offload};
use rules::site::{Prefix, Site};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use crate::judge::Judge;
use crate::packet::Host;
use crate::site;
use crate::view::Seen;

/// Turns after which a world that does not come to rest is called restless.
const TURNS_MAX: usize = 1_000_000;

/// The hardware address of a host in the tests: its IPv4 address behind `02:00`.
pub fn station(address: Ipv4Addr) -> EthernetAddress {
    let [a, b, c, d] = address.octets();
    EthernetAddress([2, 0, a, b, c, d])
}

/// The hardware address of the appliance's port.
pub fn port_station(port: usize) -> EthernetAddress {
    EthernetAddress([2, 0xff, 0, 0, 0, port as u8])
}

/// An Ethernet frame.
pub fn frame(to: EthernetAddress, from: EthernetAddress, kind: u16, octets: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, &kind.to_be_bytes()[..], octets].concat()
}

/// The octets of an ARP packet.
pub fn arp_octets(repr: &ArpRepr) -> Vec<u8> {
    let mut octets = vec![0; 28];
    repr.emit(&mut ArpPacket::new_unchecked(&mut octets));
    octets
}

/// The fields of an ARP packet for Ethernet and IPv4.
pub fn arp(
    operation: ArpOperation,
    (source_hardware_addr, source_protocol_addr): (EthernetAddress, Ipv4Addr),
    (target_hardware_addr, target_protocol_addr): (EthernetAddress, Ipv4Addr),
) -> ArpRepr {
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    }
}

/// An ARP packet that the appliance sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenArp {
    /// To which station.
    pub station: EthernetAddress,
    /// Request or reply.
    pub operation: ArpOperation,
    /// Sender: hardware and IPv4 address.
    pub sender: (EthernetAddress, Ipv4Addr),
    /// Target: hardware and IPv4 address.
    pub target: (EthernetAddress, Ipv4Addr),
}

/// The appliance, the links, the clock and the neighbours.
pub struct World {
    /// The appliance itself.
    pub datapath: Datapath<Wire>,
    /// The plan and the policy it was made for.
    pub site: &'static Site,
    /// What is demanded of every frame, by port.
    pub judges: Vec<Judge>,
    /// Whether neighbours answer ARP requests.
    pub answering: bool,
    /// Neighbours that do not.
    pub silent: BTreeSet<Ipv4Addr>,
    /// Neighbours whose hardware address is another than [`station`].
    pub moved: BTreeMap<Ipv4Addr, EthernetAddress>,
    now: Instant,
    wires: Vec<Wire>,
    reading: Vec<bool>,
    frames: Vec<VecDeque<Seen>>,
    arps: Vec<VecDeque<SeenArp>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new(site::PLAN, site::RULES)
    }
}

impl World {
    /// The world of a network plan and a policy.
    pub fn new(plan: &str, rules: &str) -> Self {
        Self::with(site::site(plan, rules), |_, _| {})
    }

    /// The world of a site, its wires changed before they are connected.
    pub fn with(site: &'static Site, change: impl Fn(usize, &mut Settings)) -> Self {
        let mtus = std::iter::once(site.uplink.mtu).chain(site.clients.iter().map(|c| c.mtu));
        let wires: Vec<Wire> = mtus
            .enumerate()
            .map(|(port, mtu)| {
                let mut settings =
                    Settings { mac: port_station(port), mtu: mtu.unwrap_or(1500), ..Settings::default() };
                change(port, &mut settings);
                Wire::new(settings)
            })
            .collect();
        let ports = wires.len();
        let mut world = Self {
            datapath: Datapath::new(site, wires.clone(), [1, 2, 3, 4]),
            site,
            judges: wires.iter().map(judge).collect(),
            answering: true,
            silent: BTreeSet::new(),
            moved: BTreeMap::new(),
            now: Instant::from_secs(1000),
            wires,
            reading: vec![true; ports],
            frames: vec![VecDeque::new(); ports],
            arps: vec![VecDeque::new(); ports],
        };
        world.instruct();
        world.settle();
        world
    }

    /// Tells the judges what the site says.
    fn instruct(&mut self) {
        let site = self.site;
        let internal: Vec<Prefix> = site.clients.iter().map(|c| c.on_link()).collect();
        let through = |prefix: &Prefix| {
            let routed = site.routes.iter().filter(|r| prefix.contains(r.via));
            std::iter::once(*prefix).chain(routed.map(|r| r.to)).collect::<Vec<_>>()
        };
        self.judges[0].own =
            std::iter::once(site.uplink.address.address).chain(site.uplink.extra.iter().copied()).collect();
        self.judges[0].hidden = internal.iter().flat_map(through).collect();
        for (index, client) in site.clients.iter().enumerate() {
            let judge = &mut self.judges[index + 1];
            judge.own = vec![client.address];
            judge.behind = through(&internal[index]);
        }
    }

    /// The index of a port by its name in the rules.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn port(&self, name: &str) -> usize {
        let mut names = self.datapath.ports().iter().map(|port| port.name);
        names.position(|port| port == name).unwrap_or_else(|| panic!("no port {name}"))
    }

    /// The other end of a port's wire.
    pub fn wire(&self, port: &str) -> &Wire {
        &self.wires[self.port(port)]
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The hardware address of a neighbour.
    pub fn station(&self, address: Ipv4Addr) -> EthernetAddress {
        self.moved.get(&address).copied().unwrap_or_else(|| station(address))
    }

    /// A frame to the appliance with an IPv4 packet in it: from the packet's own source on a client
    /// port, from the gateway on the uplink.
    pub fn frame_for(&self, port: usize, octets: &[u8]) -> Vec<u8> {
        let source = octets.get(12..16).map_or(Ipv4Addr::UNSPECIFIED, |source| {
            Ipv4Addr::new(source[0], source[1], source[2], source[3])
        });
        let sender = match port {
            0 => self.site.uplink.gateway.unwrap_or(source),
            _ => source,
        };
        frame(port_station(port), self.station(sender), 0x0800, octets)
    }

    /// An IPv4 packet arrives, and the appliance does what it does.
    pub fn send(&mut self, port: &str, packet: impl Into<Vec<u8>>) {
        self.queue(port, packet);
        self.settle();
    }

    /// An IPv4 packet arrives and waits for the appliance's next turn.
    pub fn queue(&mut self, port: &str, packet: impl Into<Vec<u8>>) {
        let frame = self.frame_for(self.port(port), &packet.into());
        self.inject(port, &frame, Offload::default());
    }

    /// An IPv4 packet arrives with something said about its checksum.
    pub fn send_offloaded(&mut self, port: &str, (packet, offload): (Vec<u8>, Offload)) {
        let frame = self.frame_for(self.port(port), &packet);
        self.inject(port, &frame, offload);
        self.settle();
    }

    /// A frame arrives, and the appliance does what it does.
    pub fn send_frame(&mut self, port: &str, frame: &[u8]) {
        self.inject(port, frame, Offload::default());
        self.settle();
    }

    /// A frame arrives and waits for the appliance's next turn.
    pub fn inject(&mut self, port: &str, frame: &[u8], offload: Offload) {
        let taken = self.wire(port).inject(frame, offload);
        assert!(taken, "{port} takes no more frames");
    }

    /// An ARP packet arrives in a frame to everybody, or to the appliance if it is a reply.
    pub fn send_arp(&mut self, port: &str, repr: &ArpRepr) {
        let &ArpRepr::EthernetIpv4 { operation, source_hardware_addr: from, .. } = repr else {
            panic!("ARP for Ethernet and IPv4");
        };
        let to = match operation {
            ArpOperation::Reply => port_station(self.port(port)),
            _ => EthernetAddress::BROADCAST,
        };
        self.send_frame(port, &frame(to, from, 0x0806, &arp_octets(repr)));
    }

    /// Turns until there is nothing left to do; neighbours answer meanwhile.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let worked = self.datapath.turn(self.now);
            let answered = self.collect();
            if !worked && !answered {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Takes what was sent from the wires, judges it and answers ARP; whether anybody did.
    pub fn collect(&mut self) -> bool {
        let mut answered = false;
        for port in 0..self.wires.len() {
            while self.reading[port]
                && let Some((frame, offload)) = self.wires[port].pop()
            {
                if let Err(error) = self.judges[port].frame(&frame, offload) {
                    panic!("port {port} sent a frame with {error}: {frame:02x?}");
                }
                match frame[12..14] {
                    [8, 6] => answered |= self.hear(port, &frame),
                    _ => self.frames[port].push_back(Seen::new(frame, offload)),
                }
            }
        }
        answered
    }

    fn hear(&mut self, port: usize, octets: &[u8]) -> bool {
        let packet = ArpPacket::new_checked(&octets[14..]).expect("judged");
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_hardware_addr,
            target_protocol_addr: target,
        } = ArpRepr::parse(&packet).expect("judged")
        else {
            panic!("judged");
        };
        self.arps[port].push_back(SeenArp {
            station: EthernetAddress::from_bytes(&octets[..6]),
            operation,
            sender: (source_hardware_addr, source_protocol_addr),
            target: (target_hardware_addr, target),
        });
        let asked = operation == ArpOperation::Request && target != source_protocol_addr;
        if !asked || !self.answering || self.silent.contains(&target) {
            return false;
        }
        let mac = self.station(target);
        if octets[..6] != mac.0 && octets[..6] != [0xff; 6] {
            return false;
        }
        let asker = (source_hardware_addr, source_protocol_addr);
        let reply = arp(ArpOperation::Reply, (mac, target), asker);
        let frame = frame(source_hardware_addr, mac, 0x0806, &arp_octets(&reply));
        self.wires[port].inject(&frame, Offload::default())
    }

    /// Time passes; then the appliance does what is due.
    pub fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.settle();
    }

    /// That many seconds pass at once.
    pub fn pass_seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// That many seconds pass in steps of some.
    pub fn pass_in_steps(&mut self, seconds: u64, step: u64) {
        for _ in 0..seconds / step {
            self.pass_seconds(step);
        }
    }

    /// Whether a port's neighbours take frames from the wire; who stops reading fills it.
    pub fn set_reading(&mut self, port: &str, reading: bool) {
        let port = self.port(port);
        self.reading[port] = reading;
    }

    /// The IPv4 packets sent on a port since they were last asked for.
    pub fn sent(&mut self, port: &str) -> Vec<Seen> {
        let port = self.port(port);
        self.frames[port].drain(..).collect()
    }

    /// The ARP packets sent on a port since they were last asked for.
    pub fn arps(&mut self, port: &str) -> Vec<SeenArp> {
        let port = self.port(port);
        self.arps[port].drain(..).collect()
    }

    /// Forgets what was sent.
    pub fn forget(&mut self) {
        self.frames.iter_mut().for_each(VecDeque::clear);
        self.arps.iter_mut().for_each(VecDeque::clear);
    }

    /// The one packet that was sent, on this port.
    ///
    /// # Panics
    /// If there was none, or another one anywhere.
    #[track_caller]
    pub fn only(&mut self, port: &str) -> Seen {
        let sent = self.sent(port);
        let [seen] = <[Seen; 1]>::try_from(sent)
            .unwrap_or_else(|sent| panic!("{} packets on {port}: {sent:?}", sent.len()));
        self.quiet();
        seen
    }

    /// Nothing was sent anywhere, ARP apart.
    ///
    /// # Panics
    /// If something was.
    #[track_caller]
    pub fn quiet(&mut self) {
        for (port, frames) in self.frames.iter_mut().enumerate() {
            let sent: Vec<Seen> = frames.drain(..).collect();
            assert!(sent.is_empty(), "port {port} sent {sent:?}");
        }
    }

    /// A packet arrives on one port and leaves by another as one packet.
    #[track_caller]
    pub fn cross(&mut self, input: &str, output: &str, packet: impl Into<Vec<u8>>) -> Seen {
        self.send(input, packet);
        self.only(output)
    }

    /// A packet arrives and is answered with one packet by the port it came from.
    #[track_caller]
    pub fn answer(&mut self, port: &str, packet: impl Into<Vec<u8>>) -> Seen {
        self.cross(port, port, packet)
    }

    /// A packet arrives and ends there, silently, counted once under this reason.
    #[track_caller]
    pub fn refuse(&mut self, port: &str, packet: impl Into<Vec<u8>>, reason: Dropped) {
        let frame = self.frame_for(self.port(port), &packet.into());
        self.refuse_frame(port, &frame, reason);
    }

    /// As [`refuse`](Self::refuse), of a whole frame.
    #[track_caller]
    pub fn refuse_frame(&mut self, port: &str, frame: &[u8], reason: Dropped) {
        let before = self.all_drops(port);
        self.send_frame(port, frame);
        self.quiet();
        let mut expected = before;
        *expected.entry(reason.name()).or_default() += 1;
        assert_eq!(self.all_drops(port), expected, "how the frame ended");
    }

    /// Frames from a port that ended for this reason.
    pub fn drops(&self, port: &str, reason: Dropped) -> u64 {
        self.datapath.ports()[self.port(port)].counters.dropped(reason)
    }

    /// How frames from a port ended, by the reason's name.
    pub fn all_drops(&self, port: &str) -> BTreeMap<&'static str, u64> {
        let counters = &self.datapath.ports()[self.port(port)].counters;
        counters.drops().map(|(why, n)| (why.name(), n)).collect()
    }

    /// Packets from a port that left by one.
    pub fn forwarded(&self, port: &str) -> u64 {
        self.datapath.ports()[self.port(port)].counters.forwarded
    }

    /// Packets from a port that the appliance answered itself.
    pub fn answered(&self, port: &str) -> u64 {
        self.datapath.ports()[self.port(port)].counters.answered
    }

    /// What the tables hold.
    pub fn occupancy(&self) -> Occupancy {
        self.datapath.occupancy()
    }

    /// Frames that the appliance holds, of those that came in by a port.
    pub fn held(&self, port: &str) -> usize {
        self.wire(port).outstanding()
    }

    /// Free buffers of all wires together.
    pub fn free_buffers(&self) -> u32 {
        let free = self.wires.iter().map(|wire| wire.statistics().free_buffers);
        free.sum()
    }

    /// The counter of the rule on this line of `rules.nft`.
    ///
    /// # Panics
    /// If there is none.
    pub fn rule(&self, line: u32) -> RuleCounter {
        let mut counters = self.datapath.rule_counters();
        let found = counters.find(|(at, _)| at.line == line);
        found.unwrap_or_else(|| panic!("no counter on line {line}")).1
    }

    /// Opens a UDP flow from a client, and says how it looks from outside.
    #[track_caller]
    pub fn open_udp(&mut self, from: &str, to: &str) -> SocketAddrV4 {
        let port = self.behind(crate::At::at(from).ip().host());
        self.cross(port, "uplink", crate::udp(from, to, b"open")).from()
    }

    /// The client port behind which a host is.
    ///
    /// # Panics
    /// If there is none.
    pub fn behind(&self, host: Ipv4Addr) -> &'static str {
        let mut clients = self.site.clients.iter();
        let client = clients.find(|client| client.on_link().contains(host));
        client.unwrap_or_else(|| panic!("{host} is behind no client port")).name
    }
}

fn judge(wire: &Wire) -> Judge {
    Judge {
        mac: wire.mac(),
        mtu: wire.mtu().into(),
        own: Vec::new(),
        hidden: Vec::new(),
        behind: Vec::new(),
        transport: true,
    }
}
