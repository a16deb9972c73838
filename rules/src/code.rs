//! Rules as they stand in the image: words, of which a step takes one to three.
//!
//! The first word of a step has in its bits
//! ```text
//!  0..4   what it is
//!  4      whether a comparison must fail
//!  8..16  the field that it compares
//! 16..32  a number: a small value, a prefix length, or the place of something larger in a table
//! ```

use crate::table::{Action, CounterId, Effect, Field, Lookup};

/// What a step is.
mod kind {
    pub const EQUAL: u32 = 0;
    pub const EQUAL_WORD: u32 = 1;
    pub const RANGE: u32 = 2;
    pub const RANGE_WORDS: u32 = 3;
    pub const PREFIX: u32 = 4;
    pub const MASKED: u32 = 5;
    pub const IN: u32 = 6;
    pub const LOOKUP: u32 = 7;
    pub const COUNT: u32 = 8;
    pub const ACT: u32 = 9;
    pub const DO: u32 = 10;
}

/// The words of all rules, and what they refer to.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// The words.
    pub words: &'static [u32],
    /// Sets of numbers: ranges, sorted and apart.
    pub sets: &'static [&'static [(u32, u32)]],
    /// Lookups of concatenations.
    pub lookups: &'static [Lookup],
    /// What is remembered.
    pub effects: &'static [Effect],
    /// How rules end.
    pub actions: &'static [Action],
}

impl Code {
    /// No rules.
    pub const EMPTY: Self = Self { words: &[], sets: &[], lookups: &[], effects: &[], actions: &[] };

    /// What a word asks for that is neither a comparison nor a verdict; none if it is no step at all.
    pub(crate) fn step(&self, first: u32) -> Option<Step> {
        let at = first >> 16;
        Some(match first & 15 {
            kind::LOOKUP => Step::Lookup(self.lookups.get(at as usize)?),
            kind::COUNT => Step::Count(CounterId(at as u16)),
            kind::ACT => Step::Act(self.effects.get(at as usize)?),
            _ => return None,
        })
    }

    /// The verdict that a word ends the rule with, if it is one.
    #[inline(always)]
    pub(crate) fn verdict(&self, first: u32) -> Option<&'static Action> {
        self.actions.get((first >> 16) as usize).filter(|_| first & 15 == kind::DO)
    }

    /// Whether a number is as a comparison wants it, which has this first word; takes the others away. None when there
    /// are no such words, or no such set.
    #[inline(always)]
    pub(crate) fn holds(&self, first: u32, words: &mut &'static [u32], value: u32) -> Option<bool> {
        let number = first >> 16;
        let mut word = || {
            let (&word, behind) = words.split_first()?;
            *words = behind;
            Some(word)
        };
        let holds = match first & 15 {
            kind::EQUAL => value == number,
            kind::EQUAL_WORD => value == word()?,
            kind::RANGE => {
                let ends = word()?;
                (ends & 0xffff..=ends >> 16).contains(&value)
            }
            kind::RANGE_WORDS => (word()?..=word()?).contains(&value),
            kind::PREFIX => (word()? ^ value).leading_zeros() >= number,
            kind::MASKED => value & word()? == word()?,
            _ => is_among(self.sets.get(number as usize)?, value),
        };
        Some(holds != (first & 16 != 0))
    }
}

/// Whether a step that begins with this word compares a number of the packet.
#[inline(always)]
pub(crate) const fn is_comparison(first: u32) -> bool {
    first & 15 <= kind::IN
}

/// What a comparison compares; none when there is no such field.
#[inline(always)]
pub(crate) fn field(first: u32) -> Option<Field> {
    Field::of(first >> 8 & 0xff)
}

/// What stands behind a comparison with this first word.
pub(crate) fn behind(first: u32, words: &'static [u32]) -> &'static [u32] {
    let length = match first & 15 {
        kind::EQUAL_WORD | kind::RANGE | kind::PREFIX => 1,
        kind::RANGE_WORDS | kind::MASKED => 2,
        _ => 0,
    };
    words.get(length..).unwrap_or(NO_STEP)
}

/// Words that are no step.
pub(crate) const NO_STEP: &[u32] = &[15];

/// One step of a rule that is neither a comparison nor a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Goes on if the concatenation of some numbers is, or is not, among these.
    Lookup(&'static Lookup),
    /// Counts the packet.
    Count(CounterId),
    /// Does something that is remembered; ends the rule if that says so.
    Act(&'static Effect),
}

/// Whether a value is in one of these ranges, which are sorted and apart.
fn is_among(ranges: &[(u32, u32)], value: u32) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| value <= last)
}

/// Where the larger things of a step stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A comparison with a value, or with a range of them.
    Range(u32, u32),
    /// A comparison under a mask.
    Masked {
        /// The bits looked at.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// A comparison with a set, by its place in [`Code::sets`].
    In(u16),
}

/// The words of a comparison: one to three, and how many.
#[must_use]
pub fn comparison(field: Field, test: Word, negated: bool) -> ([u32; 3], usize) {
    let head = |kind: u32, number: u32| kind | u32::from(negated) << 4 | (field as u32) << 8 | number << 16;
    let small = |value: u32| value <= 0xffff;
    match test {
        Word::Range(first, last) if first == last && small(first) => ([head(kind::EQUAL, first), 0, 0], 1),
        Word::Range(first, last) if first == last => ([head(kind::EQUAL_WORD, 0), first, 0], 2),
        Word::Range(first, last) if small(last) => ([head(kind::RANGE, 0), first | last << 16, 0], 2),
        Word::Range(first, last) => match prefix_length(first, last) {
            Some(length) => ([head(kind::PREFIX, length), first, 0], 2),
            None => ([head(kind::RANGE_WORDS, 0), first, last], 3),
        },
        Word::Masked { mask, value } => ([head(kind::MASKED, 0), mask, value], 3),
        Word::In(set) => ([head(kind::IN, set.into()), 0, 0], 1),
    }
}

/// The length of the prefix that a range is.
fn prefix_length(first: u32, last: u32) -> Option<u32> {
    let differing = first ^ last;
    let is_prefix = differing.wrapping_add(1) & differing == 0 && first & differing == 0;
    is_prefix.then_some(differing.leading_zeros())
}

/// The word of a step that refers to something by its number.
#[must_use]
pub const fn reference(step: Reference) -> u32 {
    let (kind, number) = match step {
        Reference::Lookup(at) => (kind::LOOKUP, at),
        Reference::Count(CounterId(at)) => (kind::COUNT, at),
        Reference::Act(at) => (kind::ACT, at),
        Reference::Do(at) => (kind::DO, at),
    };
    kind | (number as u32) << 16
}

/// A step that refers to something by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// By its place in [`Code::lookups`].
    Lookup(u16),
    /// A counter.
    Count(CounterId),
    /// By its place in [`Code::effects`].
    Act(u16),
    /// By its place in [`Code::actions`].
    Do(u16),
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        static SET: [(u32, u32); 3] = [(2, 4), (9, 9), (u32::MAX - 1, u32::MAX)];
        static SETS: [&[(u32, u32)]; 2] = [&SET, &[]];
        let code = Code { sets: &SETS, actions: &[Action::Accept, Action::Jump(7)], ..Code::EMPTY };
        let numbers = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 65_535, 65_536, 70_000, 0x0a00_0000, 0x0aff_ffff];
        let numbers = [&numbers[..], &[0x0b00_0000, u32::MAX - 2, u32::MAX - 1, u32::MAX]].concat();
        let ranges =
            [(5, 5), (70_000, 70_000), (0, 65_535), (3, 70_000), (0x0a00_0000, 0x0aff_ffff), (0, u32::MAX)];
        let of_range = |range: (u32, u32)| {
            let holds: std::boxed::Box<dyn Fn(u32) -> bool> =
                std::boxed::Box::new(move |value| (range.0..=range.1).contains(&value));
            (Word::Range(range.0, range.1), holds)
        };
        let mut cases: Vec<_> = ranges.into_iter().map(of_range).collect();
        cases.push((Word::Masked { mask: 6, value: 2 }, std::boxed::Box::new(|value| value & 6 == 2)));
        let within = |value| SET.iter().any(|&(first, last)| first <= value && value <= last);
        cases.push((Word::In(0), std::boxed::Box::new(within)));
        cases.push((Word::In(1), std::boxed::Box::new(|_| false)));
        for (at, (word, holds)) in cases.into_iter().enumerate() {
            for negated in [false, true] {
                let (three, length) = comparison(Field::ALL[at * 3], word, negated);
                let words: &'static [u32] = Vec::from(&three[1..length]).leak();
                assert!(is_comparison(three[0]) && code.verdict(three[0]).is_none());
                assert_eq!(field(three[0]), Some(Field::ALL[at * 3]));
                assert_eq!(behind(three[0], words), [0; 0]);
                for &value in &numbers {
                    let mut rest = words;
                    assert_eq!(
                        code.holds(three[0], &mut rest, value),
                        Some(holds(value) != negated),
                        "{word:?} {value}"
                    );
                    assert_eq!(rest, [0; 0]);
                }
            }
        }
        let [count, end] = [Reference::Count(CounterId(9)), Reference::Do(1)].map(reference);
        assert!(!is_comparison(count) && !is_comparison(end));
        assert_eq!((code.step(count), code.verdict(count)), (Some(Step::Count(CounterId(9))), None));
        assert_eq!((code.step(end), code.verdict(end)), (None, Some(&Action::Jump(7))));
    }

    #[test]
    fn words_that_are_no_step_are_told() {
        let none = |first: u32| Code::EMPTY.step(first).is_none() && Code::EMPTY.verdict(first).is_none();
        for first in [15, kind::DO, kind::LOOKUP, kind::ACT] {
            assert!(!is_comparison(first) && none(first), "{first}");
        }
        for (first, words) in [(kind::EQUAL_WORD, &[][..]), (kind::MASKED, &[1]), (kind::IN | 9 << 16, &[])] {
            assert_eq!(Code::EMPTY.holds(first, &mut { words }, 5), None, "{first}");
        }
        assert_eq!(behind(kind::MASKED, &[1]), NO_STEP);
        assert!(none(NO_STEP[0]) && !is_comparison(NO_STEP[0]));
        assert_eq!(field(0xff << 8), None);
    }

    #[test]
    fn fields_are_numbered_as_they_are_listed() {
        for (at, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, at);
        }
    }
}
