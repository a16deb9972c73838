//! Free numbers, found in a few words wherever they are.

use alloc::boxed::Box;
use alloc::vec;

const WORD: u32 = 64;
/// Words of each level of the tree: one bit a port, one a word of ports, one a word of those.
const PORT_WORDS: usize = 1024;
const GROUP_WORDS: usize = 16;

/// The free numbers among 65 536: a set bit is free, or has something free below it.
pub(super) struct Tree {
    words: Box<[u64]>,
}

/// The bits from `bit` on; none for 64.
#[inline]
const fn from_bit(bit: u32) -> u64 {
    match u64::MAX.checked_shl(bit) {
        Some(mask) => mask,
        None => 0,
    }
}

impl Tree {
    /// Octets that a tree allocates.
    pub(super) const FOOTPRINT: usize = (PORT_WORDS + GROUP_WORDS + 1) * size_of::<u64>();

    pub(super) fn full() -> Self {
        let mut tree = Self { words: vec![0; PORT_WORDS + GROUP_WORDS + 1].into_boxed_slice() };
        tree.fill();
        tree
    }

    /// Everything is free.
    pub(super) fn fill(&mut self) {
        self.words.fill(u64::MAX);
        if let Some(top) = self.words.last_mut() {
            *top = (1 << GROUP_WORDS) - 1;
        }
    }

    /// The first set bit of a word, `from` or later, and what was read to know.
    #[inline]
    fn first(&self, word: usize, from: u32, read: &mut u32) -> Option<u32> {
        *read += 1;
        let bits = self.words.get(word)? & from_bit(from);
        (bits != 0).then(|| bits.trailing_zeros())
    }

    /// The first free number, `from` or later: at most five words are read.
    #[inline]
    pub(super) fn next(&self, from: u16, read: &mut u32) -> Option<u16> {
        let (word, bit) = (u32::from(from) / WORD, u32::from(from) % WORD);
        if let Some(bit) = self.first(word as usize, bit, read) {
            return Some((word * WORD + bit) as u16);
        }
        self.next_in_others(word + 1, read)
    }

    /// The first free number of a word, `from` or later.
    #[inline]
    fn next_in_others(&self, from: u32, read: &mut u32) -> Option<u16> {
        let word = self.next_word(from, read)?;
        let bit = self.first(word as usize, 0, read)?;
        Some((word * WORD + bit) as u16)
    }

    /// The first word with something free in it, `from` or later.
    fn next_word(&self, from: u32, read: &mut u32) -> Option<u32> {
        let (group, bit) = (from / WORD, from % WORD);
        if group >= GROUP_WORDS as u32 {
            return None;
        }
        if let Some(bit) = self.first(PORT_WORDS + group as usize, bit, read) {
            return Some(group * WORD + bit);
        }
        let group = self.first(PORT_WORDS + GROUP_WORDS, group + 1, read)?;
        let bit = self.first(PORT_WORDS + group as usize, 0, read)?;
        Some(group * WORD + bit)
    }

    #[inline]
    pub(super) fn is_free(&self, number: u16) -> bool {
        let word = self.words.get(usize::from(number) / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    /// How many are free from one number to another.
    pub(super) fn count(&self, first: u16, last: u16) -> u32 {
        let below = |number: u32| {
            let (whole, rest) = (number / WORD, number % WORD);
            let words = self.words.iter().take(whole as usize).map(|word| word.count_ones());
            let word = self.words.get(whole as usize).copied().unwrap_or(0);
            words.sum::<u32>() + (word & !from_bit(rest)).count_ones()
        };
        below(u32::from(last) + 1) - below(first.into())
    }

    /// Takes a number if it is free.
    #[inline]
    pub(super) fn take(&mut self, number: u16) -> bool {
        let is_free = self.is_free(number);
        if is_free {
            self.clear(number);
        }
        is_free
    }

    /// Takes a free number.
    #[inline]
    pub(super) fn clear(&mut self, number: u16) {
        let Some(word) = self.words.get_mut(usize::from(number) / 64) else {
            return;
        };
        let left = *word & !(1 << (number % 64));
        match left {
            // The last one of its word: there is nothing free below the bits above.
            0 => self.set(number, false),
            _ => *word = left,
        }
    }

    /// Sets or clears a number's bit, and those above it.
    #[inline(never)]
    pub(super) fn set(&mut self, number: u16, free: bool) {
        let number = usize::from(number);
        let levels = [
            (number / 64, number % 64),
            (PORT_WORDS + number / 4096, number / 64 % 64),
            (PORT_WORDS + GROUP_WORDS, number / 4096),
        ];
        for (word, bit) in levels {
            let Some(word) = self.words.get_mut(word) else {
                return;
            };
            let before = *word;
            match free {
                true => *word |= 1 << bit,
                false => *word &= !(1 << bit),
            }
            // The level above changes only when this word becomes empty, or ceases to be.
            if (before == 0) == (*word == 0) {
                return;
            }
        }
    }
}
