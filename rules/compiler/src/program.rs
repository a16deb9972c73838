//! The policy as it is compiled, before it becomes static.

use std::sync::Arc;

use rules::Forward;
use rules::table::{Action, Base, CounterId, Field, RuleId};

#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub hooks: [Vec<Base>; 5],
    pub chains: Vec<Vec<Rule>>,
    /// Lines of rules.nft.
    pub locations: Vec<u32>,
    pub counters: Vec<u32>,
    /// The external ports that dnat rules answer for.
    pub forwards: Vec<Forward>,
    /// Named and anonymous sets, for the summary.
    pub sets: usize,
    /// The most steps that a packet can take at one hook.
    pub steps: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub id: RuleId,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Match(Match),
    Count(CounterId),
    Do(Action),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub field: Field,
    pub test: Test,
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
