//! The calls of a queue's driver, without its type: made for a driver when its queue is made, called through what all queues
//! have in common.
//!
//! A call gets the ring by the queue's token, and a payload by the mark `busy` on its job: see `queue::dispatch`. No lock is
//! held in it.
#![expect(unsafe_code, reason = "erased drivers; docs/unsafe.md, `queue::ops`")]

use super::complete::Completion;
use super::job::JobCore;
use super::long::{Off, PreemptToken};
use super::shared::{QueueInner, QueueShared};
use crate::device::driver::{Acquired, Driver, JobCx, JobInfo, Verdict};
use crate::fence::Fence;
use core::ptr::NonNull;

/// The driver's calls, for jobs and rings of its own types. Each is called with the token (hence the ring) and, where it gets
/// a job, with that job marked busy (hence the payload).
pub(crate) struct Ops {
    pub(crate) resources: bool,
    pub(crate) acquire: unsafe fn(&QueueShared, NonNull<JobCore>, JobInfo) -> Acquired,
    pub(crate) run: unsafe fn(&QueueShared, NonNull<JobCore>, JobInfo, Completion),
    pub(crate) release: unsafe fn(&QueueShared, NonNull<JobCore>),
    pub(crate) timed_out: unsafe fn(&QueueShared, NonNull<JobCore>, JobInfo) -> Verdict,
    pub(crate) cancel: unsafe fn(&QueueShared, NonNull<JobCore>, JobInfo),
    pub(crate) preempt: unsafe fn(&QueueShared, PreemptToken),
    pub(crate) restore: unsafe fn(&QueueShared),
    pub(crate) resume: unsafe fn(&QueueShared, Off),
    pub(super) waits_natively: unsafe fn(&QueueShared, &Fence) -> bool,
}

impl Ops {
    /// The calls of `D`, for a queue of it.
    pub(super) fn of<D: Driver>() -> Self {
        Self {
            resources: D::RESOURCES,
            acquire: acquire::<D>,
            run: run::<D>,
            release: release::<D>,
            timed_out: timed_out::<D>,
            cancel: cancel::<D>,
            preempt: preempt::<D>,
            restore: restore::<D>,
            resume: resume::<D>,
            waits_natively: waits_natively::<D>,
        }
    }
}

/// The whole queue behind its shared part.
unsafe fn inner<D: Driver>(queue: &QueueShared) -> &QueueInner<D> {
    // SAFETY: the ops of a queue were made for its own `D`, and the shared part is its first field.
    unsafe { NonNull::from(queue).cast::<QueueInner<D>>().as_ref() }
}

/// Ring and payload for a call about `job`.
unsafe fn context<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>, info: JobInfo) -> JobCx<'_, D> {
    // SAFETY: as above.
    let ring = unsafe { inner::<D>(queue) }.ring.get();
    let payload = JobCore::payload::<D::Job>(job).as_ptr();
    // SAFETY: the token makes the ring this call's.
    let queue = unsafe { &mut *ring };
    // SAFETY: busy, so it is in the order.
    let despite = unsafe { super::deps::despite(job) };
    // SAFETY: `busy` makes the payload this call's.
    let payload = unsafe { &mut *payload };
    JobCx { queue, job: payload, info, despite }
}

unsafe fn acquire<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>, info: JobInfo) -> Acquired {
    // SAFETY: called with token and mark, on the queue these ops were made for.
    let mut cx = unsafe { context::<D>(queue, job, info) };
    // SAFETY: as above.
    unsafe { inner::<D>(queue) }.device.driver.acquire(&mut cx)
}

unsafe fn run<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>, info: JobInfo, done: Completion) {
    // SAFETY: called with token and mark, on the queue these ops were made for.
    let mut cx = unsafe { context::<D>(queue, job, info) };
    // SAFETY: as above.
    unsafe { inner::<D>(queue) }.device.driver.run(&mut cx, done);
}

unsafe fn release<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>) {
    // SAFETY: `busy` makes the payload this call's.
    let payload = unsafe { JobCore::payload::<D::Job>(job).as_mut() };
    // SAFETY: called on the queue these ops were made for.
    unsafe { inner::<D>(queue) }.device.driver.release(payload);
}

unsafe fn timed_out<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>, info: JobInfo) -> Verdict {
    // SAFETY: called with token and mark, on the queue these ops were made for.
    let mut cx = unsafe { context::<D>(queue, job, info) };
    // SAFETY: as above.
    unsafe { inner::<D>(queue) }.device.driver.timed_out(&mut cx)
}

unsafe fn cancel<D: Driver>(queue: &QueueShared, job: NonNull<JobCore>, info: JobInfo) {
    // SAFETY: called with token and mark, on the queue these ops were made for.
    let mut cx = unsafe { context::<D>(queue, job, info) };
    // SAFETY: as above.
    unsafe { inner::<D>(queue) }.device.driver.cancel(&mut cx);
}

unsafe fn preempt<D: Driver>(queue: &QueueShared, token: PreemptToken) {
    // SAFETY: called on the queue these ops were made for.
    let inner = unsafe { inner::<D>(queue) };
    // SAFETY: the token makes the ring this call's.
    inner.device.driver.preempt(queue.id(), unsafe { &mut *inner.ring.get() }, token);
}

unsafe fn restore<D: Driver>(queue: &QueueShared) {
    // SAFETY: called on the queue these ops were made for.
    let inner = unsafe { inner::<D>(queue) };
    // SAFETY: the token makes the ring this call's.
    inner.device.driver.restore(queue.id(), unsafe { &mut *inner.ring.get() });
}

unsafe fn resume<D: Driver>(queue: &QueueShared, off: Off) {
    // SAFETY: called on the queue these ops were made for.
    unsafe { inner::<D>(queue) }.device.driver.resume(off);
}

unsafe fn waits_natively<D: Driver>(queue: &QueueShared, fence: &Fence) -> bool {
    // SAFETY: called on the queue these ops were made for.
    unsafe { inner::<D>(queue) }.device.driver.waits_natively(fence)
}
