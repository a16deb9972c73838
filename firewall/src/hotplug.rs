//! NICs that come and go while the appliance runs.
//!
//! ```text
//! Empty --(present)--> Held(port)     a client, or a place of [hotplug]: it forwards
//!        |       \---> Pending        its place still ends the sessions of who was there before
//!        |       \---> Unplaced       no place for it, until another NIC leaves one
//!        \-----------> Refused        no NIC, or it does not start
//! any   --(asked to go, gone)--> Off --(not present)--> Empty
//! ```
//!
//! What ACPI asks to go is taken away at once, and so its slot is empty: of the next NIC in it nothing else would tell.
//!
//! Ports with slot registers send an interrupt. Of others ACPI tells, and the ports that QEMU has for its tables are
//! asked; once a second if nothing tells.

use alloc::vec::Vec;

use firewall::Datapath;
use firewall::assign::Places;
use firewall::services::console::Mac;
use netback::pci::{SharedBus, Slot};
use netback::{AnyTransport, Link};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use virtio_drivers::transport::pci::bus::DeviceFunction;

use crate::discover::{self, Port};
use crate::machine::{Machine, acpi_slots, apic, pci};

/// How often slots without interrupts are asked.
const POLL: Duration = Duration::from_secs(1);
/// How often while there is something to do anyway: then no interrupt is taken, and a NIC must be let go of in time.
const POLL_BUSY: Duration = Duration::from_millis(50);
/// How soon a NIC is tried again whose place is not free yet.
const RETRY: Duration = Duration::from_millis(20);
/// How long a hypervisor needs at most to take away what was let go of, if it gets the processor meanwhile.
const SETTLE: Duration = Duration::from_secs(1);
/// How often it gets the processor then.
const REST: Duration = Duration::from_millis(5);
/// Slots of a shared bus.
const SHARED: usize = 32;
/// Those of all shared buses that are watched at most, from when something has come there.
const LATER: usize = 4 * SHARED;

/// What is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Empty,
    Held(usize),
    /// Its place is kept for it.
    Pending(usize),
    Unplaced(EthernetAddress),
    Refused,
    Off,
}

struct Watched {
    slot: Slot,
    content: Content,
    /// The bus number of ACPI's ports, once it is known.
    acpi_bus: Option<u32>,
}

/// The slots of the machine, and the places for what comes.
pub struct Hotplug {
    access: Option<pci::Ports>,
    /// Of shared buses only those where something was once: there is room for some more.
    slots: Vec<Watched>,
    shared: Vec<SharedBus>,
    places: Places,
    /// All slots send interrupts.
    is_notified: bool,
    polled: Instant,
    is_pending: bool,
    /// When the hypervisor has taken away what was let go of last.
    settled: Instant,
    rested: Instant,
}

impl Hotplug {
    /// Watches the slots; `held` has where each NIC is that is there already, and its port, or no port if it was
    /// refused.
    pub fn new(
        machine: &Machine,
        places: Places,
        shared: Vec<SharedBus>,
        held: &[(DeviceFunction, EthernetAddress, Option<usize>)],
    ) -> Self {
        // Of shared buses nothing else tells.
        let is_notified = shared.is_empty() || machine.power.hears_slots();
        let mut this = Self {
            access: machine.pci,
            slots: Vec::new(),
            shared,
            places,
            is_notified,
            polled: Instant::ZERO,
            is_pending: false,
            settled: Instant::ZERO,
            rested: Instant::ZERO,
        };
        let Some(access) = &mut this.access else { return this };
        // Ports keep their registers for show when ACPI has the slots.
        let mut slots = Slot::all(access, !acpi_slots::are_there());
        slots.extend(Slot::on_root(access, acpi_slots::root_devices(), machine.low_memory_end));
        for (place, ..) in held.iter().filter(|(place, ..)| place.function == 0) {
            slots.extend(on_shared(&this.shared, place.bus).map(|bus| bus.slot(place.device)));
        }
        let later = LATER.min(SHARED * this.shared.len());
        this.slots.reserve_exact(slots.len() + later);
        for slot in slots {
            // What was before is known by now.
            slot.take_events(access);
            let is_notified = slot.notify(access, discover::message(apic::Reason::Change), discover::map);
            this.is_notified &= is_notified || machine.power.hears_slots();
            let content = match held.iter().find(|(place, ..)| *place == slot.function()) {
                Some(&(_, _, Some(port))) => Content::Held(port),
                Some(&(_, nic, None)) => Content::Unplaced(nic),
                None if slot.is_answering(access) => Content::Refused,
                None => Content::Empty,
            };
            let acpi_bus = (slot.function().bus == 0).then_some(0);
            this.slots.push(Watched { slot, content, acpi_bus });
        }
        this
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        let on_shared = |watched: &&Watched| on_shared(&self.shared, watched.slot.function().bus).is_some();
        self.slots.len() - self.slots.iter().filter(on_shared).count() + SHARED * self.shared.len()
    }

    /// When [`poll`](Self::poll) is wanted without an interrupt.
    pub fn next_poll(&self) -> Option<Instant> {
        let wanted = match (self.is_pending, self.is_notified) {
            (true, _) => RETRY,
            (false, false) => POLL,
            (false, true) => return None,
        };
        self.watches().then(|| self.polled + wanted)
    }

    /// Whether the processor is to rest for an instant though there is work: a device was let go of a moment ago.
    pub fn wants_rest(&mut self, now: Instant) -> bool {
        let wants = now < self.settled && now - self.rested >= REST;
        if wants {
            self.rested = now;
        }
        wants
    }

    /// Looks at the slots if it is time to, or if one has sent an interrupt.
    pub fn poll(&mut self, datapath: &mut Datapath<Port>, now: Instant, is_called: bool) {
        let wait = if self.is_pending { RETRY } else { POLL_BUSY };
        if !self.watches() || !is_called && now - self.polled < wait {
            return;
        }
        self.polled = now;
        self.is_pending = false;
        let Some(mut access) = self.access else { return };
        if !self.shared.is_empty() || self.slots.iter().any(|watched| !watched.slot.is_native()) {
            self.obey_acpi(&mut access, datapath);
        }
        for index in 0..self.slots.len() {
            self.look(index, &mut access, datapath);
        }
    }

    /// Whether anything can come or go.
    fn watches(&self) -> bool {
        !self.slots.is_empty() || !self.shared.is_empty()
    }

    /// What ACPI's ports say: devices that are to go are let go of.
    fn obey_acpi(&mut self, access: &mut pci::Ports, datapath: &mut Datapath<Port>) {
        let shared = &self.shared;
        let is_bus = |watched: &&Watched| {
            let Watched { slot, .. } = watched;
            !slot.is_native() && slot.function().bus != 0 && on_shared(shared, slot.function().bus).is_none()
        };
        let buses = (self.slots.iter().filter(is_bus).count() + shared.len()) as u32 + 2;
        let mut came = None;
        for bus in 0..buses {
            let Some(seen) = acpi_slots::look(bus) else { return };
            if seen.up != 0 {
                // With several at once nobody knows which is which.
                came = if came.is_none() { Some(bus) } else { Some(u32::MAX) };
            }
            for device in (0..32).filter(|device| seen.up & 1 << device != 0) {
                self.watch_shared(device, access);
            }
            for device in (0..32).filter(|device| seen.down & 1 << device != 0) {
                let meant = self.meant(bus, device);
                if let Some(index) = meant {
                    self.let_go(index, access, datapath);
                }
                acpi_slots::eject(bus, device);
                match meant {
                    Some(index) => self.set(index, Content::Empty),
                    None => self.find_missing(access, datapath),
                }
            }
        }
        let fresh = |watched: &&mut Watched| {
            !watched.slot.is_native()
                && watched.content == Content::Empty
                && watched.slot.is_answering(access)
        };
        let mut fresh = self.slots.iter_mut().filter(fresh);
        if let (Some(bus), Some(only), None) = (came, fresh.next(), fresh.next())
            && bus < buses
        {
            only.acpi_bus = Some(bus);
        }
    }

    /// A device of this number has come to some bus: if it is a NIC on a shared one, its slot is watched from now on.
    fn watch_shared(&mut self, device: u8, access: &pci::Ports) {
        let Self { slots, shared, .. } = self;
        for slot in shared.iter().map(|bus| bus.slot(device)) {
            let is_watched = slots.iter().any(|watched| watched.slot.function() == slot.function());
            if is_watched || !slot.has_nic(access) {
                continue;
            }
            if slots.len() == slots.capacity() {
                log::warn!(target: "port", "not watched slot={}: too many others were used", slot.function());
                return;
            }
            slots.push(Watched { slot, content: Content::Empty, acpi_bus: None });
        }
    }

    /// The slot that a device of a bus of ACPI's ports stands for, if that is known, or as good as: otherwise the device
    /// is ejected at once, and found missing. Of shared buses nothing is guessed: others than NICs are there, too.
    fn meant(&self, bus: u32, device: u8) -> Option<usize> {
        let is_left = |watched: &Watched| {
            let is_held = !matches!(watched.content, Content::Empty | Content::Off);
            is_held && !watched.slot.is_native() && watched.slot.function().device == device
        };
        let known = self.slots.iter().position(|watched| watched.acpi_bus == Some(bus) && is_left(watched));
        let is_unknown = |watched: &Watched| {
            let is_shared = on_shared(&self.shared, watched.slot.function().bus).is_some();
            watched.acpi_bus.is_none() && !is_shared && is_left(watched)
        };
        let mut unknown = self.slots.iter().enumerate().filter(|(_, watched)| is_unknown(watched));
        match (known, unknown.next(), unknown.next()) {
            (None, Some((only, _)), None) => Some(only),
            _ => known,
        }
    }

    /// Lets go of a device that was ejected, whose slot was not known.
    fn find_missing(&mut self, access: &mut pci::Ports, datapath: &mut Datapath<Port>) {
        for index in 0..self.slots.len() {
            let is_missing = |watched: &&Watched| {
                let is_left = !matches!(watched.content, Content::Empty | Content::Off);
                is_left && !watched.slot.is_native() && !watched.slot.is_answering(access)
            };
            if self.slots.get(index).as_ref().is_some_and(is_missing) {
                self.let_go(index, access, datapath);
                self.set(index, Content::Empty);
            }
        }
    }

    /// Looks at one slot.
    fn look(&mut self, index: usize, access: &mut pci::Ports, datapath: &mut Datapath<Port>) {
        let Some(&Watched { slot, content, .. }) = self.slots.get(index) else { return };
        let events = slot.take_events(access);
        // Without registers nothing tells of another device in the place of one that was switched on but that it is off.
        let is_other = !slot.is_native() && matches!(content, Content::Held(_)) && !slot.is_enabled(access);
        let is_new = events.is_present && (events.presence_changed || is_other);
        let content = match content {
            Content::Empty if events.is_present => self.attach(slot, access, datapath),
            Content::Off | Content::Refused | Content::Unplaced(_) if is_new => {
                // Who was there waits for no place any more.
                self.set(index, Content::Empty);
                self.attach(slot, access, datapath)
            }
            Content::Pending(port) if is_new => {
                self.free(port);
                self.attach(slot, access, datapath)
            }
            Content::Empty => Content::Empty,
            Content::Refused | Content::Unplaced(_) | Content::Off if !events.is_present => Content::Empty,
            // Something has come beside it.
            Content::Held(_) if is_new && slot.is_enabled(access) => content,
            // Somebody took it out and put another one in.
            Content::Held(port) if is_new => {
                self.detach(port, slot, access, datapath);
                self.attach(slot, access, datapath)
            }
            Content::Held(_) | Content::Pending(_) | Content::Refused | Content::Unplaced(_)
                if events.attention || !events.is_present =>
            {
                return self.let_go(index, access, datapath);
            }
            // To look whether its place can be had costs nothing; the device is touched when it can.
            Content::Pending(port) if !restore(port, datapath) => content,
            Content::Pending(port) => self.attach_at(port, slot, access, datapath),
            // Torn out: its port has not heard of it.
            Content::Held(_) if !slot.is_answering(access) => return self.let_go(index, access, datapath),
            kept => kept,
        };
        self.set(index, content);
    }

    fn set(&mut self, index: usize, content: Content) {
        self.is_pending |= matches!(content, Content::Pending(_));
        if let Some(watched) = self.slots.get_mut(index) {
            watched.content = content;
        }
    }

    /// The device in a slot is to go, or has gone: nothing of it is kept, and the slot is switched off.
    fn let_go(&mut self, index: usize, access: &mut pci::Ports, datapath: &mut Datapath<Port>) {
        let Some(&Watched { slot, content, .. }) = self.slots.get(index) else { return };
        match content {
            Content::Held(port) => self.detach(port, slot, access, datapath),
            Content::Pending(port) => self.free(port),
            _ => {}
        }
        slot.power_off(access);
        self.settled = self.polled + SETTLE;
        self.set(index, Content::Off);
    }

    /// Takes the device of a port away: the port is out of the path before the device is reset.
    fn detach(&mut self, port: usize, slot: Slot, access: &mut pci::Ports, datapath: &mut Datapath<Port>) {
        match port {
            firewall::route::UPLINK => datapath.lose_uplink(),
            _ => drop(datapath.remove_client(port)),
        }
        if let Some(link) = datapath.link_mut(port) {
            link.unplug(AnyTransport::NOTHING);
        }
        slot.silence(access);
        self.free(port);
        let name = datapath.ports().get(port).map_or("", |port| port.name);
        log::info!(target: "port", "gone name={name} slot={}", slot.function());
    }

    /// A place is free: the first NIC that it suits is to have it.
    fn free(&mut self, port: usize) {
        self.places.leave(port);
        let Self { slots, places, is_pending, .. } = self;
        let next = slots.iter_mut().find_map(|watched| match watched.content {
            Content::Unplaced(nic) => Some((places.find(nic).ok()?, nic, watched)),
            _ => None,
        });
        if let Some((port, nic, watched)) = next {
            places.take(port, nic);
            (watched.content, *is_pending) = (Content::Pending(port), true);
        }
    }

    /// Gives the device in a slot its place.
    fn attach(&mut self, slot: Slot, access: &mut pci::Ports, datapath: &mut Datapath<Port>) -> Content {
        slot.power_on(access);
        let transport = match self.transport(slot, access) {
            Ok(transport) => transport,
            Err(content) => return content,
        };
        let nic = discover::mac(&transport);
        let port = match self.places.find(nic) {
            Ok(port) => port,
            Err(reason) => {
                log::warn!(target: "port", "refused mac={} slot={}: {reason}", Mac(nic), slot.function());
                slot.silence(access);
                return Content::Unplaced(nic);
            }
        };
        self.places.take(port, nic);
        if !restore(port, datapath) {
            slot.silence(access);
            return Content::Pending(port);
        }
        self.start(port, transport, slot, access, datapath)
    }

    /// Gives a device the place that was kept for it, and that nobody is at any more.
    fn attach_at(
        &mut self,
        port: usize,
        slot: Slot,
        access: &mut pci::Ports,
        datapath: &mut Datapath<Port>,
    ) -> Content {
        match self.transport(slot, access) {
            Ok(transport) => self.start(port, transport, slot, access, datapath),
            Err(content) => {
                datapath.remove_client(port);
                self.free(port);
                content
            }
        }
    }

    /// The device in a slot, with addresses; else what the slot has.
    fn transport(&self, slot: Slot, access: &mut pci::Ports) -> Result<discover::Device, Content> {
        if !slot.is_answering(access) {
            return Err(Content::Empty);
        }
        if !slot.configure(access) {
            log::error!(target: "pci", "device={}: no room for its registers; not used", slot.function());
            return Err(Content::Refused);
        }
        discover::transport(access, slot.function()).ok_or(Content::Refused)
    }

    /// Starts a device at its port.
    fn start(
        &mut self,
        port: usize,
        transport: discover::Device,
        slot: Slot,
        access: &mut pci::Ports,
        datapath: &mut Datapath<Port>,
    ) -> Content {
        let nic = discover::mac(&transport);
        let name = datapath.ports().get(port).map_or("", |port| port.name);
        let Some(link) = datapath.link_mut(port) else { return Content::Refused };
        if let Err(reason) = link.plug(transport, AnyTransport::NOTHING) {
            log::error!(target: "port", "not started name={name} mac={}: {reason}", Mac(nic));
            slot.silence(access);
            datapath.remove_client(port);
            self.free(port);
            return Content::Refused;
        }
        datapath.refresh(port);
        let mtu = datapath.ports().get(port).map_or(0, |port| port.link.mtu());
        log::info!(target: "port", "came name={name} mac={} mtu={mtu} slot={}", Mac(nic), slot.function());
        Content::Held(port)
    }
}

/// Whether a port can have a device again; one that is no client's always can.
fn restore(port: usize, datapath: &mut Datapath<Port>) -> bool {
    port == firewall::route::UPLINK || datapath.restore_client(port)
}

/// The shared bus of a number, if it is one.
fn on_shared(shared: &[SharedBus], bus: u8) -> Option<&SharedBus> {
    shared.iter().find(|shared| shared.number() == bus)
}
