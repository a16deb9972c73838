//! `weir demo`: the appliance at work, between simulated clients and an outside that needs no root.
//!
//! ```text
//! client "work" 10.0.1.2 --unix socket-- [ 10.0.1.1            ]
//!                                        [ the image  192.0.2.2 ] --QEMU's user-mode network-- servers on 127.0.0.1
//! client "lab"  10.0.2.2 --unix socket-- [ 10.0.2.1            ]
//! ```

mod report;
mod steps;
mod world;

pub use report::Report;
pub use steps::{Expected, Outcome, Step, Task};
pub use world::{NAME, Outside, World};

use crate::accel;
use crate::args;
use crate::command::Config;
use crate::error::{Error, Result};
use crate::image::{self, Site};
use crate::memory;
use crate::plan::Plan;
use crate::table::Screen;
use crate::vm;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two rounds of a demo that goes on.
const PAUSE: Duration = Duration::from_secs(2);

/// How often the screen and the interrupt are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long the appliance may take to tell its figures.
const STATS: Duration = Duration::from_secs(3);

/// Builds the image and runs the demo until it ends or `interrupted` becomes true.
///
/// # Errors
/// It cannot start; or, with `--once`, something did not go as it should.
pub fn run(arguments: &args::Demo, interrupted: &AtomicBool) -> Result<()> {
    vm::find_qemu()?;
    let accel = accel::choose(arguments.machine.accel)?;
    let site = Site::open_or_default(arguments.site.site.as_deref(), false)?;
    eprint!("{}", site.warnings);
    // Before a build that takes a while.
    site.plan.user_network()?;
    let image = image::build(&site)?;
    let mut config = Config::new(&image.elf, accel);
    config.machine = arguments.machine.machine;
    config.memory = memory::of_vm(&site, None)?;
    let title = format!(
        "image of {} octets, {} MiB, {} under {}",
        image.octets,
        config.memory,
        arguments.machine.machine.name(),
        accel.name()
    );
    show(&site.plan, config, &title, arguments.once, arguments.keep_log.as_deref(), interrupted)
}

/// Boots any firewall that behaves as the image does, and shows it at work.
///
/// # Errors
/// As [`run`].
pub fn show(
    plan: &Plan,
    config: Config,
    title: &str,
    once: bool,
    keep_log: Option<&Path>,
    interrupted: &AtomicBool,
) -> Result<()> {
    let mut world = World::start(plan, config, keep_log, interrupted)?;
    let mut report = Report::new(&world, title);
    let mut screen = Screen::new(!once);
    screen.show(&report.lines(&world));
    let result = rounds(&mut world, &mut report, &mut screen, once, interrupted);
    result?;
    if interrupted.load(Ordering::Relaxed) {
        println!("\ninterrupted; the appliance was stopped");
        return Ok(());
    }
    let (summary, flaws) = report.verdict();
    println!("\n{summary}");
    if flaws.is_empty() {
        return Ok(());
    }
    let list: String = flaws.iter().map(|flaw| format!("\n  - {flaw}")).collect();
    // Without the figures, which stand in the report.
    let log: Vec<String> =
        world.vm.console().tail(20).into_iter().filter(|line| !line.starts_with('{')).collect();
    let tail = log.join("\n  | ");
    Err(Error::new(format!(
        "the demo did not go as it should:{list}\nthe appliance's console ends with\n  | {tail}"
    ))
    .advise("--keep-log FILE keeps the whole console"))
}

fn rounds(
    world: &mut World,
    report: &mut Report,
    screen: &mut Screen,
    once: bool,
    interrupted: &AtomicBool,
) -> Result<()> {
    loop {
        round(world, report, screen, interrupted)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        report.stats = Some(world.vm.stats(STATS)?);
        screen.show(&report.lines(world));
        if once {
            return Ok(());
        }
        let next = Instant::now() + PAUSE;
        while Instant::now() < next && !interrupted.load(Ordering::Relaxed) {
            thread::sleep(TICK);
        }
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// One round: all clients at the same time, each its steps one after another.
fn round(
    world: &mut World,
    report: &mut Report,
    screen: &mut Screen,
    interrupted: &AtomicBool,
) -> Result<()> {
    let clients = world.hosts.len();
    let (sender, outcomes) = mpsc::channel();
    let mut finished = Vec::new();
    thread::scope(|scope| {
        for client in 0..clients {
            let (sender, world) = (sender.clone(), &*world);
            scope.spawn(move || {
                for step in Step::of(client, clients) {
                    if interrupted.load(Ordering::Relaxed) {
                        return;
                    }
                    // The receiver lives until all senders are gone.
                    let _ = sender.send(step.take(world));
                }
            });
        }
        drop(sender);
        loop {
            match outcomes.recv_timeout(TICK) {
                Ok(outcome) => finished.extend(outcome),
                Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::Relaxed) => {
                    // Its links close, and every step that waits ends.
                    world.vm.kill();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    if interrupted.load(Ordering::Relaxed) {
        // What failed now, failed because of that.
        return Ok(());
    }
    world.look_outside(&mut report.outside)?;
    for outcome in finished {
        report.add(outcome, world);
    }
    screen.show(&report.lines(world));
    world.vm.check_alive()?;
    Ok(())
}
