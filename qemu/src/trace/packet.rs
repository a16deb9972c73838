//! A packet in words: `iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 syn`.

use rules::{Candidate, Connection, State};
use std::net::Ipv4Addr;

/// The source port of a packet that names none.
const SOURCE_PORT: u16 = 40_000;

/// The flags of TCP (RFC 9293 3.1).
const FLAGS: [(&str, u8); 8] =
    [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ece", 64), ("cwr", 128)];

/// ICMP messages by name (RFC 792).
const ICMP: [(&str, (u8, u8)); 5] = [
    ("echo-request", (8, 0)),
    ("echo-reply", (0, 0)),
    ("destination-unreachable", (3, 1)),
    ("time-exceeded", (11, 0)),
    ("timestamp-request", (13, 0)),
];

const STATES: [(&str, State); 4] = [
    ("new", State::New),
    ("established", State::Established),
    ("related", State::Related),
    ("invalid", State::Invalid),
];

/// What a packet may be written like.
pub const FORM: &str = "iif NAME ip SOURCE > DESTINATION, then tcp|udp|sctp|dccp|udplite [SOURCE >] PORT [FLAGS], icmp TYPE[/CODE] or proto N, \
                        then state S, length N, ttl N, tos N or id N where they matter";

/// Reads a packet; `port` finds the number of an interface.
///
/// # Errors
/// What was expected where, in words.
pub fn parse(text: &str, port: impl Fn(&str) -> Option<u8>) -> Result<Candidate, String> {
    let spaced = text.replace('>', " > ");
    let mut words = Words(spaced.split_whitespace().peekable());
    let mut packet = Candidate {
        input: None,
        output: None,
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
        protocol: 0,
        source_port: 0,
        destination_port: 0,
        has_ports: false,
        icmp: None,
        tcp_flags: 0,
        tos: 0,
        ttl: 64,
        length: 60,
        identification: 1,
        state: State::New,
        dnat: false,
        snat: false,
        mark: 0,
        connection: None,
    };
    let mut has_addresses = false;
    let mut state = None;
    while let Some(word) = words.0.next() {
        match word {
            "iif" | "iifname" => {
                let name = words.next("an interface")?;
                let name = name.trim_matches('"');
                packet.input = Some(port(name).ok_or_else(|| format!("no interface is named {name:?}"))?);
            }
            "ip" => {
                packet.source = words.parse("a source address")?;
                words.wants(">")?;
                packet.destination = words.parse("a destination address")?;
                has_addresses = true;
            }
            "tcp" => {
                words.ports(6, &mut packet)?;
                packet.tcp_flags = words.flags().unwrap_or(0x02);
            }
            "udp" => words.ports(17, &mut packet)?,
            "dccp" => words.ports(33, &mut packet)?,
            "sctp" => words.ports(132, &mut packet)?,
            "udplite" => words.ports(136, &mut packet)?,
            "icmp" => {
                packet.protocol = 1;
                packet.icmp = Some(icmp(words.next("a type, such as echo-request or 3/4")?)?);
            }
            "proto" => packet.protocol = words.parse("a protocol number")?,
            "state" => {
                let name = words.next("a state")?;
                let known = STATES.iter().find(|(known, _)| *known == name);
                state = Some(
                    known
                        .ok_or_else(|| format!("{name:?} is no state: new, established, related, invalid"))?
                        .1,
                );
            }
            "length" => packet.length = words.parse("a length in octets")?,
            "ttl" => packet.ttl = words.parse("a time to live")?,
            "tos" => packet.tos = words.parse("a number")?,
            "id" => packet.identification = words.parse("a number")?,
            _ => return Err(format!("{word:?} was not expected")),
        }
    }
    if packet.input.is_none() || !has_addresses || packet.protocol == 0 {
        return Err("an interface, two addresses and a protocol are wanted".to_owned());
    }
    // RFC 9293 3.10.7.4: a segment without SYN opens nothing.
    let opens = packet.protocol != 6 || packet.tcp_flags & 0x17 == 0x02;
    packet.state = state.unwrap_or(if opens { State::New } else { State::Invalid });
    if packet.state != State::Invalid {
        packet.connection = Some(Connection::opened(packet.endpoints()));
    }
    Ok(packet)
}

struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn next(&mut self, wanted: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{wanted} is missing at the end"))
    }

    fn wants(&mut self, word: &str) -> Result<(), String> {
        match self.next(&format!("{word:?}"))? {
            found if found == word => Ok(()),
            found => Err(format!("expected {word:?}, found {found:?}")),
        }
    }

    fn parse<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, String> {
        let word = self.next(wanted)?;
        word.parse().map_err(|_| format!("{word:?} is not {wanted}"))
    }

    /// `[source >] destination`
    fn ports(&mut self, protocol: u8, packet: &mut Candidate) -> Result<(), String> {
        (packet.protocol, packet.source_port, packet.has_ports) = (protocol, SOURCE_PORT, true);
        packet.destination_port = self.parse("a port")?;
        if self.0.next_if_eq(&">").is_some() {
            packet.source_port = packet.destination_port;
            packet.destination_port = self.parse("a port")?;
        }
        Ok(())
    }

    /// `syn,ack` or `syn ack`, if there are flags.
    fn flags(&mut self) -> Option<u8> {
        let mut flags = None;
        let bits = |word: &str| {
            let bit = |name: &str| FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit);
            word.split([',', '|']).map(bit).try_fold(0, |all, bit| bit.map(|bit| all | bit))
        };
        while let Some(more) = self.0.peek().and_then(|word| bits(word)) {
            self.0.next();
            flags = Some(flags.unwrap_or(0) | more);
        }
        flags
    }
}

/// `echo-request`, `3` or `3/4`
fn icmp(word: &str) -> Result<(u8, u8), String> {
    if let Some((_, message)) = ICMP.iter().find(|(name, _)| *name == word) {
        return Ok(*message);
    }
    let (kind, code) = word.split_once('/').unwrap_or((word, "0"));
    match (kind.parse(), code.parse()) {
        (Ok(kind), Ok(code)) => Ok((kind, code)),
        _ => Err(format!("{word:?} is no ICMP type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Candidate, String> {
        parse(text, |name| ["uplink", "work"].iter().position(|own| *own == name).map(|at| at as u8))
    }

    #[test]
    fn a_packet_in_words() {
        let packet = read("iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 syn").unwrap();
        assert_eq!((packet.input, packet.source_port, packet.destination_port), (Some(1), 40_000, 443));
        assert_eq!((packet.tcp_flags, packet.state, packet.protocol), (2, State::New, 6));
        let packet =
            read("iif uplink ip 1.1.1.1>10.0.1.2 udp 53>5 length 99 ttl 3 state established").unwrap();
        assert_eq!((packet.source_port, packet.destination_port, packet.length, packet.ttl), (53, 5, 99, 3));
        assert_eq!(packet.state, State::Established);
        assert_eq!(read("iif work ip 1.1.1.1 > 1.1.1.2 icmp 3/4").unwrap().icmp, Some((3, 4)));
        assert_eq!(read("iif work ip 1.1.1.1 > 1.1.1.2 tcp 5 syn,ack").unwrap().state, State::Invalid);
    }

    #[test]
    fn what_is_wrong_with_one() {
        for (text, told) in [
            ("iif lab ip 1.1.1.1 > 1.1.1.2 udp 5", "no interface is named \"lab\""),
            ("ip 1.1.1.1 1.1.1.2", "expected \">\", found \"1.1.1.2\""),
            ("iif work ip 1.1.1.1 > 1.1.1 udp 5", "\"1.1.1\" is not a destination address"),
            ("iif work ip 1.1.1.1 > 1.1.1.2 udp", "a port is missing at the end"),
            ("iif work ip 1.1.1.1 > 1.1.1.2 udp 70000", "\"70000\" is not a port"),
            ("iif work ip 1.1.1.1 > 1.1.1.2", "an interface, two addresses and a protocol are wanted"),
            ("iif work nonsense", "\"nonsense\" was not expected"),
            ("", "an interface, two addresses and a protocol are wanted"),
        ] {
            assert_eq!(read(text).unwrap_err(), told, "{text}");
        }
    }
}
