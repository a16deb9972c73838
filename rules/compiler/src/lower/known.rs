//! What the matches of a rule say of the packets that are left.

use std::ops::RangeInclusive;

use rules::Hook;
use rules::table::{Field, Kind, NO_PORT};

use super::graph::reached_only_by;
use super::layers::is_of_connection;
use super::ranges::{Ranges, Shared, complement, intersection};
use super::{Context, Premises};
use crate::program::{Step, Test};
use crate::syntax::keys::Layer;

/// The values that a field has left.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub field: Field,
    pub ranges: Shared,
    pub negated: bool,
    pub max: u32,
}

/// Bits that a field has, or has not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits {
    pub field: Field,
    pub mask: u32,
    pub value: u32,
    pub negated: bool,
}

/// Single values that are looked at one by one for whether they have the bits.
const VALUES_MAX: u32 = 256;

/// The states of packets without a connection, invalid and untracked.
const WITHOUT_CONNECTION: [(u32, u32); 2] = [(1, 1), (64, 64)];

/// `ct state new`
const NEW: u32 = 8;

impl Known {
    /// Whether no value is left.
    pub fn is_none(&self) -> bool {
        match self.ranges[..] {
            [] => !self.negated,
            [(0, last)] => self.negated && last >= self.max,
            _ => false,
        }
    }

    /// Whether every value is.
    fn is_all(&self) -> bool {
        match self.ranges[..] {
            [] => self.negated,
            [(0, last)] => !self.negated && last >= self.max,
            _ => false,
        }
    }

    /// The test for these values, and whether it is negated; none when every value passes.
    pub fn test(&self) -> Option<(Test, bool)> {
        if self.is_all() {
            return None;
        }
        let test = match self.ranges[..] {
            [(first, last)] if first == last => Test::Equal(first),
            [(first, last)] => Test::Range(first, last),
            _ => Test::In(Shared::clone(&self.ranges)),
        };
        Some((test, self.negated))
    }

    /// The values, written out.
    pub fn values(&self) -> Shared {
        if self.negated { complement(&self.ranges, self.max).into() } else { Shared::clone(&self.ranges) }
    }
}

impl Bits {
    fn holds(&self, value: u32) -> bool {
        (value & self.mask == self.value) != self.negated
    }

    /// One bit that is not one is zero.
    fn plain(self) -> Self {
        if self.negated && self.mask.is_power_of_two() {
            return Self { value: self.value ^ self.mask, negated: false, ..self };
        }
        self
    }

    /// Whether no number has both.
    fn excludes(&self, other: &Self) -> bool {
        let (one, other) = (self.plain(), other.plain());
        match (one.negated, other.negated) {
            (false, false) => (one.value ^ other.value) & one.mask & other.mask != 0,
            (false, true) => other.mask & !one.mask == 0 && one.value & other.mask == other.value,
            (true, false) => other.excludes(&one),
            (true, true) => false,
        }
    }
}

impl Context {
    /// Whether chains of type nat alone reach this one.
    pub(super) fn is_nat(&self) -> bool {
        self.reached != 0 && reached_only_by(self, &Hook::ALL.map(|hook| (Kind::Nat, hook)))
    }

    /// The values that a field of few can have where this chain is.
    pub(super) fn values(&self, field: Field) -> Option<Ranges> {
        let each = |values: &[u32]| values.iter().map(|&value| (value, value)).collect();
        let is_nat = self.is_nat();
        Some(match field {
            // What no connection is known of is invalid, unless a rule says that it is to have none.
            Field::State if self.is_before_tracking() => each(&[1, 64]),
            // Chains of type nat see first packets only.
            Field::State if is_nat => each(&[NEW]),
            Field::State => each(&[1, 2, 4, NEW, 64]),
            Field::Direction if is_nat => each(&[0]),
            Field::Status => each(&[0, 0x10, 0x20, 0x30]),
            Field::TcpFlags => vec![(0, 255)],
            // An IPv4 header has 20 octets.
            Field::Length => vec![(20, 65_535)],
            // What comes with less than 2 is not forwarded.
            Field::Ttl if self.only_at(&[Hook::Forward]) => vec![(1, 255)],
            _ => return None,
        })
    }
}

impl Premises {
    pub fn push(&mut self, step: Step) {
        if !self.is_never {
            self.steps.push(step);
        }
    }

    /// Notes what is known of a field; false when no value is left.
    pub fn narrow(&mut self, new: Known) -> bool {
        let field = new.field;
        match self.known.iter_mut().find(|known| known.field == field) {
            Some(known) => {
                known.ranges = intersection(&known.values(), &new.values()).into();
                known.negated = false;
            }
            None => self.known.push(new),
        }
        let is_left = self.known.iter().all(|known| known.field != field || !known.is_none());
        is_left && self.have_bits(field)
    }

    /// Notes which bits a field has; false when no value has them all.
    pub fn narrow_bits(&mut self, new: Bits) -> bool {
        let is_possible = !self.bits.iter().any(|bits| bits.field == new.field && bits.excludes(&new));
        self.bits.push(new);
        is_possible && self.have_bits(new.field)
    }

    /// Whether a value that is left has the bits that it should; many are not looked at.
    fn have_bits(&self, field: Field) -> bool {
        let bits = || self.bits.iter().filter(|bits| bits.field == field);
        let Some(known) = self.known.iter().find(|known| known.field == field) else { return true };
        if known.negated || bits().next().is_none() {
            return true;
        }
        let count =
            |sum: u32, &(first, last): &(u32, u32)| sum.saturating_add((last - first).saturating_add(1));
        if known.ranges.iter().fold(0, count) > VALUES_MAX {
            return true;
        }
        let ends = |&(first, last): &(u32, u32)| -> RangeInclusive<u32> { first..=last };
        known.ranges.iter().flat_map(ends).any(|value| bits().all(|bits| bits.holds(value)))
    }

    /// What was known of these fields is not so any more.
    pub fn forget(&mut self, fields: &[Field]) {
        self.known.retain(|known| !fields.contains(&known.field));
        self.bits.retain(|bits| !fields.contains(&bits.field));
    }

    /// The values that a field has left, if something is known of it.
    pub fn values(&self, field: Field) -> Option<Shared> {
        self.known.iter().find(|known| known.field == field).map(Known::values)
    }

    pub fn knows(&self, field: Field) -> bool {
        self.known.iter().any(|known| known.field == field)
    }

    /// Whether the field has one of these values, and no other.
    fn is_within(&self, field: Field, ranges: &[(u32, u32)]) -> bool {
        let others = complement(ranges, u32::MAX);
        self.values(field).is_some_and(|values| intersection(&values, &others).is_empty())
    }

    /// Whether what is known of the packet's connection cannot be.
    pub fn is_at_odds(&self) -> bool {
        let asks = |field: Field| field != Field::State && is_of_connection(field);
        let asks_connection = self.asked.iter().copied().any(asks);
        (asks_connection && self.is_within(Field::State, &WITHOUT_CONNECTION))
            || (self.is_within(Field::State, &[(NEW, NEW)]) && self.is_within(Field::Direction, &[(1, 1)]))
    }

    pub fn protocols(&self) -> Option<Shared> {
        self.values(Field::Protocol)
    }

    /// Whether only protocols are left that have what a key of this layer reads.
    pub fn has_ports(&self, layer: Layer) -> bool {
        let protocols: Ranges = layer.protocols().iter().map(|&protocol| (protocol, protocol)).collect();
        protocols.is_empty() || self.is_within(Field::Protocol, &protocols)
    }
}

/// The greatest value that a field of interfaces may have: the mark of none.
pub(super) const INTERFACE_MAX: u32 = NO_PORT;
