//! A naive idea of TCP: what kinds of segments there are, and what each means to a connection.
//!
//! Segments are written to fit their kind, so that what becomes of them is plain: far outside of all
//! windows, exactly next, or repeated. What lies at the edges of windows is for `nat`'s own tests.

use crate::Chance;
use crate::flags::{ACK, FIN, PSH, RST, SYN};

/// Beyond every window, also the widest one that a connection picked up in its middle may have.
const FAR: u32 = 0x6000_0000;
/// Inside of every window.
const NEAR: u32 = 1000;

/// A kind of segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens; on a live connection it is a blind one.
    Syn,
    /// Answers a SYN.
    SynAck,
    /// Answers a SYN that was never sent.
    StraySynAck,
    /// Acknowledges all.
    Ack,
    /// That many octets.
    Data(u8),
    /// The end of one side's data.
    Fin,
    /// A reset with the very number that is next.
    ExactReset,
    /// A reset with a number inside the window.
    NearReset,
    /// A reset with a number outside of it.
    FarReset,
    /// Data far outside of the window.
    FarData,
    /// An acknowledgement of what was never sent.
    FarAck,
    /// Flags that no connection has.
    Nonsense(u8),
}

impl Kind {
    /// Any kind, the usual ones more often.
    pub fn any(chance: &mut Chance) -> Self {
        let data = Self::Data(1 + chance.octet() % 30);
        match chance.below(40) {
            0..5 => Self::Syn,
            5..11 => Self::SynAck,
            11..18 => Self::Ack,
            18..29 => data,
            29..32 => Self::Fin,
            32 => Self::ExactReset,
            33 => Self::NearReset,
            34 => Self::FarReset,
            35 => Self::FarData,
            36 => Self::FarAck,
            37 => Self::StraySynAck,
            _ => Self::Nonsense(chance.pick(&[0, FIN, SYN | FIN, SYN | RST, FIN | PSH, FIN | RST])),
        }
    }

    /// Whether it opens a connection.
    pub fn opens(self) -> bool {
        self == Self::Syn
    }

    /// Whether it may be taken for the middle of a connection.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Ack | Self::Data(_) | Self::FarData | Self::FarAck)
    }

    /// Octets of data.
    fn length(self) -> u32 {
        match self {
            Self::Data(length) => length.into(),
            Self::FarData => 5,
            _ => 0,
        }
    }
}

/// What a segment is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does not pass.
    Dropped,
    /// It passes and means nothing.
    Ignored,
    /// It passes and counts.
    Counted,
}

/// A segment as it is sent: control bits, sequence and acknowledgement number, octets of data.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Control bits.
    pub flags: u8,
    /// Sequence and acknowledgement number.
    pub numbers: [u32; 2],
    /// Octets of data.
    pub length: usize,
}

/// A connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    answered: bool,
    /// Answered by a SYN without an acknowledgement: both will acknowledge each other's.
    simultaneous: bool,
    reset: bool,
    /// The opener's, then the other side's.
    acked: [bool; 2],
    finished: [bool; 2],
    /// The sequence number that each side sends next.
    next: [u32; 2],
    /// The sequence number that each side waits for, as it told last.
    awaited: [u32; 2],
}

impl Tcp {
    /// A connection that this segment begins, or goes on with.
    pub fn open(kind: Kind, [sequence, acknowledgement]: [u32; 2]) -> Self {
        match kind.opens() {
            true => Self { next: [sequence.wrapping_add(1), 0], ..Self::default() },
            false => Self {
                answered: true,
                acked: [true; 2],
                next: [sequence.wrapping_add(kind.length()), acknowledgement],
                awaited: [acknowledgement, sequence],
                ..Self::default()
            },
        }
    }

    fn is_over(&self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    /// Seconds that it lives from now on.
    pub fn timeout(&self) -> u64 {
        let established = self.answered && self.acked == [true; 2];
        match established && !self.reset && self.finished == [false; 2] {
            true => 7440,
            false => 240,
        }
    }

    /// The kind that a host would send in place of one that makes no sense now.
    pub fn fit(&self, kind: Kind, side: usize) -> Kind {
        match kind {
            Kind::SynAck if !self.answered => kind,
            Kind::SynAck if self.simultaneous && !self.acked[side] => kind,
            Kind::SynAck => Kind::Ack,
            Kind::StraySynAck if self.answered => Kind::Ack,
            // How long a segment in fragments was is known when all of it is acknowledged.
            Kind::ExactReset if self.answered && self.awaited[1 - side] != self.next[side] => Kind::Ack,
            Kind::Data(_) | Kind::Fin if self.finished[side] => Kind::Ack,
            kind => kind,
        }
    }

    /// The segment of this kind from this side.
    pub fn write(&self, kind: Kind, side: usize, chance: &mut Chance) -> Written {
        let [mine, yours] = if side == 0 { self.next } else { [self.next[1], self.next[0]] };
        let random = chance.word() as u32;
        let (flags, sequence, acknowledgement) = match kind {
            Kind::Syn if !self.answered && side == 0 => (SYN, mine.wrapping_sub(1), 0),
            // RFC 6191: of a new connection, beyond all numbers of the last one.
            Kind::Syn if self.is_over() && side == 0 => (SYN, mine.wrapping_add(100_000), 0),
            Kind::Syn => (SYN, random, 0),
            Kind::SynAck if self.answered => (SYN | ACK, mine.wrapping_sub(1), yours),
            Kind::SynAck => (SYN | ACK, random, yours),
            Kind::StraySynAck => (SYN | ACK, random, yours.wrapping_add(5000)),
            Kind::Ack => (ACK, mine, yours),
            Kind::Data(_) => (ACK | PSH, mine, yours),
            Kind::Fin => (FIN | ACK, mine, yours),
            Kind::ExactReset => (RST | ACK, mine, yours),
            Kind::NearReset => (RST, mine.wrapping_add(NEAR), 0),
            Kind::FarReset => (RST, mine.wrapping_add(FAR), 0),
            Kind::FarData => (ACK | PSH, mine.wrapping_add(FAR), yours),
            Kind::FarAck => (ACK, mine, yours.wrapping_add(FAR)),
            Kind::Nonsense(flags) => (flags, mine, yours),
        };
        Written { flags, numbers: [sequence, acknowledgement], length: kind.length() as usize }
    }

    /// Takes a segment in.
    pub fn take(&mut self, kind: Kind, side: usize, [sequence, _]: [u32; 2]) -> Outcome {
        match kind {
            Kind::Nonsense(_) => Outcome::Dropped,
            Kind::Syn => self.take_syn(side, sequence),
            _ if !self.answered => self.take_unanswered(kind, side, sequence),
            Kind::ExactReset => {
                self.reset = true;
                Outcome::Counted
            }
            Kind::NearReset => Outcome::Ignored,
            Kind::FarReset | Kind::FarData | Kind::FarAck | Kind::StraySynAck => Outcome::Dropped,
            Kind::SynAck | Kind::Ack | Kind::Data(_) | Kind::Fin => {
                self.reset = false;
                self.acked[side] = true;
                self.awaited[side] = self.next[1 - side];
                let fin = kind == Kind::Fin;
                self.finished[side] |= fin;
                self.next[side] = self.next[side].wrapping_add(kind.length() + u32::from(fin));
                Outcome::Counted
            }
        }
    }

    fn take_syn(&mut self, side: usize, sequence: u32) -> Outcome {
        match (side, self.answered) {
            // RFC 5382 REQ-2: both open at once.
            (1, false) => {
                (self.answered, self.simultaneous) = (true, true);
                self.next[1] = sequence.wrapping_add(1);
                Outcome::Counted
            }
            (0, live) if !live || self.is_over() => {
                *self = Self::open(Kind::Syn, [sequence, 0]);
                Outcome::Counted
            }
            // RFC 5961 4: the endpoint challenges it.
            _ => Outcome::Ignored,
        }
    }

    fn take_unanswered(&mut self, kind: Kind, side: usize, sequence: u32) -> Outcome {
        match (kind, side) {
            (Kind::SynAck, 1) => {
                self.reset = false;
                self.answered = true;
                self.acked[1] = true;
                self.awaited[1] = self.next[0];
                self.next[1] = sequence.wrapping_add(1);
                Outcome::Counted
            }
            (Kind::ExactReset, _) => {
                self.reset = true;
                Outcome::Counted
            }
            // Only what acknowledges the SYN refuses it (RFC 9293 3.10.7.3).
            (Kind::NearReset | Kind::FarReset, 1) => Outcome::Dropped,
            (Kind::NearReset | Kind::FarReset, _) => Outcome::Ignored,
            // The other side still has an older connection (RFC 9293 3.5.1).
            (Kind::Ack | Kind::Data(_) | Kind::FarData | Kind::FarAck, 1) => Outcome::Ignored,
            _ => Outcome::Dropped,
        }
    }
}
