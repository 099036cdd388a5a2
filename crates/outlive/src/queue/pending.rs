//! Jobs that are published later: after user fences, which may never signal, so that nothing of the job may be a fence yet.
//!
//! # States
//! *pending* (in the queue's list of such jobs, its user fences armed, no number, no fences handed out) → *committed* by the
//! signalling lane when the last user fence has signaled; or *cancelled*: a user fence failed, the deadline passed, the
//! queue closed, or [`Pending::cancel`]. It holds up nobody meanwhile, and allocates nothing from here on.
#![expect(unsafe_code, reason = "jobs in a list; docs/unsafe.md, `queue::pending`")]

use super::deps;
use super::dispatch::Who;
use super::job::{JobCore, Stage};
use super::shared::{QueueShared, StateGuard};
use super::submit::JobFences;
use crate::exec::object::Object;
use crate::fence::{Fence, FenceError, Slot, UserFence};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use core::ptr::NonNull;

/// A reserved job that waits for user fences. Dropping it changes nothing.
#[derive(Debug)]
pub struct Pending {
    pub(super) finished: Fence,
    pub(super) queue: Object<QueueShared>,
}

impl Pending {
    /// Its fences, once it was committed.
    #[must_use]
    pub fn fences(&self) -> Option<JobFences> {
        (self.finished.header().seqno.load(Ordering::Acquire) != 0)
            .then(|| JobFences::from_finished(self.finished.clone()))
    }

    /// Its end as something that need not come: signals when the job finishes, or is cancelled before its commit.
    #[must_use]
    pub fn done(&self) -> UserFence {
        UserFence::of(self.finished.clone())
    }

    /// Cancels it, unless it was committed; false if it was. Its payload goes to the reaper. Any context; never blocks.
    #[expect(clippy::must_use_candidate, reason = "most callers do not care whether it was too late")]
    pub fn cancel(&self) -> bool {
        let state = self.queue.state.lock();
        let job = JobCore::of(&self.finished);
        let committed = self.finished.header().seqno.load(Ordering::Acquire) != 0 || state.committing == Some(job);
        if committed || self.finished.is_signaled() {
            return false;
        }
        // SAFETY: counted by the fence; not committed, so still in the list of pending jobs.
        unsafe { job.as_ref() }.disposal.decide(Err(FenceError::Canceled));
        self.queue.poke();
        drop(state);
        true
    }
}

impl QueueShared {
    /// Puts `job`, whose owner gives it up, among those that wait for user fences.
    pub(super) fn wait_for_users(&self, job: NonNull<JobCore>, first_user_node: usize, deadline: Time) {
        // SAFETY: the caller's job.
        unsafe { deps::arm_from(job, first_user_node) };
        let mut state = self.state.lock();
        // SAFETY: the caller's job, in no list.
        let cells = unsafe { JobCore::cells(job) };
        // Its timeout is needed again at the commit; `started` is not until then.
        cells.started = core::mem::replace(&mut cells.due, deadline);
        cells.stage = Stage::Pending;
        // SAFETY: in no list; its count passes to this list; the lock is held.
        unsafe { state.pending.push_back(job.cast()) };
        state.unreaped += 1;
        self.arm(&mut state, deadline);
        // SAFETY: in the list.
        let ready = unsafe { job.as_ref() }.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        self.heed_ban(&mut state);
        if ready || state.refuse_running.is_some() || state.banned {
            self.poke();
        }
    }

    /// On the lane: commits the pending jobs whose user fences have signaled, and cancels those that failed or are late.
    pub(crate) fn commit_pending<'a>(&'a self, mut state: StateGuard<'a>, now: Time) -> StateGuard<'a> {
        let mut earliest = Time::NEVER;
        let mut at = state.pending.front();
        while let Some(link) = at {
            let job = JobCore::from_link(link);
            // SAFETY: in the list of pending jobs, whose lock is held.
            let core = unsafe { job.as_ref() };
            let due = state.cells(job).due;
            if let Some(error) = state.refuse_running.or(state.banned.then_some(FenceError::Banned)) {
                core.disposal.decide(Err(error));
            } else if due <= now {
                core.disposal.decide(Err(FenceError::TimedOut));
            }
            let failed = core.disposal.verdict();
            if failed.is_some() {
                // SAFETY: this is the queue's lane, and the job has not been retired.
                unsafe { deps::disarm(job) };
            }
            if core.waiting.load(Ordering::Acquire) > 0 {
                earliest = earliest.min(due);
                // SAFETY: in the list.
                at = unsafe { state.pending.next(link) };
                continue;
            }
            // SAFETY: as above.
            unsafe { state.pending.remove(link) };
            state = match failed {
                Some(verdict) => self.cancel_pending(state, job, verdict, now),
                None => self.commit_now(state, job),
            };
            at = state.pending.front();
            earliest = Time::NEVER;
        }
        state.next_due = state.next_due.min(earliest);
        state
    }

    fn commit_now<'a>(&'a self, mut state: StateGuard<'a>, job: NonNull<JobCore>) -> StateGuard<'a> {
        let cells = state.cells(job);
        cells.due = core::mem::replace(&mut cells.started, Time::ZERO);
        // From here on it is too late to cancel it.
        state.committing = Some(job);
        drop(state);
        // SAFETY: taken out of the list, so this is its only owner.
        unsafe { job.as_ref() }.waiting.store(1, Ordering::Relaxed);
        self.commit(job, Who::Lane);
        let mut state = self.state.lock();
        state.committing = None;
        // The commit counted it again. Not before it: a closed queue would seem to be empty.
        state.unreaped -= 1;
        state
    }

    fn cancel_pending<'a>(
        &'a self,
        state: StateGuard<'a>,
        job: NonNull<JobCore>,
        verdict: Result<(), FenceError>,
        now: Time,
    ) -> StateGuard<'a> {
        let bytes = state.cells(job).bytes;
        self.count_end(verdict);
        drop(state);
        for (slot, result) in [(Slot::First, verdict), (Slot::Finished, verdict), (Slot::Retired, Ok(()))] {
            // SAFETY: taken out of the list with its count.
            unsafe { JobCore::lend(job, slot) }.signal(result, now, self.hub());
        }
        if let Some(principal) = &self.principal {
            principal.refund(bytes);
        }
        let mut state = self.state.lock();
        // SAFETY: in no list; its count passes to this one.
        unsafe { state.dead.push_back(job.cast()) };
        self.poke_reaper(&mut state);
        state
    }
}
