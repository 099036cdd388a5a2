//! A storm of threads: the same actors, each on a thread of its own, in real time, on one host.
//!
//! # Phases
//! As in virtual time, with a barrier between them. *Fill*: each thread opens its share of the queues, and submits jobs that
//! depend on each other's. *Safety*: all act at once, on all queues, whoever opened them. *Calm*: nobody acts; every fence
//! signals. *Drain*: all threads drop what is left at once, in random order; then nothing is left.
//!
//! # Chance
//! Each thread's comes from the seed and its number, so the same seed makes the same plans; which thread comes first is
//! the system's to say.

use alloc::sync::Arc;
use core::time::Duration;
use outlive::DeviceConfig;
use std::sync::Barrier;
use std::thread;

use super::actor::Actor;
use super::commons::{Commons, Pace, small};
use super::reports;
use super::society::{Ear, Society};
use super::storm::{Budget, CALM, Outcome, calm_down, end, short_bytes, wait_for_fences};
use crate::driver::{HostClock, HostConfig, SimHost};
use crate::gpu::Config;
use crate::gpu::rng::Rng;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Device memory for each queue, and for its jobs, in bytes: seldom all of it is there.
const BYTES_PER_QUEUE: u64 = 160 << 10;
/// A thread that is not run for a while is no dead device.
const RESET_WATCHDOG: Duration = Duration::from_secs(10);

/// What a storm of threads is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Threads that act; at least 1.
    pub threads: u32,
    /// Queues that are opened.
    pub queues: u32,
    /// Of them, so many are filled at first and may be alive at once.
    pub alive: u32,
    /// Things that each thread does once they are filled.
    pub steps: u32,
}

impl Plan {
    /// A storm over `queues` queues, `alive` at once, in which each is acted on a few times.
    #[must_use]
    pub fn new(threads: u32, queues: u32, alive: u32) -> Self {
        let threads = threads.max(1);
        Self { threads, queues, alive, steps: 100 + 4 * queues / threads }
    }

    fn budget(&self) -> Budget {
        let some = 4 + self.queues / 8;
        let (page_faults, errors, lost_completions) = (some, some, some);
        Budget {
            queues: self.queues,
            steps: self.steps,
            hangs: 4 + self.queues / 8,
            page_faults,
            errors,
            lost_completions,
            ring_resets_failing: 3,
            device_may_die: true,
            ..Budget::default()
        }
    }
}

/// Runs the storm of `seed`.
///
/// # Panics
/// If the machine has no memory for the simulated device, or no threads.
#[must_use]
pub fn run_threads(seed: u64, plan: Plan) -> Outcome {
    reports::listen();
    let mut chance = Rng::new(seed);
    let ear = Ear::default();
    let short = plan.budget().is_short(seed);
    let mut config = config(&mut chance, plan, &ear);
    if short {
        config.gpu.memory_bytes = short_bytes(plan.alive);
    }
    #[expect(clippy::expect_used, reason = "documented above")]
    let mut host = SimHost::new(config).expect("no memory or no threads for a simulated device");
    let watchdog = Duration::from_millis(200);
    let pace = Pace { job_us: [200, 3_000], pause_ns: [50 * US, 500 * US, 3 * MS], watchdog };
    let remembered = 24 * usize::try_from(plan.threads).unwrap_or(1);
    let society = Society::new(&mut chance, host.executor(), ear, plan.queues);
    let commons = Commons::new(&mut host, society, pace, plan.alive, remembered, short, plan.budget());
    let murderer = small(&mut chance, plan.threads);
    let dies_at = small(&mut chance, plan.steps.max(1));
    let actors = (0..plan.threads).map(|thread| {
        let chance = Rng::new(chance.next_u64());
        Actor::new(&host, Arc::clone(&commons), chance, (thread == murderer).then_some(dies_at))
    });
    let actors: Vec<Actor> = actors.collect();
    let mut wrong = Vec::new();
    let barrier = Barrier::new(actors.len() + 1);
    thread::scope(|threads| {
        for actor in actors {
            let (host, barrier) = (&host, &barrier);
            threads.spawn(move || act(actor, host, plan, barrier));
        }
        barrier.wait();
        barrier.wait();
        calm_down(&host, &commons);
        wrong.extend(wait_for_fences(&host, &commons, CALM, Duration::from_millis(50)));
        barrier.wait();
    });
    let seen = end(host, &commons, &mut wrong);
    Outcome { seed, threads: Some(plan.threads), wrong, ..seen }
}

fn act(mut actor: Actor, host: &SimHost, plan: Plan, barrier: &Barrier) {
    actor.fill(host, plan.alive.div_ceil(plan.threads));
    barrier.wait();
    for _ in 0..plan.steps {
        actor.step(host);
    }
    barrier.wait();
    barrier.wait();
    actor.drop_everything(host);
}

fn config(chance: &mut Rng, plan: Plan, ear: &Ear) -> HostConfig {
    let slice_ns = if chance.below(3) == 0 { 0 } else { 200 * US + chance.below(2 * MS) };
    let gpu = Config {
        seed: chance.next_u64(),
        engines: 2 + small(chance, 3),
        slice_ns,
        memory_bytes: (8 << 20) + u64::from(plan.alive) * BYTES_PER_QUEUE,
        tick_ns: 500 * US + chance.below(2 * MS),
        cancel_ns: chance.below(200 * US),
        ring_reset_ns: 10 * US + chance.below(MS),
        device_reset_ns: 100 * US + chance.below(8 * MS),
        interrupt_latency_ns: chance.below(20 * US),
        interrupt_jitter_ns: chance.below(50 * US),
        ..Config::default()
    };
    let device = DeviceConfig::new("sim")
        .cancel_grace(Duration::from_micros(100 + chance.below(20_000)))
        .reset_watchdog(RESET_WATCHDOG);
    let device = Society::bans(chance, device);
    HostConfig { gpu, device, clock: HostClock::Real, recorder: Some(Box::new(ear.clone())), ..HostConfig::default() }
}
