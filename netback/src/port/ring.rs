//! A split virtqueue in memory that the device sees (virtio 1.2, 2.7).
//!
//! The memory is read and written as atomics: a device is another thread that keeps no rules. What it says, an index
//! and used entries, is only ever a number; whether the number means anything is for the caller, who has a table of
//! what is out. Nothing that the driver wrote is read back.

use core::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use core::{marker::PhantomData, mem::size_of, ptr::NonNull};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, transport::Transport};

use super::{RING, StartError};
use crate::pool::{OutOfMemory, Pages};

/// Flags of a descriptor (virtio 1.2, 2.7.5): another one follows; the device writes.
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
/// In the available ring: no interrupts; in the used ring: no notifications (virtio 1.2, 2.7.7 and 2.7.10).
pub(super) const QUIET: u16 = 1;

/// A buffer, as the device finds it (virtio 1.2, 2.7.5).
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) address: AtomicU64,
    pub(super) length: AtomicU32,
    pub(super) flags: AtomicU16,
    pub(super) next: AtomicU16,
}

#[repr(C)]
struct Used {
    id: AtomicU32,
    length: AtomicU32,
}

/// What device and driver share, in the order and with the alignment of virtio 1.2, 2.7.
#[repr(C)]
struct Shared {
    descriptors: [Descriptor; RING],
    available_flags: AtomicU16,
    available_index: AtomicU16,
    available: [AtomicU16; RING],
    _events: [AtomicU16; 1],
    used: UsedRing,
}

#[repr(C, align(4))]
struct UsedRing {
    flags: AtomicU16,
    index: AtomicU16,
    entries: [Used; RING],
}

/// A used entry: the head of a chain, and the octets that the device says it wrote.
pub(crate) type Entry = (u32, u32);

/// One virtqueue of [`RING`] descriptors.
pub(crate) struct Ring<H> {
    /// Where `Shared` lies; owned.
    pages: Pages,
    /// Our index of the available ring, known to the device up to `published`.
    available: u16,
    published: u16,
    /// Our index of the used ring, and the device's when we last looked.
    taken: u16,
    used: u16,
    _hal: PhantomData<H>,
}

/// Octets of a ring's memory.
pub(crate) const FOOTPRINT: usize = size_of::<Shared>().next_multiple_of(PAGE_SIZE);

impl<H: Hal> Ring<H> {
    /// A ring with nothing on it, in fresh memory.
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        let pages = Pages::new::<H>(size_of::<Shared>().div_ceil(PAGE_SIZE))?;
        let ring = Self { pages, available: 0, published: 0, taken: 0, used: 0, _hal: PhantomData };
        ring.interrupts(false);
        Ok(ring)
    }

    /// Forgets everything, for a device that was reset.
    pub(crate) fn clear(&mut self) {
        let shared = self.shared();
        for index in [&shared.available_index, &shared.used.index, &shared.used.flags] {
            index.store(0, Relaxed);
        }
        (self.available, self.published, self.taken, self.used) = (0, 0, 0, 0);
        self.interrupts(false);
    }

    /// Tells the device where the ring lies (virtio 1.2, 4.1.5.1.3).
    pub(crate) fn announce<T: Transport>(&self, transport: &mut T, queue: u16) -> Result<(), StartError> {
        if transport.queue_used(queue) {
            return Err(StartError::RingInUse);
        }
        let offered = transport.max_queue_size(queue);
        if (offered as usize) < RING {
            return Err(StartError::RingTooShort(offered));
        }
        let shared = self.shared();
        let [descriptors, driver, device] = [
            address::<H, _>(&shared.descriptors),
            address::<H, _>(&shared.available_flags),
            address::<H, _>(&shared.used),
        ];
        transport.queue_set(queue, RING as u32, descriptors, driver, device);
        Ok(())
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the pages are large enough, aligned to a page, zeroed once and owned; every bit pattern is a value
        // of the atomics, through which alone they are touched, by us and in effect by the device.
        unsafe { self.pages.start().cast().as_ref() }
    }

    /// Writes a descriptor that the device reads from; `next` is the one behind it, if `has_next`.
    ///
    /// # Safety
    /// The octets stay where they are, and as they are, until the chain comes back or the device confirms a reset.
    #[inline]
    pub(crate) unsafe fn write_out(&self, id: u16, octets: &[u8], has_next: bool, next: u16) {
        let descriptor = self.descriptor(id);
        // SAFETY: the caller keeps the octets alive and at their place while the device may reach them.
        let address = unsafe { H::share(octets.into(), BufferDirection::DriverToDevice) };
        descriptor.address.store(address, Relaxed);
        descriptor.length.store(octets.len() as u32, Relaxed);
        descriptor.flags.store(u16::from(has_next) * NEXT, Relaxed);
        descriptor.next.store(next, Relaxed);
    }

    #[inline]
    fn descriptor(&self, id: u16) -> &Descriptor {
        &self.shared().descriptors[usize::from(id) % RING]
    }

    /// Makes every descriptor one of its own that the device writes to; where is said by [`Ring::write_in`].
    pub(crate) fn make_in(&self, length: usize) {
        for descriptor in &self.shared().descriptors {
            descriptor.length.store(length as u32, Relaxed);
            descriptor.flags.store(WRITE, Relaxed);
        }
    }

    /// Says where the device writes to.
    ///
    /// # Safety
    /// From `memory` on there are as many octets as [`Ring::make_in`] was told. They are the device's, and nobody else
    /// looks at them, until it gives the descriptor back or confirms a reset.
    #[inline]
    pub(crate) unsafe fn write_in(&self, id: u16, memory: NonNull<u8>, length: usize) {
        let octets = NonNull::slice_from_raw_parts(memory, length);
        // SAFETY: the caller's word.
        let address = unsafe { H::share(octets, BufferDirection::DeviceToDriver) };
        self.descriptor(id).address.store(address, Relaxed);
    }

    /// Puts a chain on the ring; the device sees it after [`Ring::publish`].
    #[inline]
    pub(crate) fn offer(&mut self, head: u16) {
        self.shared().available[usize::from(self.available) % RING].store(head, Relaxed);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows the device what was offered; `true` if there was something new.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if self.available == self.published {
            return false;
        }
        self.published = self.available;
        self.shared().available_index.store(self.available, Release);
        true
    }

    /// The next chain that the device gave back.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Entry> {
        if self.taken == self.used {
            self.used = self.shared().used.index.load(Acquire);
            if self.taken == self.used {
                return None;
            }
        }
        let used = &self.shared().used.entries[usize::from(self.taken) % RING];
        let entry = (used.id.load(Relaxed), used.length.load(Relaxed));
        self.taken = self.taken.wrapping_add(1);
        Some(entry)
    }

    /// Whether [`Ring::take`] would give something.
    pub(crate) fn can_take(&self) -> bool {
        self.taken != self.shared().used.index.load(Acquire)
    }

    /// Whether the device wants to hear of what was published. A full fence comes between the two.
    pub(crate) fn wants_notice(&self) -> bool {
        self.shared().used.flags.load(Relaxed) & QUIET == 0
    }

    /// Asks for interrupts, or no longer. A full fence comes between this and looking at what there is.
    pub(crate) fn interrupts(&self, wanted: bool) {
        self.shared().available_flags.store(if wanted { 0 } else { QUIET }, Relaxed);
    }
}

/// Where the device finds a part of the shared memory.
fn address<H: Hal, T>(part: &T) -> u64 {
    let octets = NonNull::slice_from_raw_parts(NonNull::from(part).cast(), size_of::<T>());
    // SAFETY: the part is inside the ring's pages, which outlive what the device knows of them.
    unsafe { H::share(octets, BufferDirection::Both) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::tests::fake::TestHal;

    #[test]
    fn the_parts_lie_as_virtio_2_7_has_them() {
        let ring = Ring::<TestHal>::new().unwrap();
        let start = ring.pages.start().addr().get();
        let shared = ring.shared();
        let offset = |address: u64| address as usize - start;
        assert_eq!(size_of::<Descriptor>(), 16);
        assert_eq!(offset(address::<TestHal, _>(&shared.descriptors)), 0);
        assert_eq!(offset(address::<TestHal, _>(&shared.available_flags)), 16 * RING);
        assert_eq!(offset(address::<TestHal, _>(&shared.available)), 16 * RING + 4);
        assert_eq!(offset(address::<TestHal, _>(&shared.used)) % 4, 0);
        assert_eq!(
            offset(address::<TestHal, _>(&shared.used.entries)),
            offset(address::<TestHal, _>(&shared.used)) + 4
        );
    }

    #[test]
    fn indices_wrap() {
        let mut ring = Ring::<TestHal>::new().unwrap();
        for round in 0..200_000u32 {
            ring.offer(3);
            assert!(ring.publish() && !ring.publish());
            let shared = ring.shared();
            assert_eq!(shared.available_index.load(Relaxed), (round + 1) as u16);
            let used = &shared.used;
            used.entries[round as usize % RING].id.store(round, Relaxed);
            assert!(!ring.can_take());
            used.index.store((round + 1) as u16, Relaxed);
            assert!(ring.can_take());
            assert_eq!((ring.take(), ring.take()), (Some((round, 0)), None));
        }
    }
}
