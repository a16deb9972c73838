//! Clients and hosts that do what nobody should, against the running image: the others do not notice.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qemu::command::{Config, Machine, Port};
use qemu::host::Host;
use qemu::qmp::Socket;
use qemu::scratch::Scratch;
use serde_json::json;
use smoltcp::wire::EthernetAddress;
use tests::image::{Inhabited, PORTS, SOON, Wired, bare, busy, late_allocations, link_figure, macs, stats};
use tests::talk::{echo_datagrams, fetch_file, knock, meanwhile, serve_file};
use tests::world::frame;
use tests::{At, Chance, udp};

/// A server outside.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The appliance on the port of `work`.
const WORK_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The appliance on the port of `lab`.
const LAB_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

fn inhabited() -> Inhabited {
    Wired::boot(Machine::Q35).with_hosts()
}

/// A datagram of this client's goes out and comes back.
fn assert_forwards(world: &Inhabited, client: &Host) {
    thread::scope(|scope| {
        let server = meanwhile(scope, &world.uplink, |stack| echo_datagrams(stack, 7, 1, SOON));
        let probe = client.exchange((SERVER, 7).at(), b"still there", SOON);
        assert_eq!(probe.outcome.as_deref(), Ok(&b"still there"[..]));
        server.join().expect("the server has its datagram");
    });
}

/// No device was reset, and nothing was allocated.
fn assert_sound(world: &Inhabited) {
    let stats = stats(&world.vm);
    for port in ["uplink", "work", "lab"] {
        for figure in ["device_errors", "restarts"] {
            assert_eq!(link_figure(&stats, port, figure), 0, "{figure} of {port}: {stats:?}");
        }
    }
    assert_eq!(late_allocations(&stats), 0);
}

/// An ARP packet of `work`: who has the gateway, says this host.
fn question(sender: EthernetAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut octets = vec![0, 1, 8, 0, 6, 4, 0, 1];
    octets.extend_from_slice(&sender.0);
    octets.extend_from_slice(&address.octets());
    octets.extend_from_slice(&[0; 6]);
    octets.extend_from_slice(&WORK_GATEWAY.octets());
    frame(EthernetAddress::BROADCAST, sender, 0x0806, &octets)
}

#[test]
fn a_client_that_floods_arp_is_its_own_trouble() {
    let _machine = busy();
    let world = inhabited();
    assert_forwards(&world, &world.lab);
    world.work.run(|stack| {
        for number in 0..100_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let sender = EthernetAddress([2, 1, 0, a, b, c]);
            // Of its own subnet, and of all others.
            let address = if number % 2 == 0 { [10, 0, 1, c.max(2)] } else { [10, c, b, a] };
            stack.link.send(&question(sender, address.into()));
        }
    });
    assert_forwards(&world, &world.lab);
    assert_forwards(&world, &world.work);
    let stats = stats(&world.vm);
    assert!(stats.neighbors <= 1024, "{stats:?}");
    assert_sound(&world);
}

#[test]
fn a_client_that_changes_its_mac_is_heard_at_the_new_one() {
    let _machine = busy();
    let mut links = Wired::boot(Machine::Q35);
    let [uplink, mut work, _lab]: [_; PORTS] = links.links.try_into().unwrap_or_else(|_| panic!("three"));
    let [gateway, ..] = tests::image::identities();
    let _gateway = Host::start(gateway, uplink);
    links.links = Vec::new();
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    for last in 2..6 {
        let mac = EthernetAddress([2, 0, 0, 0, 9, last]);
        // As a stack does that has a new address: it announces it.
        work.send(&question(mac, OWN));
        let began = Instant::now();
        let mut sent = Instant::now() - SOON;
        loop {
            assert!(began.elapsed() < SOON, "no answer at {mac}");
            if sent.elapsed() > Duration::from_millis(200) {
                sent = Instant::now();
                let packet = tests::echo("10.0.1.2", "198.51.100.1", last.into(), 1, b"where am I");
                work.send(&frame(macs()[1], mac, 0x0800, &packet.octets()));
            }
            work.wait(Duration::from_millis(50));
            let heard = std::iter::from_fn(|| work.receive())
                .any(|frame| frame.starts_with(&mac.0) && frame.get(12..14) == Some(&[8, 0]));
            if heard {
                break;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn frames_of_every_length_and_kind_stop_nobody() {
    let _machine = busy();
    let world = inhabited();
    let gateway = macs()[1];
    let own = world.work.identity().mac;
    world.work.run(move |stack| {
        let packet = udp(("10.0.1.2", 5000), (SERVER, 9), &[7; 100]).octets();
        let whole = frame(gateway, own, 0x0800, &packet);
        for length in 1..whole.len() {
            stack.link.send(&whole[..length]);
        }
        for kind in [0x8100, 0x88a8, 0x86dd, 0x0000, 0x05ff, 0x88cc, 0xffff] {
            stack.link.send(&frame(gateway, own, kind, &packet));
            // A tag, and what it hides.
            let tagged = [&[0, 1, 8, 0][..], &packet].concat();
            stack.link.send(&frame(gateway, own, kind, &tagged));
            stack.link.send(&frame(EthernetAddress([1, 0x80, 0xc2, 0, 0, 0]), own, kind, &packet));
            // Its own address as destination, and the gateway's as source.
            stack.link.send(&frame(own, own, kind, &packet));
            stack.link.send(&frame(gateway, gateway, kind, &packet));
        }
        for length in [1400, 1472, 1473, 2000, 4000, 4082, 4083, 8972, 9000, 30_000, 60_000] {
            let packet = udp(("10.0.1.2", 5000), (SERVER, 9), &vec![9; length]).octets();
            stack.link.send(&frame(gateway, own, 0x0800, &packet));
            stack.link.send(&frame(gateway, own, 0x8100, &packet));
        }
    });
    assert_forwards(&world, &world.work);
    assert_forwards(&world, &world.lab);
    assert_sound(&world);
}

/// A command for QEMU's monitor, and its answer.
fn monitor(path: &Path, command: &str) {
    let stream = UnixStream::connect(path).expect("the monitor listens");
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    let mut line = || lines.next().expect("an answer").expect("text");
    line();
    for command in ["qmp_capabilities", command] {
        writeln!(&stream, "{{\"execute\":\"{command}\"}}").expect("it reads");
        while !line().contains("\"return\"") {}
    }
}

/// What the host does to the VM for three seconds; whoever was at work before is at work soon after.
fn paused(machine: Machine, pause: impl Fn(&Path, i32, bool)) {
    let scratch = Scratch::new().expect("a temporary directory");
    let path = scratch.join("monitor");
    let mut config = bare(machine);
    config.extra = ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", path.display())].into();
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    let world = Wired::boot_with(config, place).with_hosts();
    assert_forwards(&world, &world.work);
    let sessions = stats(&world.vm).sessions;
    let id = i32::try_from(world.vm.pid()).expect("a process");
    pause(&path, id, true);
    thread::sleep(Duration::from_secs(3));
    pause(&path, id, false);
    let began = Instant::now();
    for (host, gateway) in [(&world.work, WORK_GATEWAY), (&world.lab, LAB_GATEWAY)] {
        assert!(host.ping(gateway, SOON).outcome.is_ok());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(stats(&world.vm).sessions >= sessions);
    assert_forwards(&world, &world.work);
    assert_sound(&world);
}

#[test]
fn a_vm_that_was_paused_goes_on() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Microvm] {
        paused(machine, |path, _, is_stop| monitor(path, if is_stop { "stop" } else { "cont" }));
    }
}

#[test]
fn a_host_that_stood_still_goes_on() {
    let _machine = busy();
    paused(Machine::Q35, |_, id, is_stop| {
        let signal = if is_stop { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(Pid::from_raw(id), signal).expect("it runs");
    });
}

/// One client sends as fast as it can what costs the appliance an answer, a search or a new session each.
#[test]
fn a_client_that_floods_does_not_keep_others_waiting() {
    let _machine = busy();
    let world = inhabited();
    assert_forwards(&world, &world.lab);
    let gateway = macs()[1];
    let own = world.work.identity().mac;
    let of = |packet: tests::packet::Packet| frame(gateway, own, 0x0800, &packet.octets());
    let mut flood = vec![
        of(tests::echo("10.0.1.2", "10.0.1.1", 1, 1, &[0; 1400])),
        // Nobody has this address on the link, so each waits for an answer to ARP.
        of(udp(("10.0.1.2", 5000), ("10.0.1.77", 9), b"x")),
        of(udp(("10.0.1.2", 5000), ("10.0.2.2", 9), b"rejected")),
        of(udp(("10.0.1.3", 5000), ("192.0.2.77", 9), b"x")),
    ];
    flood.extend((0..60_000).map(|n: u16| of(udp(("10.0.1.4", 1024 + n), (SERVER, 9), b"x"))));
    thread::scope(|scope| {
        scope.spawn(|| {
            let flood = flood.clone();
            world.work.run(move |stack| {
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(5) {
                    flood.iter().for_each(|frame| stack.link.send(frame));
                }
            });
        });
        thread::sleep(Duration::from_secs(1));
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let began = Instant::now();
            assert!(world.lab.ping(LAB_GATEWAY, SOON).outcome.is_ok());
            slowest = slowest.max(began.elapsed());
            thread::sleep(Duration::from_millis(100));
        }
        println!("slowest of 20 pings: {slowest:?}");
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    });
    assert_forwards(&world, &world.lab);
    assert_sound(&world);
}

#[test]
fn a_reset_in_the_middle_of_traffic_begins_anew() {
    let _machine = busy();
    let scratch = Scratch::new().expect("a temporary directory");
    let path = scratch.join("monitor");
    let mut config = Config { ends_on_reset: false, debug_exit: false, ..bare(Machine::Q35) };
    config.extra = ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", path.display())].into();
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    let world = Wired::boot_with(config, place).with_hosts();
    for _ in 0..5 {
        assert_forwards(&world, &world.work);
        let from = world.vm.console().lines();
        monitor(&path, "system_reset");
        let began = Instant::now();
        while world
            .vm
            .console()
            .find(from, Duration::from_millis(50), |line| line.contains(" weir: ready"))
            .is_none()
        {
            assert!(began.elapsed() < SOON, "{}", world.vm.console().text());
        }
    }
    assert_forwards(&world, &world.work);
    assert_sound(&world);
}

#[test]
fn the_power_button_is_heard_under_a_flood() {
    let _machine = busy();
    let socket = Socket::new().expect("a directory");
    let mut config = Config { debug_exit: false, ..bare(Machine::Q35) };
    config.extra = socket.arguments().into();
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    let world = Wired::boot_with(config, place).with_hosts();
    assert_forwards(&world, &world.work);
    let mut qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
    let own = world.work.identity().mac;
    let flood = frame(macs()[1], own, 0x0800, &udp(("10.0.1.2", 5000), (SERVER, 9), b"x").octets());
    thread::scope(|scope| {
        scope.spawn(|| {
            world.work.run(move |stack| {
                while !stack.link.is_closed() {
                    (0..64).for_each(|_| stack.link.send(&flood));
                    while stack.link.receive().is_some() {}
                }
            });
        });
        thread::sleep(Duration::from_secs(1));
        qmp.execute("system_powerdown", json!({})).unwrap_or_else(|error| panic!("{error}"));
        let status = world.vm.wait(SOON);
        world.vm.kill();
        assert!(status.unwrap_or_else(|error| panic!("{error}")).success());
    });
    assert!(world.vm.console().text().contains("powers off wish=\"power button\""));
}

/// A connection to QEMU's monitor, and the arguments that make it listen.
fn controlled(config: Config) -> (Config, Socket) {
    let socket = Socket::new().expect("a directory");
    let extra = config.extra.iter().cloned().chain(socket.arguments()).collect();
    (Config { extra, ..config }, socket)
}

#[test]
fn a_vm_that_is_saved_and_restored_goes_on_with_its_sessions() {
    let _machine = busy();
    let scratch = Scratch::new().expect("a temporary directory");
    let file = scratch.join("state").display().to_string();
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    let knocks = |world: &Inhabited| {
        thread::scope(|scope| {
            let server = meanwhile(scope, &world.uplink, |stack| echo_datagrams(stack, 7, 1, SOON));
            world.work.run(|stack| knock(stack, 5000, (SERVER, 7).at(), SOON));
            server.join().expect("the server has its datagram")[0]
        })
    };
    let (config, socket) = controlled(bare(Machine::Q35));
    let world = Wired::boot_with(config.clone(), place).with_hosts();
    let endpoint = knocks(&world);
    let mut qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
    let to = format!("exec:cat > {file}");
    qmp.execute("migrate", json!({ "uri": to })).unwrap_or_else(|error| panic!("{error}"));
    let state = |qmp: &mut qemu::qmp::Qmp| qmp.execute("query-migrate", json!({})).expect("an answer");
    let deadline = Instant::now() + SOON;
    while state(&mut qmp)["status"] != "completed" {
        assert!(Instant::now() < deadline, "{}", state(&mut qmp));
        thread::sleep(Duration::from_millis(50));
    }
    world.vm.kill();
    drop(world);

    let (mut config, _socket) = controlled(bare(Machine::Q35));
    config.extra.extend(["-incoming".to_owned(), format!("exec:cat {file}")]);
    let world = Wired::resume_with(config, place).with_hosts();
    assert_eq!(knocks(&world), endpoint, "the same session");
    assert_forwards(&world, &world.lab);
    assert_sound(&world);
}

/// Carrier of the uplink and of a client goes and comes a hundred times a second, in the middle of a transfer.
#[test]
fn carrier_that_flaps_is_over_when_it_ends() {
    const FILE: usize = 4 << 20;
    let _machine = busy();
    let (config, socket) = controlled(bare(Machine::Q35));
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    let world = Wired::boot_with(config, place).with_hosts();
    assert_forwards(&world, &world.lab);
    let mut qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
    let before = stats(&world.vm);
    let file = Chance::new(4).octets(FILE);
    thread::scope(|scope| {
        let reply = file.clone();
        let server =
            meanwhile(scope, &world.uplink, move |stack| serve_file(stack, 5001, 1, &reply, 3 * SOON));
        let client = meanwhile(scope, &world.work, |stack| {
            fetch_file(stack, (SERVER, 5001).at(), b"?", FILE, 3 * SOON)
        });
        let (began, mut changes) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(3) {
            for (port, up) in [("n0", false), ("n1", false), ("n0", true), ("n1", true)] {
                qmp.set_link(port, up).unwrap_or_else(|error| panic!("{error}"));
                changes += 1;
                thread::sleep(Duration::from_millis(2));
            }
        }
        assert!(changes > 300, "{changes}");
        let over = Instant::now();
        assert!(world.lab.ping(SERVER, SOON).outcome.is_ok());
        // A ping that is lost is sent again after most of a second.
        assert!(over.elapsed() < Duration::from_secs(2), "{:?}", over.elapsed());
        assert!(client.join().expect("it has its file") == file, "the file was changed");
        server.join().expect("it was served");
    });
    for name in ["uplink", "work"] {
        let over = Instant::now();
        // How it ended is told in the next second.
        let lines = loop {
            let text = world.vm.console().text();
            let lines = text.lines().filter(|line| line.contains(&format!("carrier name={name} ")));
            let lines: Vec<_> = lines.collect();
            if lines.last().is_some_and(|line| line.contains("up=true")) {
                break lines.len();
            }
            assert!(over.elapsed() < SOON, "{lines:#?}");
            thread::sleep(Duration::from_millis(100));
        };
        assert!((2..=20).contains(&lines), "{lines} lines");
    }
    assert_eq!(stats(&world.vm).buffers_free, before.buffers_free);
    assert_forwards(&world, &world.work);
    assert_sound(&world);
}
