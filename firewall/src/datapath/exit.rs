//! The way out: where a packet goes next, whether it may go there, and to which station.

use super::*;

impl<L: Link> Datapath<L> {
    /// The next hop, if the packet may be forwarded to it at all: route, TTL, size.
    #[inline(always)]
    pub(super) fn hop(&self, packet: &Packet, destination: Ipv4Addr) -> Result<Hop, Refusal> {
        let unreachable = || Refusal::told(Dropped::NoRoute, Answer::NET_UNREACHABLE);
        let hop = self.routes.lookup(destination).ok_or_else(unreachable)?;
        self.may_pass(packet, hop).map(|()| hop)
    }

    /// Whether a packet may leave by a hop: time to live and size.
    #[inline(always)]
    pub(super) fn may_pass(&self, packet: &Packet, hop: Hop) -> Result<(), Refusal> {
        // RFC 1812 5.3.1: checked before it is lowered.
        match packet.ttl() {
            0 => return Err(Dropped::TimeExceeded.into()),
            1 => return Err(Refusal::told(Dropped::TimeExceeded, Answer::TimeExceeded)),
            _ => {}
        }
        let Port { mtu, is_removed, .. } = self.ports[hop.port];
        if is_removed {
            return Err(Dropped::PortDown.into());
        }
        if usize::from(packet.datagram_len()) > mtu && packet.dont_fragment() {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            return Err(Refusal::told(Dropped::TooBig, Answer::FragmentationNeeded(mtu)));
        }
        Ok(())
    }

    /// Gives a packet to its port, or keeps it until the next hop's MAC is known.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        input: usize,
        (frame, is_received): (L::Frame, bool),
        head: &mut Head,
        payload: Range<usize>,
        hop: Hop,
        now: Instant,
    ) -> Result<(), Dropped> {
        let Some(mac) = self.neighbors.lookup(hop.port, hop.next, now) else {
            return self.wait(
                hop,
                Waiting { head: head.clone(), payload: Some((frame, payload)), input, is_received },
                now,
            );
        };
        address(head, mac);
        self.ports[hop.port].link.transmit(head, Some((frame, payload))).map_err(unsent)?;
        self.ports[input].counters.forwarded += 1;
        Ok(())
    }

    /// The next hop's MAC is not known: the packet waits while it is asked for.
    fn wait(&mut self, hop: Hop, packet: Waiting<L::Frame>, now: Instant) -> Result<(), Dropped> {
        let Self { neighbors, ports, .. } = self;
        let oust = |other: Waiting<L::Frame>| ports[other.input].counters.drop(Dropped::NeighborQueue);
        let queued =
            neighbors.enqueue(hop.port, hop.next, packet, now, oust).map_err(|refused| match refused {
                neighbor::Refused::Queue => Dropped::NeighborQueue,
                neighbor::Refused::Table => Dropped::NeighborsExhausted,
            })?;
        if queued.ask {
            self.ask(hop.port, hop.next);
        }
        Ok(())
    }
}

/// Writes the destination of a frame.
fn address(head: &mut Head, mac: EthernetAddress) {
    if let Some(destination) = head.as_mut_slice().first_chunk_mut() {
        *destination = mac.0;
    }
}

/// Writes both stations of a frame that has waited: its port may have another device now.
pub(super) fn readdress(head: &mut Head, mac: EthernetAddress, own: EthernetAddress) {
    if let Some(stations) = head.as_mut_slice().first_chunk_mut::<12>() {
        let (destination, source) = stations.split_at_mut(6);
        destination.copy_from_slice(&mac.0);
        source.copy_from_slice(&own.0);
    }
}
