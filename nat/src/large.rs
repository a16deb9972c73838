//! TCP segments that a device hands over before they are cut into those that the wire carries.

use core::num::NonZeroU16;

use crate::endpoint::protocol;
use crate::malformed::Malformed;
use crate::packet::{Checksum, IPV4, Packet, Transport, put};

/// The data offset in a TCP header, in octets of it.
const OFFSET: usize = 12;

impl Packet {
    /// Reads a TCP segment that is still to be cut into segments with `size` octets of payload. Its packet has up to
    /// `length` octets, of which `octets` are the first; its checksum is partial.
    ///
    /// # Errors
    /// [`Malformed`] tells the first thing that is wrong; `PartialChecksum` if it is no TCP segment, or a fragment.
    #[cold]
    pub fn read_large(&mut self, octets: &[u8], length: usize, size: NonZeroU16) -> Result<(), Malformed> {
        let fixed = octets.first_chunk::<IPV4>().ok_or(Malformed::Short)?;
        put(&mut self.head, 0, fixed);
        self.ends.addresses = u64::from_ne_bytes(fixed.last_chunk().copied().unwrap_or_default());
        self.total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
        self.checksum = Checksum::Partial;
        self.transport = Transport::Opaque;
        let total = usize::from(self.total_len);
        if total > length {
            return Err(Malformed::TotalLength);
        }
        if self.protocol() != protocol::TCP || self.is_fragment() {
            return Err(Malformed::PartialChecksum);
        }
        let shown = octets.get(..total).unwrap_or(octets);
        self.read_behind_options(fixed[0], Some(shown))?;
        self.segment.length += (total - shown.len()) as u32;
        self.datagram_len = self.total_len.min(self.headers_len().saturating_add(size.get()));
        Ok(())
    }

    /// Octets of the IP and TCP headers; of a packet that is no TCP segment those of the IP header.
    pub fn headers_len(&self) -> u16 {
        let offset = self.tcp().and_then(|_| self.head.get(self.header_len() + OFFSET));
        u16::from(self.header_len) + offset.map_or(0, |octet| u16::from(octet >> 4) * 4)
    }
}
