//! What waits for what: cycles that no lock class shows, and producers that lose, forget or delay their fence. One thread is
//! enough to see what takes two to go wrong.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::Rig;
use outlive::check::{self, Alloc, Report, Violation};
use outlive::sync::{Lock, LockClass};
use outlive::{Executor, Fence, FenceContext, Names, QueueConfig, Signaler, WaitError};
use std::alloc::System;
use std::hint::black_box;
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const A_MOMENT: Duration = Duration::from_millis(5);

/// The limit of slow fences is the whole process's, so no test runs beside the one that sets it.
static LIMIT: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    LIMIT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bare(executor: &Executor, timeline: &str) -> (Signaler, Fence) {
    FenceContext::new(executor, Names { driver: "bare", timeline }).unwrap().allocate().unwrap().publish()
}

fn taken() -> Option<Violation> {
    check::take_report().map(|report| report.violation)
}

/// The fences of the cycle on this thread, as they are called.
fn cycle() -> Option<(String, String, Report)> {
    let report = check::take_report()?;
    let Violation::WaitCycle { waited, promised } = report.violation else { panic!("{report}") };
    Some((waited.to_string(), promised.to_string(), report))
}

#[test]
fn a_thread_that_waits_for_what_needs_its_own_signal_is_told_so() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let rig = Rig::threads(true);
    let queue = rig.queue(QueueConfig::new("render"));
    let (signaler, gate) = bare(&rig.executor, "gate");
    let job = queue.reserve_after(rig.buffers(1), [&gate]).unwrap().commit();
    let behind = queue.reserve(rig.buffers(2)).unwrap().commit();
    assert_eq!(behind.retired().wait(A_MOMENT), Err(WaitError::TimedOut));
    assert_eq!(taken(), None, "nobody has promised anything");
    let from = line!() + 1;
    let promise = check::producing(&signaler);
    for fence in [job.finished(), behind.finished(), Fence::clone(&behind.retired())] {
        assert_eq!(fence.wait(A_MOMENT), Err(WaitError::TimedOut));
        let (waited, promised, report) = cycle().unwrap();
        assert!(waited.contains("fake render ") && promised.contains("bare gate "), "{report}");
        assert_eq!((report.section.file(), report.section.line()), (file!(), from), "{report}");
        assert_eq!(report.at.file(), file!());
        assert!(report.to_string().contains("signal it first (promised at"), "{report}");
    }
    drop(promise);
    assert_eq!(behind.finished().wait(A_MOMENT), Err(WaitError::TimedOut));
    assert_eq!(taken(), None, "the promise has ended");
    signaler.signal(Ok(()));
    behind.finished().wait(common::SOON).unwrap();
}

#[test]
fn two_threads_that_wait_for_each_other_are_seen_by_the_second() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let executor = Executor::builder().threads().unwrap();
    let sides = [bare(&executor, "left"), bare(&executor, "right")];
    let (ready, waiting) = (Barrier::new(2), Barrier::new(2));
    let reports: Vec<_> = thread::scope(|scope| {
        let threads = [0, 1].map(|own| {
            let (sides, ready, waiting) = (&sides, &ready, &waiting);
            scope.spawn(move || {
                let _promise = check::producing(&sides[own].0);
                ready.wait();
                if own == 1 {
                    // The other is in its wait by then, most likely; if not, it is the one who closes the cycle.
                    thread::sleep(A_MOMENT);
                }
                let waited = sides[1 - own].1.wait(A_MOMENT * 40);
                assert_eq!(waited, Err(WaitError::TimedOut));
                waiting.wait();
                cycle()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into_iter().flatten().collect()
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    for (signaler, _) in sides {
        signaler.signal(Ok(()));
    }
}

#[test]
fn what_can_end_is_not_reported() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let executor = Executor::builder().threads().unwrap();
    let [(own, mine), (other, theirs)] = ["mine", "theirs"].map(|name| bare(&executor, name));
    let promise = check::producing(&own);
    assert_eq!(theirs.wait(A_MOMENT), Err(WaitError::TimedOut), "somebody else's, who waits for nothing");
    let any = Fence::any_of(&[mine.clone(), theirs.clone()]).unwrap();
    assert_eq!(any.wait(A_MOMENT), Err(WaitError::TimedOut), "the other may come");
    assert_eq!(Fence::wait_any(&[mine.clone(), theirs.clone()], A_MOMENT), Err(WaitError::TimedOut));
    assert_eq!(taken(), None);
    let all = Fence::all_of(&[mine.clone(), theirs]).unwrap();
    assert_eq!(all.wait(A_MOMENT), Err(WaitError::TimedOut));
    assert!(cycle().is_some(), "needs both");
    own.signal(Ok(()));
    assert!(mine.wait(A_MOMENT).is_ok());
    other.signal(Ok(()));
    all.wait(common::SOON).unwrap();
    assert_eq!(taken(), None);
    drop(promise);
}

#[test]
fn a_producer_that_is_dropped_or_lets_its_time_go_by_is_named() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let named = |violation| match violation {
        Some(Violation::Dropped { fence }) => format!("dropped {}", &*fence),
        Some(Violation::Expired { fence }) => format!("expired {}", &*fence),
        other => panic!("{other:?}"),
    };
    let (signaler, fence) = bare(&executor, "lost");
    let id = fence.id();
    drop(signaler);
    assert_eq!(named(taken()), format!("dropped bare lost {id}"));
    let (signaler, fence) = bare(&executor, "nobody's");
    drop(fence);
    drop(signaler);
    assert_eq!(taken(), None, "nobody hears of it");
    let (signaler, fence) = bare(&executor, "forgotten");
    std::mem::forget(signaler);
    executor.advance_to(outlive::Time::from_ns(20_000_000_000));
    executor.run_until_idle();
    assert_eq!(named(taken()), format!("expired bare forgotten {}", fence.id()));
}

#[test]
fn a_slow_producer_is_reported_where_its_fence_was_published() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("slow"));
    check::set_slow_limit(Some(Duration::from_millis(100)));
    for (ms, slow) in [(100, false), (101, true)] {
        let line = line!() + 1;
        let (signaler, fence) = bare(&rig.executor, "work");
        rig.pass_ms(ms);
        signaler.signal(Ok(()));
        let report = check::take_report();
        assert_eq!(report.is_some(), slow);
        if let Some(report) = report {
            let Violation::Slow { took_ns, .. } = report.violation else { panic!("{report}") };
            assert_eq!(took_ns, 101_000_000);
            // In this file: by a helper of it.
            assert!(report.at.file() == file!() && report.at.line() < line, "{report}");
            assert!(report.to_string().contains(&format!("bare work {} took its producer 101.000 ms", fence.id())));
        }
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        // The fake device's log allocates.
        let _ = check::take_report();
        rig.pass_ms(ms);
        rig.complete(&queue, job.finished().seqno(), Ok(()));
        let report = check::take_report();
        assert_eq!(report.is_some(), slow, "a job's clock runs from its start: {report:?}");
    }
    check::set_slow_limit(None);
}

/// As a reservation: may be held while allocating and while waiting.
enum Object {}
impl LockClass for Object {
    const NAME: &'static str = "object";
    const RANK: u16 = 900;
    const SIGNALLING: bool = false;
}

/// A driver's lock that its interrupt handler takes, too.
enum Irq {}
impl LockClass for Irq {
    const NAME: &'static str = "irq";
    const RANK: u16 = 970;
    const SIGNALLING: bool = true;
}

#[test]
fn the_kernels_order_is_built_in() {
    let _alone = one_at_a_time();
    check::set_reporter(false);
    let executor = Executor::builder().threads().unwrap();
    let (signaler, fence) = bare(&executor, "any");
    let (object, irq): (Lock<Object, ()>, Lock<Irq, ()>) = (Lock::new(()), Lock::new(()));
    let wait = || assert_eq!(fence.wait(Duration::from_millis(1)), Err(WaitError::TimedOut));
    let allocate = || drop(black_box(Box::new([0_u8; 64])));

    let held = object.lock();
    wait();
    allocate();
    drop(check::reclaiming());
    drop(held);
    assert_eq!(taken(), None, "reservation, then reclaim, then a wait");

    let reclaim = check::reclaiming();
    wait();
    drop(irq.lock());
    drop(reclaim);
    assert_eq!(taken(), None, "reclaim may wait");

    let reclaim = check::reclaiming();
    drop(object.lock());
    drop(reclaim);
    let order = Violation::LockOrder { taken: "object".into(), held: "reclaim".into() };
    assert_eq!(taken(), Some(order), "whoever holds it may be allocating");

    let reclaim = check::reclaiming();
    allocate();
    drop(reclaim);
    assert_eq!(taken(), Some(Violation::AllocatedHolding { bytes: 64, class: "reclaim".into() }));

    let held = irq.lock();
    wait();
    drop(held);
    assert_eq!(taken(), Some(Violation::WaitedHolding { class: "irq".into() }), "the signal may need it");

    let held = irq.lock();
    allocate();
    drop(held);
    assert_eq!(taken(), Some(Violation::AllocatedHolding { bytes: 64, class: "irq".into() }));
    signaler.signal(Ok(()));
}
