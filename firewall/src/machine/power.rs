//! The power button and the slots, as ACPI has them, and switching off.

use super::port::{in8, in16, out8, out16};
use super::{Single, acpi_slots, apic, interrupts::Vector, tables::Tables};
use firewall::acpi::{self, Event, Off};

/// Looks until no event is left: the line is up as long as there is one, and only its rise is an interrupt.
const LOOKS: u8 = 8;

/// A port that means nothing, and the reads of it that take a second or a few: about a microsecond each.
const DELAY_PORT: u16 = 0x80;
const DELAY_READS: u32 = 1 << 20;

/// How to switch off, from the machine's tables.
static OFF: Single<Option<Off>> = Single::new(None);

/// What wakes the main loop as a change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Power {
    button: Option<Event>,
    slots: Option<Event>,
}

/// Has the button and the slots of the tables, if there are any, wake the main loop.
///
/// # Safety
/// To be called once.
pub unsafe fn init(tables: Tables) -> Power {
    let Some(acpi::Power { line, button, general, off }) = acpi::power(tables.root, &tables.memory) else {
        return Power::default();
    };
    // SAFETY: called once, and nobody reads it yet.
    unsafe { *OFF.get() = off };
    if !apic::route_edge(line.into(), Vector::Change) {
        return Power::default();
    }
    let slots = general.filter(|_| acpi_slots::are_there());
    if let Some(Event { enable, .. }) = button {
        out16(enable, in16(enable) | Event::BUTTON);
    }
    if let Some(Event { enable, .. }) = slots {
        out8(enable, in8(enable) | Event::SLOTS);
    }
    Power { button, slots }
}

impl Power {
    /// Whether slots without registers of their own wake the main loop.
    pub fn hears_slots(&self) -> bool {
        self.slots.is_some()
    }

    /// Whether the button was pressed since this was last asked. To be asked at each change: other events are cleared.
    pub fn take_press(&self) -> bool {
        let mut is_pressed = false;
        for _ in 0..LOOKS {
            let button = self.button.filter(|event| in16(event.status) & Event::BUTTON != 0);
            let slots = self.slots.filter(|event| in8(event.status) & Event::SLOTS != 0);
            if let Some(event) = button {
                is_pressed = true;
                out16(event.status, Event::BUTTON);
            }
            if let Some(event) = slots {
                out8(event.status, Event::SLOTS);
            }
            if button.is_none() && slots.is_none() {
                break;
            }
        }
        is_pressed
    }
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
