//! Shares of a pool: what a client may take so that every other can still have its floor.

use alloc::vec;
use alloc::vec::Vec;

/// One pool and its users.
pub(crate) struct Quota {
    used: Vec<u32>,
    pool: u32,
    /// What the site said of floor and ceiling.
    given: (Option<u32>, Option<u32>),
    floor: u32,
    ceiling: u32,
    in_use: u32,
    /// What all users' floors still lack.
    owed: u32,
}

impl Quota {
    /// Octets that [`Quota::new`] allocates.
    pub(crate) fn footprint(clients: u8) -> usize {
        usize::from(clients) * size_of::<u32>()
    }

    /// A pool for this many clients; without clients everybody may have everything.
    ///
    /// The floor is a client's even share of half of the pool unless given; the ceiling is what
    /// the others' floors leave.
    pub(crate) fn new(pool: u32, clients: u8, floor: Option<u32>, ceiling: Option<u32>) -> Self {
        let mut quota = Self {
            used: vec![0; usize::from(clients)],
            pool: 0,
            given: (floor, ceiling),
            floor: 0,
            ceiling: 0,
            in_use: 0,
            owed: 0,
        };
        quota.replace_pool(pool);
        quota
    }

    /// Another pool in place of this one, of which nobody has anything any more.
    pub(crate) fn replace_pool(&mut self, pool: u32) {
        let (count, (floor, ceiling)) = (self.used.len() as u32, self.given);
        let even = pool / count.max(1);
        self.pool = pool;
        self.floor = floor.unwrap_or(even / 2).min(even);
        self.ceiling = ceiling.unwrap_or(pool);
        self.owed = self.floor * count;
    }

    fn is_off(&self) -> bool {
        self.used.is_empty()
    }

    fn used(&self, client: u8) -> u32 {
        self.used.get(usize::from(client)).copied().unwrap_or(u32::MAX)
    }

    /// Whether the client may have one more. A client that is not among those counted may not.
    pub(crate) fn admits(&self, client: u8) -> bool {
        if self.is_off() {
            return true;
        }
        let used = self.used(client);
        let spare = self.pool.saturating_sub(self.in_use);
        used < self.floor || used < self.ceiling && spare > self.owed
    }

    pub(crate) fn take(&mut self, client: u8) {
        if let Some(used) = self.used.get_mut(usize::from(client)) {
            if *used < self.floor {
                self.owed -= 1;
            }
            *used += 1;
            self.in_use += 1;
        }
    }

    pub(crate) fn give(&mut self, client: u8) {
        if let Some(used) = self.used.get_mut(usize::from(client)).filter(|used| **used > 0) {
            *used -= 1;
            self.in_use -= 1;
            if *used < self.floor {
                self.owed += 1;
            }
        }
    }

    /// Whether the client has no more than it may, however much room there were.
    pub(crate) fn is_below_ceiling(&self, client: u8) -> bool {
        self.is_off() || self.used(client) < self.ceiling
    }

    /// Whether one client has more than another.
    pub(crate) fn has_more(&self, one: u8, other: u8) -> bool {
        self.used(one) > self.used(other)
    }

    /// The client that has most.
    pub(crate) fn largest(&self) -> u8 {
        // Twice along the numbers, which several are looked at a time.
        let most = self.used.iter().copied().fold(0, u32::max);
        self.used.iter().rposition(|&used| used == most).unwrap_or(0) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_one_takes_every_other_gets_its_floor() {
        let mut quota = Quota::new(100, 4, None, None);
        let take = |quota: &mut Quota, client| {
            let mut taken = 0;
            while quota.admits(client) {
                quota.take(client);
                taken += 1;
            }
            taken
        };
        assert_eq!(take(&mut quota, 0), 100 - 3 * 12);
        assert_eq!([1, 2, 3].map(|client| take(&mut quota, client)), [12; 3]);
        assert_eq!((quota.largest(), quota.owed), (0, 0));
        for _ in 0..64 {
            quota.give(0);
        }
        assert_eq!(take(&mut quota, 1), 64 - 12);
        assert_eq!(take(&mut quota, 0), 12);
        assert!(!quota.admits(9));
    }

    #[test]
    fn without_clients_it_is_off() {
        let mut quota = Quota::new(1, 0, None, None);
        for client in 0..10 {
            quota.take(client);
            assert!(quota.admits(client));
        }
    }
}
