//! Virtio devices in memory that the tables name, and where their interrupt lines end.
//!
//! The DSDT is a program; looked for is what it says of such a device: its name, and behind that its resources, which
//! are constants (ACPI 6.4, 6.4.3.4 and 6.4.3.6). QEMU's microvm and Firecracker write it so.

use heapless::Vec;

use super::{HEADER, Memory, Table};

/// Devices that are found.
pub const DEVICES_MAX: usize = 32;

/// Octets behind the name in which its resources are.
const REACH: u32 = 96;
/// `Memory32Fixed`, to be written to, and `Interrupt` with one line: what they begin with.
const MEMORY: [u8; 4] = [0x86, 9, 0, 1];
const INTERRUPT: [u8; 3] = [0x89, 6, 0];
/// An entry of the MADT: an I/O APIC (ACPI 6.4, 5.2.12.3).
const IO_APIC: u8 = 1;
/// Where the MADT's entries begin, and how many are looked at.
const ENTRIES: u32 = 44;
const ENTRIES_MAX: usize = 512;

/// A virtio device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where they begin.
    pub address: u64,
    /// Octets that there are.
    pub size: u64,
    /// Its interrupt line.
    pub line: u32,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Where its registers are.
    pub address: u32,
    /// The number of its first line.
    pub first: u32,
}

/// The virtio devices in memory, in the order of the tables.
pub fn virtio(root: u64, memory: &impl Memory) -> Vec<Device, DEVICES_MAX> {
    let dsdt = super::find(root, memory, *b"FACP").and_then(|fadt| fadt.dsdt());
    let Some(dsdt) = dsdt else { return Vec::new() };
    let is_name = |at: &u32| dsdt.is_at(*at, *b"LNRO") && dsdt.is_at(*at + 4, *b"0005");
    (HEADER..dsdt.length).filter(is_name).filter_map(|at| dsdt.device(at)).take(DEVICES_MAX).collect()
}

/// The I/O APIC whose first line is not line 0, if there is a second one.
pub fn second_controller(root: u64, memory: &impl Memory) -> Option<Controller> {
    let table = super::find(root, memory, *b"APIC")?;
    let mut at = ENTRIES;
    for _ in 0..ENTRIES_MAX {
        let (kind, length) = (table.octet(at)?, table.octet(at + 1)?);
        let first = table.long(at.checked_add(8)?);
        if let (IO_APIC, Some(first @ 1..)) = (kind, first) {
            return Some(Controller { address: table.long(at + 4)?, first });
        }
        // Less than its own header would be no step.
        at = at.checked_add(u32::from(length).max(2))?;
    }
    None
}

impl<M: Memory> Table<'_, M> {
    /// The device whose name is at `at`.
    fn device(&self, at: u32) -> Option<Device> {
        let end = at.checked_add(REACH)?;
        let memory = (at..end).find(|&at| self.octets(at) == Some(MEMORY))?;
        let interrupt = (memory + 12..end).find(|&at| self.octets(at) == Some(INTERRUPT))?;
        let (address, size) = (self.long(memory + 4)?, self.long(memory + 8)?);
        let is_one = self.octet(interrupt + 4)? == 1 && address != 0;
        let line = self.long(interrupt + 5)?;
        is_one.then_some(Device { address: address.into(), size: size.into(), line })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::tests::{FIVE, World};
    use super::*;

    /// As QEMU 7.2 writes them, from `_HID` on.
    fn object(number: u8, address: u32, line: u32) -> std::vec::Vec<u8> {
        let name =
            [b"\x08_HID\rLNRO0005\x00\x08_UID\x0a", &[number][..], b"\x08_CCA\x01\x08_CRS\x11\x1a\x0a\x17"];
        let memory = [&MEMORY[..], &address.to_le_bytes(), &0x200_u32.to_le_bytes()].concat();
        let interrupt = [&INTERRUPT[..], &[1, 1], &line.to_le_bytes(), &[0x79, 0]].concat();
        [name.concat(), memory, interrupt].concat()
    }

    #[test]
    fn devices_are_found_in_the_order_of_the_tables() {
        let objects = [FIVE, &object(23, 0xfeb0_2e00, 47), &object(22, 0xfeb0_2c00, 46)].concat();
        let device = |address, line| Device { address, size: 0x200, line };
        let expected = [device(0xfeb0_2e00, 47), device(0xfeb0_2c00, 46)];
        let world = World::new(&objects);
        assert_eq!(virtio(World::ROOT, &world.memory())[..], expected);
        assert_eq!(World::new(FIVE).power(), world.power(), "nothing else is");
    }

    #[test]
    fn a_device_without_its_resources_is_none() {
        let whole = object(1, 0xfeb0_0000, 5);
        for length in 0..whole.len() {
            let found = virtio(World::ROOT, &World::new(&whole[..length]).memory());
            // The last two octets are the end of the template.
            assert_eq!(found.len(), usize::from(length + 2 >= whole.len()), "{length}");
        }
        for at in 0..whole.len() {
            let mut octets = whole.clone();
            octets[at] ^= 0xff;
            assert!(virtio(World::ROOT, &World::new(&octets).memory()).len() <= 1);
        }
        assert_eq!(virtio(World::ROOT, &World::new(&object(1, 0, 5)).memory()).len(), 0);
    }

    #[test]
    fn a_second_controller_has_the_lines_behind_those_of_the_first() {
        let entries = [
            &[0, 8, 0, 0, 1, 0, 0, 0][..],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[1, 12, 1, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0],
        ];
        let madt = |entries: &[&[u8]]| [&[0; 8][..], &entries.concat()].concat();
        let second = |body: &[u8]| {
            let mut world = World::new(FIVE);
            world.list(b"APIC", body);
            second_controller(World::ROOT, &world.memory())
        };
        let expected = Controller { address: 0xfec1_0000, first: 24 };
        assert_eq!(second(&madt(&entries)), Some(expected));
        assert_eq!(second(&madt(&entries[..2])), None);
        // Entries without a length end with the table.
        assert_eq!(second(&madt(&[&[0; 200]])), None);
    }
}
