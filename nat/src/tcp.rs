//! What a TCP session went through, seen from the middle (RFC 5382 5, RFC 7857 2).
//!
//! Only the handshake, FIN and RST count; `window` judges sequence numbers.

use crate::config::Options;
use crate::endpoint::Direction;
use crate::segment::Segment;
use crate::segment::flags::{ACK, FIN, RST, SYN};
use crate::session::Class;
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

/// What became of a segment, in one octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It counts.
    Counted,
    /// It is forwarded, but changes nothing.
    Passed,
    /// It is to be dropped.
    Refused(Refused),
}

impl Taken {
    /// Why it is to be dropped, if it is.
    #[inline(always)]
    pub(crate) const fn refused(self) -> Option<Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}

impl From<Result<bool, Refused>> for Taken {
    #[inline(always)]
    fn from(counts: Result<bool, Refused>) -> Self {
        match counts {
            Ok(true) => Self::Counted,
            Ok(false) => Self::Passed,
            Err(refused) => Self::Refused(refused),
        }
    }
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

    /// Whether a side sent a FIN ahead of what was seen.
    const fn awaits_fin(self) -> bool {
        self.0 & (AHEAD_ORIGINAL | AHEAD_REPLY) != 0
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

    /// Whether a full table may let go of the session, see [`Session::is_expendable`](crate::Session).
    pub(crate) const fn is_expendable(self) -> bool {
        self.is_over() || !self.was_established()
    }

    /// What it means to the session.
    #[inline(always)]
    pub(crate) fn meaning(self) -> Meaning {
        MEANINGS[self.0 as usize]
    }

    /// The idle time of the session.
    #[inline]
    pub(crate) const fn class(self) -> Class {
        match self.is_established() {
            true => Class::TcpEstablished,
            false => Class::TcpTransitory,
        }
    }

    /// Of a connection whose beginning was not seen.
    pub(crate) const PICKED_UP: Self = Self(ESTABLISHED);
}

/// What a history means to its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meaning {
    /// Its idle time.
    pub(crate) class: Class,
    pub(crate) is_over: bool,
    pub(crate) is_expendable: bool,
}

/// The meanings of all histories.
static MEANINGS: [Meaning; 256] = {
    let mut all = [Meaning { class: Class::TcpTransitory, is_over: false, is_expendable: false }; 256];
    let mut events = 0;
    while events < all.len() {
        let history = History(events as u8);
        let (is_over, is_expendable) = (history.is_over(), history.is_expendable());
        all[events] = Meaning { class: history.class(), is_over, is_expendable };
        events += 1;
    }
    all
};

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
    /// They tell whether sequence numbers are judged at all.
    pub(crate) options: &'a Options,
}

impl Connection<'_> {
    /// Takes note of a segment, and tells whether it counts: one that does not is forwarded, but
    /// changes nothing.
    ///
    /// # Errors
    /// [`Refused`]: it is to be dropped, and nothing is changed.
    pub(crate) fn take(mut self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if self.awaits(segment) {
            self.take_usual(segment, direction).map(|()| true)
        } else if self.is_step(segment) {
            self.take_step(segment, direction)
        } else {
            self.take_rare(segment, direction)
        }
    }

    /// Whether it is a segment as nearly all are: it counts if it is acceptable, and
    /// [`Connection::take_usual`] is for it.
    #[inline(always)]
    pub(crate) const fn awaits(&self, segment: &Segment) -> bool {
        segment.is_usual() && self.history.is_usual() && !segment.is_cut()
    }

    /// As [`Connection::take`], for a segment that it awaits.
    #[inline(always)]
    pub(crate) fn take_usual(&mut self, segment: &Segment, direction: Direction) -> Result<(), Refused> {
        if self.windows.take(segment, segment.end(), direction).is_none() && self.options.tcp_windows {
            return Err(Refused::Window);
        }
        self.history.advance(0, direction);
        Ok(())
    }

    /// Whether it is a segment with ACK and without RST as every connection has some:
    /// [`Connection::take_step`] is for it.
    #[inline(always)]
    pub(crate) const fn is_step(&self, segment: &Segment) -> bool {
        self.options.tcp_windows && matches!(segment.flags & (SYN | ACK | FIN | RST), ACK | FIN_ACK | SYN_ACK)
    }

    /// As [`Connection::take`], for a step.
    #[inline(always)]
    pub(crate) fn take_step(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        match segment.has_syn() {
            true => self.syn_ack(segment, direction),
            false if segment.has_fin() && self.history.is_usual() && !segment.is_cut() => {
                self.close(segment, direction)
            }
            false => self.acknowledge(segment, direction),
        }
    }

    /// A FIN, maybe with data, where neither side's is awaited.
    #[inline(always)]
    fn close(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        let taken = self.windows.take(segment, segment.end(), direction);
        let events = taken.ok_or(Refused::Window)?.events_of_fin(direction);
        self.history.advance(events, direction);
        Ok(true)
    }

    /// As [`Connection::take`], for what is neither awaited nor a step.
    pub(crate) fn take_rare(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if !self.options.tcp_windows {
            return self.follow(segment, direction);
        }
        match (segment.flags & (SYN | ACK | FIN | RST), direction) {
            (RST | RST_ACK, _) => self.reset(segment, direction),
            (SYN, Direction::Original) => Ok(self.syn(segment)),
            (SYN, Direction::Reply) => Ok(self.simultaneous(segment)),
            // RFC 9293 3.10.7.4: without ACK nothing is right; SYN goes with neither FIN nor RST.
            _ => Err(Refused::Window),
        }
    }

    /// Without sequence numbers every segment counts, save for a reset that is blind to the SYN.
    fn follow(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
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
    fn reset(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
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
    fn syn(self, segment: &Segment) -> bool {
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
    fn simultaneous(self, segment: &Segment) -> bool {
        let opens = self.history.is_unanswered();
        if opens {
            self.windows.answer(segment, Direction::Reply);
            self.history.0 |= SYN_REPLIED;
        } else {
            *self.last_syn = LastSyn::of(segment, Direction::Reply);
        }
        opens
    }

    #[inline(always)]
    fn syn_ack(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        let is_answer = direction == Direction::Reply;
        if self.history.is_unanswered() {
            if !is_answer || !self.windows.acknowledges_syn(segment) {
                return Err(Refused::Window);
            }
            self.windows.answer(segment, direction);
        } else if self.windows.take_any(segment, direction).is_none() {
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
    #[inline(never)]
    fn acknowledge(self, segment: &Segment, direction: Direction) -> Result<bool, Refused> {
        if self.history.is_unanswered() {
            // The answering side still has an older connection: the opening side will reset it
            // (RFC 9293 3.5.1).
            return match direction {
                Direction::Reply if segment.flags & FIN == 0 => Ok(false),
                _ => Err(Refused::Window),
            };
        }
        let goes_further = self.history.awaits_fin() && self.windows.goes_further(segment, direction);
        let place = self.windows.take_any(segment, direction).ok_or(Refused::Window)?;
        let events = if segment.has_fin() { place.events_of_fin(direction) } else { 0 };
        if goes_further {
            // Nothing comes behind a FIN: what was taken for one ahead was none.
            self.history.0 &= !Place::Ahead.events_of_fin(direction);
        }
        self.history.advance(events, direction);
        if self.history.awaits_fin() {
            self.history.settle(self.windows.is_all_acknowledged(direction), direction);
        }
        Ok(true)
    }
}

impl Place {
    /// What a FIN means that stands there.
    #[inline(always)]
    const fn events_of_fin(self, direction: Direction) -> u8 {
        let by_original = match self {
            Self::Outside => 0,
            Self::Next => FIN_ORIGINAL,
            Self::Ahead => AHEAD_ORIGINAL,
        };
        match direction {
            Direction::Original => by_original,
            // The answering side's are next to the opening side's.
            Direction::Reply => by_original << 1,
        }
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
            Connection { history, last_syn, windows, options: &Options::default() }.take(&segment, direction)
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
