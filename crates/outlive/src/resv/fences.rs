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

/// All of them.
#[derive(Debug)]
pub(super) struct Fences {
    entries: HeapVec<Entry>,
    /// The first error seen on one.
    poison: Option<FenceError>,
}

const ROOM_MIN: usize = 4;

impl Fences {
    pub(super) const fn new() -> Self {
        Self { entries: HeapVec::new(), poison: None }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
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
        if let Some(error) = self.poison {
            return Err(error);
        }
        let poison = &mut self.poison;
        self.entries.retain(|entry| match entry.outcome() {
            Outcome::Busy => true,
            Outcome::Free => false,
            Outcome::Never(error) => {
                poison.get_or_insert(error);
                true
            }
        });
        poison.map_or(Ok(()), Err)
    }

    /// Whether nothing that `usage` asks for is pending.
    ///
    /// # Errors
    /// As for [`Fences::tidy`]; one of another usage counts too.
    pub(super) fn is_idle(&mut self, usage: Usage) -> Result<bool, FenceError> {
        let mut idle = true;
        for entry in &self.entries {
            match entry.outcome() {
                Outcome::Busy => idle &= !asked(usage, entry.usage),
                Outcome::Free => {}
                Outcome::Never(error) => {
                    self.poison.get_or_insert(error);
                }
            }
        }
        self.poison.map_or(Ok(idle), Err)
    }

    /// Whether `more` fences can be added without memory.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.entries.capacity() - self.entries.len() >= more
    }

    /// What an empty list needs for `more` fences beside those here.
    pub(super) fn room_for(&self, more: usize) -> usize {
        let needed = self.entries.len().saturating_add(more);
        needed.max(self.entries.capacity().saturating_mul(2)).max(ROOM_MIN)
    }

    /// An empty list with room.
    pub(super) fn grown(room: usize) -> Result<HeapVec<Entry>, AllocError> {
        let mut entries = HeapVec::new();
        try_reserve(&mut entries, room)?;
        Ok(entries)
    }

    /// Moves into `entries`, which is empty and large enough; the old list, empty, comes back to be freed.
    pub(super) fn move_to(&mut self, mut entries: HeapVec<Entry>) -> HeapVec<Entry> {
        entries.append(&mut self.entries);
        core::mem::replace(&mut self.entries, entries)
    }

    /// Adds `new`, for which a slot was reserved. What it displaced, or itself if it is there already, comes back to be
    /// dropped where that is legal.
    pub(super) fn add(&mut self, mut new: Entry) -> Option<Entry> {
        let mut free = None;
        for at in 0..self.entries.len() {
            let old = &mut self.entries[at];
            if old.context == new.context {
                let later = new.fence.seqno() > old.fence.seqno();
                let same = new.fence.seqno() == old.fence.seqno();
                if !later && old.usage <= new.usage {
                    old.covers |= !same;
                    return Some(new);
                }
                if (later || same) && old.usage >= new.usage {
                    new.covers = old.covers || (!same && old.outcome() == Outcome::Busy);
                    return Some(self.displace(at, new));
                }
            }
            if free.is_none() && self.entries[at].outcome() == Outcome::Free {
                free = Some(at);
            }
        }
        if let Some(at) = free {
            return Some(self.displace(at, new));
        }
        if self.entries.len() == self.entries.capacity() {
            // A slot was promised, so this cannot be reached. Should it be, nobody would know any more when the memory is free.
            self.poison.get_or_insert(FenceError::Quarantined);
            return Some(new);
        }
        #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved before")]
        self.entries.push(new);
        None
    }

    /// Puts `new` in the place of an old entry, which comes back. An error on the old one is not lost.
    fn displace(&mut self, at: usize, new: Entry) -> Entry {
        let old = core::mem::replace(&mut self.entries[at], new);
        if let Outcome::Never(error) = old.outcome() {
            self.poison.get_or_insert(error);
        }
        old
    }

    /// One step of putting `new` in the place of all fences of `context`; what it displaced comes back. `None`: done.
    pub(super) fn replace_one(&mut self, context: u64, new: &Entry) -> Option<Entry> {
        let at = self.entries.iter().position(|old| old.context == context && old.fence != new.fence)?;
        if self.entries.iter().any(|entry| entry.fence == new.fence) {
            let old = self.entries.remove(at);
            if let Outcome::Never(error) = old.outcome() {
                self.poison.get_or_insert(error);
            }
            return Some(old);
        }
        Some(self.displace(at, new.clone()))
    }

    /// Those that `usage` asks for and that are in the way or have failed, into `copies`, which is empty. False, and nothing was
    /// done, if there is not enough room.
    pub(super) fn copy_to(&mut self, usage: Usage, all: bool, copies: &mut HeapVec<Entry>) -> bool {
        if copies.capacity() < self.entries.len() {
            return false;
        }
        for entry in self.entries.iter().filter(|entry| asked(usage, entry.usage)) {
            let outcome = entry.outcome();
            if let Outcome::Never(error) = outcome {
                self.poison.get_or_insert(error);
            }
            if all || outcome != Outcome::Free {
                #[expect(clippy::disallowed_methods, reason = "there is room: looked at above")]
                copies.push(entry.clone());
            }
        }
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
