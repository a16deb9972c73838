//! Translation of headers: what changes, what stays, and who computes checksums
//! (RFC 3022, RFC 1624, RFC 768, virtio 1.2 5.1.6).

use firewall::Dropped;
use firewall::datapath::Datapath;
use netback::wire::{Settings, Wire};
use netback::{Checksum, Offload};
use smoltcp::time::Instant;
use tests::flags::{ACK, CWR, ECE, FIN, PSH, SYN, URG};
use tests::packet::{Packet, Segment, address, pseudo_sum};
use tests::watched::Watched;
use tests::world::{frame, port_station, station};
use tests::{Connection, View, World, echo, icmp_error, judge, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const EXTERNAL: &str = "192.0.2.2:5000";
const SERVER: &str = "198.51.100.9:53";

/// Everything of a packet but TTL, checksums, addresses and the port fields.
fn untranslated(view: &View) -> Vec<u8> {
    let mut octets = view.octets.clone();
    let transport = view.header_len();
    octets[8] = 0;
    octets[10..20].fill(0);
    octets[transport..transport + 4].fill(0);
    let checksum = transport + if view.protocol() == 6 { 16 } else { 6 };
    octets[checksum..checksum + 2].fill(0);
    octets
}

fn unchanged(sent: &Packet, seen: &View) {
    assert_eq!(untranslated(&View::new(sent.octets())), untranslated(seen));
    assert_eq!(seen.ttl(), sent.header.time_to_live - 1);
}

#[test]
fn rfc_3022_a_datagram_goes_out_as_the_external_address_and_its_reply_comes_back() {
    let mut world = World::default();
    let request = udp(CLIENT, SERVER, b"question");
    let seen = world.cross("work", "uplink", &request);
    assert_eq!((seen.from(), seen.to()), (EXTERNAL.parse().unwrap(), SERVER.parse().unwrap()));
    assert_eq!(seen.station(), station(address("192.0.2.1")), "by way of the gateway");
    unchanged(&request, &seen);
    let reply = udp(SERVER, EXTERNAL, b"answer");
    let seen = world.cross("uplink", "work", &reply);
    assert_eq!((seen.from(), seen.to()), (SERVER.parse().unwrap(), CLIENT.parse().unwrap()));
    assert_eq!(seen.station(), station(address("10.0.1.7")));
    unchanged(&reply, &seen);
    assert_eq!((world.forwarded("work"), world.forwarded("uplink")), (1, 1));
    assert_eq!(world.occupancy().sessions, 1);
    assert_eq!(world.occupancy().mappings, 1);
}

#[test]
fn rfc_3022_the_second_client_is_translated_too() {
    let mut world = World::default();
    let seen = world.cross("lab", "uplink", udp("10.0.2.9:777", SERVER, b"x"));
    assert_eq!(seen.from(), "192.0.2.2:777".parse().unwrap());
    let seen = world.cross("uplink", "lab", udp(SERVER, "192.0.2.2:777", b"y"));
    assert_eq!(seen.to(), "10.0.2.9:777".parse().unwrap());
}

#[test]
fn rfc_1624_checksums_are_right_for_payloads_of_every_length_both_ways() {
    let mut world = World::default();
    for length in (0..40).chain([99, 100, 511, 1471, 1472]) {
        let data: Vec<u8> = (0..length).map(|n| (n * 37 + length) as u8).collect();
        let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, &data));
        assert_eq!(seen.data(), data);
        let seen = world.cross("uplink", "work", udp(SERVER, EXTERNAL, &data));
        assert_eq!(seen.data(), data);
    }
}

#[test]
fn rfc_768_no_checksum_stays_none_both_ways() {
    let mut world = World::default();
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"abc").without_checksum());
    assert_eq!(seen.udp_checksum(), 0);
    let seen = world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"abc").without_checksum());
    assert_eq!(seen.udp_checksum(), 0);
}

#[test]
fn rfc_768_a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
    let mut world = World::default();
    // The word that makes the translated datagram's sum all ones is the checksum without it.
    let word = View::new(udp(EXTERNAL, SERVER, &[0, 0]).octets()).udp_checksum();
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, &word.to_be_bytes()));
    assert_eq!(seen.udp_checksum(), 0xffff);
    let word = View::new(udp(SERVER, CLIENT, &[0, 0]).octets()).udp_checksum();
    let seen = world.cross("uplink", "work", udp(SERVER, EXTERNAL, &word.to_be_bytes()));
    assert_eq!(seen.udp_checksum(), 0xffff);
}

#[test]
fn rfc_1624_a_wrong_transport_checksum_stays_wrong() {
    let mut world = World::default();
    for judge in &mut world.judges {
        judge.transport = false;
    }
    for packet in [
        udp(CLIENT, SERVER, b"data"),
        tcp(CLIENT, SERVER, SYN, b""),
        echo("10.0.1.7", "198.51.100.9", 9, 1, b"data"),
    ] {
        let at = packet.header.header_len()
            + match packet.header.protocol.0 {
                6 => 16,
                17 => 6,
                _ => 2,
            };
        let mut octets = packet.octets();
        octets[at] ^= 0x41;
        let wrong_by = judge::wrong_by(&octets);
        assert_ne!(wrong_by, 0);
        let seen = world.cross("work", "uplink", octets);
        assert_eq!(judge::wrong_by(&seen.octets), wrong_by, "as wrong as it was");
    }
}

#[test]
fn rfc_2474_and_3168_dscp_and_ecn_cross_untouched_both_ways() {
    let mut world = World::default();
    for tos in 0..=255 {
        let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x").tos(tos));
        assert_eq!(seen.tos(), tos);
        let seen = world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x").tos(tos));
        assert_eq!(seen.tos(), tos);
    }
}

#[test]
fn rfc_1812_df_identification_and_the_reserved_bit_cross_untouched() {
    let mut world = World::default();
    let packet = udp(CLIENT, SERVER, b"x").dont_fragment().identification(0xbeef);
    unchanged(&packet, &world.cross("work", "uplink", &packet));
    let packet = udp(SERVER, EXTERNAL, b"x").dont_fragment().identification(0xcafe);
    unchanged(&packet, &world.cross("uplink", "work", &packet));
    let mut octets = udp(CLIENT, SERVER, b"x").octets();
    octets[6] |= 0x80;
    judge::mend_header(&mut octets);
    assert_eq!(world.cross("work", "uplink", octets).fragment_word(), 0x8000);
    // DF clear stays clear.
    let packet = udp(CLIENT, SERVER, b"x").identification(7);
    assert_eq!(world.cross("work", "uplink", &packet).fragment_word(), 0);
}

#[test]
fn rfc_791_ip_options_of_every_length_cross_untouched() {
    let mut world = World::default();
    for words in 1..=10 {
        // A timestamp option, filled up with "end of options".
        let mut options = vec![0; words * 4];
        options[..4].copy_from_slice(&[0x44, 4, 5, 0]);
        let packet = udp(CLIENT, SERVER, b"with options").options(&options);
        unchanged(&packet, &world.cross("work", "uplink", &packet));
        let packet = tcp(CLIENT, SERVER, SYN, b"").options(&options);
        unchanged(&packet, &world.cross("work", "uplink", &packet));
        let packet = udp(SERVER, EXTERNAL, b"with options").options(&options);
        unchanged(&packet, &world.cross("uplink", "work", &packet));
    }
}

#[test]
fn rfc_9293_every_flag_option_number_and_pointer_crosses_untouched() {
    let mut world = World::default();
    let segment = |flags, seq, ack| Segment {
        flags,
        seq,
        ack,
        window: 4321,
        urgent: 0x1234,
        // Maximum segment size, window scale, timestamps.
        options: vec![2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    };
    // The numbers of both sides run over their ends.
    let (mut client, mut server) = (0xffff_ffd0_u32, 0xffff_ffe0_u32);
    for flags in [SYN, SYN | ECE | CWR, SYN | URG | PSH] {
        let packet = tcp(CLIENT, SERVER, segment(flags, client, 0x8000_0001), b"early");
        unchanged(&packet, &world.cross("work", "uplink", &packet));
    }
    client = client.wrapping_add(6);
    let packet = tcp(SERVER, EXTERNAL, segment(SYN | ACK | ECE, server.wrapping_sub(1), client), b"");
    unchanged(&packet, &world.cross("uplink", "work", &packet));
    for rest in 0..16u8 {
        // PSH, URG, ECE and CWR in every combination.
        let flags = ACK | (rest & 1) << 3 | (rest >> 1) << 5;
        let packet = tcp(SERVER, EXTERNAL, segment(flags, server, client), b"odd");
        unchanged(&packet, &world.cross("uplink", "work", &packet));
        server = server.wrapping_add(3);
        let packet = tcp(CLIENT, SERVER, segment(flags, client, server), b"even");
        unchanged(&packet, &world.cross("work", "uplink", &packet));
        client = client.wrapping_add(4);
    }
    assert!(client < 100 && server < 100, "they ran over");
    let packet = tcp(CLIENT, SERVER, segment(FIN | ACK, client, server), b"last");
    unchanged(&packet, &world.cross("work", "uplink", &packet));
}

#[test]
fn rfc_3168_the_reserved_bits_of_tcp_cross_untouched() {
    let mut world = World::default();
    let mut packet = tcp(CLIENT, SERVER, SYN, b"");
    packet.payload[12] |= 0x0f;
    let checksum = u16::from_be_bytes([packet.payload[16], packet.payload[17]]);
    // RFC 1624: the checksum falls by what the sum rises.
    let lowered = checksum.checked_sub(0x0f00).unwrap_or_else(|| checksum.wrapping_sub(0x0f01));
    packet.payload[16..18].copy_from_slice(&lowered.to_be_bytes());
    assert!(judge::is_sound(&packet.octets()));
    let seen = world.cross("work", "uplink", &packet);
    assert_eq!(seen.transport()[12], 0x5f);
}

#[test]
fn rfc_894_a_trailer_is_not_forwarded() {
    let mut world = World::default();
    for data in [&b""[..], b"1", b"some data"] {
        let mut octets = udp(CLIENT, SERVER, data).octets();
        octets.extend([0xee; 33]);
        let seen = world.cross("work", "uplink", octets);
        assert_eq!(seen.data(), data);
        let mut octets = udp(SERVER, EXTERNAL, data).octets();
        octets.extend([0xee; 18]);
        assert_eq!(world.cross("uplink", "work", octets).data(), data);
    }
}

#[test]
fn rfc_4787_req_10_addresses_in_the_payload_are_left_alone() {
    let mut world = World::default();
    let data = b"PORT 10,0,1,7,78,32\r\nINVITE sip:a@10.0.1.7:5060 c=IN IP4 10.0.1.7";
    for port in [21, 53, 69, 1723, 5060] {
        let seen = world.cross("work", "uplink", udp(CLIENT, ("198.51.100.9", port), data));
        assert_eq!(seen.data(), data);
    }
}

#[test]
fn client_to_client_is_the_same_path_with_the_identity_translation() {
    let mut world = World::default();
    let packet = udp("10.0.1.7:1234", "10.0.2.9:7000", b"inside").tos(0x2e).identification(99);
    let seen = world.cross("work", "lab", &packet);
    assert_eq!(seen.octets, packet.ttl(63).octets());
    assert_eq!(seen.station(), station(address("10.0.2.9")));
    let reply = udp("10.0.2.9:7000", "10.0.1.7:1234", b"back");
    assert_eq!(world.cross("lab", "work", &reply).octets, reply.ttl(63).octets());
    assert_eq!(world.occupancy().sessions, 1);
    assert_eq!(world.occupancy().mappings, 0, "nothing was translated");
}

/// A world whose uplink and clients finish partial checksums, or do not.
fn finishing(finishes: bool) -> World {
    World::with(site::site(site::PLAN, site::RULES), move |_, settings| {
        settings.finishes_checksums = finishes;
    })
}

fn partial_flow(world: &mut World, mut check: impl FnMut(&tests::Seen)) {
    for length in [0, 1, 10, 11, 1200_u16] {
        let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
        world.send_offloaded("work", udp(CLIENT, SERVER, &data).partial());
        check(&world.only("uplink"));
        world.send_offloaded("uplink", udp(SERVER, EXTERNAL, &data).partial());
        check(&world.only("work"));
        let server = ("198.51.100.9", 1000 + length);
        let connection = Connection::begin(world, CLIENT, server);
        let answer = tcp(server, EXTERNAL, (SYN | ACK, 4999, 1000), &data).options(&[1; 12]);
        world.send_offloaded("uplink", answer.partial());
        check(&world.only("work"));
        world.send_offloaded("work", connection.from_client(ACK, &data).partial());
        check(&world.only("uplink"));
    }
}

#[test]
fn virtio_5_1_6_a_partial_checksum_stays_partial_on_a_link_that_finishes_it() {
    partial_flow(&mut finishing(true), |seen| {
        let Checksum::Partial { start, offset } = seen.offload.checksum else {
            panic!("finished although the link does that");
        };
        let at = usize::from(start + offset);
        let field = u16::from_be_bytes([seen.frame[at], seen.frame[at + 1]]);
        assert_eq!(field % 0xffff, pseudo_sum(&seen.octets) % 0xffff);
    });
}

#[test]
fn virtio_5_1_6_a_partial_checksum_is_finished_for_a_link_that_does_not() {
    partial_flow(&mut finishing(false), |seen| {
        assert_eq!(seen.offload, Offload::default());
        assert!(judge::is_sound(&seen.octets), "a wrong checksum");
        assert_ne!(View::new(&seen.octets[..]).udp_checksum(), 0);
    });
}

#[test]
fn virtio_5_1_6_a_verified_checksum_is_translated_as_any_other() {
    let mut world = World::default();
    let offload = Offload::from(Checksum::Verified);
    world.send_offloaded("work", (udp(CLIENT, SERVER, b"x").octets(), offload));
    assert_eq!(world.only("uplink").from(), EXTERNAL.parse().unwrap());
}

#[test]
fn virtio_5_1_6_a_partial_checksum_in_the_wrong_place_is_dropped_and_counted() {
    let mut world = World::default();
    let (octets, _) = udp(CLIENT, SERVER, b"payload of some length").partial();
    for (start, offset) in [(33, 6), (34, 16), (34, 4), (14, 10), (0, 0), (34, 20), (44, 6)] {
        let offload = Offload::from(Checksum::Partial { start, offset });
        let before = world.drops("work", Dropped::BadOffload);
        world.send_offloaded("work", (octets.clone(), offload));
        world.quiet();
        assert_eq!(world.drops("work", Dropped::BadOffload), before + 1, "{start} {offset}");
    }
    // Nobody sums an ICMP message, nor a fragment, in part.
    let offload = Offload::from(Checksum::Partial { start: 34, offset: 2 });
    let message = echo("10.0.1.7", "198.51.100.9", 1, 1, b"x").octets();
    world.send_offloaded("work", (message, offload));
    world.quiet();
    assert_eq!(world.all_drops("work").values().sum::<u64>(), 8);
    assert_eq!(world.occupancy().sessions, 0);
}

#[test]
fn copy_on_write_no_received_octet_is_written_to() {
    let site = site::site(site::PLAN, site::RULES);
    let wires: Vec<Wire> =
        (0..3).map(|port| Wire::new(Settings { mac: port_station(port), ..Settings::default() })).collect();
    let links = wires.iter().cloned().map(Watched).collect();
    let mut datapath = Datapath::new(site, links, [1, 2, 3, 4]);
    let now = Instant::from_secs(1);
    let outgoing = udp(CLIENT, SERVER, b"forwarded");
    let cases: [(usize, Vec<u8>); 9] = [
        (1, outgoing.octets()),
        (1, udp(CLIENT, SERVER, b"answered").ttl(1).octets()),
        (1, echo("10.0.1.7", "10.0.1.1", 1, 1, b"answered").octets()),
        (1, udp(CLIENT, "198.51.100.9:27", b"dropped by a rule").octets()),
        (1, tcp(CLIENT, "198.51.100.9:26", SYN, b"reset").octets()),
        (1, udp("10.0.9.9:1", SERVER, b"spoofed").octets()),
        (0, udp(SERVER, EXTERNAL, b"translated back").octets()),
        (0, icmp_error("198.51.100.1", "192.0.2.2", (3, 1), udp(EXTERNAL, SERVER, b"quoted")).octets()),
        (0, udp("198.51.100.9:54", EXTERNAL, b"filtered").octets()),
    ];
    // `Watched` panics where a frame is not as it came. Once while next hops are unknown, and once
    // when they are known.
    for round in 0..2 {
        for (port, octets) in &cases {
            let sender = if *port == 0 { address("192.0.2.1") } else { address("10.0.1.7") };
            let octets = frame(port_station(*port), station(sender), 0x0800, octets);
            assert!(wires[*port].inject(&octets, Offload::default()));
            datapath.turn(now);
        }
        for (port, host) in [(0, "192.0.2.1"), (1, "10.0.1.7")] {
            let own = if port == 0 { "192.0.2.2" } else { "10.0.1.1" };
            let reply = tests::world::arp(
                smoltcp::wire::ArpOperation::Reply,
                (station(address(host)), address(host)),
                (port_station(port), address(own)),
            );
            let octets = tests::world::arp_octets(&reply);
            let octets = frame(port_station(port), station(address(host)), 0x0806, &octets);
            assert!(wires[port].inject(&octets, Offload::default()));
            datapath.turn(now);
        }
        assert!(!wires[0].sent().is_empty(), "round {round}: something was forwarded");
    }
    assert_eq!(datapath.ports()[1].counters.forwarded, 2);
    assert_eq!(datapath.ports()[0].counters.forwarded, 4);
    assert_eq!(wires.iter().map(Wire::outstanding).sum::<usize>(), 0);
}

#[test]
fn a_full_transmit_queue_drops_and_counts_and_never_waits() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    world.wire("uplink").set(|settings| settings.full = true);
    for n in 1..=100 {
        world.send("work", udp(CLIENT, SERVER, b"lost"));
        assert_eq!(world.drops("work", Dropped::TransmitQueue), n);
    }
    world.quiet();
    assert_eq!(world.held("work"), 0);
    // The other direction does not notice.
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"in"));
    world.wire("uplink").set(|settings| settings.full = false);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
}

#[test]
fn a_port_that_is_down_drops_and_counts() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    world.wire("uplink").set(|settings| settings.up = false);
    world.refuse("work", udp(CLIENT, SERVER, b"lost"), Dropped::PortDown);
    world.wire("uplink").set(|settings| settings.up = true);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
}

const ROUTED: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
extra = ["192.0.2.3"]

[[client]]
name = "work"
address = "10.0.1.1/24"

[[client]]
name = "vault"
address = "10.137.0.1"
peer = "10.137.0.10"

[[client]]
name = "bank"
address = "10.137.0.1"
peer = "10.137.0.11"

[[route]]
to = "172.16.0.0/12"
via = "10.0.1.254"
"#;

const OPEN: &str = r#"
table ip filter {
  chain forward { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname { "work", "vault", "bank" } accept
  }
}
table ip nat {
  chain postrouting { type nat hook postrouting priority srcnat;
    iifname "vault" oifname "uplink" snat to 192.0.2.3
    oifname "uplink" masquerade
  }
}
"#;

#[test]
fn a_network_behind_a_clients_router_is_believed_translated_and_reached() {
    let mut world = World::new(ROUTED, OPEN);
    world.send("work", udp("172.20.1.5:4000", SERVER, b"x"));
    assert_eq!(world.only("uplink").from(), "192.0.2.2:4000".parse().unwrap());
    let seen = world.cross("uplink", "work", udp(SERVER, "192.0.2.2:4000", b"y"));
    assert_eq!(seen.to(), "172.20.1.5:4000".parse().unwrap());
    assert_eq!(seen.station(), station(address("10.0.1.254")), "by way of the router");
    world.refuse("vault", udp("172.20.1.5:4000", SERVER, b"x"), Dropped::Spoofed);
}

#[test]
fn point_to_point_clients_share_the_appliances_address() {
    let mut world = World::new(ROUTED, OPEN);
    let bank = world.cross("bank", "uplink", udp("10.137.0.11:600", SERVER, b"x"));
    assert_eq!(bank.from(), "192.0.2.2:600".parse().unwrap());
    let seen = world.cross("uplink", "bank", udp(SERVER, "192.0.2.2:600", b"y"));
    assert_eq!(seen.station(), station(address("10.137.0.11")));
    world.refuse("bank", udp("10.137.0.10:600", SERVER, b"x"), Dropped::Spoofed);
    world.refuse("bank", udp("10.137.0.12:600", SERVER, b"x"), Dropped::Spoofed);
    let seen = world.cross("bank", "vault", udp("10.137.0.11:600", "10.137.0.10:1", b"x"));
    assert_eq!(seen.from(), "10.137.0.11:600".parse().unwrap());
}

#[test]
fn snat_to_an_extra_address_shows_that_address_and_answers_for_it() {
    let mut world = World::new(ROUTED, OPEN);
    let seen = world.cross("vault", "uplink", udp("10.137.0.10:600", SERVER, b"x"));
    assert_eq!(seen.from(), "192.0.2.3:600".parse().unwrap());
    let seen = world.cross("uplink", "vault", udp(SERVER, "192.0.2.3:600", b"y"));
    assert_eq!(seen.to(), "10.137.0.10:600".parse().unwrap());
    // The same port at the other address is another client's.
    let seen = world.cross("work", "uplink", udp("10.0.1.7:600", SERVER, b"x"));
    assert_eq!(seen.from(), "192.0.2.2:600".parse().unwrap());
}

#[test]
fn rfc_1812_5_2_4_3_a_host_of_the_uplinks_subnet_is_reached_directly() {
    let mut world = World::default();
    let seen = world.cross("work", "uplink", udp(CLIENT, "192.0.2.50:53", b"x"));
    assert_eq!(seen.station(), station(address("192.0.2.50")));
}
