//! Packets as the policy sees them: as they are, and as they will be.

use etherparse::{IpNumber, Ipv4Header};
use nat::{Direction, Endpoint, Packet, Session, Tuple, protocol};
use netback::ETHERNET_HEADER;
use rules::policy::OTHER_PORTS;
use rules::{Candidate, Connection, Endpoints, State, Stations};

use crate::icmp::Message;

/// The ports of a packet whose session has none, see [`OTHER_PORTS`]; `octets` begin with its header.
fn other_ports(packet: &Packet, octets: &[u8]) -> Option<(u16, u16)> {
    if packet.tuple().is_some() || !OTHER_PORTS.contains(&packet.protocol()) {
        return None;
    }
    let behind = octets.get(packet.header_len()..packet.total_len().into())?;
    let [a, b, c, d] = *behind.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// A packet as the policy sees it when it comes in, in this frame.
pub(crate) fn candidate(input: usize, frame: &[u8], packet: &Packet, state: State) -> Candidate {
    let tuple = packet.tuple().filter(|tuple| tuple.protocol() != protocol::ICMP);
    let ports = tuple.map(|tuple| (tuple.source().port, tuple.destination().port));
    let ports = ports.or_else(|| other_ports(packet, frame.get(ETHERNET_HEADER..)?));
    let station = |at: usize| frame.get(at..).and_then(|rest| rest.first_chunk()).copied();
    let mut candidate = Candidate {
        input: Some(input as u8),
        output: None,
        source: packet.source(),
        destination: packet.destination(),
        protocol: packet.protocol(),
        source_port: ports.map_or(0, |ports| ports.0),
        destination_port: ports.map_or(0, |ports| ports.1),
        has_ports: ports.is_some(),
        icmp: packet.icmp(),
        tcp_flags: packet.tcp_flags(),
        tos: packet.tos(),
        ttl: packet.ttl(),
        length: packet.total_len(),
        identification: packet.identification(),
        state,
        dnat: false,
        snat: false,
        mark: 0,
        stations: station(0).zip(station(6)).map(|(destination, source)| Stations { source, destination }),
        connection: None,
    };
    if state == State::New {
        candidate.connection = Some(Connection::opened(candidate.endpoints()));
    }
    candidate
}

/// A message of the appliance itself, as the policy sees it.
pub(crate) fn own(port: usize, message: &Message, state: State) -> Option<Candidate> {
    let (header, transport) = Ipv4Header::from_slice(&message.head).ok()?;
    let is_tcp = header.protocol == IpNumber::TCP;
    let word =
        |at: usize| transport.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u16::from_be_bytes);
    let port_at = |at: usize| word(at).filter(|_| is_tcp).unwrap_or(0);
    let is_icmp = header.protocol == IpNumber::ICMP && header.fragment_offset.value() == 0;
    Some(Candidate {
        input: None,
        output: Some(port as u8),
        source: header.source.into(),
        destination: header.destination.into(),
        protocol: header.protocol.0,
        source_port: port_at(0),
        destination_port: port_at(2),
        has_ports: is_tcp,
        icmp: word(0).filter(|_| is_icmp).map(|word| word.to_be_bytes().into()),
        tcp_flags: transport.get(13).copied().filter(|_| is_tcp).unwrap_or(0),
        tos: header.dscp.value() << 2 | header.ecn.value(),
        ttl: header.time_to_live,
        length: header.total_len,
        identification: header.identification,
        state,
        dnat: false,
        snat: false,
        mark: 0,
        stations: None,
        connection: None,
    })
}

/// The connection of what answers a packet of this tuple, which has no session here.
pub(crate) fn answered(tuple: &Tuple) -> Connection {
    let reply = Some(endpoints(&tuple.inverted()));
    Connection { mark: 0, direction: rules::Direction::Reply, original: endpoints(tuple), reply }
}

/// The connection of a session's packets.
pub(crate) fn connection(session: &Session, direction: Direction, mark: u32) -> Connection {
    let direction = match direction {
        Direction::Original => rules::Direction::Original,
        Direction::Reply => rules::Direction::Reply,
    };
    let (original, reply) = (endpoints(&session.original()), Some(endpoints(&session.reply())));
    Connection { mark, direction, original, reply }
}

fn endpoints(tuple: &Tuple) -> Endpoints {
    let (source, destination) = (tuple.source(), tuple.destination());
    let port = |endpoint: Endpoint| if tuple.protocol() == protocol::ICMP { 0 } else { endpoint.port };
    Endpoints {
        source: source.address,
        destination: destination.address,
        source_port: port(source),
        destination_port: port(destination),
    }
}

/// Later packets of a tuple, as far as they are known before they come.
pub(crate) fn foreseen(tuple: &Tuple, direction: Direction, state: State) -> Candidate {
    let icmp = (tuple.protocol() == protocol::ICMP).then(|| icmp_of(tuple, direction));
    let port = |endpoint: Endpoint| if icmp.is_some() { 0 } else { endpoint.port };
    Candidate {
        input: None,
        output: None,
        source: tuple.source().address,
        destination: tuple.destination().address,
        protocol: tuple.protocol(),
        source_port: port(tuple.source()),
        destination_port: port(tuple.destination()),
        has_ports: matches!(tuple.protocol(), protocol::TCP | protocol::UDP),
        icmp,
        tcp_flags: 0,
        tos: 0,
        ttl: 0,
        length: 0,
        identification: 0,
        state,
        dnat: false,
        snat: false,
        mark: 0,
        // Some, which are not known.
        stations: Some(Stations { source: [0; 6], destination: [0; 6] }),
        connection: None,
    }
}

/// Type and code of an ICMP session's packets: the query's, or those of its reply (RFC 792).
fn icmp_of(tuple: &Tuple, direction: Direction) -> (u8, u8) {
    match direction {
        Direction::Original => tuple.destination().port.to_be_bytes().into(),
        Direction::Reply => match tuple.source().port.to_be_bytes() {
            [8, code] => (0, code),
            [query, code] => (query.saturating_add(1), code),
        },
    }
}
