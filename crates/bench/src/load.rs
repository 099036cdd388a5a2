//! The driver that does nothing and the payload that counts its end.

use core::sync::atomic::{AtomicU64, Ordering};
use outlive::{Completion, Device, Driver, Executor, JobCx, JobQueue, QueueConfig};
use std::sync::OnceLock;
use std::time::Instant;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Two words, and a `Drop` that counts.
#[derive(Debug)]
pub struct Payload {
    /// So that building it is work.
    pub words: [u64; 2],
}

impl Payload {
    /// Number `n`.
    #[must_use]
    pub fn new(n: u64) -> Self {
        core::hint::black_box(Self { words: [n, !n] })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Payloads dropped in this process so far.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Lets others run until `many` payloads were dropped.
pub fn until_dropped(many: u64) {
    while dropped() < many {
        std::thread::yield_now();
    }
}

/// Completes each job inside `run`.
#[derive(Debug, Default)]
pub struct Null;

impl Driver for Null {
    type Job = Payload;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}

/// As [`Null`], with the payload in a box of its own.
#[derive(Debug, Default)]
pub struct NullBoxed;

impl Driver for NullBoxed {
    type Job = Box<Payload>;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}

static READS: AtomicU64 = AtomicU64::new(0);

/// The system's monotonic clock, for executors that would otherwise have a virtual one.
#[must_use]
pub fn clock_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// As [`clock_ns`], counted.
#[must_use]
pub fn counted_clock_ns() -> u64 {
    READS.fetch_add(1, Ordering::Relaxed);
    clock_ns()
}

/// Stands still: for instruction counts.
#[must_use]
pub const fn still_clock_ns() -> u64 {
    1
}

/// How often [`counted_clock_ns`] was read.
#[must_use]
pub fn clock_reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

/// An executor driven by this thread, on the clock `now`.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn manual(now: fn() -> u64) -> Executor {
    Executor::builder().clock(now).manual().expect("memory for an executor")
}

/// An executor with its three threads, on the clock `now`.
///
/// # Panics
/// Without memory or threads.
#[must_use]
pub fn threads(now: fn() -> u64) -> Executor {
    Executor::builder().clock(now).threads().expect("three threads")
}

/// `count` queues of one device with a driver that does nothing.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn queues<D>(executor: &Executor, count: usize, bypass: bool) -> Vec<JobQueue<D>>
where
    D: Driver<Queue = ()> + Default,
{
    let device = Device::new(executor, D::default()).expect("memory for a device");
    let queue = |_| device.queue(QueueConfig::new("bench").bypass(bypass), ()).expect("memory for a queue");
    (0..count).map(queue).collect()
}

/// One queue of a device of its own.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn queue<D>(executor: &Executor, bypass: bool) -> JobQueue<D>
where
    D: Driver<Queue = ()> + Default,
{
    queues(executor, 1, bypass).pop().expect("one queue")
}
