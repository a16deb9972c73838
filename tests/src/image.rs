//! The image of `tests/site` under QEMU.
//!
//! It is built once a test process. Tests that measure take the machine for themselves ([`quiet`]);
//! all others share it ([`busy`]), as many as the test harness starts.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use qemu::accel::Accel;
use qemu::backend::Backend;
use qemu::command::{Config, Machine, Netdev, Port};
use qemu::host::{Host, Identity};
use qemu::image::{Image, Site};
use qemu::link::{Link, Listener};
use qemu::plan::Plan;
use qemu::stats::Stats;
use qemu::vm::Vm;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use crate::talk::{echo_datagrams, meanwhile};

/// What is waited for takes a fraction of this, also on a busy machine under emulation.
pub const SOON: Duration = Duration::from_secs(20);

/// How many ports the site has: the uplink, `work`, `lab`.
pub const PORTS: usize = 3;

/// The appliance's own address outside.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A server outside that is not on the uplink's subnet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

static MACHINE: RwLock<()> = RwLock::new(());

/// Runs beside other tests, never beside one that measures.
pub fn busy() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Runs alone.
pub fn quiet() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

fn built() -> &'static (Site, Image) {
    static BUILT: OnceLock<(Site, Image)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = qemu::image::workspace().expect("the tests run in the workspace");
        let site = Site::open(&root.join("tests").join("site")).unwrap_or_else(|error| panic!("{error}"));
        let image = qemu::image::build(&site).unwrap_or_else(|error| panic!("{error}"));
        (site, image)
    })
}

/// The network plan of the site.
pub fn plan() -> &'static Plan {
    &built().0.plan
}

/// The MAC of each port, the uplink first. The last is any: the site leaves it open.
pub fn macs() -> [EthernetAddress; PORTS] {
    let plan = plan();
    let mut macs = std::iter::once(plan.uplink.mac).chain(plan.clients.iter().map(|client| client.mac));
    [(); PORTS].map(|()| macs.next().expect("three ports"))
}

/// A VM of the image without ports. It tells by QEMU's exit status how it ended.
pub fn bare(machine: Machine) -> Config {
    let kernel: PathBuf = built().1.elf.clone();
    Config { machine, debug_exit: true, ..Config::new(kernel, Accel::Tcg) }
}

/// A VM whose ports lead nowhere that matters, in the site's order.
pub fn alone(machine: Machine) -> Config {
    let ports = macs().map(|mac| Port::new(mac, Netdev::Backend(Backend::User)));
    Config { ports: ports.into(), ..bare(machine) }
}

/// Starts a VM and waits until it forwards.
///
/// # Panics
/// If it does not; with the end of its console.
pub fn ready(config: &Config) -> Vm {
    let vm = Vm::start(config).unwrap_or_else(|error| panic!("{error}"));
    vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
    vm
}

/// Starts a VM that ends by itself; how, and what it said.
///
/// # Panics
/// If it does not end.
pub fn ended(config: &Config) -> (ExitStatus, String) {
    let vm = Vm::start(config).unwrap_or_else(|error| panic!("{error}"));
    // Fails at the end of the console, after all of it was read; nothing has this line.
    let end = vm.expect("\u{0}", SOON).expect_err("no line has this");
    let status = vm.exit_status().unwrap_or_else(|| panic!("{error}", error = end));
    (status, vm.console().text())
}

/// The appliance's figures.
///
/// # Panics
/// If it does not answer.
pub fn stats(vm: &Vm) -> Stats {
    vm.stats(SOON).unwrap_or_else(|error| panic!("{error}"))
}

/// Allocations after boot.
pub fn late_allocations(stats: &Stats) -> u64 {
    let count = stats.memory.more.get("late_allocations").and_then(|value| value.as_u64());
    count.expect("the figures have late_allocations")
}

/// The octets of a figure of a port's device, such as `tx_full`.
pub fn link_figure(stats: &Stats, port: &str, name: &str) -> u64 {
    let link = stats.port(port).and_then(|port| port.more.get("link"));
    let value = link.and_then(|link| link.get(name)).and_then(|value| value.as_u64());
    value.unwrap_or_else(|| panic!("the figures of {port} have {name}"))
}

/// The appliance with a wire at every port.
pub struct Wired {
    /// The other end of each wire, in the site's order.
    pub links: Vec<Link>,
    /// The appliance.
    pub vm: Vm,
}

impl Wired {
    /// Boots it with the devices in the site's order.
    pub fn boot(machine: Machine) -> Self {
        Self::boot_with(bare(machine), |mut config, ports| {
            config.ports = ports.into();
            config
        })
    }

    /// Boots it; `place` puts the ports, given in the site's order, into the configuration.
    ///
    /// # Panics
    /// If it does not boot; with the end of its console.
    pub fn boot_with(config: Config, place: impl FnOnce(Config, [Port; PORTS]) -> Config) -> Self {
        let wired = Self::resume_with(config, place);
        wired.vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
        wired
    }

    /// The same for one that does not say that it is ready, because it was.
    ///
    /// # Panics
    /// If QEMU does not run; with the end of its console.
    pub fn resume_with(config: Config, place: impl FnOnce(Config, [Port; PORTS]) -> Config) -> Self {
        let listeners = [(); PORTS].map(|()| Listener::new().unwrap_or_else(|error| panic!("{error}")));
        let mut paths = listeners.iter().map(|listener| listener.path().to_owned());
        let ports =
            macs().map(|mac| Port::new(mac, Netdev::Connect(paths.next().expect("one for each port"))));
        let vm = Vm::start(&place(config, ports)).unwrap_or_else(|error| panic!("{error}"));
        let connect = |listener| vm.connect(listener, SOON).unwrap_or_else(|error| panic!("{error}"));
        let links = listeners.iter().map(connect).collect();
        Self { links, vm }
    }

    /// With a host at the end of every wire.
    pub fn with_hosts(self) -> Inhabited {
        let mut hosts = self.links.into_iter().zip(identities()).map(|(link, who)| Host::start(who, link));
        let mut host = || hosts.next().expect("one for each port");
        Inhabited { uplink: host(), work: host(), lab: host(), vm: self.vm }
    }
}

/// The appliance with a host at every port.
pub struct Inhabited {
    /// The next hop outside; also the server 198.51.100.1.
    pub uplink: Host,
    /// 10.0.1.2.
    pub work: Host,
    /// 10.0.2.2.
    pub lab: Host,
    /// The appliance. Dropped last, so that no host writes to a wire without an end.
    pub vm: Vm,
}

impl Inhabited {
    /// Every neighbour reaches the appliance's address on its port, and a datagram goes out and comes back.
    ///
    /// # Panics
    /// If not.
    pub fn assert_forwards(&self) {
        let gateways = [EXTERNAL, Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 2, 1)];
        for (host, gateway) in [&self.uplink, &self.work, &self.lab].into_iter().zip(gateways) {
            let probe = host.ping(gateway, SOON);
            assert!(probe.outcome.is_ok(), "{gateway}: {:?}", probe.outcome);
        }
        let sources = self.exchanged(&[(&self.work, b"of work"), (&self.lab, b"of lab")]);
        assert!(sources.iter().all(|source| *source.ip() == EXTERNAL), "{sources:?}");
    }

    /// Each client's datagram comes back from the server; the sources that the server saw.
    ///
    /// # Panics
    /// If one does not.
    pub fn exchanged(&self, clients: &[(&Host, &[u8])]) -> Vec<SocketAddrV4> {
        let different = clients.len();
        thread::scope(|scope| {
            let server =
                meanwhile(scope, &self.uplink, move |stack| echo_datagrams(stack, 7, different, SOON));
            for (host, payload) in clients {
                let probe = host.exchange(SocketAddrV4::new(SERVER, 7), payload, SOON);
                assert_eq!(probe.outcome.as_deref(), Ok(*payload));
            }
            server.join().expect("the server has its datagrams")
        })
    }
}

/// The hosts of [`Inhabited`], in the site's order.
pub fn identities() -> [Identity; PORTS] {
    let plan = plan();
    let outside = ["192.0.2.1/24", "198.51.100.1/32"];
    let outside = outside.map(|text| text.parse::<Ipv4Cidr>().expect("an address")).into();
    let mut others = plan.clients.iter().zip(2..).map(|(client, last)| Identity {
        name: client.name.clone(),
        mac: EthernetAddress([0x02, 0, 0, 0, 0, last]),
        addresses: client.host_addresses(),
        gateway: Some(client.gateway),
    });
    let mut other = || others.next().expect("two clients");
    let uplink = Identity {
        name: "uplink".into(),
        mac: EthernetAddress([0x02, 0, 0, 0, 0, 1]),
        addresses: outside,
        gateway: None,
    };
    [uplink, other(), other()]
}

/// The MACs that the appliance shows, by port name.
pub fn shown_macs(stats: &Stats) -> BTreeSet<(String, String)> {
    stats.ports.iter().map(|port| (port.name.clone(), port.mac.clone())).collect()
}
