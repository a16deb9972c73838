//! Two TCP stacks that open, give up, forget and open again, both at once or one alone, the NAT
//! between them, losses on both sides of it: as soon as nothing is lost any more they are connected.

mod world;

use nat::Endpoint;
use world::*;

const ENDS: [Endpoint; 2] = [Endpoint::new(CLIENT, 5000), Endpoint::new(SERVER, 80)];
/// What the server sees of the client.
const OUT: Endpoint = Endpoint::new(EXTERNAL, 5000);

/// Flags, sequence and acknowledgement number.
type Segment = (u8, u32, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Listening,
    SynSent,
    SynReceived,
    Established,
}
use State::*;

/// One end (RFC 9293 3.10.7), without data.
#[derive(Clone, Copy, Debug)]
struct Stack {
    state: State,
    /// Where it goes from a state that failed.
    rest: State,
    /// Its own SYN's number, and the other's.
    own: u32,
    other: u32,
}

impl Stack {
    /// It begins anew, with a number that was not used yet.
    fn open(&mut self, random: &mut Random) {
        self.own = self.own.wrapping_add(1 + random.below(1 << 24) as u32);
        self.state = SynSent;
    }

    /// What it sends, again and again, until it is answered.
    fn urge(&self) -> Option<Segment> {
        match self.state {
            SynSent => Some((SYN, self.own, 0)),
            SynReceived => Some((SYN | ACK, self.own, self.other.wrapping_add(1))),
            Established => Some(self.acknowledgement()),
            Closed | Listening => None,
        }
    }

    fn acknowledgement(&self) -> Segment {
        (ACK, self.own.wrapping_add(1), self.other.wrapping_add(1))
    }

    fn take(&mut self, (flags, sequence, acknowledged): Segment, random: &mut Random) -> Option<Segment> {
        let (has, next) = (|flag| flags & flag != 0, self.other.wrapping_add(1));
        let is_acknowledged = has(ACK) && acknowledged == self.own.wrapping_add(1);
        match self.state {
            Closed if has(RST) => None,
            Closed if has(ACK) => Some((RST, acknowledged, 0)),
            Closed => Some((RST | ACK, 0, sequence.wrapping_add(u32::from(has(SYN))))),
            Listening if has(RST) => None,
            Listening if has(ACK) => Some((RST, acknowledged, 0)),
            Listening if has(SYN) => {
                self.open(random);
                (self.state, self.other) = (SynReceived, sequence);
                self.urge()
            }
            Listening => None,
            SynSent if has(ACK) && !is_acknowledged => (!has(RST)).then_some((RST, acknowledged, 0)),
            SynSent if has(RST) => {
                self.state = if has(ACK) { self.rest } else { SynSent };
                None
            }
            SynSent if has(SYN) => {
                self.other = sequence;
                self.state = if has(ACK) { Established } else { SynReceived };
                if has(ACK) { Some(self.acknowledgement()) } else { self.urge() }
            }
            SynSent => None,
            SynReceived | Established if has(RST) => {
                self.state = if sequence == next { self.rest } else { self.state };
                None
            }
            SynReceived if is_acknowledged && [self.other, next].contains(&sequence) => {
                self.state = Established;
                Some(self.acknowledgement())
            }
            // RFC 5961 4, RFC 9293 3.10.7.4.
            _ if has(SYN) || sequence != next => Some(self.acknowledgement()),
            SynReceived | Established => None,
        }
    }
}

/// The NAT between two stacks, or nothing.
struct Path {
    world: Option<World>,
    random: Random,
    stacks: [Stack; 2],
    /// Of a hundred segments, on each side of the NAT.
    loss: u64,
}

impl Path {
    /// A segment of one side travels to the other, and so do the answers to it.
    fn send(&mut self, mut from: usize, segment: Segment) {
        let mut next = Some(segment);
        for _ in 0..8 {
            let Some(segment) = next else { return };
            let is_lost = [(); 2].map(|()| self.random.below(100) < self.loss);
            if is_lost[0] {
                return;
            }
            if let Some(world) = &mut self.world {
                let (source, destination) = if from == 0 { (ENDS[0], ENDS[1]) } else { (ENDS[1], OUT) };
                let (flags, sequence, acknowledged) = segment;
                let octets = tcp(source, destination, flags, (sequence, acknowledged), &[]);
                if world.cross(&octets).is_err() {
                    return;
                }
            }
            if is_lost[1] {
                return;
            }
            from = 1 - from;
            next = self.stacks[from].take(segment, &mut self.random);
        }
    }

    fn round(&mut self) {
        let first = self.random.below(2) as usize;
        for from in [first, 1 - first] {
            if let Some(segment) = self.stacks[from].urge() {
                self.send(from, segment);
            }
        }
    }

    /// Something happens to one of them.
    fn stir(&mut self) {
        let at = self.random.below(2) as usize;
        let stack = self.stacks[at];
        match self.random.below(12) {
            0 => self.stacks[at].state = stack.rest,
            1 if stack.state == Established => {
                self.stacks[at].state = stack.rest;
                self.send(at, (RST, stack.own.wrapping_add(1), 0));
            }
            2..6 if [Closed, Listening].contains(&stack.state) => self.stacks[at].open(&mut self.random),
            _ => {}
        }
    }

    fn is_connected(&self) -> bool {
        let [one, other] = self.stacks;
        [one.state, other.state] == [Established; 2] && (one.own, one.other) == (other.other, other.own)
    }
}

/// How many rounds without loss it takes until they are connected.
fn rounds(seed: u64, world: Option<World>) -> Option<usize> {
    let mut random = Random(seed);
    let rests = [[Closed, Closed], [Closed, Listening], [Listening, Closed], [Listening, Listening]];
    let rests = rests[random.below(4) as usize];
    let stacks = rests.map(|rest| Stack { state: rest, rest, own: random.next() as u32, other: 0 });
    let loss = [0, 20, 60][random.below(3) as usize];
    let mut path = Path { world, random, stacks, loss };
    for _ in 0..path.random.below(60) {
        path.stir();
        path.round();
    }
    path.loss = 0;
    (0..40).find(|round| {
        for at in [0, 1] {
            let stack = &mut path.stacks[at];
            // What is not acknowledged for long is given up (RFC 9293 3.8.3).
            if *round == 20 && stack.state == SynReceived {
                stack.state = stack.rest;
            }
            if stack.state == Closed || at == 0 && stack.state == Listening {
                stack.open(&mut path.random);
            }
        }
        path.round();
        path.is_connected()
    })
}

#[test]
fn rfc_5382_req_2_whatever_was_lost_or_forgotten_an_opening_completes() {
    for seed in 0..3000 {
        let without = rounds(seed, None);
        let with = rounds(seed, Some(World::new()));
        assert!(with.is_some() || without.is_none(), "seed {seed}: {without:?} rounds without a NAT");
    }
}
