//! What a virtio-net device offers and what we take of it; its reset and its configuration.
//!
//! Waiting for a device is always bounded: it may be gone, or wish us ill.

use smoltcp::wire::EthernetAddress;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::port::StartError;

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_ECN: u64 = 1 << 13;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const VERSION_1: u64 = 1 << 32;
/// The device's accesses go the platform's way (virtio 1.2, 6): straight on, since nobody switches an IOMMU on. A device
/// that offers it may insist.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// Left out on purpose: EVENT_IDX (its suppression loses wake-ups with batches), INDIRECT_DESC (allocates per frame),
/// CTRL_RX (the device stays promiscuous, destinations are checked).
const WANTED: u64 = CSUM
    | GUEST_CSUM
    | MTU
    | MAC
    | GUEST_TSO4
    | GUEST_ECN
    | HOST_TSO4
    | HOST_ECN
    | MRG_RXBUF
    | STATUS
    | CTRL_VQ
    | GUEST_ANNOUNCE
    | VERSION_1
    | ACCESS_PLATFORM;

/// What is of use only with something else (virtio 1.2, 5.1.3.1), in this order. Segments from the device need
/// buffers that can be put together, since none holds 64 KiB. The control queue has one use.
const NEEDS: [(u64, u64); 6] = [
    (GUEST_TSO4, GUEST_CSUM | MRG_RXBUF),
    (GUEST_ECN, GUEST_TSO4),
    (HOST_TSO4, CSUM),
    (HOST_ECN, HOST_TSO4),
    (GUEST_ANNOUNCE, CTRL_VQ | STATUS),
    (CTRL_VQ, GUEST_ANNOUNCE),
];

/// Offsets of the configuration's fields (virtio 1.2, 5.1.4).
const CONFIG_STATUS: usize = 6;
const CONFIG_MTU: usize = 10;
const LINK_UP: u16 = 1 << 0;
const ANNOUNCE: u16 = 1 << 1;

/// Reads of the status until a reset counts as stuck.
const RESET_READS: usize = 1000;

/// The features that device and driver agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(u64);

impl Features {
    /// These bits, as if agreed on.
    #[cfg(test)]
    pub(crate) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// The device completes partial checksums of what we send.
    pub(crate) fn checksum(self) -> bool {
        self.0 & CSUM != 0
    }

    /// The device may pass partial or verified checksums on to us.
    pub(crate) fn guest_checksum(self) -> bool {
        self.0 & GUEST_CSUM != 0
    }

    /// The device may wish for an announcement.
    pub(crate) fn announces(self) -> bool {
        self.0 & GUEST_ANNOUNCE != 0
    }

    /// A frame from the device may span several buffers.
    pub(crate) fn merges(self) -> bool {
        self.0 & MRG_RXBUF != 0
    }

    /// The device may pass on what is still to be cut into such segments.
    pub(crate) fn guest_segments(self, is_ecn: bool) -> bool {
        self.0 & if is_ecn { GUEST_ECN } else { GUEST_TSO4 } != 0
    }

    /// The device cuts frames into such segments.
    pub(crate) fn segments(self, is_ecn: bool) -> bool {
        self.0 & if is_ecn { HOST_ECN } else { HOST_TSO4 } != 0
    }
}

/// What a device says about its link (virtio 1.2, 5.1.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkStatus {
    pub(crate) is_up: bool,
    /// Our addresses are to be announced, until the device has heard that we know.
    pub(crate) is_to_announce: bool,
}

/// How a reset ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The device has let go of all memory.
    Done,
    /// There is no device any more: its registers read as ones.
    Gone,
    /// The device did not confirm and may still write into its buffers.
    Stuck,
}

/// Whether a status is what the bus answers in the place of a device.
pub(crate) fn is_gone(status: DeviceStatus) -> bool {
    matches!(status.bits(), 0xff | u32::MAX)
}

/// Resets the device and waits, not for ever, until it says so (virtio 1.2, 4.1.4.3.2).
pub(crate) fn reset<T: Transport>(transport: &mut T) -> Reset {
    transport.set_status(DeviceStatus::empty());
    for _ in 0..RESET_READS {
        let status = transport.get_status();
        if status.is_empty() {
            return Reset::Done;
        }
        if is_gone(status) {
            return Reset::Gone;
        }
        core::hint::spin_loop();
    }
    Reset::Stuck
}

/// Negotiates features with a device that was reset (virtio 1.2, 3.1.1, steps 2 to 6).
pub(crate) fn negotiate<T: Transport>(transport: &mut T) -> Result<Features, StartError> {
    let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(known);
    let offered = transport.read_device_features() & WANTED;
    let features =
        NEEDS.iter().fold(offered, |features, &(feature, needs)| match features & needs == needs {
            true => features,
            false => features & !feature,
        });
    if features & VERSION_1 == 0 {
        return Err(StartError::Legacy);
    }
    transport.write_driver_features(features);
    transport.set_status(known | DeviceStatus::FEATURES_OK);
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(StartError::FeaturesRefused);
    }
    Ok(Features(features))
}

/// The device's address, if it has one that a station may have.
pub(crate) fn mac<T: Transport>(transport: &T, features: Features) -> Option<EthernetAddress> {
    if features.0 & MAC == 0 {
        return None;
    }
    let mut octets = [0; 6];
    for (offset, octet) in octets.iter_mut().enumerate() {
        *octet = transport.read_config_space(offset).ok()?;
    }
    let mac = EthernetAddress(octets);
    (mac.is_unicast() && octets != [0; 6]).then_some(mac)
}

/// The largest IP packet that the device wants, in octets.
pub(crate) fn mtu<T: Transport>(transport: &T, features: Features) -> Option<u16> {
    if features.0 & MTU == 0 {
        return None;
    }
    // virtio 1.2, 5.1.4.1: the device sets it between 68 and 65535.
    transport.read_config_space(CONFIG_MTU).ok().filter(|mtu| *mtu >= 68)
}

/// Carrier and wishes; a device without STATUS always has carrier.
pub(crate) fn link<T: Transport>(transport: &T, features: Features) -> LinkStatus {
    if features.0 & STATUS == 0 {
        return LinkStatus { is_up: true, is_to_announce: false };
    }
    let status = transport.read_config_space::<u16>(CONFIG_STATUS).unwrap_or(0);
    LinkStatus {
        is_up: status & LINK_UP != 0,
        is_to_announce: features.announces() && status & ANNOUNCE != 0,
    }
}
