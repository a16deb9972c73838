//! A policy as the image has it: rules in words, what they refer to in tables, and trees over long chains.

use std::collections::HashMap;
use std::sync::Arc;

use rules::code::{Reference, Word, comparison, reference};
use rules::table::{Action, Effect, Rule};

use crate::compiled::shared;
use crate::program::{self, Lookup, Program, Step, Test};
use crate::trees::Forest;

/// The words, and what they refer to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
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

/// The place of an item in a table that has each once.
fn place<T: PartialEq + Clone>(table: &mut Vec<T>, item: &T) -> Option<u16> {
    let at = table.iter().position(|other| other == item).unwrap_or_else(|| {
        table.push(item.clone());
        table.len() - 1
    });
    u16::try_from(at).ok()
}

impl Packed {
    /// Packs a policy; nothing if it has more of something than a table can hold.
    pub fn new(program: &Program) -> Option<Self> {
        let sets: Vec<_> = shared(program).into_iter().cloned().collect();
        let numbers: Numbers =
            sets.iter().zip(0..=u16::MAX).map(|(set, number)| (Arc::as_ptr(set), number)).collect();
        let mut packed = Self { sets, ..Self::default() };
        let forests = program.forests.iter().cloned().chain(std::iter::repeat(None));
        for (rules, trees) in program.chains.iter().zip(forests) {
            let rules = rules.iter().map(|rule| packed.rule(rule, &numbers)).collect::<Option<_>>()?;
            packed.chains.push(Chain { rules, trees });
        }
        Some(packed)
    }

    fn rule(&mut self, rule: &program::Rule, sets: &Numbers) -> Option<Rule> {
        let start = u32::try_from(self.words.len()).ok()?;
        for step in &rule.steps {
            match step {
                Step::Match(of) => {
                    let test = match &of.test {
                        Test::Equal(value) => Word::Range(*value, *value),
                        Test::Range(first, last) => Word::Range(*first, *last),
                        Test::Masked { mask, value } => Word::Masked { mask: *mask, value: *value },
                        Test::In(set) => Word::In(*sets.get(&Arc::as_ptr(set))?),
                    };
                    let (words, length) = comparison(of.field, test, of.negated);
                    self.words.extend(words.into_iter().take(length));
                }
                Step::Lookup(lookup) => {
                    let at = place(&mut self.lookups, lookup)?;
                    self.words.push(reference(Reference::Lookup(at)));
                }
                Step::Act(effect) => {
                    let at = place(&mut self.effects, effect)?;
                    self.words.push(reference(Reference::Act(at)));
                }
                Step::Count(counter) => self.words.push(reference(Reference::Count(*counter))),
                Step::Do(action) => {
                    let at = place(&mut self.actions, action)?;
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
            + self.chains.iter().map(|chain| chain.rules.len()).sum::<usize>() * size_of::<Rule>()
            + self.chains.len() * size_of::<rules::table::Chain>()
            + self.sets.len() * size_of::<&[(u32, u32)]>()
            + self.lookups.len() * size_of::<rules::table::Lookup>()
            + self.effects.len() * size_of::<Effect>()
            + self.actions.len() * size_of::<Action>()
            + trees.map(Forest::octets).sum::<usize>()
    }
}

/// The places of sets, by where they are now.
type Numbers = HashMap<*const [(u32, u32)], u16>;
