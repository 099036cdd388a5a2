//! Long-running queues: what arms a preempt fence, what it costs whom, and how it ends when the driver or the hardware does
//! not do its part.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Call, Gpu, Rig, buffers, error, ok, pending};
use outlive::check::{self, Alloc};
use outlive::resv::{Reservation, Slot, Transaction, Usage};
use outlive::{
    Dependency, FenceError, LongQueue, Off, OpenError, PreemptToken, QueueConfig, ResetScope, Restart, Retired, Status,
    Time, UserFence,
};
use std::alloc::System;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

/// A queue that is on the hardware, and what guards its memory.
fn on(rig: &Rig) -> (LongQueue<Gpu>, Retired) {
    let queue = rig.long_queue(QueueConfig::new("compute"));
    let guard = bring_on(rig, queue.off().unwrap());
    (queue, guard)
}

fn publish(off: Off) -> (Retired, Restart) {
    off.reserve().unwrap().publish()
}

fn bring_on(rig: &Rig, off: Off) -> Retired {
    let (guard, restart) = publish(off);
    restart.restart();
    rig.idle();
    guard
}

fn start(rig: &Rig, queue: &LongQueue<Gpu>) -> UserFence {
    let done = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    done
}

/// Waits for `fence` as a user of the memory would, without blocking.
fn want(fence: &Retired) {
    fence.on_signaled(|_| ()).unwrap().keep();
}

fn count(rig: &Rig, call: Call) -> usize {
    rig.gpu().calls().into_iter().filter(|made| *made == call).count()
}

fn resumed(rig: &Rig) -> Option<Off> {
    rig.gpu().off.lock().unwrap().pop()
}

fn gone(rig: Rig) {
    let live = rig.live.clone();
    drop(rig.gpu().off.lock().unwrap().drain(..).collect::<Vec<_>>());
    let executor = rig.executor.clone();
    drop(rig);
    executor.run_until_idle();
    assert_eq!((live.alive(), live.drivers_dropped.load(SeqCst)), (0, 1), "everything has gone");
}

#[test]
fn nothing_starts_before_the_memory_is_guarded() {
    let rig = Rig::new();
    let queue = rig.long_queue(QueueConfig::new("compute"));
    start(&rig, &queue);
    assert_eq!(count(&rig, Call::Run(1)), 0);
    let off = queue.off().unwrap();
    assert!(queue.off().is_none(), "in one hand at a time");
    let guard = bring_on(&rig, off);
    assert_eq!(count(&rig, Call::Run(1)), 1);
    assert!(pending(&guard) && queue.off().is_none());
    drop(queue);
    rig.pass_ms(10_000);
    assert!(ok(&guard));
    gone(rig);
}

#[test]
fn a_query_does_not_arm_it_and_the_first_of_many_waits_does() {
    let rig = Rig::new();
    let (queue, guard) = on(&rig);
    let done = start(&rig, &queue);
    for _ in 0..3 {
        assert!(!guard.is_signaled() && guard.status() == Status::Pending && guard.timestamp().is_none());
        rig.pass_ms(100);
    }
    assert_eq!(count(&rig, Call::Preempt), 0);
    let later: Arc<Mutex<Vec<PreemptToken>>> = Arc::default();
    let kept = later.clone();
    rig.gpu().script(|script| script.preempt = Some(Box::new(move |token| kept.lock().unwrap().push(token))));
    for _ in 0..3 {
        want(&guard);
        rig.idle();
    }
    assert_eq!((count(&rig, Call::Preempt), pending(&guard)), (1, true), "asked once, and it takes its time");
    later.lock().unwrap().pop().unwrap().off();
    rig.idle();
    assert!(ok(&guard) && !done.is_signaled(), "off the hardware; the job has not ended");
    drop(queue);
    rig.pass_ms(10_000);
    gone(rig);
}

#[test]
fn a_dependency_arms_it_and_runs_when_the_context_is_off() {
    let rig = Rig::new();
    let (queue, guard) = on(&rig);
    start(&rig, &queue);
    let mover = rig.queue(QueueConfig::new("copy"));
    let copy = mover.reserve_after(rig.buffers(9), [Dependency::from(&guard)]).unwrap().commit();
    rig.idle();
    let calls = rig.gpu().calls();
    let place = |call| calls.iter().position(|made| *made == call).unwrap();
    assert!(place(Call::Preempt) < calls.len() - 1, "{calls:?}");
    assert!(ok(&guard) && ok(&copy.scheduled()));
    rig.complete(&mover, 1, Ok(()));
    drop((queue, mover));
    rig.pass_ms(10_000);
    gone(rig);
}

#[test]
fn it_comes_back_under_a_new_fence_with_its_jobs() {
    let rig = Rig::new();
    let (queue, mut guard) = on(&rig);
    let done = start(&rig, &queue);
    for round in 1..=20 {
        want(&guard);
        rig.idle();
        assert!(ok(&guard) && !done.is_signaled());
        let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
        rig.pass_ms(20_000);
        assert!(!waiting.is_signaled(), "what is off waits as long as it must");
        let next = bring_on(&rig, resumed(&rig).unwrap());
        assert_eq!(next.is_later_than(&guard), Some(true));
        assert_eq!((count(&rig, Call::Restore), count(&rig, Call::Preempt)), (round, round));
        guard = next;
    }
    assert!(rig.gpu().held.complete(queue.id() * 1_000_000 + 1, Ok(())));
    rig.idle();
    assert_eq!(done.status(), Status::Signaled(Ok(())));
    drop(queue);
    rig.pass_ms(10_000);
    gone(rig);
}

#[test]
fn its_jobs_have_no_time_limit() {
    let rig = Rig::new();
    let (queue, guard) = on(&rig);
    let done = start(&rig, &queue);
    rig.pass_ms(3_600_000);
    assert!(!done.is_signaled() && pending(&guard), "an hour later");
    assert_eq!(count(&rig, Call::TimedOut(1)), 0);
    assert!(rig.gpu().held.complete(queue.id() * 1_000_000 + 1, Ok(())));
    rig.idle();
    assert_eq!(done.status(), Status::Signaled(Ok(())));
    want(&guard);
    rig.idle();
    assert_eq!(
        (count(&rig, Call::Preempt), ok(&guard)),
        (0, true),
        "nothing of it is on the hardware: nobody is asked"
    );
    drop(queue);
    rig.idle();
    gone(rig);
}

#[test]
fn waited_for_before_it_is_on_it_does_not_go_on() {
    let rig = Rig::new();
    let queue = rig.long_queue(QueueConfig::new("compute"));
    let (guard, restart) = publish(queue.off().unwrap());
    start(&rig, &queue);
    want(&guard);
    rig.idle();
    assert!(ok(&guard) && resumed(&rig).is_none());
    restart.restart();
    rig.idle();
    assert_eq!(count(&rig, Call::Run(1)), 0, "its memory is somebody else's now");
    let guard = bring_on(&rig, resumed(&rig).unwrap());
    assert_eq!((count(&rig, Call::Run(1)), pending(&guard)), (1, true));
    drop(queue);
    rig.pass_ms(10_000);
    gone(rig);
}

#[test]
fn given_up_at_any_stage_it_stays_off_and_can_be_asked_for() {
    let rig = Rig::new();
    let queue = rig.long_queue(QueueConfig::new("compute"));
    drop(queue.off().unwrap());
    drop(queue.off().unwrap().reserve().unwrap());
    let (guard, restart) = publish(queue.off().unwrap());
    drop(restart);
    assert!(ok(&guard), "it is not on the hardware");
    rig.idle();
    assert!(pending(&bring_on(&rig, queue.off().unwrap())));
    drop(queue);
    rig.idle();
    gone(rig);
}

#[test]
fn no_memory_for_the_next_fence_leaves_the_context_in_ones_hands() {
    let rig = Rig::new();
    let queue = rig.long_queue(QueueConfig::new("compute"));
    let mut off = queue.off().unwrap();
    for nth in 1.. {
        check::fail_nth_allocation(nth);
        let tried = off.reserve();
        let failed = check::fail_nth_allocation(0) == 0;
        match tried {
            Err((again, _)) => off = again,
            Ok(ready) => {
                assert!(!failed && nth > 1, "the failures were seen");
                ready.publish().1.restart();
                break;
            }
        }
    }
    drop(queue);
    rig.idle();
    gone(rig);
}

#[test]
fn an_arbiter_is_refused() {
    let rig = Rig::new();
    let arbiter = outlive::sched::Arbiter::new(&rig.executor, outlive::sched::ArbiterConfig::new(4)).unwrap();
    let config = QueueConfig::new("compute").arbiter(&arbiter);
    let ring = rig.ring();
    let refused = rig.device.long_queue(config, ring).unwrap_err();
    assert!(matches!(refused, OpenError::LongWithArbiter), "{refused}");
}

/// Eviction, against a driver and hardware that do their part, refuse, or say nothing, and a queue closed before or
/// meanwhile: in every case the fence signals within its watchdog, and says "free" only when the hardware was excluded.
#[test]
fn evicted_refused_closed_and_hung_no_fence_passes_its_watchdog() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Yes,
        No,
        Never,
    }
    use Answer::{Never, No, Yes};
    let mut longest = Duration::ZERO;
    for preempts in [Yes, No, Never] {
        for resets in [Yes, No, Never] {
            for unplugs in [Yes, No, Never] {
                for closed_at in [None, Some(0), Some(500)] {
                    let rig = Rig::new();
                    let kept: Arc<Mutex<Vec<PreemptToken>>> = Arc::default();
                    let resets_kept = Arc::new(Mutex::new(Vec::new()));
                    let (keep, keep_resets, keep_unplugs) = (kept.clone(), resets_kept.clone(), resets_kept.clone());
                    rig.gpu().script(|script| {
                        script.preempt = Some(Box::new(move |token| match preempts {
                            Yes => token.off(),
                            No => token.failed(),
                            Never => keep.lock().unwrap().push(token),
                        }));
                        script.reset = Some(Box::new(move |_: ResetScope, token| match resets {
                            Yes => token.quiesced(),
                            No => token.failed(),
                            Never => keep_resets.lock().unwrap().push(token),
                        }));
                        script.unplug = Some(Box::new(move |token| match unplugs {
                            Yes => token.quiesced(),
                            No => token.failed(),
                            Never => keep_unplugs.lock().unwrap().push(token),
                        }));
                    });
                    let (queue, guard) = on(&rig);
                    let done = start(&rig, &queue);
                    if closed_at == Some(0) {
                        drop(queue.close());
                    }
                    let since = rig.executor.now();
                    want(&guard);
                    rig.pass_ms(500);
                    if closed_at == Some(500) {
                        drop(queue.close());
                    }
                    rig.pass_ms(9_499);
                    let case = format!("{preempts:?} {resets:?} {unplugs:?} {closed_at:?}");
                    let at = guard.timestamp().unwrap_or_else(|| panic!("{case}: pending past its watchdog"));
                    longest = longest.max(at.since(since));
                    let leaves = preempts == Yes && closed_at != Some(0);
                    let free = leaves || resets == Yes || unplugs == Yes;
                    let expected = if free { None } else { Some(FenceError::Quarantined) };
                    assert_eq!(error(&guard), expected, "{case}");
                    let ended = !leaves || closed_at.is_some();
                    assert_eq!(done.is_signaled(), ended, "{case}");
                    drop((kept, queue));
                    rig.pass_ms(10_000);
                    assert!(done.is_signaled(), "{case}");
                }
            }
        }
    }
    println!("the longest a preempt fence took: {longest:?} of at most 10 s");
    assert!(longest > Duration::ZERO);
}

#[test]
fn a_driver_that_panics_over_a_context_loses_the_queue_and_not_the_fence() {
    let rig = Rig::new();
    let (queue, guard) = on(&rig);
    let done = start(&rig, &queue);
    rig.gpu().script(|script| script.preempt = Some(Box::new(|_token| panic!("in preempt"))));
    want(&guard);
    let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.idle()));
    assert!(stepped.is_err());
    rig.pass_ms(10_000);
    assert!(ok(&guard) && done.status() == Status::Signaled(Err(FenceError::DriverBug)));
    assert!(queue.reserve(buffers(&rig.live, 3)).is_err());
    drop(queue);
    rig.idle();
    gone(rig);
}

#[test]
fn a_handle_dropped_with_the_context_off_on_or_leaving_leaves_nothing() {
    for stage in 0..4 {
        let rig = Rig::new();
        let kept: Arc<Mutex<Vec<PreemptToken>>> = Arc::default();
        let keep = kept.clone();
        rig.gpu().script(|script| script.preempt = Some(Box::new(move |token| keep.lock().unwrap().push(token))));
        let (queue, guard) = on(&rig);
        let done = start(&rig, &queue);
        if stage > 0 {
            want(&guard);
            rig.idle();
        }
        if stage > 1 {
            kept.lock().unwrap().pop().unwrap().off();
            rig.idle();
        }
        let restart = (stage == 3).then(|| publish(resumed(&rig).unwrap()));
        drop(queue);
        rig.pass_ms(10_000);
        assert!(ok(&guard) && done.is_signaled(), "stage {stage}");
        if let Some((next, restart)) = restart {
            assert!(ok(&next), "published for a context that will not go on");
            restart.restart();
        }
        kept.lock().unwrap().clear();
        rig.idle();
        assert_eq!(rig.executor.next_timer().filter(|at| *at < Time::NEVER), None);
        gone(rig);
    }
}

/// A buffer of a long-running context, and whether it is in memory.
struct Buffer {
    resv: Reservation,
    resident: AtomicBool,
}

impl Buffer {
    /// As a memory manager does: waits, with the buffer locked, until nothing can touch it, and takes it away.
    fn evict(&self) {
        let evicted = Transaction::new().run::<Slot<'_>, _>(
            |attempt| attempt.prepare(&self.resv),
            |sealed, slot| {
                for (_, fence) in sealed.fences(slot.locked(), Usage::Bookkeep) {
                    fence.wait(common::SOON).unwrap();
                }
                self.resident.store(false, SeqCst);
            },
        );
        evicted.unwrap();
    }

    /// As a driver's `resume` does: memory for the next fence, then lock, bring back, guard, and let go on.
    fn bring_back(&self, off: Off) -> Retired {
        let ready = off.reserve().unwrap();
        let back = Transaction::new().run::<Slot<'_>, _>(
            |attempt| attempt.prepare(&self.resv),
            |sealed, slot| {
                self.resident.store(true, SeqCst);
                let (guard, restart) = ready.publish();
                sealed.add(slot, Usage::Bookkeep, &guard);
                (guard, restart)
            },
        );
        let (guard, restart) = back.unwrap();
        restart.restart();
        guard
    }
}

#[test]
fn a_buffer_is_evicted_from_under_a_job_without_end_and_comes_back() {
    const ROUNDS: usize = 50;
    let rig = Rig::threads(false);
    let queue = rig.long_queue(QueueConfig::new("compute"));
    let buffer = Arc::new(Buffer { resv: Reservation::new().unwrap(), resident: AtomicBool::new(false) });
    let guard = buffer.bring_back(queue.off().unwrap());
    let done = queue.reserve(rig.buffers(1)).unwrap().commit();
    assert!(!buffer.resv.is_idle(Usage::Bookkeep).unwrap() && pending(&guard), "asking does not arm it");
    let seen = buffer.clone();
    rig.gpu().script(|script| {
        script.preempt = Some(Box::new(move |token| {
            assert!(seen.resident.load(SeqCst), "on the hardware without its memory");
            token.off();
        }));
    });
    std::thread::scope(|scope| {
        let resumer = scope.spawn(|| {
            let mut back = 0;
            while back < ROUNDS {
                match resumed(&rig) {
                    Some(off) => {
                        buffer.bring_back(off);
                        back += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        let mut evictions = 0;
        while !resumer.is_finished() {
            buffer.evict();
            evictions += 1;
            std::thread::yield_now();
        }
        resumer.join().unwrap();
        assert!(evictions >= ROUNDS, "{evictions}");
    });
    assert!(!done.is_signaled());
    // Fewer than rounds where an evictor came before the context was on: then nobody need take it off.
    assert!((1..=ROUNDS + 1).contains(&count(&rig, Call::Preempt)), "{}", count(&rig, Call::Preempt));
    assert!(rig.gpu().held.complete(queue.id() * 1_000_000 + 1, Ok(())));
    done.wait(common::SOON).unwrap();
    let idle = queue.close();
    idle.wait(common::SOON).unwrap();
    buffer.resv.wait(Usage::Bookkeep, common::SOON).unwrap();
}
