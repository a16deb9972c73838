//! Port economy: rest, addresses, ranges and blocks (NAT.md, "Free ports").

mod world;

use nat::{Endpoint, protocol};
use world::*;

const TO: Endpoint = Endpoint::new(SERVER, 53);

fn resting() -> World {
    World::optional(|options| options.port_rest = 120)
}

fn pass(world: &mut World, seconds: i64) {
    world.wait(seconds);
    world.nat.expire(world.now, 1000);
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
