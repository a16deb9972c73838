//! Slots, where devices come and go: of PCI Express ports (PCI Express 3.0, 6.7 and 7.8), and of the root bus.
//!
//! A slot whose port has the registers for it is asked there and switched there; of another, which the hypervisor
//! keeps for ACPI, only the bus tells what is in it.

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::{
    Message,
    bar::{self, Window},
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
    /// What may send interrupts; the events have the same places in the upper half.
    pub const ENABLES: u32 = 0x1f;
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

const MIB: u32 = 1 << 20;
/// Where the addresses end that PCI devices have on a PC.
const IO_APIC: u32 = 0xfec0_0000;

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
    function: DeviceFunction,
    memory: Memory,
    registers: Option<Registers>,
}

/// Where the registers of a slot's device get their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// In the windows of this port.
    Port(DeviceFunction),
    /// In one MiB from here on.
    From(u32),
    /// In these.
    Within([Window; 2]),
}

/// Slot Control and Slot Status: a register of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    port: DeviceFunction,
    register: u8,
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
            let registers = Registers { port, register: capability + SLOT_CONTROL_STATUS };
            found.push(Self {
                function: DeviceFunction { bus, device: 0, function: 0 },
                memory: Memory::Port(port),
                registers: is_native.then_some(registers),
            });
        }
        found
    }

    /// Slots of the root bus: those devices of it whose bits are set, but bridges. Each has a MiB below what has
    /// addresses already, if that is above memory, which ends at `memory`.
    pub fn on_root<C: ConfigurationAccess>(access: &C, devices: u32, memory: u64) -> Vec<Self> {
        let taken = bar::lowest(access).unwrap_or(IO_APIC) & !(MIB - 1);
        let start = taken.saturating_sub(32 * MIB);
        let slot = |device| Self {
            function: DeviceFunction { bus: 0, device, function: 0 },
            memory: Memory::From(start + MIB * u32::from(device)),
            registers: None,
        };
        let is_free = u64::from(start) >= memory;
        let bridges = discover::bridges(access);
        let may_go = |slot: &Self| is_free && !bridges.contains(&slot.function);
        (0..32).filter(|device| devices & 1 << device != 0).map(slot).filter(may_go).collect()
    }

    /// One whose device has its registers within these windows, and that tells of nothing itself.
    pub(super) fn within(function: DeviceFunction, windows: [Window; 2]) -> Self {
        Self { function, memory: Memory::Within(windows), registers: None }
    }

    /// The place of the device in the slot: a slot has one device.
    pub fn function(&self) -> DeviceFunction {
        self.function
    }

    /// Whether its port itself tells of events and switches power.
    pub fn is_native(&self) -> bool {
        self.registers.is_some()
    }

    /// Has the port send `message` when something happens; `false` if it cannot.
    pub fn notify<C: ConfigurationAccess>(
        &self,
        access: &mut C,
        message: Message,
        map: impl FnMut(u64, usize) -> Option<core::ptr::NonNull<u8>>,
    ) -> bool {
        let Some(registers) = self.registers else { return false };
        let wanted = control::ATTENTION_ENABLE | control::PRESENCE_ENABLE | control::INTERRUPT_ENABLE;
        let is_sent = discover::send_message(access, registers.port, message, map);
        if is_sent {
            registers.set_control(access, wanted, 0);
        }
        is_sent
    }

    /// What happened since this was last asked. Of a slot that is not native only presence is known.
    pub fn take_events<C: ConfigurationAccess>(&self, access: &mut C) -> Events {
        let Some(Registers { port, register }) = self.registers else {
            return Events { is_present: self.is_answering(access), ..Events::default() };
        };
        let word = access.read_word(port, register);
        if word == u32::MAX {
            return Events::default();
        }
        if word & status::EVENTS != 0 {
            // Those that were seen, no others: one that comes between is seen the next time. QEMU takes the lower half
            // for events as well, and clears nothing if one of those was not seen: others send nothing meanwhile.
            let control = word & 0xffff;
            let seen = word >> 16 | !control::ENABLES;
            access.write_word(port, register, control & seen | word & status::EVENTS);
            access.write_word(port, register, control);
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

    /// Whether a virtio network device answers in the slot.
    pub fn has_nic<C: ConfigurationAccess>(&self, access: &C) -> bool {
        discover::is_virtio_net(access.read_word(self.function(), 0))
    }

    /// Whether the device in the slot is the one that was switched on: one that comes is not.
    pub fn is_enabled<C: ConfigurationAccess>(&self, access: &C) -> bool {
        discover::is_enabled(access, self.function())
    }

    /// Switches the slot on.
    pub fn power_on<C: ConfigurationAccess>(&self, access: &mut C) {
        if let Some(registers) = self.registers {
            registers.set_control(
                access,
                control::INDICATOR_ON,
                control::POWER_INDICATOR | control::POWER_OFF,
            );
        }
    }

    /// Switches the slot off: what is in it may be taken away from now on, and so the hypervisor does.
    pub fn power_off<C: ConfigurationAccess>(&self, access: &mut C) {
        if let Some(registers) = self.registers {
            registers.set_control(
                access,
                control::INDICATOR_OFF | control::POWER_OFF,
                control::POWER_INDICATOR,
            );
        }
    }

    /// Gives the memory BARs of the device in the slot addresses in the windows of its port, as firmware does for
    /// devices that are there at boot; `false` if they do not fit.
    pub fn configure<C: ConfigurationAccess>(&self, access: &mut C) -> bool {
        let windows = match self.memory {
            Memory::Port(port) => {
                discover::enable(access, port);
                bar::windows(access, port)
            }
            Memory::From(start) => bar::only(start.into(), MIB.into()),
            Memory::Within(windows) => windows,
        };
        bar::assign(access, windows, self.function)
    }

    /// Takes the bus from the device in the slot: it reaches no memory any more, and nobody reaches it.
    pub fn silence<C: ConfigurationAccess>(&self, access: &mut C) {
        discover::disable(access, self.function());
    }
}

impl Registers {
    /// Changes Slot Control and no event: they are cleared by ones.
    fn set_control<C: ConfigurationAccess>(self, access: &mut C, set: u32, clear: u32) {
        let control = access.read_word(self.port, self.register) & 0xffff;
        access.write_word(self.port, self.register, control & !clear | set);
    }
}
