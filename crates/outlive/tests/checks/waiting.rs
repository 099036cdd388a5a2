//! Waiting in a signalling section or a callback.

use super::*;

#[test]
fn in_a_section_is_refused_and_reported_with_both_places() {
    check::set_reporter(false);
    let executor = Executor::builder().threads().unwrap();
    let (_signaler, fence) = bare(&executor);
    let from = here();
    let section = check::signalling();
    assert_eq!(fence.wait(LONG), Err(WaitError::InSignallingSection));
    assert!(check::take_report().is_none());
    drop(section);
    let report = reported();
    assert_eq!(report.violation, Violation::Waited);
    assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 2), "{report}");
    assert!(says(&report, "waited for a fence; a signalling path may only arm callbacks"));
}

#[test]
fn of_any_kind_is_refused() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (_signaler, fence) = bare(&executor);
    let all = [fence.clone()];
    let refused = Err(WaitError::InSignallingSection);
    for wait in [0, 1, 2] {
        let section = check::signalling();
        let answer = match wait {
            0 => Fence::wait_any(&all, LONG).map(drop),
            1 => Fence::wait_all(&all, LONG),
            _ => executor.wait(&fence, LONG),
        };
        drop(section);
        assert_eq!(answer, refused);
        let report = reported();
        assert_eq!((report.violation, report.at.file()), (Violation::Waited, file!()), "wait {wait}");
    }
}

#[test]
fn for_what_has_signaled_is_no_wait() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = bare(&executor);
    signaler.signal(Ok(()));
    let section = check::signalling();
    assert_eq!(fence.wait(LONG), Ok(()));
    drop(section);
    assert!(check::take_report().is_none());
}

#[test]
fn in_a_callback_is_refused_and_reported_at_once() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = bare(&executor);
    let (_pending, other) = bare(&executor);
    let from = here();
    let closure = move |_| {
        assert_eq!(other.wait(LONG), Err(WaitError::InCallback));
        let report = reported();
        assert_eq!((report.violation, report.section), (Violation::WaitedInCallback, report.at));
        assert!(is_after(&report.at, from, 2), "{report}");
        assert!(says(&report, "waited for a fence in a callback; register another callback instead"));
    };
    fence.on_signaled(closure).unwrap().keep();
    signaler.signal(Ok(()));
    assert!(executor.notify());
}

#[test]
fn in_a_section_inside_a_callback_is_the_sections() {
    check::set_reporter(false);
    let executor = Executor::manual().unwrap();
    let (signaler, fence) = bare(&executor);
    let (_pending, other) = bare(&executor);
    let closure = move |_| {
        let section = check::signalling();
        assert_eq!(other.wait(LONG), Err(WaitError::InSignallingSection));
        drop(section);
        assert_eq!(reported().violation, Violation::Waited);
    };
    fence.on_signaled(closure).unwrap().keep();
    signaler.signal(Ok(()));
    assert!(executor.notify());
}

#[test]
fn is_allowed_again_after_the_section_and_after_the_callback() {
    check::set_reporter(false);
    let executor = Executor::builder().threads().unwrap();
    let (_signaler, fence) = bare(&executor);
    drop(check::signalling());
    let driven = Executor::manual().unwrap();
    let (signaler, other) = bare(&driven);
    other.on_signaled(|_| {}).unwrap().keep();
    signaler.signal(Ok(()));
    assert!(driven.notify());
    assert_eq!(fence.wait(Duration::from_millis(1)), Err(WaitError::TimedOut));
    assert!(check::take_report().is_none());
}
