//! The QEMU command line.

use crate::accel::Accel;
use crate::backend::Backend;
use crate::plan::UserNetwork;
use smoltcp::wire::EthernetAddress;
use std::path::{Path, PathBuf};

/// The port of `isa-debug-exit` that the image is told about on its command line.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// The machine QEMU plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Machine {
    /// A PC with PCI Express.
    #[default]
    Q35,
    /// A PC of the old kind.
    Pc,
    /// A minimal machine with virtio-mmio devices only.
    Microvm,
}

impl Machine {
    /// The word QEMU uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
        }
    }
}

/// One virtio-net device and what it is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The device's MAC.
    pub mac: EthernetAddress,
    /// The back end.
    pub netdev: Netdev,
    /// Where to write a pcap of everything that passes, in both directions.
    pub capture: Option<PathBuf>,
    /// More properties of the device, as `-device` takes them: `["csum=off", "mtu=1400"]`.
    pub properties: Vec<String>,
}

impl Port {
    /// A port with nothing special about it.
    pub fn new(mac: EthernetAddress, netdev: Netdev) -> Self {
        Self { mac, netdev, capture: None, properties: Vec::new() }
    }
}

/// A back end, complete with what QEMU must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netdev {
    /// The user-mode network.
    User(UserNetwork),
    /// A stream socket that QEMU connects to.
    Connect(PathBuf),
    /// Anything from the command line but `user`. A stream socket is connected to when its path exists, else QEMU
    /// listens there.
    Backend(Backend),
}

/// A VM to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The machine.
    pub machine: Machine,
    /// KVM or TCG.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory: u32,
    /// The ELF to boot.
    pub kernel: PathBuf,
    /// An initial RAM disk, for other guests than the image.
    pub initrd: Option<PathBuf>,
    /// Words of the kernel command line.
    pub append: Vec<String>,
    /// Devices in bus order: for the image, the uplink comes first.
    pub ports: Vec<Port>,
    /// Empty slots, `slot0` and on, for devices that come while the VM runs (q35).
    pub slots: u8,
    /// Adds `isa-debug-exit` and tells the image, so that the exit status of QEMU is the image's: `2 * code + 1`.
    pub debug_exit: bool,
    /// Whether a guest that resets ends QEMU instead.
    pub ends_on_reset: bool,
    /// More arguments of QEMU.
    pub extra: Vec<String>,
    /// A command in front of QEMU, such as `ip netns exec NAME`.
    pub wrapper: Vec<String>,
}

impl Config {
    /// A VM with 32 MiB and no ports, on the machine that is the default.
    pub fn new(kernel: impl Into<PathBuf>, accel: Accel) -> Self {
        Self {
            machine: Machine::default(),
            accel,
            memory: 32,
            kernel: kernel.into(),
            initrd: None,
            append: Vec::new(),
            ports: Vec::new(),
            slots: 0,
            debug_exit: false,
            ends_on_reset: true,
            extra: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// The arguments of QEMU, without the program's name. The serial line is on stdio.
    pub fn arguments(&self) -> Vec<String> {
        let mut line = Line::default();
        line.words(&["-nodefaults", "-no-user-config", "-display", "none"]);
        if self.ends_on_reset {
            line.words(&["-no-reboot"]);
        }
        let shared_memory =
            self.ports.iter().any(|port| matches!(port.netdev, Netdev::Backend(Backend::VhostUser(_))));
        line.option("-accel", self.accel.name());
        line.option("-cpu", if self.accel == Accel::Kvm { "host" } else { "max" });
        line.option("-M", machine(self.machine, shared_memory));
        line.option("-m", format!("{}M", self.memory));
        if shared_memory {
            // A vhost-user switch reads and writes the guest's memory.
            line.option("-object", format!("memory-backend-memfd,id=ram,size={}M,share=on", self.memory));
        }
        if self.machine == Machine::Microvm {
            line.option("-global", "virtio-mmio.force-legacy=false");
        }
        line.option("-serial", "stdio");
        // Before what may be put into them.
        for slot in 0..self.slots {
            let number = slot + 1;
            line.option("-device", format!("pcie-root-port,id=slot{slot},chassis={number},slot={number}"));
        }
        if self.slots > 0 {
            // The slots' own registers instead of ACPI: they send interrupts.
            line.option("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
        }
        for (index, port) in self.ports.iter().enumerate() {
            line.port(index, port, self.machine);
        }
        let mut append = self.append.clone();
        if self.debug_exit {
            line.option("-device", format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x4"));
            append.push(format!("debug_exit={DEBUG_EXIT_PORT:#x}"));
        }
        line.option("-kernel", self.kernel.display().to_string());
        if let Some(initrd) = &self.initrd {
            line.option("-initrd", initrd.display().to_string());
        }
        if !append.is_empty() {
            line.option("-append", append.join(" "));
        }
        line.0.extend(self.extra.iter().cloned());
        line.0
    }
}

fn machine(machine: Machine, shared_memory: bool) -> String {
    let name = match machine {
        Machine::Q35 | Machine::Pc => machine.name(),
        // With ACPI the machine has no virtio-mmio device on the kernel command line.
        Machine::Microvm => "microvm,acpi=off,rtc=off",
    };
    if shared_memory { format!("{name},memory-backend=ram") } else { name.to_owned() }
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }

    fn port(&mut self, index: usize, port: &Port, machine: Machine) {
        let id = format!("n{index}");
        if let Netdev::Backend(Backend::VhostUser(path)) = &port.netdev {
            self.option("-chardev", format!("socket,id=c{index},path={}", escape(path)));
        }
        self.option("-netdev", netdev(&id, index, &port.netdev));
        if let Some(path) = &port.capture {
            self.option("-object", format!("filter-dump,id=f{index},netdev={id},file={}", escape(path)));
        }
        let mac = mac_text(port.mac);
        let device = match machine {
            Machine::Q35 | Machine::Pc => format!("virtio-net-pci,netdev={id},mac={mac},romfile="),
            // Without a slot of its own each device takes the next one in the order of the kernel command line, which
            // is the order of the image.
            Machine::Microvm => format!("virtio-net-device,netdev={id},mac={mac}"),
        };
        let properties: String = port.properties.iter().map(|property| format!(",{property}")).collect();
        self.option("-device", device + &properties);
    }
}

fn netdev(id: &str, index: usize, netdev: &Netdev) -> String {
    let unix = |path: &Path| format!("addr.type=unix,addr.path={}", escape(path));
    match netdev {
        Netdev::User(user) => {
            format!(
                "user,id={id},net={},host={},dns={},dhcpstart={},restrict=off",
                user.network, user.host, user.dns, user.dhcp
            )
        }
        Netdev::Connect(path) => format!("stream,id={id},server=off,{}", unix(path)),
        Netdev::Backend(Backend::User) => format!("user,id={id}"),
        Netdev::Backend(Backend::Tap(name)) => {
            format!("tap,id={id},ifname={},script=no,downscript=no", name.replace(',', ",,"))
        }
        Netdev::Backend(Backend::Stream(path)) => {
            format!("stream,id={id},server={},{}", if path.exists() { "off" } else { "on" }, unix(path))
        }
        Netdev::Backend(Backend::Dgram { local, remote }) => {
            format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                escape(local),
                escape(remote)
            )
        }
        Netdev::Backend(Backend::VhostUser(_)) => format!("vhost-user,id={id},chardev=c{index}"),
    }
}

/// A MAC with colons, as people and QEMU write it.
pub fn mac_text(mac: EthernetAddress) -> String {
    mac.0.map(|octet| format!("{octet:02x}")).join(":")
}

/// A path as the value of an option: QEMU reads a doubled comma as one of the value.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A command line that a shell reads back as the same words.
pub fn quote(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);

    fn line(config: &Config) -> String {
        quote(&config.arguments())
    }

    fn with(netdev: Netdev) -> Config {
        Config { ports: vec![Port::new(MAC, netdev)], ..Config::new("weir.elf", Accel::Tcg) }
    }

    #[test]
    fn a_bare_vm() {
        assert_eq!(
            line(&Config::new("weir.elf", Accel::Tcg)),
            "-nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -M q35 -m 32M -serial stdio -kernel weir.elf"
        );
    }

    #[test]
    fn kvm_shows_the_host_processor() {
        assert!(line(&Config::new("weir.elf", Accel::Kvm)).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn the_user_network_names_every_address() {
        let user = UserNetwork {
            network: "192.0.2.0/24".parse().unwrap(),
            host: [192, 0, 2, 1].into(),
            dns: [192, 0, 2, 3].into(),
            dhcp: [192, 0, 2, 4].into(),
        };
        assert!(line(&with(Netdev::User(user))).contains(
            "-netdev user,id=n0,net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.3,dhcpstart=192.0.2.4,restrict=off -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,romfile="
        ));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert!(
            line(&with(Netdev::Connect("/tmp/a,b".into())))
                .contains("stream,id=n0,server=off,addr.type=unix,addr.path=/tmp/a,,b ")
        );
    }

    #[test]
    fn a_stream_listens_unless_its_path_exists() {
        let missing = Netdev::Backend(Backend::Stream("/nonexistent/sock".into()));
        assert!(line(&with(missing)).contains("server=on"));
        let present = Netdev::Backend(Backend::Stream("/".into()));
        assert!(line(&with(present)).contains("server=off"));
    }

    #[test]
    fn taps_run_no_scripts() {
        assert!(
            line(&with(Netdev::Backend(Backend::Tap("tap0".into()))))
                .contains("-netdev tap,id=n0,ifname=tap0,script=no,downscript=no ")
        );
    }

    #[test]
    fn vhost_user_shares_the_memory() {
        let line = line(&with(Netdev::Backend(Backend::VhostUser("/run/v".into()))));
        for part in [
            "-M q35,memory-backend=ram",
            "memory-backend-memfd,id=ram,size=32M,share=on",
            "-chardev socket,id=c0,path=/run/v -netdev vhost-user,id=n0,chardev=c0",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn microvm_has_modern_virtio_mmio_devices() {
        let config = Config { machine: Machine::Microvm, ..with(Netdev::Connect("a".into())) };
        let line = line(&config);
        assert!(
            line.contains("-M microvm,acpi=off,rtc=off -m 32M -global virtio-mmio.force-legacy=false"),
            "{line}"
        );
        assert!(line.contains("-device virtio-net-device,netdev=n0,mac=52:54:00:00:00:01 "), "{line}");
    }

    #[test]
    fn a_pc_of_the_old_kind_has_pci_devices() {
        let line = line(&Config { machine: Machine::Pc, ..with(Netdev::Connect("a".into())) });
        assert!(line.contains("-M pc -m 32M") && line.contains("-device virtio-net-pci,netdev=n0"), "{line}");
    }

    #[test]
    fn debug_exit_is_told_to_the_image() {
        let config = Config {
            debug_exit: true,
            append: vec!["crash=panic".into()],
            ..Config::new("weir.elf", Accel::Tcg)
        };
        let line = line(&config);
        assert!(
            line.contains("-device isa-debug-exit,iobase=0xf4,iosize=0x4")
                && line.ends_with("-append 'crash=panic debug_exit=0xf4'"),
            "{line}"
        );
    }

    #[test]
    fn slots_are_root_ports_with_registers_of_their_own() {
        let line = line(&Config { slots: 2, ..Config::new("weir.elf", Accel::Tcg) });
        assert!(
            line.contains(
                "-device pcie-root-port,id=slot0,chassis=1,slot=1 -device pcie-root-port,id=slot1,chassis=2,slot=2 \
                 -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
            ),
            "{line}"
        );
    }

    #[test]
    fn a_capture_hangs_on_its_netdev() {
        let mut config = with(Netdev::Connect("a".into()));
        config.ports[0].capture = Some("/tmp/u.pcap".into());
        assert!(line(&config).contains("-object filter-dump,id=f0,netdev=n0,file=/tmp/u.pcap"));
    }

    #[test]
    fn quoting_survives_a_shell() {
        assert_eq!(
            quote(&["a b".into(), "it's".into(), String::new(), "x=1".into()]),
            r"'a b' 'it'\''s' '' x=1"
        );
    }
}
