//! Everything that a site can ask for, at once and at random: nothing is lost and nothing is left.

mod world;

use nat::{Binding, ClientQuota, Endpoint, Filtering, SourceNat};
use world::*;

#[test]
fn a_random_life_with_every_option_leaves_nothing_and_every_port_is_free_again() {
    let seed = 0x0a11;
    let mut random = Random(seed);
    let mut world = World::with_both(
        |config| (config.sessions, config.external_ports) = (300, 10_000..=10_099),
        |options| {
            options.clients = 4;
            options.port_rest = 30;
            options.pickup = true;
            options.other_protocols = true;
            options.udp_filtering = Filtering::EndpointIndependent;
            options.tcp_filtering = Filtering::AddressDependent;
            options.session_quota = ClientQuota { floor: Some(20), ceiling: Some(200) };
        },
    );
    for round in 0..60_000 {
        let client = random.below(5) as u8;
        let from = end(
            [10, 0, client, 7].into(),
            [600, 5000, 9000][random.below(3) as usize] + random.below(40) as u16,
        );
        let peer = end([198, 51, 100, random.below(3) as u8].into(), 53 + random.below(4) as u16);
        let external = end(EXTERNAL, 10_000 + random.below(100) as u16);
        let (from, to) = match random.below(4) {
            0 => (peer, external),
            1 => (from, external),
            _ => (from, peer),
        };
        let flags = [SYN, SYN | ACK, ACK, RST, FIN | ACK][random.below(5) as usize];
        let numbers = (random.below(1000) as u32, random.below(1000) as u32);
        let octets = match random.below(5) {
            0 => ipv4(from.address, to.address, 47, &[1; 8]),
            1 | 2 => udp(from, to, b"data"),
            _ => tcp(from, to, flags, numbers, &[]),
        };
        let packet = parse(&octets);
        let original = packet.tuple_with(true).unwrap();
        match world.told().lookup(&original) {
            Some(hit) => {
                let _ = world.told().admit(hit, &packet);
                let head = head(&packet, world.nat.translation(hit));
                judge(&[&head, &octets[packet.head_len()..]].concat());
            }
            None => {
                let is_inside = original.source().address.octets()[0] == 10;
                let inbound = world.nat.inbound(&original, is_inside);
                let source = match random.below(4) {
                    _ if !is_inside => SourceNat::None,
                    0 => SourceNat::Range(EXTERNAL, 10_020, 10_029),
                    1 => SourceNat::Static([203, 0, 113, 100 + client].into()),
                    _ => SourceNat::Address(EXTERNAL),
                };
                let destination: Endpoint = inbound.unwrap_or(original.destination());
                let binding = Binding { original, destination, source, residue: [0; 2] };
                let _ = world.told().bind_for(client, binding, &packet);
            }
        }
        if random.below(50) == 0 {
            world.wait(random.below(40) as i64);
            world.told().expire(random.below(100) as usize);
        }
        if random.below(5000) == 0 {
            world.nat.remove_where(0, 300, |session| session.original().source().port % 2 == 0);
        }
        let counts = world.nat.counts();
        assert!(counts.mappings <= counts.sessions, "seed {seed:#x} round {round}: {counts:?}");
    }
    world.wait(8000);
    for _ in 0..100 {
        world.told().expire(100);
    }
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    // All ports, and every client its ceiling of 200 or what the floors leave of 100 ports.
    let mut ports = std::collections::BTreeSet::new();
    for client in [0, 1, 2, 3] {
        for port in 20_000..20_100 {
            let packet = parse(&udp(end([10, 0, client, 9].into(), port), end(SERVER, 53), b""));
            let original = packet.tuple().unwrap();
            let source = SourceNat::Address(EXTERNAL);
            let binding = Binding { original, destination: original.destination(), source, residue: [0; 2] };
            if let Ok(hit) = world.told().bind_for(client, binding, &packet) {
                assert!(ports.insert(world.nat.translation(hit).source().port));
            }
        }
    }
    assert_eq!(ports.len(), 100);
}
