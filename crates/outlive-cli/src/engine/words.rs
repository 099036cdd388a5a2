//! From the words of a scenario to those of the library and the simulated hardware.

use core::time::Duration;

use outlive::{DeviceConfig, OnError, QueueConfig, sched};
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
    let gpu = Config {
        seed: scenario.seed,
        engines,
        slice_ns: slice_us.saturating_mul(NS_PER_US),
        memory_bytes: memory_mib << 20,
        ..Config::default()
    };
    let clock = match clock {
        Clock::Virtual => HostClock::Virtual,
        Clock::Real => HostClock::Real,
    };
    let device = DeviceConfig::new("sim").cancel_grace(CANCEL_GRACE);
    HostConfig { gpu, device, clock, keep_history: true, ..HostConfig::default() }
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

/// A client as `client` describes it.
pub(super) fn client_config(scenario: &Scenario, client: &model::Client) -> ClientConfig {
    let queue = QueueConfig::new("ring").priority(priority(client.priority)).weight(client.weight);
    let timeout = Duration::from_millis(scenario.job_limit_ms());
    ClientConfig { credits: scenario.device.credits, timeout, client: None, queue }
}
