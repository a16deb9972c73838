//! A device whose rings the test fills by hand, and memory for it.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    cell::{Cell, RefCell},
    collections::VecDeque,
    ptr::NonNull,
    rc::Rc,
    vec::Vec,
};

use crate::pool::BUFFER;
use virtio_drivers::{
    BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr, Result,
    transport::{DeviceStatus, DeviceType, InterruptStatus, Transport},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

std::thread_local! {
    static PAGES: Cell<usize> = const { Cell::new(0) };
    static PAGES_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Memory from the host's heap; physical and virtual addresses are the same.
pub(crate) struct TestHal;

impl TestHal {
    /// Pages of this thread that are allocated now.
    pub(crate) fn pages() -> usize {
        PAGES.get()
    }

    /// Pages that this thread may still allocate.
    pub(crate) fn limit(pages: usize) {
        PAGES_LEFT.set(pages);
    }
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap()
}

// SAFETY: pages come zeroed, aligned and unaliased from the allocator; addresses are shared as they are.
unsafe impl Hal for TestHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(left) = PAGES_LEFT.get().checked_sub(pages) else { return (0, NonNull::dangling()) };
        PAGES_LEFT.set(left);
        PAGES.set(PAGES.get() + pages);
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        (memory.as_ptr().expose_provenance() as u64, memory)
    }

    unsafe fn dma_dealloc(_physical: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        PAGES.set(PAGES.get() - pages);
        // SAFETY: the caller passes what `dma_alloc` gave.
        unsafe { dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(physical as usize)).unwrap()
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_physical: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// One ring as the device sees it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ring {
    descriptors: u64,
    driver: u64,
    device: u64,
    size: u16,
    seen: u16,
    used: u16,
    pub(crate) notified: usize,
}

/// A descriptor chain: head and (address, length) of each part.
pub(crate) type Chain = (u16, Vec<(u64, u32)>);

impl Ring {
    fn read<T: Copy>(&self, base: u64, offset: u64) -> T {
        assert_ne!(base, 0, "the ring is not set up");
        // SAFETY: offsets below are inside the pages that the driver set the ring up with; the test's thread is the
        // only one.
        unsafe { pointer::<T>(base + offset).read_volatile() }
    }

    fn write<T: Copy>(&self, base: u64, offset: u64, value: T) {
        assert_ne!(base, 0, "the ring is not set up");
        // SAFETY: as in `read`.
        unsafe { pointer::<T>(base + offset).write_volatile(value) }
    }

    /// What the driver asked for: whether it wants interrupts.
    pub(crate) fn wants_interrupts(&self) -> bool {
        self.read::<u16>(self.driver, 0) == 0
    }

    /// Whether the driver told where the ring lies, and the device was not reset since.
    pub(crate) fn is_set_up(&self) -> bool {
        self.descriptors != 0
    }

    /// Chains that the driver made available and the device did not take.
    pub(crate) fn waiting(&self) -> u16 {
        self.read::<u16>(self.driver, 2).wrapping_sub(self.seen)
    }

    /// The next available chain.
    pub(crate) fn take(&mut self) -> Option<Chain> {
        if self.waiting() == 0 {
            return None;
        }
        let head: u16 = self.read(self.driver, 4 + 2 * u64::from(self.seen % self.size));
        self.seen = self.seen.wrapping_add(1);
        let (mut parts, mut next) = (Vec::new(), head);
        loop {
            let at = 16 * u64::from(next);
            let [flags, follow]: [u16; 2] = self.read(self.descriptors, at + 12);
            parts.push((self.read(self.descriptors, at), self.read(self.descriptors, at + 8)));
            if flags & 1 == 0 {
                return Some((head, parts));
            }
            next = follow;
        }
    }

    /// Writes a used entry, true or not.
    pub(crate) fn give(&mut self, id: u32, length: u32) {
        self.entry(id, length);
        self.write(self.device, 2, self.used);
    }

    /// The same, without showing it yet.
    pub(crate) fn entry(&mut self, id: u32, length: u32) {
        let at = 4 + 8 * u64::from(self.used % self.size);
        self.write(self.device, at, [id, length]);
        self.used = self.used.wrapping_add(1);
    }

    /// Moves the used index without writing entries.
    pub(crate) fn skip(&mut self, entries: u16) {
        self.used = self.used.wrapping_add(entries);
        self.write(self.device, 2, self.used);
    }

    /// Tells the driver whether the device wants to be notified.
    pub(crate) fn suppress(&mut self, quiet: bool) {
        self.write(self.device, 0, u16::from(quiet));
    }
}

/// A network device that obeys, unless a field says otherwise.
pub(crate) struct Device {
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) status: DeviceStatus,
    pub(crate) config: [u8; 12],
    pub(crate) rings: [Ring; 3],
    pub(crate) ring_max: u32,
    pub(crate) is_stuck: bool,
    pub(crate) is_gone: bool,
    pub(crate) refuses_features: bool,
    pub(crate) resets: usize,
    pub(crate) interrupts: VecDeque<InterruptStatus>,
}

impl Device {
    /// Has a status that the driver did not write. One that reads as reset or gone has let go of the rings: the driver
    /// frees them.
    pub(crate) fn say(&mut self, status: DeviceStatus) {
        self.status = status;
        if status.is_empty() || crate::features::is_gone(status) {
            self.rings = [Ring::default(); 3];
        }
    }
}

pub(crate) const ALL_FEATURES: u64 = u64::MAX;

/// The transport of a device that the test holds as well.
#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<Device>>);

impl Fake {
    pub(crate) fn new(mac: u8) -> Self {
        Self(Rc::new(RefCell::new(Device {
            offered: ALL_FEATURES,
            accepted: 0,
            status: DeviceStatus::empty(),
            config: [2, 0, 0, 0, 0, mac, 1, 0, 0, 0, 0xdc, 0x05],
            rings: [Ring::default(); 3],
            ring_max: 1024,
            is_stuck: false,
            is_gone: false,
            refuses_features: false,
            resets: 0,
            interrupts: VecDeque::new(),
        })))
    }

    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Device) -> R) -> R {
        act(&mut self.0.borrow_mut())
    }

    /// Receives a frame as an honest device does; returns where it lies.
    pub(crate) fn deliver(&self, header: [u8; 12], frame: &[u8]) -> u64 {
        self.with(|device| {
            let (head, parts) = device.rings[0].take().expect("a receive buffer");
            let (address, room) = parts[0];
            assert!(12 + frame.len() <= room as usize);
            for (offset, octet) in header.iter().chain(frame).enumerate() {
                // SAFETY: the driver offered `room` octets there, and reads none before we give them back.
                unsafe { pointer::<u8>(address + offset as u64).write_volatile(*octet) };
            }
            device.rings[0].give(head.into(), 12 + frame.len() as u32);
            address + 12
        })
    }

    /// Receives a frame as an honest device does that merges buffers: as many as it takes, shown at once.
    pub(crate) fn deliver_merged(&self, mut header: [u8; 12], frame: &[u8]) {
        let octets = 12 + frame.len();
        header[10..].copy_from_slice(&(octets.div_ceil(BUFFER) as u16).to_le_bytes());
        let whole = [&header[..], frame].concat();
        self.with(|device| {
            let used = device.rings[0].used;
            for part in whole.chunks(BUFFER) {
                let (head, parts) = device.rings[0].take().expect("a receive buffer");
                assert_eq!(parts[0].1 as usize, BUFFER);
                // SAFETY: the driver offered so many octets there, and reads none of it before we give it back.
                unsafe { pointer::<u8>(parts[0].0).copy_from(part.as_ptr(), part.len()) };
                device.rings[0].entry(head.into(), part.len() as u32);
            }
            let count = device.rings[0].used.wrapping_sub(used);
            device.rings[0].used = used;
            device.rings[0].skip(count);
        });
    }

    /// Sends a frame as an honest device does: device header, frame, and where its parts lie.
    pub(crate) fn send(&self) -> Option<Sent> {
        let (head, parts) = self.with(|device| device.rings[1].take())?;
        let mut octets = Vec::new();
        for (address, length) in &parts {
            // SAFETY: the driver offered these octets to be read until they are given back.
            octets.extend_from_slice(unsafe {
                core::slice::from_raw_parts(pointer(*address), *length as usize)
            });
        }
        self.with(|device| device.rings[1].give(head.into(), 0));
        let frame = octets.split_off(12);
        Some((octets, frame, parts))
    }
}

/// What a device sent: device header, frame, and (address, length) of each part.
pub(crate) type Sent = (Vec<u8>, Vec<u8>, Vec<(u64, u32)>);

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.with(|device| device.offered)
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.with(|device| device.accepted = driver_features);
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.with(|device| device.ring_max)
    }

    fn notify(&mut self, queue: u16) {
        self.with(|device| device.rings[usize::from(queue)].notified += 1);
    }

    fn get_status(&self) -> DeviceStatus {
        self.with(|device| if device.is_gone { DeviceStatus::from_bits_retain(0xff) } else { device.status })
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.with(|device| match status.is_empty() {
            true if device.is_stuck => {}
            true => {
                device.resets += 1;
                device.say(status);
            }
            false if device.refuses_features => device.status = status - DeviceStatus::FEATURES_OK,
            false => device.status = status,
        });
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        assert_eq!(size, if queue == 2 { 2 } else { 256 });
        self.with(|state| {
            state.rings[usize::from(queue)] =
                Ring { descriptors, driver, device, size: size as u16, ..Ring::default() };
        });
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.with(|device| device.rings[usize::from(queue)].descriptors != 0)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.with(|device| device.interrupts.pop_front().unwrap_or_default())
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let config = self.with(|device| device.config);
        let field = config.get(offset..offset + size_of::<T>()).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(field).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<()> {
        Err(Error::Unsupported)
    }
}
