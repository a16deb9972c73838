//! Statements that remember: objects that rules share, log lines, marks, and sets that packets change.

use std::collections::HashMap;

use rules::Hook;
use rules::object::{Count, CountId, Limit, LimitId, LogId, Quota, QuotaId, SetId};
use rules::table::{Change, Effect, Field, KEY_MAX, Kind, Write};

use super::graph::reached_only_by;
use super::sets::{Held, width};
use super::{Context, Lowering, Premises};
use crate::diagnostics::{meant, quoted};
use crate::program::{DynamicSet, Log, Step};
use crate::syntax::keys::{Datatype, Key, Subject};
use crate::syntax::tree::{self, Connections, Mark, Operator, Ruleset, Shared, Span, Update, Value, What};

/// The elements that a meter may have when its size is not said.
const METER_SIZE: u32 = 65_535;

/// The protocol of segments.
const TCP: u8 = 6;

/// What is told of a set whose elements count connections and do more.
const COUNTS_ALONE: &str = "elements with ct count have nothing else in this version: no limit, no timeout, no first elements, no delete";

/// What the rules of a table share, by kind and name.
pub(super) type Objects = HashMap<(&'static str, String), Object>;

/// A counter, limit or quota with a name.
pub(super) struct Object {
    step: Step,
    block: usize,
    is_used: bool,
}

impl Lowering<'_> {
    /// The objects of all tables.
    pub(super) fn objects(&mut self, ruleset: &Ruleset) {
        for table in &ruleset.tables {
            let mut objects = Objects::new();
            for object in &table.objects {
                let step = match object.what {
                    Shared::Counter => Some(Step::Count(self.counter_id(&object.span))),
                    Shared::Limit(limit) => self.limit_step(limit, &object.span),
                    Shared::Quota(quota) => self.quota_step(quota, &object.span),
                };
                if let Some(step) = step {
                    let key = (object.what.kind(), object.name.clone());
                    objects.insert(key, Object { step, block: object.block, is_used: false });
                }
            }
            self.objects.push(objects);
        }
    }

    pub(super) fn unused_objects(&mut self, ruleset: &Ruleset) {
        // With errors, a use may have been lost.
        if self.diagnostics.errors() > 0 {
            return;
        }
        let tables = ruleset.tables.iter().zip(&self.objects);
        let unused = tables.flat_map(|(table, held)| table.objects.iter().map(move |object| (object, held)));
        let unused: Vec<_> = unused
            .filter(|(object, held)| {
                held.get(&(object.what.kind(), object.name.clone())).is_some_and(|held| !held.is_used)
            })
            .map(|(object, _)| {
                (
                    object.span.clone(),
                    format!("{} {} is never used", object.what.kind(), quoted(&object.name)),
                )
            })
            .collect();
        for (span, message) in unused {
            self.warning(span, message);
        }
    }

    /// Appends the step of a statement that remembers; `None` for an error, which is told.
    pub(super) fn stateful(
        &mut self,
        what: &What,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        // No IPv4 packet comes here: nothing is to be remembered.
        let is_never = premises.is_never;
        let step = match what {
            What::Counter if is_never => return Some(()),
            What::Counter => Step::Count(self.counter_id(span)),
            What::Named(kind, name) => self.object(kind, name)?,
            What::Limit(limit) => self.limit_step(*limit, span)?,
            What::Quota(quota) => self.quota_step(*quota, span)?,
            What::Log(log) => self.log_step(log, span)?,
            What::Mark(mark) => {
                // What was known of marks is not so behind this.
                premises.forget(&[Field::Mark, Field::ConnectionMark]);
                self.mark_step(mark, span, context)?
            }
            What::Untrack => {
                if !context.is_before_tracking() {
                    let message = "notrack has its place at prerouting before connections are known, such as priority raw";
                    return self.refuse(span.clone(), message);
                }
                // What was known of the state is not so behind this.
                premises.forget(&[Field::State]);
                self.program.untracks = true;
                Step::Act(Effect::Untrack)
            }
            What::Segment(size) => self.segment_step(size.as_ref(), span, context, premises)?,
            What::Connections(count) => {
                self.are_known(&count.span, context)?;
                let of = Count { limit: count.limit, is_over: count.is_over, size: 1, width: 0 };
                let key = rules::table::Key { fields: [Field::Protocol; KEY_MAX], width: 0 };
                Step::Act(Effect::Connections(self.count(of, &count.span)?, key))
            }
            What::Update(update) => match self.update_step(update, context, premises)? {
                Some(step) => return self.counted_update(update, step, premises),
                None => {
                    premises.is_never = true;
                    return Some(());
                }
            },
            _ => return None,
        };
        premises.push(step);
        Some(())
    }

    fn object(&mut self, kind: &'static str, name_span: &Span) -> Option<Step> {
        let name = self.source.slice(name_span).trim_matches('"');
        let objects = self.objects.get_mut(self.table)?;
        if let Some(object) = objects.get_mut(&(kind, name.to_owned())) {
            object.is_used = true;
            if object.block > self.block {
                let message = format!(
                    "{kind} {} is declared in a later block, which nft has not read yet",
                    quoted(name)
                );
                return self.refuse(name_span.clone(), message);
            }
            return Some(object.step.clone());
        }
        let mut known: Vec<_> =
            objects.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str()).collect();
        known.sort_unstable();
        let label = meant(name, known);
        let message = format!("there is no {kind} {} in this table", quoted(name));
        self.refuse_with(name_span.clone(), message, label)
    }

    fn limit_step(&mut self, limit: Limit, span: &Span) -> Option<Step> {
        let id = self.object_id(self.program.limits.len(), span)?;
        self.program.limits.push(limit);
        Some(Step::Act(Effect::Limit(LimitId(id))))
    }

    fn quota_step(&mut self, quota: Quota, span: &Span) -> Option<Step> {
        let id = self.object_id(self.program.quotas.len(), span)?;
        self.program.quotas.push(quota);
        Some(Step::Act(Effect::Quota(QuotaId(id))))
    }

    fn log_step(&mut self, log: &tree::Log, span: &Span) -> Option<Step> {
        if let Some(flags) = &log.flags {
            let message =
                "log flags: the line shows addresses, ports, flags and lengths, and no more for them";
            self.warning(flags.clone(), message.to_owned());
        }
        if let Some(group) = &log.group {
            let message = "nobody listens for it here: the line goes to the appliance's log";
            self.warning(group.clone(), message.to_owned());
        }
        let id = self.object_id(self.program.logs.len(), span)?;
        self.program.logs.push(Log { prefix: log.prefix.clone(), level: log.level });
        Some(Step::Act(Effect::Log(LogId(id))))
    }

    fn object_id(&mut self, index: usize, span: &Span) -> Option<u16> {
        match u16::try_from(index) {
            Ok(id) => Some(id),
            Err(_) => self.refuse(span.clone(), "the file has more than 65536 statements of this kind"),
        }
    }

    fn mark_step(&mut self, mark: &Mark, span: &Span, context: &Context) -> Option<Step> {
        self.hook_allows(mark.key, Operator::Implicit, span, context)?;
        let (from, start) = match (mark.from, &mark.value) {
            (Some(key), _) => {
                self.hook_allows(key, Operator::Implicit, span, context)?;
                let Subject::Packet(field) = key.subject else { return None };
                (Some(field), (u32::MAX, 0))
            }
            (None, Some(value)) => (None, (0, self.single(value, Datatype::Mark)?)),
            (None, None) => return None,
        };
        let (and, xor) = self.bit_operations(&mark.bits, Datatype::Mark, start)?;
        let write = Write { from, and, xor };
        if mark.key.name == "meta mark" {
            return Some(Step::Act(Effect::Mark(write)));
        }
        self.program.marks_connections = true;
        Some(Step::Act(Effect::ConnectionMark(write)))
    }

    /// `tcp option maxseg size set`
    fn segment_step(
        &mut self,
        size: Option<&Value>,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<Step> {
        self.transport(TCP, "tcp option", span, premises)?;
        let Some(size) = size else {
            // The kernel asks the route: there is one from here on.
            let hooks = [Hook::Forward, Hook::Output, Hook::Postrouting];
            if !reached_only_by(context, &hooks.map(|hook| (Kind::Filter, hook))) {
                let message = "\"rt mtu\" has its place at forward, output and postrouting: elsewhere no route is known";
                return self.refuse(span.clone(), message);
            }
            return Some(Step::Act(Effect::Segment(0)));
        };
        let octets = self.single(size, Datatype::Word).and_then(|octets| u16::try_from(octets).ok())?;
        if octets == 0 {
            return self.refuse(size.span.clone(), "a segment of no octets carries nothing");
        }
        Some(Step::Act(Effect::Segment(octets)))
    }

    /// A change of a set with the counter of its elements, which stands ahead of their limit or behind it.
    fn counted_update(&mut self, update: &Update, step: Step, premises: &mut Premises) -> Option<()> {
        let name = self.source.slice(&update.name).trim_start_matches('@');
        let set = self.sets.get(self.table).and_then(|sets| sets.get(name)).filter(|_| !update.is_meter);
        let counter = match (&update.counter, set.and_then(|set| set.counter)) {
            _ if matches!(update.how, Change::Delete) => None,
            (_, Some(counter)) => Some(counter),
            (Some((span, _)), None) => Some(self.counter_of_elements(span)),
            (None, None) => None,
        };
        let is_ahead = update.counter.as_ref().is_some_and(|(_, is_ahead)| *is_ahead);
        let steps = match counter.map(Step::Count) {
            Some(counter) if is_ahead && update.limit.is_some() => vec![counter, step],
            Some(counter) => vec![step, counter],
            None => vec![step],
        };
        steps.into_iter().for_each(|step| premises.push(step));
        Some(())
    }

    /// `add`, `update`, `delete` and `meter`; no step for what no IPv4 packet has.
    fn update_step(
        &mut self,
        update: &Update,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<Option<Step>> {
        self.keys_allowed(&update.keys, Operator::Implicit, context, premises)?;
        let key = self.packet_key(&update.keys)?;
        if let Some((_, span)) = update.keys.iter().find(|(key, _)| !premises.has_ports(key.layer)) {
            return self.refuse(span.clone(), "ports need a match on tcp or udp before them");
        }
        if let (Change::Delete, Some((span, _))) = (update.how, &update.counter) {
            return self.refuse(span.clone(), "what is deleted counts nothing");
        }
        let set = if update.is_meter { self.meter(update)? } else { self.updated_set(update)? };
        let (Some(key), Some(set)) = (key, set) else { return Some(None) };
        if let Some(count) = &update.count {
            self.are_known(&count.span, context)?;
            return self.counted_elements(set, key, update, count).map(Some);
        }
        if self.counts_connections(set) {
            return self.refuse(update.name.clone(), COUNTS_ALONE);
        }
        self.element_limit(set, update)?;
        let how = update.how;
        Some(Some(Step::Act(Effect::Update(rules::table::Update { set, key, how, timeout: update.timeout }))))
    }

    /// The set that a statement changes; none when its elements are of IPv6.
    fn updated_set(&mut self, update: &Update) -> Option<Option<SetId>> {
        let types = types(&update.keys);
        let held = self.named_set(&update.name, &types)?;
        let name = self.source.slice(&update.name).trim_start_matches('@');
        let has_timeout =
            self.sets.get(self.table).and_then(|sets| sets.get(name)).is_some_and(|set| set.has_timeout);
        match held {
            Held::Dynamic(_) | Held::Ipv6 { changes: true } if update.timeout > 0 && !has_timeout => {
                let message = format!("a timeout needs \"flags timeout\" in set {}", quoted(name));
                self.refuse(update.name.clone(), message)
            }
            Held::Dynamic(set) => Some(Some(set)),
            Held::Ipv6 { changes: true } => Some(None),
            _ => {
                let message = format!("set {} does not change: it needs \"flags dynamic\"", quoted(name));
                self.refuse(update.name.clone(), message)
            }
        }
    }

    /// A meter has a set of its own.
    fn meter(&mut self, update: &Update) -> Option<Option<SetId>> {
        if update.limit.is_none() && update.count.is_none() && update.counter.is_none() {
            return self.refuse(
                update.name.clone(),
                "a meter needs a limit or a counter, such as \"limit rate over 10/second\"",
            );
        }
        let name = self.source.slice(&update.name).to_owned();
        let is_set = self.sets.get(self.table).is_some_and(|sets| sets.contains_key(&name));
        if is_set || !self.meters.insert((self.table, name.clone())) {
            let message = format!("there is a set or a meter {} already", quoted(&name));
            return self.refuse(update.name.clone(), message);
        }
        let types = types(&update.keys);
        let width = width(&types)?;
        let size = update.size.unwrap_or(METER_SIZE);
        let set = DynamicSet { size, width, timeout: 0, limit: None, count: None, elements: Vec::new() };
        self.program.sets += 1;
        self.add_dynamic(set, &update.name).map(Some)
    }

    /// `ct count` looks for connections.
    fn are_known(&mut self, span: &Span, context: &Context) -> Option<()> {
        if context.is_early {
            let message =
                "ct count before connections are known (priority -200) is not in this version's subset";
            return self.refuse(span.clone(), message);
        }
        Some(())
    }

    fn count(&mut self, count: Count, span: &Span) -> Option<CountId> {
        let id = self.object_id(self.program.counts.len(), span)?;
        self.program.counts.push(count);
        Some(CountId(id))
    }

    /// Sets whose elements count connections keep nothing else, and nobody looks into them.
    pub(super) fn counted_sets(&mut self) {
        let counted = |at: u16| self.counts_connections(SetId(at));
        let looked: Vec<_> =
            self.looked_into.iter().filter(|(at, _)| counted(**at)).map(|(_, span)| span.clone()).collect();
        for span in looked {
            let message = "a match on a set whose elements have ct count is not in this version's subset";
            self.refuse::<()>(span, message);
        }
        for set in self.program.dynamic_sets.iter_mut().filter(|set| set.count.is_some()) {
            set.size = 1;
        }
    }

    fn counts_connections(&self, set: SetId) -> bool {
        self.program.dynamic_sets.get(usize::from(set.0)).is_some_and(|set| set.count.is_some())
    }

    /// The elements of a set count connections: then they do nothing else.
    fn counted_elements(
        &mut self,
        set: SetId,
        key: rules::table::Key,
        update: &Update,
        count: &Connections,
    ) -> Option<Step> {
        let is_met = self.updated.contains(&set.0);
        let held = self.program.dynamic_sets.get(usize::from(set.0))?;
        let of = Count { limit: count.limit, is_over: count.is_over, size: held.size, width: held.width };
        let is_alone =
            update.limit.is_none() && update.timeout == 0 && held.timeout == 0 && held.elements.is_empty();
        if !is_alone || matches!(update.how, Change::Delete) || is_met && held.count.is_none() {
            return self.refuse(update.name.clone(), COUNTS_ALONE);
        }
        if let Some(field) = key.fields().iter().find(|field| field.is_per_packet() || **field == Field::Mark)
        {
            let message = format!(
                "ct count by what packets of a connection differ in ({field:?}) is not in this version's subset"
            );
            return self.refuse(count.span.clone(), message);
        }
        let id = match held.count {
            Some(id) if self.program.counts.get(usize::from(id.0)) != Some(&of) => {
                let message =
                    "all statements that put elements into a set give them the same ct count in this version";
                return self.refuse(count.span.clone(), message);
            }
            Some(id) => id,
            None => self.count(of, &count.span)?,
        };
        self.updated.insert(set.0);
        let held = self.program.dynamic_sets.get_mut(usize::from(set.0))?;
        held.count = Some(id);
        Some(Step::Act(Effect::Connections(id, key)))
    }

    /// All who put elements into a set give them the same limit, or none.
    fn element_limit(&mut self, set: SetId, update: &Update) -> Option<()> {
        let limit = update.limit.as_ref().map(|(limit, _)| *limit);
        let is_first = !matches!(update.how, Change::Delete) && self.updated.insert(set.0);
        let held = self.program.dynamic_sets.get_mut(usize::from(set.0))?;
        if is_first {
            held.limit = limit;
            if limit.is_some() && !held.elements.is_empty() {
                let message = "elements that a set begins with have no limit in nft; leave them out";
                return self.refuse(update.name.clone(), message);
            }
        }
        if matches!(update.how, Change::Delete) && limit.is_none() || held.limit == limit {
            return Some(());
        }
        let message = "all statements that put elements into a set give them the same limit in this version";
        self.refuse(update.name.clone(), message)
    }
}

fn types(keys: &[(&'static Key, Span)]) -> Vec<Datatype> {
    keys.iter().map(|(key, _)| key.datatype).collect()
}
