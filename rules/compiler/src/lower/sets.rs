//! Named sets: their elements, and who looks into them.

use rules::object::SetId;
use rules::table::{CounterId, KEY_MAX};

use super::concatenation::{Rows, numbers};
use super::ranges::{Ranges, Shared, normalise};
use super::{Lowering, Premises, value};
use crate::diagnostics::{meant, quoted};
use crate::program::{DynamicSet, Step};
use crate::syntax::keys::{Datatype, are_alike, type_names};
use crate::syntax::tree::{NamedSet, Operator, Ruleset, Span, Value, ValueWhat};

/// The elements that a dynamic set may have when its size is not said.
const SIZE: u32 = 65_535;

/// A named set with its elements.
pub(super) struct Set {
    pub types: Vec<Datatype>,
    pub block: usize,
    pub held: Held,
    pub is_used: bool,
    /// Whether packets may change it, and how long an element then stays by itself.
    pub has_timeout: bool,
    /// What its elements count as one.
    pub counter: Option<CounterId>,
}

/// What a set holds.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Ranges(Shared),
    Rows(Rows),
    /// What packets put there.
    Dynamic(SetId),
    /// What no IPv4 packet has.
    Ipv6 {
        /// Whether packets change it.
        changes: bool,
    },
    /// Something wrong, which was told.
    Unsound,
}

impl Lowering<'_> {
    pub(super) fn sets(&mut self, ruleset: &Ruleset) {
        for table in &ruleset.tables {
            let sets = table.sets.iter().map(|set| (set.name.clone(), self.set(set))).collect();
            self.sets.push(sets);
        }
    }

    fn set(&mut self, set: &NamedSet) -> Set {
        self.program.sets += 1;
        let has_timeout = set.flags.has_timeout || set.timeout.is_some();
        let held = self.held(set, has_timeout).unwrap_or(Held::Unsound);
        let counter = set.counter.as_ref().map(|span| self.counter_of_elements(span));
        Set { types: set.types.clone(), block: set.block, held, is_used: false, has_timeout, counter }
    }

    fn held(&mut self, set: &NamedSet, has_timeout: bool) -> Option<Held> {
        if set.types.is_empty() {
            return None;
        }
        let bare =
            set.elements.iter().find(|elements| !matches!(elements.resolved().what, ValueWhat::Set(_)));
        if let Some(bare) = bare {
            return self.refuse(bare.span.clone(), "the elements of a set stand in braces");
        }
        let has_runs = set.elements.iter().any(|elements| value::has_runs(elements, self.source));
        if !set.flags.is_interval && has_runs {
            return self.refuse(set.span.clone(), "a set with ranges or prefixes needs \"flags interval\"");
        }
        if set.merges && !set.flags.is_interval {
            return self.refuse(set.span.clone(), "auto-merge is for sets with \"flags interval\"");
        }
        if let Some(swept) = set.swept.clone().filter(|_| !has_timeout) {
            return self.refuse(swept, "gc-interval is for sets whose elements end: it needs a timeout");
        }
        let count = set.elements.iter().fold(0, |sum: usize, each| sum.saturating_add(value::count(each)));
        if let Some(size) = set.size.filter(|&size| count > size as usize) {
            return self
                .refuse(set.span.clone(), format!("the set has {count} elements, and its size is {size}"));
        }
        if set.flags.is_dynamic || has_timeout {
            return self.dynamic_set(set);
        }
        let held = match set.types[..] {
            [datatype] if !is_of_ipv6(set) && datatype != Datatype::Station => {
                Held::Ranges(self.set_ranges(set, datatype)?.into())
            }
            _ if is_of_ipv6(set) => self.set_rows(set).map(|_| Held::Ipv6 { changes: false })?,
            _ => Held::Rows(self.set_rows(set)?),
        };
        if count == 0 && !set.lacks_elements {
            self.warning(set.span.clone(), format!("set {} is empty", quoted(&set.name)));
        }
        Some(held)
    }

    fn set_ranges(&mut self, set: &NamedSet, datatype: Datatype) -> Option<Ranges> {
        let mut ranges = Ranges::new();
        for elements in &set.elements {
            self.collect(elements, datatype, &mut ranges)?;
        }
        let (ranges, overlaps) = normalise(ranges);
        if overlaps && !set.merges {
            return self.overlapping(set);
        }
        Some(ranges)
    }

    fn set_rows(&mut self, set: &NamedSet) -> Option<Rows> {
        let mut rows = Vec::new();
        for elements in &set.elements {
            rows.extend(self.rows(elements, &set.types)?);
        }
        let (rows, overlaps) = self.arranged(rows, &set.types, &set.span)?;
        // The kernel merges no concatenations.
        if overlaps && !(set.merges && set.types.len() == 1) {
            return self.overlapping(set);
        }
        Some(rows)
    }

    fn overlapping<T>(&mut self, set: &NamedSet) -> Option<T> {
        let message = match set.types.len() {
            1 => "elements of this set repeat or overlap, and it has no auto-merge",
            _ => "elements of this set repeat or overlap",
        };
        self.refuse(set.span.clone(), message)
    }

    /// A set that packets change.
    fn dynamic_set(&mut self, set: &NamedSet) -> Option<Held> {
        if set.flags.is_interval {
            let message = "a set with intervals that end or change is not in this version's subset";
            return self.refuse(set.span.clone(), message);
        }
        if set.flags.is_constant {
            return self.refuse(set.span.clone(), "a constant set does not change");
        }
        if is_of_ipv6(set) {
            for elements in &set.elements {
                self.rows(elements, &set.types)?;
            }
            return Some(Held::Ipv6 { changes: true });
        }
        let mut elements = Vec::new();
        for each in &set.elements {
            for row in self.rows(each, &set.types)? {
                let mut key = [0; KEY_MAX];
                for (number, (value, _)) in key.iter_mut().zip(numbers(&row, &set.types)) {
                    *number = value;
                }
                elements.push(key);
            }
        }
        let size = set.size.unwrap_or(SIZE);
        let width = width(&set.types)?;
        let timeout = set.timeout.unwrap_or(0);
        self.add_dynamic(DynamicSet { size, width, timeout, limit: None, count: None, elements }, &set.span)
            .map(Held::Dynamic)
    }

    pub(super) fn add_dynamic(&mut self, set: DynamicSet, span: &Span) -> Option<SetId> {
        let Ok(id) = u16::try_from(self.program.dynamic_sets.len()) else {
            return self.refuse(span.clone(), "the file has more than 65536 sets that packets change");
        };
        self.program.dynamic_sets.push(set);
        Some(SetId(id))
    }

    /// An element of a set whose elements count was met: all of them count as one here.
    pub(super) fn count_element(&self, value: &Value, operator: Operator, premises: &mut Premises) {
        let value = value.resolved();
        if !matches!(value.what, ValueWhat::Named) || operator == Operator::NotEqual {
            return;
        }
        let name = self.source.slice(&value.span).trim_start_matches('@');
        let set = self.sets.get(self.table).and_then(|sets| sets.get(name));
        if let Some(counter) = set.and_then(|set| set.counter) {
            premises.push(Step::Count(counter));
        }
    }

    /// The one counter of a set's elements.
    pub(super) fn counter_of_elements(&mut self, span: &Span) -> CounterId {
        let message = "elements are not counted one by one here: this counts them all together";
        self.warning(span.clone(), message.to_owned());
        self.counter_id(span)
    }

    /// What `@name` holds, which must be of these types.
    pub(super) fn named_set(&mut self, span: &Span, types: &[Datatype]) -> Option<Held> {
        let name = self.source.slice(span).trim_start_matches('@');
        let Some(sets) = self.sets.get_mut(self.table) else {
            return self.refuse(span.clone(), "an assertion stands in no table, and sees no named set");
        };
        let Some(set) = sets.get_mut(name) else {
            let mut known: Vec<_> = sets.keys().map(String::as_str).collect();
            known.sort_unstable();
            let label = meant(name, known);
            return self.refuse_with(
                span.clone(),
                format!("there is no set {} in this table", quoted(name)),
                label,
            );
        };
        set.is_used = true;
        if set.types.is_empty() {
            return None;
        }
        if set.block > self.block {
            let message =
                format!("set {} is declared in a later block, which nft has not read yet", quoted(name));
            return self.refuse(span.clone(), message);
        }
        if !are_alike(&set.types, types) {
            let (held, wanted) = (type_names(&set.types), type_names(types));
            let message = match held == wanted {
                true => format!("set {} holds {held} of other sizes", quoted(name)),
                false => format!("set {} holds {held}, not {wanted}", quoted(name)),
            };
            return self.refuse(span.clone(), message);
        }
        match &set.held {
            Held::Unsound => None,
            held => Some(held.clone()),
        }
    }

    pub(super) fn unused_sets(&mut self, ruleset: &Ruleset) {
        let unused: Vec<_> = ruleset
            .tables
            .iter()
            .zip(&self.sets)
            .flat_map(|(table, sets)| table.sets.iter().map(move |set| (set, sets.get(&set.name))))
            .filter(|(_, held)| held.is_some_and(|held| !held.is_used))
            .map(|(set, _)| (set.span.clone(), format!("set {} is never used", quoted(&set.name))))
            .collect();
        // With errors, a use may have been lost.
        if self.diagnostics.errors() == 0 {
            for (span, message) in unused {
                self.warning(span, message);
            }
        }
    }
}

/// How many numbers of a packet are looked up for these types.
pub(super) fn width(types: &[Datatype]) -> Option<u8> {
    let of = |datatype: &Datatype| if *datatype == Datatype::Station { 2 } else { 1 };
    u8::try_from(types.iter().map(of).sum::<usize>()).ok()
}

fn is_of_ipv6(set: &NamedSet) -> bool {
    set.types.iter().any(|datatype| datatype.is_ipv6())
}
