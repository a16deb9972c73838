//! Captures for the tests of this crate, written octet by octet.

/// The header of a pcap file with microseconds, little-endian.
pub fn pcap(link: u32) -> Vec<u8> {
    [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link].map(u32::to_le_bytes).concat()
}

/// A packet of a pcap file, captured whole at this second.
pub fn record(second: u32, octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).unwrap();
    [&[second, 0, length, length].map(u32::to_le_bytes).concat()[..], octets].concat()
}

/// A block of a pcapng file.
pub fn ng_block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = u32::try_from(padded + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &vec![0; padded - body.len()], &length].concat()
}

/// The section header.
pub fn ng() -> Vec<u8> {
    let body = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    ng_block(0x0a0d_0d0a, &body)
}

/// An interface with these options.
pub fn ng_interface(link: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&link.to_le_bytes()[..], &[0, 0], &0_u32.to_le_bytes()].concat();
    for (code, value) in options {
        let length = u16::try_from(value.len()).unwrap().to_le_bytes();
        body.extend([&code.to_le_bytes()[..], &length, value].concat());
        body.resize(body.len().next_multiple_of(4), 0);
    }
    ng_block(1, &body)
}

/// A packet of an interface, captured whole at this tick of its clock.
pub fn ng_packet(interface: u32, ticks: u32, octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).unwrap();
    let head = [interface, 0, ticks, length, length].map(u32::to_le_bytes).concat();
    ng_block(6, &[&head[..], octets].concat())
}
