//! Rules that no packet comes to because several earlier ones take them all, or because no such source is
//! believed, no such destination the appliance's.
//!
//! One packet of the rule is taken, and the earlier rule that takes it is cut off from what is left; then one of
//! what is left, and so on. A packet that nobody takes ends the search at once, which is what most rules have.

use std::collections::BTreeSet;

use rules::Hook;
use rules::table::Field;

use super::ranges::{Shared, complement, intersection};
use super::shadow::{Packets, Takers, Told, World, is_always_there};
use super::{Context, Lowering, Span};

/// The most cuts for one rule.
const CUTS_MAX: usize = 256;

/// The most rules that are told to be for addresses which no packet there has.
const ELSEWHERE_MAX: usize = 10;

/// The most lines that are named.
const NAMED_MAX: usize = 4;

/// What is left of a rule, and the numbers of its packets.
struct Left<'a> {
    world: &'a World<'a>,
    packets: Packets,
}

impl Left<'_> {
    /// The values of a field; none when some packets may lack it.
    fn values(&self, field: Field) -> Option<Shared> {
        if let Some(own) = self.packets.of(field) {
            return Some(own.clone());
        }
        let has_all = |numbers: &[u32]| {
            let protocols = self.packets.of(Field::Protocol);
            protocols
                .is_some_and(|of| of.iter().all(|&(first, last)| first == last && numbers.contains(&first)))
        };
        let is_there = match field {
            Field::SourcePort | Field::DestinationPort => has_all(&[6, 17]),
            Field::IcmpType | Field::IcmpCode => has_all(&[1]),
            Field::TcpFlags => has_all(&[6]),
            Field::Direction => self.packets.of(Field::State).is_some_and(|states| {
                states.iter().all(|&(first, last)| first == last && matches!(first, 2 | 4 | 8))
            }),
            field => is_always_there(field),
        };
        is_there.then(|| self.world.values(field).into())
    }

    /// Whether an earlier rule takes the first of these packets.
    fn first_is_in(&self, taker: &Packets) -> bool {
        taker.0.iter().all(|(field, ranges)| {
            let first = self.values(*field).and_then(|values| values.first().map(|&(first, _)| first));
            first.is_some_and(|first| ranges.iter().any(|&(start, end)| (start..=end).contains(&first)))
        })
    }

    /// The first of these packets.
    fn first(&self) -> Packets {
        let fields = [
            Field::InputPort,
            Field::OutputPort,
            Field::Source,
            Field::Destination,
            Field::Protocol,
            Field::SourcePort,
            Field::DestinationPort,
            Field::IcmpType,
            Field::IcmpCode,
            Field::TcpFlags,
            Field::Dscp,
            Field::Ecn,
            Field::Ttl,
            Field::Length,
            Field::Identification,
            Field::State,
        ];
        let point = |field: Field| {
            let first = self.values(field)?.first()?.0;
            Some((field, Shared::from([(first, first)])))
        };
        let mut points: Vec<_> = fields.into_iter().filter_map(point).collect();
        let others = self.packets.0.iter().filter(|(field, _)| !fields.contains(field));
        points.extend(others.filter_map(|(field, ranges)| Some((*field, Shared::from([*ranges.first()?])))));
        Packets(points)
    }

    /// What an earlier rule does not take, in pieces.
    fn without(self, taker: &Packets) -> Vec<Packets> {
        let mut rest = self;
        let mut pieces = Vec::new();
        for (field, ranges) in &taker.0 {
            let Some(own) = rest.values(*field) else { continue };
            let outside = intersection(&own, &complement(ranges, u32::MAX));
            if !outside.is_empty() {
                let mut piece = rest.packets.clone();
                set(&mut piece, *field, outside.into());
                pieces.push(piece);
            }
            set(&mut rest.packets, *field, intersection(&own, ranges).into());
        }
        pieces
    }
}

fn set(packets: &mut Packets, field: Field, values: Shared) {
    match packets.0.iter_mut().find(|(own, _)| *own == field) {
        Some((_, own)) => *own = values,
        None => packets.0.push((field, values)),
    }
}

impl Lowering<'_> {
    /// Whether earlier rules together take all of these packets; it is told.
    pub(super) fn is_taken_by_several(
        &mut self,
        packets: &Packets,
        takers: &Takers,
        world: &World,
        told: &Told,
    ) -> bool {
        let mut left = vec![packets.clone()];
        let mut lines = BTreeSet::new();
        for _ in 0..CUTS_MAX {
            let Some(packets) = left.pop() else {
                self.tell_takers(&lines, &told.span);
                return true;
            };
            let piece = Left { world, packets };
            let first = piece.first();
            let takes = |at: &usize| {
                let taker = takers.all.get(*at);
                taker.filter(|taker| (told.is_ipv4 || !taker.is_ipv4) && piece.first_is_in(&taker.packets))
            };
            let candidates = takers.candidates(&first);
            if self.compare(candidates.len() + 1, &told.span).is_none() {
                return false;
            }
            let Some(taker) = candidates.iter().find_map(takes) else { return false };
            lines.insert(taker.line);
            left.extend(piece.without(&taker.packets));
        }
        let message =
            "not checked whether earlier rules together take all packets of this one: they are too many";
        self.warning(told.span.clone(), message.to_owned());
        false
    }

    fn tell_takers(&mut self, lines: &BTreeSet<u32>, span: &Span) {
        let named: Vec<_> =
            lines.iter().take(NAMED_MAX).map(|&line| self.source.line_beside(line, span)).collect();
        let more = if lines.len() > NAMED_MAX { " and others" } else { "" };
        let message =
            format!("no packet comes to this rule: those of {}{more} take them all", named.join(", "));
        let label = "if that is meant, say so: comment \"weir: allow shadowed\"".to_owned();
        self.refuse_with::<()>(span.clone(), message, Some(label));
    }

    /// Warns of a rule for sources that no port of it believes.
    pub(super) fn is_believed(&mut self, packets: &Packets, context: &Context, span: &Span) {
        let Some(sources) = packets.of(Field::Source) else { return };
        if !context.only_at(&[Hook::Prerouting, Hook::Input, Hook::Forward]) {
            return;
        }
        let comes_by = |port: u32| {
            let ports = packets.of(Field::InputPort);
            ports.is_none_or(|ports| ports.iter().any(|&(first, last)| (first..=last).contains(&port)))
        };
        let mut ports = (0u32..).zip(&self.believed).filter(|(port, _)| comes_by(*port)).peekable();
        if ports.peek().is_some() && ports.all(|(_, believed)| intersection(sources, believed).is_empty()) {
            let message =
                "no packet comes to this rule: its sources are not behind the ports that it is about";
            self.is_elsewhere(message, span);
        }
    }

    /// Warns of a rule at input for destinations that the appliance does not have.
    pub(super) fn is_delivered(&mut self, packets: &Packets, context: &Context, span: &Span) {
        let Some(destinations) = packets.of(Field::Destination) else { return };
        if context.only_at(&[Hook::Input]) && intersection(destinations, &self.delivered).is_empty() {
            let message = "no packet comes to this rule: its destinations are no addresses of the appliance";
            self.is_elsewhere(message, span);
        }
    }

    /// So much of it is meant, or nobody reads on.
    fn is_elsewhere(&mut self, message: &str, span: &Span) {
        self.elsewhere += 1;
        if self.elsewhere <= ELSEWHERE_MAX {
            self.warning(span.clone(), message.to_owned());
        }
    }
}
