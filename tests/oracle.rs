//! The appliance against a naive reference NAT, on random traffic.
//!
//! `WEIR_ORACLE_PACKETS` sets how many packets (100 000), `WEIR_SEED` which.

use std::net::{Ipv4Addr, SocketAddrV4};

use tests::flags::{ACK, RST, SYN};
use tests::model::{EXTERNAL, FORWARD, FORWARDED, Fate, Model, Tuple, port_of};
use tests::packet::{At, Packet, address};
use tests::{Chance, Seen, View, World, echo, echo_reply, icmp_error, site, tcp, udp};

const HOSTS: [&str; 6] = ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.2.3", "10.0.2.4", "10.0.2.5"];
const SERVERS: [&str; 4] = ["198.51.100.9", "198.51.100.10", "203.0.113.5", "192.0.2.77"];
const CLIENT_PORTS: [u16; 10] = [53, 123, 1000, 1001, 5000, 5001, 5002, 5003, 40000, 65535];
const SERVER_PORTS: [u16; 3] = [53, 80, 7000];

/// The world and the model of it, and the traffic between them.
struct Duel {
    world: World,
    model: Model,
    chance: Chance,
    start: i64,
    forwarded: usize,
    dropped: usize,
}

impl Duel {
    fn new(chance: Chance) -> Self {
        // The model knows no rest of ports.
        let world = World::new(&site::plan_with("[nat]\nport_rest = 0"), site::RULES);
        let start = world.now().secs();
        Self { world, model: Model::default(), chance, start, forwarded: 0, dropped: 0 }
    }

    fn now(&self) -> u64 {
        (self.world.now().secs() - self.start) as u64
    }

    fn endpoint(&mut self, hosts: &[&str], ports: &[u16]) -> SocketAddrV4 {
        (address(self.chance.pick(hosts)), self.chance.pick(ports)).at()
    }

    /// A client sends to whom it likes: a server, the static forward, another client.
    fn request(&mut self) -> Tuple {
        let from = self.endpoint(&HOSTS, &CLIENT_PORTS);
        let protocol = self.chance.pick(&[1, 6, 17]);
        let to = match self.chance.below(10) {
            0 if protocol != 1 => FORWARD,
            1 => self.endpoint(&HOSTS, &SERVER_PORTS),
            2 => SocketAddrV4::new(EXTERNAL, self.chance.half() | 1),
            _ => self.endpoint(&SERVERS, &SERVER_PORTS),
        };
        // A subnet's own traffic does not pass by the appliance, and its own address answers pings.
        match port_of(*from.ip()) == port_of(*to.ip()) || (protocol == 1 && *to.ip() == EXTERNAL) {
            true => self.request(),
            false if protocol == 1 => (1, from, SocketAddrV4::new(*to.ip(), 0x0800)),
            false => (protocol, from, to),
        }
    }

    /// Somebody outside sends to whom he likes.
    fn unsolicited(&mut self) -> Tuple {
        let from = self.endpoint(&SERVERS, &SERVER_PORTS);
        let protocol = self.chance.pick(&[6, 17]);
        match self.chance.below(3) {
            0 => (protocol, from, FORWARD),
            1 => (protocol, from, SocketAddrV4::new(EXTERNAL, self.chance.pick(&CLIENT_PORTS))),
            _ => (protocol, from, self.endpoint(&HOSTS, &CLIENT_PORTS)),
        }
    }

    /// A packet of a session that the model knows, either way.
    fn continued(&mut self) -> Option<Tuple> {
        let flows = self.model.alive(self.now());
        let flow = flows.get(self.chance.below(flows.len()))?;
        let (original, reply) = (flow.original, flow.reply);
        Some(if self.chance.happens(60) { reply } else { original })
    }

    fn packet(&mut self, tuple: Tuple, flags: u8, acknowledges_syn: bool) -> Packet {
        let (protocol, from, to) = tuple;
        let length = self.chance.below(30);
        let data = self.chance.octets(length);
        match protocol {
            17 => udp(from, to, &data),
            // Sequence numbers that fit what was sent before: no data, a SYN, a FIN.
            6 => {
                let seq = if flags & SYN != 0 { 999 } else { 1000 };
                let strange = flags & RST != 0 && !acknowledges_syn;
                tcp(from, to, (flags, seq, if strange { 77 } else { 1000 }), b"")
            }
            // All who ask are clients, as themselves or as seen from outside.
            _ if port_of(*from.ip()) != "uplink" || *from.ip() == EXTERNAL => {
                echo(*from.ip(), *to.ip(), from.port(), 1, &data)
            }
            _ => echo_reply(*from.ip(), *to.ip(), to.port(), 1, &data),
        }
    }

    /// One packet through both.
    fn exchange(&mut self, tuple: Tuple) {
        let now = self.now();
        let flags = self.chance.pick(self.model.flags(tuple, now));
        let acknowledges_syn = self.chance.happens(80);
        let packet = self.packet(tuple, flags, acknowledges_syn);
        let fate = self.model.packet(tuple, flags, acknowledges_syn, now);
        self.world.send(port_of(*tuple.1.ip()), &packet);
        let sent: Vec<(&str, Seen)> = ["uplink", "work", "lab"]
            .into_iter()
            .flat_map(|port| self.world.sent(port).into_iter().map(move |seen| (port, seen)))
            .collect();
        let told = format!("{tuple:?} flags {flags:#x} at {now}: {fate:?}");
        let expected = match fate {
            Fate::Dropped => {
                assert!(sent.is_empty(), "{told}, sent {sent:?}");
                self.dropped += 1;
                return;
            }
            Fate::Forwarded(expected) => expected,
            Fate::Mapped(destination) => {
                assert_eq!(sent.len(), 1, "{told}");
                let external = tuple_of(&sent[0].1).1;
                self.model.learn(tuple, destination, external, now);
                (tuple.0, external, destination)
            }
        };
        assert_eq!(sent.len(), 1, "{told}, sent {sent:?}");
        let (port, seen) = &sent[0];
        assert_eq!((*port, tuple_of(seen)), (port_of(*expected.2.ip()), expected), "{told}");
        let payload = View::new(packet.octets());
        assert_eq!(seen.data(), payload.data(), "{told}");
        self.forwarded += 1;
    }

    /// An ICMP error about a packet that one side of a session got, or about nothing.
    fn error(&mut self) {
        let Some(arrived) = self.continued() else { return };
        // What left towards the error's sender: the inverse of what arrives from there.
        let mut quoted = (arrived.0, arrived.2, arrived.1);
        if self.chance.happens(10) && quoted.0 != 1 {
            quoted.1.set_port(quoted.1.port() ^ 1);
        }
        let quote = self.packet(quoted, ACK, true).octets();
        let sender = *arrived.1.ip();
        let kind = self.chance.pick(&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]);
        let cut = self.chance.below(quote.len() - 27) + 28;
        let packet = icmp_error(sender, *quoted.1.ip(), kind, &quote[..cut]);
        let expected = self.model.quoted(quoted, self.now());
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
    }

    /// The tables hold what the model holds, give or take what is just being cleared away.
    fn compare(&mut self) {
        let now = self.now();
        self.model.clear(now);
        let occupancy = self.world.occupancy();
        let within = |(low, high): (usize, usize), count: u32, what: &str| {
            let count = count as usize;
            assert!((low..=high).contains(&count), "{count} {what}, not {low} to {high} at {now}");
        };
        within(self.model.sessions(now), occupancy.sessions, "sessions");
        within(self.model.mappings(now), occupancy.mappings, "mappings");
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => {
                let tuple = self.request();
                self.exchange(tuple);
            }
            30..36 => {
                let tuple = self.unsolicited();
                self.exchange(tuple);
            }
            36..40 => self.error(),
            40..42 => {
                let seconds = self.chance.pick(&[1, 1, 2, 10, 30, 59, 61, 100, 240, 301, 3000]);
                self.world.pass_seconds(seconds);
            }
            _ => {
                if let Some(tuple) = self.continued() {
                    self.exchange(tuple);
                }
            }
        }
        self.compare();
    }
}

/// The endpoints of a packet as the model has them.
fn tuple_of(view: &View) -> Tuple {
    let asker = |address: Ipv4Addr| SocketAddrV4::new(address, view.id());
    let asked = |address: Ipv4Addr| SocketAddrV4::new(address, 0x0800);
    match view.protocol() {
        1 if view.icmp() == (8, 0) => (1, asker(view.source()), asked(view.destination())),
        1 => (1, asked(view.source()), asker(view.destination())),
        protocol => (protocol, view.from(), view.to()),
    }
}

#[test]
fn random_traffic_meets_the_fate_that_a_naive_nat_foretells() {
    let packets = std::env::var("WEIR_ORACLE_PACKETS")
        .map_or(100_000, |text| text.parse().expect("WEIR_ORACLE_PACKETS is a number"));
    let mut duel = Duel::new(Chance::from_environment(2026));
    for _ in 0..packets {
        duel.step();
    }
    println!("{} forwarded, {} dropped", duel.forwarded, duel.dropped);
    // The traffic is worth the name: both fates are common.
    assert!(duel.forwarded > packets / 4 && duel.dropped > packets / 50);
    duel.world.pass_seconds(8000);
    duel.compare();
    assert_eq!(duel.world.occupancy().sessions, 0);
    assert_eq!(duel.world.occupancy().mappings, 0);
    assert_eq!(duel.world.held("work") + duel.world.held("lab") + duel.world.held("uplink"), 0);
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
        let expected = udp(to, from, &data).ttl(63);
        assert_eq!(back.octets, expected.octets(), "{from} {to}");
    }
}
