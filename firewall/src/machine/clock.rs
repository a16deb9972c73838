//! Time since the image was entered: the time-stamp counter, once its rate is known.
//!
//! The rate comes from, in this order: the command line (`tsc_khz=`), the hypervisor, the PIT, the
//! local APIC's timer, which QEMU and KVM run at 1 GHz. Nothing here assumes how far the counter
//! moves between two looks: a host that was suspended lets it jump.

use super::Single;
use super::apic::{self, TIMER_DIVISOR};
use super::port::{cpuid, in8, out8, rdtsc, wrmsr};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use smoltcp::time::Instant;

/// Where the rate of the counter came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    CommandLine,
    Hypervisor,
    Pit,
    LocalTimer,
    /// Nothing answered: the rate is a guess.
    Guess,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "command-line",
            Self::Hypervisor => "hypervisor",
            Self::Pit => "pit",
            Self::LocalTimer => "local-timer",
            Self::Guess => "guess",
        })
    }
}

/// Rates that are believed, in kHz: 1 MHz (emulators that count instructions) to 100 GHz.
const PLAUSIBLE: core::ops::RangeInclusive<u64> = 1_000..=100_000_000;
/// The rate when nothing tells, in kHz.
const GUESS: u64 = 1_000_000;
/// The rate of the local APIC's timer under QEMU and KVM, in kHz.
const LOCAL_TIMER_KHZ: u64 = 1_000_000 / TIMER_DIVISOR as u64;

/// The counter at entry.
static ORIGIN: AtomicU64 = AtomicU64::new(0);
/// Microseconds a tick, times 2^32.
static SCALE: AtomicU64 = AtomicU64::new(0);
static TSC_KHZ: AtomicU64 = AtomicU64::new(0);
static TIMER_KHZ: AtomicU64 = AtomicU64::new(LOCAL_TIMER_KHZ);
/// The latest time that was told, in microseconds.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// Finds the rate of the counter; `origin` is its value at entry. Takes up to 6 ms.
pub fn init(origin: u64, command_line_khz: Option<u64>) -> Source {
    ORIGIN.store(origin, Relaxed);
    let (khz, source) = rate(command_line_khz);
    TSC_KHZ.store(khz, Relaxed);
    SCALE.store((1000 << 32) / khz, Relaxed);
    source
}

fn rate(command_line_khz: Option<u64>) -> (u64, Source) {
    let told = command_line_khz.map(|khz| (khz, Source::CommandLine));
    let told = told.or_else(|| hypervisor_khz().map(|khz| (khz, Source::Hypervisor)));
    if let Some((khz, source)) = told.filter(|(khz, _)| PLAUSIBLE.contains(khz)) {
        calibrate_timer(khz);
        return (khz, source);
    }
    let measured = pit_khz().map(|khz| (khz, Source::Pit));
    measured
        .or_else(|| local_timer_khz().map(|khz| (khz, Source::LocalTimer)))
        .filter(|(khz, _)| PLAUSIBLE.contains(khz))
        .unwrap_or((GUESS, Source::Guess))
}

/// The time since entry. Never goes back.
pub fn now() -> Instant {
    let ticks = rdtsc().wrapping_sub(ORIGIN.load(Relaxed));
    let micros = scale(ticks, SCALE.load(Relaxed)).max(LATEST.load(Relaxed));
    LATEST.store(micros, Relaxed);
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// `ticks * scale / 2^32` in two halves: no product exceeds 64 bits, as `scale` is
/// at most 2^32 (at 1 MHz).
fn scale(ticks: u64, scale: u64) -> u64 {
    ((ticks >> 32) * scale).wrapping_add(((ticks & 0xffff_ffff) * scale) >> 32)
}

/// The rate of the counter, in kHz.
pub fn tsc_khz() -> u64 {
    TSC_KHZ.load(Relaxed)
}

/// The rate of the local APIC's timer as set up by `apic`, in kHz.
pub fn timer_khz() -> u64 {
    TIMER_KHZ.load(Relaxed)
}

/// One look at several clocks.
#[derive(Clone, Copy)]
struct Look {
    tsc: u64,
    timer: u32,
    other: u32,
}

impl Look {
    /// The tightest of a few looks: an emulator or a busy host may stretch any of them.
    fn take(other: impl Fn() -> u32) -> Self {
        let once = || {
            let before = rdtsc();
            let other = other();
            let width = rdtsc().wrapping_sub(before);
            (width, Self { tsc: before.wrapping_add(width / 2), timer: apic::timer_ticks(), other })
        };
        let mut best = once();
        for _ in 0..4 {
            let next = once();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }
}

/// The oscillator of the PIT, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// How long to count against the PIT: 4 ms.
const PIT_WINDOW: u32 = PIT_HZ as u32 / 250;
/// Looks at a clock before it counts as stopped; an emulator that counts 2 ns an instruction takes
/// 200 000 of them.
const PATIENCE: u32 = 1_000_000;

/// Counts the counter and the local timer against channel 2 of the PIT.
fn pit_khz() -> Option<u64> {
    pit_start();
    if pit_is_over() {
        // microvm has no port 0x61, and thereby no gate for the channel.
        return None;
    }
    let first = Look::take(pit_ticks);
    if first.other > PIT_WINDOW {
        return None;
    }
    let reached = (0..PATIENCE).any(|_| pit_ticks() >= first.other + PIT_WINDOW);
    let last = Look::take(pit_ticks);
    let ticks = u64::from(last.other.wrapping_sub(first.other) & 0xffff);
    // More than one round of 55 ms looks like less: then the host was too busy to measure.
    if !reached || pit_is_over() || ticks < u64::from(PIT_WINDOW) {
        return None;
    }
    let khz = |count: u64| count.checked_mul(PIT_HZ / 2).map(|product| product / ticks / 500);
    let timer = khz(u64::from(last.timer.wrapping_sub(first.timer)))?;
    if timer > 0 {
        TIMER_KHZ.store(timer, Relaxed);
    }
    khz(last.tsc.wrapping_sub(first.tsc))
}

/// Lets channel 2 count down from 65535 once, without the speaker.
fn pit_start() {
    out8(0x61, in8(0x61) & !2 | 1);
    out8(0x43, 0xb0);
    out8(0x42, 0xff);
    out8(0x42, 0xff);
}

/// Ticks since `pit_start`, modulo 65536.
fn pit_ticks() -> u32 {
    out8(0x43, 0x80);
    let low = in8(0x42);
    u32::from(0xffff - u16::from_le_bytes([low, in8(0x42)]))
}

/// Whether channel 2 reached zero.
fn pit_is_over() -> bool {
    in8(0x61) & 0x20 != 0
}

/// Counts the counter for 4 ms of the local timer, which runs at 1 GHz if a hypervisor made it.
fn local_timer_khz() -> Option<u64> {
    let first = Look::take(apic::timer_ticks);
    let window = LOCAL_TIMER_KHZ as u32 * 4;
    (0..PATIENCE).any(|_| apic::timer_ticks().wrapping_sub(first.other) >= window).then_some(())?;
    let last = Look::take(apic::timer_ticks);
    let ticks = u64::from(last.other.wrapping_sub(first.other));
    last.tsc.wrapping_sub(first.tsc).checked_mul(LOCAL_TIMER_KHZ)?.checked_div(ticks)
}

/// Counts the local timer for 1 ms of the counter, whose rate is known.
fn calibrate_timer(khz: u64) {
    let first = Look::take(apic::timer_ticks);
    while rdtsc().wrapping_sub(first.tsc) < khz {}
    let last = Look::take(apic::timer_ticks);
    let ticks = u64::from(last.other.wrapping_sub(first.other)).checked_mul(khz);
    let timer = ticks.and_then(|ticks| ticks.checked_div(last.tsc.wrapping_sub(first.tsc)));
    if let Some(timer) = timer.filter(|&timer| timer > 0) {
        TIMER_KHZ.store(timer, Relaxed);
    }
}

/// What the hypervisor says: KVM through its clock page, Xen through CPUID.
fn hypervisor_khz() -> Option<u64> {
    if cpuid(1, 0).ecx & 1 << 31 == 0 {
        return None;
    }
    let leaf = cpuid(0x4000_0000, 0);
    let signature = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    match signature.as_flattened() {
        b"KVMKVMKVM\0\0\0" => kvm_khz(),
        b"XenVMMXenVMM" => Some(u64::from(cpuid(0x4000_0003, 0).ecx)).filter(|&khz| khz > 0),
        _ => None,
    }
}

/// The page that KVM fills (Linux, Documentation/virt/kvm/x86/msr.rst); 32 octets, 4-octet aligned.
#[repr(C, align(32))]
struct KvmClock {
    version: u32,
    pad: u32,
    tsc: u64,
    time: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
    pad_2: [u8; 2],
}

/// Has KVM write its clock once, and takes the rate from it.
fn kvm_khz() -> Option<u64> {
    static CLOCK: Single<KvmClock> = Single::new(KvmClock {
        version: 0,
        pad: 0,
        tsc: 0,
        time: 0,
        multiplier: 0,
        shift: 0,
        flags: 0,
        pad_2: [0; 2],
    });
    const SYSTEM_TIME: u32 = 0x4b56_4d01;
    if cpuid(0x4000_0001, 0).eax & 1 << 3 == 0 {
        return None;
    }
    // SAFETY: the feature bit says that the register exists. KVM writes the static, to which no
    // reference is ever made, until the second write ends that.
    let clock = unsafe {
        wrmsr(SYSTEM_TIME, CLOCK.get() as u64 | 1);
        let clock = CLOCK.get().read_volatile();
        wrmsr(SYSTEM_TIME, 0);
        clock
    };
    if clock.multiplier == 0 || !(-31..=31).contains(&clock.shift) {
        return None;
    }
    // Nanoseconds are ticks shifted left by `shift`, times `multiplier`, by 2^32.
    let khz = (1_000_000 << 32) / u64::from(clock.multiplier);
    Some(if clock.shift < 0 { khz << -clock.shift } else { khz >> clock.shift })
}
