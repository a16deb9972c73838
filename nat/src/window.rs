//! Which sequence numbers a TCP session may carry (RFC 9293 3.10.7.4), seen from the middle.
//!
//! Both sides' data and windows are followed as van Rooij's "Real Stateful TCP Packet Filtering"
//! has it, and pf and Linux do: a segment begins no further than the receiver's largest window
//! behind what it acknowledged, and ends no more than that before what was sent; it acknowledges
//! what was sent, and nothing much older. What a segment means to the connection is `tcp`'s
//! business.

use crate::endpoint::Direction;
use crate::segment::Segment;

/// How far behind a segment may always be: a window without scaling, and some.
const REACH_MIN: u32 = 66_000;
/// The largest shift (RFC 7323 2.3); assumed where the SYN was not seen.
const SCALE_MAX: u8 = 14;

/// The largest window that a side offered: its upper bits, with the shift in place of the last four.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer(u16);

impl Offer {
    /// In place of a shift, until the other side answers: none was offered.
    const UNSCALED: u16 = 15;

    /// The window of a segment, to be scaled by what its sender's SYN offered.
    fn new(window: u16, scale: Option<u8>) -> Self {
        Self(window & !15 | scale.map_or(Self::UNSCALED, |scale| scale.min(SCALE_MAX).into()))
    }

    #[inline(always)]
    const fn is_scaled(self) -> bool {
        self.0 & 15 != Self::UNSCALED
    }

    /// In octets, rounded up. Before the SYN is answered it says nothing, and nobody heeds it.
    #[inline(always)]
    fn octets(self) -> u32 {
        u32::from(self.0 | 15) << (self.0 & 15)
    }

    /// Another segment has this window.
    #[inline(always)]
    fn widen(&mut self, window: u16) {
        // Seldom: most are no larger than the largest, whatever its shift.
        let window = window & !15;
        if window > self.0 {
            self.0 = window | self.0 & 15;
        }
    }
}

/// What is known of one side. It is packed: every flow has two, TCP's or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, packed(2))]
pub(crate) struct Side {
    /// Behind the last octet that it sent.
    end: u32,
    /// What it acknowledged of the other side's octets.
    acknowledged: u32,
    offer: Offer,
}

/// Whether `a` is behind `b` in sequence space, or equal.
#[inline(always)]
const fn is_at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

#[inline(always)]
const fn later(a: u32, b: u32) -> u32 {
    if is_at_or_after(a, b) { a } else { b }
}

impl Side {
    /// The largest window that it offered, in octets: how far behind its last octet the other side
    /// may refer.
    #[inline(always)]
    fn reach(&self) -> u32 {
        self.offer.octets().max(REACH_MIN)
    }

    /// Behind the last octet that the other side may send.
    #[inline(always)]
    fn edge(&self) -> u32 {
        self.acknowledged.wrapping_add(self.reach())
    }
}

/// What a reset is to the receiver (RFC 5961 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reset {
    /// The next octet that it waits for, or that its sender has to send: it ends the connection.
    Exact,
    /// Inside the window: it is challenged.
    Inside,
    /// It means nothing.
    Outside,
}

/// Where a segment stands among what its sender sent before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It ends where the receiver waits for nothing.
    Outside,
    /// It goes on where the sender was, or before.
    Next,
    /// Octets before it were not seen.
    Ahead,
}

/// Both sides of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Windows([Side; 2]);

impl Windows {
    /// Of a session that is not TCP's.
    pub(crate) const NONE: Self = Self([Side::SILENT; 2]);

    /// The sender and the receiver of a direction.
    #[inline(always)]
    const fn pair(&self, direction: Direction) -> (&Side, &Side) {
        let [original, reply] = &self.0;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    #[inline(always)]
    fn sides(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [original, reply] = &mut self.0;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    /// A segment with ACK: takes it in if it is acceptable, and tells where it stands. Its sender has
    /// sent what is before `latest`; without fragments this is the segment's end.
    #[inline(always)]
    #[must_use]
    pub(crate) fn take(&mut self, segment: &Segment, latest: u32, direction: Direction) -> Option<Place> {
        let place = self.place(segment, direction);
        let (sender, receiver) = self.sides(direction);
        let (end, acknowledgement) = (segment.end(), segment.acknowledgement);
        // By what was acknowledged: where its octets end is not known of a fragmented segment, and one
        // whose acknowledgement was lost behind us comes again.
        let oldest = receiver.acknowledged.wrapping_sub(receiver.reach());
        let unacknowledged = receiver.end.wrapping_sub(acknowledgement);
        if !is_at_or_after(receiver.edge(), segment.sequence)
            || !is_at_or_after(end, oldest)
            || unacknowledged > sender.reach() + 1
        {
            return None;
        }
        sender.end = later(latest, sender.end);
        sender.acknowledged = later(acknowledgement, sender.acknowledged);
        // RFC 7323 2.2: the window of a SYN is never scaled.
        if !segment.has_syn() {
            sender.offer.widen(segment.window);
        }
        Some(place)
    }

    /// As [`Windows::take`], also for the first fragment of a segment. It is judged by its own
    /// octets; how many follow is not known, so all count that a datagram and the receiver's window
    /// have room for.
    #[inline]
    #[must_use]
    pub(crate) fn take_any(&mut self, segment: &Segment, direction: Direction) -> Option<Place> {
        match segment.is_cut() {
            true => self.take_cut(segment, direction),
            false => self.take(segment, segment.end(), direction),
        }
    }

    #[cold]
    fn take_cut(&mut self, segment: &Segment, direction: Direction) -> Option<Place> {
        let edge = self.sides(direction).1.edge();
        let latest = match is_at_or_after(edge, segment.end_max()) {
            true => segment.end_max(),
            false => later(segment.end(), edge),
        };
        self.take(segment, latest, direction)
    }

    /// The opening SYN, or one that opens again; nothing is known of the other side.
    pub(crate) fn open(segment: &Segment) -> Self {
        let reply = Side { acknowledged: segment.sequence, ..Side::SILENT };
        Self([Side::SILENT.started(segment), reply])
    }

    /// The opening SYN once more: it may be another one, or have left its data out (RFC 7413).
    pub(crate) fn open_again(&mut self, segment: &Segment) {
        let [original, reply] = self.0;
        *self = Self::open(segment);
        if reply.acknowledged == segment.sequence {
            self.0[0].end = later(original.end, segment.end_max());
        }
    }

    /// The SYN of the side that answers another one, with or without an acknowledgement.
    pub(crate) fn answer(&mut self, segment: &Segment, direction: Direction) {
        let (sender, receiver) = self.sides(direction);
        *sender = sender.started(segment);
        // RFC 7323 2.2: both sides offer it, or none scales.
        if !(sender.offer.is_scaled() && receiver.offer.is_scaled()) {
            (sender.offer, receiver.offer) =
                (Offer::new(segment.window, Some(0)), Offer::new(u16::MAX, Some(0)));
        }
        if segment.has_ack() {
            sender.acknowledged = segment.acknowledgement;
        }
        receiver.acknowledged = segment.sequence;
    }

    /// The answer to a SYN that was not thought to open anything: only its end is known.
    pub(crate) fn reopen(&mut self, answer: &Segment, direction: Direction) {
        let (_, receiver) = self.sides(direction);
        *receiver = Side { end: answer.acknowledgement, ..Side::UNKNOWN };
        self.answer(answer, direction);
    }

    /// A segment in the middle of a connection whose beginning was not seen.
    pub(crate) fn pick_up(segment: &Segment) -> Self {
        let reach = Side::UNKNOWN.reach();
        let (sequence, acknowledgement) = (segment.sequence, segment.acknowledgement);
        let original = Side {
            // It may be a keepalive, one octet behind (RFC 9293 3.8.4).
            end: segment.end_max().wrapping_add(u32::from(segment.length == 0)),
            acknowledged: acknowledgement,
            ..Side::UNKNOWN
        };
        // What the other side sent beyond that acknowledgement is not known.
        let reply =
            Side { end: acknowledgement.wrapping_add(reach / 2), acknowledged: sequence, ..Side::UNKNOWN };
        Self([original, reply])
    }

    /// Whether an opening segment may be acknowledged like this.
    pub(crate) fn acknowledges_syn(&self, segment: &Segment) -> bool {
        let [original, reply] = &self.0;
        // Data in the SYN (RFC 7413) may or may not be acknowledged.
        let data = original.end.wrapping_sub(segment.acknowledgement);
        data < original.end.wrapping_sub(reply.acknowledged)
    }

    /// Whether a SYN has a number that was not used yet (RFC 6191 2, RFC 9293 3.10.7.8).
    pub(crate) fn is_new_syn(&self, segment: &Segment, direction: Direction) -> bool {
        let (sender, _) = self.pair(direction);
        !is_at_or_after(sender.end, segment.sequence)
    }

    /// Where a segment stands among what its sender sent before.
    #[inline(always)]
    fn place(&self, segment: &Segment, direction: Direction) -> Place {
        let (sender, receiver) = self.pair(direction);
        let is_old = is_at_or_after(receiver.acknowledged, segment.end());
        if is_old || !is_at_or_after(receiver.edge().wrapping_add(1), segment.end()) {
            return Place::Outside;
        }
        match is_at_or_after(sender.end, segment.sequence) {
            true => Place::Next,
            false => Place::Ahead,
        }
    }

    /// Whether a segment ends behind all that its sender sent before.
    pub(crate) fn goes_further(&self, segment: &Segment, direction: Direction) -> bool {
        !is_at_or_after(self.pair(direction).0.end, segment.end())
    }

    /// Whether a side acknowledged all that the other side sent.
    pub(crate) fn is_all_acknowledged(&self, by: Direction) -> bool {
        let (side, other) = self.pair(by);
        is_at_or_after(side.acknowledged, other.end)
    }

    /// What a reset is to its receiver.
    pub(crate) fn reset(&self, segment: &Segment, direction: Direction) -> Reset {
        let (sender, receiver) = self.pair(direction);
        let sequence = segment.sequence;
        if sequence == receiver.acknowledged || sequence == sender.end {
            return Reset::Exact;
        }
        match is_at_or_after(sequence, receiver.acknowledged) && is_at_or_after(receiver.edge(), sequence) {
            true => Reset::Inside,
            false => Reset::Outside,
        }
    }
}

impl Side {
    /// A side whose SYN was not seen.
    const UNKNOWN: Self = Self { end: 0, acknowledged: 0, offer: Offer(!15 | SCALE_MAX as u16) };

    /// A side that sent nothing.
    const SILENT: Self = Self { end: 0, acknowledged: 0, offer: Offer(Offer::UNSCALED) };

    /// The side with its SYN. The window of a SYN counts octets; what comes later is scaled.
    fn started(self, segment: &Segment) -> Self {
        let scale = segment.window_scale().map(|scale| scale.min(SCALE_MAX));
        let offer = Offer::new(segment.window >> scale.unwrap_or(0), scale);
        Self { end: segment.end_max(), offer, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_20_octets() {
        assert_eq!(size_of::<Windows>(), 20);
    }

    #[test]
    fn an_offer_is_never_rounded_down_and_grows_with_its_shift() {
        for window in [0, 1, 15, 16, 17, 1000, 65_519, 65_520, u16::MAX] {
            for scale in 0..=SCALE_MAX {
                let mut offer = Offer::new(0, Some(scale));
                offer.widen(window);
                offer.widen(0);
                let (exact, unit) = (u32::from(window) << scale, 16 << scale);
                assert!((exact..exact + unit).contains(&offer.octets()), "{window} << {scale}");
            }
            assert!(!Offer::new(window, None).is_scaled());
        }
    }

    #[test]
    fn order_wraps_around() {
        assert!(is_at_or_after(5, u32::MAX - 5));
        assert!(!is_at_or_after(u32::MAX - 5, 5));
        assert_eq!(later(u32::MAX, 0), 0);
    }
}
