//! A job's life through bypass: reserved, committed, run and completed in the submitter, its payload dropped in the next
//! `reserve`.

use super::{POOL, tokio_current, tokio_multi};
use crate::harness::{Contender, Effort, Row, race};
use crate::load::{self, Null, NullBoxed, Payload};
use core::time::Duration;
use outlive::{Executor, JobQueue};
use std::time::Instant;

/// Jobs per contender and round.
const JOBS: u64 = 10_000;

/// `n` jobs, one after the other. The payloads of the last two at most are left to the next `reserve`, or the reaper.
///
/// # Panics
/// Without memory.
pub fn life(queue: &JobQueue<Null>, n: u64) {
    for i in 0..n {
        match queue.reserve(Payload::new(i)) {
            Ok(reserved) => drop(reserved.commit()),
            Err(error) => panic!("{error}"),
        }
    }
}

fn life_boxed(queue: &JobQueue<NullBoxed>, n: u64) {
    for i in 0..n {
        match queue.reserve(Box::new(Payload::new(i))) {
            Ok(reserved) => drop(reserved.commit()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Times `work`, checks that it dropped all its `n` payloads but `left`, and has `rest` drop those, untimed.
fn timed(n: u64, left: u64, work: impl FnOnce(), rest: impl FnOnce()) -> Duration {
    let before = load::dropped();
    let start = Instant::now();
    work();
    let took = start.elapsed();
    assert!(load::dropped() - before + left >= n, "payloads left over");
    rest();
    load::until_dropped(before + n);
    took
}

/// Nothing is left over, or threads see to it.
const fn nothing() {}

fn manual() -> Contender {
    let executor = load::manual(load::clock_ns);
    let queue = load::queue::<Null>(&executor, true);
    Contender::new("outlive, manual executor", move |n| timed(n, 2, || life(&queue, n), || executor.run_until_idle()))
}

fn manual_virtual() -> Contender {
    let executor = Executor::manual().expect("memory for an executor");
    let queue = load::queue::<Null>(&executor, true);
    Contender::new("outlive, manual executor, virtual time", move |n| {
        timed(n, 2, || life(&queue, n), || executor.run_until_idle())
    })
}

fn threaded() -> Contender {
    let executor = load::threads(load::clock_ns);
    let queue = load::queue::<Null>(&executor, true);
    Contender::new("outlive, three threads", move |n| timed(n, 2, || life(&queue, n), nothing))
}

fn boxed() -> Contender {
    let executor = load::threads(load::clock_ns);
    let queue = load::queue::<NullBoxed>(&executor, true);
    Contender::new("outlive, three threads, payload in a box", move |n| timed(n, 2, || life_boxed(&queue, n), nothing))
}

async fn spawn_and_await(n: u64) {
    for i in 0..n {
        let payload = Box::new(Payload::new(i));
        tokio::spawn(async move { drop(payload) }).await.expect("a task");
    }
}

async fn spawn_and_await_inline(n: u64) {
    for i in 0..n {
        let payload = Payload::new(i);
        tokio::spawn(async move { drop(payload) }).await.expect("a task");
    }
}

fn tokio_one() -> Contender {
    let runtime = tokio_current();
    Contender::new("tokio current-thread, spawn and await", move |n| {
        timed(n, 0, || runtime.block_on(spawn_and_await(n)), nothing)
    })
}

fn tokio_one_inline() -> Contender {
    let runtime = tokio_current();
    Contender::new("tokio current-thread, payload not in a box", move |n| {
        timed(n, 0, || runtime.block_on(spawn_and_await_inline(n)), nothing)
    })
}

fn tokio_many() -> Contender {
    let runtime = tokio_multi();
    Contender::new("tokio multi-thread, spawn and await in a task", move |n| {
        let life = async { tokio::spawn(spawn_and_await(n)).await.expect("a task") };
        timed(n, 0, || runtime.block_on(life), nothing)
    })
}

fn rayon() -> Contender {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(POOL).build().expect("a pool");
    Contender::new("rayon, scope with 64 spawns", move |n| {
        let life = || {
            for first in (0..n).step_by(64) {
                rayon::scope(|scope| {
                    for i in first..n.min(first + 64) {
                        let payload = Box::new(Payload::new(i));
                        scope.spawn(move |_| drop(payload));
                    }
                });
            }
        };
        timed(n, 0, || pool.install(life), nothing)
    })
}

/// A thread that drops what it is sent.
pub(crate) fn channel(depth: usize) -> Contender {
    let (sender, receiver) = crossbeam_channel::bounded::<Box<Payload>>(depth);
    // Ends with the sender.
    std::thread::spawn(move || receiver.into_iter().for_each(drop));
    Contender::new(format!("crossbeam bounded({depth}) and a thread"), move |n| {
        let before = load::dropped();
        let life = || {
            for i in 0..n {
                sender.send(Box::new(Payload::new(i))).expect("the thread");
            }
            load::until_dropped(before + n);
        };
        timed(n, 0, life, nothing)
    })
}

/// All of them.
#[must_use]
pub fn run(effort: Effort) -> Vec<Row> {
    let mut contenders = [
        threaded(),
        manual(),
        manual_virtual(),
        boxed(),
        tokio_one(),
        tokio_one_inline(),
        tokio_many(),
        rayon(),
        channel(64),
    ];
    race(&mut contenders, effort, JOBS, 1)
}
