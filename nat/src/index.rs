//! Where things are found: a table of fixed size, of 4-octet entries.
//!
//! Open addressing by Robin Hood hashing: the entries of one home stand together, homes in order,
//! and an entry knows its distance from home. A search compares only what has the same home and the
//! same tag, and ends at the first entry that is nearer to its own. Removal shifts back; nothing is
//! ever left behind, so a table that was full for years is as quick as a new one.
//!
//! ```text
//!   distance from home + 1 | tag, of the hash | item
//!           8 bits                24 - n          n, as many as the items need
//! ```
//!
//! The keys are the owner's: it hashes them, and compares the items that it is shown.

use alloc::boxed::Box;
use alloc::vec;
use core::hint::select_unpredictable;

/// An entry's low bits: item and tag.
const KEY_BITS: u32 = 24;
const KEY: u32 = (1 << KEY_BITS) - 1;
/// The largest number of items that an index can hold.
pub(crate) const ITEMS_MAX: u32 = 1 << KEY_BITS;
/// An entry's high bits: distance from home plus one; 0 is an empty place.
const DISTANCE_MAX: u32 = 255;
/// Places from a home on where nearly all of its items are.
const NEAR: usize = 4;
/// How far an insertion may shift: at two thirds full, runs of this length do not happen.
const RUN_MAX: usize = 1024;

/// The table of positions.
pub(crate) struct Index {
    /// Homes, and behind them room for what the last homes displace: nothing wraps around.
    places: Box<[u32]>,
    homes: u32,
    /// The bits of a key that are the item, and the others, the tag.
    item: u32,
    tag: u32,
    /// How often it has changed.
    changes: u64,
}

/// A search that ended, with the steps that it took.
pub(crate) struct Found {
    pub(crate) item: Option<u32>,
    place: usize,
    pub(crate) steps: u32,
}

/// Where an item that was searched for in vain would stand, as long as nothing changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    hash: u32,
    place: u32,
    changes: u64,
}

impl Spot {
    /// The one of a key with this hash that was not searched for yet.
    pub(crate) const fn of(hash: u32) -> Self {
        Self { hash, place: 0, changes: u64::MAX }
    }

    /// The hash of the key.
    pub(crate) const fn hash(&self) -> u32 {
        self.hash
    }
}

const fn distance(entry: u32) -> u32 {
    entry >> KEY_BITS
}

/// How many of the first places from a home on have entries that are no nearer to theirs; there are
/// none behind one that is.
#[inline]
fn further(near: [u32; NEAR]) -> usize {
    near.into_iter().zip(1..).filter(|&(entry, steps)| entry >= steps << KEY_BITS).count()
}

const ONE_FURTHER: u32 = 1 << KEY_BITS;
/// No entry below can be moved on.
const FURTHEST: u32 = DISTANCE_MAX << KEY_BITS;

impl Index {
    /// An index for this many items, two thirds full when it holds them all.
    pub(crate) fn new(items: u32) -> Self {
        let homes = Self::homes(items);
        let places = vec![0; Self::places(homes)].into_boxed_slice();
        let item = items.next_power_of_two() - 1;
        Self { places, homes, item, tag: KEY & !item, changes: 0 }
    }

    const fn homes(items: u32) -> u32 {
        items + items / 2 + 1
    }

    const fn places(homes: u32) -> usize {
        homes as usize + DISTANCE_MAX as usize
    }

    /// Octets that [`Index::new`] allocates.
    pub(crate) const fn footprint(items: u32) -> usize {
        Self::places(Self::homes(items)) * size_of::<u32>()
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * u64::from(self.homes)) >> 32) as usize
    }

    /// What entries with this hash have between distance and item. The home is of the hash's upper
    /// bits, so the tag is of its lower ones.
    #[inline]
    const fn tag(&self, hash: u32) -> u32 {
        hash.rotate_left(16) & self.tag
    }

    /// The item of an entry, if it is so far from its home and has this tag.
    #[inline]
    const fn item(&self, entry: u32, steps: u32, tag: u32) -> Option<u32> {
        let item = entry.wrapping_sub(steps << KEY_BITS | tag);
        if item <= self.item { Some(item) } else { None }
    }

    /// Finds the item with this hash that `is_it` recognises.
    #[inline]
    pub(crate) fn search(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Found {
        let (home, tag) = (self.home(hash), self.tag(hash));
        let near = self.near(home);
        if near[0] == 0 {
            return Found { item: None, place: home, steps: 1 };
        }
        let further = further(near);
        let mut is_like = false;
        for (entry, steps) in near.into_iter().zip(1..) {
            is_like |= self.item(entry, steps, tag).is_some();
        }
        if !is_like && further < NEAR {
            return Found { item: None, place: home + further, steps: further as u32 + 1 };
        }
        self.search_on(home, tag, is_it)
    }

    /// The first places from one on.
    #[inline]
    fn near(&self, place: usize) -> [u32; NEAR] {
        let near = self.places.get(place..).and_then(|rest| rest.first_chunk());
        near.copied().unwrap_or_default()
    }

    /// The same, place by place.
    #[inline]
    fn search_on(&self, home: usize, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Found {
        let mut found = Found { item: None, place: home, steps: 0 };
        while let Some(&entry) = self.places.get(found.place) {
            found.steps += 1;
            // What has the same home is as far from it.
            found.item = self.item(entry, found.steps, tag).filter(|&item| is_it(item));
            if found.item.is_some() {
                break;
            }
            if distance(entry) < found.steps {
                break;
            }
            found.place += 1;
        }
        found
    }

    /// Finds the item with this hash that `is_it` recognises.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.search(hash, is_it).item
    }

    /// The item with the home and tag of this hash which stands so far from home, if there is one:
    /// the one with this hash, or seldom another.
    #[inline]
    pub(crate) fn away(&self, hash: u32, steps: u32) -> Option<u32> {
        let place = self.places.get(self.home(hash) + steps as usize)?;
        self.item(*place, steps + 1, self.tag(hash))
    }

    /// The item with this hash, if tag and distance of what is near its home tell right. No branch
    /// depends on what is found: the processor need not wait for it.
    #[inline]
    pub(crate) fn guess(&self, hash: u32) -> u32 {
        let (mut guess, tag) = (u32::MAX, self.tag(hash));
        for (steps, entry) in self.near(self.home(hash)).into_iter().enumerate().rev() {
            let item = entry.wrapping_sub((steps as u32 + 1) << KEY_BITS | tag);
            guess = select_unpredictable(item <= self.item, item, guess);
        }
        guess
    }

    /// As [`Index::find`]; where there is no such item, the spot for one.
    #[inline]
    pub(crate) fn find_or_spot(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Result<u32, Spot> {
        let Found { item, place, .. } = self.search(hash, is_it);
        item.ok_or(Spot { hash, place: place as u32, changes: self.changes })
    }

    /// Whether a spot is still good.
    #[inline]
    pub(crate) const fn is_current(&self, spot: &Spot) -> bool {
        spot.changes == self.changes
    }

    /// Takes in an item whose key is not there yet; false, and nothing changed, if there is no room
    /// within reach of its home.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, item: u32) -> bool {
        self.put(hash, self.new_place(hash), item)
    }

    /// The place for an item whose key is not there yet: behind all that have its home or an earlier
    /// one.
    #[inline]
    fn new_place(&self, hash: u32) -> usize {
        let home = self.home(hash);
        match further(self.near(home)) {
            NEAR => self.search_on(home, 0, |_| false).place,
            further => home + further,
        }
    }

    /// As [`Index::insert`], where the key was searched for in vain.
    #[inline]
    pub(crate) fn insert_at(&mut self, spot: Spot, item: u32) -> bool {
        let place = match self.is_current(&spot) {
            true => spot.place as usize,
            false => self.new_place(spot.hash),
        };
        self.put(spot.hash, place, item)
    }

    /// Puts an item with this hash in its place.
    #[inline]
    fn put(&mut self, hash: u32, at: usize, item: u32) -> bool {
        let steps = (at - self.home(hash)) as u32 + 1;
        if steps > DISTANCE_MAX {
            return false;
        }
        let entry = steps << KEY_BITS | self.tag(hash) | item;
        let is_in = match self.places.get_mut(at) {
            Some(place @ 0) => {
                *place = entry;
                true
            }
            _ => self.insert_before_others(at, entry),
        };
        self.changes = self.changes.wrapping_add(u64::from(is_in));
        is_in
    }

    /// Each takes the place of the next one, which is nearer to its home and moves on by one.
    #[inline(never)]
    fn insert_before_others(&mut self, at: usize, mut moving: u32) -> bool {
        let end = self.places.len().min(at + RUN_MAX);
        let run = self.places.get_mut(at..end).unwrap_or_default();
        let mut moved = 0;
        for place in run {
            let entry = core::mem::replace(place, moving);
            if entry == 0 {
                return true;
            }
            (moved, moving) = (moved + 1, entry.wrapping_add(ONE_FURTHER));
            if entry >= FURTHEST {
                break;
            }
        }
        self.move_back(at, moved, moving);
        false
    }

    /// One that moved on found no place: so many from a place on are moved back.
    #[cold]
    fn move_back(&mut self, place: usize, count: usize, mut homeless: u32) {
        let run = self.places.get_mut(place..).unwrap_or_default();
        for place in run.iter_mut().take(count).rev() {
            homeless = core::mem::replace(place, homeless.wrapping_sub(ONE_FURTHER));
        }
    }

    /// Takes an item out, if it is there.
    pub(crate) fn remove(&mut self, hash: u32, item: u32) {
        let home = self.home(hash);
        let (mut steps, mut entry) = (0, self.tag(hash) | item);
        let run = self.places.get_mut(home..).unwrap_or_default();
        loop {
            let place = run.get(steps as usize).copied().unwrap_or(0);
            (steps, entry) = (steps + 1, entry.wrapping_add(ONE_FURTHER));
            if place == entry {
                break;
            }
            if distance(place) < steps {
                return;
            }
        }
        self.changes = self.changes.wrapping_add(1);
        // Those that are away from home come nearer to it by one.
        let mut behind = run.get_mut(steps as usize - 1..).unwrap_or_default();
        while let [hole, next, ..] = behind {
            if *next < 2 * ONE_FURTHER {
                break;
            }
            *hole = *next - ONE_FURTHER;
            behind = behind.get_mut(1..).unwrap_or_default();
        }
        if let Some(hole) = behind.first_mut() {
            *hole = 0;
        }
    }

    /// Octets of memory that it takes.
    #[cfg(test)]
    fn octets(&self) -> usize {
        size_of_val(&*self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::{Chance, Key};
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Items with random keys, and the key of each.
    struct Model {
        key: Key,
        index: Index,
        keys: Vec<u64>,
    }

    impl Model {
        fn hash(&self, key: u64) -> u32 {
            self.key.hash([key, 0])
        }

        fn find(&self, key: u64) -> Found {
            let keys = &self.keys;
            self.index.search(self.hash(key), |item| keys[item as usize] == key)
        }
    }

    /// At full load one item after the other is replaced, ten million times.
    #[test]
    fn replaced_at_full_load_it_takes_the_same_few_steps_and_never_grows() {
        let replacements = 10_000_000;
        let items = 1 << 14;
        let key = Key::new([0xfeed, 0xbeef]);
        let mut model = Model { key, index: Index::new(items), keys: (0..u64::from(items)).collect() };
        let (octets, place) = (model.index.octets(), model.index.places.as_ptr());
        for item in 0..items {
            let hash = model.hash(u64::from(item));
            assert!(model.index.insert(hash, item));
        }
        let (mut most, mut total) = (0, 0u64);
        let mut chance = Chance::new(key);
        for round in 0..replacements {
            let item = chance.below(items);
            let old = model.keys[item as usize];
            let new = u64::from(items) + round;
            let hash = model.hash(old);
            model.index.remove(hash, item);
            assert_eq!(model.find(old).item, None);
            model.keys[item as usize] = new;
            let hash = model.hash(new);
            assert!(model.index.insert(hash, item));
            let search = model.find(new);
            assert_eq!(search.item, Some(item));
            most = most.max(search.steps);
            total += u64::from(search.steps);
        }
        assert!(most <= 256, "{most} steps");
        assert!(total / replacements <= 3, "{total} steps in all");
        assert_eq!(model.index.octets(), octets);
        assert_eq!(model.index.places.as_ptr(), place);
        for item in 0..items {
            assert_eq!(model.find(model.keys[item as usize]).item, Some(item));
        }
    }

    #[test]
    fn at_full_load_a_guess_is_right_for_nearly_all() {
        let (items, key) = (1 << 14, Key::new([3, 4]));
        let mut index = Index::new(items);
        let hash = |item: u32| key.hash([item.into(), 0]);
        for item in 0..items {
            assert!(index.insert(hash(item), item));
        }
        let right = (0..items).filter(|&item| index.guess(hash(item)) == item).count();
        assert!(right > items as usize * 9 / 10, "{right}");
        let wrong = (items..2 * items).filter(|&item| index.guess(hash(item)) < items).count();
        assert!(wrong < items as usize / 100, "{wrong}");
    }

    #[test]
    fn it_agrees_with_a_map_whatever_the_collisions() {
        let mut index = Index::new(64);
        let mut map = BTreeMap::new();
        let mut chance = Chance::new(Key::new([7, 8]));
        for _ in 0..20_000 {
            let item = chance.below(64);
            // Few hashes: most homes are shared.
            let hash = (item % 5) << 29 | (item % 3) << 20;
            match map.remove(&item) {
                Some(hash) => {
                    index.remove(hash, item);
                }
                None => {
                    assert!(index.insert(hash, item));
                    map.insert(item, hash);
                }
            }
            let item = chance.below(64);
            let hash = (item % 5) << 29 | (item % 3) << 20;
            let found = index.find(hash, |other| other == item);
            assert_eq!(found, map.contains_key(&item).then_some(item));
        }
    }

    #[test]
    fn one_home_for_all_is_refused_in_bounded_steps_and_loses_nothing() {
        let mut index = Index::new(1000);
        let kept = (0..1000).take_while(|&item| index.insert(5, item)).count();
        assert_eq!(kept, DISTANCE_MAX as usize);
        for item in 0..kept as u32 {
            assert_eq!(index.find(5, |other| other == item), Some(item));
        }
        for item in 0..kept as u32 {
            index.remove(5, item);
        }
        assert!(index.places.iter().all(|&entry| entry == 0));
    }

    #[test]
    fn the_last_home_has_room_behind_it() {
        let mut index = Index::new(300);
        for item in 0..255 {
            assert!(index.insert(u32::MAX, item));
        }
        assert_eq!(index.find(u32::MAX, |item| item == 254), Some(254));
        assert!(!index.insert(u32::MAX, 255));
        for item in (0..255).rev() {
            index.remove(u32::MAX, item);
        }
        assert!(index.places.iter().all(|&entry| entry == 0));
    }
}
