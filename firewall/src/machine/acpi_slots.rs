//! The ports by which QEMU's ACPI tables plug and unplug PCI devices (QEMU, docs/specs/acpi_pci_hotplug).
//!
//! They need no tables: a bus is selected by a number that QEMU gave it, then a bit each stands for a device.

use super::pci::{self, Chipset};
use super::port::{in32, out32};

/// Offsets from the first port: devices that came since this was read, devices that are to go, and so on.
const UP: u16 = 0;
const DOWN: u16 = 4;
const EJECT: u16 = 8;
const REMOVABLE: u16 = 0xc;
const SELECT: u16 = 0x10;

/// What is asked of a bus: a bit for each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub up: u32,
    pub down: u32,
}

/// Selects a bus; the first port, if the machine has such ports.
fn select(bus: u32) -> Option<u16> {
    let base = match pci::chipset()? {
        Chipset::Ich9 => 0xcc0,
        Chipset::Piix4 => 0xae00,
    };
    out32(base + SELECT, bus);
    (in32(base + SELECT) == bus).then_some(base)
}

/// Whether the machine has such ports: then its slots are not for anybody else.
pub fn are_there() -> bool {
    select(0).is_some()
}

/// The devices of the root bus that may come and go, where there are no ports of PCI Express: QEMU's number 0.
pub fn root_devices() -> u32 {
    match pci::chipset() {
        Some(Chipset::Piix4) => select(0).map_or(0, |base| in32(base + REMOVABLE)),
        _ => 0,
    }
}

/// Looks at a bus; nothing if the machine has no such ports.
pub fn look(bus: u32) -> Option<Seen> {
    select(bus).map(|base| Seen { up: in32(base + UP), down: in32(base + DOWN) })
}

/// Lets go of a device of a bus: QEMU takes it away at once.
pub fn eject(bus: u32, device: u8) {
    if let (Some(base), Some(bit)) = (select(bus), 1_u32.checked_shl(device.into())) {
        out32(base + EJECT, bit);
    }
}
