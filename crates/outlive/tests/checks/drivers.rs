//! What drivers do in `run`.

use super::*;

/// Runs one job whose `run` does `what`, through the submitter or the lane.
fn run(what: fn(), bypass: bool) -> Option<Report> {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let device = Device::new(&executor, Fake::default()).unwrap();
    *device.driver().run.lock().unwrap() = Some(what);
    let queue = device.queue(QueueConfig::new("q").bypass(bypass), ()).unwrap();
    let reserved = queue.reserve(Box::new(1)).unwrap();
    let job = reserved.commit();
    executor.step();
    assert!(job.finished().is_signaled());
    check::take_report()
}

#[test]
fn that_allocate_in_run_are_reported() {
    for bypass in [true, false] {
        let report = run(|| drop(black_box(Box::new([0_u8; 55]))), bypass).unwrap();
        assert_eq!(report.violation, Violation::Allocated { bytes: 55 });
        assert!(report.section.file().contains("queue"), "the library's own section: {report}");
    }
}

#[test]
fn that_wait_in_run_are_reported_by_their_own_line() {
    static LINE: Mutex<u32> = Mutex::new(0);
    static PENDING: Mutex<Option<Fence>> = Mutex::new(None);
    let executor = Executor::manual().unwrap();
    let (_signaler, fence) = bare(&executor);
    *PENDING.lock().unwrap() = Some(fence);
    for bypass in [true, false] {
        let waits = || {
            let fence = PENDING.lock().unwrap().clone().unwrap();
            *LINE.lock().unwrap() = line!() + 1;
            assert_eq!(fence.wait(LONG), Err(WaitError::InSignallingSection));
        };
        let report = run(waits, bypass).unwrap();
        assert_eq!(report.violation, Violation::Waited);
        assert_eq!((report.at.file(), report.at.line()), (file!(), *LINE.lock().unwrap()));
    }
}

#[cfg(debug_assertions)]
#[test]
fn that_take_a_waiters_lock_in_run_are_reported_by_their_own_line() {
    static LOCK: Lock<Outer, ()> = Lock::new(());
    let line = line!() + 1;
    let report = run(|| drop(LOCK.lock()), true).unwrap();
    assert_eq!(report.violation, Violation::WrongLock { class: "outer".into() });
    assert_eq!((report.at.file(), report.at.line()), (file!(), line));
}

#[test]
fn that_keep_the_rules_are_not_reported() {
    for bypass in [true, false] {
        assert!(run(|| {}, bypass).is_none());
    }
}
