//! Comparisons of bits.

use super::Lowering;
use super::matches::Meaning;
use super::ranges::normalise;
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{self, BitOperator, Operator, ValueWhat};

impl Lowering<'_> {
    /// `key & a | b == value`: `(key & and) ^ xor` has the value.
    pub(super) fn with_bits(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let (mask, xor) = self.bit_operations(&wanted.bits, datatype, (datatype.max(), 0))?;
        let value = wanted.value.resolved();
        if let ValueWhat::Set(_) | ValueWhat::Named = value.what {
            return self.among_masked(wanted, (mask, xor));
        }
        if !matches!(value.what, ValueWhat::Number | ValueWhat::Address | ValueWhat::Word) {
            let message = "behind a mask, one value is compared, not a set or a range";
            return self.refuse(wanted.value.span.clone(), message);
        }
        let value = self.single(value, datatype)? ^ xor;
        Some(Meaning::Bits { mask, value, negated: wanted.operator == Operator::NotEqual })
    }

    /// Under a mask of leading bits each value is a range of those that have its bits.
    fn among_masked(&mut self, wanted: &tree::Match, (mask, xor): (u32, u32)) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let others = datatype.max() & !mask;
        let held = self.operand(&wanted.value, datatype)?;
        let is_single = held.iter().all(|(first, last)| first == last && first & others == 0);
        if others & others.wrapping_add(1) != 0 || xor != 0 || !is_single {
            let message =
                "a set behind a mask has single values, and the mask leading bits, such as 255.255.255.0";
            return self.refuse(wanted.value.span.clone(), message);
        }
        let ranges = held.iter().map(|&(value, _)| (value, value | others)).collect();
        Some(Meaning::Among(normalise(ranges).0.into(), wanted.operator == Operator::NotEqual))
    }

    /// What operations on `(x & and) ^ xor` make of it.
    pub(super) fn bit_operations(
        &mut self,
        operations: &[(BitOperator, tree::Value)],
        datatype: Datatype,
        start: (u32, u32),
    ) -> Option<(u32, u32)> {
        let (mut and, mut xor) = start;
        for (operator, operand) in operations {
            let bits = self.single(operand, datatype)?;
            match operator {
                BitOperator::And => (and, xor) = (and & bits, xor & bits),
                BitOperator::Or => (and, xor) = (and & !bits, xor | bits),
                BitOperator::Xor => xor ^= bits,
            }
        }
        Some((and, xor))
    }

    /// A comparison of bits, as nft 1.0.6 compiles it.
    pub(super) fn bit_meaning(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let value_span = wanted.value.span.clone();
        let mut resolved = wanted.value.resolved();
        // nft makes a plain comparison of a set of one element, which for bits is another one.
        // That of a define within counts as the set's own.
        while let (ValueWhat::Set(items), Operator::Implicit) = (&resolved.what, wanted.operator)
            && let [one] = items.as_slice()
        {
            resolved = one.resolved();
        }
        let is_set = matches!(resolved.what, ValueWhat::Set(_) | ValueWhat::Named);
        let negated = wanted.operator == Operator::NotEqual;
        if is_set {
            let plain = matches!(wanted.operator, Operator::Implicit | Operator::Equal | Operator::NotEqual);
            if !plain || wanted.mask.is_some() || wanted.of.is_some() {
                return self.refuse(value_span, "a set has no place here");
            }
            if datatype == Datatype::Status {
                return self.refuse(
                    value_span,
                    "ct status in a set compares the whole status; write ct status dnat,snat",
                );
            }
            return Some(Meaning::Among(self.operand(&wanted.value, datatype)?, negated));
        }
        if let Some(mask) = wanted.mask.as_ref().or(wanted.of.as_ref()) {
            return self.masked(wanted, mask, negated);
        }
        let value = self.bits(if is_set { &wanted.value } else { resolved }, datatype)?;
        let is_one = value.is_power_of_two();
        match wanted.operator {
            Operator::Implicit if value == 0 => self.refuse(value_span, "this can never be true; write == 0"),
            Operator::Implicit => Some(Meaning::Bits { mask: value, value: 0, negated: true }),
            Operator::Not => Some(Meaning::Bits { mask: value, value: 0, negated: false }),
            Operator::Equal | Operator::NotEqual if datatype == Datatype::Status => self.refuse(
                value_span,
                "this compares the whole status; write ct status dnat, or ct status ! dnat",
            ),
            Operator::Equal if datatype == Datatype::State && !is_one => {
                self.refuse(value_span, "a packet has one state: this can never be true; leave out ==")
            }
            Operator::NotEqual if datatype == Datatype::State && !is_one => {
                self.refuse(value_span, "a packet has one state: this is always true; write != { a, b }")
            }
            Operator::Equal | Operator::NotEqual => Some(Meaning::Bits { mask: u32::MAX, value, negated }),
            _ => self.refuse(value_span, format!("{} has no order", datatype.name())),
        }
    }

    /// `key & mask == value` and `key value / mask`.
    fn masked(&mut self, wanted: &tree::Match, mask: &tree::Value, negated: bool) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let (mask_bits, value) = (self.bits(mask, datatype), self.bits(&wanted.value, datatype));
        let (mask_bits, value) = (mask_bits?, value?);
        if wanted.of.is_some() && (wanted.mask.is_some() || matches!(wanted.operator, Operator::Not)) {
            return self.refuse(mask.span.clone(), "one mask is enough");
        }
        if !matches!(wanted.operator, Operator::Implicit | Operator::Equal | Operator::NotEqual) {
            return self.refuse(wanted.value.span.clone(), format!("{} has no order", datatype.name()));
        }
        if value & !mask_bits != 0 {
            let message = if negated { "this is always true" } else { "this can never be true" };
            return self.refuse(
                wanted.value.span.clone(),
                format!("{message}: the value has bits outside the mask"),
            );
        }
        Some(Meaning::Bits { mask: mask_bits, value, negated })
    }
}
