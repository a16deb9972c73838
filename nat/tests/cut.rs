//! TCP segments in fragments: where they end, and what follows from it, before their last fragment is known.

mod world;

use etherparse::TcpHeader;
use nat::{Endpoint, protocol};
use world::connection::*;
use world::*;

/// The first fragment of a segment whose octets go on in others.
fn first_fragment(
    ends: (Endpoint, Endpoint),
    flags: u8,
    numbers: (u32, u32),
    window: u16,
    seen: usize,
) -> Vec<u8> {
    let mut header = TcpHeader::new(ends.0.port, ends.1.port, numbers.0, window);
    header.acknowledgment_number = numbers.1;
    (header.syn, header.ack, header.fin) = (flags & SYN != 0, flags & ACK != 0, flags & FIN != 0);
    let octets = [&header.to_bytes()[..], &vec![7; seen]].concat();
    ipv4_with(ends.0.address, ends.1.address, protocol::TCP, &octets, |ip| ip.more_fragments = true)
}

#[test]
fn rfc_791_a_segment_in_fragments_is_acknowledged_and_the_connection_goes_on() {
    // 20 + 20 + 1444 octets arrive; 7000 octets were sent.
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        let far = world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + 7000), &[]));
        assert_eq!(far, Err(Dropped::Refused), "before it was sent");
        for round in 0..50 {
            let at = sequence + round * 7000;
            world.cross(&first_fragment(ahead, ACK, (at, acknowledgement), 8192, 1444)).unwrap();
            // The NAT saw where this one ends: it is behind the end of the other.
            world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, at + 7000), &[])).unwrap();
            world.cross(&tcp(ahead.0, ahead.1, ACK, (at, acknowledgement), &[0; 1444])).unwrap();
        }
        let end = sequence + 50 * 7000;
        world.cross(&tcp(ahead.0, ahead.1, ACK, (end, acknowledgement), b"whole")).unwrap();
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, end + 5), b"whole")).unwrap();
        assert!(is_established(&world));
    }
}

#[test]
fn rfc_791_a_segment_in_fragments_opens_no_more_than_a_datagram_or_the_receivers_window() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        world.cross(&first_fragment(ahead, ACK, (sequence, acknowledgement), 8192, 1444)).unwrap();
        for (way, at, other) in [(ahead, sequence, acknowledgement), (back, acknowledgement, sequence)] {
            let refused = world.cross(&tcp(way.0, way.1, ACK, (at + (1 << 17), other), b"x"));
            assert_eq!(refused, Err(Dropped::Refused));
        }
        // 65 535 less both headers is the most that a datagram holds.
        let beyond = 65_535 - 40;
        let refused = world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + beyond + 1), b""));
        assert_eq!(refused, Err(Dropped::Refused));
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + beyond), b"")).unwrap();
    }
}

#[test]
fn rfc_791_a_fragmented_segment_at_the_windows_edge_ends_at_the_edge() {
    let mut world = scaled(None, None);
    world.cross(&segment((TO, OUT), ACK, (501, 101), (1000, None))).unwrap();
    // A window of 66 000 octets is always granted.
    let edge = 101 + 66_000;
    world.cross(&first_fragment((FROM, TO), ACK, (edge - 2000, 501), 1000, 1444)).unwrap();
    let beyond = world.cross(&tcp(TO, OUT, ACK, (501, edge + 1), b""));
    assert_eq!(beyond, Err(Dropped::Refused));
    world.cross(&tcp(TO, OUT, ACK, (501, edge), b"")).unwrap();
}

#[test]
fn rfc_7323_fragmented_segments_pass_at_scaled_windows() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = scaled(Some(7), Some(7));
        world.cross(&segment((TO, OUT), ACK, (501, 101), (8000, None))).unwrap();
        world.cross(&segment((FROM, TO), ACK, (101, 501), (8000, None))).unwrap();
        let mut at = sequence;
        for _ in 0..15 {
            // A flight of 60 000 octets each, none of which is acknowledged yet.
            world.cross(&first_fragment(ahead, ACK, (at, acknowledgement), 8000, 1444)).unwrap();
            at += 60_000;
        }
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, at), &[])).unwrap();
        // The oldest again, late, and what comes next.
        world.cross(&tcp(ahead.0, ahead.1, ACK, (sequence, acknowledgement), &[0; 1000])).unwrap();
        world.cross(&tcp(ahead.0, ahead.1, ACK, (at, acknowledgement), &[0; 1000])).unwrap();
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, at + 1000), &[])).unwrap();
    }
}

#[test]
fn rfc_5961_a_reset_after_a_segment_in_fragments_is_exact_once_it_was_acknowledged() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        let established = left(&mut world);
        world.cross(&first_fragment(ahead, ACK, (sequence, acknowledgement), 8192, 1444)).unwrap();
        // Nobody knows yet where the octets end: it passes, the receiver judges it.
        world.cross(&tcp(ahead.0, ahead.1, RST, (sequence + 7000, 0), &[])).unwrap();
        assert_eq!(left(&mut world), established);
        let outside = world.cross(&tcp(ahead.0, ahead.1, RST, (sequence + (1 << 17), 0), &[]));
        assert_eq!(outside, Err(Dropped::Refused));
        world.cross(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + 7000), &[])).unwrap();
        world.cross(&tcp(ahead.0, ahead.1, RST, (sequence + 7000, 0), &[])).unwrap();
        assert!((239..=241).contains(&left(&mut world)));
    }
}

#[test]
fn rfc_7413_a_syn_in_fragments_may_be_acknowledged_as_a_whole() {
    for (acknowledgement, passes) in [(100, false), (101, true), (7101, true), (101 + 66_000, false)] {
        let mut world = World::new();
        world.cross(&first_fragment((FROM, TO), SYN, (100, 0), 8192, 1444)).unwrap();
        let answer = world.cross(&tcp(TO, OUT, SYN | ACK, (500, acknowledgement), &[]));
        assert_eq!(answer.is_ok(), passes, "{acknowledgement}");
        if passes {
            world.cross(&tcp(FROM, TO, ACK, (acknowledgement, 501), b"rest")).unwrap();
            assert!(is_established(&world));
        }
    }
}

#[test]
fn pickup_of_a_segment_in_fragments_goes_on() {
    let mut world = World::optional(|options| options.pickup = true);
    world.cross(&first_fragment((FROM, TO), ACK, (1000, 2000), 8192, 1444)).unwrap();
    world.cross(&tcp(TO, OUT, ACK, (2000, 61_000), &[])).unwrap();
    world.cross(&tcp(FROM, TO, ACK, (61_000, 2000), b"data")).unwrap();
}

#[test]
fn rfc_9293_what_comes_again_after_a_segment_in_fragments_passes_though_it_was_acknowledged() {
    for (ahead, back, sequence, acknowledgement) in WAYS {
        let mut world = connected();
        let mut send = |octets: &[u8]| world.cross(octets).map(|_| ());
        let data = |at| tcp(ahead.0, ahead.1, ACK, (at, acknowledgement), &[0; 1000]);
        for at in (0..60_000).step_by(1000) {
            assert_eq!(send(&data(sequence + at)), Ok(()));
        }
        // Behind us the acknowledgement is lost, and with it all later ones.
        assert_eq!(send(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + 30_000), &[])), Ok(()));
        let cut = first_fragment(ahead, ACK, (sequence + 60_000, acknowledgement), 8192, 1444);
        assert_eq!(send(&cut), Ok(()));
        assert_eq!(send(&tcp(back.0, back.1, ACK, (acknowledgement, sequence + 61_444), &[])), Ok(()));
        // So the sender begins again, at what it knows to be acknowledged.
        for at in (0..60_000).step_by(1000) {
            assert_eq!(send(&data(sequence + at)), Ok(()), "{at}");
        }
    }
}
