//! Threads that wait: for one fence, any, all; what is refused, and driving an executor meanwhile.

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

    struct Idle;
    impl Driver for Idle {
        type Job = ();
        type Queue = ();
        fn run(&self, _cx: &mut JobCx<'_, Self>, _done: Completion) {}
    }
    let device = Device::new(&executor, Idle).unwrap();
    let queue = device.queue(QueueConfig::new("waiting"), ()).unwrap();
    let job = queue.reserve_after((), [&foreign]).unwrap().commit();
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
fn of_a_thread_in_a_dead_drivers_place_are_not_refused() {
    for _ in 0..16 {
        let executor = thread::spawn(manual).join().unwrap();
        let (_signaler, fence) = alone(&executor);
        let waited = thread::spawn(move || fence.wait(SHORT)).join().unwrap();
        assert_eq!(waited, Err(WaitError::TimedOut), "the thread that drove the executor is another one");
    }
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
