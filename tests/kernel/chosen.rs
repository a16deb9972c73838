//! What Weir does otherwise than Linux, and means to: the only differences that pass.
//!
//! Those of single packets are [`Chosen`], and how often each was met is counted. Where a rule or a translation leaves a
//! choice, [`Freedom`] has it. What else would differ is not asked in the first place:
//!
//! - Sources that are not behind their port, and destinations from the uplink that are not external addresses: Weir drops
//!   them ahead of all rules, unless one says notrack of them, Linux behind those of prerouting (`traffic`).
//! - Fragments: Weir judges a datagram once, by its first fragment.
//! - Protocols without ports: one client talks to a peer at a time (NAT.md).
//! - Segments outside of the windows of a connection, and what comes behind a FIN or RST that was dropped on its way: Linux
//!   takes it for said, Weir does not (`traffic`). The same of a reset by a rule, which ends Linux's connection.
//! - Echo requests to the appliance that come again: they are `new` each time, in Linux `established` (`traffic`).
//! - Fields of own packets at output and postrouting: identification, DSCP and ECN; the ends of a reset that is about to be
//!   translated back; `ct status` and `ct reply` of an answer to a connection's first packet (`generate`, `forms`).
//! - What chains at output and postrouting see of Linux's words to strangers outside; a file that asks about them is unfit
//!   (`compare`).
//! - Counters of nat chains at postrouting may be greater in Linux where a rule resets connections: the reset to a first
//!   segment passes them (`duel`).
//! - Two neighbouring `!=` on small fields of a header, which nft 1.0.6 joins into another meaning (`generate`).
//! - `th` without a protocol, which Weir refuses.

use std::net::{Ipv4Addr, SocketAddrV4};

use tests::View;

/// A chosen difference, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chosen {
    /// A packet from the uplink to the appliance itself, which its rules let in, meets silence (RFC 5382 REQ-4); Linux
    /// tells that nobody listens.
    SilenceOutside,
    /// A host that sends to an external endpoint reaches the one that it stands for (RFC 4787 REQ-9).
    Hairpinning,
    /// Who sent a packet of a translated connection hears of its end from the port's own address (NAT.md, own ICMP); Linux
    /// puts the address there that the packet was for.
    ErrorSource,
    /// An internal endpoint has one external endpoint, which no other has (RFC 4787 REQ-1, REQ-3); Linux gives a port to several,
    /// and one endpoint several ports.
    Endpoint,
    /// A second session that its receiver could not tell from another one, because both are translated to the same ends, is
    /// refused; Linux changes a port unasked.
    Conflict,
    /// What belongs to no connection and opens none is never forwarded, even where rules accept `ct state invalid`: mid-stream
    /// segments are not picked up.
    Invalid,
    /// An answer is held back by its rate (RFC 1812 4.3.2.8).
    AnswerRate,
}

impl Chosen {
    /// The difference that explains what was seen of a packet, if one does.
    pub fn of(
        is_uplink: bool,
        sent: &View,
        weir: &[(usize, Vec<u8>)],
        kernel: &[(usize, Vec<u8>)],
        reasons: &[&str],
    ) -> Option<Self> {
        let answers = |answer: &(usize, Vec<u8>)| View::new(answer.1.clone()).destination() == sent.source();
        match (weir, kernel, reasons) {
            ([], [answer], ["unsolicited"]) if is_uplink && answers(answer) => Some(Self::SilenceOutside),
            ([], [_], ["invalid"]) => Some(Self::Invalid),
            ([], [_], ["conflict"]) => Some(Self::Conflict),
            ([], [answer], [_, "answer_limited"] | ["answer_limited", _]) if answers(answer) => {
                Some(Self::AnswerRate)
            }
            _ => None,
        }
    }
}

/// Where rules leave a choice, which each router makes in its own way.
#[derive(Clone, Debug, Default)]
pub struct Freedom {
    addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    ports: Vec<(u16, u16)>,
}

impl Freedom {
    /// The choices that the translations of these rules leave.
    pub fn new(rules: &str) -> Self {
        let mut freedom = Self::default();
        for line in rules.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            let Some(at) = ["snat", "dnat", "masquerade"].iter().find_map(|word| line.find(word)) else {
                continue;
            };
            if line.contains("random") {
                freedom.ports.push((1, u16::MAX));
            }
            for word in line[at..].split([' ', ',', ';', ':', '{', '}']) {
                let Some((first, last)) = word.split_once('-') else { continue };
                if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                    freedom.addresses.push((first, last));
                }
                if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                    freedom.ports.push((first, last));
                }
            }
        }
        freedom
    }

    /// Whether both are addresses of one range to choose from.
    pub fn allows_addresses(&self, one: Ipv4Addr, other: Ipv4Addr) -> bool {
        let is_in = |of: &(Ipv4Addr, Ipv4Addr)| [one, other].iter().all(|at| (of.0..=of.1).contains(at));
        one == other || self.addresses.iter().any(is_in)
    }

    /// Whether both are ports of one range to choose from.
    pub fn allows_ports(&self, one: u16, other: u16) -> bool {
        let is_in = |of: &(u16, u16)| [one, other].iter().all(|at| (of.0..=of.1).contains(at));
        one == other || self.ports.iter().any(is_in)
    }

    /// Whether both are endpoints to choose from.
    pub fn allows(&self, one: SocketAddrV4, other: SocketAddrV4) -> bool {
        self.allows_addresses(*one.ip(), *other.ip()) && self.allows_ports(one.port(), other.port())
    }
}
