//! `Driver`: what the author of a driver writes.
//!
//! Types and answers only: who calls what when is `queue::ops` and `device::shared`.

use crate::fence::{Cause, Fence};
use crate::queue::{Completion, Off, PreemptToken};
use crate::time::Time;
use crate::trace::FenceId;
use core::fmt;
use core::time::Duration;

use super::recovery::ResetToken;

/// A piece of hardware: what the author of a driver writes. [`Driver::run`] is required; every other call has a default that
/// says the hardware cannot.
///
/// # Contexts
/// | call | where | may allocate | may block |
/// |---|---|---|---|
/// | `acquire`, `run` | signalling lane, or the submitter's thread (bypass) | no | no |
/// | `release` | where the job completes, interrupts included | no | no |
/// | `timed_out`, `cancel` | signalling lane | no | no |
/// | `preempt`, `restore` | signalling lane | no | no: answer `preempt` later through the token |
/// | `resume` | reaper lane | yes | yes |
/// | `reset`, `unplug` | signalling lane | no | no: answer later through the token |
/// | `waits_natively` | the submitter's thread, or the signalling lane | no | no |
/// | `Drop` of a payload, of `Queue`, of the driver | reaper lane (a payload also in `reserve`) | yes | yes |
///
/// No lock of the library is held in any of them. `acquire`, `run`, `timed_out` and `cancel` for one queue never overlap, so
/// they get its ring mutably; calls for different queues may. A call that panics meets a drop guard: the panic goes on, the
/// job fails, and the queue is closed.
pub trait Driver: Send + Sync + Sized + 'static {
    /// The payload of a job: what must stay as it is until the hardware is done with it.
    type Job: Send + 'static;
    /// What the driver keeps per queue: ring state. Given in turn to the calls for that queue.
    type Queue: Send + 'static;

    /// Whether [`acquire`](Driver::acquire) and [`release`](Driver::release) are to be called. Default no.
    const RESOURCES: bool = false;

    /// Takes the scarce resources the job needs (a VM id, a doorbell), all or nothing, in a fixed order
    /// (`drm_sched`'s `prepare_job`). The job is chosen and its dependencies are met. What is missing is named by a fence;
    /// the job then waits holding nothing.
    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        let _ = cx;
        Acquired::Yes
    }

    /// Hands the job to the hardware. `done` is the promise to say when it has ended: keep it by hardware sequence number
    /// ([`InFlight`](crate::InFlight)) or as a cookie in the ring. It may be completed right here.
    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion);

    /// Gives back, in reverse order, what `acquire` took: the hardware is done with the job.
    fn release(&self, job: &mut Self::Job) {
        let _ = job;
    }

    /// The job has been on the hardware for longer than its timeout. Default: it failed.
    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        let _ = cx;
        Verdict::Fail
    }

    /// Asks the hardware to stop this job early. Its completion is still due, and ends its stay on the retire list. Default:
    /// the hardware cannot, so a reset follows.
    fn cancel(&self, cx: &mut JobCx<'_, Self>) {
        let _ = cx;
    }

    /// Takes the context of a long-running queue off the hardware, its jobs kept, and says through `token` when it is. May
    /// answer later. Default: it cannot, so its jobs are taken off as hung ones are.
    fn preempt(&self, queue: u64, ring: &mut Self::Queue, token: PreemptToken) {
        let _ = (queue, ring);
        token.failed();
    }

    /// Puts back what `preempt` took off: its jobs go on.
    fn restore(&self, queue: u64, ring: &mut Self::Queue) {
        let _ = (queue, ring);
    }

    /// A long-running context was taken off because somebody waits for its memory, and may come back: allocate the next
    /// preempt fence, lock and validate what it uses, publish the fence there, restart. Not while anybody who waited still
    /// needs the memory: take the reservations' turn. Default: it stays off until [`LongQueue::off`](crate::LongQueue::off)
    /// is asked.
    fn resume(&self, off: Off) {
        drop(off);
    }

    /// Resets the engine of one queue or the whole device, and says through `token` whether DMA is now impossible. May
    /// answer later. Default: it cannot.
    fn reset(&self, scope: ResetScope, token: ResetToken) {
        let _ = scope;
        token.failed();
    }

    /// The device is gone, or is given up: excludes DMA for good, and says through `token` whether it could. Default: it
    /// cannot know.
    fn unplug(&self, token: ResetToken) {
        token.failed();
    }

    /// Whether the hardware itself waits for `fence`, a job's of this device that is already scheduled. Then the dependant
    /// is handed over at once. Default no.
    fn waits_natively(&self, fence: &Fence) -> bool {
        let _ = fence;
        false
    }
}

/// One job and the ring it is for, in a driver call.
pub struct JobCx<'a, D: Driver> {
    /// The ring.
    pub queue: &'a mut D::Queue,
    /// The payload.
    pub job: &'a mut D::Job,
    pub(crate) info: JobInfo,
    pub(crate) despite: Option<Cause>,
}

/// What is known of a job in a driver call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct JobInfo {
    /// Its `finished` fence.
    pub id: FenceId,
    /// Its queue, as [`JobQueue::id`](crate::JobQueue::id) gives it.
    pub queue: u64,
    /// Whose it is.
    pub client: u64,
    /// What it holds.
    pub credits: u32,
    /// By when somebody would like it finished.
    pub deadline: Option<Time>,
    /// When it was started: now, in `run`; zero, in `acquire`.
    pub started: Time,
}

impl<D: Driver> JobCx<'_, D> {
    /// What is known of the job.
    #[must_use]
    pub const fn info(&self) -> &JobInfo {
        &self.info
    }

    /// The root cause of a failed dependency, in spite of which the job runs.
    #[must_use]
    pub const fn despite(&self) -> Option<Cause> {
        self.despite
    }
}

impl<D: Driver> fmt::Debug for JobCx<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobCx({})", self.info.id)
    }
}

/// The answer of [`Driver::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// All taken.
    Yes,
    /// Something is missing; try again when this fence has signaled. What was taken has been given back.
    Wait(Fence),
    /// It can never have it: fails with [`FenceError::Faulted`](crate::FenceError::Faulted) and this code.
    Never(u16),
}

/// What to do with a job that is over its timeout. It stays where it is while the driver thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It has made progress: ask again after that long, up to the queue's cap.
    KeepWaiting(Duration),
    /// It failed. It is cancelled, then reset, until the hardware is done with it.
    Fail,
    /// It failed, and nothing less than this reset will end it.
    Reset(ResetScope),
    /// The device is gone.
    Lost,
}

/// What a reset covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetScope {
    /// The engine, as far as the queue of that number uses it.
    Queue(u64),
    /// The whole device.
    Device,
}
