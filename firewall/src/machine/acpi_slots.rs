//! The ports by which QEMU's ACPI tables plug and unplug PCI devices on q35 (QEMU, docs/specs/acpi_pci_hotplug).
//!
//! They need no tables: a bus is selected by a number that QEMU gave it, then a bit each stands for a device.

use super::pci;
use super::port::{in32, out32};

const BASE: u16 = 0xcc0;
/// Devices that came since this was read.
const UP: u16 = BASE;
/// Devices that are to go.
const DOWN: u16 = BASE + 4;
const EJECT: u16 = BASE + 8;
const SELECT: u16 = BASE + 0x10;

/// What is asked of a bus: a bit for each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub up: u32,
    pub down: u32,
}

/// Whether the machine has such ports: then its slots are not for anybody else.
pub fn are_there() -> bool {
    pci::is_ich9() && look(0).is_some()
}

/// Looks at a bus; nothing if the machine has no such ports.
pub fn look(bus: u32) -> Option<Seen> {
    out32(SELECT, bus);
    (in32(SELECT) == bus).then(|| Seen { up: in32(UP), down: in32(DOWN) })
}

/// Lets go of the devices of a bus: QEMU takes them away at once.
pub fn eject(bus: u32, devices: u32) {
    out32(SELECT, bus);
    // One at a time, as the tables do.
    (0..32).map(|device| 1 << device).filter(|bit| devices & bit != 0).for_each(|bit| out32(EJECT, bit));
}
