//! The run-time checks: each kind of violation is seen, with both its places, where its section ends, and only there.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

use core::hint::black_box;
use core::panic::Location;
use core::time::Duration;
use outlive::check::{self, Alloc, Report, Violation};
use outlive::sync::{Lock, LockClass};
use outlive::{
    Completion, Device, Driver, Executor, Fence, FenceContext, JobCx, JobQueue, Names, QueueConfig, Signaler, WaitError,
};
use static_assertions::assert_not_impl_any;
use std::alloc::System;
use std::sync::{Barrier, Mutex};
use std::thread;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const LONG: Duration = Duration::from_secs(30);

assert_not_impl_any!(check::Signalling: Send, Sync);

/// The file and line of the caller.
#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// Whether `place` is `lines` lines after `from`, in the same file.
fn is_after(place: &check::Place, from: &Location<'_>, lines: u32) -> bool {
    (place.file(), place.line()) == (from.file(), from.line() + lines)
}

/// The one report of this thread.
fn reported() -> Report {
    let report = check::take_report().expect("a violation was reported");
    assert!(check::take_report().is_none(), "and taken");
    report
}

/// What a report says of the two places, for the message of its display.
fn says(report: &Report, what: &str) -> bool {
    let text = report.to_string();
    text.contains(&report.at.to_string()) && text.contains(&report.section.to_string()) && text.contains(what)
}

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, Names { driver: "bare", timeline: "test" }).unwrap().allocate().unwrap().publish()
}

/// An outer lock of an embedder's, which its holder may keep while it waits.
enum Outer {}
impl LockClass for Outer {
    const NAME: &'static str = "outer";
    const RANK: u16 = 10;
    const SIGNALLING: bool = false;
}

/// A driver's own lock, which its interrupt handler may take.
enum Inner {}
impl LockClass for Inner {
    const NAME: &'static str = "inner";
    const RANK: u16 = 2000;
    const SIGNALLING: bool = true;
}

/// Another of the same rank.
enum Twin {}
impl LockClass for Twin {
    const NAME: &'static str = "twin";
    const RANK: u16 = 2000;
    const SIGNALLING: bool = true;
}

mod allocation {
    use super::*;

    #[test]
    fn in_a_section_is_reported_at_its_end_with_both_places() {
        check::set_reporter(false);
        let before = check::reports();
        let from = here();
        let section = check::signalling();
        drop(black_box(Box::new([0_u8; 100])));
        assert!(check::take_report().is_none(), "the culprit is not interrupted");
        drop(section);
        assert!(check::reports() > before);
        let report = reported();
        assert_eq!(report.violation, Violation::Allocated { bytes: 100 });
        assert!(is_after(&report.at, from, 1) && is_after(&report.section, from, 1), "{report}");
        assert!(says(&report, "allocated 100 bytes; reserve them before the fence is published"));
    }

    #[test]
    fn in_a_nested_section_is_reported_once_at_the_outermost_end() {
        check::set_reporter(false);
        let from = here();
        let outer = check::signalling();
        let middle = check::signalling();
        let inner = check::signalling();
        drop(black_box(Box::new(0_u64)));
        drop(inner);
        assert!(check::take_report().is_none());
        drop(black_box(Box::new([0_u64; 4])));
        drop(middle);
        assert!(check::take_report().is_none());
        drop(outer);
        let report = reported();
        assert_eq!(report.violation, Violation::Allocated { bytes: 8 }, "the first of them");
        assert!(is_after(&report.section, from, 1), "the outermost: {report}");
        assert!(is_after(&report.at, from, 3), "the innermost mark before it: {report}");
    }

    #[test]
    fn that_grows_something_is_one_too() {
        check::set_reporter(false);
        let mut vec: Vec<u64> = Vec::with_capacity(1);
        let section = check::signalling();
        vec.reserve_exact(3);
        drop(section);
        assert_eq!(reported().violation, Violation::Allocated { bytes: 24 });
        let section = check::signalling();
        let zeroed = black_box(vec![0_u8; 77]);
        drop(section);
        assert_eq!((reported().violation, zeroed.len()), (Violation::Allocated { bytes: 77 }, 77));
    }

    #[test]
    fn outside_sections_is_nobodys_business() {
        check::set_reporter(false);
        drop(check::signalling());
        drop(black_box(Box::new(0_u64)));
        assert!(check::take_report().is_none());
    }

    #[test]
    fn of_one_section_is_not_held_against_the_next() {
        check::set_reporter(false);
        let section = check::signalling();
        drop(black_box(Box::new(0_u64)));
        drop(section);
        reported();
        drop(check::signalling());
        assert!(check::take_report().is_none());
    }

    #[test]
    fn reserved_before_may_be_used_and_freed_in_a_section() {
        check::set_reporter(false);
        let (boxed, text) = (Box::new([1_u8; 64]), String::from("reserved before"));
        let mut room: Vec<u32> = Vec::with_capacity(4);
        let section = check::signalling();
        room.extend([1, 2, 3, 4]);
        drop(black_box(boxed));
        drop(black_box(text));
        drop(black_box(room));
        drop(section);
        assert!(check::take_report().is_none(), "freeing is allowed");
    }

    #[test]
    fn of_an_unrelated_thread_is_not_blamed_on_anybody() {
        check::set_reporter(false);
        let (go, done) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                go.wait();
                drop(black_box(Box::new([0_u8; 333])));
                done.wait();
                check::take_report().is_none()
            });
            let section = check::signalling();
            go.wait();
            done.wait();
            drop(section);
            assert!(check::take_report().is_none());
            assert!(other.join().unwrap());
        });
    }

    #[test]
    fn that_was_made_to_fail_is_still_reported() {
        check::set_reporter(false);
        let mut vec: Vec<u8> = Vec::new();
        let section = check::signalling();
        assert_eq!(check::fail_nth_allocation(1), 0);
        assert!(vec.try_reserve_exact(5).is_err());
        assert_eq!(check::fail_nth_allocation(0), 0, "it has happened");
        drop(section);
        assert_eq!(reported().violation, Violation::Allocated { bytes: 5 });
    }
}

mod waiting {
    use super::*;

    #[test]
    fn in_a_section_is_refused_and_reported_with_both_places() {
        check::set_reporter(false);
        let executor = Executor::builder().threads().unwrap();
        let (_signaler, fence) = bare(&executor);
        let from = here();
        let section = check::signalling();
        assert_eq!(fence.wait(LONG), Err(WaitError::InSignallingSection));
        assert!(check::take_report().is_none());
        drop(section);
        let report = reported();
        assert_eq!(report.violation, Violation::Waited);
        assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 2), "{report}");
        assert!(says(&report, "waited for a fence; a signalling path may only arm callbacks"));
    }

    #[test]
    fn of_any_kind_is_refused() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let (_signaler, fence) = bare(&executor);
        let all = [fence.clone()];
        let refused = Err(WaitError::InSignallingSection);
        for wait in [0, 1, 2] {
            let section = check::signalling();
            let answer = match wait {
                0 => Fence::wait_any(&all, LONG).map(drop),
                1 => Fence::wait_all(&all, LONG),
                _ => executor.wait(&fence, LONG),
            };
            drop(section);
            assert_eq!(answer, refused);
            let report = reported();
            assert_eq!((report.violation, report.at.file()), (Violation::Waited, file!()), "wait {wait}");
        }
    }

    #[test]
    fn for_what_has_signaled_is_no_wait() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let (signaler, fence) = bare(&executor);
        signaler.signal(Ok(()));
        let section = check::signalling();
        assert_eq!(fence.wait(LONG), Ok(()));
        drop(section);
        assert!(check::take_report().is_none());
    }

    #[test]
    fn in_a_callback_is_refused_and_reported_at_once() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let (signaler, fence) = bare(&executor);
        let (_pending, other) = bare(&executor);
        let from = here();
        let closure = move |_| {
            assert_eq!(other.wait(LONG), Err(WaitError::InCallback));
            let report = reported();
            assert_eq!((report.violation, report.section), (Violation::WaitedInCallback, report.at));
            assert!(is_after(&report.at, from, 2), "{report}");
            assert!(says(&report, "waited for a fence in a callback; register another callback instead"));
        };
        fence.on_signaled(closure).unwrap().keep();
        signaler.signal(Ok(()));
        assert!(executor.notify());
    }

    #[test]
    fn in_a_section_inside_a_callback_is_the_sections() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let (signaler, fence) = bare(&executor);
        let (_pending, other) = bare(&executor);
        let closure = move |_| {
            let section = check::signalling();
            assert_eq!(other.wait(LONG), Err(WaitError::InSignallingSection));
            drop(section);
            assert_eq!(reported().violation, Violation::Waited);
        };
        fence.on_signaled(closure).unwrap().keep();
        signaler.signal(Ok(()));
        assert!(executor.notify());
    }

    #[test]
    fn is_allowed_again_after_the_section_and_after_the_callback() {
        check::set_reporter(false);
        let executor = Executor::builder().threads().unwrap();
        let (_signaler, fence) = bare(&executor);
        drop(check::signalling());
        let driven = Executor::manual().unwrap();
        let (signaler, other) = bare(&driven);
        other.on_signaled(|_| {}).unwrap().keep();
        signaler.signal(Ok(()));
        assert!(driven.notify());
        assert_eq!(fence.wait(Duration::from_millis(1)), Err(WaitError::TimedOut));
        assert!(check::take_report().is_none());
    }
}

/// The lock checks exist with debug assertions; without them a lock costs nothing more.
#[cfg(debug_assertions)]
mod locks {
    use super::*;

    #[test]
    fn of_a_class_for_waiters_are_reported_in_a_section() {
        check::set_reporter(false);
        let lock: Lock<Outer, u32> = Lock::new(7);
        let from = here();
        let section = check::signalling();
        assert_eq!(*lock.lock(), 7);
        assert!(check::take_report().is_none());
        drop(section);
        let report = reported();
        assert_eq!(report.violation, Violation::WrongLock { class: "outer".into() });
        assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 2), "{report}");
        assert!(says(&report, "took lock `outer`, which a waiter may hold"));
    }

    #[test]
    fn of_a_class_for_signalling_may_be_taken_anywhere() {
        check::set_reporter(false);
        let lock: Lock<Inner, u32> = Lock::new(7);
        *lock.lock() += 1;
        let section = check::signalling();
        *lock.lock() += 1;
        drop(section);
        assert_eq!(*lock.lock(), 9);
        assert!(check::take_report().is_none());
    }

    #[test]
    fn of_a_class_for_waiters_may_be_taken_outside_sections() {
        check::set_reporter(false);
        let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
        let held = outer.lock();
        drop(inner.lock());
        let section = check::signalling();
        drop(inner.lock());
        drop(section);
        drop(held);
        assert!(check::take_report().is_none());
    }

    #[test]
    fn taken_against_the_order_are_reported_at_once_outside_sections() {
        check::set_reporter(false);
        let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
        let held = inner.lock();
        let from = here();
        drop(outer.lock());
        let report = reported();
        drop(held);
        assert_eq!(report.violation, Violation::LockOrder { taken: "outer".into(), held: "inner".into() });
        assert!(is_after(&report.at, from, 1), "{report}");
        assert_eq!(report.section, report.at);
        assert!(says(&report, "took lock `outer` while holding `inner`; take it first"));
    }

    #[test]
    fn taken_against_the_order_in_a_section_are_reported_at_its_end() {
        check::set_reporter(false);
        let (a, b): (Lock<Inner, ()>, Lock<Twin, ()>) = (Lock::new(()), Lock::new(()));
        let from = here();
        let section = check::signalling();
        let first = a.lock();
        drop(b.lock());
        drop(first);
        assert!(check::take_report().is_none());
        drop(section);
        let report = reported();
        assert_eq!(
            report.violation,
            Violation::LockOrder { taken: "twin".into(), held: "inner".into() },
            "of one rank, either way"
        );
        assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 3), "{report}");
    }

    #[test]
    fn of_one_class_do_not_nest() {
        check::set_reporter(false);
        let (a, b): (Lock<Inner, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
        let first = a.lock();
        drop(b.lock());
        drop(first);
        assert_eq!(reported().violation, Violation::LockOrder { taken: "inner".into(), held: "inner".into() });
    }

    #[test]
    fn may_be_let_go_in_any_order() {
        check::set_reporter(false);
        let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
        let (first, second) = (outer.lock(), inner.lock());
        drop(first);
        // Still held, and known to be.
        drop(outer.lock());
        assert_eq!(reported().violation, Violation::LockOrder { taken: "outer".into(), held: "inner".into() });
        drop(second);
        drop(outer.lock());
        assert!(check::take_report().is_none());
    }

    #[test]
    fn of_another_thread_are_not_held_here() {
        check::set_reporter(false);
        let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
        let (held, done) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                held.wait();
                drop(outer.lock());
                assert!(check::take_report().is_none());
                done.wait();
            });
            let guard = inner.lock();
            held.wait();
            done.wait();
            drop(guard);
        });
        assert!(check::take_report().is_none());
    }

    #[test]
    fn of_the_library_are_all_for_signalling_and_in_the_order_of_their_list() {
        use outlive::sync::class;
        macro_rules! check_list {
            ($($name:ident),*) => {
                let classes = [$((class::$name::NAME, class::$name::RANK, class::$name::SIGNALLING)),*];
                assert!(classes.is_sorted_by(|a, b| a.1 < b.1), "{classes:?}");
                assert!(classes.iter().all(|class| class.2 && (1000..2000).contains(&class.1)));
            };
        }
        check_list!(DeviceState, QueueState, ContextState, InFlightSlots, FenceWaiters, TimerTree, LaneQueue, Orphans);
    }
}

/// A driver that does in `run` what its test wants.
#[derive(Default)]
struct Fake {
    run: Mutex<Option<fn()>>,
}

impl Driver for Fake {
    type Job = Box<u32>;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        let run = *self.run.lock().unwrap();
        if let Some(run) = run {
            run();
        }
        done.complete(Ok(()));
    }
}

fn queue_on(executor: &Executor) -> JobQueue<Fake> {
    Device::new(executor, Fake::default()).unwrap().queue(QueueConfig::new("q"), ()).unwrap()
}

mod foreign_drops {
    use super::*;

    #[test]
    fn of_a_payload_in_a_section_are_reported_with_the_section() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let queue = queue_on(&executor);
        let reserved = queue.reserve(Box::new(1)).unwrap();
        let from = here();
        let section = check::signalling();
        drop(reserved);
        assert!(check::take_report().is_none());
        drop(section);
        let report = reported();
        assert_eq!(report.violation, Violation::ForeignDrop);
        assert!(is_after(&report.section, from, 1), "{report}");
        assert!(report.at.file().ends_with("queue/submit.rs"), "a `Drop` is not told its caller: {report}");
        assert!(says(&report, "dropped a foreign value; leave it to the reaper"));
    }

    #[test]
    fn of_a_closure_in_a_section_are_reported_with_the_section() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let (_signaler, fence) = bare(&executor);
        let boxed = Box::new(1);
        let registration = fence.on_signaled(move |_| drop(boxed)).unwrap();
        let from = here();
        let section = check::signalling();
        drop(registration);
        drop(section);
        let report = reported();
        assert_eq!(report.violation, Violation::ForeignDrop);
        assert!(is_after(&report.section, from, 1), "{report}");
    }

    #[test]
    fn of_retired_payloads_wait_for_the_reaper_and_are_not_reported() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let queue = queue_on(&executor);
        let job = queue.reserve(Box::new(1)).unwrap().commit();
        assert!(job.retired().is_signaled());
        executor.run_until_idle();
        let gone = queue.device().drained();
        drop(queue);
        executor.run_until_idle();
        assert!(gone.is_drained());
        assert!(check::take_report().is_none());
    }
}

mod drivers {
    use super::*;

    /// Runs one job whose `run` does `what`, through the submitter or the lane.
    fn run(what: fn(), bypass: bool) -> Option<Report> {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Fake::default()).unwrap();
        *device.driver().run.lock().unwrap() = Some(what);
        let queue = device.queue(QueueConfig::new("q").bypass(bypass), ()).unwrap();
        let reserved = queue.reserve(Box::new(1)).unwrap();
        let job = reserved.commit();
        executor.step();
        assert!(job.finished().is_signaled());
        check::take_report()
    }

    #[test]
    fn that_allocate_in_run_are_reported() {
        for bypass in [true, false] {
            let report = run(|| drop(black_box(Box::new([0_u8; 55]))), bypass).unwrap();
            assert_eq!(report.violation, Violation::Allocated { bytes: 55 });
            assert!(report.section.file().contains("queue"), "the library's own section: {report}");
        }
    }

    #[test]
    fn that_wait_in_run_are_reported_by_their_own_line() {
        static LINE: Mutex<u32> = Mutex::new(0);
        static PENDING: Mutex<Option<Fence>> = Mutex::new(None);
        let executor = Executor::manual().unwrap();
        let (_signaler, fence) = bare(&executor);
        *PENDING.lock().unwrap() = Some(fence);
        for bypass in [true, false] {
            let waits = || {
                let fence = PENDING.lock().unwrap().clone().unwrap();
                *LINE.lock().unwrap() = line!() + 1;
                assert_eq!(fence.wait(LONG), Err(WaitError::InSignallingSection));
            };
            let report = run(waits, bypass).unwrap();
            assert_eq!(report.violation, Violation::Waited);
            assert_eq!((report.at.file(), report.at.line()), (file!(), *LINE.lock().unwrap()));
        }
    }

    #[cfg(debug_assertions)]
    #[test]
    fn that_take_a_waiters_lock_in_run_are_reported_by_their_own_line() {
        static LOCK: Lock<Outer, ()> = Lock::new(());
        let line = line!() + 1;
        let report = run(|| drop(LOCK.lock()), true).unwrap();
        assert_eq!(report.violation, Violation::WrongLock { class: "outer".into() });
        assert_eq!((report.at.file(), report.at.line()), (file!(), line));
    }

    #[test]
    fn that_keep_the_rules_are_not_reported() {
        for bypass in [true, false] {
            assert!(run(|| {}, bypass).is_none());
        }
    }
}

#[test]
fn the_first_violation_of_a_section_is_the_one_reported() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (_signaler, fence) = bare(&executor);
    let section = check::signalling();
    assert!(fence.wait(LONG).is_err());
    drop(black_box(Box::new(0_u64)));
    drop(section);
    assert_eq!(reported().violation, Violation::Waited);
}

#[test]
fn a_section_that_a_panic_ends_is_reported_and_closed() {
    check::set_reporter(false);
    let caught = std::panic::catch_unwind(|| {
        let _section = check::signalling();
        drop(black_box(Box::new([0_u8; 21])));
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(caught.is_err());
    assert_eq!(reported().violation, Violation::Allocated { bytes: 21 });
    drop(black_box(Box::new(0_u64)));
    assert!(check::take_report().is_none(), "the section is over");
}

#[test]
fn allocations_are_counted_per_thread_and_can_be_made_to_fail() {
    let before = check::allocations();
    let boxed = black_box(Box::new([0_u8; 40]));
    let after = check::allocations();
    assert_eq!((after.allocated - before.allocated, after.freed, after.bytes - before.bytes), (1, before.freed, 40));
    drop(boxed);
    assert_eq!(check::allocations().freed, before.freed + 1);

    let mut vec: Vec<u8> = Vec::new();
    check::fail_nth_allocation(2);
    assert!(vec.try_reserve_exact(1).is_ok());
    assert!(vec.try_reserve_exact(100).is_err(), "growing is an allocation too");
    assert!(vec.try_reserve_exact(100).is_ok(), "once");
    check::fail_nth_allocation(3);
    drop(black_box(Box::new(0_u64)));
    assert_eq!(check::fail_nth_allocation(0), 2, "how many were still to come");
    drop(black_box(Box::new(0_u64)));
}
