//! How frames end: a counter for every way, per port, and one for every `counter` of the rules.

use alloc::boxed::Box;
use alloc::vec;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Every way in which a received frame ends without being forwarded.
        ///
        /// Frames that a device lost before they were received are in the link's own statistics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Dropped { $($(#[$doc])* $variant,)* }

        impl Dropped {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [Dropped] = &[$(Dropped::$variant,)*];

            /// The name under which `stats` shows the counter.
            pub const fn name(self) -> &'static str {
                match self { $(Dropped::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header.
    Runt => "runt",
    /// A type other than IPv4 and ARP: IPv6, VLAN tags, LLC, and whatever else.
    EtherType => "ether_type",
    /// Addressed to another station, or a unicast packet in a group frame (RFC 1122 3.3.6).
    OtherStation => "other_station",
    /// A source MAC that no station can have: a group address or the port's own.
    BadStation => "bad_station",
    /// An ARP packet that was not for us, malformed, or not believed.
    Arp => "arp_ignored",
    /// An IPv4 or transport header that does not hold together (RFC 1812 5.2.2).
    Malformed => "malformed",
    /// The IPv4 header checksum is wrong (RFC 1812 5.2.2).
    HeaderChecksum => "header_checksum",
    /// Offload fields that do not match the packet they came with (virtio 1.2, 5.1.6.4).
    BadOffload => "bad_offload",
    /// A source that is not behind the port it came from (RFC 2827).
    Spoofed => "spoofed",
    /// A destination that is never forwarded: group, broadcast, martian (RFC 1812 5.3.4, 5.3.7).
    BadDestination => "bad_destination",
    /// From the uplink, for an address that is not ours.
    NotOurs => "not_ours",
    /// A fragment of a datagram whose first fragment ended here, or that is for the appliance itself.
    Fragment => "fragment",
    /// A fragment that had come before.
    FragmentDuplicate => "fragment_duplicate",
    /// A fragment that overlaps others (RFC 1858, RFC 5722): its datagram ends.
    FragmentOverlap => "fragment_overlap",
    /// A fragment whose source has too many incomplete datagrams.
    FragmentQuota => "fragment_quota",
    /// A fragment whose first one did not come in time, or whose place others needed.
    FragmentTimeout => "fragment_timeout",
    /// A protocol that has no sessions: IGMP.
    Protocol => "protocol",
    /// An ICMP message that is neither a query nor an error that is forwarded.
    IcmpType => "icmp_type",
    /// An ICMP error that belongs to no session (RFC 5508 REQ-4).
    ErrorWithoutSession => "error_without_session",
    /// The time to live ended here (RFC 1812 5.3.1).
    TimeExceeded => "time_exceeded",
    /// No route to the destination.
    NoRoute => "no_route",
    /// Larger than the next link takes.
    TooBig => "too_big",
    /// A rule or a chain's policy dropped it.
    Policy => "policy",
    /// A rule rejected it.
    Rejected => "rejected",
    /// Belongs to no connection and opens none (`ct state invalid`).
    Invalid => "invalid",
    /// From outside, and nothing inside asked for it (RFC 4787 REQ-8).
    Unsolicited => "unsolicited",
    /// All external ports are in use (RFC 5508 REQ-8).
    PortsExhausted => "ports_exhausted",
    /// The session table is full.
    SessionsExhausted => "sessions_exhausted",
    /// Its client has as many sessions or ports as the others' shares leave it.
    ClientQuota => "client_quota",
    /// Its translation would collide with another session.
    Conflict => "conflict",
    /// Of a protocol without ports, and another client talks to its peer already.
    PeerTaken => "peer_taken",
    /// A segment that the TCP state of its session refuses.
    TcpState => "tcp_state",
    /// A segment outside of the windows of its session (RFC 9293 3.10.7.4).
    TcpWindow => "tcp_window",
    /// The next hop did not answer ARP in time.
    Unresolved => "unresolved",
    /// Too many packets wait for the same next hop.
    NeighborQueue => "neighbor_queue",
    /// No room for another neighbour.
    NeighborsExhausted => "neighbors_exhausted",
    /// The outgoing port's queue and backlog are full.
    TransmitQueue => "transmit_queue",
    /// The outgoing port is down.
    PortDown => "port_down",
    /// Delivered to the appliance itself, which had nothing to say to it.
    Delivered => "delivered",
    /// An answer of our own was held back by its rate limit (RFC 1812 4.3.2.8).
    AnswerLimited => "answer_limited",
}

/// The counters of one port.
#[derive(Clone)]
pub struct PortCounters {
    dropped: [u64; Dropped::ALL.len()],
    /// Packets that came in here and left through another port, or this one.
    pub forwarded: u64,
    /// Packets that the appliance answered itself: echo replies, errors, resets, ARP replies.
    pub answered: u64,
}

impl Default for PortCounters {
    fn default() -> Self {
        Self { dropped: [0; Dropped::ALL.len()], forwarded: 0, answered: 0 }
    }
}

impl PortCounters {
    /// Counts one frame that ended for this reason.
    pub fn drop(&mut self, reason: Dropped) {
        self.dropped[reason as usize] += 1;
    }

    /// Frames that ended for this reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (Dropped, u64)> + '_ {
        Dropped::ALL.iter().map(|&reason| (reason, self.dropped(reason))).filter(|&(_, n)| n > 0)
    }
}

/// Packets and octets that passed one `counter` statement.
#[derive(Clone, Copy, Default)]
pub struct RuleCounter {
    /// Packets.
    pub packets: u64,
    /// Octets of IPv4, headers included.
    pub octets: u64,
}

/// One [`RuleCounter`] for every `counter` statement of the policy, or for every rule.
pub struct RuleCounters(Box<[RuleCounter]>);

impl RuleCounters {
    /// Octets that [`RuleCounters::new`] allocates.
    pub const fn footprint(length: usize) -> usize {
        length * size_of::<RuleCounter>()
    }

    /// Counters for a policy with `length` of them.
    pub fn new(length: usize) -> Self {
        Self(vec![RuleCounter::default(); length].into_boxed_slice())
    }

    /// The counters, by id.
    pub fn as_slice(&self) -> &[RuleCounter] {
        &self.0
    }
    /// Adds one packet of this many octets.
    pub fn add(&mut self, index: u16, octets: u32) {
        if let Some(entry) = self.0.get_mut(usize::from(index)) {
            entry.packets += 1;
            entry.octets += u64::from(octets);
        }
    }
}
