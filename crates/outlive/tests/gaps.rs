//! What no public suite covers of fences, containers and sync objects: one test for each such item of `docs/conformance.md`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

use outlive::check::{self, Alloc};
use outlive::{
    Executor, Fence, FenceContext, FenceError, Hook, Names, Producer, Signaler, Status, Syncobj, SyncobjWait, Time,
    Timeline, Until, UserFence, WaitError,
};
use std::alloc::System;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const FAULT: FenceError = FenceError::Faulted { code: 7 };
const LATE: FenceError = FenceError::TimedOut;
const NAMES: Names<'_> = Names { driver: "gap", timeline: "test" };
/// Only a defect waits that long.
const LONG: Duration = Duration::from_secs(30);

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

fn fences<const N: usize>(executor: &Executor) -> ([Signaler; N], [Fence; N]) {
    let (signalers, fences): (Vec<_>, Vec<_>) = (0..N).map(|_| bare(executor)).unzip();
    (signalers.try_into().unwrap(), fences.try_into().unwrap())
}

fn ns(ns: u64) -> Time {
    Time::from_ns(ns)
}

#[derive(Clone, Default)]
struct Deadlines(Arc<Mutex<Vec<Time>>>);

impl Producer for Deadlines {
    fn deadline(&self, at: Time) {
        self.0.lock().unwrap().push(at);
    }
}

/// `SYNC_IOC_SET_DEADLINE`, `DRM_SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE`.
#[test]
fn deadlines_keep_the_earliest_and_reach_all_that_is_waited_for() {
    let executor = Executor::manual().unwrap();
    executor.advance_to(ns(1000));
    let heard: [Deadlines; 4] = Default::default();
    let (mut signalers, mut fences) = (Vec::new(), Vec::new());
    for heard in &heard {
        let hook = Hook::try_new(&executor, heard.clone()).unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (signaler, fence) = context.allocate().unwrap().with_hook(hook).publish();
        signalers.push(signaler);
        fences.push(fence);
    }
    let timeline = Timeline::new("t").unwrap();
    timeline.add(1, &Fence::all_of(&fences[..2]).unwrap()).unwrap();
    let point = timeline.add(2, &fences[2]).unwrap();
    let object = Syncobj::new(&executor, "o").unwrap();
    object.submit(1, &point).unwrap();
    let wait = SyncobjWait::all_of(&[(&object, 1), (&object, 2)], Until::SubmittedAndSignaled).unwrap();
    wait.set_deadline(ns(9000));
    point.set_deadline(ns(8000));
    wait.set_deadline(ns(8500));
    // What is past is "now", and as early as any.
    wait.set_deadline(ns(5));
    object.submit(2, &fences[3]).unwrap();
    signalers.remove(3).signal(Ok(()));
    wait.set_deadline(ns(1));
    let told = heard.map(|heard| heard.0.lock().unwrap().clone());
    for told in &told[..3] {
        assert!(told.is_sorted_by(|earlier, later| earlier > later), "only what is earlier: {told:?}");
        assert_eq!((told.first(), told.last()), (Some(&ns(9000)), Some(&ns(1))));
    }
    assert_eq!(told[3], [ns(5)], "told when it was submitted, and nothing once it has signaled");
    assert_eq!(fences[3].deadline(), None);
}

#[test]
fn errors_go_through_arrays_points_merges_and_waits_by_a_stated_rule() {
    let executor = Executor::manual().unwrap();
    let ([a, b, c], fences) = fences(&executor);
    let object = Syncobj::new(&executor, "o").unwrap();
    let all = Fence::all_of(&fences).unwrap();
    let any = Fence::any_of(&fences).unwrap();
    for (number, fence) in (1..).zip(&fences) {
        object.submit(number, fence).unwrap();
    }
    let points = [1, 2, 3].map(|number| object.find(number).unwrap().unwrap());
    let wait = SyncobjWait::all_of(&[1, 2, 3].map(|number| (&object, number)), Until::Signaled).unwrap();
    let before = Fence::merge(&fences).unwrap();
    c.signal(Err(LATE));
    let after = Fence::merge(&fences).unwrap();
    b.signal(Err(FAULT));
    a.signal(Ok(()));
    assert_eq!(all.status(), Status::Signaled(Err(FAULT)), "an array: the first in order");
    assert_eq!(any.status(), Status::Signaled(Err(LATE)), "any: the first in time");
    assert_eq!(before.status(), Status::Signaled(Err(FAULT)), "a merge: as an array of what was pending");
    assert_eq!(after.status(), Status::Signaled(Err(FAULT)), "what had failed before is left out");
    let points = points.map(|point| point.status());
    assert_eq!(points, [Ok(()), Err(FAULT), Err(LATE)].map(Status::Signaled), "a point: its own fence's");
    assert_eq!(wait.as_user_fence().status(), Status::Signaled(Err(FAULT)), "a wait: the first in order");
}

/// Exporting a point and importing it as another point, again and again: the kernel nests chains that way.
#[test]
fn a_point_that_is_handed_on_and_on_does_not_nest() {
    const TIMES: u64 = 600;
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = bare(&executor);
    let objects = [Syncobj::new(&executor, "a").unwrap(), Syncobj::new(&executor, "b").unwrap()];
    objects[0].submit(1, &fence).unwrap();
    for number in 1..TIMES {
        let (from, to) = (usize::from(number % 2 == 0), usize::from(number % 2 == 1));
        objects[to].transfer(number + 1, &objects[from], 0).unwrap();
    }
    let last = objects[1].find(TIMES).unwrap().unwrap();
    let mut leaves = 0;
    last.for_each_leaf(|leaf| leaves += usize::from(*leaf == fence));
    assert!(leaves > 0);
    let small = thread::Builder::new().stack_size(64 * 1024);
    let ended = small.spawn(move || {
        signaler.signal(Ok(()));
        let done = last.is_signaled();
        drop((last, objects));
        done
    });
    assert!(ended.unwrap().join().unwrap());
    executor.run_until_idle();
}

#[test]
fn waiting_for_any_says_which_and_leaves_nothing_behind() {
    let executor = Executor::builder().threads().unwrap();
    let ([a, b, c], fences) = fences(&executor);
    assert_eq!(Fence::wait_any(&fences, Duration::ZERO), Err(WaitError::TimedOut));
    assert_eq!(Fence::wait_any(&fences, Duration::from_millis(1)), Err(WaitError::TimedOut));
    assert_eq!(Fence::wait_any(&[], Duration::ZERO), Err(WaitError::TimedOut), "none at all never does");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| Fence::wait_any(&fences, LONG));
        c.signal(Err(FAULT));
        assert_eq!(waiter.join().unwrap(), Ok(2), "also one that failed");
    });
    b.signal(Ok(()));
    assert_eq!(Fence::wait_any(&fences, LONG), Ok(1), "the lowest of several");
    a.signal(Ok(()));
    assert_eq!(Fence::wait_any(&fences, Duration::ZERO), Ok(0));
    assert!(fences.iter().all(Fence::callbacks_done));
}

/// In the kernel names are read through operations that the signal takes away.
#[test]
fn names_are_whole_while_the_issuer_signals_and_goes() {
    let executor = Executor::builder().threads().unwrap();
    let done = AtomicBool::new(false);
    let shared = Mutex::new(bare(&executor).1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let fence = shared.lock().unwrap().clone();
                    assert_eq!((fence.driver_name(), fence.timeline_name(), fence.seqno()), ("gap", "test", 1));
                }
            });
        }
        for _ in 0..500 {
            let (signaler, fence) = bare(&executor);
            *shared.lock().unwrap() = fence;
            signaler.signal(Ok(()));
        }
        done.store(true, SeqCst);
    });
}

/// The kernel signals such a fence with `-EDEADLK` if callbacks are pending, and forgets it if not.
#[test]
fn a_pending_fence_whose_handles_go_is_still_signaled_and_its_closures_run() {
    let executor = Executor::manual().unwrap();
    let results = Arc::new(Mutex::new(Vec::new()));
    let heard = |fence: &Fence| {
        let results = results.clone();
        fence.on_signaled(move |result| results.lock().unwrap().push(result)).unwrap().keep();
    };
    let ([signals, goes], [first, second]) = fences(&executor);
    let all = Fence::all_of(&[first.clone(), second.clone()]).unwrap();
    [&first, &second, &all].into_iter().for_each(heard);
    drop((first, second, all));
    signals.signal(Ok(()));
    drop(goes);
    executor.run_until_idle();
    assert_eq!(*results.lock().unwrap(), [Ok(()), Err(FenceError::Canceled), Err(FenceError::Canceled)]);
    let (source, user) = UserFence::new(&executor, "held open").unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    user.on_signaled(move |_| _ = counted.fetch_add(1, SeqCst)).unwrap().keep();
    drop(user);
    source.signal(Ok(()));
    executor.run_until_idle();
    assert_eq!(runs.load(SeqCst), 1);
}

#[test]
fn numbers_have_64_bits_everywhere() {
    let executor = Executor::manual().unwrap();
    let timeline = Timeline::new("t").unwrap();
    let numbers = [1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) + 1, u64::MAX];
    let (signalers, points): (Vec<_>, Vec<_>) = numbers
        .iter()
        .map(|number| {
            let (signaler, fence) = bare(&executor);
            (signaler, timeline.add(*number, &fence).unwrap())
        })
        .unzip();
    for pair in points.windows(2) {
        assert_eq!((pair[1].is_later_than(&pair[0]), pair[0].is_later_than(&pair[1])), (Some(true), Some(false)));
        assert_eq!(timeline.find(pair[0].seqno() + 1), Ok(Some(pair[1].clone())), "the gap is the next one's");
    }
    for (signaler, number) in signalers.into_iter().zip(numbers) {
        signaler.signal(Ok(()));
        assert_eq!(timeline.signaled(), number);
    }
    let object = Syncobj::new(&executor, "o").unwrap();
    object.signal(u64::MAX).unwrap();
    object.signal(1).unwrap();
    assert_eq!(object.query().signaled, u64::MAX, "it cannot go back, and there is none above");
}

/// Each allocation of each act fails in turn; then nothing is left of the act, and it succeeds when tried again.
#[test]
fn whatever_allocates_may_fail_and_leaves_nothing() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = fences::<3>(&executor);
    let timeline = Timeline::new("t").unwrap();
    let object = Syncobj::new(&executor, "o").unwrap();
    object.submit(1, &fences[0]).unwrap();
    object.submit(2, &fences[1]).unwrap();
    let other = Syncobj::new(&executor, "p").unwrap();
    other.replace(&fences[2]).unwrap();
    let points = [(&object, 2), (&other, 5)];
    let acts: [(&str, &dyn Fn() -> bool); 11] = [
        ("all of", &|| Fence::all_of(&fences).is_ok()),
        ("any of", &|| Fence::any_of(&fences).is_ok()),
        ("merge", &|| Fence::merge(&fences).is_ok()),
        ("a timeline", &|| Timeline::new("more").is_ok()),
        ("a point", &|| timeline.add(1, &fences[0]).is_ok()),
        ("a user fence", &|| UserFence::new(&executor, "u").is_ok()),
        ("a sync object", &|| Syncobj::new_signaled(&executor, "s").is_ok()),
        ("a point of one", &|| other.submit(1, &fences[0]).map(|()| other.reset()).is_ok()),
        ("a transfer", &|| other.transfer(0, &object, 2).map(|()| other.reset()).is_ok()),
        ("signals", &|| Syncobj::signal_all(&[(&other, 1), (&other, 2)]).map(|()| other.reset()).is_ok()),
        ("a wait", &|| SyncobjWait::any_of(&points, Until::SubmittedAndSignaled).is_ok()),
    ];
    for (name, act) in acts {
        for nth in 1.. {
            executor.run_until_idle();
            let before = check::allocations();
            check::fail_nth_allocation(nth);
            let done = act();
            let failed = check::fail_nth_allocation(0) == 0;
            executor.run_until_idle();
            let after = check::allocations();
            assert_ne!(done, failed, "{name}, allocation {nth}");
            if done {
                assert!(nth > 1, "{name} allocates");
                break;
            }
            let left = (after.allocated - before.allocated) - (after.freed - before.freed);
            assert_eq!(left, 0, "{name}, allocation {nth}");
        }
    }
    assert_eq!(check::take_report().map(|report| report.violation), None);
}
