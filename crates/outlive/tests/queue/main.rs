//! What a queue does when everybody behaves, and what it says to bad input.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod dependencies;
mod time;

use common::{Call, Rig, SOON, error, ok, pending};
use outlive::trace::{Event, QueueChange, Record};
use outlive::{
    Acquired, Cause, Dependency, Executor, FenceError, InFlight, Job, JobFences, Lane, OnError, QueueConfig, Refusal,
    ResetScope, Time, UserFence, Verdict, WaitError,
};
use proptest::prelude::{Strategy, any, proptest};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
const MS: Duration = Duration::from_millis(1);

#[test]
fn credits_bound_what_is_on_the_hardware_and_nobody_overtakes() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(4));
    let large = queue.reserve(Job::new(rig.buffers(1)).credits(3)).unwrap().commit();
    let blocked = queue.reserve(Job::new(rig.buffers(2)).credits(2)).unwrap().commit();
    let small = queue.reserve(Job::new(rig.buffers(3)).credits(1)).unwrap().commit();
    rig.idle();
    assert!(ok(&large.scheduled()) && pending(&blocked.scheduled()));
    assert!(pending(&small.scheduled()), "it would fit, but it is not its turn");
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert!(ok(&blocked.scheduled()) && ok(&small.scheduled()), "several ready jobs in one wake-up");
    assert_eq!(queue.status().credits_free, 1);
}

#[test]
fn a_job_with_nothing_to_wait_for_runs_in_its_submitters_thread() {
    let rig = Rig::threads(true);
    let here = std::thread::current().id();
    let ran_in = Arc::new(Mutex::new(Vec::new()));
    let seen = ran_in.clone();
    rig.gpu().script(|script| script.run = None);
    let queue = rig.queue(QueueConfig::new("bypass"));
    let lane = rig.queue(QueueConfig::new("lane").bypass(false));
    // The payload of an inline driver is dropped later; where it ran is seen in `acquire`.
    rig.gpu().script(|script| {
        script.acquire = Some(Box::new(move |_| {
            seen.lock().unwrap().push(std::thread::current().id());
            Acquired::Yes
        }));
    });
    queue.reserve(rig.buffers(1)).unwrap().commit().finished().wait(SOON).unwrap();
    lane.reserve(rig.buffers(2)).unwrap().commit().finished().wait(SOON).unwrap();
    let ran_in = ran_in.lock().unwrap().clone();
    assert_eq!(ran_in[0], here);
    assert_ne!(ran_in[1], here);
}

#[test]
fn bad_input_is_refused_with_the_reason_and_the_payload() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(4));
    let refused = queue.reserve(Job::new(rig.buffers(1)).credits(0)).unwrap_err();
    assert_eq!((refused.kind, refused.payload.tag), (Refusal::NoCredits, 1));
    let refused = queue.reserve(Job::new(rig.buffers(2)).credits(5)).unwrap_err();
    assert_eq!(refused.kind, Refusal::TooManyCredits { asked: 5, queue: 4 });
    assert_eq!(
        refused.to_string(),
        "the job asks for 5 credits, the queue has 4: split the job or make a larger queue"
    );
    let job = queue.reserve(rig.buffers(3)).unwrap().commit();
    let waited = job.finished().wait(SOON);
    assert_eq!(waited, Err(WaitError::WouldDeadlock), "waiting on one's only thread");
    assert!(waited.unwrap_err().to_string().contains("Executor::wait"), "says what to change");
    assert_eq!(queue.status().unfinished, 1, "nothing was lost");
}

#[test]
fn drivers_see_deadlines_and_the_cause_in_spite_of_which_a_job_runs() {
    let rig = Rig::new();
    let (one, two) = (rig.queue(QueueConfig::new("1")), rig.queue(QueueConfig::new("2").bypass(false)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let first = one.reserve(rig.buffers(1)).unwrap().commit();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(move |gpu, info, done| {
            log.lock().unwrap().push((info.deadline, *gpu.despite.lock().unwrap()));
            Some(done)
        }));
    });
    let second = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
    second.finished().set_deadline(Time::from_ns(9_000));
    second.finished().set_deadline(Time::from_ns(7_000));
    second.finished().set_deadline(Time::from_ns(8_000));
    rig.complete(&one, 1, Err(FenceError::Faulted { code: 6 }));
    rig.idle();
    let despite = Some(Cause::Faulted { code: 6 });
    assert_eq!(seen.lock().unwrap().split_off(0), [(Some(Time::from_ns(7_000)), despite)]);

    // A failed job of the own queue.
    let third = one.reserve(rig.buffers(3)).unwrap().commit();
    drop(one.reserve_after(rig.buffers(4), [third.finished()]).unwrap().commit());
    rig.complete(&one, 2, Err(FenceError::Faulted { code: 6 }));
    rig.idle();
    assert_eq!(*seen.lock().unwrap(), [(None, None), (None, despite)]);
}

#[derive(Default, Clone)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Record for Log {
    fn record(&self, _at: Time, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn every_transition_is_recorded_in_order() {
    let log = Log::default();
    let executor = Executor::builder().recorder(log.clone()).unwrap().manual().unwrap();
    let rig = Rig::on(executor, false);
    let (one, two) = (rig.queue(QueueConfig::new("1").client(5)), rig.queue(QueueConfig::new("2")));
    let first = one.reserve(rig.buffers(1)).unwrap().commit();
    let second = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
    let (a, b) = (first.finished().id(), second.finished().id());
    rig.pass_ms(3);
    rig.complete(&one, 1, Ok(()));
    rig.idle();
    drop(one.close());
    rig.idle();
    let events = log.0.lock().unwrap().clone();
    let at = |event: &Event| {
        events.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{event:?} in {events:#?}"))
    };
    let queued = at(&Event::JobQueued { job: a, client: 5, credits: 1, depth: 1 });
    let started = at(&Event::JobStarted { job: a, client: 5 });
    let depends = at(&Event::JobDependency { job: b, on: a });
    let done = at(&Event::JobDone { job: a, result: Ok(()), active: Some(Duration::from_millis(3)) });
    let retired = at(&Event::JobRetired { job: a, result: Ok(()) });
    let next = at(&Event::JobStarted { job: b, client: 0 });
    let closed = at(&Event::Queue { context: one.id(), change: QueueChange::Closed });
    let drained = at(&Event::Queue { context: one.id(), change: QueueChange::Drained });
    let order = [queued, started, depends, done, retired, next, closed, drained];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn an_embedders_work_queues_are_told_of_work() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let executor = Executor::builder()
        .work_queue(|lane| {
            TOLD.fetch_or(1 << (lane as u32), SeqCst);
        })
        .unwrap();
    let rig = Rig::on(executor, true);
    let queue = rig.queue(QueueConfig::new("q").bypass(false));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    assert_ne!(TOLD.load(SeqCst) & (1 << Lane::Signalling as u32), 0);
    assert!(rig.executor.step());
    assert!(ok(&job.finished()));
    assert_ne!(TOLD.load(SeqCst) & (1 << Lane::Reaper as u32), 0);
}

#[test]
fn close_signals_a_hundred_thousand_waiting_jobs_in_slices() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(1));
    let other = rig.queue(QueueConfig::new("other").bypass(false));
    let jobs: Vec<JobFences> = (0..100_000).map(|tag| queue.reserve(rig.buffers(tag)).unwrap().commit()).collect();
    drop(queue.close());
    let quick = other.reserve(rig.buffers(0)).unwrap().commit();
    rig.idle();
    assert!(ok(&quick.scheduled()));
    assert!(jobs.iter().all(|job| job.finished().is_signaled()));
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert!(jobs.iter().all(|job| ok(&job.retired())));
}

proptest! {
    /// Whatever is completed in whatever order, fences come in sequence order and everything is released.
    #[test]
    fn completions_in_any_order(order in proptest::collection::vec(any::<u8>(), 1..24).prop_map(|keys| {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|index| keys[*index]);
        order
    })) {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").credits(32));
        let jobs: Vec<JobFences> = order.iter().map(|_| queue.reserve(rig.buffers(0)).unwrap().commit()).collect();
        let mut done = vec![false; order.len()];
        for index in order {
            rig.complete(&queue, index as u64 + 1, Ok(()));
            done[index] = true;
            let prefix = done.iter().take_while(|done| **done).count();
            for (at, job) in jobs.iter().enumerate() {
                assert_eq!(job.finished().is_signaled(), at < prefix);
                assert_eq!(job.retired().is_signaled(), at < prefix);
            }
        }
        assert_eq!(queue.status().credits_free, 32);
        rig.idle();
        assert_eq!(rig.live.alive(), 0);
    }

    /// The in-flight map agrees with a plain one.
    #[test]
    fn in_flight_agrees_with_a_model(steps in proptest::collection::vec((0_u64..40, 0_u8..3), 1..60)) {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").credits(64));
        let map = Arc::new(InFlight::with_capacity(16).unwrap());
        let mut model = std::collections::BTreeMap::new();
        for (number, what) in steps {
            match what {
                0 => {
                    let into = map.clone();
                    let fits = Arc::new(AtomicBool::new(false));
                    let told = fits.clone();
                    rig.gpu().script(|script| script.run = Some(Box::new(move |_, _, done| {
                        match into.insert(number, done) {
                            Ok(()) => told.store(true, SeqCst),
                            Err(full) => full.completion.not_started(FenceError::Canceled),
                        }
                        None
                    })));
                    let job = queue.reserve(rig.buffers(number)).unwrap().commit();
                    let free = !model.keys().any(|other: &u64| other % 16 == number % 16);
                    assert_eq!(fits.load(SeqCst), free);
                    if free {
                        model.insert(number, job);
                    }
                }
                1 => assert_eq!(map.complete(number, Ok(())), model.remove(&number).is_some()),
                _ => {
                    let through = model.range(..=number).count();
                    assert_eq!(map.complete_through(number), through);
                    model.retain(|other, _| *other > number);
                }
            }
            assert_eq!(map.len(), model.len());
        }
        for number in model.into_keys() {
            assert!(map.complete(number, Ok(())));
        }
    }
}
