//! Which session a packet belongs to, and how it is translated. Nothing changes here.

use core::net::Ipv4Addr;
use smoltcp::time::Instant;

use super::{Hit, Nat};
use crate::endpoint::{Direction, Endpoint, Tuple};
use crate::icmp::Embedded;
use crate::index::Spot;
use crate::session::SessionId;
use crate::translate::Translation;

impl Nat {
    #[inline]
    pub(super) fn hash(&self, tuple: &Tuple) -> u32 {
        self.key.hash(tuple.words())
    }

    /// The session that has this tuple, whether it ended or not.
    #[inline]
    pub(super) fn find(&self, tuple: &Tuple) -> Option<Hit> {
        let is_it = |item: u32| self.sessions.get(item >> 1).has(tuple, direction(item));
        let item = self.index.find(self.hash(tuple), is_it)?;
        Some(Hit { session: SessionId(item >> 1), direction: direction(item) })
    }

    /// As [`Nat::find`], where the tuple's hash is known, for one that will have it: the item, or
    /// the spot for one.
    #[inline(always)]
    pub(super) fn spot(&self, tuple: &Tuple, hash: u32) -> Result<u32, Spot> {
        self.index.find_or_spot(hash, |item| self.sessions.get(item >> 1).has(tuple, direction(item)))
    }

    /// The session that a packet with this tuple belongs to; one that expired is none.
    #[inline]
    pub fn lookup(&self, tuple: &Tuple, now: Instant) -> Option<Hit> {
        self.find(tuple).filter(|hit| !self.is_expired(hit.session, self.clock.second(now)))
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
        let word = |at: usize| rest.get(at..).and_then(|o| o.first_chunk()).copied().unwrap_or([0; 4]);
        let [source, destination] = [word(0), word(4)].map(Ipv4Addr::from);
        let [a, b, c, d] = word(8);
        let tuple = Tuple {
            protocol,
            source: Endpoint::new(source, u16::from_be_bytes([a, b])),
            destination: Endpoint::new(destination, u16::from_be_bytes([c, d])),
        };
        // Of those that have its home the first: seldom are there more.
        if let Some(item) = self.index.find(self.hash(&tuple), |_| true) {
            core::hint::black_box(self.sessions.get(item >> 1).expires);
        }
    }

    /// The session that an ICMP error is about, in the direction in which the error travels.
    ///
    /// The error must go to whom the quoted packet came from (RFC 5508 REQ-4, CVE-2019-5598).
    pub fn lookup_error(
        &self,
        embedded: &Embedded,
        outer_destination: Ipv4Addr,
        now: Instant,
    ) -> Option<Hit> {
        match embedded.tuple.source.address == outer_destination {
            true => self.lookup(&embedded.tuple.inverted(), now),
            false => None,
        }
    }

    #[inline]
    pub(super) fn is_expired(&self, id: SessionId, now: i64) -> bool {
        self.wheel.is_past(self.sessions.get(id.0).expires, now)
    }

    /// How packets of a direction are translated.
    #[inline(always)]
    pub fn translation(&self, hit: Hit) -> Translation {
        let session = self.session(hit.session);
        // What leaves is the inverse of what comes back.
        let (arrives, returns) = (session.ends(hit.direction), session.ends(hit.direction.opposite()));
        let (addresses, ports) = match hit.direction {
            Direction::Original => (session.addresses, session.ports),
            Direction::Reply => (session.addresses.reversed(), session.ports.reversed()),
        };
        Translation {
            source: returns.destination,
            destination: returns.source,
            addresses,
            ports,
            hides_source: arrives.source.address != returns.destination.address,
        }
    }
}

/// The direction whose tuple an index item stands for.
#[inline]
const fn direction(item: u32) -> Direction {
    match item & 1 {
        0 => Direction::Original,
        _ => Direction::Reply,
    }
}
