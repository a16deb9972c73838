//! RAM disks for Linux guests: a cpio archive of the kind that the kernel unpacks (`newc`).

use crate::error::{Context, Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    octets: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory, and those above it, once.
    pub fn directory(&mut self, name: &str) {
        if name.is_empty() || !self.directories.insert(name.to_owned()) {
            return;
        }
        self.directory(name.rsplit_once('/').map_or("", |(above, _)| above));
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file that everybody may run.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.directory(name.rsplit_once('/').map_or("", |(above, _)| above));
        self.entry(name, 0o100_755, content);
    }

    /// Adds a copy of one of this machine's files.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).context(|| format!("cannot read {}", from.display()))?;
        self.file(name, &content);
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.octets
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // What does not fit its field makes an archive that the kernel refuses.
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
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

/// The busybox that goes on a RAM disk.
///
/// # Errors
/// There is none.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/usr/bin/busybox", "/bin/busybox", "/usr/sbin/busybox"];
    let found = places.map(PathBuf::from).into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Error::new("no busybox").advise("run qemu/setup.sh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("lib/a/one", b"1");
        archive.file("lib/a/two", b"22");
        archive.directory("lib");
        let octets = archive.finish();
        assert_eq!(octets.len() % 4, 0);
        let text = String::from_utf8(octets).unwrap();
        let names = ["lib\0", "lib/a\0", "lib/a/one\0", "lib/a/two\0", "TRAILER!!!\0"];
        let places: Vec<usize> = names.iter().filter_map(|name| text.find(name)).collect();
        assert!(places.len() == names.len() && places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), 5);
    }
}
