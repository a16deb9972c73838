//! The bootable image: the machine is brought up, the ports are found, then the appliance runs.
#![no_std]
#![no_main]

extern crate alloc;

mod discover;
mod hotplug;
mod machine;
mod wire;

use firewall::Datapath;
use firewall::contract::Contract;
use firewall::services::console::{Command, Console, HELP, Mac, MachineFigures, write_stats};
use hotplug::Hotplug;
use machine::{Machine, clock, heap, interrupts, paging, panic, serial};
use netback::{AnyTransport, Link};
use rules::site::{PanicAction, Site};

mod site {
    //! The site that this image is built for, as the build script compiled it.
    include!(concat!(env!("OUT_DIR"), "/site.rs"));
}

/// Octets taken from the console in one turn.
const OCTETS_A_TURN: usize = 16;

/// Entered once by the machine; never returns.
fn main(mut machine: Machine) -> ! {
    let site = &site::SITE;
    panic::set_restart(matches!(site.panic, PanicAction::Reboot));
    introduce(&machine);
    if !is_enough_memory(site, &machine) {
        machine::unfit();
    }
    let (links, mut hotplug) = match discover::ports(&mut machine, site) {
        Ok(found) => found,
        Err(reason) => {
            log::error!(target: "weir", "cannot start: {reason}");
            machine::unfit();
        }
    };
    paging::widen(machine.low_memory_end);
    if cfg!(feature = "wire") {
        heap::seal();
        log::info!(target: "weir", "a wire, no firewall");
        wire::run(links);
    }
    // Rules and translation are in force before the first frame is looked at.
    let seed = [(); 4].map(|()| machine.seed.draw());
    let mut datapath = Datapath::new(site, links, seed);
    for port in datapath.ports() {
        match port.link.is_present() {
            true => {
                log::info!(target: "port", "name={} mac={} mtu={}", port.name, Mac(port.mac()), port.link.mtu())
            }
            false => log::info!(target: "port", "name={} waits for a NIC", port.name),
        }
    }
    if hotplug.slots() > 0 {
        log::info!(target: "port", "slots={}", hotplug.slots());
    }
    heap::seal();
    log::info!(target: "weir", "ready boot_us={}", machine::now().total_micros());
    run(&machine, &mut datapath, &mut hotplug)
}

/// Logs what the machine is.
fn introduce(machine: &Machine) {
    log::info!(target: "weir", "version={}", env!("CARGO_PKG_VERSION"));
    log::info!(target: "machine", "memory octets={} heap={}", machine.memory, heap::size());
    let (tsc, timer) = (clock::tsc_khz(), clock::timer_khz());
    log::info!(target: "machine", "clock tsc_khz={tsc} timer_khz={timer} source={}", machine.clock);
    log::info!(target: "machine", "chance source={}", machine.seed.quality());
}

/// Whether there is the memory that the site's tables take, and that the site declares, less the MiB that firmware
/// keeps at most.
fn is_enough_memory(site: &'static Site, machine: &Machine) -> bool {
    let contract = Contract::of(site);
    let wanted = contract.memory(machine.image) as u64;
    let declared = u64::from(site.memory.unwrap_or(0)) << 20;
    let is_enough = heap::free() >= contract.heap() && machine.memory + (1 << 20) >= declared;
    if is_enough {
        log::info!(target: "machine", "memory wants={wanted} heap={}", contract.heap());
    } else {
        let (has, wants) = (machine.memory >> 10, wanted.max(declared).div_ceil(1 << 10));
        log::error!(target: "weir", "not enough memory has_kib={has} wants_kib={wants}");
    }
    is_enough
}

/// The loop: all work there is, then sleep until there is more.
fn run(machine: &Machine, datapath: &mut Datapath<discover::Port>, hotplug: &mut Hotplug) -> ! {
    let mut line = Line { console: Console::default(), interrupts: 0 };
    let mut changes = 0;
    loop {
        let now = machine::now();
        // What says that it has changed is looked at before its frames are.
        let has_changed = core::mem::replace(&mut changes, interrupts::changes()) != changes;
        if has_changed {
            datapath.look_at_links();
            if machine.power.take_press() {
                leave(machine, datapath, "power button");
            }
        }
        hotplug.poll(datapath, now, has_changed);
        let busy = datapath.turn(now);
        if line.has_octets() {
            line.listen(machine, datapath);
        }
        if !busy {
            if datapath.sleep() {
                machine::wait([datapath.next_deadline(now), hotplug.next_poll()].into_iter().flatten().min());
            }
            datapath.wake();
        } else if hotplug.wants_rest(now) {
            machine::rest();
        } else {
            machine::take_interrupts();
        }
    }
}

/// The console on the serial line. To look whether it has an octet is slow: an interrupt tells.
struct Line {
    console: Console,
    interrupts: u64,
}

impl Line {
    /// Whether there may be octets. Who is busy takes interrupts, too.
    fn has_octets(&mut self) -> bool {
        let before = core::mem::replace(&mut self.interrupts, interrupts::serial());
        before != self.interrupts || serial::is_unread()
    }

    /// Few octets at a time: who writes on the console does not stop the forwarding.
    fn listen(&mut self, machine: &Machine, datapath: &mut Datapath<discover::Port>) {
        for octet in core::iter::from_fn(serial::read).take(OCTETS_A_TURN) {
            if let Some(command) = self.console.push(octet) {
                obey(command, machine, datapath);
            }
        }
    }
}

fn obey(command: Command, machine: &Machine, datapath: &mut Datapath<discover::Port>) {
    match command {
        Command::Stats => tell_figures(machine, datapath),
        Command::Help => serial::line(format_args!("{HELP}")),
        Command::PowerOff => leave(machine, datapath, "console"),
        Command::Reboot => machine::reset(),
        Command::Unknown => serial::line(format_args!("unknown command; {HELP}")),
    }
}

/// One line with all figures.
fn tell_figures(machine: &Machine, datapath: &Datapath<discover::Port>) {
    let figures = MachineFigures {
        uptime_ms: u64::try_from(machine::now().total_millis()).unwrap_or(0),
        memory_total: machine.memory,
        heap_free: heap::free() as u64,
        late_allocations: heap::late_allocations(),
        interrupts: interrupts::taken(),
    };
    // The serial line takes everything.
    let _ = write_stats(&mut serial::Writer::default(), datapath, &figures);
}

/// Switches off as somebody wishes: the last figures are told, and no device writes to memory any more.
fn leave(machine: &Machine, datapath: &mut Datapath<discover::Port>, wish: &str) -> ! {
    log::info!(target: "weir", "powers off wish=\"{wish}\"");
    tell_figures(machine, datapath);
    for port in 0..datapath.ports().len() {
        if let Some(link) = datapath.link_mut(port) {
            link.unplug(AnyTransport::NOTHING);
        }
    }
    machine::power_off()
}
