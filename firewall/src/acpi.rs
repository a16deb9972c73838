//! What ACPI's tables say: where the power button and the slots tell of themselves, and how to switch off (ACPI 6.4,
//! 4.8 and 5.2).
//!
//! Only tables of fixed layout are read. Of the DSDT, which is a program, one object is looked for: `\_S5_`, a
//! package of constants.

pub mod devices;

/// Physical memory as the loader left it, an octet at a time; `None` where there is none to read.
pub trait Memory {
    /// The octet at an address.
    fn octet(&self, address: u64) -> Option<u8>;
}

impl<F: Fn(u64) -> Option<u8>> Memory for F {
    fn octet(&self, address: u64) -> Option<u8> {
        self(address)
    }
}

/// What can be done about power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// The interrupt line of all events.
    pub line: u8,
    /// The power button, if it has registers of fixed meaning, which have 16 bits (ACPI 6.4, 4.8.3.1).
    pub button: Option<Event>,
    /// General-purpose events, in octets (ACPI 6.4, 4.8.4.1); slots are among them.
    pub general: Option<Event>,
    /// How to switch off.
    pub off: Option<Off>,
}

/// Where something tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The I/O port of the status register, whose bits are cleared by ones.
    pub status: u16,
    /// The I/O port of the enable register.
    pub enable: u16,
}

impl Event {
    /// The power button's bit in both of its registers.
    pub const BUTTON: u16 = 1 << 8;
    /// In the first octet of general-purpose events: a PCI device came or is to go, by QEMU's convention (`_E01`).
    pub const SLOTS: u8 = 1 << 1;
}

/// The write that switches off (ACPI 6.4, 4.8.3.2.1 and 4.8.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// 16 bits to an I/O port.
    Port(u16, u16),
    /// An octet to an I/O port.
    OctetPort(u16, u8),
    /// An octet to an address below 4 GiB.
    Register(u32, u8),
}

/// Octets of the DSDT that are looked at; QEMU's takes 8 KiB.
const DSDT_MAX: u32 = 1 << 20;
/// Tables that are looked at.
const TABLES_MAX: u32 = 64;
/// A table's header (ACPI 6.4, 5.2.6).
const HEADER: u32 = 36;

/// Offsets in the FADT (ACPI 6.4, 5.2.9).
mod fadt {
    pub const DSDT: u32 = 40;
    pub const SCI_LINE: u32 = 46;
    pub const PM1A_EVENT: u32 = 56;
    pub const PM1A_CONTROL: u32 = 64;
    pub const GENERAL: u32 = 80;
    pub const PM1_EVENT_LENGTH: u32 = 88;
    pub const GENERAL_LENGTH: u32 = 92;
    pub const FLAGS: u32 = 112;
    pub const LONG_DSDT: u32 = 140;
    pub const SLEEP_CONTROL: u32 = 244;
}

/// Flags of the FADT: the button is a device of the DSDT; there are no fixed registers.
const BUTTON_IS_DEVICE: u32 = 1 << 4;
const IS_REDUCED: u32 = 1 << 20;

const SPACE_MEMORY: u8 = 0;
const SPACE_IO: u8 = 1;

/// Reads what the tables behind the root pointer say; `None` without sound tables.
pub fn power(root: u64, memory: &impl Memory) -> Option<Power> {
    let fadt = find(root, memory, *b"FACP")?;
    let flags = fadt.long(fadt::FLAGS)?;
    let s5 = fadt.dsdt().and_then(|dsdt| dsdt.soft_off());
    Some(if flags & IS_REDUCED != 0 {
        Power { off: s5.and_then(|kind| fadt.sleep_control(kind)), ..Power::default() }
    } else {
        let button = fadt.event(fadt::PM1A_EVENT, fadt::PM1_EVENT_LENGTH, 2);
        Power {
            line: fadt.octet(fadt::SCI_LINE)?,
            button: button.filter(|_| flags & BUTTON_IS_DEVICE == 0),
            general: fadt.event(fadt::GENERAL, fadt::GENERAL_LENGTH, 1),
            off: s5.and_then(|kind| fadt.control(kind)),
        }
    })
}

/// The table of this signature, by way of the table of tables.
fn find<M: Memory>(root: u64, memory: &M, wanted: [u8; 4]) -> Option<Table<'_, M>> {
    let root = Table { memory, start: root, length: 36 };
    let is_root = root.start != 0 && root.is(*b"RSD ") && root.is_at(4, *b"PTR ") && root.sum(20) == Some(0);
    if !is_root {
        return None;
    }
    let long = (root.octet(15)? >= 2).then(|| root.address(24)).flatten().filter(|&address| address != 0);
    let (address, signature, width) = match long {
        Some(address) => (address, *b"XSDT", 8),
        None => (root.long(16)?.into(), *b"RSDT", 4),
    };
    let list = Table::at(memory, address, signature)?;
    (0..TABLES_MAX)
        .map(|index| HEADER + index * width)
        .take_while(|offset| offset + width <= list.length)
        .filter_map(|offset| if width == 8 { list.address(offset) } else { list.long(offset).map(u64::from) })
        .find_map(|address| Table::at(memory, address, wanted))
}

struct Table<'a, M> {
    memory: &'a M,
    start: u64,
    length: u32,
}

impl<'a, M: Memory> Table<'a, M> {
    /// The table at an address, if it has this signature, and a sum that is right.
    fn at(memory: &'a M, start: u64, signature: [u8; 4]) -> Option<Self> {
        let header = Self { memory, start, length: HEADER };
        let length = header.is(signature).then(|| header.long(4)).flatten()?;
        let table = Self { length, ..header };
        ((HEADER..=DSDT_MAX).contains(&length) && table.sum(length) == Some(0)).then_some(table)
    }

    fn octet(&self, offset: u32) -> Option<u8> {
        let address = self.start.checked_add(offset.into())?;
        (offset < self.length).then(|| self.memory.octet(address)).flatten()
    }

    fn octets<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut octets = [0; N];
        for (octet, at) in octets.iter_mut().zip(offset..) {
            *octet = self.octet(at)?;
        }
        Some(octets)
    }

    fn long(&self, offset: u32) -> Option<u32> {
        self.octets(offset).map(u32::from_le_bytes)
    }

    fn address(&self, offset: u32) -> Option<u64> {
        self.octets(offset).map(u64::from_le_bytes)
    }

    /// An I/O port; 0 is none.
    fn port(&self, offset: u32) -> Option<u16> {
        u16::try_from(self.long(offset)?).ok().filter(|&port| port != 0)
    }

    fn is(&self, signature: [u8; 4]) -> bool {
        self.is_at(0, signature)
    }

    fn is_at(&self, offset: u32, word: [u8; 4]) -> bool {
        self.octets(offset) == Some(word)
    }

    fn sum(&self, length: u32) -> Option<u8> {
        (0..length).try_fold(0_u8, |sum, offset| Some(sum.wrapping_add(self.octet(offset)?)))
    }

    fn dsdt(&self) -> Option<Self> {
        let long = self.address(fadt::LONG_DSDT).filter(|&address| address != 0);
        Table::at(self.memory, long.or(self.long(fadt::DSDT).map(u64::from))?, *b"DSDT")
    }

    /// A block of events: the first half of it is status, the second enable; of `width` octets each at least.
    fn event(&self, block: u32, length: u32, width: u16) -> Option<Event> {
        let status = self.port(block)?;
        let half = u16::from(self.octet(length)? / 2);
        let enable = status.checked_add(half).filter(|_| half >= width)?;
        Some(Event { status, enable })
    }

    /// SLP_TYP and SLP_EN of the control register.
    fn control(&self, kind: u8) -> Option<Off> {
        Some(Off::Port(self.port(fadt::PM1A_CONTROL)?, u16::from(kind & 7) << 10 | 1 << 13))
    }

    /// The same of a machine without fixed registers; a generic address tells the space first.
    fn sleep_control(&self, kind: u8) -> Option<Off> {
        let (value, address) = ((kind & 7) << 2 | 1 << 5, self.address(fadt::SLEEP_CONTROL + 4)?);
        match self.octet(fadt::SLEEP_CONTROL)? {
            SPACE_IO => Some(Off::OctetPort(u16::try_from(address).ok()?, value)),
            SPACE_MEMORY => Some(Off::Register(u32::try_from(address).ok()?, value)),
            _ => None,
        }
        .filter(|_| address != 0)
    }

    /// The first number of the package `\_S5_`: `Name(_S5_, Package(n) { number, .. })` (ACPI 6.4, 20.2.4 and 20.2.5).
    fn soft_off(&self) -> Option<u8> {
        let at = (HEADER..self.length).find(|&at| self.is_at(at, *b"_S5_"))?;
        let (package, length) = (at + 4, at + 5);
        if self.octet(package)? != 0x12 {
            return None;
        }
        // The upper bits say how many octets of the package's length follow; then comes the number of elements.
        let first = length + u32::from(self.octet(length)? >> 6) + 2;
        match self.octet(first)? {
            // ZeroOp and OneOp are the numbers; BytePrefix is followed by one.
            number @ (0 | 1) => Some(number),
            0x0a => self.octet(first + 1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    const ROOT: usize = 0x1000;
    const LIST: usize = 0x1100;
    const FADT: usize = 0x1200;
    const DSDT: usize = 0x1400;
    const MORE: usize = 0x1800;

    /// Tables as QEMU's q35 has them, in memory.
    pub(super) struct World(Vec<u8>);

    impl World {
        pub(super) const ROOT: u64 = ROOT as u64;

        pub(super) fn new(s5: &[u8]) -> Self {
            let mut world = Self(std::vec![0; 0x2000]);
            world.put(ROOT, b"RSD PTR ");
            world.put(ROOT + 16, &(LIST as u32).to_le_bytes());
            world.table(LIST, b"RSDT", &(FADT as u32).to_le_bytes());
            let mut fadt = std::vec![0; 256 - 36];
            fadt[4..8].copy_from_slice(&(DSDT as u32).to_le_bytes());
            fadt[10] = 9;
            fadt[20..22].copy_from_slice(&[0x00, 0x06]);
            fadt[28..30].copy_from_slice(&[0x04, 0x06]);
            fadt[44..46].copy_from_slice(&[0x20, 0x06]);
            fadt[52] = 4;
            fadt[56] = 16;
            world.table(FADT, b"FACP", &fadt);
            world.table(DSDT, b"DSDT", &[b"\x08XYZ_\x00\x08_S5_", s5].concat());
            world.seal(ROOT, 20, 8);
            world
        }

        fn put(&mut self, at: usize, octets: &[u8]) {
            self.0[at..at + octets.len()].copy_from_slice(octets);
        }

        fn table(&mut self, at: usize, signature: &[u8; 4], body: &[u8]) {
            self.put(at, signature);
            self.put(at + 4, &(36 + body.len() as u32).to_le_bytes());
            self.put(at + 36, body);
            self.seal(at, 36 + body.len(), 9);
        }

        /// Makes the sum of a table right, in the octet at `sum`.
        fn seal(&mut self, at: usize, length: usize, sum: usize) {
            self.0[at + sum] = 0;
            let total = self.0[at..at + length].iter().fold(0_u8, |sum, octet| sum.wrapping_add(*octet));
            self.0[at + sum] = total.wrapping_neg();
        }

        fn flags(mut self, flags: u32) -> Self {
            self.put(FADT + 112, &flags.to_le_bytes());
            self.seal(FADT, 256, 9);
            self
        }

        /// Has another table, behind the first one of the list.
        pub(super) fn list(&mut self, signature: &[u8; 4], body: &[u8]) {
            self.table(MORE, signature, body);
            let both = [FADT, MORE].map(|at| (at as u32).to_le_bytes());
            self.table(LIST, b"RSDT", both.as_flattened());
        }

        pub(super) fn memory(&self) -> impl Memory {
            |address: u64| self.0.get(usize::try_from(address).ok()?).copied()
        }

        pub(super) fn power(&self) -> Option<Power> {
            power(Self::ROOT, &self.memory())
        }
    }

    /// `Package (4) { n, n, 0, 0 }`, n in both notations.
    const ZERO: &[u8] = &[0x12, 6, 4, 0, 0, 0, 0];
    pub(super) const FIVE: &[u8] = &[0x12, 0x48, 0, 4, 0x0a, 5, 0x0a, 5, 0, 0];
    const EVENTS: Power = Power {
        line: 9,
        button: Some(Event { status: 0x600, enable: 0x602 }),
        general: Some(Event { status: 0x620, enable: 0x628 }),
        off: None,
    };

    #[test]
    fn fixed_registers_are_found() {
        for (s5, value) in [(ZERO, 0x2000), (FIVE, 0x3400)] {
            let expected = Power { off: Some(Off::Port(0x604, value)), ..EVENTS };
            assert_eq!(World::new(s5).power(), Some(expected));
        }
    }

    #[test]
    fn a_button_that_is_a_device_is_none_of_ours() {
        let power = World::new(ZERO).flags(BUTTON_IS_DEVICE).power();
        assert_eq!(power, Some(Power { button: None, off: Some(Off::Port(0x604, 0x2000)), ..EVENTS }));
    }

    #[test]
    fn a_machine_without_fixed_registers_has_a_sleep_control() {
        for (space, expected) in
            [(1, Some(Off::OctetPort(0x3c0, 0x34))), (0, Some(Off::Register(0x3c0, 0x34))), (7, None)]
        {
            let mut world = World::new(FIVE);
            world.put(FADT + 244, &[space, 8, 0, 1, 0xc0, 3]);
            let power = world.flags(IS_REDUCED).power();
            assert_eq!(power, Some(Power { off: expected, ..Power::default() }), "space {space}");
        }
    }

    #[test]
    fn tables_by_long_addresses_are_followed() {
        let mut world = World::new(ZERO);
        world.put(ROOT + 15, &[2]);
        world.put(ROOT + 24, &(LIST as u64).to_le_bytes());
        world.seal(ROOT, 20, 8);
        world.table(LIST, b"XSDT", &(FADT as u64).to_le_bytes());
        assert_eq!(world.power().and_then(|power| power.button), EVENTS.button);
    }

    #[test]
    fn whatever_octet_is_wrong_the_search_ends() {
        let whole = World::new(FIVE);
        assert!(whole.power().is_some());
        for at in [ROOT, ROOT + 8, LIST, LIST + 4, LIST + 36, FADT, FADT + 5, FADT + 200] {
            let mut world = World(whole.0.clone());
            world.0[at] ^= 0x55;
            assert_eq!(world.power(), None, "{at:#x}");
        }
        for at in ROOT..whole.0.len() {
            let mut world = World(whole.0.clone());
            world.0[at] = 0xff;
            let _ = world.power();
            world.0.truncate(at);
            let _ = world.power();
        }
        assert_eq!(World::new(&[0x12]).power().and_then(|power| power.off), None);
    }
}
