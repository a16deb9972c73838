use super::*;

const KEY: Key = Key { addresses: 1, rest: 2 };
const HELD: usize = 256;
const NOW: Instant = Instant::from_millis_const(5);

fn part(offset: u16, length: u16, more: bool) -> Fragment {
    Fragment { offset, length, more }
}

fn key(source: u64, datagram: u64) -> Key {
    Key { addresses: source << 32, rest: datagram }
}

#[test]
fn rfc_5722_overlaps_end_the_datagram_and_duplicates_do_not() {
    let mut fragments = Fragments::<()>::new(HELD, 1);
    assert!(fragments.arrive(KEY, part(0, 16, true), NOW).is_ok());
    assert_eq!(fragments.arrive(KEY, part(0, 16, true), NOW).err(), Some(Refused::Duplicate));
    assert_eq!(fragments.arrive(KEY, part(8, 16, true), NOW).err(), Some(Refused::Overlap));
    assert_eq!(fragments.arrive(KEY, part(16, 16, true), NOW).err(), Some(Refused::Ended));
}

#[test]
fn nothing_lies_behind_the_last_fragment_and_there_is_one_last() {
    for late in [part(40, 8, true), part(32, 16, false), part(16, 8, false)] {
        let mut fragments = Fragments::<()>::new(HELD, 1);
        assert!(fragments.arrive(KEY, part(24, 8, false), NOW).is_ok());
        assert_eq!(fragments.arrive(KEY, late, NOW).err(), Some(Refused::Overlap), "{late:?}");
    }
}

#[test]
fn req_14_any_order_completes_and_is_forgotten() {
    let parts = [part(0, 16, true), part(16, 16, true), part(32, 16, true), part(48, 3, false)];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let mut fragments = Fragments::<()>::new(HELD, 1);
        for (count, index) in order.into_iter().enumerate() {
            assert!(fragments.arrive(KEY, parts[index], NOW).is_ok());
            fragments.forget_complete(KEY);
            assert_eq!(fragments.index.is_empty(), count == 3);
        }
    }
}

#[test]
fn req_14_a_flood_is_bounded_per_source_and_in_total_and_locks_nobody_out() {
    let mut fragments = Fragments::new(HELD, 7);
    for datagram in 0..20_000 {
        let flood = key(10, datagram);
        if fragments.arrive(flood, part(8, 8, true), NOW).is_ok() {
            let _ = fragments.hold(flood, ());
        }
        assert!(fragments.held() <= QUOTA);
    }
    for source in 100..20_000 {
        let spread = key(source, 0);
        if fragments.arrive(spread, part(8, 8, true), NOW).is_ok() {
            let _ = fragments.hold(spread, ());
        }
        assert!(fragments.held() <= HELD);
    }
    assert_eq!(fragments.datagrams.iter().flatten().count(), fragments.index.len());
    // Another source's datagram still gets through, also back to front.
    let (other, mut released) = ((11..20).map(|source| key(source, 1)), 0);
    for other in other {
        assert!(fragments.arrive(other, part(8, 8, false), NOW).is_ok());
        assert_eq!(fragments.hold(other, ()), Ok(()));
        assert!(matches!(fragments.arrive(other, part(0, 8, true), NOW), Ok(Fate::Unknown)));
        fragments.decide(other, Fate::Ended, |()| released += 1);
    }
    assert_eq!(released, 9);
}

#[test]
fn req_14_a_source_whose_fragments_get_lost_goes_on_all_the_same() {
    for is_first_lost in [false, true] {
        let mut fragments = Fragments::new(HELD, 7);
        let mut whole = 0;
        for datagram in 0..2000 {
            let (key, is_whole) = (key(10, datagram), datagram % 4 == 0);
            let now = NOW + Duration::from_millis(datagram);
            // The second one comes ahead of the first, if that comes.
            let comes = |is_first| is_whole || is_first != is_first_lost;
            if comes(false) {
                assert!(fragments.arrive(key, part(8, 8, false), now).is_ok(), "{datagram}");
                assert_eq!(fragments.hold(key, ()), Ok(()), "{datagram}");
            }
            if comes(true) {
                assert!(matches!(fragments.arrive(key, part(0, 8, true), now), Ok(Fate::Unknown)));
                fragments.decide(key, Fate::Answered, |()| whole += 1);
                fragments.forget_complete(key);
            }
        }
        assert_eq!(whole, 500);
        let used = fragments.usage.iter().fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1));
        assert!(used.0 <= QUOTA as u16 && used.1 <= QUOTA as u16, "{used:?}");
        assert_eq!(fragments.held.len(), used.1.into());
        let ages = fragments.ages.iter().filter(|age| age.expires != NOBODY.expires).count();
        assert_eq!((ages, fragments.index.len()), (usize::from(used.0), usize::from(used.0)));
    }
}

#[test]
fn what_never_completes_is_gone_after_its_time() {
    let mut fragments = Fragments::new(HELD, 7);
    for datagram in 0..40 {
        assert!(fragments.arrive(key(1, datagram), part(8, 8, true), NOW).is_ok());
        assert!(fragments.hold(key(1, datagram), ()).is_ok());
    }
    fragments.upkeep(NOW + TIMEOUT - Duration::from_millis(1), DATAGRAMS);
    assert_eq!((fragments.take_lost(), fragments.held()), (None, 40));
    fragments.upkeep(NOW + TIMEOUT, DATAGRAMS);
    assert_eq!((fragments.take_lost(), fragments.held()), (Some((0, 40)), 0));
    assert_eq!(fragments.next_upkeep(NOW), None);
    assert_eq!(fragments.take_lost(), None);
    assert!(fragments.usage.iter().all(|&usage| usage == (0, 0)));
}

#[test]
fn req_13_pieces_are_in_order_aligned_and_fit() {
    for (length, mtu) in [(1461, 1400), (8000, 1500), (100, 68), (1380, 1400), (0, 1500)] {
        let mut next = 0;
        for piece in pieces(20, length, mtu).unwrap() {
            assert_eq!(piece.start, next);
            assert!(20 + piece.end - piece.start <= mtu);
            assert!(piece.end == length || piece.end % 8 == 0);
            next = piece.end;
        }
        assert_eq!(next, length);
    }
    assert!(pieces(60, 100, 67).is_none());
}
