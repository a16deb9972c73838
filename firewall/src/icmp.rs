//! What the appliance says itself: ICMP errors, echo replies, TCP resets.
//!
//! A message is a new header in front of octets of the packet that it answers, which ride along
//! untouched: a quote is what the sender sent (RFC 1812 4.3.2.3). Who may be answered is RFC 1812
//! 4.3.2.7, how often 4.3.2.8.

use alloc::boxed::Box;
use alloc::vec;
use core::net::Ipv4Addr;
use core::ops::Range;

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpFragOffset, IpNumber, Ipv4Header, TcpHeader};
use nat::checksum::Difference;
use nat::{Packet, tcp_flags};
use smoltcp::time::Instant;

use crate::hash::fold;
use crate::route::Routes;

/// An ICMP error is at most this long, IPv4 header included (RFC 1812 4.3.2.3), in octets.
pub const ERROR_MAX: usize = 576;
/// Time to live of what the appliance sends.
const TTL: u8 = 64;
/// An IPv4 header without options and the fixed part of an ICMP message, in octets.
const ERROR_HEAD: usize = 20 + 8;
/// What a refused packet's sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 11/0.
    TimeExceeded,
    /// Type 3 with this code.
    Unreachable(u8),
    /// 3/4 with the next hop's MTU in octets (RFC 1191).
    FragmentationNeeded(u16),
    /// A TCP reset in the name of the peer.
    TcpReset,
}

impl Answer {
    /// 3/0: no route.
    pub const NET_UNREACHABLE: Self = Self::Unreachable(0);
    /// 3/1: the next hop does not answer ARP.
    pub const HOST_UNREACHABLE: Self = Self::Unreachable(1);
    /// 3/2: the appliance does not speak the protocol.
    pub const PROTOCOL_UNREACHABLE: Self = Self::Unreachable(2);
    /// 3/3: nobody listens at the appliance's port.
    pub const PORT_UNREACHABLE: Self = Self::Unreachable(3);
    /// 3/13: refused, by a rule or for want of resources (RFC 5508 REQ-8).
    pub const ADMIN_PROHIBITED: Self = Self::Unreachable(13);
}

/// A message: its IPv4 and transport header, and which octets of the answered packet follow.
pub struct Message {
    /// The new header.
    pub head: heapless::Vec<u8, 60>,
    /// What follows it, in octets of the answered packet from its IPv4 header on.
    pub quote: Range<usize>,
}

/// Whether RFC 1812 4.3.2.7 allows an error about `packet`.
pub fn may_answer(packet: &Packet, routes: &Routes) -> bool {
    // Of ICMP only queries and their replies have a tuple: no errors, and no unknown types.
    let is_first = packet.fragment().is_none_or(|fragment| fragment.offset == 0);
    let answerable = packet.tuple().is_some() || packet.protocol() != nat::protocol::ICMP && is_first;
    let destination = packet.destination();
    let unicast = routes.is_own(destination) || routes.is_forwardable(destination);
    answerable && unicast && routes.is_forwardable(packet.source())
}

/// The error that `answer` stands for, about `packet`, of which `octets` holds all.
pub fn error(answer: Answer, source: Ipv4Addr, packet: &Packet, octets: &[u8]) -> Option<Message> {
    let kind = match answer {
        Answer::TimeExceeded => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        Answer::FragmentationNeeded(mtu) => {
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: mtu,
            })
        }
        Answer::Unreachable(code) => {
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::from_values(code, 0)?)
        }
        Answer::TcpReset => return None,
    };
    let length = usize::from(packet.total_len()).min(ERROR_MAX - ERROR_HEAD);
    let quote = octets.get(..length)?;
    let header = Icmpv4Header::with_checksum(kind, quote);
    // RFC 1812 4.3.2.5: internetwork control, and the TOS of the packet; no ECN (RFC 3168 6.1).
    let tos = 0xc0 | packet.tos() & 0x1c;
    message(source, packet.source(), IpNumber::ICMP, tos, &header.to_bytes(), 0..length)
}

/// The reply to an echo request: same identifier, sequence number and data (RFC 1122 3.2.2.6).
pub fn echo_reply(packet: &Packet, octets: &[u8]) -> Option<Message> {
    let start = packet.header_len();
    if nat::checksum::sum(octets.get(start..usize::from(packet.total_len()))?) != 0xffff {
        return None;
    }
    let fixed = octets.get(start..start + 8)?;
    let data = start + 8..usize::from(packet.total_len());
    let echo = IcmpEchoHeader {
        id: u16::from_be_bytes([fixed[4], fixed[5]]),
        seq: u16::from_be_bytes([fixed[6], fixed[7]]),
    };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoReply(echo), octets.get(data.clone())?);
    message(packet.destination(), packet.source(), IpNumber::ICMP, packet.tos(), &header.to_bytes(), data)
}

/// The reply to one fragment of an echo request: the same octets with the addresses exchanged, so that
/// they make the reply where they make the request.
///
/// Nothing is put together and so nothing summed up: the checksum in the first fragment follows the
/// change of the type alone (RFC 1624), and a wrong one is as wrong in the reply.
pub fn echo_fragment(packet: &Packet, octets: &[u8]) -> Option<Message> {
    let (fragment, mut data) = (packet.fragment()?, packet.header_len()..usize::from(packet.total_len()));
    let mut icmp = heapless::Vec::<u8, 8>::new();
    if fragment.offset == 0 {
        let fixed: [u8; 8] = *octets.get(data.clone())?.first_chunk()?;
        let [_, code, high, low, rest @ ..] = fixed;
        let type_changed = Difference::of_field(u16::from_be_bytes([8, code]), u16::from_be_bytes([0, code]));
        let checksum = type_changed.update(u16::from_ne_bytes([high, low]));
        icmp.extend_from_slice(&[0, code]).ok()?;
        icmp.extend_from_slice(&checksum.to_ne_bytes()).ok()?;
        icmp.extend_from_slice(&rest).ok()?;
        data.start += icmp.len();
    }
    let length = u16::try_from(icmp.len() + data.len()).ok()?;
    let mut header = header(packet.destination(), packet.source(), IpNumber::ICMP, packet.tos(), length)?;
    header.dont_fragment = packet.dont_fragment();
    header.identification = packet.identification();
    header.more_fragments = fragment.more;
    header.fragment_offset = IpFragOffset::try_new(fragment.offset / 8).ok()?;
    finish(header, &icmp, data)
}

/// The reset that refuses a segment, from the address it was sent to (RFC 9293 3.10.7.1).
pub fn tcp_reset(packet: &Packet) -> Option<Message> {
    let (tuple, segment) = (packet.tuple()?, packet.tcp()?);
    if segment.flags & tcp_flags::RST != 0 {
        return None;
    }
    let mut header = TcpHeader::new(tuple.destination().port, tuple.source().port, 0, 0);
    header.rst = true;
    if segment.flags & tcp_flags::ACK != 0 {
        header.sequence_number = segment.acknowledgement;
    } else {
        header.ack = true;
        // SYN and FIN count (RFC 9293 3.4).
        header.acknowledgment_number = segment.sequence.wrapping_add(segment.length);
    }
    let (source, destination) = (packet.destination().octets(), packet.source().octets());
    header.checksum = header.calc_checksum_ipv4_raw(source, destination, &[]).ok()?;
    // As hosts send it: with the TOS of the segment.
    message(packet.destination(), packet.source(), IpNumber::TCP, packet.tos(), &header.to_bytes(), 0..0)
}

fn message(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpNumber,
    tos: u8,
    transport: &[u8],
    quote: Range<usize>,
) -> Option<Message> {
    let length = u16::try_from(transport.len() + quote.len()).ok()?;
    let mut header = header(source, destination, protocol, tos, length)?;
    // An atomic datagram: its identification says nothing (RFC 6864 4.1).
    header.dont_fragment = true;
    finish(header, transport, quote)
}

/// The IPv4 header of a message with `length` octets behind it.
fn header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpNumber,
    tos: u8,
    length: u16,
) -> Option<Ipv4Header> {
    let mut header = Ipv4Header::new(length, TTL, protocol, source.octets(), destination.octets()).ok()?;
    header.dscp = etherparse::IpDscp::try_new(tos >> 2).ok()?;
    Some(header)
}

fn finish(mut header: Ipv4Header, transport: &[u8], quote: Range<usize>) -> Option<Message> {
    header.header_checksum = header.calc_header_checksum();
    let mut head = heapless::Vec::new();
    head.extend_from_slice(&header.to_bytes()).ok()?;
    head.extend_from_slice(transport).ok()?;
    Some(Message { head, quote })
}

/// Token buckets by port and destination: how often the appliance speaks to one host (RFC 1812 4.3.2.8).
///
/// Each port has a fixed table of buckets, chosen by a keyed hash: hosts that share a bucket share its tokens, and
/// nobody uses up those of another port.
pub struct Limiter {
    buckets: Box<[Bucket]>,
    /// Buckets of a port, a power of two.
    each: usize,
    seed: u64,
    burst: u32,
    interval_millis: u32,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Time at which the bucket is full again, in milliseconds.
    full_at: u64,
}

impl Limiter {
    /// Octets that [`Limiter::new`] allocates.
    pub const fn footprint(ports: usize, each: usize) -> usize {
        ports * each.next_power_of_two() * size_of::<Bucket>()
    }

    /// For each port so many buckets of `burst` tokens, one more each `interval_millis` milliseconds.
    pub fn new(ports: usize, each: usize, burst: u32, interval_millis: u32, seed: u64) -> Self {
        let each = each.next_power_of_two();
        let buckets = vec![Bucket::default(); ports * each].into_boxed_slice();
        Self { buckets, each, seed, burst, interval_millis }
    }

    /// Takes a token of `key`'s bucket at a port, if there is one.
    pub fn allows(&mut self, port: usize, key: u64, now: Instant) -> bool {
        let now = u64::try_from(now.total_millis()).unwrap_or(0);
        let index = fold(self.seed ^ key) as usize & (self.each - 1);
        let Some(bucket) = self.buckets.get_mut(port * self.each + index) else {
            return false;
        };
        let interval = u64::from(self.interval_millis);
        let full_at = bucket.full_at.max(now) + interval;
        if full_at - now > u64::from(self.burst) * interval {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_icmp_burst_six_then_one_a_second() {
        let mut limiter = Limiter::new(2, 16, 6, 1000, 7);
        let start = Instant::from_millis(5_000);
        assert_eq!((0..10).filter(|_| limiter.allows(1, 1, start)).count(), 6);
        assert!(limiter.allows(1, 1, Instant::from_millis(6_000)));
        assert!(!limiter.allows(1, 1, Instant::from_millis(6_500)));
        assert_eq!((0..10).filter(|_| limiter.allows(1, 1, Instant::from_millis(60_000))).count(), 6);
    }

    #[test]
    fn own_icmp_a_port_has_tokens_of_its_own() {
        let mut limiter = Limiter::new(3, 16, 6, 1000, 7);
        let start = Instant::from_millis(5_000);
        (0..10_000).for_each(|key| _ = limiter.allows(1, key, start));
        assert!(!limiter.allows(1, 7, start));
        assert!(limiter.allows(0, 7, start) && limiter.allows(2, 7, start));
        assert!(!limiter.allows(3, 7, start), "there is no such port");
    }
}
