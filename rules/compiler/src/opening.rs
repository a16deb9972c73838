//! Short chains for the first packets of sessions, see [`rules::opening`].

use std::collections::HashMap;

use rules::opening::PROTOCOLS;
use rules::table::{Action, Base, Field, NO_PORT};
use rules::{Stage, State};

use crate::program::{Match, Program, Rule, Step};

/// A chain that leaves more rules than this is walked as it is: its trees do as much.
const RULES_MAX: usize = 12;
/// Longer chains leave more than that, or have been narrowed by a tree better than this can.
const CHAIN_MAX: usize = 64;
/// Rules of all short chains together.
const SHARE: usize = 512;
/// Classes of ports; policies that tell more ports apart have no short chains.
const CLASSES_MAX: usize = 12;

/// The short chains of a policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Openings {
    /// The class of each port, and behind the last that of no port.
    pub ports: Vec<u8>,
    pub classes: u8,
    /// By base chain, classes of ports and protocol: behind the chains of the program those of `short`.
    pub chains: Vec<u16>,
    pub short: Vec<Vec<Rule>>,
}

/// What is known of a packet: the values that a field may have.
type Facts<'a> = [(Field, &'a [u32]); 4];
/// What is left of a chain: the places of rules, and of their steps.
type Left = Vec<(usize, Vec<usize>)>;

impl Openings {
    /// The short chains of the base chains of these hooks, which are told where theirs begin.
    pub fn new(program: &Program, hooks: &mut [Vec<Base>; 5]) -> Self {
        let mut openings = Self::default();
        let ports: Vec<u32> = (0..program.interfaces.len() as u32).chain([NO_PORT]).collect();
        let classes = classes(program, hooks, &ports);
        if classes.len() > CLASSES_MAX {
            return openings;
        }
        let class = |port: &u32| classes.iter().position(|class| class.contains(port)).unwrap_or(0) as u8;
        (openings.ports, openings.classes) = (ports.iter().map(class).collect(), classes.len() as u8);
        let mut known = HashMap::new();
        for base in hooks.iter_mut().flatten() {
            if let Some(rules) = chain(program, base) {
                openings.add(base, rules, &classes, (&mut known, program.chains.len()));
            }
        }
        openings
    }

    /// The chains of one base chain, if any is shorter than itself. `known` are those that there are already.
    fn add(
        &mut self,
        base: &mut Base,
        rules: &[Rule],
        classes: &[Vec<u32>],
        (known, before): (&mut HashMap<(u16, Left), u16>, usize),
    ) {
        let mut row = Vec::new();
        for (input, output) in classes.iter().flat_map(|one| classes.iter().map(move |other| (one, other))) {
            for protocols in &protocols() {
                let facts: Facts = [
                    (Field::State, &[State::New.bit()]),
                    (Field::InputPort, input),
                    (Field::OutputPort, output),
                    (Field::Protocol, protocols),
                ];
                let left = (base.chain, left(rules, &facts));
                let chain = match known.get(&left) {
                    Some(&chain) => Some(chain),
                    None if left.1.len() > RULES_MAX || is_whole(rules, &left.1) => None,
                    None => self.keep(short(rules, &left.1), before).inspect(|&chain| {
                        known.insert(left, chain);
                    }),
                };
                row.push(chain.unwrap_or(base.chain));
            }
        }
        if row.iter().any(|&chain| chain != base.chain) {
            base.openings = self.chains.len() as u32;
            self.chains.extend(row);
        }
    }

    /// The number of a new chain, if there is room for it.
    fn keep(&mut self, short: Vec<Rule>, before: usize) -> Option<u16> {
        let rules = self.short.iter().map(Vec::len).sum::<usize>() + short.len();
        let number = u16::try_from(before + self.short.len()).ok().filter(|_| rules <= SHARE)?;
        self.short.push(short);
        Some(number)
    }
}

/// The numbers of protocols by their kinds.
fn protocols() -> [Vec<u32>; PROTOCOLS] {
    let mut kinds = [(); PROTOCOLS].map(|()| Vec::new());
    for number in 0..=u8::MAX {
        kinds[rules::opening::protocol(number)].push(number.into());
    }
    kinds
}

/// The rules of a base chain that may have short chains.
fn chain<'a>(program: &'a Program, base: &Base) -> Option<&'a [Rule]> {
    let rules = program.chains.get(usize::from(base.chain))?;
    // Ahead of tracking no packet is a new session's yet.
    Some(rules.as_slice()).filter(|rules| base.stage != Stage::Untracked && rules.len() <= CHAIN_MAX)
}

/// Ports in classes of those that no rule of the chains tells apart.
fn classes(program: &Program, hooks: &[Vec<Base>; 5], ports: &[u32]) -> Vec<Vec<u32>> {
    let rules = hooks.iter().flatten().filter_map(|base| chain(program, base)).flatten();
    let matches = rules.flat_map(|rule| &rule.steps).filter_map(|step| match step {
        Step::Match(of) if matches!(of.field, Field::InputPort | Field::OutputPort) => Some(of),
        _ => None,
    });
    let matches: Vec<&Match> = matches.collect();
    let mut classes: Vec<(Vec<bool>, Vec<u32>)> = Vec::new();
    for &port in ports {
        let told: Vec<_> = matches.iter().map(|of| of.holds(port)).collect();
        match classes.iter_mut().find(|(others, _)| *others == told) {
            Some((_, class)) => class.push(port),
            None => classes.push((told, vec![port])),
        }
    }
    classes.into_iter().map(|(_, class)| class).collect()
}

/// The rules that packets of which this is known may meet, without the matches that then hold.
fn left(rules: &[Rule], facts: &Facts) -> Left {
    let mut left = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let premises = rule.steps.iter().take_while(|step| matches!(step, Step::Match(_) | Step::Lookup(_)));
        let premises: Vec<_> = premises.map(|step| told(step, facts)).collect();
        if premises.contains(&Some(false)) {
            continue;
        }
        let is_open = |step: &usize| premises.get(*step).is_none_or(Option::is_none);
        let steps: Vec<usize> = (0..rule.steps.len()).filter(is_open).collect();
        let is_last = match steps[..] {
            [only] => matches!(rule.steps[only], Step::Do(action) if !matches!(action, Action::Jump(_))),
            _ => false,
        };
        left.push((place, steps));
        if is_last {
            break;
        }
    }
    left
}

/// Whether all of a chain is left.
fn is_whole(rules: &[Rule], left: &Left) -> bool {
    let is_all = |(rule, (_, steps)): (&Rule, &(usize, Vec<usize>))| rule.steps.len() == steps.len();
    rules.len() == left.len() && rules.iter().zip(left).all(is_all)
}

/// What is left of a chain.
fn short(rules: &[Rule], left: &Left) -> Vec<Rule> {
    let rule = |(place, steps): &(usize, Vec<usize>)| {
        let Rule { id, steps: all } = &rules[*place];
        Rule { id: *id, steps: steps.iter().map(|&step| all[step].clone()).collect() }
    };
    left.iter().map(rule).collect()
}

/// Whether a premise holds, if what is known tells.
fn told(premise: &Step, facts: &Facts) -> Option<bool> {
    let Step::Match(of) = premise else { return None };
    let (_, values) = facts.iter().find(|(field, _)| *field == of.field)?;
    let mut told = values.iter().map(|&value| of.holds(value));
    let first = told.next()?;
    told.all(|other| other == first).then_some(first)
}
