//! The first and only write: a new head for a packet whose payload stays as it is.
//!
//! Only header octets are read; checksums follow by their difference (RFC 1624), so that a wrong
//! transport checksum is still wrong behind us.

use crate::checksum::{self, Difference};
use crate::endpoint::{Endpoint, Tuple};
use crate::icmp::{self, Embedded};
use crate::packet::{Checksum, HEAD_MAX, IPV4, Packet, Transport};

/// Offset of the checksum in its header: IPv4 (RFC 791 3.1), UDP (RFC 768), TCP (RFC 9293 3.1),
/// ICMP (RFC 792).
const IPV4_CHECKSUM: usize = 10;
const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;
const ICMP_CHECKSUM: usize = 2;
/// Offset of an ICMP query's identifier.
const ICMP_ID: usize = 4;
const IPV4_TTL: usize = 8;
const IPV4_SOURCE: usize = 12;
const IPV4_DESTINATION: usize = 16;
/// The head of a UDP or TCP packet without IP options fits in here.
const USUAL: usize = 40;

/// What becomes of a packet's endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The source behind us.
    pub source: Endpoint,
    /// The destination behind us.
    pub destination: Endpoint,
    pub(crate) addresses: Difference,
    pub(crate) ports: Difference,
    /// Whether the source's address changes: what stands behind it is not to be seen.
    pub(crate) hides_source: bool,
}

impl Translation {
    /// The translation of packets of `tuple` to the endpoints given.
    pub fn new(tuple: &Tuple, source: Endpoint, destination: Endpoint) -> Self {
        let address =
            |old: Endpoint, new: Endpoint| Difference::of_octets(old.address.octets(), new.address.octets());
        let port = |old: Endpoint, new: Endpoint| Difference::of_field(old.port, new.port);
        Self {
            source,
            destination,
            addresses: address(tuple.source, source).and(address(tuple.destination, destination)),
            ports: port(tuple.source, source).and(port(tuple.destination, destination)),
            hides_source: tuple.source.address != source.address,
        }
    }

    /// The translation that changes nothing.
    pub const fn identity(tuple: &Tuple) -> Self {
        Self {
            source: tuple.source,
            destination: tuple.destination,
            addresses: Difference::NONE,
            ports: Difference::NONE,
            hides_source: false,
        }
    }
}

/// The headers that leave in place of those that arrived.
#[derive(Clone, Debug)]
pub struct Head {
    octets: [u8; HEAD_MAX],
    length: u8,
}

impl Head {
    /// Nothing yet; [`Packet::rewrite_to`] fills it.
    pub const EMPTY: Self = Self { octets: [0; HEAD_MAX], length: 0 };

    /// The octets to send, from the IPv4 header on; the payload follows them.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    #[inline]
    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(place) = self.octets.get_mut(at..).and_then(|o| o.first_chunk_mut()) {
            *place = value;
        }
    }

    /// The checksum field at an offset, in the machine's order.
    #[inline]
    fn field(&self, at: usize) -> u16 {
        let field = self.octets.get(at..).and_then(|o| o.first_chunk());
        u16::from_ne_bytes(field.copied().unwrap_or_default())
    }

    #[inline]
    fn update(&mut self, at: usize, difference: Difference) {
        self.update_both(at, difference, Difference::NONE);
    }

    #[inline]
    fn update_both(&mut self, at: usize, one: Difference, other: Difference) {
        let checksum = one.update_both(other, self.field(at));
        self.set(at, checksum.to_ne_bytes());
    }

    /// RFC 768: 0 means that there is no checksum; one that comes out as 0 is sent as 0xffff.
    #[inline]
    fn update_udp(&mut self, at: usize, one: Difference, other: Difference) {
        let checksum = self.field(at);
        if checksum != 0 {
            let updated = match one.update_both(other, checksum) {
                0 => 0xffff_u16,
                updated => updated,
            };
            self.set(at, updated.to_ne_bytes());
        }
    }

    /// Writes the addresses of the IPv4 header at `at`.
    #[inline]
    fn set_addresses(&mut self, at: usize, source: [u8; 4], destination: [u8; 4]) {
        self.set(at + IPV4_SOURCE, source);
        self.set(at + IPV4_DESTINATION, destination);
    }

    #[inline]
    fn set_ports(&mut self, at: usize, source: u16, destination: u16) {
        self.set(at, source.to_be_bytes());
        self.set(at + 2, destination.to_be_bytes());
    }

    /// Lowers the time to live. It was checked before: 0 stays 0.
    #[inline]
    fn lower_ttl(&mut self) -> Difference {
        let ttl = self.octets[IPV4_TTL];
        self.octets[IPV4_TTL] = ttl.saturating_sub(1);
        if ttl > 0 { Difference::TTL } else { Difference::NONE }
    }
}

impl Packet {
    /// The head of the translated packet, time to live lowered by one.
    ///
    /// The transport checksum follows. A partial one takes the change of addresses only: it holds
    /// the pseudo-header's sum, and the device sums the ports later (virtio 1.2, 5.1.6.2).
    #[inline]
    pub fn rewrite(&self, translation: &Translation) -> Head {
        let mut head = Head::EMPTY;
        self.rewrite_to(&mut head, translation);
        head
    }

    /// As [`Packet::rewrite`], into a head at hand, which spares copying it.
    #[inline]
    pub fn rewrite_to(&self, head: &mut Head, translation: &Translation) {
        // The usual length and checksum as constants: then no offset needs checking.
        match (self.header_len(), self.checksum, self.transport) {
            (IPV4, Checksum::Complete, Transport::Udp) => {
                self.rewrite_addresses(USUAL, head, translation);
                self.rewrite_udp(head, translation);
            }
            (IPV4, Checksum::Complete, Transport::Tcp) => {
                self.rewrite_addresses(USUAL, head, translation);
                self.rewrite_tcp(head, translation);
            }
            (at, ..) => {
                match usize::from(self.head_len) <= USUAL {
                    true => self.rewrite_addresses(USUAL, head, translation),
                    false => self.rewrite_addresses(HEAD_MAX, head, translation),
                }
                self.rewrite_transport(at, head, translation);
            }
        }
    }

    /// Copies so many octets of the head, and translates the IPv4 header.
    #[inline(always)]
    fn rewrite_addresses(&self, length: usize, head: &mut Head, translation: &Translation) {
        head.length = self.head_len;
        if let Some((to, from)) = head.octets.get_mut(..length).zip(self.head.get(..length)) {
            to.copy_from_slice(from);
        }
        let ttl = head.lower_ttl();
        head.update_both(IPV4_CHECKSUM, ttl, translation.addresses);
        let (source, destination) = (translation.source, translation.destination);
        head.set_addresses(0, source.address.octets(), destination.address.octets());
    }

    #[inline(always)]
    fn rewrite_udp(&self, head: &mut Head, translation: &Translation) {
        head.set_ports(IPV4, translation.source.port, translation.destination.port);
        head.update_udp(IPV4 + UDP_CHECKSUM, translation.addresses, translation.ports);
    }

    #[inline(always)]
    fn rewrite_tcp(&self, head: &mut Head, translation: &Translation) {
        head.set_ports(IPV4, translation.source.port, translation.destination.port);
        head.update_both(IPV4 + TCP_CHECKSUM, translation.addresses, translation.ports);
    }

    fn rewrite_transport(&self, at: usize, head: &mut Head, translation: &Translation) {
        let (source, destination) = (translation.source.port, translation.destination.port);
        let (addresses, ports) = (translation.addresses, translation.ports);
        let checksum = match self.transport {
            Transport::Udp => at + UDP_CHECKSUM,
            Transport::Tcp => at + TCP_CHECKSUM,
            Transport::Query => return head.set_id(at, source, ports),
            Transport::Reply => return head.set_id(at, destination, ports),
            Transport::Opaque | Transport::Error => return,
        };
        head.set_ports(at, source, destination);
        match (self.checksum, self.transport) {
            (Checksum::Partial, _) => {
                let sum = addresses.add_to(head.field(checksum));
                head.set(checksum, sum.to_ne_bytes());
            }
            (Checksum::Complete, Transport::Udp) => head.update_udp(checksum, addresses, ports),
            (Checksum::Complete, _) => head.update_both(checksum, addresses, ports),
        }
    }

    /// The head of a translated ICMP error, for the direction in which the error travels.
    ///
    /// Type, code, the word behind them and everything behind the quoted headers stay.
    ///
    /// ```text
    ///   outer   server              -> 203.0.113.1         what arrives
    ///     inner 203.0.113.1:40000   -> server:53
    ///   outer   server              -> 10.0.0.7            what leaves
    ///     inner 10.0.0.7:5000       -> server:53
    ///
    ///   outer   10.0.0.7            -> server              a client's error
    ///     inner server:53           -> 10.0.0.7:5000
    ///   outer   203.0.113.1         -> server
    ///     inner server:53           -> 203.0.113.1:40000
    /// ```
    ///
    /// RFC 5508 REQ-4 and REQ-5. A packet that is no error is rewritten as any other.
    #[cold]
    pub fn rewrite_error(&self, translation: &Translation) -> Head {
        let Some(embedded) = self.embedded() else {
            return self.rewrite(translation);
        };
        let mut head = Head { octets: self.head, length: self.head_len };
        let icmp = self.header_len();
        let quote = |head: &Head| checksum::sum(head.as_slice().get(icmp..).unwrap_or_default());
        self.rewrite_outer(&mut head, translation);
        let before = quote(&head);
        head.rewrite_embedded(icmp + icmp::HEADER, embedded, translation);
        let difference = Difference::of_sums(before, quote(&head));
        head.update(icmp + ICMP_CHECKSUM, difference);
        head
    }

    /// The outer source may be a router on the way; if the endpoint's address is hidden, so is it.
    fn rewrite_outer(&self, head: &mut Head, translation: &Translation) {
        let source = match translation.hides_source {
            true => translation.source.address,
            false => self.source(),
        };
        let tuple = Tuple {
            protocol: self.protocol(),
            source: Endpoint::new(self.source(), 0),
            destination: Endpoint::new(self.destination(), 0),
        };
        let target = Endpoint::new(translation.destination.address, 0);
        let outer = Translation::new(&tuple, Endpoint::new(source, 0), target);
        let difference = head.lower_ttl().and(outer.addresses);
        head.update(IPV4_CHECKSUM, difference);
        head.set_addresses(0, source.octets(), target.address.octets());
    }
}

impl Head {
    #[inline]
    fn set_id(&mut self, at: usize, id: u16, difference: Difference) {
        self.set(at + ICMP_ID, id.to_be_bytes());
        self.update(at + ICMP_CHECKSUM, difference);
    }

    /// Turns the quoted packet into what its sender sent. It travelled against the error, so its
    /// source is the error's destination.
    fn rewrite_embedded(&mut self, at: usize, embedded: &Embedded, translation: &Translation) {
        let (source, destination) = (translation.destination, translation.source);
        let change = Translation::new(&embedded.tuple, source, destination);
        let (addresses, ports) = (change.addresses, change.ports);
        self.update(at + IPV4_CHECKSUM, addresses);
        self.set_addresses(at, source.address.octets(), destination.address.octets());
        let transport = at + usize::from(embedded.header_len);
        match embedded.tuple.protocol {
            crate::protocol::ICMP => {
                let id = if embedded.is_query { source } else { destination };
                self.set_id(transport, id.port, ports);
            }
            crate::protocol::UDP => {
                self.set_ports(transport, source.port, destination.port);
                self.update_udp(transport + UDP_CHECKSUM, addresses, ports);
            }
            crate::protocol::TCP => {
                self.set_ports(transport, source.port, destination.port);
                if usize::from(embedded.transport_len) >= TCP_CHECKSUM + 2 {
                    self.update_both(transport + TCP_CHECKSUM, addresses, ports);
                }
            }
            // By address alone.
            _ => {}
        }
    }
}
