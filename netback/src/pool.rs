//! Buffers that devices fill, shared by all ports.
//!
//! A buffer is taken by the port that offers it to its device, travels inside a frame, and comes back when whoever
//! holds it last lets go of it, often another port. The free list is last in, first out: warm in the cache.
//! The path takes no lock and allocates nothing.

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    cell::Cell,
    fmt,
    mem::ManuallyDrop,
    num::NonZeroU32,
    ops::Range,
    ptr::{self, NonNull},
    slice,
};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Octets of a buffer, device header included. A large frame costs by the buffer, memory by the octet.
pub const BUFFER: usize = 2 * PAGE_SIZE;

/// Buffers allocated in one piece, so that memory need not be contiguous beyond 256 KiB.
const CHUNK: usize = 32;

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

    /// Where the pages begin.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.memory
    }

    /// Octets of the pages, to be written.
    pub(crate) fn octets_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let length = self.checked(&range)?;
        // SAFETY: `checked` found the range inside the pages, which are initialised and ours until `drop`; `&mut self`
        // makes this the only reference.
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

/// No buffer.
const NONE: u32 = u32::MAX;

struct Shared {
    /// The first `count` cells name free buffers.
    free: Box<[Cell<u32>]>,
    count: Cell<usize>,
    places: Box<[Place]>,
    /// What the buffers lie in.
    _chunks: Vec<Pages>,
}

impl Shared {
    /// Puts a chain of buffers on the free list; the caller gives up what owned it.
    #[inline]
    fn free_chain(&self, first: u32) {
        let (mut index, mut count) = (first, self.count.get());
        // Ends: each buffer is in one chain once. There is a cell for each, and each has one token.
        while let (Some(place), Some(cell)) = (self.places.get(index as usize), self.free.get(count)) {
            cell.set(index);
            count += 1;
            index = place.next.replace(NONE);
        }
        self.count.set(count);
    }
}

/// A buffer's memory, and its place in a chain.
struct Place {
    memory: NonNull<u8>,
    /// The buffer that follows; [`NONE`] behind the last.
    next: Cell<u32>,
}

/// All buffers of the image; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

impl Pool {
    /// Octets that [`Pool::new`] allocates for `count` buffers.
    pub const fn footprint(count: usize) -> usize {
        count * (BUFFER + size_of::<Place>() + size_of::<u32>())
            + count.div_ceil(CHUNK) * size_of::<Pages>()
            + size_of::<Shared>()
            + 2 * size_of::<usize>()
    }

    /// Allocates `count` buffers of [`BUFFER`] octets.
    pub fn new<H: Hal>(count: usize) -> Result<Self, OutOfMemory> {
        let count = count.min(NONE as usize);
        let mut chunks = Vec::with_capacity(count.div_ceil(CHUNK));
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            let buffers = CHUNK.min(count - places.len());
            let mut chunk = Pages::new::<H>(buffers * (BUFFER / PAGE_SIZE))?;
            for index in 0..buffers {
                let start = index * BUFFER;
                let memory = chunk.octets_mut(start..start + BUFFER).ok_or(OutOfMemory)?;
                places.push(Place { memory: NonNull::from(memory).cast(), next: Cell::new(NONE) });
            }
            chunks.push(chunk);
        }
        Ok(Self(Rc::new(Shared {
            free: (0..count as u32).map(Cell::new).collect(),
            count: Cell::new(count),
            places: places.into(),
            _chunks: chunks,
        })))
    }

    /// A free buffer; its octets are those of whatever it held before.
    #[inline]
    pub fn take(&self) -> Option<Buffer> {
        let shared = &*self.0;
        let count = shared.count.get().checked_sub(1)?;
        let index = shared.free.get(count)?.get();
        let memory = shared.places.get(index as usize)?.memory;
        shared.count.set(count);
        Some(Buffer { memory, index, last: index, home: self.0.clone() })
    }

    /// Parks a free buffer for each of `wanted`, as long as there are any, and says where it lies; how many.
    #[inline]
    pub(crate) fn park<T>(
        &self,
        wanted: impl Iterator<Item = T>,
        mut park: impl FnMut(T, Parked, NonNull<u8>),
    ) -> usize {
        let Shared { free, count, places, .. } = &*self.0;
        let free = free.get(..count.get()).unwrap_or_default();
        let mut parked = 0;
        for (index, what) in free.iter().rev().map(Cell::get).zip(wanted) {
            let (Some(name), Some(place)) = (Parked::new(index), places.get(index as usize)) else { break };
            park(what, name, place.memory);
            parked += 1;
        }
        count.set(free.len() - parked);
        parked
    }

    /// A buffer that a device gave back.
    ///
    /// # Safety
    /// It was parked in this pool.
    #[inline]
    pub(crate) unsafe fn unpark(&self, parked: Parked) -> Option<Buffer> {
        let index = parked.index();
        let memory = self.0.places.get(index as usize)?.memory;
        Some(Buffer { memory, index, last: index, home: self.0.clone() })
    }

    /// Parks a buffer and those chained behind it, which a device is to be given; `None`, and all of them free, if it
    /// is of another pool.
    #[inline(always)]
    pub(crate) fn park_chain(&self, buffer: Buffer) -> Option<Parked> {
        if !Rc::ptr_eq(&self.0, &buffer.home) {
            return None;
        }
        let buffer = ManuallyDrop::new(buffer);
        // SAFETY: nothing looks at `buffer` again but for its number, so that this is the only copy.
        drop(unsafe { ptr::read(&buffer.home) });
        Parked::new(buffer.index)
    }

    /// Frees a buffer and those chained behind it.
    ///
    /// # Safety
    /// It was parked in this pool.
    #[inline]
    pub(crate) unsafe fn free_parked(&self, parked: Parked) {
        self.0.free_chain(parked.index());
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

/// A buffer that a device has: the pool's number for it, without the count of who uses the pool.
///
/// Lost, it is lost to the pool as well.
pub(crate) struct Parked(NonZeroU32);

impl Parked {
    fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index.wrapping_add(1)).map(Self)
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// A buffer of a [`Pool`] and those chained behind it; dropped, all of them are free again.
pub struct Buffer {
    /// [`BUFFER`] octets that nobody else has.
    memory: NonNull<u8>,
    index: u32,
    /// The last buffer of the chain, often this one.
    last: u32,
    home: Rc<Shared>,
}

impl Buffer {
    /// All octets of the buffer, without those behind it.
    #[inline]
    pub fn octets(&self) -> &[u8; BUFFER] {
        // SAFETY: `take` moved the name out of the free list, so this token is its only owner, and `home` keeps
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

    /// Puts a buffer that a device gave back at the end of this chain.
    ///
    /// # Safety
    /// It was parked in the pool of this buffer.
    #[inline]
    pub(crate) unsafe fn append(&mut self, behind: Parked) {
        if let Some(last) = self.home.places.get(self.last as usize) {
            self.last = behind.index();
            last.next.set(self.last);
        }
    }

    /// The octets of each buffer of the chain.
    #[inline]
    pub(crate) fn chain(&self) -> Chain<'_> {
        Chain { places: &self.home.places, index: self.index }
    }
}

/// The buffers of a chain, one behind the other.
pub(crate) struct Chain<'a> {
    places: &'a [Place],
    index: u32,
}

impl<'a> Iterator for Chain<'a> {
    type Item = &'a [u8; BUFFER];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Place { memory, next } = self.places.get(self.index as usize)?;
        self.index = next.get();
        // SAFETY: as in `Buffer::octets`: only `append` chains a buffer, and it takes what owned it; the chain has one
        // owner, the token from which the borrow is.
        Some(unsafe { memory.cast().as_ref() })
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        self.home.free_chain(self.index);
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
    fn a_chain_is_read_in_order_and_comes_back_whole() {
        let pool = Pool::new::<TestHal>(5).unwrap();
        let mut parked = Vec::new();
        let count = pool.park(1..=4, |fill, buffer, memory| {
            // SAFETY: a buffer that nobody else has.
            unsafe { memory.write_bytes(fill, BUFFER) };
            parked.push(buffer);
        });
        assert_eq!((count, pool.free()), (4, 1));
        let mut parked = parked.into_iter();
        // SAFETY: all are of this pool.
        let chain = unsafe {
            let mut chain = pool.unpark(parked.next().unwrap()).unwrap();
            parked.for_each(|behind| chain.append(behind));
            chain
        };
        assert_eq!(chain.chain().map(|part| part[BUFFER - 1]).collect::<Vec<_>>(), [1, 2, 3, 4]);
        drop(chain);
        assert_eq!(pool.free(), 5);
        // What was in a chain has nothing behind it any more.
        let all: Vec<Buffer> = core::iter::from_fn(|| pool.take()).collect();
        assert!(all.len() == 5 && all.iter().all(|buffer| buffer.chain().count() == 1));
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
