//! Going away: at any moment, from anywhere, with jobs in every stage. And drivers that break their promises.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

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
fn a_completion_dropped_fails_at_once_and_the_job_stays_on_the_retire_list() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            drop(done);
            None
        }));
    });
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(100 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    assert!(pending(&job.retired()) && ok(&job.scheduled()));
    rig.pass_ms(99);
    assert_eq!(rig.gpu().calls().last(), Some(&Call::Run(1)));
    rig.pass_ms(200);
    assert!(ok(&job.retired()), "cancel, then a reset took it off");
    assert_eq!(rig.gpu().calls()[2..], [Call::Cancel(1), Call::Reset(ResetScope::Queue(queue.id())), Call::Release(1)]);
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_completion_forgotten_is_found_by_its_timeout() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            std::mem::forget(done);
            None
        }));
    });
    let queue = rig.queue(QueueConfig::new("q").timeout(50 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(49);
    assert!(pending(&job.finished()));
    rig.pass_ms(300);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_completion_given_twice_by_a_buggy_driver_is_found_nowhere() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let number = queue.id() * 1_000_000 + 1;
    let held = &rig.gpu().held;
    assert!(held.complete_timed(number, Ok(()), Times { end: Some(Time::from_ns(77)), active: None }));
    assert!(!held.complete(number, Err(FenceError::Canceled)), "hardware that reports twice");
    assert!(!held.complete(number + 5, Ok(())), "or invents");
    assert!(ok(&job.finished()));
    assert_eq!(job.finished().timestamp(), Some(Time::from_ns(77)));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_hang_after_close_with_no_owner_left_ends_by_itself() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    drop(queue);
    let Rig { executor, device, live } = rig;
    drop(device);
    executor.run_until_idle();
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (1, 0), "the hardware still has it");
    executor.wait(&job.retired(), Duration::from_secs(5)).unwrap();
    executor.run_until_idle();
    assert_eq!(
        (live.alive(), live.drivers_dropped.load(SeqCst)),
        (0, 1),
        "drained, cancelled, reset, freed: nobody held it"
    );
}

#[test]
fn a_hang_after_close_ends_even_when_the_executor_goes_first() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").drain_timeout(20 * MS));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    let gone = rig.device.drained();
    let live = rig.live.clone();
    drop(queue);
    drop(rig);
    // Nobody drives that executor any more; the fallback does, in real time.
    job.retired().wait(SOON).unwrap();
    gone.wait(SOON).unwrap();
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1));
}

/// Runs `work`, which is to panic inside the driver.
fn panics(work: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "the driver was to panic");
}

#[test]
fn a_driver_that_panics_in_run() {
    let rig = Rig::new();
    rig.gpu().script(|script| script.run = Some(Box::new(|_, _, _done| panic!("run"))));
    let queue = rig.queue(QueueConfig::new("q"));
    let reserved = queue.reserve(rig.buffers(1)).unwrap();
    panics(|| drop(reserved.commit()));
    assert!(queue.status().closed, "what the ring looks like is unknown");
    rig.idle();
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_acquire() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").bypass(false));
    rig.gpu().script(|script| script.acquire = Some(Box::new(|_| panic!("acquire"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.idle());
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::DriverBug));
    assert!(ok(&job.retired()), "the hardware never knew of it");
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_turn_that_is_not_used_goes_to_the_next_whether_acquire_waits_or_panics() {
    for panicking in [false, true] {
        let rig = Rig::new();
        let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(1)).unwrap();
        let config = |name| QueueConfig::new(name).bypass(false).arbiter(&arbiter);
        let (hindered, next) = (rig.queue(config("hindered")), rig.queue(config("next")));
        let id = hindered.id();
        let context = FenceContext::new(&rig.executor, Names { driver: "d", timeline: "free" }).unwrap();
        let (resource, free) = context.allocate().unwrap().publish();
        rig.gpu().script(|script| {
            script.acquire = Some(Box::new(move |info| match info.queue == id && !free.is_signaled() {
                true if panicking => panic!("acquire"),
                true => Acquired::Wait(free.clone()),
                false => Acquired::Yes,
            }));
        });
        let first = hindered.reserve(rig.buffers(1)).unwrap().commit();
        let second = next.reserve(rig.buffers(2)).unwrap().commit();
        match panicking {
            true => panics(|| rig.idle()),
            false => rig.idle(),
        }
        rig.idle();
        assert!(ok(&second.scheduled()), "the one that waits, or has failed, holds nothing");
        rig.complete(&next, 1, Ok(()));
        resource.signal(Ok(()));
        rig.idle();
        assert_eq!((ok(&first.scheduled()), pending(&first.finished())), (!panicking, !panicking));
        assert_eq!(arbiter.status().credits_free, u32::from(panicking));
        if !panicking {
            rig.complete(&hindered, 1, Ok(()));
        }
        drop((hindered, next));
        all_gone(rig);
    }
}

#[test]
fn a_driver_that_panics_in_timed_out() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| panic!("timed_out"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(2_500);
    assert_eq!(error(&job.finished()), Some(FenceError::DriverBug));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_cancel() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| script.cancel = Some(Box::new(|_| panic!("cancel"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(2_500);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_in_reset_and_in_unplug() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").timeout(10 * MS).drain_timeout(MS));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device)));
        script.reset = Some(Box::new(|_, _token| panic!("reset")));
    });
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    panics(|| rig.pass_ms(20));
    rig.pass_ms(3_000);
    assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
    assert!(ok(&job.retired()), "the reset counted as failed, and unplugging worked");
    assert!(rig.device.is_lost());
    drop(queue);
    all_gone(rig);

    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q"));
    rig.gpu().script(|script| script.unplug = Some(Box::new(|_token| panic!("unplug"))));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.device.unplug();
    panics(|| rig.idle());
    rig.pass_ms(3_000);
    assert_eq!(error(&job.finished()), Some(FenceError::DeviceLost));
    assert_eq!(error(&job.retired()), Some(FenceError::Quarantined), "it did not say that DMA is impossible");
}

#[test]
fn a_driver_that_panics_in_release() {
    for early in [false, true] {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q"));
        let first = queue.reserve(rig.buffers(1)).unwrap().commit();
        let second = queue.reserve(rig.buffers(2)).unwrap().commit();
        rig.gpu().script(|script| script.release = Some(Box::new(|| panic!("release"))));
        // In the hardware's context, where the panic comes out too.
        panics(|| rig.complete(&queue, if early { 2 } else { 1 }, Ok(())));
        rig.idle();
        assert!(queue.status().closed);
        rig.complete(&queue, if early { 1 } else { 2 }, Ok(()));
        rig.pass_ms(3_000);
        assert!(first.retired().is_signaled() && second.retired().is_signaled());
        drop(queue);
        all_gone(rig);
    }
}

#[test]
fn a_driver_that_panics_in_waits_natively() {
    let rig = Rig::new();
    let (one, two) = (rig.queue(QueueConfig::new("1")), rig.queue(QueueConfig::new("2")));
    let first = one.reserve(rig.buffers(1)).unwrap().commit();
    rig.gpu().script(|script| script.native_panics = true);
    let reserved = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap();
    panics(|| drop(reserved.commit()));
    rig.gpu().script(|script| script.native_panics = false);
    rig.idle();
    assert!(two.status().closed && two.drained().is_drained());
    rig.complete(&one, 1, Ok(()));
    drop((one, two));
    all_gone(rig);
}

#[test]
fn a_driver_that_panics_on_a_lane_of_threads_costs_that_thread_only() {
    let rig = Rig::threads(false);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    rig.gpu().script(|script| script.run = Some(Box::new(|_, _, _done| panic!("run"))));
    let bad = rig.queue(QueueConfig::new("bad").bypass(false).drain_timeout(MS));
    let job = bad.reserve(rig.buffers(1)).unwrap().commit();
    assert!(job.finished().wait(SOON).is_err());
    std::panic::set_hook(hook);
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done: Completion| {
            done.complete(Ok(()));
            None
        }))
    });
    let fine = rig.queue(QueueConfig::new("fine").bypass(false));
    fine.reserve(rig.buffers(2)).unwrap().commit().retired().wait(SOON).unwrap();
    job.retired().wait(SOON).unwrap();
    let gone = rig.device.drained();
    drop((bad, fine));
    drop(rig);
    gone.wait(SOON).unwrap();
}

#[test]
fn unplug_ends_everything_and_another_device_can_be_opened() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(1));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.device.unplug();
    rig.idle();
    assert_eq!(error(&running.finished()), Some(FenceError::DeviceLost));
    assert_eq!(error(&waiting.finished()), Some(FenceError::DeviceLost));
    assert!(ok(&running.retired()) && ok(&waiting.retired()), "the driver excluded DMA");
    assert_eq!(queue.reserve(rig.buffers(3)).unwrap_err().kind, Refusal::DeviceLost);
    assert_eq!(rig.live.alive(), 0);
    let other = Rig::on(rig.executor.clone(), true);
    let fresh = other.queue(QueueConfig::new("q"));
    // A dependency on the lost device's job: of nobody's client, so it runs in spite of the error.
    let job = fresh.reserve_after(other.buffers(1), [waiting.finished()]).unwrap().commit();
    assert!(ok(&job.finished()));
    drop((queue, fresh));
    all_gone(other);
    all_gone(rig);
}

#[test]
fn a_device_reset_costs_the_innocent_only_what_was_on_the_hardware() {
    let rig = Rig::new();
    let guilty = rig.queue(QueueConfig::new("guilty").timeout(10 * MS));
    let innocent = rig.queue(QueueConfig::new("innocent").credits(1));
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device))));
    let hung = guilty.reserve(rig.buffers(1)).unwrap().commit();
    let running = innocent.reserve(rig.buffers(2)).unwrap().commit();
    let waiting = innocent.reserve(rig.buffers(3)).unwrap().commit();
    rig.pass_ms(11);
    assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
    assert_eq!(error(&running.finished()), Some(FenceError::Innocent));
    assert!(ok(&waiting.scheduled()) && pending(&waiting.finished()), "what had not started survives and goes on");
    assert_eq!(rig.device.resets(), 1);
    rig.complete(&innocent, 2, Ok(()));
    assert!(ok(&waiting.retired()));
    drop((guilty, innocent));
    all_gone(rig);
}

#[test]
fn a_reset_that_takes_its_time_holds_starts_back_and_its_watchdog_ends_it() {
    let rig = Rig::new();
    let token = Arc::new(Mutex::new(None));
    let keep = token.clone();
    rig.gpu().script(|script| script.reset = Some(Box::new(move |_, reset| *keep.lock().unwrap() = Some(reset))));
    let queue = rig.queue(QueueConfig::new("q"));
    rig.device.reset();
    rig.idle();
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    assert!(pending(&job.scheduled()), "nothing starts behind a reset's back");
    let young = rig.queue(QueueConfig::new("made meanwhile"));
    let early = young.reserve(rig.buffers(9)).unwrap().commit();
    assert!(pending(&early.scheduled()), "nor on a queue made meanwhile");
    token.lock().unwrap().take().unwrap().quiesced();
    rig.idle();
    assert!(ok(&job.scheduled()) && ok(&early.scheduled()));
    // The second one never answers.
    let keep = token.clone();
    rig.gpu().script(|script| script.reset = Some(Box::new(move |_, reset| *keep.lock().unwrap() = Some(reset))));
    rig.device.reset();
    rig.pass_ms(999);
    assert!(!rig.device.is_lost());
    rig.pass_ms(2);
    assert!(rig.device.is_lost());
    assert_eq!(error(&job.finished()), Some(FenceError::DeviceLost));
    token.lock().unwrap().take().unwrap().quiesced();
    rig.idle();
    assert!(ok(&job.retired()), "unplugging excluded DMA; the late answer changed nothing");
    drop((queue, young));
    all_gone(rig);
}

#[test]
fn a_reset_during_a_suspension_does_not_hold_the_queue_for_ever() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").suspend_limit(10 * MS));
    queue.suspend();
    rig.pass_ms(11);
    rig.device.reset();
    rig.idle();
    queue.resume();
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    assert!(ok(&job.scheduled()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_suspension_that_begins_while_the_driver_is_asked_ends_like_any_other() {
    let rig = Rig::new();
    let config = QueueConfig::new("q").credits(1).timeout(5 * MS).suspend_limit(10 * MS);
    let queue = Arc::new(rig.queue(config));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    let handle = Mutex::new(Some(queue.clone()));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |_| {
            // Any context may suspend: another thread, while this one is in here, or this one.
            if let Some(queue) = handle.lock().unwrap().take() {
                queue.suspend();
            }
            Verdict::KeepWaiting(1000 * MS)
        }));
    });
    rig.pass_ms(6);
    assert!(rig.gpu().calls().contains(&Call::TimedOut(1)));
    rig.complete(&queue, 1, Ok(()));
    rig.pass_ms(8);
    assert!(ok(&running.finished()) && !waiting.finished().is_signaled());
    rig.pass_ms(2);
    assert_eq!(error(&waiting.finished()), Some(FenceError::TimedOut), "the suspension lasted too long");
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_suspension_that_begins_while_the_driver_is_asked_keeps_its_drain_time_whatever_the_answer() {
    let rig = Rig::new();
    let queue = Arc::new(rig.queue(QueueConfig::new("q").timeout(5 * MS).drain_timeout(20 * MS)));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let handle = Mutex::new(Some(queue.clone()));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |_| match handle.lock().unwrap().take() {
            Some(queue) => {
                queue.suspend();
                Verdict::KeepWaiting(1000 * MS)
            }
            None => Verdict::Fail,
        }));
    });
    rig.pass_ms(24);
    assert!(pending(&running.finished()), "asked at 5 ms, and to be drained within 20 ms from then");
    rig.pass_ms(2);
    assert_eq!(error(&running.finished()), Some(FenceError::TimedOut), "the answer moved the drain time");
    drop(queue);
    all_gone(rig);
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

#[test]
fn handles_dropped_in_every_order() {
    for order in 0..24 {
        let rig = Rig::new();
        let queue = rig.queue(QueueConfig::new("q").credits(1));
        let running = queue.reserve(rig.buffers(1)).unwrap().commit();
        let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
        let Rig { executor, device, live } = rig;
        let driver = executor.clone();
        let gone = device.drained();
        let done = device.driver().held.remove(queue.id() * 1_000_000 + 1);
        let mut handles: Vec<Box<dyn FnOnce()>> = vec![
            Box::new(move || drop(queue)),
            Box::new(move || drop(device)),
            Box::new(move || drop((running, waiting))),
            Box::new(move || done.unwrap().complete(Ok(()))),
        ];
        let mut rest = order;
        while !handles.is_empty() {
            let choices = handles.len();
            let handle = handles.remove(rest % choices);
            rest /= choices;
            handle();
            if order % 2 == 0 {
                driver.run_until_idle();
            }
        }
        drop(executor);
        // Where the first job ended before the close, the second is on the hardware, and drained by force.
        run_out(&driver);
        assert!(gone.is_drained(), "order {order}");
        assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1), "order {order}");
    }
}

#[test]
fn an_executor_of_threads_ends_with_its_last_object() {
    let executor = Executor::builder().threads().unwrap();
    let live = Arc::new(common::Live::default());
    let gone = {
        let rig = Rig::on(executor, true);
        let queue = rig.queue(QueueConfig::new("q"));
        for tag in 0..10 {
            drop(queue.reserve(buffers(&live, tag)).unwrap().commit());
        }
        rig.device.drained()
    };
    gone.wait(SOON).unwrap();
    assert_eq!(live.alive(), 0);
}

#[test]
fn a_queue_of_no_credits_and_a_queue_of_a_lost_device_are_refused() {
    let rig = Rig::new();
    let executor = rig.executor.clone();
    let plain = Device::new(&executor, Null).unwrap();
    assert_eq!(plain.queue(QueueConfig::new("q").credits(0), ()).unwrap_err(), outlive::OpenError::NoCredits);
    plain.unplug();
    executor.run_until_idle();
    assert_eq!(plain.queue(QueueConfig::new("q"), ()).unwrap_err(), outlive::OpenError::DeviceLost);
}

struct Null;

impl outlive::Driver for Null {
    type Job = ();
    type Queue = ();

    fn run(&self, _cx: &mut outlive::JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}
