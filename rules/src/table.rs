//! The tables that the compiler writes: chains, rules, steps and matches.
//!
//! A rule is a row of [`Step`]s, walked from left to right; the first match that fails ends the rule. Every
//! match reads one number of the packet and compares it, so a step costs the same whatever it looks at (a set:
//! the logarithm of its size).

use crate::policy::Reject;
use crate::translation::{DestinationChoice, SourceChoice};

/// Names a rule, or the policy of a base chain; [`Policy::location`](crate::Policy::location) says where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

/// Names a counter: an index below the length of [`Policy::counters`](crate::Policy::counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterId(pub u16);

/// A line of a site's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file, relative to the site directory.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
}

impl core::fmt::Display for Location {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A chain that a hook calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Whether it filters or translates.
    pub kind: Kind,
    /// Its rules: an index into [`Policy::chains`](crate::Policy::chains).
    pub chain: u16,
    /// Whether a packet that meets no verdict passes.
    pub accepts: bool,
    /// Names the chain's policy in a drop.
    pub id: RuleId,
}

/// The kind of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a session.
    Nat,
}

/// The rules of a chain, in order.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// The rules.
    pub rules: &'static [Rule],
}

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it does, from left to right.
    pub steps: &'static [Step],
}

/// One step of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Goes on if the number is as wanted, else ends the rule.
    Match(Match),
    /// Counts the packet.
    Count(CounterId),
    /// Ends the rule with a verdict; the last step.
    Do(Action),
}

/// How a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ends the base chain, well.
    Accept,
    /// Ends the packet.
    Drop,
    /// Ends the packet and tells its sender.
    Reject(Reject),
    /// Goes on in the chain that called this one.
    Return,
    /// Walks another chain, and comes back.
    Jump(u16),
    /// Walks another chain in place of this one.
    Goto(u16),
    /// Translates the destination.
    Dnat(DestinationChoice),
    /// Translates the source.
    Snat(SourceChoice),
}

/// A comparison of one number of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The number.
    pub field: Field,
    /// What it is compared with.
    pub test: Test,
    /// Whether the comparison must fail. A packet without the field matches neither way.
    pub negated: bool,
}

/// What a number is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// This value.
    Equal(u32),
    /// A value from the first to the second, both included.
    Range(u32, u32),
    /// A value in one of these ranges, which are sorted and apart.
    In(&'static [(u32, u32)]),
    /// The bits of the mask have this value.
    Masked {
        /// The bits looked at.
        mask: u32,
        /// What they must be.
        value: u32,
    },
}

/// A number of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The index of the incoming port; [`NO_PORT`] without one.
    InputPort,
    /// The index of the outgoing port; [`NO_PORT`] without one.
    OutputPort,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The protocol number.
    Protocol,
    /// The source port, of TCP and UDP only.
    SourcePort,
    /// The destination port, of TCP and UDP only.
    DestinationPort,
    /// The ICMP type, of ICMP only.
    IcmpType,
    /// The ICMP code, of ICMP only.
    IcmpCode,
    /// The flags octet, of TCP only.
    TcpFlags,
    /// The upper six bits of the TOS octet.
    Dscp,
    /// The lower two bits of the TOS octet.
    Ecn,
    /// Time to live.
    Ttl,
    /// The total length in octets.
    Length,
    /// The identification field.
    Identification,
    /// The state's [bit](crate::State::bit).
    State,
    /// [`STATUS_SNAT`] and [`STATUS_DNAT`].
    Status,
}

/// The value of a port field that has no port.
pub const NO_PORT: u32 = 0xff;

/// The loopback interface, which no packet uses.
pub const LOOPBACK: u32 = 0xfe;

/// The bit of a translated source in `ct status`, with the kernel's number.
pub const STATUS_SNAT: u32 = 0x10;

/// The bit of a translated destination in `ct status`, with the kernel's number.
pub const STATUS_DNAT: u32 = 0x20;

impl Test {
    /// Whether `value` is as wanted.
    #[must_use]
    pub fn holds(&self, value: u32) -> bool {
        match *self {
            Self::Equal(wanted) => value == wanted,
            Self::Range(first, last) => first <= value && value <= last,
            Self::Masked { mask, value: wanted } => value & mask == wanted,
            Self::In(ranges) => {
                let after = ranges.partition_point(|&(first, _)| first <= value);
                after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|&(_, last)| value <= last)
            }
        }
    }
}

impl Field {
    /// Whether the number may differ between packets of one direction of one session.
    #[must_use]
    pub const fn is_per_packet(self) -> bool {
        matches!(
            self,
            Self::TcpFlags | Self::Dscp | Self::Ecn | Self::Ttl | Self::Length | Self::Identification
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_ends_of_its_ranges_and_nothing_between_them() {
        let test = Test::In(&[(2, 4), (9, 9), (u32::MAX - 1, u32::MAX)]);
        let held =
            [0, 1, 2, 3, 4, 5, 8, 9, 10, u32::MAX - 2, u32::MAX - 1, u32::MAX].map(|value| test.holds(value));
        let (t, f) = (true, false);
        assert_eq!(held, [f, f, t, t, t, f, f, t, f, f, t, t]);
        assert!(!Test::In(&[]).holds(0));
    }
}
