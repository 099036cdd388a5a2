//! Fences from outside: waits, futures, registrations, producer hooks, contexts and their watchdog, user fences.
#![expect(unsafe_code, reason = "an inline closure must be declared safe for the signalling path")]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use outlive::check::{self, Violation};
use outlive::sched::{Ask, Ended, Gate};
use outlive::trace::{Event, Record};
use outlive::{
    Completion, Device, Driver, Executor, Fence, FenceContext, FenceError, FenceFuture, Hook, Job, JobCx, Names,
    Producer, QueueConfig, Refused, Registration, Retired, SignalSafe, Signaler, Status, Time, UserFence,
    WATCHDOG_DEFAULT, WaitError,
};
use std::sync::{Mutex, mpsc};
use std::thread;

/// Longer than any test runs; only a defect waits that long.
const LONG: Duration = Duration::from_secs(30);
/// For what must time out in real time.
const SHORT: Duration = Duration::from_millis(5);
const FAULT: FenceError = FenceError::Faulted { code: 7 };

fn seconds(s: u64) -> Time {
    Time::ZERO.after(Duration::from_secs(s))
}

fn manual() -> Executor {
    Executor::manual().unwrap()
}

fn context_on(executor: &Executor) -> FenceContext {
    FenceContext::new(executor, Names { driver: "bare", timeline: "test" }).unwrap()
}

fn bare(context: &FenceContext) -> (Signaler, Fence) {
    context.allocate().unwrap().publish()
}

/// A fence of a context of its own.
fn alone(executor: &Executor) -> (Signaler, Fence) {
    bare(&context_on(executor))
}

fn is_ok(fence: &Fence) -> bool {
    fence.status() == Status::Signaled(Ok(()))
}

fn error_of(fence: &Fence) -> Option<FenceError> {
    match fence.status() {
        Status::Signaled(result) => result.err(),
        Status::Pending => None,
    }
}

/// What a producer heard.
#[derive(Default)]
struct Heard {
    armed: AtomicUsize,
    deadlines: Mutex<Vec<Time>>,
    dropped: AtomicBool,
    /// Told when it was armed.
    on_arm: Mutex<Option<mpsc::Sender<()>>>,
}

struct Ear(Arc<Heard>);

impl Producer for Ear {
    fn arm(&self) {
        self.0.armed.fetch_add(1, SeqCst);
        if let Some(sender) = self.0.on_arm.lock().unwrap().take() {
            sender.send(()).unwrap();
        }
    }

    fn deadline(&self, at: Time) {
        self.0.deadlines.lock().unwrap().push(at);
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.dropped.store(true, SeqCst);
    }
}

/// A fence whose producer listens; the receiver says when somebody began to wait.
fn hooked(executor: &Executor) -> (Signaler, Fence, Arc<Heard>, mpsc::Receiver<()>) {
    let (sender, armed) = mpsc::channel();
    let heard = Arc::new(Heard { on_arm: Mutex::new(Some(sender)), ..Heard::default() });
    let hook = Hook::try_new(executor, Ear(heard.clone())).unwrap();
    let (signaler, fence) = context_on(executor).allocate().unwrap().with_hook(hook).publish();
    (signaler, fence, heard, armed)
}

/// A closure that adds one to what it returns when it runs, and an `Arc` it holds until it is dropped.
fn counting(count: &Arc<AtomicUsize>) -> impl FnOnce(Result<(), FenceError>) + Send + use<> {
    let count = count.clone();
    move |_| {
        count.fetch_add(1, SeqCst);
    }
}

/// A closure that the test promises to keep short.
struct Short<F>(F);

// SAFETY: every closure wrapped here takes uncontended locks or counts, and panics only when the test has failed.
unsafe impl<F: FnOnce(Result<(), FenceError>) + Send + 'static> SignalSafe for Short<F> {
    fn signaled(self, result: Result<(), FenceError>) {
        (self.0)(result);
    }
}

fn on_signal(fence: &Fence, closure: impl FnOnce(Result<(), FenceError>) + Send + 'static) -> Registration {
    fence.on_signal(Short(closure)).unwrap()
}

mod waits {
    use super::*;

    #[test]
    fn on_one_that_has_signaled_returns_at_once_on_any_thread() {
        let executor = manual();
        let (good, ok) = alone(&executor);
        let (bad, failed) = alone(&executor);
        good.signal(Ok(()));
        bad.signal(Err(FAULT));
        // This thread drives the executor; there is nothing to wait for, so nothing to refuse.
        assert_eq!(ok.wait(LONG), Ok(()));
        assert_eq!(ok.wait(Duration::ZERO), Ok(()));
        assert_eq!(failed.wait(LONG), Err(WaitError::Failed(FAULT)));
    }

    #[test]
    fn on_one_that_another_thread_signals() {
        let executor = manual();
        for result in [Ok(()), Err(FAULT)] {
            let (signaler, fence, _, armed) = hooked(&executor);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| fence.wait(Duration::MAX));
                armed.recv().unwrap();
                assert!(!waiter.is_finished());
                signaler.signal(result);
                assert_eq!(waiter.join().unwrap(), result.map_err(WaitError::Failed));
            });
        }
    }

    #[test]
    fn on_one_time_out_and_leave_nothing_behind() {
        let executor = manual();
        let (signaler, fence, _, armed) = hooked(&executor);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| fence.wait(SHORT));
            armed.recv().unwrap();
            assert_eq!(waiter.join().unwrap(), Err(WaitError::TimedOut));
        });
        assert_eq!(fence.status(), Status::Pending);
        // Its node is gone with its stack: the signal must not find it.
        signaler.signal(Ok(()));
        assert!(is_ok(&fence) && fence.callbacks_done());
    }

    #[test]
    fn of_no_time_at_all_poll() {
        let executor = manual();
        let (_signaler, fence, heard, _armed) = hooked(&executor);
        assert_eq!(fence.wait(Duration::ZERO), Err(WaitError::TimedOut));
        assert_eq!(Fence::wait_any(core::slice::from_ref(&fence), Duration::ZERO), Err(WaitError::TimedOut));
        assert_eq!(Fence::wait_all(core::slice::from_ref(&fence), Duration::ZERO), Err(WaitError::TimedOut));
        assert_eq!(heard.armed.load(SeqCst), 0, "a poll is no wait");
    }

    #[test]
    fn on_any_name_the_lowest_that_has_signaled() {
        let executor = manual();
        let (_keep, pending) = alone(&executor);
        let (bad, failed) = alone(&executor);
        let (good, ok) = alone(&executor);
        bad.signal(Err(FAULT));
        good.signal(Ok(()));
        let all = [pending.clone(), failed, ok.clone()];
        assert_eq!(Fence::wait_any(&all, LONG), Ok(1), "an error is a signal too");
        assert_eq!(Fence::wait_any(&[pending, ok], LONG), Ok(1));
    }

    #[test]
    fn on_any_end_with_the_first_signal_of_another_thread() {
        let executor = manual();
        let (_first, a) = alone(&executor);
        let (second, b, _, armed) = hooked(&executor);
        let (third, c) = alone(&executor);
        // The last one is the one that says when all are registered.
        let all = [a, c.clone(), c, b.clone(), b];
        thread::scope(|scope| {
            let waiter = scope.spawn(|| Fence::wait_any(&all, LONG));
            armed.recv().unwrap();
            second.signal(Err(FAULT));
            assert_eq!(waiter.join().unwrap(), Ok(3), "the lower of the two handles on the same fence");
        });
        // What it left on the others would be touched here.
        third.signal(Ok(()));
        assert!(all[1].callbacks_done());
    }

    #[test]
    fn on_any_time_out() {
        let executor = manual();
        let (first, a) = alone(&executor);
        let (second, b) = alone(&executor);
        let all = [a.clone(), b];
        thread::scope(|scope| {
            let waiter = scope.spawn(|| (Fence::wait_any(&all, SHORT), Fence::wait_any(&[], SHORT)));
            assert_eq!(waiter.join().unwrap(), (Err(WaitError::TimedOut), Err(WaitError::TimedOut)));
        });
        first.signal(Ok(()));
        second.signal(Ok(()));
        assert!(a.callbacks_done());
    }

    #[test]
    fn on_all_wait_for_the_last_and_name_the_first_error_of_the_slice() {
        let executor = manual();
        let (late, a, _, armed) = hooked(&executor);
        let (bad, b) = alone(&executor);
        let (worse, c) = alone(&executor);
        worse.signal(Err(FenceError::Canceled));
        bad.signal(Err(FAULT));
        let all = [a, b, c];
        thread::scope(|scope| {
            let waiter = scope.spawn(|| Fence::wait_all(&all, LONG));
            armed.recv().unwrap();
            assert!(!waiter.is_finished(), "errors do not end it early");
            late.signal(Ok(()));
            assert_eq!(waiter.join().unwrap(), Err(WaitError::Failed(FAULT)));
        });
        assert_eq!(Fence::wait_all(&all[..1], LONG), Ok(()));
        assert_eq!(Fence::wait_all(&[], LONG), Ok(()));
    }

    #[test]
    fn on_all_time_out_as_a_whole() {
        let executor = manual();
        let (first, a) = alone(&executor);
        let (_second, b) = alone(&executor);
        first.signal(Err(FAULT));
        let all = [a, b];
        thread::scope(|scope| {
            let waiter = scope.spawn(|| Fence::wait_all(&all, SHORT));
            assert_eq!(waiter.join().unwrap(), Err(WaitError::TimedOut), "an error among them does not hide it");
        });
    }

    #[test]
    fn on_threads_are_woken_before_any_closure_runs() {
        let executor = Executor::builder().threads().unwrap();
        let (signaler, fence, _, armed) = hooked(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        fence.on_signaled(counting(&runs)).unwrap().keep();
        armed.recv().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| signaler.signal(Ok(())));
            assert_eq!(fence.wait(LONG), Ok(()));
        });
    }

    #[test]
    fn on_the_thread_that_drives_the_executor_are_refused() {
        check::set_reporter(false);
        let executor = manual();
        let (_signaler, fence, heard, _armed) = hooked(&executor);
        let all = [fence.clone()];
        assert_eq!(fence.wait(LONG), Err(WaitError::WouldDeadlock));
        assert_eq!(Fence::wait_any(&all, LONG), Err(WaitError::WouldDeadlock));
        assert_eq!(Fence::wait_all(&all, LONG), Err(WaitError::WouldDeadlock));
        assert_eq!(
            WaitError::WouldDeadlock.to_string(),
            "this thread drives the fence's executor and would wait for itself; call `Executor::wait`, or use an \
             executor with threads"
        );
        assert!(check::take_report().is_none(), "it is an error, not a violation");
        assert_eq!(heard.armed.load(SeqCst), 0);
        // Whoever drives it last is the driver.
        thread::scope(|scope| {
            scope.spawn(|| {
                executor.step();
                assert_eq!(fence.wait(LONG), Err(WaitError::WouldDeadlock));
            });
        });
        assert_eq!(fence.wait(SHORT), Err(WaitError::TimedOut), "here it only takes time");
    }

    #[test]
    fn by_the_executor_drive_it_and_move_virtual_time() {
        let executor = manual();
        let context = context_on(&executor);
        let (signaler, fence) = bare(&context);
        core::mem::forget(signaler);
        assert_eq!(executor.wait(&fence, Duration::from_secs(3)), Err(WaitError::TimedOut));
        assert_eq!(executor.now(), seconds(3), "up to the timeout, not to the next timer");
        assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        assert_eq!(executor.now(), seconds(10), "no further than needed");
        assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        assert_eq!(executor.now(), seconds(10));
    }

    #[test]
    fn by_the_executor_run_closures_and_reap() {
        let executor = manual();
        let (first, a) = alone(&executor);
        let (second, b, heard, _armed) = hooked(&executor);
        let second = Mutex::new(Some(second));
        a.on_signaled(move |_| second.lock().unwrap().take().unwrap().signal(Ok(()))).unwrap().keep();
        first.signal(Ok(()));
        assert_eq!(executor.wait(&b, LONG), Ok(()));
        assert_eq!(executor.now(), Time::ZERO);
        executor.run_until_idle();
        assert!(heard.dropped.load(SeqCst));
    }

    #[test]
    fn by_the_executor_say_stuck_when_nothing_is_pending() {
        let executor = manual();
        let other = manual();
        let (_signaler, foreign) = alone(&other);
        assert_eq!(executor.wait(&foreign, LONG), Err(WaitError::Stuck));
        assert_eq!(executor.now(), Time::ZERO, "there was nothing to move to");

        struct Never;
        impl Gate for Never {
            fn may_start(&self, _ask: &Ask) -> bool {
                false
            }
            fn ended(&self, _end: &Ended) {}
        }
        struct Idle;
        impl Driver for Idle {
            type Job = ();
            type Queue = ();
            fn run(&self, _cx: &mut JobCx<'_, Self>, _done: Completion) {}
        }
        let device = Device::new(&executor, Idle).unwrap();
        let queue = device.queue(QueueConfig::new("gated").gate(Never).unwrap(), ()).unwrap();
        let job = queue.reserve(()).unwrap().commit();
        assert_eq!(executor.wait(&job.finished(), LONG), Err(WaitError::Stuck));
        assert_eq!(
            WaitError::Stuck.to_string(),
            "nothing is pending that could signal the fence; submit or complete something first"
        );
        drop(queue);
        assert_eq!(executor.wait(&job.finished(), LONG), Err(WaitError::Failed(FenceError::Canceled)));
    }

    #[test]
    fn in_a_callback_are_refused_and_reported() {
        check::set_reporter(false);
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let (_pending, other) = alone(&executor);
        let got = Arc::new(Mutex::new(Vec::new()));
        let (into, again, stepped) = (got.clone(), fence.clone(), executor.clone());
        let line = line!() + 3;
        fence
            .on_signaled(move |_| {
                into.lock().unwrap().push(other.wait(LONG));
                into.lock().unwrap().push(Fence::wait_any(core::slice::from_ref(&other), LONG).map(drop));
                into.lock().unwrap().push(stepped.wait(&other, LONG));
                into.lock().unwrap().push(again.wait(LONG));
            })
            .unwrap()
            .keep();
        signaler.signal(Ok(()));
        let before = check::reports();
        executor.notify();
        let refused = Err(WaitError::InCallback);
        assert_eq!(*got.lock().unwrap(), [refused, refused, refused, Ok(())], "but a signaled fence may be asked");
        assert!(check::reports() >= before + 3);
        let report = check::take_report().unwrap();
        assert_eq!(report.violation, Violation::WaitedInCallback);
        assert_eq!((report.at.file(), report.at.line()), (file!(), line + 2), "the last one");
        assert_eq!(report.section, report.at, "no section was open");
        assert_eq!(executor.now(), Time::ZERO, "nothing was driven");
    }

    #[test]
    fn in_a_waker_are_refused() {
        struct Waits(Fence, Mutex<Option<Result<(), WaitError>>>);
        impl Wake for Waits {
            fn wake(self: Arc<Self>) {
                *self.1.lock().unwrap() = Some(self.0.wait(LONG));
            }
        }
        check::set_reporter(false);
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let (_pending, other) = alone(&executor);
        let waker = Arc::new(Waits(other, Mutex::new(None)));
        let mut future = pin!((&fence).into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker.clone().into())).is_pending());
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!(*waker.1.lock().unwrap(), Some(Err(WaitError::InCallback)));
        assert_eq!(check::take_report().unwrap().violation, Violation::WaitedInCallback);
    }

    #[test]
    fn on_the_reaper_lane_are_allowed() {
        struct Waits(Fence, Arc<Mutex<Option<Result<(), WaitError>>>>);
        impl Producer for Waits {}
        impl Drop for Waits {
            fn drop(&mut self) {
                *self.1.lock().unwrap() = Some(self.0.wait(LONG));
            }
        }
        let executor = Executor::builder().threads().unwrap();
        let (late, other, _, armed) = hooked(&executor);
        let got = Arc::new(Mutex::new(None));
        let hook = Hook::try_new(&executor, Waits(other, got.clone())).unwrap();
        let (signaler, _fence) = context_on(&executor).allocate().unwrap().with_hook(hook).publish();
        signaler.signal(Ok(()));
        armed.recv().unwrap();
        late.signal(Err(FAULT));
        let answer = || *got.lock().unwrap();
        until(|| answer().is_some());
        assert_eq!(answer(), Some(Err(WaitError::Failed(FAULT))));
    }
}

/// Looks again and again until `done`; only for what another thread does next.
fn until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("it never came");
}

/// Counts wake-ups, and wakes a thread.
struct Alarm {
    wakes: AtomicUsize,
    thread: thread::Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

fn alarm() -> (Arc<Alarm>, Waker) {
    let alarm = Arc::new(Alarm { wakes: AtomicUsize::new(0), thread: thread::current() });
    (alarm.clone(), alarm.into())
}

fn block_on<F: IntoFuture>(what: F) -> F::Output {
    let mut future = pin!(what.into_future());
    let (_, waker) = alarm();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(LONG),
        }
    }
}

fn poll(future: Pin<&mut FenceFuture>, waker: &Waker) -> Poll<Result<(), FenceError>> {
    future.poll(&mut Context::from_waker(waker))
}

mod futures {
    use super::*;

    #[test]
    fn of_a_fence_a_borrowed_one_and_a_user_fence_are_ready_with_the_result() {
        let executor = manual();
        let (good, ok) = alone(&executor);
        let (bad, failed) = alone(&executor);
        let (source, user) = UserFence::new(&executor, "user").unwrap();
        good.signal(Ok(()));
        bad.signal(Err(FAULT));
        source.signal(Err(FenceError::Canceled));
        assert_eq!(block_on(&ok), Ok(()));
        assert_eq!(block_on(ok), Ok(()));
        assert_eq!(block_on(&failed), Err(FAULT));
        assert_eq!(block_on(failed), Err(FAULT));
        assert_eq!(block_on(user), Err(FenceError::Canceled));
        assert_eq!(block_on(async { Fence::stub().await }), Ok(()));
    }

    #[test]
    fn are_woken_by_the_notify_lane_of_the_signaller() {
        let executor = Executor::builder().threads().unwrap();
        for result in [Ok(()), Err(FAULT)] {
            let (signaler, fence, _, armed) = hooked(&executor);
            thread::scope(|scope| {
                scope.spawn(move || {
                    armed.recv().unwrap();
                    signaler.signal(result);
                });
                assert_eq!(block_on(async { (&fence).await }), result);
            });
        }
    }

    #[test]
    fn do_not_wait_where_nobody_polls() {
        let executor = manual();
        let (signaler, fence, heard, _armed) = hooked(&executor);
        drop(fence.clone().into_future());
        assert_eq!(heard.armed.load(SeqCst), 0);
        signaler.signal(Ok(()));
    }

    #[test]
    fn replace_their_waker_when_polled_again() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let ((first, first_waker), (second, second_waker)) = (alarm(), alarm());
        let mut future = pin!((&fence).into_future());
        assert!(poll(future.as_mut(), &first_waker).is_pending());
        assert!(poll(future.as_mut(), &first_waker).is_pending());
        assert!(poll(future.as_mut(), &second_waker).is_pending());
        drop(first_waker);
        assert_eq!(Arc::strong_count(&first), 1, "the first waker is gone");
        signaler.signal(Ok(()));
        assert_eq!(second.wakes.load(SeqCst), 0, "not in the signal");
        assert!(executor.notify());
        assert_eq!((first.wakes.load(SeqCst), second.wakes.load(SeqCst)), (0, 1));
        assert_eq!(poll(future.as_mut(), &second_waker), Poll::Ready(Ok(())));
        assert!(!executor.notify());
    }

    #[test]
    fn dropped_while_registered_leave_nothing() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let (alarm, waker) = alarm();
        {
            let mut future = pin!((&fence).into_future());
            assert!(poll(future.as_mut(), &waker).is_pending());
        }
        drop(waker);
        assert_eq!(Arc::strong_count(&alarm), 1);
        signaler.signal(Ok(()));
        assert!(fence.callbacks_done());
        assert!(!executor.notify(), "nothing was handed over");
        assert_eq!(alarm.wakes.load(SeqCst), 0);
    }

    #[test]
    fn dropped_on_the_notify_lane_leave_nothing() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let ((gone, gone_waker), (kept, kept_waker)) = (alarm(), alarm());
        let mut stays = pin!((&fence).into_future());
        {
            let mut future = pin!((&fence).into_future());
            assert!(poll(future.as_mut(), &gone_waker).is_pending());
            assert!(poll(stays.as_mut(), &kept_waker).is_pending());
            signaler.signal(Ok(()));
        }
        drop(gone_waker);
        assert_eq!(Arc::strong_count(&gone), 1);
        assert!(executor.notify());
        assert_eq!((gone.wakes.load(SeqCst), kept.wakes.load(SeqCst)), (0, 1), "its neighbour is still called");
    }

    #[test]
    fn polled_on_the_notify_lane_are_ready_and_not_woken() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let (alarm, waker) = alarm();
        let mut future = pin!(fence.into_future());
        assert!(poll(future.as_mut(), &waker).is_pending());
        signaler.signal(Err(FAULT));
        assert_eq!(poll(future.as_mut(), &waker), Poll::Ready(Err(FAULT)));
        assert!(!executor.notify());
        assert_eq!(alarm.wakes.load(SeqCst), 0);
    }

    #[test]
    fn outlive_the_executor_that_never_came_to_wake_them() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let (alarm, waker) = alarm();
        let mut future = Box::pin(fence.into_future());
        assert!(poll(future.as_mut(), &waker).is_pending());
        signaler.signal(Ok(()));
        drop(executor);
        // Whoever took the executor over wakes it, or this poll came first.
        assert_eq!(poll(future.as_mut(), &waker), Poll::Ready(Ok(())));
        drop(future);
        drop(waker);
        until(|| Arc::strong_count(&alarm) == 1);
    }
}

mod registrations {
    use super::*;

    #[test]
    fn say_signaled_before_and_callbacks_done_after() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let seen = Arc::new(Mutex::new(None));
        let (into, this) = (seen.clone(), fence.clone());
        // Harmless: reads a fence and writes a word under a lock nobody else holds.
        on_signal(&fence, move |_| *into.lock().unwrap() = Some((this.is_signaled(), this.callbacks_done()))).keep();
        let runs = Arc::new(AtomicUsize::new(0));
        fence.on_signaled(counting(&runs)).unwrap().keep();
        assert!(!fence.is_signaled() && !fence.callbacks_done());
        signaler.signal(Ok(()));
        assert_eq!(*seen.lock().unwrap(), Some((true, false)), "signaled, and its callbacks being acted on");
        assert!(fence.callbacks_done(), "handed over is done");
        assert_eq!(runs.load(SeqCst), 0, "run is the notify lane's");
        assert!(executor.notify());
        assert_eq!(runs.load(SeqCst), 1);
        assert!(!executor.notify());
    }

    #[test]
    fn run_in_the_order_they_were_made_and_are_told_the_result() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let order = Arc::new(Mutex::new(Vec::new()));
        for turn in 0..5 {
            let order = order.clone();
            fence.on_signaled(move |result| order.lock().unwrap().push((turn, result))).unwrap().keep();
        }
        signaler.signal(Err(FAULT));
        executor.notify();
        let expected: Vec<_> = (0..5).map(|turn| (turn, Err(FAULT))).collect();
        assert_eq!(*order.lock().unwrap(), expected);
    }

    #[test]
    fn late_are_refused_and_the_closure_comes_back() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        signaler.signal(Ok(()));
        let runs = Arc::new(AtomicUsize::new(0));
        let refused = fence.on_signaled(counting(&runs)).unwrap_err();
        assert_eq!(refused.to_string(), "the fence has signaled: act on it at once");
        let Refused::AlreadySignaled(closure) = refused else { panic!("{refused:?}") };
        executor.run_until_idle();
        assert_eq!(runs.load(SeqCst), 0, "not called behind one's back");
        closure(Ok(()));
        assert_eq!(runs.load(SeqCst), 1);
        let inline = Short(counting(&runs));
        assert!(matches!(fence.on_signal(inline), Err(Refused::AlreadySignaled(_))));
    }

    #[test]
    fn dropped_take_the_closure_out_and_drop_it() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        let registration = fence.on_signaled(counting(&runs)).unwrap();
        assert_eq!(Arc::strong_count(&runs), 2);
        drop(registration);
        assert_eq!(Arc::strong_count(&runs), 1);
        signaler.signal(Ok(()));
        assert!(!executor.notify());
        assert_eq!(runs.load(SeqCst), 0);
    }

    #[test]
    fn kept_run_after_their_handle_is_gone() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        fence.on_signaled(counting(&runs)).unwrap().keep();
        drop(fence);
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (1, 1));
    }

    #[test]
    fn detached_or_removed_in_time_do_not_run() {
        let executor = manual();
        for remove in [false, true] {
            let take = |registration: Registration| {
                if remove { registration.remove().unwrap() } else { registration.detach() }
            };
            let (signaler, fence) = alone(&executor);
            let runs = Arc::new(AtomicUsize::new(0));
            let on_the_fence = fence.on_signaled(counting(&runs)).unwrap();
            let on_the_lane = fence.on_signaled(counting(&runs)).unwrap();
            let has_run = fence.on_signaled(counting(&runs)).unwrap();
            assert!(take(on_the_fence));
            signaler.signal(Ok(()));
            assert!(take(on_the_lane), "handed over is not begun");
            assert_eq!(Arc::strong_count(&runs), 2, "both closures are gone");
            assert!(executor.notify());
            assert_eq!(runs.load(SeqCst), 1);
            assert!(!take(has_run), "too late");
            assert_eq!(Arc::strong_count(&runs), 1);
        }
    }

    /// A closure that runs on the notify lane of `executor` until it is told to end.
    fn running(executor: &Executor) -> (Registration, mpsc::Sender<()>, Arc<AtomicBool>) {
        let (signaler, fence) = alone(executor);
        let ((began, has_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel());
        let ended = Arc::new(AtomicBool::new(false));
        let at_end = ended.clone();
        let registration = fence
            .on_signaled(move |_| {
                began.send(()).unwrap();
                may_end.recv().unwrap();
                at_end.store(true, SeqCst);
            })
            .unwrap();
        signaler.signal(Ok(()));
        has_begun.recv().unwrap();
        (registration, end, ended)
    }

    #[test]
    fn removed_wait_for_a_running_closure() {
        let executor = Executor::builder().threads().unwrap();
        let (registration, end, ended) = running(&executor);
        thread::scope(|scope| {
            let remover = scope.spawn(|| {
                let answer = registration.remove();
                (answer, ended.load(SeqCst))
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!remover.is_finished());
            end.send(()).unwrap();
            assert_eq!(remover.join().unwrap(), (Ok(false), true), "it ran, and to its end");
        });
    }

    #[test]
    fn detached_or_dropped_do_not_wait_for_a_running_closure() {
        let executor = Executor::builder().threads().unwrap();
        let (registration, end, ended) = running(&executor);
        assert!(!registration.detach());
        assert!(!ended.load(SeqCst));
        end.send(()).unwrap();
        let (registration, end, ended) = running(&executor);
        drop(registration);
        assert!(!ended.load(SeqCst));
        end.send(()).unwrap();
        until(|| ended.load(SeqCst));
    }

    #[test]
    fn removed_inside_their_own_closure_are_refused() {
        check::set_reporter(false);
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let slot = Arc::new(Mutex::new(None::<Registration>));
        let answer = Arc::new(Mutex::new(None));
        let (own, into) = (slot.clone(), answer.clone());
        let registration = fence
            .on_signaled(move |_| {
                let registration = own.lock().unwrap().take().unwrap();
                *into.lock().unwrap() = Some(registration.remove());
            })
            .unwrap();
        *slot.lock().unwrap() = Some(registration);
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!(*answer.lock().unwrap(), Some(Err(WaitError::InCallback)));
        assert_eq!(check::take_report().unwrap().violation, Violation::WaitedInCallback);
    }

    #[test]
    fn detached_inside_their_own_closure_say_it_is_too_late() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let slot = Arc::new(Mutex::new(None::<Registration>));
        let answer = Arc::new(Mutex::new(None));
        let (own, into) = (slot.clone(), answer.clone());
        let registration = fence
            .on_signaled(move |_| {
                let registration = own.lock().unwrap().take().unwrap();
                *into.lock().unwrap() = Some(registration.detach());
            })
            .unwrap();
        *slot.lock().unwrap() = Some(registration);
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!(*answer.lock().unwrap(), Some(false));
    }

    #[test]
    fn removed_in_a_signalling_section_are_refused_and_reported() {
        check::set_reporter(false);
        let executor = manual();
        let (_signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        let registration = fence.on_signaled(counting(&runs)).unwrap();
        let section = check::signalling();
        let line = line!() + 1;
        let refused = registration.remove();
        drop(section);
        assert_eq!(refused, Err(WaitError::InSignallingSection));
        let report = check::take_report().unwrap();
        assert_eq!((report.violation, report.at.line()), (Violation::Waited, line));
    }

    #[test]
    fn whose_removal_is_refused_stay() {
        check::set_reporter(false);
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        let registration = fence.on_signaled(counting(&runs)).unwrap();
        let section = check::signalling();
        assert_eq!(registration.remove(), Err(WaitError::InSignallingSection));
        drop(section);
        let _ = check::take_report();
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!(runs.load(SeqCst), 1, "\"the closure is left as it is then\"");
    }

    #[test]
    fn inline_run_in_the_signal_itself() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        // Harmless: one atomic addition.
        on_signal(&fence, counting(&runs)).keep();
        let taken_out = on_signal(&fence, counting(&runs));
        assert!(taken_out.detach());
        signaler.signal(Ok(()));
        assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (1, 1));
        assert!(!executor.notify(), "nothing was left to the lane");
    }

    #[test]
    fn that_panic_count_as_finished_and_the_next_still_runs() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        let panics = fence.on_signaled(|_| panic!("on purpose")).unwrap();
        fence.on_signaled(counting(&runs)).unwrap().keep();
        signaler.signal(Ok(()));
        let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| executor.notify()));
        assert!(caught.is_err());
        assert_eq!(panics.remove(), Ok(false), "and removing it does not wait for ever");
        executor.notify();
        assert_eq!(runs.load(SeqCst), 1);
    }

    #[test]
    fn that_panic_on_a_thread_end_that_thread_and_not_the_lane() {
        let executor = Executor::builder().threads().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        for turn in 1..=3 {
            let (signaler, fence) = alone(&executor);
            fence.on_signaled(|_| panic!("on purpose")).unwrap().keep();
            fence.on_signaled(counting(&runs)).unwrap().keep();
            signaler.signal(Ok(()));
            until(|| runs.load(SeqCst) == turn);
        }
    }
}

mod hooks {
    use super::*;

    #[test]
    fn keep_the_earliest_deadline_and_pass_it_on() {
        let executor = manual();
        let (signaler, fence, heard, _armed) = hooked(&executor);
        assert_eq!(fence.deadline(), None);
        for (hint, earliest) in [(8, 8), (9, 8), (8, 8), (5, 5), (6, 5), (0, 0)] {
            fence.set_deadline(seconds(hint));
            assert_eq!(fence.deadline(), Some(seconds(earliest)));
        }
        fence.set_deadline(Time::NEVER);
        assert_eq!(*heard.deadlines.lock().unwrap(), [seconds(8), seconds(5), seconds(0)]);
        signaler.signal(Ok(()));
        assert_eq!(fence.deadline(), None, "what has signaled has none");
        fence.set_deadline(seconds(0));
        assert_eq!(heard.deadlines.lock().unwrap().len(), 3);
        assert_eq!(heard.armed.load(SeqCst), 0, "a hint is no wait");
        assert_eq!(fence.timestamp(), Some(Time::ZERO));
    }

    #[test]
    fn work_without_a_hook_and_a_late_deadline_never_becomes_the_time_stamp() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        fence.set_deadline(seconds(3));
        assert_eq!(fence.deadline(), Some(seconds(3)));
        executor.advance_to(seconds(2));
        signaler.signal(Ok(()));
        fence.set_deadline(seconds(1));
        assert_eq!((fence.deadline(), fence.timestamp()), (None, Some(seconds(2))));
    }

    #[test]
    fn are_armed_once_by_the_first_registration() {
        let executor = manual();
        let (signaler, fence, heard, _armed) = hooked(&executor);
        let first = fence.on_signaled(|_| {}).unwrap();
        assert_eq!(heard.armed.load(SeqCst), 1);
        drop(first);
        fence.on_signaled(|_| {}).unwrap().keep();
        let (_, waker) = alarm();
        let mut future = pin!((&fence).into_future());
        assert!(poll(future.as_mut(), &waker).is_pending());
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(fence.wait(SHORT), Err(WaitError::TimedOut)));
        });
        assert_eq!(heard.armed.load(SeqCst), 1);
        signaler.signal(Ok(()));
        assert_eq!(heard.armed.load(SeqCst), 1);
    }

    #[test]
    fn are_armed_by_a_wait_and_by_a_dependency() {
        let executor = manual();
        let (_signaler, fence, heard, _armed) = hooked(&executor);
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(fence.wait(SHORT), Err(WaitError::TimedOut)));
        });
        assert_eq!(heard.armed.load(SeqCst), 1);

        struct Never;
        impl Driver for Never {
            type Job = ();
            type Queue = ();
            fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
                done.complete(Ok(()));
            }
        }
        let (_signaler, fence, heard, _armed) = hooked(&executor);
        let device = Device::new(&executor, Never).unwrap();
        let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
        let reserved = queue.reserve_after((), [&fence]).unwrap();
        assert_eq!(heard.armed.load(SeqCst), 0, "reserving only looks");
        let _job = reserved.commit();
        assert_eq!(heard.armed.load(SeqCst), 1);
    }

    #[test]
    fn are_never_armed_by_a_query() {
        let executor = manual();
        let (signaler, fence, heard, _armed) = hooked(&executor);
        for _ in 0..3 {
            assert_eq!(fence.status(), Status::Pending);
            assert!(!fence.is_signaled() && !fence.callbacks_done());
            assert_eq!((fence.timestamp(), fence.deadline(), fence.seqno()), (None, None, 1));
            assert_eq!(fence.wait(Duration::ZERO), Err(WaitError::TimedOut));
            assert_eq!(fence.wait(LONG), Err(WaitError::WouldDeadlock));
            assert_eq!((fence.clone() == fence, format!("{fence:?}").is_empty()), (true, false));
        }
        assert_eq!(heard.armed.load(SeqCst), 0);
        signaler.signal(Ok(()));
        assert!(fence.on_signaled(|_| {}).is_err());
        assert_eq!(heard.armed.load(SeqCst), 0, "nor by one that came too late");
    }

    #[test]
    fn go_with_the_signal_on_the_reaper_while_the_fence_is_kept() {
        let executor = manual();
        let (signaler, fence, heard, _armed) = hooked(&executor);
        let dropped = || heard.dropped.load(SeqCst);
        executor.run_until_idle();
        assert!(!dropped());
        signaler.signal(Ok(()));
        assert!(!dropped(), "foreign code is not dropped in a signal");
        executor.step();
        executor.notify();
        assert!(!dropped());
        assert!(executor.reap());
        assert!(dropped());
        assert!(is_ok(&fence));
        assert_eq!(Arc::strong_count(&heard), 1);
    }

    #[test]
    fn go_with_a_fence_that_was_never_published() {
        let executor = manual();
        let heard = Arc::new(Heard::default());
        let hook = Hook::try_new(&executor, Ear(heard.clone())).unwrap();
        drop(context_on(&executor).allocate().unwrap().with_hook(hook));
        executor.run_until_idle();
        assert!(heard.dropped.load(SeqCst));
    }
}

/// Remembers whose watchdog expired, and how often anything signaled.
#[derive(Clone, Default)]
struct Log {
    expired: Arc<Mutex<Vec<(Time, u64, u64)>>>,
    signaled: Arc<AtomicU64>,
}

impl Record for Log {
    fn record(&self, at: Time, event: Event) {
        match event {
            Event::WatchdogExpired { fence } => self.expired.lock().unwrap().push((at, fence.context, fence.seqno)),
            Event::FenceSignaled { .. } => drop(self.signaled.fetch_add(1, SeqCst)),
            _ => {}
        }
    }
}

fn recorded() -> (Executor, Log) {
    let log = Log::default();
    (Executor::builder().recorder(log.clone()).unwrap().manual().unwrap(), log)
}

mod contexts {
    use super::*;

    #[test]
    fn hold_a_signal_out_of_turn_until_its_turn() {
        let executor = manual();
        let context = context_on(&executor);
        let ((s1, f1), (s2, f2), (s3, f3)) = (bare(&context), bare(&context), bare(&context));
        let (s4, f4) = bare(&context);
        let order = Arc::new(Mutex::new(Vec::new()));
        for fence in [&f4, &f2, &f1, &f3] {
            let (order, seqno) = (order.clone(), fence.seqno());
            // Harmless: a push under a lock that only this thread takes.
            on_signal(fence, move |_| order.lock().unwrap().push(seqno)).keep();
        }
        executor.advance_to(seconds(1));
        s3.signal(Err(FAULT));
        s2.signal(Ok(()));
        assert!([&f1, &f2, &f3].iter().all(|fence| fence.status() == Status::Pending));
        assert!(f2.timestamp().is_none());
        executor.advance_to(seconds(2));
        s1.signal(Ok(()));
        assert!(is_ok(&f1) && is_ok(&f2));
        assert_eq!(error_of(&f3), Some(FAULT));
        assert_eq!(f4.status(), Status::Pending);
        s4.signal(Ok(()));
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4]);
        let stamps = [f1, f2, f3, f4].map(|fence| fence.timestamp().unwrap());
        assert_eq!(stamps, [seconds(2), seconds(1), seconds(1), seconds(2)], "when its producer was done");
    }

    #[test]
    fn do_not_hold_each_other_up() {
        let executor = manual();
        let (_pending, _first) = alone(&executor);
        let (signaler, fence) = alone(&executor);
        signaler.signal(Ok(()));
        assert!(is_ok(&fence));
    }

    #[test]
    fn cancel_what_a_dropped_signaler_promised() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        assert_eq!(signaler.fence(), Some(&fence));
        executor.advance_to(seconds(1));
        drop(signaler);
        assert_eq!(error_of(&fence), Some(FenceError::Canceled));
        assert_eq!(fence.timestamp(), Some(seconds(1)));
    }

    #[test]
    fn cancel_what_a_panicking_producer_promised() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(move || {
            let _duty = signaler;
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        assert_eq!(error_of(&fence), Some(FenceError::Canceled));
    }

    #[test]
    fn fail_what_a_forgotten_signaler_promised_after_ten_seconds() {
        let (executor, log) = recorded();
        let context = context_on(&executor);
        let (signaler, fence) = bare(&context);
        core::mem::forget(signaler);
        assert_eq!(WATCHDOG_DEFAULT, Duration::from_secs(10));
        assert_eq!(executor.next_timer(), Some(seconds(10)));
        executor.advance_to(Time::from_ns(9_999_999_999));
        executor.run_until_idle();
        assert_eq!(fence.status(), Status::Pending);
        executor.advance_to(seconds(10));
        assert_eq!(fence.status(), Status::Pending, "the lane has not run");
        assert!(executor.step());
        assert_eq!(error_of(&fence), Some(FenceError::TimedOut));
        assert_eq!(fence.timestamp(), Some(seconds(10)));
        assert_eq!(*log.expired.lock().unwrap(), [(seconds(10), context.id(), 1)]);
        executor.run_until_idle();
        assert_eq!(executor.next_timer(), None);
    }

    #[test]
    fn give_each_producer_its_own_ten_seconds_and_let_later_ones_through() {
        let (executor, log) = recorded();
        let context = context_on(&executor);
        let (forgotten, f1) = bare(&context);
        core::mem::forget(forgotten);
        let (s2, f2) = bare(&context);
        executor.advance_to(seconds(4));
        s2.signal(Ok(()));
        let (forgotten, f3) = bare(&context);
        core::mem::forget(forgotten);
        assert_eq!(executor.wait(&f3, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        assert_eq!(executor.now(), seconds(14));
        assert_eq!((error_of(&f1), f1.timestamp()), (Some(FenceError::TimedOut), Some(seconds(10))));
        assert!(is_ok(&f2));
        assert_eq!(f2.timestamp(), Some(seconds(4)));
        let id = context.id();
        assert_eq!(*log.expired.lock().unwrap(), [(seconds(10), id, 1), (seconds(14), id, 3)]);
    }

    #[test]
    fn may_be_stricter_than_the_default_but_not_laxer() {
        let executor = manual();
        let names = Names { driver: "d", timeline: "t" };
        for (asked, given) in [(1, 1), (3600, 10)] {
            let context = FenceContext::with_watchdog(&executor, names, Duration::from_secs(asked)).unwrap();
            let (signaler, fence) = bare(&context);
            core::mem::forget(signaler);
            let from = executor.now();
            assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
            assert_eq!(executor.now().since(from), Duration::from_secs(given));
        }
    }

    #[test]
    fn do_not_report_producers_that_were_in_time() {
        let (executor, log) = recorded();
        let context = context_on(&executor);
        for _ in 0..3 {
            let (signaler, _fence) = bare(&context);
            executor.advance_to(executor.now().after(Duration::from_secs(9)));
            executor.run_until_idle();
            signaler.signal(Ok(()));
        }
        executor.advance_to(seconds(100));
        executor.run_until_idle();
        assert!(log.expired.lock().unwrap().is_empty());
        assert_eq!(log.signaled.load(SeqCst), 3);
    }

    #[test]
    fn ignore_a_signal_after_the_watchdog() {
        let (executor, log) = recorded();
        let (signaler, fence) = alone(&executor);
        executor.advance_to(seconds(10));
        executor.step();
        let (at, seen) = (fence.timestamp(), log.signaled.load(SeqCst));
        assert_eq!((error_of(&fence), at), (Some(FenceError::TimedOut), Some(seconds(10))));
        executor.advance_to(seconds(11));
        signaler.signal(Ok(()));
        executor.run_until_idle();
        assert_eq!((error_of(&fence), fence.timestamp()), (Some(FenceError::TimedOut), at));
        assert_eq!(log.signaled.load(SeqCst), seen, "no second signal");
    }

    #[test]
    fn survive_a_signal_from_inside_the_fences_own_callback() {
        let executor = manual();
        for inline in [true, false] {
            let context = context_on(&executor);
            let (signaler, fence) = bare(&context);
            let (next, after) = bare(&context);
            let runs = Arc::new(AtomicUsize::new(0));
            let count = counting(&runs);
            // Harmless, also inline: signalling neither allocates nor blocks.
            let closure = move |result| {
                signaler.signal(Ok(()));
                count(result);
            };
            if inline {
                on_signal(&fence, closure).keep();
            } else {
                fence.on_signaled(closure).unwrap().keep();
            }
            next.signal(Ok(()));
            executor.advance_to(executor.now().after(WATCHDOG_DEFAULT));
            executor.run_until_idle();
            assert_eq!(error_of(&fence), Some(FenceError::TimedOut), "the watchdog was first");
            assert!(is_ok(&after));
            assert_eq!(runs.load(SeqCst), 1);
        }
    }

    #[test]
    fn survive_a_signaler_dropped_with_the_closure_that_waits_for_it() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        let registration = fence.on_signaled(move |_| drop(signaler)).unwrap();
        drop(registration);
        assert_eq!(error_of(&fence), Some(FenceError::Canceled));
    }

    #[test]
    fn do_not_recurse_through_inline_closures() {
        const LENGTH: usize = 50_000;
        let executor = manual();
        let context = context_on(&executor);
        let fences: Vec<_> = (0..LENGTH).map(|_| bare(&context)).collect();
        let mut all = Vec::with_capacity(LENGTH);
        let mut behind: Option<Signaler> = None;
        for (signaler, fence) in fences.into_iter().rev() {
            if let Some(next) = behind.replace(signaler) {
                // Harmless: signalling neither allocates nor blocks.
                on_signal(&fence, move |result| next.signal(result)).keep();
            }
            all.push(fence);
        }
        let first = behind.unwrap();
        let small = thread::Builder::new().stack_size(128 << 10);
        small.spawn(move || first.signal(Err(FAULT))).unwrap().join().unwrap();
        assert!(all.iter().all(|fence| error_of(fence) == Some(FAULT)));
    }

    #[test]
    fn number_what_is_published_without_holes() {
        let executor = manual();
        let context = context_on(&executor);
        let (s1, f1) = bare(&context);
        let late = context.allocate().unwrap();
        drop(context.allocate().unwrap());
        let (s2, f2) = bare(&context);
        drop(context.allocate().unwrap());
        let (s3, f3) = late.publish();
        assert_eq!([&f1, &f2, &f3].map(Fence::seqno), [1, 2, 3], "by publication, not by allocation");
        assert!([&f1, &f2, &f3].iter().all(|fence| fence.context() == context.id()));
        assert_eq!((f2.is_later_than(&f1), f1.is_later_than(&f2)), (Some(true), Some(false)));
        assert_eq!(f1.is_later_than(&alone(&executor).1), None);
        for signaler in [s1, s2, s3] {
            signaler.signal(Ok(()));
        }
        assert!(is_ok(&f3), "nothing that was dropped is waited for");
    }

    #[test]
    fn are_numbered_once_for_ever() {
        let executor = manual();
        let mut last = 0;
        for _ in 0..100 {
            let context = context_on(&executor);
            assert!(context.id() > last);
            last = context.id();
            drop(context);
            executor.run_until_idle();
        }
    }

    #[test]
    fn leave_everything_readable_when_they_are_gone() {
        let executor = manual();
        let names = Names { driver: "gpu0", timeline: "vblank" };
        let context = FenceContext::new(&executor, names).unwrap();
        let id = context.id();
        let ((good, ok), (bad, failed)) = (bare(&context), bare(&context));
        drop(context);
        executor.advance_to(seconds(3));
        good.signal(Ok(()));
        bad.signal(Err(FenceError::Dependency(FAULT.cause())));
        executor.run_until_idle();
        drop(executor);
        for (seqno, fence) in [(1, &ok), (2, &failed)] {
            assert_eq!((fence.context(), fence.seqno(), fence.client()), (id, seqno, 0));
            assert_eq!(fence.id().to_string(), format!("{id}:{seqno}"));
            assert_eq!((fence.driver_name(), fence.timeline_name()), ("gpu0", "vblank"));
            assert_eq!(fence.timestamp(), Some(seconds(3)));
            assert!(fence.is_signaled() && fence.callbacks_done());
        }
        assert!(is_ok(&ok));
        assert_eq!(error_of(&failed).map(FenceError::cause), Some(FAULT.cause()));
        assert_eq!(failed.wait(LONG), Err(WaitError::Failed(FenceError::Dependency(FAULT.cause()))));
    }

    #[test]
    fn dropped_before_their_fences_still_watch_them() {
        let executor = manual();
        let (signaler, fence) = alone(&executor);
        executor.run_until_idle();
        let (kept, other) = alone(&executor);
        core::mem::forget(signaler);
        assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        kept.signal(Ok(()));
        assert_eq!(error_of(&other), Some(FenceError::TimedOut), "its watchdog ran out at the same time");
    }

    #[test]
    fn take_the_hardwares_time() {
        let executor = manual();
        let context = context_on(&executor);
        let ((s1, f1), (s2, f2)) = (bare(&context), bare(&context));
        executor.advance_to(seconds(9));
        s2.signal_at(Err(FAULT), Time::from_ns(7));
        s1.signal_at(Ok(()), Time::from_ns(5));
        assert_eq!([f1.timestamp(), f2.timestamp()], [Some(Time::from_ns(5)), Some(Time::from_ns(7))]);
    }

    /// A predecessor is being signaled elsewhere when the next one is decided and its watchdog looks: the one after
    /// that must not lose its own watchdog.
    #[test]
    fn keep_watching_when_the_watchdog_meets_a_signal_under_way() {
        let executor = manual();
        let context = context_on(&executor);
        let ((s1, f1), (s2, f2)) = (bare(&context), bare(&context));
        executor.advance_to(seconds(5));
        let (s3, f3) = bare(&context);
        core::mem::forget(s3);
        let ((began, has_begun), (end, may_end)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        // Not harmless: it holds the signal up for as long as the test needs to get in between.
        on_signal(&f1, move |_| {
            began.send(()).unwrap();
            may_end.recv().unwrap();
        })
        .keep();
        thread::scope(|scope| {
            let signalling = scope.spawn(|| s1.signal(Ok(())));
            has_begun.recv().unwrap();
            s2.signal(Ok(()));
            executor.advance_to(seconds(10));
            executor.step();
            end.send(()).unwrap();
            signalling.join().unwrap();
        });
        assert!(is_ok(&f1) && is_ok(&f2));
        assert_eq!(f3.status(), Status::Pending);
        assert_eq!(executor.wait(&f3, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        assert_eq!(executor.now(), seconds(15));
    }
}

mod user_fences {
    use super::*;

    #[test]
    fn take_the_first_signal_and_no_other() {
        let executor = manual();
        let (source, user) = UserFence::new(&executor, "host").unwrap();
        let other = source.clone();
        let runs = Arc::new(AtomicUsize::new(0));
        user.on_signaled(counting(&runs)).unwrap().keep();
        assert_eq!(user.status(), Status::Pending);
        assert!(other.signal(Err(FAULT)));
        assert!(!source.signal(Ok(())) && !other.signal(Ok(())));
        assert_eq!(user.status(), Status::Signaled(Err(FAULT)));
        assert_eq!(user.wait(LONG), Err(WaitError::Failed(FAULT)));
        executor.notify();
        assert_eq!(runs.load(SeqCst), 1);
        assert!(matches!(user.on_signaled(counting(&runs)), Err(Refused::AlreadySignaled(_))));
    }

    #[test]
    fn may_be_held_open_for_ever() {
        let executor = manual();
        let (source, user) = UserFence::new(&executor, "host").unwrap();
        assert_eq!(executor.next_timer(), None, "no watchdog");
        drop(source);
        executor.advance_to(seconds(1000));
        executor.run_until_idle();
        assert_eq!(user.status(), Status::Pending, "its last source's end signals nothing");
        assert!(!user.is_signaled());
        assert_eq!(user.wait(Duration::ZERO), Err(WaitError::TimedOut));
        assert_eq!(user.wait(LONG), Err(WaitError::WouldDeadlock));
    }

    #[test]
    fn may_follow_a_fence() {
        let executor = manual();
        let (source, user) = UserFence::new(&executor, "host").unwrap();
        let (signaler, fence) = alone(&executor);
        fence.on_signaled(move |result| assert!(source.signal(result))).unwrap().keep();
        signaler.signal(Err(FAULT));
        executor.notify();
        assert_eq!(user.status(), Status::Signaled(Err(FAULT)));
    }

    #[test]
    fn call_their_closures_and_wakers_after_their_executor_has_ended() {
        for threads in [false, true] {
            let executor = if threads { Executor::builder().threads().unwrap() } else { manual() };
            let (source, user) = UserFence::new(&executor, "host").unwrap();
            let runs = Arc::new(AtomicUsize::new(0));
            user.on_signaled(counting(&runs)).unwrap().keep();
            let (alarm, waker) = alarm();
            let mut future = pin!(user.into_future());
            assert!(poll(future.as_mut(), &waker).is_pending());
            drop(executor);
            // Threads, if there were any, see that they are not needed any more.
            thread::sleep(SHORT);
            assert!(source.signal(Ok(())));
            until(|| runs.load(SeqCst) == 1 && alarm.wakes.load(SeqCst) == 1);
        }
    }

    /// Completes in `run`.
    struct Inline;
    impl Driver for Inline {
        type Job = ();
        type Queue = ();
        fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
            done.complete(Ok(()));
        }
    }

    #[test]
    fn that_say_a_device_is_gone_call_their_closures_also_when_it_was_the_executors_last() {
        let runs = Arc::new(AtomicUsize::new(0));
        for turn in 1..=100 {
            let executor = Executor::builder().threads().unwrap();
            let device = Device::new(&executor, Inline).unwrap();
            device.drained().as_user_fence().on_signaled(counting(&runs)).unwrap().keep();
            drop(executor);
            drop(device);
            until(|| runs.load(SeqCst) == turn);
        }
    }

    #[test]
    fn that_found_no_room_do_not_hold_up_a_published_job() {
        let executor = manual();
        let device = Device::new(&executor, Inline).unwrap();
        let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
        let (_sources, users): (Vec<_>, Vec<_>) = (0..9).map(|_| UserFence::new(&executor, "host").unwrap()).unzip();
        let reserved = queue.reserve(Job::new(()).user_waits(1)).unwrap();
        let Err(reserved) = reserved.commit_when(&users, Time::NEVER) else { panic!("there was room for one") };
        let job = reserved.commit();
        assert!(is_ok(&job.finished()), "it depends on nothing");
    }

    #[test]
    fn signaled_by_many_threads_have_one_result() {
        let executor = manual();
        let (source, user) = UserFence::new(&executor, "host").unwrap();
        let firsts = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for code in 0..4 {
                let (source, firsts) = (&source, &firsts);
                scope.spawn(move || {
                    if source.signal(Err(FenceError::Faulted { code })) {
                        firsts.lock().unwrap().push(code);
                    }
                });
            }
        });
        let firsts = firsts.into_inner().unwrap();
        assert_eq!(firsts.len(), 1);
        assert_eq!(user.status(), Status::Signaled(Err(FenceError::Faulted { code: firsts[0] })));
    }
}

#[test]
fn the_stub_has_always_been_signaled() {
    let stub = Fence::stub();
    assert!(is_ok(&stub) && stub.callbacks_done());
    assert_eq!((stub.context(), stub.seqno(), stub.client()), (0, 0, 0));
    assert_eq!((stub.driver_name(), stub.timeline_name()), ("stub", "stub"));
    assert_eq!((stub.timestamp(), stub.deadline()), (Some(Time::ZERO), None));
    stub.set_deadline(Time::from_ns(1));
    assert_eq!((stub.timestamp(), stub.deadline()), (Some(Time::ZERO), None));
    assert_eq!(stub.wait(LONG), Ok(()));
    assert_eq!(Fence::wait_any(&[Fence::stub()], LONG), Ok(0));
    assert!(matches!(stub.on_signaled(|_| {}), Err(Refused::AlreadySignaled(_))));
    assert_eq!(Fence::clone(&Retired::stub()), stub, "there is one");
    let many: Vec<_> = (0..10_000).map(|_| stub.clone()).collect();
    drop(many);
    drop(stub);
    assert!(is_ok(&Retired::stub().into_fence()));
}

#[test]
fn every_error_reaches_the_waiter_as_it_was_given() {
    let executor = manual();
    let context = context_on(&executor);
    for error in [
        FenceError::Canceled,
        FenceError::TimedOut,
        FenceError::DeviceLost,
        FenceError::Faulted { code: u16::MAX },
        FenceError::Innocent,
        FenceError::Quarantined,
        FenceError::DriverBug,
        FenceError::Dependency(FenceError::Faulted { code: 1 }.cause()),
    ] {
        let (signaler, fence) = bare(&context);
        let told = Arc::new(Mutex::new(None));
        let into = told.clone();
        fence.on_signaled(move |result| *into.lock().unwrap() = Some(result)).unwrap().keep();
        signaler.signal(Err(error));
        executor.notify();
        assert_eq!(fence.status(), Status::Signaled(Err(error)));
        assert_eq!(fence.wait(LONG), Err(WaitError::Failed(error)));
        assert_eq!(block_on(&fence), Err(error));
        assert_eq!(*told.lock().unwrap(), Some(Err(error)));
    }
}
