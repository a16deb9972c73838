//! RFC 5508: ICMP queries and errors through a NAT.

mod world;

use etherparse::Ipv4Header;
use nat::{Checksum, Endpoint, Malformed, Packet, protocol};
use world::*;

/// Queries and the types of their replies: echo, timestamp, information, address mask.
const QUERIES: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];

/// The identifier of an ICMP query or reply without IP options.
fn id(octets: &[u8]) -> u16 {
    u16::from_be_bytes([octets[24], octets[25]])
}

#[test]
fn req_1_query_identifiers_are_endpoint_independent_and_not_shared() {
    for (ask, answer) in QUERIES {
        let mut world = World::new();
        for peer in [SERVER, ROUTER] {
            let left = world.cross(&query(CLIENT, peer, ask, 77)).unwrap();
            judge(&left);
            assert_eq!((parse(&left).source(), id(&left)), (EXTERNAL, 77));
        }
        let left = world.cross(&query(OTHER_CLIENT, SERVER, ask, 77)).unwrap();
        judge(&left);
        let other = id(&left);
        assert_ne!(other, 77);
        let back = world.cross(&query(SERVER, EXTERNAL, answer, other)).unwrap();
        judge(&back);
        assert_eq!((parse(&back).destination(), id(&back)), (OTHER_CLIENT, 77));
        assert_eq!(back[26..], left[26..], "sequence number and payload");
    }
}

#[test]
fn req_1_identifiers_know_neither_class_nor_parity_and_zero_is_one() {
    let mut world = World::new();
    let left = world.cross(&query(CLIENT, SERVER, 8, 0)).unwrap();
    assert_eq!(id(&left), 0);
    let back = world.cross(&query(SERVER, EXTERNAL, 0, 0)).unwrap();
    assert_eq!(parse(&back).destination(), CLIENT);
}

#[test]
fn req_1_a_reply_of_another_kind_or_peer_belongs_to_nobody() {
    let mut world = World::new();
    world.cross(&query(CLIENT, SERVER, 8, 77)).unwrap();
    for (from, kind, id) in [(SERVER, 14, 77), (ROUTER, 0, 77), (SERVER, 0, 78), (SERVER, 8, 77)] {
        let left = world.cross(&query(from, EXTERNAL, kind, id));
        assert_eq!(left, Err(Dropped::NoSession), "{kind} {id}");
    }
}

#[test]
fn req_2_a_query_session_lives_60_seconds() {
    let mut world = World::new();
    world.cross(&query(CLIENT, SERVER, 8, 77)).unwrap();
    world.wait(60);
    world.cross(&query(SERVER, EXTERNAL, 0, 77)).unwrap();
    world.wait(62);
    let late = world.cross(&query(SERVER, EXTERNAL, 0, 77));
    assert_eq!(late, Err(Dropped::NoSession));
}

/// A packet as it left the NAT or came from outside, the one that came or left on the other side,
/// and who is at the ends.
struct Crossed {
    /// As seen by its sender's side.
    sent: Vec<u8>,
    /// As seen by its receiver's side.
    seen: Vec<u8>,
    name: &'static str,
}

/// One packet of each protocol from a client outwards, and one inwards, source translated by a
/// mapping, destination by a forward.
fn crossed(world: &mut World) -> (Vec<Crossed>, Vec<Crossed>) {
    let (client, server, data) = (end(CLIENT, 5000), end(SERVER, 53), b"twenty octets, or so");
    let peer = end(SERVER, 7777);
    // A second client first, so that ports differ inside and outside.
    world.cross(&udp(end(OTHER_CLIENT, 5000), server, data)).unwrap();
    world.cross(&tcp(end(OTHER_CLIENT, 5000), server, SYN, (7, 0), data)).unwrap();
    world.cross(&query(OTHER_CLIENT, SERVER, 8, 5000)).unwrap();
    let outwards = [
        ("UDP", udp(client, server, data)),
        ("TCP", tcp(client, server, SYN, (7, 0), data)),
        ("ICMP", query(CLIENT, SERVER, 8, 5000)),
    ];
    let mut out = Vec::new();
    let mut inwards = Vec::new();
    for (name, sent) in outwards {
        let seen = world.cross(&sent).unwrap();
        let external = Endpoint::new(
            EXTERNAL,
            match name {
                "ICMP" => id(&seen),
                _ => ends(&seen).0.port,
            },
        );
        assert_ne!(external.port, 5000);
        inwards.push((
            name,
            match name {
                "UDP" => udp(server, external, data),
                "TCP" => tcp(server, external, SYN | ACK, (9, 8), data),
                _ => query(SERVER, EXTERNAL, 0, external.port),
            },
        ));
        out.push(Crossed { sent, seen, name });
    }
    inwards.push(("UDP forward", udp(peer, FORWARD, data)));
    inwards.push(("TCP forward", tcp(peer, FORWARD, SYN, (9, 0), data)));
    let mut into = Vec::new();
    for (name, sent) in inwards {
        let seen = world.cross(&sent).unwrap();
        into.push(Crossed { sent, seen, name });
    }
    let answers = [
        ("UDP forward's answer", udp(FORWARDED, peer, data)),
        ("TCP forward's answer", tcp(FORWARDED, peer, SYN | ACK, (9, 10), data)),
    ];
    for (name, sent) in answers {
        let seen = world.cross(&sent).unwrap();
        out.push(Crossed { sent, seen, name });
    }
    (out, into)
}

/// What a rewritten quote must be: what its sender sent, with the time to live that it had and the
/// IP checksum that belongs to it.
fn quoted(sent: &[u8], seen: &[u8], length: usize) -> Vec<u8> {
    let (mut header, payload) = Ipv4Header::from_slice(sent).unwrap();
    header.time_to_live = seen[8];
    header.header_checksum = header.calc_header_checksum();
    let mut octets = [&header.to_bytes(), payload].concat();
    octets.truncate(length);
    octets
}

/// A quote that ends in the middle of TCP's checksum: half of it can only stay as it is.
const HALF: usize = 37;

/// Whether the quote is the packet that was sent, as far as it goes.
fn is_quote_of(quote: &[u8], sent: &[u8], seen: &[u8]) -> bool {
    let expected = quoted(sent, seen, quote.len());
    let whole = match quote.len() == HALF && quote[9] == protocol::TCP {
        true => HALF - 1,
        false => quote.len(),
    };
    quote.len() == expected.len() && quote[..whole] == expected[..whole]
}

/// Lengths to cut quotes to: 8 octets of transport, odd ones, around TCP's checksum, all.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    [28, 29, 35, HALF, 36, 38, 39, 40, 41, length].into_iter().filter(move |&cut| cut <= length)
}

#[test]
fn req_4_an_inbound_error_shows_the_client_what_it_sent() {
    let mut world = World::new();
    let (out, _) = crossed(&mut world);
    for Crossed { sent, seen, name } in out {
        for kind in [(3, 0), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)] {
            for cut in cuts(seen.len()) {
                //   outer   router            -> 203.0.113.1      what arrives
                //     inner 203.0.113.1:40000 -> server:53
                //   outer   router            -> 10.0.0.7         what leaves
                //     inner 10.0.0.7:5000     -> server:53
                let arrives = error(ROUTER, EXTERNAL, kind, &seen[..cut]);
                let left = world.cross(&arrives).unwrap();
                judge(&left);
                let client = parse(&sent).source();
                assert_eq!((parse(&left).source(), parse(&left).destination()), (ROUTER, client));
                assert!(is_quote_of(&left[28..], &sent, &seen), "{name} {kind:?} {cut}");
                assert_eq!(left[20..22], arrives[20..22], "type and code");
                assert_eq!(left[24..28], arrives[24..28], "second word");
            }
        }
    }
}

#[test]
fn req_5_an_error_from_a_client_shows_nothing_internal() {
    let mut world = World::new();
    let (_, into) = crossed(&mut world);
    for Crossed { sent, seen, name } in into {
        for cut in cuts(seen.len()) {
            //   outer   10.0.0.7    -> server                     what arrives
            //     inner server:53   -> 10.0.0.7:5000
            //   outer   203.0.113.1 -> server                     what leaves
            //     inner server:53   -> 203.0.113.1:40000
            // The error may be a router's on the way to the client, too.
            for reporter in [parse(&seen).destination(), [10, 9, 9, 9].into()] {
                let arrives = error(reporter, SERVER, (3, 3), &seen[..cut]);
                let left = world.cross(&arrives).unwrap();
                judge(&left);
                assert_eq!((parse(&left).source(), parse(&left).destination()), (EXTERNAL, SERVER));
                assert!(is_quote_of(&left[28..], &sent, &seen), "{name} {cut}");
            }
        }
    }
}

#[test]
fn req_7_a_hairpinned_error_shows_external_endpoints_both_ways() {
    let mut world = World::new();
    let client = end(CLIENT, 5000);
    let sent = udp(client, FORWARD, b"hairpin");
    let seen = world.cross(&sent).unwrap();
    let left = world.cross(&error(FORWARDED.address, EXTERNAL, (3, 3), &seen)).unwrap();
    judge(&left);
    assert_eq!((parse(&left).source(), parse(&left).destination()), (EXTERNAL, CLIENT));
    assert_eq!(left[28..], quoted(&sent, &seen, seen.len()));
}

#[test]
fn req_3_errors_that_are_broken_or_forbidden_are_malformed() {
    let mut world = World::new();
    let seen = world.cross(&udp(end(CLIENT, 5000), end(SERVER, 53), b"data")).unwrap();
    let error_of = |quote: &[u8]| error(ROUTER, EXTERNAL, (3, 1), quote);
    let quote_with = |at: usize, octet: u8| {
        let mut quote = seen.clone();
        quote[at] = octet;
        quote
    };
    let mut bad_checksum = error_of(&seen);
    bad_checksum[22] ^= 1;
    let fragment = ipv4_with(EXTERNAL, SERVER, protocol::UDP, b"12345678", |header| {
        header.fragment_offset = 9.try_into().unwrap();
    });
    let no_port = udp(end(EXTERNAL, 0), end(SERVER, 53), b"");
    let cases = [
        (bad_checksum, Malformed::IcmpChecksum),
        (error_of(&quote_with(8, 9)), Malformed::EmbeddedChecksum),
        (error_of(&quote_with(0, 0x65)), Malformed::EmbeddedHeader),
        (error_of(&quote_with(0, 0x44)), Malformed::EmbeddedHeader),
        (error_of(&quote_with(0, 0x4f)), Malformed::EmbeddedShort),
        (error_of(&seen[..27]), Malformed::EmbeddedShort),
        (error_of(&seen[..19]), Malformed::EmbeddedShort),
        (error_of(&[]), Malformed::EmbeddedShort),
        (error_of(&fragment), Malformed::EmbeddedFragment),
        (error_of(&no_port), Malformed::PortZero),
        (error_of(&error_of(&seen)), Malformed::ErrorAboutError),
        (error_of(&query(EXTERNAL, SERVER, 9, 1)), Malformed::ErrorAboutError),
        (error_of(&ipv4(EXTERNAL, SERVER, 2, &[0; 8])), Malformed::EmbeddedProtocol),
    ];
    for (octets, reason) in cases {
        let parsed = Packet::parse(&octets, Checksum::Complete).map(|_| ());
        assert_eq!(parsed, Err(reason));
    }
}

#[test]
fn req_3_options_in_the_quote_are_walked_and_its_transport_checksum_is_not_judged() {
    let mut world = World::new();
    let client = end(CLIENT, 5000);
    let mut segment = udp_segment(client, end(SERVER, 53), b"data");
    segment[6] ^= 0x5a;
    let with_options = |source| {
        ipv4_with(source, SERVER, protocol::UDP, &segment, |header| {
            header.options = options(&[7, 7, 4, 0, 0, 0, 0, 0]);
        })
    };
    let sent = with_options(CLIENT);
    let seen = world.cross(&sent).unwrap();
    let left = world.cross(&error(ROUTER, EXTERNAL, (3, 3), &seen)).unwrap();
    judge(&left);
    assert_eq!(left[28..], quoted(&sent, &seen, seen.len()));
}

#[test]
fn req_3_a_zero_udp_checksum_in_the_quote_stays_zero() {
    let mut world = World::new();
    let client = end(CLIENT, 5000);
    let mut segment = udp_segment(client, end(SERVER, 53), b"data");
    segment[6..8].fill(0);
    let sent = ipv4(CLIENT, SERVER, protocol::UDP, &segment);
    let seen = world.cross(&sent).unwrap();
    let left = world.cross(&error(ROUTER, EXTERNAL, (3, 3), &seen)).unwrap();
    judge(&left);
    assert_eq!(left[28..], quoted(&sent, &seen, seen.len()));
}

#[test]
fn req_3_rfc_4884_extensions_behind_the_quote_survive() {
    let mut world = World::new();
    let (client, server) = (end(CLIENT, 5000), end(SERVER, 53));
    let sent = udp(client, server, &[b'q'; 200]);
    let seen = world.cross(&sent).unwrap();
    let extension = [0x20, 0, 0xa5, 0x5a, 0, 8, 1, 1, 0, 0, 0x3f, 1];
    let message = icmp_message(11, 0, [0, 32, 0, 0], &[&seen[..128], &extension].concat());
    let arrives = ipv4(ROUTER, EXTERNAL, protocol::ICMP, &message);
    let left = world.cross(&arrives).unwrap();
    judge(&left);
    assert_eq!(left[24..28], [0, 32, 0, 0]);
    assert_eq!(left[28..156], quoted(&sent, &seen, 128));
    assert_eq!(left[156..], extension);
}

#[test]
fn req_4_errors_about_nothing_of_ours_are_dropped() {
    let mut world = World::new();
    let seen = world.cross(&udp(end(CLIENT, 5000), end(SERVER, 53), b"data")).unwrap();
    let quotes = [
        udp(end(EXTERNAL, 5001), end(SERVER, 53), b""),
        udp(end(EXTERNAL, 5000), end(SERVER, 54), b""),
        udp(end(EXTERNAL, 5000), end(ROUTER, 53), b""),
        tcp(end(EXTERNAL, 5000), end(SERVER, 53), SYN, (1, 0), b""),
        udp(end(CLIENT, 5000), end(SERVER, 53), b""),
        query(EXTERNAL, SERVER, 8, 5000),
    ];
    for quote in quotes {
        let left = world.cross(&error(ROUTER, EXTERNAL, (3, 3), &quote));
        assert_eq!(left, Err(Dropped::NoSession));
    }
    // CVE-2019-5598: the quote is right, but the error goes to somebody else.
    for destination in [CLIENT, OTHER_CLIENT, ROUTER] {
        let left = world.cross(&error(ROUTER, destination, (3, 3), &seen));
        assert_eq!(left, Err(Dropped::NoSession));
    }
}

#[test]
fn req_4_an_expired_session_has_no_errors() {
    let mut world = World::new();
    let seen = world.cross(&udp(end(CLIENT, 5000), end(SERVER, 53), b"data")).unwrap();
    world.wait(302);
    let late = world.cross(&error(ROUTER, EXTERNAL, (3, 3), &seen));
    assert_eq!(late, Err(Dropped::NoSession));
}

#[test]
fn rfc_6633_and_1812_source_quench_and_redirect_have_no_session() {
    let mut world = World::new();
    let seen = world.cross(&udp(end(CLIENT, 5000), end(SERVER, 53), b"data")).unwrap();
    for kind in [4, 5, 9, 10, 30, 200] {
        let packet = parse(&error(ROUTER, EXTERNAL, (kind, 0), &seen));
        assert_eq!((packet.tuple(), packet.embedded()), (None, None));
        assert_eq!(packet.icmp(), Some((kind, 0)));
        assert!(!packet.opens());
    }
}

#[test]
fn the_largest_head_is_translated_whole() {
    let mut world = World::new();
    let (client, server) = (end(CLIENT, 5000), end(SERVER, 80));
    let most = [&[7, 39, 4][..], &[0; 37]].concat();
    let segment = tcp_segment(client, server, SYN, (1, 0), b"data");
    let sent = ipv4_with(CLIENT, SERVER, protocol::TCP, &segment, |header| {
        header.options = options(&most);
    });
    let seen = world.cross(&sent).unwrap();
    let message = icmp_message(3, 3, [0; 4], &seen);
    let arrives = ipv4_with(ROUTER, EXTERNAL, protocol::ICMP, &message, |header| {
        header.options = options(&most);
    });
    assert_eq!(parse(&arrives).head_len(), nat::HEAD_MAX);
    let left = world.cross(&arrives).unwrap();
    judge(&left);
    assert_eq!(left[68..], quoted(&sent, &seen, seen.len()));
    assert_eq!(left[20..60], most, "outer options");
}
