//! What is counted in instructions: `benches/instructions.rs` runs these under callgrind, `src/bin/gate.rs` compares the
//! counts with `baseline.toml`. Everything runs on one thread, with a clock that stands still, after a warm-up.

use crate::load::{self, Null};
use crate::work::containers::{self, Fences, Points};
use crate::work::turns::Turns;
use crate::work::{bypass, chain, signal, turns};
use core::fmt;
use outlive::{Executor, Fence, FenceContext, JobQueue};

/// Something that was made and warmed up before counting begins.
pub struct Fixture {
    executor: Executor,
    context: FenceContext,
    queues: Vec<JobQueue<Null>>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixture")
    }
}

/// Jobs or fences per run; the counts of a run are divided by it.
pub const UNITS: u64 = 1_000;

fn fixture(queues: usize, bypass: bool) -> Fixture {
    let executor = load::manual(load::still_clock_ns);
    let context = chain::context(&executor);
    let queues = load::queues(&executor, queues, bypass);
    Fixture { executor, context, queues }
}

/// For [`bypass_life`].
#[must_use]
pub fn bypass_ready() -> Fixture {
    let fixture = fixture(1, true);
    bypass::life(&fixture.queues[0], 64);
    fixture
}

/// [`UNITS`] jobs through bypass.
pub fn bypass_life(fixture: &Fixture) {
    bypass::life(&fixture.queues[0], UNITS);
}

/// For [`worker_life`].
#[must_use]
pub fn worker_ready() -> Fixture {
    let fixture = fixture(1, false);
    worker_life(&fixture);
    fixture
}

/// [`UNITS`] jobs through the lane, stepped after every 50th.
pub fn worker_life(fixture: &Fixture) {
    for _ in 0..UNITS / 50 {
        bypass::life(&fixture.queues[0], 50);
        fixture.executor.run_until_idle();
    }
}

/// For [`dependent_job`], over `queues` queues.
#[must_use]
pub fn dependent_ready(queues: usize) -> Fixture {
    let fixture = fixture(queues, true);
    dependent_job(&fixture);
    fixture
}

/// A held chain of [`UNITS`] jobs.
pub fn dependent_job(fixture: &Fixture) {
    chain::held_manual(&fixture.executor, &fixture.context, &fixture.queues);
}

/// For [`signal_life`], with `closures` closures.
#[must_use]
pub fn signal_ready(closures: u64) -> (Fixture, u64) {
    let fixture = fixture(0, true);
    signal::life(&fixture.executor, &fixture.context, closures, 64);
    (fixture, closures)
}

/// [`UNITS`] fences, from allocation to the last closure.
pub fn signal_life((fixture, closures): &(Fixture, u64)) {
    signal::life(&fixture.executor, &fixture.context, *closures, UNITS);
}

/// For [`turn_life`] and [`turn_pick`]: 1,000 ready queues, and `blocked` that wait.
#[must_use]
pub fn turns_ready(blocked: u32) -> Turns {
    turns::ready(blocked)
}

/// [`UNITS`] jobs: whose turn it is, start, end, and the queue is ready again.
pub fn turn_life(turns: &mut Turns) {
    turns::life(turns, UNITS);
}

/// [`UNITS`] times the question whose turn it is.
pub fn turn_pick(turns: &mut Turns) {
    turns::pick(turns, UNITS);
}

/// For [`merge`]: `pending` fences that are, and `signaled` that have signaled.
#[must_use]
pub fn merge_ready(pending: usize, signaled: usize) -> Fences {
    let fences = containers::fences(pending, signaled);
    containers::merge(&fences, 64);
    fences
}

/// [`UNITS`] merges.
pub fn merge(fences: &Fences) {
    containers::merge(fences, UNITS);
}

/// [`UNITS`] questions whether a fence has signaled: what it is makes no difference, for it is one load.
pub fn read((fence, _): &(Fence, Fences)) {
    containers::read(fence, UNITS);
}

/// For [`find`], of point `number`.
#[must_use]
pub fn find_ready(number: u64) -> (Points, u64) {
    (containers::points(), number)
}

/// [`UNITS`] look-ups in a timeline of as many points.
pub fn find((points, number): &(Points, u64)) {
    containers::find(points, *number, UNITS);
}

const _: () = assert!(UNITS == chain::LENGTH, "a run is one chain");
