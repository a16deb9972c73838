//! The tables that the compiler writes: chains, rules, steps and matches.
//!
//! A rule is a row of steps, written as [words](crate::code), walked from left to right; the first match that fails ends
//! the rule. Every match reads one number of the packet and compares it, so a step costs the same whatever it looks at (a
//! set: the logarithm of its size).

use crate::object::{CountId, LimitId, LogId, QuotaId, SetId};
use crate::policy::Reject;
use crate::translation::{DestinationChoice, SourceChoice};
use crate::tree::Trees;

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
    /// Where it stands among what the kernel does by itself.
    pub stage: Stage,
    /// Its rules: an index into [`Policy::chains`](crate::Policy::chains).
    pub chain: u16,
    /// Where its chains for first packets begin in [`Openings::chains`](crate::opening::Openings::chains);
    /// [`Base::NO_OPENINGS`] if it has none.
    pub openings: u32,
    /// Whether a packet that meets no verdict passes.
    pub accepts: bool,
    /// Names the chain's policy in a drop.
    pub id: RuleId,
}

impl Base {
    /// First packets meet the chain itself.
    pub const NO_OPENINGS: u32 = u32::MAX;
}

/// What has become of a packet when a chain runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// At prerouting, ahead of connection tracking: its session is not known.
    Untracked,
    /// At prerouting, ahead of the translation of destinations.
    Received,
    /// Behind it, and at every other hook.
    Translated,
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
    /// Which of them a packet may meet; none for a chain that is walked from rule to rule.
    pub trees: Option<Trees>,
}

/// A rule: its words in [`Code::words`](crate::code::Code::words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Where they begin.
    pub start: u32,
    /// How many they are.
    pub length: u16,
    /// Its name.
    pub id: RuleId,
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

/// What a statement remembers, and asks of what was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// `limit`: goes on as its bucket says.
    Limit(LimitId),
    /// `quota`: goes on as its octets say.
    Quota(QuotaId),
    /// `log`.
    Log(LogId),
    /// `meta mark set`.
    Mark(Write),
    /// `ct mark set`; ends the rule for packets that lack what it is made from.
    ConnectionMark(Write),
    /// `notrack`: the packet has no connection, and opens none.
    Untrack,
    /// `tcp option maxseg size set`: to this many octets, or with 0 to what the links on the way take.
    Segment(u16),
    /// `add`, `update` or `delete` of an element of a dynamic set.
    Update(Update),
    /// `ct count`, with the key of its element; goes on as the connections are too many or not.
    Connections(CountId, Key),
    /// A dynamic set holds the key, or holds it not.
    Member {
        /// The set.
        set: SetId,
        /// What is looked up.
        key: Key,
        /// Whether it must not be there.
        negated: bool,
    },
    /// Opens this gate and shuts every other; [`Gate::SHUT`] shuts them all.
    Open(Gate),
    /// Goes on if this gate is open.
    Through(Gate),
}

/// Joins the rules that a rule of the file comes to, when what stands ahead of its map is done once only: the first
/// of them opens it, and those of the elements ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate(pub u16);

impl Gate {
    /// None is open.
    pub const SHUT: Self = Self(0);
}

/// A new value of a mark: `(from & and) ^ xor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// What it is made from; nothing is 0.
    pub from: Option<Field>,
    /// The bits that are kept.
    pub and: u32,
    /// The bits that are turned round then.
    pub xor: u32,
}

/// A change of a dynamic set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The set.
    pub set: SetId,
    /// The element.
    pub key: Key,
    /// What is done with it.
    pub how: Change,
    /// How long a new element stays, in milliseconds; 0 for what the set says.
    pub timeout: u64,
}

/// What is done with an element of a dynamic set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is put there unless it is there.
    Add,
    /// The same, and its time begins anew.
    Update,
    /// It is taken away.
    Delete,
}

/// The most numbers that a concatenation joins.
pub const KEY_MAX: usize = 5;

/// Some numbers of the packet, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The numbers; those from `width` on do not count.
    pub fields: [Field; KEY_MAX],
    /// How many there are, 1 to [`KEY_MAX`].
    pub width: u8,
}

impl Key {
    /// The numbers that count.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        self.fields.get(..usize::from(self.width)).unwrap_or(&self.fields)
    }
}

/// A set of concatenations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// What is looked up.
    pub key: Key,
    /// The elements, each a range for every number of the key, one after the other.
    pub rows: &'static [(u32, u32)],
    /// Whether every range is a single value, and the elements are sorted.
    pub is_sorted: bool,
    /// Whether it must not be there. A packet without one of the numbers matches neither way.
    pub negated: bool,
}

impl Lookup {
    /// Whether an element holds these values, one for each number of the key.
    #[must_use]
    pub fn holds(&self, values: &[u32]) -> bool {
        let width = values.len().max(1);
        if !self.is_sorted {
            let is_within = |row: &[(u32, u32)]| {
                row.iter().zip(values).all(|(&(first, last), value)| (first..=last).contains(value))
            };
            return self.rows.chunks_exact(width).any(is_within);
        }
        let (mut start, mut end) = (0, self.rows.len() / width);
        while start < end {
            let middle = start + (end - start) / 2;
            let row = self.rows.get(middle * width..(middle + 1) * width).unwrap_or_default();
            match row.iter().map(|&(value, _)| value).cmp(values.iter().copied()) {
                core::cmp::Ordering::Equal => return true,
                core::cmp::Ordering::Less => start = middle + 1,
                core::cmp::Ordering::Greater => end = middle,
            }
        }
        false
    }
}

/// Names each number once: what it is, how it is counted, and which has a number.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A number of the packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $($(#[$doc])* $name,)*
        }

        impl Field {
            /// All fields, in their order.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// The field of this place in their order.
            #[inline(always)]
            pub(crate) const fn of(number: u32) -> Option<Self> {
                match number {
                    $(_ if number == Self::$name as u32 => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
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
    /// The source port, of [packets with ports](crate::Candidate::has_ports) only.
    SourcePort,
    /// The destination port, of packets with ports only.
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
    /// [`STATUS_SNAT`] and [`STATUS_DNAT`], of packets with a connection only.
    Status,
    /// `meta mark`.
    Mark,
    /// `ct mark`; like all that follow, of packets with a connection only.
    ConnectionMark,
    /// `ct direction`: 0 for original, 1 for reply.
    Direction,
    /// `ct original saddr`.
    OriginalSource,
    /// `ct original daddr`.
    OriginalDestination,
    /// `ct original proto-src`, of TCP and UDP only.
    OriginalSourcePort,
    /// `ct original proto-dst`, of TCP and UDP only.
    OriginalDestinationPort,
    /// `ct reply saddr`.
    ReplySource,
    /// `ct reply daddr`.
    ReplyDestination,
    /// `ct reply proto-src`, of TCP and UDP only.
    ReplySourcePort,
    /// `ct reply proto-dst`, of TCP and UDP only.
    ReplyDestinationPort,
    /// The first two octets of `ether saddr`; like all that follow, not of the appliance's own packets.
    SourceStation,
    /// The other four.
    SourceStationRest,
    /// The first two octets of `ether daddr`.
    DestinationStation,
    /// The other four.
    DestinationStationRest,
}

/// The value of a port field that has no port.
pub const NO_PORT: u32 = 0xff;

/// The loopback interface, which no packet uses.
pub const LOOPBACK: u32 = 0xfe;

/// The bit of a translated source in `ct status`, with the kernel's number.
pub const STATUS_SNAT: u32 = 0x10;

/// The bit of a translated destination in `ct status`, with the kernel's number.
pub const STATUS_DNAT: u32 = 0x20;

impl Field {
    /// Whether the number may differ between packets of one direction of one session.
    #[must_use]
    pub const fn is_per_packet(self) -> bool {
        matches!(
            self,
            Self::TcpFlags
                | Self::Dscp
                | Self::Ecn
                | Self::Ttl
                | Self::Length
                | Self::Identification
                // A packet of either direction may set it.
                | Self::ConnectionMark
                // Hosts may have more than one way to here.
                | Self::SourceStation
                | Self::SourceStationRest
                | Self::DestinationStation
                | Self::DestinationStationRest
        )
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_concatenation_is_found_among_points_and_within_ranges() {
        let key = Key { fields: [Field::Source; KEY_MAX], width: 2 };
        let points = [(1, 1), (9, 9), (2, 2), (3, 3), (2, 2), (5, 5)];
        let points = Lookup { key, rows: Vec::from(points).leak(), is_sorted: true, negated: false };
        let held: Vec<_> =
            [[1, 9], [2, 3], [2, 5], [2, 4], [9, 1], [0, 0]].iter().map(|v| points.holds(v)).collect();
        assert_eq!(held, [true, true, true, false, false, false]);
        let boxes = [(1, 4), (9, 9), (2, 2), (3, 8)];
        let boxes = Lookup { rows: Vec::from(boxes).leak(), is_sorted: false, ..points };
        let held: Vec<_> = [[4, 9], [2, 8], [3, 8], [5, 9]].iter().map(|v| boxes.holds(v)).collect();
        assert_eq!(held, [true, true, false, false]);
    }
}
