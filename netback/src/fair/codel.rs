//! Controlled delay (RFC 8289): a queue whose frames all wait too long loses some of them.

use smoltcp::time::{Duration, Instant};

/// How long frames may wait for as long as it takes.
const TARGET: Duration = Duration::from_millis(5);
/// How long they may wait longer: about the round-trip time of those who are to notice.
const INTERVAL: Duration = Duration::from_millis(100);
/// Drops are remembered for so many intervals.
const MEMORY: u32 = 16;

/// The state of one queue.
#[derive(Clone, Copy)]
pub(super) struct Codel {
    /// When the queue will have been slow for an interval.
    slow_at: Option<Instant>,
    /// The next drop, while there are drops.
    next: Option<Instant>,
    /// When the last drop of an earlier spell would have been followed by another.
    last: Option<Instant>,
    /// Drops in this spell, and when it began.
    count: u32,
    began: u32,
}

impl Codel {
    /// That of a queue that begins.
    pub(super) const NEW: Self = Self { slow_at: None, next: None, last: None, count: 0, began: 0 };

    /// Whether the first frame is to be dropped, which came in at `since`; `is_last` if there is nothing behind it.
    pub(super) fn is_late(&mut self, since: Instant, is_last: bool, now: Instant) -> bool {
        let is_slow = self.is_slow(since, is_last, now);
        match self.next {
            Some(next) if !is_slow => {
                (self.next, self.last) = (None, Some(next));
                false
            }
            Some(next) if now >= next => {
                self.count = self.count.saturating_add(1);
                self.next = Some(next + self.step());
                true
            }
            Some(_) => false,
            None if is_slow => {
                self.begin(now);
                true
            }
            None => false,
        }
    }

    /// Whether frames have waited too long for an interval (RFC 8289 5.6, `dodequeue`).
    fn is_slow(&mut self, since: Instant, is_last: bool, now: Instant) -> bool {
        if is_last || now - since < TARGET {
            self.slow_at = None;
            return false;
        }
        now >= *self.slow_at.get_or_insert(now + INTERVAL)
    }

    /// Begins a spell of drops; as fast as the last one was if that is not long ago.
    fn begin(&mut self, now: Instant) {
        let drops = self.count - self.began;
        let is_recent = self.last.is_some_and(|last| now < last + INTERVAL * MEMORY);
        self.count = if is_recent && drops > 1 { drops } else { 1 };
        self.began = self.count;
        self.next = Some(now + self.step());
    }

    /// The time between two drops: the more there were, the shorter (RFC 8289 5.6, `control_law`).
    fn step(&self) -> Duration {
        // Ten bits behind the point.
        let root = (u64::from(self.count.max(1)) << 20).isqrt();
        Duration::from_micros((INTERVAL.total_micros() << 10) / root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros_const(1_000_000);

    /// Frames that waited so long, one a millisecond for so many seconds; how many are dropped.
    fn drops(codel: &mut Codel, waited: Duration, from: u64, seconds: u64) -> usize {
        (from * 1000..(from + seconds) * 1000)
            .map(|millis| START + Duration::from_millis(millis))
            .filter(|&now| codel.is_late(now - waited, false, now))
            .count()
    }

    #[test]
    fn rfc_8289_what_waits_less_than_the_target_is_never_dropped_and_more_ever_faster() {
        let (mut codel, long) = (Codel::NEW, Duration::from_millis(50));
        assert_eq!(drops(&mut codel, Duration::from_millis(4), 0, 10), 0);
        // The first after 100 ms, the others 100 ms / sqrt(n) apart: 27 in 900 ms.
        let first = drops(&mut codel, long, 10, 1);
        assert!((25..=29).contains(&first), "{first}");
        let second = drops(&mut codel, long, 11, 1);
        assert!(second > 2 * first, "{first} {second}");
        assert_eq!(drops(&mut codel, Duration::from_millis(4), 12, 1), 0);
        // It remembers how fast it had to be.
        let again = drops(&mut codel, long, 13, 1);
        assert!(again > 2 * first, "{first} {again}");
        // After a while it does not.
        assert_eq!(drops(&mut codel, Duration::ZERO, 14, 10), 0);
        assert_eq!(drops(&mut codel, long, 24, 1), first);
    }

    #[test]
    fn rfc_8289_a_queue_of_one_frame_is_not_too_long() {
        let mut codel = Codel::NEW;
        let mut late = |millis| codel.is_late(START, true, START + Duration::from_millis(millis));
        assert_eq!((0..5000).filter(|&millis| late(millis)).count(), 0);
    }
}
