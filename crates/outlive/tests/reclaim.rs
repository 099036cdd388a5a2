//! An allocator that frees memory by waiting for a job to retire, and a driver whose interrupt handler allocates: together
//! they deadlock, until the job's timeout. The checks see it in one thread, without pressure and without a deadlock.

#![expect(
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test's allocator; it may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::Rig;
use outlive::check::{self, Alloc, Violation};
use outlive::{Fence, FenceError, QueueConfig, Status};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Under pressure: waits for its victim before it gives memory, as the kernel's reclaim may.
struct Evicts(Alloc<System>);

#[global_allocator]
static ALLOC: Evicts = Evicts(Alloc::new(System));

static VICTIM: Mutex<Option<Fence>> = Mutex::new(None);

thread_local! {
    /// There is no memory for this thread without eviction.
    static PRESSED: Cell<bool> = const { Cell::new(false) };
}

impl Evicts {
    fn reclaim() {
        if PRESSED.try_with(|pressed| pressed.replace(false)) != Ok(true) {
            return;
        }
        let section = check::reclaiming();
        let victim = VICTIM.lock().unwrap().take();
        // Reclaim does not ask who allocates: it waits, also where the library would refuse to.
        while let Some(fence) = victim.as_ref().filter(|fence| !fence.is_signaled()) {
            if fence.wait(Duration::from_millis(1)).is_err() {
                thread::yield_now();
            }
        }
        drop(section);
    }
}

// SAFETY: passed on unchanged.
unsafe impl GlobalAlloc for Evicts {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::reclaim();
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(at, layout) }
    }
}

const TIMEOUT: Duration = Duration::from_millis(300);

/// The job's end, from a handler that allocates first, or has its memory ready.
fn interrupt(rig: &Rig, queue: &common::Queue, allocates: bool, ready: Box<[u8; 64]>) {
    let _section = check::signalling();
    let message = if allocates { Box::new([1; 64]) } else { ready };
    black_box(&message);
    rig.gpu().held.complete(queue.id() * 1_000_000 + 1, Ok(()));
    std::mem::forget(message);
}

#[test]
fn a_handler_that_allocates_deadlocks_with_reclaim_and_one_that_does_not_does_not() {
    check::set_reporter(false);
    for allocates in [false, true] {
        let rig = Rig::threads(false);
        let queue = rig.queue(QueueConfig::new("q").timeout(TIMEOUT));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        let began = Instant::now();
        *VICTIM.lock().unwrap() = Some(Fence::clone(&job.retired()));
        thread::scope(|scope| {
            scope.spawn(|| {
                let ready = Box::new([0; 64]);
                PRESSED.set(true);
                interrupt(&rig, &queue, allocates, ready);
                PRESSED.set(false);
            });
        });
        let status = job.finished().status();
        if allocates {
            assert_eq!(status, Status::Signaled(Err(FenceError::TimedOut)), "only the timeout ended it");
            assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
        } else {
            assert_eq!(status, Status::Signaled(Ok(())));
        }
        *VICTIM.lock().unwrap() = None;
    }
}

#[test]
fn the_check_sees_it_in_one_thread_without_pressure() {
    check::set_reporter(false);
    for allocates in [false, true] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q"));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        // The fake device's log allocates too.
        let _ = check::take_report();
        interrupt(&rig, &queue, allocates, Box::new([0; 64]));
        rig.idle();
        assert_eq!(job.finished().status(), Status::Signaled(Ok(())), "it went well, this time");
        let seen = check::take_report().map(|report| report.violation);
        assert_eq!(seen, allocates.then_some(Violation::Allocated { bytes: 64 }));
    }
}
