//! Devices that wish for an announcement (virtio 1.2, 5.1.6.5.4).

use virtio_drivers::transport::DeviceStatus;

use super::*;

/// Link up, and the wish.
const WISHES: u8 = 0b11;

/// What the device was told on its control queue, which it answers.
fn heard(device: &Fake) -> Option<Vec<u8>> {
    let (head, parts) = device.with(|device| device.rings[2].take())?;
    assert_eq!(parts.len(), 2, "a command, and room for the answer");
    // SAFETY: the driver offered these octets to be read until they are given back.
    let command =
        unsafe { core::slice::from_raw_parts(parts[0].0 as *const u8, parts[0].1 as usize) }.to_vec();
    device.with(|device| device.rings[2].give(head.into(), 1));
    Some(command)
}

#[test]
fn a_wish_is_heard_of_once_and_the_device_is_told() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    port.tick();
    assert!(!port.take_announcement() && heard(&device).is_none());
    for _ in 0..3 {
        device.with(|device| device.config[6] = WISHES);
        port.tick();
        assert!(port.take_announcement() && !port.take_announcement() && port.is_up());
        assert_eq!(heard(&device).as_deref(), Some(&[3, 0][..]));
        device.with(|device| device.config[6] = 1);
        port.tick();
        assert!(!port.take_announcement() && heard(&device).is_none());
    }
    assert_eq!(device.with(|device| device.rings[2].notified), 3);
}

#[test]
fn a_device_that_does_not_listen_is_told_once() {
    let pool = pool(1);
    let (mut port, device) = port(&pool, 1);
    device.with(|device| device.config[6] = WISHES);
    for _ in 0..10 {
        port.tick();
        assert!(port.take_announcement());
    }
    assert_eq!(device.with(|device| (device.rings[2].waiting(), device.rings[2].notified)), (1, 1));
    // Nor is one that says it took more than there was.
    device.with(|device| device.rings[2].skip(7));
    port.tick();
    assert_eq!((device.with(|device| device.rings[2].notified), port.statistics().device_errors), (1, 0));
    // After a reset it has a new chance.
    device.with(|device| device.say(DeviceStatus::DEVICE_NEEDS_RESET));
    port.tick();
    turn(&mut port);
    port.tick();
    assert_eq!(heard(&device).as_deref(), Some(&[3, 0][..]));
}

#[test]
fn without_the_feature_or_room_there_is_no_control_queue() {
    const CTRL_VQ: u64 = 1 << 17;
    const GUEST_ANNOUNCE: u64 = 1 << 21;
    const STATUS: u64 = 1 << 16;
    let pool = pool(1);
    for missing in [CTRL_VQ, GUEST_ANNOUNCE, STATUS] {
        let device = Fake::new(1);
        device.with(|device| {
            device.offered = !missing;
            device.config[6] = WISHES;
        });
        let mut port = TestPort::new(device.clone(), pool.clone(), Settings::default()).unwrap();
        port.tick();
        assert!(!port.take_announcement());
        assert!(device.with(|device| !device.rings[2].is_set_up() && device.accepted & CTRL_VQ == 0));
    }
}
