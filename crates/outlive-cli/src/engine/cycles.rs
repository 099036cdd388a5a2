//! What a client whose cycles others are `after` has committed, and what it never will.
//!
//! A cycle is remembered until all its jobs have gone well, which is as if it had never been waited for.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use outlive::{JobFences, Status};
use outlive_sim::driver::Buffer;

/// A job of a cycle that others depend on.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) job: JobFences,
    output: Weak<Buffer>,
}

impl Made {
    pub(super) fn new(job: JobFences, output: &Arc<Buffer>) -> Self {
        Self { job, output: Arc::downgrade(output) }
    }

    /// What it wrote, while that is there: its memory serves others once it has retired.
    pub(super) fn output(&self) -> Option<Arc<Buffer>> {
        self.output.upgrade()
    }
}

/// What became of a cycle.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cycle<'a> {
    /// These are its jobs; none, if all of them have gone well.
    Committed(&'a [Made]),
    /// Not all of it was committed, and will not be.
    Canceled,
    /// It may still come.
    ToCome,
}

/// All cycles of one client.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    /// Those that matter; without jobs: not wholly committed.
    kept: BTreeMap<u64, Vec<Made>>,
    /// Of the cycle under way.
    begun: Vec<Made>,
    /// The number of the next that was not committed.
    next: u64,
}

/// How many may be kept before those that have gone well are looked for.
const KEPT_MAX: usize = 64;

impl Cycles {
    /// A job of the cycle under way was committed; `last` if that was all of it.
    pub(super) fn add(&mut self, cycle: u64, made: Made, last: bool) {
        self.begun.push(made);
        if last {
            self.kept.insert(cycle, core::mem::take(&mut self.begun));
            self.next = cycle + 1;
            self.forget();
        }
    }

    /// The client is gone in the middle of a cycle, if that was begun.
    pub(super) fn left(&mut self, next: u64) {
        if !self.begun.is_empty() {
            self.begun.clear();
            self.kept.insert(next.saturating_sub(1), Vec::new());
        }
        self.next = next;
    }

    /// `gone`: the client commits nothing now.
    pub(super) fn look(&self, cycle: u64, gone: bool) -> Cycle<'_> {
        match self.kept.get(&cycle) {
            Some(jobs) if jobs.is_empty() => Cycle::Canceled,
            Some(jobs) => Cycle::Committed(jobs),
            None if cycle < self.next => Cycle::Committed(&[]),
            None if gone => Cycle::Canceled,
            None => Cycle::ToCome,
        }
    }

    fn forget(&mut self) {
        if self.kept.len().is_multiple_of(KEPT_MAX) {
            let well = |made: &Made| made.job.finished().status() == Status::Signaled(Ok(()));
            self.kept.retain(|_, jobs| jobs.is_empty() || !jobs.iter().all(well));
        }
    }
}
