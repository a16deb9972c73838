//! What is required, what Weir does, and which tests show it: `cargo run -p tests --example scorecard`.
//!
//! Runs the in-process tests and prints a table in Markdown. A test belongs to a requirement by its
//! name: `req_9_…` in `rfc4787.rs` to RFC 4787 REQ-9, `rfc_1858_…` anywhere to RFC 1858; or by a mark
//! in the table. A requirement without a test reads "no test".
#![forbid(unsafe_code)]

mod table;

use std::process::{Command, ExitCode, Stdio};

use table::{FILES, ROWS, Row};

/// A test that ran: its file, its name, whether it passed.
struct Ran {
    file: &'static str,
    test: String,
    passed: bool,
}

/// The tests of a file with their results.
fn run(package: &str, file: &'static str) -> Result<Vec<Ran>, String> {
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
        Some(Ran { file, test: name.to_owned(), passed: result == "ok" })
    });
    let results: Vec<_> = results.collect();
    if results.is_empty() {
        return Err(format!("{package}/{file} ran no test: try cargo test -p {package} --test {file}"));
    }
    Ok(results)
}

/// Whether a test is about a requirement.
fn is_about(row: &Row, ran: &Ran) -> bool {
    let place = format!("{}::{}", ran.file, ran.test);
    row.marks.iter().any(|mark| place.contains(mark)) || bears_number(row.id, ran)
}

fn bears_number(id: &str, Ran { file, test, .. }: &Ran) -> bool {
    let words: Vec<&str> = test.split('_').collect();
    let Some((document, number)) = id.split_once(" REQ-") else {
        // `rfc_1858_and_3128_…` names two.
        return words.first() == Some(&"rfc") && words.iter().take(4).any(|word| *word == id);
    };
    let of_file = *file == format!("rfc{document}")
        || document == "4787" && ["fragments", "fragment_variants"].contains(file);
    // `req_1_and_7_…` names two; letters tell parts: `req_3a_…`.
    let named = words.iter().skip(1).take_while(|word| {
        ["and", "req"].contains(*word)
            || word.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse::<u8>().is_ok()
    });
    let mut named = named.map(|word| word.trim_end_matches(|c: char| c.is_ascii_lowercase()));
    let whole = test.strip_prefix("rfc_").is_some_and(|rest| {
        rest.strip_prefix(&format!("{document}_req_{number}"))
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    whole || of_file && words.first() == Some(&"req") && named.any(|word| word == number)
}

/// What the tests of a requirement said.
fn verdict(row: &Row, tests: &[Ran]) -> String {
    let about: Vec<&Ran> = tests.iter().filter(|ran| is_about(row, ran)).collect();
    let failed: Vec<&str> = about.iter().filter(|ran| !ran.passed).map(|ran| ran.test.as_str()).collect();
    match (about.len(), failed.len()) {
        (0, _) => "no test".to_owned(),
        (all, 0) => format!("{all} pass"),
        (all, bad) => format!("{bad} of {all} FAIL: {}", failed.join(", ")),
    }
}

fn main() -> ExitCode {
    let mut tests = Vec::new();
    for (package, file) in FILES {
        match run(package, file) {
            Ok(ran) => tests.extend(ran),
            Err(reason) => {
                eprintln!("{reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("| requirement | what | Weir | tests |\n|---|---|---|---|");
    for row in ROWS {
        let document = if row.id.starts_with(|c: char| c.is_ascii_digit()) { "RFC " } else { "" };
        println!("| {document}{} | {} | {} | {} |", row.id, row.what, row.value, verdict(row, &tests));
    }
    let failed = tests.iter().filter(|ran| !ran.passed).count();
    println!("\n{} tests, {failed} failed", tests.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
