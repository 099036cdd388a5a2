//! From rows to what clients submit: when each request arrives, what its jobs cost, whose they are. Used by `outlive replay`.
//!
//! Arrivals that were recorded in ticks are spread over them, seeded; then all are moved together by the speed. Requests go to
//! the clients in turn, in the order in which they arrive.

use outlive_sim::gpu::rng::Rng;

use super::cost::{CREDITS, Costs, NS_PER_MS, WATCHDOG_MS};
use super::read::Trace;
use super::row::{Format, Row};
use crate::args::ReplayArgs;
use crate::engine::{self, Request};
use crate::error::Stop;
use crate::scenario::model::{Client, Device, DeviceKind, Instance, Mode, Policy, Priority, Scheduler, Work};
use crate::scenario::{Scenario, memory};

/// Where chance begins unless somebody says otherwise.
pub(super) const SEED: u64 = 1;
/// Mooncake's clock.
const TICK_NS: u64 = 3000 * NS_PER_MS;
/// By how much its ticks are off.
const TICK_SLACK_NS: u64 = 100 * NS_PER_MS;
/// As long as a scenario may be.
const RUN_MS_MAX: u64 = 365 * 24 * 3600 * 1000;
const MIB: u64 = 1 << 20;

/// What each client submits.
pub(super) fn requests(trace: Trace, args: &ReplayArgs, costs: &Costs, seed: u64) -> Vec<Vec<Request>> {
    let Trace { format, mut rows, .. } = trace;
    let start_ns = rows.iter().map(|row| row.at_ns).min().unwrap_or(0);
    if format == Format::Mooncake && comes_in_ticks(&rows) {
        let mut rng = Rng::new(seed);
        for row in &mut rows {
            row.at_ns = row.at_ns.saturating_add(rng.below(TICK_NS));
        }
    }
    rows.sort_by_key(|row| row.at_ns);
    let clients = usize::try_from(args.clients).unwrap_or(1).max(1);
    let mut requests = vec![Vec::with_capacity(rows.len().div_ceil(clients)); clients];
    for (number, row) in rows.iter().enumerate() {
        // CAST: a double has the nanoseconds of a hundred days, and of longer times the microseconds.
        let at_ns = ((row.at_ns - start_ns) as f64 / args.speed) as u64;
        requests[number % clients].push(costs.request(at_ns, row));
    }
    requests
}

/// Whether arrivals were recorded every 3 s only: most steps between those that differ are that long, or there are none.
fn comes_in_ticks(rows: &[Row]) -> bool {
    let mut stamps: Vec<u64> = rows.iter().map(|row| row.at_ns).collect();
    stamps.sort_unstable();
    stamps.dedup();
    let is_tick = |pair: &&[u64]| (pair[1] - pair[0]).abs_diff(TICK_NS) <= TICK_SLACK_NS;
    let ticks = stamps.windows(2).filter(is_tick).count();
    2 * ticks >= stamps.len() - 1
}

/// What the requests run on.
///
/// # Errors
///
/// They would take longer than anybody waits, or more memory than this machine has.
pub(super) fn scenario(
    name: String,
    args: &ReplayArgs,
    seed: u64,
    requests: &[Vec<Request>],
) -> Result<Scenario, Stop> {
    let last_ns = requests.iter().flatten().map(|request| request.at_ns).max().unwrap_or(0);
    let run_for_ms = last_ns / NS_PER_MS + 1;
    if run_for_ms > RUN_MS_MAX {
        let what = format!("`--speed` is {}: the requests would come over more than a year", args.speed);
        return Err(Stop::bad_input(format_args!("outlive: {what}; expected a higher speed")));
    }
    let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
    let instances = (0..count).map(|index| Instance { name: format!("client.{index}"), client: 0, index, after: None });
    let memory_bytes = requests.iter().map(|of_one| bytes(of_one)).sum::<u64>();
    let scenario = Scenario {
        name,
        run_for_ms,
        seed,
        submit_latency_us: 1,
        device: Device {
            kind: DeviceKind::Sim,
            engines: 1,
            credits: CREDITS,
            slice_us: 1000,
            memory_mib: memory_bytes.div_ceil(MIB).max(256),
            watchdog_ms: WATCHDOG_MS,
            vm_ids: 0,
        },
        scheduler: Scheduler {
            mode: Mode::Arbiter,
            policy: args.common.policy.unwrap_or(Policy::Fair),
            timeout_ms: 0,
            ..Scheduler::DEFAULT
        },
        clients: vec![client(requests.len())],
        instances: instances.collect(),
        events: Vec::new(),
    };
    memory::check_host(scenario.device.memory_mib).map_err(|(what, expected)| {
        Stop::bad_input(format_args!("outlive: {what}; expected {expected}: replay less of it, with `--limit`"))
    })?;
    Ok(scenario)
}

/// Device memory for a client with all its requests outstanding.
fn bytes(requests: &[Request]) -> u64 {
    let commands: u64 = requests.iter().map(|request| engine::command_bytes(request.jobs())).sum();
    // An eighth of a page of page tables for each, which is more than it takes.
    memory::CLIENT_BYTES + memory::JOB_BYTES + commands + commands / 8
}

/// Whose loop is that of its requests.
fn client(count: usize) -> Client {
    Client {
        name: "client".to_owned(),
        instances: 0..count,
        group: None,
        group_weight: 100,
        weight: 100,
        priority: Priority::Normal,
        start_ms: 0,
        stop_ms: None,
        jobs_per_cycle: 1,
        duration_us: 0,
        credits: 1,
        think_us: 0,
        sync: false,
        depth: 0,
        chain: true,
        after: None,
        on_dependency_error: None,
        jitter: 0.0,
        work: Work::Spin,
        working_set_kib: 0,
        fault: None,
    }
}
