//! Concatenations: some numbers of a packet that are looked up as one.

use rules::table::{Effect, Field, KEY_MAX, Key};

use super::ipv6::narrowed;
use super::known::Known;
use super::ranges::{Ranges, Shared, intersection, meets, normalise};
use super::sets::Held;
use super::station::halves;
use super::{Context, Lowering, Premises};
use crate::program::{Lookup, Step};
use crate::syntax::keys::{self, Datatype, Subject, type_names};
use crate::syntax::tree::{self, Operator, Span, Value, ValueWhat};

/// The elements of a set of concatenations, each a range for every key, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub rows: Shared,
    /// Single values only, and sorted.
    pub is_sorted: bool,
}

/// One element: a range for every key.
pub(super) type Row = Vec<(u128, u128)>;

/// An element as the numbers that are looked up: more than one element for ranges of wide values.
pub(super) fn numbers(row: &Row, types: &[Datatype]) -> Vec<(u32, u32)> {
    let mut rows = vec![Vec::new()];
    for (&range, datatype) in row.iter().zip(types) {
        let parts = match datatype {
            Datatype::Station => halves(range).into_iter().map(Vec::from).collect(),
            _ => vec![vec![narrowed(range)]],
        };
        rows = rows.iter().flat_map(|row| parts.iter().map(|part| [&row[..], part].concat())).collect();
    }
    rows.concat()
}

impl Lowering<'_> {
    /// Appends the steps of a match on a concatenation.
    pub(super) fn concatenation(
        &mut self,
        wanted: &tree::Concatenation,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        self.keys_allowed(&wanted.keys, wanted.operator, context, premises)?;
        let negated = match wanted.operator {
            Operator::Implicit | Operator::Equal => false,
            Operator::NotEqual => true,
            _ => return self.refuse(wanted.value.span.clone(), "a concatenation has no order"),
        };
        let blind = wanted.keys.iter().map(|(key, _)| key.layer).find(|&layer| !premises.has_ports(layer));
        let types: Vec<_> = wanted.keys.iter().map(|(key, _)| key.datatype).collect();
        let value = wanted.value.resolved();
        let held = match value.what {
            ValueWhat::Named => self.named_set(&value.span, &types)?,
            ValueWhat::Concatenation(_) => {
                let message = "a concatenation is compared with a set: put braces around it";
                return self.refuse(value.span.clone(), message);
            }
            _ => {
                self.program.sets += 1;
                let rows = self.rows(&wanted.value, &types)?;
                self.is_some(&wanted.value, rows.len())?;
                let (rows, overlaps) = self.arranged(rows, &types, &value.span)?;
                if overlaps && !rows.is_sorted {
                    return self.refuse(value.span.clone(), "elements of this set overlap");
                }
                if overlaps {
                    self.warning(value.span.clone(), "elements of this set repeat or overlap".to_owned());
                }
                Held::Rows(rows)
            }
        };
        let Some(key) = self.packet_key(&wanted.keys)? else {
            premises.is_never = true;
            return Some(());
        };
        if let Some(layer) = blind {
            self.are_of_ports(layer, &held, &key, negated, &wanted.value.span)?;
        }
        self.looked_up(held, key, (wanted.operator, &wanted.value), context, premises)
    }

    /// Appends the step that looks for a key among what a set holds.
    pub(super) fn looked_up(
        &mut self,
        held: Held,
        key: Key,
        (operator, value): (Operator, &Value),
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let negated = operator == Operator::NotEqual;
        premises.asked.extend(key.fields());
        if let (Held::Rows(Rows { rows, .. }), false) = (&held, negated) {
            self.among_rows(&key, rows, &value.span, context, premises)?;
        }
        match held {
            Held::Rows(Rows { rows, is_sorted }) => {
                premises.push(Step::Lookup(Lookup { key, rows, is_sorted, negated }));
            }
            Held::Dynamic(set) => {
                self.looked_into.entry(set.0).or_insert_with(|| value.resolved().span.clone());
                premises.push(Step::Act(Effect::Member { set, key, negated }));
            }
            Held::Ranges(_) | Held::Ipv6 { .. } | Held::Unsound => premises.is_never = true,
        }
        self.count_element(value, operator, premises);
        Some(())
    }

    /// What a lookup says of each of its fields.
    fn among_rows(
        &mut self,
        key: &Key,
        rows: &Shared,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let fields = key.fields();
        self.spend_many(rows.len(), span)?;
        let mut left: Vec<Ranges> = vec![Ranges::new(); fields.len()];
        let known: Vec<_> = fields.iter().map(|&field| premises.values(field)).collect();
        let mut is_possible = false;
        for row in rows.chunks_exact(fields.len().max(1)) {
            let is_left = |(range, known): (&(u32, u32), &Option<Shared>)| {
                known.as_ref().is_none_or(|known| meets(known, *range))
            };
            // A field that stands there twice has one value.
            let twice = |(at, range): (usize, &(u32, u32))| {
                let same =
                    fields.iter().zip(row).skip(at + 1).filter(|(field, _)| fields.get(at) == Some(field));
                same.into_iter().any(|(_, other)| !meets(&[*range], *other))
            };
            if row.iter().zip(&known).all(is_left) && !row.iter().enumerate().any(twice) {
                is_possible = true;
                left.iter_mut().zip(row).for_each(|(left, range)| left.push(*range));
            }
        }
        for (&field, ranges) in fields.iter().zip(left) {
            let ranges: Shared = normalise(ranges).0.into();
            let of_context = context.values(field);
            is_possible &= of_context.is_none_or(|values| !intersection(&values, &ranges).is_empty());
            is_possible &= premises.narrow(Known { field, ranges, negated: false, max: u32::MAX });
        }
        if !rows.is_empty() && (!is_possible || premises.is_at_odds()) {
            let message =
                "this can never be true: by itself, by its hook, or after the earlier matches of the rule";
            return self.refuse(span.clone(), message);
        }
        Some(())
    }

    /// The kernel reads ports of whatever protocol; here only those of protocols that have them are known.
    fn are_of_ports(
        &mut self,
        layer: keys::Layer,
        held: &Held,
        key: &Key,
        negated: bool,
        span: &Span,
    ) -> Option<()> {
        let at = key.fields().iter().position(|field| *field == Field::Protocol);
        let are_known = match (held, at) {
            (Held::Rows(Rows { rows, .. }), Some(at)) => {
                let mut protocols = rows.iter().skip(at).step_by(key.fields().len().max(1));
                protocols.all(|&(first, last)| first == last && layer.protocols().contains(&first))
            }
            _ => false,
        };
        if are_known && !negated {
            return Some(());
        }
        let message = "ports need tcp or udp in each element, or a match on them before";
        self.refuse(span.clone(), message)
    }

    /// Whether each key may be looked at here; what they imply is put down.
    pub(super) fn keys_allowed(
        &mut self,
        keys: &[(&'static keys::Key, Span)],
        operator: Operator,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let names_protocol =
            keys.iter().any(|(key, _)| matches!(key.subject, Subject::Packet(Field::Protocol)));
        for (key, span) in keys {
            self.names_its_family(key, span)?;
            self.hook_allows(key, operator, span, context)?;
            if names_protocol && !key.layer.protocols().is_empty() {
                self.reads_ports(key.layer, premises);
            } else {
                self.layer(key, span, context, premises)?;
            }
        }
        Some(())
    }

    /// The numbers of keys; none when no IPv4 packet has them all.
    pub(super) fn packet_key(&mut self, keys: &[(&'static keys::Key, Span)]) -> Option<Option<Key>> {
        let mut fields = Vec::new();
        let mut is_ipv6 = false;
        for (key, span) in keys {
            match key.subject {
                Subject::Packet(Field::Status) => {
                    let message = "ct status in a concatenation compares the whole status: write it apart";
                    return self.refuse(span.clone(), message);
                }
                Subject::Packet(field) => fields.push(field),
                Subject::Station(upper, lower) => fields.extend([upper, lower]),
                Subject::Ipv6 => is_ipv6 = true,
                Subject::Constant(_) => {
                    let message = format!("\"{}\" has no place in a concatenation of this version", key.name);
                    return self.refuse(span.clone(), message);
                }
            }
        }
        let width = u8::try_from(fields.len()).ok()?;
        if fields.len() > KEY_MAX && !is_ipv6 {
            let (_, span) = keys.last()?;
            let message =
                format!("a concatenation joins at most {KEY_MAX} keys, and Ethernet addresses count twice");
            return self.refuse(span.clone(), message);
        }
        fields.resize(KEY_MAX, Field::Protocol);
        let fields = fields.try_into().ok()?;
        Some((!is_ipv6).then_some(Key { fields, width }))
    }

    /// All elements of a value.
    pub(super) fn rows(&mut self, value: &Value, types: &[Datatype]) -> Option<Vec<Row>> {
        let mut rows = Vec::new();
        self.collect_rows(value, types, &mut rows)?;
        Some(rows)
    }

    fn collect_rows(&mut self, value: &Value, types: &[Datatype], into: &mut Vec<Row>) -> Option<()> {
        self.spend(value)?;
        match &value.what {
            ValueWhat::Variable(inner) => self.collect_rows(inner, types, into),
            ValueWhat::Set(items) => {
                let mut result = Some(());
                for item in items {
                    if self.collect_rows(item, types, into).is_none() {
                        result = None;
                    }
                    if self.is_spent() {
                        return None;
                    }
                }
                result
            }
            ValueWhat::Concatenation(parts) if parts.len() == types.len() => {
                let mut rows: Vec<Row> = vec![Vec::new()];
                for (part, &datatype) in parts.iter().zip(types) {
                    let ranges = self.wide(part, datatype)?;
                    rows = rows
                        .iter()
                        .flat_map(|row| ranges.iter().map(|&range| [&row[..], &[range]].concat()))
                        .collect();
                    self.spend_many(rows.len(), &value.span)?;
                }
                into.extend(rows);
                Some(())
            }
            _ if types.len() == 1 => {
                into.extend(self.wide(value, types[0])?.into_iter().map(|range| vec![range]));
                Some(())
            }
            _ => {
                let wanted = type_names(types);
                self.refuse(
                    value.span.clone(),
                    format!("expected {} values joined by \".\": {wanted}", types.len()),
                )
            }
        }
    }

    /// Rows as they are looked up, and whether two have something in common.
    pub(super) fn arranged(
        &mut self,
        mut rows: Vec<Row>,
        types: &[Datatype],
        span: &Span,
    ) -> Option<(Rows, bool)> {
        rows.sort_unstable();
        let is_sorted = rows.iter().flatten().all(|(first, last)| first == last);
        let count = rows.len();
        rows.dedup();
        let mut overlaps = rows.len() < count;
        if !is_sorted && !overlaps {
            overlaps = self.have_something_in_common(&rows, span)?;
        }
        let rows = rows.iter().flat_map(|row| numbers(row, types)).collect();
        Some((Rows { rows, is_sorted }, overlaps))
    }

    fn have_something_in_common(&mut self, rows: &[Row], span: &Span) -> Option<bool> {
        for (at, row) in rows.iter().enumerate() {
            let Some(&(_, end)) = row.first() else { continue };
            // They are sorted by where they begin.
            let behind = rows
                .iter()
                .skip(at + 1)
                .take_while(|other| other.first().is_some_and(|&(start, _)| start <= end));
            let mut count = 0;
            for other in behind {
                count += 1;
                if row.iter().zip(other).all(|(one, other)| one.0 <= other.1 && other.0 <= one.1) {
                    return Some(true);
                }
            }
            self.spend_many(count, span)?;
        }
        Some(false)
    }
}
