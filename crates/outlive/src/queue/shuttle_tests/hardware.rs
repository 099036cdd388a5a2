//! The hardware, its driver, and payloads: what is given to them may end in any way, at any time.

use super::{locked, ms, pick, take_any};
use crate::fence::Slot;
use crate::{
    Acquired, Completion, Driver, Fence, FenceError, JobCx, ResetScope, ResetToken, Signaler, Status, Verdict,
};
use shuttle::sync::Mutex;
use shuttle::thread;
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::vec::Vec;

/// The hardware, its driver's notes, and what the actors share. Keeps no handle on the library.
#[derive(Default)]
pub(super) struct Hardware {
    pub(super) held: Mutex<Vec<Completion>>,
    pub(super) tokens: Mutex<Vec<ResetToken>>,
    pub(super) resources: Mutex<Vec<Fence>>,
    pub(super) signalers: Mutex<Vec<Signaler>>,
    pub(super) made: AtomicUsize,
    pub(super) dropped: AtomicUsize,
    pub(super) drivers: AtomicUsize,
    pub(super) taken: AtomicUsize,
    /// The actors have ended.
    pub(super) ended: AtomicBool,
    /// The executor's threads have ended too.
    pub(super) off: AtomicBool,
}

impl Hardware {
    /// Ends something that is on the hardware, or answers a reset; what it is, chance says.
    pub(super) fn work(&self) {
        if pick(2) == 0 {
            if let Some(token) = take_any(&self.tokens) {
                // DMA has stopped, whatever the token's holder says next.
                match pick(4) {
                    0 => drop(token),
                    _ => token.quiesced(),
                }
            }
        }
        if pick(4) == 0 {
            drop(take_any(&self.signalers));
        }
        let Some(done) = take_any(&self.held) else { return };
        match pick(8) {
            0 => drop(done),
            1 => done.complete(Err(FenceError::Faulted { code: 7 })),
            2 => locked(&self.held).push(done),
            _ => done.complete(Ok(())),
        }
    }
}

/// What becomes of a job on the hardware.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Ends inside `run`.
    Inline,
    /// Ends when the hardware gets to it.
    Later,
    /// Its completion is dropped in `run`.
    Dropped,
    /// The doorbell is not rung.
    NotStarted,
}

pub(super) type Deed = Box<dyn FnOnce() + Send>;

pub(super) struct Payload {
    hardware: Arc<Hardware>,
    fate: Fate,
    /// Done, or what it owns dropped, where the payload is dropped.
    last: Option<Deed>,
    acquired: bool,
    /// What it depends on.
    pub(super) after: Vec<Fence>,
}

impl Payload {
    pub(super) fn new(hardware: &Arc<Hardware>, last: Option<Deed>) -> Self {
        hardware.made.fetch_add(1, Ordering::SeqCst);
        let fate = match pick(8) {
            0 | 1 => Fate::Inline,
            2 => Fate::Dropped,
            3 => Fate::NotStarted,
            _ => Fate::Later,
        };
        Self { hardware: hardware.clone(), fate, last, acquired: false, after: Vec::new() }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        assert!(!self.acquired, "dropped with what `acquire` took");
        assert_eq!(self.hardware.drivers.load(Ordering::SeqCst), 0, "a payload outlived its driver");
        self.hardware.dropped.fetch_add(1, Ordering::SeqCst);
        if let Some(last) = self.last.take() {
            last();
        }
    }
}

pub(super) struct Gpu {
    pub(super) hardware: Arc<Hardware>,
}

/// Ring state: says whether two calls overlap.
#[derive(Default)]
pub(super) struct Ring {
    inside: AtomicBool,
}

impl Ring {
    /// A driver call that others may try to overlap with.
    fn enter(&self) {
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two calls for one queue overlap");
        thread::yield_now();
        self.inside.store(false, Ordering::SeqCst);
    }
}

impl Driver for Gpu {
    type Job = Payload;
    type Queue = Ring;
    const RESOURCES: bool = true;

    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        cx.queue.enter();
        if let Some(fence) = locked(&self.hardware.resources).pop() {
            return Acquired::Wait(fence);
        }
        if pick(16) == 0 {
            return Acquired::Never(3);
        }
        assert!(!cx.job.acquired);
        cx.job.acquired = true;
        self.hardware.taken.fetch_add(1, Ordering::SeqCst);
        Acquired::Yes
    }

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        cx.queue.enter();
        for fence in &cx.job.after {
            // One of its own queue that never started says so in its turn, and who runs in spite of errors need not wait for that.
            if fence.slot() == Slot::First && fence.context() == cx.info().queue {
                continue;
            }
            // Ended; or before it on the hardware.
            let ahead = || fence.sibling(Slot::First).status() == Status::Signaled(Ok(()));
            assert!(fence.is_signaled() || (fence.slot() == Slot::Finished && ahead()), "too early");
        }
        match cx.job.fate {
            Fate::Inline => done.complete(Ok(())),
            Fate::Later => locked(&self.hardware.held).push(done),
            Fate::Dropped => drop(done),
            Fate::NotStarted => done.not_started(FenceError::Faulted { code: 1 }),
        }
    }

    fn release(&self, job: &mut Payload) {
        assert!(job.acquired);
        job.acquired = false;
        self.hardware.taken.fetch_sub(1, Ordering::SeqCst);
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        cx.queue.enter();
        match pick(6) {
            0 => Verdict::KeepWaiting(ms(1)),
            1 => Verdict::Reset(ResetScope::Device),
            2 => Verdict::Reset(ResetScope::Queue(cx.info().queue)),
            _ => Verdict::Fail,
        }
    }

    fn cancel(&self, cx: &mut JobCx<'_, Self>) {
        cx.queue.enter();
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        self.answer(token);
    }

    fn unplug(&self, token: ResetToken) {
        // The last step: if it failed, payloads would stay for ever.
        token.quiesced();
    }
}

impl Gpu {
    fn answer(&self, token: ResetToken) {
        match pick(4) {
            0 => locked(&self.hardware.tokens).push(token),
            1 => token.failed(),
            _ => token.quiesced(),
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.hardware.drivers.fetch_add(1, Ordering::SeqCst);
    }
}
