//! Buses of old PCI, whose devices share the windows of one bridge.

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::{
    Slot,
    bar::{self, Window},
    discover::{self, BUS_NUMBERS},
};

/// Devices that a bus may have.
const DEVICES: u8 = 32;

/// A bus behind a bridge that is no port of PCI Express: 32 devices may come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBus {
    number: u8,
    /// What those who are there have left of the bridge's windows.
    left: [Window; 2],
}

impl SharedBus {
    /// All of them, in bus order. To be called after [`discover`](super::discover()), while no device is at work: each is
    /// asked how much memory its registers take, and does not answer meanwhile.
    pub fn all<C: ConfigurationAccess>(access: &mut C) -> Vec<Self> {
        let mut found = Vec::new();
        for bridge in discover::bridges(access) {
            if !discover::has_shared_bus(access, bridge) {
                continue;
            }
            let number = (access.read_word(bridge, BUS_NUMBERS) >> 8) as u8;
            discover::enable(access, bridge);
            found.push(Self { number, left: bar::left(access, bridge, number) });
        }
        found
    }

    /// Its number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The slot of one of its devices, 0 to 31: what comes there has a share of what is left for registers.
    pub fn slot(&self, device: u8) -> Slot {
        let function = DeviceFunction { bus: self.number, device: device % DEVICES, function: 0 };
        Slot::within(function, self.left.map(|window| window.share(device % DEVICES, DEVICES)))
    }
}
