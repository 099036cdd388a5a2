//! Starting jobs: one dispatcher at a time per queue, in sequence order, outside the queue's lock.
//!
//! # The token
//! Whoever finds it free takes it and starts jobs until none may start: the submitter itself (bypass), or the signalling
//! lane. Who finds it taken goes away; its holder looks again, under the lock, before it gives the token back. A completion
//! that comes while its job is still inside `run` is recorded in the job's own word (or, with times of its own, under the
//! lock), and acted on by the dispatcher when `run` has returned: so nothing recurses, a driver never sees its job's payload
//! used behind its back, and the lock is taken once where both would have taken it.
//!
//! # Panics
//! A driver call that panics meets `CallGuard` and `TokenGuard`: the payload and the token are given back, the queue is closed, and
//! the panic goes on. Of the job the rule for dropped completions holds: it fails at once and is on the retire list.
#![expect(unsafe_code, reason = "driver calls; docs/unsafe.md, `queue::dispatch`")]

use super::complete::Completion;
use super::job::{JobCore, Stage, Step};
use super::order::Next;
use super::shared::{QueueShared, StateGuard};
use super::turn::{Cost, Turn};
use crate::check;
use crate::device::damage::Bill;
use crate::device::driver::Acquired;
use crate::exec::node::Node;
use crate::exec::object::Object;
use crate::fence::{Fence, FenceError, Part, Slot};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use crate::trace::{Blocked, Event};
use core::convert::Infallible;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::time::Duration;

/// Jobs a submitter starts at most before it leaves the rest to the lane.
const BYPASS_MAX: u32 = 16;
/// Jobs the lane starts at most before it lets other work run.
const LANE_MAX: u32 = 256;
/// How often in a row `acquire` may name a fence that has signaled.
const SPINS_MAX: u32 = 1000;

/// Who dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Submitter,
    Lane,
}

/// Gives the token back when a driver call panics under it.
pub(super) struct TokenGuard<'a>(pub(super) &'a QueueShared);

impl Drop for TokenGuard<'_> {
    fn drop(&mut self) {
        // Only reached by unwinding: who ends well forgets it and gives the token back with `give_token_back`.
        let mut state = self.0.state.lock();
        self.0.give_token_back(&mut state);
        self.0.poke();
    }
}

/// Gives the payload back, and closes the queue, when a driver call panics.
struct CallGuard<'a> {
    queue: &'a QueueShared,
    job: NonNull<JobCore>,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        // Only reached by unwinding out of a driver call.
        let mut state = self.queue.state.lock();
        if state.cells(self.job).stage == Stage::Running {
            drop(state);
            // If it was `run`: the hardware may have it. Else this changes nothing.
            // SAFETY: busy, so it is in the order.
            let scheduled = unsafe { JobCore::lend(self.job, Slot::First) };
            scheduled.signal(Ok(()), self.queue.now(), self.queue.hub());
            state = self.queue.state.lock();
        }
        let cells = state.cells(self.job);
        cells.flags.busy = false;
        // SAFETY: it was busy, so it is in the order.
        let core = unsafe { self.job.as_ref() };
        core.disposal.decide(Err(FenceError::DriverBug));
        if cells.stage == Stage::Running && !cells.flags.settled {
            // What the driver did before it panicked is unknown: drained, then taken off by force.
            cells.step = Step::Draining;
            if core.disposal.leave_call() {
                let now = self.queue.now();
                self.queue.settle_left(&mut state, self.job, now);
            }
        } else if cells.stage != Stage::Running {
            self.queue.give_turn_back(&mut state, self.job);
        }
        // The lane gives back what it holds, if it has settled.
        state.release = true;
        self.queue.refuse(&mut state, FenceError::DriverBug);
        self.queue.poke();
    }
}

impl QueueShared {
    /// Makes a driver call with the token, and with `job` lent to it. The lock is given back meanwhile.
    pub(crate) fn call<'a, T>(
        &'a self,
        state: StateGuard<'a>,
        job: NonNull<JobCore>,
        driver_call: impl FnOnce() -> T,
    ) -> (StateGuard<'a>, T) {
        debug_assert!(state.token && !state.cells(job).flags.busy);
        state.cells(job).flags.busy = true;
        drop(state);
        let guard = CallGuard { queue: self, job };
        let in_driver = check::signalling();
        let answer = driver_call();
        drop(in_driver);
        core::mem::forget(guard);
        let state = self.state.lock();
        state.cells(job).flags.busy = false;
        (state, answer)
    }

    /// Starts what may start. Returns with the lock held and the token free, or somebody else's.
    pub(crate) fn dispatch<'a>(&'a self, mut state: StateGuard<'a>, who: Who) -> StateGuard<'a> {
        if state.token {
            return state;
        }
        state.token = true;
        let token = TokenGuard(self);
        let mut left = if who == Who::Submitter { BYPASS_MAX } else { LANE_MAX };
        let mut ended = None;
        loop {
            match self.next(&state) {
                Next::Nothing => {
                    self.withdraw(&mut state);
                    state.ready_since = None;
                    break;
                }
                Next::Blocked(reason) => {
                    self.withdraw(&mut state);
                    self.note_wait(&mut state, reason);
                    self.trace_blocked(&state, reason);
                    break;
                }
                Next::Skip => {
                    state.skip();
                    state = self.pass(state);
                }
                Next::Start(_) if left == 0 => {
                    self.poke();
                    break;
                }
                Next::Start(job) if !self.ask(&mut state, job) => {
                    self.trace_blocked(&state, Blocked::Gate);
                    break;
                }
                Next::Start(job) => {
                    left -= 1;
                    (state, ended) = self.start(state, job, ended);
                }
            }
        }
        core::mem::forget(token);
        self.give_token_back(&mut state);
        state
    }

    /// Under the lock: whoever wanted the token meanwhile is told.
    pub(crate) fn give_token_back(&self, state: &mut super::order::QueueState) {
        state.token = false;
        if core::mem::take(&mut state.token_wanted) {
            self.poke();
        }
        if state.held {
            self.device.poke();
        }
    }

    /// The start cursor and the queue's own credits.
    pub(crate) fn next(&self, state: &StateGuard<'_>) -> Next {
        match state.peek(self.limits.pipelined) {
            Next::Start(job) if state.cells(job).credits > state.credits_free => Next::Blocked(Blocked::Credits),
            next => next,
        }
    }

    /// The head waits for `reason`: from now on, or since before, it could start but for that.
    fn note_wait(&self, state: &mut StateGuard<'_>, reason: Blocked) {
        match reason {
            Blocked::Dependencies(_) => state.ready_since = None,
            _ if state.ready_since.is_none() => state.ready_since = Some(self.now()),
            _ => {}
        }
    }

    fn trace_blocked(&self, state: &StateGuard<'_>, reason: Blocked) {
        if let Some(job) = state.next_start() {
            self.hub().trace(|| Event::JobBlocked { job: JobCore::id(job), reason });
        }
    }

    /// Starts `job`, the one at the start cursor, whose turn it is. `now`: the time, if it was looked at just now; also comes
    /// back.
    fn start<'a>(
        &'a self,
        mut state: StateGuard<'a>,
        job: NonNull<JobCore>,
        mut now: Option<Time>,
    ) -> (StateGuard<'a>, Option<Time>) {
        if self.ops.resources && !state.cells(job).flags.acquired {
            let (after, taken) = self.acquire(state, job);
            (state, now) = (after, None);
            if !taken {
                return (state, now);
            }
            if state.held || state.suspended_at.is_some() {
                // It keeps nothing while it cannot start.
                self.give_turn_back(&mut state, job);
                return (self.release(state, job), now);
            }
        }
        // SAFETY: in the order.
        let core = unsafe { job.as_ref() };
        if !core.disposal.start() {
            self.give_turn_back(&mut state, job);
            state = self.release(state, job);
            if state.next_start() == Some(job) {
                state.skip();
            }
            return (self.pass(state), now);
        }
        let now = now.unwrap_or_else(|| self.now());
        if let Some(waited) = state.start(now) {
            self.count_wait(waited);
        }
        state.cells(job).flags.scheduled = true;
        let due = state.cells(job).due;
        if due < state.next_due {
            self.arm(&mut state, due);
        }
        let info = self.job_info(&state, job);
        drop(state);
        let guard = CallGuard { queue: self, job };
        let in_driver = check::signalling();
        // SAFETY: token and mark are held; the ops are this queue's. Handed over once.
        unsafe { (self.ops.run)(self, job, info, Completion::new(job)) };
        drop(in_driver);
        core::mem::forget(guard);
        let ended = core.disposal.leave_call().then(|| self.now());
        self.hub().trace(|| Event::JobStarted { job: info.id, client: info.client });
        // SAFETY: busy, so it is in the order.
        unsafe { JobCore::lend(job, Slot::First) }.signal(Ok(()), now, self.hub());
        let mut state = self.state.lock();
        state.cells(job).flags.busy = false;
        if let Some(at) = ended {
            self.settle_left(&mut state, job, at);
        }
        (self.after_call(state, job), ended)
    }

    /// A call about `job` is over: what came meanwhile is acted on.
    pub(crate) fn after_call<'a>(&'a self, mut state: StateGuard<'a>, job: NonNull<JobCore>) -> StateGuard<'a> {
        if state.cells(job).flags.settled {
            state = self.release(state, job);
        }
        self.pass(state)
    }

    /// Gives back what `acquire` took for `job`, if it took anything. Needs no token: the payload is enough.
    pub(crate) fn release<'a>(&'a self, state: StateGuard<'a>, job: NonNull<JobCore>) -> StateGuard<'a> {
        let flags = &mut state.cells(job).flags;
        if !flags.acquired || flags.busy {
            return state;
        }
        flags.acquired = false;
        flags.busy = true;
        drop(state);
        let guard = CallGuard { queue: self, job };
        let in_driver = check::signalling();
        // SAFETY: the mark is held; the ops are this queue's.
        unsafe { (self.ops.release)(self, job) };
        drop(in_driver);
        core::mem::forget(guard);
        let state = self.state.lock();
        state.cells(job).flags.busy = false;
        state
    }

    /// Asks the driver for resources; false if the job does not start now.
    fn acquire<'a>(&'a self, state: StateGuard<'a>, job: NonNull<JobCore>) -> (StateGuard<'a>, bool) {
        let info = self.job_info(&state, job);
        // SAFETY: the token is held, `call` marks the job; the ops are this queue's.
        let (mut state, answer) = self.call(state, job, || unsafe { (self.ops.acquire)(self, job, info) });
        if !matches!(answer, Acquired::Yes) {
            self.give_turn_back(&mut state, job);
        }
        match answer {
            Acquired::Yes => {
                state.resource_spins = 0;
                state.cells(job).flags.acquired = true;
                (state, true)
            }
            Acquired::Never(code) => (self.fail_head(state, job, FenceError::Faulted { code }), false),
            Acquired::Wait(fence) if self.can_never_help(&state, job, &fence) => {
                (self.fail_head(state, job, FenceError::DriverBug), false)
            }
            Acquired::Wait(fence) => (self.wait_for_resource(state, job, fence), false),
        }
    }

    /// Whether waiting for `fence` would be waiting for the job itself, or one behind it.
    fn can_never_help(&self, state: &StateGuard<'_>, job: NonNull<JobCore>, fence: &Fence) -> bool {
        let later = |fence: &Fence| {
            let own = fence.header().info.as_ref().is_some_and(|info| info.same(&self.info));
            own && fence.seqno() >= JobCore::id(job).seqno
        };
        let mut never = false;
        let Ok(()) = fence.parts(&mut |part| {
            never |= match part {
                Part::Leaf(leaf) => later(leaf),
                Part::Any(any) => {
                    let mut all = true;
                    any.for_each_leaf(|leaf| all &= later(leaf));
                    all
                }
            };
            Ok::<(), Infallible>(())
        });
        let spinning = fence.is_signaled() && state.resource_spins >= SPINS_MAX;
        never || spinning
    }

    fn fail_head<'a>(&'a self, mut state: StateGuard<'a>, job: NonNull<JobCore>, error: FenceError) -> StateGuard<'a> {
        // SAFETY: in the order.
        unsafe { job.as_ref() }.disposal.decide(Err(error));
        state.resource_spins = 0;
        if state.next_start() == Some(job) {
            state.skip();
        }
        self.pass(state)
    }

    /// The head waits, holding nothing, for `fence`.
    fn wait_for_resource<'a>(
        &'a self,
        mut state: StateGuard<'a>,
        job: NonNull<JobCore>,
        fence: Fence,
    ) -> StateGuard<'a> {
        if state.resource.is_some() || state.next_start() != Some(job) {
            return state;
        }
        state.resource = Some(fence.clone());
        self.trace_blocked(&state, Blocked::Resource(fence.id()));
        drop(state);
        core::mem::forget(self.object());
        // SAFETY: one head waits at a time (`resource`), so the node is idle; the forgotten count keeps it in place.
        if unsafe { fence.register(NonNull::from(&self.resource_node)) } {
            return self.state.lock();
        }
        // SAFETY: takes the forgotten count back.
        drop(unsafe { Object::from_raw(NonNull::from(self)) });
        let mut state = self.state.lock();
        state.resource = None;
        state.resource_spins += 1;
        if state.resource_spins % 16 == 0 {
            // The token's holder goes on, but lets others run first.
            self.poke();
        }
        state
    }
}

/// The fence that `acquire` named has signaled. Takes over the registration's count of the queue.
///
/// # Safety
/// `node` is a queue's `resource_node`, taken out by the signaller.
pub(crate) unsafe fn resource_signaled(node: NonNull<Node>) {
    // SAFETY: the node's place in a queue.
    let queue = unsafe { node.byte_sub(offset_of!(QueueShared, resource_node)) }.cast::<QueueShared>();
    // SAFETY: takes the registration's count over.
    let queue = unsafe { Object::from_raw(queue) };
    queue.state.lock().resource = None;
    queue.poke();
}

/// The hardware is done with `job`, or it is given up: everyone who waits for that learns it. `at`: when.
pub(crate) fn settle(queue: &QueueShared, job: NonNull<JobCore>, at: Option<Time>, active: Option<Duration>) {
    let at = at.unwrap_or_else(|| queue.now());
    let mut state = queue.state.lock();
    let active = active.unwrap_or_else(|| at.since(state.cells(job).started));
    queue.settle_locked(&mut state, job, at, Cost::Pays(active));
    if state.cells(job).flags.busy {
        // Whoever has it goes on with it.
        return;
    }
    state = queue.release(state, job);
    state = queue.pass(state);
    queue.poke_if_startable(&mut state);
}

impl QueueShared {
    /// What the completion of `job` has left to the call that handed it over.
    fn settle_left(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>, at: Time) {
        let active = at.since(state.cells(job).started);
        self.settle_locked(state, job, at, Cost::Pays(active));
    }

    fn settle_locked(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>, at: Time, cost: Cost) {
        let (Cost::Pays(active) | Cost::Free(active)) = cost;
        state.settle(job, at, active);
        self.count_active(active);
        // SAFETY: in the order.
        let finished = unsafe { JobCore::lend(job, Slot::Finished) };
        check::took(&finished, active.as_nanos());
        self.report_end(state, job, cost);
        if state.is_ending() {
            self.poke();
        }
    }

    /// On the lane: gives back what jobs hold that the device ended.
    pub(crate) fn release_settled<'a>(&'a self, mut state: StateGuard<'a>) -> StateGuard<'a> {
        if !core::mem::take(&mut state.release) {
            return state;
        }
        while let Some(job) = state.find_unreleased() {
            state = self.release(state, job);
        }
        state
    }

    /// Credits, or a predecessor's end, may have made the head startable: leaves that to whoever dispatches.
    pub(crate) fn poke_if_startable(&self, state: &mut StateGuard<'_>) {
        if state.token {
            // Its holder looks again before it lets go; unless it is in another kind of call.
            state.token_wanted = true;
        } else if state.turn == Turn::Asking {
            // Its arbiter calls it when it is its turn.
        } else if matches!(state.peek(self.limits.pipelined), Next::Start(_) | Next::Skip) {
            self.poke();
        }
    }
}

/// What the device says of all that is on the hardware.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    /// It has ended, and this is what that costs.
    Quiesced(Bill),
    /// That will never be known.
    Never,
}

/// The device says that everything of `queue` on the hardware has ended. Those without a verdict are innocent, and pay
/// nothing.
pub(crate) fn end_running(queue: &QueueShared, how: Ended) {
    let now = queue.now();
    let mut state = queue.state.lock();
    if state.refuse_running != Some(FenceError::DeviceLost) {
        state.held = false;
    }
    let (innocent, until, quarantine) = match how {
        Ended::Quiesced(bill) => (FenceError::Innocent, bill.since, false),
        Ended::Never => (FenceError::DeviceLost, now, true),
    };
    // A lost device's jobs fail with that, however soon the driver could exclude DMA.
    let innocent = state.refuse_running.unwrap_or(innocent);
    let mut at = state.front();
    while let Some(job) = at.filter(|job| Some(*job) != state.next_start()) {
        at = state.after(job);
        // SAFETY: in the order.
        let core = unsafe { job.as_ref() };
        let ended = if quarantine { core.disposal.quarantine() } else { core.disposal.free() };
        if ended {
            let active = until.since(state.cells(job).started);
            let is_innocent = core.disposal.decide(Err(innocent)) && innocent == FenceError::Innocent;
            let cost = if is_innocent { Cost::Free(active) } else { Cost::Pays(active) };
            queue.settle_locked(&mut state, job, now, cost);
            // What it holds is given back on the lane: this may be under the device's lock.
            state.release |= !quarantine;
            state.cells(job).flags.acquired &= !quarantine;
        }
    }
    drop(state);
    if let Ended::Quiesced(bill) = how {
        if queue.guilty.swap(false, Ordering::AcqRel) {
            queue.fine(bill.fine);
        }
    }
    queue.poke();
}
