//! The packets that go through: IPv4 datagrams of 64 octets, checksums right.

use core::net::Ipv4Addr;

use nat::{Endpoint, protocol};

/// A datagram in its buffer.
pub type Octets = [u8; 64];

/// The address that clients are hidden behind.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A generator of numbers (splitmix64): which flow is next.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((u128::from(z ^ z >> 29) * bound as u128) >> 64) as usize
    }
}

/// The transport of a flow's packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
    Echo,
}

/// The client's endpoint of a flow: 250 clients, one port after the other.
fn client(flow: usize) -> Endpoint {
    let host = (flow % 250) as u8 + 1;
    Endpoint::new(Ipv4Addr::new(10, 0, 0, host), 1024 + (flow / 250) as u16)
}

fn server(flow: usize) -> Endpoint {
    let [.., a, b] = (flow as u32).wrapping_mul(0x9e37).to_be_bytes();
    Endpoint::new(Ipv4Addr::new(198, 51, a, b | 1), 443)
}

/// The packet that a client sends in a flow.
pub fn outbound(kind: Kind, flow: usize) -> Octets {
    let (from, to) = (client(flow), server(flow));
    let mut octets = [0x5a; 64];
    octets[..12].copy_from_slice(&[0x45, 0, 0, 64, 0, 1, 0x40, 0, 64, 0, 0, 0]);
    octets[12..16].copy_from_slice(&from.address.octets());
    octets[16..20].copy_from_slice(&to.address.octets());
    octets[20..22].copy_from_slice(&from.port.to_be_bytes());
    octets[22..24].copy_from_slice(&to.port.to_be_bytes());
    match kind {
        Kind::Udp => {
            octets[9] = protocol::UDP;
            octets[24..28].copy_from_slice(&[0, 44, 0, 0]);
            seal(&mut octets, 26);
        }
        Kind::Tcp => {
            // In the middle of a connection, where nearly all segments are.
            octets[9] = protocol::TCP;
            octets[24..40].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 5, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
            seal(&mut octets, 36);
        }
        Kind::Echo => {
            octets[9] = protocol::ICMP;
            octets[20..28].copy_from_slice(&[8, 0, 0, 0, 0, 0, 0, 1]);
            octets[24..26].copy_from_slice(&from.port.to_be_bytes());
            seal(&mut octets, 22);
        }
    }
    octets
}

/// The options of a SYN, as Linux sends them: MSS, SACK permitted, timestamps, a window scale of 7.
const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// The segments of a connection that carries nothing: which are answers, sequence number,
/// acknowledgement and control bits.
const STEPS: [(bool, u8, u8, u8); 6] = [
    (false, 10, 0, 0x02),
    (true, 50, 11, 0x12),
    (false, 11, 51, 0x10),
    (false, 11, 51, 0x11),
    (true, 51, 12, 0x11),
    (false, 12, 52, 0x10),
];

/// A segment of a flow's connection as a client sends it, or the server if the SYN left like this.
pub fn segment(flow: usize, step: usize, left: &[u8]) -> Octets {
    let (is_answer, sequence, acknowledgement, control) = STEPS[step];
    let mut octets = outbound(Kind::Tcp, flow);
    if is_answer {
        octets[12..16].copy_from_slice(&left[16..20]);
        octets[16..20].copy_from_slice(&left[12..16]);
        octets[20..22].copy_from_slice(&left[22..24]);
        octets[22..24].copy_from_slice(&left[20..22]);
    }
    octets[3] = 40;
    octets[24..34].copy_from_slice(&[0, 0, 0, sequence, 0, 0, 0, acknowledgement, 0x50, control]);
    if control & 0x02 != 0 {
        (octets[3], octets[32]) = (60, 0xa0);
        octets[40..60].copy_from_slice(&OPTIONS);
    }
    octets[10..12].fill(0);
    octets[36..38].fill(0);
    seal(&mut octets, 36);
    octets
}

/// An error about a packet as it left, from a router on the way.
pub fn error(left: &[u8]) -> Octets {
    let mut octets = [0; 64];
    octets[..16].copy_from_slice(&[0x45, 0, 0, 56, 0, 1, 0x40, 0, 60, 1, 0, 0, 192, 0, 2, 254]);
    octets[16..20].copy_from_slice(&left[12..16]);
    octets[20..28].copy_from_slice(&[3, 1, 0, 0, 0, 0, 0, 0]);
    octets[28..56].copy_from_slice(&left[..28]);
    seal(&mut octets, 22);
    octets
}

/// Writes both checksums; `at` is the place of the transport's.
fn seal(octets: &mut Octets, at: usize) {
    let length = usize::from(u16::from_be_bytes([octets[2], octets[3]]));
    let header = !nat::checksum::sum(&octets[..20]);
    octets[10..12].copy_from_slice(&header.to_ne_bytes());
    let pseudo = match octets[9] {
        protocol::ICMP => 0,
        number => {
            let [high, low] = ((length - 20) as u16).to_be_bytes();
            nat::checksum::sum(&[&octets[12..20], &[0, number, high, low]].concat())
        }
    };
    let sum = u32::from(nat::checksum::sum(&octets[20..length])) + u32::from(pseudo);
    octets[at..at + 2].copy_from_slice(&(!((sum >> 16) + (sum & 0xffff)) as u16).to_ne_bytes());
}

/// Whether both checksums are right.
pub fn is_right(octets: &Octets) -> bool {
    let mut sealed = *octets;
    let at = match octets[9] {
        protocol::UDP => 26,
        protocol::TCP => 36,
        _ => 22,
    };
    sealed[10..12].fill(0);
    sealed[at..at + 2].fill(0);
    seal(&mut sealed, at);
    sealed == *octets
}
