//! Arrays and timelines under loom, over the shipped types: each model is named for what races. What is freed too early is
//! overwritten, and what is left behind is counted (see `sync::model`).

use crate::fence::{Fence, FenceContext, FenceError, Names, Refused, Signaler, Status, Timeline};
use crate::sync::model::{Model, race, race3};
use crate::{Executor, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

const NAMES: Names<'_> = Names { driver: "loom", timeline: "container" };

/// Fences of contexts of their own.
fn fences<const N: usize>(executor: &Executor) -> ([Signaler; N], [Fence; N]) {
    let (mut signalers, mut fences) = (Vec::new(), Vec::new());
    for _ in 0..N {
        let (signaler, fence) = FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish();
        signalers.push(signaler);
        fences.push(fence);
    }
    (signalers.try_into().unwrap(), fences.try_into().unwrap())
}

fn end(executor: Executor) {
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

/// An array is made of a fence that signals meanwhile, and of one that has an error by then.
#[test]
fn loom_array_arming_against_signal() {
    Model::new("array arming against signal").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], fences) = fences(&executor);
        two.signal(Err(FenceError::Canceled));
        race(
            move || {
                let all = Fence::all_of(&fences).unwrap();
                let pending = all.on_signaled(|result| assert_eq!(result, Err(FenceError::Canceled)));
                match pending {
                    Ok(registration) => registration.keep(),
                    Err(Refused::AlreadySignaled(_)) => {
                        assert_eq!(all.status(), Status::Signaled(Err(FenceError::Canceled)));
                        assert_eq!(all.timestamp(), Some(Time::from_ns(7)));
                    }
                    Err(Refused::OutOfMemory(..)) => unreachable!(),
                }
            },
            || one.signal_at(Ok(()), Time::from_ns(7)),
        );
        end(executor);
    });
}

/// Both members signal at once: the array signals once, after both.
#[test]
fn loom_all_of_against_two_signals() {
    Model::new("all of, two signals").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], fences) = fences(&executor);
        let all = Fence::all_of(&fences).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        all.on_signaled(move |_| _ = counted.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        race(
            move || one.signal_at(Ok(()), Time::from_ns(3)),
            || {
                two.signal_at(Ok(()), Time::from_ns(5));
                if all.is_signaled() {
                    assert!(fences.iter().all(Fence::is_signaled));
                }
            },
        );
        assert_eq!((all.status(), all.timestamp()), (Status::Signaled(Ok(())), Some(Time::from_ns(5))));
        drop((all, fences));
        end(executor);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

/// Both members signal at once: the array shows one of them, whole.
#[test]
fn loom_any_of_against_two_signals() {
    Model::new("any of, two signals").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], fences) = fences(&executor);
        let any = Fence::any_of(&fences).unwrap();
        race(
            move || one.signal_at(Ok(()), Time::from_ns(3)),
            || two.signal_at(Err(FenceError::Canceled), Time::from_ns(5)),
        );
        let shown = (any.status(), any.timestamp(), any.carrier().clone());
        let first = (Status::Signaled(Ok(())), Some(Time::from_ns(3)), fences[0].clone());
        let second = (Status::Signaled(Err(FenceError::Canceled)), Some(Time::from_ns(5)), fences[1].clone());
        assert!(shown == first || shown == second);
        drop((any, shown, first, second, fences));
        end(executor);
    });
}

/// The last handle of an array goes while a member signals, another member's handles going with it.
#[test]
fn loom_array_drop_against_signal() {
    Model::new("array drop against signal").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], fences) = fences(&executor);
        let all = Fence::all_of(&fences).unwrap();
        drop(fences);
        race(move || drop(all), || one.signal(Ok(())));
        two.signal(Ok(()));
        end(executor);
    });
}

/// As above, when that signal is the last and somebody waits for it elsewhere.
#[test]
fn loom_array_drop_against_last_signal() {
    Model::new("array drop against its last signal").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], fences) = fences(&executor);
        let all = Fence::all_of(&fences).unwrap();
        one.signal(Ok(()));
        let registration = all.on_signaled(|_| {}).unwrap();
        drop(fences);
        race(
            move || {
                registration.detach();
                drop(all);
            },
            || two.signal(Ok(())),
        );
        end(executor);
    });
}

/// Points are looked up while the oldest of three signals, is cut off and freed.
#[test]
fn loom_collection_against_look_up() {
    Model::new("timeline: collection against look-up").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two, three], fences) = fences(&executor);
        let timeline = Arc::new(Timeline::new("loom").unwrap());
        for (number, fence) in (1..).zip(&fences) {
            timeline.add(number * 2, fence).unwrap();
        }
        drop(fences);
        let seen = timeline.clone();
        race(
            move || {
                for number in [1, 3] {
                    match seen.find(number).unwrap() {
                        Some(point) => assert_eq!(point.seqno(), number + 1),
                        None => assert!(seen.signaled() > number),
                    }
                }
            },
            || {
                one.signal(Ok(()));
                two.signal(Ok(()));
            },
        );
        assert_eq!((timeline.signaled(), timeline.submitted()), (4, 6));
        assert!(timeline.find(2).unwrap().is_none());
        three.signal(Ok(()));
        drop(timeline);
        end(executor);
    });
}

/// A point is added while the last one signals, so that it is cut off, or linked and then cut off.
#[test]
fn loom_add_against_signal() {
    Model::new("timeline: add against signal").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], [first, second]) = fences(&executor);
        let timeline = Arc::new(Timeline::new("loom").unwrap());
        timeline.add(1, &first).unwrap();
        let adds = timeline.clone();
        race(
            move || {
                let point = adds.add(2, &second).unwrap();
                assert!(!point.is_signaled());
            },
            || one.signal(Ok(())),
        );
        assert_eq!(timeline.signaled(), 1);
        assert!(timeline.find(1).unwrap().is_none());
        let point = timeline.find(2).unwrap().unwrap();
        two.signal(Ok(()));
        assert!(point.is_signaled());
        drop((point, timeline, first));
        end(executor);
    });
}

/// A point is added of a fence that signals at that moment, behind one that does too.
#[test]
fn loom_signals_against_each_other_and_add() {
    Model::shallow("timeline: two signals against add").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], [first, second]) = fences(&executor);
        let timeline = Arc::new(Timeline::new("loom").unwrap());
        timeline.add(1, &first).unwrap();
        let adds = timeline.clone();
        race3(move || drop(adds.add(2, &second).unwrap()), move || two.signal(Ok(())), || one.signal(Ok(())));
        assert_eq!(timeline.signaled(), 2);
        assert!(timeline.find(2).unwrap().is_none_or(|point| point.is_signaled()));
        drop((timeline, first));
        end(executor);
    });
}

/// The timeline and a held point go while the first point signals.
#[test]
fn loom_timeline_drop_against_signal() {
    Model::new("timeline: drop against signal").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], [first, second]) = fences(&executor);
        let timeline = Timeline::new("loom").unwrap();
        timeline.add(1, &first).unwrap();
        let held = timeline.add(2, &second).unwrap();
        drop((first, second));
        race(
            move || {
                drop(timeline);
                held.for_each_leaf(|_| {});
                drop(held);
            },
            || one.signal(Ok(())),
        );
        two.signal(Ok(()));
        end(executor);
    });
}
