//! RFC 3022, 1624, 1812: what a translation writes, and what it leaves.

mod world;

use etherparse::{IpFragOffset, Ipv4Header};
use nat::{Checksum, Endpoint, Fragment, Malformed, Packet, Translation, Tuple, protocol};
use world::*;

fn random_end(random: &mut Random) -> Endpoint {
    let address: [u8; 4] = random.octets(4).try_into().unwrap();
    // Often extreme values, where the carries are.
    let port = match random.below(4) {
        0 => 65535,
        1 => 1,
        _ => random.below(65535) as u16 + 1,
    };
    end(address.into(), port)
}

/// The packet with this transport, header fields at random.
fn random_packet(random: &mut Random, tuple: &Tuple) -> Vec<u8> {
    let length = random.below(60) as usize;
    let payload = random.octets(length);
    let (from, to) = (tuple.source(), tuple.destination());
    let segment = match tuple.protocol() {
        protocol::UDP => udp_segment(from, to, &payload),
        protocol::TCP => tcp_segment(from, to, ACK, (random.next() as u32, 5), &payload),
        _ => {
            let [a, b] = from.port.to_be_bytes();
            icmp_message(8, 0, [a, b, random.next() as u8, 1], &payload)
        }
    };
    let words = random.below(11) as usize;
    ipv4_with(from.address, to.address, tuple.protocol(), &segment, |header| {
        header.options = options(&vec![1; words * 4]);
        header.time_to_live = random.below(255) as u8 + 1;
        header.identification = random.next() as u16;
        header.dont_fragment = random.below(2) == 0;
        header.dscp = (random.below(64) as u8).try_into().unwrap();
        header.ecn = (random.below(4) as u8).try_into().unwrap();
    })
}

/// Rewrites a packet and returns it whole.
fn rewrite(octets: &[u8], checksum: Checksum, translation: Translation) -> Vec<u8> {
    let packet = Packet::parse(octets, checksum).unwrap();
    let payload = &octets[packet.head_len()..usize::from(packet.total_len())];
    [&head(&packet, translation), payload].concat()
}

#[test]
fn any_packet_gets_its_new_endpoints_and_keeps_all_else() {
    let seed = 0x5eed;
    let mut random = Random(seed);
    for round in 0..60_000 {
        let number = [protocol::UDP, protocol::TCP, protocol::ICMP][random.below(3) as usize];
        let [from, mut source] = [(); 2].map(|()| random_end(&mut random));
        let [mut to, mut destination] = [(); 2].map(|()| random_end(&mut random));
        if random.below(3) == 0 {
            source = from;
        }
        if number == protocol::ICMP {
            (to.port, destination.port) = (8 << 8, 8 << 8);
        }
        let tuple = Tuple::new(number, from, to);
        let octets = random_packet(&mut random, &tuple);
        judge(&octets);
        assert_eq!(parse(&octets).tuple(), Some(tuple));
        let translation = Translation::new(&tuple, source, destination);
        let left = rewrite(&octets, Checksum::Complete, translation);
        judge(&left);
        let expected = Tuple::new(tuple.protocol(), source, destination);
        assert_eq!(parse(&left).tuple(), Some(expected), "seed {seed:#x} round {round}");

        let back = Translation::new(&expected, tuple.source(), tuple.destination());
        let mut back = rewrite(&left, Checksum::Complete, back);
        // Two hops: the rest is as it was.
        let ttl = octets[8];
        assert_eq!(back[8], ttl.saturating_sub(2));
        let mut was = octets.clone();
        for packet in [&mut back, &mut was] {
            packet[8] = 0;
            packet[10..12].fill(0);
        }
        assert_eq!(back, was, "seed {seed:#x} round {round}");
    }
}

#[test]
fn identity_lowers_the_time_to_live_and_changes_nothing_else() {
    let (from, to) = (end(CLIENT, 1), end(SERVER, 2));
    let octets = udp(from, to, b"data");
    let tuple = parse(&octets).tuple().unwrap();
    let left = rewrite(&octets, Checksum::Complete, Translation::identity(&tuple));
    judge(&left);
    assert_eq!(left[8], 63);
    assert_eq!((&left[..8], &left[12..]), (&octets[..8], &octets[12..]));
    assert_eq!(Translation::identity(&tuple), Translation::new(&tuple, from, to));
}

#[test]
fn udp_checksum_zero_stays_zero() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let mut octets = udp(from, to, b"data");
    octets[26..28].fill(0);
    let tuple = parse(&octets).tuple().unwrap();
    let translation = Translation::new(&tuple, end(EXTERNAL, 40_000), to);
    let left = rewrite(&octets, Checksum::Complete, translation);
    judge(&left);
    assert_eq!(left[26..28], [0, 0]);
}

#[test]
fn udp_checksum_that_comes_out_as_zero_is_sent_as_ones() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    let external = end(EXTERNAL, 40_000);
    // Two octets of payload that bring the translated checksum to zero.
    let probe = udp_segment(external, to, &[0, 0]);
    let payload = &probe[6..8];
    // Its author writes it as ones, too.
    assert_eq!(udp_segment(external, to, payload)[6..8], [0xff, 0xff]);
    let octets = udp(from, to, payload);
    let tuple = parse(&octets).tuple().unwrap();
    let left = rewrite(&octets, Checksum::Complete, Translation::new(&tuple, external, to));
    judge(&left);
    assert_eq!(left[26..28], [0xff, 0xff]);
}

#[test]
fn tcp_checksum_zero_is_a_checksum() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 80));
    let external = end(EXTERNAL, 40_000);
    let probe = tcp_segment(from, to, ACK, (1, 1), &[0, 0]);
    let octets = tcp(from, to, ACK, (1, 1), &probe[16..18]);
    assert_eq!(octets[36..38], [0, 0]);
    let tuple = parse(&octets).tuple().unwrap();
    judge(&rewrite(&octets, Checksum::Complete, Translation::new(&tuple, external, to)));
}

#[test]
fn a_wrong_transport_checksum_stays_wrong() {
    let (from, to) = (end(CLIENT, 5000), end(SERVER, 53));
    for octets in [udp(from, to, b"data"), tcp(from, to, ACK, (1, 1), b"data")] {
        let tuple = parse(&octets).tuple().unwrap();
        let translation = Translation::new(&tuple, end(EXTERNAL, 40_000), to);
        let right = rewrite(&octets, Checksum::Complete, translation);
        let mut broken = octets.clone();
        *broken.last_mut().unwrap() ^= 1;
        let left = rewrite(&broken, Checksum::Complete, translation);
        let length = left.len() - 1;
        assert_eq!(left[..length], right[..length], "as wrong as before");
    }
}

/// What a device does with a partial checksum (virtio 1.2, 5.1.6.2).
fn completed(mut octets: Vec<u8>) -> Vec<u8> {
    let (header, _) = Ipv4Header::from_slice(&octets).unwrap();
    let start = header.header_len();
    let offset = if header.protocol.0 == protocol::UDP { 6 } else { 16 };
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&octets[start..]);
    let field = sum.ones_complement().to_ne_bytes();
    octets[start + offset..start + offset + 2].copy_from_slice(&field);
    octets
}

#[test]
fn a_partial_checksum_takes_the_change_of_addresses_only() {
    let seed = 0xfeed;
    let mut random = Random(seed);
    for round in 0..20_000 {
        let number = [protocol::UDP, protocol::TCP][random.below(2) as usize];
        let tuple = Tuple::new(number, random_end(&mut random), random_end(&mut random));
        let mut octets = random_packet(&mut random, &tuple);
        let start = parse(&octets).header_len();
        let offset = start + if number == protocol::UDP { 6 } else { 16 };
        // The sender's sum of the pseudo-header: addresses, protocol, length.
        let length = (octets.len() - start) as u16;
        let pseudo = etherparse::checksum::Sum16BitWords::new()
            .add_4bytes(tuple.source().address.octets())
            .add_4bytes(tuple.destination().address.octets())
            .add_2bytes([0, number])
            .add_2bytes(length.to_be_bytes());
        let field = (!pseudo.ones_complement()).to_ne_bytes();
        octets[offset..offset + 2].copy_from_slice(&field);
        judge(&completed(octets.clone()));

        let (source, destination) = (random_end(&mut random), random_end(&mut random));
        let translation = Translation::new(&tuple, source, destination);
        let left = completed(rewrite(&octets, Checksum::Partial, translation));
        // The device writes a UDP checksum of zero as it is: the judge knows it as absent.
        judge(&left);
        assert_eq!(ends(&left), (source, destination), "seed {seed:#x} round {round}");
    }
}

#[test]
fn a_later_fragment_gets_addresses_only() {
    let octets = ipv4_with(CLIENT, SERVER, protocol::UDP, &[9; 24], |header| {
        header.fragment_offset = IpFragOffset::try_new(3).unwrap();
    });
    let packet = parse(&octets);
    assert_eq!(packet.fragment(), Some(Fragment { offset: 24, length: 24, more: false }));
    assert!(packet.tuple().is_none() && !packet.opens());
    let tuple = Tuple::new(protocol::UDP, end(CLIENT, 0), end(SERVER, 0));
    let translation = Translation::new(&tuple, end(EXTERNAL, 0), end(SERVER, 0));
    let left = rewrite(&octets, Checksum::Complete, translation);
    let (header, payload) = Ipv4Header::from_slice(&left).unwrap();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.source, payload), (EXTERNAL.octets(), &[9; 24][..]));
}

#[test]
fn a_first_fragment_has_its_ports_translated() {
    let whole = udp(end(CLIENT, 5000), end(SERVER, 53), &[7; 40]);
    let first = ipv4_with(CLIENT, SERVER, protocol::UDP, &whole[20..44], |header| {
        header.more_fragments = true;
    });
    let tuple = Tuple::new(protocol::UDP, end(CLIENT, 5000), end(SERVER, 53));
    assert_eq!(parse(&first).tuple(), Some(tuple));
    let translation = Translation::new(&tuple, end(EXTERNAL, 7), end(SERVER, 53));
    let left = rewrite(&first, Checksum::Complete, translation);
    assert_eq!(ends(&left), (end(EXTERNAL, 7), end(SERVER, 53)));
    // The checksum is that of the whole datagram.
    let mut datagram = rewrite(&whole, Checksum::Complete, translation);
    datagram.truncate(44);
    assert_eq!(left[20..], datagram[20..]);
}

#[test]
fn rfc_1858_and_3128_fragments_that_hide_the_transport_header_are_refused() {
    let fragment = |number, payload: &[u8], offset, more| {
        let octets = ipv4_with(CLIENT, SERVER, number, payload, |header| {
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        });
        Packet::parse(&octets, Checksum::Complete).map(|_| ())
    };
    assert_eq!(fragment(protocol::TCP, &[0; 16], 0, true), Err(Malformed::TinyFragment));
    assert_eq!(fragment(protocol::TCP, &[0; 16], 1, true), Err(Malformed::TinyFragment));
    assert_eq!(fragment(protocol::TCP, &[0; 16], 3, true), Ok(()));
    assert_eq!(fragment(protocol::UDP, &[0; 17], 3, true), Err(Malformed::Fragment));
    assert_eq!(fragment(protocol::UDP, &[], 3, false), Err(Malformed::Fragment));
    assert_eq!(fragment(protocol::UDP, &[0; 64], 0x1fff, false), Err(Malformed::Fragment));
}

#[test]
fn an_error_in_fragments_is_translated_by_its_first() {
    let tuple = Tuple::new(protocol::UDP, end(SERVER, 53), end(EXTERNAL, 7));
    let quote = udp(end(EXTERNAL, 7), end(SERVER, 53), &[7; 100]);
    let whole = error(ROUTER, EXTERNAL, (3, 3), &quote);
    let translation = Translation::new(&tuple, end(SERVER, 53), end(CLIENT, 5000));
    let expected = {
        let packet = parse(&whole);
        [&head(&packet, translation), &whole[packet.head_len()..]].concat()
    };
    judge(&expected);
    let first =
        ipv4_with(ROUTER, EXTERNAL, protocol::ICMP, &whole[20..84], |header| header.more_fragments = true);
    let packet = parse(&first);
    assert_eq!(packet.icmp(), Some((3, 3)));
    let left = [&head(&packet, translation), &first[packet.head_len()..]].concat();
    assert_eq!(left[20..], expected[20..84]);
    // What hides the quote is refused.
    let tiny =
        ipv4_with(ROUTER, EXTERNAL, protocol::ICMP, &whole[20..52], |header| header.more_fragments = true);
    assert_eq!(Packet::parse(&tiny, Checksum::Complete).map(|_| ()), Err(Malformed::TinyFragment));
}
