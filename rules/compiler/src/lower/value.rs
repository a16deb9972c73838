//! Values: names, numbers and addresses to ranges of numbers.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rules::table::LOOPBACK;

use super::Lowering;
use super::ranges::{Ranges, normalise};
use crate::diagnostics::{meant, quoted};
use crate::names::{self, find};
use crate::source::Source;
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{Value, ValueWhat};

impl Lowering<'_> {
    /// The ranges of a value, or of a set literal; sorted and apart.
    pub(super) fn ranges(&mut self, value: &Value, datatype: Datatype) -> Option<Ranges> {
        let mut ranges = Ranges::new();
        self.collect(value, datatype, &mut ranges)?;
        self.is_some(value, ranges.len())?;
        let (ranges, overlaps) = normalise(ranges);
        // A wildcard may name what a name names; that is no mistake.
        if overlaps && datatype != Datatype::Interface {
            self.warning(value.span.clone(), "elements of this set repeat or overlap".to_owned());
        }
        Some(ranges)
    }

    /// Refuses a set in a rule that has no elements: a define may be empty.
    pub(super) fn is_some(&mut self, value: &Value, count: usize) -> Option<()> {
        if count > 0 {
            return Some(());
        }
        self.refuse(value.span.clone(), "this set has no elements")
    }

    /// All elements of a value, as they stand. What stands in a define is told where it stands.
    pub(super) fn collect(&mut self, value: &Value, datatype: Datatype, into: &mut Ranges) -> Option<()> {
        self.spend(value)?;
        match &value.what {
            ValueWhat::Variable(inner) => self.collect(inner, datatype, into),
            ValueWhat::Set(items) => {
                let mut result = Some(());
                for item in items {
                    if self.collect(item, datatype, into).is_none() {
                        result = None;
                    }
                    if self.is_spent() {
                        return None;
                    }
                }
                result
            }
            _ => {
                into.extend(self.element(value, datatype)?);
                Some(())
            }
        }
    }

    /// The values of one element.
    pub(super) fn element(&mut self, value: &Value, datatype: Datatype) -> Option<Ranges> {
        let span = value.span.clone();
        match &value.what {
            ValueWhat::Variable(inner) => self.element(inner, datatype),
            ValueWhat::Prefix(address, length) if datatype == Datatype::Address => {
                let address = self.single(address, datatype)?;
                let prefix = rules::site::Prefix { address: address.into(), length: *length };
                let (first, last) = (prefix.network(), prefix.last());
                if prefix.address != first {
                    let message = format!("host bits are set and do not count: this is {first}/{length}");
                    self.warning(span, message);
                }
                Some(vec![(first.into(), last.into())])
            }
            ValueWhat::Prefix6(_) | ValueWhat::Colons => {
                self.single(value, datatype).map(|value| vec![(value, value)])
            }
            ValueWhat::Concatenation(_) => {
                self.refuse(span, format!("expected {}, not a concatenation", datatype.noun()))
            }
            ValueWhat::Range(ends) if datatype.is_ordered() => {
                let (first, last) = (self.single(&ends.0, datatype), self.single(&ends.1, datatype));
                let (first, last) = (first?, last?);
                if first > last {
                    return self.refuse(span, "the range ends before it begins");
                }
                Some(vec![(first, last)])
            }
            ValueWhat::Word | ValueWhat::Quoted
                if matches!(datatype, Datatype::Interface | Datatype::InterfaceIndex) =>
            {
                self.interfaces(value, datatype)
            }
            ValueWhat::Or(_) | ValueWhat::List(_) if datatype.is_bits() => {
                let bits = self.bits(value, datatype)?;
                Some(vec![(bits, bits)])
            }
            ValueWhat::Prefix(..) => self.refuse(span, format!("a prefix is not {}", datatype.noun())),
            ValueWhat::Range(_) => self.refuse(span, format!("{} has no ranges", datatype.name())),
            ValueWhat::List(_) => self.refuse(span, "a list of values needs braces: { a, b }"),
            ValueWhat::Or(_) => self.refuse(span, format!("{} has no bits to join by |", datatype.name())),
            ValueWhat::Named => self.refuse(span, "a named set stands alone, not within a value"),
            ValueWhat::Set(_) => self.refuse(span, "a set has no place here"),
            ValueWhat::Word | ValueWhat::Quoted | ValueWhat::Number | ValueWhat::Address => {
                let value = self.single(value, datatype)?;
                Some(vec![(value, value)])
            }
        }
    }

    /// One value.
    pub(super) fn single(&mut self, value: &Value, datatype: Datatype) -> Option<u32> {
        let value = value.resolved();
        let span = value.span.clone();
        let text = self.source.slice(&span);
        match value.what {
            ValueWhat::Number => self.number(value, datatype),
            ValueWhat::Address if datatype == Datatype::Address => match names::address(text) {
                Ok(address) => Some(address.into()),
                Err(reason) => self.refuse(span, reason),
            },
            ValueWhat::Address => {
                self.refuse(span, format!("{} is an address, not {}", quoted(text), datatype.noun()))
            }
            ValueWhat::Colons | ValueWhat::Prefix6(_) => self.colons(value, datatype),
            ValueWhat::Word | ValueWhat::Quoted => self.named_value(value, datatype),
            _ => self.refuse(span, format!("expected {}", datatype.noun())),
        }
    }

    /// An IPv6 address is looked at, and stands for itself: no packet is compared with it.
    fn colons(&mut self, value: &Value, datatype: Datatype) -> Option<u32> {
        let span = value.span.clone();
        let text = self.source.slice(&span);
        let is_address = text.parse::<std::net::Ipv6Addr>().is_ok();
        match (is_address, datatype) {
            (true, Datatype::Address6) => Some(0),
            (false, Datatype::Address6) => self.refuse(span, format!("{} is no IPv6 address", quoted(text))),
            (true, _) => {
                self.refuse(span, format!("{} is an IPv6 address, not {}", quoted(text), datatype.noun()))
            }
            (false, _) => self.refuse(span, format!("{} is not {}", quoted(text), datatype.noun())),
        }
    }

    fn number(&mut self, value: &Value, datatype: Datatype) -> Option<u32> {
        let span = value.span.clone();
        let text = self.source.slice(&span);
        match datatype {
            Datatype::Address => {
                return self.refuse(span, format!("{} is a number, not an IPv4 address", quoted(text)));
            }
            Datatype::Address6 => {
                return self.refuse(span, format!("{} is a number, not an IPv6 address", quoted(text)));
            }
            Datatype::Interface | Datatype::InterfaceIndex => {
                return self.refuse(span, format!("{} is a number, not an interface name", quoted(text)));
            }
            _ => {}
        }
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None if text.len() > 1 && text.starts_with('0') => {
                return self
                    .refuse(span, format!("{} has a leading zero, which nft reads as octal", quoted(text)));
            }
            None => names::decimal(text),
        };
        match number.filter(|&number| number <= datatype.max()) {
            Some(number) => Some(number),
            None => self.refuse(
                span,
                format!("{} is not {}: 0 to {}", quoted(text), datatype.noun(), datatype.max()),
            ),
        }
    }

    fn named_value(&mut self, value: &Value, datatype: Datatype) -> Option<u32> {
        let span = value.span.clone();
        let text = self.source.slice(&span).trim_matches('"');
        let known = match datatype {
            Datatype::Protocol => names::PROTOCOLS,
            Datatype::Port => names::SERVICES,
            Datatype::IcmpType => names::ICMP_TYPES,
            Datatype::IcmpCode => names::ICMP_CODES,
            Datatype::TcpFlags => names::TCP_FLAGS,
            Datatype::State => names::STATES,
            Datatype::Status => names::STATUSES,
            Datatype::Dscp => names::DSCPS,
            Datatype::Ecn => names::ECNS,
            Datatype::NetworkProtocol => names::NETWORK_PROTOCOLS,
            Datatype::EtherType => names::ETHER_TYPES,
            Datatype::Direction => names::DIRECTIONS,
            Datatype::PacketType => names::PACKET_TYPES,
            Datatype::FibType => names::FIB_TYPES,
            Datatype::IcmpTypeV6 => names::ICMPV6_TYPES,
            Datatype::IcmpCodeV6 => names::ICMPV6_CODES,
            _ => &[],
        };
        if let Some(value) = find(known, text) {
            return Some(value);
        }
        let unbuilt = ["expected", "seen-reply", "assured", "confirmed", "snat-done", "dnat-done", "dying"];
        let message = match datatype {
            Datatype::Status if unbuilt.contains(&text) => {
                format!("ct status {text} is not in this version's subset")
            }
            Datatype::Address => {
                format!("{} is not an IPv4 address; host names are not looked up", quoted(text))
            }
            _ => format!("{} is not {}", quoted(text), datatype.noun()),
        };
        let label = meant(text, known.iter().map(|&(name, _)| name));
        self.refuse_with(span, message, label)
    }

    /// The ports of an interface name or a wildcard.
    fn interfaces(&mut self, value: &Value, datatype: Datatype) -> Option<Ranges> {
        let span = value.span.clone();
        let text = self.source.slice(&span).trim_matches('"');
        if text.len() > 15 {
            return self.refuse(span, "an interface name has at most 15 characters");
        }
        if let Some(start) = text.strip_suffix('*') {
            if start.is_empty() || start.contains(['*', '\\']) || datatype == Datatype::InterfaceIndex {
                return self.refuse(span, "this wildcard is not in this version's subset");
            }
            let ports = self.plan.names().zip(0u32..).filter(|(name, _)| name.starts_with(start));
            let mut ports: Ranges = ports.map(|(_, port)| (port, port)).collect();
            if "lo".starts_with(start) {
                ports.push((LOOPBACK, LOOPBACK));
            }
            if ports.is_empty() {
                return self
                    .refuse(span, format!("no interface of weir.toml is named like {}", quoted(text)));
            }
            return Some(ports);
        }
        if text == "lo" {
            return Some(vec![(LOOPBACK, LOOPBACK)]);
        }
        if let Some(port) = self.plan.port(text) {
            return Some(vec![(port.into(), port.into())]);
        }
        let label = meant(text, self.plan.names());
        self.refuse_with(span, format!("client {} is not declared in weir.toml", quoted(text)), label)
    }

    /// The bits of `a`, `a, b`, `a | b` together.
    pub(super) fn bits(&mut self, value: &Value, datatype: Datatype) -> Option<u32> {
        self.spend(value)?;
        match &value.what {
            ValueWhat::Variable(inner) => self.bits(inner, datatype),
            ValueWhat::List(items) | ValueWhat::Or(items) => {
                let mut bits = Some(0);
                for item in items {
                    let more = self.bits(item, datatype);
                    bits = bits.zip(more).map(|(bits, more)| bits | more);
                    if self.is_spent() {
                        return None;
                    }
                }
                bits
            }
            ValueWhat::Set(_) | ValueWhat::Named => {
                self.refuse(value.span.clone(), format!("expected {}, not a set", datatype.noun()))
            }
            ValueWhat::Number if datatype != Datatype::TcpFlags && self.source.slice(&value.span) != "0" => {
                self.refuse(value.span.clone(), format!("expected {} by name", datatype.noun()))
            }
            _ => self.single(value, datatype),
        }
    }
}

/// How many elements a value has.
pub(super) fn count(value: &Value) -> usize {
    count_once(value, &mut HashMap::new())
}

/// Each define is counted once, however often it stands there.
fn count_once(value: &Value, met: &mut HashMap<*const Value, usize>) -> usize {
    match &value.what {
        ValueWhat::Variable(inner) => {
            let place = Rc::as_ptr(inner);
            if let Some(&count) = met.get(&place) {
                return count;
            }
            let count = count_once(inner, met);
            met.insert(place, count);
            count
        }
        ValueWhat::Set(items) => {
            items.iter().fold(0, |sum: usize, item| sum.saturating_add(count_once(item, met)))
        }
        _ => 1,
    }
}

/// Whether an element names many values: a range, a prefix of any length, a wildcard.
pub(super) fn has_runs(value: &Value, source: &Source) -> bool {
    has_runs_once(value, source, &mut HashSet::new())
}

/// Each define is looked at once, however often it stands there.
fn has_runs_once(value: &Value, source: &Source, met: &mut HashSet<*const Value>) -> bool {
    match &value.what {
        ValueWhat::Variable(inner) => met.insert(Rc::as_ptr(inner)) && has_runs_once(inner, source, met),
        ValueWhat::Set(items) => items.iter().any(|item| has_runs_once(item, source, met)),
        ValueWhat::Concatenation(parts) => parts.iter().any(|part| has_runs_once(part, source, met)),
        ValueWhat::Range(_) | ValueWhat::Prefix(..) | ValueWhat::Prefix6(_) => true,
        ValueWhat::Word | ValueWhat::Quoted => source.slice(&value.span).trim_matches('"').ends_with('*'),
        _ => false,
    }
}
