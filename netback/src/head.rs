//! The new head of a frame that leaves.

use core::fmt;

use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use crate::{ETHERNET_HEADER, Offload};

/// The largest head above Ethernet, a translated ICMP error: outer IPv4 60, ICMP 8, embedded IPv4 60, embedded TCP 20.
pub const NETWORK_HEAD_MAX: usize = 148;

/// The largest head, Ethernet included, in octets.
pub const HEAD_MAX: usize = ETHERNET_HEADER + NETWORK_HEAD_MAX;

/// The octets would not fit into [`HEAD_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFull;

/// Ethernet header and new network headers of a frame; the rest of it follows as payload.
///
/// It is built on the stack and handed on by reference.
#[derive(Clone)]
pub struct Head {
    octets: heapless::Vec<u8, HEAD_MAX, u16>,
    /// What the device is to do; offsets count from the first octet of the head.
    pub offload: Offload,
}

impl Head {
    /// A head that consists of an Ethernet header, with no offload asked for.
    #[inline]
    pub fn new(destination: EthernetAddress, source: EthernetAddress, ethertype: EthernetProtocol) -> Self {
        let mut header = [0; ETHERNET_HEADER];
        header[..6].copy_from_slice(&destination.0);
        header[6..12].copy_from_slice(&source.0);
        header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
        let mut head = Self { octets: heapless::Vec::new(), offload: Offload::default() };
        // An Ethernet header always fits.
        let _ = head.octets.extend_from_slice(&header);
        head
    }

    /// Appends octets to the head; an error leaves it as it was.
    #[inline]
    pub fn extend_from_slice(&mut self, octets: &[u8]) -> Result<(), HeadFull> {
        self.octets.extend_from_slice(octets).map_err(|_| HeadFull)
    }

    /// The head so far, from the Ethernet header on.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.octets
    }

    /// The head so far, to be changed in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.octets
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("octets", &self.as_slice()).field("offload", &self.offload).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_begins_with_the_ethernet_header_and_refuses_what_does_not_fit() {
        let mut head = Head::new(EthernetAddress([1; 6]), EthernetAddress([2; 6]), EthernetProtocol::Ipv4);
        assert_eq!(head.as_slice(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0]);
        assert_eq!(head.extend_from_slice(&[7; NETWORK_HEAD_MAX]), Ok(()));
        assert_eq!(head.extend_from_slice(&[7]), Err(HeadFull));
        assert_eq!(head.as_slice().len(), HEAD_MAX);
    }
}
