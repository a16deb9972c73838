//! What the image costs when there is nothing to do, and when links come and go, under QEMU.
//!
//! `WEIR_IDLE_SECONDS=60` measures for as long as that.

use std::fs;
use std::thread;
use std::time::Duration;

use qemu::command::{Config, Machine, Netdev, Port};
use qemu::link::Listener;
use qemu::qmp::Socket;
use qemu::vm::Vm;
use tests::image::{SOON, Wired, bare, busy, quiet, stats};
use tests::plugged;

/// Nanoseconds that all threads of a process have had a processor (schedstat, its first figure).
fn nanoseconds(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| of(thread.path())).sum()
}

/// With nine ports and nothing to do, the image sleeps: what wakes it is counted, what QEMU takes of a core is told.
#[test]
fn nine_ports_with_nothing_to_do_take_no_interrupts() {
    let _machine = quiet();
    let listeners: Vec<Listener> = (0..9).map(|_| Listener::new().expect("a socket")).collect();
    let config = plugged::nine(listeners.iter().map(|listener| listener.path().to_owned()));
    let vm = Vm::start(&config).unwrap_or_else(|error| panic!("{error}"));
    let connect = |listener| vm.connect(listener, SOON).unwrap_or_else(|error| panic!("{error}"));
    let _links: Vec<_> = listeners.iter().map(connect).collect();
    vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(stats(&vm).ports.iter().filter(|port| port.up).count(), 9);
    let seconds = std::env::var("WEIR_IDLE_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(10);
    // Asking for figures wakes it, too.
    thread::sleep(Duration::from_secs(2));
    let interrupts = || stats(&vm).more.get("interrupts").and_then(|it| it.as_u64()).expect("interrupts");
    let (taken, before) = (interrupts(), nanoseconds(vm.pid()));
    thread::sleep(Duration::from_secs(seconds));
    let spent = nanoseconds(vm.pid()) - before;
    let taken = interrupts() - taken;
    println!(
        "{seconds} s: {:.2} ms, {:.3} % of a core, {taken} interrupts",
        spent as f64 / 1e6,
        spent as f64 / 1e7 / seconds as f64
    );
    // The question itself is some octets on the serial line.
    assert!(taken <= 16, "{taken} interrupts in {seconds} s");
}

/// Carrier that goes and comes is known at once, on messages and on lines, also when nothing else wakes the image.
#[test]
fn carrier_that_comes_and_goes_is_seen_without_traffic() {
    let _machine = busy();
    let cases = [
        (Machine::Q35, None),
        (Machine::Q35, Some("vectors=0")),
        (Machine::Q35, Some("vectors=1")),
        (Machine::Microvm, None),
    ];
    for (machine, property) in cases {
        let socket = Socket::new().expect("a directory");
        let place = |mut config: Config, mut ports: [Port; 3]| {
            for port in &mut ports {
                assert!(matches!(port.netdev, Netdev::Connect(_)));
                port.properties.extend(property.map(str::to_owned));
            }
            config.ports = ports.into();
            config.extra.extend(socket.arguments());
            config
        };
        let world = Wired::boot_with(bare(machine), place).with_hosts();
        let mut qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
        let gateway = world.work.identity().gateway.expect("a gateway");
        assert!(world.work.ping(gateway, SOON).outcome.is_ok());
        for _ in 0..3 {
            for up in [false, true] {
                let seen = world.vm.console().lines();
                qmp.set_link("n1", up).unwrap_or_else(|error| panic!("{error}"));
                let text = format!("carrier name=work up={up}");
                let line = world.vm.console().find(seen, SOON, |line: &str| line.contains(&text));
                assert!(line.is_some(), "{machine:?} {property:?}: {:#?}", world.vm.console().tail(9));
            }
            assert!(world.work.ping(gateway, SOON).outcome.is_ok(), "{machine:?} {property:?}");
        }
    }
}
