//! Back end for exhaustive exploration: loom's atomics, mutex and condition variable.

use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;
use std::sync::{Arc, PoisonError};

use crate::time::Time;

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

#[derive(Debug)]
pub(crate) struct RawMutex<T>(Mutex<T>);

pub(crate) type RawGuard<'a, T> = MutexGuard<'a, T>;

impl<T> RawMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self, _class: &'static str) -> RawGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not loom's own parker: there, waking a thread that waits for a mutex makes it run without the mutex.
#[derive(Clone)]
pub(crate) struct ParkToken(Arc<Parker>);

struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl core::fmt::Debug for ParkToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ParkToken")
    }
}

pub(crate) fn park_token() -> ParkToken {
    loom::thread_local! {
        static PARKER: ParkToken =
            ParkToken(Arc::new(Parker { woken: Mutex::new(false), changed: Condvar::new() }));
    }
    PARKER.with(ParkToken::clone)
}

pub(crate) fn unpark(token: &ParkToken) {
    *token.0.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
    token.0.changed.notify_one();
}

pub(crate) fn park() {
    let ParkToken(parker) = park_token();
    let mut woken = parker.woken.lock().unwrap_or_else(PoisonError::into_inner);
    while !core::mem::take(&mut *woken) {
        woken = parker.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Loom has no time: a deadline is a wake-up that may come at once.
pub(crate) fn park_until(_now: Time, until: Time) {
    if until == Time::NEVER { park() } else { thread::yield_now() }
}

pub(crate) fn context_id() -> usize {
    loom::thread_local! {
        static MARK: std::boxed::Box<u8> = std::boxed::Box::new(0);
    }
    MARK.with(|mark| core::ptr::from_ref::<u8>(mark).addr())
}

/// No time passes in an exploration.
pub(crate) fn now_ns() -> u64 {
    1
}
