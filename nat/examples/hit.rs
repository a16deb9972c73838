//! Translates one packet of a known session over and over: the path that nearly all packets take.
//!
//! ```text
//! cargo build --release -p nat --example hit
//! for n in 1000 101000; do valgrind --tool=callgrind target/release/examples/hit udp $n; done
//! ```
//! The difference of the two runs' instructions, divided by the difference of their counts, is the
//! cost of a packet; `tcp` in place of `udp` gives that of a segment.

use core::net::Ipv4Addr;
use nat::{Binding, Checksum, Config, Endpoint, Head, Nat, Options, Packet, SourceNat, Timeouts, protocol};
use smoltcp::time::Instant;
use std::hint::black_box;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A packet of 10.0.0.7:5000 to 198.51.100.53:53 with this transport header; checksums of its
/// transport do not matter here.
fn packet(number: u8, transport: &[u8]) -> Vec<u8> {
    let total = (20 + transport.len()) as u8;
    let mut octets = vec![0x45, 0, 0, total, 0, 1, 0x40, 0, 64, number, 0, 0];
    octets.extend_from_slice(&[10, 0, 0, 7, 198, 51, 100, 53]);
    let checksum = !nat::checksum::sum(&octets);
    octets[10..12].copy_from_slice(&checksum.to_ne_bytes());
    octets.extend_from_slice(transport);
    octets
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let is_tcp = arguments.next().is_some_and(|name| name == "tcp");
    let rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000u32);
    let config = Config {
        sessions: 65536,
        external: &[EXTERNAL],
        external_ports: 1024..=65535,
        timeouts: Timeouts::default(),
        inbound_refresh: false,
    };
    let options = Options { tcp_windows: true, pickup: true, ..Options::default() };
    let mut nat = Nat::with_options(&config, &[], [1, 2], options);
    let now = Instant::from_secs(1);
    let udp = [0x13, 0x88, 0, 53, 0, 16, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8];
    // In the middle of a connection, where nearly all segments are.
    let tcp = [0x13, 0x88, 0, 53, 0, 0, 0, 1, 0, 0, 0, 5, 0x50, 0x10, 0x20, 0, 1, 2, 0, 0];
    let octets = match is_tcp {
        true => packet(protocol::TCP, &tcp),
        false => packet(protocol::UDP, &udp),
    };
    let opening = Packet::parse(&octets, Checksum::Complete).expect("a packet");
    let original = opening.tuple().expect("a tuple");
    let binding = Binding {
        original,
        destination: original.destination,
        source: SourceNat::Address(Endpoint::new(EXTERNAL, 0).address),
        residue: [0; 2],
    };
    nat.bind(binding, &opening, now).expect("room for one session");
    // As the datapath has them: made once, filled for every packet.
    let (mut packet, mut head) = (Packet::EMPTY, Head::EMPTY);
    for _ in 0..rounds {
        let octets = black_box(&octets[..]);
        packet.read(octets, Checksum::Complete).expect("a packet");
        let tuple = packet.tuple().expect("a tuple");
        let hit = nat.lookup(&tuple, black_box(now)).expect("a session");
        nat.admit(hit, &packet, black_box(now)).expect("a good segment");
        packet.rewrite_to(&mut head, &nat.translation(hit));
        black_box(head.as_slice());
    }
}
