//! Virtio devices in memory, where the command line or ACPI's tables say.

use core::ptr::NonNull;

use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};

use super::command_line::MmioDevice;
use super::paging::{self, Use};

/// The network device at these registers, if there is one.
pub fn transport(device: MmioDevice) -> Option<MmioTransport<'static>> {
    let header = NonNull::new(device.address as *mut VirtIOHeader).filter(|header| header.is_aligned())?;
    paging::map(device.address, device.size, Use::Device).ok()?;
    let size = usize::try_from(device.size).ok()?;
    // SAFETY: the host says that there are registers of this size; they are mapped, aligned, and no memory of ours. An
    // empty slot answers with device number 0, which `new` refuses.
    let transport = unsafe { MmioTransport::new(header, size) }.ok()?;
    (transport.device_type() == DeviceType::Network).then_some(transport)
}
