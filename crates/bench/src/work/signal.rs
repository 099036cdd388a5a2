//! A bare fence's life with 0, 1 or 8 closures: allocated, published, registered on, signaled, its closures run, freed;
//! and the signal alone.

use super::tokio_current;
use crate::harness::{Contender, Effort, Row, race};
use crate::load;
use alloc::sync::Arc;
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use outlive::{Executor, Fence, FenceContext, Names, Signaler};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// Fences per contender and round.
const FENCES: u64 = 2_048;

static CALLED: AtomicU64 = AtomicU64::new(0);

/// A fence with `closures` closures.
///
/// # Panics
/// Without memory.
pub fn prepare(context: &FenceContext, closures: u64) -> (Signaler, Fence) {
    let (signaler, fence) = context.allocate().expect("memory for a fence").publish();
    for _ in 0..closures {
        let closure = |_| {
            CALLED.fetch_add(1, Ordering::Relaxed);
        };
        fence.on_signaled(closure).expect("not signaled, and memory").keep();
    }
    (signaler, fence)
}

/// `n` fences' lives with `closures` closures each, one after the other.
pub fn life(executor: &Executor, context: &FenceContext, closures: u64, n: u64) {
    for _ in 0..n {
        let (signaler, fence) = prepare(context, closures);
        signaler.signal(Ok(()));
        if closures > 0 {
            executor.notify();
        }
        drop(fence);
    }
}

/// A context on an executor of its own that this thread drives.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn context(now: fn() -> u64) -> (Executor, FenceContext) {
    let executor = load::manual(now);
    let context =
        FenceContext::new(&executor, Names { driver: "bench", timeline: "signal" }).expect("memory for a context");
    (executor, context)
}

fn fence_life(closures: u64) -> Contender {
    let (executor, context) = context(load::clock_ns);
    Contender::new("outlive fence", move |n| {
        let before = CALLED.load(Ordering::Relaxed);
        let start = Instant::now();
        life(&executor, &context, closures, n);
        let took = start.elapsed();
        assert_eq!(CALLED.load(Ordering::Relaxed) - before, n * closures, "closures left over");
        took
    })
}

fn notify_life(waiters: u64) -> Contender {
    let runtime = tokio_current();
    Contender::new("tokio Notify, notify_waiters", move |n| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..n {
                let notify = Arc::new(Notify::new());
                let mut all: Vec<_> = (0..waiters).map(|_| Box::pin(Arc::clone(&notify).notified_owned())).collect();
                for waiter in &mut all {
                    waiter.as_mut().enable();
                }
                notify.notify_waiters();
                for waiter in all {
                    waiter.await;
                    CALLED.fetch_add(1, Ordering::Relaxed);
                }
            }
            start.elapsed()
        })
    })
}

fn oneshot_life(waiters: u64) -> Contender {
    let runtime = tokio_current();
    Contender::new("tokio oneshot, one per waiter", move |n| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..n {
                let all: Vec<_> = (0..waiters).map(|_| oneshot::channel()).collect();
                let (senders, receivers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                for sender in senders {
                    sender.send(()).expect("its receiver");
                }
                for receiver in receivers {
                    receiver.await.expect("its sender");
                    CALLED.fetch_add(1, Ordering::Relaxed);
                }
            }
            start.elapsed()
        })
    })
}

/// Lives.
#[must_use]
pub fn run_life(effort: Effort, closures: u64) -> Vec<Row> {
    let mut contenders = vec![fence_life(closures), notify_life(closures)];
    if closures > 0 {
        contenders.push(oneshot_life(closures));
    }
    race(&mut contenders, effort, FENCES, 1)
}

fn fence_signal(closures: u64) -> Contender {
    let (executor, context) = context(load::clock_ns);
    Contender::new("outlive fence", move |n| {
        let (signalers, fences): (Vec<_>, Vec<_>) = (0..n).map(|_| prepare(&context, closures)).unzip();
        let start = Instant::now();
        for signaler in signalers {
            signaler.signal(Ok(()));
        }
        let took = start.elapsed();
        executor.run_until_idle();
        drop(fences);
        took
    })
}

fn notify_signal(waiters: u64) -> Contender {
    Contender::new("tokio Notify, notify_waiters", move |n| {
        let mut cx = Context::from_waker(Waker::noop());
        let notifies: Vec<_> = (0..n).map(|_| Arc::new(Notify::new())).collect();
        let mut all = Vec::new();
        for notify in &notifies {
            for _ in 0..waiters {
                let mut waiter = Box::pin(Arc::clone(notify).notified_owned());
                assert_eq!(waiter.as_mut().poll(&mut cx), Poll::Pending);
                all.push(waiter);
            }
        }
        let start = Instant::now();
        for notify in &notifies {
            notify.notify_waiters();
        }
        start.elapsed()
    })
}

fn oneshot_signal(waiters: u64) -> Contender {
    Contender::new("tokio oneshot, one per waiter", move |n| {
        let mut cx = Context::from_waker(Waker::noop());
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..n * waiters).map(|_| oneshot::channel::<()>()).unzip();
        for receiver in &mut receivers {
            assert!(pin!(receiver).poll(&mut cx).is_pending());
        }
        let start = Instant::now();
        for sender in senders {
            sender.send(()).expect("its receiver");
        }
        let took: Duration = start.elapsed();
        drop(receivers);
        took
    })
}

/// Signals alone: registered before, run after the clock has stopped.
#[must_use]
pub fn run_signal(effort: Effort, closures: u64) -> Vec<Row> {
    let mut contenders = vec![fence_signal(closures), notify_signal(closures)];
    if closures > 0 {
        contenders.push(oneshot_signal(closures));
    }
    race(&mut contenders, effort, FENCES, 1)
}
