//! A fake device: jobs stay on the hardware until the test says that they ended.

use crate::check;
use crate::platform::HELD;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use outlive::{AllocError, Completion, Driver, FenceError, InFlight, JobCx, ResetScope, ResetToken, Verdict};

/// Payloads dropped, and drivers dropped, so far.
pub(crate) static PAYLOADS_DROPPED: AtomicU32 = AtomicU32::new(0);
pub(crate) static DRIVERS_DROPPED: AtomicU32 = AtomicU32::new(0);

/// A payload: a number, and a count of those dropped.
#[derive(Debug)]
pub(crate) struct Payload(pub(crate) u64);

impl Drop for Payload {
    fn drop(&mut self) {
        check!(HELD.load(Ordering::Relaxed) == 0);
        PAYLOADS_DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The device. Its sequence numbers start at 1.
#[derive(Debug)]
pub(crate) struct Fake {
    in_flight: InFlight,
    rung: AtomicU64,
    last_payload: AtomicU64,
    resets: AtomicU32,
}

impl Fake {
    pub(crate) fn new() -> Result<Self, AllocError> {
        Ok(Self {
            in_flight: InFlight::with_capacity(16)?,
            rung: AtomicU64::new(0),
            last_payload: AtomicU64::new(0),
            resets: AtomicU32::new(0),
        })
    }

    /// The number of the job last started.
    pub(crate) fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }

    /// The payload of the job last started.
    pub(crate) fn last_payload(&self) -> u64 {
        self.last_payload.load(Ordering::Relaxed)
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// The interrupt handler. False if no such job is on the hardware.
    pub(crate) fn interrupt(&self, seqno: u64, result: Result<(), FenceError>) -> bool {
        self.in_flight.complete(seqno, result)
    }

    /// The interrupt handler of hardware that says how far it has come: to the end.
    pub(crate) fn interrupt_all(&self) -> usize {
        self.in_flight.complete_through(self.rung())
    }
}

impl Driver for Fake {
    type Job = Payload;
    type Queue = u32;

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        check!(HELD.load(Ordering::Relaxed) == 0);
        *cx.queue += 1;
        let seqno = self.rung.fetch_add(1, Ordering::Relaxed) + 1;
        self.last_payload.store(cx.job.0, Ordering::Relaxed);
        if let Err(full) = self.in_flight.insert(seqno, done) {
            full.completion.not_started(FenceError::Faulted { code: 1 });
        }
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        check!(HELD.load(Ordering::Relaxed) == 0);
        Verdict::Reset(ResetScope::Queue(cx.info().queue))
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        check!(HELD.load(Ordering::Relaxed) == 0);
        self.resets.fetch_add(1, Ordering::Relaxed);
        token.quiesced();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        check!(HELD.load(Ordering::Relaxed) == 0);
        check!(self.in_flight.is_empty());
        DRIVERS_DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}
