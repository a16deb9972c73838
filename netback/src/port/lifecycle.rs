//! How a port starts, what becomes of it when its device misbehaves, how it ends.
//!
//! ```text
//! Running -> Failed -> (reset) -> Running      at the next turn
//!                         |  \-> Waiting       reset not confirmed or start refused: again at the next tick
//!                         \----> Retired       device gone, or too many failures
//! ```
//!
//! Memory that a device may still reach is kept until it confirms a reset.

use alloc::boxed::Box;
use core::fmt;

use smoltcp::wire::EthernetAddress;
use virtio_drivers::{
    Hal,
    transport::{DeviceStatus, DeviceType, Transport},
};

use super::{
    RING, Rings, Violation,
    link::{Port, Standing},
};
use crate::{
    ETHERNET_HEADER, Statistics,
    features::{self, Features, Reset},
    frame::FRAME_MAX,
    pool::{OutOfMemory, Pool},
};

/// Failures until a port is given up; one is forgiven for each calm minute.
const STRIKES: u8 = 8;

/// Ticks, about seconds, without failure until one is forgiven.
const CALM: u8 = 60;

/// What a site may say about a port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Its name in the log.
    pub name: &'static str,
    /// Our hardware address in the place of the device's.
    pub mac: Option<EthernetAddress>,
    /// Largest IP packet, in octets; the device's own limit still holds.
    pub mtu: Option<u16>,
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
    /// No memory for rings and heads.
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
            Self::Legacy => "device is legacy only (no VERSION_1)",
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

type Started<H> = (Box<Rings<H>>, Features);
type Unstarted<H> = (StartError, Option<Box<Rings<H>>>);

/// Starts a device that was reset, with empty rings (virtio 1.2, 3.1.1). If it does not start, its rings come back,
/// unless it may still reach them.
fn start<H: Hal, T: Transport>(transport: &mut T, rings: Box<Rings<H>>) -> Result<Started<H>, Unstarted<H>> {
    let prepared = features::negotiate(transport).and_then(|features| {
        rings.announce(transport)?;
        Ok(features)
    });
    let features = match prepared {
        Ok(features) => features,
        Err(reason) => return Err((reason, Some(rings))),
    };
    transport.set_status(RUNNING);
    if transport.get_status() == RUNNING {
        return Ok((rings, features));
    }
    if features::reset(transport) == Reset::Stuck {
        // Better to lose them.
        core::mem::forget(rings);
        return Err((StartError::NotStarted, None));
    }
    Err((StartError::NotStarted, Some(rings)))
}

impl<H: Hal, T: Transport> Port<H, T> {
    /// Starts the device behind `transport`, with buffers from `pool` in its receive ring.
    ///
    /// It takes 16 KiB for rings, 128 KiB for heads and 50 KiB of heap; no more while it runs.
    pub fn new(mut transport: T, pool: Pool, settings: Settings) -> Result<Self, StartError> {
        if transport.device_type() != DeviceType::Network {
            return Err(StartError::NotNetwork);
        }
        match features::reset(&mut transport) {
            Reset::Done => {}
            Reset::Gone => return Err(StartError::Gone),
            Reset::Stuck => return Err(StartError::Stuck),
        }
        let (rings, features) = start::<H, T>(&mut transport, Rings::new()?).map_err(|(reason, _)| reason)?;
        let mac = settings.mac.or_else(|| features::mac(&transport, features));
        let limit = (FRAME_MAX - ETHERNET_HEADER) as u16;
        let mtu = features::mtu(&transport, features).unwrap_or(1500).min(limit);
        let mut port = Self {
            up: features::is_up(&transport, features),
            transport,
            pool,
            name: settings.name,
            mac: mac.unwrap_or_default(),
            mtu: settings.mtu.map_or(mtu, |wanted| wanted.min(mtu)),
            features,
            standing: Standing::Running,
            running: Some(rings),
            stopped: None,
            strikes: 0,
            calm: 0,
            logged: 0,
            statistics: Statistics::default(),
        };
        // From here on `drop` resets the device.
        mac.ok_or(StartError::NoMac)?;
        port.fill();
        Ok(port)
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
        self.begin();
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
        let rings = self.lose().map_or_else(Rings::new, Ok).map_err(|reason| (reason.into(), None));
        match rings.and_then(|rings| start(&mut self.transport, rings)) {
            Ok((rings, features)) => {
                self.statistics.restarts += 1;
                self.features = features;
                self.up = features::is_up(&self.transport, features);
                self.running = Some(rings);
                Standing::Running
            }
            Err((reason, rings)) => {
                self.stopped = rings;
                log::warn!(target: "port", "not started again name={} reason={reason}", self.name);
                Standing::Waiting
            }
        }
    }

    fn retire(&mut self, reason: &str) -> Standing {
        drop(self.lose());
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
            Standing::Retired | Standing::Failed => {}
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
        let up = features::is_up(&self.transport, self.features);
        if up != self.up {
            self.up = up;
            log::info!(target: "port", "carrier name={} up={up}", self.name);
        }
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.strikes = self.strikes.saturating_sub(1);
        }
    }
}

impl<H: Hal, T: Transport> Drop for Port<H, T> {
    fn drop(&mut self) {
        if features::reset(&mut self.transport) == Reset::Stuck {
            // The device may still write: its rings and buffers are lost rather than given to somebody else.
            core::mem::forget((self.running.take(), self.stopped.take()));
        }
    }
}
