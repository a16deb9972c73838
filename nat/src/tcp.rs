//! What a TCP session went through, seen from the middle (RFC 5382 5, RFC 7857 2).
//!
//! Only the handshake, FIN and RST count; `window` judges sequence numbers.

use crate::endpoint::Direction;
use crate::segment::Segment;
use crate::segment::flags::{ACK, FIN, RST, SYN};
use crate::window::{Place, Reset, Windows};

/// The events of a session so far, as a set of bits. The empty set is a SYN that nobody answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct History(u8);

/// The answering side sent its SYN.
const SYN_REPLIED: u8 = 1;
/// Each side sent an acknowledgement after that SYN.
const ACK_ORIGINAL: u8 = 2;
const ACK_REPLY: u8 = 4;
const FIN_ORIGINAL: u8 = 8;
const FIN_REPLY: u8 = 16;
const RESET: u8 = 32;
/// A side sent a FIN ahead of octets that were not seen; it counts when it is acknowledged.
const AHEAD_ORIGINAL: u8 = 64;
const AHEAD_REPLY: u8 = 128;

const ESTABLISHED: u8 = SYN_REPLIED | ACK_ORIGINAL | ACK_REPLY;
const CLOSED: u8 = FIN_ORIGINAL | FIN_REPLY;

const SYN_ACK: u8 = SYN | ACK;
const FIN_ACK: u8 = FIN | ACK;
const RST_ACK: u8 = RST | ACK;

/// Why a packet of a session must not pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refused {
    /// A TCP reset that does not acknowledge the SYN it is about (RFC 9293 3.10.7.3).
    Reset,
    /// A TCP segment outside of the windows, or with control bits that no connection has.
    Window,
}

impl History {
    /// Nothing but the opening SYN.
    pub(crate) const NEW: Self = Self(0);

    /// Whether the long timeout is due: the handshake is complete, and neither side began to close.
    ///
    /// RFC 5382 REQ-5 calls a half-closed connection transitory too.
    pub(crate) const fn is_established(self) -> bool {
        self.0 & (ESTABLISHED | CLOSED | RESET) == ESTABLISHED
    }

    /// Whether its handshake was complete, whatever came later.
    pub(crate) const fn was_established(self) -> bool {
        self.0 & ESTABLISHED == ESTABLISHED
    }

    /// Whether nothing is awaited but data and acknowledgements.
    #[inline(always)]
    const fn is_usual(self) -> bool {
        self.0 & (SYN_REPLIED | AHEAD_ORIGINAL | AHEAD_REPLY) == SYN_REPLIED
    }

    /// Whether no side has answered the SYN.
    const fn is_unanswered(self) -> bool {
        self.0 & SYN_REPLIED == 0
    }

    /// Whether both sides have sent their FIN.
    pub(crate) const fn is_closed(self) -> bool {
        self.0 & CLOSED == CLOSED
    }

    /// Whether a new SYN may open the session again (RFC 6191 2, RFC 7857 2.2).
    pub(crate) const fn is_over(self) -> bool {
        self.is_closed() || self.0 & RESET != 0
    }

    /// Of a connection whose beginning was not seen.
    pub(crate) const PICKED_UP: Self = Self(ESTABLISHED);
}

/// The last SYN of either side: what acknowledges it, with who sent it in place of the uppermost bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastSyn(u32);

impl LastSyn {
    pub(crate) const NONE: Self = Self(0);

    const fn new(number: u32, by: Direction) -> Self {
        Self(number << 1 >> 1 | (by as u32) << 31)
    }

    pub(crate) const fn of(segment: &Segment, by: Direction) -> Self {
        Self::new(segment.end(), by)
    }

    /// Whether a segment of the other side acknowledges it.
    fn is_acknowledged(self, segment: &Segment, by: Direction) -> bool {
        segment.has_ack() && self == Self::new(segment.acknowledgement, by.opposite())
    }
}

/// What a TCP session knows of its connection.
pub(crate) struct Connection<'a> {
    pub(crate) history: &'a mut History,
    pub(crate) last_syn: &'a mut LastSyn,
    pub(crate) windows: &'a mut Windows,
    /// Whether sequence numbers are judged at all.
    pub(crate) judges: bool,
}

impl Connection<'_> {
    /// Takes note of a segment, and tells whether it counts: one that does not is forwarded, but
    /// changes nothing.
    ///
    /// # Errors
    /// [`Refused`]: it is to be dropped, and nothing is changed.
    #[inline(always)]
    pub(crate) fn take(mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if !segment.is_usual() || segment.is_cut() || !self.history.is_usual() {
            return self.take_rare(segment, direction);
        }
        if !self.windows.take(segment, segment.end(), direction) && self.judges {
            return Err(Refused::Window);
        }
        self.history.advance(0, direction);
        Ok(true)
    }

    #[inline(never)]
    fn take_rare(&mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if !self.judges {
            return self.follow(segment, direction);
        }
        match (segment.flags & (SYN | ACK | FIN | RST), direction) {
            (RST | RST_ACK, _) => self.reset(segment, direction),
            (SYN, Direction::Original) => Ok(self.syn(segment)),
            (SYN, Direction::Reply) => Ok(self.simultaneous(segment)),
            (SYN_ACK, _) => self.syn_ack(segment, direction),
            (ACK | FIN_ACK, _) => self.acknowledge(segment, direction),
            // RFC 9293 3.10.7.4: without ACK nothing is right; SYN goes with neither FIN nor RST.
            _ => Err(Refused::Window),
        }
    }

    /// Without sequence numbers every segment counts, save for a reset that is blind to the SYN.
    fn follow(&mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        let original = direction == Direction::Original;
        let (has, events) = (|flag| segment.flags & flag != 0, self.history.0);
        if has(RST) {
            let acknowledges = self.last_syn.is_acknowledged(segment, direction);
            if self.history.is_unanswered() && !original && !acknowledges {
                return Err(Refused::Reset);
            }
            self.history.0 |= RESET;
        } else if segment.opens() && original {
            if self.history.is_unanswered() || self.history.is_over() {
                *self.history = History::NEW;
                *self.last_syn = LastSyn::of(segment, direction);
            }
        } else {
            let answered = if has(SYN) && !original { SYN_REPLIED } else { 0 };
            let fin = if original { FIN_ORIGINAL } else { FIN_REPLY };
            match (events | answered) & SYN_REPLIED != 0 {
                true if has(ACK) => self.history.advance(answered, direction),
                _ => self.history.0 |= answered,
            }
            if has(FIN) && !self.history.is_unanswered() {
                self.history.0 |= fin;
            }
            if !segment.opens() {
                self.history.0 &= !RESET;
            }
        }
        Ok(true)
    }

    /// RFC 5961 3.2, RFC 9293 3.10.7.3.
    fn reset(&mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        let counts = match (self.history.is_unanswered(), direction) {
            (true, Direction::Reply) if segment.has_ack() && self.windows.acknowledges_syn(segment) => true,
            (true, Direction::Reply) => return Err(Refused::Reset),
            // It may be about an older connection, which the answering side told of.
            (true, Direction::Original) => *self.last_syn == LastSyn::new(segment.sequence, direction),
            (false, _) => match self.windows.reset(segment, direction) {
                Reset::Exact => true,
                Reset::Inside => false,
                // RFC 9293 3.10.7.1: a SYN is refused, as nobody knows of a connection there.
                Reset::Outside
                    if segment.sequence == 0 && self.last_syn.is_acknowledged(segment, direction) =>
                {
                    false
                }
                Reset::Outside => return Err(Refused::Window),
            },
        };
        if counts {
            self.history.0 |= RESET;
        }
        Ok(counts)
    }

    /// A SYN of the opening side. On a live session it changes nothing yet: RFC 5961 4 has the
    /// other side challenge it, or, if that knows of no connection, acknowledge it.
    fn syn(&mut self, segment: &Segment) -> bool {
        *self.last_syn = LastSyn::of(segment, Direction::Original);
        let reset = self.history.0 & RESET != 0;
        let reused = self.history.is_over() && self.windows.is_new_syn(segment, Direction::Original);
        if self.history.is_unanswered() {
            self.windows.open_again(segment);
        } else if reset || reused {
            *self.windows = Windows::open(segment);
        } else {
            return false;
        }
        *self.history = History::NEW;
        true
    }

    /// A SYN of the answering side that answers nothing (RFC 5382 REQ-2). On a live session it changes
    /// nothing yet, as the opening side's.
    fn simultaneous(&mut self, segment: &Segment) -> bool {
        let opens = self.history.is_unanswered();
        if opens {
            self.windows.answer(segment, Direction::Reply);
            self.history.0 |= SYN_REPLIED;
        } else {
            *self.last_syn = LastSyn::of(segment, Direction::Reply);
        }
        opens
    }

    fn syn_ack(&mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        let is_answer = direction == Direction::Reply;
        if self.history.is_unanswered() {
            if !is_answer || !self.windows.acknowledges_syn(segment) {
                return Err(Refused::Window);
            }
            self.windows.answer(segment, direction);
        } else if !self.windows.take_cut(segment, direction) {
            // It acknowledges a SYN that was held for one on a live session: there is none.
            if !self.last_syn.is_acknowledged(segment, direction) {
                return Err(Refused::Window);
            }
            self.windows.reopen(segment, direction);
            *self.history = History::NEW;
        }
        self.history.advance(SYN_REPLIED, direction);
        Ok(true)
    }

    /// Data or an acknowledgement, maybe with FIN.
    fn acknowledge(&mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if self.history.is_unanswered() {
            // The answering side still has an older connection: the opening side will reset it
            // (RFC 9293 3.5.1).
            return match direction {
                Direction::Reply if segment.flags & FIN == 0 => Ok(false),
                _ => Err(Refused::Window),
            };
        }
        let place = self.windows.place(segment, direction);
        let goes_further = self.windows.goes_further(segment, direction);
        if !self.windows.take_cut(segment, direction) {
            return Err(Refused::Window);
        }
        let original = direction == Direction::Original;
        let (fin, ahead) = if original { (FIN_ORIGINAL, AHEAD_ORIGINAL) } else { (FIN_REPLY, AHEAD_REPLY) };
        let event = match place {
            Place::Next if segment.flags & FIN != 0 => fin,
            Place::Ahead if segment.flags & FIN != 0 => ahead,
            _ => 0,
        };
        if goes_further {
            // Nothing comes behind a FIN: what was taken for one ahead was none.
            self.history.0 &= !ahead;
        }
        self.history.advance(event, direction);
        self.history.settle(self.windows.is_all_acknowledged(direction), direction);
        Ok(true)
    }
}

impl History {
    /// A segment with ACK. Traffic after a RST shows that the connection lives on (RFC 7857 2.2).
    #[inline(always)]
    const fn advance(&mut self, events: u8, direction: Direction) {
        let acknowledged = match direction {
            Direction::Original => ACK_ORIGINAL,
            Direction::Reply => ACK_REPLY,
        };
        self.0 = self.0 & !RESET | events | acknowledged;
    }

    /// A side acknowledges all that the other sent: a FIN ahead of lost octets was the other's.
    const fn settle(&mut self, is_all: bool, by: Direction) {
        let (ahead, fin) = match by {
            Direction::Original => (AHEAD_REPLY, FIN_REPLY),
            Direction::Reply => (AHEAD_ORIGINAL, FIN_ORIGINAL),
        };
        if is_all && self.0 & ahead != 0 {
            self.0 = self.0 & !ahead | fin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    struct Known {
        history: History,
        last_syn: LastSyn,
        windows: Windows,
    }

    impl Known {
        /// A connection of which nothing is seen but the SYN 100.
        fn new() -> Self {
            let syn = Segment { flags: SYN, sequence: 100, length: 1, ..Segment::default() };
            let last_syn = LastSyn::of(&syn, Original);
            Self { history: History::NEW, last_syn, windows: Windows::open(&syn) }
        }

        fn take(&mut self, direction: Direction, flags: u8, numbers: (u32, u32)) -> Result<bool, Refused> {
            let length = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let (sequence, acknowledgement) = numbers;
            let segment =
                Segment { flags, sequence, acknowledgement, length, window: 8192, ..Segment::default() };
            let Self { history, last_syn, windows } = self;
            Connection { history, last_syn, windows, judges: true }.take(&segment, direction)
        }

        fn established() -> Self {
            let mut known = Self::new();
            assert_eq!(known.take(Reply, SYN | ACK, (500, 101)), Ok(true));
            assert!(!known.history.is_established());
            assert_eq!(known.take(Original, ACK, (101, 501)), Ok(true));
            assert!(known.history.is_established());
            known
        }
    }

    #[test]
    fn req_2_simultaneous_open_establishes() {
        let mut known = Known::new();
        assert_eq!(known.take(Reply, SYN, (500, 0)), Ok(true));
        assert_eq!(known.take(Original, SYN | ACK, (100, 501)), Ok(true));
        assert!(!known.history.is_established());
        assert_eq!(known.take(Reply, SYN | ACK, (500, 101)), Ok(true));
        assert!(known.history.is_established());
    }

    #[test]
    fn rfc_5961_a_syn_on_a_live_session_changes_nothing() {
        let mut known = Known::established();
        let (history, windows) = (known.history, known.windows);
        for direction in [Original, Reply] {
            assert_eq!(known.take(direction, SYN, (7_000_000, 0)), Ok(false));
            assert_eq!((known.history, known.windows), (history, windows));
        }
    }
}
