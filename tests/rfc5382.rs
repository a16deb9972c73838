//! RFC 5382, with RFC 7857, RFC 5961 and RFC 6191: how a NAT treats TCP.

use std::collections::BTreeSet;

use firewall::Dropped;
use smoltcp::time::Duration;
use tests::flags::{ACK, FIN, PSH, RST, SYN, URG};
use tests::packet::address;
use tests::{Connection, World, icmp_error, site, tcp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:80";

#[test]
fn req_1_one_internal_endpoint_keeps_one_external_endpoint_to_every_destination() {
    let mut world = World::default();
    Connection::open(&mut world, "10.0.1.6:5000", SERVER);
    let first = Connection::open(&mut world, CLIENT, SERVER).external;
    assert_ne!(first.port(), 5000, "a collision, so that preservation does not hide a fault");
    for to in ["198.51.100.9:443", "198.51.100.10:80", "203.0.113.1:65000"] {
        assert_eq!(Connection::open(&mut world, CLIENT, to).external, first);
    }
    assert_eq!(world.occupancy().mappings, 2);
}

#[test]
fn req_1_tcp_and_udp_mappings_are_apart() {
    let mut world = World::default();
    Connection::open(&mut world, "10.0.1.6:5000", SERVER);
    let udp = world.open_udp("10.0.1.7:5000", SERVER);
    assert_eq!(udp.port(), 5000, "the TCP port of the same number is another");
}

#[test]
fn req_2_the_three_way_handshake_data_and_close_cross() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    for _ in 0..5 {
        connection.talk(&mut world);
    }
    connection.close(&mut world);
    assert_eq!(world.occupancy().sessions, 1);
}

#[test]
fn req_2_a_simultaneous_open_establishes() {
    let mut world = World::default();
    let mut connection = Connection::begin(&mut world, CLIENT, SERVER);
    // Both SYNs cross on the way, then both are acknowledged.
    let syn = tcp(SERVER, connection.external, (SYN, 4999, 0), b"");
    world.cross("uplink", "work", syn);
    world.cross("work", "uplink", tcp(CLIENT, SERVER, (SYN | ACK, 999, 5000), b""));
    let answer = tcp(SERVER, connection.external, (SYN | ACK, 4999, 1000), b"");
    world.cross("uplink", "work", answer);
    connection.outward(&mut world, ACK, b"");
    connection.talk(&mut world);
    world.pass_seconds(7000);
    connection.talk(&mut world);
}

#[test]
fn req_2_a_static_forward_takes_connections_from_outside() {
    let mut world = World::default();
    let remote = "198.51.100.9:4000";
    let seen = world.cross("uplink", "work", tcp(remote, "192.0.2.2:8080", (SYN, 50, 0), b""));
    assert_eq!((seen.from(), seen.to()), (remote.parse().unwrap(), "10.0.1.2:80".parse().unwrap()));
    let seen = world.cross("work", "uplink", tcp("10.0.1.2:80", remote, (SYN | ACK, 60, 51), b""));
    assert_eq!(seen.from(), "192.0.2.2:8080".parse().unwrap());
    world.cross("uplink", "work", tcp(remote, "192.0.2.2:8080", (ACK, 51, 61), b""));
    world.cross("uplink", "work", tcp(remote, "192.0.2.2:8080", (ACK | PSH, 51, 61), b"ask"));
    world.cross("work", "uplink", tcp("10.0.1.2:80", remote, (ACK | PSH, 61, 54), b"tell"));
    world.pass_seconds(7000);
    world.cross("uplink", "work", tcp(remote, "192.0.2.2:8080", (ACK | PSH, 54, 65), b"ask"));
}

#[test]
fn req_3_filtering_is_address_and_port_dependent() {
    let mut world = World::default();
    let connection = Connection::open(&mut world, CLIENT, SERVER);
    for stranger in ["198.51.100.9:81", "198.51.100.10:80"] {
        let syn = tcp(stranger, connection.external, (SYN, 1, 0), b"");
        world.refuse("uplink", syn, Dropped::Policy);
    }
    assert_eq!(world.occupancy().sessions, 1);
}

#[test]
fn req_4_an_unsolicited_syn_meets_silence() {
    let open = site::RULES.replace("icmp type echo-request accept", "accept");
    for (rules, reason) in [(site::RULES, Dropped::Policy), (&open, Dropped::Unsolicited)] {
        let mut world = World::new(site::PLAN, rules);
        for port in [22, 1024, 33999, 65535] {
            let syn = tcp(SERVER, ("192.0.2.2", port), (SYN, 1000, 0), b"");
            world.refuse("uplink", syn, reason);
        }
        for _ in 0..10 {
            world.pass_seconds(1);
            world.quiet();
        }
    }
}

#[test]
fn req_5_an_established_connection_lives_7440_seconds_and_then_ends() {
    for (age, alive) in [(7430, true), (7440, true), (7442, false)] {
        let mut world = World::default();
        let mut connection = Connection::open(&mut world, CLIENT, SERVER);
        connection.talk(&mut world);
        world.pass_seconds(age);
        assert_eq!(connection.is_alive(&mut world), alive, "after {age} s");
        assert_eq!(world.occupancy().sessions, u32::from(alive));
    }
}

#[test]
fn req_5_the_port_stays_after_two_hours_of_silence() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    for _ in 0..3 {
        world.pass_seconds(7430);
        connection.talk(&mut world);
    }
    connection.close(&mut world);
}

/// A connection in a state for which the transitory idle time holds.
type Transitory = fn(&mut World) -> Connection;

const TRANSITORY: [(&str, Transitory); 7] = [
    ("SYN sent", |world| Connection::begin(world, CLIENT, SERVER)),
    ("SYN received", |world| {
        let mut connection = Connection::begin(world, CLIENT, SERVER);
        connection.server_seq = 4999;
        connection.inward(world, SYN | ACK, b"");
        connection
    }),
    ("the client's FIN", |world| {
        let mut connection = Connection::open(world, CLIENT, SERVER);
        connection.talk(world);
        connection.outward(world, FIN | ACK, b"");
        connection.inward(world, ACK, b"");
        connection
    }),
    ("the server's FIN", |world| {
        let mut connection = Connection::open(world, CLIENT, SERVER);
        connection.talk(world);
        connection.inward(world, FIN | ACK, b"");
        connection.outward(world, ACK, b"");
        connection
    }),
    ("both FINs", |world| {
        let mut connection = Connection::open(world, CLIENT, SERVER);
        connection.talk(world);
        connection.close(world);
        connection
    }),
    ("the server's RST", |world| {
        let mut connection = Connection::open(world, CLIENT, SERVER);
        connection.talk(world);
        connection.inward(world, RST | ACK, b"");
        connection
    }),
    ("the client's RST", |world| {
        let mut connection = Connection::open(world, CLIENT, SERVER);
        connection.talk(world);
        connection.outward(world, RST | ACK, b"");
        connection
    }),
];

#[test]
fn req_5_opening_closing_and_reset_connections_live_240_seconds_and_then_end() {
    for (state, connection) in TRANSITORY {
        for (age, alive) in [(239, true), (240, true), (242, false)] {
            let mut world = World::default();
            let connection = connection(&mut world);
            world.pass_seconds(age);
            assert_eq!(connection.is_alive(&mut world), alive, "{state}, after {age} s");
            assert_eq!(world.occupancy().mappings, u32::from(alive), "{state}");
        }
    }
}

#[test]
fn req_5_idle_times_are_what_the_site_says() {
    let plan = site::plan_with("[nat.timeout]\ntcp_established = 8000\ntcp_transitory = 300");
    let mut world = World::new(&plan, site::RULES);
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    world.pass_seconds(7999);
    assert!(connection.is_alive(&mut world));
    connection.close(&mut world);
    world.pass_seconds(299);
    assert!(connection.is_alive(&mut world));
    world.pass_seconds(302);
    assert!(!connection.is_alive(&mut world));
}

#[test]
fn rfc_7857_2_2_a_reset_connection_is_established_again_when_traffic_resumes() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    connection.reset(&mut world);
    world.pass_seconds(200);
    connection.talk(&mut world);
    world.pass_seconds(7000);
    assert!(connection.is_alive(&mut world));
}

#[test]
fn rfc_7857_a_reset_is_translated_both_ways() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    assert_eq!(connection.inward(&mut world, RST | ACK, b"").tcp_flags(), RST | ACK);
    let mut connection = Connection::open(&mut world, "10.0.1.7:5001", SERVER);
    assert_eq!(connection.outward(&mut world, RST, b"").tcp_flags(), RST);
}

#[test]
fn rfc_9293_a_reset_that_does_not_acknowledge_the_syn_is_dropped() {
    let mut world = World::default();
    let mut connection = Connection::begin(&mut world, CLIENT, SERVER);
    for (flags, ack) in [(RST, 0), (RST, 1000), (RST | ACK, 999), (RST | ACK, 1001), (RST | ACK, 0)] {
        let reset = tcp(SERVER, connection.external, (flags, 0, ack), b"");
        world.refuse("uplink", reset, Dropped::TcpState);
    }
    let refused = tcp(SERVER, connection.external, (RST | ACK, 0, 1000), b"");
    world.cross("uplink", "work", refused);
    // A new attempt uses the same mapping.
    connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    assert_eq!(world.occupancy().sessions, 1);
}

#[test]
fn rfc_5961_4_a_blind_syn_on_a_live_session_neither_ends_nor_shortens_it() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    // What the endpoint makes of it is the endpoint's business (RFC 5961 4.2).
    world.send("uplink", tcp(SERVER, connection.external, (SYN, 77, 0), b""));
    world.send("work", tcp(CLIENT, SERVER, (SYN, 77, 0), b""));
    world.forget();
    world.pass_seconds(7000);
    assert!(connection.is_alive(&mut world));
    connection.talk(&mut world);
}

#[test]
fn rfc_9293_3_10_7_4_segments_outside_of_their_windows_are_dropped_and_counted() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    let (client, server) = (connection.client_seq, connection.server_seq);
    let far = 1 << 20;
    for (seq, ack) in [(server.wrapping_add(far), client), (server.wrapping_sub(far), client)] {
        let blind = tcp(SERVER, connection.external, (ACK, seq, ack), b"injected");
        world.refuse("uplink", blind, Dropped::TcpWindow);
    }
    // An acknowledgement of what was never sent.
    let blind = tcp(SERVER, connection.external, (ACK, server, client.wrapping_add(far)), b"injected");
    world.refuse("uplink", blind, Dropped::TcpWindow);
    let blind = tcp(CLIENT, SERVER, (ACK, client.wrapping_add(far), server), b"injected");
    world.refuse("work", blind, Dropped::TcpWindow);
    connection.talk(&mut world);
    assert!(connection.is_alive(&mut world));
}

#[test]
fn req_14_a_segment_in_fragments_and_what_acknowledges_it_cross_both_ways() {
    for backwards in [false, true] {
        let mut world = World::default();
        let mut connection = Connection::open(&mut world, CLIENT, SERVER);
        for round in 0..3 {
            let data = [round; 4000];
            for (input, output) in [("work", "uplink"), ("uplink", "work")] {
                let segment = match input {
                    "work" => connection.from_client(ACK | PSH, &data),
                    _ => connection.from_server(ACK | PSH, &data),
                };
                let segment = segment.identification(u16::from(round) + 1);
                let mut cuts = [0..1480, 1480..2960, 2960..4020];
                if backwards {
                    cuts.reverse();
                }
                cuts.into_iter().for_each(|cut| world.send(input, segment.clone().fragment(cut)));
                assert_eq!(world.sent(output).len(), 3, "{input}");
                match input {
                    "work" => connection.client_seq += 4000,
                    _ => connection.server_seq += 4000,
                }
            }
            connection.talk(&mut world);
        }
        assert_eq!(world.all_drops("work").len() + world.all_drops("uplink").len(), 0);
    }
}

#[test]
fn rfc_6191_a_syn_opens_a_closed_connection_again() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    connection.close(&mut world);
    // Beyond the numbers of the old one (RFC 6191 2).
    let mut again = Connection { client_seq: 100_000, server_seq: 200_000, ..connection };
    again.outward(&mut world, SYN, b"");
    again.inward(&mut world, SYN | ACK, b"");
    again.outward(&mut world, ACK, b"");
    assert_eq!(again.external, connection.external);
    world.pass_seconds(7000);
    assert!(again.is_alive(&mut world));
}

#[test]
fn segments_that_open_nothing_are_invalid() {
    for (rules, reason) in [
        (site::RULES.to_string(), Dropped::Policy),
        (site::RULES.replace("ct state invalid drop", ""), Dropped::Invalid),
    ] {
        let mut world = World::new(site::PLAN, &rules);
        let christmas = FIN | URG | PSH;
        for flags in [0, ACK, SYN | ACK, FIN, FIN | ACK, RST, RST | ACK, SYN | FIN, SYN | RST, christmas] {
            world.refuse("work", tcp(CLIENT, SERVER, flags, b"x"), reason);
            world.send("uplink", tcp(SERVER, "192.0.2.2:8080", flags, b"x"));
            world.quiet();
        }
        assert_eq!(world.occupancy().sessions, 0);
        assert_eq!(world.drops("work", reason), 10);
    }
}

#[test]
fn req_7_no_port_is_overloaded() {
    let mut world = World::default();
    let mut ports = BTreeSet::new();
    for host in 2..100 {
        let client = format!("10.0.1.{host}:6001");
        let server = format!("198.51.100.{host}:80");
        let external = Connection::open(&mut world, client.as_str(), server.as_str()).external;
        assert!(ports.insert(external.port()), "{external} is used twice");
        assert_eq!(external.port() % 2, 1);
    }
}

#[test]
fn req_7_the_port_of_a_static_forward_is_reserved() {
    let mut world = World::default();
    let external = Connection::open(&mut world, "10.0.1.7:8080", SERVER).external;
    assert_ne!(external.port(), 8080);
}

#[test]
fn req_8_hairpin_through_a_static_forward_shows_the_external_endpoint() {
    let mut world = World::default();
    let outside = Connection::open(&mut world, "10.0.1.3:5000", SERVER).external;
    for (port, client) in [("work", "10.0.1.3:5000"), ("lab", "10.0.2.9:5000")] {
        let syn = tcp(client, "192.0.2.2:8080", (SYN, 100, 0), b"");
        let seen = world.cross(port, "work", syn);
        let shown = seen.from();
        assert_eq!(seen.source(), *outside.ip());
        assert_eq!(shown == outside, port == "work", "one mapping each");
        assert_eq!(seen.to(), "10.0.1.2:80".parse().unwrap());
        let answer = tcp("10.0.1.2:80", shown, (SYN | ACK, 900, 101), b"");
        let seen = world.cross("work", port, answer);
        assert_eq!(seen.from(), "192.0.2.2:8080".parse().unwrap());
        assert_eq!(seen.to(), client.parse().unwrap());
        let data = tcp(client, "192.0.2.2:8080", (ACK | PSH, 101, 901), b"data");
        assert_eq!(world.cross(port, "work", data).data(), b"data");
    }
}

#[test]
fn req_10_no_icmp_error_ends_a_connection() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    let seen = connection.outward(&mut world, ACK | PSH, b"data");
    for kind in (0..16).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (4, 0)]) {
        let error = icmp_error("198.51.100.9", "192.0.2.2", kind, seen.octets.clone());
        world.send("uplink", error);
    }
    world.forget();
    connection.talk(&mut world);
    world.pass_seconds(7400);
    assert!(connection.is_alive(&mut world));
}

#[test]
fn req_10_no_icmp_error_refreshes_a_connection() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    let seen = connection.outward(&mut world, ACK | PSH, b"data");
    world.pass_seconds(7400);
    world.cross("uplink", "work", icmp_error("198.51.100.1", "192.0.2.2", (3, 1), seen.octets.clone()));
    world.pass_seconds(42);
    assert!(!connection.is_alive(&mut world));
}

#[test]
fn req_6_no_alg_changes_a_segment() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, "10.0.1.7:5000", "198.51.100.9:21");
    let data = b"PORT 10,0,1,7,19,136\r\n";
    assert_eq!(session.outward(&mut world, ACK | PSH, data).data(), data);
    assert_eq!(session.inward(&mut world, ACK | PSH, data).data(), data);
}

#[test]
fn req_9_an_icmp_error_about_a_segment_reaches_its_sender() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, "10.0.1.7:5000", "198.51.100.9:80");
    let seen = session.outward(&mut world, ACK | PSH, b"data");
    let error = icmp_error("198.51.100.1", "192.0.2.2", (3, 4), seen.octets.clone());
    let got = world.cross("uplink", "work", error);
    assert_eq!((got.icmp(), got.icmp_word()), ((3, 4), [0, 0, 0x05, 0x14]));
    assert_eq!(got.quote().from().to_string(), "10.0.1.7:5000");
}

#[test]
fn req_8_tcp_is_hairpinned_through_a_mapping() {
    let mut world = World::default();
    let server = Connection::open(&mut world, "10.0.2.9:6000", "198.51.100.9:80");
    let external = server.external;
    let client = Connection::begin(&mut world, "10.0.1.7:5000", "198.51.100.9:80").external;
    world.forget();
    let seen = world.cross("work", "lab", tcp("10.0.1.7:5000", external, (SYN, 7, 0), b""));
    assert_eq!((seen.from(), seen.to().to_string()), (client, "10.0.2.9:6000".to_owned()));
    let back = world.cross("lab", "work", tcp("10.0.2.9:6000", client, (SYN | ACK, 9, 8), b""));
    assert_eq!((back.from(), back.to().to_string()), (external, "10.0.1.7:5000".to_owned()));
}

#[test]
fn pick_up_lets_a_connection_go_on_whose_beginning_nobody_saw() {
    let segment = || tcp("10.0.1.7:5000", "198.51.100.9:80", (ACK | PSH, 7, 9), b"data");
    World::default().refuse("work", segment(), Dropped::Policy);
    let plan = format!("{}\n[nat]\npickup = true\n", site::PLAN);
    let mut world = World::new(&plan, site::RULES);
    let seen = world.cross("work", "uplink", segment());
    world.cross("uplink", "work", tcp("198.51.100.9:80", seen.from(), (ACK | PSH, 9, 11), b"answer"));
    world.refuse("work", tcp("10.0.1.7:5001", "198.51.100.9:80", (FIN | ACK, 7, 9), b""), Dropped::Policy);
}

/// The site whose owner wants unsolicited SYNs answered.
fn answering() -> World {
    World::new(&site::plan_with("[nat]\nsyn_answer = \"port-unreachable\""), site::RULES)
}

#[test]
fn req_4_an_unsolicited_syn_meets_six_seconds_of_silence_and_then_port_unreachable() {
    let mut world = answering();
    let mut syn = tcp(SERVER, "192.0.2.2:5000", SYN, b"");
    syn.header.identification = 77;
    world.refuse("uplink", &syn, Dropped::Unsolicited);
    world.pass(Duration::from_millis(5_999));
    world.quiet();
    // Sent once more, it does not wait longer, nor is it answered twice.
    world.refuse("uplink", &syn, Dropped::Unsolicited);
    // It is due, and the next round of upkeep says so.
    world.pass(Duration::from_millis(10));
    let error = world.only("uplink");
    assert_eq!((error.icmp(), error.quote().octets), ((3, 3), syn.octets()));
    assert_eq!((error.source(), error.destination()), (address("192.0.2.2"), address("198.51.100.9")));
    world.pass_in_steps(20, 1);
    world.quiet();
    assert_eq!((world.occupancy().sessions, world.held("uplink")), (0, 0));
}

#[test]
fn req_4_a_syn_from_inside_cancels_the_error_and_the_retransmission_opens_the_connection() {
    let mut world = answering();
    let inward = tcp(SERVER, "192.0.2.2:5000", (SYN, 4999, 0), b"");
    world.refuse("uplink", &inward, Dropped::Unsolicited);
    world.pass_seconds(5);
    let seen = world.cross("work", "uplink", tcp(CLIENT, SERVER, (SYN, 999, 0), b""));
    assert_eq!(seen.from(), "192.0.2.2:5000".parse().unwrap());
    assert_eq!(world.held("uplink"), 0, "it is never forwarded");
    world.pass_in_steps(20, 1);
    world.quiet();
    let seen = world.cross("uplink", "work", &inward);
    assert_eq!((seen.to(), seen.tcp_flags()), (CLIENT.parse().unwrap(), SYN));
    world.cross("work", "uplink", tcp(CLIENT, SERVER, (SYN | ACK, 999, 5000), b""));
    world.cross("uplink", "work", tcp(SERVER, "192.0.2.2:5000", (ACK, 5000, 1000), b""));
}

#[test]
fn req_4_a_syn_from_inside_to_another_peer_cancels_nothing() {
    let mut world = answering();
    world.refuse("uplink", tcp(SERVER, "192.0.2.2:5000", SYN, b""), Dropped::Unsolicited);
    world.cross("work", "uplink", tcp(CLIENT, "198.51.100.8:53", SYN, b""));
    world.pass_seconds(6);
    assert_eq!(world.only("uplink").icmp(), (3, 3));
}

#[test]
fn req_4_unsolicited_syns_are_silent_by_default_and_where_a_rule_drops_them() {
    let dropped = site::RULES.replace("icmp type echo-request accept", "tcp dport 5000 drop\n    accept");
    let plan = site::plan_with("[nat]\nsyn_answer = \"port-unreachable\"");
    for mut world in [World::default(), World::new(&plan, &dropped)] {
        world.refuse("uplink", tcp(SERVER, "192.0.2.2:5000", SYN, b""), Dropped::Policy);
        world.pass_in_steps(20, 1);
        world.quiet();
    }
    // An error is about a SYN alone.
    let mut world = World::new(&plan, &dropped);
    for flags in [ACK, SYN | ACK, FIN | ACK] {
        world.send("uplink", tcp(SERVER, "192.0.2.2:6000", flags, b""));
    }
    world.pass_in_steps(20, 1);
    world.quiet();
}

#[test]
fn req_4_a_flood_of_unsolicited_syns_holds_no_more_than_its_share_and_answers_are_limited() {
    let mut world = answering();
    for port in 1..2000 {
        world.send("uplink", tcp(("198.51.100.9", port), "192.0.2.2:5000", SYN, b""));
    }
    assert_eq!(world.held("uplink"), 8);
    for host in 10..250 {
        world.send("uplink", tcp((format!("198.51.100.{host}").as_str(), 1), "192.0.2.2:5000", SYN, b""));
    }
    assert_eq!(world.held("uplink"), 128);
    world.pass_seconds(6);
    for _ in 0..10 {
        world.pass(Duration::from_millis(10));
    }
    // One host is told six times in a burst (RFC 1812 4.3.2.8).
    let told = world.sent("uplink");
    assert_eq!(told.iter().filter(|seen| seen.destination() == address("198.51.100.9")).count(), 6);
    assert_eq!((told.len(), world.held("uplink")), (126, 0));
}
