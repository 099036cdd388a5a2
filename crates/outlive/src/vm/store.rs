//! The mappings of a space: the ordered tree, and through it one list per buffer.
//!
//! # Invariants
//! - Mappings do not overlap; the key is the first address, `last` the last one.
//! - A mapping with a buffer names an open one, and is in that buffer's list. Links are slots of the tree, good as long as
//!   those mappings are there; they lie apart from the mappings, so that changing a list touches little memory. A mapping
//!   without a buffer is in no list.
//! - There is a link for every slot that the tree has room for.
//! - Detached entries (see [`Store::detach_bo`]) are linked the same way, by `next` only; their buffer is closed. So are those
//!   that [`Store::park`] took out, in a list of the store's own.
//! - There is room for as many more mappings as are promised.

use super::bo::{BoId, Bos, Place};
use super::mapping::{Flags, Mapping, Source};
use super::range::VaRange;
use crate::mem::shared::Ref;
use crate::mem::tree::{Slot, Tree};
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::num::NonZeroU32;

/// What the tree holds for a mapping: [`Mapping`] in fewer bytes.
pub(super) struct Body<M> {
    last: u64,
    offset: u64,
    /// Zero if not repeated.
    window: u64,
    phase: u64,
    /// One above the buffer's place, or [`SPARSE`]. Never zero, which saves the tree a word for each mapping.
    bo: NonZeroU32,
    flags: Flags,
    data: M,
}

/// No buffer; no place is this high.
const SPARSE: NonZeroU32 = NonZeroU32::MAX;

/// The neighbours in a buffer's list.
#[derive(Clone, Copy)]
struct Link {
    prev: Slot,
    next: Slot,
}

impl<M> Body<M> {
    fn new(mapping: Mapping<M>) -> (u64, Self) {
        let (bo, offset, window, phase) = match mapping.source {
            Source::Bo { bo, offset } => (Some(bo), offset, 0, 0),
            Source::Repeated { bo, offset, window, phase } => (Some(bo), offset, window, phase),
            Source::Sparse => (None, 0, 0, 0),
        };
        let bo = bo.and_then(|bo| NonZeroU32::new(bo.place() + 1)).unwrap_or(SPARSE);
        let Mapping { range, flags, data, .. } = mapping;
        (range.base(), Self { last: range.last(), offset, window, phase, bo, flags, data })
    }

    pub(super) fn into_data(self) -> M {
        self.data
    }

    /// The place of its buffer.
    fn place(&self) -> Option<u32> {
        (self.bo != SPARSE).then(|| self.bo.get() - 1)
    }

    fn view(&self, base: u64, bo: Option<BoId>) -> Mapping<&M> {
        let Self { offset, window, phase, .. } = *self;
        let source = match bo {
            None => Source::Sparse,
            Some(bo) if window == 0 => Source::Bo { bo, offset },
            Some(bo) => Source::Repeated { bo, offset, window, phase },
        };
        Mapping { range: VaRange::between(base, self.last), source, flags: self.flags, data: &self.data }
    }
}

pub(super) struct Store<V, M> {
    pub(super) tree: Tree<u64, Body<M>>,
    pub(super) bos: Bos<V>,
    links: HeapVec<Link>,
    /// How many mappings of buffers have come so far: the time, for what was closed and what came in its place.
    pub(super) maps: u64,
    /// The first of the mappings that were taken out and still hold their data.
    parked: Slot,
    /// Of those, the first that were set apart.
    apart: Slot,
    /// How many mappings those who hold a [`Promise`] may add; made with the first.
    promised: Option<Ref<AtomicUsize>>,
}

/// Memory for more mappings, made beside a store that goes on being used.
pub(super) struct Wider<M> {
    tree: Tree<u64, Body<M>>,
    links: HeapVec<Link>,
}

impl<M> Wider<M> {
    pub(super) fn try_new(slots: usize) -> Result<Self, AllocError> {
        let mut tree = Tree::new();
        tree.try_reserve(slots)?;
        let mut links = HeapVec::new();
        try_reserve(&mut links, tree.capacity())?;
        links.resize(tree.capacity(), Link { prev: Slot::NONE, next: Slot::NONE });
        Ok(Self { tree, links })
    }
}

/// Room for some mappings, given back when dropped.
pub(super) struct Promise {
    promised: Ref<AtomicUsize>,
    room: usize,
}

impl Promise {
    /// Gives the room back before the end.
    pub(super) fn give_back(&mut self) {
        // ORDERING: a number that nothing else depends on; it is raised by whoever has the store.
        self.promised.fetch_sub(core::mem::take(&mut self.room), Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<V, M> Store<V, M> {
    pub(super) const fn new() -> Self {
        let (parked, apart) = (Slot::NONE, Slot::NONE);
        Self { tree: Tree::new(), bos: Bos::new(), links: HeapVec::new(), maps: 0, parked, apart, promised: None }
    }

    /// How many mappings may be added without asking.
    pub(super) fn promised(&self) -> usize {
        // ORDERING: it may have become less, which does no harm.
        self.promised.as_ref().map_or(0, |promised| promised.load(Ordering::Relaxed))
    }

    /// Keeps room for `room` mappings until the promise is dropped.
    pub(super) fn promise(&mut self, room: usize) -> Result<Promise, AllocError> {
        self.reserve(room)?;
        self.promise_in_room(room)
    }

    /// As `promise`, where there is room. Allocates only the first time.
    pub(super) fn promise_in_room(&mut self, room: usize) -> Result<Promise, AllocError> {
        let promised = match &self.promised {
            Some(promised) => promised.clone(),
            None => self.promised.insert(Ref::try_new(AtomicUsize::new(0))?).clone(),
        };
        // ORDERING: as in `Promise::give_back`.
        promised.fetch_add(room, Ordering::Relaxed);
        Ok(Promise { promised, room })
    }

    /// Makes room for `more` mappings beyond those there are and those that are promised. Grows by a third, so that growing one
    /// by one stays cheap.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), AllocError> {
        if let Some(more) = self.lacks(more) {
            self.tree.try_reserve(more)?;
        }
        self.reserve_links(self.tree.capacity())
    }

    /// For how many mappings room must be made, if there is not enough for `more`.
    fn lacks(&self, more: usize) -> Option<usize> {
        let more = more.saturating_add(self.promised());
        (self.tree.room() < more).then(|| more.max(self.tree.len() / 3).max(4))
    }

    /// How many slots there must be in all for `more` mappings beyond those there are and those that are promised; none if
    /// there are enough. What to do about it: [`Wider`].
    pub(super) fn slots_for(&self, more: usize) -> Option<usize> {
        let used = self.tree.capacity() - self.tree.room();
        self.lacks(more).map(|more| used.saturating_add(more))
    }

    /// Moves into `wider`, made for as many slots as were asked for. Allocates nothing and frees nothing; `wider` has the old
    /// memory then.
    pub(super) fn move_to(&mut self, wider: &mut Wider<M>) {
        if wider.tree.capacity() < self.tree.capacity() {
            return;
        }
        self.tree.move_to(&mut wider.tree);
        // There may be links beyond the last slot.
        let links = wider.links.len().min(self.links.len());
        wider.links[..links].copy_from_slice(&self.links[..links]);
        core::mem::swap(&mut self.links, &mut wider.links);
    }

    /// Makes as many links as a tree has slots.
    fn reserve_links(&mut self, slots: usize) -> Result<(), AllocError> {
        let more = slots.saturating_sub(self.links.len());
        if more > 0 {
            try_reserve(&mut self.links, more)?;
            self.links.resize(slots, Link { prev: Slot::NONE, next: Slot::NONE });
        }
        Ok(())
    }

    /// Bytes of memory, room for more included.
    pub(super) fn bytes(&self) -> usize {
        self.tree.bytes() + self.bos.bytes() + self.links.capacity() * size_of::<Link>()
    }

    /// The mapping at `slot`.
    pub(super) fn view(&self, slot: Slot) -> Option<Mapping<&M>> {
        self.tree.at(slot).map(|(base, body)| self.show(*base, body))
    }

    /// The mapping at `base`.
    pub(super) fn show<'a>(&self, base: u64, body: &'a Body<M>) -> Mapping<&'a M> {
        let bo = body.place().map(|place| self.bos.id_at(place));
        body.view(base, bo)
    }

    /// The detached mapping at `slot`, whose buffer was `bo`, and the next of its list.
    pub(super) fn view_detached(&self, slot: Slot, bo: BoId) -> Option<(Mapping<&M>, Slot)> {
        let (base, body) = self.tree.at(slot)?;
        Some((body.view(*base, Some(bo)), self.links.get(slot.index())?.next))
    }

    /// First and last address of the mapping at `slot`.
    pub(super) fn range(&self, slot: Slot) -> Option<VaRange> {
        self.tree.at(slot).map(|(base, body)| VaRange::between(*base, body.last))
    }

    /// The place of the mapping that contains `va`.
    pub(super) fn find(&self, va: u64) -> Slot {
        let slot = self.tree.floor(&va);
        if self.range(slot).is_some_and(|range| range.has(va)) { slot } else { Slot::NONE }
    }

    /// The place of the first mapping that ends at `va` or later.
    pub(super) fn find_from(&self, va: u64) -> Slot {
        let slot = self.tree.floor(&va);
        if self.range(slot).is_some_and(|range| range.has(va)) { slot } else { self.tree.after(slot) }
    }

    /// Adds a mapping after the one at `before`, where it belongs and where there is room.
    pub(super) fn insert_after(&mut self, before: Slot, mapping: Mapping<M>) -> Slot {
        let (base, body) = Body::new(mapping);
        let Ok(slot) = self.tree.insert_after(before, base, body) else {
            debug_assert!(false, "a plan reserves room for all it adds");
            return Slot::NONE;
        };
        self.link(slot);
        slot
    }

    /// Puts a mapping in the place of another whose order among the others it takes. Returns the old one's data.
    pub(super) fn replace(&mut self, slot: Slot, mapping: Mapping<M>) -> Option<M> {
        let (base, body) = Body::new(mapping);
        let stays = self.tree.at(slot)?.1.bo == body.bo;
        if !stays {
            self.unlink(slot);
        }
        if self.tree.at(slot)?.0 != &base {
            self.tree.rekey(slot, base);
        }
        let old = core::mem::replace(self.tree.at_mut(slot)?, body);
        if !stays {
            self.link(slot);
        }
        Some(old.data)
    }

    /// Takes a mapping out and returns its data.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<M> {
        self.unlink(slot);
        self.tree.take_at(slot).map(|(_, body)| body.data)
    }

    /// Takes `hole` out of the mapping at `slot`, which it overlaps. What stays below, or else above, keeps the node and the
    /// data; a second piece needs room for one more. Nothing is dropped.
    pub(super) fn cut(&mut self, slot: Slot, hole: VaRange)
    where
        M: Clone,
    {
        let Some(old) = self.view(slot) else { return };
        match (old.below(hole), old.above(hole)) {
            (Some(below), above) => {
                let (below, above) = (below.with_data(()), above.map(Mapping::cloned));
                self.reshape(slot, below);
                if let Some(above) = above {
                    self.insert_after(slot, above);
                }
            }
            (None, Some(above)) => {
                let above = above.with_data(());
                self.reshape(slot, above);
            }
            (None, None) => self.park(slot),
        }
    }

    /// Makes the mapping at `slot` a part of itself, or changes its flags.
    pub(super) fn reshape(&mut self, slot: Slot, to: Mapping<()>) {
        let (base, Body { last, offset, phase, flags, .. }) = Body::new(to);
        self.tree.rekey(slot, base);
        let Some(body) = self.tree.at_mut(slot) else { return };
        (body.last, body.offset, body.phase, body.flags) = (last, offset, phase, flags);
    }

    /// Takes the mapping at `slot` out. It keeps its node, and the data in it, until it is [`Store::unpark`]'s turn.
    fn park(&mut self, slot: Slot) {
        self.unlink(slot);
        self.tree.detach(slot);
        let next = core::mem::replace(&mut self.parked, slot);
        self.set_link(slot, Link { prev: Slot::NONE, next });
    }

    /// Frees the node of one of the mappings that were parked, and returns what it held. Those that were set apart come first.
    pub(super) fn unpark(&mut self) -> Option<M> {
        self.unpark_apart().or_else(|| {
            let next = self.links.get(self.parked.index())?.next;
            let slot = core::mem::replace(&mut self.parked, next);
            self.tree.release(slot).map(|(_, body)| body.data)
        })
    }

    /// Sets apart what has been parked by now, unless something is apart already. True if anything is apart.
    pub(super) fn set_apart(&mut self) -> bool {
        if self.apart == Slot::NONE {
            self.apart = core::mem::replace(&mut self.parked, Slot::NONE);
        }
        self.apart != Slot::NONE
    }

    /// As `unpark`, of those that were set apart only.
    pub(super) fn unpark_apart(&mut self) -> Option<M> {
        let next = self.links.get(self.apart.index())?.next;
        let slot = core::mem::replace(&mut self.apart, next);
        self.tree.release(slot).map(|(_, body)| body.data)
    }

    /// Whether anything is set apart.
    pub(super) fn is_apart(&self) -> bool {
        self.apart != Slot::NONE
    }

    /// Whether anything is parked that nobody has set apart yet, and could.
    pub(super) fn is_to_be_set_apart(&self) -> bool {
        self.parked != Slot::NONE && self.apart == Slot::NONE
    }

    /// Takes all mappings of `id` out of the tree and leaves them linked: the first, how many, and when the last came.
    pub(super) fn detach_bo(&mut self, id: BoId) -> (Slot, usize, u64) {
        let Some(place) = self.bos.find(id) else { return (Slot::NONE, 0, 0) };
        let (head, count, mapped_at) = (place.head, place.mappings, place.mapped_at);
        let mut slot = head;
        while let Some(link) = self.links.get(slot.index()) {
            self.tree.detach(slot);
            slot = link.next;
        }
        (head, count, mapped_at)
    }

    /// Puts the mapping at `slot` into its buffer's list.
    fn link(&mut self, slot: Slot) {
        self.link_to(self.tree.at(slot).and_then(|(_, body)| body.place()), slot);
    }

    /// Puts the mapping at `slot` into the list of the buffer at `place`.
    fn link_to(&mut self, place: Option<u32>, slot: Slot) {
        let Some(place) = place.and_then(|place| self.bos.at_mut(place)) else { return };
        self.maps += 1;
        place.mapped_at = self.maps;
        place.mappings += 1;
        let next = core::mem::replace(&mut place.head, slot);
        self.set_link(slot, Link { prev: Slot::NONE, next });
        if let Some(link) = self.links.get_mut(next.index()) {
            link.prev = slot;
        }
    }

    /// Takes the mapping at `slot` out of its buffer's list.
    fn unlink(&mut self, slot: Slot) {
        let Some(Link { prev, next }) = self.links.get(slot.index()).copied() else { return };
        let Some(place) = self.place_of(slot) else { return };
        place.mappings -= 1;
        if prev == Slot::NONE {
            place.head = next;
        } else if let Some(link) = self.links.get_mut(prev.index()) {
            link.next = next;
        }
        if let Some(link) = self.links.get_mut(next.index()) {
            link.prev = prev;
        }
    }

    fn set_link(&mut self, slot: Slot, to: Link) {
        if let Some(link) = self.links.get_mut(slot.index()) {
            *link = to;
        }
    }

    /// The buffer of the mapping at `slot`.
    fn place_of(&mut self, slot: Slot) -> Option<&mut Place<V>> {
        let place = self.tree.at(slot)?.1.place()?;
        self.bos.at_mut(place)
    }

    /// A tree of `count` mappings, which ascend.
    pub(super) fn tree_of(
        count: usize,
        mappings: impl Iterator<Item = Mapping<M>>,
    ) -> Result<Tree<u64, Body<M>>, AllocError> {
        Tree::from_sorted(count, mappings.map(Body::new))
    }

    /// Takes over a tree in place of its own, which is empty.
    pub(super) fn fill(&mut self, mut tree: Tree<u64, Body<M>>) -> Result<(), AllocError> {
        debug_assert!(self.tree.is_bare());
        tree.try_reserve(self.promised())?;
        self.reserve_links(tree.capacity())?;
        for (slot, body) in tree.slots() {
            self.link_to(body.place(), slot);
        }
        self.tree = tree;
        Ok(())
    }
}
