//! When sessions end, whatever the clock does, and that nothing is left of them.

mod world;

use nat::{Endpoint, Session, UdpShort, Unbound, WellKnownPorts, protocol};
use smoltcp::time::{Duration, Instant};
use std::collections::BTreeMap;
use world::*;

const TO: Endpoint = Endpoint::new(SERVER, 53);

/// Ends what expired, some at a time, and returns how many ended.
fn drain(world: &mut World) -> usize {
    let mut ended = 0;
    for _ in 0..100_000 {
        let before = world.nat.counts().sessions;
        ended += world.told().expire(16);
        let due = world.nat.next_expiry();
        if before == 0 || due.is_none_or(|due| due > world.now) {
            return ended;
        }
    }
    panic!("no end of expiring");
}

#[test]
fn a_random_life_agrees_with_a_list_of_times() {
    let seed = 0xc10c;
    let mut random = Random(seed);
    let mut world = World::new();
    // Internal port and destination port, and when it was last refreshed.
    let mut model: BTreeMap<(u16, u16), Instant> = BTreeMap::new();
    for round in 0..40_000 {
        let jump = match random.below(2000) {
            0 => random.below(90_000_000_000),
            1..20 => random.below(400_000_000),
            _ => random.below(200_000),
        };
        world.now += Duration::from_micros(jump);
        let key = (random.below(40) as u16 + 2000, random.below(3) as u16 + 53);
        let (from, to) = (end(CLIENT, key.0), end(SERVER, key.1));
        let live = world.is_live(protocol::UDP, from, to);
        let idle = model.get(&key).map(|&at| world.now - at);
        match idle {
            None => assert!(!live),
            Some(idle) if idle <= Duration::from_secs(300) => {
                assert!(live, "seed {seed:#x} round {round}: gone after {idle}");
            }
            Some(idle) if idle >= Duration::from_secs(302) => {
                assert!(!live, "seed {seed:#x} round {round}: there after {idle}");
            }
            Some(_) => {}
        }
        if random.below(4) == 0 {
            world.udp_out(from, to).unwrap();
            model.insert(key, world.now);
        }
        if random.below(8) == 0 {
            world.told().expire(random.below(20) as usize);
        }
        if random.below(100) == 0 {
            drain(&mut world);
            let now = world.now;
            model.retain(|_, &mut at| now - at < Duration::from_secs(302));
            let left = world.nat.counts().sessions as usize;
            let sure = model.values().filter(|&&at| now - at <= Duration::from_secs(300)).count();
            assert!((sure..=model.len()).contains(&left), "{sure} {left} {}", model.len());
        }
    }
    world.wait(302);
    drain(&mut world);
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    assert_eq!(world.nat.next_expiry(), None);
}

#[test]
fn jumps_of_hours_and_beyond_32_bits_of_seconds_end_everything_once() {
    for start in [0i64, 1000, (1 << 32) - 100, 3 << 32] {
        for jump in [400i64, 7200, 86_400 * 30, (1 << 31) + 5, (1 << 32) + 5, 5 << 32] {
            let mut world = World::new();
            world.now = Instant::from_secs(start);
            for port in 0..100 {
                world.udp_out(end(CLIENT, 2000 + port), TO).unwrap();
                world.wait(1);
            }
            assert!(world.is_live(protocol::UDP, end(CLIENT, 2000), TO));
            world.wait(jump);
            for port in 0..100 {
                assert!(!world.is_live(protocol::UDP, end(CLIENT, 2000 + port), TO));
            }
            assert_eq!(drain(&mut world), 100, "{start} + {jump}");
            assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
            world.udp_out(end(CLIENT, 2000), TO).unwrap();
            world.wait(300);
            assert!(world.is_live(protocol::UDP, end(CLIENT, 2000), TO));
        }
    }
}

#[test]
fn seconds_wrap_around_without_anyone_noticing() {
    let mut world = World::new();
    world.now = Instant::from_secs((1i64 << 32) - 150);
    world.udp_out(end(CLIENT, 2000), TO).unwrap();
    world.wait(300);
    assert!(world.is_live(protocol::UDP, end(CLIENT, 2000), TO));
    world.udp_out(end(CLIENT, 2000), TO).unwrap();
    world.wait(299);
    drain(&mut world);
    assert!(world.is_live(protocol::UDP, end(CLIENT, 2000), TO));
    world.wait(3);
    assert_eq!(drain(&mut world), 1);
}

#[test]
fn the_budget_bounds_each_turn_and_every_turn_gets_on() {
    let mut world = World::new();
    for port in 0..1000 {
        world.udp_out(end(CLIENT, 2000 + port), TO).unwrap();
    }
    world.wait(302);
    let mut turns = 0;
    while world.nat.counts().sessions > 0 {
        assert!(world.told().expire(7) <= 7);
        turns += 1;
    }
    assert_eq!(turns, 143);
}

#[test]
fn what_was_refreshed_is_kept_and_looked_at_seldom() {
    let mut world = World::with(|config| config.timeouts.udp = 7440);
    for port in 0..100 {
        world.udp_out(end(CLIENT, 2000 + port), TO).unwrap();
    }
    // All stand in one slot: it comes up once in 1024 seconds.
    let mut looked_at = 0;
    for _ in 0..7000 {
        world.wait(1);
        while world.nat.next_expiry().is_some_and(|due| due <= world.now) {
            assert_eq!(world.told().expire(10), 0);
            looked_at += 10;
        }
    }
    assert!(looked_at <= 100 * 9, "{looked_at}");
    assert_eq!(world.nat.counts().sessions, 100);
}

#[test]
fn the_next_expiry_is_never_late_and_sleeping_until_it_is_enough() {
    let mut world = World::new();
    world.udp_out(end(CLIENT, 2000), TO).unwrap();
    world.wait(100);
    world.connect(end(CLIENT, 2000), end(SERVER, 80));
    let mut wakes = 0;
    while let Some(due) = world.nat.next_expiry() {
        world.now = world.now.max(due);
        world.told().expire(100);
        wakes += 1;
    }
    assert_eq!(world.now, Instant::from_secs(1000 + 100 + 7441));
    assert!(wakes <= 10, "{wakes} wakes");
}

#[test]
fn a_shortened_life_ends_in_time() {
    let mut world = World::new();
    let (from, to) = (end(CLIENT, 2000), end(SERVER, 80));
    let external = world.connect(from, to);
    world.wait(1);
    world.cross(&tcp(to, external, RST | ACK, (501, 101), &[])).unwrap();
    world.wait(241);
    assert_eq!(world.told().expire(10), 1);
    assert_eq!(world.nat.counts().mappings, 0);
}

#[test]
fn expired_sessions_give_way_to_new_ones_of_the_same_tuple() {
    let mut world = World::new();
    let from = end(CLIENT, 2000);
    world.udp_out(from, TO).unwrap();
    world.wait(302);
    world.udp_out(from, TO).unwrap();
    assert_eq!(world.nat.counts().sessions, 1);
    let (id, session) = world.nat.iter().next().unwrap();
    assert!(!session.has_reply());
    assert_eq!(world.told().remaining(id), 301);
}

#[test]
fn removal_leaves_nothing_behind() {
    let mut world = World::with(|config| config.sessions = 300);
    for host in 1..=100 {
        let address = [10, 0, host % 2, host].into();
        world.udp_out(end(address, 2000), TO).unwrap();
        world.udp_out(end(address, 2000), end(SERVER, 54)).unwrap();
    }
    let gone = |session: &Session| session.original().source().address.octets()[2] == 1;
    let mut from = Some(0);
    while let Some(next) = from {
        from = world.nat.remove_where(next, 7, gone);
    }
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (100, 50));
    assert!(world.nat.iter().all(|(_, session)| !gone(session)));
    let ids: Vec<_> = world.nat.iter().map(|(id, _)| id).collect();
    for id in ids {
        world.nat.remove(id);
        world.nat.remove(id);
    }
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    assert_eq!(world.nat.next_expiry(), None);
    for port in 1..=300 {
        let external = world.udp_out(end(CLIENT, 2000), end(SERVER, port)).unwrap();
        world.udp_in(end(SERVER, port), external).unwrap();
    }
    world.wait(1);
    for port in 1..=300 {
        world.udp_out(end(CLIENT, 2000), end(SERVER, port)).unwrap();
    }
    let full = world.udp_out(end(CLIENT, 2000), end(SERVER, 301));
    assert_eq!(full, Err(Dropped::Unbound(Unbound::TableFull)));
}

#[test]
fn a_full_table_is_replaced_over_and_over() {
    let mut world = World::with(|config| config.sessions = 512);
    let mut random = Random(0xca11);
    for _ in 0..40 {
        for _ in 0..512 {
            let from = end([10, 0, 0, random.below(250) as u8 + 1].into(), random.next() as u16 | 1);
            let to = end(SERVER, random.next() as u16 | 1);
            let left = world.udp_out(from, to);
            assert!(left.is_ok() || left == Err(Dropped::Unbound(Unbound::TableFull)), "{left:?}");
        }
        assert!(world.nat.counts().sessions >= 500);
        world.wait(302);
    }
}

#[test]
fn req_5_destination_ports_that_the_site_lists_have_their_own_shorter_time() {
    let ports = WellKnownPorts::NONE.with(53, 53).with(123, 123).with(1000, 2000);
    let mut world = World::optional(|options| options.udp_short = UdpShort { ports, seconds: 60 });
    let flows =
        [(53, 60), (123, 60), (1000, 60), (1023, 60), (54, 300), (122, 300), (1024, 300), (2000, 300)];
    for (at, (port, _)) in (2000..).zip(flows) {
        world.udp_out(end(CLIENT, at), end(SERVER, port)).unwrap();
    }
    world.wait(59);
    world.udp_out(end(CLIENT, 2000), end(SERVER, 53)).unwrap();
    for after in [1, 59, 3, 179, 3] {
        world.wait(after);
        drain(&mut world);
        let idle = (world.now - Instant::from_secs(1000)).secs();
        for (at, (port, seconds)) in (2000..).zip(flows) {
            let since = if at == 2000 { idle - 59 } else { idle };
            let live = world.is_live(protocol::UDP, end(CLIENT, at), end(SERVER, port));
            let ends = since == seconds + 1;
            assert!(live == (since <= seconds) || ends, "{port} after {since}");
        }
    }
    // TCP has no part in it.
    world.connect(end(CLIENT, 2000), end(SERVER, 53));
    let (id, _) = world.nat.iter().next().unwrap();
    assert_eq!(world.told().remaining(id), 7441);
}

#[test]
fn a_reply_that_was_only_seen_establishes_and_refreshes_nothing() {
    let mut world = World::new();
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let external = world.udp_out(from, to).unwrap();
    world.wait(100);
    let reply = parse(&udp(to, external, b"in"));
    let hit = world.told().lookup(&reply.tuple().unwrap()).unwrap();
    let left = world.nat.remaining(hit.session);
    assert!(world.nat.see(hit, &reply) && !world.nat.see(hit, &reply), "the first one alone");
    assert!(world.nat.session(hit.session).has_reply());
    assert_eq!(world.nat.remaining(hit.session), left);
    // A segment that its connection does not await is no reply.
    let external = ends(&world.cross(&tcp(from, to, SYN, (100, 0), &[])).unwrap()).0;
    for (flags, numbers, is_one) in
        [(ACK, (7, 7), false), (SYN | ACK, (500, 7), false), (SYN | ACK, (500, 101), true)]
    {
        let reply = parse(&tcp(to, external, flags, numbers, &[]));
        let hit = world.told().lookup(&reply.tuple().unwrap()).unwrap();
        assert_eq!(world.nat.see(hit, &reply), is_one, "{flags:#x} {numbers:?}");
    }
}
