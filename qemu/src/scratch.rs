//! A private directory that goes away with its owner.

use crate::error::{Context, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The longest directory name that leaves room for a socket's name: `sun_path` holds 108 octets.
const DIRECTORY_MAX: usize = 80;

/// A directory only its owner may enter; removed with its contents on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one below the system's temporary directory (or /tmp, when that name is too long for sockets).
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() > DIRECTORY_MAX {
            base = PathBuf::from("/tmp");
        }
        let builder = {
            let mut builder = DirBuilder::new();
            builder.mode(0o700);
            builder
        };
        // A name left behind by a dead process of the same id is stepped over.
        for _ in 0..1000 {
            let path = base.join(format!("weir-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match builder.create(&path) {
                Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    return made
                        .map(|()| Self { path: path.clone() })
                        .context(|| format!("cannot make {}", path.display()));
                }
            }
        }
        Err(crate::error::Error::new(format!("no free directory name in {}", base.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is left to do about a directory that somebody else removed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_unique_and_gone_after_drop() {
        let (one, two) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        assert_ne!(one.path(), two.path());
        assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = one.path().to_owned();
        fs::write(one.join("file"), "x").unwrap();
        drop(one);
        assert!(!path.exists());
        assert!(two.path().exists());
    }
}
