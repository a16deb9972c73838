//! Network namespaces: Linux hosts at the ends of the appliance's ports.
//!
//! They need root. Where they cannot be had, a test says so and is skipped, except in CI.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take.
const PATIENCE: u32 = 60;

/// Says on the terminal that a test does not run, past the capture of the test harness.
///
/// # Panics
/// In CI, where every test runs.
pub fn skip(test: &str, reason: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Why there can be no namespaces here, if so.
pub fn obstacle() -> Option<String> {
    if std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return Some("/dev/net/tun does not open; run as root on a host with tun".into());
    }
    let probe = Namespace::try_new("probe");
    let tap = probe.and_then(|namespace| namespace.try_run("ip tuntap add dev probe mode tap"));
    tap.err().map(|reason| format!("no taps in network namespaces; run as root ({reason})"))
}

/// A network namespace, gone when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; its loopback is up.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(role: &str) -> Self {
        Self::try_new(role).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn try_new(role: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{}-{number}-{role}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.try_run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands in front of a command to run it in here.
    pub fn wrapper(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).into()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(&self.wrapper()[1..]);
        command
    }

    /// Runs words in here, whatever comes of it: whether they succeeded, and what they said.
    ///
    /// # Panics
    /// If they cannot be run.
    pub fn attempt(&self, words: &str) -> (bool, String) {
        let mut command = self.command();
        command.args(["timeout", "--kill-after=1", &PATIENCE.to_string()]).args(words.split_whitespace());
        let output = prepared(&mut command).output().unwrap_or_else(|error| panic!("{words}: {error}"));
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn try_run(&self, words: &str) -> Result<String, String> {
        match self.attempt(words) {
            (true, said) => Ok(said),
            (false, said) => Err(format!("{words}: {said}")),
        }
    }

    /// Runs words in here; what they said.
    ///
    /// # Panics
    /// If they fail.
    pub fn run(&self, words: &str) -> String {
        self.try_run(words).unwrap_or_else(|said| panic!("{}: {said}", self.name))
    }

    /// Runs a Python program in here; what it said.
    ///
    /// # Panics
    /// If it fails.
    pub fn python(&self, program: &str) -> String {
        let mut command = self.command();
        command.args(["timeout", "--kill-after=1", &PATIENCE.to_string(), "python3", "-c", program]);
        output(&mut command).unwrap_or_else(|said| panic!("{}: {said}", self.name))
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
        let file = std::fs::File::create(log).expect("a file in a directory of ours");
        let errors = file.try_clone().expect("two handles of a file");
        let mut command = self.command();
        command.args(words);
        let child = prepared(&mut command).stdout(file).stderr(errors).spawn();
        let service = Service(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let sockets = match kind {
            Transport::Tcp => format!("ss -Hltn sport = :{port}"),
            Transport::Udp => format!("ss -Hlun sport = :{port}"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.run(&sockets).trim().is_empty() {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < deadline, "{command:?} does not listen: {}", said());
            thread::sleep(Duration::from_millis(50));
        }
        service
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
    pub fn give(&self, device: &str, to: &Self) {
        self.run(&format!("ip link set dev {device} netns {}", to.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing is left to do about one that somebody else removed.
        let _ = output(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// What a server listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With tools that only root has in its path, and no input.
fn prepared(command: &mut Command) -> &mut Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").stdin(Stdio::null())
}

/// What a command said, or why it failed.
fn output(command: &mut Command) -> Result<String, String> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let words = words.join(" ");
    let output = prepared(command).output().map_err(|error| format!("{words}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{words}: {said}{}", complaint.trim_end()))
}
