//! What a match asks of its place and of the packet: a hook, a family, a protocol.

use rules::Hook;
use rules::policy::OTHER_PORTS;
use rules::table::{Field, Kind};

use super::known::Known;
use super::{Context, Lowering, Premises};
use crate::program::{Match, Step, Test};
use crate::syntax::keys::{self, Layer, Subject};
use crate::syntax::tree::{Family, Operator, Span};

/// ICMP.
const ICMP: u8 = 1;

impl Lowering<'_> {
    /// Refuses a match that its hook makes impossible.
    pub(super) fn hook_allows(
        &mut self,
        key: &keys::Key,
        operator: Operator,
        span: &Span,
        context: &Context,
    ) -> Option<()> {
        if key.name.starts_with("ether ") && context.only_at(&[Hook::Output]) {
            let message =
                format!("{} can never be true here: own packets have no Ethernet header yet", key.name);
            return self.refuse(span.clone(), message);
        }
        let Subject::Packet(field) = key.subject else { return Some(()) };
        let name = key.name;
        let reason = match field {
            Field::OutputPort if context.only_at(&[Hook::Prerouting, Hook::Input]) => {
                "no outgoing interface is chosen yet"
            }
            Field::InputPort if context.only_at(&[Hook::Output]) => "own packets come in by no interface",
            Field::State if context.is_before_tracking() => return Some(()),
            field if context.is_early && is_of_connection(field) => {
                let message = format!(
                    "{name} before connections are known (priority -200) is not in this version's subset"
                );
                return self.refuse(span.clone(), message);
            }
            _ => return Some(()),
        };
        let message = match operator {
            Operator::NotEqual => format!("{name} != is always true here: {reason}; leave it out"),
            _ => format!("{name} can never be true here: {reason}"),
        };
        self.refuse(span.clone(), message)
    }

    /// Puts down what the key implies: a family, a protocol.
    pub(super) fn layer(
        &mut self,
        key: &keys::Key,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        self.family(key, span, context, premises)?;
        match key.layer {
            Layer::Any => Some(()),
            Layer::Network => {
                premises.is_ipv4 = true;
                Some(())
            }
            Layer::Transport(protocol) => {
                premises.is_ipv4 |= protocol == ICMP;
                self.program.reads_other_ports |= OTHER_PORTS.contains(&protocol);
                self.transport(protocol, key.name, span, premises)
            }
            Layer::Ports if !premises.has_ports(key.layer) => {
                let message = "th needs a match on protocols with ports before it, such as meta l4proto { tcp, udp }; those without have other things there";
                self.refuse(span.clone(), message)
            }
            Layer::SessionPorts if !premises.has_ports(key.layer) => {
                let message = format!(
                    "{} needs a match on tcp or udp before it, such as meta l4proto {{ tcp, udp }}",
                    key.name
                );
                self.refuse(span.clone(), message)
            }
            Layer::Ports | Layer::SessionPorts => {
                self.reads_ports(key.layer, premises);
                Some(())
            }
        }
    }

    /// Notes that ports are looked at, of protocols that may have sessions without.
    pub(super) fn reads_ports(&mut self, layer: Layer, premises: &Premises) {
        self.program.reads_other_ports |= layer == Layer::Ports && !premises.has_ports(Layer::SessionPorts);
    }

    /// Whether the key is of the family that the rule is for.
    fn family(&mut self, key: &keys::Key, span: &Span, context: &Context, premises: &Premises) -> Option<()> {
        let name = key.name;
        let is_ipv6 = key.subject == Subject::Ipv6;
        let is_ipv4 = key.layer == Layer::Network || name.starts_with("icmp ");
        if is_ipv4 && (context.family == Family::Ip6 || premises.is_never) {
            return self.refuse(span.clone(), format!("\"{name}\" looks at IPv4, and this is IPv6"));
        }
        let is_of_ipv4 = context.family == Family::Ip || premises.is_ipv4 || premises.is_ipv4_told;
        if is_ipv6 && is_of_ipv4 {
            return self.refuse(span.clone(), format!("\"{name}\" looks at IPv6, and this is IPv4"));
        }
        if (is_ipv4 || is_ipv6) && premises.names_families {
            let message = format!(
                "\"{name}\" behind a set of families: nft takes them for a conflict; leave the set out"
            );
            return self.refuse(span.clone(), message);
        }
        if name == "meta nfproto" && context.family != Family::Inet {
            return self.refuse(
                span.clone(),
                "meta nfproto is for tables of family inet: this one holds one family",
            );
        }
        if context.family == Family::Ip { Some(()) } else { self.names_its_family(key, span) }
    }

    /// Whether a key says of which family it is: in sets, and where a table holds both.
    pub(super) fn names_its_family(&mut self, key: &keys::Key, span: &Span) -> Option<()> {
        let name = key.name;
        if !matches!(name, "ct original saddr" | "ct original daddr" | "ct reply saddr" | "ct reply daddr") {
            return Some(());
        }
        let message = format!("say whether \"{name}\" is of IPv4, such as \"ct original ip saddr\"");
        self.refuse(span.clone(), message)
    }

    /// Puts down that packets are of this protocol.
    pub(super) fn transport(
        &mut self,
        protocol: u8,
        name: &str,
        span: &Span,
        premises: &mut Premises,
    ) -> Option<()> {
        let number = u32::from(protocol);
        if premises.named_protocols.iter().any(|&named| named != number) {
            let message = format!(
                "\"{name}\" behind a set of protocols: nft takes them for a conflict; leave the set out"
            );
            return self.refuse(span.clone(), message);
        }
        let ranges = [(number, number)];
        let is_known = premises.protocols().is_some_and(|known| known[..] == ranges);
        let known = Known { field: Field::Protocol, ranges: ranges.into(), negated: false, max: 255 };
        if !premises.narrow(known) {
            return self
                .refuse(span.clone(), format!("\"{name}\" conflicts with the protocol matched before"));
        }
        if !is_known {
            let test = Test::Equal(number);
            premises.push(Step::Match(Match { field: Field::Protocol, test, negated: false }));
        }
        Some(())
    }
}

/// Whether a field is read from the packet's connection.
pub(crate) fn is_of_connection(field: Field) -> bool {
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
    /// Whether the chain is reached at prerouting alone, and only before connections are known.
    pub(super) fn is_before_tracking(&self) -> bool {
        self.is_early && !self.is_late && self.only_at(&[Hook::Prerouting])
    }

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
