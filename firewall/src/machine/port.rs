//! Port I/O, model-specific registers, CPUID: single instructions with a name.

use core::arch::asm;

/// Reads an octet from an I/O port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: an `in` touches no memory and no register but al; what a device does upon it is
    // the business of the caller, who owns the device.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes an octet to an I/O port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: as for `in8`; no device driven here by ports writes to memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads 16 bits from an I/O port.
pub fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: as for `in8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 16 bits to an I/O port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads 32 bits from an I/O port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `in8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 32 bits to an I/O port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as for `out8`; a PCI configuration write that lets a device reach memory is guarded
    // by the driver that posts the memory.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor must have the register, or it raises a general protection fault.
pub unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller knows that the register exists; reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor must have the register, and the value must keep the running code mapped,
/// executable and in its mode.
pub unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller vouches for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    };
}

/// What CPUID answers.
#[derive(Clone, Copy)]
pub struct Cpuid {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Asks the processor about itself; leaves that do not exist answer whatever they like.
pub fn cpuid(leaf: u32, subleaf: u32) -> Cpuid {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: every 64-bit processor has CPUID. rbx is not available as an operand, so it is
    // kept in another register around the instruction.
    unsafe {
        asm!("mov {kept}, rbx", "cpuid", "xchg {kept}, rbx", kept = out(reg) ebx,
            inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx,
            options(nomem, nostack, preserves_flags));
    }
    Cpuid { eax, ebx: ebx as u32, ecx, edx }
}

/// The time-stamp counter, in ticks of `clock::tsc_khz`.
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: ring 0 may always read the counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}
