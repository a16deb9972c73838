//! The machine's virtio-net devices, as the ports of the site.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use firewall::assign::{NoUplink, Places};
use firewall::held_frames;
use firewall::route::UPLINK;
use firewall::services::console::Mac;
use netback::pci::{self, Message, PciTransport, SharedBus, Slot};
use netback::port::{Settings, StartError, buffers_for};
use netback::{AnyTransport, Pool};
use rules::site::Site;
use smoltcp::wire::EthernetAddress;
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::hotplug::Hotplug;
use crate::machine::dma::Dma;
use crate::machine::{self, Machine, acpi_slots, apic, interrupts::Vector, mmio, paging};

/// A device, on whichever bus.
pub type Device = AnyTransport<Dma>;

/// A port of the image.
pub type Port = netback::Port<Dma, Device>;

/// Why the ports of the site are not there.
pub enum Failure {
    /// The uplink has no device.
    NoUplink(NoUplink),
    /// A device did not start.
    Start(&'static str, StartError),
    /// The frames' buffers do not fit the memory.
    OutOfMemory,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUplink(missing) => missing.fmt(f),
            Self::Start(name, reason) => write!(f, "port={name}: {reason}"),
            Self::OutOfMemory => f.write_str("not enough memory for the buffers of the ports"),
        }
    }
}

/// The ports of the site, the uplink first, each with memory for a device; those whose device is there are started. And
/// what watches for the others.
pub fn ports(machine: &mut Machine, site: &'static Site) -> Result<(Vec<Port>, Hotplug), Failure> {
    let (mut devices, shared) = on_pci(machine);
    devices.extend(in_memory(machine).into_iter().map(|device| (None, device)));
    let macs: Vec<_> = devices.iter().map(|(_, device)| mac(device)).collect();
    let mut places = Places::new(site);
    let chosen = places.assign(&macs).map_err(Failure::NoUplink)?;
    let mut ports = absent(site)?;
    let mut held = Vec::new();
    for (((place, device), chosen), mac) in devices.into_iter().zip(chosen).zip(macs) {
        let mut taken = chosen.ok();
        match chosen {
            Ok(index) => {
                let Some(port) = ports.get_mut(index) else { continue };
                match port.plug(device, Device::NOTHING) {
                    Ok(()) => {}
                    Err(reason) if index == UPLINK => {
                        return Err(Failure::Start(name(site, index), reason));
                    }
                    Err(reason) => {
                        // The others are served; another NIC may take its place.
                        let name = name(site, index);
                        log::error!(target: "port", "not started name={name} mac={}: {reason}", Mac(mac));
                        places.leave(index);
                        taken = None;
                    }
                }
            }
            Err(reason) => log::warn!(target: "port", "refused mac={}: {reason}", Mac(mac)),
        }
        held.extend(place.map(|place| (place, mac, taken)));
    }
    Ok((ports, Hotplug::new(machine, places, shared, &held)))
}

/// The ports of the site without devices.
fn absent(site: &'static Site) -> Result<Vec<Port>, Failure> {
    let count = site.clients.len() + 1;
    let pool = Pool::new::<Dma>(buffers_for(count) + held_frames(site)).map_err(|_| Failure::OutOfMemory)?;
    let mtus = core::iter::once(site.uplink.mtu).chain(site.clients.iter().map(|client| client.mtu));
    let port = |(index, mtu)| {
        let name = name(site, index);
        let port = Port::absent(
            Device::NOTHING,
            pool.clone(),
            Settings { name, mac: None, mtu, inputs: count as u8 },
        );
        port.map_err(|reason| Failure::Start(name, reason))
    };
    mtus.enumerate().map(port).collect()
}

fn name(site: &'static Site, port: usize) -> &'static str {
    port.checked_sub(1).and_then(|client| site.clients.get(client)).map_or("uplink", |client| client.name)
}

/// What a device is to write for this reason.
pub fn message(reason: apic::Reason) -> Message {
    let apic::Message { address, data } = apic::message(reason);
    Message { address, data }
}

/// The place of registers, if they can be mapped.
pub fn map(address: PhysAddr, length: usize) -> Option<NonNull<u8>> {
    if let Err(reason) = paging::map(address, length as u64, paging::Use::Device) {
        log::error!(target: "pci", "registers at {address:#x} cannot be mapped: {reason:?}");
        return None;
    }
    NonNull::new(core::ptr::with_exposed_provenance_mut(usize::try_from(address).ok()?))
}

/// The network device at a place of the bus, ready to be started.
pub fn transport(access: &mut machine::pci::Ports, place: DeviceFunction) -> Option<Device> {
    let log = |found: &PciTransport<Dma>| {
        log::debug!(target: "pci", "device={place} registers={:#x} msix={}", found.address(), found.has_msix());
    };
    let messages = [apic::Reason::Frames, apic::Reason::Change].map(message);
    match PciTransport::<Dma>::new(access, place, Some(messages), map).inspect(log) {
        Ok(transport) if transport.has_msix() || apic::route_pci(pci::interrupt_line(access, place)) => {
            Some(transport.into())
        }
        Ok(_) => {
            log::error!(target: "pci", "device={place}: no MSI-X, and no line for its interrupts; not used");
            None
        }
        Err(missing) => {
            log::error!(target: "pci", "device={place}: {missing}; not used");
            None
        }
    }
}

/// The network devices of all PCI buses, in bus order, and the buses that more may come to by way of ACPI.
fn on_pci(machine: &mut Machine) -> (Vec<(Option<DeviceFunction>, Device)>, Vec<SharedBus>) {
    let Some(access) = &mut machine.pci else { return Default::default() };
    let places = pci::discover(access);
    // Some firmware, such as qboot, leaves addresses to the kernel.
    let is_bare = |place: &&DeviceFunction| place.bus == 0 && pci::lacks_addresses(access, **place);
    let bare = places.iter().filter(is_bare).fold(0, |devices, place| devices | 1 << place.device);
    for slot in Slot::on_root(access, bare, machine.low_memory_end) {
        slot.configure(access);
    }
    let shared = if acpi_slots::are_there() { SharedBus::all(access) } else { Vec::new() };
    let devices = places.into_iter().filter_map(|place| Some((Some(place), transport(access, place)?)));
    (devices.collect(), shared)
}

/// The network devices in memory that the host names, in its order.
fn in_memory(machine: &Machine) -> Vec<Device> {
    let mut devices = Vec::new();
    for &device in &machine.in_memory {
        if let Some(transport) = mmio::transport(device)
            && apic::route_edge(device.line, Vector::Line)
        {
            devices.push(transport.into());
        }
    }
    devices
}

/// The address that a device shows before it is started.
pub fn mac(device: &Device) -> EthernetAddress {
    let octet = |offset| device.read_config_space::<u8>(offset).unwrap_or(0);
    EthernetAddress([0, 1, 2, 3, 4, 5].map(octet))
}
