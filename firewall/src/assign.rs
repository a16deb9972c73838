//! Which NIC is which port of the site.
//!
//! A port that names a MAC gets that NIC; the others get what is left, in bus order.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use rules::site::Site;
use smoltcp::wire::EthernetAddress;

use crate::services::console::Mac;

/// A port of the site for which there is no NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The port's name.
    pub name: &'static str,
    /// The MAC that the site asks for.
    pub mac: Option<EthernetAddress>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            Some(mac) => write!(f, "no virtio-net device with mac={} for port={}", Mac(mac), self.name),
            None => write!(f, "no virtio-net device is left for port={}", self.name),
        }
    }
}

/// For each port of the site, the uplink first, the index of its NIC in `nics`, which is in bus order.
///
/// # Errors
/// The first port for which there is none.
pub fn assign(site: &'static Site, nics: &[EthernetAddress]) -> Result<Vec<usize>, Missing> {
    let uplink = core::iter::once(("uplink", site.uplink.mac));
    let clients = site.clients.iter().map(|client| (client.name, client.mac));
    let wanted: Vec<_> = uplink.chain(clients).map(|(name, mac)| (name, mac.map(EthernetAddress))).collect();
    let mut taken = vec![false; nics.len()];
    let mut chosen = vec![None; wanted.len()];
    for named in [true, false] {
        for (&(name, mac), chosen) in wanted.iter().zip(&mut chosen) {
            if mac.is_some() != named {
                continue;
            }
            let fits = |&nic: &usize| !taken[nic] && mac.is_none_or(|mac| nics[nic] == mac);
            let nic = (0..nics.len()).find(fits).ok_or(Missing { name, mac })?;
            taken[nic] = true;
            *chosen = Some(nic);
        }
    }
    Ok(chosen.into_iter().flatten().collect())
}
