//! Both ends of a session to be: who is behind an external endpoint, and which one its opener shows.

use core::ops::RangeInclusive;

use nat::blocks::{Blocks, block};

use super::*;

impl<L: Link> Datapath<L> {
    /// The internal endpoint that a packet to an external one is for, though no session awaits it:
    /// from inside by hairpinning (RFC 4787 REQ-9), from outside as filtering has it (REQ-8). A static
    /// forward goes first.
    pub(super) fn mapped(
        &self,
        input: usize,
        tuple: &Tuple,
        candidate: &Candidate,
        forwarded: bool,
    ) -> Option<Endpoint> {
        let new = candidate.state == State::New && !forwarded;
        let external = new && self.routes.external().contains(&tuple.destination().address);
        external.then(|| self.nat.inbound(tuple, input != UPLINK)).flatten()
    }

    /// The source behind us of a hairpinned session that no rule translates: as the rules have it
    /// towards the uplink, so that one endpoint looks the same from wherever it is seen (RFC 4787
    /// REQ-1); where they have nothing, the address that it talks to.
    pub(super) fn hairpin_source(&self, candidate: Candidate, seen: Endpoint) -> Option<nat::SourceNat> {
        let internal = candidate.source;
        let mut outward = Candidate {
            output: Some(UPLINK as u8),
            destination: seen.address,
            destination_port: seen.port,
            dnat: false,
            ..candidate
        };
        let decision = self.policy.evaluate(Hook::Postrouting, &mut outward, &mut Uncounted);
        let same = SourceNat::To { first: seen.address, last: seen.address, ports: None, random: false };
        self.source(decision.snat.or(Some(same)), internal, UPLINK)
    }

    /// The source behind us of a session that `internal` opens and that leaves by a port; none if
    /// there is no port for it.
    pub(super) fn source(
        &self,
        snat: Option<SourceNat>,
        internal: Ipv4Addr,
        output: usize,
    ) -> Option<nat::SourceNat> {
        let (first, last, ports, random) = match snat {
            Some(SourceNat::Static(address)) => return Some(nat::SourceNat::Static(address)),
            Some(SourceNat::Masquerade { ports, random }) => {
                let address = self.routes.address(output);
                (address, address, ports, random)
            }
            Some(SourceNat::To { first, last, ports, random }) => (first, last, ports, random),
            None => return Some(nat::SourceNat::None),
        };
        let (address, ports) = match ports {
            None if self.site.nat.port_blocks > 0 => {
                let (address, block) = self.block(internal)?;
                (address, Some((*block.start(), *block.end())))
            }
            // RFC 4787 REQ-2: the same internal address, the same external one.
            _ => {
                let pool = self.routes.external_between(first, last);
                (self.nat.paired(internal, pool).unwrap_or(first), ports)
            }
        };
        Some(match ports {
            _ if random => nat::SourceNat::Random(address, ports),
            Some((from, to)) => nat::SourceNat::Range(address, from, to),
            None => nat::SourceNat::Address(address),
        })
    }

    /// The ports of a host, which follow from its address alone (RFC 7422): so does the external
    /// address then, whichever a rule offers. Who had a port must not depend on anything else.
    fn block(&self, internal: Ipv4Addr) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
        let blocks = Blocks {
            external: self.routes.shared(),
            ports: self.site.nat.external_ports,
            size: u16::try_from(self.site.nat.port_blocks).unwrap_or(u16::MAX),
        };
        let number = u32::try_from(self.site.host_number(internal)?).ok()?;
        block(&blocks, number)
    }
}

/// Counts nothing: no packet goes that way.
struct Uncounted;

impl Tally for Uncounted {
    fn count(&mut self, _: rules::CounterId, _: u32) {}

    fn log(&mut self, _: rules::object::LogId, _: &Candidate) {}

    fn memory(&mut self) -> Option<(&mut rules::Memory, u64)> {
        None
    }
}
