//! The policy as it is compiled, before it becomes static.

use std::sync::Arc;

use rules::Forward;
use rules::object::{Count, CountId, Level, Limit, Quota};
use rules::table::{Action, Base, CounterId, Effect, Field, KEY_MAX, Key, RuleId};

use crate::trees::Forest;

#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub hooks: [Vec<Base>; 5],
    pub chains: Vec<Vec<Rule>>,
    /// The trees over each chain.
    pub forests: Vec<Option<Forest>>,
    /// What each chain is called, with its table.
    pub names: Vec<String>,
    /// The priorities of the base chains of each hook.
    pub priorities: Vec<(RuleId, i32)>,
    /// The interfaces, by the numbers of their ports.
    pub interfaces: Vec<String>,
    /// The files with the numbers of their first lines among all lines, from 1.
    pub files: Vec<(u32, String)>,
    /// Lines, by their numbers among all lines.
    pub locations: Vec<u32>,
    pub counters: Vec<u32>,
    /// The external ports that dnat rules answer for.
    pub forwards: Vec<Forward>,
    pub limits: Vec<Limit>,
    pub quotas: Vec<Quota>,
    pub logs: Vec<Log>,
    pub dynamic_sets: Vec<DynamicSet>,
    pub counts: Vec<Count>,
    /// Whether rules set `ct mark`.
    pub marks_connections: bool,
    /// Whether rules look at ports of SCTP, DCCP and UDP-Lite.
    pub reads_other_ports: bool,
    /// Whether rules say `notrack`.
    pub untracks: bool,
    /// Rules that only IPv6 packets could meet.
    pub rules_of_ipv6: usize,
    /// Named and anonymous sets, for the summary.
    pub sets: usize,
    /// The most steps that a packet can take at one hook.
    pub steps: u64,
}

impl Program {
    /// The index of a line's file, and the number of the line there.
    pub fn place(&self, line: u32) -> (usize, u32) {
        let after = self.files.partition_point(|&(first, _)| first <= line);
        let at = after.saturating_sub(1);
        (at, line - self.files.get(at).map_or(1, |&(first, _)| first) + 1)
    }
}

/// What a log statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub prefix: String,
    pub level: Level,
}

/// A set that packets change.
#[derive(Debug, Clone)]
pub(crate) struct DynamicSet {
    pub size: u32,
    pub width: u8,
    /// In milliseconds; 0 for ever.
    pub timeout: u64,
    pub limit: Option<Limit>,
    /// Its elements count connections; nothing else is kept of it.
    pub count: Option<CountId>,
    pub elements: Vec<[u32; KEY_MAX]>,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub id: RuleId,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Match(Match),
    Lookup(Lookup),
    Act(Effect),
    Count(CounterId),
    Do(Action),
}

impl Step {
    /// The numbers of a packet that it looks at.
    pub fn fields(&self) -> Vec<Field> {
        match self {
            Self::Match(wanted) => vec![wanted.field],
            Self::Lookup(Lookup { key, .. })
            | Self::Act(Effect::Connections(_, key) | Effect::Member { key, .. }) => key.fields().to_vec(),
            Self::Act(Effect::Update(update)) => update.key.fields().to_vec(),
            Self::Act(Effect::Mark(write) | Effect::ConnectionMark(write)) => {
                write.from.into_iter().collect()
            }
            Self::Act(
                Effect::Limit(_)
                | Effect::Quota(_)
                | Effect::Log(_)
                | Effect::Untrack
                | Effect::Segment(_)
                | Effect::Open(_)
                | Effect::Through(_),
            )
            | Self::Count(_)
            | Self::Do(_) => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub field: Field,
    pub test: Test,
    pub negated: bool,
}

/// A set of concatenations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub key: Key,
    /// The elements, each a range for every number of the key, one after the other.
    pub rows: Arc<[(u32, u32)]>,
    pub is_sorted: bool,
    pub negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    Equal(u32),
    Range(u32, u32),
    /// A named set is shared by all who look into it.
    In(Arc<[(u32, u32)]>),
    Masked {
        mask: u32,
        value: u32,
    },
}

impl Match {
    /// Whether a value passes.
    pub fn holds(&self, value: u32) -> bool {
        let holds = match &self.test {
            Test::Equal(wanted) => value == *wanted,
            Test::Range(first, last) => (*first..=*last).contains(&value),
            Test::Masked { mask, value: wanted } => value & mask == *wanted,
            Test::In(ranges) => {
                let after = ranges.partition_point(|&(first, _)| first <= value);
                after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| value <= last)
            }
        };
        holds != self.negated
    }
}
