//! One type for ports on either bus.

use virtio_drivers::{
    Error, Hal, PhysAddr, Result,
    transport::{DeviceStatus, DeviceType, InterruptStatus, Transport, mmio::MmioTransport},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pci::PciTransport;

/// A device on PCI or in memory.
pub enum AnyTransport<H> {
    /// On a PCI bus.
    Pci(PciTransport<H>),
    /// At an address that the command line names (microvm, Firecracker).
    Mmio(MmioTransport<'static>),
    /// Nowhere: the place of a device that may come.
    Nothing(Nothing),
}

/// No device: it takes everything and has nothing to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Transport for Nothing {
    fn device_type(&self) -> DeviceType {
        // There is none for no device; whoever starts a port wants another one.
        DeviceType::EntropySource
    }

    fn read_device_features(&mut self) -> u64 {
        0
    }

    fn write_driver_features(&mut self, _driver_features: u64) {}

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        0
    }

    fn notify(&mut self, _queue: u16) {}

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }

    fn set_status(&mut self, _status: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        _queue: u16,
        _size: u32,
        _descriptors: PhysAddr,
        _driver: PhysAddr,
        _device: PhysAddr,
    ) {
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, _queue: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, _offset: usize) -> Result<V> {
        Err(Error::ConfigSpaceMissing)
    }

    fn write_config_space<V: IntoBytes + Immutable>(&mut self, _offset: usize, _value: V) -> Result<()> {
        Err(Error::ConfigSpaceMissing)
    }
}

impl<H: Hal> AnyTransport<H> {
    /// Whether interrupts arrive as messages; otherwise each must be acknowledged at the device.
    pub fn has_msix(&self) -> bool {
        match self {
            Self::Pci(pci) => pci.has_msix(),
            Self::Mmio(_) | Self::Nothing(_) => false,
        }
    }
}

impl<H> From<PciTransport<H>> for AnyTransport<H> {
    fn from(pci: PciTransport<H>) -> Self {
        Self::Pci(pci)
    }
}

impl<H> AnyTransport<H> {
    /// The place of a device that may come.
    pub const NOTHING: Self = Self::Nothing(Nothing);
}

impl<H> From<MmioTransport<'static>> for AnyTransport<H> {
    fn from(mmio: MmioTransport<'static>) -> Self {
        Self::Mmio(mmio)
    }
}

macro_rules! each {
    ($self:ident, $transport:ident => $call:expr) => {
        match $self {
            Self::Pci($transport) => $call,
            Self::Mmio($transport) => $call,
            Self::Nothing($transport) => $call,
        }
    };
}

impl<H: Hal> Transport for AnyTransport<H> {
    fn device_type(&self) -> DeviceType {
        each!(self, transport => transport.device_type())
    }

    fn read_device_features(&mut self) -> u64 {
        each!(self, transport => transport.read_device_features())
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        each!(self, transport => transport.write_driver_features(driver_features))
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        each!(self, transport => transport.max_queue_size(queue))
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        each!(self, transport => transport.notify(queue))
    }

    fn get_status(&self) -> DeviceStatus {
        each!(self, transport => transport.get_status())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        each!(self, transport => transport.set_status(status))
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        each!(self, transport => transport.set_guest_page_size(guest_page_size))
    }

    fn requires_legacy_layout(&self) -> bool {
        each!(self, transport => transport.requires_legacy_layout())
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        each!(self, transport => transport.queue_set(queue, size, descriptors, driver, device))
    }

    fn queue_unset(&mut self, queue: u16) {
        each!(self, transport => transport.queue_unset(queue))
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        each!(self, transport => transport.queue_used(queue))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        each!(self, transport => transport.ack_interrupt())
    }

    fn read_config_generation(&self) -> u32 {
        each!(self, transport => transport.read_config_generation())
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        each!(self, transport => transport.read_config_space(offset))
    }

    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> Result<()> {
        each!(self, transport => transport.write_config_space(offset, value))
    }
}
