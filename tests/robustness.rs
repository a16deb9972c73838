//! What nobody should send, and more of it than anybody should: afterwards all is as it was.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use firewall::Dropped;
use netback::{Checksum, Offload, Segments};
use smoltcp::wire::{ArpOperation, EthernetAddress};
use tests::flags::{ACK, PSH, SYN};
use tests::packet::{Packet, address, icmp_error};
use tests::world::{arp, arp_octets, frame, port_station, station};
use tests::{Chance, Connection, Seen, World, echo, echo_reply, judge, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const EXTERNAL: &str = "192.0.2.2:5000";
const SERVER: &str = "198.51.100.9:53";

/// Everything works: UDP, TCP and ICMP, both clients, both ways, and the static forward.
#[track_caller]
fn works(world: &mut World) {
    world.forget();
    let external = world.open_udp("10.0.1.7:6000", SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    let mut connection = Connection::open(world, "10.0.2.9:6000", "198.51.100.9:80");
    connection.talk(world);
    connection.close(world);
    let seen = world.cross("lab", "uplink", echo("10.0.2.9", "198.51.100.9", 1, 1, b"x"));
    world.cross("uplink", "lab", echo_reply("198.51.100.9", "192.0.2.2", seen.id(), 1, b"x"));
    world.cross("uplink", "work", udp("198.51.100.9:999", "192.0.2.2:8080", b"ask"));
    world.answer("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x"));
}

/// Two hours and a bit pass, in steps as the loop would take them: nothing is left of anything.
#[track_caller]
fn nothing_is_left(world: &mut World) {
    let buffers = World::default().free_buffers();
    world.pass_in_steps(7920, 20);
    world.forget();
    let left = world.occupancy();
    assert_eq!((left.sessions, left.mappings, left.neighbors), (0, 0, 0));
    assert_eq!(world.free_buffers(), buffers);
    works(world);
}

/// Packets that are forwarded, answered or refused, as they come from the uplink and from a client.
fn seeds(world: &mut World) -> [Vec<Vec<u8>>; 2] {
    let datagram = world.cross("work", "uplink", udp(CLIENT, SERVER, b"payload"));
    let mut connection = Connection::open(world, CLIENT, "198.51.100.9:80");
    let segment = connection.outward(world, ACK | PSH, b"data");
    let query = world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", 9, 1, b"ping"));
    let reply = world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"reply"));
    let quote = |seen: &Seen| seen.octets.clone();
    // SCTP's ports and verification tag, GRE's flags, ESP's index: eight octets and some.
    let other = |from: &str, to: &str, protocol| Packet::new(from, to, protocol, &[0x11; 24]);
    let tunnel = world.cross("work", "uplink", other("10.0.1.7", "198.51.100.9", 47));
    world.cross("work", "uplink", other("10.0.1.7", "198.51.100.9", 132));
    let long_error = icmp_error("203.0.113.1", "192.0.2.2", (3, 3), quote(&datagram)).payload.len();
    let cut_error =
        |range| icmp_error("203.0.113.1", "192.0.2.2", (3, 3), quote(&datagram)).fragment(range).octets();
    let outside = vec![
        other("198.51.100.9", "192.0.2.2", 47).octets(),
        other("198.51.100.9", "192.0.2.2", 132).fragment(0..16).octets(),
        other("198.51.100.9", "192.0.2.2", 132).fragment(16..24).octets(),
        icmp_error("203.0.113.1", "192.0.2.2", (3, 2), quote(&tunnel)).octets(),
        cut_error(0..40),
        cut_error(40..long_error),
        echo("198.51.100.9", "192.0.2.2", 1, 1, &[0; 40]).fragment(0..24).octets(),
        echo("198.51.100.9", "192.0.2.2", 1, 1, &[0; 40]).fragment(24..48).octets(),
        tcp("198.51.100.9:5", "192.0.2.2:9999", SYN, b"").octets(),
        udp(SERVER, EXTERNAL, b"payload").octets(),
        udp(SERVER, EXTERNAL, b"options").options(&[7, 7, 4, 0, 0, 0, 0, 0]).octets(),
        udp(SERVER, EXTERNAL, &[0; 100]).fragment(0..48).octets(),
        connection.from_server(ACK | PSH, b"data").octets(),
        tcp("198.51.100.9:5", "192.0.2.2:8080", SYN, b"").octets(),
        echo_reply("198.51.100.9", "192.0.2.2", query.id(), 1, b"ping").octets(),
        echo("198.51.100.9", "192.0.2.2", 1, 1, b"ping").octets(),
        icmp_error("203.0.113.1", "192.0.2.2", (3, 3), quote(&datagram)).octets(),
        icmp_error("203.0.113.1", "192.0.2.2", (3, 4), quote(&segment)).octets(),
        icmp_error("203.0.113.1", "192.0.2.2", (11, 0), quote(&query)).octets(),
    ];
    let inside = vec![
        other("10.0.1.7", "198.51.100.9", 47).octets(),
        other("10.0.1.7", "198.51.100.9", 50).octets(),
        other("10.0.1.7", "198.51.100.9", 132).fragment(0..16).octets(),
        other("10.0.1.7", "10.0.1.1", 132).octets(),
        icmp_error("10.0.1.7", "198.51.100.9", (3, 2), other("198.51.100.9", "10.0.1.7", 47)).octets(),
        udp(CLIENT, SERVER, b"payload").octets(),
        udp(CLIENT, SERVER, b"options").options(&[0x44, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]).octets(),
        udp(CLIENT, SERVER, &[0; 100]).fragment(48..108).octets(),
        connection.from_client(ACK | PSH, b"data").octets(),
        tcp(CLIENT, "203.0.113.9:80", SYN, b"").octets(),
        tcp(CLIENT, "203.0.113.9:26", SYN, b"").octets(),
        echo("10.0.1.7", "198.51.100.9", 9, 1, b"ping").octets(),
        icmp_error("10.0.1.7", "198.51.100.9", (3, 3), quote(&reply)).octets(),
        udp(CLIENT, "10.0.2.9:7000", b"routed").octets(),
        udp(CLIENT, "192.0.2.2:8080", b"hairpin").octets(),
        udp(CLIENT, "10.0.1.1:53", b"for you").octets(),
    ];
    [outside, inside]
}

/// A packet with something wrong in it, deep enough to matter.
fn mutated(chance: &mut Chance, seed: &[u8]) -> Vec<u8> {
    let mut octets = seed.to_vec();
    match chance.below(10) {
        0..5 => {
            for _ in 0..=chance.below(6) {
                let at = chance.below(octets.len().min(64));
                let value = chance.octet();
                octets[at] = chance.pick(&[0, 1, 0x7f, 0x80, 0xff, value]);
            }
        }
        5 => octets.truncate(chance.below(seed.len())),
        6 => {
            let length = chance.below(200);
            octets.extend(chance.octets(length));
        }
        7 => octets[0] = 0x40 | chance.octet() & 15,
        8 => {
            let length = octets.len() as u16;
            let half = chance.half();
            let claimed =
                chance.pick(&[0, 1, 19, 20, 21, 27, 28, 29, length - 1, length + 1, half, u16::MAX]);
            octets[2..4].copy_from_slice(&claimed.to_be_bytes());
        }
        _ => {
            let flags = chance.half().to_be_bytes();
            octets[6..8].copy_from_slice(&flags);
        }
    }
    if chance.happens(85) {
        judge::mend_header(&mut octets);
    }
    if chance.happens(50) {
        judge::mend_transport(&mut octets);
    }
    octets
}

/// Mutants of the seeds from the uplink and a client, over a site.
fn mutants(lines: &str, seed: u64) {
    let mut chance = Chance::from_environment(seed);
    let mut world = World::new(&site::plan_with(&format!("[nat]\n{lines}")), site::RULES);
    let seeds = seeds(&mut world);
    for judge in &mut world.judges {
        judge.transport = false;
    }
    for round in 0..25_000 {
        for (port, name) in [(0, "uplink"), (1, "work")] {
            let seed = &seeds[port][chance.below(seeds[port].len())];
            let octets = mutated(&mut chance, seed);
            let sender = if port == 0 { "192.0.2.1" } else { "10.0.1.7" };
            let mut frame = frame(port_station(port), station(address(sender)), 0x0800, &octets);
            if chance.happens(3) {
                let at = chance.below(14);
                frame[at] = chance.octet();
            }
            let checksum = match chance.below(10) {
                0 => Checksum::Verified,
                1 => Checksum::Partial { start: 34, offset: chance.pick(&[6, 16]) },
                2 => Checksum::Partial { start: chance.half(), offset: chance.half() },
                _ => Checksum::Unverified,
            };
            let size = NonZeroU16::new(chance.half()).filter(|_| chance.happens(4));
            let segments = size.map(|size| Segments { size, is_ecn: chance.happens(2) });
            world.inject(name, &frame, Offload { checksum, segments });
        }
        world.settle();
        world.forget();
        if round % 500 == 0 {
            world.pass_seconds(1);
        }
    }
    let judged = |port| world.forwarded(port) as f64 / 25_000.0;
    println!("forwarded: {} from the uplink, {} from a client", judged("uplink"), judged("work"));
    assert!(judged("uplink") > 0.05 && judged("work") > 0.05, "the mutants are too sick to be a test");
    // What is held for six seconds is told as it came.
    world.pass_in_steps(10, 1);
    world.forget();
    for judge in &mut world.judges {
        judge.transport = true;
    }
    // A table that is full has room again when time has passed.
    if world.occupancy().sessions < world.site.nat.sessions / 4 {
        works(&mut world);
    }
    nothing_is_left(&mut world);
}

#[test]
fn mutated_packets_from_both_sides_harm_nobody_and_leak_nothing() {
    mutants("", 1);
}

#[test]
fn so_do_mutants_where_anybody_is_let_in_and_connections_are_picked_up() {
    mutants("filtering = \"endpoint-independent\"\npickup = true\nport_rest = 0", 3);
}

#[test]
fn so_do_mutants_where_tables_are_small_and_syns_are_answered() {
    mutants(
        "sessions = 64\nfiltering = \"address-dependent\"\ninbound_refresh = true\n\
         syn_answer = \"port-unreachable\"\nfragments = \"64K\"",
        4,
    );
}

#[test]
fn random_frames_of_any_length_harm_nobody() {
    let mut chance = Chance::from_environment(2);
    let mut world = World::default();
    for judge in &mut world.judges {
        judge.transport = false;
    }
    for _ in 0..10_000 {
        let length = chance.below(200);
        let mut octets = chance.octets(length);
        let port = chance.below(3);
        if length >= 14 && chance.happens(90) {
            octets[..6].copy_from_slice(&port_station(port).0);
            octets[6] &= 0xfe;
            octets[12..14].copy_from_slice(&chance.pick(&[[8, 0], [8, 6]]));
        }
        let name = chance.pick(&[["uplink"], ["work"], ["lab"]])[0];
        let ports = ["uplink", "work", "lab"];
        let name = if chance.happens(90) { ports[port] } else { name };
        world.send_frame(name, &octets);
    }
    for judge in &mut world.judges {
        judge.transport = true;
    }
    nothing_is_left(&mut world);
}

#[test]
fn a_flood_of_5000_arp_senders_changes_nothing_for_others() {
    let plan = tests::site::PLAN.replace("10.0.2.1/24", "10.2.0.1/16");
    let mut world = World::new(&plan, tests::site::RULES);
    let external = world.open_udp(CLIENT, SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    let own = address("10.2.0.1");
    for n in 0..5000u32 {
        let host = Ipv4Addr::from(address("10.2.1.1").to_bits() + n);
        let claim = arp(ArpOperation::Request, (station(host), host), (EthernetAddress([0; 6]), own));
        let octets = arp_octets(&claim);
        world.send_frame("lab", &frame(EthernetAddress::BROADCAST, station(host), 0x0806, &octets));
        if n % 1499 == 0 {
            world.forget();
            world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
            world.cross("uplink", "work", udp(SERVER, external, b"in"));
            assert!(world.arps("uplink").is_empty() && world.arps("work").is_empty(), "asked for again");
        }
    }
    world.forget();
    assert!(world.occupancy().neighbors <= firewall::neighbor::NEIGHBORS);
    // Who is in use was not asked for again, and a new neighbour finds its place.
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
    assert!(world.arps("uplink").is_empty(), "the gateway was forgotten");
    world.cross("work", "uplink", udp(CLIENT, "192.0.2.77:1", b"out"));
    let external = world.open_udp("10.0.1.8:5000", SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
}

#[test]
fn a_scan_of_a_subnet_where_nobody_answers_holds_up_nobody() {
    let plan = tests::site::PLAN.replace("192.0.2.2/24", "192.0.2.2/20").replace("192.0.2.1", "192.0.1.1");
    let mut world = World::new(&plan, tests::site::RULES);
    let gateway = address("192.0.1.1");
    world.open_udp("10.0.2.9:5000", SERVER);
    world.answering = false;
    let before = world.held("work");
    for n in 0..3000u32 {
        let host = Ipv4Addr::from(address("192.0.3.1").to_bits() + n);
        world.send("work", udp((address("10.0.1.7"), 5000), (host, 53), b"scan"));
        if n % 1499 == 0 {
            // The gateway is in use, be it ever so seldom.
            let seen = world.cross("lab", "uplink", udp("10.0.2.9:5000", SERVER, b"out"));
            assert_eq!(seen.station(), station(gateway));
        }
    }
    assert!(world.held("work") - before <= firewall::neighbor::WAITING);
    assert!(world.occupancy().neighbors <= firewall::neighbor::NEIGHBORS);
    world.answering = true;
    for _ in 0..200 {
        world.pass_seconds(1);
    }
    assert_eq!(world.held("work"), 0);
}

#[test]
fn a_flood_of_fragments_is_bounded_and_holds_up_nobody() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    for n in 0..20_000u32 {
        let whole = udp(CLIENT, SERVER, &[0; 100]).identification(n as u16);
        world.queue("work", whole.fragment(if n % 2 == 0 { 48..96 } else { 48..108 }));
        if n % 512 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.quiet();
    // Its own oldest ended for each.
    world.pass_seconds(1);
    let ended = world.drops("work", Dropped::FragmentQuota) + world.drops("work", Dropped::FragmentTimeout);
    assert!(ended > 19_000, "{ended}");
    assert!(world.held("work") <= firewall::fragment::QUOTA);
    // Another client's datagrams pass meanwhile, back to front.
    let whole = udp("10.0.1.99:5000", SERVER, &[1; 100]);
    world.send("work", whole.clone().fragment(48..108));
    world.quiet();
    world.send("work", whole.fragment(0..48));
    assert_eq!(world.sent("uplink").len(), 2);
    works(&mut world);
    nothing_is_left(&mut world);
}

#[test]
fn an_uplink_that_stops_reading_costs_the_clients_nothing() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    world.cross("work", "lab", udp(CLIENT, "10.0.2.9:7000", b"inside"));
    world.set_reading("uplink", false);
    for _ in 0..1024 {
        world.send("work", udp(CLIENT, SERVER, b"out"));
    }
    assert_eq!(world.drops("work", Dropped::TransmitQueue), 0, "the queue is that long");
    for n in 1..=5000 {
        world.send("work", udp(CLIENT, SERVER, b"out"));
        assert_eq!(world.drops("work", Dropped::TransmitQueue), n);
    }
    world.cross("work", "lab", udp(CLIENT, "10.0.2.9:7000", b"inside"));
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    world.answer("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x"));
    assert_eq!(world.held("work"), 0);
    world.set_reading("uplink", true);
    world.settle();
    assert_eq!(world.sent("uplink").len(), 1024);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
    nothing_is_left(&mut world);
}

#[test]
fn a_client_that_stops_reading_costs_the_others_nothing() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let other = world.open_udp("10.0.2.9:7000", SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    world.wire("work").set(|settings| settings.full = true);
    for _ in 0..1000 {
        world.send("uplink", udp(SERVER, external, b"in"));
        world.send("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x"));
        world.send("work", udp(CLIENT, SERVER, b"x").ttl(1));
        world.cross("uplink", "lab", udp(SERVER, other, b"in"));
    }
    assert_eq!(world.drops("uplink", Dropped::TransmitQueue), 1000);
    assert_eq!((world.held("uplink"), world.held("work")), (0, 0));
    world.wire("work").set(|settings| settings.full = false);
    nothing_is_left(&mut world);
}

#[test]
fn a_link_that_goes_down_while_packets_wait_gives_their_buffers_back() {
    let mut world = World::default();
    world.answering = false;
    for host in 50..70 {
        world.send("work", udp((address("10.0.1.7"), 5000), (Ipv4Addr::new(192, 0, 2, host), 53), b"x"));
    }
    assert_eq!(world.held("work"), 20);
    world.wire("uplink").set(|settings| settings.up = false);
    world.pass_in_steps(30, 1);
    assert_eq!(world.held("work"), 0);
    world.wire("uplink").set(|settings| settings.up = true);
    world.answering = true;
    nothing_is_left(&mut world);
}

#[test]
fn sessions_of_every_kind_by_the_thousand_leave_nothing() {
    let mut world = World::default();
    for n in 0..3000u16 {
        let host = Ipv4Addr::new(10, 0, 1, 10 + (n % 100) as u8);
        let port = 1024 + n;
        world.queue("work", udp((host, port), SERVER, b"x"));
        world.queue("work", tcp((host, port), "198.51.100.9:80", SYN, b""));
        world.queue("work", echo(host, "198.51.100.9", n, 1, b"x"));
        world.queue("uplink", udp(("198.51.100.9", port), "192.0.2.2:8080", b"x"));
        if n % 64 == 0 {
            world.settle();
            world.forget();
        }
    }
    world.settle();
    assert_eq!(world.occupancy().sessions, 12_000);
    nothing_is_left(&mut world);
}

/// A log that counts what it is told.
struct Counted(std::sync::atomic::AtomicUsize);

impl log::Log for Counted {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn flush(&self) {}
}

static LOG: Counted = Counted(std::sync::atomic::AtomicUsize::new(0));

#[test]
fn a_client_cannot_flood_the_log() {
    log::set_logger(&LOG).expect("no other test logs");
    log::set_max_level(log::LevelFilter::Trace);
    let plan = tests::site::plan_with("[nat]\nsessions = 64");
    let mut world = World::new(&plan, tests::site::RULES);
    for n in 0..20_000u16 {
        world.send("work", udp(("10.0.1.7", 1024 + n), SERVER, b"x"));
        world.send("work", udp(("10.0.9.9", 1024 + n), SERVER, b"spoofed"));
        world.send("uplink", udp(("198.51.100.9", 1024 + n), "192.0.2.2:22", b"x"));
        world.forget();
    }
    let lines = LOG.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=30).contains(&lines), "{lines} lines");
}
