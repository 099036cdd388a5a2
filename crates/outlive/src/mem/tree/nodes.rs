//! Nodes: what one holds, and how they split, lend to one another and merge, so that all but the root stay half full.

use super::{NIL, Tree};

/// The most entries, or kids, of a node.
pub(super) const WIDTH: usize = 32;
/// Of so many keys, only the last is looked at on the way to where a key belongs.
const STRIDE: usize = 8;
/// The fewest, except of the root.
pub(super) const LEAST: usize = WIDTH / 2;

/// A leaf with entries, or a node with kids.
pub(super) struct Node<K> {
    len: u32,
    /// The node above; [`NIL`] for the root.
    pub(super) up: u32,
    /// The neighbours of the same level. In the free list, the next free node.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Slots, or kids. From `len` on, whatever was there.
    ids: [u32; WIDTH],
    keys: [K; WIDTH],
}

impl<K: Copy> Node<K> {
    fn new(key: K) -> Self {
        Self { len: 0, up: NIL, prev: NIL, next: NIL, ids: [NIL; WIDTH], keys: [key; WIDTH] }
    }

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids[..self.len()]
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys[..self.len()]
    }

    /// The first slot or kid.
    pub(super) fn first(&self) -> u32 {
        self.ids().first().map_or(NIL, |first| *first)
    }

    /// The last slot or kid.
    pub(super) fn last(&self) -> u32 {
        self.ids().last().map_or(NIL, |last| *last)
    }

    pub(super) fn set_key(&mut self, place: usize, key: K) {
        self.keys[place] = key;
    }

    /// Where `id` is.
    pub(super) fn place_of(&self, id: u32) -> Option<usize> {
        self.ids().iter().position(|at| *at == id)
    }

    /// How many keys are not above `key`. Not by halves: that would wait for one line of the node after the other, while
    /// branches guess where it will end and fetch what comes next early.
    pub(super) fn through(&self, key: &K) -> usize
    where
        K: Ord,
    {
        let keys = self.keys();
        let mut from = 0;
        while keys.get(from + STRIDE - 1).is_some_and(|at| at <= key) {
            from += STRIDE;
        }
        let near = &keys[from..];
        from + near.iter().position(|at| at > key).unwrap_or(near.len())
    }

    /// Puts an id in, where there is room.
    pub(super) fn insert(&mut self, place: usize, key: K, id: u32) {
        let len = self.len();
        self.keys.copy_within(place..len, place + 1);
        self.ids.copy_within(place..len, place + 1);
        self.keys[place] = key;
        self.ids[place] = id;
        self.len += 1;
    }

    fn remove(&mut self, place: usize) -> (K, u32) {
        let (key, id, len) = (self.keys[place], self.ids[place], self.len());
        self.keys.copy_within(place + 1..len, place);
        self.ids.copy_within(place + 1..len, place);
        self.len -= 1;
        (key, id)
    }

    /// Appends what `other` has from `from` on, where there is room.
    fn append(&mut self, other: &mut Self, from: usize) {
        let (at, more) = (self.len(), other.len() - from);
        self.keys[at..at + more].copy_from_slice(&other.keys()[from..]);
        self.ids[at..at + more].copy_from_slice(&other.ids()[from..]);
        // Both are at most WIDTH.
        let from = from as u32;
        self.len += other.len - from;
        other.len = from;
    }
}

impl<K: Copy, V> Tree<K, V> {
    pub(super) fn node_mut(&mut self, at: u32) -> &mut Node<K> {
        &mut self.nodes[at as usize]
    }

    /// The two nodes, which are not the same.
    fn both(&mut self, one: u32, other: u32) -> Option<(&mut Node<K>, &mut Node<K>)> {
        let (low, high) = self.nodes.split_at_mut_checked(one.max(other) as usize)?;
        let (low, high) = (low.get_mut(one.min(other) as usize)?, high.first_mut()?);
        Some(if one < other { (low, high) } else { (high, low) })
    }

    /// An empty node from the free list, or a new one: there is memory for as many as can be needed.
    pub(super) fn new_node(&mut self, key: K) -> u32 {
        let at = self.free_node;
        if at != NIL {
            let node = self.node_mut(at);
            let next = core::mem::replace(&mut node.next, NIL);
            (node.up, node.prev) = (NIL, NIL);
            self.free_node = next;
            return at;
        }
        debug_assert!(self.nodes.len() < self.nodes.capacity(), "reserved with the entries");
        let at = self.nodes.len();
        #[expect(clippy::disallowed_methods, reason = "below what was reserved, so it does not allocate")]
        self.nodes.push(Node::new(key));
        // There are fewer nodes than slots.
        u32::try_from(at).unwrap_or(NIL)
    }

    fn free_node(&mut self, at: u32) {
        let next = core::mem::replace(&mut self.free_node, at);
        let node = self.node_mut(at);
        (node.len, node.next) = (0, next);
    }

    /// Puts `id` into node `at`, where there is room.
    fn hang_up(&mut self, at: u32, place: usize, key: K, id: u32, level: u32) {
        self.node_mut(at).insert(place, key, id);
        self.adopt(at, place, place + 1, level);
    }

    /// Tells the kids of `at`, from place `from` to before `to`, that they are its kids.
    pub(super) fn adopt(&mut self, at: u32, from: usize, to: usize, level: u32) {
        for place in from..to {
            let id = self.nodes[at as usize].ids[place];
            if level == 0 {
                self.homes[id as usize] = at;
            } else {
                self.node_mut(id).up = at;
            }
        }
    }

    /// The node above `at`, and where in it that is; none for the root.
    fn above(&self, at: u32) -> Option<(u32, usize)> {
        let up = self.nodes[at as usize].up;
        let place = self.nodes.get(up as usize)?.place_of(at)?;
        Some((up, place))
    }

    /// Tells the nodes above that the first key of `at` has changed.
    pub(super) fn note_first(&mut self, mut at: u32) {
        let Some(key) = self.nodes[at as usize].keys().first().copied() else { return };
        while let Some((up, place)) = self.above(at) {
            self.node_mut(up).set_key(place, key);
            if place > 0 {
                return;
            }
            at = up;
        }
    }

    /// Puts `id` into leaf `at`, the very first one if that is [`NIL`], at `place`; splits what is full.
    pub(super) fn put(&mut self, mut at: u32, mut place: usize, mut key: K, mut id: u32) {
        if at == NIL {
            at = self.new_node(key);
            self.root = at;
        }
        let mut level = 0;
        loop {
            let full = self.nodes[at as usize].len() == WIDTH;
            let right = if full { self.split(at, level) } else { NIL };
            let (to, to_place) = if full && place > LEAST { (right, place - LEAST) } else { (at, place) };
            self.hang_up(to, to_place, key, id, level);
            if place == 0 {
                self.note_first(at);
            }
            if !full {
                return;
            }
            let (up, up_place) = self.above(at).unwrap_or_else(|| (self.new_root(at), 0));
            (at, place, id) = (up, up_place + 1, right);
            key = self.nodes[right as usize].keys[0];
            level += 1;
        }
    }

    /// Moves the upper half of `at` into a new node at its right, which is still to be hung up.
    fn split(&mut self, at: u32, level: u32) -> u32 {
        let Node { keys, next, .. } = &self.nodes[at as usize];
        let (key, next) = (keys[LEAST], *next);
        let right = self.new_node(key);
        if let Some((left, right)) = self.both(at, right) {
            right.append(left, LEAST);
        }
        self.link(at, right);
        self.link(right, next);
        self.adopt(right, 0, WIDTH - LEAST, level);
        right
    }

    /// Makes `right` the neighbour of `left`; either may be [`NIL`].
    pub(super) fn link(&mut self, left: u32, right: u32) {
        if left != NIL {
            self.node_mut(left).next = right;
        }
        if right != NIL {
            self.node_mut(right).prev = left;
        }
    }

    /// Puts a new root above `kid`, and returns it.
    fn new_root(&mut self, kid: u32) -> u32 {
        let key = self.nodes[kid as usize].keys[0];
        let root = self.new_node(key);
        self.node_mut(root).insert(0, key, kid);
        self.node_mut(kid).up = root;
        self.root = root;
        self.levels += 1;
        root
    }

    /// Takes what is at `place` of leaf `at` out; nodes that become too small borrow or merge.
    pub(super) fn pull(&mut self, mut at: u32, mut place: usize) {
        let mut level = 0;
        loop {
            self.node_mut(at).remove(place);
            if place == 0 {
                self.note_first(at);
            }
            let len = self.nodes[at as usize].len();
            let Some((up, here)) = self.above(at) else { return self.lower(at, len) };
            if len >= LEAST {
                return;
            }
            // A node above has two kids at least.
            let right_place = here.max(1);
            let [left, right] = [right_place - 1, right_place].map(|place| self.nodes[up as usize].ids[place]);
            if !self.merge(left, right, level) {
                self.lend(left, right, level, here > 0);
                let key = self.nodes[right as usize].keys[0];
                self.node_mut(up).set_key(right_place, key);
                return;
            }
            (at, place) = (up, right_place);
            level += 1;
        }
    }

    /// Takes a root away that has one kid left.
    fn lower(&mut self, root: u32, len: usize) {
        if self.levels > 0 && len == 1 {
            let kid = self.nodes[root as usize].ids[0];
            self.node_mut(kid).up = NIL;
            self.root = kid;
            self.levels -= 1;
            self.free_node(root);
        }
    }

    /// Moves all of `right` into `left`, its neighbour, and frees it; false, and nothing, if that is too much.
    fn merge(&mut self, left: u32, right: u32, level: u32) -> bool {
        let Some((to, from)) = self.both(left, right) else { return false };
        let (len, next) = (to.len(), from.next);
        if len + from.len() > WIDTH {
            return false;
        }
        to.append(from, 0);
        let all = to.len();
        self.adopt(left, len, all, level);
        self.link(left, next);
        self.free_node(right);
        true
    }

    /// Moves one from `left` to `right`, its neighbour, or the other way.
    fn lend(&mut self, left: u32, right: u32, level: u32, rightwards: bool) {
        let Some((low, high)) = self.both(left, right) else { return };
        let end = low.len();
        if rightwards {
            let (key, id) = low.remove(end - 1);
            high.insert(0, key, id);
            self.adopt(right, 0, 1, level);
        } else {
            let (key, id) = high.remove(0);
            low.insert(end, key, id);
            self.adopt(left, end, end + 1, level);
        }
    }
}
