//! A packet in words: `tcp 10.0.1.2:40000 > 1.1.1.1:443 syn`.

use smoltcp::wire::{IpProtocol, Ipv4Packet};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The flags of TCP (RFC 9293 3.1), from the lowest bit on.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// Octets of an IPv4 header without options.
const IPV4_HEADER: usize = 20;

/// The source of an IPv4 packet; `None` when it is cut ahead of that, or is none.
pub fn source(octets: &[u8]) -> Option<Ipv4Addr> {
    let is_ipv4 = octets.first().is_some_and(|first| first >> 4 == 4);
    let source: [u8; 4] = octets.get(12..16)?.try_into().ok()?;
    is_ipv4.then(|| source.into())
}

/// Whether an IPv4 packet is a later fragment.
pub fn follows(octets: &[u8]) -> bool {
    half(octets, 6).is_some_and(|word| word & 0x1fff != 0)
}

/// An IPv4 packet as people write it, whatever it holds.
pub fn packet(octets: &[u8]) -> String {
    // Only what is looked at must be there: smoltcp checks lengths that the datapath is to judge.
    if octets.len() < IPV4_HEADER {
        return format!("{} octets", octets.len());
    }
    let ip = Ipv4Packet::new_unchecked(octets);
    let rest = octets.get(usize::from(ip.header_len())..).unwrap_or_default();
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let mut text = match ip.next_header() {
        _ if ip.frag_offset() > 0 => format!("{} {from} > {to}", name(ip.next_header())),
        protocol @ (IpProtocol::Tcp | IpProtocol::Udp) => match (half(rest, 0), half(rest, 2)) {
            (Some(source), Some(destination)) => {
                format!("{} {from}:{source} > {to}:{destination}", name(protocol))
            }
            _ => format!("{} {from} > {to}", name(protocol)),
        },
        protocol => format!("{} {from} > {to}", name(protocol)),
    };
    if ip.frag_offset() > 0 || ip.more_frags() {
        // Writing to a string cannot fail.
        let _ = write!(text, " fragment at {}", ip.frag_offset());
    }
    if ip.frag_offset() == 0 {
        match (ip.next_header(), rest) {
            (IpProtocol::Tcp, rest) => rest.get(13).map(|&bits| flags(bits, &mut text)),
            (IpProtocol::Icmp, [kind, code, ..]) => {
                message(*kind, *code, rest, &mut text);
                None
            }
            _ => None,
        };
    }
    text
}

fn name(protocol: IpProtocol) -> String {
    match protocol {
        IpProtocol::Tcp => "tcp".to_owned(),
        IpProtocol::Udp => "udp".to_owned(),
        IpProtocol::Icmp => "icmp".to_owned(),
        other => format!("proto {}", u8::from(other)),
    }
}

fn flags(bits: u8, text: &mut String) {
    let set: Vec<&str> =
        FLAGS.iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0).map(|(_, name)| *name).collect();
    text.push(' ');
    text.push_str(&if set.is_empty() { "no flags".to_owned() } else { set.join(",") });
}

/// Type and code; the identifier of a query (RFC 792), the packet that an error quotes.
fn message(kind: u8, code: u8, octets: &[u8], text: &mut String) {
    // Writing to a string cannot fail.
    let _ = match (kind, code) {
        (8, 0) => write!(text, " echo-request"),
        (0, 0) => write!(text, " echo-reply"),
        _ => write!(text, " {kind}/{code}"),
    };
    if let (0 | 8 | 13..=18, Some(identifier)) = (kind, half(octets, 4)) {
        let _ = write!(text, " id {identifier}");
    }
    if let (3..=5 | 11 | 12, Some(quote)) = (kind, octets.get(8..).filter(|quote| quote.len() >= IPV4_HEADER))
    {
        let quote = Ipv4Packet::new_unchecked(quote);
        let _ = write!(text, " about {} > {}", quote.src_addr(), quote.dst_addr());
    }
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let header = [0x45, 0, 0, 40, 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 1, 2, 1, 1, 1, 1];
        [&header[..], rest].concat()
    }

    #[test]
    fn packets_in_words() {
        let tcp = [&[0x9c, 0x40, 1, 0xbb][..], &[0; 9], &[0x12, 0, 0]].concat();
        let quote = [&[3, 4, 0, 0, 0, 0, 0, 0][..], &ip(17, 0, &[])].concat();
        for (octets, text) in [
            (ip(6, 0, &tcp), "tcp 10.0.1.2:40000 > 1.1.1.1:443 syn,ack"),
            (ip(6, 0, &[&tcp[..13], &[0]].concat()), "tcp 10.0.1.2:40000 > 1.1.1.1:443 no flags"),
            (ip(17, 0x2000, &tcp), "udp 10.0.1.2:40000 > 1.1.1.1:443 fragment at 0"),
            (ip(17, 185, &tcp), "udp 10.0.1.2 > 1.1.1.1 fragment at 1480"),
            (ip(1, 0, &[8, 0, 0, 0, 0, 7]), "icmp 10.0.1.2 > 1.1.1.1 echo-request id 7"),
            (ip(1, 0, &quote), "icmp 10.0.1.2 > 1.1.1.1 3/4 about 10.0.1.2 > 1.1.1.1"),
            (ip(47, 0, &[]), "proto 47 10.0.1.2 > 1.1.1.1"),
            (ip(6, 0, &[1]), "tcp 10.0.1.2 > 1.1.1.1"),
            (vec![0x45], "1 octets"),
        ] {
            assert_eq!(packet(&octets), text);
        }
    }

    #[test]
    fn whatever_a_packet_holds_it_is_shown() {
        for protocol in [1, 6, 17, 47] {
            let whole = ip(protocol, 0, &[0xff; 60]);
            for length in 0..whole.len() {
                assert!(!packet(&whole[..length]).is_empty());
                for first in [0, 0x40, 0x4f, 0xff] {
                    let mut cut = whole[..length].to_vec();
                    cut.iter_mut().take(1).for_each(|octet| *octet = first);
                    assert!(!packet(&cut).is_empty());
                }
            }
        }
    }
}
