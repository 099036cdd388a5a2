//! The run-time checks: each kind of violation is seen, with both its places, where its section ends, and only there.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

mod allocation;
mod drivers;
mod foreign_drops;
#[cfg(debug_assertions)]
mod locks;
mod waiting;

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
