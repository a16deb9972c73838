//! What the demo shows, and what it makes of it in the end.

use super::steps::{Outcome, Step};
use super::world::{Outside, World};
use crate::flow::Flow;
use crate::stats::Stats;
use crate::table::columns;
use smoltcp::wire::IpProtocol;

/// One row of the table: a step and its latest outcome.
#[derive(Debug)]
struct Row {
    step: Step,
    outcome: Option<Outcome>,
    left: Option<Flow>,
    good: u64,
    bad: u64,
}

/// Everything the demo knows so far.
#[derive(Debug)]
pub struct Report {
    title: String,
    rows: Vec<Row>,
    names: Vec<String>,
    /// What was seen on the uplink.
    pub outside: Outside,
    /// The appliance's own figures, the latest.
    pub stats: Option<Stats>,
    flaws: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(world: &World, title: &str) -> Self {
        let rows = Step::all(world.hosts.len()).into_iter().map(|step| Row {
            step,
            outcome: None,
            left: None,
            good: 0,
            bad: 0,
        });
        Self {
            title: format!(
                "Weir: {title}; it forwarded {:.2} s after power-on",
                world.booted_in.as_secs_f64()
            ),
            rows: rows.collect(),
            names: world.hosts.iter().map(|host| host.identity().name.clone()).collect(),
            outside: Outside::default(),
            stats: None,
            flaws: Vec::new(),
        }
    }

    /// Takes the outcome of a step; the uplink has been looked at since.
    pub fn add(&mut self, outcome: Outcome, world: &World) {
        let left = outcome.sent.and_then(|sent| self.outside.translation_of(&sent));
        let is_good = outcome.is_as_expected(left.as_ref(), world);
        let name = self.names.get(outcome.step.client).cloned().unwrap_or_default();
        if !is_good {
            let seen = left
                .map_or("nothing left by the uplink".to_owned(), |flow| format!("{flow} left by the uplink"));
            self.flaw(format!("{name}: {}: {}; {seen}", outcome.step.describe(world), outcome.describe()));
        }
        if let Some(row) = self.rows.iter_mut().find(|row| row.step == outcome.step) {
            row.good += u64::from(is_good);
            row.bad += u64::from(!is_good);
            row.left = left;
            row.outcome = Some(outcome);
        }
    }

    fn flaw(&mut self, text: String) {
        // A demo that goes on for days remembers the first ones.
        if self.flaws.len() < 100 {
            self.flaws.push(text);
        }
    }

    /// One line that sums up, and everything that did not go as it should.
    pub fn verdict(&self) -> (String, Vec<String>) {
        let mut flaws = self.flaws.clone();
        let good: u64 = self.rows.iter().map(|row| row.good).sum();
        let all: u64 = self.rows.iter().map(|row| row.good + row.bad).sum();
        let sessions = self.stats.as_ref().map_or(0, |stats| stats.sessions);
        if self.rows.iter().any(|row| row.outcome.is_none()) {
            flaws.push("not every step was taken".into());
        }
        if !self.outside.strangers.is_empty() {
            let list: Vec<String> = self.outside.strangers.iter().map(ToString::to_string).collect();
            flaws.push(format!(
                "packets left by the uplink with sources that are not external: {}",
                list.join(", ")
            ));
        }
        if self.outside.packets == 0 {
            flaws.push("nothing was seen to leave by the uplink".into());
        }
        if sessions == 0 {
            flaws.push("the appliance counts no session".into());
        }
        let summary = format!(
            "{good} of {all} steps as they should be; {} packets left by the uplink, {}; the appliance counts {sessions} sessions",
            self.outside.packets,
            if self.outside.strangers.is_empty() {
                "all from its external address"
            } else {
                "not all from its external address"
            }
        );
        (summary, flaws)
    }

    /// The screen: the table of steps, then the appliance's own counters.
    pub fn lines(&self, world: &World) -> Vec<String> {
        let mut lines = vec![self.title.clone(), String::new()];
        let taken: Vec<_> = self.rows.iter().filter_map(|row| row.cells(&self.names, world)).collect();
        if !taken.is_empty() {
            let titles = ["client", "does", "to", "sent from", "left as", "", "result"];
            let mut table = vec![titles.map(str::to_owned).to_vec()];
            table.extend(taken);
            lines.extend(columns(&table));
        }
        if let Some(stats) = &self.stats {
            lines.push(String::new());
            lines.extend(figures(stats));
        }
        lines
    }
}

impl Row {
    /// The row as text, once its step was taken.
    fn cells(&self, names: &[String], world: &World) -> Option<Vec<String>> {
        let outcome = self.outcome.as_ref()?;
        let name = names.get(self.step.client).cloned().unwrap_or_default();
        let does = self.step.describe(world);
        let (to, from) =
            outcome.sent.as_ref().map_or_else(Default::default, |flow| (destination(flow), source(flow)));
        let left = self.left.as_ref().map_or_else(|| "-".to_owned(), source);
        let times = if self.good + self.bad > 1 {
            format!(" ({} of {} right)", self.good, self.good + self.bad)
        } else {
            String::new()
        };
        let mark = if outcome.is_as_expected(self.left.as_ref(), world) { "ok" } else { "WRONG" };
        Some(vec![name, does, to, from, left, mark.to_owned(), outcome.describe() + &times])
    }
}

fn source(flow: &Flow) -> String {
    endpoint(flow, flow.source, flow.source_port, true)
}

fn destination(flow: &Flow) -> String {
    endpoint(flow, flow.destination, flow.destination_port, false)
}

fn endpoint(flow: &Flow, address: std::net::Ipv4Addr, port: u16, is_source: bool) -> String {
    match flow.protocol {
        IpProtocol::Icmp if is_source => format!("{address} id {port}"),
        IpProtocol::Icmp => address.to_string(),
        _ => format!("{address}:{port}"),
    }
}

/// The appliance's own counters, as a table.
fn figures(stats: &Stats) -> Vec<String> {
    let mut lines = vec![format!(
        "the appliance's own figures: up {:.1} s, {} sessions ({} evicted), {} mappings, {} neighbours, {} free buffers",
        stats.uptime_ms as f64 / 1e3,
        stats.sessions,
        stats.evicted,
        stats.mappings,
        stats.neighbors,
        stats.buffers_free
    )];
    let mut table = vec![
        ["port", "frames in", "octets in", "frames out", "octets out", "dropped"].map(str::to_owned).to_vec(),
    ];
    for port in &stats.ports {
        let drops: Vec<String> = port
            .drops
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let numbers =
            [port.rx_frames, port.rx_octets, port.tx_frames, port.tx_octets].map(|number| number.to_string());
        let mut row = vec![port.name.clone()];
        row.extend(numbers);
        row.push(if drops.is_empty() { "-".into() } else { drops.join(", ") });
        table.push(row);
    }
    lines.extend(columns(&table));
    let counted: Vec<String> = stats
        .rules
        .iter()
        .filter(|rule| rule.packets > 0)
        .map(|rule| format!("{} {} packets", rule.at, rule.packets))
        .collect();
    if !counted.is_empty() {
        lines.push(format!("rules that counted: {}", counted.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_name_ports_drops_and_rules() {
        let line = r#"{"uptime_ms":1500,"sessions":3,"mappings":2,"evicted":1,"ports":[{"name":"work","rx_frames":10,"rx_octets":1000,"tx_frames":9,"tx_octets":900,"drops":{"policy":2,"ttl":0}}],"rules":[{"at":"rules.nft:9","packets":4,"octets":1},{"at":"rules.nft:10","packets":0,"octets":0}]}"#;
        let lines = figures(&serde_json::from_str(line).unwrap());
        assert!(lines[0].contains("up 1.5 s, 3 sessions (1 evicted), 2 mappings"), "{lines:?}");
        assert!(lines[2].starts_with("work  10") && lines[2].ends_with("policy 2"), "{lines:?}");
        assert_eq!(lines[3], "rules that counted: rules.nft:9 4 packets");
    }
}
