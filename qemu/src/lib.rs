//! Builds the image, boots it under QEMU and talks to it: the launcher's parts, as a library for the tests.
//!
//! ```no_run
//! use qemu::{accel, command::{Config, Netdev, Port}, image, link::Listener, vm::Vm};
//! use std::{path::Path, time::Duration};
//!
//! # fn main() -> qemu::error::Result<()> {
//! let site = image::Site::open(Path::new("firewall/site"))?;
//! let image = image::build(&site)?;
//! let mut config = Config::new(&image.elf, accel::choose(accel::Choice::Auto)?);
//! let uplink = Listener::new()?;
//! config.ports.push(Port::new(site.plan.uplink.mac, Netdev::Connect(uplink.path().into())));
//! let vm = Vm::start(&config)?;
//! let link = vm.connect(&uplink, Duration::from_secs(5))?;
//! vm.ready(Duration::from_secs(30))?;
//! println!("{} sessions", vm.stats(Duration::from_secs(5))?.sessions);
//! # drop(link);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod accel;
pub mod args;
pub mod backend;
pub mod bench;
pub mod capture;
pub mod check;
pub mod command;
pub mod console;
pub mod demo;
pub mod dns;
pub mod elf;
pub mod error;
pub mod flow;
pub mod host;
pub mod image;
pub mod kernel;
pub mod libvirt;
pub mod link;
pub mod memory;
pub mod netns;
pub mod plan;
pub mod probe;
pub mod qmp;
pub mod ramdisk;
pub mod refusal;
pub mod replay;
pub mod run;
pub mod scratch;
pub mod servers;
pub mod stats;
pub mod table;
pub mod trace;
pub mod vm;
pub mod watch;
pub mod who;
