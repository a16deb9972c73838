//! What the image of a site needs of its VM's memory, by the image's own figures.

use crate::error::{Error, Result};
use crate::image::{Image, Site};
use firewall::contract::Contract;
use std::fmt::Write;

/// Memory of the VM in MiB when neither the site nor the command line says, unless its tables want more.
pub const DEFAULT: u32 = 32;

/// Octets that an image takes before one is built: what they take today and some more, the site's tables besides.
pub const IMAGE: u64 = 704 << 10;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn octets(contract: &Contract, image: u64) -> u64 {
    contract.memory(usize::try_from(image).unwrap_or(usize::MAX)) as u64
}

/// What the site wants, in MiB.
fn wanted(site: &'static rules::site::Site, image: u64) -> u32 {
    u32::try_from(octets(&Contract::of(site), image).div_ceil(MIB)).unwrap_or(u32::MAX)
}

/// What is wrong with the memory that a site declares, for an image that takes so many octets.
pub fn shortage(site: &'static rules::site::Site, image: u64) -> Option<String> {
    let (declared, wanted) = (site.memory?, wanted(site, image));
    let parts = || line(parts(site, image));
    (declared < wanted).then(|| format!("the site wants {wanted} MiB, not {declared}: {}", parts()))
}

/// What a site wants of its VM before there is an image, and the parts of it, in one line.
pub fn summary(site: &'static rules::site::Site) -> String {
    let wanted = wanted(site, IMAGE);
    let has = site.memory.unwrap_or(DEFAULT.max(wanted));
    format!("memory: needs {wanted} MiB of {has}: {}", line(parts(site, IMAGE)))
}

/// The parts that take something, in octets: the image that takes so many, then what it allocates.
fn parts(site: &'static rules::site::Site, image: u64) -> impl Iterator<Item = (&'static str, u64)> {
    let heap = Contract::of(site).parts().map(|(name, octets)| (name, octets as u64));
    std::iter::once(("image and stacks", image)).chain(heap).filter(|(_, octets)| *octets > 0)
}

fn line(parts: impl Iterator<Item = (&'static str, u64)>) -> String {
    let parts: Vec<_> = parts.map(|(name, octets)| format!("{name} {} KiB", kib(octets))).collect();
    parts.join(", ")
}

/// Memory for the VM in MiB: what was asked for, else what the site declares, else what is usual and enough.
///
/// # Errors
/// What was asked for is less than the site wants.
pub fn of_vm(site: &Site, asked: Option<u32>) -> Result<u32> {
    let wanted = wanted(site.compiled, IMAGE);
    match asked {
        Some(asked) if asked < wanted => {
            Err(Error::usage(format!("the site wants {wanted} MiB, not {asked}"))
                .advise(format!("give the VM more (--memory {wanted}M), or the site fewer sessions")))
        }
        Some(asked) => Ok(asked),
        None => Ok(site.plan.memory.unwrap_or(DEFAULT.max(wanted))),
    }
}

/// The contract of an image with its parts, in lines.
///
/// # Errors
/// The site declares less than its image wants.
pub fn describe(site: &Site, image: &Image) -> Result<String> {
    if let Some(shortage) = shortage(site.compiled, image.loaded) {
        return Err(Error::new(shortage).advise("raise `memory` in weir.toml, or lower `sessions`"));
    }
    let mut text = format!("{} MiB wanted", wanted(site.compiled, image.loaded));
    if let Some(declared) = site.plan.memory {
        let _ = write!(text, ", {declared} declared");
    }
    for (name, octets) in parts(site.compiled, image.loaded) {
        // A string takes everything.
        let _ = write!(text, "\n          {:>7} KiB  {name}", kib(octets));
    }
    Ok(text)
}

fn kib(octets: u64) -> u64 {
    octets.div_ceil(KIB)
}
