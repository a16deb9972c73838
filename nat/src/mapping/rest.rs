//! Mappings that rest: no session uses them, and their ports are kept for a while.

use core::ops::RangeInclusive;

use super::{Mappings, RESTS};
use crate::session::{NONE, Session, Slab};

/// How many resting mappings are looked at for a port of a small range.
const LOOK: usize = 64;

impl Mappings {
    /// Lays an idle mapping to rest until a second comes.
    pub(crate) fn rest(&mut self, sessions: &mut Slab, id: u32, kind: usize, until: u32) {
        let Some(list) = self.resting.get_mut(kind) else {
            return;
        };
        let previous = core::mem::replace(&mut list.newest, id);
        match sessions.get_mut(previous) {
            Some(place) => place.next = id,
            None => list.oldest = id,
        }
        if let Some(place) = sessions.get_mut(id) {
            (place.previous, place.next) = (previous, NONE);
            (place.mapping, place.expires) = (RESTS | kind as u32, until);
        }
        self.live -= 1;
        self.at_rest += 1;
    }

    /// A mapping rests no longer: it is idle, as it was when it was laid to rest. Returns the kind
    /// of its port; nothing if it does not rest.
    pub(crate) fn wake(&mut self, sessions: &mut Slab, id: u32) -> Option<usize> {
        let place = sessions.get_mut(id).filter(|place| place.is_resting())?;
        let kind = (core::mem::replace(&mut place.mapping, 0) & !RESTS) as usize;
        let previous = core::mem::replace(&mut place.previous, NONE);
        let next = core::mem::replace(&mut place.next, NONE);
        let list = self.resting.get_mut(kind)?;
        match sessions.get_mut(previous) {
            Some(place) => place.next = next,
            None => list.oldest = next,
        }
        match sessions.get_mut(next) {
            Some(place) => place.previous = previous,
            None => list.newest = previous,
        }
        self.live += 1;
        self.at_rest -= 1;
        Some(kind)
    }

    /// The mapping of a kind that rests longest.
    #[inline]
    pub(crate) fn oldest(&self, kind: usize) -> Option<u32> {
        let oldest = self.resting.get(kind)?.oldest;
        (oldest != NONE).then_some(oldest)
    }

    /// The one whose port lies in a range among the first few that rest longest.
    pub(crate) fn oldest_within(
        &self,
        sessions: &Slab,
        kind: usize,
        range: &RangeInclusive<u16>,
    ) -> Option<u32> {
        let mut id = self.oldest(kind)?;
        for _ in 0..LOOK {
            let place = Some(sessions.get(id)).filter(|place| place.is_resting())?;
            if range.contains(&place.external().port) {
                return Some(id);
            }
            id = place.next;
        }
        None
    }

    /// The mapping of any kind that rests longest; kinds are few.
    pub(crate) fn oldest_of_all(&self, sessions: &Slab, now: u32) -> Option<u32> {
        let oldest = (0..self.resting.len()).filter_map(|kind| self.oldest(kind));
        oldest.min_by_key(|&id| sessions.get(id).expires.wrapping_sub(now) as i32)
    }

    /// The mapping of a kind whose rest is over.
    #[inline]
    pub(crate) fn rested(&self, sessions: &Slab, kind: usize, now: u32) -> Option<u32> {
        let id = self.oldest(kind)?;
        let rested = |place: &Session| now.wrapping_sub(place.expires) as i32 >= 0;
        rested(sessions.get(id)).then_some(id)
    }
}
