//! The one ordered map: an AVL tree whose nodes lie in vectors, so that [`Tree::try_reserve`] is the only method that
//! can run out of memory.
//!
//! # Invariants
//! - A slot of the vectors is in the tree and holds an entry, or has been taken out of the tree by [`Tree::detach`] and still
//!   holds its entry, or is in the free list and holds none. The tree has `len` of the `nodes.len()` slots, and `out` more
//!   are detached; the vectors never shrink.
//! - In order from left to right, keys ascend strictly. A comparison that panics leaves the tree as it was: every method
//!   has compared all it will compare before it changes anything.
//! - `height` is the number of nodes on the longest way down, the node included; those of two siblings differ by at
//!   most one. Hence a tree of `n` nodes is at most 1.45 log2(n + 2) high: 45 for as many as 32 bits can number.
//! - A kid's `up` is its parent; the root's is [`NIL`]. No slot has the index [`NIL`].
//!
//! An entry keeps its slot until it is taken out, whatever happens to others, so a [`Slot`] that was found stays good for
//! that long: who changes what it found pays for one way down only, and entries can be linked by slot.
//!
//! # Cost
//! 16 bytes beside each entry (padding aside), and the discriminant of an `Option` where the entry has no niche. Lookup,
//! insertion, removal, the first, the last and the neighbours are O(log n); iteration is O(1) a step, amortised. Nothing
//! recurses.
//!
//! # Why not `intrusive-collections`
//! Its `RBTree` links nodes by raw pointers: unsafe text in an adapter for every kind of entry, and entries that stay
//! where they are while they are linked. Here there is no unsafe, memory is asked for at one known place (before a
//! signalling section, never in it) and entries are plain values; timers, run queues and address spaces share one type.
#![cfg_attr(
    any(not(test), loom, shuttle),
    expect(dead_code, reason = "a map is offered whole; timers use a part of it")
)]

mod slots;

use super::{AllocError, HeapVec, try_reserve};
use core::cmp::Ordering;
use core::fmt;
use core::mem;

pub(crate) use slots::Slot;

/// No slot.
const NIL: u32 = u32::MAX;
/// As many slots as have a number.
const MOST: usize = NIL as usize;
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// What a way down reads, apart from the values, so that more of it stays in the processor's caches.
struct Node<K> {
    /// In the free list, the one that was there last.
    key: K,
    up: u32,
    /// In the free list, the left kid is the next free slot.
    kids: [u32; 2],
    height: u8,
}

impl<K> Node<K> {
    /// A node without kids.
    const fn leaf(key: K, up: u32) -> Self {
        Self { key, up, kids: [NIL; 2], height: 1 }
    }
}

/// An ordered map that allocates only in [`Tree::try_reserve`].
pub(crate) struct Tree<K, V> {
    nodes: HeapVec<Node<K>>,
    /// Of the node with the same number; `None` in the free list.
    values: HeapVec<Option<V>>,
    root: u32,
    free: u32,
    len: usize,
    out: usize,
}

impl<K: Copy, V> Tree<K, V> {
    const SLOT_BYTES: usize = size_of::<Node<K>>() + size_of::<Option<V>>();

    /// An empty tree without room for anything.
    pub(crate) const fn new() -> Self {
        Self { nodes: HeapVec::new(), values: HeapVec::new(), root: NIL, free: NIL, len: 0, out: 0 }
    }

    /// Makes room for `more` entries beyond those it holds now (detached ones included), and no more than that: a map that grows bit by bit asks
    /// for several at a time. Room is given back only when the tree is dropped.
    pub(crate) fn try_reserve(&mut self, more: usize) -> Result<(), AllocError> {
        let Some(wanted) = (self.len + self.out).checked_add(more).filter(|wanted| *wanted <= MOST) else {
            return Err(AllocError { bytes: more.saturating_mul(Self::SLOT_BYTES) });
        };
        // Free slots are room, too. The vectors reserve beyond their length, which counts them.
        let more = wanted.saturating_sub(self.nodes.len());
        try_reserve(&mut self.nodes, more)?;
        try_reserve(&mut self.values, more)
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
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity().min(self.values.capacity()).min(MOST)
    }

    /// Bytes of memory, room for more included.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K>>() + self.values.capacity() * size_of::<Option<V>>()
    }

    /// How many more entries there can be before [`Tree::try_reserve`] is needed again.
    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.len - self.out
    }

    /// The entry with the lowest key.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.entry(self.outermost(self.root, LEFT))
    }

    /// The entry with the highest key.
    pub(crate) fn last(&self) -> Option<(&K, &V)> {
        self.entry(self.outermost(self.root, RIGHT))
    }

    /// Takes the entry with the lowest key out.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        self.take(self.outermost(self.root, LEFT))
    }

    /// All entries, ascending.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        Iter { tree: self, at: self.outermost(self.root, LEFT) }
    }

    fn node(&self, at: u32) -> &Node<K> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<K> {
        &mut self.nodes[at as usize]
    }

    /// What slot `at` holds; nothing if that is [`NIL`].
    fn entry(&self, at: u32) -> Option<(&K, &V)> {
        let value = self.values.get(at as usize)?.as_ref()?;
        Some((&self.node(at).key, value))
    }

    fn value_mut(&mut self, at: u32) -> Option<&mut V> {
        self.values.get_mut(at as usize)?.as_mut()
    }

    /// The height of the subtree at `at`, zero for [`NIL`].
    fn height(&self, at: u32) -> u8 {
        self.nodes.get(at as usize).map_or(0, |node| node.height)
    }

    /// The kid of `at` on `side`, or [`NIL`].
    fn kid(&self, at: u32, side: usize) -> u32 {
        self.node(at).kids[side]
    }

    /// The last node from `at` downwards on `side`; [`NIL`] for [`NIL`].
    fn outermost(&self, mut at: u32, side: usize) -> u32 {
        let mut last = NIL;
        while at != NIL {
            last = at;
            at = self.kid(at, side);
        }
        last
    }

    /// The node that follows `at` on `side`.
    fn beside(&self, mut at: u32, side: usize) -> u32 {
        let kid = self.kid(at, side);
        if kid != NIL {
            return self.outermost(kid, 1 - side);
        }
        loop {
            let from = at;
            at = self.node(from).up;
            if at == NIL || self.kid(at, 1 - side) == from {
                return at;
            }
        }
    }

    /// Puts an entry into a slot that was in neither the tree nor the free list, or was in the latter; the entry comes back
    /// if there is no room.
    fn occupy(&mut self, node: Node<K>, value: V) -> Result<u32, (K, V)> {
        let at = self.free;
        if at != NIL {
            self.free = self.kid(at, LEFT);
            *self.node_mut(at) = node;
            self.values[at as usize] = Some(value);
            return Ok(at);
        }
        let count = self.nodes.len();
        match u32::try_from(count) {
            Ok(at) if count < self.capacity() => {
                #[expect(clippy::disallowed_methods, reason = "below the capacity, so it does not allocate")]
                self.nodes.push(node);
                #[expect(clippy::disallowed_methods, reason = "below the capacity, so it does not allocate")]
                self.values.push(Some(value));
                Ok(at)
            }
            _ => Err((node.key, value)),
        }
    }

    /// Hangs `kid`, which may be [`NIL`], below `at` on `side`; as the root if `at` is [`NIL`].
    fn attach(&mut self, at: u32, side: usize, kid: u32) {
        if at == NIL {
            self.root = kid;
        } else {
            self.node_mut(at).kids[side] = kid;
        }
        if kid != NIL {
            self.node_mut(kid).up = at;
        }
    }

    /// Hangs `new`, which may be [`NIL`], where `old` hangs below `up`.
    fn replace(&mut self, up: u32, old: u32, new: u32) {
        let left = up != NIL && self.kid(up, LEFT) == old;
        self.attach(up, if left { LEFT } else { RIGHT }, new);
    }

    /// Computes the height of `at` from its kids'.
    fn measure(&mut self, at: u32) {
        let [left, right] = self.node(at).kids;
        self.node_mut(at).height = 1 + self.height(left).max(self.height(right));
    }

    /// Lifts the kid of `at` on `side` into the place of `at`, which becomes its kid on the other side. Returns it.
    fn rotate(&mut self, at: u32, side: usize) -> u32 {
        let up = self.node(at).up;
        let kid = self.kid(at, side);
        let inner = self.kid(kid, 1 - side);
        self.replace(up, at, kid);
        self.attach(at, side, inner);
        self.attach(kid, 1 - side, at);
        self.measure(at);
        self.measure(kid);
        kid
    }

    /// Restores heights and balance from `at`, one of whose subtrees grew or shrank by one, up to where nothing changes.
    fn settle(&mut self, mut at: u32) {
        while at != NIL {
            let before = self.height(at);
            let [left, right] = self.node(at).kids.map(|kid| self.height(kid));
            let mut top = at;
            if left.abs_diff(right) < 2 {
                self.measure(at);
            } else {
                let heavy = if left > right { LEFT } else { RIGHT };
                let kid = self.kid(at, heavy);
                if self.height(self.kid(kid, 1 - heavy)) > self.height(self.kid(kid, heavy)) {
                    self.rotate(kid, 1 - heavy);
                }
                top = self.rotate(at, heavy);
            }
            if self.height(top) == before {
                return;
            }
            at = self.node(top).up;
        }
    }

    /// Takes slot `at`, which is in the tree, out of it; it keeps its entry.
    fn unhang(&mut self, at: u32) {
        let Node { up, kids: [left, right], height, .. } = *self.node(at);
        let mut settle_from = up;
        if left != NIL && right != NIL {
            // The next entry has no left kid. It moves to the place of `at`, with its slot.
            let next = self.outermost(right, LEFT);
            if next == right {
                settle_from = next;
            } else {
                let next_up = self.node(next).up;
                let kid = self.kid(next, RIGHT);
                self.attach(next_up, LEFT, kid);
                self.attach(next, RIGHT, right);
                settle_from = next_up;
            }
            self.attach(next, LEFT, left);
            self.replace(up, at, next);
            self.node_mut(next).height = height;
        } else {
            self.replace(up, at, if left == NIL { right } else { left });
        }
        self.len -= 1;
        self.settle(settle_from);
    }

    /// Puts slot `at`, which is not in the tree, into the free list and returns its entry.
    fn empty(&mut self, at: u32) -> Option<(K, V)> {
        let next = mem::replace(&mut self.free, at);
        let node = self.node_mut(at);
        (node.up, node.kids) = (NIL, [next, NIL]);
        let key = node.key;
        self.values[at as usize].take().map(|value| (key, value))
    }

    /// Takes the entry of slot `at` out; nothing if that is [`NIL`].
    fn take(&mut self, at: u32) -> Option<(K, V)> {
        if at == NIL {
            return None;
        }
        self.unhang(at);
        self.empty(at)
    }

    /// Hangs a new leaf below `up` on `side`, where there is nothing; the entry back if there is no room.
    fn grow(&mut self, up: u32, side: usize, key: K, value: V) -> Result<u32, (K, V)> {
        let leaf = self.occupy(Node::leaf(key, up), value)?;
        self.attach(up, side, leaf);
        self.len += 1;
        self.settle(up);
        Ok(leaf)
    }
}

impl<K: Ord + Copy, V> Tree<K, V> {
    /// Adds an entry. Under a key that is there, only the value is replaced and comes back, even in a full tree; both
    /// come back, and nothing changes, if there is no room.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<V>, (K, V)> {
        let (at, up, side) = self.descend(&key);
        if at != NIL {
            return Ok(self.value_mut(at).map(|old| mem::replace(old, value)));
        }
        self.grow(up, side, key, value).map(|_| None)
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.take(self.find(key)).map(|(_, value)| value)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entry(self.find(key)).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.value_mut(self.find(key))
    }

    /// Whether there is an entry of `key`.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.find(key) != NIL
    }

    /// The entries from the first whose key is not below `key`, ascending.
    pub(crate) fn range_from(&self, key: &K) -> Iter<'_, K, V> {
        Iter { tree: self, at: self.nearest(key, RIGHT, true) }
    }

    /// The first entry whose key is above `key`.
    pub(crate) fn next_after(&self, key: &K) -> Option<(&K, &V)> {
        self.entry(self.nearest(key, RIGHT, false))
    }

    /// The last entry whose key is below `key`.
    pub(crate) fn last_before(&self, key: &K) -> Option<(&K, &V)> {
        self.entry(self.nearest(key, LEFT, false))
    }

    /// The slot of `key`, or [`NIL`]; then the node below which that is or would be, and on which side.
    fn descend(&self, key: &K) -> (u32, u32, usize) {
        let (mut at, mut up, mut side) = (self.root, NIL, LEFT);
        while let Some(node) = self.nodes.get(at as usize) {
            let way = match key.cmp(&node.key) {
                Ordering::Less => LEFT,
                Ordering::Greater => RIGHT,
                Ordering::Equal => break,
            };
            (at, up, side) = (node.kids[way], at, way);
        }
        (at, up, side)
    }

    /// The slot of `key`, or [`NIL`].
    fn find(&self, key: &K) -> u32 {
        self.descend(key).0
    }

    /// The slot whose key is closest to `key` on `side` of it, or [`NIL`]. With `itself`, `key` is on every side.
    fn nearest(&self, key: &K, side: usize, itself: bool) -> u32 {
        let (mut best, mut at) = (NIL, self.root);
        while let Some(node) = self.nodes.get(at as usize) {
            let way = match key.cmp(&node.key) {
                Ordering::Less => LEFT,
                Ordering::Greater => RIGHT,
                Ordering::Equal if itself => return at,
                Ordering::Equal => side,
            };
            if way != side {
                best = at;
            }
            at = node.kids[way];
        }
        best
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
    at: u32,
}

impl<'a, K: Copy, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.tree.entry(self.at)?;
        self.at = self.tree.beside(self.at, RIGHT);
        Some(entry)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
#[expect(clippy::disallowed_types, reason = "the standard map is the model")]
mod tests;
