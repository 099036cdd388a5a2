//! A chain of 1,000 jobs, each depending on the one before, over several queues.
//!
//! *Held*: the first waits for a fence that is signaled when all are committed, so every dependency is really waited for.
//! *Free*: nothing holds it, so a job's dependency has mostly been met by the time it is committed.

use super::{tokio_current, tokio_multi};
use crate::harness::{Contender, Effort, Row, race};
use crate::load::{self, Null, Payload};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use outlive::{Executor, Fence, FenceContext, JobQueue, Names};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Jobs of a chain.
pub const LENGTH: u64 = 1_000;
/// Chains per contender and round.
const CHAINS: u64 = 10;

/// A context for the fences that hold chains.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn context(executor: &Executor) -> FenceContext {
    FenceContext::new(executor, Names { driver: "bench", timeline: "hold" }).expect("memory for a fence context")
}

/// Commits a chain after `first`; its last `finished`.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn commit(queues: &[JobQueue<Null>], first: Option<Fence>) -> Fence {
    let mut last = first;
    for i in 0..LENGTH {
        let queue = &queues[i as usize % queues.len()];
        let reserved = match queue.reserve_after(Payload::new(i), last.as_ref()) {
            Ok(reserved) => reserved,
            Err(error) => panic!("{error}"),
        };
        last = Some(reserved.commit().finished());
    }
    last.expect("a chain is not empty")
}

/// One held chain on an executor that this thread drives, to the last payload.
///
/// # Panics
/// Without memory, or if the chain got stuck.
pub fn held_manual(executor: &Executor, context: &FenceContext, queues: &[JobQueue<Null>]) {
    let (signaler, fence) = context.allocate().expect("memory for a fence").publish();
    let last = commit(queues, Some(fence));
    assert!(!last.is_signaled(), "held");
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert!(last.is_signaled(), "the chain ran to its end");
}

fn manual(queues: usize, held: bool) -> Contender {
    let executor = load::manual(load::clock_ns);
    let context = context(&executor);
    let queues = load::queues::<Null>(&executor, queues, true);
    Contender::new("outlive, one thread", move |n| {
        let before = load::dropped();
        let start = Instant::now();
        for _ in 0..n {
            if held {
                held_manual(&executor, &context, &queues);
            } else {
                assert!(commit(&queues, None).is_signaled(), "bypass ran the chain");
                executor.run_until_idle();
            }
        }
        let took = start.elapsed();
        assert_eq!(load::dropped() - before, n * LENGTH, "payloads left over");
        took
    })
}

fn threaded(queues: usize, held: bool) -> Contender {
    let executor = load::threads(load::clock_ns);
    let context = context(&executor);
    let queues = load::queues::<Null>(&executor, queues, true);
    Contender::new("outlive, three threads", move |n| {
        let before = load::dropped();
        let start = Instant::now();
        for _ in 0..n {
            let hold = held.then(|| context.allocate().expect("memory for a fence").publish());
            let (signaler, fence) = hold.unzip();
            let last = commit(&queues, fence);
            if let Some(signaler) = signaler {
                signaler.signal(Ok(()));
            }
            last.wait(Duration::MAX).expect("the chain ran to its end");
        }
        let took = start.elapsed();
        load::until_dropped(before + n * LENGTH);
        took
    })
}

/// Tasks that have begun to wait.
static PARKED: AtomicU64 = AtomicU64::new(0);

/// One chain of tasks, each awaiting the handle of the one before.
async fn tasks(held: bool) {
    let (sender, receiver) = oneshot::channel::<()>();
    PARKED.store(1, Ordering::Relaxed);
    let payload = Box::new(Payload::new(0));
    let mut last: JoinHandle<()> = tokio::spawn(async move {
        if held {
            receiver.await.expect("released");
        }
        drop(payload);
    });
    for i in 1..LENGTH {
        let payload = Box::new(Payload::new(i));
        last = tokio::spawn(async move {
            if held {
                PARKED.fetch_add(1, Ordering::Relaxed);
            }
            last.await.expect("the task before");
            drop(payload);
        });
    }
    if held {
        // All of them wait for the one before.
        while PARKED.load(Ordering::Relaxed) < LENGTH {
            tokio::task::yield_now().await;
        }
    }
    sender.send(()).ok();
    last.await.expect("the last task");
}

fn tokio(name: &'static str, runtime: tokio::runtime::Runtime, held: bool) -> Contender {
    Contender::new(name, move |n| {
        let before = load::dropped();
        let start = Instant::now();
        for _ in 0..n {
            runtime.block_on(async { tokio::spawn(tasks(held)).await.expect("the chain") });
        }
        let took = start.elapsed();
        assert_eq!(load::dropped() - before, n * LENGTH, "payloads left over");
        took
    })
}

/// Over `queues` queues.
#[must_use]
pub fn run(effort: Effort, queues: usize, held: bool) -> Vec<Row> {
    let mut contenders = [
        manual(queues, held),
        threaded(queues, held),
        tokio("tokio current-thread, each awaits the one before", tokio_current(), held),
        tokio("tokio multi-thread, each awaits the one before", tokio_multi(), held),
    ];
    race(&mut contenders, effort, CHAINS, LENGTH)
}
