//! RFC 4787 REQ-8 and REQ-9, RFC 5382 REQ-3 and REQ-8: who reaches a mapping.

mod world;

use nat::{Endpoint, Filtering, protocol};
use world::*;

const FROM: Endpoint = Endpoint::new(CLIENT, 5000);
const OUT: Endpoint = Endpoint::new(EXTERNAL, 5000);

fn world(filtering: Filtering) -> World {
    World::optional(|options| {
        options.udp_filtering = filtering;
        options.tcp_filtering = filtering;
    })
}

#[test]
fn req_8_each_filtering_admits_whom_it_says() {
    let (peer, same, other) = (end(SERVER, 53), end(SERVER, 54), end(ROUTER, 53));
    for (filtering, admits) in [
        (Filtering::AddressAndPortDependent, [true, false, false]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::EndpointIndependent, [true, true, true]),
    ] {
        let mut world = world(filtering);
        assert_eq!(world.udp_out(FROM, peer), Ok(OUT));
        world.connect(FROM, peer);
        for (from, admits) in [peer, same, other].into_iter().zip(admits) {
            assert_eq!(world.udp_in(from, OUT).is_ok(), admits, "{filtering:?} {from}");
            if from != peer {
                assert_eq!(world.cross(&tcp(from, OUT, SYN, (1, 0), &[])).is_ok(), admits);
            }
            if admits {
                // The answer leaves from the same external endpoint.
                assert_eq!(world.udp_out(FROM, from), Ok(OUT));
            }
        }
        assert_eq!(world.cross(&query(SERVER, EXTERNAL, 8, 5000)), Err(Dropped::NoSession));
        world.wait(7443);
        world.told().expire(100);
        assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
        assert!(world.udp_in(same, OUT).is_err());
    }
}

#[test]
fn req_6_an_outsider_cannot_keep_a_mapping_by_ever_new_sessions() {
    let mut world = world(Filtering::EndpointIndependent);
    world.udp_out(FROM, end(SERVER, 53)).unwrap();
    let mut port = 1000;
    for _ in 0..40 {
        world.wait(10);
        world.told().expire(100);
        port += 1;
        let _ = world.udp_in(end(SERVER, port), OUT);
    }
    assert!(world.udp_in(end(SERVER, 999), OUT).is_err());
    world.wait(302);
    world.told().expire(100);
    assert_eq!(world.nat.counts().mappings, 0);
    // Whom the client answers, it talks to.
    world.udp_out(FROM, end(SERVER, 53)).unwrap();
    world.wait(290);
    world.udp_in(end(SERVER, 54), OUT).unwrap();
    world.udp_out(FROM, end(SERVER, 54)).unwrap();
    world.wait(100);
    world.told().expire(100);
    world.udp_in(end(ROUTER, 1), OUT).unwrap();
}

#[test]
fn req_8_a_mapping_admits_while_any_session_of_its_endpoint_lives_whichever_began_it() {
    let mut world = world(Filtering::EndpointIndependent);
    let first_two = [53, 54].map(|port| {
        world.udp_out(FROM, end(SERVER, port)).unwrap();
        world.nat.iter().last().unwrap().0
    });
    world.nat.remove(first_two[0]);
    // The third takes the place of the first, and goes as well.
    world.udp_out(FROM, end(SERVER, 55)).unwrap();
    world.nat.remove(first_two[0]);
    assert_eq!(world.nat.iter().next().unwrap().0, first_two[1]);
    assert_eq!(world.udp_in(end(ROUTER, 1), OUT), Ok(FROM));
}

#[test]
fn req_9_hairpin_shows_the_external_endpoint_whatever_the_filtering() {
    let other = end(OTHER_CLIENT, 6000);
    for filtering in [Filtering::AddressAndPortDependent, Filtering::EndpointIndependent] {
        let mut world = world(filtering);
        world.udp_out(FROM, end(SERVER, 53)).unwrap();
        for _ in 0..3 {
            let left = world.cross(&udp(other, OUT, b"hairpin")).unwrap();
            judge(&left);
            assert_eq!(ends(&left), (end(EXTERNAL, 6000), FROM));
            let left = world.cross(&udp(FROM, end(EXTERNAL, 6000), b"back")).unwrap();
            judge(&left);
            assert_eq!(ends(&left), (OUT, other));
        }
        let nobody = Endpoint::new(EXTERNAL, 7777);
        let tuple = nat::Tuple::new(protocol::UDP, other, nobody);
        assert_eq!(world.nat.inbound(&tuple, true), None);
    }
}

#[test]
fn req_2_simultaneous_open_of_two_internal_peers() {
    let mut world = World::new();
    let other = end(OTHER_CLIENT, 6000);
    let other_out = end(EXTERNAL, 6000);
    // Each learnt the other's external endpoint from somebody else.
    world.connect(FROM, end(SERVER, 80));
    world.connect(other, end(SERVER, 80));
    let left = world.cross(&tcp(FROM, other_out, SYN, (100, 0), &[])).unwrap();
    assert_eq!(ends(&left), (OUT, other));
    let left = world.cross(&tcp(other, OUT, SYN, (500, 0), &[])).unwrap();
    assert_eq!(ends(&left), (other_out, FROM));
    world.cross(&tcp(FROM, other_out, SYN | ACK, (100, 501), &[])).unwrap();
    world.cross(&tcp(other, OUT, SYN | ACK, (500, 101), &[])).unwrap();
    world.cross(&tcp(FROM, other_out, ACK, (101, 501), b"data")).unwrap();
    assert!(world.nat.iter().all(|(_, session)| session.is_tcp_established()));
}
