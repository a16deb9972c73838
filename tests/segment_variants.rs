//! TCP segments as nobody expects them, and yet within the letter of RFC 9293: each crosses as it
//! came, or ends for its reason.

use firewall::Dropped;
use tests::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use tests::packet::{At, Packet, Segment};
use tests::view::same;
use tests::{Connection, World, tcp};

const CLIENT: &str = "10.0.1.7:5000";

/// A connection's segments with unusual fields, each from its client and from its server.
fn segment_crosses(world: &mut World, session: &Connection, segment: Segment, data: &[u8]) {
    let (client, server, external) = (session.client, session.server, session.external);
    let (seq, ack) = (session.client_seq, session.server_seq);
    let out = tcp(client, server, Segment { seq, ack, ..segment.clone() }, data);
    same(&world.cross("work", "uplink", &out), &out, external, server);
    let back = tcp(server, external, Segment { seq: ack, ack: seq, ..segment }, data);
    same(&world.cross("uplink", "work", &back), &back, server, client);
}

#[test]
fn rfc_9293_segments_with_unusual_fields_cross_untouched() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
    session.talk(&mut world);
    let usual = Segment { flags: ACK, window: 64_240, ..Segment::default() };
    let options: [&[u8]; 9] = [
        &[1; 40],
        &[0; 4],
        &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
        // Selective acknowledgements, an experiment, authentication.
        &[5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 1, 1],
        &[254, 4, 0xf9, 0x89],
        &[19, 18, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 1, 1],
        // A length that is none.
        &[3, 0, 0, 0],
        &[2, 1, 0, 0],
        &[253, 255, 0, 0],
    ];
    for options in options {
        segment_crosses(&mut world, &session, Segment { options: options.to_vec(), ..usual.clone() }, b"");
    }
    for flags in [ACK | URG, ACK | PSH | URG, ACK | ECE, ACK | CWR, ACK | ECE | CWR | PSH] {
        segment_crosses(&mut world, &session, Segment { flags, urgent: 0xffff, ..usual.clone() }, b"");
    }
    // A window that closes and opens again, probed meanwhile.
    segment_crosses(&mut world, &session, Segment { window: 0, ..usual.clone() }, b"");
    segment_crosses(&mut world, &session, usual, b"");
    session.talk(&mut world);
}

#[test]
fn rfc_9293_3_8_4_and_3_8_6_1_keepalives_and_zero_window_probes_cross() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
    session.talk(&mut world);
    for data in [&b""[..], b"x"] {
        let seq = session.client_seq.wrapping_sub(1);
        let probe = tcp(CLIENT, "198.51.100.9:80", (ACK, seq, session.server_seq), data);
        same(&world.cross("work", "uplink", &probe), &probe, session.external, session.server);
        let seq = session.server_seq.wrapping_sub(1);
        let probe = tcp(session.server, session.external, (ACK, seq, session.client_seq), data);
        same(&world.cross("uplink", "work", &probe), &probe, session.server, CLIENT);
    }
    // The client's window closes; the server probes with one octet and is told again.
    let (seq, ack) = (session.client_seq, session.server_seq);
    let closed = Segment { flags: ACK, seq, ack, window: 0, ..Segment::default() };
    world.cross("work", "uplink", tcp(CLIENT, session.server, closed.clone(), b""));
    world.cross("uplink", "work", tcp(session.server, session.external, (ACK, ack, seq), b"p"));
    world.cross("work", "uplink", tcp(CLIENT, session.server, closed, b""));
    world.cross("work", "uplink", tcp(CLIENT, session.server, (ACK, seq, ack), b""));
    session.talk(&mut world);
}

#[test]
fn req_2_openings_of_every_kind_complete() {
    let offers: [(u8, &[u8], &[u8]); 6] = [
        (SYN, b"", &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]),
        // RFC 3168: explicit congestion notification is offered.
        (SYN | ECE | CWR, b"", &[2, 4, 5, 0xb4]),
        // RFC 7413: data in the SYN, with a cookie.
        (SYN, b"GET /", &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]),
        (SYN | PSH | URG, b"!", &[]),
        (SYN, b"", &[3, 3, 255, 0]),
        (SYN, b"", &[2, 0, 0, 0]),
    ];
    for (port, (flags, data, options)) in (5000u16..).zip(offers) {
        let mut world = World::default();
        let (client, server) = (("10.0.1.7", port).at(), "198.51.100.9:80".at());
        let offer = |flags, seq, ack| Segment {
            flags,
            seq,
            ack,
            window: 64_240,
            urgent: 0,
            options: options.to_vec(),
        };
        let syn = tcp(client, server, offer(flags, 999, 0), data);
        let seen = world.cross("work", "uplink", &syn);
        let external = seen.from();
        same(&seen, &syn, external, server);
        // Both are sent again.
        same(&world.cross("work", "uplink", &syn), &syn, external, server);
        let next = 1000 + data.len() as u32;
        let answer = tcp(server, external, offer(SYN | ACK | flags & ECE, 4999, next), b"");
        for _ in 0..2 {
            same(&world.cross("uplink", "work", &answer), &answer, server, client);
        }
        let mut session =
            Connection { client, external, server, port: "work", client_seq: next, server_seq: 5000 };
        session.outward(&mut world, ACK, b"");
        session.talk(&mut world);
        world.pass_seconds(7400);
        assert!(session.is_alive(&mut world));
    }
}

#[test]
fn rfc_9293_3_6_half_closed_both_ways_and_late_retransmissions_cross() {
    for server_first in [false, true] {
        let mut world = World::default();
        let mut session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
        session.talk(&mut world);
        if server_first {
            session.inward(&mut world, FIN | ACK, b"");
            session.outward(&mut world, ACK, b"");
            session.outward(&mut world, ACK | PSH, b"still here");
            session.inward(&mut world, ACK, b"");
            session.outward(&mut world, FIN | ACK, b"");
            session.inward(&mut world, ACK, b"");
        } else {
            session.outward(&mut world, FIN | ACK, b"");
            session.inward(&mut world, ACK, b"");
            session.inward(&mut world, ACK | PSH, b"still here");
            session.outward(&mut world, ACK, b"");
            session.inward(&mut world, FIN | ACK, b"");
            session.outward(&mut world, ACK, b"");
        }
        // The last FIN comes again, as if its acknowledgement was lost, and is acknowledged again.
        let (seq, ack) = (session.server_seq.wrapping_sub(1), session.client_seq);
        world.cross("uplink", "work", tcp(session.server, session.external, (FIN | ACK, seq, ack), b""));
        world.cross("work", "uplink", tcp(CLIENT, session.server, (ACK, ack, seq.wrapping_add(1)), b""));
        let (seq, ack) = (session.client_seq.wrapping_sub(1), session.server_seq);
        world.cross("work", "uplink", tcp(CLIENT, session.server, (FIN | ACK, seq, ack), b""));
    }
}

#[test]
fn sequence_numbers_wrap_around_in_a_connection() {
    let mut world = World::default();
    let (client, server) = (CLIENT.at(), "198.51.100.9:80".at());
    let seen = world.cross("work", "uplink", tcp(client, server, (SYN, u32::MAX - 2, 0), b""));
    let external = seen.from();
    let answer = tcp(server, external, (SYN | ACK, u32::MAX, u32::MAX - 1), b"");
    world.cross("uplink", "work", answer);
    let (client_seq, server_seq) = (u32::MAX - 1, 0);
    let mut session = Connection { client, external, server, port: "work", client_seq, server_seq };
    session.outward(&mut world, ACK, b"");
    for _ in 0..10 {
        session.talk(&mut world);
    }
    assert!(session.client_seq < 100);
    session.close(&mut world);
}

#[test]
fn rfc_793_segments_shorter_than_their_header_are_malformed() {
    let mut world = World::default();
    let session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
    for (port, whole) in [("work", session.from_client(ACK, b"")), ("uplink", session.from_server(ACK, b""))]
    {
        for length in 0..20 {
            let mut cut = whole.clone();
            cut.payload.truncate(length);
            world.refuse(port, &cut, Dropped::Malformed);
        }
        for offset in [0, 1, 4, 6, 15] {
            let mut wrong = whole.clone();
            wrong.payload[12] = offset << 4;
            world.refuse(port, &wrong, Dropped::Malformed);
        }
    }
    for length in 0..8 {
        for (port, protocol) in [("work", 17), ("work", 1), ("uplink", 17), ("uplink", 1)] {
            let (from, to) =
                if port == "work" { ("10.0.1.7", "198.51.100.9") } else { ("198.51.100.9", "192.0.2.2") };
            let packet = Packet::new(from, to, protocol, &[8, 0, 0, 0, 0, 0, 0, 0][..length]);
            world.refuse(port, packet, Dropped::Malformed);
        }
    }
}

#[test]
fn resets_of_strangers_end_nothing() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
    session.talk(&mut world);
    let (server, external) = (session.server, session.external);
    for (from, to) in [
        ("203.0.113.5:80".at(), external),
        (("198.51.100.9", 81).at(), external),
        (server, ("192.0.2.2", external.port() ^ 1).at()),
    ] {
        let reset = tcp(from, to, (RST | ACK, session.server_seq, session.client_seq), b"");
        world.send("uplink", reset);
        world.quiet();
    }
    // A neighbour cannot either, under its own address or under that of the client.
    let reset = tcp("10.0.2.9:5000", "198.51.100.9:80", (RST, session.client_seq, 0), b"");
    world.send("lab", reset);
    world.quiet();
    let forged = tcp(CLIENT, "198.51.100.9:80", (RST, session.client_seq, 0), b"");
    world.refuse("lab", forged, Dropped::Spoofed);
    world.pass_seconds(7000);
    session.talk(&mut world);
}

#[test]
fn req_2_two_clients_open_to_each_other_at_once() {
    let mut world = World::default();
    let (one, two) = ("10.0.1.7:5000", "10.0.2.9:6000");
    // Each has learnt its external endpoint from a server.
    let first = Connection::begin(&mut world, one, "198.51.100.9:80").external;
    let second = Connection::begin(&mut world, two, "198.51.100.9:80").external;
    let sent = tcp(one, second, (SYN, 100, 0), b"");
    same(&world.cross("work", "lab", &sent), &sent, first, two);
    let sent = tcp(two, first, (SYN, 900, 0), b"");
    same(&world.cross("lab", "work", &sent), &sent, second, one);
    let sent = tcp(one, second, (SYN | ACK, 100, 901), b"");
    same(&world.cross("work", "lab", &sent), &sent, first, two);
    let sent = tcp(two, first, (SYN | ACK, 900, 101), b"");
    same(&world.cross("lab", "work", &sent), &sent, second, one);
    for _ in 0..3 {
        let sent = tcp(one, second, (ACK | PSH, 101, 901), b"");
        same(&world.cross("work", "lab", &sent), &sent, first, two);
        world.pass_seconds(7000);
    }
    let sent = tcp(two, first, (ACK | PSH, 901, 101), b"still open");
    same(&world.cross("lab", "work", &sent), &sent, second, one);
}
