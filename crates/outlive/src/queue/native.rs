//! Dependencies that the hardware waits for, not the library: its driver says so, or it executes in order.
//!
//! # States of such a node
//! ```text
//! handed over ahead (a driver's word), or on `scheduled` (pipelined) ──▶ idle
//!   at the start: its fence has failed: the job fails, or the node waits for `retired` ──▶ idle
//!   at the end: its fence is pending: the job was told of first, and its `finished` waits for that of the other ──▶ idle
//! ```
//! So nothing is handed over behind a job that has failed; and a job behind one that fails later reports it, in whatever order
//! their ends are told. Its `finished` waits for jobs only that were handed over before it: no circle, and finite as they are.
#![expect(unsafe_code, reason = "nodes inside a block; docs/unsafe.md, `queue::native`")]

use super::config::OnError;
use super::deps::{self, DepNode};
use super::job::JobCore;
use crate::exec::node::Place;
use crate::fence::{Fence, FenceError, Status};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use core::ptr::NonNull;

/// Whether a verdict gives way to the error of a job ahead: this one went well, or was lost with it.
pub(super) const fn counts(verdict: Result<(), FenceError>) -> bool {
    matches!(verdict, Ok(()) | Err(FenceError::Innocent))
}

/// Hangs a node of `job` on `on`; false: it has signaled.
///
/// # Safety
/// As for [`deps::hang`].
unsafe fn wait_for(at: NonNull<DepNode>, job: NonNull<JobCore>, on: &Fence, place: Place) -> bool {
    // SAFETY: passed on.
    let waits = unsafe { deps::hang(at, job, on, place) };
    if !waits {
        deps::count_down(job, false);
        // SAFETY: the count that `hang` took.
        unsafe { JobCore::release(job) };
    }
    waits
}

/// Before `job` is handed over: the error of one ahead that has failed already, which fails it; or for how many such it
/// waits until they have retired.
///
/// # Safety
/// The job waits in its queue's order for nothing else, and the queue's lock is held.
pub(super) unsafe fn before_start(job: NonNull<JobCore>) -> Result<u32, FenceError> {
    let (mut failed, mut waiting) = (None, 0);
    let look = |at: NonNull<DepNode>| {
        // SAFETY: in the order: not changed until reaping.
        let Some(fence) = (unsafe { deps::fence_in(at) }) else { return };
        let Status::Signaled(Err(error)) = fence.status() else { return };
        if sabotage::is(Sabotage::GoBehindError) {
            return;
        }
        // SAFETY: alive with its job.
        if unsafe { at.as_ref() }.on_error() == OnError::Fail {
            failed = failed.or(Some(error));
        } else if let Some(retired) = deps::held_behind(fence) {
            // SAFETY: nothing else is waited for, so the node is idle; under the lock.
            waiting += u32::from(!retired.is_signaled() && unsafe { wait_for(at, job, &retired, Place::Sibling) });
        }
    };
    // SAFETY: alive: in the order.
    unsafe { deps::each(job, 0, look) };
    failed.map_or(Ok(waiting), Err)
}

/// Before `finished` of `job` signals: whether it has to wait for a job ahead, whose end was not told yet.
///
/// # Safety
/// The job was handed over and is in its queue's order, and the queue's lock is held.
pub(super) unsafe fn before_end(job: NonNull<JobCore>) -> bool {
    // SAFETY: in the order.
    let core = unsafe { job.as_ref() };
    let look = |at: NonNull<DepNode>| {
        // SAFETY: in the order: not changed until reaping.
        let Some(fence) = (unsafe { deps::fence_in(at) }).filter(|fence| fence.is_jobs() && !fence.is_signaled())
        else {
            return;
        };
        // SAFETY: handed over, so the node is idle; under the lock.
        unsafe { wait_for(at, job, fence, Place::Fence) };
    };
    // ORDERING: as in `deps::count_down`.
    if core.waiting.load(Ordering::Acquire) == 0 {
        // SAFETY: alive: in the order.
        unsafe { deps::each(job, 0, look) };
    }
    core.waiting.load(Ordering::Acquire) > 0
}

/// The error of the first job ahead that failed, if that fails this one.
///
/// # Safety
/// The job is in its queue's order, and was handed over.
pub(super) unsafe fn error(job: NonNull<JobCore>) -> Option<FenceError> {
    // SAFETY: not changed between commit and reaping.
    if let Some(Status::Signaled(Err(error))) = unsafe { JobCore::own(job) }.map(Fence::status) {
        // SAFETY: in the order; the flag does not change after the reservation.
        if unsafe { JobCore::cells(job) }.flags.own_fails {
            return Some(error);
        }
    }
    let mut found = None;
    let look = |at: NonNull<DepNode>| {
        // SAFETY: alive: its job is in the queue's order.
        let node = unsafe { at.as_ref() };
        // SAFETY: not changed between commit and reaping.
        match unsafe { deps::fence_in(at) }.map(Fence::status) {
            Some(Status::Signaled(Err(error))) if node.on_error() == OnError::Fail => found = found.or(Some(error)),
            _ => {}
        }
    };
    // SAFETY: alive: it is in the queue's order.
    unsafe { deps::each(job, 0, look) };
    found
}
