//! One world, from its seed to its verdict.

use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use outlive::{DeviceConfig, Time, WATCHDOG_DEFAULT};
use std::hash::DefaultHasher;

use super::actor::Actor;
use super::commons::{Commons, Pace, pick, small};
use super::deeds::lock;
use super::hits::Hits;
use super::reports;
use super::society::{Ear, Society};
use crate::driver::{HostClock, HostConfig, SimHost};
use crate::gpu::rng::Rng;
use crate::gpu::{Audit, Config, DeviceFaults};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Jobs whose fences and outputs clients keep.
const REMEMBERED: usize = 24;

/// Within this much virtual time after the last fault every published fence has signaled. The longest of what may add up:
/// a suspension, then jobs in a ring up to their cap, then drain, cancel, and three resets with their watchdogs.
pub const CALM: Duration = Duration::from_secs(60);
/// Within this much virtual time after the last handle has gone nothing is left.
pub const DRAIN: Duration = Duration::from_secs(60);

/// What one world may at most suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Queues that are opened.
    pub queues: u32,
    /// Things that clients do once the first of them are filled.
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
    /// Whether this world's device may go for good, once: it is unplugged, closed, given up, or its resets fail. In half of
    /// the worlds it does.
    pub device_may_die: bool,
    /// Whether in each fourth world, by the seed, memory is short: clients have persistent buffers, more than there is room for,
    /// which their jobs work on, and bind.
    pub short_of_memory: bool,
    /// The driver commits a bug: it does not flush what it unmaps.
    pub skips_flushes: bool,
}

impl Budget {
    /// Whether memory is short in the world of `seed`.
    pub(super) const fn is_short(&self, seed: u64) -> bool {
        self.short_of_memory && seed % 4 == 3
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            queues: 100,
            steps: 300,
            hangs: 24,
            page_faults: 12,
            errors: 12,
            lost_completions: 12,
            ring_resets_failing: 3,
            device_may_die: true,
            short_of_memory: true,
            skips_flushes: false,
        }
    }
}

/// What became of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How many threads acted in it, in real time; none in virtual time.
    pub threads: Option<u32>,
    /// What was counted.
    pub audit: Audit,
    /// What was hit.
    pub hits: Hits,
    /// Queues that were opened.
    pub queues: u64,
    /// Jobs that were committed.
    pub jobs: u64,
    /// Resets that the device ended.
    pub resets: u64,
    /// How often a persistent buffer gave way where memory was short.
    pub evictions: u64,
    /// How often a user was banned.
    pub bans: u64,
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
        let Self { seed, queues, jobs, resets, ended, .. } = self;
        writeln!(f, "seed {seed}: {queues} queues, {jobs} jobs, {resets} resets, until {ended}")?;
        for words in self.wrong.iter().chain(&self.audit.violations) {
            writeln!(f, "  {words}")?;
        }
        if !self.is_well() {
            let threads = self.threads.map_or_else(String::new, |threads| format!(" --threads {threads}"));
            writeln!(f, "  again: cargo run --release -p outlive-sim --example storm --{threads} --seed {seed}")?;
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
    reports::listen();
    let mut chance = Rng::new(seed);
    let ear = Ear::default();
    let mut config = config(&mut chance, &ear);
    let dies_at = small(&mut chance, 2 * budget.steps.max(1));
    let dies_at = Some(dies_at).filter(|at| budget.device_may_die && *at <= budget.steps);
    let short = budget.is_short(seed);
    // A device that will die has all its queues before.
    let share = match (dies_at, short) {
        (Some(_), _) => 1,
        (None, true) => 4,
        (None, false) => [1, 2, 4][pick(&mut chance, 3).unwrap_or(0)],
    };
    if short {
        config.gpu.memory_bytes = short_bytes(budget.queues / share);
    }
    #[expect(clippy::expect_used, reason = "documented above")]
    let mut host = SimHost::new(config).expect("no memory for a simulated device");
    let pace = Pace { job_us: [1_500, 20_000], pause_ns: [300 * US, 5 * MS, 120 * MS], watchdog: WATCHDOG_DEFAULT };
    let society = Society::new(&mut chance, host.executor(), ear, budget.queues);
    if let Some(pool) = society.pool {
        host.watch_pool(pool);
    }
    let commons = Commons::new(&mut host, society, pace, (budget.queues / share).max(2), REMEMBERED, short, budget);
    let mut actor = Actor::new(&host, Arc::clone(&commons), chance, dies_at);
    actor.fill(&host, budget.queues);
    for _ in 0..budget.steps {
        actor.step(&host);
    }
    actor.open_the_rest(&host);
    let mut wrong = Vec::new();
    calm_down(&host, &commons);
    wrong.extend(wait_for_fences(&host, &commons, CALM, Duration::from_secs(1)));
    actor.drop_everything(&host);
    let seen = end(host, &commons, &mut wrong);
    wrong.extend(reports::heard().iter().map(|report| format!("reported: {report}")));
    Outcome { seed, threads: None, wrong, ..seen }
}

/// Memory of a device where it is short: what so many clients take for themselves, and little more.
pub(super) fn short_bytes(alive: u32) -> u64 {
    (3 << 19) + u64::from(alive) * (80 << 10)
}

fn config(chance: &mut Rng, ear: &Ear) -> HostConfig {
    let slice_ns = if chance.below(3) == 0 { 0 } else { 100 * US + chance.below(2 * MS) };
    let gpu = Config {
        seed: chance.next_u64(),
        engines: 1 + small(chance, 3),
        slice_ns,
        memory_bytes: (8 << 20) + (chance.below(12) << 20),
        tick_ns: 100 * US + chance.below(2 * MS),
        cancel_ns: chance.below(200 * US),
        ring_reset_ns: 10 * US + chance.below(MS),
        device_reset_ns: 100 * US + chance.below(8 * MS),
        interrupt_latency_ns: chance.below(20 * US),
        interrupt_jitter_ns: chance.below(50 * US),
        ..Config::default()
    };
    let device = DeviceConfig::new("sim").cancel_grace(Duration::from_micros(100 + chance.below(100_000)));
    let device = Society::bans(chance, device);
    HostConfig { gpu, device, recorder: Some(Box::new(ear.clone())), keep_log: true, ..HostConfig::default() }
}

/// Faults stop, and nobody holds anything up any more.
pub(super) fn calm_down(host: &SimHost, commons: &Commons) {
    host.set_faults(DeviceFaults::default());
    let slots = lock(&commons.slots).clone();
    for slot in &slots {
        slot.queue.queue().resume();
    }
}

/// Waits until every fence that was promised has signaled; else says which has not. Looked at every so often.
pub(super) fn wait_for_fences(host: &SimHost, commons: &Commons, calm: Duration, often: Duration) -> Option<String> {
    let limit = host.now().after(calm);
    loop {
        let open = commons.open();
        if open.is_empty() {
            return None;
        }
        if host.now() >= limit {
            let words = open.iter().take(6).map(|fence| format!("{fence:?}")).collect::<Vec<_>>().join(", ");
            return Some(format!("after {calm:?} of calm {} fences have not signaled: {words}", open.len()));
        }
        host.run_until(host.now().after(often).min(limit));
    }
}

/// Every handle has gone: nothing may be left.
pub(super) fn end(host: SimHost, commons: &Commons, wrong: &mut Vec<String>) -> Outcome {
    let executor = commons.executor.clone();
    let limit = host.now().after(DRAIN);
    host.run_while_waiting(limit, || host.bytes_in_use() == 0 && executor.live_objects() == 0);
    if host.bytes_in_use() > 0 {
        wrong.push(format!("after {DRAIN:?} {} bytes of device memory are taken", host.bytes_in_use()));
    }
    let (resets, evictions, ended) = (host.resets(), host.evictions(), host.now());
    let mut hasher = DefaultHasher::new();
    for seen in host.take_log() {
        seen.hash(&mut hasher);
    }
    let mut hits = core::mem::take(&mut *commons.hits.lock());
    let jobs = commons.jobs.all();
    for job in &jobs {
        format!("{:?}", job.fences.finished().status()).hash(&mut hasher);
        hits.verdict(&job.fences);
    }
    commons.society.judge(host.clock() == HostClock::Virtual, wrong);
    wrong.append(&mut lock(&commons.wrong));
    let bans = commons.society.bans_heard();
    let audit = host.finish();
    if executor.live_objects() != 0 {
        wrong.push(format!("{} objects are alive", executor.live_objects()));
    }
    if !audit.is_clean() {
        wrong.push(format!("the audit is not clean: {}", numbers(&audit)));
    }
    let (jobs, digest) = (jobs.len() as u64, hasher.finish());
    let queues = commons.jobs.queues();
    Outcome {
        seed: 0,
        threads: None,
        audit,
        hits,
        queues,
        jobs,
        resets,
        evictions,
        bans,
        ended,
        digest,
        wrong: Vec::new(),
    }
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
        ("stale_translations", audit.stale_translations),
        ("payloads not released", audit.payloads_created.abs_diff(audit.payloads_released)),
    ];
    let bad = counts.iter().filter(|(_, count)| *count > 0);
    bad.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
