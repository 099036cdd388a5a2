//! Looking: what is mapped where, and beside what.

use super::bo::BoId;
use super::mapping::Mapping;
use super::range::VaRange;
use super::space::Space;
use super::store::{Body, Store};
use crate::mem::tree;
use core::fmt;

impl<V, M> Space<V, M> {
    /// The mapping that contains `va`.
    #[must_use]
    pub fn find(&self, va: u64) -> Option<Mapping<&M>> {
        self.store.view(self.store.find(va))
    }

    /// All mappings, ascending.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, V, M> {
        Iter::all(&self.store)
    }

    /// The mappings that have an address in common with `range`, ascending.
    #[must_use]
    pub fn overlapping(&self, range: VaRange) -> Iter<'_, V, M> {
        let rest = self.store.tree.iter_from(self.store.find_from(range.base()));
        Iter { store: &self.store, rest, last: range.last() }
    }

    /// The mappings of an open buffer, in no order.
    pub fn of_bo(&self, bo: BoId) -> impl Iterator<Item = Mapping<&M>> + use<'_, V, M> {
        self.attached(bo)
    }

    /// The last mapping that ends below `range`, adjacent or not.
    #[must_use]
    pub fn prev(&self, range: VaRange) -> Option<Mapping<&M>> {
        let below = range.base().checked_sub(1)?;
        let slot = self.store.tree.floor(&below);
        let ends_below = self.store.range(slot)?.last() <= below;
        self.store.view(if ends_below { slot } else { self.store.tree.before(slot) })
    }

    /// The first mapping that starts above `range`, adjacent or not.
    #[must_use]
    pub fn next(&self, range: VaRange) -> Option<Mapping<&M>> {
        self.store.view(self.store.tree.after(self.store.tree.floor(&range.last())))
    }
}

/// Mappings in ascending order; see [`Space::iter`] and [`Space::overlapping`].
pub struct Iter<'a, V, M> {
    store: &'a Store<V, M>,
    rest: tree::Iter<'a, u64, Body<M>>,
    last: u64,
}

impl<'a, V, M> Iter<'a, V, M> {
    pub(super) fn all(store: &'a Store<V, M>) -> Self {
        Self { store, rest: store.tree.iter(), last: u64::MAX }
    }
}

impl<V, M> fmt::Debug for Iter<'_, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({:?})", self.rest.clone().next().map(|(base, body)| self.store.show(*base, body).range))
    }
}

impl<'a, V, M> Iterator for Iter<'a, V, M> {
    type Item = Mapping<&'a M>;

    fn next(&mut self) -> Option<Self::Item> {
        let (base, body) = self.rest.next().filter(|(base, _)| **base <= self.last)?;
        Some(self.store.show(*base, body))
    }
}

impl<'a, V, M> IntoIterator for &'a Space<V, M> {
    type Item = Mapping<&'a M>;
    type IntoIter = Iter<'a, V, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
