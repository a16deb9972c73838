//! The way of sets of packets through the chains: a set that a rule takes in part is cut in two.

use rules::table::{Action, Effect, Field, Kind, RuleId, Stage};
use rules::translation::SourceChoice;
use rules::{Hook, State};

use super::piece::Piece;
use super::world::World;
use crate::lower::intersection;
use crate::plan::Plan;
use crate::program::{Program, Rule, Step};

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// They leave.
    Passed,
    /// They reach the appliance itself.
    Delivered,
    /// A rule, or a chain's policy, ends them.
    Dropped(RuleId),
    /// No route leads to where they go.
    Unroutable,
}

/// Whether more is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Stop,
}

/// Packets at a place on their way.
struct Place {
    hook: Hook,
    /// The base chain of the hook that they are in, or come to.
    base: usize,
    /// The chains that they are in, with the next rule of each.
    stack: Vec<(usize, usize)>,
    /// No chain of this hook has translated them.
    translates: bool,
    /// Whether a mapping may lead them elsewhere was not asked yet.
    may_be_mapped: bool,
    /// Whether packets with sessions are those that may have one.
    is_ours: bool,
    piece: Piece,
}

/// The way through the chains of a site.
pub(super) struct Walk<'a> {
    pub program: &'a Program,
    pub plan: &'a Plan,
    pub world: &'a World,
    /// Whether packets that are dropped ahead of their route are followed to where they would have gone.
    pub follows_dropped: bool,
    /// Whether packets that a rule ends are left to those behind it all the same: more packets come to each rule than
    /// do, and no set of them is cut in pieces that end alike.
    pub is_loose: bool,
    /// How many more steps may be taken.
    pub budget: u64,
}

impl Walk<'_> {
    /// Takes one step; `None` when there were too many.
    pub fn spend(&mut self) -> Option<()> {
        self.budget = self.budget.checked_sub(1)?;
        Some(())
    }

    /// Follows packets to all of their ends; `None` when that takes too many steps.
    pub fn follow(
        &mut self,
        piece: Piece,
        mut end: impl FnMut(&mut Self, Piece, End) -> Option<Go>,
    ) -> Option<()> {
        let mut work = vec![Place {
            hook: Hook::Prerouting,
            base: 0,
            stack: Vec::new(),
            translates: true,
            may_be_mapped: true,
            is_ours: !self.program.untracks,
            piece,
        }];
        let mut ends = Vec::new();
        while let Some(place) = work.pop() {
            self.spend()?;
            self.step(place, &mut work, &mut ends)?;
            for (piece, how) in ends.drain(..) {
                if end(self, piece, how)? == Go::Stop {
                    return Some(());
                }
            }
        }
        Some(())
    }

    /// One rule, or the way to the next chain.
    fn step(&mut self, mut place: Place, work: &mut Vec<Place>, ends: &mut Vec<(Piece, End)>) -> Option<()> {
        let program = self.program;
        let bases = &program.hooks[place.hook as usize];
        let is_tracked =
            place.stack.is_empty() && bases.get(place.base).is_none_or(|base| base.stage != Stage::Untracked);
        if is_tracked && !std::mem::replace(&mut place.is_ours, true) {
            let Some(piece) = self.with_session(place.piece) else { return Some(()) };
            place.piece = piece;
        }
        let is_translated = place.stack.is_empty()
            && place.hook == Hook::Prerouting
            && bases.get(place.base).is_none_or(|base| base.stage == Stage::Translated);
        if is_translated && place.may_be_mapped {
            place.may_be_mapped = false;
            if place.may_be_translated() {
                self.mapped(&place, work);
            }
        }
        let Some((chain, at)) = place.stack.last_mut() else {
            match bases.get(place.base) {
                None => self.next_hook(place, work, ends),
                Some(base) if base.kind == Kind::Filter && place.piece.dropped.is_some() => {
                    work.push(Place { base: place.base + 1, ..place });
                }
                Some(base) if base.kind == Kind::Nat && !place.may_be_translated() => {
                    work.push(Place { base: place.base + 1, ..place });
                }
                Some(base) => {
                    place.piece.state = match (place.piece.state, base.stage) {
                        (State::Untracked, _) => State::Untracked,
                        (_, Stage::Untracked) => State::Invalid,
                        _ => State::New,
                    };
                    place.stack.push((base.chain.into(), 0));
                    work.push(place);
                }
            }
            return Some(());
        };
        let Some(rule) = program.chains.get(*chain).and_then(|rules| rules.get(*at)) else {
            place.stack.pop();
            if let (true, Some(base)) = (place.stack.is_empty(), bases.get(place.base)) {
                if !base.accepts {
                    self.drop(base.id, place, work, ends);
                    return Some(());
                }
                place.base += 1;
            }
            work.push(place);
            return Some(());
        };
        *at += 1;
        let mut results = Vec::new();
        self.apply(rule, place.piece.clone(), &mut results)?;
        for (piece, action) in results {
            let next = Place { stack: place.stack.clone(), piece, ..place };
            match action {
                None => work.push(next),
                Some(action) => self.act(rule.id, action, next, work, ends),
            }
        }
        Some(())
    }

    /// Cuts packets into those that a rule ends, with its action, and the others.
    fn apply(&mut self, rule: &Rule, piece: Piece, results: &mut Vec<(Piece, Option<Action>)>) -> Option<()> {
        let matches = rule.steps.iter().map_while(|step| match step {
            Step::Match(wanted) => Some(wanted),
            _ => None,
        });
        // What it does not concern is not cut.
        if !matches.into_iter().all(|wanted| piece.meets(wanted)) {
            results.push((piece, None));
            return Some(());
        }
        let whole = (self.is_loose && ends_alone(rule)).then(|| piece.clone());
        let before = results.len();
        self.cut(rule, piece, results)?;
        if let Some(whole) = whole {
            let behind = results.split_off(before);
            let is_left = behind.iter().any(|(_, action)| action.is_none());
            results.extend(behind.into_iter().filter(|(_, action)| action.is_some()));
            results.extend(is_left.then_some((whole, None)));
        }
        Some(())
    }

    fn cut(&mut self, rule: &Rule, piece: Piece, results: &mut Vec<(Piece, Option<Action>)>) -> Option<()> {
        let mut work = vec![(0, piece)];
        while let Some((at, piece)) = work.pop() {
            self.spend()?;
            match rule.steps.get(at) {
                None => results.push((piece, None)),
                Some(Step::Match(wanted)) => {
                    let (taken, left) = piece.split(wanted);
                    work.extend(taken.map(|piece| (at + 1, piece)));
                    results.extend(left.map(|piece| (piece, None)));
                }
                Some(Step::Lookup(wanted)) => {
                    let (taken, left) = piece.look_up(wanted, || self.spend())?;
                    work.extend(taken.into_iter().map(|piece| (at + 1, piece)));
                    results.extend(left.into_iter().map(|piece| (piece, None)));
                }
                Some(Step::Count(_) | Step::Act(Effect::Log(_))) => work.push((at + 1, piece)),
                Some(Step::Act(Effect::Open(gate))) => work.push((at + 1, piece.behind(*gate))),
                Some(Step::Act(Effect::Through(gate))) if *gate == piece.gate => work.push((at + 1, piece)),
                Some(Step::Act(Effect::Through(_))) => results.push((piece, None)),
                // Whether it goes on makes no difference to a rule that only counts behind this.
                Some(Step::Act(_)) if rule.steps.iter().skip(at).all(is_without_effect) => {
                    results.push((piece, None));
                }
                Some(Step::Act(effect)) => {
                    let (goes_on, left) = remembered(piece, effect);
                    work.push((at + 1, goes_on));
                    results.extend(left.map(|piece| (piece, None)));
                }
                Some(Step::Do(action)) => results.push((piece.met(rule.id), Some(*action))),
            }
        }
        Some(())
    }

    fn act(
        &mut self,
        rule: RuleId,
        action: Action,
        mut place: Place,
        work: &mut Vec<Place>,
        ends: &mut Vec<(Piece, End)>,
    ) {
        match action {
            Action::Drop | Action::Reject(_) => return self.drop(rule, place, work, ends),
            Action::Jump(target) => place.stack.push((target.into(), 0)),
            Action::Goto(target) => {
                place.stack.pop();
                place.stack.push((target.into(), 0));
            }
            Action::Return => {
                // The end of the chain is the same, and says what the policy of a base chain is.
                if let Some((_, at)) = place.stack.last_mut() {
                    *at = usize::MAX;
                }
            }
            Action::Accept => place.leave_base(),
            Action::Dnat(to) => {
                place.piece.dnat(&to);
                place.translates = false;
                place.leave_base();
            }
            Action::Snat(choice) => {
                let to = match choice {
                    SourceChoice::Always(source) => Ok(source),
                    SourceChoice::Netmap(netmap) => Err(netmap),
                };
                place.piece.snat(to, self.address_of(place.piece.output));
                place.translates = false;
                place.leave_base();
            }
        }
        work.push(place);
    }

    /// A rule, or a policy, ends packets.
    fn drop(&self, rule: RuleId, mut place: Place, work: &mut Vec<Place>, ends: &mut Vec<(Piece, End)>) {
        if place.hook == Hook::Prerouting && self.follows_dropped && place.piece.dropped.is_none() {
            place.piece.dropped = Some(rule);
            place.leave_base();
            work.push(place);
        } else {
            let by = place.piece.dropped.unwrap_or(rule);
            ends.push((place.piece, End::Dropped(by)));
        }
    }

    /// The appliance's own address on a port.
    fn address_of(&self, port: Option<u8>) -> std::net::Ipv4Addr {
        let client =
            port.and_then(|port| port.checked_sub(1)).and_then(|at| self.plan.clients.get(usize::from(at)));
        client.map_or(self.plan.uplink.address.address, |client| client.address)
    }

    /// Behind the last chain of a hook.
    fn next_hook(&self, place: Place, work: &mut Vec<Place>, ends: &mut Vec<(Piece, End)>) {
        let next = |hook, piece| Place {
            hook,
            base: 0,
            stack: Vec::new(),
            translates: true,
            may_be_mapped: false,
            is_ours: true,
            piece,
        };
        match place.hook {
            Hook::Prerouting => {
                let dropped = place.piece.dropped;
                for (hook, piece) in self.routed(place.piece, ends) {
                    match dropped {
                        Some(by) => ends.push((piece, End::Dropped(by))),
                        None => work.push(next(hook, piece)),
                    }
                }
            }
            Hook::Forward => work.push(next(Hook::Postrouting, place.piece)),
            Hook::Input => ends.push((place.piece, End::Delivered)),
            Hook::Postrouting | Hook::Output => ends.push((place.piece, End::Passed)),
        }
    }

    /// Those that may have a session, or are to have none: from outside, sessions are with external addresses.
    fn with_session(&self, piece: Piece) -> Option<Piece> {
        let ports = piece.values(Field::InputPort).unwrap_or_default();
        if piece.state == State::Untracked || ports[..] != [(0, 0)] {
            return Some(piece);
        }
        let destinations = piece.values(Field::Destination).unwrap_or_default();
        piece.with(Field::Destination, &intersection(&destinations, &self.world.external))
    }

    /// Packets to external addresses that no rule translates may be for whoever has a mapping.
    fn mapped(&self, place: &Place, work: &mut Vec<Place>) {
        let destinations = place.piece.values(Field::Destination).unwrap_or_default();
        let external = intersection(&destinations, &self.world.external);
        let Some(asked) = place.piece.with(Field::Destination, &external) else { return };
        let first =
            |field| asked.values(field).and_then(|values| values.first().copied()).unwrap_or_default().0;
        let hosts = self.world.mapped(self.plan, first(Field::InputPort), first(Field::Protocol));
        if !hosts.is_empty() {
            let piece = asked.mapped(&hosts);
            work.push(Place { stack: Vec::new(), piece, translates: false, ..*place });
        }
    }

    /// Where packets go behind prerouting, each part with its hook.
    fn routed(&self, piece: Piece, ends: &mut Vec<(Piece, End)>) -> Vec<(Hook, Piece)> {
        let destinations = piece.values(Field::Destination).unwrap_or_default();
        let mut parts = Vec::new();
        let mut reached = Vec::new();
        for (hook, output, ranges) in self.world.ways(&destinations) {
            reached.extend(&ranges);
            let Some(mut part) = piece.with(Field::Destination, &ranges) else { continue };
            part.output = output;
            parts.push((hook, part));
        }
        let reached = crate::lower::normalise(reached).0;
        let lost = super::space::without(&destinations, &reached);
        ends.extend(piece.with(Field::Destination, &lost).map(|piece| (piece, End::Unroutable)));
        // RFC 1812 5.3.1: the others end here, whatever the rules say.
        let forwarded = |(hook, mut piece): (Hook, Piece)| {
            if hook == Hook::Forward {
                piece.arrived = piece.arrived.within(Field::Ttl, &[(2, 255)])?;
                piece.is_lowered = true;
            }
            Some((hook, piece))
        };
        parts.into_iter().filter_map(forwarded).collect()
    }
}

impl Place {
    /// Whether chains of type nat see them.
    fn may_be_translated(&self) -> bool {
        self.translates && self.piece.state != State::Untracked
    }

    /// The base chain has had its say.
    fn leave_base(&mut self) {
        self.stack.clear();
        self.base += 1;
    }
}

/// Whether a rule ends the walk of its packets through the base chain, and changes nothing for the others.
fn ends_alone(rule: &Rule) -> bool {
    let Some((Step::Do(action), before)) = rule.steps.split_last() else { return false };
    let ends = match action {
        Action::Accept | Action::Drop | Action::Reject(_) | Action::Dnat(_) | Action::Snat(_) => true,
        Action::Return | Action::Jump(_) | Action::Goto(_) => false,
    };
    ends && before.iter().all(is_without_effect)
}

/// Whether a step changes nothing of the way that packets take.
fn is_without_effect(step: &Step) -> bool {
    match step {
        Step::Match(_) | Step::Lookup(_) | Step::Count(_) => true,
        Step::Act(effect) => {
            !matches!(effect, Effect::Mark(_) | Effect::ConnectionMark(_) | Effect::Open(_) | Effect::Untrack)
        }
        Step::Do(_) => false,
    }
}

/// A statement that remembers may let packets go on or not: those that go on, and the others.
fn remembered(mut piece: Piece, effect: &Effect) -> (Piece, Option<Piece>) {
    match effect {
        Effect::Mark(write) => piece.write(write, false),
        Effect::ConnectionMark(write) => piece.write(write, true),
        Effect::Untrack => piece.state = State::Untracked,
        Effect::Log(_) | Effect::Segment(_) | Effect::Open(_) | Effect::Through(_) => {}
        Effect::Limit(_)
        | Effect::Quota(_)
        | Effect::Connections(..)
        | Effect::Update(_)
        | Effect::Member { .. } => {
            piece.is_unsure = true;
            return (piece.clone(), Some(piece));
        }
    }
    (piece, None)
}
