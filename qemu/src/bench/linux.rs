//! Linux as the firewall: a distribution's kernel and nft on a RAM disk, with the policy of the same site.

use crate::accel::Accel;
use crate::command::{Config, mac_text};
use crate::error::{Context, Error, Result};
use crate::image::Site;
use crate::kernel::Kernel;
use crate::ramdisk::Archive;
use crate::scratch::Scratch;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Memory of the VM in MiB.
pub const MEMORY: u32 = 256;

/// What the devices and the policy need. The kernel finds no crc32c by itself.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_net",
    "crc32c_generic",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
    "nft_reject_inet",
    "nft_counter",
];

/// What a table of flows needs besides.
const FLOW_MODULES: [&str; 2] = ["nft_flow_offload", "nf_flow_table_inet"];

/// What lets established connections through, in the rules of the site.
const ESTABLISHED: &str = "    ct state established,related counter accept\n";
const FLOW_ADD: &str = "    ip protocol { tcp, udp } ct state established flow add @flows\n";

/// Where the table of the rules begins, and the table of flows there.
const TABLE: &str = "table inet firewall {\n";
const FLOWTABLE: &str =
    "  flowtable flows { hook ingress priority 0; devices = { \"client\", \"uplink\" }; }\n";

/// How Linux is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// As a distribution has it.
    Default,
    /// As fast as it goes in software: established flows pass by the rules in a flowtable, memory is not cleared when it
    /// is allocated, and nothing is done against flaws of processors.
    Best,
}

impl Tuning {
    /// The name of the column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "Linux",
            Self::Best => "Linux best",
        }
    }

    fn modules(self) -> Vec<&'static str> {
        match self {
            Self::Default => MODULES.into(),
            Self::Best => [&MODULES[..], &FLOW_MODULES].concat(),
        }
    }

    fn append(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Best => &["init_on_alloc=0", "mitigations=off"],
        }
    }

    /// The rules of the site, for this.
    fn rules(self, rules: &str) -> Result<String> {
        if self == Self::Default {
            return Ok(rules.to_owned());
        }
        let missing =
            |text: &str| Error::new(format!("the rules of the benchmark have no {:?}", text.trim()));
        let (head, body) = rules.split_once(TABLE).ok_or_else(|| missing(TABLE))?;
        let (before, after) = body.split_once(ESTABLISHED).ok_or_else(|| missing(ESTABLISHED))?;
        Ok([head, TABLE, FLOWTABLE, before, FLOW_ADD, ESTABLISHED, after].concat())
    }
}

/// The table of connections is as large as a firewall's should be, not as the little memory suggests. Rules come before
/// forwarding: a flow that slips through before them stays untranslated.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo linux: no $module; done
tries=0
until [ $(ls /sys/class/net | grep -c eth) -ge 2 ] || [ $tries = 100 ]; do tries=$((tries+1)); usleep 20000; done
for device in /sys/class/net/eth*; do
    case $(cat $device/address) in
    CLIENT_MAC) ip link set ${device##*/} name client ;;
    UPLINK_MAC) ip link set ${device##*/} name uplink ;;
    esac
done
ip link set lo up
echo 262144 > /proc/sys/net/netfilter/nf_conntrack_max
nft -f /etc/rules.nft || echo linux: no rules
ip address add CLIENT_ADDRESS dev client
ip address add UPLINK_ADDRESS dev uplink
ip link set client up
ip link set uplink up
ip route add default via GATEWAY
echo 1 > /proc/sys/net/ipv4/ip_forward
echo linux: ready
while :; do sleep 3600; done
"#;

/// The VM, without its ports, and the octets of its kernel and its RAM disk together.
///
/// # Errors
/// There is no kernel, no nft, or no room for the RAM disk.
pub fn config(site: &Site, accel: Accel, tuning: Tuning, scratch: &Scratch) -> Result<(Config, u64)> {
    let kernel = Kernel::find()?;
    let mut archive = kernel.ram_disk(&tuning.modules(), &init(site)?)?;
    let rules = site.directory.join("rules.nft");
    let rules = fs::read_to_string(&rules).context(|| format!("cannot read {}", rules.display()))?;
    archive.file("etc/rules.nft", tuning.rules(&rules)?.as_bytes());
    add_program(&mut archive, "bin/nft", &nft()?)?;
    let initrd = packed(scratch, tuning, &archive.finish())?;
    let size = |path: &Path| fs::metadata(path).map(|data| data.len()).unwrap_or(0);
    let octets = size(&kernel.image) + size(&initrd);
    let append = [&["console=ttyS0", "quiet", "panic=-1"], tuning.append()].concat();
    let append = append.into_iter().map(str::to_owned).collect();
    let config = Config::new(&kernel.image, accel);
    Ok((Config { memory: MEMORY, initrd: Some(initrd), append, ..config }, octets))
}

fn init(site: &Site) -> Result<String> {
    let plan = &site.plan;
    let (Some(client), Some(gateway)) = (plan.clients.first(), plan.uplink.gateway) else {
        return Err(Error::new("the site of the benchmark has no client or no gateway"));
    };
    Ok(INIT
        .replace("CLIENT_MAC", &mac_text(client.mac))
        .replace("UPLINK_MAC", &mac_text(plan.uplink.mac))
        .replace("CLIENT_ADDRESS", &format!("{}/{}", client.gateway, client.length))
        .replace("UPLINK_ADDRESS", &plan.uplink.address.to_string())
        .replace("GATEWAY", &gateway.to_string()))
}

fn nft() -> Result<PathBuf> {
    let places = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Error::new("no nft for the Linux firewall").advise("run qemu/setup.sh"))
}

/// Adds a program and the shared objects that it loads.
fn add_program(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    archive.copy(name, path)?;
    let output = Command::new("ldd").arg(path).output().context(|| "cannot run ldd".to_owned())?;
    for object in shared_objects(&String::from_utf8_lossy(&output.stdout)) {
        archive.copy(object.trim_start_matches('/'), Path::new(object))?;
    }
    Ok(())
}

/// The paths in what `ldd` says.
fn shared_objects(text: &str) -> Vec<&str> {
    let path = |line| str::split_whitespace(line).find(|word| word.starts_with('/'));
    text.lines().filter_map(path).collect()
}

/// Writes the RAM disk, compressed as distributions do.
fn packed(scratch: &Scratch, tuning: Tuning, octets: &[u8]) -> Result<PathBuf> {
    let name = tuning.name().to_lowercase().replace(' ', "-");
    let (plain, packed) = (scratch.join(&format!("{name}.cpio")), scratch.join(&format!("{name}.cpio.gz")));
    fs::write(&plain, octets).context(|| format!("cannot write {}", plain.display()))?;
    let file = File::create(&packed).context(|| format!("cannot write {}", packed.display()))?;
    let status = Command::new("gzip").args(["-9", "-n", "-c"]).arg(&plain).stdout(file).status();
    let status = status.context(|| "cannot run gzip".to_owned())?;
    if status.success() { Ok(packed) } else { Err(Error::new(format!("gzip failed ({status})"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image;

    #[test]
    fn the_best_linux_has_the_rules_of_the_site_and_a_flowtable_ahead_of_them() {
        let rules = fs::read_to_string(image::workspace().unwrap().join("qemu/bench/rules.nft")).unwrap();
        assert_eq!(Tuning::Default.rules(&rules).as_deref(), Ok(rules.as_str()));
        let best = Tuning::Best.rules(&rules).unwrap();
        let at = |text: &str| best.find(text).unwrap_or_else(|| panic!("{text} in {best}"));
        assert!(at(FLOWTABLE) < at("chain forward") && at(FLOW_ADD) < at(ESTABLISHED));
        assert_eq!(best.replace(FLOWTABLE, "").replace(FLOW_ADD, ""), rules);
        assert!(Tuning::Best.rules("table ip nat {\n}\n").is_err());
        let best = Tuning::Best.modules();
        assert!(best.starts_with(&MODULES) && best.ends_with(&FLOW_MODULES));
    }

    #[test]
    fn shared_objects_are_the_paths_of_ldd() {
        let text = "\tlinux-vdso.so.1 (0x0007)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0007)\n\tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x0007)\n";
        assert_eq!(shared_objects(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(shared_objects("\tnot a dynamic executable\n").is_empty());
    }
}
