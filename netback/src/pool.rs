//! Buffers that devices fill, shared by all ports.
//!
//! A buffer is taken by the port that offers it to its device, travels inside a frame, and comes back when whoever
//! holds it last lets go of it, often another port. The free list is last in, first out: warm in the cache.
//! The path takes no lock and allocates nothing.

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{cell::Cell, fmt, ops::Range, ptr::NonNull, slice};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Octets of a buffer: a page, device header included.
pub const BUFFER: usize = PAGE_SIZE;

/// Buffers allocated in one piece, so that memory need not be contiguous beyond 256 KiB.
const CHUNK: usize = 64;

/// There is not enough memory for the pool or for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// Pages that a device may access, owned.
pub(crate) struct Pages {
    physical: PhysAddr,
    memory: NonNull<u8>,
    pages: usize,
    release: unsafe fn(PhysAddr, NonNull<u8>, usize) -> i32,
}

impl Pages {
    /// Zeroed pages that may go in both directions.
    pub(crate) fn new<H: Hal>(pages: usize) -> Result<Self, OutOfMemory> {
        let (physical, memory) = H::dma_alloc(pages, BufferDirection::Both);
        match physical {
            0 => Err(OutOfMemory),
            _ => Ok(Self { physical, memory, pages, release: H::dma_dealloc }),
        }
    }

    /// Octets of the pages; `None` if they do not reach that far.
    pub(crate) fn octets(&self, range: Range<usize>) -> Option<&[u8]> {
        let length = self.checked(&range)?;
        // SAFETY: `checked` found the range inside the pages, which are initialised and ours until `drop`; writers
        // need `&mut self`. A device is only ever given them to read.
        Some(unsafe { slice::from_raw_parts(self.memory.as_ptr().add(range.start), length) })
    }

    /// Octets of the pages, to be written.
    pub(crate) fn octets_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let length = self.checked(&range)?;
        // SAFETY: as in `octets`, and `&mut self` makes this the only reference.
        Some(unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().add(range.start), length) })
    }

    fn checked(&self, range: &Range<usize>) -> Option<usize> {
        (range.end <= self.pages * PAGE_SIZE).then_some(range.end.checked_sub(range.start)?)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the three values are those that `dma_alloc` of the same `Hal` was given and returned, once.
        let _ = unsafe { (self.release)(self.physical, self.memory, self.pages) };
    }
}

struct Shared {
    /// The first `count` cells hold free buffers.
    free: Box<[Cell<NonNull<u8>>]>,
    count: Cell<usize>,
    /// What the buffers lie in.
    _chunks: Vec<Pages>,
}

/// All buffers of the image; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

impl Pool {
    /// Allocates `count` buffers of [`BUFFER`] octets.
    pub fn new<H: Hal>(count: usize) -> Result<Self, OutOfMemory> {
        let mut chunks = Vec::with_capacity(count.div_ceil(CHUNK));
        let mut free = Vec::with_capacity(count);
        while free.len() < count {
            let buffers = CHUNK.min(count - free.len());
            let mut chunk = Pages::new::<H>(buffers)?;
            for index in 0..buffers {
                let start = index * BUFFER;
                let memory = chunk.octets_mut(start..start + BUFFER).ok_or(OutOfMemory)?;
                free.push(Cell::new(NonNull::from(memory).cast()));
            }
            chunks.push(chunk);
        }
        let shared = Shared { count: Cell::new(free.len()), free: free.into(), _chunks: chunks };
        Ok(Self(Rc::new(shared)))
    }

    /// A free buffer; its octets are those of whatever it held before.
    #[inline]
    pub fn take(&self) -> Option<Buffer> {
        let shared = &*self.0;
        let count = shared.count.get().checked_sub(1)?;
        let memory = shared.free.get(count)?.get();
        shared.count.set(count);
        Some(Buffer { memory, home: self.0.clone() })
    }

    /// Buffers that are free now.
    pub fn free(&self) -> usize {
        self.0.count.get()
    }

    /// Buffers that there are.
    pub fn size(&self) -> usize {
        self.0.free.len()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("free", &self.free()).field("size", &self.size()).finish()
    }
}

/// A buffer of a [`Pool`]; dropped, it is free again.
pub struct Buffer {
    /// [`BUFFER`] octets that nobody else has.
    memory: NonNull<u8>,
    home: Rc<Shared>,
}

impl Buffer {
    /// All octets of the buffer.
    #[inline]
    pub fn octets(&self) -> &[u8; BUFFER] {
        // SAFETY: `take` moved the pointer out of the free list, so this token is its only owner, and `home` keeps
        // the pages alive. They were zeroed once: every octet is initialised. While a device owns the buffer, its
        // token sits in a slot table that nobody reads; a device that writes later can change values, not validity.
        unsafe { self.memory.cast().as_ref() }
    }

    /// All octets of the buffer, to be written.
    #[inline]
    pub fn octets_mut(&mut self) -> &mut [u8; BUFFER] {
        // SAFETY: as in `octets`, and `&mut self` makes this the only reference.
        unsafe { self.memory.cast().as_mut() }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        let count = self.home.count.get();
        // There is a cell for every buffer, and each has one token.
        if let Some(cell) = self.home.free.get(count) {
            cell.set(self.memory);
            self.home.count.set(count + 1);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("memory", &self.memory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::tests::fake::TestHal;

    #[test]
    fn every_buffer_is_given_once_and_comes_back() {
        let pool = Pool::new::<TestHal>(CHUNK + 3).unwrap();
        let mut taken: Vec<Buffer> = core::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.free()), (CHUNK + 3, 0));
        for (index, buffer) in taken.iter_mut().enumerate() {
            buffer.octets_mut().fill(index as u8);
        }
        for (index, buffer) in taken.iter().enumerate() {
            assert!(buffer.octets().iter().all(|octet| *octet == index as u8));
        }
        drop(taken);
        assert_eq!(pool.free(), pool.size());
    }

    #[test]
    fn the_buffer_given_back_last_is_given_next() {
        let pool = Pool::new::<TestHal>(4).unwrap();
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        let memory = first.octets().as_ptr();
        drop(second);
        drop(first);
        assert_eq!(pool.take().unwrap().octets().as_ptr(), memory);
    }

    #[test]
    fn a_buffer_may_outlive_its_pool() {
        let pool = Pool::new::<TestHal>(1).unwrap();
        let mut buffer = pool.take().unwrap();
        drop(pool);
        buffer.octets_mut()[BUFFER - 1] = 9;
        assert_eq!(buffer.octets()[BUFFER - 1], 9);
    }
}
