//! Matches that can never be true under any caller of their chain.
//!
//! Who calls a chain has matched already; what is left of the packets is a box for each caller. A rule that meets
//! none of the boxes is for nobody.

use std::collections::HashSet;

use rules::table::Action;

use super::graph::Graph;
use super::ranges::intersection;
use super::shadow::{Packets, World, changes};
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

    fn never(&mut self, span: Span, rule: &Rule) {
        let does = rule.steps.iter().any(|step| !matches!(step, Step::Match(_)));
        if does {
            let message = "this can never be true: no caller of the chain leaves it such a packet";
            let label = "if that is meant, say so: comment \"weir: allow shadowed\"".to_owned();
            self.refuse_with::<()>(span, message, Some(label));
        }
    }
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
