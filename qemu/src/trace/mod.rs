//! `weir check --packet`: the way of one packet through the chains, from the site alone.
//!
//! The packet is judged by the same tables and the same walk as in the image, and routed by the same routes.
//! What rules remember is as at the start: limits are full, quotas unused, sets that packets change hold what the
//! file puts there.

pub mod packet;

use crate::error::{Error, Result};
use crate::image::Site;
use firewall::route::{Routes, UPLINK};
use rules::object::LogId;
use rules::table::{Action, Kind};
use rules::{Candidate, CounterId, Hook, Location, Memory, Met, RuleId, SourceNat, State, Tally, Verdict};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

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
        routes: Routes::new(site.compiled),
        memory: Memory::new(&site.compiled.policy, 0, 0),
        texts: Texts::new(&site.directory),
        lines: Vec::new(),
    };
    let end = trace.walk(packet);
    trace.lines.push(end);
    Ok(trace.lines.join("\n"))
}

/// The names of the ports, by their numbers.
fn names(site: &'static rules::site::Site) -> Vec<&'static str> {
    std::iter::once("uplink").chain(site.clients.iter().map(|client| client.name)).collect()
}

struct Trace {
    site: &'static rules::site::Site,
    routes: Routes,
    memory: Memory,
    texts: Texts,
    lines: Vec<String>,
}

impl Trace {
    /// The whole way; what becomes of the packet.
    fn walk(&mut self, mut packet: Candidate) -> String {
        let input = usize::from(packet.input.unwrap_or(0));
        if let Some(reason) = self.refused_before(input, &packet) {
            return format!("dropped ahead of the rules: {reason}");
        }
        if let Err(end) = self.at(Hook::Prerouting, &mut packet) {
            return end;
        }
        if self.routes.is_own(packet.destination) {
            return match self.at(Hook::Input, &mut packet) {
                Err(end) => end,
                Ok(_) => format!("accepted: it reaches the appliance itself, at {}", packet.destination),
            };
        }
        let Some(hop) = self.routes.lookup(packet.destination) else {
            return format!("dropped: no route leads to {}", packet.destination);
        };
        if packet.ttl <= 1 {
            return "dropped: its time to live ends here".to_owned();
        }
        packet.output = u8::try_from(hop.port).ok();
        packet.ttl -= 1;
        if let Err(end) = self.at(Hook::Forward, &mut packet) {
            return end;
        }
        match self.at(Hook::Postrouting, &mut packet) {
            Err(end) => end,
            Ok(_) if packet.state == State::Invalid => {
                "dropped: it belongs to no connection and opens none".to_owned()
            }
            Ok(snat) => self.leaves(&packet, hop.port, snat),
        }
    }

    /// Why no rule sees the packet, if none does.
    fn refused_before(&self, input: usize, packet: &Candidate) -> Option<String> {
        let name = names(self.site).get(input).copied().unwrap_or_default();
        if !self.routes.source_is_behind(input, packet.source) {
            return Some(format!("{} is not behind {name} (anti-spoofing)", packet.source));
        }
        let to = packet.destination;
        if input == UPLINK
            && !self.routes.external().contains(&to)
            && matches!(packet.state, State::New | State::Invalid)
        {
            return Some(format!("{to} is none of the external addresses"));
        }
        (!self.routes.is_own(to) && !self.routes.is_forwardable(to))
            .then(|| format!("nothing is forwarded to {to}"))
    }

    /// The chains of a hook; what becomes of the packet if they end it, else its new source.
    fn at(&mut self, hook: Hook, packet: &mut Candidate) -> std::result::Result<Option<SourceNat>, String> {
        let policy = &self.site.policy;
        self.lines.push(format!("{hook:?}").to_lowercase());
        let is_later = matches!(packet.state, State::Established | State::Related);
        let (verdict, snat) = if is_later {
            (policy.evaluate_later(hook, packet, self), None)
        } else {
            let decision = policy.evaluate(hook, packet, self);
            if let Some((address, port)) = decision.dnat {
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                self.lines.push(format!("    now for {address}{port}"));
            }
            (decision.verdict, decision.snat)
        };
        match verdict {
            Verdict::Accept => Ok(snat),
            Verdict::Drop(id) => Err(format!("dropped by {}", policy.location(id))),
            Verdict::Reject(id, how) => {
                Err(format!("rejected by {}, its sender is told: {how:?}", policy.location(id)))
            }
        }
    }

    fn leaves(&self, packet: &Candidate, port: usize, snat: Option<SourceNat>) -> String {
        let name = names(self.site).get(port).copied().unwrap_or_default();
        let shown = match snat {
            None => packet.source.to_string(),
            Some(SourceNat::Masquerade { .. }) => self.routes.address(port).to_string(),
            Some(SourceNat::Static(address)) => address.to_string(),
            Some(SourceNat::To { first, last, .. }) if first == last => first.to_string(),
            Some(SourceNat::To { first, last, .. }) => format!("one of {first}-{last}"),
        };
        let to = match packet.destination_port {
            0 => packet.destination.to_string(),
            port => format!("{}:{port}", packet.destination),
        };
        format!("accepted: it leaves by {name}, from {shown} to {to}")
    }

    fn line(&mut self, indent: &str, id: RuleId, what: &str) {
        let location = self.site.policy.location(id);
        let text = self.texts.line(location);
        self.lines.push(format!("{indent}{location}  {text}{what}"));
    }
}

impl Tally for Trace {
    fn count(&mut self, _: CounterId, _: u32) {}

    fn log(&mut self, _: LogId, _: &Candidate) {}

    fn memory(&mut self) -> Option<(&mut Memory, u64)> {
        Some((&mut self.memory, 0))
    }

    fn met(&mut self, met: Met) {
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
