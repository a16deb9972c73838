//! Ports against devices that obey and devices that lie.

mod announce;
mod chaos;
pub(crate) mod fake;
mod hostile;
mod plug;
mod segments;

use core::ops::Range;
use std::{vec, vec::Vec};

use fake::{Fake, TestHal};
use smoltcp::{
    time::Duration,
    wire::{EthernetAddress, EthernetProtocol},
};

use super::*;
use crate::{
    Checksum, Frame, Head, Link, Offload,
    frame::{FRAME_MAX, Received},
};

type TestPort = Port<TestHal, Fake>;

const NOW: Instant = Instant::from_micros_const(1_000_000);

/// The header of a frame in one buffer, with nothing said of it; and that of one to be sent.
const PLAIN: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const SENT: [u8; 12] = [0; 12];

fn pool(ports: usize) -> Pool {
    Pool::new::<TestHal>(buffers_for(ports)).unwrap()
}

fn port(pool: &Pool, mac: u8) -> (TestPort, Fake) {
    port_with(pool, mac, |_| {})
}

fn port_with(pool: &Pool, mac: u8, change: impl FnOnce(&mut fake::Device)) -> (TestPort, Fake) {
    let fake = Fake::new(mac);
    fake.with(change);
    let port =
        Port::new(fake.clone(), pool.clone(), Settings { name: "test", ..Settings::default() }).unwrap();
    (port, fake)
}

fn head() -> Head {
    Head::new(EthernetAddress([2; 6]), EthernetAddress([4; 6]), EthernetProtocol::Ipv4)
}

/// One for which there is seldom room.
fn long_head() -> Head {
    let mut head = head();
    head.extend_from_slice(&[3; crate::NETWORK_HEAD_MAX]).unwrap();
    head
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + 1) as u8).collect()
}

fn turn(port: &mut TestPort) -> Vec<Received> {
    port.begin(NOW);
    let frames = core::iter::from_fn(|| port.receive()).collect();
    port.finish();
    frames
}

#[test]
fn a_frame_goes_from_port_to_port_without_a_copy() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    let octets = frame(1000);
    let address = device_a.deliver(PLAIN, &octets);
    let received = turn(&mut a).remove(0);
    assert_eq!(received.octets(), octets);
    let mut head = head();
    head.extend_from_slice(&[9; 20]).unwrap();
    b.transmit(&head, Some((received, 34..900))).unwrap();
    b.finish();
    let (header, sent, parts) = device_b.send().unwrap();
    // The head, and the device's header, take the place of what is not sent.
    assert_eq!((header, parts), (SENT.to_vec(), vec![(address - 12, 12 + 34 + 866)]));
    assert_eq!(sent, [head.as_slice(), &octets[34..900]].concat());
    turn(&mut a);
    turn(&mut b);
    assert_eq!(pool.free(), idle);
    assert_eq!((a.statistics().rx_frames, a.statistics().rx_octets), (1, 1000));
    assert_eq!((b.statistics().tx_frames, b.statistics().tx_octets), (1, 900));
}

#[test]
fn a_head_that_finds_no_room_goes_out_with_a_copy() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for (range, refused) in [(14..590, None), (0..1, None), (14..FRAME_MAX, Some(Refused::Malformed))] {
        let octets = frame(FRAME_MAX);
        device_a.deliver_merged(segments::LARGE, &octets);
        let received = turn(&mut a).remove(0);
        let mut head = long_head();
        let segments = crate::Segments { size: 1000.try_into().unwrap(), is_ecn: false };
        head.offload = Offload { segments: Some(segments), ..segments::large_head(0).offload };
        assert_eq!(b.transmit(&head, Some((received, range.clone()))).err(), refused);
        b.finish();
        let sent = device_b.send().map(|(_, sent, parts)| (sent, parts.len()));
        assert_eq!(sent, refused.is_none().then(|| ([head.as_slice(), &octets[range]].concat(), 1)));
        turn(&mut a);
        turn(&mut b);
        assert_eq!(pool.free(), idle);
    }
}

#[test]
fn rings_survive_many_times_their_length() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for round in 0..3000usize {
        let batch = 1 + round % 60;
        for n in 0..batch {
            device_a.deliver(PLAIN, &frame(60 + (round + n) % 1400));
        }
        b.begin(NOW);
        let frames = turn(&mut a);
        assert_eq!(frames.len(), batch);
        for received in frames {
            let end = received.octets().len();
            b.transmit(&head(), Some((received, 14..end))).unwrap();
        }
        b.finish();
        for n in 0..batch {
            let sent = device_b.send().unwrap().1;
            assert_eq!(sent[14..], frame(60 + (round + n) % 1400)[14..]);
        }
    }
    turn(&mut a);
    turn(&mut b);
    assert_eq!((pool.free(), b.statistics().tx_full), (idle, 0));
}

#[test]
fn only_what_serves_us_is_negotiated() {
    let pool = pool(1);
    let (port, device) = port(&pool, 7);
    let offloads = 1 << 7 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 15;
    let announcements = 1 << 16 | 1 << 17 | 1 << 21;
    let accepted = 0b11 << 32 | announcements | 1 << 5 | 1 << 3 | 0b11 | offloads;
    assert_eq!(device.with(|device| device.accepted), accepted);
    assert_eq!((port.mac(), port.mtu()), (EthernetAddress([2, 0, 0, 0, 0, 7]), 1500));
    assert!(port.is_up() && port.finishes_checksums());
    assert_eq!(device.with(|device| device.rings[0].waiting()), OFFERED as u16);
    assert_eq!(pool.free(), buffers_for(1) - OFFERED);
}

#[test]
fn devices_that_do_not_start_are_refused_and_leave_nothing() {
    let pool = pool(1);
    let pages = TestHal::pages();
    let start = |change: fn(&mut fake::Device)| {
        let fake = Fake::new(1);
        fake.with(change);
        TestPort::new(fake, pool.clone(), Settings::default()).map(|_| ()).unwrap_err()
    };
    assert_eq!(start(|device| device.offered = 0b11), StartError::Legacy);
    assert_eq!(start(|device| device.refuses_features = true), StartError::FeaturesRefused);
    assert_eq!(start(|device| device.offered &= !(1 << 5)), StartError::NoMac);
    assert_eq!(start(|device| device.config[0] |= 1), StartError::NoMac);
    assert_eq!(start(|device| device.is_gone = true), StartError::Gone);
    assert_eq!(start(|device| device.ring_max = 128), StartError::RingTooShort(128));
    let stuck = |device: &mut fake::Device| {
        device.status = virtio_drivers::transport::DeviceStatus::DRIVER_OK;
        device.is_stuck = true;
    };
    assert_eq!(start(stuck), StartError::Stuck);
    assert_eq!((pool.free(), TestHal::pages()), (pool.size(), pages));
}

#[test]
fn too_little_memory_is_an_error_at_construction() {
    let pool = pool(1);
    let pages = TestHal::pages();
    for limit in [0, 1, 2, 4] {
        TestHal::limit(limit);
        assert!(TestPort::new(Fake::new(1), pool.clone(), Settings::default()).is_err(), "{limit}");
        assert!(Pool::new::<TestHal>(100).is_err(), "{limit}");
        assert_eq!((pool.free(), TestHal::pages()), (pool.size(), pages), "{limit}");
    }
}

#[test]
fn mtu_is_the_least_of_device_site_and_buffer() {
    let pool = pool(1);
    let mtu = |device: [u8; 2], features: u64, site: Option<u16>| {
        let fake = Fake::new(1);
        fake.with(|state| {
            state.config[10..].copy_from_slice(&device);
            state.offered = features;
        });
        TestPort::new(fake, pool.clone(), Settings { mtu: site, ..Settings::default() }).unwrap().mtu()
    };
    let (all, without) = (fake::ALL_FEATURES, !(1 << 3));
    assert_eq!(mtu([0x78, 5], all, None), 1400);
    assert_eq!(mtu([0x78, 5], all, Some(1300)), 1300);
    assert_eq!(mtu([0x78, 5], all, Some(1500)), 1400);
    assert_eq!(mtu([0x78, 5], without, None), 1500);
    assert_eq!(mtu([0x78, 5], without, Some(4000)), 4000);
    assert_eq!(mtu([0x78, 5], without, Some(9000)), MTU_MAX);
    assert_eq!(mtu([0xff, 0xff], all, None), MTU_MAX);
    assert_eq!(mtu([0, 0], all, None), 1500);
}

#[test]
fn of_carrier_that_flaps_the_log_is_told_at_times_and_how_it_ended() {
    let (mut port, device) = port(&pool(1), 1);
    let mut lines = 0;
    for round in 1..=1001 {
        device.with(|device| device.config[6] = (round % 2) as u8);
        port.begin(NOW + Duration::from_millis(10) * round);
        port.tick();
        assert_eq!(port.is_up(), round % 2 == 1);
        lines += u32::from(port.untold == 0);
    }
    // Ten seconds, and a few at once.
    assert!((10..=20).contains(&lines) && port.untold > 0 && port.wants_tick(), "{lines}");
    port.begin(NOW + Duration::from_secs(12));
    port.tick();
    assert!(port.is_up() && port.untold == 0 && !port.wants_tick());
}

#[test]
fn the_device_hears_once_of_a_batch_and_only_if_it_wants() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let notified = || device.with(|device| [0, 1].map(|ring: usize| device.rings[ring].notified));
    assert_eq!(notified(), [1, 0]);
    for _ in 0..10 {
        port.transmit(&head(), None).unwrap();
    }
    port.finish();
    port.finish();
    assert_eq!(notified(), [1, 1]);
    device.with(|device| device.rings[1].suppress(true));
    port.transmit(&head(), None).unwrap();
    port.finish();
    assert_eq!(notified(), [1, 1]);
}

#[test]
fn interrupts_come_only_while_asleep_and_for_transmission_only_with_a_backlog() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let wants = || device.with(|device| [0, 1].map(|ring: usize| device.rings[ring].wants_interrupts()));
    assert_eq!(wants(), [false, false]);
    assert!(port.sleep());
    assert_eq!(wants(), [true, false]);
    port.wake();
    assert_eq!(wants(), [false, false]);
    for _ in 0..=RING {
        let _ = port.transmit(&head(), None);
    }
    port.finish();
    assert!(port.statistics().backlog > 0 && port.sleep());
    assert_eq!(wants(), [true, true]);
    device.send().unwrap();
    assert!(!port.sleep());
    port.wake();
    turn(&mut port);
    device.deliver(PLAIN, &frame(60));
    assert!(!port.sleep());
}

#[test]
fn a_device_that_never_sends_fills_ring_and_backlog_then_frames_come_back() {
    let pool = pool(2);
    let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for _ in 0..2 * RING + BACKLOG {
        device_a.deliver(PLAIN, &frame(400));
        let received = turn(&mut a).remove(0);
        b.transmit(&head(), Some((received, 14..400))).unwrap();
        b.finish();
    }
    let (dropped, waiting) = (b.statistics().tx_full as usize, b.statistics().backlog as usize);
    assert!(dropped >= RING / 2 && waiting > RESERVE, "{dropped} dropped, {waiting} wait");
    assert_eq!(waiting + dropped, RING + BACKLOG);
    turn(&mut a);
    assert_eq!(pool.free(), idle - RING - waiting);
    // Another port still receives, and the backlog leaves in order once the device wakes up.
    assert_eq!(device_a.with(|device| device.rings[0].waiting()), OFFERED as u16);
    let mut sent = 0;
    while device_b.send().is_some() {
        sent += 1;
        turn(&mut b);
    }
    turn(&mut b);
    assert_eq!((sent, pool.free()), (RING + waiting, idle));
}

#[test]
fn backlogs_leave_buffers_to_the_receive_rings() {
    let pool = Pool::new::<TestHal>(2 * OFFERED + RING + RESERVE + 10).unwrap();
    let ((mut a, device_a), (mut b, _device_b)) = (port(&pool, 1), port(&pool, 2));
    for _ in 0..2 * RING {
        device_a.deliver(PLAIN, &frame(400));
        let received = turn(&mut a).remove(0);
        let _ = b.transmit(&head(), Some((received, 14..400)));
        b.finish();
    }
    turn(&mut a);
    let lost = b.statistics().tx_full;
    assert!(lost > 0 && pool.free() >= RESERVE - 1, "{lost} lost, {} free", pool.free());
    assert_eq!(device_a.with(|device| device.rings[0].waiting()), OFFERED as u16);
}

#[test]
fn frames_overtake_none_that_wait() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let mut order = Vec::new();
    for n in 0..300u16 {
        let mut head = head();
        head.extend_from_slice(&n.to_be_bytes()).unwrap();
        let body = port.compose(&[7; 500]).unwrap();
        if port.transmit(&head, Some((body, 0..500))).is_ok() {
            order.push(n);
        }
        if n % 3 == 0 {
            turn(&mut port);
            device.send();
            turn(&mut port);
        }
    }
    let first = 100;
    let mut rest = Vec::new();
    while let Some((_, sent, _)) = device.send() {
        rest.push(u16::from_be_bytes([sent[14], sent[15]]));
        turn(&mut port);
    }
    assert_eq!(rest, order[first..]);
}

#[test]
fn a_small_flow_waits_for_what_the_device_has_and_not_for_the_backlog() {
    let pool = pool(2);
    let (mut port, device) = port(&pool, 1);
    let send = |port: &mut TestPort, flow: Flow, length: usize| {
        let mut head = head();
        head.flow = flow;
        let body = port.compose(&frame(length)).unwrap();
        port.transmit(&head, Some((body, 0..length)))
    };
    for number in 0..(RING + 128) as u32 {
        send(&mut port, Flow { input: 1, number: number % 4 }, 1000).unwrap();
    }
    port.finish();
    // The bulk is no longer new.
    for _ in 0..40 {
        device.send().unwrap();
        turn(&mut port);
    }
    assert_eq!(port.statistics().backlog, 88);
    send(&mut port, Flow { input: 1, number: 9 }, 400).unwrap();
    let mut ahead = 0;
    while device.send().unwrap().1.len() != 414 {
        ahead += 1;
        turn(&mut port);
    }
    // The turn that one bulk flow is in goes on: 8 KiB.
    assert!(ahead <= RING + 9, "{ahead} frames ahead");
}

#[test]
fn offload_fields_are_passed_on_or_the_frame_is_dropped_and_counted() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let partial = |start: u8, offset: u8| [1, 0, 0, 0, 0, 0, start, 0, offset, 0, 1, 0];
    device.deliver(partial(34, 16), &frame(60));
    device.deliver([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &frame(60));
    device.deliver(PLAIN, &frame(60));
    device.deliver(partial(34, 25), &frame(60));
    device.deliver([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &frame(60));
    device.deliver(PLAIN, &frame(13));
    device.deliver(PLAIN, &[]);
    let checksums: Vec<Checksum> = turn(&mut port).iter().map(|frame| frame.offload().checksum).collect();
    let expected = [Checksum::Partial { start: 34, offset: 16 }, Checksum::Verified, Checksum::Unverified];
    assert_eq!(checksums, expected);
    let statistics = port.statistics();
    assert_eq!((statistics.rx_bad_offload, statistics.rx_runts, statistics.rx_frames), (2, 2, 3));
    assert_eq!((statistics.device_errors, pool.free()), (0, buffers_for(1) - OFFERED + 7));
}

#[test]
fn a_partial_checksum_is_finished_by_the_device_or_in_software() {
    let pool = pool(1);
    let mut partial = head();
    partial.extend_from_slice(&[0x12, 0x34, 0, 0]).unwrap();
    partial.offload.checksum = Checksum::Partial { start: 14, offset: 2 };
    let (mut with, device) = port(&pool, 1);
    with.transmit(&partial, None).unwrap();
    with.finish();
    assert_eq!(device.send().unwrap().0, [1, 0, 0, 0, 0, 0, 14, 0, 2, 0, 0, 0]);
    let (mut without, device) = port_with(&pool, 1, |device| device.offered &= !0b11);
    assert!(!without.finishes_checksums());
    let body = without.compose(&[0xff, 1, 2, 3]).unwrap();
    without.transmit(&partial, Some((body, 1..4))).unwrap();
    without.finish();
    let (header, sent, _) = device.send().unwrap();
    // 0x1234 + 0x0102 + 0x0300 = 0x1636
    assert_eq!((header, &sent[14..21]), (SENT.to_vec(), &[0x12, 0x34, 0xe9, 0xc9, 1, 2, 3][..]));
}

#[test]
fn short_frames_without_payload_are_padded_with_zeros() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let mut long = head();
    long.extend_from_slice(&[0xaa; 100]).unwrap();
    port.transmit(&long, None).unwrap();
    port.finish();
    device.send().unwrap();
    turn(&mut port);
    // The same head memory again: nothing of the long frame may show.
    port.transmit(&head(), None).unwrap();
    port.finish();
    assert_eq!(device.send().unwrap().1, [head().as_slice(), &[0; 46]].concat());
}

#[test]
fn frames_that_cannot_be_sent_are_refused_by_reason_and_their_buffers_return() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let idle = pool.free();
    let mut send = |head: &Head, length: usize, range: Range<usize>| {
        let body = port.compose(&frame(length)).unwrap();
        port.transmit(head, Some((body, range)))
    };
    assert_eq!(send(&head(), 1501, 0..1501), Err(Refused::TooLong));
    assert_eq!(send(&head(), 100, 0..101), Err(Refused::Malformed));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 9..3;
    assert_eq!(send(&head(), 100, reversed), Ok(()));
    let mut outside = head();
    outside.offload.checksum = Checksum::Partial { start: 100, offset: 16 };
    assert_eq!(send(&outside, 50, 0..50), Err(Refused::Malformed));
    assert_eq!(send(&head(), 1500, 0..1500), Ok(()));
    device.with(|device| device.config[6] = 0);
    port.tick();
    assert_eq!((port.transmit(&head(), None), port.is_up()), (Err(Refused::Down), false));
    device.with(|device| device.config[6] = 1);
    port.tick();
    assert!(port.is_up());
    assert!(port.compose(&[0; FRAME_MAX]).is_some() && port.compose(&[0; FRAME_MAX + 1]).is_none());
    port.finish();
    while device.send().is_some() {}
    turn(&mut port);
    assert_eq!(pool.free(), idle);
    let statistics = port.statistics();
    assert_eq!((statistics.tx_too_long, statistics.tx_malformed, statistics.tx_down), (1, 2, 1));
}

#[test]
fn an_empty_pool_is_survived_and_wakes_on_transmission() {
    let pool = Pool::new::<TestHal>(8).unwrap();
    let (mut port, device) = port(&pool, 1);
    for _ in 0..8 {
        device.deliver(PLAIN, &frame(400));
    }
    let frames: Vec<Received> = core::iter::from_fn(|| port.receive()).collect();
    for received in frames {
        port.transmit(&head(), Some((received, 14..400))).unwrap();
    }
    port.finish();
    assert!(turn(&mut port).is_empty() && port.statistics().rx_no_buffer > 0);
    assert!(port.sleep());
    assert!(device.with(|device| device.rings[1].wants_interrupts()));
    device.send().unwrap();
    assert!(!port.sleep());
    turn(&mut port);
    assert_eq!(device.with(|device| device.rings[0].waiting()), 1);
}

#[test]
fn a_device_without_buffers_is_given_some_before_sleep() {
    let pool = Pool::new::<TestHal>(8).unwrap();
    let (mut port, device) = port(&pool, 1);
    for _ in 0..8 {
        device.deliver(PLAIN, &frame(400));
    }
    let frames = turn(&mut port);
    assert!(port.sleep(), "there are none to give");
    drop(frames);
    assert!(!port.sleep());
    turn(&mut port);
    assert!(port.sleep());
}

#[test]
fn a_port_that_ends_gives_everything_back() {
    let pages = TestHal::pages();
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    device.deliver(PLAIN, &frame(80));
    let received = turn(&mut port).remove(0);
    port.transmit(&head(), Some((received, 14..80))).unwrap();
    drop(port);
    assert_eq!((pool.free(), device.with(|device| device.resets)), (pool.size(), 2));
    drop(pool);
    assert_eq!(TestHal::pages(), pages);
}
