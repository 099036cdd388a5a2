//! Memory: nothing is allocated between commit and retirement, every failing allocation leaves everything as it was, dead
//! fences are small and keep nothing, and long chains end on a small stack.
//!
//! Chains have 1,000,000 jobs in release builds; with debug assertions 100,000, so that the whole file takes seconds.
#![expect(unsafe_code, reason = "a global allocator that counts what is alive")]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::fmt::Debug;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use outlive::check::{self, Alloc};
use outlive::trace::{Event, Record};
use outlive::{
    Cause, Charges, Completion, Dependency, Device, Driver, Executor, Fence, FenceContext, FenceError, Hook, InFlight,
    JOB_BYTES, Job, JobCx, JobFences, JobQueue, Names, OnError, OpenError, Principal, Producer, QueueConfig, Refusal,
    Refused, Signaler, Status, Time, UserFence, WaitError,
};
use std::alloc::System;
use std::sync::Mutex;
use std::thread;

/// Below the checked allocator: what this thread has alive. Everything here runs on a manual executor, hence on the
/// thread of its test.
struct Gauge;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Alive {
    blocks: i64,
    bytes: i64,
}

std::thread_local! {
    static ALIVE: Cell<Alive> = const { Cell::new(Alive { blocks: 0, bytes: 0 }) };
}

fn gauge(blocks: i64, bytes: usize, sign: i64) {
    let _ = ALIVE.try_with(|alive| {
        let now = alive.get();
        alive.set(Alive { blocks: now.blocks + blocks, bytes: now.bytes + sign * i64::try_from(bytes).unwrap_or(0) });
    });
}

fn alive() -> Alive {
    ALIVE.get()
}

impl Alive {
    fn since(self, before: Self) -> Self {
        Self { blocks: self.blocks - before.blocks, bytes: self.bytes - before.bytes }
    }
}

// SAFETY: every call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Gauge {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        gauge(1, layout.size(), 1);
        // SAFETY: the caller's promise is the system's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, raw: *mut u8, layout: Layout) {
        gauge(-1, layout.size(), -1);
        // SAFETY: the caller's promise is the system's contract.
        unsafe { System.dealloc(raw, layout) }
    }
}

#[global_allocator]
static ALLOC: Alloc<Gauge> = Alloc::new(Gauge);

const CHAIN: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const FAULT: FenceError = FenceError::Faulted { code: 7 };
const NAMES: Names<'_> = Names { driver: "bare", timeline: "test" };

/// Runs `body` on a thread with a stack that no recursion over a chain fits in.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(128 << 10).spawn(body).unwrap().join().unwrap();
}

/// Holds jobs until the test, a `cancel`, says what became of them; allocates only at the start.
struct Hardware {
    held: Mutex<Vec<Completion>>,
    inline: bool,
    ran: AtomicUsize,
}

impl Hardware {
    fn new(inline: bool) -> Self {
        Self { held: Mutex::new(Vec::with_capacity(16)), inline, ran: AtomicUsize::new(0) }
    }

    fn complete_one(&self, result: Result<(), FenceError>) {
        let done = self.held.lock().unwrap().pop();
        done.unwrap().complete(result);
    }
}

impl Driver for Hardware {
    type Job = Payload;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        self.ran.fetch_add(1, SeqCst);
        if self.inline {
            done.complete(Ok(()));
        } else {
            self.held.lock().unwrap().push(done);
        }
    }

    fn cancel(&self, _cx: &mut JobCx<'_, Self>) {
        self.complete_one(Err(FenceError::Canceled));
    }
}

std::thread_local! {
    static PAYLOADS_DROPPED: Cell<usize> = const { Cell::new(0) };
}

/// Costs nothing, and is counted when dropped.
#[derive(Debug)]
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        PAYLOADS_DROPPED.set(PAYLOADS_DROPPED.get() + 1);
    }
}

mod from_commit_to_retirement {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Completed,
        Inline,
        TimedOut,
        ClosedWaiting,
        ClosedRunning,
        DependencyFailed,
    }

    /// What `step` returns; it must allocate nothing.
    #[track_caller]
    fn quiet<T>(what: &impl Debug, step: impl FnOnce() -> T) -> T {
        let before = check::allocations();
        let value = step();
        let after = check::allocations();
        assert_eq!((after.allocated, after.bytes), (before.allocated, before.bytes), "{what:?} allocated");
        value
    }

    fn count_in(count: &Arc<AtomicUsize>) -> impl FnOnce(Result<(), FenceError>) + Send + 'static + use<> {
        let count = count.clone();
        move |_| {
            count.fetch_add(1, SeqCst);
        }
    }

    fn until(executor: &Executor, ms: u64) {
        let to = executor.now().after(Duration::from_millis(ms));
        while let Some(at) = executor.next_timer().filter(|at| *at <= to) {
            executor.advance_to(at);
            executor.run_until_idle();
        }
        executor.advance_to(to);
        executor.run_until_idle();
    }

    fn one_job(bypass: bool, dependencies: usize, end: End) {
        let what = (bypass, dependencies, end);
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Hardware::new(end == End::Inline)).unwrap();
        let principal = Principal::new(Charges::UNLIMITED).unwrap();
        let config = QueueConfig::new("q").bypass(bypass).principal(principal.clone());
        let queue = device.queue(config.timeout(Duration::from_millis(50)), ()).unwrap();
        let (signalers, fences): (Vec<Signaler>, Vec<Fence>) = (0..dependencies)
            .map(|_| FenceContext::new(&executor, NAMES).unwrap().allocate().unwrap().publish())
            .unzip();
        let runs = Arc::new(AtomicUsize::new(0));
        for fence in &fences {
            fence.on_signaled(count_in(&runs)).unwrap().keep();
        }
        let on_error = if end == End::DependencyFailed { OnError::Fail } else { OnError::Run };
        let named = fences.iter().map(|fence| Dependency::on(fence.clone()).on_error(on_error));
        let reserved = queue.reserve_after(Job::new(Payload).bytes(100), named).unwrap();
        let dropped = PAYLOADS_DROPPED.get();

        let job = quiet(&what, || reserved.commit());
        let all = quiet(&what, || [job.scheduled(), job.finished(), job.retired().into_fence()]);
        for fence in all.iter().filter(|fence| !fence.is_signaled()) {
            fence.on_signaled(count_in(&runs)).unwrap().keep();
        }
        let registered = Arc::strong_count(&runs) - 1;
        quiet(&what, || finish(&executor, &queue, signalers, end));
        let verdict = quiet(&what, || all[1].status());
        let expected = match end {
            End::Completed | End::Inline => Ok(()),
            End::TimedOut => Err(FenceError::TimedOut),
            End::ClosedWaiting | End::ClosedRunning => Err(FenceError::Canceled),
            End::DependencyFailed if dependencies == 0 => Ok(()),
            End::DependencyFailed => Err(FenceError::Dependency(FAULT.cause())),
        };
        assert_eq!(verdict, Status::Signaled(expected), "{what:?}");
        assert_eq!(all[2].status(), Status::Signaled(Ok(())), "{what:?}");
        assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (registered, 1), "{what:?}");
        assert_eq!(PAYLOADS_DROPPED.get(), dropped + 1, "{what:?}");
        assert_eq!(principal.charged(), Charges { jobs: 0, bytes: 0 }, "{what:?}");
        assert!(check::take_report().is_none(), "{what:?}: no violation either");
    }

    fn finish(executor: &Executor, queue: &JobQueue<Hardware>, signalers: Vec<Signaler>, end: End) {
        if end == End::ClosedWaiting {
            // With no dependency and bypass it runs already; then this is as below.
            drop(queue.close());
        }
        let result = if end == End::DependencyFailed { Err(FAULT) } else { Ok(()) };
        for signaler in signalers {
            signaler.signal(result);
        }
        executor.run_until_idle();
        let hardware = queue.device().driver();
        match end {
            End::Completed => hardware.complete_one(Ok(())),
            End::TimedOut => until(executor, 60),
            End::ClosedRunning => drop(queue.close()),
            End::Inline | End::ClosedWaiting | End::DependencyFailed => {}
        }
        executor.run_until_idle();
        if !hardware.held.lock().unwrap().is_empty() {
            hardware.complete_one(Ok(()));
            executor.run_until_idle();
        }
    }

    #[test]
    fn nothing_is_allocated() {
        check::set_reporter(false);
        let ends =
            [End::Completed, End::Inline, End::TimedOut, End::ClosedWaiting, End::ClosedRunning, End::DependencyFailed];
        for end in ends {
            for bypass in [true, false] {
                for dependencies in [0, 2, 5] {
                    one_job(bypass, dependencies, end);
                }
            }
        }
    }

    #[test]
    fn nothing_is_allocated_when_user_fences_decide() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Hardware::new(true)).unwrap();
        let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
        let deadline = || executor.now().after(Duration::from_secs(1));
        for result in [Some(Ok(())), Some(Err(FAULT)), None] {
            let (sources, users): (Vec<_>, Vec<_>) = (0..3).map(|_| UserFence::new(&executor, "host").unwrap()).unzip();
            let reserved = queue.reserve(Job::new(Payload).user_waits(3)).unwrap();
            let dropped = PAYLOADS_DROPPED.get();
            let pending = quiet(&result, || reserved.commit_when(&users, deadline()).unwrap());
            let runs = Arc::new(AtomicUsize::new(0));
            pending.done().on_signaled(count_in(&runs)).unwrap().keep();
            quiet(&result, || {
                for source in &sources {
                    result.map(|result| source.signal(result));
                }
                executor.run_until_idle();
                if result.is_none() {
                    until(&executor, 1001);
                }
            });
            let expected = match result {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(FenceError::Dependency(error.cause())),
                None => Err(FenceError::TimedOut),
            };
            assert_eq!(pending.done().status(), Status::Signaled(expected));
            assert_eq!((runs.load(SeqCst), PAYLOADS_DROPPED.get()), (1, dropped + 1));
        }
        assert!(check::take_report().is_none());
    }

    #[test]
    fn nothing_is_allocated_from_a_bare_fences_publication_to_its_signal() {
        check::set_reporter(false);
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let made: Vec<_> = (0..4).map(|_| context.allocate().unwrap()).collect();
        let runs = Arc::new(AtomicUsize::new(0));
        let mut published: Vec<(Signaler, Fence)> = Vec::with_capacity(4);
        quiet(&"publish", || published.extend(made.into_iter().map(outlive::Unpublished::publish)));
        for (_, fence) in &published {
            fence.on_signaled(count_in(&runs)).unwrap().keep();
        }
        quiet(&"signal", || {
            for (turn, (signaler, _fence)) in published.into_iter().enumerate() {
                match turn {
                    0 => signaler.signal(Ok(())),
                    1 => drop(signaler),
                    _ => core::mem::forget(signaler),
                }
            }
            executor.advance_to(Time::ZERO.after(Duration::from_secs(10)));
            executor.run_until_idle();
        });
        assert_eq!(runs.load(SeqCst), 4);
        let last = check::take_report().map(|report| report.violation);
        assert!(matches!(last, Some(check::Violation::Expired { .. })), "of those forgotten: {last:?}");
    }
}

mod when_an_allocation_fails {
    use super::*;

    /// Calls `attempt` with its first, second, ... allocation failing, until it needs no more; returns how many it needs.
    /// `attempt` says whether it succeeded. `between` checks after every failure that nothing has changed.
    fn each(what: &str, mut attempt: impl FnMut() -> bool, mut between: impl FnMut(u64)) -> u64 {
        for n in 1..100 {
            let before = alive();
            check::fail_nth_allocation(n);
            let succeeded = attempt();
            let spared = check::fail_nth_allocation(0) > 0;
            assert_eq!(succeeded, spared, "{what}: allocation {n}");
            if succeeded {
                return n - 1;
            }
            assert_eq!(alive(), before, "{what}: allocation {n} left something");
            between(n);
        }
        panic!("{what}: never succeeded")
    }

    struct Rig {
        executor: Executor,
        queue: JobQueue<Boxes>,
        principal: Principal,
    }

    struct Boxes;
    impl Driver for Boxes {
        type Job = Box<u64>;
        type Queue = ();
        fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
            done.complete(Ok(()));
        }
    }

    fn rig() -> Rig {
        let executor = Executor::manual().unwrap();
        let principal = Principal::new(Charges { jobs: 2, bytes: 1000 }).unwrap();
        let device = Device::new(&executor, Boxes).unwrap();
        let queue = device.queue(QueueConfig::new("q").principal(principal.clone()), ()).unwrap();
        Rig { executor, queue, principal }
    }

    /// Makes every allocation fail of a reservation after `dependencies` fences and with `user_waits` places; returns how
    /// many there are and how many blocks a reservation keeps.
    fn reserve_with(dependencies: usize, user_waits: u16) -> (u64, i64) {
        let what = format!("reserve after {dependencies}, {user_waits} user fences");
        let rig = rig();
        let fences: Vec<Fence> = (0..dependencies)
            .map(|_| FenceContext::new(&rig.executor, NAMES).unwrap().allocate().unwrap().publish())
            .map(|(signaler, fence)| {
                core::mem::forget(signaler);
                fence
            })
            .collect();
        let (status, charged) = (rig.queue.status(), rig.principal.charged());
        let (mut payload, mut blocks) = (Some(Box::new(77)), 0);
        let before_first = alive();
        let needed = each(
            &what,
            || {
                let job = Job::new(payload.take().unwrap()).bytes(600).user_waits(user_waits);
                match rig.queue.reserve_after(job, &fences) {
                    Ok(reserved) => {
                        blocks = alive().since(before_first).blocks;
                        assert_eq!((**reserved, rig.principal.charged().bytes), (77, 600));
                        true
                    }
                    Err(refused) => {
                        assert!(matches!(refused.kind, Refusal::OutOfMemory(_)), "{:?}", refused.kind);
                        payload = Some(refused.payload);
                        false
                    }
                }
            },
            |n| {
                assert_eq!((rig.queue.status(), rig.principal.charged()), (status, charged), "allocation {n}");
                // There would be no room for it if anything were still charged.
                let next = rig.queue.reserve(Job::new(Box::new(1)).bytes(1000)).unwrap();
                assert_eq!(**next, 1);
            },
        );
        assert_eq!((rig.queue.status(), rig.principal.charged()), (status, charged), "dropping a reservation");
        let job = rig.queue.reserve(Box::new(2)).unwrap().commit();
        assert_eq!((job.finished().seqno(), job.finished().is_signaled()), (1, true), "no hole in the numbers");
        drop(job);
        rig.executor.run_until_idle();
        assert_eq!(alive().blocks, before_first.blocks - 1, "the first payload and all else is gone");
        (needed, blocks)
    }

    #[test]
    fn reserve_changes_nothing() {
        for (dependencies, user_waits, needed, kept) in
            [(0, 0, 1, 1), (2, 0, 1, 1), (5, 0, 3, 2), (0, 2, 1, 1), (0, 3, 2, 2), (5, 3, 3, 2)]
        {
            let found = reserve_with(dependencies, user_waits);
            println!(
                "reserve after {dependencies}, {user_waits} user fences: {} allocations, {} kept",
                found.0, found.1
            );
            assert_eq!(found, (needed, kept), "after {dependencies}, {user_waits} user fences");
        }
    }

    #[test]
    fn a_bare_fence_is_not_made() {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, NAMES).unwrap();
        let needed = each("allocate", || context.allocate().is_ok(), |_| {});
        assert_eq!(needed, 1);
        let (signaler, fence) = context.allocate().unwrap().publish();
        signaler.signal(Ok(()));
        assert_eq!(fence.seqno(), 1);
    }

    #[test]
    fn a_closure_comes_back() {
        let executor = Executor::manual().unwrap();
        let (signaler, fence) = FenceContext::new(&executor, NAMES).unwrap().allocate().unwrap().publish();
        let count = Arc::new(AtomicUsize::new(0));
        let mut closure = Some({
            let count = count.clone();
            move |_: Result<(), FenceError>| {
                count.fetch_add(1, SeqCst);
            }
        });
        let needed = each(
            "on_signaled",
            || match fence.on_signaled(closure.take().unwrap()) {
                Ok(registration) => {
                    registration.keep();
                    true
                }
                Err(Refused::OutOfMemory(error, back)) => {
                    assert!(error.bytes > 0);
                    closure = Some(back);
                    false
                }
                Err(other) => panic!("{other:?}"),
            },
            |_| assert_eq!(Arc::strong_count(&count), 2),
        );
        assert_eq!(needed, 1);
        signaler.signal(Ok(()));
        executor.notify();
        assert_eq!((count.load(SeqCst), Arc::strong_count(&count)), (1, 1));
    }

    #[test]
    fn a_device_is_not_made() {
        struct Watched(#[expect(dead_code, reason = "held until it is dropped")] Arc<()>);
        impl Driver for Watched {
            type Job = ();
            type Queue = ();
            fn run(&self, _cx: &mut JobCx<'_, Self>, _done: Completion) {}
        }
        let driver = Arc::new(());
        let before = alive();
        let executor = Executor::manual().unwrap();
        let needed = each(
            "Device::new",
            || match Device::new(&executor, Watched(driver.clone())) {
                Ok(_) => true,
                Err(OpenError::OutOfMemory(_)) => {
                    // What was made before is an object: the reaper's.
                    executor.run_until_idle();
                    false
                }
                Err(other) => panic!("{other:?}"),
            },
            |_| assert_eq!(Arc::strong_count(&driver), 1, "the driver it was given is gone"),
        );
        assert!(needed > 1);
        executor.run_until_idle();
        drop(executor);
        assert_eq!(Arc::strong_count(&driver), 1);
        assert_eq!(alive(), before, "the failed ones were not counted as alive");
        println!("Device::new: {needed} allocations");
    }

    #[test]
    fn a_queue_is_not_made() {
        let before = alive();
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Boxes).unwrap();
        let needed = each(
            "Device::queue",
            || match device.queue(QueueConfig::new("q"), ()) {
                Ok(_) => true,
                Err(OpenError::OutOfMemory(_)) => {
                    // What was made before is an object: the reaper's.
                    executor.run_until_idle();
                    false
                }
                Err(other) => panic!("{other:?}"),
            },
            |_| {},
        );
        assert!(needed > 1);
        let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
        assert!(queue.reserve(Box::new(1)).unwrap().commit().finished().is_signaled());
        let gone = device.drained();
        drop((queue, device));
        executor.run_until_idle();
        assert!(gone.is_drained());
        drop((gone, executor));
        assert_eq!(alive(), before, "nor kept by the device");
        println!("Device::queue: {needed} allocations");
    }

    #[test]
    fn a_timer_is_not_made_when_the_timers_have_to_grow() {
        const CONTEXTS: usize = 40;
        let executor = Executor::manual().unwrap();
        let mut contexts: Vec<FenceContext> = Vec::with_capacity(CONTEXTS);
        let mut needed = [0; CONTEXTS];
        for needed in &mut needed {
            let attempt = || FenceContext::new(&executor, NAMES).map(|context| contexts.push(context)).is_ok();
            *needed = each("context", attempt, |_| {});
        }
        assert!(needed[1..].iter().any(|n| *n != needed[1]), "they did have to grow: {needed:?}");
        let (signaler, fence) = contexts[CONTEXTS - 1].allocate().unwrap().publish();
        core::mem::forget(signaler);
        assert_eq!(executor.wait(&fence, Duration::MAX), Err(WaitError::Failed(FenceError::TimedOut)));
    }

    #[test]
    fn nothing_else_is_made_either() {
        struct Ear;
        impl Producer for Ear {}
        struct Recorder(#[expect(dead_code, reason = "so that it needs memory")] u64);
        impl Record for Recorder {
            fn record(&self, _at: Time, _event: Event) {}
        }
        let executor = Executor::manual().unwrap();
        drop(FenceContext::new(&executor, NAMES).unwrap());
        executor.run_until_idle();
        let done = |what: &str, needed: u64| println!("{what}: {needed} allocations");
        done("Executor::manual", each("executor", || Executor::manual().is_ok(), |_| {}));
        done("recorder", each("recorder", || Executor::builder().recorder(Recorder(0)).is_ok(), |_| {}));
        done("FenceContext::new", each("context", || FenceContext::new(&executor, NAMES).is_ok(), |_| {}));
        done("UserFence::new", each("user fence", || UserFence::new(&executor, "host").is_ok(), |_| {}));
        done("Hook::try_new", each("hook", || Hook::try_new(&executor, Ear).is_ok(), |_| {}));
        done("Principal::new", each("principal", || Principal::new(Charges::UNLIMITED).is_ok(), |_| {}));
        done("InFlight", each("in-flight map", || InFlight::with_capacity(64).is_ok(), |_| {}));
    }

    #[test]
    fn a_wait_on_several_says_so() {
        let executor = Executor::builder().threads().unwrap();
        let made = || FenceContext::new(&executor, NAMES).unwrap().allocate().unwrap().publish();
        let ((first, a), (second, b)) = (made(), made());
        let all = [a, b];
        check::fail_nth_allocation(1);
        let answer = Fence::wait_any(&all, Duration::from_secs(30));
        assert_eq!(check::fail_nth_allocation(0), 0);
        assert!(matches!(answer, Err(WaitError::OutOfMemory(_))), "{answer:?}");
        first.signal(Ok(()));
        second.signal(Ok(()));
    }
}

/// `length` jobs over `queues` queues, each after the one before; the first one is on the hardware, the others wait.
/// Returns what is kept of them.
fn chain<T>(
    queues: &[JobQueue<Hardware>],
    length: usize,
    on_error: OnError,
    kept: &mut Vec<T>,
    keep: impl Fn(JobFences) -> T,
) {
    let mut last: Option<Fence> = None;
    for at in 0..length {
        let queue = &queues[at % queues.len()];
        let after = last.take().map(|fence| Dependency::on(fence).on_error(on_error));
        let job = queue.reserve_after(Payload, after).unwrap().commit();
        last = Some(job.finished());
        kept.push(keep(job));
    }
}

fn queues_of(device: &Device<Hardware>, count: usize) -> Vec<JobQueue<Hardware>> {
    (0..count).map(|_| device.queue(QueueConfig::new("chain"), ()).unwrap()).collect()
}

mod dead_fences {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Order {
        Forward,
        Backward,
        Shuffled,
    }

    fn drop_in(order: Order, mut fences: Vec<Option<Fence>>) {
        let length = fences.len();
        match order {
            Order::Forward => drop(fences),
            Order::Backward => while fences.pop().is_some() {},
            Order::Shuffled => {
                // A step without a common divisor with the length visits all.
                let step = 7_919;
                assert!(length % step != 0);
                for turn in 0..length {
                    let taken = fences[turn * step % length].take();
                    assert!(taken.is_some());
                }
            }
        }
    }

    /// Keeps the `finished` of a chain over `queues`, and nothing else, and drops them in `order`.
    fn of_a_chain(queues: usize, order: Order) {
        let before = alive();
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Hardware::new(false)).unwrap();
        let made = queues_of(&device, queues);
        let mut kept: Vec<Option<Fence>> = Vec::with_capacity(CHAIN);
        let (start, dropped, counted) = (alive(), PAYLOADS_DROPPED.get(), check::allocations());
        chain(&made, CHAIN, OnError::Run, &mut kept, |job| Some(job.finished()));
        let per_job = check::allocations().allocated - counted.allocated;
        assert_eq!(alive().since(start).blocks, CHAIN as i64, "one block each");
        if queues == 1 {
            assert_eq!(per_job, CHAIN as u64, "and not even a passing allocation");
        }
        // The first has been held back so that all of them really waited.
        assert_eq!(device.driver().ran.load(SeqCst), 1);
        let hardware = device.driver();
        while hardware.ran.load(SeqCst) < CHAIN {
            hardware.complete_one(Ok(()));
            executor.run_until_idle();
        }
        hardware.complete_one(Ok(()));
        executor.run_until_idle();
        assert!(kept.iter().flatten().all(|fence| fence.status() == Status::Signaled(Ok(()))));
        assert_eq!(PAYLOADS_DROPPED.get(), dropped + CHAIN, "every payload is gone");
        let dead = alive().since(start);
        assert_eq!(dead, Alive { blocks: CHAIN as i64, bytes: (CHAIN * JOB_BYTES) as i64 }, "nothing else is alive");
        let bytes_each = dead.bytes / CHAIN as i64;
        assert!(bytes_each <= 320);

        let gone = device.drained();
        drop(made);
        drop(device);
        executor.run_until_idle();
        assert!(gone.is_drained(), "a million of its fences keep no device");
        drop((gone, executor));
        let (blocks, names) = (alive().since(before).blocks, 3 * queues as i64 + 1);
        assert_eq!(blocks, CHAIN as i64 + 1 + names, "the fences, their list, the queues' names and numbers");
        drop_in(order, kept);
        assert_eq!(alive(), before);
        println!(
            "{queues} queues, {order:?}: {bytes_each} bytes per dead fence, {per_job} allocations for {CHAIN} jobs"
        );
    }

    #[test]
    fn of_one_queue_are_small_and_keep_nothing() {
        on_a_small_stack(|| of_a_chain(1, Order::Forward));
    }

    #[test]
    fn of_several_queues_are_small_and_keep_nothing() {
        on_a_small_stack(|| of_a_chain(4, Order::Backward));
    }

    #[test]
    fn go_in_any_order() {
        on_a_small_stack(|| of_a_chain(3, Order::Shuffled));
    }
}

mod a_chain_that_fails_at_its_root {
    use super::*;

    fn fails(queues: usize, root: FenceError) {
        let before = alive();
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Hardware::new(false)).unwrap();
        let made = queues_of(&device, queues);
        let mut kept: Vec<JobFences> = Vec::with_capacity(CHAIN);
        chain(&made, CHAIN, OnError::Fail, &mut kept, |job| job);
        device.driver().complete_one(Err(root));
        executor.run_until_idle();
        assert_eq!(device.driver().ran.load(SeqCst), 1, "nothing after the root ran");
        let caused = Status::Signaled(Err(FenceError::Dependency(root.cause())));
        for (at, job) in kept.iter().enumerate() {
            let own = if at == 0 { Status::Signaled(Err(root)) } else { caused };
            assert_eq!(job.finished().status(), own, "job {at}");
            assert_eq!(job.scheduled().status(), if at == 0 { Status::Signaled(Ok(())) } else { caused });
            assert_eq!(job.retired().status(), Status::Signaled(Ok(())), "its memory is free");
        }
        for queue in &made {
            let status = queue.status();
            assert_eq!((status.unfinished, status.unreaped), (0, 0));
        }
        drop(made);
        drop(device);
        executor.run_until_idle();
        drop(executor);
        drop(kept);
        assert_eq!(alive(), before);
    }

    #[test]
    fn over_several_queues_fails_with_the_roots_cause_on_a_small_stack() {
        assert_eq!(FAULT.cause(), Cause::Faulted { code: 7 });
        on_a_small_stack(|| fails(4, FAULT));
    }

    #[test]
    fn on_one_queue_fails_with_the_roots_cause_on_a_small_stack() {
        on_a_small_stack(|| fails(1, FenceError::Dependency(Cause::DeviceLost)));
    }
}
