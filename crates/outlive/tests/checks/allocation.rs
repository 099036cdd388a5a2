//! Allocating and freeing in a signalling section.

use super::*;

#[test]
fn in_a_section_is_reported_at_its_end_with_both_places() {
    check::set_reporter(false);
    let before = check::reports();
    let from = here();
    let section = check::signalling();
    drop(black_box(Box::new([0_u8; 100])));
    assert!(check::take_report().is_none(), "the culprit is not interrupted");
    drop(section);
    assert!(check::reports() > before);
    let report = reported();
    assert_eq!(report.violation, Violation::Allocated { bytes: 100 });
    assert!(is_after(&report.at, from, 1) && is_after(&report.section, from, 1), "{report}");
    assert!(says(&report, "allocated 100 bytes; reserve them before the fence is published"));
}

#[test]
fn in_a_nested_section_is_reported_once_at_the_outermost_end() {
    check::set_reporter(false);
    let from = here();
    let outer = check::signalling();
    let middle = check::signalling();
    let inner = check::signalling();
    drop(black_box(Box::new(0_u64)));
    drop(inner);
    assert!(check::take_report().is_none());
    drop(black_box(Box::new([0_u64; 4])));
    drop(middle);
    assert!(check::take_report().is_none());
    drop(outer);
    let report = reported();
    assert_eq!(report.violation, Violation::Allocated { bytes: 8 }, "the first of them");
    assert!(is_after(&report.section, from, 1), "the outermost: {report}");
    assert!(is_after(&report.at, from, 3), "the innermost mark before it: {report}");
}

#[test]
fn that_grows_something_is_one_too() {
    check::set_reporter(false);
    let mut vec: Vec<u64> = Vec::with_capacity(1);
    let section = check::signalling();
    vec.reserve_exact(3);
    drop(section);
    assert_eq!(reported().violation, Violation::Allocated { bytes: 24 });
    let section = check::signalling();
    let zeroed = black_box(vec![0_u8; 77]);
    drop(section);
    assert_eq!((reported().violation, zeroed.len()), (Violation::Allocated { bytes: 77 }, 77));
}

#[test]
fn outside_sections_is_nobodys_business() {
    check::set_reporter(false);
    drop(check::signalling());
    drop(black_box(Box::new(0_u64)));
    assert!(check::take_report().is_none());
}

#[test]
fn of_one_section_is_not_held_against_the_next() {
    check::set_reporter(false);
    let section = check::signalling();
    drop(black_box(Box::new(0_u64)));
    drop(section);
    reported();
    drop(check::signalling());
    assert!(check::take_report().is_none());
}

#[test]
fn reserved_before_may_be_used_and_freed_in_a_section() {
    check::set_reporter(false);
    let (boxed, text) = (Box::new([1_u8; 64]), String::from("reserved before"));
    let mut room: Vec<u32> = Vec::with_capacity(4);
    let section = check::signalling();
    room.extend([1, 2, 3, 4]);
    drop(black_box(boxed));
    drop(black_box(text));
    drop(black_box(room));
    drop(section);
    assert!(check::take_report().is_none(), "freeing is allowed");
}

#[test]
fn of_an_unrelated_thread_is_not_blamed_on_anybody() {
    check::set_reporter(false);
    let (go, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            go.wait();
            drop(black_box(Box::new([0_u8; 333])));
            done.wait();
            check::take_report().is_none()
        });
        let section = check::signalling();
        go.wait();
        done.wait();
        drop(section);
        assert!(check::take_report().is_none());
        assert!(other.join().unwrap());
    });
}

#[test]
fn that_was_made_to_fail_is_still_reported() {
    check::set_reporter(false);
    let mut vec: Vec<u8> = Vec::new();
    let section = check::signalling();
    assert_eq!(check::fail_nth_allocation(1), 0);
    assert!(vec.try_reserve_exact(5).is_err());
    assert_eq!(check::fail_nth_allocation(0), 0, "it has happened");
    drop(section);
    assert_eq!(reported().violation, Violation::Allocated { bytes: 5 });
}
