//! What the core asks of the machine: a lock that masks interrupts, the number of the context, and nobody to wait for.
#![expect(unsafe_code, reason = "an implementation of `Platform`")]

use crate::interrupt;
use crate::machine::{exit, say};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use outlive::sync::{Platform, RawLock};

/// One processor, with interrupts.
#[derive(Debug)]
pub(crate) struct Machine;

const UNLOCKED: usize = 0;
const LOCKED: usize = 1;
/// The flags word is whether interrupts were masked, in a frame that shows that it comes back whole.
const FLAGS: usize = 0x5a5a_0000;
const CONTEXT: usize = 7;
const INTERRUPT: usize = 8;

/// How often the core unparked somebody, took a lock, and how many it holds.
pub(crate) static UNPARKED: AtomicUsize = AtomicUsize::new(0);
pub(crate) static LOCKS: AtomicUsize = AtomicUsize::new(0);
pub(crate) static HELD: AtomicUsize = AtomicUsize::new(0);

/// A clock that advances by a microsecond whenever it is read.
pub(crate) fn ticks() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    TICKS.fetch_add(1000, Ordering::Relaxed)
}

// SAFETY: the swap is Acquire and the store Release, and interrupts are masked in between; one processor, so a lock that is
// held would never be given back and the program ends instead; the contexts' numbers are not zero and differ.
unsafe impl Platform for Machine {
    fn lock(raw: &RawLock, class: &'static str) -> usize {
        let was_masked = interrupt::mask();
        if raw.word.swap(LOCKED, Ordering::Acquire) != UNLOCKED {
            say!("FAILED: {class}: taken while it is held, on a machine with one processor");
            exit(1);
        }
        LOCKS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(1, Ordering::Relaxed);
        FLAGS | usize::from(was_masked)
    }

    fn unlock(raw: &RawLock, flags: usize) {
        if flags & !1 != FLAGS || raw.word.swap(UNLOCKED, Ordering::Release) != LOCKED {
            say!("FAILED: an unlock that matches no lock");
            exit(1);
        }
        HELD.fetch_sub(1, Ordering::Relaxed);
        interrupt::unmask(flags & 1 != 0);
    }

    fn context() -> usize {
        if interrupt::is_serving() { INTERRUPT } else { CONTEXT }
    }

    fn park(ns: u64) {
        say!("FAILED: parked for {ns} ns, where nobody could wake it");
        exit(1);
    }

    fn unpark(context: usize) {
        UNPARKED.fetch_add(usize::from(context == CONTEXT), Ordering::Relaxed);
    }

    fn now_ns() -> u64 {
        ticks()
    }
}

outlive::platform!(Machine);
