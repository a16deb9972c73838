//! Ports: what carries frames between the appliance and its neighbours.
//!
//! A frame comes out of one [`Link`] as an owned [`Frame`] and goes into another as the payload behind a new
//! [`Head`]; its octets stay where the first device put them. What the octets mean above Ethernet is the
//! datapath's business.
//!
//! [`port::Port`] is a virtio-net device, [`wire::Wire`] the link of tests and benches.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod ethernet;
mod fair;
mod features;
mod frame;
mod head;
mod header;
pub mod pci;
pub mod pool;
pub mod port;
pub mod segment;
mod statistics;
mod transport;
pub mod wire;

use core::{num::NonZeroU16, ops::Range};

use smoltcp::{time::Instant, wire::EthernetAddress};

pub use fair::Flow;
pub use frame::Received;
pub use head::{HEAD_MAX, Head, HeadFull, NETWORK_HEAD_MAX};
pub use pool::Pool;
pub use port::Port;
pub use statistics::Statistics;
pub use transport::AnyTransport;

/// A received frame; it owns its buffer and gives it back when dropped.
pub trait Frame {
    /// The frame, from the Ethernet header on, without frame check sequence; of one that spans several buffers what
    /// lies in the first.
    ///
    /// The device could still change these octets: read a header once, into private memory.
    fn octets(&self) -> &[u8];

    /// Octets of the whole frame, Ethernet header included. More than [`Frame::octets`] has only if the offload says
    /// that the frame is to be segmented.
    fn length(&self) -> usize;

    /// What the device said about the frame's checksum.
    fn offload(&self) -> Offload;
}

/// What a device has done for a frame, or is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// State of the transport checksum; partial if there are segments.
    pub checksum: Checksum,
    /// Set if the frame is to leave as several: a TCP segment larger than a link's MTU.
    pub segments: Option<Segments>,
}

impl From<Checksum> for Offload {
    fn from(checksum: Checksum) -> Self {
        Self { checksum, segments: None }
    }
}

/// How a TCP segment over IPv4 is cut into those that the wire carries (virtio 1.2, 5.1.6.2; RFC 9293 3.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Octets of TCP payload in each but the last, at least 1.
    pub size: NonZeroU16,
    /// CWR is set in the first alone (RFC 3168 6.1.2).
    pub is_ecn: bool,
}

/// State of a frame's transport checksum (virtio 1.2, 5.1.6.2 and 5.1.6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is there; nobody looked at it.
    #[default]
    Unverified,
    /// The device found it right.
    Verified,
    /// The field holds the non-inverted sum of the pseudo-header; the rest is still to be added.
    ///
    /// Of a received frame only `start + offset + 2 <= length` is known: whether `start` is the transport header
    /// is for the datapath to check.
    Partial {
        /// First octet that the sum covers, counted from the Ethernet header.
        start: u16,
        /// The checksum field, counted from `start`.
        offset: u16,
    },
}

impl Checksum {
    /// The end of the checksum field, counted from the Ethernet header; `None` unless partial.
    pub(crate) fn field_end(self) -> Option<usize> {
        match self {
            Checksum::Partial { start, offset } => Some(usize::from(start) + usize::from(offset) + 2),
            _ => None,
        }
    }
}

/// Why a link did not take a frame. The frame is gone and its buffer is back in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue and the backlog behind it are full.
    Full,
    /// No carrier, or the device is being reset or gone.
    Down,
    /// More octets than the MTU and an Ethernet header, or segments that have.
    TooLong,
    /// The payload's range or the checksum's place is not inside the frame, or the head is not that of a frame to be
    /// segmented.
    Malformed,
}

/// The largest Ethernet header of a frame that we send, in octets (no VLAN tag).
pub const ETHERNET_HEADER: usize = 14;

/// A port of the appliance.
///
/// A turn is `begin`, any number of `receive` and `transmit`, `finish`. Before the processor halts, `sleep` must
/// say that nothing waits; `wake` follows the halt.
pub trait Link {
    /// What `receive` gives away.
    type Frame: Frame;

    /// Our hardware address on this link.
    fn mac(&self) -> EthernetAddress;

    /// The largest IP packet that the link carries, in octets.
    fn mtu(&self) -> u16;

    /// Whether there is carrier and a working device, as known since the last `tick`.
    fn is_up(&self) -> bool;

    /// Whether there is a device at all; a port may wait for its own.
    fn is_present(&self) -> bool {
        true
    }

    /// Whether the device said, since this was last asked, that [`tick`](Self::tick) would find something: carrier came
    /// or went, or it is unwell.
    fn take_change(&mut self) -> bool {
        false
    }

    /// Whether the device wishes, as known since the last [`tick`](Self::tick), that our addresses are announced: what is
    /// behind it has changed, such as the host (virtio 1.2, 5.1.6.5.4). Said once for each wish.
    fn take_announcement(&mut self) -> bool {
        false
    }

    /// Whether [`tick`](Self::tick) has to be called without anything having happened: a device is to be tried again.
    fn wants_tick(&self) -> bool {
        false
    }

    /// Whether the device completes partial checksums; if not, `transmit` does it in software.
    fn finishes_checksums(&self) -> bool;

    /// Begins a turn: takes back sent frames, sends the backlog, offers free buffers to the device.
    fn begin(&mut self, now: Instant);

    /// The next frame that arrived.
    fn receive(&mut self) -> Option<Self::Frame>;

    /// Sends `head`, followed by a range of a received frame's [`Frame::octets`].
    ///
    /// `head.offload` describes the frame that leaves: its partial checksum counts from the head's first octet. With
    /// `segments` the head holds the Ethernet, IPv4 and TCP headers whole, and the payload is TCP's; a device that
    /// does not cut frames is given the pieces.
    fn transmit(&mut self, head: &Head, payload: Option<(Self::Frame, Range<usize>)>) -> Result<(), Refused>;

    /// A fresh frame with a copy of `octets`, as payload of what the appliance itself says.
    ///
    /// `None` if no buffer is free or `octets` do not fit one.
    fn compose(&mut self, octets: &[u8]) -> Option<Self::Frame>;

    /// Ends a turn: tells the device about new buffers, at most once a queue.
    fn finish(&mut self);

    /// Asks for interrupts; `true` if nothing waits, so that the processor may halt with interrupts enabled.
    ///
    /// To be called with interrupts disabled: one that comes after is then pending when the processor halts.
    fn sleep(&mut self) -> bool;

    /// Takes the request for interrupts back.
    fn wake(&mut self);

    /// Looks at what changes rarely: carrier, the device's health. To be called about once a second.
    fn tick(&mut self) {}

    /// Counters since the link was made.
    fn statistics(&self) -> Statistics;
}
