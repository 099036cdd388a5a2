//! Going away: at any moment, from anywhere, with jobs in every stage. And drivers that break their promises.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod completions;
mod handles;
mod panics;
mod resets;

use common::{Call, Rig, SOON, buffers, error, ok, pending};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::{
    Acquired, Completion, Device, Executor, FenceContext, FenceError, JobFences, Names, QueueConfig, Refusal,
    ResetScope, Time, Times, Verdict,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
const MS: Duration = Duration::from_millis(1);

/// Lets time pass until nothing is left to happen.
fn run_out(executor: &Executor) {
    for _ in 0..1_000 {
        executor.run_until_idle();
        match executor.next_timer() {
            Some(at) => executor.advance_to(at),
            None => break,
        }
    }
    executor.run_until_idle();
}

/// Nothing of `rig` is left once its handles are gone.
fn all_gone(rig: Rig) {
    let Rig { executor, device, live } = rig;
    let gone = device.drained();
    drop(device);
    run_out(&executor);
    assert!(gone.is_drained());
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1));
}

#[test]
fn two_queues_close_each_other_from_their_callbacks() {
    let rig = Rig::new();
    let queues = Arc::new([rig.queue(QueueConfig::new("a")), rig.queue(QueueConfig::new("b"))]);
    let jobs: Vec<JobFences> = queues.iter().map(|queue| queue.reserve(rig.buffers(0)).unwrap().commit()).collect();
    for (index, job) in jobs.iter().enumerate() {
        let queues = queues.clone();
        job.finished().on_signaled(move |_| drop(queues[1 - index].close())).unwrap().keep();
    }
    let drained = queues[0].close();
    rig.idle();
    assert!(jobs.iter().all(|job| error(&job.finished()) == Some(FenceError::Canceled)));
    rig.complete(&queues[0], 1, Ok(()));
    rig.complete(&queues[1], 1, Ok(()));
    rig.idle();
    assert!(drained.is_drained() && queues[1].drained().is_drained());
    drop(queues);
    all_gone(rig);
}

#[test]
fn a_commit_that_lost_against_close_joins_the_end_of_the_closing_list() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(1));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    let late = queue.reserve(rig.buffers(3)).unwrap();
    drop(queue.close());
    let refused = queue.reserve(rig.buffers(4)).unwrap_err();
    assert_eq!(refused.kind, Refusal::Closed);
    let late = late.commit();
    assert_eq!(late.finished().seqno(), 3);
    drop(refused);
    rig.idle();
    for job in [&running, &waiting, &late] {
        assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    }
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert!(ok(&late.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn commits_race_with_close_from_another_thread() {
    let rig = Rig::threads(true);
    for round in 0..200 {
        let queue = rig.queue(QueueConfig::new("q"));
        let fences = std::thread::scope(|scope| {
            let committer = scope.spawn(|| {
                let mut fences = Vec::new();
                while let Ok(job) = queue.reserve(buffers(&rig.live, round)) {
                    fences.push(job.commit());
                }
                fences
            });
            std::thread::sleep(Duration::from_micros(round % 50));
            queue.close().wait(SOON).unwrap();
            committer.join().unwrap()
        });
        let mut closed = false;
        for job in fences {
            let _ = job.finished().wait(SOON);
            let _ = job.retired().wait(SOON);
            closed |= !ok(&job.finished());
            assert_eq!(closed, error(&job.finished()) == Some(FenceError::Canceled), "cancelled ones come last");
        }
    }
    let gone = rig.device.drained();
    let live = rig.live.clone();
    drop(rig);
    gone.wait(SOON).unwrap();
    assert_eq!(live.alive(), 0);
}

#[test]
fn acquire_that_names_its_own_fence_or_signaled_ones_for_ever_fails_the_job_with_a_reason() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").bypass(false));
    let first = queue.reserve(rig.buffers(1)).unwrap().commit();
    let own = first.finished();
    rig.gpu().script(|script| script.acquire = Some(Box::new(move |_| Acquired::Wait(own.clone()))));
    rig.idle();
    assert_eq!(error(&first.finished()), Some(FenceError::DriverBug));
    assert!(FenceError::DriverBug.to_string().contains("acquire"));
    let spun = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.gpu().script(|script| script.acquire = Some(Box::new(|_| Acquired::Wait(outlive::Fence::stub()))));
    rig.idle();
    assert_eq!(error(&spun.finished()), Some(FenceError::DriverBug));
    assert!(ok(&spun.retired()));
    rig.gpu().script(|script| script.acquire = Some(Box::new(|_| Acquired::Never(9))));
    let never = queue.reserve(rig.buffers(3)).unwrap().commit();
    rig.idle();
    assert_eq!(error(&never.finished()), Some(FenceError::Faulted { code: 9 }));
    rig.gpu().script(|script| script.acquire = None);
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_queue_closed_while_its_head_waits_for_a_resource_lets_it_go() {
    let rig = Rig::new();
    let context = FenceContext::new(&rig.executor, Names { driver: "ids", timeline: "free" }).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    rig.gpu().script(|script| script.acquire = Some(Box::new(move |_| Acquired::Wait(fence.clone()))));
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    drop(queue);
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    assert!(ok(&job.retired()));
    assert_eq!(rig.live.alive(), 0);
    signaler.signal(Ok(()));
    rig.gpu().script(|script| script.acquire = None);
    drop(context);
    all_gone(rig);
}

static CLOCK_MS: AtomicU64 = AtomicU64::new(0);
static CLOCK_STEP_MS: AtomicU64 = AtomicU64::new(0);

/// Time that passes between two looks.
fn moving_clock() -> u64 {
    CLOCK_MS.fetch_add(CLOCK_STEP_MS.load(SeqCst), SeqCst) * 1_000_000
}

#[test]
fn a_queue_that_sees_its_time_come_before_the_timer_fires_leaves_no_timer_behind() {
    let rig = Rig::on(Executor::builder().clock(moving_clock).manual().unwrap(), false);
    let first = rig.queue(QueueConfig::new("first").suspend_limit(10 * MS));
    let second = rig.queue(QueueConfig::new("second").bypass(false));
    first.suspend();
    assert_eq!(rig.executor.next_timer(), Some(Time::from_ns(10_000_000)));
    // In one slice of the lane the timers are looked at, at 9 ms; the first queue works, at 11 ms, for the last time;
    // then the second one starts its job, while another thread frees the first one.
    drop(first);
    let _job = second.reserve(rig.buffers(1)).unwrap().commit();
    let (executor, freed) = (rig.executor.clone(), Arc::new(Mutex::new(None)));
    let seen = freed.clone();
    rig.gpu().script(|script| {
        script.acquire = Some(Box::new(move |_| {
            let before = executor.live_objects();
            std::thread::scope(|scope| scope.spawn(|| executor.reap()).join().unwrap());
            *seen.lock().unwrap() = Some((before - executor.live_objects(), executor.next_timer()));
            // Whatever was left behind must not fire.
            CLOCK_STEP_MS.store(0, SeqCst);
            CLOCK_MS.store(0, SeqCst);
            Acquired::Yes
        }));
    });
    CLOCK_MS.store(9, SeqCst);
    CLOCK_STEP_MS.store(2, SeqCst);
    rig.executor.step();
    assert_eq!(*freed.lock().unwrap(), Some((2, None)), "queue and its `drained` are freed, and no timer is left");
    rig.complete(&second, 1, Ok(()));
    drop(second);
    all_gone(rig);
}
