//! A naive NAT: what [`crate::site::RULES`] and NAT do to packets, told in the simplest way.
//!
//! It has no idea of checksums, windows, timers or slabs. Where the real one is free to choose (a
//! port on a collision, when to take back a port that has rested) it takes what it is shown and
//! checks that it was allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::tcp_model::{Kind, Outcome, Tcp};

/// The external address.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The static forward, and the server behind it.
pub const FORWARD: SocketAddrV4 = SocketAddrV4::new(EXTERNAL, 8080);
/// The server behind the static forward.
pub const FORWARDED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 2), 80);
/// Seconds for which an ended session may still hold its port and be counted.
const CLEARING: u64 = 3;

/// Protocol, source, destination. An echo request goes to port 0x0800, its identifier is the port
/// of who asks.
pub type Tuple = (u8, SocketAddrV4, SocketAddrV4);

/// Protocol, internal and external endpoint.
pub type Mapping = (u8, SocketAddrV4, SocketAddrV4);

/// From whom a mapping takes packets that no session awaits (RFC 4787 REQ-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// From anybody.
    EndpointIndependent,
    /// From addresses that it has a session with.
    AddressDependent,
    /// From nobody.
    #[default]
    AddressAndPortDependent,
}

/// What the site chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Filtering of UDP and TCP.
    pub filtering: Filtering,
    /// Whether inbound packets refresh.
    pub inbound_refresh: bool,
    /// Whether segments in the middle of a connection open one.
    pub pickup: bool,
    /// Seconds for which a port rests.
    pub port_rest: u64,
}

/// The port of a packet's way in or out.
pub fn port_of(address: Ipv4Addr) -> &'static str {
    match address.octets() {
        [10, 0, 1, _] => "work",
        [10, 0, 2, _] => "lab",
        _ => "uplink",
    }
}

/// A session, from its opener's point of view.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The opener's packets as they arrive.
    pub original: Tuple,
    /// The answers as they arrive.
    pub reply: Tuple,
    /// Its connection, if it is TCP.
    pub tcp: Tcp,
    /// The mapping that it uses.
    mapping: Option<Mapping>,
    /// The mapping that it came through, if it is hairpinned: it stays as long.
    held: Option<Mapping>,
    /// Whether the mapping's internal endpoint opened it.
    opened_inside: bool,
    /// The direction that refreshes: 0 the opener's, 1 the answers'.
    outward: usize,
    replied: bool,
    /// The last second in which it is alive.
    pub until: u64,
}

impl Flow {
    fn mappings(&self) -> impl Iterator<Item = Mapping> + use<> {
        self.mapping.into_iter().chain(self.held)
    }

    /// Whom the mapping's internal endpoint talks to.
    fn peer(&self) -> Ipv4Addr {
        *if self.opened_inside { self.reply.1 } else { self.original.1 }.ip()
    }
}

/// What is to become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing leaves.
    Dropped,
    /// Nothing leaves, and its sender may be told that there is no room for it.
    Refused,
    /// It leaves like this.
    Forwarded(Tuple),
    /// It leaves to this destination, with an external source that the model is to be told.
    Mapped(SocketAddrV4),
}

/// The sessions of the naive NAT.
#[derive(Default)]
pub struct Model {
    choices: Choices,
    flows: Vec<Flow>,
    /// Released ports by protocol and external endpoint: whose they were, and when their rest ends
    /// at the earliest.
    rests: BTreeMap<(u8, SocketAddrV4), (SocketAddrV4, u64)>,
}

fn inverted((protocol, from, to): Tuple) -> Tuple {
    (protocol, to, from)
}

impl Model {
    /// That of a site.
    pub fn new(choices: Choices) -> Self {
        Self { choices, ..Self::default() }
    }

    /// Whether something ends about now: then the table may or may not hold it.
    pub fn is_uncertain(&self, now: u64) -> bool {
        let mut rests = self.rests.values();
        self.flows.iter().any(|flow| (flow.until + 1..=flow.until + CLEARING).contains(&now))
            || rests.any(|&(_, end)| (end..=end + CLEARING).contains(&now))
    }

    /// Time has passed: what ended is gone, and its ports begin to rest.
    pub fn clear(&mut self, now: u64) {
        let (alive, ended): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flows).into_iter().partition(|flow| flow.until >= now);
        self.flows = alive;
        if self.choices.port_rest == 0 {
            return;
        }
        // The last session of a mapping tells when its rest began.
        let mut idle = BTreeMap::new();
        for flow in ended {
            for mapping in flow.mappings() {
                let until = idle.entry(mapping).or_insert(flow.until);
                *until = flow.until.max(*until);
            }
        }
        for ((protocol, internal, external), until) in idle {
            if !self.used().any(|mapping| mapping == (protocol, internal, external)) {
                self.rests.insert((protocol, external), (internal, until + 1 + self.choices.port_rest));
            }
        }
    }

    /// The sessions alive.
    pub fn alive(&self) -> &[Flow] {
        &self.flows
    }

    /// The mappings in use.
    pub fn mappings(&self) -> usize {
        self.used().collect::<BTreeSet<_>>().len()
    }

    fn used(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.flows.iter().flat_map(Flow::mappings)
    }

    /// The side of a session that sends packets like this.
    pub fn find(&self, tuple: Tuple) -> Option<(usize, &Flow)> {
        self.flows.iter().find_map(|flow| match tuple {
            tuple if tuple == flow.original => Some((0, flow)),
            tuple if tuple == flow.reply => Some((1, flow)),
            _ => None,
        })
    }

    /// Where an ICMP error goes that quotes this packet: the quoted packet as its sender sent it.
    pub fn quoted(&self, quoted: Tuple) -> Option<Tuple> {
        let (side, flow) = self.find(inverted(quoted))?;
        Some(if side == 0 { flow.reply } else { flow.original })
    }

    /// A packet arrives; a TCP segment's kind and numbers are those that [`Tcp::write`] gave it.
    pub fn packet(&mut self, tuple: Tuple, segment: Option<(Kind, [u32; 2])>, now: u64) -> Fate {
        let Some((side, flow)) = self.find(tuple) else {
            return self.open(tuple, segment, now);
        };
        let leaves = inverted(if side == 0 { flow.reply } else { flow.original });
        let (original, inbound_refresh) = (flow.original, self.choices.inbound_refresh);
        let flow = self.flows.iter_mut().find(|flow| flow.original == original).expect("it was found");
        let first_reply = side == 1 && !flow.replied;
        match segment {
            Some((kind, numbers)) => match flow.tcp.take(kind, side, numbers) {
                Outcome::Dropped => return Fate::Dropped,
                Outcome::Ignored => return Fate::Forwarded(leaves),
                Outcome::Counted => flow.until = now + flow.tcp.timeout(),
            },
            None if side == flow.outward || first_reply || inbound_refresh => {
                flow.until = now + idle(tuple.0);
            }
            None => {}
        }
        flow.replied |= side == 1;
        Fate::Forwarded(leaves)
    }

    /// The mapping at an external endpoint that lets this packet in.
    fn admitting(&self, (protocol, from, to): Tuple) -> Option<Mapping> {
        let mut using =
            self.flows.iter().filter(|flow| flow.mapping.is_some_and(|m| (m.0, m.2) == (protocol, to)));
        let owned = using.clone().any(|flow| flow.opened_inside || flow.replied);
        let inside = port_of(*from.ip()) != "uplink";
        let admits = inside
            || match self.choices.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => using.clone().any(|flow| flow.peer() == *from.ip()),
                Filtering::AddressAndPortDependent => false,
            };
        (matches!(protocol, 6 | 17) && owned && admits).then(|| using.next()?.mapping).flatten()
    }

    fn open(&mut self, tuple: Tuple, segment: Option<(Kind, [u32; 2])>, now: u64) -> Fate {
        let (protocol, from, to) = tuple;
        let request = match segment {
            Some((kind, _)) => kind.opens() || self.choices.pickup && kind.goes_on(),
            None => protocol != 1 || to.port() == 0x0800,
        };
        let tcp = segment.map(|(kind, numbers)| Tcp::open(kind, numbers)).unwrap_or_default();
        let forwarded = to == FORWARD && matches!(protocol, 6 | 17);
        let mapped = if forwarded { None } else { self.admitting(tuple) };
        let destination = match mapped {
            Some((_, internal, _)) => internal,
            None if forwarded => FORWARDED,
            None => to,
        };
        let dnat = forwarded || mapped.is_some();
        let (input, output) = (port_of(*from.ip()), port_of(*destination.ip()));
        let admitted = match (input, output) {
            _ if !request || *destination.ip() == EXTERNAL => false,
            _ if dnat => true,
            ("uplink", _) => false,
            (_, "uplink") => true,
            ("work", "lab") => matches!(protocol, 6 | 17) && to.port() == 7000,
            _ => false,
        };
        if !admitted {
            return Fate::Dropped;
        }
        let reply = (protocol, destination, from);
        // Clients are translated towards the uplink, and when they come by an external endpoint.
        if input == "uplink" || (output != "uplink" && !dnat) {
            let outward = usize::from(input == "uplink");
            return self.bind(tuple, reply, mapped.filter(|_| input == "uplink"), outward, tcp, now);
        }
        if is_without_ports(protocol) {
            // The first client to a peer has the address.
            if self.find((protocol, destination, SocketAddrV4::new(EXTERNAL, 0))).is_some() {
                return Fate::Refused;
            }
            return self.bind(
                tuple,
                (protocol, destination, SocketAddrV4::new(EXTERNAL, 0)),
                None,
                0,
                tcp,
                now,
            );
        }
        let same = self.used().find(|mapping| (mapping.0, mapping.1) == (protocol, from));
        if let Some(mapping) = same {
            return self.bind(tuple, (protocol, destination, mapping.2), Some(mapping), 0, tcp, now);
        }
        Fate::Mapped(destination)
    }

    /// The real NAT chose this external endpoint for a new mapping.
    ///
    /// # Panics
    /// If it may not have done that.
    pub fn learn(
        &mut self,
        tuple: Tuple,
        segment: Option<(Kind, [u32; 2])>,
        destination: SocketAddrV4,
        external: SocketAddrV4,
        now: u64,
    ) {
        let (protocol, internal, _) = tuple;
        assert_eq!(*external.ip(), EXTERNAL);
        assert!(protocol == 1 || external != FORWARD, "the static forward's port");
        let holder = |external| self.used().find(|mapping| (mapping.0, mapping.2) == (protocol, external));
        assert_eq!(holder(external), None, "{external} is in use");
        let rest = |external| self.rests.get(&(protocol, external)).copied();
        if let Some((owner, end)) = rest(external) {
            assert!(owner == internal || now >= end, "{external} rests for {owner} until {end}, now {now}");
        }
        let own = self.rests.iter().find(|(key, (owner, _))| key.0 == protocol && *owner == internal);
        let preferred = SocketAddrV4::new(EXTERNAL, internal.port());
        match own {
            // A port that rested long enough may or may not be taken back already.
            Some((_, (_, end))) if now >= *end => {}
            Some((&(_, own), _)) => assert_eq!(external, own, "{internal} comes back to its port"),
            None if holder(preferred).is_none() && rest(preferred).is_none() && preferred != FORWARD => {
                assert_eq!(external, preferred, "{internal} is not preserved");
            }
            None => {}
        }
        if protocol != 1 {
            assert_eq!(external.port() < 1024, internal.port() < 1024, "{internal} -> {external}");
            assert_eq!(external.port() % 2, internal.port() % 2, "{internal} -> {external}");
        }
        self.rests.retain(|&(number, port), (owner, _)| {
            number != protocol || (port != external && *owner != internal)
        });
        let tcp = segment.map(|(kind, numbers)| Tcp::open(kind, numbers)).unwrap_or_default();
        let mapping = (protocol, internal, external);
        self.bind(tuple, (protocol, destination, external), Some(mapping), 0, tcp, now);
    }

    fn bind(
        &mut self,
        original: Tuple,
        reply: Tuple,
        mapping: Option<Mapping>,
        outward: usize,
        tcp: Tcp,
        now: u64,
    ) -> Fate {
        // Two sessions cannot be told apart by one tuple, nor one's two directions.
        if original == reply || self.find(reply).is_some() {
            return Fate::Dropped;
        }
        let until = now + if original.0 == 6 { tcp.timeout() } else { idle(original.0) };
        let opened_inside = mapping.is_some() && outward == 0;
        let held = if opened_inside { self.admitting(original) } else { None };
        self.flows.push(Flow {
            original,
            reply,
            tcp,
            mapping,
            held,
            opened_inside,
            outward,
            replied: false,
            until,
        });
        Fate::Forwarded(inverted(reply))
    }
}

/// Whether a protocol's sessions are by address alone.
pub fn is_without_ports(protocol: u8) -> bool {
    !matches!(protocol, 1 | 6 | 17)
}

fn idle(protocol: u8) -> u64 {
    match protocol {
        1 => 60,
        17 => 300,
        _ => 600,
    }
}
