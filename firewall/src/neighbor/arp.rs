//! The ARP packet itself (RFC 826).

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

/// An ARP packet that holds together (RFC 826): Ethernet and IPv4, a sender that can be one.
pub fn parse(octets: &[u8]) -> Option<ArpRepr> {
    let packet = ArpPacket::new_checked(octets).ok()?;
    let repr = ArpRepr::parse(&packet).ok()?;
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, .. } = repr else {
        return None;
    };
    let known = matches!(operation, ArpOperation::Request | ArpOperation::Reply);
    (known && source_hardware_addr.is_unicast()).then_some(repr)
}

/// The octets of an ARP packet, behind the Ethernet header.
pub fn emit(repr: &ArpRepr) -> [u8; 28] {
    let mut octets = [0; 28];
    repr.emit(&mut ArpPacket::new_unchecked(&mut octets));
    octets
}
