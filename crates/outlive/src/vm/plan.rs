//! Plans: a batch of requests as steps, with everything allocated that it takes to carry them out.

use super::bo::BoId;
use super::mapping::{Mapping, Source};
use super::overlay::{Entry, Spent};
use super::range::VaRange;
use super::request::{PlanError, Request, Rule};
use super::space::Space;
use super::stage::Stage;
use super::step::Step;
use super::store::Store;
use crate::mem::tree::Slot;
use crate::mem::{AllocError, HeapVec, try_reserve};
use core::fmt;
use core::ops::Range;

/// What a batch of requests comes to. Dropped, it leaves no trace.
#[must_use = "a plan changes nothing until it is committed"]
pub struct Plan<'a, V, M = ()> {
    pub(super) space: &'a mut Space<V, M>,
    stage: Stage<M>,
    /// Where each request's steps end; empty for a single request.
    ends: HeapVec<usize>,
    /// Room for the data of all mappings that go.
    removed: HeapVec<M>,
}

impl<V, M> fmt::Debug for Plan<'_, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({} steps)", self.stage.steps.len())
    }
}

impl<V, M: Clone> Space<V, M> {
    /// Plans `requests`, each on what the ones before it would leave. Allocates everything that [`Plan::commit`] needs.
    ///
    /// # Errors
    /// The first request that breaks a rule, and which; or no memory. Nothing was changed.
    pub fn plan(&mut self, requests: &[Request<M>]) -> Result<Plan<'_, V, M>, PlanError> {
        let at = |request: usize| move |rule: Rule| PlanError { request, rule };
        let stage = Stage::new(self.store.tree.len());
        let mut plan = Plan { space: self, stage, ends: HeapVec::new(), removed: HeapVec::new() };
        let Plan { space, stage, ends, removed } = &mut plan;
        if requests.len() > 1 {
            try_reserve(ends, requests.len()).map_err(|error| at(0)(error.into()))?;
        }
        for (number, request) in requests.iter().enumerate() {
            space.stage(stage, request).map_err(at(number))?;
            if requests.len() > 1 {
                #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved above")]
                ends.push(stage.steps.len());
            }
        }
        let reserved = space.store.reserve(stage.overlay.mappings());
        let reserved = reserved.and_then(|()| try_reserve(removed, stage.replaced));
        reserved.map_err(|error| at(requests.len().saturating_sub(1))(error.into()))?;
        if requests.len() != 1 {
            // The first way down leads to the first request, which need not be the lowest.
            stage.first_floor = Slot::NONE;
        }
        Ok(plan)
    }

    fn stage(&self, stage: &mut Stage<M>, request: &Request<M>) -> Result<(), Rule> {
        let range = self.check(request)?;
        let before = stage.len;
        match request {
            Request::Map { source, flags, data, .. } => {
                let new = Mapping { range, source: *source, flags: *flags, data: data.clone() };
                stage.stage(&self.store, range, Some(new))?;
            }
            Request::Unmap { .. } => stage.stage(&self.store, range, None)?,
            Request::Protect { clear, set, .. } => stage.protect(&self.store, range, *clear, *set)?,
        }
        if stage.len > before && stage.len.saturating_add(self.store.promised()) > self.limit() {
            return Err(Rule::TooMany { limit: self.limit() });
        }
        Ok(())
    }
}

impl<'a, V, M: Clone> Plan<'a, V, M> {
    /// The steps of all requests, in the order in which they are to be carried out.
    #[must_use]
    pub fn steps(&self) -> &[Step<M>] {
        &self.stage.steps
    }

    /// Which of the steps are those of one request, counted from zero; empty for one that changes nothing, or is none.
    #[must_use]
    pub fn steps_of(&self, request: usize) -> Range<usize> {
        steps_of(&self.ends, self.stage.steps.len(), request)
    }

    /// What is kept with an open buffer; none if `bo` is not open in the space.
    #[must_use]
    pub fn bo(&self, bo: BoId) -> Option<&V> {
        self.space.bo(bo)
    }

    /// How many mappings the space will have.
    #[must_use]
    pub const fn len_after(&self) -> usize {
        self.stage.len
    }

    /// The buffers whose reservations the batch must hold, each once: those that are mapped, and those behind mappings
    /// that go. Allocates.
    ///
    /// # Errors
    /// No memory.
    pub fn bos(&self) -> Result<HeapVec<BoId>, AllocError> {
        let sources = self.stage.steps.iter().map(Step::source);
        let mut bos = HeapVec::new();
        try_reserve(&mut bos, self.stage.steps.len())?;
        bos.extend(sources.filter_map(Source::bo));
        bos.sort_unstable();
        bos.dedup();
        Ok(bos)
    }

    /// The most page-table pages that the new mappings can need in a table whose entries cover 2^`shift` bytes, if all
    /// of its directory entries (2^`covers` bytes each) were empty: sum this over the levels. So much is to be reserved
    /// before the commit; what is not used goes back.
    ///
    /// Worked example: mapping 0x1ff000 to 0x201000 touches two directory entries of 2 MiB (`covers` 21), so two page
    /// tables.
    #[must_use]
    pub fn tables(&self, covers: u32) -> u64 {
        let maps = self.stage.steps.iter().filter(|step| matches!(step, Step::Map { .. }));
        maps.map(|step| blocks(step.changes(), covers)).fold(0, u64::saturating_add)
    }

    /// The most entries of 2^`shift` bytes (huge pages) that must be split into smaller ones, because what goes starts or
    /// ends inside: each needs a page table.
    ///
    /// Worked example: unmapping 0x201000 to 0x5ff000 of a mapping of 8 MiB splits the entries at 0x200000 and at 0x400000
    /// where they are of 2 MiB (`shift` 21).
    #[must_use]
    pub fn splits(&self, shift: u32) -> u64 {
        let remaps = self.stage.steps.iter().filter_map(|step| match step {
            Step::Remap { unmap, hole, .. } => Some((unmap.range, *hole)),
            Step::Unmap { .. } | Step::Map { .. } => None,
        });
        remaps.map(|(old, hole)| splits(old, hole, shift)).fold(0, u64::saturating_add)
    }

    /// Makes the space what was planned. Allocates nothing, frees nothing, drops nothing of the driver's and cannot fail: legal
    /// in the signalling path. To carry the steps out first, see [`Plan::apply`].
    pub fn commit(mut self) -> Done<M> {
        let Plan { space, stage, removed, .. } = &mut self;
        let mut settle = Settle { store: &mut space.store, removed, before: Slot::NONE, next_base: None };
        let mut floor = Some(stage.first_floor).filter(|slot| *slot != Slot::NONE);
        while let Some((base, entry)) = stage.overlay.pop_first(&stage.steps) {
            settle.settle(base, entry, floor.take());
        }
        debug_assert_eq!(space.store.tree.len(), stage.len);
        let Stage { steps, overlay, .. } = self.stage;
        Done { steps, ends: self.ends, removed: self.removed, _spent: overlay.into_spent() }
    }
}

fn steps_of(ends: &[usize], steps: usize, request: usize) -> Range<usize> {
    if ends.is_empty() {
        return if request == 0 { 0..steps } else { steps..steps };
    }
    let end = |request: usize| ends.get(request).copied().unwrap_or(steps);
    request.checked_sub(1).map_or(0, end)..end(request)
}

/// How many aligned blocks of 2^`shift` bytes `range` touches.
pub(super) fn blocks(range: VaRange, shift: u32) -> u64 {
    let block = |va: u64| va.checked_shr(shift).unwrap_or(0);
    block(range.last()) - block(range.base()) + 1
}

/// How many aligned blocks of 2^`shift` bytes that lie inside `old` the edges of `hole` cut.
fn splits(old: VaRange, hole: VaRange, shift: u32) -> u64 {
    let Some(mask) = 1_u64.checked_shl(shift).map(|size| size - 1) else { return 0 };
    let cut = |first_gone: u64| {
        first_gone & mask != 0 && old.contains(VaRange::between(first_gone & !mask, first_gone | mask))
    };
    let below = hole.base() > old.base() && cut(hole.base());
    let above = hole.last() < old.last() && cut(hole.last() + 1);
    let same_block = hole.base() & !mask == (hole.last() + u64::from(above)) & !mask;
    u64::from(below) + u64::from(above) - u64::from(below && above && same_block)
}

/// Puts the overlay's entries, ascending, into the store.
struct Settle<'a, V, M> {
    store: &'a mut Store<V, M>,
    removed: &'a mut HeapVec<M>,
    /// The last mapping below the end of the entry before, which is where the next one starts if that is `next_base`.
    before: Slot,
    next_base: Option<u64>,
}

impl<V, M> Settle<'_, V, M> {
    /// Puts one entry in. `floor`, if known, is the last mapping that starts at the first address touched or below.
    fn settle(&mut self, base: u64, entry: Entry<M>, floor: Option<Slot>) {
        let mut old = self.first_under(base, entry.mapping.is_none(), floor);
        // Whether more old mappings may start under the entry.
        let mut more = true;
        if let Some(mapping) = entry.mapping {
            if let Some(range) = self.goes(old, entry.last) {
                // The first old mapping under the entry lends its node: no search, no rebalancing.
                let data = self.store.replace(old, mapping);
                self.keep(data);
                self.before = old;
                more = range.last() < entry.last;
            } else {
                self.before = self.store.insert_after(self.before, mapping);
                more = false;
            }
            if more {
                old = self.store.tree.after(self.before);
            }
        }
        while let Some(range) = self.goes(old, entry.last).filter(|_| more) {
            let next = self.store.tree.after(old);
            let data = self.store.remove(old);
            self.keep(data);
            old = next;
            more = range.last() < entry.last;
        }
        self.next_base = entry.last.checked_add(1);
    }

    /// The first mapping that starts at `base` or above. Sets `before`, unless a mapping starts at `base` whose node will be
    /// reused, which is the case if the entry is no hole.
    fn first_under(&mut self, base: u64, hole: bool, floor: Option<Slot>) -> Slot {
        if self.next_base == Some(base) {
            return self.store.tree.after(self.before);
        }
        let floor = floor.unwrap_or_else(|| self.store.tree.floor(&base));
        if self.store.range(floor).is_none_or(|range| range.base() != base) {
            self.before = floor;
            return self.store.tree.after(floor);
        }
        if hole {
            self.before = self.store.tree.before(floor);
        }
        floor
    }

    /// The mapping at `slot` if it starts under an entry that ends at `last`.
    fn goes(&self, slot: Slot, last: u64) -> Option<VaRange> {
        self.store.range(slot).filter(|range| range.base() <= last)
    }

    fn keep(&mut self, data: Option<M>) {
        debug_assert!(self.removed.len() < self.removed.capacity(), "the plan counted what goes");
        #[expect(clippy::disallowed_methods, reason = "there is room: the plan reserved it")]
        if let Some(data) = data {
            self.removed.push(data);
        }
    }
}

/// What a commit leaves over: the steps, and what the old mappings held. Dropping it drops the driver's data and frees
/// memory, so drop it where that is legal.
pub struct Done<M = ()> {
    steps: HeapVec<Step<M>>,
    ends: HeapVec<usize>,
    removed: HeapVec<M>,
    /// Only memory: it is to be freed here, not in the commit.
    _spent: Spent<M>,
}

impl<M> Done<M> {
    /// The steps that were planned.
    #[must_use]
    pub fn steps(&self) -> &[Step<M>] {
        &self.steps
    }

    /// As [`Plan::steps_of`].
    #[must_use]
    pub fn steps_of(&self, request: usize) -> Range<usize> {
        steps_of(&self.ends, self.steps.len(), request)
    }

    /// What the mappings held that are no more, in ascending order of where they were. The steps have copies.
    #[must_use]
    pub fn removed(&self) -> &[M] {
        &self.removed
    }
}

impl<M> fmt::Debug for Done<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Done({} steps)", self.steps.len())
    }
}
