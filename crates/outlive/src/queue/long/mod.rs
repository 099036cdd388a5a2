//! Long-running queues: how they go is on [`LongQueue`].
//!
//! # Who calls
//! `preempt` decides, under the queue's lock. Arming only leaves a mark and wakes the signalling lane,
//! which (`work`) calls the driver with the token (the ring is lent by it) and signals outside the lock. `Driver::resume` runs on
//! the reaper lane: it may allocate, lock reservations and wait. Nothing here waits for it.

mod preempt;
mod work;

use super::shared::QueueShared;
use super::{Drained, Job, JobQueue, OpenError, QueueConfig, QueueStatus, ReserveError, Reserved, WaitsFor};
use crate::Dependency;
use crate::device::driver::Driver;
use crate::device::{Device, Usage};
use crate::exec::object::Object;
use crate::fence::{Names, Retired, Unpublished, UserFence};
use crate::mem::AllocError;
use crate::time::Time;
use core::fmt;
pub use work::PreemptToken;
pub(crate) use work::{LongShared, LongState, resume_work};

/// A queue for jobs that may run for ever. Nobody gets a [`Fence`](crate::Fence) of them: the end of one is a [`UserFence`], and their
/// memory is guarded by a *preempt fence* instead of their own (as `xe` and `amdgpu` do for compute; the kernel's rule is in
/// `Documentation/driver-api/dma-buf.rst`, "Long running compute"). Dropping it closes it.
///
/// # How it goes
/// ```text
/// Off ──reserve──▶ Ready ──publish──▶ (Retired, Restart) ──restart──▶ on the hardware
///  ▲                                      │                                 │ somebody waits for the `Retired`
///  └── Driver::resume, on the reaper ─────┼───────── its fence signals ◀────┘ Driver::preempt
/// ```
/// The queue begins off the hardware. Whoever brings it on allocates the next fence ([`Off::reserve`]), locks and validates
/// what the context uses, publishes the fence into the reservations ([`Ready::publish`], for
/// [`Usage::Bookkeep`](crate::resv::Usage::Bookkeep)), and lets it go on ([`Restart::restart`]). The first wait for, or dependency on, that fence arms it;
/// reading it never does. Then the driver is asked to take the context off, within the queue's
/// [`preempt_timeout`](QueueConfig::preempt_timeout). If it cannot, the queue is closed and its jobs are taken off as hung
/// ones are. Either way the fence signals, and `Ok` means that the context cannot touch that memory any more.
pub struct LongQueue<D: Driver> {
    queue: JobQueue<D>,
}

/// Everything a job of a [`LongQueue`] will need. Dropping it leaves no trace.
#[must_use = "commit it, or drop it without a trace"]
pub struct LongReserved<D: Driver> {
    reserved: Reserved<D>,
}

impl<D: Driver> Device<D> {
    /// A new long-running queue with the ring state `ring`, off the hardware: see [`LongQueue::off`]. It takes turns with
    /// nobody: an arbiter's credits would never come back. Timeouts in `config` do not count. Allocates.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::LongWithArbiter`], if `config` names one.
    pub fn long_queue(&self, config: QueueConfig, ring: D::Queue) -> Result<LongQueue<D>, OpenError> {
        if config.arbiter.is_some() {
            return Err(OpenError::LongWithArbiter);
        }
        let names = Names { driver: self.name(), timeline: config.name };
        let long = LongShared::new(self.executor(), names)?;
        let queue = self.open(config, ring, Some(long))?;
        Ok(LongQueue { queue })
    }
}

impl<D: Driver> LongQueue<D> {
    /// As [`JobQueue::reserve`].
    ///
    /// # Errors
    /// [`ReserveError`] gives the payload back; nothing was changed.
    pub fn reserve(&self, job: impl Into<Job<D::Job>>) -> Result<LongReserved<D>, ReserveError<D::Job>> {
        Ok(LongReserved { reserved: self.queue.reserve(job)? })
    }

    /// As [`JobQueue::reserve_after`]: a long-running job may wait for fences; no fence waits for it.
    ///
    /// # Errors
    /// As for [`LongQueue::reserve`].
    pub fn reserve_after<I>(
        &self,
        job: impl Into<Job<D::Job>>,
        dependencies: I,
    ) -> Result<LongReserved<D>, ReserveError<D::Job>>
    where
        I: IntoIterator,
        I::Item: Into<Dependency>,
    {
        Ok(LongReserved { reserved: self.queue.reserve_after(job, dependencies)? })
    }

    /// The context in one's hands, to be brought (back) on the hardware, if it is off and nobody else has it. The first time
    /// it is for the owner to call this; later [`Driver::resume`] gets it. Any context; never blocks.
    #[must_use]
    pub fn off(&self) -> Option<Off> {
        self.queue.shared().lend()
    }

    /// Accepts nothing more; jobs on the hardware get their drain time, then are taken off. Latches at once; never blocks,
    /// never fails; any context.
    pub fn close(&self) -> Drained {
        self.queue.close()
    }

    /// A handle that says when the queue is closed and everything of it is gone, without closing it.
    pub fn drained(&self) -> Drained {
        self.queue.drained()
    }

    /// Its number, as in [`JobInfo::queue`](crate::JobInfo).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.queue.id()
    }

    /// The device it belongs to.
    #[must_use]
    pub const fn device(&self) -> &Device<D> {
        self.queue.device()
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        self.queue.status()
    }

    /// As [`JobQueue::usage`].
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.queue.usage()
    }

    /// As [`JobQueue::waits_for`].
    #[must_use]
    pub fn waits_for(&self) -> WaitsFor {
        self.queue.waits_for()
    }
}

impl<D: Driver> fmt::Debug for LongQueue<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Long{:?}", self.queue)
    }
}

impl<D: Driver> LongReserved<D> {
    /// Publishes the job. Cannot fail; any context that may call the driver's `run`; never blocks or allocates. Its end need
    /// not come.
    pub fn commit(self) -> UserFence {
        UserFence::of(self.reserved.commit().finished())
    }

    /// As [`Reserved::commit_when`].
    ///
    /// # Errors
    /// The reservation comes back when there is not enough room.
    pub fn commit_when(self, user_fences: &[UserFence], deadline: Time) -> Result<UserFence, Self> {
        match self.reserved.commit_when(user_fences, deadline) {
            Ok(pending) => Ok(pending.done()),
            Err(reserved) => Err(Self { reserved }),
        }
    }
}

impl<D: Driver> fmt::Debug for LongReserved<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongReserved")
    }
}

/// The queue of the stages below, from `take` to `restart`.
#[derive(Debug)]
struct Lent {
    queue: Object<QueueShared>,
    restarted: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.restarted {
            self.queue.give_up_lent();
        }
    }
}

/// A long-running context that is off the hardware, in the hands of the one who brings it on. Dropped, here or at a later
/// stage, it stays off, and [`LongQueue::off`] gives it again.
#[derive(Debug)]
#[must_use = "dropped, the context stays off the hardware"]
pub struct Off {
    lent: Lent,
}

/// An [`Off`] with the memory of its next preempt fence.
#[derive(Debug)]
#[must_use = "dropped, the context stays off the hardware"]
pub struct Ready {
    lent: Lent,
    fence: Unpublished,
    number: u64,
}

/// A long-running context that is off the hardware, guarded by a published preempt fence.
#[derive(Debug)]
#[must_use = "dropped, the context stays off the hardware, and its fence signals"]
pub struct Restart {
    lent: Lent,
}

impl Off {
    /// The number of its queue.
    #[must_use]
    pub fn queue(&self) -> u64 {
        self.lent.queue.id()
    }

    /// Memory for the fence that will guard what the context uses. Allocates; call it before locking.
    ///
    /// # Errors
    /// [`AllocError`], with the context: try again when there is memory.
    pub fn reserve(self) -> Result<Ready, (Self, AllocError)> {
        match self.lent.queue.next_guard() {
            Ok((fence, number)) => Ok(Ready { lent: self.lent, fence, number }),
            Err(error) => Err((self, error)),
        }
    }
}

impl Ready {
    /// Publishes the fence: from now on it is finite, and arming it takes the context off. Put it into every reservation
    /// of what the context uses, before [`Restart::restart`]. Cannot fail; never blocks or allocates; any context.
    pub fn publish(self) -> (Retired, Restart) {
        let Self { lent, fence, number } = self;
        let (signaler, fence) = fence.publish();
        lent.queue.guard(signaler, number);
        (Retired::new(fence), Restart { lent })
    }
}

impl Restart {
    /// Lets the context go on: its jobs start, and those it had go on. If somebody waits for its fence already, it stays off,
    /// and [`Driver::resume`] gets it again. Any context; never blocks.
    pub fn restart(mut self) {
        self.lent.restarted = true;
        self.lent.queue.let_go();
    }
}
