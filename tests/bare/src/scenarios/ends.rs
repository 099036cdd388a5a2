//! What ends late, in an interrupt, or after what it belonged to.

use super::{World, at, frugal, step};
use crate::device::{Fake, PAYLOADS_DROPPED, Payload};
use crate::machine::say;
use crate::{check, interrupt, must, platform};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use outlive::{Device, Executor, FenceError, QueueConfig, Refusal, Status};

pub(crate) fn close() {
    let world = World::new(QueueConfig::new("closed").credits(1));
    let dropped = PAYLOADS_DROPPED.load(Ordering::Relaxed);
    let on_hardware = must!(world.queue.reserve(Payload(1))).commit();
    let waiting = must!(world.queue.reserve(Payload(2))).commit();
    let reserved = must!(world.queue.reserve(Payload(3)));
    let drained = frugal(|| world.queue.close());
    check!(world.queue.status().closed);
    check!(matches!(world.queue.reserve(Payload(4)), Err(refused) if refused.kind == Refusal::Closed));
    let refused = frugal(|| reserved.commit());
    step(&world.executor);
    for job in [&on_hardware, &waiting, &refused] {
        check!(job.finished().status() == Status::Signaled(Err(FenceError::Canceled)));
    }
    check!(on_hardware.retired().status() == Status::Pending, "the hardware may still touch it");
    check!(world.driver().rung() == 1);
    while world.executor.reap() {}
    check!(!drained.is_drained());
    // The refused payload of the closed queue was dropped by its submitter; that of the job on the hardware was not.
    check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) <= dropped + 3);
    world.executor.advance_to(at(3));
    check!(frugal(|| world.driver().interrupt(1, Ok(()))), "late");
    check!(on_hardware.finished().status() == Status::Signaled(Err(FenceError::Canceled)), "a verdict is final");
    step(&world.executor);
    check!(on_hardware.retired().status() == Status::Signaled(Ok(())));
    check!(on_hardware.retired().timestamp() == Some(at(3)));
    check!(!drained.is_drained(), "its payload is still there");
    while world.executor.reap() {}
    check!(drained.is_drained());
    check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) == dropped + 4);
    world.end();
}

pub(crate) fn orphans() {
    let world = World::new(QueueConfig::new("orphan"));
    let job = must!(world.queue.reserve(Payload(1))).commit();
    let gone = world.device.drained();
    check!(world.driver().interrupt(1, Ok(())));
    drop(world);
    check!(job.finished().status() == Status::Signaled(Ok(())));
    check!(!gone.is_drained());
    let other = must!(Executor::manual());
    other.run_until_idle();
    check!(gone.is_drained(), "whoever is stepped next finishes it");
}

/// The device whose jobs an interrupt completes, and how many it has.
static INTERRUPTING: AtomicPtr<Device<Fake>> = AtomicPtr::new(core::ptr::null_mut());
static COMPLETED: AtomicUsize = AtomicUsize::new(0);

fn complete_all() {
    check!(platform::HELD.load(Ordering::Relaxed) == 0, "a lock is held with interrupts unmasked");
    #[expect(unsafe_code, reason = "the scenario's device, reached from an interrupt")]
    // SAFETY: the pointer is to a device that lives until after the interrupts have been stopped.
    let device = unsafe { INTERRUPTING.load(Ordering::SeqCst).as_ref() };
    let completed = device.map_or(0, |device| device.driver().interrupt_all());
    COMPLETED.fetch_add(completed, Ordering::SeqCst);
}

pub(crate) fn interrupts() {
    const JOBS: u32 = 400;
    let executor = must!(Executor::builder().clock(platform::ticks).manual());
    let device = must!(Device::new(&executor, must!(Fake::new())));
    let config = || QueueConfig::new("interrupted").client(1).credits(4);
    let queues = [must!(device.queue(config(), 0)), must!(device.queue(config(), 0))];
    let dropped = PAYLOADS_DROPPED.load(Ordering::Relaxed);
    INTERRUPTING.store((&raw const device).cast_mut(), Ordering::SeqCst);
    interrupt::start(complete_all, 100);
    let mut last = must!(queues[0].reserve(Payload(0))).commit();
    for number in 1..JOBS {
        // Chains across both queues, and jobs that nothing waits for.
        let queue = &queues[(number % 2) as usize];
        let job = if number % 3 == 0 {
            queue.reserve(Payload(number.into()))
        } else {
            queue.reserve_after(Payload(number.into()), [last.finished()])
        };
        last = must!(job).commit();
        while queue.status().unfinished > 12 {
            executor.step();
        }
        while executor.notify() || executor.reap() {}
    }
    while !last.retired().is_signaled() || queues.iter().any(|queue| queue.status().unfinished > 0) {
        executor.step();
    }
    interrupt::stop();
    INTERRUPTING.store(core::ptr::null_mut(), Ordering::SeqCst);
    check!(last.finished().status() == Status::Signaled(Ok(())), last.finished().status());
    check!(COMPLETED.load(Ordering::SeqCst) == JOBS as usize, COMPLETED.load(Ordering::SeqCst));
    check!(queues.iter().all(|queue| queue.status().credits_free == 4));
    let (served, deferred) = interrupt::counts();
    say!("    {served} interrupts, {deferred} of them while masked");
    check!(served > 10, "the timer does not run");
    let gone = device.drained();
    drop((queues, device));
    executor.run_until_idle();
    check!(gone.is_drained());
    check!(PAYLOADS_DROPPED.load(Ordering::Relaxed) == dropped + JOBS);
}

pub(crate) fn outlive() {
    let world = World::new(QueueConfig::new("gone").client(9));
    let job = must!(world.queue.reserve(Payload(1))).commit();
    let lost = must!(world.queue.reserve(Payload(2))).commit();
    world.executor.advance_to(at(8));
    check!(world.driver().interrupt(1, Ok(())));
    check!(world.driver().interrupt(2, Err(FenceError::Innocent)));
    let id = world.queue.id();
    let kept = [job.scheduled(), job.finished(), job.retired().into_fence(), lost.finished()];
    world.end();
    let seen = kept.each_ref().map(|fence| (fence.context() - id, fence.seqno(), fence.status()));
    let ok = Status::Signaled(Ok(()));
    check!(seen == [(0, 1, ok), (1, 1, ok), (2, 1, ok), (1, 2, Status::Signaled(Err(FenceError::Innocent)))], seen);
    for fence in &kept {
        check!((fence.driver_name(), fence.timeline_name(), fence.client()) == ("device", "gone", 9));
        check!(fence.timestamp().is_some_and(|time| time == at(8) || time == at(0)));
    }
    drop((job, lost));
    drop(kept.clone());
    check!(kept.iter().all(outlive::Fence::is_signaled));
}
