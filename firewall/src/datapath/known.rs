//! The ways of packets that are just like one before.
//!
//! Where a packet goes is asked of several tables, and most packets follow others with the same headers. What the walk
//! found for those is kept, in few places. It is a hint: the session is asked whether it still is what it was, and
//! what speaks of one packet alone is looked at in each. Where anything differs, the packet takes the walk, which
//! knows what to do about it.

use alloc::boxed::Box;

use super::*;

/// Places; who has none takes the walk.
const PLACES: usize = 128;

/// Ways that are learnt in a turn.
const LESSONS: u8 = 8;
/// Turns for which it rests.
const REST: u8 = 64;

/// The Ethernet header and two octets of the next: sixteen are quicker to compare than fourteen.
const FRONT: usize = ETHERNET_HEADER + 2;
/// Addresses and ports behind an Ethernet header and one of IPv4 without options, and how far behind its front.
const ENDS: usize = 12;
const TO_ENDS: usize = 10;

/// What the walk found for a packet of a session.
#[derive(Clone, Copy)]
struct Known {
    input: usize,
    /// It begins with an Ethernet header whose stations are in order.
    front: [u8; FRONT],
    /// Where its addresses and ports were, unread.
    ends: [u8; ENDS],
    /// Used since another packet wanted the place.
    is_used: bool,
    /// Where it came from, which is behind the port.
    source: Ipv4Addr,
    hit: Hit,
    /// Where it is translated to, and what leads there.
    destination: Ipv4Addr,
    hop: Hop,
    /// When its station was last heard of.
    heard: Instant,
}

/// What is known.
pub(crate) struct KnownWays {
    places: Box<[Option<Known>; PLACES]>,
    /// Whether it is asked in this turn.
    pub(super) is_of_use: bool,
    /// How many ways may still be learnt in this turn, and how many packets took a known one.
    lessons: u8,
    found: usize,
    /// Turns in which it is not asked.
    rest: u8,
}

impl KnownWays {
    /// Octets that [`KnownWays::new`] allocates.
    pub(crate) const FOOTPRINT: usize = size_of::<[Option<Known>; PLACES]>();

    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { places: Box::new([None; PLACES]), is_of_use: false, lessons: 0, found: 0, rest: 0 }
    }

    /// Ports, stations or routes are not what they were.
    pub(super) fn forget(&mut self) {
        self.places.fill(None);
    }

    /// Whether there is room for another lesson in this turn.
    #[inline(always)]
    pub(super) fn learns(&self) -> bool {
        self.lessons > 0
    }

    /// A turn begins. Among many sessions it is not worth asking.
    pub(super) fn begin(&mut self, sessions: u32) {
        self.is_of_use = self.rest == 0 && sessions < LARGE;
        self.rest = self.rest.saturating_sub(1);
        (self.lessons, self.found) = (if self.is_of_use { LESSONS } else { 0 }, 0);
    }

    /// A turn with so many packets ends. Where most ask in vain, it is tried again later.
    pub(super) fn end(&mut self, packets: usize) {
        if self.is_of_use && packets > FEW && self.found * 4 < packets {
            self.rest = REST;
        }
    }

    /// The place of a frame's kind, and what it is told by. Nothing of that is judged here.
    #[inline(always)]
    fn place(&mut self, octets: &[u8]) -> Option<(&mut Option<Known>, [u8; FRONT], [u8; ENDS])> {
        let (front, rest) = octets.split_first_chunk()?;
        let ends: &[u8; ENDS] = rest.get(TO_ENDS..)?.first_chunk()?;
        let [a, b, c, d, rest @ ..] = *ends;
        let mixed = u64::from_ne_bytes(rest) ^ u64::from(u32::from_ne_bytes([a, b, c, d]));
        let place = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        Some((&mut self.places[place as usize % PLACES], *front, *ends))
    }

    /// What is known of a frame that looks like this.
    #[inline(always)]
    fn find(&mut self, input: usize, octets: &[u8]) -> Option<&mut Known> {
        let (place, front, ends) = self.place(octets)?;
        let is_it = |it: &&mut Known| it.ends == ends && it.front == front && it.input == input;
        place.as_mut().filter(is_it)
    }

    /// Keeps what the walk found for a frame, unless what is in its place was of use lately.
    fn learn(&mut self, input: usize, octets: &[u8], source: Ipv4Addr, hit: Hit, way: &Way) {
        self.lessons = self.lessons.saturating_sub(1);
        let Some((place, front, ends)) = self.place(octets) else { return };
        if let Some(known) = place
            && core::mem::take(&mut known.is_used)
        {
            return;
        }
        *place = Some(Known {
            input,
            front,
            ends,
            is_used: false,
            source,
            hit,
            destination: way.translation.destination().address,
            hop: way.hop,
            heard: Instant::ZERO,
        });
    }
}

impl<L: Link> Datapath<L> {
    /// The path of one packet, which may be known.
    #[inline(never)]
    pub(super) fn follow_or_walk(
        &mut self,
        input: usize,
        frame: L::Frame,
        guess: Guess,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(), Dropped> {
        match self.known_way(input, &frame, &mut scratch.packet, now) {
            Some(Ok(way)) => self.forward(input, frame, scratch, &way, now),
            Some(Err(reason)) => Err(reason),
            None => self.walk(input, frame, guess, scratch, now),
        }
    }

    /// The way of a packet that is just like one before, or why it ends; `None` if it has to take the walk.
    #[inline(always)]
    fn known_way(
        &mut self,
        input: usize,
        frame: &L::Frame,
        packet: &mut Packet,
        now: Instant,
    ) -> Option<Result<Way, Dropped>> {
        let known = self.known.find(input, frame.octets())?;
        parse(packet, frame).ok()?;
        if core::mem::replace(&mut known.heard, now) != now
            && let Some(front) = known.front.first_chunk()
        {
            self.neighbors.hear(input, ethernet::source(front), now);
        }
        let Known { source, hit, destination, hop, .. } = *known;
        let session = self.nat.session(hit.session);
        let residue = Residue::from_bits(session.residue(hit.direction));
        let translation = session.translation(hit.direction);
        let tuple = packet.tuple()?;
        let is_same = session.tuple(hit.direction) == tuple
            && tuple.source().address == source
            && translation.destination().address == destination
            && !packet.is_fragment()
            && residue.is_settled()
            && self.nat.remaining(hit.session) > 0;
        known.is_used = is_same;
        if !is_same || self.may_pass(packet, hop).is_err() {
            return None;
        }
        self.effects.segment = None;
        self.known.found += 1;
        Some(self.leave(packet, hit, hop, translation, residue))
    }

    /// Keeps what the walk found for a packet, if those like it go the same way.
    #[inline(never)]
    pub(super) fn learn(
        &mut self,
        input: usize,
        octets: &[u8],
        packet: &Packet,
        step: &Result<Step, Refusal>,
    ) {
        let Ok(Step::Forward(way)) = step else { return };
        // What a query and a reply are to each other, the tuple alone does not tell.
        let tuple = packet.tuple().filter(|tuple| tuple.protocol() != protocol::ICMP);
        if let Some((tuple, hit)) = tuple.zip(way.hit) {
            self.known.learn(input, octets, tuple.source().address, hit, way);
        }
    }
}
