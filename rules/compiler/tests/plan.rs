//! What is refused in weir.toml: each with its line, its column and its words.

mod common;

use std::net::Ipv4Addr;

use common::lines;
use rules::site::{ClientNetwork, Nat, PanicAction, Prefix, Timeouts};
use rules_compiler::compile_text;

/// In the cases below, a line UPLINK or WORK stands for these.
const UPLINK_LINES: &str = "[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"";
const WORK_LINES: &str = "[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"";

fn refuses(cases: &[(&str, &[&str])]) {
    for (plan, told) in cases {
        let plan = plan.replace("UPLINK", UPLINK_LINES).replace("WORK", WORK_LINES);
        let Err(diagnostics) = compile_text(&plan, "# weir: allow open\n") else {
            panic!("this compiles:\n{plan}")
        };
        let told: Vec<String> = told.iter().map(|line| format!("weir.toml:{line}")).collect();
        assert_eq!(lines(&diagnostics), told, "{plan}");
    }
}

#[test]
fn the_uplink() {
    refuses(&[
        (
            r#"[uplink]
address = "dhcp""#,
            &[r#"2:11: address = "dhcp": the image has no DHCP client yet; give a static address"#],
        ),
        ("", &["1:1: weir.toml has no [uplink]"]),
        ("[uplink]", &[r#"1:1: [uplink] has no "address", such as address = "192.0.2.2/24""#]),
        (
            r#"[uplink]
address = "192.0.2.2""#,
            &[r#"2:11: the uplink's address needs its prefix length, such as "192.0.2.2/24""#],
        ),
        (
            r#"[uplink]
address = "192.0.2.02/24""#,
            &[r#"2:11: "192.0.2.02" has a leading zero, which some read as octal"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/33""#,
            &[r#"2:11: "192.0.2.2/33": a prefix length is 0 to 32"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/32""#,
            &["2:11: a subnet's prefix length is 1 to 31, not 32"],
        ),
        (
            r#"[uplink]
address = "192.0.2.0/24""#,
            &["2:11: 192.0.2.0 is the address of the network itself"],
        ),
        (
            r#"[uplink]
address = "192.0.2.255/24""#,
            &["2:11: 192.0.2.255 is the broadcast address of its network"],
        ),
        (
            r#"[uplink]
address = "127.0.0.1/8""#,
            &["2:11: 127.0.0.1 is a loopback address"],
        ),
        (
            r#"[uplink]
address = "224.0.0.5/24""#,
            &["2:11: 224.0.0.5 is a multicast address"],
        ),
        (
            r#"[uplink]
address = "0.0.0.0/8""#,
            &[r#"2:11: 0.0.0.0 is unspecified or of "this network" (0.0.0.0/8)"#],
        ),
        (
            r#"[uplink]
address = "255.255.255.255/24""#,
            &["2:11: 255.255.255.255 is reserved or the broadcast address (240.0.0.0/4)"],
        ),
        (
            r#"[uplink]
address = "300.1.1.1/24""#,
            &[r#"2:11: "300.1.1.1" is no IPv4 address: each part is 0 to 255"#],
        ),
        (
            r#"[uplink]
address = 5
adress = "x"
mtu = "big"
mac = true
extra = "192.0.2.3""#,
            &[
                r#"2:11: "address" must be a string, not integer"#,
                r#"3:1: unknown key "adress" in [uplink]; did you mean "address"?"#,
                r#"4:7: "mtu" must be a whole number, not string"#,
                r#"5:7: "mac" must be a string, not boolean"#,
                r#"6:9: "extra" must be a list of strings, not string"#,
            ],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
gateway = "192.0.3.1""#,
            &["3:11: the gateway 192.0.3.1 is outside the uplink's subnet 192.0.2.0/24"],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.2""#,
            &["3:11: the gateway is the firewall's own address"],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.255""#,
            &["3:11: the gateway 192.0.2.255 is the broadcast address of its network"],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
gateway = "fe80::1""#,
            &[r#"3:11: "fe80::1" is no IPv4 address"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
address = "192.0.2.3/24""#,
            &["3:1: duplicate key"],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mtu = 67"#,
            &[r#"3:7: "mtu" must be from 68 to 8166 octets: a packet lies in one buffer of a port"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mtu = 9000"#,
            &[r#"3:7: "mtu" must be from 68 to 8166 octets: a packet lies in one buffer of a port"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "53:54:00:00:00:01""#,
            &[r#"3:7: "53:54:00:00:00:01" has the group bit set: it names many, not one NIC"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "00:00:00:00:00:00""#,
            &[r#"3:7: "00:00:00:00:00:00" is the MAC address of nobody"#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "52:54:00:00:01""#,
            &[r#"3:7: "52:54:00:00:01" is no MAC address, such as "52:54:00:00:00:01""#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "52-54-00-00-00-01""#,
            &[r#"3:7: "52-54-00-00-00-01" is no MAC address, such as "52:54:00:00:00:01""#],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "zz:54:00:00:00:01""#,
            &[r#"3:7: "zz:54:00:00:00:01" is no MAC address, such as "52:54:00:00:00:01""#],
        ),
    ]);
}

#[test]
fn clients() {
    refuses(&[
        (
            r#"UPLINK
extra = ["192.0.2.2", "192.0.2.1", "192.0.2.255", "192.0.2.9", "192.0.2.9", "10.0.1.7", 5]
WORK"#,
            &[
                "4:10: 192.0.2.2 is the firewall's own address already",
                "4:23: 192.0.2.1 is the gateway's address",
                "4:36: 192.0.2.255 is the broadcast address of its network",
                "4:64: 192.0.2.9 is listed twice",
                "4:77: 10.0.1.7 is in a client's network",
                r#"4:89: "extra" must be a list of strings, not integer"#,
            ],
        ),
        (
            r#"[uplink]
address = "192.0.2.2/24"
mac = "52:54:00:00:00:01"
WORK
mac = "52:54:00:00:00:01""#,
            &["7:7: this MAC address is given to another port already"],
        ),
        (
            r#"UPLINK
[[client]]
address = "10.0.1.1/24""#,
            &[r#"4:1: [[client]] has no "name", such as name = "work""#],
        ),
        (
            r#"UPLINK
[[client]]
name = ""
address = "10.0.1.1/24""#,
            &[r#"5:8: "" is no client name: 1 to 15 of a-z A-Z 0-9 _ . -"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "this-is-too-long"
address = "10.0.1.1/24""#,
            &[r#"5:8: "this-is-too-long" is no client name: 1 to 15 of a-z A-Z 0-9 _ . -"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "wo rk"
address = "10.0.1.1/24""#,
            &[r#"5:8: "wo rk" is no client name: 1 to 15 of a-z A-Z 0-9 _ . -"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "uplink"
address = "10.0.1.1/24""#,
            &[r#"5:8: "uplink" is reserved; a client needs another name"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "lo"
address = "10.0.1.1/24""#,
            &[r#"5:8: "lo" is reserved; a client needs another name"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "work"
address = "10.0.1.1/24"
hosts = []"#,
            &[r#"7:9: no host would be believed; leave "hosts" out for the whole subnet"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "all"
address = "10.0.1.1/24""#,
            &[r#"5:8: "all" is reserved; a client needs another name"#],
        ),
        (
            r#"UPLINK
[[client]]
name = ".."
address = "10.0.1.1/24""#,
            &[r#"5:8: ".." is no client name"#],
        ),
        (
            r#"UPLINK
WORK
[[client]]
name = "work"
address = "10.0.2.1/24""#,
            &[r#"8:8: a client named "work" is there already"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "work""#,
            &[r#"4:1: [[client]] has no "address", such as address = "10.0.1.1/24""#],
        ),
        (
            r#"UPLINK
[[client]]
name = "work"
address = "10.0.1.1""#,
            &[r#"6:11: the client's address needs a prefix length, such as "10.0.1.1/24", or a peer"#],
        ),
        (
            r#"UPLINK
WORK
peer = "10.0.1.2""#,
            &["6:11: a client with a peer has an address without a prefix length"],
        ),
        (
            r#"UPLINK
[[client]]
name = "work"
address = "10.0.1.0/24""#,
            &["6:11: 10.0.1.0 is the address of the network itself"],
        ),
        (
            r#"UPLINK
[[client]]
name = "work"
address = "10.0.1.1/32""#,
            &["6:11: a subnet's prefix length is 1 to 31, not 32"],
        ),
        (
            r#"UPLINK
WORK
dhcp = "10.0.1.100-10.0.1.199""#,
            &[r#"7:1: "dhcp" is not available in this version"#],
        ),
        (
            r#"UPLINK
WORK
hosts = ["10.0.2.2", "10.0.1.1", "10.0.1.255", "10.0.1.2", "10.0.1.2"]"#,
            &[
                "7:10: 10.0.2.2 is outside the client's subnet 10.0.1.0/24",
                "7:22: 10.0.1.1 is the firewall's own address",
                "7:34: 10.0.1.255 is the broadcast address of its network",
                "7:60: 10.0.1.2 is listed twice",
            ],
        ),
        (
            r#"UPLINK
WORK
[[client]]
name = "lab"
address = "10.0.1.129/25""#,
            &[r#"9:11: 10.0.1.128/25 overlaps 10.0.1.0/24 of client "work""#],
        ),
        (
            r#"UPLINK
WORK
[[client]]
name = "lab"
address = "10.0.1.2/24""#,
            &[r#"9:11: 10.0.1.0/24 is the network of client "work" already"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "lab"
address = "192.0.2.129/25""#,
            &["6:11: 192.0.2.128/25 overlaps 192.0.2.0/24 of the uplink"],
        ),
        (
            r#"UPLINK
WORK
[[client]]
name = "vault"
address = "10.0.1.9"
peer = "10.0.1.10"
hosts = ["10.0.1.10"]"#,
            &[
                r#"9:11: 10.0.1.9 is in 10.0.1.0/24 of client "work""#,
                r#"10:8: 10.0.1.10/32 overlaps 10.0.1.0/24 of client "work""#,
                "11:10: a client with a peer has no other hosts",
            ],
        ),
        (
            r#"UPLINK
[[client]]
name = "a"
address = "10.137.0.1"
peer = "10.137.0.10"
[[client]]
name = "b"
address = "10.137.0.1"
peer = "10.137.0.10""#,
            &[r#"11:8: 10.137.0.10/32 is the network of client "a" already"#],
        ),
        (
            r#"UPLINK
[[client]]
name = "a"
address = "10.137.0.1"
peer = "10.137.0.1"
[[client]]
name = "b"
address = "127.0.0.1"
peer = "224.0.0.1""#,
            &[
                "7:8: the peer has the firewall's own address",
                "10:11: 127.0.0.1 is a loopback address",
                "11:8: 224.0.0.1 is a multicast address",
            ],
        ),
        (
            r#"UPLINK
client = "work""#,
            &[r#"4:1: unknown key "client" in [uplink]"#],
        ),
    ]);
}

#[test]
fn routes() {
    refuses(&[
        (
            r#"UPLINK
WORK
[[route]]
to = "172.16.1.0/12"
via = "10.0.1.254""#,
            &["8:6: 172.16.1.0/12 has host bits set; the network is 172.16.0.0/12"],
        ),
        (
            r#"UPLINK
WORK
[[route]]
to = "172.16.0.0/12"
via = "10.0.9.254""#,
            &["9:7: 10.0.9.254 is not on-link at any port"],
        ),
        (
            r#"UPLINK
WORK
[[route]]
to = "172.16.0.0/12"
via = "10.0.1.1"
[[route]]
to = "172.16.0.0/12"
via = "10.0.1.255"
[[route]]
to = "10.0.1.0/24"
via = "192.0.2.7"
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.7"
[[route]]
to = "224.0.0.0/4"
via = "192.0.2.7"
[[route]]
to = "1.0.0.0/8""#,
            &[
                "9:7: 10.0.1.1 is the firewall's own address",
                "11:6: a route to 172.16.0.0/12 is there already",
                "12:7: 10.0.1.255 is the broadcast address of its network",
                r#"14:6: 10.0.1.0/24 is the network of client "work""#,
                "17:6: the uplink's gateway is the default route already",
                "20:6: no route leads to 224.0.0.0/4",
                r#"22:1: [[route]] has no "via", such as via = "10.0.1.254""#,
            ],
        ),
    ]);
}

#[test]
fn limits_and_timers() {
    refuses(&[
        (
            r#"UPLINK
[nat]
sessions = 15"#,
            &[r#"5:12: "sessions" must be from 16 to 1048576"#],
        ),
        (
            r#"UPLINK
[nat]
sessions = 1048577"#,
            &[r#"5:12: "sessions" must be from 16 to 1048576"#],
        ),
        (
            r#"UPLINK
[nat]
sessions = 1.5
inbound_refresh = 1"#,
            &[
                r#"5:12: "sessions" must be a whole number, not float"#,
                r#"6:19: "inbound_refresh" must be true or false, not integer"#,
            ],
        ),
        (
            r#"UPLINK
[nat]
external_ports = "1023-65535""#,
            &[r#"5:18: external_ports must be a range within 1024-65535, such as "1024-65535""#],
        ),
        (
            r#"UPLINK
[nat]
external_ports = "5000-4000""#,
            &[r#"5:18: external_ports must be a range within 1024-65535, such as "1024-65535""#],
        ),
        (
            r#"UPLINK
[nat]
external_ports = "1024""#,
            &[r#"5:18: external_ports must be a range within 1024-65535, such as "1024-65535""#],
        ),
        (
            r#"UPLINK
[nat]
external_ports = "1024-65536""#,
            &[r#"5:18: external_ports must be a range within 1024-65535, such as "1024-65535""#],
        ),
        (
            r#"UPLINK
[nat]
mapping = "address-dependent"
[nat.filtering_by]
icmp = "endpoint-independent""#,
            &[
                r#"5:11: mapping = "address-dependent" is not available in this version"#,
                r#"7:8: ICMP queries are filtered by address and port in this version"#,
            ],
        ),
        (
            r#"UPLINK
[nat]
mapping = "endpoint-independant""#,
            &[
                r#"5:11: "endpoint-independant" is no mapping; expected one of: endpoint-independent, address-dependent, address-and-port-dependent; did you mean "endpoint-independent"?"#,
            ],
        ),
        (
            r#"UPLINK
[nat.timeout]
udp = 119
tcp_established = 7439
tcp_transitory = 239
icmp = 59
other = 0
tcp_establishd = 9000"#,
            &[
                r#"5:7: "udp" must be from 120 to 31536000 seconds (RFC 4787 REQ-5)"#,
                r#"6:19: "tcp_established" must be from 7440 to 31536000 seconds (RFC 5382 REQ-5)"#,
                r#"7:18: "tcp_transitory" must be from 240 to 31536000 seconds (RFC 5382 REQ-5)"#,
                r#"8:8: "icmp" must be from 60 to 31536000 seconds (RFC 5508 REQ-2)"#,
                r#"9:9: "other" must be from 1 to 31536000 seconds"#,
                r#"10:1: unknown key "tcp_establishd" in [nat.timeout]; did you mean "tcp_established"?"#,
            ],
        ),
    ]);
}

#[test]
fn keys_and_sizes() {
    refuses(&[
        (
            r#"UPLINK
[nat]
sesions = 5
[nta]
[panic]
action = "halt"
acton = 1"#,
            &[
                r#"5:1: unknown key "sesions" in [nat]; did you mean "sessions"?"#,
                r#"6:2: unknown key "nta" in weir.toml; did you mean "nat"?"#,
                r#"8:10: "halt" is no action; expected "poweroff" or "reboot""#,
                r#"9:1: unknown key "acton" in [panic]; did you mean "action"?"#,
            ],
        ),
        (
            r#"memory = "32"
UPLINK"#,
            &[r#"1:10: memory must be a size from "4M" to "1024G", such as "32M""#],
        ),
        (
            r#"memory = "3M"
UPLINK"#,
            &[r#"1:10: memory must be a size from "4M" to "1024G", such as "32M""#],
        ),
        (
            r#"memory = 32
UPLINK"#,
            &[r#"1:10: "memory" must be a string, not integer"#],
        ),
        (
            r#"UPLINK
[[client]
name = "x""#,
            &["4:10: unclosed array table, expected `]`", r#"5:1: unknown key "name" in weir.toml"#],
        ),
    ]);
}

#[test]
fn more_clients_than_ports() {
    let client = |i| format!("[[client]]\nname = \"c{i}\"\naddress = \"10.0.{i}.1/24\"\n");
    let plan = format!("{UPLINK_LINES}\n{}", (0..33).map(client).collect::<String>());
    let told = compile_text(&plan, "# weir: allow open\n").err().map(|diagnostics| lines(&diagnostics));
    assert_eq!(told, Some(vec!["weir.toml:100:1: a site has at most 32 clients".to_owned()]));
    let plan = format!("{UPLINK_LINES}\n{}", (0..32).map(client).collect::<String>());
    assert!(compile_text(&plan, "# weir: allow open\n").is_ok());
}

#[test]
fn everything_that_may_be_said_is_kept() {
    let plan = r#"
memory = "1G"
[uplink]
address = "192.0.2.2/31"
mac = "52:54:00:00:00:01"
mtu = 1400
extra = ["198.51.100.9"]
[[client]]
name = "a.b-c_9"
address = "10.0.1.1/24"
mac = "52:54:00:00:01:0A"
hosts = ["10.0.1.2", "10.0.1.3"]
mtu = 8166
[[client]]
name = "vault"
address = "10.137.0.1"
peer = "10.137.0.10"
[[route]]
to = "172.16.0.0/12"
via = "10.137.0.10"
[nat]
mapping = "endpoint-independent"
filtering = "address-and-port-dependent"
sessions = 1_000
external_ports = "2000-3000"
inbound_refresh = true
[nat.timeout]
udp = 120
tcp_established = 7440
tcp_transitory = 240
icmp = 60
other = 1
[panic]
action = "reboot"
"#;
    let compiled =
        compile_text(plan, "# weir: allow open\n").unwrap_or_else(|d| panic!("{}", d.render(false)));
    let site = compiled.leak();
    assert_eq!((site.memory, site.panic), (Some(1024), PanicAction::Reboot));
    assert_eq!(site.uplink.address, Prefix { address: [192, 0, 2, 2].into(), length: 31 });
    assert_eq!((site.uplink.gateway, site.uplink.mtu), (None, Some(1400)));
    assert_eq!(
        (site.uplink.mac, site.uplink.extra),
        (Some([0x52, 0x54, 0, 0, 0, 1]), &[[198, 51, 100, 9].into()][..])
    );
    let [first, vault] = site.clients else { panic!("two clients") };
    assert_eq!((first.name, first.network, first.mtu), ("a.b-c_9", ClientNetwork::Subnet(24), Some(8166)));
    assert_eq!((first.mac, first.hosts.len()), (Some([0x52, 0x54, 0, 0, 1, 10]), 2));
    assert_eq!((vault.network, vault.hosts), (ClientNetwork::Peer([10, 137, 0, 10].into()), &[][..]));
    assert_eq!(site.routes[0].via, Ipv4Addr::new(10, 137, 0, 10));
    let timeout = Timeouts { udp: 120, other: 1, ..Timeouts::DEFAULT };
    let nat =
        Nat { sessions: 1000, external_ports: (2000, 3000), timeout, inbound_refresh: true, ..Nat::DEFAULT };
    assert_eq!(site.nat, nat);
}

#[test]
fn what_is_not_said_has_its_default() {
    let compiled = compile_text(UPLINK_LINES, "# weir: allow open\n").expect("it compiles");
    let site = compiled.leak();
    assert_eq!((site.memory, site.panic, &site.nat), (None, PanicAction::PowerOff, &Nat::DEFAULT));
    assert_eq!((site.clients.len(), site.uplink.gateway), (0, Some([192, 0, 2, 1].into())));
}
