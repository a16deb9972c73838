//! The compiled policy for people: which chains run where, and what each rule has become.

use std::fmt::Write;
use std::net::Ipv4Addr;

use rules::Hook;
use rules::table::{Action, Effect, Field, Gate, Key, Kind, NO_PORT};

use crate::program::{Lookup, Match, Program, Rule, Step, Test};

/// More elements of a set than this are not shown one by one.
const SHOWN_MAX: usize = 6;

/// A row for each base chain, heads first.
pub(crate) fn hooks(program: &Program) -> Vec<Vec<String>> {
    let head = ["hook", "priority", "type", "chain", "policy", "rules"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for (hook, bases) in Hook::ALL.iter().zip(&program.hooks) {
        for base in bases {
            let chain = usize::from(base.chain);
            let priority =
                program.priorities.iter().find(|(id, _)| *id == base.id).map_or(0, |found| found.1);
            rows.push(vec![
                format!("{hook:?}").to_lowercase(),
                priority.to_string(),
                if base.kind == Kind::Nat { "nat" } else { "filter" }.to_owned(),
                program.names.get(chain).cloned().unwrap_or_default(),
                if base.accepts { "accept" } else { "drop" }.to_owned(),
                program.chains.get(chain).map_or(0, Vec::len).to_string(),
            ]);
        }
    }
    rows
}

/// Every rule, in lines.
pub(crate) fn rules(program: &Program) -> String {
    let mut out = String::new();
    let forests = program.forests.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    for ((name, rules), forest) in program.names.iter().zip(&program.chains).zip(forests) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}");
        if let Some(forest) = forest {
            let (steps, octets) = (forest.steps, forest.octets());
            let _ = writeln!(out, "  decided by trees: {steps} steps at most, {octets} octets");
        }
        for rule in rules {
            let _ = writeln!(out, "  {}  {}", place(program, rule), steps(program, rule));
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn place(program: &Program, rule: &Rule) -> String {
    let line = program.locations.get(usize::from(rule.id.0)).copied().unwrap_or(0);
    let (file, line) = program.place(line);
    let file = program.files.get(file).map_or("", |(_, file)| file.as_str());
    format!("{file}:{line}")
}

fn steps(program: &Program, rule: &Rule) -> String {
    if rule.steps.is_empty() {
        return "for no IPv4 packet".to_owned();
    }
    rule.steps.iter().map(|each| step(program, each)).collect::<Vec<_>>().join(", ")
}

fn step(program: &Program, step: &Step) -> String {
    match step {
        Step::Match(Match { field, test, negated }) => {
            let not = if *negated { "not " } else { "" };
            format!("{} {not}{}", name(*field), wanted(program, *field, test))
        }
        Step::Lookup(Lookup { key, rows, is_sorted, negated }) => {
            let not = if *negated { "not " } else { "" };
            let how = if *is_sorted { "by halves" } else { "one by one" };
            let count = rows.len() / key.fields().len().max(1);
            format!("{} {not}among {count}, looked up {how}", joined(key))
        }
        Step::Count(counter) => format!("counter {}", counter.0),
        Step::Act(effect) => remembered(effect),
        Step::Do(action) => action_of(program, action),
    }
}

fn joined(key: &Key) -> String {
    key.fields().iter().map(|&field| name(field)).collect::<Vec<_>>().join(" . ")
}

fn remembered(effect: &Effect) -> String {
    match effect {
        Effect::Limit(id) => format!("limit {}", id.0),
        Effect::Quota(id) => format!("quota {}", id.0),
        Effect::Log(id) => format!("log {}", id.0),
        Effect::Untrack => "keeps no connection".to_owned(),
        Effect::Segment(0) => "segments as the links take them".to_owned(),
        Effect::Segment(octets) => format!("segments of at most {octets}"),
        Effect::Mark(_) => "sets the mark".to_owned(),
        Effect::ConnectionMark(_) => "sets the mark of the connection".to_owned(),
        Effect::Update(update) => {
            format!(
                "{} of {} in changing set {}",
                format!("{:?}", update.how).to_lowercase(),
                joined(&update.key),
                update.set.0
            )
        }
        Effect::Connections(id, key) if key.width == 0 => format!("connections of count {}", id.0),
        Effect::Connections(id, key) => format!("connections of {} of count {}", joined(key), id.0),
        Effect::Open(Gate::SHUT) => "shuts the gates".to_owned(),
        Effect::Open(gate) => format!("opens gate {}", gate.0),
        Effect::Through(gate) => format!("gate {} is open", gate.0),
        Effect::Member { set, key, negated } => {
            format!("{} {}in changing set {}", joined(key), if *negated { "not " } else { "" }, set.0)
        }
    }
}

fn action_of(program: &Program, action: &Action) -> String {
    let chain = |index: &u16| program.names.get(usize::from(*index)).map_or("", String::as_str);
    match action {
        Action::Jump(to) => format!("jump {}", chain(to)),
        Action::Goto(to) => format!("goto {}", chain(to)),
        Action::Dnat(to) => format!("dnat {to:?}"),
        Action::Snat(to) => format!("snat {to:?}"),
        Action::Reject(how) => format!("reject {how:?}"),
        Action::Accept | Action::Drop | Action::Return => format!("{action:?}").to_lowercase(),
    }
}

fn wanted(program: &Program, field: Field, test: &Test) -> String {
    let range = |first: u32, last: u32| {
        if first == last {
            value(program, field, first)
        } else {
            format!("{}-{}", value(program, field, first), value(program, field, last))
        }
    };
    match test {
        Test::Equal(number) => value(program, field, *number),
        Test::Range(first, last) => range(*first, *last),
        Test::Masked { mask, value } => format!("& {mask:#x} = {value:#x}"),
        Test::In(ranges) if ranges.len() > SHOWN_MAX => format!("in {} ranges", ranges.len()),
        Test::In(ranges) => {
            let shown = ranges.iter().map(|&(first, last)| range(first, last)).collect::<Vec<_>>();
            format!("in {{ {} }}", shown.join(", "))
        }
    }
}

/// Octets of a station's address.
fn octets(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// A number as people read it.
fn value(program: &Program, field: Field, number: u32) -> String {
    match field {
        Field::InputPort | Field::OutputPort if number == NO_PORT => "none".to_owned(),
        Field::InputPort | Field::OutputPort => {
            let port = usize::try_from(number).ok().and_then(|at| program.interfaces.get(at));
            port.map_or("lo", String::as_str).to_owned()
        }
        Field::Source
        | Field::Destination
        | Field::OriginalSource
        | Field::OriginalDestination
        | Field::ReplySource
        | Field::ReplyDestination => Ipv4Addr::from_bits(number).to_string(),
        Field::SourceStation | Field::DestinationStation => octets(&number.to_be_bytes()[2..]),
        Field::SourceStationRest | Field::DestinationStationRest => octets(&number.to_be_bytes()),
        _ => number.to_string(),
    }
}

/// What a field is called.
pub(crate) fn name(field: Field) -> &'static str {
    match field {
        Field::InputPort => "iif",
        Field::OutputPort => "oif",
        Field::Source => "saddr",
        Field::Destination => "daddr",
        Field::Protocol => "protocol",
        Field::SourcePort => "sport",
        Field::DestinationPort => "dport",
        Field::IcmpType => "icmp type",
        Field::IcmpCode => "icmp code",
        Field::TcpFlags => "tcp flags",
        Field::Dscp => "dscp",
        Field::Ecn => "ecn",
        Field::Ttl => "ttl",
        Field::Length => "length",
        Field::Identification => "id",
        Field::State => "state",
        Field::Status => "status",
        Field::Mark => "mark",
        Field::ConnectionMark => "ct mark",
        Field::Direction => "direction",
        Field::OriginalSource => "original saddr",
        Field::OriginalDestination => "original daddr",
        Field::OriginalSourcePort => "original sport",
        Field::OriginalDestinationPort => "original dport",
        Field::ReplySource => "reply saddr",
        Field::ReplyDestination => "reply daddr",
        Field::ReplySourcePort => "reply sport",
        Field::ReplyDestinationPort => "reply dport",
        Field::SourceStation => "ether saddr",
        Field::SourceStationRest => "its rest",
        Field::DestinationStation => "ether daddr",
        Field::DestinationStationRest => "its rest",
    }
}
