//! What was measured, as a table.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less of it.
    Less,
    /// More of it.
    More,
}

/// Something that is measured.
#[derive(Debug)]
pub struct Metric {
    /// Its name in JSON, with the unit.
    pub key: &'static str,
    /// What it is, with the unit.
    pub label: &'static str,
    /// Digits behind the point.
    pub digits: usize,
    /// Which way is better.
    pub better: Better,
}

const fn metric(key: &'static str, label: &'static str, digits: usize, better: Better) -> Metric {
    Metric { key, label, digits, better }
}

/// Everything that is measured, in the order of the table.
pub const METRICS: [Metric; 21] = [
    metric("boot_s", "boot, start of QEMU to first echo reply through the NAT (s)", 2, Better::Less),
    metric("image_kib", "what boots, on disk (KiB)", 0, Better::Less),
    metric("memory_mib", "smallest `-m` that boots and forwards (MiB)", 0, Better::Less),
    metric("idle_percent", "idle CPU of QEMU (% of a core)", 2, Better::Less),
    metric("rtt_us", "echo round trip, median (µs)", 0, Better::Less),
    metric("rtt_p99_us", "echo round trip, 99th percentile (µs)", 0, Better::Less),
    metric("rtt_instructions", "echo round trip, guest instructions", 0, Better::Less),
    metric("load_rtt_us", "echo round trip beside 4 TCP streams, median (µs)", 0, Better::Less),
    metric("load_rtt_p99_us", "echo round trip beside 4 TCP streams, 99th percentile (µs)", 0, Better::Less),
    metric("tcp_up_mbps", "TCP upload, 4 streams (Mbit/s)", 0, Better::More),
    metric("tcp_up_cpu_s_per_gb", "TCP upload, CPU of QEMU (s/GB)", 2, Better::Less),
    metric("tcp_down_mbps", "TCP download, 4 streams (Mbit/s)", 0, Better::More),
    metric("tcp_down_cpu_s_per_gb", "TCP download, CPU of QEMU (s/GB)", 2, Better::Less),
    metric("udp_pps", "UDP of 64 octets, best delivered (packets/s)", 0, Better::More),
    metric("udp_vcpu_us", "UDP, guest CPU (µs/packet)", 2, Better::Less),
    metric("udp_rest_us", "UDP, CPU of QEMU's taps and queues (µs/packet)", 2, Better::Less),
    metric("udp_instructions", "UDP, guest instructions a packet", 0, Better::Less),
    metric("conns_per_s", "new TCP connections (1/s)", 0, Better::More),
    metric("conn_vcpu_us", "new TCP connection, guest CPU (µs)", 1, Better::Less),
    metric("conn_rest_us", "new TCP connection, CPU of QEMU's taps and queues (µs)", 1, Better::Less),
    metric("conn_instructions", "new TCP connection, guest instructions", 0, Better::Less),
];

/// The values of one firewall, by [`Metric::key`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Figures(pub BTreeMap<&'static str, f64>);

impl Figures {
    /// Keeps a value.
    pub fn set(&mut self, key: &'static str, value: f64) {
        debug_assert!(METRICS.iter().any(|metric| metric.key == key), "{key}");
        self.0.insert(key, value);
    }
}

/// What one firewall did.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub figures: Figures,
}

/// A table in Markdown: a row for what was measured, a column for each firewall, and how many times better the
/// first is than each of the others.
pub fn table(columns: &[Column]) -> String {
    let mut header = vec![String::new()];
    header.extend(columns.iter().map(|column| column.name.to_owned()));
    match columns {
        [_, _] => header.push("ratio".to_owned()),
        _ => header.extend(columns.iter().skip(1).map(|other| format!("ratio to {}", other.name))),
    }
    let mut rows = vec![header];
    for metric in &METRICS {
        let values: Vec<_> = columns.iter().map(|column| column.figures.0.get(metric.key).copied()).collect();
        if values.iter().any(Option::is_some) {
            rows.push(row(metric, &values));
        }
    }
    markdown(&rows)
}

fn row(metric: &Metric, values: &[Option<f64>]) -> Vec<String> {
    let mut row = vec![metric.label.to_owned()];
    row.extend(values.iter().map(|value| value.map_or("-".to_owned(), |value| number(value, metric.digits))));
    if let [ours, others @ ..] = values {
        let ratio = |theirs: &Option<f64>| ratio(metric.better, *ours, *theirs);
        row.extend(others.iter().map(|theirs| ratio(theirs).unwrap_or_else(|| "-".to_owned())));
    }
    row
}

/// How many times better ours is; below 1 it is worse.
fn ratio(better: Better, ours: Option<f64>, theirs: Option<f64>) -> Option<String> {
    let (ours, theirs) = (ours?, theirs?);
    let (over, under) = match better {
        Better::Less => (theirs, ours),
        Better::More => (ours, theirs),
    };
    let ratio = over / under;
    let digits = if ratio < 9.95 { 1 } else { 0 };
    (ratio.is_finite() && ratio > 0.0).then(|| format!("{}x", number(ratio, digits)))
}

/// With thin groups of three: `1 234.5`.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let length = whole.len();
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (length - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

/// Rows with their columns aligned: the first to the left, numbers to the right.
fn markdown(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
    let mut lines = rows.iter().map(line);
    let header = lines.next().unwrap_or_default();
    header + &rule + &lines.collect::<String>()
}

/// The same for programs, with what is known of the run.
pub fn json(columns: &[Column], run: Map<String, Value>) -> Value {
    let mut object = Map::new();
    object.insert("run".to_owned(), Value::Object(run));
    for column in columns {
        object.insert(column.name.to_lowercase().replace(' ', "_"), json!(column.figures));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &'static str, values: &[(&'static str, f64)]) -> Column {
        Column { name, figures: Figures(values.iter().copied().collect()) }
    }

    #[test]
    fn a_table_has_the_rows_that_were_measured_and_ratios() {
        let weir = column("Weir", &[("boot_s", 0.2), ("udp_pps", 80_000.0), ("memory_mib", 20.0)]);
        let linux = column("Linux", &[("boot_s", 3.0), ("udp_pps", 40_000.0)]);
        let text = table(&[weir, linux]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[0][1..5], ["", "Weir", "Linux", "ratio"]);
        assert!(rows[1][2].ends_with("-:"), "{text}");
        assert_eq!(rows[2][2..5], ["0.20", "3.00", "15x"]);
        assert_eq!(rows[3][2..5], ["20", "-", "-"]);
        assert_eq!(rows[4][2..5], ["80 000", "40 000", "2.0x"]);
        assert_eq!(rows.len(), 5);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn the_first_of_three_has_two_ratios() {
        let of = |name, value| column(name, &[("udp_vcpu_us", value)]);
        let text = table(&[of("Weir", 2.0), of("wire", 1.0), of("Linux", 20.0)]);
        assert!(text.contains("| ratio to wire | ratio to Linux |"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|row| row.contains("0.5x") && row.contains("10x")), "{text}");
    }

    #[test]
    fn one_firewall_has_no_ratio() {
        let text = table(&[column("Weir", &[("rtt_us", 1234.4)])]);
        assert!(!text.contains("ratio") && text.contains(" 1 234 |"), "{text}");
    }

    #[test]
    fn a_ratio_says_how_many_times_better() {
        assert_eq!(ratio(Better::Less, Some(2.0), Some(1.0)).as_deref(), Some("0.5x"));
        assert_eq!(ratio(Better::More, Some(2.0), Some(1.0)).as_deref(), Some("2.0x"));
        assert_eq!(ratio(Better::Less, Some(0.0), Some(1.0)), None);
        assert_eq!(ratio(Better::Less, None, Some(1.0)), None);
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, digits, text) in [
            (0.0, 0, "0"),
            (999.9, 1, "999.9"),
            (1000.0, 0, "1 000"),
            (1_234_567.25, 2, "1 234 567.25"),
            (-123.0, 0, "-123"),
        ] {
            assert_eq!(number(value, digits), text);
        }
    }

    #[test]
    fn every_metric_has_a_key_of_its_own() {
        let keys: std::collections::BTreeSet<_> = METRICS.iter().map(|metric| metric.key).collect();
        assert_eq!(keys.len(), METRICS.len());
    }

    #[test]
    fn json_has_an_object_for_each() {
        let value =
            json(&[column("Weir", &[("boot_s", 0.5)]), column("Linux best", &[("boot_s", 3.5)])], Map::new());
        assert_eq!(value, json!({"run": {}, "weir": {"boot_s": 0.5}, "linux_best": {"boot_s": 3.5}}));
    }
}
