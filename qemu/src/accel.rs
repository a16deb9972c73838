//! KVM or emulation.

use crate::error::{Error, Result};
use std::fs;
use std::io;

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the host's processor.
    Kvm,
    /// By translation, everywhere, slower.
    Tcg,
}

impl Accel {
    /// The word QEMU uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// KVM where it is usable, else TCG.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// Chooses for this host.
///
/// # Errors
/// KVM was asked for and /dev/kvm does not open.
pub fn choose(choice: Choice) -> Result<Accel> {
    let device = || fs::File::options().read(true).write(true).open("/dev/kvm").map(drop);
    let processor = || fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    judge(choice, device, processor)
}

/// The decision of [`choose`], from what opening /dev/kvm gave and the text of /proc/cpuinfo.
///
/// A /dev/kvm that opens is not enough: without the processor's own virtualisation flags, as in some containers and
/// nested clouds, guests in long mode hang under it.
///
/// # Errors
/// KVM was asked for and the device does not open.
pub fn judge(
    choice: Choice,
    device: impl Fn() -> io::Result<()>,
    cpuinfo: impl Fn() -> String,
) -> Result<Accel> {
    match choice {
        Choice::Tcg => Ok(Accel::Tcg),
        Choice::Auto if has_virtualisation(&cpuinfo()) && device().is_ok() => Ok(Accel::Kvm),
        Choice::Auto => Ok(Accel::Tcg),
        Choice::Kvm => device().map(|()| Accel::Kvm).map_err(|cause| {
            Error::new(format!("KVM is not usable: /dev/kvm: {cause}"))
                .advise("join the group that owns /dev/kvm (often `kvm`), load kvm_intel or kvm_amd, or use --accel tcg")
        }),
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nflags\t\t: fpu vmx sse2\n";
    const PLAIN: &str = "processor\t: 0\nmodel name\t: vmx lookalike\nflags\t\t: fpu sse2 vmx_like\n";

    fn opens() -> io::Result<()> {
        Ok(())
    }

    fn missing() -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn auto_takes_kvm_only_with_device_and_flags() {
        assert_eq!(judge(Choice::Auto, opens, || INTEL.into()), Ok(Accel::Kvm));
        assert_eq!(judge(Choice::Auto, opens, || INTEL.replace("vmx", "svm")), Ok(Accel::Kvm));
        assert_eq!(judge(Choice::Auto, opens, || PLAIN.into()), Ok(Accel::Tcg));
        assert_eq!(judge(Choice::Auto, missing, || INTEL.into()), Ok(Accel::Tcg));
    }

    #[test]
    fn asking_for_kvm_overrides_the_flags_but_not_a_missing_device() {
        assert_eq!(judge(Choice::Kvm, opens, || PLAIN.into()), Ok(Accel::Kvm));
        let refused = judge(Choice::Kvm, missing, || INTEL.into()).unwrap_err().to_string();
        assert!(refused.contains("--accel tcg"), "{refused}");
    }

    #[test]
    fn asking_for_tcg_looks_at_nothing() {
        assert_eq!(judge(Choice::Tcg, || panic!("looked"), || panic!("looked")), Ok(Accel::Tcg));
    }
}
