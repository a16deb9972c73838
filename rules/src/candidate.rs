//! What the policy may look at.

use core::net::Ipv4Addr;

/// Where on its way a packet meets the policy (netfilter's hooks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before the route is chosen; destination translation happens here.
    Prerouting,
    /// To the appliance itself.
    Input,
    /// From port to port.
    Forward,
    /// From the appliance itself.
    Output,
    /// Before a packet leaves; source translation happens here.
    Postrouting,
}

impl Hook {
    /// All hooks, in the order of [`Policy::hooks`](crate::Policy::hooks).
    pub const ALL: [Self; 5] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
}

/// The state of the packet's session, as Linux gives it to `ct state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No reply was seen yet, and this is no reply.
    New,
    /// Both directions were seen, or this is the first reply.
    Established,
    /// An ICMP error about a session.
    Related,
    /// Belongs to no session and opens none.
    Invalid,
    /// Kept out of the session table on purpose.
    Untracked,
}

impl State {
    /// The bit of this state in a `ct state` mask, with the kernel's numbers.
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::Established => 2,
            Self::Related => 4,
            Self::New => 8,
            Self::Untracked => 64,
        }
    }
}

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As its first packet.
    Original,
    /// As the answers to it.
    Reply,
}

/// The endpoints of one direction of a connection; ports are 0 for protocols without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

/// The packet's connection, as `ct` reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// `ct mark`.
    pub mark: u32,
    /// `ct direction`.
    pub direction: Direction,
    /// `ct original`: the endpoints of its first packet as it came.
    pub original: Endpoints,
    /// `ct reply`: the endpoints of its answers as they come; `None` while the first packet is on its way, and
    /// they follow from what it is translated to.
    pub reply: Option<Endpoints>,
}

impl Connection {
    /// The connection that a packet with these endpoints opens.
    #[must_use]
    pub const fn opened(original: Endpoints) -> Self {
        Self { mark: 0, direction: Direction::Original, original, reply: None }
    }
}

/// The Ethernet header that a packet came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stations {
    /// Who has sent the frame.
    pub source: [u8; 6],
    /// Whom it was for.
    pub destination: [u8; 6],
}

/// A packet as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The port it came in by; `None` for the appliance's own packets.
    pub input: Option<u8>,
    /// The port it leaves by; `None` where the route is not chosen yet and for packets to the appliance.
    pub output: Option<u8>,
    /// The source address at this hook.
    pub source: Ipv4Addr,
    /// The destination address at this hook.
    pub destination: Ipv4Addr,
    /// The IPv4 protocol number.
    pub protocol: u8,
    /// The source port of TCP, UDP, UDP-Lite, SCTP and DCCP; 0 for protocols without.
    pub source_port: u16,
    /// The destination port of the same; 0 for protocols without.
    pub destination_port: u16,
    /// Whether it has ports: its protocol does, and it is long enough for them.
    pub has_ports: bool,
    /// The packet's own ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// The flags octet of TCP (RFC 9293 3.1); 0 for other protocols.
    pub tcp_flags: u8,
    /// DSCP and ECN, the second octet of the header.
    pub tos: u8,
    /// Time to live: as received in prerouting and input, lowered from forward on.
    pub ttl: u8,
    /// The total length in octets, header included.
    pub length: u16,
    /// The identification field.
    pub identification: u16,
    /// `ct state`.
    pub state: State,
    /// `ct status dnat`: the session's destination is translated.
    pub dnat: bool,
    /// `ct status snat`: the session's source is translated.
    pub snat: bool,
    /// `meta mark`: 0 as received.
    pub mark: u32,
    /// The stations of the frame that brought it; `None` for the appliance's own packets.
    pub stations: Option<Stations>,
    /// Its connection; `None` for packets that belong to none and open none.
    pub connection: Option<Connection>,
}

impl Candidate {
    /// The endpoints of the packet at this hook.
    #[must_use]
    pub const fn endpoints(&self) -> Endpoints {
        Endpoints {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    /// The endpoints of the answers to the connection, as far as they are known.
    pub(crate) fn reply(&self) -> Option<Endpoints> {
        let connection = self.connection?;
        Some(connection.reply.unwrap_or(Endpoints {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }))
    }
}
