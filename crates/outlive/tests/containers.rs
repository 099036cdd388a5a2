//! Arrays and merges from outside: when they signal, with what, what they keep, what they cost.

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
use outlive::{
    AllocError, Cause, ContainerError, Dependency, Executor, Fence, FenceContext, FenceError, Hook, Names, OnError,
    QueueConfig, Retired, Signaler, Status, Time, Timeline, WaitError,
};
use std::alloc::System;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const FAULT: FenceError = FenceError::Faulted { code: 7 };
const NAMES: Names<'_> = Names { driver: "bare", timeline: "test" };

fn context(executor: &Executor) -> FenceContext {
    FenceContext::new(executor, NAMES).unwrap()
}

fn bare(context: &FenceContext) -> (Signaler, Fence) {
    context.allocate().unwrap().publish()
}

/// Fences of contexts of their own.
fn fences<const N: usize>(executor: &Executor) -> ([Signaler; N], [Fence; N]) {
    let (signalers, fences): (Vec<_>, Vec<_>) = (0..N).map(|_| bare(&context(executor))).unzip();
    (signalers.try_into().unwrap(), fences.try_into().unwrap())
}

fn ns(ns: u64) -> Time {
    Time::from_ns(ns)
}

fn leaves(fence: &Fence) -> Vec<Fence> {
    let mut leaves = Vec::new();
    fence.for_each_leaf(|leaf| leaves.push(leaf.clone()));
    leaves
}

fn allocations(act: impl FnOnce()) -> u64 {
    let before = check::allocations().allocated;
    act();
    check::allocations().allocated - before
}

#[test]
fn all_of_signals_after_the_last_with_the_first_error_in_order_and_the_latest_time() {
    let executor = Executor::manual().unwrap();
    let ([a, b, c], fences) = fences(&executor);
    let all = Fence::all_of(&fences).unwrap();
    assert_ne!(all.context(), 0);
    assert_eq!((all.seqno(), all.driver_name(), all.timeline_name()), (1, "array", "all"));
    c.signal_at(Err(FAULT), ns(30));
    a.signal_at(Ok(()), ns(10));
    assert!(pending(&all));
    b.signal_at(Err(FenceError::TimedOut), ns(20));
    assert_eq!(all.status(), Status::Signaled(Err(FenceError::TimedOut)), "the second in order, not in time");
    assert_eq!(all.timestamp(), Some(ns(30)));
    assert!(all.callbacks_done());
}

#[test]
fn any_of_shows_the_first_to_signal() {
    let executor = Executor::manual().unwrap();
    let ([a, b], fences) = fences(&executor);
    let any = Fence::any_of(&fences).unwrap();
    assert!(pending(&any));
    b.signal_at(Err(FAULT), ns(4));
    assert_eq!((error(&any), any.timestamp()), (Some(FAULT), Some(ns(4))));
    a.signal_at(Ok(()), ns(9));
    assert_eq!((error(&any), any.timestamp()), (Some(FAULT), Some(ns(4))), "it signals once");
    let again = Fence::any_of(&fences).unwrap();
    assert!(ok(&again), "made late, it shows the lowest in order");
}

#[test]
fn a_container_of_one_is_that_one_and_of_none_is_done_or_refused() {
    let executor = Executor::manual().unwrap();
    let ([_a], [fence]) = fences(&executor);
    for one in [Fence::all_of, Fence::any_of, Fence::merge] {
        assert_eq!(allocations(|| assert_eq!(one(from_ref(&fence)), Ok(fence.clone()))), 0);
    }
    assert!(ok(&Fence::all_of(&[]).unwrap()) && ok(&Fence::merge(&[]).unwrap()));
    assert_eq!(Fence::any_of(&[]), Err(ContainerError::Empty));
}

#[test]
fn containers_are_flat() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = fences::<4>(&executor);
    let [a, b, c, d] = fences.clone();
    let all = Fence::all_of(&[a.clone(), b.clone()]).unwrap();
    let more = Fence::all_of(&[all.clone(), c.clone(), all.clone(), d.clone()]).unwrap();
    assert_eq!(leaves(&more), [a.clone(), b.clone(), c.clone(), a, b, d]);
    let any = Fence::any_of(&fences[..2]).unwrap();
    assert_eq!(leaves(&Fence::any_of(&[any.clone(), c.clone()]).unwrap()), fences[..3]);
    for mixed in [Fence::all_of(&[any.clone(), c.clone()]), Fence::any_of(&[all, c.clone()]), Fence::merge(&[any, c])] {
        assert_eq!(mixed, Err(ContainerError::Nested));
    }
}

#[test]
fn the_error_of_what_signaled_before_counts_in_all_of_and_not_in_merge() {
    let executor = Executor::manual().unwrap();
    let ([a, b, c], fences) = fences(&executor);
    a.signal_at(Err(FAULT), ns(1));
    let (all, merged) = (Fence::all_of(&fences).unwrap(), Fence::merge(&fences).unwrap());
    assert_eq!((leaves(&all).len(), leaves(&merged).len()), (3, 2));
    b.signal(Ok(()));
    c.signal(Ok(()));
    assert_eq!((error(&all), ok(&merged)), (Some(FAULT), true));
}

#[test]
fn a_merge_keeps_the_newest_of_each_context_and_allocates_only_for_two() {
    let executor = Executor::manual().unwrap();
    let (one, two) = (context(&executor), context(&executor));
    let (_sa, a) = bare(&one);
    let (_sb, b) = bare(&one);
    let (sc, c) = bare(&two);
    let old_and_new = [a.clone(), b.clone(), a.clone()];
    assert_eq!(allocations(|| assert_eq!(Fence::merge(&old_and_new).unwrap(), b)), 0, "one is left");
    let merged = Fence::merge(&[a.clone(), c.clone(), b.clone(), c.clone()]).unwrap();
    assert_eq!(leaves(&merged), [b.clone(), c.clone()], "in the order of contexts");
    assert_eq!(leaves(&Fence::merge(&[merged, a.clone()]).unwrap()), [b.clone(), c.clone()]);
    sc.signal_at(Ok(()), ns(5));
    let left = [c.clone(), a, Fence::stub()];
    assert_eq!(allocations(|| assert_eq!(Fence::merge(&left).unwrap(), left[1])), 0, "one is pending");
    let done = [Fence::stub(), c.clone(), Fence::stub()];
    assert_eq!(allocations(|| assert_eq!(Fence::merge(&done).unwrap(), c)), 0, "the last to have signaled");
}

#[test]
fn a_container_that_goes_leaves_nothing_on_its_members() {
    let executor = Executor::manual().unwrap();
    let live = || {
        let before = check::allocations();
        let (signalers, fences) = fences::<3>(&executor);
        let all = Fence::all_of(&fences).unwrap();
        let any = Fence::any_of(&fences).unwrap();
        drop((all, any));
        let [a, b, c] = signalers;
        a.signal(Ok(()));
        let merged = Fence::merge(&fences).unwrap();
        b.signal(Ok(()));
        drop((fences, merged));
        c.signal(Ok(()));
        executor.run_until_idle();
        let after = check::allocations();
        (after.allocated - before.allocated) - (after.freed - before.freed)
    };
    // The executor's timers get their first memory.
    live();
    assert_eq!(live(), 0, "as many blocks freed as allocated");
}

#[test]
fn no_memory_for_a_container_leaves_everything_as_it_was() {
    let executor = Executor::manual().unwrap();
    let ([a, b], fences) = fences(&executor);
    for make in [Fence::all_of, Fence::any_of, Fence::merge] {
        check::fail_nth_allocation(1);
        assert!(matches!(make(&fences), Err(ContainerError::OutOfMemory(AllocError { .. }))));
        assert_eq!(check::fail_nth_allocation(0), 0, "it failed");
        assert!(ok(&Fence::stub()) && make(&fences).is_ok());
    }
    a.signal(Ok(()));
    b.signal(Ok(()));
}

#[test]
fn signaling_a_container_allocates_nothing() {
    let executor = Executor::manual().unwrap();
    let (signalers, fences) = fences::<8>(&executor);
    let all = Fence::all_of(&fences).unwrap();
    let timeline = Timeline::new("t").unwrap();
    let point = timeline.add(1, &all).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    point.on_signaled(move |_| _ = counted.fetch_add(1, SeqCst)).unwrap().keep();
    let made = allocations(|| signalers.into_iter().for_each(|signaler| signaler.signal(Ok(()))));
    assert_eq!(made, 0);
    assert!(ok(&all) && ok(&point));
    executor.run_until_idle();
    assert_eq!((calls.load(SeqCst), check::take_report().map(|report| report.violation)), (1, None));
}

#[test]
fn producers_hear_of_a_containers_first_waiter_and_of_deadlines_but_not_of_its_making() {
    let executor = Executor::manual().unwrap();
    let heard: [Arc<Heard>; 3] = Default::default();
    let mut signalers = Vec::new();
    let hooked = heard.each_ref().map(|heard| {
        let hook = Hook::try_new(&executor, Ear(heard.clone())).unwrap();
        let (signaler, fence) = context(&executor).allocate().unwrap().with_hook(hook).publish();
        signalers.push(signaler);
        fence
    });
    let armed = || heard.each_ref().map(|heard| heard.armed.load(SeqCst));
    let timeline = Timeline::new("t").unwrap();
    let all = Fence::all_of(&hooked[..2]).unwrap();
    timeline.add(1, &all).unwrap();
    let point = timeline.add(2, &hooked[2]).unwrap();
    assert!(pending(&all) && point.wait(Duration::ZERO) == Err(WaitError::TimedOut));
    point.for_each_leaf(|leaf| assert!(pending(leaf)));
    assert_eq!(armed(), [0; 3], "a query never arms");
    drop(all.on_signaled(|_| {}).unwrap());
    assert_eq!(armed(), [1, 1, 0]);
    drop(point.on_signaled(|_| {}).unwrap());
    drop(point.on_signaled(|_| {}).unwrap());
    assert_eq!(armed(), [1; 3], "each once");
    point.set_deadline(ns(50));
    point.set_deadline(ns(70));
    hooked[0].set_deadline(ns(20));
    all.set_deadline(ns(30));
    assert_eq!(point.deadline(), Some(ns(50)));
    let told = heard.each_ref().map(|heard| heard.deadlines.lock().unwrap().clone());
    assert_eq!(told, [vec![ns(50), ns(20)], vec![ns(50), ns(30)], vec![ns(50)]], "only what is earlier");
}

#[test]
fn a_container_is_awaited_waited_for_and_refused_where_its_members_are() {
    let executor = Executor::manual().unwrap();
    let ([a, b], pair) = fences(&executor);
    let all = Fence::all_of(&pair).unwrap();
    executor.run_until_idle();
    assert_eq!(all.wait(Duration::from_secs(1)), Err(WaitError::WouldDeadlock), "this thread drives the executor");
    a.signal(Ok(()));
    b.signal(Err(FAULT));
    assert_eq!(all.wait(Duration::ZERO), Err(WaitError::Failed(FAULT)));

    let threads = Executor::builder().threads().unwrap();
    let ([a, b], pair) = fences(&threads);
    let all = Fence::all_of(&pair).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| all.wait(Duration::from_secs(30)));
        b.signal(Ok(()));
        a.signal(Ok(()));
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
}

#[test]
fn rule_9_a_job_that_runs_in_spite_of_a_failed_member_waits_for_that_jobs_retirement() {
    for any in [false, true] {
        let rig = Rig::new();
        let queues = [rig.queue(QueueConfig::new("a")), rig.queue(QueueConfig::new("b"))];
        let [first, second] = queues.each_ref().map(|queue| queue.reserve(rig.buffers(1)).unwrap().commit());
        rig.idle();
        let pair = [first.finished(), second.finished()];
        let both = if any { Fence::any_of(&pair) } else { Fence::all_of(&pair) }.unwrap();
        let dependant = rig.queue(QueueConfig::new("c"));
        let after = [Dependency::on(both.clone()).on_error(OnError::Run)];
        let job = dependant.reserve_after(rig.buffers(2), after).unwrap().commit();
        rig.idle();
        assert!(pending(&job.scheduled()));
        let [a, b] = queues;
        let id = a.id();
        if !any {
            rig.complete(&b, 1, Ok(()));
        }
        drop(a);
        rig.idle();
        assert!(error(&first.finished()).is_some() && pending(&first.retired()));
        assert!(both.is_signaled(), "the array shows the verdict");
        assert!(pending(&job.scheduled()), "and the dependant waits for the memory");
        assert!(rig.gpu().held.complete(id * 1_000_000 + 1, Ok(())), "it was on the hardware");
        rig.idle();
        assert!(ok(&job.scheduled()));
        rig.complete(&dependant, 1, Ok(()));
        if any {
            rig.complete(&b, 1, Ok(()));
        }
        rig.idle();
    }
}

#[test]
fn a_job_fails_with_a_member_of_its_dependency() {
    let rig = Rig::new();
    let ([a, b], pair) = fences(&rig.executor);
    let queue = rig.queue(QueueConfig::new("q"));
    let both = Fence::all_of(&pair).unwrap();
    let after = [Dependency::on(both).on_error(OnError::Fail)];
    let job = queue.reserve_after(rig.buffers(1), after).unwrap().commit();
    a.signal(Err(FAULT));
    b.signal(Ok(()));
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 7 })));
}

#[test]
fn retired_fences_make_a_retired_fence() {
    let rig = Rig::new();
    let queues = [rig.queue(QueueConfig::new("a")), rig.queue(QueueConfig::new("b"))];
    let jobs = queues.each_ref().map(|queue| queue.reserve(rig.buffers(1)).unwrap().commit());
    let retired = Retired::all_of(&jobs.each_ref().map(outlive::JobFences::retired)).unwrap();
    let with_stub = Retired::all_of(&[retired.clone(), Retired::stub()]).unwrap();
    rig.idle();
    rig.complete(&queues[0], 1, Err(FAULT));
    rig.idle();
    assert!(pending(&retired));
    rig.complete(&queues[1], 1, Ok(()));
    rig.idle();
    assert!(ok(&retired) && ok(&with_stub), "a job's fault says nothing about its memory");
}
