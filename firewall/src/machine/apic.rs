//! The interrupt controllers: 8259 silenced, local APIC, I/O APIC; and the sleep they end.

use super::interrupts::{self, Vector};
use super::port::{out8, rdmsr, wrmsr};
use super::{clock, serial};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use smoltcp::time::{Duration, Instant};

/// The vector of interrupts that were withdrawn before they were taken.
pub const SPURIOUS: u8 = 0xff;
/// Where any write ends an interrupt.
pub const END_OF_INTERRUPT: u32 = LOCAL + 0xb0;

const LOCAL: u32 = 0xfee0_0000;
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const SPURIOUS_VECTOR: u32 = 0xf0;
const TIMER_VECTOR: u32 = 0x320;
const COMMAND: u32 = 0x300;
const LINT0_VECTOR: u32 = 0x350;
const LINT1_VECTOR: u32 = 0x360;
const TIMER_START: u32 = 0x380;
const TIMER_NOW: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;
const MASKED: u32 = 1 << 16;
/// To this core, asserted (Intel SDM 3A, 11.6.1).
const TO_SELF: u32 = 1 << 18 | 1 << 14;

/// The timer runs at the bus clock divided by this.
pub const TIMER_DIVISOR: u32 = 16;
const DIVIDE_BY_16: u32 = 3;

const BASE_REGISTER: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

const IO: u32 = 0xfec0_0000;
const IO_VERSION: u32 = 1;
const IO_REDIRECTION: u32 = 0x10;

/// The longest sleep, in microseconds: shorter than the timer's range at 1 GHz / 16.
const SLEEP_MAX: u64 = 60_000_000;

/// A message-signalled interrupt: writing `data` (32 bits) to `address` wakes the main loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub address: u64,
    pub data: u32,
}

fn read(register: u32) -> u32 {
    // SAFETY: the local APIC's registers are at this address on every machine (the base was set in
    // `init`), mapped, and no memory of ours.
    unsafe { ((LOCAL + register) as u64 as *const u32).read_volatile() }
}

fn write(register: u32, value: u32) {
    // SAFETY: as for `read`; the APIC has no access to memory.
    unsafe { ((LOCAL + register) as u64 as *mut u32).write_volatile(value) };
}

/// Silences the 8259s, enables the local APIC and starts its timer, without an interrupt, for
/// calibration.
pub fn init() {
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    // SAFETY: every 64-bit processor has this register. x2APIC is left by way of disabled (Intel SDM
    // 3A, 11.12.5); the base is where it is after reset.
    unsafe {
        if rdmsr(BASE_REGISTER) & BASE_X2APIC != 0 {
            wrmsr(BASE_REGISTER, u64::from(LOCAL));
        }
        wrmsr(BASE_REGISTER, u64::from(LOCAL) | BASE_ENABLED | rdmsr(BASE_REGISTER) & 1 << 8);
    }
    write(SPURIOUS_VECTOR, 0x100 | u32::from(SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LINT0_VECTOR, MASKED);
    write(LINT1_VECTOR, MASKED);
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER_VECTOR, MASKED | Vector::Timer as u32);
    write(TIMER_START, u32::MAX);
}

/// Ticks the timer has made since `init`, until the first `wait`.
pub fn timer_ticks() -> u32 {
    u32::MAX - read(TIMER_NOW)
}

/// What a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There are frames.
    Frames,
    /// A device or a slot has changed.
    Change,
}

/// What devices are to write to wake the main loop (Intel SDM 3A, 11.11).
pub fn message(reason: Reason) -> Message {
    let vector = match reason {
        Reason::Frames => Vector::Device,
        Reason::Change => Vector::Change,
    };
    Message { address: u64::from(LOCAL | id() << 12), data: vector as u32 }
}

/// Lines of the I/O APIC behind which a chipset has its PCI interrupts.
const PCI_LINES: core::ops::Range<u32> = 16..24;

/// Routes the interrupt lines of PCI devices: those of the I/O APIC alone, and `legacy`, the line of the 8259 that
/// firmware gave the device, which is where a chipset without the others has it. As edges: who shares one asks all
/// devices until none has a cause. `false` if there is no such line at all.
pub fn route_pci(legacy: u8) -> bool {
    // The timer's, the keyboard's, the serial line and that of the power button are nobody else's.
    let has_legacy = matches!(legacy, 3 | 5..=7 | 10 | 11) && route_edge(legacy.into(), Vector::Line);
    PCI_LINES.fold(has_legacy, |any, line| route_edge(line, Vector::Line) || any)
}

fn id() -> u32 {
    read(ID) >> 24
}

/// Routes an edge of interrupt line `line` of an I/O APIC to this core; `false` if there is no such line.
pub fn route_edge(line: u32, vector: Vector) -> bool {
    let second = IoApic { base: SECOND.load(Relaxed), first: SECOND_FIRST.load(Relaxed) };
    let controller =
        if second.base != 0 && line >= second.first { second } else { IoApic { base: IO, first: 0 } };
    let version = controller.read(IO_VERSION);
    let line = line - controller.first;
    if version == u32::MAX || line > version >> 16 & 0xff {
        return false;
    }
    controller.write(IO_REDIRECTION + 2 * line, MASKED);
    controller.write(IO_REDIRECTION + 2 * line + 1, id() << 24);
    controller.write(IO_REDIRECTION + 2 * line, vector as u32);
    true
}

/// A second I/O APIC, 0 if there is none, and the number of its first line.
static SECOND: AtomicU32 = AtomicU32::new(0);
static SECOND_FIRST: AtomicU32 = AtomicU32::new(0);

/// There is another I/O APIC at `address`, a page of its own below 4 GiB, whose lines begin at `first`.
pub fn set_second(address: u32, first: u32) {
    // No memory is up there.
    if address >= IO && address.is_multiple_of(4096) && address < LOCAL {
        SECOND.store(address, Relaxed);
        SECOND_FIRST.store(first, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct IoApic {
    base: u32,
    first: u32,
}

impl IoApic {
    fn read(self, register: u32) -> u32 {
        // SAFETY: an I/O APIC is at this address, or nothing is; mapped, and no memory of ours.
        unsafe {
            (u64::from(self.base) as *mut u32).write_volatile(register);
            (u64::from(self.base + 0x10) as *const u32).read_volatile()
        }
    }

    fn write(self, register: u32, value: u32) {
        // SAFETY: as for `read`.
        unsafe {
            (u64::from(self.base) as *mut u32).write_volatile(register);
            (u64::from(self.base + 0x10) as *mut u32).write_volatile(value);
        }
    }
}

/// Sleeps until an interrupt or the deadline, a minute away at most; returns at once when the
/// deadline has passed or serial input was left unread. Wakes early at will: look, then sleep again.
///
/// Interrupts are off before and after. One that came since the caller looked ends the sleep at
/// once, so nothing is missed.
pub fn wait(deadline: Option<Instant>) {
    if serial::is_unread() || !arm(deadline) {
        return;
    }
    halt();
}

/// Leaves the processor to the hypervisor for an instant.
///
/// QEMU's emulator frees what it has taken away only when each processor has stopped once (its RCU waits for no
/// less), and one that is busy does not stop by itself.
pub fn rest() {
    // The interrupt that ends it is there already; the timer ends it all the same.
    if arm(Some(clock::now() + Duration::from_millis(1))) {
        write(COMMAND, TO_SELF | Vector::Timer as u32);
        halt();
    }
}

/// Takes the interrupts that have come, without sleeping: who is busy hears of changes too.
pub fn take_interrupts() {
    // SAFETY: as for `halt`; they are taken after the instruction behind `sti`.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}

/// Sleeps until an interrupt.
fn halt() {
    // SAFETY: `sti` takes effect after `hlt` has begun. The handlers run on stacks of their own,
    // restore what they use and write only their counters.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// The timer, as it was last set.
struct Alarm {
    /// When it rings, in microseconds; 0 if it is not set.
    at: AtomicU64,
    /// How often it had rung when it was set.
    rung: AtomicU64,
}

static ALARM: Alarm = Alarm { at: AtomicU64::new(0), rung: AtomicU64::new(0) };

/// Sets the timer for the deadline; `false` if it has passed.
///
/// A timer that will ring, if earlier, is left alone: deadlines move with every packet, and to set it is slow. Then
/// the sleep ends once too early.
fn arm(deadline: Option<Instant>) -> bool {
    let rung = interrupts::deadlines();
    let at = ALARM.at.load(Relaxed);
    let is_set = at > 0 && ALARM.rung.load(Relaxed) == rung;
    let Some(deadline) = deadline else {
        if is_set {
            write(TIMER_START, 0);
            ALARM.at.store(0, Relaxed);
        }
        return true;
    };
    let micros = |time: Instant| u64::try_from(time.total_micros()).unwrap_or(0);
    let now = micros(clock::now());
    let left = micros(deadline).saturating_sub(now).min(SLEEP_MAX);
    if left == 0 {
        return false;
    }
    if is_set && at <= now + left {
        return true;
    }
    let ticks = left.saturating_mul(clock::timer_khz()) / 1000;
    write(TIMER_VECTOR, Vector::Timer as u32);
    write(TIMER_START, u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
    ALARM.at.store(now + left, Relaxed);
    ALARM.rung.store(rung, Relaxed);
    true
}
