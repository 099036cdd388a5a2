//! What a plan would change, over what is there.
//!
//! # Invariants
//! - Entries do not overlap. Each is a mapping that would be there, or a hole where nothing would be.
//! - Each mapping of the space lies wholly under entries, or wholly beside all of them: whoever touches one puts what would
//!   be left of it here as well. So one look here and one look at the space say what would be at an address.

use super::mapping::Mapping;
use super::range::VaRange;
use super::step::Step;
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

/// What a request does to the overlay. Its steps say what the mappings are; this has the data for them.
pub(super) struct Cover<M> {
    pub(super) range: VaRange,
    /// Of what sticks out of `range` below and above of the mappings that it cuts.
    pub(super) below: Option<M>,
    pub(super) above: Option<M>,
    /// Of what is in `range`.
    pub(super) new: Option<M>,
}

impl<M> Cover<M> {
    /// How many mappings there will be.
    pub(super) fn mappings(&self) -> usize {
        [&self.below, &self.above, &self.new].into_iter().flatten().count()
    }

    /// What will stick out of the range below. `steps` are the request's; so for the others.
    fn take_below(&mut self, steps: &[Step<M>]) -> Option<Mapping<M>> {
        let data = self.below.take()?;
        let (old, hole) = steps.first()?.cut()?;
        old.below(hole).map(|piece| piece.with_data(data))
    }

    /// What will stick out of it above.
    fn take_above(&mut self, steps: &[Step<M>]) -> Option<Mapping<M>> {
        let data = self.above.take()?;
        let (old, hole) = steps.iter().rev().find_map(Step::cut)?;
        old.above(hole).map(|piece| piece.with_data(data))
    }

    /// What will be in it.
    fn take_new(&mut self, steps: &[Step<M>]) -> Option<Mapping<M>> {
        let data = self.new.take()?;
        Some(steps.last()?.mapping().shape().with_data(data))
    }
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
    /// `steps` are those so far.
    pub(super) fn prepare(&mut self, steps: &[Step<M>]) -> Result<(), AllocError> {
        if self.is_empty() {
            return Ok(());
        }
        // The new entry and one on either side; twice if the first request goes into the tree now.
        if self.tree.room() < 6 {
            self.tree.try_reserve(self.tree.len().max(6))?;
        }
        if let Some(first) = self.first.take() {
            self.mappings = 0;
            self.put(first, steps);
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

    /// Takes the lowest entry out. `steps` are all there are.
    pub(super) fn pop_first(&mut self, steps: &[Step<M>]) -> Option<(u64, Entry<M>)> {
        let Some(first) = &mut self.first else { return self.tree.pop_first() };
        let piece = |piece: Mapping<M>| (piece.range.base(), Entry { last: piece.range.last(), mapping: Some(piece) });
        if let Some(below) = first.take_below(steps) {
            return Some(piece(below));
        }
        if !core::mem::replace(&mut self.first_out, true) {
            let mapping = first.take_new(steps);
            return Some((first.range.base(), Entry { last: first.range.last(), mapping }));
        }
        let above = first.take_above(steps).map(piece);
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

    /// Puts `cover`, the request of `steps`, over what there is.
    pub(super) fn cover(&mut self, cover: Cover<M>, steps: &[Step<M>]) {
        if self.is_empty() {
            self.mappings = cover.mappings();
            self.first = Some(cover);
        } else {
            self.put(cover, steps);
        }
    }

    fn put(&mut self, mut cover: Cover<M>, steps: &[Step<M>]) {
        let range = cover.range;
        let [below, above] = [cover.take_below(steps), cover.take_above(steps)];
        let new = cover.take_new(steps);
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
