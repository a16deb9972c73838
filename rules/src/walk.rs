//! One walk through a base chain, shared by whoever knows the packet and whoever knows only its session.

use crate::candidate::{Candidate, Direction};
use crate::code::{self, Code, Step};
use crate::memory::Numbers;
use crate::policy::Policy;
use crate::table::{
    Action, CounterId, Effect, Field, Gate, Key, Lookup, NO_PORT, Rule, RuleId, STATUS_DNAT, STATUS_SNAT,
    Write,
};
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
    /// With what this rule says: no jump, nor a return.
    Verdict(RuleId, &'static Action),
    /// No verdict: the chain's policy decides.
    Policy,
    /// It depends on something that the walker does not know.
    Unknown,
}

/// Rules of a chain with trees that are still to be walked: those of some lists, by their places.
#[derive(Clone, Copy)]
struct Listed {
    rules: &'static [Rule],
    lists: [&'static [u16]; TREES_MAX],
}

impl Listed {
    /// Of the lists' first rules the one that stands first in the chain.
    fn next(&mut self) -> Option<&'static Rule> {
        let list = self.lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.first())?;
        let (&first, rest) = list.split_first()?;
        *list = rest;
        self.rules.get(usize::from(first))
    }
}

/// The rules of a chain that are still to be walked: all from one on, or those that trees list.
type Rest = (&'static [Rule], Option<Listed>);

/// The rules of a chain that a packet may meet.
#[inline(always)]
fn rules(policy: &Policy, chain: u16, walker: &impl Walker) -> Rest {
    let Some(chain) = policy.chain(chain) else { return (&[], None) };
    match chain.trees.as_ref().and_then(|trees| walker.find(trees)) {
        Some(lists) => (&[], Some(Listed { rules: chain.rules, lists })),
        None => (chain.rules, None),
    }
}

/// Walks the chain with this index and whatever it jumps to.
pub fn walk(policy: &Policy, chain: u16, walker: &mut impl Walker) -> Ending {
    // The callers to return to.
    let mut callers = heapless::Vec::<Rest, JUMPS_MAX>::new();
    let (mut line, mut listed) = rules(policy, chain, walker);
    let mut open = Gate::SHUT;
    loop {
        let rule = if let Some((first, rest)) = line.split_first() {
            line = rest;
            first
        } else if let Some(next) = listed.as_mut().and_then(Listed::next) {
            next
        } else if let Some(caller) = callers.pop() {
            (line, listed) = caller;
            continue;
        } else {
            return Ending::Policy;
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
        walker.met(rule.id, Some(*action));
        match *action {
            Action::Return => (line, listed) = (&[], None),
            Action::Goto(target) => (line, listed) = rules(policy, target, walker),
            // The compiler refuses deeper nesting; a table that has it all the same lets nothing pass.
            Action::Jump(target) if callers.push((line, listed)).is_ok() => {
                (line, listed) = rules(policy, target, walker);
            }
            Action::Jump(_) => return Ending::Verdict(rule.id, &Action::Drop),
            _ => return Ending::Verdict(rule.id, action),
        }
    }
}

/// What one rule asks for.
enum Outcome {
    /// A match failed.
    Next,
    /// It came to its end without a verdict.
    Done,
    Act(&'static Action),
    Unknown,
}

/// What words that are no step come to.
const NO_STEP: Outcome = Outcome::Act(&Action::Drop);

/// Walks one rule. A match of unknown result matters only if the rule then does something.
#[inline(always)]
fn apply(code: &Code, rule: &Rule, open: &mut Gate, walker: &mut impl Walker) -> Outcome {
    let mut sure = true;
    let start = rule.start as usize;
    let Some(mut words) = code.words.get(start..start + usize::from(rule.length)) else { return NO_STEP };
    while let Some((&first, rest)) = words.split_first() {
        words = rest;
        if !code::is_comparison(first) {
            if let (true, Some(action)) = (sure, code.verdict(first)) {
                return Outcome::Act(action);
            }
            match perform(code, first, &mut sure, open, walker) {
                Outcome::Done => continue,
                outcome => return outcome,
            }
        }
        let Some(field) = code::field(first) else { return NO_STEP };
        match walker.number(field) {
            Number::Is(value) => match code.holds(first, &mut words, value) {
                Some(true) => {}
                Some(false) => return Outcome::Next,
                None => return NO_STEP,
            },
            Number::Absent => return Outcome::Next,
            Number::Unknown => {
                sure = false;
                words = code::behind(first, words);
            }
        }
    }
    Outcome::Done
}

/// Does what a step says that is no comparison; [`Outcome::Done`] if the rule goes on behind it.
#[inline(never)]
fn perform(code: &Code, first: u32, sure: &mut bool, open: &mut Gate, walker: &mut impl Walker) -> Outcome {
    let goes_on = match code.step(first) {
        Some(Step::Lookup(wanted)) => match walker.looks_up(wanted) {
            None => {
                *sure = false;
                Some(true)
            }
            known => known,
        },
        Some(Step::Act(Effect::Through(gate))) => Some(gate == open),
        _ if !*sure => None,
        Some(Step::Act(Effect::Open(gate))) => {
            *open = *gate;
            Some(true)
        }
        Some(Step::Count(counter)) => {
            walker.count(counter);
            Some(true)
        }
        Some(Step::Act(effect)) => walker.act(effect),
        None => return NO_STEP,
    };
    match goes_on {
        Some(true) => Outcome::Done,
        Some(false) => Outcome::Next,
        None => Outcome::Unknown,
    }
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

/// The number that a field reads; `None` when the packet has no such field.
pub fn value(field: Field, candidate: &Candidate) -> Option<u32> {
    read(field, candidate)
}

/// As [`value`], for who reads many.
#[inline(always)]
pub fn read(field: Field, candidate: &Candidate) -> Option<u32> {
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
