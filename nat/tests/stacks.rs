//! Two TCP stacks that do nothing wrong, the NAT between them, losses on both sides of it: every
//! segment passes.

mod world;

use nat::Endpoint;
use std::collections::VecDeque;
use world::*;

/// What a segment carries.
static ZEROS: [u8; 60_000] = [0; 60_000];

/// Numbers count from the sender's SYN, which is 0.
#[derive(Debug)]
struct Segment {
    flags: u8,
    number: u64,
    acknowledgement: u64,
    window: u16,
    length: u64,
}

/// One end of a connection. Numbers count from the SYN of whose octets they are.
#[derive(Debug)]
struct Stack {
    syn: u32,
    /// The scale that its SYN offers, and the one in force.
    offer: Option<u8>,
    shift: u8,
    /// Of its own octets: what the other side has, what it sends next, what it has sent.
    acknowledged: u64,
    next: u64,
    sent: u64,
    /// Where the other side's window ends, and its own octets; behind those comes the FIN, maybe.
    edge: u64,
    end: u64,
    closes: bool,
    /// Of the other side's octets: what it has, and where its window ended.
    received: u64,
    told: u64,
    /// Room for octets that nobody read yet, and how many those are.
    room: u64,
    unread: u64,
}

impl Stack {
    fn new(random: &mut Random) -> Self {
        let mut of = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        // Numbers wrap around, and their sign turns, on the way.
        let syn = of(&[u64::from(u32::MAX) - 50_000, 0x7fff_0000, 7]) as u32;
        let offer = of(&[99, 0, 2, 7, 10, 14]) as u8;
        Self {
            syn,
            offer: Some(offer).filter(|&offer| offer < 99),
            shift: 0,
            acknowledged: 1,
            next: 1,
            sent: 1,
            edge: 0,
            end: 1 + of(&[0, 3000, 300_000, 5_000_000]),
            closes: of(&[0, 1]) == 1,
            received: 1,
            told: 0,
            room: of(&[1000, 20_000, 65_535, 500_000, 6_000_000]),
            unread: 0,
        }
    }

    /// The window of its SYN.
    fn first_window(&self) -> u16 {
        self.room.min(65_535) as u16
    }

    /// Both have seen the other's SYN.
    fn meet(&mut self, other: &Self) {
        self.shift = self.offer.and(other.offer).and(self.offer).unwrap_or(0);
        self.edge = 1 + u64::from(other.first_window());
        self.told = 1 + u64::from(self.first_window());
    }

    /// A window that never shrinks: rounded up if there is less room than was told.
    fn window(&mut self) -> u16 {
        let (free, kept) = (self.room - self.unread, self.told.saturating_sub(self.received));
        let unit = 1 << self.shift;
        let window = if kept >= free { kept.div_ceil(unit) } else { free / unit }.min(65_535);
        self.told = self.told.max(self.received + window * unit);
        window as u16
    }

    fn segment(&mut self, flags: u8, number: u64, length: u64) -> Segment {
        let window = self.window();
        Segment { flags: ACK | flags, number, acknowledgement: self.received, window, length }
    }

    fn send(&mut self, random: &mut Random) -> Segment {
        match random.below(60) {
            // A timeout: all again from the first octet that may be lost.
            0 => self.next = self.acknowledged,
            // A keepalive, without an octet or with one.
            1 => return self.segment(0, self.next - 1, random.below(2)),
            2 | 3 => return self.segment(0, self.sent, 0),
            _ => {}
        }
        let size = [1, 536, 1460, 1460, 9000, 60_000][random.below(6) as usize];
        let (open, left) = (self.edge.saturating_sub(self.next), self.end.saturating_sub(self.next));
        let is_shut = open == 0 && left > 0 && self.next == self.acknowledged;
        let length = match is_shut {
            // A probe, as Linux sends it, or BSD.
            true if random.below(2) == 0 => return self.segment(0, self.next - 1, 0),
            true => 1,
            false => open.min(left).min(size),
        };
        // The FIN goes with the last octet, be the window full or not (BSD).
        let is_last = self.closes && self.next <= self.edge && self.next + length == self.end;
        let number = if length > 0 || is_last { self.next } else { self.sent };
        let flags = if is_last { FIN } else { 0 };
        self.next = self.next + length + u64::from(is_last);
        self.sent = self.sent.max(self.next);
        self.segment(flags, number, length)
    }

    fn take(&mut self, segment: &Segment, shift: u8) {
        let end = segment.number + segment.length;
        if (segment.number..end).contains(&self.received) {
            let new = (end - self.received).min(self.room - self.unread);
            self.received += new;
            self.unread += new;
        }
        if segment.flags & FIN != 0 && self.received == end {
            self.received += 1;
        }
        if (self.acknowledged..=self.sent).contains(&segment.acknowledgement) {
            self.acknowledged = segment.acknowledgement;
            self.next = self.next.max(self.acknowledged);
            self.edge = self.acknowledged + (u64::from(segment.window) << shift);
        }
    }
}

/// The handshake; from whom to whom each side's segments go.
fn connect(world: &mut World, [client, server]: &mut [Stack; 2]) -> [(Endpoint, Endpoint); 2] {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 80));
    let syn = scaled_tcp((from, to), SYN, (client.syn, 0), (client.first_window(), client.offer), &[]);
    let out = ends(&world.cross(&syn).unwrap()).0;
    let window = (server.first_window(), client.offer.and(server.offer));
    world
        .cross(&scaled_tcp((to, out), SYN | ACK, (server.syn, client.syn.wrapping_add(1)), window, &[]))
        .unwrap();
    client.meet(server);
    server.meet(client);
    [(from, to), (to, out)]
}

/// Both talk for a while; returns whether both said all they had to.
fn talk(seed: u64) -> bool {
    let mut random = Random(seed);
    let mut world = World::new();
    let mut stacks = [Stack::new(&mut random), Stack::new(&mut random)];
    let ways = connect(&mut world, &mut stacks);
    // In percent, before the NAT and behind it.
    let losses = [random.below(15), random.below(15)];
    let mut hops: [[VecDeque<Segment>; 2]; 2] = Default::default();
    for (round, side) in (0..1500).flat_map(|round| [(round, 0), (round, 1)]) {
        let [before, behind] = &mut hops[side];
        for _ in 0..random.below(4) {
            let segment = stacks[side].send(&mut random);
            before.extend(Some(segment).filter(|_| random.below(100) >= losses[0]));
        }
        let passing = before.len().min(random.below(5) as usize);
        for segment in before.drain(..passing) {
            let number = stacks[side].syn.wrapping_add(segment.number as u32);
            let acknowledgement = stacks[1 - side].syn.wrapping_add(segment.acknowledgement as u32);
            let numbers = (number, acknowledgement);
            let payload = &ZEROS[..segment.length as usize];
            let octets = scaled_tcp(ways[side], segment.flags, numbers, (segment.window, None), payload);
            let crossed = world.cross(&octets);
            assert!(crossed.is_ok(), "seed {seed} round {round} side {side}: {segment:?} {stacks:#?}");
            behind.extend(Some(segment).filter(|_| random.below(100) >= losses[1]));
        }
        let arriving = behind.len().min(random.below(5) as usize);
        for segment in behind.drain(..arriving) {
            let shift = stacks[side].shift;
            let receiver = &mut stacks[1 - side];
            receiver.take(&segment, shift);
            receiver.unread -= random.below(receiver.unread + 1);
        }
    }
    stacks.iter().all(|stack| stack.acknowledged >= stack.end)
}

#[test]
fn rfc_9293_honest_stacks_are_never_refused_whatever_is_lost() {
    let finished = (0..48).filter(|&seed| talk(seed)).count();
    // The others had too much to say for so small windows.
    assert!((16..48).contains(&finished), "{finished}");
}
