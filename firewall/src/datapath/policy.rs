//! What the rules say of a packet that has a session, and what they leave to do for those after it.

use super::*;

impl<L: Link> Datapath<L> {
    /// The rules' word on one packet of a session, hook by hook.
    pub(super) fn judge(
        &mut self,
        input: usize,
        hop: Hop,
        packet: &Packet,
        translation: &Translation,
        hit: Hit,
        state: State,
    ) -> Result<(), Refusal> {
        let session = self.nat.session(hit.session);
        let mut candidate = candidate(input, packet, state);
        (candidate.dnat, candidate.snat) = (session.is_dnat(), session.is_snat());
        let place = hit.session.index();
        candidate.connection = Some(connection(session, hit.direction, self.effects.mark(place)));
        let result = self.judge_at_hooks(hop, packet, translation, &mut candidate);
        // A mark stays, whatever becomes of the packet that set it.
        if let Some(connection) = candidate.connection {
            self.effects.set_mark(place, connection.mark);
        }
        result
    }

    fn judge_at_hooks(
        &mut self,
        hop: Hop,
        packet: &Packet,
        translation: &Translation,
        candidate: &mut Candidate,
    ) -> Result<(), Refusal> {
        for hook in [Hook::Prerouting, Hook::Forward, Hook::Postrouting] {
            if hook == Hook::Forward {
                candidate.output = Some(hop.port as u8);
                candidate.ttl = candidate.ttl.saturating_sub(1);
                candidate.destination = translation.destination().address;
                if candidate.destination_port != 0 {
                    candidate.destination_port = translation.destination().port;
                }
            }
            let verdict = self.policy.evaluate_later(hook, candidate, &mut self.effects);
            self.refuse(packet, verdict)?;
        }
        Ok(())
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

    /// What the policy leaves to do for later packets of one direction of a session.
    pub(super) fn residue(&self, hit: Hit, direction: Direction, state: State) -> Residue {
        let session = self.nat.session(hit.session);
        let (arriving, leaving) = match direction {
            Direction::Original => (session.original(), session.reply().inverted()),
            Direction::Reply => (session.reply(), session.original().inverted()),
        };
        let port = |address| self.routes.lookup(address).map(|hop| hop.port as u8);
        let mut candidate = foreseen(&arriving, direction, state);
        candidate.input = port(arriving.source().address);
        candidate.connection = Some(connection(session, direction, 0));
        (candidate.dnat, candidate.snat) = (session.is_dnat(), session.is_snat());
        let prerouting = self.policy.residue(Hook::Prerouting, &candidate);
        candidate.output = port(leaving.destination().address);
        candidate.destination = leaving.destination().address;
        if candidate.destination_port != 0 {
            candidate.destination_port = leaving.destination().port;
        }
        let forward = self.policy.residue(Hook::Forward, &candidate);
        prerouting.then(forward).then(self.policy.residue(Hook::Postrouting, &candidate))
    }
}
