//! RFC 5508: how a NAT treats ICMP queries and errors.

use std::collections::BTreeSet;

use firewall::Dropped;
use tests::flags::{ACK, PSH};
use tests::packet::{Packet, address, error_word};
use tests::{Connection, Seen, View, World, echo, echo_reply, icmp, icmp_error, judge, site, tcp, udp};

const CLIENT: &str = "10.0.1.7";
const SERVER: &str = "198.51.100.9";
const ROUTER: &str = "203.0.113.77";
const EXTERNAL: &str = "192.0.2.2";

/// What a client sent, and what the world saw of it: a UDP, a TCP and an ICMP query session.
/// Ports collide, so that preservation hides no fault.
fn sessions(world: &mut World) -> [(Packet, Seen); 3] {
    world.open_udp("10.0.1.6:5000", "198.51.100.9:53");
    Connection::open(world, "10.0.1.6:5000", "198.51.100.9:80");
    world.cross("work", "uplink", echo("10.0.1.6", SERVER, 5000, 1, b""));
    let datagram = udp("10.0.1.7:5000", "198.51.100.9:53", b"some datagram");
    let mut connection = Connection::open(world, "10.0.1.7:5000", "198.51.100.9:80");
    let segment = connection.from_client(ACK | PSH, b"some segment");
    let query = echo(CLIENT, SERVER, 5000, 7, b"some query");
    let seen = [
        world.cross("work", "uplink", &datagram),
        connection.outward(world, ACK | PSH, b"some segment"),
        world.cross("work", "uplink", &query),
    ];
    let [a, b, c] = seen;
    assert_ne!(a.from().port(), 5000);
    assert_ne!(b.from().port(), 5000);
    assert_ne!(c.id(), 5000);
    [(datagram, a), (segment, b), (query, c)]
}

/// The quoted packet is the one that was sent, but for what routers on the way change.
fn quotes(sent: &Packet, quote: &View) {
    let mut expected = sent.clone().ttl(quote.ttl()).octets();
    expected.truncate(quote.octets.len());
    assert_eq!(quote.octets, expected);
}

#[test]
fn req_1_a_query_is_mapped_and_its_reply_comes_back_with_the_original_identifier() {
    let mut world = World::default();
    world.cross("work", "uplink", echo("10.0.1.6", SERVER, 77, 1, b""));
    for length in [0, 1, 8, 55, 56, 1300] {
        let data = vec![0xa5; length];
        let seen = world.cross("work", "uplink", echo(CLIENT, SERVER, 77, length as u16, &data));
        assert_eq!((seen.source(), seen.icmp(), seen.data()), (address(EXTERNAL), (8, 0), &data[..]));
        let reply = echo_reply(SERVER, EXTERNAL, seen.id(), length as u16, &data);
        let back = world.cross("uplink", "work", reply);
        assert_eq!((back.destination(), back.icmp(), back.id()), (address(CLIENT), (0, 0), 77));
        assert_eq!(back.octets[26..28], (length as u16).to_be_bytes());
        assert_eq!(back.data(), data);
    }
}

#[test]
fn req_1a_the_identifier_is_the_same_to_every_destination() {
    let mut world = World::default();
    world.cross("work", "uplink", echo("10.0.1.6", SERVER, 77, 1, b""));
    let ids: BTreeSet<u16> = (1..20)
        .map(|host| {
            let to = address(SERVER).to_bits() + host;
            world
                .cross("work", "uplink", echo(address(CLIENT), std::net::Ipv4Addr::from(to), 77, 1, b""))
                .id()
        })
        .collect();
    assert_eq!(ids.len(), 1);
    assert!(!ids.contains(&77));
    assert_eq!(world.occupancy().mappings, 2);
}

#[test]
fn req_1_identifiers_are_not_overloaded() {
    let mut world = World::default();
    let mut ids = BTreeSet::new();
    for host in 2..150u8 {
        let source = format!("10.0.1.{host}");
        let seen = world.cross("work", "uplink", echo(source.as_str(), SERVER, 0, 1, b""));
        assert!(ids.insert(seen.id()), "{} is used twice", seen.id());
        let back = world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, seen.id(), 1, b""));
        assert_eq!((back.destination(), back.id()), (address(&source), 0));
    }
}

#[test]
fn req_1_fifty_one_ping_flows_live_side_by_side() {
    let mut world = World::default();
    let ids: Vec<u16> =
        (0..200).map(|id| world.cross("work", "uplink", echo(CLIENT, SERVER, id, 1, b"")).id()).collect();
    for (id, external) in (0..200).zip(ids) {
        let back = world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, external, 1, b""));
        assert_eq!(back.id(), id);
    }
}

#[test]
fn req_1_timestamp_information_and_mask_queries_are_mapped_too() {
    let mut world = World::default();
    for (query, reply) in [(13, 14), (15, 16), (17, 18)] {
        let rest = [0, 99, 0, 1];
        let seen = world.cross("work", "uplink", icmp(CLIENT, SERVER, (query, 0), rest, &[0; 12]));
        assert_eq!(seen.source(), address(EXTERNAL));
        let answer = icmp(SERVER, EXTERNAL, (reply, 0), seen.icmp_word(), &[1; 12]);
        let back = world.cross("uplink", "work", answer);
        assert_eq!((back.destination(), back.icmp(), back.icmp_word()), (address(CLIENT), (reply, 0), rest));
    }
}

#[test]
fn req_1_replies_of_another_peer_identifier_or_kind_are_not_forwarded() {
    let mut world = World::default();
    let seen = world.cross("work", "uplink", echo(CLIENT, SERVER, 77, 1, b""));
    let id = seen.id();
    for unasked in [
        echo_reply(SERVER, EXTERNAL, id ^ 1, 1, b""),
        echo_reply("198.51.100.10", EXTERNAL, id, 1, b""),
        icmp(SERVER, EXTERNAL, (14, 0), [seen.octets[24], seen.octets[25], 0, 1], &[0; 12]),
        icmp(SERVER, EXTERNAL, (0, 1), seen.icmp_word(), b""),
    ] {
        world.refuse("uplink", unasked, Dropped::Policy);
    }
    assert_eq!(world.occupancy().sessions, 1);
}

#[test]
fn req_2_a_query_mapping_lives_60_seconds_and_then_ends() {
    for (age, alive) in [(59, true), (60, true), (62, false)] {
        let mut world = World::default();
        let seen = world.cross("work", "uplink", echo(CLIENT, SERVER, 77, 1, b""));
        world.pass_seconds(age);
        world.send("uplink", echo_reply(SERVER, EXTERNAL, seen.id(), 1, b""));
        assert_eq!(world.sent("work").len(), usize::from(alive), "after {age} s");
        assert_eq!(world.occupancy().mappings, u32::from(alive));
    }
}

#[test]
fn req_2_queries_refresh_the_mapping_and_replies_do_not() {
    let mut world = World::default();
    let id = world.cross("work", "uplink", echo(CLIENT, SERVER, 77, 1, b"")).id();
    for seq in 0..5 {
        world.pass_seconds(55);
        assert_eq!(world.cross("work", "uplink", echo(CLIENT, SERVER, 77, seq, b"")).id(), id);
    }
    world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, id, 1, b""));
    world.pass_seconds(40);
    world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, id, 1, b""));
    world.pass_seconds(40);
    world.refuse("uplink", echo_reply(SERVER, EXTERNAL, id, 1, b""), Dropped::Policy);
}

#[test]
fn req_1_a_query_is_not_taken_for_a_reply_whatever_its_identifier() {
    // The number of the query's own type and code is an identifier as good as any.
    for id in [0x0800, 8, 0, 0xffff] {
        let mut world = World::default();
        assert_eq!(world.cross("work", "uplink", echo(CLIENT, SERVER, id, 1, b"ask")).id(), id);
        // The server asks back: that is for the appliance itself, and the client is not bothered.
        let reply = world.answer("uplink", echo(SERVER, EXTERNAL, id, 1, b"ask back"));
        assert_eq!((reply.icmp(), reply.id()), ((0, 0), id));
        // Nor is a reply of the client's one of its queries.
        world.refuse("work", echo_reply(CLIENT, SERVER, id, 1, b"unasked"), Dropped::Policy);
        world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, id, 1, b"asked for"));
    }
}

/// Errors that a NAT has to pass on.
const KINDS: [(u8, u8); 20] = [
    (3, 0),
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 4),
    (3, 5),
    (3, 6),
    (3, 7),
    (3, 8),
    (3, 9),
    (3, 10),
    (3, 11),
    (3, 12),
    (3, 13),
    (3, 14),
    (3, 15),
    (11, 0),
    (11, 1),
    (12, 0),
    (12, 2),
];

#[test]
fn req_4_an_inbound_error_reaches_the_client_with_its_own_packet_quoted() {
    let mut world = World::default();
    let sessions = sessions(&mut world);
    for kind in KINDS {
        for (sent, seen) in &sessions {
            let error = icmp_error(ROUTER, EXTERNAL, kind, seen.octets.clone()).tos(0xc0).identification(3);
            let got = world.cross("uplink", "work", &error);
            assert_eq!((got.source(), got.destination()), (address(ROUTER), address(CLIENT)));
            assert_eq!((got.icmp(), got.icmp_word()), (kind, error_word(kind)));
            assert_eq!((got.ttl(), got.tos(), got.identification()), (63, 0xc0, 3));
            quotes(sent, &got.quote());
            assert_eq!(got.quote().ttl(), 63, "as the router had it");
        }
    }
    assert_eq!(world.occupancy().sessions, 6);
}

#[test]
fn req_4_a_quote_cut_to_eight_octets_of_transport_is_translated() {
    let mut world = World::default();
    for (sent, seen) in sessions(&mut world) {
        for length in [28, 29, 36, 38, 40, 41, seen.octets.len() - 1] {
            let quote = &seen.octets[..length.min(seen.octets.len())];
            let got = world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (3, 3), quote));
            assert_eq!(got.quote().octets.len(), quote.len());
            quotes(&sent, &got.quote());
        }
    }
}

#[test]
fn req_3c_embedded_ip_options_are_walked() {
    let mut world = World::default();
    for words in [1, 3, 10] {
        let options = vec![1; words * 4];
        for sent in [
            udp("10.0.1.7:5000", "198.51.100.9:53", b"x").options(&options),
            tcp("10.0.1.7:5000", "198.51.100.9:80", tests::flags::SYN, b"").options(&options),
            echo(CLIENT, SERVER, 5, 1, b"x").options(&options),
        ] {
            let seen = world.cross("work", "uplink", &sent);
            // The error itself may have options too.
            let error = icmp_error(ROUTER, EXTERNAL, (11, 0), seen.octets.clone()).options(&options);
            let got = world.cross("uplink", "work", error);
            quotes(&sent, &got.quote());
            let cut = &seen.octets[..20 + words * 4 + 8];
            let got = world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (11, 0), cut));
            quotes(&sent, &got.quote());
        }
    }
}

#[test]
fn req_3a_an_error_with_a_bad_icmp_checksum_is_dropped() {
    let mut world = World::default();
    for (_, seen) in sessions(&mut world) {
        let mut error = icmp_error(ROUTER, EXTERNAL, (3, 1), seen.octets.clone());
        error.payload[2] ^= 1;
        world.refuse("uplink", error, Dropped::Malformed);
    }
}

#[test]
fn req_3b_an_error_with_a_bad_embedded_header_checksum_is_dropped() {
    let mut world = World::default();
    for (_, seen) in sessions(&mut world) {
        let mut quote = seen.octets.clone();
        quote[10] ^= 1;
        world.refuse("uplink", icmp_error(ROUTER, EXTERNAL, (3, 1), quote), Dropped::Malformed);
    }
}

#[test]
fn req_3c_the_embedded_transport_checksum_is_not_judged_nor_repaired() {
    let mut world = World::default();
    for judge in &mut world.judges {
        judge.transport = false;
    }
    for ((_, seen), at) in sessions(&mut world).into_iter().zip([26, 36, 22]) {
        let mut quote = seen.octets.clone();
        quote[at] ^= 0x5a;
        let wrong_by = judge::wrong_by(&quote);
        assert_ne!(wrong_by, 0);
        let got = world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (3, 1), quote));
        assert_eq!(judge::wrong_by(&got.quote().octets), wrong_by, "as wrong as it was");
    }
}

#[test]
fn rfc_4884_extensions_behind_the_quote_survive() {
    let mut world = World::default();
    let sent = udp("10.0.1.7:5000", "198.51.100.9:53", &[0x71; 200]);
    let seen = world.cross("work", "uplink", &sent);
    // 128 octets quoted, then an MPLS label stack (RFC 4950).
    let extension = [0x20, 0, 0xe9, 0xfe, 0, 8, 1, 1, 0, 0, 0x3f, 1];
    let data = [&seen.octets[..128], &extension].concat();
    let got = world.cross("uplink", "work", icmp(ROUTER, EXTERNAL, (11, 0), [0, 0x20, 0, 0], &data));
    assert_eq!(got.icmp_word(), [0, 0x20, 0, 0]);
    assert_eq!(got.data()[128..], extension);
    let mut quote = got.quote();
    quote.octets.truncate(128);
    quotes(&sent, &quote);
}

#[test]
fn req_4_an_error_about_no_session_is_dropped_and_not_answered() {
    let mut world = World::default();
    let [(_, datagram), ..] = sessions(&mut world);
    let (external, server) = (datagram.from(), datagram.to());
    for quote in [
        udp("192.0.2.2:44444", server, b"x"),
        udp(external, "198.51.100.9:54", b"x"),
        udp(external, "198.51.100.10:53", b"x"),
        tcp("192.0.2.2:44444", "198.51.100.9:80", 2, b""),
        echo(EXTERNAL, SERVER, 44444, 1, b""),
        // The session's inside tuple is no address of the outside.
        udp("10.0.1.7:5000", server, b"x"),
        udp("127.0.0.1:1", server, b"x"),
        Packet::new(EXTERNAL, SERVER, 47, &[0; 8]),
    ] {
        world.refuse("uplink", icmp_error(ROUTER, EXTERNAL, (3, 3), quote), Dropped::ErrorWithoutSession);
    }
    let between_neighbours = Packet::new(EXTERNAL, SERVER, 2, &[0; 8]);
    world.refuse("uplink", icmp_error(ROUTER, EXTERNAL, (3, 2), between_neighbours), Dropped::Malformed);
}

#[test]
fn cve_2019_5598_an_error_whose_embedded_source_is_not_the_outer_destination_is_dropped() {
    let plan = site::PLAN
        .replace("[[client]]\nname = \"work\"", "extra = [\"192.0.2.3\"]\n[[client]]\nname = \"work\"");
    let mut world = World::new(&plan, site::RULES);
    for (_, seen) in sessions(&mut world) {
        for destination in ["192.0.2.3", "10.0.1.7", "10.0.1.1", "10.0.2.9", "198.51.100.9"] {
            let error = icmp_error(ROUTER, destination, (3, 3), seen.octets.clone());
            world.refuse("uplink", error, Dropped::ErrorWithoutSession);
        }
    }
}

#[test]
fn req_5_an_error_of_a_client_shows_the_external_address_and_port() {
    let mut world = World::default();
    for (_, seen) in sessions(&mut world) {
        let inbound = match seen.protocol() {
            17 => udp(seen.to(), seen.from(), b"unwelcome"),
            6 => tcp(seen.to(), seen.from(), (ACK | PSH, 5000, 1000), b"unwelcome"),
            _ => echo_reply(SERVER, EXTERNAL, seen.id(), 7, b"unwelcome"),
        };
        let received = world.cross("uplink", "work", &inbound);
        for length in [28, received.octets.len()] {
            for kind in [(3, 3), (3, 2), (3, 13), (11, 1)] {
                let error = icmp_error(CLIENT, SERVER, kind, &received.octets[..length]);
                let got = world.cross("work", "uplink", error);
                assert_eq!((got.source(), got.destination()), (address(EXTERNAL), address(SERVER)));
                assert_eq!(got.icmp(), kind);
                quotes(&inbound, &got.quote());
            }
        }
    }
}

#[test]
fn req_5_an_error_of_a_clients_own_router_shows_the_external_address_too() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", "198.51.100.9:53");
    let received = world.cross("uplink", "work", udp("198.51.100.9:53", external, b"x"));
    let error = icmp_error("10.0.1.254", SERVER, (3, 1), received.octets.clone());
    assert_eq!(world.cross("work", "uplink", error).source(), address(EXTERNAL));
}

#[test]
fn req_5_an_error_about_a_static_forward_shows_the_forwarded_port() {
    let mut world = World::default();
    let inbound = udp("198.51.100.9:7777", "192.0.2.2:8080", b"ask");
    let received = world.cross("uplink", "work", &inbound);
    let error = icmp_error("10.0.1.2", SERVER, (3, 3), received.octets.clone());
    let got = world.cross("work", "uplink", error);
    assert_eq!(got.source(), address(EXTERNAL));
    quotes(&inbound, &got.quote());
}

#[test]
fn req_7_errors_hairpin_and_show_the_external_endpoint() {
    let mut world = World::default();
    let sent = udp("10.0.2.9:5000", "192.0.2.2:8080", b"hello");
    let received = world.cross("lab", "work", &sent);
    // The server: nobody listens.
    let error = icmp_error("10.0.1.2", EXTERNAL, (3, 3), received.octets.clone());
    let got = world.cross("work", "lab", error);
    assert_eq!((got.source(), got.destination()), (address(EXTERNAL), address("10.0.2.9")));
    quotes(&sent, &got.quote());
    // And the other way round, about the server's answer.
    let answer = udp("10.0.1.2:80", received.from(), b"welcome");
    let answered = world.cross("work", "lab", &answer);
    let error = icmp_error("10.0.2.9", EXTERNAL, (3, 3), answered.octets.clone());
    let got = world.cross("lab", "work", error);
    assert_eq!((got.source(), got.destination()), (address(EXTERNAL), address("10.0.1.2")));
    quotes(&answer, &got.quote());
}

#[test]
fn req_5_a_client_cannot_send_errors_about_another_clients_sessions() {
    let mut world = World::default();
    let [(_, seen), ..] = sessions(&mut world);
    let inbound = udp(seen.to(), seen.from(), b"reply");
    let received = world.cross("uplink", "work", &inbound);
    // `lab` to the server, in the name of `work`.
    world.send("lab", icmp_error("10.0.2.9", SERVER, (3, 3), received.octets.clone()));
    world.quiet();
    // `lab` to `work`, in the name of a router outside.
    world.send("lab", icmp_error("10.0.2.9", EXTERNAL, (3, 3), seen.octets.clone()));
    world.quiet();
}

#[test]
fn client_to_client_errors_cross_as_they_are() {
    let mut world = World::default();
    let sent = udp("10.0.1.7:1234", "10.0.2.9:7000", b"inside");
    let received = world.cross("work", "lab", &sent);
    let error = icmp_error("10.0.2.9", CLIENT, (3, 3), received.octets.clone());
    let got = world.cross("lab", "work", &error);
    assert_eq!(got.octets, error.ttl(63).octets());
}

#[test]
fn rfc_1812_an_error_about_an_error_or_a_later_fragment_is_dropped() {
    let mut world = World::default();
    let [(_, seen), ..] = sessions(&mut world);
    let about = icmp_error(EXTERNAL, SERVER, (3, 3), udp(seen.to(), seen.from(), b"x"));
    world.refuse("uplink", icmp_error(ROUTER, EXTERNAL, (3, 1), about), Dropped::Malformed);
    let long = udp(seen.from(), seen.to(), &[0; 64]);
    let fragment = long.fragment(8..72);
    world.refuse("uplink", icmp_error(ROUTER, EXTERNAL, (3, 1), fragment), Dropped::Malformed);
}

#[test]
fn rfc_6633_source_quench_and_redirect_are_not_passed_on() {
    let mut world = World::default();
    for (_, seen) in sessions(&mut world) {
        for kind in [(4, 0), (5, 0), (5, 1)] {
            let error = icmp_error(ROUTER, EXTERNAL, kind, seen.octets.clone());
            world.refuse("uplink", error, Dropped::IcmpType);
        }
    }
}

#[test]
fn req_11_other_icmp_types_do_not_cross() {
    let mut world = World::default();
    for kind in [1, 2, 6, 7, 9, 10, 19, 30, 40, 42, 200, 255] {
        let message = |from, to| icmp(from, to, (kind, 0), [0; 4], &[0; 8]);
        world.refuse("work", message(CLIENT, SERVER), Dropped::IcmpType);
        world.refuse("uplink", message(SERVER, EXTERNAL), Dropped::IcmpType);
    }
}

#[test]
fn a_policy_without_related_keeps_errors_out() {
    let rules = site::RULES.replace("ct state established,related accept", "ct state established accept");
    let mut world = World::new(site::PLAN, &rules);
    let sent = udp("10.0.1.7:5000", "198.51.100.9:53", b"x");
    let seen = world.cross("work", "uplink", &sent);
    let error = icmp_error(ROUTER, EXTERNAL, (3, 3), seen.octets.clone());
    world.refuse("uplink", error, Dropped::Policy);
    // An error of the client is one of those that the uplink rule accepts.
    let received = world.cross("uplink", "work", udp(seen.to(), seen.from(), b"x"));
    world.cross("work", "uplink", icmp_error(CLIENT, SERVER, (3, 3), received.octets.clone()));
}

#[test]
fn req_6_an_error_about_a_query_neither_ends_nor_refreshes_its_mapping() {
    let mut world = World::default();
    let seen = world.cross("work", "uplink", echo(CLIENT, SERVER, 5, 1, b"x"));
    world.pass_seconds(50);
    world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (11, 0), seen.octets.clone()));
    world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, seen.id(), 1, b"x"));
    world.pass_seconds(40);
    world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (11, 0), seen.octets.clone()));
    world.pass_seconds(25);
    assert_eq!(world.occupancy().mappings, 0);
}

#[test]
fn req_8_without_a_free_session_the_sender_is_told() {
    let plan = format!("{}\n[nat]\nsessions = 16\n", site::PLAN);
    let mut world = World::new(&plan, site::RULES);
    // A quarter of the sixteen is the other client's.
    for id in 1..=12 {
        let seen = world.cross("work", "uplink", echo(CLIENT, SERVER, id, 1, b"x"));
        world.cross("uplink", "work", echo_reply(SERVER, EXTERNAL, seen.id(), 1, b"x"));
        world.pass_seconds(1);
        world.cross("work", "uplink", echo(CLIENT, SERVER, id, 2, b"x"));
    }
    let told = world.answer("work", echo(CLIENT, SERVER, 17, 1, b"x"));
    assert_eq!((told.icmp(), told.source()), ((3, 13), address("10.0.1.1")));
    assert_eq!(world.drops("work", Dropped::ClientQuota), 1);
}

#[test]
fn req_10_the_appliance_originates_echo_replies_unreachables_and_time_exceeded() {
    let mut world = World::default();
    assert_eq!(world.answer("work", echo(CLIENT, "10.0.1.1", 1, 1, b"x")).icmp(), (0, 0));
    assert_eq!(world.answer("work", udp("10.0.1.7:1", "198.51.100.9:9", b"x").ttl(1)).icmp(), (11, 0));
    let refused = tcp("10.0.1.7:1", "198.51.100.9:25", tests::flags::SYN, b"");
    assert_eq!(world.answer("work", refused).icmp(), (3, 13));
}
