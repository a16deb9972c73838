//! The path of a fragment: the first one is decided upon like a whole packet, the others follow it.

use super::*;

impl<L: Link> Datapath<L> {
    /// The path of a fragment: the first one is decided upon like a whole packet, the others share
    /// its fate.
    pub(super) fn walk_fragment(
        &mut self,
        input: usize,
        frame: L::Frame,
        fragment: Fragment,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(), Dropped> {
        let key = fragment::Key::new(input, &scratch.packet);
        match self.fragments.arrive(key, fragment, now).map_err(unfit)? {
            Fate::Ended => Err(Dropped::Fragment),
            Fate::Unknown if fragment.offset > 0 => self.fragments.hold(key, frame).map_err(unfit),
            Fate::Unknown => {
                let step = self.decide_first(input, frame.octets(), &scratch.packet, now);
                let is_echo = matches!(step, Ok(Step::Deliver)) && scratch.packet.icmp() == Some((8, 0));
                let way = match &step {
                    Ok(Step::Forward(way)) => {
                        Some(Way { translation: scratch.packet.outer(way.translation), ..*way })
                    }
                    _ => None,
                };
                let result = self.act(input, frame, scratch, &step, now);
                let fate = match way {
                    Some(way) => Fate::Forwarded(way),
                    None if is_echo && result.is_ok() => Fate::Answered,
                    None => Fate::Ended,
                };
                self.settle(input, key, fate, scratch, now);
                result
            }
            Fate::Forwarded(way) => {
                self.fragments.forget_complete(key);
                self.may_pass(&scratch.packet, way.hop).map_err(|refusal| refusal.reason)?;
                self.forward(input, frame, scratch, &way, now)
            }
            Fate::Answered => {
                self.fragments.forget_complete(key);
                self.echo(input, frame, &scratch.packet)
            }
        }
    }

    /// What becomes of a datagram's first fragment.
    fn decide_first(
        &mut self,
        input: usize,
        frame: &[u8],
        packet: &Packet,
        now: Instant,
    ) -> Result<Step, Refusal> {
        let mut step = self.decide(input, frame, packet, Guess::NONE, now)?;
        if let Step::Forward(way) = &mut step {
            way.identification = self.identifications.fresh(packet, &way.translation);
        }
        Ok(step)
    }

    /// The fragments that waited for their first one go its way.
    fn settle(&mut self, input: usize, key: fragment::Key, fate: Fate, scratch: &mut Scratch, now: Instant) {
        let mut held = heapless::Vec::<L::Frame, { fragment::QUOTA }>::new();
        // No datagram holds more than its source may.
        self.fragments.decide(key, fate, |frame| drop(held.push(frame)));
        for frame in held {
            let result = self.follow(input, frame, fate, scratch, now);
            if let Err(reason) = result {
                self.ports[input].counters.drop(reason);
            }
        }
        self.fragments.forget_complete(key);
    }

    /// A fragment that had waited goes the way of the first one.
    fn follow(
        &mut self,
        input: usize,
        frame: L::Frame,
        fate: Fate,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(), Dropped> {
        parse(&mut scratch.packet, &frame)?;
        match fate {
            Fate::Forwarded(way) => {
                self.may_pass(&scratch.packet, way.hop).map_err(|refusal| refusal.reason)?;
                self.forward(input, frame, scratch, &way, now)
            }
            Fate::Answered => self.echo(input, frame, &scratch.packet),
            Fate::Unknown | Fate::Ended => Err(Dropped::Fragment),
        }
    }

    /// A packet that is larger than the next link takes leaves in pieces, in order (RFC 791 3.2).
    pub(super) fn cut(
        &mut self,
        input: usize,
        frame: L::Frame,
        packet: &Packet,
        head: &mut Head,
        hop: Hop,
        now: Instant,
    ) -> Result<(), Dropped> {
        let (header, whole) = (packet.header_len(), usize::from(packet.total_len()));
        let octets =
            frame.octets().get(ETHERNET_HEADER..ETHERNET_HEADER + whole).ok_or(Dropped::Malformed)?;
        let rest = octets.get(packet.head_len()..).ok_or(Dropped::Malformed)?;
        // No piece has the whole datagram's checksum to finish.
        netback::segment::complete_checksum(head, rest).map_err(|_| Dropped::BadOffload)?;
        let (ip, transport) = head
            .as_slice()
            .get(ETHERNET_HEADER..)
            .and_then(|network| network.split_at_checked(header))
            .ok_or(Dropped::Malformed)?;
        let (offset, more) = packet.fragment().map_or((0, false), |it| (it.offset, it.more));
        let output = &self.ports[hop.port];
        let (mac, mtu) = (output.mac, output.mtu);
        let pieces = fragment::pieces(header, whole - header, mtu).ok_or(Dropped::TooBig)?;
        for piece in pieces {
            let mut part = Head::new(UNRESOLVED, mac, EthernetProtocol::Ipv4);
            part.extend_from_slice(ip).map_err(|_| Dropped::Malformed)?;
            let place = part.as_mut_slice().get_mut(ETHERNET_HEADER..).ok_or(Dropped::Malformed)?;
            fragment::set_piece(place, piece, offset, more, whole - header);
            let new = transport.get(piece.start..piece.end.min(transport.len())).unwrap_or_default();
            part.extend_from_slice(new).map_err(|_| Dropped::Malformed)?;
            let old = octets.get(header + piece.start + new.len()..header + piece.end);
            let old = old.ok_or(Dropped::Malformed)?;
            let copy = self.ports[hop.port].link.compose(old).ok_or(Dropped::TransmitQueue)?;
            self.send(input, (copy, false), &mut part, 0..old.len(), hop, now)?;
        }
        Ok(())
    }
}

fn unfit(refused: fragment::Refused) -> Dropped {
    match refused {
        fragment::Refused::Duplicate => Dropped::FragmentDuplicate,
        fragment::Refused::Overlap => Dropped::FragmentOverlap,
        fragment::Refused::Quota => Dropped::FragmentQuota,
        fragment::Refused::Ended => Dropped::Fragment,
    }
}
