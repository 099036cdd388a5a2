//! What a job costs the machine that simulates, all included: library, device, page tables, checkers, audit, and a client
//! that commits its next job when one has finished.
//!
//! `cargo run --release -p outlive-sim --example throughput -- --help`

extern crate alloc;

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use outlive::Time;
use outlive_sim::driver::{ClientConfig, HostConfig, JobSpec, SimClient, SimHost, Work};
use outlive_sim::gpu::{Audit, Config};

const HELP: &str = "\
usage: throughput [--jobs N] [--clients N] [--depth N] [--only WORDS]

Runs N jobs (1000000) of 50 us of hardware time in virtual time, spread over the clients (50), each of which keeps up
to `depth` (8) of them outstanding, once for every kind of work and device below. Prints the wall time of one job, all
included; history is taken and thrown away, and the audit at the end must be clean: else exit status 1.
--only: just the lines that contain these words, for example --only 'spin, 1 engine'.";

/// How often history is thrown away, in jobs.
const BATCH: u64 = 4096;
const HARDWARE_TIME: Duration = Duration::from_micros(50);

type Failure = Box<dyn core::error::Error>;

#[derive(Debug, Clone)]
struct Load {
    jobs: u64,
    clients: usize,
    depth: usize,
    only: String,
}

impl Load {
    fn from_arguments() -> Option<Self> {
        let mut load = Self { jobs: 1_000_000, clients: 50, depth: 8, only: String::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next()?;
            match argument.as_str() {
                "--jobs" => load.jobs = value.parse().ok()?,
                "--clients" => load.clients = value.parse().ok()?,
                "--depth" => load.depth = value.parse().ok()?,
                "--only" => load.only = value,
                _ => return None,
            }
        }
        (load.clients > 0 && load.depth > 0).then_some(load)
    }
}

/// Clients of which a job has finished, in that order; each may commit its next.
#[derive(Debug, Clone, Default)]
struct Finished(Arc<Mutex<Vec<usize>>>);

impl Finished {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commits jobs until there are enough.
struct Clients {
    clients: Vec<SimClient>,
    finished: Finished,
    turns: Vec<usize>,
    work: Work,
    left: u64,
    failed: Option<Failure>,
}

impl Clients {
    /// Lets each client whose job has finished commit its next. True once nothing is outstanding or something failed.
    fn step(&mut self, outstanding: &mut u64) -> bool {
        core::mem::swap(&mut self.turns, &mut self.finished.lock());
        *outstanding -= self.turns.len() as u64;
        let mut turns = core::mem::take(&mut self.turns);
        for at in turns.drain(..) {
            if let Err(error) = self.commit(at, outstanding) {
                self.failed = Some(error);
            }
        }
        self.turns = turns;
        *outstanding == 0 || self.failed.is_some()
    }

    fn commit(&mut self, at: usize, outstanding: &mut u64) -> Result<(), Failure> {
        if self.left == 0 {
            return Ok(());
        }
        let job = self.clients[at].submit(JobSpec::new(HARDWARE_TIME, self.work))?;
        self.left -= 1;
        *outstanding += 1;
        let finished = self.finished.clone();
        let registered = job.fences.finished().on_signaled(move |_| finished.lock().push(at));
        registered.map_err(|refused| format!("{refused}"))?.keep();
        Ok(())
    }
}

/// Microseconds of wall time for a job.
fn measure(load: &Load, gpu: Config, work: Work) -> Result<(f64, Audit), Failure> {
    let host = SimHost::new(HostConfig { gpu, keep_history: true, ..HostConfig::default() })?;
    let begin = Instant::now();
    let clients: Result<Vec<SimClient>, _> =
        (0..load.clients).map(|at| SimClient::new(&host, &format!("client.{at}"), ClientConfig::default())).collect();
    let (finished, turns) = (Finished::default(), Vec::new());
    let mut world = Clients { clients: clients?, finished, turns, work, left: load.jobs, failed: None };
    let mut outstanding = 0;
    for at in (0..load.clients).cycle().take(load.clients * load.depth) {
        world.commit(at, &mut outstanding)?;
    }
    let mut history_from = load.jobs;
    let all = host.run_while_waiting(Time::from_ns(u64::MAX / 4), || {
        if history_from - world.left >= BATCH {
            history_from = world.left;
            drop((host.take_ends(), host.take_stretches()));
        }
        world.step(&mut outstanding)
    });
    if let Some(error) = world.failed {
        return Err(error);
    }
    drop(world.clients);
    let empty = host.run_while_waiting(Time::from_ns(u64::MAX / 4), || host.bytes_in_use() == 0);
    let audit = host.finish();
    let wall = begin.elapsed();
    if !all || !empty || !audit.is_clean() {
        return Err(format!("not all is well: {audit:#?}").into());
    }
    Ok((wall.as_secs_f64() * 1e6 / load.jobs as f64, audit))
}

fn main() -> Result<(), Failure> {
    let Some(load) = Load::from_arguments() else {
        println!("{HELP}");
        let asked = std::env::args().any(|argument| argument == "--help" || argument == "-h");
        std::process::exit(if asked { 0 } else { 2 });
    };
    println!("{} jobs, {} clients, {} outstanding each", load.jobs, load.clients, load.depth);
    for (work, name) in [(Work::Spin, "spin"), (Work::Fill, "fill"), (Work::Copy, "copy")] {
        for (engines, slice_ns, device) in [
            (1, 1_000_000, "1 engine, slice 1 ms"),
            (4, 1_000_000, "4 engines, slice 1 ms"),
            (1, 0, "1 engine, in order"),
            (4, 0, "4 engines, in order"),
        ] {
            let name = format!("{name}, {device}");
            if !name.contains(&load.only) {
                continue;
            }
            let gpu = Config { engines, slice_ns, ..Config::default() };
            let (us, audit) = measure(&load, gpu, work)?;
            println!(
                "{name:28} {us:6.2} us a job; {} payloads, {} fences",
                audit.payloads_released, audit.fences_signaled
            );
        }
    }
    Ok(())
}
