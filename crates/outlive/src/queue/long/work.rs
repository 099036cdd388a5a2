//! The shell around a long-running context: what is under the queue's lock and beside it, the mark that arming leaves, the
//! driver's calls and its answers.
//!
//! The signalling lane polls [`Preempt`] whenever it looks at the queue, and does what it says outside the lock; a driver
//! call is made with the token, so it never overlaps with another of this queue. A step that finds the token taken is left
//! to whoever gives it back.
#![expect(unsafe_code, reason = "queued work and driver calls; docs/unsafe.md, `queue::long::work`")]

use super::preempt::{Facts, Preempt, Step};
use super::{Lent, Off};
use crate::check;
use crate::exec::hub::Urgency;
use crate::exec::node::LaneNode;
use crate::exec::object::Object;
use crate::exec::{Executor, Lane};
use crate::fence::{FenceContext, FenceError, Hook, Names, Producer, Signaler, Unpublished};
use crate::mem::AllocError;
use crate::queue::dispatch::TokenGuard;
use crate::queue::job::Stage;
use crate::queue::order::QueueState;
use crate::queue::shared::{QueueShared, StateGuard};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Time;
use crate::trace::QueueChange;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::time::Duration;

/// What only a long-running queue has, outside its lock.
pub(crate) struct LongShared {
    executor: Executor,
    context: FenceContext,
    /// The number of the newest fence that somebody waits for; see [`LongState::fence`].
    armed: AtomicU64,
}

/// What only a long-running queue has, under its lock.
pub(crate) struct LongState {
    pub(crate) preempt: Preempt,
    /// The published fence, and its number among this queue's.
    fence: Option<(Signaler, u64)>,
    last: u64,
    clock_runs: bool,
}

impl LongShared {
    pub(crate) fn new(executor: &Executor, names: Names<'_>) -> Result<Self, AllocError> {
        let context = FenceContext::with_clock_later(executor, names)?;
        Ok(Self { executor: executor.clone(), context, armed: AtomicU64::new(0) })
    }
}

impl LongState {
    pub(crate) const fn new(grace: Duration) -> Self {
        Self { preempt: Preempt::new(grace), fence: None, last: 0, clock_runs: false }
    }
}

/// The producer of a preempt fence: leaves a mark and wakes the lane.
struct Arm {
    queue: Object<QueueShared>,
    number: u64,
}

impl Producer for Arm {
    fn arm(&self) {
        if let Some(long) = &self.queue.long {
            // ORDERING: Release pairs with the load in `poll_preempt`. The largest counts: an older fence may be told late.
            long.armed.fetch_max(self.number, Ordering::Release);
        }
        self.queue.poke();
    }
}

/// The driver's answer to [`Driver::preempt`](crate::Driver::preempt), given now or later, from any context. Dropping it says that it cannot.
#[must_use = "dropping it says that the context could not be taken off"]
pub struct PreemptToken {
    queue: Object<QueueShared>,
    answered: bool,
}

impl PreemptToken {
    /// The context is off the hardware, with its jobs kept: it touches no memory before [`Driver::restore`](crate::Driver::restore).
    pub fn off(mut self) {
        self.answer(true);
    }

    /// It cannot be taken off: the queue is closed, and its jobs are taken off as hung ones are.
    pub fn failed(mut self) {
        self.answer(false);
    }

    fn answer(&mut self, ok: bool) {
        self.answered = true;
        if let Some(long) = &mut self.queue.state.lock().long {
            long.preempt.left(ok);
        }
        self.queue.poke();
    }
}

impl Drop for PreemptToken {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(false);
        }
    }
}

impl fmt::Debug for PreemptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreemptToken({})", self.queue.id())
    }
}

/// Closes the queue of a driver that panics in a call about its context.
struct PanicGuard<'a>(&'a QueueShared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        // Only reached by unwinding.
        self.0.refuse(&mut self.0.state.lock(), FenceError::DriverBug);
    }
}

impl QueueState {
    /// Whether a job was started that the hardware is not done with.
    fn is_running(&self) -> bool {
        let mut at = self.front();
        while let Some(job) = at.filter(|job| Some(*job) != self.next_start()) {
            let cells = self.cells(job);
            if cells.stage == Stage::Running && !cells.flags.settled {
                return true;
            }
            at = self.after(job);
        }
        false
    }

    /// Whether a preempt fence keeps it from starting anything.
    pub(crate) fn is_parked(&self) -> bool {
        self.long.as_ref().is_some_and(|long| long.preempt.is_parked())
    }

    /// Whether its preempt fence waits for the last job to leave.
    pub(crate) fn is_ending(&self) -> bool {
        self.long.as_ref().is_some_and(|long| long.preempt.is_ending())
    }

    /// When a preemption in progress is too late.
    pub(crate) fn preempt_due(&self, now: Time) -> Time {
        self.long.as_ref().map_or(Time::NEVER, |long| long.preempt.due(now))
    }
}

impl QueueShared {
    pub(super) fn lend(&self) -> Option<Off> {
        let mut state = self.state.lock();
        let lent = !state.closed && state.long.as_mut().is_some_and(|long| long.preempt.take());
        drop(state);
        lent.then(|| Off { lent: Lent { queue: self.object(), restarted: false } })
    }

    pub(super) fn give_up_lent(&self) {
        let mut state = self.state.lock();
        let fence = state.long.as_mut().and_then(|long| if long.preempt.give_up() { long.fence.take() } else { None });
        drop(state);
        if let Some((signaler, _)) = fence {
            signaler.signal(Ok(()));
        }
    }

    /// Memory for the next fence, and its number. Allocates.
    pub(super) fn next_guard(&self) -> Result<(Unpublished, u64), AllocError> {
        let Some(shared) = &self.long else { unreachable!("only a long-running queue lends itself") };
        let mut number = 0;
        if let Some(long) = &mut self.state.lock().long {
            long.last += 1;
            number = long.last;
        }
        let hook = Hook::try_new(&shared.executor, Arm { queue: self.object(), number })?;
        Ok((shared.context.allocate()?.with_hook(hook), number))
    }

    /// The fence of that number has been published.
    pub(super) fn guard(&self, signaler: Signaler, number: u64) {
        if let Some(long) = &mut self.state.lock().long {
            long.fence = Some((signaler, number));
            long.clock_runs = false;
            long.preempt.publish();
        }
        // If the queue has been closed, the fence is told at once.
        self.poke();
    }

    /// The context may go on.
    pub(super) fn let_go(&self) {
        let mut state = self.state.lock();
        if let Some(long) = &mut state.long {
            long.preempt.restart();
        }
        self.trace_change(QueueChange::Resumed);
        self.offer(&state);
        drop(state);
        self.poke();
    }

    /// Has `Driver::resume` called, if the context is there for it.
    fn offer(&self, state: &QueueState) {
        if state.closed || !state.long.as_ref().is_some_and(|long| long.preempt.is_on_offer()) {
            return;
        }
        let item = NonNull::from(&self.resume_work);
        // SAFETY: the forgotten count keeps the item in place until `resume_work` takes it over.
        unsafe { self.hub().schedule(Lane::Reaper, item, Urgency::Now, || core::mem::forget(self.object())) };
    }

    /// On the signalling lane: does what the context's state asks for.
    pub(crate) fn poll_preempt<'a>(&'a self, mut state: StateGuard<'a>) -> StateGuard<'a> {
        let Some(shared) = &self.long else { return state };
        loop {
            if state.token {
                state.token_wanted = true;
                return state;
            }
            let (running, closed) = (state.is_running(), state.closed);
            let Some(long) = &mut state.long else { return state };
            let armed_number = shared.armed.load(Ordering::Acquire);
            let armed = long.fence.as_ref().is_some_and(|(_, number)| *number <= armed_number);
            if let Some((signaler, _)) = long.fence.as_ref().filter(|_| armed && !long.clock_runs) {
                signaler.start_clock();
                long.clock_runs = true;
            }
            let now = self.now();
            let Some(step) = long.preempt.poll(Facts { armed, running, closed }, now) else { return state };
            state = self.preempt_step(state, step, now);
        }
    }

    fn preempt_step<'a>(&'a self, mut state: StateGuard<'a>, step: Step, now: Time) -> StateGuard<'a> {
        match step {
            Step::Preempt => {
                let due = state.preempt_due(now);
                self.arm(&mut state, due);
                let token = PreemptToken { queue: self.object(), answered: false };
                // SAFETY: the token is held, and the ops are this queue's.
                self.with_ring(state, || unsafe { (self.ops.preempt)(self, token) })
            }
            // SAFETY: as above.
            Step::Restore => self.with_ring(state, || unsafe { (self.ops.restore)(self) }),
            Step::Kill => {
                self.refuse(&mut state, FenceError::TimedOut);
                // Not drained: its time is over.
                state.drain_running(now);
                self.trace_change(QueueChange::Closed);
                self.poke();
                state
            }
            Step::Signal(result) => {
                let fence = state.long.as_mut().and_then(|long| long.fence.take());
                drop(state);
                if let Some((signaler, _)) = fence {
                    signaler.signal_at(result, now);
                    self.trace_change(QueueChange::Suspended);
                }
                let state = self.state.lock();
                self.offer(&state);
                state
            }
        }
    }

    /// Makes a driver call that needs the ring and no job.
    fn with_ring<'a>(&'a self, mut state: StateGuard<'a>, driver_call: impl FnOnce()) -> StateGuard<'a> {
        debug_assert!(!state.token);
        state.token = true;
        drop(state);
        let token = TokenGuard(self);
        let panics = PanicGuard(self);
        let in_driver = check::signalling();
        driver_call();
        drop(in_driver);
        core::mem::forget(panics);
        core::mem::forget(token);
        let mut state = self.state.lock();
        self.give_token_back(&mut state);
        state
    }
}

/// On the reaper lane: gives the context to the driver.
pub(crate) unsafe fn resume_work(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `resume_work` of a queue, counted when it was queued.
    let queue = unsafe { item.byte_sub(offset_of!(QueueShared, resume_work)) }.cast::<QueueShared>();
    // SAFETY: takes that count over.
    let queue = unsafe { Object::from_raw(queue) };
    if let Some(off) = queue.lend() {
        // SAFETY: the ops are this queue's.
        unsafe { (queue.ops.resume)(&queue, off) };
    }
}
