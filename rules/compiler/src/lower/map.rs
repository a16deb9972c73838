//! Maps within rules: each element becomes a rule of its own that asks for its key.
//!
//! The keys of a map are apart, so that a packet meets one element at most, as in nft; `*` asks for none of the
//! others. What the rule counts ahead of its map is counted by a rule without a verdict, ahead of them all.

use rules::table::{Effect, Field, Gate};

use super::concatenation::{Row, Rows};
use super::graph::Graph;
use super::ipv6::narrowed;
use super::known::Known;
use super::matches::max;
use super::ranges::normalise;
use super::shadow::changes;
use super::value::has_runs;
use super::{Context, Lowering, Premises};
use crate::diagnostics::quoted;
use crate::program::{Lookup, Step};
use crate::syntax::keys::{self, Datatype, Subject};
use crate::syntax::tree::{
    self, Elements, Form, MapItem, Mapping, NamedMap, Operator, Place, Ruleset, Span, Translation, Value,
    ValueWhat, What,
};

/// A rule, or what it comes to for one element of its map.
pub(super) struct Piece {
    pub span: Span,
    pub premises: Premises,
}

impl Lowering<'_> {
    /// `vmap`
    pub(super) fn verdicts(
        &mut self,
        map: &Mapping<What>,
        rule: &tree::Rule,
        context: &Context,
        graph: &Graph,
        premises: &Premises,
    ) -> Option<Vec<Piece>> {
        self.pieces(map, rule, context, premises, |lowering, item, mut premises| {
            // The rule goes on, and there is no more of it.
            if !matches!(item.to, What::Continue) {
                let action = lowering.verdict(&item.to, context, graph)?;
                premises.push(Step::Do(action));
            }
            Some(premises)
        })
    }

    /// `snat|dnat to ... map`
    pub(super) fn translations(
        &mut self,
        of: &Translation,
        map: &Mapping<Place>,
        rule: &tree::Rule,
        context: &Context,
        premises: &Premises,
    ) -> Option<Vec<Piece>> {
        self.one_form(&map.items)?;
        self.pieces(map, rule, context, premises, |lowering, item, mut premises| {
            if of.is_prefix {
                lowering.same_size(item)?;
            }
            let action = lowering.translation(of, &item.to, &premises)?;
            premises.push(Step::Do(action));
            Some(premises)
        })
    }

    /// The kernel holds single values or ranges in a map, and either all of them have ports or none.
    fn one_form(&mut self, items: &[MapItem<Place>]) -> Option<()> {
        let is_run =
            |value: &Value| matches!(value.resolved().what, ValueWhat::Range(_) | ValueWhat::Prefix(..));
        let form = |item: &MapItem<Place>| (is_run(&item.to.to), item.to.ports.as_ref().map(is_run));
        let Some(first) = items.first().map(form) else { return Some(()) };
        match items.iter().find(|item| form(item) != first) {
            None => Some(()),
            Some(other) => self.refuse(
                other.span.clone(),
                "the elements of a map lead all to single values or all to ranges, all with a port or all without",
            ),
        }
    }

    /// Both blocks of an element of a netmap have one size.
    fn same_size(&mut self, item: &MapItem<Place>) -> Option<()> {
        let key = item.key.as_ref()?;
        let (from, to) = (self.block(key)?.length, self.block(&item.to.to)?.length);
        if from == to {
            return Some(());
        }
        self.refuse(item.span.clone(), format!("one to one, a /{from} and a /{to} have not the same size"))
    }

    fn pieces<T>(
        &mut self,
        map: &Mapping<T>,
        rule: &tree::Rule,
        context: &Context,
        premises: &Premises,
        mut lead: impl FnMut(&mut Self, &MapItem<T>, Premises) -> Option<Premises>,
    ) -> Option<Vec<Piece>> {
        match &map.name {
            None => self.program.sets += 1,
            Some(span) => {
                let name = self.source.slice(span).trim_start_matches('@').to_owned();
                if self.unsound_maps.contains(&(self.table, name)) {
                    return None;
                }
            }
        }
        self.has_room(map)?;
        let keys = map.keys();
        let types: Vec<_> = keys.iter().map(|(key, _)| key.datatype).collect();
        let fields: Vec<_> = keys.iter().filter_map(|(key, _)| key.field()).collect();
        let (first, premises_of_all) = self.split(rule, premises, &fields)?;
        let mut base = premises_of_all;
        self.keys_allowed(&keys, Operator::Implicit, context, &mut base)?;
        let mut pieces = Vec::with_capacity(map.items.len() + 1);
        pieces.extend(first);
        let others = self.keys(&map.items, &types)?;
        for item in map.items.iter() {
            if self.is_spent() {
                return None;
            }
            let mut own = base.clone();
            let asked = match &item.key {
                Some(key) => self.asked(&keys, key, context, &mut own),
                None => self.any_other(&keys, &others, (&item.span, context), &mut own),
            };
            // What else is wrong with the map is told too.
            if let Some(mut premises) = asked.and_then(|()| lead(self, item, own)) {
                shut(&mut premises);
                pieces.push(Piece { span: item.span.clone(), premises });
            }
        }
        Some(pieces)
    }

    /// What a rule does ahead of its map is done once, ahead of all elements: a piece for that, if there is
    /// something, and what the elements have in common.
    pub(super) fn split(
        &mut self,
        rule: &tree::Rule,
        premises: &Premises,
        keys: &[Field],
    ) -> Option<(Option<Piece>, Premises)> {
        let is_once =
            |step: &Step| matches!(step, Step::Count(_) | Step::Act(Effect::Log(_) | Effect::Segment(_)));
        let asks_again = |step: &Step| matches!(step, Step::Match(_) | Step::Lookup(_));
        let mut first = premises.clone();
        let mut base = premises.clone();
        base.steps.retain(asks_again);
        // An element may change what the next one asks for.
        let is_plain = |step: &Step| asks_again(step) || is_once(step);
        if premises.is_never || (first.steps.iter().all(is_plain) && !keys.iter().any(|&key| changes(key))) {
            let has_first = premises.steps.iter().any(is_once);
            return Some((has_first.then(|| Piece { span: rule.span.clone(), premises: first }), base));
        }
        let Some(gate) = self.gates.checked_add(1) else {
            return self.refuse(rule.span.clone(), "the file has more than 65535 rules of this kind");
        };
        self.gates = gate;
        base.steps.retain(|step| !reads_what_changes(step));
        base.steps.push(Step::Act(Effect::Through(Gate(gate))));
        first.steps.insert(0, Step::Act(Effect::Open(Gate::SHUT)));
        first.steps.push(Step::Act(Effect::Open(Gate(gate))));
        Some((Some(Piece { span: rule.span.clone(), premises: first }), base))
    }

    /// The steps that ask for one key of a map.
    fn asked(
        &mut self,
        keys: &[(&'static keys::Key, Span)],
        value: &Value,
        context: &Context,
        own: &mut Premises,
    ) -> Option<()> {
        let [(key, _)] = keys else {
            let ValueWhat::Concatenation(parts) = &value.resolved().what else { return None };
            for ((key, _), part) in keys.iter().zip(parts) {
                self.asked_one(key, part, context, own)?;
            }
            return Some(());
        };
        self.asked_one(key, value, context, own)
    }

    fn asked_one(
        &mut self,
        key: &'static keys::Key,
        value: &Value,
        context: &Context,
        own: &mut Premises,
    ) -> Option<()> {
        // The protocol of `th` is asked for by another part, or was before.
        if !own.has_ports(key.layer) {
            let name = key.name;
            let message = format!("{name} in a map needs tcp or udp with it");
            return self.refuse(value.span.clone(), message);
        }
        self.comparison(&equal(key, value), context, own)
    }

    /// All keys of a map, which must be apart.
    fn keys<T>(&mut self, items: &[MapItem<T>], types: &[Datatype]) -> Option<Rows> {
        let mut all: Vec<(Row, Span)> = Vec::new();
        let mut defaults = 0;
        for item in items {
            let Some(key) = &item.key else {
                defaults += 1;
                if defaults > 1 {
                    return self.refuse(item.span.clone(), "a map has one * at most");
                }
                continue;
            };
            all.extend(self.rows(key, types)?.into_iter().map(|row| (row, item.span.clone())));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let is_sorted = all.iter().flat_map(|(row, _)| row).all(|(first, last)| first == last);
        for (at, (row, span)) in all.iter().enumerate() {
            let Some(&(_, end)) = row.first() else { continue };
            let behind = all
                .iter()
                .skip(at + 1)
                // Of single values, equal ones stand side by side.
                .take(if is_sorted { 1 } else { usize::MAX })
                .take_while(|(other, _)| other.first().is_some_and(|&(start, _)| start <= end));
            let mut count = 0;
            for (other, other_span) in behind {
                count += 1;
                if row.iter().zip(other).all(|(one, other)| one.0 <= other.1 && other.0 <= one.1) {
                    let span = if span.start > other_span.start { span } else { other_span };
                    let message = "an earlier element of this map has this key, or a part of it";
                    return self.refuse(span.clone(), message);
                }
            }
            self.spend_many(count, span)?;
        }
        let rows = all.into_iter().flat_map(|(row, _)| row).map(narrowed);
        Some(Rows { rows: rows.collect(), is_sorted })
    }

    /// Each element becomes a rule, and a policy has so many at most.
    fn has_room<T>(&mut self, map: &Mapping<T>) -> Option<()> {
        if self.program.locations.len() + map.items.len() <= usize::from(u16::MAX) {
            return Some(());
        }
        let span = map.name.as_ref().unwrap_or(&map.key_span).clone();
        self.refuse(span, "with the elements of this map, the file has more than 65536 rules and chains")
    }

    /// Judges the maps of all tables as they are declared, whoever looks into them.
    pub(super) fn maps(&mut self, ruleset: &Ruleset) {
        let maps = ruleset.tables.iter().enumerate();
        for (table, map) in maps.flat_map(|(at, table)| table.maps.iter().map(move |map| (at, map))) {
            self.program.sets += 1;
            let errors = self.diagnostics.errors();
            let keys = if map.types.is_empty() { None } else { self.map_keys(map) };
            if let Elements::Places(form, items) = &map.elements {
                self.has_form(*form, items);
            }
            if keys.is_none() || self.diagnostics.errors() > errors {
                self.unsound_maps.insert((table, map.name.clone()));
                continue;
            }
            let is_empty = match &map.elements {
                Elements::Untyped => false,
                Elements::Verdicts(items) => items.is_empty(),
                Elements::Places(_, items) => items.is_empty(),
            };
            for (is_so, what) in [(is_empty, "is empty"), (!map.is_used && ruleset.is_whole, "is never used")]
            {
                if is_so {
                    self.warning(map.span.clone(), format!("map {} {what}", quoted(&map.name)));
                }
            }
        }
    }

    fn map_keys(&mut self, map: &NamedMap) -> Option<()> {
        let count = match &map.elements {
            Elements::Untyped => 0,
            Elements::Verdicts(items) => items.len(),
            Elements::Places(_, items) => items.len(),
        };
        if let Some(size) = map.size.filter(|&size| count > size as usize) {
            return self
                .refuse(map.span.clone(), format!("the map has {count} elements, and its size is {size}"));
        }
        let types = map.types.as_slice();
        let keys: Vec<&Value> = match &map.elements {
            Elements::Untyped => return None,
            Elements::Verdicts(items) => {
                self.keys(items, types)?;
                items.iter().filter_map(|item| item.key.as_ref()).collect()
            }
            Elements::Places(_, items) => {
                self.keys(items, types)?;
                items.iter().filter_map(|item| item.key.as_ref()).collect()
            }
        };
        match keys.iter().find(|key| has_runs(key, self.source)).filter(|_| !map.is_interval) {
            Some(key) => self
                .refuse(key.span.clone(), "a map with ranges or prefixes as keys needs \"flags interval\""),
            None => Some(()),
        }
    }

    /// Whether all places are as the type of their map says.
    fn has_form(&mut self, form: Form, items: &[MapItem<Place>]) -> Option<()> {
        self.one_form(items)?;
        let place = items.first()?;
        let Place { to, ports } = &place.to;
        let is_run =
            [Some(to), ports.as_ref()].into_iter().flatten().any(|value| has_runs(value, self.source));
        let message = match (form.has_port, ports.is_some()) {
            (true, false) => "the type of this map says that there is a port",
            (false, true) => "the type of this map says nothing of a port",
            _ if form.is_run && !is_run => "the type of this map says that there is a range or a prefix",
            _ if is_run && !form.is_run => "ranges and prefixes want \"interval\" in the type of this map",
            _ => return Some(()),
        };
        self.refuse(place.span.clone(), message)
    }

    /// `*`: none of the others.
    fn any_other(
        &mut self,
        keys: &[(&'static keys::Key, Span)],
        others: &Rows,
        (span, context): (&Span, &Context),
        premises: &mut Premises,
    ) -> Option<()> {
        let [(key, _)] = keys else {
            if keys.iter().any(|(key, _)| !premises.has_ports(key.layer)) {
                let message = "* stands for other protocols than tcp and udp too, whose ports are not known";
                return self.refuse(span.clone(), message);
            }
            let Some(key) = self.packet_key(keys)? else {
                premises.is_never = true;
                return Some(());
            };
            let Rows { rows, is_sorted } = others.clone();
            premises.push(Step::Lookup(Lookup { key, rows, is_sorted, negated: true }));
            return Some(());
        };
        match key.subject {
            Subject::Packet(field) => {
                let ranges = normalise(others.rows.to_vec()).0.into();
                let known = Known { field, ranges, negated: true, max: max(key.datatype) };
                self.among(known, span.clone(), context, premises)
            }
            Subject::Constant(constant) => {
                let is_another =
                    others.rows.iter().any(|&(first, last)| first <= constant && constant <= last);
                premises.is_never |= is_another;
                Some(())
            }
            Subject::Ipv6 => {
                premises.is_never = true;
                Some(())
            }
        }
    }
}

impl<T> Mapping<T> {
    /// What is looked up.
    fn keys(&self) -> Vec<(&'static keys::Key, Span)> {
        std::iter::once((self.key, self.key_span.clone())).chain(self.more.iter().cloned()).collect()
    }
}

/// Behind a gate, one element ends the others.
pub(super) fn shut(premises: &mut Premises) {
    let is_gated = premises.steps.iter().any(|step| matches!(step, Step::Act(Effect::Through(_))));
    if let (true, Some(Step::Do(_))) = (is_gated, premises.steps.last()) {
        let before = premises.steps.len() - 1;
        premises.steps.insert(before, Step::Act(Effect::Open(Gate::SHUT)));
    }
}

/// Whether a match may hold no more behind what its rule does.
fn reads_what_changes(step: &Step) -> bool {
    match step {
        Step::Match(wanted) => changes(wanted.field),
        Step::Lookup(wanted) => wanted.key.fields().iter().any(|&field| changes(field)),
        _ => false,
    }
}

/// `key == value`, as maps compare.
fn equal(key: &'static keys::Key, value: &Value) -> tree::Match {
    tree::Match {
        key,
        key_span: value.span.clone(),
        mask: None,
        bits: Vec::new(),
        operator: Operator::Equal,
        value: value.clone(),
        of: None,
    }
}
