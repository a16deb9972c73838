//! Sets of numbers as ranges that are sorted and apart.

use std::sync::Arc;

pub(crate) type Ranges = Vec<(u32, u32)>;

/// Ranges that stay as they are; those of a named set are shared by all who look into it.
pub(crate) type Shared = Arc<[(u32, u32)]>;

/// Sorts ranges and joins those that touch; true when two had a value in common.
pub(crate) fn normalise(mut ranges: Ranges) -> (Ranges, bool) {
    ranges.sort_unstable();
    let mut joined: Ranges = Vec::with_capacity(ranges.len());
    let mut overlaps = false;
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => {
                overlaps = true;
                *end = last.max(*end);
            }
            Some((_, end)) if first == end.saturating_add(1) => *end = last,
            _ => joined.push((first, last)),
        }
    }
    (joined, overlaps)
}

/// The values up to `max` that are in none of the ranges.
pub(crate) fn complement(ranges: &[(u32, u32)], max: u32) -> Ranges {
    let mut rest = Ranges::new();
    let mut next = Some(0u32);
    for &(first, last) in ranges {
        match next {
            Some(start) if start < first => rest.push((start, first - 1)),
            None => return rest,
            _ => {}
        }
        next = last.checked_add(1);
    }
    if let Some(start) = next.filter(|&start| start <= max) {
        rest.push((start, max));
    }
    rest
}

/// Whether a range has a value in common with these.
pub(crate) fn meets(ranges: &[(u32, u32)], (first, last): (u32, u32)) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= last);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, end)| first <= end)
}

/// The values in both.
pub(crate) fn intersection(a: &[(u32, u32)], b: &[(u32, u32)]) -> Ranges {
    let (mut i, mut j) = (0, 0);
    let mut both = Ranges::new();
    while let (Some(&(a_first, a_last)), Some(&(b_first, b_last))) = (a.get(i), b.get(j)) {
        let (first, last) = (a_first.max(b_first), a_last.min(b_last));
        if first <= last {
            both.push((first, last));
        }
        if a_last <= b_last {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_cut_and_turned_round() {
        let (ranges, overlaps) = normalise(vec![(5, 6), (1, 2), (3, 3), (6, 9)]);
        assert_eq!((ranges, overlaps), (vec![(1, 3), (5, 9)], true));
        assert_eq!(complement(&[(1, 3), (5, 9)], 10), vec![(0, 0), (4, 4), (10, 10)]);
        assert_eq!(complement(&[(0, u32::MAX)], u32::MAX), vec![]);
        assert_eq!(complement(&[], 255), vec![(0, 255)]);
        assert_eq!(intersection(&[(1, 5), (8, 9)], &[(0, 1), (4, 8)]), vec![(1, 1), (4, 5), (8, 8)]);
    }
}
