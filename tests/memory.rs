//! Memory of the image under QEMU: what it wants it says, with that it runs, and under traffic it takes nothing more.

use std::fs;
use std::path::Path;
use std::time::Instant;

use firewall::contract::Contract;
use qemu::accel::Accel;
use qemu::backend::Backend;
use qemu::command::{Config, Machine, Netdev, Port};
use qemu::host::{Host, Identity};
use qemu::image::{self, Site};
use qemu::link::Listener;
use qemu::memory;
use qemu::scratch::Scratch;
use qemu::vm::Vm;
use smoltcp::wire::EthernetAddress;
use tests::image::{SOON, alone, busy, ended, late_allocations, ready, stats};
use tests::udp;
use tests::world::frame;

/// Sessions of the table.
const SESSIONS: u64 = 65_536;
/// What one client of eight opens: about what the floors of the others leave it.
const OPENED: u64 = 30_000;
/// Clients besides the uplink.
const CLIENTS: u8 = 8;
/// The image's status when the machine does not fit the site, as `isa-debug-exit` has it.
const UNFIT: i32 = 41;

/// The figure behind `name=` in a line.
fn figure(line: &str, name: &str) -> u64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
}

/// An image on a machine that is too small for its site says what it has and what it wants.
fn with_too_little_it_says_how_much_it_has_and_wants(elf: &Path) {
    for machine in [Machine::Q35, Machine::Pc, Machine::Microvm] {
        let config = Config { machine, memory: 20, debug_exit: true, ..Config::new(elf, Accel::Tcg) };
        let (status, text) = ended(&config);
        assert_eq!(status.code(), Some(UNFIT), "{text}");
        let line =
            text.lines().find(|line| line.contains("not enough memory")).unwrap_or_else(|| panic!("{text}"));
        let (has, wants) = (figure(line, "has_kib"), figure(line, "wants_kib"));
        assert!((19 << 10..=20 << 10).contains(&has) && (has..=32 << 10).contains(&wants), "{line}");
    }
}

#[test]
fn what_the_launcher_says_is_what_the_image_takes() {
    let _machine = busy();
    let vm = ready(&alone(Machine::Q35));
    let said = vm.expect("machine: memory octets=", SOON).unwrap();
    let wants = vm.expect("machine: memory wants=", SOON).unwrap();
    let taken = figure(&said, "heap") - stats(&vm).memory.heap_free;
    let told = figure(&wants, "heap");
    assert!((taken..taken + (64 << 10)).contains(&told), "told {told}, taken {taken}");
    let site = Site::open(&image::workspace().unwrap().join("tests/site")).unwrap();
    let contract = Contract::of(site.compiled);
    assert_eq!(contract.heap() as u64, told);
}

/// Nine ports and 65 536 sessions in 32 MiB, while traffic fills the table.
#[test]
fn nine_ports_and_65_536_sessions_in_32_mib_take_nothing_after_boot() {
    let _machine = busy();
    let scratch = Scratch::new().unwrap();
    let client = |number: u8| format!("[[client]]\nname = \"c{number}\"\naddress = \"10.0.{number}.1/24\"\n");
    let clients: String = (1..=CLIENTS).map(client).collect();
    let plan = format!(
        "memory = \"32M\"\n[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n{clients}[nat]\nsessions = {SESSIONS}\n"
    );
    fs::write(scratch.join("weir.toml"), plan).unwrap();
    let rules = "table ip t {\n  chain f {\n    type filter hook forward priority filter; policy accept;\n  }\n  \
                 chain p {\n    type nat hook postrouting priority srcnat;\n    oifname \"uplink\" masquerade\n  }\n}\n";
    fs::write(scratch.join("rules.nft"), rules).unwrap();
    let site = Site::open(scratch.path()).unwrap_or_else(|error| panic!("{error}"));
    let image = image::build(&site).unwrap_or_else(|error| panic!("{error}"));
    memory::describe(&site, &image).unwrap_or_else(|error| panic!("{error}"));
    with_too_little_it_says_how_much_it_has_and_wants(&image.elf);

    let (outside, inside) = (Listener::new().unwrap(), Listener::new().unwrap());
    let mac = |number: u8| EthernetAddress([0x52, 0x54, 0, 0x99, 0, number]);
    let mut ports: Vec<Port> =
        (0..=CLIENTS).map(|number| Port::new(mac(number), Netdev::Backend(Backend::User))).collect();
    ports[0].netdev = Netdev::Connect(outside.path().into());
    ports[1].netdev = Netdev::Connect(inside.path().into());
    let config = Config { memory: 32, ports, ..Config::new(&image.elf, Accel::Tcg) };
    let vm = Vm::start(&config).unwrap_or_else(|error| panic!("{error}"));
    let outside = vm.connect(&outside, SOON).unwrap();
    let mut inside = vm.connect(&inside, SOON).unwrap();
    vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
    let before = stats(&vm);
    assert_eq!(before.ports.len(), usize::from(CLIENTS) + 1);

    let _gateway = Host::start(
        Identity {
            name: "gateway".into(),
            mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            gateway: None,
        },
        outside,
    );
    let began = Instant::now();
    let (mut port, mut host) = (1024_u16, 2_u8);
    while stats(&vm).sessions < OPENED {
        assert!(began.elapsed() < 6 * SOON, "{:?}", stats(&vm));
        for _ in 0..4096 {
            let packet = udp((format!("10.0.1.{host}").as_str(), port), ("198.51.100.9", 9), b"x");
            inside.send(&frame(mac(1), EthernetAddress([2, 0, 0, 0, 1, host]), 0x0800, &packet.octets()));
            (port, host) = if port == u16::MAX { (1024, host % 200 + 2) } else { (port + 1, host) };
            while inside.receive().is_some() {}
        }
    }
    let after = stats(&vm);
    assert_eq!(late_allocations(&after), 0);
    assert_eq!(after.memory.heap_free, before.memory.heap_free);
}

#[test]
fn a_site_that_declares_too_little_is_not_built() {
    let scratch = Scratch::new().unwrap();
    let site = image::workspace().unwrap().join("tests/site");
    let plan = fs::read_to_string(site.join("weir.toml")).unwrap();
    fs::copy(site.join("rules.nft"), scratch.join("rules.nft")).unwrap();
    let contract = Contract::of(Site::open(&site).unwrap().compiled);
    let wanted = contract.memory(memory::IMAGE as usize).div_ceil(1 << 20);
    for (declared, is_enough) in [(wanted - 1, false), (wanted, true)] {
        fs::write(scratch.join("weir.toml"), format!("memory = \"{declared}M\"\n{plan}")).unwrap();
        match Site::open(scratch.path()) {
            Ok(_) => assert!(is_enough, "{declared}"),
            Err(error) => {
                let said = error.to_string();
                let expected = format!("the site wants {wanted} MiB, not {declared}: ");
                assert!(!is_enough && said.contains(&expected) && said.contains("weir.toml:1:10"), "{said}");
            }
        }
    }
    let site = Site::open(scratch.path()).unwrap();
    let error = memory::of_vm(&site, u32::try_from(wanted - 1).ok()).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains(&format!("--memory {wanted}M")), "{error}");
}
