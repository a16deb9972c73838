//! What a packet is answered: by the appliance as a host, and for packets that it refuses.

use super::*;

/// SYNs that are answered in one round of upkeep.
const SYNS_A_ROUND: usize = 16;

impl<L: Link> Datapath<L> {
    /// A packet to the appliance itself that the rules let in.
    pub(super) fn deliver(
        &mut self,
        input: usize,
        frame: L::Frame,
        packet: &Packet,
        now: Instant,
    ) -> Result<(), Dropped> {
        match (packet.icmp(), packet.protocol()) {
            (Some((8, 0)), _) => {
                if !self.echoes.allows(input, 0, now) {
                    return Err(Dropped::AnswerLimited);
                }
                self.echo(input, frame, packet)
            }
            // How long a segment in fragments is, and so what a reset acknowledges, is not known.
            (None, protocol::TCP) if packet.is_fragment() => Err(Dropped::Fragment),
            // RFC 5382 REQ-4: an unsolicited segment from outside meets silence.
            (None, _) if input == UPLINK => Err(Dropped::Unsolicited),
            (None, protocol) => {
                let (answer, state) = match protocol {
                    protocol::TCP => (Answer::TcpReset, State::Established),
                    protocol::UDP => (Answer::PORT_UNREACHABLE, State::Related),
                    // RFC 1122 3.2.2.1.
                    _ => (Answer::PROTOCOL_UNREACHABLE, State::Related),
                };
                self.answer(input, frame, packet, (answer, state), now);
                Err(Dropped::Delivered)
            }
            _ => Err(Dropped::Delivered),
        }
    }

    /// The reply to an echo request, or to a fragment of one.
    pub(super) fn echo(&mut self, input: usize, frame: L::Frame, packet: &Packet) -> Result<(), Dropped> {
        let octets = frame.octets().get(ETHERNET_HEADER..).unwrap_or_default();
        let reply = match packet.is_fragment() {
            true => icmp::echo_fragment(packet, octets),
            false => icmp::echo_reply(packet, octets),
        };
        self.say(input, frame, packet, (reply.ok_or(Dropped::Malformed)?, State::Established))
    }

    /// Tells the sender of a refused packet, if RFC 1812 4.3.2.7 and the rate limit allow it, and the
    /// rules, to which the answer has a `ct state` of its own.
    pub(super) fn answer(
        &mut self,
        input: usize,
        frame: L::Frame,
        packet: &Packet,
        (answer, state): (Answer, State),
        now: Instant,
    ) {
        if !icmp::may_answer(packet, &self.routes) {
            return;
        }
        let host = u64::from(packet.source().to_bits());
        let (limiter, key) = match answer {
            Answer::TcpReset => (&mut self.replies, host),
            // Without it a connection stands still: it does not wait for what else its host is told.
            Answer::FragmentationNeeded(_) => (&mut self.replies, host | 1 << 32),
            _ => (&mut self.errors, host),
        };
        if !limiter.allows(input, key, now) {
            self.ports[input].counters.drop(Dropped::AnswerLimited);
            return;
        }
        let octets = frame.octets().get(ETHERNET_HEADER..).unwrap_or_default();
        let message = match answer {
            Answer::TcpReset => icmp::tcp_reset(packet),
            _ => icmp::error(answer, self.routes.address(input), packet, octets),
        };
        if let Some(message) = message
            && let Err(reason) = self.say(input, frame, packet, (message, state))
        {
            self.ports[input].counters.drop(reason);
        }
    }

    /// The senders of unsolicited SYNs that have waited long enough are told (RFC 5382 REQ-4).
    pub(super) fn answer_syns(&mut self, now: Instant) {
        for _ in 0..SYNS_A_ROUND {
            let Some(frame) = self.syns.take_due(now) else { return };
            self.answer_late(UPLINK, frame, Answer::PORT_UNREACHABLE, now);
        }
    }

    /// Tells the sender of a packet that was kept a while, and is read again for that.
    pub(super) fn answer_late(&mut self, input: usize, frame: L::Frame, answer: Answer, now: Instant) {
        let mut packet = Packet::EMPTY;
        if parse(&mut packet, &frame).is_ok() {
            self.answer(input, frame, &packet, (answer, State::Related), now);
        }
    }

    /// Sends a message back the way its cause came, if the rules let it out.
    pub(super) fn say(
        &mut self,
        port: usize,
        frame: L::Frame,
        packet: &Packet,
        (message, state): (Message, State),
    ) -> Result<(), Dropped> {
        self.let_out(port, packet, &message, state)?;
        let (ethernet, _) = ethernet::strip(frame.octets()).map_err(|_| Dropped::Runt)?;
        let port = &mut self.ports[port];
        let mut head = Head::new(ethernet.source, port.mac, EthernetProtocol::Ipv4);
        head.extend_from_slice(&message.head).map_err(|_| Dropped::Malformed)?;
        let quote = message.quote.start + ETHERNET_HEADER..message.quote.end + ETHERNET_HEADER;
        let payload = (!quote.is_empty()).then_some((frame, quote));
        port.link.transmit(&head, payload).map_err(unsent)?;
        port.counters.answered += 1;
        Ok(())
    }

    /// An unassured session has ended for a new one, as there was no room: the log is told at times.
    pub(super) fn note_given_way(&mut self, input: usize, packet: &Packet, now: Instant) {
        let gone = self.nat.take_given_way();
        self.evicted += u64::from(gone);
        if gone > 0 && self.evictions.allows(input, 0, now) {
            let (port, source) = (self.ports[input].name, packet.source());
            log::warn!(target: "nat", "no room: unassured sessions end for new ones: port={port} source={source}");
        }
    }

    /// No room for a new session: the sender is told (RFC 5508 REQ-8), the log at times.
    pub(super) fn exhausted(
        &mut self,
        input: usize,
        packet: &Packet,
        refusal: nat::Refusal,
        now: Instant,
    ) -> Refusal {
        let reason = match refusal {
            nat::Refusal::Quota => Dropped::ClientQuota,
            nat::Refusal::Unbound(Unbound::PortsExhausted) => Dropped::PortsExhausted,
            nat::Refusal::Unbound(Unbound::TableFull) => Dropped::SessionsExhausted,
            nat::Refusal::Unbound(Unbound::Conflict) if packet.tuple().is_none() => Dropped::PeerTaken,
            nat::Refusal::Unbound(Unbound::Conflict) => return Dropped::Conflict.into(),
            nat::Refusal::Unbound(Unbound::NotOpening | Unbound::NotExternal) => {
                return Dropped::Invalid.into();
            }
        };
        if input == UPLINK {
            // RFC 5508 REQ-8 is about internal senders; strangers learn nothing of our load.
            return reason.into();
        }
        if self.refusals.allows(input, 0, now) {
            let (client, source) = (self.ports[input].name, packet.source());
            log::warn!(target: "nat", "no room for a session: reason={} client={client} source={source}", reason.name());
        }
        Refusal::told(reason, Answer::ADMIN_PROHIBITED)
    }
}
