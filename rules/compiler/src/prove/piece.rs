//! A set of packets on its way: as they came in, and what has become of them since.

use std::rc::Rc;

use rules::table::{Field, Gate, NO_PORT, RuleId, STATUS_DNAT, STATUS_SNAT, Write};
use rules::translation::{DestinationChoice, Netmap};
use rules::{SourceNat, State};

use super::space::{Space, passing, without};
use crate::lower::{Ranges, Shared, intersection, is_of_connection, normalise};
use crate::program::{Lookup, Match, Test};

/// Packets that came one way so far.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub arrived: Space,
    /// The source, when it was translated.
    source: Option<Shared>,
    /// The destination, when it was translated.
    destination: Option<Shared>,
    destination_port: Option<Shared>,
    /// The source port, when a mapping has chosen it.
    source_port: Option<Shared>,
    /// The rule that has dropped them, when it is asked where they would have gone.
    pub dropped: Option<RuleId>,
    pub output: Option<u8>,
    /// The time to live was lowered.
    pub is_lowered: bool,
    pub is_dnat: bool,
    is_snat: bool,
    /// They go where mappings lead, which may be anywhere.
    is_mapped: bool,
    /// `ct state`
    pub state: State,
    /// None when that cannot be said.
    mark: Option<u32>,
    connection_mark: Option<u32>,
    /// The gate that is open.
    pub gate: Gate,
    /// It holds packets of which it was not seen whether they come this way.
    pub is_rough: bool,
    /// Whether they come this way depends on what statements remember.
    pub is_unsure: bool,
    trail: Option<Rc<Trail>>,
}

/// The rules that packets met, the last one first.
#[derive(Debug)]
struct Trail {
    rule: RuleId,
    before: Option<Rc<Trail>>,
}

/// Where the values of a field come from.
enum Origin<'a> {
    Absent,
    /// They tell which packets they belong to.
    Arrived(Field),
    /// They were translated, and do not.
    Now(&'a Shared),
    Known(u32),
    Unknown,
}

impl Piece {
    pub fn new(arrived: Space) -> Self {
        Self {
            arrived,
            source: None,
            destination: None,
            destination_port: None,
            source_port: None,
            dropped: None,
            output: None,
            is_lowered: false,
            is_dnat: false,
            is_snat: false,
            is_mapped: false,
            state: State::New,
            mark: Some(0),
            connection_mark: Some(0),
            gate: Gate::SHUT,
            is_rough: false,
            is_unsure: false,
            trail: None,
        }
    }

    fn origin(&self, field: Field) -> Origin<'_> {
        let now = match field {
            Field::Source => self.source.as_ref(),
            Field::Destination | Field::ReplySource => self.destination.as_ref(),
            Field::DestinationPort | Field::ReplySourcePort => self.destination_port.as_ref(),
            Field::SourcePort => self.source_port.as_ref(),
            _ => None,
        };
        if let Some(values) = now {
            return Origin::Now(values);
        }
        let arrived = match field {
            Field::State => return Origin::Known(self.state.bit()),
            field if self.state == State::Untracked && is_of_connection(field) => return Origin::Absent,
            Field::Direction => return Origin::Known(0),
            Field::OutputPort => return Origin::Known(self.output.map_or(NO_PORT, u32::from)),
            Field::Mark => return self.mark.map_or(Origin::Unknown, Origin::Known),
            Field::ConnectionMark => return self.connection_mark.map_or(Origin::Unknown, Origin::Known),
            Field::Status => {
                let dnat = if self.is_dnat { STATUS_DNAT } else { 0 };
                return Origin::Known(dnat | if self.is_snat { STATUS_SNAT } else { 0 });
            }
            Field::OriginalSource | Field::ReplyDestination => Field::Source,
            Field::OriginalDestination | Field::ReplySource => Field::Destination,
            Field::OriginalSourcePort | Field::ReplyDestinationPort => Field::SourcePort,
            Field::OriginalDestinationPort | Field::ReplySourcePort => Field::DestinationPort,
            field => field,
        };
        match self.arrived.values(arrived) {
            Some(_) => Origin::Arrived(arrived),
            None => Origin::Absent,
        }
    }

    /// The values of a field now; none when it is not there or cannot be said.
    pub fn values(&self, field: Field) -> Option<Ranges> {
        match self.origin(field) {
            Origin::Absent | Origin::Unknown => None,
            Origin::Known(value) => Some(vec![(value, value)]),
            Origin::Now(values) => Some(values.to_vec()),
            Origin::Arrived(Field::Ttl) if self.is_lowered => {
                let lower = |&(first, last): &(u32, u32)| (first.saturating_sub(1), last.saturating_sub(1));
                self.arrived.values(Field::Ttl).map(|values| values.iter().map(lower).collect())
            }
            Origin::Arrived(field) => self.arrived.values(field).map(|values| values.to_vec()),
        }
    }

    /// The packets of which a field has these values now; none when there are none.
    pub fn with(&self, field: Field, values: &[(u32, u32)]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mut piece = self.clone();
        match self.origin(field) {
            Origin::Absent => return None,
            Origin::Known(_) => {}
            Origin::Unknown => piece.is_rough = true,
            Origin::Now(own) => {
                // Whoever has a mapping may be any of them, and any of its ports may be chosen.
                let is_free = self.is_mapped || field == Field::SourcePort;
                piece.is_rough |= own[..] != *values && !is_free;
                piece.is_unsure |= own[..] != *values && is_free;
                let values = Some(Shared::from(values));
                match field {
                    Field::Source => piece.source = values,
                    Field::SourcePort => piece.source_port = values,
                    Field::Destination | Field::ReplySource => piece.destination = values,
                    _ => piece.destination_port = values,
                }
            }
            Origin::Arrived(Field::Ttl) if self.is_lowered => {
                let higher: Ranges = values.iter().map(|&(first, last)| (first + 1, last + 1)).collect();
                piece.arrived = self.arrived.with(Field::Ttl, higher)?;
            }
            Origin::Arrived(field) => piece.arrived = self.arrived.with(field, values)?,
        }
        Some(piece)
    }

    /// Cuts it in two: those that a match takes, and the others.
    pub fn split(&self, wanted: &Match) -> (Option<Self>, Option<Self>) {
        let (taken, left) = self.cut(wanted.field, &wanted.test);
        match self.origin(wanted.field) {
            // A packet without the field matches neither way.
            Origin::Absent => (None, Some(self.clone())),
            _ if wanted.negated => (left, taken),
            _ => (taken, left),
        }
    }

    fn cut(&self, field: Field, test: &Test) -> (Option<Self>, Option<Self>) {
        let both = || {
            let piece = Self { is_rough: true, ..self.clone() };
            (Some(piece.clone()), Some(piece))
        };
        let Some(values) = self.values(field) else { return both() };
        let Some(passing) = passing(test, &values) else { return both() };
        let others = without(&values, &passing);
        if others.is_empty() {
            return (Some(self.clone()), None);
        }
        if passing.is_empty() {
            return (None, Some(self.clone()));
        }
        (self.with(field, &passing), self.with(field, &others))
    }

    /// Whether a match takes some of it.
    pub fn meets(&self, wanted: &Match) -> bool {
        match self.origin(wanted.field) {
            Origin::Absent => false,
            Origin::Unknown => true,
            _ => {
                let values = self.values(wanted.field).unwrap_or_default();
                let Some(passing) = passing(&wanted.test, &values) else { return true };
                if wanted.negated { !without(&values, &passing).is_empty() } else { !passing.is_empty() }
            }
        }
    }

    /// Cuts it into those that are looked up with success, and the others; `spend` is asked for each element.
    pub fn look_up(
        &self,
        wanted: &Lookup,
        mut spend: impl FnMut() -> Option<()>,
    ) -> Option<(Vec<Self>, Vec<Self>)> {
        let fields = wanted.key.fields();
        if fields.iter().any(|&field| matches!(self.origin(field), Origin::Absent)) {
            return Some((Vec::new(), vec![self.clone()]));
        }
        let (mut taken, mut left) = (Vec::new(), vec![self.clone()]);
        for row in wanted.rows.chunks_exact(fields.len().max(1)) {
            let mut others = Vec::new();
            for piece in left {
                spend()?;
                let meets = fields.iter().zip(row).all(|(&field, &range)| {
                    piece.values(field).is_none_or(|values| !intersection(&values, &[range]).is_empty())
                });
                let mut rest = Some(piece.clone());
                for (&field, &(first, last)) in fields.iter().zip(row).filter(|_| meets) {
                    let Some(piece) = rest else { break };
                    let (inside, outside) = piece.cut(field, &Test::Range(first, last));
                    others.extend(outside);
                    rest = inside;
                }
                if meets { taken.extend(rest) } else { others.push(piece) }
            }
            left = others;
        }
        Some(if wanted.negated { (left, taken) } else { (taken, left) })
    }

    /// The same packets, and this gate is open.
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// The same packets, which met a rule.
    pub fn met(mut self, rule: RuleId) -> Self {
        let before = self.trail.take();
        self.trail = Some(Rc::new(Trail { rule, before }));
        self
    }

    /// The rules that they met, the first one first.
    pub fn way(&self) -> Vec<RuleId> {
        let mut way = Vec::new();
        let mut at = self.trail.as_ref();
        while let Some(trail) = at {
            way.push(trail.rule);
            at = trail.before.as_ref();
        }
        way.reverse();
        way
    }

    /// Sets a mark.
    pub fn write(&mut self, write: &Write, is_of_connection: bool) {
        let from = match write.from {
            None => Some(0),
            Some(Field::Mark) => self.mark,
            Some(Field::ConnectionMark) => self.connection_mark,
            Some(_) => None,
        };
        let mark = from.map(|from| from & write.and ^ write.xor);
        if is_of_connection {
            self.connection_mark = mark;
        } else {
            self.mark = mark;
        }
    }

    /// Translates the destination.
    pub fn dnat(&mut self, to: &DestinationChoice) {
        let before = (self.values(Field::Destination), self.values(Field::DestinationPort));
        match to {
            DestinationChoice::To { first, last, ports } => {
                self.destination = Some(Shared::from([(first.to_bits(), last.to_bits())]));
                if let Some((first, last)) = *ports {
                    self.send_to(first, last);
                }
            }
            DestinationChoice::Ports { first, last } => self.send_to(*first, *last),
            DestinationChoice::Netmap(netmap) => {
                self.destination = Some(image(netmap, &before.0.clone().unwrap_or_default()).into());
            }
        }
        let now = (self.values(Field::Destination), self.values(Field::DestinationPort));
        let is_one =
            |values: &Option<Ranges>| values.as_ref().is_none_or(|v| matches!(v[..], [(a, b)] if a == b));
        let meets = |a: &Option<Ranges>, b: &Option<Ranges>| match (a, b) {
            (Some(a), Some(b)) => !intersection(a, b).is_empty(),
            _ => true,
        };
        let may_stay = meets(&before.0, &now.0) && meets(&before.1, &now.1);
        let stays = may_stay && [&before.0, &before.1, &now.0, &now.1].into_iter().all(is_one);
        self.is_rough |= may_stay && !stays;
        self.is_dnat |= !stays;
    }

    /// A port within stays, any other becomes the first.
    fn send_to(&mut self, first: u16, last: u16) {
        let Some(values) = self.values(Field::DestinationPort) else { return };
        let range = [(u32::from(first), u32::from(last))];
        let mut ports = intersection(&values, &range);
        if !without(&values, &range).is_empty() {
            ports.push((first.into(), first.into()));
        }
        let ports = normalise(ports).0;
        if ports != values {
            self.destination_port = Some(ports.into());
        }
    }

    /// They reach one of these hosts through a mapping, at whatever port.
    pub fn mapped(&self, hosts: &[(u32, u32)]) -> Self {
        let mut piece = self.clone();
        piece.destination = Some(Shared::from(hosts));
        if self.arrived.values(Field::DestinationPort).is_some() {
            piece.destination_port = Some(Shared::from([(1, 65_535)]));
        }
        piece.is_dnat = true;
        piece.is_mapped = true;
        // Nobody may have one.
        piece.is_unsure = true;
        piece
    }

    /// Translates the source; `own` is the address of the port that they leave by.
    pub fn snat(&mut self, to: Result<SourceNat, Netmap>, own: std::net::Ipv4Addr) {
        let ranges = match to {
            Ok(SourceNat::Masquerade { .. }) => vec![(own.to_bits(), own.to_bits())],
            Ok(SourceNat::To { first, last, .. }) => vec![(first.to_bits(), last.to_bits())],
            Ok(SourceNat::Static(address)) => vec![(address.to_bits(), address.to_bits())],
            Err(netmap) => image(&netmap, &self.values(Field::Source).unwrap_or_default()),
        };
        let keeps_port = matches!(to, Ok(SourceNat::Static(_)) | Err(_));
        if !keeps_port && self.arrived.values(Field::SourcePort).is_some() {
            self.source_port = Some(Shared::from([(1, 65_535)]));
        }
        self.source = Some(ranges.into());
        self.is_snat = true;
    }
}

/// Where a netmap leads addresses.
fn image(netmap: &Netmap, values: &[(u32, u32)]) -> Ranges {
    let prefix = rules::site::Prefix { address: netmap.address, length: netmap.length };
    let mask = prefix.mask();
    let base = prefix.network().to_bits();
    let of = |&(first, last): &(u32, u32)| {
        if first & mask == last & mask {
            (base | first & !mask, base | last & !mask)
        } else {
            (base, base | !mask)
        }
    };
    normalise(values.iter().map(of).collect()).0
}
