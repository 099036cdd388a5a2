//! Producer hooks: told of the first waiter and the earliest deadline, until the signal.

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
