//! Taking turns: deficit round robin over those that have something, the new ones before the others (RFC 8290 4.2).

/// No number.
pub(super) const NONE: u16 = u16::MAX;

/// Octets in a turn. Several packets of a link's MTU; who sends less in a round is served as new each time.
const QUANTUM: i32 = 8192;

/// Something in a table that can be in a [`Chain`].
pub(super) trait Linked {
    /// The number of the one behind.
    fn next(&mut self) -> &mut u16;
}

/// Numbers in the order in which they came, linked in the table that they are of.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    first: u16,
    last: u16,
}

impl Chain {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE };

    pub(super) fn first(&self) -> Option<u16> {
        Some(self.first).filter(|&first| first != NONE)
    }

    /// Whether there is one, and nothing behind it.
    pub(super) fn is_single(&self) -> bool {
        self.first == self.last
    }

    pub(super) fn push(&mut self, table: &mut [impl Linked], number: u16) {
        if let Some(pushed) = table.get_mut(usize::from(number)) {
            *pushed.next() = NONE;
        }
        match table.get_mut(usize::from(self.last)).filter(|_| self.first != NONE) {
            Some(last) => *last.next() = number,
            None => self.first = number,
        }
        self.last = number;
    }

    pub(super) fn pop(&mut self, table: &mut [impl Linked]) -> Option<u16> {
        let first = self.first()?;
        self.first = table.get_mut(usize::from(first)).map_or(NONE, |popped| *popped.next());
        Some(first)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Idle,
    New,
    Old,
}

/// What somebody may send, and where it stands in its round.
pub(super) struct Share {
    deficit: i32,
    next: u16,
    standing: Standing,
}

impl Share {
    pub(super) const IDLE: Self = Self { deficit: 0, next: NONE, standing: Standing::Idle };

    pub(super) fn is_idle(&self) -> bool {
        self.standing == Standing::Idle
    }

    /// So much was sent in its turn.
    pub(super) fn spend(&mut self, octets: u32) {
        self.deficit = self.deficit.saturating_sub_unsigned(octets);
    }
}

/// Something that takes turns.
pub(super) trait Shares {
    fn share(&mut self) -> &mut Share;
}

impl<T: Shares> Linked for T {
    fn next(&mut self) -> &mut u16 {
        &mut self.share().next
    }
}

/// Those that take turns.
pub(super) struct Round {
    new: Chain,
    old: Chain,
}

impl Round {
    pub(super) const EMPTY: Self = Self { new: Chain::EMPTY, old: Chain::EMPTY };

    /// Somebody has something to send, as before or anew.
    pub(super) fn join(&mut self, table: &mut [impl Shares], number: u16) {
        let Some(joins) = table.get_mut(usize::from(number)).map(Shares::share) else { return };
        if joins.is_idle() {
            *joins = Share { deficit: QUANTUM, next: NONE, standing: Standing::New };
            self.new.push(table, number);
        }
    }

    /// Whose turn it is. Ends: who has nothing left is given something once a round.
    pub(super) fn turn(&mut self, table: &mut [impl Shares]) -> Option<u16> {
        loop {
            let number = self.new.first().or(self.old.first())?;
            let share = table.get_mut(usize::from(number))?.share();
            if share.deficit <= 0 && self.new.first().is_none() && self.old.is_single() {
                // There is nobody to whom it could owe anything.
                share.deficit = QUANTUM;
            }
            if share.deficit > 0 {
                return Some(number);
            }
            share.deficit += QUANTUM;
            self.pass(table, Standing::Old);
        }
    }

    /// The one whose turn it is has nothing to send: it leaves. A new one is an old one first, so that nobody is new
    /// time and again while others wait.
    pub(super) fn leave(&mut self, table: &mut [impl Shares]) {
        let stays = self.new.first().is_some() && self.old.first().is_some();
        self.pass(table, if stays { Standing::Old } else { Standing::Idle });
    }

    fn pass(&mut self, table: &mut [impl Shares], standing: Standing) {
        let from = if self.new.first().is_some() { &mut self.new } else { &mut self.old };
        let Some(number) = from.pop(table) else { return };
        if let Some(share) = table.get_mut(usize::from(number)).map(Shares::share) {
            share.standing = standing;
        }
        if standing == Standing::Old {
            self.old.push(table, number);
        }
    }
}
