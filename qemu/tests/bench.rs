//! `weir bench` from outside. What it measures is no test; that it measures is one.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

fn weir(words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(words.split_whitespace()).output().expect("the program was built")
}

/// Says on the terminal that a test does not run, past the capture of the test harness. In CI every test runs.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Namespaces of this process.
fn namespaces(of: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let is_of = |path: &PathBuf| path.to_string_lossy().contains(&format!("weir-{of}-"));
    entries.map(|entry| entry.path()).filter(is_of).collect()
}

#[test]
fn boot_is_measured_and_nothing_is_left() {
    if let Some(reason) = qemu::netns::obstacle() {
        return skip("boot_is_measured_and_nothing_is_left", &reason);
    }
    let file = std::env::temp_dir().join(format!("weir-bench-{}.json", std::process::id()));
    let command = format!("bench --only boot --seconds 1 --accel tcg --json {}", file.display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"));
    let child = child.args(command.split_whitespace()).stdout(std::process::Stdio::piped()).spawn();
    let child = child.expect("the program was built");
    let id = child.id();
    let output = child.wait_with_output().expect("it ends");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    assert!(table.contains("| Weir |") && table.contains("| boot, "), "{table}");
    let text = std::fs::read_to_string(&file).expect("it writes the file");
    // Fails only when somebody else was faster.
    let _ = std::fs::remove_file(&file);
    let figures: serde_json::Value = serde_json::from_str(&text).expect("the file is JSON");
    assert!(figures["weir"]["boot_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{text}");
    assert_eq!(namespaces(id), Vec::<PathBuf>::new());
}

#[test]
fn a_generator_without_an_answer_says_so() {
    let output = weir("bench-agent first-echo 127.0.0.1 1 0");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: no "), "{output:?}");
}

#[test]
fn linux_on_microvm_is_refused_with_what_to_do() {
    for option in ["--linux", "--linux-best"] {
        let output = weir(&format!("bench {option} --machine microvm"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--machine q35"), "{said}");
    }
}
