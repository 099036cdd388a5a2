//! A global allocator that counts what the whole process allocates while asked to. Off, it costs a load and a branch.
#![expect(unsafe_code, reason = "a global allocator passes the contract of `System` on")]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::alloc::System;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// See the module.
#[derive(Debug)]
pub struct Counting;

/// Allocations and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocated {
    /// How many; a reallocation is one.
    pub count: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// What all threads allocate while `work` runs.
pub fn during(work: impl FnOnce()) -> Allocated {
    let before = (ALLOCATIONS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    COUNTING.store(true, Ordering::SeqCst);
    work();
    COUNTING.store(false, Ordering::SeqCst);
    Allocated { count: ALLOCATIONS.load(Ordering::SeqCst) - before.0, bytes: BYTES.load(Ordering::SeqCst) - before.1 }
}

#[inline]
fn seen(bytes: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        seen(layout.size());
        // SAFETY: the caller's promise is `System`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        seen(layout.size());
        // SAFETY: the caller's promise is `System`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is `System`'s contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        seen(size);
        // SAFETY: the caller's promise is `System`'s contract.
        unsafe { System.realloc(at, layout, size) }
    }
}
