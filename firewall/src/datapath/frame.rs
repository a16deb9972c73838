//! Frames and the packets in them: what a device said of a checksum, and what is passed on of it.

use super::*;

/// Reads the packet of a frame; its offload fields are a stranger's word until they match its headers.
pub(super) fn parse(packet: &mut Packet, octets: &[u8], offload: Offload) -> Result<(), Dropped> {
    let partial = match offload.checksum {
        netback::Checksum::Partial { start, offset } => Some((start, offset)),
        netback::Checksum::Unverified | netback::Checksum::Verified => None,
    };
    let checksum = if partial.is_some() { nat::Checksum::Partial } else { nat::Checksum::Complete };
    packet.read(octets, checksum).map_err(|malformed| match malformed {
        Malformed::HeaderChecksum => Dropped::HeaderChecksum,
        _ => Dropped::Malformed,
    })?;
    match partial {
        Some(place) if Some(place) != checksum_place(packet) => Err(Dropped::BadOffload),
        _ => Ok(()),
    }
}

/// Where a packet's transport checksum stands: start of the transport header and offset within.
fn checksum_place(packet: &Packet) -> Option<(u16, u16)> {
    let start = u16::try_from(ETHERNET_HEADER + packet.header_len()).ok()?;
    match packet.protocol() {
        protocol::TCP => Some((start, 16)),
        protocol::UDP => Some((start, 6)),
        _ => None,
    }
}

/// A partial checksum stays partial: the outgoing link finishes it.
pub(super) fn leaving_offload(packet: &Packet) -> Offload {
    let checksum = match (packet.checksum(), checksum_place(packet)) {
        (nat::Checksum::Partial, Some((start, offset))) => netback::Checksum::Partial { start, offset },
        _ => netback::Checksum::Unverified,
    };
    Offload { checksum }
}
