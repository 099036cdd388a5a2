//! From commit to retirement nothing allocates, however a job ends.

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
    let (signalers, fences): (Vec<Signaler>, Vec<Fence>) =
        (0..dependencies).map(|_| FenceContext::new(&executor, NAMES).unwrap().allocate().unwrap().publish()).unzip();
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
