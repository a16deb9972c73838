//! Protocols without ports that we know: SCTP, GRE, ESP, AH, IPIP and the rest, by address.

use firewall::Dropped;
use tests::packet::Packet;
use tests::{World, icmp_error, site};

const CLIENT: &str = "10.0.1.7";
const OTHER: &str = "10.0.1.8";
const PEER: &str = "198.51.100.9";
const EXTERNAL: &str = "192.0.2.2";

/// HOPOPT, IPIP, DCCP, 6in4, GRE, ESP, AH, PIM, SCTP, UDP-Lite, reserved.
const OTHERS: [u8; 11] = [0, 4, 33, 41, 47, 50, 51, 103, 132, 136, 255];

/// An SCTP verification tag and CRC32c, a GRE key, an SPI: whatever it is, it crosses untouched.
const DATA: [u8; 28] =
    [0x13, 0x88, 0, 0x16, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6];

/// DCCP and UDP-Lite: their checksums cover the addresses.
const COVERED: [u8; 2] = [33, 136];

#[test]
fn other_protocols_cross_by_address_both_ways_with_their_payload_untouched() {
    for number in OTHERS.into_iter().filter(|number| !COVERED.contains(number)) {
        for data in [&DATA[..], &[]] {
            let mut world = World::default();
            let out = Packet::new(CLIENT, PEER, number, data).tos(0x2e);
            let seen = world.cross("work", "uplink", &out);
            assert_eq!(seen.octets, Packet::new(EXTERNAL, PEER, number, data).tos(0x2e).ttl(63).octets());
            let back = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, number, data));
            assert_eq!(back.octets, Packet::new(PEER, CLIENT, number, data).ttl(63).octets());
            assert_eq!((world.occupancy().sessions, world.occupancy().mappings), (1, 0));
        }
    }
}

#[test]
fn other_protocols_whose_checksum_covers_addresses_have_nothing_else_changed() {
    for number in COVERED {
        let mut world = World::default();
        let seen = world.cross("work", "uplink", Packet::new(CLIENT, PEER, number, &DATA));
        let there = seen.transport().to_vec();
        assert_eq!((&there[..6], &there[8..]), (&DATA[..6], &DATA[8..]));
        assert_ne!(there[6..8], DATA[6..8]);
        // What the change of addresses took it gives back.
        let back = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, number, &there));
        assert_eq!(back.transport(), DATA);
        // What is too short for a checksum has none.
        let short = world.cross("work", "uplink", Packet::new(CLIENT, PEER, number, &DATA[..7]));
        assert_eq!(short.transport(), &DATA[..7]);
    }
}

#[test]
fn other_protocols_from_outside_open_nothing() {
    let mut world = World::new(site::PLAN, &site::RULES.replace("policy drop", "policy accept"));
    for number in OTHERS {
        world.refuse("uplink", Packet::new(PEER, EXTERNAL, number, &DATA), Dropped::Unsolicited);
    }
    // A session is with one peer and of one protocol.
    world.cross("work", "uplink", Packet::new(CLIENT, PEER, 47, &DATA));
    world.refuse("uplink", Packet::new("198.51.100.8", EXTERNAL, 47, &DATA), Dropped::Unsolicited);
    world.refuse("uplink", Packet::new(PEER, EXTERNAL, 50, &DATA), Dropped::Unsolicited);
}

#[test]
fn other_protocols_the_first_client_to_a_peer_wins_and_a_second_is_refused_and_counted() {
    for number in OTHERS {
        let mut world = World::default();
        world.cross("work", "uplink", Packet::new(CLIENT, PEER, number, &DATA));
        for (port, client) in [("work", OTHER), ("lab", "10.0.2.9")] {
            let second = Packet::new(client, PEER, number, &DATA);
            let error = world.answer(port, &second);
            assert_eq!((error.icmp(), error.quote().octets), ((3, 13), second.octets()));
            assert_eq!(world.drops(port, Dropped::PeerTaken), 1);
        }
        // Another peer is free, and what comes back goes to whom it is for.
        world.cross("work", "uplink", Packet::new(OTHER, "198.51.100.8", number, &DATA));
        let back = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, number, &DATA));
        assert_eq!(back.destination(), CLIENT.parse::<std::net::Ipv4Addr>().unwrap());
        let back = world.cross("uplink", "work", Packet::new("198.51.100.8", EXTERNAL, number, &DATA));
        assert_eq!(back.destination(), OTHER.parse::<std::net::Ipv4Addr>().unwrap());
    }
}

#[test]
fn other_protocols_the_peer_is_free_again_when_the_first_client_was_idle() {
    let mut world = World::default();
    world.cross("work", "uplink", Packet::new(CLIENT, PEER, 50, &DATA));
    world.pass_in_steps(600, 10);
    assert_eq!(world.answer("work", Packet::new(OTHER, PEER, 50, &DATA)).icmp(), (3, 13));
    world.pass_in_steps(10, 1);
    world.cross("work", "uplink", Packet::new(OTHER, PEER, 50, &DATA));
    let back = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, 50, &DATA));
    assert_eq!(back.destination(), OTHER.parse::<std::net::Ipv4Addr>().unwrap());
}

#[test]
fn other_protocols_cross_between_clients_without_translation() {
    let rules = site::RULES.replace(
        "iifname \"work\" oifname \"lab\" tcp dport 7000 accept",
        "iifname \"work\" oifname \"lab\" ip protocol gre accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    // Without translation two clients may talk to one peer.
    for client in [CLIENT, OTHER] {
        let out = Packet::new(client, "10.0.2.9", 47, &DATA);
        assert_eq!(world.cross("work", "lab", &out).octets, out.ttl(63).octets());
        let back = Packet::new("10.0.2.9", client, 47, &DATA);
        assert_eq!(world.cross("lab", "work", &back).octets, back.ttl(63).octets());
    }
    world.refuse("work", Packet::new(CLIENT, "10.0.2.9", 50, &DATA), Dropped::Policy);
    world.refuse("lab", Packet::new("10.0.2.9", CLIENT, 50, &DATA), Dropped::Policy);
}

#[test]
fn other_protocols_are_for_rules_to_choose_and_to_forward_to_a_server() {
    let rules = site::RULES
        .replace(
            "iifname { \"work\", \"lab\" } oifname \"uplink\" udp dport 27 drop",
            "meta l4proto sctp drop",
        )
        .replace(
            "ip daddr 192.0.2.2 tcp dport 8080 dnat",
            "ip daddr 192.0.2.2 ip protocol gre dnat to 10.0.1.5\n    ip daddr 192.0.2.2 tcp dport 8080 dnat",
        );
    let mut world = World::new(site::PLAN, &rules);
    world.refuse("work", Packet::new(CLIENT, PEER, 132, &DATA), Dropped::Policy);
    world.cross("work", "uplink", Packet::new(CLIENT, PEER, 50, &DATA));
    let seen = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, 47, &DATA));
    assert_eq!(seen.octets, Packet::new(PEER, "10.0.1.5", 47, &DATA).ttl(63).octets());
    let seen = world.cross("work", "uplink", Packet::new("10.0.1.5", PEER, 47, &DATA));
    assert_eq!(seen.octets, Packet::new(EXTERNAL, PEER, 47, &DATA).ttl(63).octets());
}

#[test]
fn other_protocols_to_the_appliance_are_unreachable_for_clients() {
    let rules = site::RULES.replace("icmp type echo-request accept", "accept");
    let mut world = World::new(site::PLAN, &rules);
    let packet = Packet::new(CLIENT, "10.0.1.1", 132, &DATA);
    let error = world.answer("work", &packet);
    assert_eq!((error.icmp(), error.quote().octets), ((3, 2), packet.octets()));
    assert_eq!(world.occupancy().sessions, 0);
}

#[test]
fn other_protocols_in_fragments_cross_as_one_in_any_order() {
    let mut world = World::default();
    let whole = Packet::new(CLIENT, PEER, 50, &DATA).identification(7);
    world.send("work", whole.clone().fragment(16..28));
    world.quiet();
    world.send("work", whole.clone().fragment(0..16));
    let left = world.sent("uplink");
    assert_eq!((left[0].transport(), left[1].transport()), (&DATA[..16], &DATA[16..]));
    assert!(left.iter().all(|seen| seen.source() == EXTERNAL.parse::<std::net::Ipv4Addr>().unwrap()));
    assert_eq!(left[0].identification(), left[1].identification());
}

#[test]
fn other_protocols_ttl_and_size_are_answered() {
    let mut world = World::default();
    let packet = Packet::new(CLIENT, PEER, 47, &[1; 40]).ttl(1);
    let error = world.answer("work", &packet);
    assert_eq!((error.icmp(), error.quote().octets), ((11, 0), packet.octets()));
    let packet = Packet::new(CLIENT, PEER, 47, &[1; 1481]).dont_fragment();
    assert_eq!(world.answer("work", &packet).icmp(), (3, 4));
}

#[test]
fn rfc_1812_4_3_2_7_other_protocols_in_fragments_are_answered_about_the_first_one() {
    let mut world = World::default();
    let whole = Packet::new(CLIENT, PEER, 50, &[1; 80]).identification(9).ttl(1);
    let [first, last] = [0..40, 40..80].map(|range| whole.clone().fragment(range));
    let error = world.answer("work", &first);
    assert_eq!((error.icmp(), error.quote().octets), ((11, 0), first.octets()));
    world.send("work", last);
    world.quiet();
}

#[test]
fn req_4_and_req_5_icmp_errors_about_other_protocols_are_translated_both_ways() {
    const ROUTER: &str = "198.51.100.1";
    for number in OTHERS {
        let mut world = World::default();
        let sent = Packet::new(CLIENT, PEER, number, &DATA);
        let outside = world.cross("work", "uplink", &sent);
        for kind in [(3, 2), (3, 4), (11, 0)] {
            // Wholly quoted, and cut to 8 octets behind the header.
            for length in [48, 28] {
                let error = icmp_error(ROUTER, EXTERNAL, kind, &outside.octets[..length]);
                let seen = world.cross("uplink", "work", error);
                assert_eq!((seen.icmp(), seen.source()), (kind, ROUTER.parse().unwrap()));
                let quoted = sent.clone().ttl(63).octets();
                assert_eq!(seen.quote().octets, quoted[..length]);
            }
        }
        let answer = world.cross("uplink", "work", Packet::new(PEER, EXTERNAL, number, &DATA));
        let seen = world.cross("work", "uplink", icmp_error(CLIENT, PEER, (3, 2), answer.octets.clone()));
        assert_eq!(seen.source(), EXTERNAL.parse::<std::net::Ipv4Addr>().unwrap());
        assert_eq!(seen.quote().octets, Packet::new(PEER, EXTERNAL, number, &DATA).ttl(63).octets());
    }
}
