//! Devices that lie, stop, vanish, or change their mind.

use virtio_drivers::transport::{DeviceStatus, InterruptStatus};

use super::{
    fake::Ring,
    segments::{LARGE, large_head},
    *,
};

/// Lets a port with frames on both rings meet a device that does `wrong`, next to a port that works.
fn survives(wrong: impl FnOnce(&Fake)) {
    let pool = pool(2);
    let ((mut port, device), (mut other, other_device)) = (port(&pool, 1), port(&pool, 2));
    let idle = pool.free();
    for _ in 0..3 {
        device.deliver_merged(LARGE, &frame(9000));
        let received = turn(&mut port).remove(0);
        port.transmit(&large_head(8934), Some((received, 66..9000))).unwrap();
    }
    port.finish();
    wrong(&device);
    turn(&mut port);
    assert_eq!(port.statistics().device_errors, 1);
    assert!(!port.is_up() && !port.sleep());
    assert_eq!(port.transmit(&head(), None), Err(Refused::Down));
    assert!(port.receive().is_none());

    turn(&mut port);
    assert_eq!((port.statistics().restarts, pool.free()), (1, idle));
    assert_eq!(device.with(|device| (device.resets, device.rings[0].waiting())), (2, OFFERED as u16));
    device.deliver(PLAIN, &frame(77));
    assert_eq!(turn(&mut port)[0].octets(), frame(77));
    port.transmit(&head(), None).unwrap();
    port.finish();
    assert!(device.send().is_some() && port.is_up());

    other_device.deliver(PLAIN, &frame(99));
    assert_eq!(turn(&mut other)[0].octets(), frame(99));
    assert_eq!(other.statistics().device_errors, 0);
    drop((port, other));
    assert_eq!(pool.free(), pool.size());
}

#[test]
fn received_identifiers_beyond_the_ring_are_forged() {
    survives(|device| device.with(|device| device.rings[0].give(OFFERED as u32, 100)));
    survives(|device| device.with(|device| device.rings[0].give(u32::MAX, 100)));
}

#[test]
fn sent_identifiers_that_are_not_out_are_forged() {
    survives(|device| device.with(|device| device.rings[1].give(200, 0)));
    survives(|device| device.with(|device| device.rings[1].give(0xffff, 0)));
    // The second descriptor of a chain is not its name.
    survives(|device| device.with(|device| device.rings[1].give(1, 0)));
}

#[test]
fn a_buffer_is_received_once() {
    survives(|device| {
        device.with(|device| {
            let (head, _) = device.rings[0].take().unwrap();
            device.rings[0].give(head.into(), 100);
            device.rings[0].give(head.into(), 100);
        });
    });
}

#[test]
fn a_frame_is_sent_once() {
    survives(|device| {
        device.with(|device| {
            let (head, _) = device.rings[1].take().unwrap();
            device.rings[1].give(head.into(), 0);
            device.rings[1].give(head.into(), 0);
        });
    });
}

#[test]
fn lengths_outside_the_buffer_or_inside_the_header_are_impossible() {
    for length in [0, 11, 4097, 0x8000_0000, u32::MAX] {
        survives(|device| {
            device.with(|device| {
                let (head, _) = device.rings[0].take().unwrap();
                device.rings[0].give(head.into(), length);
            });
        });
    }
}

/// One buffer with this header and used length.
fn give(device: &Fake, count: u16, length: u32) {
    device.with(|device| {
        let (head, parts) = device.rings[0].take().unwrap();
        let [low, high] = count.to_le_bytes();
        let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high];
        // SAFETY: the driver offered a page there.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<[u8; 12]>(parts[0].0 as usize).write_volatile(header)
        };
        device.rings[0].give(head.into(), length);
    });
}

#[test]
fn frames_in_no_buffer_or_in_more_than_there_are_are_impossible() {
    for count in [0, 2, 9, 10, 255, u16::MAX] {
        survives(|device| give(device, count, BUFFER as u32));
    }
    // The second buffer is there, but the first was not filled, or is longer than it is.
    for length in [100, 4095, 4097] {
        survives(|device| {
            device.with(|device| device.rings[0].skip(0));
            give(device, 2, length);
            give(device, 1, 100);
        });
    }
}

#[test]
fn a_used_index_far_ahead_ends_in_a_reset() {
    survives(|device| device.with(|device| device.rings[0].skip(0x8000)));
    survives(|device| device.with(|device| device.rings[1].skip(300)));
}

#[test]
fn lengths_at_the_limits_are_accepted() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    device.deliver(PLAIN, &frame(FRAME_MAX));
    device.deliver(PLAIN, &frame(14));
    let lengths: Vec<usize> = turn(&mut port).iter().map(|frame| frame.octets().len()).collect();
    assert_eq!((lengths, port.statistics().device_errors), (Vec::from([FRAME_MAX, 14]), 0));
}

#[test]
fn a_device_that_forgot_its_state_is_started_again() {
    for status in [DeviceStatus::empty(), DeviceStatus::from_bits_retain(0x4f)] {
        let pool = pool(1);
        let (mut port, device) = port(&pool, 1);
        device.with(|device| device.status = status);
        port.tick();
        assert!(!port.is_up());
        turn(&mut port);
        assert!(port.is_up());
        assert_eq!((port.statistics().device_errors, port.statistics().restarts), (1, 1));
    }
}

#[test]
fn a_device_that_vanished_is_given_up_and_its_buffers_return() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    device.with(|device| device.is_gone = true);
    port.tick();
    turn(&mut port);
    assert_eq!(pool.free(), pool.size());
    assert!(port.sleep() && !port.is_up());
    for _ in 0..10 {
        port.tick();
        turn(&mut port);
    }
    assert_eq!((port.statistics().restarts, port.transmit(&head(), None)), (0, Err(Refused::Down)));
}

#[test]
fn buffers_of_a_device_that_does_not_reset_are_kept_until_it_does() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let idle = pool.free();
    device.with(|device| {
        device.is_stuck = true;
        device.rings[0].give(999, 0);
    });
    turn(&mut port);
    for _ in 0..20 {
        turn(&mut port);
        port.tick();
    }
    assert_eq!((pool.free(), port.statistics().restarts), (idle, 0));
    device.with(|device| device.is_stuck = false);
    turn(&mut port);
    assert_eq!((pool.free(), port.statistics().restarts, port.is_up()), (idle, 1, true));
    device.with(|device| device.is_stuck = true);
    drop(port);
    assert_eq!(pool.free(), idle);
}

#[test]
fn a_device_that_lies_again_and_again_is_given_up() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    for _ in 0..8 {
        device.with(|device| device.rings[0].give(999, 0));
        turn(&mut port);
        turn(&mut port);
        assert!(port.is_up());
    }
    device.with(|device| device.rings[0].give(999, 0));
    turn(&mut port);
    turn(&mut port);
    assert_eq!((port.is_up(), port.statistics().restarts, pool.free()), (false, 8, pool.size()));
}

#[test]
fn calm_minutes_forgive_failures() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    for _ in 0..20 {
        device.with(|device| device.rings[1].give(999, 0));
        turn(&mut port);
        turn(&mut port);
        assert!(port.is_up());
        (0..60).for_each(|_| port.tick());
    }
    assert_eq!(port.statistics().restarts, 20);
}

#[test]
fn a_restart_that_fails_is_tried_again_at_ticks_only_and_not_for_ever() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    device.with(|device| {
        device.refuses_features = true;
        device.rings[0].give(999, 0);
    });
    (0..10).for_each(|_| drop(turn(&mut port)));
    assert_eq!((device.with(|device| device.resets), port.is_up()), (2, false));
    for _ in 0..30 {
        port.tick();
        turn(&mut port);
    }
    device.with(|device| device.refuses_features = false);
    port.tick();
    turn(&mut port);
    assert_eq!((port.is_up(), pool.free()), (false, pool.size()));
}

#[test]
fn interrupt_causes_are_taken_from_the_device_before_sleep() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    let interrupt = || device.with(|device| device.interrupts.push_back(InterruptStatus::QUEUE_INTERRUPT));
    interrupt();
    assert!(port.acknowledge());
    interrupt();
    // Another port may have kept the line up: one more round.
    assert!(!port.sleep());
    assert!(port.sleep() && !port.acknowledge() && !port.take_change());
    let change = InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT;
    device.with(|device| device.interrupts.push_back(change));
    assert!(!port.sleep() && port.take_change());
    assert!(port.sleep() && !port.take_change());
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as u32 % limit
    }
}

fn misbehave(device: &Fake, random: &mut Random) {
    device.with(|device| {
        let ring = &mut device.rings[random.below(2) as usize];
        match random.below(40) {
            0 => ring.give(random.below(300), random.below(5000)),
            1 => ring.give(random.below(u32::MAX), random.below(u32::MAX)),
            2 => ring.skip(random.below(0x1_0000) as u16),
            3 => device.say(DeviceStatus::from_bits_retain(random.below(256))),
            4 => device.is_stuck = !device.is_stuck,
            5 => device.refuses_features = !device.refuses_features,
            _ => {
                if let Some((head, _)) = ring.take() {
                    ring.give(head.into(), 12 + random.below(FRAME_MAX as u32));
                }
            }
        }
    });
}

#[test]
fn random_devices_cost_neither_a_panic_nor_a_buffer() {
    for seed in 1..=60u64 {
        std::println!("seed {seed}");
        let mut random = Random(seed);
        let pages = TestHal::pages();
        let pool = pool(2);
        let ((mut a, device_a), (mut b, device_b)) = (port(&pool, 1), port(&pool, 2));
        for _ in 0..400 {
            // Rings exist only while the driver has set them up.
            for device in [&device_a, &device_b] {
                if device.with(|device| device.rings.iter().all(Ring::is_set_up)) {
                    misbehave(device, &mut random);
                }
            }
            b.begin(NOW);
            for received in turn(&mut a) {
                let end = random.below(received.octets().len() as u32 + 2) as usize;
                let _ = b.transmit(&head(), Some((received, end / 2..end)));
            }
            b.finish();
            drop(turn(&mut b));
            if random.below(8) == 0 {
                a.tick();
                b.tick();
            }
            let _ = (a.sleep(), b.sleep());
            a.wake();
            b.wake();
        }
        for device in [&device_a, &device_b] {
            device.with(|device| device.is_stuck = false);
        }
        drop((a, b));
        assert_eq!(pool.free(), pool.size());
        drop(pool);
        assert_eq!(TestHal::pages(), pages);
    }
}
