//! Keyed hashing of a few words, for tables whose keys strangers choose.

/// Keyed hashing for the index, so that addresses cannot be chosen to collide.
#[derive(Clone)]
pub(crate) struct Seeded(u64);

impl Seeded {
    /// A hasher with this key.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl core::hash::BuildHasher for Seeded {
    type Hasher = Mix;
    fn build_hasher(&self) -> Mix {
        Mix(self.0)
    }
}

/// A multiply-and-fold hasher over at most a few words.
pub(crate) struct Mix(u64);

impl core::hash::Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word);
    }
}

/// Both halves of the product with an odd constant, folded (wyhash's step).
pub(crate) fn fold(word: u64) -> u64 {
    let product = u128::from(word ^ 0x2d35_8dcc_aa6c_78a5) * 0x8bb8_4b93_962e_acc9;
    (product as u64) ^ (product >> 64) as u64
}
