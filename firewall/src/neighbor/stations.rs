//! When a station was last heard of: frames of any kind tell that it is there.

use alloc::{boxed::Box, vec};

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

/// Stations that are remembered of a port; one that is forgotten for another is asked once more. Those of other ports
/// do not matter.
const PLACES: usize = 64;

/// When frames last came from the stations of each port.
pub(super) struct Stations(Box<[(EthernetAddress, Instant)]>);

impl Stations {
    /// Octets that [`Stations::new`] allocates.
    pub(super) const fn footprint(ports: usize) -> usize {
        ports * PLACES * size_of::<(EthernetAddress, Instant)>()
    }

    /// Nobody was heard of on any of so many ports.
    pub(super) fn new(ports: usize) -> Self {
        Self(vec![(EthernetAddress::BROADCAST, Instant::ZERO); ports * PLACES].into_boxed_slice())
    }

    #[inline]
    fn place(port: usize, station: EthernetAddress) -> usize {
        let [.., a, b, c, d] = station.0;
        let mixed = u32::from_be_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> 16;
        port * PLACES + mixed as usize % PLACES
    }

    /// A frame came from this station.
    #[inline]
    pub(super) fn hear(&mut self, port: usize, station: EthernetAddress, now: Instant) {
        if let Some(place) = self.0.get_mut(Self::place(port, station)) {
            *place = (station, now);
        }
    }

    /// When a frame last came from it, if that is known.
    pub(super) fn heard(&self, port: usize, station: EthernetAddress) -> Option<Instant> {
        let place = self.0.get(Self::place(port, station));
        place.filter(|(other, _)| *other == station).map(|&(_, heard)| heard)
    }
}
