//! virtio over PCI with MSI-X (virtio 1.2, 4.1), and where on the buses its devices are.
//!
//! Firmware has assigned BARs, bridge windows and bus numbers. The hypervisor's word on addresses is taken, it owns
//! our memory anyway; its structures are walked with bounds, since a loop in them would hang us.

mod bar;
mod discover;
mod shared;
mod slot;
#[cfg(test)]
mod tests;

use core::{marker::PhantomData, ptr::NonNull};

use virtio_drivers::{
    Error, Hal, PhysAddr, Result,
    transport::{
        DeviceStatus, DeviceType, InterruptStatus, Transport,
        pci::bus::{ConfigurationAccess, DeviceFunction},
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use discover::{Layout, Structure};
pub use discover::{Missing, discover, interrupt_line, lacks_addresses};
pub use shared::SharedBus;
pub use slot::{Events, Slot};

/// What an MSI-X vector writes, and where: the local APIC's address and a vector number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Address of the write.
    pub address: u64,
    /// The value written.
    pub data: u32,
}

/// Offsets in the common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_MSIX_VECTOR: usize = 16;
    pub const DEVICE_STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_MSIX_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
    pub const LENGTH: usize = 56;
}

/// The entry of the MSI-X table that our queues use.
const VECTOR: u16 = 0;
/// The one for changes of the configuration.
const CONFIG_VECTOR: u16 = 1;
const NO_VECTOR: u16 = 0xffff;

/// Octets of a structure that we map at most: no device that we drive uses more.
const REGION_MAX: u32 = 0x1_0000;

/// Registers of a device.
struct Region {
    base: NonNull<u8>,
    length: usize,
}

impl Region {
    /// `map` gives the place of registers of a memory BAR that has its address, of this many octets.
    fn map(
        structure: Structure,
        map: &mut impl FnMut(PhysAddr, usize) -> Option<NonNull<u8>>,
    ) -> Option<Self> {
        let length = structure.length.min(REGION_MAX) as usize;
        Some(Self { base: map(structure.address, length)?, length })
    }

    fn pointer<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        let address = self.base.addr().get().checked_add(offset)?;
        if end > self.length || !address.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` is inside the region.
        Some(unsafe { self.base.add(offset) }.cast())
    }

    fn read<T: FromBytes>(&self, offset: usize) -> Option<T> {
        // SAFETY: `pointer` checked bounds and alignment of a mapped register; any octets are a `T`.
        self.pointer::<T>(offset).map(|register| unsafe { register.read_volatile() })
    }

    /// What lies outside the region is not written; constructors check for what is used.
    fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        if let Some(register) = self.pointer::<T>(offset) {
            // SAFETY: `pointer` checked bounds and alignment of a mapped register, which only this transport drives.
            unsafe { register.write_volatile(value) }
        }
    }

    /// 64-bit registers may be written in halves (virtio 1.2, 4.1.3.1).
    fn write_long(&self, offset: usize, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }
}

/// A virtio device on a PCI bus.
///
/// Unlike virtio-drivers' own it has MSI-X and remembers where to notify, and dropping it touches nothing.
pub struct PciTransport<H> {
    common: Region,
    notify: Region,
    isr: Region,
    config: Option<Region>,
    multiplier: u32,
    /// Where receive, transmit and control queue are notified.
    doorbells: [usize; 3],
    has_msix: bool,
    /// The entry of the MSI-X table for changes of the configuration.
    config_vector: u16,
    /// The device did not take a vector.
    failed: bool,
    _hal: PhantomData<fn() -> H>,
}

impl<H: Hal> PciTransport<H> {
    /// The network device at `function`, its memory decoding and bus mastering switched on.
    ///
    /// With `messages` its interrupts arrive as MSI-X messages, if the device can: those of queues as the first, changes
    /// of its configuration as the second; all as the second if it has only one. Otherwise they use the line.
    ///
    /// `map` gives the place of registers by address and length, or nothing where they are out of reach.
    pub fn new<C: ConfigurationAccess>(
        access: &mut C,
        function: DeviceFunction,
        messages: Option<[Message; 2]>,
        mut map: impl FnMut(PhysAddr, usize) -> Option<NonNull<u8>>,
    ) -> core::result::Result<Self, Missing> {
        discover::enable(access, function);
        let layout = Layout::read(access, function)?;
        let mut map = |structure| Region::map(structure, &mut map).ok_or(Missing::Unreachable);
        let common = map(layout.common)?;
        if common.length < common::LENGTH {
            return Err(Missing::Common);
        }
        let mut transport = Self {
            common,
            notify: map(layout.notify)?,
            isr: map(layout.isr)?,
            config: layout.config.map(&mut map).transpose()?,
            multiplier: layout.multiplier,
            doorbells: [usize::MAX; 3],
            has_msix: false,
            config_vector: VECTOR,
            failed: false,
            _hal: PhantomData,
        };
        if let (Some([queues, config]), Some(msix)) = (messages, layout.msix) {
            let table = map(msix.table)?;
            let is_alone = msix.entries <= CONFIG_VECTOR;
            write_table(&table, VECTOR, if is_alone { config } else { queues });
            if !is_alone {
                write_table(&table, CONFIG_VECTOR, config);
                transport.config_vector = CONFIG_VECTOR;
            }
            discover::enable_msix(access, function, msix);
            transport.has_msix = true;
        }
        Ok(transport)
    }

    /// Where its common configuration is.
    pub fn address(&self) -> usize {
        self.common.base.addr().get()
    }

    /// Whether interrupts arrive as messages; otherwise each must be acknowledged at the device.
    pub fn has_msix(&self) -> bool {
        self.has_msix
    }

    fn get<V: FromBytes + Default>(&self, offset: usize) -> V {
        self.common.read(offset).unwrap_or_default()
    }

    fn select(&self, queue: u16) {
        self.common.write(common::QUEUE_SELECT, queue);
    }

    /// Routes interrupts of one kind to an entry of the table; a device without room says so by another value.
    fn route(&mut self, offset: usize, vector: u16) {
        if self.has_msix {
            self.common.write(offset, vector);
            self.failed |= self.get::<u16>(offset) == NO_VECTOR;
        }
    }
}

/// An entry of the table: the message, not masked (PCI 3.0, 6.8.2).
fn write_table(table: &Region, entry: u16, message: Message) {
    let start = 16 * usize::from(entry);
    table.write_long(start, message.address);
    table.write(start + 8, message.data);
    table.write(start + 12, 0u32);
}

impl<H: Hal> Transport for PciTransport<H> {
    fn device_type(&self) -> DeviceType {
        // `Layout::read` refuses anything else.
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.common.write(common::DEVICE_FEATURE_SELECT, 0u32);
        let low: u32 = self.get(common::DEVICE_FEATURE);
        self.common.write(common::DEVICE_FEATURE_SELECT, 1u32);
        let high: u32 = self.get(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        // A reset forgot the vectors; this is the first step after it that may write.
        self.route(common::CONFIG_MSIX_VECTOR, self.config_vector);
        self.common.write(common::DRIVER_FEATURE_SELECT, 0u32);
        self.common.write(common::DRIVER_FEATURE, driver_features as u32);
        self.common.write(common::DRIVER_FEATURE_SELECT, 1u32);
        self.common.write(common::DRIVER_FEATURE, (driver_features >> 32) as u32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.get::<u16>(common::QUEUE_SIZE).into()
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        if let Some(offset) = self.doorbells.get(usize::from(queue)) {
            self.notify.write(*offset, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status = DeviceStatus::from_bits_retain(self.get::<u8>(common::DEVICE_STATUS).into());
        if self.failed { status | DeviceStatus::FAILED } else { status }
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.failed &= !status.is_empty();
        self.common.write(common::DEVICE_STATUS, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.select(queue);
        self.common.write(common::QUEUE_SIZE, size as u16);
        self.route(common::QUEUE_MSIX_VECTOR, VECTOR);
        self.common.write_long(common::QUEUE_DESC, descriptors);
        self.common.write_long(common::QUEUE_DRIVER, driver);
        self.common.write_long(common::QUEUE_DEVICE, device);
        let place = u64::from(self.get::<u16>(common::QUEUE_NOTIFY_OFF)) * u64::from(self.multiplier);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        self.failed |= self.notify.pointer::<u16>(place).is_none();
        if let Some(doorbell) = self.doorbells.get_mut(usize::from(queue)) {
            *doorbell = place;
        }
        self.common.write(common::QUEUE_ENABLE, 1u16);
    }

    /// Queues end with a reset (virtio 1.2, 4.1.4.3.2).
    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.get::<u16>(common::QUEUE_ENABLE) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        // Messages leave nothing to acknowledge (virtio 1.2, 4.1.4.5.2): spare the access.
        if self.has_msix {
            return InterruptStatus::empty();
        }
        InterruptStatus::from_bits_truncate(self.isr.read::<u8>(0).unwrap_or_default().into())
    }

    fn read_config_generation(&self) -> u32 {
        self.get::<u8>(common::CONFIG_GENERATION).into()
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        let config = self.config.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        config.read(offset).ok_or(Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> Result<()> {
        let config = self.config.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        config.pointer::<V>(offset).ok_or(Error::ConfigSpaceTooSmall)?;
        config.write(offset, value);
        Ok(())
    }
}
