//! What a fence says: pending or signaled, with which result and when. Reads one or two atomics, in any context.

use super::error::FenceError;
use super::state::{DEADLINE, DONE, Fence, SIGNALED};
use crate::sync::atomic::Ordering;
use crate::time::Time;

/// What a fence says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not signaled.
    Pending,
    /// Signaled, with this result.
    Signaled(Result<(), FenceError>),
}

impl Fence {
    /// Whether it has signaled: one acquire load.
    #[inline]
    #[must_use]
    pub fn is_signaled(&self) -> bool {
        self.word() & SIGNALED != 0
    }

    /// Whether it has signaled and every registration has been acted on: waiters woken, dependants counted down, closures
    /// and wakers handed to the notify lane (which may not have run them yet).
    #[must_use]
    pub fn callbacks_done(&self) -> bool {
        self.word() & DONE != 0
    }

    /// Pending, or signaled with a result.
    #[must_use]
    pub fn status(&self) -> Status {
        let word = self.word();
        if word & SIGNALED == 0 { Status::Pending } else { Status::Signaled(FenceError::decode(word)) }
    }

    /// When it signaled, on its executor's clock (the hardware's time where the driver gave it); `None` while pending.
    #[must_use]
    pub fn timestamp(&self) -> Option<Time> {
        // ORDERING: stored before `SIGNALED`, which the line before read with Acquire.
        self.is_signaled().then(|| Time::from_ns(self.state().time.load(Ordering::Relaxed)))
    }

    /// The earliest deadline hint so far; `None` if there is none or it has signaled.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let time = self.state().time.load(Ordering::Relaxed);
        let hint = Time::from_ns(time & !DEADLINE);
        (time & DEADLINE != 0 && hint != Time::NEVER).then_some(hint)
    }
}
