//! What does not depend on the machine's mood: allocations, bytes, clock reads and wake-ups per job.

use crate::allocations;
use crate::load::{self, Null};
use crate::work::{bypass, chain, worker};
use outlive::{Executor, JobQueue};

/// Per job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Allocations, the payload's own (it has none) included.
    pub allocations: f64,
    /// Bytes of them, the payload's 16 included.
    pub bytes: f64,
    /// Reads of the executor's clock.
    pub clock_reads: f64,
    /// Wake-ups of sleeping lanes.
    pub wake_ups: f64,
}

fn count(executor: &Executor, jobs: u64, work: impl FnOnce()) -> Counts {
    let (reads, wakes) = (load::clock_reads(), executor.wake_ups());
    let allocated = allocations::during(work);
    let per_job = |many: u64| many as f64 / jobs as f64;
    Counts {
        allocations: per_job(allocated.count),
        bytes: per_job(allocated.bytes),
        clock_reads: per_job(load::clock_reads() - reads),
        wake_ups: per_job(executor.wake_ups() - wakes),
    }
}

fn warmed(executor: &Executor) -> JobQueue<Null> {
    let queue = load::queue::<Null>(executor, true);
    bypass::life(&queue, 64);
    queue
}

/// Bypass, driven by this thread.
#[must_use]
pub fn bypass_manual(jobs: u64) -> Counts {
    let executor = load::manual(load::counted_clock_ns);
    let queue = warmed(&executor);
    count(&executor, jobs, || bypass::life(&queue, jobs))
}

/// Bypass beside three threads.
#[must_use]
pub fn bypass_threads(jobs: u64) -> Counts {
    let executor = load::threads(load::counted_clock_ns);
    let queue = warmed(&executor);
    count(&executor, jobs, || bypass::life(&queue, jobs))
}

/// Through the lane's thread, 64 jobs on their way at most.
#[must_use]
pub fn worker_threads(jobs: u64) -> Counts {
    let executor = load::threads(load::counted_clock_ns);
    let queue = load::queue::<Null>(&executor, false);
    worker::life(&queue, 64, 64);
    count(&executor, jobs, || worker::life(&queue, 64, jobs))
}

/// Held chains over four queues, driven by this thread; the fences that hold them (one in a thousand) included.
#[must_use]
pub fn chain_manual(chains: u64) -> Counts {
    let executor = load::manual(load::counted_clock_ns);
    let context = chain::context(&executor);
    let queues = load::queues::<Null>(&executor, 4, true);
    chain::held_manual(&executor, &context, &queues);
    count(&executor, chains * chain::LENGTH, || {
        for _ in 0..chains {
            chain::held_manual(&executor, &context, &queues);
        }
    })
}
