//! Timelines from outside: numbers with gaps, points out of turn, collection, long chains on small stacks.
//!
//! Chains have 1,000,000 points in release builds; with debug assertions 100,000.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    reason = "a test: it has std and may panic"
)]

use outlive::check::{self, Alloc};
use outlive::{
    ContainerError, Executor, Fence, FenceContext, FenceError, Names, Signaler, Status, Time, Timeline, TimelineError,
};
use std::alloc::System;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const CHAIN: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const FAULT: FenceError = FenceError::Faulted { code: 7 };
const NAMES: Names<'_> = Names { driver: "bare", timeline: "test" };

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

/// A timeline with these points, each of a fence of a context of its own.
fn timeline(executor: &Executor, numbers: &[u64]) -> (Timeline, Vec<Option<Signaler>>, Vec<Fence>) {
    let timeline = Timeline::new("points").unwrap();
    let (signalers, points) = numbers
        .iter()
        .map(|number| {
            let (signaler, fence) = bare(executor);
            (Some(signaler), timeline.add(*number, &fence).unwrap())
        })
        .unzip();
    (timeline, signalers, points)
}

fn signal(signalers: &mut [Option<Signaler>], index: usize) {
    signalers[index].take().unwrap().signal(Ok(()));
}

fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(128 << 10).spawn(body).unwrap().join().unwrap();
}

fn leaked(act: impl FnOnce()) -> u64 {
    let before = check::allocations();
    act();
    let after = check::allocations();
    (after.allocated - before.allocated) - (after.freed - before.freed)
}

#[test]
fn points_signal_in_turn_whatever_their_fences_do() {
    let executor = Executor::manual().unwrap();
    let (timeline, mut signalers, points) = timeline(&executor, &[1, 2, 3]);
    assert_eq!((points[0].timeline_name(), points[0].driver_name()), ("points", "timeline"));
    assert_eq!(points[2].is_later_than(&points[0]), Some(true));
    signalers[2].take().unwrap().signal_at(Err(FAULT), Time::from_ns(9));
    signalers[1].take().unwrap().signal_at(Ok(()), Time::from_ns(20));
    assert!(points.iter().all(|point| point.status() == Status::Pending));
    signalers[0].take().unwrap().signal_at(Ok(()), Time::from_ns(10));
    assert_eq!(timeline.signaled(), 3);
    assert_eq!(points[1].status(), Status::Signaled(Ok(())), "the error of another point is not its own");
    assert_eq!(points[2].status(), Status::Signaled(Err(FAULT)));
    let stamps: Vec<_> = points.iter().map(|point| point.timestamp().unwrap().as_ns()).collect();
    assert_eq!(stamps, [10, 20, 20], "never before an earlier point");
}

#[test]
fn numbers_left_out_are_found_at_the_next_point() {
    let executor = Executor::manual().unwrap();
    let (timeline, mut signalers, points) = timeline(&executor, &[2, 4, 9]);
    for (number, index) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (9, 2)] {
        assert_eq!(timeline.find(number), Ok(Some(points[index].clone())), "{number}");
    }
    assert_eq!(timeline.find(0), Ok(None));
    assert_eq!(timeline.find(10), Err(TimelineError::NotSubmitted { last: 9 }));
    assert_eq!(Timeline::new("").unwrap().find(1), Err(TimelineError::NotSubmitted { last: 0 }));
    signal(&mut signalers, 0);
    assert_eq!((timeline.find(1), timeline.find(2)), (Ok(None), Ok(None)), "collected");
    assert_eq!(timeline.find(3), Ok(Some(points[1].clone())));
    assert_eq!((timeline.signaled(), timeline.submitted()), (2, 9));
}

#[test]
fn a_point_out_of_turn_stands_for_all_numbers_up_to_the_last() {
    let executor = Executor::manual().unwrap();
    let (timeline, mut signalers, points) = timeline(&executor, &[1, 5, 3, 6]);
    assert_eq!(points.iter().map(Fence::seqno).collect::<Vec<_>>(), [1, 5, 5, 6]);
    assert_ne!(points[2].context(), points[1].context());
    assert_eq!(points[3].context(), points[2].context());
    for number in 1..=5 {
        assert_eq!(timeline.find(number), Ok(Some(points[2].clone())), "{number}");
    }
    assert_eq!(timeline.find(6), Ok(Some(points[3].clone())));
    signal(&mut signalers, 0);
    signal(&mut signalers, 1);
    assert_eq!(timeline.signaled(), 5);
    assert_eq!(timeline.find(3), Ok(Some(points[2].clone())), "still pending, though 5 was reached before");
    signal(&mut signalers, 2);
    assert_eq!(timeline.find(3), Ok(None));
}

#[test]
fn bad_points_are_refused() {
    let executor = Executor::manual().unwrap();
    let (timeline, _signalers, points) = timeline(&executor, &[1]);
    let (_signaler, fence) = bare(&executor);
    assert_eq!(timeline.add(0, &fence), Err(TimelineError::Zero));
    let nested = Err(TimelineError::Container(ContainerError::Nested));
    assert_eq!(timeline.add(2, &points[0]), nested);
    let flat = Fence::merge(&points).unwrap();
    assert!(timeline.add(2, &flat).is_ok(), "what a merge makes of a point is no point");
    for n in 1..=2 {
        check::fail_nth_allocation(n);
        let refused = timeline.add(7, &fence);
        if check::fail_nth_allocation(0) == 0 {
            assert!(matches!(refused, Err(TimelineError::Container(ContainerError::OutOfMemory(_)))));
            assert_eq!(timeline.submitted(), 2, "nothing was changed");
        }
    }
}

#[test]
fn points_are_flattened_into_what_they_wait_for() {
    let executor = Executor::manual().unwrap();
    let pairs: Vec<_> = (0..4).map(|_| bare(&executor)).collect();
    let fences: Vec<_> = pairs.iter().map(|(_, fence)| fence.clone()).collect();
    let timeline = Timeline::new("t").unwrap();
    timeline.add(1, &fences[0]).unwrap();
    let second = timeline.add(2, &Fence::all_of(&fences[1..3]).unwrap()).unwrap();
    let all = Fence::all_of(&[second.clone(), fences[3].clone()]).unwrap();
    let mut leaves = Vec::new();
    all.for_each_leaf(|leaf| leaves.push(leaf.clone()));
    assert_eq!(leaves, [1, 2, 0, 3].map(|index: usize| fences[index].clone()), "newest point first");
    drop(timeline);
    for (index, (signaler, _)) in pairs.into_iter().enumerate() {
        assert_eq!((second.is_signaled(), all.is_signaled()), (index == 3, false));
        signaler.signal(Ok(()));
    }
    assert!(all.is_signaled());
}

#[test]
fn what_has_signaled_is_collected() {
    let executor = Executor::manual().unwrap();
    let timeline = Timeline::new("t").unwrap();
    let context = FenceContext::new(&executor, NAMES).unwrap();
    let step = |number| {
        let (signaler, fence) = context.allocate().unwrap().publish();
        timeline.add(number, &fence).unwrap();
        signaler.signal(Ok(()));
    };
    step(1);
    assert_eq!(leaked(|| (2..10_000).for_each(step)), 0, "the newest point is all that is left");
    assert_eq!((timeline.signaled(), timeline.submitted()), (9_999, 9_999));
}

#[test]
fn a_long_chain_is_dropped_on_a_small_stack() {
    on_a_small_stack(|| {
        let executor = Executor::manual().unwrap();
        // The executor's timers get their first memory.
        drop((bare(&executor), bare(&executor)));
        executor.run_until_idle();
        let left = leaked(|| {
            let (signaler, fence) = bare(&executor);
            let timeline = Timeline::new("long").unwrap();
            for number in 1..=CHAIN {
                timeline.add(number, &fence).unwrap();
            }
            let last = timeline.find(CHAIN).unwrap().unwrap();
            drop(timeline);
            assert_eq!(last.status(), Status::Pending);
            drop(last);
            signaler.signal(Ok(()));
            drop(fence);
            executor.run_until_idle();
        });
        assert_eq!(left, 0);
    });
}

#[test]
fn a_long_chain_signals_backwards_on_a_small_stack() {
    on_a_small_stack(|| {
        let executor = Executor::manual().unwrap();
        // The executor's timers get their first memory.
        drop((bare(&executor), bare(&executor)));
        executor.run_until_idle();
        let left = leaked(|| {
            let ((first, fence), (others, other)) = (bare(&executor), bare(&executor));
            let timeline = Timeline::new("long").unwrap();
            timeline.add(1, &fence).unwrap();
            for number in 2..=CHAIN {
                timeline.add(number, &other).unwrap();
            }
            let last = timeline.find(CHAIN).unwrap().unwrap();
            others.signal(Ok(()));
            assert_eq!((timeline.signaled(), last.is_signaled()), (0, false));
            first.signal(Ok(()));
            assert_eq!((timeline.signaled(), last.is_signaled()), (CHAIN, true));
            drop((timeline, last, fence, other));
            executor.run_until_idle();
        });
        assert_eq!(left, 0);
    });
}

#[test]
fn look_ups_by_threads_while_points_signal_and_are_added() {
    const POINTS: u64 = 4_000;
    let executor = Executor::builder().threads().unwrap();
    let timeline = Timeline::new("busy").unwrap();
    let (submitted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Signaler>(64);
    thread::scope(|scope| {
        for seed in 1..=2_u64 {
            let (timeline, submitted, stop) = (&timeline, &submitted, &stop);
            scope.spawn(move || {
                let mut random = seed;
                let mut before = 0;
                while !stop.load(SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let last = submitted.load(SeqCst);
                    let number = (random >> 33) % (last + 1);
                    if let Some(point) = timeline.find(number).unwrap() {
                        assert!(point.seqno() == number, "{number} gave {}", point.seqno());
                    } else {
                        assert!(timeline.signaled() >= number);
                    }
                    let now = timeline.signaled();
                    assert!(now >= before, "it never goes back");
                    before = now;
                }
            });
        }
        let (timeline, executor, submitted) = (&timeline, &executor, &submitted);
        scope.spawn(move || {
            for number in 1..=POINTS {
                let (signaler, fence) = bare(executor);
                timeline.add(number, &fence).unwrap();
                submitted.store(number, SeqCst);
                sender.send(signaler).unwrap();
            }
        });
        receiver.into_iter().for_each(|signaler| signaler.signal(Ok(())));
        stop.store(true, SeqCst);
    });
    assert_eq!(timeline.signaled(), POINTS);
}
