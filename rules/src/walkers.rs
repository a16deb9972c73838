//! Who walks through chains: with a packet at hand, or ahead of packets that are not there yet.

use crate::candidate::{Candidate, Direction, State};
use crate::memory::{Memory, Numbers};
use crate::policy::{Met, Tally};
use crate::residue::Residue;
use crate::table::{Action, CounterId, Effect, Field, Key, Lookup, RuleId};
use crate::tree::{TREES_MAX, Trees};
use crate::walk::{self, Number, Walker};

type Lists = [&'static [u16]; TREES_MAX];

/// Walks with the packet at hand.
pub(crate) struct Seen<'a, T> {
    pub candidate: &'a mut Candidate,
    pub tally: &'a mut T,
}

impl<T: Tally> Seen<'_, T> {
    /// Asks what is remembered about a key of the packet; no packet without the key goes on.
    fn remembered(&mut self, key: &Key, ask: impl FnOnce(&mut Memory, &Numbers, u32, u64) -> bool) -> bool {
        let Some(numbers) = walk::numbers(key, self.candidate) else { return false };
        let octets = u32::from(self.candidate.length);
        self.tally.memory().is_none_or(|(memory, now)| ask(memory, &numbers, octets, now))
    }

    fn set_mark_of_connection(&mut self, mark: Option<u32>) -> bool {
        let Some(mark) = mark else { return false };
        // Without a connection there is nothing to mark, and the rule goes on, as the kernel has it.
        if let Some(connection) = &mut self.candidate.connection {
            connection.mark = mark;
        }
        true
    }
}

impl<T: Tally> Walker for Seen<'_, T> {
    fn find(&self, trees: &Trees) -> Option<Lists> {
        Some(trees.find(self.candidate))
    }

    #[inline(always)]
    fn number(&self, field: Field) -> Number {
        walk::read(field, self.candidate).map_or(Number::Absent, Number::Is)
    }

    fn count(&mut self, counter: CounterId) {
        self.tally.count(counter, self.candidate.length.into());
    }

    fn met(&mut self, rule: RuleId, action: Option<Action>) {
        self.tally.met(Met::Rule(rule, action));
    }

    fn looks_up(&mut self, wanted: &Lookup) -> Option<bool> {
        Some(walk::looks_up(wanted, self.candidate))
    }

    fn act(&mut self, effect: &Effect) -> Option<bool> {
        let octets = u32::from(self.candidate.length);
        Some(match effect {
            // The walk itself knows of gates.
            Effect::Open(_) | Effect::Through(_) => true,
            Effect::Limit(id) => {
                self.tally.memory().is_none_or(|(memory, now)| memory.limit(*id, octets, now))
            }
            Effect::Quota(id) => self.tally.memory().is_none_or(|(memory, _)| memory.quota(*id, octets)),
            Effect::Log(log) => {
                self.tally.log(*log, self.candidate);
                true
            }
            Effect::Untrack => {
                self.candidate.state = State::Untracked;
                true
            }
            Effect::Segment(octets) => {
                self.tally.segment(*octets);
                true
            }
            Effect::Mark(write) => match walk::written(write, self.candidate) {
                Some(mark) => {
                    self.candidate.mark = mark;
                    true
                }
                None => false,
            },
            Effect::ConnectionMark(write) => {
                let mark = walk::written(write, self.candidate);
                self.set_mark_of_connection(mark)
            }
            Effect::Connections(id, key) => match walk::numbers(key, self.candidate) {
                Some(numbers) => {
                    let of = self.candidate.connection.map(|connection| connection.direction);
                    self.tally.connections(*id, &numbers, of.unwrap_or(Direction::Original))
                }
                None => false,
            },
            Effect::Update(update) => self.remembered(&update.key, |memory, numbers, octets, now| {
                memory.change(update.set, (update.how, update.timeout), numbers, octets, now)
            }),
            Effect::Member { set, key, negated } => self.remembered(key, |memory, numbers, octets, now| {
                memory.is_member(*set, numbers, *negated, octets, now)
            }),
        })
    }
}

/// Walks ahead of packets that are not there yet.
pub(crate) struct Foreseen<'a> {
    pub known: Known<'a>,
    /// What is left to do as far as it has come.
    pub residue: Residue,
}

/// What is known of packets that are not there yet.
pub(crate) enum Known<'a> {
    /// Their session and direction; what differs from packet to packet is not.
    Session(&'a Candidate),
    /// Their state alone.
    State(State),
}

impl Walker for Foreseen<'_> {
    fn find(&self, trees: &Trees) -> Option<Lists> {
        match self.known {
            Known::Session(candidate) => Some(trees.find(candidate)),
            Known::State(_) => None,
        }
    }

    fn number(&self, field: Field) -> Number {
        match self.known {
            Known::State(state) if field == Field::State => Number::Is(state.bit()),
            Known::State(_) => Number::Unknown,
            Known::Session(candidate) => match walk::value(field, candidate) {
                // A session without the field (flags of a datagram) never has it.
                None => Number::Absent,
                Some(_) if field.is_per_packet() => Number::Unknown,
                Some(value) => Number::Is(value),
            },
        }
    }

    fn count(&mut self, counter: CounterId) {
        self.residue = self.residue.with(counter);
    }

    fn looks_up(&mut self, wanted: &Lookup) -> Option<bool> {
        let Known::Session(candidate) = self.known else { return None };
        let is_known = |field: &Field| !field.is_per_packet() || walk::value(*field, candidate).is_none();
        wanted.key.fields().iter().all(is_known).then(|| walk::looks_up(wanted, candidate))
    }

    fn act(&mut self, _: &Effect) -> Option<bool> {
        None
    }
}
