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

/// Those that may be taken besides to find out where it is worth while to look closely.
const LOOSE_MAX: u64 = 600_000;

/// Sets of packets that are looked at closely one by one.
const SUSPECTS_MAX: usize = 1024;

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
    let (mut budget, mut loose) = (STEPS_MAX, LOOSE_MAX);
    for assertion in assertions {
        let asks_where = assertion.steps.iter().any(is_of_output);
        let mut walk = Walk {
            program,
            plan,
            world: &world,
            follows_dropped: asks_where,
            is_loose: false,
            budget: loose,
        };
        // Which packets could leave like this cannot be told from those that do.
        let mut proof = Proof { assertion, found: None, is_meant: assertion.is_after_nat };
        // Most is seen at once by looking at the rules that could break it, and at what is ahead of them.
        let mut result = proof.follow(&mut walk, true);
        loose = walk.budget;
        if result.is_none() && !proof.is_sure() {
            proof.found = None;
            walk.budget = budget;
            result = proof.follow(&mut walk, false);
            budget = walk.budget;
        }
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
    /// Follows the packets that are meant; `None` when that takes too many steps.
    fn follow(&mut self, walk: &mut Walk, is_loose: bool) -> Option<()> {
        for space in walk.world.arriving(walk.plan, walk.program.untracks) {
            let mut meant = vec![Piece::new(space)];
            if !self.assertion.is_after_nat {
                meant = restricted(meant, self.arriving(), walk)?;
            }
            for piece in meant {
                let pieces = if is_loose { self.suspects(walk, piece)? } else { vec![piece] };
                for piece in pieces {
                    walk.follow(piece, |walk, piece, end| self.end(walk, piece, end))?;
                    if self.is_sure() {
                        return Some(());
                    }
                }
            }
        }
        Some(())
    }

    /// Those packets that are at an end where they should not be if rules leave what they end to those behind them;
    /// `None` when they are too many.
    fn suspects(&mut self, walk: &mut Walk, piece: Piece) -> Option<Vec<Piece>> {
        let mut suspects = Vec::new();
        walk.is_loose = true;
        let result = walk.follow(piece, |walk, piece, end| {
            let meant = self.meant(walk, piece, end)?;
            self.is_meant |= !meant.is_empty();
            if self.is_wrong(end) {
                suspects.extend(meant.into_iter().map(|piece| Piece::new(piece.arrived)));
            }
            (suspects.len() <= SUSPECTS_MAX).then_some(Go::On)
        });
        walk.is_loose = false;
        result.map(|()| suspects)
    }

    /// Whether a packet was found that breaks it, and surely comes this way.
    fn is_sure(&self) -> bool {
        self.found.as_ref().is_some_and(|(piece, _)| !piece.is_rough)
    }

    fn is_wrong(&self, end: End) -> bool {
        let is_accepted = matches!(end, End::Passed | End::Delivered);
        match self.assertion.what {
            Claim::Never | Claim::Dropped => is_accepted,
            Claim::Accepted => !is_accepted,
        }
    }

    /// The matches on packets as they come in.
    fn arriving(&self) -> impl Iterator<Item = &Step> {
        self.assertion.steps.iter().filter(|step| !is_of_output(step))
    }

    fn end(&mut self, walk: &mut Walk, piece: Piece, end: End) -> Option<Go> {
        let meant = self.meant(walk, piece, end)?;
        self.is_meant |= !meant.is_empty();
        if !self.is_wrong(end) {
            return Some(Go::On);
        }
        for piece in meant {
            // One that is sure is worth more than another.
            if self.found.as_ref().is_none_or(|(found, _)| found.is_rough) {
                self.found = Some((piece, end));
            }
        }
        Some(if self.is_sure() { Go::Stop } else { Go::On })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Match, Test};

    const PLAN: &str = "[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n[[client]]\nname = \"a\"\naddress = \"10.0.1.1/24\"\n[[client]]\nname = \"b\"\naddress = \"10.0.2.1/24\"\n";

    /// Numbers by chance, the same each time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }

        fn one(&mut self, of: &[&str]) -> String {
            of[self.below(of.len() as u64) as usize].to_owned()
        }

        fn rule(&mut self, ends: &[&str]) -> String {
            let port = self.below(8) + 1;
            let matches = [
                "iifname a ".to_owned(),
                format!("ip saddr 10.0.1.{}-10.0.1.{} ", self.below(8) + 2, self.below(8) + 10),
                format!("ip daddr 10.0.2.{}/30 ", self.below(4) * 4),
                format!("tcp dport {port}-{} ", port + self.below(4)),
                format!("tcp sport != {port} "),
                "limit rate 5/second ".to_owned(),
                "meta mark 1 ".to_owned(),
                format!("ip saddr . tcp dport {{ 10.0.1.0/29 . {port}, 10.0.1.16-10.0.1.99 . 9 }} "),
            ];
            let kept: String = matches.into_iter().filter(|_| self.below(3) == 0).collect();
            format!("{kept}{} comment \"weir: allow shadowed\"\n", self.one(ends))
        }

        fn rules(&mut self, most: u64, ends: &[&str]) -> String {
            (0..self.below(most)).map(|_| self.rule(ends)).collect()
        }

        /// Rules behind each other, with chains on the way.
        fn policy(&mut self) -> String {
            let ends = ["accept", "drop", "drop", "jump side", "return", "meta mark set 1", "counter"];
            let side = ["accept", "drop", "return", "counter"];
            let (forward, again, side) = (self.rules(9, &ends), self.rules(4, &ends), self.rules(5, &side));
            let dnat = self.one(&["", "ip daddr 192.0.2.2 tcp dport 3 dnat ip to 10.0.2.9:5\n"]);
            let policy = self.one(&["accept", "drop"]);
            format!(
                "table inet t {{\nchain side {{ comment \"weir: allow unreachable\"\n{side}}}\n\
                 chain pre {{ type nat hook prerouting priority dstnat\n{dnat}}}\n\
                 chain one {{ type filter hook forward priority 0; policy {policy}\n{forward}}}\n\
                 chain two {{ type filter hook forward priority 5; policy accept\n{again}}}\n}}\n"
            )
        }

        fn claim(&mut self) -> Assertion {
            let port = self.below(8) as u32 + 1;
            let between = |field, first, last| {
                Step::Match(Match { field, test: Test::Range(first, last), negated: false })
            };
            let all = [
                between(Field::Protocol, 6, 6),
                between(Field::DestinationPort, port, port + self.below(3) as u32),
                between(Field::InputPort, 1, 1),
                between(Field::OutputPort, 2, 2),
                between(Field::Source, 0x0a00_0102, 0x0a00_0110),
            ];
            let steps = all.into_iter().filter(|_| self.below(2) == 0).collect();
            let what = [Claim::Never, Claim::Accepted, Claim::Dropped][self.below(3) as usize];
            Assertion { span: 0..0, what, is_after_nat: self.below(4) == 0, steps }
        }
    }

    #[test]
    fn where_it_is_worth_while_to_look_closely_all_is_that_there_is() {
        let mut chance = Chance(7);
        let (mut proven, mut broken) = (0, 0);
        for round in 0..800 {
            let rules = chance.policy();
            // What can never be true is refused, and chance does not know.
            let Ok(compiled) = crate::compile_text(PLAN, &rules) else { continue };
            let (program, plan) = (&compiled.program, &compiled.plan);
            let world = World::new(plan);
            let assertion = chance.claim();
            let follows_dropped = assertion.steps.iter().any(is_of_output);
            let [loosely, closely] = [true, false].map(|is_loose| {
                let mut walk =
                    Walk { program, plan, world: &world, follows_dropped, is_loose: false, budget: u64::MAX };
                let mut proof =
                    Proof { assertion: &assertion, found: None, is_meant: assertion.is_after_nat };
                proof.follow(&mut walk, is_loose).expect("steps enough");
                (proof.found.map(|(piece, _)| piece.is_rough), proof.is_meant)
            });
            assert_eq!(loosely, closely, "{round}: {assertion:?}\n{rules}");
            if closely.0.is_some() { broken += 1 } else { proven += 1 }
        }
        assert!(proven > 100 && broken > 100, "{proven} {broken}");
    }
}
