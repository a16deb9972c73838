//! Which packet comes next: something new, or more of a conversation.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IpDscp, IpEcn};
use tests::icmp_error;
use tests::packet::Packet;

use crate::chosen::Chosen;
use crate::duel::{Duel, Fate};
use crate::flow::{Both, Flow, Way};
use crate::judgement::ends;

/// Hosts outside.
const OUTSIDE: [Ipv4Addr; 4] = [
    Ipv4Addr::new(198, 51, 100, 9),
    Ipv4Addr::new(198, 51, 100, 10),
    Ipv4Addr::new(203, 0, 113, 5),
    Ipv4Addr::new(192, 0, 2, 77),
];

/// Ports, beside those that the rules speak of.
const PORTS: [u16; 8] = [22, 53, 80, 443, 1000, 5000, 5001, 40_000];

/// Errors that end up at who sent the packet (RFC 792).
const ERRORS: [(u8, u8); 6] = [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0)];

/// The protocol number of SCTP.
const SCTP: u8 = 132;

/// Conversations that go on at a time.
const FLOWS_MAX: usize = 24;

/// What a header may say beside its ends.
#[derive(Clone, Copy)]
struct Manner {
    ttl: u8,
    tos: u8,
    identification: u16,
    dont_fragment: bool,
}

impl Manner {
    fn put(self, packet: Packet) -> Packet {
        let mut packet = packet.ttl(self.ttl).identification(self.identification);
        packet.header.dscp = IpDscp::try_new(self.tos >> 2).expect("six bits");
        packet.header.ecn = IpEcn::try_new(self.tos & 3).expect("two bits");
        packet.header.dont_fragment = self.dont_fragment;
        packet
    }
}

/// An INIT chunk behind its header (RFC 9260 3.1, 3.3.2).
fn sctp_init([from, to]: [u16; 2]) -> Vec<u8> {
    let mut octets = [from.to_be_bytes(), to.to_be_bytes()].concat();
    octets.extend([0; 8]);
    octets.extend([1, 0, 0, 20, 0x11, 0x22, 0x33, 0x44, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&octets).to_le_bytes();
    octets[8..12].copy_from_slice(&sum);
    octets
}

/// The checksum of SCTP (RFC 9260 appendix A).
fn crc32c(octets: &[u8]) -> u32 {
    let of_octet = |sum: u32, octet: &u8| {
        (0..8).fold(sum ^ u32::from(*octet), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    };
    !octets.iter().fold(u32::MAX, of_octet)
}

impl Duel {
    /// Sends one packet, and compares.
    ///
    /// # Errors
    /// How Weir and the kernel differ.
    pub fn step(&mut self) -> Result<(), String> {
        self.flows.retain(|flow| !flow.is_over());
        while self.flows.len() > FLOWS_MAX {
            let at = self.chance.below(self.flows.len());
            self.flows.swap_remove(at);
        }
        if self.flows.is_empty() || self.chance.happens(35) {
            return self.open();
        }
        let at = self.chance.below(self.flows.len());
        let flow = self.flows.swap_remove(at);
        if self.chance.happens(10) { self.complain(flow) } else { self.go_on(flow) }
    }

    /// Something new.
    fn open(&mut self) -> Result<(), String> {
        let input = self.chance.below(self.world.site.clients.len() + 1);
        let Some(source) = self.source(input) else { return Ok(()) };
        let Some(target) = self.target(input) else { return Ok(()) };
        if source == target {
            return Ok(());
        }
        let protocol = self.chance.pick(&[6, 6, 6, 17, 17, 17, 1]);
        let local = self.is_own(target);
        // Linux gives associations other ports where rules name some.
        let names_ports = ["masquerade to", "random", "snat"].iter().any(|word| self.rules.contains(word));
        if !local && !names_ports && self.chance.happens(6) {
            return self.associate(input, source, target);
        }
        let (query, target_port) = match protocol {
            1 if local => (8, 0),
            1 => (self.chance.pick(&[8, 8, 8, 13]), 0),
            _ => (0, self.port()),
        };
        let source_port = if self.chance.happens(50) { self.chance.pick(&PORTS) } else { self.port() };
        let sent = (SocketAddrV4::new(source, source_port), SocketAddrV4::new(target, target_port));
        let is_odd = protocol == 6 && self.chance.happens(15);
        if !is_odd && !self.used.insert((protocol, sent.0, sent.1)) {
            return Ok(());
        }
        let is_mapped = self.external.contains_key(&(protocol, sent.1));
        if input != 0 && is_mapped {
            *self.tally.chosen.entry(Chosen::Hairpinning).or_default() += 1;
            return Ok(());
        }
        let flow = Flow::new(protocol, input, sent, query);
        if is_odd { self.stray(flow) } else { self.go_on(flow) }
    }

    /// The first packet of an SCTP association, and the last one between these hosts: sessions have no ports here.
    fn associate(&mut self, input: usize, source: Ipv4Addr, target: Ipv4Addr) -> Result<(), String> {
        let ends = [source, target].map(|address| SocketAddrV4::new(address, 0));
        // A peer is known by its address alone, whoever talks to it.
        let is_known = |used: &(u8, SocketAddrV4, SocketAddrV4)| {
            used.0 == SCTP && ([used.1, used.2].contains(&ends[1]) || used.2 == ends[0])
        };
        if self.used.iter().any(is_known) || !self.used.insert((SCTP, ends[0], ends[1])) {
            return Ok(());
        }
        let ports = [self.port(), self.port()];
        let packet = self.manner().put(Packet::new(source, target, SCTP, &sctp_init(ports)));
        self.send(input, [packet.clone(), packet], None).map(drop)
    }

    /// A segment of no connection, that opens none.
    fn stray(&mut self, flow: Flow) -> Result<(), String> {
        let ends = flow.ends(Way::Original)[0];
        let taken =
            |sent: &(u8, SocketAddrV4, SocketAddrV4)| sent.0 == 6 && [sent.1, sent.2].contains(&ends.0);
        if self.used.iter().any(taken) {
            return Ok(());
        }
        let flags = self.chance.pick(&[0x10, 0x04, 0x14, 0x01, 0x11, 0x12, 0x00, 0x29, 0x03]);
        let packet = tests::tcp(ends.0, ends.1, flags, b"");
        let packet = self.manner().put(packet);
        self.send(flow.ports.0, [packet.clone(), packet], None).map(drop)
    }

    /// The next packet of a flow, or its first.
    fn go_on(&mut self, mut flow: Flow) -> Result<(), String> {
        let is_new = flow.last[0].is_none();
        if flow.is_local && self.external.contains_key(&(flow.protocol, flow.sent.1)) {
            return Ok(());
        }
        let manner = self.manner();
        let segment = match (flow.protocol, is_new) {
            (6, true) => Some((Way::Original, Flow::opening())),
            (6, false) => Some(flow.segment_after(&mut self.chance)),
            _ => None,
        };
        let way = match segment {
            Some((way, _)) => way,
            None if is_new || flow.is_local || self.chance.happens(50) => Way::Original,
            None => Way::Reply,
        };
        let data = self.data();
        let packet = |ends| match segment {
            Some((_, segment)) => flow.segment(way, ends, segment),
            None => flow.datagram(way, ends, &data),
        };
        let packets = flow.ends(way).map(|ends| manner.put(packet(ends)));
        let fate = self.send(flow.input(way), packets, Some((&flow, way)))?;
        let Fate::Passed(output, pair) = fate else {
            // Who was told that a connection has ended says nothing more in it. And where a segment that says so does not
            // arrive, Linux takes it for said, Weir does not.
            // The appliance takes each echo request for a new one; see `Chosen`.
            let is_repeated = flow.protocol == 17 && !self.rules.contains("type nat hook prerouting");
            flow.is_local |= is_new && is_repeated && self.is_own(*flow.sent.1.ip());
            let is_told = matches!(fate, Fate::Answered) && flow.protocol == 6;
            if (!is_new || flow.is_local) && !is_told && !segment.is_some_and(|(_, segment)| segment.ends()) {
                self.flows.push(flow);
            }
            return Ok(());
        };
        if is_new {
            self.begin(&mut flow, output, &pair);
            if flow.seen[0] != flow.seen[1] && self.tells_endpoints {
                // The rules may tell one external endpoint from the other.
                *self.tally.chosen.entry(Chosen::Endpoint).or_default() += 1;
                return Ok(());
            }
        } else if flow.input(way.other()) != output {
            return Err(format!("{flow:?} leaves by {}", self.name(output)));
        }
        flow.last[way as usize] = Some(pair);
        if let Some((_, segment)) = segment {
            flow.advance(way, segment);
        }
        self.flows.push(flow);
        Ok(())
    }

    /// A flow's first packet has left: who answers sees these ends.
    fn begin(&mut self, flow: &mut Flow, output: usize, pair: &Both<Vec<u8>>) {
        flow.ports.1 = output;
        flow.seen = pair.each_ref().map(|octets| ends(octets));
        let (shown, opener) = (flow.seen[0].0, flow.sent.0);
        if self.is_external(*shown.ip()) {
            self.external.insert((flow.protocol, shown), opener);
        }
        for (from, to) in flow.seen {
            self.used.insert((flow.protocol, to, from));
        }
    }

    /// An ICMP error about the last packet of a flow.
    fn complain(&mut self, flow: Flow) -> Result<(), String> {
        // About a packet of one direction a message of the other one is sent.
        let about = if self.chance.happens(50) { Way::Original } else { Way::Reply };
        let pair = flow.last[about as usize].clone();
        let Some(pair) = pair else {
            self.flows.push(flow);
            return Ok(());
        };
        let way = about.other();
        let kind = self.chance.pick(&ERRORS);
        let manner = self.manner();
        let message = |octets: &Vec<u8>| {
            let (from, to) = ends(octets);
            // As much as makes 576 octets in all (RFC 1812 4.3.2.3).
            let quote = &octets[..octets.len().min(548)];
            manner.put(icmp_error(*to.ip(), *from.ip(), kind, quote))
        };
        let packets = pair.each_ref().map(message);
        self.send(flow.input(way), packets, Some((&flow, way)))?;
        self.flows.push(flow);
        Ok(())
    }

    fn manner(&mut self) -> Manner {
        let ttl = match self.chance.below(20) {
            0 => 1,
            1 => 2,
            2..8 => self.number(255) as u8,
            _ => 64,
        };
        let tos = match self.chance.below(10) {
            0..3 => (self.number(63) as u8) << 2,
            3 => self.chance.octet() & 3,
            _ => 0,
        };
        let identification = if self.chance.happens(30) { self.number(u16::MAX) } else { self.chance.half() };
        Manner { ttl: ttl.max(1), tos, identification, dont_fragment: self.chance.happens(50) }
    }

    /// Data that may bring a packet to a length that the rules speak of.
    fn data(&mut self) -> Vec<u8> {
        let length = if self.chance.happens(30) { self.number(1500).saturating_sub(28) } else { 8 };
        vec![0x55; length.into()]
    }

    /// A number that the rules speak of, at most `most`.
    fn number(&mut self, most: u16) -> u16 {
        let numbers: Vec<u16> =
            self.interest.numbers.iter().copied().filter(|number| *number <= most).collect();
        if numbers.is_empty() { self.chance.half() % most.max(1) } else { self.chance.pick(&numbers) }
    }

    fn port(&mut self) -> u16 {
        let port = if self.chance.happens(80) { self.number(u16::MAX) } else { self.chance.pick(&PORTS) };
        port.max(1)
    }

    /// A host that may send to a port.
    fn source(&mut self, input: usize) -> Option<Ipv4Addr> {
        let mut from: Vec<Ipv4Addr> =
            if self.chance.happens(50) { self.interest.addresses.clone() } else { Vec::new() };
        from.retain(|address| self.is_behind(input, *address));
        if from.is_empty() {
            from = self.usual(input);
            from.retain(|address| self.is_behind(input, *address));
        }
        (!from.is_empty()).then(|| self.chance.pick(&from))
    }

    /// Where a packet from a port may go.
    fn target(&mut self, input: usize) -> Option<Ipv4Addr> {
        let site = self.world.site;
        let external: Vec<Ipv4Addr> =
            std::iter::once(site.uplink.address.address).chain(site.uplink.extra.iter().copied()).collect();
        if input == 0 {
            return Some(self.chance.pick(&external));
        }
        let ports = site.clients.len() + 1;
        let to = match self.chance.below(100) {
            0..30 if !self.interest.addresses.is_empty() => self.interest.addresses.clone(),
            0..60 => OUTSIDE.to_vec(),
            60..85 => {
                let port = self.chance.below(ports);
                self.usual(port)
            }
            85..92 => external,
            _ => site.clients.iter().map(|client| client.address).collect(),
        };
        let to = self.chance.pick(&to);
        if self.rules_on_answers && self.is_own(to) && site.clients[input - 1].address != to {
            // Where an answer to this comes from is a chosen difference, which rules may tell.
            return None;
        }
        (self.is_own(to) || (0..ports).any(|port| self.is_behind(port, to))).then_some(to)
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        self.is_external(address) || self.world.site.clients.iter().any(|client| client.address == address)
    }

    /// Hosts at a port, whatever the rules say.
    fn usual(&self, port: usize) -> Vec<Ipv4Addr> {
        let Some(client) = port.checked_sub(1).and_then(|at| self.world.site.clients.get(at)) else {
            return OUTSIDE.to_vec();
        };
        let network = client.on_link();
        let near = (2..8).map(|n| Ipv4Addr::from_bits(network.network().to_bits() + n));
        let mut hosts: Vec<_> = near.filter(|host| network.contains(*host)).collect();
        hosts.push(network.address);
        hosts
    }

    /// Whether an address is of a host behind a port.
    fn is_behind(&self, port: usize, address: Ipv4Addr) -> bool {
        let site = self.world.site;
        let is_host = |network: &rules::site::Prefix| {
            network.contains(address)
                && Some(address) != network.broadcast()
                && (network.length >= 31 || address != network.network())
        };
        let routed = |network: &rules::site::Prefix| {
            site.routes.iter().any(|route| network.contains(route.via) && route.to.contains(address))
        };
        let is_martian = address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224;
        if is_martian || self.is_own(address) {
            return false;
        }
        let behind = |at: usize| {
            let client = &site.clients[at - 1];
            let network = client.on_link();
            let is_believed = client.hosts.is_empty() || client.hosts.contains(&address);
            (network.contains(address) && is_host(&network) && is_believed) || routed(&network)
        };
        if port > 0 {
            return behind(port);
        }
        let uplink = &site.uplink.address;
        let is_inside =
            site.clients.iter().any(|client| client.on_link().contains(address) || routed(&client.on_link()));
        !is_inside && (!uplink.contains(address) || is_host(uplink))
    }
}
