//! The first and only write: a new head for a packet whose payload stays as it is.
//!
//! Only header octets are read; checksums follow by their difference (RFC 1624), so that a wrong
//! transport checksum is still wrong behind us.

use crate::checksum::{self, Difference};
use crate::endpoint::{Endpoint, Ends, Tuple, protocol};
use crate::icmp::{self, Embedded};
use crate::packet::{Checksum, HEAD_MAX, IPV4, Packet, TCP, Transport, UDP, put};

/// Offset of the checksum in its header: IPv4 (RFC 791 3.1), UDP (RFC 768), TCP (RFC 9293 3.1),
/// ICMP (RFC 792).
const IPV4_CHECKSUM: usize = 10;
const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;
const ICMP_CHECKSUM: usize = 2;
/// Offset of an ICMP query's identifier.
const ICMP_ID: usize = 4;
const IPV4_TTL: usize = 8;
const IPV4_ADDRESSES: usize = 12;

/// What becomes of a packet's endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The endpoints behind us.
    addresses: u64,
    ports: u32,
    changes: Changes,
}

/// What translation adds to the sums that checksums are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Changes {
    /// To that over addresses: of the IPv4 header, and of a pseudo-header.
    network: Difference,
    /// To that of the transport: over addresses and ports; over the identifier of ICMP.
    transport: Difference,
}

impl Changes {
    /// None.
    pub(crate) const NONE: Self = Self { network: Difference::NONE, transport: Difference::NONE };

    /// Those of the other direction.
    #[inline]
    pub(crate) const fn reversed(self) -> Self {
        Self { network: self.network.reversed(), transport: self.transport.reversed() }
    }
}

impl Translation {
    /// The translation of packets of `tuple` to the endpoints given.
    pub fn new(tuple: &Tuple, source: Endpoint, destination: Endpoint) -> Self {
        Self::between(tuple, Ends::new(source, destination))
    }

    /// The translation that changes nothing.
    pub const fn identity(tuple: &Tuple) -> Self {
        Self::of(tuple.ends(), Changes::NONE)
    }

    /// The translation of packets of a tuple to other endpoints.
    #[inline]
    pub(crate) const fn between(tuple: &Tuple, ends: Ends) -> Self {
        let network = Difference::of_words(tuple.ends().addresses, ends.addresses);
        let ports = Difference::of_words(tuple.ends().ports as u64, ends.ports as u64);
        let transport = match tuple.protocol() {
            protocol::ICMP => ports,
            _ => network.and(ports),
        };
        Self::of(ends, Changes { network, transport })
    }

    /// The translation to these endpoints, which means these changes.
    #[inline]
    pub(crate) const fn of(ends: Ends, changes: Changes) -> Self {
        let Ends { addresses, ports } = ends;
        Self { addresses, ports, changes }
    }

    #[inline]
    const fn ends(&self) -> Ends {
        Ends { addresses: self.addresses, ports: self.ports }
    }

    /// What it adds to sums.
    #[inline]
    pub(crate) const fn changes(&self) -> Changes {
        self.changes
    }

    /// The source behind us.
    #[inline]
    pub const fn source(&self) -> Endpoint {
        self.ends().source()
    }

    /// The destination behind us.
    #[inline]
    pub const fn destination(&self) -> Endpoint {
        self.ends().destination()
    }
}

/// Where the headers that leave in place of those that arrived are written.
struct Head<'h> {
    octets: &'h mut [u8; HEAD_MAX],
}

impl<'h> Head<'h> {
    /// The first octets.
    #[inline]
    fn first(self, length: usize) -> &'h [u8] {
        self.octets.get(..length).unwrap_or_default()
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
        let checksum = difference.update(self.field(at));
        self.set(at, checksum.to_ne_bytes());
    }

    /// RFC 768: 0 means that there is no checksum; one that comes out as 0 is sent as 0xffff.
    #[inline]
    fn update_udp(&mut self, at: usize, difference: Difference) {
        let checksum = self.field(at);
        if checksum != 0 {
            let updated = match difference.update(checksum) {
                0 => 0xffff_u16,
                updated => updated,
            };
            self.set(at, updated.to_ne_bytes());
        }
    }

    /// Writes the addresses of the IPv4 header at `at`.
    #[inline]
    fn set_addresses(&mut self, at: usize, ends: Ends) {
        self.set(at + IPV4_ADDRESSES, ends.addresses.to_ne_bytes());
    }

    /// Writes the ports of the UDP or TCP header at `at`.
    #[inline]
    fn set_ports(&mut self, at: usize, ends: Ends) {
        self.set(at, ends.ports.to_ne_bytes());
    }

    /// Lowers the time to live, whose checksum is the header's. It was checked before: 0 stays 0.
    #[inline]
    fn lower_ttl(&mut self) {
        if self.octets[IPV4_TTL] != 0 {
            self.octets[IPV4_TTL] -= 1;
            self.update(IPV4_CHECKSUM, Difference::TTL);
        }
    }
}

impl Packet {
    /// Writes the head of the translated packet to `octets`, time to live lowered by one, and returns
    /// as many of them as it has, from the IPv4 header on; the payload follows them.
    ///
    /// The transport checksum follows. A partial one takes the change of addresses only: it holds
    /// the pseudo-header's sum, and the device sums the ports later (virtio 1.2, 5.1.6.2).
    #[inline(always)]
    pub fn rewrite<'h>(&self, octets: &'h mut [u8; HEAD_MAX], translation: Translation) -> &'h [u8] {
        let mut head = Head { octets };
        // Lengths and offsets are constants here.
        match (self.usual, self.transport) {
            (true, Transport::Udp) => {
                self.copy::<UDP>(&mut head);
                self.rewrite_addresses(&mut head, translation);
                self.rewrite_ports(IPV4, IPV4 + UDP_CHECKSUM, &mut head, translation);
                head.first(IPV4 + UDP)
            }
            (true, Transport::Tcp) => {
                self.copy::<TCP>(&mut head);
                self.rewrite_addresses(&mut head, translation);
                self.rewrite_ports(IPV4, IPV4 + TCP_CHECKSUM, &mut head, translation);
                head.first(IPV4 + TCP)
            }
            _ => {
                self.rewrite_any(&mut head, translation);
                head.first(self.head_len())
            }
        }
    }

    #[inline(never)]
    fn rewrite_any(&self, head: &mut Head, translation: Translation) {
        match self.embedded() {
            None => {
                *head.octets = self.head;
                self.rewrite_addresses(head, translation);
                self.rewrite_transport(self.header_len(), head, translation);
            }
            Some(embedded) => self.rewrite_error(head, embedded, translation),
        }
    }

    /// Copies an IPv4 header without options and a transport header of so many octets, in the parts
    /// in which they were written: what was written a moment ago is read from memory in no others
    /// without a wait.
    #[inline(always)]
    fn copy<const TRANSPORT: usize>(&self, head: &mut Head) {
        if let Some((network, rest)) = self.head.split_first_chunk::<IPV4>() {
            put(head.octets, 0, network);
            rest.first_chunk().inspect(|header: &&[u8; TRANSPORT]| put(head.octets, IPV4, header));
        }
    }

    /// Translates the IPv4 header.
    #[inline(always)]
    fn rewrite_addresses(&self, head: &mut Head, translation: Translation) {
        head.lower_ttl();
        head.update(IPV4_CHECKSUM, translation.changes.network);
        head.set_addresses(0, translation.ends());
    }

    fn rewrite_transport(&self, at: usize, head: &mut Head, translation: Translation) {
        let (ends, transport) = (translation.ends(), translation.changes.transport);
        let checksum = match self.transport {
            Transport::Udp => at + UDP_CHECKSUM,
            Transport::Tcp => at + TCP_CHECKSUM,
            Transport::Query => return head.set_id(at, ends.source().port, transport),
            Transport::Reply => return head.set_id(at, ends.destination().port, transport),
            Transport::Covered if self.protocol() == protocol::UDP_LITE => {
                return head.update_udp(at + UDP_CHECKSUM, transport);
            }
            Transport::Covered => return head.update(at + UDP_CHECKSUM, transport),
            Transport::Opaque | Transport::Error => return,
        };
        self.rewrite_ports(at, checksum, head, translation);
    }

    /// Translates the ports of a UDP or TCP header, and its checksum.
    #[inline(always)]
    fn rewrite_ports(&self, at: usize, checksum: usize, head: &mut Head, translation: Translation) {
        let Changes { network, transport } = translation.changes;
        head.set_ports(at, translation.ends());
        match (self.checksum, self.transport) {
            (Checksum::Partial, _) => {
                let sum = network.add_to(head.field(checksum));
                head.set(checksum, sum.to_ne_bytes());
            }
            (Checksum::Complete, Transport::Udp) => head.update_udp(checksum, transport),
            (Checksum::Complete, _) => head.update(checksum, transport),
        }
    }

    /// Writes the head of a translated ICMP error, for the direction in which the error travels.
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
    /// RFC 5508 REQ-4 and REQ-5.
    #[cold]
    fn rewrite_error(&self, head: &mut Head, embedded: &Embedded, translation: Translation) {
        *head.octets = self.head;
        let (icmp, end) = (self.header_len(), self.head_len());
        let quote = |head: &Head| checksum::sum(head.octets.get(icmp..end).unwrap_or_default());
        let outer = self.outer(translation);
        head.lower_ttl();
        head.update(IPV4_CHECKSUM, outer.changes.network);
        head.set_addresses(0, outer.ends());
        let before = quote(head);
        head.rewrite_embedded(icmp + icmp::HEADER, embedded, translation);
        let difference = Difference::of_sums(before, quote(head));
        head.update(icmp + ICMP_CHECKSUM, difference);
    }

    /// What becomes of addresses where no ports are: of an ICMP error's outer header, which all of
    /// its fragments have. Of other packets it is their translation.
    ///
    /// The outer source may be a router on the way; if the endpoint's address is hidden, so is it.
    pub fn outer(&self, translation: Translation) -> Translation {
        let Some(embedded) = self.embedded() else {
            return translation;
        };
        let outer = [self.source(), self.destination()].map(|address| Endpoint::new(address, 0));
        let is_hidden = embedded.tuple.destination().address != translation.source().address;
        let source = if is_hidden { translation.source().address } else { self.source() };
        Translation::new(
            &Tuple::new(self.protocol(), outer[0], outer[1]),
            Endpoint::new(source, 0),
            Endpoint::new(translation.destination().address, 0),
        )
    }
}

impl Head<'_> {
    #[inline]
    fn set_id(&mut self, at: usize, id: u16, difference: Difference) {
        self.set(at + ICMP_ID, id.to_be_bytes());
        self.update(at + ICMP_CHECKSUM, difference);
    }

    /// Turns the quoted packet into what its sender sent. It travelled against the error, so its
    /// source is the error's destination.
    fn rewrite_embedded(&mut self, at: usize, embedded: &Embedded, translation: Translation) {
        let change = Translation::between(&embedded.tuple, translation.ends().inverted());
        let (ends, Changes { network, transport: difference }) = (change.ends(), change.changes);
        self.update(at + IPV4_CHECKSUM, network);
        self.set_addresses(at, ends);
        let transport = at + usize::from(embedded.header_len);
        match embedded.tuple.protocol() {
            protocol::ICMP => {
                let id = if embedded.is_query { ends.source() } else { ends.destination() };
                self.set_id(transport, id.port, difference);
            }
            protocol::UDP => {
                self.set_ports(transport, ends);
                self.update_udp(transport + UDP_CHECKSUM, difference);
            }
            protocol::TCP => {
                self.set_ports(transport, ends);
                if usize::from(embedded.transport_len) >= TCP_CHECKSUM + 2 {
                    self.update(transport + TCP_CHECKSUM, difference);
                }
            }
            protocol::UDP_LITE => self.update_udp(transport + UDP_CHECKSUM, difference),
            protocol::DCCP => self.update(transport + UDP_CHECKSUM, difference),
            // By address alone.
            _ => {}
        }
    }
}
