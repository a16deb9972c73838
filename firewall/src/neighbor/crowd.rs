//! Who goes when the table is full: whoever scans a subnet, or floods it with claims, ends what he brought.

use super::{NEIGHBORS, Neighbors, Refused};

/// Looks for an entry to remove: how many are looked at, whether only those of the port that has most, and whether an
/// entry in use is spared once only.
const PASSES: [(usize, bool, bool); 3] =
    [(NEIGHBORS, true, false), (NEIGHBORS, true, true), (2 * NEIGHBORS, false, true)];

impl<F> Neighbors<F> {
    /// Removes one entry for which nothing waits: of the port that has most, and if possible one that is not in use.
    pub(super) fn evict(&mut self) -> Result<(), Refused> {
        let most = (0..).zip(&self.of_port).max_by_key(|&(_, count)| count);
        let crowd = most.map_or(0, |(port, _)| port);
        for (steps, is_of_crowd, clears) in PASSES {
            for _ in 0..steps {
                self.hand = (self.hand + 1) % NEIGHBORS;
                let hand = self.hand;
                let Some(entry) = self.entries.get_mut(hand) else { continue };
                if entry.waiting > 0 || is_of_crowd && entry.key.port() != crowd {
                    continue;
                }
                let was_in_use = entry.in_use;
                entry.in_use &= !clears;
                if !was_in_use {
                    self.remove(hand);
                    return Ok(());
                }
            }
        }
        Err(Refused::Table)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use netback::Head;
    use smoltcp::time::{Duration, Instant};
    use smoltcp::wire::EthernetAddress;

    use super::super::{QUEUE, WAITING, Waiting};
    use super::*;

    const STATION: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn packet(number: usize) -> Waiting<usize> {
        Waiting { head: Head::EMPTY, payload: Some((number, 0..0)), input: 1, is_received: false }
    }

    /// Neighbours of three ports, one of each in use.
    fn used() -> Neighbors<usize> {
        let mut neighbors = Neighbors::new(3, 7);
        for port in 0..3 {
            neighbors.learn(port, GATEWAY, STATION, true, Instant::ZERO, |_| {});
            assert_eq!(neighbors.lookup(port, GATEWAY, Instant::ZERO), Some(STATION));
        }
        neighbors
    }

    #[test]
    fn who_is_in_use_stays_whoever_scans_or_claims() {
        for port in 0..3 {
            let mut neighbors = used();
            for n in 0..20_000_u32 {
                let (address, now) =
                    (Ipv4Addr::from_bits(0x0a01_0000 + n), Instant::from_millis(i64::from(n)));
                if n % 2 == 0 {
                    assert_eq!(neighbors.lookup(port, address, now), None);
                    assert!(neighbors.enqueue(port, address, packet(0), now, |_| {}).is_ok());
                } else {
                    neighbors.learn(port, address, STATION, true, now, |_| {});
                }
            }
            assert_eq!(neighbors.len(), NEIGHBORS);
            for port in 0..3 {
                assert_eq!(neighbors.lookup(port, GATEWAY, Instant::from_secs(20)), Some(STATION), "{port}");
            }
        }
    }

    #[test]
    fn rfc_1122_2_3_2_2_a_scan_does_not_keep_a_packet_from_waiting_for_who_answers() {
        let (mut neighbors, mut ousted) = (used(), 0);
        for n in 0..10_000_u32 {
            let now = Instant::ZERO + Duration::from_micros(u64::from(n) * 100);
            let scanned = Ipv4Addr::from_bits(0x0a01_0000 + n);
            assert!(neighbors.enqueue(1, scanned, packet(0), now, |_| ousted += 1).is_ok());
            // It answers after a millisecond.
            if n % 100 == 0 {
                let honest = Ipv4Addr::new(10, 9, (n / 25_600) as u8, (n / 100) as u8);
                assert!(neighbors.enqueue(1, honest, packet(7), now, |_| ousted += 1).is_ok());
            }
            if n % 100 == 10 {
                let honest = Ipv4Addr::new(10, 9, (n / 25_600) as u8, (n / 100) as u8);
                let mut came = heapless::Vec::<_, QUEUE>::new();
                neighbors.learn(1, honest, STATION, true, now, |packet| drop(came.push(packet)));
                assert_eq!(came.iter().filter_map(|it| it.payload.as_ref()).map(|it| it.0).sum::<usize>(), 7);
            }
            let waits = neighbors.entries.iter().map(|entry| entry.waiting).sum::<usize>();
            assert!(waits == neighbors.waiting.len() && waits <= WAITING / 2);
        }
        assert_eq!(ousted + 100 + neighbors.waiting.len(), 10_100);
    }

    #[test]
    fn counts_of_ports_add_up() {
        let mut neighbors = used();
        for n in 0..5000_u32 {
            neighbors.learn(n as usize % 2, Ipv4Addr::from_bits(n), STATION, true, Instant::ZERO, |_| {});
        }
        assert_eq!(neighbors.of_port.iter().map(|&count| usize::from(count)).sum::<usize>(), NEIGHBORS);
        neighbors.forget(1, |_| {});
        assert_eq!(neighbors.of_port[1], 0);
        assert_eq!(usize::from(neighbors.of_port[0] + neighbors.of_port[2]), neighbors.len());
    }
}
