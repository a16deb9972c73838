//! The bootable image: the machine is brought up, then the appliance runs.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;

use core::fmt::{self, Display, Formatter};
use heapless::Vec;
use machine::{Machine, clock, heap, interrupts, panic, serial};
use rules::site::{PanicAction, Site};

mod site {
    //! The site that this image is built for, as the build script compiled it.
    include!(concat!(env!("OUT_DIR"), "/site.rs"));
}

/// The longest command, in octets.
const COMMAND_MAX: usize = 128;

/// Entered once by the machine; never returns.
fn main(machine: Machine) -> ! {
    let site = &site::SITE;
    panic::set_restart(matches!(site.panic, PanicAction::Reboot));
    introduce(&machine);
    if !is_enough_memory(site, &machine) {
        machine::power_off()
    }
    heap::seal();
    log::info!("ready boot_us={}", machine::now().total_micros());
    run(&machine)
}

/// Logs what the machine is.
fn introduce(machine: &Machine) {
    log::info!("version={}", env!("CARGO_PKG_VERSION"));
    log::info!("memory octets={} heap={}", machine.memory, heap::size());
    let (tsc, timer) = (clock::tsc_khz(), clock::timer_khz());
    log::info!("clock tsc_khz={tsc} timer_khz={timer} source={}", machine.clock);
    log::info!("chance source={}", machine.seed.quality());
    for device in machine.command_line.mmio_devices() {
        log::info!("virtio-mmio address={:#x} line={}", device.address, device.line);
    }
}

/// Whether there is the memory that the site declares, less the MiB that firmware keeps at most.
fn is_enough_memory(site: &Site, machine: &Machine) -> bool {
    let declared = u64::from(site.memory.unwrap_or(0)) << 20;
    let is_enough = machine.memory + (1 << 20) >= declared;
    if !is_enough {
        log::error!("not enough memory octets={} declared={declared}", machine.memory);
    }
    is_enough
}

/// The loop: all work, then sleep until there is more.
fn run(machine: &Machine) -> ! {
    let mut command = Vec::<u8, COMMAND_MAX>::new();
    loop {
        while let Some(octet) = serial::read() {
            take(&mut command, octet, machine);
        }
        machine::wait(None);
    }
}

/// Takes an octet of the serial line; a command ends with CR or LF. What is too long is cut off.
fn take(command: &mut Vec<u8, COMMAND_MAX>, octet: u8, machine: &Machine) {
    if octet == b'\r' || octet == b'\n' {
        obey(str::from_utf8(command).unwrap_or("").trim(), machine);
        command.clear();
    } else {
        let _ = command.push(octet);
    }
}

fn obey(command: &str, machine: &Machine) {
    match command {
        "" => {}
        "help" => serial::line(format_args!("commands: help stats poweroff reboot")),
        "stats" => serial::line(format_args!("{}", Stats(machine))),
        "poweroff" => machine::power_off(),
        "reboot" => machine::reset(),
        _ => serial::line(format_args!("unknown command, try help")),
    }
}

/// The appliance's figures as one line of JSON.
struct Stats<'a>(&'a Machine);

impl Display for Stats<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (uptime, free) = (machine::now().total_millis(), heap::free());
        let taken = interrupts::taken();
        write!(f, r#"{{"uptime_ms":{uptime},"ready":true,"#)?;
        write!(f, r#""memory":{{"total":{},"heap_free":{free},"#, self.0.memory)?;
        write!(f, r#""late_allocations":{}}},"#, heap::late_allocations())?;
        write!(f, r#""interrupts":{{"device":{},"line":{},"#, taken.device, taken.line)?;
        write!(f, r#""serial":{},"timer":{},"stray":{}}}}}"#, taken.serial, taken.timer, taken.stray)
    }
}
