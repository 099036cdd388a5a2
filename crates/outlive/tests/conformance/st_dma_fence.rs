//! KUnit `st-dma-fence`.

use crate::{LONG, NAMES, break_a_rule, mock_fence, pending};
use outlive::{Executor, Fence, FenceContext, FenceError, Hook, Producer, Refused, Registration, Status, WaitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// A closure that raises a flag.
fn raise(flag: &Arc<AtomicBool>) -> impl FnOnce(Result<(), FenceError>) + Send + use<> {
    let flag = flag.clone();
    move |_| flag.store(true, SeqCst)
}

#[test]
fn sanitycheck() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    fence.on_signaled(|_| {}).unwrap().keep();
    signaler.signal(Ok(()));
    assert!(fence.is_signaled());
}

/// Upstream looks whether the fence has let go of its operations: here, of its producer's hook.
#[test]
fn signaling() {
    struct Ops(Arc<AtomicBool>);
    impl Producer for Ops {}
    impl Drop for Ops {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    break_a_rule();
    let executor = Executor::manual().unwrap();
    let cleared = Arc::new(AtomicBool::new(false));
    let hook = Hook::try_new(&executor, Ops(cleared.clone())).unwrap();
    let context = FenceContext::new(&executor, NAMES).unwrap();
    let (signaler, fence) = context.allocate().unwrap().with_hook(hook).publish();
    assert!(!fence.is_signaled(), "signaled at birth");
    signaler.signal(Ok(()));
    assert!(fence.is_signaled() && fence.callbacks_done());
    executor.run_until_idle();
    assert!(cleared.load(SeqCst), "the signaled fence still reaches its issuer");
}

#[test]
fn add_callback() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    let called = Arc::new(AtomicBool::new(false));
    fence.on_signaled(raise(&called)).unwrap().keep();
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert!(called.load(SeqCst));
}

#[test]
fn late_add_callback() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    signaler.signal(Ok(()));
    let called = Arc::new(AtomicBool::new(false));
    assert!(matches!(fence.on_signaled(raise(&called)), Err(Refused::AlreadySignaled(_))));
    executor.run_until_idle();
    assert!(!called.load(SeqCst));
}

#[test]
fn rm_callback() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    let called = Arc::new(AtomicBool::new(false));
    let registration = fence.on_signaled(raise(&called)).unwrap();
    assert_eq!(registration.remove(), Ok(true));
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert!(!called.load(SeqCst));
}

#[test]
fn late_rm_callback() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    let called = Arc::new(AtomicBool::new(false));
    let registration = fence.on_signaled(raise(&called)).unwrap();
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert!(called.load(SeqCst));
    assert_eq!(registration.remove(), Ok(false));
}

#[test]
fn status() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    assert_eq!(fence.status(), Status::Pending);
    signaler.signal(Ok(()));
    assert_eq!(fence.status(), Status::Signaled(Ok(())));
}

/// The error is given with the signal, in one step, so there is no moment at which it could show too early.
#[test]
fn error() {
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    assert!(pending(&fence));
    let io = FenceError::Faulted { code: 5 };
    signaler.signal(Err(io));
    assert_eq!(fence.status(), Status::Signaled(Err(io)));
}

#[test]
fn wait() {
    let executor = Executor::builder().threads().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    assert_eq!(fence.wait(Duration::ZERO), Err(WaitError::TimedOut));
    signaler.signal(Ok(()));
    assert_eq!(fence.wait(Duration::ZERO), Ok(()));
}

#[test]
fn wait_timeout() {
    let executor = Executor::builder().threads().unwrap();
    let (signaler, fence) = mock_fence(&executor);
    assert_eq!(fence.wait(Duration::from_millis(1)), Err(WaitError::TimedOut));
    let timer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        signaler.signal(Ok(()));
    });
    assert_eq!(fence.wait(LONG), Ok(()));
    timer.join().unwrap();
}

#[test]
fn stub() {
    let stubs: Vec<_> = (0..64).map(|_| Fence::stub()).collect();
    assert!(stubs.iter().all(Fence::is_signaled));
}

/// Two threads hand each other fences: each registers on the other's and signals its own, before or after that.
#[test]
fn race_signal_callback() {
    for before in [false, true] {
        race(before);
    }
}

fn race(signal_before: bool) {
    let executor = Executor::builder().threads().unwrap();
    let slots: [std::sync::Mutex<Option<Fence>>; 2] = Default::default();
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..2 {
            let (executor, slots, stop, rounds) = (&executor, &slots, &stop, &rounds);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let (signaler, mine) = mock_fence(executor);
                    *slots[id].lock().unwrap() = Some(mine.clone());
                    let mut signaler = Some(signaler);
                    if signal_before {
                        signaler.take().unwrap().signal(Ok(()));
                    }
                    let theirs = slots[1 - id].lock().unwrap().clone();
                    let called = Arc::new(AtomicBool::new(false));
                    let registration = theirs.as_ref().map(|theirs| theirs.on_signaled(raise(&called)));
                    if let Some(signaler) = signaler {
                        signaler.signal(Ok(()));
                    }
                    if let (Some(theirs), Some(Ok(registration))) = (theirs, registration) {
                        seen_exactly(&theirs, registration, &called, stop);
                    }
                    rounds.fetch_add(1, SeqCst);
                }
            });
        }
        thread::sleep(Duration::from_millis(50));
        stop.store(true, SeqCst);
    });
    assert!(rounds.load(SeqCst) > 1, "nothing raced");
}

/// The callback is seen if the fence has signaled, or taken back if nobody is going to signal it any more.
fn seen_exactly(fence: &Fence, registration: Registration, called: &AtomicBool, stop: &AtomicBool) {
    let began = Instant::now();
    while pending(fence) && !stop.load(SeqCst) {
        assert!(began.elapsed() < LONG);
        thread::yield_now();
    }
    let signaled = fence.is_signaled();
    let removed = registration.remove().unwrap();
    assert_ne!(removed, called.load(SeqCst), "called and taken back, or neither");
    assert!(signaled || removed || fence.is_signaled(), "called before the signal");
}
