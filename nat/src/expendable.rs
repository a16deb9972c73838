//! The sessions that a full table may let go of: one bit for each place.

use alloc::boxed::Box;
use alloc::vec;

const WORD: u32 = u64::BITS;

/// Places in a row that a search looks at.
const NEAR: u32 = 16;

/// The set, and where the next search begins.
pub(crate) struct Expendable {
    words: Box<[u64]>,
    /// One bit for each word that has any.
    filled: Box<[u64]>,
    /// How many words have any.
    words_filled: u32,
    hand: u32,
}

impl Expendable {
    /// Octets that [`Expendable::new`] allocates.
    pub(crate) const fn footprint(places: u32) -> usize {
        let words = places.div_ceil(WORD);
        (words + words.div_ceil(WORD)) as usize * size_of::<u64>()
    }

    pub(crate) fn new(places: u32) -> Self {
        let words = places.div_ceil(WORD);
        let clear = |words: u32| vec![0; words as usize].into_boxed_slice();
        Self { words: clear(words), filled: clear(words.div_ceil(WORD)), words_filled: 0, hand: 0 }
    }

    /// Puts a place into the set, or takes it out.
    pub(crate) fn set(&mut self, place: u32, is_expendable: bool) {
        let at = place / WORD;
        let Some(word) = self.words.get_mut(at as usize) else { return };
        let before = *word;
        match is_expendable {
            true => *word |= 1 << (place % WORD),
            false => *word &= !(1 << (place % WORD)),
        }
        if (before == 0) != (*word == 0)
            && let Some(filled) = self.filled.get_mut((at / WORD) as usize)
        {
            *filled ^= 1 << (at % WORD);
            match before == 0 {
                true => self.words_filled += 1,
                false => self.words_filled -= 1,
            }
        }
    }

    /// Whether nothing is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.words_filled == 0
    }

    /// Where the next search begins.
    pub(crate) const fn hand(&self) -> u32 {
        self.hand
    }

    /// The next search begins there.
    pub(crate) const fn look_from(&mut self, place: u32) {
        self.hand = place;
    }

    /// A place of the set that `suits`: one of the next few behind the one that was looked at last, or else one
    /// from anywhere, as what came together stands together. Up to `looks` of them are looked at; to find one
    /// takes no more steps than there are places in 4096.
    pub(crate) fn next(&mut self, looks: u32, mut suits: impl FnMut(u32) -> bool) -> Option<u32> {
        let places = self.words.len() as u32 * WORD;
        // By the golden section.
        let step = ((u64::from(places) * 0x9e37_79b9) >> 32) as u32;
        let (mut first, mut far) = (None, self.hand);
        // What is left of the word at hand.
        let (mut at, mut word) = (0, 0_u64);
        for look in 0..looks {
            if word == 0 {
                let place = self.member_from(self.hand).or_else(|| self.member_from(0))?;
                at = place / WORD;
                word = self.words.get(at as usize)? & u64::MAX << (place % WORD);
            }
            let place = at * WORD + word.trailing_zeros();
            word &= word - 1;
            if look < NEAR && first == Some(place) {
                break;
            }
            first = first.or(Some(place));
            self.hand = place + 1;
            if suits(place) {
                return Some(place);
            }
            if look >= NEAR {
                // Not from what was found: behind the last of the set that would be the first one, again and again.
                far = (far + step) % places;
                (self.hand, word) = (far, 0);
            }
        }
        None
    }

    /// The first place of the set that is no less than this one.
    fn member_from(&self, place: u32) -> Option<u32> {
        first_from(&self.words, place, place / WORD + 1).or_else(|| {
            let word = first_from(&self.filled, place / WORD + 1, u32::MAX)?;
            first_from(&self.words, word * WORD, word + 1)
        })
    }
}

/// The first bit that is set, from a place on and ahead of the word `end`.
fn first_from(words: &[u64], place: u32, end: u32) -> Option<u32> {
    let begin = place / WORD;
    let end = words.len().min(end as usize);
    let words = words.get(begin as usize..end)?.iter().copied().zip(begin..);
    let mut masks = core::iter::once(u64::MAX << (place % WORD)).chain(core::iter::repeat(u64::MAX));
    words
        .map(|(word, at)| (word & masks.next().unwrap_or(u64::MAX), at))
        .find(|&(word, _)| word != 0)
        .map(|(word, at)| at * WORD + word.trailing_zeros())
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
        let mut looked = std::vec::Vec::new();
        let mut look = |place| {
            looked.push(place);
            false
        };
        assert_eq!((set.next(10, &mut look), set.next(NEAR, &mut look)), (None, None));
        assert!(core::mem::take(&mut looked).into_iter().eq(0..10 + NEAR));
        (0..4095).for_each(|place| set.set(place, false));
        assert_eq!([(); 2].map(|()| set.next(1, |_| true)), [Some(4095); 2], "however far it is");
        let mut looks = 0;
        set.next(64, |_| {
            looks += 1;
            false
        });
        assert_eq!(looks, 1, "each is looked at once");
        set.set(4095, false);
        assert_eq!(set.next(64, |_| true), None);
        assert_eq!(Expendable::new(0).next(64, |_| true), None);
    }

    #[test]
    fn what_stands_together_does_not_hide_the_rest() {
        let mut set = Expendable::new(65_536);
        (0..60_000).for_each(|place| set.set(place, true));
        for _ in 0..1000 {
            let found = set.next(64, |place| place >= 40_000);
            set.set(found.expect("a third suits"), false);
        }
    }

    #[test]
    fn places_without_any_behind_the_last_do_not_end_a_search() {
        for last in [20_000, 30_000, 36_000, 50_000] {
            let mut set = Expendable::new(65_536);
            (0..last).for_each(|place| set.set(place, true));
            for _ in 0..1000 {
                let found = set.next(64, |place| place >= last / 4);
                set.set(found.expect("most suit"), false);
            }
        }
    }

    #[test]
    fn it_holds_what_was_put_there_and_not_taken_out() {
        let (mut set, mut model, mut seed) = (Expendable::new(9000), [false; 9000], 7_u64);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let (place, is_in) = ((seed >> 33) as usize % 9000, seed >> 62 == 0);
            set.set(place as u32, is_in);
            model[place] = is_in;
            let from = (seed >> 40) as usize % 9000;
            let expected = model[from..].iter().position(|&is_in| is_in).map(|at| (from + at) as u32);
            assert_eq!(set.member_from(from as u32), expected);
        }
    }
}
