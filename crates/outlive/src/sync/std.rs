//! Back end over `std`: its atomics, its futex mutex, its thread parking.

use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use crate::time::Time;

pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
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

/// A number that is this thread's alone, also after its end: whoever remembers it must not take another thread for it. (On a
/// 32-bit machine they come round after 2^32 threads.)
pub(crate) fn context_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    std::thread_local! {
        static OWN: Cell<usize> = const { Cell::new(0) };
    }
    // No destructor, so it can be read as long as the thread runs.
    OWN.with(|own| {
        if own.get() == 0 {
            // ORDERING: only told apart.
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        own.get()
    })
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
