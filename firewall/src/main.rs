//! The bootable image: the machine is brought up, then the appliance runs.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;

use core::fmt::{self, Display, Formatter};
use heapless::Vec;
use machine::{Machine, heap, serial};

/// The longest command, in octets.
const COMMAND_MAX: usize = 128;

/// Entered once by the machine; never returns.
fn main(machine: Machine) -> ! {
    log::info!("version={} built for PVH", env!("CARGO_PKG_VERSION"));
    log::info!("memory octets={} heap={} free={}", machine.memory, heap::size(), heap::free());
    log::info!(
        "clock tsc_khz={} timer_khz={} source={}",
        machine::clock::tsc_khz(),
        machine::clock::timer_khz(),
        machine.clock
    );
    log::info!("chance source={}", machine.seed.quality());
    for device in machine.command_line.mmio_devices() {
        log::info!("virtio-mmio address={:#x} line={}", device.address, device.line);
    }
    heap::seal();
    log::info!("ready boot_us={}", machine::now().total_micros());
    run(&machine)
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
        write!(
            f,
            r#"{{"uptime_ms":{},"ready":true,"memory":{{"total":{},"heap_free":{}}}}}"#,
            machine::now().total_millis(),
            self.0.memory,
            heap::free()
        )
    }
}
