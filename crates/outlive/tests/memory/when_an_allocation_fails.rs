//! Every allocation is made to fail in turn: the call says so, and everything is as it was.

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
        println!("reserve after {dependencies}, {user_waits} user fences: {} allocations, {} kept", found.0, found.1);
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
