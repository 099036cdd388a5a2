//! Fences from outside: waits, futures, registrations, producer hooks, contexts and their watchdog, user fences.
#![expect(unsafe_code, reason = "an inline closure must be declared safe for the signalling path")]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

mod contexts;
mod futures;
mod hooks;
mod registrations;
mod user_fences;
mod waits;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use outlive::check::{self, Violation};
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
