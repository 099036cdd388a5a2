//! Bare fences, and waiting where nobody could wake us.

use super::{World, at, frugal, step};
use crate::device::Payload;
use crate::{check, must};
use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use outlive::{Executor, FenceContext, FenceError, Job, Names, QueueConfig, Status, UserFence, WaitError};

pub(crate) fn fences() {
    let executor = must!(Executor::manual());
    let names = Names { driver: "bare", timeline: "blit" };
    let context = must!(FenceContext::with_watchdog(&executor, names, Duration::from_secs(1)));
    let (first, one) = frugal({
        let unpublished = must!(context.allocate());
        || unpublished.publish()
    });
    let (second, two) = must!(context.allocate()).publish();
    static CALLED: AtomicU32 = AtomicU32::new(0);
    let registration = two.on_signaled(|result| {
        check!(result == Err(FenceError::Canceled));
        CALLED.fetch_add(1, Ordering::Relaxed);
    });
    check!(registration.is_ok());
    drop(second);
    check!(two.status() == Status::Pending, "in sequence order");
    frugal(|| first.signal(Ok(())));
    check!(one.status() == Status::Signaled(Ok(())));
    check!(two.status() == Status::Signaled(Err(FenceError::Canceled)));
    check!(CALLED.load(Ordering::Relaxed) == 0, "closures run on the notify lane");
    while executor.notify() {}
    check!(CALLED.load(Ordering::Relaxed) == 1);
    drop(registration);

    let (kept, late) = must!(context.allocate()).publish();
    check!(executor.wait(&late, Duration::from_secs(5)) == Err(WaitError::Failed(FenceError::TimedOut)));
    check!(executor.now() == at(1000), "the watchdog");
    kept.signal(Ok(()));
    check!(late.status() == Status::Signaled(Err(FenceError::TimedOut)), "a late signal changes nothing");

    let (source, user) = must!(UserFence::new(&executor, "host"));
    let mut future = pin!(user.clone().into_future());
    let mut cx = Context::from_waker(Waker::noop());
    check!(Future::poll(future.as_mut(), &mut cx) == Poll::Pending);
    check!(source.signal(Ok(())));
    while executor.notify() {}
    check!(Future::poll(future.as_mut(), &mut cx) == Poll::Ready(Ok(())));

    drop((context, source));
    executor.run_until_idle();
    check!((one.driver_name(), one.timeline_name(), late.seqno()) == ("bare", "blit", 3));
}

pub(crate) fn waiting() {
    let world = World::new(QueueConfig::new("waits"));
    let job = must!(world.queue.reserve(Payload(1))).commit();
    check!(job.finished().wait(Duration::from_secs(1)) == Err(WaitError::WouldDeadlock));
    check!(job.finished().wait(Duration::ZERO) == Err(WaitError::TimedOut));
    check!(world.executor.wait(&job.finished(), Duration::from_millis(1)) == Err(WaitError::TimedOut));
    check!(world.executor.now() == at(1), "virtual time passes while we wait");
    check!(world.driver().interrupt(1, Ok(())));
    check!(job.finished().wait(Duration::from_secs(1)) == Ok(()));
    // A user fence delays a commit, not the queue.
    let (source, user) = must!(UserFence::new(&world.executor, "host"));
    let reserved = must!(world.queue.reserve(Job::new(Payload(2)).user_waits(1)));
    let pending = reserved.commit_when(&[user], at(100));
    check!(pending.is_ok());
    let next = must!(world.queue.reserve(Payload(3))).commit();
    check!(next.scheduled().is_signaled());
    check!(world.driver().last_payload() == 3);
    check!(source.signal(Ok(())));
    step(&world.executor);
    check!(world.driver().last_payload() == 2);
    check!(world.driver().interrupt(2, Ok(())) && world.driver().interrupt(3, Ok(())));
    drop((pending, source));
    world.end();
}
