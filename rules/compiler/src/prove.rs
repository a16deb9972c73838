//! `# weir: never ...` and `# weir: always ...`: proven over all packets, or a packet that breaks it.
//!
//! The packets that an assertion means are followed through the chains as sets: each rule cuts off those that it
//! takes. What is left of a set when it ends is not empty, so a set at a wrong end is a counter-example.

mod example;
mod piece;
mod space;
mod walk;
mod world;

use std::ops::Range;

use rules::table::Field;

use crate::diagnostics::Diagnostics;
use crate::plan::Plan;
use crate::program::{Program, Step};
use crate::source::Source;
use piece::Piece;
use walk::{End, Go, Walk};
pub(crate) use world::World;

/// The steps that the proofs of all assertions may take.
const STEPS_MAX: u64 = 1_800_000;

/// An assertion that was read.
#[derive(Debug, Clone)]
pub(crate) struct Assertion {
    pub span: Range<usize>,
    pub what: Claim,
    /// Packets as they leave are meant, not as they come.
    pub is_after_nat: bool,
    /// Matches that tell which packets are meant.
    pub steps: Vec<Step>,
}

/// What is said of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// None is accepted.
    Never,
    /// Each is accepted.
    Accepted,
    /// Each is dropped or rejected.
    Dropped,
}

/// Tells which assertions do not hold, or could not be proven.
pub(crate) fn assertions(
    assertions: &[Assertion],
    program: &Program,
    plan: &Plan,
    source: &Source,
    diagnostics: &mut Diagnostics,
) {
    if assertions.is_empty() {
        return;
    }
    let world = World::new(plan);
    let mut budget = STEPS_MAX;
    for assertion in assertions {
        let asks_where = assertion.steps.iter().any(is_of_output);
        let walk = Walk { program, plan, world: &world, follows_dropped: asks_where, budget };
        // Which packets could leave like this cannot be told from those that do.
        let mut proof = Proof { assertion, found: None, is_meant: assertion.is_after_nat };
        let result = proof.run(walk, &mut budget);
        let (message, label) = match (result, &proof.found) {
            (_, Some((piece, end))) => told(assertion, piece, *end, program),
            (None, None) => (
                format!("not proven: it takes more than {STEPS_MAX} steps"),
                Some("say it of fewer packets".to_owned()),
            ),
            (Some(()), None) if !proof.is_meant => ("no packet is meant by this assertion".to_owned(), None),
            (Some(()), None) => continue,
        };
        match label {
            Some(label) => diagnostics.error_with(source, assertion.span.clone(), message, label),
            None => diagnostics.error(source, assertion.span.clone(), message),
        }
    }
}

struct Proof<'a> {
    assertion: &'a Assertion,
    /// Packets at an end where they should not be.
    found: Option<(Piece, End)>,
    /// Whether there are packets that the assertion is about.
    is_meant: bool,
}

impl Proof<'_> {
    /// Follows the packets that are meant; what it takes is taken from the budget.
    fn run(&mut self, mut walk: Walk, budget: &mut u64) -> Option<()> {
        let result = self.follow(&mut walk);
        *budget = walk.budget;
        result
    }

    fn follow(&mut self, walk: &mut Walk) -> Option<()> {
        for space in walk.world.arriving(walk.plan) {
            let mut meant = vec![Piece::new(space)];
            if !self.assertion.is_after_nat {
                meant = restricted(meant, self.arriving(), walk)?;
            }
            for piece in meant {
                walk.follow(piece, |walk, piece, end| self.end(walk, piece, end))?;
                if self.found.as_ref().is_some_and(|(piece, _)| !piece.is_rough) {
                    return Some(());
                }
            }
        }
        Some(())
    }

    /// The matches on packets as they come in.
    fn arriving(&self) -> impl Iterator<Item = &Step> {
        self.assertion.steps.iter().filter(|step| !is_of_output(step))
    }

    fn end(&mut self, walk: &mut Walk, piece: Piece, end: End) -> Option<Go> {
        let is_accepted = matches!(end, End::Passed | End::Delivered);
        let meant = self.meant(walk, piece, end)?;
        self.is_meant |= !meant.is_empty();
        let is_wrong = match self.assertion.what {
            Claim::Never | Claim::Dropped => is_accepted,
            Claim::Accepted => !is_accepted,
        };
        if !is_wrong {
            return Some(Go::On);
        }
        for piece in meant {
            // One that is sure is worth more than another.
            if self.found.as_ref().is_none_or(|(found, _)| found.is_rough) {
                self.found = Some((piece, end));
            }
        }
        let is_sure = self.found.as_ref().is_some_and(|(found, _)| !found.is_rough);
        Some(if is_sure { Go::Stop } else { Go::On })
    }

    /// Those at an end that the assertion is about.
    fn meant(&self, walk: &mut Walk, piece: Piece, end: End) -> Option<Vec<Piece>> {
        let steps = &self.assertion.steps;
        if self.assertion.is_after_nat {
            return match end {
                End::Passed => restricted(vec![piece], steps.iter(), walk),
                _ => Some(Vec::new()),
            };
        }
        let mut output = steps.iter().filter(|step| is_of_output(step)).peekable();
        if output.peek().is_none() {
            return Some(vec![piece]);
        }
        restricted(vec![piece], output, walk)
    }
}

/// Whether a match asks where packets go.
fn is_of_output(step: &Step) -> bool {
    matches!(step, Step::Match(wanted) if wanted.field == Field::OutputPort)
}

/// What the matches leave of packets.
fn restricted<'s>(
    mut pieces: Vec<Piece>,
    steps: impl Iterator<Item = &'s Step>,
    walk: &mut Walk,
) -> Option<Vec<Piece>> {
    for step in steps {
        let mut taken = Vec::new();
        for piece in pieces {
            walk.spend()?;
            match step {
                Step::Match(wanted) => taken.extend(piece.split(wanted).0),
                Step::Lookup(wanted) => taken.extend(piece.look_up(wanted, || walk.spend())?.0),
                _ => taken.push(piece),
            }
        }
        pieces = taken;
    }
    Some(pieces)
}

/// What is told of packets that break an assertion.
fn told(assertion: &Assertion, piece: &Piece, end: End, program: &Program) -> (String, Option<String>) {
    let packet = example::packet(piece, program);
    if piece.is_rough {
        let message = format!("not proven: packets like this one may break it: {packet}");
        return (message, Some("addresses that rules choose among are not followed one by one".to_owned()));
    }
    let verb = match (assertion.what, end) {
        (Claim::Accepted, End::Unroutable) => "has no route",
        (Claim::Accepted, _) => "is dropped",
        (_, End::Delivered) => "reaches the appliance",
        _ => "is accepted",
    };
    let sure = if piece.is_unsure { ", as limits, sets and mappings may have it" } else { "" };
    (format!("this packet {verb}{sure}: {packet}"), Some(example::way(piece, end, program)))
}
