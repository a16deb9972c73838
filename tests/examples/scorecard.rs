//! What is required, what Weir does, and which tests show it: `cargo run -p tests --example scorecard`.
//!
//! Runs the in-process tests and prints a table in Markdown. A test belongs to a requirement by its
//! name: `req_9_…` in `rfc4787.rs` to RFC 4787 REQ-9, `rfc_1858_…` anywhere to RFC 1858. A
//! requirement that no test names reads "no test".
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};

/// A requirement: its document, its number there or nothing, what it asks, what Weir does.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    ("4787", "1", "UDP mapping", "endpoint-independent"),
    ("4787", "3", "no port overloading; ports below 1024 stay below; static forwards reserved", "yes"),
    ("4787", "4", "port preservation, then parity", "yes"),
    ("4787", "5", "UDP idle time", "300 s"),
    ("4787", "6", "outbound refreshes, inbound does not", "yes"),
    ("4787", "8", "filtering", "address and port dependent; others by choice"),
    ("4787", "9", "hairpinning", "yes, as the rules admit it"),
    ("4787", "10", "ALGs", "none"),
    ("4787", "11", "deterministic", "yes"),
    ("4787", "12", "ICMP errors end no mapping", "yes"),
    ("4787", "13", "larger than the next link", "3/4, or pieces in order"),
    ("4787", "14", "fragments in any order", "yes, bounded"),
    ("5382", "1", "TCP mapping", "endpoint-independent"),
    ("5382", "2", "every valid opening, simultaneous too", "yes"),
    ("5382", "3", "TCP filtering", "address and port dependent; others by choice"),
    ("5382", "4", "unsolicited SYN", "silence"),
    ("5382", "5", "TCP idle times", "7440 s established, 240 s transitory"),
    ("5382", "6", "no ALG changes a segment", "none"),
    ("5382", "7", "no port overloading", "yes"),
    ("5382", "8", "TCP hairpinning", "yes, as the rules admit it"),
    ("5382", "9", "ICMP errors cross", "yes"),
    ("5382", "10", "ICMP errors end no session", "yes"),
    ("5508", "1", "ICMP query mapping", "endpoint-independent"),
    ("5508", "2", "ICMP query idle time", "60 s"),
    ("5508", "3", "malformed errors are dropped", "yes"),
    ("5508", "4", "inbound errors are reverted", "yes"),
    ("5508", "5", "outbound errors leak nothing", "yes"),
    ("5508", "6", "errors refresh nothing", "yes"),
    ("5508", "7", "errors are hairpinned", "through static forwards"),
    ("5508", "8", "no resources for a flow", "ICMP 3/13, counted"),
    ("5508", "10", "what is originated", "echo reply, 3/x, 11/0"),
    ("768", "", "UDP checksum 0 stays 0", "yes"),
    ("826", "", "ARP", "yes"),
    ("1624", "", "checksums by difference, wrong stays wrong", "yes"),
    ("1812", "", "router requirements", "yes"),
    ("1858", "", "tiny fragments", "dropped"),
    ("2474", "", "DSCP crosses", "yes"),
    ("2827", "", "anti-spoofing on every port", "yes"),
    ("3128", "", "overlapping TCP header", "dropped"),
    ("3168", "", "ECN crosses", "yes"),
    ("4884", "", "ICMP extensions survive", "yes"),
    ("5227", "", "ARP probes answered, addresses announced", "yes"),
    ("5722", "", "overlapping fragments end their datagram", "yes"),
    ("5961", "", "a blind SYN changes nothing", "yes"),
    ("6056", "", "ports chosen at random", "keyed per boot"),
    ("6191", "", "a SYN reopens a closed connection", "yes"),
    ("6633", "", "source quench", "never sent nor passed on"),
    ("6864", "", "identification of fragments", "fresh behind NAT"),
    ("7857", "", "resets are transitory", "240 s"),
    ("9293", "", "resets that we send", "exact"),
];

/// The test files that are run: package and name.
const FILES: &[(&str, &str)] = &[
    ("nat", "rfc4787"),
    ("nat", "rfc5382"),
    ("nat", "rfc5508"),
    ("nat", "rewrite"),
    ("tests", "translation"),
    ("tests", "rfc4787"),
    ("tests", "rfc5382"),
    ("tests", "rfc5508"),
    ("tests", "rfc1812"),
    ("tests", "fragments"),
    ("tests", "arp"),
];

/// What the tests of one requirement said.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

/// The tests of a file with their results.
fn run(package: &str, file: &str) -> Result<Vec<(String, bool)>, String> {
    eprintln!("running {package}/{file}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["test", "-p", package, "--test", file])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let results = text.lines().filter_map(|line| {
        let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        Some((name.to_owned(), result == "ok"))
    });
    let results: Vec<_> = results.collect();
    if results.is_empty() {
        return Err(format!("{package}/{file} ran no test: try cargo test -p {package} --test {file}"));
    }
    Ok(results)
}

/// Whether a test is about a row.
fn is_about((document, number, ..): &Row, file: &str, test: &str) -> bool {
    let words: Vec<&str> = test.split('_').collect();
    if number.is_empty() {
        // `rfc_1858_and_3128_…` names two.
        return words.first() == Some(&"rfc") && words.iter().take(4).any(|word| word == document);
    }
    let of_file = file == format!("rfc{document}") || *document == "4787" && file == "fragments";
    // `req_1_and_7_…` names two; letters tell parts: `req_3a_…`.
    let named = words.iter().skip(1).take_while(|word| {
        **word == "and" || word.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse::<u8>().is_ok()
    });
    let mut named = named.map(|word| word.trim_end_matches(|c: char| c.is_ascii_lowercase()));
    of_file && words.first() == Some(&"req") && named.any(|word| word == *number)
}

fn main() -> ExitCode {
    let mut tallies: BTreeMap<usize, Tally> = BTreeMap::new();
    for (package, file) in FILES {
        let results = match run(package, file) {
            Ok(results) => results,
            Err(reason) => {
                eprintln!("{reason}");
                return ExitCode::FAILURE;
            }
        };
        for (test, passed) in &results {
            for (index, _) in ROWS.iter().enumerate().filter(|(_, row)| is_about(row, file, test)) {
                let tally = tallies.entry(index).or_default();
                tally.passed += usize::from(*passed);
                tally.failed += usize::from(!*passed);
            }
        }
    }
    println!("| requirement | what | Weir | tests |\n|---|---|---|---|");
    let mut failed = false;
    for (index, (document, number, what, value)) in ROWS.iter().enumerate() {
        let id = if number.is_empty() { String::new() } else { format!(" REQ-{number}") };
        let result = match tallies.get(&index).copied().unwrap_or_default() {
            Tally { passed: 0, failed: 0 } => "no test".to_owned(),
            Tally { passed, failed: 0 } => format!("{passed} pass"),
            Tally { passed, failed: bad } => {
                failed = true;
                format!("{bad} of {} FAIL", passed + bad)
            }
        };
        println!("| RFC {document}{id} | {what} | {value} | {result} |");
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
