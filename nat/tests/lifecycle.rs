//! Clients and addresses that come and go, and clocks that jump.

mod world;

use core::net::Ipv4Addr;
use nat::{Direction, Endpoint, Gone, Hit, Refusal, Reserved, SourceNat, Tuple, Unbound, protocol};
use smoltcp::time::Instant;
use world::*;

const TO: Endpoint = Endpoint::new(SERVER, 53);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

/// A client opens a UDP session from a port, behind an external address.
fn open(world: &mut World, client: u8, port: u16, external: Ipv4Addr) -> Result<Hit, Refusal> {
    let octets = udp(end([10, 0, client, 7].into(), port), TO, b"data");
    world.bind(client, &octets, SourceNat::Address(external))
}

/// The external endpoint of a client's port.
fn seen(world: &World, client: u8, port: u16, external: Ipv4Addr) -> Option<Endpoint> {
    world.nat.external(protocol::UDP, end([10, 0, client, 7].into(), port), external)
}

fn forget(world: &mut World, gone: Gone, budget: u32) -> u32 {
    let (mut calls, mut next) = (0, Some(0));
    while let Some(from) = next {
        next = world.nat.forget(gone, from, budget);
        calls += 1;
    }
    calls
}

fn two_addresses() -> World {
    World::with_both(
        |config| (config.sessions, config.external) = (500, &[EXTERNAL, SECOND]),
        |options| (options.clients, options.port_rest) = (4, 120),
    )
}

#[test]
fn a_client_that_is_gone_leaves_neither_sessions_nor_ports_behind() {
    let mut world = two_addresses();
    for port in 2000..2050 {
        open(&mut world, 1, port, EXTERNAL).unwrap();
        open(&mut world, 2, port + 50, EXTERNAL).unwrap();
    }
    // Ten of each rest.
    let resting: Vec<_> = world.nat.iter().filter(|(_, s)| s.original().source().port % 5 == 0).collect();
    let resting: Vec<_> = resting.into_iter().map(|(id, _)| id).collect();
    resting.into_iter().for_each(|id| world.nat.remove(id));
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (80, 80));
    assert_eq!(forget(&mut world, Gone::Client(1), 7), 1000_u32.div_ceil(7));
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (40, 40));
    for port in 2000..2050 {
        assert_eq!(seen(&world, 1, port, EXTERNAL), None);
        // At once, whether they rested or not: a port is preserved if it is free.
        open(&mut world, 3, port, EXTERNAL).unwrap();
        assert_eq!(seen(&world, 3, port, EXTERNAL), Some(end(EXTERNAL, port)));
    }
    for port in (2050..2100).filter(|port| port % 5 != 0) {
        assert_eq!(seen(&world, 2, port, EXTERNAL), Some(end(EXTERNAL, port)));
    }
    // Those of the client that stays rest still.
    open(&mut world, 3, 2050, EXTERNAL).unwrap();
    assert_ne!(seen(&world, 3, 2050, EXTERNAL), Some(end(EXTERNAL, 2050)));
    // Its share is free again.
    assert!((3000..3125).all(|port| open(&mut world, 1, port, EXTERNAL).is_ok()));
}

#[test]
fn sessions_from_outside_to_a_client_that_is_gone_go_too() {
    let mut world = World::optional(|options| options.clients = 4);
    let octets = udp(end(SERVER, 4000), FORWARD, b"in");
    world.bind_to(2, &octets, FORWARDED, SourceNat::None).unwrap();
    forget(&mut world, Gone::Client(1), 64);
    assert_eq!(world.nat.counts().sessions, 1);
    forget(&mut world, Gone::Client(2), 64);
    assert_eq!(world.nat.counts().sessions, 0);
    assert_eq!(world.nat.next_expiry(), None);
}

#[test]
fn sessions_of_others_through_the_mappings_of_a_client_that_is_gone_go_too() {
    // With a mapping of their own besides, or without.
    for source in [SourceNat::Address(EXTERNAL), SourceNat::None] {
        let mut world = World::optional(|options| options.clients = 4);
        open(&mut world, 2, 2000, EXTERNAL).unwrap();
        let hairpin = udp(end([10, 0, 1, 7].into(), 3000), end(EXTERNAL, 2000), b"in");
        world.bind_to(1, &hairpin, end([10, 0, 2, 7].into(), 2000), source).unwrap();
        forget(&mut world, Gone::Client(2), 64);
        assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0), "{source:?}");
    }
}

#[test]
fn sessions_without_a_mapping_go_with_the_address_that_they_are_seen_at() {
    let mut world = World::new();
    let octets = udp(end(CLIENT, 2000), TO, b"out");
    world.bind(0, &octets, SourceNat::Static(SECOND)).unwrap();
    world.udp_in(end(SERVER, 4000), FORWARD).unwrap();
    forget(&mut world, Gone::External(THIRD), 64);
    assert_eq!(world.nat.counts().sessions, 2);
    forget(&mut world, Gone::External(SECOND), 64);
    assert_eq!(world.nat.counts().sessions, 1);
    forget(&mut world, Gone::External(EXTERNAL), 64);
    assert_eq!(world.nat.counts().sessions, 0);
}

#[test]
fn an_address_that_is_gone_takes_its_sessions_mappings_and_reservations_along() {
    let mut world = two_addresses();
    for port in 2000..2050 {
        open(&mut world, 1, port, EXTERNAL).unwrap();
        open(&mut world, 2, port, SECOND).unwrap();
    }
    let some: Vec<_> = world.nat.iter().map(|(id, _)| id).take(10).collect();
    some.into_iter().for_each(|id| world.nat.remove(id));
    let gone = Gone::External(EXTERNAL);
    assert!(world.nat.forget(gone, 0, 1).is_some());
    // From the first call on nobody gets anything there, not even what it had.
    assert_eq!(open(&mut world, 1, 9000, EXTERNAL), Err(Unbound::NotExternal.into()));
    assert_eq!(open(&mut world, 1, 2000, EXTERNAL), Err(Unbound::NotExternal.into()));
    assert!(!world.nat.take_in(THIRD, &[]), "its place is not free yet");
    forget(&mut world, gone, 64);
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (45, 45));
    assert!((2000..2050).all(|port| seen(&world, 1, port, EXTERNAL).is_none()));
    assert!(world.nat.iter().all(|(_, session)| session.reply().destination().address == SECOND));
    // Another address in its place, with other reservations.
    assert!(
        world.nat.take_in(THIRD, &[Reserved { protocol: protocol::UDP, address: THIRD, ports: 2001..=2001 }])
    );
    assert!(!world.nat.take_in(THIRD, &[]) && !world.nat.take_in(EXTERNAL, &[]));
    for port in [2000, 2001, 8080] {
        open(&mut world, 1, port, THIRD).unwrap();
    }
    assert_eq!(seen(&world, 1, 2000, THIRD), Some(end(THIRD, 2000)));
    assert_eq!(seen(&world, 1, 8080, THIRD), Some(end(THIRD, 8080)), "reserved at the old one only");
    let other = seen(&world, 1, 2001, THIRD).unwrap();
    assert!(other.port != 2001 && other.port % 2 == 1);
}

#[test]
fn a_flow_to_an_external_endpoint_keeps_its_tuple_when_another_asks_for_that_endpoint() {
    // The address is ours already, or comes when the flow is there.
    for address in [EXTERNAL, SECOND] {
        let mut world = World::with(|config| config.external = &[EXTERNAL, Ipv4Addr::UNSPECIFIED]);
        let (from, to) = (end(CLIENT, 5000), end(address, 7000));
        let octets = udp(from, to, b"data");
        let first = world.bind_to(0, &octets, FORWARDED, SourceNat::Address(EXTERNAL)).unwrap();
        assert!(world.nat.take_in(SECOND, &[]));
        let back = udp(end(OTHER_CLIENT, 7000), from, b"data");
        assert_eq!(world.bind(0, &back, SourceNat::Address(address)), Err(Unbound::Conflict.into()));
        assert_eq!(world.told().lookup(&udp_tuple(from, to)), Some(first));
    }
}

#[test]
fn a_tuple_that_was_looked_up_in_vain_is_not_bound_twice() {
    let mut world = two_addresses();
    open(&mut world, 1, 2000, EXTERNAL).unwrap();
    world.wait(302);
    world.told().expire(100);
    // The mapping rests: the next session takes its place.
    let (from, to) = (end([10, 0, 1, 7].into(), 2000), end(SERVER, 54));
    assert_eq!(world.told().lookup(&udp_tuple(from, to)), None);
    let octets = udp(from, to, b"data");
    world.bind(1, &octets, SourceNat::Address(EXTERNAL)).unwrap();
    let again = world.bind(1, &octets, SourceNat::Address(SECOND));
    assert_eq!(again, Err(Unbound::Conflict.into()));
}

#[test]
fn an_address_that_goes_is_taken_in_again_only_when_nothing_is_left_of_it() {
    let mut world = World::new();
    let from = end(CLIENT, 5000);
    let external = world.udp_out(from, end(SERVER, 53)).unwrap();
    let mut next = world.nat.forget(Gone::External(EXTERNAL), 0, 64);
    while let Some(at) = next {
        assert!(!world.nat.take_in(EXTERNAL, &[]));
        next = world.nat.forget(Gone::External(EXTERNAL), at, 64);
    }
    assert_eq!((world.nat.counts().sessions, world.nat.take_in(EXTERNAL, &[])), (0, true));
    assert_eq!(world.udp_out(from, end(SERVER, 53)), Ok(external));
}

#[test]
fn an_address_is_taken_in_where_none_was_known_in_the_beginning() {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let mut world = World::with(|config| config.external = &[Ipv4Addr::UNSPECIFIED]);
    assert_eq!(open(&mut world, 1, 2000, nobody), Err(Unbound::NotExternal.into()));
    assert!(!world.nat.take_in(nobody, &[]));
    assert!(world.nat.take_in(EXTERNAL, &[]));
    open(&mut world, 1, 2000, EXTERNAL).unwrap();
    assert_eq!(seen(&world, 1, 2000, EXTERNAL), Some(end(EXTERNAL, 2000)));
    for _ in 0..3 {
        forget(&mut world, Gone::External(EXTERNAL), u32::MAX);
        assert!(world.nat.take_in(SECOND, &[]) && !world.nat.take_in(THIRD, &[]));
        forget(&mut world, Gone::External(SECOND), u32::MAX);
        assert!(world.nat.take_in(EXTERNAL, &[]));
    }
    let all = (1024..=5119).filter(|&port| open(&mut world, 1, port, EXTERNAL).is_ok()).count();
    assert_eq!(all, 4096, "every session of the table");
}

#[test]
fn a_share_of_an_address_that_was_taken_in_is_what_it_was() {
    let mut world = World::with_both(
        |config| (config.sessions, config.external_ports) = (4000, 10_000..=10_799),
        |options| options.clients = 4,
    );
    for address in [EXTERNAL, SECOND, EXTERNAL] {
        let opened = (2000..4000).filter(|&port| open(&mut world, 1, port, address).is_ok()).count();
        assert_eq!(opened, 800 - 3 * 100);
        assert_eq!((2000..2100).filter(|&port| open(&mut world, 2, port, address).is_ok()).count(), 100);
        forget(&mut world, Gone::External(address), 100);
        assert_eq!(world.nat.counts().mappings, 0);
        let next = if address == EXTERNAL { SECOND } else { EXTERNAL };
        assert!(world.nat.take_in(next, &[]));
    }
    // Half of the next one's ports are reserved: floors are of what is left, and grow again.
    forget(&mut world, Gone::External(SECOND), 100);
    let half = Reserved { protocol: protocol::UDP, address: THIRD, ports: 10_000..=10_399 };
    assert!(world.nat.take_in(THIRD, &[half]));
    let mut opened = |address| {
        let opened = (2000..4000).filter(|&port| open(&mut world, 1, port, address).is_ok()).count();
        forget(&mut world, Gone::External(address), 100);
        assert!(world.nat.take_in(EXTERNAL, &[]));
        opened
    };
    assert_eq!([THIRD, EXTERNAL].map(&mut opened), [400 - 3 * 50, 800 - 3 * 100]);
}

#[test]
fn a_clock_that_goes_back_lets_nobody_live_longer_and_ends_nobody_sooner() {
    for back in [1, 100, 301, 3600, 86_400 * 400] {
        let mut world = World::new();
        world.now = Instant::from_secs(86_400 * 500);
        let (idle, busy) = (end(CLIENT, 2000), end(CLIENT, 2001));
        for from in [idle, busy] {
            world.udp_out(from, TO).unwrap();
        }
        world.wait(100);
        world.told().expire(100);
        world.wait(-back);
        // Refreshed at a time that was before.
        world.udp_out(busy, TO).unwrap();
        world.told().expire(100);
        assert!(world.is_live(protocol::UDP, idle, TO) && world.is_live(protocol::UDP, busy, TO));
        assert_eq!(world.nat.next_expiry(), Some(world.now + smoltcp::time::Duration::from_secs(201)));
        world.wait(202);
        assert_eq!(world.told().expire(100), 1, "back by {back}");
        assert!(!world.is_live(protocol::UDP, idle, TO) && world.is_live(protocol::UDP, busy, TO));
        world.wait(100);
        assert_eq!(world.told().expire(100), 1, "back by {back}");
        assert_eq!((world.nat.counts().sessions, world.nat.next_expiry()), (0, None));
    }
}

#[test]
fn ports_rest_around_the_end_of_32_bits_of_seconds_and_when_the_clock_goes_back() {
    for (start, back) in [((1_i64 << 32) - 360, 0), ((1 << 32) - 305, 0), (86_400 * 10, 86_400)] {
        let mut world = World::with_both(
            |config| config.external_ports = 10_000..=10_001,
            |options| options.port_rest = 120,
        );
        world.now = Instant::from_secs(start);
        open(&mut world, 1, 10_000, EXTERNAL).unwrap();
        world.wait(302);
        world.told().expire(100);
        world.wait(-back);
        world.told().expire(100);
        for _ in 0..2 {
            world.wait(59);
            open(&mut world, 2, 10_000, EXTERNAL).unwrap();
            assert_eq!(seen(&world, 2, 10_000, EXTERNAL), Some(end(EXTERNAL, 10_001)), "it rests");
            forget(&mut world, Gone::Client(2), 5000);
        }
        world.wait(3);
        open(&mut world, 3, 10_000, EXTERNAL).unwrap();
        assert_eq!(seen(&world, 3, 10_000, EXTERNAL), Some(end(EXTERNAL, 10_000)), "its rest is over");
    }
}

#[test]
fn sixty_thousand_sessions_that_end_in_one_second_end_in_bounded_rounds() {
    let mut world = World::with(|config| config.sessions = 60_000);
    for flow in 0..60_000_u32 {
        let from = end([10, 0, (flow % 250) as u8, 9].into(), 1024 + (flow / 250) as u16);
        world.udp_out(from, TO).unwrap();
    }
    world.wait(302);
    // A new flow waits for none of it.
    world.udp_out(end(CLIENT, 60_000), TO).unwrap();
    let mut rounds = 0;
    while world.nat.counts().sessions > 1 {
        let before = world.nat.counts().sessions;
        assert!(world.told().expire(256) <= 256);
        assert!(before - world.nat.counts().sessions <= 256);
        rounds += 1;
    }
    assert!(rounds <= 60_000 / 256 + 2, "{rounds}");
    assert_eq!(world.nat.counts().mappings, 1);
}

#[test]
fn a_mapping_outlives_the_session_that_began_it_and_the_next_one_takes_that_place() {
    let mut world = World::with(|config| config.sessions = 2);
    let from = end([10, 0, 0, 7].into(), 4000);
    let peers = [1, 2, 3].map(|port| end(SERVER, port));
    let external = world.udp_out(from, peers[0]).unwrap();
    let first = world.nat.lookup(&udp_tuple(from, peers[0])).unwrap().session;
    assert_eq!(world.udp_out(from, peers[1]), Ok(external));
    world.nat.remove(first);
    // It is there for its other session, and for nobody else.
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (1, 1));
    assert_eq!(world.nat.internal(protocol::UDP, external), Some(from));
    assert_eq!(world.udp_in(peers[1], external), Ok(from));
    assert!(world.udp_in(peers[0], external).is_err());
    assert_eq!(world.udp_out(from, peers[2]), Ok(external));
    assert_eq!(world.nat.lookup(&udp_tuple(from, peers[2])).unwrap().session, first);
    assert_eq!([1, 2].map(|at| world.udp_in(peers[at], external)), [Ok(from); 2]);
    let all: Vec<_> = world.nat.iter().map(|(id, _)| id).collect();
    all.into_iter().for_each(|id| world.nat.remove(id));
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    // Nothing is lost: neither places nor the port.
    let other = end([10, 0, 0, 8].into(), 4000);
    assert_eq!([0, 1].map(|at| world.udp_out(other, peers[at])), [Ok(external); 2]);
}

fn udp_tuple(from: Endpoint, to: Endpoint) -> Tuple {
    Tuple::new(protocol::UDP, from, to)
}

/// Sessions of few endpoints come, go and expire in any order, their mappings with and without
/// them, at rest and back.
#[test]
fn whatever_comes_and_goes_sessions_mappings_and_places_add_up() {
    const SESSIONS: usize = 12;
    let mut world = World::with_both(
        |config| config.sessions = SESSIONS as u32,
        |options| (options.clients, options.port_rest) = (3, 20),
    );
    let mut random = Random(7);
    for round in 0..30_000 {
        match random.below(8) {
            0 => {
                let known: Vec<_> = world.nat.iter().map(|(id, _)| id).collect();
                known
                    .get(random.below(SESSIONS as u64) as usize)
                    .into_iter()
                    .for_each(|&id| world.nat.remove(id));
            }
            1 if round % 7 == 0 => world.wait(random.below(400) as i64),
            _ => {
                let host = random.below(4) as u8;
                let from = end([10, 0, 0, host].into(), 4000 + random.below(2) as u16);
                let to = end(SERVER, 1 + random.below(4) as u16);
                if world.told().lookup(&udp_tuple(from, to)).is_none() {
                    // The same endpoint may be another client's the next time.
                    let client = random.below(3) as u8;
                    let _ = world.bind(client, &udp(from, to, b"data"), SourceNat::Address(EXTERNAL));
                }
            }
        }
        let known: Vec<_> = world.nat.iter().map(|(id, s)| (id, s.original(), s.reply())).collect();
        let mut mapped = std::collections::BTreeMap::new();
        for (session, original, reply) in known {
            if world.nat.remaining(session) > 0 {
                for (tuple, direction) in [(original, Direction::Original), (reply, Direction::Reply)] {
                    assert_eq!(world.nat.lookup(&tuple), Some(Hit { session, direction }), "{round}");
                }
            }
            let external = reply.destination();
            assert_eq!(*mapped.entry(original.source()).or_insert(external), external);
            assert_eq!(world.nat.internal(protocol::UDP, external), Some(original.source()));
        }
        assert_eq!(world.nat.counts().mappings as usize, mapped.len(), "{round}");
    }
    world.wait(1000);
    while world.told().expire(1000) > 0 {}
    for port in 0..SESSIONS as u16 {
        // A floor is a sixth of the places, and a client may take what the others' floors leave.
        let from = end([10, 0, 0, 9].into(), 5000 + port);
        let bound = world.bind((port / 4) as u8, &udp(from, TO, b"data"), SourceNat::Address(EXTERNAL));
        assert!(bound.is_ok(), "{port}");
    }
    assert_eq!(
        (world.nat.counts().sessions, world.nat.counts().mappings),
        (SESSIONS as u32, SESSIONS as u32)
    );
}
