//! The machine: what a PVH loader leaves us, made into memory, time, chance, and a place to sleep.
//!
//! `boot` enters, `enter` below brings everything up in the order in which it depends on each other,
//! and gives `crate::main` a `Machine`. One core; interrupts are taken in `apic` alone.

pub mod acpi_slots;
pub mod apic;
pub mod boot;
pub mod clock;
pub mod command_line;
mod crash;
pub mod dma;
pub mod heap;
pub mod interrupts;
mod memory;
pub mod mmio;
pub mod paging;
pub mod panic;
pub mod pci;
mod port;
pub mod power;
pub mod seed;
pub mod serial;
mod tables;

pub use apic::{rest, take_interrupts, wait};
pub use clock::now;
pub use command_line::CommandLine;
pub use panic::{power_off, reset, unfit};

use boot::{BootInfo, Region};
use command_line::MmioDevice;
use core::cell::UnsafeCell;
use firewall::acpi::devices::DEVICES_MAX;
use heapless::Vec;
use interrupts::Vector;
use log::LevelFilter;
use power::Power;
use seed::Seed;
use tables::Tables;

/// A static that one core uses, by raw pointer; who dereferences it says why nobody else does.
pub struct Single<T>(UnsafeCell<T>);

// SAFETY: there is one core, and no interrupt handler touches one; access is through a raw pointer,
// whose user vouches for exclusion.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// What the appliance starts from.
pub struct Machine {
    /// Octets of memory that the loader says there are.
    pub memory: u64,
    /// The end of memory below 4 GiB.
    pub low_memory_end: u64,
    /// Octets of the image, its stacks included.
    pub image: usize,
    /// Where the rate of the clock came from.
    pub clock: clock::Source,
    pub seed: Seed,
    /// The power button, and the slots that ACPI has.
    pub power: Power,
    /// Virtio devices in memory: those of the command line, or else of ACPI's tables.
    pub in_memory: Vec<MmioDevice, DEVICES_MAX>,
    /// The PCI configuration space, if there is a bus.
    pub pci: Option<pci::Ports>,
}

/// The serial line's interrupt.
const SERIAL_LINE: u32 = 4;
/// Memory below is left alone: the vectors and variables of the BIOS, and a null pointer.
const LOW_MEMORY: u64 = 64 << 10;
const GIB_4: u64 = 4 << 30;

/// Called by the entry: `start_info` is the loader's, `origin` the time-stamp counter at entry.
extern "C" fn enter(start_info: u64, origin: u64) -> ! {
    serial::init(LevelFilter::Info);
    // SAFETY: this is the beginning: called once, with interrupts off.
    unsafe { interrupts::init() };
    // SAFETY: the loader passed `start_info`, and nothing has written to memory but our statics.
    let info = match unsafe { boot::read(start_info) } {
        Ok(info) => info,
        Err(boot::NoBootInfo::Magic(magic)) => panic!("not started by a PVH loader: magic={magic:#x}"),
    };
    let command_line = CommandLine(info.command_line);
    obey(command_line);
    // SAFETY: called once, on the tables of the entry.
    let low_memory_end = low_memory_end(&info);
    unsafe { paging::protect(low_memory_end) };
    let memory = give_memory(&info);
    apic::init();
    if apic::route_edge(SERIAL_LINE, Vector::Serial) {
        serial::enable_interrupt();
    }
    // SAFETY: the heap has no memory that the loader or firmware keeps.
    let tables = unsafe { Tables::new(info.root) };
    // SAFETY: called once.
    let power = unsafe { power::init(tables) };
    let clock = clock::init(origin, command_line.number("tsc_khz"));
    if clock == clock::Source::Guess {
        log::error!("no clock to measure the time-stamp counter: give tsc_khz= on the command line");
    }
    if let Some(word) = command_line.value("crash") {
        crash::on_demand(word);
    }
    let mut in_memory: Vec<_, _> = command_line.mmio_devices().take(DEVICES_MAX).collect();
    if in_memory.is_empty() {
        in_memory.extend(tables.virtio());
    }
    let (start, end) = paging::image();
    let image = (end - start) as usize;
    crate::main(Machine {
        memory,
        low_memory_end,
        image,
        clock,
        seed: Seed::gather(),
        power,
        in_memory,
        pci: pci::Ports::find(),
    })
}

/// Words that must work before anything can fail.
fn obey(command_line: CommandLine) {
    if let Some(port) = command_line.number("debug_exit").and_then(|port| u16::try_from(port).ok()) {
        panic::set_debug_exit(port);
    }
    if let Some(level) = command_line.value("log").and_then(|level| level.parse().ok()) {
        log::set_max_level(level);
    }
}

fn low_memory_end(info: &BootInfo) -> u64 {
    let ends = info.memory.iter().map(|region| region.end.min(GIB_4));
    ends.max().unwrap_or(GIB_4)
}

/// Gives the heap all memory but firmware's, the image's, and modules; the octets there are.
fn give_memory(info: &BootInfo) -> u64 {
    if info.memory_is_guessed {
        log::warn!("no memory map from the loader: 20 MiB are assumed");
    }
    let (start, end) = paging::image();
    let low = Region { start: 0, end: LOW_MEMORY };
    for &region in &info.memory {
        if region.end > GIB_4
            && let Err(reason) = paging::map(region.start, region.len(), paging::Use::Memory)
        {
            log::warn!("memory not used start={:#x} octets={} reason={reason:?}", region.start, region.len());
            continue;
        }
        let taken = [low, Region { start, end }].into_iter().chain(info.modules.iter().copied());
        give_without(region, taken);
    }
    info.memory.iter().map(Region::len).sum()
}

/// Gives the heap what is left of a region, from left to right.
fn give_without(region: Region, taken: impl Iterator<Item = Region> + Clone) {
    let mut start = region.start;
    while start < region.end {
        // Step over what covers `start`; if nothing does, everything up to the next obstacle is free.
        let covering = taken.clone().filter(|taken| taken.start <= start && start < taken.end);
        if let Some(end) = covering.map(|taken| taken.end).max() {
            start = end;
            continue;
        }
        let next = taken.clone().map(|taken| taken.start).filter(|&at| at > start).min();
        let end = next.unwrap_or(region.end).min(region.end);
        // SAFETY: the loader says it is memory; it is mapped, and outside of image, firmware's
        // memory and modules. What the loader left elsewhere was copied.
        unsafe { heap::add(Region { start, end }) };
        start = end;
    }
}
