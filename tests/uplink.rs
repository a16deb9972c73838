//! Links and neighbours that go, move and come back: whatever happens, a second after the last of it traffic flows.

use std::net::Ipv4Addr;

use firewall::Dropped;
use netback::Offload;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, EthernetAddress};
use tests::flags::SYN;
use tests::packet::address;
use tests::world::{arp, arp_octets, frame, port_station};
use tests::{Chance, Seen, World, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const SERVER: &str = "198.51.100.9:53";
const EVENTS: usize = 10_000;
/// When traffic has to flow again; and the time between two looks at it, at most.
const SOON: Duration = Duration::from_secs(1);
const STEP: u64 = 60;

/// The world as it is outside of the appliance.
struct Play {
    world: World,
    chance: Chance,
    uplink_up: bool,
    client_up: bool,
    is_removed: bool,
    is_silent: bool,
    /// When something changed last.
    changed: Instant,
    /// Where the server answers to.
    external: Option<std::net::SocketAddrV4>,
    stations: u8,
}

impl Play {
    fn new() -> Self {
        let world = World::default();
        let changed = world.now();
        let chance = Chance::from_environment(5);
        Self {
            world,
            chance,
            uplink_up: true,
            client_up: true,
            is_removed: false,
            is_silent: false,
            changed,
            external: None,
            stations: 0,
        }
    }

    fn gateway() -> Ipv4Addr {
        address("192.0.2.1")
    }

    fn client() -> Ipv4Addr {
        address("10.0.1.7")
    }

    /// Somebody has another station from now on.
    fn moves(&mut self, who: Ipv4Addr) {
        self.stations = self.stations.wrapping_add(1);
        let [.., last] = who.octets();
        self.world.moved.insert(who, EthernetAddress([2, 0x99, 0, 0, last, self.stations]));
    }

    /// A frame arrives, if there is carrier.
    fn inject(&mut self, port: &str, frame: &[u8]) {
        self.world.wire(port).inject(frame, Offload::default());
        self.world.settle();
    }

    /// Somebody says on a port that an address is at a station.
    fn claim(&mut self, port: &str, station: EthernetAddress, of: Ipv4Addr) {
        let claim = arp(ArpOperation::Request, (station, of), (EthernetAddress([0; 6]), of));
        self.inject(port, &frame(EthernetAddress::BROADCAST, station, 0x0806, &arp_octets(&claim)));
    }

    fn carrier(&mut self, port: &str, up: bool) {
        self.world.wire(port).set(|settings| settings.up = up);
        self.world.datapath.look_at_links();
    }

    /// Something happens.
    fn event(&mut self) {
        let (gateway, client) = (Self::gateway(), Self::client());
        match self.chance.below(20) {
            0 => self.moves(gateway),
            1 => {
                self.moves(gateway);
                let station = self.world.station(gateway);
                if !self.is_silent {
                    self.claim("uplink", station, gateway);
                }
            }
            2 => self.is_silent = true,
            3 | 4 => self.is_silent = false,
            5 => self.uplink_up = false,
            6 | 7 => self.uplink_up = true,
            8 => self.client_up = !self.client_up,
            9 => self.moves(client),
            // The VM is gone, or another one is there.
            10 => self.is_removed |= self.world.datapath.remove_client(1),
            11 | 12 => self.is_removed &= !self.world.datapath.restore_client(1),
            13..=16 => {
                (self.uplink_up, self.client_up, self.is_silent) = (true, true, false);
                self.is_removed &= !self.world.datapath.restore_client(1);
            }
            // A device was started again, or another one is in its place.
            _ => self.world.datapath.refresh(self.chance.below(2)),
        }
        match self.is_silent {
            true => drop(self.world.silent.insert(gateway)),
            false => drop(self.world.silent.remove(&gateway)),
        }
        self.carrier("uplink", self.uplink_up);
        self.carrier("work", self.client_up);
        // Nobody is believed who lies about the gateway or about us.
        let liar = EthernetAddress([2, 0x66, 0, 0, 0, 6]);
        self.claim("work", liar, gateway);
        self.claim("uplink", liar, address("192.0.2.2"));
        self.changed = self.world.now();
    }

    fn flows(&self) -> bool {
        self.uplink_up && self.client_up && !self.is_removed && !self.is_silent
    }

    /// A datagram each way; the one that leaves, and the one that comes back.
    fn exchange(&mut self) -> (Option<Seen>, Option<Seen>) {
        self.world.forget();
        let out = self.world.frame_for(1, &udp(CLIENT, SERVER, b"out").octets());
        self.inject("work", &out);
        let left = self.world.sent("uplink").pop();
        self.external = left.as_ref().map(|seen| seen.from()).or(self.external);
        self.world.forget();
        if let Some(external) = self.external.filter(|_| !self.is_silent) {
            let back = self.world.frame_for(0, &udp(SERVER, external, b"back").octets());
            self.inject("uplink", &back);
        }
        let came = self.world.sent("work").into_iter().rfind(|seen| seen.data() == b"back");
        (left, came)
    }
}

#[test]
fn a_second_after_any_of_ten_thousand_events_traffic_flows_again() {
    let mut play = Play::new();
    let (mut looked, mut idle) = (0, 0);
    for event in 0..EVENTS {
        play.event();
        for _ in 0..play.chance.below(60) {
            play.world.pass(Duration::from_millis(1 + play.chance.below(STEP as usize) as u64));
            let (left, came) = play.exchange();
            assert!(play.uplink_up || left.is_none(), "event {event}: sent without carrier");
            assert!(!play.is_removed || left.is_none(), "event {event}: sent for a client that is gone");
            let since = play.world.now() - play.changed;
            if !play.flows() || since < SOON + Duration::from_millis(STEP) {
                idle += 1;
                continue;
            }
            looked += 1;
            let (gateway, client) = (play.world.station(Play::gateway()), play.world.station(Play::client()));
            let left = left.unwrap_or_else(|| panic!("event {event}: nothing leaves after {since}"));
            assert_eq!(left.station(), gateway, "event {event}, after {since}");
            let came = came.unwrap_or_else(|| panic!("event {event}: nothing comes after {since}"));
            assert_eq!(came.station(), client, "event {event}, after {since}");
        }
    }
    assert!(looked > 2000 && idle > 2000, "{looked} looks at what flows, {idle} at what need not");
    // Nothing is left of it but who is there.
    play.world.pass_seconds(3600);
    play.world.pass_seconds(10);
    assert_eq!(play.world.occupancy().sessions, 0);
    for port in ["uplink", "work", "lab"] {
        assert_eq!(play.world.wire(port).outstanding(), 0, "{port}");
    }
}

#[test]
fn what_waits_for_a_neighbor_of_a_client_that_goes_is_let_go_of() {
    let mut world = World::default();
    world.silent.insert(address("10.0.1.2"));
    world.silent.insert(Play::gateway());
    // From the client to the silent gateway, and to the silent client.
    world.send("work", udp(CLIENT, SERVER, b"x"));
    world.send("uplink", udp("198.51.100.9:7", "192.0.2.2:8080", b"y"));
    world.send("work", udp("10.0.1.8:1", SERVER, b"fragment").fragment(8..16));
    let held = |world: &World| ["uplink", "work"].map(|port| world.wire(port).outstanding());
    assert!(held(&world).iter().sum::<usize>() >= 2, "{:?}", held(&world));
    assert!(world.datapath.remove_client(1));
    assert_eq!(held(&world), [0, 0]);
    assert_eq!((world.drops("work", Dropped::PortDown), world.drops("uplink", Dropped::PortDown)), (1, 1));
    world.pass(Duration::from_millis(10));
    assert_eq!(world.occupancy().sessions, 0);
    assert!(world.occupancy().neighbors <= 1, "the gateway at most");
    assert_eq!(world.datapath.ports()[1].mac(), port_station(1));
}

#[test]
fn what_waits_while_the_uplink_gets_another_device_leaves_from_its_station() {
    let mut world = World::default();
    world.datapath.lose_uplink();
    world.wire("uplink").set(|settings| settings.up = false);
    world.send("work", udp(CLIENT, SERVER, b"x"));
    // The judge of the uplink wants to see it.
    let station = EthernetAddress([2, 0x77, 0, 0, 0, 7]);
    world.wire("uplink").set(|settings| (settings.up, settings.mac) = (true, station));
    world.judges[0].mac = station;
    world.datapath.refresh(0);
    world.pass_seconds(1);
    let seen = world.only("uplink");
    assert_eq!((seen.data(), seen.station()), (&b"x"[..], world.station(Play::gateway())));
}

#[test]
fn sessions_of_others_with_a_client_that_goes_end_with_it() {
    let mut world = World::default();
    let there = udp("10.0.1.7:6000", "10.0.2.9:7000", b"to the client");
    world.cross("work", "lab", &there);
    let stays = world.open_udp("10.0.1.7:6001", SERVER);
    assert!(world.datapath.remove_client(2));
    for _ in 0..40 {
        world.pass(Duration::from_millis(10));
    }
    assert_eq!(world.occupancy().sessions, 1, "who comes next inherits nothing");
    world.cross("uplink", "work", udp(SERVER, stays, b"the other client does not notice"));
}

#[test]
fn syns_that_are_held_go_with_the_uplinks_device() {
    let mut world = World::new(&site::plan_with("[nat]\nsyn_answer = \"port-unreachable\""), site::RULES);
    world.send("uplink", tcp("198.51.100.9:5", "192.0.2.2:9999", SYN, b""));
    assert_eq!(world.held("uplink"), 1);
    world.datapath.lose_uplink();
    assert_eq!(world.held("uplink"), 0);
}
