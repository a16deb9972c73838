//! Matches on IPv6: what they say is checked as nft does it, and no IPv4 packet meets them.

use std::net::Ipv6Addr;

use rules::table::Field;

use super::known::Known;
use super::ranges::normalise;
use super::{Lowering, Premises};
use crate::diagnostics::quoted;
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{self, Operator, Value, ValueWhat};

impl Lowering<'_> {
    /// A match on what no IPv4 packet has.
    pub(super) fn ipv6(&mut self, wanted: &tree::Match, premises: &mut Premises) -> Option<()> {
        let datatype = wanted.key.datatype;
        let span = wanted.value.span.clone();
        if wanted.of.is_some() {
            return self.refuse(span, "a mask behind the value is not in this version's subset");
        }
        for (_, operand) in &wanted.bits {
            self.one_wide(operand, datatype)?;
        }
        let value = wanted.value.resolved();
        let is_one = !matches!(value.what, ValueWhat::Named | ValueWhat::Set(_) | ValueWhat::Range(_));
        match wanted.operator {
            Operator::Implicit | Operator::Equal | Operator::NotEqual => {}
            Operator::Not => return self.refuse(span, "\"!\" is for bits; write != for not equal"),
            _ if !is_one => {
                return self.refuse(span, "an order is that of one value, not of a set or a range");
            }
            _ => {}
        }
        if !wanted.bits.is_empty() && !is_one {
            return self.refuse(span, "behind a mask, one value is compared, not a set or a range");
        }
        if let ValueWhat::Named = value.what {
            self.named_set(&value.span, &[datatype])?;
        } else {
            let rows = self.rows(&wanted.value, &[datatype])?;
            self.is_some(&wanted.value, rows.len())?;
            self.next_header(wanted, rows.concat(), premises)?;
        }
        premises.is_never = true;
        Some(())
    }

    /// The next header is the protocol of what follows in the rule.
    fn next_header(
        &mut self,
        wanted: &tree::Match,
        values: Vec<(u128, u128)>,
        premises: &mut Premises,
    ) -> Option<()> {
        let is_plain =
            matches!(wanted.operator, Operator::Implicit | Operator::Equal) && wanted.bits.is_empty();
        if wanted.key.name != "ip6 nexthdr" || !is_plain {
            return Some(());
        }
        let ranges = normalise(values.into_iter().map(narrowed).collect()).0.into();
        if !premises.narrow(Known { field: Field::Protocol, ranges, negated: false, max: 255 }) {
            let message = "this can never be true after the earlier matches of the rule";
            return self.refuse(wanted.value.span.clone(), message);
        }
        let named = self.named_singly(&wanted.value, wanted.key.datatype)?;
        premises.named_protocols.extend(named);
        Some(())
    }

    /// The values of an element of any type.
    pub(super) fn wide(&mut self, value: &Value, datatype: Datatype) -> Option<Vec<(u128, u128)>> {
        let value = value.resolved();
        if datatype == Datatype::Station
            && let ValueWhat::Range(_)
            | ValueWhat::Prefix6(_)
            | ValueWhat::Colons
            | ValueWhat::Quoted
            | ValueWhat::Number = value.what
        {
            return self.stations(value).map(|range| vec![range]);
        }
        if datatype != Datatype::Address6 {
            return Some(self.element(value, datatype)?.into_iter().map(widened).collect());
        }
        let range = match &value.what {
            ValueWhat::Range(ends) => {
                let (first, last) = (self.one_wide(&ends.0, datatype), self.one_wide(&ends.1, datatype));
                let (first, last) = (first?, last?);
                if first > last {
                    return self.refuse(value.span.clone(), "the range ends before it begins");
                }
                (first, last)
            }
            ValueWhat::Prefix6(length) => {
                let host = u128::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                let address = self.one_wide(value, datatype)?;
                (address & !host, address | host)
            }
            // It says what is wrong with anything else.
            ValueWhat::Set(_)
            | ValueWhat::Named
            | ValueWhat::List(_)
            | ValueWhat::Or(_)
            | ValueWhat::Concatenation(_)
            | ValueWhat::Prefix(..) => {
                return Some(self.element(value, datatype)?.into_iter().map(widened).collect());
            }
            _ => {
                let address = self.one_wide(value, datatype)?;
                (address, address)
            }
        };
        Some(vec![range])
    }

    /// One value of any type.
    fn one_wide(&mut self, value: &Value, datatype: Datatype) -> Option<u128> {
        let value = value.resolved();
        let text = self.source.slice(&value.span);
        if datatype != Datatype::Address6 {
            return self.single(value, datatype).map(u128::from);
        }
        match (&value.what, text.parse::<Ipv6Addr>()) {
            (ValueWhat::Colons | ValueWhat::Prefix6(_), Ok(address)) => Some(address.to_bits()),
            (ValueWhat::Colons | ValueWhat::Prefix6(_), Err(_)) => {
                self.refuse(value.span.clone(), format!("{} is no IPv6 address", quoted(text)))
            }
            _ => self.single(value, datatype).map(u128::from),
        }
    }
}

fn widened((first, last): (u32, u32)) -> (u128, u128) {
    (first.into(), last.into())
}

/// As numbers of 32 bits, which all but IPv6 addresses are.
pub(super) fn narrowed((first, last): (u128, u128)) -> (u32, u32) {
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(first), narrow(last))
}
