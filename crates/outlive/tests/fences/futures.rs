//! Fences as futures: whoever polls last is woken, and a dropped one leaves nothing.

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
