//! The one ordered map: an AVL tree whose nodes lie in one vector, so that [`Tree::try_reserve`] is the only method that
//! can run out of memory.
//!
//! # Invariants
//! - A slot of the vector is either in the tree and holds an entry, or in the free list and holds none. The tree has
//!   `len` of the `nodes.len()` slots; the vector never shrinks.
//! - In order from left to right, keys ascend strictly. A comparison that panics leaves the tree as it was: every method
//!   has compared all it will compare before it changes anything.
//! - `height` is the number of nodes on the longest way down, the node included; those of two siblings differ by at
//!   most one. Hence a tree of `n` nodes is at most 1.45 log2(n + 2) high: 45 for as many as 32 bits can number.
//! - A kid's `up` is its parent; the root's is [`NIL`]. No slot has the index [`NIL`].
//!
//! A slot's number is not an identity: removing an entry may move another one into its slot. So numbers stay in here.
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

use super::{AllocError, HeapVec, try_reserve};
use core::cmp::Ordering;
use core::fmt;
use core::mem;

/// No slot.
const NIL: u32 = u32::MAX;
/// As many slots as have a number.
const MOST: usize = NIL as usize;
const LEFT: usize = 0;
const RIGHT: usize = 1;

struct Node<K, V> {
    /// `None` in the free list.
    entry: Option<(K, V)>,
    up: u32,
    /// In the free list, the left kid is the next free slot.
    kids: [u32; 2],
    height: u8,
}

impl<K, V> Node<K, V> {
    /// A node of the free list, before `next`.
    const fn free(next: u32) -> Self {
        Self { entry: None, up: NIL, kids: [next, NIL], height: 0 }
    }
}

/// An ordered map that allocates only in [`Tree::try_reserve`].
pub(crate) struct Tree<K, V> {
    nodes: HeapVec<Node<K, V>>,
    root: u32,
    free: u32,
    len: usize,
}

impl<K, V> Tree<K, V> {
    /// An empty tree without room for anything.
    pub(crate) const fn new() -> Self {
        Self { nodes: HeapVec::new(), root: NIL, free: NIL, len: 0 }
    }

    /// Makes room for `more` entries beyond those it holds now, and no more than that: a map that grows bit by bit asks
    /// for several at a time. Room is given back only when the tree is dropped.
    pub(crate) fn try_reserve(&mut self, more: usize) -> Result<(), AllocError> {
        let Some(wanted) = self.len.checked_add(more).filter(|wanted| *wanted <= MOST) else {
            return Err(AllocError { bytes: more.saturating_mul(size_of::<Node<K, V>>()) });
        };
        // Free slots are room, too. The vector reserves beyond its length, which counts them.
        let more = wanted.saturating_sub(self.nodes.len());
        try_reserve(&mut self.nodes, more)
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there can be before [`Tree::try_reserve`] is needed again.
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity().min(MOST)
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

    fn node(&self, at: u32) -> &Node<K, V> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<K, V> {
        &mut self.nodes[at as usize]
    }

    /// What slot `at` holds; nothing if that is [`NIL`].
    fn entry(&self, at: u32) -> Option<(&K, &V)> {
        let (key, value) = self.nodes.get(at as usize)?.entry.as_ref()?;
        Some((key, value))
    }

    fn value_mut(&mut self, at: u32) -> Option<&mut V> {
        let (_, value) = self.nodes.get_mut(at as usize)?.entry.as_mut()?;
        Some(value)
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

    /// The node that follows `at` in ascending order.
    fn following(&self, mut at: u32) -> u32 {
        let right = self.kid(at, RIGHT);
        if right != NIL {
            return self.outermost(right, LEFT);
        }
        loop {
            let from = at;
            at = self.node(from).up;
            if at == NIL || self.kid(at, LEFT) == from {
                return at;
            }
        }
    }

    /// A slot that is neither in the tree nor in the free list; none if there is no room.
    fn slot(&mut self) -> Option<u32> {
        if self.free == NIL {
            let count = self.nodes.len();
            self.free = u32::try_from(count).ok().filter(|_| count < self.capacity())?;
            #[expect(clippy::disallowed_methods, reason = "below the capacity, so it does not allocate")]
            self.nodes.push(Node::free(NIL));
        }
        let at = self.free;
        self.free = self.kid(at, LEFT);
        Some(at)
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

    /// Takes the entry of slot `at` out; nothing if that is [`NIL`].
    fn take(&mut self, at: u32) -> Option<(K, V)> {
        let [left, right] = self.nodes.get(at as usize)?.kids;
        // The slot that is given up has at most one kid: with two, the next entry, which has no left kid, moves here.
        let gone = if left != NIL && right != NIL { self.outermost(right, LEFT) } else { at };
        let [left, right] = self.node(gone).kids;
        let up = self.node(gone).up;
        self.replace(up, gone, if left == NIL { right } else { left });
        let free = Node::free(self.free);
        let mut entry = mem::replace(self.node_mut(gone), free).entry;
        self.free = gone;
        self.len -= 1;
        if gone != at {
            mem::swap(&mut self.node_mut(at).entry, &mut entry);
        }
        self.settle(up);
        entry
    }
}

impl<K: Ord, V> Tree<K, V> {
    /// Adds an entry. Under a key that is there, only the value is replaced and comes back, even in a full tree; both
    /// come back, and nothing changes, if there is no room.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<V>, (K, V)> {
        let (at, up, side) = self.descend(&key);
        if at != NIL {
            return Ok(self.value_mut(at).map(|old| mem::replace(old, value)));
        }
        let Some(leaf) = self.slot() else {
            return Err((key, value));
        };
        *self.node_mut(leaf) = Node { entry: Some((key, value)), up, kids: [NIL; 2], height: 1 };
        self.attach(up, side, leaf);
        self.len += 1;
        self.settle(up);
        Ok(None)
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
        while let Some((here, _)) = self.entry(at) {
            let way = match key.cmp(here) {
                Ordering::Less => LEFT,
                Ordering::Greater => RIGHT,
                Ordering::Equal => break,
            };
            (at, up, side) = (self.kid(at, way), at, way);
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
        while let Some((here, _)) = self.entry(at) {
            let way = match key.cmp(here) {
                Ordering::Less => LEFT,
                Ordering::Greater => RIGHT,
                Ordering::Equal if itself => return at,
                Ordering::Equal => side,
            };
            if way != side {
                best = at;
            }
            at = self.kid(at, way);
        }
        best
    }
}

impl<K, V> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} of {})", self.len, self.capacity())
    }
}

/// Entries in ascending order; see [`Tree::iter`] and [`Tree::range_from`].
pub(crate) struct Iter<'a, K, V> {
    tree: &'a Tree<K, V>,
    at: u32,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.tree.entry(self.at)?;
        self.at = self.tree.following(self.at);
        Some(entry)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
#[expect(clippy::disallowed_types, reason = "the standard map is the model")]
mod tests {
    use super::{LEFT, MOST, NIL, RIGHT, Tree};
    use alloc::collections::BTreeMap as Model;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use core::ops::Bound::{Excluded, Unbounded};
    use proptest::prelude::{ProptestConfig, Strategy, any};
    use proptest::test_runner::TestCaseResult;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    type Real = Tree<u8, u16>;

    /// Checks every invariant of the header below `at` and returns the height.
    fn height<K: Ord, V>(tree: &Tree<K, V>, at: u32, up: u32, seen: &mut usize) -> u8 {
        if at == NIL {
            return 0;
        }
        *seen += 1;
        let node = tree.node(at);
        assert!(node.entry.is_some(), "a free slot is in the tree");
        assert_eq!(node.up, up);
        let [left, right] = node.kids.map(|kid| height(tree, kid, at, seen));
        assert!(left.abs_diff(right) < 2, "out of balance: {left} and {right}");
        assert_eq!(node.height, 1 + left.max(right));
        node.height
    }

    fn check<K: Ord, V>(tree: &Tree<K, V>) {
        let mut seen = 0;
        height(tree, tree.root, NIL, &mut seen);
        assert_eq!(seen, tree.len());
        assert!(tree.iter().is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(tree.iter().count(), seen);
        let mut free = tree.free;
        while free != NIL {
            seen += 1;
            assert!(tree.node(free).entry.is_none(), "an entry is in the free list");
            free = tree.kid(free, LEFT);
        }
        assert_eq!(seen, tree.nodes.len());
        assert!(tree.nodes.len() <= tree.capacity());
    }

    #[derive(Debug, Clone)]
    enum Op {
        Reserve(usize),
        Insert(u8, u16),
        Remove(u8),
        Change(u8, u16),
        PopFirst,
    }

    fn op() -> impl Strategy<Value = Op> {
        (0..21_u8, 0..20_usize, any::<u8>(), any::<u16>()).prop_map(|(kind, more, key, value)| match kind {
            0 => Op::Reserve(more),
            1 => Op::PopFirst,
            2 => Op::Change(key, value),
            3..9 => Op::Remove(key),
            _ => Op::Insert(key, value),
        })
    }

    fn step(tree: &mut Real, model: &mut Model<u8, u16>, op: &Op) -> TestCaseResult {
        let (room, memory) = (tree.capacity(), tree.nodes.as_ptr());
        match *op {
            Op::Reserve(more) => {
                prop_assert!(tree.try_reserve(more).is_ok());
                prop_assert!(tree.capacity() >= tree.len() + more);
                return Ok(());
            }
            Op::Insert(key, value) if model.len() == room && !model.contains_key(&key) => {
                prop_assert_eq!(tree.insert(key, value), Err((key, value)));
            }
            Op::Insert(key, value) => prop_assert_eq!(tree.insert(key, value), Ok(model.insert(key, value))),
            Op::Remove(key) => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
            Op::Change(key, value) => {
                prop_assert_eq!(tree.get_mut(&key).map(|v| *v = value), model.get_mut(&key).map(|v| *v = value));
            }
            Op::PopFirst => prop_assert_eq!(tree.pop_first(), model.pop_first()),
        }
        prop_assert_eq!((tree.capacity(), tree.nodes.as_ptr()), (room, memory));
        Ok(())
    }

    fn compare(tree: &Real, model: &Model<u8, u16>, key: u8) -> TestCaseResult {
        check(tree);
        prop_assert_eq!((tree.len(), tree.is_empty()), (model.len(), model.is_empty()));
        prop_assert!(tree.iter().eq(model));
        prop_assert_eq!(tree.first(), model.first_key_value());
        prop_assert_eq!(tree.last(), model.last_key_value());
        prop_assert_eq!(tree.get(&key), model.get(&key));
        prop_assert_eq!(tree.contains(&key), model.contains_key(&key));
        prop_assert!(tree.range_from(&key).eq(model.range(key..)));
        prop_assert_eq!(tree.last_before(&key), model.range(..key).next_back());
        prop_assert_eq!(tree.next_after(&key), model.range((Excluded(key), Unbounded)).next());
        Ok(())
    }

    fn few() -> ProptestConfig {
        let cases = if cfg!(miri) { 4 } else { 256 };
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(few())]

        #[test]
        fn a_tree_is_a_map(ops in proptest::collection::vec((op(), any::<u8>()), 0..300)) {
            let (mut tree, mut model) = (Tree::new(), Model::new());
            for (op, key) in &ops {
                step(&mut tree, &mut model, op)?;
                compare(&tree, &model, *key)?;
            }
        }
    }

    #[test]
    fn whatever_the_order_the_tree_stays_low() {
        let most = if cfg!(miri) { 100 } else { 5_000_u32 };
        // Ascending, descending, from both ends inwards, and scattered.
        let orders: [fn(u32, u32) -> u32; 4] = [
            |i, _| i,
            |i, most| most - i,
            |i, most| if i % 2 == 0 { i } else { 2 * most - i },
            |i, _| i.wrapping_mul(2_654_435_769),
        ];
        for order in orders {
            let mut tree = Tree::new();
            tree.try_reserve(most as usize).unwrap();
            for i in 0..most {
                assert_eq!(tree.insert(order(i, most), i), Ok(None));
            }
            check(&tree);
            let limit = 1.4405 * f64::from(most + 2).log2();
            assert!(f64::from(tree.height(tree.root)) < limit);
            for i in (0..most).step_by(3) {
                assert_eq!(tree.remove(&order(i, most)), Some(i));
            }
            check(&tree);
            while let Some((key, _)) = tree.pop_first() {
                assert!(tree.first().is_none_or(|(next, _)| key < *next));
            }
            check(&tree);
            assert_eq!(tree.root, NIL);
        }
    }

    #[test]
    fn reserved_room_is_used_without_allocating() {
        let mut tree = Tree::new();
        tree.try_reserve(7).unwrap();
        for round in 0..50_u32 {
            // Free slots count as room: seven are enough for ever.
            tree.try_reserve(7).unwrap();
            let before = (tree.nodes.as_ptr(), tree.nodes.capacity());
            for key in 0..7 {
                assert_eq!(tree.insert((key * round) % 7 + 7 * key, ()), Ok(None));
            }
            assert_eq!((tree.nodes.as_ptr(), tree.nodes.capacity()), before);
            assert_eq!(tree.capacity(), 7);
            while tree.pop_first().is_some() {}
        }
        assert_eq!(tree.nodes.len(), 7);
    }

    #[test]
    fn a_full_tree_refuses_and_is_unchanged() {
        let mut tree = Tree::new();
        assert_eq!(tree.insert(1, 1), Err((1, 1)), "no room at all");
        tree.try_reserve(5).unwrap();
        let room = i32::try_from(tree.capacity()).unwrap();
        for key in 0..room {
            assert_eq!(tree.insert(2 * key, key), Ok(None));
        }
        let before: Vec<_> = tree.iter().map(|(key, value)| (*key, *value)).collect();
        for key in -1..=room {
            assert_eq!(tree.insert(2 * key + 1, 9), Err((2 * key + 1, 9)));
        }
        check(&tree);
        assert!(tree.iter().map(|(key, value)| (*key, *value)).eq(before));
        assert_eq!(tree.insert(2, 7), Ok(Some(1)), "an entry that is there needs no room");
        assert_eq!(tree.remove(&2), Some(7));
        assert_eq!(tree.insert(3, 9), Ok(None), "what was taken out left its room");
    }

    #[test]
    fn more_than_there_can_be_is_refused() {
        let mut tree: Tree<u64, u64> = Tree::new();
        for more in [MOST.saturating_add(1), usize::MAX] {
            assert!(tree.try_reserve(more).is_err_and(|error| error.bytes >= MOST));
        }
        tree.try_reserve(1).unwrap();
        tree.insert(1, 1).unwrap();
        assert!(tree.try_reserve(usize::MAX).is_err());
        assert_eq!((tree.len(), tree.capacity()), (1, 1));
        assert_eq!(tree.kid(tree.root, RIGHT), NIL);
    }

    #[test]
    fn every_value_is_dropped_once_and_at_once() {
        let value = Rc::new(());
        let mut tree = Tree::new();
        tree.try_reserve(10).unwrap();
        for key in 0..10 {
            tree.insert(key, Rc::clone(&value)).unwrap();
        }
        tree.insert(3, Rc::clone(&value)).unwrap();
        assert_eq!(Rc::strong_count(&value), 11);
        for key in [3, 5, 4] {
            tree.remove(&key);
        }
        tree.pop_first();
        assert_eq!(Rc::strong_count(&value), 7, "no free slot keeps a value");
        drop(tree);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
