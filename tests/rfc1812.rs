//! RFC 1812 and its kin: what a router drops, and what it says itself.

use firewall::Dropped;
use smoltcp::wire::EthernetAddress;
use tests::flags::{ACK, FIN, PSH, RST, SYN};
use tests::packet::{Packet, address};
use tests::world::{frame, port_station, station};
use tests::{Seen, World, echo, icmp, icmp_error, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";

/// An error of the appliance's own: well formed, from `source`, about `sent`.
fn about(error: &Seen, source: &str, kind: (u8, u8), sent: &[u8]) {
    assert_eq!((error.source(), error.icmp()), (address(source), kind));
    assert!(error.octets.len() <= 576, "{} octets", error.octets.len());
    assert!(error.ttl() >= 32);
    // 4.3.2.5: internetwork control, and the TOS of the packet.
    assert_eq!(error.octets[1], 0xc0 | sent[1] & 0x1c);
    let quoted = sent.len().min(548);
    assert_eq!(error.quote().octets, sent[..quoted], "the packet as its sender sent it");
}

#[test]
fn ttl_1_from_a_client_is_answered_from_that_ports_address_and_not_forwarded() {
    let mut world = World::default();
    for (port, own, sent) in [
        ("work", "10.0.1.1", udp(CLIENT, SERVER, b"trace").identification(777)),
        ("work", "10.0.1.1", tcp(CLIENT, SERVER, SYN, b"")),
        ("work", "10.0.1.1", echo("10.0.1.8", "198.51.100.9", 9, 9, b"trace")),
        ("lab", "10.0.2.1", udp("10.0.2.9:1", SERVER, b"trace")),
    ] {
        let sent = sent.ttl(1);
        about(&world.answer(port, &sent), own, (11, 0), &sent.octets());
    }
    assert_eq!(world.drops("work", Dropped::TimeExceeded), 3);
    assert_eq!(world.answered("work"), 3);
    assert_eq!(world.occupancy().sessions, 0);
}

#[test]
fn ttl_1_from_the_uplink_is_answered_with_the_external_address() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let sent = udp(SERVER, external, b"trace").ttl(1);
    about(&world.answer("uplink", &sent), "192.0.2.2", (11, 0), &sent.octets());
}

#[test]
fn ttl_0_is_dropped_without_a_word_and_ttl_2_passes_as_1() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.refuse("work", udp(CLIENT, SERVER, b"x").ttl(0), Dropped::TimeExceeded);
    world.refuse("uplink", udp(SERVER, external, b"x").ttl(0), Dropped::TimeExceeded);
    assert_eq!(world.cross("work", "uplink", udp(CLIENT, SERVER, b"x").ttl(2)).ttl(), 1);
    assert_eq!(world.cross("uplink", "work", udp(SERVER, external, b"x").ttl(2)).ttl(), 1);
}

#[test]
fn ttl_1_of_a_dying_packet_neither_opens_nor_refreshes_a_session() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    world.pass_seconds(200);
    world.answer("work", udp(CLIENT, SERVER, b"x").ttl(1));
    world.pass_seconds(102);
    world.refuse("uplink", udp(SERVER, external, b"x"), Dropped::Policy);
}

#[test]
fn a_packet_to_the_appliance_itself_may_have_ttl_1() {
    let mut world = World::default();
    world.answer("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x").ttl(1));
    let reply = world.answer("uplink", echo("198.51.100.9", "192.0.2.2", 1, 1, b"x").ttl(1));
    assert_eq!(reply.icmp(), (0, 0));
}

#[test]
fn req_4_3_3_6_echo_requests_are_answered_with_all_they_carried() {
    let mut world = World::default();
    for (port, from, own) in [
        ("work", "10.0.1.7", "10.0.1.1"),
        ("lab", "10.0.2.9", "10.0.2.1"),
        ("uplink", "198.51.100.9", "192.0.2.2"),
    ] {
        for length in [0, 1, 56, 1472] {
            let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let request = echo(from, own, 77, 5, &data).tos(0x28);
            let reply = world.answer(port, &request);
            assert_eq!((reply.source(), reply.destination()), (address(own), address(from)));
            assert_eq!((reply.icmp(), reply.id(), reply.icmp_word()), ((0, 0), 77, [0, 77, 0, 5]));
            assert_eq!((reply.data(), reply.tos() & 0xfc), (&data[..], 0x28));
        }
    }
    // Also at an address of the appliance that is another port's.
    world.answer("work", echo("10.0.1.7", "192.0.2.2", 1, 1, b"x"));
}

#[test]
fn echo_requests_with_a_wrong_checksum_or_to_nobody_are_not_answered() {
    let mut world = World::default();
    let mut request = echo("10.0.1.7", "10.0.1.1", 1, 1, b"data");
    request.payload[8] ^= 1;
    world.send("work", request);
    world.quiet();
    let broadcast = echo("10.0.1.7", "10.0.1.255", 1, 1, b"data");
    world.refuse("work", broadcast, Dropped::BadDestination);
    world.refuse("work", echo("10.0.1.7", "255.255.255.255", 1, 1, b""), Dropped::BadDestination);
    world.refuse("uplink", echo("198.51.100.9", "192.0.2.255", 1, 1, b""), Dropped::NotOurs);
}

#[test]
fn echo_requests_are_subject_to_the_input_chain() {
    let rules = site::RULES.replace("icmp type echo-request", "iifname \"work\" icmp type echo-request");
    let mut world = World::new(site::PLAN, &rules);
    world.answer("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x"));
    world.refuse("lab", echo("10.0.2.9", "10.0.2.1", 1, 1, b"x"), Dropped::Policy);
    world.refuse("uplink", echo("198.51.100.9", "192.0.2.2", 1, 1, b"x"), Dropped::Policy);
}

#[test]
fn masks_and_timestamps_are_never_answered() {
    let rules = site::RULES.replace("icmp type echo-request accept", "accept");
    let mut world = World::new(site::PLAN, &rules);
    for kind in [13, 15, 17] {
        let query = icmp("10.0.1.7", "10.0.1.1", (kind, 0), [0, 1, 0, 1], &[0; 12]);
        world.refuse("work", query, Dropped::Delivered);
    }
}

#[test]
fn nobody_listens_at_the_appliance_3_3_for_udp_and_a_reset_for_tcp() {
    let rules = site::RULES.replace("icmp type echo-request accept", "accept");
    let mut world = World::new(site::PLAN, &rules);
    let sent = udp(CLIENT, "10.0.1.1:53", b"x");
    about(&world.answer("work", &sent), "10.0.1.1", (3, 3), &sent.octets());
    let reset = world.answer("work", tcp(CLIENT, "10.0.1.1:22", (SYN, 9, 0), b""));
    assert_eq!((reset.tcp_flags(), reset.tcp().acknowledgment_number), (RST | ACK, 10));
    assert_eq!(world.drops("work", Dropped::Delivered), 2);
}

const NO_GATEWAY: &str = r#"
[uplink]
address = "192.0.2.2/24"

[[client]]
name = "work"
address = "10.0.1.1/24"
"#;

const OPEN: &str = r#"
table ip filter {
  chain forward { type filter hook forward priority filter; policy accept; ct state invalid drop; }
}
table ip nat {
  chain postrouting { type nat hook postrouting priority srcnat; oifname "uplink" masquerade; }
}
"#;

#[test]
fn no_route_is_answered_with_3_0() {
    let mut world = World::new(NO_GATEWAY, OPEN);
    let sent = udp(CLIENT, SERVER, b"x");
    about(&world.answer("work", &sent), "10.0.1.1", (3, 0), &sent.octets());
    assert_eq!(world.drops("work", Dropped::NoRoute), 1);
}

#[test]
fn a_next_hop_that_does_not_answer_arp_is_answered_with_3_1() {
    let mut world = World::default();
    world.silent.insert(address("192.0.2.51"));
    let sent = udp(CLIENT, "192.0.2.51:53", b"first");
    world.send("work", &sent);
    world.quiet();
    world.pass_in_steps(5, 1);
    about(&world.only("work"), "10.0.1.1", (3, 1), &sent.octets());
    assert_eq!(world.drops("work", Dropped::Unresolved), 1);
    assert_eq!(world.held("work"), 0);
}

#[test]
fn a_client_that_does_not_answer_arp_is_answered_with_3_1_without_internals() {
    let mut world = World::default();
    world.silent.insert(address("10.0.1.2"));
    let sent = udp("198.51.100.9:7777", "192.0.2.2:8080", b"ask");
    world.send("uplink", &sent);
    world.pass_in_steps(5, 1);
    about(&world.only("uplink"), "192.0.2.2", (3, 1), &sent.octets());
}

#[test]
fn own_errors_quote_as_much_as_576_octets_hold() {
    let mut world = World::default();
    for length in [0, 1, 100, 519, 520, 521, 1400] {
        let sent = udp(CLIENT, SERVER, &vec![0x6d; length]).ttl(1);
        let seen = world.answer("work", &sent);
        about(&seen, "10.0.1.1", (11, 0), &sent.octets());
        assert_eq!(seen.octets.len(), (28 + 28 + length).min(576));
        world.pass_seconds(1);
    }
    let sent = udp(CLIENT, SERVER, &[0x6d; 900]).options(&[1; 40]).ttl(1);
    about(&world.answer("work", &sent), "10.0.1.1", (11, 0), &sent.octets());
}

#[test]
fn rfc_1191_a_host_that_is_told_of_much_else_is_told_the_mtu_of_its_paths() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    for port in 1000..1100 {
        world.send("work", udp(("10.0.1.7", port), SERVER, b"scan").ttl(1));
    }
    assert_eq!(world.sent("work").len(), 6);
    for port in 5000..5020 {
        let sent = udp(("10.0.1.7", port), SERVER, &[7; 1373]).dont_fragment();
        assert_eq!(world.answer("work", sent).icmp(), (3, 4));
    }
}

#[test]
fn own_errors_are_six_in_a_burst_then_one_a_second_for_each_destination() {
    let mut world = World::default();
    let dying = |host: &str| udp((host, 1), SERVER, b"x").ttl(1);
    for _ in 0..50 {
        world.send("work", dying("10.0.1.7"));
    }
    assert_eq!(world.sent("work").len(), 6);
    assert_eq!(world.drops("work", Dropped::AnswerLimited), 44);
    assert_eq!(world.drops("work", Dropped::TimeExceeded), 50);
    // Another host has its own.
    world.send("work", dying("10.0.1.8"));
    assert_eq!(world.sent("work").len(), 1);
    for _ in 0..5 {
        world.pass_seconds(1);
        for _ in 0..10 {
            world.send("work", dying("10.0.1.7"));
        }
        assert_eq!(world.sent("work").len(), 1);
    }
    world.pass_seconds(60);
    for _ in 0..10 {
        world.send("work", dying("10.0.1.7"));
    }
    assert_eq!(world.sent("work").len(), 6);
}

#[test]
fn req_4_3_2_7_no_error_is_sent_about_an_error() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let received = world.cross("uplink", "work", udp(SERVER, external, b"x"));
    let error = icmp_error("10.0.1.7", "198.51.100.9", (3, 3), received.octets.clone()).ttl(1);
    world.refuse("work", error, Dropped::TimeExceeded);
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    let error = icmp_error("203.0.113.5", "192.0.2.2", (3, 3), seen.octets.clone()).ttl(1);
    world.refuse("uplink", error, Dropped::TimeExceeded);
}

#[test]
fn req_4_3_2_7_no_error_is_sent_about_a_later_fragment_or_a_group_or_a_broadcast() {
    let mut world = World::default();
    let whole = udp(CLIENT, SERVER, &[0; 64]);
    world.cross("work", "uplink", whole.clone().fragment(0..8));
    world.refuse("work", whole.fragment(8..72).ttl(1), Dropped::TimeExceeded);
    for group in
        ["224.0.0.5:1", "239.1.2.3:1", "255.255.255.255:1", "10.0.1.255:1", "10.0.2.255:1", "240.0.0.1:1"]
    {
        world.refuse("work", udp(CLIENT, group, b"x").ttl(1), Dropped::BadDestination);
    }
}

#[test]
fn never_a_reset_for_a_reset() {
    let mut world = World::new(site::PLAN, &site::RULES.replace("ct state invalid drop", ""));
    world.refuse("work", tcp(CLIENT, "198.51.100.9:26", RST, b""), Dropped::Rejected);
    world.refuse("work", tcp(CLIENT, "198.51.100.9:26", RST | ACK, b""), Dropped::Rejected);
}

#[test]
fn rfc_9293_3_10_7_1_a_reset_takes_its_numbers_from_what_it_refuses() {
    let mut world = World::new(site::PLAN, &site::RULES.replace("ct state invalid drop", ""));
    let peer = "198.51.100.9:26";
    for (flags, seq, ack, data, expected) in [
        (SYN, 7, 0, &b""[..], (RST | ACK, 0, 8)),
        (SYN, u32::MAX, 0, b"", (RST | ACK, 0, 0)),
        (SYN | FIN, 100, 0, b"abc", (RST | ACK, 0, 105)),
        (FIN, 100, 0, b"abc", (RST | ACK, 0, 104)),
        (0, 100, 55, b"abc", (RST | ACK, 0, 103)),
        (ACK, 100, 0xffff_0000, b"", (RST, 0xffff_0000, 0)),
        (ACK | PSH, 100, 5, b"data", (RST, 5, 0)),
        (SYN | ACK, 100, 5, b"", (RST, 5, 0)),
        (FIN | ACK, 100, 5, b"", (RST, 5, 0)),
    ] {
        let reset = world.answer("work", tcp(CLIENT, peer, (flags, seq, ack), data));
        assert_eq!((reset.from(), reset.to()), (peer.parse().unwrap(), CLIENT.parse().unwrap()));
        let tcp = reset.tcp();
        let numbers = (reset.tcp_flags(), tcp.sequence_number, tcp.acknowledgment_number);
        assert_eq!(numbers, expected, "for flags {flags:#04x}");
        assert_eq!((tcp.window_size, reset.data()), (0, &b""[..]));
    }
    assert_eq!(world.occupancy().sessions, 0);
    assert_eq!(world.drops("work", Dropped::Rejected), 9);
}

#[test]
fn a_rejected_packet_is_answered_with_the_rules_code() {
    let mut world = World::default();
    let sent = tcp(CLIENT, "198.51.100.9:25", SYN, b"");
    about(&world.answer("work", &sent), "10.0.1.1", (3, 13), &sent.octets());
    assert_eq!(world.drops("work", Dropped::Rejected), 1);
    world.refuse("work", udp(CLIENT, "198.51.100.9:27", b"x"), Dropped::Policy);
}

#[test]
fn rfc_2827_sources_that_are_not_behind_a_client_port_are_dropped() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    for source in [
        "10.0.2.9",
        "10.0.9.9",
        "192.0.2.50",
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.9",
        "10.0.1.1",
        "10.0.2.1",
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "10.0.1.0",
        "10.0.1.255",
    ] {
        for destination in ["198.51.100.9:53", "192.0.2.2:8080", "10.0.2.9:7000", "10.0.1.1:1"] {
            world.refuse("work", udp((source, 5000), destination, b"x"), Dropped::Spoofed);
        }
        world.refuse("work", echo(source, "10.0.1.1", 1, 1, b"x"), Dropped::Spoofed);
    }
    world.cross("uplink", "work", udp(SERVER, external, b"good"));
}

#[test]
fn rfc_2827_sources_that_are_not_outside_are_dropped_at_the_uplink() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    for source in [
        "10.0.1.7",
        "10.0.2.9",
        "10.0.1.1",
        "192.0.2.2",
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.255",
        "192.0.2.0",
    ] {
        world.refuse("uplink", udp((source, 53), external, b"x"), Dropped::Spoofed);
        world.refuse("uplink", udp((source, 53), "192.0.2.2:8080", b"x"), Dropped::Spoofed);
    }
}

#[test]
fn rfc_2827_a_site_may_believe_single_hosts_only() {
    let plan = site::PLAN.replace(
        "address = \"10.0.1.1/24\"",
        "address = \"10.0.1.1/24\"\nhosts = [\"10.0.1.2\", \"10.0.1.7\"]",
    );
    let mut world = World::new(&plan, site::RULES);
    world.open_udp("10.0.1.7:5000", SERVER);
    world.refuse("work", udp("10.0.1.8:5000", SERVER, b"x"), Dropped::Spoofed);
}

#[test]
fn ingress_is_checked_in_the_middle_of_a_burst_of_good_packets() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    for n in 0..60 {
        let source = if n % 3 == 1 { "10.0.2.9:5000" } else { CLIENT };
        world.queue("work", udp(source, SERVER, b"burst"));
    }
    world.settle();
    assert_eq!(world.sent("uplink").len(), 40);
    assert_eq!(world.drops("work", Dropped::Spoofed), 20);
}

#[test]
fn internal_destinations_on_the_uplink_are_dropped() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    for destination in ["10.0.1.7:5000", "10.0.2.9:7000", "192.0.2.77:1", "8.8.8.8:53", "255.255.255.255:1"] {
        world.refuse("uplink", udp(SERVER, destination, b"x"), Dropped::NotOurs);
    }
    world.refuse("uplink", tcp("198.51.100.9:5", "10.0.1.2:80", SYN, b""), Dropped::NotOurs);
    world.refuse("uplink", echo("198.51.100.9", "10.0.1.2", 1, 1, b"x"), Dropped::NotOurs);
    // The appliance's own inside addresses are not seen from outside either.
    for own in ["10.0.1.1", "10.0.2.1"] {
        world.send("uplink", echo("198.51.100.9", own, 1, 1, b"x"));
        world.quiet();
    }
}

#[test]
fn martian_destinations_are_dropped() {
    let mut world = World::default();
    for destination in ["0.1.2.3:1", "127.0.0.1:1", "224.0.0.251:5353", "240.0.0.1:1", "255.255.255.255:67"] {
        world.refuse("work", udp(CLIENT, destination, b"x"), Dropped::BadDestination);
    }
}

#[test]
fn frames_of_other_stations_groups_and_kinds_are_never_forwarded() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let host = station(address("10.0.1.7"));
    let gateway = station(address("192.0.2.1"));
    let own = port_station(1);
    let packet = udp(CLIENT, SERVER, b"x").octets();
    let group = EthernetAddress([1, 0, 0x5e, 0, 0, 5]);
    for (to, from, kind, reason) in [
        (EthernetAddress([2, 0xaa, 0, 0, 0, 1]), host, 0x0800, Dropped::OtherStation),
        (port_station(0), host, 0x0800, Dropped::OtherStation),
        (EthernetAddress::BROADCAST, host, 0x0800, Dropped::OtherStation),
        (group, host, 0x0800, Dropped::OtherStation),
        (own, group, 0x0800, Dropped::BadStation),
        (own, EthernetAddress::BROADCAST, 0x0800, Dropped::BadStation),
        (own, own, 0x0800, Dropped::BadStation),
        (own, host, 0x86dd, Dropped::EtherType),
        (own, host, 0x8100, Dropped::EtherType),
        (own, host, 0x88a8, Dropped::EtherType),
        (own, host, 0x8864, Dropped::EtherType),
        (own, host, 0x0026, Dropped::EtherType),
        (own, host, 0xffff, Dropped::EtherType),
    ] {
        world.refuse_frame("work", &frame(to, from, kind, &packet), reason);
    }
    let tagged = [&[0, 5, 8, 0][..], &packet].concat();
    world.refuse_frame("work", &frame(own, host, 0x8100, &tagged), Dropped::EtherType);
    let inbound = udp(SERVER, external, b"x").octets();
    let to_client = frame(host, gateway, 0x0800, &inbound);
    world.refuse_frame("uplink", &to_client, Dropped::OtherStation);
    let to_all = frame(EthernetAddress::BROADCAST, gateway, 0x0800, &inbound);
    world.refuse_frame("uplink", &to_all, Dropped::OtherStation);
    for length in 1..14 {
        world.refuse_frame("work", &frame(own, host, 0x0800, &packet)[..length], Dropped::Runt);
    }
    // Group frames of protocols that bridges speak.
    for (to, kind) in [([1, 0x80, 0xc2, 0, 0, 0], 0x26), ([1, 0x80, 0xc2, 0, 0, 0xe], 0x88cc)] {
        world.refuse_frame("work", &frame(EthernetAddress(to), host, kind, &packet), Dropped::EtherType);
    }
}

#[test]
fn req_5_2_2_headers_that_do_not_hold_together_are_dropped_both_ways() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    for (port, packet) in [("work", udp(CLIENT, SERVER, b"data")), ("uplink", udp(SERVER, external, b"data"))]
    {
        for flip in [1u8, 0x80, 0xff] {
            let mut octets = packet.octets();
            octets[10] ^= flip;
            world.refuse(port, octets, Dropped::HeaderChecksum);
        }
        for length in 0..packet.octets().len() {
            world.refuse(port, &packet.octets()[..length], Dropped::Malformed);
        }
        let broken = |at: usize, value: u8| {
            let mut octets = packet.octets();
            octets[at] = value;
            octets
        };
        for octets in [broken(0, 0x65), broken(0, 0x44), broken(0, 0x4f), broken(3, 19), broken(2, 0xff)] {
            world.refuse(port, octets, Dropped::Malformed);
        }
        let mut short = packet.clone();
        short.payload[5] = 7;
        world.refuse(port, &short, Dropped::Malformed);
        short.payload[5] = 200;
        world.refuse(port, &short, Dropped::Malformed);
        for at in [0, 2] {
            let mut zero = packet.clone();
            zero.payload[at..at + 2].fill(0);
            world.refuse(port, &zero, Dropped::Malformed);
        }
    }
    let mut segment = tcp(CLIENT, SERVER, SYN, b"");
    for offset in [0x40, 0x60, 0xf0] {
        segment.payload[12] = offset;
        world.refuse("work", &segment, Dropped::Malformed);
    }
}

#[test]
fn rfc_1112_igmp_is_between_neighbours_and_never_forwarded() {
    let mut world = World::default();
    for payload in [&[0; 28][..], &[]] {
        world.refuse("work", Packet::new("10.0.1.7", "198.51.100.9", 2, payload), Dropped::Protocol);
        world.refuse("uplink", Packet::new("198.51.100.9", "192.0.2.2", 2, payload), Dropped::Protocol);
    }
}
