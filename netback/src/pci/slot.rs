//! Slots of PCI Express ports, where devices come and go (PCI Express 3.0, 6.7 and 7.8).
//!
//! A slot whose port has the registers for it is asked there and switched there; of another, which the hypervisor
//! keeps for ACPI, only the bus behind it tells what is in it.

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::{
    Message, bar,
    discover::{self, BUS_NUMBERS},
};

const CAPABILITY_EXPRESS: u8 = 0x10;
/// Offsets in the capability.
const SLOT_CAPABILITIES: u8 = 0x14;
const SLOT_CONTROL_STATUS: u8 = 0x18;

const SLOT_IMPLEMENTED: u32 = 1 << 24;
const HOT_PLUG_CAPABLE: u32 = 1 << 6;

/// Slot Control, the lower half of its word.
mod control {
    pub const ATTENTION_ENABLE: u32 = 1 << 0;
    pub const PRESENCE_ENABLE: u32 = 1 << 3;
    pub const INTERRUPT_ENABLE: u32 = 1 << 5;
    pub const POWER_INDICATOR: u32 = 3 << 8;
    pub const INDICATOR_ON: u32 = 1 << 8;
    pub const INDICATOR_OFF: u32 = 3 << 8;
    pub const POWER_OFF: u32 = 1 << 10;
}

/// Slot Status, the upper half of its word. Events are cleared by ones.
mod status {
    pub const ATTENTION: u32 = 1 << 16;
    pub const PRESENCE_CHANGED: u32 = 1 << 19;
    pub const EVENTS: u32 = 0x11f << 16;
    pub const PRESENT: u32 = 1 << 22;
}

/// What happened at a slot since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The button was pressed: what is in the slot is to be let go of.
    pub attention: bool,
    /// Something came, or went.
    pub presence_changed: bool,
    /// Something is in the slot now.
    pub is_present: bool,
}

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    port: DeviceFunction,
    capability: u8,
    bus: u8,
    is_native: bool,
}

impl Slot {
    /// The slots of the machine, in bus order. To be called after [`discover`](super::discover()). Without
    /// `may_be_native` their registers are left alone: the hypervisor would not listen to them.
    pub fn all<C: ConfigurationAccess>(access: &mut C, may_be_native: bool) -> Vec<Self> {
        let mut found = Vec::new();
        for port in discover::bridges(access) {
            let express =
                discover::capabilities(access, port).find(|(_, header)| *header as u8 == CAPABILITY_EXPRESS);
            let Some((capability, header)) = express else { continue };
            // Root port or downstream port of a switch.
            let is_downstream = matches!(header >> 20 & 0xf, 4 | 6);
            if !is_downstream || header & SLOT_IMPLEMENTED == 0 {
                continue;
            }
            let bus = (access.read_word(port, BUS_NUMBERS) >> 8) as u8;
            let register = capability.checked_add(SLOT_CAPABILITIES).filter(|_| capability <= 0xe0);
            let Some(register) = register else { continue };
            let is_native = may_be_native && access.read_word(port, register) & HOT_PLUG_CAPABLE != 0;
            found.push(Self { port, capability, bus, is_native });
        }
        found
    }

    /// The place of the device in the slot: a slot has one device.
    pub fn function(&self) -> DeviceFunction {
        DeviceFunction { bus: self.bus, device: 0, function: 0 }
    }

    /// Whether the port itself tells of events and switches power.
    pub fn is_native(&self) -> bool {
        self.is_native
    }

    /// Has the port send `message` when something happens; `false` if it cannot.
    pub fn notify<C: ConfigurationAccess>(
        &self,
        access: &mut C,
        message: Message,
        map: impl FnMut(u64, usize) -> Option<core::ptr::NonNull<u8>>,
    ) -> bool {
        if !self.is_native || !discover::send_message(access, self.port, message, map) {
            return false;
        }
        let wanted = control::ATTENTION_ENABLE | control::PRESENCE_ENABLE | control::INTERRUPT_ENABLE;
        self.set_control(access, wanted, 0);
        true
    }

    fn register(&self) -> u8 {
        self.capability + SLOT_CONTROL_STATUS
    }

    /// Changes Slot Control and no event: they are cleared by ones.
    fn set_control<C: ConfigurationAccess>(&self, access: &mut C, set: u32, clear: u32) {
        let control = access.read_word(self.port, self.register()) & 0xffff;
        access.write_word(self.port, self.register(), control & !clear | set);
    }

    /// What happened since this was last asked. Of a slot that is not native only presence is known.
    pub fn take_events<C: ConfigurationAccess>(&self, access: &mut C) -> Events {
        if !self.is_native {
            return Events { is_present: self.is_answering(access), ..Events::default() };
        }
        let word = access.read_word(self.port, self.register());
        if word == u32::MAX {
            return Events::default();
        }
        if word & status::EVENTS != 0 {
            // Those that were seen, no others: one that comes between is seen the next time.
            access.write_word(self.port, self.register(), word & (0xffff | status::EVENTS));
        }
        Events {
            attention: word & status::ATTENTION != 0,
            presence_changed: word & status::PRESENCE_CHANGED != 0,
            is_present: word & status::PRESENT != 0,
        }
    }

    /// Whether a device answers in the slot.
    pub fn is_answering<C: ConfigurationAccess>(&self, access: &C) -> bool {
        access.read_word(self.function(), 0) as u16 != u16::MAX
    }

    /// Switches the slot on.
    pub fn power_on<C: ConfigurationAccess>(&self, access: &mut C) {
        if self.is_native {
            self.set_control(access, control::INDICATOR_ON, control::POWER_INDICATOR | control::POWER_OFF);
        }
    }

    /// Switches the slot off: what is in it may be taken away from now on, and so the hypervisor does.
    pub fn power_off<C: ConfigurationAccess>(&self, access: &mut C) {
        if self.is_native {
            self.set_control(access, control::INDICATOR_OFF | control::POWER_OFF, control::POWER_INDICATOR);
        }
    }

    /// Gives the memory BARs of the device in the slot addresses in the windows of its port, as firmware does for
    /// devices that are there at boot; `false` if they do not fit.
    pub fn configure<C: ConfigurationAccess>(&self, access: &mut C) -> bool {
        discover::enable(access, self.port);
        bar::assign(access, self.port, self.function())
    }

    /// Takes the bus from the device in the slot: it reaches no memory any more, and nobody reaches it.
    pub fn silence<C: ConfigurationAccess>(&self, access: &mut C) {
        discover::disable(access, self.function());
    }
}
