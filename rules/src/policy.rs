//! Evaluation: what the chains of a hook say about a packet.
//!
//! As netfilter has it: the base chains of a hook run in order of priority; `accept` ends its base chain only,
//! `drop` ends the packet. Chains of type nat see the first packet of a session, and the first of them that
//! translates ends the others of that hook.

use core::net::Ipv4Addr;

use crate::candidate::{Candidate, Direction, Hook, State};
use crate::code::Code;
use crate::forward::Forward;
use crate::memory::{Memory, Numbers};
use crate::object::{Count, CountId, DynamicSet, Limit, Log, LogId, Quota};
use crate::opening::Openings;
use crate::residue::Residue;
use crate::table::{Action, Base, Chain, CounterId, Kind, Location, RuleId, Stage};
use crate::translation::{DestinationChoice, SourceChoice, SourceNat};
use crate::walk::{self, Ending};
use crate::walkers::{Foreseen, Known, Seen};

/// Protocols that have ports where TCP and UDP have them, and sessions by address alone: DCCP, SCTP, UDP-Lite.
pub const OTHER_PORTS: [u8; 3] = [33, 132, 136];

/// The compiled `rules.nft`.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The base chains of each hook in the order in which they run, indexed as [`Hook::ALL`].
    pub hooks: [&'static [Base]; 5],
    /// The rules of every chain, base or not.
    pub chains: &'static [Chain],
    /// The chains that first packets meet in place of base chains.
    pub openings: Openings,
    /// What the rules consist of.
    pub code: Code,
    /// The files of the policy, with the numbers of their first lines among all lines, from 1.
    pub files: &'static [(u32, &'static str)],
    /// On which of all lines each rule, and each chain's policy, stands; indexed by [`RuleId`].
    pub lines: &'static [u32],
    /// On which of all lines each counter stands; indexed by [`CounterId`].
    pub counter_lines: &'static [u32],
    /// The external ports that dnat rules answer for, see [`Policy::forwards`](Policy::forwards()).
    pub forwards: &'static [Forward],
    /// Indexed by [`LimitId`](crate::object::LimitId).
    pub limits: &'static [Limit],
    /// Indexed by [`QuotaId`](crate::object::QuotaId).
    pub quotas: &'static [Quota],
    /// Indexed by [`LogId`].
    pub logs: &'static [Log],
    /// Indexed by [`SetId`](crate::object::SetId).
    pub dynamic_sets: &'static [DynamicSet],
    /// Indexed by [`CountId`].
    pub counts: &'static [Count],
    /// Whether rules set `ct mark`: else it is 0 for every connection.
    pub marks_connections: bool,
    /// Whether rules look at ports of protocols whose sessions have none: SCTP, DCCP and UDP-Lite.
    pub reads_other_ports: bool,
    /// Whether rules keep packets out of the session table.
    pub untracks: bool,
}

/// Takes what statements count, remember and log.
pub trait Tally {
    /// A packet of this length, in octets, met the counter.
    fn count(&mut self, counter: CounterId, octets: u32);
    /// A packet met a log statement.
    fn log(&mut self, log: LogId, candidate: &Candidate);
    /// What stateful statements remember, and the time in nanoseconds. Without it each of them lets the packet
    /// go on, and nothing is remembered.
    fn memory(&mut self) -> Option<(&mut Memory, u64)>;
    /// A packet came to `ct count` with the key of its element; whether it goes on. `direction` is that of its
    /// connection, if it has one or may open one.
    fn connections(&mut self, _: CountId, _: &Numbers, _: Direction) -> bool {
        true
    }
    /// The maximum segment size that the packet offers is to be no greater than this, in octets; 0 stands for what
    /// the links on its way take.
    fn segment(&mut self, _: u16) {}
    /// Something on the way through the chains, for people who want to see it.
    fn met(&mut self, _: Met) {}
}

/// What a packet meets on its way through the chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// A base chain, which is walked from here on.
    Base {
        /// Names it: where its hook is declared.
        id: RuleId,
        /// Whether it filters or translates.
        kind: Kind,
    },
    /// A rule whose matches hold, with how it ends; `None` for one that goes on behind itself.
    Rule(RuleId, Option<Action>),
    /// The end of a base chain without a verdict.
    Policy {
        /// Names the base chain.
        id: RuleId,
        /// Whether the packet passes.
        accepts: bool,
    },
}

/// A hook, or one stage of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    hook: Hook,
    stage: Option<Stage>,
}

impl From<Hook> for Point {
    fn from(hook: Hook) -> Self {
        Self { hook, stage: None }
    }
}

impl From<Stage> for Point {
    /// A stage of prerouting.
    fn from(stage: Stage) -> Self {
        Self { hook: Hook::Prerouting, stage: Some(stage) }
    }
}

/// How the sender of a refused packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// ICMP destination unreachable (type 3) with this code.
    Icmp(u8),
    /// A TCP segment with RST.
    TcpReset,
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this hook.
    Accept,
    /// It ends here, by this rule or policy.
    Drop(RuleId),
    /// It ends here, by this rule, and its sender is told.
    Reject(RuleId, Reject),
}

/// What a hook says about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The new destination of its session: the address, and the port unless that stays.
    pub dnat: Option<(Ipv4Addr, Option<u16>)>,
    /// Where the new source of its session is taken from.
    pub snat: Option<SourceNat>,
}

impl Decision {
    /// It passes as it is.
    const ACCEPT: Self = Self { verdict: Verdict::Accept, dnat: None, snat: None };
}

impl Policy {
    /// A policy without chains: everything passes.
    pub const EMPTY: Self = Self {
        hooks: [&[]; 5],
        chains: &[],
        openings: Openings::NONE,
        code: Code::EMPTY,
        files: &[],
        lines: &[],
        counter_lines: &[],
        forwards: &[],
        limits: &[],
        quotas: &[],
        logs: &[],
        dynamic_sets: &[],
        counts: &[],
        marks_connections: false,
        reads_other_ports: false,
        untracks: false,
    };

    /// What the chains of a hook, or of a stage of one, say about the first packet of a session, or a packet of none.
    ///
    /// Nat chains run while the candidate's state is new; a dnat changes the candidate's destination, and its
    /// `dnat`, for the chains that follow.
    #[inline(always)]
    pub fn evaluate(
        &self,
        at: impl Into<Point>,
        candidate: &mut Candidate,
        tally: &mut impl Tally,
    ) -> Decision {
        let Point { hook, stage } = at.into();
        match self.hook(hook) {
            [] => Decision::ACCEPT,
            bases => self.evaluate_chains((bases, stage), candidate, tally, candidate.state == State::New),
        }
    }

    /// What the chains of a hook, or of a stage of one, say about a later packet of a session: nat chains have had their say.
    /// Marks that rules set are the candidate's for the chains that follow.
    #[inline(always)]
    pub fn evaluate_later(
        &self,
        at: impl Into<Point>,
        candidate: &mut Candidate,
        tally: &mut impl Tally,
    ) -> Verdict {
        let Point { hook, stage } = at.into();
        match self.hook(hook) {
            [] => Verdict::Accept,
            bases => self.evaluate_chains((bases, stage), candidate, tally, false).verdict,
        }
    }

    #[inline(never)]
    fn evaluate_chains(
        &self,
        (bases, stage): (&'static [Base], Option<Stage>),
        candidate: &mut Candidate,
        tally: &mut impl Tally,
        mut translates: bool,
    ) -> Decision {
        let mut decision = Decision::ACCEPT;
        for base in bases {
            let is_elsewhere = stage.is_some_and(|stage| stage != base.stage);
            if is_elsewhere || base.kind == Kind::Nat && !translates {
                continue;
            }
            tally.met(Met::Base { id: base.id, kind: base.kind });
            let chain = self.openings.chain(base, candidate);
            let (rule, action) = match walk::walk(self, chain, &mut Seen { candidate, tally }) {
                Ending::Verdict(rule, action) => (rule, action),
                Ending::Policy => {
                    tally.met(Met::Policy { id: base.id, accepts: base.accepts });
                    (base.id, if base.accepts { &Action::Accept } else { &Action::Drop })
                }
                // Nothing is unknown about a packet that is here; were it so, it would not pass.
                Ending::Unknown => (base.id, &Action::Drop),
            };
            match *action {
                Action::Accept => {}
                Action::Reject(how) => {
                    decision.verdict = Verdict::Reject(rule, how);
                    break;
                }
                Action::Dnat(to) => {
                    decision.dnat = Some(redirect(to, candidate));
                    translates = false;
                }
                Action::Snat(to) => {
                    decision.snat = Some(hide(to, candidate));
                    translates = false;
                }
                // The walk has done what others say.
                Action::Drop | Action::Return | Action::Jump(_) | Action::Goto(_) => {
                    decision.verdict = Verdict::Drop(rule);
                    break;
                }
            }
        }
        decision
    }

    /// What is left to do at a hook, or a stage of one, for later packets of the candidate's session and direction.
    ///
    /// The same walk as [`Policy::evaluate_later`], by one who does not know what differs from packet to packet:
    /// TTL, length, identification, TOS, TCP flags. The candidate's state is that of the later packets.
    #[must_use]
    pub fn residue(&self, at: impl Into<Point>, candidate: &Candidate) -> Residue {
        // A session by address alone has packets from and to many ports.
        if self.reads_other_ports && OTHER_PORTS.contains(&candidate.protocol) {
            return Residue::PER_PACKET;
        }
        let mut walker = Foreseen { known: Known::Session(candidate), residue: Residue::ACCEPT };
        match self.passes(at.into(), &mut walker) {
            true => walker.residue,
            false => Residue::PER_PACKET,
        }
    }

    /// What is left to do for every packet that goes from port to port by a session that both sides have spoken in, if
    /// that follows from its state alone; else [`Residue::UNKNOWN`], and [`Policy::residue`] tells it of each session.
    #[must_use]
    pub fn established(&self) -> Residue {
        let hooks = [
            Stage::Received.into(),
            Stage::Translated.into(),
            Hook::Forward.into(),
            Hook::Postrouting.into(),
        ];
        let hooks = hooks.map(|at: Point| (at, State::Established));
        let mut residue = Residue::ACCEPT;
        // Sessions are not known at first.
        for (at, state) in core::iter::once((Stage::Untracked.into(), State::Invalid)).chain(hooks) {
            let mut walker = Foreseen { known: Known::State(state), residue: Residue::ACCEPT };
            if !self.passes(at, &mut walker) {
                return Residue::UNKNOWN;
            }
            residue = residue.then(walker.residue);
        }
        residue
    }

    /// Whether the filter chains of a hook, or of a stage of one, let later packets pass, as far as the walker knows.
    fn passes(&self, at: Point, walker: &mut Foreseen) -> bool {
        self.bases(at).filter(|base| base.kind == Kind::Filter).all(|base| {
            match walk::walk(self, base.chain, walker) {
                Ending::Verdict(_, Action::Accept) => true,
                Ending::Policy => base.accepts,
                _ => false,
            }
        })
    }

    /// Where a rule, or a chain's policy, stands.
    #[must_use]
    pub fn location(&self, rule: RuleId) -> Location {
        self.place(self.lines.get(usize::from(rule.0)).copied().unwrap_or(0))
    }

    /// Where each rule, and each chain's policy, stands, one per [`RuleId`].
    pub fn locations(&self) -> impl ExactSizeIterator<Item = Location> + '_ {
        self.lines.iter().map(|&line| self.place(line))
    }

    /// Where each counter stands, one per [`CounterId`].
    pub fn counters(&self) -> impl ExactSizeIterator<Item = Location> + '_ {
        self.counter_lines.iter().map(|&line| self.place(line))
    }

    /// The file and line of one of all lines.
    fn place(&self, line: u32) -> Location {
        let after = self.files.partition_point(|&(first, _)| first <= line);
        match after.checked_sub(1).and_then(|at| self.files.get(at)) {
            Some(&(first, file)) => Location { file, line: line - first + 1 },
            None => Location { file: "rules.nft", line },
        }
    }

    /// Whether a hook, or a stage of one, has a chain.
    #[must_use]
    pub fn has_chains(&self, at: impl Into<Point>) -> bool {
        self.bases(at.into()).next().is_some()
    }

    /// Whether no hook has a chain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hooks.iter().all(|bases| bases.is_empty())
    }

    /// A chain; none when there is no such chain.
    pub(crate) fn chain(&self, chain: u16) -> Option<&'static Chain> {
        self.chains.get(usize::from(chain))
    }

    /// The base chains of a hook.
    #[inline]
    fn hook(&self, hook: Hook) -> &'static [Base] {
        self.hooks.get(hook as usize).copied().unwrap_or_default()
    }

    fn bases(&self, Point { hook, stage }: Point) -> impl Iterator<Item = &'static Base> {
        self.hook(hook).iter().filter(move |base| stage.is_none_or(|stage| stage == base.stage))
    }
}

/// Puts a new destination into effect for the chains that follow.
fn redirect(to: DestinationChoice, candidate: &mut Candidate) -> (Ipv4Addr, Option<u16>) {
    let (address, port) = to.of(candidate);
    let port_then = port.unwrap_or(candidate.destination_port);
    candidate.dnat |= (address, port_then) != (candidate.destination, candidate.destination_port);
    candidate.destination = address;
    candidate.destination_port = port_then;
    (address, port)
}

/// Puts a new source into effect for the chains that follow.
fn hide(to: SourceChoice, candidate: &mut Candidate) -> SourceNat {
    let source = to.of(candidate);
    let shown = source.shown();
    candidate.snat |= shown != Some(candidate.source);
    candidate.source = shown.unwrap_or(candidate.source);
    source
}
