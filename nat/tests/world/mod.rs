//! A client, a server, the NAT between them; packets built and judged by etherparse.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod connection;

use core::net::Ipv4Addr;
use etherparse::{
    Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, Ipv4Options, TcpHeader, TcpOptionElement, UdpHeader,
};
use nat::{
    Binding, Checksum, Config, Direction, Endpoint, HEAD_MAX, Hit, Nat, Options, Packet, Refusal, Reserved,
    SourceNat, Timeouts, Translation, Tuple, Unbound, protocol,
};
use smoltcp::time::Instant;

pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
pub const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Port 8080 of the external address is this one, UDP and TCP.
pub const FORWARDED: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 2), 80);
pub const FORWARD: Endpoint = Endpoint::new(EXTERNAL, 8080);

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

pub fn end(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint::new(address, port)
}

/// Random numbers from a seed that the failing test prints.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, number: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(source, destination, number, payload, |_| {})
}

pub fn ipv4_with(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    number: u8,
    payload: &[u8],
    change: impl FnOnce(&mut Ipv4Header),
) -> Vec<u8> {
    let mut header = Ipv4Header {
        time_to_live: 64,
        protocol: IpNumber(number),
        source: source.octets(),
        destination: destination.octets(),
        identification: 0x1234,
        ..Ipv4Header::default()
    };
    change(&mut header);
    header.set_payload_len(payload.len()).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut octets = header.to_bytes().to_vec();
    octets.extend_from_slice(payload);
    octets
}

pub fn udp_segment(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    let mut header = UdpHeader::without_ipv4_checksum(source.port, destination.port, payload.len()).unwrap();
    let (from, to) = (source.address.octets(), destination.address.octets());
    header.checksum = header.calc_checksum_ipv4_raw(from, to, payload).unwrap();
    [&header.to_bytes(), payload].concat()
}

pub fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    let segment = udp_segment(source, destination, payload);
    ipv4(source.address, destination.address, protocol::UDP, &segment)
}

pub fn tcp_segment(
    source: Endpoint,
    destination: Endpoint,
    flags: u8,
    numbers: (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    tcp_segment_with((source, destination), flags, numbers, payload, |_| {})
}

fn tcp_segment_with(
    (source, destination): (Endpoint, Endpoint),
    flags: u8,
    numbers: (u32, u32),
    payload: &[u8],
    change: impl FnOnce(&mut TcpHeader),
) -> Vec<u8> {
    let mut header = TcpHeader::new(source.port, destination.port, numbers.0, 8192);
    header.acknowledgment_number = numbers.1;
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.ack = flags & ACK != 0;
    change(&mut header);
    let (from, to) = (source.address.octets(), destination.address.octets());
    header.checksum = header.calc_checksum_ipv4_raw(from, to, payload).unwrap();
    [&header.to_bytes(), payload].concat()
}

pub fn tcp(
    source: Endpoint,
    destination: Endpoint,
    flags: u8,
    numbers: (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let segment = tcp_segment(source, destination, flags, numbers, payload);
    ipv4(source.address, destination.address, protocol::TCP, &segment)
}

/// A segment with this window, and if the window has a scale, an offer to scale by it.
pub fn scaled_tcp(
    ends: (Endpoint, Endpoint),
    flags: u8,
    numbers: (u32, u32),
    (window, scale): (u16, Option<u8>),
    payload: &[u8],
) -> Vec<u8> {
    let segment = tcp_segment_with(ends, flags, numbers, payload, |header| {
        header.window_size = window;
        if let Some(scale) = scale {
            let options = [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::Noop];
            header.set_options(&[&options[..], &[TcpOptionElement::WindowScale(scale)]].concat()).unwrap();
        }
    });
    ipv4(ends.0.address, ends.1.address, protocol::TCP, &segment)
}

pub fn icmp_message(icmp_type: u8, code: u8, word: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let kind = Icmpv4Type::Unknown { type_u8: icmp_type, code_u8: code, bytes5to8: word };
    let header = Icmpv4Header::with_checksum(kind, payload);
    [&header.to_bytes(), payload].concat()
}

/// An ICMP query or reply; the sequence number is 1.
pub fn query(source: Ipv4Addr, destination: Ipv4Addr, icmp_type: u8, id: u16) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let message = icmp_message(icmp_type, 0, [a, b, 0, 1], b"payload of a query");
    ipv4(source, destination, protocol::ICMP, &message)
}

pub fn error(source: Ipv4Addr, destination: Ipv4Addr, kind: (u8, u8), quote: &[u8]) -> Vec<u8> {
    let message = icmp_message(kind.0, kind.1, [0, 0, 5, 0xdc], quote);
    ipv4(source, destination, protocol::ICMP, &message)
}

/// Checks every checksum that the packet carries.
pub fn judge(octets: &[u8]) {
    let (header, payload) = Ipv4Header::from_slice(octets).unwrap();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP");
    assert_eq!(usize::from(header.total_len), octets.len(), "total length");
    let (from, to) = (header.source, header.destination);
    match header.protocol.0 {
        protocol::UDP => {
            let (udp, data) = UdpHeader::from_slice(payload).unwrap();
            let right = udp.calc_checksum_ipv4_raw(from, to, data).unwrap();
            let right = if right == 0 { 0xffff } else { right };
            assert!(udp.checksum == 0 || udp.checksum == right, "UDP");
        }
        protocol::TCP => {
            let (tcp, data) = TcpHeader::from_slice(payload).unwrap();
            let right = tcp.calc_checksum_ipv4_raw(from, to, data).unwrap();
            assert_eq!(tcp.checksum, right, "TCP");
        }
        protocol::ICMP => {
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(payload);
            assert_eq!(sum.ones_complement(), 0, "ICMP");
        }
        _ => {}
    }
}

/// Source and destination, as the packet's headers have them.
pub fn ends(octets: &[u8]) -> (Endpoint, Endpoint) {
    let tuple = parse(octets).tuple().unwrap();
    (tuple.source(), tuple.destination())
}

pub fn parse(octets: &[u8]) -> Packet {
    Packet::parse(octets, Checksum::Complete).unwrap()
}

pub fn options(octets: &[u8]) -> Ipv4Options {
    octets.try_into().unwrap()
}

/// Why a packet did not cross.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    NoSession,
    Refused,
    Unbound(Unbound),
}

/// The head of a translated packet.
pub fn head(packet: &Packet, translation: Translation) -> Vec<u8> {
    let mut head = [0; HEAD_MAX];
    packet.rewrite(&mut head, translation).to_vec()
}

/// Clients in 10/8 may open anything and are hidden behind [`EXTERNAL`]; others may use the
/// forward only.
pub struct World {
    pub nat: Nat,
    pub now: Instant,
    pickup: bool,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config<'_>)) -> Self {
        Self::with_both(change, |_| {})
    }

    pub fn optional(change: impl FnOnce(&mut Options)) -> Self {
        Self::with_both(|_| {}, change)
    }

    pub fn with_both(change: impl FnOnce(&mut Config<'_>), opt: impl FnOnce(&mut Options)) -> Self {
        let mut config = Config {
            sessions: 4096,
            external: &[EXTERNAL],
            external_ports: 1024..=65535,
            timeouts: Timeouts::default(),
            inbound_refresh: false,
        };
        change(&mut config);
        let Endpoint { address, port } = FORWARD;
        let forwards =
            [protocol::UDP, protocol::TCP].map(|protocol| Reserved { protocol, address, ports: port..=port });
        let mut options = Options { tcp_windows: true, ..Options::default() };
        opt(&mut options);
        let nat = Nat::with_options(&config, &forwards, [17, 4], options.clone());
        Self { nat, now: Instant::from_secs(1000), pickup: options.pickup }
    }

    pub fn wait(&mut self, seconds: i64) {
        self.now = Instant::from_micros(self.now.total_micros() + seconds * 1_000_000);
    }

    /// The translator, told what time it is.
    pub fn told(&mut self) -> &mut Nat {
        self.nat.advance_to(self.now);
        &mut self.nat
    }

    /// The octets that leave when these arrive.
    pub fn cross(&mut self, octets: &[u8]) -> Result<Vec<u8>, Dropped> {
        let packet = parse(octets);
        let payload = &octets[packet.head_len()..usize::from(packet.total_len())];
        let (hit, is_error) = match packet.embedded() {
            Some(embedded) => {
                let outer = packet.destination();
                (self.told().lookup_error(embedded, outer), true)
            }
            None => {
                let tuple = packet.tuple().ok_or(Dropped::NoSession)?;
                (self.told().lookup(&tuple), false)
            }
        };
        let hit = match hit {
            Some(hit) => {
                let admitted = self.told().admit(hit, &packet);
                admitted.map_err(|_| Dropped::Refused)?;
                hit
            }
            None if is_error => return Err(Dropped::NoSession),
            None => self.open(&packet)?,
        };
        let head = head(&packet, self.nat.translation(hit));
        assert_eq!(head.len(), packet.head_len());
        Ok([&head, payload].concat())
    }

    fn open(&mut self, packet: &Packet) -> Result<Hit, Dropped> {
        let original = packet.tuple().ok_or(Dropped::NoSession)?;
        let is_client = original.source().address.octets()[0] == 10;
        let is_forward = original.destination() == FORWARD && original.protocol() != protocol::ICMP;
        let inbound = self.nat.inbound(&original, is_client);
        if !is_client && !is_forward && inbound.is_none() || !packet.opens() && !self.pickup {
            return Err(Dropped::NoSession);
        }
        let binding = Binding {
            original,
            destination: if is_forward { FORWARDED } else { inbound.unwrap_or(original.destination()) },
            source: match is_client {
                true => SourceNat::Address(EXTERNAL),
                false => SourceNat::None,
            },
            residue: [1, 2],
        };
        let bound = self.told().bind(binding, packet);
        bound.map_err(Dropped::Unbound)
    }

    /// A session that a client's packet opens, whatever the world's rules.
    pub fn bind(&mut self, client: u8, octets: &[u8], source: SourceNat) -> Result<Hit, Refusal> {
        let destination = parse(octets).tuple_with(true).unwrap().destination();
        self.bind_to(client, octets, destination, source)
    }

    /// The same with this destination behind us.
    pub fn bind_to(
        &mut self,
        client: u8,
        octets: &[u8],
        destination: Endpoint,
        source: SourceNat,
    ) -> Result<Hit, Refusal> {
        let packet = parse(octets);
        let original = packet.tuple_with(true).unwrap();
        self.told().bind_for(client, Binding { original, destination, source, residue: [0; 2] }, &packet)
    }

    /// The external endpoint that a client's UDP packet leaves with.
    pub fn udp_out(&mut self, from: Endpoint, to: Endpoint) -> Result<Endpoint, Dropped> {
        let left = self.cross(&udp(from, to, b"out"))?;
        judge(&left);
        assert_eq!(ends(&left).1, to);
        Ok(ends(&left).0)
    }

    /// The internal endpoint that an answer arrives at.
    pub fn udp_in(&mut self, from: Endpoint, to: Endpoint) -> Result<Endpoint, Dropped> {
        let left = self.cross(&udp(from, to, b"in"))?;
        judge(&left);
        Ok(ends(&left).1)
    }

    /// Whether the session of this tuple is in force.
    pub fn is_live(&mut self, number: u8, source: Endpoint, destination: Endpoint) -> bool {
        let tuple = Tuple::new(number, source, destination);
        self.told().lookup(&tuple).is_some()
    }

    /// Seconds that the session of this tuple has left.
    pub fn remaining(&mut self, number: u8, source: Endpoint, destination: Endpoint) -> u32 {
        let hit = self.told().lookup(&Tuple::new(number, source, destination));
        hit.map_or(0, |hit| self.nat.remaining(hit.session))
    }

    /// A TCP connection after its handshake; the client's external endpoint.
    pub fn connect(&mut self, from: Endpoint, to: Endpoint) -> Endpoint {
        let left = self.cross(&tcp(from, to, SYN, (100, 0), &[])).unwrap();
        let external = ends(&left).0;
        self.cross(&tcp(to, external, SYN | ACK, (500, 101), &[])).unwrap();
        self.cross(&tcp(from, to, ACK, (101, 501), &[])).unwrap();
        external
    }
}

/// The direction names, for brevity.
pub const BOTH: [Direction; 2] = [Direction::Original, Direction::Reply];
