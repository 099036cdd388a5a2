//! Job queues: one per hardware queue. Dependencies, order, credits, jobs in flight, timeouts, teardown.
//!
//! # A job's three fences
//! | fence | signals | its error means |
//! |---|---|---|
//! | `scheduled` | when the job is handed to the hardware | it never was |
//! | `finished` | with the verdict | the work failed or was given up; **not** that its memory may be touched |
//! | `retired` | when the hardware can no longer touch what the job touched | never free: quarantined |
//!
//! ```text
//! reserve ─▶ commit ─▶ waiting ─▶ running ─▶ complete(result) ─▶ finished ─▶ retired ─▶ payload dropped
//!    │                    │          │                              ▲           ▲
//!    └ drop: no trace     │          └ timeout, close, loss: error ─┘           │
//!                         └ close, failed dependency ─▶ finished(error) ────────┤
//!                                    running: drain ─▶ cancel ─▶ reset ─▶ lost ─┘
//! ```
//!
//! # Who may go away when
//! Any handle, at any time, anywhere (rule 3). Dropping or closing a queue latches; its fences then fail in order on the
//! signalling lane; what is on the hardware stays charged and on the device's retire list until the hardware is done with
//! it or has been stopped. The driver value goes after the last job.
//!
//! # Modules
//! `config` what a submitter says · `refusal` why not · `submit` reserve and commit · `merge` dependencies merged · `pending` commits to come ·
//! `order` the order, a plain state machine · `dispatch` starting · `complete` ending · `pass` signalling in order · `pump` the
//! work on the lanes, timeouts · `deps` dependencies · `native` those that the hardware waits for · `long` long-running
//! contexts · `turn` the arbiter · `waits` what it waits for · `disposal` who decides · `job` the block of memory · `ops` its
//! driver's calls · `shared` what holds it together.

mod complete;
mod config;
pub(crate) mod deps;
pub(crate) mod dispatch;
mod disposal;
mod inflight;
pub(crate) mod job;
pub(crate) mod long;
mod merge;
mod native;
mod ops;
mod order;
mod pass;
mod pending;
mod pump;
mod refusal;
pub(crate) mod shared;
mod submit;
pub(crate) mod turn;
mod waits;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, shuttle, not(loom)))]
mod shuttle_long;
#[cfg(all(test, shuttle, not(loom)))]
mod shuttle_recovery;
#[cfg(all(test, shuttle, not(loom)))]
mod shuttle_teardown;
#[cfg(all(test, shuttle, not(loom)))]
mod shuttle_tests;

pub use complete::{Completion, Times};
pub use config::{Dependency, Job, LIMIT_MAX, OnError, QueueConfig};
pub use inflight::{Full, InFlight};
pub use long::{LongQueue, LongReserved, Off, PreemptToken, Ready, Restart};
pub use pending::Pending;
pub use refusal::{OpenError, Refusal, ReserveError};
pub use submit::{JobFences, Reserved};
pub use waits::WaitsFor;

use crate::device::driver::Driver;
use crate::device::{Device, Usage};
use crate::exec::object::Object;
use crate::fence::{UserFence, WaitError};
use crate::sched::{BadWeight, Priority, Share};
use crate::sync::atomic::Ordering;
use core::fmt;
use core::time::Duration;
use shared::{QueueInner, QueueShared};

/// A handle on one queue of a device. Dropping it closes the queue; nothing waits for that.
pub struct JobQueue<D: Driver> {
    inner: Object<QueueInner<D>>,
    drained: UserFence,
    /// So that a device made for one queue lives as long as that.
    device: Device<D>,
}

/// How a queue stands; read without blocking its work for more than a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Jobs committed and not finished.
    pub unfinished: u32,
    /// Jobs committed (or pending) and not yet reaped; those in quarantine left out.
    pub unreaped: u64,
    /// Credits nothing on the hardware holds.
    pub credits_free: u32,
    /// Accepts nothing more.
    pub closed: bool,
}

impl<D: Driver> JobQueue<D> {
    /// A device with one queue, on the process's executor: firmware mode in one line.
    ///
    /// # Errors
    /// [`OpenError`].
    #[cfg(all(feature = "std", not(loom), not(shuttle)))]
    pub fn new(driver: D) -> Result<Self, OpenError>
    where
        D::Queue: Default,
    {
        Device::new(&crate::Executor::global(), driver)?.queue(QueueConfig::default(), D::Queue::default())
    }

    pub(super) fn shared(&self) -> &QueueShared {
        &self.inner.shared
    }

    pub(crate) const fn from_parts(inner: Object<QueueInner<D>>, drained: UserFence, device: Device<D>) -> Self {
        Self { inner, drained, device }
    }

    /// Everything a job without dependencies will ever need. Allocates; may drop payloads of jobs that have retired, so
    /// call it where blocking is legal.
    ///
    /// # Errors
    /// [`ReserveError`] gives the payload back; nothing was changed.
    pub fn reserve(&self, job: impl Into<Job<D::Job>>) -> Result<Reserved<D>, ReserveError<D::Job>> {
        submit::reserve(&self.inner, job.into(), core::iter::empty())
    }

    /// As [`JobQueue::reserve`], for a job that starts after `dependencies`. Those that went well already, or say nothing
    /// that another one of them does not say, are left out: of one [`FenceContext`](crate::FenceContext), and of one queue's
    /// [`retired`](JobFences::retired) fences, the newest is enough for a job that runs in spite of errors. Several jobs of one
    /// queue are all kept until they went well: each may fail by itself, and the error of each counts. The newest job of this
    /// queue itself costs nothing, the first two others are in the job's own memory, and more are allocated here.
    ///
    /// # Errors
    /// As for [`JobQueue::reserve`].
    pub fn reserve_after<I>(
        &self,
        job: impl Into<Job<D::Job>>,
        dependencies: I,
    ) -> Result<Reserved<D>, ReserveError<D::Job>>
    where
        I: IntoIterator,
        I::Item: Into<Dependency>,
    {
        submit::reserve(&self.inner, job.into(), dependencies.into_iter().map(Into::into))
    }

    /// Accepts nothing more. Its fences then fail with [`Canceled`](crate::FenceError::Canceled), oldest first; jobs on the
    /// hardware get their drain time. Latches at once; never blocks, never fails; any context.
    pub fn close(&self) -> Drained {
        self.inner.shared.close();
        self.drained()
    }

    /// A handle that says when the queue is closed and everything of it is gone, without closing it.
    pub fn drained(&self) -> Drained {
        Drained { fence: self.drained.clone() }
    }

    /// Starts nothing until [`JobQueue::resume`]; what is on the hardware gets its drain time. After the suspend limit the
    /// waiting jobs fail, and those committed until then. Any context; never blocks.
    pub fn suspend(&self) {
        self.inner.shared.suspend();
    }

    /// Ends a suspension. Any context; never blocks.
    pub fn resume(&self) {
        self.inner.shared.resume();
    }

    /// Lets no time count against jobs on the hardware: they have been rotated off. Their timeouts, and with them the end of
    /// their fences, wait for [`JobQueue::resume_job_clock`]; closing the queue, or losing the device, ends the pause too. Any
    /// context; never blocks.
    pub fn pause_job_clock(&self) {
        self.inner.shared.pause_clock();
    }

    /// Time counts again. Any context; never blocks.
    pub fn resume_job_clock(&self) {
        self.inner.shared.resume_clock();
    }

    /// Its number: the fence context of its `scheduled` fences; `finished` and `retired` have the next two.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.shared.id()
    }

    /// The device it belongs to.
    #[must_use]
    pub const fn device(&self) -> &Device<D> {
        &self.device
    }

    /// What it may claim among the queues of its arbiter.
    #[must_use]
    pub fn share(&self) -> Share {
        self.inner.shared.share()
    }

    /// For an arbiter; counts from its next decision. Any context; never blocks.
    pub fn set_priority(&self, priority: Priority) {
        self.inner.shared.priority.store(priority as u8, Ordering::Relaxed);
        self.inner.shared.share_changed();
    }

    /// For an arbiter; counts from its next decision. Any context; never blocks.
    ///
    /// # Errors
    /// [`BadWeight`]; nothing was changed.
    pub fn set_weight(&self, weight: u32) -> Result<(), BadWeight> {
        BadWeight::check(weight)?;
        self.inner.shared.weight.store(weight, Ordering::Relaxed);
        self.inner.shared.share_changed();
        Ok(())
    }

    /// For an arbiter; counts from its next decision. What it owes the others of its group goes along. Any context; never
    /// blocks.
    pub fn set_group(&self, group: u64) {
        self.inner.shared.group.store(group, Ordering::Relaxed);
        self.inner.shared.share_changed();
    }

    /// What it has had, and how its jobs ended, from the beginning. Takes no lock; any context.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.shared.counters.read()
    }

    /// What keeps its next job from starting now. A look under the queue's lock, no longer than a commit's. Any context.
    #[must_use]
    pub fn waits_for(&self) -> WaitsFor {
        self.inner.shared.waits_for()
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        let state = self.inner.shared.state.lock();
        QueueStatus {
            unfinished: state.depth,
            unreaped: state.unreaped,
            credits_free: state.credits_free,
            closed: state.closed,
        }
    }
}

impl<D: Driver> Drop for JobQueue<D> {
    fn drop(&mut self) {
        self.inner.shared.close();
    }
}

impl<D: Driver> fmt::Debug for JobQueue<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.shared.fmt(f)
    }
}

/// Says when a closed queue or device is gone: its jobs retired (or in quarantine), their payloads dropped, and no call
/// of its driver to come. It can be waited for or polled, but is no fence: nothing may depend on it.
#[derive(Debug, Clone)]
#[must_use = "waiting for it is optional; drop it if you do not care"]
pub struct Drained {
    fence: UserFence,
}

impl Drained {
    pub(crate) const fn new(fence: UserFence) -> Self {
        Self { fence }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.fence.is_signaled()
    }

    /// Waits for it, at most `timeout`; where waiting is allowed, see [`Fence::wait`](crate::Fence::wait).
    ///
    /// # Errors
    /// [`WaitError`].
    #[track_caller]
    pub fn wait(&self, timeout: Duration) -> Result<(), WaitError> {
        self.fence.wait(timeout)
    }

    /// As something to register closures on or to await.
    #[must_use]
    pub fn as_user_fence(&self) -> &UserFence {
        &self.fence
    }
}

/// Bytes of one job without its payload: fences, completion and two dependencies included.
pub const JOB_BYTES: usize = job::JOB_BYTES;
