//! What all who act in one world share: handles that any of them may use and drop, the budget, and the books.
//!
//! Each thing is behind a lock of its own that is held for a look: nobody calls the library, or drops a handle, while
//! holding one.

use alloc::sync::Arc;
use core::time::Duration;
use outlive::{Device, Executor, Fence, Status};
use std::sync::Mutex;

use super::deeds::{AllJobs, Jobs, QueueRef, Remembered, lock};
use super::hits::SharedHits;
use super::society::Society;
use super::storm::Budget;
use crate::driver::{Piece, SimDriver, SimHost, SimVm};
use crate::gpu::rng::Rng;

/// A queue that lives.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) queue: QueueRef,
    pub(crate) jobs: Jobs,
    /// The number of its user.
    pub(crate) user: u64,
    /// What its client has, where memory is short.
    pub(crate) set: WorkingSet,
}

/// A client's persistent buffers, and its address space.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkingSet {
    pub(crate) pieces: Vec<Arc<Piece>>,
    pub(crate) vm: Option<Arc<SimVm>>,
}

/// How fast a world goes: virtual time costs nothing, real time does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Hardware time of most jobs, and of one in ten, at most, in microseconds.
    pub(crate) job_us: [u64; 2],
    /// Pauses between what somebody does, at most, in nanoseconds: often, sometimes, now and then. Mostly there is none.
    pub(crate) pause_ns: [u64; 3],
    /// How long the producer of a bare fence may take.
    pub(crate) watchdog: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Commons {
    pub(crate) executor: Executor,
    pub(crate) pace: Pace,
    pub(crate) society: Arc<Society>,
    pub(crate) hits: SharedHits,
    /// What went wrong on the way.
    pub(crate) wrong: Mutex<Vec<String>>,
    pub(crate) jobs: AllJobs,
    /// Queues alive at once, at most.
    pub(crate) alive_max: usize,
    /// Jobs whose fences are kept, at most.
    pub(crate) remembered_max: usize,
    pub(crate) device: Mutex<Option<Device<SimDriver>>>,
    pub(crate) slots: Mutex<Vec<Slot>>,
    pub(crate) remembered: Mutex<Vec<Remembered>>,
    /// Bare fences that were published.
    pub(crate) bare: Mutex<Vec<Fence>>,
    pub(crate) budget: Mutex<Budget>,
    /// Memory is short, and clients have persistent buffers.
    pub(crate) short: bool,
}

/// One of `from`, at random, taken out.
pub(crate) fn take<T>(chance: &mut Rng, from: &Mutex<Vec<T>>) -> Option<T> {
    let mut from = lock(from);
    let at = pick(chance, from.len())?;
    Some(from.swap_remove(at))
}

/// One of `from`, at random.
pub(crate) fn some<T: Clone>(chance: &mut Rng, from: &Mutex<Vec<T>>) -> Option<T> {
    let from = lock(from);
    Some(from[pick(chance, from.len())?].clone())
}

/// A place in a list of `len`, at random; none if it is empty.
pub(crate) fn pick(chance: &mut Rng, len: usize) -> Option<usize> {
    usize::try_from(chance.below(len as u64)).ok().filter(|_| len > 0)
}

/// A number below `bound`.
pub(crate) fn small(chance: &mut Rng, bound: u32) -> u32 {
    u32::try_from(chance.below(u64::from(bound))).unwrap_or(0)
}

impl Commons {
    /// For `host`, whose handle on its device goes to all.
    pub(crate) fn new(
        host: &mut SimHost,
        society: Society,
        pace: Pace,
        alive_max: u32,
        remembered_max: usize,
        short: bool,
        budget: Budget,
    ) -> Arc<Self> {
        Arc::new(Self {
            executor: host.executor().clone(),
            pace,
            society: Arc::new(society),
            hits: SharedHits::default(),
            wrong: Mutex::default(),
            jobs: AllJobs::default(),
            alive_max: usize::try_from(alive_max).unwrap_or(usize::MAX),
            remembered_max,
            device: Mutex::new(host.take_device()),
            slots: Mutex::default(),
            remembered: Mutex::default(),
            bare: Mutex::default(),
            budget: Mutex::new(budget),
            short,
        })
    }

    pub(crate) fn device(&self) -> Option<Device<SimDriver>> {
        lock(&self.device).clone()
    }

    /// Takes one from a number in the budget; false if it is used up.
    pub(crate) fn spend(&self, what: fn(&mut Budget) -> &mut u32) -> bool {
        let mut budget = lock(&self.budget);
        let left = what(&mut budget);
        let any = *left > 0;
        *left -= u32::from(any);
        any
    }

    /// Fences that were promised and have not signaled.
    pub(crate) fn open(&self) -> Vec<Fence> {
        let jobs = self.jobs.all().into_iter();
        let of_jobs = jobs.flat_map(|job| {
            let job = job.fences;
            [job.scheduled(), job.finished(), job.retired().into_fence()]
        });
        let bare = lock(&self.bare).clone();
        of_jobs.chain(bare).filter(|fence| fence.status() == Status::Pending).collect()
    }
}
