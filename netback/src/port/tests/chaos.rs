//! A device that does anything at all, at random, beside one that works.

use virtio_drivers::transport::{DeviceStatus, InterruptStatus};

use super::*;

/// SplitMix64, seeded: what fails can be run again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A length or identifier that is likely to hurt.
    fn odd(&mut self) -> u32 {
        let near = [0, 1, 11, 12, 13, 127, 128, 129, 8191, 8192, 8193, 0xffff, 0x1_0000, u32::MAX];
        match self.below(3) {
            0 => self.next() as u32,
            1 => self.below(300) as u32,
            _ => near[self.below(near.len())],
        }
    }
}

/// What the device does next.
fn act(device: &Fake, chance: &mut Chance) {
    let ring = chance.below(2);
    if !device.with(|device| device.rings.iter().all(fake::Ring::is_set_up)) {
        return;
    }
    match chance.below(120) {
        0..60 if device.with(|device| device.rings[0].waiting() >= 17) => {
            let mut header: [u8; 12] = core::array::from_fn(|_| 0);
            if chance.below(3) == 0 {
                header = core::array::from_fn(|_| chance.next() as u8);
            }
            let limit = if chance.below(4) == 0 { 60_000 } else { 3000 };
            let length = chance.below(limit);
            device.deliver_merged(header, &frame(length));
        }
        60..110 => drop(device.send()),
        // Buffers of a frame that were not filled, or are fewer than the header says.
        110 => {
            let length = chance.odd();
            device.with(|device| {
                if let Some((head, _)) = device.rings[0].take() {
                    device.rings[0].give(head.into(), length);
                }
            });
        }
        111 => {
            let (id, length) = (chance.odd(), chance.odd());
            device.with(|device| device.rings[ring].give(id, length));
        }
        112 => drop(device.with(|device| device.rings[ring].take())),
        113 => {
            let ahead = chance.odd() as u16;
            device.with(|device| device.rings[ring].skip(ahead));
        }
        114 => {
            let (at, octet) = (chance.below(12), chance.next() as u8);
            device.with(|device| device.config[at] = octet);
        }
        115 => {
            let status = DeviceStatus::from_bits_retain(chance.odd());
            device.with(|device| device.say(status));
        }
        116 => device.with(|device| device.is_gone = !device.is_gone),
        117 => device.with(|device| device.refuses_features = !device.refuses_features),
        118 => device.with(|device| device.rings[ring].suppress(true)),
        _ => device.with(|device| device.interrupts.push_back(InterruptStatus::QUEUE_INTERRUPT)),
    }
}

/// What a port that works does with a frame that arrived elsewhere.
fn pass_on(to: &mut TestPort, received: Received) {
    let length = received.length();
    let mut head = if chance_of(length) { long_head() } else { head() };
    head.offload = received.offload();
    let _ = to.transmit(&head, Some((received, 14..length)));
}

fn chance_of(length: usize) -> bool {
    length.is_multiple_of(3)
}

#[test]
fn whatever_one_device_does_another_works_and_no_buffer_is_lost() {
    let (mut frames, mut restarts) = (0, 0);
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let pool = pool(2);
        let ((mut wild, device), (mut calm, other)) = (port(&pool, 1), port(&pool, 2));
        for _ in 0..400 {
            act(&device, &mut chance);
            calm.begin(NOW);
            for received in turn(&mut wild) {
                pass_on(&mut calm, received);
            }
            calm.finish();
            while other.send().is_some() {}
            if chance.below(4) == 0 {
                let body = wild.compose(&frame(1 + chance.below(4000))).map(|body| (body, 0..1));
                let _ = wild.transmit(&long_head(), body);
                wild.finish();
            }
            if chance.below(8) == 0 {
                let _ = wild.sleep();
                wild.wake();
                wild.tick();
            }
        }
        assert!(other.with(|device| device.rings[0].waiting()) > 0, "seed {seed}");
        other.deliver(PLAIN, &frame(77));
        assert_eq!(turn(&mut calm)[0].octets(), frame(77), "seed {seed}");
        assert_eq!(calm.statistics().device_errors, 0, "seed {seed}");
        frames += wild.statistics().rx_frames;
        restarts += wild.statistics().restarts;
        device.with(|device| (device.is_gone, device.is_stuck) = (false, false));
        drop((wild, calm));
        assert_eq!(pool.free(), pool.size(), "seed {seed}");
    }
    assert!(frames > 5000 && restarts > 300, "{frames} frames and {restarts} restarts are no test");
}
