//! Values that a policy speaks of: packets around them tell one rule from the next.

use std::net::Ipv4Addr;

/// Services that the files of these tests call by name.
const SERVICES: &[(&str, u16)] = &[
    ("ssh", 22),
    ("domain", 53),
    ("bootps", 67),
    ("http", 80),
    ("ntp", 123),
    ("https", 443),
    ("smtp", 25),
    ("imaps", 993),
    ("microsoft-ds", 445),
    ("isakmp", 500),
    ("ms-wbt-server", 3389),
    ("openvpn", 1194),
];

/// Addresses and numbers of a text, and their neighbours.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Addresses, and the ends of prefixes and what is next to them.
    pub addresses: Vec<Ipv4Addr>,
    /// Numbers below 65 536 and those next to them.
    pub numbers: Vec<u16>,
}

impl Interest {
    /// What `text` speaks of.
    pub fn new(text: &str) -> Self {
        let (mut addresses, mut numbers) = (Vec::new(), Vec::new());
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || "./-_".contains(c))) {
                for part in word.split('-') {
                    address(part, &mut addresses);
                    number(part, &mut numbers);
                }
                let service = SERVICES.iter().find(|(name, _)| *name == word);
                numbers.extend(service.map(|(_, port)| *port));
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        numbers.sort_unstable();
        numbers.dedup();
        Self { addresses, numbers }
    }
}

fn address(part: &str, into: &mut Vec<Ipv4Addr>) {
    let (text, length) = part.split_once('/').unwrap_or((part, "32"));
    let (Ok(address), Ok(length)) = (text.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return };
    let host = u32::MAX.checked_shr(length).unwrap_or(0);
    let (first, last) = (address.to_bits() & !host, address.to_bits() | host);
    let near = [first.wrapping_sub(1), first, first | (host & 5), last, last.wrapping_add(1)];
    into.extend(near.map(Ipv4Addr::from_bits));
}

fn number(part: &str, into: &mut Vec<u16>) {
    let Ok(number) = part.parse::<u16>() else { return };
    into.extend([number.saturating_sub(1), number, number.saturating_add(1)]);
}
