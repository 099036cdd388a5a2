//! Signalling a queue's fences in order, and handing retired jobs to the reaper.
//!
//! # Who
//! Whoever makes a job finish or retire, in any context, unless somebody is at it (`passing`), who then sees it. An
//! interrupt signals at most [`SLICE`] jobs and leaves the rest to the signalling lane.
//!
//! # Order
//! For each job: `scheduled` (with the error, if it never started), `finished`, then `retired`; over jobs, `finished` and
//! `retired` each in sequence order. A fence that somebody waits for is signaled outside the lock, between two looks under it;
//! one that nobody waits for under it: that is one exchange, and takes no other lock.
#![expect(unsafe_code, reason = "lent fences; docs/unsafe.md, `queue::pass`")]

use super::deps;
use super::disposal::Hardware;
use super::job::{JobCore, Stage, Step};
use super::native;
use super::shared::{QueueShared, StateGuard};
use crate::fence::{Fence, FenceError, Slot};
use crate::mem::list::List;
use crate::sabotage::{self, Sabotage};
use crate::time::Time;
use crate::trace::{Event, QueueChange};
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// Jobs signaled at one go; about 10 to 30 µs.
const SLICE: u32 = 128;

/// A job that finishes.
struct Finishing {
    job: NonNull<JobCore>,
    verdict: Result<(), FenceError>,
    at: Time,
    scheduled: bool,
}

/// A job that retires.
struct Retiring {
    job: NonNull<JobCore>,
    hardware: Hardware,
    at: Time,
}

impl Retiring {
    fn result(&self) -> Result<(), FenceError> {
        if self.hardware == Hardware::Quarantined { Err(FenceError::Quarantined) } else { Ok(()) }
    }

    fn fence(&self) -> ManuallyDrop<Fence> {
        // SAFETY: taken out of the order by this pass, whose count keeps it alive.
        unsafe { JobCore::lend(self.job, Slot::Retired) }
    }
}

impl QueueShared {
    /// Signals what can be signaled. Returns with the lock held.
    pub(crate) fn pass<'a>(&'a self, mut state: StateGuard<'a>) -> StateGuard<'a> {
        if state.passing {
            return state;
        }
        state.passing = true;
        let mut now = None;
        for turn in 0.. {
            let finishing = self.take_finishing(&mut state, &mut now);
            let retiring = self.take_retiring(&mut state, &mut now);
            if finishing.is_none() && retiring.is_none() {
                break;
            }
            // A signal that nobody waits for is one exchange: no reason to let the lock go.
            let watched = finishing.filter(|finishing| !self.finish_unwatched(finishing));
            let told = watched.is_none() && retiring.as_ref().is_none_or(|retiring| self.retire_unwatched(retiring));
            if !told {
                drop(state);
                if let Some(finishing) = &watched {
                    self.signal_finished(finishing);
                }
                if let Some(retiring) = &retiring {
                    if watched.is_some() {
                        self.announce_retired(retiring);
                    }
                    retiring.fence().signal(retiring.result(), retiring.at, self.hub());
                }
                state = self.state.lock();
            }
            if let Some(Retiring { job, hardware, .. }) = retiring {
                self.bury(&mut state, job, hardware);
            }
            if turn >= SLICE {
                self.poke();
                break;
            }
        }
        state.passing = false;
        state
    }

    /// A job that ended knows when; the clock is read, once in a pass, for those that did not.
    fn known(&self, ended: Time, now: &mut Option<Time>) -> Time {
        if ended == Time::ZERO { *now.get_or_insert_with(|| self.now()) } else { ended }
    }

    fn take_finishing(&self, state: &mut StateGuard<'_>, now: &mut Option<Time>) -> Option<Finishing> {
        let refused_at = if state.refuse.is_some() { self.known(Time::ZERO, now) } else { Time::ZERO };
        let (job, verdict) = state.take_finish(refused_at)?;
        self.drain_if_running(state, job);
        let verdict = self.verdict_of(state, job, verdict);
        let cells = state.cells(job);
        let left = cells.stage == Stage::Running && cells.flags.settled;
        let active = left.then(|| cells.due.since(Time::ZERO));
        let finishing = Finishing { job, verdict, at: self.known(cells.ended, now), scheduled: cells.flags.scheduled };
        self.hub().trace(|| Event::JobDone { job: JobCore::id(job), result: verdict, active });
        if sabotage::is(Sabotage::RefundAtFinished) {
            self.refund(job);
        }
        Some(finishing)
    }

    fn take_retiring(&self, state: &mut StateGuard<'_>, now: &mut Option<Time>) -> Option<Retiring> {
        let (job, hardware) = state.take_retire()?;
        Some(Retiring { job, hardware, at: self.known(state.cells(job).ended, now) })
    }

    /// A job that fails while it is on the hardware goes on the device's retire list: it gets a drain deadline.
    fn drain_if_running(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>) {
        let cells = state.cells(job);
        if cells.stage != Stage::Running || cells.flags.settled || cells.step != Step::Running {
            return;
        }
        cells.step = Step::Draining;
        if sabotage::is(Sabotage::NoDrainDeadline) {
            cells.due = Time::NEVER;
            return;
        }
        cells.due = cells.due.min(self.now().after(self.limits.drain));
        let due = cells.due;
        self.arm(state, due);
    }

    /// The verdict that is signaled, and counted: the error of a dependency left to the hardware is found only now.
    fn verdict_of(
        &self,
        state: &StateGuard<'_>,
        job: NonNull<JobCore>,
        verdict: Result<(), FenceError>,
    ) -> Result<(), FenceError> {
        let flags = state.cells(job).flags;
        let mut verdict = verdict;
        if flags.scheduled && flags.native && native::counts(verdict) {
            // SAFETY: this is the queue's pass, and the job is in the order.
            if let Some(error) = unsafe { native::error(job) } {
                verdict = super::config::dependency_failed(error);
            }
        }
        self.count_end(verdict);
        verdict
    }

    /// Under the lock: `finished` of a job that was started, unless somebody waits for it; false then.
    fn finish_unwatched(&self, finishing: &Finishing) -> bool {
        let Finishing { job, verdict, at, scheduled } = *finishing;
        // SAFETY: in the order, or about to be buried by this pass: alive.
        scheduled && unsafe { JobCore::lend(job, Slot::Finished) }.signal_unwatched(verdict, at, self.hub())
    }

    fn signal_finished(&self, finishing: &Finishing) {
        let Finishing { job, verdict, at, scheduled } = *finishing;
        if !scheduled {
            let error = verdict.err().unwrap_or(FenceError::Canceled);
            // SAFETY: in the order, or about to be buried by this pass: alive.
            unsafe { JobCore::lend(job, Slot::First) }.signal(Err(error), at, self.hub());
            // SAFETY: this is the queue's pass, and the job has not been reaped.
            unsafe { deps::disarm(job) };
        }
        // SAFETY: as above.
        unsafe { JobCore::lend(job, Slot::Finished) }.signal(verdict, at, self.hub());
    }

    /// Under the lock: `retired`, unless somebody waits for it; false then, and all but the signal is done.
    fn retire_unwatched(&self, retiring: &Retiring) -> bool {
        self.announce_retired(retiring);
        retiring.fence().signal_unwatched(retiring.result(), retiring.at, self.hub())
    }

    fn announce_retired(&self, retiring: &Retiring) {
        let job = retiring.job;
        let result = retiring.result();
        if !sabotage::is(Sabotage::RefundAtFinished) && result.is_ok() {
            self.refund(job);
        }
        self.hub().trace(|| Event::JobRetired { job: JobCore::id(job), result });
        if result.is_err() {
            retiring.fence().quarantine_context();
        }
    }

    fn refund(&self, job: NonNull<JobCore>) {
        if let Some(principal) = &self.principal {
            // SAFETY: the bytes do not change after the reservation.
            principal.refund(unsafe { JobCore::cells(job) }.bytes);
        }
    }

    /// A retired job: to the reaper, or into quarantine for ever.
    fn bury(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>, hardware: Hardware) {
        if hardware == Hardware::Quarantined {
            // Its payload is never dropped, and its count of the queue never given back: driver and ring stay too.
            state.unreaped -= 1;
            self.device.quarantine(state.cells(job).bytes);
            return;
        }
        if sabotage::is(Sabotage::DropWhileSignalling) {
            state.unreaped -= 1;
            // SAFETY: out of the order; the defect is that this is not the reaper.
            drop(unsafe { JobCore::reap(job) });
            return;
        }
        // SAFETY: out of the order, in no list; its count passes to this list.
        unsafe { state.dead.push_back(job.cast()) };
        self.poke_reaper(state);
    }

    /// Closed, and nothing left: says so, once.
    pub(crate) fn check_drained(&self, mut state: StateGuard<'_>) {
        if !state.closed || state.unreaped > 0 || !state.pending.is_empty() || state.drained {
            return;
        }
        state.drained = true;
        drop(state);
        self.trace_change(QueueChange::Drained);
        self.drain_source.signal(Ok(()));
    }

    /// Drops at most `most` payloads of retired jobs, without the lock. Where blocking is legal.
    pub(crate) fn reap(&self, mut state: StateGuard<'_>, most: u64) {
        let mut dying = Dying { queue: self, jobs: List::new(), count: 0 };
        while dying.count < most {
            // SAFETY: the lock is held.
            let Some(link) = (unsafe { state.dead.pop_front() }) else { break };
            // SAFETY: just taken out; its count goes along; nobody else knows this list.
            unsafe { dying.jobs.push_back(link) };
            dying.count += 1;
        }
        drop(state);
        // SAFETY: as above.
        while let Some(link) = unsafe { dying.jobs.pop_front() } {
            // SAFETY: taken out of the last list; settled, or it would not be dead.
            drop(unsafe { JobCore::reap(JobCore::from_link(link)) });
        }
    }
}

/// Jobs whose payloads are being dropped: counted as reaped when all have been, or all before one whose `Drop` panics.
struct Dying<'a> {
    queue: &'a QueueShared,
    jobs: List,
    count: u64,
}

impl Drop for Dying<'_> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut state = self.queue.state.lock();
        // SAFETY: nobody else knows this list.
        while let Some(link) = unsafe { self.jobs.pop_front() } {
            self.count -= 1;
            // SAFETY: just taken out; its count goes along; the lock is held.
            unsafe { state.dead.push_back(link) };
            self.queue.poke_reaper(&mut state);
        }
        state.unreaped -= self.count;
        // Whoever looked meanwhile still saw them.
        self.queue.check_drained(state);
    }
}
