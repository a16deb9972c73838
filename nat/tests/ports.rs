//! Port economy: rest, addresses, ranges and blocks (RFC 4787 REQ-2 and REQ-3, RFC 7422).

mod world;

use nat::blocks::{self, Blocks};
use nat::{Endpoint, Refusal, SourceNat, Unbound, protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use world::*;

const TO: Endpoint = Endpoint::new(SERVER, 53);

fn resting() -> World {
    World::optional(|options| options.port_rest = 120)
}

fn pass(world: &mut World, seconds: i64) {
    world.wait(seconds);
    world.told().expire(1000);
}

#[test]
fn a_released_port_rests_before_another_endpoint_gets_it() {
    let mut world = resting();
    world.udp_out(end(CLIENT, 5000), TO).unwrap();
    pass(&mut world, 302);
    assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    assert_eq!(world.nat.internal(protocol::UDP, end(EXTERNAL, 5000)), None);
    assert!(world.udp_in(TO, end(EXTERNAL, 5000)).is_err());
    pass(&mut world, 118);
    assert_ne!(world.udp_out(end(OTHER_CLIENT, 5000), TO), Ok(end(EXTERNAL, 5000)));
    pass(&mut world, 302);
    pass(&mut world, 121);
    assert_eq!(world.udp_out(end([10, 0, 0, 9].into(), 5000), TO), Ok(end(EXTERNAL, 5000)));
}

#[test]
fn a_resting_port_returns_to_its_own_endpoint_at_once_preserved_or_not() {
    let mut world = resting();
    world.udp_out(end(OTHER_CLIENT, 5000), TO).unwrap();
    let external = world.udp_out(end(CLIENT, 5000), TO).unwrap();
    assert_ne!(external.port, 5000);
    pass(&mut world, 302);
    assert_eq!(world.udp_out(end(CLIENT, 5000), TO), Ok(external));
    assert_eq!(world.nat.counts().mappings, 1);
    assert_eq!(world.udp_in(TO, external), Ok(end(CLIENT, 5000)));
}

#[test]
fn a_resting_port_is_given_when_no_other_is_free_the_longest_first() {
    let rest = |options: &mut nat::Options| options.port_rest = 120;
    let mut world = World::with_both(|config| config.external_ports = 5000..=5002, rest);
    for port in 5000..=5002 {
        world.udp_out(end(CLIENT, port), TO).unwrap();
        world.wait(1);
    }
    pass(&mut world, 303);
    for port in 5000..=5002 {
        assert_eq!(world.udp_out(end(OTHER_CLIENT, 7001), end(SERVER, port)).map(|e| e.port), Ok(5000));
    }
    assert_eq!(world.udp_out(end(OTHER_CLIENT, 7002), TO).map(|e| e.port), Ok(5001));
    assert_eq!(world.udp_out(end(OTHER_CLIENT, 7003), TO).map(|e| e.port), Ok(5002));
    assert!(world.udp_out(end(OTHER_CLIENT, 7004), TO).is_err());
}

#[test]
fn places_for_mappings_are_never_lacking_for_those_at_rest() {
    let rest = |options: &mut nat::Options| options.port_rest = 120;
    let mut world = World::with_both(|config| config.sessions = 4, rest);
    for round in 0..50 {
        for port in 0..4 {
            world.udp_out(end(CLIENT, 2000 + round * 4 + port), TO).unwrap();
        }
        pass(&mut world, 302);
    }
}

/// The external endpoint that a source gets.
fn source(world: &mut World, from: Endpoint, source: SourceNat) -> Result<Endpoint, Refusal> {
    let hit = world.bind(0, &udp(from, TO, b"data"), source)?;
    Ok(world.nat.translation(hit).source())
}

#[test]
fn a_range_that_the_rule_chose_is_kept_and_exhausted_alone() {
    let mut world = resting();
    let range = SourceNat::Range(EXTERNAL, 6000, 6001);
    let ports = [1, 2, 3].map(|port| source(&mut world, end(CLIENT, 3000 + port), range));
    assert!(ports[..2].iter().all(|got| (6000..=6001).contains(&got.unwrap().port)), "{ports:?}");
    assert_eq!(ports[2], Err(Unbound::PortsExhausted.into()));
    // The same source by another rule: a mapping of its own.
    let other = SourceNat::Range(EXTERNAL, 7000, 7000);
    world.wait(1);
    let from = end(CLIENT, 3003);
    assert_eq!(source(&mut world, from, other), Ok(end(EXTERNAL, 7000)));
    pass(&mut world, 302);
    // No other is free: one that rests is given.
    assert!(source(&mut world, end(CLIENT, 3004), range).is_ok());
}

#[test]
fn a_range_across_1024_gives_all_its_ports_and_gets_them_back() {
    for (first, last) in [(1014, 1023), (1019, 1028)] {
        let mut world = resting();
        // The second time all of them rest, the third time their rest is over.
        for (from, pause) in [(5000, 302), (6000, 302 + 302), (7000, 0)] {
            let mut open =
                |port| source(&mut world, end(CLIENT, port), SourceNat::Range(EXTERNAL, first, last));
            let opened = (from..from + 20).filter(|&port| open(port).is_ok()).count();
            assert_eq!(opened, 10, "{first}-{last}");
            pass(&mut world, pause);
        }
    }
}

#[test]
fn a_rule_that_names_ports_takes_none_beyond_those_of_the_site() {
    let (first, last) = (9_900, 10_199);
    for rule in [SourceNat::Range(EXTERNAL, first, last), SourceNat::Random(EXTERNAL, Some((first, last)))] {
        let mut world = World::with(|config| config.external_ports = 10_000..=10_099);
        let got: BTreeSet<_> = (first..=last)
            .filter_map(|port| source(&mut world, end(CLIENT, port), rule).ok())
            .map(|external| external.port)
            .collect();
        assert_eq!((got.len(), got.first(), got.last()), (100, Some(&10_000), Some(&10_099)));
    }
}

#[test]
fn rfc_7422_a_block_whose_ports_all_rest_is_not_exhausted_however_many_others_rest() {
    for others in [0, 63, 64, 1000] {
        let mut world = resting();
        (0..others).for_each(|n| _ = world.udp_out(end(OTHER_CLIENT, 2000 + n), TO).unwrap());
        world.wait(1);
        for from in [5000, 6000] {
            let mut open =
                |port| source(&mut world, end(CLIENT, port), SourceNat::Range(EXTERNAL, 40_000, 40_063));
            assert_eq!((from..from + 100).filter(|&port| open(port).is_ok()).count(), 64, "{others} others");
            pass(&mut world, 302);
        }
    }
}

#[test]
fn a_static_source_keeps_its_port_and_has_no_mapping() {
    let mut world = World::new();
    let own = Ipv4Addr::new(203, 0, 113, 9);
    let got = source(&mut world, end(CLIENT, 5000), SourceNat::Static(own));
    assert_eq!(got, Ok(end(own, 5000)));
    assert_eq!(world.nat.counts().mappings, 0);
    assert_eq!(world.udp_in(TO, end(own, 5000)), Ok(end(CLIENT, 5000)));
    assert_eq!(world.udp_out(end(CLIENT, 5000), TO), Ok(end(own, 5000)));
    let (_, session) = world.nat.iter().next().unwrap();
    assert!(session.is_snat());
}

#[test]
fn req_2_one_client_one_external_address_and_all_are_used() {
    let world = World::new();
    let addresses: Vec<_> = (1..=4).map(|host| Ipv4Addr::new(203, 0, 113, host)).collect();
    let mut used = BTreeMap::new();
    for host in 0..=255 {
        let internal = Ipv4Addr::new(10, 0, 0, host);
        let paired = world.nat.paired(internal, &addresses).unwrap();
        assert_eq!(world.nat.paired(internal, &addresses), Some(paired));
        *used.entry(paired).or_insert(0) += 1;
    }
    assert!(used.len() == 4 && used.values().all(|&count| count > 32), "{used:?}");
    assert_eq!(world.nat.paired(CLIENT, &[]), None);
}

#[test]
fn rfc_7422_blocks_tell_the_owner_of_every_port() {
    let external = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];
    let blocks = Blocks { external: &external, ports: (1024, 65535), size: 1000 };
    for host in 0..128 {
        let (address, ports) = blocks::block(&blocks, host).unwrap();
        assert_eq!(ports.len(), 1000);
        for port in ports {
            assert_eq!(blocks::owner(&blocks, address, port), Some(host));
        }
    }
    assert_eq!(blocks::block(&blocks, 128), None);
    assert_eq!(blocks::block(&blocks, u32::MAX), None);
    assert_eq!(blocks::owner(&blocks, external[0], 1023), None);
    assert_eq!(blocks::owner(&blocks, external[0], 65_100), None);
    assert_eq!(blocks::owner(&blocks, CLIENT, 5000), None);
    for (ports, size) in [((1024, 65535), 0), ((5, 4), 10), ((0, 65535), 65535)] {
        let odd = Blocks { ports, size, ..blocks };
        let _ = blocks::owner(&odd, external[0], 2000).zip(blocks::block(&odd, 0));
    }
}

#[test]
fn rfc_6056_a_source_that_is_to_be_random_is_not_preserved_and_stays_endpoint_independent() {
    let mut world = World::optional(|_| {});
    let mut kept = 0;
    for (port, range) in (3000..3100).flat_map(|port| [(port, None), (port + 200, Some((20_000, 29_999)))]) {
        let source = SourceNat::Random(EXTERNAL, range);
        let seen = [53, 54].map(|to| {
            let hit = world.bind(0, &udp(end(CLIENT, port), end(SERVER, to), b"x"), source).unwrap();
            world.nat.session(hit.session).reply().destination().port
        });
        assert_eq!(seen[0], seen[1], "one external endpoint whatever the destination");
        let (first, last) = range.unwrap_or((1024, u16::MAX));
        assert!((first..=last).contains(&seen[0]));
        kept += usize::from(seen[0] == port);
    }
    assert!(kept < 5, "{kept} of 200 kept");
}
