//! Chance: the seed from which keys of hash tables, ports and transaction ids are drawn.

use super::port::{cpuid, in8, rdtsc};
use core::arch::asm;
use core::fmt;

/// How hard the seed is to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// RDSEED answered: true randomness.
    Seed,
    /// RDRAND answered: a generator seeded by true randomness.
    Random,
    /// Only the jitter of the time-stamp counter.
    Jitter,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Seed => "rdseed",
            Self::Random => "rdrand",
            Self::Jitter => "jitter",
        })
    }
}

/// A seed of 256 bits, for whoever needs one: draw, do not share.
pub struct Seed {
    state: [u64; 4],
    quality: Quality,
}

/// Attempts for one word; Intel promises success within ten for RDRAND.
const ATTEMPTS: u32 = 64;
/// Looks at the counter for each word of jitter.
const JITTER: u32 = 64;

impl Seed {
    /// Gathers what the processor offers, mixed with the time-stamp counter.
    pub fn gather() -> Self {
        let mut quality = Quality::Seed;
        let state = core::array::from_fn(|index| {
            let (word, of) = word();
            if of as u8 > quality as u8 {
                quality = of;
            }
            mix(word ^ mix(rdtsc()).wrapping_add(index as u64))
        });
        if quality == Quality::Jitter {
            log::error!("no RDSEED and no RDRAND: ports and keys can be guessed");
        }
        Self { state, quality }
    }

    /// The worst quality of its words.
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// The next 64 bits: xoshiro256++ (Blackman and Vigna, 2019).
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

fn word() -> (u64, Quality) {
    let has_seed = cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1 << 18 != 0;
    let has_random = cpuid(1, 0).ecx & 1 << 30 != 0;
    let seed = has_seed.then(|| (0..ATTEMPTS).find_map(|_| rdseed())).flatten();
    let random = || has_random.then(|| (0..ATTEMPTS).find_map(|_| rdrand())).flatten();
    match seed {
        Some(word) => (word, Quality::Seed),
        None => match random() {
            Some(word) => (word, Quality::Random),
            None => (jitter(), Quality::Jitter),
        },
    }
}

fn rdseed() -> Option<u64> {
    let (word, is_valid): (u64, u8);
    // SAFETY: called only if CPUID has the instruction; it writes one register and the flags.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) word, out(reg_byte) is_valid, options(nomem, nostack)) };
    (is_valid != 0).then_some(word)
}

fn rdrand() -> Option<u64> {
    let (word, is_valid): (u64, u8);
    // SAFETY: as for `rdseed`.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) is_valid, options(nomem, nostack)) };
    (is_valid != 0).then_some(word)
}

/// How long reads of a port take, which an emulator and a host's scheduler make uneven.
fn jitter() -> u64 {
    (0..JITTER).fold(0, |state, _| {
        in8(0x61);
        mix(state ^ rdtsc())
    })
}

/// The finalizer of MurmurHash3: each bit of the input changes half of the output.
fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}
