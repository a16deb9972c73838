//! From the tree of `rules.nft` to tables: names are resolved, types and hooks checked, chains put in order.

mod assertions;
mod bits;
mod callers;
mod concatenation;
mod fib;
mod forwards;
mod graph;
mod hooks;
mod ipv6;
mod known;
mod layers;
mod map;
mod matches;
mod ranges;
mod rule;
mod sets;
mod shadow;
mod stateful;
mod station;
mod translation;
mod union;
mod value;

use std::collections::{HashMap, HashSet};

use rules::Residue;
use rules::table::{CounterId, Field, RuleId};

use crate::diagnostics::Diagnostics;
use crate::plan::Plan;
use crate::program::{Program, Step};
use crate::prove::World;
use crate::source::Source;
use crate::syntax::tree::{Family, Ruleset, Span, Table, Value};
use graph::Graph;
use known::{Bits, Known};
pub(crate) use layers::is_of_connection;
pub(crate) use ranges::{Ranges, Shared, complement, intersection, normalise};
use sets::Set;
use shadow::Told;
use stateful::Objects;

/// The most elements that all sets of a file may have, defines written out.
const ELEMENTS_MAX: u32 = 1 << 20;

/// The most steps that a packet may take at one hook.
const STEPS_MAX: u64 = 1_000_000;

/// Where a chain stands: what reaches it, and what its table holds.
#[derive(Debug, Clone, Copy)]
struct Context {
    family: Family,
    /// The kinds and hooks of the base chains that reach it, see [`layers::bit`].
    reached: u32,
    /// Whether one of them runs before connections are known.
    is_early: bool,
    /// Whether one of them runs behind that.
    is_late: bool,
    /// The index of its table.
    table: usize,
}

/// What the matches of a rule have established so far.
#[derive(Debug, Clone, Default)]
struct Premises {
    steps: Vec<Step>,
    known: Vec<Known>,
    bits: Vec<Bits>,
    /// The fields that were looked at.
    asked: Vec<Field>,
    /// The protocols that stood in a set, one by one.
    named_protocols: Vec<u32>,
    /// Both families stood in a set.
    names_families: bool,
    is_ipv4: bool,
    /// A match on the family itself said so.
    is_ipv4_told: bool,
    /// It was `meta nfproto`, with which a translation need not say the family.
    is_ipv4_by_nfproto: bool,
    /// It says which frames it is about, and Weir receives no others.
    leaves_others: bool,
    /// No IPv4 packet comes this far.
    is_never: bool,
}

struct Lowering<'a> {
    source: &'a Source,
    plan: &'a Plan,
    diagnostics: &'a mut Diagnostics,
    program: Program,
    /// The sets of each table.
    sets: Vec<HashMap<String, Set>>,
    /// Named counters, limits and quotas of each table.
    objects: Vec<Objects>,
    /// The table that is being lowered.
    table: usize,
    /// The block of the rule that is being lowered.
    block: usize,
    /// The meters of tables.
    meters: HashSet<(usize, String)>,
    /// The dynamic sets that a statement puts elements into.
    updated: HashSet<u16>,
    /// The dynamic sets that a match looks into, with the first one.
    looked_into: HashMap<u16, Span>,
    /// The rules of each chain with what their text says, as far as they were read.
    told: Vec<Vec<Told>>,
    /// The sources that are believed on each port.
    believed: Vec<Ranges>,
    /// How many rules are for addresses that no packet there has.
    elsewhere: usize,
    /// The destinations of packets that the appliance itself may take: its own, and whatever is no host's.
    delivered: Ranges,
    /// The maps of tables in which something is wrong, and was told.
    unsound_maps: HashSet<(usize, String)>,
    /// The gates of rules with maps.
    gates: u16,
    /// How many elements may still be looked at.
    budget: u32,
    /// How many may still be looked at again.
    again: u32,
    /// How many ranges may still be compared to find shadowed rules.
    compared: u32,
}

/// Compiles the policy; everything wrong with it is told. With errors told, the result is not to be used.
pub(crate) fn lower(
    ruleset: &Ruleset,
    source: &Source,
    plan: &Plan,
    diagnostics: &mut Diagnostics,
) -> Program {
    let world = World::new(plan);
    let mut lowering = Lowering {
        source,
        plan,
        diagnostics,
        program: Program {
            files: source.files(),
            names: chains(ruleset)
                .map(|(_, table, chain)| format!("{} {}", table.shown(), chain.name))
                .collect(),
            interfaces: plan.names().map(str::to_owned).collect(),
            ..Program::default()
        },
        sets: Vec::new(),
        objects: Vec::new(),
        table: 0,
        block: 0,
        meters: HashSet::new(),
        updated: HashSet::new(),
        looked_into: HashMap::new(),
        told: Vec::new(),
        delivered: if plan.is_sound { world.delivered() } else { vec![(0, u32::MAX)] },
        believed: if plan.is_sound { world.believed } else { Vec::new() },
        elsewhere: 0,
        unsound_maps: HashSet::new(),
        gates: 0,
        budget: ELEMENTS_MAX,
        again: 16 * ELEMENTS_MAX,
        compared: shadow::COMPARED_MAX,
    };
    lowering.sets(ruleset);
    lowering.objects(ruleset);
    lowering.maps(ruleset);
    let mut graph = Graph::new(ruleset);
    if lowering.graph(&graph, ruleset) {
        lowering.rules(&graph, ruleset);
        lowering.plant(&mut graph, ruleset);
        lowering.callers(&graph);
        lowering.hooks(ruleset);
        lowering.forwards(&graph);
    }
    lowering.counted_sets();
    lowering.assertions(ruleset);
    lowering.unused_sets(ruleset);
    lowering.unused_objects(ruleset);
    lowering.program
}

impl Lowering<'_> {
    fn refuse<T>(&mut self, span: Span, message: impl Into<String>) -> Option<T> {
        self.diagnostics.error(self.source, span, message);
        None
    }

    fn refuse_with<T>(&mut self, span: Span, message: impl Into<String>, label: Option<String>) -> Option<T> {
        match label {
            Some(label) => self.diagnostics.error_with(self.source, span, message, label),
            None => self.diagnostics.error(self.source, span, message),
        }
        None
    }

    fn warning(&mut self, span: Span, message: String) {
        self.diagnostics.warning(self.source, span, message, None);
    }

    /// Takes one element from the budget.
    fn spend(&mut self, value: &Value) -> Option<()> {
        if self.budget == 0 {
            return None;
        }
        self.budget -= 1;
        if self.budget == 0 {
            let message = format!("the sets of this file have more than {ELEMENTS_MAX} elements");
            return self.refuse(value.span.clone(), message);
        }
        Some(())
    }

    /// Takes as many elements as are gone through again.
    fn spend_many(&mut self, count: usize, span: &Span) -> Option<()> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if self.again < count {
            return self
                .refuse(span.clone(), "large sets are compared with each other too often in this file");
        }
        self.again -= count;
        Some(())
    }

    /// Whether it is no use to look at more elements.
    fn is_spent(&self) -> bool {
        self.budget == 0 || self.diagnostics.is_full()
    }

    fn rule_id(&mut self, span: &Span) -> RuleId {
        let index = self.program.locations.len();
        self.program.locations.push(self.source.line_of(span.start));
        match u16::try_from(index) {
            Ok(id) => RuleId(id),
            Err(_) => {
                if index == usize::from(u16::MAX) + 1 {
                    self.diagnostics.error(
                        self.source,
                        span.clone(),
                        "the file has more than 65536 rules and chains",
                    );
                }
                RuleId(u16::MAX)
            }
        }
    }

    fn counter_id(&mut self, span: &Span) -> CounterId {
        let index = self.program.counters.len();
        self.program.counters.push(self.source.line_of(span.start));
        match u16::try_from(index).ok().filter(|&id| id <= Residue::COUNTER_MAX) {
            Some(id) => CounterId(id),
            None => {
                if index == usize::from(Residue::COUNTER_MAX) + 1 {
                    self.diagnostics.error(
                        self.source,
                        span.clone(),
                        "the file has more than 65534 counters",
                    );
                }
                CounterId(Residue::COUNTER_MAX)
            }
        }
    }
}

/// The chains of tables, counted through.
fn chains(ruleset: &Ruleset) -> impl Iterator<Item = (usize, &Table, &crate::syntax::tree::Chain)> {
    let tables = ruleset.tables.iter().enumerate();
    tables.flat_map(|(index, table)| table.chains.iter().map(move |chain| (index, table, chain)))
}
