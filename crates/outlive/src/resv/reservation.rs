//! [`Reservation`]: the handle, and all that may be done without locking it.

use super::Usage;
use super::fences::{Entry, Fences};
use super::ticket::{Ticketed, Waiting, sync_now};
use crate::exec::next_id;
use crate::fence::{ContainerError, Fence, FenceError, Retired, WaitError};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::time::Time;
use core::fmt;
use core::time::Duration;

/// What hangs on a buffer, or on several that share it: the fences that somebody must wait for before touching, moving or
/// freeing it. A counted handle; clones are the same reservation, and comparing compares that.
///
/// Fences are added in a [`Transaction`](super::Transaction). Looking needs no lock and never waits for who has it.
///
/// Once a fence on it is seen to have signaled an error, it is *poisoned*: the hardware may touch the memory for ever (rule 4).
/// No transaction locks it any more, and waiting for it fails, so nobody who goes through it moves or reuses the memory.
#[derive(Clone)]
pub struct Reservation {
    pub(super) inner: Ref<Inner>,
}

pub(super) struct Inner {
    id: u64,
    pub(super) lock: Ticketed<Fences>,
}

/// What hung on a reservation at one moment.
#[derive(Debug)]
pub struct Snapshot {
    entries: HeapVec<Entry>,
}

impl Snapshot {
    /// Each fence and what for, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Usage, &Retired)> {
        self.entries.iter().map(|entry| (entry.usage, &entry.fence))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there was nothing in the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// All there is to tell about a reservation at one moment.
pub(super) struct Told {
    pub(super) id: u64,
    pub(super) entries: HeapVec<Entry>,
    pub(super) waiting: HeapVec<Waiting>,
    pub(super) owner: Option<(u64, usize)>,
    pub(super) poison: Option<FenceError>,
}

impl Reservation {
    /// One without fences. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new() -> Result<Self, AllocError> {
        let inner = Inner { id: next_id(), lock: Ticketed::new(Fences::new()) };
        Ok(Self { inner: Ref::try_new(inner)? })
    }

    /// Its number, never given twice in a process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Whether a transaction has it locked at this moment. Any context.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.inner.lock.state().owner().is_some()
    }

    /// The error that was seen on one of its fences, which is why its memory is never free. Looks at none now. Any context.
    #[must_use]
    pub fn poisoned(&self) -> Option<FenceError> {
        self.inner.lock.state().value.poison()
    }

    /// Whether nothing is pending that `usage` asks for (`dma_resv_test_signaled`). By the time the answer is read, somebody
    /// may have added a fence: who wants to touch the memory on it must have the reservation locked. Any context.
    ///
    /// # Errors
    /// The error of a fence of any usage: the memory is never free.
    pub fn is_idle(&self, usage: Usage) -> Result<bool, FenceError> {
        self.inner.lock.state().value.is_idle(usage)
    }

    /// What `usage` asks for, as it was at one moment: all that was pending, and what had failed (`dma_resv_get_fences`, but
    /// never a mixture of two moments). Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn snapshot(&self, usage: Usage) -> Result<Snapshot, AllocError> {
        self.copy(usage, false).map(|entries| Snapshot { entries })
    }

    fn copy(&self, usage: Usage, all: bool) -> Result<HeapVec<Entry>, AllocError> {
        let mut entries = HeapVec::new();
        loop {
            let (copied, len) = {
                let fences = &mut self.inner.lock.state().value;
                (fences.copy_to(usage, all, &mut entries), fences.len())
            };
            if copied {
                return Ok(entries);
            }
            try_reserve(&mut entries, len)?;
        }
    }

    /// What `usage` asks for as one fence: `None` if nothing is pending, the fence if one is, else all of them
    /// ([`Retired::all_of`]). Allocates.
    ///
    /// # Errors
    /// [`ContainerError::OutOfMemory`].
    pub fn singleton(&self, usage: Usage) -> Result<Option<Retired>, ContainerError> {
        let now = self.snapshot(usage)?;
        match now.entries.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.fence.clone())),
            all => Retired::all_of_each(all.iter().map(|entry| &entry.fence)).map(Some),
        }
    }

    /// Waits until all that `usage` asks for now has signaled, at most `timeout` of real time (zero polls, [`Duration::MAX`] is
    /// no limit). Fences added meanwhile are not waited for. With an executor that the caller drives, wait for
    /// [`Reservation::singleton`] there. Allocates if anything is pending, and blocks.
    ///
    /// # Errors
    /// As for [`Fence::wait`]; [`WaitError::Failed`] means that the memory is never free. [`WaitError::OutOfMemory`].
    #[track_caller]
    pub fn wait(&self, usage: Usage, timeout: Duration) -> Result<(), WaitError> {
        if self.is_idle(usage).map_err(WaitError::Failed)? {
            return Ok(());
        }
        if timeout.is_zero() {
            return Err(WaitError::TimedOut);
        }
        let until = if timeout == Duration::MAX { Time::NEVER } else { sync_now().after(timeout) };
        let now = self.snapshot(usage).map_err(WaitError::OutOfMemory)?;
        for (_, fence) in now.iter() {
            let left = if until == Time::NEVER { Duration::MAX } else { until.since(sync_now()) };
            fence.wait(left)?;
        }
        // An error on a fence that another stood for shows in the list only.
        self.inner.lock.state().value.is_idle(usage).map_err(WaitError::Failed)?;
        Ok(())
    }

    /// Hints to all that `usage` asks for that somebody would like it signaled by `at` ([`Fence::set_deadline`]). Any context;
    /// never blocks or allocates.
    pub fn set_deadline(&self, usage: Usage, at: Time) {
        let unhinted = |fence: &Fence| !fence.is_signaled() && fence.deadline().is_none_or(|hint| hint > at);
        loop {
            let next = {
                let fences = &self.inner.lock.state().value;
                let mut asked = fences.iter().filter(|entry| usage.includes(entry.usage));
                asked.find(|entry| unhinted(&entry.fence)).map(|entry| entry.fence.clone())
            };
            // Each is hinted once: then it has this hint or an earlier one.
            let Some(fence) = next else { return };
            fence.set_deadline(at);
        }
    }

    pub(super) fn told(&self) -> Result<Told, AllocError> {
        let (mut entries, mut waiting) = (HeapVec::new(), HeapVec::new());
        loop {
            let (fences, waiters) = {
                let mut state = self.inner.lock.state();
                let waiters = state.waiting().count();
                if waiting.capacity() >= waiters && state.value.copy_to(Usage::Bookkeep, true, &mut entries) {
                    waiting.extend(state.waiting());
                    let (owner, poison) = (state.owner(), state.value.poison());
                    return Ok(Told { id: self.id(), entries, waiting, owner, poison });
                }
                (state.value.len(), waiters)
            };
            try_reserve(&mut entries, fences)?;
            try_reserve(&mut waiting, waiters)?;
        }
    }
}

impl PartialEq for Reservation {
    fn eq(&self, other: &Self) -> bool {
        self.inner.same(&other.inner)
    }
}

impl Eq for Reservation {}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.id())
    }
}
