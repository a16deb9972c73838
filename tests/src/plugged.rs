//! The image of `tests/site_hotplug` under QEMU, on a machine whose slots are empty at first.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use qemu::accel::Accel;
use qemu::command::{Config, Machine, Netdev, Port, mac_text};
use qemu::host::{Host, Identity};
use qemu::image::{Image, Site};
use qemu::link::{Link, Listener};
use qemu::qmp::{Qmp, Socket};
use qemu::vm::Vm;
use smoltcp::wire::EthernetAddress;

use crate::image::SOON;

/// How many root ports the machine has.
pub const SLOTS: u8 = 4;

/// The slot of an uplink that is in one.
pub const UPLINK_SLOT: u8 = SLOTS - 1;

/// The MAC of the NIC that the site knows as `work`.
pub const WORK: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x77, 0, 2]);

fn built() -> &'static (Site, Image) {
    static BUILT: OnceLock<(Site, Image)> = OnceLock::new();
    BUILT.get_or_init(|| build("site_hotplug"))
}

/// The image of a site in the tests' folder.
fn build(site: &str) -> (Site, Image) {
    let root = qemu::image::workspace().expect("the tests run in the workspace");
    let site = Site::open(&root.join("tests").join(site)).unwrap_or_else(|error| panic!("{error}"));
    let image = qemu::image::build(&site).unwrap_or_else(|error| panic!("{error}"));
    (site, image)
}

/// The image of `tests/site_nine` with nine ports, each a wire to one of these paths: the uplink, `work`, and seven places of `[hotplug]`.
///
/// # Panics
/// If there are not nine paths.
pub fn nine(paths: impl Iterator<Item = PathBuf>) -> Config {
    let (site, image) = build("site_nine");
    let mut config = Config { debug_exit: true, ..Config::new(image.elf, Accel::Tcg) };
    let macs = [site.plan.uplink.mac, WORK].into_iter();
    let macs = macs.chain((0..7).map(|number| EthernetAddress([0x52, 0x54, 0, 0x88, 0, number])));
    config.ports = macs.zip(paths).map(|(mac, path)| Port::new(mac, Netdev::Connect(path))).collect();
    assert_eq!(config.ports.len(), 9);
    config
}

/// How the machine tells of devices that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the slot registers of PCI Express.
    Native,
    /// By the ports of ACPI's tables, which is QEMU's default.
    Acpi,
    /// By those of a PC of the old kind, whose slots are those of its only bus.
    Pc,
    /// By the same ports on a newer one, for a bus of the old kind behind bridges, as Proxmox VE has it.
    Bridge,
}

/// The appliance with a wire at its uplink, and slots.
pub struct Plugged {
    /// The next hop outside, also the server 198.51.100.1.
    pub uplink: Host,
    /// QEMU's control.
    pub qmp: Qmp,
    /// The appliance. Dropped last, so that no host writes to a wire without an end.
    pub vm: Vm,
    way: Way,
}

/// Somebody behind a NIC.
pub struct Guest {
    /// The device, as QEMU knows it.
    pub id: String,
    /// Who it is.
    pub host: Host,
    _listener: Listener,
}

/// The MAC of the uplink's NIC.
pub fn uplink_mac() -> EthernetAddress {
    built().0.plan.uplink.mac
}

/// The next hop outside, at the end of the uplink's wire.
pub fn outside(link: Link) -> Host {
    let addresses = ["192.0.2.1/24", "198.51.100.1/32"].map(|text| text.parse().expect("an address"));
    let identity = Identity {
        name: "uplink".into(),
        mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
        addresses: addresses.into(),
        gateway: None,
    };
    Host::start(identity, link)
}

impl Plugged {
    /// Boots it with nothing but the uplink, which has a place for good.
    ///
    /// # Panics
    /// If it does not boot; with the end of its console.
    pub fn boot(way: Way) -> Self {
        Self::boot_with(way, &[])
    }

    /// Boots it with nothing but the uplink, in the last slot, as device `uplink`.
    ///
    /// # Panics
    /// If it does not boot; with the end of its console.
    pub fn boot_in_slots(way: Way) -> Self {
        let bus = if way == Way::Bridge { "bus=bridge".to_owned() } else { format!("bus=slot{UPLINK_SLOT}") };
        Self::boot_with(way, &["id=uplink".to_owned(), bus])
    }

    /// `properties` are the uplink's.
    fn boot_with(way: Way, properties: &[String]) -> Self {
        let (_, image) = built();
        let (socket, listener) = (Socket::new(), Listener::new());
        let (socket, listener) = (socket.expect("a directory"), listener.expect("a socket"));
        let mut config = Config { debug_exit: true, ..Config::new(image.elf.clone(), Accel::Tcg) };
        let uplink = Port::new(uplink_mac(), Netdev::Connect(listener.path().to_owned()));
        config.ports = vec![Port { properties: properties.to_owned(), ..uplink }];
        config.extra = socket.arguments().into();
        match way {
            Way::Pc => config.machine = Machine::Pc,
            Way::Native | Way::Acpi => config.slots = SLOTS,
            Way::Bridge => {
                let bridges = [
                    "i82801b11-bridge,id=dmi,bus=pcie.0,addr=1e.0",
                    "pci-bridge,id=bridge,bus=dmi,chassis_nr=1",
                ];
                config
                    .extra
                    .extend(bridges.into_iter().flat_map(|bridge| ["-device".to_owned(), bridge.to_owned()]));
            }
        }
        if matches!(way, Way::Acpi | Way::Bridge) {
            // What is said last counts.
            let bridges = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on";
            config.extra.extend(["-global".to_owned(), bridges.to_owned()]);
        }
        if properties.iter().any(|property| property == "bus=bridge") {
            // What is put into a bridge comes behind it on the command line.
            config.ports.clear();
            let path = listener.path().display();
            let netdev = format!("stream,id=w,server=off,addr.type=unix,addr.path={path}");
            let (mac, more) = (mac_text(uplink_mac()), properties.join(","));
            let device = format!("virtio-net-pci,netdev=w,mac={mac},romfile=,{more}");
            config.extra.extend(["-netdev".to_owned(), netdev, "-device".to_owned(), device]);
        }
        let vm = Vm::start(&config).unwrap_or_else(|error| panic!("{error}"));
        let link = vm.connect(&listener, SOON).unwrap_or_else(|error| panic!("{error}"));
        vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
        let qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
        Self { uplink: outside(link), qmp, vm, way }
    }

    /// Plugs a NIC into a slot, with a wire to us.
    ///
    /// # Panics
    /// If QEMU does not.
    pub fn wire(&mut self, id: &str, slot: usize, mac: EthernetAddress) -> (Link, Listener) {
        let listener = Listener::new().expect("a socket");
        let bus = match self.way {
            Way::Native | Way::Acpi => format!("slot{slot}"),
            Way::Pc => "pci.0".to_owned(),
            Way::Bridge => "bridge".to_owned(),
        };
        self.qmp.plug(id, &bus, &mac_text(mac), listener.path()).unwrap_or_else(|error| panic!("{error}"));
        let link = self.vm.connect(&listener, SOON).unwrap_or_else(|error| panic!("{error}"));
        (link, listener)
    }

    /// Plugs a NIC in and waits until it is the port of this name; behind it is a host of this address, with a prefix
    /// that holds the gateway.
    ///
    /// # Panics
    /// If it is not, in time.
    pub fn plug(&mut self, id: &str, slot: usize, mac: EthernetAddress, name: &str, address: &str) -> Guest {
        let seen = self.vm.console().lines();
        let (link, listener) = self.wire(id, slot, mac);
        self.line(seen, &format!("came name={name} "));
        let prefix = address.parse().expect("an address with its prefix length");
        let client = built().0.plan.clients.iter().find(|client| client.name == name);
        let gateway = client.map(|client| client.gateway);
        let identity = Identity {
            name: id.into(),
            mac: EthernetAddress([2, 1, 0, 0, 0, slot as u8]),
            addresses: vec![prefix],
            gateway,
        };
        Guest { id: id.into(), host: Host::start(identity, link), _listener: listener }
    }

    /// Waits for a new line of the console.
    ///
    /// # Panics
    /// If it does not come.
    pub fn line(&self, seen: usize, text: &str) -> String {
        let line = self.vm.console().find(seen, SOON, |line: &str| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text:?} on the console: {:#?}", self.vm.console().tail(20)))
    }

    /// Takes a guest's NIC away; how long the appliance took to let go of it.
    ///
    /// # Panics
    /// If it does not.
    pub fn unplug(&mut self, guest: &str) -> Duration {
        self.qmp
            .unplug(guest, SOON)
            .unwrap_or_else(|error| panic!("{error}\n{:#?}", self.vm.console().tail(20)))
    }
}
