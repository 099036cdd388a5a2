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
mod common;

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
fn dependencies_are_met_before_a_job_starts_and_errors_of_older_points_are_not_lost() {
    let rig = Rig::new();
    let source = rig.queue(QueueConfig::new("source").client(1).credits(8));
    let target = rig.queue(QueueConfig::new("target").client(1));
    let jobs: Vec<JobFences> = (0..3).map(|tag| source.reserve(rig.buffers(tag)).unwrap().commit()).collect();
    // Three points of one context, all with the policy "fail": the middle one's error must be seen.
    let all: Vec<_> = jobs.iter().map(JobFences::finished).collect();
    let strict = target.reserve_after(rig.buffers(9), &all).unwrap().commit();
    // With "run" they are waited for, and no error counts.
    let run = all.iter().map(|fence| Dependency::on(fence.clone()).on_error(OnError::Run));
    let last = rig.queue(QueueConfig::new("lenient"));
    let lenient = last.reserve_after(rig.buffers(8), run).unwrap().commit();
    rig.complete(&source, 1, Ok(()));
    rig.complete(&source, 2, Err(FenceError::Faulted { code: 5 }));
    rig.idle();
    assert!(pending(&strict.scheduled()) && pending(&lenient.scheduled()));
    rig.complete(&source, 3, Ok(()));
    rig.idle();
    assert_eq!(error(&strict.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 5 })));
    assert!(ok(&lenient.scheduled()));
}

#[test]
fn who_runs_in_spite_of_errors_waits_until_every_failed_job_is_off_the_hardware() {
    let rig = Rig::new();
    let run = |job: &JobFences| Dependency::on(job.finished()).on_error(OnError::Run);
    let source = rig.queue(QueueConfig::new("source").credits(8).timeout(10 * MS));
    let hung = source.reserve(rig.buffers(1)).unwrap().commit();
    let fine = source.reserve(rig.buffers(2)).unwrap().commit();
    let target = rig.queue(QueueConfig::new("target"));
    let other = target.reserve_after(rig.buffers(3), [run(&hung), run(&fine)]).unwrap().commit();
    let own = source.reserve_after(rig.buffers(4), [run(&hung), run(&fine)]).unwrap().commit();
    rig.complete(&source, 2, Ok(()));
    rig.pass_ms(15);
    assert!(ok(&fine.finished()) && error(&hung.finished()).is_some() && pending(&hung.retired()));
    assert!(pending(&other.scheduled()), "the older of two points of one context is still on the hardware");
    assert!(pending(&own.scheduled()), "of the own queue too");
    rig.pass_ms(200);
    assert!(ok(&hung.retired()) && ok(&other.scheduled()) && ok(&own.scheduled()));
}

#[test]
fn of_two_points_the_older_counts_whichever_is_named_first() {
    for newer_first in [false, true] {
        let rig = Rig::new();
        let source = rig.queue(QueueConfig::new("source").credits(8));
        let target = rig.queue(QueueConfig::new("target"));
        let old = source.reserve(rig.buffers(1)).unwrap().commit();
        let new = source.reserve(rig.buffers(2)).unwrap().commit();
        let mut on = [&old, &new].map(|job| Dependency::on(job.finished()).on_error(OnError::Fail));
        if newer_first {
            on.reverse();
        }
        let job = target.reserve_after(rig.buffers(3), on).unwrap().commit();
        rig.complete(&source, 1, Err(FenceError::Faulted { code: 5 }));
        rig.complete(&source, 2, Ok(()));
        rig.idle();
        assert_eq!(error(&job.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 5 })), "{newer_first}");
    }
}

#[test]
fn a_dependency_on_the_own_queue_waits_unless_the_hardware_is_in_order() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").client(1).credits(8));
    let first = queue.reserve(rig.buffers(1)).unwrap().commit();
    let chained = queue.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
    let free = queue.reserve(rig.buffers(3)).unwrap().commit();
    rig.idle();
    assert!(pending(&chained.scheduled()) && pending(&free.scheduled()), "in order");
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert!(ok(&chained.scheduled()) && ok(&free.scheduled()));
    rig.complete(&queue, 2, Err(FenceError::Faulted { code: 1 }));
    let after = queue.reserve_after(rig.buffers(4), [chained.finished()]).unwrap().commit();
    rig.complete(&queue, 3, Ok(()));
    rig.idle();
    assert_eq!(error(&after.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 1 })));
}

#[test]
fn who_depends_on_the_start_of_an_earlier_job_of_its_queue_fails_if_that_never_starts() {
    for on_error in [OnError::Fail, OnError::Run] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").client(1).pipelined(true));
        rig.gpu().script(|script| {
            let mut first = true;
            script.acquire =
                Some(Box::new(move |_| if std::mem::take(&mut first) { Acquired::Never(3) } else { Acquired::Yes }));
        });
        queue.suspend();
        let never = queue.reserve(rig.buffers(1)).unwrap().commit();
        let on = Dependency::on(never.scheduled()).on_error(on_error);
        let after = queue.reserve_after(rig.buffers(2), [on]).unwrap().commit();
        queue.resume();
        rig.idle();
        assert_eq!(error(&never.scheduled()), Some(FenceError::Faulted { code: 3 }));
        assert_eq!(ok(&after.scheduled()), on_error == OnError::Run);
        if on_error == OnError::Fail {
            assert_eq!(error(&after.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 3 })));
        }
    }
}

#[test]
fn commit_when_publishes_after_the_user_fences_and_holds_nobody_up() {
    let rig = Rig::inline();
    let queue = rig.queue(QueueConfig::new("q"));
    let (source, user) = UserFence::new(&rig.executor, "host").unwrap();
    let deadline = rig.executor.now().after(100 * MS);
    let reserved = queue.reserve(Job::new(rig.buffers(1)).user_waits(1)).unwrap();
    let later = reserved.commit_when(std::slice::from_ref(&user), deadline).unwrap();
    let job = queue.reserve(rig.buffers(2)).unwrap().commit();
    assert_eq!((job.finished().seqno(), ok(&job.finished())), (1, true), "no number was taken");
    assert!(later.fences().is_none());
    source.signal(Ok(()));
    rig.idle();
    let fences = later.fences().unwrap();
    assert_eq!((fences.finished().seqno(), ok(&fences.finished())), (2, true));
    assert!(later.done().is_signaled() && !later.cancel());

    // One whose fence fails, one that is cancelled, one that has no room, one of a queue that closes.
    let (source, user) = UserFence::new(&rig.executor, "fails").unwrap();
    let reserve = || queue.reserve(Job::new(rig.buffers(3)).user_waits(1)).unwrap();
    let failed = reserve().commit_when(std::slice::from_ref(&user), Time::NEVER).unwrap();
    source.signal(Err(FenceError::Faulted { code: 2 }));
    let (_open, never) = UserFence::new(&rig.executor, "never").unwrap();
    let cancelled = reserve().commit_when(std::slice::from_ref(&never), Time::NEVER).unwrap();
    assert!(cancelled.cancel());
    let tight = queue.reserve(rig.buffers(4)).unwrap();
    let many = [never.clone(), never.clone(), never.clone()];
    let back = tight.commit_when(&many, Time::NEVER).expect_err("two nodes are all it has");
    assert_eq!(back.tag, 4);
    drop(back);
    let closing = reserve().commit_when(&[never], Time::NEVER).unwrap();
    rig.idle();
    assert!(failed.fences().is_none() && failed.done().is_signaled() && cancelled.done().is_signaled());
    assert!(!closing.done().is_signaled());
    let drained = queue.close();
    rig.idle();
    assert!(closing.done().is_signaled() && drained.is_drained());
    assert_eq!(rig.live.alive(), 0);
}

#[test]
fn a_suspended_queue_starts_nothing_and_drains_what_runs() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(50 * MS));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    queue.suspend();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.pass_ms(49);
    assert!(pending(&running.finished()) && pending(&waiting.scheduled()));
    rig.complete(&queue, 1, Ok(()));
    rig.pass_ms(1_000);
    assert!(ok(&running.finished()), "suspending fails nobody who ends in time");
    queue.resume();
    rig.idle();
    assert!(ok(&waiting.scheduled()));
    queue.suspend();
    rig.pass_ms(400);
    assert_eq!(error(&waiting.finished()), Some(FenceError::TimedOut), "this one did not end in its drain time");
    assert!(ok(&waiting.retired()));
    // The suspension lasts too long.
    let behind = queue.reserve(rig.buffers(3)).unwrap().commit();
    rig.pass_ms(10_000);
    assert_eq!(error(&behind.finished()), Some(FenceError::TimedOut));
    queue.resume();
    rig.idle();
    assert!(ok(&queue.reserve(rig.buffers(4)).unwrap().commit().scheduled()));
}

#[test]
fn timeouts_are_each_jobs_own_and_progress_extends_them_up_to_a_cap() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS).progress_cap(100 * MS).drain_timeout(MS));
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |info| {
            count.fetch_add(1, SeqCst);
            if info.id.seqno == 1 { Verdict::KeepWaiting(30 * MS) } else { Verdict::Fail }
        }));
    });
    let slow = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(10);
    let short = queue.reserve(Job::new(rig.buffers(2)).timeout(5 * MS)).unwrap().commit();
    rig.pass_ms(6);
    assert!(pending(&short.finished()), "its verdict is in, but its predecessor's is not: fences come in order");
    assert!(rig.gpu().calls().contains(&Call::TimedOut(2)) && !rig.gpu().calls().contains(&Call::TimedOut(1)));
    rig.pass_ms(83);
    assert!(pending(&slow.finished()), "it makes progress");
    rig.pass_ms(2);
    assert_eq!(error(&slow.finished()), Some(FenceError::TimedOut), "but not for ever");
    assert_eq!(error(&short.finished()), Some(FenceError::TimedOut));
    assert_eq!(asked.load(SeqCst), 1 + 4, "once for the short one; at 20, 50, 80 and 100 ms for the slow one");
}

#[test]
fn nothing_starts_behind_a_job_whose_time_was_up_until_it_has_left_the_hardware() {
    for leaves_by_itself in [true, false] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS));
        let hung = queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.pass_ms(11);
        assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
        let next = queue.reserve(Job::new(rig.buffers(2)).timeout(1_000 * MS)).unwrap().commit();
        assert!(pending(&next.scheduled()), "the reset to come would cost it");
        rig.pass_ms(50);
        assert!(rig.gpu().calls().contains(&Call::Cancel(1)) && pending(&next.scheduled()));
        if leaves_by_itself {
            rig.complete(&queue, 1, Ok(()));
        }
        rig.pass_ms(51);
        assert_eq!(rig.gpu().calls().contains(&Call::Reset(ResetScope::Queue(queue.id()))), !leaves_by_itself);
        assert!(ok(&hung.retired()) && ok(&next.scheduled()), "jobs not started survive");
        rig.complete(&queue, 2, Ok(()));
        rig.idle();
        assert!(ok(&next.finished()));
    }
}

/// How often [`impatient_clock`] may be read at one instant.
const READS_MAX: u32 = 1_000;
static CLOCK_MS: AtomicU32 = AtomicU32::new(0);
static CLOCK_READS: AtomicU32 = AtomicU32::new(0);

/// Goes back to zero, where nothing is due, when somebody reads it for ever: who looks at the time in a loop comes out.
fn impatient_clock() -> u64 {
    let patience = CLOCK_READS.fetch_add(1, SeqCst) < READS_MAX;
    if patience { u64::from(CLOCK_MS.load(SeqCst)) * 1_000_000 } else { 0 }
}

#[test]
fn what_is_overdue_while_the_driver_is_called_waits_for_that_without_a_timer_that_fires_for_ever() {
    let rig = Rig::on(Executor::builder().clock(impatient_clock).manual().unwrap(), false);
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS));
    let slow = queue.reserve(rig.buffers(1)).unwrap().commit();
    let (_source, never) = UserFence::new(&rig.executor, "never").unwrap();
    let at = |ms: u64| Time::from_ns(ms * 1_000_000);
    let reserved = queue.reserve(Job::new(rig.buffers(2)).user_waits(1)).unwrap();
    let late = reserved.commit_when(&[never], at(15)).unwrap();
    let (executor, done) = (rig.executor.clone(), late.done());
    rig.gpu().script(|script| {
        script.run = Some(Box::new(move |_, _, completion| {
            // The lane runs on another thread while this one is in the driver, long after the first job's time.
            for ms in [12, 20] {
                CLOCK_MS.store(ms, SeqCst);
                std::thread::scope(|scope| scope.spawn(|| executor.step()).join().unwrap());
            }
            assert!(done.is_signaled(), "another job's deadline needs no driver");
            assert_eq!(executor.next_timer(), None, "nothing is left that the driver's return does not see to");
            Some(completion)
        }));
    });
    let long = queue.reserve(Job::new(rig.buffers(3)).timeout(100 * MS)).unwrap().commit();
    assert!(CLOCK_READS.load(SeqCst) < READS_MAX, "the timer fired at one instant, again and again");
    assert!(!rig.gpu().calls().contains(&Call::TimedOut(1)), "two calls for one queue would overlap");
    rig.idle();
    assert!(rig.gpu().calls().contains(&Call::TimedOut(1)));
    assert_eq!(error(&slow.finished()), Some(FenceError::TimedOut));
    assert!(pending(&long.finished()) && rig.executor.next_timer() == Some(at(100)));
}

#[test]
fn time_off_the_hardware_does_not_count() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(15);
    queue.pause_job_clock();
    rig.pass_ms(5_000);
    assert!(pending(&job.finished()));
    queue.resume_job_clock();
    rig.pass_ms(4);
    assert!(pending(&job.finished()));
    rig.pass_ms(2);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
}

#[test]
fn a_job_that_starts_while_the_clock_stands_still_gains_only_the_rest_of_that_time() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(20 * MS));
    queue.pause_job_clock();
    rig.pass_ms(10);
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(5);
    queue.resume_job_clock();
    rig.pass_ms(19);
    assert!(pending(&job.finished()));
    rig.pass_ms(2);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
}

#[test]
fn a_queue_that_is_closed_while_its_job_clock_stands_still_ends_all_the_same() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    queue.pause_job_clock();
    rig.pass_ms(5_000);
    assert!(pending(&job.finished()));
    let drained = queue.close();
    queue.pause_job_clock();
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    rig.pass_ms(1_000);
    assert!(
        rig.gpu().calls().contains(&Call::Cancel(1)) && ok(&job.retired()),
        "it hangs, and nobody is left to resume"
    );
    assert!(drained.is_drained());
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
