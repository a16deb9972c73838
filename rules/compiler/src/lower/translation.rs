//! `masquerade`, `snat` and `dnat`: what they may translate to.

use std::net::Ipv4Addr;

use rules::site::Prefix;
use rules::table::{Action, Field, NO_PORT};
use rules::translation::{DestinationChoice, Netmap, SourceChoice};
use rules::{Hook, SourceNat};

use super::known::Known;
use super::map::Piece;
use super::{Context, Lowering, Premises};
use crate::program::{Match, Step, Test};
use crate::syntax::keys::{Datatype, Layer};
use crate::syntax::tree::{self, Place, Span, Target, Translation, Value, ValueWhat};

/// The most addresses that one translation may spread over.
const SPREAD_MAX: u32 = 4096;

/// Addresses that a translation leads to.
#[derive(Clone, Copy)]
struct Addresses {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl Addresses {
    fn iter(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits)
    }
}

impl Lowering<'_> {
    pub(super) fn masquerade(
        &mut self,
        ports: Option<&Value>,
        is_random: bool,
        premises: &Premises,
    ) -> Option<Action> {
        let ports = match ports {
            Some(value) => Some(self.source_ports(value, premises)?),
            None => None,
        };
        Some(Action::Snat(SourceChoice::Always(SourceNat::Masquerade { ports, random: is_random })))
    }

    /// `dnat to :port`: each address stays.
    pub(super) fn ports_alone(
        &mut self,
        of: &Translation,
        ports: &Value,
        premises: &Premises,
    ) -> Option<Action> {
        if of.is_snat {
            let message = "a host that keeps its address keeps its port: write \"masquerade to :ports\", or \"snat to address:ports\"";
            return self.refuse(ports.span.clone(), message);
        }
        if of.names_family || of.is_prefix || of.wants_run || of.wants_port {
            let message = "a port alone has its place in \"dnat to :port\"";
            return self.refuse(ports.span.clone(), message);
        }
        let (first, last) = self.nat_ports(ports, premises, "send to")?;
        self.no_chance(of.random.as_ref(), Some((first, last)))?;
        Some(Action::Dnat(DestinationChoice::Ports { first, last }))
    }

    /// `redirect`: to the address of the interface that a packet comes in by, which is a piece for each.
    pub(super) fn redirect(
        &mut self,
        (ports, random): (Option<&Value>, Option<&Span>),
        span: &Span,
        rule: &tree::Rule,
        context: &Context,
        premises: &Premises,
    ) -> Option<Vec<Piece>> {
        self.nat_allowed("redirect", &[Hook::Prerouting, Hook::Output], span, context)?;
        let ports = match ports {
            Some(value) => Some(self.nat_ports(value, premises, "send to")?),
            None => None,
        };
        self.no_chance(random, ports)?;
        let (first, base) = self.split(rule, premises, &[])?;
        let mut pieces: Vec<_> = first.into_iter().collect();
        let clients = self.plan.clients.iter().map(|client| client.address);
        let own = std::iter::once(self.plan.uplink.address.address).chain(clients).collect::<Vec<_>>();
        for (port, address) in (0u32..).zip(own) {
            let mut premises = base.clone();
            let known = Known {
                field: Field::InputPort,
                ranges: [(port, port)].into(),
                negated: false,
                max: NO_PORT,
            };
            if !premises.narrow(known) {
                continue;
            }
            let test = Test::Equal(port);
            premises.push(Step::Match(Match { field: Field::InputPort, test, negated: false }));
            let to = DestinationChoice::To { first: address, last: address, ports };
            premises.push(Step::Do(Action::Dnat(to)));
            pieces.push(Piece { span: rule.span.clone(), premises });
        }
        Some(pieces)
    }

    /// A port of several is not drawn.
    fn no_chance(&mut self, random: Option<&Span>, ports: Option<(u16, u16)>) -> Option<()> {
        match random {
            Some(span) if ports.is_some_and(|(first, last)| first != last) => {
                let message = "a port of a destination by chance is not in this version's subset";
                self.refuse(span.clone(), message)
            }
            _ => Some(()),
        }
    }

    /// One target of a translation: of the whole statement, or of an element of its map.
    pub(super) fn translation(
        &mut self,
        of: &Translation,
        place: &Place,
        premises: &Premises,
    ) -> Option<Action> {
        let is_run = matches!(place.to.resolved().what, ValueWhat::Range(_) | ValueWhat::Prefix(..));
        if of.wants_run && !is_run {
            return self.refuse(place.to.span.clone(), "\"interval\" wants a range here");
        }
        if of.wants_port && (place.ports.is_none() || !matches!(of.to, Target::Map(_))) {
            return self.refuse(place.to.span.clone(), "\"addr . port\" wants a map with ports here");
        }
        match (of.is_prefix, of.is_snat) {
            (true, is_snat) => self.netmap(place, is_snat),
            (false, true) => self.snat(of, place, premises),
            (false, false) => self.dnat(of, place, premises),
        }
    }

    fn snat(&mut self, of: &Translation, place: &Place, premises: &Premises) -> Option<Action> {
        let addresses = self.addresses(&place.to)?;
        self.are_external(addresses, &place.to.span)?;
        let ports = match &place.ports {
            Some(value) => Some(self.source_ports(value, premises)?),
            None => None,
        };
        let Addresses { first, last } = addresses;
        let leaves_out = |own: &Ipv4Addr| !(first..=last).contains(own);
        let mut own = self.plan.external();
        if self.plan.nat.port_blocks > 0 && own.any(|own| leaves_out(&own)) {
            let message =
                "with port_blocks the address of a host follows from its number, not from this rule";
            self.warning(place.to.span.clone(), message.to_owned());
        }
        let source = SourceNat::To { first, last, ports, random: of.random.is_some() };
        Some(Action::Snat(SourceChoice::Always(source)))
    }

    fn dnat(&mut self, of: &Translation, place: &Place, premises: &Premises) -> Option<Action> {
        let addresses = self.addresses(&place.to)?;
        self.are_behind_clients(addresses, &place.to.span)?;
        let ports = match &place.ports {
            Some(value) => Some(self.nat_ports(value, premises, "send to")?),
            None => None,
        };
        self.no_chance(of.random.as_ref(), ports)?;
        let Addresses { first, last } = addresses;
        Some(Action::Dnat(DestinationChoice::To { first, last, ports }))
    }

    fn netmap(&mut self, place: &Place, is_snat: bool) -> Option<Action> {
        let to = &place.to;
        if let Some(ports) = &place.ports {
            return self.refuse(ports.span.clone(), "a prefix has no port: one to one, each port stays");
        }
        let prefix = self.block(to)?;
        let addresses = Addresses { first: prefix.network(), last: prefix.last() };
        let netmap = Netmap { address: addresses.first, length: prefix.length };
        if is_snat {
            self.are_external(addresses, &to.span)?;
            return Some(Action::Snat(SourceChoice::Netmap(netmap)));
        }
        self.are_behind_clients(addresses, &to.span)?;
        if netmap.length == 32 {
            // One host: it may have the address for itself, see `one_to_one`.
            let Addresses { first, last } = addresses;
            return Some(Action::Dnat(DestinationChoice::To { first, last, ports: None }));
        }
        Some(Action::Dnat(DestinationChoice::Netmap(netmap)))
    }

    /// A block of addresses: a prefix, or one address.
    pub(super) fn block(&mut self, value: &Value) -> Option<Prefix> {
        let value = value.resolved();
        if let ValueWhat::Prefix(address, length) = &value.what {
            let address = Ipv4Addr::from(self.single(address, Datatype::Address)?);
            let prefix = Prefix { address, length: *length };
            if prefix.network() != address {
                let message = format!(
                    "host bits are set and do not count: this is {}/{}",
                    prefix.network(),
                    prefix.length
                );
                self.warning(value.span.clone(), message);
            }
            return Some(prefix);
        }
        Some(Prefix { address: Ipv4Addr::from(self.single(value, Datatype::Address)?), length: 32 })
    }

    /// One address, or `first-last`.
    fn addresses(&mut self, value: &Value) -> Option<Addresses> {
        let value = value.resolved();
        if let ValueWhat::Prefix(..) = value.what {
            let message = "a prefix is no address to translate to";
            let label = "first-last spreads over addresses, prefix to keeps one to one".to_owned();
            return self.refuse_with(value.span.clone(), message, Some(label));
        }
        let (first, last) = self.ends(value, Datatype::Address)?;
        Some(Addresses { first: first.into(), last: last.into() })
    }

    /// The ends of a range, or one value as both.
    fn ends(&mut self, value: &Value, datatype: Datatype) -> Option<(u32, u32)> {
        let value = value.resolved();
        let ValueWhat::Range(ends) = &value.what else {
            return self.single(value, datatype).map(|value| (value, value));
        };
        let (first, last) = (self.single(&ends.0, datatype), self.single(&ends.1, datatype));
        let (first, last) = (first?, last?);
        if first > last {
            return self.refuse(value.span.clone(), "the range ends before it begins");
        }
        Some((first, last))
    }

    fn nat_ports(&mut self, value: &Value, premises: &Premises, what: &str) -> Option<(u16, u16)> {
        let (first, last) = self.ends(value, Datatype::Port)?;
        if !premises.has_ports(Layer::SessionPorts) {
            let message = "a port needs a match on tcp or udp before it, such as tcp dport 80";
            return self.refuse(value.span.clone(), message);
        }
        if first == 0 {
            return self.refuse(value.span.clone(), format!("port 0 is no port to {what}"));
        }
        Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?))
    }

    /// Ports that mappings may take: those of the dynamic pool, and those below 1024.
    fn source_ports(&mut self, value: &Value, premises: &Premises) -> Option<(u16, u16)> {
        let (first, last) = self.nat_ports(value, premises, "send from")?;
        if self.plan.nat.port_blocks > 0 {
            let message = "with port_blocks the ports of a host follow from its number: no rule names others";
            return self.refuse(value.span.clone(), message);
        }
        let pool = self.plan.nat.external_ports;
        if self.plan.is_sound && first >= 1024 && (last < pool.0 || pool.1 < first) {
            let message = format!(
                "no port of {first}-{last} is among external_ports of weir.toml, {}-{}",
                pool.0, pool.1
            );
            return self.refuse(value.span.clone(), message);
        }
        // Those below 1024 are no part of the pool.
        let (wanted, taken) = (first.max(1024)..=last, first.max(pool.0)..=last.min(pool.1));
        if self.plan.is_sound && !wanted.is_empty() && taken != wanted {
            let of = format!("of {first}-{last} is among external_ports of weir.toml, {}-{}", pool.0, pool.1);
            let message = match taken.is_empty() {
                true => format!("from 1024 on no port {of}"),
                false => format!("from 1024 on only {}-{} {of}", taken.start(), taken.end()),
            };
            self.warning(value.span.clone(), message);
        }
        Some((first, last))
    }

    fn are_external(&mut self, addresses: Addresses, span: &Span) -> Option<()> {
        let stranger = addresses.iter().find(|&address| !self.plan.is_external(address));
        let Some(address) = stranger.filter(|_| self.plan.is_sound) else { return Some(()) };
        let message = format!("{address} is neither the uplink's address nor one of its extra addresses");
        let label = "add it to extra in [uplink] of weir.toml".to_owned();
        self.refuse_with(span.clone(), message, Some(label))
    }

    fn are_behind_clients(&mut self, addresses: Addresses, span: &Span) -> Option<()> {
        if addresses.last.to_bits() - addresses.first.to_bits() >= SPREAD_MAX {
            let message = format!("a dnat leads to at most {SPREAD_MAX} addresses");
            return self.refuse(span.clone(), message);
        }
        let stranger = addresses.iter().find(|&address| !self.plan.is_behind_a_client(address));
        match stranger.filter(|_| self.plan.is_sound) {
            Some(address) => self.refuse(span.clone(), format!("{address} is no host behind a client port")),
            None => Some(()),
        }
    }
}
