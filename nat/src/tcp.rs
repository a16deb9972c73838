//! What a TCP session went through, seen from the middle (RFC 5382 5, RFC 7857 2).
//!
//! Only the handshake, FIN and RST count. Sequence windows are not judged here.

use crate::endpoint::Direction;

/// TCP control bits (RFC 9293 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is significant.
    pub const ACK: u8 = 0x10;
}
use flags::{ACK, FIN, RST, SYN};

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Sequence number of the first octet, or of SYN.
    pub sequence: u32,
    /// Acknowledgement number; without meaning unless ACK is set.
    pub acknowledgement: u32,
    /// Octets of sequence space that it takes: payload, SYN and FIN.
    pub length: u32,
    /// The window as sent, not scaled.
    pub window: u16,
    /// CWR to FIN, as in octet 13 of the header.
    pub flags: u8,
}

impl Segment {
    /// The one of packets that have none.
    pub(crate) const NONE: Self = Self { sequence: 0, acknowledgement: 0, length: 0, window: 0, flags: 0 };

    /// Reads a TCP header; `length` is the sequence space that the segment takes.
    #[inline(always)]
    pub(crate) const fn read(tcp: &[u8; 20], length: u32) -> Self {
        Self {
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            length,
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            flags: tcp[13],
        }
    }

    /// The sequence number that acknowledges all of it.
    pub const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.length)
    }

    /// SYN alone among SYN, ACK, FIN and RST.
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == SYN
    }
}

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

const ESTABLISHED: u8 = SYN_REPLIED | ACK_ORIGINAL | ACK_REPLY;
const CLOSED: u8 = FIN_ORIGINAL | FIN_REPLY;

/// The RST that came while opening does not acknowledge the SYN (RFC 9293 3.10.7.3).
pub(crate) struct BlindReset;

impl History {
    /// Nothing but the opening SYN.
    pub(crate) const NEW: Self = Self(0);

    /// Whether the long timeout is due: the handshake is complete, and neither side began to close.
    ///
    /// RFC 5382 REQ-5 calls a half-closed connection transitory too.
    pub(crate) const fn is_established(self) -> bool {
        self.0 & (ESTABLISHED | CLOSED | RESET) == ESTABLISHED
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
    const fn is_over(self) -> bool {
        self.is_closed() || self.0 & RESET != 0
    }

    /// The history with this segment in it.
    ///
    /// `syn_end` is what acknowledges the opening SYN.
    pub(crate) fn after(
        self,
        segment: &Segment,
        direction: Direction,
        syn_end: u32,
    ) -> Result<Self, BlindReset> {
        let original = direction == Direction::Original;
        if segment.flags & RST != 0 {
            let acknowledges = segment.flags & ACK != 0 && segment.acknowledgement == syn_end;
            return match self.is_unanswered() && !original && !acknowledges {
                true => Err(BlindReset),
                false => Ok(Self(self.0 | RESET)),
            };
        }
        if segment.opens() {
            return Ok(self.after_syn(original));
        }
        // RFC 7857 2.2: traffic after the RST shows that the connection lives on.
        let mut events = self.0 & !RESET;
        if segment.flags & SYN != 0 && !original {
            events |= SYN_REPLIED;
        }
        if segment.flags & ACK != 0 && events & SYN_REPLIED != 0 {
            events |= if original { ACK_ORIGINAL } else { ACK_REPLY };
        }
        if segment.flags & FIN != 0 && events & SYN_REPLIED != 0 {
            events |= if original { FIN_ORIGINAL } else { FIN_REPLY };
        }
        Ok(Self(events))
    }

    /// A SYN without ACK. On a live session it changes nothing: RFC 5961 4 has the endpoint
    /// challenge it. From the answering side it is a simultaneous open (RFC 5382 REQ-2).
    const fn after_syn(self, original: bool) -> Self {
        match (original, self.is_over()) {
            (true, true) => Self(0),
            (false, _) => Self(self.0 | SYN_REPLIED),
            (true, false) => self,
        }
    }

    /// Whether this SYN is the one to be acknowledged from now on.
    pub(crate) const fn takes_syn(self, segment: &Segment, direction: Direction) -> bool {
        matches!(direction, Direction::Original)
            && segment.opens()
            && (self.is_unanswered() || self.is_over())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    fn walk(segments: &[(Direction, u8)]) -> History {
        let mut history = History::default();
        for &(direction, flags) in segments {
            let segment = Segment { flags, acknowledgement: 1, ..Segment::default() };
            history = history.after(&segment, direction, 1).unwrap_or_else(|_| panic!("blind reset"));
        }
        history
    }

    const HANDSHAKE: [(Direction, u8); 3] = [(Original, SYN), (Reply, SYN | ACK), (Original, ACK)];

    #[test]
    fn req_2_three_way_handshake_and_simultaneous_open_establish() {
        assert!(walk(&HANDSHAKE).is_established());
        assert!(!walk(&HANDSHAKE[..2]).is_established());
        let simultaneous = [(Original, SYN), (Reply, SYN), (Original, SYN | ACK), (Reply, SYN | ACK)];
        assert!(walk(&simultaneous).is_established());
        assert!(!walk(&simultaneous[..3]).is_established());
    }

    #[test]
    fn rfc_5961_a_syn_on_a_live_session_changes_nothing() {
        let live = walk(&HANDSHAKE);
        let syn = Segment { flags: SYN, ..Segment::default() };
        for direction in [Original, Reply] {
            assert!(matches!(live.after(&syn, direction, 1), Ok(after) if after == live));
        }
    }

    #[test]
    fn rfc_7857_a_reset_is_transitory_until_traffic_resumes() {
        let mut events = std::vec::Vec::from(HANDSHAKE);
        events.push((Reply, RST));
        assert!(!walk(&events).is_established());
        events.push((Original, ACK));
        assert!(walk(&events).is_established());
    }

    #[test]
    fn rfc_6191_a_syn_reopens_what_is_over_and_only_that() {
        let mut events = std::vec::Vec::from(HANDSHAKE);
        events.push((Original, FIN | ACK));
        assert!(!walk(&events).is_over());
        events.push((Reply, FIN | ACK));
        assert!(walk(&events).is_over());
        events.push((Original, SYN));
        assert_eq!(walk(&events), History::default());
    }

    #[test]
    fn a_reset_while_opening_must_acknowledge_the_syn() {
        let opening = History::default();
        let reset = |flags, acknowledgement| Segment { flags, acknowledgement, ..Segment::default() };
        assert!(opening.after(&reset(RST | ACK, 1001), Reply, 1001).is_ok());
        assert!(opening.after(&reset(RST | ACK, 1002), Reply, 1001).is_err());
        assert!(opening.after(&reset(RST, 1001), Reply, 1001).is_err());
        assert!(opening.after(&reset(RST, 0), Original, 1001).is_ok());
    }
}
