//! Rules that no packet comes to, because one earlier rule of their chain takes them all (or several do, see
//! `union`), and translations that are each other's business in part.
//!
//! A rule's packets are a box: for each field that it matches, the values it lets through. Takers are found by
//! the smallest aligned block of numbers around one side of their box, so that many rules are compared with few.

use std::collections::HashMap;
use std::sync::Arc;

use rules::Hook;
use rules::table::{Action, Effect, Field, LOOPBACK, NO_PORT};

use super::ranges::{Ranges, Shared, complement, intersection, normalise};
use super::{Context, Lowering, Span};
use crate::program::{Match, Rule, Step, Test};

/// How many ranges may be compared in a file.
pub(super) const COMPARED_MAX: u32 = 8_000_000;

/// A concatenation of more elements is not looked at one by one.
const ROWS_MAX: usize = 64;

/// A rule of the chain with what its text says.
pub(super) struct Told {
    pub span: Span,
    pub allows_shadowed: bool,
    /// It leaves IPv6, which the table holds too, to other rules.
    pub is_ipv4: bool,
}

/// The values that a rule's matches let through, by field; a field it does not match is not there.
#[derive(Debug, Clone)]
pub(super) struct Packets(pub Vec<(Field, Shared)>);

/// A rule that ends the walk of its packets.
pub(super) struct Taker {
    pub packets: Packets,
    action: Action,
    pub line: u32,
    pub is_ipv4: bool,
}

/// The smallest aligned block of numbers that holds a range: a field, leading bits and their number.
type Block = (Field, u32, u32);

/// The takers of a chain so far.
#[derive(Default)]
pub(super) struct Takers {
    pub all: Vec<Taker>,
    by_block: HashMap<Block, Vec<usize>>,
    /// The lengths of the blocks of each field, as bits.
    lengths: HashMap<Field, u64>,
    /// Those that take everything.
    whole: Vec<usize>,
    translating: Vec<usize>,
}

/// The values that fields may have.
pub(super) struct World<'a> {
    pub context: &'a Context,
    pub last_port: u32,
}

/// The block around all of the ranges, or one with fewer leading bits.
fn block(field: Field, ranges: &Shared, most: u32) -> Option<Block> {
    let (first, last) = (ranges.first()?.0, ranges.last()?.1);
    let length = (first ^ last).leading_zeros().min(most);
    Some((field, length, first.checked_shr(32 - length).unwrap_or(0)))
}

fn is_within(inner: &Shared, outer: &Shared) -> bool {
    let holds = |&(first, last): &(u32, u32)| {
        let after = outer.partition_point(|&(start, _)| start <= first);
        after.checked_sub(1).and_then(|at| outer.get(at)).is_some_and(|&(_, end)| last <= end)
    };
    Arc::ptr_eq(inner, outer) || inner.iter().all(holds)
}

/// Whether every packet has the field.
pub(super) fn is_always_there(field: Field) -> bool {
    matches!(
        field,
        Field::InputPort
            | Field::OutputPort
            | Field::Source
            | Field::Destination
            | Field::Protocol
            | Field::Dscp
            | Field::Ecn
            | Field::Ttl
            | Field::Length
            | Field::Identification
            | Field::State
    )
}

/// Whether a rule may change the field between two others.
pub(super) fn changes(field: Field) -> bool {
    matches!(field, Field::Mark | Field::ConnectionMark)
}

impl World<'_> {
    pub fn values(&self, field: Field) -> Ranges {
        let max = match field {
            Field::InputPort | Field::OutputPort => {
                let always: &[Hook] = match field {
                    Field::InputPort => &[Hook::Prerouting, Hook::Input, Hook::Forward],
                    _ => &[Hook::Forward, Hook::Output, Hook::Postrouting],
                };
                let mut ports = vec![(0, self.last_port)];
                if !self.context.only_at(always) {
                    ports.push((NO_PORT, NO_PORT));
                }
                return ports;
            }
            // One bit of a state each; the bits of snat and dnat.
            Field::State => return [1, 2, 4, 8, 64].map(|bit| (bit, bit)).to_vec(),
            Field::Status => return [0, 0x10, 0x20, 0x30].map(|bits| (bits, bits)).to_vec(),
            Field::Source
            | Field::Destination
            | Field::Length
            | Field::Mark
            | Field::ConnectionMark
            | Field::OriginalSource
            | Field::OriginalDestination
            | Field::ReplySource
            | Field::ReplyDestination => u32::MAX,
            Field::SourceStationRest | Field::DestinationStationRest => u32::MAX,
            Field::SourcePort
            | Field::DestinationPort
            | Field::SourceStation
            | Field::DestinationStation
            | Field::Identification
            | Field::OriginalSourcePort
            | Field::OriginalDestinationPort
            | Field::ReplySourcePort
            | Field::ReplyDestinationPort => 65_535,
            Field::Dscp => 63,
            Field::Ecn => 3,
            Field::Protocol | Field::IcmpType | Field::IcmpCode | Field::TcpFlags | Field::Ttl => 255,
            Field::Direction => 1,
        };
        vec![(0, max)]
    }

    pub fn lets_through(&self, wanted: &Match) -> Option<Shared> {
        let values = self.values(wanted.field);
        let ranges = match &wanted.test {
            Test::In(ranges) if !wanted.negated => return Some(Shared::clone(ranges)),
            Test::In(ranges) => ranges.to_vec(),
            Test::Equal(value) => vec![(*value, *value)],
            Test::Range(first, last) => vec![(*first, *last)],
            Test::Masked { mask, value } => {
                // Fields of bits have few values.
                if values.iter().any(|(first, last)| last - first > 255) {
                    return None;
                }
                let each = values.iter().flat_map(|&(first, last)| first..=last);
                normalise(each.filter(|bits| bits & mask == *value).map(|bits| (bits, bits)).collect()).0
            }
        };
        let ranges =
            if wanted.negated { intersection(&complement(&ranges, u32::MAX), &values) } else { ranges };
        Some(ranges.into())
    }

    /// The packets that pass these matches; none when that cannot be said.
    pub fn packets<'s>(&self, steps: impl Iterator<Item = &'s Step>) -> Option<Packets> {
        let mut packets: Vec<(Field, Shared)> = Vec::new();
        for step in steps {
            let wanted = match step {
                Step::Match(wanted) => wanted,
                Step::Count(_) | Step::Do(_) => continue,
                Step::Act(Effect::Log(_) | Effect::Mark(_) | Effect::Segment(_)) => continue,
                // Whom these let through cannot be said of a box.
                Step::Lookup(_) | Step::Act(_) => return None,
            };
            if changes(wanted.field) {
                return None;
            }
            let ranges = self.lets_through(wanted)?;
            match packets.iter_mut().find(|(field, _)| *field == wanted.field) {
                Some((_, known)) => *known = intersection(known, &ranges).into(),
                None => packets.push((wanted.field, ranges)),
            }
        }
        Some(Packets(packets))
    }

    /// The packets that pass these matches, apart by the elements of a concatenation; none when that cannot be said.
    pub fn boxes(&self, steps: &[Step]) -> Vec<Packets> {
        let mut lookups = steps.iter().filter_map(|step| match step {
            Step::Lookup(lookup) => Some(lookup),
            _ => None,
        });
        let others = steps.iter().filter(|step| !matches!(step, Step::Lookup(_)));
        let (Some(lookup), None, Some(base)) = (lookups.next(), lookups.next(), self.packets(others)) else {
            return Vec::new();
        };
        let fields = lookup.key.fields();
        let rows = lookup.rows.chunks_exact(fields.len().max(1));
        if lookup.negated || rows.len() > ROWS_MAX || fields.iter().any(|&field| changes(field)) {
            return Vec::new();
        }
        let of_row = |row: &[(u32, u32)]| {
            let mut packets = base.clone();
            for (&field, &range) in fields.iter().zip(row) {
                match packets.0.iter_mut().find(|(own, _)| *own == field) {
                    Some((_, known)) => *known = intersection(known, &[range]).into(),
                    None => packets.0.push((field, Shared::from([range]))),
                }
            }
            packets
        };
        rows.map(of_row).collect()
    }

    /// Leaves out the fields of which every value is taken.
    fn without_the_obvious(&self, packets: Packets) -> Packets {
        let says_something = |(field, ranges): &(Field, Shared)| {
            !is_always_there(*field) || !is_within(&self.values(*field).into(), ranges)
        };
        Packets(packets.0.into_iter().filter(says_something).collect())
    }
}

impl Packets {
    pub fn of(&self, field: Field) -> Option<&Shared> {
        self.0.iter().find(|(own, _)| *own == field).map(|(_, ranges)| ranges)
    }

    pub fn is_none(&self) -> bool {
        self.0.iter().any(|(_, ranges)| ranges.is_empty())
    }

    /// No packet uses `lo`, and a match on it is no mistake.
    pub fn names_loopback(&self) -> bool {
        let holds =
            |ranges: &Shared| ranges.iter().any(|&(first, last)| first <= LOOPBACK && LOOPBACK <= last);
        [Field::InputPort, Field::OutputPort].iter().filter_map(|&field| self.of(field)).any(holds)
    }

    fn are_within(&self, outer: &Self) -> bool {
        outer.0.iter().all(|(field, ranges)| self.of(*field).is_some_and(|own| is_within(own, ranges)))
    }

    fn meet(&self, other: &Self) -> bool {
        let apart = |(field, ranges): &(Field, Shared)| {
            other.of(*field).is_some_and(|theirs| intersection(ranges, theirs).is_empty())
        };
        !self.0.iter().any(apart)
    }

    pub fn size(&self) -> usize {
        self.0.iter().map(|(_, ranges)| ranges.len()).sum::<usize>() + 1
    }
}

impl Takers {
    fn add(&mut self, taker: Taker) {
        let at = self.all.len();
        if matches!(taker.action, Action::Dnat(..)) {
            self.translating.push(at);
        }
        let blocks = taker.packets.0.iter().filter_map(|(field, ranges)| block(*field, ranges, 32));
        // The block that the fewest share tells most.
        match blocks.min_by_key(|block| self.by_block.get(block).map_or(0, Vec::len)) {
            Some(block) => {
                *self.lengths.entry(block.0).or_default() |= 1 << block.1;
                self.by_block.entry(block).or_default().push(at);
            }
            None => self.whole.push(at),
        }
        self.all.push(taker);
    }

    /// Those that may take all of these packets.
    pub fn candidates(&self, packets: &Packets) -> Vec<usize> {
        let mut candidates: Vec<usize> = self.whole.clone();
        for (field, ranges) in &packets.0 {
            let lengths = self.lengths.get(field).copied().unwrap_or(0);
            let Some((_, own, _)) = block(*field, ranges, 32) else { continue };
            for length in (0..=own).filter(|length| lengths >> length & 1 == 1) {
                let around = block(*field, ranges, length);
                candidates.extend(around.and_then(|block| self.by_block.get(&block)).into_iter().flatten());
            }
        }
        candidates
    }
}

impl Lowering<'_> {
    /// Looks for rules of a chain that one earlier rule takes wholly, and for dnats that overlap in part.
    pub(super) fn shadows(&mut self, context: &Context, rules: &[Rule], told: &[Told]) {
        let last_port = u32::try_from(self.plan.clients.len()).unwrap_or(u32::MAX);
        let world = World { context, last_port };
        let mut takers = Takers::default();
        for (rule, told) in rules.iter().zip(told) {
            if self.diagnostics.is_full() || self.compared == 0 {
                return;
            }
            let is_effect = |step: &Step| !matches!(step, Step::Match(_));
            if !rule.steps.iter().any(is_effect) {
                continue;
            }
            if rule.steps.iter().any(|step| matches!(step, Step::Lookup(_))) {
                if self.compare(ROWS_MAX, &told.span).is_none() {
                    return;
                }
                self.joined(&world, rule, told, &mut takers);
                continue;
            }
            let Some(packets) = world.packets(rule.steps.iter().take_while(|step| !is_effect(step))) else {
                continue;
            };
            if packets.is_none() || packets.names_loopback() {
                continue;
            }
            if self.compare(packets.size(), &told.span).is_none() {
                return;
            }
            self.is_believed(&packets, context, &told.span);
            self.is_delivered(&packets, context, &told.span);
            let is_taken = !told.allows_shadowed
                && (self.is_taken(&packets, &takers, told)
                    || self.is_taken_by_several(&packets, &takers, &world, told));
            let Some(Step::Do(action)) = rule.steps.last() else { continue };
            let Some(packets) = world.packets(rule.steps.iter()).filter(|packets| !packets.is_none()) else {
                continue;
            };
            let packets = world.without_the_obvious(packets);
            if matches!(action, Action::Dnat(..)) && !is_taken {
                self.is_apart(&packets, *action, &takers, &told.span);
            }
            if !matches!(action, Action::Jump(_)) {
                let line = self.source.line_of(told.span.start);
                takers.add(Taker { packets, action: *action, line, is_ipv4: told.is_ipv4 });
            }
        }
    }

    /// A rule with a concatenation takes the packets of each of its elements.
    fn joined(&mut self, world: &World, rule: &Rule, told: &Told, takers: &mut Takers) {
        let Some(Step::Do(action)) = rule.steps.last() else { return };
        if matches!(action, Action::Jump(_) | Action::Dnat(_)) {
            return;
        }
        let line = self.source.line_of(told.span.start);
        for packets in world.boxes(&rule.steps).into_iter().filter(|packets| !packets.is_none()) {
            let packets = world.without_the_obvious(packets);
            takers.add(Taker { packets, action: *action, line, is_ipv4: told.is_ipv4 });
        }
    }

    /// Takes so many comparisons from the budget.
    pub(super) fn compare(&mut self, count: usize, span: &Span) -> Option<()> {
        let left = u32::try_from(count).ok().and_then(|count| self.compared.checked_sub(count));
        self.compared = left.unwrap_or(0);
        if left.is_none() {
            let message =
                "from here on, rules are not checked for being shadowed: there is too much to compare";
            self.warning(span.clone(), message.to_owned());
        }
        left.map(|_| ())
    }

    /// Whether one earlier rule takes all of these packets; it is told.
    fn is_taken(&mut self, packets: &Packets, takers: &Takers, told: &Told) -> bool {
        let span = &told.span;
        for at in takers.candidates(packets) {
            let Some(taker) = takers.all.get(at) else { continue };
            if self.compare(packets.size(), span).is_none() {
                return false;
            }
            if (told.is_ipv4 || !taker.is_ipv4) && packets.are_within(&taker.packets) {
                let line = self.source.line_beside(taker.line, span);
                let message = format!("no packet comes to this rule: the one of {line} takes them all");
                let label = "if that is meant, say so: comment \"weir: allow shadowed\"".to_owned();
                self.refuse_with::<()>(span.clone(), message, Some(label));
                return true;
            }
        }
        false
    }

    /// Two dnats may be apart, or the narrower comes first; else nobody can tell which one was meant.
    fn is_apart(&mut self, packets: &Packets, action: Action, takers: &Takers, span: &Span) {
        for taker in takers.translating.iter().filter_map(|&at| takers.all.get(at)) {
            if taker.action == action {
                continue;
            }
            if self.compare(taker.packets.size() + packets.size(), span).is_none() {
                return;
            }
            if packets.meet(&taker.packets) && !taker.packets.are_within(packets) {
                let line = self.source.line_beside(taker.line, span);
                let message =
                    format!("this dnat and the one of {line} overlap in part: some packets are for both");
                self.refuse::<()>(span.clone(), message);
                return;
            }
        }
    }
}
