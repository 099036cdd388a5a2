//! From the words of a scenario to those of the library and the simulated hardware.

use core::time::Duration;

use outlive::sched::{self, Arbiter, ArbiterConfig, Fair, Fifo, RoundRobin};
use outlive::{AllocError, DeviceConfig, Executor, OnError, Principal, QueueConfig};
use outlive_sim::driver::{ClientConfig, HostClock, HostConfig, Work};
use outlive_sim::gpu::{Config, FaultKind};

use super::NS_PER_US;
use super::film;
use crate::args::Clock;
use crate::scenario::{Scenario, model};

/// How long a job that was asked to stop may go on before its ring is reset. The device stops a job that can be stopped
/// within 20 µs.
const CANCEL_GRACE: Duration = Duration::from_millis(5);

/// The machine that a scenario asks for.
pub(super) fn host_config(scenario: &Scenario, clock: Clock) -> HostConfig {
    let model::Device { engines, slice_us, memory_mib, .. } = scenario.device;
    let slice_ns = match scenario.scheduler.mode {
        model::Mode::Firmware => slice_us.saturating_mul(NS_PER_US),
        // Jobs run to their end, in the order in which they were started.
        model::Mode::Arbiter => 0,
    };
    let memory_bytes = memory_mib << 20;
    // A scenario in firmware mode has none: see its reader.
    let vm_ids = scenario.device.vm_ids;
    let gpu = Config { seed: scenario.seed, engines, slice_ns, memory_bytes, vm_ids, ..Config::default() };
    let lease_vm_ids = if vm_ids > 0 { queues_at_most(scenario) } else { 0 };
    let clock = match clock {
        Clock::Virtual => HostClock::Virtual,
        Clock::Real => HostClock::Real,
    };
    let window = Duration::from_millis(scenario.scheduler.ban_window_ms);
    let device = DeviceConfig::new("sim").cancel_grace(CANCEL_GRACE).ban_after(scenario.scheduler.ban_after, window);
    HostConfig { gpu, device, lease_vm_ids, clock, keep_history: true, ..HostConfig::default() }
}

/// Besides those that are there, some that left with jobs on the hardware; who finds no room tries again.
fn queues_at_most(scenario: &Scenario) -> u32 {
    let instances = u32::try_from(scenario.instances.len()).unwrap_or(u32::MAX);
    instances.saturating_mul(4).saturating_add(64)
}

pub(super) const fn priority(priority: model::Priority) -> sched::Priority {
    match priority {
        model::Priority::Realtime => sched::Priority::Realtime,
        model::Priority::High => sched::Priority::High,
        model::Priority::Normal => sched::Priority::Normal,
        model::Priority::Low => sched::Priority::Low,
    }
}

pub(super) const fn policy(on_error: model::OnError) -> OnError {
    match on_error {
        model::OnError::Fail => OnError::Fail,
        model::OnError::Run => OnError::Run,
    }
}

pub(super) const fn fault(kind: model::FaultKind) -> FaultKind {
    match kind {
        model::FaultKind::Hang => FaultKind::Hang,
        model::FaultKind::PageFault => FaultKind::PageFault,
        model::FaultKind::Error => FaultKind::Error,
        model::FaultKind::LostCompletion => FaultKind::LostCompletion,
    }
}

pub(super) const fn work(work: model::Work, number: u64) -> Work {
    match work {
        model::Work::Spin => Work::Spin,
        model::Work::Fill => Work::Fill,
        model::Work::Copy => Work::Copy,
        // CAST: the gears turn round and round.
        model::Work::Gears => Work::Gears { frame: number as u32, width: film::SIDE, height: film::SIDE },
    }
}

/// Who chooses what the hardware does next, if not its firmware.
///
/// # Errors
/// There is no memory for it.
pub(super) fn arbiter(scenario: &Scenario, executor: &Executor) -> Result<Option<Arbiter>, AllocError> {
    if scenario.scheduler.mode == model::Mode::Firmware {
        return Ok(None);
    }
    let model::Device { engines, credits, .. } = scenario.device;
    let config = ArbiterConfig::new(credits).engines(engines).queues(queues_at_most(scenario));
    match scenario.scheduler.policy {
        model::Policy::Fair => Arbiter::with_policy(executor, config, Fair::new(engines)),
        model::Policy::Fifo => Arbiter::with_policy(executor, config, Fifo::default()),
        model::Policy::RoundRobin => Arbiter::with_policy(executor, config, RoundRobin::default()),
    }
    .map(Some)
}

/// A client as `client` describes it, whose jobs are on `principal`'s account.
pub(super) fn client_config(
    scenario: &Scenario,
    client: &model::Client,
    principal: &Principal,
    arbiter: Option<&Arbiter>,
) -> ClientConfig {
    let mut queue = QueueConfig::new("ring")
        .principal(principal.clone())
        .priority(priority(client.priority))
        .group(group(scenario, client))
        .group_weight(client.group_weight)
        .weight(client.weight);
    if let Some(arbiter) = arbiter {
        queue = queue.arbiter(arbiter);
    }
    let timeout = Duration::from_millis(scenario.job_limit_ms());
    ClientConfig { credits: scenario.device.credits, timeout, queue, ..ClientConfig::default() }
}

/// The number of a client's group, 0 for one that stands alone: where the group is named first, counted from 1.
fn group(scenario: &Scenario, client: &model::Client) -> u64 {
    let Some(name) = &client.group else { return 0 };
    let first = scenario.clients.iter().position(|other| other.group.as_ref() == Some(name));
    first.map_or(0, |first| first as u64 + 1)
}
