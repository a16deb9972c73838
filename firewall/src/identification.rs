//! The identification of datagrams whose source is translated (RFC 6864, RFC 7857 10).
//!
//! Two clients behind one address may use the same identification towards the same peer. What is
//! atomic (DF set, no fragment) keeps its own: it says nothing there. What comes in fragments, or is
//! cut here, gets a fresh one. What could be cut further on keeps its own as long as no other client
//! used it a moment ago. Nobody remembers which one it was before: an ICMP error quotes the one that
//! left, and finds its flow by addresses and ports (RFC 1122 3.2.2).

use alloc::boxed::Box;
use alloc::vec;
use core::net::Ipv4Addr;

use nat::{Packet, Translation};

use crate::hash::fold;

/// Identifications that are remembered, by a keyed hash: a later one takes an earlier one's place.
const REMEMBERED: usize = 1 << 14;
/// No link cuts a datagram of so many octets (RFC 791 3.2).
const MTU_MIN: u16 = 68;
/// Fresh identifications that are tried until one is nobody else's.
const TRIES: usize = 4;

/// Who used which identification towards whom, of late.
pub struct Identifications {
    /// What is left of the hash of addresses, protocol and identification, and the user's hash.
    recent: Box<[(u16, u16)]>,
    seed: u64,
    next: u16,
}

impl Identifications {
    /// Octets that [`Identifications::new`] allocates.
    pub const FOOTPRINT: usize = REMEMBERED * size_of::<(u16, u16)>();

    /// Nothing is remembered; `seed` keys the hashing and the first identification.
    pub fn new(seed: u64) -> Self {
        Self { recent: vec![(0, 0); REMEMBERED].into_boxed_slice(), seed, next: fold(seed) as u16 }
    }

    /// A fresh identification for a datagram that leaves in fragments, if its source is translated.
    pub fn fresh(&mut self, packet: &Packet, translation: &Translation) -> Option<u16> {
        if translation.source().address == packet.source() {
            return None;
        }
        for _ in 0..TRIES {
            self.next = self.next.wrapping_add(1);
            if self.is_free(packet, translation, self.next) {
                break;
            }
        }
        Some(self.next)
    }

    /// A fresh identification for a whole datagram that may be cut further on, if its source is
    /// translated and another client used its own.
    #[inline(always)]
    pub fn distinct(&mut self, packet: &Packet, translation: &Translation) -> Option<u16> {
        match packet.dont_fragment() || packet.total_len() <= MTU_MIN || packet.is_fragment() {
            true => None,
            false => self.distinct_cut(packet, translation),
        }
    }

    #[inline(never)]
    fn distinct_cut(&mut self, packet: &Packet, translation: &Translation) -> Option<u16> {
        if translation.source().address == packet.source() {
            return None;
        }
        match self.is_free(packet, translation, packet.identification()) {
            true => None,
            false => self.fresh(packet, translation),
        }
    }

    /// Whether nobody else is known to use an identification; then it is the sender's.
    fn is_free(&mut self, packet: &Packet, translation: &Translation, identification: u16) -> bool {
        let bits = |address: Ipv4Addr| u64::from(address.to_bits());
        let (source, destination) = (translation.source().address, translation.destination().address);
        let addresses = fold(self.seed ^ (bits(source) << 32 | bits(destination)));
        let rest = u64::from(packet.protocol()) << 16 | u64::from(identification);
        let key = fold(addresses ^ rest);
        // Never 0, which is nobody's.
        let user = fold(self.seed ^ bits(packet.source())) as u16 | 1;
        let tag = (key >> 48) as u16;
        let Some(place) = self.recent.get_mut(key as usize % REMEMBERED) else { return true };
        if place.0 == tag && place.1 != 0 && place.1 != user {
            return false;
        }
        *place = (tag, user);
        true
    }
}
