//! The new head of a frame that leaves.

use core::fmt;

use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use crate::{Checksum, ETHERNET_HEADER, Flow, Offload};

/// The largest head above Ethernet, a translated ICMP error: outer IPv4 60, ICMP 8, embedded IPv4 60, embedded TCP 20.
pub const NETWORK_HEAD_MAX: usize = 148;

/// The largest head, Ethernet included, in octets.
pub const HEAD_MAX: usize = ETHERNET_HEADER + NETWORK_HEAD_MAX;

/// The octets would not fit into [`HEAD_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFull;

/// Ethernet header and new network headers of a frame; the rest of it follows as payload.
///
/// It is kept from frame to frame, so that it is not cleared for each, and handed on by reference.
#[derive(Clone)]
pub struct Head {
    octets: [u8; HEAD_MAX],
    /// At most [`HEAD_MAX`].
    length: u8,
    /// What the device is to do; offsets count from the first octet of the head.
    pub offload: Offload,
    /// Whose frame it is, should it have to wait.
    pub flow: Flow,
}

impl Head {
    /// No head; [`Head::begin`] makes it one.
    pub const EMPTY: Self = Self {
        octets: [0; HEAD_MAX],
        length: 0,
        offload: Offload { checksum: Checksum::Unverified, segments: None },
        flow: Flow::OWN,
    };

    /// A head that consists of an Ethernet header, with no offload asked for, of the appliance's own.
    pub fn new(destination: EthernetAddress, source: EthernetAddress, ethertype: EthernetProtocol) -> Self {
        let mut head = Self::EMPTY;
        head.begin(destination, source, ethertype);
        head
    }

    /// Makes it a head that consists of an Ethernet header, with no offload asked for, of the appliance's own.
    #[inline]
    pub fn begin(
        &mut self,
        destination: EthernetAddress,
        source: EthernetAddress,
        ethertype: EthernetProtocol,
    ) {
        self.octets[..6].copy_from_slice(&destination.0);
        self.octets[6..12].copy_from_slice(&source.0);
        self.octets[12..ETHERNET_HEADER].copy_from_slice(&u16::from(ethertype).to_be_bytes());
        self.length = ETHERNET_HEADER as u8;
        self.offload = Offload::default();
        self.flow = Flow::OWN;
    }

    /// The room behind the Ethernet header, where network headers may be written before
    /// [`Head::take`] makes them part of the head.
    #[inline]
    pub fn network_mut(&mut self) -> &mut [u8; NETWORK_HEAD_MAX] {
        self.octets.last_chunk_mut().expect("a head is longer than what follows Ethernet")
    }

    /// Says how many octets there are behind the Ethernet header: at most [`NETWORK_HEAD_MAX`].
    #[inline]
    pub fn take(&mut self, length: usize) {
        self.length = (ETHERNET_HEADER + length.min(NETWORK_HEAD_MAX)) as u8;
    }

    /// Appends octets to the head; an error leaves it as it was.
    #[inline]
    pub fn extend_from_slice(&mut self, octets: &[u8]) -> Result<(), HeadFull> {
        let end = usize::from(self.length) + octets.len();
        self.octets.get_mut(self.length.into()..end).ok_or(HeadFull)?.copy_from_slice(octets);
        self.length = end as u8;
        Ok(())
    }

    /// The head so far, from the Ethernet header on.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.octets.get(..self.length.into()).unwrap_or_default()
    }

    /// Copies the head to `room`, which is as long.
    #[inline]
    pub(crate) fn copy_to(&self, room: &mut [u8]) {
        // Most have between one and two halves: both take a few instructions, any number takes a call.
        const HALF: usize = 32;
        let octets = self.as_slice();
        match (octets.first_chunk::<HALF>(), octets.last_chunk::<HALF>()) {
            (Some(first), Some(last)) if octets.len() <= 2 * HALF && room.len() == octets.len() => {
                room.first_chunk_mut().into_iter().for_each(|to| *to = *first);
                room.last_chunk_mut().into_iter().for_each(|to| *to = *last);
            }
            _ => room.iter_mut().zip(octets).for_each(|(to, from)| *to = *from),
        }
    }

    /// The head so far, to be changed in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.octets.get_mut(..self.length.into()).unwrap_or_default()
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
