//! What the core asks of the machine: a spin lock, one context, and nobody to wait for.
#![expect(unsafe_code, reason = "an implementation of `Platform`")]

use crate::machine::{exit, say};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use outlive::sync::{Platform, RawLock};

/// One processor without interrupts.
#[derive(Debug)]
pub(crate) struct Machine;

const UNLOCKED: usize = 0;
const LOCKED: usize = 1;
/// The flags word of a real machine is its interrupt state; here it only shows that it comes back.
const FLAGS: usize = 0x5a5a;
const CONTEXT: usize = 7;

/// How often the core unparked somebody, took a lock, and how many it holds.
pub(crate) static UNPARKED: AtomicUsize = AtomicUsize::new(0);
pub(crate) static LOCKS: AtomicUsize = AtomicUsize::new(0);
pub(crate) static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the swap is Acquire and the store Release; one context, so a lock that is held will never be given back and the
// program ends instead; the context's number is not zero.
unsafe impl Platform for Machine {
    fn lock(raw: &RawLock, class: &'static str) -> usize {
        if raw.word.swap(LOCKED, Ordering::Acquire) != UNLOCKED {
            say!("FAILED: {class}: taken while it is held, on a machine with one context");
            exit(1);
        }
        LOCKS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(1, Ordering::Relaxed);
        FLAGS
    }

    fn unlock(raw: &RawLock, flags: usize) {
        if flags != FLAGS || raw.word.swap(UNLOCKED, Ordering::Release) != LOCKED {
            say!("FAILED: an unlock that matches no lock");
            exit(1);
        }
        HELD.fetch_sub(1, Ordering::Relaxed);
    }

    fn context() -> usize {
        CONTEXT
    }

    fn park(ns: u64) {
        say!("FAILED: parked for {ns} ns, where nobody could wake it");
        exit(1);
    }

    fn unpark(context: usize) {
        UNPARKED.fetch_add(usize::from(context == CONTEXT), Ordering::Relaxed);
    }

    fn now_ns() -> u64 {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        TICKS.fetch_add(1000, Ordering::Relaxed)
    }
}

outlive::platform!(Machine);
