//! QEMU's own control: devices added and removed, links set, while the VM runs (QMP, a line of JSON each way).

use crate::error::{Context, Error, Result};
use crate::scratch::Scratch;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a socket that is not there yet is tried.
const NAP: Duration = Duration::from_millis(10);

/// A place for QEMU's control socket, before QEMU runs.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    _scratch: Scratch,
}

impl Socket {
    /// A fresh path.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        Ok(Self { path: scratch.join("qmp"), _scratch: scratch })
    }

    /// The arguments of QEMU that make it listen there.
    pub fn arguments(&self) -> [String; 2] {
        arguments(&self.path)
    }

    /// Connects, once QEMU listens.
    ///
    /// # Errors
    /// It does not in time, or does not greet as it should.
    pub fn connect(&self, timeout: Duration) -> Result<Qmp> {
        let deadline = Instant::now() + timeout;
        loop {
            match UnixStream::connect(&self.path) {
                Ok(stream) => return Qmp::greet(stream),
                Err(_) if Instant::now() < deadline => thread::sleep(NAP),
                Err(cause) => {
                    return Err(Error::new(format!(
                        "QEMU's control at {} does not answer: {cause}",
                        self.path.display()
                    )));
                }
            }
        }
    }
}

/// The arguments of QEMU that make it listen for control at `path`.
pub fn arguments(path: &Path) -> [String; 2] {
    let path = path.display().to_string().replace(',', ",,");
    ["-qmp".to_owned(), format!("unix:{path},server=on,wait=off")]
}

/// A connection to a running QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    /// What was read of the next line.
    partial: String,
    events: VecDeque<Value>,
}

impl Qmp {
    fn greet(stream: UnixStream) -> Result<Self> {
        let context = || "cannot talk to QEMU's control".to_owned();
        let lines = BufReader::new(stream.try_clone().context(context)?);
        let mut qmp = Self { stream, lines, partial: String::new(), events: VecDeque::new() };
        let greeting = qmp.read(Instant::now() + PATIENCE)?;
        if greeting.is_none_or(|greeting| greeting.get("QMP").is_none()) {
            return Err(Error::new("QEMU's control does not greet"));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// The next message, unless the time is up.
    fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).context(|| "cannot wait for QEMU's control".to_owned())?;
        match self.lines.read_line(&mut self.partial) {
            Ok(0) => Err(Error::new("QEMU closed its control")),
            Ok(_) => {
                let line = std::mem::take(&mut self.partial);
                serde_json::from_str(&line).map(Some).context(|| format!("QEMU's control says {line:?}"))
            }
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(cause) => Err(Error::new(format!("QEMU's control broke: {cause}"))),
        }
    }

    /// Has QEMU do something; what it returns.
    ///
    /// # Errors
    /// It refuses, or does not answer in time.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.write_all(text.as_bytes()).context(|| format!("cannot tell QEMU to {command}"))?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(mut message) = self.read(deadline)? {
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(Error::new(format!("QEMU refuses to {command}: {why}")));
            }
            self.events.push_back(message);
        }
        Err(Error::new(format!("QEMU does not answer {command}")))
    }

    /// Waits for an event with this name and, in its data, this text; those before it are forgotten.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn event(&mut self, name: &str, text: &str, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => Some(event),
                None if Instant::now() < deadline => self.read(deadline)?,
                None => return Err(Error::new(format!("QEMU did not tell of {name} {text}"))),
            };
            let is_it = |event: &Value| {
                event.get("event").is_some_and(|it| it == name)
                    && event.get("data").is_some_and(|data| data.to_string().contains(text))
            };
            if let Some(event) = event.filter(is_it) {
                return Ok(event);
            }
        }
    }

    /// Adds a virtio-net device behind a root port, with a wire to whoever listens at `path`.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn plug(&mut self, id: &str, bus: &str, mac: &str, path: &Path) -> Result<()> {
        let wire = json!({ "type": "unix", "path": path });
        let netdev = format!("wire-{id}");
        self.execute("netdev_add", json!({ "type": "stream", "id": netdev, "server": false, "addr": wire }))?;
        let device = json!({
            "driver": "virtio-net-pci", "id": id, "bus": bus, "netdev": netdev, "mac": mac, "romfile": "",
        });
        self.execute("device_add", device).map(drop)
    }

    /// Asks the guest to let go of a device and waits until it has; how long that took.
    ///
    /// # Errors
    /// QEMU refuses, or the guest does not let go in time.
    pub fn let_go(&mut self, id: &str, timeout: Duration) -> Result<Duration> {
        let asked = Instant::now();
        self.execute("device_del", json!({ "id": id }))?;
        self.event("DEVICE_DELETED", &format!("\"device\":\"{id}\""), timeout)?;
        Ok(asked.elapsed())
    }

    /// Takes a device away without asking the guest.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn tear_out(&mut self, id: &str) -> Result<()> {
        let path = format!("/machine/peripheral/{id}");
        self.execute("qom-set", json!({ "path": path, "property": "realized", "value": false })).map(drop)
    }

    /// [Lets go](Self::let_go) of a device that was [plugged](Self::plug), and takes its wire away.
    ///
    /// # Errors
    /// As there.
    pub fn unplug(&mut self, id: &str, timeout: Duration) -> Result<Duration> {
        let took = self.let_go(id, timeout)?;
        self.execute("netdev_del", json!({ "id": format!("wire-{id}") }))?;
        Ok(took)
    }

    /// Takes carrier from a device, or gives it back.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn set_link(&mut self, name: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({ "name": name, "up": up })).map(drop)
    }
}
