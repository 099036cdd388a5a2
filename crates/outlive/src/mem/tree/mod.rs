//! The one ordered map: a B+-tree over entries that stay where they are, so that [`Tree::try_reserve`] is the only method
//! that can run out of memory.
//!
//! # Invariants
//! - A slot of the vectors is in the tree and holds an entry, or has been taken out of the tree by [`Tree::detach`] and still
//!   holds its entry, or is in the free list and holds none. `len` slots are in the tree, `out` detached, and no more than
//!   `room` there at all, which the vectors have memory for; they never shrink. No slot, and no node, has the index [`NIL`].
//! - A leaf has the keys and slots of entries, a node above it those of its kids: a kid's key is that of the lowest entry
//!   below it. In a node, and from one node to the next of the same level, keys ascend strictly. A comparison that panics
//!   leaves the tree as it was: every method has compared all it will compare before it changes anything.
//! - All leaves are `levels` below the root. The root, if it is none, has at least two kids, other nodes at least [`LEAST`].
//!   A root that is a leaf may be empty: it stays. Hence `n` entries need no more than [`nodes_for`]`(n)` nodes, for which there is memory once `n` may be there: no
//!   insertion has to ask for more, whatever it splits.
//! - A slot that is in the tree has its leaf for `home`, another in the tree's free list the next free one.
//!
//! An entry keeps its slot until it is taken out, whatever happens to others, so a [`Slot`] that was found stays good for
//! that long: who changes what it found pays for one way down only, and entries can be linked by slot.
//!
//! # Cost
//! Beside each entry, its key once more and 8 bytes (padding aside) where nodes are full, twice that where they are half full,
//! the least there is; and the discriminant of an `Option` where the entry has no niche. Lookup, insertion and removal are
//! O(log n), a step to a neighbour O(1). Nothing recurses.
//!
//! # Why not `BTreeMap`, nor `intrusive-collections`
//! The former allocates as it goes. The `RBTree` of the latter links nodes by raw pointers: unsafe text in an adapter for every
//! kind of entry, and entries that stay where they are while they are linked. Here there is no unsafe, memory is asked for at
//! one known place (before a signalling section, never in it) and entries are plain values; timers, run queues and address
//! spaces share one type.
#![cfg_attr(
    any(not(test), loom, shuttle),
    expect(dead_code, reason = "a map is offered whole; timers use a part of it")
)]

mod nodes;
mod slots;

use super::{AllocError, HeapVec, try_reserve};
use core::fmt;
use core::mem;
use nodes::{LEAST, Node};

pub(crate) use slots::Slot;

/// No slot, no node.
const NIL: u32 = u32::MAX;
/// As many slots as have a number.
const MOST: usize = NIL as usize;

/// What is kept under a slot.
struct Entry<K, V> {
    /// As in the leaf.
    key: K,
    /// `None` in the free list.
    value: Option<V>,
}

/// An ordered map that allocates only in [`Tree::try_reserve`].
pub(crate) struct Tree<K, V> {
    entries: HeapVec<Entry<K, V>>,
    /// Of the slot with the same number: its leaf, or the next free slot.
    homes: HeapVec<u32>,
    nodes: HeapVec<Node<K>>,
    root: u32,
    /// How many nodes are above each leaf.
    levels: u32,
    /// The first free slot, the first free node.
    free: u32,
    free_node: u32,
    len: usize,
    out: usize,
    room: usize,
}

/// The most nodes that `entries` can need: at each level, none has fewer than [`LEAST`] kids or it is the only one.
const fn nodes_for(entries: usize) -> usize {
    let (mut level, mut all) = (entries / LEAST, 1);
    while level > 1 {
        all += level;
        level /= LEAST;
    }
    all
}

impl<K: Copy, V> Tree<K, V> {
    const SLOT_BYTES: usize = size_of::<Entry<K, V>>() + size_of::<u32>() + size_of::<Node<K>>() / LEAST;

    /// An empty tree without room for anything.
    pub(crate) const fn new() -> Self {
        Self {
            entries: HeapVec::new(),
            homes: HeapVec::new(),
            nodes: HeapVec::new(),
            root: NIL,
            levels: 0,
            free: NIL,
            free_node: NIL,
            len: 0,
            out: 0,
            room: 0,
        }
    }

    /// Makes room for `more` entries beyond those it holds now (detached ones included), and no more than that: a map that grows bit by bit asks
    /// for several at a time. Room is given back only when the tree is dropped.
    pub(crate) fn try_reserve(&mut self, more: usize) -> Result<(), AllocError> {
        let Some(wanted) = (self.len + self.out).checked_add(more).filter(|wanted| *wanted <= MOST) else {
            return Err(AllocError { bytes: more.saturating_mul(Self::SLOT_BYTES) });
        };
        // The vectors reserve beyond their length, which counts what is free.
        let more = wanted.saturating_sub(self.entries.len());
        try_reserve(&mut self.entries, more)?;
        try_reserve(&mut self.homes, more)?;
        let more = nodes_for(wanted).saturating_sub(self.nodes.len());
        try_reserve(&mut self.nodes, more)?;
        self.room = self.room.max(wanted);
        Ok(())
    }

    /// Moves all entries and nodes, in their places, into the vectors of `wider`, which holds none and has at least as much room;
    /// `wider` has the old vectors then. Allocates nothing, frees nothing: O(n) copying.
    pub(crate) fn move_to(&mut self, wider: &mut Self) {
        fn swap<T>(from: &mut HeapVec<T>, into: &mut HeapVec<T>) {
            debug_assert!(into.is_empty() && into.capacity() >= from.len());
            into.append(from);
            mem::swap(from, into);
        }
        debug_assert!(wider.room >= self.room);
        swap(&mut self.entries, &mut wider.entries);
        swap(&mut self.homes, &mut wider.homes);
        swap(&mut self.nodes, &mut wider.nodes);
        mem::swap(&mut self.room, &mut wider.room);
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there can be at all before [`Tree::try_reserve`] is needed again, detached ones included.
    pub(crate) const fn capacity(&self) -> usize {
        self.room
    }

    /// Bytes of memory, room for more included.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<K, V>>()
            + self.homes.capacity() * size_of::<u32>()
            + self.nodes.capacity() * size_of::<Node<K>>()
    }

    /// How many more entries there can be before [`Tree::try_reserve`] is needed again.
    pub(crate) const fn room(&self) -> usize {
        self.room - self.len - self.out
    }

    /// The entry with the lowest key.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.entry(self.first_slot().number())
    }

    /// The entry with the highest key.
    pub(crate) fn last(&self) -> Option<(&K, &V)> {
        let leaf = self.leaf_where(|node| node.len().wrapping_sub(1));
        self.entry(self.nodes.get(leaf as usize)?.last())
    }

    /// Takes the entry with the lowest key out.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        self.take_from(self.leaf_where(|_| 0), 0)
    }

    /// All entries, ascending.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.iter_at(self.leaf_where(|_| 0), 0)
    }

    /// The entries from place `at` of a leaf on.
    fn iter_at(&self, leaf: u32, at: usize) -> Iter<'_, K, V> {
        let Some(node) = self.nodes.get(leaf as usize) else { return Iter { tree: self, slots: &[], next: NIL } };
        Iter { tree: self, slots: &node.ids()[at..], next: node.next }
    }

    /// The leaf at the end of the way down that `which` chooses at each node, or [`NIL`].
    fn leaf_where(&self, which: impl Fn(&Node<K>) -> usize) -> u32 {
        let mut at = self.root;
        for _ in 0..self.levels {
            let node = &self.nodes[at as usize];
            at = node.ids()[which(node)];
        }
        at
    }

    /// What slot `at` holds; nothing if that is [`NIL`].
    fn entry(&self, at: u32) -> Option<(&K, &V)> {
        let entry = self.entries.get(at as usize)?;
        Some((&entry.key, entry.value.as_ref()?))
    }

    fn value_mut(&mut self, at: u32) -> Option<&mut V> {
        self.entries.get_mut(at as usize)?.value.as_mut()
    }

    /// Puts an entry into a free slot, or a new one; it comes back if there is no room.
    fn occupy(&mut self, key: K, value: V) -> Result<u32, (K, V)> {
        let at = self.free;
        if at != NIL {
            self.free = self.homes[at as usize];
            self.entries[at as usize] = Entry { key, value: Some(value) };
            return Ok(at);
        }
        let count = self.entries.len();
        match u32::try_from(count) {
            Ok(at) if count < self.room => {
                #[expect(clippy::disallowed_methods, reason = "below what was reserved, so it does not allocate")]
                self.entries.push(Entry { key, value: Some(value) });
                #[expect(clippy::disallowed_methods, reason = "below what was reserved, so it does not allocate")]
                self.homes.push(NIL);
                Ok(at)
            }
            _ => Err((key, value)),
        }
    }

    /// Takes what is at `place` of `leaf` out of the tree, if there is something. It keeps its slot, and that its entry.
    fn unhang(&mut self, leaf: u32, place: usize) -> Option<u32> {
        let slot = *self.nodes.get(leaf as usize)?.ids().get(place)?;
        self.pull(leaf, place);
        self.homes[slot as usize] = NIL;
        self.len -= 1;
        Some(slot)
    }

    /// Puts slot `at`, which is not in the tree, into the free list and returns its entry.
    fn empty(&mut self, at: u32) -> Option<(K, V)> {
        self.homes[at as usize] = mem::replace(&mut self.free, at);
        let entry = &mut self.entries[at as usize];
        let key = entry.key;
        entry.value.take().map(|value| (key, value))
    }

    /// Takes the entry at `place` of `leaf` out, if there is one.
    fn take_from(&mut self, leaf: u32, place: usize) -> Option<(K, V)> {
        let slot = self.unhang(leaf, place)?;
        self.empty(slot)
    }

    /// Adds an entry at `place` of `leaf`, where its key belongs; the entry back if there is no room.
    fn grow(&mut self, leaf: u32, place: usize, key: K, value: V) -> Result<u32, (K, V)> {
        let slot = self.occupy(key, value)?;
        self.put(leaf, place, key, slot);
        self.len += 1;
        Ok(slot)
    }

    /// The leaf of slot `at`, and where in it; none if it is not in the tree.
    fn place_of(&self, at: u32) -> Option<(u32, usize)> {
        let leaf = *self.homes.get(at as usize)?;
        let place = self.nodes.get(leaf as usize)?.place_of(at)?;
        Some((leaf, place))
    }
}

impl<K: Ord + Copy, V> Tree<K, V> {
    /// Adds an entry. Under a key that is there, only the value is replaced and comes back, even in a full tree; both
    /// come back, and nothing changes, if there is no room.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<V>, (K, V)> {
        let (leaf, above) = self.descend(&key);
        if let Some(slot) = self.same(leaf, above, &key) {
            return Ok(self.value_mut(slot).map(|old| mem::replace(old, value)));
        }
        self.grow(leaf, above, key, value).map(|_| None)
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (leaf, above) = self.descend(key);
        self.same(leaf, above, key)?;
        self.take_from(leaf, above - 1).map(|(_, value)| value)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entry(self.find(key)?).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.find(key)?;
        self.value_mut(slot)
    }

    /// Whether there is an entry of `key`.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// The entries from the first whose key is not below `key`, ascending.
    pub(crate) fn range_from(&self, key: &K) -> Iter<'_, K, V> {
        let (leaf, above) = self.descend(key);
        self.iter_at(leaf, above - usize::from(self.same(leaf, above, key).is_some()))
    }

    /// The first entry whose key is above `key`.
    pub(crate) fn next_after(&self, key: &K) -> Option<(&K, &V)> {
        let (leaf, above) = self.descend(key);
        self.iter_at(leaf, above).next()
    }

    /// The last entry whose key is below `key`.
    pub(crate) fn last_before(&self, key: &K) -> Option<(&K, &V)> {
        let (leaf, above) = self.descend(key);
        let below = above - usize::from(self.same(leaf, above, key).is_some());
        self.entry(self.below(leaf, below))
    }

    /// The leaf whose entries are around `key`, [`NIL`] if there is none, and how many of them are not above it: zero only if
    /// `key` is below all that there are.
    fn descend(&self, key: &K) -> (u32, usize) {
        let leaf = self.leaf_where(|node| node.through(key).saturating_sub(1));
        (leaf, self.nodes.get(leaf as usize).map_or(0, |node| node.through(key)))
    }

    /// The slot of `key`, of whose leaf `above` entries are not above it.
    fn same(&self, leaf: u32, above: usize, key: &K) -> Option<u32> {
        let node = self.nodes.get(leaf as usize)?;
        let at = above.checked_sub(1)?;
        (node.keys()[at] == *key).then(|| node.ids()[at])
    }

    /// The slot of `key`.
    fn find(&self, key: &K) -> Option<u32> {
        let (leaf, above) = self.descend(key);
        self.same(leaf, above, key)
    }
}

impl<K: Copy, V> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} of {})", self.len, self.capacity())
    }
}

impl<K: Copy, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Entries in ascending order; see [`Tree::iter`] and [`Tree::range_from`].
pub(crate) struct Iter<'a, K, V> {
    tree: &'a Tree<K, V>,
    /// What is left of a leaf, and the next one.
    slots: &'a [u32],
    next: u32,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, K: Copy, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        if self.slots.is_empty() {
            let node = self.tree.nodes.get(self.next as usize)?;
            (self.slots, self.next) = (node.ids(), node.next);
        }
        let (slot, rest) = self.slots.split_first()?;
        self.slots = rest;
        self.tree.entry(*slot)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
#[expect(clippy::disallowed_types, reason = "the standard map is the model")]
mod tests;
