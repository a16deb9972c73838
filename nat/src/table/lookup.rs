//! Which session a packet belongs to, and how it is translated. Nothing changes here.

use core::net::Ipv4Addr;

use super::{Hit, Nat};
use crate::endpoint::{Direction, Ends, Tuple};
use crate::icmp::Embedded;
use crate::index::Spot;
use crate::session::SessionId;
use crate::translate::Translation;

impl Nat {
    #[inline]
    pub(super) fn hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.words())
    }

    /// The hash that a mapping is found by, from the tuple of any packet to it.
    #[inline]
    pub(super) fn mapping_hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.destination_words())
    }

    /// Whether a tuple may be that of a packet to a mapping. Answers to the session that began one
    /// are found by the mapping's hash, all other packets by their tuple's.
    #[inline]
    pub(super) fn may_be_mapped(&self, tuple: &Tuple) -> bool {
        self.externals.may_have_destination(tuple)
    }

    /// The hash that a packet's session is found by, as far as the tuple tells.
    #[inline(always)]
    fn likely_hash(&self, tuple: &Tuple) -> u32 {
        match self.may_be_mapped(tuple) {
            true => self.mapping_hash(tuple),
            false => self.hash(tuple),
        }
    }

    #[inline]
    fn is_it(&self, item: u32, tuple: &Tuple) -> bool {
        self.sessions.get(item >> 1).has(tuple, direction(item))
    }

    /// The item that stands for this tuple, or the spot for one of its own.
    #[inline(always)]
    pub(super) fn spot(&self, tuple: &Tuple) -> Result<u32, Spot> {
        match self.may_be_mapped(tuple) {
            true => self.spot_behind_mapping(tuple),
            false => self.own_spot(tuple, self.hash(tuple)),
        }
    }

    /// The same where it may be the first session's of a mapping.
    #[inline(never)]
    fn spot_behind_mapping(&self, tuple: &Tuple) -> Result<u32, Spot> {
        match self.index.find(self.mapping_hash(tuple), |item| self.is_it(item, tuple)) {
            Some(item) => Ok(item),
            None => self.own_spot(tuple, self.hash(tuple)),
        }
    }

    /// The same among those that have their tuple's hash, which is this.
    #[inline(always)]
    pub(super) fn own_spot(&self, tuple: &Tuple, hash: u32) -> Result<u32, Spot> {
        self.index.find_or_spot(hash, |item| self.is_it(item, tuple))
    }

    /// The same, which may have been found by the last lookup.
    #[inline]
    pub(super) fn spot_for(&self, tuple: &Tuple) -> Result<u32, Spot> {
        match &self.missed {
            (missed, spot) if self.index.is_current(spot) && missed == tuple => Err(*spot),
            _ => self.spot(tuple),
        }
    }

    /// The session that a packet with this tuple belongs to; one that expired is none.
    #[inline(always)]
    pub fn lookup(&mut self, tuple: &Tuple) -> Option<Hit> {
        let hash = self.likely_hash(tuple);
        if let Some(item) = self.index.at_home(hash) {
            let session = self.sessions.get(item >> 1);
            if session.has(tuple, direction(item)) && !self.wheel.is_past(session.expires) {
                return Some(hit(item));
            }
        }
        self.lookup_away(*tuple, hash)
    }

    /// The same for one whose item does not stand at home, if anywhere.
    #[inline(never)]
    fn lookup_away(&mut self, tuple: Tuple, hash: u32) -> Option<Hit> {
        let found = match self.may_be_mapped(&tuple) {
            true => self.spot_behind_mapping(&tuple),
            false => self.own_spot(&tuple, hash),
        };
        match found {
            Ok(item) => Some(hit(item)).filter(|hit| !self.is_expired(hit.session)),
            Err(spot) => {
                self.missed = (tuple, spot);
                None
            }
        }
    }

    /// Loads what the lookup of an IPv4 packet will read, so that the misses of a batch overlap.
    ///
    /// A hint that changes nothing: the octets are not judged, and what is no UDP or TCP packet
    /// without options is let be.
    #[inline]
    pub fn warm(&self, octets: &[u8]) {
        let Some(&[0x45, _, _, _, _, _, _, _, _, protocol, _, _, ref rest @ ..]) = octets.first_chunk::<24>()
        else {
            return;
        };
        let [a, b, c, d, e, f, g, h, ref ports @ ..] = *rest;
        let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let tuple = Tuple::of(protocol, Ends { addresses, ports: u32::from_ne_bytes(*ports) });
        // Of those that have its home the first: seldom are there more.
        if let Some(item) = self.index.find(self.likely_hash(&tuple), |_| true) {
            core::hint::black_box(self.sessions.get(item >> 1).expires);
        }
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
