//! From the loader to Rust: the PVH entry, long mode, and what the loader tells.
//!
//! The loader enters in 32-bit protected mode without paging, `ebx` pointing at `hvm_start_info`
//! (Xen, docs/misc/pvh.pandoc). What it points at may lie right behind `.bss`, so everything is
//! copied before the heap exists.

use super::Single;
use super::interrupts::GDT_POINTER;
use super::paging::{PD, PDPT, PML4};
use core::arch::global_asm;
use core::slice;
use heapless::Vec;

global_asm!(
    // The note that names the 32-bit entry: XEN_ELFNOTE_PHYS32_ENTRY.
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_start",

    ".section .boot, \"ax\", @progbits",
    ".code32",
    ".global pvh_start",
    "pvh_start:",
    "cli",
    "cld",
    // Long mode, or else a line that says so and the end (Intel SDM 2A, CPUID).
    "movl %ebx, %edi",
    "movl $0x80000000, %eax",
    "cpuid",
    "cmpl $0x80000001, %eax",
    "jb 5f",
    "movl $0x80000001, %eax",
    "cpuid",
    "testl $0x20000000, %edx",
    "movl %edi, %ebx",
    "jnz 6f",
    "5: movl $short_of_bits, %esi",
    "movl $(short_of_bits_end - short_of_bits), %ecx",
    "movw $0x3f8, %dx",
    "rep outsb",
    "movb $0xfe, %al",
    "outb %al, $0x64",
    "7: hlt",
    "jmp 7b",
    "short_of_bits: .ascii \"error weir: the processor has no 64-bit mode\\r\\n\"",
    "short_of_bits_end:",
    "6:",
    // The time of entry, in ebp:esi.
    "rdtsc",
    "movl %eax, %esi",
    "movl %edx, %ebp",
    "movl $stack_top, %esp",
    // The low 4 GiB as 2048 pages of 2 MiB: present, writable, large.
    "movl ${pd}, %edi",
    "movl $0x83, %eax",
    "movl $2048, %ecx",
    "1: movl %eax, (%edi)",
    "movl $0, 4(%edi)",
    "addl $0x200000, %eax",
    "addl $8, %edi",
    "decl %ecx",
    "jnz 1b",
    "movl ${pdpt}, %edi",
    "movl ${pd}, %eax",
    "orl $3, %eax",
    "movl $4, %ecx",
    "2: movl %eax, (%edi)",
    "movl $0, 4(%edi)",
    "addl $4096, %eax",
    "addl $8, %edi",
    "decl %ecx",
    "jnz 2b",
    "movl ${pdpt}, %eax",
    "orl $3, %eax",
    "movl %eax, {pml4}",
    "movl $0, {pml4} + 4",
    // PAE; OSFXSR and OSXMMEXCPT, without which SSE faults.
    "movl %cr4, %eax",
    "orl $0x620, %eax",
    "movl %eax, %cr4",
    "movl ${pml4}, %eax",
    "movl %eax, %cr3",
    // EFER.LME.
    "movl $0xc0000080, %ecx",
    "rdmsr",
    "orl $0x100, %eax",
    "wrmsr",
    // Clear CD, NW, TS and EM; set PG, WP, NE, MP and PE.
    "movl %cr0, %eax",
    "andl $0x9ffffff3, %eax",
    "orl $0x80010023, %eax",
    "movl %eax, %cr0",
    "lgdt {gdt}",
    "ljmpl $0x08, $3f",

    ".code64",
    "3: movl $0x10, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %ss",
    "xorl %eax, %eax",
    "movl %eax, %fs",
    "movl %eax, %gs",
    "movl $stack_top, %esp",
    "movl %ebx, %edi",
    "movl %esi, %esi",
    "shlq $32, %rbp",
    "orq %rbp, %rsi",
    "xorl %ebp, %ebp",
    "call {enter}",
    "ud2",
    pd = sym PD,
    pdpt = sym PDPT,
    pml4 = sym PML4,
    gdt = sym GDT_POINTER,
    enter = sym super::enter,
    options(att_syntax),
);

/// `hvm_start_info.magic`.
const START_MAGIC: u32 = 0x336e_c578;
/// `E820` type of memory that is free to use.
const RAM: u32 = 1;
/// Entries of the memory map that are read; QEMU gives fewer than ten.
pub const REGIONS_MAX: usize = 64;
/// Octets of the command line that are read; Linux takes as many.
const COMMAND_LINE_MAX: usize = 2048;
/// Modules that are kept out of the heap.
const MODULES_MAX: usize = 8;

/// `hvm_start_info` up to version 1 (Xen, include/public/arch-x86/hvm/start_info.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    modules_at: u64,
    command_line_at: u64,
    root_at: u64,
    // From here on only if `version` is 1 or more.
    regions_at: u64,
    regions: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MapEntry {
    start: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    start: u64,
    size: u64,
    command_line_at: u64,
    reserved: u64,
}

/// A range of physical memory, in octets: `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    pub end: u64,
}

impl Region {
    fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    /// Length in octets.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What the loader told, copied out of its memory.
pub struct BootInfo {
    /// The kernel command line; octets that are not ASCII are cut off.
    pub command_line: &'static str,
    /// Memory that is free to use, in the loader's order.
    pub memory: Vec<Region, REGIONS_MAX>,
    /// Whether `memory` is a guess because the loader gave no map.
    pub memory_is_guessed: bool,
    /// Modules, which the heap must not cover.
    pub modules: Vec<Region, MODULES_MAX>,
    /// The address of ACPI's root pointer, 0 if there is none.
    pub root: u64,
}

/// Why the loader's word cannot be used.
#[derive(Clone, Copy, Debug)]
pub enum NoBootInfo {
    /// The magic is another: not loaded as PVH.
    Magic(u32),
}

static COMMAND_LINE: Single<[u8; COMMAND_LINE_MAX]> = Single::new([0; COMMAND_LINE_MAX]);

/// Copies what the loader left at `start_info`.
///
/// # Safety
/// `start_info` is the value that the loader passed, its memory is still as the loader left it and
/// identity mapped; to be called once.
pub unsafe fn read(start_info: u64) -> Result<BootInfo, NoBootInfo> {
    let at = start_info as *const StartInfo;
    // SAFETY: the caller says that the loader put a start_info here; its first 48 octets exist in
    // every version, and the two later fields lie in mapped memory even where they mean nothing.
    let info = unsafe { at.read_unaligned() };
    if info.magic != START_MAGIC {
        return Err(NoBootInfo::Magic(info.magic));
    }
    let mut memory = Vec::new();
    if info.version >= 1 {
        // SAFETY: version 1 promises `regions` entries there, as the loader left them.
        for entry in unsafe { table::<MapEntry>(info.regions_at, info.regions, REGIONS_MAX) } {
            if entry.kind == RAM && memory.push(Region::new(entry.start, entry.size)).is_err() {
                break;
            }
        }
    }
    let memory_is_guessed = memory.is_empty();
    if memory_is_guessed {
        // The least with which the image starts at all.
        let _ = memory.push(Region { start: 1 << 20, end: 20 << 20 });
    }
    let mut modules = Vec::new();
    // SAFETY: the loader promises `modules` entries there.
    for module in unsafe { table::<Module>(info.modules_at, info.modules, MODULES_MAX) } {
        let _ = modules.push(Region::new(module.start, module.size));
    }
    // SAFETY: the loader promises a string that ends in a zero, or the address 0.
    let command_line = unsafe { copy_command_line(info.command_line_at) };
    Ok(BootInfo { command_line, memory, memory_is_guessed, modules, root: info.root_at })
}

/// The entries of a table of the loader's, at most `limit`; none if it is at 0 or above 4 GiB.
///
/// # Safety
/// Unless `at` is 0, `count` entries of `T` lie there and stay unchanged while the result is used.
unsafe fn table<T: Copy>(at: u64, count: u32, limit: usize) -> impl Iterator<Item = T> {
    let is_there = at != 0 && at < 1 << 32;
    let count = if is_there { (count as usize).min(limit) } else { 0 };
    // SAFETY: within `count` entries, of which the caller vouches; read without regard to alignment.
    (0..count).map(move |index| unsafe { (at as *const T).add(index).read_unaligned() })
}

/// # Safety
/// Unless `at` is 0, a string that ends in a zero lies there; to be called once.
unsafe fn copy_command_line(at: u64) -> &'static str {
    if at == 0 || at >= 1 << 32 {
        return "";
    }
    // SAFETY: called once, so this is the only reference to the static until it is handed out shared.
    let copy: &'static mut [u8; COMMAND_LINE_MAX] = unsafe { &mut *COMMAND_LINE.get() };
    let mut length = 0;
    while let Some(octet) = copy.get_mut(length) {
        // SAFETY: no zero was seen before `length`, so the string reaches at least here.
        *octet = unsafe { (at as *const u8).add(length).read() };
        if !octet.is_ascii() || *octet == 0 {
            break;
        }
        length += 1;
    }
    // SAFETY: `length` octets were written above; the exclusive reference ends here.
    let text = unsafe { slice::from_raw_parts(COMMAND_LINE.get().cast::<u8>(), length) };
    str::from_utf8(text).unwrap_or("")
}
