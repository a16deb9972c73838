//! ARP: RFC 826, RFC 1122 2.3.2, RFC 5227.

use std::net::Ipv4Addr;

use firewall::Dropped;
use smoltcp::time::Duration;
use smoltcp::wire::{ArpOperation, EthernetAddress};
use tests::packet::address;
use tests::world::{arp, arp_octets, frame, port_station, station};
use tests::{World, echo, udp};

const NOBODY: EthernetAddress = EthernetAddress([0; 6]);
const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";

fn host(text: &str) -> (EthernetAddress, Ipv4Addr) {
    (station(address(text)), address(text))
}

/// Somebody on a port asks who has an address; whether the appliance says that it does.
fn ask(world: &mut World, port: &str, sender: (EthernetAddress, Ipv4Addr), target: &str) -> bool {
    world.forget();
    world.send_arp(port, &arp(ArpOperation::Request, sender, (NOBODY, address(target))));
    let own = port_station(world.port(port));
    let answers = world.arps(port);
    for answer in &answers {
        assert_eq!(answer.station, sender.0, "an answer goes to who asked");
        assert_eq!((answer.operation, answer.sender), (ArpOperation::Reply, (own, address(target))));
        assert_eq!(answer.target, sender);
    }
    assert!(answers.len() <= 1);
    !answers.is_empty()
}

#[test]
fn rfc_826_requests_for_own_addresses_are_answered_on_their_port() {
    let mut world = World::default();
    assert!(ask(&mut world, "work", host("10.0.1.7"), "10.0.1.1"));
    assert!(ask(&mut world, "lab", host("10.0.2.9"), "10.0.2.1"));
    assert!(ask(&mut world, "uplink", host("192.0.2.1"), "192.0.2.2"));
    assert_eq!(world.answered("work"), 1);
}

#[test]
fn extra_external_addresses_are_answered_for_on_the_uplink() {
    let plan = tests::site::PLAN
        .replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.3\"]");
    let mut world = World::new(&plan, tests::site::RULES);
    assert!(ask(&mut world, "uplink", host("192.0.2.1"), "192.0.2.3"));
    assert!(!ask(&mut world, "work", host("10.0.1.7"), "192.0.2.3"));
}

#[test]
fn there_is_no_proxy_for_others() {
    let mut world = World::default();
    for target in ["10.0.1.8", "10.0.2.1", "192.0.2.2", "192.0.2.1", "198.51.100.9", "10.0.1.255", "0.0.0.0"]
    {
        assert!(!ask(&mut world, "work", host("10.0.1.7"), target), "{target}");
    }
    for target in ["10.0.1.1", "10.0.2.1", "10.0.1.7", "192.0.2.1", "192.0.2.3"] {
        assert!(!ask(&mut world, "uplink", host("192.0.2.1"), target), "{target}");
    }
}

#[test]
fn rfc_5227_probes_are_answered() {
    let mut world = World::default();
    let probe = (station(address("10.0.1.9")), Ipv4Addr::UNSPECIFIED);
    assert!(ask(&mut world, "work", probe, "10.0.1.1"));
    assert!(!ask(&mut world, "work", probe, "10.0.1.9"));
    assert_eq!(world.occupancy().neighbors, 0, "a probe claims nothing");
}

#[test]
fn rfc_5227_a_link_that_comes_up_is_told_our_addresses() {
    let mut world = World::default();
    for (port, own) in [("uplink", "192.0.2.2"), ("work", "10.0.1.1"), ("lab", "10.0.2.1")] {
        let said = world.arps(port);
        assert_eq!(said.len(), 1, "{port}");
        assert_eq!((said[0].sender.1, said[0].target.1), (address(own), address(own)));
        assert!(said[0].station.is_broadcast());
    }
    world.pass_in_steps(5, 1);
    assert!(world.arps("uplink").is_empty(), "once is enough");
    world.wire("uplink").set(|settings| settings.up = false);
    world.pass_in_steps(2, 1);
    world.wire("uplink").set(|settings| settings.up = true);
    world.pass_in_steps(2, 1);
    assert_eq!(world.arps("uplink").len(), 1);
}

#[test]
fn rfc_5227_2_4_a_claim_to_our_address_is_answered_with_ours_once_in_ten_seconds() {
    let mut world = World::default();
    let thief = EthernetAddress([2, 0, 0, 0, 6, 6]);
    // How often our address is announced after claims of both kinds to one.
    let announced = |world: &mut World, port: &str, claimed: &str, own: &str| {
        world.forget();
        for (operation, target) in [(ArpOperation::Request, claimed), (ArpOperation::Reply, own)] {
            world.send_arp(port, &arp(operation, (thief, address(claimed)), (NOBODY, address(target))));
        }
        let said = world.arps(port);
        let is_ours = |it: &tests::world::SeenArp| {
            it.station.is_broadcast() && (it.sender.1, it.target.1) == (address(own), address(own))
        };
        assert!(said.iter().all(is_ours), "{said:?}");
        said.len()
    };
    for (port, own) in [("work", "10.0.1.1"), ("uplink", "192.0.2.2")] {
        assert_eq!(announced(&mut world, port, own, own), 1, "{port}");
        let mut later = 0;
        for _ in 0..100 {
            world.pass(Duration::from_millis(200));
            later += announced(&mut world, port, own, own);
        }
        assert_eq!(later, 2, "{port}: in twenty seconds");
    }
    // Addresses of other ports, and of others, are not this link's to defend.
    world.pass_seconds(20);
    for elsewhere in ["10.0.2.1", "192.0.2.2", "10.0.1.9"] {
        assert_eq!(announced(&mut world, "work", elsewhere, "10.0.1.1"), 0, "{elsewhere}");
    }
}

#[test]
fn frames_wait_for_the_answer_and_leave_in_order() {
    let mut world = World::default();
    world.answering = false;
    world.forget();
    for data in [b"1", b"2", b"3"] {
        world.send("work", udp(CLIENT, SERVER, data));
    }
    world.quiet();
    let asked = world.arps("uplink");
    assert_eq!(asked.len(), 1, "one request for all");
    assert_eq!((asked[0].sender.1, asked[0].target.1), (address("192.0.2.2"), address("192.0.2.1")));
    assert_eq!(world.held("work"), 3);
    let own = (port_station(0), address("192.0.2.2"));
    world.send_arp("uplink", &arp(ArpOperation::Reply, host("192.0.2.1"), own));
    let data: Vec<Vec<u8>> = world.sent("uplink").iter().map(|seen| seen.data().to_vec()).collect();
    assert_eq!(data, [b"1", b"2", b"3"]);
    assert_eq!((world.held("work"), world.forwarded("work")), (0, 3));
}

#[test]
fn rfc_1122_2_3_2_1_one_request_a_second_for_an_address_whatever_the_load() {
    let mut world = World::default();
    world.silent.insert(address("192.0.2.51"));
    world.forget();
    for n in 0..50 {
        world.send("work", udp(CLIENT, "192.0.2.51:53", &[n]));
    }
    assert_eq!(world.arps("uplink").len(), 1);
    assert_eq!(world.drops("work", Dropped::NeighborQueue), 46);
    assert_eq!(world.held("work"), 4);
    world.pass_seconds(1);
    world.send("work", udp(CLIENT, "192.0.2.51:53", b"x"));
    assert_eq!(world.arps("uplink").len(), 1);
    world.pass_in_steps(5, 1);
    assert!(world.arps("uplink").len() <= 3);
    assert_eq!(world.held("work"), 0);
    assert_eq!(world.drops("work", Dropped::Unresolved), 4);
    // Who is asked for again is asked for again.
    world.send("work", udp(CLIENT, "192.0.2.51:53", b"x"));
    assert_eq!(world.arps("uplink").len(), 1);
}

#[test]
fn a_neighbor_that_is_slow_to_answer_is_asked_again_and_served() {
    let mut world = World::default();
    world.silent.insert(address("192.0.2.51"));
    world.send("work", udp(CLIENT, "192.0.2.51:53", b"patience"));
    world.pass_seconds(1);
    world.silent.clear();
    world.pass_seconds(1);
    assert_eq!(world.only("uplink").data(), b"patience");
}

#[test]
fn a_gateways_new_station_is_followed() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    let new = EthernetAddress([2, 0, 0, 0, 0, 0x99]);
    world.moved.insert(address("192.0.2.1"), new);
    let announcement =
        arp(ArpOperation::Request, (new, address("192.0.2.1")), (NOBODY, address("192.0.2.1")));
    world.send_arp("uplink", &announcement);
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    assert_eq!(seen.station(), new);
}

#[test]
fn a_gateway_whose_station_changes_a_thousand_times_a_second_is_followed_each_time() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let gateway = address("192.0.2.1");
    world.forget();
    for turn in 0..500u32 {
        let station = EthernetAddress([2, 0, 0, 0, 8, (turn % 2) as u8]);
        world.moved.insert(gateway, station);
        world.send_arp("uplink", &arp(ArpOperation::Request, (station, gateway), (NOBODY, gateway)));
        world.pass(Duration::from_millis(1));
        assert_eq!(world.cross("work", "uplink", udp(CLIENT, SERVER, b"out")).station(), station);
        world.cross("uplink", "work", udp(SERVER, external, b"in"));
    }
    assert!(world.arps("uplink").is_empty(), "nobody has to be asked");
}

#[test]
fn a_gateway_that_moves_without_a_word_is_found_within_a_second() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    let new = EthernetAddress([2, 0, 0, 0, 0, 0x99]);
    world.moved.insert(address("192.0.2.1"), new);
    world.forget();
    for _ in 0..10 {
        world.pass(Duration::from_millis(100));
        world.send("work", udp(CLIENT, SERVER, b"x"));
    }
    world.forget();
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    assert_eq!(seen.station(), new);
}

#[test]
fn a_gateway_that_is_heard_of_is_asked_once_a_minute_and_one_that_is_not_is_polled() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.forget();
    let gateway = world.station(address("192.0.2.1"));
    let asked = |world: &mut World, answers: bool, steps: u64| {
        for _ in 0..steps {
            world.pass(Duration::from_millis(100));
            world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
            if answers {
                world.cross("uplink", "work", udp(SERVER, external, b"y"));
            }
        }
        let asked = world.arps("uplink");
        assert!(asked.iter().all(|arp| arp.station == gateway), "{asked:?}");
        asked.len()
    };
    assert!((1..=2).contains(&asked(&mut world, true, 900)));
    let polls = asked(&mut world, false, 100);
    assert!((10..=34).contains(&polls), "{polls} polls in ten seconds");
}

#[test]
fn a_neighbor_that_falls_silent_is_given_up_and_served_within_a_second_of_its_return() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    world.silent.insert(address("192.0.2.1"));
    let mut told = 0;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        world.send("work", udp(CLIENT, SERVER, b"x"));
        told += world.sent("work").iter().filter(|seen| seen.icmp() == (3, 1)).count();
    }
    assert!(told > 0, "the sender is told that the gateway is gone");
    world.silent.clear();
    world.forget();
    for _ in 0..11 {
        world.pass(Duration::from_millis(100));
        world.send("work", udp(CLIENT, SERVER, b"y"));
    }
    assert!(!world.sent("uplink").is_empty());
}

#[test]
fn a_link_that_comes_back_has_its_neighbors_asked_again() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"x"));
    let new = EthernetAddress([2, 0, 0, 0, 0, 0x99]);
    world.moved.insert(address("10.0.1.7"), new);
    for up in [false, true] {
        world.wire("work").set(|settings| settings.up = up);
        world.datapath.look_at_links();
        world.pass(Duration::from_millis(20));
        world.pass(Duration::from_millis(20));
    }
    let seen = world.cross("uplink", "work", udp(SERVER, external, b"x"));
    assert_eq!(seen.station(), new);
}

/// Sends a claim to the appliance, as request and as reply.
fn claim(world: &mut World, port: &str, sender: (EthernetAddress, Ipv4Addr)) {
    let index = world.port(port);
    let own = if index == 0 { "192.0.2.2".to_string() } else { format!("10.0.{index}.1") };
    let target = (port_station(index), address(&own));
    world.send_arp(port, &arp(ArpOperation::Request, sender, (NOBODY, target.1)));
    world.send_arp(port, &arp(ArpOperation::Reply, sender, target));
    world.forget();
}

#[test]
fn claims_of_strangers_to_the_subnet_are_not_learnt() {
    let mut world = World::default();
    let evil = EthernetAddress([2, 0, 0, 0, 6, 6]);
    for sender in ["10.0.2.9", "192.0.2.1", "8.8.8.8", "10.0.1.0", "10.0.1.255", "224.0.0.1", "127.0.0.1"] {
        claim(&mut world, "work", (evil, address(sender)));
        assert_eq!(world.occupancy().neighbors, 0, "{sender}");
    }
}

#[test]
fn claims_to_own_and_the_gateways_address_from_a_client_are_not_learnt() {
    let plan = tests::site::PLAN.replace("10.0.1.1/24", "10.0.1.1/24\"\nhosts = [\"10.0.1.7\"]\n#\"");
    for plan in [tests::site::PLAN, &plan] {
        let mut world = World::new(plan, tests::site::RULES);
        let evil = EthernetAddress([2, 0, 0, 0, 6, 6]);
        for sender in ["10.0.1.1", "192.0.2.1", "192.0.2.2", "10.0.2.1"] {
            claim(&mut world, "work", (evil, address(sender)));
        }
        assert_eq!(world.occupancy().neighbors, 0);
        let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
        assert_eq!(seen.station(), station(address("192.0.2.1")));
    }
}

#[test]
fn group_stations_are_not_learnt() {
    let mut world = World::default();
    for group in [[1, 0, 0x5e, 0, 0, 7], [0xff; 6]] {
        let sender = (EthernetAddress(group), address("10.0.1.7"));
        // The frame itself comes from an honest station.
        let octets = arp_octets(&arp(ArpOperation::Request, sender, (NOBODY, address("10.0.1.1"))));
        let frame = frame(EthernetAddress::BROADCAST, station(address("10.0.1.7")), 0x0806, &octets);
        world.refuse_frame("work", &frame, Dropped::Arp);
    }
    assert_eq!(world.occupancy().neighbors, 0);
}

#[test]
fn no_station_and_our_own_are_not_learnt_nor_answered() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"in"));
    world.forget();
    for claimed in [NOBODY, port_station(1)] {
        for operation in [ArpOperation::Request, ArpOperation::Reply] {
            for sender in ["10.0.1.7", "10.0.1.1", "0.0.0.0"] {
                let claim = arp(operation, (claimed, address(sender)), (NOBODY, address("10.0.1.1")));
                // The frame itself comes from an honest station.
                let frame = frame(port_station(1), station(address("10.0.1.7")), 0x0806, &arp_octets(&claim));
                world.refuse_frame("work", &frame, Dropped::Arp);
            }
        }
    }
    assert!(world.arps("work").is_empty());
    let seen = world.cross("uplink", "work", udp(SERVER, external, b"in"));
    assert_eq!(seen.station(), station(address("10.0.1.7")));
}

#[test]
fn chatter_between_others_fills_no_table() {
    let mut world = World::default();
    for n in 2..250 {
        let sender = host(&format!("10.0.1.{n}"));
        world.send_arp("work", &arp(ArpOperation::Request, sender, (NOBODY, address("10.0.1.251"))));
    }
    assert_eq!(world.occupancy().neighbors, 0);
    assert_eq!(world.drops("work", Dropped::Arp), 248);
}

#[test]
fn malformed_arp_is_ignored() {
    let mut world = World::default();
    let request = arp(ArpOperation::Request, host("10.0.1.7"), (NOBODY, address("10.0.1.1")));
    let octets = arp_octets(&request);
    let send = |world: &mut World, octets: &[u8]| {
        let frame = frame(EthernetAddress::BROADCAST, station(address("10.0.1.7")), 0x0806, octets);
        world.forget();
        world.refuse_frame("work", &frame, Dropped::Arp);
        assert!(world.arps("work").is_empty());
    };
    for length in 0..octets.len() {
        send(&mut world, &octets[..length]);
    }
    // Hardware type, protocol type, their lengths, the operation.
    for (at, value) in [(1, 6), (3, 6), (4, 8), (5, 16), (7, 0), (7, 3), (7, 8)] {
        let mut octets = octets.clone();
        octets[at] = value;
        send(&mut world, &octets);
    }
    assert_eq!(world.occupancy().neighbors, 0);
}

#[test]
fn arp_for_another_station_is_not_heard() {
    let mut world = World::default();
    let request = arp_octets(&arp(ArpOperation::Request, host("10.0.1.7"), (NOBODY, address("10.0.1.1"))));
    let other = EthernetAddress([2, 0xaa, 0, 0, 0, 1]);
    let frame = frame(other, station(address("10.0.1.7")), 0x0806, &request);
    world.refuse_frame("work", &frame, Dropped::OtherStation);
    assert_eq!(world.occupancy().neighbors, 0);
}

#[test]
fn neighbors_that_nobody_uses_are_forgotten() {
    let mut world = World::default();
    for n in 2..100 {
        world.open_udp(&format!("10.0.1.{n}:5000"), SERVER);
        let external = world.open_udp(&format!("10.0.1.{n}:5000"), SERVER);
        world.cross("uplink", "work", udp(SERVER, external, b"x"));
    }
    assert_eq!(world.occupancy().neighbors, 99);
    world.pass_in_steps(900, 1);
    assert_eq!(world.occupancy().neighbors, 0);
}

#[test]
fn ingress_nobody_has_station_zero() {
    let mut world = World::default();
    let echo = echo("10.0.1.7", "10.0.1.1", 1, 1, b"x").octets();
    let frame = frame(port_station(1), EthernetAddress([0; 6]), 0x0800, &echo);
    world.refuse_frame("work", &frame, Dropped::BadStation);
}
