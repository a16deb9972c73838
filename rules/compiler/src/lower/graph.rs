//! Who jumps to whom: loops, depth, cost, and the hooks that reach a chain.

use std::collections::{HashMap, HashSet};

use rules::Hook;
use rules::table::Kind;

use super::layers::bit;
use super::{Context, Lowering, STEPS_MAX, chains};
use crate::diagnostics::{meant, quoted};
use crate::syntax::tree::{BaseSpec, Elements, Family, Rule, Ruleset, Span};
use crate::trees::Forest;

/// The most nested jumps, NFT_JUMP_STACK_SIZE less the base chain.
const JUMPS_MAX: usize = 15;

/// Whether a base chain runs before connections are known.
fn is_early(base: &BaseSpec) -> bool {
    base.priority <= -200 && matches!(base.hook, Hook::Prerouting | Hook::Output)
}

/// A jump or goto.
struct Edge {
    to: Option<usize>,
    name: String,
    span: Span,
    /// The block of the rule that leads there.
    block: usize,
}

/// The chains of all tables as one graph; a chain is named by its place among all.
pub(super) struct Graph {
    edges: Vec<Vec<Edge>>,
    /// Steps of a chain's own rules.
    own_steps: Vec<u64>,
    pub contexts: Vec<Context>,
    /// Callers ahead of whom they call; empty when there is a loop.
    order: Vec<usize>,
    index: HashMap<(usize, String), usize>,
}

impl Graph {
    pub fn new(ruleset: &Ruleset) -> Self {
        let index: HashMap<_, _> = chains(ruleset)
            .enumerate()
            .map(|(at, (table, _, chain))| ((table, chain.name.clone()), at))
            .collect();
        let mut graph =
            Self { edges: Vec::new(), own_steps: Vec::new(), contexts: Vec::new(), order: Vec::new(), index };
        for (table, of, chain) in chains(ruleset) {
            let statements = chain
                .rules
                .iter()
                .flat_map(|rule| rule.statements.iter().map(|statement| (rule.block, statement)));
            let verdicts = statements.flat_map(|(block, statement)| {
                statement.what.verdicts().into_iter().map(move |what| (block, what))
            });
            let edges = verdicts.filter_map(|(block, what)| what.chain().map(|chain| (block, chain)));
            let edges = edges.map(|(block, (name, span))| Edge {
                to: graph.find(table, name),
                name: name.to_owned(),
                span: span.clone(),
                block,
            });
            let edges = edges.collect();
            graph.edges.push(edges);
            graph.own_steps.push(chain.rules.iter().map(steps).sum::<u64>() + 1);
            let base = chain.base.as_ref();
            graph.contexts.push(Context {
                family: of.family,
                reached: base.map_or(0, |base| bit(base.kind, base.hook)),
                is_early: base.is_some_and(is_early),
                is_late: base.is_some_and(|base| !is_early(base)),
                table,
            });
        }
        graph.order = graph.topological();
        graph.spread();
        graph
    }

    pub fn find(&self, table: usize, name: &str) -> Option<usize> {
        self.index.get(&(table, name.to_owned())).copied()
    }

    /// Every chain, callers ahead of whom they call.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    fn targets(&self, chain: usize) -> impl Iterator<Item = usize> {
        self.edges.get(chain).into_iter().flatten().filter_map(|edge| edge.to)
    }

    /// Callers first (Kahn's algorithm); what is on a loop, or behind one, is left out.
    fn topological(&self) -> Vec<usize> {
        let count = self.edges.len();
        let mut callers = vec![0usize; count];
        for target in (0..count).flat_map(|chain| self.targets(chain)) {
            callers[target] += 1;
        }
        let mut order: Vec<usize> = (0..count).filter(|&chain| callers[chain] == 0).collect();
        let mut next = 0;
        while let Some(&chain) = order.get(next) {
            next += 1;
            for target in self.targets(chain) {
                callers[target] -= 1;
                if callers[target] == 0 {
                    order.push(target);
                }
            }
        }
        order
    }

    /// Tells each chain which hooks reach it.
    fn spread(&mut self) {
        for &chain in &self.order {
            let Context { reached, is_early, is_late, .. } = self.contexts[chain];
            for target in self.edges[chain].iter().filter_map(|edge| edge.to) {
                self.contexts[target].reached |= reached;
                self.contexts[target].is_early |= is_early;
                self.contexts[target].is_late |= is_late;
            }
        }
    }

    /// A jump on a loop, if there is a loop.
    fn looping(&self) -> Option<&Edge> {
        let mut is_sorted = vec![false; self.edges.len()];
        for &chain in &self.order {
            is_sorted[chain] = true;
        }
        // Of the chains left, follow a caller that is left too until one is met again.
        let mut callers = HashMap::new();
        for chain in (0..self.edges.len()).filter(|&chain| !is_sorted[chain]) {
            for edge in self.edges[chain].iter() {
                if let Some(target) = edge.to.filter(|&target| !is_sorted[target]) {
                    callers.entry(target).or_insert((chain, edge));
                }
            }
        }
        let mut at = (0..self.edges.len()).find(|&chain| !is_sorted[chain])?;
        let mut is_met = vec![false; self.edges.len()];
        loop {
            let &(caller, edge) = callers.get(&at)?;
            if is_met[at] {
                return Some(edge);
            }
            is_met[at] = true;
            at = caller;
        }
    }

    /// The first jump that is nested too deep, if there is one.
    fn too_deep(&self) -> Option<&Edge> {
        let mut depth: Vec<usize> = vec![0; self.edges.len()];
        for &chain in &self.order {
            if self.contexts[chain].reached == 0 {
                continue;
            }
            for edge in &self.edges[chain] {
                let Some(target) = edge.to else { continue };
                depth[target] = depth[target].max(depth[chain] + 1);
                if depth[target] > JUMPS_MAX {
                    return Some(edge);
                }
            }
        }
        None
    }

    /// The base chains that IPv4 packets meet, with the most steps that a packet takes from each on.
    fn base_steps<'a>(&self, ruleset: &'a Ruleset) -> impl Iterator<Item = (&'a BaseSpec, u64)> {
        let of_chains = chains(ruleset).zip(self.steps());
        let of_ipv4 = of_chains.filter(|((_, table, _), _)| table.family != Family::Ip6);
        of_ipv4.filter_map(|((.., chain), steps)| Some((chain.base.as_ref()?, steps)))
    }

    /// The most steps a packet takes from each chain on.
    fn steps(&self) -> Vec<u64> {
        let mut steps = self.own_steps.clone();
        for &chain in self.order.iter().rev() {
            let below = self.targets(chain).fold(0u64, |sum, target| sum.saturating_add(steps[target]));
            steps[chain] = steps[chain].saturating_add(below);
        }
        steps
    }
}

impl Lowering<'_> {
    /// Judges the graph; false when it is no use to look at rules.
    pub(super) fn graph(&mut self, graph: &Graph, ruleset: &Ruleset) -> bool {
        self.jump_targets(graph, ruleset);
        let name = |edge: &Edge| quoted(&edge.name);
        if let Some(edge) = graph.looping() {
            let message = format!("chain {} comes back to itself by this jump", name(edge));
            self.refuse::<()>(edge.span.clone(), message);
            return false;
        }
        if let Some(edge) = graph.too_deep() {
            let message = format!("more than {JUMPS_MAX} nested jumps, here to chain {}", name(edge));
            self.refuse::<()>(edge.span.clone(), message);
            return false;
        }
        self.unreachable(graph, ruleset);
        self.costs(graph, ruleset);
        true
    }

    fn jump_targets(&mut self, graph: &Graph, ruleset: &Ruleset) {
        let tables = chains(ruleset).map(|(table, ..)| table);
        let edges =
            tables.zip(&graph.edges).flat_map(|(table, edges)| edges.iter().map(move |edge| (table, edge)));
        let jumps = edges.map(|(table, edge)| (table, edge.name.as_str(), &edge.span, edge.block));
        let of_maps = jumps_of_maps(ruleset).map(|(table, name, span)| (table, name, span, usize::MAX));
        // A named map is told once, whoever looks into it.
        let mut told = HashSet::new();
        for (table, name, span, block) in jumps.chain(of_maps) {
            if self.diagnostics.is_full() {
                return;
            }
            if told.insert(span.start) {
                self.jump_target(graph, ruleset, (table, name, span), block);
            }
        }
    }

    fn jump_target(
        &mut self,
        graph: &Graph,
        ruleset: &Ruleset,
        (table, name, span): (usize, &str, &Span),
        block: usize,
    ) {
        let Some(of) = ruleset.tables.get(table) else { return };
        let chain = of.chain_index.get(name).and_then(|&at| of.chains.get(at));
        match (graph.find(table, name), chain) {
            (Some(_), Some(chain)) if chain.base.is_some() => {
                let message = format!("chain {} belongs to a hook; no jump leads there", quoted(name));
                self.refuse::<()>(span.clone(), message);
            }
            (Some(_), Some(chain)) if chain.block > block => {
                let message =
                    format!("chain {} is in a later block, which nft has not read yet", quoted(name));
                self.refuse::<()>(span.clone(), message);
            }
            (Some(_), _) => {}
            (None, _) => {
                let known = of.chains.iter().filter(|chain| chain.base.is_none());
                let label = meant(name, known.map(|chain| chain.name.as_str()));
                let message = format!("there is no chain {} in this table", quoted(name));
                // A chain that could not be read may be the one.
                if ruleset.is_whole || label.is_some() {
                    self.refuse_with::<()>(span.clone(), message, label);
                }
            }
        }
    }

    /// Refuses chains that nobody calls; those behind them are no errors of their own.
    fn unreachable(&mut self, graph: &Graph, ruleset: &Ruleset) {
        let mut is_called = vec![false; graph.edges.len()];
        for target in (0..graph.edges.len()).flat_map(|chain| graph.targets(chain)) {
            is_called[target] = true;
        }
        // What could not be read may hold the jump.
        let chains = chains(ruleset).zip(is_called).filter(|_| ruleset.is_whole);
        for ((_, _, chain), is_called) in chains {
            if is_called
                || chain.base.is_some()
                || chain.names_hook
                || chain.allows_unreachable
                || self.diagnostics.is_full()
            {
                continue;
            }
            let message = format!("chain {} has no hook, and no jump leads there", quoted(&chain.name));
            let label = "if that is meant, say so in it: comment \"weir: allow unreachable\"";
            self.refuse_with::<()>(chain.span.clone(), message, Some(label.to_owned()));
        }
    }

    fn costs(&mut self, graph: &Graph, ruleset: &Ruleset) {
        let mut by_hook = [0u64; 5];
        for (base, steps) in graph.base_steps(ruleset) {
            let sum = &mut by_hook[base.hook as usize];
            let before = *sum;
            *sum = sum.saturating_add(steps);
            if before <= STEPS_MAX && *sum > STEPS_MAX {
                let message = format!("a packet may take more than {STEPS_MAX} steps at this hook");
                self.refuse::<()>(base.span.clone(), message);
            }
        }
    }

    /// Plants trees over the chains that are long, and counts the steps that are left.
    pub(super) fn plant(&mut self, graph: &mut Graph, ruleset: &Ruleset) {
        if self.diagnostics.errors() > 0 {
            return;
        }
        self.program.forests = self.program.chains.iter().map(|rules| Forest::plant(rules)).collect();
        for (steps, forest) in graph.own_steps.iter_mut().zip(&self.program.forests) {
            if let Some(forest) = forest {
                *steps = forest.steps.min(*steps);
            }
        }
        let mut by_hook = [0u64; 5];
        for (base, steps) in graph.base_steps(ruleset) {
            let sum = &mut by_hook[base.hook as usize];
            *sum = sum.saturating_add(steps);
        }
        self.program.steps = by_hook.into_iter().max().unwrap_or(0);
    }
}

/// Where named maps lead, with their tables.
fn jumps_of_maps(ruleset: &Ruleset) -> impl Iterator<Item = (usize, &str, &Span)> {
    let maps = ruleset.tables.iter().enumerate();
    let maps = maps.flat_map(|(table, of)| of.maps.iter().map(move |map| (table, map)));
    let items = maps.flat_map(|(table, map)| {
        let items = if let Elements::Verdicts(items) = &map.elements { items.as_slice() } else { &[] };
        items.iter().map(move |item| (table, item))
    });
    items.filter_map(|(table, item)| item.to.chain().map(|(name, span)| (table, name, span)))
}

/// The most steps of a rule. A match may need one more for its protocol; each element of a map is tried.
fn steps(rule: &Rule) -> u64 {
    let width = rule.statements.iter().map(|statement| statement.what.width()).max().unwrap_or(1);
    let tries = if width > 1 { width as u64 + 1 } else { 1 };
    tries.saturating_mul(rule.statements.len() as u64 * 2)
}

/// Whether base chains of this kind and these hooks alone reach the chain.
pub(super) fn reached_only_by(context: &Context, allowed: &[(Kind, Hook)]) -> bool {
    let inside = allowed.iter().fold(0, |bits, &(kind, hook)| bits | bit(kind, hook));
    context.reached & !inside == 0
}
