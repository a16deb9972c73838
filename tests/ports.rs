//! The image between wires: unix sockets with a small IPv4 host at every end. No root.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use qemu::command::Machine;
use qemu::host::Host;
use qemu::link::Link;
use qemu::probe::Failure;
use smoltcp::wire::EthernetAddress;
use tests::image::{
    EXTERNAL, Inhabited, PORTS, SERVER, SOON, Wired, busy, identities, late_allocations, link_figure, macs,
    stats,
};
use tests::talk::{fetch_file, meanwhile, serve_file};
use tests::{At, Chance, echo, icmp_error, packet, tcp, udp};

const MACHINES: [Machine; 2] = [Machine::Q35, Machine::Microvm];

/// The client behind `lab`.
const LAB: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn inhabited(machine: Machine) -> Inhabited {
    Wired::boot(machine).with_hosts()
}

#[test]
fn clients_reach_their_gateways_and_the_outside() {
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        world.assert_forwards();
        let probe = world.work.ping(SERVER, SOON);
        assert!(probe.outcome.is_ok(), "{:?}", probe.outcome);
        let stats = stats(&world.vm);
        assert_eq!((late_allocations(&stats), stats.neighbors), (0, 3), "{stats:?}");
        assert!(stats.sessions >= 3, "{stats:?}");
    }
}

#[test]
fn both_clients_leave_as_the_external_address_from_ports_of_their_own() {
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        let payloads: Vec<Vec<u8>> =
            (0..10_u8).map(|number| vec![number; 100 + usize::from(number)]).collect();
        let clients: Vec<(&Host, &[u8])> = payloads
            .iter()
            .enumerate()
            .map(|(number, payload)| {
                (if number % 2 == 0 { &world.work } else { &world.lab }, payload.as_slice())
            })
            .collect();
        let mut sources = world.exchanged(&clients);
        assert!(sources.iter().all(|source| *source.ip() == EXTERNAL), "{sources:?}");
        sources.sort();
        sources.dedup();
        assert_eq!(sources.len(), clients.len(), "every flow has an external port: {sources:?}");
    }
}

#[test]
fn a_mebioctet_each_way_over_tcp_arrives_as_it_was() {
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        let there = Chance::new(1).octets(1 << 20);
        let back = Chance::new(2).octets(1 << 20);
        let (request, reply) = (there.clone(), back.clone());
        thread::scope(|scope| {
            let server = meanwhile(scope, &world.uplink, move |stack| {
                serve_file(stack, 5001, request.len(), &reply, 3 * SOON)
            });
            let request = there.clone();
            let fetched = world
                .work
                .run(move |stack| fetch_file(stack, (SERVER, 5001).at(), &request, 1 << 20, 3 * SOON));
            assert!(fetched == back, "the reply was changed: {} octets", fetched.len());
            let (received, peer) = server.join().expect("the server has its file");
            assert!(received == there, "the request was changed: {} octets", received.len());
            assert_eq!(*peer.ip(), EXTERNAL);
        });
        let stats = stats(&world.vm);
        assert_eq!(late_allocations(&stats), 0);
        let frames = stats.port("uplink").map_or(0, |port| port.tx_frames);
        assert!(frames > 700, "{stats:?}");
    }
}

#[test]
fn clients_do_not_reach_each_other_and_are_told_so() {
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        let before = stats(&world.vm).port("lab").map(|port| port.tx_frames);
        let outcomes = [
            world.work.ping(LAB, SOON).outcome.map(drop),
            world.work.exchange((LAB, 7).at(), b"hello", SOON).outcome.map(drop),
            world.work.connect((LAB, 80).at(), SOON).outcome.map(drop),
        ];
        for outcome in outcomes {
            let Err(Failure::Refused(error)) = outcome else { panic!("{outcome:?}") };
            assert!(error.is_administrative(), "{error}");
        }
        let after = stats(&world.vm).port("lab").map(|port| port.tx_frames);
        assert_eq!(before, after, "something reached the other client");
    }
}

#[test]
fn a_rejected_port_resets_and_a_closed_one_outside_refuses_through_the_translation() {
    let _machine = busy();
    let world = inhabited(Machine::Q35);
    assert_eq!(world.work.connect((SERVER, 25).at(), SOON).outcome, Err(Failure::Reset));
    let outcome = world.work.exchange((SERVER, 9).at(), b"discard", SOON).outcome;
    let Err(Failure::Refused(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.kind, error.code), (3, 3), "{error}");
}

#[test]
fn a_static_forward_brings_the_outside_in_unmasked() {
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        let request = b"GET / HTTP/1.0\r\n\r\n".to_vec();
        let page = Chance::new(3).octets(40_000);
        let (length, reply) = (request.len(), page.clone());
        thread::scope(|scope| {
            let server =
                meanwhile(scope, &world.work, move |stack| serve_file(stack, 80, length, &reply, SOON));
            let asked = request.clone();
            let fetched =
                world.uplink.run(move |stack| fetch_file(stack, (EXTERNAL, 8080).at(), &asked, 40_000, SOON));
            assert!(fetched == page, "the page was changed: {} octets", fetched.len());
            let (received, peer) = server.join().expect("the server was asked");
            assert_eq!((received, *peer.ip()), (request, Ipv4Addr::new(192, 0, 2, 1)));
        });
    }
}

#[test]
fn hostile_frames_on_every_port_change_nothing_for_the_others() {
    const EACH: usize = 3000;
    let _machine = busy();
    for machine in MACHINES {
        let mut chance = Chance::from_environment(11);
        let mut wired = Wired::boot(machine);
        let mut to_be_seen = [0_u64; PORTS];
        for (port, link) in wired.links.iter_mut().enumerate() {
            let seeds = seeds(port, macs()[port]);
            for _ in 0..EACH {
                let mut frame = seeds[chance.below(seeds.len())].clone();
                mutate(&mut frame, &mut chance);
                // What is larger than a receive buffer, the device drops.
                to_be_seen[port] += u64::from(frame.len() <= 1514);
                link.send(&frame);
                while link.receive().is_some() {}
            }
            assert!(!link.is_closed());
        }
        let deadline = Instant::now() + SOON;
        let seen = loop {
            let seen = stats(&wired.vm);
            let runts = |name: &str| link_figure(&seen, name, "rx_runts");
            let mut looked_at = seen.ports.iter().map(|port| port.rx_frames + runts(&port.name));
            if to_be_seen.iter().all(|wanted| looked_at.next().is_some_and(|count| count >= *wanted)) {
                break seen;
            }
            assert!(Instant::now() < deadline, "not every frame was looked at: {seen:?}");
        };
        for port in ["uplink", "work", "lab"] {
            assert_eq!(link_figure(&seen, port, "restarts"), 0, "{seen:?}");
            assert_eq!(link_figure(&seen, port, "device_errors"), 0, "{seen:?}");
            assert!(seen.port(port).is_some_and(|port| port.drops.values().sum::<u64>() > 100), "{seen:?}");
        }
        let world = wired.with_hosts();
        world.assert_forwards();
        assert_eq!(late_allocations(&stats(&world.vm)), 0);
    }
}

/// Sound frames from the neighbour of a port, of every kind that the appliance looks at.
fn seeds(port: usize, gateway: EthernetAddress) -> Vec<Vec<u8>> {
    // Not the address of the host that comes later: an ARP packet that survives is believed.
    let (own, address, far) = match port {
        0 => ("192.0.2.77", "192.0.2.2", "198.51.100.1"),
        1 => ("10.0.1.77", "10.0.1.1", "198.51.100.1"),
        _ => ("10.0.2.77", "10.0.2.1", "198.51.100.1"),
    };
    let target = if port == 0 { address } else { far };
    let source = if port == 0 { far } else { own };
    let inside = udp((target, 40_000), (source, 53), &[7; 64]).octets();
    let packets = [
        udp((source, 53), (target, 8080), &[1; 300]),
        udp((source, 53), (target, 53), &[1; 20]).without_checksum(),
        tcp((source, 999), (target, 8080), tests::flags::SYN, &[]),
        tcp((source, 999), (target, 8080), tests::flags::ACK, &[2; 900]),
        tcp((source, 998), (target, 25), tests::flags::SYN, &[]).options(&[7, 7, 4, 0, 0, 0, 0, 0]),
        echo(source, target, 5, 6, &[3; 56]),
        echo(own, address, 5, 6, &[3; 1400]),
        icmp_error(source, target, (3, 4), &inside[..]),
        icmp_error(source, target, (11, 0), &inside[..28]),
        udp((source, 9), (target, 9), &[4; 1200]).fragment(0..600),
        udp((source, 9), (target, 9), &[4; 1200]).fragment(600..1208),
        packet::Packet::new(source, target, 47, &[5; 40]),
        udp((source, 9), (target, 9), &[6; 10]).ttl(1),
    ];
    let mut frames: Vec<_> =
        packets.iter().map(|packet| frame(gateway, port, [0x08, 0x00], &packet.octets())).collect();
    frames.push(frame(EthernetAddress::BROADCAST, port, [0x08, 0x06], &arp(1, own, address)));
    frames.push(frame(gateway, port, [0x08, 0x06], &arp(2, own, address)));
    frames.push(frame(gateway, port, [0x81, 0x00], &[0, 1, 8, 0, 0x45, 0, 0, 20]));
    frames.push(frame(gateway, port, [0x86, 0xdd], &[0x60; 80]));
    frames
}

/// A frame from a host that nobody knows.
fn frame(to: EthernetAddress, port: usize, kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let from = [0x02, 0xbb, 0, 0, 0, port as u8];
    [&to.0[..], &from, &kind, payload].concat()
}

fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let [sender, target] = [sender, target].map(|text| packet::address(text).octets());
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &[0x02, 0xbb, 0, 0, 0, 9], &sender, &[0; 6], &target].concat()
}

fn mutate(frame: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.below(5) {
        let at = chance.below(frame.len());
        match chance.below(8) {
            0..=3 => {
                if let Some(octet) = frame.get_mut(at) {
                    *octet ^= 1 << chance.below(8);
                }
            }
            // Behind the Ethernet addresses, so that most are still for the appliance.
            4 => {
                let octet = chance.octet();
                if let Some(spot) = frame.get_mut(12 + at % 64) {
                    *spot = octet;
                }
            }
            5 => frame.truncate(at.max(1)),
            6 => {
                let more = chance.below(2000);
                frame.extend(chance.octets(more));
            }
            _ => {
                // Beyond every MTU, once in a while as large as QEMU takes.
                let most = if chance.happens(5) { 60_000 } else { 400 };
                let more = chance.below(most);
                frame.resize(frame.len() + more, 0xff);
            }
        }
    }
}

#[test]
fn an_uplink_that_stops_reading_stops_nobody_else_and_recovers() {
    const FLOOD: usize = 10_000;
    let _machine = busy();
    for machine in MACHINES {
        let world = inhabited(machine);
        world.assert_forwards();
        let flood = udp(("10.0.1.2", 5000), (SERVER, 9), &[0; 1372]);
        let flood = frame_of(&world.work, macs()[1], &flood.octets());
        thread::scope(|scope| {
            let (end, ended) = mpsc::channel::<()>();
            // While the job sleeps nobody polls: 4096 frames wait with the host, then its socket is full.
            meanwhile(scope, &world.uplink, move |_| ended.recv_timeout(3 * SOON));
            world.work.run(move |stack| (0..FLOOD).for_each(|_| stack.link.send(&flood)));
            let deadline = Instant::now() + SOON;
            let full = loop {
                let stats = stats(&world.vm);
                if stats.port("work").is_some_and(|port| port.rx_frames >= FLOOD as u64) {
                    break stats;
                }
                assert!(Instant::now() < deadline, "the flood was not looked at: {stats:?}");
            };
            assert!(link_figure(&full, "uplink", "tx_full") > 0, "the uplink never was full: {full:?}");
            // For seconds, the rest of the appliance works.
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(3) {
                for (host, gateway) in [(&world.work, [10, 0, 1, 1]), (&world.lab, [10, 0, 2, 1])] {
                    let probe = host.ping(gateway.into(), SOON);
                    assert!(probe.outcome.is_ok(), "{gateway:?}: {:?}", probe.outcome);
                }
                thread::sleep(Duration::from_millis(200));
            }
            end.send(()).expect("the uplink's host waits");
        });
        world.assert_forwards();
        let stats = stats(&world.vm);
        assert_eq!(link_figure(&stats, "uplink", "restarts"), 0, "{stats:?}");
        assert_eq!(late_allocations(&stats), 0);
    }
}

/// A frame from a host to its gateway.
fn frame_of(host: &Host, gateway: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    [&gateway.0[..], &host.identity().mac.0, &[0x08, 0x00], packet].concat()
}

#[test]
fn a_wire_whose_end_is_gone_stops_nobody_else() {
    let _machine = busy();
    for machine in MACHINES {
        let Wired { vm, links } = Wired::boot(machine);
        let [uplink, work, lab]: [Link; PORTS] = links.try_into().unwrap_or_else(|_| panic!("three"));
        let [_, who, _] = identities();
        drop((uplink, lab));
        let work = Host::start(who, work);
        let probe = work.ping(Ipv4Addr::new(10, 0, 1, 1), SOON);
        assert!(probe.outcome.is_ok(), "{:?}", probe.outcome);
        // Towards the uplink nobody answers, and the appliance stays.
        for target in [SERVER, LAB] {
            let outcome = work.ping(target, Duration::from_secs(2)).outcome;
            assert!(outcome.is_err(), "{outcome:?}");
        }
        assert_eq!(late_allocations(&stats(&vm)), 0);
    }
}
