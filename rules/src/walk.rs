//! One walk through a base chain, shared by whoever knows the packet and whoever knows only its session.

use crate::candidate::{Candidate, Direction};
use crate::code::{Code, Step};
use crate::memory::Numbers;
use crate::policy::{Policy, Reject};
use crate::table::{
    Action, CounterId, Effect, Field, Gate, Key, Lookup, NO_PORT, Rule, RuleId, STATUS_DNAT, STATUS_SNAT,
    Write,
};
use crate::translation::{DestinationChoice, SourceChoice};
use crate::tree::{TREES_MAX, Trees};

/// The most nested jumps that a policy may have.
pub const JUMPS_MAX: usize = 16;

const PROTOCOL_TCP: u8 = 6;

/// Who walks: answers matches and takes counts.
pub trait Walker {
    /// The lists of rules that the packet may meet; none where it may meet any.
    fn find(&self, trees: &Trees) -> Option<[&'static [u16]; TREES_MAX]>;
    /// A number of the packet.
    fn number(&self, field: Field) -> Number;
    /// Whether a concatenation is, or is not, in the set; `None` when that is not known.
    fn looks_up(&mut self, wanted: &Lookup) -> Option<bool>;
    /// A counter was met.
    fn count(&mut self, counter: CounterId);
    /// The matches of a rule hold; how it ends.
    fn met(&mut self, _: RuleId, _: Option<Action>) {}
    /// A stateful statement was met; whether the rule goes on, `None` when that is not known.
    fn act(&mut self, effect: &Effect) -> Option<bool>;
}

/// What is known of a number of the packet.
pub enum Number {
    Is(u32),
    /// The packet has none.
    Absent,
    Unknown,
}

/// How a base chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Accept,
    Drop(RuleId),
    Reject(RuleId, Reject),
    Dnat(DestinationChoice),
    Snat(SourceChoice),
    /// No verdict: the chain's policy decides.
    Policy,
    /// It depends on something that the walker does not know.
    Unknown,
}

/// What one rule asks for.
enum Outcome {
    /// A match failed.
    Next,
    /// It came to its end without a verdict.
    Done,
    Act(Action),
    Unknown,
}

/// The rules of a chain that are still to be walked, by their places: all from one on, or those of some
/// lists.
#[derive(Clone, Copy)]
struct Rest {
    rules: &'static [Rule],
    lists: Option<[&'static [u16]; TREES_MAX]>,
}

impl Rest {
    const NONE: Self = Self { rules: &[], lists: None };

    /// The rules of a chain that a packet may meet.
    fn of(policy: &Policy, chain: u16, walker: &impl Walker) -> Self {
        policy.chain(chain).map_or(Self::NONE, |chain| Self {
            rules: chain.rules,
            lists: chain.trees.as_ref().and_then(|trees| walker.find(trees)),
        })
    }

    fn next(&mut self) -> Option<&'static Rule> {
        let Some(lists) = &mut self.lists else {
            let (first, rest) = self.rules.split_first()?;
            self.rules = rest;
            return Some(first);
        };
        // Of the lists' first rules the one that stands first in the chain.
        let list = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.first())?;
        let (&first, rest) = list.split_first()?;
        *list = rest;
        self.rules.get(usize::from(first))
    }
}

/// Walks the chain with this index and whatever it jumps to.
pub fn walk(policy: &Policy, chain: u16, walker: &mut impl Walker) -> Ending {
    // The callers to return to.
    let mut callers = heapless::Vec::<Rest, JUMPS_MAX>::new();
    let mut rules = Rest::of(policy, chain, walker);
    let mut open = Gate::SHUT;
    loop {
        let Some(rule) = rules.next() else {
            let Some(caller) = callers.pop() else {
                return Ending::Policy;
            };
            rules = caller;
            continue;
        };
        let action = match apply(&policy.code, rule, &mut open, walker) {
            Outcome::Next => continue,
            Outcome::Done => {
                walker.met(rule.id, None);
                continue;
            }
            Outcome::Unknown => return Ending::Unknown,
            Outcome::Act(action) => action,
        };
        walker.met(rule.id, Some(action));
        match action {
            Action::Accept => return Ending::Accept,
            Action::Drop => return Ending::Drop(rule.id),
            Action::Reject(how) => return Ending::Reject(rule.id, how),
            Action::Dnat(destination) => return Ending::Dnat(destination),
            Action::Snat(source) => return Ending::Snat(source),
            Action::Return => rules = Rest::NONE,
            Action::Goto(target) => rules = Rest::of(policy, target, walker),
            // The compiler refuses deeper nesting; a table that has it all the same lets nothing pass.
            Action::Jump(target) if callers.push(rules).is_ok() => {
                rules = Rest::of(policy, target, walker);
            }
            Action::Jump(_) => return Ending::Drop(rule.id),
        }
    }
}

/// Walks one rule. A match of unknown result matters only if the rule then does something.
fn apply(code: &Code, rule: &Rule, open: &mut Gate, walker: &mut impl Walker) -> Outcome {
    let mut sure = true;
    let start = rule.start as usize;
    // Words that there are not end the packet, as others that are no step.
    let Some(mut words) = code.words.get(start..start + usize::from(rule.length)) else {
        return Outcome::Act(Action::Drop);
    };
    while let Some((step, rest)) = code.step(words) {
        words = rest;
        match step {
            Step::Compare(wanted) => {
                let Some(field) = wanted.field() else { return Outcome::Act(Action::Drop) };
                match walker.number(field) {
                    Number::Is(value) => match code.holds(wanted, value) {
                        Some(true) => {}
                        Some(false) => return Outcome::Next,
                        None => return Outcome::Act(Action::Drop),
                    },
                    Number::Absent => return Outcome::Next,
                    Number::Unknown => sure = false,
                }
            }
            Step::Lookup(wanted) => match walker.looks_up(wanted) {
                Some(true) => {}
                Some(false) => return Outcome::Next,
                None => sure = false,
            },
            Step::Act(Effect::Through(gate)) if *gate != *open => return Outcome::Next,
            Step::Act(Effect::Through(_)) => {}
            _ if !sure => return Outcome::Unknown,
            Step::Act(Effect::Open(gate)) => *open = *gate,
            Step::Count(counter) => walker.count(counter),
            Step::Act(effect) => match walker.act(effect) {
                Some(true) => {}
                Some(false) => return Outcome::Next,
                None => return Outcome::Unknown,
            },
            Step::Do(action) => return Outcome::Act(action),
        }
    }
    Outcome::Done
}

/// Whether the packet's concatenation is, or is not, in the set.
pub fn looks_up(wanted: &Lookup, candidate: &Candidate) -> bool {
    let Some(numbers) = numbers(&wanted.key, candidate) else { return false };
    let values = numbers.get(..wanted.key.fields().len()).unwrap_or_default();
    wanted.holds(values) != wanted.negated
}

/// The numbers of a key; `None` when the packet lacks one.
pub fn numbers(key: &Key, candidate: &Candidate) -> Option<Numbers> {
    let mut numbers = Numbers::default();
    for (number, &field) in numbers.iter_mut().zip(key.fields()) {
        *number = value(field, candidate)?;
    }
    Some(numbers)
}

/// The new value of a mark; `None` when it is made from what the packet has not.
pub fn written(write: &Write, candidate: &Candidate) -> Option<u32> {
    let from = match write.from {
        Some(field) => value(field, candidate)?,
        None => 0,
    };
    Some(from & write.and ^ write.xor)
}

/// Whether the packet has the field.
pub fn has(field: Field, candidate: &Candidate) -> bool {
    value(field, candidate).is_some()
}

/// The number that a field reads; `None` when the packet has no such field.
#[inline]
pub fn value(field: Field, candidate: &Candidate) -> Option<u32> {
    let value = match field {
        Field::InputPort => candidate.input.map_or(NO_PORT, u32::from),
        Field::OutputPort => candidate.output.map_or(NO_PORT, u32::from),
        Field::Source => candidate.source.to_bits(),
        Field::Destination => candidate.destination.to_bits(),
        Field::Protocol => candidate.protocol.into(),
        Field::SourcePort if candidate.has_ports => candidate.source_port.into(),
        Field::DestinationPort if candidate.has_ports => candidate.destination_port.into(),
        Field::SourcePort | Field::DestinationPort => return None,
        Field::IcmpType => candidate.icmp?.0.into(),
        Field::IcmpCode => candidate.icmp?.1.into(),
        Field::TcpFlags if candidate.protocol == PROTOCOL_TCP => candidate.tcp_flags.into(),
        Field::TcpFlags => return None,
        Field::Dscp => (candidate.tos >> 2).into(),
        Field::Ecn => (candidate.tos & 3).into(),
        Field::Ttl => candidate.ttl.into(),
        Field::Length => candidate.length.into(),
        Field::Identification => candidate.identification.into(),
        Field::State => candidate.state.bit(),
        Field::Mark => candidate.mark,
        Field::SourceStation => upper(candidate.stations?.source),
        Field::SourceStationRest => lower(candidate.stations?.source),
        Field::DestinationStation => upper(candidate.stations?.destination),
        Field::DestinationStationRest => lower(candidate.stations?.destination),
        field => return of_connection(field, candidate),
    };
    Some(value)
}

/// The first two octets of a station's address.
const fn upper([a, b, ..]: [u8; 6]) -> u32 {
    u16::from_be_bytes([a, b]) as u32
}

/// The other four.
const fn lower([.., a, b, c, d]: [u8; 6]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// The number that a field reads of the packet's connection.
#[inline(never)]
fn of_connection(field: Field, candidate: &Candidate) -> Option<u32> {
    let connection = candidate.connection?;
    let (original, reply) = (connection.original, candidate.reply()?);
    let port = |port: u16| candidate.has_ports.then_some(u32::from(port));
    match field {
        Field::Status => {
            let dnat = if candidate.dnat { STATUS_DNAT } else { 0 };
            let snat = if candidate.snat { STATUS_SNAT } else { 0 };
            Some(dnat | snat)
        }
        Field::ConnectionMark => Some(connection.mark),
        Field::Direction => Some(u32::from(connection.direction == Direction::Reply)),
        Field::OriginalSource => Some(original.source.to_bits()),
        Field::OriginalDestination => Some(original.destination.to_bits()),
        Field::OriginalSourcePort => port(original.source_port),
        Field::OriginalDestinationPort => port(original.destination_port),
        Field::ReplySource => Some(reply.source.to_bits()),
        Field::ReplyDestination => Some(reply.destination.to_bits()),
        Field::ReplySourcePort => port(reply.source_port),
        Field::ReplyDestinationPort => port(reply.destination_port),
        _ => None,
    }
}
