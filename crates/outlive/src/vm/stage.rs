//! Planning: from requests to steps and to what the space will hold.

use super::mapping::{Flags, Mapping};
use super::overlay::{Cover, Overlay};
use super::range::VaRange;
use super::step::Step;
use super::store::Store;
use crate::mem::tree::Slot;
use crate::mem::{AllocError, HeapVec, try_reserve};

/// A batch as far as it has been planned.
pub(super) struct Stage<M> {
    pub(super) overlay: Overlay<M>,
    pub(super) steps: HeapVec<Step<M>>,
    /// How many mappings of the space itself go or are replaced.
    pub(super) replaced: usize,
    /// How many mappings there would be.
    pub(super) len: usize,
    /// Where the first way down ended: the last mapping that starts at the first request's base or below.
    pub(super) first_floor: Slot,
}

/// Room for one more step; grows by doubling.
fn reserve_step<T>(steps: &mut HeapVec<T>) -> Result<(), AllocError> {
    if steps.len() < steps.capacity() {
        return Ok(());
    }
    try_reserve(steps, steps.len().max(2))
}

#[expect(clippy::disallowed_methods, reason = "there is room: it was reserved above")]
fn push<T>(steps: &mut HeapVec<T>, step: T) -> Result<(), AllocError> {
    reserve_step(steps)?;
    steps.push(step);
    Ok(())
}

impl<M: Clone> Stage<M> {
    pub(super) fn new(len: usize) -> Self {
        let (overlay, steps) = (Overlay::new(), HeapVec::new());
        Self { overlay, steps, replaced: 0, len, first_floor: Slot::NONE }
    }

    /// Plans that `range` leads to `new`, or nowhere.
    pub(super) fn stage<V>(
        &mut self,
        store: &Store<V, M>,
        range: VaRange,
        new: Option<Mapping<M>>,
    ) -> Result<(), AllocError> {
        self.overlay.prepare(&self.steps)?;
        let mut walk = Walk::new(store, &self.overlay, range);
        if self.overlay.is_empty() {
            self.first_floor = walk.floor;
        }
        let mut cover = Cover { range, below: None, above: None, new: None };
        let first_step = self.steps.len();
        let (mut touched, mut touched_staged) = (0, 0);
        while let Some((old, staged)) = walk.next() {
            let Some(step) = Step::out_of(old, range, new.as_ref()) else { return Ok(()) };
            if old.range.base() < range.base() {
                cover.below = Some(old.data.clone());
            }
            if old.range.last() > range.last() {
                cover.above = Some(old.data.clone());
            }
            push(&mut self.steps, step.cloned())?;
            touched += 1;
            touched_staged += usize::from(staged);
        }
        if touched == 0 && new.is_none() {
            return Ok(());
        }
        if let Some(mapping) = new {
            cover.new = Some(mapping.data.clone());
            push(&mut self.steps, Step::Map { mapping })?;
        }
        self.len = self.len + cover.mappings() - touched;
        self.replaced += touched - touched_staged;
        self.overlay.cover(cover, &self.steps[first_step..]);
        Ok(())
    }

    /// Plans that what is mapped in `range` loses the flags `clear` and gets `set`.
    pub(super) fn protect<V>(
        &mut self,
        store: &Store<V, M>,
        range: VaRange,
        clear: Flags,
        set: Flags,
    ) -> Result<(), AllocError> {
        let mut rest = Some(range);
        while let Some(here) = rest {
            self.overlay.prepare(&self.steps)?;
            let Some((old, _)) = Walk::new(store, &self.overlay, here).next() else { break };
            let part = old.range.intersection(here).unwrap_or(here);
            rest = (part.last() < range.last()).then(|| VaRange::between(part.last() + 1, range.last()));
            if let Some(new) = old.protected(here, clear, set) {
                let new = new.cloned();
                self.stage(store, part, Some(new))?;
            }
        }
        Ok(())
    }
}

/// The mappings that would be in a range, ascending.
struct Walk<'a, V, M> {
    store: &'a Store<V, M>,
    overlay: &'a Overlay<M>,
    /// What has not been looked at.
    rest: Option<VaRange>,
    /// The last mapping of the space that starts where the range does, or below.
    floor: Slot,
    /// The mapping of the space to look at next, if that is known.
    next: Option<Slot>,
}

impl<'a, V, M> Walk<'a, V, M> {
    fn new(store: &'a Store<V, M>, overlay: &'a Overlay<M>, range: VaRange) -> Self {
        let floor = store.tree.floor(&range.base());
        let has_base = store.range(floor).is_some_and(|found| found.has(range.base()));
        let next = Some(if has_base { floor } else { store.tree.after(floor) });
        Self { store, overlay, rest: Some(range), floor, next }
    }

    /// The next mapping, and whether it is one of the overlay.
    fn next(&mut self) -> Option<(Mapping<&'a M>, bool)> {
        loop {
            let rest = self.rest?;
            if let Some(entry) = self.overlay.over(rest.base()) {
                self.go_on_after(entry.last);
                self.next = None;
                match &entry.mapping {
                    Some(mapping) => return Some((borrowed(mapping), true)),
                    None => continue,
                }
            }
            let slot = self.next.take().unwrap_or_else(|| self.store.find_from(rest.base()));
            let below = self.overlay.next_base(rest.base()).filter(|next| rest.has(*next));
            let found =
                self.store.view(slot).filter(|old| below.map_or(rest.last(), |next| next - 1) >= old.range.base());
            let Some(old) = found else {
                // Nothing more before the overlay's next entry.
                self.go_on_after(below? - 1);
                continue;
            };
            self.go_on_after(old.range.last());
            if self.rest.is_some() {
                self.next = Some(self.store.tree.after(slot));
            }
            return Some((old, false));
        }
    }

    fn go_on_after(&mut self, last: u64) {
        self.rest = self.rest.filter(|rest| last < rest.last()).map(|rest| VaRange::between(last + 1, rest.last()));
    }
}

fn borrowed<M>(mapping: &Mapping<M>) -> Mapping<&M> {
    Mapping { range: mapping.range, source: mapping.source, flags: mapping.flags, data: &mapping.data }
}
