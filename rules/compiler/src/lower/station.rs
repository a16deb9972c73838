//! Addresses of stations: 48 bits, which a packet has as two numbers.

use rules::table::{Field, KEY_MAX, Key};

use super::known::{Bits, Known};
use super::ranges::Shared;
use super::sets::Held;
use super::{Context, Lowering, Premises};
use crate::diagnostics::quoted;
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{self, BitOperator, Operator, Span, Value, ValueWhat};

/// All bits of a station's address.
const ALL: u128 = (1 << 48) - 1;

/// The octets of a station's address, as numbers of one or two digits.
fn address(text: &str) -> Option<u128> {
    let octet = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| matches!(part.len(), 1 | 2));
    let octets = text.split(':').map(octet).collect::<Option<Vec<_>>>()?;
    (octets.len() == 6).then(|| octets.into_iter().fold(0, |all, octet| all << 8 | u128::from(octet)))
}

/// The ranges of the first two octets and of the other four which together are a range of addresses.
pub(super) fn halves((first, last): (u128, u128)) -> Vec<[(u32, u32); 2]> {
    let split = |whole: u128| ((whole >> 32) as u32 & 0xffff, whole as u32);
    let ((upper, lower), (upper_end, lower_end)) = (split(first), split(last));
    if upper == upper_end {
        return vec![[(upper, upper), (lower, lower_end)]];
    }
    let mut boxes = Vec::new();
    let (mut from, mut to) = (upper, upper_end);
    if lower > 0 {
        boxes.push([(upper, upper), (lower, u32::MAX)]);
        from += 1;
    }
    if lower_end < u32::MAX {
        boxes.push([(upper_end, upper_end), (0, lower_end)]);
        to -= 1;
    }
    if from <= to {
        boxes.push([(from, to), (0, u32::MAX)]);
    }
    boxes
}

impl Lowering<'_> {
    /// Appends the steps of a match on a station's address.
    pub(super) fn station(
        &mut self,
        wanted: &tree::Match,
        (upper, lower): (Field, Field),
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let span = wanted.key_span.start..wanted.value.span.end.max(wanted.key_span.end);
        if !wanted.bits.is_empty() {
            return self.bits_of_station(wanted, (upper, lower), span, context, premises);
        }
        let value = wanted.value.resolved();
        let negated = wanted.operator == Operator::NotEqual;
        let held = match wanted.operator {
            _ if wanted.of.is_some() => {
                return self.refuse(wanted.value.span.clone(), "write the mask behind the key: & MASK ==");
            }
            Operator::Implicit | Operator::Equal | Operator::NotEqual => match value.what {
                ValueWhat::Named => self.named_set(&value.span, &[Datatype::Station])?,
                _ => {
                    self.program.sets += usize::from(matches!(value.what, ValueWhat::Set(_)));
                    let rows = self.rows(&wanted.value, &[Datatype::Station])?;
                    self.is_some(&wanted.value, rows.len())?;
                    let (rows, overlaps) = self.arranged(rows, &[Datatype::Station], &value.span)?;
                    if overlaps {
                        self.warning(value.span.clone(), "elements of this set repeat or overlap".to_owned());
                    }
                    Held::Rows(rows)
                }
            },
            Operator::Not => {
                return self.refuse(value.span.clone(), "\"!\" is for bits; write != for not equal");
            }
            order => {
                let one = self.one_station(value)?;
                let range = match order {
                    Operator::Less => one.checked_sub(1).map(|last| (0, last)),
                    Operator::AtMost => Some((0, one)),
                    Operator::Greater => (one < ALL).then_some((one + 1, ALL)),
                    _ => Some((one, ALL)),
                };
                let Some(range) = range else { return self.refuse(span, "this can never be true") };
                Held::Rows(self.arranged(vec![vec![range]], &[Datatype::Station], &value.span)?.0)
            }
        };
        let mut fields = [Field::Protocol; KEY_MAX];
        fields[..2].copy_from_slice(&[upper, lower]);
        // One address is two numbers, and no set.
        if let (Held::Rows(rows), false) = (&held, negated)
            && let [upper_range, lower_range] = rows.rows[..]
            && !matches!(value.what, ValueWhat::Named)
        {
            for (field, range, max) in [(upper, upper_range, 0xffff), (lower, lower_range, u32::MAX)] {
                let known = Known { field, ranges: Shared::from([range]), negated: false, max };
                self.among(known, span.clone(), context, premises)?;
            }
            return Some(());
        }
        self.looked_up(held, Key { fields, width: 2 }, (wanted.operator, &wanted.value), context, premises)
    }

    /// `ether saddr & MASK == VALUE`
    fn bits_of_station(
        &mut self,
        wanted: &tree::Match,
        (upper, lower): (Field, Field),
        span: Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let (mut mask, mut xor) = (ALL, 0);
        for (operator, operand) in &wanted.bits {
            let bits = self.one_station(operand)?;
            match operator {
                BitOperator::And => (mask, xor) = (mask & bits, xor & bits),
                BitOperator::Or => (mask, xor) = (mask & !bits, xor | bits),
                BitOperator::Xor => xor ^= bits,
            }
        }
        let value = self.one_station(&wanted.value)? ^ xor;
        let negated = wanted.operator == Operator::NotEqual;
        let parts = [(upper, mask >> 32, value >> 32), (lower, mask & 0xffff_ffff, value & 0xffff_ffff)];
        let of = |(field, mask, value): (Field, u128, u128)| Bits {
            field,
            mask: mask as u32,
            value: value as u32,
            negated,
        };
        let asked: Vec<_> = parts.into_iter().map(of).filter(|bits| bits.mask | bits.value != 0).collect();
        if asked.is_empty() || (negated && asked.len() > 1) {
            let message = match negated {
                true => "bits of the first two octets and of the other four are compared apart with !=",
                false => "no bit is compared",
            };
            return self.refuse(span, message);
        }
        for bits in asked {
            self.has_bits(bits, span.clone(), context, premises)?;
        }
        Some(())
    }

    /// The addresses of a value.
    pub(super) fn stations(&mut self, value: &Value) -> Option<(u128, u128)> {
        match &value.what {
            ValueWhat::Range(ends) => {
                let (first, last) = (self.one_station(&ends.0), self.one_station(&ends.1));
                let (first, last) = (first?, last?);
                if first > last {
                    return self.refuse(value.span.clone(), "the range ends before it begins");
                }
                Some((first, last))
            }
            ValueWhat::Prefix6(length) => {
                let Some(host) = 48u32.checked_sub((*length).into()).map(|bits| (1u128 << bits) - 1) else {
                    return self
                        .refuse(value.span.clone(), "a prefix length of Ethernet addresses is 0 to 48");
                };
                let address = self.one_station(value)?;
                Some((address & !host, address | host))
            }
            _ => self.one_station(value).map(|address| (address, address)),
        }
    }

    fn one_station(&mut self, value: &Value) -> Option<u128> {
        let value = value.resolved();
        let text = self.source.slice(&value.span);
        let is_text = matches!(value.what, ValueWhat::Colons | ValueWhat::Prefix6(_) | ValueWhat::Quoted);
        if let Some(address) = address(text.trim_matches('"')).filter(|_| is_text) {
            return Some(address);
        }
        if let ValueWhat::Number = value.what {
            let message =
                format!("{} is a number, not an Ethernet address, such as 52:54:00:00:00:01", quoted(text));
            return self.refuse(value.span.clone(), message);
        }
        // It says what is wrong with anything else.
        self.single(value, Datatype::Station).map(u128::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_octets_of_one_or_two_digits_are_an_address() {
        assert_eq!(address("52:54:00:0a:B:1"), Some(0x5254_000a_0b01));
        for wrong in
            ["52:54:00:00:01", "52:54:00:00:00:01:02", "52:54:00:00:00:001", "52:54:0::1:2", "x:1:2:3:4:5"]
        {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn halves_hold_what_the_whole_holds() {
        let edges = [
            0,
            1,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            0x2_8000_0000,
            0x3_0000_0000,
            ALL - 1,
            ALL,
        ];
        for (at, &first) in edges.iter().enumerate() {
            for &last in &edges[at..] {
                for &value in &edges {
                    let (upper, lower) = ((value >> 32) as u32, value as u32);
                    let boxes = halves((first, last));
                    let holds = boxes.iter().filter(|[one, other]| {
                        (one.0..=one.1).contains(&upper) && (other.0..=other.1).contains(&lower)
                    });
                    assert_eq!(
                        holds.count(),
                        usize::from((first..=last).contains(&value)),
                        "{first} {last} {value}"
                    );
                }
            }
        }
    }
}
