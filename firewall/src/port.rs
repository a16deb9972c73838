//! One port of the appliance: a link, its name in the rules, and how its frames ended.

use core::net::Ipv4Addr;

use netback::{ETHERNET_HEADER, Head, Link};
use smoltcp::time::Instant;
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress, EthernetProtocol};

use crate::counters::{Dropped, PortCounters};
use crate::neighbor;

/// A port: its link, its name in the rules, and how its frames ended.
pub struct Port<L> {
    /// The device.
    pub link: L,
    /// The name in `rules.nft`; `uplink` for the uplink.
    pub name: &'static str,
    /// What became of the frames that came in here.
    pub counters: PortCounters,
    pub(crate) mac: EthernetAddress,
    /// How the last frame with a packet for us began: one that begins so is in order. When one came.
    pub(crate) front: Option<[u8; ETHERNET_HEADER]>,
    pub(crate) heard: Instant,
    pub(crate) was_up: bool,
    /// When its addresses were last defended against another station.
    pub(crate) defended: Option<Instant>,
    /// Its client was taken away, or has not come yet.
    pub(crate) is_removed: bool,
    /// The largest packet that may leave here, in octets.
    pub(crate) mtu: usize,
}

impl<L: Link> Port<L> {
    pub(crate) fn new(name: &'static str, link: L) -> Self {
        let (mac, mtu) = (link.mac(), usize::from(link.mtu()));
        let is_removed = !link.is_present();
        Self {
            link,
            name,
            counters: PortCounters::default(),
            mac,
            front: None,
            heard: Instant::ZERO,
            was_up: false,
            defended: None,
            is_removed,
            mtu,
        }
    }

    /// Reads the device's address and MTU again; a link that is up then counts as one that came up.
    pub(crate) fn refresh(&mut self) {
        (self.mac, self.mtu) = (self.link.mac(), usize::from(self.link.mtu()));
        (self.was_up, self.front) = (false, None);
    }

    /// The port's hardware address.
    pub fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// RFC 5227 2.3: tells all stations that the address is ours.
    pub(crate) fn announce(&mut self, own: Ipv4Addr) {
        self.request(EthernetAddress::BROADCAST, own, own);
    }

    /// Asks a station, or all of them, for `target`.
    pub(crate) fn request(&mut self, station: EthernetAddress, sender: Ipv4Addr, target: Ipv4Addr) {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        // A request that finds the queue full is repeated within a second.
        let _ = self.arp(station, &request);
    }

    pub(crate) fn arp(&mut self, to: EthernetAddress, repr: &ArpRepr) -> Result<(), Dropped> {
        let mut head = Head::new(to, self.mac, EthernetProtocol::Arp);
        head.extend_from_slice(&neighbor::emit(repr)).map_err(|_| Dropped::Malformed)?;
        self.link.transmit(&head, None).map_err(unsent)
    }
}

/// Why a frame ended that a link did not take.
pub(crate) fn unsent(refused: netback::Refused) -> Dropped {
    match refused {
        netback::Refused::Full => Dropped::TransmitQueue,
        netback::Refused::Down => Dropped::PortDown,
        netback::Refused::TooLong => Dropped::TooBig,
        netback::Refused::Malformed => Dropped::Malformed,
    }
}
