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

/// Where the number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Packet(Field),
    /// Every IPv4 packet has this value.
    Constant(u32),
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
        }
    }

    /// The greatest value.
    pub fn max(self) -> u32 {
        match self {
            Self::Address | Self::Number => u32::MAX,
            Self::Port | Self::Word | Self::EtherType => 65_535,
            Self::Dscp => 63,
            Self::Ecn => 3,
            Self::Version => 15,
            _ => 255,
        }
    }

    /// Whether values are bits of a mask.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::TcpFlags | Self::State | Self::Status)
    }

    /// Whether values have an order.
    pub fn is_ordered(self) -> bool {
        !self.is_bits() && !matches!(self, Self::Interface | Self::InterfaceIndex)
    }
}

const fn key(name: &'static str, field: Field, datatype: Datatype, layer: Layer) -> Key {
    Key { name, subject: Subject::Packet(field), datatype, layer }
}

const fn constant(name: &'static str, value: u32, datatype: Datatype, layer: Layer) -> Key {
    Key { name, subject: Subject::Constant(value), datatype, layer }
}

const TCP: Layer = Layer::Transport(6);
const UDP: Layer = Layer::Transport(17);
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
    key("th sport", Field::SourcePort, Datatype::Port, Layer::Ports),
    key("th dport", Field::DestinationPort, Datatype::Port, Layer::Ports),
    key("icmp type", Field::IcmpType, Datatype::IcmpType, ICMP),
    key("icmp code", Field::IcmpCode, Datatype::IcmpCode, ICMP),
    key("meta l4proto", Field::Protocol, Datatype::Protocol, Layer::Any),
    key("meta length", Field::Length, Datatype::Number, Layer::Any),
    // NFPROTO_IPV4 and ETH_P_IP.
    constant("meta nfproto", 2, Datatype::NetworkProtocol, Layer::Any),
    constant("meta protocol", 0x0800, Datatype::EtherType, Layer::Any),
    key("ct state", Field::State, Datatype::State, Layer::Any),
    key("ct status", Field::Status, Datatype::Status, Layer::Any),
];

/// First words of keys that take a second.
pub(crate) const GROUPS: &[&str] = &["ip", "tcp", "udp", "th", "icmp", "meta", "ct"];

/// First words of matches and statements of nft that are not built.
pub(crate) const UNBUILT: &[&str] = &[
    "ip6", "ether", "vlan", "arp", "icmpv6", "sctp", "dccp", "udplite", "ah", "esp", "comp", "igmp", "fib",
    "rt", "socket", "osf", "numgen", "jhash", "symhash", "exthdr", "hbh", "frag", "dst", "mh", "srh",
    "ipsec", "log", "limit", "quota", "queue", "notrack", "redirect", "tproxy", "synproxy", "dup", "fwd",
    "set", "add", "update", "delete", "meter", "last", "mark", "pkttype", "vmap", "map", "flow", "geneve",
    "gre", "vxlan", "cpu", "iiftype", "oiftype", "skuid", "skgid", "iifgroup", "oifgroup", "cgroup", "time",
    "day", "hour", "tunnel",
];
