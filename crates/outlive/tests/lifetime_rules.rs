//! The lifetime rules 1 to 9 and 11 within one process and without an arbiter, a test each, named for the rule.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Call, Rig, error, ok, pending};
use outlive::{
    Acquired, Cause, Charges, Completion, Dependency, FenceContext, FenceError, Job, JobFences, Names, OnError,
    Principal, QueueConfig, Refusal, ResetScope, Status, UserFence, Verdict,
};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn rule_1_a_fence_outlives_queue_device_and_executor() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("ring 3").client(9));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.complete(&queue, 1, Err(FenceError::Faulted { code: 0x2a }));
    let (context, live) = (queue.id(), rig.live.clone());
    let fences = [job.scheduled(), job.finished(), job.retired().into_fence()];
    drop(job);
    drop(queue);
    let Rig { executor, device, .. } = rig;
    let gone = device.drained();
    drop(device);
    executor.run_until_idle();
    assert!(gone.is_drained(), "the fences kept nothing of their issuer alive");
    assert_eq!(live.drivers_dropped.load(SeqCst), 1);
    drop(executor);
    for (slot, fence) in fences.iter().enumerate() {
        assert_eq!((fence.context(), fence.seqno()), (context + slot as u64, 1));
        assert_eq!((fence.driver_name(), fence.timeline_name(), fence.client()), ("fake", "ring 3", 9));
        assert!(fence.timestamp().is_some());
    }
    assert_eq!(error(&fences[1]), Some(FenceError::Faulted { code: 0x2a }));
}

#[test]
fn rule_2_every_fence_is_finite_and_signals_once() {
    let rig = Rig::new();
    let context = FenceContext::new(&rig.executor, Names { driver: "d", timeline: "t" }).unwrap();
    let (forgotten, bare) = context.allocate().unwrap().publish();
    std::mem::forget(forgotten);
    let (user, open) = UserFence::new(&rig.executor, "held open").unwrap();
    // A job that hangs on a driver that ignores every request, one behind a suspension, one behind a user fence.
    let queue = rig.queue(QueueConfig::new("q").timeout(50 * MS).drain_timeout(MS));
    let hung = queue.reserve(rig.buffers(1)).unwrap().commit();
    let held_up = rig.queue(QueueConfig::new("suspended"));
    held_up.suspend();
    let behind = held_up.reserve(rig.buffers(2)).unwrap().commit();
    let waits = held_up.reserve(Job::new(rig.buffers(3)).user_waits(1)).unwrap();
    let deadline = rig.executor.now().after(500 * MS);
    let unpublished = waits.commit_when(&[open], deadline).unwrap();
    rig.pass_ms(9_999);
    assert!(pending(&bare), "the watchdog leaves a producer its 10 s");
    rig.pass_ms(2);
    assert_eq!(error(&bare), Some(FenceError::TimedOut));
    assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
    assert!(ok(&hung.retired()), "the engine reset took it off");
    assert_eq!(error(&behind.finished()), Some(FenceError::TimedOut), "a suspension ends");
    assert!(unpublished.fences().is_none() && unpublished.done().is_signaled(), "its wait deadline passed");
    assert!(user.signal(Ok(())), "nobody but its source signals a user fence");
}

#[test]
fn rule_3_a_queue_may_go_away_with_jobs_waiting_and_jobs_on_the_hardware() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(2));
    let order = Arc::new(Mutex::new(Vec::new()));
    let jobs: Vec<JobFences> = (0..6).map(|tag| queue.reserve(rig.buffers(tag)).unwrap().commit()).collect();
    for (index, job) in jobs.iter().enumerate() {
        let order = order.clone();
        job.finished().on_signaled(move |_| order.lock().unwrap().push(index)).unwrap().keep();
    }
    drop(queue);
    assert!(jobs.iter().all(|job| pending(&job.finished())), "going away is latched; the lane does the rest");
    rig.idle();
    assert!(jobs.iter().all(|job| error(&job.finished()) == Some(FenceError::Canceled)));
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5], "in sequence order");
    assert!(ok(&jobs[0].scheduled()) && error(&jobs[2].scheduled()).is_some());
    assert!(jobs.iter().all(|job| pending(&job.retired())), "the first two are on the hardware, the others come after");
    assert_eq!(rig.live.alive(), 6);
}

#[test]
fn rule_4_what_the_hardware_may_touch_stays_until_it_is_done() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(500 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let context = queue.id();
    drop(queue);
    rig.pass_ms(499);
    assert_eq!((error(&job.finished()), pending(&job.retired())), (Some(FenceError::Canceled), true));
    assert_eq!(rig.live.alive(), 1, "a failed job's memory is still the hardware's");
    assert!(rig.gpu().held.complete(context * 1_000_000 + 1, Ok(())), "the late completion retires it");
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled), "and changes no verdict");
    assert!(ok(&job.retired()));
    assert_eq!(rig.live.alive(), 0);
}

#[test]
fn rule_4_not_started_retires_and_a_failed_reset_quarantines() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, info, done: Completion| {
            if info.id.seqno == 1 {
                done.not_started(FenceError::Faulted { code: 7 });
                None
            } else {
                Some(done)
            }
        }));
        script.reset = Some(Box::new(|_, token| token.failed()));
        script.unplug = Some(Box::new(|token| token.failed()));
    });
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    let refused = queue.reserve(rig.buffers(1)).unwrap().commit();
    assert_eq!(error(&refused.finished()), Some(FenceError::Faulted { code: 7 }));
    assert!(ok(&refused.retired()));
    let job = queue.reserve(Job::new(rig.buffers(2)).bytes(4096)).unwrap().commit();
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device))));
    rig.pass_ms(10_000);
    assert_eq!(error(&job.retired()), Some(FenceError::Quarantined), "DMA cannot be excluded: never free");
    assert_eq!(rig.device.quarantine(), outlive::Quarantine { jobs: 1, bytes: 4096 });
    assert_eq!(rig.live.alive(), 1, "its payload is never dropped");
    assert!(rig.device.is_lost());
    let gone = rig.device.drained();
    let Rig { executor, device, live } = rig;
    drop((queue, device));
    executor.run_until_idle();
    assert!(!gone.is_drained() && live.drivers_dropped.load(SeqCst) == 0, "nor is the driver, whose memory it may be");
}

#[test]
fn rule_5_the_retire_list_is_the_devices_and_its_charges_stay() {
    let rig = Rig::new();
    let limits = Charges { jobs: 2, bytes: 1000 };
    let user = Principal::new(limits).unwrap();
    for _ in 0..2 {
        // Hang, close, come back.
        let queue = rig.queue(QueueConfig::new("q").principal(user.clone()));
        let job = queue.reserve(Job::new(rig.buffers(1)).bytes(400)).unwrap().commit();
        drop(queue);
        rig.idle();
        assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    }
    let queue = rig.queue(QueueConfig::new("q").principal(user.clone()));
    let refused = queue.reserve(Job::new(rig.buffers(3))).unwrap_err();
    assert_eq!(refused.kind, Refusal::OverLimit { charged: 2, limit: 2 });
    assert_eq!(refused.payload.tag, 3, "the payload comes back");
    assert_eq!(user.charged(), Charges { jobs: 2, bytes: 800 });
    rig.pass_ms(1_999);
    assert_eq!(user.charged().jobs, 2, "drain time");
    rig.pass_ms(200);
    assert_eq!(user.charged(), Charges { jobs: 0, bytes: 0 }, "cancelled, then reset: each hang ends by itself");
    assert!(rig.gpu().calls().iter().filter(|call| matches!(call, Call::Reset(ResetScope::Queue(_)))).count() == 2);
}

#[test]
fn rule_6_payloads_are_dropped_on_the_reaper_and_last_handles_anywhere() {
    let rig = Rig::inline();
    let queue = rig.queue(QueueConfig::new("q"));
    let dropped_in = Arc::new(Mutex::new(None));
    let seen = dropped_in.clone();
    let mut payload = rig.buffers(1);
    let other = rig.queue(QueueConfig::new("other"));
    payload.on_drop = Some(Box::new(move || {
        *seen.lock().unwrap() = Some(std::thread::current().id());
        // The last handle of a queue, dropped inside a payload's drop.
        drop(other);
    }));
    let job = queue.reserve(payload).unwrap().commit();
    assert!(ok(&job.retired()));
    rig.executor.step();
    rig.executor.notify();
    assert!(dropped_in.lock().unwrap().is_none(), "neither bypass nor the first two lanes drop a payload");
    rig.executor.reap();
    assert!(dropped_in.lock().unwrap().is_some());
    // The last handles of queue, device and executor, dropped in a callback.
    let second = queue.reserve(rig.buffers(2)).unwrap();
    let context = FenceContext::new(&rig.executor, Names { driver: "d", timeline: "t" }).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    let Rig { executor, device, live } = rig;
    let gone = device.drained();
    let driver = executor.clone();
    fence.on_signaled(move |_| drop((queue, device, executor, second.commit()))).unwrap().keep();
    signaler.signal(Ok(()));
    driver.run_until_idle();
    assert!(gone.is_drained());
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst), live.rings_dropped.load(SeqCst)), (0, 1, 2));
}

#[test]
fn rule_7_user_closures_run_on_the_notify_lane_only() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    job.finished()
        .on_signaled(move |_| {
            count.fetch_add(1, SeqCst);
        })
        .unwrap()
        .keep();
    rig.complete(&queue, 1, Ok(()));
    while rig.executor.step() {}
    assert!(job.finished().callbacks_done(), "handed over");
    assert_eq!(ran.load(SeqCst), 0, "but not run while signalling");
    rig.executor.notify();
    assert_eq!(ran.load(SeqCst), 1);
    // A reservation dropped leaves no hole in the sequence.
    drop(queue.reserve(rig.buffers(2)).unwrap());
    assert_eq!(queue.reserve(rig.buffers(3)).unwrap().commit().finished().seqno(), 2);
}

#[test]
fn rule_8_resources_are_taken_in_acquire_all_or_nothing_and_return_when_the_hardware_is_done() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(4));
    let context = FenceContext::new(&rig.executor, Names { driver: "ids", timeline: "free" }).unwrap();
    let (freed, free) = context.allocate().unwrap().publish();
    let answer = free.clone();
    rig.gpu().script(|script| {
        script.acquire =
            Some(Box::new(move |_| if answer.is_signaled() { Acquired::Yes } else { Acquired::Wait(answer.clone()) }));
    });
    let first = queue.reserve(rig.buffers(1)).unwrap().commit();
    let second = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.idle();
    assert!(pending(&first.scheduled()) && pending(&second.scheduled()), "no overtaking");
    assert_eq!(rig.gpu().calls(), [Call::Acquire(1)], "it waits for the fence, it does not poll");
    assert_eq!(queue.status().credits_free, 4, "and holds nothing meanwhile");
    freed.signal(Ok(()));
    rig.idle();
    assert!(ok(&first.scheduled()) && ok(&second.scheduled()));
    rig.complete(&queue, 2, Ok(()));
    assert_eq!(rig.gpu().calls().last(), Some(&Call::Release(2)), "an early completion gives back at once");
    assert_eq!(queue.status().credits_free, 3);
    assert!(pending(&second.finished()), "while its fences wait for their predecessor");
    rig.complete(&queue, 1, Ok(()));
    assert!(ok(&first.finished()) && ok(&second.finished()));
}

#[test]
fn rule_9_errors_travel_by_choice() {
    let rig = Rig::new();
    let mine = rig.queue(QueueConfig::new("mine").client(1));
    let yours = rig.queue(QueueConfig::new("yours").client(2));
    let bad = mine.reserve(rig.buffers(1)).unwrap().commit();
    let other_ring = rig.queue(QueueConfig::new("mine too").client(1));
    let default_same = other_ring.reserve_after(rig.buffers(2), [bad.finished()]).unwrap().commit();
    let default_other = yours.reserve_after(rig.buffers(3), [bad.finished()]).unwrap().commit();
    let chosen = Dependency::on(bad.finished()).on_error(OnError::Fail);
    let chosen_fail = yours.reserve_after(rig.buffers(4), [chosen]).unwrap().commit();
    let chained = other_ring.reserve_after(rig.buffers(5), [default_same.finished()]).unwrap().commit();
    // The cause: fails on the hardware, which is not done with it before the reset.
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| Verdict::Fail)));
    rig.pass_ms(2_000);
    assert_eq!(error(&bad.finished()), Some(FenceError::TimedOut));
    let dependency = Some(FenceError::Dependency(Cause::TimedOut));
    assert_eq!(error(&default_same.finished()), dependency);
    assert_eq!(error(&chained.finished()), dependency, "the root cause, not a chain of wrappers");
    assert!(pending(&default_other.scheduled()), "who runs in spite of an error runs after `retired`");
    rig.pass_ms(200);
    assert!(ok(&bad.retired()));
    assert!(ok(&default_other.scheduled()));
    rig.complete(&yours, 1, Ok(()));
    rig.idle();
    assert_eq!(error(&chosen_fail.finished()), dependency);
}

#[test]
fn rule_9_a_job_pipelined_behind_one_that_failed_reports_it() {
    let rig = Rig::new();
    rig.gpu().script(|script| script.native = true);
    let queue = rig.queue(QueueConfig::new("q").client(1).pipelined(true));
    let other = rig.queue(QueueConfig::new("other").client(1));
    let bad = queue.reserve(rig.buffers(1)).unwrap().commit();
    let same = queue.reserve_after(rig.buffers(2), [bad.finished()]).unwrap().commit();
    let native = other.reserve_after(rig.buffers(3), [bad.finished()]).unwrap().commit();
    assert!(ok(&same.scheduled()) && ok(&native.scheduled()), "the hardware waits, not the library");
    rig.complete(&queue, 1, Err(FenceError::Faulted { code: 3 }));
    rig.complete(&queue, 2, Ok(()));
    rig.complete(&other, 1, Ok(()));
    let reported = Some(FenceError::Dependency(Cause::Faulted { code: 3 }));
    assert_eq!((error(&same.finished()), error(&native.finished())), (reported, reported));
    assert!(ok(&same.retired()));
}

#[test]
fn rule_11_a_hung_queue_costs_only_itself() {
    let rig = Rig::new();
    let hung = rig.queue(QueueConfig::new("hung").timeout(20 * MS).drain_timeout(MS));
    let fine = rig.queue(QueueConfig::new("fine"));
    let bad = hung.reserve(rig.buffers(1)).unwrap().commit();
    let on_hardware = fine.reserve(rig.buffers(2)).unwrap().commit();
    rig.pass_ms(300);
    assert_eq!(error(&bad.finished()), Some(FenceError::TimedOut));
    assert!(ok(&bad.retired()), "its engine was reset");
    assert!(pending(&on_hardware.finished()), "the other's job was not touched");
    rig.complete(&fine, 1, Ok(()));
    assert!(ok(&on_hardware.finished()));
    assert_eq!(fine.reserve(rig.buffers(3)).unwrap().commit().scheduled().status(), Status::Signaled(Ok(())));
    assert_eq!(hung.reserve(rig.buffers(4)).unwrap().commit().scheduled().status(), Status::Signaled(Ok(())));
}
