//! What stateful statements remember: buckets, quotas and dynamic sets.
//!
//! All of it is allocated once, sized by the policy; time comes in with each question. The semantics are those
//! of the kernel's nft_limit, nft_quota and nft_dynset.

use alloc::boxed::Box;

use crate::dynamic::{Found, Set};
use crate::object::{Limit, LimitId, QuotaId, SetId};
use crate::policy::Policy;
use crate::table::{Change, KEY_MAX};

/// The numbers of a key; those behind its width are 0.
pub type Numbers = [u32; KEY_MAX];

/// What all stateful statements of a policy remember.
#[derive(Debug)]
pub struct Memory {
    limits: Box<[Bucket]>,
    quotas: Box<[u64]>,
    sets: Box<[Set]>,
    policy: &'static Policy,
}

/// The tokens of a limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    pub tokens: u64,
    /// When they were counted, in nanoseconds.
    counted: u64,
}

impl Bucket {
    pub fn full(limit: &Limit, now: u64) -> Self {
        Self { tokens: limit.most(), counted: now }
    }

    /// Whether a packet of this many octets goes on, at this time in nanoseconds.
    pub fn takes(&mut self, limit: &Limit, octets: u32, now: u64) -> bool {
        let gained = now.saturating_sub(self.counted);
        let tokens = self.tokens.saturating_add(gained).min(limit.most());
        self.counted = now;
        let left = tokens.checked_sub(limit.cost(octets));
        self.tokens = left.unwrap_or(tokens);
        left.is_some() != limit.is_over
    }
}

impl Memory {
    /// Octets that [`Memory::new`] allocates.
    #[must_use]
    pub fn footprint(policy: &Policy) -> usize {
        policy.limits.len() * size_of::<Bucket>()
            + policy.quotas.len() * size_of::<u64>()
            + policy.dynamic_sets.len() * size_of::<Set>()
            + policy.dynamic_sets.iter().map(Set::footprint).sum::<usize>()
    }

    /// Nothing has passed yet: buckets are full, quotas as the file has them, sets hold their first elements.
    ///
    /// `now` is in nanoseconds; `seed` keys the hashing.
    #[must_use]
    pub fn new(policy: &'static Policy, seed: u64, now: u64) -> Self {
        Self {
            limits: policy.limits.iter().map(|limit| Bucket::full(limit, now)).collect(),
            quotas: policy.quotas.iter().map(|quota| quota.used).collect(),
            sets: policy.dynamic_sets.iter().map(|set| Set::new(set, seed, now)).collect(),
            policy,
        }
    }

    /// Whether a packet of this many octets goes on behind a `limit`.
    pub fn limit(&mut self, id: LimitId, octets: u32, now: u64) -> bool {
        let at = usize::from(id.0);
        match (self.limits.get_mut(at), self.policy.limits.get(at)) {
            (Some(bucket), Some(limit)) => bucket.takes(limit, octets, now),
            _ => false,
        }
    }

    /// Whether a packet of this many octets goes on behind a `quota`.
    pub fn quota(&mut self, id: QuotaId, octets: u32) -> bool {
        let at = usize::from(id.0);
        match (self.quotas.get_mut(at), self.policy.quotas.get(at)) {
            (Some(used), Some(quota)) => {
                *used = used.saturating_add(octets.into());
                (*used > quota.octets) == quota.is_over
            }
            _ => false,
        }
    }

    /// Whether a packet goes on behind `add`, `update` or `delete`: the element is there, or was, and its bucket
    /// has what the packet takes. `timeout` is that of the statement in milliseconds, 0 for the set's own.
    pub fn change(
        &mut self,
        id: SetId,
        (how, timeout): (Change, u64),
        key: &Numbers,
        octets: u32,
        now: u64,
    ) -> bool {
        let Some(set) = self.sets.get_mut(usize::from(id.0)) else { return false };
        match how {
            Change::Delete => set.remove(key, now),
            Change::Add | Change::Update => match set.put(key, timeout, how == Change::Update, now) {
                Some(found) => found.takes(octets, now),
                None => false,
            },
        }
    }

    /// Whether a packet goes on behind a match on a dynamic set, which counts as use of the element's bucket.
    pub fn is_member(&mut self, id: SetId, key: &Numbers, negated: bool, octets: u32, now: u64) -> bool {
        let Some(set) = self.sets.get_mut(usize::from(id.0)) else { return false };
        match set.find(key, now) {
            Some(found) => !negated && found.takes(octets, now),
            None => negated,
        }
    }

    /// How many elements each dynamic set holds, those whose time is over included.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.sets.iter().map(Set::len)
    }
}

impl Found<'_> {
    fn takes(self, octets: u32, now: u64) -> bool {
        match self.limit {
            Some(limit) => self.bucket.takes(&limit, octets, now),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::SECOND;

    const LIMIT: Limit = Limit { rate: 2, unit: SECOND, burst: 3, is_octets: false, is_over: false };

    /// How many of ten packets at once go on.
    fn passed(bucket: &mut Bucket, limit: &Limit, octets: u32, now: u64) -> usize {
        (0..10).filter(|_| bucket.takes(limit, octets, now)).count()
    }

    #[test]
    fn a_bucket_begins_full_and_fills_with_its_rate() {
        let mut bucket = Bucket::full(&LIMIT, 0);
        assert_eq!(passed(&mut bucket, &LIMIT, 100, 0), 3);
        assert_eq!(passed(&mut bucket, &LIMIT, 100, SECOND / 2 - 1), 0);
        assert_eq!(passed(&mut bucket, &LIMIT, 100, SECOND / 2), 1);
        assert_eq!(passed(&mut bucket, &LIMIT, 100, 60 * SECOND), 3);
    }

    #[test]
    fn over_lets_through_what_is_too_much() {
        let over = Limit { is_over: true, ..LIMIT };
        assert_eq!(passed(&mut Bucket::full(&over, 0), &over, 100, 0), 7);
    }

    #[test]
    fn octets_are_paid_by_length_and_the_bucket_holds_a_unit_and_the_burst() {
        let limit = Limit { rate: 1000, unit: SECOND, burst: 500, is_octets: true, is_over: false };
        assert_eq!(limit.most(), SECOND * 3 / 2);
        assert_eq!(limit.cost(100), SECOND / 10);
        let mut bucket = Bucket::full(&limit, 0);
        assert_eq!(passed(&mut bucket, &limit, 400, 0), 3);
        assert_eq!(passed(&mut bucket, &limit, 300, 0), 1);
        assert_eq!(passed(&mut bucket, &limit, 1, 0), 0);
    }
}
