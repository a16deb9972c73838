//! Matches: comparisons to tests, and what they say about the packet for the rest of their rule.

use rules::Hook;
use rules::table::{Field, Kind};

use super::ranges::{Ranges, complement, intersection};
use super::{Context, Lowering, Premises};
use crate::program::{Match, Step, Test};
use crate::syntax::keys::{Datatype, Layer, Subject};
use crate::syntax::tree::{self, Family, Operator, Span, ValueWhat};

/// What a comparison comes to.
enum Meaning {
    /// The number is one of these.
    Among(Ranges),
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
        self.hook_allows(wanted, context)?;
        self.layer(wanted, context, premises)?;
        let meaning =
            if wanted.key.datatype.is_bits() { self.bit_meaning(wanted) } else { self.meaning(wanted) }?;
        let span = wanted.key_span.start..wanted.value.span.end.max(wanted.key_span.end);
        match (wanted.key.subject, meaning) {
            (Subject::Constant(constant), Meaning::Among(ranges)) => {
                if !ranges.iter().any(|&(first, last)| first <= constant && constant <= last) {
                    if wanted.key.datatype == Datatype::Version {
                        return self.refuse(span, "this can never be true");
                    }
                    premises.is_never = true;
                }
                Some(())
            }
            (Subject::Packet(field), Meaning::Among(ranges)) => {
                self.among(field, ranges, wanted, span, premises)
            }
            (Subject::Packet(field), Meaning::Bits { mask, value, negated }) => {
                premises.push(Step::Match(Match { field, test: Test::Masked { mask, value }, negated }));
                Some(())
            }
            (Subject::Constant(_), Meaning::Bits { .. }) => None,
        }
    }

    fn among(
        &mut self,
        field: Field,
        ranges: Ranges,
        wanted: &tree::Match,
        span: Span,
        premises: &mut Premises,
    ) -> Option<()> {
        if ranges.is_empty() {
            return self.refuse(span, "this can never be true");
        }
        if !premises.narrow(field, &ranges) {
            return self.refuse(span, "this can never be true after the earlier matches of the rule");
        }
        let max = match wanted.key.datatype {
            // An interface field is never one of no interface.
            Datatype::Interface | Datatype::InterfaceIndex => u32::MAX,
            datatype => datatype.max(),
        };
        if let Some(test) = test(ranges, max) {
            premises.push(Step::Match(Match { field, test: test.0, negated: test.1 }));
        }
        Some(())
    }

    /// Refuses a match that its hook makes impossible.
    fn hook_allows(&mut self, wanted: &tree::Match, context: &Context) -> Option<()> {
        let Subject::Packet(field) = wanted.key.subject else { return Some(()) };
        let span = wanted.key_span.clone();
        let name = wanted.key.name;
        match field {
            Field::OutputPort if context.only_at(&[Hook::Prerouting, Hook::Input]) => self
                .refuse(span, format!("{name} can never be true here: no outgoing interface is chosen yet")),
            Field::InputPort if context.only_at(&[Hook::Output]) => self
                .refuse(span, format!("{name} can never be true here: own packets come in by no interface")),
            Field::State | Field::Status if context.is_early => {
                let message = format!(
                    "{name} before connections are known (priority -200) is not in this version's subset"
                );
                self.refuse(span, message)
            }
            _ => Some(()),
        }
    }

    /// Puts down what the key implies: IPv4, or a protocol.
    fn layer(&mut self, wanted: &tree::Match, context: &Context, premises: &mut Premises) -> Option<()> {
        let span = wanted.key_span.clone();
        let ipv4 = wanted.key.layer == Layer::Network;
        if (ipv4 || wanted.key.name.starts_with("icmp"))
            && (context.family == Family::Ip6 || premises.is_never)
        {
            return self.refuse(span, format!("\"{}\" looks at IPv4, and this is IPv6", wanted.key.name));
        }
        match wanted.key.layer {
            Layer::Any => {}
            Layer::Network => premises.is_ipv4 = true,
            Layer::Transport(protocol) => {
                let ranges = vec![(protocol.into(), protocol.into())];
                let known = premises.protocols() == Some(&ranges[..]);
                if !premises.narrow(Field::Protocol, &ranges) {
                    let name = wanted.key.name;
                    return self
                        .refuse(span, format!("\"{name}\" conflicts with the protocol matched before"));
                }
                if !known {
                    let test = Test::Equal(protocol.into());
                    premises.push(Step::Match(Match { field: Field::Protocol, test, negated: false }));
                }
            }
            Layer::Ports if !premises.has_ports() => {
                let message = "th needs a match on tcp or udp before it, such as meta l4proto { tcp, udp }";
                return self.refuse(span, message);
            }
            Layer::Ports => {}
        }
        Some(())
    }

    /// The values that satisfy a comparison of numbers.
    fn meaning(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        if wanted.of.is_some() {
            return self
                .refuse(wanted.value.span.clone(), format!("{} has no bits to mask", datatype.name()));
        }
        let is_name = matches!(datatype, Datatype::Interface | Datatype::InterfaceIndex);
        // A port field may hold the mark of no port.
        let max = if is_name { 255 } else { datatype.max() };
        let ranges = match wanted.operator {
            Operator::Implicit | Operator::Equal => self.operand(&wanted.value, datatype)?,
            Operator::NotEqual => complement(&self.operand(&wanted.value, datatype)?, max),
            Operator::Not => {
                return self.refuse(wanted.value.span.clone(), "\"!\" is for bits; write != for not equal");
            }
            _ if !datatype.is_ordered() => {
                return self.refuse(wanted.value.span.clone(), format!("{} has no order", datatype.name()));
            }
            order => {
                let value = self.single(&wanted.value, datatype)?;
                match order {
                    Operator::Less => value.checked_sub(1).map_or(vec![], |last| vec![(0, last)]),
                    Operator::AtMost => vec![(0, value)],
                    Operator::Greater if value >= max => vec![],
                    Operator::Greater => vec![(value + 1, max)],
                    _ => vec![(value, max)],
                }
            }
        };
        Some(Meaning::Among(ranges))
    }

    /// The ranges of a value, a set or a named set.
    fn operand(&mut self, value: &tree::Value, datatype: Datatype) -> Option<Ranges> {
        let resolved = value.resolved();
        match &resolved.what {
            ValueWhat::Named => self.named_set(&resolved.span, datatype),
            ValueWhat::Set(_) => {
                self.program.sets += 1;
                self.ranges(resolved, datatype)
            }
            _ => self.ranges(value, datatype),
        }
    }

    /// A comparison of bits, as nft 1.0.6 compiles it.
    fn bit_meaning(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let value_span = wanted.value.span.clone();
        let resolved = wanted.value.resolved();
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
            let ranges = self.operand(&wanted.value, datatype)?;
            let ranges = if negated { complement(&ranges, 255) } else { ranges };
            return Some(Meaning::Among(ranges));
        }
        if let Some(mask) = wanted.mask.as_ref().or(wanted.of.as_ref()) {
            return self.masked(wanted, mask, negated);
        }
        let value = self.bits(&wanted.value, datatype)?;
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

/// The cheapest test for these values, and whether it is negated; none when every value passes.
fn test(ranges: Ranges, max: u32) -> Option<(Test, bool)> {
    let one = |first: u32, last: u32| {
        if first == last { Test::Equal(first) } else { Test::Range(first, last) }
    };
    match ranges[..] {
        [(0, last)] if last >= max => None,
        [(first, last)] => Some((one(first, last), false)),
        _ => match complement(&ranges, max)[..] {
            [(first, last)] => Some((one(first, last), true)),
            _ => Some((Test::In(ranges), false)),
        },
    }
}

impl Context {
    /// Whether every hook that reaches the chain is one of these; false when none does.
    fn only_at(&self, hooks: &[Hook]) -> bool {
        let inside =
            hooks.iter().fold(0, |bits, &hook| bits | bit(Kind::Filter, hook) | bit(Kind::Nat, hook));
        self.reached != 0 && self.reached & !inside == 0
    }
}

/// The bit of a kind of base chain in [`Context::reached`].
pub(super) fn bit(kind: Kind, hook: Hook) -> u32 {
    let shift = match kind {
        Kind::Filter => 0,
        Kind::Nat => 8,
    };
    1 << (hook as u32 + shift)
}

impl Premises {
    pub(super) fn push(&mut self, step: Step) {
        if !self.is_never {
            self.steps.push(step);
        }
    }

    /// Notes that the field is one of these values; false when none is left.
    fn narrow(&mut self, field: Field, ranges: &[(u32, u32)]) -> bool {
        match self.known.iter_mut().find(|(known, _)| *known == field) {
            Some((_, known)) => {
                *known = intersection(known, ranges);
                !known.is_empty()
            }
            None => {
                self.known.push((field, ranges.to_vec()));
                true
            }
        }
    }

    pub(super) fn protocols(&self) -> Option<&[(u32, u32)]> {
        self.known.iter().find(|(field, _)| *field == Field::Protocol).map(|(_, ranges)| &ranges[..])
    }

    /// Whether only protocols with ports are left, TCP and UDP.
    pub(super) fn has_ports(&self) -> bool {
        self.protocols()
            .is_some_and(|ranges| intersection(&complement(&[(6, 6), (17, 17)], 255), ranges).is_empty())
    }
}
