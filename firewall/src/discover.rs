//! The machine's virtio-net devices, as the ports of the site.

use alloc::vec::Vec;
use core::fmt;

use firewall::assign::{Missing, assign};
use firewall::held_frames;
use netback::pci::{self, Message, PciTransport};
use netback::port::{Settings, StartError, buffers_for};
use netback::{AnyTransport, Pool};
use rules::site::Site;
use smoltcp::wire::EthernetAddress;
use virtio_drivers::transport::Transport;

use crate::machine::dma::Dma;
use crate::machine::{Machine, apic, interrupts::Vector, mmio};

/// A port of the image.
pub type Port = netback::Port<Dma, AnyTransport<Dma>>;

/// Why the ports of the site are not there.
pub enum Failure {
    /// A port has no device.
    Missing(Missing),
    /// A device did not start.
    Start(&'static str, StartError),
    /// The frames' buffers do not fit the memory.
    OutOfMemory,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::Start(name, reason) => write!(f, "port={name}: {reason}"),
            Self::OutOfMemory => f.write_str("not enough memory for the buffers of the ports"),
        }
    }
}

/// Starts the ports of the site, the uplink first.
pub fn ports(machine: &mut Machine, site: &'static Site) -> Result<Vec<Port>, Failure> {
    let mut devices = on_pci(machine);
    devices.extend(in_memory(machine));
    let macs: Vec<_> = devices.iter().map(mac).collect();
    let chosen = assign(site, &macs).map_err(Failure::Missing)?;
    let buffers = buffers_for(chosen.len()) + held_frames(site);
    let pool = Pool::new::<Dma>(buffers).map_err(|_| Failure::OutOfMemory)?;
    let mut devices: Vec<_> = devices.into_iter().map(Some).collect();
    let uplink = core::iter::once(("uplink", site.uplink.mtu));
    let clients = site.clients.iter().map(|client| (client.name, client.mtu));
    let settings = uplink.chain(clients).map(|(name, mtu)| Settings { name, mac: None, mtu });
    let mut ports = Vec::with_capacity(chosen.len());
    for (nic, settings) in chosen.into_iter().zip(settings) {
        let name = settings.name;
        let device = devices.get_mut(nic).and_then(Option::take);
        let device = device.ok_or(Failure::Missing(Missing { name, mac: settings.mac }))?;
        let port = Port::new(device, pool.clone(), settings);
        ports.push(port.map_err(|reason| Failure::Start(name, reason))?);
    }
    Ok(ports)
}

/// The network devices of all PCI buses, in bus order.
fn on_pci(machine: &mut Machine) -> Vec<AnyTransport<Dma>> {
    let Some(access) = &mut machine.pci else { return Vec::new() };
    let wake = apic::message();
    let message = Message { address: wake.address, data: wake.data };
    let mut devices = Vec::new();
    for function in pci::discover(access) {
        match PciTransport::<Dma>::new(access, function, Some(message)) {
            Ok(transport) if transport.has_msix() => devices.push(transport.into()),
            Ok(_) => log::error!(target: "pci", "device={function}: no MSI-X; not used"),
            Err(missing) => log::error!(target: "pci", "device={function}: {missing:?}; not used"),
        }
    }
    devices
}

/// The network devices that the command line names, in its order.
fn in_memory(machine: &Machine) -> Vec<AnyTransport<Dma>> {
    let mut devices = Vec::new();
    for device in machine.command_line.mmio_devices() {
        if let Some(transport) = mmio::transport(device)
            && apic::route_edge(device.line, Vector::Line)
        {
            devices.push(transport.into());
        }
    }
    devices
}

/// The address that a device shows before it is started.
fn mac(device: &AnyTransport<Dma>) -> EthernetAddress {
    let octet = |offset| device.read_config_space::<u8>(offset).unwrap_or(0);
    EthernetAddress([0, 1, 2, 3, 4, 5].map(octet))
}
