//! The cost of translation, beside that of the least that could do it.
//!
//! ```text
//! cargo bench -p nat                       nanoseconds a packet, by criterion, and their ratios
//! cargo bench -p nat -- --instructions     instructions a packet, by valgrind
//! ```
//! Octets of 64-octet IPv4 packets go in, translated headers with right checksums come out, on one
//! core. `nothing` is what the loop itself costs; it is taken off the instructions.
#![forbid(unsafe_code)]

mod cases;
mod floor;
mod packets;

use std::alloc::System;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::{Command, ExitCode};
use std::time::Duration;

use cases::{CASES, Case};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Figures by case and by side.
type Figures = BTreeMap<(&'static str, &'static str), f64>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let position = |flag: &str| arguments.iter().position(|argument| argument == flag);
    if let Some(at) = position("--run") {
        return run(arguments.get(at + 1..).unwrap_or_default());
    }
    cases::check();
    let figures = match position("--instructions") {
        Some(_) => instructions(),
        None => Ok(nanoseconds()),
    };
    match figures {
        Ok(figures) => print(&figures),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let allocated = || ALLOCATOR.stats().bytes_allocated - ALLOCATOR.stats().bytes_deallocated;
    println!("octets a flow: {}", cases::octets_a_flow(allocated));
    ExitCode::SUCCESS
}

/// Both sides of a case.
fn sides(case: &Case) -> impl Iterator<Item = (&'static str, fn() -> cases::Run)> {
    [Some(("nat", case.nat)), case.floor.map(|floor| ("floor", floor))].into_iter().flatten()
}

fn print(figures: &Figures) {
    println!("{:<28}{:>8}{:>8}{:>8}", "a packet", "nat", "floor", "ratio");
    for case in &CASES {
        let of = |side| figures.get(&(case.name, side)).copied();
        match (of("nat"), of("floor")) {
            (Some(nat), Some(floor)) => {
                println!("{:<28}{nat:>8.0}{floor:>8.0}{:>8.2}", case.name, nat / floor);
            }
            (Some(nat), None) => println!("{:<28}{nat:>8.0}", case.name),
            _ => {}
        }
    }
}

/// The best of criterion's samples: what disturbs a sample only ever adds.
fn nanoseconds() -> Figures {
    let figures = RefCell::new(Figures::new());
    let (before, long) = (Duration::from_millis(300), Duration::from_secs(1));
    let criterion = criterion::Criterion::default().sample_size(20).without_plots();
    let criterion = criterion.warm_up_time(before).measurement_time(long);
    let mut criterion = criterion.configure_from_args();
    for case in &CASES {
        let mut group = criterion.benchmark_group(case.name);
        for (side, make) in sides(case) {
            group.bench_function(side, |bencher| {
                let mut run = make();
                bencher.iter_custom(|rounds| {
                    let taken = run(rounds);
                    let each = taken.as_nanos() as f64 / rounds as f64;
                    let mut figures = figures.borrow_mut();
                    let best = figures.entry((case.name, side)).or_insert(f64::INFINITY);
                    *best = best.min(if rounds < 64 { f64::INFINITY } else { each });
                    taken
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
    figures.into_inner()
}

/// Runs one side of one case so many times: `--run CASE SIDE ROUNDS`.
fn run(arguments: &[String]) -> ExitCode {
    let [case, side, rounds] = arguments else {
        return ExitCode::FAILURE;
    };
    let case = CASES.iter().find(|known| known.name == case);
    let make = case.and_then(|case| sides(case).find(|(name, _)| name == side));
    match make.zip(rounds.parse().ok()) {
        Some(((_, make), rounds)) => {
            make()(rounds);
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

/// Rounds of two runs: the difference is the loop's alone.
const ROUNDS: [u32; 2] = [640, 3840];

fn instructions() -> Result<Figures, String> {
    let mut figures = Figures::new();
    let mut nothing = 0.0;
    for case in &CASES {
        for (side, _) in sides(case) {
            let [few, many] = [count(case.name, side, ROUNDS[0])?, count(case.name, side, ROUNDS[1])?];
            let each = many.saturating_sub(few) as f64 / f64::from(ROUNDS[1] - ROUNDS[0]);
            if case.name == "nothing" {
                nothing = each;
            }
            figures.insert((case.name, side), each - nothing);
        }
    }
    Ok(figures)
}

/// The instructions of a run, as callgrind counts them.
fn count(case: &str, side: &str, rounds: u32) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| format!("no path to this bench: {error}"))?;
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["--run", case, side, &rounds.to_string()])
        .output();
    let output = valgrind.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "instructions are counted by valgrind: install it, or run without --instructions".into()
        }
        _ => format!("valgrind: {error}"),
    })?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.filter(|_| output.status.success());
    collected.and_then(|(_, number)| number.trim().parse().ok()).ok_or_else(|| format!("valgrind: {told}"))
}
