//! Addresses for the memory BARs of a device that came after firmware (PCI 3.0, 6.2.5; bridges 1.2, 3.2.5).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::discover::BAR;

const MEMORY_WINDOW: u8 = 0x20;
const PREFETCHABLE_WINDOW: u8 = 0x24;
const PREFETCHABLE_BASE_UPPER: u8 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u8 = 0x2c;

const IS_IO: u32 = 1 << 0;
const IS_LONG: u32 = 0b10 << 1;
const TYPE: u32 = 0b11 << 1;
const IS_PREFETCHABLE: u32 = 1 << 3;

/// Addresses that a bridge passes on: what is left of them, `[next, end)`.
#[derive(Clone, Copy, Debug)]
struct Window {
    next: u64,
    end: u64,
}

impl Window {
    /// The window between two addresses in steps of 1 MiB, the last one inclusive; empty if reversed.
    fn new(base: u64, limit: u64) -> Self {
        Self { next: base, end: if limit < base { base } else { limit.saturating_add(1 << 20) } }
    }

    fn memory<C: ConfigurationAccess>(access: &C, bridge: DeviceFunction) -> Self {
        let word = access.read_word(bridge, MEMORY_WINDOW);
        Self::new(u64::from(word & 0xfff0) << 16, u64::from(word & 0xfff0_0000))
    }

    fn prefetchable<C: ConfigurationAccess>(access: &C, bridge: DeviceFunction) -> Self {
        let word = access.read_word(bridge, PREFETCHABLE_WINDOW);
        let upper = |register| match word & 0xf {
            1 => u64::from(access.read_word(bridge, register)) << 32,
            _ => 0,
        };
        Self::new(
            u64::from(word & 0xfff0) << 16 | upper(PREFETCHABLE_BASE_UPPER),
            u64::from(word & 0xfff0_0000) | upper(PREFETCHABLE_LIMIT_UPPER),
        )
    }

    /// The next `size` octets, a power of two, aligned to it; below 4 GiB unless `is_long`.
    fn take(&mut self, size: u64, is_long: bool) -> Option<u64> {
        let start = self.next.checked_next_multiple_of(size)?;
        let end = start.checked_add(size)?;
        // Address 0 is none: firmware left the window alone.
        if start == 0 || end > self.end || !is_long && end > 1 << 32 {
            return None;
        }
        self.next = end;
        Some(start)
    }
}

/// A memory BAR: its size, and what it can do.
struct Bar {
    register: u8,
    size: u64,
    is_long: bool,
    is_prefetchable: bool,
}

impl Bar {
    /// What BAR `number` wants, if it is a memory BAR. Decoding must be off: all its bits are written meanwhile.
    fn read<C: ConfigurationAccess>(access: &mut C, function: DeviceFunction, number: u8) -> Option<Self> {
        let register = BAR + 4 * number;
        access.write_word(function, register, u32::MAX);
        let low = access.read_word(function, register);
        if low == 0 || low & IS_IO != 0 {
            access.write_word(function, register, 0);
            return None;
        }
        let is_long = low & TYPE == IS_LONG && number < 5;
        let high = if is_long {
            access.write_word(function, register + 4, u32::MAX);
            access.read_word(function, register + 4)
        } else {
            u32::MAX
        };
        let mask = u64::from(high) << 32 | u64::from(low & !0xf);
        let size = mask & mask.wrapping_neg();
        (size != 0).then_some(Self { register, size, is_long, is_prefetchable: low & IS_PREFETCHABLE != 0 })
    }
}

/// Gives every memory BAR of `function` an address in the windows of `bridge`; `false` if they do not fit. Port I/O BARs
/// get none.
pub(super) fn assign<C: ConfigurationAccess>(
    access: &mut C,
    bridge: DeviceFunction,
    function: DeviceFunction,
) -> bool {
    super::discover::disable(access, function);
    let (mut memory, mut prefetchable) =
        (Window::memory(access, bridge), Window::prefetchable(access, bridge));
    let mut number = 0;
    while number < 6 {
        let Some(bar) = Bar::read(access, function, number) else {
            number += 1;
            continue;
        };
        number += if bar.is_long { 2 } else { 1 };
        let better = bar.is_prefetchable.then(|| prefetchable.take(bar.size, bar.is_long)).flatten();
        let Some(address) = better.or_else(|| memory.take(bar.size, bar.is_long)) else { return false };
        access.write_word(function, bar.register, address as u32);
        if bar.is_long {
            access.write_word(function, bar.register + 4, (address >> 32) as u32);
        }
    }
    true
}
