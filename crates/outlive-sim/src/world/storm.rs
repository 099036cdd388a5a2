//! One world, from its seed to its verdict.

use alloc::format;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use outlive::{Executor, Time};
use std::hash::DefaultHasher;

use super::actions::World;
use super::hits::Hits;
use crate::gpu::Audit;

/// Within this much virtual time after the last fault every published fence has signaled. The longest of what may add up:
/// a suspension, then jobs in a ring up to their cap, then drain, cancel, and three resets with their watchdogs.
pub const CALM: Duration = Duration::from_secs(60);
/// Within this much virtual time after the last handle has gone nothing is left.
pub const DRAIN: Duration = Duration::from_secs(60);

/// What one world may at most suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Things that clients do.
    pub steps: u32,
    /// Jobs that hang. Each costs its queue a cancel and a reset.
    pub hangs: u32,
    /// Jobs that fault on a page.
    pub page_faults: u32,
    /// Jobs whose commands fail.
    pub errors: u32,
    /// Jobs whose interrupt is lost.
    pub lost_completions: u32,
    /// Ring resets that fail.
    pub ring_resets_failing: u32,
    /// Whether this world's device may go for good: it is unplugged, given up, or its resets fail.
    pub device_may_die: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: 120,
            hangs: 3,
            page_faults: 4,
            errors: 4,
            lost_completions: 4,
            ring_resets_failing: 1,
            device_may_die: true,
        }
    }
}

/// What became of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was counted.
    pub audit: Audit,
    /// What was hit.
    pub hits: Hits,
    /// Jobs that were committed.
    pub jobs: u64,
    /// Resets that the device ended.
    pub resets: u64,
    /// When it was over.
    pub ended: Time,
    /// A number for everything that was observed, in its order, and all verdicts.
    pub digest: u64,
    /// What went wrong, in words; none if all was well.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Whether all was well.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} jobs, {} resets, until {}", self.seed, self.jobs, self.resets, self.ended)?;
        for words in self.wrong.iter().chain(&self.audit.violations) {
            writeln!(f, "  {words}")?;
        }
        if !self.is_well() {
            writeln!(f, "  again: cargo run --release -p outlive-sim --example storm -- --seed {}", self.seed)?;
        }
        Ok(())
    }
}

/// Runs the world of `seed`.
///
/// # Panics
/// If the machine has no memory for a simulated device of some MiB.
#[must_use]
pub fn run(seed: u64, budget: Budget) -> Outcome {
    let mut wrong = Vec::new();
    let mut world = World::new(seed, budget);
    for _ in 0..budget.steps {
        world.step();
    }
    world.calm_down();
    let limit = world.host.now().after(CALM);
    if !world.wait_for_fences(limit) {
        wrong.push(format!("after {CALM:?} of calm {} fences have not signaled: {}", world.open(), world.open_words()));
    }
    world.drop_everything();
    let executor = world.host.executor().clone();
    let limit = world.host.now().after(DRAIN);
    if !world.host.run_while_waiting(limit, || world.host.bytes_in_use() == 0) {
        wrong.push(format!("after {DRAIN:?} {} bytes of device memory are taken", world.host.bytes_in_use()));
    }
    end(world, &executor, wrong)
}

fn end(world: World, executor: &Executor, mut wrong: Vec<String>) -> Outcome {
    let World { seed, host, hits, jobs, .. } = world;
    let limit = host.now().after(DRAIN);
    host.run_while_waiting(limit, || executor.live_objects() == 1);
    let (resets, ended) = (host.resets(), host.now());
    let mut hasher = DefaultHasher::new();
    for seen in host.take_log() {
        seen.hash(&mut hasher);
    }
    let mut hits = core::mem::take(&mut *hits.lock());
    let jobs = jobs.iter().flat_map(super::deeds::Jobs::all).collect::<Vec<_>>();
    for job in &jobs {
        format!("{:?}", job.finished().status()).hash(&mut hasher);
        hits.verdict(job);
    }
    let audit = host.finish();
    if executor.live_objects() != 0 {
        wrong.push(format!("{} objects are alive", executor.live_objects()));
    }
    if !audit.is_clean() {
        wrong.push(format!("the audit is not clean: {}", numbers(&audit)));
    }
    Outcome { seed, audit, hits, jobs: jobs.len() as u64, resets, ended, digest: hasher.finish(), wrong }
}

fn numbers(audit: &Audit) -> String {
    let counts = [
        ("fences_unsignaled", audit.fences_unsignaled),
        ("signaled_twice", audit.signaled_twice),
        ("out_of_order", audit.out_of_order),
        ("released_while_hardware_busy", audit.released_while_hardware_busy),
        ("conflicting_accesses", audit.conflicting_accesses),
        ("unexpected_page_faults", audit.unexpected_page_faults),
        ("leases_leaked", audit.leases_leaked),
        ("bytes_leaked", audit.bytes_leaked),
        ("quarantined_bytes", audit.quarantined_bytes),
        ("payloads not released", audit.payloads_created.abs_diff(audit.payloads_released)),
    ];
    let bad = counts.iter().filter(|(_, count)| *count > 0);
    bad.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
