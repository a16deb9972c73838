//! RFC 4787: UDP through a NAT. Each test is named after the requirement that it proves.

mod world;

use nat::{SourceNat, Unbound, protocol};
use std::collections::BTreeSet;
use world::*;

#[test]
fn req_1_one_internal_endpoint_keeps_one_external_endpoint() {
    let mut world = World::new();
    let from = end(CLIENT, 5000);
    let seen: BTreeSet<_> = [1, 2, 3]
        .into_iter()
        .flat_map(|host| [53, 1000, 65535].map(|port| end([198, 51, 100, host].into(), port)))
        .map(|to| world.udp_out(from, to).unwrap())
        .collect();
    assert_eq!(seen, BTreeSet::from([end(EXTERNAL, 5000)]));
    assert_eq!(world.nat.counts().sessions, 9);
    assert_eq!(world.nat.counts().mappings, 1);
    assert_eq!(world.nat.internal(protocol::UDP, end(EXTERNAL, 5000)), Some(from));
}

#[test]
fn req_1_holds_after_a_collision_too() {
    let mut world = World::new();
    let to = end(SERVER, 53);
    world.udp_out(end(CLIENT, 5000), to).unwrap();
    let external = world.udp_out(end(OTHER_CLIENT, 5000), to).unwrap();
    assert_ne!(external.port, 5000);
    for port in 1..100 {
        let again = world.udp_out(end(OTHER_CLIENT, 5000), end(SERVER, port));
        assert_eq!(again, Ok(external));
    }
}

#[test]
fn req_1_a_mapping_ends_with_its_last_session_and_its_port_returns() {
    let mut world = World::with(|config| config.external_ports = 5000..=5000);
    let to = end(SERVER, 53);
    world.udp_out(end(CLIENT, 5000), to).unwrap();
    world.wait(200);
    world.udp_out(end(CLIENT, 5000), end(SERVER, 54)).unwrap();
    world.wait(200);
    world.told().expire(10);
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (1, 1));
    let other = world.udp_out(end(OTHER_CLIENT, 5000), to);
    assert_eq!(other, Err(Dropped::Unbound(Unbound::PortsExhausted)));
    world.wait(200);
    // Nobody called `expire`: what has ended gives way by itself.
    let other = world.udp_out(end(OTHER_CLIENT, 5000), to);
    assert_eq!(other, Ok(end(EXTERNAL, 5000)));
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (1, 1));
}

#[test]
fn req_3_no_port_overloading() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for host in 1..=60 {
        for port in [600, 5000, 5001, 40_000] {
            // Each to a peer of its own: even then no port serves two.
            let from = end([10, 0, 1, host].into(), port);
            let external = world.udp_out(from, end([198, 51, 100, host].into(), 53)).unwrap();
            assert!(seen.insert(external), "{external} serves two");
            assert_eq!(external.port < 1024, port < 1024, "{port} became {external}");
            assert_ne!(external, FORWARD);
        }
    }
}

#[test]
fn req_3_the_port_of_a_forward_is_reserved() {
    let mut world = World::new();
    let external = world.udp_out(end(CLIENT, 8080), end(SERVER, 53)).unwrap();
    assert_ne!(external.port, 8080);
    assert_eq!(external.port % 2, 0);
}

#[test]
fn req_3_exhausted_ports_refuse_and_touch_nobody() {
    let mut world = World::with(|config| config.external_ports = 2000..=2099);
    let to = end(SERVER, 53);
    let mut flows = Vec::new();
    for port in 0..100 {
        let from = end(CLIENT, 3000 + port);
        flows.push((from, world.udp_out(from, to).unwrap()));
    }
    let late = world.udp_out(end(OTHER_CLIENT, 2000), to);
    assert_eq!(late, Err(Dropped::Unbound(Unbound::PortsExhausted)));
    for (from, external) in flows {
        assert_eq!(world.udp_in(to, external), Ok(from));
    }
    assert_eq!(world.nat.counts().sessions, 100);
}

#[test]
fn req_4_a_port_is_preserved_and_a_collision_keeps_its_parity() {
    for port in [600, 601, 31_000, 31_001] {
        let mut world = World::new();
        let to = end(SERVER, 53);
        assert_eq!(world.udp_out(end(CLIENT, port), to), Ok(end(EXTERNAL, port)));
        let second = world.udp_out(end(OTHER_CLIENT, port), to).unwrap();
        assert_ne!(second.port, port);
        assert_eq!(second.port % 2, port % 2);
    }
}

#[test]
fn req_5_an_idle_mapping_lives_300_seconds_and_not_302() {
    let mut world = World::new();
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    for part in [0, 1, 499_999, 999_999] {
        world.now += smoltcp::time::Duration::from_micros(part);
        world.udp_out(from, to).unwrap();
        let start = world.now;
        world.wait(300);
        assert!(world.is_live(protocol::UDP, from, to), "at 300 s, .{part}");
        world.now = start;
        world.wait(302);
        assert!(!world.is_live(protocol::UDP, from, to), "at 302 s, .{part}");
    }
}

#[test]
fn req_6_only_outbound_packets_refresh() {
    let mut world = World::new();
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let external = world.udp_out(from, to).unwrap();
    world.wait(200);
    // The first answer refreshes, as the session is established by it.
    world.udp_in(to, external).unwrap();
    for _ in 0..5 {
        world.wait(50);
        world.udp_in(to, external).unwrap();
    }
    world.wait(53);
    assert_eq!(world.udp_in(to, external), Err(Dropped::NoSession));

    world.udp_out(from, to).unwrap();
    for _ in 0..5 {
        world.wait(280);
        world.udp_out(from, to).unwrap();
    }
    world.wait(280);
    assert_eq!(world.udp_in(to, external), Ok(from));
}

#[test]
fn req_6a_inbound_packets_refresh_where_the_site_says_so() {
    let mut world = World::with(|config| config.inbound_refresh = true);
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let external = world.udp_out(from, to).unwrap();
    for _ in 0..5 {
        world.wait(280);
        world.udp_in(to, external).unwrap();
    }
}

#[test]
fn req_6_a_forward_is_refreshed_by_the_host_behind_it() {
    let mut world = World::new();
    let peer = end(SERVER, 7777);
    assert_eq!(world.udp_in(peer, FORWARD), Ok(FORWARDED));
    for _ in 0..3 {
        world.wait(280);
        assert_eq!(world.udp_out(FORWARDED, peer), Ok(FORWARD));
    }
    for _ in 0..3 {
        world.wait(99);
        world.udp_in(peer, FORWARD).unwrap();
    }
    world.wait(5);
    assert!(!world.is_live(protocol::UDP, peer, FORWARD));
}

#[test]
fn req_8_others_are_filtered() {
    let mut world = World::new();
    let external = world.udp_out(end(CLIENT, 5000), end(SERVER, 53)).unwrap();
    let wrong = [end(SERVER, 54), end(ROUTER, 53)];
    for from in wrong {
        assert_eq!(world.udp_in(from, external), Err(Dropped::NoSession));
    }
}

#[test]
fn req_9_hairpin_through_a_forward_shows_the_external_endpoint() {
    let mut world = World::new();
    let from = end(CLIENT, 5000);
    let left = world.cross(&udp(from, FORWARD, b"hairpin")).unwrap();
    judge(&left);
    assert_eq!(ends(&left), (end(EXTERNAL, 5000), FORWARDED));
    let left = world.cross(&udp(FORWARDED, end(EXTERNAL, 5000), b"back")).unwrap();
    judge(&left);
    assert_eq!(ends(&left), (FORWARD, from));
}

#[test]
fn req_11_one_burst_makes_one_mapping_and_a_session_each() {
    let mut world = World::new();
    for _ in 0..50 {
        world.udp_out(end(CLIENT, 5000), end(SERVER, 53)).unwrap();
    }
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (1, 1));
}

#[test]
fn req_12_an_error_neither_ends_nor_refreshes() {
    let mut world = World::new();
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let sent = world.cross(&udp(from, to, b"data")).unwrap();
    world.udp_in(to, end(EXTERNAL, 5000)).unwrap();
    for code in 0..16 {
        world.wait(10);
        for kind in [(3, code), (11, code), (12, code)] {
            world.cross(&error(ROUTER, EXTERNAL, kind, &sent)).unwrap();
        }
    }
    world.wait(140);
    assert!(world.is_live(protocol::UDP, from, to));
    world.wait(2);
    assert!(!world.is_live(protocol::UDP, from, to));
}

#[test]
fn the_table_is_never_larger_than_it_was_made() {
    let mut world = World::with(|config| config.sessions = 10);
    let from = end(CLIENT, 5000);
    for port in 1..=10 {
        let external = world.udp_out(from, end(SERVER, port)).unwrap();
        world.udp_in(end(SERVER, port), external).unwrap();
    }
    world.wait(1);
    for port in 1..=10 {
        world.udp_out(from, end(SERVER, port)).unwrap();
    }
    let full = world.udp_out(from, end(SERVER, 11));
    assert_eq!(full, Err(Dropped::Unbound(Unbound::TableFull)));
    world.wait(302);
    // What had expired makes room.
    world.udp_out(from, end(SERVER, 11)).unwrap();
    assert_eq!(world.nat.counts().sessions, 1);
}

#[test]
fn two_ways_to_one_server_cannot_share_a_tuple() {
    let mut world = World::new();
    let from = end(CLIENT, 5000);
    world.cross(&udp(from, FORWARD, b"by its external endpoint")).unwrap();
    let direct = world.cross(&udp(from, FORWARDED, b"and by its own"));
    assert_eq!(direct, Err(Dropped::Unbound(Unbound::Conflict)));
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (1, 1));
    // The refused one left nothing behind.
    world.wait(302);
    world.told().expire(10);
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
}

#[test]
fn a_new_mapping_and_a_static_source_cannot_share_a_tuple() {
    let mut world = World::new();
    let open = |world: &mut World, from, source| world.bind(0, &udp(from, end(SERVER, 53), b"x"), source);
    open(&mut world, end(CLIENT, 5000), SourceNat::Static(EXTERNAL)).unwrap();
    let second = open(&mut world, end(OTHER_CLIENT, 5000), SourceNat::Address(EXTERNAL));
    assert_eq!(second, Err(Unbound::Conflict.into()));
    assert_eq!(world.udp_in(end(SERVER, 53), end(EXTERNAL, 5000)), Ok(end(CLIENT, 5000)));
}

#[test]
fn a_packet_to_its_own_sender_opens_nothing() {
    let mut world = World::new();
    let from = end(CLIENT, 5000);
    let bound = world.bind(0, &udp(from, from, b"land"), SourceNat::None);
    assert_eq!(bound, Err(Unbound::Conflict.into()));
    assert_eq!(world.nat.counts().sessions, 0);
}
