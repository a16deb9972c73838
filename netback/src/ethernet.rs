//! Ethernet headers of received frames.
//!
//! Which frames are ours to route or to answer is decided by the datapath from what is returned here.

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use crate::ETHERNET_HEADER;

/// A frame shorter than an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runt {
    /// Octets that there are; [`ETHERNET_HEADER`] would be needed.
    pub length: usize,
}

/// To whom a frame is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The port that received it.
    Own,
    /// Everyone on the link.
    Broadcast,
    /// A group.
    Multicast,
    /// Another station: unless told otherwise a virtio device passes everything on.
    Other,
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The station or group that the frame is for.
    pub destination: EthernetAddress,
    /// The station that sent it; may be a group address in a malicious frame.
    pub source: EthernetAddress,
    /// What the frame carries. A VLAN tag is an unknown type: ports are untagged.
    pub ethertype: EthernetProtocol,
}

impl Header {
    /// To whom the frame is addressed, seen from a port with address `own`.
    #[inline]
    pub fn destination(&self, own: EthernetAddress) -> Destination {
        if self.destination == own {
            Destination::Own
        } else if self.destination.is_broadcast() {
            Destination::Broadcast
        } else if self.destination.is_multicast() {
            Destination::Multicast
        } else {
            Destination::Other
        }
    }
}

/// The station that sent a frame with this header.
#[inline]
pub fn source(header: &[u8; ETHERNET_HEADER]) -> EthernetAddress {
    let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = *header;
    EthernetAddress([a, b, c, d, e, f])
}

/// Splits a frame into its header and what it carries.
#[inline]
pub fn strip(octets: &[u8]) -> Result<(Header, &[u8]), Runt> {
    let frame = EthernetFrame::new_checked(octets).map_err(|_| Runt { length: octets.len() })?;
    let header =
        Header { destination: frame.dst_addr(), source: frame.src_addr(), ethertype: frame.ethertype() };
    let payload = octets.get(ETHERNET_HEADER..).unwrap_or_default();
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runts_of_every_length_are_told_from_frames() {
        for length in 0..ETHERNET_HEADER {
            assert_eq!(strip(&[0xff; 64][..length]), Err(Runt { length }));
        }
        assert!(strip(&[0xff; ETHERNET_HEADER]).is_ok_and(|(_, payload)| payload.is_empty()));
    }

    #[test]
    fn destination_is_classified_from_the_receiving_port() {
        let own = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let kind = |destination: [u8; 6]| {
            let mut frame = [0u8; 20];
            frame[..6].copy_from_slice(&destination);
            frame[12..14].copy_from_slice(&[8, 6]);
            let (header, payload) = strip(&frame).unwrap();
            assert_eq!((header.ethertype, payload.len()), (EthernetProtocol::Arp, 6));
            header.destination(own)
        };
        assert_eq!(kind([2, 0, 0, 0, 0, 1]), Destination::Own);
        assert_eq!(kind([0xff; 6]), Destination::Broadcast);
        assert_eq!(kind([1, 0, 0x5e, 0, 0, 1]), Destination::Multicast);
        assert_eq!(kind([2, 0, 0, 0, 0, 2]), Destination::Other);
    }
}
