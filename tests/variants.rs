//! Headers as nobody expects them, and yet within the letter of the RFCs: each crosses as it came,
//! or ends for its reason; none is changed on the way but where translation must.

use std::net::SocketAddrV4;

use firewall::Dropped;
use tests::flags::{ACK, PSH, SYN};
use tests::packet::{At, Packet, address};
use tests::view::same;
use tests::{Connection, Seen, World, echo, echo_reply, icmp, icmp_error, judge, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";
const EXTERNAL: &str = "192.0.2.2:5000";

/// The packet crosses from the client to the server, and its like back.
#[track_caller]
fn crosses_both_ways(world: &mut World, packet: impl Fn(SocketAddrV4, SocketAddrV4) -> Packet) {
    let (client, server, external) = (CLIENT.at(), SERVER.at(), EXTERNAL.at());
    let out = packet(client, server);
    same(&world.cross("work", "uplink", &out), &out, external, server);
    let back = packet(server, external);
    same(&world.cross("uplink", "work", &back), &back, server, client);
}

#[test]
fn rfc_791_options_cross_whatever_they_say() {
    let mut world = World::default();
    let options: [&[u8]; 12] = [
        &[0, 0, 0, 0],
        &[1, 1, 1, 1],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 12, 13, 0xf1, 1, 2, 3, 4, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[94, 4, 0xff, 0xff],
        // Options that do not hold together are the hosts' business: nothing here reads them.
        &[7, 0, 0, 0],
        &[7, 1, 0, 0],
        &[7, 200, 4, 0],
        &[1, 1, 1, 131],
    ];
    for option in options {
        crosses_both_ways(&mut world, |from, to| udp(from, to, b"options").options(option));
    }
}

#[test]
fn rfc_1812_5_2_4_1_a_source_route_leads_nowhere() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    // By way of the appliance to a client, and to a server.
    for option in [[131, 7, 4, 10, 0, 2, 9, 0], [137, 7, 4, 10, 0, 1, 7, 0], [131, 7, 4, 203, 0, 113, 5, 0]] {
        world.send("uplink", udp(SERVER, "192.0.2.2:7000", b"routed").options(&option));
        world.send("work", udp(CLIENT, "10.0.1.1:7000", b"routed").options(&option));
        world.quiet();
    }
}

#[test]
fn rfc_894_trailers_are_neither_forwarded_nor_quoted_nor_echoed() {
    let mut world = World::default();
    let mut connection = Connection::open(&mut world, "10.0.1.7:6000", "198.51.100.9:80");
    let segment = connection.from_client(ACK | PSH, b"data");
    connection.outward(&mut world, ACK | PSH, b"data");
    let padded = |packet: &Packet| [packet.octets(), b"trailer of the frame".to_vec()].concat();
    let seen = world.cross("work", "uplink", padded(&segment));
    same(&seen, &segment, connection.external, connection.server);
    let query = echo("10.0.1.7", "198.51.100.9", 7, 1, b"odd");
    let seen = world.cross("work", "uplink", padded(&query));
    let asked = ("192.0.2.2", seen.id());
    same(&seen, &query, asked, ("198.51.100.9", 0));
    let error = icmp_error("203.0.113.1", "192.0.2.2", (3, 3), seen.octets.clone());
    let got = world.cross("uplink", "work", padded(&error));
    assert_eq!(got.data().len(), error.payload.len() - 8);
    let dying = udp(CLIENT, SERVER, b"x").ttl(1);
    assert_eq!(world.answer("work", padded(&dying)).quote().octets, dying.octets());
    let pinged = world.answer("work", padded(&echo("10.0.1.7", "10.0.1.1", 1, 1, b"ping")));
    assert_eq!(pinged.data(), b"ping");
    let whole = udp(CLIENT, SERVER, &[5; 100]).identification(3);
    for range in [0..48, 48..108] {
        let part = whole.clone().fragment(range.clone());
        let seen = world.cross("work", "uplink", padded(&part));
        assert_eq!(seen.transport().len(), range.len());
    }
}

#[test]
fn rfc_768_octets_behind_the_udp_length_cross_as_they_are() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let short = |from, to| {
        let mut packet = udp(from, to, b"data");
        packet.payload.extend_from_slice(b"behind");
        packet
    };
    world.judges.iter_mut().for_each(|judge| judge.transport = false);
    let seen = world.cross("work", "uplink", short(CLIENT.at(), SERVER.at()));
    assert_eq!((seen.data(), seen.from()), (&b"databehind"[..], external));
    // The checksum covers what the length tells.
    let mut whole = seen.octets.clone();
    whole.truncate(whole.len() - 6);
    let total = (whole.len() as u16).to_be_bytes();
    whole[2..4].copy_from_slice(&total);
    judge::mend_header(&mut whole);
    assert!(judge::is_sound(&whole));
    let back = world.cross("uplink", "work", short(SERVER.at(), external));
    assert_eq!(back.data(), b"databehind");
}

#[test]
fn rfc_1812_5_3_1_time_to_live_of_1_2_and_255_on_every_way() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let other = world.open_udp("10.0.2.9:7000", SERVER);
    let ways = [
        ("work", "uplink", udp(CLIENT, SERVER, b"out")),
        ("uplink", "work", udp(SERVER, external, b"in")),
        ("work", "lab", udp(CLIENT, "10.0.2.9:7000", b"across")),
        ("uplink", "work", udp(SERVER, "192.0.2.2:8080", b"forwarded")),
        ("work", "lab", udp(CLIENT, other, b"hairpin")),
        ("lab", "work", udp("10.0.2.9:7000", "192.0.2.2:8080", b"hairpin to the forward")),
    ];
    let own = |port: &str| match port {
        "uplink" => address("192.0.2.2"),
        "work" => address("10.0.1.1"),
        _ => address("10.0.2.1"),
    };
    for (input, output, packet) in ways {
        for (ttl, left) in [(2, 1), (3, 2), (64, 63), (255, 254)] {
            assert_eq!(world.cross(input, output, packet.clone().ttl(ttl)).ttl(), left);
        }
        let dying = packet.clone().ttl(1);
        let told = world.answer(input, &dying);
        assert_eq!((told.icmp(), told.source()), ((11, 0), own(input)), "{input} to {output}");
        assert_eq!(told.quote().octets, dying.octets());
        world.refuse(input, packet.ttl(0), Dropped::TimeExceeded);
        world.pass_seconds(1);
    }
}

#[test]
fn rfc_1812_4_3_2_3_what_is_shorter_than_a_quote_is_quoted_whole() {
    let mut world = World::default();
    for (protocol, payload) in [(47, &b""[..]), (84, b"x"), (132, b"1234567"), (50, b"12345678")] {
        let dying = Packet::new("10.0.1.7", "198.51.100.9", protocol, payload).ttl(1);
        let told = world.answer("work", &dying);
        assert_eq!((told.icmp(), told.quote().octets), ((11, 0), dying.octets()));
    }
}

#[test]
fn rfc_1122_3_2_2_no_word_about_errors_that_die_on_the_way() {
    let mut world = World::default();
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    let error = icmp_error("203.0.113.1", "192.0.2.2", (3, 3), seen.octets.clone());
    world.refuse("uplink", error.clone().ttl(1), Dropped::TimeExceeded);
    assert_eq!(world.cross("uplink", "work", error.ttl(2)).ttl(), 1);
}

#[test]
fn a_packet_from_an_endpoint_to_itself_goes_nowhere_and_opens_nothing() {
    let mut world = World::default();
    for port in ["10.0.1.7:5000", "10.0.1.7:80"] {
        world.send("work", udp(CLIENT, port, b"land"));
        world.send("work", tcp(CLIENT, port, SYN, b""));
    }
    world.refuse("uplink", udp("192.0.2.2:5000", "192.0.2.2:5000", b"land"), Dropped::Spoofed);
    world.refuse("uplink", tcp("192.0.2.2:8080", "192.0.2.2:8080", SYN, b""), Dropped::Spoofed);
    world.refuse("work", tcp("10.0.1.1:22", "10.0.1.1:22", SYN, b""), Dropped::Spoofed);
    world.quiet();
    assert_eq!(world.occupancy().sessions, 0);
}

#[test]
fn req_9_a_second_socket_of_a_client_reaches_the_mapping_of_the_first() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let second = world.open_udp("10.0.1.7:5001", SERVER);
    let sent = udp("10.0.1.7:5001", external, b"is it me?");
    same(&world.cross("work", "work", &sent), &sent, second, CLIENT);
    // From the very endpoint both directions would be one: that is nobody's session.
    world.refuse("work", udp(CLIENT, external, b"x"), Dropped::Conflict);
}

#[test]
fn ports_1_and_65535_are_ports_like_others_and_0_is_none() {
    let mut world = World::default();
    for (from, to) in [(1, 65535), (65535, 1), (1, 1), (65535, 65535)] {
        let (client, server) = (("10.0.1.7", from).at(), ("198.51.100.9", to).at());
        let sent = udp(client, server, b"x");
        same(&world.cross("work", "uplink", &sent), &sent, ("192.0.2.2", from), server);
        let mut session = Connection::open(&mut world, client, server);
        assert_eq!(session.external.port(), from);
        session.talk(&mut world);
        session.close(&mut world);
    }
    for (from, to) in [(0, 53), (5000, 0), (0, 0)] {
        let packet = udp(("10.0.1.7", from), ("198.51.100.9", to), b"x");
        world.refuse("work", packet, Dropped::Malformed);
        let segment = tcp(("10.0.1.7", from), ("198.51.100.9", to), SYN, b"");
        world.refuse("work", segment, Dropped::Malformed);
        let inbound = udp(("198.51.100.9", from), ("192.0.2.2", to), b"x");
        world.refuse("uplink", inbound, Dropped::Malformed);
    }
}

#[test]
fn an_identifier_of_zero_is_one_like_others() {
    let mut world = World::default();
    for id in [0, 1, 0xffff] {
        let query = echo("10.0.1.7", "198.51.100.9", id, 9, b"x");
        let seen = world.cross("work", "uplink", &query);
        same(&seen, &query, ("192.0.2.2", seen.id()), ("198.51.100.9", 0));
        let reply = echo_reply("198.51.100.9", "192.0.2.2", seen.id(), 9, b"x");
        let back = world.cross("uplink", "work", &reply);
        same(&back, &reply, ("198.51.100.9", 0), ("10.0.1.7", id));
    }
}

#[test]
fn rfc_792_queries_with_a_code_cross_and_their_replies_come_back() {
    let mut world = World::default();
    for (query, code) in [(8, 0), (8, 7), (13, 0), (15, 0), (17, 0)] {
        let reply = match query {
            8 => 0,
            other => other + 1,
        };
        let sent = icmp("10.0.1.7", "198.51.100.9", (query, code), [0, 9, 0, 1], &[7; 12]);
        let seen = world.cross("work", "uplink", &sent);
        same(&seen, &sent, ("192.0.2.2", seen.id()), ("198.51.100.9", 0));
        let [high, low] = seen.id().to_be_bytes();
        let answer = icmp("198.51.100.9", "192.0.2.2", (reply, code), [high, low, 0, 1], &[8; 12]);
        let back = world.cross("uplink", "work", &answer);
        same(&back, &answer, ("198.51.100.9", 0), ("10.0.1.7", 9));
    }
}

#[test]
fn rfc_1624_wrong_checksums_of_every_protocol_stay_as_wrong_as_they_were_on_every_way() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let mut session = Connection::open(&mut world, "10.0.1.7:6000", "198.51.100.9:80");
    session.talk(&mut world);
    let query = world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", 9, 1, b"x"));
    world.judges.iter_mut().for_each(|judge| judge.transport = false);
    let ways = [
        ("work", "uplink", udp(CLIENT, SERVER, b"data"), 6),
        ("uplink", "work", udp(SERVER, external, b"data"), 6),
        ("uplink", "work", udp(SERVER, "192.0.2.2:8080", b"data"), 6),
        ("lab", "work", udp("10.0.2.9:1", "192.0.2.2:8080", b"data"), 6),
        ("work", "lab", udp(CLIENT, "10.0.2.9:7000", b"data"), 6),
        ("work", "uplink", session.from_client(ACK, b""), 16),
        ("uplink", "work", session.from_server(ACK, b""), 16),
        ("work", "uplink", echo("10.0.1.7", "198.51.100.9", 9, 2, b"x"), 2),
        ("uplink", "work", echo_reply("198.51.100.9", "192.0.2.2", query.id(), 2, b"x"), 2),
    ];
    for (input, output, packet, at) in ways {
        for wrong in [[0, 1], [0x80, 0], [0x12, 0x34]] {
            let mut bad = packet.clone();
            bad.payload[at] ^= wrong[0];
            bad.payload[at + 1] ^= wrong[1];
            // Not by chance the other form of zero, nor none at all.
            if bad.payload[at..at + 2] == [0, 0] || bad.payload[at..at + 2] == [0xff, 0xff] {
                continue;
            }
            let before = judge::wrong_by(&bad.octets());
            let seen = world.cross(input, output, &bad);
            assert_eq!(judge::wrong_by(&seen.octets), before, "{input} to {output}");
            assert_ne!(before, 0);
        }
    }
}

#[test]
fn rfc_768_no_checksum_stays_none_on_every_way() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let other = world.open_udp("10.0.2.9:7000", SERVER);
    for (input, output, packet) in [
        ("work", "uplink", udp(CLIENT, SERVER, b"data")),
        ("uplink", "work", udp(SERVER, external, b"data")),
        ("uplink", "work", udp(SERVER, "192.0.2.2:8080", b"data")),
        ("lab", "work", udp("10.0.2.9:1", "192.0.2.2:8080", b"data")),
        ("work", "lab", udp(CLIENT, other, b"data")),
        ("work", "lab", udp(CLIENT, "10.0.2.9:7000", b"data")),
    ] {
        assert_eq!(world.cross(input, output, packet.without_checksum()).udp_checksum(), 0);
    }
}

#[test]
fn rfc_1812_5_3_5_broadcasts_and_groups_are_not_forwarded_whoever_sends_them() {
    let mut world = World::default();
    for to in ["10.0.1.0", "10.0.1.255", "10.0.2.0", "10.0.2.255", "192.0.2.0", "192.0.2.255"] {
        world.refuse("work", udp(CLIENT, (to, 7000), b"x"), Dropped::BadDestination);
        world.refuse("work", echo("10.0.1.7", to, 1, 1, b"x"), Dropped::BadDestination);
        world.refuse("uplink", udp(SERVER, (to, 7000), b"x"), Dropped::NotOurs);
    }
    for to in ["224.0.0.1", "224.0.0.251", "239.255.255.250", "255.255.255.255", "240.0.0.1", "127.0.0.1"] {
        world.refuse("work", udp(CLIENT, (to, 7000), b"x"), Dropped::BadDestination);
        world.refuse("uplink", udp(SERVER, (to, 7000), b"x"), Dropped::NotOurs);
    }
    assert_eq!(world.occupancy().sessions, 0);
}

/// What a peer makes of a packet that it sends back: its ends exchanged, or as it is.
fn bounced(seen: &Seen, is_answer: bool) -> Vec<u8> {
    let mut octets = seen.octets.clone();
    if is_answer {
        let (source, destination) = octets[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        let start = usize::from(octets[0] & 15) * 4;
        if matches!(octets[9], 6 | 17) {
            let (from, to) = octets[start..start + 4].split_at_mut(2);
            from.swap_with_slice(to);
        }
    }
    octets
}

#[test]
fn rfc_1812_5_3_1_whatever_peers_send_back_comes_to_an_end_and_is_never_more_than_it_was() {
    let packets = [
        ("work", udp("10.0.1.7:5000", "198.51.100.9:53", b"out").octets()),
        ("work", udp("10.0.1.7:5000", "192.0.2.2:8080", b"hairpin").octets()),
        ("work", udp("10.0.1.7:5000", "10.0.2.9:7000", b"between").octets()),
        ("work", udp("10.0.1.7:5000", "10.0.1.1:53", b"ours").octets()),
        ("work", udp("10.0.1.7:5000", "198.51.100.9:53", b"dies").ttl(1).octets()),
        ("work", tcp("10.0.1.7:5000", "198.51.100.9:26", SYN, b"").octets()),
        ("work", tcp("10.0.1.7:5000", "10.0.1.1:80", SYN | ACK, b"").octets()),
        ("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x").octets()),
        ("work", echo("10.0.1.7", "198.51.100.9", 1, 1, b"x").octets()),
        ("uplink", udp("198.51.100.9:999", "192.0.2.2:8080", b"in").octets()),
        ("uplink", udp("198.51.100.9:999", "192.0.2.2:8080", b"in").ttl(1).octets()),
        ("uplink", echo("198.51.100.9", "192.0.2.2", 1, 1, b"x").octets()),
    ];
    for is_answer in [true, false] {
        for (port, packet) in &packets {
            let mut world = World::default();
            world.send(port, packet.as_slice());
            for round in 0.. {
                assert!(round < 255, "{port} {packet:02x?} goes round for ever");
                let sent = ["uplink", "work", "lab"].map(|port| (port, world.sent(port)));
                match sent.iter().map(|(_, seen)| seen.len()).sum() {
                    0 => break,
                    1 => {}
                    more => panic!("{port} {packet:02x?} became {more} packets"),
                }
                for (port, seen) in sent {
                    seen.iter().for_each(|seen| world.send(port, bounced(seen, is_answer)));
                }
            }
        }
    }
}
