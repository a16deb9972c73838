//! As much DNS (RFC 1035) as one question for an address takes.

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData, DnsRepr,
};
use std::net::Ipv4Addr;

/// The largest message over plain UDP (RFC 1035, 2.3.4).
pub const MESSAGE_MAX: usize = 512;

/// The answer section of a reply to one A question: a pointer to the name at octet 12, type A, class IN, 60 s, 4 octets.
const ANSWER: [u8; 12] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];

/// Where the header ends and the question begins (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// A question for the address of `name`; `None` when it is no host name.
pub fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = encode(name)?;
    let repr = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name: &name, type_: DnsQueryType::A },
    };
    let mut octets = vec![0; repr.buffer_len()];
    repr.emit(&mut DnsPacket::new_unchecked(&mut octets[..]));
    Some(octets)
}

/// The addresses in a reply to query `id`; `None` when it is no positive answer to it.
pub fn answers(id: u16, octets: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let packet = DnsPacket::new_checked(octets).ok()?;
    let is_reply = packet.transaction_id() == id
        && packet.flags().contains(DnsFlags::RESPONSE)
        && packet.rcode() == DnsRcode::NoError;
    if !is_reply || packet.question_count() != 1 {
        return None;
    }
    let (mut rest, _) = DnsQuestion::parse(packet.payload()).ok()?;
    let mut addresses = Vec::new();
    for _ in 0..packet.answer_record_count() {
        let (after, record) = DnsRecord::parse(rest).ok()?;
        if let DnsRecordData::A(address) = record.data {
            addresses.push(address);
        }
        rest = after;
    }
    Some(addresses)
}

/// A server's reply to `octets`: `address` for the name it knows (whatever the case), else "no such name"
/// (RFC 1035, 4.1.1). `None` for what is no question for an address.
pub fn reply(octets: &[u8], known: &str, address: Ipv4Addr) -> Option<Vec<u8>> {
    let packet = DnsPacket::new_checked(octets).ok()?;
    if packet.flags().contains(DnsFlags::RESPONSE) || packet.question_count() != 1 {
        return None;
    }
    let (rest, question) = DnsQuestion::parse(packet.payload()).ok()?;
    let is_known = question.type_ == DnsQueryType::A && encode(known)?.eq_ignore_ascii_case(question.name);
    let question_end = octets.len().checked_sub(rest.len())?;
    let mut reply = octets.get(..question_end)?.to_vec();
    reply
        .get_mut(2..HEADER)?
        .copy_from_slice(&header_tail(packet.flags().contains(DnsFlags::RECURSION_DESIRED), is_known));
    if is_known {
        reply.extend_from_slice(&ANSWER);
        reply.extend_from_slice(&address.octets());
    }
    Some(reply)
}

/// Octets 2 to 11: flags and counts of an authoritative reply to one question.
fn header_tail(recursion_desired: bool, is_known: bool) -> [u8; 10] {
    let flags = 0x84 | u8::from(recursion_desired);
    let (rcode, answers) = if is_known { (0, 1) } else { (3, 0) };
    [flags, rcode, 0, 1, 0, answers, 0, 0, 0, 0]
}

/// A name as labels with their lengths.
fn encode(name: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        octets.push(length);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    (octets.len() <= 255).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn a_known_name_resolves_whatever_its_case() {
        let reply = reply(&query(7, "Page.Weir.Example").unwrap(), "page.weir.example", ADDRESS).unwrap();
        assert_eq!(answers(7, &reply), Some(vec![ADDRESS]));
        assert_eq!(answers(8, &reply), None);
    }

    #[test]
    fn an_unknown_name_has_no_answer() {
        let reply = reply(&query(7, "other.example").unwrap(), "page.weir.example", ADDRESS).unwrap();
        assert_eq!(answers(7, &reply), None);
        assert_eq!(reply[3] & 15, 3);
    }

    #[test]
    fn garbage_gets_no_reply_and_never_panics() {
        let question = query(7, "page.weir.example").unwrap();
        for length in 0..question.len() {
            assert_eq!(reply(&question[..length], "page.weir.example", ADDRESS), None, "{length} octets");
            assert_eq!(answers(7, &question[..length]), None);
        }
        let answer = reply(&question, "page.weir.example", ADDRESS).unwrap();
        assert_eq!(reply(&answer, "page.weir.example", ADDRESS), None);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in ["", "a..b", "x.", &"l".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(query(1, name), None, "{name}");
        }
    }
}
