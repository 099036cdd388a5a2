//! User fences: whoever comes first signals, and nothing may depend on them.

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
