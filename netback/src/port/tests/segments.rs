//! Frames that are larger than a link, in several buffers.

use core::num::NonZeroU16;

use super::*;
use crate::Segments;

/// The header of a frame whose TCP segments have 1448 octets of payload.
pub(super) const LARGE: [u8; 12] = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];

/// Ethernet, IPv4 and TCP headers, the last with timestamps.
pub(super) fn large_head(payload: usize) -> Head {
    let mut head = head();
    let mut ip = [0x45, 0, 0, 0, 0, 7, 0x40, 0, 63, 6, 0, 0, 10, 0, 1, 2, 192, 0, 2, 9];
    ip[2..4].copy_from_slice(&((52 + payload) as u16).to_be_bytes());
    head.extend_from_slice(&ip).unwrap();
    let mut tcp = [0; 32];
    tcp[12..14].copy_from_slice(&[0x80, 0x18]);
    head.extend_from_slice(&tcp).unwrap();
    let segments = Some(Segments { size: NonZeroU16::new(1448).unwrap(), is_ecn: false });
    head.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segments };
    head
}

#[test]
fn a_large_frame_spans_buffers_and_crosses_without_a_copy() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for length in [4084, FRAME_MAX, FRAME_MAX + 1, FRAME_MAX + BUFFER, 40_000, 65_549] {
        let octets = frame(length);
        device_a.deliver_merged(LARGE, &octets);
        let received = turn(&mut a).remove(0);
        assert_eq!((received.length(), received.octets()), (length, &octets[..length.min(FRAME_MAX)]));
        assert_eq!(received.offload(), large_head(0).offload);
        let head = large_head(length - 66);
        b.transmit(&head, Some((received, 66..length))).unwrap();
        b.finish();
        let (header, sent, parts) = device_b.send().unwrap();
        assert_eq!((header, sent), (LARGE.to_vec(), [head.as_slice(), &octets[66..]].concat()));
        assert_eq!(parts.len(), (12 + length).div_ceil(BUFFER));
        turn(&mut a);
        turn(&mut b);
        assert_eq!(pool.free(), idle);
    }
    assert_eq!((a.statistics().device_errors, b.statistics().tx_frames), (0, 6));
}

#[test]
fn rings_survive_many_large_and_small_frames() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for round in 0..2000usize {
        let lengths: Vec<usize> =
            (0..1 + round % 6).map(|n| 70 + (round * 7919 + n * 30_011) % 65_000).collect();
        for &length in &lengths {
            device_a.deliver_merged(LARGE, &frame(length));
        }
        b.begin(NOW);
        for (received, length) in turn(&mut a).into_iter().zip(&lengths) {
            b.transmit(&large_head(length - 66), Some((received, 66..*length))).unwrap();
        }
        b.finish();
        for length in lengths {
            assert_eq!(device_b.send().unwrap().1[66..], frame(length)[66..]);
        }
    }
    turn(&mut a);
    turn(&mut b);
    assert_eq!((pool.free(), b.statistics().tx_full), (idle, 0));
}

#[test]
fn a_device_that_cuts_nothing_is_given_the_pieces() {
    let pool = pool(2);
    for checksums in [false, true] {
        let (mut a, device_a) = port(&pool, 1);
        let without = if checksums { !(1 << 11) } else { !0b1 };
        let (mut b, device_b) = port_with(&pool, 2, |device| device.offered &= without);
        assert_eq!(b.finishes_checksums(), checksums);
        let idle = pool.free();
        let octets = frame(20_066);
        device_a.deliver_merged(LARGE, &octets);
        let received = turn(&mut a).remove(0);
        b.transmit(&large_head(20_000), Some((received, 66..20_066))).unwrap();
        b.finish();
        let mut together = Vec::new();
        while let Some((header, sent, _)) = device_b.send() {
            assert_eq!(header[..2], [u8::from(checksums), 0]);
            assert!(sent.len() <= 1514);
            assert_eq!(sent[16..18], ((sent.len() - 14) as u16).to_be_bytes());
            together.extend_from_slice(&sent[66..]);
        }
        assert_eq!(together, octets[66..]);
        assert_eq!(b.statistics().tx_frames, 14);
        turn(&mut b);
        turn(&mut a);
        assert_eq!(pool.free(), idle);
    }
}

#[test]
fn segments_that_do_not_fit_the_link_are_refused() {
    let pool = pool(2);
    let (mut a, device_a) = port(&pool, 1);
    let (mut b, _device_b) =
        port_with(&pool, 2, |device| device.config[10..].copy_from_slice(&1400u16.to_le_bytes()));
    let idle = pool.free();
    let send = |b: &mut TestPort, a: &mut TestPort, length: usize| {
        device_a.deliver_merged(LARGE, &frame(length));
        let received = turn(a).remove(0);
        b.transmit(&large_head(length - 66), Some((received, 66..length)))
    };
    assert_eq!(send(&mut b, &mut a, 9000), Err(Refused::TooLong));
    assert_eq!(send(&mut b, &mut a, 1414), Ok(()));
    turn(&mut a);
    assert!(pool.free() >= idle - 1 && b.statistics().tx_too_long == 1);
}

#[test]
fn what_is_larger_than_a_buffer_and_has_no_segments_is_dropped_and_counted() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let idle = pool.free();
    device.deliver_merged(PLAIN, &frame(FRAME_MAX + 1));
    device.deliver_merged(PLAIN, &frame(FRAME_MAX));
    assert_eq!(turn(&mut port).len(), 1);
    turn(&mut port);
    let statistics = port.statistics();
    assert_eq!((statistics.rx_too_long, statistics.rx_frames, statistics.device_errors), (1, 1, 0));
    assert_eq!(pool.free(), idle);
}

#[test]
fn without_merging_no_segments_are_asked_for() {
    let pool = pool(1);
    let accepted = |without: u64| {
        let (_port, device) = port_with(&pool, 1, |device| device.offered &= !without);
        device.with(|device| device.accepted >> 7 & 0b1_0101_0101)
    };
    // From the lowest bit: GUEST_TSO4, GUEST_ECN, HOST_TSO4, HOST_ECN, MRG_RXBUF.
    assert_eq!(accepted(0), 0b1_0101_0101);
    assert_eq!(accepted(1 << 15), 0b0_0101_0000);
    assert_eq!(accepted(1 << 1), 0b1_0101_0000);
    assert_eq!(accepted(1 << 0), 0b1_0000_0101);
    assert_eq!(accepted(1 << 7), 0b1_0101_0000);
    assert_eq!(accepted(1 << 11), 0b1_0000_0101);
}

#[test]
fn a_small_flow_waits_for_few_octets_however_large_the_frames_ahead() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let length = 60_000;
    for number in 0..25 {
        device_a.deliver_merged(LARGE, &frame(length));
        let received = turn(&mut a).remove(0);
        let mut head = large_head(length - 66);
        head.flow = Flow { input: 1, number: number % 4 };
        b.transmit(&head, Some((received, 66..length))).unwrap();
    }
    assert_eq!(b.statistics().backlog as usize, 25 - QUEUED.div_ceil(12 + length));
    let mut small = head();
    small.flow = Flow { input: 1, number: 9 };
    b.transmit(&small, None).unwrap();
    b.finish();
    let mut ahead = 0;
    loop {
        let sent = device_b.send().unwrap().1.len();
        if sent == 60 {
            break;
        }
        ahead += sent;
        turn(&mut b);
    }
    // What the device has, and a turn of each large flow: they are new to the backlog too.
    assert!(ahead <= QUEUED + 5 * length, "{ahead} octets ahead");
}
