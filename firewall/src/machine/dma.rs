//! Memory that devices see: all of it, at its physical address.

use super::{heap, paging};
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// The machine, as virtio-drivers wants it.
#[derive(Clone, Copy, Debug)]
pub struct Dma;

fn pages(count: usize) -> Option<Layout> {
    Layout::from_size_align(count.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()
}

// SAFETY: blocks come from the heap, aligned to pages and owned until freed; virtual addresses are
// physical addresses, and an x86 processor sees what devices write to memory.
unsafe impl Hal for Dma {
    /// The address 0 when memory is exhausted, which virtio-drivers reports as `DmaError`.
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let block = pages(count).map_or(ptr::null_mut(), heap::allocate);
        let Some(block) = NonNull::new(block) else {
            return (0, NonNull::dangling());
        };
        // SAFETY: the heap gave `count` pages, and nothing refers to them yet.
        unsafe { block.write_bytes(0, count * PAGE_SIZE) };
        (block.as_ptr() as PhysAddr, block)
    }

    unsafe fn dma_dealloc(_: PhysAddr, block: NonNull<u8>, count: usize) -> i32 {
        let Some(layout) = pages(count) else {
            return -1;
        };
        // SAFETY: the caller says that `dma_alloc` gave the block with this count.
        unsafe { heap::release(block.as_ptr(), layout) };
        0
    }

    /// Panics if the registers lie above 512 GiB or the reserve of page tables is used up: ask
    /// `paging::map` before where that may be.
    unsafe fn mmio_phys_to_virt(start: PhysAddr, size: usize) -> NonNull<u8> {
        paging::map(start, size as u64, paging::Use::Device).expect("device registers can be mapped");
        NonNull::new(start as *mut u8).expect("device registers are not at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
