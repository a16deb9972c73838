//! Everything that a site can ask for, at once and at random: nothing is lost and nothing is left.

mod world;

use nat::{Endpoint, Filtering, Gone, Guess, Hit, SourceNat, Timeouts, Tuple, protocol};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use world::*;

const PLACES: u32 = 48;
/// The first external port, and how many there are.
const FIRST: u16 = 10_000;
const PORTS: u16 = 10;
/// Addresses that are ours, at times.
const OURS: [Ipv4Addr; 3] = [EXTERNAL, Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(198, 18, 0, 9)];
/// Each client's for 1:1 translation.
const STATIC: [Ipv4Addr; 3] =
    [Ipv4Addr::new(203, 0, 114, 0), Ipv4Addr::new(203, 0, 114, 1), Ipv4Addr::new(203, 0, 114, 2)];

fn is_inside(endpoint: Endpoint) -> bool {
    endpoint.address.octets()[0] == 10
}

/// Whose an internal endpoint is.
fn client(internal: Endpoint) -> u8 {
    internal.address.octets()[2]
}

struct Life {
    world: World,
    random: Random,
    /// What is about to be gone, and where to go on.
    going: Option<(Gone, u32)>,
    /// What was foreseen of packets, some time ago.
    guesses: [Guess; 16],
}

impl Life {
    fn new(seed: u64) -> Self {
        let world = World::with_both(
            |config| {
                (config.sessions, config.external_ports) = (PLACES, FIRST..=FIRST + PORTS - 1);
                config.external = &[EXTERNAL, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED];
                config.timeouts =
                    Timeouts { udp: 100, tcp_established: 400, tcp_transitory: 50, icmp: 20, other: 60 };
            },
            |options| {
                options.port_rest = [0, 30][seed as usize % 2];
                options.clients = [0, 3][seed as usize / 2 % 2];
                (options.pickup, options.other_protocols, options.tcp_windows) = (true, true, false);
                options.udp_filtering = Filtering::EndpointIndependent;
                options.tcp_filtering = Filtering::AddressDependent;
            },
        );
        Self { world, random: Random(seed), going: None, guesses: [Guess::NONE; 16] }
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn step(&mut self) {
        let some = self.random.below(60);
        match self.random.below(40) {
            0 => self.world.wait(some as i64),
            1 => {
                self.world.told().expire(some as usize);
            }
            2 => {
                let is_one = |port| u64::from(port % 8) == some % 8;
                self.world.nat.remove_where(0, PLACES, |session| is_one(session.original().source().port));
            }
            3 => self.forget(some as u32),
            4 => {
                let address = self.any(&OURS);
                if self.going.is_none_or(|(gone, _)| gone != Gone::External(address)) {
                    self.world.nat.take_in(address, &[]);
                }
            }
            _ => self.packet(),
        }
    }

    /// A client or an address goes, so many places at a time.
    fn forget(&mut self, budget: u32) {
        let (gone, from) = match (self.going, budget % 16) {
            (Some(going), _) => going,
            (None, 0) => (Gone::External(self.any(&OURS)), 0),
            (None, 1) => (Gone::Client(self.any(&[0, 1, 2])), 0),
            _ => return,
        };
        self.going = self.world.told().forget(gone, from, budget).map(|from| (gone, from));
    }

    fn host(&mut self) -> Endpoint {
        let address = [10, 0, self.any(&[0, 1, 2]), self.any(&[7, 8])].into();
        end(address, self.any(&[600, 601, 5000, 5001, 5002]))
    }

    /// From whom to whom a packet goes.
    fn ends(&mut self) -> (Endpoint, Endpoint) {
        let (host, other) = (self.host(), self.host());
        let peer = end([198, 51, 100, self.any(&[0, 1])].into(), self.any(&[53, 54, 55]));
        let port = FIRST + self.random.below(PORTS.into()) as u16;
        let ours = end(self.any(&OURS), self.any(&[port, port, FORWARD.port]));
        self.any(&[(peer, ours), (host, ours), (host, other), (host, peer), (host, peer)])
    }

    /// The next packet: one of a session, in either direction, or any other.
    fn octets(&mut self) -> Vec<u8> {
        let direction = self.any(&BOTH);
        let at = self.random.below(2 * u64::from(PLACES)) as usize;
        let known = self.world.nat.iter().nth(at).map(|(_, session)| session.tuple(direction));
        let known = known.filter(|tuple| matches!(tuple.protocol(), protocol::UDP | protocol::TCP));
        let ends = self.ends();
        let (from, to) = known.map_or(ends, |tuple| (tuple.source(), tuple.destination()));
        let number = self.any(&[protocol::UDP, protocol::TCP, protocol::TCP, protocol::ICMP, 47, 238]);
        match known.map_or(number, |tuple| tuple.protocol()) {
            protocol::UDP => udp(from, to, b"data"),
            protocol::TCP => {
                let flags = self.any(&[SYN, SYN, SYN | ACK, ACK, RST, FIN | ACK]);
                tcp(from, to, flags, (1, 1), &[])
            }
            protocol::ICMP => query(from.address, to.address, 8, from.port),
            _ => ipv4(from.address, to.address, number, &[1; 8]),
        }
    }

    fn packet(&mut self) {
        let octets = self.octets();
        let packet = parse(&octets);
        let tuple = packet.tuple_with(true).unwrap();
        // Now and then nobody looks before a session is bound.
        let looks = self.random.below(10) > 0;
        match looks.then(|| self.lookup(&octets, &tuple)).flatten() {
            Some(hit) => {
                let _ = self.world.told().admit(hit, &packet);
                let head = head(&packet, self.world.nat.translation(hit));
                judge(&[&head, &octets[packet.head_len()..]].concat());
            }
            None => self.open(&octets, tuple),
        }
    }

    /// Whatever is foreseen, the same is found.
    fn lookup(&mut self, octets: &[u8], tuple: &Tuple) -> Option<Hit> {
        let found = self.world.told().lookup(tuple);
        let foreseen = self.world.nat.foresee(octets);
        for guess in self.guesses.into_iter().chain([foreseen, Guess::NONE]) {
            assert_eq!(self.world.nat.lookup_at(tuple, guess), found);
        }
        if self.random.below(4) == 0 {
            self.guesses[self.random.below(16) as usize] = foreseen;
        }
        found
    }

    /// A policy that lets clients do anything, and outsiders what the mappings let them.
    fn open(&mut self, octets: &[u8], tuple: Tuple) {
        let (from, to) = (tuple.source(), tuple.destination());
        let inbound = self.world.nat.inbound(&tuple, is_inside(from));
        let forward = (OURS.contains(&to.address) && to.port == FORWARD.port).then_some(FORWARDED);
        let destination = inbound.or(forward).unwrap_or(to);
        let inside = [from, destination].into_iter().filter(|&end| is_inside(end)).map(client);
        let clients: Vec<_> = inside.collect();
        let is_going = match self.going {
            Some((Gone::Client(gone), _)) => clients.contains(&gone),
            Some((Gone::External(gone), _)) => to.address == gone,
            None => false,
        };
        let Some(&client) = clients.first().filter(|_| !is_going) else {
            return;
        };
        let external = self.any(&OURS);
        let source = match self.random.below(8) {
            _ if !is_inside(from) => SourceNat::None,
            0 => SourceNat::Range(external, FIRST + 2, FIRST + 5),
            1 => SourceNat::Random(external, None),
            2 => SourceNat::Static(STATIC[usize::from(client)]),
            3 if inbound.is_none() => SourceNat::None,
            _ => SourceNat::Address(external),
        };
        if let Ok(hit) = self.world.bind_to(client, octets, destination, source) {
            assert_eq!(self.world.nat.session(hit.session).original(), tuple);
        }
    }

    /// Every session is found by both of its tuples, which no other has; every mapping that they
    /// use is one endpoint's; and there are no mappings but those.
    fn check(&mut self) {
        let sessions: Vec<_> = self.world.nat.iter().map(|(id, session)| (id, session.clone())).collect();
        let (mut tuples, mut mappings) = (BTreeMap::new(), BTreeMap::new());
        for (id, session) in sessions {
            let (original, reply) = (session.original(), session.reply());
            let protocol = original.protocol();
            let has_ports = matches!(protocol, protocol::ICMP | protocol::TCP | protocol::UDP);
            // Its opener's, and the one that it came through.
            let own = (reply.destination(), original.source());
            let its = (original.destination(), reply.source());
            let used = [
                (session.is_snat() && has_ports && !STATIC.contains(&own.0.address)).then_some(own),
                (session.is_dnat() && its.0.port != FORWARD.port).then_some(its),
            ];
            for (external, internal) in used.into_iter().flatten() {
                assert_eq!(*mappings.entry((protocol, external)).or_insert(internal), internal);
                assert_eq!(self.world.nat.internal(protocol, external), Some(internal));
            }
            if self.world.nat.remaining(id) > 0 {
                for direction in BOTH {
                    let tuple = session.tuple(direction);
                    assert_eq!(
                        self.world.nat.lookup(&tuple),
                        Some(Hit { session: id, direction }),
                        "{tuple}"
                    );
                    assert_eq!(tuples.insert(tuple, id), None, "{tuple} twice");
                }
            }
        }
        assert_eq!(self.world.nat.counts().mappings as usize, mappings.len());
    }

    /// Everything ends, and everything is free again: each port of each address, and each place.
    fn end(mut self) {
        while let Some((gone, from)) = self.going {
            self.going = self.world.told().forget(gone, from, PLACES).map(|from| (gone, from));
        }
        self.world.wait(1000);
        while self.world.told().expire(1000) > 0 {}
        assert_eq!((self.world.nat.counts().sessions, self.world.nat.counts().mappings), (0, 0));
        for address in OURS {
            self.world.nat.take_in(address, &[]);
        }
        for place in 0..PLACES as u16 {
            // The places that are left are for other sessions of the same mappings.
            let (port, address) = (FIRST + place % PORTS, OURS[usize::from(place / PORTS) % OURS.len()]);
            let client = (port % 3) as u8;
            let octets = udp(end([10, 0, client, 9].into(), port), end(SERVER, 100 + place), b"");
            self.world.bind(client, &octets, SourceNat::Range(address, port, port)).unwrap();
        }
        let counts = self.world.nat.counts();
        assert_eq!((counts.sessions, counts.mappings), (PLACES, u32::from(PORTS) * OURS.len() as u32));
    }
}

#[test]
fn a_random_life_with_every_option_leaves_nothing_and_every_port_is_free_again() {
    for seed in 0..16 {
        let mut life = Life::new(seed);
        for round in 0..3000 {
            // Told if it fails.
            println!("seed {seed} round {round}");
            life.step();
            life.check();
        }
        life.end();
    }
}
