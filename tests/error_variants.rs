//! ICMP errors of every kind and shape (RFC 792, 1812, 4884, 5508): translated to the last octet, or
//! dropped for their reason.

use firewall::Dropped;
use tests::flags::{ACK, PSH, SYN};
use tests::packet::{Packet, address, error_word};
use tests::{Connection, Seen, World, echo, echo_reply, icmp, icmp_error, judge, tcp, udp};

const ROUTER: &str = "203.0.113.77";
const EXTERNAL: &str = "192.0.2.2";
const SERVER: &str = "198.51.100.9";

/// Types and codes of errors that a NAT passes on.
fn kinds() -> impl Iterator<Item = (u8, u8)> + Clone {
    (0..16).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (12, 1), (12, 2)])
}

/// A packet of each protocol as its sender sent it, as the other end got it, and where each is.
struct Told {
    sent: Packet,
    got: Seen,
    /// Whoever sends the error: its port.
    from: &'static str,
    /// Whoever gets it: its port.
    to: &'static str,
    /// Destination of the error as it is sent: the source of the packet as it was got.
    reporter: &'static str,
}

/// Sessions whose ports collide, so that preservation hides no fault.
fn outbound(world: &mut World) -> Vec<Told> {
    world.open_udp("10.0.1.6:5000", "198.51.100.9:53");
    Connection::open(world, "10.0.1.6:5000", "198.51.100.9:80");
    world.cross("work", "uplink", echo("10.0.1.6", SERVER, 5000, 1, b""));
    let mut connection = Connection::open(world, "10.0.1.7:5000", "198.51.100.9:80");
    let segment = connection.from_client(ACK | PSH, &[3; 600]);
    let sent = [
        (udp("10.0.1.7:5000", "198.51.100.9:53", &[1; 600]), None),
        (segment, Some(connection.outward(world, ACK | PSH, &[3; 600]))),
        (echo("10.0.1.7", SERVER, 5000, 7, &[2; 600]), None),
    ];
    let told = |(sent, got): (Packet, Option<Seen>)| {
        let got = got.unwrap_or_else(|| world.cross("work", "uplink", &sent));
        Told { sent, got, from: "uplink", to: "work", reporter: ROUTER }
    };
    sent.into_iter().map(told).collect()
}

/// Packets that came in from outside: replies and a static forward's.
fn inbound(world: &mut World) -> Vec<Told> {
    let replies = outbound(world).into_iter().map(|Told { got, .. }| match got.protocol() {
        17 => udp(got.to(), got.from(), &[4; 600]),
        6 => tcp(got.to(), got.from(), (ACK | PSH, 5000, 1600), &[5; 600]),
        _ => echo_reply(SERVER, EXTERNAL, got.id(), 7, &[2; 600]),
    });
    let forwarded = udp("198.51.100.9:7777", "192.0.2.2:8080", &[6; 600]);
    let sent: Vec<Packet> = replies.chain([forwarded]).collect();
    let told = |sent: Packet| {
        let got = world.cross("uplink", "work", &sent);
        Told { sent, got, from: "work", to: "uplink", reporter: "10.0.1.254" }
    };
    sent.into_iter().map(told).collect()
}

/// Packets between clients: routed, to the static forward, and to a mapping.
fn between(world: &mut World) -> Vec<Told> {
    let mapping = world.open_udp("10.0.2.9:6000", "198.51.100.9:53");
    let routed = udp("10.0.1.7:1234", "10.0.2.9:7000", &[1; 600]);
    let hairpin = udp("10.0.1.7:1234", mapping, &[2; 600]);
    let forward = udp("10.0.2.9:1234", "192.0.2.2:8080", &[3; 600]);
    let mut told = Vec::new();
    for (from, to, reporter, sent) in [
        ("work", "lab", "10.0.2.254", routed),
        ("work", "lab", "10.0.2.254", hairpin),
        ("lab", "work", "10.0.1.254", forward),
    ] {
        let got = world.cross(from, to, &sent);
        told.push(Told { sent, got, from: to, to: from, reporter });
    }
    told
}

/// The error is about the packet as its sender sent it, cut where the error cut it.
#[track_caller]
fn reverted(seen: &Seen, told: &Told, kind: (u8, u8), length: usize) {
    assert_eq!((seen.icmp(), seen.icmp_word()), (kind, error_word(kind)));
    assert_eq!(seen.destination().octets(), told.sent.header.source);
    let mut expected = told.sent.clone().ttl(seen.quote().ttl()).octets();
    expected.truncate(length);
    assert_eq!(seen.quote().octets, expected, "what was sent, octet for octet");
    assert!(judge::is_sound(&seen.octets), "the checksum of the error");
}

#[test]
fn req_4_5_and_7_errors_of_every_kind_and_length_are_reverted_on_every_way() {
    type Way = fn(&mut World) -> Vec<Told>;
    for way in [outbound as Way, inbound, between] {
        let mut world = World::default();
        for told in way(&mut world) {
            let got = &told.got.octets;
            for length in [28, 29, 36, 40, 41, 127, 128, 129, 548, got.len()] {
                for kind in kinds() {
                    let error = icmp_error(told.reporter, told.got.source(), kind, &got[..length]);
                    let seen = world.cross(told.from, told.to, error);
                    reverted(&seen, &told, kind, length);
                    if told.to == "uplink" {
                        assert_eq!(seen.source(), address(EXTERNAL));
                    }
                }
            }
        }
    }
}

#[test]
fn req_4_the_outer_header_of_an_error_crosses_as_it_came() {
    let mut world = World::default();
    for told in outbound(&mut world) {
        let quote = &told.got.octets[..60];
        for options in [&[][..], &[148, 4, 0, 0], &[1; 40]] {
            let mut error = icmp_error(ROUTER, EXTERNAL, (3, 1), quote).tos(0xc0).dont_fragment();
            error.header.identification = 0x7777;
            if !options.is_empty() {
                error = error.options(options);
            }
            let seen = world.cross("uplink", "work", &error);
            assert_eq!((seen.tos(), seen.options(), seen.ttl()), (0xc0, options, 63));
            assert_eq!((seen.identification(), seen.fragment_word()), (0x7777, 0x4000));
            assert_eq!((seen.source(), seen.destination()), (address(ROUTER), address("10.0.1.7")));
            reverted(&seen, &told, (3, 1), 60);
        }
    }
}

#[test]
fn req_4_the_word_and_what_follows_the_quote_are_the_reporters() {
    let mut world = World::default();
    for told in outbound(&mut world) {
        for word in [[0, 0, 0, 0], [0, 0, 5, 0x14], [20, 0, 0, 0], [0, 32, 0, 0], [0xff; 4]] {
            let data = [&told.got.octets[..128], &[0x20, 0, 0xe9, 0xfe, 0, 8, 1, 1, 0, 0, 0x3f, 1]].concat();
            let seen = world.cross("uplink", "work", icmp(ROUTER, EXTERNAL, (11, 0), word, &data));
            assert_eq!((seen.icmp_word(), &seen.data()[128..]), (word, &data[128..]));
        }
    }
}

/// The quoted packet changed on its way, its header checksum right again.
fn changed(got: &Seen, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut quote = got.octets.clone();
    change(&mut quote);
    judge::mend_header(&mut quote);
    quote
}

#[test]
fn req_3_and_4_what_routers_changed_in_the_quote_is_left_as_it_is() {
    let mut world = World::default();
    world.judges.iter_mut().for_each(|judge| judge.transport = false);
    for told in outbound(&mut world) {
        type Change = fn(&mut Vec<u8>);
        let changes: [(usize, Change); 6] = [
            (8, |quote| quote[8] = 0),
            (8, |quote| quote[8] = 1),
            (8, |quote| quote[8] = 255),
            (1, |quote| quote[1] = 0xff),
            (6, |quote| quote[6] |= 0x40),
            // A total length in the byte order of some old hosts.
            (2, |quote| quote.swap(2, 3)),
        ];
        for (at, change) in changes {
            let quote = changed(&told.got, change);
            let error = icmp_error(ROUTER, EXTERNAL, (11, 0), &quote[..64]);
            let seen = world.cross("uplink", "work", error);
            assert_eq!(seen.quote().octets[at], quote[at]);
            assert_eq!(seen.quote().source(), address("10.0.1.7"));
        }
    }
}

#[test]
fn req_3_quotes_that_do_not_hold_together_are_dropped() {
    let mut world = World::default();
    for told in outbound(&mut world) {
        let got = &told.got;
        let about = |quote: &[u8]| icmp_error(ROUTER, EXTERNAL, (3, 3), quote);
        for length in 0..28 {
            world.refuse("uplink", about(&got.octets[..length]), Dropped::Malformed);
        }
        for first in [0x44, 0x40, 0x65, 0x05, 0x4f, 0xff] {
            let quote = changed(got, |quote| quote[0] = first);
            world.refuse("uplink", about(&quote[..60]), Dropped::Malformed);
        }
        let mut bad = got.octets.clone();
        bad[10] ^= 1;
        world.refuse("uplink", about(&bad), Dropped::Malformed);
        let later = changed(got, |quote| quote[7] = 1);
        world.refuse("uplink", about(&later), Dropped::Malformed);
        // The first fragment of what was cut on the way is as good as the whole.
        let first = changed(got, |quote| quote[6] |= 0x20);
        world.cross("uplink", "work", about(&first[..60]));
        if got.protocol() != 1 {
            for at in [20, 22] {
                let zero = changed(got, |quote| quote[at..at + 2].fill(0));
                world.refuse("uplink", about(&zero), Dropped::Malformed);
            }
        }
    }
}

#[test]
fn req_4_an_error_about_a_packet_with_another_identification_finds_its_sender_too() {
    let mut world = World::default();
    for host in ["10.0.1.7:5000", "10.0.1.8:5000"] {
        let sent = udp(host, "198.51.100.9:53", &[1; 41]).identification(7);
        let got = world.cross("work", "uplink", &sent);
        let seen = world.cross("uplink", "work", icmp_error(ROUTER, EXTERNAL, (11, 0), &got.octets[..28]));
        // The identification stays the one that left: it is remembered by nobody.
        let expected = sent.ttl(63).identification(got.identification()).octets();
        assert_eq!(seen.quote().octets, expected[..28]);
        assert_eq!(host == "10.0.1.7:5000", got.identification() == 7);
    }
}

#[test]
fn req_4_the_reporter_may_be_anybody_outside() {
    let mut world = World::default();
    for told in outbound(&mut world) {
        for reporter in [SERVER, "192.0.2.1", "192.0.2.77", "203.0.113.1", "8.8.8.8"] {
            let error = icmp_error(reporter, EXTERNAL, (3, 1), &told.got.octets[..28]);
            assert_eq!(world.cross("uplink", "work", error).source(), address(reporter));
        }
        for reporter in ["10.0.1.7", "10.0.2.9", "10.0.1.1", "192.0.2.2", "127.0.0.1", "224.0.0.1", "0.0.0.0"]
        {
            let error = icmp_error(reporter, EXTERNAL, (3, 1), &told.got.octets[..28]);
            world.refuse("uplink", error, Dropped::Spoofed);
        }
    }
}

#[test]
fn req_4_an_error_about_a_packet_that_was_never_sent_that_way_is_dropped() {
    let mut world = World::default();
    for told in outbound(&mut world) {
        // What came in, quoted to where it went: the session's reply, not its packet.
        let (from, to) = (told.got.to(), told.got.from());
        let reply = match told.got.protocol() {
            17 => udp(from, to, b"reply"),
            6 => tcp(from, to, ACK, b"reply"),
            _ => echo_reply(SERVER, EXTERNAL, told.got.id(), 7, b"reply"),
        };
        for destination in [EXTERNAL, SERVER] {
            let error = icmp_error(ROUTER, destination, (3, 3), &reply);
            world.refuse("uplink", error, Dropped::ErrorWithoutSession);
        }
    }
}

#[test]
fn req_6_10_and_12_a_thousand_errors_change_no_session() {
    let mut world = World::default();
    let told = outbound(&mut world);
    let before = world.occupancy();
    for told in &told {
        for kind in kinds().cycle().take(1000) {
            world.send("uplink", icmp_error(ROUTER, EXTERNAL, kind, &told.got.octets[..28]));
        }
        assert_eq!(world.sent("work").len(), 1000);
    }
    assert_eq!(world.occupancy(), before);
    for Told { sent, got, .. } in told {
        let again = world.cross("work", "uplink", &sent);
        assert_eq!(again.transport()[..6], got.transport()[..6]);
    }
}

#[test]
fn rfc_1812_5_2_7_2_no_redirect_is_sent_when_a_packet_returns_by_its_port() {
    let mut world = World::default();
    let external = world.open_udp("10.0.1.8:6000", "198.51.100.9:53");
    let seen = world.cross("work", "work", udp("10.0.1.7:5000", external, b"next door"));
    assert_eq!(seen.to(), "10.0.1.8:6000".parse().unwrap());
}

#[test]
fn errors_about_a_connection_that_nobody_answered_reach_its_client() {
    let mut world = World::default();
    let sent = tcp("10.0.1.7:5000", "198.51.100.9:80", SYN, b"");
    let got = world.cross("work", "uplink", &sent);
    let told = Told { sent, got, from: "uplink", to: "work", reporter: ROUTER };
    let error = icmp_error(ROUTER, EXTERNAL, (3, 13), &told.got.octets[..]);
    reverted(&world.cross("uplink", "work", error), &told, (3, 13), 40);
    // It may try again, and be answered.
    Connection::open(&mut world, "10.0.1.7:5000", "198.51.100.9:80").talk(&mut world);
}
