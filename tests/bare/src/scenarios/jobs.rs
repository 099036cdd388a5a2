//! Jobs: run, depended on, timed out, refused for want of memory.

use super::{World, at, frugal, step};
use crate::device::{Fake, PAYLOADS_DROPPED, Payload};
use crate::{check, heap, must};
use core::sync::atomic::Ordering;
use core::time::Duration;
use outlive::{
    Cause, Dependency, Device, Executor, FenceContext, FenceError, Job, Names, OnError, QueueConfig, Refusal, Status,
};

pub(crate) fn jobs() {
    let world = World::new(QueueConfig::new("render"));
    let dropped = PAYLOADS_DROPPED.load(Ordering::Relaxed);
    let reserved = must!(world.queue.reserve(Payload(41)));
    check!(reserved.0 == 41);
    let job = frugal(|| reserved.commit());
    check!(job.scheduled().is_signaled());
    check!(job.finished().status() == Status::Pending);
    check!(world.driver().last_payload() == 41);
    check!(world.queue.status().unfinished == 1);
    world.executor.advance_to(at(5));
    check!(frugal(|| world.driver().interrupt(1, Ok(()))));
    check!(!world.driver().interrupt(1, Ok(())), "an interrupt that comes twice completes nothing");
    step(&world.executor);
    check!(job.finished().status() == Status::Signaled(Ok(())));
    check!(job.finished().timestamp() == Some(at(5)));
    check!(job.retired().status() == Status::Signaled(Ok(())));
    check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) == dropped, "no payload is dropped while signalling");
    while world.executor.reap() {}
    check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) == dropped + 1);
    // A reservation that is dropped leaves no hole in the numbers.
    drop(must!(world.queue.reserve(Payload(0))));
    let next = must!(world.queue.reserve(Payload(42))).commit();
    check!(next.finished().seqno() == job.finished().seqno() + 1);
    check!(next.finished().is_later_than(&job.finished()) == Some(true));
    check!(world.driver().interrupt(2, Err(FenceError::Faulted { code: 9 })));
    step(&world.executor);
    check!(next.finished().status() == Status::Signaled(Err(FenceError::Faulted { code: 9 })));
    check!(next.retired().status() == Status::Signaled(Ok(())), "the memory is free, whatever the verdict");
    world.end();
}

pub(crate) fn dependencies() {
    let world = World::new(QueueConfig::new("first").client(1));
    let second = must!(world.device.queue(QueueConfig::new("second").client(1), 0));
    let third = must!(world.device.queue(QueueConfig::new("third").client(2), 0));
    let a = must!(world.queue.reserve(Payload(1))).commit();
    let b = must!(second.reserve_after(Payload(2), [a.finished()])).commit();
    let c = must!(third.reserve_after(Payload(3), [Dependency::on(b.finished())])).commit();
    let d = must!(third.reserve_after(Payload(4), [Dependency::on(b.finished()).on_error(OnError::Fail)])).commit();
    step(&world.executor);
    check!(world.driver().rung() == 1, "nothing starts before what it depends on");
    check!(!b.scheduled().is_signaled());
    check!(world.driver().interrupt(1, Ok(())));
    step(&world.executor);
    check!(b.scheduled().is_signaled());
    check!(world.driver().last_payload() == 2);
    check!(world.driver().interrupt(2, Err(FenceError::Faulted { code: 7 })));
    step(&world.executor);
    check!(b.finished().status() == Status::Signaled(Err(FenceError::Faulted { code: 7 })));
    check!(world.driver().last_payload() == 3, "another client's job runs in spite of the error");
    check!(world.driver().interrupt(3, Ok(())));
    step(&world.executor);
    check!(c.finished().status() == Status::Signaled(Ok(())));
    let cause = Cause::Faulted { code: 7 };
    check!(d.finished().status() == Status::Signaled(Err(FenceError::Dependency(cause))));
    check!(d.scheduled().status() == Status::Signaled(Err(FenceError::Dependency(cause))));
    check!(world.driver().rung() == 3);
    drop((second, third));
    world.end();
}

pub(crate) fn timeout() {
    let config = QueueConfig::new("hangs").timeout(Duration::from_millis(50)).credits(1);
    let world = World::new(config);
    let hung = must!(world.queue.reserve(Payload(1))).commit();
    let behind = must!(world.queue.reserve(Payload(2))).commit();
    check!(world.executor.next_timer() == Some(at(50)));
    world.executor.advance_to(at(49));
    step(&world.executor);
    check!(hung.finished().status() == Status::Pending);
    world.executor.advance_to(at(50));
    step(&world.executor);
    check!(hung.finished().status() == Status::Signaled(Err(FenceError::TimedOut)));
    check!(world.driver().resets() == 1);
    check!(hung.retired().status() == Status::Signaled(Ok(())), "a quiesced engine touches nothing");
    check!(behind.scheduled().status() == Status::Signaled(Ok(())), "a job that was not started survives the reset");
    check!(world.driver().interrupt(1, Ok(())), "late");
    check!(hung.finished().status() == Status::Signaled(Err(FenceError::TimedOut)));
    check!(world.driver().interrupt(2, Ok(())));
    check!(world.executor.wait(&behind.finished(), Duration::from_secs(1)) == Ok(()));
    check!(world.executor.now() == at(50), "nothing was left to wait for");
    world.end();
}

pub(crate) fn out_of_memory() {
    let world = World::new(QueueConfig::new("tight"));
    let context = must!(FenceContext::new(&world.executor, Names { driver: "tight", timeline: "others" }));
    // Five contexts, so more nodes than fit into the job's own block.
    let mut producers = [const { None }; 5];
    let mut fences = [const { None }; 5];
    for (producer, fence) in producers.iter_mut().zip(&mut fences) {
        let other = must!(FenceContext::new(&world.executor, Names { driver: "tight", timeline: "other" }));
        let (signaler, published) = must!(other.allocate()).publish();
        (*producer, *fence) = (Some(signaler), Some(published));
    }
    let mut refused = 0;
    let job = loop {
        let (status, in_use) = (world.queue.status(), heap::in_use());
        let dropped = PAYLOADS_DROPPED.load(Ordering::Relaxed);
        heap::fail_nth(refused + 1);
        let result = world.queue.reserve_after(Job::new(Payload(5)).bytes(4096), fences.iter().flatten());
        let unused = heap::fail_nth(0);
        match result {
            Ok(reserved) => {
                check!(unused, "no allocation failed, so none was left out");
                break frugal(|| reserved.commit());
            }
            Err(error) => {
                check!(!unused);
                check!(matches!(error.kind, Refusal::OutOfMemory(_)), error);
                check!(error.payload.0 == 5, "the payload comes back");
                check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) == dropped);
                check!(world.queue.status() == status);
                check!(heap::in_use() == in_use);
                refused += 1;
            }
        }
    };
    check!(refused >= 2, refused);
    check!(job.finished().seqno() == 1, "a refusal takes no number");
    drop(producers);
    step(&world.executor);
    check!(job.scheduled().is_signaled(), "bare fences are nobody's, so their error does not fail it");
    check!(world.driver().interrupt(1, Ok(())));
    drop((fences, context));
    world.end();

    // Opening everything, with each allocation failing in turn.
    let before = heap::in_use();
    for n in 1.. {
        heap::fail_nth(n);
        let opened = open();
        let unused = heap::fail_nth(0);
        check!(opened.is_none() || unused, "a failed allocation was overlooked");
        check!(opened.is_some() || !unused);
        let done = opened.is_some();
        if let Some(world) = opened {
            world.end();
        }
        check!(heap::in_use() == before, (n, before, heap::in_use()));
        if done {
            break;
        }
    }
}

fn open() -> Option<World> {
    let executor = Executor::manual().ok()?;
    let open = || {
        let device = Device::new(&executor, Fake::new().ok()?).ok()?;
        let queue = device.queue(QueueConfig::new("opened"), 0).ok()?;
        FenceContext::new(&executor, Names { driver: "opened", timeline: "bare" }).ok()?;
        Some((device, queue))
    };
    let opened = open();
    if opened.is_none() {
        // What was made before the failure is reaped; an executor that nobody drives would keep it for another.
        executor.run_until_idle();
    }
    let (device, queue) = opened?;
    Some(World { executor, device, queue })
}
