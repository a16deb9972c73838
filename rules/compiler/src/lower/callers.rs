//! Matches that can never be true under any caller of their chain.
//!
//! Who calls a chain has matched already; what is left of the packets is a box for each caller. A rule that meets
//! none of the boxes is for nobody.

use std::collections::HashSet;

use rules::table::{Action, Effect};

use super::graph::Graph;
use super::ranges::intersection;
use super::shadow::{Packets, Told, World, changes};
use super::{Lowering, Span};
use crate::program::{Rule, Step};

/// A chain that is called in more ways than this is taken to be called with whatever packets.
const CALLS_MAX: usize = 64;

/// The packets of a rule that are among those of a caller.
fn both(caller: &Packets, own: &Packets) -> Packets {
    let mut both = caller.clone();
    for (field, ranges) in &own.0 {
        match both.0.iter_mut().find(|(of, _)| of == field) {
            Some((_, values)) => *values = intersection(values, ranges).into(),
            None => both.0.push((*field, ranges.clone())),
        }
    }
    both
}

impl Lowering<'_> {
    /// Looks for rules that no caller of their chain leaves a packet.
    pub(super) fn callers(&mut self, graph: &Graph) {
        if !self.plan.is_sound || self.diagnostics.errors() > 0 {
            return;
        }
        let chains = std::mem::take(&mut self.program.chains);
        let told = std::mem::take(&mut self.told);
        self.behind_jumps(graph, &chains, &told);
        let mut calls: Vec<Option<Vec<Packets>>> = vec![Some(Vec::new()); chains.len()];
        let mut called = HashSet::new();
        for &chain in graph.order() {
            let own_calls = calls.get_mut(chain).and_then(Option::take);
            // A base chain, or one that is called in too many ways, has whatever packets.
            let boxes = match own_calls {
                Some(boxes) if called.contains(&chain) => boxes,
                _ => vec![Packets(Vec::new())],
            };
            let Some(&context) = graph.contexts.get(chain) else { continue };
            let last_port = u32::try_from(self.plan.clients.len()).unwrap_or(u32::MAX);
            let world = World { context: &context, last_port };
            let spans = told.get(chain).map_or(&[][..], Vec::as_slice);
            for (at, rule) in chains.get(chain).into_iter().flatten().enumerate() {
                let own = of_rule(rule, &world);
                let left: Vec<Packets> = boxes
                    .iter()
                    .map(|caller| both(caller, &own))
                    .filter(|packets| !packets.is_none())
                    .collect();
                let size: usize = left.iter().map(Packets::size).sum();
                let span = spans.get(at).map_or(0..0, |told| told.span.clone());
                if self.compare(size + boxes.len(), &span).is_none() {
                    self.program.chains = chains;
                    return;
                }
                let is_known =
                    called.contains(&chain) && spans.get(at).is_some_and(|told| !told.allows_shadowed);
                if left.is_empty() && is_known && !own.is_none() && !own.names_loopback() {
                    self.never(span, rule);
                }
                if let Some(Step::Do(Action::Jump(target) | Action::Goto(target))) = rule.steps.last() {
                    let target = usize::from(*target);
                    called.insert(target);
                    add(calls.get_mut(target), left);
                }
            }
        }
        self.program.chains = chains;
    }

    /// Looks for rules behind a jump to a chain that ends all packets.
    fn behind_jumps(&mut self, graph: &Graph, chains: &[Vec<Rule>], told: &[Vec<Told>]) {
        let mut ends_all = vec![false; chains.len()];
        for &chain in graph.order().iter().rev() {
            let (Some(rules), Some(told)) = (chains.get(chain), told.get(chain)) else { continue };
            let ends = |to: u16| ends_all.get(usize::from(to)).copied().unwrap_or(false);
            let Some((at, is_whole)) = ending(rules, told, ends) else { continue };
            if let Some(ends_all) = ends_all.get_mut(chain) {
                *ends_all = is_whole;
            }
            let jumps =
                matches!(rules.get(at).and_then(|rule| rule.steps.last()), Some(Step::Do(Action::Jump(_))));
            let next = told.get(at + 1).filter(|next| jumps && !next.allows_shadowed);
            if let (Some(next), Some(jump)) = (next, told.get(at)) {
                let line = self.source.line_beside(self.source.line_of(jump.span.start), &next.span);
                let message = format!(
                    "no packet comes to this rule: the chain that the one of {line} jumps to ends all"
                );
                let label = "if that is meant, say so: comment \"weir: allow shadowed\"".to_owned();
                self.refuse_with::<()>(next.span.clone(), message, Some(label));
            }
        }
    }

    fn never(&mut self, span: Span, rule: &Rule) {
        let does = rule.steps.iter().any(|step| !matches!(step, Step::Match(_)));
        if does {
            let message = "this can never be true: no caller of the chain leaves it such a packet";
            let label = "if that is meant, say so: comment \"weir: allow shadowed\"".to_owned();
            self.refuse_with::<()>(span, message, Some(label));
        }
    }
}

/// The first rule of a chain that no packet leaves behind, and whether none went back to the caller ahead of it.
fn ending(rules: &[Rule], told: &[Told], ends: impl Fn(u16) -> bool) -> Option<(usize, bool)> {
    let mut is_whole = true;
    for (at, (rule, told)) in rules.iter().zip(told).enumerate() {
        let Some(Step::Do(action)) = rule.steps.last() else { continue };
        let takes_all = |step: &Step| {
            matches!(
                step,
                Step::Count(_)
                    | Step::Do(_)
                    | Step::Act(Effect::Log(_) | Effect::Mark(_) | Effect::Segment(_))
            )
        };
        let is_final = match action {
            Action::Return => false,
            Action::Jump(to) | Action::Goto(to) => ends(*to),
            _ => true,
        };
        if is_final && !told.is_ipv4 && rule.steps.iter().all(takes_all) {
            return Some((at, is_whole));
        }
        is_whole &= !matches!(action, Action::Return | Action::Goto(_)) || is_final;
    }
    None
}

/// More ways in which a chain is called.
fn add(calls: Option<&mut Option<Vec<Packets>>>, more: Vec<Packets>) {
    let Some(calls) = calls else { return };
    if let Some(boxes) = calls {
        boxes.extend(more);
        if boxes.len() > CALLS_MAX {
            *calls = None;
        }
    }
}

/// The packets that the first matches of a rule let through, as far as that can be said.
fn of_rule(rule: &Rule, world: &World) -> Packets {
    let mut packets = Packets(Vec::new());
    for step in &rule.steps {
        let Step::Match(wanted) = step else { continue };
        if changes(wanted.field) {
            continue;
        }
        if let Some(ranges) = world.lets_through(wanted) {
            packets = both(&packets, &Packets(vec![(wanted.field, ranges)]));
        }
    }
    packets
}
