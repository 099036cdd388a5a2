//! What is checked, one function for each scenario. Each leaves nothing allocated.

use crate::device::{DRIVERS_DROPPED, Fake, PAYLOADS_DROPPED, Payload};
use crate::machine::say;
use crate::{check, heap, interrupt, must, platform};
use core::pin::pin;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use outlive::{
    Cause, Dependency, Device, Executor, FenceContext, FenceError, Job, JobQueue, Names, OnError, QueueConfig, Refusal,
    Status, Time, UserFence, WaitError,
};

const MS: u64 = 1_000_000;

struct World {
    executor: Executor,
    device: Device<Fake>,
    queue: JobQueue<Fake>,
}

impl World {
    fn new(config: QueueConfig) -> Self {
        let executor = must!(Executor::manual());
        let device = must!(Device::new(&executor, must!(Fake::new())));
        let queue = must!(device.queue(config, 0));
        Self { executor, device, queue }
    }

    fn driver(&self) -> &Fake {
        self.device.driver()
    }

    /// Drops everything and runs what is left to its end.
    fn end(self) {
        let Self { executor, device, queue } = self;
        let gone = device.drained();
        let drivers = DRIVERS_DROPPED.load(Ordering::Relaxed);
        drop(queue);
        drop(device);
        check!(!gone.is_drained());
        executor.run_until_idle();
        check!(gone.is_drained());
        check!(DRIVERS_DROPPED.load(Ordering::Relaxed) == drivers + 1);
    }
}

/// The signalling lane's work; it must not allocate.
fn step(executor: &Executor) {
    let before = heap::allocations();
    while executor.step() {}
    check!(heap::allocations() == before);
}

/// Runs `work`, which must not allocate.
fn frugal<R>(work: impl FnOnce() -> R) -> R {
    let before = heap::allocations();
    let result = work();
    check!(heap::allocations() == before);
    result
}

fn at(ms: u64) -> Time {
    Time::from_ns(ms * MS)
}

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
