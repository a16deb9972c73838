//! NICs that come and go while the image runs, under QEMU and by its control. No root.
//!
//! `WEIR_HOTPLUG_CYCLES=1000` makes the long test as long as that.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qemu::link::Link;
use qemu::stats::Stats;
use serde_json::json;
use smoltcp::wire::EthernetAddress;
use tests::image::{SOON, busy, late_allocations, quiet, stats};
use tests::plugged::{Guest, Plugged, UPLINK_SLOT, WORK, Way, outside, uplink_mac};
use tests::talk::{echo_datagrams, knock, meanwhile};
use tests::{At, udp};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn nic(number: u8) -> EthernetAddress {
    EthernetAddress([0x52, 0x54, 0, 0x88, 0, number])
}

/// The guest reaches its gateway, and a datagram of it comes back from outside.
fn assert_forwards(world: &Plugged, guest: &Guest) {
    let gateway = guest.host.identity().gateway.expect("a gateway");
    let probe = guest.host.ping(gateway, SOON);
    assert!(probe.outcome.is_ok(), "{gateway}: {:?}\n{:?}", probe.outcome, stats(&world.vm));
    thread::scope(|scope| {
        let server = meanwhile(scope, &world.uplink, |stack| echo_datagrams(stack, 7, 1, SOON));
        let probe = guest.host.exchange((SERVER, 7).at(), b"hello", SOON);
        assert_eq!(probe.outcome.as_deref(), Ok(&b"hello"[..]));
        server.join().expect("the server has its datagram");
    });
}

fn is_up(stats: &Stats, name: &str) -> bool {
    stats.port(name).is_some_and(|port| port.up)
}

#[test]
fn a_known_nic_is_its_client_an_unknown_one_gets_a_place_and_one_too_many_is_refused() {
    let _machine = busy();
    for way in [Way::Native, Way::Acpi, Way::Pc, Way::Bridge] {
        let mut world = Plugged::boot(way);
        for name in ["work", "vif1", "vif2"] {
            assert!(world.vm.console().text().contains(&format!("name={name} waits for a NIC")), "{name}");
            assert!(!is_up(&stats(&world.vm), name));
        }
        let one = world.plug("one", 1, nic(1), "vif1", "10.137.0.20/24");
        let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        let two = world.plug("two", 3, nic(2), "vif2", "10.137.0.21/24");
        for guest in [&one, &work, &two] {
            assert_forwards(&world, guest);
        }
        let seen = world.vm.console().lines();
        let spare = world.wire("three", 2, nic(3));
        world.line(seen, "refused mac=52:54:00:88:00:03");
        // It has the first place that somebody leaves.
        let seen = world.vm.console().lines();
        world.unplug("one");
        drop(one);
        world.line(seen, "came name=vif1 mac=52:54:00:88:00:03");
        // A place is who had it last's: another NIC gets the one that is free for longer.
        world.unplug("two");
        drop(two);
        world.unplug("three");
        drop(spare);
        let two = world.plug("two", 1, nic(2), "vif2", "10.137.0.21/24");
        let three = world.plug("three", 2, nic(3), "vif1", "10.137.0.20/24");
        for guest in [&two, &three, &work] {
            assert_forwards(&world, guest);
        }
        assert_eq!(late_allocations(&stats(&world.vm)), 0);
    }
}

/// The endpoint that a datagram of the guest's, from always the same port, has outside; it is answered.
fn external(world: &Plugged, guest: &Guest) -> SocketAddrV4 {
    thread::scope(|scope| {
        let server = meanwhile(scope, &world.uplink, |stack| echo_datagrams(stack, 7, 1, SOON));
        guest.host.run(|stack| knock(stack, 5000, SocketAddrV4::new(SERVER, 7), SOON));
        server.join().expect("the server has its datagram")[0]
    })
}

#[test]
fn an_uplink_that_goes_and_comes_back_goes_on_with_its_sessions() {
    let _machine = busy();
    for way in [Way::Native, Way::Acpi] {
        let mut world = Plugged::boot_in_slots(way);
        let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        let endpoint = external(&world, &work);
        let before = stats(&world.vm);
        let mut device = "uplink";
        // In another slot, and where it was.
        for (next, slot) in [("second", 2), ("third", usize::from(UPLINK_SLOT))] {
            let seen = world.vm.console().lines();
            world.qmp.let_go(device, SOON).unwrap_or_else(|error| panic!("{error}"));
            world.line(seen, "gone name=uplink");
            assert!(!is_up(&stats(&world.vm), "uplink"));
            // Clients are answered by the appliance all the while.
            assert!(work.host.ping(Ipv4Addr::new(10, 0, 1, 1), SOON).outcome.is_ok());
            assert!(work.host.ping(SERVER, Duration::from_millis(300)).outcome.is_err());
            device = next;
            let seen = world.vm.console().lines();
            let (link, _listener) = world.wire(device, slot, uplink_mac());
            world.uplink = outside(link);
            world.line(seen, "came name=uplink");
            let came = Instant::now();
            assert_eq!(external(&world, &work), endpoint, "{way:?}");
            assert!(came.elapsed() < Duration::from_secs(1), "{:?}", came.elapsed());
        }
        let after = stats(&world.vm);
        assert!(after.sessions >= before.sessions, "{after:?}");
        assert_eq!((late_allocations(&after), before.ports.len()), (0, after.ports.len()));
    }
}

#[test]
fn a_slot_that_was_left_takes_the_next_nic_though_nothing_happens_meanwhile() {
    let _machine = busy();
    for way in [Way::Native, Way::Acpi, Way::Bridge] {
        let mut world = Plugged::boot_in_slots(way);
        let _work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        for (device, next) in [("uplink", "second"), ("second", "third")] {
            let seen = world.vm.console().lines();
            world.qmp.let_go(device, SOON).unwrap_or_else(|error| panic!("{error}"));
            world.line(seen, "gone name=uplink");
            // Long enough that the appliance sleeps.
            thread::sleep(Duration::from_millis(500));
            let (link, _listener) = world.wire(next, usize::from(UPLINK_SLOT), uplink_mac());
            world.line(seen, "came name=uplink");
            world.uplink = outside(link);
        }
    }
    for way in [Way::Native, Way::Acpi, Way::Pc, Way::Bridge] {
        let mut world = Plugged::boot(way);
        for _ in 0..3 {
            let _guest = world.plug("guest", 1, nic(1), "vif1", "10.137.0.20/24");
            thread::sleep(Duration::from_millis(500));
            world.unplug("guest");
            thread::sleep(Duration::from_millis(500));
        }
    }
}

#[test]
fn an_uplink_whose_successor_is_there_before_it_goes_is_replaced() {
    let _machine = busy();
    for way in [Way::Native, Way::Acpi] {
        let mut world = Plugged::boot_in_slots(way);
        let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        let endpoint = external(&world, &work);
        let seen = world.vm.console().lines();
        let (link, _listener) = world.wire("next", 2, uplink_mac());
        world.line(seen, "another NIC has this MAC");
        assert_eq!(external(&world, &work), endpoint, "{way:?}");
        world.qmp.let_go("uplink", SOON).unwrap_or_else(|error| panic!("{error}"));
        world.uplink = outside(link);
        world.line(seen, "came name=uplink");
        assert_eq!(external(&world, &work), endpoint, "{way:?}");
    }
}

/// They may be anything by then: seen or not, at their place or waiting for it.
#[test]
fn nics_that_are_to_go_while_they_come_are_let_go_of() {
    let _machine = quiet();
    for way in [Way::Native, Way::Acpi, Way::Pc] {
        let mut world = Plugged::boot(way);
        let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        assert_forwards(&world, &work);
        let before = at_rest(&world, 2);
        for round in 0..40_u8 {
            let _wire = world.wire("guest", 1 + usize::from(round % 3), nic(round % 3));
            thread::sleep(Duration::from_millis(u64::from(round % 20)));
            let took = world.unplug("guest");
            assert!(took < Duration::from_secs(1), "{way:?} {round}: {took:?}");
        }
        assert_eq!(at_rest(&world, 2), before, "{way:?}");
        assert_forwards(&world, &work);
        assert_eq!(late_allocations(&stats(&world.vm)), 0);
    }
}

#[test]
fn a_nic_that_is_torn_out_takes_its_sessions_along() {
    let _machine = busy();
    for way in [Way::Native, Way::Acpi] {
        let mut world = Plugged::boot(way);
        let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
        assert_forwards(&world, &work);
        let before = at_rest(&world, 2);
        let one = world.plug("one", 1, nic(1), "vif1", "10.137.0.20/24");
        assert_forwards(&world, &one);
        let seen = world.vm.console().lines();
        world.qmp.tear_out("one").unwrap_or_else(|error| panic!("{error}"));
        // Where nothing tells of it, the next who has something to send wakes the appliance.
        assert_forwards(&world, &work);
        world.line(seen, "gone name=vif1");
        drop(one);
        let after = at_rest(&world, 2);
        assert_eq!(after, (before.0 + 1, before.1 + 1, before.2), "one session more of work");
        // QEMU still has something in the old slot.
        let again = world.plug("again", 2, nic(1), "vif1", "10.137.0.20/24");
        assert_forwards(&world, &again);
        assert_eq!(late_allocations(&stats(&world.vm)), 0);
    }
}

/// The addresses that the appliance announces on a link (RFC 5227 2.3), each once.
fn announced(link: &mut Link, wait: Duration) -> BTreeSet<Ipv4Addr> {
    let end = Instant::now() + wait;
    let mut seen = BTreeSet::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        link.wait(left);
        while let Some(frame) = link.receive() {
            let (kind, sender, target) = (frame.get(12..14), frame.get(28..32), frame.get(38..42));
            let own: Option<[u8; 4]> = sender.and_then(|octets| octets.try_into().ok());
            if let (Some([8, 6]), Some(own), true) = (kind, own, sender == target) {
                seen.insert(Ipv4Addr::from(own));
            }
        }
    }
    seen
}

#[test]
fn addresses_are_announced_when_the_host_asks_for_it() {
    let _machine = busy();
    let mut world = Plugged::boot(Way::Native);
    let seen = world.vm.console().lines();
    let (mut link, _listener) = world.wire("work", 0, WORK);
    world.line(seen, "came name=work");
    // Once when the NIC came, and then no more.
    assert_eq!(announced(&mut link, Duration::from_secs(2)), BTreeSet::from([[10, 0, 1, 1].into()]));
    assert_eq!(announced(&mut link, Duration::from_secs(2)), BTreeSet::new());
    let rounds = json!({ "initial": 50, "max": 50, "rounds": 2, "step": 0 });
    for _ in 0..2 {
        // As QEMU does by itself at the end of a migration.
        world.qmp.execute("announce-self", rounds.clone()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(announced(&mut link, Duration::from_secs(1)), BTreeSet::from([[10, 0, 1, 1].into()]));
    }
    assert_eq!(
        announced(&mut link, Duration::from_secs(1)),
        BTreeSet::new(),
        "the host has heard that it was done"
    );
}

/// Sends the same datagram of 64 octets as fast as the wire takes it, until told to stop or the wire has no end.
fn flood(guest: &Guest, gateway: EthernetAddress, stop: &'static AtomicBool, sent: &'static AtomicU64) {
    let source = guest.host.identity().address().to_string();
    let packet = udp((source.as_str(), 5000), (SERVER, 9), &[0; 22]).octets();
    let frame = [&gateway.0[..], &guest.host.identity().mac.0, &[8, 0], &packet].concat();
    guest.host.run(move |stack| {
        while !stop.load(Ordering::Relaxed) && !stack.link.is_closed() {
            (0..64).for_each(|_| stack.link.send(&frame));
            sent.fetch_add(64, Ordering::Relaxed);
            while stack.link.receive().is_some() {}
        }
    });
}

/// Sessions, mappings and free buffers, when nothing is under way and there are no more neighbours than these.
fn at_rest(world: &Plugged, neighbors: u64) -> (u64, u64, u64) {
    // QEMU's queue in front of a NIC has no limit: what floods have left there still comes.
    let deadline = Instant::now() + 10 * SOON;
    let mut frames = None;
    loop {
        let stats = stats(&world.vm);
        let seen: u64 = stats.ports.iter().map(|port| port.rx_frames + port.tx_frames).sum();
        // A poll of a neighbour and its answer may come between two looks.
        let is_quiet = frames.replace(seen).is_some_and(|before| seen - before < 8);
        if is_quiet && stats.neighbors <= neighbors {
            return (stats.sessions, stats.mappings, stats.buffers_free);
        }
        assert!(Instant::now() < deadline, "it does not come to rest: {stats:?}");
        thread::sleep(Duration::from_millis(300));
    }
}

/// `work` and the guest that goes send as fast as they can, also while it goes.
fn cycles(way: Way, count: u32) {
    let mut world = Plugged::boot(way);
    let work = world.plug("work", 0, WORK, "work", "10.0.1.2/24");
    let gateway = work.host.identity().gateway.expect("a gateway");
    assert!(work.host.ping(gateway, SOON).outcome.is_ok());
    let before = at_rest(&world, 1);
    assert_eq!(before.0, 0);
    static END: AtomicBool = AtomicBool::new(false);
    static SENT: AtomicU64 = AtomicU64::new(0);
    END.store(false, Ordering::Relaxed);
    let mut all = Vec::new();
    thread::scope(|scope| {
        let sender = scope.spawn(|| flood(&work, WORK, &END, &SENT));
        for cycle in 0..count {
            // Two NICs take turns at both places and at all free slots.
            let number = (cycle % 2 + 1) as u8;
            let (name, address) =
                [("vif1", "10.137.0.20/24"), ("vif2", "10.137.0.21/24")][usize::from(number) - 1];
            let guest = world.plug("guest", 1 + cycle as usize % 3, nic(number), name, address);
            let host = &guest;
            thread::scope(|scope| {
                static SENT: AtomicU64 = AtomicU64::new(0);
                SENT.store(0, Ordering::Relaxed);
                let sender = scope.spawn(|| flood(host, nic(number), &END, &SENT));
                while SENT.load(Ordering::Relaxed) < 2000 {
                    thread::sleep(Duration::from_millis(5));
                }
                all.push(world.unplug("guest"));
                sender.join().expect("the guest's wire ends");
            });
        }
        END.store(true, Ordering::Relaxed);
        sender.join().expect("work stops");
    });
    all.sort();
    println!(
        "{way:?}: {count} cycles, let go in {:?} (median), {:?} (99 of 100), {:?} (slowest), with {} datagrams of another",
        all.get(all.len() / 2),
        all.get(all.len() * 99 / 100),
        all.last(),
        SENT.load(Ordering::Relaxed)
    );
    // Also under a flood QEMU gets the processor for long enough to take the device away.
    assert!(all.iter().all(|took| *took < Duration::from_secs(1)), "{all:?}");
    let after = at_rest(&world, 2);
    // The flood of `work` is one session.
    assert_eq!(after, (before.0 + 1, before.1 + 1, before.2), "sessions, mappings, buffers");
    assert_forwards(&world, &work);
    let stats = stats(&world.vm);
    assert_eq!(late_allocations(&stats), 0);
    for name in ["uplink", "work", "vif1", "vif2"] {
        assert_eq!(tests::image::link_figure(&stats, name, "device_errors"), 0, "{stats:?}");
    }
}

fn count() -> u32 {
    std::env::var("WEIR_HOTPLUG_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(50)
}

#[test]
fn cycles_under_traffic_leave_nothing_behind() {
    let _machine = quiet();
    cycles(Way::Native, count());
}

#[test]
fn cycles_by_way_of_acpi_leave_nothing_behind() {
    let _machine = quiet();
    cycles(Way::Acpi, count().div_ceil(5));
    cycles(Way::Pc, count().div_ceil(5));
    cycles(Way::Bridge, count().div_ceil(10));
}
