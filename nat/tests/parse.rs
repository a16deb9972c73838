//! RFC 791, 768, 9293: octets that are no packet are refused, and none can do harm.

mod world;

use nat::{Checksum, Malformed, Packet, protocol};
use world::*;

fn reason(octets: &[u8]) -> Option<Malformed> {
    Packet::parse(octets, Checksum::Complete).err()
}

/// The packet with another octet, and its header checksum right again.
fn with(octets: &[u8], at: usize, octet: u8) -> Vec<u8> {
    let mut changed = octets.to_vec();
    changed[at] = octet;
    repaired(changed)
}

fn repaired(mut octets: Vec<u8>) -> Vec<u8> {
    let length = usize::from(octets[0] & 15) * 4;
    if (20..=octets.len()).contains(&length) {
        octets[10..12].fill(0);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&octets[..length]);
        octets[10..12].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    }
    octets
}

#[test]
fn every_reason_to_refuse_has_its_name() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let udp = udp(from, to, b"12345678");
    let tcp = tcp(from, to, ACK, (1, 1), b"12345678");
    let echo = query(CLIENT, SERVER, 8, 1);
    let bare = |number, payload: &[u8]| ipv4(CLIENT, SERVER, number, payload);
    let cases = [
        (vec![], Malformed::Short),
        (udp[..19].to_vec(), Malformed::Short),
        (with(&udp, 0, 0x65), Malformed::Version),
        (with(&udp, 0, 0x44), Malformed::HeaderLength),
        (udp[..35].to_vec(), Malformed::TotalLength),
        (with(&udp, 3, 19), Malformed::TotalLength),
        (with(&udp, 3, 37), Malformed::TotalLength),
        (with(&with(&udp, 0, 0x4f), 3, 36), Malformed::TotalLength),
        (bare(protocol::UDP, &[0; 7]), Malformed::ShortTransport),
        (bare(protocol::TCP, &[0; 19]), Malformed::ShortTransport),
        (bare(protocol::ICMP, &[0; 7]), Malformed::ShortTransport),
        (with(&udp, 25, 7), Malformed::UdpLength),
        (with(&udp, 25, 17), Malformed::UdpLength),
        (with(&tcp, 32, 0x40), Malformed::TcpOffset),
        (with(&tcp, 32, 0x80), Malformed::TcpOffset),
        (world::udp(end(CLIENT, 0), to, b""), Malformed::PortZero),
        (world::tcp(from, end(SERVER, 0), SYN, (1, 1), b""), Malformed::PortZero),
    ];
    for (octets, expected) in cases {
        assert_eq!(reason(&octets), Some(expected), "{octets:02x?}");
    }
    for at in 0..20 {
        let mut broken = udp.clone();
        broken[at] ^= 1;
        assert!(reason(&broken).is_some(), "octet {at}");
    }
    for octets in [&echo, &bare(47, b"any"), &bare(protocol::ICMP, &[8; 8])] {
        let partial = Packet::parse(octets, Checksum::Partial).err();
        assert_eq!(partial, Some(Malformed::PartialChecksum));
    }
    assert!(Packet::parse(&tcp, Checksum::Partial).is_ok());
}

#[test]
fn fields_are_those_that_were_sent() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 80));
    let segment = tcp_segment(from, to, SYN | FIN, (7, 9), b"data");
    let octets = ipv4_with(CLIENT, SERVER, protocol::TCP, &segment, |header| {
        header.identification = 0xbeef;
        header.dont_fragment = true;
        header.time_to_live = 3;
        header.dscp = 46.try_into().unwrap();
        header.options = options(&[1; 8]);
    });
    let mut padded = octets.clone();
    padded.extend_from_slice(&[0xee; 9]);
    let packet = parse(&padded);
    assert_eq!((packet.source(), packet.destination()), (CLIENT, SERVER));
    assert_eq!((packet.protocol(), packet.ttl(), packet.tos()), (6, 3, 46 << 2));
    assert_eq!(usize::from(packet.total_len()), octets.len());
    assert_eq!((packet.header_len(), packet.head_len()), (28, 48));
    assert_eq!((packet.identification(), packet.dont_fragment()), (0xbeef, true));
    assert!(!packet.is_fragment() && !packet.opens());
    assert_eq!((packet.tcp_flags(), packet.icmp()), (SYN | FIN, None));
    let tcp = packet.tcp().unwrap();
    assert_eq!((tcp.sequence, tcp.acknowledgement, tcp.length, tcp.window), (7, 9, 6, 8192));
    assert_eq!(ends(&padded), (from, to));
}

#[test]
fn an_icmp_reply_has_its_querys_tuple_inverted() {
    for (ask, answer) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        let asked = parse(&query(CLIENT, SERVER, ask, 77));
        let answered = parse(&query(SERVER, CLIENT, answer, 77));
        assert_eq!(answered.tuple(), asked.tuple().map(|tuple| tuple.inverted()));
        assert!(asked.opens() && !answered.opens());
    }
}

#[test]
fn random_octets_do_no_harm() {
    let seed = 0xf022;
    let mut random = Random(seed);
    let mut world = World::with(|config| config.sessions = 64);
    let (client, server) = (end(CLIENT, 5000), end(SERVER, 53));
    let seen = world.cross(&udp(client, server, b"data")).unwrap();
    let options = options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    let seeds = [
        udp(client, server, b"payload"),
        tcp(client, server, SYN, (1, 0), b"payload"),
        query(CLIENT, SERVER, 8, 5),
        error(ROUTER, EXTERNAL, (3, 3), &seen),
        error(ROUTER, EXTERNAL, (11, 0), &seen[..28]),
        ipv4_with(CLIENT, SERVER, protocol::UDP, &seen[20..], |h| h.options = options),
    ];
    let (mut parsed, mut crossed) = (0, 0);
    for _ in 0..200_000 {
        let mut octets = seeds[random.below(6) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(octets.len() as u64) as usize;
            octets[at] = random.next() as u8;
        }
        if random.below(4) == 0 {
            octets.truncate(random.below(octets.len() as u64) as usize);
        }
        if random.below(8) > 0 && octets.len() >= 20 {
            octets = repaired(octets);
        }
        // Anything may be refused; whatever is taken must be translated without a panic, and
        // nothing internal may leave.
        if Packet::parse(&octets, Checksum::Complete).is_ok() {
            parsed += 1;
            if let Ok(left) = world.cross(&octets) {
                crossed += 1;
                // An error's source is anyone's on the way; spoofed ones are the router's business.
                let from_client = octets[12] == 10 && parse(&octets).embedded().is_none();
                assert!(!from_client || left[12..16] == EXTERNAL.octets(), "seed {seed:#x}");
            }
        }
        world.wait(i64::from(random.below(50) == 0) * 7);
    }
    assert!(parsed > 50_000 && crossed > 20_000, "{parsed} {crossed}");
}
