//! CPU time of QEMU, by thread: the one that runs the guest, and the rest, which moves packets between taps and queues.

use crate::error::{Context, Error, Result};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Of the guest's processor.
    pub vcpu: Duration,
    /// Of all other threads.
    pub rest: Duration,
    /// The guest's instructions; 0 if nobody counts them.
    pub instructions: u64,
}

impl Cpu {
    /// Reads what a process has used so far.
    ///
    /// # Errors
    /// There is no such process, or the kernel keeps no such figures.
    pub fn of(process: u32) -> Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{process}/task"));
        let cannot = || format!("cannot read {}", tasks.display());
        let mut cpu = Self::default();
        for task in fs::read_dir(&tasks).context(cannot)?.flatten() {
            // A thread may end between listing and reading.
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let time = on_cpu(&text).ok_or_else(|| Error::new(format!("{}: {text:?}", cannot())))?;
            *(if is_vcpu(&name) { &mut cpu.vcpu } else { &mut cpu.rest }) += time;
        }
        match cpu.vcpu.is_zero() {
            true => Err(Error::new("QEMU shows no thread of the guest's processor")),
            false => Ok(cpu),
        }
    }

    /// What was used since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            vcpu: self.vcpu.saturating_sub(before.vcpu),
            rest: self.rest.saturating_sub(before.rest),
            instructions: self.instructions.saturating_sub(before.instructions),
        }
    }

    /// Both together.
    pub fn total(self) -> Duration {
        self.vcpu + self.rest
    }
}

/// The first field of `schedstat`: nanoseconds on a processor.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// QEMU's name for the thread, with `debug-threads=on`: `CPU 0/KVM`, `CPU 0/TCG`, or `ALL CPUs/TCG`.
fn is_vcpu(name: &str) -> bool {
    let name = name.trim_end();
    name.contains("CPU") && (name.ends_with("/TCG") || name.ends_with("/KVM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_begins_with_the_time_on_a_processor() {
        assert_eq!(on_cpu("1234567 89 10\n"), Some(Duration::from_nanos(1_234_567)));
        for text in ["", "\n", "x 1 2", "-1 2 3", "99999999999999999999 0 0"] {
            assert_eq!(on_cpu(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_guests_thread_is_known_by_name() {
        for name in ["CPU 0/TCG\n", "CPU 0/KVM", "ALL CPUs/TCG\n"] {
            assert!(is_vcpu(name), "{name:?}");
        }
        for name in ["qemu-system-x86\n", "call_rcu", "worker", "IO mon_iothread", "/TCG"] {
            assert!(!is_vcpu(name), "{name:?}");
        }
    }

    #[test]
    fn differences_are_by_thread_and_never_negative() {
        let of = |vcpu, rest| Cpu {
            vcpu: Duration::from_nanos(vcpu),
            rest: Duration::from_nanos(rest),
            instructions: 0,
        };
        assert_eq!(of(9, 5).since(of(4, 6)), of(5, 0));
        assert_eq!(of(9, 5).total(), Duration::from_nanos(14));
    }
}
