//! The appliance against a naive reference NAT, on random traffic over several sites.
//!
//! `WEIR_ORACLE_PACKETS` sets how many packets all sites together get (a million), `WEIR_SEED`
//! which.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::time::Duration;
use tests::model::{
    Choices, EXTERNAL, FORWARD, FORWARDED, Fate, Filtering, Model, Tuple, is_without_ports, port_of,
};
use tests::packet::{At, Packet, address};
use tests::tcp_model::{Kind, Tcp, Written};
use tests::{Chance, Seen, View, World, echo, echo_reply, icmp_error, judge, site, tcp, udp};

const HOSTS: [&str; 6] = ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.2.3", "10.0.2.4", "10.0.2.5"];
const SERVERS: [&str; 4] = ["198.51.100.9", "198.51.100.10", "203.0.113.5", "192.0.2.77"];
const CLIENT_PORTS: [u16; 10] = [53, 123, 1000, 1001, 5000, 5001, 5002, 5003, 40000, 65535];
const SERVER_PORTS: [u16; 3] = [53, 80, 7000];
/// GRE, ESP, SCTP.
const WITHOUT_PORTS: [u8; 3] = [47, 50, 132];
/// Sites among which the packets are shared.
const SITES: usize = 5;

/// The world and the model of it, and the traffic between them.
struct Duel {
    world: World,
    model: Model,
    chance: Chance,
    start: i64,
    forwarded: usize,
    dropped: usize,
    errors: usize,
    fragmented: usize,
}

impl Duel {
    fn new(lines: &str, choices: Choices, chance: Chance) -> Self {
        let world = World::new(&site::plan_with(&format!("[nat]\n{lines}")), site::RULES);
        let start = world.now().secs();
        let model = Model::new(choices);
        Self { world, model, chance, start, forwarded: 0, dropped: 0, errors: 0, fragmented: 0 }
    }

    fn now(&self) -> u64 {
        (self.world.now().secs() - self.start) as u64
    }

    fn endpoint(&mut self, hosts: &[&str], ports: &[u16]) -> SocketAddrV4 {
        (address(self.chance.pick(hosts)), self.chance.pick(ports)).at()
    }

    /// An external endpoint, often one that is in use.
    fn external(&mut self) -> SocketAddrV4 {
        let flows = self.model.alive();
        let used = flows.get(self.chance.below(flows.len())).map(|flow| flow.reply.2);
        used.filter(|to| *to.ip() == EXTERNAL).unwrap_or_else(|| {
            let port = self.chance.pick(&CLIENT_PORTS);
            SocketAddrV4::new(EXTERNAL, port)
        })
    }

    /// A client sends to whom it likes: a server, the static forward, another client, a mapping.
    fn request(&mut self) -> Tuple {
        let from = self.endpoint(&HOSTS, &CLIENT_PORTS);
        let protocol = match self.chance.below(40) {
            0..39 => self.chance.pick(&[1, 6, 17]),
            _ => return self.without_ports(from),
        };
        let to = match self.chance.below(12) {
            0 if protocol != 1 => FORWARD,
            1 => self.endpoint(&HOSTS, &SERVER_PORTS),
            2..4 => self.external(),
            _ => self.endpoint(&SERVERS, &SERVER_PORTS),
        };
        // A subnet's own traffic does not pass by the appliance, and its own address answers pings.
        match port_of(*from.ip()) == port_of(*to.ip()) || (protocol == 1 && *to.ip() == EXTERNAL) {
            true => self.request(),
            false if protocol == 1 => (1, from, SocketAddrV4::new(*to.ip(), 0x0800)),
            false => (protocol, from, to),
        }
    }

    /// A packet of a protocol without ports, by a client or by somebody outside.
    fn without_ports(&mut self, from: SocketAddrV4) -> Tuple {
        let protocol = self.chance.pick(&WITHOUT_PORTS);
        let peer = self.chance.pick(&SERVERS);
        (protocol, SocketAddrV4::new(*from.ip(), 0), SocketAddrV4::new(address(peer), 0))
    }

    /// Somebody outside sends to whom he likes.
    fn unsolicited(&mut self) -> Tuple {
        let from = self.endpoint(&SERVERS, &SERVER_PORTS);
        if self.chance.happens(5) {
            let protocol = self.chance.pick(&WITHOUT_PORTS);
            return (protocol, SocketAddrV4::new(*from.ip(), 0), SocketAddrV4::new(EXTERNAL, 0));
        }
        let protocol = self.chance.pick(&[6, 17]);
        let to = match self.chance.below(4) {
            0 => FORWARD,
            1 => self.endpoint(&HOSTS, &CLIENT_PORTS),
            _ => self.external(),
        };
        (protocol, from, to)
    }

    /// A packet of a session that the model knows, either way.
    fn continued(&mut self) -> Option<Tuple> {
        let flows = self.model.alive();
        let flow = flows.get(self.chance.below(flows.len()))?;
        let (original, reply) = (flow.original, flow.reply);
        Some(if self.chance.happens(55) { reply } else { original })
    }

    /// A packet between these endpoints, and what the model is to know of its TCP header.
    fn packet(&mut self, tuple: Tuple) -> (Packet, Option<(Kind, [u32; 2])>) {
        let (protocol, from, to) = tuple;
        let length = self.chance.below(60);
        let data = self.chance.octets(length);
        let packet = match protocol {
            17 => udp(from, to, &data),
            number if is_without_ports(number) => {
                let data = self.chance.octets(12 + length);
                Packet::new(*from.ip(), *to.ip(), number, &data)
            }
            6 => {
                let (kind, written) = self.segment(tuple);
                let Written { flags, numbers: [seq, ack], length } = written;
                let packet = tcp(from, to, (flags, seq, ack), &self.chance.octets(length));
                return (packet, Some((kind, written.numbers)));
            }
            // All who ask are clients, as themselves or as seen from outside.
            _ if port_of(*from.ip()) != "uplink" || *from.ip() == EXTERNAL => {
                echo(*from.ip(), *to.ip(), from.port(), 1, &data)
            }
            _ => echo_reply(*from.ip(), *to.ip(), to.port(), 1, &data),
        };
        (packet, None)
    }

    fn segment(&mut self, tuple: Tuple) -> (Kind, Written) {
        let kind = Kind::any(&mut self.chance);
        let found = self.model.find(tuple).map(|(side, flow)| (side, flow.tcp));
        let (side, connection) = found.unwrap_or_else(|| {
            let next = self.chance.word() as u32;
            (0, Tcp::open(Kind::Syn, [next, 0]))
        });
        let kind = connection.fit(kind, side);
        (kind, connection.write(kind, side, &mut self.chance))
    }

    /// The packet arrives whole, or in fragments in any order; what left, put together again.
    fn send(&mut self, packet: &Packet) -> Vec<(&'static str, Seen)> {
        let input = port_of(packet.header.source.into());
        let length = packet.payload.len();
        let first = if packet.header.protocol.0 == 6 { 24 } else { 8 };
        if length <= first || !self.chance.happens(8) {
            self.world.send(input, packet);
            return self.sent();
        }
        self.fragmented += 1;
        let identification = self.fragmented as u16;
        let mut parts: Vec<_> = [0..first, first..length].into();
        if self.chance.happens(50) {
            parts.reverse();
        }
        for part in parts {
            self.world.send(input, packet.clone().identification(identification).fragment(part));
        }
        let sent = self.sent();
        let [(port, one), (_, two)] = &sent[..] else {
            // Its sender may be told.
            let is_whole = |(_, seen): &(_, Seen)| seen.fragment_word() & 0x3fff == 0;
            assert!(sent.iter().all(is_whole), "a part of a datagram left: {sent:?}");
            return sent;
        };
        let (head, tail) = if one.fragment_word() & 0x1fff == 0 { (one, two) } else { (two, one) };
        assert_eq!((head.identification(), head.source()), (tail.identification(), tail.source()));
        let mut octets = [&head.octets[..], tail.transport()].concat();
        octets[6..8].fill(0);
        let total = (octets.len() as u16).to_be_bytes();
        octets[2..4].copy_from_slice(&total);
        judge::mend_header(&mut octets);
        assert!(judge::is_sound(&octets), "the checksum of the whole");
        let frame = [&head.frame[..14], &octets].concat();
        vec![(port, Seen::new(frame, head.offload))]
    }

    fn sent(&mut self) -> Vec<(&'static str, Seen)> {
        let ports = ["uplink", "work", "lab"].into_iter();
        ports.flat_map(|port| self.world.sent(port).into_iter().map(move |seen| (port, seen))).collect()
    }

    /// One packet through both.
    fn exchange(&mut self, tuple: Tuple) {
        let (packet, segment) = self.packet(tuple);
        let now = self.now();
        let fate = self.model.packet(tuple, segment, now);
        let sent = self.send(&packet);
        let told = format!("{tuple:?} {segment:?} at {now}: {fate:?}");
        let expected = match fate {
            Fate::Dropped => {
                assert!(sent.is_empty(), "{told}, sent {sent:?}");
                self.dropped += 1;
                return;
            }
            Fate::Refused => {
                // RFC 5508 REQ-8, as often as RFC 1812 4.3.2.8 has it.
                let told_so =
                    |(_, seen): &(_, Seen)| (seen.icmp(), seen.destination()) == ((3, 13), *tuple.1.ip());
                assert!(sent.len() < 2 && sent.iter().all(told_so), "{told}, sent {sent:?}");
                self.dropped += 1;
                return;
            }
            Fate::Forwarded(expected) => expected,
            Fate::Mapped(destination) => {
                assert_eq!(sent.len(), 1, "{told}");
                let external = tuple_of(&sent[0].1).1;
                self.model.learn(tuple, segment, destination, external, now);
                (tuple.0, external, destination)
            }
        };
        assert_eq!(sent.len(), 1, "{told}, sent {sent:?}");
        let (port, seen) = &sent[0];
        assert_eq!((*port, tuple_of(seen)), (port_of(*expected.2.ip()), expected), "{told}");
        let identified = packet.identification(seen.identification());
        assert_eq!(seen.octets, identified.forwarded(expected.1, expected.2), "{told}");
        self.forwarded += 1;
    }

    /// An ICMP error about a packet that one side of a session got, or about nothing.
    fn error(&mut self) {
        let Some(arrived) = self.continued() else { return };
        // What left towards the error's sender: the inverse of what arrives from there.
        let mut quoted = (arrived.0, arrived.2, arrived.1);
        if self.chance.happens(10) && matches!(quoted.0, 6 | 17) {
            quoted.1.set_port(quoted.1.port() ^ 1);
        }
        let quote = self.packet(quoted).0.octets();
        let sender = *arrived.1.ip();
        let kind = self.chance.pick(&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]);
        let cut = self.chance.below(quote.len() - 27) + 28;
        let packet = icmp_error(sender, *quoted.1.ip(), kind, &quote[..cut]);
        let expected = self.model.quoted(quoted);
        self.world.send(port_of(sender), packet);
        let Some(expected) = expected else {
            self.world.quiet();
            return;
        };
        let output = port_of(*expected.1.ip());
        let seen = self.world.only(output);
        assert_eq!((seen.icmp(), seen.destination()), (kind, *expected.1.ip()));
        assert_eq!(tuple_of(&seen.quote()), expected, "quoted {quoted:?}");
        assert_eq!(seen.source(), *expected.2.ip());
        self.errors += 1;
    }

    /// Time passes, and more of it until nothing is just about to end.
    fn pass(&mut self) {
        let mut seconds = self.chance.pick(&[1, 1, 2, 5, 10, 30, 59, 61, 100, 240, 301, 3000]);
        loop {
            self.world.pass_seconds(seconds);
            // A round of upkeep looks at so many sessions, and the next is due in ten milliseconds.
            for _ in 0..8 {
                self.world.pass(Duration::from_millis(10));
            }
            seconds = 1;
            if !self.model.is_uncertain(self.now()) {
                break;
            }
        }
        self.model.clear(self.now());
        self.compare();
    }

    /// The tables hold what the model holds.
    fn compare(&mut self) {
        let occupancy = self.world.occupancy();
        let counted = (occupancy.sessions as usize, occupancy.mappings as usize);
        assert_eq!(counted, (self.model.alive().len(), self.model.mappings()), "sessions and mappings");
    }

    fn step(&mut self) {
        match self.chance.below(200) {
            0..50 => {
                let tuple = self.request();
                self.exchange(tuple);
            }
            50..66 => {
                let tuple = self.unsolicited();
                self.exchange(tuple);
            }
            66..74 => self.error(),
            74 => self.pass(),
            _ => {
                if let Some(tuple) = self.continued() {
                    self.exchange(tuple);
                }
            }
        }
    }
}

/// The endpoints of a packet as the model has them.
fn tuple_of(view: &View) -> Tuple {
    let asker = |address: Ipv4Addr| SocketAddrV4::new(address, view.id());
    let asked = |address: Ipv4Addr| SocketAddrV4::new(address, 0x0800);
    match view.protocol() {
        1 if view.icmp() == (8, 0) => (1, asker(view.source()), asked(view.destination())),
        1 => (1, asked(view.source()), asker(view.destination())),
        number if is_without_ports(number) => {
            let at = |address| SocketAddrV4::new(address, 0);
            (number, at(view.source()), at(view.destination()))
        }
        protocol => (protocol, view.from(), view.to()),
    }
}

/// A share of the packets over a site.
fn duel(lines: &str, choices: Choices, seed: u64) {
    let packets = std::env::var("WEIR_ORACLE_PACKETS")
        .map_or(1_000_000, |text| text.parse::<usize>().expect("WEIR_ORACLE_PACKETS is a number"))
        / SITES;
    let mut duel = Duel::new(lines, choices, Chance::from_environment(seed));
    for number in 0..packets {
        duel.step();
        if number % 16 == 0 {
            duel.compare();
        }
    }
    println!(
        "{} forwarded, {} dropped, {} errors, {} in fragments",
        duel.forwarded, duel.dropped, duel.errors, duel.fragmented
    );
    // The traffic is worth the name: all fates are common.
    assert!(duel.forwarded > packets / 4 && duel.dropped > packets / 50);
    assert!(duel.errors > packets / 100 && duel.fragmented > packets / 100);
    duel.world.pass_in_steps(8100, 20);
    duel.model.clear(duel.now());
    duel.compare();
    assert_eq!((duel.world.occupancy().sessions, duel.world.occupancy().mappings), (0, 0));
    assert_eq!(duel.world.held("work") + duel.world.held("lab") + duel.world.held("uplink"), 0);
}

#[test]
fn random_traffic_meets_the_fate_that_a_naive_nat_foretells() {
    duel("", Choices { port_rest: 120, ..Choices::default() }, 2026);
}

#[test]
fn so_it_does_where_ports_do_not_rest_and_anybody_is_let_in() {
    let filtering = Filtering::EndpointIndependent;
    let lines = "port_rest = 0\nfiltering = \"endpoint-independent\"";
    duel(lines, Choices { filtering, ..Choices::default() }, 4787);
}

#[test]
fn so_it_does_where_peers_are_let_in_by_address_and_refresh() {
    let (filtering, port_rest) = (Filtering::AddressDependent, 30);
    let lines = "port_rest = 30\nfiltering = \"address-dependent\"\ninbound_refresh = true";
    duel(lines, Choices { filtering, port_rest, inbound_refresh: true, ..Choices::default() }, 5382);
}

#[test]
fn so_it_does_where_connections_are_picked_up() {
    duel("pickup = true", Choices { pickup: true, port_rest: 120, ..Choices::default() }, 5508);
}

#[test]
fn so_it_does_where_all_of_that_is_chosen() {
    let filtering = Filtering::EndpointIndependent;
    let lines = "pickup = true\nfiltering = \"endpoint-independent\"\ninbound_refresh = true\nport_rest = 5";
    duel(lines, Choices { filtering, pickup: true, inbound_refresh: true, port_rest: 5 }, 7857);
}

#[test]
fn inbound_of_outbound_is_the_identity() {
    let mut chance = Chance::from_environment(7);
    let mut world = World::new(&site::plan_with("[nat]\nport_rest = 0"), site::RULES);
    for _ in 0..3000 {
        let from = SocketAddrV4::new(address(chance.pick(&HOSTS)), chance.half().max(1));
        let to = SocketAddrV4::new(address(chance.pick(&SERVERS)), chance.half().max(1));
        // The server behind the forward has a port of its own there, and a rule drops port 27.
        if from == FORWARDED || to.port() == 27 {
            continue;
        }
        let port = port_of(*from.ip());
        let length = chance.below(100);
        let data = chance.octets(length);
        let seen = world.cross(port, "uplink", udp(from, to, &data).tos(chance.octet()));
        let back = world.cross("uplink", port, udp(seen.to(), seen.from(), &data));
        let expected = udp(to, from, &data).ttl(63).identification(back.identification());
        assert_eq!(back.octets, expected.octets(), "{from} {to}");
    }
}
