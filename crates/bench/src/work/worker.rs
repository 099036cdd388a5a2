//! A job's life through the signalling lane: committed here, run and completed there. `depth` jobs at most are on their
//! way; when that many are, the submitter waits for the first half of them.

use super::bypass::channel;
use super::tokio_multi;
use crate::harness::{Contender, Effort, Row, race};
use crate::load::{self, Null, Payload};
use alloc::collections::VecDeque;
use core::time::Duration;
use outlive::{Fence, JobQueue};
use std::time::Instant;

/// Jobs per contender and round.
const JOBS: u64 = 8_192;

fn submit(queue: &JobQueue<Null>, i: u64) -> Fence {
    match queue.reserve(Payload::new(i)) {
        Ok(reserved) => reserved.commit().finished(),
        Err(error) => panic!("{error}"),
    }
}

/// `n` jobs on a queue whose lane is a thread, at `depth`.
///
/// # Panics
/// Without memory.
pub fn life(queue: &JobQueue<Null>, depth: usize, n: u64) {
    let mut window = VecDeque::with_capacity(depth);
    for i in 0..n {
        window.push_back(submit(queue, i));
        if window.len() == depth {
            let half = depth.div_ceil(2);
            window[half - 1].wait(Duration::MAX).expect("finished");
            window.drain(..half);
        }
    }
    if let Some(last) = window.back() {
        last.wait(Duration::MAX).expect("finished");
    }
}

fn threaded(depth: usize) -> Contender {
    let executor = load::threads(load::clock_ns);
    let queue = load::queue::<Null>(&executor, false);
    Contender::new("outlive, three threads", move |n| {
        let before = load::dropped();
        let start = Instant::now();
        life(&queue, depth, n);
        let took = start.elapsed();
        load::until_dropped(before + n);
        took
    })
}

fn manual(depth: usize) -> Contender {
    let executor = load::manual(load::clock_ns);
    let queue = load::queue::<Null>(&executor, false);
    Contender::new("outlive, one thread, stepped when full", move |n| {
        let before = load::dropped();
        let start = Instant::now();
        for i in 0..n {
            let last = submit(&queue, i);
            if (i + 1) % depth as u64 == 0 || i + 1 == n {
                executor.step();
                assert!(last.is_signaled(), "the lane had all work");
            }
        }
        executor.run_until_idle();
        let took = start.elapsed();
        assert_eq!(load::dropped() - before, n, "payloads left over");
        took
    })
}

fn tokio(depth: usize) -> Contender {
    let runtime = tokio_multi();
    let mut window = VecDeque::with_capacity(depth);
    Contender::new("tokio multi-thread, spawned from outside", move |n| {
        let start = Instant::now();
        runtime.block_on(async {
            for i in 0..n {
                let payload = Box::new(Payload::new(i));
                window.push_back(tokio::spawn(async move { drop(payload) }));
                if window.len() == depth {
                    for task in window.drain(..depth.div_ceil(2)) {
                        task.await.expect("a task");
                    }
                }
            }
            for task in window.drain(..) {
                task.await.expect("a task");
            }
        });
        start.elapsed()
    })
}

/// At `depth`.
#[must_use]
pub fn run(effort: Effort, depth: usize) -> Vec<Row> {
    let jobs = if depth == 1 { JOBS / 16 } else { JOBS };
    race(&mut [threaded(depth), manual(depth), tokio(depth), channel(depth)], effort, jobs, 1)
}
