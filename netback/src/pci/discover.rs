//! Finding virtio network devices on the PCI buses, and their structures in configuration space.

use alloc::vec::Vec;
use core::{fmt, ptr::NonNull};

use virtio_drivers::{
    PhysAddr,
    transport::pci::bus::{ConfigurationAccess, DeviceFunction},
};

use super::{Message, Region, write_table};

/// Registers of configuration space (PCI 3.0, 6.1).
pub(super) const COMMAND_STATUS: u8 = 0x04;
const HEADER_TYPE: u8 = 0x0c;
pub(super) const BAR: u8 = 0x10;
pub(super) const BUS_NUMBERS: u8 = 0x18;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT_LINE: u8 = 0x3c;

const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTERRUPT_DISABLE: u32 = 1 << 10;
const HAS_CAPABILITIES: u32 = 1 << 20;

const VENDOR_VIRTIO: u16 = 0x1af4;
const DEVICE_NET: [u16; 2] = [0x1041, 0x1000];

/// QEMU's expanders, `pxb` and `pxb-pcie`: beside the root bus there are others, and nothing tells their numbers.
const EXPANDERS: [u32; 2] = [0x0009_1b36, 0x000b_1b36];

const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSI: u8 = 0x05;
const CAPABILITY_MSIX: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK_ALL: u32 = 1 << 30;
const MSI_ENABLE: u32 = 1 << 16;
const MSI_VECTORS: u32 = 0b111 << 20;
const MSI_LONG: u32 = 1 << 23;

/// Capabilities that fit behind the header of configuration space, four octets each.
const CAPABILITIES_MAX: usize = 48;

/// What a device lacks that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no virtio network device at this place.
    Device,
    /// No usable common configuration: perhaps a device of before virtio 1.0.
    Common,
    /// No usable notification structure.
    Notify,
    /// No usable interrupt status.
    Isr,
    /// Its registers are where they cannot be mapped.
    Unreachable,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "no virtio network device",
            Self::Common => {
                "no registers of virtio 1.0, or they have no addresses (QEMU: disable-modern=off)"
            }
            Self::Notify => "no notification structure",
            Self::Isr => "no interrupt status",
            Self::Unreachable => "registers out of reach",
        })
    }
}

impl core::error::Error for Missing {}

/// Registers inside a memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    pub(super) address: PhysAddr,
    pub(super) length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msix {
    capability: u8,
    pub(super) table: Structure,
    /// Entries of the table.
    pub(super) entries: u16,
}

/// Where the structures of a virtio device are (virtio 1.2, 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) common: Structure,
    pub(super) notify: Structure,
    pub(super) multiplier: u32,
    pub(super) isr: Structure,
    pub(super) config: Option<Structure>,
    pub(super) msix: Option<Msix>,
}

impl Layout {
    pub(super) fn read<C: ConfigurationAccess>(
        access: &C,
        function: DeviceFunction,
    ) -> Result<Self, Missing> {
        if !is_virtio_net(access.read_word(function, 0)) {
            return Err(Missing::Device);
        }
        let mut structures = [None; 5];
        let mut multiplier = 0;
        let mut msix = None;
        for (offset, header) in capabilities(access, function) {
            match header as u8 {
                CAPABILITY_VENDOR => {
                    // Of several structures of a kind the first that we can reach counts: another may be port I/O.
                    let kind = usize::from((header >> 24) as u8);
                    let Some(place @ None) = structures.get_mut(kind) else { continue };
                    *place = structure(access, function, offset);
                    if kind == 2 && place.is_some() {
                        multiplier = word(access, function, offset, 16).unwrap_or_default();
                    }
                }
                CAPABILITY_MSIX => msix = msix.or(msix_table(access, function, offset)),
                _ => {}
            }
        }
        let [_, common, notify, isr, config] = structures;
        Ok(Self {
            common: common.ok_or(Missing::Common)?,
            notify: notify.ok_or(Missing::Notify)?,
            multiplier,
            isr: isr.ok_or(Missing::Isr)?,
            config,
            msix,
        })
    }
}

/// Virtio network devices of all buses, in the order of their addresses: the order on the hypervisor's command line.
///
/// Bridges on the way are made to pass memory accesses of both sides.
pub fn discover<C: ConfigurationAccess>(access: &mut C) -> Vec<DeviceFunction> {
    let (devices, bridges) = walk(access);
    for bridge in bridges {
        enable(access, bridge);
    }
    devices
}

/// Whether no firmware has given the memory BARs of a device addresses.
pub fn lacks_addresses<C: ConfigurationAccess>(access: &C, function: DeviceFunction) -> bool {
    super::bar::lowest_bar(access, function).is_none()
}

/// The bridges of all buses that firmware has numbered.
pub(super) fn bridges<C: ConfigurationAccess>(access: &C) -> Vec<DeviceFunction> {
    walk(access).1
}

/// Virtio network devices and bridges, each in bus order.
fn walk<C: ConfigurationAccess>(access: &C) -> (Vec<DeviceFunction>, Vec<DeviceFunction>) {
    let (mut devices, mut bridges) = (Vec::new(), Vec::new());
    // A bridge leads to a higher bus number than its own, or firmware did not number it.
    let has_more_roots =
        functions(access, 0).into_iter().any(|at| EXPANDERS.contains(&access.read_word(at, 0)));
    let mut reached = [has_more_roots; 256];
    reached[0] = true;
    for bus in 0..=u8::MAX {
        if !reached[usize::from(bus)] {
            continue;
        }
        for function in functions(access, bus) {
            if is_virtio_net(access.read_word(function, 0)) {
                devices.push(function);
            } else if is_bridge(access, function) {
                let secondary = (access.read_word(function, BUS_NUMBERS) >> 8) as u8;
                if secondary > bus {
                    bridges.push(function);
                    reached[usize::from(secondary)] = true;
                }
            }
        }
    }
    (devices, bridges)
}

/// Functions that answer on a bus.
pub(super) fn functions<C: ConfigurationAccess>(access: &C, bus: u8) -> Vec<DeviceFunction> {
    let mut found = Vec::new();
    for device in 0..32 {
        let first = DeviceFunction { bus, device, function: 0 };
        if access.read_word(first, 0) as u16 == u16::MAX {
            continue;
        }
        let is_multifunction = access.read_word(first, HEADER_TYPE) & 1 << 23 != 0;
        let all =
            (0..if is_multifunction { 8 } else { 1 }).map(|function| DeviceFunction { function, ..first });
        found.extend(all.filter(|function| access.read_word(*function, 0) as u16 != u16::MAX));
    }
    found
}

pub(super) fn is_bridge<C: ConfigurationAccess>(access: &C, function: DeviceFunction) -> bool {
    access.read_word(function, HEADER_TYPE) >> 16 & 0x7f == 1
}

/// Whether many devices may be behind a bridge: it is of old PCI, or leads there from PCI Express.
pub(super) fn has_shared_bus<C: ConfigurationAccess>(access: &C, bridge: DeviceFunction) -> bool {
    const EXPRESS: u8 = 0x10;
    const TO_PCI: u32 = 7;
    let express = capabilities(access, bridge).find(|(_, header)| *header as u8 == EXPRESS);
    express.is_none_or(|(_, header)| header >> 20 & 0xf == TO_PCI)
}

pub(super) fn is_virtio_net(identity: u32) -> bool {
    identity as u16 == VENDOR_VIRTIO && DEVICE_NET.contains(&((identity >> 16) as u16))
}

/// Switches memory decoding and bus mastering on.
pub(super) fn enable<C: ConfigurationAccess>(access: &mut C, function: DeviceFunction) {
    set_command(access, function, MEMORY_SPACE | BUS_MASTER);
}

/// Whether both are on.
pub(super) fn is_enabled<C: ConfigurationAccess>(access: &C, function: DeviceFunction) -> bool {
    access.read_word(function, COMMAND_STATUS) & (MEMORY_SPACE | BUS_MASTER) == MEMORY_SPACE | BUS_MASTER
}

/// Switches both off.
pub(super) fn disable<C: ConfigurationAccess>(access: &mut C, function: DeviceFunction) {
    let command = access.read_word(function, COMMAND_STATUS) & 0xffff;
    access.write_word(function, COMMAND_STATUS, command & !(MEMORY_SPACE | BUS_MASTER));
}

/// Has a function that is no virtio device send `message` as its one interrupt, by MSI-X or MSI; `false` if it has neither.
pub(super) fn send_message<C: ConfigurationAccess>(
    access: &mut C,
    function: DeviceFunction,
    message: Message,
    mut map: impl FnMut(u64, usize) -> Option<NonNull<u8>>,
) -> bool {
    let find = |access: &C, kind| capabilities(access, function).find(|(_, header)| *header as u8 == kind);
    let msix = find(access, CAPABILITY_MSIX).and_then(|(offset, _)| msix_table(access, function, offset));
    if let Some(msix) = msix
        && let Some(table) = Region::map(msix.table, &mut map)
    {
        enable(access, function);
        write_table(&table, 0, message);
        enable_msix(access, function, msix);
        return true;
    }
    let Some((offset, header)) = find(access, CAPABILITY_MSI).filter(|(offset, _)| *offset <= 0xf0) else {
        return false;
    };
    enable(access, function);
    access.write_word(function, offset + 4, message.address as u32);
    let data = if header & MSI_LONG != 0 {
        access.write_word(function, offset + 8, (message.address >> 32) as u32);
        offset + 12
    } else {
        offset + 8
    };
    access.write_word(function, data, message.data);
    access.write_word(function, offset, header & !MSI_VECTORS | MSI_ENABLE);
    true
}

/// The line of the 8259 that firmware gave the function, where the I/O APIC's lines are the same ones.
pub fn interrupt_line<C: ConfigurationAccess>(access: &C, function: DeviceFunction) -> u8 {
    access.read_word(function, INTERRUPT_LINE) as u8
}

/// Switches message interrupts on and the line off.
pub(super) fn enable_msix<C: ConfigurationAccess>(access: &mut C, function: DeviceFunction, msix: Msix) {
    let control = access.read_word(function, msix.capability);
    access.write_word(function, msix.capability, (control | MSIX_ENABLE) & !MSIX_MASK_ALL);
    set_command(access, function, INTERRUPT_DISABLE);
}

fn set_command<C: ConfigurationAccess>(access: &mut C, function: DeviceFunction, bits: u32) {
    // Status, the upper half, is cleared by ones: write none.
    let command = access.read_word(function, COMMAND_STATUS) & 0xffff;
    access.write_word(function, COMMAND_STATUS, command | bits);
}

/// Offset and first word of each capability.
pub(super) fn capabilities<C: ConfigurationAccess>(
    access: &C,
    function: DeviceFunction,
) -> impl Iterator<Item = (u8, u32)> {
    let listed = access.read_word(function, COMMAND_STATUS) & HAS_CAPABILITIES != 0;
    let mut next = if listed { access.read_word(function, CAPABILITIES) as u8 } else { 0 };
    core::iter::from_fn(move || {
        let offset = next & 0xfc;
        (offset >= 0x40).then(|| {
            let header = access.read_word(function, offset);
            next = (header >> 8) as u8;
            (offset, header)
        })
    })
    .take(CAPABILITIES_MAX)
}

/// A word of a capability, if it lies in configuration space.
fn word<C: ConfigurationAccess>(
    access: &C,
    function: DeviceFunction,
    capability: u8,
    offset: u8,
) -> Option<u32> {
    Some(access.read_word(function, capability.checked_add(offset)?))
}

/// The place that a virtio capability names.
fn structure<C: ConfigurationAccess>(
    access: &C,
    function: DeviceFunction,
    capability: u8,
) -> Option<Structure> {
    let bar = word(access, function, capability, 4)? as u8;
    let offset = word(access, function, capability, 8)?;
    let length = word(access, function, capability, 12)?;
    place(access, function, bar, offset, length)
}

fn msix_table<C: ConfigurationAccess>(access: &C, function: DeviceFunction, capability: u8) -> Option<Msix> {
    let table = word(access, function, capability, 4)?;
    let entries = (access.read_word(function, capability) >> 16 & 0x7ff) as u16 + 1;
    // Table offset and BAR share a word; an entry has sixteen octets.
    let table = place(access, function, table as u8 & 7, table & !7, 16 * u32::from(entries))?;
    Some(Msix { capability, table, entries })
}

/// Octets of a memory BAR, 32 or 64 bits wide, that has an address.
fn place<C: ConfigurationAccess>(
    access: &C,
    function: DeviceFunction,
    bar: u8,
    offset: u32,
    length: u32,
) -> Option<Structure> {
    if bar > 5 || length == 0 {
        return None;
    }
    let low = access.read_word(function, BAR + 4 * bar);
    let high = match low & 0b111 {
        0b000 => 0,
        0b100 if bar < 5 => access.read_word(function, BAR + 4 * bar + 4),
        _ => return None,
    };
    let base = u64::from(high) << 32 | u64::from(low & !0xf);
    let address = base.checked_add(offset.into())?;
    address.checked_add(length.into())?;
    (base != 0).then_some(Structure { address, length })
}
