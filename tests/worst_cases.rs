//! Full tables, floods and storms, through the whole path: who is not part of them feels nothing, and
//! afterwards nothing is left. What is counted is packets and steps, never time.

use std::collections::BTreeSet;

use firewall::Dropped;
use netback::Link;
use netback::wire::{Settings, Wire};
use smoltcp::time::{Duration, Instant};
use tests::flags::{ACK, SYN};
use tests::packet::At;
use tests::world::{frame, port_station, station};
use tests::{Connection, View, World, echo, site, tcp, udp};

const SERVER: &str = "198.51.100.9:53";

fn with(lines: &str) -> World {
    World::new(&site::plan_with(&format!("[nat]\n{lines}")), site::RULES)
}

/// `work` sends datagrams of this many flows, some of which are refused.
fn flood(world: &mut World, flows: u32, chosen: impl Fn(u32) -> (String, u16)) {
    for n in 0..flows {
        let (host, port) = chosen(n);
        world.queue("work", udp((host.as_str(), port), SERVER, b"flood"));
        if n % 64 == 63 {
            world.settle();
            world.forget();
        }
    }
    world.settle();
    world.forget();
}

fn many_hosts(n: u32) -> (String, u16) {
    (format!("10.0.1.{}", 2 + n % 250), 1024 + (n / 250) as u16)
}

fn one_host(n: u32) -> (String, u16) {
    ("10.0.1.7".into(), 1024 + n as u16)
}

#[test]
fn fairness_a_client_that_opens_all_it_can_stops_no_other_and_evicts_nothing_established() {
    for chosen in [one_host as fn(u32) -> _, many_hosts] {
        let mut world = with("sessions = 4096");
        let external = world.open_udp("10.0.2.9:5000", SERVER);
        world.cross("uplink", "lab", udp(SERVER, external, b"in"));
        let mut session = Connection::open(&mut world, "10.0.2.9:6000", "198.51.100.9:80");
        session.talk(&mut world);
        flood(&mut world, 10_000, chosen);
        assert!(world.occupancy().sessions <= 4096);
        assert!(world.drops("work", Dropped::ClientQuota) > 0 || world.occupancy().sessions < 4096);
        // The other client goes on, and opens as many as half of a half.
        session.talk(&mut world);
        world.cross("uplink", "lab", udp(SERVER, external, b"in"));
        for n in 0..1000 {
            world.open_udp(&format!("10.0.2.{}:{}", 10 + n % 200, 7000 + n), SERVER);
            if n % 100 == 0 {
                // While the flood goes on.
                flood(&mut world, 200, |m| chosen(20_000 + n * 200 + m));
                session.talk(&mut world);
            }
        }
        assert_eq!(world.drops("lab", Dropped::ClientQuota), 0);
        world.cross("uplink", "lab", udp(SERVER, external, b"in"));
    }
}

#[test]
fn fairness_ports_too_are_kept_for_each_client() {
    let mut world = with("external_ports = \"2048-2175\"\nport_rest = 0");
    // 128 ports: a quarter of them is the other client's.
    let mut got = BTreeSet::new();
    for port in 2048..2400u16 {
        world.send("work", udp(("10.0.1.7", port), SERVER, b"x"));
        got.extend(world.sent("uplink").iter().map(|seen| seen.from()));
        world.forget();
    }
    assert_eq!(got.len(), 96);
    for port in 2048..2080u16 {
        let external = world.open_udp(&format!("10.0.2.9:{port}"), SERVER);
        assert!((2048..=2175).contains(&external.port()));
        assert!(got.insert(external), "{external} is used twice");
    }
    assert_eq!(got.len(), 128, "every port of the pool");
    let told = world.answer("lab", udp("10.0.2.9:9000", SERVER, b"x"));
    assert_eq!(told.icmp(), (3, 13));
}

#[test]
fn req_8_refusals_are_counted_and_told_six_times_then_once_a_second() {
    let mut world = with("sessions = 16");
    for id in 0..12 {
        let seen = world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", id, 1, b"x"));
        world.cross("uplink", "work", tests::echo_reply("198.51.100.9", "192.0.2.2", seen.id(), 1, b"x"));
        world.pass_seconds(1);
        world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", id, 2, b"x"));
    }
    for _ in 0..100 {
        world.send("work", echo("10.0.1.7", "198.51.100.9", 999, 1, b"x"));
    }
    let told = world.sent("work");
    assert_eq!((told.len(), told[0].icmp()), (6, (3, 13)));
    assert_eq!(world.drops("work", Dropped::ClientQuota), 100);
    assert_eq!(world.drops("work", Dropped::AnswerLimited), 94);
    world.pass_seconds(1);
    world.send("work", echo("10.0.1.7", "198.51.100.9", 999, 1, b"x"));
    world.send("work", echo("10.0.1.7", "198.51.100.9", 999, 1, b"x"));
    assert_eq!(world.sent("work").len(), 1);
}

#[test]
fn a_full_table_lets_go_of_what_was_never_answered_and_of_both_its_halves() {
    let mut world = with("sessions = 64");
    let mut session = Connection::open(&mut world, "10.0.1.6:6000", "198.51.100.9:80");
    session.talk(&mut world);
    let mut externals = Vec::new();
    for port in 2000..2100u16 {
        world.send("work", udp(("10.0.1.7", port), SERVER, b"x"));
        externals.extend(world.sent("uplink").iter().map(|seen| seen.from()));
        world.forget();
    }
    // The other client's share makes them give way.
    for port in 3000..3032u16 {
        world.open_udp(&format!("10.0.2.9:{port}"), SERVER);
    }
    let nat = world.datapath.nat();
    let alive: BTreeSet<_> = nat.iter().map(|(_, session)| session.reply().destination().port).collect();
    let mut reached = 0;
    for external in &externals {
        world.send("uplink", udp(SERVER, *external, b"back"));
        let got = world.sent("work").len();
        assert_eq!(got == 1, alive.contains(&external.port()), "both halves of {external}, or none");
        reached += got;
        world.forget();
    }
    assert!(reached > 0 && reached < externals.len(), "{reached} of {}", externals.len());
    assert!(world.occupancy().sessions <= 64);
    session.talk(&mut world);
}

#[test]
fn a_storm_of_expiry_is_spread_over_turns_and_stops_nobody() {
    let mut world = World::default();
    let external = world.open_udp("10.0.2.9:5000", SERVER);
    flood(&mut world, 40_000, many_hosts);
    let full = world.occupancy().sessions;
    assert!(full > 30_000, "{full} sessions");
    for _ in 0..300 {
        world.pass_seconds(1);
        if world.now().secs() % 100 == 0 {
            world.cross("lab", "uplink", udp("10.0.2.9:5000", SERVER, b"keep"));
        }
    }
    // In this second they all end.
    let mut before = world.occupancy().sessions;
    let mut turns = 0;
    while world.occupancy().sessions > 1 {
        world.pass(Duration::from_millis(10));
        let now = world.occupancy().sessions;
        // No turn did more than a bounded part of it, or the world would not come to rest between.
        assert!(now <= before);
        before = now;
        world.cross("lab", "uplink", udp("10.0.2.9:5000", SERVER, b"meanwhile"));
        world.cross("uplink", "lab", udp(SERVER, external, b"meanwhile"));
        turns += 1;
        assert!(turns < 2000, "{before} are left");
    }
    assert_eq!(world.occupancy().mappings, 1);
}

#[test]
fn one_turn_takes_no_more_than_a_batch_of_each_port_and_ends_a_bounded_number_of_sessions() {
    let mut world = World::default();
    flood(&mut world, 20_000, many_hosts);
    let full = world.occupancy().sessions;
    // A client's flood does not keep the others from their turn.
    for _ in 0..1000 {
        world.queue("work", udp("10.0.1.7:5000", SERVER, b"flood"));
    }
    world.queue("lab", udp("10.0.2.9:5000", "192.0.2.1:53", b"one"));
    let before = world.forwarded("work");
    world.datapath.turn(world.now());
    assert_eq!(world.forwarded("work") - before, firewall::datapath::BATCH as u64);
    assert_eq!(world.forwarded("lab"), 1);
    world.settle();
    world.forget();
    let later = world.now() + Duration::from_secs(302);
    world.datapath.turn(later);
    let ended = full - world.occupancy().sessions.min(full);
    assert!((1..=256).contains(&ended), "{ended} sessions in one turn");
}

#[test]
fn syn_floods_from_both_sides_leave_connections_alone() {
    let mut world = with("sessions = 2048");
    let mut session = Connection::open(&mut world, "10.0.1.7:6000", "198.51.100.9:80");
    session.talk(&mut world);
    for n in 0..6000u32 {
        let stranger = (format!("198.18.{}.{}", n % 200, 1 + n % 250), 1024 + (n % 60_000) as u16);
        world.queue("uplink", tcp((stranger.0.as_str(), stranger.1), "192.0.2.2:8080", SYN, b""));
        world.queue("lab", tcp(("10.0.2.9", 1024 + n as u16), "198.51.100.9:80", SYN, b""));
        if n % 64 == 0 {
            world.settle();
            world.forget();
        }
    }
    world.settle();
    world.forget();
    assert!(world.occupancy().sessions <= 2048);
    session.talk(&mut world);
    let mut other = Connection::open(&mut world, "10.0.1.7:6001", "198.51.100.9:80");
    other.talk(&mut world);
    world.pass_in_steps(300, 10);
    session.talk(&mut world);
    assert!(world.occupancy().sessions <= 3, "half-open connections end after 240 s");
}

#[test]
fn strangers_open_nothing_however_many_they_are() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    for n in 0..20_000u32 {
        let from = (format!("198.18.{}.{}", n % 200, 1 + n % 250), 1 + (n % 65_000) as u16);
        let from = (from.0.as_str(), from.1).at();
        world.queue("uplink", udp(from, ("192.0.2.2", 1 + (n * 7 % 8000) as u16), b"scan"));
        world.queue("uplink", tcp(from, external, ACK, b"scan"));
        if n % 256 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.quiet();
    assert_eq!(world.occupancy().sessions, 1);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
}

#[test]
fn start_no_frame_is_forwarded_before_rules_and_nat_are_in_force() {
    let site = site::site(site::PLAN, site::RULES);
    let wires: Vec<Wire> =
        (0..3).map(|port| Wire::new(Settings { mac: port_station(port), ..Settings::default() })).collect();
    let arriving = |port: usize, sender: &str, packet: tests::packet::Packet| {
        let sender = station(tests::packet::address(sender));
        let frame = frame(port_station(port), sender, 0x0800, &packet.octets());
        assert!(wires[port].inject(&frame, netback::Offload::default()));
    };
    // They wait on the wires while the appliance is made.
    arriving(1, "10.0.1.7", udp("10.0.1.7:5000", "192.0.2.1:53", b"allowed"));
    arriving(1, "10.0.1.7", udp("10.0.1.7:5000", "198.51.100.9:27", b"refused"));
    arriving(1, "10.0.1.7", udp("10.0.2.9:5000", "192.0.2.1:53", b"spoofed"));
    arriving(0, "192.0.2.1", udp("192.0.2.1:53", "192.0.2.2:5000", b"unsolicited"));
    arriving(0, "192.0.2.1", udp("192.0.2.1:53", "10.0.1.7:5000", b"internal"));
    let mut datapath = firewall::Datapath::new(site, wires.clone(), [1, 2, 3, 4]);
    assert!(wires.iter().all(|wire| wire.pop().is_none()), "nothing leaves by itself");
    let now = Instant::from_secs(1000);
    let mut left = Vec::new();
    for _ in 0..5 {
        datapath.turn(now);
        for wire in &wires {
            while let Some((frame, _)) = wire.pop() {
                if frame[12..14] == [8, 6] && frame[21] == 1 && frame[28..32] != frame[38..42] {
                    // Whoever is asked for answers.
                    let mut reply = [&frame[6..12], &[2, 0, 192, 0, 2, 1], &frame[12..]].concat();
                    reply[21] = 2;
                    let asker = frame[22..32].to_vec();
                    reply[22..28].copy_from_slice(&[2, 0, 192, 0, 2, 1]);
                    reply[28..32].copy_from_slice(&frame[38..42]);
                    reply[32..42].copy_from_slice(&asker);
                    wire.inject(&reply, netback::Offload::default());
                } else if frame[12..14] == [8, 0] {
                    left.push(View::new(&frame[14..]));
                }
            }
        }
    }
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].from(), left[0].data()), ("192.0.2.2:5000".at(), &b"allowed"[..]));
    assert_eq!(datapath.ports()[1].link.mac(), port_station(1));
}

#[test]
fn fairness_within_a_client_what_was_never_answered_gives_way_and_established_flows_never() {
    for answered in [false, true] {
        let mut world = with("sessions = 16");
        let flows: Vec<_> =
            (0..12).map(|n| world.open_udp(&format!("10.0.1.7:{}", 2000 + n), SERVER)).collect();
        for external in flows.iter().filter(|_| answered) {
            world.cross("uplink", "work", udp(SERVER, *external, b"in"));
        }
        world.pass_seconds(1);
        for n in (0..12).filter(|_| answered) {
            world.open_udp(&format!("10.0.1.7:{}", 2000 + n), SERVER);
        }
        // Another host of the same client.
        world.send("work", udp("10.0.1.8:3000", SERVER, b"me too"));
        let served = world.sent("uplink").len();
        assert_eq!(served == 0, answered, "it is served at the cost of what nobody answered");
        assert_eq!(world.occupancy().evicted, u64::from(!answered));
        assert_eq!(world.drops("work", Dropped::ClientQuota), u64::from(answered));
        world.forget();
        let mut alive = 0;
        for external in flows {
            world.send("uplink", udp(SERVER, external, b"in"));
            alive += world.sent("work").len();
        }
        assert_eq!(alive, 12 - served);
    }
}

#[test]
fn req_3_a_port_that_a_hairpinned_session_uses_is_given_to_nobody_else() {
    let mut world = with("port_rest = 0");
    let second = world.open_udp("10.0.2.9:6000", SERVER);
    let first = world.open_udp("10.0.1.7:5000", SERVER);
    for _ in 0..5 {
        world.cross("work", "lab", udp("10.0.1.7:5000", second, b"ask"));
        world.cross("lab", "work", udp("10.0.2.9:6000", first, b"tell"));
        world.pass_seconds(100);
    }
    let third = world.open_udp("10.0.1.8:6000", SERVER);
    assert_ne!(third, second, "10.0.1.7 still talks to it");
    world.cross("work", "lab", udp("10.0.1.7:5000", second, b"ask"));
    world.pass_seconds(302);
    assert_eq!(world.occupancy().mappings, 0);
}
