//! One packet of a set, in the words of `weir check --packet`, and the rules that it meets.

use std::net::Ipv4Addr;

use rules::RuleId;
use rules::table::Field;

use super::piece::Piece;
use super::walk::End;
use super::world::{ICMP, TCP, UDP};
use crate::program::Program;

/// The flags of TCP, from the lowest bit on.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// A packet of the set.
pub(super) fn packet(piece: &Piece, program: &Program) -> String {
    let space = &piece.arrived;
    let value = |field: Field, wanted: u32| {
        let values = space.values(field).map_or(&[][..], |values| &values[..]);
        let holds = values.iter().any(|&(first, last)| (first..=last).contains(&wanted));
        if holds { wanted } else { values.first().map_or(0, |&(first, _)| first) }
    };
    let interface =
        usize::try_from(value(Field::InputPort, 0)).ok().and_then(|at| program.interfaces.get(at));
    let address = |field, wanted| Ipv4Addr::from_bits(value(field, wanted));
    let mut words = format!(
        "iif {} ip {} > {}",
        interface.map_or("", String::as_str),
        address(Field::Source, 0x0101_0101),
        address(Field::Destination, 0x0101_0101),
    );
    let protocol = value(Field::Protocol, 50);
    let ports = format!("{} > {}", value(Field::SourcePort, 40_000), value(Field::DestinationPort, 40_000));
    words += &match protocol {
        TCP => {
            let flags = value(Field::TcpFlags, 2);
            let names =
                FLAGS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| *name);
            format!(" tcp {ports} {}", names.collect::<Vec<_>>().join(","))
        }
        UDP => format!(" udp {ports}"),
        ICMP => format!(" icmp {}/{}", value(Field::IcmpType, 8), value(Field::IcmpCode, 0)),
        other => format!(" proto {other}"),
    };
    let usual = [("ttl", Field::Ttl, 64), ("length", Field::Length, 60), ("id", Field::Identification, 1)];
    for (name, field, wanted) in usual {
        let found = value(field, wanted);
        if found != wanted {
            words += &format!(" {name} {found}");
        }
    }
    let tos = value(Field::Dscp, 0) << 2 | value(Field::Ecn, 0);
    if tos != 0 {
        words += &format!(" tos {tos}");
    }
    let part = |field: Field| value(field, 0);
    let sender = station(part(Field::SourceStation), part(Field::SourceStationRest));
    let receiver = station(part(Field::DestinationStation), part(Field::DestinationStationRest));
    match (reads(program, Field::SourceStation), reads(program, Field::DestinationStation)) {
        (_, true) => words += &format!(" ether {sender} > {receiver}"),
        (true, false) => words += &format!(" ether {sender}"),
        (false, false) => {}
    }
    words
}

/// The address of a station, from its first two octets and the other four.
fn station(upper: u32, lower: u32) -> String {
    let ([.., a, b], [c, d, e, f]) = (upper.to_be_bytes(), lower.to_be_bytes());
    [a, b, c, d, e, f].map(|octet| format!("{octet:02x}")).join(":")
}

/// Whether a rule looks at a field.
fn reads(program: &Program, field: Field) -> bool {
    program.chains.iter().flatten().flat_map(|rule| &rule.steps).any(|step| step.fields().contains(&field))
}

/// The rules that the packets meet, and where that ends.
pub(super) fn way(piece: &Piece, end: End, program: &Program) -> String {
    let mut met = piece.way();
    if let End::Dropped(by) = end
        && met.last() != Some(&by)
    {
        met.push(by);
    }
    let way = met.into_iter().map(|rule| place(rule, program)).collect::<Vec<_>>().join(", ");
    let end = match (end, piece.output) {
        (End::Passed, Some(port)) => {
            let name = program.interfaces.get(usize::from(port)).map_or("", String::as_str);
            format!("out by {name}")
        }
        (End::Delivered, _) => "to the appliance".to_owned(),
        _ => String::new(),
    };
    match (way.is_empty(), end.is_empty()) {
        (true, _) => format!("it meets no rule{}{end}", if end.is_empty() { "" } else { ", " }),
        (false, true) => format!("its way: {way}"),
        (false, false) => format!("its way: {way}, {end}"),
    }
}

fn place(rule: RuleId, program: &Program) -> String {
    let line = program.locations.get(usize::from(rule.0)).copied().unwrap_or(0);
    let (file, line) = program.place(line);
    format!("{}:{line}", program.files.get(file).map_or("", |(_, file)| file.as_str()))
}
