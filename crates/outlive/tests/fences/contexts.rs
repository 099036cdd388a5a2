//! Contexts: order, numbers, watchdogs, and producers that let go.

use super::*;

/// Remembers whose watchdog expired, and how often anything signaled.
#[derive(Clone, Default)]
struct Log {
    expired: Arc<Mutex<Vec<(Time, u64, u64)>>>,
    signaled: Arc<AtomicU64>,
}

impl Record for Log {
    fn record(&self, at: Time, event: Event) {
        match event {
            Event::WatchdogExpired { fence } => self.expired.lock().unwrap().push((at, fence.context, fence.seqno)),
            Event::FenceSignaled { .. } => drop(self.signaled.fetch_add(1, SeqCst)),
            _ => {}
        }
    }
}

fn recorded() -> (Executor, Log) {
    let log = Log::default();
    (Executor::builder().recorder(log.clone()).unwrap().manual().unwrap(), log)
}

#[test]
fn hold_a_signal_out_of_turn_until_its_turn() {
    let executor = manual();
    let context = context_on(&executor);
    let ((s1, f1), (s2, f2), (s3, f3)) = (bare(&context), bare(&context), bare(&context));
    let (s4, f4) = bare(&context);
    let order = Arc::new(Mutex::new(Vec::new()));
    for fence in [&f4, &f2, &f1, &f3] {
        let (order, seqno) = (order.clone(), fence.seqno());
        // Harmless: a push under a lock that only this thread takes.
        on_signal(fence, move |_| order.lock().unwrap().push(seqno)).keep();
    }
    executor.advance_to(seconds(1));
    s3.signal(Err(FAULT));
    s2.signal(Ok(()));
    assert!([&f1, &f2, &f3].iter().all(|fence| fence.status() == Status::Pending));
    assert!(f2.timestamp().is_none());
    executor.advance_to(seconds(2));
    s1.signal(Ok(()));
    assert!(is_ok(&f1) && is_ok(&f2));
    assert_eq!(error_of(&f3), Some(FAULT));
    assert_eq!(f4.status(), Status::Pending);
    s4.signal(Ok(()));
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4]);
    let stamps = [f1, f2, f3, f4].map(|fence| fence.timestamp().unwrap());
    assert_eq!(stamps, [seconds(2), seconds(1), seconds(1), seconds(2)], "when its producer was done");
}

#[test]
fn do_not_hold_each_other_up() {
    let executor = manual();
    let (_pending, _first) = alone(&executor);
    let (signaler, fence) = alone(&executor);
    signaler.signal(Ok(()));
    assert!(is_ok(&fence));
}

#[test]
fn cancel_what_a_dropped_signaler_promised() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    assert_eq!(signaler.fence(), Some(&fence));
    executor.advance_to(seconds(1));
    drop(signaler);
    assert_eq!(error_of(&fence), Some(FenceError::Canceled));
    assert_eq!(fence.timestamp(), Some(seconds(1)));
}

#[test]
fn cancel_what_a_panicking_producer_promised() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(move || {
        let _duty = signaler;
        panic!("on purpose");
    }));
    assert!(caught.is_err());
    assert_eq!(error_of(&fence), Some(FenceError::Canceled));
}

#[test]
fn fail_what_a_forgotten_signaler_promised_after_ten_seconds() {
    let (executor, log) = recorded();
    let context = context_on(&executor);
    let (signaler, fence) = bare(&context);
    core::mem::forget(signaler);
    assert_eq!(WATCHDOG_DEFAULT, Duration::from_secs(10));
    assert_eq!(executor.next_timer(), Some(seconds(10)));
    executor.advance_to(Time::from_ns(9_999_999_999));
    executor.run_until_idle();
    assert_eq!(fence.status(), Status::Pending);
    executor.advance_to(seconds(10));
    assert_eq!(fence.status(), Status::Pending, "the lane has not run");
    assert!(executor.step());
    assert_eq!(error_of(&fence), Some(FenceError::TimedOut));
    assert_eq!(fence.timestamp(), Some(seconds(10)));
    assert_eq!(*log.expired.lock().unwrap(), [(seconds(10), context.id(), 1)]);
    executor.run_until_idle();
    assert_eq!(executor.next_timer(), None);
}

#[test]
fn give_each_producer_its_own_ten_seconds_and_let_later_ones_through() {
    let (executor, log) = recorded();
    let context = context_on(&executor);
    let (forgotten, f1) = bare(&context);
    core::mem::forget(forgotten);
    let (s2, f2) = bare(&context);
    executor.advance_to(seconds(4));
    s2.signal(Ok(()));
    let (forgotten, f3) = bare(&context);
    core::mem::forget(forgotten);
    assert_eq!(executor.wait(&f3, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
    assert_eq!(executor.now(), seconds(14));
    assert_eq!((error_of(&f1), f1.timestamp()), (Some(FenceError::TimedOut), Some(seconds(10))));
    assert!(is_ok(&f2));
    assert_eq!(f2.timestamp(), Some(seconds(4)));
    let id = context.id();
    assert_eq!(*log.expired.lock().unwrap(), [(seconds(10), id, 1), (seconds(14), id, 3)]);
}

#[test]
fn may_be_stricter_than_the_default_but_not_laxer() {
    let executor = manual();
    let names = Names { driver: "d", timeline: "t" };
    for (asked, given) in [(1, 1), (3600, 10)] {
        let context = FenceContext::with_watchdog(&executor, names, Duration::from_secs(asked)).unwrap();
        let (signaler, fence) = bare(&context);
        core::mem::forget(signaler);
        let from = executor.now();
        assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
        assert_eq!(executor.now().since(from), Duration::from_secs(given));
    }
}

#[test]
fn do_not_report_producers_that_were_in_time() {
    let (executor, log) = recorded();
    let context = context_on(&executor);
    for _ in 0..3 {
        let (signaler, _fence) = bare(&context);
        executor.advance_to(executor.now().after(Duration::from_secs(9)));
        executor.run_until_idle();
        signaler.signal(Ok(()));
    }
    executor.advance_to(seconds(100));
    executor.run_until_idle();
    assert!(log.expired.lock().unwrap().is_empty());
    assert_eq!(log.signaled.load(SeqCst), 3);
}

#[test]
fn ignore_a_signal_after_the_watchdog() {
    let (executor, log) = recorded();
    let (signaler, fence) = alone(&executor);
    executor.advance_to(seconds(10));
    executor.step();
    let (at, seen) = (fence.timestamp(), log.signaled.load(SeqCst));
    assert_eq!((error_of(&fence), at), (Some(FenceError::TimedOut), Some(seconds(10))));
    executor.advance_to(seconds(11));
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert_eq!((error_of(&fence), fence.timestamp()), (Some(FenceError::TimedOut), at));
    assert_eq!(log.signaled.load(SeqCst), seen, "no second signal");
}

#[test]
fn survive_a_signal_from_inside_the_fences_own_callback() {
    let executor = manual();
    for inline in [true, false] {
        let context = context_on(&executor);
        let (signaler, fence) = bare(&context);
        let (next, after) = bare(&context);
        let runs = Arc::new(AtomicUsize::new(0));
        let count = counting(&runs);
        // Harmless, also inline: signalling neither allocates nor blocks.
        let closure = move |result| {
            signaler.signal(Ok(()));
            count(result);
        };
        if inline {
            on_signal(&fence, closure).keep();
        } else {
            fence.on_signaled(closure).unwrap().keep();
        }
        next.signal(Ok(()));
        executor.advance_to(executor.now().after(WATCHDOG_DEFAULT));
        executor.run_until_idle();
        assert_eq!(error_of(&fence), Some(FenceError::TimedOut), "the watchdog was first");
        assert!(is_ok(&after));
        assert_eq!(runs.load(SeqCst), 1);
    }
}

#[test]
fn survive_a_signaler_dropped_with_the_closure_that_waits_for_it() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let registration = fence.on_signaled(move |_| drop(signaler)).unwrap();
    drop(registration);
    assert_eq!(error_of(&fence), Some(FenceError::Canceled));
}

#[test]
fn do_not_recurse_through_inline_closures() {
    const LENGTH: usize = 50_000;
    let executor = manual();
    let context = context_on(&executor);
    let fences: Vec<_> = (0..LENGTH).map(|_| bare(&context)).collect();
    let mut all = Vec::with_capacity(LENGTH);
    let mut behind: Option<Signaler> = None;
    for (signaler, fence) in fences.into_iter().rev() {
        if let Some(next) = behind.replace(signaler) {
            // Harmless: signalling neither allocates nor blocks.
            on_signal(&fence, move |result| next.signal(result)).keep();
        }
        all.push(fence);
    }
    let first = behind.unwrap();
    let small = thread::Builder::new().stack_size(128 << 10);
    small.spawn(move || first.signal(Err(FAULT))).unwrap().join().unwrap();
    assert!(all.iter().all(|fence| error_of(fence) == Some(FAULT)));
}

#[test]
fn number_what_is_published_without_holes() {
    let executor = manual();
    let context = context_on(&executor);
    let (s1, f1) = bare(&context);
    let late = context.allocate().unwrap();
    drop(context.allocate().unwrap());
    let (s2, f2) = bare(&context);
    drop(context.allocate().unwrap());
    let (s3, f3) = late.publish();
    assert_eq!([&f1, &f2, &f3].map(Fence::seqno), [1, 2, 3], "by publication, not by allocation");
    assert!([&f1, &f2, &f3].iter().all(|fence| fence.context() == context.id()));
    assert_eq!((f2.is_later_than(&f1), f1.is_later_than(&f2)), (Some(true), Some(false)));
    assert_eq!(f1.is_later_than(&alone(&executor).1), None);
    for signaler in [s1, s2, s3] {
        signaler.signal(Ok(()));
    }
    assert!(is_ok(&f3), "nothing that was dropped is waited for");
}

#[test]
fn are_numbered_once_for_ever() {
    let executor = manual();
    let mut last = 0;
    for _ in 0..100 {
        let context = context_on(&executor);
        assert!(context.id() > last);
        last = context.id();
        drop(context);
        executor.run_until_idle();
    }
}

#[test]
fn leave_everything_readable_when_they_are_gone() {
    let executor = manual();
    let names = Names { driver: "gpu0", timeline: "vblank" };
    let context = FenceContext::new(&executor, names).unwrap();
    let id = context.id();
    let ((good, ok), (bad, failed)) = (bare(&context), bare(&context));
    drop(context);
    executor.advance_to(seconds(3));
    good.signal(Ok(()));
    bad.signal(Err(FenceError::Dependency(FAULT.cause())));
    executor.run_until_idle();
    drop(executor);
    for (seqno, fence) in [(1, &ok), (2, &failed)] {
        assert_eq!((fence.context(), fence.seqno(), fence.client()), (id, seqno, 0));
        assert_eq!(fence.id().to_string(), format!("{id}:{seqno}"));
        assert_eq!((fence.driver_name(), fence.timeline_name()), ("gpu0", "vblank"));
        assert_eq!(fence.timestamp(), Some(seconds(3)));
        assert!(fence.is_signaled() && fence.callbacks_done());
    }
    assert!(is_ok(&ok));
    assert_eq!(error_of(&failed).map(FenceError::cause), Some(FAULT.cause()));
    assert_eq!(failed.wait(LONG), Err(WaitError::Failed(FenceError::Dependency(FAULT.cause()))));
}

#[test]
fn dropped_before_their_fences_still_watch_them() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    executor.run_until_idle();
    let (kept, other) = alone(&executor);
    core::mem::forget(signaler);
    assert_eq!(executor.wait(&fence, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
    kept.signal(Ok(()));
    assert_eq!(error_of(&other), Some(FenceError::TimedOut), "its watchdog ran out at the same time");
}

#[test]
fn take_the_hardwares_time() {
    let executor = manual();
    let context = context_on(&executor);
    let ((s1, f1), (s2, f2)) = (bare(&context), bare(&context));
    executor.advance_to(seconds(9));
    s2.signal_at(Err(FAULT), Time::from_ns(7));
    s1.signal_at(Ok(()), Time::from_ns(5));
    assert_eq!([f1.timestamp(), f2.timestamp()], [Some(Time::from_ns(5)), Some(Time::from_ns(7))]);
}

/// A predecessor is being signaled elsewhere when the next one is decided and its watchdog looks: the one after
/// that must not lose its own watchdog.
#[test]
fn keep_watching_when_the_watchdog_meets_a_signal_under_way() {
    let executor = manual();
    let context = context_on(&executor);
    let ((s1, f1), (s2, f2)) = (bare(&context), bare(&context));
    executor.advance_to(seconds(5));
    let (s3, f3) = bare(&context);
    core::mem::forget(s3);
    let ((began, has_begun), (end, may_end)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    // Not harmless: it holds the signal up for as long as the test needs to get in between.
    on_signal(&f1, move |_| {
        began.send(()).unwrap();
        may_end.recv().unwrap();
    })
    .keep();
    thread::scope(|scope| {
        let signalling = scope.spawn(|| s1.signal(Ok(())));
        has_begun.recv().unwrap();
        s2.signal(Ok(()));
        executor.advance_to(seconds(10));
        executor.step();
        end.send(()).unwrap();
        signalling.join().unwrap();
    });
    assert!(is_ok(&f1) && is_ok(&f2));
    assert_eq!(f3.status(), Status::Pending);
    assert_eq!(executor.wait(&f3, LONG), Err(WaitError::Failed(FenceError::TimedOut)));
    assert_eq!(executor.now(), seconds(15));
}
