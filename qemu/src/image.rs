//! From a site to an image that boots.

use crate::elf;
use crate::error::{Context, Error, Result};
use crate::memory;
use crate::plan::{Plan, fnv};
use rules_compiler::{Compiled, Diagnostics};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that an outer cargo or rustc sets for itself and that would change the image's build.
const INHERITED: [&str; 3] = ["CARGO", "RUST", "WEIR_SITE"];

/// Of these, what the user may have set and the image's build has to follow.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "RUSTUP_",
    "RUSTC_WRAPPER",
];

/// A site that compiles.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// Its ports.
    pub plan: Plan,
    /// The compiled site itself, with its policy.
    pub compiled: &'static rules::site::Site,
    /// One line about the policy: rules, sets, size, steps.
    pub summary: String,
    /// Rendered warnings; empty when there are none.
    pub warnings: String,
}

impl Site {
    /// Compiles the site in `directory`.
    ///
    /// # Errors
    /// The directory is missing, or the site has errors: all of them, rendered with their lines.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_or_default(Some(directory), false)
    }

    /// Opens `directory`, or the default site of the workspace.
    ///
    /// # Errors
    /// As [`Site::open`]; or there is no workspace to have a default; or there are warnings, and they are denied.
    pub fn open_or_default(directory: Option<&Path>, denies_warnings: bool) -> Result<Self> {
        let directory = locate(directory)?;
        let compiled = compile(&directory, denies_warnings)?;
        Ok(Self::of(compiled, directory))
    }

    /// The site that was compiled from `directory`.
    pub fn of(compiled: Compiled, directory: PathBuf) -> Self {
        let (summary, warnings) = (compiled.summary(), warnings(&compiled));
        let compiled = compiled.leak();
        let plan = Plan::of(compiled, &directory.to_string_lossy());
        Self { directory, plan, compiled, summary, warnings }
    }
}

/// The directory of a site, absolute: this one, or the workspace's default site.
///
/// # Errors
/// There is none.
pub fn locate(directory: Option<&Path>) -> Result<PathBuf> {
    let directory = match directory {
        Some(directory) => directory.to_owned(),
        None => workspace()?.join("firewall").join("site"),
    };
    fs::canonicalize(&directory).map_err(|cause| {
        Error::new(format!("no site at {}: {cause}", directory.display()))
            .advise("a site is a directory with weir.toml and rules.nft; the default one is firewall/site")
    })
}

/// Compiles the site in `directory`.
///
/// # Errors
/// It has errors, or warnings that are denied: all of them, rendered with their lines.
pub fn compile(directory: &Path, denies_warnings: bool) -> Result<Compiled> {
    let refused = |diagnostics: Diagnostics, what: &str| {
        let count = diagnostics.errors();
        let noun = if count == 1 { what.to_owned() } else { format!("{what}s") };
        Error::diagnosed(
            &diagnostics.render(std::io::stderr().is_terminal()),
            format!("the site {} has {count} {noun}", directory.display()),
        )
    };
    let compiled = findings(directory).map_err(|told| refused(told, "error"))?;
    if denies_warnings {
        return compiled.deny_warnings().map_err(|told| refused(told, "denied warning"));
    }
    Ok(compiled)
}

/// Compiles the site in `directory`, and compares the memory that it declares with what its tables take.
///
/// # Errors
/// It has errors.
pub fn findings(directory: &Path) -> std::result::Result<Compiled, Diagnostics> {
    let compiled = rules_compiler::compile(directory)?;
    match memory::shortage(compiled.clone().leak(), memory::IMAGE) {
        Some(shortage) => Err(compiled.refuse_memory(shortage)),
        None => Ok(compiled),
    }
}

/// The warnings about a site, rendered; empty when there are none.
pub fn warnings(compiled: &Compiled) -> String {
    match compiled.warnings().warnings() {
        0 => String::new(),
        _ => compiled.warnings().render(std::io::stderr().is_terminal()),
    }
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What boots: without symbols.
    pub elf: PathBuf,
    /// The same with symbols and lines, for backtraces. The next build of any site replaces it.
    pub symbols: PathBuf,
    /// The size of `elf` in octets.
    pub octets: u64,
    /// Octets of memory that it takes, its stacks included.
    pub loaded: u64,
}

/// The root of the workspace: where this launcher was built, or else the directories above the current one.
///
/// # Errors
/// There is none.
pub fn workspace() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let here = env::current_dir().unwrap_or_default();
    let candidates = built.into_iter().chain(here.ancestors().map(Path::to_owned));
    candidates
        .filter(|root| root.join("Cargo.toml").is_file())
        .find(|root| root.join("firewall").join("Cargo.toml").is_file())
        .ok_or_else(|| {
            Error::new("cannot find Weir's sources to build an image from")
                .advise("run weir inside its source tree")
        })
}

/// Builds the image of a site, in a cargo run of its own, and shows cargo's progress.
///
/// Several processes may build at once, different sites too: they take turns, and each gets a file of its own.
///
/// # Errors
/// cargo is missing or fails (it has said why on stderr), or the result cannot be written.
pub fn build(site: &Site) -> Result<Image> {
    build_with(site, "image")
}

/// Builds the wire that measurements compare an image with: the same ports, and nothing between them.
///
/// # Errors
/// As [`build`].
pub fn build_wire(site: &Site) -> Result<Image> {
    build_with(site, "wire")
}

fn build_with(site: &Site, feature: &str) -> Result<Image> {
    let root = workspace()?;
    let target = root.join("target").join("image");
    fs::create_dir_all(&target).context(|| format!("cannot make {}", target.display()))?;
    let lock = File::create(target.join(".weir-lock"))
        .context(|| format!("cannot write to {}", target.display()))?;
    lock.lock().context(|| "cannot wait for another build".to_owned())?;
    run_cargo(&root, &target, site, feature)?;
    let symbols = target.join("image").join("weir-image");
    let name = match feature {
        "wire" => "wire.elf".to_owned(),
        _ => format!("weir-{:016x}.elf", fnv(site.directory.as_os_str().as_encoded_bytes())),
    };
    let copy = target.join(name);
    let (octets, loaded) = write_stripped(&symbols, &copy)?;
    Ok(Image { elf: copy, symbols, octets, loaded })
}

fn run_cargo(root: &Path, target: &Path, site: &Site, feature: &str) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args([
            "build",
            "-p",
            "firewall",
            "--bin",
            "weir-image",
            "--features",
            feature,
            "--profile",
            "image",
            "--target-dir",
        ])
        .arg(target)
        .current_dir(root)
        .stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| is_inherited(name)) {
        command.env_remove(name);
    }
    // Backtraces of the image walk frame pointers.
    command.env("RUSTFLAGS", "-C force-frame-pointers=yes").env("WEIR_SITE", &site.directory);
    let status = command.status().map_err(|cause| {
        Error::new(format!("cannot run {}: {cause}", OsString::from(&cargo).to_string_lossy()))
            .advise("install Rust; qemu/setup.sh says how")
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("the image of {} was not built ({status})", site.directory.display()))
        .advise("cargo said why, above"))
}

/// Whether a variable must not reach the image's build.
fn is_inherited(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    INHERITED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

/// The octets of the stripped copy, and of memory that it takes.
fn write_stripped(from: &Path, to: &Path) -> Result<(u64, u64)> {
    let elf = fs::read(from).context(|| format!("cannot read {}", from.display()))?;
    let (stripped, loaded) = elf::strip(&elf)
        .zip(elf::loaded(&elf))
        .ok_or_else(|| Error::new(format!("{} is not the ELF file it should be", from.display())))?;
    write_whole(to, &stripped)?;
    Ok((stripped.len() as u64, loaded))
}

/// Writes the ELF32 copy of an image.
///
/// # Errors
/// The image cannot be read, does not fit ELF32, or the copy cannot be written.
pub fn write_elf32(image: &Path, to: &Path) -> Result<()> {
    let elf = fs::read(image).context(|| format!("cannot read {}", image.display()))?;
    let copy = elf::to_elf32(&elf)
        .ok_or_else(|| Error::new(format!("{} does not fit an ELF32 file", image.display())))?;
    write_whole(to, &copy)
}

/// Replaces a file at once: a VM that is starting from the old one reads it to its end.
fn write_whole(to: &Path, octets: &[u8]) -> Result<()> {
    let mut part = to.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    fs::write(&part, octets)
        .and_then(|()| fs::rename(&part, to))
        .context(|| format!("cannot write {}", to.display()))
}

/// Copies a built image to where the user wants it.
///
/// # Errors
/// It cannot be read or written.
pub fn install(image: &Image, to: &Path) -> Result<()> {
    let octets = fs::read(&image.elf).context(|| format!("cannot read {}", image.elf.display()))?;
    write_whole(to, &octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_shown_or_denied() {
        let site = |denies| Site::open_or_default(Some(&workspace().unwrap().join("tests/site")), denies);
        assert!(site(true).is_ok_and(|site| site.warnings.is_empty()));
        let directory = env::temp_dir().join(format!("weir-warned-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::copy(workspace().unwrap().join("tests/site/weir.toml"), directory.join("weir.toml")).unwrap();
        fs::write(
            directory.join("rules.nft"),
            "# weir: allow open\ntable ip t {\n  set s { type ipv4_addr; }\n}\n",
        )
        .unwrap();
        let warned = Site::open_or_default(Some(&directory), false);
        let denied = Site::open_or_default(Some(&directory), true);
        fs::remove_dir_all(&directory).unwrap();
        assert!(warned.unwrap().warnings.contains("warning: set \"s\" is never used"));
        let error = denied.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let said = error.to_string();
        assert!(
            said.contains("error: set \"s\" is never used") && said.contains("2 denied warnings"),
            "{said}"
        );
    }

    #[test]
    fn only_the_users_own_settings_reach_the_build() {
        for name in [
            "CARGO_TARGET_DIR",
            "CARGO_MANIFEST_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "CARGO",
            "WEIR_SITE",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_BUILD_TARGET",
        ] {
            assert!(is_inherited(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "RUSTUP_TOOLCHAIN",
            "PATH",
            "HOME",
            "CARGO_REGISTRIES_X_INDEX",
            "RUSTC_WRAPPER",
        ] {
            assert!(!is_inherited(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace().unwrap().join("firewall/site/weir.toml").is_file());
    }

    #[test]
    fn a_missing_site_says_what_a_site_is() {
        let error = Site::open(Path::new("/nonexistent/site")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/site") && error.contains("weir.toml"), "{error}");
    }
}
