//! Submitting: reserve (everything allocated; may fail), then commit (published; cannot fail), or commit later.
//!
//! # Stages are types
//! `Job` (a description) → [`Reserved`] (its memory; dropping it leaves no trace) → [`JobFences`] (published), or
//! [`Pending`] (waits for user fences; nothing is published yet).
#![expect(unsafe_code, reason = "owns a job's block; docs/unsafe.md, `queue::submit`")]

use super::config::{Dependency, Job, OnError, Refusal, ReserveError};
use super::deps::{self, MoreNode, NODES_MAX};
use super::dispatch::Who;
use super::job::{self, Cells, Flags, INLINE_NODES, JobCore, Stage, Step};
use super::shared::{QueueInner, QueueShared, StateGuard};
use crate::check;
use crate::device::driver::Driver;
use crate::exec::object::Object;
use crate::fence::{Fence, FenceError, Retired, Slot, Status, UserFence};
use crate::mem::{AllocError, HeapBox, HeapVec, try_push, try_reserve};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use crate::trace::Event;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Payloads that a `reserve` drops for the reaper at most: two, so that a steady submitter leaves none behind.
const REAP_IN_RESERVE: usize = 2;

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
    pub(crate) fn of(job: NonNull<JobCore>) -> Self {
        Self { finished: JobCore::fence(job, Slot::Finished) }
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

/// The dependencies of one job, merged.
struct Dependencies {
    /// On the queue itself: the newest, and whether its error fails the job.
    own: Option<(Fence, bool)>,
    others: FewOrMany,
}

/// A list that allocates only beyond what a block has nodes for.
struct FewOrMany {
    few: [Option<(Fence, OnError)>; INLINE_NODES],
    many: HeapVec<(Fence, OnError)>,
}

impl FewOrMany {
    const fn new() -> Self {
        Self { few: [const { None }; INLINE_NODES], many: HeapVec::new() }
    }

    fn len(&self) -> usize {
        self.few.iter().flatten().count() + self.many.len()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut (Fence, OnError)> {
        self.few.iter_mut().flatten().chain(&mut self.many)
    }

    fn push(&mut self, entry: (Fence, OnError)) -> Result<(), AllocError> {
        match self.few.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => try_push(&mut self.many, entry).map_err(|(error, _)| error)?,
        }
        Ok(())
    }
}

impl Dependencies {
    /// Adds one. Per context only the newest is kept, unless an older one's error would be lost: it is dropped only when it
    /// has signaled without error, or the policy is "run".
    fn add(&mut self, queue: &QueueShared, dependency: Dependency) -> Result<(), AllocError> {
        let Dependency { fence, on_error } = dependency;
        let same_client = fence.client() != 0 && fence.client() == queue.info.client;
        let on_error = on_error.unwrap_or(if same_client { OnError::Fail } else { OnError::Run });
        if fence.status() == Status::Signaled(Ok(())) {
            return Ok(());
        }
        let own = fence.header().info.as_ref().is_some_and(|info| info.same(&queue.info));
        if own && fence.slot() == Slot::First {
            // It starts after its predecessors in any case.
            return Ok(());
        }
        if own && fence.slot() == Slot::Finished {
            let fails = on_error == OnError::Fail;
            match self.own.take() {
                None => {
                    self.own = Some((fence, fails));
                    return Ok(());
                }
                // The newer one finishes later; the older one's error only counts if it was to fail the job.
                Some((kept, kept_fails)) => {
                    let newer = fence.seqno() > kept.seqno();
                    let (new, old) =
                        if newer { ((fence, fails), (kept, kept_fails)) } else { ((kept, kept_fails), (fence, fails)) };
                    self.own = Some(new);
                    return if old.1 { self.add_other(old.0, OnError::Fail) } else { Ok(()) };
                }
            }
        }
        self.add_other(fence, on_error)
    }

    fn add_other(&mut self, fence: Fence, on_error: OnError) -> Result<(), AllocError> {
        for (kept, policy) in self.others.iter_mut() {
            if kept.context() != fence.context() || *policy != on_error {
                continue;
            }
            let (older, newer_is_new) = if fence.seqno() >= kept.seqno() { (&*kept, true) } else { (&fence, false) };
            if on_error == OnError::Run || older.status() == Status::Signaled(Ok(())) || older.seqno() == fence.seqno()
            {
                if newer_is_new {
                    *kept = fence;
                }
                return Ok(());
            }
        }
        self.others.push((fence, on_error))
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
    shared.reap(REAP_IN_RESERVE);
    let Job { payload, credits, bytes, timeout, user_waits } = job;
    let prepared = prepare(shared, credits, bytes, user_waits, dependencies);
    let (charge, merged, more, first_user_node) = match prepared {
        Ok(prepared) => prepared,
        Err(kind) => return Err(ReserveError { kind, payload }),
    };
    let timeout = timeout.unwrap_or(shared.limits.timeout);
    let timeout = if timeout.is_zero() { super::LIMIT_MAX } else { timeout.min(super::LIMIT_MAX) };
    let own_fails = merged.own.as_ref().is_some_and(|(_, fails)| *fails);
    let cells = Cells {
        stage: Stage::Reserved,
        flags: Flags { own_fails, ..Flags::default() },
        step: Step::Running,
        credits,
        bytes,
        due: Time::ZERO.after(timeout),
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
    fill(job, merged);
    Ok(Reserved { job, first_user_node, driver: PhantomData })
}

type Prepared<'a> = (Charge<'a>, Dependencies, Option<HeapBox<[MoreNode]>>, usize);

/// Everything of a reservation that does not own the payload.
fn prepare<'a>(
    queue: &'a QueueShared,
    credits: u32,
    bytes: u64,
    user_waits: u16,
    dependencies: impl Iterator<Item = Dependency>,
) -> Result<Prepared<'a>, Refusal> {
    if credits == 0 {
        return Err(Refusal::NoCredits);
    }
    if credits > queue.limits.credits {
        return Err(Refusal::TooManyCredits { asked: credits, queue: queue.limits.credits });
    }
    {
        let state = queue.state.lock();
        match state.refuse_running {
            Some(FenceError::DeviceLost) => return Err(Refusal::DeviceLost),
            Some(_) => return Err(Refusal::Closed),
            None => {}
        }
    }
    let mut merged = Dependencies { own: None, others: FewOrMany::new() };
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
    Ok((Charge { queue, bytes }, merged, more, first_user_node))
}

/// Puts the dependencies into the nodes of a fresh job.
fn fill(mut job: NonNull<JobCore>, merged: Dependencies) {
    // SAFETY: fresh: nobody else knows it.
    let core = unsafe { job.as_mut() };
    *core.own.get_mut() = merged.own.map(|(fence, _)| fence);
    for (node, entry) in core.nodes.iter_mut().zip(merged.others.few) {
        if let Some((fence, on_error)) = entry {
            node.fill(fence, on_error);
        }
    }
    if let Some(more) = core.more.get_mut() {
        for (node, (fence, on_error)) in more.iter_mut().zip(merged.others.many) {
            node.dep_mut().fill(fence, on_error);
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
        let fences = JobFences::of(job);
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
        let fill = |mut node: NonNull<deps::DepNode>| {
            if let Some(fence) = fences.next() {
                // SAFETY: the job is this one's, and its nodes are not armed.
                unsafe { node.as_mut() }.fill(fence.inner().clone(), OnError::Fail);
            }
        };
        // SAFETY: this owns the job.
        unsafe { deps::each(self.job, self.first_user_node, fill) };
        let _section = check::signalling();
        let queue = self.queue();
        let job = self.job;
        let first = self.first_user_node;
        core::mem::forget(self);
        let finished = JobCore::fence(job, Slot::Finished);
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

/// A reserved job that waits for user fences. Dropping it changes nothing.
#[derive(Debug)]
pub struct Pending {
    finished: Fence,
    queue: Object<QueueShared>,
}

impl Pending {
    /// Its fences, once it was committed.
    #[must_use]
    pub fn fences(&self) -> Option<JobFences> {
        (self.finished.header().seqno.load(Ordering::Acquire) != 0)
            .then(|| JobFences { finished: self.finished.clone() })
    }

    /// Its end as something that need not come: signals when the job finishes, or is cancelled before its commit.
    #[must_use]
    pub fn done(&self) -> UserFence {
        UserFence::of_job(self.finished.clone())
    }

    /// Cancels it, unless it was committed; false if it was. Its payload goes to the reaper. Any context; never blocks.
    #[expect(clippy::must_use_candidate, reason = "most callers do not care whether it was too late")]
    pub fn cancel(&self) -> bool {
        let state = self.queue.state.lock();
        if self.finished.header().seqno.load(Ordering::Acquire) != 0 || self.finished.is_signaled() {
            return false;
        }
        let job = JobCore::of(&self.finished);
        // SAFETY: counted by the fence; not committed, so still in the list of pending jobs.
        unsafe { job.as_ref() }.disposal.decide(Err(FenceError::Canceled));
        self.queue.poke();
        drop(state);
        true
    }
}

impl QueueShared {
    /// Publishes `job`, whose owner gives it up.
    pub(crate) fn commit(&self, job: NonNull<JobCore>, who: Who) {
        // SAFETY: the caller's job.
        unsafe { deps::arm_all(job, self) };
        let mut state = self.state.lock();
        state.last_seqno += 1;
        // SAFETY: alive: its count passes to the order below.
        let header = unsafe { JobCore::header(job).as_ref() };
        // ORDERING: Release: `Pending::fences` reads it without the lock.
        header.seqno.store(state.last_seqno, Ordering::Release);
        state.cells(job).stage = Stage::Waiting;
        state.push(job);
        self.trace_queued(&state, job);
        // SAFETY: in the order.
        let core = unsafe { job.as_ref() };
        // ORDERING: AcqRel: as in `deps::count_down`.
        let ready = core.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        if state.refuse.is_some() {
            self.poke();
        } else if ready && state.next_start() == Some(job) && !state.token {
            if who == Who::Submitter && !self.limits.bypass {
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

    /// Puts `job`, whose owner gives it up, among those that wait for user fences.
    fn wait_for_users(&self, job: NonNull<JobCore>, first_user_node: usize, deadline: Time) {
        // SAFETY: the caller's job.
        unsafe { deps::arm_from(job, first_user_node) };
        let mut state = self.state.lock();
        // SAFETY: the caller's job, in no list.
        let cells = unsafe { JobCore::cells(job) };
        // Its timeout is needed again at the commit; `started` is not until then.
        cells.started = core::mem::replace(&mut cells.due, deadline);
        cells.stage = Stage::Pending;
        // SAFETY: in no list; its count passes to this list; the lock is held.
        unsafe { state.pending.push_back(job.cast()) };
        state.unreaped += 1;
        self.arm(&mut state, deadline);
        // SAFETY: in the list.
        let ready = unsafe { job.as_ref() }.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        if ready || state.refuse_running.is_some() {
            self.poke();
        }
    }

    /// On the lane: commits the pending jobs whose user fences have signaled, and cancels those that failed or are late.
    pub(crate) fn commit_pending<'a>(&'a self, mut state: StateGuard<'a>, now: Time) -> StateGuard<'a> {
        let mut earliest = Time::NEVER;
        let mut at = state.pending.front();
        while let Some(link) = at {
            let job = JobCore::from_link(link);
            // SAFETY: in the list of pending jobs, whose lock is held.
            let core = unsafe { job.as_ref() };
            let due = state.cells(job).due;
            if let Some(error) = state.refuse_running {
                core.disposal.decide(Err(error));
            } else if due <= now {
                core.disposal.decide(Err(FenceError::TimedOut));
            }
            let failed = core.disposal.verdict();
            if failed.is_some() {
                // SAFETY: this is the queue's lane, and the job has not been retired.
                unsafe { deps::disarm(job) };
            }
            if core.waiting.load(Ordering::Acquire) > 0 {
                earliest = earliest.min(due);
                // SAFETY: in the list.
                at = unsafe { state.pending.next(link) };
                continue;
            }
            // SAFETY: as above.
            unsafe { state.pending.remove(link) };
            state = match failed {
                Some(verdict) => self.cancel_pending(state, job, verdict, now),
                None => self.commit_now(state, job),
            };
            at = state.pending.front();
            earliest = Time::NEVER;
        }
        state.next_due = state.next_due.min(earliest);
        state
    }

    fn commit_now<'a>(&'a self, mut state: StateGuard<'a>, job: NonNull<JobCore>) -> StateGuard<'a> {
        let cells = state.cells(job);
        cells.due = core::mem::replace(&mut cells.started, Time::ZERO);
        // The commit counts it again.
        state.unreaped -= 1;
        drop(state);
        // SAFETY: taken out of the list, so this is its only owner.
        unsafe { job.as_ref() }.waiting.store(1, Ordering::Relaxed);
        self.commit(job, Who::Lane);
        self.state.lock()
    }

    fn cancel_pending<'a>(
        &'a self,
        state: StateGuard<'a>,
        job: NonNull<JobCore>,
        verdict: Result<(), FenceError>,
        now: Time,
    ) -> StateGuard<'a> {
        let bytes = state.cells(job).bytes;
        drop(state);
        for (slot, result) in [(Slot::First, verdict), (Slot::Finished, verdict), (Slot::Retired, Ok(()))] {
            // SAFETY: taken out of the list with its count.
            unsafe { JobCore::lend(job, slot) }.signal(result, now, self.hub());
        }
        if let Some(principal) = &self.principal {
            principal.refund(bytes);
        }
        let mut state = self.state.lock();
        // SAFETY: in no list; its count passes to this one.
        unsafe { state.dead.push_back(job.cast()) };
        self.poke_reaper(&mut state);
        state
    }
}
