//! The tree by slot: for who links entries to one another, or changes what it found without another way down.
//!
//! A [`Slot`] stays good until its entry is taken out; asking with one that is not good is answered from whatever is there
//! then, so whoever keeps slots (address spaces do) says why they are good.

use super::nodes::{LEAST, Node, WIDTH};
use super::{Iter, NIL, Tree};
use crate::mem::AllocError;
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

    pub(super) const fn number(self) -> u32 {
        self.0
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

    /// The value at `slot`, to be changed.
    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut V> {
        self.value_mut(slot.0)
    }

    /// Changes the key at `slot`, which is in the tree, where the order stays as it is.
    pub(crate) fn rekey(&mut self, slot: Slot, key: K) {
        let Some((leaf, place)) = self.place_of(slot.0) else { return };
        self.entries[slot.index()].key = key;
        self.node_mut(leaf).set_key(place, key);
        if place == 0 {
            self.note_first(leaf);
        }
    }

    /// The place of the lowest key.
    pub(crate) fn first_slot(&self) -> Slot {
        Slot(self.nodes.get(self.leaf_where(|_| 0) as usize).map_or(NIL, Node::first))
    }

    /// The place after `slot`, which is in the tree; the first one after [`Slot::NONE`].
    pub(crate) fn after(&self, slot: Slot) -> Slot {
        let Some((leaf, place)) = self.place_of(slot.0) else { return self.first_slot() };
        let node = &self.nodes[leaf as usize];
        match node.ids().get(place + 1) {
            Some(next) => Slot(*next),
            None => Slot(self.nodes.get(node.next as usize).map_or(NIL, Node::first)),
        }
    }

    /// The place before `slot`, which is in the tree.
    pub(crate) fn before(&self, slot: Slot) -> Slot {
        self.place_of(slot.0).map_or(slot, |(leaf, place)| Slot(self.below(leaf, place)))
    }

    /// The slot right below `place` of `leaf`, or [`NIL`].
    pub(super) fn below(&self, leaf: u32, place: usize) -> u32 {
        let Some(node) = self.nodes.get(leaf as usize) else { return NIL };
        match place.checked_sub(1) {
            Some(place) => node.ids()[place],
            None => self.nodes.get(node.prev as usize).map_or(NIL, Node::last),
        }
    }

    /// All places and what is at them, ascending.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, &V)> {
        let leaves = core::iter::successors(self.nodes.get(self.leaf_where(|_| 0) as usize), |leaf| {
            self.nodes.get(leaf.next as usize)
        });
        leaves.flat_map(|leaf| leaf.ids()).filter_map(|slot| Some((Slot(*slot), self.entry(*slot)?.1)))
    }

    /// The entries from `slot`, which is in the tree, on; none for [`Slot::NONE`].
    pub(crate) fn iter_from(&self, slot: Slot) -> Iter<'_, K, V> {
        let (leaf, place) = self.place_of(slot.0).unwrap_or((NIL, 0));
        self.iter_at(leaf, place)
    }

    /// Takes `slot` out of the tree. The entry stays where it is until [`Tree::release`].
    pub(crate) fn detach(&mut self, slot: Slot) {
        if let Some((leaf, place)) = self.place_of(slot.0) {
            self.unhang(leaf, place);
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
        let (leaf, place) = self.place_of(slot.0)?;
        self.take_from(leaf, place)
    }

    /// Adds an entry right after `slot`, before all others if that is [`Slot::NONE`], where its key belongs. The entry comes
    /// back if there is no room.
    pub(crate) fn insert_after(&mut self, slot: Slot, key: K, value: V) -> Result<Slot, (K, V)> {
        let (leaf, place) = match self.place_of(slot.0) {
            Some((leaf, place)) => (leaf, place + 1),
            None => (self.leaf_where(|_| 0), 0),
        };
        self.grow(leaf, place, key, value).map(Slot)
    }

    /// A tree of `count` entries, which `entries` yields in ascending order; fewer if it yields fewer. As low as can be, with
    /// entries side by side in memory.
    pub(crate) fn from_sorted(count: usize, entries: impl Iterator<Item = (K, V)>) -> Result<Self, AllocError> {
        let mut tree = Self::new();
        tree.try_reserve(count)?;
        for (key, value) in entries.take(count) {
            // There is room for all.
            let _ = tree.occupy(key, value);
        }
        tree.len = tree.entries.len();
        tree.hang_all();
        Ok(tree)
    }

    /// Hangs all slots, whose entries ascend: leaves over them, then each level over the one below.
    fn hang_all(&mut self) {
        let (mut first, mut count) = (0, self.len);
        if count == 0 {
            return;
        }
        let mut level = 0;
        loop {
            let parts = count.div_ceil(WIDTH);
            debug_assert!(parts == 1 || count / parts >= LEAST);
            let (begin, mut left) = (self.nodes.len(), NIL);
            for part in 0..parts {
                let (from, to) = (count * part / parts, count * (part + 1) / parts);
                left = self.hang(first + from..first + to, left, level);
            }
            self.root = left;
            if parts == 1 {
                return;
            }
            (first, count) = (begin, parts);
            level += 1;
            self.levels = level;
        }
    }

    /// Makes a node at the right of `left` over these slots, or nodes of the level below.
    fn hang(&mut self, kids: core::ops::Range<usize>, left: u32, level: u32) -> u32 {
        let key = |tree: &Self, id: usize| if level == 0 { tree.entries[id].key } else { tree.nodes[id].keys()[0] };
        let (at, count) = (self.new_node(key(self, kids.start)), kids.len());
        self.link(left, at);
        for (place, id) in kids.enumerate() {
            let key = key(self, id);
            // Of a slot, or a node.
            self.node_mut(at).insert(place, key, u32::try_from(id).unwrap_or(NIL));
        }
        self.adopt(at, 0, count, level);
        at
    }
}

impl<K: Ord + Copy, V> Tree<K, V> {
    /// The place of the highest key that is not above `key`.
    pub(crate) fn floor(&self, key: &K) -> Slot {
        let (leaf, above) = self.descend(key);
        Slot(self.below(leaf, above))
    }
}
