//! How a port starts, what becomes of it when its device misbehaves, how it ends.
//!
//! ```text
//! Running -> Failed -> (reset) -> Running      at the next turn
//!                         |  \-> Waiting       reset not confirmed or start refused: again at the next tick
//!                         \----> Retired       device gone, or too many failures
//! any -> (unplug) -> Absent -> (plug) -> Running
//! ```
//!
//! Memory that a device may still reach is kept until it confirms a reset.

use alloc::boxed::Box;
use core::fmt;

use smoltcp::{
    time::{Duration, Instant},
    wire::EthernetAddress,
};
use virtio_drivers::{
    Hal,
    transport::{DeviceStatus, DeviceType, Transport},
};

use super::{
    RING, Rings, Violation,
    link::{Port, Standing},
};
use crate::{
    Statistics,
    features::{self, Features, Reset},
    frame::FRAME_MAX,
    pool::{OutOfMemory, Pool},
};

/// Failures until a port is given up; one is forgiven for each calm minute.
const STRIKES: u8 = 8;

/// Ticks, about seconds, without failure until one is forgiven.
const CALM: u8 = 60;

/// How often the log is told of carrier that comes and goes, after the first few times.
const CARRIER_PACE: Duration = Duration::from_secs(1);
const CARRIER_BURST: u32 = 8;

/// The largest IP packet of a port, in octets: its frame lies in one buffer.
pub const MTU_MAX: u16 = (FRAME_MAX - crate::ETHERNET_HEADER) as u16;
/// That of a port of which nobody says anything: Ethernet's (RFC 894).
const MTU_DEFAULT: u16 = 1500;

/// What a site may say about a port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Its name in the log.
    pub name: &'static str,
    /// Our hardware address in the place of the device's.
    pub mac: Option<EthernetAddress>,
    /// Largest IP packet, in octets; the device's own limit still holds.
    pub mtu: Option<u16>,
    /// Ports whose frames may leave here, for a fair share of each; 0 stands for the most there are.
    pub inputs: u8,
}

/// Why a port did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The device is not a network device.
    NotNetwork,
    /// The device did not reset.
    Stuck,
    /// The device is not there any more.
    Gone,
    /// The device does not offer VERSION_1.
    Legacy,
    /// The device did not accept what it offered.
    FeaturesRefused,
    /// The device has room for so many descriptors only.
    RingTooShort(u32),
    /// The device says that its ring is set up, right after a reset.
    RingInUse,
    /// No memory for rings.
    OutOfMemory,
    /// Neither the site nor the device gives a usable hardware address.
    NoMac,
    /// The device was not running after it was told to, or did not take its interrupt vectors.
    NotStarted,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNetwork => "not a network device",
            Self::Stuck => "device does not reset",
            Self::Gone => "device is gone",
            Self::Legacy => "device is of before virtio 1.0 (QEMU: virtio-mmio.force-legacy=false)",
            Self::FeaturesRefused => "device refused its own features",
            Self::RingTooShort(offered) => {
                return write!(f, "ring has {offered} descriptors, {RING} are needed");
            }
            Self::RingInUse => "ring is in use",
            Self::OutOfMemory => "out of memory",
            Self::NoMac => "no hardware address",
            Self::NotStarted => "device did not start",
        })
    }
}

impl core::error::Error for StartError {}

const RUNNING: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);

impl From<OutOfMemory> for StartError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// A device that was not started.
struct NotStarted {
    reason: StartError,
    /// It may still reach the rings.
    keeps_rings: bool,
}

impl From<StartError> for NotStarted {
    fn from(reason: StartError) -> Self {
        Self { reason, keeps_rings: false }
    }
}

/// Starts a device that was reset, with empty rings (virtio 1.2, 3.1.1).
fn start<H: Hal, T: Transport>(transport: &mut T, rings: &mut Rings<H>) -> Result<Features, NotStarted> {
    let features = features::negotiate(transport)?;
    rings.announce(transport, features)?;
    transport.set_status(RUNNING);
    if transport.get_status() == RUNNING {
        return Ok(features);
    }
    let keeps_rings = features::reset(transport) == Reset::Stuck;
    Err(NotStarted { reason: StartError::NotStarted, keeps_rings })
}

impl<H: Hal, T: Transport> Port<H, T> {
    /// Starts the device behind `transport`, with buffers from `pool` in its receive ring.
    ///
    /// It takes 20 KiB for rings, 128 KiB for heads and 110 KiB of heap; no more while it runs, whatever is plugged in.
    pub fn new(transport: T, pool: Pool, settings: Settings) -> Result<Self, StartError> {
        let mut port = Self::absent(transport, pool, settings)?;
        port.open().map(|()| port)
    }

    /// A port without a device; `nothing` stands in its place.
    ///
    /// # Errors
    /// There is no memory for its rings.
    pub fn absent(nothing: T, pool: Pool, settings: Settings) -> Result<Self, StartError> {
        Ok(Self {
            up: false,
            transport: nothing,
            pool: pool.clone(),
            name: settings.name,
            settings,
            mac: settings.mac.unwrap_or_default(),
            mtu: settings.mtu.unwrap_or(MTU_DEFAULT).min(MTU_MAX),
            features: Features::default(),
            standing: Standing::Absent,
            running: None,
            stopped: Some(Rings::new(pool, settings.inputs)?),
            strikes: 0,
            calm: 0,
            has_changed: false,
            told: Instant::ZERO,
            untold: 0,
            is_to_announce: false,
            logged: 0,
            statistics: Statistics::default(),
        })
    }

    /// Gives a device to a port that has none, and starts it.
    ///
    /// # Errors
    /// It did not start: the port is without a device again.
    pub fn plug(&mut self, transport: T, nothing: T) -> Result<(), StartError> {
        self.transport = transport;
        (self.strikes, self.calm, self.logged) = (0, 0, 0);
        (self.told, self.untold) = (Instant::ZERO, 0);
        self.open().inspect_err(|_| self.unplug(nothing))
    }

    /// Takes the device away, which is reset if it is still there: frames that it had, received or to be sent, are
    /// gone and their buffers free, those of other ports too. `nothing` stands in its place.
    ///
    /// Ends in bounded time; memory that a device does not let go of is lost, and the port has no device any more.
    pub fn unplug(&mut self, nothing: T) {
        self.stopped = self.running.take().or(self.stopped.take());
        if features::reset(&mut self.transport) == Reset::Stuck {
            log::error!(target: "port", "device does not reset: its memory is lost name={}", self.name);
            core::mem::forget(self.stopped.take());
        }
        self.stopped = self.lose();
        self.transport = nothing;
        self.standing = Standing::Absent;
        self.up = false;
    }

    /// Resets and starts the device.
    fn open(&mut self) -> Result<(), StartError> {
        if self.transport.device_type() != DeviceType::Network {
            return Err(StartError::NotNetwork);
        }
        match features::reset(&mut self.transport) {
            Reset::Done => {}
            Reset::Gone => return Err(StartError::Gone),
            Reset::Stuck => return Err(StartError::Stuck),
        }
        let rings = self.lose().ok_or(StartError::OutOfMemory)?;
        self.standing = Standing::Waiting;
        let features = self.run_with(rings)?;
        let own = features::mac(&self.transport, features);
        self.mac = self.settings.mac.or(own).ok_or(StartError::NoMac)?;
        // The smaller one, if both say something.
        let said = [self.settings.mtu, features::mtu(&self.transport, features)];
        let mtu = said.into_iter().flatten().min().unwrap_or(MTU_DEFAULT);
        if mtu > MTU_MAX {
            log::warn!(target: "port", "larger packets than fit are lost name={} mtu={mtu} fits={MTU_MAX}", self.name);
        }
        self.mtu = mtu.min(MTU_MAX);
        self.features = features;
        self.up = features::link(&self.transport, features).is_up;
        self.standing = Standing::Running;
        self.fill();
        Ok(())
    }

    /// Reads and clears the cause of an interrupt; `true` if it was this port's.
    ///
    /// `sleep` does so for a port with a line of its own. Ports that share one are to be asked in turn until none has
    /// a cause: otherwise the line may stay up, and no further interrupt comes.
    pub fn acknowledge(&mut self) -> bool {
        self.running.is_some() && !self.transport.ack_interrupt().is_empty()
    }

    /// The transport, to ask how its interrupts arrive.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Gives the first buffers to the device.
    fn fill(&mut self) {
        use crate::Link;
        if let Some(rings) = &mut self.running {
            rings.receiver.refill();
        }
        self.finish();
    }

    /// Stops a port whose device lied, until the next turn resets it.
    #[cold]
    pub(super) fn fail(&mut self, violation: Violation) {
        self.statistics.device_errors += 1;
        self.stopped = self.running.take().or(self.stopped.take());
        self.standing = Standing::Failed;
        self.up = false;
        let bit = 1 << violation as u8;
        if self.logged & bit == 0 {
            self.logged |= bit;
            log::error!(target: "port", "device broke the protocol name={} violation={violation:?}", self.name);
        }
    }

    /// Resets a failed device, takes all buffers back, and starts it again.
    #[cold]
    pub(super) fn recover(&mut self) {
        self.standing = match features::reset(&mut self.transport) {
            Reset::Stuck => Standing::Waiting,
            Reset::Gone => self.retire("gone"),
            Reset::Done if self.strikes >= STRIKES => self.retire("unreliable"),
            Reset::Done => self.restart(),
        };
        if self.standing == Standing::Running {
            self.fill();
        }
    }

    fn restart(&mut self) -> Standing {
        self.strikes += 1;
        self.calm = 0;
        let Some(rings) = self.lose() else { return self.retire("without memory") };
        match self.run_with(rings) {
            Ok(features) => {
                self.statistics.restarts += 1;
                self.features = features;
                self.up = features::link(&self.transport, features).is_up;
                Standing::Running
            }
            Err(reason) => {
                log::warn!(target: "port", "not started again name={} reason={reason}", self.name);
                Standing::Waiting
            }
        }
    }

    /// Starts the device with these rings, which are kept for another time if it does not start. Those that it may
    /// still reach are lost: better than given to somebody else.
    fn run_with(&mut self, mut rings: Box<Rings<H>>) -> Result<Features, StartError> {
        match start(&mut self.transport, &mut rings) {
            Ok(features) => {
                self.running = Some(rings);
                Ok(features)
            }
            Err(NotStarted { reason, keeps_rings: true }) => {
                core::mem::forget(rings);
                Err(reason)
            }
            Err(NotStarted { reason, .. }) => {
                self.stopped = Some(rings);
                Err(reason)
            }
        }
    }

    fn retire(&mut self, reason: &str) -> Standing {
        self.stopped = self.lose();
        log::error!(target: "port", "given up name={} reason={reason}", self.name);
        Standing::Retired
    }

    /// Drops what the device can no longer reach; frames that waited there are lost. The rings are empty then.
    fn lose(&mut self) -> Option<Box<Rings<H>>> {
        let mut rings = self.stopped.take()?;
        self.statistics.tx_down += rings.sender.backlog.len() as u64;
        rings.clear();
        Some(rings)
    }

    /// Looks at carrier and at the device's health, once a second or so.
    pub(super) fn inspect(&mut self) {
        match self.standing {
            Standing::Retired | Standing::Failed | Standing::Absent => {}
            Standing::Waiting => self.standing = Standing::Failed,
            Standing::Running => self.inspect_running(),
        }
    }

    fn inspect_running(&mut self) {
        let status = self.transport.get_status();
        if features::is_gone(status) {
            return self.fail(Violation::Gone);
        }
        if status != RUNNING {
            return self.fail(Violation::State);
        }
        let link = features::link(&self.transport, self.features);
        if link.is_to_announce
            && let Some(rings) = &mut self.running
        {
            self.is_to_announce = true;
            rings.control.hear(&mut self.transport);
        }
        self.hear_carrier(link.is_up);
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.strikes = self.strikes.saturating_sub(1);
        }
    }

    /// Takes carrier as it is. Of changes that come too fast the log is told later, together.
    fn hear_carrier(&mut self, up: bool) {
        self.untold += u32::from(up != self.up);
        self.up = up;
        let now = self.running.as_ref().map_or(Instant::ZERO, |rings| rings.sender.now);
        let told = self.told.max(now) + CARRIER_PACE;
        if self.untold > 0 && told <= now + CARRIER_PACE * CARRIER_BURST {
            log::info!(target: "port", "carrier name={} up={up} changes={}", self.name, self.untold);
            (self.told, self.untold) = (told, 0);
        }
    }
}

impl<H: Hal, T: Transport> Drop for Port<H, T> {
    fn drop(&mut self) {
        // A port without a device has rings that no device was told of.
        if features::reset(&mut self.transport) == Reset::Stuck && self.standing != Standing::Absent {
            // The device may still write: its rings and buffers are lost rather than given to somebody else.
            core::mem::forget((self.running.take(), self.stopped.take()));
        }
    }
}
