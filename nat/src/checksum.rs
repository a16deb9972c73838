//! Ones-complement sums (RFC 1071) and their differences (RFC 1624).
//!
//! Sums are kept in the machine's own byte order, which RFC 1071 2(B) allows: read a checksum
//! field with `u16::from_ne_bytes`, write it with `to_ne_bytes`.

/// Brings a long sum down to 16 bits, end-around carries included.
#[inline]
pub(crate) const fn fold(sum: u64) -> u16 {
    // Added to its own halves exchanged, the upper half is the sum of both and of their carry.
    fold_few((sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32)
}

/// The same for a shorter sum.
#[inline]
const fn fold_few(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Whether an IPv4 header without options contains its own right checksum.
///
/// Its sum is minus zero then; it is not zero, as the version is not.
#[inline]
pub(crate) fn is_right(header: &[u8; 20]) -> bool {
    let (words, rest) = header.as_chunks::<8>();
    let [first, second] = [words[0], words[1]].map(u64::from_ne_bytes);
    // End-around carries, as the machine adds them.
    let (sum, carry) = first.overflowing_add(second);
    let last = rest.first_chunk().copied().map_or(0, u32::from_ne_bytes);
    let (sum, last) = sum.overflowing_add(u64::from(last) + u64::from(carry));
    (sum + u64::from(last)).is_multiple_of(0xffff)
}

/// The ones-complement sum over the octets, not inverted. An odd last octet counts as if a zero
/// followed it.
///
/// Octets that contain their own right checksum sum up to `0xffff`.
#[inline]
pub fn sum(octets: &[u8]) -> u16 {
    let (words, rest) = octets.as_chunks::<4>();
    // 16 bits of headroom are enough for 2^32 words.
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    for octet in odd {
        total += u64::from(u16::from_ne_bytes([*octet, 0]));
    }
    fold(total)
}

/// What a change of summed octets adds to their sum (RFC 1624 3, equation 3: `~m + m'`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Difference(u16);

impl Difference {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// Time to live lowered by one: the octet is the high one of its word.
    pub const TTL: Self = Self(u16::from_ne_bytes([0xfe, 0xff]));

    /// The same residue always has the same form: minus zero is zero.
    #[inline]
    const fn new(sum: u64) -> Self {
        match fold(sum) {
            0xffff => Self(0),
            sum => Self(sum),
        }
    }

    /// Octets became others, both as words in the machine's order.
    #[inline]
    pub(crate) const fn of_words(old: u64, new: u64) -> Self {
        let (difference, borrow) = new.overflowing_sub(old);
        Self::new(difference.wrapping_sub(borrow as u64))
    }

    /// Two octets became two others, given in host order.
    #[inline]
    pub fn of_field(old: u16, new: u16) -> Self {
        Self::of_sums(old.to_be(), new.to_be())
    }

    /// Octets that summed up to `old` now sum up to `new`.
    #[inline]
    pub fn of_sums(old: u16, new: u16) -> Self {
        Self::new(u64::from(!old) + u64::from(new))
    }

    /// Both changes.
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        match sum.wrapping_add(carry as u16) {
            0xffff => Self(0),
            sum => Self(sum),
        }
    }

    /// The change undone.
    #[inline]
    pub const fn reversed(self) -> Self {
        match self.0 {
            0 => self,
            sum => Self(!sum),
        }
    }

    /// The checksum after the change, from the one before: `~(~checksum + difference)`, which is
    /// the checksum less the difference, with end-around borrow.
    #[inline]
    pub const fn update(self, checksum: u16) -> u16 {
        let (less, borrow) = checksum.overflowing_sub(self.0);
        less.wrapping_sub(borrow as u16)
    }

    /// The sum after the change, from the one before; for partial checksums, which hold a
    /// sum that is not inverted.
    #[inline]
    pub const fn add_to(self, sum: u16) -> u16 {
        fold_few(sum as u32 + self.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::{Chance, Key};
    use std::vec::Vec;

    #[test]
    fn sum_is_the_one_that_etherparse_computes() {
        let mut chance = Chance::new(Key::new([1, 71]));
        for length in 0..300 {
            let octets: Vec<u8> = (0..length).map(|_| chance.below(256) as u8).collect();
            let judged = etherparse::checksum::Sum16BitWords::new().add_slice(&octets);
            assert_eq!((!sum(&octets)).to_ne_bytes(), judged.ones_complement().to_ne_bytes());
        }
    }

    #[test]
    fn rfc_1624_update_equals_a_new_sum() {
        let mut chance = Chance::new(Key::new([1, 24]));
        for _ in 0..100_000 {
            let mut octets = [0; 20].map(|_: u8| chance.below(256) as u8);
            octets[19] |= 1;
            let before = !sum(&octets);
            let at = chance.below(4) as usize * 4;
            let field = octets[at..].first_chunk_mut().unwrap();
            // Often extreme values, where the carries are.
            let new = [0; 4].map(|_: u8| [0, 0xff, chance.below(256) as u8][chance.below(3) as usize]);
            let old = core::mem::replace(field, new);
            let difference =
                Difference::of_words(u32::from_ne_bytes(old).into(), u32::from_ne_bytes(new).into());
            let updated = difference.update(before);
            // Both forms of zero are one number; which one a field has is the field's business.
            assert_eq!(updated % 0xffff, !sum(&octets) % 0xffff);
            assert_eq!(difference.reversed().update(updated) % 0xffff, before % 0xffff);
            if old != new {
                assert_eq!(updated, !sum(&octets));
            }
        }
    }

    #[test]
    fn rfc_1624_example_of_section_4() {
        // HC = 0xdd2f, m = 0x5555, m' = 0x3285 -> HC' = 0x0000
        let difference = Difference::of_field(0x5555, 0x3285);
        assert_eq!(difference.update(0xdd2f_u16.to_be()), 0);
    }

    #[test]
    fn nothing_changed_changes_nothing() {
        assert_eq!(Difference::of_words(0x1_0203, 0x1_0203), Difference::NONE);
        for checksum in [0, 1, 0xfffe, 0xffff] {
            assert_eq!(Difference::NONE.update(checksum), checksum);
            assert_eq!(Difference::NONE.reversed().update(checksum), checksum);
        }
    }

    #[test]
    fn ttl_difference_is_that_of_a_lowered_octet() {
        assert_eq!(Difference::TTL, Difference::of_field(0x4011, 0x3f11));
    }
}
