//! Frames that are larger than a link: TCP segments which a device passes on before they are cut
//! (virtio 1.2, 5.1.6.4), and what becomes of them on links that cut and on links that do not.

use firewall::Dropped;
use netback::{Checksum, Offload, Segments};
use tests::chance::Chance;
use tests::flags::{ACK, CWR, FIN, PSH};
use tests::packet::{At, Packet, pseudo_sum};
use tests::{Connection, Seen, View, World, judge, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:80";
/// Octets of payload in a segment of an Ethernet link.
const SIZE: u16 = 1460;

/// A world whose devices complete checksums and cut segments, or do neither.
fn world(cuts: bool) -> World {
    World::with(site::site(site::PLAN, site::RULES), move |_, settings| {
        (settings.finishes_checksums, settings.cuts_segments) = (cuts, cuts);
    })
}

fn octets(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + 7) as u8).collect()
}

/// A frame that left whole is what was sent, translated, with the same segments to cut.
fn check_whole(seen: &Seen, data: &[u8], size: u16) {
    assert_eq!(seen.data(), data);
    assert_eq!(seen.offload.segments.map(|segments| segments.size.get()), Some(size));
    assert!(matches!(seen.offload.checksum, Checksum::Partial { start: 34, offset: 16 }));
    assert_eq!(seen.tcp().checksum % 0xffff, pseudo_sum(&seen.octets) % 0xffff);
}

/// Frames that left are the segments of what was sent, each complete.
fn check_cut(sent: &[Seen], seq: u32, flags: u8, data: &[u8], size: usize) {
    assert_eq!(sent.len(), data.len().div_ceil(size));
    let mut together = Vec::new();
    for (index, seen) in sent.iter().enumerate() {
        assert_eq!(seen.offload, Offload::default());
        assert!(judge::is_sound(&seen.octets), "a wrong checksum in segment {index}");
        assert_eq!(seen.tcp().sequence_number, seq.wrapping_add(together.len() as u32));
        let (first, last) = (index == 0, index + 1 == sent.len());
        let without = if last { 0 } else { FIN | PSH } | if first { 0 } else { CWR };
        assert_eq!(seen.tcp_flags(), flags & !without);
        assert_eq!(seen.identification(), sent[0].identification().wrapping_add(index as u16));
        together.extend_from_slice(seen.data());
    }
    assert_eq!(together, data);
}

#[test]
fn virtio_5_1_6_large_segments_cross_whole_between_links_that_cut_them() {
    let mut world = world(true);
    let mut session = Connection::open(&mut world, CLIENT, SERVER);
    for length in [1461, 4000, 4031, 40_000, 65_495] {
        let data = octets(length);
        world.send_offloaded("work", session.from_client(ACK | PSH, &data).large(SIZE));
        let seen = world.only("uplink");
        check_whole(&seen, &data, SIZE);
        assert_eq!((seen.from(), seen.to(), seen.ttl()), (session.external, SERVER.at(), 63));
        session.client_seq = session.client_seq.wrapping_add(length as u32);
        session.inward(&mut world, ACK, b"");
        world.send_offloaded("uplink", session.from_server(ACK, &data).large(SIZE));
        let seen = world.only("work");
        check_whole(&seen, &data, SIZE);
        assert_eq!((seen.from(), seen.to()), (SERVER.at(), CLIENT.at()));
        session.server_seq = session.server_seq.wrapping_add(length as u32);
        session.outward(&mut world, ACK, b"");
    }
    session.talk(&mut world);
    session.close(&mut world);
}

#[test]
fn virtio_5_1_6_large_segments_are_cut_for_links_that_do_not() {
    let mut world = world(false);
    let mut session = Connection::open(&mut world, CLIENT, SERVER);
    for (length, flags) in [(1461, ACK | PSH), (40_000, ACK | PSH | CWR), (65_495, ACK | FIN | PSH)] {
        let data = octets(length);
        let packet = session.from_client(flags, &data).identification(0xfff0);
        world.send_offloaded("work", packet.large(SIZE));
        let sent = world.sent("uplink");
        check_cut(&sent, session.client_seq, flags, &data, SIZE.into());
        assert!(sent.iter().all(|seen| seen.from() == session.external && seen.ttl() == 63));
        session.client_seq = session.client_seq.wrapping_add(length as u32);
        if flags & FIN == 0 {
            session.inward(&mut world, ACK, b"");
        }
    }
}

#[test]
fn one_that_fits_a_single_segment_is_nothing_to_cut() {
    for cuts in [true, false] {
        let mut world = world(cuts);
        let session = Connection::open(&mut world, CLIENT, SERVER);
        world.send_offloaded("work", session.from_client(ACK, &octets(1460)).large(SIZE));
        let seen = world.only("uplink");
        assert_eq!((seen.data().len(), seen.offload.segments), (1460, None));
    }
}

#[test]
fn rfc_1191_the_size_of_segments_decides_not_that_of_the_frame() {
    let mut world = World::with(site::site(site::PLAN, site::RULES), |port, settings| {
        settings.mtu = if port == 0 { 1400 } else { 1500 };
    });
    let session = Connection::open(&mut world, CLIENT, SERVER);
    let data = octets(20_000);
    // Small enough, although the frame is not.
    world.send_offloaded("work", session.from_client(ACK, &data).dont_fragment().large(1360));
    check_whole(&world.only("uplink"), &data, 1360);
    // One octet more: RFC 1191, with the MTU that there is.
    world.send_offloaded("work", session.from_client(ACK, &data).dont_fragment().large(1361));
    let told = world.only("work");
    assert_eq!((told.icmp(), told.icmp_word()), ((3, 4), [0, 0, 5, 120]));
    assert_eq!(world.drops("work", Dropped::TooBig), 1);
    // Without DF the segments are cut to fit.
    world.send_offloaded("work", session.from_client(ACK, &data).large(1460));
    check_whole(&world.only("uplink"), &data, 1360);
    // And what was to be a single one that does not fit becomes two.
    world.send_offloaded("work", session.from_client(ACK, &octets(1450)).large(1460));
    check_whole(&world.only("uplink"), &octets(1450), 1360);
}

#[test]
fn hairpinned_and_routed_large_segments_cross() {
    let mut world = world(true);
    let data = octets(30_000);
    let opening = tcp("10.0.1.7:1234", "10.0.2.9:7000", (tests::flags::SYN, 99, 0), b"");
    world.cross("work", "lab", &opening);
    world.cross(
        "lab",
        "work",
        tcp("10.0.2.9:7000", "10.0.1.7:1234", (tests::flags::SYN | ACK, 499, 100), b""),
    );
    world.send_offloaded("work", tcp("10.0.1.7:1234", "10.0.2.9:7000", (ACK, 100, 500), &data).large(SIZE));
    let seen = world.only("lab");
    check_whole(&seen, &data, SIZE);
    assert_eq!(seen.from(), "10.0.1.7:1234".at());
}

#[test]
fn what_asks_to_be_cut_and_is_no_tcp_segment_is_dropped_and_counted() {
    let mut world = World::default();
    let session = Connection::open(&mut world, CLIENT, SERVER);
    let (good, offload) = session.from_client(ACK, &octets(9000)).large(SIZE);
    let mut expect = |octets: Vec<u8>, offload: Offload, reason: Dropped| {
        let before = world.drops("work", reason);
        world.send_offloaded("work", (octets, offload));
        world.quiet();
        assert_eq!(world.drops("work", reason), before + 1, "{reason:?}");
    };
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        change(&mut octets);
        mend(&mut octets);
        octets
    };
    let segments = offload.segments;
    let (datagram, partial) = udp(CLIENT, "198.51.100.9:53", &octets(9000)).partial();
    expect(datagram, Offload { segments, ..partial }, Dropped::Malformed);
    for place in [(34, 6), (33, 16), (38, 16), (0, 0), (34, 40)] {
        let checksum = Checksum::Partial { start: place.0, offset: place.1 };
        expect(good.clone(), Offload { checksum, segments }, Dropped::BadOffload);
    }
    // A fragment, a header longer than the packet, one that ends within the TCP header, another version.
    expect(with(&|packet| packet[6] = 0x20), offload, Dropped::Malformed);
    expect(with(&|packet| packet[7] = 1), offload, Dropped::Malformed);
    expect(with(&|packet| packet[0] = 0x44), offload, Dropped::Malformed);
    expect(with(&|packet| packet[0] = 0x65), offload, Dropped::Malformed);
    expect(with(&|packet| packet[2..4].copy_from_slice(&39_u16.to_be_bytes())), offload, Dropped::Malformed);
    expect(
        with(&|packet| packet[2..4].copy_from_slice(&9041_u16.to_be_bytes())),
        offload,
        Dropped::Malformed,
    );
    expect(with(&|packet| packet[32] = 0x40), offload, Dropped::Malformed);
    let mut damaged = good.clone();
    damaged[10] ^= 1;
    expect(damaged, offload, Dropped::HeaderChecksum);
}

/// Makes the header checksum right again.
fn mend(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let length = usize::from(packet[0] & 15) * 4;
    let sum = packet[..length].chunks(2).fold(0_u32, |sum, pair| {
        let sum = sum + u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        (sum & 0xffff) + (sum >> 16)
    });
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn tiny_segments_of_a_large_frame_are_not_multiplied() {
    let mut world = world(false);
    let session = Connection::open(&mut world, CLIENT, SERVER);
    let before = world.drops("work", Dropped::Malformed);
    world.send_offloaded("work", session.from_client(ACK, &octets(60_000)).large(1));
    world.quiet();
    assert_eq!(world.drops("work", Dropped::Malformed), before + 1);
    assert_eq!(world.held("work"), 0);
}

#[test]
fn rfc_9293_windows_count_all_of_a_large_segment() {
    let mut world = World::default();
    let mut session = Connection::open(&mut world, CLIENT, SERVER);
    let data = octets(60_000);
    world.send_offloaded("work", session.from_client(ACK, &data).large(SIZE));
    world.only("uplink");
    // What is acknowledged was sent: the middle, the end, but nothing beyond it.
    let start = session.client_seq;
    for (ack, passes) in [(30_000, true), (60_000, true), (60_001, false)] {
        let reply = tcp(SERVER, session.external, (ACK, session.server_seq, start.wrapping_add(ack)), b"");
        world.send("uplink", &reply);
        assert_eq!(world.sent("work").len(), usize::from(passes), "{ack}");
    }
    session.client_seq = start.wrapping_add(60_000);
    session.talk(&mut world);
}

#[test]
fn whatever_offload_fields_say_nothing_leaves_that_a_link_could_not_carry() {
    let mut chance = Chance::from_environment(71);
    for cuts in [true, false] {
        let mut world = world(cuts);
        world.judges.iter_mut().for_each(|judge| judge.transport = false);
        let mut session = Connection::open(&mut world, CLIENT, SERVER);
        for round in 0..4000 {
            let length = chance.below(if round % 8 == 0 { 65_000 } else { 9000 });
            let mut packet: Packet = session.from_client(ACK, &octets(length));
            if chance.happens(2) {
                packet = packet.dont_fragment();
            }
            let (mut octets, mut offload) = packet.large(1 + chance.half() % 3000);
            if chance.happens(4) {
                let at = chance.below(octets.len().min(60));
                octets[at] = chance.octet();
                mend(&mut octets);
            }
            if chance.happens(8) {
                offload.checksum =
                    Checksum::Partial { start: chance.half() % 80, offset: chance.half() % 40 };
            }
            if chance.happens(30) {
                offload.segments = offload.segments.map(|it| Segments { is_ecn: true, ..it });
            }
            world.send_offloaded("work", (octets, offload));
            world.forget();
            if chance.happens(16) {
                session = Connection::open(&mut world, ("10.0.1.7", 6000 + round), SERVER);
            }
        }
        assert!(world.forwarded("work") > 500);
        assert_eq!(world.held("work"), 0);
    }
}

#[test]
fn an_answer_about_a_large_segment_quotes_its_beginning() {
    let mut world = World::default();
    let session = Connection::open(&mut world, CLIENT, SERVER);
    world.send_offloaded("work", session.from_client(ACK, &octets(20_000)).ttl(1).large(SIZE));
    let told: Seen = world.only("work");
    assert_eq!(told.icmp(), (11, 0));
    let quote: View = told.quote();
    assert_eq!((quote.from(), quote.to()), (CLIENT.at(), SERVER.at()));
    assert!(told.octets.len() <= 576);
}
