//! When sessions end: a hashed timing wheel of one slot a second.
//!
//! A session stands in the slot of the second in which it was to end when it was put there. A
//! packet that refreshes it only writes a later second into it; when the slot comes up, the
//! session moves on. So a refresh costs one write, and an end is late by the rest of a second.

use alloc::boxed::Box;
use alloc::vec;
use smoltcp::time::Instant;

use crate::session::{NONE, Slab};

const SLOTS: i64 = 1024;
/// What the first session of a slot's list has in place of a neighbour, with the slot.
const FIRST: u32 = 1 << 31;
/// The longest timeout, in seconds: seconds are compared within half of their range.
pub(crate) const TIMEOUT_MAX: u32 = 1 << 30;

/// Whole seconds of an instant; time begins at 0.
fn seconds(now: Instant) -> i64 {
    (now.total_micros().max(0) as u64 / 1_000_000) as i64
}

/// Seconds that never go back: when the clock that tells them does, they stand still and go on
/// from there.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// What the clock that tells them has gone back by.
    lag: i64,
    /// The present second.
    latest: i64,
}

impl Clock {
    /// An instant is the present one.
    fn advance(&mut self, now: Instant) {
        let second = seconds(now).saturating_add(self.lag);
        if second < self.latest {
            self.lag = self.lag.saturating_add(self.latest - second);
        }
        self.latest = self.latest.max(second);
    }

    /// When a second begins.
    fn instant(&self, second: i64) -> Instant {
        Instant::from_micros((second - self.lag).saturating_mul(1_000_000))
    }
}

/// The wheel. Its lists run through the sessions.
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// Which slots have a list.
    occupied: [u64; SLOTS as usize / 64],
    /// The list taken from the slot that came up.
    pending: u32,
    /// The last second whose slot came up.
    cursor: i64,
    clock: Clock,
    /// Seconds ahead of the present in which sessions may end: half of their range, or none if the
    /// clock went on by that much since, as nothing can be left then.
    horizon: u32,
}

impl Wheel {
    /// Octets that [`Wheel::new`] allocates.
    pub(crate) const FOOTPRINT: usize = SLOTS as usize * size_of::<u32>();

    pub(crate) fn new() -> Self {
        Self {
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            occupied: [0; SLOTS as usize / 64],
            pending: NONE,
            cursor: 0,
            clock: Clock::default(),
            horizon: 1 << 31,
        }
    }

    /// The present is now. Nothing comes up before [`Wheel::pop`] is asked.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.clock.advance(now);
        self.move_to(self.cursor);
    }

    /// The present second, its low 32 bits.
    #[inline]
    pub(crate) const fn present(&self) -> u32 {
        self.clock.latest as u32
    }

    /// Starts at the present second; only while no session is linked.
    pub(crate) const fn start(&mut self) {
        self.move_to(self.clock.latest);
    }

    const fn move_to(&mut self, cursor: i64) {
        self.cursor = cursor;
        let is_over = self.clock.latest.wrapping_sub(cursor) > i32::MAX as i64;
        self.horizon = if is_over { 0 } else { 1 << 31 };
    }

    /// Whether a session that ends in the second `expires`, its low 32 bits, has ended.
    #[inline]
    pub(crate) const fn is_past(&self, expires: u32) -> bool {
        // The present second is past.
        expires.wrapping_sub(self.present()).wrapping_sub(1) >= self.horizon
    }

    fn mark(&mut self, slot: usize, is_occupied: bool) {
        if let Some(word) = self.occupied.get_mut(slot / 64) {
            match is_occupied {
                true => *word |= 1 << (slot % 64),
                false => *word &= !(1 << (slot % 64)),
            }
        }
    }

    /// Puts a session into the slot of the second in which it ends.
    pub(crate) fn link(&mut self, sessions: &mut Slab, id: u32) {
        let slot = sessions.get(id).expires as usize % SLOTS as usize;
        let Some(head) = self.heads.get_mut(slot) else {
            return;
        };
        let next = core::mem::replace(head, id);
        if let Some(session) = sessions.get_mut(next) {
            session.previous = id;
        }
        if let Some(session) = sessions.get_mut(id) {
            session.previous = FIRST | slot as u32;
            session.next = next;
        }
        self.mark(slot, true);
    }

    /// Takes a session out of its list.
    pub(crate) fn unlink(&mut self, sessions: &mut Slab, id: u32) {
        let Some(session) = sessions.get_mut(id) else {
            return;
        };
        let (previous, next) = (core::mem::replace(&mut session.previous, NONE), session.next);
        if previous == NONE {
            return;
        }
        if let Some(session) = sessions.get_mut(next) {
            session.previous = previous;
        }
        if let Some(session) = sessions.get_mut(previous) {
            session.next = next;
        } else if self.pending == id {
            self.pending = next;
        } else {
            let slot = (previous & !FIRST) as usize;
            if let Some(head) = self.heads.get_mut(slot) {
                *head = next;
                self.mark(slot, next != NONE);
            }
        }
    }

    /// The next session whose slot came up, taken out of its list. It may have been refreshed
    /// since: then it is to be linked again.
    pub(crate) fn pop(&mut self, sessions: &mut Slab) -> Option<u32> {
        let now = self.clock.latest;
        while self.pending == NONE {
            if self.cursor >= now {
                return None;
            }
            self.skip_turns(now);
            let Some(second) = self.next_occupied().filter(|&second| second <= now) else {
                self.move_to(self.cursor.max(now));
                return None;
            };
            self.move_to(second);
            let slot = second.rem_euclid(SLOTS) as usize;
            if let Some(head) = self.heads.get_mut(slot) {
                self.pending = core::mem::replace(head, NONE);
            }
            self.mark(slot, false);
        }
        let id = self.pending;
        self.unlink(sessions, id);
        Some(id)
    }

    /// After a jump of the clock every slot comes up once, not once for every turn missed. Beyond
    /// half of the range the cursor stays, as it tells that everything ended.
    fn skip_turns(&mut self, now: i64) {
        let behind = now.wrapping_sub(self.cursor);
        if behind > SLOTS && behind <= i64::from(i32::MAX) {
            self.move_to(now - SLOTS);
        }
    }

    /// The first second behind the cursor whose slot has a list.
    fn next_occupied(&self) -> Option<i64> {
        let first = self.cursor.wrapping_add(1);
        let start = first.rem_euclid(SLOTS) as usize;
        let words = self.occupied.len();
        // The word of the first slot comes up twice: its late bits, and at the end its early ones.
        for step in 0..=words {
            let at = (start / 64 + step) % words;
            let mut word = self.occupied.get(at).copied().unwrap_or(0);
            if step == 0 {
                word &= u64::MAX << (start % 64);
            }
            if word != 0 {
                let slot = at * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS as usize - start) % SLOTS as usize;
                return Some(first.wrapping_add(ahead as i64));
            }
        }
        None
    }

    /// When there may be something to end next; nothing ends before.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let second = match self.pending {
            NONE => self.next_occupied()?,
            _ => self.cursor,
        };
        Some(self.clock.instant(second))
    }
}
