//! What is checked, one function for each scenario. Each leaves nothing allocated.

mod ends;
mod fences;
mod jobs;

use crate::device::{DRIVERS_DROPPED, Fake};
use crate::{check, heap, must};
use core::sync::atomic::Ordering;
use outlive::{Device, Executor, JobQueue, QueueConfig, Time};

pub(crate) use ends::{close, interrupts, orphans, outlive};
pub(crate) use fences::{fences, waiting};
pub(crate) use jobs::{dependencies, jobs, out_of_memory, timeout};

const MS: u64 = 1_000_000;

struct World {
    executor: Executor,
    device: Device<Fake>,
    queue: JobQueue<Fake>,
}

impl World {
    fn new(config: QueueConfig) -> Self {
        let executor = must!(Executor::manual());
        let device = must!(Device::new(&executor, must!(Fake::new())));
        let queue = must!(device.queue(config, 0));
        Self { executor, device, queue }
    }

    fn driver(&self) -> &Fake {
        self.device.driver()
    }

    /// Drops everything and runs what is left to its end.
    fn end(self) {
        let Self { executor, device, queue } = self;
        let gone = device.drained();
        let drivers = DRIVERS_DROPPED.load(Ordering::Relaxed);
        drop(queue);
        drop(device);
        check!(!gone.is_drained());
        executor.run_until_idle();
        check!(gone.is_drained());
        check!(DRIVERS_DROPPED.load(Ordering::Relaxed) == drivers + 1);
    }
}

/// The signalling lane's work; it must not allocate.
fn step(executor: &Executor) {
    let before = heap::allocations();
    while executor.step() {}
    check!(heap::allocations() == before);
}

/// Runs `work`, which must not allocate.
fn frugal<R>(work: impl FnOnce() -> R) -> R {
    let before = heap::allocations();
    let result = work();
    check!(heap::allocations() == before);
    result
}

fn at(ms: u64) -> Time {
    Time::from_ns(ms * MS)
}
