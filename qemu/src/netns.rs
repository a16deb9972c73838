//! Network namespaces: Linux hosts at the ends of the appliance's ports. They need root.

use crate::error::{Context, Error, Result};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take, in seconds.
const PATIENCE: u32 = 60;

/// Why there can be no namespaces here, if so.
pub fn obstacle() -> Option<String> {
    if std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return Some("/dev/net/tun does not open; run as root on a host with tun".into());
    }
    let probe = Namespace::new("probe");
    let tap = probe.and_then(|namespace| namespace.run("ip tuntap add dev probe mode tap"));
    tap.err().map(|error| format!("no taps in network namespaces; run as root ({})", error.message()))
}

/// A network namespace, gone when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; its loopback is up.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{}-{number}-{role}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.run("ip link set lo up")?;
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

    /// A command to which the words to run in here are added; without input, and in a process group of its own, so
    /// that an interrupt from the terminal does not reach it.
    pub fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("ip");
        command.args(&self.wrapper()[1..]).process_group(0);
        prepare(&mut command);
        command
    }

    /// As [`Namespace::command`], ended when it takes too long.
    fn bounded(&self) -> Command {
        let mut command = self.command();
        command.args(["timeout", "--kill-after=1", &PATIENCE.to_string()]);
        command
    }

    /// Runs words in here, whatever comes of it: whether they succeeded, and what they said.
    ///
    /// # Errors
    /// They cannot be run.
    pub fn attempt(&self, words: &str) -> Result<(bool, String)> {
        let Output { status, stdout, stderr } = self
            .bounded()
            .args(words.split_whitespace())
            .output()
            .context(|| format!("cannot run {words}"))?;
        Ok((status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()))
    }

    /// Runs words in here; what they said.
    ///
    /// # Errors
    /// They fail.
    pub fn run(&self, words: &str) -> Result<String> {
        match self.attempt(words)? {
            (true, said) => Ok(said),
            (false, said) => Err(Error::new(format!("in {}: {words}: {}", self.name, said.trim_end()))),
        }
    }

    /// Runs a program with one argument, such as `sh -c SCRIPT`; what it said.
    ///
    /// # Errors
    /// It fails.
    pub fn script(&self, interpreter: &str, script: &str) -> Result<String> {
        output(self.bounded().args([interpreter, "-c", script]))
    }

    /// Starts a server in here and waits until it listens on `port`; what it says goes to the file `log`.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        kind: Transport,
        port: u16,
        log: &Path,
    ) -> Result<Service> {
        let open = || format!("cannot write {}", log.display());
        let file = std::fs::File::create(log).context(open)?;
        let errors = file.try_clone().context(open)?;
        let mut command = self.command();
        command.args(words).stdout(file).stderr(errors);
        let service = Service(command.spawn().context(|| "cannot run ip".to_owned())?);
        let sockets = match kind {
            Transport::Tcp => format!("ss -Hltn sport = :{port}"),
            Transport::Udp => format!("ss -Hlun sport = :{port}"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.run(&sockets)?.trim().is_empty() {
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(Error::new(format!("{command:?} does not listen: {said}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(service)
    }

    /// Moves a device from here to another namespace.
    ///
    /// # Errors
    /// There is no such device.
    pub fn give(&self, device: &str, to: &Self) -> Result<()> {
        self.run(&format!("ip link set dev {device} netns {}", to.name)).map(drop)
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
pub struct Service(pub Child);

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With tools that only root has in its path, and no input.
fn prepare(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").stdin(Stdio::null());
}

/// What a command said, or why it failed.
fn output(command: &mut Command) -> Result<String> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let words = words.join(" ");
    prepare(command);
    let output = command.output().context(|| format!("cannot run ip {words}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{words}: {said}{}", complaint.trim_end())))
}
