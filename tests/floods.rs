//! What a flood of one port does to the others: nothing.

use std::net::Ipv4Addr;
use std::ops::Range;

use smoltcp::time::Duration;
use tests::flags::SYN;
use tests::packet::{Packet, address};
use tests::{World, echo, site, tcp, udp};

const SERVER: &str = "198.51.100.9:53";

/// The uplink takes less than the clients' links.
fn small(port: usize, settings: &mut netback::wire::Settings) {
    if port == 0 {
        settings.mtu = 1400;
    }
}

/// Packets that come in by a port, more than its queue takes at once; what is sent then is forgotten.
fn flood(world: &mut World, port: &str, packets: impl Iterator<Item = Packet>) {
    for (n, packet) in packets.enumerate() {
        world.queue(port, packet);
        if n % 64 == 0 {
            world.pass(Duration::from_millis(1));
        }
    }
    world.settle();
    world.forget();
}

#[test]
fn own_icmp_strangers_do_not_silence_errors_to_clients() {
    let mut world = World::with(site::site(site::PLAN, site::RULES), small);
    let from = |n: u32| Ipv4Addr::from(0x3000_0000 | n.wrapping_mul(0x9e37_79b1) >> 4);
    let dying = (0..30_000).map(|n| udp((from(n), 999), "192.0.2.2:8080", b"x").ttl(1));
    flood(&mut world, "uplink", dying);
    world.answer("lab", udp("10.0.2.9:5001", SERVER, &[0; 1450]).dont_fragment());
    world.answer("lab", udp("10.0.2.9:5001", SERVER, b"x").ttl(1));
}

#[test]
fn own_icmp_a_client_does_not_silence_errors_to_another() {
    let plan = site::PLAN.replace("10.0.2.1/24", "10.2.0.1/16");
    let mut world = World::with(site::site(&plan, site::RULES), small);
    let from = |n: u32| Ipv4Addr::from(address("10.2.0.2").to_bits() + n);
    let dying = (0..20_000).map(|n| udp((from(n), 999), SERVER, b"x").ttl(1));
    flood(&mut world, "lab", dying);
    world.answer("work", udp("10.0.1.9:5001", SERVER, &[0; 1450]).dont_fragment());
    world.answer("work", udp("10.0.1.9:5001", SERVER, b"x").ttl(1));
}

#[test]
fn own_icmp_resets_do_not_silence_echo_replies() {
    let mut world = World::default();
    let from = address("10.0.2.9");
    let refused = (0..3000).map(|n| tcp((from, 1000 + n), "198.51.100.9:26", SYN, b""));
    flood(&mut world, "lab", refused);
    world.answer("work", echo("10.0.1.9", "10.0.1.1", 1, 1, b"x"));
    world.answer("lab", echo("10.0.2.9", "10.0.2.1", 1, 1, b"x"));
}

#[test]
fn a_client_that_scans_two_links_leaves_others_places_to_wait() {
    let mut world = World::default();
    for n in 30..70u8 {
        for (host, port) in [(Ipv4Addr::new(192, 0, 2, n), 53), (Ipv4Addr::new(10, 0, 2, n), 7000)] {
            world.silent.insert(host);
            world.queue("work", udp("10.0.1.7:5000", (host, port), b"x"));
        }
    }
    world.settle();
    world.cross("lab", "uplink", udp("10.0.2.9:5000", "192.0.2.200:53", b"x"));
}

/// A datagram of one client in two fragments, with 800 of another's 200 hosts between them.
fn survives(first: Range<usize>, second: Range<usize>, other: Range<usize>, sent: usize) {
    let plan = site::PLAN.replace("10.0.2.1/24", "10.2.0.1/16");
    let mut world = World::new(&plan, site::RULES);
    world.open_udp("10.0.1.9:5000", SERVER);
    let whole = udp("10.0.1.9:5000", SERVER, &[1; 100]).identification(7);
    world.send("work", whole.clone().fragment(first));
    let from = |n: u16| Ipv4Addr::from(address("10.2.0.2").to_bits() + u32::from(n % 200));
    let pieces =
        (0..800).map(|n| udp((from(n), 5000), SERVER, &[0; 100]).identification(n).fragment(other.clone()));
    flood(&mut world, "lab", pieces);
    world.send("work", whole.fragment(second));
    assert_eq!(world.sent("uplink").len(), sent);
}

#[test]
fn req_14_heads_of_one_client_do_not_end_a_datagram_of_another() {
    survives(0..48, 48..108, 0..48, 1);
}

#[test]
fn req_14_tails_of_one_client_do_not_end_a_datagram_of_another() {
    survives(48..108, 0..48, 48..96, 2);
}
