//! A Linux client VM: a distribution's kernel, and a RAM disk of busybox with one script.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use qemu::accel::Accel;
use qemu::command::{Config, Port};
use qemu::scratch::Scratch;

/// What a client with a virtio-net device needs.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_net"];

/// The beginning of every script: tools, file systems, the device.
const PRELUDE: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo client: no $module; done
tries=0
until [ -e /sys/class/net/eth0 ] || [ $tries = 100 ]; do tries=$((tries+1)); usleep 50000; done
ip link set lo up
";

/// The kernel of client VMs.
#[derive(Clone, Debug)]
pub struct Kernel(qemu::kernel::Kernel);

impl Kernel {
    /// The one that `qemu/setup.sh` unpacks below `target/client`, or else the machine's own.
    ///
    /// # Errors
    /// There is none, or no static busybox to go with it.
    pub fn find() -> Result<Self, String> {
        qemu::kernel::Kernel::find().map(Self).map_err(|error| error.to_string())
    }

    /// A VM that brings up its device, runs `script` and then powers off. Its RAM disk is written to `scratch`.
    ///
    /// # Panics
    /// If the RAM disk cannot be made.
    pub fn vm(&self, scratch: &Scratch, script: &str, port: Port) -> Config {
        let initrd = scratch.join("client.cpio");
        let init = format!("{PRELUDE}{script}\npoweroff -f\n");
        let archive = self.0.ram_disk(&MODULES, &init).unwrap_or_else(|error| panic!("{error}"));
        fs::write(&initrd, archive.finish()).expect("room for a RAM disk");
        let append = ["console=ttyS0", "quiet", "panic=-1"].map(str::to_owned).into();
        let config = Config::new(&self.0.image, Accel::Tcg);
        Config { memory: 160, initrd: Some(initrd), append, ports: vec![port], ..config }
    }
}

/// The SHA-256 of these octets, as `sha256sum` writes it.
///
/// # Panics
/// If there is no `sha256sum`.
pub fn sha256(octets: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils have sha256sum");
    // It reads everything before it says anything.
    child.stdin.take().expect("a pipe").write_all(octets).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
}
