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
    pub fn close_bo(&mut self, bo: BoId) -> Option<ToClear<V>> {
        let (head, mappings) = self.store.detach_bo(bo);
        let data = self.store.bos.close(bo)?;
        Some(ToClear { space: self.id, bo, data, head, mappings })
    }

    /// The mappings that `to_clear` stands for, in no order; none if it came from another space, or if this one was closed
    /// since.
    pub fn clearing(&self, to_clear: &ToClear<V>) -> impl Iterator<Item = Mapping<&M>> {
        let bo = to_clear.bo;
        let mut slot = if to_clear.space == self.id { to_clear.head } else { Slot::NONE };
        core::iter::from_fn(move || {
            let (mapping, next) = self.store.view_detached(slot, bo)?;
            slot = next;
            Some(mapping)
        })
    }

    /// What `to_clear` stands for has been cleared and flushed: gives the mappings' memory back, each mapping's data to
    /// `free`, and returns the buffer's. If the space was closed since, the mappings are [`Closed`]'s.
    ///
    /// # Errors
    /// It came from another space, and comes back.
    pub fn cleared(&mut self, to_clear: ToClear<V>, mut free: impl FnMut(M)) -> Result<V, ToClear<V>> {
        if to_clear.space != self.id {
            return Err(to_clear);
        }
        let mut slot = to_clear.head;
        while let Some((_, next)) = self.store.view_detached(slot, to_clear.bo) {
            if let Some((_, body)) = self.store.tree.release(slot) {
                free(body.into_data());
            }
            slot = next;
        }
        Ok(to_clear.data)
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
pub struct ToClear<V> {
    space: u64,
    bo: BoId,
    data: V,
    head: Slot,
    mappings: usize,
}

impl<V> ToClear<V> {
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
