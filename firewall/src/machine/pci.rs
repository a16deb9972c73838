//! PCI configuration space through ports 0xcf8 and 0xcfc.

use super::port::{in32, out32};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// The configuration space of the machine. The two ports are one register: only one core uses them.
#[derive(Clone, Copy, Debug)]
pub struct Ports(());

impl Ports {
    /// The ports, if the machine has a PCI bus.
    pub fn find() -> Option<Self> {
        out32(ADDRESS, ENABLE);
        (in32(ADDRESS) == ENABLE && read(0, 0, 0, 0) != u32::MAX).then_some(Self(()))
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        read(at.bus, at.device, at.function, register)
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        select(at.bus, at.device, at.function, register);
        out32(DATA, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

fn select(bus: u8, device: u8, function: u8, register: u8) {
    let device = u32::from(device & 31) << 11 | u32::from(function & 7) << 8;
    out32(ADDRESS, ENABLE | u32::from(bus) << 16 | device | u32::from(register & 0xfc));
}

fn read(bus: u8, device: u8, function: u8, register: u8) -> u32 {
    select(bus, device, function, register);
    in32(DATA)
}

/// The two chipsets that QEMU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// Of q35.
    Ich9,
    /// Of pc.
    Piix4,
}

/// The chipset, if it is one of QEMU's.
pub fn chipset() -> Option<Chipset> {
    const ICH9: u32 = 0x2918_8086;
    const PIIX4: u32 = 0x7113_8086;
    Ports::find()?;
    match (read(0, 31, 0, 0), read(0, 1, 3, 0)) {
        (ICH9, _) => Some(Chipset::Ich9),
        (_, PIIX4) => Some(Chipset::Piix4),
        _ => None,
    }
}
