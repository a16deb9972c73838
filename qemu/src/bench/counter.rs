//! The guest's instructions, counted by a plugin of QEMU's TCG: they repeat within a few percent on a machine that is
//! busy, where times do not.

use crate::command::Config;
use crate::error::{Context, Error, Result};
use crate::image;
use crate::scratch::Scratch;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What stands between the plugin's path and the file that it counts into.
const OUT: &str = ",out=";

/// The words that make QEMU count.
///
/// # Errors
/// There is no C compiler, or it does not like the plugin.
pub fn arguments(scratch: &Scratch) -> Result<[String; 2]> {
    let source = image::workspace()?.join("qemu/bench/insn.c");
    let plugin = scratch.join("insn.so");
    let mut command = Command::new("gcc");
    let status = command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&plugin).arg(&source).status();
    if !status.context(|| "cannot run gcc".to_owned())?.success() {
        return Err(Error::new(format!("gcc does not compile {}", source.display())));
    }
    Ok(["-plugin".to_owned(), format!("{}{OUT}{}", plugin.display(), scratch.join("instructions").display())])
}

/// The file that a VM's instructions are counted into, if they are.
pub fn file(config: &Config) -> Option<PathBuf> {
    config.extra.iter().find_map(|word| word.split_once(OUT)).map(|(_, path)| path.into())
}

/// Instructions so far.
///
/// # Errors
/// The file is not there, or too short.
pub fn read(file: &PathBuf) -> Result<u64> {
    let octets = fs::read(file).context(|| format!("cannot read {}", file.display()))?;
    let octets = octets.first_chunk().ok_or_else(|| Error::new("QEMU counts no instructions"))?;
    Ok(u64::from_le_bytes(*octets))
}
