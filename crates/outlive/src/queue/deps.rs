//! Dependencies: nodes that are all armed at once, behind one counter.
//!
//! # States of a node
//! *empty* or *filled* (names its fence) → *armed* (registered; holds a count of the job's block) → *resolved*. Or
//! the hardware waits: see [`native`](super::native).
//!
//! A node whose fence failed, under the policy "run", moves on to that job's `retired` (place *sibling*): whoever runs in
//! spite of an error runs when the memory is free.
//!
//! # Fields
//! The fence in a node does not change from commit to reaping, so whoever takes nodes off may read it while their
//! signallers do. Reaping gives all of them up: a chain of jobs does not keep its dead alive.
//!
//! # Contexts
//! [`signaled`] is called by whoever signals a fence, in any context; it counts down, and queues work when the count is
//! zero. It never runs a job itself, so a chain of a million failing jobs is a loop on the lane, not a recursion.
#![expect(unsafe_code, reason = "nodes inside a block; docs/unsafe.md, `queue::deps`")]

use super::config::{OnError, dependency_failed};
use super::job::{INLINE_NODES, JobCore};
use super::merge::Terms;
use super::shared::QueueShared;
use crate::exec::node::{Kind, Node, Place};
use crate::fence::{Cause, Fence, Slot, Status};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{Ordering, fence};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;

/// The most dependencies a job can hold after merging: an index has 14 bits.
pub(crate) const NODES_MAX: u16 = 1 << 14;
const PIPELINED_BIT: u16 = 1 << 14;
const RUN_BIT: u16 = 1 << 15;
/// How many nodes outside the block somebody who asks looks at: the queue's lock is held meanwhile.
const LOOKED_AT: usize = 64;

/// One dependency of a job.
#[repr(C)]
pub(crate) struct DepNode {
    /// Its index: position, and its terms in the top bits.
    pub(crate) node: Node,
    /// Written before the commit, taken by reaping, else only read.
    pub(crate) fence: UnsafeCell<Option<Fence>>,
}

/// A dependency node outside the block, which therefore names its job.
#[repr(C)]
pub(crate) struct MoreNode {
    dep: DepNode,
    job: Option<NonNull<JobCore>>,
}

// SAFETY: the fields are touched by one side at a time, as the module says.
unsafe impl Send for DepNode {}
// SAFETY: as above.
unsafe impl Sync for DepNode {}
// SAFETY: as above; the job pointer is set before the job is shared.
unsafe impl Send for MoreNode {}
// SAFETY: as above.
unsafe impl Sync for MoreNode {}

impl DepNode {
    pub(crate) fn new(index: u16) -> Self {
        Self { node: Node::new(Kind::Dependency, index), fence: UnsafeCell::new(None) }
    }

    /// Fills an empty node of a job that is not committed.
    pub(crate) fn fill(&mut self, fence: Fence, terms: Terms) {
        let run = if terms.on_error == OnError::Run { RUN_BIT } else { 0 };
        let pipelined = if terms.pipelined { PIPELINED_BIT } else { 0 };
        self.node.index = (self.node.index & (NODES_MAX - 1)) | run | pipelined;
        *self.fence.get_mut() = Some(fence);
    }

    fn is_pipelined(&self) -> bool {
        self.node.index & PIPELINED_BIT != 0
    }

    pub(super) fn on_error(&self) -> OnError {
        if self.node.index & RUN_BIT == 0 { OnError::Fail } else { OnError::Run }
    }

    /// The job a node belongs to.
    fn job(at: NonNull<Self>) -> NonNull<JobCore> {
        // SAFETY: the node is alive: its registration counts the block.
        let index = usize::from(unsafe { at.as_ref() }.node.index & (NODES_MAX - 1));
        if index < INLINE_NODES {
            // SAFETY: an inline node lies at this offset of its job.
            return unsafe { at.byte_sub(offset_of!(JobCore, nodes) + index * size_of::<Self>()) }.cast();
        }
        // SAFETY: other nodes are the first field of a `MoreNode`.
        match unsafe { at.cast::<MoreNode>().as_ref() }.job {
            Some(job) => job,
            None => unreachable!("set when the job was allocated"),
        }
    }
}

impl MoreNode {
    pub(crate) fn new(index: u16) -> Self {
        Self { dep: DepNode::new(index), job: None }
    }

    pub(crate) fn set_job(&mut self, job: NonNull<JobCore>) {
        self.job = Some(job);
    }

    pub(crate) fn dep_mut(&mut self) -> &mut DepNode {
        &mut self.dep
    }
}

/// Calls `visit` for the nodes of a job, from the `first` on.
///
/// # Safety
/// The job's block is alive meanwhile.
pub(crate) unsafe fn each(job: NonNull<JobCore>, first: usize, mut visit: impl FnMut(NonNull<DepNode>)) {
    for index in first..INLINE_NODES {
        let offset = offset_of!(JobCore, nodes) + index * size_of::<DepNode>();
        // SAFETY: inside the job's block.
        visit(unsafe { job.byte_add(offset) }.cast());
    }
    // SAFETY: alive by the caller's promise.
    let cell = unsafe { job.as_ref() }.more.get();
    // SAFETY: `more` is not replaced after allocation.
    if let Some(more) = unsafe { (*cell).as_deref() } {
        for node in more.iter().skip(first.saturating_sub(INLINE_NODES)) {
            visit(NonNull::from(node).cast());
        }
    }
}

/// The fence that the first armed node is on; not beyond [`LOOKED_AT`] nodes.
///
/// # Safety
/// The job has been committed, or waits for user fences, and has not been reaped.
pub(crate) unsafe fn first_armed(job: NonNull<JobCore>) -> Option<Fence> {
    let on = |at: NonNull<DepNode>| {
        // SAFETY: alive by the caller's promise.
        let place = unsafe { at.as_ref() }.node.place();
        // SAFETY: as above.
        let fence = unsafe { fence_in(at) }?;
        match place {
            Place::Fence => Some(fence.clone()),
            Place::Sibling => Some(fence.carrier().sibling(Slot::Retired)),
            Place::Ahead => Some(fence.sibling(Slot::First)),
            Place::Idle | Place::Lane => None,
        }
    };
    // SAFETY: alive by the caller's promise.
    let core = unsafe { job.as_ref() };
    let more = core.more.get();
    // SAFETY: `more` is not replaced after allocation.
    let more = unsafe { (*more).as_deref() }.into_iter().flatten().take(LOOKED_AT);
    let more = more.map(|node| NonNull::from(node).cast());
    core.nodes.iter().map(NonNull::from).chain(more).find_map(on)
}

/// The fence of a node.
///
/// # Safety
/// The node is alive; its fence is written before the commit, read after, and taken by reaping.
pub(super) unsafe fn fence_in<'a>(at: NonNull<DepNode>) -> Option<&'a Fence> {
    // SAFETY: alive by the caller's promise.
    let cell = unsafe { at.as_ref() }.fence.get();
    // SAFETY: as said.
    unsafe { (*cell).as_ref() }
}

/// Arms every filled node. The job still has its extra count, so it cannot become ready in here.
///
/// # Safety
/// The caller commits the job and is its only owner.
pub(crate) unsafe fn arm_all(job: NonNull<JobCore>, queue: &QueueShared) {
    // SAFETY: the caller's job.
    unsafe { arm(job, 0, Some(queue)) };
}

/// Arms the filled nodes from the `first` on: those of user fences.
///
/// # Safety
/// As for [`arm_all`].
pub(crate) unsafe fn arm_from(job: NonNull<JobCore>, first: usize) {
    // SAFETY: the caller's job.
    unsafe { arm(job, first, None) };
}

unsafe fn arm(job: NonNull<JobCore>, first: usize, queue: Option<&QueueShared>) {
    let arm_one = |at: NonNull<DepNode>| {
        // SAFETY: not changed until reaping.
        let Some(fence) = (unsafe { fence_in(at) }) else { return };
        if sabotage::is(Sabotage::SkipDependency) {
            return;
        }
        // SAFETY: the job is the caller's, and so are its nodes.
        let ahead = unsafe { at.as_ref() }.is_pipelined();
        let native =
            ahead || queue.is_some_and(|queue| fence.status() == Status::Pending && queue.waits_natively(fence));
        // SAFETY: the job is the caller's.
        unsafe { JobCore::cells(job) }.flags.native |= native;
        if native && !ahead {
            return;
        }
        let (on, place) = if ahead { (&fence.sibling(Slot::First), Place::Ahead) } else { (fence, Place::Fence) };
        // SAFETY: idle: the job is the caller's.
        if !unsafe { hang(at, job, on, place) } {
            // SAFETY: it has signaled, so this side acts on it.
            unsafe { resolve(at, on.slot(), false) };
        }
    };
    // SAFETY: the caller's job.
    unsafe { each(job, first, arm_one) };
}

/// Registers a node of `job` on `on`, with a count in `waiting` and one of the block. False: it has signaled, and the counts
/// are the caller's.
///
/// # Safety
/// The node is idle, and the caller the only one who has it; the job's block is alive.
pub(super) unsafe fn hang(at: NonNull<DepNode>, job: NonNull<JobCore>, on: &Fence, place: Place) -> bool {
    // SAFETY: alive by the caller's promise.
    unsafe { job.as_ref() }.waiting.fetch_add(1, Ordering::Relaxed);
    JobCore::retain(job);
    // SAFETY: idle, starts a `DepNode`, counted.
    unsafe { on.register_as(at.cast(), place) }
}

/// A fence that `at` was on, in `slot` of its block, has signaled. Takes over the registration's count of the block.
///
/// # Safety
/// The signaller took the node out; its registration's count is passed on.
pub(crate) unsafe fn signaled(at: NonNull<DepNode>, slot: Slot) {
    // SAFETY: passed on.
    unsafe { resolve(at, slot, true) };
}

/// Acts on the result of `at`'s fence: fails the job, or moves on, or counts down. `slot`: of its block, what has signaled.
/// `notify`: the queue is told when that was the last one.
unsafe fn resolve(at: NonNull<DepNode>, mut slot: Slot, notify: bool) {
    let job = DepNode::job(at);
    // SAFETY: not changed between commit and reaping, which this dependency's count holds back.
    let fence = unsafe { fence_in(at) };
    // SAFETY: as above: the block is counted for this registration.
    while let Some((next, place)) = fence.and_then(|fence| unsafe { next_of(at, job, fence, slot) }) {
        // SAFETY: the node is idle, and this side has its registration's count.
        if unsafe { move_on(at, job, &next, place) } {
            return;
        }
        // That has signaled too, or nobody waits any more.
        slot = next.slot();
    }
    count_down(job, notify);
    // SAFETY: this registration's count.
    unsafe { JobCore::release(job) };
}

/// Where a node goes on to, now that `slot` of its fence's block has signaled; fails the job, if that is what it says.
///
/// # Safety
/// The node and its job are alive, and the caller acts on the signal.
unsafe fn next_of(at: NonNull<DepNode>, job: NonNull<JobCore>, fence: &Fence, slot: Slot) -> Option<(Fence, Place)> {
    let ahead = slot == Slot::First && fence.slot() == Slot::Finished;
    if (!ahead && fence.slot() != slot) || sabotage::is(Sabotage::LoseError) {
        return None;
    }
    // SAFETY: alive by the caller's promise.
    let node = unsafe { at.as_ref() };
    match fence.status() {
        Status::Signaled(Err(error)) if node.on_error() == OnError::Fail => {
            // SAFETY: as above.
            unsafe { job.as_ref() }.disposal.decide(dependency_failed(error));
            None
        }
        Status::Signaled(Err(_)) => held_behind(fence).map(|retired| (retired, Place::Sibling)),
        // It never gets on the hardware, and will say why.
        Status::Pending if ahead && fence.sibling_status(Slot::First) != Status::Signaled(Ok(())) => {
            Some((fence.clone(), Place::Fence))
        }
        Status::Pending | Status::Signaled(Ok(())) => None,
    }
}

/// The `retired` of the job that a failed `fence` speaks of, if it speaks of an earlier stage of one.
pub(super) fn held_behind(fence: &Fence) -> Option<Fence> {
    let carrier = fence.carrier();
    (carrier.is_jobs() && carrier.slot() != Slot::Retired).then(|| carrier.sibling(Slot::Retired))
}

/// Puts a node on `next`. False: that has signaled too, or nobody waits any more, because the dependant has a verdict
/// meanwhile; the node is idle again then, with its count.
///
/// # Safety
/// The node is idle, and the caller has its registration's count of the block.
unsafe fn move_on(at: NonNull<DepNode>, job: NonNull<JobCore>, next: &Fence, place: Place) -> bool {
    // Once the node is registered, its count is the registration's; this one is for looking at the job.
    JobCore::retain(job);
    // SAFETY: idle, starts a `DepNode`, counted by the caller.
    let mut moved = unsafe { next.register_as(at.cast(), place) };
    if moved {
        // ORDERING: pairs with the fence in `disarm`: either the verdict is seen here, or the new place there.
        fence(Ordering::SeqCst);
        // SAFETY: counted above.
        let core = unsafe { job.as_ref() };
        // SAFETY: as above: the node is part of the block, or of a list that lives as long.
        let node = unsafe { at.as_ref() };
        if core.disposal.verdict().is_some() && next.unregister_from(&node.node, place) {
            moved = false;
        }
    }
    // SAFETY: the count taken above.
    unsafe { JobCore::release(job) };
    moved
}

/// One dependency less. The caller has a count of the block.
pub(crate) fn count_down(job: NonNull<JobCore>, notify: bool) {
    // SAFETY: counted by the caller.
    let core = unsafe { job.as_ref() };
    if !notify {
        // The extra count of the uncommitted job stays.
        core.waiting.fetch_sub(1, Ordering::AcqRel);
        return;
    }
    // SAFETY: this dependency's count in `waiting` holds reaping back until the subtraction.
    let queue = unsafe { JobCore::queue(job) }.clone();
    // ORDERING: AcqRel: the last one sees what all others did, the verdict of a failed one included.
    if core.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
        queue.job_ready(job);
    }
}

/// Takes the armed nodes of a job that will not run off their fences. Nodes that a signaller has just taken are left to it.
///
/// # Safety
/// The caller is the queue's pass, and the job has not been retired.
pub(crate) unsafe fn disarm(job: NonNull<JobCore>) {
    // ORDERING: pairs with the fence in `move_on`.
    fence(Ordering::SeqCst);
    let disarm_one = |at: NonNull<DepNode>| {
        // SAFETY: alive: its job is in the queue's order.
        let node = unsafe { at.as_ref() };
        // SAFETY: not changed between commit and reaping.
        let Some(fence) = (unsafe { fence_in(at) }) else { return };
        let taken = match node.node.place() {
            Place::Fence => fence.unregister(&node.node),
            Place::Sibling => fence.carrier().sibling(Slot::Retired).unregister_from(&node.node, Place::Sibling),
            Place::Ahead => fence.sibling(Slot::First).unregister_from(&node.node, Place::Ahead),
            Place::Idle | Place::Lane => false,
        };
        if taken {
            count_down(job, false);
            // SAFETY: the registration's count.
            unsafe { JobCore::release(job) };
        }
    };
    // SAFETY: alive: it is in the queue's order.
    unsafe { each(job, 0, disarm_one) };
}

/// Gives the fences of all nodes up.
///
/// # Safety
/// The caller reaps the job: no node is armed.
pub(crate) unsafe fn clear(job: NonNull<JobCore>) {
    let clear_one = |at: NonNull<DepNode>| {
        // SAFETY: alive by the count that reaping holds.
        let cell = unsafe { at.as_ref() }.fence.get();
        // SAFETY: nobody else reads it any more.
        drop(unsafe { (*cell).take() });
    };
    // SAFETY: alive by the count that reaping holds; the caller is the only owner.
    if unsafe { JobCore::cells(job) }.flags.nodes {
        // SAFETY: as above.
        unsafe { each(job, 0, clear_one) };
    }
    // SAFETY: as above.
    let cell = unsafe { job.as_ref() }.own.get();
    // SAFETY: as above.
    drop(unsafe { (*cell).take() });
}

/// Calls `visit` for every fence the job depends on.
///
/// # Safety
/// The job has been committed and not reaped.
pub(crate) unsafe fn visit(job: NonNull<JobCore>, mut visit: impl FnMut(&Fence)) {
    // SAFETY: not changed between commit and reaping.
    if let Some(own) = unsafe { JobCore::own(job) } {
        visit(own);
    }
    let visit_one = |at: NonNull<DepNode>| {
        // SAFETY: as above.
        if let Some(fence) = unsafe { fence_in(at) } {
            visit(fence);
        }
    };
    // SAFETY: alive: it has not been reaped.
    unsafe { each(job, 0, visit_one) };
}

/// The root cause of a failed dependency in spite of which the job runs.
///
/// # Safety
/// The job is in its queue's order.
pub(crate) unsafe fn despite(job: NonNull<JobCore>) -> Option<Cause> {
    let mut cause = None;
    let look = |fence: &Fence| {
        if let Status::Signaled(Err(error)) = fence.status() {
            cause = cause.or(Some(error.cause()));
        }
    };
    // SAFETY: in the order: committed and not reaped.
    unsafe { visit(job, look) };
    cause
}

impl fmt::Debug for DepNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DepNode({:?})", self.node)
    }
}

impl fmt::Debug for MoreNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dep.fmt(f)
    }
}
