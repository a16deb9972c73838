//! Linux kernels for guests, with the modules they need.

use crate::error::{Context, Error, Result};
use crate::image;
use crate::ramdisk::{Archive, busybox};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What QEMU boots.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The one that `qemu/setup.sh` unpacks below `target/client`, or else the machine's own.
    ///
    /// # Errors
    /// There is none, or no static busybox to go with it.
    pub fn find() -> Result<Self> {
        let unpacked = image::workspace()?.join("target").join("client");
        busybox()?;
        [unpacked.as_path(), Path::new("/")]
            .into_iter()
            .find_map(Self::below)
            .ok_or_else(|| Error::new("no client kernel").advise("run qemu/setup.sh"))
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

    /// A RAM disk with busybox, these modules below `modules/` with their `modules/order`, and `init`.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub fn ram_disk(&self, modules: &[&str], init: &str) -> Result<Archive> {
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "modules", "proc", "sys"] {
            archive.directory(directory);
        }
        archive.copy("bin/busybox", &busybox()?)?;
        archive.file("init", init.as_bytes());
        let mut order = String::new();
        for path in self.load_order(modules)? {
            let name = name(&path);
            archive.file(&format!("modules/{name}"), &self.module(&path)?);
            order += &format!("{name}\n");
        }
        archive.file("modules/order", order.as_bytes());
        Ok(archive)
    }

    fn load_order(&self, modules: &[&str]) -> Result<Vec<String>> {
        let path = self.modules.join("modules.dep");
        let table = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        Ok(load_order(&table, modules))
    }

    /// A module as the kernel takes it.
    fn module(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.modules.join(path);
        let unpack = match path.extension().and_then(|end| end.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => return fs::read(&path).context(|| format!("cannot read {}", path.display())),
        };
        let output = Command::new(unpack).arg("-dc").arg(&path).output();
        let output = output.context(|| format!("cannot run {unpack}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Error::new(format!("{unpack} does not unpack {}", path.display())))
    }
}

/// The files of these modules and of what they need, by the text of `modules.dep`, in an order in which they load.
/// What is no file is built into the kernel.
pub fn load_order(table: &str, modules: &[&str]) -> Vec<String> {
    let needs: BTreeMap<&str, Vec<&str>> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let mut order = Vec::new();
    for module in modules {
        if let Some(path) = needs.keys().copied().find(|path| name(path) == *module) {
            visit(path, &needs, &mut order);
        }
    }
    order
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let table = "kernel/a/virtio.ko:\nkernel/b/net-card.ko.xz: kernel/a/virtio.ko\nkernel/other.ko:\nkernel/c/filter.ko: kernel/b/net-card.ko.xz kernel/a/virtio.ko\n";
        let order = load_order(table, &["filter", "net_card", "built_in"]);
        assert_eq!(order, ["kernel/a/virtio.ko", "kernel/b/net-card.ko.xz", "kernel/c/filter.ko"]);
    }
}
