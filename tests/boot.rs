//! The image boots under QEMU, says what is wrong when it cannot, and ends as it is told. No root.

use std::thread;
use std::time::{Duration, Instant};

use qemu::command::{Config, Machine, mac_text};
use qemu::qmp::{Qmp, Socket};
use qemu::vm::Vm;
use serde_json::json;
use tests::Chance;
use tests::image::{self, SOON, alone, bare, busy, ended, late_allocations, macs, quiet, ready, stats};

/// The exit statuses of `isa-debug-exit`: twice the image's number plus one.
const POWERED_OFF: i32 = 33;
const PANICKED: i32 = 35;
const FAULTED: i32 = 37;
const RESTARTED: i32 = 39;
const UNFIT: i32 = 41;

fn without_debug_exit(config: Config) -> Config {
    Config { debug_exit: false, ..config }
}

/// Boots, asks for the end, and gives QEMU's status.
fn power_off(config: &Config) -> Option<i32> {
    let vm = ready(config);
    vm.power_off(SOON).unwrap_or_else(|error| panic!("{error}")).code()
}

fn say(vm: &Vm, text: &str) {
    vm.send(text).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn q35_boots_and_powers_off() {
    let _machine = busy();
    assert_eq!(power_off(&without_debug_exit(alone(Machine::Q35))), Some(0));
}

#[test]
fn pc_boots_and_powers_off() {
    let _machine = busy();
    assert_eq!(power_off(&without_debug_exit(alone(Machine::Pc))), Some(0));
}

#[test]
fn microvm_boots_and_ends_by_reset() {
    let _machine = busy();
    assert_eq!(power_off(&without_debug_exit(alone(Machine::Microvm))), Some(0));
}

/// How QEMU says that the machine ended, after `end`.
fn cause_of_end(mut config: Config, end: impl FnOnce(&Vm, &mut Qmp)) -> (String, Vm) {
    let socket = Socket::new().expect("a directory");
    config.extra.extend(socket.arguments());
    // So that it is there to be asked, however soon the image ends.
    config.extra.push("-S".into());
    let vm = Vm::start(&without_debug_exit(config)).unwrap_or_else(|error| panic!("{error}"));
    let mut qmp = socket.connect(SOON).unwrap_or_else(|error| panic!("{error}"));
    qmp.execute("cont", json!({})).unwrap_or_else(|error| panic!("{error}"));
    end(&vm, &mut qmp);
    let event =
        qmp.event("SHUTDOWN", "", SOON).unwrap_or_else(|error| panic!("{error}\n{}", vm.console().text()));
    vm.wait(SOON).unwrap_or_else(|error| panic!("{error}"));
    (event["data"]["reason"].as_str().expect("a reason").to_owned(), vm)
}

#[test]
fn the_power_button_ends_the_machine_with_its_last_figures() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Pc] {
        let (cause, vm) = cause_of_end(alone(machine), |vm, qmp| {
            vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
            qmp.execute("system_powerdown", json!({})).unwrap_or_else(|error| panic!("{error}"));
        });
        assert_eq!(cause, "guest-shutdown");
        let text = vm.console().text();
        let (_, last) = text.split_once("weir: powers off wish=\"power button\"").expect("it says why");
        assert!(last.contains("{\"uptime_ms\":") && last.contains("\"name\":\"uplink\""), "{text}");
    }
}

#[test]
fn a_machine_without_pci_switches_off_by_the_register_of_its_tables() {
    let _machine = busy();
    let mut config = alone(Machine::Microvm);
    config.extra = ["-machine", "acpi=on"].map(str::to_owned).into();
    let (cause, vm) = cause_of_end(config, |vm, _| {
        vm.ready(SOON).unwrap_or_else(|error| panic!("{error}"));
        say(vm, "poweroff");
    });
    assert_eq!(cause, "guest-shutdown", "{}", vm.console().text());
}

#[test]
fn debug_exit_tells_a_power_off() {
    let _machine = busy();
    for config in [alone(Machine::Q35), alone(Machine::Pc), alone(Machine::Microvm)] {
        assert_eq!(power_off(&config), Some(POWERED_OFF), "{:?}", config.arguments());
    }
}

#[test]
fn debug_exit_tells_a_restart() {
    let _machine = busy();
    let vm = ready(&alone(Machine::Q35));
    say(&vm, "reboot");
    assert_eq!(vm.wait(SOON).unwrap().code(), Some(RESTARTED));
}

#[test]
fn a_restarted_machine_forwards_again() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Microvm] {
        let config = Config { ends_on_reset: false, ..without_debug_exit(alone(machine)) };
        let vm = ready(&config);
        vm.ask("reboot", SOON, |line| line.contains(" weir: ready"))
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(stats(&vm).ready);
    }
}

#[test]
fn a_panic_says_where_and_ends_with_35() {
    let _machine = busy();
    let (status, text) = crash("panic");
    assert_eq!(status, Some(PANICKED), "{text}");
    assert!(text.contains("error panic: asked for by the command line at=firewall/src/machine/"), "{text}");
    assert!(text.contains("error backtrace: 0 0x"), "{text}");
}

#[test]
fn an_exception_shows_registers_and_ends_with_37() {
    let _machine = busy();
    let (status, text) = crash("exception");
    assert_eq!(status, Some(FAULTED), "{text}");
    assert!(text.contains("error exception: invalid opcode vector=6 error=0x0 rip=0x"), "{text}");
    for register in ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r15"] {
        assert!(text.contains(&format!(" {register}=0x")), "{register} in {text}");
    }
    assert!(text.contains("error backtrace: 0 0x"), "{text}");
}

#[test]
fn a_stack_that_ends_is_reported_from_another_and_ends_with_37() {
    let _machine = busy();
    let (status, text) = crash("stack");
    assert_eq!(status, Some(FAULTED), "{text}");
    let report = text.lines().find(|line| line.starts_with("error exception: ")).unwrap_or(&text);
    assert!(report.contains("page fault") || report.contains("double fault"), "{text}");
    // One function called itself: the same return address again and again.
    let frames: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("error backtrace: ")?.split_once(' '))
        .map(|(_, address)| address)
        .collect();
    assert!(frames.len() >= 8 && frames[2..8].iter().all(|address| *address == frames[2]), "{text}");
}

/// Status and console of an image that was told to fail in this way.
fn crash(how: &str) -> (Option<i32>, String) {
    let (status, text) = ended(&Config { append: vec![format!("crash={how}")], ..alone(Machine::Q35) });
    (status.code(), text)
}

#[test]
fn a_missing_nic_is_named_by_its_mac() {
    let _machine = busy();
    let mut config = alone(Machine::Q35);
    config.ports.remove(0);
    let (status, text) = ended(&config);
    assert_eq!(status.code(), Some(UNFIT), "{text}");
    let mac = mac_text(macs()[0]);
    let said = text.lines().find(|line| line.contains("port=uplink")).unwrap_or_else(|| panic!("{text}"));
    assert!(said.contains(&mac) && said.starts_with("error "), "{said}");
}

#[test]
fn devices_of_before_virtio_1_are_told_what_they_lack() {
    let _machine = busy();
    let mut pci = alone(Machine::Q35);
    pci.ports.iter_mut().for_each(|port| port.properties.push("disable-modern=on".into()));
    let mut mmio = alone(Machine::Microvm);
    mmio.extra = ["-global", "virtio-mmio.force-legacy=true"].map(str::to_owned).into();
    for (config, wanted) in [(pci, "disable-modern=off"), (mmio, "force-legacy=false")] {
        let (status, text) = ended(&config);
        assert_eq!(status.code(), Some(UNFIT), "{text}");
        assert!(text.contains(wanted) && text.contains("cannot start"), "{text}");
    }
}

#[test]
fn a_processor_of_32_bits_is_told_so() {
    let _machine = busy();
    let mut config = alone(Machine::Q35);
    config.extra = ["-cpu", "qemu32"].map(str::to_owned).into();
    let (_, text) = ended(&config);
    assert_eq!(text.trim(), "error weir: the processor has no 64-bit mode");
}

#[test]
fn a_client_without_a_nic_waits_and_the_others_are_served() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Microvm] {
        let mut config = alone(machine);
        config.ports.pop();
        let vm = ready(&config);
        let text = vm.console().text();
        assert!(text.contains("name=lab waits for a NIC") && !text.contains("name=work waits"), "{text}");
        let stats = stats(&vm);
        let up = |name| stats.port(name).map(|port| port.up);
        assert_eq!((up("uplink"), up("work"), up("lab")), (Some(true), Some(true), Some(false)));
    }
}

#[test]
fn a_client_whose_nic_does_not_start_is_named_and_the_others_are_served() {
    let _machine = busy();
    let mut config = alone(Machine::Q35);
    // The last port takes any NIC; a group is no station.
    config.ports[2].mac.0[0] |= 1;
    let vm = ready(&config);
    assert!(vm.console().text().contains("not started name=lab"), "{}", vm.console().text());
    let stats = stats(&vm);
    let is_up = |name| stats.port(name).is_some_and(|port| port.up);
    assert_eq!(["uplink", "work", "lab"].map(is_up), [true, true, false]);
}

#[test]
fn a_machine_without_nics_says_so() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Microvm] {
        let (status, text) = ended(&bare(machine));
        assert_eq!(status.code(), Some(UNFIT), "{text}");
        assert!(text.contains("no virtio-net device"), "{text}");
    }
}

#[test]
fn twenty_mebibytes_are_enough() {
    let _machine = busy();
    for config in [alone(Machine::Q35), alone(Machine::Pc), alone(Machine::Microvm)] {
        let vm = ready(&Config { memory: 20, ..config });
        let stats = stats(&vm);
        assert!(stats.memory.total <= 20 << 20, "{stats:?}");
        assert_eq!(late_allocations(&stats), 0);
    }
}

#[test]
fn two_gibibytes_and_more_are_no_trouble() {
    let _machine = busy();
    // Above the hole below 4 GiB, on a machine that has one at 2 GiB.
    let vm = ready(&Config { memory: 3072, ..alone(Machine::Q35) });
    assert!(stats(&vm).memory.total > 3000 << 20);
}

#[test]
fn the_rate_of_the_counter_can_be_given() {
    let _machine = busy();
    let vm = ready(&alone(Machine::Q35));
    let measured: u64 = figure(&vm, "tsc_khz=").parse().unwrap();
    let pace = pace(&vm);
    assert!((0.9..1.1).contains(&pace), "the clock runs {pace} times as fast as ours");
    drop(vm);
    let told = measured * 4;
    let vm = ready(&Config { append: vec![format!("tsc_khz={told}")], ..alone(Machine::Q35) });
    assert_eq!(figure(&vm, "tsc_khz="), told.to_string());
    assert_eq!(figure(&vm, "source="), "command-line");
    let pace = self::pace(&vm);
    assert!((0.2..0.3).contains(&pace), "the clock runs {pace} times as fast as ours");
}

#[test]
fn microvm_measures_its_clock() {
    let _machine = busy();
    let vm = ready(&alone(Machine::Microvm));
    let pace = pace(&vm);
    assert!((0.9..1.1).contains(&pace), "the clock runs {pace} times as fast as ours");
}

/// The value behind `name` in the line about the clock.
fn figure(vm: &Vm, name: &str) -> String {
    let line = vm.expect("machine: clock ", SOON).unwrap();
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
    value.unwrap_or_else(|| panic!("{name} in {line}")).to_owned()
}

/// How fast the appliance's clock runs, in terms of ours.
fn pace(vm: &Vm) -> f64 {
    let (began, first) = (Instant::now(), stats(vm).uptime_ms);
    thread::sleep(Duration::from_secs(1));
    let passed = stats(vm).uptime_ms - first;
    passed as f64 / began.elapsed().as_millis() as f64
}

#[test]
fn stats_name_every_port_and_rule_and_no_late_allocation() {
    let _machine = busy();
    for machine in [Machine::Q35, Machine::Microvm] {
        let vm = ready(&alone(machine));
        let stats = stats(&vm);
        let names: Vec<_> = stats.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["uplink", "work", "lab"]);
        let expected = ["uplink", "work", "lab"].map(str::to_owned).into_iter().zip(macs().map(mac_text));
        assert_eq!(image::shown_macs(&stats), expected.collect());
        assert!(stats.ports.iter().all(|port| port.up && port.mtu == 1500), "{stats:?}");
        assert_eq!(late_allocations(&stats), 0);
        assert!(stats.memory.total > 30 << 20 && stats.memory.heap_free > 0, "{stats:?}");
        assert!(stats.buffers_free > 0 && stats.sessions == 0, "{stats:?}");
        let rules = stats.rules.iter().filter(|rule| rule.at.starts_with("rules.nft:"));
        assert_eq!(rules.count(), 7, "{:?}", stats.rules);
    }
}

#[test]
fn garbage_on_the_serial_line_is_harmless() {
    let _machine = busy();
    let vm = ready(&alone(Machine::Q35));
    let mut chance = Chance::from_environment(7);
    for _ in 0..20 {
        let octets = chance.octets(200);
        // Everything but ends of lines, which `send` adds; beyond 127 as two octets.
        say(&vm, &octets.iter().map(|&octet| char::from(octet)).collect::<String>());
    }
    say(&vm, &"stats".repeat(2000));
    let answer = vm.ask("no such thing", SOON, |line| line.starts_with("unknown command")).unwrap();
    assert!(answer.contains("stats") && answer.contains("poweroff"), "{answer}");
    assert_eq!(late_allocations(&stats(&vm)), 0);
    assert_eq!(vm.power_off(SOON).unwrap().code(), Some(POWERED_OFF));
}

#[test]
fn garbage_on_the_command_line_is_harmless() {
    let _machine = busy();
    let words = ["tsc_khz=0", "tsc_khz=99999999999999999999", "crash=", "debug_exit", "log=loud"];
    let more =
        ["virtio_mmio.device=", "virtio_mmio.device=512@0xzz:5", "virtio_mmio.device=0@0:0", "=", "=="];
    let mut append: Vec<String> = words.into_iter().chain(more).map(str::to_owned).collect();
    append.push("x".repeat(3000));
    let vm = ready(&Config { append, ..alone(Machine::Q35) });
    assert_eq!(late_allocations(&stats(&vm)), 0);
}

/// An idle appliance costs its host next to nothing: below a hundredth of a core, QEMU included.
#[test]
fn idle_costs_less_than_a_hundredth_of_a_core() {
    let _machine = quiet();
    let vms = [Machine::Q35, Machine::Microvm].map(|machine| ready(&alone(machine)));
    // What starting has left to do.
    thread::sleep(Duration::from_secs(1));
    let mut best = [f64::MAX; 2];
    for _ in 0..3 {
        let before = vms.each_ref().map(cpu_time);
        let began = Instant::now();
        thread::sleep(Duration::from_secs(8));
        let passed = began.elapsed().as_secs_f64();
        for ((vm, before), best) in vms.iter().zip(before).zip(&mut best) {
            *best = best.min((cpu_time(vm) - before).as_secs_f64() / passed);
        }
        println!("share of a core: q35 {:.5}, microvm {:.5}", best[0], best[1]);
        if best.iter().all(|share| *share < 0.01) {
            return;
        }
    }
    panic!("idle takes these shares of a core: q35 {:.4}, microvm {:.4}", best[0], best[1]);
}

/// What all threads of QEMU have used so far.
fn cpu_time(vm: &Vm) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", vm.pid())).expect("QEMU runs");
    let used = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    // The first figure is the time on a processor, in nanoseconds.
    used.filter_map(|text| text.split_whitespace().next()?.parse().ok()).map(Duration::from_nanos).sum()
}
