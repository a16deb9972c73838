//! A packet in words: `iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 syn`.

use rules::{Candidate, State, Stations};
use smoltcp::wire::EthernetAddress;
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

/// What may be said of its connection; a segment that opens none is invalid by itself.
const STATES: [(&str, State); 2] = [("new", State::New), ("established", State::Established)];

/// What a packet may be written like.
pub const FORM: &str = "iif NAME ip SOURCE > DESTINATION, then tcp|udp|sctp|dccp|udplite [SOURCE >] PORT [FLAGS], icmp TYPE[/CODE] or proto N, \
                        then state S, length N, ttl N, tos N, id N or ether SENDER [> PORT] where they matter";

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
        stations: None,
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
                        .ok_or_else(|| {
                            format!("{name:?} is no state that a packet can be given: new, established")
                        })?
                        .1,
                );
            }
            "length" => packet.length = words.parse("a length in octets")?,
            "ttl" => packet.ttl = words.parse("a time to live")?,
            "tos" => packet.tos = words.parse("a number")?,
            "id" => packet.identification = words.parse("a number")?,
            "ether" => packet.stations = Some(words.stations()?),
            _ => return Err(format!("{word:?} was not expected")),
        }
    }
    if packet.input.is_none() || !has_addresses || packet.protocol == 0 {
        return Err("an interface, two addresses and a protocol are wanted".to_owned());
    }
    // RFC 9293 3.10.7.4: a segment without SYN opens nothing.
    let opens = packet.protocol != 6 || packet.tcp_flags & 0x17 == 0x02;
    packet.state = state.unwrap_or(if opens { State::New } else { State::Invalid });
    let least = HEADER + transport_length(packet.protocol);
    if usize::from(packet.length) < least {
        return Err(format!("a packet of this protocol has {least} octets at least"));
    }
    Ok(packet)
}

/// Octets of an IPv4 header without options (RFC 791 3.1).
const HEADER: usize = 20;

/// Octets of the header behind it.
fn transport_length(protocol: u8) -> usize {
    match protocol {
        6 => 20,
        1 | 17 | 136 => 8,
        33 | 132 => 12,
        _ => 0,
    }
}

/// The octets of a packet, its data zero; `flags` are those of TCP.
pub fn octets(packet: &Candidate, flags: u8) -> Vec<u8> {
    let mut octets = vec![0; packet.length.into()];
    let [high, low] = packet.length.to_be_bytes();
    let [id_high, id_low] = packet.identification.to_be_bytes();
    let mut header =
        vec![0x45, packet.tos, high, low, id_high, id_low, 0, 0, packet.ttl, packet.protocol, 0, 0];
    header.extend(packet.source.octets());
    header.extend(packet.destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut transport = Vec::new();
    if packet.has_ports {
        transport.extend(packet.source_port.to_be_bytes());
        transport.extend(packet.destination_port.to_be_bytes());
    }
    match (packet.protocol, packet.icmp) {
        // A header of five words (RFC 9293 3.1); each side begins with 1, and has sent nothing but a SYN.
        (6, _) => {
            let sequence = if flags & 2 == 0 { 2 } else { 1 };
            let acknowledged = if flags & 0x10 == 0 { 0 } else { 2 };
            transport.extend([0, 0, 0, sequence, 0, 0, 0, acknowledged, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        (17 | 136, _) => transport.extend((packet.length - 20).to_be_bytes()),
        // An identifier and a sequence number.
        (1, Some((kind, code))) => transport.extend([kind, code, 0, 0, 0, 1, 0, 1]),
        _ => {}
    }
    for (place, octet) in octets.iter_mut().zip(header.into_iter().chain(transport)) {
        *place = octet;
    }
    if packet.protocol == 1
        && let Some(message) = octets.get_mut(HEADER..)
    {
        let sum = checksum(message);
        message[2..4].copy_from_slice(&sum);
    }
    octets
}

/// Gives an ICMP message the identifier and sequence number of another one.
pub fn answer_query(message: &mut [u8], identifier: &[u8]) {
    message[4..8].copy_from_slice(identifier);
    message[2..4].fill(0);
    let sum = checksum(message);
    message[2..4].copy_from_slice(&sum);
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> [u8; 2] {
    let words =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()));
    let sum = words.fold(0u32, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    (!(sum as u16)).to_be_bytes()
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

    /// `sender [> port]`; a port that is not named is as it is.
    fn stations(&mut self) -> Result<Stations, String> {
        let EthernetAddress(source) = self.parse("an Ethernet address")?;
        let EthernetAddress(destination) = match self.0.next_if_eq(&">") {
            Some(_) => self.parse("an Ethernet address")?,
            None => EthernetAddress::BROADCAST,
        };
        Ok(Stations { source, destination })
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
            ("iif work ether 52:54", "\"52:54\" is not an Ethernet address"),
            ("iif work nonsense", "\"nonsense\" was not expected"),
            ("", "an interface, two addresses and a protocol are wanted"),
        ] {
            assert_eq!(read(text).unwrap_err(), told, "{text}");
        }
    }
}
