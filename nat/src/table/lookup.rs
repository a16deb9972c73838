//! Which session a packet belongs to, and how it is translated. Nothing changes here.
//!
//! The session that a mapping lives with is found by the mapping's endpoints: packets of the
//! original direction by their source, the internal endpoint, answers by their destination, the
//! external one. All other sessions are found by their whole tuples.
//!
//! Of those others, one that uses a mapping has two tuples, of which each either goes to an external
//! address or comes from the mapping's internal endpoint, and the mapping is found by that. So where
//! a source has no mapping, a tuple that goes to no external address can only be that of a session
//! which has none either; and those are counted.

use core::net::Ipv4Addr;

use super::{Hit, Nat};
use crate::endpoint::{Direction, Ends, Tuple};
use crate::icmp::Embedded;
use crate::index::Spot;
use crate::session::{NONE, SessionId};
use crate::translate::Translation;

/// A search in vain: no session has the tuple.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vain {
    /// For the first session of a mapping that the tuple's source begins.
    pub(super) spot: Spot,
    /// Whether the source may have a mapping already.
    pub(super) is_mapped: bool,
    /// The first one that was seen.
    pub(super) mapping: u32,
}

impl Vain {
    /// One that tells nothing.
    pub(super) const STALE: Self = Self { spot: Spot::of(0), is_mapped: true, mapping: NONE };
}

/// Where a session probably is: good for a packet or none, and for as long as a lookup finds it so.
#[derive(Clone, Copy, Debug)]
pub struct Guess(u32);

impl Guess {
    /// Nothing is foreseen.
    pub const NONE: Self = Self(NONE);
}

impl Nat {
    #[inline]
    pub(super) fn hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.words())
    }

    /// The hash that a mapping is found by from outside, by the tuple of any packet to it.
    #[inline]
    pub(super) fn external_hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.destination_words())
    }

    /// The hash that a mapping is found by from inside, by the tuple of any packet of its internal
    /// endpoint.
    #[inline]
    pub(super) fn internal_hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.source_words())
    }

    /// Whether a tuple may be that of a packet to a mapping.
    #[inline]
    pub(super) fn may_be_mapped(&self, tuple: &Tuple) -> bool {
        self.externals.may_have_destination(tuple)
    }

    /// The hash that a packet's session is found by, as far as the tuple tells.
    #[inline(always)]
    fn likely_hash(&self, tuple: &Tuple) -> u32 {
        match self.may_be_mapped(tuple) {
            true => self.external_hash(tuple),
            false => self.internal_hash(tuple),
        }
    }

    #[inline]
    pub(super) fn is_it(&self, item: u32, tuple: &Tuple) -> bool {
        self.sessions.get(item >> 1).has(tuple, direction(item))
    }

    /// The item that stands for this tuple, or what the search found out.
    #[inline(always)]
    pub(super) fn seek(&self, tuple: &Tuple) -> Result<u32, Vain> {
        match self.may_be_mapped(tuple) {
            true => self.seek_from_outside(tuple),
            false => self.seek_from_inside(tuple, self.internal_hash(tuple)),
        }
    }

    /// The same for a packet that goes to no mapping. If its source has no mapping either, and
    /// every session has one, then none has its tuple.
    #[inline(always)]
    fn seek_from_inside(&self, tuple: &Tuple, hash: u32) -> Result<u32, Vain> {
        let mut mapping = NONE;
        let found = self.index.find_or_spot(hash, |item| {
            let session = self.sessions.get(item >> 1);
            if mapping == NONE && session.maps(tuple.protocol(), tuple.source()) {
                mapping = item >> 1;
            }
            session.has(tuple, direction(item))
        });
        let is_mapped = mapping != NONE;
        match found {
            Err(spot) if is_mapped || self.unmapped > 0 => {
                self.seek_own(tuple).ok_or(Vain { spot, is_mapped, mapping })
            }
            Err(spot) => Err(Vain { spot, is_mapped, mapping }),
            Ok(item) => Ok(item),
        }
    }

    /// The same for a packet that may go to a mapping.
    #[inline(never)]
    fn seek_from_outside(&self, tuple: &Tuple) -> Result<u32, Vain> {
        let hash = self.internal_hash(tuple);
        let is_it = |item| self.is_it(item, tuple);
        let found = self.index.find(self.external_hash(tuple), is_it);
        let crossed = || self.is_crossed.then(|| self.index.find(hash, is_it)).flatten();
        let found = found.or_else(crossed).or_else(|| self.seek_own(tuple));
        found.ok_or(Vain { spot: Spot::of(hash), ..Vain::STALE })
    }

    /// The item of a session that no mapping lives with.
    #[inline(never)]
    pub(super) fn seek_own(&self, tuple: &Tuple) -> Option<u32> {
        self.index.find(self.hash(tuple), |item| self.is_it(item, tuple))
    }

    /// Whether the last lookup sought this tuple in vain, and nothing changed since.
    #[inline(always)]
    pub(super) fn has_missed(&self, tuple: &Tuple) -> bool {
        let (missed, vain) = &self.missed;
        self.index.is_current(&vain.spot) && missed == tuple
    }

    /// The session that a packet with this tuple belongs to; one that expired is none.
    #[inline(always)]
    pub fn lookup(&mut self, tuple: &Tuple) -> Option<Hit> {
        let hash = self.likely_hash(tuple);
        // Most stand at home, and most others next to it.
        let near = self.found_away(tuple, hash, 0).or_else(|| self.found_away(tuple, hash, 1));
        near.or_else(|| self.lookup_away(*tuple, hash))
    }

    /// As [`Nat::lookup`], where it was foreseen.
    #[inline(always)]
    pub fn lookup_at(&mut self, tuple: &Tuple, guess: Guess) -> Option<Hit> {
        match guess.0 {
            NONE => self.lookup(tuple),
            item if self.is_current(tuple, item) => Some(hit(item)),
            _ => self.lookup_beside(tuple),
        }
    }

    /// As [`Nat::lookup`], where another session of the same mapping was foreseen.
    #[inline(never)]
    fn lookup_beside(&mut self, tuple: &Tuple) -> Option<Hit> {
        let hash = self.hash(tuple);
        match self.found_away(tuple, hash, 0) {
            Some(hit) => Some(hit),
            None => self.lookup_beside_away(tuple, hash),
        }
    }

    /// The same for one whose own item, with this hash, does not stand at home.
    #[inline(never)]
    fn lookup_beside_away(&mut self, tuple: &Tuple, hash: u32) -> Option<Hit> {
        let own = self.found_away(tuple, hash, 1);
        own.or_else(|| self.lookup_away(*tuple, self.likely_hash(tuple)))
    }

    /// Whether an item is a session's that has this tuple and did not expire.
    #[inline(always)]
    fn is_current(&self, tuple: &Tuple, item: u32) -> bool {
        let session = self.sessions.get(item >> 1);
        session.has(tuple, direction(item)) && !self.wheel.is_past(session.expires)
    }

    /// The session with this tuple, if its item stands so far from the home of this hash.
    #[inline(always)]
    fn found_away(&self, tuple: &Tuple, hash: u32, steps: u32) -> Option<Hit> {
        let item = self.index.away(hash, steps)?;
        self.is_current(tuple, item).then(|| hit(item))
    }

    /// The same for one whose item does not stand at home, if anywhere.
    #[inline(never)]
    fn lookup_away(&mut self, tuple: Tuple, hash: u32) -> Option<Hit> {
        if self.may_be_mapped(&tuple) {
            return self.lookup_from_outside(&tuple);
        }
        match self.seek_from_inside(&tuple, hash) {
            Ok(item) => self.unexpired(item),
            Err(vain) => {
                self.missed = (tuple, vain);
                None
            }
        }
    }

    /// The same for a packet that may go to a mapping.
    #[inline(never)]
    fn lookup_from_outside(&mut self, tuple: &Tuple) -> Option<Hit> {
        match self.seek_from_outside(tuple) {
            Ok(item) => self.unexpired(item),
            Err(vain) => {
                self.missed = (*tuple, vain);
                None
            }
        }
    }

    /// The hit that an item stands for, if its session did not expire.
    #[inline]
    fn unexpired(&self, item: u32) -> Option<Hit> {
        let hit = hit(item);
        (!self.is_expired(hit.session)).then_some(hit)
    }

    /// Where the session of an IPv4 packet probably is. What its lookup will read is loaded, so that
    /// the misses of a batch overlap.
    ///
    /// The octets are not judged, and of what is no UDP or TCP packet without options nothing is
    /// foreseen.
    #[inline]
    pub fn foresee(&self, octets: &[u8]) -> Guess {
        let Some(&[0x45, _, _, _, _, _, _, _, _, protocol, _, _, ref rest @ ..]) = octets.first_chunk::<24>()
        else {
            return Guess::NONE;
        };
        let [a, b, c, d, e, f, g, h, ref ports @ ..] = *rest;
        let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let tuple = Tuple::of(protocol, Ends { addresses, ports: u32::from_ne_bytes(*ports) });
        let guess = self.index.guess(self.likely_hash(&tuple));
        core::hint::black_box(self.sessions.get(guess >> 1).expires);
        Guess(guess)
    }

    /// The session that an ICMP error is about, in the direction in which the error travels.
    ///
    /// The error must go to whom the quoted packet came from (RFC 5508 REQ-4, CVE-2019-5598).
    pub fn lookup_error(&mut self, embedded: &Embedded, outer_destination: Ipv4Addr) -> Option<Hit> {
        match embedded.tuple.source().address == outer_destination {
            true => self.lookup(&embedded.tuple.inverted()),
            false => None,
        }
    }

    /// How packets of a session are translated in a direction.
    #[inline(always)]
    pub fn translation(&self, hit: Hit) -> Translation {
        self.session(hit.session).translation(hit.direction)
    }

    #[inline]
    pub(super) fn is_expired(&self, id: SessionId) -> bool {
        self.wheel.is_past(self.sessions.get(id.0).expires)
    }
}

/// What an index item stands for.
#[inline]
const fn hit(item: u32) -> Hit {
    Hit { session: SessionId(item >> 1), direction: direction(item) }
}

/// The direction whose tuple an index item stands for.
#[inline]
const fn direction(item: u32) -> Direction {
    match item & 1 {
        0 => Direction::Original,
        _ => Direction::Reply,
    }
}
