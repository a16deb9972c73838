//! Identity mapping: every address is the physical one, with rights.
//!
//! The entry maps the low 4 GiB, all writable and executable. `protect` takes away what the image
//! does not need; `map` adds what lies above 4 GiB, from a reserve of tables, so that a hotplugged
//! device can be mapped when the heap is closed.

use super::Single;
use super::port::{cpuid, rdmsr, wrmsr};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
const HUGE: u64 = 1 << 30;
/// What one entry of the topmost table maps.
const TOP: u64 = 512 << 30;
/// Where the lower half of the addresses ends: above, physical and virtual ones are not the same.
const LIMIT: u64 = 1 << 47;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// Write-through and not cached: for registers of devices.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const LARGE_PAGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;

const EFER: u32 = 0xc000_0080;
const EFER_NO_EXECUTE: u64 = 1 << 11;

/// One table of any level.
#[repr(C, align(4096))]
pub struct Table([u64; 512]);

impl Table {
    const EMPTY: Self = Self([0; 512]);
}

/// Pages that are used, and flushes, when an emulator is to make room: for 4096 pages on QEMU.
const PAGES: usize = 2048;
const FLUSHES: usize = 4;

/// Tables that split the image into small pages: 8 MiB, as `image.ld` asserts.
const IMAGE_TABLES: usize = 4;
/// Tables for `map`: a device above 4 GiB takes one, above 512 GiB two, or none if another in its GiB has them.
const RESERVE: usize = 16;

pub static PML4: Single<Table> = Single::new(Table::EMPTY);
pub static PDPT: Single<Table> = Single::new(Table::EMPTY);
pub static PD: Single<[Table; 4]> = Single::new([Table::EMPTY; 4]);
static FIRST: Single<Table> = Single::new(Table::EMPTY);
static IMAGE: Single<[Table; IMAGE_TABLES]> = Single::new([Table::EMPTY; IMAGE_TABLES]);
static SPARE: Single<[Table; RESERVE]> = Single::new([Table::EMPTY; RESERVE]);
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);
static HAS_NO_EXECUTE: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static stack_guard: u8;
    static stack_bottom: u8;
    static stack_top: u8;
    static image_end: u8;
}

/// Where the image lies: `[start, end)`.
pub fn image() -> (u64, u64) {
    (&raw const image_start as u64, &raw const image_end as u64)
}

/// The boot stack, which is the stack of the main loop: `[bottom, top)`.
pub fn stack() -> (u64, u64) {
    (&raw const stack_bottom as u64, &raw const stack_top as u64)
}

/// Whether an instruction of the image can be at this address.
pub fn is_text(address: u64) -> bool {
    (&raw const image_start as u64..&raw const text_end as u64).contains(&address)
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Memory,
    Device,
}

/// Why an address cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// The processor does not reach that far.
    TooHigh,
    /// The reserve of tables is used up.
    NoTables,
}

/// Takes away the rights that nobody needs: page 0 and the page below the stack are not mapped,
/// text is not writable, nothing else is executable, and what lies above `low_memory_end` (octets,
/// the end of memory below 4 GiB) is not cached.
///
/// # Safety
/// To be called once, before `map`, on the tables as the entry left them.
pub unsafe fn protect(low_memory_end: u64) {
    let no_execute = enable_no_execute();
    // SAFETY: called once, and nothing else holds a reference to the tables. The processor walks
    // them meanwhile: each store is a whole entry that maps the same address as before.
    let (pd, first, image_tables) = unsafe { (&mut *PD.get(), &mut *FIRST.get(), &mut *IMAGE.get()) };
    split(first, 0, |address| if address == 0 { 0 } else { PRESENT | WRITABLE | no_execute });
    let base = image().0;
    for (index, table) in image_tables.iter_mut().enumerate() {
        split(table, base + index as u64 * LARGE, |address| image_rights(address, no_execute));
    }
    // The small pages are complete before they take effect: this runs from one of them.
    for (index, entry) in pd.iter_mut().flat_map(|table| &mut table.0).enumerate() {
        let address = index as u64 * LARGE;
        let of_image =
            address.checked_sub(base).and_then(|offset| image_tables.get((offset / LARGE) as usize));
        let cache = if address < low_memory_end { 0 } else { UNCACHED };
        *entry = match of_image {
            _ if address == 0 => table_entry(&raw const *first),
            Some(table) => table_entry(&raw const *table),
            None => address | PRESENT | WRITABLE | LARGE_PAGE | cache | no_execute,
        };
    }
    flush();
}

fn image_rights(address: u64, no_execute: u64) -> u64 {
    if address < &raw const text_end as u64 {
        PRESENT
    } else if address < &raw const rodata_end as u64 {
        PRESENT | no_execute
    } else if address == &raw const stack_guard as u64 {
        0
    } else {
        PRESENT | WRITABLE | no_execute
    }
}

/// Fills a table with the small pages of the 2 MiB from `start` on.
fn split(table: &mut Table, start: u64, rights: impl Fn(u64) -> u64) {
    for (index, entry) in table.0.iter_mut().enumerate() {
        let address = start + index as u64 * PAGE;
        let rights = rights(address);
        *entry = if rights == 0 { 0 } else { address | rights };
    }
}

fn table_entry(table: *const Table) -> u64 {
    table as u64 | PRESENT | WRITABLE
}

/// Turns execute protection on where the processor has it; the bit for entries, or 0.
fn enable_no_execute() -> u64 {
    if cpuid(0x8000_0001, 0).edx & 1 << 20 == 0 {
        return 0;
    }
    // SAFETY: the processor has execute protection, so EFER has this bit; no entry uses it yet.
    unsafe { wrmsr(EFER, rdmsr(EFER) | EFER_NO_EXECUTE) };
    HAS_NO_EXECUTE.store(true, Relaxed);
    NO_EXECUTE
}

/// Makes the processor forget translations it has kept.
fn flush() {
    // SAFETY: the same tables are loaded again; every address in use stays mapped.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Uses many pages of the memory that ends there and has the processor forget them, a few times over.
///
/// An emulated processor (QEMU without KVM) keeps translations in a table that becomes larger when it is found full as
/// it is told to forget. Who never tells it so keeps the first one, of 256 pages: with buffers all over memory that
/// cost a third of the time of a small packet. For others this is some ten thousand loads, once.
pub fn widen(memory_end: u64) {
    for _ in 0..FLUSHES {
        for page in (image().1..memory_end).step_by(PAGE as usize).take(PAGES) {
            // SAFETY: mapped, and behind the image up to the end of memory: a read changes nothing there, and what it
            // finds is not looked at.
            unsafe { core::ptr::read_volatile(page as *const u8) };
        }
        flush();
    }
}

/// Maps the physical range of `length` octets from `start` on at its own address. What is mapped
/// already stays as it is: everything below 4 GiB, and neighbours in one page.
pub fn map(start: u64, length: u64, usage: Use) -> Result<(), Unmapped> {
    let end = start.checked_add(length).filter(|&end| end <= reach()).ok_or(Unmapped::TooHigh)?;
    let huge = usage == Use::Memory && cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
    let mut address = start.max(4 * HUGE);
    while address < end {
        address = map_one(address, usage, huge)?;
    }
    flush();
    Ok(())
}

/// Where the processor's physical addresses end (Intel SDM 3A, 4.1.4).
fn reach() -> u64 {
    let bits = match cpuid(0x8000_0000, 0).eax {
        0x8000_0008.. => cpuid(0x8000_0008, 0).eax & 0xff,
        _ => 36,
    };
    LIMIT.min(1_u64.checked_shl(bits).unwrap_or(LIMIT))
}

/// The table of the 512 GiB that hold `address`, which is below `LIMIT`.
fn upper(address: u64) -> Result<*mut Table, Unmapped> {
    // SAFETY: one core, and no other reference to the table is held while this one is used; below `LIMIT` is its
    // lower half.
    let entry = unsafe { &mut (*PML4.get()).0[(address / TOP) as usize] };
    if *entry == 0 {
        *entry = table_entry(spare()?);
    }
    Ok((*entry & ADDRESS) as *mut Table)
}

/// Maps the page that holds `address`, if it is not; the address of the next one.
fn map_one(address: u64, usage: Use, huge: bool) -> Result<u64, Unmapped> {
    let upper = upper(address)?;
    // SAFETY: one core, and no other reference to the table is held while this one is used: it is `PDPT`, which the
    // entry has put there, or came from `spare`. Both are static and identity mapped.
    let entry = unsafe { &mut (*upper).0[(address / HUGE % 512) as usize] };
    let rights = PRESENT
        | WRITABLE
        | LARGE_PAGE
        | if usage == Use::Device { UNCACHED } else { 0 }
        | if HAS_NO_EXECUTE.load(Relaxed) { NO_EXECUTE } else { 0 };
    if *entry == 0 && huge {
        *entry = address & !(HUGE - 1) | rights;
    }
    if *entry == 0 {
        *entry = table_entry(spare()?);
    }
    if *entry & LARGE_PAGE != 0 {
        return Ok((address & !(HUGE - 1)) + HUGE);
    }
    let table = (*entry & ADDRESS) as *mut Table;
    // SAFETY: an entry of the PDPT above 4 GiB without the large bit came from `spare`, whose
    // tables are static, identity mapped, and referred to only here.
    let entry = unsafe { &mut (*table).0[(address / LARGE % 512) as usize] };
    if *entry == 0 {
        *entry = address & !(LARGE - 1) | rights;
    }
    Ok((address & !(LARGE - 1)) + LARGE)
}

fn spare() -> Result<*const Table, Unmapped> {
    let index = SPARE_USED.load(Relaxed);
    if index >= RESERVE {
        return Err(Unmapped::NoTables);
    }
    SPARE_USED.store(index + 1, Relaxed);
    // SAFETY: `index` is within the array; only the address is taken.
    Ok(unsafe { &raw const (*SPARE.get())[index] })
}
