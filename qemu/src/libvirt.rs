//! `weir libvirt-xml`: the appliance as a libvirt domain.
//!
//! Every NIC stands behind a root port of its own, in the order of the site: its place on the bus is certain, and it
//! can be unplugged.

use crate::accel::{self, Accel};
use crate::args;
use crate::backend::{ClientBackend, is_interface_name};
use crate::command::mac_text;
use crate::error::{Error, Result};
use crate::image::Site;
use crate::memory;
use crate::plan::Plan;
use crate::run::in_order;
use smoltcp::wire::EthernetAddress;
use std::fmt::{self, Display, Write};
use std::path::Path;
use std::str::FromStr;

/// Where libvirt's QEMU may read an image, on most hosts.
pub const IMAGE: &str = "/var/lib/libvirt/images/weir.elf";

/// The forms of an attachment, for help texts and errors.
pub const FORMS: &str = "bridge:BR, network:NAME or ethernet:IF";

/// What libvirt connects a NIC to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A bridge of the host; libvirt makes the tap.
    Bridge(String),
    /// A network of libvirt's.
    Network(String),
    /// A tap that exists on the host.
    Ethernet(String),
}

impl FromStr for Attachment {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("bridge", name)) if is_interface_name(name) => Ok(Self::Bridge(name.to_owned())),
            Some(("ethernet", name)) if is_interface_name(name) => Ok(Self::Ethernet(name.to_owned())),
            Some(("network", name)) if is_name(name) => Ok(Self::Network(name.to_owned())),
            Some((kind @ ("bridge" | "ethernet" | "network"), _)) => {
                Err(format!("{kind}: wants a name: {kind}:{kind}0"))
            }
            _ => Err(format!("not an attachment; write {FORMS}")),
        }
    }
}

/// Whether libvirt takes this as the name of a domain or a network: no slash, nothing that a terminal obeys.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c.is_control()) && !text.starts_with('.')
}

/// What a domain is made of besides the site's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain<'a> {
    /// Its name.
    pub name: &'a str,
    /// The image on the host.
    pub image: &'a Path,
    /// KVM or TCG.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory: u32,
    /// Each NIC's MAC and what it is connected to, the uplink first.
    pub nics: Vec<(EthernetAddress, &'a Attachment)>,
    /// Root ports that stay free.
    pub spare: u8,
}

/// `weir libvirt-xml`.
///
/// # Errors
/// The site has errors, its clients are not all connected, or a name or path is none for libvirt.
pub fn run(arguments: &args::LibvirtXml) -> Result<()> {
    if !is_name(&arguments.name) {
        return Err(Error::usage(format!("{:?} is no name for a domain", arguments.name)));
    }
    if !arguments.image.is_absolute() {
        return Err(Error::usage(format!("{} is not an absolute path", arguments.image.display()))
            .advise(format!("libvirt starts QEMU elsewhere; write --image {IMAGE}")));
    }
    let site = Site::open_or_default(arguments.site.site.as_deref(), false)?;
    eprint!("{}", site.warnings);
    let domain = Domain {
        name: &arguments.name,
        image: &arguments.image,
        accel: match arguments.accel {
            // The domain may be for another host.
            accel::Choice::Kvm => Accel::Kvm,
            choice => accel::choose(choice)?,
        },
        memory: memory::of_vm(&site, arguments.memory)?,
        nics: nics(&site.plan, &arguments.uplink, &arguments.clients)?,
        spare: arguments.hotplug,
    };
    print!("{}", domain.xml());
    Ok(())
}

/// The NICs of a plan, the uplink first.
fn nics<'a>(
    plan: &Plan,
    uplink: &'a Attachment,
    clients: &'a [ClientBackend<Attachment>],
) -> Result<Vec<(EthernetAddress, &'a Attachment)>> {
    let given: Vec<&str> = clients.iter().map(|given| given.name.as_str()).collect();
    let plan = &plan.to_connect(&given, false);
    let clients = plan.clients.iter().map(|client| client.mac).zip(in_order(plan, clients)?);
    Ok(std::iter::once((plan.uplink.mac, uplink)).chain(clients).collect())
}

impl Domain<'_> {
    /// The domain's XML.
    pub fn xml(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let (kind, cpu) = match self.accel {
            Accel::Kvm => ("kvm", "host-passthrough"),
            Accel::Tcg => ("qemu", "maximum"),
        };
        writeln!(out, "<domain type=\"{kind}\">")?;
        writeln!(out, "  <name>{}</name>", Escaped(self.name))?;
        writeln!(out, "  <memory unit=\"MiB\">{}</memory>", self.memory)?;
        writeln!(out, "  <vcpu>1</vcpu>")?;
        writeln!(out, "  <os>")?;
        writeln!(out, "    <type arch=\"x86_64\" machine=\"q35\">hvm</type>")?;
        writeln!(out, "    <kernel>{}</kernel>", Escaped(self.image.display()))?;
        writeln!(out, "  </os>")?;
        writeln!(out, "  <features><acpi/><apic/></features>")?;
        writeln!(out, "  <cpu mode=\"{cpu}\"/>")?;
        writeln!(out, "  <on_poweroff>destroy</on_poweroff>")?;
        writeln!(out, "  <on_reboot>restart</on_reboot>")?;
        writeln!(out, "  <on_crash>restart</on_crash>")?;
        writeln!(out, "  <devices>")?;
        writeln!(out, "    <controller type=\"pci\" index=\"0\" model=\"pcie-root\"/>")?;
        for bus in 1..=self.nics.len() + usize::from(self.spare) {
            writeln!(out, "    <controller type=\"pci\" index=\"{bus}\" model=\"pcie-root-port\"/>")?;
        }
        writeln!(out, "    <controller type=\"usb\" model=\"none\"/>")?;
        for (bus, (mac, attachment)) in (1_u8..).zip(&self.nics) {
            write_interface(out, bus, *mac, attachment)?;
        }
        writeln!(out, "    <serial type=\"pty\"/>")?;
        writeln!(out, "    <video><model type=\"none\"/></video>")?;
        writeln!(out, "    <memballoon model=\"none\"/>")?;
        writeln!(out, "  </devices>")?;
        writeln!(out, "</domain>")
    }
}

fn write_interface(out: &mut String, bus: u8, mac: EthernetAddress, attachment: &Attachment) -> fmt::Result {
    let (kind, source) = match attachment {
        Attachment::Bridge(name) => ("bridge", format!("<source bridge=\"{}\"/>", Escaped(name))),
        Attachment::Network(name) => ("network", format!("<source network=\"{}\"/>", Escaped(name))),
        Attachment::Ethernet(name) => {
            ("ethernet", format!("<target dev=\"{}\" managed=\"no\"/>", Escaped(name)))
        }
    };
    writeln!(out, "    <interface type=\"{kind}\">")?;
    writeln!(out, "      <mac address=\"{}\"/>", mac_text(mac))?;
    writeln!(out, "      {source}")?;
    writeln!(out, "      <model type=\"virtio\"/>")?;
    writeln!(out, "      <rom enabled=\"no\"/>")?;
    writeln!(
        out,
        "      <address type=\"pci\" domain=\"0x0000\" bus=\"{bus:#04x}\" slot=\"0x00\" function=\"0x0\"/>"
    )?;
    writeln!(out, "    </interface>")
}

/// Text within XML, in an element or between double quotes.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(text: &str) -> Attachment {
        text.parse().unwrap()
    }

    #[test]
    fn attachments_are_read_and_others_refused_with_the_forms() {
        assert_eq!(attachment("bridge:br0"), Attachment::Bridge("br0".into()));
        assert_eq!(attachment("network:my lan"), Attachment::Network("my lan".into()));
        assert_eq!(attachment("ethernet:tap0"), Attachment::Ethernet("tap0".into()));
        for text in [
            "",
            "br0",
            "bridge:",
            "bridge:a b",
            "ethernet:0123456789abcdef",
            "network:",
            "network:a/b",
            "user",
        ] {
            assert!(text.parse::<Attachment>().is_err(), "{text:?}");
        }
        assert!("tap:tap0".parse::<Attachment>().unwrap_err().contains("ethernet:IF"));
    }

    #[test]
    fn every_nic_has_its_mac_and_a_root_port_of_its_own() {
        let (up, work) = (attachment("network:a&b"), attachment("ethernet:t1"));
        let domain = Domain {
            name: "weir",
            image: Path::new("/images/<weir>.elf"),
            accel: Accel::Kvm,
            memory: 24,
            nics: vec![
                (EthernetAddress([2, 0, 0, 0, 0, 1]), &up),
                (EthernetAddress([2, 0, 0, 0, 0, 2]), &work),
            ],
            spare: 1,
        };
        let xml = domain.xml();
        let document = roxmltree::Document::parse(&xml).unwrap();
        let all = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
        let attribute = |node: roxmltree::Node<'_, '_>, child: &str, name: &str| {
            let child = node.children().find(|found| found.has_tag_name(child));
            child.and_then(|child| child.attribute(name)).map(str::to_owned)
        };
        let text = |name| all(name).next().and_then(|node| node.text());
        assert_eq!(text("kernel"), Some("/images/<weir>.elf"));
        assert_eq!(text("memory"), Some("24"));
        let ports = all("controller").filter(|node| node.attribute("model") == Some("pcie-root-port"));
        assert_eq!(ports.filter_map(|node| node.attribute("index")).collect::<Vec<_>>(), ["1", "2", "3"]);
        let nics: Vec<_> = all("interface").collect();
        let macs: Vec<_> = nics.iter().filter_map(|nic| attribute(*nic, "mac", "address")).collect();
        assert_eq!(macs, ["02:00:00:00:00:01", "02:00:00:00:00:02"]);
        let buses: Vec<_> = nics.iter().filter_map(|nic| attribute(*nic, "address", "bus")).collect();
        assert_eq!(buses, ["0x01", "0x02"]);
        assert_eq!(attribute(nics[0], "source", "network").as_deref(), Some("a&b"));
        assert_eq!(attribute(nics[1], "target", "dev").as_deref(), Some("t1"));
        assert_eq!(document.root_element().attribute("type"), Some("kvm"));
    }
}
