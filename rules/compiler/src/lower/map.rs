//! Maps within rules: each element becomes a rule of its own that asks for its key.
//!
//! The keys of a map are apart, so that a packet meets one element at most, as in nft; `*` asks for none of the
//! others. What the rule counts ahead of its map is counted by a rule without a verdict, ahead of them all.

use rules::table::{Effect, Field, Gate, Write};

use super::concatenation::{Row, Rows, numbers};
use super::graph::Graph;
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
    self, BitOperator, Elements, Form, MapItem, Mapping, NamedMap, Operator, Place, Ruleset, Span,
    Translation, Value, ValueWhat, What,
};

/// What is done with a key before it is looked up.
type Bits<'a> = &'a [(BitOperator, Value)];

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

    /// `meta|ct mark set ... map`: what looks a mark up, and what the rule goes on with, if one was found.
    pub(super) fn marks(
        &mut self,
        of: &tree::Mark,
        rule: &tree::Rule,
        context: &Context,
        mut premises: Premises,
    ) -> Option<(Vec<Piece>, Premises)> {
        let map = of.map.as_ref()?;
        let gate = self.gate(&rule.span)?;
        // An element may set what the others ask for: each but the one that is met is shut out.
        premises.forget(&[Field::Mark, Field::ConnectionMark]);
        let mut rest = premises.clone();
        rest.steps.retain(|step| asks_again(step) && !reads_what_changes(step));
        rest.steps.insert(0, Step::Act(Effect::Through(Gate(gate))));
        let is_of_connection = of.key.name == "ct mark";
        self.program.marks_connections |= is_of_connection;
        let open = Step::Act(Effect::Open(Gate::SHUT));
        premises.steps.insert(0, open);
        let pieces = self.pieces(map, rule, context, &premises, |lowering, item, mut premises| {
            let xor = lowering.single(&item.to, Datatype::Mark)?;
            let write = Write { from: None, and: 0, xor };
            let effect = if is_of_connection { Effect::ConnectionMark(write) } else { Effect::Mark(write) };
            premises.push(Step::Act(effect));
            premises.push(Step::Act(Effect::Open(Gate(gate))));
            Some(premises)
        })?;
        if map.key.subject == Subject::Ipv6 {
            rest.is_never = true;
        }
        Some((pieces, rest))
    }

    /// A gate of its own for a rule.
    fn gate(&mut self, span: &Span) -> Option<u16> {
        match self.gates.checked_add(1) {
            Some(gate) => {
                self.gates = gate;
                Some(gate)
            }
            None => self.refuse(span.clone(), "the file has more than 65535 rules of this kind"),
        }
    }

    /// `fib ... vmap`
    pub(super) fn fib_verdicts(
        &mut self,
        (fib, items): (&tree::Fib, &[MapItem<What>]),
        rule: &tree::Rule,
        context: &Context,
        graph: &Graph,
        premises: &Premises,
    ) -> Option<Vec<Piece>> {
        self.program.sets += 1;
        let (first, base) = self.split(rule, premises, &[])?;
        let mut pieces: Vec<_> = first.into_iter().collect();
        let keys: Vec<Value> = items.iter().filter_map(|item| item.key.clone()).collect();
        self.are_apart(fib, &keys)?;
        for item in items {
            let mut own = base.clone();
            let (operator, value) = match &item.key {
                Some(key) => (Operator::Equal, key.clone()),
                None => (
                    Operator::NotEqual,
                    Value { span: item.span.clone(), what: ValueWhat::Set(keys.clone()) },
                ),
            };
            self.fib(&tree::Fib { operator, value, ..fib.clone() }, context, &mut own)?;
            if !matches!(item.to, What::Continue) {
                let action = self.verdict(&item.to, context, graph)?;
                own.push(Step::Do(action));
            }
            shut(&mut own);
            pieces.push(Piece { span: item.span.clone(), premises: own });
        }
        Some(pieces)
    }

    /// The keys of a map of what `fib` finds, each once.
    fn are_apart(&mut self, fib: &tree::Fib, keys: &[Value]) -> Option<()> {
        let datatype = match fib.wanted {
            tree::Way::Type => Datatype::FibType,
            tree::Way::Interface => Datatype::InterfaceIndex,
            tree::Way::Name => Datatype::Interface,
        };
        let mut seen = Vec::new();
        for key in keys {
            let values = self.ranges(key, datatype)?;
            if values.iter().any(|value| seen.contains(value)) {
                let message = "an earlier element of this map has this key, or a part of it";
                return self.refuse(key.span.clone(), message);
            }
            seen.extend(values);
        }
        Some(())
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
                Some(key) => self.asked((&keys, &map.bits), key, context, &mut own),
                None if !map.bits.is_empty() => self.none_of(map, context, &mut own),
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
        let mut first = premises.clone();
        let mut base = premises.clone();
        base.steps.retain(asks_again);
        // An element may change what the next one asks for.
        let is_plain = |step: &Step| asks_again(step) || is_once(step);
        if premises.is_never || (first.steps.iter().all(is_plain) && !keys.iter().any(|&key| changes(key))) {
            let has_first = premises.steps.iter().any(is_once);
            return Some((has_first.then(|| Piece { span: rule.span.clone(), premises: first }), base));
        }
        let gate = self.gate(&rule.span)?;
        base.steps.retain(|step| !reads_what_changes(step));
        base.steps.push(Step::Act(Effect::Through(Gate(gate))));
        // Behind another map of the rule, all are shut unless that one has opened its own.
        if !first.steps.iter().any(|step| matches!(step, Step::Act(Effect::Open(_) | Effect::Through(_)))) {
            first.steps.insert(0, Step::Act(Effect::Open(Gate::SHUT)));
        }
        first.steps.push(Step::Act(Effect::Open(Gate(gate))));
        Some((Some(Piece { span: rule.span.clone(), premises: first }), base))
    }

    /// The steps that ask for one key of a map.
    fn asked(
        &mut self,
        (keys, bits): (&[(&'static keys::Key, Span)], Bits),
        value: &Value,
        context: &Context,
        own: &mut Premises,
    ) -> Option<()> {
        let [(key, _)] = keys else {
            let ValueWhat::Concatenation(parts) = &value.resolved().what else { return None };
            for ((key, _), part) in keys.iter().zip(parts) {
                self.asked_one((key, bits), part, context, own)?;
            }
            return Some(());
        };
        self.asked_one((key, bits), value, context, own)
    }

    /// `*` of a map whose key is masked: no other element.
    fn none_of<T>(&mut self, map: &Mapping<T>, context: &Context, own: &mut Premises) -> Option<()> {
        self.spend_many(map.items.len(), &map.key_span)?;
        for key in map.items.iter().filter_map(|item| item.key.as_ref()) {
            let wanted = tree::Match { operator: Operator::NotEqual, ..equal(map.key, &map.bits, key) };
            self.comparison(&wanted, context, own)?;
        }
        Some(())
    }

    fn asked_one(
        &mut self,
        (key, bits): (&'static keys::Key, Bits),
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
        self.comparison(&equal(key, bits, value), context, own)
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
        let rows = all.iter().flat_map(|(row, _)| numbers(row, types));
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
            if let Elements::Marks(items) = &map.elements {
                for item in items.iter() {
                    self.single(&item.to, Datatype::Mark);
                }
            }
            let is_empty = !matches!(map.elements, Elements::Untyped) && map.elements.keys().is_empty();
            for (is_so, what) in [(is_empty, "is empty"), (!map.is_used && ruleset.is_whole, "is never used")]
            {
                if is_so {
                    self.warning(map.span.clone(), format!("map {} {what}", quoted(&map.name)));
                }
            }
        }
    }

    fn map_keys(&mut self, map: &NamedMap) -> Option<()> {
        let count = map.elements.keys().len();
        if let Some(size) = map.size.filter(|&size| count > size as usize) {
            return self
                .refuse(map.span.clone(), format!("the map has {count} elements, and its size is {size}"));
        }
        let types = map.types.as_slice();
        match &map.elements {
            Elements::Untyped => return None,
            Elements::Verdicts(items) => self.keys(items, types)?,
            Elements::Places(_, items) => self.keys(items, types)?,
            Elements::Marks(items) => self.keys(items, types)?,
        };
        let keys: Vec<&Value> = map.elements.keys().into_iter().flatten().collect();
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
            Subject::Station(..) => {
                let Some(key) = self.packet_key(keys)? else { return Some(()) };
                let Rows { rows, is_sorted } = others.clone();
                premises.push(Step::Lookup(Lookup { key, rows, is_sorted, negated: true }));
                Some(())
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

/// Whether a step may be taken again for each element of a map.
fn asks_again(step: &Step) -> bool {
    matches!(step, Step::Match(_) | Step::Lookup(_))
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
fn equal(key: &'static keys::Key, bits: Bits, value: &Value) -> tree::Match {
    tree::Match {
        key,
        key_span: value.span.clone(),
        mask: None,
        bits: bits.to_vec(),
        operator: Operator::Equal,
        value: value.clone(),
        of: None,
    }
}
