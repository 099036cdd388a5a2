//! `Completion`: the driver's promise to say when a job has left the hardware.
//!
//! Unique, and used up by being kept. What it touches of a job it has a count of; who decides, the completion or the
//! timeout, is one word in the job (`queue::disposal`).
#![expect(unsafe_code, reason = "a counted job; docs/unsafe.md, `queue::complete`")]

use super::dispatch;
use super::disposal::News;
use super::job::JobCore;
use crate::check;
use crate::fence::{FenceError, Slot};
use crate::sabotage::{self, Sabotage};
use crate::time::Time;
use crate::trace::FenceId;
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

/// The driver's promise to say when a job has left the hardware. One word: keep it in [`InFlight`](crate::InFlight), by the
/// number that the hardware will report.
///
/// Only three things retire a job: [`Completion::complete`], [`Completion::not_started`], or the device being quiesced
/// ([`ResetToken::quiesced`](crate::ResetToken::quiesced)). Dropped or leaked it breaks the promise: the job fails, at once or
/// when its timeout is over, and stays on the device's retire list until it is taken off by force.
#[must_use = "dropping it fails the job, and its memory stays taken until the device is reset"]
pub struct Completion {
    job: NonNull<JobCore>,
}

// SAFETY: the job is counted, and what a completion touches is atomic or under the queue's lock.
unsafe impl Send for Completion {}
// SAFETY: as above; `&Completion` reads only.
unsafe impl Sync for Completion {}

/// What the hardware measured, on the executor's clock. What is missing is taken from when the library was told; of a job
/// completed while its [`Driver::run`](crate::Driver::run) lasts, without any times, from when that has returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When it ended: the time stamp of its fences.
    pub end: Option<Time>,
    /// How long it occupied the hardware, time rotated off left out: what it is charged.
    pub active: Option<Duration>,
}

impl Completion {
    /// For a job about to be handed over, once: takes over the count of its block that is kept for this.
    pub(crate) const fn new(job: NonNull<JobCore>) -> Self {
        Self { job }
    }

    /// The job's `finished` fence, by number.
    #[must_use]
    pub fn id(&self) -> FenceId {
        JobCore::id(self.job)
    }

    /// The hardware is done with the job: it can no longer touch its memory. `Ok` is the only way to a `finished` with `Ok`.
    /// Any context, interrupts included; never blocks or allocates. Late, after a timeout or a close, it changes no verdict,
    /// but retires the job.
    pub fn complete(self, result: Result<(), FenceError>) {
        self.end(result, Times::default());
    }

    /// As [`Completion::complete`], with what the hardware measured.
    pub fn complete_timed(self, result: Result<(), FenceError>, times: Times) {
        self.end(result, times);
    }

    /// The doorbell was never rung: the hardware does not know of the job, which fails with `error`.
    pub fn not_started(self, error: FenceError) {
        self.end(Err(error), Times::default());
    }

    fn end(self, result: Result<(), FenceError>, times: Times) {
        let _section = check::signalling();
        let job = self.job;
        core::mem::forget(self);
        // SAFETY: counted by this completion.
        let disposal = &unsafe { job.as_ref() }.disposal;
        // Who handed the job over takes the queue's lock next in any case; but he would not know these times.
        let news = disposal.end(result, times == Times::default());
        if sabotage::is(Sabotage::SignalOutOfOrder) {
            // SAFETY: counted by this completion.
            let finished = unsafe { JobCore::lend(job, Slot::Finished) };
            // SAFETY: the job is not free yet, so its queue is reachable.
            let queue = unsafe { JobCore::queue(job) };
            finished.signal(result, queue.now(), queue.hub());
        }
        if news == News::Tell && !gone_early(job) {
            // SAFETY: who has the news to tell settles the job; until then it is not retired, so its queue is reachable.
            let queue = unsafe { JobCore::queue(job) }.clone();
            dispatch::settle(&queue, job, times.end, times.active);
        }
        // SAFETY: this completion's count.
        unsafe { JobCore::release(job) };
    }

    /// As a word for a ring or a firmware message.
    #[must_use = "turn it back with `from_cookie`, once"]
    pub fn into_cookie(self) -> u64 {
        let cookie = self.job.as_ptr().expose_provenance() as u64;
        core::mem::forget(self);
        cookie
    }

    /// Back from a word.
    ///
    /// # Safety
    /// `cookie` came from [`Completion::into_cookie`] in this process and is turned back once. A word that the
    /// hardware can write is no such word: look it up first, with [`InFlight`](crate::InFlight).
    pub unsafe fn from_cookie(cookie: u64) -> Self {
        let at = core::ptr::with_exposed_provenance_mut::<JobCore>(cookie as usize);
        // SAFETY: it came from a `NonNull`.
        Self { job: unsafe { NonNull::new_unchecked(at) } }
    }
}

/// Whether a defect has released `job` while the hardware had it: then the queue to be told is gone from it.
fn gone_early(job: NonNull<JobCore>) -> bool {
    // SAFETY: counted by the caller's completion.
    cfg!(feature = "sabotage") && unsafe { JobCore::is_reaped(job) }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let _section = check::signalling();
        // SAFETY: counted by this completion.
        let disposal = &unsafe { self.job.as_ref() }.disposal;
        if disposal.decide_owing(Err(FenceError::Canceled)) {
            // SAFETY: the news is owed, so the job is not retired and its queue is reachable.
            let queue = unsafe { JobCore::queue(self.job) }.clone();
            let state = queue.state.lock();
            disposal.pay();
            drop(queue.pass(state));
        }
        // SAFETY: this completion's count.
        unsafe { JobCore::release(self.job) };
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completion({})", self.id())
    }
}
