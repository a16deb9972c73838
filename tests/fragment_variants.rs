//! Fragments of every kind that anybody could send (RFC 791, 815, 1858, 3128, 5722, 6864), and many
//! of them: what leaves never overlaps, is never mixed, and takes bounded memory.

use std::collections::BTreeSet;
use std::ops::Range;

use firewall::Dropped;
use tests::flags::ACK;
use tests::packet::{Packet, address};
use tests::{Chance, Connection, Seen, World, echo, judge, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";

/// The octets of its datagram that a fragment carries.
fn range(seen: &Seen) -> Range<usize> {
    let start = usize::from(seen.fragment_word() & 0x1fff) * 8;
    start..start + seen.transport().len()
}

/// What left, put together: nothing overlaps, and every octet is the original's. A fragment that
/// comes when its datagram has left whole begins another.
#[track_caller]
fn covered(seen: &[Seen], payload: &[u8]) -> usize {
    let mut have = vec![false; payload.len()];
    for part in seen {
        if have.iter().all(|&it| it) {
            assert_eq!(range(part).start, 0, "only a first fragment leaves by itself");
            break;
        }
        let range = range(part);
        // The first eight octets hold ports and checksum, which are translated.
        let from = range.start.max(8);
        assert_eq!(part.transport()[from - range.start..], payload[from..range.end]);
        for place in &mut have[range] {
            assert!(!std::mem::replace(place, true), "an octet left twice");
        }
    }
    have.into_iter().filter(|&it| it).count()
}

/// Fragments of one datagram arrive; what left, and how those ended that did not.
fn send(world: &mut World, whole: &Packet, ranges: &[Range<usize>]) -> (Vec<Seen>, Vec<&'static str>) {
    let before = world.all_drops("work");
    for range in ranges {
        world.send("work", whole.clone().fragment(range.clone()));
    }
    let after = world.all_drops("work");
    let ended = after.into_iter().filter(|(why, count)| before.get(why) != Some(count));
    (world.sent("uplink"), ended.map(|(why, _)| why).collect())
}

#[test]
fn rfc_5722_every_way_to_overlap_ends_the_datagram() {
    let whole = udp(CLIENT, SERVER, &[5; 192]);
    let overlaps: [&[Range<usize>]; 7] = [
        &[0..64, 56..120],
        &[0..64, 128..200, 64..136],
        &[0..64, 72..80, 64..128],
        &[0..64, 64..120, 64..128],
        &[0..64, 16..32, 8..200],
        &[0..64, 96..128, 64..104],
        &[64..128, 56..136, 0..64],
    ];
    for ranges in overlaps {
        let mut world = World::default();
        let (left, ended) = send(&mut world, &whole, ranges);
        assert!(ended.contains(&"fragment_overlap"), "{ranges:?}: {ended:?}");
        let (more, _) = send(&mut world, &whole, &[0..64, 64..128, 128..200]);
        let left = [left, more].concat();
        assert!(covered(&left, &whole.payload) < whole.payload.len(), "{ranges:?}");
    }
}

#[test]
fn rfc_5722_what_has_come_wholly_is_not_forwarded_again() {
    let whole = udp(CLIENT, SERVER, &[5; 192]);
    for again in [0..64, 64..128, 32..96, 8..16, 0..128] {
        let mut world = World::default();
        let (left, ended) = send(&mut world, &whole, &[0..64, 64..128, again, 128..200]);
        assert_eq!((covered(&left, &whole.payload), ended), (200, vec!["fragment_duplicate"]));
    }
}

#[test]
fn rfc_791_what_lies_behind_the_end_is_never_part_of_a_datagram() {
    let long = udp(CLIENT, SERVER, &[5; 400]);
    // The last fragment ends at 200, says a header that has no more of them.
    let last = |at: Range<usize>| {
        let mut part = long.clone().fragment(at);
        part.header.more_fragments = false;
        part
    };
    for late in [long.clone().fragment(200..264), last(256..320), last(64..128)] {
        let mut world = World::default();
        world.cross("work", "uplink", long.clone().fragment(0..64));
        world.cross("work", "uplink", last(128..200));
        world.refuse("work", late, Dropped::FragmentOverlap);
    }
}

#[test]
fn rfc_791_no_fragment_reaches_beyond_65535_octets() {
    let mut world = World::default();
    let part = |offset: u16, length: usize, more: bool| {
        let mut packet = Packet::new("10.0.1.7", "198.51.100.9", 17, &vec![1; length]);
        packet.header.fragment_offset = etherparse::IpFragOffset::try_new(offset).expect("13 bits");
        packet.header.more_fragments = more;
        packet
    };
    for (offset, length) in [(8191, 8), (8191, 1), (8189, 8), (8100, 1000), (8188, 12)] {
        world.refuse("work", part(offset, length, false), Dropped::Malformed);
    }
    // A fragment ahead of others has whole units of eight octets, and each has some.
    for (offset, length, more) in [(0, 0, true), (4, 0, false), (4, 0, true), (4, 7, true), (4, 9, true)] {
        world.refuse("work", part(offset, length, more), Dropped::Malformed);
    }
    assert_eq!(world.held("work"), 0);
}

#[test]
fn rfc_791_a_first_fragment_of_eight_octets_is_enough_for_udp_and_echo() {
    let mut world = World::default();
    for whole in [udp(CLIENT, SERVER, &[5; 32]), echo("10.0.1.7", "198.51.100.9", 9, 1, &[5; 32])] {
        for reversed in [false, true] {
            let mut ranges = [0..8, 8..16, 16..40];
            let whole = whole.clone().identification(u16::from(reversed));
            if reversed {
                ranges.reverse();
            }
            let (left, ended) = send(&mut world, &whole, &ranges);
            assert_eq!((covered(&left, &whole.payload), ended), (40, vec![]));
        }
    }
}

#[test]
fn rfc_3128_no_fragment_hides_or_overwrites_a_tcp_header() {
    let whole = tcp(CLIENT, "198.51.100.9:80", 2, &[0; 100]);
    for (first, second) in
        [(0..8, 8..120), (0..16, 16..120), (8..120, 0..8), (8..16, 16..120), (16..120, 0..16)]
    {
        let mut world = World::default();
        let (left, _) = send(&mut world, &whole, &[first, second]);
        assert!(left.is_empty(), "{left:?} left");
        assert_eq!(world.occupancy().sessions, 0);
    }
}

#[test]
fn req_14_df_on_a_fragment_is_no_reason_to_drop_it() {
    let mut world = World::default();
    let whole = udp(CLIENT, SERVER, &[5; 100]).dont_fragment();
    let (left, ended) = send(&mut world, &whole, &[48..108, 0..48]);
    assert_eq!((covered(&left, &whole.payload), ended), (108, vec![]));
    assert!(left.iter().all(|part| part.fragment_word() & 0x4000 != 0), "DF crosses");
}

#[test]
fn rfc_791_options_tos_and_ttl_of_each_fragment_are_its_own() {
    let mut world = World::default();
    let whole = udp(CLIENT, SERVER, &[5; 100]);
    let first = whole.clone().fragment(0..48).options(&[148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0]).tos(0x28);
    let second = whole.fragment(48..108).options(&[148, 4, 0, 0]).tos(0x2b).ttl(9);
    let seen = world.cross("work", "uplink", &first);
    assert_eq!((seen.options(), seen.tos(), seen.ttl()), (&first.header.options[..], 0x28, 63));
    let seen = world.cross("work", "uplink", &second);
    assert_eq!((seen.options(), seen.tos(), seen.ttl()), (&[148, 4, 0, 0][..], 0x2b, 8));
}

#[test]
fn rfc_6864_an_identification_is_used_again_when_its_datagram_is_whole() {
    let mut world = World::default();
    for round in 0..100u8 {
        let whole = udp(CLIENT, SERVER, &[round; 100]).identification(7);
        let ranges = if round % 2 == 0 { [0..48, 48..108] } else { [48..108, 0..48] };
        let (left, ended) = send(&mut world, &whole, &ranges);
        assert_eq!((covered(&left, &whole.payload), ended), (108, vec![]), "round {round}");
    }
}

#[test]
fn rfc_791_datagrams_differ_by_addresses_protocol_and_identification() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, CLIENT, "198.51.100.9:80");
    session.outward(&mut world, ACK, b"");
    let datagrams = [
        udp(CLIENT, SERVER, &[1; 100]),
        udp("10.0.1.8:5000", SERVER, &[2; 100]),
        udp(CLIENT, "198.51.100.10:53", &[3; 100]),
        session.from_client(ACK, &[4; 88]),
        echo("10.0.1.7", "198.51.100.9", 9, 1, &[5; 100]),
        udp(CLIENT, SERVER, &[6; 100]).identification(8),
    ];
    // All their tails come first, then all their heads.
    for whole in &datagrams {
        world.send("work", whole.clone().fragment(48..108));
    }
    world.quiet();
    for whole in &datagrams {
        let (left, ended) = send(&mut world, whole, std::slice::from_ref(&(0..48)));
        let ids: BTreeSet<u16> = left.iter().map(|part| part.identification()).collect();
        assert_eq!((left.len(), ids.len(), ended), (2, 1, vec![]));
        let fill = whole.payload[107];
        assert!(left.iter().all(|part| part.octets.last() == Some(&fill)), "mixed with another");
    }
}

#[test]
fn rfc_1812_4_3_2_7_a_dying_datagram_is_told_of_once() {
    let mut world = World::default();
    let whole = udp(CLIENT, SERVER, &[5; 200]).ttl(1);
    for range in [96..208, 0..48, 48..96] {
        world.send("work", whole.clone().fragment(range));
    }
    let told = world.only("work");
    assert_eq!(told.icmp(), (11, 0));
    assert_eq!(told.quote().octets, whole.fragment(0..48).octets());
    assert_eq!((world.drops("work", Dropped::TimeExceeded), world.drops("work", Dropped::Fragment)), (1, 2));
}

#[test]
fn fragments_of_strangers_reach_nobody() {
    let mut world = World::default();
    let external = world.open_udp(CLIENT, SERVER);
    let stranger = udp("203.0.113.5:53", external, &[5; 200]);
    for range in [48..96, 0..48, 96..208] {
        world.send("uplink", stranger.clone().fragment(range));
    }
    world.quiet();
    // Nor do they end what the peer sends meanwhile under the same identification.
    let honest = udp(SERVER, external, &[6; 200]);
    for range in [48..96, 0..48, 96..208] {
        world.send("uplink", honest.clone().fragment(range));
    }
    assert_eq!(world.sent("work").len(), 3);
}

#[test]
fn req_14_what_waits_30_seconds_is_let_go_and_what_waits_less_is_not() {
    for (age, left) in [(28, 2), (33, 1)] {
        let mut world = World::default();
        let whole = udp(CLIENT, SERVER, &[5; 100]);
        world.send("work", whole.clone().fragment(48..108));
        world.pass_in_steps(age, 1);
        world.send("work", whole.fragment(0..48));
        assert_eq!(world.sent("uplink").len(), left, "after {age} s");
        assert_eq!(world.drops("work", Dropped::FragmentTimeout), 2 - left as u64);
    }
}

#[test]
fn req_14_20000_incomplete_datagrams_of_many_hosts_lock_nobody_out() {
    let mut world = World::default();
    let external = world.open_udp("10.0.2.9:5000", SERVER);
    let free = world.free_buffers();
    let mut most = 0;
    for n in 0..20_000usize {
        let host = format!("10.0.1.{}:5000", 2 + n % 250);
        let whole = udp(host.as_str(), SERVER, &[0; 100]).identification(n as u16);
        // Heads without tails, and tails without heads.
        world.send("work", whole.fragment(if n % 3 == 0 { 0..48 } else { 48..96 }));
        most = most.max(world.held("work"));
        if n % 500 == 0 {
            world.forget();
            let whole = udp("10.0.2.9:5000", SERVER, &[1; 100]).identification(n as u16);
            for range in [48..108, 0..48] {
                world.send("lab", whole.clone().fragment(range));
            }
            assert_eq!(world.sent("uplink").len(), 2, "the other client's datagram {n}");
            let reply = udp(SERVER, external, &[2; 100]).identification(n as u16);
            for range in [48..108, 0..48] {
                world.send("uplink", reply.clone().fragment(range));
            }
            assert_eq!(world.sent("lab").len(), 2, "the reply to it {n}");
            world.cross("lab", "uplink", udp("10.0.2.9:5000", SERVER, b"whole"));
        }
    }
    // A buffer of 4 KiB each at most: within the default pool of 1 MiB.
    assert!(most <= 256, "{most} fragments held");
    world.pass_in_steps(60, 1);
    world.forget();
    assert_eq!((world.held("work"), world.free_buffers()), (0, free));
}

#[test]
fn req_14_any_fragments_in_any_order_leave_without_overlap() {
    let mut chance = Chance::from_environment(815);
    let (mut whole_ones, mut parts) = (0, 0);
    let mut world = World::default();
    for round in 0..2000u16 {
        let length = 8 + chance.below(400);
        let data = chance.octets(length);
        let datagram = udp(CLIENT, SERVER, &data).identification(round);
        let end = datagram.payload.len();
        let mut ranges = Vec::new();
        // An honest cut, sometimes with a fragment that is none of it.
        let mut at = 0;
        while at < end {
            let next = (at + 8 * (1 + chance.below(9))).min(end);
            ranges.push(at..next);
            at = next;
        }
        if ranges.len() > 1 && chance.happens(30) {
            let start = 8 * chance.below(end / 8);
            let false_end = (start + 8 * (1 + chance.below(9))).min(end);
            // From the beginning to the end it would be no fragment.
            if false_end - start < end {
                ranges.push(start..false_end);
            }
        }
        for index in (1..ranges.len()).rev() {
            ranges.swap(index, chance.below(index + 1));
        }
        let (left, ended) = send(&mut world, &datagram, &ranges);
        let covered = covered(&left, &datagram.payload);
        parts += left.len();
        whole_ones += usize::from(covered == end);
        assert!(covered == end || !ended.is_empty(), "octets are missing, and nothing ended");
        world.pass_seconds(u64::from(covered != end) * 31);
        world.forget();
    }
    assert!(whole_ones > 1000 && parts > 4000, "{whole_ones} datagrams, {parts} fragments");
}

#[test]
fn req_13_what_is_cut_here_is_cut_at_eights_in_order_with_its_header_on_every_piece() {
    let plan = tests::site::PLAN.replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 576");
    let mut world = World::new(&plan, tests::site::RULES);
    for length in [549, 556, 557, 1000, 1472] {
        // RFC 791 3.1: what is to be copied is on every piece, the rest on the first one alone.
        let mixed = &[7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 68, 4, 5, 0, 1, 130, 3, 9, 0];
        let copied = &[1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0, 1, 1, 1, 1, 1, 130, 3, 9, 0];
        let broken = &[7, 3, 4, 7, 200, 4, 0, 0];
        let cases: [(&[u8], &[u8]); 5] = [
            (&[], &[]),
            (&[148, 4, 0, 0], &[148, 4, 0, 0]),
            (&[1; 40], &[1; 40]),
            (mixed, copied),
            (broken, &[1, 1, 1, 7, 200, 4, 0, 0]),
        ];
        for (options, later) in cases {
            let mut sent = udp(CLIENT, SERVER, &vec![7; length - options.len()]).tos(0x2a);
            if !options.is_empty() {
                sent = sent.options(options);
            }
            world.send("work", &sent);
            let left = world.sent("uplink");
            let mut next = 0;
            for (index, part) in left.iter().enumerate() {
                let range = range(part);
                assert_eq!(range.start, next, "in order");
                assert!(part.total_len() <= 576);
                let more = part.fragment_word() & 0x2000 != 0;
                assert_eq!(more, index + 1 < left.len());
                assert!(!more || range.end.is_multiple_of(8));
                let options = if index == 0 { options } else { later };
                assert_eq!((part.tos(), part.ttl(), part.options()), (0x2a, 63, options));
                assert_eq!(part.source(), address("192.0.2.2"));
                next = range.end;
            }
            assert_eq!(next, sent.payload.len());
            let mut header = sent.clone();
            header.header.source = address("192.0.2.2").octets();
            header.payload = left.iter().flat_map(|part| part.transport().to_vec()).collect();
            assert!(judge::is_sound(&header.octets()), "the checksum of the whole");
        }
    }
}
