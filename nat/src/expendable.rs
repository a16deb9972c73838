//! The sessions that a full table may let go of: one bit for each place.

use alloc::boxed::Box;
use alloc::vec;

const WORD: u32 = u64::BITS;

/// Words looked at in one search: 256 places.
const LOOK: u32 = 4;

/// The set, and where the next search begins.
pub(crate) struct Expendable {
    words: Box<[u64]>,
    hand: u32,
}

impl Expendable {
    /// Octets that [`Expendable::new`] allocates.
    pub(crate) const fn footprint(places: u32) -> usize {
        places.div_ceil(WORD) as usize * size_of::<u64>()
    }

    pub(crate) fn new(places: u32) -> Self {
        Self { words: vec![0; places.div_ceil(WORD) as usize].into_boxed_slice(), hand: 0 }
    }

    /// Puts a place into the set, or takes it out.
    pub(crate) fn set(&mut self, place: u32, is_expendable: bool) {
        if let Some(word) = self.words.get_mut((place / WORD) as usize) {
            match is_expendable {
                true => *word |= 1 << (place % WORD),
                false => *word &= !(1 << (place % WORD)),
            }
        }
    }

    /// The next place of the set that `suits`, behind the one that was found last; the next few
    /// words are looked at, and up to `looks` places of theirs.
    pub(crate) fn next(&mut self, mut looks: u32, mut suits: impl FnMut(u32) -> bool) -> Option<u32> {
        for _ in 0..LOOK {
            let behind = u64::MAX << (self.hand % WORD);
            let mut word = self.words.get((self.hand / WORD) as usize).copied().unwrap_or(0) & behind;
            while word != 0 && looks > 0 {
                let place = self.hand / WORD * WORD + word.trailing_zeros();
                if suits(place) {
                    self.hand = place + 1;
                    return Some(place);
                }
                word &= word - 1;
                looks -= 1;
            }
            let next = self.hand / WORD + 1;
            self.hand = if (next as usize) < self.words.len() { next * WORD } else { 0 };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_set_comes_up_and_no_other() {
        let mut set = Expendable::new(1000);
        let places = [0, 63, 64, 500, 999];
        places.iter().for_each(|&place| set.set(place, true));
        let mut found = std::vec::Vec::new();
        for _ in 0..20 {
            if let Some(place) = set.next(64, |_| true) {
                set.set(place, false);
                found.push(place);
            }
        }
        assert_eq!(found, places);
        assert_eq!(set.next(64, |_| true), None);
    }

    #[test]
    fn a_search_is_bounded_and_the_next_one_goes_on() {
        let mut set = Expendable::new(4096);
        (0..4096).for_each(|place| set.set(place, true));
        let mut looked = 0;
        assert_eq!(
            set.next(100, |_| {
                looked += 1;
                false
            }),
            None
        );
        assert_eq!(looked, 100);
        (0..4095).for_each(|place| set.set(place, false));
        let searches = (0..64).take_while(|_| set.next(64, |_| true).is_none()).count();
        assert!(searches <= 4096 / 256, "{searches}");
        assert_eq!(Expendable::new(0).next(64, |_| true), None);
    }
}
