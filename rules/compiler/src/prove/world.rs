//! What a site lets come in, and where it leads: anti-spoofing and routes as sets of addresses.

use rules::Hook;
use rules::site::{Filtering, Prefix};
use rules::table::Field;

use super::space::{Space, without};
use crate::lower::{Ranges, intersection, normalise};
use crate::plan::Plan;

/// Protocols with numbers of their own, others with ports, unless they are too short for them, and what is left: all
/// but IGMP, which has no sessions.
pub(super) const TCP: u32 = 6;
pub(super) const UDP: u32 = 17;
pub(super) const ICMP: u32 = 1;
const OTHER_PORTS: [u32; 3] = [33, 132, 136];
const OTHERS: [(u32, u32); 4] = [(0, 0), (3, 5), (7, 16), (18, 255)];

/// ICMP queries that open a session: echo, timestamp, and those that nobody sends any more.
const QUERIES: [(u32, u32); 4] = [(8, 8), (13, 13), (15, 15), (17, 17)];

/// The addresses of a site.
pub(crate) struct World {
    pub own: Ranges,
    pub external: Ranges,
    /// Where packets may be forwarded to at all.
    pub forwardable: Ranges,
    /// The addresses that routes lead to, by port.
    pub behind: Vec<Ranges>,
    /// The sources that are believed, by port.
    pub believed: Vec<Ranges>,
}

fn range(prefix: Prefix) -> (u32, u32) {
    (prefix.network().to_bits(), prefix.last().to_bits())
}

fn points(addresses: impl Iterator<Item = std::net::Ipv4Addr>) -> Ranges {
    normalise(addresses.map(|address| (address.to_bits(), address.to_bits())).collect()).0
}

/// The network and the broadcast address of a link; links of two have none.
fn ends(link: Prefix) -> Ranges {
    let (first, last) = range(link);
    if link.length >= 31 { Vec::new() } else { vec![(first, first), (last, last)] }
}

impl World {
    pub fn new(plan: &Plan) -> Self {
        let external = points(plan.external());
        let own = points(plan.external().chain(plan.clients.iter().map(|client| client.address)));
        let links: Vec<Prefix> = std::iter::once(plan.uplink.address)
            .chain(plan.clients.iter().map(|client| client.on_link()))
            .collect();
        let hosts = vec![(0x0100_0000, 0x7eff_ffff), (0x8000_0000, 0xdfff_ffff)];
        let broadcasts = normalise(links.iter().flat_map(|&link| ends(link)).collect()).0;
        let behind = behind(plan, &links);
        let mut believed = Vec::new();
        for (port, &link) in links.iter().enumerate() {
            let routed = behind.get(port).cloned().unwrap_or_default();
            let mut sources = routed;
            if port == 0 {
                // What no route claims is outside.
                let claimed = normalise(behind.concat()).0;
                sources = normalise([sources, without(&[(0, u32::MAX)], &claimed)].concat()).0;
            }
            sources = without(&intersection(&sources, &hosts), &normalise(ends(link)).0);
            if let Some(client) = port.checked_sub(1).and_then(|at| plan.clients.get(at)) {
                let on_link = match client.hosts.as_slice() {
                    [] => without(&[range(link)], &normalise(ends(link)).0),
                    listed => points(listed.iter().copied()),
                };
                let routed = without(&sources, &[range(link)]);
                sources = normalise([routed, on_link].concat()).0;
            }
            believed.push(without(&sources, &own));
        }
        let forwardable = without(&hosts, &broadcasts);
        Self { own, external, forwardable, behind, believed }
    }

    /// Where packets that are not forwarded may be sent to: own addresses, broadcast, multicast and loopback.
    pub fn delivered(&self) -> Ranges {
        normalise([self.own.clone(), without(&[(0, u32::MAX)], &self.forwardable)].concat()).0
    }

    /// First packets of connections as they come in: a piece for each port and kind of protocol.
    /// Where rules keep packets out of sessions, strangers' may be for anybody.
    pub(super) fn arriving(&self, plan: &Plan, untracks: bool) -> Vec<Space> {
        let all = Space::all();
        let mut pieces = Vec::new();
        for (port, believed) in (0u32..).zip(&self.believed) {
            let wanted = if port == 0 && !untracks {
                self.external.clone()
            } else {
                normalise([&self.own[..], &self.forwardable].concat()).0
            };
            let of_port = all
                .with(Field::InputPort, [(port, port)])
                .and_then(|space| space.with(Field::Source, believed.as_slice()))
                .and_then(|space| space.with(Field::Destination, wanted))
                .and_then(|space| space.with(Field::Ttl, [(1, 255)]))
                .and_then(|space| space.with(Field::Length, [(20, 65_535)]))
                .and_then(|space| space.with(Field::SourceStation, hosts_of_frames()))
                .and_then(|space| match own_station(plan, port) {
                    // A device says the others.
                    None => space.with(Field::DestinationStation, hosts_of_frames()),
                    Some((upper, lower)) => space
                        .with(Field::DestinationStation, [(upper, upper)])
                        .and_then(|space| space.with(Field::DestinationStationRest, [(lower, lower)])),
                });
            let Some(of_port) = of_port else { continue };
            let kinds = [
                tcp(&of_port, plan.nat.pickup),
                with_ports(&of_port, UDP),
                of_port
                    .with(Field::Protocol, [(ICMP, ICMP)])
                    .and_then(|space| space.with(Field::IcmpType, QUERIES))
                    .and_then(|space| space.with(Field::IcmpCode, [(0, 255)])),
                of_port.with(Field::Protocol, OTHERS),
            ];
            pieces.extend(kinds.into_iter().flatten());
            pieces.extend(OTHER_PORTS.into_iter().filter_map(|protocol| with_ports(&of_port, protocol)));
        }
        pieces
    }

    /// Where packets to these addresses go: a hook, the port they leave by, and which of them.
    pub fn ways(&self, destinations: &[(u32, u32)]) -> Vec<(Hook, Option<u8>, Ranges)> {
        let mut ways = vec![(Hook::Input, None, intersection(destinations, &self.own))];
        let others = intersection(&without(destinations, &self.own), &self.forwardable);
        for (port, behind) in (0u8..).zip(&self.behind) {
            ways.push((Hook::Forward, Some(port), intersection(&others, behind)));
        }
        ways.retain(|(_, _, ranges)| !ranges.is_empty());
        ways
    }

    /// The hosts behind clients whom a packet to an external address may reach through a mapping; none when
    /// nobody lets such a packet in.
    pub fn mapped(&self, plan: &Plan, input: u32, protocol: u32) -> Ranges {
        let filtering = match protocol {
            TCP => plan.nat.filtering.tcp,
            UDP => plan.nat.filtering.udp,
            ICMP => plan.nat.filtering.icmp,
            _ => return Ranges::new(),
        };
        if input == 0 && filtering == Filtering::AddressAndPortDependent {
            return Ranges::new();
        }
        normalise(self.believed.iter().skip(1).flatten().copied().collect()).0
    }
}

/// The station's address that the site gives to a port: its first two octets, and the other four.
fn own_station(plan: &Plan, port: u32) -> Option<(u32, u32)> {
    let client = usize::try_from(port).ok()?.checked_sub(1).map(|at| plan.clients.get(at));
    let [a, b, c, d, e, f] = client.map_or(plan.uplink.mac, |client| client?.mac)?;
    Some((u16::from_be_bytes([a, b]).into(), u32::from_be_bytes([c, d, e, f])))
}

/// The first two octets of stations that are no group (IEEE 802).
fn hosts_of_frames() -> Ranges {
    (0..=u8::MAX).step_by(2).map(u32::from).map(|octet| (octet << 8, octet << 8 | 0xff)).collect()
}

fn with_ports(space: &Space, protocol: u32) -> Option<Space> {
    let space = space.with(Field::Protocol, [(protocol, protocol)])?;
    space.with(Field::SourcePort, [(0, 65_535)])?.with(Field::DestinationPort, [(0, 65_535)])
}

/// Segments that open a connection: SYN, and neither ACK, RST nor FIN (RFC 9293 3.10.7).
fn tcp(space: &Space, picks_up: bool) -> Option<Space> {
    let opens = |flags: &u32| picks_up || flags & 0x17 == 0x02;
    let flags: Ranges = (0..=255).filter(opens).map(|flags| (flags, flags)).collect();
    with_ports(space, TCP)?.with(Field::TcpFlags, normalise(flags).0)
}

/// The addresses that routes lead to, by port: the longest prefix counts, and a link before a route of its size.
fn behind(plan: &Plan, links: &[Prefix]) -> Vec<Ranges> {
    let mut entries: Vec<(Prefix, bool, usize)> =
        links.iter().enumerate().map(|(port, &link)| (link, false, port)).collect();
    for route in &plan.routes {
        if let Some(port) = links.iter().position(|link| link.contains(route.via)) {
            entries.push((route.to, true, port));
        }
    }
    if plan.uplink.gateway.is_some() {
        let everything = Prefix { address: std::net::Ipv4Addr::UNSPECIFIED, length: 0 };
        entries.push((everything, true, 0));
    }
    // Networks are within each other or apart: what is open holds what comes next, or has ended. Of equal ones a
    // link is put within a route.
    entries.sort_by_key(|(prefix, is_route, _)| (range(*prefix).0, prefix.length, !is_route));
    let mut behind = vec![Ranges::new(); links.len()];
    let mut open: Vec<((u32, u32), usize)> = Vec::new();
    let mut next = Some(0u32);
    let mut give = |port: usize, next: &mut Option<u32>, last: u32| {
        if let (Some(first), Some(of_port)) = (next.filter(|&first| first <= last), behind.get_mut(port)) {
            of_port.push((first, last));
        }
        *next = last.checked_add(1);
    };
    for (prefix, _, port) in entries {
        let own = range(prefix);
        while let Some(&((_, end), of)) = open.last().filter(|((_, end), _)| *end < own.0) {
            give(of, &mut next, end);
            open.pop();
        }
        if let (Some(&(_, of)), Some(before)) = (open.last(), own.0.checked_sub(1)) {
            give(of, &mut next, before);
        }
        next = Some(own.0);
        open.push((own, port));
    }
    while let Some(((_, end), of)) = open.pop() {
        give(of, &mut next, end);
    }
    behind.into_iter().map(|ranges| normalise(ranges).0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts_and_a_link_before_a_route() {
        let plan = "[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n[[client]]\nname = \"a\"\naddress = \"10.0.1.1/24\"\n[[client]]\nname = \"b\"\naddress = \"10.0.2.1/24\"\n[[route]]\nto = \"10.0.0.0/8\"\nvia = \"10.0.1.9\"\n[[route]]\nto = \"10.9.0.0/16\"\nvia = \"10.0.2.9\"\n";
        let compiled = crate::compile_text(plan, "# weir: allow open\n").expect("it compiles");
        let world = World::new(&compiled.plan);
        let address = |text: &str| text.parse::<std::net::Ipv4Addr>().map_or(0, |address| address.to_bits());
        let port = |text: &str| {
            let bits = address(text);
            world.behind.iter().position(|of| of.iter().any(|&(first, last)| (first..=last).contains(&bits)))
        };
        for (to, expected) in [
            ("0.0.0.0", 0),
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.0.1.77", 1),
            ("10.0.2.0", 2),
            ("10.0.2.255", 2),
            ("10.0.3.0", 1),
            ("10.8.255.255", 1),
            ("10.9.0.0", 2),
            ("10.9.255.255", 2),
            ("10.10.0.0", 1),
            ("11.0.0.0", 0),
            ("192.0.2.9", 0),
            ("255.255.255.255", 0),
        ] {
            assert_eq!(port(to), Some(expected), "{to}");
        }
        let believes = |port: usize, text: &str| {
            let bits = address(text);
            world.believed[port].iter().any(|&(first, last)| (first..=last).contains(&bits))
        };
        assert!(
            believes(1, "10.0.1.77")
                && believes(1, "10.4.4.4")
                && believes(2, "10.9.1.1")
                && believes(0, "8.8.8.8")
        );
        for (port, wrong) in [
            (1, "10.0.1.1"),
            (1, "10.0.1.255"),
            (1, "10.9.1.1"),
            (0, "10.4.4.4"),
            (0, "127.0.0.1"),
            (0, "192.0.2.255"),
            (2, "8.8.8.8"),
        ] {
            assert!(!believes(port, wrong), "{port} {wrong}");
        }
    }
}
