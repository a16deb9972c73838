//! A site that is looked at again each time that one of its files changes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// How soon an interrupt is noticed.
const TICK: Duration = Duration::from_millis(50);

/// Directories below the site that are looked into for files that are not there yet.
const DIRECTORIES_MAX: usize = 256;

/// When each of some files was written last, and how long it is; `None` for one that is not there.
type Stamps = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

/// Shows what `look` says about the site in `directory`, and again when it may say something else, until interrupted.
pub fn run(directory: &Path, interrupted: &AtomicBool, mut look: impl FnMut() -> String) {
    let mut watch = Watch::new(directory);
    let mut shown = None;
    loop {
        let changed = watch.changed();
        if changed != Change::None {
            let text = look();
            // A directory changes for files that are not the site's, too.
            if changed == Change::Files || shown.as_ref() != Some(&text) {
                // Nobody looks any more when this fails.
                let mut out = io::stdout().lock();
                if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
                    return;
                }
                shown = Some(text);
            }
        }
        for _ in 0..INTERVAL.as_millis() / TICK.as_millis() {
            if interrupted.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(TICK);
        }
    }
}

/// What is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// Names in a directory.
    Directories,
    /// A file of the site.
    Files,
}

struct Watch<'a> {
    directory: &'a Path,
    files: Option<Stamps>,
    directories: Option<Stamps>,
}

impl<'a> Watch<'a> {
    fn new(directory: &'a Path) -> Self {
        Self { directory, files: None, directories: None }
    }

    /// What changed since this was last asked; at first everything has.
    fn changed(&mut self) -> Change {
        let directories = Some(stamps(directories(self.directory)));
        let seen = self.files.as_ref().map(|files| stamps(files.keys().cloned().collect()));
        let change = if self.files.is_none() || seen != self.files {
            Change::Files
        } else if directories != self.directories {
            Change::Directories
        } else {
            return Change::None;
        };
        // Stamps are taken ahead of the look: what changes meanwhile is seen next time.
        let files = rules_compiler::files(self.directory);
        self.files = Some(stamps(files.into_iter().filter(|file| !file.is_dir()).collect()));
        self.directories = directories;
        change
    }
}

fn stamps(paths: Vec<PathBuf>) -> Stamps {
    let stamp = |path: &Path| {
        let data = fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// The directory of a site and those below it, as many as may be.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let Ok(entries) = fs::read_dir(directory) else { continue };
        // Links are not followed: they may lead round in circles.
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let room = DIRECTORIES_MAX.saturating_sub(found.len());
        found.extend(below.map(|entry| entry.path()).take(room));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const RULES: &str = "include \"more/*.nft\"\ninclude \"one.nft\"\n";

    #[test]
    fn files_that_are_included_or_could_be_are_watched() {
        let scratch = Scratch::new().unwrap();
        let site = scratch.join("site");
        let write = |file: &str, text: &str| fs::write(site.join(file), text).unwrap();
        fs::create_dir_all(site.join("more")).unwrap();
        write("weir.toml", "");
        write("rules.nft", RULES);
        write("more/a.nft", "# a\n");
        let mut watch = Watch::new(&site);
        assert_eq!((watch.changed(), watch.changed()), (Change::Files, Change::None));
        write("more/a.nft", "# longer\n");
        assert_eq!((watch.changed(), watch.changed()), (Change::Files, Change::None));
        write("weir.toml", "memory = \"32M\"\n");
        assert_eq!((watch.changed(), watch.changed()), (Change::Files, Change::None));
        // It was missing, and is watched from now on.
        write("one.nft", "# one\n");
        assert_eq!((watch.changed(), watch.changed()), (Change::Directories, Change::None));
        write("one.nft", "# first\n");
        assert_eq!((watch.changed(), watch.changed()), (Change::Files, Change::None));
        fs::remove_file(site.join("rules.nft")).unwrap();
        assert_eq!((watch.changed(), watch.changed()), (Change::Files, Change::None));
        write("rules.nft", RULES);
        assert_eq!(watch.changed(), Change::Files);
    }
}
