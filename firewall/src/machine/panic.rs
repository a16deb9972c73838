//! The end: reports of panics and exceptions, and the ways to stop the machine.

use super::interrupts::{Frame, exception_stacks};
use super::port::{in8, out8, out32};
use super::{paging, power, serial};
use core::arch::asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering::Relaxed};

/// How the machine ended. With isa-debug-exit, QEMU's exit status is twice the number plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Powered off as asked: status 33.
    PowerOff = 0x10,
    /// A panic: status 35.
    Panic = 0x11,
    /// An exception of the processor: status 37.
    Exception = 0x12,
    /// Restarted as asked: status 39.
    Reset = 0x13,
    /// The site and the machine do not fit: status 41.
    Unfit = 0x14,
}

/// The port of isa-debug-exit; 0 when there is none.
static DEBUG_EXIT: AtomicU16 = AtomicU16::new(0);
static RESTART: AtomicBool = AtomicBool::new(false);
/// Reports begun; a fault in a report must not report itself for ever.
static REPORTS: AtomicU8 = AtomicU8::new(0);
/// Return addresses in a backtrace.
const BACKTRACE_MAX: usize = 32;

/// Names the port of QEMU's isa-debug-exit, through which every end then goes.
pub fn set_debug_exit(port: u16) {
    DEBUG_EXIT.store(port, Relaxed);
}

/// Whether a panic or an exception restarts the machine; otherwise it powers off.
pub fn set_restart(restart: bool) {
    RESTART.store(restart, Relaxed);
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    interrupts_off();
    if is_first_report(End::Panic) {
        let message = info.message();
        match info.location() {
            Some(at) => serial::line(format_args!("\nerror panic: {message} at={}:{}", at.file(), at.line())),
            None => serial::line(format_args!("\nerror panic: {message}")),
        }
        let frame: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
        backtrace(frame);
    }
    fail(End::Panic)
}

/// Where every exception ends; called by the entry stubs on a stack of its own.
pub extern "C" fn exception(frame: &Frame) -> ! {
    if is_first_report(End::Exception) {
        report(frame);
        backtrace(frame.rbp);
    }
    fail(End::Exception)
}

fn report(frame: &Frame) {
    let address: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    let name = name(frame.vector);
    serial::line(format_args!(
        "\nerror exception: {name} vector={} error={:#x} rip={:#x} cr2={address:#x} rsp={:#x} rflags={:#x} cs={:#x} ss={:#x}",
        frame.vector, frame.error, frame.rip, frame.rsp, frame.rflags, frame.cs, frame.ss
    ));
    for line in [
        [("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx), ("rdx", frame.rdx), ("rsi", frame.rsi)],
        [("rdi", frame.rdi), ("rbp", frame.rbp), ("r8", frame.r8), ("r9", frame.r9), ("r10", frame.r10)],
        [("r11", frame.r11), ("r12", frame.r12), ("r13", frame.r13), ("r14", frame.r14), ("r15", frame.r15)],
    ] {
        let [a, b, c, d, e] = line.map(|(name, value)| Register { name, value });
        serial::line(format_args!("error exception: {a} {b} {c} {d} {e}"));
    }
}

struct Register {
    name: &'static str,
    value: u64,
}

impl core::fmt::Display for Register {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        write!(f, "{}={:#x}", self.name, self.value)
    }
}

/// The name of an exception (Intel SDM 3A, table 6-1).
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        _ => "exception",
    }
}

/// Prints the return addresses of the frames from `frame` on. Each frame must lie in a stack of
/// ours and above the one before, so that garbage ends the list.
fn backtrace(mut frame: u64) {
    let stacks = [paging::stack(), exception_stacks()[0], exception_stacks()[1]];
    let is_frame =
        |at: u64| at.is_multiple_of(8) && stacks.iter().any(|&(low, high)| (low..=high - 16).contains(&at));
    for depth in 0..BACKTRACE_MAX {
        if !is_frame(frame) {
            return;
        }
        // SAFETY: two words inside a stack, which is mapped and aligned; any value may be there.
        let (next, from) = unsafe { ((frame as *const u64).read(), (frame as *const u64).add(1).read()) };
        if !paging::is_text(from) {
            return;
        }
        serial::line(format_args!("error backtrace: {depth} {from:#x}"));
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// Whether nothing was reported before; ends at once if even the short line below failed.
fn is_first_report(end: End) -> bool {
    match REPORTS.fetch_add(1, Relaxed) {
        0 => return true,
        1 => serial::line(format_args!("\nerror panic: the report failed")),
        _ => stop(end),
    }
    false
}

fn fail(end: End) -> ! {
    if RESTART.load(Relaxed) {
        debug_exit(end);
        restart()
    }
    stop(end)
}

/// Ends the virtual machine, as its owner asked.
pub fn power_off() -> ! {
    stop(End::PowerOff)
}

/// Ends the virtual machine because it cannot be what its site says; why is in the log.
pub fn unfit() -> ! {
    stop(End::Unfit)
}

/// Starts the virtual machine anew.
pub fn reset() -> ! {
    debug_exit(End::Reset);
    restart()
}

fn debug_exit(end: End) {
    let port = DEBUG_EXIT.load(Relaxed);
    if port != 0 {
        out32(port, u32::from(end as u8));
    }
}

fn stop(end: End) -> ! {
    interrupts_off();
    debug_exit(end);
    power::switch_off();
    // Where that cannot be done, a reset is the way out: microvm ends upon it with -no-reboot, Firecracker always.
    restart()
}

fn restart() -> ! {
    interrupts_off();
    // Reset control of the chipset: a hard reset.
    out8(0xcf9, 0x02);
    out8(0xcf9, 0x06);
    // The keyboard controller's reset line, once it can take a command.
    for _ in 0..1000 {
        if in8(0x64) & 2 == 0 {
            break;
        }
    }
    out8(0x64, 0xfe);
    triple_fault()
}

/// What resets every PC: an exception without a table of handlers.
fn triple_fault() -> ! {
    let empty = [0u16; 5];
    // SAFETY: the machine ends here; nothing runs after the exception.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &empty, options(noreturn)) }
}

fn interrupts_off() {
    // SAFETY: interrupts are only on in `apic`; this changes nothing for code that runs.
    unsafe { asm!("cli", options(nomem, nostack)) };
}
