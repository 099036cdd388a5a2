//! The lock checks exist with debug assertions; without them a lock costs nothing more.

use super::*;

#[test]
fn of_a_class_for_waiters_are_reported_in_a_section() {
    check::set_reporter(false);
    let lock: Lock<Outer, u32> = Lock::new(7);
    let from = here();
    let section = check::signalling();
    assert_eq!(*lock.lock(), 7);
    assert!(check::take_report().is_none());
    drop(section);
    let report = reported();
    assert_eq!(report.violation, Violation::WrongLock { class: "outer".into() });
    assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 2), "{report}");
    assert!(says(&report, "took lock `outer`, which a waiter may hold"));
}

#[test]
fn of_a_class_for_signalling_may_be_taken_anywhere() {
    check::set_reporter(false);
    let lock: Lock<Inner, u32> = Lock::new(7);
    *lock.lock() += 1;
    let section = check::signalling();
    *lock.lock() += 1;
    drop(section);
    assert_eq!(*lock.lock(), 9);
    assert!(check::take_report().is_none());
}

#[test]
fn of_a_class_for_waiters_may_be_taken_outside_sections() {
    check::set_reporter(false);
    let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
    let held = outer.lock();
    drop(inner.lock());
    let section = check::signalling();
    drop(inner.lock());
    drop(section);
    drop(held);
    assert!(check::take_report().is_none());
}

#[test]
fn taken_against_the_order_are_reported_at_once_outside_sections() {
    check::set_reporter(false);
    let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
    let held = inner.lock();
    let from = here();
    drop(outer.lock());
    let report = reported();
    drop(held);
    assert_eq!(report.violation, Violation::LockOrder { taken: "outer".into(), held: "inner".into() });
    assert!(is_after(&report.at, from, 1), "{report}");
    assert_eq!(report.section, report.at);
    assert!(says(&report, "took lock `outer` while holding `inner`; take it first"));
}

#[test]
fn taken_against_the_order_in_a_section_are_reported_at_its_end() {
    check::set_reporter(false);
    let (a, b): (Lock<Inner, ()>, Lock<Twin, ()>) = (Lock::new(()), Lock::new(()));
    let from = here();
    let section = check::signalling();
    let first = a.lock();
    drop(b.lock());
    drop(first);
    assert!(check::take_report().is_none());
    drop(section);
    let report = reported();
    assert_eq!(
        report.violation,
        Violation::LockOrder { taken: "twin".into(), held: "inner".into() },
        "of one rank, either way"
    );
    assert!(is_after(&report.section, from, 1) && is_after(&report.at, from, 3), "{report}");
}

#[test]
fn of_one_class_do_not_nest() {
    check::set_reporter(false);
    let (a, b): (Lock<Inner, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
    let first = a.lock();
    drop(b.lock());
    drop(first);
    assert_eq!(reported().violation, Violation::LockOrder { taken: "inner".into(), held: "inner".into() });
}

#[test]
fn may_be_let_go_in_any_order() {
    check::set_reporter(false);
    let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
    let (first, second) = (outer.lock(), inner.lock());
    drop(first);
    // Still held, and known to be.
    drop(outer.lock());
    assert_eq!(reported().violation, Violation::LockOrder { taken: "outer".into(), held: "inner".into() });
    drop(second);
    drop(outer.lock());
    assert!(check::take_report().is_none());
}

#[test]
fn of_another_thread_are_not_held_here() {
    check::set_reporter(false);
    let (outer, inner): (Lock<Outer, ()>, Lock<Inner, ()>) = (Lock::new(()), Lock::new(()));
    let (held, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            held.wait();
            drop(outer.lock());
            assert!(check::take_report().is_none());
            done.wait();
        });
        let guard = inner.lock();
        held.wait();
        done.wait();
        drop(guard);
    });
    assert!(check::take_report().is_none());
}

#[test]
fn of_the_library_are_all_for_signalling_and_in_the_order_of_their_list() {
    use outlive::sync::class;
    macro_rules! check_list {
        ($($name:ident),*) => {
            let classes = [$((class::$name::NAME, class::$name::RANK, class::$name::SIGNALLING)),*];
            assert!(classes.is_sorted_by(|a, b| a.1 < b.1), "{classes:?}");
            assert!(classes.iter().all(|class| class.2 && (1000..2000).contains(&class.1)));
        };
    }
    check_list!(DeviceState, QueueState, ContextState, InFlightSlots, FenceWaiters, TimerTree, LaneQueue, Orphans);
}
