//! Descriptor tables, and what happens when the processor is interrupted.
//!
//! The host's `core` uses the red zone and SSE: so every vector enters on a stack of its own (IST),
//! and the handlers of devices, which return, touch one general register. They only count: a device
//! interrupt has no other effect than to end the `hlt` in `apic::wait`. Exceptions do not return.

use super::{Single, apic, panic};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

/// What the main loop is woken by; the number is the interrupt vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Vector {
    /// A message-signalled interrupt of any device.
    Device = 0x40,
    /// An edge of a virtio-mmio device, through the I/O APIC.
    Line = 0x41,
    /// Input on the serial line.
    Serial = 0x42,
    /// The deadline of `apic::wait`.
    Timer = 0x43,
    /// A device, a slot or the power button says that something about it has changed.
    Change = 0x44,
}

/// Stack of the exception handler, which formats a report, in octets.
pub const EXCEPTION_STACK: usize = 32 * 1024;
/// Stack of the device handlers, which use eight words.
const DEVICE_STACK: usize = 1024;
const EXCEPTIONS: usize = 32;

#[repr(C, align(16))]
struct Stack<const SIZE: usize>([u8; SIZE]);

static EXCEPTION: Single<Stack<EXCEPTION_STACK>> = Single::new(Stack([0; EXCEPTION_STACK]));
/// For exceptions that may come while another is reported: double fault, NMI, machine check.
static SEVERE: Single<Stack<EXCEPTION_STACK>> = Single::new(Stack([0; EXCEPTION_STACK]));
static DEVICE: Single<Stack<DEVICE_STACK>> = Single::new(Stack([0; DEVICE_STACK]));

/// The task state of long mode: only the stacks count (Intel SDM 3A, 8.7).
#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    privilege: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map: u16,
}

static TASK: Single<TaskState> = Single::new(TaskState {
    reserved_0: 0,
    privilege: [0; 3],
    reserved_1: 0,
    interrupt_stacks: [0; 7],
    reserved_2: 0,
    reserved_3: 0,
    io_map: size_of::<TaskState>() as u16,
});

const CODE_SELECTOR: u16 = 0x08;
const TASK_SELECTOR: u16 = 0x18;

/// Null, 64-bit code, data, and two entries for the task state, which `init` writes.
static GDT: Single<[u64; 5]> = Single::new([0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0]);

/// The operand of `lgdt` and `lidt`.
#[repr(C, packed)]
pub struct TablePointer {
    limit: u16,
    base: *const u8,
}

// SAFETY: it is read by `lgdt` alone; the pointer is an address, never dereferenced by Rust.
unsafe impl Sync for TablePointer {}

/// What the entry loads with `lgdt`.
pub static GDT_POINTER: TablePointer =
    TablePointer { limit: (size_of::<[u64; 5]>() - 1) as u16, base: GDT.get() as *const u8 };

#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

static IDT: Single<[Gate; 256]> = Single::new([Gate { low: 0, high: 0 }; 256]);

impl Gate {
    /// An interrupt gate: interrupts stay off in the handler, which runs on stack `ist` (1 to 7).
    fn new(handler: u64, ist: u64) -> Self {
        const PRESENT_INTERRUPT: u64 = 0x8e00 << 32;
        Self {
            low: (handler & 0xffff)
                | u64::from(CODE_SELECTOR) << 16
                | ist << 32
                | PRESENT_INTERRUPT
                | (handler & 0xffff_0000) << 32,
            high: handler >> 32,
        }
    }
}

const IST_EXCEPTION: u64 = 1;
const IST_SEVERE: u64 = 2;
const IST_DEVICE: u64 = 3;

/// The registers when an exception came, in the order in which the entry pushes them.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

static DEVICE_TAKEN: AtomicU64 = AtomicU64::new(0);
static LINE_TAKEN: AtomicU64 = AtomicU64::new(0);
static SERIAL_TAKEN: AtomicU64 = AtomicU64::new(0);
static TIMER_TAKEN: AtomicU64 = AtomicU64::new(0);
static CHANGE_TAKEN: AtomicU64 = AtomicU64::new(0);
static STRAY_TAKEN: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".text",
    // One stub of 16 octets for each exception: an error code (a zero where the processor pushes
    // none: Intel SDM 3A, table 6-1), the vector, and on to the report.
    ".balign 16",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    ".if (0x60227d00 >> vector) & 1 == 0",
    "pushq $0",
    ".endif",
    "pushq $vector",
    "jmp exception_entry",
    ".set vector, vector + 1",
    ".endr",
    "exception_entry:",
    "pushq %rax",
    "pushq %rbx",
    "pushq %rcx",
    "pushq %rdx",
    "pushq %rsi",
    "pushq %rdi",
    "pushq %rbp",
    "pushq %r8",
    "pushq %r9",
    "pushq %r10",
    "pushq %r11",
    "pushq %r12",
    "pushq %r13",
    "pushq %r14",
    "pushq %r15",
    "movq %rsp, %rdi",
    "cld",
    "andq $-16, %rsp",
    "call {exception}",
    "ud2",
    // Count, acknowledge at the local APIC, return.
    ".macro device_stub name, counter",
    "\\name: lock incq \\counter(%rip)",
    "pushq %rax",
    "movl ${end_of_interrupt}, %eax",
    "movl $0, (%rax)",
    "popq %rax",
    "iretq",
    ".endm",
    "device_stub device_entry, {device}",
    "device_stub line_entry, {line}",
    "device_stub serial_entry, {serial}",
    "device_stub timer_entry, {timer}",
    "device_stub change_entry, {change}",
    "device_stub stray_entry, {stray}",
    // The spurious vector must not be acknowledged (Intel SDM 3A, 11.9).
    "spurious_entry: lock incq {stray}(%rip)",
    "iretq",
    exception = sym panic::exception,
    device = sym DEVICE_TAKEN,
    line = sym LINE_TAKEN,
    serial = sym SERIAL_TAKEN,
    timer = sym TIMER_TAKEN,
    change = sym CHANGE_TAKEN,
    stray = sym STRAY_TAKEN,
    end_of_interrupt = const apic::END_OF_INTERRUPT,
    options(att_syntax),
);

unsafe extern "C" {
    static exception_stubs: [[u8; 16]; EXCEPTIONS];
    fn device_entry();
    fn line_entry();
    fn serial_entry();
    fn timer_entry();
    fn change_entry();
    fn stray_entry();
    fn spurious_entry();
}

/// Loads the tables: from here on an exception is reported instead of ending the machine silently.
///
/// # Safety
/// To be called once, with interrupts off.
pub unsafe fn init() {
    // SAFETY: called once, so nothing else refers to the tables; the processor reads them only
    // from `lidt` and `ltr` below on, when these references are no longer used.
    let (task, gdt, idt) = unsafe { (&mut *TASK.get(), &mut *GDT.get(), &mut *IDT.get()) };
    task.interrupt_stacks = [top(&EXCEPTION), top(&SEVERE), top(&DEVICE), 0, 0, 0, 0];

    let base = TASK.get() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    // An available 64-bit task state, present (Intel SDM 3A, 8.2.3).
    gdt[3] = limit | (base & 0x00ff_ffff) << 16 | 0x89 << 40 | (base & 0xff00_0000) << 32;
    gdt[4] = base >> 32;

    idt.fill(Gate::new(stray_entry as *const () as u64, IST_DEVICE));
    for (vector, gate) in idt.iter_mut().enumerate().take(EXCEPTIONS) {
        let severe = matches!(vector, 2 | 8 | 18);
        // SAFETY: the stubs are 32 times 16 octets of code; only the address is taken.
        let stub = unsafe { (&raw const exception_stubs[vector]) as u64 };
        *gate = Gate::new(stub, if severe { IST_SEVERE } else { IST_EXCEPTION });
    }
    for (vector, entry) in [
        (Vector::Device as usize, device_entry as *const () as u64),
        (Vector::Line as usize, line_entry as *const () as u64),
        (Vector::Serial as usize, serial_entry as *const () as u64),
        (Vector::Timer as usize, timer_entry as *const () as u64),
        (Vector::Change as usize, change_entry as *const () as u64),
        (usize::from(apic::SPURIOUS), spurious_entry as *const () as u64),
    ] {
        idt[vector] = Gate::new(entry, IST_DEVICE);
    }
    let pointer = TablePointer { limit: (size_of::<[Gate; 256]>() - 1) as u16, base: IDT.get() as *const u8 };
    // SAFETY: both tables are static and complete; the GDT was loaded by the entry, and its limit
    // covers the task state's two entries.
    unsafe {
        asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags));
        asm!("ltr {:x}", in(reg) TASK_SELECTOR, options(nostack, preserves_flags));
    }
}

fn top<const SIZE: usize>(stack: &'static Single<Stack<SIZE>>) -> u64 {
    stack.get() as u64 + SIZE as u64
}

/// The addresses of the stacks on which exceptions are reported, for backtraces.
pub fn exception_stacks() -> [(u64, u64); 2] {
    [&EXCEPTION, &SEVERE].map(|stack| (stack.get() as u64, top(stack)))
}

/// Interrupts taken since boot, on vectors that were given to nobody too: each may have ended a sleep.
pub fn taken() -> u64 {
    let counters = [&DEVICE_TAKEN, &LINE_TAKEN, &SERIAL_TAKEN, &TIMER_TAKEN, &CHANGE_TAKEN, &STRAY_TAKEN];
    counters.into_iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
}

/// Times since boot that the deadline of a sleep has come.
pub fn deadlines() -> u64 {
    TIMER_TAKEN.load(Ordering::Relaxed)
}

/// Times since boot that octets came in on the serial line.
pub fn serial() -> u64 {
    SERIAL_TAKEN.load(Ordering::Relaxed)
}

/// Times since boot that a device, a slot or the power button said that something has changed.
pub fn changes() -> u64 {
    CHANGE_TAKEN.load(Ordering::Relaxed)
}
