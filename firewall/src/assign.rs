//! Which NIC is which port of the site, at boot and when NICs come and go.
//!
//! A port that names a MAC gets that NIC and no other. At boot the others get what is left, in bus order. A port keeps
//! the MAC that it once had: what comes later with another one takes nobody's place but one of `[hotplug]`.

use alloc::vec::Vec;
use core::fmt;

use rules::site::Site;
use smoltcp::wire::EthernetAddress;

use crate::services::console::Mac;

/// There is no NIC for the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUplink {
    /// The MAC that the site asks for.
    pub mac: Option<EthernetAddress>,
}

impl fmt::Display for NoUplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            Some(mac) => write!(f, "no virtio-net device with mac={} for port=uplink", Mac(mac)),
            None => f.write_str("no virtio-net device for port=uplink"),
        }
    }
}

/// Why a NIC is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Another NIC has the same MAC.
    Taken,
    /// No client waits for it, and the places of `[hotplug]` are taken or there are none.
    Unknown,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "another NIC has this MAC",
            Self::Unknown => "no client waits for it, and no place of [hotplug] is free",
        })
    }
}

/// A port, and the NIC that it has or had.
struct Place {
    /// The MAC that the site names.
    named: Option<EthernetAddress>,
    is_hotplug: bool,
    is_taken: bool,
    /// The MAC of the last NIC, and when it went, counted in NICs that went.
    last: Option<(EthernetAddress, u64)>,
}

/// The ports of a site, as places for NICs.
pub struct Places {
    /// The uplink first.
    places: Vec<Place>,
    gone: u64,
}

impl Places {
    /// The places of a site, all free.
    pub fn new(site: &Site) -> Self {
        let place = |mac: Option<[u8; 6]>, is_hotplug| Place {
            named: mac.map(EthernetAddress),
            is_hotplug,
            is_taken: false,
            last: None,
        };
        let clients = site.clients.iter().map(|client| place(client.mac, client.is_hotplug));
        Self { places: core::iter::once(place(site.uplink.mac, false)).chain(clients).collect(), gone: 0 }
    }

    /// For each NIC that is there at boot, in bus order, its port, the uplink being 0; those are taken then.
    ///
    /// # Errors
    /// There is none for the uplink. A client without one waits for it.
    pub fn assign(&mut self, nics: &[EthernetAddress]) -> Result<Vec<Result<usize, NoPlace>>, NoUplink> {
        let mut chosen = alloc::vec![Err(NoPlace::Unknown); nics.len()];
        // Named ones first: the others have what they leave.
        for is_named in [true, false] {
            for (&nic, chosen) in nics.iter().zip(&mut chosen) {
                let place = match chosen {
                    Err(_) => self.find(nic),
                    Ok(_) => continue,
                };
                let has_name =
                    |&port: &usize| self.places.get(port).is_some_and(|place| place.named.is_some());
                if !is_named || place.is_ok_and(|port| has_name(&port)) {
                    *chosen = place;
                    if let Ok(port) = place {
                        self.take(port, nic);
                    }
                }
            }
        }
        match self.places.first() {
            Some(uplink) if !uplink.is_taken => Err(NoUplink { mac: uplink.named }),
            _ => Ok(chosen),
        }
    }

    /// The port for a NIC that has come.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, nic: EthernetAddress) -> Result<usize, NoPlace> {
        let is_of =
            |place: &Place| place.named == Some(nic) || place.last.is_some_and(|(last, _)| last == nic);
        // Who was somewhere last is known there, unless the place was given away meanwhile.
        if self.places.iter().any(|place| place.is_taken && is_of(place)) {
            return Err(NoPlace::Taken);
        }
        let named = self.places.iter().position(|place| place.named == Some(nic));
        let free =
            || self.places.iter().enumerate().filter(|(_, place)| !place.is_taken && place.named.is_none());
        let known = || free().find(|(_, place)| is_of(place)).map(|(port, _)| port);
        let first =
            || free().find(|(_, place)| !place.is_hotplug && place.last.is_none()).map(|(port, _)| port);
        let pooled = || {
            // Those that were never used first, then the one that is free for the longest time.
            let places = free().filter(|(_, place)| place.is_hotplug);
            places.min_by_key(|(_, place)| place.last.map(|(_, went)| went)).map(|(port, _)| port)
        };
        named.or_else(known).or_else(first).or_else(pooled).ok_or(NoPlace::Unknown)
    }

    /// The NIC is at this port now.
    pub fn take(&mut self, port: usize, nic: EthernetAddress) {
        if let Some(place) = self.places.get_mut(port) {
            place.is_taken = true;
            place.last = Some((nic, self.gone));
        }
    }

    /// The port's NIC has gone.
    pub fn leave(&mut self, port: usize) {
        self.gone += 1;
        if let Some(place) = self.places.get_mut(port) {
            place.is_taken = false;
            place.last = place.last.map(|(nic, _)| (nic, self.gone));
        }
    }
}
