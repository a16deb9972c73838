//! `[hotplug]`: places for NICs that no client names, one for each address of a pool.
//!
//! A place is a client like any other, point to point: rules, routes and proofs know it before a NIC comes.

use std::net::Ipv4Addr;

use rules::site::ClientNetwork;

use super::reader::{Reader, Section};
use super::{At, CLIENTS_MAX, ClientDraft, is_name, keys};
use crate::check::not_a_host;
use crate::diagnostics::quoted;
use crate::names;

impl Reader<'_> {
    /// The places; `clients` is how many clients there are without them.
    pub(super) fn hotplug(&mut self, top: &Section, clients: usize) -> Vec<ClientDraft> {
        let Some(section) = self.section(top, "hotplug") else {
            return Vec::new();
        };
        self.keys(&section, &keys::HOTPLUG, &[]);
        for (key, example) in [("address", "10.137.0.1"), ("peers", "10.137.0.20-10.137.0.27")] {
            if self.get(&section, key).is_none() {
                self.missing(&section, key, example);
            }
        }
        let name = self.place(&section);
        let address = self.text(&section, "address").and_then(|text| self.address(text));
        let address = address.filter(|address| self.is_host(address));
        let peers = self.peers(&section, clients);
        let mtu = self.mtu(&section);
        let (Some(name), Some(address), Some(peers)) = (name, address, peers) else {
            return Vec::new();
        };
        let place = |(number, peer): (usize, Ipv4Addr)| ClientDraft {
            name: Some(At { value: format!("{}{}", name.value, number + 1), span: name.span.clone() }),
            address: Some(address.clone()),
            network: Some(At { value: ClientNetwork::Peer(peer), span: peers.span.clone() }),
            mtu,
            is_hotplug: true,
            ..ClientDraft::default()
        };
        peers.value.into_iter().enumerate().map(place).collect()
    }

    /// What the names of the places begin with.
    fn place(&mut self, section: &Section) -> Option<At<String>> {
        let Some(text) = self.text(section, "name") else {
            let is_left_out = self.get(section, "name").is_none();
            return is_left_out
                .then(|| At { value: "vif".to_owned(), span: section.span.start..section.span.start });
        };
        // The number has two digits.
        if !is_name(text.value) || text.value.len() > 13 {
            let name = quoted(text.value);
            self.error(text.span, format!("{name} begins no names of clients: 1 to 13 of a-z A-Z 0-9 _ . -"));
            return None;
        }
        Some(At { value: text.value.to_owned(), span: text.span })
    }

    /// Judged here once, not for each place.
    fn is_host(&mut self, address: &At<Ipv4Addr>) -> bool {
        let reason = not_a_host(address.value);
        if let Some(reason) = reason {
            self.error(address.span.clone(), format!("{} {reason}", address.value));
        }
        reason.is_none()
    }

    /// The addresses of the pool, in order.
    fn peers(&mut self, section: &Section, clients: usize) -> Option<At<Vec<Ipv4Addr>>> {
        let text = self.text(section, "peers")?;
        let (first, last) = text.value.split_once('-').unwrap_or((text.value, text.value));
        let mut ends = [first, last].map(names::address);
        if let Some(reason) = ends.iter_mut().find_map(|end| end.as_ref().err().cloned()) {
            self.error(text.span, reason);
            return None;
        }
        let [first, last] = ends.map(|end| end.map_or(0, Ipv4Addr::to_bits));
        if last < first {
            self.error(text.span, format!("{} ends before it begins", quoted(text.value)));
            return None;
        }
        let room = CLIENTS_MAX.saturating_sub(clients);
        if (last - first) as usize >= room {
            let message = format!("a site has at most {CLIENTS_MAX} clients: there is room for {room} here");
            self.error(text.span, message);
            return None;
        }
        Some(At { value: (first..=last).map(Ipv4Addr::from_bits).collect(), span: text.span })
    }
}
