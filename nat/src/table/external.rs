//! Who is behind an external endpoint, and from whom it takes packets.

use core::net::Ipv4Addr;

use super::Nat;
use crate::config::Filtering;
use crate::endpoint::{Endpoint, Tuple, protocol};

impl Nat {
    /// The internal endpoint behind an external one, if a mapping is in force.
    pub fn internal(&self, protocol: u8, external: Endpoint) -> Option<Endpoint> {
        let id = self.mappings.id_at_external(protocol, external)?;
        self.mappings.in_use(id).map(|mapping| mapping.internal)
    }

    /// The external endpoint that an internal one has at an external address, if any.
    pub fn external(&self, protocol: u8, internal: Endpoint, external: Ipv4Addr) -> Option<Endpoint> {
        let found = self.mappings.find(protocol, internal, external);
        found.filter(|&(id, _)| self.mappings.in_use(id).is_some()).map(|(_, endpoint)| endpoint)
    }

    /// The internal endpoint that a packet without a session is for, if the mapping at its
    /// destination takes packets from its source (RFC 4787 REQ-8).
    ///
    /// `tuple` is the packet's as it arrived. From inside everybody is let in: that is hairpinning
    /// (RFC 4787 REQ-9, RFC 5382 REQ-8), and the policy has the last word. An outsider finds only
    /// mappings whose internal endpoint itself sent something in a session that lives.
    pub fn inbound(&self, tuple: &Tuple, from_inside: bool) -> Option<Endpoint> {
        let (protocol, external) = (tuple.protocol(), tuple.destination());
        if !matches!(protocol, protocol::UDP | protocol::TCP) {
            return None;
        }
        let mapping = self.mappings.id_at_external(protocol, external)?;
        let admits = from_inside
            || match self.options.filtering(protocol) {
                Filtering::AddressAndPortDependent => false,
                Filtering::AddressDependent => self.contacts.knows(mapping, tuple.source().address),
                Filtering::EndpointIndependent => true,
            };
        match admits && self.mappings.is_owned(mapping) {
            true => self.internal(protocol, external),
            false => None,
        }
    }

    /// The external address of an internal one, always the same among the same (RFC 4787 REQ-2).
    pub fn paired(&self, internal: Ipv4Addr, external: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let hash = u64::from(self.key.hash([u64::from(u32::from(internal)), 4 << 32]));
        let at = (hash * external.len() as u64) >> 32;
        external.get(at as usize).copied()
    }
}
