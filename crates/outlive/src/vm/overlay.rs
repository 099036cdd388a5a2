//! What a plan would change, over what is there.
//!
//! # Invariants
//! - Entries do not overlap. Each is a mapping that would be there, or a hole where nothing would be.
//! - Each mapping of the space lies wholly under entries, or wholly beside all of them: whoever touches one puts what would
//!   be left of it here as well. So one look here and one look at the space say what would be at an address.

use super::mapping::Mapping;
use super::range::VaRange;
use crate::mem::AllocError;
use crate::mem::tree::Tree;

pub(super) struct Entry<M> {
    pub(super) last: u64,
    /// `None`: a hole.
    pub(super) mapping: Option<Mapping<M>>,
}

pub(super) struct Overlay<M> {
    /// What the first request does, as long as it is the only one: most batches need no tree.
    first: Option<Cover<M>>,
    /// Its range has been popped.
    first_out: bool,
    tree: Tree<u64, Entry<M>>,
    mappings: usize,
}

/// What is left of an overlay without entries: memory.
pub(super) struct Spent<M> {
    _tree: Tree<u64, Entry<M>>,
}

/// What a request does to the overlay.
pub(super) struct Cover<M> {
    pub(super) range: VaRange,
    /// What sticks out of `range` below and above of the mappings that it cuts.
    pub(super) below: Option<Mapping<M>>,
    pub(super) above: Option<Mapping<M>>,
    /// What is in `range`.
    pub(super) new: Option<Mapping<M>>,
}

impl<M> Overlay<M> {
    pub(super) const fn new() -> Self {
        Self { first: None, first_out: false, tree: Tree::new(), mappings: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none() && self.tree.is_empty()
    }

    /// How many mappings are in it.
    pub(super) const fn mappings(&self) -> usize {
        self.mappings
    }

    /// Makes room for another request. Before [`Overlay::over`] and [`Overlay::next_base`] may be asked, and before each
    /// [`Overlay::cover`].
    pub(super) fn prepare(&mut self) -> Result<(), AllocError> {
        if self.is_empty() {
            return Ok(());
        }
        // The new entry and one on either side; twice if the first request goes into the tree now.
        if self.tree.room() < 6 {
            self.tree.try_reserve(self.tree.len().max(6))?;
        }
        if let Some(first) = self.first.take() {
            self.mappings = 0;
            self.put(first);
        }
        Ok(())
    }

    /// The entry over `va`.
    pub(super) fn over(&self, va: u64) -> Option<&Entry<M>> {
        let (_, entry) = self.tree.at(self.tree.floor(&va))?;
        (entry.last >= va).then_some(entry)
    }

    /// Where the first entry above `va` starts.
    pub(super) fn next_base(&self, va: u64) -> Option<u64> {
        self.tree.next_after(&va).map(|(base, _)| *base)
    }

    /// Takes the lowest entry out.
    pub(super) fn pop_first(&mut self) -> Option<(u64, Entry<M>)> {
        let Some(first) = &mut self.first else { return self.tree.pop_first() };
        let piece = |piece: Mapping<M>| (piece.range.base(), Entry { last: piece.range.last(), mapping: Some(piece) });
        if let Some(below) = first.below.take() {
            return Some(piece(below));
        }
        if !core::mem::replace(&mut self.first_out, true) {
            return Some((first.range.base(), Entry { last: first.range.last(), mapping: first.new.take() }));
        }
        let above = first.above.take().map(piece);
        if above.is_none() {
            self.first = None;
        }
        above
    }

    /// Its memory, once all entries are out.
    pub(super) fn into_spent(self) -> Spent<M> {
        debug_assert!(self.is_empty());
        Spent { _tree: self.tree }
    }

    /// Puts `cover` over what there is.
    pub(super) fn cover(&mut self, cover: Cover<M>) {
        if self.is_empty() {
            self.mappings = [&cover.below, &cover.new, &cover.above].into_iter().flatten().count();
            self.first = Some(cover);
        } else {
            self.put(cover);
        }
    }

    fn put(&mut self, cover: Cover<M>) {
        let Cover { range, below, above, new } = cover;
        let cut_below = self.tree.last_before(&range.base()).filter(|(_, entry)| entry.last >= range.base());
        if let Some((base, _)) = cut_below {
            let base = *base;
            if let Some(entry) = self.remove(base) {
                self.put_back_hole(&entry, range);
                if entry.mapping.is_none() {
                    self.insert(base, Entry { last: range.base() - 1, mapping: None });
                }
            }
        }
        while let Some((base, _)) = self.tree.range_from(&range.base()).next().filter(|(at, _)| range.has(**at)) {
            let base = *base;
            if let Some(entry) = self.remove(base) {
                self.put_back_hole(&entry, range);
            }
        }
        for piece in [below, above].into_iter().flatten() {
            self.insert(piece.range.base(), Entry { last: piece.range.last(), mapping: Some(piece) });
        }
        self.insert(range.base(), Entry { last: range.last(), mapping: new });
    }

    /// Of an entry that was a hole, what sticks out above `range`. Mappings come back as `above`.
    fn put_back_hole(&mut self, entry: &Entry<M>, range: VaRange) {
        if entry.mapping.is_none() && entry.last > range.last() {
            self.insert(range.last() + 1, Entry { last: entry.last, mapping: None });
        }
    }

    fn insert(&mut self, base: u64, entry: Entry<M>) {
        self.mappings += usize::from(entry.mapping.is_some());
        let inserted = self.tree.insert(base, entry);
        debug_assert!(matches!(inserted, Ok(None)), "there is room, and nothing at that address");
    }

    fn remove(&mut self, base: u64) -> Option<Entry<M>> {
        let entry = self.tree.remove(&base)?;
        self.mappings -= usize::from(entry.mapping.is_some());
        Some(entry)
    }
}
