//! The ports of one protocol at one address, and which of the free ones a flow gets.

use core::ops::RangeInclusive;

use super::tree::Tree;
use crate::keyed::Chance;

/// The number of a port in the tree: ports of one parity stand together, so that every class of
/// a parity is one run.
pub(super) const fn number(port: u16) -> u16 {
    port.rotate_right(1)
}

pub(super) const fn port(number: u16) -> u16 {
    number.rotate_left(1)
}

/// The first and the last number of the ports of this parity within a range; none if there are
/// none.
#[inline]
fn run(range: &RangeInclusive<u16>, parity: u16) -> Option<(u16, u16)> {
    let low = range.start().checked_add((range.start() ^ parity) & 1)?;
    let high = range.end().checked_sub((range.end() ^ parity) & 1)?;
    (low <= high).then(|| (number(low), number(high)))
}

/// A port that was free, and how many words were read to find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allocation {
    pub(crate) port: u16,
    pub(crate) read: u32,
}

/// The ports of one protocol at one address.
pub(super) struct Pool {
    pub(super) tree: Tree,
}

impl Pool {
    /// The preferred port if it is free, else the next free one of its parity from a random start,
    /// else one of the other parity.
    #[inline]
    pub(super) fn allocate(
        &mut self,
        class: &RangeInclusive<u16>,
        preferred: u16,
        chance: &mut Chance,
    ) -> Option<Allocation> {
        if class.contains(&preferred) && self.tree.take(number(preferred)) {
            return Some(Allocation { port: preferred, read: 1 });
        }
        let mut read = 1;
        let (low, high) = run(class, preferred).unwrap_or((1, 0));
        let start = low.wrapping_add(chance.below(u32::from(high.wrapping_sub(low).wrapping_add(1))) as u16);
        let found = match self.tree.next(start, &mut read) {
            Some(found) if found <= high => found,
            _ => self.search_on(class, preferred, (low, start), chance, &mut read)?,
        };
        self.tree.clear(found);
        Some(Allocation { port: port(found), read })
    }

    /// How many ports of a range are free.
    pub(super) fn free_in(&self, range: &RangeInclusive<u16>) -> u32 {
        let runs = [0, 1].map(|parity| run(range, parity));
        runs.into_iter().flatten().map(|(first, last)| self.tree.count(first, last)).sum()
    }

    /// The run of a parity had nothing from a random start on: what is before it, then the other
    /// parity's run, once around.
    #[cold]
    fn search_on(
        &self,
        class: &RangeInclusive<u16>,
        preferred: u16,
        (low, start): (u16, u16),
        chance: &mut Chance,
        read: &mut u32,
    ) -> Option<u16> {
        let before = self.tree.next(low, read).filter(|&found| found < start);
        before.or_else(|| {
            let (low, high) = run(class, preferred ^ 1)?;
            let start = low + chance.below(u32::from(high - low) + 1) as u16;
            let found = self.tree.next(start, read).filter(|&found| found <= high);
            found.or_else(|| self.tree.next(low, read).filter(|&found| found < start))
        })
    }
}
