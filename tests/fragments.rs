//! RFC 4787 REQ-13 and REQ-14, RFC 791, 1858, 3128, 5722, 6864: fragments.

use std::collections::BTreeSet;
use std::ops::Range;

use firewall::Dropped;
use smoltcp::time::Duration;
use tests::flags::{ACK, SYN};
use tests::packet::Packet;
use tests::{Seen, World, echo, echo_reply, icmp_error, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const OTHER: &str = "10.0.1.8:5000";
const SERVER: &str = "198.51.100.9:53";

/// The fragments of a packet, cut at these offsets of its payload.
fn cut(whole: &Packet, at: &[usize]) -> Vec<Packet> {
    let ends = at.iter().copied().chain([whole.payload.len()]);
    let starts = [0].into_iter().chain(at.iter().copied());
    starts.zip(ends).map(|(start, end): (usize, usize)| whole.clone().fragment(start..end)).collect()
}

/// The datagram that fragments make, in whatever order; each octet comes once.
fn reassemble(fragments: &[Seen]) -> Packet {
    let mut parts: Vec<(usize, bool, Vec<u8>)> = fragments
        .iter()
        .map(|seen| {
            let word = usize::from(seen.fragment_word());
            let octets = seen.octets[seen.header_len()..seen.total_len()].to_vec();
            ((word & 0x1fff) * 8, word & 0x2000 != 0, octets)
        })
        .collect();
    parts.sort();
    let mut payload = Vec::new();
    for (index, (offset, more, octets)) in parts.iter().enumerate() {
        assert_eq!((*offset, *more), (payload.len(), index + 1 < parts.len()), "a gap or an overlap");
        payload.extend_from_slice(octets);
    }
    let ids: Vec<u16> = fragments.iter().map(|seen| seen.identification()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one identification: {ids:?}");
    let header = fragments[0].header();
    Packet::new(fragments[0].source(), fragments[0].destination(), header.protocol.0, &payload)
}

/// Every fragment of a datagram crosses, and they make it, translated as a whole one is.
fn crosses(world: &mut World, input: &str, output: &str, fragments: &[Packet], expected: &Seen) {
    fragments.iter().for_each(|fragment| world.send(input, fragment.clone()));
    let left = world.sent(output);
    let datagram = reassemble(&left);
    assert_eq!(datagram.payload, expected.octets[expected.header_len()..expected.total_len()]);
    assert!(left.iter().all(|seen| seen.source() == expected.source() && seen.ttl() == expected.ttl()));
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn req_14_fragments_in_any_order_both_ways_are_translated_as_one() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let ways = [
        ("work", "uplink", udp(CLIENT, SERVER, &[5; 1000])),
        ("uplink", "work", udp(SERVER, external, &[6; 1001])),
    ];
    for (input, output, whole) in ways {
        let expected = world.cross(input, output, whole.clone());
        for (id, order) in ORDERS.into_iter().enumerate() {
            let parts = cut(&whole.clone().identification(id as u16), &[480, 960]);
            let parts: Vec<_> = order.into_iter().map(|index| parts[index].clone()).collect();
            crosses(&mut world, input, output, &parts, &expected);
        }
    }
}

#[test]
fn req_14_tcp_and_echo_in_fragments() {
    let mut world = World::default();
    let session = tests::Connection::open(&mut world, CLIENT, SERVER);
    let segment = session.from_client(ACK, &[9; 1000]);
    let expected = world.cross("work", "uplink", segment.clone());
    let mut parts = cut(&segment.identification(9), &[400, 800]);
    parts.reverse();
    crosses(&mut world, "work", "uplink", &parts, &expected);

    let query = echo("10.0.1.7", "198.51.100.9", 7, 1, &[4; 3000]);
    let mut parts = cut(&query.identification(10), &[1376, 2752]);
    parts.reverse();
    parts.into_iter().for_each(|part| world.send("work", part));
    let left = world.sent("uplink");
    assert_eq!(left.len(), 3);
    let id = u16::from_be_bytes([reassemble(&left).payload[4], reassemble(&left).payload[5]]);
    let reply = echo_reply("198.51.100.9", "192.0.2.2", id, 1, &[4; 3000]);
    for part in cut(&reply.identification(11), &[1376, 2752]) {
        world.send("uplink", part);
    }
    assert_eq!(reassemble(&world.sent("work")).payload[8..], [4; 3000]);
}

#[test]
fn req_14_the_largest_datagram_passes_back_to_front() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    let whole = udp(CLIENT, SERVER, &[3; 65_507]).identification(1);
    let cuts: Vec<usize> = (1..45).map(|n| n * 1480).take_while(|&at| at < 65_515).collect();
    let mut parts = cut(&whole, &cuts);
    parts.reverse();
    parts.into_iter().for_each(|part| world.send("work", part));
    assert_eq!(reassemble(&world.sent("uplink")).payload[8..], [3; 65_507]);
}

#[test]
fn rfc_6864_two_clients_with_one_identification_never_mix() {
    let mut world = World::default();
    let (one, two) = (udp(CLIENT, SERVER, &[1; 100]), udp(OTHER, SERVER, &[2; 100]));
    let (one, two) = (cut(&one.identification(7), &[48]), cut(&two.identification(7), &[48]));
    for part in [&one[0], &two[0], &two[1], &one[1]] {
        world.send("work", part.clone());
    }
    let left = world.sent("uplink");
    let (first, second): (Vec<_>, Vec<_>) = left.into_iter().partition(|seen| seen.octets.last() == Some(&1));
    assert_ne!(first[0].identification(), second[0].identification());
    assert_eq!(reassemble(&first).payload[8..], [1; 100]);
    assert_eq!(reassemble(&second).payload[8..], [2; 100]);
}

#[test]
fn req_13_df_clear_leaves_in_pieces_in_order_and_df_set_is_answered() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    let whole = udp(CLIENT, SERVER, &[7; 1453]);
    world.send("work", whole.clone());
    let left = world.sent("uplink");
    assert_eq!(left.iter().map(|seen| seen.total_len()).collect::<Vec<_>>(), [1396, 105]);
    assert_eq!(left[0].fragment_word() & 0x1fff, 0);
    assert_eq!(reassemble(&left).payload[8..], [7; 1453]);
    // A fragment that is itself too large is cut again.
    for part in cut(&whole.identification(5), &[1440]) {
        world.send("work", part);
    }
    assert_eq!(reassemble(&world.sent("uplink")).payload[8..], [7; 1453]);
    let error = world.answer("work", udp(CLIENT, SERVER, &[7; 1453]).dont_fragment());
    assert_eq!((error.icmp(), error.icmp_word()), ((3, 4), [0, 0, 5, 120]));
}

#[test]
fn req_13_a_partial_checksum_is_finished_before_the_packet_is_cut() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    let whole = udp(CLIENT, SERVER, &[7; 1453]);
    world.send("work", whole.clone());
    let expected = reassemble(&world.sent("uplink")).payload;
    world.send_offloaded("work", whole.partial());
    assert_eq!(reassemble(&world.sent("uplink")).payload, expected);
}

#[test]
fn rfc_6864_what_is_cut_here_gets_an_identification_of_its_own() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    let mut ids = Vec::new();
    for client in [CLIENT, OTHER] {
        world.send("work", udp(client, SERVER, &[7; 1453]).identification(9));
        ids.push(world.sent("uplink")[1].identification());
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn rfc_6864_5_3_1_whole_datagrams_that_may_be_cut_further_on_never_share_an_identification() {
    let mut world = World::default();
    let mut used = BTreeSet::new();
    for host in 2..40 {
        for id in [0, 7, 8] {
            let packet = udp((format!("10.0.1.{host}").as_str(), 5000), SERVER, &[1; 41]);
            let seen = world.cross("work", "uplink", packet.identification(id));
            assert!(used.insert(seen.identification()), "10.0.1.{host} with {id}");
            assert!(host > 2 || seen.identification() == id, "unique as it is, it is kept");
        }
    }
    // To other peers, of other protocols, and of one client they are what they were.
    for (from, to) in [(CLIENT, "203.0.113.5:53"), (OTHER, "203.0.113.6:53")] {
        for _ in 0..2 {
            let seen = world.cross("work", "uplink", udp(from, to, &[1; 41]).identification(7));
            assert_eq!(seen.identification(), 7);
        }
    }
    let seen = world.cross("work", "uplink", tcp(OTHER, SERVER, SYN, &[1; 41]).identification(7));
    assert_eq!(seen.identification(), 7);
}

#[test]
fn rfc_6864_4_1_atomic_datagrams_and_untranslated_ones_keep_their_identification() {
    let mut world = World::default();
    for client in [CLIENT, OTHER] {
        let packet = udp(client, SERVER, &[1; 41]).identification(7).dont_fragment();
        assert_eq!(world.cross("work", "uplink", packet).identification(), 7);
        let packet = udp(client, "10.0.2.9:7000", &[1; 41]).identification(7);
        assert_eq!(world.cross("work", "lab", packet).identification(), 7);
        // Nobody may cut a datagram of 68 octets (RFC 791 3.2).
        let packet = udp(client, SERVER, &[1; 40]).identification(7);
        assert_eq!(world.cross("work", "uplink", packet).identification(), 7);
    }
}

#[test]
fn a_piece_that_nobody_takes_is_not_mistaken_for_a_packet() {
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 1400");
    let mut world = World::new(&plan, site::RULES);
    world.silent.insert([192, 0, 2, 77].into());
    // What the sender put where a frame would have its headers: a packet of somebody else.
    let forged = world.frame_for(1, &udp("10.0.1.99:1", "198.51.100.9:2", &[1; 40]).octets());
    let mut data = vec![0; 1368];
    data.extend_from_slice(&forged);
    world.send("work", udp(CLIENT, "192.0.2.77:53", &data));
    world.pass_in_steps(8, 1);
    world.quiet();
    assert!(world.drops("work", Dropped::Unresolved) >= 2);
}

/// Sends fragments of one datagram; how many left, and how those ended that did not.
fn fate(whole: &Packet, ranges: &[Range<usize>]) -> (usize, Vec<(&'static str, u64)>) {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    for range in ranges {
        world.send("work", whole.clone().fragment(range.clone()));
    }
    (world.sent("uplink").len(), world.all_drops("work").into_iter().collect())
}

#[test]
fn rfc_5722_overlaps_end_the_datagram_and_duplicates_do_no_harm() {
    let whole = udp(CLIENT, SERVER, &[5; 200]);
    assert_eq!(fate(&whole, &[0..48, 48..96, 48..96, 96..208]), (3, vec![("fragment_duplicate", 1)]));
    let (left, ended) = fate(&whole, &[0..48, 40..96, 96..208]);
    assert_eq!((left, ended), (1, vec![("fragment", 1), ("fragment_overlap", 1)]));
}

#[test]
fn rfc_1858_and_3128_tiny_fragments_are_dropped() {
    let whole = tcp(CLIENT, SERVER, ACK, &[5; 100]);
    assert_eq!(fate(&whole, &[0..8, 8..120]), (0, vec![("malformed", 2)]));
}

#[test]
fn what_the_first_fragment_meets_the_others_meet() {
    let mut world = World::default();
    // UDP port 27 is dropped by a rule.
    let parts = cut(&udp(CLIENT, "198.51.100.9:27", &[5; 200]), &[48, 96]);
    for index in [1, 0, 2] {
        world.send("work", parts[index].clone());
    }
    world.quiet();
    assert_eq!((world.drops("work", Dropped::Policy), world.drops("work", Dropped::Fragment)), (1, 2));
    assert_eq!(world.occupancy().sessions, 0);
}

#[test]
fn a_fragment_whose_first_one_never_comes_is_let_go_after_its_time() {
    let mut world = World::default();
    world.open_udp(CLIENT, SERVER);
    let free = world.free_buffers();
    world.send("work", udp(CLIENT, SERVER, &[5; 100]).fragment(48..108));
    world.quiet();
    world.pass_in_steps(40, 1);
    assert_eq!(world.drops("work", Dropped::FragmentTimeout), 1);
    assert_eq!(world.free_buffers(), free);
}

/// Sends the parts of an echo request in this order; the reply's parts make the reply.
fn echoes(world: &mut World, port: &str, query: &Packet, reply: &Packet, order: [usize; 3]) {
    let parts = cut(query, &[1376, 2752]);
    order.into_iter().for_each(|index| world.send(port, parts[index].clone()));
    let answer = world.sent(port);
    assert_eq!(answer.len(), 3);
    assert!(answer.iter().all(|seen| seen.identification() == query.header.identification));
    let whole = reassemble(&answer);
    assert_eq!(whole.octets(), reply.octets(), "the reply, with its checksum");
    world.quiet();
}

#[test]
fn rfc_1122_3_2_2_6_an_echo_request_in_fragments_is_answered_in_any_order() {
    let mut world = World::default();
    for (id, order) in ORDERS.into_iter().enumerate() {
        for (port, host, own) in [
            ("work", "10.0.1.7", "10.0.1.1"),
            ("uplink", "198.51.100.9", "192.0.2.2"),
            ("lab", "10.0.2.7", "192.0.2.2"),
        ] {
            let query = echo(host, own, 7, 1, &[id as u8; 3001]).identification(id as u16 + 1);
            echoes(&mut world, port, &query, &echo_reply(own, host, 7, 1, &[id as u8; 3001]), order);
        }
    }
    let fragments = (world.drops("work", Dropped::Fragment), world.drops("uplink", Dropped::Fragment));
    assert_eq!((fragments, world.answered("work"), world.occupancy().sessions), ((0, 0), 18, 0));
}

#[test]
fn rfc_1624_an_echo_request_in_fragments_with_a_wrong_checksum_is_answered_with_one() {
    let mut world = World::default();
    let mut query = echo("10.0.1.7", "10.0.1.1", 7, 1, &[5; 100]);
    query.payload[2] ^= 0x55;
    for part in cut(&query, &[48]) {
        world.send("work", part);
    }
    assert!(!tests::judge::is_sound(&reassemble(&world.sent("work")).octets()));
}

#[test]
fn an_echo_request_in_fragments_is_answered_as_often_as_a_whole_one() {
    let mut world = World::default();
    for id in 0..1050 {
        for part in cut(&echo("10.0.1.7", "10.0.1.1", 7, 1, &[5; 40]).identification(id), &[24]) {
            world.send("work", part);
        }
    }
    assert_eq!((world.answered("work"), world.drops("work", Dropped::AnswerLimited)), (2000, 50));
    assert_eq!(world.drops("work", Dropped::Fragment), 50, "the others of those 50");
}

#[test]
fn what_the_input_chain_refuses_in_fragments_is_not_answered() {
    let mut world = World::new(site::PLAN, &site::RULES.replace("icmp type echo-request accept", ""));
    for part in cut(&echo("10.0.1.7", "10.0.1.1", 1, 1, &[5; 100]), &[48]) {
        world.send("work", part);
    }
    world.quiet();
    assert_eq!((world.drops("work", Dropped::Policy), world.drops("work", Dropped::Fragment)), (1, 1));
}

#[test]
fn other_fragments_for_the_appliance_itself_meet_what_whole_packets_meet() {
    let rules = site::RULES.replace("icmp type echo-request accept", "accept");
    let mut world = World::new(site::PLAN, &rules);
    let parts = cut(&udp(CLIENT, "10.0.1.1:99", &[5; 100]), &[48]);
    let error = world.answer("work", &parts[0]);
    assert_eq!((error.icmp(), error.quote().octets), ((3, 3), parts[0].octets()));
    world.refuse("work", &parts[1], Dropped::Fragment);
    let parts = cut(&tcp(CLIENT, "10.0.1.1:99", SYN, &[5; 100]), &[48]);
    world.refuse("work", &parts[0], Dropped::Fragment);
    world.refuse("work", &parts[1], Dropped::Fragment);
    let parts = cut(&udp(SERVER, "192.0.2.2:99", &[5; 100]), &[48]);
    world.refuse("uplink", &parts[0], Dropped::Unsolicited);
    world.refuse("uplink", &parts[1], Dropped::Fragment);
}

#[test]
fn req_14_and_req_9_hairpinned_datagrams_in_fragments_cross_both_ways() {
    // Behind one port and behind two.
    for (port, two) in [("work", "10.0.1.8:6000"), ("lab", "10.0.2.8:6000")] {
        let mut world = World::default();
        let outside_one = world.open_udp(CLIENT, SERVER);
        let outside_two = world.open_udp(two, SERVER);
        for (id, order) in ORDERS.into_iter().enumerate() {
            let there = udp(CLIENT, outside_two, &[5; 1000]).identification(id as u16);
            let back = udp(two, outside_one, &[6; 999]).identification(id as u16);
            for (input, output, sent, arrives) in [
                ("work", port, there, udp(outside_one, two, &[5; 1000])),
                (port, "work", back, udp(outside_two, CLIENT, &[6; 999])),
            ] {
                let parts = cut(&sent, &[480, 960]);
                order.into_iter().for_each(|index| world.send(input, parts[index].clone()));
                assert_eq!(reassemble(&world.sent(output)).octets(), arrives.octets());
                world.quiet();
            }
        }
    }
}

#[test]
fn fragments_held_never_exceed_the_pool_that_the_site_gives_them() {
    for (octets, held, of_one) in [("64K", 8, 2), ("256K", 32, 8), ("2M", 256, 64)] {
        let mut world =
            World::new(&site::plan_with(&format!("[nat]\nfragments = \"{octets}\"")), site::RULES);
        for host in 10..100 {
            for id in 0..70 {
                let whole = udp((format!("10.0.1.{host}").as_str(), 5000), SERVER, &[5; 100]);
                world.send("work", whole.identification(id).fragment(48..108));
            }
            if host == 10 {
                assert_eq!(world.held("work"), of_one, "{octets}");
            }
            assert!(world.held("work") <= held, "{octets}");
        }
        // Sources share classes of their quota by a keyed hash: the pool is full all the same.
        assert_eq!(world.held("work"), held, "{octets}");
    }
}

#[test]
fn req_14_icmp_errors_in_fragments_are_translated_both_ways_in_any_order() {
    for (id, order) in ORDERS.into_iter().enumerate() {
        let mut world = World::default();
        let sent = udp(CLIENT, SERVER, &[5; 1000]);
        let outside = world.cross("work", "uplink", &sent).octets.clone();
        let answer = udp(SERVER, "192.0.2.2:5000", &[6; 1000]);
        let inside = world.cross("uplink", "work", &answer).octets.clone();
        // From a router on the way, from the peer, and from the client.
        for (input, output, source, target, quote) in [
            ("uplink", "work", "198.51.100.1", "192.0.2.2", &outside),
            ("uplink", "work", "198.51.100.9", "192.0.2.2", &outside),
            ("work", "uplink", "10.0.1.7", "198.51.100.9", &inside),
        ] {
            let error = icmp_error(source, target, (3, 3), &quote[..]).identification(id as u16);
            let expected = world.cross(input, output, &error);
            let parts = cut(&error, &[296, 600]);
            order.into_iter().for_each(|index| world.send(input, parts[index].clone()));
            let left = world.sent(output);
            let whole = reassemble(&left);
            assert_eq!(whole.payload, expected.transport(), "{source}");
            assert!(left.iter().all(|seen| seen.source() == expected.source()), "{source}");
            assert!(left.iter().all(|seen| seen.destination() == expected.destination()), "{source}");
            assert!(tests::judge::is_sound(&whole.octets()));
        }
    }
}

#[test]
fn req_14_what_is_older_than_30_seconds_is_no_datagram_any_more_though_nobody_looked() {
    for (millis, left) in [(29_999, 1), (30_000, 0)] {
        let mut world = World::default();
        world.open_udp(CLIENT, SERVER);
        let parts = cut(&udp(CLIENT, SERVER, &[5; 200]), &[48, 96]);
        world.send("work", parts[0].clone());
        assert_eq!(world.sent("uplink").len(), 1);
        // The fragment arrives with the time: no upkeep comes between.
        world.queue("work", parts[1].clone());
        world.pass(Duration::from_millis(millis));
        assert_eq!(world.sent("uplink").len(), left, "{millis}");
    }
}
