//! A naive NAT: what [`crate::site::RULES`] and NAT do to packets, told in the simplest way.
//!
//! It has no idea of checksums, timers or slabs. Where the real one is free to choose (a port on a
//! collision, the moment within seconds at which an ended session is cleared away), it takes what
//! it is shown and checks that it was allowed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::flags::{ACK, FIN, PSH, RST, SYN};

/// The external address.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The static forward, and the server behind it.
pub const FORWARD: SocketAddrV4 = SocketAddrV4::new(EXTERNAL, 8080);
/// The server behind the static forward.
pub const FORWARDED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 2), 80);
/// Seconds for which an ended session may still hold its port and be counted.
const CLEARING: u64 = 3;

/// Protocol, source, destination. An echo request goes to port 0x0800, its identifier is the port
/// of who asks.
pub type Tuple = (u8, SocketAddrV4, SocketAddrV4);

/// The port of a packet's way in or out.
pub fn port_of(address: Ipv4Addr) -> &'static str {
    match address.octets() {
        [10, 0, 1, _] => "work",
        [10, 0, 2, _] => "lab",
        _ => "uplink",
    }
}

/// What became of a TCP connection.
#[derive(Clone, Copy, Debug, Default)]
struct Tcp {
    answered: bool,
    reset: bool,
    /// The opener's, then the other side's.
    acked: [bool; 2],
    finished: [bool; 2],
}

impl Tcp {
    fn is_over(self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    fn timeout(self) -> u64 {
        let established = self.answered && self.acked == [true; 2];
        match established && !self.reset && self.finished == [false; 2] {
            true => 7440,
            false => 240,
        }
    }

    /// Takes a segment in; false if it may not pass.
    fn take(&mut self, flags: u8, side: usize, acknowledges_syn: bool) -> bool {
        if flags & RST != 0 {
            let blind = !self.answered && side == 1 && !(flags & ACK != 0 && acknowledges_syn);
            self.reset |= !blind;
            return !blind;
        }
        if opens(flags) {
            match side {
                0 if self.is_over() => *self = Self::default(),
                0 => {}
                _ => self.answered = true,
            }
            return true;
        }
        self.reset = false;
        self.answered |= flags & SYN != 0 && side == 1;
        self.acked[side] |= flags & ACK != 0 && self.answered;
        self.finished[side] |= flags & FIN != 0 && self.answered;
        true
    }
}

fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN
}

/// A session, from its opener's point of view.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The opener's packets as they arrive.
    pub original: Tuple,
    /// The answers as they arrive.
    pub reply: Tuple,
    /// The direction that refreshes: 0 the opener's, 1 the answers'.
    outward: usize,
    replied: bool,
    tcp: Tcp,
    /// The last second in which it is alive.
    pub until: u64,
}

/// What is to become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing leaves.
    Dropped,
    /// It leaves like this.
    Forwarded(Tuple),
    /// It leaves to this destination, with an external source that the model is to be told.
    Mapped(SocketAddrV4),
}

/// The sessions of the naive NAT.
#[derive(Default)]
pub struct Model {
    flows: Vec<Flow>,
}

fn inverted((protocol, from, to): Tuple) -> Tuple {
    (protocol, to, from)
}

impl Model {
    /// Forgets what ended long ago.
    pub fn clear(&mut self, now: u64) {
        self.flows.retain(|flow| flow.until + CLEARING >= now);
    }

    /// The sessions alive.
    pub fn alive(&self, now: u64) -> Vec<&Flow> {
        self.flows.iter().filter(|flow| flow.until >= now).collect()
    }

    /// Sessions at least and at most in a table that takes seconds to clear.
    pub fn sessions(&self, now: u64) -> (usize, usize) {
        (self.alive(now).len(), self.flows.len())
    }

    /// Mappings at least and at most.
    pub fn mappings(&self, now: u64) -> (usize, usize) {
        let count = |flows: &mut dyn Iterator<Item = &Flow>| {
            let mapped = flows.filter(|flow| flow.external().is_some());
            let pairs = mapped.map(|flow| (flow.internal(), flow.external()));
            pairs.collect::<std::collections::BTreeSet<_>>().len()
        };
        (count(&mut self.alive(now).into_iter()), count(&mut self.flows.iter()))
    }

    fn find(&mut self, tuple: Tuple, now: u64) -> Option<(usize, &mut Flow)> {
        let mut alive = self.flows.iter_mut().filter(|flow| flow.until >= now);
        alive.find_map(|flow| match tuple {
            tuple if tuple == flow.original => Some((0, flow)),
            tuple if tuple == flow.reply => Some((1, flow)),
            _ => None,
        })
    }

    /// Where an ICMP error goes that quotes this packet: the quoted packet as its sender sent it.
    pub fn quoted(&mut self, quoted: Tuple, now: u64) -> Option<Tuple> {
        let (side, flow) = self.find(inverted(quoted), now)?;
        Some(if side == 0 { flow.reply } else { flow.original })
    }

    /// Control bits of segments that a host would send now: the numbers of sequence that go with
    /// them are those of a connection without data.
    pub fn flags(&mut self, tuple: Tuple, now: u64) -> &'static [u8] {
        match self.find(tuple, now).map(|(side, flow)| (side, flow.tcp)) {
            None => &[SYN, SYN, SYN, SYN | ACK, ACK, FIN | ACK, RST | ACK, RST, SYN | FIN, 0, FIN, SYN | RST],
            Some((0, Tcp { answered: false, .. })) => &[SYN],
            Some((_, Tcp { answered: false, .. })) => &[SYN | ACK, SYN | ACK, SYN, RST | ACK],
            Some((0, Tcp { reset: true, .. })) => &[SYN, ACK],
            Some(_) => &[ACK, ACK, ACK | PSH, ACK | PSH, FIN | ACK, RST | ACK],
        }
    }

    /// A packet arrives.
    pub fn packet(&mut self, tuple: Tuple, flags: u8, acknowledges_syn: bool, now: u64) -> Fate {
        let Some((side, flow)) = self.find(tuple, now) else {
            return self.open(tuple, flags, now);
        };
        let first_reply = side == 1 && !flow.replied;
        match tuple.0 {
            6 if !flow.tcp.take(flags, side, acknowledges_syn) => return Fate::Dropped,
            6 => flow.until = now + flow.tcp.timeout(),
            _ if side == flow.outward || first_reply => flow.until = now + idle(tuple.0),
            _ => {}
        }
        flow.replied |= side == 1;
        Fate::Forwarded(inverted(if side == 0 { flow.reply } else { flow.original }))
    }

    fn open(&mut self, tuple: Tuple, flags: u8, now: u64) -> Fate {
        let (protocol, from, to) = tuple;
        let request = match protocol {
            6 => opens(flags),
            17 => true,
            _ => to.port() == 0x0800,
        };
        let forwarded = to == FORWARD && protocol != 1;
        let destination = if forwarded { FORWARDED } else { to };
        let (input, output) = (port_of(*from.ip()), port_of(*destination.ip()));
        let admitted = match (input, output) {
            _ if !request || *destination.ip() == EXTERNAL => false,
            _ if forwarded => true,
            ("uplink", _) => false,
            (_, "uplink") => true,
            ("work", "lab") => protocol != 1 && to.port() == 7000,
            _ => false,
        };
        if !admitted {
            return Fate::Dropped;
        }
        // Clients are translated towards the uplink, and through the static forward.
        if input == "uplink" || (output != "uplink" && !forwarded) {
            let outward = usize::from(input == "uplink");
            self.bind(tuple, (protocol, destination, from), outward, now);
            return Fate::Forwarded((protocol, from, destination));
        }
        let mut same = self.flows.iter().filter(|f| f.until >= now && f.internal() == (protocol, from));
        if let Some(external) = same.find_map(Flow::external) {
            self.bind(tuple, (protocol, destination, external), 0, now);
            return Fate::Forwarded((protocol, external, destination));
        }
        Fate::Mapped(destination)
    }

    /// The real NAT chose this external endpoint for a new mapping.
    ///
    /// # Panics
    /// If it may not have done that.
    pub fn learn(&mut self, tuple: Tuple, destination: SocketAddrV4, external: SocketAddrV4, now: u64) {
        let (protocol, internal, _) = tuple;
        assert_eq!(*external.ip(), EXTERNAL);
        assert!(protocol == 1 || external != FORWARD, "the static forward's port");
        let owners: BTreeMap<_, _> = self
            .flows
            .iter()
            .filter(|flow| flow.original.0 == protocol)
            .filter_map(|flow| Some((flow.external()?, flow)))
            .collect();
        let held = |port| owners.get(&SocketAddrV4::new(EXTERNAL, port));
        let taken = held(external.port()).filter(|flow| flow.until >= now);
        assert!(taken.is_none(), "{external} is {taken:?}'s");
        // What ended a moment ago may or may not be free again, or be used on.
        let ended = owners.values().any(|flow| flow.internal().1 == internal);
        if !ended {
            let kept = external.port() == internal.port();
            assert!(kept || held(internal.port()).is_some(), "{internal} is not preserved: {external}");
        }
        if protocol != 1 {
            assert_eq!(external.port() < 1024, internal.port() < 1024, "{internal} -> {external}");
            assert_eq!(external.port() % 2, internal.port() % 2, "{internal} -> {external}");
        }
        self.bind(tuple, (protocol, destination, external), 0, now);
    }

    fn bind(&mut self, original: Tuple, reply: Tuple, outward: usize, now: u64) {
        self.flows.retain(|flow| flow.original != original && flow.reply != reply);
        let tcp = Tcp::default();
        let until = now + if original.0 == 6 { tcp.timeout() } else { idle(original.0) };
        self.flows.push(Flow { original, reply, outward, replied: false, tcp, until });
    }
}

impl Flow {
    fn internal(&self) -> (u8, SocketAddrV4) {
        (self.original.0, self.original.1)
    }

    /// The external source, if it is translated.
    fn external(&self) -> Option<SocketAddrV4> {
        (self.reply.2 != self.original.1)
            .then_some(self.reply.2)
            .or((*self.reply.2.ip() == EXTERNAL).then_some(self.reply.2))
    }
}

fn idle(protocol: u8) -> u64 {
    if protocol == 1 { 60 } else { 300 }
}
