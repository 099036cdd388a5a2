//! What clients and groups that have gone still owe, so that coming back with a new queue gains nothing.
//!
//! As many are remembered as there may be queues, until the floor has passed them; if there are more, the smallest is
//! forgotten.

use super::Virtual;
use crate::mem::AllocError;
use crate::mem::tree::Tree;

/// Whose debt: a group's, or that of a client whose queue had no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Debtor {
    Group(u64),
    Client(u64),
}

impl Debtor {
    /// Nobody, if neither has a number.
    pub(super) const fn of(group: u64, client: u64) -> Option<Self> {
        match (group, client) {
            (0, 0) => None,
            (0, client) => Some(Self::Client(client)),
            (group, _) => Some(Self::Group(group)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Debts {
    had: Tree<Debtor, Virtual>,
    by_amount: Tree<(Virtual, Debtor), ()>,
}

impl Debts {
    pub(super) const fn new() -> Self {
        Self { had: Tree::new(), by_amount: Tree::new() }
    }

    pub(super) fn reserve(&mut self, most: usize) -> Result<(), AllocError> {
        self.had.try_reserve(most)?;
        self.by_amount.try_reserve(most)
    }

    /// `debtor` goes, having had so much.
    pub(super) fn remember(&mut self, debtor: Debtor, had: Virtual, floor: Virtual) {
        let before = self.take(debtor).unwrap_or(0);
        while let Some(((least, smallest), ())) = self.by_amount.first() {
            if *least > floor && self.had.room() > 0 {
                break;
            }
            let smallest = *smallest;
            self.take(smallest);
        }
        let had = had.max(before);
        if had > floor && self.had.insert(debtor, had).is_ok() {
            let _ = self.by_amount.insert((had, debtor), ());
        }
    }

    /// `debtor` comes back.
    pub(super) fn take(&mut self, debtor: Debtor) -> Option<Virtual> {
        let had = self.had.remove(&debtor)?;
        self.by_amount.remove(&(had, debtor));
        Some(had)
    }
}
