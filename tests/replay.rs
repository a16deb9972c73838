//! A capture through the datapath: what `weir replay` says of each packet.

use std::sync::atomic::AtomicBool;
use std::{env, fs, process};

use qemu::replay::{Stopped, replay};
use tests::flags::{ACK, SYN};
use tests::site::{PLAN, RULES, plan_with, site};
use tests::{echo, packet::Packet, tcp, udp};

/// A packet of a capture: its second, and its octets.
type Captured = (u32, Vec<u8>);

fn at(second: u32, packet: Packet) -> Captured {
    (second, packet.into())
}

/// A pcap file of this link type, octets at their whole length.
fn pcap(link: u32, packets: &[Captured]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link].map(u32::to_le_bytes).concat();
    for (second, octets) in packets {
        let length = octets.len() as u32;
        file.extend([*second, 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(octets);
    }
    file
}

/// What is said of a file, and whether it ended well.
fn said(name: &str, plan: &str, rules: &str, file: &[u8], port: Option<&str>) -> (String, Option<String>) {
    let path = env::temp_dir().join(format!("weir-replay-{name}-{}", process::id()));
    fs::write(&path, file).expect("a file");
    let mut out = Vec::new();
    let result = replay(site(plan, rules), &path, port, &mut out, &AtomicBool::new(false));
    fs::remove_file(&path).expect("the file");
    let error = result.err().map(|stopped| match stopped {
        Stopped::Failed(error) => error.to_string(),
        Stopped::Unread(error) => panic!("{error}"),
    });
    (String::from_utf8(out).expect("text"), error)
}

/// The lines about raw packets, their columns one space apart.
fn lines(name: &str, plan: &str, packets: &[Captured]) -> Vec<String> {
    let (text, error) = said(name, plan, RULES, &pcap(101, packets), None);
    assert_eq!(error, None);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const INSIDE: &str = "10.0.1.2:40000";
const SERVER: &str = "198.51.100.7:443";

#[test]
fn each_packet_is_told_with_its_rule_and_what_left() {
    let packets = [
        at(1, tcp(INSIDE, SERVER, SYN, b"")),
        at(1, tcp(SERVER, "192.0.2.2:40000", (SYN | ACK, 5000, 1001), b"")),
        at(2, tcp(INSIDE, "198.51.100.7:26", SYN, b"")),
        at(2, udp(INSIDE, "198.51.100.7:27", b"")),
        at(3, udp("10.0.9.9:1", SERVER, b"")),
        at(3, udp("10.0.1.255:1", SERVER, b"")),
        at(3, tcp(SERVER, "192.0.2.2:9", ACK, b"")),
        at(4, echo("10.0.1.2", "10.0.1.1", 7, 1, b"")),
        at(5, tcp("198.51.100.8:5000", "192.0.2.2:8080", SYN, b"")),
    ];
    let wanted = [
        "1 work tcp 10.0.1.2:40000 > 198.51.100.7:443 syn forwarded rules.nft:23 rules.nft:11 -> uplink tcp 192.0.2.2:40000 > 198.51.100.7:443 syn",
        "2 uplink tcp 198.51.100.7:443 > 192.0.2.2:40000 syn,ack forwarded by its session -> work tcp 198.51.100.7:443 > 10.0.1.2:40000 syn,ack",
        "3 work tcp 10.0.1.2:40000 > 198.51.100.7:26 syn rejected rules.nft:21 -> work tcp 198.51.100.7:26 > 10.0.1.2:40000 rst,ack",
        "4 work udp 10.0.1.2:40000 > 198.51.100.7:27 dropped rules.nft:22",
        "5 uplink udp 10.0.9.9:1 > 198.51.100.7:443 dropped not_ours",
        "6 work udp 10.0.1.255:1 > 198.51.100.7:443 dropped spoofed",
        "7 uplink tcp 198.51.100.7:443 > 192.0.2.2:9 ack dropped rules.nft:29",
        "8 work icmp 10.0.1.2 > 10.0.1.1 echo-request id 7 answered rules.nft:31 -> work icmp 10.0.1.1 > 10.0.1.2 echo-reply id 7",
        "9 uplink tcp 198.51.100.8:5000 > 192.0.2.2:8080 syn forwarded rules.nft:5 rules.nft:19 -> work tcp 198.51.100.8:5000 > 10.0.1.2:80 syn",
        "9 packets: 3 forwarded, 1 answered, 1 rejected, 4 dropped, 0 held, 0 skipped",
    ];
    let told = lines("rules", PLAN, &packets);
    for (told, wanted) in told.iter().zip(wanted) {
        assert_eq!(told, wanted);
    }
    assert_eq!(told.len(), wanted.len());
}

#[test]
fn time_is_that_of_the_capture() {
    let answer = |second| at(second, udp(SERVER, "192.0.2.2:40000", b""));
    // RFC 4787 REQ-5: 300 seconds from the first reply on, which alone of what comes in refreshes. A clock that
    // goes back stands still.
    let packets = [
        at(1_000_000_000, udp(INSIDE, SERVER, b"")),
        answer(1_000_000_299),
        answer(5),
        answer(1_000_000_602),
    ];
    let told = lines("time", PLAN, &packets);
    for (line, wanted) in told.iter().zip([
        "rules.nft:11 -> uplink",
        "by its session -> work",
        "by its session -> work",
        "dropped rules.nft:28",
    ]) {
        assert!(line.contains(wanted), "{wanted} in {told:?}");
    }
    // As far apart as a capture can have them.
    assert_eq!(lines("far", PLAN, &[answer(0), answer(u32::MAX), answer(0)]).len(), 4);
}

#[test]
fn routes_and_peers_tell_the_port() {
    let more = "[[client]]\nname = \"vault\"\naddress = \"10.137.0.1\"\npeer = \"10.137.0.10\"\n\
                [[route]]\nto = \"172.16.0.0/12\"\nvia = \"10.0.2.254\"\n";
    let from = |source: &str| at(1, udp(source, SERVER, b""));
    let packets = [from("10.137.0.10:5"), from("172.16.5.5:5"), from("10.0.2.9:5"), from("10.0.2.1:5")];
    let told = lines("ports", &plan_with(more), &packets);
    for (line, wanted) in told.iter().zip(["1 vault", "2 lab", "3 lab", "4 lab"]) {
        assert!(line.starts_with(wanted), "{told:?}");
    }
    assert!(told[3].ends_with("dropped spoofed"), "{told:?}");
}

#[test]
fn one_port_for_all_packets() {
    let file = pcap(101, &[at(1, udp(INSIDE, SERVER, b""))]);
    let (text, error) = said("port", PLAN, RULES, &file, Some("lab"));
    assert_eq!(error, None);
    assert!(text.contains("lab ") && text.contains("dropped spoofed"), "{text}");
    let (text, error) = said("no-port", PLAN, RULES, &file, Some("wrok"));
    assert_eq!(text, "");
    assert!(
        error.as_ref().is_some_and(|error| error.contains("its ports are uplink, work, lab")),
        "{error:?}"
    );
}

#[test]
fn fragments_are_held_until_their_first_one_comes() {
    let whole = udp(INSIDE, SERVER, &[7; 1992]);
    let packets = [at(1, whole.clone().fragment(1480..2000)), at(1, whole.clone().fragment(0..1480))];
    let told = lines("fragments", PLAN, &packets);
    assert!(told[0].ends_with("fragment at 1480 held"), "{told:?}");
    assert!(
        told[1].contains(" forwarded rules.nft:23 rules.nft:11 -> uplink udp 192.0.2.2:40000"),
        "{told:?}"
    );
    assert!(told[1].contains(" + uplink udp 192.0.2.2 > 198.51.100.7 fragment at 1480"), "{told:?}");
    // Half a minute later a lone one is given up.
    let packets =
        [at(1, whole.clone().fragment(1480..2000)), at(60, echo("10.0.1.2", "10.0.1.1", 7, 1, b""))];
    let told = lines("lone", PLAN, &packets);
    assert_eq!(told[1], "- - (time passes) dropped fragment_timeout");
}

#[test]
fn ethernet_frames_tell_their_type_and_group() {
    let packet: Vec<u8> = udp(INSIDE, SERVER, b"to nobody else").into();
    let framed = |to: [u8; 6], kind: [u8; 2], octets: &[u8]| (1, [&to[..], &[2; 6], &kind, octets].concat());
    let packets = [
        framed([2, 0, 0, 0, 0, 9], [8, 0], &packet),
        framed([0xff; 6], [8, 0], &packet),
        framed([0xff; 6], [8, 6], &[0; 28]),
        framed([0xff; 6], [0x86, 0xdd], &[0x60; 40]),
        (1, vec![2; 9]),
    ];
    let (text, error) = said("ethernet", PLAN, RULES, &pcap(1, &packets), None);
    assert_eq!(error, None);
    let told: Vec<&str> = text.lines().collect();
    assert!(told[0].contains("forwarded rules.nft:23 rules.nft:11"), "{text}");
    assert!(told[1].contains("dropped other_station"), "{text}");
    assert!(told[2].ends_with("skipped ARP: neighbours answer by themselves"), "{text}");
    assert!(told[3].ends_with("skipped type 86dd, not IPv4"), "{text}");
    assert!(told[4].ends_with("skipped no whole Ethernet header"), "{text}");
}

#[test]
fn what_the_capture_has_cut_is_passed_on_all_the_same() {
    let whole: Vec<u8> = udp(INSIDE, SERVER, &[7; 900]).into();
    let mut file = pcap(101, &[(1, whole[..96].to_vec())]);
    file[24 + 12..24 + 16].copy_from_slice(&(whole.len() as u32).to_le_bytes());
    let (text, _) = said("cut", PLAN, RULES, &file, None);
    assert!(text.contains("forwarded rules.nft:23"), "{text}");
}

#[test]
fn a_damaged_capture_shows_what_came_before_it_and_where_it_ends() {
    let file = pcap(101, &[at(1, udp(INSIDE, SERVER, b"")), at(1, udp(INSIDE, SERVER, b""))]);
    let (text, error) = said("damaged", PLAN, RULES, &file[..file.len() - 1], None);
    assert_eq!(text.lines().count(), 1);
    let error = error.expect("an error");
    assert!(error.contains("octet 68, behind packet 1: the file ends within a block"), "{error}");
}

#[test]
fn packets_of_any_octets_are_judged() {
    let mut chance = tests::Chance::new(7);
    let packet: Vec<u8> = udp(INSIDE, SERVER, b"data").into();
    let mut packets = Vec::new();
    for second in 0..2000 {
        let mut octets = packet.clone();
        for _ in 0..1 + chance.below(4) {
            let at = chance.below(octets.len());
            octets[at] = chance.octet();
        }
        octets.truncate(chance.below(64));
        packets.push((second, octets));
    }
    let (text, error) = said("any", PLAN, RULES, &pcap(101, &packets), None);
    assert_eq!(error, None);
    assert!(text.lines().last().is_some_and(|last| last.starts_with("2000 packets: ")), "{text}");
}
