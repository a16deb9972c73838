//! Buses, bridges and devices out of plain memory.

mod slots;

use std::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::*;
use crate::port::tests::fake::TestHal;

type Net = PciTransport<TestHal>;

/// Octets of the memory BAR behind each fake device.
const BAR_SIZE: usize = 0x4000;

#[derive(Default)]
struct Buses {
    words: BTreeMap<(DeviceFunction, u8), u32>,
}

impl ConfigurationAccess for Buses {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        assert!(function.valid() && register.is_multiple_of(4));
        let absent = if self.words.contains_key(&(function, 0)) { 0 } else { u32::MAX };
        *self.words.get(&(function, register)).unwrap_or(&absent)
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        assert!(function.valid() && register.is_multiple_of(4));
        let before = self.read_word(function, register);
        // Status, behind the command, is cleared by ones.
        let status = match register {
            4 => before & !data & 0xffff_0000,
            // QEMU takes the lower half of a word for ones, too, and clears nothing if one is of an event that was not.
            slots::SLOT if data & !(before >> 16) & 0x1f != 0 => before & 0xffff_0000,
            slots::SLOT => before & !(data & 0x1f << 16) & 0xffff_0000,
            _ => data & 0xffff_0000,
        };
        self.words.insert((function, register), data & 0xffff | status);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self { words: self.words.clone() }
    }
}

fn at(bus: u8, device: u8, function: u8) -> DeviceFunction {
    DeviceFunction { bus, device, function }
}

impl Buses {
    fn set(&mut self, function: DeviceFunction, words: &[(u8, u32)]) {
        for (register, word) in words {
            self.words.insert((function, *register), *word);
        }
    }

    fn bridge(&mut self, function: DeviceFunction, secondary: u8) {
        let numbers = 0x00ff_0000 | u32::from(secondary) << 8 | u32::from(function.bus);
        self.set(function, &[(0, 0x000c_1b36), (0x0c, 1 << 16), (0x18, numbers)]);
    }

    fn command(&self, function: DeviceFunction) -> u32 {
        self.read_word(function, 4)
    }

    /// A device as QEMU builds it: 64-bit BAR 4 for structures, BAR 1 for MSI-X, a port I/O notification first.
    fn net(&mut self, function: DeviceFunction, registers: &Registers) {
        let (bar, table) = (registers.address(0), registers.address(0x3000));
        let vendor = |next: u32, kind: u32| 0x09 | next << 8 | 20 << 16 | kind << 24;
        self.set(
            function,
            &[
                (0x00, 0x1041_1af4),
                (0x04, 0xf910_0400),
                (0x10, 0xc001),
                (0x14, 0),
                (0x18, table as u32 | 4),
                (0x1c, (table >> 32) as u32),
                (0x20, bar as u32 | 0xc),
                (0x24, (bar >> 32) as u32),
                (0x34, 0x98),
                (0x98, 0x11 | 0x84 << 8 | 3 << 16 | MASKED),
                (0x9c, 0x02),
                (0x84, vendor(0x70, 2)),
                (0x88, 0),
                (0x8c, 0),
                (0x90, 4),
                (0x94, 0x55),
                (0x70, vendor(0x60, 2)),
                (0x74, 4),
                (0x78, 0x2000),
                (0x7c, 0x1000),
                (0x80, 4),
                (0x60, vendor(0x50, 4)),
                (0x64, 4),
                (0x68, 0x1000),
                (0x6c, 12),
                (0x50, vendor(0x40, 3)),
                (0x54, 4),
                (0x58, 0x800),
                (0x5c, 1),
                (0x40, vendor(0, 1)),
                (0x44, 4),
                (0x48, 0),
                (0x4c, 0x800),
            ],
        );
    }
}

/// MSI-X control: the whole function masked.
const MASKED: u32 = 1 << 30;

/// Memory in the place of a BAR: registers keep what is written to them.
struct Registers(*mut Bar);

#[repr(align(4096))]
struct Bar(#[allow(dead_code, reason = "reached through pointers")] [u8; BAR_SIZE]);

impl Registers {
    fn new() -> Self {
        Self(Box::into_raw(Box::new(Bar([0; BAR_SIZE]))))
    }

    fn address(&self, offset: usize) -> u64 {
        (self.0.expose_provenance() + offset) as u64
    }

    fn region(&self) -> Region {
        Region { base: NonNull::new(self.0).unwrap().cast(), length: BAR_SIZE }
    }

    fn get<T: FromBytes>(&self, offset: usize) -> T {
        self.region().read(offset).unwrap()
    }

    fn set<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        self.region().write(offset, value);
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: `new` leaked this box; transports of a test end before its registers.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

const MESSAGES: [Message; 2] =
    [Message { address: 0xfee0_0000, data: 0x40 }, Message { address: 0xfee0_0000, data: 0x44 }];

/// Registers of tests are memory of this process.
fn map(address: u64, _length: usize) -> Option<NonNull<u8>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(address as usize))
}

fn device() -> (Registers, Buses) {
    let (registers, mut buses) = (Registers::new(), Buses::default());
    buses.net(at(0, 2, 0), &registers);
    (registers, buses)
}

#[test]
fn devices_are_found_behind_bridges_in_bus_order() {
    let mut buses = Buses::default();
    let registers = Registers::new();
    buses.bridge(at(0, 1, 0), 2);
    buses.set(at(0, 1, 0), &[(0x0c, 0x81 << 16)]);
    buses.bridge(at(0, 1, 3), 1);
    buses.bridge(at(2, 0, 0), 5);
    buses.set(at(0, 5, 0), &[(0, 0x1001_1af4)]);
    for place in [at(5, 31, 0), at(1, 0, 0), at(0, 9, 0), at(0, 4, 0)] {
        buses.net(place, &registers);
    }
    buses.set(at(0, 4, 0), &[(0, 0x1000_1af4)]);
    // Not behind a bridge, and not a function of a device with several: neither is there.
    buses.net(at(7, 0, 0), &registers);
    buses.net(at(0, 9, 1), &registers);
    assert_eq!(discover(&mut buses), [at(0, 4, 0), at(0, 9, 0), at(1, 0, 0), at(5, 31, 0)]);
    for bridge in [at(0, 1, 0), at(0, 1, 3), at(2, 0, 0)] {
        assert_eq!(buses.command(bridge), 0b110);
    }
}

#[test]
fn behind_an_expander_any_bus_may_have_devices() {
    let mut buses = Buses::default();
    for place in [at(0, 1, 0), at(64, 0, 0)] {
        buses.set(place, &[(0, 0x1041_1af4)]);
    }
    assert_eq!(discover(&mut buses), [at(0, 1, 0)]);
    buses.set(at(0, 2, 0), &[(0, 0x000b_1b36)]);
    assert_eq!(discover(&mut buses), [at(0, 1, 0), at(64, 0, 0)]);
}

#[test]
fn bridges_in_a_circle_end_the_scan() {
    let mut buses = Buses::default();
    buses.bridge(at(0, 1, 0), 3);
    buses.bridge(at(3, 0, 0), 0);
    buses.bridge(at(3, 1, 0), 3);
    buses.bridge(at(3, 2, 0), 255);
    buses.bridge(at(255, 2, 0), 255);
    assert_eq!(discover(&mut buses), []);
}

#[test]
fn structures_are_found_in_64_bit_bars_and_port_io_is_passed_over() {
    let (_registers, mut buses) = device();
    // Firecracker places BARs at 256 GiB.
    buses.set(at(0, 2, 0), &[(0x18, 0x0010_0004), (0x1c, 0x40), (0x20, 0x0020_000c), (0x24, 0x41)]);
    let layout = Layout::read(&buses, at(0, 2, 0)).unwrap();
    assert_eq!(layout.common, Structure { address: 0x41_0020_0000, length: 0x800 });
    assert_eq!(layout.notify, Structure { address: 0x41_0020_2000, length: 0x1000 });
    assert_eq!((layout.multiplier, layout.isr.length), (4, 1));
    assert_eq!(layout.msix.unwrap().table, Structure { address: 0x40_0010_0000, length: 64 });
}

#[test]
fn capabilities_in_a_circle_or_beyond_the_space_are_walked_once_at_most() {
    let (_registers, mut buses) = device();
    let place = at(0, 2, 0);
    buses.set(place, &[(0x40, 0x09 | 0x50 << 8 | 20 << 16 | 1 << 24)]);
    assert!(Layout::read(&buses, place).is_ok());
    buses.set(place, &[(0x34, 0xfc), (0xfc, 0x09 | 0xfc << 8 | 20 << 16 | 1 << 24)]);
    assert_eq!(Layout::read(&buses, place), Err(Missing::Common));
    buses.set(place, &[(4, 0)]);
    assert_eq!(Layout::read(&buses, place), Err(Missing::Common));
    assert_eq!(Layout::read(&buses, at(0, 3, 0)), Err(Missing::Device));
}

#[test]
fn bars_that_lead_nowhere_are_missing() {
    let missing = |words: &[(u8, u32)]| {
        let (_registers, mut buses) = device();
        buses.set(at(0, 2, 0), words);
        Layout::read(&buses, at(0, 2, 0)).unwrap_err()
    };
    assert_eq!(missing(&[(0x44, 6)]), Missing::Common);
    assert_eq!(missing(&[(0x44, 0)]), Missing::Common);
    assert_eq!(missing(&[(0x4c, 0)]), Missing::Common);
    assert_eq!(missing(&[(0x20, 0xc), (0x24, 0)]), Missing::Common);
    assert_eq!(missing(&[(0x20, !0xf | 0xc), (0x24, u32::MAX)]), Missing::Common);
    // A 64-bit BAR cannot begin in the last register.
    assert_eq!(missing(&[(0x24, 0x4), (0x44, 5)]), Missing::Common);
    assert_eq!(missing(&[(0x74, 0), (0x54, 4)]), Missing::Notify);
    assert_eq!(missing(&[(0x5c, 0)]), Missing::Isr);
}

#[test]
fn a_common_configuration_that_is_too_short_is_not_read() {
    let (_registers, mut buses) = device();
    buses.set(at(0, 2, 0), &[(0x4c, 55)]);
    assert_eq!(Net::new(&mut buses, at(0, 2, 0), None, map).err(), Some(Missing::Common));
}

#[test]
fn message_interrupts_are_switched_on_with_one_entry_for_queues_and_one_for_the_configuration() {
    let (registers, mut buses) = device();
    let place = at(0, 2, 0);
    registers.set(0x300c, 1u32);
    registers.set(0x301c, 1u32);
    let mut net = Net::new(&mut buses, place, Some(MESSAGES), map).unwrap();
    assert!(net.has_msix());
    assert_eq!(registers.get::<[u32; 4]>(0x3000), [0xfee0_0000, 0, 0x40, 0]);
    assert_eq!(registers.get::<[u32; 4]>(0x3010), [0xfee0_0000, 0, 0x44, 0]);
    assert_eq!(buses.read_word(place, 0x98) >> 16, 0x8003);
    assert_eq!(buses.command(place), 0xf910_0406);
    registers.set(16, [0xffffu16; 6]);
    net.write_driver_features(1 << 32 | 3);
    net.queue_set(1, 256, 0x1_0000_1000, 0x2000, 0x3000);
    assert_eq!((registers.get::<u16>(16), registers.get::<u16>(26)), (1, 0));
    assert_eq!(registers.get::<[u64; 3]>(32), [0x1_0000_1000, 0x2000, 0x3000]);
    assert_eq!((registers.get::<u32>(12), registers.get::<u16>(28)), (1, 1));
    registers.set(0x800, 1u8);
    assert!(net.ack_interrupt().is_empty());
}

#[test]
fn a_device_with_one_entry_has_all_its_interrupts_there() {
    let (registers, mut buses) = device();
    buses.set(at(0, 2, 0), &[(0x98, 0x11 | 0x84 << 8 | MASKED)]);
    let mut net = Net::new(&mut buses, at(0, 2, 0), Some(MESSAGES), map).unwrap();
    registers.set(16, [0xffffu16; 6]);
    net.write_driver_features(0);
    assert_eq!((registers.get::<u16>(16), registers.get::<u32>(0x3008)), (0, 0x44));
}

#[test]
fn registers_out_of_reach_are_no_device_to_use() {
    let (_registers, mut buses) = device();
    assert_eq!(Net::new(&mut buses, at(0, 2, 0), None, |_, _| None).err(), Some(Missing::Unreachable));
}

#[test]
fn a_device_without_message_interrupts_keeps_its_line() {
    let (_registers, mut buses) = device();
    let place = at(0, 2, 0);
    assert!(!Net::new(&mut buses, place, None, map).unwrap().has_msix());
    buses.set(place, &[(0x98, 0x05 | 0x84 << 8)]);
    assert!(!Net::new(&mut buses, place, Some(MESSAGES), map).unwrap().has_msix());
    assert_eq!(buses.command(place) & 1 << 10, 1 << 10);
}

#[test]
fn queues_are_notified_at_their_own_place() {
    let (registers, mut buses) = device();
    let mut net = Net::new(&mut buses, at(0, 2, 0), None, map).unwrap();
    for queue in 0..2u16 {
        registers.set(30, queue + 5);
        net.queue_set(queue, 256, 0, 0, 0);
    }
    registers.set(0x2014, 0xaaaau16);
    net.notify(0);
    net.notify(1);
    net.notify(2);
    assert_eq!((registers.get::<u16>(0x2014), registers.get::<u16>(0x2018)), (0, 1));
    assert!(!net.get_status().contains(DeviceStatus::FAILED));
    registers.set(30, 0x400u16);
    net.queue_set(0, 256, 0, 0, 0);
    net.notify(0);
    assert!(net.get_status().contains(DeviceStatus::FAILED));
    net.set_status(DeviceStatus::empty());
    assert!(net.get_status().is_empty());
}

#[test]
fn registers_are_read_and_written_within_their_structure() {
    let (registers, mut buses) = device();
    let mut net = Net::new(&mut buses, at(0, 2, 0), None, map).unwrap();
    registers.set(0x1000, [2u8, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0x78, 5]);
    assert_eq!(net.read_config_space::<u8>(5), Ok(9));
    assert_eq!(net.read_config_space::<u16>(10), Ok(1400));
    assert_eq!(net.read_config_space::<u16>(12), Err(Error::ConfigSpaceTooSmall));
    assert_eq!(net.read_config_space::<u32>(usize::MAX), Err(Error::ConfigSpaceTooSmall));
    assert_eq!(net.write_config_space(12, 0u8), Err(Error::ConfigSpaceTooSmall));
    assert_eq!(net.write_config_space(11, 6u8), Ok(()));
    registers.set(0x800, 3u8);
    assert!(net.ack_interrupt() == InterruptStatus::all());
    registers.set(24, 1024u16);
    assert_eq!((net.max_queue_size(0), net.queue_used(0)), (1024, false));
    registers.set(20, 0xffu8);
    assert!(crate::features::is_gone(net.get_status()));
    registers.set(4, 0x8000_0001u32);
    assert_eq!(net.read_device_features(), 0x8000_0001_8000_0001);
}
