//! What the policy still has to do for the packets of a session whose first packet has passed.

use crate::table::CounterId;

/// What is left to do for later packets: nothing, up to two counters, or the whole policy.
///
/// Thirty-two bits that whoever keeps sessions need not understand. Zero is [`Residue::ACCEPT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Residue(u32);

impl Residue {
    /// They pass, and nobody counts them.
    pub const ACCEPT: Self = Self(0);

    /// The policy has to look at each of them.
    pub const PER_PACKET: Self = Self(u32::MAX);

    /// The policy was not asked yet. No counters look like it.
    pub const UNKNOWN: Self = Self(u32::MAX - 1);

    /// The greatest counter number that a residue can hold.
    pub const COUNTER_MAX: u16 = u16::MAX - 2;

    /// Takes back what [`Residue::bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The residue as a number, to keep in a session.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the policy has to be evaluated for each packet.
    #[must_use]
    pub const fn is_per_packet(self) -> bool {
        self.0 == u32::MAX
    }

    /// Whether packets pass without the policy: it was asked, and need not look at each of them.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.0 < Self::UNKNOWN.0
    }

    /// The counters to add to; none unless [`Residue::is_settled`].
    pub fn counters(self) -> impl Iterator<Item = CounterId> {
        let bits = if self.is_settled() { self.0 } else { 0 };
        let [a, b, c, d] = bits.to_le_bytes();
        let slots = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])];
        slots.into_iter().filter_map(|slot| slot.checked_sub(1).map(CounterId))
    }

    /// This residue and one more counter.
    #[must_use]
    pub fn with(self, counter: CounterId) -> Self {
        if self.is_per_packet() || counter.0 > Self::COUNTER_MAX {
            return Self::PER_PACKET;
        }
        let slot = u32::from(counter.0) + 1;
        if self.0 & 0xffff == 0 {
            Self(self.0 | slot)
        } else if self.0 >> 16 == 0 {
            Self(self.0 | slot << 16)
        } else {
            Self::PER_PACKET
        }
    }

    /// This residue and, at a hook that follows, the other.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        match (self, other) {
            (_, Self::ACCEPT) => self,
            (Self::ACCEPT, _) | (_, Self::PER_PACKET) => other,
            _ => other.counters().fold(self, Self::with),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn with(counters: &[u16]) -> Residue {
        counters.iter().fold(Residue::ACCEPT, |residue, &id| residue.with(CounterId(id)))
    }

    fn counted(residue: Residue) -> Vec<u16> {
        residue.counters().map(|counter| counter.0).collect()
    }

    #[test]
    fn accept_is_zero_and_counters_survive_the_bits() {
        assert_eq!(Residue::ACCEPT.bits(), 0);
        for counters in [&[][..], &[0], &[7, 0], &[Residue::COUNTER_MAX, 1]] {
            assert_eq!(counted(Residue::from_bits(with(counters).bits())), counters);
        }
    }

    #[test]
    fn no_two_counters_look_like_anything_else() {
        let most = with(&[Residue::COUNTER_MAX, Residue::COUNTER_MAX]);
        assert!(most.is_settled() && !most.is_per_packet());
        assert!(!Residue::UNKNOWN.is_settled() && !Residue::PER_PACKET.is_settled());
        assert!(!Residue::UNKNOWN.is_per_packet());
        assert_eq!((counted(Residue::UNKNOWN), counted(Residue::PER_PACKET)), (Vec::new(), Vec::new()));
        assert_eq!(with(&[Residue::COUNTER_MAX + 1]), Residue::PER_PACKET);
    }

    #[test]
    fn hooks_add_up_and_a_third_counter_is_too_many() {
        assert_eq!(counted(with(&[3]).then(with(&[4]))), [3, 4]);
        assert_eq!(with(&[3, 4]).then(with(&[5])), Residue::PER_PACKET);
        assert_eq!(with(&[3]).then(Residue::PER_PACKET), Residue::PER_PACKET);
        assert_eq!(Residue::PER_PACKET.then(with(&[3])), Residue::PER_PACKET);
        assert_eq!(counted(Residue::PER_PACKET), []);
    }
}
