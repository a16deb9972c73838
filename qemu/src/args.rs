//! The command line of `weir`.

use crate::accel;
use crate::backend::{Backend, ClientBackend, FORMS};
use crate::bench::agent::Agent;
use crate::command::Machine;
use crate::libvirt::{self, Attachment, IMAGE};
use crate::who::Question;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Weir: a small, fast firewall VM.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    args_conflicts_with_subcommands = true,
    long_about = "Weir is a NAT firewall that runs as a VM of its own. This is its launcher: it builds the image from a site \
                  (weir.toml and rules.nft) and boots it under QEMU. Without a command it runs the demo.",
    after_help = "Exit codes: 0 ok, 1 failed, 2 wrong use, 130 interrupted."
)]
pub struct Arguments {
    /// What to do; the demo when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the demo, when no command is given.
    #[command(flatten)]
    pub demo: Demo,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot the image with simulated client VMs and show their traffic being translated; needs no root, changes nothing
    Demo(Demo),
    /// Build the image of a site
    Build(Build),
    /// Check a site without building it: errors, warnings, proofs
    Check(Check),
    /// Print the JSON schema of weir.toml, for editors
    Schema,
    /// Tell whose an external port is, or which ports a host has, from the site alone (`port_blocks`)
    Who(Who),
    /// Run a capture through the image's datapath on this host, and tell what becomes of each packet
    Replay(Replay),
    /// Boot the image for real, its ports connected to this host's networks; the serial line is the terminal
    Run(Run),
    /// Print the XML of the image as a libvirt domain
    LibvirtXml(LibvirtXml),
    /// Measure the image, and a Linux VM in its place; needs root
    Bench(Bench),
    /// A traffic generator of `bench`
    #[command(hide = true)]
    BenchAgent(Agent),
}

/// Which site.
#[derive(Debug, Clone, Args)]
pub struct SiteArgument {
    /// Directory with weir.toml and rules.nft [default: firewall/site]
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
}

/// How QEMU runs.
#[derive(Debug, Clone, Copy, Args)]
pub struct MachineArguments {
    /// Who runs the guest's instructions; auto is KVM where it is usable
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub accel: accel::Choice,
    /// The machine QEMU plays
    #[arg(long, value_enum, default_value_t, value_name = "MACHINE")]
    pub machine: Machine,
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// How QEMU runs.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Run each step once, print a summary, and end: 0 when everything went as it should, else 1
    #[arg(long)]
    pub once: bool,
    /// Copy the appliance's serial line to FILE
    #[arg(long, value_name = "FILE")]
    pub keep_log: Option<PathBuf>,
}

/// Options of `build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// Where to put the image [default: below target/image]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write FILE.elf32, which Xen wants for an HVM guest
    #[arg(long)]
    pub xen_hvm: bool,
    /// Treat warnings as errors
    #[arg(long, value_name = "WHAT")]
    pub deny: Option<Deny>,
}

/// Options of `check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: weir check --packet 'iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 syn'\n\n\
     A packet is an interface, two addresses and tcp or udp with a port (SOURCE > PORT for both), icmp TYPE[/CODE] or proto N;\n\
     then state S, length N, ttl N, tos N or id N where they matter.\n\n\
     json is one document: level, message, file, startLine, startColumn, endColumn and label of each finding, and a summary;\n\
     sarif is a log of SARIF 2.1.0. Lines and columns count characters from 1; what is about a whole file has none.\n\n\
     Exit codes: 0 no errors, 1 errors, or warnings that are denied, 2 wrong use.")]
pub struct Check {
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// Treat warnings as errors
    #[arg(long, value_name = "WHAT")]
    pub deny: Option<Deny>,
    /// Show the way that this packet takes through the chains
    #[arg(long, value_name = "PACKET")]
    pub packet: Option<String>,
    /// Show the chains of each hook, and every rule as it is compiled
    #[arg(long)]
    pub explain: bool,
    /// Text for people, or one document for programs, on standard output
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Check again each time that a file of the site changes, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// How findings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Text with lines and carets.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One SARIF 2.1.0 log.
    Sarif,
}

/// Options of `who`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: weir who 192.0.2.2:40123\n\n\
     A host's address instead, such as 10.0.1.5, shows its ports. Exit code 1 when the site does not tell.")]
pub struct Who {
    /// An external address and port, ADDRESS:PORT, or a host's ADDRESS
    #[arg(value_name = "ADDRESS[:PORT]")]
    pub question: Question,
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
}

/// Options of `replay`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A line has the packet's number, its port, the packet, and what became of it: forwarded, answered, rejected,\n\
     dropped, held or skipped; the lines of the rules that say so, or the reason; what left, and by which port.\n\
     A packet comes from the client behind which its source is, else from the uplink. Time is the capture's, and next\n\
     hops resolve by themselves. Ethernet and raw IP are read; turn segmentation offload off while you capture, since\n\
     packets larger than a link are cut or dropped.\n\n\
     Example: tcpdump -i vnet0 -w vm.pcap; weir replay vm.pcap --port work\n\n\
     Exit codes: 0 read to its end, 1 a bad capture or site, 2 wrong use, 130 interrupted."
)]
pub struct Replay {
    /// A pcap or pcapng file
    #[arg(value_name = "PCAP")]
    pub capture: PathBuf,
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// The port that all packets come from: uplink, or a client's name
    #[arg(long, value_name = "NAME")]
    pub port: Option<String>,
}

/// What `--deny` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// Warnings.
    Warnings,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = format!(
    "BACKEND is one of {FORMS}.\n\
     stream:PATH connects when PATH exists, else it listens there; dgram:LOCAL,REMOTE binds LOCAL.\n\
     user is QEMU's own user-mode network and fits the uplink only.\n\n\
     Example: weir run --uplink tap:tap0 --client work=tap:tap1 --client lab=stream:/run/vm/lab.sock\n\n\
     With --hotplug, and QMP at hand, a NIC comes by netdev_add and device_add (driver virtio-net-pci, bus slot0 to slotN),\n\
     and goes by device_del. It is the client whose MAC it has, or takes a place of [hotplug] in weir.toml."
))]
pub struct Run {
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// How QEMU runs.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Memory of the VM, such as 32M [default: the site's, else 32M]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u32>,
    /// What the uplink port is connected to
    #[arg(long, value_name = "BACKEND")]
    pub uplink: Backend,
    /// What a client's port is connected to; once for each client of weir.toml
    #[arg(long = "client", value_name = "NAME=BACKEND")]
    pub clients: Vec<ClientBackend>,
    /// Slots for NICs that come while it runs; clients that are not connected may come there
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=24))]
    pub hotplug: u8,
    /// Have QEMU listen for its control, QMP, at PATH: by it NICs are added and removed
    #[arg(long, value_name = "PATH")]
    pub qmp: Option<PathBuf>,
    /// Build the image, then print QEMU's command line instead of running it
    #[arg(long)]
    pub print: bool,
}

/// Options of `libvirt-xml`.
#[derive(Debug, Clone, Args)]
#[command(after_help = format!(
    "WHERE is one of {}; a tap for `ethernet` has to exist.\n\n\
     Example: weir build -o {IMAGE}\n\
     \x20        weir libvirt-xml --uplink network:default --client work=bridge:br-work > weir.xml\n\
     \x20        virsh define weir.xml && virsh start weir --console",
    libvirt::FORMS
))]
pub struct LibvirtXml {
    /// Which site.
    #[command(flatten)]
    pub site: SiteArgument,
    /// What the uplink port is connected to
    #[arg(long, value_name = "WHERE")]
    pub uplink: Attachment,
    /// What a client's port is connected to; once for each client of weir.toml
    #[arg(long = "client", value_name = "NAME=WHERE")]
    pub clients: Vec<ClientBackend<Attachment>>,
    /// Name of the domain
    #[arg(long, default_value = "weir", value_name = "NAME")]
    pub name: String,
    /// Absolute path of the image on the host, where libvirt's QEMU may read it
    #[arg(long, default_value = IMAGE, value_name = "FILE")]
    pub image: PathBuf,
    /// Memory of the VM, such as 32M [default: the site's, else 32M]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u32>,
    /// Who runs the guest's instructions; auto is KVM where it is usable on this host
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub accel: accel::Choice,
    /// Root ports kept free, for clients that are attached while the VM runs
    #[arg(long, default_value_t, value_name = "N", value_parser = clap::value_parser!(u8).range(..=32))]
    pub hotplug: u8,
}

/// Options of `bench`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Needs root, for network namespaces and taps. Everything it makes is gone when it ends."
)]
pub struct Bench {
    /// How QEMU runs.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Measure a Linux VM with the same policy as well, and compare
    #[arg(long)]
    pub linux: bool,
    /// The same with Linux at its best: a flowtable, and a kernel with init_on_alloc=0 and mitigations=off
    #[arg(long)]
    pub linux_best: bool,
    /// Measure a wire as well, an image that only forwards frames from one port to the other: the ceiling here
    #[arg(long)]
    pub wire: bool,
    /// Count the guest's instructions; a run that does takes longer, its times mean nothing
    #[arg(long)]
    pub instructions: bool,
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,…")]
    pub only: Vec<What>,
    /// Length of a measurement
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Write the figures to FILE besides
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Bench {
    /// Whether this is to be measured.
    pub fn wants(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Start of QEMU to the first echo reply.
    Boot,
    /// Round trips of echo requests.
    Rtt,
    /// Streams up and down.
    Tcp,
    /// Round trips of echo requests beside streams.
    Load,
    /// Small datagrams.
    Udp,
    /// New connections.
    Conns,
    /// CPU time without traffic.
    Idle,
    /// The smallest memory.
    Memory,
}

/// Memory in MiB: `32M`, `1G`, or a number of MiB.
fn parse_memory(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no size of memory; write 32M or 1G, 20M at least");
    let (number, factor) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, 1),
        None => text.strip_suffix(['G', 'g']).map_or((text, 1), |number| (number, 1024)),
    };
    let size: u32 = number.parse().map_err(|_| wrong())?;
    // The image is linked at 16 MiB and needs some room behind that.
    size.checked_mul(factor).filter(|size| (20..=1 << 20).contains(size)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_is_the_demo_and_takes_its_options() {
        let arguments = parse("weir").unwrap();
        assert!(arguments.command.is_none() && !arguments.demo.once);
        assert!(parse("weir --once --accel tcg").unwrap().demo.once);
        assert!(matches!(parse("weir demo --once").unwrap().command, Some(Command::Demo(demo)) if demo.once));
    }

    #[test]
    fn run_takes_back_ends_in_any_order() {
        let line = "weir run --client lab=stream:/a --uplink user --client work=tap:t1 --memory 48M --machine microvm --print";
        let Some(Command::Run(run)) = parse(line).unwrap().command else { panic!("no run") };
        assert_eq!(
            (run.uplink, run.memory, run.machine.machine, run.print),
            (Backend::User, Some(48), Machine::Microvm, true)
        );
        assert_eq!(
            run.clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>(),
            ["lab", "work"]
        );
    }

    #[test]
    fn who_takes_a_port_or_a_host() {
        let question = |line: &str| match parse(line).unwrap().command {
            Some(Command::Who(who)) => who.question,
            other => panic!("{other:?}"),
        };
        let port = question("weir who 192.0.2.2:40123 --site s");
        assert_eq!(port, Question::Port("192.0.2.2:40123".parse().unwrap()));
        assert_eq!(question("weir who 10.0.1.5"), Question::Host([10, 0, 1, 5].into()));
    }

    #[test]
    fn bench_measures_everything_or_what_it_is_told() {
        let bench = |line: &str| match parse(line).unwrap().command {
            Some(Command::Bench(bench)) => bench,
            other => panic!("{other:?}"),
        };
        let all = bench("weir bench");
        assert!(
            all.wants(What::Boot)
                && all.wants(What::Memory)
                && !all.linux
                && !all.linux_best
                && all.seconds == 10
        );
        let some =
            bench("weir bench --linux --only udp,conns --seconds 3 --json out --accel tcg --machine pc");
        assert!(some.wants(What::Udp) && some.wants(What::Conns) && !some.wants(What::Tcp) && some.linux);
        assert!(!some.linux_best && bench("weir bench --linux-best").linux_best);
        assert_eq!((some.seconds, some.machine.machine), (3, Machine::Pc));
    }

    #[test]
    fn the_traffic_generators_are_not_in_the_help() {
        assert!(matches!(
            parse("weir bench-agent echo 192.0.2.1 10 1000").unwrap().command,
            Some(Command::BenchAgent(_))
        ));
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("bench") && !help.contains("bench-agent"), "{help}");
    }

    #[test]
    fn wrong_use_ends_with_2_and_says_what_is_right() {
        for line in [
            "weir run",
            "weir run --uplink bridge:br0",
            "weir nothing",
            "weir demo --accel xen",
            "weir --once build",
            "weir bench --only everything",
            "weir bench --seconds 0",
            "weir run --uplink user --memory 4M",
            "weir who",
            "weir who 40123",
            "weir replay",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("weir run --uplink bridge:br0").unwrap_err().to_string().contains("vhost-user:PATH"));
    }

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!((parse_memory("32M"), parse_memory("1g"), parse_memory("64")), (Ok(32), Ok(1024), Ok(64)));
        for text in ["", "M", "32K", "-1", "19M", "99999999G", "4294967295M"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }
}
