//! Matches: comparisons to tests, and what they say about the packet for the rest of their rule.

use rules::table::{Effect, Field, KEY_MAX, Key, NO_PORT};

use super::known::{Bits, INTERFACE_MAX, Known};
use super::ranges::{Shared, intersection, normalise};
use super::sets::Held;
use super::{Context, Lowering, Premises};
use crate::program::{Match, Step, Test};
use crate::syntax::keys::{Datatype, Subject};
use crate::syntax::tree::{self, Family, Operator, Span, Value, ValueWhat};

/// NFPROTO_IPV6.
const NFPROTO_IPV6: u32 = 10;

/// ETH_P_IPV6.
const ETHERTYPE_IPV6: u32 = 0x86dd;

/// What a comparison comes to.
pub(super) enum Meaning {
    /// The number is, or is not, one of these.
    Among(Shared, bool),
    /// The bits of the mask have, or have not, this value.
    Bits { mask: u32, value: u32, negated: bool },
}

impl Lowering<'_> {
    /// Appends the steps of a match.
    pub(super) fn comparison(
        &mut self,
        wanted: &tree::Match,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        self.hook_allows(wanted.key, wanted.operator, &wanted.key_span, context)?;
        self.layer(wanted.key, &wanted.key_span, context, premises)?;
        match wanted.key.subject {
            Subject::Ipv6 => return self.ipv6(wanted, premises),
            Subject::Station(upper, lower) => {
                return self.station(wanted, (upper, lower), context, premises);
            }
            Subject::Packet(_) | Subject::Constant(_) => {}
        }
        if let ValueWhat::Named = wanted.value.resolved().what {
            self.names_its_family(wanted.key, &wanted.key_span)?;
        }
        if let Some(step) = self.member(wanted)? {
            premises.push(step);
            self.count_element(&wanted.value, wanted.operator, premises);
            return Some(());
        }
        let meaning =
            if wanted.key.datatype.is_bits() { self.bit_meaning(wanted) } else { self.meaning(wanted) }?;
        let span = wanted.key_span.start..wanted.value.span.end.max(wanted.key_span.end);
        match (wanted.key.subject, meaning) {
            (Subject::Constant(constant), Meaning::Among(ranges, negated)) => {
                self.constant(wanted, constant, (&ranges, negated), context, premises)
            }
            (Subject::Packet(field), Meaning::Among(ranges, negated)) => {
                let max = max(wanted.key.datatype);
                let is_empty_set =
                    ranges.is_empty() && matches!(wanted.value.resolved().what, ValueWhat::Named);
                let known = Known { field, ranges, negated, max };
                if is_empty_set {
                    // Worth a warning at the set: it may be filled one day.
                    let test = Test::In(known.ranges);
                    premises.push(Step::Match(Match { field, test, negated }));
                    return Some(());
                }
                self.among(known, span, context, premises)?;
                self.count_element(&wanted.value, wanted.operator, premises);
                if field == Field::Protocol && !negated {
                    let named = self.named_singly(&wanted.value, wanted.key.datatype)?;
                    premises.named_protocols.extend(named);
                }
                Some(())
            }
            (Subject::Packet(field), Meaning::Bits { mask, value, negated }) => {
                self.has_bits(Bits { field, mask, value, negated }, span, context, premises)
            }
            (Subject::Constant(_) | Subject::Station(..) | Subject::Ipv6, _) => None,
        }
    }

    /// A match on what all packets of a family have in common.
    fn constant(
        &mut self,
        wanted: &tree::Match,
        constant: u32,
        (ranges, negated): (&Shared, bool),
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let span = wanted.key_span.start..wanted.value.span.end.max(wanted.key_span.end);
        let holds =
            |value: u32| ranges.iter().any(|&(first, last)| (first..=last).contains(&value)) != negated;
        let of_ipv6 = match wanted.key.datatype {
            Datatype::NetworkProtocol => NFPROTO_IPV6,
            Datatype::EtherType => ETHERTYPE_IPV6,
            Datatype::Version if !holds(constant) => return self.refuse(span, "this can never be true"),
            // Frames for others are dropped ahead of all rules.
            _ => {
                premises.is_never |= !holds(constant);
                premises.leaves_others = true;
                return Some(());
            }
        };
        if wanted.key.name == "ether type" {
            // Own packets have no such header yet.
            let test = Test::Equal(NO_PORT);
            premises.push(Step::Match(Match { field: Field::InputPort, test, negated: true }));
        }
        let is_ipv4 = premises.is_ipv4 || premises.is_ipv4_told;
        let is_left = match (holds(constant), holds(of_ipv6)) {
            (true, true) => {
                let is_set = matches!(wanted.value.resolved().what, ValueWhat::Set(_));
                premises.names_families |= is_set && wanted.key.datatype == Datatype::NetworkProtocol;
                true
            }
            (true, false) => {
                premises.is_ipv4_told = true;
                premises.is_ipv4_by_nfproto |= !negated && wanted.key.datatype == Datatype::NetworkProtocol;
                !premises.is_never && context.family != Family::Ip6
            }
            (false, true) => {
                premises.is_never = true;
                !is_ipv4 && context.family != Family::Ip
            }
            (false, false) => false,
        };
        if is_left {
            return Some(());
        }
        let message = match context.family {
            Family::Inet if !is_ipv4 && !premises.is_never => {
                "this can never be true: tables of family inet hold IPv4 and IPv6"
            }
            Family::Inet => "this can never be true after the earlier matches of the rule",
            _ => "this can never be true: the table holds one family",
        };
        self.refuse(span, message)
    }

    /// The protocols that stand one by one in a set: nft takes each for the protocol of what follows.
    pub(super) fn named_singly(&mut self, value: &Value, datatype: Datatype) -> Option<Vec<u32>> {
        let ValueWhat::Set(items) = &value.resolved().what else { return Some(Vec::new()) };
        let mut named = Vec::new();
        for item in items {
            self.spend(item)?;
            let item = item.resolved();
            match item.what {
                ValueWhat::Range(_) => {}
                ValueWhat::Set(_) => named.extend(self.named_singly(item, datatype)?),
                _ => named.push(self.single(item, datatype)?),
            }
        }
        Some(named)
    }

    /// A match on bits of a field.
    pub(super) fn has_bits(
        &mut self,
        bits: Bits,
        span: Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let Bits { field, mask, value, negated } = bits;
        if value & !mask != 0 {
            let message = if negated { "this is always true" } else { "this can never be true" };
            return self.refuse(span, message);
        }
        premises.asked.push(field);
        let is_left = match context.values(field).filter(|_| is_of_bits(field)) {
            // It has few values.
            Some(values) => {
                let each = values.iter().flat_map(|&(first, last)| first..=last);
                let each = each.filter(|each| (each & mask == value) != negated).map(|each| (each, each));
                let ranges: Shared = normalise(each.collect()).0.into();
                if ranges.is_empty() {
                    return self.refuse(span, impossible(field, context));
                }
                premises.narrow(Known { field, ranges, negated: false, max: u32::MAX })
            }
            None => premises.narrow_bits(bits),
        };
        if !is_left || premises.is_at_odds() {
            return self.refuse(span, "this can never be true after the earlier matches of the rule");
        }
        premises.push(Step::Match(Match { field, test: Test::Masked { mask, value }, negated }));
        Some(())
    }

    /// A match on a set that packets change; none for any other.
    fn member(&mut self, wanted: &tree::Match) -> Option<Option<Step>> {
        let value = wanted.value.resolved();
        let (Subject::Packet(field), ValueWhat::Named) = (wanted.key.subject, &value.what) else {
            return Some(None);
        };
        let name = self.source.slice(&value.span).trim_start_matches('@');
        let set = self.sets.get(self.table).and_then(|sets| sets.get(name));
        if !set.is_some_and(|set| matches!(set.held, Held::Dynamic(_))) {
            return Some(None);
        }
        let Held::Dynamic(set) = self.named_set(&value.span, &[wanted.key.datatype])? else {
            return Some(None);
        };
        let negated = match wanted.operator {
            Operator::Implicit | Operator::Equal => false,
            Operator::NotEqual => true,
            _ => return self.refuse(wanted.value.span.clone(), "a set has no order"),
        };
        self.looked_into.entry(set.0).or_insert_with(|| value.span.clone());
        let key = Key { fields: [field; KEY_MAX], width: 1 };
        Some(Some(Step::Act(Effect::Member { set, key, negated })))
    }

    pub(super) fn among(
        &mut self,
        known: Known,
        span: Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        if known.is_none() {
            return self.refuse(span, "this can never be true");
        }
        let test = known.test();
        let (field, cost) = (known.field, known.ranges.len());
        let is_possible =
            context.values(field).is_none_or(|values| !intersection(&values, &known.values()).is_empty());
        if !is_possible {
            return self.refuse(span, impossible(field, context));
        }
        if premises.knows(field) {
            self.spend_many(cost, &span)?;
        }
        premises.asked.push(field);
        if !premises.narrow(known) || premises.is_at_odds() {
            return self.refuse(span, "this can never be true after the earlier matches of the rule");
        }
        if let Some((test, negated)) = test {
            premises.push(Step::Match(Match { field, test, negated }));
        }
        Some(())
    }

    /// The values that satisfy a comparison of numbers.
    fn meaning(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        if !wanted.bits.is_empty() {
            return self.with_bits(wanted);
        }
        if wanted.of.is_some() {
            return self
                .refuse(wanted.value.span.clone(), format!("{} has no bits to mask", datatype.name()));
        }
        let ranges = match wanted.operator {
            Operator::Implicit | Operator::Equal => {
                return Some(Meaning::Among(self.operand(&wanted.value, datatype)?, false));
            }
            Operator::NotEqual => return Some(Meaning::Among(self.operand(&wanted.value, datatype)?, true)),
            Operator::Not => {
                return self.refuse(wanted.value.span.clone(), "\"!\" is for bits; write != for not equal");
            }
            _ if !datatype.is_ordered() => {
                return self.refuse(wanted.value.span.clone(), format!("{} has no order", datatype.name()));
            }
            order => {
                let value = self.single(&wanted.value, datatype)?;
                let max = datatype.max();
                match order {
                    Operator::Less => value.checked_sub(1).map(|last| (0, last)),
                    Operator::AtMost => Some((0, value)),
                    Operator::Greater => {
                        value.checked_add(1).filter(|&first| first <= max).map(|first| (first, max))
                    }
                    _ => Some((value, max)),
                }
            }
        };
        Some(Meaning::Among(ranges.into_iter().collect(), false))
    }

    /// The ranges of a value, a set or a named set.
    pub(super) fn operand(&mut self, value: &tree::Value, datatype: Datatype) -> Option<Shared> {
        let resolved = value.resolved();
        match &resolved.what {
            ValueWhat::Named => match self.named_set(&resolved.span, &[datatype])? {
                Held::Ranges(ranges) => Some(ranges),
                _ => None,
            },
            ValueWhat::Set(_) => {
                self.program.sets += 1;
                self.ranges(resolved, datatype).map(Shared::from)
            }
            _ => self.ranges(value, datatype).map(Shared::from),
        }
    }
}

/// The greatest value a field of this type may have; a port field may hold the mark of no port.
pub(super) fn max(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Interface | Datatype::InterfaceIndex => INTERFACE_MAX,
        datatype => datatype.max(),
    }
}

/// What is told of values that no packet has where the chain is.
fn impossible(field: Field, context: &Context) -> &'static str {
    match field {
        Field::State | Field::Direction if context.is_nat() => {
            "this can never be true here: chains of type nat see the first packet of a connection, which is new"
        }
        Field::State if context.is_before_tracking() => {
            "this can never be true here: before connections are known (priority -200) a packet is invalid, or untracked behind notrack"
        }
        Field::Length => "this can never be true: a packet has 20 to 65535 octets",
        Field::Ttl => {
            "this can never be true here: what would go on with a time to live of 0 is not forwarded"
        }
        Field::State => "this can never be true: no packet has such a state",
        _ => "this can never be true here",
    }
}

/// Whether a field is a set of bits that are looked at one by one, and has few values.
fn is_of_bits(field: Field) -> bool {
    matches!(field, Field::State | Field::Status | Field::TcpFlags)
}
