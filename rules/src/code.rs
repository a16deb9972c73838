//! Rules as they stand in the image: words, of which a step takes one to three.
//!
//! The first word of a step has in its bits
//! ```text
//!  0..4   what it is
//!  4      whether a comparison must fail
//!  8..16  the field that it compares
//! 16..32  a number: a small value, a prefix length, or the place of something larger in a table
//! ```

use crate::table::{Action, CounterId, Effect, Field, Lookup, Match, Step, Test};

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

    /// The step that begins these words, and the words behind it; words that are none end the packet.
    #[inline(always)]
    pub(crate) fn step(&self, words: &'static [u32]) -> Option<(Step, &'static [u32])> {
        let (&first, rest) = words.split_first()?;
        let step = self.read(first, rest);
        let length = match first & 15 {
            kind::EQUAL_WORD | kind::RANGE | kind::PREFIX => 1,
            kind::RANGE_WORDS | kind::MASKED => 2,
            _ => 0,
        };
        Some((step.unwrap_or(Step::Do(Action::Drop)), rest.get(length..).unwrap_or_default()))
    }

    #[inline(always)]
    fn read(&self, first: u32, rest: &[u32]) -> Option<Step> {
        let (number, at) = (first >> 16, (first >> 16) as usize);
        let test = match first & 15 {
            kind::EQUAL => Test::Equal(number),
            kind::EQUAL_WORD => Test::Equal(*rest.first()?),
            kind::RANGE => {
                let bounds = *rest.first()?;
                Test::Range(bounds & 0xffff, bounds >> 16)
            }
            kind::RANGE_WORDS => Test::Range(*rest.first()?, *rest.get(1)?),
            kind::PREFIX => {
                let first = *rest.first()?;
                Test::Range(first, first | u32::MAX.checked_shr(number).unwrap_or(0))
            }
            kind::MASKED => Test::Masked { mask: *rest.first()?, value: *rest.get(1)? },
            kind::IN => Test::In(self.sets.get(at)?),
            kind::LOOKUP => return Some(Step::Lookup(*self.lookups.get(at)?)),
            kind::COUNT => return Some(Step::Count(CounterId(number as u16))),
            kind::ACT => return Some(Step::Act(*self.effects.get(at)?)),
            kind::DO => return Some(Step::Do(*self.actions.get(at)?)),
            _ => return None,
        };
        let field = *Field::ALL.get((first >> 8 & 0xff) as usize)?;
        Some(Step::Match(Match { field, test, negated: first & 16 != 0 }))
    }
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

    fn read(words: &[u32], code: &Code) -> Vec<Step> {
        let mut words: &'static [u32] = Vec::from(words).leak();
        let mut steps = Vec::new();
        while let Some((step, rest)) = code.step(words) {
            steps.push(step);
            words = rest;
        }
        steps
    }

    #[test]
    fn what_is_written_is_read_again() {
        static SET: [(u32, u32); 1] = [(1, 2)];
        static SETS: [&[(u32, u32)]; 1] = [&SET];
        let code = Code {
            sets: &SETS,
            effects: &[],
            lookups: &[],
            actions: &[Action::Accept, Action::Jump(7)],
            words: &[],
        };
        let ranges =
            [(5, 5), (70_000, 70_000), (0, 65_535), (3, 70_000), (0x0a00_0000, 0x0aff_ffff), (0, u32::MAX)];
        let mut words = Vec::new();
        let mut expected = Vec::new();
        for (at, (first, last)) in ranges.into_iter().enumerate() {
            let (field, negated) = (Field::ALL[at * 4], at % 2 == 0);
            let (three, length) = comparison(field, Word::Range(first, last), negated);
            words.extend_from_slice(&three[..length]);
            let test = if first == last { Test::Equal(first) } else { Test::Range(first, last) };
            expected.push(Step::Match(Match { field, test, negated }));
        }
        for (word, test) in [
            (Word::Masked { mask: 6, value: 2 }, Test::Masked { mask: 6, value: 2 }),
            (Word::In(0), Test::In(&SET)),
        ] {
            let (three, length) = comparison(Field::TcpFlags, word, false);
            words.extend_from_slice(&three[..length]);
            expected.push(Step::Match(Match { field: Field::TcpFlags, test, negated: false }));
        }
        words.extend([reference(Reference::Count(CounterId(9))), reference(Reference::Do(1))]);
        expected.extend([Step::Count(CounterId(9)), Step::Do(Action::Jump(7))]);
        assert_eq!(read(&words, &code), expected);
    }

    #[test]
    fn words_that_are_no_step_end_the_packet() {
        for words in [
            &[15][..],
            &[kind::EQUAL_WORD],
            &[kind::DO],
            &[kind::IN | 9 << 16],
            &[0xff << 8],
            &[kind::MASKED, 1],
        ] {
            assert_eq!(read(words, &Code::EMPTY)[0], Step::Do(Action::Drop), "{words:?}");
        }
    }

    #[test]
    fn fields_are_numbered_as_they_are_listed() {
        for (at, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, at);
        }
    }
}
