//! The files of `examples/` stay what their hosts and the launcher understand: they name the site's MACs in its order,
//! give the memory that it declares, and every command and test that they name is there.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use qemu::command::mac_text;
use qemu::image::{Site, workspace};
use serde_json::Value;

fn examples() -> PathBuf {
    workspace().unwrap().join("qemu/examples")
}

fn text(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn site() -> Site {
    Site::open(&examples().join("site")).unwrap_or_else(|error| panic!("{error}"))
}

fn weir(words: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The MACs of the site, the uplink's first.
fn macs() -> Vec<String> {
    let plan = site().plan;
    let clients = plan.clients.iter().map(|client| client.mac);
    std::iter::once(plan.uplink.mac).chain(clients).map(mac_text).collect()
}

/// What stands in the text like a MAC, in its order.
fn macs_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':'));
    words.filter(|word| word.len() == 17 && word.matches(':').count() == 5).map(str::to_owned).collect()
}

#[test]
fn every_example_is_listed_and_gives_the_sites_macs_in_order() {
    let list = text("README.md");
    for entry in fs::read_dir(examples()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name == "README.md" || name == "site" {
            continue;
        }
        assert!(list.contains(&format!("`{name}`")), "{name} is not in README.md");
        let text = text(&name);
        assert_eq!(macs_in(&text), macs(), "{name}");
        let is_told = ["Untested here.", "Run:"].iter().any(|word| text.contains(word));
        // JSON has no comments: its row in README.md tells.
        assert!(is_told || name.ends_with(".json"), "{name} does not tell whether it was run");
    }
}

#[test]
fn the_site_is_without_warnings_and_gives_every_port_its_mac() {
    let site = site();
    assert_eq!(site.warnings, "");
    assert!(site.compiled.uplink.mac.is_some());
    assert!(site.compiled.clients.iter().all(|client| client.mac.is_some()));
    assert_eq!(site.plan.memory, Some(32));
}

#[test]
fn the_libvirt_domain_is_what_the_launcher_prints() {
    let site = examples().join("site");
    let output = weir(&[
        "libvirt-xml",
        "--site",
        site.to_str().unwrap(),
        "--accel",
        "kvm",
        "--uplink",
        "bridge:br0",
        "--client",
        "lab=network:lab",
        "--client",
        "work=bridge:br-work",
    ]);
    let text = text("libvirt.xml");
    roxmltree::Document::parse(&text).unwrap();
    let (_, domain) = text.split_once("-->\n").unwrap();
    assert_eq!(domain, String::from_utf8(output.stdout).unwrap());
}

#[test]
fn every_example_gives_the_memory_of_the_site() {
    let document: Value = serde_json::from_str(&text("firecracker.json")).unwrap();
    assert_eq!(document["machine-config"]["mem_size_mib"], 32);
    for (name, line) in [
        ("libvirt.xml", "<memory unit=\"MiB\">32</memory>"),
        ("xen.cfg", "memory = 32\n"),
        ("proxmox.conf", "\nmemory: 32\n"),
        ("cloud-hypervisor.sh", "--memory size=32M"),
        ("kubevirt.yaml", "guest: 32Mi"),
    ] {
        assert!(text(name).contains(line), "{line} in {name}");
    }
}

#[test]
fn the_shell_and_the_configurations_are_well_formed() {
    let path = examples().join("cloud-hypervisor.sh");
    assert!(Command::new("sh").arg("-n").arg(path).status().unwrap().success());
    let key = |line: &str| {
        line.split_once(": ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric()))
    };
    let proxmox = text("proxmox.conf");
    assert!(proxmox.lines().all(|line| line.starts_with('#') || key(line)), "{proxmox}");
    let yaml = text("kubevirt.yaml");
    let depth = |line: &str| line.len() - line.trim_start().len();
    assert!(yaml.lines().all(|line| depth(line) % 2 == 0 && !line.contains('\t')), "{yaml}");
    let names: Vec<_> = yaml.lines().filter_map(|line| line.strip_prefix("        - name: ")).collect();
    assert_eq!(names, ["uplink", "work", "lab"]);
}

#[test]
fn commands_and_tests_that_are_named_are_there() {
    let help = String::from_utf8(weir(&["build", "--help"]).stdout).unwrap();
    let tests = fs::read_to_string(workspace().unwrap().join("tests/Cargo.toml")).unwrap();
    for entry in fs::read_dir(examples()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let text = fs::read_to_string(entry.path()).unwrap();
        for line in text.lines() {
            for option in line.split("-- build").skip(1).flat_map(str::split_whitespace) {
                let option = option.trim_matches(|c: char| "`,()".contains(c));
                assert!(!option.starts_with("--") || help.contains(option), "{option} in {line}");
            }
            for name in line.split("--test ").skip(1).filter_map(|rest| rest.split('`').next()) {
                assert!(tests.contains(&format!("name = \"{name}\"")), "{name} in {line}");
            }
        }
    }
    weir(&["libvirt-xml", "--help"]);
}
