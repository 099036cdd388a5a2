//! The allocator: a first-fit free list over a static arena. Counts, and can fail the n-th allocation.
//!
//! # Layout
//! The arena is cut into units of 16 bytes. A free block starts with its [`Free`]; the free blocks are linked in the order of
//! their addresses, so that neighbours are merged when one is freed. A block in use has no header: its layout comes back with
//! it.
#![expect(unsafe_code, reason = "an allocator")]

use crate::interrupt;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const UNIT: usize = 16;
const ARENA_BYTES: usize = 1 << 20;

#[repr(C, align(16))]
struct Free {
    bytes: usize,
    next: Option<NonNull<Self>>,
}

#[repr(C, align(4096))]
struct Arena([u8; ARENA_BYTES]);

struct Heap {
    arena: UnsafeCell<Arena>,
    first: UnsafeCell<Option<NonNull<Free>>>,
    started: AtomicBool,
    locked: AtomicBool,
}

// SAFETY: both cells are touched under `locked` only.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap {
    arena: UnsafeCell::new(Arena([0; ARENA_BYTES])),
    first: UnsafeCell::new(None),
    started: AtomicBool::new(false),
    locked: AtomicBool::new(false),
};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static FAIL_IN: AtomicUsize = AtomicUsize::new(0);

/// Allocations so far, failed ones included.
pub(crate) fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes in use, rounded up to units.
pub(crate) fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// Makes the `n`-th allocation from now on fail, once (1: the next). 0 cancels. Whether an earlier call's is still to come.
pub(crate) fn fail_nth(n: usize) -> bool {
    FAIL_IN.swap(n, Ordering::Relaxed) != 0
}

/// Whether everything is free again, and in one piece: the list of free blocks is whole.
pub(crate) fn is_whole() -> bool {
    let _locked = HEAP.lock();
    // SAFETY: locked.
    let first = unsafe { *HEAP.first.get() };
    // SAFETY: a block in the list is free, starts with its `Free`, and the list is locked.
    first.is_some_and(|first| unsafe { first.as_ref() }.bytes == ARENA_BYTES)
}

/// The arena, taken with interrupts masked: a handler may free.
struct Locked<'a> {
    heap: &'a Heap,
    was_masked: bool,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.heap.locked.store(false, Ordering::Release);
        interrupt::unmask(self.was_masked);
    }
}

fn units(layout: Layout) -> usize {
    layout.size().max(1).next_multiple_of(UNIT)
}

impl Heap {
    fn lock(&self) -> Locked<'_> {
        let was_masked = interrupt::mask();
        while self.locked.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        if !self.started.swap(true, Ordering::Relaxed) {
            let whole = self.arena.get().cast::<Free>();
            // SAFETY: locked, and nothing of the arena has been given out: it is one free block.
            unsafe { whole.write(Free { bytes: ARENA_BYTES, next: None }) };
            // SAFETY: locked.
            unsafe { *self.first.get() = NonNull::new(whole) };
        }
        Locked { heap: self, was_masked }
    }

    /// A block of `bytes`, cut from the end of the first free one that is larger, or all of one that fits.
    fn take(&self, bytes: usize) -> *mut u8 {
        let mut link = self.first.get();
        // SAFETY: locked by the caller; `link` is the list's head or the field of a free block.
        while let Some(block) = unsafe { *link } {
            // SAFETY: a block in the list is free and starts with its `Free`, which nobody else touches while locked.
            let free = unsafe { &mut *block.as_ptr() };
            if free.bytes > bytes {
                free.bytes -= bytes;
                return block.as_ptr().cast::<u8>().wrapping_add(free.bytes);
            }
            if free.bytes == bytes {
                // SAFETY: as above.
                unsafe { *link = free.next };
                return block.as_ptr().cast();
            }
            link = &raw mut free.next;
        }
        ptr::null_mut()
    }

    /// Puts a block back between its neighbours and merges it with those it touches.
    fn give(&self, raw: *mut u8, bytes: usize) {
        let mut before: Option<NonNull<Free>> = None;
        // SAFETY: locked by the caller.
        let mut after = unsafe { *self.first.get() };
        while let Some(block) = after.filter(|block| block.addr().get() < raw.addr()) {
            before = Some(block);
            // SAFETY: in the list, and locked.
            after = unsafe { block.as_ref() }.next;
        }
        let mut this = Free { bytes, next: after };
        if let Some(touching) = after.filter(|block| block.addr().get() == raw.addr() + bytes) {
            // SAFETY: in the list, and locked.
            let other = unsafe { touching.as_ref() };
            this = Free { bytes: bytes + other.bytes, next: other.next };
        }
        let Some(mut before) = before else {
            let block = raw.cast::<Free>();
            // SAFETY: the block is free now, aligned to units and at least one long.
            unsafe { block.write(this) };
            // SAFETY: locked.
            unsafe { *self.first.get() = NonNull::new(block) };
            return;
        };
        // SAFETY: in the list, and locked.
        let before = unsafe { before.as_mut() };
        if ptr::from_ref(before).addr() + before.bytes == raw.addr() {
            before.bytes += this.bytes;
            before.next = this.next;
        } else {
            let block = raw.cast::<Free>();
            // SAFETY: as above.
            unsafe { block.write(this) };
            before.next = NonNull::new(block);
        }
    }
}

// SAFETY: blocks come from the arena, do not overlap while in use, and are aligned to 16; larger alignments are refused.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let left = FAIL_IN.load(Ordering::Relaxed);
        if left > 0 {
            FAIL_IN.store(left - 1, Ordering::Relaxed);
        }
        if left == 1 || layout.align() > UNIT {
            return ptr::null_mut();
        }
        let _locked = self.lock();
        let raw = self.take(units(layout));
        if !raw.is_null() {
            IN_USE.fetch_add(units(layout), Ordering::Relaxed);
        }
        raw
    }

    unsafe fn dealloc(&self, raw: *mut u8, layout: Layout) {
        let _locked = self.lock();
        // What was freed must not be read again: if it is, it is garbage.
        // SAFETY: the caller gives the whole block up.
        unsafe { raw.write_bytes(0xdd, units(layout)) };
        IN_USE.fetch_sub(units(layout), Ordering::Relaxed);
        self.give(raw, units(layout));
    }
}
