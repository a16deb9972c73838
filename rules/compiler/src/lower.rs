//! From the tree of `rules.nft` to tables: names are resolved, types and hooks checked, chains put in order.

mod forwards;
mod graph;
mod hooks;
mod map;
mod matches;
mod ranges;
mod rule;
mod shadow;
mod translation;
mod value;

use std::collections::{HashMap, HashSet};

use rules::Residue;
use rules::table::{CounterId, Field, RuleId};

use crate::diagnostics::{Diagnostics, meant, quoted};
use crate::plan::Plan;
use crate::program::{Program, Step};
use crate::source::Source;
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{Family, NamedSet, Ruleset, Span, Table, Value};
use graph::Graph;
pub(crate) use ranges::normalise;
use ranges::{Ranges, Shared};

/// The most elements that all sets of a file may have, defines written out.
const ELEMENTS_MAX: u32 = 1 << 20;

/// The most steps that a packet may take at one hook.
const STEPS_MAX: u64 = 1_000_000;

/// Where a chain stands: what reaches it, and what its table holds.
#[derive(Debug, Clone, Copy)]
struct Context {
    family: Family,
    /// The kinds and hooks of the base chains that reach it, see [`matches::bit`].
    reached: u32,
    /// Whether one of them runs before connections are known.
    is_early: bool,
    /// The index of its table.
    table: usize,
}

/// What the matches of a rule have established so far.
#[derive(Debug, Clone, Default)]
struct Premises {
    steps: Vec<Step>,
    known: Vec<Known>,
    is_ipv4: bool,
    /// A match on the family itself said so.
    is_ipv4_told: bool,
    /// No IPv4 packet comes this far.
    is_never: bool,
}

/// The values that a field has left.
#[derive(Debug, Clone)]
struct Known {
    field: Field,
    ranges: Shared,
    negated: bool,
    max: u32,
}

/// A named set with its elements.
struct Set {
    datatype: Option<Datatype>,
    ranges: Option<Shared>,
    is_used: bool,
}

struct Lowering<'a> {
    source: &'a Source,
    plan: &'a Plan,
    diagnostics: &'a mut Diagnostics,
    program: Program,
    /// The sets of each table.
    sets: Vec<HashMap<String, Set>>,
    /// The table that is being lowered.
    table: usize,
    /// The maps of tables in which something is wrong, and was told.
    unsound_maps: HashSet<(usize, String)>,
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
    let mut lowering = Lowering {
        source,
        plan,
        diagnostics,
        program: Program { files: source.files(), ..Program::default() },
        sets: Vec::new(),
        table: 0,
        unsound_maps: HashSet::new(),
        budget: ELEMENTS_MAX,
        again: 16 * ELEMENTS_MAX,
        compared: shadow::COMPARED_MAX,
    };
    lowering.sets(ruleset);
    lowering.maps(ruleset);
    let graph = Graph::new(ruleset);
    if lowering.graph(&graph, ruleset) {
        lowering.rules(&graph, ruleset);
        lowering.hooks(ruleset);
        lowering.forwards(&graph);
    }
    lowering.unused_sets(ruleset);
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

    fn sets(&mut self, ruleset: &Ruleset) {
        for table in &ruleset.tables {
            if table.family == Family::Ip6 {
                let message = format!(
                    "table ip6 {}: no IPv6 packet is forwarded by this version, and no IPv4 packet meets this table",
                    table.name
                );
                self.warning(table.span.clone(), message);
            }
            let sets = table.sets.iter().map(|set| (set.name.clone(), self.set(set))).collect();
            self.sets.push(sets);
        }
    }

    fn set(&mut self, set: &NamedSet) -> Set {
        self.program.sets += 1;
        let ranges = set.datatype.and_then(|datatype| self.set_ranges(set, datatype));
        Set { datatype: set.datatype, ranges: ranges.map(Shared::from), is_used: false }
    }

    fn set_ranges(&mut self, set: &NamedSet, datatype: Datatype) -> Option<Ranges> {
        let mut ranges = Ranges::new();
        for elements in &set.elements {
            self.collect(elements, datatype, &mut ranges)?;
        }
        let has_runs = set.elements.iter().any(|elements| value::has_runs(elements, self.source));
        if !set.is_interval && has_runs {
            return self.refuse(set.span.clone(), "a set with ranges or prefixes needs \"flags interval\"");
        }
        let (ranges, overlaps) = normalise(ranges);
        if overlaps && !set.merges {
            return self.refuse(
                set.span.clone(),
                "elements of this set repeat or overlap, and it has no auto-merge",
            );
        }
        if ranges.is_empty() {
            self.warning(set.span.clone(), format!("set {} is empty", quoted(&set.name)));
        }
        Some(ranges)
    }

    /// The elements of `@name`.
    fn named_set(&mut self, span: &Span, datatype: Datatype) -> Option<Shared> {
        let name = self.source.slice(span).trim_start_matches('@');
        let sets = self.sets.get_mut(self.table)?;
        let Some(set) = sets.get_mut(name) else {
            let mut known: Vec<_> = sets.keys().map(String::as_str).collect();
            known.sort_unstable();
            let label = meant(name, known);
            return self.refuse_with(
                span.clone(),
                format!("there is no set {} in this table", quoted(name)),
                label,
            );
        };
        set.is_used = true;
        let held = set.datatype?;
        if held != datatype {
            let message = format!("set {} holds {}, not {}", quoted(name), held.name(), datatype.name());
            return self.refuse(span.clone(), message);
        }
        set.ranges.clone()
    }

    fn unused_sets(&mut self, ruleset: &Ruleset) {
        let unused: Vec<_> = ruleset
            .tables
            .iter()
            .zip(&self.sets)
            .flat_map(|(table, sets)| table.sets.iter().map(move |set| (set, sets.get(&set.name))))
            .filter(|(_, held)| held.is_some_and(|held| !held.is_used))
            .map(|(set, _)| (set.span.clone(), format!("set {} is never used", quoted(&set.name))))
            .collect();
        // With errors, a use may have been lost.
        if self.diagnostics.errors() == 0 {
            for (span, message) in unused {
                self.warning(span, message);
            }
        }
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
