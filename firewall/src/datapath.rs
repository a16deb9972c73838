//! The path of a packet, from the port it came in by to the port it leaves by.
//!
//! Read `Datapath::walk` from top to bottom: look, decide, then write. What leaves the path on the
//! way is next door (`fragments`, `answers`, `links` for ARP), and so is what it asks: `policy`,
//! `source`, `exit`. Nothing is changed before the packet is sure to leave: what is dropped is what
//! was received, and what an ICMP error quotes is what was sent.

mod answers;
mod exit;
mod fragments;
mod frame;
mod known;
mod lifecycle;
mod links;
mod policy;
mod source;
mod status;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::Range;

use nat::{
    Binding, Direction, Endpoint, Fragment, Guess, Hit, Malformed, Nat, Packet, Session, Translation, Tuple,
    Unbound, protocol,
};
use netback::ethernet::{self, Destination};
use netback::{ETHERNET_HEADER, Flow, Frame, Head, Link, Offload};
use rules::site::Site;
use rules::{Candidate, Hook, Point, Policy, Reject, Residue, SourceNat, Stage, State, Tally, Verdict};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress, EthernetProtocol};

use crate::candidate::{answered, candidate, connection, foreseen, own};
use crate::config::{held_fragments, held_syns, nat_config, nat_options, static_forwards};
use crate::counters::{Dropped, RuleCounter, RuleCounters};
use crate::effects::Effects;
use crate::fragment::{self, Fate, Fragments, Way};
use crate::icmp::{self, Answer, Limiter, Message};
use crate::identification::Identifications;
use crate::neighbor::{self, Due, Neighbors, Waiting};
use crate::port::{Port, unsent};
use crate::route::{Hop, Routes, UPLINK};
use crate::segment;
use crate::syn::Syns;

use exit::readdress;
use frame::{leaving_offload, parse};
pub(crate) use known::KnownWays;
use policy::{Judged, state};
pub use status::{MET_MAX, Occupancy};

/// Frames taken from one port before the next has its turn.
pub const BATCH: usize = 64;
/// Frames after which a turn is likely to be followed by another: fewer came alone, and the next may be long in coming.
const FEW: usize = 3;
/// Sessions that caches near the processor hold no more: from here on loading ahead pays.
const LARGE: u32 = 4096;
/// Time between two rounds of upkeep: under load a turn takes some ten microseconds.
const ROUND: Duration = Duration::from_millis(10);
/// Sessions looked at for expiry in one round.
const SESSIONS_A_ROUND: usize = 256;
/// Neighbours and datagrams looked at in one round.
const ENTRIES_A_ROUND: usize = 64;
/// Buckets of each port for the limits on errors, on what hosts are told besides, on echo replies, and on two notices in
/// the log.
pub(crate) const LIMITERS: [usize; 5] = [512, 64, 1, 1, 1];
/// How often links are asked about what changes rarely.
const TICK: Duration = Duration::from_secs(1);

/// The appliance between its ports.
pub struct Datapath<L: Link> {
    ports: Vec<Port<L>>,
    routes: Routes,
    known: KnownWays,
    neighbors: Neighbors<L::Frame>,
    fragments: Fragments<L::Frame>,
    syns: Syns<L::Frame>,
    identifications: Identifications,
    changes: lifecycle::Changes,
    nat: Nat,
    site: &'static Site,
    policy: &'static Policy,
    /// What the policy leaves to do for packets of sessions that both sides have spoken in.
    established: Residue,
    effects: Effects,
    /// Packets that each rule, or chain's policy, ended.
    refused: RuleCounters,
    errors: Limiter,
    replies: Limiter,
    echoes: Limiter,
    /// Lines about sessions that there was no room for, and about those that had to go.
    refusals: Limiter,
    evictions: Limiter,
    /// Sessions that had to go.
    evicted: u64,
    /// The frames at hand; empty between turns.
    batch: Vec<(L::Frame, Guess)>,
    upkeep_due: Instant,
    ticked: Option<Instant>,
}

/// Where headers are read and written: kept from packet to packet, so that it is not cleared for each.
struct Scratch {
    packet: Packet,
    head: Head,
}

/// What is done with a packet that nothing speaks against.
enum Step {
    /// It leaves this way.
    Forward(Way),
    /// It is for the appliance itself, and the rules let it in.
    Deliver,
    /// An unsolicited SYN that is answered later, if at all.
    Hold(Tuple),
}

/// Why a packet ends here, and what its sender is told.
struct Refusal {
    reason: Dropped,
    answer: Option<Answer>,
}

impl Refusal {
    fn told(reason: Dropped, answer: Answer) -> Self {
        Self { reason, answer: Some(answer) }
    }
}

impl From<Dropped> for Refusal {
    fn from(reason: Dropped) -> Self {
        Self { reason, answer: None }
    }
}

impl<L: Link> Datapath<L> {
    /// The appliance of `site` over `links`: the uplink first, then the clients as in `weir.toml`.
    ///
    /// All tables are allocated here. `seed` keys hashing and port choice.
    ///
    /// # Panics
    /// If there is not one link for the uplink and each client.
    pub fn new(site: &'static Site, links: Vec<L>, seed: [u64; 4]) -> Self {
        assert_eq!(links.len(), site.clients.len() + 1, "one link for the uplink and each client");
        let names = core::iter::once("uplink").chain(site.clients.iter().map(|client| client.name));
        let ports: Vec<_> = names.zip(links).map(|(name, link)| Port::new(name, link)).collect();
        let count = ports.len();
        let routes = Routes::new(site);
        let reserved = static_forwards(site, routes.external());
        let config = nat_config(site, &routes);
        let nat = Nat::with_options(&config, &reserved, [seed[0], seed[1]], nat_options(site));
        Self {
            neighbors: Neighbors::new(count, seed[2]),
            ports,
            known: KnownWays::new(),
            fragments: Fragments::new(held_fragments(site), seed[2] ^ seed[3]),
            syns: Syns::new(held_syns(site)),
            identifications: Identifications::new(seed[3] ^ seed[0]),
            changes: lifecycle::Changes::default(),
            nat,
            site,
            policy: &site.policy,
            established: site.policy.established(),
            effects: Effects::new(site, seed[2].rotate_left(17) ^ seed[3]),
            refused: RuleCounters::new(site.policy.lines.len()),
            // RFC 1812 4.3.2.8: a burst of 6, then one a second per destination.
            errors: Limiter::new(count, LIMITERS[0], 6, 1000, seed[3]),
            replies: Limiter::new(count, LIMITERS[1], 1000, 1, seed[3] ^ 1),
            echoes: Limiter::new(count, LIMITERS[2], 1000, 1, 0),
            refusals: Limiter::new(count, LIMITERS[3], 3, 10_000, 0),
            evictions: Limiter::new(count, LIMITERS[4], 3, 10_000, 0),
            evicted: 0,
            routes,
            batch: Vec::with_capacity(BATCH),
            upkeep_due: Instant::ZERO,
            ticked: None,
        }
    }

    /// One turn: up to [`BATCH`] frames of every port, and at times a bounded round of upkeep.
    ///
    /// True if there is more to do at once, or likely to be: otherwise links may be asked to [`sleep`](Self::sleep).
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut received = 0;
        self.effects.now = now;
        let mut scratch = Scratch { packet: Packet::EMPTY, head: Head::EMPTY };
        let mut batch = core::mem::take(&mut self.batch);
        self.nat.advance_to(now);
        self.known.begin(self.nat.counts().sessions);
        self.end_counted();
        for port in &mut self.ports {
            port.link.begin(now);
        }
        for input in 0..self.ports.len() {
            // What few sessions need is near the processor anyway.
            if self.nat.counts().sessions < LARGE {
                for _ in 0..BATCH {
                    let Some(frame) = self.ports[input].link.receive() else { break };
                    received += 1;
                    self.take(input, frame, Guess::NONE, &mut scratch, now);
                }
                continue;
            }
            self.receive(input, &mut batch);
            received += batch.len();
            for (frame, guess) in batch.drain(..) {
                self.take(input, frame, guess, &mut scratch, now);
            }
        }
        self.batch = batch;
        self.known.end(received);
        let more = now >= self.upkeep_due && self.upkeep(now);
        for port in &mut self.ports {
            port.link.finish();
        }
        received > FEW || more
    }

    /// The next frames of a port. Their sessions are foreseen before the first of them is looked at: the
    /// misses of a batch overlap.
    #[inline]
    fn receive(&mut self, input: usize, batch: &mut Vec<(L::Frame, Guess)>) {
        for _ in 0..BATCH {
            let Some(frame) = self.ports[input].link.receive() else { break };
            let guess = self.nat.foresee(frame.octets().get(ETHERNET_HEADER..).unwrap_or_default());
            // It was made for so many.
            batch.push((frame, guess));
        }
    }

    /// One frame, to its end.
    #[inline(always)]
    fn take(&mut self, input: usize, frame: L::Frame, guess: Guess, scratch: &mut Scratch, now: Instant) {
        let result = match self.known.is_of_use {
            true => self.follow_or_walk(input, frame, guess, scratch, now),
            false => self.walk(input, frame, guess, scratch, now),
        };
        if let Err(reason) = result {
            self.ports[input].counters.drop(reason);
        }
    }

    /// The path of one packet.
    #[inline(never)]
    fn walk(
        &mut self,
        input: usize,
        frame: L::Frame,
        guess: Guess,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(), Dropped> {
        let port = &mut self.ports[input];
        match frame.octets().first_chunk() {
            Some(front) if port.front == Some(*front) => {
                if core::mem::replace(&mut port.heard, now) != now {
                    self.neighbors.hear(input, ethernet::source(front), now);
                }
            }
            _ if self.meet(input, frame.octets(), now)? => {}
            _ => return Ok(()),
        }
        let packet = &mut scratch.packet;
        self.effects.segment = None;
        parse(packet, &frame)?;
        if !self.routes.source_is_behind(input, packet.source()) {
            return Err(Dropped::Spoofed);
        }
        match packet.fragment() {
            None => {
                let step = self.decide(input, frame.octets(), packet, guess, now);
                if self.known.learns() {
                    self.learn(input, frame.octets(), packet, &step);
                }
                self.act(input, frame, scratch, &step, now)
            }
            Some(fragment) => self.walk_fragment(input, frame, fragment, scratch, now),
        }
    }

    /// The link's part of a frame that does not begin as the last one did here: whether it carries a packet for us.
    #[inline(never)]
    fn meet(&mut self, input: usize, octets: &[u8], now: Instant) -> Result<bool, Dropped> {
        let port = &mut self.ports[input];
        if port.is_removed {
            return Err(Dropped::PortDown);
        }
        // A copy: what is kept is what was looked at, whatever the device does meanwhile.
        let front: [u8; ETHERNET_HEADER] = *octets.first_chunk().ok_or(Dropped::Runt)?;
        let (ethernet, _) = ethernet::strip(&front).map_err(|_| Dropped::Runt)?;
        let sender = ethernet.source;
        if !sender.is_unicast() || sender == UNRESOLVED || sender == port.mac {
            return Err(Dropped::BadStation);
        }
        self.neighbors.hear(input, sender, now);
        match (ethernet.ethertype, ethernet.destination(port.mac)) {
            (_, Destination::Other) => Err(Dropped::OtherStation),
            (EthernetProtocol::Arp, _) => {
                let payload = octets.get(ETHERNET_HEADER..).unwrap_or_default();
                let claim = neighbor::parse(payload).ok_or(Dropped::Arp)?;
                self.hear(input, claim, now).map(|()| false)
            }
            (EthernetProtocol::Ipv4, Destination::Own) => {
                (port.front, port.heard) = (Some(front), now);
                Ok(true)
            }
            // RFC 1122 3.3.6: a packet for one host has no business in a frame for many.
            (EthernetProtocol::Ipv4, _) => Err(Dropped::OtherStation),
            _ => Err(Dropped::EtherType),
        }
    }

    /// What becomes of the packet of a frame: its session knows, or the rules do.
    fn decide(
        &mut self,
        input: usize,
        frame: &[u8],
        packet: &Packet,
        guess: Guess,
        now: Instant,
    ) -> Result<Step, Refusal> {
        if let Some(embedded) = packet.embedded() {
            return match self.nat.lookup_error(embedded, packet.destination()) {
                Some(hit) => self.relate(input, frame, packet, hit),
                None => self.unrelated(input, frame, packet),
            };
        }
        // TCP, UDP, ICMP queries; by address alone SCTP, GRE, ESP and whatever else.
        let Some(tuple) = packet.tuple_with(true) else {
            let is_icmp = packet.protocol() == protocol::ICMP;
            return Err(if is_icmp { Dropped::IcmpType } else { Dropped::Protocol }.into());
        };
        // A query and the reply to another one may have the same tuple: their directions differ.
        let answers = |hit: &Hit| {
            tuple.protocol() != protocol::ICMP || packet.opens() == (hit.direction == Direction::Original)
        };
        match self.nat.lookup_at(&tuple, guess).filter(answers) {
            Some(hit) => self.proceed(input, frame, packet, hit),
            None => self.open(input, frame, packet, tuple, now),
        }
    }

    /// A packet of a session: what the policy left to do, then what TCP allows.
    fn proceed(&mut self, input: usize, frame: &[u8], packet: &Packet, hit: Hit) -> Result<Step, Refusal> {
        let translation = self.nat.translation(hit);
        let session = self.nat.session(hit.session);
        let residue = match Residue::from_bits(session.residue(hit.direction)) {
            Residue::UNKNOWN => self.foresee(hit),
            residue => residue,
        };
        let hop = match self.hop(packet, translation.destination().address) {
            Ok(hop) if residue.is_settled() => hop,
            hop => {
                let state = state(self.nat.session(hit.session), hit.direction);
                match self.judge((input, frame), hop, packet, &translation, hit, state)? {
                    Judged::On(hop) => hop,
                    Judged::Untracked(step) => return Ok(step),
                }
            }
        };
        let way = self.leave(packet, hit, hop, translation, residue)?;
        let hit = residue.is_settled().then_some(hit);
        Ok(Step::Forward(Way { hit, ..way }))
    }

    /// A packet of a session leaves, if TCP has nothing against it.
    #[inline(always)]
    fn leave(
        &mut self,
        packet: &Packet,
        hit: Hit,
        hop: Hop,
        translation: Translation,
        residue: Residue,
    ) -> Result<Way, Dropped> {
        let admitted = self.nat.admit(hit, packet).map_err(|refused| match refused {
            nat::Refused::Reset => Dropped::TcpState,
            nat::Refused::Window => Dropped::TcpWindow,
        })?;
        for counter in residue.counters() {
            self.effects.count(counter, packet.total_len().into());
        }
        if admitted.first_reply {
            self.establish(hit);
        }
        Ok(Way::new(hop, translation, hit.session.index()))
    }

    /// An ICMP error about a session (`ct state related`): it neither ends nor refreshes it
    /// (RFC 5508 REQ-6).
    fn relate(&mut self, input: usize, frame: &[u8], packet: &Packet, hit: Hit) -> Result<Step, Refusal> {
        let translation = self.nat.translation(hit);
        let session = self.nat.session(hit.session);
        let side = session.tuple(hit.direction).source().address;
        if self.routes.lookup(side).map(|hop| hop.port) != Some(input) {
            return Err(Dropped::Spoofed.into());
        }
        let hop = self.hop(packet, translation.destination().address);
        let hop = match self.judge((input, frame), hop, packet, &translation, hit, State::Related)? {
            Judged::On(hop) => hop,
            Judged::Untracked(step) => return Ok(step),
        };
        Ok(Step::Forward(Way::new(hop, translation, hit.session.index())))
    }

    /// A packet without a session: the rules decide, and a session remembers what they said.
    fn open(
        &mut self,
        input: usize,
        frame: &[u8],
        packet: &Packet,
        tuple: Tuple,
        now: Instant,
    ) -> Result<Step, Refusal> {
        let local = match input {
            UPLINK => self.routes.external().contains(&packet.destination()),
            _ => self.routes.is_own(packet.destination()),
        };
        // Who has no session may be answered where he is.
        let is_ours = local || input != UPLINK;
        if !is_ours && !self.policy.untracks {
            return Err(Dropped::NotOurs.into());
        }
        if !local && !self.routes.is_forwardable(packet.destination()) {
            return Err(Dropped::BadDestination.into());
        }
        let is_portless = packet.tuple().is_none();
        let opens = packet.opens() || is_portless || self.nat.may_pick_up(packet);
        let state = if opens { State::New } else { State::Invalid };
        let mut candidate = candidate(input, frame, packet, state);
        self.look_at(None);
        if self.ahead_of_tracking(packet, &mut candidate)? {
            return self.route_untracked(packet, &mut candidate);
        }
        if !is_ours {
            return Err(Dropped::NotOurs.into());
        }
        let decision = self.policy.evaluate(Stage::Received, &mut candidate, &mut self.effects);
        self.refuse(packet, decision.verdict)?;
        let mapped = self.mapped(input, &tuple, &candidate, decision.dnat.is_some());
        if let Some(internal) = mapped {
            candidate.destination = internal.address;
            candidate.destination_port = internal.port;
            candidate.dnat = true;
        }
        let translated = self.policy.evaluate(Stage::Translated, &mut candidate, &mut self.effects);
        self.refuse(packet, translated.verdict)?;
        if mapped.is_none() && self.routes.is_own(candidate.destination) {
            let decision = self.policy.evaluate(Hook::Input, &mut candidate, &mut self.effects);
            if input == UPLINK && self.is_kept(packet, decision.verdict) {
                return Ok(Step::Hold(tuple));
            }
            return self.refuse(packet, decision.verdict).map(|()| Step::Deliver);
        }
        let hop = self.hop(packet, candidate.destination)?;
        candidate.output = Some(hop.port as u8);
        candidate.ttl = candidate.ttl.saturating_sub(1);
        let forward = self.policy.evaluate(Hook::Forward, &mut candidate, &mut self.effects);
        self.refuse(packet, forward.verdict)?;
        let postrouting = self.policy.evaluate(Hook::Postrouting, &mut candidate, &mut self.effects);
        self.refuse(packet, postrouting.verdict)?;
        if state == State::Invalid {
            return Err(Dropped::Invalid.into());
        }
        let destination = match (mapped, decision.dnat) {
            (Some(internal), _) => internal,
            (None, Some((address, port))) => {
                Endpoint { address, port: port.unwrap_or(tuple.destination().port) }
            }
            (None, None) => tuple.destination(),
        };
        // RFC 4787 REQ-9 a: the receiver sees the external endpoint, whatever the rules leave out.
        let mark = candidate.connection.map_or(0, |connection| connection.mark);
        let is_hairpin = mapped.is_some() && input != UPLINK && postrouting.snat.is_none();
        let source = match is_hairpin {
            true => self.hairpin_source(candidate, tuple.destination()),
            false => self.source(postrouting.snat, tuple.source().address, hop.port),
        };
        let Some(source) = source else {
            return Err(self.exhausted(input, packet, Unbound::PortsExhausted.into(), now));
        };
        let residue = [Residue::UNKNOWN, self.established].map(Residue::bits);
        let binding = Binding { original: tuple, destination, source, residue };
        // The session is the client's on whose behalf it is: the opener's, or from outside the
        // receiver's.
        let client = if input == UPLINK { hop.port } else { input }.saturating_sub(1);
        let bound = self.nat.bind_for(client as u8, binding, packet);
        self.note_given_way(input, packet, now);
        let hit = match bound {
            Ok(hit) => hit,
            Err(refusal) => return Err(self.exhausted(input, packet, refusal, now)),
        };
        self.end_counted();
        self.effects.open(hit.session.index());
        self.effects.set_mark(hit.session.index(), mark);
        self.syns.cancel(&self.nat.session(hit.session).reply());
        let translation = self.nat.translation(hit);
        Ok(Step::Forward(Way::new(hop, translation, hit.session.index())))
    }

    /// Does what was decided.
    #[inline(always)]
    fn act(
        &mut self,
        input: usize,
        frame: L::Frame,
        scratch: &mut Scratch,
        step: &Result<Step, Refusal>,
        now: Instant,
    ) -> Result<(), Dropped> {
        match step {
            Ok(Step::Forward(way)) => self.forward(input, frame, scratch, way, now),
            Ok(Step::Deliver) => self.deliver(input, frame, &scratch.packet, now),
            // RFC 5382 REQ-4: an unsolicited segment from outside meets silence.
            Ok(Step::Hold(tuple)) => {
                self.syns.hold(*tuple, frame, now);
                Err(Dropped::Unsolicited)
            }
            &Err(Refusal { reason, answer: None }) => Err(reason),
            &Err(Refusal { reason, answer: Some(answer) }) => {
                self.answer(input, frame, &scratch.packet, (answer, State::Related), now);
                Err(reason)
            }
        }
    }

    /// The packet leaves: a new head in front of the untouched payload.
    #[inline(always)]
    fn forward(
        &mut self,
        input: usize,
        frame: L::Frame,
        scratch: &mut Scratch,
        way: &Way,
        now: Instant,
    ) -> Result<(), Dropped> {
        let Scratch { packet, head } = scratch;
        let output = &self.ports[way.hop.port];
        head.begin(UNRESOLVED, output.mac, EthernetProtocol::Ipv4);
        head.flow = Flow { input: input as u8, number: way.flow };
        head.offload = leaving_offload(packet, frame.offload(), output.mtu);
        let length = packet.rewrite(head.network_mut(), way.translation).len();
        head.take(length);
        let is_cut = usize::from(packet.total_len()) > output.mtu && head.offload.segments.is_none();
        let identification = match way.identification {
            // What was whole becomes fragments.
            None if is_cut => self.identifications.fresh(packet, &way.translation),
            None => self.identifications.distinct(packet, &way.translation),
            given => given,
        };
        if let (Some(identification), Some(header)) =
            (identification, head.as_mut_slice().get_mut(ETHERNET_HEADER..))
        {
            fragment::set_identification(header, identification);
        }
        if is_cut {
            return self.cut(input, frame, packet, head, way.hop, now);
        }
        let mut taken = packet.head_len();
        let clamp = self.effects.segment;
        // Only what has a TCP header, not the later fragments of it.
        if (clamp.is_some() || head.offload.segments.is_some()) && packet.tcp().is_some() {
            let octets = frame.octets().get(ETHERNET_HEADER..).unwrap_or_default();
            let header = packet.header_len();
            taken = segment::take_header(head, octets, header, taken).ok_or(Dropped::Malformed)?;
            if let Some(clamp) = clamp {
                let most = clamp.octets([output.mtu, self.ports[input].mtu]);
                segment::lower(head, header, most, packet.checksum() == nat::Checksum::Partial);
            }
        }
        let payload = ETHERNET_HEADER + taken..ETHERNET_HEADER + usize::from(packet.total_len());
        self.send(input, (frame, true), head, payload, way.hop, now)
    }
}

/// The destination of a frame whose next hop is still to be looked up; no station has it.
const UNRESOLVED: EthernetAddress = EthernetAddress([0; 6]);
