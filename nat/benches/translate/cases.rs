//! What is measured: a case is a loop over packets, for the translator and for the floor.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant as Clock};

use nat::{
    Binding, Checksum, Config, Guess, HEAD_MAX, Hit, Nat, Options, Packet, SourceNat, Timeouts, Tuple,
};
use smoltcp::time::Instant;

use crate::floor::Floor;
use crate::packets::{self, EXTERNAL, Kind, Octets, Random};

/// Translates so many packets, and tells how long that took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

/// One line of the table.
pub struct Case {
    pub name: &'static str,
    pub nat: fn() -> Run,
    pub floor: Option<fn() -> Run>,
}

/// Room on either side: for the largest number of flows and some thousand new ones.
const CAPACITY: u32 = 65_536;
const MANY: usize = 60_000;
/// New flows between two measurements.
const NEW: usize = 4_000;
/// Packets of one pass, as the datapath takes them from a port.
const BATCH: usize = 64;

pub const CASES: [Case; 12] = [
    Case { name: "nothing", nat: || known(vec![[0; 64]], |_| {}), floor: None },
    Case { name: "UDP, 1 flow", nat: || hits(Kind::Udp, 1), floor: Some(|| floor_hits(1)) },
    Case { name: "UDP, 1 000 flows", nat: || hits(Kind::Udp, 1000), floor: Some(|| floor_hits(1000)) },
    Case { name: "UDP, 60 000 flows", nat: || hits(Kind::Udp, MANY), floor: Some(|| floor_hits(MANY)) },
    Case { name: "UDP, 60 000 flows, ahead", nat: batches, floor: Some(floor_batches) },
    Case { name: "TCP, 1 000 flows", nat: || hits(Kind::Tcp, 1000), floor: None },
    Case { name: "ICMP echo, 1 000 flows", nat: || hits(Kind::Echo, 1000), floor: None },
    Case { name: "ICMP error, 1 000 flows", nat: errors, floor: None },
    Case { name: "new flow into 60 000", nat: new_flows, floor: Some(floor_new_flows) },
    Case { name: "TCP connection, 6 segments", nat: connections, floor: None },
    Case { name: "new flow, full, refused", nat: refused, floor: Some(floor_refused) },
    Case { name: "new flow, full, one goes", nat: replaced, floor: None },
];

/// The translator as the datapath uses it: headers are read and written in buffers made once.
struct Gate {
    nat: Nat,
    packet: Packet,
    head: [u8; HEAD_MAX],
}

impl Gate {
    fn new(sessions: u32, options: Options) -> Self {
        let config = Config {
            sessions,
            external: &[EXTERNAL],
            external_ports: 1024..=65535,
            timeouts: Timeouts::default(),
            inbound_refresh: false,
        };
        let mut nat = Nat::with_options(&config, &[], [0x5eed, 0x5eed << 40], options);
        nat.advance_to(Instant::from_secs(1000));
        Self { nat, packet: Packet::EMPTY, head: [0; HEAD_MAX] }
    }

    fn with_flows(kind: Kind, flows: usize) -> Self {
        let options = Options { pickup: true, ..Options::default() };
        let mut gate = Self::new(CAPACITY, options);
        for flow in 0..flows {
            gate.translate(&packets::outbound(kind, flow));
        }
        assert_eq!(gate.nat.counts().sessions as usize, flows);
        gate
    }

    /// The head of what leaves: a packet of a session, or one that opens one; none if there is no
    /// room.
    #[inline(always)]
    fn translate(&mut self, octets: &Octets) -> Option<&[u8]> {
        let tuple = self.read(octets)?;
        let hit = self.nat.lookup(&tuple);
        self.leave(hit)
    }

    #[inline(always)]
    fn read(&mut self, octets: &Octets) -> Option<Tuple> {
        self.packet.read(octets, Checksum::Complete).ok()?;
        self.packet.tuple()
    }

    #[inline(always)]
    fn leave(&mut self, hit: Option<Hit>) -> Option<&[u8]> {
        let Self { nat, packet, head } = self;
        let Some(hit) = hit else {
            let hit = Self::open(nat, packet, 0)?;
            return Some(packet.rewrite(head, nat.translation(hit)));
        };
        let translation = nat.translation(hit);
        nat.admit(hit, packet).ok()?;
        Some(packet.rewrite(head, translation))
    }

    #[inline(always)]
    fn pass(&mut self, octets: &Octets) {
        assert!(black_box(self.translate(octets)).is_some());
    }

    #[inline(always)]
    fn pass_foreseen(&mut self, octets: &Octets, guess: Guess) {
        let tuple = self.read(octets).expect("a packet");
        let hit = self.nat.lookup_at(&tuple, guess);
        assert!(black_box(self.leave(hit)).is_some());
    }

    /// Begins a session; out of the way of known packets, as in the datapath.
    #[inline(never)]
    fn open(nat: &mut Nat, packet: &Packet, client: u8) -> Option<Hit> {
        let original = packet.tuple()?;
        let source = SourceNat::Address(EXTERNAL);
        let binding = Binding { original, destination: original.destination(), source, residue: [0; 2] };
        nat.bind_for(client, binding, packet).ok()
    }
}

/// Goes through packets of known flows, picked at random.
fn known(packets: Vec<Octets>, mut step: impl FnMut(&mut Octets) + 'static) -> Run {
    let mut random = Random(1);
    Box::new(move |rounds| {
        let start = Clock::now();
        for _ in 0..rounds {
            let mut octets = packets[random.below(packets.len())];
            step(black_box(&mut octets));
            black_box(&mut octets);
        }
        start.elapsed()
    })
}

/// The same in batches: of each packet what it needs is loaded before the first is translated.
fn known_ahead<T: 'static, G: Copy + 'static>(
    mut translator: T,
    nothing: G,
    warm: impl Fn(&T, &Octets) -> G + 'static,
    mut step: impl FnMut(&mut T, &mut Octets, G) + 'static,
) -> Run {
    let packets: Vec<_> = (0..MANY).map(|flow| packets::outbound(Kind::Udp, flow)).collect();
    let mut random = Random(1);
    let mut batch = [[0; 64]; BATCH];
    let mut guesses = [nothing; BATCH];
    Box::new(move |rounds| {
        let start = Clock::now();
        for _ in 0..rounds.div_ceil(BATCH as u64) {
            for octets in &mut batch {
                *octets = packets[random.below(packets.len())];
            }
            for (octets, guess) in black_box(&batch).iter().zip(&mut guesses) {
                *guess = warm(&translator, octets);
            }
            for (octets, guess) in batch.iter_mut().zip(guesses) {
                step(&mut translator, octets, guess);
                black_box(octets);
            }
        }
        start.elapsed()
    })
}

/// Goes through flows that nobody knows; `fresh` makes a world without them when they run out.
fn unknown<T: 'static>(
    fresh: impl Fn() -> T + 'static,
    step: impl FnMut(&mut T, &mut Octets) + 'static,
) -> Run {
    unknown_of(new_ones().map(|flow| packets::outbound(Kind::Udp, flow)).collect(), fresh, step)
}

fn new_ones() -> Range<usize> {
    MANY..MANY + NEW
}

/// The same, where a flow has more than one packet.
fn unknown_of<T: 'static, P: Copy + 'static>(
    packets: Vec<P>,
    fresh: impl Fn() -> T + 'static,
    mut step: impl FnMut(&mut T, &mut P) + 'static,
) -> Run {
    let mut world = (fresh(), 0);
    Box::new(move |rounds| {
        let mut taken = Duration::ZERO;
        let mut left = rounds as usize;
        while left > 0 {
            if world.1 == NEW {
                world = (fresh(), 0);
            }
            let here = left.min(NEW - world.1);
            let start = Clock::now();
            for packet in &packets[world.1..world.1 + here] {
                let mut octets = *packet;
                step(&mut world.0, black_box(&mut octets));
                black_box(&mut octets);
            }
            taken += start.elapsed();
            (left, world.1) = (left - here, world.1 + here);
        }
        taken
    })
}

fn outbound(kind: Kind, flows: usize) -> Vec<Octets> {
    (0..flows).map(|flow| packets::outbound(kind, flow)).collect()
}

fn hits(kind: Kind, flows: usize) -> Run {
    let mut gate = Gate::with_flows(kind, flows);
    known(outbound(kind, flows), move |octets| gate.pass(octets))
}

fn batches() -> Run {
    let gate = Gate::with_flows(Kind::Udp, MANY);
    let foresee = |gate: &Gate, octets: &Octets| gate.nat.foresee(octets);
    known_ahead(gate, Guess::NONE, foresee, |gate, octets, guess| gate.pass_foreseen(octets, guess))
}

fn errors() -> Run {
    let mut gate = Gate::with_flows(Kind::Udp, 1000);
    let left = outbound(Kind::Udp, 1000)
        .into_iter()
        .map(|octets| packets::error(gate.translate(&octets).expect("a session")));
    let left = left.collect();
    known(left, move |octets| {
        let Gate { nat, packet, head } = &mut gate;
        packet.read(octets, Checksum::Complete).expect("a packet");
        let embedded = packet.embedded().expect("an error");
        let hit = nat.lookup_error(embedded, packet.destination()).expect("a session");
        nat.admit(hit, packet).expect("nothing to refuse");
        black_box(packet.rewrite(head, nat.translation(hit)));
    })
}

fn new_flows() -> Run {
    unknown(|| Gate::with_flows(Kind::Udp, MANY), |gate, octets| gate.pass(octets))
}

/// Connections that open and close at once; the figure is that of a whole one.
fn connections() -> Run {
    let world = || Gate::with_flows(Kind::Tcp, MANY);
    // Chance is the same in every world, and so are the ports that are given.
    let mut gate = world();
    let connection = |flow| {
        let left = gate.translate(&packets::segment(flow, 0, &[])).expect("room");
        [0, 1, 2, 3, 4, 5].map(|step| packets::segment(flow, step, left))
    };
    unknown_of(new_ones().map(connection).collect(), world, |gate, segments| {
        segments.iter().for_each(|octets| gate.pass(octets));
    })
}

/// All sessions are established ones of the one client.
fn full(clients: u8) -> Gate {
    let mut gate = Gate::new(MANY as u32, Options { clients, pickup: true, ..Options::default() });
    for flow in 0..MANY {
        gate.translate(&packets::outbound(Kind::Tcp, flow)).expect("room");
    }
    gate
}

fn refused() -> Run {
    unknown(
        || full(0),
        |gate, octets| {
            assert!(gate.translate(octets).is_none());
        },
    )
}

fn replaced() -> Run {
    let world = || {
        let mut options = Options { clients: 2, ..Options::default() };
        options.session_quota.floor = Some(0);
        options.mapping_quota.floor = Some(0);
        let mut gate = Gate::new(MANY as u32, options);
        for flow in 0..MANY {
            gate.translate(&packets::outbound(Kind::Udp, flow)).expect("room");
        }
        gate
    };
    unknown(world, |gate, octets| {
        let Gate { nat, packet, head } = gate;
        packet.read(octets, Checksum::Complete).expect("a packet");
        assert!(packet.tuple().is_some_and(|tuple| nat.lookup(&tuple).is_none()));
        let hit = Gate::open(nat, packet, 1).expect("room of the other's");
        black_box(packet.rewrite(head, nat.translation(hit)));
    })
}

fn floor(flows: usize, room: usize) -> Floor {
    let mut floor = Floor::new(room);
    for flow in 0..flows {
        let mut octets = packets::outbound(Kind::Udp, flow);
        assert!(floor.translate(&mut octets) && packets::is_right(&octets));
    }
    floor
}

fn floor_hits(flows: usize) -> Run {
    let mut floor = floor(flows, CAPACITY as usize);
    known(outbound(Kind::Udp, flows), move |octets| assert!(floor.translate(octets)))
}

fn floor_batches() -> Run {
    let warm = |floor: &Floor, octets: &Octets| {
        black_box(floor.warm(octets));
    };
    known_ahead(floor(MANY, CAPACITY as usize), (), warm, |floor, octets, ()| {
        assert!(floor.translate(octets))
    })
}

fn floor_new_flows() -> Run {
    unknown(|| floor(MANY, CAPACITY as usize), |floor, octets| assert!(floor.translate(octets)))
}

fn floor_refused() -> Run {
    unknown(|| floor(MANY, MANY), |floor, octets| assert!(!floor.translate(octets)))
}

/// Checks once that what is measured is translation: both sides' packets have right checksums.
pub fn check() {
    let mut gate = Gate::with_flows(Kind::Udp, 10);
    let mut floor = floor(10, 10);
    for flow in 0..10 {
        let mut octets = packets::outbound(Kind::Udp, flow);
        let mut left = octets;
        left[..28].copy_from_slice(gate.translate(&octets).expect("a session"));
        assert!(floor.translate(&mut octets) && packets::is_right(&octets));
        assert!(packets::is_right(&left) && left[12..16] == EXTERNAL.octets());
    }
}

/// Octets that a translator of [`CAPACITY`] sessions takes, for each.
pub fn octets_a_flow(allocated: impl Fn() -> usize) -> usize {
    let before = allocated();
    let gate = Gate::new(CAPACITY, Options::default());
    let taken = allocated() - before;
    drop(gate);
    taken / CAPACITY as usize
}
