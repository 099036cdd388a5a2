//! The fences that hang on one reservation, as a plain list: what replaces what, what is still in the way, and whether the
//! memory behind them will never be free. No lock, no clock; allocates only in [`Fences::grown`].
//!
//! # Replacing
//! Fences of one context signal in order, so a later one stands for an earlier one of at least the same usage. Each may end
//! differently, though: the earlier job's memory may be lost to the hardware and the later job never have started. So an
//! entry that stands for others (`covers`) is free only if its context has never quarantined anything.

use super::Usage;
use crate::fence::{Fence, FenceError, Retired, Slot, Status};
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sabotage::{self, Sabotage};
use crate::time::Time;
use core::time::Duration;

/// A fence and what it stands for.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) fence: Retired,
    /// The fence's, so that looking for it does not touch the fence.
    context: u64,
    /// When it was added: milliseconds on the clock of blocking waits, which come round after 49 days.
    added_ms: u32,
    pub(super) usage: Usage,
    /// It took the place of an earlier fence of its context that was pending.
    covers: bool,
}

fn ms(at: Time) -> u32 {
    // Truncated on purpose.
    (at.as_ns() / 1_000_000) as u32
}

/// How a fence is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Pending.
    Busy,
    /// Signaled: no longer in the way.
    Free,
    /// Signaled with an error: the memory is never free.
    Never(FenceError),
}

impl Entry {
    pub(super) fn new(fence: &Retired, usage: Usage, added: Time) -> Self {
        Self { fence: fence.clone(), context: fence.context(), added_ms: ms(added), usage, covers: false }
    }

    /// How long it has been there, to the millisecond.
    pub(super) fn age(&self, now: Time) -> Duration {
        Duration::from_millis(u64::from(ms(now).wrapping_sub(self.added_ms)))
    }

    /// Whether who waits for `other`, of the same context, waits for this.
    fn is_behind(&self, other: &Self) -> bool {
        self.fence.seqno() <= other.fence.seqno() && self.usage >= other.usage
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self.fence.status() {
            Status::Signaled(Err(error)) => Outcome::Never(error),
            Status::Signaled(Ok(())) if self.covers && self.fence.context_is_quarantined() => {
                Outcome::Never(FenceError::Quarantined)
            }
            Status::Signaled(Ok(())) => Outcome::Free,
            Status::Pending if self.finished_and_sabotaged() => Outcome::Free,
            Status::Pending => Outcome::Busy,
        }
    }

    fn finished_and_sabotaged(&self) -> bool {
        sabotage::is(Sabotage::ReuseAtFinished)
            && self.fence.is_jobs()
            && self.fence.sibling(Slot::Finished).is_signaled()
    }
}

/// All of them. The first few lie in the reservation itself: most have no more, and each piece of memory less is a cache miss
/// less for who locks many.
#[derive(Debug)]
pub(super) struct Fences {
    first: [Option<Entry>; FIRST],
    more: HeapVec<Entry>,
    /// The first error seen on one.
    poison: Option<FenceError>,
}

const FIRST: usize = 2;
const ROOM_MIN: usize = 4;

impl Fences {
    pub(super) const fn new() -> Self {
        Self { first: [const { None }; FIRST], more: HeapVec::new(), poison: None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().flatten().chain(&self.more)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.first.iter_mut().flatten().chain(&mut self.more)
    }

    pub(super) fn len(&self) -> usize {
        self.first.iter().flatten().count() + self.more.len()
    }

    /// Why the memory will never be free, if that has been seen.
    pub(super) const fn poison(&self) -> Option<FenceError> {
        self.poison
    }

    /// What is to be done when it is locked: nothing, as long as no memory of this process was ever lost to the hardware; then,
    /// a look at all.
    ///
    /// # Errors
    /// If the memory is never free.
    #[inline]
    pub(super) fn check(&mut self) -> Result<(), FenceError> {
        if Fence::any_lost() { self.tidy() } else { Ok(()) }
    }

    /// Looks at all and lets go of those that are no longer in the way.
    ///
    /// # Errors
    /// If the memory is never free. Everything stays as it is from then on.
    pub(super) fn tidy(&mut self) -> Result<(), FenceError> {
        self.look(Usage::Kernel)?;
        let stays = |entry: &Entry| entry.outcome() != Outcome::Free;
        self.first.iter_mut().for_each(|place| *place = place.take().filter(stays));
        self.more.retain(stays);
        Ok(())
    }

    /// Whether nothing that `usage` asks for is pending.
    ///
    /// # Errors
    /// As for [`Fences::tidy`]; one of another usage counts too.
    pub(super) fn is_idle(&mut self, usage: Usage) -> Result<bool, FenceError> {
        self.look(usage)
    }

    fn look(&mut self, usage: Usage) -> Result<bool, FenceError> {
        let (mut idle, mut poison) = (true, self.poison);
        for entry in self.iter() {
            match entry.outcome() {
                Outcome::Busy => idle &= !asked(usage, entry.usage),
                Outcome::Free => {}
                Outcome::Never(error) => _ = poison.get_or_insert(error),
            }
        }
        self.poison = poison;
        poison.map_or(Ok(idle), Err)
    }

    /// Whether `wanted` fences can be added without memory.
    pub(super) fn has_room(&self, wanted: usize) -> bool {
        let first = self.first.iter().filter(|place| place.is_none()).count();
        first + self.more.capacity() - self.more.len() >= wanted
    }

    /// What a list behind the first few needs for `wanted` fences beside those here.
    pub(super) fn room_for(&self, wanted: usize) -> usize {
        let needed = self.more.len().saturating_add(wanted);
        needed.max(self.more.capacity().saturating_mul(2)).max(ROOM_MIN)
    }

    /// An empty list with room.
    pub(super) fn grown(room: usize) -> Result<HeapVec<Entry>, AllocError> {
        let mut more = HeapVec::new();
        try_reserve(&mut more, room)?;
        Ok(more)
    }

    /// Moves into `more`, which is empty and large enough; the old list, empty, comes back to be freed.
    pub(super) fn move_to(&mut self, mut more: HeapVec<Entry>) -> HeapVec<Entry> {
        more.append(&mut self.more);
        core::mem::replace(&mut self.more, more)
    }

    /// Adds `new`, for which a slot was reserved. What it displaced, or itself if it is there already, comes back to be
    /// dropped where that is legal.
    pub(super) fn add(&mut self, mut new: Entry) -> Option<Entry> {
        let related = |old: &Entry| new.is_behind(old) || old.is_behind(&new);
        let known = self.iter_mut().find(|old| old.context == new.context && related(old));
        if let Some(old) = known {
            let same = old.fence.seqno() == new.fence.seqno();
            if new.is_behind(old) {
                old.covers |= !same;
                return Some(new);
            }
            new.covers = old.covers || (!same && old.outcome() == Outcome::Busy);
            let old = core::mem::replace(old, new);
            return Some(self.displaced(old));
        }
        if let Some(old) = self.iter_mut().find(|old| old.outcome() == Outcome::Free) {
            return Some(core::mem::replace(old, new));
        }
        if let Some(place) = self.first.iter_mut().find(|place| place.is_none()) {
            *place = Some(new);
            return None;
        }
        if self.more.len() == self.more.capacity() {
            // A slot was promised, so this cannot be reached. Should it be, nobody would know any more when the memory is free.
            self.poison.get_or_insert(FenceError::Quarantined);
            return Some(new);
        }
        #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved before")]
        self.more.push(new);
        None
    }

    /// An error on what was displaced is not lost.
    fn displaced(&mut self, old: Entry) -> Entry {
        if let Outcome::Never(error) = old.outcome() {
            self.poison.get_or_insert(error);
        }
        old
    }

    /// One step of putting `new` in the place of all fences of `context`; what it displaced comes back. `None`: done.
    pub(super) fn replace_one(&mut self, context: u64, new: &Entry) -> Option<Entry> {
        let there = self.iter().any(|entry| entry.fence == new.fence);
        let old_one = |old: &Entry| old.context == context && old.fence != new.fence;
        let old = if there {
            let first = self.first.iter_mut().find_map(|place| place.take_if(|old| old_one(old)));
            first.or_else(|| self.more.iter().position(old_one).map(|at| self.more.remove(at)))
        } else {
            self.iter_mut().find(|old| old_one(old)).map(|old| core::mem::replace(old, new.clone()))
        };
        old.map(|old| self.displaced(old))
    }

    /// Those that `usage` asks for and that are in the way or have failed, or all of them, into `copies`, which is empty. False,
    /// and nothing was done, if there is not enough room.
    pub(super) fn copy_to(&mut self, usage: Usage, all: bool, copies: &mut HeapVec<Entry>) -> bool {
        if copies.capacity() < self.len() {
            return false;
        }
        // The error is in the poison then.
        let _ = self.look(usage);
        let asked = self.iter().filter(|entry| asked(usage, entry.usage));
        copies.extend(asked.filter(|entry| all || entry.outcome() != Outcome::Free).cloned());
        true
    }
}

/// Whether asking for `usage` is asking for a fence of usage `fence`.
fn asked(usage: Usage, fence: Usage) -> bool {
    if sabotage::is(Sabotage::IdleTooSoon) && usage == Usage::Read {
        return Usage::Write.includes(fence);
    }
    usage.includes(fence)
}
