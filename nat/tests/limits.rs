//! Everything is in use, and somebody honest comes: who has to give way, and who never.

mod world;

use nat::{ClientQuota, Endpoint, Hit, Refusal, SourceNat, protocol};
use world::*;

const ANY: SourceNat = SourceNat::Address(EXTERNAL);

fn host(client: u8, host: u8, port: u16) -> Endpoint {
    end([10, 0, client, host].into(), port)
}

fn syn(from: Endpoint, to: Endpoint) -> Vec<u8> {
    tcp(from, to, SYN, (100, 0), &[])
}

fn full(sessions: u32, clients: u8, rest: u32) -> World {
    World::with_both(
        |config| config.sessions = sessions,
        |options| (options.clients, options.port_rest) = (clients, rest),
    )
}

/// Clients: their number, and whether the appliance counts them.
const CLIENTS: [u8; 4] = [0, 1, 2, 9];

/// A client's connection to a server after its handshake, and the client's external endpoint.
fn connect(world: &mut World, client: u8, from: Endpoint, to: Endpoint) -> Result<(Hit, Endpoint), Refusal> {
    let hit = world.bind(client, &syn(from, to), ANY)?;
    let external = world.nat.session(hit.session).reply().destination();
    world.cross(&tcp(to, external, SYN | ACK, (500, 101), &[])).unwrap();
    world.cross(&tcp(from, to, ACK, (101, 501), &[])).unwrap();
    Ok((hit, external))
}

#[test]
fn a_host_that_scans_opens_its_own_connections_all_the_same() {
    for (clients, rest) in CLIENTS.into_iter().flat_map(|clients| [(clients, 0), (clients, 120)]) {
        for scan in [udp_probe as fn(Endpoint, Endpoint) -> Vec<u8>, syn] {
            let mut world = full(4096, clients, rest);
            let (first, _) = connect(&mut world, 0, host(0, 7, 1999), end(SERVER, 22)).unwrap();
            for probe in 0..20_000_u32 {
                let to = end([198, 51, (probe >> 8) as u8, probe as u8].into(), 9);
                // From one port, and from many.
                let from = host(0, 7, if probe % 2 == 0 { 2000 } else { 3000 + probe as u16 });
                assert!(world.bind(0, &scan(from, to), ANY).is_ok(), "probe {probe} of {clients}");
                if probe % 1000 == 0 {
                    let from = host(0, 7, 30_000 + (probe / 1000) as u16);
                    assert!(connect(&mut world, 0, from, end(SERVER, 80)).is_ok(), "{clients} {probe}");
                }
            }
            assert!(world.nat.take_given_way() > 10_000 && world.nat.take_given_way() == 0);
            assert!(world.nat.session(first.session).is_tcp_established());
            let established = world.nat.iter().filter(|(_, session)| session.is_tcp_established());
            assert_eq!(established.count(), 21, "{clients}");
        }
    }
}

fn udp_probe(from: Endpoint, to: Endpoint) -> Vec<u8> {
    udp(from, to, b"probe")
}

#[test]
fn a_flood_of_syns_on_a_forward_keeps_nobody_out() {
    for clients in CLIENTS {
        let mut world = full(4096, clients, 120);
        let open = |world: &mut World, from: Endpoint| {
            world.bind_to(0, &syn(from, FORWARD), FORWARDED, SourceNat::None).ok()
        };
        for stranger in 0..20_000_u32 {
            let from = end([198, 18, (stranger >> 8) as u8, stranger as u8].into(), 1025);
            assert!(open(&mut world, from).is_some(), "{clients} {stranger}");
            // The server answers, the stranger never does.
            let answer = tcp(FORWARDED, from, SYN | ACK, (500, 101), &[]);
            assert!(world.cross(&answer).is_ok());
        }
        let from = end(SERVER, 40_000);
        assert!(open(&mut world, from).is_some());
        world.cross(&tcp(FORWARDED, from, SYN | ACK, (500, 101), &[])).unwrap();
        world.cross(&tcp(from, FORWARD, ACK, (101, 501), &[])).unwrap();
        assert!(connect(&mut world, 0, Endpoint::new(FORWARDED.address, 2000), end(SERVER, 80)).is_ok());
    }
}

#[test]
fn questions_that_were_answered_give_way_and_conversations_do_not() {
    for clients in CLIENTS {
        let mut world = full(4096, clients, 120);
        let talks = (host(0, 7, 1999), end(SERVER, 4500));
        world.bind(0, &udp(talks.0, talks.1, b"hello"), ANY).unwrap();
        for second in 0..3 {
            world.wait(second);
            world.cross(&udp(talks.1, end(EXTERNAL, 1999), b"in")).unwrap();
            world.cross(&udp(talks.0, talks.1, b"out")).unwrap();
        }
        // A resolver: each question from another port, to another server.
        for question in 0..20_000_u32 {
            let to = end([198, 51, (question >> 8) as u8, question as u8].into(), 53);
            let from = host(0, 7, 2000 + question as u16);
            let hit = world.bind(0, &udp(from, to, b"question"), ANY);
            let hit = hit.unwrap_or_else(|_| panic!("{clients} {question}"));
            let external = world.nat.session(hit.session).reply().destination();
            world.cross(&udp(to, external, b"answer")).unwrap();
            if question % 50 == 0 {
                world.wait(1);
            }
            if question % 1000 == 0 {
                world.cross(&udp(talks.0, talks.1, b"out")).unwrap();
            }
        }
        assert!(world.is_live(protocol::UDP, talks.0, talks.1));
        connect(&mut world, 0, host(0, 7, 1998), end(SERVER, 22)).unwrap();
    }
}

#[test]
fn what_is_in_flight_outlives_a_flood_of_its_own_host() {
    let mut world = full(1000, 1, 0);
    for probe in 0..3000 {
        let from = host(0, 7, 2000 + probe);
        world.bind(0, &syn(from, end(SERVER, 9)), ANY).unwrap();
        // It is one of the last 800: the oldest go first.
        let before = host(0, 7, 2000 + probe.saturating_sub(800));
        assert!(world.is_live(protocol::TCP, before, end(SERVER, 9)), "{probe}");
    }
}

#[test]
fn rfc_7857_connections_that_were_reset_give_way_as_closed_ones_do() {
    for (clients, of_server) in CLIENTS.into_iter().flat_map(|clients| [(clients, false), (clients, true)]) {
        let mut world = full(800, clients, 120);
        for at in 0..3000 {
            let (from, to) = (host(0, 7, 2000 + at / 3), end(SERVER, 80 + at % 3));
            let (_, external) = connect(&mut world, 0, from, to).unwrap_or_else(|_| panic!("{clients} {at}"));
            let reset = match of_server {
                true => tcp(to, external, RST | ACK, (501, 101), &[]),
                false => tcp(from, to, RST | ACK, (101, 501), &[]),
            };
            world.cross(&reset).unwrap();
        }
        assert_eq!(world.nat.take_given_way(), 0, "they were over");
    }
}

#[test]
fn req_3_a_small_range_of_ports_is_not_held_by_what_is_over_and_a_flow_keeps_its_port_until_then() {
    for (clients, rest) in CLIENTS.into_iter().flat_map(|clients| [(clients, 0), (clients, 120)]) {
        for is_reset in [false, true] {
            let mut world = full(4096, clients, rest);
            // Many others that are over, with ports elsewhere.
            for port in 2000..3000 {
                let (_, external) = connect(&mut world, 0, host(0, 8, port), end(SERVER, 80)).unwrap();
                world.cross(&tcp(end(SERVER, 80), external, RST | ACK, (501, 101), &[])).unwrap();
            }
            let range = SourceNat::Range(EXTERNAL, 20_000, 20_009);
            let mut opened = 0;
            for port in 2000..2100 {
                let from = host(0, 7, port);
                let Ok(hit) = world.bind(0, &syn(from, end(SERVER, 80)), range) else { continue };
                opened += 1;
                let external = world.nat.session(hit.session).reply().destination();
                assert!((20_000..=20_009).contains(&external.port));
                if is_reset {
                    world.cross(&tcp(end(SERVER, 80), external, RST | ACK, (0, 101), &[])).unwrap();
                }
            }
            assert_eq!(opened, if is_reset { 100 } else { 10 }, "{clients} {rest}");
            let over = world
                .nat
                .iter()
                .filter(|(_, session)| session.original().source().address == host(0, 8, 0).address);
            assert_eq!(over.count(), 1000, "nothing went that has no port of the range");
        }
    }
}

#[test]
fn closed_connections_leave_ports_at_rest_to_the_first_packet_that_needs_one() {
    for clients in CLIENTS {
        let ports = |config: &mut nat::Config<'_>| config.external_ports = 10_000..=10_399;
        let mut world =
            World::with_both(ports, |options| (options.clients, options.port_rest) = (clients, 120));
        for port in 2000..4000 {
            let (from, to) = (host(0, 7, port), end(SERVER, 80));
            let (_, external) =
                connect(&mut world, 0, from, to).unwrap_or_else(|_| panic!("{clients} {port}"));
            world.cross(&tcp(from, to, FIN | ACK, (101, 501), &[])).unwrap();
            world.cross(&tcp(to, external, FIN | ACK, (501, 102), &[])).unwrap();
            world.cross(&tcp(from, to, ACK, (102, 502), &[])).unwrap();
        }
    }
}

#[test]
fn fairness_where_the_largest_is_established_others_that_have_more_give_way() {
    let mut world = World::with_both(
        |config| config.sessions = 1000,
        |options| {
            options.clients = 4;
            options.session_quota = ClientQuota { floor: Some(10), ceiling: None };
            options.mapping_quota.floor = Some(0);
        },
    );
    for port in 2000..2500 {
        connect(&mut world, 1, host(1, 7, port), end(SERVER, 80)).unwrap();
    }
    for port in 2000..2470 {
        world.bind(2, &syn(host(2, 7, port), end(SERVER, 9)), ANY).unwrap();
    }
    let opened =
        (2000..2200).filter(|&port| connect(&mut world, 3, host(3, 7, port), end(SERVER, 80)).is_ok());
    assert_eq!(opened.count(), 200);
    let of = |client| {
        world.nat.iter().filter(|(_, s)| s.original().source().address == host(client, 7, 0).address).count()
    };
    assert_eq!([1, 3].map(of), [500, 200], "what is established stays");
}

#[test]
fn a_host_of_many_short_connections_to_a_few_servers_opens_them_all() {
    for clients in CLIENTS {
        let mut world = full(8192, clients, 120);
        for n in 0..30_000_u32 {
            let (from, to) = (host(0, 7, 32_768 + (n % 3529) as u16), end(SERVER, 440 + (n % 5) as u16));
            let first = n.wrapping_mul(65_000);
            let left = match world.is_live(protocol::TCP, from, to) {
                true => ends(&world.cross(&tcp(from, to, SYN, (first, 0), &[])).unwrap()).0,
                false => {
                    let hit = world.bind(0, &tcp(from, to, SYN, (first, 0), &[]), ANY);
                    world.nat.translation(hit.unwrap_or_else(|_| panic!("{clients} {n}"))).source()
                }
            };
            let mut cross =
                |from, to, flags, numbers| world.cross(&tcp(from, to, flags, numbers, &[])).unwrap();
            cross(to, left, SYN | ACK, (500, first.wrapping_add(1)));
            cross(from, to, FIN | ACK, (first.wrapping_add(1), 501));
            cross(to, left, FIN | ACK, (501, first.wrapping_add(2)));
        }
    }
}
