//! Random numbers with a seed that is printed, so that a failure can be had again.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of `WEIR_SEED`, or of `otherwise`; the seed is printed.
    ///
    /// # Panics
    /// If `WEIR_SEED` is no number.
    pub fn from_environment(otherwise: u64) -> Self {
        let seed =
            std::env::var("WEIR_SEED").map_or(otherwise, |text| text.parse().expect("WEIR_SEED is a number"));
        println!("seed {seed}: WEIR_SEED={seed} repeats this run");
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound.max(1) as u64) as usize
    }

    /// One octet.
    pub fn octet(&mut self) -> u8 {
        self.word() as u8
    }

    /// Sixteen bits.
    pub fn half(&mut self) -> u16 {
        self.word() as u16
    }

    /// True `percent` times in a hundred.
    pub fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// That many octets.
    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.octet()).collect()
    }
}
