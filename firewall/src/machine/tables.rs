//! Where ACPI's tables lie, and what is in them besides power.

use super::apic;
use super::command_line::MmioDevice;
use firewall::acpi::Memory;
use firewall::acpi::devices::{self, Device};

/// Where the null pointer points: nothing is mapped there.
const FIRST_PAGE: u64 = 4096;

/// The tables, as firmware or the loader left them.
#[derive(Clone, Copy)]
pub struct Tables {
    /// The address of the root pointer, 0 if there is none.
    pub root: u64,
    pub memory: Physical,
}

/// Memory below 4 GiB.
#[derive(Clone, Copy)]
pub struct Physical(());

impl Memory for Physical {
    fn octet(&self, address: u64) -> Option<u8> {
        let is_mapped = (FIRST_PAGE..1 << 32).contains(&address);
        // SAFETY: identity mapped for good; any octet is a `u8`, and who made this says that nobody writes there.
        is_mapped.then(|| unsafe { (address as *const u8).read_volatile() })
    }
}

impl Tables {
    /// The tables behind the root pointer.
    ///
    /// # Safety
    /// Memory that is not the heap's stays as the loader left it.
    pub unsafe fn new(root: u64) -> Self {
        Self { root, memory: Physical(()) }
    }

    /// The virtio devices in memory that the tables name; the I/O APIC that has their lines is made known.
    pub fn virtio(&self) -> impl Iterator<Item = MmioDevice> {
        if let Some(second) = devices::second_controller(self.root, &self.memory) {
            apic::set_second(second.address, second.first);
        }
        let device = |Device { address, size, line }| MmioDevice { address, size, line };
        devices::virtio(self.root, &self.memory).into_iter().map(device)
    }
}
