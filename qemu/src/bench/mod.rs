//! `weir bench`: measures the image, and on request a Linux VM in its place, with the same clients, servers and policy.
//!
//! Everything goes through two taps (`lab`); the generators of traffic are this program itself, in the namespaces at
//! both ends ([`agent`]). CPU times are those that the kernel keeps for QEMU's threads (`meter`): on a busy machine
//! they hardly change, rates and round trips do.

pub mod agent;
mod connections;
mod counter;
mod datagrams;
mod echo;
mod lab;
mod linux;
mod measure;
mod meter;
mod process;
mod report;

use crate::accel::{self, Accel};
use crate::args::{self, What};
use crate::backend::Backend;
use crate::command::{Config, Machine, Netdev, Port};
use crate::error::{Context, Error, Result};
use crate::image::{self, Site};
use crate::memory;
use crate::netns;
use crate::scratch::Scratch;
use crate::vm;
use lab::Lab;
use linux::Tuning;
use process::Stop;
use report::{Column, Figures};
use serde_json::{Map, json};
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Boots of which the median counts.
const BOOTS: usize = 3;

/// A firewall to measure.
struct Subject {
    name: &'static str,
    config: Config,
    /// Octets of what boots.
    octets: u64,
    /// The smallest memory that could do, and one that does, in MiB.
    memory: (u32, u32),
    /// How long to wait for the first echo reply.
    timeout: Duration,
}

/// `weir bench`.
///
/// # Errors
/// A tool or a right is missing, or a firewall does not do its work.
pub fn run(arguments: &args::Bench, interrupted: &AtomicBool) -> Result<()> {
    let stop = Stop(interrupted);
    check_machine(arguments)?;
    check_rights()?;
    check_tools(arguments)?;
    let accel = accel::choose(arguments.machine.accel)?;
    if arguments.instructions && accel == Accel::Kvm {
        return Err(Error::usage("only TCG counts the guest's instructions").advise("add --accel tcg"));
    }
    let site = Site::open(&image::workspace()?.join("qemu").join("bench"))?;
    let scratch = Scratch::new()?;
    let mut subjects = vec![weir(&site, accel)?];
    if arguments.wire {
        subjects.push(wire(&site, accel)?);
    }
    for tuning in tunings(arguments) {
        subjects.push(linux_vm(&site, accel, tuning, &scratch)?);
    }
    let mut columns = Vec::new();
    let mut failure = None;
    for mut subject in subjects {
        prepare(&mut subject.config, &site, arguments);
        if arguments.instructions {
            subject.config.extra.extend(counter::arguments(&scratch)?);
        }
        match figures(&subject, arguments, stop) {
            Ok(figures) => columns.push(Column { name: subject.name, figures }),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // What was measured before is worth showing.
    if !columns.is_empty() {
        show(&columns, arguments, accel)?;
    }
    failure.map_or(Ok(()), Err)
}

/// Prints the table, and writes the file that was asked for.
fn show(columns: &[Column], arguments: &args::Bench, accel: Accel) -> Result<()> {
    let processor = processor();
    let machine = arguments.machine.machine.name();
    println!("{}", report::table(columns));
    println!("{machine}, {}, {processor}; {} s a measurement", accel.name(), arguments.seconds);
    if let Some(path) = &arguments.json {
        let mut run = Map::new();
        run.insert("accel".into(), json!(accel.name()));
        run.insert("machine".into(), json!(machine));
        run.insert("processor".into(), json!(processor));
        run.insert("seconds".into(), json!(arguments.seconds));
        let text = format!("{:#}\n", report::json(columns, run));
        fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn weir(site: &Site, accel: Accel) -> Result<Subject> {
    let image = image::build(site)?;
    let mut config = Config::new(&image.elf, accel);
    config.memory = memory::of_vm(site, None)?;
    let memory = (17, config.memory);
    Ok(Subject { name: "Weir", config, octets: image.octets, memory, timeout: Duration::from_secs(10) })
}

/// What no firewall can go below here.
fn wire(site: &Site, accel: Accel) -> Result<Subject> {
    let image = image::build_wire(site)?;
    let config = Config::new(&image.elf, accel);
    let memory = (17, config.memory);
    Ok(Subject { name: "wire", config, octets: image.octets, memory, timeout: Duration::from_secs(10) })
}

/// The Linux VMs that are asked for.
fn tunings(arguments: &args::Bench) -> impl Iterator<Item = Tuning> {
    let asked = [(arguments.linux, Tuning::Default), (arguments.linux_best, Tuning::Best)];
    asked.into_iter().filter_map(|(is_asked, tuning)| is_asked.then_some(tuning))
}

fn linux_vm(site: &Site, accel: Accel, tuning: Tuning, scratch: &Scratch) -> Result<Subject> {
    let (config, octets) = linux::config(site, accel, tuning, scratch)?;
    Ok(Subject {
        name: tuning.name(),
        config,
        octets,
        memory: (48, linux::MEMORY),
        timeout: Duration::from_secs(60),
    })
}

/// The same machine and the same devices for everybody.
fn prepare(config: &mut Config, site: &Site, arguments: &args::Bench) {
    let tap = |mac, name: &str| Port::new(mac, Netdev::Backend(Backend::Tap(name.into())));
    config.machine = arguments.machine.machine;
    config.ports = vec![tap(site.plan.uplink.mac, lab::UPLINK)];
    config.ports.extend(site.plan.clients.iter().map(|client| tap(client.mac, lab::CLIENT)));
    config.extra = ["-name", "weir-bench,debug-threads=on"].map(str::to_owned).into();
}

fn figures(subject: &Subject, arguments: &args::Bench, stop: Stop<'_>) -> Result<Figures> {
    let mut figures = Figures::default();
    let time = Duration::from_secs(arguments.seconds.into());
    let wants = |what| arguments.wants(what);
    let say = |what: &str| eprintln!("{}: {what}", subject.name);
    figures.set("image_kib", subject.octets as f64 / 1024.0);
    if wants(What::Boot) {
        say("boot");
        figures.set("boot_s", boot(subject, stop)?);
    }
    if [What::Idle, What::Rtt, What::Load, What::Tcp, What::Udp, What::Conns].into_iter().any(wants) {
        let lab = Lab::boot(&subject.config, subject.timeout, stop)?;
        if wants(What::Idle) {
            say("idle");
            measure::idle(&lab, time, &mut figures)?;
        }
        if wants(What::Rtt) {
            say("round trips");
            measure::round_trips(&lab, time / 2, &mut figures)?;
        }
        if wants(What::Load) {
            say("round trips beside TCP streams");
            measure::round_trips_under_load(&lab, time / 2, &mut figures)?;
        }
        if wants(What::Tcp) {
            say("TCP streams");
            measure::streams(&lab, time, &mut figures)?;
        }
        if wants(What::Udp) {
            say("UDP");
            measure::datagrams(&lab, time / 5, &mut figures)?;
        }
        if wants(What::Conns) {
            say("connections");
            measure::connections(&lab, time / 2, &mut figures)?;
        }
    }
    if wants(What::Memory) {
        say("memory");
        figures.set("memory_mib", smallest_memory(subject, stop)?.into());
    }
    Ok(figures)
}

/// The median time of some boots, in seconds.
fn boot(subject: &Subject, stop: Stop<'_>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..BOOTS {
        times.push(Lab::boot(&subject.config, subject.timeout, stop)?.boot.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(BOOTS / 2).copied().unwrap_or_default())
}

/// The smallest memory with which the firewall boots and does its work, in MiB.
fn smallest_memory(subject: &Subject, stop: Stop<'_>) -> Result<u32> {
    let (least, enough) = subject.memory;
    bisect(least, enough, |memory| {
        let config = Config { memory, ..subject.config.clone() };
        let outcome = Lab::boot(&config, subject.timeout / 3, stop).and_then(|lab| measure::works(&lab));
        stop.check()?;
        let is_enough = outcome.is_ok();
        let outcome = outcome.map_or_else(|error| first_line(error.message()), |()| "works".to_owned());
        eprintln!("{}: -m {memory}: {outcome}", subject.name);
        Ok(is_enough)
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The least number that does, when `enough` does and what is larger than one that does also does.
fn bisect(least: u32, enough: u32, mut does: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    let (mut low, mut high) = (least, enough);
    while low < high {
        let middle = low + (high - low) / 2;
        if does(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high)
}

fn check_machine(arguments: &args::Bench) -> Result<()> {
    if tunings(arguments).next().is_some() && arguments.machine.machine == Machine::Microvm {
        return Err(Error::usage("distributions' kernels find no network device on microvm")
            .advise("leave --linux and --linux-best out, or measure all on --machine q35"));
    }
    Ok(())
}

fn check_rights() -> Result<()> {
    let advice = "run it as root (sudo), where network namespaces and /dev/net/tun may be used: not in a plain container";
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("the benchmark needs root, for network namespaces and taps").advise(advice));
    }
    netns::obstacle().map_or(Ok(()), |reason| Err(Error::new(reason).advise(advice)))
}

fn check_tools(arguments: &args::Bench) -> Result<()> {
    vm::find_qemu()?;
    if arguments.wants(What::Tcp) || arguments.wants(What::Load) {
        // For its server's start, `ss` besides.
        for (tool, question) in [("iperf3", "--version"), ("ss", "--version")] {
            let found = Command::new(tool).arg(question).stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.map_err(|cause| {
                Error::new(format!("cannot run {tool}: {cause}"))
                    .advise("run qemu/setup.sh, or leave TCP streams out with --only")
            })?;
        }
    }
    Ok(())
}

/// How the processor calls itself, and how many there are.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {}", name.map_or("unknown processor", |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bisection_finds_the_least_that_does_with_few_tries() {
        for least in 17..=32 {
            let mut tries = 0;
            let found = bisect(17, 32, |memory| {
                tries += 1;
                Ok(memory >= least)
            });
            assert_eq!(found, Ok(least));
            assert!(tries <= 4, "{tries}");
        }
        assert_eq!(bisect(17, 32, |_| Err(Error::new("interrupted"))), Err(Error::new("interrupted")));
    }

    #[test]
    fn the_site_compiles_with_the_names_of_the_taps() {
        let site = Site::open(&image::workspace().unwrap().join("qemu/bench")).unwrap();
        assert!(site.warnings.is_empty(), "{}", site.warnings);
        assert_eq!(site.plan.clients.len(), 1);
        assert_eq!(site.plan.clients[0].name, lab::CLIENT);
    }
}
