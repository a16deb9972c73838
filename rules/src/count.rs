//! `ct count`: how many connections have come to a statement, or to an element of its set, and are still there.
//!
//! A connection is counted once wherever its packets come, until it ends. One that is only about to be is counted on
//! trial: whoever forwards packets says whether it came to be.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::candidate::Direction;
use crate::dynamic::Set;
use crate::memory::Numbers;
use crate::object::{Count, CountId, DynamicSet};
use crate::policy::Policy;

/// The most statements that may count a connection which is about to be.
const TRIALS: usize = 16;

/// The counts of a policy.
#[derive(Debug)]
pub struct Counts {
    tables: Box<[Table]>,
    /// Those that count a connection which is about to be, with the slot of each.
    trials: heapless::Vec<(u16, u32), TRIALS>,
}

/// The connections of one statement, or of the elements of its set.
#[derive(Debug)]
struct Table {
    of: Count,
    /// The slot of each key.
    places: Set,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot that each connection is counted in, plus one, by the direction of the packets that came there.
    members: Box<[[u32; 2]]>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Numbers,
    count: u32,
}

impl Table {
    /// The set of the slots' keys.
    fn elements(of: &Count) -> DynamicSet {
        DynamicSet { size: of.size.max(1), width: of.width, timeout: 0, limit: None, elements: &[] }
    }

    /// Octets that [`Table::new`] allocates.
    fn footprint(of: &Count, connections: u32) -> usize {
        let elements = Self::elements(of);
        Set::footprint(&elements)
            + elements.size as usize * (size_of::<Slot>() + size_of::<u32>())
            + connections as usize * size_of::<[u32; 2]>()
    }

    fn new(of: &Count, connections: u32, seed: u64) -> Self {
        let elements = Self::elements(of);
        let size = elements.size;
        Self {
            of: *of,
            places: Set::new(&elements, seed, 0),
            slots: Vec::with_capacity(size as usize),
            free: Vec::with_capacity(size as usize),
            members: vec![[0; 2]; connections as usize].into_boxed_slice(),
        }
    }

    /// The slot of a key; none when there is no room for another.
    fn slot(&mut self, key: &Numbers) -> Option<u32> {
        if let Some(found) = self.places.find(key, 0) {
            return u32::try_from(found.bucket.tokens).ok();
        }
        let found = self.places.put(key, 0, false, 0)?;
        let new = Slot { key: *key, count: 0 };
        let at = match self.free.pop() {
            Some(at) => at,
            None => u32::try_from(self.slots.len()).ok()?,
        };
        found.bucket.tokens = at.into();
        match self.slots.get_mut(at as usize) {
            Some(slot) => *slot = new,
            None => self.slots.push(new),
        }
        Some(at)
    }

    fn add(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.count = slot.count.saturating_add(1);
        }
    }

    /// One less; an element without connections goes.
    fn take(&mut self, at: u32) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        slot.count = slot.count.saturating_sub(1);
        if slot.count == 0 && self.places.remove(&slot.key, 0) {
            self.free.push(at);
        }
    }

    /// Counts a connection in a slot, and in no other by packets of this direction.
    fn enlist(&mut self, connection: u32, direction: Direction, slot: u32) {
        let Some(member) = self.members.get_mut(connection as usize) else { return };
        let before = core::mem::replace(&mut member[direction as usize], slot + 1);
        if before == slot + 1 {
            return;
        }
        self.add(slot);
        if let Some(before) = before.checked_sub(1) {
            self.take(before);
        }
    }

    fn release(&mut self, connection: u32) {
        let Some(member) = self.members.get_mut(connection as usize) else { return };
        for before in core::mem::take(member) {
            if let Some(slot) = before.checked_sub(1) {
                self.take(slot);
            }
        }
    }
}

impl Counts {
    /// Octets that [`Counts::new`] allocates.
    #[must_use]
    pub fn footprint(policy: &Policy, connections: u32) -> usize {
        policy.counts.len() * size_of::<Table>()
            + policy.counts.iter().map(|of| Table::footprint(of, connections)).sum::<usize>()
    }

    /// Nothing was counted yet. There are at most so many connections; `seed` keys the hashing.
    #[must_use]
    pub fn new(policy: &Policy, connections: u32, seed: u64) -> Self {
        let tables = policy.counts.iter().map(|of| Table::new(of, connections, seed)).collect();
        Self { tables, trials: heapless::Vec::new() }
    }

    /// Whether there is anything to count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a packet goes on behind `ct count`: its connection, or the one that it may open (`None`), is counted,
    /// and those counted are more than the limit, or not. The key is that of its element. A connection with a number
    /// beyond all is not counted.
    pub fn holds(
        &mut self,
        id: CountId,
        key: &Numbers,
        connection: Option<u32>,
        direction: Direction,
    ) -> bool {
        let Some(table) = self.tables.get_mut(usize::from(id.0)) else { return false };
        let Some(slot) = table.slot(key) else { return false };
        match connection {
            Some(connection) => table.enlist(connection, direction, slot),
            None if self.trials.contains(&(id.0, slot)) => {}
            None => {
                table.add(slot);
                if self.trials.push((id.0, slot)).is_err() {
                    table.take(slot);
                    return false;
                }
            }
        }
        let count = table.slots.get(slot as usize).map_or(0, |slot| slot.count);
        if count == 0 {
            // A connection that is over is not counted again.
            table.take(slot);
        }
        (count > table.of.limit) == table.of.is_over
    }

    /// What was counted on trial has come to be this connection.
    pub fn begin(&mut self, connection: u32) {
        self.end(connection);
        for &(id, slot) in &self.trials {
            if let Some(table) = self.tables.get_mut(usize::from(id)) {
                table.enlist(connection, Direction::Original, slot);
                table.take(slot);
            }
        }
        self.trials.clear();
    }

    /// What was counted on trial has come to nothing.
    pub fn give_up(&mut self) {
        while let Some((id, slot)) = self.trials.pop() {
            if let Some(table) = self.tables.get_mut(usize::from(id)) {
                table.take(slot);
            }
        }
    }

    /// A connection has ended.
    pub fn end(&mut self, connection: u32) {
        for table in &mut self.tables {
            table.release(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const OVER: Count = Count { limit: 2, is_over: true, size: 2, width: 1 };

    fn counts(of: Count) -> Counts {
        let counts = Vec::from([of]).leak();
        Counts::new(&Policy { counts, ..Policy::EMPTY }, 10, 7)
    }

    fn key(number: u32) -> Numbers {
        [number, 0, 0, 0, 0]
    }

    fn asks(counts: &mut Counts, host: u32, connection: Option<u32>) -> bool {
        counts.holds(CountId(0), &key(host), connection, Direction::Original)
    }

    #[test]
    fn a_connection_counts_once_until_it_ends() {
        let mut counts = counts(OVER);
        for connection in 0..2 {
            assert!(!asks(&mut counts, 1, None));
            counts.begin(connection);
            assert!(!asks(&mut counts, 1, Some(connection)));
        }
        assert!(asks(&mut counts, 1, None), "a third one is too much");
        counts.give_up();
        assert!(!asks(&mut counts, 2, None), "of another host it is the first");
        counts.give_up();
        counts.end(0);
        assert!(!asks(&mut counts, 1, None), "one has ended");
        counts.begin(5);
        assert!(asks(&mut counts, 1, Some(7)), "a packet of one that was not counted yet");
        counts.end(7);
        assert!(!asks(&mut counts, 1, Some(5)));
    }

    #[test]
    fn a_connection_that_takes_the_place_of_another_is_not_that_one() {
        let mut counts = counts(Count { is_over: false, ..OVER });
        for _ in 0..20 {
            assert!(asks(&mut counts, 1, None));
            counts.begin(3);
        }
    }

    #[test]
    fn elements_without_connections_make_room_for_others() {
        let mut counts = counts(OVER);
        for host in 0..50 {
            assert!(!asks(&mut counts, host, None));
            counts.give_up();
        }
        for host in 0..2 {
            assert!(!asks(&mut counts, host, Some(host)));
        }
        assert!(!asks(&mut counts, 9, Some(9)), "the set is full: the rule ends");
        counts.end(0);
        assert!(!asks(&mut counts, 9, Some(9)));
        assert_eq!(counts.tables[0].places.len(), 2);
    }
}
