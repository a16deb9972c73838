//! Which external endpoint a client shows: ranges of ports, pools of addresses, one to one, blocks of
//! ports (RFC 4787 REQ-2 and REQ-3, RFC 7422), and what happens when none is left (RFC 5508 REQ-8).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use firewall::Dropped;
use nat::blocks::{Blocks, block};
use tests::flags::{ACK, SYN};
use tests::packet::{Packet, address};
use tests::{World, echo, echo_reply, site, tcp, udp};

const SERVER: &str = "198.51.100.9:53";

/// Three external addresses, and this in place of `masquerade`.
fn world(source: &str, nat: &str) -> World {
    let extra = "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.3\", \"192.0.2.4\"]";
    let plan = site::plan_with(nat).replace("gateway = \"192.0.2.1\"", extra);
    World::new(&plan, &site::RULES.replace("oifname \"uplink\" masquerade", source))
}

/// A UDP flow from a port of a host to the server, and how it looks from outside.
#[track_caller]
fn open(world: &mut World, host: &str, port: u16) -> SocketAddrV4 {
    world.open_udp(&format!("{host}:{port}"), SERVER)
}

#[test]
fn req_3_masquerade_to_ports_takes_these_alone_and_keeps_a_port_that_is_among_them() {
    let mut world = world("oifname \"uplink\" meta l4proto { tcp, udp } masquerade to :20000-20099", "");
    assert_eq!(open(&mut world, "10.0.1.7", 20_050), "192.0.2.2:20050".parse().unwrap());
    let mut ports = BTreeSet::from([20_050]);
    for port in 5000..5099 {
        let external = open(&mut world, "10.0.1.7", port);
        assert!((20_000..20_100).contains(&external.port()) && ports.insert(external.port()));
        let back = world.cross("uplink", "work", udp(SERVER, external, b"back"));
        assert_eq!(back.to(), SocketAddrV4::new(address("10.0.1.7"), port));
    }
    // TCP has ports of its own.
    let seen = world.cross("work", "uplink", tcp("10.0.1.7:5000", SERVER, SYN, b""));
    assert!((20_000..20_100).contains(&seen.from().port()));
}

#[test]
fn req_8_a_range_of_ports_that_is_used_up_is_told_counted_and_serves_again_as_soon_as_one_is_free() {
    let mut world = world("oifname \"uplink\" udp dport 53 masquerade to :20000-20001", "");
    let first = open(&mut world, "10.0.1.7", 5000);
    world.pass_seconds(200);
    let second = open(&mut world, "10.0.1.7", 5001);
    assert_ne!(first, second);
    let third = udp("10.0.1.8:5002", SERVER, b"no room");
    let error = world.answer("work", &third);
    assert_eq!((error.icmp(), error.quote().octets), ((3, 13), third.octets()));
    assert_eq!(world.drops("work", Dropped::PortsExhausted), 1);
    // The first flow ends; its port would rest, if another one were free.
    world.pass_seconds(102);
    assert_eq!(open(&mut world, "10.0.1.8", 5002), first);
    assert_eq!(world.answer("work", udp("10.0.1.9:5003", SERVER, b"no room")).icmp(), (3, 13));
    world.cross("uplink", "work", udp(SERVER, second, b"the second flow lives"));
}

#[test]
fn req_2_a_pool_of_addresses_shows_each_client_as_one_of_them_whatever_it_talks_to() {
    for ports in [None, Some(30_000..=30_999)] {
        let rule = match ports {
            None => "oifname \"uplink\" snat to 192.0.2.3-192.0.2.4",
            Some(_) => "oifname \"uplink\" meta l4proto { tcp, udp } snat to 192.0.2.3-192.0.2.4:30000-30999",
        };
        let mut world = world(rule, "");
        let mut used = BTreeSet::new();
        for host in 2..60 {
            let host = format!("10.0.1.{host}");
            let external = open(&mut world, &host, 5000);
            assert!(ports.as_ref().is_none_or(|ports| ports.contains(&external.port())));
            for port in 5001..5004 {
                let other = world.open_udp(&format!("{host}:{port}"), "203.0.113.5:7");
                assert_eq!(other.ip(), external.ip());
            }
            let segment = tcp(format!("{host}:80").as_str(), SERVER, SYN, b"");
            assert_eq!(world.cross("work", "uplink", segment).source(), *external.ip());
            let back = world.cross("uplink", "work", udp(SERVER, external, b"back"));
            assert_eq!(back.destination(), address(&host));
            used.insert(*external.ip());
        }
        assert_eq!(used, BTreeSet::from([address("192.0.2.3"), address("192.0.2.4")]));
    }
}

/// 10.0.1.4 and 10.0.1.5 are 192.0.2.4 and 192.0.2.5; the others share 192.0.2.2.
fn one_to_one() -> World {
    let extra = "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.4\", \"192.0.2.5\"]";
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", extra);
    let rules = site::RULES
        .replace("oifname \"uplink\" masquerade", "oifname \"uplink\" snat ip prefix to ip saddr map { 10.0.1.4/31 : 192.0.2.4/31 }\n    oifname \"uplink\" masquerade")
        .replace("ip daddr 192.0.2.2 tcp dport 8080", "dnat ip prefix to ip daddr map { 192.0.2.4/31 : 10.0.1.4/31 }\n    ip daddr 192.0.2.2 tcp dport 8080");
    World::new(&plan, &rules)
}

#[test]
fn netmap_shows_each_host_as_its_own_address_with_its_own_ports_both_ways() {
    let mut world = one_to_one();
    for (host, outside) in [("10.0.1.4", "192.0.2.4"), ("10.0.1.5", "192.0.2.5")] {
        for port in [7, 5000, 65_535] {
            assert_eq!(open(&mut world, host, port), SocketAddrV4::new(address(outside), port));
            let back = world.cross("uplink", "work", udp(SERVER, (outside, port), b"back"));
            assert_eq!(back.to(), SocketAddrV4::new(address(host), port));
        }
        // Anybody reaches it at any port, with any protocol.
        let seen = world.cross("uplink", "work", tcp("203.0.113.5:9", (outside, 22), SYN, b""));
        assert_eq!(seen.to(), SocketAddrV4::new(address(host), 22));
        let answer = tcp((host, 22), "203.0.113.5:9", (SYN | ACK, 1, 1001), b"");
        assert_eq!(world.cross("work", "uplink", answer).from(), SocketAddrV4::new(address(outside), 22));
        let seen = world.cross("uplink", "work", echo("203.0.113.5", outside, 7, 1, b"ping"));
        assert_eq!(seen.octets, echo("203.0.113.5", host, 7, 1, b"ping").ttl(63).octets());
        let seen = world.cross("work", "uplink", echo_reply(host, "203.0.113.5", 7, 1, b"ping"));
        assert_eq!(seen.octets, echo_reply(outside, "203.0.113.5", 7, 1, b"ping").ttl(63).octets());
        let seen = world.cross("uplink", "work", Packet::new("203.0.113.5", outside, 47, b"a tunnel"));
        assert_eq!(seen.destination(), address(host));
    }
    assert_eq!(world.occupancy().mappings, 0, "no port is chosen");
    assert_eq!(open(&mut world, "10.0.1.6", 5000), "192.0.2.2:5000".parse().unwrap());
}

#[test]
fn req_7_an_echo_request_to_a_hosts_own_address_is_hairpinned() {
    let mut world = one_to_one();
    let seen = world.cross("lab", "work", echo("10.0.2.9", "192.0.2.4", 7, 1, b"ping"));
    assert_eq!(seen.destination(), address("10.0.1.4"));
}

/// Five hosts behind two clients, with 100 ports each.
fn blocks() -> World {
    let plan = site::plan_with("[nat]\nport_blocks = 100")
        .replace("10.0.1.1/24\"", "10.0.1.1/24\"\nhosts = [\"10.0.1.7\", \"10.0.1.8\", \"10.0.1.9\"]")
        .replace("10.0.2.1/24\"", "10.0.2.1/24\"\nhosts = [\"10.0.2.7\", \"10.0.2.8\"]");
    World::new(&plan, site::RULES)
}

#[test]
fn rfc_7422_each_host_has_the_ports_of_its_block_and_no_others() {
    let mut world = blocks();
    let external = [address("192.0.2.2")];
    let rule = Blocks { external: &external, ports: (1024, 65_535), size: 100 };
    let hosts = ["10.0.1.7", "10.0.1.8", "10.0.1.9", "10.0.2.7", "10.0.2.8"];
    for (number, host) in hosts.into_iter().enumerate() {
        let (_, ports) = block(&rule, number as u32).unwrap();
        let mut used = BTreeSet::new();
        for port in [1, 80, 5000].into_iter().chain(6001..6098) {
            let external = open(&mut world, host, port);
            assert!(ports.contains(&external.port()), "{host}:{port} is {external}");
            assert!(used.insert(external.port()));
            assert_eq!(world.open_udp(&format!("{host}:{port}"), "203.0.113.5:7"), external);
        }
        let port = world.behind(address(host));
        // A query's identifier is of the block, too.
        let seen = world.cross(port, "uplink", echo(host, "198.51.100.9", 7, 1, b"ping"));
        assert!(ports.contains(&seen.id()));
        let error = world.answer(port, udp((host, 9000), SERVER, b"no room"));
        assert_eq!(error.icmp(), (3, 13));
        assert!(world.drops(port, Dropped::PortsExhausted) > 0);
    }
}

#[test]
fn rfc_7422_and_req_9_hairpinned_packets_show_ports_of_the_block_too() {
    let mut world = blocks();
    let receiver = open(&mut world, "10.0.1.8", 5000);
    let seen = world.cross("work", "work", udp("10.0.1.7:5000", receiver, b"hairpin"));
    assert_eq!(seen.to(), "10.0.1.8:5000".parse().unwrap());
    assert!((1024..1124).contains(&seen.from().port()), "{}", seen.from());
}

#[test]
fn req_1_and_req_9_a_hairpinned_flow_looks_as_it_does_from_outside_whichever_comes_first() {
    for rule in [
        "oifname \"uplink\" meta l4proto { tcp, udp } masquerade to :20000-20063",
        "oifname \"uplink\" snat to 192.0.2.3-192.0.2.4",
        "oifname \"uplink\" masquerade",
    ] {
        // No rule says what hairpinned packets show.
        let explicit =
            "iifname { \"work\", \"lab\" } oifname { \"work\", \"lab\" } ct status dnat snat to 192.0.2.2";
        let rules = site::RULES.replace("oifname \"uplink\" masquerade", rule).replace(explicit, "");
        let extra = "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.3\", \"192.0.2.4\"]";
        let mut world = World::new(&site::PLAN.replace("gateway = \"192.0.2.1\"", extra), &rules);
        let receiver = open(&mut world, "10.0.2.9", 6000);
        let inside = world.cross("work", "lab", udp("10.0.1.7:5000", receiver, b"hairpin"));
        assert_eq!(inside.from(), open(&mut world, "10.0.1.7", 5000), "{rule}");
        let back = world.cross("lab", "work", udp("10.0.2.9:6000", inside.from(), b"back"));
        assert_eq!((back.from(), back.to()), (receiver, "10.0.1.7:5000".parse().unwrap()));
    }
}

thread_local! {
    /// What this test's appliance logged.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

#[test]
fn req_8_exhaustion_is_logged_with_the_clients_name_and_the_hosts_address_but_seldom() {
    log::set_logger(&Lines).expect("no other test logs");
    log::set_max_level(log::LevelFilter::Warn);
    let mut world = world("oifname \"uplink\" udp dport 53 masquerade to :20000", "");
    open(&mut world, "10.0.1.7", 5000);
    for port in 5000..6000 {
        world.send("lab", udp(("10.0.2.9", port), SERVER, b"no room"));
    }
    let lines = LINES.take();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let line = "no room for a session: reason=ports_exhausted client=lab source=10.0.2.9";
    assert!(lines.iter().all(|logged| logged == line), "{lines:?}");
    world.pass_seconds(10);
    world.send("lab", udp("10.0.2.9:7000", SERVER, b"no room"));
    assert_eq!(LINES.take().len(), 1);
    assert_eq!(world.drops("lab", Dropped::PortsExhausted), 1001);
}

#[test]
fn rfc_7422_no_block_is_of_an_address_that_is_one_hosts_alone() {
    let extra = "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.4\"]";
    let plan = site::plan_with("[nat]\nport_blocks = 30000")
        .replace("gateway = \"192.0.2.1\"", extra)
        .replace("10.0.1.1/24\"", "10.0.1.1/24\"\nhosts = [\"10.0.1.7\", \"10.0.1.4\"]")
        .replace("10.0.2.1/24\"", "10.0.2.1/24\"\nhosts = [\"10.0.2.7\"]");
    let told = rules_compiler::compile_text(&plan, site::RULES).map(|_| ());
    assert!(told.is_ok(), "three hosts, four blocks at two addresses");
    let alone = site::RULES
        .replace(
            "oifname \"uplink\" masquerade",
            "oifname \"uplink\" ip saddr 10.0.1.4 snat to 192.0.2.4\n    oifname \"uplink\" masquerade",
        )
        .replace(
            "ip daddr 192.0.2.2 tcp dport 8080",
            "ip daddr 192.0.2.4 dnat to 10.0.1.4\n    ip daddr 192.0.2.2 tcp dport 8080",
        );
    assert!(rules_compiler::compile_text(&plan, &alone).is_err(), "three hosts, two blocks");
    let mut world = World::new(&plan.replace("30000", "20000"), &alone);
    for host in ["10.0.1.7", "10.0.2.7"] {
        assert_eq!(*open(&mut world, host, 5000).ip(), address("192.0.2.2"));
    }
    assert_eq!(open(&mut world, "10.0.1.4", 5000), "192.0.2.4:5000".parse().unwrap());
}

#[test]
fn rfc_6056_random_ports_are_not_the_clients_own_but_stay_the_same_for_every_peer() {
    let mut world = world("oifname \"uplink\" masquerade random", "");
    let mut kept = 0;
    for port in 5000..5050 {
        let external = open(&mut world, "10.0.1.7", port);
        assert_eq!(world.open_udp(&format!("10.0.1.7:{port}"), "203.0.113.5:7"), external);
        kept += usize::from(external.port() == port);
    }
    assert!(kept < 5, "{kept} of 50 kept");
}
