//! A TCP connection from a client to a server outside, with sequence numbers that fit.

use std::net::SocketAddrV4;

use crate::flags::{ACK, FIN, PSH, RST, SYN};
use crate::packet::{At, Packet, tcp};
use crate::view::Seen;
use crate::world::World;

/// Both ends of a connection, and where each is in its numbers.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's own endpoint.
    pub client: SocketAddrV4,
    /// What the server sees of it.
    pub external: SocketAddrV4,
    /// The server.
    pub server: SocketAddrV4,
    /// The client's port.
    pub port: &'static str,
    /// The next sequence number of the client.
    pub client_seq: u32,
    /// The next sequence number of the server.
    pub server_seq: u32,
}

impl Connection {
    /// The client sends its SYN.
    #[track_caller]
    pub fn begin(world: &mut World, client: impl At, server: impl At) -> Self {
        let (client, server) = (client.at(), server.at());
        let port = world.behind(*client.ip());
        let seen = world.cross(port, "uplink", tcp(client, server, (SYN, 999, 0), b""));
        Self { client, external: seen.from(), server, port, client_seq: 1000, server_seq: 5000 }
    }

    /// The three-way handshake (RFC 9293 3.5).
    #[track_caller]
    pub fn open(world: &mut World, client: impl At, server: impl At) -> Self {
        let mut connection = Self::begin(world, client, server);
        connection.server_seq = 4999;
        connection.inward(world, SYN | ACK, b"");
        connection.outward(world, ACK, b"");
        connection
    }

    /// A segment from the client.
    pub fn from_client(&self, flags: u8, data: &[u8]) -> Packet {
        tcp(self.client, self.server, (flags, self.client_seq, self.server_seq), data)
    }

    /// A segment from the server.
    pub fn from_server(&self, flags: u8, data: &[u8]) -> Packet {
        tcp(self.server, self.external, (flags, self.server_seq, self.client_seq), data)
    }

    /// The client sends, and the server gets it.
    #[track_caller]
    pub fn outward(&mut self, world: &mut World, flags: u8, data: &[u8]) -> Seen {
        let seen = world.cross(self.port, "uplink", self.from_client(flags, data));
        self.client_seq = self.client_seq.wrapping_add(length(flags, data));
        assert_eq!((seen.from(), seen.to()), (self.external, self.server));
        seen
    }

    /// The server sends, and the client gets it.
    #[track_caller]
    pub fn inward(&mut self, world: &mut World, flags: u8, data: &[u8]) -> Seen {
        let seen = world.cross("uplink", self.port, self.from_server(flags, data));
        self.server_seq = self.server_seq.wrapping_add(length(flags, data));
        assert_eq!((seen.from(), seen.to()), (self.server, self.client));
        seen
    }

    /// Data both ways, all of it acknowledged.
    #[track_caller]
    pub fn talk(&mut self, world: &mut World) {
        self.outward(world, ACK | PSH, b"request");
        self.inward(world, ACK | PSH, b"response");
        self.outward(world, ACK, b"");
    }

    /// Both sides say that they are done (RFC 9293 3.6).
    #[track_caller]
    pub fn close(&mut self, world: &mut World) {
        self.outward(world, FIN | ACK, b"");
        self.inward(world, FIN | ACK, b"");
        self.outward(world, ACK, b"");
    }

    /// The server resets the connection.
    #[track_caller]
    pub fn reset(&mut self, world: &mut World) {
        self.inward(world, RST | ACK, b"");
    }

    /// Whether a segment from the server reaches the client.
    pub fn is_alive(&self, world: &mut World) -> bool {
        world.send("uplink", self.from_server(ACK | PSH, b"probe"));
        let alive = !world.sent(self.port).is_empty();
        world.quiet();
        alive
    }
}

/// The sequence numbers that a segment takes.
fn length(flags: u8, data: &[u8]) -> u32 {
    data.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0)
}
