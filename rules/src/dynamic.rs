//! Dynamic sets: elements that packets put there, each with its time and its bucket.
//!
//! The elements are in no order; a table of places with linear probing finds them. Both are allocated once.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::memory::{Bucket, Numbers};
use crate::object::{DynamicSet, Limit};

/// A place without an element: the end of a run of places.
const FREE: u32 = u32::MAX;

/// Elements that are looked at for their end whenever one is put into a set.
const SWEPT: usize = 2;

/// The same when the set is full.
const SWEPT_WHEN_FULL: usize = 64;

/// The nanoseconds of a millisecond.
const MILLISECOND: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Element {
    key: Numbers,
    /// When it ends, in nanoseconds; `u64::MAX` for never.
    ends: u64,
    bucket: Bucket,
}

#[derive(Debug)]
pub(crate) struct Set {
    /// In milliseconds; 0 for ever.
    timeout: u64,
    limit: Option<Limit>,
    /// At most as many as it has room for.
    elements: Vec<Element>,
    /// Indices of elements by hash; a power of two, at least twice the elements.
    places: Box<[u32]>,
    seed: u64,
    /// The next element that is looked at for its end.
    hand: usize,
}

/// An element that is there.
pub(crate) struct Found<'a> {
    pub bucket: &'a mut Bucket,
    pub limit: Option<Limit>,
}

impl Set {
    /// Octets that [`Set::new`] allocates.
    pub fn footprint(of: &DynamicSet) -> usize {
        let size = of.size.max(1) as usize;
        size * size_of::<Element>() + (2 * size).next_power_of_two() * size_of::<u32>()
    }

    pub fn new(of: &DynamicSet, seed: u64, now: u64) -> Self {
        let size = of.size.max(1) as usize;
        let mut set = Self {
            timeout: of.timeout,
            limit: of.limit,
            elements: Vec::with_capacity(size),
            places: vec![FREE; (2 * size).next_power_of_two()].into_boxed_slice(),
            seed,
            hand: 0,
        };
        for key in of.elements {
            set.put(key, 0, false, now);
        }
        set
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// The element of this key, if its time is not over.
    pub fn find(&mut self, key: &Numbers, now: u64) -> Option<Found<'_>> {
        let at = self.index(key)?;
        let limit = self.limit;
        let element = self.elements.get_mut(at).filter(|element| now < element.ends)?;
        Some(Found { bucket: &mut element.bucket, limit })
    }

    /// The element of this key, put there if it is not; none when there is no room for it.
    pub fn put(&mut self, key: &Numbers, timeout: u64, refreshes: bool, now: u64) -> Option<Found<'_>> {
        let timeout = if timeout == 0 { self.timeout } else { timeout };
        let ends =
            if timeout == 0 { u64::MAX } else { now.saturating_add(timeout.saturating_mul(MILLISECOND)) };
        let limit = self.limit;
        let at = match self.index(key) {
            Some(at) if self.elements.get(at).is_some_and(|element| now < element.ends) => at,
            over => {
                if let Some(at) = over {
                    self.take(at);
                }
                self.sweep(SWEPT, now);
                if self.elements.len() == self.elements.capacity() {
                    self.sweep(SWEPT_WHEN_FULL, now);
                }
                let bucket = limit.map(|limit| Bucket::full(&limit, now)).unwrap_or_default();
                self.append(Element { key: *key, ends, bucket })?
            }
        };
        let element = self.elements.get_mut(at)?;
        if refreshes && element.ends != u64::MAX {
            element.ends = ends;
        }
        Some(Found { bucket: &mut element.bucket, limit })
    }

    /// Takes an element away; whether it was there.
    pub fn remove(&mut self, key: &Numbers, now: u64) -> bool {
        let Some(at) = self.index(key) else { return false };
        let was_there = self.elements.get(at).is_some_and(|element| now < element.ends);
        self.take(at);
        was_there
    }

    /// Looks at the next elements, and takes away those whose time is over.
    fn sweep(&mut self, count: usize, now: u64) {
        for _ in 0..count.min(self.elements.len()) {
            if self.hand >= self.elements.len() {
                self.hand = 0;
            }
            match self.elements.get(self.hand) {
                Some(element) if element.ends <= now => self.take(self.hand),
                _ => self.hand += 1,
            }
        }
    }

    fn append(&mut self, element: Element) -> Option<usize> {
        let at = self.elements.len();
        if at == self.elements.capacity() {
            return None;
        }
        let mut place = self.home(&element.key);
        while self.places.get(place).is_some_and(|&held| held != FREE) {
            place = self.after(place);
        }
        *self.places.get_mut(place)? = u32::try_from(at).ok()?;
        self.elements.push(element);
        Some(at)
    }

    /// Takes the element at this index away; the last one comes in its place.
    fn take(&mut self, at: usize) {
        let last = self.elements.len().saturating_sub(1);
        let (Some(place), Some(of_last)) = (self.place(at), self.place(last)) else { return };
        if let Some(held) = self.places.get_mut(of_last) {
            *held = at as u32;
        }
        self.elements.swap_remove(at);
        self.close(place);
    }

    /// Empties a place; those of its run move up.
    fn close(&mut self, place: usize) {
        let mut hole = place;
        let mut next = self.after(hole);
        while let Some(&held) = self.places.get(next).filter(|&&held| held != FREE) {
            let home = self.elements.get(held as usize).map_or(next, |element| self.home(&element.key));
            let mask = self.places.len() - 1;
            // It may move if its home is not behind the hole.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.places[hole] = held;
                hole = next;
            }
            next = self.after(next);
        }
        self.places[hole] = FREE;
    }

    /// The place of the element at this index.
    fn place(&self, at: usize) -> Option<usize> {
        let mut place = self.home(&self.elements.get(at)?.key);
        loop {
            match *self.places.get(place)? {
                FREE => return None,
                held if held as usize == at => return Some(place),
                _ => place = self.after(place),
            }
        }
    }

    fn index(&self, key: &Numbers) -> Option<usize> {
        let mut place = self.home(key);
        loop {
            let held = *self.places.get(place)?;
            if held == FREE {
                return None;
            }
            if self.elements.get(held as usize).is_some_and(|element| element.key == *key) {
                return Some(held as usize);
            }
            place = self.after(place);
        }
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// Where the search for a key begins: a keyed hash, so that nobody outside knows what collides.
    fn home(&self, key: &Numbers) -> usize {
        let mix = |hash: u64, number: u64| {
            let product = u128::from(hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            (product as u64) ^ (product >> 64) as u64
        };
        let hash = key.iter().fold(self.seed, |hash, &number| mix(hash, number.into()));
        (mix(hash, self.seed.rotate_left(32)) as usize) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn set(size: u32, timeout: u64) -> Set {
        let of = DynamicSet { size, width: 1, timeout, limit: None, elements: &[[7, 0, 0, 0, 0]] };
        Set::new(&of, 0x1234_5678_9abc_def0, 0)
    }

    fn key(number: u32) -> Numbers {
        [number, 0, 0, 0, 0]
    }

    #[test]
    fn an_element_takes_what_the_compiler_counts_for_it() {
        assert_eq!(size_of::<Element>(), 48);
    }

    #[test]
    fn an_element_ends_with_its_time_and_update_begins_it_anew() {
        let mut set = set(10, 2000);
        assert!(set.put(&key(1), 0, false, 0).is_some());
        assert!(set.put(&key(2), 5000, false, 0).is_some());
        assert!(set.put(&key(1), 0, false, SECOND).is_some());
        assert!(set.find(&key(1), 2 * SECOND - 1).is_some() && set.find(&key(1), 2 * SECOND).is_none());
        assert!(set.find(&key(2), 5 * SECOND - 1).is_some() && set.find(&key(7), 2 * SECOND).is_none());
        assert!(set.put(&key(2), 5000, true, 4 * SECOND).is_some());
        assert!(set.find(&key(2), 9 * SECOND - 1).is_some());
        assert!(set.remove(&key(2), 4 * SECOND) && !set.remove(&key(2), 4 * SECOND));
    }

    #[test]
    fn a_full_set_takes_nothing_more_until_a_time_is_over() {
        let mut set = set(3, 1000);
        assert!(set.put(&key(1), 0, false, 1).is_some() && set.put(&key(2), 0, false, 2).is_some());
        assert!(set.put(&key(3), 0, false, 3).is_none());
        assert!(set.put(&key(3), 0, false, SECOND).is_some());
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn it_holds_what_a_map_holds() {
        let mut set = set(100, 0);
        let mut map = BTreeMap::from([(7, ())]);
        let mut chance = 1u32;
        for _ in 0..20_000 {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (chance >> 16) % 150;
            match chance >> 30 {
                0 => assert_eq!(set.remove(&key(number), 0), map.remove(&number).is_some()),
                1 => assert_eq!(set.find(&key(number), 0).is_some(), map.contains_key(&number)),
                _ => {
                    let has_room = map.len() < 100 || map.contains_key(&number);
                    assert_eq!(set.put(&key(number), 0, true, 0).is_some(), has_room);
                    if has_room {
                        map.insert(number, ());
                    }
                }
            }
            assert_eq!(set.len(), map.len());
        }
        assert!((0..150).all(|number| set.find(&key(number), 0).is_some() == map.contains_key(&number)));
    }
}
