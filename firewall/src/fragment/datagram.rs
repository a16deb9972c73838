//! A datagram of which fragments have come: what is covered, and what became of the first one.

use nat::Fragment;
use smoltcp::time::Instant;

use super::{Fate, Key, RUNS, Refused};

pub(super) struct Datagram {
    pub(super) key: Key,
    pub(super) fate: Fate,
    pub(super) class: u8,
    pub(super) held: u16,
    pub(super) expires: Instant,
    /// What has come, as runs of octets: apart, in order.
    pub(super) runs: heapless::Vec<(u16, u16), RUNS>,
    /// Where the datagram ends, once its last fragment has come.
    pub(super) end: Option<u16>,
}

impl Datagram {
    /// Notes the octets of a fragment.
    pub(super) fn cover(&mut self, fragment: Fragment) -> Result<(), Refused> {
        let (start, end) = (fragment.offset, fragment.end());
        let beyond = self.end.is_some_and(|last| end > last || !fragment.more && end != last);
        let behind = !fragment.more && self.runs.last().is_some_and(|run| run.1 > end);
        if beyond || behind {
            return Err(Refused::Overlap);
        }
        // The runs that the fragment touches: from the first that ends at its start or later.
        let first = self.runs.iter().position(|run| run.1 >= start).unwrap_or(self.runs.len());
        let (mut low, mut high) = (start, end);
        let mut touched = 0;
        for &(run_start, run_end) in self.runs.iter().skip(first).take_while(|run| run.0 <= end) {
            if run_start <= start && end <= run_end {
                return Err(Refused::Duplicate);
            }
            if run_start < end && start < run_end {
                return Err(Refused::Overlap);
            }
            (low, high) = (low.min(run_start), high.max(run_end));
            touched += 1;
        }
        for _ in 0..touched {
            self.runs.remove(first);
        }
        self.runs.insert(first, (low, high)).map_err(|_| Refused::Overlap)?;
        if !fragment.more {
            self.end = Some(end);
        }
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!((self.end, self.runs.as_slice()), (Some(end), &[(0, covered)]) if covered == end)
    }
}
