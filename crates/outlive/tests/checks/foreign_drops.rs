//! Payloads and drivers dropped where they must not be.

use super::*;

#[test]
fn of_a_payload_in_a_section_are_reported_with_the_section() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let queue = queue_on(&executor);
    let reserved = queue.reserve(Box::new(1)).unwrap();
    let from = here();
    let section = check::signalling();
    drop(reserved);
    assert!(check::take_report().is_none());
    drop(section);
    let report = reported();
    assert_eq!(report.violation, Violation::ForeignDrop);
    assert!(is_after(&report.section, from, 1), "{report}");
    assert!(report.at.file().ends_with("queue/submit.rs"), "a `Drop` is not told its caller: {report}");
    assert!(says(&report, "dropped a foreign value; leave it to the reaper"));
}

#[test]
fn of_a_closure_in_a_section_are_reported_with_the_section() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (_signaler, fence) = bare(&executor);
    let boxed = Box::new(1);
    let registration = fence.on_signaled(move |_| drop(boxed)).unwrap();
    let from = here();
    let section = check::signalling();
    drop(registration);
    drop(section);
    let report = reported();
    assert_eq!(report.violation, Violation::ForeignDrop);
    assert!(is_after(&report.section, from, 1), "{report}");
}

#[test]
fn of_retired_payloads_wait_for_the_reaper_and_are_not_reported() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let queue = queue_on(&executor);
    let job = queue.reserve(Box::new(1)).unwrap().commit();
    assert!(job.retired().is_signaled());
    executor.run_until_idle();
    let gone = queue.device().drained();
    drop(queue);
    executor.run_until_idle();
    assert!(gone.is_drained());
    assert!(check::take_report().is_none());
}
