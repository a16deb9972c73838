//! What the rules say of a packet that has a session, and what they leave to do for those after it.

use super::*;

/// What the rules make of a packet of a session.
pub(super) enum Judged {
    /// It goes on this way, translated.
    On(Hop),
    /// It is none of its session, and goes as it is.
    Untracked(Step),
}

impl<L: Link> Datapath<L> {
    /// The rules' word on one packet of a session, hook by hook, and where it goes unless something
    /// speaks against that: it is asked between prerouting and forward.
    pub(super) fn judge(
        &mut self,
        (input, frame): (usize, &[u8]),
        hop: Result<Hop, Refusal>,
        packet: &Packet,
        translation: &Translation,
        hit: Hit,
        state: State,
    ) -> Result<Judged, Refusal> {
        self.look_at(Some(hit));
        let session = self.nat.session(hit.session);
        let mut candidate = candidate(input, frame, packet, state);
        (candidate.dnat, candidate.snat) = (session.is_dnat(), session.is_snat());
        let place = hit.session.index();
        candidate.connection = Some(connection(session, hit.direction, self.effects.mark(place)));
        let result = self.judge_at_hooks(hop, packet, translation, hit, &mut candidate);
        // A mark stays, whatever becomes of the packet that set it.
        if let Some(connection) = candidate.connection {
            self.effects.set_mark(place, connection.mark);
        }
        result
    }

    /// A packet of a session, or of none, is looked at: connections that have ended meanwhile count no more, nor does
    /// one that is over (the kernel's nf_conncount has it so).
    pub(super) fn look_at(&mut self, hit: Option<Hit>) {
        self.end_counted();
        let is_over = |hit: Hit| self.nat.session(hit.session).is_over();
        self.effects.look_at(hit.map(|hit| if is_over(hit) { u32::MAX } else { hit.session.index() }));
    }

    /// Connections that have ended count no more.
    pub(super) fn end_counted(&mut self) {
        while let Some(ended) = self.nat.take_ended() {
            self.effects.end(ended);
        }
    }

    fn judge_at_hooks(
        &mut self,
        hop: Result<Hop, Refusal>,
        packet: &Packet,
        translation: &Translation,
        hit: Hit,
        candidate: &mut Candidate,
    ) -> Result<Judged, Refusal> {
        if self.ahead_of_tracking(packet, candidate)? {
            return self.route_untracked(packet, candidate).map(Judged::Untracked);
        }
        // As conntrack has it: a reply that was seen is one, whatever becomes of it.
        if self.nat.see(hit, packet) {
            self.establish(hit);
        }
        self.pass(Stage::Received, packet, candidate)?;
        candidate.destination = translation.destination().address;
        if packet.tuple().is_some() && candidate.has_ports {
            candidate.destination_port = translation.destination().port;
        }
        self.pass(Stage::Translated, packet, candidate)?;
        let hop = hop?;
        candidate.output = Some(hop.port as u8);
        candidate.ttl = candidate.ttl.saturating_sub(1);
        self.pass(Hook::Forward, packet, candidate)?;
        self.pass(Hook::Postrouting, packet, candidate)?;
        Ok(Judged::On(hop))
    }

    /// The chains that run before sessions are known; whether they say that the packet is to have none.
    pub(super) fn ahead_of_tracking(
        &mut self,
        packet: &Packet,
        candidate: &mut Candidate,
    ) -> Result<bool, Refusal> {
        let (state, connection) = (candidate.state, candidate.connection.take());
        candidate.state = State::Invalid;
        self.pass(Stage::Untracked, packet, candidate)?;
        let is_untracked = candidate.state == State::Untracked;
        if !is_untracked {
            (candidate.state, candidate.connection) = (state, connection);
        }
        Ok(is_untracked)
    }

    /// An ICMP error about no session: where rules keep packets out of sessions it may be about one of those.
    pub(super) fn unrelated(&mut self, input: usize, frame: &[u8], packet: &Packet) -> Result<Step, Refusal> {
        if !self.policy.untracks {
            return Err(Dropped::ErrorWithoutSession.into());
        }
        let mut candidate = candidate(input, frame, packet, State::Invalid);
        self.look_at(None);
        let is_untracked = self.ahead_of_tracking(packet, &mut candidate)?;
        if !is_untracked && input == UPLINK && !self.routes.external().contains(&packet.destination()) {
            return Err(Dropped::NotOurs.into());
        }
        self.route_untracked(packet, &mut candidate)
    }

    /// A packet that is to have no session: it is routed as it is (`notrack`).
    pub(super) fn route_untracked(
        &mut self,
        packet: &Packet,
        candidate: &mut Candidate,
    ) -> Result<Step, Refusal> {
        (candidate.dnat, candidate.snat, candidate.connection) = (false, false, None);
        let tuple = match packet.embedded() {
            // It goes to who has sent what it quotes.
            Some(quoted) => Some(quoted.tuple.inverted())
                .filter(|tuple| tuple.destination().address == packet.destination()),
            None => packet.tuple_with(true),
        };
        let tuple = tuple.ok_or(Dropped::ErrorWithoutSession)?;
        self.pass(Stage::Received, packet, candidate)?;
        self.pass(Stage::Translated, packet, candidate)?;
        if self.routes.is_own(candidate.destination) {
            return self.pass(Hook::Input, packet, candidate).map(|()| Step::Deliver);
        }
        if !self.routes.is_forwardable(candidate.destination) {
            return Err(Dropped::BadDestination.into());
        }
        let hop = self.hop(packet, candidate.destination)?;
        candidate.output = Some(hop.port as u8);
        candidate.ttl = candidate.ttl.saturating_sub(1);
        self.pass(Hook::Forward, packet, candidate)?;
        self.pass(Hook::Postrouting, packet, candidate)?;
        // It has no session that could have a number.
        let ends = [tuple.source(), tuple.destination()];
        let [one, other] = ends.map(|end| end.address.to_bits().rotate_left(11) ^ u32::from(end.port));
        let (translation, flow) = (Translation::identity(&tuple), one ^ other.rotate_left(16));
        Ok(Step::Forward(Way::new(hop, translation, flow)))
    }

    /// What the filter chains of a hook say about a packet of a session.
    fn pass(
        &mut self,
        at: impl Into<Point>,
        packet: &Packet,
        candidate: &mut Candidate,
    ) -> Result<(), Refusal> {
        let verdict = self.policy.evaluate_later(at, candidate, &mut self.effects);
        self.refuse(packet, verdict)
    }

    /// What the rules say about a message of the appliance itself, which answers `packet`.
    pub(super) fn let_out(
        &mut self,
        port: usize,
        packet: &Packet,
        message: &Message,
        state: State,
    ) -> Result<(), Dropped> {
        let mut candidate = own(port, message, state).ok_or(Dropped::Malformed)?;
        let hit = packet.tuple_with(true).and_then(|tuple| self.nat.lookup(&tuple));
        let is_tracked = hit.is_some() || packet.opens() || packet.tuple().is_none();
        match hit {
            Some(hit) => {
                let session = self.nat.session(hit.session);
                let mark = self.effects.mark(hit.session.index());
                (candidate.dnat, candidate.snat) = (session.is_dnat(), session.is_snat());
                candidate.connection = Some(connection(session, hit.direction.opposite(), mark));
            }
            None if is_tracked => {
                candidate.connection = packet.tuple_with(true).map(|tuple| answered(&tuple));
            }
            // Nobody knows it, and so nobody knows what is said about it.
            None => candidate.state = State::Invalid,
        }
        for hook in [Hook::Output, Hook::Postrouting] {
            let verdict = self.policy.evaluate_later(hook, &mut candidate, &mut self.effects);
            if let Verdict::Drop(rule) | Verdict::Reject(rule, _) = verdict {
                self.refused.add(rule.0, candidate.length.into());
                return Err(Dropped::Policy);
            }
        }
        Ok(())
    }

    /// The first reply was seen: `ct state new` ends, the original direction is `established`.
    pub(super) fn establish(&mut self, hit: Hit) {
        self.nat.set_residue(hit.session, Direction::Original, self.established.bits());
    }

    /// Ends a packet if the rules say so; the rule that did is counted.
    pub(super) fn refuse(&mut self, packet: &Packet, verdict: Verdict) -> Result<(), Refusal> {
        let (rule, refusal) = match verdict {
            Verdict::Accept => return Ok(()),
            Verdict::Drop(rule) => (rule, Dropped::Policy.into()),
            Verdict::Reject(rule, Reject::Icmp(code)) => {
                (rule, Refusal::told(Dropped::Rejected, Answer::Unreachable(code)))
            }
            Verdict::Reject(rule, Reject::TcpReset) => {
                (rule, Refusal::told(Dropped::Rejected, Answer::TcpReset))
            }
        };
        self.refused.add(rule.0, packet.total_len().into());
        Err(refusal)
    }

    /// Whether a packet from outside to nobody is a SYN whose sender is to be told after a while
    /// (RFC 5382 REQ-4). A rule that drops or rejects it has the last word, not so a chain's policy:
    /// that no rule lets it in is what makes it unsolicited.
    pub(super) fn is_kept(&self, packet: &Packet, verdict: Verdict) -> bool {
        let is_syn = packet.tcp().is_some_and(nat::Segment::opens) && !packet.is_fragment();
        let is_left_to_us = match verdict {
            Verdict::Accept => true,
            Verdict::Drop(by) => self.policy.hooks.iter().copied().flatten().any(|base| base.id == by),
            Verdict::Reject(..) => false,
        };
        self.syns.is_wanted() && is_syn && is_left_to_us
    }

    /// What the policy leaves to do for this packet of a session, and those after it that go the same way. It is
    /// kept: who is the only one of its kind needs no answer.
    #[inline(never)]
    pub(super) fn foresee(&mut self, hit: Hit) -> Residue {
        let residue = self.residue(hit);
        self.nat.set_residue(hit.session, hit.direction, residue.bits());
        residue
    }

    fn residue(&self, hit: Hit) -> Residue {
        let session = self.nat.session(hit.session);
        let (arriving, leaving) = match hit.direction {
            Direction::Original => (session.original(), session.reply().inverted()),
            Direction::Reply => (session.reply(), session.original().inverted()),
        };
        let port = |address| self.routes.lookup(address).map(|hop| hop.port as u8);
        let mut candidate = foreseen(&arriving, hit.direction, state(session, hit.direction));
        candidate.input = port(arriving.source().address);
        candidate.connection = Some(connection(session, hit.direction, 0));
        (candidate.dnat, candidate.snat) = (session.is_dnat(), session.is_snat());
        let untracked = match self.policy.has_chains(Stage::Untracked) {
            true => {
                let early = Candidate { state: State::Invalid, connection: None, ..candidate.clone() };
                self.policy.residue(Stage::Untracked, &early)
            }
            false => Residue::ACCEPT,
        };
        let received = self.policy.residue(Stage::Received, &candidate);
        candidate.destination = leaving.destination().address;
        if candidate.has_ports {
            candidate.destination_port = leaving.destination().port;
        }
        let prerouting = untracked.then(received).then(self.policy.residue(Stage::Translated, &candidate));
        candidate.output = port(leaving.destination().address);
        let forward = self.policy.residue(Hook::Forward, &candidate);
        prerouting.then(forward).then(self.policy.residue(Hook::Postrouting, &candidate))
    }
}

/// `ct state` of the packets of a session that go this way.
pub(super) fn state(session: &Session, direction: Direction) -> State {
    let is_answered = session.has_reply() || direction == Direction::Reply;
    if is_answered { State::Established } else { State::New }
}
