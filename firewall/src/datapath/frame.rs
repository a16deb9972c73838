//! Frames and the packets in them: what a device said of a checksum, and what is passed on of it.

use core::num::NonZeroU16;

use netback::Segments;

use super::*;

/// Reads the packet of a frame; its offload fields are a stranger's word until they match its headers.
#[inline(always)]
pub(super) fn parse(packet: &mut Packet, frame: &impl Frame) -> Result<(), Dropped> {
    let octets = frame.octets().get(ETHERNET_HEADER..).ok_or(Dropped::Runt)?;
    let Offload { checksum, segments } = frame.offload();
    let place = match checksum {
        netback::Checksum::Partial { start, offset } => (start, offset),
        netback::Checksum::Unverified | netback::Checksum::Verified => {
            return packet.read(octets, nat::Checksum::Complete).map_err(unread);
        }
    };
    match segments {
        None => packet.read(octets, nat::Checksum::Partial),
        Some(segments) => packet.read_large(octets, frame.length() - ETHERNET_HEADER, segments.size),
    }
    .map_err(unread)?;
    if Some(place) == checksum_place(packet) { Ok(()) } else { Err(Dropped::BadOffload) }
}

#[cold]
fn unread(malformed: Malformed) -> Dropped {
    match malformed {
        Malformed::HeaderChecksum => Dropped::HeaderChecksum,
        _ => Dropped::Malformed,
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

/// A partial checksum stays partial: the outgoing link finishes it, and cuts what is to be cut into segments that it
/// carries.
#[inline(always)]
pub(super) fn leaving_offload(packet: &Packet, arrived: Offload, mtu: usize) -> Offload {
    match packet.checksum() {
        nat::Checksum::Complete => Offload::default(),
        // Its place is as it was: a new header is as long as the old one.
        nat::Checksum::Partial => Offload {
            checksum: arrived.checksum,
            segments: arrived.segments.and_then(|segments| fit(packet, segments, mtu)),
        },
    }
}

/// Segments no larger than a link takes: without DF the sender does not mind. None if a single one is all.
#[cold]
fn fit(packet: &Packet, segments: Segments, mtu: usize) -> Option<Segments> {
    let room = mtu.checked_sub(packet.headers_len().into())?.min(segments.size.get().into());
    let payload = packet.total_len().checked_sub(packet.headers_len())?;
    let size = u16::try_from(room).ok().filter(|&size| size < payload)?;
    Some(Segments { size: NonZeroU16::new(size)?, ..segments })
}
