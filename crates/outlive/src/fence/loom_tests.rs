//! Fences under loom: registration, removal, signal, order, time stamps. Each model is named for what races.
//!
//! A [`Proof`] is written before a signal and read after it was seen, so loom also checks that the one happens before the
//! other; the memory of every execution is counted (see `sync::model`).

#![expect(unsafe_code, reason = "a cell that loom checks; docs/unsafe.md, `fence::loom_tests`")]

use crate::exec::node::{LaneNode, Place, Task};
use crate::fence::wait::WaitError;
use crate::fence::{Fence, FenceContext, FenceError, Names, Refused, SignalSafe, Signaler, Status, UserFence};
use crate::fence::{Hook, Producer};
use crate::sync::model::{Model, race, race3};
use crate::{Executor, Time};
use core::ptr::NonNull;
use core::task::{Context, Poll, Waker};
use loom::cell::UnsafeCell;
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

const NAMES: Names<'_> = Names { driver: "loom", timeline: "fence" };

/// Counted outside loom, so that counting adds nothing to explore.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.add();
    }
}

/// What a producer did before its signal, for those who have seen the signal.
#[derive(Clone)]
struct Proof(Arc<UnsafeCell<u32>>);

// SAFETY: loom itself checks the accesses.
unsafe impl Send for Proof {}
// SAFETY: as above.
unsafe impl Sync for Proof {}

impl Proof {
    fn new() -> Self {
        Self(Arc::new(UnsafeCell::new(0)))
    }

    fn write(&self) {
        self.0.with_mut(|at| {
            // SAFETY: loom reports an access at the same time.
            unsafe { *at += 1 }
        });
    }

    fn read(&self) -> u32 {
        self.0.with(|at| {
            // SAFETY: as in `write`.
            unsafe { *at }
        })
    }
}

fn bare() -> (Executor, Signaler, Fence) {
    let executor = Executor::manual().unwrap();
    let context = FenceContext::new(&executor, NAMES).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    (executor, signaler, fence)
}

fn end(executor: Executor) {
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

/// A waiting thread's node is put on the fence, or refused, while it signals; nobody sleeps for ever.
#[test]
fn loom_signal_against_wait() {
    Model::new("signal against wait").check(|| {
        let (executor, signaler, fence) = bare();
        let proof = Proof::new();
        let (waiter, seen) = (fence.clone(), proof.clone());
        race(
            move || {
                assert_eq!(waiter.wait(Duration::MAX), Err(WaitError::Failed(FenceError::Canceled)));
                assert_eq!(seen.read(), 1);
                assert_eq!(waiter.timestamp(), Some(Time::from_ns(7)));
            },
            || {
                proof.write();
                signaler.signal_at(Err(FenceError::Canceled), Time::from_ns(7));
            },
        );
        assert!(fence.callbacks_done());
        drop(fence);
        end(executor);
    });
}

/// A waiter on two fences takes its node off the one while that signals too.
#[test]
fn loom_two_signals_against_wait_any() {
    Model::new("two signals against wait_any").check(|| {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (first, a) = context.allocate().unwrap().publish();
        let other = FenceContext::new(&executor, NAMES).unwrap();
        let (second, b) = other.allocate().unwrap().publish();
        let both = [a, b];
        let waited = both.clone();
        race3(
            move || {
                let index = Fence::wait_any(&waited, Duration::MAX).unwrap();
                assert!(waited[index].is_signaled());
            },
            move || first.signal(Ok(())),
            || second.signal(Ok(())),
        );
        assert!(both.iter().all(Fence::callbacks_done));
        drop((both, context, other));
        end(executor);
    });
}

/// A closure is registered, or given back, while the fence signals: it is called exactly once, or not at all.
#[test]
fn loom_signal_against_registration_of_a_closure() {
    Model::new("signal against on_signaled").check(|| {
        let (executor, signaler, fence) = bare();
        let calls = Count::default();
        let proof = Proof::new();
        let (count, seen, registrant) = (calls.clone(), proof.clone(), fence.clone());
        let refused = Arc::new(AtomicBool::new(false));
        let told = refused.clone();
        race(
            move || {
                let closure = {
                    let seen = seen.clone();
                    move |result| {
                        assert_eq!(result, Ok(()));
                        assert_eq!(seen.read(), 1);
                        count.add();
                    }
                };
                match registrant.on_signaled(closure) {
                    Ok(registration) => registration.keep(),
                    Err(Refused::AlreadySignaled(_)) => {
                        assert_eq!(seen.read(), 1);
                        told.store(true, Ordering::SeqCst);
                    }
                    Err(Refused::OutOfMemory(..)) => unreachable!(),
                }
            },
            || {
                proof.write();
                signaler.signal(Ok(()));
            },
        );
        drop(fence);
        end(executor);
        assert_eq!(calls.get(), usize::from(!refused.load(Ordering::SeqCst)));
    });
}

/// A future is polled, with a waker that is then replaced, while the fence signals: the last waker is called, once.
#[test]
fn loom_signal_against_poll() {
    Model::new("signal against poll").check(|| {
        let (executor, signaler, fence) = bare();
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let future = Arc::new(std::sync::Mutex::new(Box::pin(fence.into_future())));
        let ready = Arc::new(AtomicBool::new(false));
        let (polled, told, wakes) = (future.clone(), ready.clone(), [old.clone(), new.clone()]);
        race(
            move || {
                // No other thread takes it before this one has ended.
                let mut polled = polled.lock().unwrap();
                for wake in wakes {
                    let waker = Waker::from(wake);
                    let poll = polled.as_mut().poll(&mut Context::from_waker(&waker));
                    if poll.is_ready() {
                        assert_eq!(poll, Poll::Ready(Ok(())));
                        told.store(true, Ordering::SeqCst);
                        break;
                    }
                }
            },
            || {
                signaler.signal(Ok(()));
                executor.notify();
            },
        );
        executor.notify();
        if !ready.load(Ordering::SeqCst) {
            assert_eq!(new.get(), 1, "nobody woke the task");
            let waker = Waker::noop();
            let poll = future.lock().unwrap().as_mut().poll(&mut Context::from_waker(waker));
            assert_eq!(poll, Poll::Ready(Ok(())));
        }
        assert!(old.get() <= 1);
        drop(future);
        assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 1), "a waker was leaked");
        end(executor);
    });
}

/// A future is dropped while the fence signals and the notify lane runs: its node is on the fence, on the lane, being
/// woken, or gone.
#[test]
fn loom_signal_and_lane_against_drop_of_a_future() {
    Model::new("signal and lane against drop of a future").check(|| {
        let (executor, signaler, fence) = bare();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(wakes.clone());
        let mut future = Box::pin(fence.into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        race(
            move || drop(future),
            || {
                signaler.signal(Ok(()));
                executor.notify();
            },
        );
        end(executor);
        assert!(wakes.get() <= 1);
        assert_eq!(Arc::strong_count(&wakes), 1, "the waker was leaked");
    });
}

/// The node is on the notify lane already when the future goes and the lane runs.
#[test]
fn loom_lane_against_drop_of_a_future() {
    Model::new("lane against drop of a future").check(|| {
        let (executor, signaler, fence) = bare();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(wakes.clone());
        let mut future = Box::pin(fence.into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        signaler.signal(Ok(()));
        race(
            move || drop(future),
            || {
                executor.notify();
            },
        );
        end(executor);
        assert!(wakes.get() <= 1);
        assert_eq!(Arc::strong_count(&wakes), 1, "the waker was leaked");
    });
}

/// `detach` tells the truth, whether the node is on the fence, on the lane, or running.
#[test]
fn loom_signal_and_lane_against_detach() {
    Model::new("signal and lane against detach").check(|| {
        let (executor, signaler, fence) = bare();
        let calls = Count::default();
        let count = calls.clone();
        let registration = fence.on_signaled(move |_| count.add()).unwrap();
        drop(fence);
        let taken = Count::default();
        let told = taken.clone();
        race(
            move || {
                if registration.detach() {
                    told.add();
                }
            },
            || {
                signaler.signal(Ok(()));
                executor.notify();
            },
        );
        end(executor);
        assert_eq!(calls.get() + taken.get(), 1, "taken out and called, or neither");
        assert_eq!(Arc::strong_count(&calls.0), 1, "the closure was leaked");
    });
}

/// The same with the node on the lane from the beginning, and two who run it.
#[test]
fn loom_lane_against_detach() {
    Model::new("lane against detach").check(|| {
        let (executor, signaler, fence) = bare();
        let calls = Count::default();
        let count = calls.clone();
        let registration = fence.on_signaled(move |_| count.add()).unwrap();
        drop(fence);
        signaler.signal(Ok(()));
        let taken = Count::default();
        let told = taken.clone();
        let second = executor.clone();
        race3(
            move || {
                if registration.detach() {
                    told.add();
                }
            },
            move || {
                second.notify();
            },
            || {
                executor.notify();
            },
        );
        end(executor);
        assert_eq!(calls.get() + taken.get(), 1, "taken out and called, or neither");
    });
}

/// When `remove` has returned, the closure does not run, and what it did is seen.
#[test]
fn loom_signal_and_lane_against_remove() {
    Model::new("signal and lane against remove").check(|| {
        let (executor, signaler, fence) = bare();
        let proof = Proof::new();
        let written = proof.clone();
        let registration = fence.on_signaled(move |_| written.write()).unwrap();
        drop(fence);
        race(
            move || {
                let taken = registration.remove().unwrap();
                assert_eq!(proof.read(), u32::from(!taken));
            },
            || {
                signaler.signal(Ok(()));
                executor.notify();
            },
        );
        end(executor);
    });
}

struct Inline(Count);

// SAFETY: it counts.
unsafe impl SignalSafe for Inline {
    fn signaled(self, result: Result<(), FenceError>) {
        assert_eq!(result, Ok(()));
        self.0.add();
    }
}

/// A closure that runs in the signal itself is taken out at that moment.
#[test]
fn loom_signal_against_detach_of_an_inline_closure() {
    Model::new("signal against detach of an inline closure").check(|| {
        let (executor, signaler, fence) = bare();
        let (calls, taken) = (Count::default(), Count::default());
        let registration = fence.on_signal(Inline(calls.clone())).unwrap();
        let told = taken.clone();
        race(
            move || {
                if registration.detach() {
                    told.add();
                }
            },
            || signaler.signal(Ok(())),
        );
        assert_eq!(calls.get() + taken.get(), 1);
        drop(fence);
        end(executor);
    });
}

/// The last handle goes while the fence signals: its block is freed once, with everything it held.
#[test]
fn loom_signal_against_drop_of_the_last_handle() {
    Model::new("signal against drop of the last handle").check(|| {
        let (executor, signaler, fence) = bare();
        let second = fence.clone();
        let calls = Count::default();
        let count = calls.clone();
        fence.on_signaled(move |_| count.add()).unwrap().keep();
        race3(move || drop(fence), move || drop(second), || signaler.signal(Ok(())));
        end(executor);
        assert_eq!(calls.get(), 1);
    });
}

/// Two results of one context come at the same time, the later fence's perhaps first: its signal waits for its turn.
#[test]
fn loom_two_signals_out_of_turn() {
    Model::new("two signals out of turn").check(|| {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (first, a) = context.allocate().unwrap().publish();
        let (second, b) = context.allocate().unwrap().publish();
        let (early, late) = (a.clone(), b.clone());
        race3(
            move || second.signal(Ok(())),
            move || {
                if late.is_signaled() {
                    assert!(early.is_signaled(), "signaled before its predecessor");
                }
            },
            || first.signal(Err(FenceError::Canceled)),
        );
        assert_eq!(a.status(), Status::Signaled(Err(FenceError::Canceled)));
        assert_eq!(b.status(), Status::Signaled(Ok(())));
        drop((a, b, context));
        end(executor);
    });
}

/// A producer goes away while its watchdog expires: one of them gives the result.
#[test]
fn loom_drop_of_the_signaler_against_watchdog() {
    Model::new("drop of the signaler against watchdog").check(|| {
        let (executor, signaler, fence) = bare();
        executor.advance_to(Time::NEVER);
        race(
            move || drop(signaler),
            || {
                executor.step();
            },
        );
        end(executor);
        let status = fence.status();
        let expected = [FenceError::Canceled, FenceError::TimedOut].map(|error| Status::Signaled(Err(error)));
        assert!(expected.contains(&status), "{status:?}");
    });
}

/// A late producer, its watchdog, and a fence behind it that has its result already.
#[test]
fn loom_late_signal_against_watchdog_in_order() {
    Model::new("late signal against watchdog, one behind").check(|| {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (first, a) = context.allocate().unwrap().publish();
        let (second, b) = context.allocate().unwrap().publish();
        drop(context);
        second.signal(Ok(()));
        executor.advance_to(Time::NEVER);
        race(
            move || first.signal(Ok(())),
            || {
                executor.step();
            },
        );
        end(executor);
        assert!(a.is_signaled());
        assert_eq!(b.status(), Status::Signaled(Ok(())));
    });
}

/// Two holders of a user fence's source signal: the first result counts, and one of them is told so.
#[test]
fn loom_user_source_signaled_from_two_threads() {
    Model::new("user source signaled from two threads").check(|| {
        let executor = Executor::manual().unwrap();
        let (source, user) = UserFence::new(&executor, "host").unwrap();
        let other = source.clone();
        let (good, bad) = (Count::default(), Count::default());
        let told = bad.clone();
        race(
            move || {
                if other.signal(Err(FenceError::Canceled)) {
                    told.add();
                }
            },
            || {
                if source.signal(Ok(())) {
                    good.add();
                }
            },
        );
        assert_eq!(good.get() + bad.get(), 1);
        let result = if good.get() == 1 { Ok(()) } else { Err(FenceError::Canceled) };
        assert_eq!(user.status(), Status::Signaled(result));
        drop((source, user));
        end(executor);
    });
}

/// A deadline comes while the fence signals: the time stamp is the signal's, for everybody who sees one.
#[test]
fn loom_deadline_against_signal() {
    Model::new("deadline against signal").check(|| {
        let (executor, signaler, fence) = bare();
        let (hinted, seen) = (fence.clone(), fence.clone());
        race3(
            move || hinted.set_deadline(Time::from_ns(3)),
            move || {
                assert!([None, Some(Time::from_ns(3))].contains(&seen.deadline()));
                assert!([None, Some(Time::from_ns(7))].contains(&seen.timestamp()));
            },
            || signaler.signal_at(Ok(()), Time::from_ns(7)),
        );
        assert_eq!((fence.timestamp(), fence.deadline()), (Some(Time::from_ns(7)), None));
        drop(fence);
        end(executor);
    });
}

/// Two hints: the earlier one stays.
#[test]
fn loom_deadline_against_deadline() {
    Model::new("deadline against deadline").check(|| {
        let (executor, signaler, fence) = bare();
        let hinted = fence.clone();
        race(move || hinted.set_deadline(Time::from_ns(3)), || fence.set_deadline(Time::from_ns(5)));
        assert_eq!(fence.deadline(), Some(Time::from_ns(3)));
        drop((fence, signaler));
        end(executor);
    });
}

struct Hooked {
    arms: Count,
    dropped: Count,
}

impl Producer for Hooked {
    fn arm(&self) {
        assert_eq!(self.dropped.get(), 0);
        self.arms.add();
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        self.dropped.add();
    }
}

/// A producer hook hears of the first waiter, at most once, and goes with the signal. Too long for all preemptions asked
/// for: one fewer.
#[test]
fn loom_signal_against_arming_a_hook() {
    Model::shallow("signal against arming a hook").check(|| {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (arms, dropped) = (Count::default(), Count::default());
        let hook = Hook::try_new(&executor, Hooked { arms: arms.clone(), dropped: dropped.clone() }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().with_hook(hook).publish();
        drop(context);
        let (one, two) = (fence.clone(), fence.clone());
        race3(
            move || drop(one.on_signaled(|_| {})),
            move || {
                two.set_deadline(Time::from_ns(3));
                drop(two.on_signaled(|_| {}));
            },
            || signaler.signal(Ok(())),
        );
        end(executor);
        assert!(arms.get() <= 1, "armed twice");
        assert_eq!(dropped.get(), 1, "a signaled fence keeps its producer");
        drop(fence);
    });
}

/// The last handle of an executor, a context and a fence go from three threads.
#[test]
fn loom_last_handles_against_each_other() {
    Model::new("last handles against each other").check(|| {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        race3(move || drop(context), move || drop(fence), || drop(signaler));
        end(executor);
    });
}

// What follows breaks a protocol on purpose: the model must find an execution that shows it. The bad outcome is noted and
// reported at the end, since a panic inside an execution takes loom's own state down with it.

/// Without the context's order, a later fence is seen signaled before an earlier one.
#[test]
#[should_panic(expected = "found, as it should be")]
fn loom_teeth_signals_that_do_not_wait_for_their_turn() {
    let found = Arc::new(AtomicBool::new(false));
    let noted = found.clone();
    Model::new("teeth: no turns").check(move || {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let (first, a) = context.allocate().unwrap().publish();
        let (second, b) = context.allocate().unwrap().publish();
        let hub = executor.hub().clone();
        let (early, late, noted) = (a.clone(), b.clone(), noted.clone());
        race3(
            // The defect: straight to the fence.
            move || late.signal(Ok(()), Time::ZERO, &hub),
            move || {
                if b.is_signaled() && !early.is_signaled() {
                    noted.store(true, Ordering::SeqCst);
                }
            },
            || first.signal(Ok(())),
        );
        drop((second, a, context));
        end(executor);
    });
    assert!(!found.load(Ordering::SeqCst), "found, as it should be");
}

/// A time stamp stored after `SIGNALED` is seen too late: as a deadline hint, or as nonsense.
#[test]
#[should_panic(expected = "found, as it should be")]
fn loom_teeth_time_stamp_after_the_signal() {
    let found = Arc::new(AtomicBool::new(false));
    let noted = found.clone();
    Model::new("teeth: time stamp after the signal").check(move || {
        let (executor, signaler, fence) = bare();
        let (producer, noted) = (fence.clone(), noted.clone());
        race(
            move || {
                // The defect: `Fence::signal` with its two stores exchanged.
                let state = producer.state();
                state.word.fetch_or(super::state::SIGNALED | super::state::DONE, Ordering::AcqRel);
                state.time.store(7, Ordering::Relaxed);
            },
            || {
                if fence.timestamp().is_some_and(|at| at != Time::from_ns(7)) {
                    noted.store(true, Ordering::SeqCst);
                }
            },
        );
        drop((fence, signaler));
        end(executor);
    });
    assert!(!found.load(Ordering::SeqCst), "found, as it should be");
}

/// A waiter that looks first and then registers, without looking again, is never woken.
#[test]
#[should_panic(expected = "found, as it should be")]
fn loom_teeth_no_second_look() {
    let found = Arc::new(AtomicBool::new(false));
    let noted = found.clone();
    Model::new("teeth: no second look").check(move || {
        let (executor, signaler, fence) = bare();
        let node = Arc::new(LaneNode::new(Task::Wake(None)));
        let (waiting, waiter) = (node.clone(), fence.clone());
        race(
            move || {
                // The defect: `Fence::register` without its second look.
                if !waiter.is_signaled() {
                    let mut waiters = waiter.state().waiters.lock();
                    // SAFETY: in no list, kept by the `Arc`, taken out below; the lock is held.
                    unsafe { waiters.list.push_back(NonNull::from(&waiting.node.link)) };
                    waiting.node.set_place(Place::Fence);
                    waiter.state().word.fetch_or(super::state::WAITERS, Ordering::AcqRel);
                }
            },
            || signaler.signal(Ok(())),
        );
        executor.notify();
        if fence.unregister_lane(&node) {
            noted.store(true, Ordering::SeqCst);
        }
        drop((fence, node));
        end(executor);
    });
    assert!(!found.load(Ordering::SeqCst), "found, as it should be");
}
