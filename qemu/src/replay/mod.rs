//! `weir replay`: the packets of a capture through the datapath of the image, on this host.
//!
//! Each packet arrives at its port at the time of the capture, and one line says what became of it. Tables, rules
//! and translation are the image's own; only the links are in memory, and neighbours answer for every address.

#[cfg(test)]
pub mod captures;
pub mod records;
pub mod show;
pub mod world;

use crate::args;
use crate::error::{Context, Error, Result};
use crate::image;
use firewall::Dropped;
use netback::ETHERNET_HEADER;
use records::{Layer, Record, Records};
use rules::site::Site;
use rules::table::Action;
use rules::{Location, Met, RuleId};
use smoltcp::wire::EthernetAddress;
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use world::{Outcome, World};

/// Packets out that one line shows.
const SHOWN_MAX: usize = 4;

/// The largest packet of IPv4 (RFC 791 3.1), with the largest header in front that a capture has.
const WHOLE_MAX: usize = 65_535 + ETHERNET_HEADER;

/// Type fields of Ethernet: IPv4.
const IPV4: [u8; 2] = [8, 0];

/// `weir replay`: prints a line for each packet of a capture, and how many ended how.
///
/// # Errors
/// The site has errors, it has no such port, or the capture cannot be read to its end.
pub fn run(arguments: &args::Replay, interrupted: &AtomicBool) -> Result<()> {
    let site = image::Site::open_or_default(arguments.site.site.as_deref(), false)?;
    eprint!("{}", site.warnings);
    let mut out = BufWriter::new(io::stdout().lock());
    let result = replay(site.compiled, &arguments.capture, arguments.port.as_deref(), &mut out, interrupted);
    match result.and_then(|()| out.flush().map_err(Stopped::Unread)) {
        // Whoever reads has seen enough.
        Err(Stopped::Unread(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Unread(error)) => Err(error).context(|| "cannot write".to_owned()),
        Err(Stopped::Failed(error)) => {
            // What was seen until then is shown all the same; if nobody reads it, so be it.
            let _ = out.flush();
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// What ends a replay early.
#[derive(Debug)]
pub enum Stopped {
    /// The capture, or the site.
    Failed(Error),
    /// Nobody takes the lines.
    Unread(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Unread(error)
    }
}

/// Runs a capture through the datapath of a site; `port` is where all packets come from, else their sources tell.
///
/// # Errors
/// The site has no such port, the capture cannot be read, or `out` takes no more.
pub fn replay(
    site: &'static Site,
    capture: &Path,
    port: Option<&str>,
    out: &mut impl Write,
    interrupted: &AtomicBool,
) -> std::result::Result<(), Stopped> {
    let mut replay = Replay::new(site, port)?;
    let mut records = Records::open(capture)?;
    while !interrupted.load(Ordering::Relaxed) {
        let Some(record) = records.read()? else { break };
        for line in replay.lines(&record)? {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out, "{}", replay.summary)?;
    Ok(())
}

/// How packets ended, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Forwarded,
    Answered,
    Rejected,
    Dropped,
    Held,
    Skipped,
}

const VERDICTS: [(Verdict, &str); 6] = [
    (Verdict::Forwarded, "forwarded"),
    (Verdict::Answered, "answered"),
    (Verdict::Rejected, "rejected"),
    (Verdict::Dropped, "dropped"),
    (Verdict::Held, "held"),
    (Verdict::Skipped, "skipped"),
];

impl Verdict {
    fn name(self) -> &'static str {
        VERDICTS.iter().find(|(verdict, _)| *verdict == self).map_or("", |(_, name)| name)
    }
}

/// How many packets ended how.
#[derive(Default)]
struct Summary([u64; VERDICTS.len()]);

impl Summary {
    fn count(&mut self, verdict: Verdict) {
        let counts = self.0.iter_mut().zip(VERDICTS);
        counts.filter(|(_, (of, _))| *of == verdict).for_each(|(count, _)| *count += 1);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.iter().zip(VERDICTS).map(|(count, (_, name))| format!("{count} {name}"));
        write!(f, "{} packets: {}", self.0.iter().sum::<u64>(), parts.collect::<Vec<_>>().join(", "))
    }
}

/// A capture on its way through a site.
struct Replay {
    site: &'static Site,
    world: World,
    names: Vec<&'static str>,
    /// The port of all packets.
    port: Option<usize>,
    /// The width of a port's name.
    width: usize,
    summary: Summary,
}

impl Replay {
    fn new(site: &'static Site, port: Option<&str>) -> Result<Self> {
        let names: Vec<_> =
            std::iter::once("uplink").chain(site.clients.iter().map(|client| client.name)).collect();
        let port = port.map(|name| {
            names.iter().position(|own| *own == name).ok_or_else(|| {
                Error::usage(format!("--port: the site has no port {name:?}"))
                    .advise(format!("its ports are {}", names.join(", ")))
            })
        });
        let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let (port, world) = (port.transpose()?, World::new(site)?);
        Ok(Self { site, world, names, port, width, summary: Summary::default() })
    }

    /// What is told of a packet, and of what happened by itself until it came.
    fn lines(&mut self, record: &Record) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if let Some(micros) = record.micros {
            let meanwhile = self.world.advance(micros)?;
            if meanwhile != Outcome::default() {
                let (_, told) = self.told(&meanwhile, false);
                lines.push(self.line("-", "-", "(time passes)", &told));
            }
        }
        let number = record.number.to_string();
        let (stations, octets) = match strip(record) {
            Ok(stripped) => stripped,
            Err(reason) => {
                self.summary.count(Verdict::Skipped);
                let told = format!("{} {reason}", Verdict::Skipped.name());
                lines.push(self.line(&number, "-", &format!("{} octets", record.length), &told));
                return Ok(lines);
            }
        };
        let port = self.port.unwrap_or_else(|| {
            show::source(&octets).map_or(firewall::route::UPLINK, |source| self.world.port_of(source))
        });
        let outcome = self.world.receive(port, stations, &octets)?;
        let (verdict, told) = self.told(&outcome, show::follows(&octets));
        self.summary.count(verdict);
        lines.push(self.line(&number, self.name(port), &show::packet(&octets), &told));
        Ok(lines)
    }

    fn line(&self, number: &str, port: &str, packet: &str, told: &str) -> String {
        let width = self.width;
        format!("{number:>5}  {port:<width$}  {packet:<50}  {told}")
    }

    fn name(&self, port: usize) -> &'static str {
        self.names.get(port).copied().unwrap_or_default()
    }

    /// The verdict, whose it is, and what left.
    fn told(&self, outcome: &Outcome, follows: bool) -> (Verdict, String) {
        let count = |why: Dropped| outcome.dropped.iter().any(|(reason, _)| *reason == why);
        let is_answer =
            outcome.answered > 0 && outcome.dropped.iter().all(|(why, _)| *why == Dropped::Delivered);
        let (verdict, mut why) = if outcome.forwarded > 0 {
            (Verdict::Forwarded, vec![self.who(outcome, follows)])
        } else if is_answer {
            (Verdict::Answered, vec![self.who(outcome, follows)])
        } else if count(Dropped::Rejected) {
            (Verdict::Rejected, Vec::new())
        } else if outcome.dropped.is_empty() {
            (Verdict::Held, Vec::new())
        } else {
            (Verdict::Dropped, Vec::new())
        };
        if !is_answer {
            why.extend(outcome.dropped.iter().map(|&(reason, count)| self.reason(outcome, reason, count)));
        }
        let mut told = format!("{} {}", verdict.name(), why.join(", "));
        for (at, (port, packet)) in outcome.sent.iter().take(SHOWN_MAX).enumerate() {
            let arrow = if at == 0 { "  ->" } else { "  +" };
            told.push_str(&format!("{arrow} {} {}", self.name(*port), show::packet(packet)));
        }
        if let Some(more @ 1..) = outcome.sent.len().checked_sub(SHOWN_MAX) {
            told.push_str(&format!("  and {more} more"));
        }
        (verdict, told.trim_end().to_owned())
    }

    /// The rules that let a packet pass; without any its session did, or what its first fragment met.
    fn who(&self, outcome: &Outcome, follows: bool) -> String {
        let rules = outcome.met.iter().filter_map(|met| match met {
            Met::Rule(id, _) => Some(*id),
            Met::Base { .. } | Met::Policy { .. } => None,
        });
        let rules = self.places(rules);
        if !rules.is_empty() {
            return rules.join(" ");
        }
        let policies = outcome.met.iter().filter_map(|met| match met {
            Met::Policy { id, .. } => Some(*id),
            Met::Base { .. } | Met::Rule(..) => None,
        });
        match self.places(policies) {
            policies if !policies.is_empty() => format!("policy of {}", policies.join(" ")),
            _ if follows => "with its first fragment".to_owned(),
            _ => "by its session".to_owned(),
        }
    }

    /// Places in the order in which they were met, each once.
    fn places(&self, rules: impl Iterator<Item = RuleId>) -> Vec<String> {
        let mut places: Vec<String> = Vec::new();
        for place in rules.map(|id| self.site.policy.location(id).to_string()) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The rule that ended a packet, or another reason.
    fn reason(&self, outcome: &Outcome, reason: Dropped, count: u64) -> String {
        let by_rule = matches!(reason, Dropped::Policy | Dropped::Rejected);
        let rule = by_rule.then(|| self.refusing(outcome)).flatten();
        let text = rule.map_or_else(|| reason.name().to_owned(), |rule| rule.to_string());
        if count > 1 { format!("{text} x{count}") } else { text }
    }

    fn refusing(&self, outcome: &Outcome) -> Option<Location> {
        outcome.met.iter().find_map(|met| match met {
            Met::Rule(id, Some(Action::Drop | Action::Reject(_))) | Met::Policy { id, accepts: false } => {
                Some(self.site.policy.location(*id))
            }
            _ => None,
        })
    }
}

/// Whom the frame was for and from, if there was one.
type Stations = (Option<EthernetAddress>, Option<EthernetAddress>);

/// The stations of the frame, and the IPv4 packet; or why there is none.
///
/// What the capture has cut is filled up with zeros: nothing looks at data.
fn strip(record: &Record) -> std::result::Result<(Stations, Vec<u8>), String> {
    let mut octets = record.octets.clone();
    octets.resize(record.length.min(WHOLE_MAX).max(octets.len()), 0);
    let (stations, packet) = match record.layer {
        Layer::Raw => ((None, None), octets),
        Layer::Ethernet => {
            let captured = record.octets.get(..ETHERNET_HEADER).ok_or("no whole Ethernet header")?;
            match captured.get(12..) {
                Some(kind) if kind == IPV4 => {}
                Some([8, 6]) => return Err("ARP: neighbours answer by themselves".to_owned()),
                Some([high, low]) => return Err(format!("type {high:02x}{low:02x}, not IPv4")),
                _ => return Err("no type".to_owned()),
            }
            let station = |at: usize| captured.get(at..at + 6).map(EthernetAddress::from_bytes);
            ((station(0), station(6)), octets.split_off(ETHERNET_HEADER))
        }
    };
    match packet.first().map(|first| first >> 4) {
        Some(6) if record.layer == Layer::Raw => Err("IPv6".to_owned()),
        _ => Ok((stations, packet)),
    }
}
