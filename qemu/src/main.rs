//! `weir`: builds, checks, boots and shows the firewall image.
#![forbid(unsafe_code)]

use clap::Parser;
use qemu::args::{Arguments, Command};
use qemu::error::{Error, Result};
use qemu::{bench, check, demo, libvirt, replay, run, who};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGINT, SIGTERM or SIGHUP. Whoever waits looks at it, cleans up and returns.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The exit code of what an interrupt kept from finishing, as shells have it: 128 and SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A check leaves nothing behind: an interrupt ends it at once.
    let is_check = matches!(&arguments.command, Some(Command::Check(check)) if !check.watch);
    let ready = if is_check { Ok(()) } else { listen() };
    match ready.and_then(|()| execute(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if interrupted() { EXIT_INTERRUPTED } else { error.exit_code() })
        }
    }
}

/// The first interrupt asks for an end in order, the second one does not ask.
fn listen() -> Result<()> {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    };
    ctrlc::set_handler(handler).map_err(|cause| Error::new(format!("cannot listen for interrupts: {cause}")))
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn execute(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command.unwrap_or(Command::Demo(arguments.demo)) {
        Command::Demo(arguments) => {
            demo::run(&arguments, &INTERRUPTED)?;
            // A demo that goes on is ended by an interrupt; one that runs once is cut short by it.
            return Ok(if arguments.once && interrupted() {
                ExitCode::from(EXIT_INTERRUPTED)
            } else {
                ExitCode::SUCCESS
            });
        }
        Command::Build(arguments) => run::build(&arguments)?,
        Command::Check(arguments) => check::run(&arguments, &INTERRUPTED)?,
        Command::Schema => print!("{}", rules_compiler::SCHEMA),
        Command::Who(arguments) => who::run(&arguments)?,
        Command::Replay(arguments) => {
            replay::run(&arguments, &INTERRUPTED)?;
            return Ok(if interrupted() { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS });
        }
        Command::Run(arguments) => run::run(&arguments, &INTERRUPTED)?,
        Command::LibvirtXml(arguments) => libvirt::run(&arguments)?,
        Command::Bench(arguments) => bench::run(&arguments, &INTERRUPTED)?,
        Command::BenchAgent(arguments) => bench::agent::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
