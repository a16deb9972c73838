//! RFC 4787: how a NAT treats unicast UDP. Each test is named after the requirement it proves.

use std::collections::BTreeSet;

use firewall::Dropped;
use tests::packet::address;
use tests::world::station;
use tests::{World, icmp_error, site, udp};

const SERVER: &str = "198.51.100.9:53";

#[test]
fn req_1_one_internal_endpoint_keeps_one_external_endpoint_to_every_destination() {
    let mut world = World::default();
    let first = world.open_udp("10.0.1.7:5000", SERVER);
    assert_eq!(first, "192.0.2.2:5000".parse().unwrap());
    for to in ["198.51.100.9:54", "198.51.100.10:53", "203.0.113.1:1", "203.0.113.1:65535", "192.0.2.77:9"] {
        assert_eq!(world.open_udp("10.0.1.7:5000", to), first, "towards {to}");
    }
    assert_eq!(world.occupancy().mappings, 1);
    assert_eq!(world.occupancy().sessions, 6);
}

#[test]
fn req_1_a_mapping_stays_endpoint_independent_after_a_collision() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    let second = world.open_udp("10.0.1.8:5000", SERVER);
    for to in ["198.51.100.9:54", "203.0.113.1:53"] {
        assert_eq!(world.open_udp("10.0.1.8:5000", to), second);
    }
}

#[test]
fn req_1_the_first_packets_of_a_flow_in_one_burst_make_one_mapping() {
    let mut world = World::default();
    world.open_udp("10.0.1.6:1", SERVER);
    world.open_udp("10.0.1.6:5000", SERVER);
    for n in 0..20u16 {
        world.queue("work", udp("10.0.1.7:5000", ("198.51.100.9", 53 + n % 5), b"burst"));
    }
    world.settle();
    let seen = world.sent("uplink");
    assert_eq!(seen.len(), 20);
    let from: BTreeSet<_> = seen.iter().map(|seen| seen.from()).collect();
    assert_eq!(from.len(), 1, "{from:?}");
    assert_eq!(world.occupancy().mappings, 3);
}

#[test]
fn req_2_a_client_keeps_to_one_external_address_of_several() {
    let plan = site::PLAN.replace(
        "[[client]]\nname = \"work\"",
        "extra = [\"192.0.2.3\", \"192.0.2.4\"]\n[[client]]\nname = \"work\"",
    );
    let mut world = World::new(&plan, site::RULES);
    for port in 3000..3050u16 {
        let seen = world.cross("work", "uplink", udp(("10.0.1.7", port), SERVER, b"x"));
        assert_eq!(seen.source(), address("192.0.2.2"));
    }
}

#[test]
fn req_3_no_port_is_overloaded_even_towards_different_peers() {
    let mut world = World::default();
    let mut ports = BTreeSet::new();
    for host in 2..=200 {
        let from = format!("10.0.1.{host}:6000");
        let external = world.open_udp(&from, &format!("198.51.100.{host}:53"));
        assert!(ports.insert(external.port()), "{external} is used twice");
        assert!(external.port() >= 1024 && external.port() % 2 == 0);
    }
    // Each answer finds its own host.
    for host in 2..=200 {
        let from = format!("10.0.1.{host}:6000");
        let external = world.open_udp(&from, &format!("198.51.100.{host}:53"));
        let reply = udp(format!("198.51.100.{host}:53").as_str(), external, b"y");
        assert_eq!(world.cross("uplink", "work", reply).to(), from.parse().unwrap());
    }
}

#[test]
fn req_3a_ports_below_1024_map_below_1024_and_others_at_or_above() {
    let mut world = World::default();
    for port in [1, 53, 123, 600, 1023] {
        for host in 2..12 {
            let external = world.open_udp(&format!("10.0.1.{host}:{port}"), SERVER);
            assert!((1..1024).contains(&external.port()), "{port} -> {external}");
        }
    }
    for port in [1024, 1025, 5060, 65535] {
        for host in 2..12 {
            let external = world.open_udp(&format!("10.0.1.{host}:{port}"), SERVER);
            assert!(external.port() >= 1024, "{port} -> {external}");
        }
    }
}

#[test]
fn req_3_the_port_of_a_static_forward_is_reserved() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:8080", SERVER);
    assert_ne!(external.port(), 8080);
    assert_eq!(external.port() % 2, 0, "parity is kept all the same");
    // The forwarded server itself has no better claim.
    assert_ne!(world.open_udp("10.0.1.2:8080", SERVER).port(), 8080);
}

#[test]
fn req_3_the_dynamic_pool_is_what_the_site_says() {
    let plan = site::plan_with("[nat]\nexternal_ports = \"40000-40009\"");
    let mut world = World::new(&plan, site::RULES);
    let mut ports = BTreeSet::new();
    // Of ten ports each of two clients has a quarter for sure.
    let clients = (2..10).map(|host| format!("10.0.1.{host}:5000"));
    for client in clients.chain(["10.0.2.9:5000".to_owned(), "10.0.2.10:5000".to_owned()]) {
        let external = world.open_udp(&client, SERVER);
        assert!((40000..=40009).contains(&external.port()), "{external}");
        assert!(ports.insert(external.port()));
    }
    world.send("lab", udp("10.0.2.20:5000", SERVER, b"one too many"));
    assert_eq!(world.only("lab").icmp(), (3, 13));
}

#[test]
fn req_4_a_free_port_is_preserved() {
    let mut world = World::default();
    for port in [1024, 1025, 2000, 33333, 65534, 65535, 1, 1023] {
        assert_eq!(world.open_udp(&format!("10.0.1.7:{port}"), SERVER).port(), port);
    }
}

#[test]
fn req_4_parity_is_kept_on_a_collision() {
    let mut world = World::default();
    for port in 31000..31040 {
        assert_eq!(world.open_udp(&format!("10.0.1.7:{port}"), SERVER).port(), port);
        let second = world.open_udp(&format!("10.0.1.8:{port}"), SERVER).port();
        assert_ne!(second, port);
        assert_eq!(second % 2, port % 2, "{port} -> {second}");
    }
}

#[test]
fn rfc_6056_colliding_ports_are_not_guessed_from_each_other() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    let ports: Vec<u16> =
        (8..24).map(|host| world.open_udp(&format!("10.0.1.{host}:5000"), SERVER).port()).collect();
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 64).count();
    assert!(near <= 2, "{ports:?}");
}

#[test]
fn req_5_a_udp_mapping_lives_300_seconds_and_then_ends() {
    for (age, alive) in [(120, true), (299, true), (300, true), (302, false), (3600, false)] {
        let mut world = World::default();
        let external = world.open_udp("10.0.1.7:5000", SERVER);
        world.pass_seconds(age);
        world.send("uplink", udp(SERVER, external, b"late"));
        assert_eq!(world.sent("work").len(), usize::from(alive), "after {age} s");
        assert_eq!(world.occupancy().mappings, u32::from(alive), "after {age} s");
    }
}

#[test]
fn req_5_the_idle_time_is_what_the_site_says() {
    let plan = site::plan_with("[nat.timeout]\nudp = 120");
    for (age, alive) in [(119, true), (122, false)] {
        let mut world = World::new(&plan, site::RULES);
        let external = world.open_udp("10.0.1.7:5000", SERVER);
        world.pass_seconds(age);
        world.send("uplink", udp(SERVER, external, b"late"));
        assert_eq!(world.sent("work").len(), usize::from(alive), "after {age} s");
    }
}

#[test]
fn req_6_outbound_packets_refresh_a_mapping_and_its_port_stays() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    for _ in 0..8 {
        world.pass_seconds(280);
        assert_eq!(world.open_udp("10.0.1.7:5000", SERVER), external);
        world.cross("uplink", "work", udp(SERVER, external, b"in"));
    }
}

#[test]
fn req_6_inbound_packets_do_not_refresh_a_mapping() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    world.cross("uplink", "work", udp(SERVER, external, b"reply"));
    for _ in 0..2 {
        world.pass_seconds(149);
        world.cross("uplink", "work", udp(SERVER, external, b"in"));
    }
    world.pass_seconds(10);
    world.refuse("uplink", udp(SERVER, external, b"in"), Dropped::Policy);
    assert_eq!(world.occupancy().mappings, 0);
}

#[test]
fn req_6_inbound_packets_refresh_a_mapping_where_the_site_says_so() {
    let plan = site::plan_with("[nat]\ninbound_refresh = true");
    let mut world = World::new(&plan, site::RULES);
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    for _ in 0..6 {
        world.pass_seconds(290);
        world.cross("uplink", "work", udp(SERVER, external, b"in"));
    }
    assert_eq!(world.occupancy().mappings, 1);
}

#[test]
fn req_6_each_flow_of_a_mapping_has_its_own_idle_time() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    world.pass_seconds(200);
    world.open_udp("10.0.1.7:5000", "198.51.100.10:53");
    world.pass_seconds(150);
    // The first flow ended; the mapping lives on with the second.
    world.refuse("uplink", udp(SERVER, external, b"late"), Dropped::Policy);
    world.cross("uplink", "work", udp("198.51.100.10:53", external, b"in time"));
    assert_eq!(world.open_udp("10.0.1.7:5000", SERVER), external);
}

#[test]
fn req_7_an_uplink_whose_subnet_is_a_clients_too_is_refused_at_build() {
    for address in ["10.0.1.9/24", "10.0.1.9/16", "10.0.1.200/30"] {
        let gateway = if address.ends_with("30") { "10.0.1.201" } else { "10.0.1.10" };
        let plan = site::PLAN.replace("192.0.2.2/24", address).replace("192.0.2.1", gateway);
        let rules = site::RULES.replace("192.0.2.2", address.split('/').next().unwrap());
        let Err(refused) = rules_compiler::compile_text(&plan, &rules) else {
            panic!("{address} overlaps 10.0.1.0/24, and nobody says so");
        };
        assert!(refused.render(false).contains("the uplink"), "{}", refused.render(false));
    }
}

#[test]
fn req_1_a_mapping_is_endpoint_independent_at_each_external_address_that_a_rule_chose() {
    let plan =
        site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.3\"]");
    let chosen = "ip daddr 203.0.113.0/24 snat to 192.0.2.3\n    oifname \"uplink\" masquerade";
    let rules = site::RULES.replace("oifname \"uplink\" masquerade", chosen);
    let mut world = World::new(&plan, &rules);
    // Collisions at both, so that preservation hides no fault.
    for to in ["198.51.100.9:53", "203.0.113.9:53"] {
        world.open_udp("10.0.1.6:5000", to);
    }
    let first = world.open_udp("10.0.1.7:5000", "198.51.100.9:53");
    let second = world.open_udp("10.0.1.7:5000", "203.0.113.9:53");
    assert_eq!((first.ip().to_string(), second.ip().to_string()), ("192.0.2.2".into(), "192.0.2.3".into()));
    assert_eq!(world.open_udp("10.0.1.7:5000", "198.51.100.10:99"), first);
    assert_eq!(world.open_udp("10.0.1.7:5000", "203.0.113.10:99"), second);
    assert_eq!(world.occupancy().mappings, 4);
}

#[test]
fn req_8_filtering_is_address_and_port_dependent() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    for stranger in ["198.51.100.9:54", "198.51.100.10:53", "192.0.2.1:53"] {
        world.refuse("uplink", udp(stranger, external, b"unasked"), Dropped::Policy);
    }
    world.refuse("uplink", udp(SERVER, "192.0.2.2:5001", b"unasked"), Dropped::Policy);
    world.cross("uplink", "work", udp(SERVER, external, b"asked for"));
    // What was refused opened nothing.
    assert_eq!(world.occupancy().sessions, 1);
}

#[test]
fn req_8_unsolicited_datagrams_meet_silence_whatever_the_input_chain_says() {
    let rules = site::RULES.replace("icmp type echo-request accept", "accept");
    let mut world = World::new(site::PLAN, &rules);
    for port in [1, 53, 9999, 65535] {
        world.refuse("uplink", udp(SERVER, ("192.0.2.2", port), b"x"), Dropped::Unsolicited);
    }
}

#[test]
fn req_9_hairpin_through_a_static_forward_shows_the_external_endpoint() {
    let mut world = World::default();
    let seen = world.cross("work", "work", udp("10.0.1.3:5000", "192.0.2.2:8080", b"hello"));
    assert_eq!(seen.from(), "192.0.2.2:5000".parse().unwrap());
    assert_eq!(seen.to(), "10.0.1.2:80".parse().unwrap());
    assert_eq!(seen.station(), station(address("10.0.1.2")));
    let seen = world.cross("work", "work", udp("10.0.1.2:80", "192.0.2.2:5000", b"welcome"));
    assert_eq!(seen.from(), "192.0.2.2:8080".parse().unwrap());
    assert_eq!(seen.to(), "10.0.1.3:5000".parse().unwrap());
}

#[test]
fn req_9_the_other_client_hairpins_too_and_keeps_its_mapping() {
    let mut world = World::default();
    world.open_udp("10.0.1.7:5000", SERVER);
    let outside = world.open_udp("10.0.2.9:5000", SERVER);
    assert_ne!(outside.port(), 5000, "a collision, so that preservation does not hide a fault");
    let seen = world.cross("lab", "work", udp("10.0.2.9:5000", "192.0.2.2:8080", b"hello"));
    assert_eq!(seen.from(), outside, "one mapping for inside and outside");
    assert_eq!(seen.to(), "10.0.1.2:80".parse().unwrap());
    let seen = world.cross("work", "lab", udp("10.0.1.2:80", outside, b"welcome"));
    assert_eq!(seen.from(), "192.0.2.2:8080".parse().unwrap());
    assert_eq!(world.occupancy().mappings, 2);
}

#[test]
fn req_9_a_server_that_hairpins_to_itself_sees_the_external_endpoint() {
    let mut world = World::default();
    let seen = world.cross("work", "work", udp("10.0.1.2:5000", "192.0.2.2:8080", b"me"));
    assert_eq!(seen.from(), "192.0.2.2:5000".parse().unwrap());
    assert_eq!(seen.to(), "10.0.1.2:80".parse().unwrap());
}

#[test]
fn static_forward_lets_the_world_in_and_shows_the_forwarded_port_to_it() {
    let mut world = World::default();
    let seen = world.cross("uplink", "work", udp("198.51.100.9:7777", "192.0.2.2:8080", b"ask"));
    assert_eq!(seen.from(), "198.51.100.9:7777".parse().unwrap(), "the remote's own source");
    assert_eq!(seen.to(), "10.0.1.2:80".parse().unwrap());
    let seen = world.cross("work", "uplink", udp("10.0.1.2:80", "198.51.100.9:7777", b"tell"));
    assert_eq!(seen.from(), "192.0.2.2:8080".parse().unwrap());
    // The neighbouring ports are not forwarded.
    for port in [8079, 8081, 80] {
        world.refuse("uplink", udp("198.51.100.9:7777", ("192.0.2.2", port), b"x"), Dropped::Policy);
    }
}

#[test]
fn static_forward_is_refreshed_by_the_server_not_by_the_world() {
    let mut world = World::default();
    let (asker, forward) = ("198.51.100.9:7777", "192.0.2.2:8080");
    world.cross("uplink", "work", udp(asker, forward, b"ask"));
    world.cross("work", "uplink", udp("10.0.1.2:80", asker, b"tell"));
    for _ in 0..4 {
        world.pass_seconds(250);
        world.cross("work", "uplink", udp("10.0.1.2:80", asker, b"tell"));
    }
    assert_eq!(world.occupancy().sessions, 1);
    world.pass_seconds(250);
    world.cross("uplink", "work", udp(asker, forward, b"ask"));
    world.pass_seconds(60);
    assert_eq!(world.occupancy().sessions, 0, "an outsider kept the session alive");
}

#[test]
fn req_11_behaviour_does_not_change_with_load() {
    let mut world = World::default();
    let flows: Vec<(String, _)> = (0..200)
        .map(|n| {
            let from = format!("10.0.1.{}:{}", 2 + n % 20, 40000 + n / 20);
            let external = world.open_udp(&from, SERVER);
            (from, external)
        })
        .collect();
    for _ in 0..3 {
        world.pass_seconds(100);
        for (from, external) in &flows {
            assert_eq!(world.open_udp(from, SERVER), *external);
            let seen = world.cross("uplink", "work", udp(SERVER, *external, b"in"));
            assert_eq!(seen.to(), from.parse().unwrap());
        }
    }
}

#[test]
fn req_12_no_icmp_error_ends_or_refreshes_a_mapping() {
    let mut world = World::default();
    let sent = udp("10.0.1.7:5000", SERVER, b"open");
    let seen = world.cross("work", "uplink", &sent);
    let external = seen.from();
    world.cross("uplink", "work", udp(SERVER, external, b"first"));
    world.pass_seconds(200);
    for kind in (0..16).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (4, 0), (5, 1)]) {
        world.send("uplink", icmp_error("198.51.100.9", "192.0.2.2", kind, seen.octets.clone()));
    }
    world.forget();
    world.cross("uplink", "work", udp(SERVER, external, b"still there"));
    world.pass_seconds(102);
    world.refuse("uplink", udp(SERVER, external, b"refreshed?"), Dropped::Policy);
}

#[test]
fn req_12_a_clients_own_error_neither_ends_nor_refreshes_its_mapping() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    let received = world.cross("uplink", "work", udp(SERVER, external, b"unwelcome"));
    world.pass_seconds(299);
    let error = icmp_error("10.0.1.7", "198.51.100.9", (3, 3), received.octets.clone());
    world.cross("work", "uplink", error);
    world.cross("uplink", "work", udp(SERVER, external, b"still there"));
    world.pass_seconds(5);
    world.refuse("uplink", udp(SERVER, external, b"refreshed?"), Dropped::Policy);
}

#[test]
fn req_13_larger_than_the_next_link_with_df_is_answered_with_its_mtu() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    let sent = udp("10.0.1.7:5000", SERVER, &[7; 1373]).dont_fragment();
    let seen = world.answer("work", &sent);
    assert_eq!(seen.icmp(), (3, 4));
    assert_eq!(seen.icmp_word(), [0, 0, 0x05, 0x78]);
    assert_eq!(seen.source(), address("10.0.1.1"));
    assert_eq!(seen.quote().octets, sent.octets()[..548], "the packet as its sender sent it");
    assert_eq!(world.drops("work", Dropped::TooBig), 1);
    // One octet less passes.
    world.cross("work", "uplink", udp("10.0.1.7:5000", SERVER, &[7; 1372]).dont_fragment());
}

#[test]
fn req_13_larger_than_the_clients_link_is_answered_to_the_outside_without_internals() {
    let plan = site::PLAN.replace("address = \"10.0.1.1/24\"", "address = \"10.0.1.1/24\"\nmtu = 1280");
    let mut world = World::new(&plan, site::RULES);
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    let sent = udp(SERVER, external, &[1; 1400]).dont_fragment();
    let seen = world.answer("uplink", &sent);
    assert_eq!((seen.icmp(), seen.icmp_word()), ((3, 4), [0, 0, 0x05, 0x00]));
    assert_eq!(seen.source(), address("192.0.2.2"));
    assert_eq!(seen.quote().to(), external);
}

/// Opens a flow from each port of the dynamic pool; the external ports that they got.
fn flood(world: &mut World, port: &str, host: &str) -> Vec<u16> {
    let mut got = Vec::new();
    for source in 1024..=65535u16 {
        world.queue(port, udp((host, source), SERVER, b""));
        if source % 512 == 511 {
            world.settle();
            got.extend(world.sent("uplink").iter().map(|seen| seen.from().port()));
        }
    }
    got
}

#[test]
fn exhaustion_all_ports_are_used_each_client_has_its_share_and_after_expiry_the_next_flow_works() {
    let mut world = World::default();
    world.open_udp("10.0.2.9:1", SERVER);
    let first = flood(&mut world, "work", "10.0.1.10");
    // A quarter of the pool is the other client's, whatever the first one does.
    assert_eq!(first.len(), 64_512 - 16_128);
    assert!(world.drops("work", Dropped::ClientQuota) > 0);
    world.forget();
    // One error a second after the burst (RFC 1812 4.3.2.8).
    world.pass_seconds(2);
    let refused = udp("10.0.1.10:65000", "198.51.100.10:53", b"no room");
    let seen = world.answer("work", &refused);
    assert_eq!(seen.icmp(), (3, 13));
    assert_eq!(seen.quote().octets, refused.octets());
    let second = flood(&mut world, "lab", "10.0.2.10");
    // All but the port of the static forward, which is reserved.
    let used: BTreeSet<u16> = first.iter().chain(&second).copied().collect();
    assert_eq!((used.len(), first.len() + second.len()), (64_511, 64_511), "no two flows share one");
    assert!(!used.contains(&8080));
    world.forget();
    // Another host of the client is served: the one that took all gives way.
    world.open_udp("10.0.1.11:2000", "198.51.100.10:53");
    // Who has a mapping is served.
    world.open_udp("10.0.1.10:2000", "198.51.100.10:53");
    world.pass_seconds(302);
    world.open_udp("10.0.1.11:2000", "198.51.100.10:53");
    assert_eq!(world.occupancy().mappings, 1);
}

#[test]
fn req_3_a_released_port_rests_before_another_endpoint_gets_it() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    world.pass_seconds(302);
    assert_ne!(world.open_udp("10.0.1.8:5000", SERVER).port(), external.port());
    assert_eq!(world.open_udp("10.0.1.7:5000", SERVER), external, "its own is its own");
}

#[test]
fn exhaustion_a_full_session_table_is_told_and_counted_and_evicts_nobody() {
    let plan = site::plan_with("[nat]\nsessions = 64");
    let mut world = World::new(&plan, site::RULES);
    let open = |world: &mut World, host: &str, count: u16| -> Vec<_> {
        (0..count).map(|n| world.open_udp(&format!("{host}:{}", 2000 + n), SERVER)).collect()
    };
    let flows = open(&mut world, "10.0.1.7", 48);
    for external in &flows {
        world.cross("uplink", "work", udp(SERVER, *external, b"in"));
    }
    world.pass_seconds(1);
    assert_eq!(open(&mut world, "10.0.1.7", 48), flows);
    let seen = world.answer("work", udp("10.0.1.7:9000", SERVER, b"x"));
    assert_eq!(seen.icmp(), (3, 13));
    assert_eq!(world.drops("work", Dropped::ClientQuota), 1);
    open(&mut world, "10.0.2.9", 16);
    for external in flows {
        world.cross("uplink", "work", udp(SERVER, external, b"in"));
    }
    world.pass_seconds(302);
    world.open_udp("10.0.1.7:9000", SERVER);
}

#[test]
fn req_10_no_alg_touches_what_looks_like_an_address() {
    let mut world = World::default();
    let data = b"INVITE sip:a@10.0.1.7:5000 SIP/2.0\r\nc=IN IP4 10.0.1.7 PORT 10,0,1,7,19,136";
    for port in [53, 69, 5060] {
        let seen = world.cross("work", "uplink", udp("10.0.1.7:5000", ("198.51.100.9", port), data));
        assert_eq!(seen.data(), data);
    }
}

/// The site whose mappings take packets so.
fn filtering(kind: &str) -> World {
    World::new(&format!("{}\n[nat]\nfiltering = \"{kind}\"\n", site::PLAN), site::RULES)
}

#[test]
fn req_8_endpoint_independent_filtering_lets_anybody_in_by_the_mapping() {
    let mut world = filtering("endpoint-independent");
    let external = world.open_udp("10.0.1.7:5000", SERVER);
    let seen = world.cross("uplink", "work", udp("203.0.113.77:9", external, b"from a stranger"));
    assert_eq!(
        (seen.from().to_string(), seen.to().to_string()),
        ("203.0.113.77:9".into(), "10.0.1.7:5000".into())
    );
    let back = world.cross("work", "uplink", udp("10.0.1.7:5000", "203.0.113.77:9", b"to it"));
    assert_eq!(back.from(), external);
    world.refuse("uplink", udp("203.0.113.77:9", "192.0.2.2:44444", b"no mapping"), Dropped::Policy);
}

#[test]
fn req_8_address_dependent_filtering_asks_for_the_address_only() {
    let mut world = filtering("address-dependent");
    let external = world.open_udp("10.0.1.7:5000", "198.51.100.9:53");
    world.cross("uplink", "work", udp("198.51.100.9:54", external, b"another port"));
    world.refuse("uplink", udp("198.51.100.10:53", external, b"another address"), Dropped::Policy);
}

#[test]
fn req_9_hairpin_through_a_mapping_shows_the_external_endpoint_both_ways() {
    let mut world = World::default();
    let (one, two) = ("10.0.1.7:5000", "10.0.2.9:6000");
    let (first, second) = (world.open_udp(one, SERVER), world.open_udp(two, SERVER));
    let seen = world.cross("work", "lab", udp(one, second, b"to the other's mapping"));
    assert_eq!((seen.from(), seen.to().to_string()), (first, two.to_owned()));
    let back = world.cross("lab", "work", udp(two, first, b"and back"));
    assert_eq!((back.from(), back.to().to_string()), (second, one.to_owned()));
    // Within one client network too.
    let third = world.open_udp("10.0.1.8:7000", SERVER);
    let seen = world.cross("work", "work", udp("10.0.1.8:7000", first, b"next door"));
    assert_eq!((seen.from(), seen.to().to_string()), (third, one.to_owned()));
}

#[test]
fn req_9_hairpinning_is_for_the_rules_to_admit() {
    let mut world = World::new(site::PLAN, &site::RULES.replace("ct status dnat accept", ""));
    world.open_udp("10.0.1.7:5000", SERVER);
    let external = world.open_udp("10.0.2.9:6000", SERVER);
    world.refuse("work", udp("10.0.1.7:5000", external, b"x"), Dropped::Policy);
}

#[test]
fn req_5_b_udp_to_well_known_ports_that_the_site_lists_ends_sooner_and_no_other() {
    let lines = "[nat.timeout]\nudp_short = { ports = \"53,500-510\", seconds = 20 }";
    let mut world = World::new(&site::plan_with(lines), site::RULES);
    let server = |port: u16| format!("198.51.100.9:{port}");
    for (source, port) in [(5000, 53), (5001, 500), (5002, 510), (5003, 54), (5004, 511), (5005, 5300)] {
        world.open_udp(&format!("10.0.1.7:{source}"), &server(port));
    }
    world.pass_seconds(20);
    assert_eq!(world.occupancy().sessions, 6);
    let back = world.cross("uplink", "work", udp(server(53).as_str(), "192.0.2.2:5000", b"in time"));
    assert_eq!(back.to(), "10.0.1.7:5000".parse().unwrap());
    world.pass_in_steps(22, 1);
    for (source, port, lives) in [(5000, 53, false), (5001, 500, false), (5002, 510, false)]
        .into_iter()
        .chain([(5003, 54, true), (5004, 511, true), (5005, 5300, true)])
    {
        world.send("uplink", udp(server(port).as_str(), ("192.0.2.2", source), b"late"));
        assert_eq!(!world.sent("work").is_empty(), lives, "to port {port}");
    }
}
