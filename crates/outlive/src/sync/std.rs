//! Back end over `std`: its atomics, its futex mutex, its thread parking.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use crate::time::Time;

pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

#[derive(Debug)]
pub(crate) struct RawMutex<T>(Mutex<T>);

pub(crate) type RawGuard<'a, T> = MutexGuard<'a, T>;

impl<T> RawMutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self, _class: &'static str) -> RawGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sleeping thread, to be woken from anywhere.
#[derive(Debug, Clone)]
pub(crate) struct ParkToken(Thread);

pub(crate) fn park_token() -> ParkToken {
    ParkToken(thread::current())
}

pub(crate) fn unpark(token: &ParkToken) {
    token.0.unpark();
}

pub(crate) fn park() {
    thread::park();
}

/// Sleeps until woken or, at the latest, `until` on a clock that now reads `now`.
pub(crate) fn park_until(now: Time, until: Time) {
    thread::park_timeout(until.since(now));
}

/// A number that is this thread's alone while it lives.
pub(crate) fn context_id() -> usize {
    std::thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| core::ptr::from_ref(mark).addr())
}

/// Starts a thread called `name`; false when the system has none to give.
pub(crate) fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> bool {
    thread::Builder::new().name(name.into()).spawn(body).is_ok()
}

/// Monotonic nanoseconds, from an origin of the process. Only for the timeouts of blocking waits.
pub(crate) fn now_ns() -> u64 {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "blocking waits are real, whatever clock an executor has")]
    let origin = *ORIGIN.get_or_init(std::time::Instant::now);
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
