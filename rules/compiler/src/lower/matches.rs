//! Matches: comparisons to tests, and what they say about the packet for the rest of their rule.

use rules::Hook;
use rules::table::{Effect, Field, KEY_MAX, Key, Kind, NO_PORT};

use super::ranges::{Shared, complement, intersection};
use super::sets::Held;
use super::{Context, Known, Lowering, Premises};
use crate::program::{Match, Step, Test};
use crate::syntax::keys::{self, Datatype, Layer, Subject};
use crate::syntax::tree::{self, BitOperator, Family, Operator, Span, ValueWhat};

/// What a comparison comes to.
enum Meaning {
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
        self.hook_allows(wanted.key, &wanted.key_span, context)?;
        self.layer(wanted.key, &wanted.key_span, context, premises)?;
        if let Subject::Ipv6 = wanted.key.subject {
            return self.ipv6(wanted, premises);
        }
        if let Some(step) = self.member(wanted)? {
            premises.push(step);
            return Some(());
        }
        let meaning =
            if wanted.key.datatype.is_bits() { self.bit_meaning(wanted) } else { self.meaning(wanted) }?;
        let span = wanted.key_span.start..wanted.value.span.end.max(wanted.key_span.end);
        match (wanted.key.subject, meaning) {
            (Subject::Constant(constant), Meaning::Among(ranges, negated)) => {
                if ranges.iter().any(|&(first, last)| first <= constant && constant <= last) == negated {
                    if wanted.key.datatype == Datatype::Version {
                        return self.refuse(span, "this can never be true");
                    }
                    premises.is_never = true;
                }
                premises.is_ipv4_told = true;
                Some(())
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
                self.among(known, span, premises)
            }
            (Subject::Packet(field), Meaning::Bits { mask, value, negated }) => {
                if value & !mask != 0 {
                    return self.refuse(
                        span,
                        if negated { "this is always true" } else { "this can never be true" },
                    );
                }
                premises.push(Step::Match(Match { field, test: Test::Masked { mask, value }, negated }));
                Some(())
            }
            (Subject::Constant(_) | Subject::Ipv6, _) => None,
        }
    }

    /// A match on what no IPv4 packet has: its values are looked at, and no packet meets the rule.
    fn ipv6(&mut self, wanted: &tree::Match, premises: &mut Premises) -> Option<()> {
        if !wanted.bits.is_empty() || wanted.of.is_some() {
            let message = "a mask on a field of IPv6 is not in this version's subset";
            return self.refuse(wanted.value.span.clone(), message);
        }
        let datatype = wanted.key.datatype;
        let value = wanted.value.resolved();
        if let ValueWhat::Named = value.what {
            self.named_set(&value.span, &[datatype])?;
        } else {
            self.rows(&wanted.value, &[datatype])?;
        }
        premises.is_never = true;
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
        let key = Key { fields: [field; KEY_MAX], width: 1 };
        Some(Some(Step::Act(Effect::Member { set, key, negated })))
    }

    pub(super) fn among(&mut self, known: Known, span: Span, premises: &mut Premises) -> Option<()> {
        if known.is_none() {
            return self.refuse(span, "this can never be true");
        }
        let test = known.test();
        let (field, cost) = (known.field, known.ranges.len());
        if premises.knows(field) {
            self.spend_many(cost, &span)?;
        }
        if !premises.narrow(known) {
            return self.refuse(span, "this can never be true after the earlier matches of the rule");
        }
        if let Some((test, negated)) = test {
            premises.push(Step::Match(Match { field, test, negated }));
        }
        Some(())
    }

    /// Refuses a match that its hook makes impossible.
    pub(super) fn hook_allows(&mut self, key: &keys::Key, span: &Span, context: &Context) -> Option<()> {
        let Subject::Packet(field) = key.subject else { return Some(()) };
        let (span, name) = (span.clone(), key.name);
        match field {
            Field::OutputPort if context.only_at(&[Hook::Prerouting, Hook::Input]) => self
                .refuse(span, format!("{name} can never be true here: no outgoing interface is chosen yet")),
            Field::InputPort if context.only_at(&[Hook::Output]) => self
                .refuse(span, format!("{name} can never be true here: own packets come in by no interface")),
            field if context.is_early && is_of_connection(field) => {
                let message = format!(
                    "{name} before connections are known (priority -200) is not in this version's subset"
                );
                self.refuse(span, message)
            }
            _ => Some(()),
        }
    }

    /// Puts down what the key implies: IPv4, or a protocol.
    pub(super) fn layer(
        &mut self,
        key: &keys::Key,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let (span, name) = (span.clone(), key.name);
        let is_ipv6 = key.subject == Subject::Ipv6;
        let is_ipv4 = key.layer == Layer::Network || name.starts_with("icmp ");
        if is_ipv4 && (context.family == Family::Ip6 || premises.is_never) {
            return self.refuse(span, format!("\"{name}\" looks at IPv4, and this is IPv6"));
        }
        if is_ipv6 && (context.family == Family::Ip || premises.is_ipv4) {
            return self.refuse(span, format!("\"{name}\" looks at IPv6, and this is IPv4"));
        }
        if name == "meta nfproto" && context.family != Family::Inet {
            return self.refuse(span, "meta nfproto is for tables of family inet: this one holds one family");
        }
        let names_no_family =
            matches!(name, "ct original saddr" | "ct original daddr" | "ct reply saddr" | "ct reply daddr");
        if names_no_family && context.family != Family::Ip {
            let message = format!("say whether \"{name}\" is of IPv4, such as \"ct original ip saddr\"");
            return self.refuse(span, message);
        }
        match key.layer {
            Layer::Any => {}
            Layer::Network => premises.is_ipv4 = true,
            Layer::Transport(protocol) => {
                let ranges = [(protocol.into(), protocol.into())];
                let is_known = premises.protocols().is_some_and(|known| known[..] == ranges);
                let known = Known { field: Field::Protocol, ranges: ranges.into(), negated: false, max: 255 };
                if !premises.narrow(known) {
                    return self
                        .refuse(span, format!("\"{name}\" conflicts with the protocol matched before"));
                }
                if !is_known {
                    let test = Test::Equal(protocol.into());
                    premises.push(Step::Match(Match { field: Field::Protocol, test, negated: false }));
                }
            }
            Layer::Ports if !premises.has_ports() => {
                let word = name.split(' ').next().unwrap_or(name);
                let word = if word == "th" { word } else { name };
                let message = format!(
                    "{word} needs a match on tcp or udp before it, such as meta l4proto {{ tcp, udp }}"
                );
                return self.refuse(span, message);
            }
            Layer::Ports => {}
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

    /// `key & a | b == value`: `(key & and) ^ xor` has the value.
    fn with_bits(&mut self, wanted: &tree::Match) -> Option<Meaning> {
        let datatype = wanted.key.datatype;
        let (mask, xor) = self.bit_operations(&wanted.bits, datatype, (datatype.max(), 0))?;
        let value = wanted.value.resolved();
        if !matches!(value.what, ValueWhat::Number | ValueWhat::Address | ValueWhat::Word) {
            let message = "behind a mask, one value is compared, not a set or a range";
            return self.refuse(wanted.value.span.clone(), message);
        }
        let value = self.single(value, datatype)? ^ xor;
        Some(Meaning::Bits { mask, value, negated: wanted.operator == Operator::NotEqual })
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

    /// The ranges of a value, a set or a named set.
    fn operand(&mut self, value: &tree::Value, datatype: Datatype) -> Option<Shared> {
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

    /// A comparison of bits, as nft 1.0.6 compiles it.
    fn bit_meaning(&mut self, wanted: &tree::Match) -> Option<Meaning> {
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

/// The greatest value a field of this type may have; a port field may hold the mark of no port.
pub(super) fn max(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Interface | Datatype::InterfaceIndex => NO_PORT,
        datatype => datatype.max(),
    }
}

impl Known {
    /// Whether no value is left.
    fn is_none(&self) -> bool {
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
    fn test(&self) -> Option<(Test, bool)> {
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
    fn values(&self) -> Shared {
        if self.negated { complement(&self.ranges, self.max).into() } else { Shared::clone(&self.ranges) }
    }
}

/// Whether a field is read from the packet's connection.
fn is_of_connection(field: Field) -> bool {
    matches!(
        field,
        Field::State
            | Field::Status
            | Field::ConnectionMark
            | Field::Direction
            | Field::OriginalSource
            | Field::OriginalDestination
            | Field::OriginalSourcePort
            | Field::OriginalDestinationPort
            | Field::ReplySource
            | Field::ReplyDestination
            | Field::ReplySourcePort
            | Field::ReplyDestinationPort
    )
}

impl Context {
    /// Whether every hook that reaches the chain is one of these; false when none does.
    pub(super) fn only_at(&self, hooks: &[Hook]) -> bool {
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

    /// Notes what is known of a field; false when no value is left.
    pub(super) fn narrow(&mut self, new: Known) -> bool {
        match self.known.iter_mut().find(|known| known.field == new.field) {
            Some(known) => {
                known.ranges = intersection(&known.values(), &new.values()).into();
                known.negated = false;
                !known.ranges.is_empty()
            }
            None => {
                self.known.push(new);
                true
            }
        }
    }

    fn knows(&self, field: Field) -> bool {
        self.known.iter().any(|known| known.field == field)
    }

    pub(super) fn protocols(&self) -> Option<Shared> {
        self.known.iter().find(|known| known.field == Field::Protocol).map(Known::values)
    }

    /// Whether only protocols with ports are left, TCP and UDP.
    pub(super) fn has_ports(&self) -> bool {
        let others = complement(&[(6, 6), (17, 17)], 255);
        self.protocols().is_some_and(|ranges| intersection(&others, &ranges).is_empty())
    }
}
