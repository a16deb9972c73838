//! Between packets: ARP, carrier, and what runs out of time.

use super::*;

/// How often an address is defended at most (RFC 5227 1.1, DEFEND_INTERVAL).
const DEFENCES: Duration = Duration::from_secs(10);

impl<L: Link> Datapath<L> {
    /// An ARP packet (RFC 826): who sends it is learnt if it may be believed, who asks for us is
    /// answered.
    pub(super) fn hear(&mut self, input: usize, claim: ArpRepr, now: Instant) -> Result<(), Dropped> {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = claim
        else {
            return Err(Dropped::Arp);
        };
        if mac == self.ports[input].mac || mac == UNRESOLVED {
            return Err(Dropped::Arp);
        }
        let for_us = self.routes.answers_for(input, target);
        if self.routes.is_neighbor(input, sender) {
            let mut released = heapless::Vec::<Waiting<L::Frame>, { neighbor::QUEUE }>::new();
            self.neighbors.learn(input, sender, mac, for_us, now, |packet| {
                // At most QUEUE packets wait for one neighbour.
                let _ = released.push(packet);
            });
            for packet in released {
                self.release(input, mac, packet);
            }
        } else if !sender.is_unspecified() {
            if self.routes.answers_for(input, sender) {
                self.defend(input, sender, mac, now);
            }
            return Err(Dropped::Arp);
        }
        if operation != ArpOperation::Request || !for_us {
            return if for_us { Ok(()) } else { Err(Dropped::Arp) };
        }
        let port = &mut self.ports[input];
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: port.mac,
            source_protocol_addr: target,
            target_hardware_addr: mac,
            target_protocol_addr: sender,
        };
        port.counters.answered += 1;
        port.arp(mac, &reply)
    }

    /// RFC 5227 2.4 (c): a station says that an address of ours is its own. The others of the link are told
    /// again whose it is, but seldom, lest two that are sure of themselves never end.
    fn defend(&mut self, input: usize, own: Ipv4Addr, station: EthernetAddress, now: Instant) {
        let port = &mut self.ports[input];
        if port.defended.is_some_and(|last| now - last < DEFENCES && now >= last) {
            return;
        }
        port.defended = Some(now);
        log::warn!(target: "arp", "our address is claimed: port={} address={own} station={station}", port.name);
        self.announce(input);
    }

    /// Sends a packet whose next hop has become known.
    fn release(&mut self, port: usize, mac: EthernetAddress, packet: Waiting<L::Frame>) {
        let Waiting { mut head, payload, input, .. } = packet;
        let port = &mut self.ports[port];
        readdress(&mut head, mac, port.mac);
        match port.link.transmit(&head, payload) {
            Ok(()) => self.ports[input].counters.forwarded += 1,
            Err(refused) => self.ports[input].counters.drop(unsent(refused)),
        }
    }

    /// Broadcasts an ARP request.
    pub(super) fn ask(&mut self, port: usize, address: Ipv4Addr) {
        self.ask_station(port, EthernetAddress::BROADCAST, address);
    }

    /// Asks one station, or all, for an address.
    fn ask_station(&mut self, port: usize, station: EthernetAddress, address: Ipv4Addr) {
        let source = self.routes.address(port);
        if let Some(port) = self.ports.get_mut(port) {
            port.request(station, source, address);
        }
    }

    /// One round of upkeep: what has expired ends, what is due is done. True if more has expired
    /// than a round takes: then the next one is due at once.
    pub(super) fn upkeep(&mut self, now: Instant) -> bool {
        let expires = self.nat.expire(SESSIONS_A_ROUND) == SESSIONS_A_ROUND;
        let more = self.change() || expires;
        self.upkeep_due = if more { now } else { now + ROUND };
        self.keep_neighbors(now);
        self.keep_fragments(now);
        self.answer_syns(now);
        self.tick(now);
        more
    }

    /// Asks again, forgets the idle, and gives up packets whose next hop does not answer.
    fn keep_neighbors(&mut self, now: Instant) {
        let mut budget = ENTRIES_A_ROUND;
        while let Some(due) = self.neighbors.due(now, &mut budget) {
            match due {
                Due::Poll { port, address, station } => self.ask_station(port, station, address),
                Due::Ask { port, address } => self.ask(port, address),
                Due::GiveUp(packet) => self.unresolved(packet, now),
            }
        }
    }

    /// Lets go of fragments whose first one did not come in time, and counts those that are gone.
    fn keep_fragments(&mut self, now: Instant) {
        self.fragments.upkeep(now, ENTRIES_A_ROUND);
        while let Some((input, count)) = self.fragments.take_lost() {
            if let Some(port) = self.ports.get_mut(input) {
                (0..count).for_each(|_| port.counters.drop(Dropped::FragmentTimeout));
            }
        }
    }

    /// RFC 1812 5.2.7.1: a packet whose next hop does not answer ARP gets 3/1.
    fn unresolved(&mut self, waiting: Waiting<L::Frame>, now: Instant) {
        let Waiting { payload, input, is_received, .. } = waiting;
        self.ports[input].counters.drop(Dropped::Unresolved);
        if let (true, Some((frame, _))) = (is_received, payload) {
            self.answer_late(input, frame, Answer::HOST_UNREACHABLE, now);
        }
    }

    /// Once a second, and when a link has changed: links are asked how they are. One that came up announces
    /// its addresses, and who was on it is asked for again.
    fn tick(&mut self, now: Instant) {
        if self.ticked.is_some_and(|last| now - last < TICK && now >= last) {
            return;
        }
        self.ticked = Some(now);
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            port.link.tick();
            let is_up = port.link.is_up();
            let is_asked = port.link.take_announcement();
            let is_new = !core::mem::replace(&mut port.was_up, is_up) && is_up;
            if is_new || is_asked {
                self.announce(index);
            }
            if is_new {
                self.neighbors.doubt(index);
            }
        }
    }

    /// A link has changed (its device said so): it is looked at in the next turn.
    pub fn look_at_links(&mut self) {
        self.ticked = None;
        self.upkeep_due = Instant::ZERO;
    }

    /// RFC 5227 2.3: tells the link that its addresses are ours.
    pub(super) fn announce(&mut self, index: usize) {
        let Self { ports, routes, .. } = self;
        let Some(port) = ports.get_mut(index) else {
            return;
        };
        match index {
            UPLINK => routes.external().iter().for_each(|&own| port.announce(own)),
            _ => port.announce(routes.address(index)),
        }
    }
}
