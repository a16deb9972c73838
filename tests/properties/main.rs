//! What holds after every step, whatever the site and whatever the traffic (proptest).
//!
//! - Every packet out has right checksums and shows nothing internal: the judge looks at each.
//! - Inbound of outbound is the identity, and reaches the endpoint that it belongs to.
//! - No two internal endpoints share an external one, and each has one at an external address.
//! - Counts add up: sessions and mappings. Who is refused has what is kept for each client.
//! - A packet that is dropped changes nothing.
//! - When all has ended, nothing is left.
//!
//! The seed is fixed, so that every run is the same; `WEIR_CASES` sets how many sites.

mod plan;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use firewall::Dropped;
use nat::Direction;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tests::packet::{At, Packet};
use tests::tcp_model::{Kind, Outcome, Tcp};
use tests::{Chance, Seen, World, echo, echo_reply, icmp_error, judge, tcp, udp};

use crate::plan::{Plan, Source};
use crate::step::Step;

/// A client's packets to somebody, as the client knows it.
#[derive(Clone, Debug)]
struct Flow {
    protocol: u8,
    client: SocketAddrV4,
    server: SocketAddrV4,
    external: Option<SocketAddrV4>,
    tcp: Tcp,
    last: Option<Seen>,
}

/// A session as it stands: its tuples, the seconds that it has left, whether it was answered.
type Standing = BTreeMap<String, (u32, bool)>;

struct Play {
    world: World,
    plan: Plan,
    flows: Vec<Flow>,
}

impl Play {
    fn new(plan: Plan) -> Self {
        let world = World::new(&plan.text(), &plan.rules());
        Self { world, plan, flows: Vec::new() }
    }

    fn ports(&self) -> Vec<&'static str> {
        self.world.datapath.ports().iter().map(|port| port.name).collect()
    }

    fn standing(&self) -> Standing {
        let nat = self.world.datapath.nat();
        let entry = |(id, session): (_, &nat::Session)| {
            let tuples = format!("{:?} {:?}", session.original(), session.reply());
            (tuples, (nat.remaining(id), session.has_reply()))
        };
        nat.iter().map(entry).filter(|(_, (left, _))| *left > 0).collect()
    }

    fn forwarded(&self) -> u64 {
        self.world.datapath.ports().iter().map(|port| port.counters.forwarded).sum()
    }

    /// A packet arrives; what left. If nothing was forwarded, nothing has changed.
    fn send(&mut self, from: Ipv4Addr, packets: &[Packet]) -> Vec<(&'static str, Seen)> {
        let port = self.port_of(from);
        // Sessions are told the time with every turn.
        self.world.settle();
        for packet in packets {
            let (standing, forwarded) = (self.standing(), self.forwarded());
            self.world.send(port, packet);
            if self.forwarded() == forwarded {
                for (session, now) in self.standing() {
                    assert_eq!(standing.get(&session), Some(&now), "changed by what was dropped: {session}");
                }
            }
        }
        let world = &mut self.world;
        let names: Vec<_> = world.datapath.ports().iter().map(|port| port.name).collect();
        names
            .into_iter()
            .flat_map(|name| world.sent(name).into_iter().map(move |seen| (name, seen)))
            .collect()
    }

    fn port_of(&self, host: Ipv4Addr) -> &'static str {
        let mut clients = self.world.site.clients.iter();
        clients.find(|client| client.on_link().contains(host)).map_or("uplink", |client| client.name)
    }

    fn flow(&self, number: u16) -> Option<usize> {
        (!self.flows.is_empty()).then(|| usize::from(number) % self.flows.len())
    }

    /// A packet of a flow, outward or inward.
    fn packet(&self, flow: &Flow, inbound: bool, seed: u64) -> (Packet, Option<Kind>) {
        let mut chance = Chance::new(seed);
        let external = flow.external.unwrap_or(flow.client);
        let (from, to) = if inbound { (flow.server, external) } else { (flow.client, flow.server) };
        let length = chance.below(200);
        let data = chance.octets(length);
        match flow.protocol {
            6 => {
                let side = usize::from(inbound);
                let kind = flow.tcp.fit(Kind::any(&mut chance), side);
                let written = flow.tcp.write(kind, side, &mut chance);
                let numbers = (written.flags, written.numbers[0], written.numbers[1]);
                (tcp(from, to, numbers, &chance.octets(written.length)), Some(kind))
            }
            17 => (udp(from, to, &data), None),
            1 if inbound => (echo_reply(*from.ip(), *to.ip(), to.port(), 1, &data), None),
            1 => (echo(*from.ip(), *to.ip(), from.port(), 1, &data), None),
            other => (Packet::new(*from.ip(), *to.ip(), other, &data), None),
        }
    }

    /// The internal endpoint of the session that takes packets from a server to an external endpoint.
    fn owner(&self, protocol: u8, server: SocketAddrV4, external: SocketAddrV4) -> Option<SocketAddrV4> {
        let at = |endpoint: nat::Endpoint| SocketAddrV4::new(endpoint.address, endpoint.port);
        let is_it = |tuple: nat::Tuple| {
            let ports_match = protocol == 1 || at(tuple.source()) == server;
            (tuple.protocol(), tuple.source().address, at(tuple.destination()))
                == (protocol, *server.ip(), external)
                && ports_match
        };
        self.world.datapath.nat().iter().find_map(|(_, session)| {
            let (original, reply) = (session.original(), session.reply());
            if is_it(reply) {
                Some(at(original.source()))
            } else {
                is_it(original).then(|| at(reply.source()))
            }
        })
    }

    /// A client's packet, or one to it, in fragments or whole: it leaves as itself or not at all.
    fn exchange(&mut self, index: usize, inbound: bool, pieces: bool, seed: u64) {
        let flow = self.flows[index].clone();
        let Some(external) = flow.external.or((!inbound).then_some(flow.client)) else { return };
        let (packet, kind) = self.packet(&flow, inbound, seed);
        let from = if inbound { *flow.server.ip() } else { *flow.client.ip() };
        let first = if flow.protocol == 6 { 24 } else { 8 };
        let length = packet.payload.len();
        let sent = match pieces && length > first {
            true => {
                let whole = packet.clone().identification(seed as u16);
                let parts = [first..length, 0..first].map(|range| whole.clone().fragment(range));
                self.send(from, &parts)
            }
            false => self.send(from, std::slice::from_ref(&packet)),
        };
        let own = |seen: &Seen| {
            seen.protocol() == 1 && self.world.site.clients.iter().any(|c| c.address == seen.source())
        };
        let told = sent.iter().any(|(_, seen)| own(seen));
        let Some((port, seen)) = sent.first().filter(|_| !told) else { return };
        if inbound {
            // What comes back goes to whom it belongs: whoever has the session now.
            let owner = self.owner(flow.protocol, flow.server, external);
            let owner = owner.unwrap_or_else(|| panic!("{flow:?}: delivered to nobody's {seen:?}"));
            assert_eq!((self.port_of(*owner.ip()), seen.destination()), (*port, *owner.ip()));
            if sent.len() == 1 {
                let expected = packet.identification(seen.identification());
                assert_eq!(seen.octets, expected.forwarded(flow.server, owner));
            }
        } else if seen.destination() == *flow.server.ip() && sent.len() == 1 {
            let shown = match flow.protocol {
                1 => SocketAddrV4::new(seen.source(), seen.id()),
                6 | 17 => seen.from(),
                _ => SocketAddrV4::new(seen.source(), 0),
            };
            let expected = packet.identification(seen.identification());
            assert_eq!(seen.octets, expected.forwarded(shown, flow.server));
            // Whoever shows it now has it.
            for other in &mut self.flows {
                if (other.protocol, other.external) == (flow.protocol, Some(shown))
                    && other.client != flow.client
                {
                    other.external = None;
                }
            }
            self.flows[index].external = Some(shown);
            self.flows[index].last = Some(seen.clone());
        }
        if let Some(kind) = kind {
            let side = usize::from(inbound);
            let numbers = packet_numbers(&sent[0].1);
            let tcp = &mut self.flows[index].tcp;
            if kind.opens() && !inbound || tcp.take(kind, side, numbers) == Outcome::Dropped {
                *tcp = Tcp::open(Kind::Syn, numbers);
            }
        }
    }

    fn open(&mut self, client: Ipv4Addr, port: u8, server: SocketAddrV4, protocol: u8, seed: u64) {
        let ports = [53, 999, 5000, 5001, 40000, 65535];
        let client = (client, ports[usize::from(port) % ports.len()]).at();
        let (client, server) = match protocol {
            6 | 17 => (client, server),
            1 => (client, SocketAddrV4::new(*server.ip(), 0)),
            _ => (SocketAddrV4::new(*client.ip(), 0), SocketAddrV4::new(*server.ip(), 0)),
        };
        let known = self
            .flows
            .iter()
            .position(|flow| (flow.protocol, flow.client, flow.server) == (protocol, client, server));
        let port = self.port_of(*client.ip());
        let before = self.refused(port);
        let index = known.unwrap_or_else(|| {
            let tcp = Tcp::open(Kind::Syn, [seed as u32, 0]);
            self.flows.push(Flow { protocol, client, server, external: None, tcp, last: None });
            self.flows.len() - 1
        });
        self.exchange(index, false, false, seed);
        if self.refused(port) > before {
            self.is_fair(client, protocol);
        }
    }

    fn error(&mut self, index: usize, code: u8, cut: u8) {
        let flow = &self.flows[index];
        let Some(last) = &flow.last else { return };
        let length = (28 + usize::from(cut)).min(last.octets.len());
        let (sender, destination) = (*flow.server.ip(), last.source());
        let error = icmp_error(sender, destination, (3, code % 16), &last.octets[..length]);
        let sent = self.send(sender, &[error]);
        assert!(sent.len() < 2);
        for (port, seen) in sent {
            assert_eq!((port, seen.icmp()), (self.port_of(seen.destination()), (3, code % 16)));
            assert!(judge::is_sound(&seen.octets));
            let quote = seen.quote();
            assert_eq!(quote.source(), seen.destination(), "the error goes to the sender of what it quotes");
        }
    }

    fn step(&mut self, step: &Step) {
        let servers = ["198.51.100.9:80", "198.51.100.10:53", "192.0.2.77:7000", "203.0.113.5:7000"];
        match *step {
            Step::Out { client, host, port, server, protocol, seed } => {
                let protocol = [17, 17, 17, 6, 6, 6, 1, 1, 47, 132][usize::from(protocol) % 10];
                let clients = self.plan.clients.len();
                let from = usize::from(client) % clients;
                let client = self.plan.host(from, host);
                let server = match usize::from(server) % 6 {
                    4 if clients > 1 => (self.plan.host((from + 1) % clients, host), 7000).at(),
                    other => servers[other % 4].at(),
                };
                self.open(client, port, server, protocol, seed);
            }
            Step::Again { flow, seed } => {
                if let Some(index) = self.flow(flow) {
                    self.exchange(index, false, false, seed);
                }
            }
            Step::In { flow, seed } => {
                if let Some(index) = self.flow(flow) {
                    self.exchange(index, true, false, seed);
                }
            }
            Step::Pieces { flow, inbound, seed } => {
                if let Some(index) = self.flow(flow) {
                    self.exchange(index, inbound, true, seed);
                }
            }
            Step::Error { flow, code, cut } => {
                if let Some(index) = self.flow(flow) {
                    self.error(index, code, cut);
                }
            }
            Step::Stranger { flow, port } => self.stranger(flow, port),
            Step::Hairpin { flow, client, host, port } => {
                let from = usize::from(client) % self.plan.clients.len();
                let client = self.plan.host(from, host);
                let target = self.flow(flow).map(|index| self.flows[index].clone());
                if let Some(Flow { protocol: protocol @ (6 | 17), external: Some(to), .. }) = target {
                    let ports = [53, 999, 5000, 5001, 40000, 65535];
                    let from = (client, ports[usize::from(port) % ports.len()]).at();
                    let packet =
                        if protocol == 17 { udp(from, to, b"hairpin") } else { tcp(from, to, 2, b"") };
                    self.send(client, &[packet]);
                }
            }
            Step::Garbage { port, ref octets } => {
                let ports = self.ports();
                let port = usize::from(port) % ports.len();
                let frame = self.world.frame_for(port, octets);
                self.world.send_frame(ports[port], &frame);
                self.world.forget();
            }
            Step::Pass { seconds } => self.world.pass_seconds(seconds.into()),
        }
        self.check();
    }

    fn stranger(&mut self, flow: u16, port: u8) {
        let target = self.flow(flow).map(|index| self.flows[index].clone());
        let Some(Flow { protocol: protocol @ (6 | 17), external: Some(to), .. }) = target else { return };
        let from = ("203.0.113.99", 1 + u16::from(port)).at();
        let packet = if protocol == 17 { udp(from, to, b"stranger") } else { tcp(from, to, 2, b"") };
        for (port, seen) in self.send(*from.ip(), &[packet]) {
            assert_eq!(port, self.port_of(seen.destination()), "to the owner of a mapping");
            assert_eq!(seen.from(), from);
        }
    }

    /// How many sessions a client has, and how many mappings of a protocol and a class.
    fn usage(&self, name: &str, protocol: u8, low: bool) -> (u32, u32) {
        let (mut sessions, mut mappings) = (0, BTreeSet::new());
        for (_, session) in self.world.datapath.nat().iter() {
            let (original, reply) = (session.original(), session.reply());
            let inside = self.port_of(original.source().address) != "uplink";
            let owner = if inside { original.source() } else { reply.source() };
            sessions += u32::from(self.port_of(owner.address) == name);
            let used = [(original.source(), reply.destination()), (reply.source(), original.destination())];
            for (internal, external) in used.into_iter().filter(|_| original.protocol() == protocol) {
                let is_mapped = self.world.datapath.nat().internal(protocol, external) == Some(internal);
                if is_mapped && self.port_of(internal.address) == name && (internal.port < 1024) == low {
                    mappings.insert(external);
                }
            }
        }
        (sessions, mappings.len() as u32)
    }

    /// Packets of a client for which there was no room.
    fn refused(&self, port: &str) -> u64 {
        let reasons = [Dropped::ClientQuota, Dropped::SessionsExhausted, Dropped::PortsExhausted];
        reasons.into_iter().map(|reason| self.world.drops(port, reason)).sum()
    }

    /// Who is refused has at least what is kept for each client, whatever the others do.
    fn is_fair(&self, client: SocketAddrV4, protocol: u8) {
        let site = self.world.site;
        let clients = self.plan.clients.len() as u32;
        let low = client.port() < 1024 && protocol != 1;
        let (sessions, mappings) = self.usage(self.port_of(*client.ip()), protocol, low);
        let pool = match (protocol, low, self.plan.narrow) {
            (1, ..) => 65_536,
            (_, true, _) => 1023,
            (_, _, true) => 64,
            _ => 64_512,
        };
        let chosen = site.nat.client_floor;
        let floor = if chosen == 0 { pool.min(site.nat.sessions) / (2 * clients) } else { chosen };
        assert!(
            sessions >= site.nat.sessions / (2 * clients) || mappings >= floor.min(pool),
            "{client} is refused with {sessions} sessions and {mappings} mappings"
        );
    }

    /// Sessions and mappings add up, and none has what another has.
    fn check(&self) {
        let nat = self.world.datapath.nat();
        let (mut tuples, mut count) = (BTreeSet::new(), 0);
        let mut owners = BTreeMap::new();
        let mut externals = BTreeMap::new();
        let own: Vec<Ipv4Addr> = self.world.judges[0].own.clone();
        for (_, session) in nat.iter() {
            count += 1;
            let (original, reply) = (session.original(), session.reply());
            for direction in [Direction::Original, Direction::Reply] {
                assert!(tuples.insert(format!("{:?}", session.tuple(direction))), "one tuple, two sessions");
            }
            let protocol = original.protocol();
            if session.is_snat() {
                let (internal, external) = (original.source(), reply.destination());
                assert!(own.contains(&external.address), "{external:?} is not ours");
                if matches!(protocol, 1 | 6 | 17) {
                    let owner = owners.entry((protocol, external)).or_insert(internal);
                    assert_eq!(*owner, internal, "{external:?} is overloaded");
                    // Towards other clients too: they see what the outside sees.
                    let one = externals.entry((protocol, internal, external.address)).or_insert(external);
                    assert_eq!(*one, external, "{internal:?} has two external endpoints");
                    let outward = self.port_of(reply.source().address) == "uplink";
                    assert_eq!(nat.internal(protocol, external), Some(internal));
                    if outward {
                        self.in_pool(protocol, internal.port, external.port);
                    }
                }
            }
            // From outside, or hairpinned: the mapping that it came through stays as long.
            if session.is_dnat() {
                let (internal, external) = (reply.source(), original.destination());
                let owner = owners.entry((protocol, external)).or_insert(internal);
                assert_eq!(*owner, internal, "{external:?} is overloaded");
                assert_eq!(nat.internal(protocol, external), Some(internal), "{original:?}");
            }
        }
        let counts = nat.counts();
        assert_eq!((counts.sessions, counts.mappings), (count, owners.len() as u32), "counts add up");
        assert!(count <= self.world.site.nat.sessions);
    }

    /// RFC 4787 REQ-3 a, 4: the class and the parity of a port; all of the pool's.
    fn in_pool(&self, protocol: u8, internal: u16, external: u16) {
        let last = if self.plan.narrow { 1087 } else { 65_535 };
        match protocol {
            1 => return,
            _ if self.plan.source == Source::Ports => {
                assert!((20_000..20_064).contains(&external), "{internal} -> {external}");
                return;
            }
            _ if self.plan.source == Source::Blocks => return,
            _ if internal < 1024 => assert!((1..1024).contains(&external), "{internal} -> {external}"),
            _ => assert!((1024..=last).contains(&external), "{internal} -> {external}"),
        }
        if !self.plan.narrow {
            assert_eq!(internal % 2, external % 2, "{internal} -> {external}");
        }
    }

    /// Everything ends.
    fn end(mut self) {
        self.world.pass_in_steps(8000, 40);
        self.world.forget();
        let left = self.world.occupancy();
        assert_eq!((left.sessions, left.mappings), (0, 0));
        for port in self.ports() {
            assert_eq!(self.world.held(port), 0, "frames of {port}");
        }
    }
}

/// Sequence and acknowledgement number of a segment.
fn packet_numbers(seen: &Seen) -> [u32; 2] {
    let word = |at: usize| {
        let octets = seen.transport().get(at..at + 4).expect("a TCP header");
        u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]])
    };
    [word(4), word(8)]
}

#[test]
fn whatever_the_site_and_the_traffic_translation_keeps_its_promises() {
    let cases = std::env::var("WEIR_CASES").map_or(400, |text| text.parse().expect("WEIR_CASES is a number"));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[48; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let scenes = (Plan::any(), vec(Step::any(), 1..250));
    let result = runner.run(&scenes, |(plan, steps)| {
        let mut play = Play::new(plan);
        for step in &steps {
            play.step(step);
        }
        play.end();
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
