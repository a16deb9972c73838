//! The networks of a measurement: a client, the firewall, and outside a server.
//!
//! ```text
//! client 10.0.1.2/24 --tap-- 10.0.1.1 [firewall] 192.0.2.2 --tap-- 192.0.2.1/24 outside, and 198.51.100.1
//! ```
//!
//! QEMU makes its taps in a namespace of its own; they are given to the neighbours while the guest boots.

use super::counter;
use super::meter::Cpu;
use super::process::{Process, Stop};
use crate::command::Config;
use crate::error::{Context, Error, Result};
use crate::netns::Namespace;
use crate::scratch::Scratch;
use crate::vm::Vm;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The server outside.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The names of the taps.
pub const UPLINK: &str = "uplink";
pub const CLIENT: &str = "client";

/// Time between two echo requests while a firewall boots, in milliseconds.
const PROBE_MS: u64 = 5;

/// How long QEMU may take to make its taps.
const ATTACHED: Duration = Duration::from_secs(10);

/// An address that does not answer ARP yet is asked again after 20 ms, not after a second: what is measured is the
/// firewall.
const NEIGHBOURS: &str = "ntable change name arp_cache dev";

/// A firewall at work between its neighbours.
#[derive(Debug)]
pub struct Lab<'a> {
    vm: Vm,
    /// The namespace of the client.
    pub client: Namespace,
    /// The namespace of the server.
    pub outside: Namespace,
    _host: Namespace,
    /// For files.
    pub scratch: Scratch,
    /// From the start of QEMU to the first echo reply through the NAT.
    pub boot: Duration,
    /// Ends every wait.
    pub stop: Stop<'a>,
    counter: Option<PathBuf>,
}

impl<'a> Lab<'a> {
    /// Boots a firewall whose taps are [`UPLINK`] and [`CLIENT`], and waits until it forwards.
    ///
    /// # Errors
    /// It does not forward in time, with the end of its console; or there are no namespaces.
    pub fn boot(config: &Config, timeout: Duration, stop: Stop<'a>) -> Result<Self> {
        stop.check()?;
        let scratch = Scratch::new()?;
        let (host, client, outside) =
            (Namespace::new("host")?, Namespace::new("client")?, Namespace::new("outside")?);
        settle(
            &client,
            &[
                "net.ipv4.ping_group_range=0 0",
                "net.ipv4.ip_local_port_range=1024 65000",
                "net.ipv4.tcp_tw_reuse=1",
            ],
        )?;
        settle(&outside, &["net.core.somaxconn=8192", "net.ipv4.tcp_max_syn_backlog=8192"])?;
        let batches = Batches::write(&scratch, &host, &client, &outside)?;
        let millis = timeout.as_millis();
        let mut first = Process::agent(&client, &format!("first-echo {SERVER} {PROBE_MS} {millis}"), stop)?;
        let started = Instant::now();
        let vm = Vm::start(&Config { wrapper: host.wrapper(), ..config.clone() })?;
        wait_for_taps(&vm, stop)?;
        batches.run()?;
        let answered = first.line(timeout + Duration::from_secs(1));
        let boot = started.elapsed();
        answered.map_err(|error| not_forwarding(&vm, error))?;
        Ok(Self { vm, client, outside, _host: host, scratch, boot, stop, counter: counter::file(config) })
    }

    /// The CPU time of QEMU so far.
    ///
    /// # Errors
    /// It ended, with the end of the console.
    pub fn cpu(&self) -> Result<Cpu> {
        self.vm.check_alive()?;
        let instructions = self.counter.as_ref().map_or(Ok(0), counter::read)?;
        Ok(Cpu { instructions, ..Cpu::of(self.vm.pid())? })
    }
}

fn not_forwarding(vm: &Vm, error: Error) -> Error {
    let tail = vm.console().tail(12).join("\n  | ");
    Error::new(format!(
        "the firewall does not forward: {}; its console ends with\n  | {tail}",
        error.message()
    ))
}

/// Sets kernel parameters of a namespace.
fn settle(namespace: &Namespace, parameters: &[&str]) -> Result<()> {
    for parameter in parameters.iter().chain(&["net.ipv6.conf.default.disable_ipv6=1"]) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        // What this kernel does not have is not changed: without IPv6 there is none to disable.
        namespace.script("sh", &format!("[ ! -e {path} ] || echo '{value}' > {path}"))?;
    }
    Ok(())
}

/// Until QEMU has made both.
fn wait_for_taps(vm: &Vm, stop: Stop<'_>) -> Result<()> {
    let devices = format!("/proc/{}/net/dev", vm.pid());
    let end = Instant::now() + ATTACHED;
    loop {
        stop.check()?;
        vm.check_alive()?;
        let text = fs::read_to_string(&devices).unwrap_or_default();
        let has = |name: &str| text.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")));
        if has(UPLINK) && has(CLIENT) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::new(format!("QEMU makes no taps, only {text}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What is to be done once there are taps, written before, so that it takes little time.
struct Batches(Vec<(String, PathBuf)>);

impl Batches {
    fn write(scratch: &Scratch, host: &Namespace, client: &Namespace, outside: &Namespace) -> Result<Self> {
        let mut batches = Self(Vec::new());
        let mut add = |namespace: &Namespace, lines: &[String]| {
            let path = scratch.join(namespace.name());
            fs::write(&path, lines.join("\n") + "\n")
                .context(|| format!("cannot write {}", path.display()))?;
            batches.0.push((namespace.name().to_owned(), path));
            Ok::<_, Error>(())
        };
        add(
            host,
            &[(UPLINK, outside), (CLIENT, client)]
                .map(|(tap, to)| format!("link set dev {tap} netns {}", to.name())),
        )?;
        let retry = |tap| format!("{NEIGHBOURS} {tap} retrans 20");
        let up = |tap| format!("link set dev {tap} up");
        // The last two are for a wire, at whose other end the client's gateway has to be; nobody asks through a
        // firewall.
        let outside_addresses = [
            format!("address add 192.0.2.1/24 dev {UPLINK}"),
            format!("address add {SERVER}/32 dev lo"),
            "address add 10.0.1.1/32 dev lo".to_owned(),
        ];
        let way_back = format!("route add 10.0.1.0/24 dev {UPLINK}");
        add(outside, &[&outside_addresses[..], &[up(UPLINK), retry(UPLINK), way_back]].concat())?;
        let client_lines = [
            format!("address add 10.0.1.2/24 dev {CLIENT}"),
            up(CLIENT),
            retry(CLIENT),
            "route add default via 10.0.1.1".to_owned(),
        ];
        add(client, &client_lines)?;
        Ok(batches)
    }

    fn run(&self) -> Result<()> {
        for (namespace, path) in &self.0 {
            let output = Command::new("ip").args(["-n", namespace, "-batch"]).arg(path).output();
            let output = output.context(|| "cannot run ip".to_owned())?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Error::new(format!("ip -n {namespace}: {}", said.trim_end())));
            }
        }
        Ok(())
    }
}
