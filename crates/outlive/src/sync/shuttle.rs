//! Back end for randomised exploration of whole protocols: shuttle's atomics, mutex and threads.

use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread::{self, Thread};

use crate::time::Time;

pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{
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
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

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

/// Shuttle has no time: a deadline is a wake-up that may come at once.
pub(crate) fn park_until(_now: Time, until: Time) {
    if until == Time::NEVER { thread::park() } else { thread::yield_now() }
}

pub(crate) fn context_id() -> usize {
    let id: usize = thread::current().id().into();
    id + 1
}

std::thread_local! {
    /// The executors' threads of the execution that runs on this thread of the system, to be joined at its end.
    static SPAWNED: core::cell::RefCell<std::vec::Vec<thread::JoinHandle<()>>> =
        const { core::cell::RefCell::new(std::vec::Vec::new()) };
}

pub(crate) fn spawn(_name: &'static str, body: impl FnOnce() + Send + 'static) -> bool {
    let handle = thread::spawn(body);
    SPAWNED.with_borrow_mut(|spawned| spawned.push(handle));
    true
}

/// Waits until every thread that an executor started has ended; a deadlock if one does not.
#[cfg(test)]
pub(crate) fn join_spawned() {
    while let Some(handle) = SPAWNED.with_borrow_mut(std::vec::Vec::pop) {
        handle.join().unwrap();
    }
}

/// Forgets the threads of an execution that failed.
#[cfg(test)]
pub(crate) fn forget_spawned() {
    SPAWNED.with_borrow_mut(std::vec::Vec::clear);
}

/// No time passes in an exploration.
pub(crate) fn now_ns() -> u64 {
    1
}
