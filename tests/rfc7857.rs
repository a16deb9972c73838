//! RFC 7857, RFC 5961, RFC 6191 and RFC 9293 3.10.7: what a segment means to a session that lives.

use firewall::Dropped;
use tests::flags::{ACK, FIN, PSH, RST, SYN, URG};
use tests::packet::{Packet, Segment};
use tests::{Connection, Seen, World, tcp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:80";

/// A connection that has talked, all of it acknowledged.
fn talking(world: &mut World) -> Connection {
    let mut session = Connection::open(world, CLIENT, SERVER);
    session.talk(world);
    session.inward(world, ACK, b"");
    session
}

/// The two ends: who sends, and which port its segments come in and go out by.
const SIDES: [(&str, &str); 2] = [("work", "uplink"), ("uplink", "work")];

/// A segment of one side whose numbers, its sequence and its acknowledgement, are so far from what
/// is next.
fn off(session: &Connection, side: usize, flags: u8, by: [u32; 2], data: &[u8]) -> Packet {
    let (from, to, next) = match side {
        0 => (session.client, session.server, [session.client_seq, session.server_seq]),
        _ => (session.server, session.external, [session.server_seq, session.client_seq]),
    };
    tcp(from, to, (flags, next[0].wrapping_add(by[0]), next[1].wrapping_add(by[1])), data)
}

/// The segment crosses; it is what was sent but for its endpoints.
#[track_caller]
fn crosses(world: &mut World, side: usize, segment: &Packet) -> Seen {
    let (input, output) = SIDES[side];
    let seen = world.cross(input, output, segment);
    assert_eq!(seen.transport()[4..16], segment.payload[4..16], "numbers, flags and window");
    seen
}

/// The session ends this many seconds after now, give or take two, if nothing comes.
#[track_caller]
fn lives_for(world: &mut World, session: &Connection, seconds: u64) {
    world.pass_seconds(seconds);
    assert_eq!(world.occupancy().sessions, 1, "{seconds} s");
    world.pass_seconds(2);
    assert_eq!(world.occupancy().sessions, 0, "{} s", seconds + 2);
    assert!(!session.is_alive(world));
}

#[test]
fn rfc_7857_2_2_an_exact_reset_of_either_side_crosses_and_is_transitory() {
    for side in [0, 1] {
        for flags in [RST, RST | ACK] {
            let mut world = World::default();
            let session = talking(&mut world);
            crosses(&mut world, side, &off(&session, side, flags, [0, 0], b""));
            lives_for(&mut world, &session, 240);
        }
    }
}

#[test]
fn rfc_7857_2_2_a_reset_session_is_established_again_when_traffic_resumes() {
    for side in [0, 1] {
        let mut world = World::default();
        let mut session = talking(&mut world);
        crosses(&mut world, side, &off(&session, side, RST, [0, 0], b""));
        world.pass_seconds(200);
        session.talk(&mut world);
        lives_for(&mut world, &session, 7440);
    }
}

#[test]
fn rfc_5961_3_a_reset_inside_the_window_crosses_and_changes_nothing() {
    for side in [0, 1] {
        for by in [1, 100, 10_000, 60_000] {
            let mut world = World::default();
            let session = talking(&mut world);
            world.pass_seconds(1000);
            crosses(&mut world, side, &off(&session, side, RST, [by, 0], b""));
            // Neither shortened nor refreshed.
            lives_for(&mut world, &session, 6440);
        }
    }
}

#[test]
fn rfc_5961_3_a_reset_outside_the_window_is_dropped() {
    let mut world = World::default();
    let session = talking(&mut world);
    for (side, (port, _)) in SIDES.into_iter().enumerate() {
        for by in [100_000, 0x1000_0000, 0x4000_0000, 0x8000_0000, 0xf000_0000, 0u32.wrapping_sub(70_000)] {
            world.refuse(port, off(&session, side, RST, [by, 0], b""), Dropped::TcpWindow);
            world.refuse(port, off(&session, side, RST | ACK, [by, 0], b""), Dropped::TcpWindow);
        }
    }
    lives_for(&mut world, &session, 7440);
}

#[test]
fn rfc_9293_3_10_7_3_while_a_syn_is_unanswered_a_reset_must_acknowledge_it() {
    let mut world = World::default();
    let session = Connection::begin(&mut world, CLIENT, SERVER);
    let reset = |flags, seq, ack| tcp(session.server, session.external, (flags, seq, ack), b"");
    for (flags, ack) in [(RST, 0), (RST, 1000), (RST | ACK, 999), (RST | ACK, 1001), (RST | ACK, 0)] {
        for seq in [0, 1, 0x8000_0000] {
            world.refuse("uplink", reset(flags, seq, ack), Dropped::TcpState);
        }
    }
    world.cross("uplink", "work", reset(RST | ACK, 0, 1000));
}

#[test]
fn rfc_5961_4_a_blind_syn_changes_nothing_whatever_its_number() {
    for side in [0, 1] {
        let mut world = World::default();
        let session = talking(&mut world);
        world.pass_seconds(1000);
        for by in [0, 1, 1000, 0x4000_0000, 0x8000_0000, 0xffff_ffff] {
            // The endpoint challenges it.
            crosses(&mut world, side, &off(&session, side, SYN, [by, 0], b""));
        }
        lives_for(&mut world, &session, 6440);
    }
}

#[test]
fn rfc_5961_5_a_blind_fin_ends_nothing() {
    for (side, (port, _)) in SIDES.into_iter().enumerate() {
        let mut world = World::default();
        let mut session = talking(&mut world);
        for by in [100_000, 0x4000_0000, 0x8000_0000, 0xfff0_0000] {
            world.refuse(port, off(&session, side, FIN | ACK, [by, 0], b""), Dropped::TcpWindow);
            world.refuse(port, off(&session, side, FIN | ACK, [0, by], b""), Dropped::TcpWindow);
        }
        // Without an acknowledgement it is nothing (RFC 9293 3.10.7.4).
        world.refuse(port, off(&session, side, FIN, [0, 0], b""), Dropped::TcpWindow);
        session.talk(&mut world);
        lives_for(&mut world, &session, 7440);
    }
}

#[test]
fn rfc_9293_3_10_7_4_data_and_acknowledgements_far_outside_are_dropped_and_refresh_nothing() {
    let mut world = World::default();
    let session = talking(&mut world);
    world.pass_seconds(1000);
    for (side, (port, _)) in SIDES.into_iter().enumerate() {
        for by in [0x2000_0000, 0x4000_0000, 0x8000_0000, 0xe000_0000] {
            world.refuse(port, off(&session, side, ACK | PSH, [by, 0], b"wild"), Dropped::TcpWindow);
            world.refuse(port, off(&session, side, ACK, [0, by], b""), Dropped::TcpWindow);
        }
    }
    lives_for(&mut world, &session, 6440);
}

#[test]
fn rfc_9293_null_christmas_and_contradictions_do_not_cross() {
    let mut world = World::default();
    let mut session = talking(&mut world);
    for (side, (port, _)) in SIDES.into_iter().enumerate() {
        for flags in [0, PSH, URG, FIN, FIN | PSH | URG, SYN | FIN, SYN | RST, SYN | FIN | ACK, 0x3f, 0xff] {
            world.refuse(port, off(&session, side, flags, [0, 0], b""), Dropped::TcpWindow);
        }
    }
    session.talk(&mut world);
    lives_for(&mut world, &session, 7440);
}

#[test]
fn rfc_7323_scaled_windows_are_honoured() {
    let mut world = World::default();
    let (client, server) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    let syn = |flags, seq, ack, shift| Segment {
        flags,
        seq,
        ack,
        window: 64_000,
        options: vec![3, 3, shift, 0],
        ..Segment::default()
    };
    let seen = world.cross("work", "uplink", tcp(client, server, syn(SYN, 999, 0, 7), b""));
    let external = seen.from();
    world.cross("uplink", "work", tcp(server, external, syn(SYN | ACK, 4999, 1000, 7), b""));
    let (client_seq, server_seq) = (1000, 5000);
    let mut session = Connection { client, external, server, port: "work", client_seq, server_seq };
    session.outward(&mut world, ACK, b"");
    session.talk(&mut world);
    // 64 240 times 128 octets may be on their way: nearly eight million.
    for ahead in [60_000, 1_000_000, 8_000_000] {
        world.cross("uplink", "work", off(&session, 1, ACK | PSH, [ahead, 0], b"far ahead"));
    }
    world.refuse("uplink", off(&session, 1, ACK | PSH, [20_000_000, 0], b"too far"), Dropped::TcpWindow);
}

#[test]
fn rfc_6191_only_a_newer_syn_reopens_a_closed_session_and_it_is_all_new() {
    let mut world = World::default();
    let mut session = talking(&mut world);
    session.close(&mut world);
    world.pass_seconds(100);
    let newer = session.client_seq.wrapping_add(5000);
    let seen = world.cross("work", "uplink", tcp(CLIENT, SERVER, (SYN, newer, 0), b""));
    assert_eq!(seen.from(), session.external, "the same mapping");
    assert_eq!(world.occupancy().sessions, 1);
    (session.client_seq, session.server_seq) = (newer.wrapping_add(1), 77_000);
    session.inward(&mut world, SYN | ACK, b"");
    session.outward(&mut world, ACK, b"");
    session.talk(&mut world);
    lives_for(&mut world, &session, 7440);
}

#[test]
fn rfc_7857_2_1_each_state_has_its_time_and_a_later_segment_gives_it_back() {
    let mut world = World::default();
    let mut session = talking(&mut world);
    session.outward(&mut world, FIN | ACK, b"");
    world.pass_seconds(230);
    // Half-closed: every segment counts anew.
    for _ in 0..10 {
        session.inward(&mut world, ACK | PSH, b"still sending");
        world.pass_seconds(230);
    }
    session.inward(&mut world, FIN | ACK, b"");
    session.outward(&mut world, ACK, b"");
    lives_for(&mut world, &session, 240);
}

#[test]
fn rfc_7857_4_port_parity_is_kept_for_both_protocols() {
    let mut world = World::default();
    for port in [5000, 5001, 999, 998] {
        let one = world.open_udp(&format!("10.0.1.7:{port}"), SERVER).port();
        let two = world.open_udp(&format!("10.0.2.9:{port}"), SERVER).port();
        assert_eq!((one % 2, two % 2), (port % 2, port % 2));
        let three = Connection::open(&mut world, ("10.0.1.7", port), SERVER).external.port();
        let four = Connection::open(&mut world, ("10.0.2.9", port), SERVER).external.port();
        assert_eq!((three % 2, four % 2), (port % 2, port % 2));
    }
}

#[test]
fn rfc_7857_6_and_7_mappings_of_udp_and_tcp_and_of_two_ports_are_apart() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:6000", SERVER);
    let udp = world.open_udp("10.0.2.9:6000", SERVER);
    let tcp = Connection::open(&mut world, ("10.0.2.9", 6000), SERVER).external;
    assert_ne!(udp.port(), tcp.port(), "a port that is taken in one protocol is free in the other");
    assert_eq!(world.occupancy().mappings, 3);
}
