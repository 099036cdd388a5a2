//! Sync objects from outside: what is submitted, looked up, waited for, and what a running wait sees of it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Ear, Heard, Rig, error, ok, pending};
use outlive::check::{self, Alloc};
use outlive::sabotage::{Sabotage, commit};
use outlive::{
    AllocError, Cause, ContainerError, Executor, Fence, FenceContext, FenceError, Hook, Job, Names, Progress,
    QueueConfig, Signaler, Status, Syncobj, SyncobjError, SyncobjWait, Time, Timeline, Until, WaitError,
};
use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const FAULT: FenceError = FenceError::Faulted { code: 7 };
const NAMES: Names<'_> = Names { driver: "bare", timeline: "test" };
const UNTIL: [Until; 3] = [Until::Signaled, Until::SubmittedAndSignaled, Until::Submitted];

fn ns(ns: u64) -> Time {
    Time::from_ns(ns)
}

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

fn object(executor: &Executor) -> Syncobj {
    Syncobj::new(executor, "object").unwrap()
}

fn one(object: &Syncobj, point: u64, until: Until) -> SyncobjWait {
    SyncobjWait::all_of(&[(object, point)], until).unwrap()
}

fn status(wait: &SyncobjWait) -> Status {
    wait.as_user_fence().status()
}

const OK: Status = Status::Signaled(Ok(()));

fn allocations(act: impl FnOnce()) -> u64 {
    let before = check::allocations().allocated;
    act();
    check::allocations().allocated - before
}

#[test]
fn an_empty_object_has_nothing_and_says_so() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    for point in [0, 3] {
        let none = SyncobjError::NotSubmitted { index: 0, point, last: 0 };
        assert_eq!(object.find(point), Err(none));
        assert_eq!(SyncobjWait::any_of(&[(&object, point)], Until::Signaled), Err(none));
    }
    assert_eq!(object.query(), Progress { signaled: 0, submitted: 0 });
    object.reset();
    assert_eq!(object.query(), Progress { signaled: 0, submitted: 0 });
}

#[test]
fn a_binary_payload_is_replaced_signaled_and_reset() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let ((a, first), (_b, second)) = (bare(&executor), bare(&executor));
    object.replace(&first).unwrap();
    assert_eq!(object.find(0), Ok(Some(first.clone())));
    assert!(matches!(object.find(1), Err(SyncobjError::NotSubmitted { last: 0, .. })), "it has no points");
    object.replace(&second).unwrap();
    a.signal(Ok(()));
    assert_eq!(object.find(0), Ok(Some(second)));
    executor.advance_to(ns(500));
    object.signal(0).unwrap();
    let signaled = object.find(0).unwrap().unwrap();
    assert_eq!((ok(&signaled), signaled.timestamp()), (true, Some(ns(500))), "stamped when the host signaled it");
    assert_eq!((signaled.driver_name(), signaled.timeline_name()), ("user", "object"));
    object.reset();
    assert!(object.find(0).is_err());
    assert!(ok(&Syncobj::new_signaled(&executor, "s").unwrap().find(0).unwrap().unwrap()));
}

#[test]
fn points_signal_in_turn_whoever_signals_them() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let (signaler, fence) = bare(&executor);
    object.submit(4, &fence).unwrap();
    object.signal(9).unwrap();
    assert_eq!(object.query(), Progress { signaled: 0, submitted: 9 });
    assert!(pending(&object.find(7).unwrap().unwrap()), "the host's point waits for the device's");
    assert_eq!(object.find(0).unwrap(), object.find(9).unwrap(), "0 is the newest");
    signaler.signal(Ok(()));
    assert_eq!(object.query(), Progress { signaled: 9, submitted: 9 });
    assert_eq!(object.find(4), Ok(None), "done and collected");
    assert!(matches!(object.find(10), Err(SyncobjError::NotSubmitted { point: 10, last: 9, .. })));
}

#[test]
fn a_binary_payload_comes_before_the_first_point() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let ((a, first), (b, second)) = (bare(&executor), bare(&executor));
    object.replace(&first).unwrap();
    object.submit(1, &second).unwrap();
    b.signal(Ok(()));
    assert_eq!(object.query(), Progress { signaled: 0, submitted: 1 });
    assert!(pending(&object.find(1).unwrap().unwrap()));
    a.signal(Ok(()));
    assert_eq!(object.query(), Progress { signaled: 1, submitted: 1 });
}

#[test]
fn a_point_that_goes_backwards_takes_the_last_ones_number() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    object.signal(5).unwrap();
    let (signaler, fence) = bare(&executor);
    object.submit(3, &fence).unwrap();
    assert_eq!(object.query(), Progress { signaled: 5, submitted: 5 });
    assert!(pending(&object.find(0).unwrap().unwrap()));
    signaler.signal(Ok(()));
    assert!(ok(&object.find(0).unwrap().unwrap()));
}

#[test]
fn a_transfer_takes_points_apart() {
    let executor = Executor::manual().unwrap();
    let (from, to) = (object(&executor), object(&executor));
    let ((a, first), (b, second)) = (bare(&executor), bare(&executor));
    from.submit(1, &first).unwrap();
    from.submit(2, &second).unwrap();
    let point = from.find(2).unwrap().unwrap();
    assert_eq!(to.replace(&point), Err(ContainerError::Nested), "a point is no binary payload");
    to.transfer(7, &from, 2).unwrap();
    to.transfer(8, &to, 7).unwrap();
    let binary = object(&executor);
    binary.transfer(0, &from, 2).unwrap();
    binary.submit(1, &first).unwrap();
    from.reset();
    let mut leaves = Vec::new();
    to.find(7).unwrap().unwrap().for_each_leaf(|leaf| leaves.push(leaf.clone()));
    leaves.sort_by_key(Fence::context);
    assert_eq!(leaves, [first, second]);
    b.signal(Ok(()));
    assert_eq!((to.query().signaled, binary.query().signaled), (0, 0));
    a.signal(Err(FAULT));
    assert_eq!((to.query().signaled, binary.query().signaled), (8, 1));
    to.transfer(9, &to, 7).unwrap();
    assert_eq!(to.query(), Progress { signaled: 9, submitted: 9 }, "a point that was collected has signaled");
    assert!(matches!(to.transfer(1, &from, 1), Err(SyncobjError::NotSubmitted { .. })));
}

#[test]
fn a_signaled_point_keeps_its_error_in_a_transfer() {
    let executor = Executor::manual().unwrap();
    let (from, to) = (object(&executor), object(&executor));
    let (signaler, fence) = bare(&executor);
    from.submit(1, &fence).unwrap();
    signaler.signal_at(Err(FAULT), ns(3));
    to.transfer(0, &from, 0).unwrap();
    let payload = to.find(0).unwrap().unwrap();
    assert_eq!((error(&payload), payload.timestamp()), (Some(FAULT), Some(ns(3))));
}

#[test]
fn a_wait_for_what_is_submitted_ends_with_its_result() {
    let executor = Executor::manual().unwrap();
    for points in [[0, 0], [1, 4]] {
        let objects = [object(&executor), object(&executor)];
        let ((a, first), (b, second)) = (bare(&executor), bare(&executor));
        objects[0].submit(points[0], &first).unwrap();
        objects[1].submit(points[1], &second).unwrap();
        let asked = [(&objects[0], points[0]), (&objects[1], points[1])];
        let waits = UNTIL
            .map(|until| (SyncobjWait::all_of(&asked, until).unwrap(), SyncobjWait::any_of(&asked, until).unwrap()));
        assert_eq!((status(&waits[2].0), status(&waits[2].1), waits[2].1.first()), (OK, OK, Some(0)));
        b.signal(Err(FAULT));
        for (all, any) in &waits[..2] {
            assert_eq!(status(all), Status::Pending);
            assert_eq!((status(any), any.first(), all.first()), (Status::Signaled(Err(FAULT)), Some(1), None));
        }
        a.signal(Err(FenceError::TimedOut));
        for (all, _) in &waits[..2] {
            assert_eq!(status(all), Status::Signaled(Err(FenceError::TimedOut)), "the first in order");
        }
    }
}

#[test]
fn a_wait_for_what_is_not_submitted_hears_of_it() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let signaled = one(&object, 3, Until::SubmittedAndSignaled);
    let submitted = one(&object, 3, Until::Submitted);
    let (signaler, fence) = bare(&executor);
    let (_early, before) = bare(&executor);
    object.submit(2, &before).unwrap();
    assert_eq!((status(&signaled), status(&submitted)), (Status::Pending, Status::Pending), "another point");
    object.reset();
    assert_eq!((status(&signaled), status(&submitted)), (Status::Pending, Status::Pending), "a reset submits nothing");
    object.submit(4, &fence).unwrap();
    assert_eq!((status(&signaled), status(&submitted)), (Status::Pending, OK), "4 stands for 3");
    signaler.signal(Ok(()));
    assert_eq!(status(&signaled), OK);
}

#[test]
fn a_running_wait_sees_what_it_found_and_nothing_later() {
    let executor = Executor::manual().unwrap();
    for (point, early) in [(0, true), (0, false), (1, true), (1, false)] {
        let object = object(&executor);
        let ((a, seen), (_b, later)) = (bare(&executor), bare(&executor));
        let submit = |fence| object.submit(point, fence).unwrap();
        if early {
            submit(&seen);
        }
        let wait = one(&object, point, Until::SubmittedAndSignaled);
        if !early {
            submit(&seen);
        }
        object.reset();
        submit(&later);
        assert_eq!(status(&wait), Status::Pending);
        a.signal(Ok(()));
        assert_eq!(status(&wait), OK, "point {point}, submitted before it: {early}");
    }
}

#[test]
fn waits_that_go_leave_nothing_behind() {
    let executor = Executor::manual().unwrap();
    let objects = [object(&executor), object(&executor)];
    let (signaler, fence) = bare(&executor);
    objects[0].submit(1, &fence).unwrap();
    let live = || {
        let before = check::allocations();
        for until in &UNTIL[1..] {
            let asked = [(&objects[0], 1), (&objects[1], 1), (&objects[1], 0)];
            drop(SyncobjWait::all_of(&asked, *until).unwrap());
            drop(SyncobjWait::any_of(&asked, *until).unwrap().as_user_fence().clone());
        }
        let after = check::allocations();
        (after.allocated - before.allocated) - (after.freed - before.freed)
    };
    assert_eq!(live(), 0, "as many blocks freed as allocated");
    objects[1].signal(2).unwrap();
    signaler.signal(Ok(()));
}

#[test]
fn a_wait_whose_object_is_gone_ends() {
    let executor = Executor::manual().unwrap();
    let (kept, gone) = (object(&executor), object(&executor));
    let asked = [(&kept, 0), (&gone, 0)];
    let waits = UNTIL[1..].iter().map(|until| SyncobjWait::any_of(&asked, *until).unwrap()).collect::<Vec<_>>();
    let other = gone.clone();
    drop(gone);
    assert!(waits.iter().all(|wait| status(wait) == Status::Pending), "another handle could submit");
    drop(other);
    for wait in &waits {
        assert_eq!((status(wait), wait.first()), (Status::Signaled(Err(FenceError::Canceled)), Some(1)));
    }
}

#[test]
fn submitting_what_was_reserved_allocates_nothing_and_cannot_fail() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let reserved: Vec<_> = (0..4).map(|_| object.reserve_point().unwrap()).collect();
    let (signaler, fence) = bare(&executor);
    let wait = one(&object, 2, Until::SubmittedAndSignaled);
    object.replace(&fence).unwrap();
    let made = allocations(|| {
        for (number, room) in (1..).zip(reserved) {
            assert!(room.submit(number, &fence).is_ok());
        }
        signaler.signal(Ok(()));
    });
    assert_eq!((made, object.query()), (0, Progress { signaled: 4, submitted: 4 }));
    assert_eq!((status(&wait), check::take_report().map(|report| report.violation)), (OK, None));
    let timeline = Timeline::new("t").unwrap();
    let point = timeline.add(1, &bare(&executor).1).unwrap();
    let room = object.reserve_point().unwrap().submit(5, &point).unwrap_err().submit(0, &fence).unwrap_err();
    assert!(room.submit(5, &fence).is_ok(), "it came back");
}

/// Signals three objects at once, with each of the allocations failing in turn; how many failures left some of them signaled.
fn half_signaled(executor: &Executor) -> u64 {
    let objects = [object(executor), object(executor), object(executor)];
    let points = [(&objects[0], 1), (&objects[1], 0), (&objects[2], 2)];
    let (mut failed, mut half) = (0, 0);
    loop {
        failed += 1;
        check::fail_nth_allocation(failed);
        let signaled = Syncobj::signal_all(&points);
        if check::fail_nth_allocation(0) != 0 {
            assert_eq!(signaled, Ok(()));
            break;
        }
        assert!(matches!(signaled, Err(SyncobjError::Container(ContainerError::OutOfMemory(AllocError { .. })))));
        half += u64::from(objects.iter().any(|object| object.find(0).is_ok()));
        objects.iter().for_each(Syncobj::reset);
    }
    assert!(failed > 6, "each has its own memory");
    let mut progress = [Progress { signaled: 0, submitted: 0 }; 3];
    Syncobj::query_all(&objects.each_ref(), &mut progress).unwrap();
    assert_eq!(progress.map(|one| one.signaled), [1, 0, 2]);
    Syncobj::reset_all(&objects.each_ref()).unwrap();
    assert!(objects.iter().all(|object| object.find(0).is_err()));
    half
}

#[test]
fn an_array_is_signaled_wholly_or_not_at_all() {
    let executor = Executor::manual().unwrap();
    assert_eq!(half_signaled(&executor), 0);
    // No other test of this process signals an array.
    commit(Some(Sabotage::SignalHalfAnArray));
    let half = half_signaled(&executor);
    commit(None);
    assert!(half > 0, "the defect went unnoticed");
}

#[test]
fn none_at_all_is_an_error_except_for_a_wait_for_all() {
    assert_eq!(Syncobj::signal_all(&[]), Err(SyncobjError::None));
    assert_eq!(Syncobj::reset_all(&[]), Err(SyncobjError::None));
    assert_eq!(Syncobj::query_all(&[], &mut []), Err(SyncobjError::None));
    assert_eq!(SyncobjWait::any_of(&[], Until::Signaled), Err(SyncobjError::None));
    let all = SyncobjWait::all_of(&[], Until::Signaled).unwrap();
    assert_eq!((status(&all), all.wait_until(Time::NEVER)), (OK, Ok(())));
}

#[test]
fn no_memory_for_a_submission_leaves_everything_as_it_was() {
    let executor = Executor::manual().unwrap();
    let (object, other) = (object(&executor), object(&executor));
    let ((_a, first), (_b, second)) = (bare(&executor), bare(&executor));
    object.replace(&first).unwrap();
    other.submit(1, &first).unwrap();
    other.submit(2, &second).unwrap();
    let acts: [&dyn Fn() -> bool; 4] = [
        &|| object.submit(1, &second).is_err(),
        &|| object.transfer(1, &other, 2).is_err(),
        &|| object.reserve_point().is_err(),
        &|| SyncobjWait::all_of(&[(&object, 1)], Until::Submitted).is_err(),
    ];
    for act in acts {
        check::fail_nth_allocation(1);
        assert!(act());
        assert_eq!(check::fail_nth_allocation(0), 0);
        assert_eq!(object.find(0), Ok(Some(first.clone())));
    }
}

#[test]
fn producers_hear_of_waiters_and_deadlines_also_of_what_is_submitted_later() {
    let executor = Executor::manual().unwrap();
    let heard: [Arc<Heard>; 2] = Default::default();
    let mut signalers = Vec::new();
    let hooked = heard.each_ref().map(|heard| {
        let hook = Hook::try_new(&executor, Ear(heard.clone())).unwrap();
        let (signaler, fence) =
            FenceContext::new(&executor, NAMES).unwrap().allocate().unwrap().with_hook(hook).publish();
        signalers.push(signaler);
        fence
    });
    let armed = || heard.each_ref().map(|heard| heard.armed.load(SeqCst));
    let objects = [object(&executor), object(&executor)];
    objects[0].replace(&hooked[0]).unwrap();
    let asked = [(&objects[0], 0), (&objects[1], 1)];
    let wait = SyncobjWait::all_of(&asked, Until::SubmittedAndSignaled).unwrap();
    let available = SyncobjWait::any_of(&asked[1..], Until::Submitted).unwrap();
    assert_eq!((armed(), status(&wait)), ([0, 0], Status::Pending), "nobody waits yet");
    wait.as_user_fence().on_signaled(|_| {}).unwrap().keep();
    available.as_user_fence().on_signaled(|_| {}).unwrap().keep();
    wait.set_deadline(ns(70));
    objects[1].submit(1, &hooked[1]).unwrap();
    assert_eq!(armed(), [1, 1]);
    wait.set_deadline(ns(50));
    let told = heard.each_ref().map(|heard| heard.deadlines.lock().unwrap().clone());
    assert_eq!(told, [[ns(70), ns(50)], [ns(70), ns(50)]]);
}

#[test]
fn deadlines_are_absolute_and_what_is_past_is_a_look() {
    let executor = Executor::builder().threads().unwrap();
    let object = object(&executor);
    let wait = one(&object, 0, Until::SubmittedAndSignaled);
    assert_eq!(wait.wait_until(Time::ZERO), Err(WaitError::TimedOut));
    let soon = executor.now().after(Duration::from_millis(3));
    assert_eq!(wait.wait_until(soon), Err(WaitError::TimedOut));
    assert!(executor.now() >= soon);
    object.signal(0).unwrap();
    assert_eq!(wait.wait_until(Time::ZERO), Ok(()));
    assert_eq!(wait.wait_until(Time::NEVER), Ok(()));
}

#[test]
fn a_thread_is_woken_by_what_is_submitted_and_signaled() {
    let executor = Executor::builder().threads().unwrap();
    let object = object(&executor);
    for round in 0..50 {
        let wait = one(&object, round * 2 + 2, Until::SubmittedAndSignaled);
        let (signaler, fence) = bare(&executor);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait.wait_until(Time::NEVER));
            object.submit(round * 2 + 2, &fence).unwrap();
            signaler.signal(Ok(()));
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }
}

#[test]
fn waiting_for_oneself_is_refused_and_virtual_time_passes_instead() {
    let executor = Executor::manual().unwrap();
    let object = object(&executor);
    let wait = one(&object, 1, Until::SubmittedAndSignaled);
    executor.run_until_idle();
    assert_eq!(wait.wait_until(Time::NEVER), Err(WaitError::WouldDeadlock), "this thread drives the executor");
    assert_eq!(executor.wait_user(wait.as_user_fence(), Duration::from_secs(1)), Err(WaitError::Stuck));
    let (_signaler, fence) = bare(&executor);
    object.submit(1, &fence).unwrap();
    let waited = executor.wait_user(wait.as_user_fence(), Duration::from_secs(20));
    assert_eq!(waited, Err(WaitError::Failed(FenceError::TimedOut)), "its producer's watchdog");
}

#[test]
fn a_wait_is_awaited() {
    let executor = Executor::builder().threads().unwrap();
    let object = object(&executor);
    let wait = one(&object, 1, Until::SubmittedAndSignaled);
    let future = wait.as_user_fence().clone().into_future();
    let signal = std::thread::spawn(move || object.signal(1).unwrap());
    let mut future = std::pin::pin!(future);
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    while future.as_mut().poll(&mut context).is_pending() {
        std::thread::park();
    }
    signal.join().unwrap();
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn rule_2_a_job_that_waits_for_a_point_is_published_when_that_has_signaled() {
    let rig = Rig::new();
    let object = object(&rig.executor);
    let queue = rig.queue(QueueConfig::new("q"));
    let reserve = || queue.reserve(Job::new(rig.buffers(1)).user_waits(1)).unwrap();
    let commit = |deadline| {
        let wait = one(&object, 1, Until::SubmittedAndSignaled);
        reserve().commit_when(&[wait.as_user_fence().clone()], deadline).unwrap_or_else(|_| panic!("no room"))
    };
    let (runs, late) = (commit(Time::NEVER), commit(Time::from_ns(5_000_000)));
    rig.pass_ms(6);
    assert_eq!(late.done().status(), Status::Signaled(Err(FenceError::TimedOut)));
    assert!(runs.fences().is_none(), "there is no fence of it yet");
    let (signaler, fence) = bare(&rig.executor);
    object.submit(1, &fence).unwrap();
    rig.idle();
    assert!(runs.fences().is_none());
    signaler.signal(Ok(()));
    rig.idle();
    let job = runs.fences().unwrap();
    rig.complete(&queue, 1, Ok(()));
    assert!(ok(&job.finished()));
    object.reset();
    let failed = commit(Time::NEVER);
    let (signaler, fence) = bare(&rig.executor);
    object.submit(1, &fence).unwrap();
    signaler.signal(Err(FAULT));
    rig.idle();
    assert_eq!(failed.done().status(), Status::Signaled(Err(FenceError::Dependency(Cause::Faulted { code: 7 }))));
}
