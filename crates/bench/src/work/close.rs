//! `close` with 100,000 waiting jobs: how long the call itself takes, how long until the last of their `finished` fences
//! has signaled, and how long until the queue is drained (all payloads dropped).

use super::tokio_multi;
use crate::harness::Spread;
use crate::load::{self, Null, Payload};
use core::future::pending;
use core::time::Duration;
use outlive::{FenceError, Status, WaitError};
use std::time::Instant;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Waiting jobs.
pub const JOBS: u64 = 100_000;

/// What one contender took, in microseconds.
#[derive(Debug, Clone)]
pub struct Closing {
    /// Who.
    pub name: &'static str,
    /// The call.
    pub call: Spread,
    /// Share of calls that took at most 20 µs.
    pub call_within: f64,
    /// The slowest call.
    pub call_worst: f64,
    /// From before the call until the last fence has signaled (the last task has ended).
    pub last: Spread,
    /// The longest.
    pub last_worst: f64,
    /// From before the call until all payloads were dropped.
    pub gone: Spread,
}

type Once = (Duration, Duration, Duration);

fn close(executor: &outlive::Executor, jobs: u64) -> Once {
    let context = super::chain::context(executor);
    let (signaler, hold) = context.allocate().expect("memory for a fence").publish();
    let queue = load::queue::<Null>(executor, true);
    let mut last = None;
    for i in 0..jobs {
        let first = (i == 0).then_some(&hold);
        match queue.reserve_after(Payload::new(i), first) {
            Ok(reserved) => last = Some(reserved.commit().finished()),
            Err(error) => panic!("{error}"),
        }
    }
    let last = last.expect("at least one job");
    assert_eq!(last.status(), Status::Pending, "they wait");
    let start = Instant::now();
    let drained = queue.close();
    let call = start.elapsed();
    assert_eq!(last.wait(Duration::MAX), Err(WaitError::Failed(FenceError::Canceled)));
    let signaled = start.elapsed();
    drained.wait(Duration::MAX).expect("drained");
    let gone = start.elapsed();
    drop(signaler);
    (call, signaled, gone)
}

/// As [`close`], without a thread to wake: the call's own cost.
fn close_alone(jobs: u64) -> Duration {
    let executor = load::manual(load::clock_ns);
    let context = super::chain::context(&executor);
    let (signaler, hold) = context.allocate().expect("memory for a fence").publish();
    let queue = load::queue::<Null>(&executor, true);
    for i in 0..jobs {
        let first = (i == 0).then_some(&hold);
        match queue.reserve_after(Payload::new(i), first) {
            Ok(reserved) => drop(reserved.commit()),
            Err(error) => panic!("{error}"),
        }
    }
    let start = Instant::now();
    let drained = queue.close();
    let call = start.elapsed();
    drop(signaler);
    executor.run_until_idle();
    assert!(drained.is_drained(), "all of it is gone");
    call
}

fn abort(runtime: &Runtime, jobs: u64) -> Once {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for i in 0..jobs {
            let payload = Box::new(Payload::new(i));
            tasks.spawn(async move {
                pending::<()>().await;
                drop(payload);
            });
        }
        tokio::task::yield_now().await;
        let start = Instant::now();
        tasks.abort_all();
        let call = start.elapsed();
        while tasks.join_next().await.is_some() {}
        let ended = start.elapsed();
        (call, ended, ended)
    })
}

fn closing(name: &'static str, all: &[Once]) -> Closing {
    let us = |pick: fn(&Once) -> Duration| all.iter().map(|once| pick(once).as_secs_f64() * 1e6).collect::<Vec<_>>();
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (mut call, mut last, mut gone) = (us(|once| once.0), us(|once| once.1), us(|once| once.2));
    Closing {
        name,
        call_within: call.iter().filter(|us| **us <= 20.0).count() as f64 / call.len() as f64,
        call_worst: worst(&call),
        last_worst: worst(&last),
        call: Spread::of(&mut call),
        last: Spread::of(&mut last),
        gone: Spread::of(&mut gone),
    }
}

/// `rounds` rounds of each, in turn, after one that does not count; and the call alone, with no thread to wake, in
/// microseconds.
#[must_use]
pub fn run(rounds: usize) -> (Vec<Closing>, Spread) {
    let executor = load::threads(load::clock_ns);
    let runtime = tokio_multi();
    let (mut ours, mut theirs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (one, other);
        if round % 2 == 0 {
            one = close(&executor, JOBS);
            other = abort(&runtime, JOBS);
        } else {
            other = abort(&runtime, JOBS);
            one = close(&executor, JOBS);
        }
        let call = close_alone(JOBS);
        if round > 0 {
            alone.push(call.as_secs_f64() * 1e6);
            ours.push(one);
            theirs.push(other);
        }
    }
    let closings =
        vec![closing("outlive, three threads", &ours), closing("tokio multi-thread, JoinSet::abort_all", &theirs)];
    (closings, Spread::of(&mut alone))
}
