//! How addresses, numbers and well-known names are written.

use std::net::Ipv4Addr;

use rules::site::Prefix;

/// A decimal number without leading zeros (nft would read those as octal).
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// An IPv4 address: four decimal numbers.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, String> {
    let parts: Vec<&str> = text.split('.').take(5).collect();
    let is_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let shown = crate::diagnostics::quoted(text);
    if parts.len() != 4 || !parts.iter().all(is_digits) {
        return Err(format!("{shown} is no IPv4 address"));
    }
    if parts.iter().any(|part| part.len() > 1 && part.starts_with('0')) {
        return Err(format!("{shown} has a leading zero, which some read as octal"));
    }
    text.parse().map_err(|_| format!("{shown} is no IPv4 address: each part is 0 to 255"))
}

/// An address with a prefix length; host bits are kept.
pub(crate) fn prefix(text: &str) -> Result<Prefix, String> {
    let shown = crate::diagnostics::quoted(text);
    let (before, after) = text.split_once('/').ok_or_else(|| format!("{shown} has no prefix length"))?;
    let address = address(before)?;
    let length = decimal(after).and_then(|length| u8::try_from(length).ok()).filter(|&length| length <= 32);
    let length = length.ok_or_else(|| format!("{shown}: a prefix length is 0 to 32"))?;
    Ok(Prefix { address, length })
}

/// A unicast MAC.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let shown = crate::diagnostics::quoted(text);
    let wrong = || format!("{shown} is no MAC address, such as \"52:54:00:00:00:01\"");
    let parts: Vec<&str> = text.split(':').take(7).collect();
    let parts: [&str; 6] = parts.try_into().map_err(|_| wrong())?;
    let mut mac = [0; 6];
    for (octet, part) in mac.iter_mut().zip(parts) {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if mac[0] & 1 != 0 {
        return Err(format!("{shown} has the group bit set: it names many, not one NIC"));
    }
    if mac == [0; 6] {
        return Err(format!("{shown} is the MAC address of nobody"));
    }
    Ok(mac)
}

type Names = &'static [(&'static str, u32)];

/// Names of /etc/services, as nft takes them.
pub(crate) const SERVICES: Names = &[
    ("amqp", 5672),
    ("auth", 113),
    ("bgp", 179),
    ("bootpc", 68),
    ("bootps", 67),
    ("chargen", 19),
    ("daytime", 13),
    ("dict", 2628),
    ("discard", 9),
    ("domain", 53),
    ("domain-s", 853),
    ("echo", 7),
    ("finger", 79),
    ("ftp", 21),
    ("ftp-data", 20),
    ("ftps", 990),
    ("git", 9418),
    ("gopher", 70),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap2", 143),
    ("imaps", 993),
    ("ipp", 631),
    ("ipsec-nat-t", 4500),
    ("ircd", 6667),
    ("isakmp", 500),
    ("iscsi-target", 3260),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("mdns", 5353),
    ("microsoft-ds", 445),
    ("ms-sql-s", 1433),
    ("ms-wbt-server", 3389),
    ("mysql", 3306),
    ("netbios-dgm", 138),
    ("netbios-ns", 137),
    ("netbios-ssn", 139),
    ("nfs", 2049),
    ("nntp", 119),
    ("ntp", 123),
    ("openvpn", 1194),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("printer", 515),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("redis", 6379),
    ("rsync", 873),
    ("rtsp", 554),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("smtp", 25),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("socks", 1080),
    ("ssh", 22),
    ("submission", 587),
    ("submissions", 465),
    ("sunrpc", 111),
    ("svn", 3690),
    ("tacacs", 49),
    ("telnet", 23),
    ("telnets", 992),
    ("tftp", 69),
    ("time", 37),
    ("whois", 43),
    ("x11", 6000),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
];

/// Names of /etc/protocols, as nft takes them.
pub(crate) const PROTOCOLS: Names = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// ICMP types, RFC 792 and others.
pub(crate) const ICMP_TYPES: Names = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

/// Codes of ICMP destination unreachable.
pub(crate) const ICMP_CODES: Names = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

/// Codes that `reject with icmp` may send.
pub(crate) const REJECT_CODES: Names = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

/// Codes of `reject with icmpx`, as the kernel sends them over IPv4.
pub(crate) const REJECT_CODES_X: Names =
    &[("no-route", 0), ("host-unreachable", 1), ("port-unreachable", 3), ("admin-prohibited", 13)];

/// Codes of `reject with icmpv6`.
pub(crate) const REJECT_CODES_V6: Names = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

/// ICMPv6 types, RFC 4443 and others.
pub(crate) const ICMPV6_TYPES: Names = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

/// Codes of ICMPv6 destination unreachable.
pub(crate) const ICMPV6_CODES: Names = REJECT_CODES_V6;

/// Directions of a connection.
pub(crate) const DIRECTIONS: Names = &[("original", 0), ("reply", 1)];

/// To whom a frame was sent, with the kernel's numbers.
pub(crate) const PACKET_TYPES: Names =
    &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)];

/// Types of addresses, with the kernel's numbers.
pub(crate) const FIB_TYPES: Names = &[
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
];

/// Flags of TCP, RFC 9293 3.1.
pub(crate) const TCP_FLAGS: Names = &[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ecn", 0x40),
    ("cwr", 0x80),
];

/// Connection states, with the kernel's bits.
pub(crate) const STATES: Names =
    &[("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)];

/// Connection statuses, with the kernel's bits.
pub(crate) const STATUSES: Names = &[("snat", 0x10), ("dnat", 0x20)];

/// Differentiated services codepoints.
pub(crate) const DSCPS: Names = &[
    ("cs0", 0x00),
    ("cs1", 0x08),
    ("cs2", 0x10),
    ("cs3", 0x18),
    ("cs4", 0x20),
    ("cs5", 0x28),
    ("cs6", 0x30),
    ("cs7", 0x38),
    ("df", 0x00),
    ("be", 0x00),
    ("lephb", 0x01),
    ("af11", 0x0a),
    ("af12", 0x0c),
    ("af13", 0x0e),
    ("af21", 0x12),
    ("af22", 0x14),
    ("af23", 0x16),
    ("af31", 0x1a),
    ("af32", 0x1c),
    ("af33", 0x1e),
    ("af41", 0x22),
    ("af42", 0x24),
    ("af43", 0x26),
    ("va", 0x2c),
    ("ef", 0x2e),
];

/// Explicit congestion notification, RFC 3168.
pub(crate) const ECNS: Names = &[("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)];

/// Netfilter's protocol families.
pub(crate) const NETWORK_PROTOCOLS: Names = &[("ipv4", 2), ("ipv6", 10)];

/// EtherTypes.
pub(crate) const ETHER_TYPES: Names = &[("ip", 0x0800), ("arp", 0x0806), ("ip6", 0x86dd), ("vlan", 0x8100)];

/// The value of a name.
pub(crate) fn find(names: Names, name: &str) -> Option<u32> {
    names.iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
}
