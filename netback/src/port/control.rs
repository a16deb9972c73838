//! The control queue, for the one command that we have: an announcement was heard of (virtio 1.2, 5.1.6.5.4).
//!
//! One chain of two descriptors, always the same: the command, and the octet in which the device answers, which
//! nobody reads.

use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use core::{marker::PhantomData, mem::offset_of, ptr::NonNull};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, transport::Transport};

use super::ring::{Descriptor, NEXT, QUIET, WRITE};
use crate::pool::{OutOfMemory, Pages};

/// The queue's number, where there is one pair of others.
pub(crate) const CONTROL: u16 = 2;
/// Descriptors of the queue.
const SIZE: usize = 2;

/// VIRTIO_NET_CTRL_ANNOUNCE and VIRTIO_NET_CTRL_ANNOUNCE_ACK.
const HEARD: [u8; 2] = [3, 0];

/// What device and driver share, in the order and with the alignment of virtio 1.2, 2.7.
#[repr(C, align(16))]
struct Shared {
    descriptors: [Descriptor; SIZE],
    available_flags: AtomicU16,
    available_index: AtomicU16,
    available: [AtomicU16; SIZE],
    _available_event: AtomicU16,
    used: Used,
    command: [AtomicU8; 2],
    answer: AtomicU8,
}

#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    entries: [[AtomicU32; 2]; SIZE],
}

/// Octets that it takes.
pub(crate) const FOOTPRINT: usize = size_of::<Shared>().next_multiple_of(PAGE_SIZE);

/// The queue, in memory that the device sees.
pub(crate) struct Control<H> {
    /// Where `Shared` lies; owned.
    pages: Pages,
    /// The device knows the queue.
    is_known: bool,
    /// Commands since the last reset.
    sent: u16,
    _hal: PhantomData<H>,
}

impl<H: Hal> Control<H> {
    /// The queue with nothing on it, in fresh memory.
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        let pages = Pages::new::<H>(FOOTPRINT / PAGE_SIZE)?;
        let mut control = Self { pages, is_known: false, sent: 0, _hal: PhantomData };
        control.clear();
        Ok(control)
    }

    /// Forgets everything, for a device that was reset.
    pub(crate) fn clear(&mut self) {
        (self.is_known, self.sent) = (false, 0);
        let shared = self.shared();
        shared.available_flags.store(QUIET, Relaxed);
        shared.available_index.store(0, Relaxed);
        shared.used.index.store(0, Relaxed);
        for (octet, value) in shared.command.iter().zip(HEARD) {
            octet.store(value, Relaxed);
        }
        let parts = [
            (offset_of!(Shared, command), 2, NEXT, BufferDirection::DriverToDevice),
            (offset_of!(Shared, answer), 1, WRITE, BufferDirection::DeviceToDriver),
        ];
        for (descriptor, (offset, length, flags, direction)) in shared.descriptors.iter().zip(parts) {
            descriptor.address.store(self.address(offset, length as usize, direction), Relaxed);
            descriptor.length.store(length, Relaxed);
            descriptor.flags.store(flags, Relaxed);
            descriptor.next.store(1, Relaxed);
        }
    }

    /// Tells the device where the queue lies; it stays without commands if it has no room for it.
    pub(crate) fn announce<T: Transport>(&mut self, transport: &mut T) {
        self.is_known = !transport.queue_used(CONTROL) && transport.max_queue_size(CONTROL) >= SIZE as u32;
        if self.is_known {
            let part = |offset, length| self.address(offset, length, BufferDirection::Both);
            let descriptors = part(offset_of!(Shared, descriptors), size_of::<[Descriptor; SIZE]>());
            let driver = part(offset_of!(Shared, available_flags), 6 + 2 * SIZE);
            let device = part(offset_of!(Shared, used), size_of::<Used>());
            transport.queue_set(CONTROL, SIZE as u32, descriptors, driver, device);
        }
    }

    /// Tells the device that its wish for an announcement was heard, unless it has not taken the last command yet.
    pub(crate) fn hear<T: Transport>(&mut self, transport: &mut T) {
        let shared = self.shared();
        if !self.is_known || shared.used.index.load(Acquire) != self.sent {
            return;
        }
        shared.available[usize::from(self.sent) % SIZE].store(0, Relaxed);
        let sent = self.sent.wrapping_add(1);
        shared.available_index.store(sent, Release);
        self.sent = sent;
        fence(core::sync::atomic::Ordering::SeqCst);
        transport.notify(CONTROL);
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the pages are large enough, aligned to a page, zeroed once and owned; every bit pattern is a value
        // of the atomics, through which alone they are touched, by us and in effect by the device.
        unsafe { self.pages.start().cast().as_ref() }
    }

    /// Where the device finds a part of the shared memory.
    fn address(&self, offset: usize, length: usize, direction: BufferDirection) -> u64 {
        // SAFETY: the offset is that of a field of `Shared`, which lies there.
        let part = unsafe { self.pages.start().cast::<u8>().add(offset) };
        // SAFETY: the part is inside the queue's pages, which outlive what the device knows of them.
        unsafe { H::share(NonNull::slice_from_raw_parts(part, length), direction) }
    }
}
