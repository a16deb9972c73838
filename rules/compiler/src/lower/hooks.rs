//! Base chains: which run at a hook, and in what order.

use std::collections::HashSet;

use rules::Hook;
use rules::table::{Action, Base, Field, Kind, Stage};

use super::{Lowering, chains};
use crate::explain;
use crate::program::Step;
use crate::syntax::tree::{BaseSpec, Family, Ruleset};

/// Whether the translation of sources changes a field.
fn is_of_source(field: Field) -> bool {
    matches!(
        field,
        Field::Source
            | Field::SourcePort
            | Field::Status
            | Field::ReplySource
            | Field::ReplyDestination
            | Field::ReplySourcePort
            | Field::ReplyDestinationPort
    )
}

/// What a hook calls: a filter chain, or all nat chains together.
struct Entry {
    priority: i32,
    bases: Vec<(i32, Base)>,
    kind: Kind,
}

/// Puts a base chain where the kernel does: ahead of those with the same priority.
fn insert<T>(list: &mut Vec<T>, item: T, priority: impl Fn(&T) -> i32) {
    let at = list.iter().position(|other| priority(&item) <= priority(other)).unwrap_or(list.len());
    list.insert(at, item);
}

/// Where the kernel finds out which session a packet belongs to.
const TRACKING: i32 = -200;

/// Where the kernel translates, whatever the priorities of nat chains among each other.
fn nat_priority(hook: Hook) -> i32 {
    match hook {
        Hook::Prerouting | Hook::Output => -100,
        Hook::Input | Hook::Forward | Hook::Postrouting => 100,
    }
}

impl Lowering<'_> {
    /// Sorts the base chains of each hook.
    pub(super) fn hooks(&mut self, ruleset: &Ruleset) {
        let mut bases = Vec::new();
        for (at, (_, table, chain)) in chains(ruleset).enumerate() {
            let Some(spec) = &chain.base else {
                if chain.policy.is_some() && !chain.names_hook {
                    self.refuse::<()>(chain.span.clone(), "a chain without a hook has no policy");
                }
                continue;
            };
            if table.family == Family::Ip6 {
                continue;
            }
            let id = self.rule_id(&spec.span);
            let Ok(index) = u16::try_from(at) else {
                self.refuse::<()>(chain.span.clone(), "the file has more than 65536 chains");
                return;
            };
            let (kind, accepts) = (spec.kind, chain.policy.unwrap_or(true));
            // Where it stands among the others is told when they are sorted.
            let base = Base {
                kind,
                stage: Stage::Translated,
                chain: index,
                openings: Base::NO_OPENINGS,
                accepts,
                id,
            };
            self.program.priorities.push((id, spec.priority));
            bases.push((spec, base));
        }
        bases.sort_by_key(|(spec, _)| spec.order);
        for hook in Hook::ALL {
            let of_hook: Vec<_> = bases.iter().filter(|(spec, _)| spec.hook == hook).cloned().collect();
            if hook == Hook::Postrouting {
                self.after_srcnat(&of_hook);
            }
            self.program.hooks[hook as usize] = sorted(hook, &of_hook);
        }
        self.forward_is_filtered(ruleset);
    }

    /// Behind the translation a chain would see the new source, which is chosen when all rules have spoken: it may
    /// look at anything else.
    fn after_srcnat(&mut self, bases: &[(&BaseSpec, Base)]) {
        if !bases.iter().any(|(spec, _)| spec.kind == Kind::Nat) {
            return;
        }
        let behind = bases
            .iter()
            .filter(|(spec, _)| spec.kind == Kind::Filter && spec.priority >= nat_priority(spec.hook));
        for (spec, base) in behind {
            let Some((line, field)) = self.asks_for_source(base.chain) else { continue };
            let line = self.source.line_beside(line, &spec.span);
            let message = format!(
                "a filter chain at postrouting behind srcnat would see translated sources, which are chosen only after all rules: {line} asks for {}",
                explain::name(field)
            );
            let label = "put it ahead of srcnat (a priority below 100), and match ip saddr as it is before translation";
            self.refuse_with::<()>(spec.span.clone(), message, Some(label.to_owned()));
        }
    }

    /// A rule behind this chain that looks at what the translation of sources changes: its line, and what that is.
    fn asks_for_source(&self, chain: u16) -> Option<(u32, Field)> {
        let mut seen = HashSet::from([chain]);
        let mut left = vec![chain];
        while let Some(chain) = left.pop() {
            for rule in self.program.chains.get(usize::from(chain))? {
                let mut fields = rule.steps.iter().flat_map(Step::fields);
                if let Some(field) = fields.find(|&field| is_of_source(field)) {
                    return Some((*self.program.locations.get(usize::from(rule.id.0))?, field));
                }
                if let Some(Step::Do(Action::Jump(to) | Action::Goto(to))) = rule.steps.last()
                    && seen.insert(*to)
                {
                    left.push(*to);
                }
            }
        }
        None
    }

    fn forward_is_filtered(&mut self, ruleset: &Ruleset) {
        let is_filtered = !self.program.hooks[Hook::Forward as usize].is_empty();
        if is_filtered || ruleset.allows_open || !ruleset.is_whole {
            return;
        }
        let label = Some("if that is meant, say so: # weir: allow open".to_owned());
        self.refuse_with::<()>(0..0, "no chain is on forward: everything would pass", label);
    }
}

fn sorted(hook: Hook, bases: &[(&BaseSpec, Base)]) -> Vec<Base> {
    let mut entries: Vec<Entry> = Vec::new();
    for (spec, base) in bases {
        let item = (spec.priority, *base);
        let nat = entries.iter_mut().find(|entry| entry.kind == Kind::Nat);
        match (spec.kind, nat) {
            (Kind::Nat, Some(nat)) => insert(&mut nat.bases, item, |(priority, _)| *priority),
            (kind, _) => {
                let priority = if kind == Kind::Nat { nat_priority(hook) } else { spec.priority };
                insert(&mut entries, Entry { priority, bases: vec![item], kind }, |entry| entry.priority);
            }
        }
    }
    let translation = entries.iter().position(|entry| entry.kind == Kind::Nat);
    let mut sorted = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let stage = match translation.map(|translation| at <= translation) {
            _ if hook != Hook::Prerouting => Stage::Translated,
            _ if entry.priority <= TRACKING => Stage::Untracked,
            Some(true) => Stage::Received,
            Some(false) => Stage::Translated,
            None if entry.priority <= nat_priority(hook) => Stage::Received,
            None => Stage::Translated,
        };
        sorted.extend(entry.bases.into_iter().map(|(_, base)| Base { stage, ..base }));
    }
    sorted
}
