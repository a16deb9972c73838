//! The places that sessions live in.

use alloc::vec::Vec;

use super::{LIVE, NONE, Session, SessionId};

/// What a place without a session holds.
static VACANT: Session = Session::VACANT;

/// A place that there is not: nobody asks for one.
#[cold]
fn vacant() -> &'static Session {
    &VACANT
}

/// All places for sessions; the free ones are a list.
pub(crate) struct Slab {
    places: Vec<Session>,
    free: u32,
    taken: u32,
    live: u32,
}

impl Slab {
    /// Octets that [`Slab::new`] allocates.
    pub(crate) const fn footprint(capacity: u32) -> usize {
        capacity as usize * size_of::<Session>()
    }

    pub(crate) fn new(capacity: u32) -> Self {
        let mut places = Vec::new();
        places.resize(capacity as usize, Session::VACANT);
        for (place, next) in places.iter_mut().zip(1..) {
            place.next = if next < capacity { next } else { NONE };
        }
        let free = if capacity > 0 { 0 } else { NONE };
        Self { places, free, taken: 0, live: 0 }
    }

    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    /// Places that are kept though no session lives in them.
    pub(crate) const fn vacated(&self) -> u32 {
        self.taken - self.live
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.places.len() as u32
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.free == NONE
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Session {
        match self.places.get(id as usize) {
            Some(session) => session,
            None => vacant(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Session> {
        self.places.get_mut(id as usize)
    }

    /// A free place, which is free no longer.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u32> {
        let id = self.free;
        self.free = self.places.get(id as usize)?.next;
        self.taken += 1;
        Some(id)
    }

    /// A session begins in a place that was taken.
    #[inline]
    pub(crate) fn begin(&mut self, id: u32, session: Session) {
        if let Some(place) = self.places.get_mut(id as usize) {
            *place = session;
            place.flags |= LIVE;
            self.live += 1;
        }
    }

    /// A session ends; its place stays taken.
    #[inline]
    pub(crate) fn end(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id as usize).filter(|place| place.is_live()) {
            place.flags &= !LIVE;
            self.live -= 1;
        }
    }

    /// A place is free again; nothing may refer to it any more.
    #[inline]
    pub(crate) fn free(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id as usize) {
            *place = Session { next: self.free, ..Session::VACANT };
            self.free = id;
            self.taken -= 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        let numbered = (0..).map(SessionId).zip(&self.places);
        numbered.filter(|(_, session)| session.is_live())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_never_more_than_there_are() {
        let mut slab = Slab::new(3);
        let ids: Vec<_> = core::iter::from_fn(|| slab.take()).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert!(slab.is_full());
        ids.iter().for_each(|&id| slab.begin(id, Session::VACANT));
        assert_eq!(slab.live(), 3);
        slab.end(1);
        slab.end(1);
        assert_eq!((slab.live(), slab.take()), (2, None));
        slab.free(1);
        assert_eq!(slab.take(), Some(1));
        assert!(Slab::new(0).is_full());
    }
}
