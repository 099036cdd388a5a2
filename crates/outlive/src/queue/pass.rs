//! Signalling a queue's fences in order, and handing retired jobs to the reaper.
//!
//! # Who
//! Whoever makes a job finish or retire, in any context, unless somebody is at it (`passing`), who then sees it. An
//! interrupt signals at most [`SLICE`] jobs and leaves the rest to the signalling lane.
//!
//! # Order
//! For each job: `scheduled` (with the error, if it never started), `finished`, then `retired`; over jobs, `finished` and
//! `retired` each in sequence order. Between two looks under the lock the fences are signaled outside it.
#![expect(unsafe_code, reason = "lent fences; docs/unsafe.md, `queue::pass`")]

use super::deps;
use super::disposal::Hardware;
use super::job::{Cells, Flags, JobCore, Stage, Step};
use super::native;
use super::shared::{QueueShared, StateGuard};
use crate::fence::{FenceError, Slot};
use crate::sabotage::{self, Sabotage};
use crate::sync::Guard;
use crate::time::Time;
use crate::trace::{Event, QueueChange};
use core::ptr::NonNull;
use core::time::Duration;

/// Jobs signaled at one go; about 10 to 30 µs.
const SLICE: u32 = 128;

/// How a job that finishes ended.
struct Ended {
    at: Time,
    /// On the hardware, if it left that.
    active: Option<Duration>,
    flags: Flags,
}

impl Ended {
    fn of(cells: &Cells) -> Self {
        let left = cells.stage == Stage::Running && cells.flags.settled;
        Self { at: cells.ended, active: left.then(|| cells.due.since(Time::ZERO)), flags: cells.flags }
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
        // A job that ended knows when; the clock is read, once, for those that did not.
        let known = |ended: Time, now: &mut Option<Time>| {
            if ended == Time::ZERO { *now.get_or_insert_with(|| self.now()) } else { ended }
        };
        for turn in 0.. {
            let refusing = state.refuse.is_some();
            let finish = state.take_finish(if refusing { *now.get_or_insert_with(|| self.now()) } else { Time::ZERO });
            let finish = finish.map(|(job, verdict)| {
                self.drain_if_running(&mut state, job);
                (job, self.verdict_of(&state, job, verdict))
            });
            let retire = state.take_retire();
            if finish.is_none() && retire.is_none() {
                break;
            }
            let at = finish.map(|(job, _)| Ended::of(state.cells(job)));
            let done = retire.map_or(Time::ZERO, |(job, _)| state.cells(job).ended);
            drop(state);
            if let (Some((job, verdict)), Some(mut ended)) = (finish, at) {
                ended.at = known(ended.at, &mut now);
                self.signal_finished(job, verdict, &ended);
            }
            if let Some((job, hardware)) = retire {
                self.signal_retired(job, hardware, known(done, &mut now));
            }
            state = self.state.lock();
            if let Some((job, hardware)) = retire {
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

    fn signal_finished(&self, job: NonNull<JobCore>, verdict: Result<(), FenceError>, ended: &Ended) {
        let Ended { at, active, flags } = *ended;
        // SAFETY: in the order, or about to be buried by this pass: alive.
        let scheduled = unsafe { JobCore::lend(job, Slot::First) };
        if !flags.scheduled {
            let error = verdict.err().unwrap_or(FenceError::Canceled);
            scheduled.signal(Err(error), at, self.hub());
            // SAFETY: this is the queue's pass, and the job has not been reaped.
            unsafe { deps::disarm(job) };
        }
        // SAFETY: as above.
        let finished = unsafe { JobCore::lend(job, Slot::Finished) };
        self.hub().trace(|| Event::JobDone { job: finished.id(), result: verdict, active });
        finished.signal(verdict, at, self.hub());
        if sabotage::is(Sabotage::RefundAtFinished) {
            self.refund(job);
        }
    }

    fn signal_retired(&self, job: NonNull<JobCore>, hardware: Hardware, at: Time) {
        let result = if hardware == Hardware::Quarantined { Err(FenceError::Quarantined) } else { Ok(()) };
        if !sabotage::is(Sabotage::RefundAtFinished) && result.is_ok() {
            self.refund(job);
        }
        // SAFETY: taken out of the order by this pass, whose count keeps it alive.
        let retired = unsafe { JobCore::lend(job, Slot::Retired) };
        self.hub().trace(|| Event::JobRetired { job: JobCore::id(job), result });
        if result.is_err() {
            retired.quarantine_context();
        }
        retired.signal(result, at, self.hub());
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

    /// Drops at most `most` payloads of retired jobs. Where blocking is legal. True if there are more.
    pub(crate) fn reap(&self, most: usize) -> bool {
        for _ in 0..most {
            let link = {
                let mut state = self.state.lock();
                // SAFETY: the lock is held.
                unsafe { state.dead.pop_front() }
            };
            let Some(link) = link else { return false };
            // Counted as reaped also when the payload's `Drop` panics.
            let _counted = Counted { queue: self };
            // SAFETY: taken out of the last list; settled, or it would not be dead.
            drop(unsafe { JobCore::reap(JobCore::from_link(link)) });
        }
        true
    }
}

struct Counted<'a> {
    queue: &'a QueueShared,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut state: Guard<'_, _, _> = self.queue.state.lock();
        state.unreaped -= 1;
    }
}
