//! The source that a session shows: which external address, and which ports of it.

use nat::blocks::{Blocks, block};

use super::*;

impl<L: Link> Datapath<L> {
    /// The source behind us of a session that `internal` opens; none if there is no port for it.
    ///
    /// `hairpin` is the external address that it talks to from inside, and shows if no rule says
    /// otherwise.
    pub(super) fn source(
        &self,
        snat: Option<SourceNat>,
        internal: Ipv4Addr,
        hop: Hop,
        hairpin: Option<Ipv4Addr>,
    ) -> Option<nat::SourceNat> {
        let (first, last, ports) = match (snat, hairpin) {
            (Some(SourceNat::Static(address)), _) => return Some(nat::SourceNat::Static(address)),
            (Some(SourceNat::Masquerade { ports, .. }), _) => {
                let address = self.routes.address(hop.port);
                (address, address, ports)
            }
            (Some(SourceNat::To { first, last, ports, .. }), _) => (first, last, ports),
            (None, Some(address)) => (address, address, None),
            (None, None) => return Some(nat::SourceNat::None),
        };
        match ports {
            None if self.site.nat.port_blocks > 0 => self.block(internal),
            // RFC 4787 REQ-2: the same internal address, the same external one.
            _ => {
                let pool = self.routes.external_between(first, last);
                let address = self.nat.paired(internal, pool).unwrap_or(first);
                Some(match ports {
                    Some((from, to)) => nat::SourceNat::Range(address, from, to),
                    None => nat::SourceNat::Address(address),
                })
            }
        }
    }

    /// The ports of a host, which follow from its address alone (RFC 7422): so does the external
    /// address then, whichever a rule offers. Who had a port must not depend on anything else.
    fn block(&self, internal: Ipv4Addr) -> Option<nat::SourceNat> {
        let blocks = Blocks {
            // Hosts are told apart by their numbers.
            first: Ipv4Addr::UNSPECIFIED,
            external: self.routes.external(),
            ports: self.site.nat.external_ports,
            size: u16::try_from(self.site.nat.port_blocks).unwrap_or(u16::MAX),
        };
        let number = u32::try_from(self.site.host_number(internal)?).ok()?;
        let (address, ports) = block(&blocks, Ipv4Addr::from_bits(number))?;
        Some(nat::SourceNat::Range(address, *ports.start(), *ports.end()))
    }
}
