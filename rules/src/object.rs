//! What stateful statements are made of: limits, quotas, log lines and dynamic sets, as the file has them.
//!
//! These are the static halves; what they remember is in [`Memory`](crate::Memory).

use crate::table::KEY_MAX;

/// Names a limit: an index into [`Policy::limits`](crate::Policy::limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitId(pub u16);

/// Names a quota: an index into [`Policy::quotas`](crate::Policy::quotas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaId(pub u16);

/// Names a log line: an index into [`Policy::logs`](crate::Policy::logs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub u16);

/// Names a dynamic set: an index into [`Policy::dynamic_sets`](crate::Policy::dynamic_sets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetId(pub u16);

/// Names a count of connections: an index into [`Policy::counts`](crate::Policy::counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountId(pub u16);

/// The nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// A token bucket, as the kernel has it: its tokens are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Packets or octets in a unit of time, at least 1.
    pub rate: u64,
    /// The unit of time, in nanoseconds.
    pub unit: u64,
    /// Packets or octets beyond the rate; of packets at least 1.
    pub burst: u32,
    /// Whether octets are counted, not packets.
    pub is_octets: bool,
    /// `over`: lets through what the bucket has no tokens for.
    pub is_over: bool,
}

impl Limit {
    /// The most tokens that the bucket holds, which is what it begins with, in nanoseconds.
    #[must_use]
    pub fn most(&self) -> u64 {
        let rate = self.rate.max(1);
        if self.is_octets {
            let most = u128::from(self.unit) * (u128::from(rate) + u128::from(self.burst)) / u128::from(rate);
            u64::try_from(most).unwrap_or(u64::MAX)
        } else {
            (self.unit / rate).saturating_mul(self.burst.into())
        }
    }

    /// What a packet of this many octets takes, in nanoseconds.
    #[must_use]
    pub fn cost(&self, octets: u32) -> u64 {
        let rate = self.rate.max(1);
        if self.is_octets {
            let cost = u128::from(self.unit) * u128::from(octets) / u128::from(rate);
            u64::try_from(cost).unwrap_or(u64::MAX)
        } else {
            self.unit / rate
        }
    }
}

/// An amount of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// So many.
    pub octets: u64,
    /// Those that are used up at the start.
    pub used: u64,
    /// `over`: lets through what comes behind them, and else what comes before.
    pub is_over: bool,
}

/// `ct count`, of a statement or of each element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Count {
    /// So many connections.
    pub limit: u32,
    /// `over`: lets through packets when there are more, and else when there are no more.
    pub is_over: bool,
    /// The most elements; 1 for a statement.
    pub size: u32,
    /// How many numbers the elements have; 0 for a statement.
    pub width: u8,
}

/// A log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Log {
    /// What it begins with.
    pub prefix: &'static str,
    /// Its level.
    pub level: Level,
}

/// How bad what is logged is, as syslog has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// `emerg`, `alert`, `crit`, `err`.
    Error,
    /// `warn`, which nft takes when none is named.
    Warning,
    /// `notice`, `info`.
    Info,
    /// `debug`.
    Debug,
}

/// A set that packets change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicSet {
    /// The most elements.
    pub size: u32,
    /// How many numbers its elements have, 1 to [`KEY_MAX`].
    pub width: u8,
    /// How long an element stays, in milliseconds; 0 for ever.
    pub timeout: u64,
    /// The bucket that each element has.
    pub limit: Option<Limit>,
    /// The elements that it begins with.
    pub elements: &'static [[u32; KEY_MAX]],
}
