//! The section `[nat]`: limits, timers and behaviour of the translation.

use std::ops::Range;

use rules::site::{Filtering, Filterings, Nat, SynAnswer, Timeouts};

use super::keys;
use super::reader::{Reader, Section};
use super::{At, Draft};
use crate::diagnostics::{meant, quoted};
use crate::lower::normalise;
use crate::names;
use crate::plan::UdpShort;

/// The longest idle time, a year in seconds.
const TIMEOUT_MAX: i64 = 31_536_000;

/// The longest rest of a port, a day in seconds.
const REST_MAX: i64 = 86_400;

const FILTERINGS: [(&str, Filtering); 3] = [
    ("endpoint-independent", Filtering::EndpointIndependent),
    ("address-dependent", Filtering::AddressDependent),
    ("address-and-port-dependent", Filtering::AddressAndPortDependent),
];

const SYN_ANSWERS: [(&str, SynAnswer); 2] =
    [("silent", SynAnswer::Silent), ("port-unreachable", SynAnswer::PortUnreachable)];

/// The section, and what of it is no plain number.
pub(super) struct NatPlan {
    pub nat: Nat,
    pub udp_short: Option<UdpShort>,
    /// Where `port_blocks` stands.
    pub blocks_span: Range<usize>,
}

impl Reader<'_> {
    pub(super) fn nat(&mut self, top: &Section, draft: &Draft) -> NatPlan {
        let mut plan = NatPlan { nat: Nat::DEFAULT, udp_short: None, blocks_span: 0..0 };
        let Some(section) = self.section(top, "nat") else {
            return plan;
        };
        self.keys(&section, &keys::NAT, &[]);
        let kinds = FILTERINGS.map(|(name, _)| name);
        self.default_only(&section, "mapping", &kinds);
        let nat = &mut plan.nat;
        nat.sessions = self.number(&section, "sessions", 16, 1_048_576, "").unwrap_or(nat.sessions);
        nat.external_ports = self.external_ports(&section).unwrap_or(nat.external_ports);
        nat.inbound_refresh = self.boolean(&section, "inbound_refresh").unwrap_or(nat.inbound_refresh);
        nat.filtering = self.filtering(&section);
        nat.port_rest = self.number(&section, "port_rest", 0, REST_MAX, " seconds").unwrap_or(nat.port_rest);
        nat.pickup = self.boolean(&section, "pickup").unwrap_or(nat.pickup);
        nat.syn_answer = self.choice(&section, "syn_answer", &SYN_ANSWERS).unwrap_or(nat.syn_answer);
        nat.fragments = self.fragments(&section).unwrap_or(nat.fragments);
        self.shares(&section, draft, nat);
        plan.blocks_span = self.get(&section, "port_blocks").map_or(0..0, |value| value.span());
        if let Some(timeout) = self.section(&section, "timeout") {
            let timeout = Section { title: "[nat.timeout]".to_owned(), ..timeout };
            self.keys(&timeout, &keys::TIMEOUT, &[]);
            self.timeouts(&timeout, &mut plan.nat.timeout);
            plan.udp_short = self.udp_short(&timeout, plan.nat.timeout.udp);
        }
        plan
    }

    /// `filtering`, and `[nat.filtering_by]` over it.
    fn filtering(&mut self, section: &Section) -> Filterings {
        let default = Nat::DEFAULT.filtering;
        let all = self.choice(section, "filtering", &FILTERINGS).map_or(default, Filterings::all);
        // A reply comes from whom the query went to: ICMP has nothing to choose (RFC 5508).
        self.filtering_by(section, Filterings { icmp: default.icmp, ..all })
    }

    fn filtering_by(&mut self, section: &Section, all: Filterings) -> Filterings {
        let Some(by) = self.section(section, "filtering_by") else {
            return all;
        };
        let by = Section { title: "[nat.filtering_by]".to_owned(), ..by };
        self.keys(&by, &keys::FILTERING_BY, &[]);
        let mut of = |key, default| self.choice(&by, key, &FILTERINGS).unwrap_or(default);
        let (tcp, udp, icmp) =
            (of("tcp", all.tcp), of("udp", all.udp), of("icmp", Nat::DEFAULT.filtering.icmp));
        if let Some(value) = self.get(&by, "icmp").filter(|_| icmp != Nat::DEFAULT.filtering.icmp) {
            self.error(value.span(), "ICMP queries are filtered by address and port in this version");
        }
        Filterings { tcp, udp, icmp: Nat::DEFAULT.filtering.icmp }
    }

    /// What each client has of the pool: it must fit in.
    fn shares(&mut self, section: &Section, draft: &Draft, nat: &mut Nat) {
        let (first, last) = nat.external_ports;
        let addresses = i64::try_from(draft.uplink.extra.len()).unwrap_or(i64::MAX).saturating_add(1);
        let clients = i64::try_from(draft.clients.len()).unwrap_or(i64::MAX).max(1);
        let ports = i64::from(last - first) + 1;
        let pool = ports.saturating_mul(addresses);
        let why = format!(": {pool} ports for {clients} clients");
        nat.port_blocks = self.port_blocks(section, draft, (ports, addresses)).unwrap_or(0);
        nat.client_floor = self.number(section, "client_floor", 0, pool / clients, &why).unwrap_or(0);
        nat.client_ceiling = self.number(section, "client_ceiling", 0, pool, ", the pool").unwrap_or(0);
        let is_low = nat.client_ceiling != 0 && nat.client_ceiling < nat.client_floor;
        if let Some(value) = self.get(section, "client_ceiling").filter(|_| is_low) {
            self.error(value.span(), "client_ceiling is below client_floor");
        }
    }

    /// The ports of each host (RFC 7422), all of one address: every host that there may be has some.
    fn port_blocks(
        &mut self,
        section: &Section,
        draft: &Draft,
        (ports, addresses): (i64, i64),
    ) -> Option<u32> {
        let hosts = draft.host_count();
        let most = ports / hosts.max(1).div_ceil(addresses.unsigned_abs()).try_into().unwrap_or(i64::MAX);
        let pool = ports.saturating_mul(addresses);
        let hint = if most == 0 { "; hosts = [...] in [[client]] lists those that count" } else { "" };
        let why = format!(": {pool} ports for {hosts} hosts{hint}");
        self.number(section, "port_blocks", 0, most, &why)
    }

    fn timeouts(&mut self, section: &Section, timeouts: &mut Timeouts) {
        let rules = [
            ("udp", 120, " seconds (RFC 4787 REQ-5)", &mut timeouts.udp),
            ("tcp_established", 7440, " seconds (RFC 5382 REQ-5)", &mut timeouts.tcp_established),
            ("tcp_transitory", 240, " seconds (RFC 5382 REQ-5)", &mut timeouts.tcp_transitory),
            ("icmp", 60, " seconds (RFC 5508 REQ-2)", &mut timeouts.icmp),
            ("other", 1, " seconds", &mut timeouts.other),
        ];
        for (key, least, why, value) in rules {
            *value = self.number(section, key, least, TIMEOUT_MAX, why).unwrap_or(*value);
        }
    }

    fn udp_short(&mut self, section: &Section, udp: u32) -> Option<UdpShort> {
        let short = self.section(section, "udp_short")?;
        self.keys(&short, &keys::UDP_SHORT, &[]);
        for (key, example) in [("ports", "\"53,123\""), ("seconds", "60")] {
            if self.get(&short, key).is_none() {
                self.error(
                    short.span.clone(),
                    format!("udp_short has no {}, such as {key} = {example}", quoted(key)),
                );
            }
        }
        let seconds = self.number(&short, "seconds", 1, udp.into(), " seconds, the idle time of UDP");
        let ports = self.text(&short, "ports").and_then(|text| self.well_known(text));
        Some(UdpShort { ports: ports?, seconds: seconds? })
    }

    /// `53,123,500-510`: ports that may have a shorter time, RFC 4787 REQ-5.
    fn well_known(&mut self, text: At<&str>) -> Option<Vec<(u16, u16)>> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (names::decimal(first.trim())?, names::decimal(last.trim())?);
            (1 <= first && first <= last && last <= 1023).then_some((first, last))
        };
        let Some(ranges) = text.value.split(',').map(range).collect::<Option<Vec<_>>>() else {
            let message = "ports must be well-known ones, 1 to 1023 (RFC 4787 REQ-5), such as \"53,123\"";
            self.error(text.span, message);
            return None;
        };
        let (ranges, overlaps) = normalise(ranges);
        if overlaps {
            self.error(text.span, "ports repeat or overlap");
            return None;
        }
        ranges.into_iter().map(|(a, b)| Some((u16::try_from(a).ok()?, u16::try_from(b).ok()?))).collect()
    }

    fn external_ports(&mut self, section: &Section) -> Option<(u16, u16)> {
        let text = self.text(section, "external_ports")?;
        let ports = text
            .value
            .split_once('-')
            .and_then(|(first, last)| Some((names::decimal(first)?, names::decimal(last)?)));
        let ports = ports.and_then(|(a, b)| Some((u16::try_from(a).ok()?, u16::try_from(b).ok()?)));
        match ports.filter(|&(first, last)| first >= 1024 && first <= last) {
            Some(ports) => Some(ports),
            None => {
                let message = "external_ports must be a range within 1024-65535, such as \"1024-65535\"";
                self.error(text.span, message);
                None
            }
        }
    }

    /// A size in octets, "64K" to "16M".
    fn fragments(&mut self, section: &Section) -> Option<u32> {
        let text = self.text(section, "fragments")?;
        let kibibytes = text.value.strip_suffix('K').map(|digits| (digits, 10));
        let mebibytes = text.value.strip_suffix('M').map(|digits| (digits, 20));
        let number = kibibytes
            .or(mebibytes)
            .and_then(|(digits, shift)| names::decimal(digits)?.checked_mul(1 << shift))
            .filter(|octets| (64 << 10..=16 << 20).contains(octets));
        if number.is_none() {
            self.error(text.span, "fragments must be a size from \"64K\" to \"16M\", such as \"1M\"");
        }
        number
    }

    /// One of the words, by its meaning.
    fn choice<T: Copy>(&mut self, section: &Section, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(section, key)?;
        if let Some(&(_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(meaning);
        }
        let noun = if key == "syn_answer" { key } else { "filtering" };
        self.no_choice(&text, noun, &words.iter().map(|&(word, _)| word).collect::<Vec<_>>());
        None
    }

    /// One of the words; only the first is built.
    fn default_only(&mut self, section: &Section, key: &str, words: &[&str]) {
        let Some(text) = self.text(section, key) else {
            return;
        };
        if words.first() == Some(&text.value) {
            return;
        }
        if words.contains(&text.value) {
            self.error(text.span, format!("{key} = {} is not available in this version", quoted(text.value)));
            return;
        }
        self.no_choice(&text, key, words);
    }

    fn no_choice(&mut self, text: &At<&str>, key: &str, words: &[&str]) {
        let message = format!("{} is no {key}; expected one of: {}", quoted(text.value), words.join(", "));
        match meant(text.value, words.iter().copied()) {
            Some(label) => self.diagnostics.error_with(self.source, text.span.clone(), message, label),
            None => self.error(text.span.clone(), message),
        }
    }
}
