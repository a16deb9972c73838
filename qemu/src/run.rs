//! `weir build` and `weir run`.

use crate::accel;
use crate::args;
use crate::backend::{Backend, ClientBackend};
use crate::command::{Config, Machine, Netdev, Port};
use crate::error::{Context, Error, Result};
use crate::image::{self, Image, Site};
use crate::memory;
use crate::plan::Plan;
use crate::qmp;
use crate::vm;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the end of QEMU and an interrupt are looked for.
const TICK: Duration = Duration::from_millis(20);

/// `weir build`: the image of a site, with its size and what it promises.
///
/// # Errors
/// The site has errors, or the image cannot be built or written.
pub fn build(arguments: &args::Build) -> Result<()> {
    let site = open(arguments.site.site.as_deref(), arguments.deny)?;
    let image = image::build(&site)?;
    let output = arguments.output.clone().unwrap_or_else(|| image.elf.clone());
    if output != image.elf {
        image::install(&image, &output)?;
    }
    let memory = memory::describe(&site, &image)?;
    println!("{}", describe(&site, &image, &output, &memory));
    if arguments.xen_hvm {
        let mut copy = output.into_os_string();
        copy.push(".elf32");
        let copy = PathBuf::from(copy);
        image::write_elf32(&image.elf, &copy)?;
        println!("elf32   {}", copy.display());
    }
    Ok(())
}

fn describe(site: &Site, image: &Image, output: &Path, memory: &str) -> String {
    let clients: Vec<&str> = site.plan.clients.iter().map(|client| client.name.as_str()).collect();
    format!(
        "image   {} ({} octets)\nmemory  {memory}\nports   uplink, {}\npolicy  {}\nsymbols {}",
        output.display(),
        image.octets,
        clients.join(", "),
        site.summary,
        image.symbols.display()
    )
}

/// Opens a site and shows its warnings.
fn open(directory: Option<&Path>, deny: Option<args::Deny>) -> Result<Site> {
    let site = Site::open_or_default(directory, deny == Some(args::Deny::Warnings))?;
    eprint!("{}", site.warnings);
    Ok(site)
}

/// `weir run`: the image with real networks, on this terminal.
///
/// # Errors
/// Anything that keeps it from running; or QEMU ended with a failure.
pub fn run(arguments: &args::Run, interrupted: &AtomicBool) -> Result<()> {
    let site = Site::open_or_default(arguments.site.site.as_deref(), false)?;
    if arguments.hotplug > 0 && arguments.machine.machine != Machine::Q35 {
        return Err(Error::usage("--hotplug needs the slots of PCI Express")
            .advise("leave out --machine, or say q35"));
    }
    let given: Vec<&str> = arguments.clients.iter().map(|given| given.name.as_str()).collect();
    let plan = site.plan.to_connect(&given, arguments.hotplug > 0);
    let ports = ports(&plan, &arguments.uplink, &arguments.clients)?;
    let memory = memory::of_vm(&site, arguments.memory)?;
    if !arguments.print {
        vm::find_qemu()?;
        ports.iter().try_for_each(|port| exists(&port.netdev))?;
    }
    eprint!("{}", site.warnings);
    let image = image::build(&site)?;
    let mut config = Config::new(&image.elf, accel::choose(arguments.machine.accel)?);
    config.machine = arguments.machine.machine;
    config.memory = memory;
    config.ports = ports;
    config.slots = arguments.hotplug;
    if let Some(path) = &arguments.qmp {
        config.extra.extend(qmp::arguments(path));
    }
    if arguments.print {
        println!("{}", vm::command_line(&config));
        return Ok(());
    }
    // QEMU shares our terminal and our process group: an interrupt typed there reaches it as well.
    let mut child = Command::new(vm::program())
        .args(config.arguments())
        .spawn()
        .context(|| "cannot run QEMU".to_owned())?;
    let status = wait(&mut child, interrupted)?;
    if status.success() || interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Error::new(format!("QEMU ended with a failure ({status})"))
        .advise("it said why, above; `weir run --print` shows its command line"))
}

/// Waits for QEMU, and asks it to end when we are told to. It is asked and not killed: it has to restore the terminal.
fn wait(child: &mut Child, interrupted: &AtomicBool) -> Result<ExitStatus> {
    let mut asked_at = None;
    loop {
        if let Some(status) = child.try_wait().context(|| "cannot wait for QEMU".to_owned())? {
            return Ok(status);
        }
        if interrupted.load(Ordering::Relaxed) {
            let since = *asked_at.get_or_insert_with(|| {
                ask_to_end(child);
                Instant::now()
            });
            if since.elapsed() > PATIENCE {
                // Fails only when it is gone already.
                let _ = child.kill();
            }
        }
        thread::sleep(TICK);
    }
}

fn ask_to_end(child: &Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        // Fails only when it is gone already.
        let _ = signal::kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}

/// One port for the uplink and each client of the site, in the site's order.
fn ports(plan: &Plan, uplink: &Backend, clients: &[ClientBackend]) -> Result<Vec<Port>> {
    let uplink_netdev = match uplink {
        Backend::User => Netdev::User(plan.user_network()?),
        other => Netdev::Backend(other.clone()),
    };
    let mut ports = vec![Port::new(plan.uplink.mac, uplink_netdev)];
    for (client, backend) in plan.clients.iter().zip(in_order(plan, clients)?) {
        if *backend == Backend::User {
            return Err(Error::usage(format!("client {:?} cannot be connected to `user`", client.name))
                .advise("the user-mode network is an outside; it fits --uplink only"));
        }
        ports.push(Port::new(client.mac, Netdev::Backend(backend.clone())));
    }
    Ok(ports)
}

/// What each client of the site is connected to, in the site's order.
///
/// # Errors
/// A client is not connected, or twice; or one that is has no place in the site.
pub(crate) fn in_order<'a, B>(plan: &Plan, given: &'a [ClientBackend<B>]) -> Result<Vec<&'a B>> {
    let names = || plan.clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) =
        given.iter().find(|given| plan.clients.iter().all(|client| client.name != given.name))
    {
        return Err(Error::usage(format!("the site has no client {:?}", unknown.name))
            .advise(format!("its clients are: {}", names())));
    }
    let of_client = |name: &str| {
        let mut found = given.iter().filter(|given| given.name == name);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(&one.backend),
            (None, _) => Err(Error::usage(format!("client {name:?} is not connected"))
                .advise(format!("add --client {name}=BACKEND"))),
            (Some(_), Some(_)) => Err(Error::usage(format!("client {name:?} is connected twice"))
                .advise("give --client once for each client")),
        }
    };
    plan.clients.iter().map(|client| of_client(&client.name)).collect()
}

/// Whether what a port is connected to is there, as far as it can be told without QEMU.
fn exists(netdev: &Netdev) -> Result<()> {
    match netdev {
        Netdev::Backend(Backend::Tap(name)) => {
            let interface = Path::new("/sys/class/net").join(name);
            if interface.join("tun_flags").exists() {
                return Ok(());
            }
            let what = if interface.exists() { "is no tap interface" } else { "does not exist" };
            Err(Error::new(format!("{name} {what}")).advise(format!(
                "make it with: sudo ip tuntap add {name} mode tap user $USER && sudo ip link set {name} up"
            )))
        }
        Netdev::Backend(Backend::VhostUser(path)) if !path.exists() => {
            Err(Error::new(format!("there is no vhost-user socket at {}", path.display()))
                .advise("start the switch first"))
        }
        Netdev::Backend(Backend::Stream(path) | Backend::Dgram { local: path, .. }) => {
            let directory =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if directory.is_dir() {
                Ok(())
            } else {
                Err(Error::new(format!("{} is no directory", directory.display())).advise("make it first"))
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Client, Uplink};
    use smoltcp::wire::EthernetAddress;

    fn plan() -> Plan {
        let client = |name: &str, number: u8| Client {
            name: name.into(),
            gateway: [10, 0, number, 1].into(),
            host: [10, 0, number, 2].into(),
            length: 24,
            mac: EthernetAddress([2, 0, 0, 0, 0, number]),
            is_hotplug: false,
        };
        let uplink = Uplink {
            address: "192.0.2.2/24".parse().unwrap(),
            gateway: None,
            extra: vec![],
            mac: EthernetAddress([2, 0, 0, 0, 0, 0]),
        };
        Plan { memory: None, uplink, clients: vec![client("work", 1), client("lab", 2)] }
    }

    fn clients(list: &[&str]) -> Vec<ClientBackend> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ports_come_in_the_order_of_the_site() {
        let ports = ports(&plan(), &Backend::User, &clients(&["lab=tap:t2", "work=tap:t1"])).unwrap();
        assert_eq!(ports.iter().map(|port| port.mac.0[5]).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(matches!(ports[0].netdev, Netdev::User(_)));
        assert_eq!(ports[1].netdev, Netdev::Backend(Backend::Tap("t1".into())));
    }

    #[test]
    fn every_client_is_connected_exactly_once_and_to_no_outside() {
        let cases = [
            (vec!["work=tap:a"], "--client lab=BACKEND"),
            (vec!["work=tap:a", "lab=tap:b", "wrok=tap:c"], "work, lab"),
            (vec!["work=tap:a", "lab=tap:b", "lab=tap:c"], "twice"),
            (vec!["work=user", "lab=tap:b"], "--uplink"),
        ];
        for (given, says) in cases {
            let error = ports(&plan(), &Backend::User, &clients(&given)).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn with_slots_a_client_may_come_later_and_a_place_of_hotplug_always_does() {
        let mut plan = plan();
        plan.clients[1].is_hotplug = true;
        let names = |plan: Plan| plan.clients.iter().map(|client| client.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(plan.to_connect(&[], false)), ["work"]);
        assert_eq!(names(plan.to_connect(&["lab"], false)), ["work", "lab"]);
        assert_eq!(names(plan.to_connect(&["lab"], true)), ["lab"]);
    }

    #[test]
    fn what_is_missing_on_the_host_is_said_with_the_command_that_makes_it() {
        let error = exists(&Netdev::Backend(Backend::Tap("weir-none".into()))).unwrap_err().to_string();
        assert!(error.contains("ip tuntap add weir-none"), "{error}");
        assert!(
            exists(&Netdev::Backend(Backend::Tap("lo".into()))).unwrap_err().to_string().contains("no tap")
        );
        assert!(exists(&Netdev::Backend(Backend::VhostUser("/nonexistent/s".into()))).is_err());
        assert!(exists(&Netdev::Backend(Backend::Stream("/nonexistent/s".into()))).is_err());
        assert!(exists(&Netdev::Backend(Backend::Stream("/tmp/s".into()))).is_ok());
    }
}
