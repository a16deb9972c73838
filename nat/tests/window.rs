//! TCP sequence windows: RFC 9293 3.10.7.4, RFC 5961, RFC 6191, RFC 7413.

mod world;

use nat::Endpoint;
use world::connection::*;
use world::*;

#[test]
fn rfc_9293_far_outside_of_the_windows_is_refused_and_changes_nothing() {
    let mut world = connected();
    let before = left(&mut world);
    world.wait(100);
    for far in [70_000, 1 << 20, 1 << 30, 1 << 31, u32::MAX - 70_000] {
        let outside = [
            tcp(FROM, TO, ACK, (101 + far, 501), b"x"),
            tcp(FROM, TO, ACK, (101, 501 + far), b"x"),
            tcp(TO, OUT, ACK, (501 + far, 101), b"x"),
            tcp(TO, OUT, ACK, (501, 101 + far), b"x"),
            tcp(TO, OUT, FIN | ACK, (501 + far, 101), b"x"),
            tcp(TO, OUT, RST, (501 + far, 0), b""),
        ];
        for octets in outside {
            assert_eq!(world.cross(&octets), Err(Dropped::Refused), "{far}");
        }
    }
    assert_eq!(left(&mut world), before - 100);
    world.cross(&tcp(TO, OUT, ACK, (501, 101), b"x")).unwrap();
    assert_eq!(left(&mut world), before);
}

#[test]
fn rfc_7323_windows_are_scaled_only_if_both_sides_offer_it() {
    for (client, server, scale) in [(Some(7), Some(2), 7), (Some(7), None, 0), (None, Some(7), 0)] {
        let mut world = scaled(client, server);
        // The window of the SYN itself, never scaled, was 64 240.
        let edge = 501 + (1000_u32 << scale).max(66_000);
        let acknowledged = 501 + 60_000;
        world.cross(&tcp(TO, OUT, ACK, (acknowledged, 101), b"data")).unwrap();
        // Windows are known to 16 of their units.
        let beyond = world.cross(&tcp(TO, OUT, ACK, (edge + (16 << scale), 101), b""));
        assert_eq!(beyond, Err(Dropped::Refused), "{client:?} {server:?}");
        let last = world.cross(&tcp(TO, OUT, ACK, (edge, 101), b""));
        assert!(last.is_ok(), "{client:?} {server:?}");
    }
}

#[test]
fn real_stacks_lose_no_segment() {
    let mut world = connected();
    let fine = |world: &mut World, ends: (Endpoint, Endpoint), numbers, payload: &[u8]| {
        world.cross(&tcp(ends.0, ends.1, ACK, numbers, payload)).unwrap();
    };
    let (up, down) = ((FROM, TO), (TO, OUT));
    fine(&mut world, up, (101, 501), &[1; 1000]);
    fine(&mut world, down, (501, 1101), &[2; 500]);
    // Retransmission of what was acknowledged, an old acknowledgement, both keepalives.
    fine(&mut world, up, (101, 501), &[1; 1000]);
    fine(&mut world, down, (501, 101), &[]);
    fine(&mut world, up, (1100, 1001), &[]);
    fine(&mut world, up, (1100, 1001), &[0]);
    fine(&mut world, down, (1000, 1101), &[]);
    // The window shrinks to nothing; octets in flight, and probes at its edge.
    world.cross(&segment(down, ACK, (1001, 1101), (0, None))).unwrap();
    fine(&mut world, up, (1101, 1001), &[1; 1000]);
    world.cross(&segment(down, ACK, (1001, 2101), (0, None))).unwrap();
    fine(&mut world, up, (2101, 1001), &[1]);
    world.cross(&segment(down, ACK, (1001, 2101), (100, None))).unwrap();
    fine(&mut world, up, (2101, 1001), &[1; 100]);
    // A hole: later segments first.
    for at in [6, 4, 5, 3, 2, 1, 0] {
        fine(&mut world, down, (1001 + at * 1000, 2201), &[2; 1000]);
    }
    // The SYN's answer comes again, late.
    world.cross(&tcp(TO, OUT, SYN | ACK, (500, 101), &[])).unwrap();
    assert!(is_established(&world));
}

#[test]
fn long_transfers_pass_at_full_windows_around_the_end_of_sequence_space() {
    let mut world = World::new();
    let start = u32::MAX - 5_000_000;
    world.cross(&segment((FROM, TO), SYN, (start, 0), (64_240, Some(9)))).unwrap();
    world.cross(&segment((TO, OUT), SYN | ACK, (9, start.wrapping_add(1)), (65_160, Some(8)))).unwrap();
    world.cross(&segment((FROM, TO), ACK, (start.wrapping_add(1), 10), (500, None))).unwrap();
    let mut sent = start.wrapping_add(1);
    let mut acknowledged = sent;
    let mut random = Random(7323);
    let window = 60_000 << 8;
    world.cross(&segment((TO, OUT), ACK, (10, acknowledged), (60_000, None))).unwrap();
    for _ in 0..20_000 {
        if sent.wrapping_sub(acknowledged) < window - 1000 {
            world.cross(&tcp(FROM, TO, ACK, (sent, 10), &[0; 1000])).unwrap();
            sent = sent.wrapping_add(1000);
        }
        if random.below(500) == 0 {
            // What was lost is sent again, from the start of the flight.
            world.cross(&tcp(FROM, TO, ACK, (acknowledged, 10), &[0; 1000])).unwrap();
            let some = random.below(u64::from(sent.wrapping_sub(acknowledged)) + 1) as u32;
            acknowledged = acknowledged.wrapping_add(some);
            world.cross(&segment((TO, OUT), ACK, (10, acknowledged), (60_000, None))).unwrap();
        }
    }
    assert!(sent < start, "around the end");
}

#[test]
fn rfc_7413_data_in_the_syn_may_be_acknowledged_or_not() {
    for (acknowledgement, passes) in [(100, false), (101, true), (105, true), (110, true), (111, false)] {
        for second in [None, Some(&b"fast open"[..]), Some(b"")] {
            let mut world = World::new();
            world.cross(&tcp(FROM, TO, SYN, (100, 0), b"fast open")).unwrap();
            if let Some(data) = second {
                world.cross(&tcp(FROM, TO, SYN, (100, 0), data)).unwrap();
            }
            let answer = world.cross(&tcp(TO, OUT, SYN | ACK, (500, acknowledgement), &[]));
            assert_eq!(answer.is_ok(), passes, "{acknowledgement}");
            if passes {
                world.cross(&tcp(FROM, TO, ACK, (acknowledgement, 501), b"rest")).unwrap();
                assert!(is_established(&world));
            }
        }
    }
}

#[test]
fn rfc_5961_an_exact_reset_is_transitory_one_inside_passes_and_one_outside_does_not() {
    // The last acknowledgement, and the end of the data as seen.
    for exact in [501, 511] {
        let mut world = connected();
        world.cross(&tcp(TO, OUT, ACK, (501, 101), &[0; 10])).unwrap();
        let established = left(&mut world);
        for inside in [502, 600, 8000] {
            world.cross(&tcp(TO, OUT, RST, (inside, 0), &[])).unwrap();
            assert_eq!(left(&mut world), established, "{inside}");
        }
        for outside in [500, 0_u32.wrapping_sub(7000), 501 + 67_000, 1 << 31] {
            let blind = world.cross(&tcp(TO, OUT, RST | ACK, (outside, 101), &[]));
            assert_eq!(blind, Err(Dropped::Refused), "{outside}");
            assert_eq!(left(&mut world), established, "{outside}");
        }
        world.cross(&tcp(TO, OUT, RST, (exact, 0), &[])).unwrap();
        assert!((239..=241).contains(&left(&mut world)));
        world.cross(&tcp(FROM, TO, ACK, (101, 501), b"still here")).unwrap();
        assert_eq!(left(&mut world), established);
    }
}

#[test]
fn rfc_5961_a_blind_syn_neither_ends_nor_shortens_nor_refreshes() {
    let mut world = connected();
    let before = left(&mut world);
    world.wait(10);
    for sequence in [0, 501, 600, 1 << 31] {
        world.cross(&tcp(TO, OUT, SYN, (sequence, 0), &[])).unwrap();
        world.cross(&tcp(FROM, TO, SYN, (sequence, 0), &[])).unwrap();
        assert_eq!(left(&mut world), before - 10);
    }
    world.cross(&tcp(TO, OUT, ACK, (501, 101), b"goes on")).unwrap();
    assert_eq!(left(&mut world), before);
}

#[test]
fn a_fin_counts_only_inside_the_window() {
    let mut world = connected();
    world.cross(&tcp(TO, OUT, ACK, (501, 101), &[0; 100])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (101, 601), &[])).unwrap();
    // Old: the octets were acknowledged. Far: it is refused. Without ACK: nothing at all.
    world.cross(&tcp(TO, OUT, FIN | ACK, (501, 101), &[])).unwrap();
    for odd in [(FIN | ACK, 200_000), (FIN, 601)] {
        let refused = world.cross(&tcp(TO, OUT, odd.0, (odd.1, 101), &[]));
        assert_eq!(refused, Err(Dropped::Refused));
    }
    assert!(is_established(&world));
    world.cross(&tcp(TO, OUT, FIN | ACK, (601, 101), &[])).unwrap();
    assert!(!is_established(&world));
}

#[test]
fn rfc_9293_a_fin_behind_a_full_window_counts_and_what_was_lost_before_it_is_asked_for() {
    for (window, scale) in [(65_535, 0), (65_535, 2), (1039, 7)] {
        let mut world = scaled(Some(scale), Some(scale));
        world.cross(&segment((FROM, TO), ACK, (101, 501), (window, None))).unwrap();
        // The FIN has the first number beyond the edge.
        let edge = 501 + (u32::from(window) << scale);
        for at in (501..edge).step_by(1460) {
            let length = 1460.min(edge - at);
            let flags = if at + length == edge { FIN | ACK } else { ACK };
            world.cross(&tcp(TO, OUT, flags, (at, 101), &vec![0; length as usize])).unwrap();
        }
        assert!(!is_established(&world), "{window} << {scale}");
        // The first segment was lost behind us.
        let again = world.cross(&tcp(FROM, TO, ACK, (101, 501), &[]));
        assert!(again.is_ok(), "{window} << {scale}");
    }
}

#[test]
fn null_xmas_and_contradictions_are_refused_on_a_live_session_too() {
    for flags in [0, FIN, FIN | 0x28, SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | RST | ACK, FIN | RST] {
        let mut world = connected();
        let before = left(&mut world);
        for octets in [tcp(FROM, TO, flags, (101, 501), b""), tcp(TO, OUT, flags, (501, 101), b"")] {
            let mut octets = octets;
            if flags & 0x28 != 0 {
                octets[33] |= 0x28;
            }
            assert_eq!(world.cross(&octets), Err(Dropped::Refused), "{flags:#x}");
        }
        assert_eq!(left(&mut world), before);
    }
}

#[test]
fn rfc_9293_a_half_open_connection_recovers() {
    // The client lost its memory; the server did not, and challenges the SYN.
    let mut world = connected();
    world.cross(&tcp(FROM, TO, SYN, (7_000_000, 0), &[])).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (501, 101), &[])).unwrap();
    world.cross(&tcp(FROM, TO, RST, (101, 0), &[])).unwrap();
    world.cross(&tcp(FROM, TO, SYN, (7_000_000, 0), &[])).unwrap();
    world.cross(&tcp(TO, OUT, SYN | ACK, (9_000_000, 7_000_001), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (7_000_001, 9_000_001), &[])).unwrap();
    assert!(is_established(&world));
    // So did the NAT: the challenge finds an unanswered SYN, and the reset leaves it so.
    let mut world = World::new();
    world.cross(&tcp(FROM, TO, SYN, (7_000_000, 0), &[])).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (501, 101), &[])).unwrap();
    assert!(!world.nat.iter().next().unwrap().1.has_reply());
    world.cross(&tcp(FROM, TO, RST, (101, 0), &[])).unwrap();
    assert_eq!(world.connect(FROM, TO), OUT);
    assert!(is_established(&world));
}

#[test]
fn a_server_that_lost_its_memory_is_connected_to_anew() {
    let mut world = connected();
    world.cross(&tcp(FROM, TO, SYN, (7_000_000, 0), &[])).unwrap();
    let blind = world.cross(&tcp(TO, OUT, SYN | ACK, (9_000_000, 7_000_002), &[]));
    assert_eq!(blind, Err(Dropped::Refused));
    world.cross(&tcp(TO, OUT, SYN | ACK, (9_000_000, 7_000_001), &[])).unwrap();
    assert!(!is_established(&world));
    world.cross(&tcp(FROM, TO, ACK, (7_000_001, 9_000_001), b"hello")).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (9_000_001, 7_000_006), b"hello")).unwrap();
    assert!(is_established(&world));
}

#[test]
fn rfc_7323_a_connection_that_is_made_anew_may_scale_its_windows() {
    let mut world = scaled(Some(7), Some(7));
    // The server lost its memory: it acknowledges the SYN of a client that did so too.
    world.cross(&segment((FROM, TO), SYN, (7_000_000, 0), (64_240, Some(7)))).unwrap();
    world.cross(&segment((TO, OUT), SYN | ACK, (9_000_000, 7_000_001), (65_160, Some(7)))).unwrap();
    world.cross(&segment((FROM, TO), ACK, (7_000_001, 9_000_001), (60_000, None))).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (9_000_001 + 1_000_000, 7_000_001), b"data")).unwrap();
}

#[test]
fn rfc_6191_an_older_syn_reopens_only_if_it_is_answered() {
    let close = |world: &mut World| {
        world.cross(&tcp(FROM, TO, FIN | ACK, (101, 501), &[])).unwrap();
        world.cross(&tcp(TO, OUT, FIN | ACK, (501, 102), &[])).unwrap();
        world.cross(&tcp(FROM, TO, ACK, (102, 502), &[])).unwrap();
    };
    let mut world = connected();
    close(&mut world);
    world.cross(&tcp(FROM, TO, SYN, (50, 0), &[])).unwrap();
    // Still closed: the old connection's segments are right, and those of a new one are not.
    world.cross(&tcp(TO, OUT, ACK, (502, 102), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (102, 502), &[])).unwrap();
    assert_eq!(world.cross(&tcp(TO, OUT, SYN | ACK, (5_000_000, 52), &[])), Err(Dropped::Refused));
    world.cross(&tcp(TO, OUT, SYN | ACK, (5_000_000, 51), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (51, 5_000_001), &[])).unwrap();
    assert!(is_established(&world));
}

#[test]
fn pickup_opens_in_the_middle_only_where_the_site_says_so() {
    let middle = tcp(FROM, TO, ACK, (1_000_000, 2_000_000), b"data");
    assert_eq!(World::new().cross(&middle), Err(Dropped::NoSession));
    let mut world = World::optional(|options| options.pickup = true);
    assert!(world.cross(&tcp(FROM, TO, FIN | ACK, (1, 1), &[])).is_err());
    assert!(world.cross(&tcp(FROM, TO, RST | ACK, (1, 1), &[])).is_err());
    world.cross(&middle).unwrap();
    assert!(is_established(&world));
    // What came before it was seen is acknowledged.
    world.cross(&tcp(FROM, TO, ACK, (1_000_004, 2_500_000), &[])).unwrap();
    // The other side was far ahead of what had been acknowledged.
    world.cross(&tcp(TO, OUT, ACK, (2_900_000, 1_000_004), b"data")).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (1_000_004, 2_900_004), &[])).unwrap();
    let far = world.cross(&tcp(TO, OUT, ACK, (1 << 31, 1_000_004), b"data"));
    assert_eq!(far, Err(Dropped::Refused));
    world.cross(&tcp(TO, OUT, RST, (2_900_004, 0), &[])).unwrap();
    assert!(!is_established(&world));
}

#[test]
fn pickup_of_a_keepalive_goes_on() {
    let mut world = World::optional(|options| options.pickup = true);
    world.cross(&tcp(FROM, TO, ACK, (999, 2000), &[])).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (2000, 1000), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (1000, 2000), b"data")).unwrap();
}

#[test]
fn any_segments_at_all_never_panic_and_the_connection_goes_on() {
    let seed = 0x71d0;
    let mut random = Random(seed);
    let mut world = connected();
    for _ in 0..100_000 {
        let numbers = (random.next() as u32, random.next() as u32);
        let flags = [SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK, FIN][random.below(7) as usize];
        let inwards = tcp(TO, OUT, flags, numbers, &[]);
        let _ = world.cross(&inwards);
    }
    assert!(is_established(&world), "seed {seed:#x}");
    world.cross(&tcp(TO, OUT, ACK, (501, 101), b"data")).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (101, 505), b"data")).unwrap();
}

#[test]
fn rfc_7857_a_fin_ahead_of_lost_octets_counts_when_it_is_acknowledged() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        let established = left(&mut world);
        world.cross(&tcp(ahead.0, ahead.1, FIN | ACK, (sequence + 1000, acknowledgement), b"end")).unwrap();
        assert!(is_established(&world) && left(&mut world) == established);
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence), &[])).unwrap();
        world.cross(&tcp(ahead.0, ahead.1, ACK, (sequence, acknowledgement), &[0; 1000])).unwrap();
        assert!(is_established(&world));
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + 1004), &[])).unwrap();
        assert!(!is_established(&world));
        assert!((239..=241).contains(&left(&mut world)));
    }
}

#[test]
fn rfc_5961_a_blind_fin_inside_the_window_neither_ends_nor_shortens() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        let established = left(&mut world);
        for guess in [1, 500, 4000, 8000] {
            world.cross(&tcp(ahead.0, ahead.1, FIN | ACK, (sequence + guess, acknowledgement), &[])).unwrap();
        }
        // The connection goes on, over the guesses and beyond.
        for at in (sequence..sequence + 20_000).step_by(1000) {
            world.cross(&tcp(ahead.0, ahead.1, ACK, (at, acknowledgement), &[0; 1000])).unwrap();
            world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, at + 1000), &[])).unwrap();
            assert!(is_established(&world));
        }
        assert_eq!(left(&mut world), established);
    }
}
