//! Back end of an embedder without `std`: a raw lock, parking and the id of the current context, bound at link time by
//! `outlive::platform!`, since a machine has one answer to each.
#![expect(unsafe_code, reason = "link-time hooks; docs/unsafe.md, `sync::hooks`")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicUsize;

use crate::time::Time;

pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// The embedder's lock word. All zero is unlocked; it is never moved once it was locked for the first time.
#[derive(Debug)]
#[repr(transparent)]
pub struct RawLock {
    /// The embedder's to use.
    pub word: AtomicUsize,
}

/// What the machine below offers. Bind an implementation with `outlive::platform!`.
///
/// # Safety
/// 1. `lock` returns only when no other context holds `raw`, excluding interrupts of this processor that may take the
///    same lock, and synchronises with the `unlock` before it (Acquire, Release).
/// 2. `unlock` gets what `lock` returned.
/// 3. `context` is never zero and differs between contexts that run at the same time.
pub unsafe trait Platform {
    /// Takes `raw`, whose class is called `class`; the flags word goes to [`Platform::unlock`].
    fn lock(raw: &RawLock, class: &'static str) -> usize;
    /// Gives `raw` back.
    fn unlock(raw: &RawLock, flags: usize);
    /// The running context (thread, or processor in an interrupt).
    fn context() -> usize;
    /// Sleeps until [`Platform::unpark`] of this context (also one that came before), or about `ns` nanoseconds
    /// (`u64::MAX`: no limit). May return early. Never called while signalling.
    fn park(ns: u64);
    /// Wakes `context` if it sleeps in `park`, else its next `park` returns at once. Any context, interrupts included.
    fn unpark(context: usize);
    /// Monotonic nanoseconds. Read for the timeouts of blocking waits; executors have clocks of their own.
    fn now_ns() -> u64;
}

/// Binds a [`Platform`](crate::sync::Platform) at link time; once per program, without `std`.
#[macro_export]
macro_rules! platform {
    ($platform:ty) => {
        const _: () = {
            type P = $platform;
            #[unsafe(no_mangle)]
            fn __outlive_lock(raw: &$crate::sync::RawLock, class: &'static str) -> usize {
                <P as $crate::sync::Platform>::lock(raw, class)
            }
            #[unsafe(no_mangle)]
            fn __outlive_unlock(raw: &$crate::sync::RawLock, flags: usize) {
                <P as $crate::sync::Platform>::unlock(raw, flags)
            }
            #[unsafe(no_mangle)]
            fn __outlive_context() -> usize {
                <P as $crate::sync::Platform>::context()
            }
            #[unsafe(no_mangle)]
            fn __outlive_park(ns: u64) {
                <P as $crate::sync::Platform>::park(ns)
            }
            #[unsafe(no_mangle)]
            fn __outlive_unpark(context: usize) {
                <P as $crate::sync::Platform>::unpark(context)
            }
            #[unsafe(no_mangle)]
            fn __outlive_now_ns() -> u64 {
                <P as $crate::sync::Platform>::now_ns()
            }
        };
    };
}

// `platform!` defines these with exactly these types; a program without it does not link.
unsafe extern "Rust" {
    safe fn __outlive_lock(raw: &RawLock, class: &'static str) -> usize;
    safe fn __outlive_unlock(raw: &RawLock, flags: usize);
    safe fn __outlive_context() -> usize;
    safe fn __outlive_park(ns: u64);
    safe fn __outlive_unpark(context: usize);
    safe fn __outlive_now_ns() -> u64;
}

pub(crate) struct RawMutex<T> {
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one context at a time access to the value.
unsafe impl<T: Send> Sync for RawMutex<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: Send> Send for RawMutex<T> {}

impl<T> RawMutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { raw: RawLock { word: AtomicUsize::new(0) }, value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self, class: &'static str) -> RawGuard<'_, T> {
        RawGuard { flags: __outlive_lock(&self.raw, class), mutex: self }
    }
}

pub(crate) struct RawGuard<'a, T> {
    mutex: &'a RawMutex<T>,
    flags: usize,
}

impl<T> Deref for RawGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held, duty 1 of `Platform`.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for RawGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, duty 1 of `Platform`.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for RawGuard<'_, T> {
    fn drop(&mut self) {
        __outlive_unlock(&self.mutex.raw, self.flags);
    }
}

impl<T> fmt::Debug for RawMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawMutex")
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ParkToken(usize);

pub(crate) fn park_token() -> ParkToken {
    ParkToken(__outlive_context())
}

pub(crate) fn unpark(token: &ParkToken) {
    __outlive_unpark(token.0);
}

pub(crate) fn park() {
    __outlive_park(u64::MAX);
}

pub(crate) fn park_until(now: Time, until: Time) {
    __outlive_park(u64::try_from(until.since(now).as_nanos()).unwrap_or(u64::MAX));
}

pub(crate) fn context_id() -> usize {
    __outlive_context()
}

pub(crate) fn now_ns() -> u64 {
    __outlive_now_ns()
}
