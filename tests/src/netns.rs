//! Network namespaces: Linux hosts at the ends of the appliance's ports.
//!
//! They need root. Where they cannot be had, a test says so and is skipped, except in CI. Here, what does not work
//! fails the test.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

pub use qemu::netns::{Service, Transport, obstacle};

/// Says on the terminal that a test does not run, past the capture of the test harness.
///
/// # Panics
/// In CI, where every test runs.
pub fn skip(test: &str, reason: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Says on the terminal that a test does not run for want of a tool that `qemu/setup.sh` does not install.
pub fn lacks(test: &str, tool: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: there is no {tool}");
}

/// A network namespace, gone when it is dropped.
#[derive(Debug)]
pub struct Namespace(qemu::netns::Namespace);

impl Namespace {
    /// Makes one; its loopback is up.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(role: &str) -> Self {
        Self(good(qemu::netns::Namespace::new(role)))
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// What stands in front of a command to run it in here.
    pub fn wrapper(&self) -> Vec<String> {
        self.0.wrapper()
    }

    /// Runs words in here, whatever comes of it: whether they succeeded, and what they said.
    ///
    /// # Panics
    /// If they cannot be run.
    pub fn attempt(&self, words: &str) -> (bool, String) {
        good(self.0.attempt(words))
    }

    /// Runs words in here; what they said.
    ///
    /// # Panics
    /// If they fail.
    pub fn run(&self, words: &str) -> String {
        good(self.0.run(words))
    }

    /// Runs a Python program in here; what it said.
    ///
    /// # Panics
    /// If it fails.
    pub fn python(&self, program: &str) -> String {
        good(self.0.script("python3", program))
    }

    /// Starts a server in here and waits until it listens on `port`; what it says goes to the file `log`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn serve<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        kind: Transport,
        port: u16,
        log: &Path,
    ) -> Service {
        good(self.0.serve(words, kind, port, log))
    }

    /// A counter of /proc/net/snmp, such as `Tcp` `InCsumErrors`.
    ///
    /// # Panics
    /// If there is none.
    pub fn counter(&self, protocol: &str, name: &str) -> u64 {
        let text = self.run("cat /proc/net/snmp");
        let mut rows = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let mut row = || rows.next().unwrap_or_default().split_whitespace();
        let (names, values) = (row(), row());
        let value =
            names.zip(values).find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {protocol} {name} in {text}"))
    }

    /// Moves a device from here to another namespace.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn give(&self, device: &str, to: &Self) {
        good(self.0.give(device, &to.0));
    }
}

fn good<T>(result: qemu::error::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
