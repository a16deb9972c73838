//! Slots, and addresses for what comes into them.

use super::*;

/// A root port with a slot at 0:3.0, its windows, and behind it bus 7.
fn slot(buses: &mut Buses, capabilities: u32) -> DeviceFunction {
    let port = at(0, 3, 0);
    buses.bridge(port, 7);
    buses.set(
        port,
        &[
            (0x04, 0x0010_0000),
            (0x20, 0xfeb0_fea0),
            (0x24, 0x0011_0001),
            (0x28, 0x41),
            (0x2c, 0x41),
            (0x34, 0x54),
            // Root port, with a slot.
            (0x54, 0x0142_0010),
            (0x68, capabilities),
            (SLOT, 0),
        ],
    );
    port
}

const CAPABLE: u32 = 0x7b;
/// Slot Control and Slot Status.
pub(super) const SLOT: u8 = 0x6c;

#[test]
fn slots_are_found_behind_root_ports_and_native_where_they_may_be() {
    let (_registers, mut buses) = device();
    slot(&mut buses, CAPABLE);
    let found = Slot::all(&mut buses, true);
    assert_eq!((found.len(), found[0].is_native(), found[0].function()), (1, true, at(7, 0, 0)));
    assert!(!Slot::all(&mut buses, false)[0].is_native());
    // Neither without hot-plug, nor a bridge without a slot.
    buses.set(at(0, 3, 0), &[(0x68, 0)]);
    assert!(!Slot::all(&mut buses, true)[0].is_native());
    buses.set(at(0, 3, 0), &[(0x54, 0x0042_0010)]);
    assert!(Slot::all(&mut buses, true).is_empty());
}

#[test]
fn events_of_a_slot_are_taken_once_and_no_others_are_cleared() {
    let (_registers, mut buses) = device();
    let port = slot(&mut buses, CAPABLE);
    let slot = Slot::all(&mut buses, true)[0];
    for (status, attention, presence_changed) in
        [(0x49, true, true), (0x48, false, true), (0x41, true, false), (0x50, false, false)]
    {
        for control in [0x100, 0x129, 0x729] {
            buses.set(port, &[(SLOT, status << 16 | control)]);
            let events = slot.take_events(&mut buses);
            assert_eq!(events, Events { attention, presence_changed, is_present: true });
            assert_eq!(buses.read_word(port, SLOT), 0x0040_0000 | control, "{status:#x} {control:#x}");
            assert_eq!(slot.take_events(&mut buses), Events { is_present: true, ..Events::default() });
        }
    }
    buses.set(port, &[(SLOT, 0x0040_0029)]);
    slot.power_off(&mut buses);
    assert_eq!(buses.read_word(port, SLOT), 0x0040_0729);
    slot.power_on(&mut buses);
    assert_eq!(buses.read_word(port, SLOT), 0x0040_0129);
    buses.words.remove(&(port, 0));
    buses.words.remove(&(port, SLOT));
    assert_eq!(slot.take_events(&mut buses), Events::default(), "a port that is gone has no events");
}

/// A device that answers sizing: BARs keep the bits that their size leaves.
struct Sized(Buses);

impl ConfigurationAccess for Sized {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        self.0.read_word(function, register)
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        // Those of the devices that come.
        let bus = if function.device == 5 { 7 } else { function.bus };
        let data = match (bus, register) {
            (7, 0x10) => data & !0x1f | 1,
            (7, 0x14) => data & !0xfff,
            (7, 0x20) => data & !0x3fff | 0xc,
            (7, 0x18 | 0x1c) => 0,
            _ => data,
        };
        self.0.write_word(function, register, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(Buses { words: self.0.words.clone() })
    }
}

#[test]
fn a_device_that_came_gets_addresses_in_the_windows_of_its_port() {
    let (_registers, mut buses) = device();
    slot(&mut buses, CAPABLE);
    let place = at(7, 0, 0);
    buses.set(place, &[(0, 0x1041_1af4), (4, 0x0010_0006)]);
    let slot = Slot::all(&mut buses, true)[0];
    let mut buses = Sized(buses);
    assert!(slot.is_answering(&buses) && slot.configure(&mut buses) && !slot.is_enabled(&buses));
    let bars = [0x10, 0x14, 0x20, 0x24].map(|register| buses.read_word(place, register));
    // Port I/O has none; MSI-X lies in the memory window, the structures in the prefetchable one above 4 GiB.
    assert_eq!(bars, [1, 0xfea0_0000, 0x0000_000c, 0x41]);
    assert_eq!(buses.0.command(place) & 6, 0, "decoding is off meanwhile");
    discover::enable(&mut buses, place);
    assert!(slot.is_enabled(&buses));
    slot.silence(&mut buses);
    assert!(!slot.is_enabled(&buses));
    // A window without room.
    buses.0.set(at(0, 3, 0), &[(0x20, 0x0000_fff0)]);
    assert!(!slot.configure(&mut buses));
}

#[test]
fn a_device_that_came_to_the_root_bus_has_a_mebibyte_below_all_others() {
    let mut buses = Buses::default();
    buses.set(at(0, 2, 0), &[(0, 1), (0x10, 0xfebf_1000), (0x14, 0xc001), (0x20, 0x0000_000c), (0x24, 0x80)]);
    buses.bridge(at(0, 3, 0), 1);
    buses.set(at(0, 3, 0), &[(0x20, 0xfea0_fe50), (0x24, 0x0001_fff1)]);
    let slots = Slot::on_root(&buses, 0x2c, 0xe000_0000);
    let places: Vec<_> = slots.iter().map(Slot::function).collect();
    assert_eq!(places, [at(0, 2, 0), at(0, 5, 0)], "the bridge is no slot");
    assert!(slots.iter().all(|slot| !slot.is_native()));
    buses.set(at(0, 5, 0), &[(0, 0x1000_1af4)]);
    let mut buses = Sized(buses);
    assert!(slots[1].configure(&mut buses));
    let bars = [0x10, 0x14, 0x20, 0x24].map(|register| buses.read_word(at(0, 5, 0), register));
    // 32 MiB below the window of the bridge, and five on.
    assert_eq!(bars, [1, 0xfc50_0000 + (5 << 20), 0xfc50_400c + (5 << 20), 0]);
    assert!(Slot::on_root(&buses, 0x2c, 0xfd00_0000).is_empty(), "memory is there");
}

#[test]
fn devices_that_firmware_left_without_addresses_have_them_below_the_interrupt_controller() {
    let mut buses = Buses::default();
    buses.set(at(0, 5, 0), &[(0, 0x1000_1af4), (0x10, 1), (0x20, 0x0000_000c)]);
    assert!(lacks_addresses(&buses, at(0, 5, 0)));
    let slots = Slot::on_root(&buses, 1 << 5, 0xc000_0000);
    let mut buses = Sized(buses);
    assert!(slots[0].configure(&mut buses));
    assert_eq!(buses.read_word(at(0, 5, 0), 0x14), 0xfcc0_0000 + (5 << 20));
    assert!(!lacks_addresses(&buses, at(0, 5, 0)));
}

/// A bridge of old PCI at 0:3.0 with bus 7, where devices 1 and 2 have their registers at the begin of both windows.
fn shared() -> Buses {
    let mut buses = Buses::default();
    buses.bridge(at(0, 3, 0), 7);
    buses.set(at(0, 3, 0), &[(0x20, 0xfea0_fea0), (0x24, 0x0001_0001), (0x28, 0x41), (0x2c, 0x41)]);
    for (device, place) in [(1, 0), (2, 1)] {
        let bars = [
            (0x10, 0xc001),
            (0x14, 0xfea0_0000 + place * 0x1000),
            (0x20, 0xc + place * 0x4000),
            (0x24, 0x41),
        ];
        buses.set(at(7, device, 0), &[(0, 0x1041_1af4), (4, 0x0010_0007)]);
        buses.set(at(7, device, 0), &bars);
    }
    buses
}

#[test]
fn devices_that_come_to_a_shared_bus_have_places_of_their_own_behind_those_that_are_there() {
    let mut buses = Sized(shared());
    let found = SharedBus::all(&mut buses);
    assert_eq!(found.iter().map(SharedBus::number).collect::<Vec<_>>(), [7]);
    for device in [1, 2] {
        let before = shared();
        for register in [0x04, 0x10, 0x14, 0x20, 0x24] {
            let [is, was] = [&buses.0, &before].map(|it| it.read_word(at(7, device, 0), register));
            assert_eq!(is, was, "{device} {register:#x} is as it was");
        }
    }
    let mut taken = Vec::new();
    for device in 0..32 {
        let (slot, place) = (found[0].slot(device), at(7, device, 0));
        assert_eq!((slot.function(), slot.is_native()), (place, false));
        buses.0.set(place, &[(0, 0x1041_1af4), (4, 0x0010_0000), (0x10, 0), (0x14, 0), (0x20, 0), (0x24, 0)]);
        assert!(slot.has_nic(&buses) && slot.configure(&mut buses), "{device}");
        let [registers, low, high] = [0x14, 0x20, 0x24].map(|register| buses.read_word(place, register));
        assert!((0xfea0_2000..=0xfeaf_f000).contains(&registers) && high == 0x41, "{registers:#x}");
        assert!((0x8000..=0xf_c000).contains(&(low & !0xf)), "{low:#x}");
        taken.push((registers, low));
    }
    taken.sort();
    taken.dedup_by(|a, b| a.0 == b.0 || a.1 == b.1);
    assert_eq!(taken.len(), 32, "no two share a place");
}

#[test]
fn a_bus_is_not_shared_behind_a_port_of_pci_express_and_one_without_room_takes_nobody() {
    let (_registers, mut buses) = device();
    slot(&mut buses, CAPABLE);
    assert!(SharedBus::all(&mut buses).is_empty());
    // A bridge from PCI Express to PCI is no port.
    buses.set(at(0, 3, 0), &[(0x54, 0x0072_0010)]);
    assert_eq!(SharedBus::all(&mut buses).len(), 1);
    let mut buses = shared();
    buses.set(at(0, 3, 0), &[(0x20, 0x0000_fff0), (0x24, 0x0000_fff0)]);
    let mut buses = Sized(buses);
    let slot = SharedBus::all(&mut buses)[0].slot(5);
    buses.0.set(at(7, 5, 0), &[(0, 0x1041_1af4), (4, 0x0010_0000)]);
    assert!(!slot.configure(&mut buses));
}
