//! Addresses for the memory BARs of a device that came after firmware (PCI 3.0, 6.2.5; bridges 1.2, 3.2.5).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::discover::{self, BAR, COMMAND_STATUS};

const MEMORY_WINDOW: u8 = 0x20;
const PREFETCHABLE_WINDOW: u8 = 0x24;
const PREFETCHABLE_BASE_UPPER: u8 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u8 = 0x2c;

/// Expansion ROM: of devices, and of bridges.
const ROM: u8 = 0x30;
const BRIDGE_ROM: u8 = 0x38;
const ROM_ENABLE: u32 = 1 << 0;

const IS_IO: u32 = 1 << 0;
const IS_LONG: u32 = 0b10 << 1;
const TYPE: u32 = 0b11 << 1;
const IS_PREFETCHABLE: u32 = 1 << 3;

/// Addresses that devices may have, such as a bridge passes on: what is left of them, `[next, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
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

    /// One of `count` shares of the same size, a power of two; empty if there is no room for it.
    pub(super) fn share(self, number: u8, count: u8) -> Self {
        let size = (self.end.saturating_sub(self.next) / u64::from(count.max(1))).checked_ilog2();
        let place = size.and_then(|size| {
            let size = 1 << size;
            let start = self.next.checked_next_multiple_of(size)?.checked_add(size * u64::from(number))?;
            Some((start, start.checked_add(size).filter(|&end| end <= self.end)?))
        });
        let (next, end) = place.unwrap_or((self.end, self.end));
        Self { next, end }
    }

    /// What is behind these addresses, if any of them are inside.
    fn behind(self, start: u64, end: u64) -> Self {
        match start < self.end && end > self.next {
            true => Self { next: end.min(self.end), ..self },
            false => self,
        }
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

/// What a bridge passes on: its window for registers, and the one for what may be prefetched.
pub(super) fn windows<C: ConfigurationAccess>(access: &C, bridge: DeviceFunction) -> [Window; 2] {
    [Window::memory(access, bridge), Window::prefetchable(access, bridge)]
}

/// What is behind all that the devices of a bus have of the windows of its bridge. Each is off while it is asked; ROMs
/// have no place any more, and are switched off.
pub(super) fn left<C: ConfigurationAccess>(access: &mut C, bridge: DeviceFunction, bus: u8) -> [Window; 2] {
    let mut left = windows(access, bridge);
    for function in discover::functions(access, bus) {
        let mut taken = |start, end| left = left.map(|window: Window| window.behind(start, end));
        let is_bridge = discover::is_bridge(access, function);
        if is_bridge {
            windows(access, function).into_iter().for_each(|window| taken(window.next, window.end));
        }
        let command = access.read_word(function, COMMAND_STATUS) & 0xffff;
        discover::disable(access, function);
        let mut number = 0;
        while number < if is_bridge { 2 } else { 6 } {
            let register = BAR + 4 * number;
            let (low, high) =
                (access.read_word(function, register), access.read_word(function, register + 4));
            let is_long = low & (IS_IO | TYPE) == IS_LONG && number < 5;
            if low & IS_IO == 0
                && let Some(bar) = Bar::read(access, function, number)
            {
                let start = u64::from(if is_long { high } else { 0 }) << 32 | u64::from(low & !0xf);
                taken(start, start.saturating_add(bar.size));
            }
            access.write_word(function, register, low);
            if is_long {
                access.write_word(function, register + 4, high);
            }
            number += if is_long { 2 } else { 1 };
        }
        let rom = if is_bridge { BRIDGE_ROM } else { ROM };
        let address = access.read_word(function, rom);
        access.write_word(function, rom, address & !ROM_ENABLE);
        access.write_word(function, COMMAND_STATUS, command);
    }
    left
}

/// One window of this place and size for everything.
pub(super) fn only(start: u64, size: u64) -> [Window; 2] {
    let end = start.saturating_add(size);
    [Window { next: start, end }, Window { next: end, end }]
}

/// The lowest address below 4 GiB that firmware has given to a device or bridge of the root bus.
pub(super) fn lowest<C: ConfigurationAccess>(access: &C) -> Option<u32> {
    let functions = discover::functions(access, 0).into_iter();
    let lowest_of = |function| match discover::is_bridge(access, function) {
        true => windows(access, function)
            .into_iter()
            .filter(|window| window.next < window.end)
            .map(|window| window.next)
            .min(),
        false => lowest_bar(access, function),
    };
    functions
        .filter_map(lowest_of)
        .filter_map(|address| u32::try_from(address).ok())
        .filter(|&address| address != 0)
        .min()
}

/// The lowest address that a memory BAR of `function` has.
pub(super) fn lowest_bar<C: ConfigurationAccess>(access: &C, function: DeviceFunction) -> Option<u64> {
    let mut lowest = None;
    let mut number = 0;
    while number < 6 {
        let low = access.read_word(function, BAR + 4 * number);
        let is_long = low & (IS_IO | TYPE) == IS_LONG && number < 5;
        let high = if is_long { access.read_word(function, BAR + 4 * number + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        if low & IS_IO == 0 && address != 0 {
            lowest = Some(lowest.map_or(address, |lowest: u64| lowest.min(address)));
        }
        number += if is_long { 2 } else { 1 };
    }
    lowest
}

/// Gives every memory BAR of `function` an address in the windows for registers and for what may be prefetched; `false`
/// if they do not fit. Port I/O BARs get none.
pub(super) fn assign<C: ConfigurationAccess>(
    access: &mut C,
    [mut memory, mut prefetchable]: [Window; 2],
    function: DeviceFunction,
) -> bool {
    discover::disable(access, function);
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
