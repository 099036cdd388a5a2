//! Turns what happened into results. Used by whoever executes a scenario.

use alloc::collections::BTreeMap;
use std::collections::HashMap;

use super::busy::BusyTime;
use super::record::{JobRecord, Outcome};
use super::results::{Audit, ClientResult, Failed, GroupResult, Percentiles, Results};
use crate::args::Clock;
use crate::scenario::Scenario;

const NS_PER_US: u64 = 1000;
const NS_PER_MS: u64 = 1_000_000;

/// What the results say of the run as a whole.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// What was found, in words.
    pub device_name: String,
    /// What time it lived in.
    pub clock: Clock,
    /// From the start until everything was retired.
    pub elapsed_ns: u64,
    /// Of the whole device.
    pub resets: u64,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// Whether it was a trace, whose clients live until their last request is done.
    pub replayed: bool,
    /// What the hardware and the run counted.
    pub audit: Audit,
}

/// Gathers what happens to every client of one run.
#[derive(Debug)]
pub struct Collector<'a> {
    scenario: &'a Scenario,
    instances: Vec<Gathered>,
}

/// What happened to one instance.
#[derive(Debug, Default)]
struct Gathered {
    /// When it came, and when it was killed or closed.
    lives: Vec<(u64, Option<u64>)>,
    banned: bool,
    submitted: u64,
    finished_ok: u64,
    failed: Failed,
    cycles: u64,
    /// Cycles of which not all jobs are known yet.
    open_cycles: BTreeMap<u64, OpenCycle>,
    evictions: u64,
    restores: u64,
    stretches: Vec<(u64, u64)>,
    waits_ns: Vec<u64>,
    cycle_times_ns: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct OpenCycle {
    jobs: u32,
    all_ok: bool,
    first_committed_ns: u64,
    last_finished_ns: u64,
}

impl<'a> Collector<'a> {
    /// For a run of `scenario`.
    #[must_use]
    pub fn new(scenario: &'a Scenario) -> Self {
        let instances = scenario.instances.iter().map(|_| Gathered::default()).collect();
        Self { scenario, instances }
    }

    /// `instance` came, for the first time or again.
    ///
    /// # Panics
    ///
    /// If the scenario has no such instance; so do all methods that take one.
    pub fn client_came(&mut self, instance: usize, at_ns: u64) {
        self.instances[instance].lives.push((at_ns, None));
    }

    /// `instance` was killed or closed. Its stop and the end of the run are known from the scenario.
    ///
    /// # Panics
    ///
    /// See [`Collector::client_came`].
    pub fn client_left(&mut self, instance: usize, at_ns: u64) {
        if let Some((_, end @ None)) = self.instances[instance].lives.last_mut() {
            *end = Some(at_ns);
        }
    }

    /// `instance` was shut out.
    ///
    /// # Panics
    ///
    /// See [`Collector::client_came`].
    pub fn client_banned(&mut self, instance: usize) {
        self.instances[instance].banned = true;
    }

    /// A life of `instance` is over: so often its persistent buffers were moved out of the device's memory, and back.
    ///
    /// # Panics
    ///
    /// See [`Collector::client_came`].
    pub fn client_moved(&mut self, instance: usize, evictions: u64, restores: u64) {
        self.instances[instance].evictions += evictions;
        self.instances[instance].restores += restores;
    }

    /// All is over for one job. Jobs may come in any order; each comes once.
    ///
    /// # Panics
    ///
    /// See [`Collector::client_came`].
    pub fn job(&mut self, job: &JobRecord) {
        let gathered = &mut self.instances[job.instance];
        gathered.submitted += 1;
        match job.outcome {
            Outcome::Ok => gathered.finished_ok += 1,
            Outcome::Canceled => gathered.failed.canceled += 1,
            Outcome::TimedOut => gathered.failed.timed_out += 1,
            Outcome::DeviceLost => gathered.failed.device_lost += 1,
            Outcome::Faulted => gathered.failed.faulted += 1,
            Outcome::Dependency => gathered.failed.dependency += 1,
            Outcome::Innocent => gathered.failed.innocent += 1,
        }
        gathered.stretches.extend(job.stretches.iter().map(|stretch| (stretch.from_ns, stretch.to_ns)));
        if let (Some(ready), Some(started)) = (job.ready_ns, job.started_ns()) {
            gathered.waits_ns.push(started.saturating_sub(ready));
        }
        gathered.add_to_cycle(job);
    }

    /// The results, once everything is retired.
    #[must_use]
    pub fn finish(self, facts: RunFacts) -> Results {
        let Self { scenario, mut instances } = self;
        let everything: Vec<_> = instances.iter().flat_map(|gathered| gathered.stretches.iter().copied()).collect();
        let all = BusyTime::new(&everything);
        let own: Vec<_> = instances.iter().map(|gathered| BusyTime::new(&gathered.stretches)).collect();
        let windows: Vec<_> = instances
            .iter()
            .enumerate()
            .map(|(instance, gathered)| {
                let until = if facts.replayed { gathered.done_ns() } else { submits_until_ns(scenario, instance) };
                gathered.windows(until)
            })
            .collect();
        let groups = groups(scenario, &all, &own, &windows);
        let clients = (0..instances.len())
            .map(|instance| {
                let share = share(&windows[instance], &all, &[&own[instance]]);
                instances[instance].result(scenario, instance, share, hardware_us(&[&own[instance]]))
            })
            .collect();
        let engine_time_ns = u128::from(scenario.device.engines) * u128::from(facts.elapsed_ns);
        Results {
            schema: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.name.clone(),
            device: scenario.device.kind.word().to_owned(),
            device_name: facts.device_name,
            clock: facts.clock.word().to_owned(),
            mode: scenario.scheduler.mode.word().to_owned(),
            policy: scenario.scheduler.policy.word().to_owned(),
            seed: scenario.seed,
            replay: None,
            interrupted: facts.interrupted,
            elapsed_us: facts.elapsed_ns / NS_PER_US,
            device_busy: ratio(all.within_ns(0, u64::MAX), engine_time_ns),
            resets: facts.resets,
            clients,
            groups,
            audit: facts.audit,
        }
    }
}

impl Gathered {
    fn add_to_cycle(&mut self, job: &JobRecord) {
        // Most are of one job: such a one is never put in.
        let mut cycle = self.open_cycles.remove(&job.cycle).unwrap_or_else(|| {
            self.cycles += 1;
            OpenCycle { jobs: 0, all_ok: true, first_committed_ns: u64::MAX, last_finished_ns: 0 }
        });
        cycle.jobs += 1;
        cycle.all_ok &= job.outcome == Outcome::Ok;
        cycle.first_committed_ns = cycle.first_committed_ns.min(job.committed_ns);
        cycle.last_finished_ns = cycle.last_finished_ns.max(job.finished_ns);
        if cycle.jobs < job.cycle_jobs {
            self.open_cycles.insert(job.cycle, cycle);
        } else if cycle.all_ok {
            self.cycle_times_ns.push(cycle.last_finished_ns.saturating_sub(cycle.first_committed_ns));
        }
    }

    /// When the last of its jobs left the hardware.
    fn done_ns(&self) -> u64 {
        self.stretches.iter().map(|(_, to)| *to).max().unwrap_or(0)
    }

    /// The lives, each cut where the client stops submitting.
    fn windows(&self, until_ns: u64) -> Vec<(u64, u64)> {
        self.lives.iter().map(|(from, to)| (*from, to.unwrap_or(until_ns).min(until_ns))).collect()
    }

    fn result(&mut self, scenario: &Scenario, instance: usize, share: f64, hardware_us: u64) -> ClientResult {
        let client = scenario.client_of(instance);
        ClientResult {
            name: scenario.instances[instance].name.clone(),
            group: client.group.clone(),
            priority: client.priority.word().to_owned(),
            weight: client.weight,
            incarnations: u64::try_from(self.lives.len()).unwrap_or(u64::MAX),
            banned: self.banned,
            submitted: self.submitted,
            cycles: self.cycles,
            finished_ok: self.finished_ok,
            failed: self.failed,
            hardware_us,
            share,
            wait_us: percentiles_us(&mut self.waits_ns),
            cycle_us: percentiles_us(&mut self.cycle_times_ns),
            evictions: self.evictions,
            restores: self.restores,
        }
    }
}

fn submits_until_ns(scenario: &Scenario, instance: usize) -> u64 {
    let stop_ms = scenario.client_of(instance).stop_ms.unwrap_or(u64::MAX);
    stop_ms.min(scenario.run_for_ms).saturating_mul(NS_PER_MS)
}

/// The named groups, in the order in which the scenario names them first.
fn groups(scenario: &Scenario, all: &BusyTime, own: &[BusyTime], windows: &[Vec<(u64, u64)>]) -> Vec<GroupResult> {
    let mut names: Vec<&str> = Vec::new();
    let mut members: HashMap<&str, Vec<usize>> = HashMap::new();
    for client in &scenario.clients {
        let Some(name) = client.group.as_deref() else { continue };
        members
            .entry(name)
            .or_insert_with(|| {
                names.push(name);
                Vec::new()
            })
            .extend(client.instances.clone());
    }
    let result = |name: &str| {
        let members = &members[name];
        let lived = union(members.iter().flat_map(|member| windows[*member].iter().copied()).collect());
        let busy: Vec<_> = members.iter().map(|member| &own[*member]).collect();
        GroupResult { name: name.to_owned(), hardware_us: hardware_us(&busy), share: share(&lived, all, &busy) }
    };
    names.into_iter().map(result).collect()
}

/// Windows that do not overlap and cover the same time.
fn union(mut windows: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    windows.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in windows {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined
}

fn share(windows: &[(u64, u64)], all: &BusyTime, own: &[&BusyTime]) -> f64 {
    let within = |busy: &BusyTime| windows.iter().map(|(from, to)| busy.within_ns(*from, *to)).sum::<u128>();
    ratio(own.iter().map(|busy| within(busy)).sum(), within(all))
}

fn hardware_us(own: &[&BusyTime]) -> u64 {
    let ns: u128 = own.iter().map(|busy| busy.within_ns(0, u64::MAX)).sum();
    u64::try_from(ns / u128::from(NS_PER_US)).unwrap_or(u64::MAX)
}

/// Six digits after the point are more than anybody believes, and print the same everywhere. Nothing of nothing is 0.
fn ratio(part: u128, whole: u128) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    // CAST: both are far below 2^100; the loss is below the digits kept.
    let ratio = part as f64 / whole as f64;
    (ratio * 1e6).round() / 1e6
}

/// Whole microseconds; dividing keeps the order, so these are the percentiles of the divided samples too.
fn percentiles_us(samples_ns: &mut [u64]) -> Percentiles {
    let Percentiles { p50, p99, max } = Percentiles::of(samples_ns);
    let us = |ns: Option<u64>| ns.map(|ns| ns / NS_PER_US);
    Percentiles { p50: us(p50), p99: us(p99), max: us(max) }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
