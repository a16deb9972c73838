//! The power button, and switching off.

use super::port::{in8, in16, out8, out16};
use super::{Single, apic, interrupts::Vector};
use firewall::acpi::{self, Button, Off, Power};

/// Where the null pointer points: nothing is mapped there.
const FIRST_PAGE: u64 = 4096;

/// A port that means nothing, and the reads of it that take a second or a few: about a microsecond each.
const DELAY_PORT: u16 = 0x80;
const DELAY_READS: u32 = 1 << 20;

/// How to switch off, from the machine's tables.
static OFF: Single<Option<Off>> = Single::new(None);

/// Reads the tables behind the root pointer (0 if the loader gave none), and has the button, if there is one, wake the
/// main loop as a change.
///
/// # Safety
/// To be called once, while memory that is not the heap's is as the loader left it.
pub unsafe fn init(root: u64) -> Option<Button> {
    let octet = |address: u64| {
        let is_mapped = (FIRST_PAGE..1 << 32).contains(&address);
        // SAFETY: identity mapped for good; any octet is a `u8`, and the tables are in memory that nobody writes to.
        is_mapped.then(|| unsafe { (address as *const u8).read_volatile() })
    };
    let Power { button, off } = acpi::power(root, &octet)?;
    // SAFETY: called once, and nobody reads it yet.
    unsafe { *OFF.get() = off };
    button.filter(|button| {
        let is_routed = apic::route_edge(button.line.into(), Vector::Change);
        if is_routed {
            out16(button.enable, in16(button.enable) | Button::BIT);
        }
        is_routed
    })
}

/// Whether the button was pressed since this was last asked.
pub fn take_press(button: Button) -> bool {
    let is_pressed = in16(button.status) & Button::BIT != 0;
    if is_pressed {
        out16(button.status, Button::BIT);
    }
    is_pressed
}

/// Switches off; returns where that cannot be done, or was not in about a second.
pub fn switch_off() {
    // SAFETY: written once, before anybody reads; a copy is taken.
    let off = unsafe { *OFF.get() };
    match off {
        Some(Off::Port(port, value)) => out16(port, value),
        Some(Off::OctetPort(port, value)) => out8(port, value),
        // SAFETY: a register that the tables name for this; mapped, since it is below 4 GiB, and no memory of ours.
        Some(Off::Register(address, value)) => unsafe { (address as usize as *mut u8).write_volatile(value) },
        None => return,
    }
    // The hypervisor ends the machine a moment later; whoever resets it meanwhile is taken to have wished for that.
    for _ in 0..DELAY_READS {
        in8(DELAY_PORT);
    }
}
