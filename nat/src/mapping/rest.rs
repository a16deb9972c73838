//! Mappings that rest: no session uses them, and their ports are kept for a while.

use core::ops::RangeInclusive;

use super::{AWAKE, Mapping, Mappings};
use crate::session::NONE;

/// How many resting mappings are looked at for a port of a small range.
const LOOK: usize = 64;

impl Mappings {
    /// A mapping that rests.
    pub(crate) fn at_rest(&self, id: u32) -> Option<&Mapping> {
        let place = self.places.get(id as usize).filter(|place| place.list != AWAKE);
        place.map(|place| &place.mapping)
    }

    /// Lays an idle mapping to rest until a second comes.
    pub(crate) fn rest(&mut self, id: u32, kind: usize, until: u32) {
        let Some(list) = self.resting.get_mut(kind) else {
            return;
        };
        let previous = core::mem::replace(&mut list.newest, id);
        match self.places.get_mut(previous as usize) {
            Some(place) => place.next = id,
            None => list.oldest = id,
        }
        if let Some(place) = self.places.get_mut(id as usize) {
            (place.own_or_previous, place.next) = (previous, NONE);
            (place.list, place.sessions_or_rested) = (kind as u16, until);
        }
        self.live -= 1;
    }

    /// Takes a mapping out of its list, if it rests.
    pub(super) fn wake(&mut self, id: u32) {
        let Some(place) = self.places.get_mut(id as usize).filter(|place| place.list != AWAKE) else {
            return;
        };
        let kind = usize::from(core::mem::replace(&mut place.list, AWAKE));
        let (previous, next) = (place.own_or_previous, place.next);
        (place.sessions_or_rested, place.own_or_previous) = (0, 0);
        let Some(list) = self.resting.get_mut(kind) else {
            return;
        };
        match self.places.get_mut(previous as usize) {
            Some(place) => place.next = next,
            None => list.oldest = next,
        }
        match self.places.get_mut(next as usize) {
            Some(place) => place.own_or_previous = previous,
            None => list.newest = previous,
        }
        self.live += 1;
    }

    /// The mapping of a kind that rests longest.
    pub(crate) fn oldest(&self, kind: usize) -> Option<u32> {
        let oldest = self.resting.get(kind)?.oldest;
        (oldest != NONE).then_some(oldest)
    }

    /// The one whose port lies in a range among the first few that rest longest.
    pub(crate) fn oldest_within(&self, kind: usize, range: &RangeInclusive<u16>) -> Option<u32> {
        let mut id = self.oldest(kind)?;
        for _ in 0..LOOK {
            let place = self.places.get(id as usize)?;
            if range.contains(&place.mapping.external.port) {
                return Some(id);
            }
            id = place.next;
        }
        None
    }

    /// The mapping of any kind that rests longest; kinds are few.
    pub(crate) fn oldest_of_all(&self, now: u32) -> Option<u32> {
        let oldest = (0..self.resting.len()).filter_map(|kind| self.oldest(kind));
        oldest.min_by_key(|&id| {
            let rested = self.places.get(id as usize).map_or(0, |place| place.sessions_or_rested);
            rested.wrapping_sub(now) as i32
        })
    }

    /// The mapping of a kind whose rest is over.
    pub(crate) fn rested(&self, kind: usize, now: u32) -> Option<u32> {
        let id = self.oldest(kind)?;
        let place = self.places.get(id as usize)?;
        (now.wrapping_sub(place.sessions_or_rested) as i32 >= 0).then_some(id)
    }
}
