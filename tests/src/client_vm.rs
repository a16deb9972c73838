//! A Linux client VM: a distribution's kernel, and a RAM disk of busybox with one script.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
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

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The one that `qemu/setup.sh` unpacks below `target/client`, or else the machine's own.
    ///
    /// # Errors
    /// There is none, or no static busybox to go with it.
    pub fn find() -> Result<Self, String> {
        let root = qemu::image::workspace().map_err(|error| error.to_string())?;
        let unpacked = root.join("target").join("client");
        let found = [unpacked.as_path(), Path::new("/")].into_iter().find_map(Self::below);
        busybox()?;
        found.ok_or_else(|| "no client kernel; run qemu/setup.sh".into())
    }

    fn below(root: &Path) -> Option<Self> {
        let entries = fs::read_dir(root.join("boot")).ok()?;
        let mut versions: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
            .collect();
        versions.sort();
        versions.into_iter().rev().find_map(|version| {
            let image = root.join("boot").join(format!("vmlinuz-{version}"));
            let modules = root.join("lib/modules").join(version);
            modules.join("modules.dep").is_file().then_some(Self { image, modules })
        })
    }

    /// A VM that brings up its device, runs `script` and then powers off. Its RAM disk is written to `scratch`.
    ///
    /// # Panics
    /// If the RAM disk cannot be made.
    pub fn vm(&self, scratch: &Scratch, script: &str, port: Port) -> Config {
        let initrd = scratch.join("client.cpio");
        fs::write(&initrd, self.ram_disk(script)).expect("room for a RAM disk");
        let append = ["console=ttyS0", "quiet", "panic=-1"].map(str::to_owned).into();
        let config = Config::new(&self.image, Accel::Tcg);
        Config { memory: 160, initrd: Some(initrd), append, ports: vec![port], ..config }
    }

    fn ram_disk(&self, script: &str) -> Vec<u8> {
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "modules", "proc", "sys"] {
            archive.directory(directory);
        }
        let tools = busybox().unwrap_or_else(|reason| panic!("{reason}"));
        archive.file("bin/busybox", &fs::read(tools).expect("busybox can be read"));
        archive.file("init", format!("{PRELUDE}{script}\npoweroff -f\n").as_bytes());
        let mut order = String::new();
        for path in self.load_order() {
            let name = name(&path);
            archive.file(&format!("modules/{name}"), &self.module(&path));
            order += &format!("{name}\n");
        }
        archive.file("modules/order", order.as_bytes());
        archive.finish()
    }

    /// The files of [`MODULES`] and of what they need, in an order in which they load.
    fn load_order(&self) -> Vec<String> {
        let table = fs::read_to_string(self.modules.join("modules.dep")).expect("modules have a table");
        let needs: BTreeMap<&str, Vec<&str>> = table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (path, needs.split_whitespace().collect()))
            .collect();
        let mut order = Vec::new();
        for module in MODULES {
            // What is no file is built into the kernel.
            if let Some(path) = needs.keys().copied().find(|path| name(path) == module) {
                visit(path, &needs, &mut order);
            }
        }
        order
    }

    /// A module as the kernel takes it.
    fn module(&self, path: &str) -> Vec<u8> {
        let path = self.modules.join(path);
        let unpack = match path.extension().and_then(|end| end.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => return fs::read(&path).expect("a module can be read"),
        };
        let output = Command::new(unpack).arg("-dc").arg(&path).output();
        let output = output.unwrap_or_else(|error| panic!("{unpack} unpacks modules: {error}"));
        assert!(output.status.success(), "{unpack} {}", path.display());
        output.stdout
    }
}

fn visit(path: &str, needs: &BTreeMap<&str, Vec<&str>>, order: &mut Vec<String>) {
    if order.iter().any(|done| done == path) {
        return;
    }
    for need in needs.get(path).into_iter().flatten() {
        visit(need, needs, order);
    }
    order.push(path.to_owned());
}

/// The name of a module's file, as the kernel has it.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn busybox() -> Result<PathBuf, String> {
    let places = ["/usr/bin/busybox", "/bin/busybox", "/usr/sbin/busybox"];
    let found = places.map(PathBuf::from).into_iter().find(|path| path.is_file());
    found.ok_or_else(|| "no busybox; run qemu/setup.sh".into())
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

/// A cpio archive of the kind that the kernel unpacks (`newc`).
#[derive(Default)]
struct Archive {
    octets: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.octets
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = |length: usize| u32::try_from(length).expect("below 4 GiB");
        // Inode, mode, owner, group, links, time, size, device (4), length of the name with its end, checksum.
        let fields =
            [self.entries, mode, 0, 0, 1, 0, size(content.len()), 0, 0, 0, 0, size(name.len() + 1), 0];
        self.octets.extend_from_slice(b"070701");
        for field in fields {
            self.octets.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}
