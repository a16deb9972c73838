//! Devices that come and go while the port stays.

use super::*;

/// No device.
fn nothing() -> Fake {
    let fake = Fake::new(0);
    fake.with(|device| device.is_gone = true);
    fake
}

fn absent(pool: &Pool) -> TestPort {
    TestPort::absent(nothing(), pool.clone(), Settings { name: "test", ..Settings::default() }).unwrap()
}

#[test]
fn a_port_without_a_device_takes_and_gives_nothing_and_asks_for_nothing() {
    let pool = pool(1);
    let mut port = absent(&pool);
    assert!(!port.is_present() && !port.is_up() && !port.wants_tick());
    assert!(turn(&mut port).is_empty());
    port.tick();
    assert_eq!(port.transmit(&head(), None), Err(Refused::Down));
    assert!(port.sleep());
    assert_eq!((pool.free(), port.statistics().device_errors), (pool.size(), 0));
}

#[test]
fn a_thousand_devices_come_and_go_with_frames_of_others_on_their_rings() {
    let pool = pool(2);
    let (mut other, source) = port(&pool, 1);
    let mut port = absent(&pool);
    let (idle, pages) = (pool.free(), TestHal::pages());
    for round in 0..1000_u32 {
        let device = Fake::new(round as u8);
        assert_eq!(port.plug(device.clone(), nothing()), Ok(()));
        assert!(port.is_present() && port.is_up());
        assert_eq!(port.mac().0[5], round as u8);
        for length in [60, 1000] {
            source.deliver(PLAIN, &frame(length));
        }
        for received in turn(&mut other) {
            let end = received.octets().len();
            port.transmit(&head(), Some((received, 14..end))).unwrap();
        }
        device.deliver(PLAIN, &frame(80));
        let received = turn(&mut port);
        // Surprise removal, every other time.
        device.with(|device| device.is_gone = round % 2 == 0);
        port.unplug(nothing());
        drop(received);
        turn(&mut other);
        assert_eq!((pool.free(), TestHal::pages()), (idle, pages), "round {round}");
    }
    assert_eq!(port.statistics().rx_frames, 1000);
}

#[test]
fn a_device_that_does_not_start_leaves_the_port_as_it_was() {
    let pool = pool(1);
    let mut port = absent(&pool);
    let broken = Fake::new(1);
    broken.with(|device| device.refuses_features = true);
    assert_eq!(port.plug(broken, nothing()), Err(StartError::FeaturesRefused));
    assert!(!port.is_present() && pool.free() == pool.size());
    assert_eq!(port.plug(Fake::new(2), nothing()), Ok(()));
    assert_eq!((port.mac().0[5], pool.free()), (2, pool.size() - OFFERED));
}

#[test]
fn memory_that_a_removed_device_does_not_let_go_of_is_used_by_nobody() {
    let pool = pool(1);
    let mut port = absent(&pool);
    let device = Fake::new(1);
    port.plug(device.clone(), nothing()).unwrap();
    device.with(|device| device.is_stuck = true);
    port.unplug(nothing());
    assert_eq!(pool.free(), pool.size() - OFFERED);
    assert_eq!(port.plug(Fake::new(2), nothing()), Err(StartError::OutOfMemory));
    assert!(!port.is_present());
}
