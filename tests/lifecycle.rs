//! Clients that go away and come back, and an uplink that gets another address.

use firewall::Dropped;
use rules::site::Prefix;
use smoltcp::time::Duration;
use tests::packet::address;
use tests::{Connection, World, echo, site, tcp, udp};

const SERVER: &str = "198.51.100.9:53";

#[test]
fn a_client_that_is_taken_away_leaves_no_session_and_its_ports_are_free_at_once() {
    let mut world = World::default();
    let stays = world.open_udp("10.0.2.9:6000", SERVER);
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    Connection::open(&mut world, "10.0.1.8:5000", "198.51.100.9:80");
    world.cross("uplink", "work", tcp("198.51.100.9:7", "192.0.2.2:8080", 2, b""));
    assert_eq!((world.occupancy().sessions, world.occupancy().mappings), (4, 3));
    assert!(world.datapath.remove_client(1));
    world.pass(Duration::from_millis(10));
    assert_eq!((world.occupancy().sessions, world.occupancy().mappings), (1, 1));
    // Its ports do not rest: another client has the same one.
    assert_eq!(world.open_udp("10.0.2.9:5000", SERVER), external);
    world.cross("uplink", "lab", udp(SERVER, stays, b"the other client does not notice"));
}

#[test]
fn nothing_is_forwarded_from_or_to_a_client_that_is_away_until_it_is_back() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    assert!(world.datapath.remove_client(1) && !world.datapath.remove_client(1));
    assert!(!world.datapath.restore_client(1), "what it had still ends");
    world.pass(Duration::from_millis(10));
    world.refuse("work", udp("10.0.1.7:5000", SERVER, b"x"), Dropped::PortDown);
    world.refuse("lab", udp("10.0.2.9:1", "10.0.1.7:7000", b"x"), Dropped::PortDown);
    world.refuse("uplink", tcp("198.51.100.9:7", "192.0.2.2:8080", 2, b""), Dropped::PortDown);
    assert_eq!(world.occupancy().sessions, 0);
    assert!(world.datapath.restore_client(1) && !world.datapath.restore_client(1));
    world.open_udp("10.0.1.7:5000", SERVER);
    world.cross("uplink", "work", tcp("198.51.100.9:7", "192.0.2.2:8080", 2, b""));
    // The uplink is no client.
    assert!(!world.datapath.remove_client(0) && !world.datapath.remove_client(3));
}

#[test]
fn a_removal_that_has_no_room_among_the_changes_under_way_changes_nothing() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    world.judges[0].own = [2, 3].map(|last| [192, 0, 2, last].into()).to_vec();
    let addresses = world.judges[0].own.clone();
    let mut others = addresses.iter().rev().cycle().take(1000);
    assert!(
        others.any(|&address| !world.datapath.renumber_uplink(Prefix { address, length: 24 }, None)),
        "changes are bounded"
    );
    assert!(!world.datapath.remove_client(1));
    // The client is not away.
    let before = world.drops("work", Dropped::PortDown);
    world.send("work", echo("10.0.1.7", "10.0.1.1", 7, 1, b"ping"));
    assert_eq!((world.drops("work", Dropped::PortDown), world.answered("work")), (before, 1));
}

#[test]
fn the_work_of_a_removal_is_spread_over_rounds_between_which_others_are_served() {
    let mut world = World::default();
    for port in 1024..3024 {
        world.send("work", udp(("10.0.1.7", port), SERVER, b"x"));
    }
    world.forget();
    assert!(world.datapath.remove_client(1));
    // The tables have 65 536 places each.
    let mut rounds = 0;
    while !world.datapath.restore_client(1) {
        world.queue("lab", udp("10.0.2.9:6000", SERVER, b"meanwhile"));
        let mut now = world.now();
        now += Duration::from_millis(10 * (rounds + 1));
        world.datapath.turn(now);
        rounds += 1;
    }
    world.collect();
    assert!((16..100).contains(&rounds), "{rounds}");
    assert_eq!((world.sent("uplink").len() as u64, world.occupancy().sessions), (rounds, 1));
}

#[test]
fn a_link_without_carrier_is_no_removal() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    world.wire("work").set(|settings| settings.up = false);
    world.pass_in_steps(10, 1);
    world.wire("work").set(|settings| settings.up = true);
    world.pass_in_steps(2, 1);
    let back = world.cross("uplink", "work", udp(SERVER, external, b"still there"));
    assert_eq!(back.to(), "10.0.1.7:5000".parse().unwrap());
}

/// The uplink gets this address, and who looks at its frames knows.
fn renumber(world: &mut World, to: &str, length: u8, gateway: &str) {
    world.judges[0].own = vec![address(to)];
    let prefix = Prefix { address: address(to), length };
    assert!(world.datapath.renumber_uplink(prefix, Some(address(gateway))));
    world.pass(Duration::from_millis(10));
}

#[test]
fn an_uplink_with_another_address_has_no_session_of_the_old_one_and_serves_at_the_new_one() {
    let mut world = World::default();
    let old = world.open_udp("10.0.1.7:5000", SERVER);
    let routed = udp("10.0.1.7:1", "10.0.2.9:7000", b"between clients");
    world.cross("work", "lab", &routed);
    renumber(&mut world, "203.0.113.7", 29, "203.0.113.1");
    assert_eq!(world.arps("uplink").last().unwrap().sender.1, address("203.0.113.7"), "it is announced");
    assert_eq!((world.occupancy().sessions, world.occupancy().mappings), (1, 0));
    world.refuse("uplink", udp(SERVER, old, b"late"), Dropped::NotOurs);
    world.cross("work", "lab", &routed);
    // Twice: the gateway's own address is asked for first.
    let seen = world.cross("work", "uplink", udp("10.0.1.7:5000", SERVER, b"again"));
    assert_eq!(
        (seen.source(), seen.station()),
        (address("203.0.113.7"), world.station(address("203.0.113.1")))
    );
    let back = world.cross("uplink", "work", udp(SERVER, seen.from(), b"back"));
    assert_eq!(back.to(), "10.0.1.7:5000".parse().unwrap());
    assert_eq!(world.answer("uplink", echo("198.51.100.9", "203.0.113.7", 1, 1, b"")).icmp(), (0, 0));
    // And back to the first one, all of whose ports are free.
    renumber(&mut world, "192.0.2.2", 24, "192.0.2.1");
    assert_eq!(world.open_udp("10.0.1.7:5000", SERVER), old);
}

#[test]
fn what_is_under_way_while_the_uplink_gets_another_address_does_not_leave_with_the_old_one() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    let whole = udp("10.0.1.7:5000", SERVER, &[1; 100]);
    world.send("work", whole.clone().fragment(0..48));
    assert_eq!(world.sent("uplink").len(), 1);
    // And one that waits for a neighbour.
    world.silent.insert(address("192.0.2.77"));
    world.send("work", udp("10.0.1.7:5001", "192.0.2.77:53", b"waits"));
    renumber(&mut world, "192.0.2.9", 24, "192.0.2.1");
    world.silent.clear();
    world.send("work", whole.fragment(48..108));
    world.pass_seconds(2);
    world.quiet();
    assert_eq!(
        (world.held("work"), world.drops("work", Dropped::PortDown)),
        (1, 1),
        "a tail waits for a head"
    );
    assert_eq!(world.open_udp("10.0.1.7:5000", SERVER).ip(), &address("192.0.2.9"));
}

#[test]
fn an_address_that_comes_back_before_all_of_it_is_gone_serves_again() {
    let mut world = World::default();
    let old = world.open_udp("10.0.1.7:5000", SERVER);
    world.judges[0].own.push(address("203.0.113.7"));
    let again = [("203.0.113.7", 29, "203.0.113.1"), ("192.0.2.2", 24, "192.0.2.1")];
    for (to, length, gateway) in [again, again].concat() {
        let prefix = Prefix { address: address(to), length };
        assert!(world.datapath.renumber_uplink(prefix, Some(address(gateway))));
        // Meanwhile somebody asks the static forward, and a client for a port.
        world.queue("uplink", udp(SERVER, (to, 8080), b"meanwhile"));
        world.queue("work", udp("10.0.1.7:6000", SERVER, b"meanwhile"));
        world.datapath.turn(world.now());
    }
    world.pass(Duration::from_millis(10));
    world.forget();
    world.refuse("uplink", udp(SERVER, old, b"late"), Dropped::Policy);
    assert_eq!(world.open_udp("10.0.1.7:5000", SERVER), old);
    assert_eq!(world.open_udp("10.0.1.7:6000", SERVER).port(), 6000);
    world.cross("uplink", "work", udp("198.51.100.7:1", "192.0.2.2:8080", b"forwarded"));
    let mappings = world.occupancy().mappings;
    assert_eq!(mappings, 2);
}

#[test]
fn req_7_an_uplink_whose_subnet_is_a_clients_too_leaves_the_client_side_working() {
    let mut world = World::default();
    renumber(&mut world, "10.0.2.200", 28, "10.0.2.193");
    // What both have is the client's; the gateway is reached by the uplink.
    let there = udp("10.0.1.7:1", "10.0.2.201:7000", b"x");
    world.cross("work", "lab", &there);
    world.cross("lab", "work", udp("10.0.2.201:7000", "10.0.1.7:1", b"back"));
    world.judges[0].hidden.retain(|prefix| !prefix.contains(address("10.0.2.200")));
    let seen = world.cross("work", "uplink", udp("10.0.1.7:5000", SERVER, b"x"));
    assert_eq!(seen.station(), world.station(address("10.0.2.193")));
}

#[test]
fn req_3_ports_of_static_forwards_are_reserved_at_a_new_address_too() {
    let rules = site::RULES.replace("ip daddr 192.0.2.2 udp dport 8080", "iifname \"uplink\" udp dport 8080");
    let mut world = World::new(site::PLAN, &rules);
    renumber(&mut world, "203.0.113.7", 29, "203.0.113.1");
    assert_ne!(world.open_udp("10.0.1.7:8080", SERVER).port(), 8080);
}
