//! Chance that an outsider cannot foresee: a keyed hash and a keyed generator.

/// The key of this boot.
#[derive(Clone, Copy)]
pub(crate) struct Key([u64; 2]);

/// The product of two words, its halves folded into one.
#[inline]
const fn folded_product(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl Key {
    pub(crate) const fn new(seed: [u64; 2]) -> Self {
        Self(seed)
    }

    /// A hash of two words, for table positions: collisions cannot be planned without the key.
    #[inline]
    pub(crate) const fn hash(self, words: [u64; 2]) -> u32 {
        let mixed = folded_product(words[0] ^ self.0[0], words[1] ^ self.0[1]);
        // The upper bits of this depend on all of those.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// SipHash-1-3 of one word: what it gave tells nothing about what it gives next.
    const fn sip(self, word: u64) -> u64 {
        let mut v = [
            self.0[0] ^ 0x736f_6d65_7073_6575,
            self.0[1] ^ 0x646f_7261_6e64_6f6d,
            self.0[0] ^ 0x6c79_6765_6e65_7261,
            self.0[1] ^ 0x7465_6462_7974_6573 ^ word,
        ];
        v = sip_round(v);
        v[0] ^= word;
        let length = 8 << 56;
        v[3] ^= length;
        v = sip_round(v);
        v[0] ^= length;
        v[2] ^= 0xff;
        v = sip_round(sip_round(sip_round(v)));
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

const fn sip_round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// Numbers for port choice (RFC 6056 3.1), one keyed hash of a counter for three of them.
pub(crate) struct Chance {
    key: Key,
    hashes: u64,
    /// Draws that the last hash is still good for, and what is left of it.
    left: u8,
    hash: u64,
}

impl Chance {
    pub(crate) const fn new(key: Key) -> Self {
        Self { key, hashes: 0, left: 0, hash: 0 }
    }

    /// A number below `bound`, which is at most 2^17, or 0 if that is 0.
    ///
    /// The hash is a fraction of one. Its product with a bound has the number before the point;
    /// what is behind is a fraction again, as many bits shorter as the bound has.
    pub(crate) const fn below(&mut self, bound: u32) -> u32 {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => {
                self.hashes = self.hashes.wrapping_add(1);
                (self.hash, self.left) = (self.key.sip(self.hashes), 2);
            }
        }
        let product = self.hash as u128 * bound as u128;
        self.hash = product as u64;
        (product >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_is_the_one_of_the_standard_library_whose_key_is_zero() {
        use std::hash::{DefaultHasher, Hasher};
        for word in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let mut judge = DefaultHasher::new();
            judge.write(&word.to_le_bytes());
            assert_eq!(Key::new([0, 0]).sip(word), judge.finish());
        }
        assert_ne!(Key::new([0, 1]).sip(0), Key::new([1, 0]).sip(0));
    }

    #[test]
    fn chance_stays_below_its_bound_and_covers_it() {
        let mut chance = Chance::new(Key::new([1, 2]));
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[chance.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
        assert_eq!(chance.below(0), 0);
    }

    #[test]
    fn hash_spreads_neighbours() {
        let key = Key::new([0x1234_5678, 0x9abc_def0]);
        let mut buckets = [0u32; 64];
        for word in 0..6_400u64 {
            buckets[(key.hash([word, 17 << 32]) >> 26) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (50..160).contains(&count)), "{buckets:?}");
    }
}
