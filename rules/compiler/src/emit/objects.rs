//! Stateful statements as Rust text.

use rules::object::{Count, Limit, Quota};
use rules::table::{Effect, Key, Update, Write};

use super::{joined, option};
use crate::program::{DynamicSet, Log};

pub(super) fn key(key: &Key) -> String {
    let fields = joined(&key.fields, |field| format!("::rules::table::Field::{field:?}"));
    format!("::rules::table::Key {{ fields: [{fields}], width: {} }}", key.width)
}

/// Behind `::rules::table::Effect::`.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Limit(id) => format!("Limit(::rules::object::LimitId({}))", id.0),
        Effect::Quota(id) => format!("Quota(::rules::object::QuotaId({}))", id.0),
        Effect::Log(id) => format!("Log(::rules::object::LogId({}))", id.0),
        Effect::Untrack => "Untrack".to_owned(),
        Effect::Segment(octets) => format!("Segment({octets})"),
        Effect::Mark(of) => format!("Mark({})", write(of)),
        Effect::ConnectionMark(of) => format!("ConnectionMark({})", write(of)),
        Effect::Update(Update { set, key: of, how, timeout }) => format!(
            "Update(::rules::table::Update {{ set: ::rules::object::SetId({}), key: {}, how: ::rules::table::Change::{how:?}, timeout: {timeout} }})",
            set.0,
            key(of)
        ),
        Effect::Connections(id, of) => {
            format!("Connections(::rules::object::CountId({}), {})", id.0, key(of))
        }
        Effect::Open(gate) => format!("Open(::rules::table::Gate({}))", gate.0),
        Effect::Through(gate) => format!("Through(::rules::table::Gate({}))", gate.0),
        Effect::Member { set, key: of, negated } => format!(
            "Member {{ set: ::rules::object::SetId({}), key: {}, negated: {negated} }}",
            set.0,
            key(of)
        ),
    }
}

fn write(write: &Write) -> String {
    let Write { from, and, xor } = write;
    let from = option(*from, |field| format!("::rules::table::Field::{field:?}"));
    format!("::rules::table::Write {{ from: {from}, and: {and}, xor: {xor} }}")
}

pub(super) fn limit(limit: &Limit) -> String {
    let Limit { rate, unit, burst, is_octets, is_over } = limit;
    format!(
        "::rules::object::Limit {{ rate: {rate}, unit: {unit}, burst: {burst}, is_octets: {is_octets}, is_over: {is_over} }}"
    )
}

pub(super) fn quota(quota: &Quota) -> String {
    let Quota { octets, used, is_over } = quota;
    format!("::rules::object::Quota {{ octets: {octets}, used: {used}, is_over: {is_over} }}")
}

pub(super) fn count(count: &Count) -> String {
    let Count { limit, is_over, size, width } = count;
    format!("::rules::object::Count {{ limit: {limit}, is_over: {is_over}, size: {size}, width: {width} }}")
}

pub(super) fn log(log: &Log) -> String {
    format!(
        "::rules::object::Log {{ prefix: {:?}, level: ::rules::object::Level::{:?} }}",
        log.prefix, log.level
    )
}

pub(super) fn dynamic_set(set: &DynamicSet) -> String {
    let DynamicSet { size, width, timeout, limit: of, elements, .. } = set;
    format!(
        "::rules::object::DynamicSet {{ size: {size}, width: {width}, timeout: {timeout}, limit: {}, elements: &{elements:?} }}",
        option(of.as_ref(), limit)
    )
}
