//! The XML of `weir libvirt-xml`: libvirt's schema takes it, and libvirt boots it, with its driver inside of
//! `virt-qemu-run` and without a daemon. Root, and libvirt, which nobody else has to have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use qemu::accel::Accel;
use qemu::command::{Config, Machine, quote};
use qemu::libvirt::{Attachment, Domain};
use qemu::scratch::Scratch;
use tests::image::{SOON, bare, busy, macs, stats};
use tests::netns::{lacks, obstacle, skip};
use tests::taps::{Wiring, World};

/// The domain of the tests' site: taps `up`, `work` and `lab`.
fn xml(image: &Path) -> String {
    let taps = ["up", "work", "lab"].map(|name| Attachment::Ethernet(name.into()));
    let nics = macs().into_iter().zip(&taps).collect();
    Domain { name: "weir", image, accel: Accel::Tcg, memory: 32, nics, spare: 2 }.xml()
}

fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    output.is_ok()
}

#[test]
fn the_domain_is_what_libvirts_schema_wants() {
    const NAME: &str = "the_domain_is_what_libvirts_schema_wants";
    if !is_there("virt-xml-validate") {
        return lacks(NAME, "virt-xml-validate (Debian: libvirt-clients)");
    }
    let scratch = Scratch::new().expect("a temporary directory");
    let attachments =
        ["bridge:br0", "network:a & b", "ethernet:t0"].map(|text| text.parse().expect("a form"));
    for accel in [Accel::Kvm, Accel::Tcg] {
        let nics = macs().into_iter().zip(&attachments).collect();
        let domain =
            Domain { name: "we <ir>", image: Path::new("/a/b.elf"), accel, memory: 20, nics, spare: 0 };
        let path = scratch.join("domain.xml");
        fs::write(&path, domain.xml()).expect("room for a file");
        let output = Command::new("virt-xml-validate").arg(&path).arg("domain").output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What QEMU leaves behind when its parent is gone.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        let number = fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok());
        if let Some(number) = number {
            // Fails only when it has ended as it should.
            let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
        }
    }
}

/// A configuration whose "QEMU" is libvirt. The serial line is a pair of pipes.
fn under_libvirt(scratch: &Scratch) -> Config {
    let config = bare(Machine::Q35);
    let line = scratch.join("line");
    let serial = format!("<serial type=\"pipe\"><source path=\"{}\"/></serial>", line.display());
    let xml = xml(&config.kernel);
    assert!(xml.contains("<serial type=\"pty\"/>"), "{xml}");
    fs::write(scratch.join("weir.xml"), xml.replace("<serial type=\"pty\"/>", &serial)).expect("room");
    fs::create_dir_all(scratch.join("root/etc")).expect("room");
    // No confinement, which needs more of a host than a test may ask for.
    let settings = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\n\
                    cgroup_controllers = []\nremember_owner = 0\nstdio_handler = \"file\"\n";
    fs::write(scratch.join("root/etc/qemu.conf"), settings).expect("room");
    let script = format!(
        "cd {} || exit 1; for tap in up work lab; do ip tuntap add dev $tap mode tap || exit 1; done\n\
         mkfifo line.in line.out; exec 3<&0; cat <&3 > line.in & cat line.out & exec virt-qemu-run --root=$PWD/root weir.xml 1>&2",
        quote(&[scratch.path().display().to_string()])
    );
    Config { wrapper: ["sh", "-c", &script].map(str::to_owned).into(), ..config }
}

#[test]
fn libvirt_boots_the_domain_and_traffic_crosses() {
    const NAME: &str = "libvirt_boots_the_domain_and_traffic_crosses";
    if let Some(reason) = obstacle() {
        return skip(NAME, reason);
    }
    // The driver asks for this user before it reads that it is to use another.
    if !is_there("virt-qemu-run") || !User::from_name("libvirt-qemu").is_ok_and(|user| user.is_some()) {
        return lacks(NAME, "virt-qemu-run, or the user libvirt-qemu (Debian: libvirt-daemon-system)");
    }
    let _machine = busy();
    let scratch = Scratch::new().expect("a temporary directory");
    let _leftover = Leftover(scratch.join("root/run/qemu/weir.pid"));
    let world = World::with(Wiring::Offloading, under_libvirt(&scratch));
    let said = world.client.run("ping -c 5 -i 0.1 -W 5 198.51.100.1");
    assert!(said.contains("5 received, 0% packet loss") && said.contains("ttl=63"), "{said}");
    let names: Vec<_> = stats(&world.vm).ports.into_iter().map(|port| port.name).collect();
    assert_eq!(names, ["uplink", "work", "lab"]);
    world.assert_sound();
    // libvirt sees the guest's own end; `virt-qemu-run` itself goes on.
    world.vm.send("poweroff").unwrap_or_else(|error| panic!("{error}"));
    let (began, log) = (Instant::now(), scratch.join("root/log/qemu/weir.log"));
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("shutting down, reason=shutdown")) {
        assert!(began.elapsed() < SOON, "{:?}", fs::read_to_string(&log));
        thread::sleep(Duration::from_millis(50));
    }
}
