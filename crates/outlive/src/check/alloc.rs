//! `Alloc`: an allocator for test binaries that sees allocations inside signalling sections, counts what each thread
//! allocates, and can fail the n-th allocation of a thread.
#![expect(unsafe_code, reason = "a global allocator; docs/unsafe.md, `check::alloc`")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr;

/// Wraps the allocator `A`. Install it in a test binary:
///
/// ```
/// #[global_allocator]
/// static ALLOC: outlive::check::Alloc<std::alloc::System> = outlive::check::Alloc::new(std::alloc::System);
/// ```
#[derive(Debug)]
pub struct Alloc<A> {
    inner: A,
}

impl<A> Alloc<A> {
    /// A checked `inner`.
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }
}

/// What one thread has allocated so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocations {
    /// Successful allocations, reallocations included.
    pub allocated: u64,
    /// Frees, reallocations included.
    pub freed: u64,
    /// Bytes of all successful allocations.
    pub bytes: u64,
}

struct Counters {
    seen: Cell<Allocations>,
    /// Allocations until one fails; 0: none will.
    fail_in: Cell<u64>,
}

std::thread_local! {
    static COUNTERS: Counters = const {
        Counters { seen: Cell::new(Allocations { allocated: 0, freed: 0, bytes: 0 }), fail_in: Cell::new(0) }
    };
}

/// What this thread has allocated since it began, where [`Alloc`] is installed.
#[must_use]
pub fn allocations() -> Allocations {
    COUNTERS.with(|counters| counters.seen.get())
}

/// Makes this thread's `n`-th allocation from now on fail once (1: the next). 0 cancels. Returns how many were still to
/// come before the failure that an earlier call asked for: 0 when it has happened.
pub fn fail_nth_allocation(n: u64) -> u64 {
    COUNTERS.with(|counters| counters.fail_in.replace(n))
}

/// Counts; true when this allocation must fail. Never allocates, never unwinds.
fn fails_now() -> bool {
    COUNTERS
        .try_with(|counters| {
            let left = counters.fail_in.get();
            if left > 0 {
                counters.fail_in.set(left - 1);
            }
            left == 1
        })
        .unwrap_or(false)
}

fn count(bytes: usize) {
    let _ = COUNTERS.try_with(|counters| {
        let mut seen = counters.seen.get();
        seen.allocated += 1;
        seen.bytes += bytes as u64;
        counters.seen.set(seen);
    });
}

fn count_free() {
    let _ = COUNTERS.try_with(|counters| {
        let mut seen = counters.seen.get();
        seen.freed += 1;
        counters.seen.set(seen);
    });
}

// SAFETY: every call is passed on to `A` unchanged, or answered with null, which the contract of `alloc` allows.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Alloc<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        super::local::allocated(layout.size());
        if fails_now() {
            return ptr::null_mut();
        }
        count(layout.size());
        // SAFETY: the caller's promise is `A`'s contract.
        unsafe { self.inner.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        super::local::allocated(layout.size());
        if fails_now() {
            return ptr::null_mut();
        }
        count(layout.size());
        // SAFETY: the caller's promise is `A`'s contract.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, raw: *mut u8, layout: Layout) {
        count_free();
        // SAFETY: the caller's promise is `A`'s contract.
        unsafe { self.inner.dealloc(raw, layout) }
    }

    unsafe fn realloc(&self, raw: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        super::local::allocated(size);
        if fails_now() {
            return ptr::null_mut();
        }
        count(size);
        count_free();
        // SAFETY: the caller's promise is `A`'s contract.
        unsafe { self.inner.realloc(raw, layout, size) }
    }
}
