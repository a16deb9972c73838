//! The same packets through Weir and through the kernel, and what each made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use netback::ETHERNET_HEADER;
use rules::site::Site;
use tests::flags::RST;
use tests::packet::Packet;
use tests::{Chance, View, World};

use crate::chosen::{Chosen, Freedom};
use crate::flow::{Both, Flow, Way};
use crate::interest::Interest;
use crate::judgement::{alike, answers_alike};
use crate::listing;
use crate::router::Router;

/// Packets of the run that are shown with a difference.
const SHOWN: usize = 5;

/// What became of one packet.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Both let it pass, through the same port.
    Passed(usize, Both<Vec<u8>>),
    /// Both answered it alike.
    Answered,
    /// Both were silent.
    Dropped,
    /// They differ as the documents say.
    Differs(Chosen),
}

/// What a run has seen, for a report and for demands on it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets that passed both.
    pub passed: usize,
    /// Packets that both answered.
    pub answered: usize,
    /// Packets that both dropped.
    pub dropped: usize,
    /// Counters of rules that were compared.
    pub counters: usize,
    /// Counters that had counted something.
    pub counted: usize,
    /// Packets about which they differ by choice.
    pub chosen: BTreeMap<Chosen, usize>,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.answered += other.answered;
        self.dropped += other.dropped;
        self.counters += other.counters;
        self.counted += other.counted;
        for (chosen, count) in &other.chosen {
            *self.chosen.entry(*chosen).or_default() += count;
        }
    }
}

/// What was seen of one packet: who sent what on which port, and how it ended in Weir.
struct Seen<'a> {
    weir: &'a [(usize, Vec<u8>)],
    kernel: &'a [(usize, Vec<u8>)],
    reasons: &'a [&'a str],
    is_answered: bool,
}

/// Weir and a Linux router with the same rules.
pub struct Duel {
    pub world: World,
    pub router: Router,
    pub chance: Chance,
    pub interest: Interest,
    pub flows: Vec<Flow>,
    /// Ends that no new flow takes: those of flows, gone ones too.
    pub used: BTreeSet<(u8, SocketAddrV4, SocketAddrV4)>,
    /// Weir's external endpoints, by protocol, with whom they stand for.
    pub external: BTreeMap<(u8, SocketAddrV4), SocketAddrV4>,
    pub tally: Tally,
    /// Set when rules have been asked about what Linux alone has said: the rest is not comparable.
    pub is_unfit: bool,
    freedom: Freedom,
    /// Whether rules can tell one external endpoint from another, of packets as they arrive or of connections.
    pub tells_endpoints: bool,
    /// Whether chains see what Linux itself sends.
    pub rules_on_answers: bool,
    pub rules: String,
    shown: Vec<String>,
}

impl Duel {
    /// Both, with the rules of a site in `directory`; the error is what nft says against them.
    pub fn new(site: &'static Site, directory: &Path, rules: &str, chance: Chance) -> Result<Self, String> {
        let mut world = World::with(site, |_, _| {});
        // Rules may show the world what they like.
        world.judges[0].hidden.clear();
        let router = Router::new(site);
        router.load(directory)?;
        Ok(Self {
            world,
            router,
            chance,
            interest: Interest::new(rules),
            flows: Vec::new(),
            used: BTreeSet::new(),
            external: BTreeMap::new(),
            tally: Tally::default(),
            is_unfit: false,
            freedom: Freedom::new(rules),
            rules_on_answers: ["hook output", "filter hook postrouting"]
                .iter()
                .any(|hook| rules.contains(hook)),
            tells_endpoints: ["filter hook prerouting", "ct reply"].iter().any(|form| rules.contains(form)),
            rules: rules.to_owned(),
            shown: Vec::new(),
        })
    }

    /// The uplink's addresses.
    pub fn is_external(&self, address: Ipv4Addr) -> bool {
        let uplink = &self.world.site.uplink;
        address == uplink.address.address || uplink.extra.contains(&address)
    }

    /// Sends a packet to both, as each of them knows its ends, and compares what they do.
    ///
    /// # Errors
    /// How they differ.
    pub fn send(
        &mut self,
        port: usize,
        packets: Both<Packet>,
        flow: Option<(&Flow, Way)>,
    ) -> Result<Fate, String> {
        let octets = packets.map(|packet| packet.octets());
        let before = self.world.all_drops(self.name(port));
        let answered = self.world.answered(self.name(port));
        let [ours, theirs] = octets.clone().map(|octets| self.world.frame_for(port, &octets));
        self.world.send_frame(self.name(port), &ours);
        let weir = self.sent_by_weir();
        let kernel = self.router.send(port, &theirs);
        let kernel: Vec<_> =
            kernel.iter().map(|(port, frame)| (*port, frame[ETHERNET_HEADER..].to_vec())).collect();
        let after = self.world.all_drops(self.name(port));
        let reasons: Vec<&str> =
            after.iter().filter(|(why, n)| before.get(*why) != Some(n)).map(|(why, _)| *why).collect();
        let is_answered = self.world.answered(self.name(port)) > answered;
        let line = format!(
            "{} {}\n    Weir {}{}\n    Linux {}",
            self.name(port),
            brief(&octets[0]),
            all(&weir, self.world.site),
            reasons.iter().map(|reason| format!(" ({reason})")).collect::<String>(),
            all(&kernel, self.world.site)
        );
        self.shown.push(line);
        self.is_unfit |= self.rules_on_answers && reasons == ["unsolicited"];
        let seen = Seen { weir: &weir, kernel: &kernel, reasons: &reasons, is_answered };
        let fate = self.fate(port, &octets, flow, &seen);
        let owes = ["time_exceeded", "rejected", "delivered", "no_route"];
        if is_answered || reasons.iter().any(|reason| owes.contains(reason)) {
            // Answers have a rate (RFC 1812 4.3.2.8), which is compared nowhere.
            self.world.pass_seconds(1);
        }
        let fate = fate.map_err(|why| self.told(&why))?;
        match &fate {
            Fate::Passed(..) => self.tally.passed += 1,
            Fate::Answered => self.tally.answered += 1,
            Fate::Dropped => self.tally.dropped += 1,
            Fate::Differs(chosen) => *self.tally.chosen.entry(*chosen).or_default() += 1,
        }
        Ok(fate)
    }

    fn fate(
        &self,
        port: usize,
        octets: &Both<Vec<u8>>,
        flow: Option<(&Flow, Way)>,
        seen: &Seen,
    ) -> Result<Fate, String> {
        let &Seen { weir, kernel, reasons, is_answered } = seen;
        let sent = View::new(octets[0].clone());
        if let Some(chosen) = Chosen::of(port == 0, &sent, weir, kernel, reasons) {
            return Ok(Fate::Differs(chosen));
        }
        match (weir, kernel) {
            ([], []) if self.owes_an_answer(&sent, reasons) => {
                Err("Weir lets it in, and the kernel, which would answer it, does not".into())
            }
            ([], []) => Ok(Fate::Dropped),
            ([(out, ours)], [(other, theirs)]) if out == other => {
                if is_answered {
                    return answers_alike(ours, theirs, octets).map(|is_renamed| match is_renamed {
                        true => Fate::Differs(Chosen::ErrorSource),
                        false => Fate::Answered,
                    });
                }
                let pair = [ours.clone(), theirs.clone()];
                let is_inside = port != 0 && *out != 0;
                let may_show = |ours, theirs| self.may_show(&sent, flow, is_inside, ours, theirs);
                alike(&pair, flow, may_show, &self.freedom).map(|()| Fate::Passed(*out, pair))
            }
            _ => Err("they leave by different ports, or not both".into()),
        }
    }

    /// Whether a new flow may show these sources: the same, or each what its router may choose.
    fn may_show(
        &self,
        sent: &View,
        flow: Option<(&Flow, Way)>,
        is_inside: bool,
        ours: SocketAddrV4,
        theirs: SocketAddrV4,
    ) -> bool {
        let Some((flow, _)) = flow else { return ours == theirs };
        let opener = flow.sent.0;
        // Hairpinning: the receiver sees the external endpoint, whatever the rules leave out (RFC 4787 REQ-9).
        if is_inside && self.is_external(*flow.sent.1.ip()) && self.is_external(*ours.ip()) {
            return true;
        }
        let is_same_address =
            ours.ip() == theirs.ip() || self.freedom.allows_addresses(*ours.ip(), *theirs.ip());
        let is_taken = |port| {
            let at = SocketAddrV4::new(*ours.ip(), port);
            let owner = self.external.get(&(sent.protocol(), at));
            let policy = &self.world.site.policy;
            let mut forwards = policy.forwards().filter(|forward| forward.takes(sent.protocol(), *ours.ip()));
            owner.is_some_and(|owner| *owner != opener)
                || forwards.any(|forward| (forward.first..=forward.last).contains(&port))
        };
        let is_translated = *ours.ip() != *opener.ip();
        let is_same_port = ours.port() == theirs.port()
            || self.freedom.allows_ports(ours.port(), theirs.port())
            || (is_translated && (is_taken(theirs.port()) || theirs.port() != opener.port()));
        let known =
            self.external.iter().any(|(at, owner)| *at == (sent.protocol(), ours) && *owner == opener);
        is_same_address && (is_same_port || known)
    }

    /// Whether the kernel would have answered what Weir let in and met with silence.
    fn owes_an_answer(&self, sent: &View, reasons: &[&str]) -> bool {
        let is_let_in = matches!(reasons, ["unsolicited" | "delivered"]);
        let is_answered = match sent.protocol() {
            6 => sent.tcp_flags() & RST == 0,
            17 => true,
            _ => false,
        };
        is_let_in && is_answered && !self.rules_on_answers
    }

    fn sent_by_weir(&mut self) -> Vec<(usize, Vec<u8>)> {
        let ports = 0..=self.world.site.clients.len();
        let mut sent = Vec::new();
        for port in ports {
            let seen = self.world.sent(self.name(port));
            sent.extend(seen.into_iter().map(|seen| (port, seen.octets.clone())));
        }
        sent
    }

    /// The name of a port.
    pub fn name(&self, port: usize) -> &'static str {
        name(self.world.site, port)
    }

    /// Compares what the rules have counted.
    ///
    /// # Errors
    /// The counters that differ.
    pub fn compare_counters(&mut self) -> Result<(), String> {
        let kernel = self.router.counters();
        let order = listing::Order::new(&self.rules);
        let mut weir: Vec<_> = self.world.datapath.rule_counters().collect();
        weir.sort_by_key(|(at, _)| order.of(at.line));
        if weir.len() != kernel.len() {
            return Err(format!("{} counters in Weir, {} in the kernel", weir.len(), kernel.len()));
        }
        let mut wrong = Vec::new();
        for ((at, ours), theirs) in weir.iter().zip(&kernel) {
            self.tally.counters += 1;
            self.tally.counted += usize::from(theirs.packets > 0);
            // In Linux the reset to a connection's first segment passes nat chains; see `Chosen`.
            let may_count_more = theirs.is_of_source_nat && self.rules.contains("tcp reset");
            let is_same = (ours.packets, ours.octets) == (theirs.packets, theirs.octets);
            let is_allowed = is_same || (may_count_more && ours.packets <= theirs.packets);
            if !is_allowed {
                wrong.push(format!(
                    "{at} in {}: {} packets {} octets, the kernel has {} and {}",
                    theirs.place, ours.packets, ours.octets, theirs.packets, theirs.octets
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(self.told(&wrong.join("\n"))) }
    }

    /// A difference with what led to it.
    fn told(&self, why: &str) -> String {
        let from = self.shown.len().saturating_sub(SHOWN);
        let last: Vec<_> =
            (from..).zip(&self.shown[from..]).map(|(n, line)| format!("  {n}: {line}")).collect();
        format!("{why}\n{}", last.join("\n"))
    }
}

fn name(site: &Site, port: usize) -> &'static str {
    port.checked_sub(1).and_then(|at| site.clients.get(at)).map_or("uplink", |client| client.name)
}

fn all(sent: &[(usize, Vec<u8>)], site: &Site) -> String {
    match sent {
        [] => "sends nothing".into(),
        _ => {
            sent.iter().map(|(port, octets)| format!("-> {} {} ", name(site, *port), brief(octets))).collect()
        }
    }
}

/// A packet in a few words.
pub fn brief(octets: &[u8]) -> String {
    let view = View::new(octets);
    let ends = match view.protocol() {
        6 | 17 => format!("{} > {}", view.from(), view.to()),
        _ => format!("{} > {}", view.source(), view.destination()),
    };
    let what = match view.protocol() {
        1 => {
            let (kind, code) = view.icmp();
            let quote = if matches!(kind, 3 | 4 | 5 | 11 | 12) {
                format!(" about [{}]", brief(view.data()))
            } else {
                format!(" id {}", view.id())
            };
            format!("icmp {kind}/{code}{quote}")
        }
        6 => match octets.get(view.header_len() + 13) {
            Some(flags) => format!("tcp flags {flags:#04x}"),
            None => "tcp".into(),
        },
        17 => "udp".into(),
        other => format!("protocol {other}"),
    };
    format!(
        "{ends} {what} ttl {} tos {} id {} length {}",
        view.ttl(),
        view.tos(),
        view.identification(),
        view.total_len()
    )
}
