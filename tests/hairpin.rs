//! Clients that meet at the uplink's addresses (RFC 4787 REQ-9): each sees the other as the world does, whatever
//! they send.

use std::net::SocketAddrV4;

use firewall::Dropped;
use tests::flags::{ACK, PSH, SYN};
use tests::packet::{At, Packet, address};
use tests::view::same;
use tests::{Seen, World, icmp_error, judge, site, tcp, udp};

const SERVER: &str = "198.51.100.9:53";

/// Two hosts that are seen at different external addresses, and how; the second one's link takes 1400 octets.
struct Met {
    world: World,
    one: SocketAddrV4,
    two: SocketAddrV4,
    first: SocketAddrV4,
    second: SocketAddrV4,
}

fn met() -> Met {
    let extra = "gateway = \"192.0.2.1\"\nextra = [\"192.0.2.3\", \"192.0.2.4\"]";
    let plan = site::PLAN.replace("gateway = \"192.0.2.1\"", extra);
    let plan = plan.replace("address = \"10.0.2.1/24\"", "address = \"10.0.2.1/24\"\nmtu = 1400");
    let hairpin =
        "iifname { \"work\", \"lab\" } oifname { \"work\", \"lab\" } ct status dnat snat to 192.0.2.2";
    let rules = site::RULES.replace(hairpin, "").replace("masquerade", "snat to 192.0.2.2-192.0.2.4");
    let mut world = World::new(&plan, &rules);
    let one = "10.0.1.7:5000".at();
    let first = world.open_udp("10.0.1.7:5000", SERVER);
    let mut others = (2..100).map(|host| SocketAddrV4::new([10, 0, 2, host].into(), 6000));
    let (two, second) = others
        .find_map(|host| {
            let seen = world.open_udp(&host.to_string(), SERVER);
            (seen.ip() != first.ip()).then_some((host, seen))
        })
        .expect("three addresses are all used");
    Met { world, one, two, first, second }
}

impl Met {
    /// It crosses from the first to the second, and shows what is seen from outside.
    #[track_caller]
    fn there(&mut self, packet: &Packet) -> Seen {
        let seen = self.world.cross("work", "lab", packet);
        same(&seen, packet, self.first, self.two);
        seen
    }

    /// And back.
    #[track_caller]
    fn back(&mut self, packet: &Packet) -> Seen {
        let seen = self.world.cross("lab", "work", packet);
        same(&seen, packet, self.second, self.one);
        seen
    }
}

#[test]
fn rfc_4787_req_9_two_external_addresses_are_shown_both_ways_with_and_without_checksums() {
    let mut met = met();
    let (one, two, first, second) = (met.one, met.two, met.first, met.second);
    met.there(&udp(one, second, b"odd"));
    met.back(&udp(two, first, b"even"));
    for tos in [0, 1, 2, 3, 0xb8] {
        met.there(&udp(one, second, b"x").tos(tos));
        met.back(&udp(two, first, b"").tos(tos).dont_fragment());
    }
    // RFC 768: none stays none.
    let seen = met.world.cross("work", "lab", udp(one, second, b"x").without_checksum());
    assert_eq!((seen.udp_checksum(), seen.from(), seen.to()), (0, first, two));
    let option = [148, 4, 0, 0];
    met.there(&udp(one, second, b"alert").options(&option));
    let dying = udp(one, second, b"x").ttl(1);
    let told = met.world.answer("work", &dying);
    assert_eq!(
        (told.icmp(), told.source(), told.quote().octets),
        ((11, 0), address("10.0.1.1"), dying.octets())
    );
}

#[test]
fn rfc_5382_req_8_a_connection_is_opened_between_two_external_addresses() {
    let mut met = met();
    let (one, two) = (met.one, met.two);
    // Each has a mapping for TCP.
    for (port, host) in [("work", one), ("lab", two)] {
        met.world.cross(port, "uplink", tcp(host, SERVER, (SYN, 1, 0), b""));
    }
    let (first, second) = (met.first, met.second);
    met.there(&tcp(one, second, (SYN, 99, 0), b""));
    met.back(&tcp(two, first, (SYN | ACK, 499, 100), b""));
    met.there(&tcp(one, second, (ACK | PSH, 100, 500), b"hello"));
    met.back(&tcp(two, first, (ACK | PSH, 500, 105), b"hello"));
    met.world.pass_seconds(7400);
    met.there(&tcp(one, second, (ACK, 105, 505), b"later"));
}

#[test]
fn rfc_5508_req_7_errors_between_two_external_addresses_show_what_each_sent() {
    let mut met = met();
    let (one, two, first, second) = (met.one, met.two, met.first, met.second);
    let sent = udp(one, second, b"hello there");
    let received = met.there(&sent);
    for (kind, length) in [((3, 3), 39), ((3, 4), 28), ((11, 0), 28), ((12, 0), 39), ((11, 1), 30)] {
        // From the receiver, and from a router of its network: neither is shown.
        for reporter in [*two.ip(), address("10.0.2.254")] {
            let error = icmp_error(reporter, *first.ip(), kind, &received.octets[..length]);
            let seen = met.world.cross("lab", "work", error);
            assert_eq!((seen.icmp(), seen.source(), seen.destination()), (kind, *second.ip(), *one.ip()));
            assert_eq!(seen.quote().octets, sent.clone().ttl(63).octets()[..length]);
        }
    }
    let answer = udp(two, first, b"hello yourself").without_checksum();
    let received = met.world.cross("lab", "work", &answer);
    let seen =
        met.world.cross("work", "lab", icmp_error(*one.ip(), *second.ip(), (3, 3), received.octets.clone()));
    assert_eq!((seen.source(), seen.destination()), (*first.ip(), *two.ip()));
    assert_eq!(seen.quote().octets, answer.ttl(63).octets());
}

#[test]
fn rfc_4787_req_13_what_is_too_large_for_the_others_link_is_told_or_cut() {
    let mut met = met();
    let (one, second) = (met.one, met.second);
    met.there(&udp(one, second, &[1; 1372]).dont_fragment());
    let sent = udp(one, second, &[1; 1373]).dont_fragment();
    let told = met.world.answer("work", &sent);
    assert_eq!((told.icmp(), told.icmp_word(), told.source()), ((3, 4), [0, 0, 5, 120], address("10.0.1.1")));
    assert_eq!(told.quote().octets, sent.octets()[..548]);
    assert_eq!(met.world.drops("work", Dropped::TooBig), 1);
    let sent = udp(one, second, &[1; 1473 - 1]);
    met.world.send("work", &sent);
    let pieces = met.world.sent("lab");
    assert_eq!(pieces.len(), 2);
    let mut whole = sent.clone();
    whole.payload = pieces.iter().flat_map(|piece| piece.transport().to_vec()).collect();
    (whole.header.source, whole.header.destination) = (met.first.ip().octets(), met.two.ip().octets());
    assert!(judge::is_sound(&whole.octets()), "together they are the datagram");
    // A segment that is cut later fits, or its sender is told of the same link.
    met.world.cross("lab", "uplink", tcp(met.two, SERVER, (SYN, 1, 0), b""));
    met.there(&tcp(one, second, (SYN, 99, 0), b""));
    met.back(&tcp(met.two, met.first, (SYN | ACK, 499, 100), b""));
    met.there(&tcp(one, second, (ACK, 100, 500), b""));
    let large = tcp(one, second, (ACK, 100, 500), &[1; 5000]).dont_fragment();
    met.world.send_offloaded("work", large.large(1460));
    let told = met.world.only("work");
    assert_eq!((told.icmp(), told.icmp_word()), ((3, 4), [0, 0, 5, 120]));
}
