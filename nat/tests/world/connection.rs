//! One TCP connection, from a client to a server.

use super::*;

pub const FROM: Endpoint = Endpoint::new(CLIENT, 5000);
pub const TO: Endpoint = Endpoint::new(SERVER, 80);
pub const OUT: Endpoint = Endpoint::new(EXTERNAL, 5000);

/// Seconds that the connection has left.
pub fn left(world: &mut World) -> u32 {
    let id = world.nat.iter().find(|(_, session)| session.original().source() == FROM).unwrap().0;
    world.told().remaining(id)
}

pub fn is_established(world: &World) -> bool {
    world.nat.iter().any(|(_, session)| session.original().source() == FROM && session.is_tcp_established())
}

pub fn segment(
    ends: (Endpoint, Endpoint),
    flags: u8,
    numbers: (u32, u32),
    window: (u16, Option<u8>),
) -> Vec<u8> {
    scaled_tcp(ends, flags, numbers, window, &[])
}

/// A connection whose sides offer these scales and then a window of 1000.
pub fn scaled(client: Option<u8>, server: Option<u8>) -> World {
    let mut world = World::new();
    world.cross(&segment((FROM, TO), SYN, (100, 0), (64_240, client))).unwrap();
    world.cross(&segment((TO, OUT), SYN | ACK, (500, 101), (65_160, server))).unwrap();
    world.cross(&segment((FROM, TO), ACK, (101, 501), (1000, None))).unwrap();
    world
}

pub fn connected() -> World {
    let mut world = World::new();
    assert_eq!(world.connect(FROM, TO), OUT);
    world
}

/// From whom to whom.
pub type Ends = (Endpoint, Endpoint);
/// Both directions of a connection: who sends, who answers, and their sequence numbers.
pub const WAYS: [(Ends, Ends, u32, u32); 2] =
    [((FROM, TO), (TO, OUT), 101, 501), ((TO, OUT), (FROM, TO), 501, 101)];
