//! The tree by slot: for who links entries to one another, or changes what it found without another way down.
//!
//! A [`Slot`] stays good until its entry is taken out; asking with one that is not good is answered from whatever is there
//! then, so whoever keeps slots (address spaces do) says why they are good.

use super::{LEFT, NIL, Node, RIGHT, Tree};
use crate::mem::AllocError;
use core::cmp::Ordering;
use core::fmt;

/// The place of an entry, or none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// No place.
    pub(crate) const NONE: Self = Self(NIL);

    /// Its number, below the tree's capacity; the highest of 32 bits for [`Slot::NONE`].
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE { f.write_str("-") } else { write!(f, "#{}", self.0) }
    }
}

impl<K: Copy, V> Tree<K, V> {
    /// Whether there is no entry at all, detached ones included.
    pub(crate) const fn is_bare(&self) -> bool {
        self.len == 0 && self.out == 0
    }

    /// What is at `slot`, detached entries included.
    pub(crate) fn at(&self, slot: Slot) -> Option<(&K, &V)> {
        self.entry(slot.0)
    }

    /// What is at `slot`, to be changed. Who changes a key keeps the order, at the latest before the next method that
    /// compares.
    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<(&mut K, &mut V)> {
        let value = self.values.get_mut(slot.0 as usize)?.as_mut()?;
        Some((&mut self.nodes[slot.0 as usize].key, value))
    }

    /// The place of the lowest key.
    pub(crate) fn first_slot(&self) -> Slot {
        Slot(self.outermost(self.root, LEFT))
    }

    /// The place after `slot`, which is in the tree; the first one after [`Slot::NONE`].
    pub(crate) fn after(&self, slot: Slot) -> Slot {
        if slot == Slot::NONE { self.first_slot() } else { Slot(self.beside(slot.0, RIGHT)) }
    }

    /// The place before `slot`, which is in the tree.
    pub(crate) fn before(&self, slot: Slot) -> Slot {
        if slot == Slot::NONE { slot } else { Slot(self.beside(slot.0, LEFT)) }
    }

    /// Takes `slot` out of the tree. The entry stays where it is until [`Tree::release`].
    pub(crate) fn detach(&mut self, slot: Slot) {
        if slot != Slot::NONE {
            self.unhang(slot.0);
            self.out += 1;
        }
    }

    /// Frees the detached `slot` and returns what was there.
    pub(crate) fn release(&mut self, slot: Slot) -> Option<(K, V)> {
        if slot == Slot::NONE {
            return None;
        }
        self.out -= 1;
        self.empty(slot.0)
    }

    /// Takes what is at `slot` out.
    pub(crate) fn take_at(&mut self, slot: Slot) -> Option<(K, V)> {
        self.take(slot.0)
    }

    /// Adds an entry right after `slot`, before all others if that is [`Slot::NONE`], where its key belongs. The entry comes
    /// back if there is no room.
    pub(crate) fn insert_after(&mut self, slot: Slot, key: K, value: V) -> Result<Slot, (K, V)> {
        let (up, side) = match slot.0 {
            NIL => (self.outermost(self.root, LEFT), LEFT),
            at => match self.kid(at, RIGHT) {
                NIL => (at, RIGHT),
                right => (self.outermost(right, LEFT), LEFT),
            },
        };
        self.grow(up, side, key, value).map(Slot)
    }

    /// A tree of `count` entries, which `entries` yields in ascending order; fewer if it yields fewer. As low as can be, with
    /// entries side by side in memory.
    pub(crate) fn from_sorted(count: usize, entries: impl Iterator<Item = (K, V)>) -> Result<Self, AllocError> {
        let mut tree = Self::new();
        tree.try_reserve(count)?;
        for (key, value) in entries.take(count) {
            // There is room for all.
            let _ = tree.occupy(Node::leaf(key, NIL), value);
        }
        tree.len = tree.nodes.len();
        tree.root = tree.hang_all(0, tree.len, NIL);
        Ok(tree)
    }

    /// Hangs the slots from `from` to before `to`, whose entries ascend, below `up`, and returns the topmost. Recurses as
    /// deep as the tree is high: 32.
    fn hang_all(&mut self, from: usize, to: usize, up: u32) -> u32 {
        let Some(more) = (to - from).checked_sub(1) else { return NIL };
        let middle = from + more.div_ceil(2);
        // No more than MOST slots.
        let at = u32::try_from(middle).unwrap_or(NIL);
        let left = self.hang_all(from, middle, at);
        let right = self.hang_all(middle + 1, to, at);
        let node = self.node_mut(at);
        node.up = up;
        node.kids = [left, right];
        self.measure(at);
        at
    }
}

impl<K: Ord + Copy, V> Tree<K, V> {
    /// The place of the highest key that is not above `key`.
    pub(crate) fn floor(&self, key: &K) -> Slot {
        let (mut best, mut at) = (NIL, self.root);
        while let Some(node) = self.nodes.get(at as usize) {
            // Branches, not conditional moves: a guess that is right half of the time fetches what is next from memory early.
            match key.cmp(&node.key) {
                Ordering::Less => at = node.kids[LEFT],
                Ordering::Greater => (best, at) = (at, node.kids[RIGHT]),
                Ordering::Equal => return Slot(at),
            }
        }
        Slot(best)
    }
}
