//! What a match can look at: the left-hand sides, and the types of their values.

use rules::table::Field;

/// The left-hand side of a match.
#[derive(Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    pub subject: Subject,
    pub datatype: Datatype,
    pub layer: Layer,
}

impl Key {
    /// The number that it reads, if it is one of the packet's own.
    pub fn field(&self) -> Option<Field> {
        match self.subject {
            Subject::Packet(field) => Some(field),
            Subject::Station(..) | Subject::Constant(_) | Subject::Ipv6 => None,
        }
    }
}

/// Where the number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Packet(Field),
    /// A station's address: its first two octets, and the other four.
    Station(Field, Field),
    /// Every IPv4 packet has this value.
    Constant(u32),
    /// No IPv4 packet has it.
    Ipv6,
}

/// What must hold of a packet for the key to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Any,
    /// IPv4.
    Network,
    /// This protocol.
    Transport(u8),
    /// A protocol with ports, which another match has named.
    Ports,
    /// The same, of protocols whose sessions have ports: TCP and UDP.
    SessionPorts,
}

impl Layer {
    /// The protocols that have what a key reads, when it does not name its own; sorted.
    pub fn protocols(self) -> &'static [u32] {
        match self {
            // TCP, UDP, DCCP, SCTP and UDP-Lite.
            Self::Ports => &[6, 17, 33, 132, 136],
            Self::SessionPorts => &[6, 17],
            Self::Any | Self::Network | Self::Transport(_) => &[],
        }
    }
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
    Interface,
    /// `iif`, `oif`: one interface, that exists.
    InterfaceIndex,
    Address,
    Protocol,
    Port,
    IcmpType,
    IcmpCode,
    TcpFlags,
    State,
    Status,
    Dscp,
    Ecn,
    NetworkProtocol,
    EtherType,
    Octet,
    /// Sixteen bits.
    Word,
    /// Thirty-two bits.
    Number,
    /// Four bits.
    Version,
    Mark,
    Direction,
    PacketType,
    FibType,
    Address6,
    IcmpTypeV6,
    IcmpCodeV6,
    Station,
}

impl Datatype {
    /// Its name in nft and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "ifname",
            Self::InterfaceIndex => "iface_index",
            Self::Address => "ipv4_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::TcpFlags => "tcp_flag",
            Self::State => "ct_state",
            Self::Status => "ct_status",
            Self::Dscp => "dscp",
            Self::Ecn => "ecn",
            Self::NetworkProtocol => "nf_proto",
            Self::EtherType => "ether_type",
            Self::Octet | Self::Word | Self::Number | Self::Version => "integer",
            Self::Mark => "mark",
            Self::Direction => "ct_dir",
            Self::PacketType => "pkt_type",
            Self::FibType => "fib_addrtype",
            Self::Address6 => "ipv6_addr",
            Self::IcmpTypeV6 => "icmpv6_type",
            Self::IcmpCodeV6 => "icmpv6_code",
            Self::Station => "ether_addr",
        }
    }

    /// The type that a named set declares, if a set of it can be had.
    pub fn of_set(name: &str) -> Option<Self> {
        let types = [
            Self::Address,
            Self::Port,
            Self::Protocol,
            Self::Interface,
            Self::IcmpType,
            Self::IcmpCode,
            Self::TcpFlags,
            Self::State,
            Self::Dscp,
            Self::Ecn,
            Self::Mark,
            Self::PacketType,
            Self::EtherType,
            Self::Address6,
            Self::IcmpTypeV6,
            Self::IcmpCodeV6,
            Self::Station,
        ];
        types.into_iter().find(|datatype| datatype.name() == name)
    }

    /// What such a value is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Interface | Self::InterfaceIndex => "an interface name",
            Self::Address => "an IPv4 address",
            Self::Protocol => "a protocol",
            Self::Port => "a port",
            Self::IcmpType => "an ICMP type",
            Self::IcmpCode => "an ICMP code",
            Self::TcpFlags => "a TCP flag",
            Self::State => "a connection state",
            Self::Status => "a connection status",
            Self::Dscp => "a DSCP",
            Self::Ecn => "an ECN codepoint",
            Self::NetworkProtocol => "ipv4 or ipv6",
            Self::EtherType => "an EtherType",
            Self::Octet | Self::Word | Self::Number | Self::Version => "a number",
            Self::Mark => "a mark",
            Self::Direction => "a direction",
            Self::PacketType => "a packet type",
            Self::FibType => "an address type",
            Self::Address6 => "an IPv6 address",
            Self::IcmpTypeV6 => "an ICMPv6 type",
            Self::IcmpCodeV6 => "an ICMPv6 code",
            Self::Station => "an Ethernet address",
        }
    }

    /// The greatest value.
    pub fn max(self) -> u32 {
        match self {
            // Those of stations have more.
            Self::Address | Self::Number | Self::Mark | Self::Address6 | Self::Station => u32::MAX,
            Self::Port | Self::Word | Self::EtherType => 65_535,
            Self::Dscp => 63,
            Self::Ecn => 3,
            Self::Direction => 1,
            Self::PacketType => 7,
            Self::Version => 15,
            _ => 255,
        }
    }

    /// Whether no IPv4 packet has such a value.
    pub fn is_ipv6(self) -> bool {
        matches!(self, Self::Address6 | Self::IcmpTypeV6 | Self::IcmpCodeV6)
    }

    /// Whether values are bits of a mask.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::TcpFlags | Self::State | Self::Status)
    }

    /// Whether values have an order.
    pub fn is_ordered(self) -> bool {
        !self.is_bits()
            && !matches!(self, Self::Interface | Self::InterfaceIndex | Self::Address6 | Self::FibType)
    }
}

/// The types of a concatenation, as nft writes them.
pub(crate) fn type_names(types: &[Datatype]) -> String {
    match types {
        [] => "nothing".to_owned(),
        types => types.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(" . "),
    }
}

/// Whether a set of these types may be asked about keys of those.
pub(crate) fn are_alike(held: &[Datatype], asked: &[Datatype]) -> bool {
    let is_alike = |(held, asked): (&Datatype, &Datatype)| held == asked;
    held.len() == asked.len() && held.iter().zip(asked).all(is_alike)
}

const fn key(name: &'static str, field: Field, datatype: Datatype, layer: Layer) -> Key {
    Key { name, subject: Subject::Packet(field), datatype, layer }
}

const fn constant(name: &'static str, value: u32, datatype: Datatype, layer: Layer) -> Key {
    Key { name, subject: Subject::Constant(value), datatype, layer }
}

const fn icmpv6(name: &'static str, datatype: Datatype) -> Key {
    Key { name, subject: Subject::Ipv6, datatype, layer: Layer::Transport(58) }
}

const fn ipv6(name: &'static str, datatype: Datatype) -> Key {
    Key { name, subject: Subject::Ipv6, datatype, layer: Layer::Any }
}

const fn station(name: &'static str, upper: Field, lower: Field) -> Key {
    Key { name, subject: Subject::Station(upper, lower), datatype: Datatype::Station, layer: Layer::Any }
}

const TCP: Layer = Layer::Transport(6);
const UDP: Layer = Layer::Transport(17);
const DCCP: Layer = Layer::Transport(33);
const SCTP: Layer = Layer::Transport(132);
const UDPLITE: Layer = Layer::Transport(136);
const ICMP: Layer = Layer::Transport(1);

/// All keys; `meta iifname` is `iifname`.
pub(crate) static KEYS: &[Key] = &[
    key("iifname", Field::InputPort, Datatype::Interface, Layer::Any),
    key("oifname", Field::OutputPort, Datatype::Interface, Layer::Any),
    key("iif", Field::InputPort, Datatype::InterfaceIndex, Layer::Any),
    key("oif", Field::OutputPort, Datatype::InterfaceIndex, Layer::Any),
    key("ip saddr", Field::Source, Datatype::Address, Layer::Network),
    key("ip daddr", Field::Destination, Datatype::Address, Layer::Network),
    key("ip protocol", Field::Protocol, Datatype::Protocol, Layer::Network),
    key("ip ttl", Field::Ttl, Datatype::Octet, Layer::Network),
    key("ip dscp", Field::Dscp, Datatype::Dscp, Layer::Network),
    key("ip ecn", Field::Ecn, Datatype::Ecn, Layer::Network),
    key("ip length", Field::Length, Datatype::Word, Layer::Network),
    key("ip id", Field::Identification, Datatype::Word, Layer::Network),
    constant("ip version", 4, Datatype::Version, Layer::Network),
    key("tcp sport", Field::SourcePort, Datatype::Port, TCP),
    key("tcp dport", Field::DestinationPort, Datatype::Port, TCP),
    key("tcp flags", Field::TcpFlags, Datatype::TcpFlags, TCP),
    key("udp sport", Field::SourcePort, Datatype::Port, UDP),
    key("udp dport", Field::DestinationPort, Datatype::Port, UDP),
    key("udplite sport", Field::SourcePort, Datatype::Port, UDPLITE),
    key("udplite dport", Field::DestinationPort, Datatype::Port, UDPLITE),
    key("sctp sport", Field::SourcePort, Datatype::Port, SCTP),
    key("sctp dport", Field::DestinationPort, Datatype::Port, SCTP),
    key("dccp sport", Field::SourcePort, Datatype::Port, DCCP),
    key("dccp dport", Field::DestinationPort, Datatype::Port, DCCP),
    key("th sport", Field::SourcePort, Datatype::Port, Layer::Ports),
    key("th dport", Field::DestinationPort, Datatype::Port, Layer::Ports),
    key("icmp type", Field::IcmpType, Datatype::IcmpType, ICMP),
    key("icmp code", Field::IcmpCode, Datatype::IcmpCode, ICMP),
    key("meta l4proto", Field::Protocol, Datatype::Protocol, Layer::Any),
    key("meta length", Field::Length, Datatype::Number, Layer::Any),
    // NFPROTO_IPV4 and ETH_P_IP.
    constant("meta nfproto", 2, Datatype::NetworkProtocol, Layer::Any),
    constant("meta protocol", 0x0800, Datatype::EtherType, Layer::Any),
    station("ether saddr", Field::SourceStation, Field::SourceStationRest),
    station("ether daddr", Field::DestinationStation, Field::DestinationStationRest),
    constant("ether type", 0x0800, Datatype::EtherType, Layer::Any),
    key("ct state", Field::State, Datatype::State, Layer::Any),
    key("ct status", Field::Status, Datatype::Status, Layer::Any),
    key("meta mark", Field::Mark, Datatype::Mark, Layer::Any),
    key("ct mark", Field::ConnectionMark, Datatype::Mark, Layer::Any),
    key("ct direction", Field::Direction, Datatype::Direction, Layer::Any),
    key("ct original saddr", Field::OriginalSource, Datatype::Address, Layer::Any),
    key("ct original daddr", Field::OriginalDestination, Datatype::Address, Layer::Any),
    key("ct original ip saddr", Field::OriginalSource, Datatype::Address, Layer::Network),
    key("ct original ip daddr", Field::OriginalDestination, Datatype::Address, Layer::Network),
    key("ct original proto-src", Field::OriginalSourcePort, Datatype::Port, Layer::SessionPorts),
    key("ct original proto-dst", Field::OriginalDestinationPort, Datatype::Port, Layer::SessionPorts),
    key("ct reply saddr", Field::ReplySource, Datatype::Address, Layer::Any),
    key("ct reply daddr", Field::ReplyDestination, Datatype::Address, Layer::Any),
    key("ct reply ip saddr", Field::ReplySource, Datatype::Address, Layer::Network),
    key("ct reply ip daddr", Field::ReplyDestination, Datatype::Address, Layer::Network),
    key("ct reply proto-src", Field::ReplySourcePort, Datatype::Port, Layer::SessionPorts),
    key("ct reply proto-dst", Field::ReplyDestinationPort, Datatype::Port, Layer::SessionPorts),
    // PACKET_HOST: nothing else is received.
    constant("meta pkttype", 0, Datatype::PacketType, Layer::Any),
    ipv6("ip6 saddr", Datatype::Address6),
    ipv6("ip6 daddr", Datatype::Address6),
    ipv6("ip6 nexthdr", Datatype::Protocol),
    ipv6("ip6 hoplimit", Datatype::Octet),
    ipv6("ip6 dscp", Datatype::Dscp),
    ipv6("ip6 ecn", Datatype::Ecn),
    ipv6("ip6 length", Datatype::Word),
    ipv6("ip6 version", Datatype::Version),
    icmpv6("icmpv6 type", Datatype::IcmpTypeV6),
    icmpv6("icmpv6 code", Datatype::IcmpCodeV6),
    ipv6("ct original ip6 saddr", Datatype::Address6),
    ipv6("ct original ip6 daddr", Datatype::Address6),
    ipv6("ct reply ip6 saddr", Datatype::Address6),
    ipv6("ct reply ip6 daddr", Datatype::Address6),
];

/// First words of keys that take a second.
pub(crate) const GROUPS: &[&str] =
    &["ip", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp", "meta", "ether", "ct", "ip6", "icmpv6"];

/// Keys that may go without their first word, `meta`.
pub(crate) const BARE: &[&str] = &["mark", "pkttype"];

/// First words of matches and statements of nft that are not built.
pub(crate) const UNBUILT: &[&str] = &[
    "vlan", "arp", "ah", "esp", "comp", "igmp", "rt", "socket", "osf", "numgen", "jhash", "symhash",
    "exthdr", "hbh", "frag", "dst", "mh", "srh", "ipsec", "queue", "tproxy", "synproxy", "dup", "fwd", "set",
    "last", "vmap", "map", "flow", "geneve", "gre", "vxlan", "cpu", "iiftype", "oiftype", "skuid", "skgid",
    "iifgroup", "oifgroup", "cgroup", "time", "day", "hour", "tunnel",
];
