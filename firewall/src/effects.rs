//! What the rules count, remember and log while packets pass them.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use rules::memory::Numbers;
use rules::object::CountId;
use rules::object::{Level, LogId};
use rules::site::Site;
use rules::table::Action;
use rules::{Candidate, CounterId, Counts, Direction, Memory, Met, Tally};
use smoltcp::time::Instant;

use crate::counters::RuleCounters;
use crate::datapath::MET_MAX;
use crate::icmp::Limiter;
use crate::segment::Clamp;

/// Log statements that are told apart at each port when lines are too many.
const SPEAKERS: usize = 32;

/// Lines that a log statement may write at once about the packets of a port.
const LINES: u32 = 10;

/// The time in which it may write one more, in milliseconds.
const LINE_MILLIS: u32 = 1000;

/// What the rules count, remember and log.
pub(crate) struct Effects {
    /// One for every `counter`.
    pub counters: RuleCounters,
    /// The maximum segment size that rules set for the packet that is looked at, see [`Tally::segment`].
    pub segment: Option<Clamp>,
    /// The time of the packets that are looked at.
    pub now: Instant,
    memory: Memory,
    /// Connections that rules count.
    counts: Counts,
    /// The session of the packet that is looked at.
    session: Option<u32>,
    /// `ct mark` of each session; empty when no rule sets one.
    marks: Box<[u32]>,
    lines: Limiter,
    names: Vec<&'static str>,
    site: &'static Site,
    /// What ended chains since somebody took it; when it is full, no more is kept.
    pub met: heapless::Vec<Met, MET_MAX>,
    /// All that is met, as much as it holds, when somebody watches.
    pub watched: Option<Vec<Met>>,
}

/// Marks to remember: one for each session, if a rule sets any.
fn marks(site: &Site) -> usize {
    if site.policy.marks_connections { site.nat.sessions as usize } else { 0 }
}

impl Effects {
    /// Octets that [`Effects::new`] allocates.
    pub fn footprint(site: &Site) -> usize {
        let policy = &site.policy;
        RuleCounters::footprint(policy.counters().len())
            + Memory::footprint(policy)
            + Counts::footprint(policy, site.nat.sessions)
            + marks(site) * size_of::<u32>()
            + Limiter::footprint(site.clients.len() + 2, SPEAKERS)
            + (site.clients.len() + 1) * size_of::<&str>()
    }

    pub fn new(site: &'static Site, seed: u64) -> Self {
        let policy = &site.policy;
        let names = core::iter::once("uplink").chain(site.clients.iter().map(|client| client.name));
        Self {
            counters: RuleCounters::new(policy.counters().len()),
            segment: None,
            now: Instant::ZERO,
            memory: Memory::new(policy, seed, 0),
            marks: vec![0; marks(site)].into_boxed_slice(),
            counts: Counts::new(policy, site.nat.sessions, seed.rotate_left(9)),
            session: None,
            lines: Limiter::new(site.clients.len() + 2, SPEAKERS, LINES, LINE_MILLIS, seed),
            names: names.collect(),
            site,
            met: heapless::Vec::new(),
            watched: None,
        }
    }

    /// A packet of this session is looked at, or one that may open another; what an earlier one would have opened
    /// has come to nothing.
    pub fn look_at(&mut self, session: Option<u32>) {
        self.session = session;
        self.counts.give_up();
    }

    /// The packet that is looked at has opened this session.
    pub fn open(&mut self, session: u32) {
        self.counts.begin(session);
    }

    /// A session has ended.
    pub fn end(&mut self, session: u32) {
        self.counts.end(session);
    }

    /// `ct mark` of a session, by the session's place.
    pub fn mark(&self, session: u32) -> u32 {
        self.marks.get(session as usize).copied().unwrap_or(0)
    }

    /// Keeps the mark that rules have given to a session.
    pub fn set_mark(&mut self, session: u32, mark: u32) {
        if let Some(held) = self.marks.get_mut(session as usize) {
            *held = mark;
        }
    }

    fn name(&self, port: Option<u8>) -> &'static str {
        port.and_then(|port| self.names.get(usize::from(port)).copied()).unwrap_or("")
    }
}

impl Tally for Effects {
    fn count(&mut self, counter: CounterId, octets: u32) {
        self.counters.add(counter.0, octets);
    }

    fn log(&mut self, log: LogId, candidate: &Candidate) {
        // Behind all ports the appliance itself.
        let port = candidate.input.map_or(self.site.clients.len() + 1, usize::from);
        if !self.lines.allows(port, log.0.into(), self.now) {
            return;
        }
        let Some(rules::object::Log { prefix, level }) = self.site.policy.logs.get(usize::from(log.0)) else {
            return;
        };
        let level = match level {
            Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
        };
        let (input, output) = (self.name(candidate.input), self.name(candidate.output));
        log::log!(target: "rules", level, "{}: in={input} out={output} {}", prefix.trim_end_matches([' ', ':']), Shown(candidate));
    }

    fn connections(&mut self, count: CountId, key: &Numbers, direction: Direction) -> bool {
        self.counts.holds(count, key, self.session, direction)
    }

    fn segment(&mut self, octets: u16) {
        self.segment = Some(Clamp::and(self.segment, octets));
    }

    fn memory(&mut self) -> Option<(&mut Memory, u64)> {
        let micros = u64::try_from(self.now.total_micros()).unwrap_or(0);
        Some((&mut self.memory, micros.saturating_mul(1000)))
    }

    fn met(&mut self, met: Met) {
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.len() < watched.capacity()) {
            watched.push(met);
        }
        let ends = match met {
            Met::Rule(_, action) => {
                !matches!(action, None | Some(Action::Jump(_) | Action::Goto(_) | Action::Return))
            }
            Met::Policy { .. } => true,
            Met::Base { .. } => false,
        };
        if ends {
            // Full when nobody asks.
            let _ = self.met.push(met);
        }
    }
}

/// A packet in a log line.
struct Shown<'a>(&'a Candidate);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { source, destination, protocol, length, ttl, identification, .. } = self.0;
        write!(f, "source={source} destination={destination} length={length} ttl={ttl} id={identification}")?;
        write!(f, " protocol={protocol}")?;
        match (protocol, self.0.icmp) {
            (_, Some((kind, code))) => write!(f, " type={kind} code={code}"),
            (6, _) => {
                let Candidate { source_port, destination_port, tcp_flags, .. } = self.0;
                write!(
                    f,
                    " source_port={source_port} destination_port={destination_port} flags={tcp_flags:#04x}"
                )
            }
            (17, _) => {
                let Candidate { source_port, destination_port, .. } = self.0;
                write!(f, " source_port={source_port} destination_port={destination_port}")
            }
            _ => Ok(()),
        }
    }
}
