//! `weir check --packet`: the way of one packet through the chains, from the site alone.
//!
//! The packet goes through the appliance's own datapath, between links in memory, as it is when it has booted: limits are
//! full, quotas unused, sets that packets change hold what the file puts there.

pub mod packet;

use crate::error::{Error, Result};
use crate::image::Site;
use crate::replay::world::{Outcome, World};
use firewall::Dropped;
use firewall::route::Routes;
use rules::table::{Action, Kind};
use rules::{Candidate, Hook, Location, Met, RuleId, State, Stations};
use smoltcp::wire::EthernetAddress;
use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// As much as a packet meets that is shown.
const MET_MAX: usize = 4096;

/// Flags of TCP (RFC 9293 3.1).
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The way of a packet that is given in words, in lines.
///
/// # Errors
/// The words are no packet.
pub fn way(site: &Site, words: &str) -> Result<String> {
    let names = names(site.compiled);
    let port = |name: &str| names.iter().position(|own| *own == name).and_then(|at| u8::try_from(at).ok());
    let packet = packet::parse(words, port)
        .map_err(|reason| Error::usage(format!("--packet: {reason}")).advise(packet::FORM))?;
    let mut trace = Trace {
        site: site.compiled,
        world: World::with_station(site.compiled, station_of_port(&packet))?,
        texts: Texts::new(&site.directory),
        lines: Vec::new(),
    };
    trace.world.watch(MET_MAX);
    trace.walk(&packet)?;
    Ok(trace.lines.join("\n"))
}

/// The station that the packet's port is to be, if that is said.
fn station_of_port(packet: &Candidate) -> Option<(usize, EthernetAddress)> {
    let destination = EthernetAddress(packet.stations?.destination);
    destination.is_unicast().then_some((packet.input?.into(), destination))
}

/// The names of the ports, by their numbers.
fn names(site: &'static rules::site::Site) -> Vec<&'static str> {
    std::iter::once("uplink").chain(site.clients.iter().map(|client| client.name)).collect()
}

struct Trace {
    site: &'static rules::site::Site,
    world: World,
    texts: Texts,
    lines: Vec<String>,
}

impl Trace {
    /// The whole way, and what becomes of the packet.
    fn walk(&mut self, packet: &Candidate) -> Result<()> {
        let input = usize::from(packet.input.unwrap_or(0));
        if packet.state != State::Established {
            let outcome = self.send(input, packet.stations, &packet::octets(packet, packet.tcp_flags))?;
            let end = self.end(input, packet, &outcome);
            self.lines.push(end);
            return Ok(());
        }
        self.lines.push("first, its connection is opened:".to_owned());
        let opened = self.send(input, packet.stations, &packet::octets(packet, SYN))?;
        let Some((output, seen)) = opened.sent.first().filter(|_| opened.forwarded > 0) else {
            let end = self.end(input, packet, &opened);
            self.lines.push(end);
            return Ok(());
        };
        self.lines.push("it is answered:".to_owned());
        let answer = answer_to(packet, seen);
        let answered = self.send(*output, None, &answer)?;
        if answered.forwarded == 0 {
            let end = self.end(*output, packet, &answered);
            self.lines.push(end);
            return Ok(());
        }
        self.lines.push("then comes the packet itself:".to_owned());
        let flags = if packet.tcp_flags & 0x17 == SYN { ACK } else { packet.tcp_flags };
        let outcome = self.send(input, packet.stations, &packet::octets(packet, flags))?;
        let end = self.end(input, packet, &outcome);
        self.lines.push(end);
        Ok(())
    }

    /// Sends a packet, and shows what it meets.
    fn send(&mut self, input: usize, sender: Option<Stations>, octets: &[u8]) -> Result<Outcome> {
        let sender = sender.map(|stations| EthernetAddress(stations.source));
        let mut outcome = self.world.receive(input, (None, sender), octets)?;
        outcome.met = self.world.take_watched();
        let mut hook = None;
        let mut decided = false;
        for met in outcome.met.clone() {
            if let Met::Base { id, .. } = met {
                let of = self.hook_of(id);
                // What the appliance then says of it is another packet's way.
                if decided && of == Some(Hook::Output) {
                    break;
                }
                if of != hook {
                    self.lines.push(of.map(|hook| format!("{hook:?}").to_lowercase()).unwrap_or_default());
                    hook = of;
                }
            }
            decided = true;
            self.show(met);
        }
        if outcome.met.is_empty() && outcome.forwarded > 0 {
            self.lines.push("    its session lets it pass: no rule is asked".to_owned());
        }
        Ok(outcome)
    }

    fn hook_of(&self, id: RuleId) -> Option<Hook> {
        let hooks = Hook::ALL.into_iter().zip(self.site.policy.hooks);
        hooks.into_iter().find(|(_, bases)| bases.iter().any(|base| base.id == id)).map(|(hook, _)| hook)
    }

    /// What became of a packet.
    fn end(&self, input: usize, packet: &Candidate, outcome: &Outcome) -> String {
        let policy = &self.site.policy;
        if let Some((output, seen)) = outcome.sent.first().filter(|_| outcome.forwarded > 0) {
            let name = names(self.site).get(*output).copied().unwrap_or_default();
            let (source, to) = ends(packet, seen);
            return format!("accepted: it leaves by {name}, from {source} to {to}");
        }
        let told = outcome.met.iter().find_map(|met| match *met {
            Met::Rule(id, Some(Action::Drop)) => Some(format!("dropped by {}", policy.location(id))),
            Met::Rule(id, Some(Action::Reject(how))) => {
                Some(format!("rejected by {}, its sender is told: {how:?}", policy.location(id)))
            }
            Met::Policy { id, accepts: false } => Some(format!("dropped by {}", policy.location(id))),
            _ => None,
        });
        if let Some(told) = told {
            return told;
        }
        let to = packet.destination;
        match outcome.dropped.first().map(|(why, _)| *why) {
            Some(Dropped::Spoofed) => {
                let name = names(self.site).get(input).copied().unwrap_or_default();
                format!("dropped ahead of the rules: {} is not behind {name} (anti-spoofing)", packet.source)
            }
            Some(Dropped::NotOurs) => {
                format!("dropped ahead of the rules: {to} is none of the external addresses")
            }
            Some(Dropped::BadDestination) => {
                format!("dropped ahead of the rules: nothing is forwarded to {to}")
            }
            Some(Dropped::TimeExceeded) => "dropped: its time to live ends here".to_owned(),
            Some(Dropped::Invalid) => "dropped: it belongs to no connection and opens none".to_owned(),
            None | Some(Dropped::Delivered | Dropped::Unsolicited) if self.is_own(to) => {
                format!("accepted: it reaches the appliance itself, at {to}")
            }
            Some(why) => format!("dropped: {}", why.name()),
            None => "it waits".to_owned(),
        }
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        Routes::new(self.site).is_own(address)
    }

    fn line(&mut self, indent: &str, id: RuleId, what: &str) {
        let location = self.site.policy.location(id);
        let text = self.texts.line(location);
        self.lines.push(format!("{indent}{location}  {text}{what}"));
    }

    fn show(&mut self, met: Met) {
        match met {
            Met::Base { id, kind } => {
                let kind = if kind == Kind::Nat { "  (first packets only)" } else { "" };
                self.line("  ", id, kind);
            }
            Met::Rule(id, action) => {
                let ends = match action {
                    None => "  -> goes on",
                    Some(Action::Jump(_) | Action::Goto(_)) => "  ->",
                    Some(_) => "  -> ends here",
                };
                self.line("    ", id, ends);
            }
            Met::Policy { accepts, .. } => {
                let policy = if accepts { "accept" } else { "drop" };
                self.lines.push(format!("    no rule decides: policy {policy}"));
            }
        }
    }
}

/// An address and a port that stand in a packet, by their places.
fn endpoint(octets: &[u8], address: usize, port: usize) -> (Ipv4Addr, u16) {
    let four = octets.get(address..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    let two = octets.get(port..).and_then(|rest| rest.first_chunk::<2>()).copied().unwrap_or_default();
    (four.into(), u16::from_be_bytes(two))
}

/// The source and the destination of a packet as it left.
fn ends(packet: &Candidate, seen: &[u8]) -> (String, String) {
    let (source, (to, port)) = (endpoint(seen, 12, 20).0, endpoint(seen, 16, 22));
    let to = if packet.has_ports { format!("{to}:{port}") } else { to.to_string() };
    (source.to_string(), to)
}

/// The answer to a packet that was seen like this.
fn answer_to(packet: &Candidate, seen: &[u8]) -> Vec<u8> {
    let ((source, source_port), (destination, destination_port)) =
        (endpoint(seen, 12, 20), endpoint(seen, 16, 22));
    let answer = Candidate {
        source: destination,
        destination: source,
        source_port: destination_port,
        destination_port: source_port,
        icmp: packet
            .icmp
            .map(|(kind, code)| if kind == 8 { (0, code) } else { (kind.saturating_add(1), code) }),
        ttl: 64,
        ..packet.clone()
    };
    let mut octets = packet::octets(&answer, SYN | ACK);
    if packet.protocol == 1
        && let (Some(place), Some(identifier)) = (octets.get_mut(20..), seen.get(24..28))
    {
        // The identifier is what it was sent with: the sums of both are one's complement.
        packet::answer_query(place, identifier);
    }
    octets
}

/// The lines of the site's files.
struct Texts {
    directory: std::path::PathBuf,
    files: HashMap<&'static str, Vec<String>>,
}

impl Texts {
    fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), files: HashMap::new() }
    }

    /// What stands at a place, without what is around it.
    fn line(&mut self, location: Location) -> &str {
        let lines = self.files.entry(location.file).or_insert_with(|| {
            // It was read before; without it the number of the line has to do.
            let text = fs::read_to_string(self.directory.join(location.file)).unwrap_or_default();
            text.lines().map(|line| line.trim().to_owned()).collect()
        });
        let at = usize::try_from(location.line).ok().and_then(|line| line.checked_sub(1));
        at.and_then(|at| lines.get(at)).map_or("", String::as_str)
    }
}
