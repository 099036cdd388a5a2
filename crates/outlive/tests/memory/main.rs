//! Memory: nothing is allocated between commit and retirement, every failing allocation leaves everything as it was, dead
//! fences are small and keep nothing, and long chains end on a small stack.
//!
//! Chains have 1,000,000 jobs in release builds; with debug assertions 100,000, so that the whole file takes seconds.
#![expect(unsafe_code, reason = "a global allocator that counts what is alive")]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

mod a_chain_that_fails_at_its_root;
mod dead_fences;
mod from_commit_to_retirement;
mod when_an_allocation_fails;

use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::fmt::Debug;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use outlive::check::{self, Alloc};
use outlive::trace::{Event, Record};
use outlive::{
    Cause, Charges, Completion, Dependency, Device, Driver, Executor, Fence, FenceContext, FenceError, Hook, InFlight,
    JOB_BYTES, Job, JobCx, JobFences, JobQueue, Names, OnError, OpenError, Principal, Producer, QueueConfig, Refusal,
    Refused, Signaler, Status, Time, UserFence, WaitError,
};
use std::alloc::System;
use std::sync::Mutex;
use std::thread;

/// Below the checked allocator: what this thread has alive. Everything here runs on a manual executor, hence on the
/// thread of its test.
struct Gauge;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Alive {
    blocks: i64,
    bytes: i64,
}

std::thread_local! {
    static ALIVE: Cell<Alive> = const { Cell::new(Alive { blocks: 0, bytes: 0 }) };
}

fn gauge(blocks: i64, bytes: usize, sign: i64) {
    let _ = ALIVE.try_with(|alive| {
        let now = alive.get();
        alive.set(Alive { blocks: now.blocks + blocks, bytes: now.bytes + sign * i64::try_from(bytes).unwrap_or(0) });
    });
}

fn alive() -> Alive {
    ALIVE.get()
}

impl Alive {
    fn since(self, before: Self) -> Self {
        Self { blocks: self.blocks - before.blocks, bytes: self.bytes - before.bytes }
    }
}

// SAFETY: every call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Gauge {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        gauge(1, layout.size(), 1);
        // SAFETY: the caller's promise is the system's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, raw: *mut u8, layout: Layout) {
        gauge(-1, layout.size(), -1);
        // SAFETY: the caller's promise is the system's contract.
        unsafe { System.dealloc(raw, layout) }
    }
}

#[global_allocator]
static ALLOC: Alloc<Gauge> = Alloc::new(Gauge);

const CHAIN: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const FAULT: FenceError = FenceError::Faulted { code: 7 };
const NAMES: Names<'_> = Names { driver: "bare", timeline: "test" };

/// Runs `body` on a thread with a stack that no recursion over a chain fits in.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(128 << 10).spawn(body).unwrap().join().unwrap();
}

/// Holds jobs until the test, a `cancel`, says what became of them; allocates only at the start.
struct Hardware {
    held: Mutex<Vec<Completion>>,
    inline: bool,
    ran: AtomicUsize,
}

impl Hardware {
    fn new(inline: bool) -> Self {
        Self { held: Mutex::new(Vec::with_capacity(16)), inline, ran: AtomicUsize::new(0) }
    }

    fn complete_one(&self, result: Result<(), FenceError>) {
        let done = self.held.lock().unwrap().pop();
        done.unwrap().complete(result);
    }
}

impl Driver for Hardware {
    type Job = Payload;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        self.ran.fetch_add(1, SeqCst);
        if self.inline {
            done.complete(Ok(()));
        } else {
            self.held.lock().unwrap().push(done);
        }
    }

    fn cancel(&self, _cx: &mut JobCx<'_, Self>) {
        self.complete_one(Err(FenceError::Canceled));
    }
}

std::thread_local! {
    static PAYLOADS_DROPPED: Cell<usize> = const { Cell::new(0) };
}

/// Costs nothing, and is counted when dropped.
#[derive(Debug)]
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        PAYLOADS_DROPPED.set(PAYLOADS_DROPPED.get() + 1);
    }
}

/// `length` jobs over `queues` queues, each after the one before; the first one is on the hardware, the others wait.
/// Returns what is kept of them.
fn chain<T>(
    queues: &[JobQueue<Hardware>],
    length: usize,
    on_error: OnError,
    kept: &mut Vec<T>,
    keep: impl Fn(JobFences) -> T,
) {
    let mut last: Option<Fence> = None;
    for at in 0..length {
        let queue = &queues[at % queues.len()];
        let after = last.take().map(|fence| Dependency::on(fence).on_error(on_error));
        let job = queue.reserve_after(Payload, after).unwrap().commit();
        last = Some(job.finished());
        kept.push(keep(job));
    }
}

fn queues_of(device: &Device<Hardware>, count: usize) -> Vec<JobQueue<Hardware>> {
    (0..count).map(|_| device.queue(QueueConfig::new("chain"), ()).unwrap()).collect()
}
