//! Packets just like one before: what was found for that one need not be looked for again, and what speaks of one
//! packet alone counts in each.

use std::net::SocketAddrV4;

use firewall::Dropped;
use rules::site::Prefix;
use smoltcp::time::Duration;
use tests::packet::address;
use tests::world::{frame, port_station};
use tests::{World, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";

/// A session of which many packets were seen in both directions, and its external endpoint.
fn open(world: &mut World, client: &str) -> SocketAddrV4 {
    let external = world.open_udp(client, SERVER);
    for _ in 0..4 {
        world.cross("work", "uplink", udp(client, SERVER, b"query"));
        world.cross("uplink", "work", udp(SERVER, external, b"answer"));
    }
    external
}

#[test]
fn what_speaks_of_one_packet_alone_counts_in_each() {
    let mut world = World::default();
    let external = open(&mut world, CLIENT);
    world.refuse("work", udp(CLIENT, SERVER, b"x").ttl(0), Dropped::TimeExceeded);
    assert_eq!(world.answer("uplink", udp(SERVER, external, b"x").ttl(1)).icmp(), (11, 0));
    let mut wrong = udp(CLIENT, SERVER, b"x").octets();
    wrong[10] ^= 1;
    world.refuse("work", wrong, Dropped::HeaderChecksum);
    let mut cut = udp(CLIENT, SERVER, b"cut short").octets();
    cut.truncate(30);
    world.refuse("work", cut, Dropped::Malformed);
    let whole = udp(CLIENT, SERVER, &[7; 1000]);
    world.send("work", whole.clone().fragment(0..504));
    world.send("work", whole.fragment(504..1008));
    assert_eq!(world.sent("uplink").len(), 2);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"and the next one"));
}

#[test]
fn another_port_or_station_takes_nothing_over() {
    let mut world = World::default();
    let external = open(&mut world, CLIENT);
    world.refuse("lab", udp(CLIENT, SERVER, b"x"), Dropped::Spoofed);
    world.refuse("uplink", udp(CLIENT, SERVER, b"x"), Dropped::Spoofed);
    world.refuse("work", udp(SERVER, external, b"x"), Dropped::Spoofed);
    let (port, packet) = (world.port("work"), udp(CLIENT, SERVER, b"x").octets());
    let (own, client) = (port_station(port), world.station(address("10.0.1.7")));
    let other = world.station(address("10.0.1.8"));
    world.refuse_frame("work", &frame(other, client, 0x800, &packet), Dropped::OtherStation);
    world.refuse_frame("work", &frame(own, own, 0x800, &packet), Dropped::BadStation);
    world.refuse_frame("uplink", &frame(own, client, 0x800, &packet), Dropped::OtherStation);
    world.send_frame("work", &frame(own, other, 0x800, &packet));
    world.only("uplink");
}

#[test]
fn a_session_that_ended_takes_what_was_found_with_it() {
    let mut world = World::default();
    let old = open(&mut world, CLIENT);
    world.pass_seconds(1000);
    assert_eq!(world.occupancy().sessions, 0);
    // Another one takes its place in the table.
    let new = open(&mut world, "10.0.1.8:6000");
    world.refuse("uplink", udp(SERVER, old, b"late"), Dropped::Policy);
    let again = world.cross("work", "uplink", udp(CLIENT, SERVER, b"again"));
    assert_ne!(again.from(), new);
    assert_eq!(world.occupancy().sessions, 2);
}

#[test]
fn a_client_that_is_taken_away_sends_and_gets_nothing_at_once() {
    let mut world = World::default();
    let external = open(&mut world, CLIENT);
    assert!(world.datapath.remove_client(1));
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::PortDown);
    world.refuse("uplink", udp(SERVER, external, b"x"), Dropped::PortDown);
}

#[test]
fn an_uplink_with_another_address_is_the_way_from_then_on() {
    let mut world = World::default();
    let old = open(&mut world, CLIENT);
    world.judges[0].own = vec![address("192.0.2.9")];
    let prefix = Prefix { address: address("192.0.2.9"), length: 24 };
    assert!(world.datapath.renumber_uplink(prefix, Some(address("192.0.2.1"))));
    world.pass(Duration::from_millis(20));
    world.forget();
    let new = world.cross("work", "uplink", udp(CLIENT, SERVER, b"again"));
    assert_eq!((*new.from().ip(), *old.ip()), (address("192.0.2.9"), address("192.0.2.2")));
}
