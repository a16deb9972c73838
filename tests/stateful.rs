//! Rules that remember, at work: limits and sets in time, marks of connections, segments that are made smaller.

use firewall::Dropped;
use tests::flags::{ACK, RST, SYN};
use tests::packet::Segment;
use tests::{World, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const OTHER: &str = "10.0.1.8:6000";
const EXTERNAL: &str = "192.0.2.2:5000";
const SERVER: &str = "198.51.100.9:80";

/// A policy with these lines in its table and in a forward chain that drops the rest; masquerade to the uplink.
fn world(table: &str, rules: &str) -> World {
    let policy = format!(
        "table ip filter {{\n{table}\n chain forward {{ type filter hook forward priority filter; policy drop;\n{rules}\n }}\n}}\n\
         table ip nat {{ chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         oifname \"uplink\" masquerade\n}}\n}}\n"
    );
    World::new(site::PLAN, &policy)
}

#[test]
fn a_limit_holds_within_a_session_and_fills_with_time() {
    let mut world = world("", "limit rate 2/second burst 3 packets accept");
    for _ in 0..3 {
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    }
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
    world.pass_seconds(1);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
}

#[test]
fn a_set_that_packets_fill_is_emptied_by_time() {
    let table = " set knocked { type ipv4_addr; flags dynamic,timeout; timeout 10s; size 100; }";
    let mut world = world(table, "udp dport 7 add @knocked { ip saddr } drop\nip saddr @knocked accept");
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
    world.refuse("work", udp(CLIENT, "198.51.100.9:7", b"knock"), Dropped::Policy);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.refuse("work", udp(OTHER, SERVER, b"x"), Dropped::Policy);
    world.pass_seconds(9);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.pass_seconds(1);
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
}

#[test]
fn connections_are_counted_until_they_end() {
    let rules = "ip saddr 10.0.1.0/24 ct count over 2 drop\naccept";
    let mut world = world("", rules);
    let reset = || Segment { flags: RST, seq: 1001, ..Segment::default() };
    let syn = || Segment { flags: SYN, seq: 1000, ..Segment::default() };
    world.cross("work", "uplink", tcp(CLIENT, SERVER, syn(), b""));
    world.cross("work", "uplink", udp(OTHER, SERVER, b"x"));
    for _ in 0..2 {
        world.cross("work", "uplink", udp(OTHER, SERVER, b"again"));
        world.refuse("work", udp("10.0.1.9:7000", SERVER, b"x"), Dropped::Policy);
    }
    // One that was refused is not counted; one that is reset no longer.
    world.cross("work", "uplink", tcp(CLIENT, SERVER, reset(), b""));
    world.cross("work", "uplink", udp("10.0.1.9:7000", SERVER, b"x"));
    world.refuse("work", udp("10.0.1.9:7001", SERVER, b"x"), Dropped::Policy);
    world.pass_seconds(1000);
    assert_eq!(world.occupancy().sessions, 0);
    for port in 7001..7003 {
        world.cross("work", "uplink", udp(format!("10.0.1.9:{port}").as_str(), SERVER, b"x"));
    }
    world.refuse("work", udp("10.0.1.9:7003", SERVER, b"x"), Dropped::Policy);
}

#[test]
fn connections_are_counted_for_each_element() {
    let table = " set busy { type ipv4_addr; flags dynamic; size 100; }";
    let mut world = world(table, "oifname uplink add @busy { ip saddr ct count over 1 } drop\naccept");
    for host in ["10.0.1.7", "10.0.1.8"] {
        world.cross("work", "uplink", udp(format!("{host}:5000").as_str(), SERVER, b"x"));
        world.refuse("work", udp(format!("{host}:5001").as_str(), SERVER, b"x"), Dropped::Policy);
        world.cross("work", "uplink", udp(format!("{host}:5000").as_str(), SERVER, b"more"));
    }
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"answer"));
}

#[test]
fn a_mark_stays_with_its_connection_and_no_other() {
    let mut world =
        world("", "ct state new ip length 29 ct mark set 7\nct mark 7 accept\nct state new accept");
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"answer"));
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"more"));
    // Unmarked: let in while it is new, not when it is established.
    world.cross("work", "uplink", udp(OTHER, SERVER, b"other"));
    world.refuse("uplink", udp(SERVER, "192.0.2.2:6000", b"answer"), Dropped::Policy);
}

#[test]
fn a_new_session_in_an_old_place_has_no_mark() {
    let mut world = world("", "ip saddr 10.0.1.7 ct state new ct mark set 7\nct mark 7 accept");
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.pass_seconds(1000);
    assert_eq!(world.occupancy().sessions, 0);
    world.refuse("work", udp(OTHER, SERVER, b"x"), Dropped::Policy);
}

#[test]
fn rfc_9293_3_7_1_a_syn_offers_no_more_than_a_rule_lets_it() {
    let mut world = world("", "tcp flags syn tcp option maxseg size set 1200\naccept");
    let offers =
        |options: &[u8]| Segment { flags: SYN, seq: 1, options: options.to_vec(), ..Segment::default() };
    let out =
        world.cross("work", "uplink", tcp(CLIENT, SERVER, offers(&[1, 2, 4, 0x05, 0xb4, 1, 1, 0]), b""));
    assert_eq!(out.tcp().options.as_slice(), [1, 2, 4, 0x04, 0xb0, 1, 1, 0]);
    let answer =
        Segment { flags: SYN | ACK, seq: 9, ack: 2, options: vec![2, 4, 0x02, 0x18], ..Segment::default() };
    let back = world.cross("uplink", "work", tcp(SERVER, EXTERNAL, answer, b""));
    assert_eq!(back.tcp().options.as_slice(), [2, 4, 0x02, 0x18], "it is less already");
    let data = world.cross("work", "uplink", tcp(CLIENT, SERVER, (ACK, 2, 10), b"data"));
    assert_eq!(data.data(), b"data");
}

#[test]
fn a_syn_offers_what_the_links_take() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"\n", "gateway = \"192.0.2.1\"\nmtu = 1400\n");
    let rules =
        "table ip f { chain c { type filter hook forward priority 0; tcp option maxseg size set rt mtu
}
chain n { type nat hook postrouting priority srcnat; oifname uplink masquerade
}
}
";
    let mut world = World::new(&plan, rules);
    let offers = Segment { flags: SYN, seq: 1, options: vec![2, 4, 0x05, 0xb4], ..Segment::default() };
    let out = world.cross("work", "uplink", tcp(CLIENT, SERVER, offers, b""));
    assert_eq!(out.tcp().options.as_slice(), [2, 4, 0x05, 0x50], "1360 of a link of 1400");
}
