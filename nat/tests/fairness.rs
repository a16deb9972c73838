//! What one client does to another: nothing (RFC 6888 REQ-4).

mod world;

use nat::{ClientQuota, Endpoint, Filtering, Hit, Refusal, SourceNat, protocol};
use world::*;

const TO: Endpoint = Endpoint::new(SERVER, 53);

/// A client opens a session from a port.
fn open(
    world: &mut World,
    client: u8,
    port: u16,
    octets: impl Fn(Endpoint) -> Vec<u8>,
) -> Result<Hit, Refusal> {
    world.bind(client, &octets(end([10, 0, client, 7].into(), port)), SourceNat::Address(EXTERNAL))
}

/// The sessions that clients open from so many ports each leave them with, the clients one after the other.
fn kept(
    world: &mut World,
    clients: &[u8],
    ports: core::ops::Range<u16>,
    octets: fn(Endpoint) -> Vec<u8>,
) -> Vec<usize> {
    for &client in clients {
        ports.clone().for_each(|port| _ = open(world, client, port, octets));
    }
    clients.iter().map(|&client| sessions(world, client)).collect()
}

fn sessions(world: &World, client: u8) -> usize {
    let of = |session: &nat::Session| session.original().source().address.octets()[2] == client;
    world.nat.iter().filter(|(_, session)| of(session)).count()
}

fn udp_to(from: Endpoint) -> Vec<u8> {
    udp(from, TO, b"data")
}

fn syn_to(from: Endpoint) -> Vec<u8> {
    tcp(from, end(SERVER, 80), SYN, (100, 0), &[])
}

fn four(sessions: u32) -> World {
    World::with_both(|config| config.sessions = sessions, |options| options.clients = 4)
}

#[test]
fn a_client_that_opens_all_it_can_leaves_the_others_their_floor_of_sessions() {
    let mut world = four(800);
    assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [800 - 3 * 100]);
    for client in [0, 2, 3] {
        for port in 2000..2100 {
            assert!(open(&mut world, client, port, udp_to).is_ok(), "{client} {port}");
        }
    }
    assert_eq!([0, 1, 2, 3].map(|client| sessions(&world, client)), [100, 500, 100, 100]);
    world.wait(302);
    world.told().expire(1000);
    assert!(open(&mut world, 1, 9999, udp_to).is_ok(), "what expired is free");
}

#[test]
fn a_client_that_takes_all_ports_it_can_leaves_the_others_their_floor_of_mappings() {
    let four = |options: &mut nat::Options| options.clients = 4;
    let mut world = World::with_both(|config| config.external_ports = 10_000..=10_799, four);
    assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [800 - 3 * 100]);
    assert_eq!(kept(&mut world, &[0, 2, 3], 2000..2100, udp_to), [100; 3]);
    assert_eq!(sessions(&world, 1), 500);
    // Low ports, other protocols: pools of their own.
    assert!(open(&mut world, 1, 600, udp_to).is_ok());
    assert!(open(&mut world, 1, 2000, syn_to).is_ok());
}

#[test]
fn a_range_of_ports_across_1024_leaves_the_others_their_floor_too() {
    let four = |options: &mut nat::Options| options.clients = 4;
    let mut world = World::with_both(|config| config.external_ports = 1024..=1823, four);
    let range = SourceNat::Range(EXTERNAL, 1000, 1823);
    let mut opened = |client, ports: core::ops::Range<u16>| {
        let open =
            |&port: &u16| world.bind(client, &udp_to(end([10, 0, client, 7].into(), port)), range).is_ok();
        ports.filter(open).count()
    };
    opened(1, 2000..4000);
    assert_eq!([0, 2, 3].map(|client| opened(client, 2000..2100)), [100; 3]);
}

#[test]
fn a_ceiling_that_the_site_sets_is_kept() {
    for rest in [0, 120] {
        let mut world = World::optional(|options| {
            (options.clients, options.port_rest) = (4, rest);
            options.session_quota = ClientQuota { floor: Some(2), ceiling: Some(5) };
        });
        // The second time their mappings come back from their rest.
        for _ in 0..2 {
            assert_eq!(kept(&mut world, &[1], 2000..2100, udp_to), [5]);
            world.wait(302);
            world.told().expire(100);
        }
    }
}

#[test]
fn a_full_table_lets_go_of_unassured_sessions_of_the_largest_user_only() {
    let mut world = World::with_both(
        |config| config.sessions = 100,
        |options| {
            options.clients = 4;
            options.session_quota.floor = Some(0);
        },
    );
    let mut established = Vec::new();
    for port in 2000..2010 {
        let hit = open(&mut world, 1, port, syn_to).unwrap();
        let reply = world.nat.session(hit.session).reply();
        world.cross(&tcp(reply.source(), reply.destination(), SYN | ACK, (500, 101), &[])).unwrap();
        let from = end([10, 0, 1, 7].into(), port);
        world.cross(&tcp(from, end(SERVER, 80), ACK, (101, 501), &[])).unwrap();
        established.push(hit.session);
    }
    for port in 3000..3010 {
        open(&mut world, 2, port, udp_to).unwrap();
    }
    for port in 4000..4080 {
        open(&mut world, 1, port, if port % 2 == 0 { syn_to } else { udp_to }).unwrap();
    }
    // The others take from the largest until it is the largest no longer, and what is assured stays.
    let taken = kept(&mut world, &[3], 5000..5200, udp_to);
    assert!((44..=46).contains(&taken[0]), "{taken:?}");
    assert_eq!(world.nat.counts().sessions, 100);
    for port in 3000..3010 {
        assert!(world.is_live(protocol::UDP, end([10, 0, 2, 7].into(), port), TO));
    }
    for session in established {
        assert!(world.nat.session(session).is_tcp_established());
    }
}

#[test]
fn quotas_come_back_when_sessions_end_and_survive_resting_ports() {
    let mut world = World::with_both(
        |config| (config.sessions, config.external_ports) = (800, 10_000..=10_799),
        |options| (options.clients, options.port_rest) = (4, 120),
    );
    for _ in 0..5 {
        assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [500]);
        assert_eq!(kept(&mut world, &[0, 2, 3], 2000..2100, udp_to), [100; 3]);
        world.wait(303);
        while world.told().expire(1000) > 0 {}
        assert_eq!((world.nat.counts().sessions, world.nat.counts().mappings), (0, 0));
    }
}

#[test]
fn beyond_its_floor_a_client_takes_unassured_sessions_of_the_largest_until_they_are_even() {
    let mut world = four(800);
    assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [500]);
    let opened = kept(&mut world, &[0], 2000..4000, udp_to);
    // Two share what the floors of the other two leave.
    assert!((295..=305).contains(&opened[0]), "{opened:?}");
}

#[test]
fn sessions_of_one_endpoint_give_way_as_those_of_many_do() {
    for (rest, each) in [(0, 1), (0, 2), (120, 2), (120, 3)] {
        let mut world = World::with_both(
            |config| config.sessions = 800,
            |options| {
                (options.clients, options.port_rest) = (4, rest);
                options.mapping_quota.floor = Some(0);
            },
        );
        // Client 1 takes all that it may have, so many sessions an endpoint.
        for (port, to) in (2000..3000).flat_map(|port| (53..53 + each).map(move |to| (port, to))) {
            let _ = open(&mut world, 1, port, |from| udp(from, end(SERVER, to), b"data"));
        }
        // An even share is 300: up to there nothing is refused.
        let opened = (2000..2290).filter(|&port| open(&mut world, 2, port, udp_to).is_ok()).count();
        assert_eq!(opened, 290, "rest {rest}, {each} sessions an endpoint");
    }
}

#[test]
fn a_floor_is_there_whatever_gave_way_among_the_hosts_of_another() {
    let exact = ClientQuota { floor: Some(32), ceiling: Some(32) };
    for (quota, floor) in [(ClientQuota::default(), 16), (exact, 32)] {
        for others in 0..40 {
            let mut world = World::with_both(
                |config| config.sessions = 64,
                |options| (options.clients, options.session_quota) = (2, quota),
            );
            for (port, to) in (2000..2032).flat_map(|port| [(port, 53), (port, 54)]) {
                let _ = open(&mut world, 1, port, |from| udp(from, end(SERVER, to), b"data"));
            }
            (5000..5000 + others).for_each(|port| _ = open_from(&mut world, 1, 8, port, udp_to));
            let opened = (2000..2000 + floor).filter(|&port| open(&mut world, 0, port, udp_to).is_ok());
            assert_eq!(opened.count(), usize::from(floor), "after {others}");
        }
    }
}

/// A host of a client opens a session from a port.
fn open_from(
    world: &mut World,
    client: u8,
    host: u8,
    port: u16,
    octets: impl Fn(Endpoint) -> Vec<u8>,
) -> bool {
    let octets = octets(end([10, 0, client, host].into(), port));
    world.bind(client, &octets, SourceNat::Address(EXTERNAL)).is_ok()
}

#[test]
fn a_host_that_took_all_ports_of_its_client_gives_way_to_the_others_there() {
    let four = |options: &mut nat::Options| (options.clients, options.port_rest) = (4, 120);
    let mut world =
        World::with_both(|config| (config.sessions, config.external_ports) = (1000, 10_000..=10_799), four);
    assert!(open_from(&mut world, 1, 9, 7777, udp_to));
    assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [500]);
    // It takes nothing from the other host.
    assert!(world.is_live(protocol::UDP, end([10, 0, 1, 9].into(), 7777), TO));
    // Another host of the same client still gets its flows.
    let opened = (5000..5100).filter(|&port| open_from(&mut world, 1, 8, port, udp_to)).count();
    assert!(opened >= 95, "{opened}");
    // The others' floors are untouched.
    for client in [0, 2, 3] {
        let opened = (2000..2100).filter(|&port| open(&mut world, client, port, udp_to).is_ok()).count();
        assert_eq!(opened, 100);
    }
}

#[test]
fn a_host_gives_way_only_where_that_makes_room_and_ceilings_of_ports_are_kept() {
    let mut world = World::with_both(
        |config| config.sessions = 64,
        |options| {
            options.clients = 1;
            options.mapping_quota = ClientQuota { floor: Some(0), ceiling: Some(20) };
        },
    );
    let mut kept = |host, octets: fn(Endpoint) -> Vec<u8>| {
        (2000..2100).for_each(|port| _ = open_from(&mut world, 0, host, port, octets));
        let of = |protocol| world.nat.iter().filter(|(_, s)| s.original().protocol() == protocol).count();
        (of(protocol::UDP), of(protocol::TCP))
    };
    assert_eq!(kept(7, udp_to), (20, 0));
    assert_eq!(kept(7, syn_to), (20, 20));
    assert_eq!(kept(8, udp_to), (20, 20));
}

#[test]
fn a_host_that_took_all_sessions_of_its_client_gives_way_but_no_established_session_does() {
    let mut world = four(800);
    let hit = open(&mut world, 1, 80, syn_to).unwrap();
    let reply = world.nat.session(hit.session).reply();
    world.cross(&tcp(reply.source(), reply.destination(), SYN | ACK, (500, 101), &[])).unwrap();
    world.cross(&tcp(end([10, 0, 1, 7].into(), 80), end(SERVER, 80), ACK, (101, 501), &[])).unwrap();
    assert_eq!(kept(&mut world, &[1], 2000..4000, udp_to), [500]);
    (5000..6000).for_each(|port| _ = open_from(&mut world, 1, 8, port, udp_to));
    let of_other = |session: &nat::Session| session.original().source().address.octets()[3] == 8;
    let opened = world.nat.iter().filter(|(_, session)| of_other(session)).count();
    // Until the two are about even.
    assert!((200..=300).contains(&opened), "{opened}");
    assert!(world.nat.session(hit.session).is_tcp_established());
    assert_eq!(world.nat.counts().sessions, 500);
}

#[test]
fn req_8_a_stranger_takes_no_mapping_from_whom_it_talks_to() {
    for sessions in [16, 800] {
        let mut world = World::with_both(
            |config| config.sessions = sessions,
            |options| {
                options.udp_filtering = Filtering::EndpointIndependent;
                options.clients = 1;
                options.session_quota.ceiling = Some(16);
            },
        );
        let flows: Vec<_> =
            (0..16u8).filter(|&n| open_from(&mut world, 0, 7 + n % 3, 2000 + u16::from(n), udp_to)).collect();
        assert_eq!(flows.len(), 16);
        for port in 2000..2016 {
            let stranger = udp(end(ROUTER, 1), end(EXTERNAL, port), b"stranger");
            let tuple = parse(&stranger).tuple().unwrap();
            let Some(internal) = world.nat.inbound(&tuple, false) else { continue };
            if let Ok(hit) = world.bind_to(0, &stranger, internal, SourceNat::None) {
                assert_eq!(world.nat.internal(protocol::UDP, tuple.destination()), Some(internal));
                assert_eq!(world.nat.translation(hit).destination(), internal);
            }
            let lost = world.nat.iter().filter(|(_, session)| session.is_dnat()).any(|(_, session)| {
                let original = session.original();
                world.nat.internal(protocol::UDP, original.destination()) != Some(session.reply().source())
            });
            assert!(!lost, "a session without its mapping");
        }
    }
}

/// A client's connection to a server, from its SYN to the last ACK; `None` if there is no room for it.
fn connect_and_close(world: &mut World, client: u8, port: u16, to: Endpoint) -> Option<()> {
    let from = end([10, 0, client, 7].into(), port);
    let syn = tcp(from, to, SYN, (100, 0), &[]);
    let hit = world.bind(client, &syn, SourceNat::Address(EXTERNAL)).ok()?;
    let external = world.nat.session(hit.session).reply().destination();
    let mut cross = |from, to, flags, numbers| world.cross(&tcp(from, to, flags, numbers, &[])).unwrap();
    cross(to, external, SYN | ACK, (500, 101));
    cross(from, to, ACK, (101, 501));
    cross(from, to, FIN | ACK, (101, 501));
    cross(to, external, FIN | ACK, (501, 102));
    cross(from, to, ACK, (102, 502));
    Some(())
}

#[test]
fn closed_connections_give_way_to_new_ones_of_their_client() {
    for clients in [0, 1, 4] {
        let sessions = |config: &mut nat::Config<'_>| config.sessions = 800;
        let mut world = World::with_both(sessions, |options| options.clients = clients);
        // Each port to several servers: a session that has the mapping of others cannot go.
        let opened = (0..3000).filter(|&at| {
            let to = end(SERVER, 80 + at % 3);
            connect_and_close(&mut world, 0, 2000 + at / 3, to).is_some()
        });
        assert_eq!(opened.count(), 3000, "{clients}");
    }
}

#[test]
fn closed_connections_leave_their_ports_to_new_ones_of_their_client() {
    for clients in [0, 1, 4] {
        let ports = |config: &mut nat::Config<'_>| config.external_ports = 10_000..=10_399;
        let mut world = World::with_both(ports, |options| options.clients = clients);
        let to = end(SERVER, 80);
        let opened = (2000..4000).filter(|&port| connect_and_close(&mut world, 0, port, to).is_some());
        assert_eq!(opened.count(), 2000, "{clients}");
    }
}
