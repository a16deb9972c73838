//! RFC 5382, 7857 and 6191: TCP through a NAT.

mod world;

use nat::{Unbound, protocol};
use world::*;

const FROM: nat::Endpoint = nat::Endpoint::new(CLIENT, 5000);
const TO: nat::Endpoint = nat::Endpoint::new(SERVER, 80);

/// Whether the session lives for so long, and no longer.
fn lives(world: &mut World, seconds: u32) {
    let left = world.remaining(protocol::TCP, FROM, TO);
    assert!((seconds..seconds + 2).contains(&left), "{left} s left, not {seconds}");
}

#[test]
fn req_1_and_7_one_external_endpoint_that_no_other_has() {
    let mut world = World::new();
    let external = world.connect(FROM, TO);
    assert_eq!(world.connect(FROM, end(SERVER, 443)), external);
    assert_ne!(world.connect(end(OTHER_CLIENT, 5000), TO), external);
}

#[test]
fn req_2_simultaneous_open_crosses_and_establishes() {
    let mut world = World::new();
    let external = end(EXTERNAL, 5000);
    world.cross(&tcp(FROM, TO, SYN, (100, 0), &[])).unwrap();
    world.cross(&tcp(TO, external, SYN, (500, 0), &[])).unwrap();
    world.cross(&tcp(FROM, TO, SYN | ACK, (100, 501), &[])).unwrap();
    lives(&mut world, 240);
    world.cross(&tcp(TO, external, SYN | ACK, (500, 101), &[])).unwrap();
    lives(&mut world, 7440);
}

#[test]
fn req_4_an_unsolicited_syn_opens_nothing() {
    let mut world = World::new();
    let left = world.cross(&tcp(TO, end(EXTERNAL, 5000), SYN, (1, 0), &[]));
    assert_eq!(left, Err(Dropped::NoSession));
    assert_eq!(world.nat.counts().sessions, 0);
}

#[test]
fn req_5_opening_240_established_7440_seconds() {
    let mut world = World::new();
    world.cross(&tcp(FROM, TO, SYN, (100, 0), &[])).unwrap();
    lives(&mut world, 240);
    world.connect(FROM, TO);
    lives(&mut world, 7440);
}

#[test]
fn req_5_any_direction_refreshes() {
    let mut world = World::new();
    let external = world.connect(FROM, TO);
    for _ in 0..3 {
        world.wait(7000);
        world.cross(&tcp(TO, external, ACK, (501, 101), b"data")).unwrap();
    }
    lives(&mut world, 7440);
}

#[test]
fn req_5_closing_is_transitory_and_late_segments_pass() {
    let mut world = World::new();
    let external = world.connect(FROM, TO);
    world.cross(&tcp(FROM, TO, FIN | ACK, (101, 501), &[])).unwrap();
    lives(&mut world, 240);
    // Half closed: the open direction keeps it.
    for _ in 0..5 {
        world.wait(200);
        world.cross(&tcp(TO, external, ACK, (501, 102), b"data")).unwrap();
    }
    world.cross(&tcp(TO, external, FIN | ACK, (505, 102), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (102, 506), &[])).unwrap();
    lives(&mut world, 240);
    world.wait(239);
    world.cross(&tcp(TO, external, FIN | ACK, (505, 102), &[])).unwrap();
    lives(&mut world, 240);
}

#[test]
fn rfc_7857_a_reset_is_transitory_until_traffic_resumes() {
    let mut world = World::new();
    let external = world.connect(FROM, TO);
    world.cross(&tcp(TO, external, RST, (501, 0), &[])).unwrap();
    lives(&mut world, 240);
    world.cross(&tcp(FROM, TO, ACK, (101, 501), b"still here")).unwrap();
    lives(&mut world, 7440);
}

#[test]
fn rfc_6191_a_new_syn_reopens_a_closed_session_with_its_mapping() {
    let mut world = World::new();
    let external = world.connect(FROM, TO);
    world.cross(&tcp(FROM, TO, FIN | ACK, (101, 501), &[])).unwrap();
    world.cross(&tcp(TO, external, FIN | ACK, (501, 102), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (102, 502), &[])).unwrap();
    let left = world.cross(&tcp(FROM, TO, SYN, (90_000, 0), &[])).unwrap();
    assert_eq!(ends(&left).0, external);
    // The new SYN is the one that a reset must acknowledge.
    let stale = world.cross(&tcp(TO, external, RST | ACK, (0, 101), &[]));
    assert_eq!(stale, Err(Dropped::Refused));
    lives(&mut world, 240);
    assert_eq!(world.connect(FROM, TO), external);
    lives(&mut world, 7440);
    assert_eq!(world.nat.counts().sessions, 1);
}

#[test]
fn a_reset_while_opening_must_acknowledge_the_syn() {
    let mut world = World::new();
    let external = end(EXTERNAL, 5000);
    world.cross(&tcp(FROM, TO, SYN, (100, 0), b"fast open")).unwrap();
    for acknowledgement in [0, 100, 111] {
        let blind = world.cross(&tcp(TO, external, RST | ACK, (0, acknowledgement), &[]));
        assert_eq!(blind, Err(Dropped::Refused), "{acknowledgement}");
    }
    // RFC 9293 3.10.7.3: any acknowledgement that the client takes, with its data or without.
    for acknowledgement in [101, 105, 110] {
        world.cross(&tcp(TO, external, RST | ACK, (0, acknowledgement), &[])).unwrap();
    }
}

/// Both sides close a connection.
fn close(world: &mut World, external: nat::Endpoint) {
    world.cross(&tcp(FROM, TO, FIN | ACK, (101, 501), &[])).unwrap();
    world.cross(&tcp(TO, external, FIN | ACK, (501, 102), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (102, 502), &[])).unwrap();
}

#[test]
fn rfc_6191_the_other_side_reopens_a_closed_session_if_it_is_answered() {
    // Newer and older numbers: whether timestamps allow those is the client's to judge.
    for syn in [7_000_000, 400] {
        let mut world = World::new();
        let external = world.connect(FROM, TO);
        close(&mut world, external);
        world.cross(&tcp(TO, external, SYN, (syn, 0), &[])).unwrap();
        // It changes nothing yet: the last acknowledgement comes again, and its FIN.
        world.cross(&tcp(FROM, TO, ACK, (102, 502), &[])).unwrap();
        world.cross(&tcp(TO, external, FIN | ACK, (501, 102), &[])).unwrap();
        let blind = world.cross(&tcp(FROM, TO, SYN | ACK, (9_000_000, syn + 2), &[]));
        assert_eq!(blind, Err(Dropped::Refused));
        world.cross(&tcp(FROM, TO, SYN | ACK, (9_000_000, syn + 1), &[])).unwrap();
        lives(&mut world, 240);
        world.cross(&tcp(TO, external, ACK, (syn + 1, 9_000_001), b"hello")).unwrap();
        world.cross(&tcp(FROM, TO, ACK, (9_000_001, syn + 6), b"hello")).unwrap();
        lives(&mut world, 7440);
    }
}

#[test]
fn rfc_5961_who_sends_a_blind_syn_cannot_acknowledge_it_itself() {
    for (ahead, back) in [((FROM, TO), (TO, end(EXTERNAL, 5000))), ((TO, end(EXTERNAL, 5000)), (FROM, TO))] {
        let mut world = World::new();
        world.connect(FROM, TO);
        world.cross(&tcp(ahead.0, ahead.1, SYN, (7_000_000, 0), &[])).unwrap();
        for flags in [SYN | ACK, RST | ACK] {
            let forged = world.cross(&tcp(ahead.0, ahead.1, flags, (0x7000_0000, 7_000_001), &[]));
            assert_eq!(forged, Err(Dropped::Refused));
        }
        lives(&mut world, 7440);
        // The other side may refuse it, and that changes nothing.
        world.cross(&tcp(back.0, back.1, RST | ACK, (0, 7_000_001), &[])).unwrap();
        lives(&mut world, 7440);
    }
}

#[test]
fn a_refused_segment_changes_nothing() {
    let mut world = World::new();
    world.cross(&tcp(FROM, TO, SYN, (100, 0), &[])).unwrap();
    world.wait(100);
    let blind = tcp(TO, end(EXTERNAL, 5000), RST | ACK, (0, 5), &[]);
    assert_eq!(world.cross(&blind), Err(Dropped::Refused));
    lives(&mut world, 140);
    let (_, session) = world.nat.iter().next().unwrap();
    assert!(!session.has_reply());
}

#[test]
fn only_a_plain_syn_opens() {
    for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, FIN, RST, 0x29, 0x3f] {
        let mut world = World::new();
        let left = world.cross(&tcp(FROM, TO, flags, (1, 1), b"x"));
        assert_eq!(left, Err(Dropped::NoSession), "{flags:#x}");
    }
}

#[test]
fn a_forward_is_opened_from_outside() {
    let mut world = World::new();
    let peer = end(SERVER, 4000);
    let left = world.cross(&tcp(peer, FORWARD, SYN, (50, 0), &[])).unwrap();
    judge(&left);
    assert_eq!(ends(&left), (peer, FORWARDED));
    let left = world.cross(&tcp(FORWARDED, peer, SYN | ACK, (60, 51), &[])).unwrap();
    judge(&left);
    assert_eq!(ends(&left), (FORWARD, peer));
    let (_, session) = world.nat.iter().next().unwrap();
    assert!(session.is_dnat() && !session.is_snat() && session.has_reply());
    assert_eq!(session.residue(BOTH[0]), 1);
    assert_eq!(session.residue(BOTH[1]), 2);
}

#[test]
fn a_full_table_lets_go_of_closed_connections_and_of_no_other() {
    let mut world = World::with(|config| config.sessions = 10);
    for port in 1..=9 {
        world.connect(FROM, end(SERVER, port));
    }
    let external = world.connect(FROM, TO);
    world.cross(&tcp(FROM, TO, FIN | ACK, (101, 501), &[])).unwrap();
    world.cross(&tcp(TO, external, FIN | ACK, (501, 102), &[])).unwrap();
    world.connect(FROM, end(SERVER, 81));
    assert!(!world.is_live(protocol::TCP, FROM, TO));
    let full = world.cross(&tcp(FROM, end(SERVER, 82), SYN, (100, 0), &[]));
    assert_eq!(full, Err(Dropped::Unbound(Unbound::TableFull)));
    assert_eq!(world.nat.counts().sessions, 10);
}
