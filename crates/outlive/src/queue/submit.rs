//! Submitting: reserve (everything allocated; may fail), then commit (published; cannot fail), or commit later.
//!
//! # Stages are types
//! `Job` (a description) → [`Reserved`] (its memory; dropping it leaves no trace) → [`JobFences`] (published), or
//! [`Pending`] (waits for user fences; nothing is published yet).
#![expect(unsafe_code, reason = "owns a job's block; docs/unsafe.md, `queue::submit`")]

use super::config::{Dependency, Job, OnError};
use super::deps::{self, MoreNode, NODES_MAX};
use super::dispatch::Who;
use super::job::{self, Cells, Flags, INLINE_NODES, JobCore, Stage, Step};
use super::merge::{Dependencies, Terms};
use super::pending::Pending;
use super::refusal::{Refusal, ReserveError};
use super::shared::{QueueInner, QueueShared, StateGuard};
use crate::check;
use crate::device::Principal;
use crate::device::driver::Driver;
use crate::exec::object::Object;
use crate::fence::{Fence, FenceError, Retired, Slot, UserFence};
use crate::mem::{AllocError, HeapBox, HeapVec, try_reserve};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use crate::trace::Event;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Payloads that a `reserve` drops for the reaper at most: two, so that a steady submitter leaves none behind.
const REAP_IN_RESERVE: u64 = 2;

/// A job's memory, dependencies and charges: everything that could fail has not. Dereferences to the payload. Dropping it
/// drops the payload and leaves no trace and no hole in the sequence.
#[must_use = "commit it, or drop it without a trace"]
pub struct Reserved<D: Driver> {
    job: NonNull<JobCore>,
    /// Where nodes for user fences begin.
    first_user_node: usize,
    driver: PhantomData<D>,
}

// SAFETY: it owns a job, whose payload is `Send`; everything else is counted or atomic.
unsafe impl<D: Driver> Send for Reserved<D> {}
// SAFETY: `&Reserved` gives `&D::Job` only.
unsafe impl<D: Driver> Sync for Reserved<D> where D::Job: Sync {}

/// The three fences of a published job. One word; clones are the same job's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFences {
    finished: Fence,
}

impl JobFences {
    pub(super) const fn from_finished(finished: Fence) -> Self {
        Self { finished }
    }

    /// # Safety
    /// As for [`JobCore::first_fence`].
    unsafe fn of(job: NonNull<JobCore>) -> Self {
        // SAFETY: passed on.
        Self { finished: unsafe { JobCore::first_fence(job) } }
    }

    /// Signals when the job is handed to the hardware; with its error, if it never is.
    #[must_use]
    pub fn scheduled(&self) -> Fence {
        self.finished.sibling(Slot::First)
    }

    /// Signals with the job's verdict. An error never means that its memory may be touched.
    #[must_use]
    pub fn finished(&self) -> Fence {
        self.finished.clone()
    }

    /// Signals when the hardware can no longer touch what the job touched.
    #[must_use]
    pub fn retired(&self) -> Retired {
        Retired::new(self.finished.sibling(Slot::Retired))
    }
}

/// Nodes beyond those in the block.
fn more_nodes(count: usize) -> Result<Option<HeapBox<[MoreNode]>>, AllocError> {
    if count <= INLINE_NODES {
        return Ok(None);
    }
    let mut nodes = HeapVec::new();
    try_reserve(&mut nodes, count - INLINE_NODES)?;
    nodes.extend((INLINE_NODES..count).map(|index| MoreNode::new(u16::try_from(index).unwrap_or(0))));
    // Reserved exactly, so there is nothing to give back.
    Ok(Some(nodes.into_boxed_slice()))
}

/// A refund that is due unless the reservation succeeds.
struct Charge<'a> {
    queue: &'a QueueShared,
    bytes: u64,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(principal) = &self.queue.principal {
            principal.refund(self.bytes);
        }
    }
}

/// Reserves a job on `queue`.
pub(crate) fn reserve<D: Driver>(
    queue: &Object<QueueInner<D>>,
    job: Job<D::Job>,
    dependencies: impl Iterator<Item = Dependency>,
) -> Result<Reserved<D>, ReserveError<D::Job>> {
    let shared = &queue.shared;
    let Job { payload, credits, bytes, timeout, user_waits } = job;
    let mut merged = Dependencies::new();
    let prepared = prepare(shared, credits, bytes, user_waits, dependencies, &mut merged);
    let (charge, more, first_user_node) = match prepared {
        Ok(prepared) => prepared,
        Err(kind) => return Err(ReserveError { kind, payload }),
    };
    let timeout = timeout.unwrap_or(shared.limits.timeout);
    let timeout = if timeout.is_zero() { super::LIMIT_MAX } else { timeout.min(super::LIMIT_MAX) };
    // The end of a long-running job is nobody's fence.
    let due = if shared.long.is_some() { Time::NEVER } else { Time::ZERO.after(timeout) };
    let own_fails = merged.own.as_ref().is_some_and(|(_, fails)| *fails);
    let cells = Cells {
        stage: Stage::Reserved,
        flags: Flags { own_fails, nodes: first_user_node > 0 || user_waits > 0, ..Flags::default() },
        step: Step::Running,
        credits,
        bytes,
        due,
        started: Time::ZERO,
        ended: Time::ZERO,
    };
    // SAFETY: `QueueShared` is the first field of a queue.
    let counted = unsafe { queue.clone().upcast::<QueueShared>() };
    let job = match job::allocate(counted, payload, cells, more) {
        Ok(job) => job,
        Err((error, payload)) => return Err(ReserveError { kind: Refusal::OutOfMemory(error), payload }),
    };
    core::mem::forget(charge);
    if merged.any() {
        fill(job, merged);
    }
    Ok(Reserved { job, first_user_node, driver: PhantomData })
}

type Prepared<'a> = (Charge<'a>, Option<HeapBox<[MoreNode]>>, usize);

/// Everything of a reservation that does not own the payload; puts the dependencies into `merged`.
fn prepare<'a>(
    queue: &'a QueueShared,
    credits: u32,
    bytes: u64,
    user_waits: u16,
    dependencies: impl Iterator<Item = Dependency>,
    merged: &mut Dependencies,
) -> Result<Prepared<'a>, Refusal> {
    if credits == 0 {
        return Err(Refusal::NoCredits);
    }
    if credits > queue.limits.credits {
        return Err(Refusal::TooManyCredits { asked: credits, queue: queue.limits.credits });
    }
    let state = queue.state.lock();
    match state.refuse_running {
        Some(FenceError::DeviceLost) => return Err(Refusal::DeviceLost),
        Some(_) => return Err(Refusal::Closed),
        None => queue.reap(state, REAP_IN_RESERVE),
    }
    if queue.principal.as_ref().is_some_and(Principal::is_banned) {
        return Err(Refusal::Banned);
    }
    for dependency in dependencies {
        merged.add(queue, dependency).map_err(Refusal::OutOfMemory)?;
    }
    let count = merged.others.len() + usize::from(user_waits);
    if count > usize::from(NODES_MAX) {
        return Err(Refusal::TooManyDependencies { most: NODES_MAX });
    }
    let more = more_nodes(count).map_err(Refusal::OutOfMemory)?;
    if let Some(principal) = &queue.principal {
        principal.charge(bytes)?;
    }
    let first_user_node = merged.others.len();
    Ok((Charge { queue, bytes }, more, first_user_node))
}

/// Puts the dependencies into the nodes of a fresh job.
fn fill(mut job: NonNull<JobCore>, merged: Dependencies) {
    // SAFETY: fresh: nobody else knows it.
    let core = unsafe { job.as_mut() };
    *core.own.get_mut() = merged.own.map(|(fence, _)| fence);
    for (node, entry) in core.nodes.iter_mut().zip(merged.others.few) {
        if let Some((fence, terms)) = entry {
            node.fill(fence, terms);
        }
    }
    if let Some(more) = core.more.get_mut() {
        for (node, (fence, terms)) in more.iter_mut().zip(merged.others.many) {
            node.dep_mut().fill(fence, terms);
        }
    }
}

impl<D: Driver> Reserved<D> {
    fn queue(&self) -> Object<QueueShared> {
        // SAFETY: this owns the job, which has not been reaped.
        unsafe { JobCore::queue(self.job) }.clone()
    }

    /// Publishes the job. Cannot fail, whatever happens: on a queue that has closed meanwhile its fences fail, in turn.
    /// Any context that may call the driver's `run` (bypass); never blocks or allocates.
    pub fn commit(self) -> JobFences {
        let _section = check::signalling();
        let queue = self.queue();
        let job = self.job;
        core::mem::forget(self);
        // SAFETY: this owned the job, and gives it up.
        let fences = unsafe { JobFences::of(job) };
        queue.commit(job, Who::Submitter);
        fences
    }

    /// Takes the job to publish it when all of `user_fences` have signaled; if one fails, or they have not by `deadline` (on
    /// the executor's clock), it is cancelled instead. Until then it has no sequence number and no fences, and holds nobody
    /// up. Needs room for them, reserved with [`Job::user_waits`]. Any context; never blocks or allocates.
    ///
    /// # Errors
    /// The reservation comes back when there is not enough room.
    pub fn commit_when(self, user_fences: &[UserFence], deadline: Time) -> Result<Pending, Self> {
        let mut room = 0;
        // SAFETY: this owns the job.
        unsafe { deps::each(self.job, self.first_user_node, |_| room += 1) };
        if user_fences.len() > room {
            return Err(self);
        }
        let mut fences = user_fences.iter();
        let terms = Terms { on_error: OnError::Fail, pipelined: false };
        let fill = |mut node: NonNull<deps::DepNode>| {
            if let Some(fence) = fences.next() {
                // SAFETY: the job is this one's, and its nodes are not armed.
                unsafe { node.as_mut() }.fill(fence.inner().clone(), terms);
            }
        };
        // SAFETY: this owns the job.
        unsafe { deps::each(self.job, self.first_user_node, fill) };
        let _section = check::signalling();
        let queue = self.queue();
        let job = self.job;
        let first = self.first_user_node;
        core::mem::forget(self);
        // SAFETY: this owned the job, and gives it up.
        let finished = unsafe { JobCore::first_fence(job) };
        queue.wait_for_users(job, first, deadline);
        Ok(Pending { finished, queue })
    }
}

impl<D: Driver> Deref for Reserved<D> {
    type Target = D::Job;

    fn deref(&self) -> &D::Job {
        // SAFETY: this owns the job, made with this payload.
        unsafe { JobCore::payload::<D::Job>(self.job).as_ref() }
    }
}

impl<D: Driver> DerefMut for Reserved<D> {
    fn deref_mut(&mut self) -> &mut D::Job {
        // SAFETY: as above, borrowed mutably.
        unsafe { JobCore::payload::<D::Job>(self.job).as_mut() }
    }
}

impl<D: Driver> Drop for Reserved<D> {
    fn drop(&mut self) {
        let queue = self.queue();
        if let Some(principal) = &queue.principal {
            // SAFETY: this owns the job.
            principal.refund(unsafe { JobCore::cells(self.job) }.bytes);
        }
        check::foreign_drop();
        // SAFETY: this owns the job, made with this payload.
        drop(unsafe { JobCore::unreserve::<D::Job>(self.job) });
    }
}

impl<D: Driver> fmt::Debug for Reserved<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reserved")
    }
}

impl QueueShared {
    /// Publishes `job`, whose owner gives it up.
    pub(crate) fn commit(&self, job: NonNull<JobCore>, who: Who) {
        // SAFETY: the caller's job.
        if unsafe { JobCore::cells(job) }.flags.nodes {
            // The driver is asked for native waits in here, and may panic.
            let unwound = PublishAnyway { queue: self, job };
            // SAFETY: as above.
            unsafe { deps::arm_all(job, self) };
            core::mem::forget(unwound);
        }
        self.publish(job, who);
    }

    fn publish(&self, job: NonNull<JobCore>, who: Who) {
        let mut state = self.state.lock();
        self.heed_ban(&mut state);
        state.last_seqno += 1;
        // SAFETY: alive: its count passes to the order below.
        let header = unsafe { JobCore::header(job).as_ref() };
        // ORDERING: Release: `Pending::fences` reads it without the lock.
        header.seqno.store(state.last_seqno, Ordering::Release);
        state.cells(job).stage = Stage::Waiting;
        if self.place.is_some() {
            state.cells(job).started = self.now();
        }
        state.push(job);
        self.joined(&state, job);
        if check::ON {
            // SAFETY: in the order.
            let finished = unsafe { JobCore::lend(job, Slot::Finished) };
            // SAFETY: as above.
            unsafe { deps::visit(job, |on| check::job_depends(&finished, on)) };
        }
        self.trace_queued(&state, job);
        // SAFETY: in the order.
        let core = unsafe { job.as_ref() };
        let ready = if state.cells(job).flags.nodes {
            // ORDERING: AcqRel: as in `deps::count_down`.
            core.waiting.fetch_sub(1, Ordering::AcqRel) == 1
        } else {
            // Without nodes nobody else counts. ORDERING: it is read under the lock.
            core.waiting.store(0, Ordering::Relaxed);
            true
        };
        if state.refuse.is_some() {
            self.poke();
        } else if ready && state.next_start() == Some(job) && !state.token {
            if who == Who::Submitter && !self.limits.bypass {
                // The lane that this wakes wants the lock first thing.
                drop(state);
                self.poke();
            } else {
                drop(self.dispatch(state, who));
            }
        }
    }

    fn trace_queued(&self, state: &StateGuard<'_>, job: NonNull<JobCore>) {
        let hub = self.hub();
        if hub.recorder.is_none() {
            return;
        }
        let id = JobCore::id(job);
        let (client, credits, depth) = (self.info.client, state.cells(job).credits, state.depth);
        hub.trace(|| Event::JobQueued { job: id, client, credits, depth });
        // SAFETY: in the order.
        unsafe { deps::visit(job, |on| hub.trace(|| Event::JobDependency { job: id, on: on.id() })) };
    }
}

/// A driver that panics while a job is being committed: the job is published all the same, failed, and its queue closed.
struct PublishAnyway<'a> {
    queue: &'a QueueShared,
    job: NonNull<JobCore>,
}

impl Drop for PublishAnyway<'_> {
    fn drop(&mut self) {
        // SAFETY: the job being committed, which this owns.
        unsafe { self.job.as_ref() }.disposal.decide(Err(FenceError::DriverBug));
        self.queue.refuse(&mut self.queue.state.lock(), FenceError::DriverBug);
        self.queue.publish(self.job, Who::Lane);
    }
}
