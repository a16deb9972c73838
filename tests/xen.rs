//! The image as an HVM guest of Xen, with virtio-net devices, from `qemu/examples/xen.cfg` and the ELF32 copy. Xen and
//! its first domain run under QEMU, which emulates the processor's virtualisation (SVM).
//!
//! Only where `WEIR_XEN` names what `qemu/xen.sh` has fetched: it takes a minute, and 2 GiB.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use qemu::accel::Accel;
use qemu::command::{Config, Machine};
use qemu::image::{self, Site, workspace};
use qemu::ramdisk::Archive;
use qemu::scratch::Scratch;
use qemu::vm::Vm;
use tests::image::busy;
use tests::netns::lacks;

/// How long the first domain and the guest in it may take.
const PATIENCE: Duration = Duration::from_secs(400);

/// What Xen and a first domain want of a processor, and nothing newer: the kernel of Debian 12 does not boot as a first
/// domain on QEMU's `max`.
const PROCESSOR: &str = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+rdrand";

/// What the first domain does. A namespace outside has the guest's uplink, the first domain itself is a client.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/lib/xen
mkdir -p /proc /sys /dev /run/xen /etc/xen /tmp /var/lib/xen /var/lib/xenstored /var/log/xen
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
ln -s /run /var/run
ln -sf /proc/self/fd /dev/fd
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t xenfs xenfs /proc/xen
: > /etc/xen/xl.conf
ip link set lo up
xenstored --pid-file=/run/xenstored.pid
sleep 1
xen-init-dom0
xenconsoled --pid-file=/run/xenconsoled.pid
xl create /weir.cfg || { cat /var/log/xen/*weir*; echo xen: no domain; }
unshare -n sleep 10000 &
outside=$!
sleep 1
ip link set uplink0 netns $outside
nsenter -t $outside -n sh -c 'ip link set lo up; ip addr add 192.0.2.1/24 dev uplink0; ip addr add 198.51.100.1/32 dev lo; ip link set uplink0 up'
ip addr add 10.0.1.2/24 dev work0
ip link set work0 up
ip route add default via 10.0.1.1
tries=0
until grep -q 'weir: ready' /serial.log || [ $tries = 60 ]; do tries=$((tries+1)); sleep 2; done
cat /serial.log
ping -c 5 198.51.100.1
nsenter -t $outside -n ip neigh
xl list
echo xen: done
while :; do sleep 1000; done
"#;

/// The first domain's RAM disk: what was fetched, and behind it our files.
fn ram_disk(fetched: &Path, scratch: &Scratch) -> PathBuf {
    let examples = workspace().expect("the tests run in the workspace").join("qemu/examples");
    let site = Site::open(&examples.join("site")).unwrap_or_else(|error| panic!("{error}"));
    let built = image::build(&site).unwrap_or_else(|error| panic!("{error}"));
    let copy = scratch.join("weir.elf32");
    image::write_elf32(&built.elf, &copy).unwrap_or_else(|error| panic!("{error}"));
    let example = fs::read_to_string(examples.join("xen.cfg")).expect("the example is there");
    let (kernel, serial) = ("\"/var/lib/xen/weir.elf.elf32\"", "serial = \"pty\"");
    assert!(example.contains(kernel) && example.contains(serial), "{example}");
    let config = example.replace(kernel, "\"/weir.elf32\"").replace(serial, "serial = \"file:/serial.log\"");
    let mut archive = Archive::default();
    archive.copy("weir.elf32", &copy).unwrap_or_else(|error| panic!("{error}"));
    archive.file("weir.cfg", config.as_bytes());
    archive.file("init", INIT.as_bytes());
    let mut disk =
        fs::read(fetched.join("dom0.cpio.gz")).unwrap_or_else(|error| panic!("dom0.cpio.gz: {error}"));
    // The kernel wants the second archive at a multiple of four.
    disk.resize(disk.len().next_multiple_of(4), 0);
    disk.extend_from_slice(&archive.finish());
    let path = scratch.join("dom0");
    fs::write(&path, disk).expect("room for a file");
    path
}

#[test]
fn an_hvm_guest_of_xen_forwards() {
    const NAME: &str = "an_hvm_guest_of_xen_forwards";
    let Some(fetched) = env::var_os("WEIR_XEN").map(PathBuf::from) else {
        return lacks(NAME, "WEIR_XEN, a directory that qemu/xen.sh has filled");
    };
    let _machine = busy();
    let scratch = Scratch::new().expect("a temporary directory");
    let modules = format!(
        "{} console=hvc0 panic=-1,{}",
        fetched.join("vmlinuz").display(),
        ram_disk(&fetched, &scratch).display()
    );
    let words = ["console=com1", "com1=115200,8n1", "dom0_mem=1000M,max:1000M", "dom0_max_vcpus=1"];
    let config = Config {
        machine: Machine::Q35,
        memory: 2048,
        initrd: Some(modules.into()),
        append: words.map(str::to_owned).into(),
        extra: ["-cpu", PROCESSOR].map(str::to_owned).into(),
        ..Config::new(fetched.join("xen.elf"), Accel::Tcg)
    };
    let vm = Vm::start(&config).unwrap_or_else(|error| panic!("{error}"));
    vm.expect("xen: done", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let said = vm.console().text();
    assert!(said.contains(" weir: ready"), "{said}");
    assert!(said.contains("5 packets transmitted, 5 packets received") && said.contains("ttl=63"), "{said}");
    // The neighbour outside is the appliance with its own address, not the client.
    assert!(said.contains("192.0.2.2 dev uplink0 lladdr 52:54:00:00:00:01"), "{said}");
}
