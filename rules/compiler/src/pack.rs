//! A policy as the image has it: rules in words, what they refer to in tables, and trees over long chains.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use rules::code::{Reference, Word, comparison, reference};
use rules::table::{Action, Base, Effect, Field, Rule};

use crate::compiled::shared;
use crate::opening::Openings;
use crate::program::{self, Lookup, Program, Step, Test};
use crate::trees::Forest;

/// The words, and what they refer to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    pub hooks: [Vec<Base>; 5],
    pub openings: Openings,
    pub words: Vec<u32>,
    pub chains: Vec<Chain>,
    pub sets: Vec<Arc<[(u32, u32)]>>,
    pub lookups: Vec<Lookup>,
    pub effects: Vec<Effect>,
    pub actions: Vec<Action>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub rules: Vec<Rule>,
    pub trees: Option<Forest>,
}

/// A table that has each item once, found by what it looks like.
struct Table<'a, T> {
    items: &'a mut Vec<T>,
    places: &'a mut HashMap<String, u16>,
}

impl<T: Debug + Clone> Table<'_, T> {
    fn place(&mut self, item: &T) -> Option<u16> {
        let shown = format!("{item:?}");
        if let Some(&at) = self.places.get(&shown) {
            return Some(at);
        }
        let at = u16::try_from(self.items.len()).ok()?;
        self.items.push(item.clone());
        self.places.insert(shown, at);
        Some(at)
    }
}

/// Where what rules refer to is.
#[derive(Default)]
struct Places {
    sets: HashMap<*const [(u32, u32)], u16>,
    effects: HashMap<String, u16>,
    actions: HashMap<String, u16>,
}

impl Packed {
    /// Packs a policy; nothing if it has more of something than a table can hold.
    pub fn new(program: &Program) -> Option<Self> {
        let sets: Vec<_> = shared(program).into_iter().cloned().collect();
        let numbers = sets.iter().zip(0..=u16::MAX).map(|(set, number)| (Arc::as_ptr(set), number));
        let mut places = Places { sets: numbers.collect(), ..Places::default() };
        let mut hooks = program.hooks.clone();
        let openings = Openings::new(program, &mut hooks);
        let mut packed = Self { hooks, sets, ..Self::default() };
        let forests = program.forests.iter().cloned().chain(std::iter::repeat(None));
        for (rules, trees) in program.chains.iter().zip(forests) {
            let rules = rules.iter().map(|rule| packed.rule(rule, &mut places)).collect::<Option<_>>()?;
            packed.chains.push(Chain { rules, trees });
        }
        // Many of them have the same rules.
        let mut known = HashMap::new();
        for rules in &openings.short {
            let rules = rules.iter().map(|rule| {
                let shown = format!("{:?}", rule.steps);
                let Rule { start, length, .. } = match known.get(&shown) {
                    Some(same) => *same,
                    None => *known.entry(shown).or_insert(packed.rule(rule, &mut places)?),
                };
                Some(Rule { start, length, id: rule.id })
            });
            let rules = rules.collect::<Option<_>>()?;
            packed.chains.push(Chain { rules, trees: None });
        }
        packed.openings = openings;
        Some(packed)
    }

    fn rule(&mut self, rule: &program::Rule, places: &mut Places) -> Option<Rule> {
        let start = u32::try_from(self.words.len()).ok()?;
        for step in likely_to_fail_first(&rule.steps) {
            match step {
                Step::Match(of) => {
                    let test = match &of.test {
                        Test::Equal(value) => Word::Range(*value, *value),
                        Test::Range(first, last) => Word::Range(*first, *last),
                        Test::Masked { mask, value } => Word::Masked { mask: *mask, value: *value },
                        Test::In(set) => Word::In(*places.sets.get(&Arc::as_ptr(set))?),
                    };
                    let (words, length) = comparison(of.field, test, of.negated);
                    self.words.extend(words.into_iter().take(length));
                }
                Step::Lookup(lookup) => {
                    let at = u16::try_from(self.lookups.len()).ok()?;
                    self.lookups.push(lookup.clone());
                    self.words.push(reference(Reference::Lookup(at)));
                }
                Step::Act(effect) => {
                    let mut effects = Table { items: &mut self.effects, places: &mut places.effects };
                    let at = effects.place(effect)?;
                    self.words.push(reference(Reference::Act(at)));
                }
                Step::Count(counter) => self.words.push(reference(Reference::Count(*counter))),
                Step::Do(action) => {
                    let mut actions = Table { items: &mut self.actions, places: &mut places.actions };
                    let at = actions.place(action)?;
                    self.words.push(reference(Reference::Do(at)));
                }
            }
        }
        let length = u16::try_from(self.words.len() - start as usize).ok()?;
        Some(Rule { start, length, id: rule.id })
    }

    /// What its tables take in the image, in octets; the sets of numbers are not counted.
    pub fn octets(&self) -> usize {
        let trees = self.chains.iter().filter_map(|chain| chain.trees.as_ref());
        self.words.len() * size_of::<u32>()
            + self.hooks.iter().map(Vec::len).sum::<usize>() * size_of::<Base>()
            + self.openings.chains.len() * size_of::<u16>()
            + self.openings.ports.len()
            + self.chains.iter().map(|chain| chain.rules.len()).sum::<usize>() * size_of::<Rule>()
            + self.chains.len() * size_of::<rules::table::Chain>()
            + self.sets.len() * size_of::<&[(u32, u32)]>()
            + self.lookups.len() * size_of::<rules::table::Lookup>()
            + self.effects.len() * size_of::<Effect>()
            + self.actions.len() * size_of::<Action>()
            + trees.map(Forest::octets).sum::<usize>()
    }
}

/// The steps of a rule, with those first that most packets fail at. Matches have no effect, so that between two steps
/// that have one their order is ours to choose.
fn likely_to_fail_first(steps: &[Step]) -> impl Iterator<Item = &Step> {
    let is_premise = |step: &Step| matches!(step, Step::Match(_) | Step::Lookup(_));
    steps.chunk_by(move |one, other| is_premise(one) && is_premise(other)).flat_map(|run| {
        let mut run: Vec<_> = run.iter().collect();
        run.sort_by_key(|step| likelihood(step));
        run
    })
}

/// Orders matches by how many packets may pass them, and by what they cost.
fn likelihood(step: &Step) -> u8 {
    let Step::Match(of) = step else { return 5 };
    // A range of ports.
    let is_wide = match of.test {
        Test::Range(first, last) => last - first >= 1 << 15 && last <= 0xffff,
        _ => false,
    };
    match (of.field, &of.test) {
        _ if is_wide || of.negated => 4,
        // A rule is seldom for other ports than those that most packets take.
        (Field::InputPort | Field::OutputPort, _) => 3,
        (_, Test::In(_)) => 2,
        (Field::Protocol | Field::State, _) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Match;

    #[test]
    fn matches_change_places_among_themselves_and_never_with_what_has_an_effect() {
        let of = |field, test| Step::Match(Match { field, test, negated: false });
        let input = of(Field::InputPort, Test::Equal(1));
        let tcp = of(Field::Protocol, Test::Equal(6));
        let port = of(Field::DestinationPort, Test::Equal(25));
        let any_port = of(Field::DestinationPort, Test::Range(1, 65_535));
        let (count, end) = (Step::Count(rules::CounterId(0)), Step::Do(Action::Accept));
        let steps = [&input, &any_port, &tcp, &port, &count, &input, &tcp, &end].map(Step::clone);
        let ordered: Vec<_> = likely_to_fail_first(&steps).collect();
        assert_eq!(ordered, [&port, &tcp, &input, &any_port, &count, &tcp, &input, &end]);
    }
}
