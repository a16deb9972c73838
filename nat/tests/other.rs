//! Protocols without ports: by address, the first client to a peer wins.

mod world;

use etherparse::Ipv4Header;
use nat::{Binding, Endpoint, Hit, Packet, SourceNat, Unbound};
use std::net::Ipv4Addr;
use world::*;

const OTHERS: [u8; 6] = [4, 47, 50, 51, 132, 200];

fn open(world: &mut World, packet: &Packet, source: SourceNat) -> Result<Hit, Unbound> {
    let original = packet.tuple_with(true).unwrap();
    let binding = Binding { original, destination: original.destination(), source, residue: [0; 2] };
    world.told().bind(binding, packet)
}

fn allowing() -> World {
    World::optional(|options| options.other_protocols = true)
}

fn packet(number: u8, from: Ipv4Addr, to: Ipv4Addr) -> Packet {
    // An SCTP verification tag, a GRE key, an SPI: whatever it is, it stays.
    parse(&ipv4(from, to, number, &[7; 24]))
}

#[test]
fn other_protocols_cross_by_address_with_nothing_but_the_ip_header_changed() {
    for number in OTHERS {
        let mut world = allowing();
        let out = packet(number, CLIENT, SERVER);
        let hit = open(&mut world, &out, SourceNat::Address(EXTERNAL)).unwrap();
        let head = head(&out, world.nat.translation(hit));
        let (header, rest) = Ipv4Header::from_slice(&head).unwrap();
        assert_eq!((header.source, header.destination), (EXTERNAL.octets(), SERVER.octets()));
        assert_eq!((header.header_checksum, rest.len()), (header.calc_header_checksum(), 0));
        let back = packet(number, SERVER, EXTERNAL);
        let hit = world.told().lookup(&back.tuple_with(true).unwrap()).unwrap();
        world.told().admit(hit, &back).unwrap();
        assert_eq!(world.nat.translation(hit).destination(), Endpoint::new(CLIENT, 0));
        assert_eq!(world.told().remaining(hit.session), 601);
        assert_eq!(world.nat.counts().mappings, 0);
    }
}

#[test]
fn a_second_client_to_the_same_peer_is_refused_never_mixed_up() {
    for number in OTHERS {
        let mut world = allowing();
        let source = SourceNat::Address(EXTERNAL);
        open(&mut world, &packet(number, CLIENT, SERVER), source).unwrap();
        let second = packet(number, OTHER_CLIENT, SERVER);
        assert_eq!(open(&mut world, &second, source), Err(Unbound::Conflict));
        open(&mut world, &packet(number, OTHER_CLIENT, ROUTER), source).unwrap();
        world.wait(602);
        assert!(open(&mut world, &second, source).is_ok(), "the first one is gone");
        let nowhere = SourceNat::Address(ROUTER);
        let third = packet(number, OTHER_CLIENT, CLIENT);
        assert_eq!(open(&mut world, &third, nowhere), Err(Unbound::NotExternal));
    }
}

#[test]
fn they_are_nothing_unless_the_site_says_so_and_igmp_and_strange_icmp_never_are() {
    let mut world = World::new();
    let out = packet(47, CLIENT, SERVER);
    assert_eq!((out.tuple(), out.tuple_with(false)), (None, None));
    assert_eq!(open(&mut world, &out, SourceNat::Address(EXTERNAL)), Err(Unbound::NotOpening));
    assert_eq!(packet(2, CLIENT, SERVER).tuple_with(true), None);
    let strange = parse(&ipv4(CLIENT, SERVER, 1, &icmp_message(40, 0, [0; 4], b"")));
    assert_eq!(strange.tuple_with(true), None);
    let udp = parse(&udp(end(CLIENT, 1), end(SERVER, 2), b""));
    assert_eq!(udp.tuple_with(true), udp.tuple());
}

#[test]
fn req_4_an_error_about_another_protocol_shows_the_client_what_it_sent() {
    for number in OTHERS {
        let mut world = allowing();
        let sent = ipv4(CLIENT, SERVER, number, &[7; 24]);
        let out = parse(&sent);
        let hit = open(&mut world, &out, SourceNat::Address(EXTERNAL)).unwrap();
        let mut seen = head(&out, world.nat.translation(hit));
        seen.extend_from_slice(&[7; 8]);
        let octets = error(ROUTER, EXTERNAL, (3, 2), &seen);
        let packet = parse(&octets);
        let hit = world.told().lookup_error(packet.embedded().unwrap(), EXTERNAL).unwrap();
        let whole = [&head(&packet, world.nat.translation(hit)), &octets[packet.head_len()..]].concat();
        let (header, message) = Ipv4Header::from_slice(&whole).unwrap();
        assert_eq!((header.source, header.destination), (ROUTER.octets(), CLIENT.octets()));
        assert_eq!(nat::checksum::sum(message), 0xffff);
        let (quoted, transport) = Ipv4Header::from_slice(&message[8..]).unwrap();
        assert_eq!((quoted.source, quoted.destination), (CLIENT.octets(), SERVER.octets()));
        assert_eq!((quoted.header_checksum, transport), (quoted.calc_header_checksum(), &[7; 8][..]));
    }
}

/// UDP's checksum at the same place, of the same octets, is the judge: DCCP's and UDP-Lite's are sums
/// over the pseudo-header and the datagram too.
#[test]
fn rfc_3828_rfc_4340_a_checksum_that_covers_addresses_follows_them() {
    for (number, is_fragment) in [(33, false), (136, false), (136, true)] {
        let sum = |octets: &[u8], number: u8| {
            let words = octets[12..20].chunks(2).chain(octets[20..].chunks(2));
            let all = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let total: u32 = all.sum::<u32>() + u32::from(number) + octets.len() as u32 - 20;
            ((total & 0xffff) + (total >> 16)) as u16
        };
        let mut octets = ipv4(CLIENT, SERVER, number, &[7; 24]);
        octets[26..28].fill(0);
        let checksum = !sum(&octets, number);
        octets[26..28].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(sum(&octets, number), 0xffff);
        if is_fragment {
            octets[6] |= 0x20;
            octets[10..12].fill(0);
            let header = Ipv4Header::from_slice(&octets).unwrap().0;
            octets[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        }
        let mut world = allowing();
        let hit = open(&mut world, &parse(&octets), SourceNat::Address(EXTERNAL)).unwrap();
        let head = head(&parse(&octets), world.nat.translation(hit));
        octets[..head.len()].copy_from_slice(&head);
        assert_eq!((head.len(), sum(&octets, number)), (28, 0xffff), "protocol {number}");
    }
}
