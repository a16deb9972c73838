//! A conversation as it goes on through two routers, which may show different endpoints to whoever answers.

use std::net::SocketAddrV4;

use tests::flags::{ACK, FIN, PSH, RST, SYN};
use tests::packet::Packet;
use tests::{Chance, icmp, tcp, udp};

/// One of something for Weir, one for the kernel.
pub type Both<T> = [T; 2];

/// From where and to where.
pub type Ends = (SocketAddrV4, SocketAddrV4);

/// The numbers of the SYNs of both directions.
const FIRST: [u32; 2] = [1000, 5000];

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As its first packet.
    Original,
    /// The other one.
    Reply,
}

/// How far a TCP connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Answered,
    Open,
    /// One side has said that it is done.
    Closing(Way),
    /// Both have.
    Closed,
    Ended,
}

/// A segment to send, and what comes of it when it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    flags: u8,
    length: usize,
    next: Stage,
}

impl Segment {
    /// Whether it ends its direction, or all.
    pub fn ends(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }
}

/// Packets both ways, from the first on.
#[derive(Clone, Debug)]
pub struct Flow {
    /// TCP, UDP, ICMP or another.
    pub protocol: u8,
    /// The port by which the first packet came in, and the one by which it left.
    pub ports: (usize, usize),
    /// The first packet's ends as it was sent.
    pub sent: Ends,
    /// The first packet's ends as they were when it left.
    pub seen: Both<Ends>,
    /// The last packet of each direction as it left, original and reply.
    pub last: [Option<Both<Vec<u8>>>; 2],
    /// The type of an ICMP query.
    pub query: u8,
    /// Whether the router itself has answered: it says nothing more unasked.
    pub is_local: bool,
    /// The next sequence number of each direction.
    next: [u32; 2],
    stage: Stage,
}

impl Flow {
    /// A flow that has not begun; a query's identifier is its opener's port.
    pub fn new(protocol: u8, input: usize, sent: Ends, query: u8) -> Self {
        let ports = (input, input);
        let next = FIRST.map(|first| first + 1);
        Self {
            protocol,
            ports,
            sent,
            seen: [sent; 2],
            last: [None, None],
            query,
            is_local: false,
            next,
            stage: Stage::Opening,
        }
    }

    /// The port by which packets of this direction come in.
    pub fn input(&self, way: Way) -> usize {
        if way == Way::Original { self.ports.0 } else { self.ports.1 }
    }

    /// Whether nothing more is to be said.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The ends that a packet of this direction is sent with.
    pub fn ends(&self, way: Way) -> Both<Ends> {
        match way {
            Way::Original => [self.sent; 2],
            Way::Reply => self.seen.map(|(from, to)| (to, from)),
        }
    }

    /// The first segment.
    pub fn opening() -> Segment {
        Segment { flags: SYN, length: 0, next: Stage::Opening }
    }

    /// What either side may say next.
    pub fn segment_after(&self, chance: &mut Chance) -> (Way, Segment) {
        use Way::{Original, Reply};
        let segment = |flags, length, next| Segment { flags, length, next };
        let length = chance.below(40);
        match (self.stage, chance.below(100)) {
            (Stage::Opening, 0..15) => (Original, segment(SYN, 0, Stage::Opening)),
            (Stage::Opening, 15..25) => (Reply, segment(RST | ACK, 0, Stage::Ended)),
            (Stage::Opening, _) => (Reply, segment(SYN | ACK, 0, Stage::Answered)),
            (Stage::Answered, 0..10) => (Reply, segment(SYN | ACK, 0, Stage::Answered)),
            (Stage::Answered, _) => (Original, segment(ACK, 0, Stage::Open)),
            (Stage::Open, 0..40) => (Original, segment(ACK | PSH, length, Stage::Open)),
            (Stage::Open, 40..80) => (Reply, segment(ACK | PSH, length, Stage::Open)),
            (Stage::Open, 80..88) => (Original, segment(FIN | ACK, 0, Stage::Closing(Original))),
            (Stage::Open, 88..94) => (Reply, segment(FIN | ACK, 0, Stage::Closing(Reply))),
            (Stage::Open, 94..97) => (Original, segment(RST | ACK, 0, Stage::Ended)),
            (Stage::Open, _) => (Reply, segment(RST | ACK, 0, Stage::Ended)),
            (Stage::Closing(by), 0..40) => (by.other(), segment(ACK, 0, Stage::Closing(by))),
            (Stage::Closing(by), _) => (by.other(), segment(FIN | ACK, 0, Stage::Closed)),
            (Stage::Closed | Stage::Ended, _) => (Original, segment(ACK, 0, Stage::Ended)),
        }
    }

    /// A TCP segment with these ends.
    pub fn segment(&self, way: Way, (from, to): Ends, of: Segment) -> Packet {
        let refuses = of.flags & RST != 0 && self.stage == Stage::Opening;
        let own = match of.flags & SYN {
            0 if refuses => 0,
            0 => self.next[way as usize],
            _ => FIRST[way as usize],
        };
        let ack = if of.flags & ACK == 0 { 0 } else { self.next[way.other() as usize] };
        let mut segment = tests::packet::Segment::from((of.flags, own, ack));
        if of.flags & SYN != 0 {
            // Maximum segment size 1460, and two words of padding.
            segment.options = vec![2, 4, 0x05, 0xb4, 1, 1, 1, 0];
        }
        tcp(from, to, segment, &vec![7; of.length])
    }

    /// Both routers let a segment pass.
    pub fn advance(&mut self, way: Way, of: Segment) {
        self.next[way as usize] += of.length as u32 + u32::from(of.flags & FIN != 0);
        self.stage = of.next;
    }

    /// A datagram, query, reply, or packet of a protocol without ports, with these ends.
    pub fn datagram(&self, way: Way, (from, to): Ends, data: &[u8]) -> Packet {
        match (self.protocol, way) {
            (17, _) => udp(from, to, data),
            (1, Way::Original) => query(self.query, (from, to), from.port(), data),
            (1, Way::Reply) => query(answer(self.query), (from, to), to.port(), data),
            (protocol, _) => Packet::new(*from.ip(), *to.ip(), protocol, data),
        }
    }
}

impl Way {
    /// The direction of those who answer.
    pub fn other(self) -> Self {
        if self == Self::Original { Self::Reply } else { Self::Original }
    }
}

/// The type that answers a query (RFC 792).
fn answer(query: u8) -> u8 {
    if query == 8 { 0 } else { query + 1 }
}

fn query(kind: u8, (from, to): Ends, id: u16, data: &[u8]) -> Packet {
    let [high, low] = id.to_be_bytes();
    // A timestamp message has three timestamps, and nothing else.
    let data = if matches!(kind, 13 | 14) { &[0; 12] } else { data };
    icmp(*from.ip(), *to.ip(), (kind, 0), [high, low, 0, 1], data)
}
