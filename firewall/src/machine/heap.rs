//! Memory for what is built at boot: sessions, rings, buffers.
//!
//! First fit over a list of holes, sorted by address, joined when freed. After `seal` the appliance
//! is not to allocate: whoever does is counted and logged.

use super::Single;
use super::boot::Region;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Every block is a multiple of this, and begins at one.
const GRAIN: usize = size_of::<Hole>();

/// A free range; lies at its own beginning.
#[repr(C, align(16))]
struct Hole {
    size: usize,
    next: *mut Hole,
}

impl Hole {
    fn end(&self) -> usize {
        ptr::from_ref(self) as usize + self.size
    }
}

/// The allocator; interrupt handlers do not use it, and there is one core.
struct Heap(Single<*mut Hole>);

#[global_allocator]
static HEAP: Heap = Heap(Single::new(null_mut()));
static SIZE: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);
static SEALED: AtomicBool = AtomicBool::new(false);
static LATE: AtomicU64 = AtomicU64::new(0);

/// Gives a range of memory to the heap.
///
/// # Safety
/// The range is mapped memory that nothing else uses from now on.
pub unsafe fn add(region: Region) {
    let grain = GRAIN as u64;
    let start = region.start.next_multiple_of(grain);
    let size = (region.end & !(grain - 1)).saturating_sub(start) as usize;
    if size > 0 {
        // SAFETY: the caller gives the range away; start and size are multiples of the grain.
        unsafe { HEAP.give(start as *mut Hole, size) };
        SIZE.fetch_add(size, Relaxed);
    }
}

/// Octets of all ranges.
pub fn size() -> usize {
    SIZE.load(Relaxed)
}

/// Octets that are free, not necessarily in one piece.
pub fn free() -> usize {
    FREE.load(Relaxed)
}

/// Ends the time of allocation: the appliance is built.
pub fn seal() {
    SEALED.store(true, Relaxed);
}

/// Allocations since `seal`: a defect if not 0.
pub fn late_allocations() -> u64 {
    LATE.load(Relaxed)
}

/// Allocates without being counted: for what hotplug needs, within the memory that the site
/// declares. Null if there is not enough.
pub fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: the heap's holes are its own by `add`'s contract.
    unsafe { HEAP.take(layout) }
}

/// Frees what `allocate` gave.
///
/// # Safety
/// `block` came from `allocate` with the same layout, and is not used any more.
pub unsafe fn release(block: *mut u8, layout: Layout) {
    // SAFETY: `take` gave the block from an aligned address, in whole grains.
    unsafe { HEAP.give(block.cast(), size_of_block(layout)) };
}

fn size_of_block(layout: Layout) -> usize {
    layout.size().max(1).next_multiple_of(GRAIN)
}

impl Heap {
    /// Puts a block into the list, joined with the holes it touches.
    ///
    /// # Safety
    /// The block is the heap's to use, whole grains.
    unsafe fn give(&self, block: *mut Hole, size: usize) {
        FREE.fetch_add(size, Relaxed);
        // SAFETY: the list links holes that are the heap's own, each with a valid header; one core
        // and no handler uses it, so nothing changes under this walk.
        unsafe {
            let mut link: *mut *mut Hole = self.0.get();
            let mut before: *mut Hole = null_mut();
            while !(*link).is_null() && *link < block {
                before = *link;
                link = &raw mut (**link).next;
            }
            block.write(Hole { size, next: *link });
            *link = block;
            join(block);
            if !before.is_null() {
                join(before);
            }
        }
    }

    /// Takes a block out of the first hole that has room for it; null if none has.
    ///
    /// # Safety
    /// As for `give`: the list is intact and not in use.
    unsafe fn take(&self, layout: Layout) -> *mut u8 {
        let size = size_of_block(layout);
        let align = layout.align().max(GRAIN);
        // SAFETY: as in `give`. The pieces before and after the block are whole grains within the
        // hole, so each has room for its header.
        unsafe {
            let mut link: *mut *mut Hole = self.0.get();
            while !(*link).is_null() {
                let hole = *link;
                let start = (hole as usize).next_multiple_of(align);
                let end = (*hole).end();
                if start.checked_add(size).is_some_and(|block_end| block_end <= end) {
                    let mut next = (*hole).next;
                    if start + size < end {
                        let rest = (start + size) as *mut Hole;
                        rest.write(Hole { size: end - start - size, next });
                        next = rest;
                    }
                    if start > hole as usize {
                        hole.write(Hole { size: start - hole as usize, next });
                        next = hole;
                    }
                    *link = next;
                    FREE.fetch_sub(size, Relaxed);
                    return start as *mut u8;
                }
                link = &raw mut (*hole).next;
            }
        }
        null_mut()
    }
}

/// Joins a hole with the next one if they touch.
///
/// # Safety
/// `hole` is in the list.
unsafe fn join(hole: *mut Hole) {
    // SAFETY: `hole` and its successor are in the list, so both have headers.
    unsafe {
        let next = (*hole).next;
        if !next.is_null() && (*hole).end() == next as usize {
            (*hole).size += (*next).size;
            (*hole).next = (*next).next;
        }
    }
}

// SAFETY: blocks come from holes, which are memory that `add` was given and no other block covers;
// start and size follow the layout. One core, and no handler allocates.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if SEALED.load(Relaxed) {
            late(layout);
        }
        allocate(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller says that `alloc` gave it with this layout.
        unsafe { release(block, layout) };
    }
}

/// Counts an allocation after `seal`, and logs the first, the second, the fourth ...
fn late(layout: Layout) {
    let count = LATE.fetch_add(1, Relaxed) + 1;
    if count.is_power_of_two() {
        log::error!("allocation after boot size={} count={count}", layout.size());
    }
    debug_assert!(!SEALED.load(Relaxed), "allocation of {} octets after boot", layout.size());
}
