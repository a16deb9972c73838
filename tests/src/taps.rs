//! The appliance between Linux hosts: network namespaces, connected by taps.

use std::fs;
use std::path::PathBuf;

use qemu::backend::Backend;
use qemu::command::{Config, Machine, Netdev, Port, mac_text};
use qemu::scratch::Scratch;
use qemu::vm::Vm;

use crate::Chance;
use crate::image::{bare, late_allocations, macs, ready, stats};
use crate::netns::{Namespace, Service, Transport};

/// How the namespaces are connected to the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Taps that hand checksums over unfinished.
    Offloading,
    /// The same, and the uplink's host behind a bridge, at a device that leaves no checksum to anybody: what the
    /// appliance makes of unfinished checksums is finished there, and looked at.
    Checking,
    /// Taps without a virtio header: every checksum is complete, both ways.
    Plain,
}

/// The client 10.0.1.2, the appliance, and outside 192.0.2.1 with the server 198.51.100.1.
pub struct World {
    /// The appliance. Dropped first: with the VM its taps go.
    pub vm: Vm,
    /// The host behind `work`.
    pub client: Namespace,
    /// The host behind the uplink.
    pub outside: Namespace,
    _others: Vec<Namespace>,
    /// For files.
    pub scratch: Scratch,
}

impl World {
    /// Boots the appliance and connects its neighbours.
    pub fn new(wiring: Wiring) -> Self {
        Self::with(wiring, on_taps(wiring))
    }

    /// Boots this VM, whose taps are named as [`on_taps`] does, in a namespace of its own.
    pub fn with(wiring: Wiring, config: Config) -> Self {
        let (host, client, outside) =
            (Namespace::new("host"), Namespace::new("client"), Namespace::new("outside"));
        let wrapper = [host.wrapper(), config.wrapper.clone()].concat();
        let vm = ready(&Config { wrapper, ..config });
        let mut others = Vec::new();
        if wiring == Wiring::Checking {
            let switch = Namespace::new("switch");
            host.give("up", &switch);
            switch.run("ip link add name up-out type veth peer name eth0");
            switch.give("eth0", &outside);
            switch.run("ip link add name bridge type bridge forward_delay 0");
            for device in ["up", "up-out"] {
                switch.run(&format!("ip link set dev {device} master bridge up"));
            }
            switch.run("ip link set dev bridge up");
            switch.run("ethtool -K up-out tx off");
            outside.run("ethtool -K eth0 tx off");
            others.push(switch);
        } else {
            host.give("up", &outside);
            outside.run("ip link set dev up name eth0");
        }
        host.give("work", &client);
        client.run("ip link set dev work name eth0");
        others.push(host);
        address(&client, &["10.0.1.2/24"]);
        client.run("ip route add default via 10.0.1.1");
        address(&outside, &["192.0.2.1/24", "198.51.100.1/32", "198.51.100.66/32"]);
        Self { vm, client, outside, _others: others, scratch: Scratch::new().expect("a temporary directory") }
    }

    /// Starts a server outside.
    pub fn serve(&self, words: &str, kind: Transport, port: u16) -> Service {
        self.outside.serve(words.split_whitespace(), kind, port, &self.scratch.join("server.log"))
    }

    /// A file of so many octets on a web server outside.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn serve_file(&self, octets: usize) -> (Service, PathBuf) {
        let directory = self.scratch.join("www");
        fs::create_dir(&directory).expect("a fresh directory");
        let file = directory.join("file");
        let mut chance = Chance::new(5);
        let content: Vec<u8> = (0..octets / 8).flat_map(|_| chance.word().to_le_bytes()).collect();
        fs::write(&file, content).expect("room for a file");
        let words = format!("python3 -u -m http.server --directory {} 80", directory.display());
        (self.serve(&words, Transport::Tcp, 80), file)
    }

    /// No checksum was wrong anywhere, and the appliance is as it should be.
    ///
    /// # Panics
    /// If not.
    pub fn assert_sound(&self) {
        for namespace in [&self.client, &self.outside] {
            for protocol in ["Icmp", "Tcp", "Udp"] {
                assert_eq!(
                    namespace.counter(protocol, "InCsumErrors"),
                    0,
                    "{protocol} in {}",
                    namespace.name()
                );
            }
            assert_eq!(namespace.counter("Ip", "InHdrErrors"), 0, "in {}", namespace.name());
        }
        let stats = stats(&self.vm);
        assert_eq!(late_allocations(&stats), 0);
        assert!(stats.rules.iter().any(|rule| rule.packets > 0), "{stats:?}");
    }
}

/// The VM, whose taps are `up` and `work`; nobody is on the third port.
pub fn on_taps(wiring: Wiring) -> Config {
    let [uplink, work, lab] = macs();
    let tap = |mac, name: &str| Port::new(mac, Netdev::Backend(Backend::Tap(name.into())));
    let idle = Port::new(lab, Netdev::Backend(Backend::User));
    let mut config = bare(Machine::Q35);
    if wiring == Wiring::Plain {
        config.ports = vec![idle];
        for (name, mac) in [("up", uplink), ("work", work)] {
            let words = [
                "-netdev".to_owned(),
                format!("tap,id={name},ifname={name},script=no,downscript=no,vnet_hdr=off"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev={name},mac={},romfile=", mac_text(mac)),
            ];
            config.extra.extend(words);
        }
    } else {
        config.ports = vec![tap(uplink, "up"), tap(work, "work"), idle];
    }
    config
}

fn address(namespace: &Namespace, addresses: &[&str]) {
    for address in addresses {
        let device = if address.ends_with("/32") { "lo" } else { "eth0" };
        namespace.run(&format!("ip address add {address} dev {device}"));
    }
    namespace.run("ip link set dev eth0 up");
}
