//! A queue's work on the signalling lane (timeouts, drains, suspensions, commits whose time has come, signalling,
//! dispatch), and on the reaper.
//!
//! # Timeouts
//! Each running job has its own start and deadline; the queue's timer is armed for the earliest, and a look at all running
//! jobs finds those whose time is over. A job stays in the order while its handler runs, marked busy, so a completion that
//! comes meanwhile is recorded and acted on after: the handler cannot leak it, nor act on a finished one. From the moment
//! it is given up until it has left the hardware its queue starts nothing more: that would be lost to the reset.
//!
//! What happens to one whose time is over is decided by [`Overdue::of`], without lock or clock.
#![expect(unsafe_code, reason = "work items and driver calls; docs/unsafe.md, `queue::pump`")]

use super::dispatch::{TokenGuard, Who};
use super::job::{JobCore, Step};
use super::shared::{QueueShared, StateGuard};
use crate::check;
use crate::device::driver::{ResetScope, Verdict};
use crate::exec::node::LaneNode;
use crate::exec::object::{Object, ObjectHeader};
use crate::fence::FenceError;
use crate::sync::atomic::Ordering;
use crate::time::Time;
use crate::trace::{Escalation, Event, QueueChange};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::time::Duration;

/// The shortest extension a driver's progress report buys, so that it is not asked for ever at one instant.
const EXTENSION_MIN: Duration = Duration::from_micros(100);

/// Payloads that the reaper drops between two looks at the queue.
const REAP_AT_ONCE: u64 = 64;

/// What to do with a job whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Ask the driver.
    Ask,
    /// It has been given up: ask the hardware to stop it.
    Cancel,
    /// That did not help.
    Reset,
}

impl Overdue {
    /// The step after `step`. `decided`: it has a verdict, so nobody asks any more whether it is well.
    pub(crate) fn of(step: Step, decided: bool) -> Self {
        match step {
            Step::Running if !decided => Self::Ask,
            Step::Running | Step::Draining => Self::Cancel,
            Step::Canceling | Step::Resetting => Self::Reset,
        }
    }
}

/// The new deadline of a job that has made progress, or `None` if it has had its cap. `drained`: when its queue's suspension
/// will want it off the hardware; no progress moves that.
pub(crate) fn extend(now: Time, started: Time, cap: Duration, by: Duration, drained: Option<Time>) -> Option<Time> {
    let latest = started.after(cap);
    let drained = drained.filter(|at| *at > now).unwrap_or(Time::NEVER);
    (now < latest).then(|| now.after(by.max(EXTENSION_MIN)).min(latest).min(drained))
}

/// Under the timers' lock: the queue's timer is due.
pub(crate) unsafe fn fire(owner: NonNull<ObjectHeader>) {
    // SAFETY: a queue takes its timer out under the timers' lock before its memory goes.
    if let Some(queue) = unsafe { Object::<QueueShared>::from_maybe_dying(owner.cast()) } {
        // ORDERING: Release pairs with the swap in `pump`.
        queue.due.store(true, Ordering::Release);
        queue.poke();
    }
}

/// On the signalling lane.
pub(crate) unsafe fn work(item: NonNull<LaneNode>) {
    let _section = check::signalling();
    // SAFETY: `item` is the field `pump_work` of a queue, counted when it was queued.
    let queue = unsafe { item.byte_sub(offset_of!(QueueShared, pump_work)) }.cast::<QueueShared>();
    // SAFETY: takes that count over.
    let queue = unsafe { Object::from_raw(queue) };
    queue.pump();
}

/// On the reaper lane.
pub(crate) unsafe fn reap_work(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `reap_work` of a queue, counted when it was queued.
    let queue = unsafe { item.byte_sub(offset_of!(QueueShared, reap_work)) }.cast::<QueueShared>();
    // SAFETY: takes that count over.
    let queue = unsafe { Object::from_raw(queue) };
    let _again = ReapAgain { queue: &queue };
    let mut state = queue.state.lock();
    state.reap_queued = false;
    while !state.dead.is_empty() {
        queue.reap(state, REAP_AT_ONCE);
        state = queue.state.lock();
    }
}

/// After a batch, also one that a payload's panic ended: are there more, or was that all?
struct ReapAgain<'a> {
    queue: &'a QueueShared,
}

impl Drop for ReapAgain<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if !state.dead.is_empty() {
            self.queue.poke_reaper(&mut state);
        }
        self.queue.check_drained(state);
    }
}

impl QueueShared {
    fn pump(&self) {
        // ORDERING: the swap pairs with the store in `fire`, whose work is queued after it; mostly there was none.
        let due = self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::AcqRel);
        let mut state = self.state.lock();
        self.heed_ban(&mut state);
        // The clock is read only by those who need it: a job that merely became ready does not.
        if due || state.drain || state.token_late || !state.pending.is_empty() {
            state = self.pump_timed(state);
        }
        state = self.release_settled(state);
        state = self.poll_preempt(state);
        state = self.pass(state);
        state = self.dispatch(state, Who::Lane);
        let due = state.next_due;
        self.arm(&mut state, due);
        self.check_drained(state);
    }

    /// What depends on the time.
    fn pump_timed<'a>(&'a self, mut state: StateGuard<'a>) -> StateGuard<'a> {
        let now = self.now();
        self.hub().timers.fired(&mut state.timer, now);
        let late = core::mem::take(&mut state.token_late);
        if core::mem::take(&mut state.drain) {
            // Whoever would resume the clock may be gone.
            state.resume_clock(now);
            state.drain_running(now.after(self.limits.drain));
        }
        if late || state.next_due <= now {
            state = self.act_on_due(state, now);
        }
        self.commit_pending(state, now)
    }

    /// Suspension, and running jobs whose time is over.
    fn act_on_due<'a>(&'a self, mut state: StateGuard<'a>, now: Time) -> StateGuard<'a> {
        let suspended_until = state.suspended_at.map(|at| at.after(self.limits.suspend));
        if suspended_until.is_some_and(|until| until <= now) && state.refuse.is_none() {
            state.refuse = Some(FenceError::TimedOut);
            self.withdraw(&mut state);
        }
        let suspension_ends = suspended_until.filter(|until| *until > now).unwrap_or(Time::NEVER);
        let suspension_ends = suspension_ends.min(state.preempt_due(now));
        if state.clock_paused.is_some() {
            // Nobody's time runs. Whoever resumes the clock sees to the rest.
            state.next_due = suspension_ends;
            return state;
        }
        if state.token {
            // Looked at again when it comes back, and not by the timer: that would fire at once, for as long as a driver call
            // takes, and a manual executor's `step` would not end.
            state.next_due = suspension_ends;
            state.token_wanted = true;
            state.token_late = true;
            return state;
        }
        state.token = true;
        let token = TokenGuard(self);
        let mut earliest = suspension_ends;
        // What others arm while the driver is called, a suspension for one, adds to what is found here.
        state.next_due = Time::NEVER;
        let mut from = None;
        loop {
            let (job, passed) = state.find_expired(from, now);
            earliest = earliest.min(passed);
            let Some(job) = job else { break };
            let settled;
            (state, settled) = self.overdue(state, job, now);
            // One that has settled may be gone already: the look starts again from the front.
            from = (!settled).then_some(job);
            if !settled {
                earliest = earliest.min(state.cells(job).due);
            }
        }
        state.next_due = state.next_due.min(earliest);
        core::mem::forget(token);
        self.give_token_back(&mut state);
        state
    }

    /// Acts on one job whose time is over. True: the hardware was done with it meanwhile, and it may be gone.
    fn overdue<'a>(&'a self, mut state: StateGuard<'a>, job: NonNull<JobCore>, now: Time) -> (StateGuard<'a>, bool) {
        // SAFETY: in the order.
        let core = unsafe { job.as_ref() };
        let info = self.job_info(&state, job);
        match Overdue::of(state.cells(job).step, core.disposal.verdict().is_some()) {
            Overdue::Ask => {
                self.trace_step(job, Escalation::TimedOut);
                // SAFETY: the token is held, `call` marks the job; the ops are this queue's.
                let (after, verdict) = self.call(state, job, || unsafe { (self.ops.timed_out)(self, job, info) });
                state = after;
                self.apply(&mut state, job, verdict, now);
            }
            Overdue::Cancel => {
                self.trace_step(job, Escalation::Cancel);
                state.hold_back(job);
                if core.disposal.verdict() == Some(Err(FenceError::TimedOut)) {
                    self.blame(&state, job, now);
                }
                let cells = state.cells(job);
                cells.step = Step::Canceling;
                cells.due = now.after(self.device.cancel_grace);
                // SAFETY: as above.
                let cancel = || unsafe { (self.ops.cancel)(self, job, info) };
                (state, ()) = self.call(state, job, cancel);
            }
            Overdue::Reset => {
                state.hold_back(job);
                self.want_reset(&state, job, ResetScope::Queue(self.id()), now);
            }
        }
        let settled = state.cells(job).flags.settled;
        if settled {
            state = self.release(state, job);
        }
        (state, settled)
    }

    fn apply(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>, verdict: Verdict, now: Time) {
        // SAFETY: in the order.
        let disposal = &unsafe { job.as_ref() }.disposal;
        let cells = state.cells(job);
        if cells.flags.settled {
            return;
        }
        if let Verdict::KeepWaiting(by) = verdict {
            // A suspension may have begun while the driver was asked.
            let drained = state.suspended_at.map(|at| at.after(self.limits.drain));
            if let Some(due) = extend(now, cells.started, self.limits.progress_cap, by, drained) {
                cells.due = due;
                return;
            }
        }
        state.hold_back(job);
        self.withdraw(state);
        let cells = state.cells(job);
        let error = if verdict == Verdict::Lost { FenceError::DeviceLost } else { FenceError::TimedOut };
        if disposal.decide(Err(error)) {
            cells.ended = now;
        }
        cells.step = Step::Draining;
        cells.due = now;
        match verdict {
            Verdict::Lost => {
                cells.step = Step::Resetting;
                self.device.lose_from_queue();
            }
            Verdict::Reset(scope) => self.want_reset(state, job, scope, now),
            Verdict::KeepWaiting(_) | Verdict::Fail => self.poke(),
        }
    }

    fn want_reset(&self, state: &StateGuard<'_>, job: NonNull<JobCore>, scope: ResetScope, now: Time) {
        state.cells(job).step = Step::Resetting;
        if self.blame(state, job, now) {
            // ORDERING: Release: seen by the device, which hears of the wish below.
            self.guilty.store(true, Ordering::Release);
        }
        let whole = scope == ResetScope::Device;
        self.trace_step(job, if whole { Escalation::DeviceReset } else { Escalation::EngineReset });
        if whole {
            self.device.want_device_reset();
        } else {
            self.wants_reset.store(true, Ordering::Release);
            self.device.look_for_wishes();
        }
    }

    /// `job` is taken off by force: an offence of its principal, counted once. False: it is not to blame, but the driver, which
    /// dropped the completion or panicked, or whoever took the device away.
    fn blame(&self, state: &StateGuard<'_>, job: NonNull<JobCore>, now: Time) -> bool {
        // SAFETY: in the order.
        let is_guilty = match unsafe { job.as_ref() }.disposal.verdict() {
            Some(Err(FenceError::TimedOut)) => true,
            Some(Err(FenceError::Canceled)) => state.closed,
            _ => false,
        };
        if !is_guilty || core::mem::replace(&mut state.cells(job).flags.offence, true) {
            return is_guilty;
        }
        self.counters.offended();
        let banned = self.principal.as_ref().filter(|principal| principal.offend(now, self.device.ban));
        if let Some(principal) = banned {
            let (principal, client) = (principal.id(), self.info.client);
            self.hub().trace(|| Event::Banned { principal, client });
            self.device.look_for_bans();
        }
        true
    }

    fn trace_step(&self, job: NonNull<JobCore>, step: Escalation) {
        self.hub().trace(|| Event::Escalated { job: JobCore::id(job), step });
    }

    /// Starts nothing until `resume`; what is on the hardware gets its drain time.
    pub(crate) fn suspend(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        if state.suspended_at.is_some() || state.closed {
            return;
        }
        state.suspended_at = Some(now);
        self.withdraw(&mut state);
        state.drain_running(now.after(self.limits.drain));
        let due = state.next_due.min(now.after(self.limits.suspend));
        self.arm(&mut state, due);
        self.trace_change(QueueChange::Suspended);
    }

    /// Ends a suspension; what failed because it lasted too long stays failed.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        if state.suspended_at.take().is_none() {
            return;
        }
        if !state.closed {
            state.refuse = state.banned.then_some(FenceError::Banned);
        }
        self.trace_change(QueueChange::Resumed);
        self.poke();
    }

    /// Lets no time count against running jobs: they are off the hardware.
    pub(crate) fn pause_clock(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        if !state.closed {
            state.clock_paused.get_or_insert(now);
        }
    }

    /// Time counts again.
    pub(crate) fn resume_clock(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        state.resume_clock(now);
        let due = state.next_due;
        self.arm(&mut state, due);
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Overdue, extend};
    use crate::queue::job::Step;
    use crate::time::Time;
    use core::time::Duration;

    #[test]
    fn each_step_is_followed_by_a_harder_one() {
        assert_eq!(Overdue::of(Step::Running, false), Overdue::Ask);
        assert_eq!(Overdue::of(Step::Running, true), Overdue::Cancel, "its verdict is known: nobody asks how it is");
        assert_eq!(Overdue::of(Step::Draining, true), Overdue::Cancel);
        assert_eq!(Overdue::of(Step::Canceling, true), Overdue::Reset);
    }

    #[test]
    fn progress_extends_up_to_the_cap_and_never_by_nothing() {
        let at = |ms: u64| Time::from_ns(ms * 1_000_000);
        let cap = Duration::from_millis(100);
        let by = Duration::from_millis(30);
        assert_eq!(extend(at(20), at(0), cap, by, None), Some(at(50)));
        assert_eq!(extend(at(90), at(0), cap, by, None), Some(at(100)), "not beyond the cap");
        assert_eq!(extend(at(100), at(0), cap, by, None), None);
        assert!(extend(at(20), at(0), cap, Duration::ZERO, None) > Some(at(20)));
        assert_eq!(extend(at(20), at(0), cap, by, Some(at(30))), Some(at(30)), "a suspension's drain time stays");
        assert_eq!(
            extend(at(20), at(0), cap, by, Some(at(20))),
            Some(at(50)),
            "it is over, which is why the driver was asked"
        );
    }
}
