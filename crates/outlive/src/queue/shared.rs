//! What a queue is inside: its configuration, its state under one lock, and its work on the lanes.
//!
//! # Who calls in
//! Submitters (`reserve`, `commit`), completions (any context), fences that dependencies wait for (any context), the
//! signalling lane ([`pump`](super::pump)), the reaper, and its device (under the device's lock). All of them take the
//! queue's lock briefly; whoever finds something to do outside it marks that first (`token`, `passing`, `busy`), so that
//! each thing is done by one of them.
//!
//! # Why it cannot deadlock
//! The queue's lock ranks inside the device's and outside fences', lanes' and timers'; it is not held across a driver
//! call, a signal that somebody waits for, or a foreign `Drop`. Nobody waits for a mark: who finds it set leaves the work to its holder, who looks
//! again under the lock before he clears it.
#![expect(unsafe_code, reason = "first fields and the count of a queue; docs/unsafe.md, `queue::shared`")]

use super::config::QueueConfig;
use super::dispatch;
use super::job::{JobCore, Stage};
use super::long::{self, LongShared, LongState};
use super::ops::Ops;
use super::order::QueueState;
use super::pump;
use super::turn::Place;
use crate::device::Principal;
use crate::device::damage::{Bill, Damage};
use crate::device::driver::{Driver, JobInfo};
use crate::device::shared::{DeviceInner, DeviceShared};
use crate::device::usage::{Counters, Outcome, Writers};
use crate::exec::Lane;
use crate::exec::hub::{Hub, Urgency};
use crate::exec::node::{Kind, LaneNode, Node, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::fence::{ContextInfo, Fence, FenceError, Slot, Status, UserSource};
use crate::mem::list::Link;
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Guard, Lock, class};
use crate::time::Time;
use crate::trace::{Event, FenceId, QueueChange};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

pub(crate) type StateGuard<'a> = Guard<'a, class::QueueState, QueueState>;

/// The part of a queue without its driver's type.
#[repr(C)]
pub(crate) struct QueueShared {
    pub(crate) header: ObjectHeader,
    pub(crate) device_link: Link,
    pub(crate) info: Ref<ContextInfo>,
    pub(crate) device: Object<DeviceShared>,
    pub(crate) limits: Limits,
    pub(crate) long: Option<LongShared>,
    pub(crate) state: Lock<class::QueueState, QueueState>,
    pub(crate) pump_work: LaneNode,
    pub(crate) reap_work: LaneNode,
    pub(crate) resume_work: LaneNode,
    /// On the fence that `acquire` named.
    pub(crate) resource_node: Node,
    pub(crate) ops: Ops,
    pub(crate) principal: Option<Principal>,
    /// Written under the lock, read without.
    pub(crate) counters: Counters,
    /// Dropped with the queue: then its arbiter knows it no more.
    pub(crate) place: Option<Place>,
    pub(crate) drain_source: UserSource,
    /// Its timer has fired, or it has never been looked at by the lane.
    pub(crate) due: AtomicBool,
    /// A job of it needs its engine reset; the device has not seen it yet.
    pub(crate) wants_reset: AtomicBool,
    /// A reset to come, or under way, is its fault: it pays.
    pub(crate) guilty: AtomicBool,
    pub(crate) priority: AtomicU8,
    pub(crate) weight: AtomicU32,
    pub(crate) group: AtomicU64,
    pub(crate) group_weight: AtomicU32,
}

/// A queue's fixed numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) credits: u32,
    pub(crate) engine: u8,
    pub(crate) timeout: Duration,
    pub(crate) progress_cap: Duration,
    pub(crate) drain: Duration,
    pub(crate) suspend: Duration,
    pub(crate) pipelined: bool,
    pub(crate) bypass: bool,
}

/// What was allocated for a queue before itself.
pub(crate) struct Parts {
    pub(crate) info: Ref<ContextInfo>,
    pub(crate) place: Option<Place>,
    pub(crate) drain_source: UserSource,
    pub(crate) long: Option<LongShared>,
}

/// A whole queue.
#[repr(C)]
pub(crate) struct QueueInner<D: Driver> {
    pub(crate) shared: QueueShared,
    pub(super) ring: UnsafeCell<D::Queue>,
    /// After the ring: the driver goes last.
    pub(super) device: Object<DeviceInner<D>>,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for QueueShared {}
// SAFETY: `repr(C)`, the shared part is first.
unsafe impl<D: Driver> Counted for QueueInner<D> {}
// SAFETY: the ring is `Send` and used by the holder of the token alone.
unsafe impl<D: Driver> Sync for QueueInner<D> {}

impl<D: Driver> QueueInner<D> {
    pub(crate) fn new(
        header: ObjectHeader,
        device: &Object<DeviceInner<D>>,
        config: QueueConfig,
        parts: Parts,
        ring: D::Queue,
    ) -> Result<Self, crate::mem::AllocError> {
        let timer = header.hub().timers.register()?;
        let Parts { info, place, drain_source, long } = parts;
        let long_state = long.as_ref().map(|_| LongState::new(config.preempt_timeout));
        // SAFETY: the shared part is the first field of a device.
        let erased = unsafe { device.clone().upcast::<DeviceShared>() };
        let shared = QueueShared {
            header,
            device_link: Link::new(),
            info,
            device: erased,
            limits: Limits {
                credits: config.credits,
                engine: config.engine,
                timeout: config.timeout,
                progress_cap: config.progress_cap,
                drain: config.drain,
                suspend: config.suspend_limit,
                pipelined: config.pipelined,
                bypass: config.bypass,
            },
            state: Lock::new(QueueState::new(config.credits, timer, long_state)),
            long,
            pump_work: LaneNode::new(Task::Run(pump::work)),
            reap_work: LaneNode::new(Task::Run(pump::reap_work)),
            resume_work: LaneNode::new(Task::Run(long::resume_work)),
            resource_node: Node::new(Kind::Resource, 0),
            ops: Ops::of::<D>(),
            principal: config.principal,
            counters: Counters::new(Writers::OneAtATime),
            place,
            drain_source,
            due: AtomicBool::new(false),
            wants_reset: AtomicBool::new(false),
            guilty: AtomicBool::new(false),
            priority: AtomicU8::new(config.share.priority as u8),
            weight: AtomicU32::new(config.share.weight),
            group: AtomicU64::new(config.share.group),
            group_weight: AtomicU32::new(config.share.group_weight),
        };
        Ok(Self { shared, ring: UnsafeCell::new(ring), device: device.clone() })
    }
}

impl QueueShared {
    pub(crate) fn id(&self) -> u64 {
        self.info.base
    }

    pub(crate) fn hub(&self) -> &Ref<Hub> {
        self.header.hub()
    }

    pub(crate) fn now(&self) -> Time {
        self.hub().now()
    }

    pub(crate) fn object(&self) -> Object<Self> {
        // SAFETY: the caller has a reference to this queue, or a job in its lists, which counts it.
        unsafe { Object::from_alive(NonNull::from(self)) }
    }

    pub(crate) fn trace_change(&self, change: QueueChange) {
        let context = self.id();
        self.hub().trace(|| Event::Queue { context, change });
    }

    /// A job has left the hardware. Under the lock, as for the next two.
    pub(crate) fn count_active(&self, time: Duration) {
        self.counters.active(self.limits.engine, time);
        if let Some(principal) = &self.principal {
            principal.active(self.limits.engine, time);
        }
    }

    /// A job starts that could have before.
    pub(crate) fn count_wait(&self, time: Duration) {
        self.counters.waited(time);
        if let Some(principal) = &self.principal {
            principal.waited(time);
        }
    }

    /// A reset was its fault: what that cost.
    pub(crate) fn fine(&self, time: Duration) {
        self.counters.fined(time);
        if let Some(principal) = &self.principal {
            principal.fined(time);
        }
        if let Some(place) = &self.place {
            place.arbiter.fine(place.number, time);
        }
    }

    /// A job has its verdict, and its `finished` will say so.
    pub(crate) fn count_end(&self, result: Result<(), FenceError>) {
        self.counters.ended(Outcome::of(result));
        if let Some(principal) = &self.principal {
            principal.ended(Outcome::of(result));
        }
    }

    /// Queues the pump on the signalling lane. Any context, with the queue's lock or without.
    pub(crate) fn poke(&self) {
        let item = NonNull::from(&self.pump_work);
        // SAFETY: the forgotten count keeps the item in place until `work` takes it over.
        unsafe { self.hub().schedule(Lane::Signalling, item, Urgency::Now, || core::mem::forget(self.object())) };
    }

    /// Queues the reaper's work once, as long as the reaper has not looked.
    pub(crate) fn poke_reaper(&self, state: &mut QueueState) {
        if core::mem::replace(&mut state.reap_queued, true) {
            return;
        }
        let item = NonNull::from(&self.reap_work);
        // SAFETY: as in `poke`.
        unsafe { self.hub().schedule(Lane::Reaper, item, Urgency::Lazy, || core::mem::forget(self.object())) };
    }

    /// The last dependency of `job`, which may be gone by now, has signaled.
    pub(crate) fn job_ready(&self, job: NonNull<JobCore>) {
        let state = self.state.lock();
        let is_next = state.next_start() == Some(job) || state.next_finish() == Some(job);
        let awaited = is_next || state.refuse.is_some() || !state.pending.is_empty();
        drop(state);
        if awaited {
            self.poke();
        }
    }

    /// Makes the timer fire at `at` at the latest.
    pub(crate) fn arm(&self, state: &mut QueueState, at: Time) {
        state.next_due = state.next_due.min(at);
        if self.hub().timers.arm(&mut state.timer, at, NonNull::from(&self.header), pump::fire) {
            self.hub().kick(Lane::Signalling);
        }
    }

    /// Whether the hardware itself will wait for `fence`.
    pub(crate) fn waits_natively(&self, fence: &Fence) -> bool {
        fence.is_jobs()
            && fence.device() == self.device.id
            && fence.slot() == Slot::Finished
            && fence.sibling_status(Slot::First) == Status::Signaled(Ok(()))
            // SAFETY: these ops are this queue's.
            && unsafe { (self.ops.waits_natively)(self, fence) }
    }

    /// Whether the hardware executes this queue's jobs after the one that `fence` speaks of, once that has been handed over.
    pub(crate) fn executes_behind(&self, fence: &Fence) -> bool {
        fence.is_jobs() && fence.slot() == Slot::Finished && self.info.order != 0 && fence.order() == self.info.order
    }

    /// What a driver is told of `job`. Under the lock.
    pub(crate) fn job_info(&self, state: &QueueState, job: NonNull<JobCore>) -> JobInfo {
        let cells = state.cells(job);
        // SAFETY: in the order, hence alive.
        let finished = unsafe { JobCore::lend(job, Slot::Finished) };
        JobInfo {
            id: FenceId { context: self.id() + Slot::Finished as u64, seqno: finished.seqno() },
            queue: self.id(),
            client: self.info.client,
            credits: cells.credits,
            deadline: finished.deadline(),
            started: if cells.stage == Stage::Running { cells.started } else { Time::ZERO },
        }
    }

    /// Accepts nothing more: waiting jobs will fail with `error`, running ones too. Latched; false if it was closed.
    pub(crate) fn refuse(&self, state: &mut QueueState, error: FenceError) -> bool {
        if core::mem::replace(&mut state.closed, true) && state.refuse_running.is_some() {
            return false;
        }
        state.refuse = Some(error);
        state.refuse_running = Some(error);
        state.drain = true;
        self.withdraw(state);
        true
    }

    /// Its principal may have been banned, or forgiven: its waiting jobs fail, or what is committed from now on does not.
    pub(crate) fn heed_ban(&self, state: &mut QueueState) {
        let Some(principal) = &self.principal else { return };
        let banned = principal.is_banned();
        if banned == state.banned || state.closed || sabotage::is(Sabotage::IgnoreBan) {
            return;
        }
        state.banned = banned;
        if banned {
            state.refuse.get_or_insert(FenceError::Banned);
            self.withdraw(state);
        } else if state.refuse == Some(FenceError::Banned) {
            state.refuse = None;
            // A suspension may have lasted too long meanwhile.
            state.next_due = Time::ZERO;
            self.due.store(true, Ordering::Release);
        }
        self.poke();
    }

    /// `close`: from any context, never blocks, never fails.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if self.refuse(&mut state, FenceError::Canceled) {
            self.trace_change(QueueChange::Closed);
            self.poke();
        }
    }

    // What follows is called by the device, under its lock.

    /// Starts nothing from now on; true if no driver call is in progress for this queue.
    pub(crate) fn hold(&self) -> bool {
        let mut state = self.state.lock();
        state.held = true;
        self.withdraw(&mut state);
        !state.token
    }

    /// Somebody was banned.
    pub(crate) fn look_for_ban(&self) -> bool {
        self.heed_ban(&mut self.state.lock());
        true
    }

    /// The device is lost.
    pub(crate) fn refuse_lost(&self) -> bool {
        let mut state = self.state.lock();
        state.held = true;
        self.refuse(&mut state, FenceError::DeviceLost);
        self.poke();
        true
    }

    /// Adds what a reset costs in this queue.
    pub(crate) fn assess(&self, damage: &mut Damage) -> bool {
        // It is met by this one.
        self.wants_reset.store(false, Ordering::Relaxed);
        if self.guilty.load(Ordering::Acquire) {
            damage.guilty();
        }
        if let Some(place) = &self.place {
            damage.engines(place.arbiter.engines());
        }
        let state = self.state.lock();
        state.each_on_hardware(|started, verdict| damage.job(started, verdict.is_none()));
        true
    }

    /// Nothing that was on the hardware can touch memory any more.
    pub(crate) fn quiesced(&self, bill: Bill) -> bool {
        dispatch::end_running(self, dispatch::Ended::Quiesced(bill));
        true
    }

    /// What was on the hardware may touch memory for ever.
    pub(crate) fn quarantined(&self) -> bool {
        if let Some(long) = &mut self.state.lock().long {
            long.preempt.quarantined();
        }
        dispatch::end_running(self, dispatch::Ended::Never);
        true
    }
}

impl Drop for QueueShared {
    fn drop(&mut self) {
        self.device.delist(self);
        let mut state = self.state.lock();
        self.hub().timers.unregister(&mut state.timer);
    }
}

impl fmt::Debug for QueueShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} {})", self.id(), self.info.timeline)
    }
}
