//! The end of a buffer in a space, and of a space: everything is handed over, nothing is allocated.

use super::bo::BoId;
use super::find::Iter;
use super::mapping::Mapping;
use super::space::Space;
use super::store::Store;
use crate::mem::tree::Slot;
use core::fmt;

impl<V, M> Space<V, M> {
    /// Closes a buffer: takes all of its mappings out and hands over what must be cleared. Allocates nothing, cannot fail
    /// (a buffer that is not open here has nothing to be cleared), and is legal in the signalling path. O(log n) for each of
    /// its mappings.
    pub fn close_bo(&mut self, bo: BoId) -> Option<Detached<V>> {
        let (head, mappings, mapped_at) = self.store.detach_bo(bo);
        let data = self.store.bos.close(bo)?;
        Some(Detached { space: self.id, bo, data, head, mappings, mapped_at, closed_at: self.store.maps })
    }

    /// The mappings that `detached` stands for, in no order; none if it came from another space, or if this one was closed
    /// since.
    pub fn clearing(&self, detached: &Detached<V>) -> impl Iterator<Item = Mapping<&M>> + use<'_, V, M> {
        self.detached(detached)
    }

    pub(super) const fn detached(&self, detached: &Detached<V>) -> BoIter<'_, V, M> {
        let at = if detached.space == self.id { detached.head } else { Slot::NONE };
        BoIter { store: &self.store, at, bo: detached.bo }
    }

    /// The detached mappings of `bo`, which is closed, from the one at `at` on.
    pub(super) const fn detached_from(&self, bo: BoId, at: Slot) -> BoIter<'_, V, M> {
        BoIter { store: &self.store, at, bo }
    }

    pub(super) fn attached(&self, bo: BoId) -> BoIter<'_, V, M> {
        let at = self.store.bos.find(bo).map_or(Slot::NONE, |place| place.head);
        BoIter { store: &self.store, at, bo }
    }

    /// What `detached` stands for has been cleared and flushed: gives the mappings' memory back, each mapping's data to
    /// `free`, and returns the buffer's. If the space was closed since, the mappings are [`Closed`]'s.
    ///
    /// # Errors
    /// It came from another space, and comes back.
    pub fn cleared(&mut self, mut detached: Detached<V>, mut free: impl FnMut(M)) -> Result<V, Detached<V>> {
        if detached.space != self.id {
            return Err(detached);
        }
        while let Some(data) = self.release_next(&mut detached) {
            free(data);
        }
        Ok(detached.data)
    }

    /// Gives the memory of one of the mappings of `detached`, which came from this space, back.
    pub(super) fn release_next(&mut self, detached: &mut Detached<V>) -> Option<M> {
        let (_, next) = self.store.view_detached(detached.head, detached.bo)?;
        let (_, body) = self.store.tree.release(detached.head)?;
        detached.head = next;
        detached.mappings -= 1;
        Some(body.into_data())
    }

    /// Closes the space: takes everything out and hands it over. From then on it takes no requests. Allocates nothing, cannot
    /// fail, takes the same time whatever is mapped, and is legal in the signalling path. The second time there is nothing
    /// left.
    pub const fn close(&mut self) -> Closed<V, M> {
        self.closed = true;
        Closed { store: core::mem::replace(&mut self.store, Store::new()) }
    }

    /// Whether [`Space::close`] was called.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }
}

/// A closed buffer whose mappings are out of the space and still in the page tables. Give it back through
/// [`Space::cleared`] once they are cleared and flushed; dropped, its memory stays with the space until that is dropped.
#[must_use = "the mappings are still in the page tables: clear and flush them, then say so with `Space::cleared`"]
#[derive(Debug)]
pub struct Detached<V> {
    space: u64,
    bo: BoId,
    data: V,
    head: Slot,
    mappings: usize,
    /// When it was last mapped, and when closed; [`Store::maps`].
    mapped_at: u64,
    closed_at: u64,
}

impl<V> Detached<V> {
    /// Which buffer it was.
    #[must_use]
    pub const fn bo(&self) -> BoId {
        self.bo
    }

    /// What the driver kept with the buffer.
    #[must_use]
    pub const fn data(&self) -> &V {
        &self.data
    }

    /// The first of the mappings.
    pub(super) const fn head(&self) -> Slot {
        self.head
    }

    /// When it was closed, counted in mappings that had come to the space.
    pub(super) const fn closed_at(&self) -> u64 {
        self.closed_at
    }

    /// Whether any of its mappings came after that.
    pub(super) const fn was_mapped_after(&self, closed_at: u64) -> bool {
        self.mapped_at > closed_at
    }

    /// How many mappings are to be cleared.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.mappings
    }

    /// Whether nothing is to be cleared.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mappings == 0
    }
}

/// The mappings of one buffer.
pub(super) struct BoIter<'a, V, M> {
    store: &'a Store<V, M>,
    at: Slot,
    bo: BoId,
}

impl<V, M> BoIter<'_, V, M> {
    /// Where the next one is.
    pub(super) const fn at(&self) -> Slot {
        self.at
    }
}

impl<'a, V, M> Iterator for BoIter<'a, V, M> {
    type Item = Mapping<&'a M>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mapping, next) = self.store.view_detached(self.at, self.bo)?;
        self.at = next;
        Some(mapping)
    }
}

/// Everything that a closed space held: mappings that are still in the page tables, and buffers. Drop it where the driver's
/// data may be dropped, once the page tables are cleared and flushed.
#[must_use = "the mappings are still in the page tables: clear and flush them, then drop this"]
pub struct Closed<V, M = ()> {
    store: Store<V, M>,
}

impl<V, M> Closed<V, M> {
    /// All mappings, ascending.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, V, M> {
        Iter::all(&self.store)
    }

    /// The buffers that were open, in no order.
    pub fn bos(&self) -> impl Iterator<Item = (BoId, &V)> {
        self.store.bos.iter()
    }

    /// How many mappings there were.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.store.tree.len()
    }

    /// Whether nothing was mapped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, V, M> IntoIterator for &'a Closed<V, M> {
    type Item = Mapping<&'a M>;
    type IntoIter = Iter<'a, V, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<V, M> fmt::Debug for Closed<V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Closed({} mappings)", self.len())
    }
}
