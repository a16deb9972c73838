//! The image on machines of many kinds: buses, firmware, devices with properties that hosts give them. No root.

use qemu::command::{Config, Machine, Netdev, Port, mac_text};
use tests::image::{PORTS, Wired, bare, busy, link_figure, stats};

const MACHINES: [Machine; 2] = [Machine::Q35, Machine::Microvm];

/// The ports as they are.
fn as_given(mut config: Config, ports: [Port; PORTS]) -> Config {
    config.ports = ports.into();
    config
}

#[test]
fn ports_are_found_by_mac_in_any_bus_order() {
    let _machine = busy();
    for machine in MACHINES {
        let place = |mut config: Config, [uplink, work, lab]: [Port; PORTS]| {
            config.ports = vec![lab, work, uplink];
            config
        };
        Wired::boot_with(bare(machine), place).with_hosts().assert_forwards();
    }
}

/// As libvirt builds its machines: bus 0 shows bridges only. One is on another root bus, one behind a switch.
#[test]
fn ports_behind_bridges_are_found() {
    let _machine = busy();
    let place = |mut config: Config, ports: [Port; PORTS]| {
        let bridges = [
            "pcie-root-port,id=a,chassis=1,slot=1",
            "pxb-pcie,id=x,bus_nr=64",
            "pcie-root-port,id=b,bus=x,chassis=2,slot=2",
            "pcie-root-port,id=r,chassis=3,slot=3",
            "x3130-upstream,id=s,bus=r",
            "xio3130-downstream,id=c,bus=s,chassis=4,slot=4",
        ];
        let mut extra: Vec<String> =
            bridges.iter().flat_map(|bridge| ["-device", bridge]).map(str::to_owned).collect();
        for (port, bus) in ports.iter().zip(["a", "b", "c"]) {
            let Netdev::Connect(path) = &port.netdev else { panic!("a wire") };
            let path = path.display();
            extra.push("-netdev".into());
            extra.push(format!("stream,id=w{bus},server=off,addr.type=unix,addr.path={path}"));
            extra.push("-device".into());
            extra.push(format!("virtio-net-pci,bus={bus},netdev=w{bus},mac={},romfile=", mac_text(port.mac)));
        }
        config.extra = extra;
        config
    };
    Wired::boot_with(bare(Machine::Q35), place).with_hosts().assert_forwards();
}

/// As Firecracker tells its devices: 4 KiB of registers each, among words for Linux.
#[test]
fn devices_written_as_firecracker_writes_them_are_found() {
    let _machine = busy();
    let mut config = bare(Machine::Microvm);
    config.extra = ["-machine", "auto-kernel-cmdline=off"].map(str::to_owned).into();
    config.append = ["reboot=k", "panic=1", "pci=off", "nomodule"].map(str::to_owned).into();
    // The machine's last three of eight, in the order in which QEMU fills them.
    let slots = [(0xfeb0_0e00_u32, 12), (0xfeb0_0c00, 11), (0xfeb0_0a00, 10)];
    config.append.extend(slots.map(|(at, line)| format!("virtio_mmio.device=4K@{at:#x}:{line}")));
    let place = |mut config: Config, ports: [Port; PORTS]| {
        config.ports = ports.into();
        config
    };
    Wired::boot_with(config, place).with_hosts().assert_forwards();
}

#[test]
fn a_pc_of_the_old_kind_forwards() {
    let _machine = busy();
    Wired::boot(Machine::Pc).with_hosts().assert_forwards();
}

/// Without MSI-X, interrupts come by lines that several ports share.
#[test]
fn ports_without_message_interrupts_forward() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Pc] {
        let place = |mut config: Config, mut ports: [Port; PORTS]| {
            ports.iter_mut().for_each(|port| port.properties.push("vectors=0".into()));
            config.ports = ports.into();
            config
        };
        let world = Wired::boot_with(bare(machine), place).with_hosts();
        // Often enough that a lost interrupt is met.
        (0..20).for_each(|_| world.assert_forwards());
        for port in ["uplink", "work", "lab"] {
            assert_eq!(link_figure(&stats(&world.vm), port, "device_errors"), 0);
        }
    }
}

/// Such as hosts have them for other guests: each of these stands for a feature that we leave alone, or take.
#[test]
fn ports_with_properties_of_all_kinds_forward() {
    let _machine = busy();
    for properties in [
        ["iommu_platform=on,disable-legacy=on", "packed=on", "mq=on,vectors=2"],
        ["rx_queue_size=1024", "ctrl_vq=off", "status=off,mrg_rxbuf=off"],
        ["host_mtu=9000", "host_mtu=68", "vectors=1,tx=timer"],
    ] {
        let place = |mut config: Config, mut ports: [Port; PORTS]| {
            let with = ports.iter_mut().zip(properties);
            with.for_each(|(port, properties)| port.properties.push(properties.into()));
            config.ports = ports.into();
            config
        };
        let world = Wired::boot_with(bare(Machine::Q35), place).with_hosts();
        world.assert_forwards();
        for port in ["uplink", "work", "lab"] {
            assert_eq!(link_figure(&stats(&world.vm), port, "device_errors"), 0, "{properties:?}");
        }
    }
}

/// A device that wants more addresses than there are below 4 GiB has firmware move all registers up.
#[test]
fn ports_whose_registers_are_far_up_forward() {
    let _machine = busy();
    // As many GiB as it takes to get above 4 GiB, and above 512 GiB.
    for size in ["8G", "256G"] {
        let place = |mut config: Config, ports: [Port; PORTS]| {
            config.ports = ports.into();
            config.extra.extend(["-device".to_owned(), format!("pci-testdev,membar={size}")]);
            config.append.push("log=debug".to_owned());
            config
        };
        let world = Wired::boot_with(bare(Machine::Q35), place).with_hosts();
        let text = world.vm.console().text();
        let least: u64 = if size == "8G" { 4 << 30 } else { 512 << 30 };
        let far = text.lines().filter_map(|line| line.split_once("registers=0x"));
        let far = far.filter_map(|(_, address)| u64::from_str_radix(address.split(' ').next()?, 16).ok());
        assert_eq!(far.filter(|&address| address >= least).count(), PORTS, "{text}");
        world.assert_forwards();
    }
}

/// Nobody but the kernel gives devices their addresses here.
#[test]
fn devices_that_firmware_leaves_without_addresses_are_given_some() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Pc] {
        let mut config = bare(machine);
        config.extra = ["-bios", "qboot.rom"].map(str::to_owned).into();
        Wired::boot_with(config, as_given).with_hosts().assert_forwards();
    }
}

/// As QEMU's microvm does it if it is told nothing else: no word on the command line, and lines of a second controller.
#[test]
fn devices_that_the_tables_name_are_found() {
    let _machine = busy();
    let mut config = bare(Machine::Microvm);
    // Among others that are nobody's port.
    config.extra = ["-machine", "acpi=on", "-device", "virtio-rng-device"].map(str::to_owned).into();
    let world = Wired::boot_with(config, as_given).with_hosts();
    let text = world.vm.console().text();
    assert!(!text.contains("refused") && !text.contains("not started"), "{text}");
    // Often enough that a lost interrupt is met.
    (0..5).for_each(|_| world.assert_forwards());
}
