//! Each test feeds the checker a defect, or the same without it, and looks at the count.

use super::*;
use crate::gpu::observe::StopCause;
use crate::gpu::page_table::Reach;
use crate::gpu::types::{DomainId, OwnerId, QueueId};

const PAGE: PageId = PageId { domain: DomainId(1), index: 3 };

fn audit_of(steps: &[Observation]) -> Audit {
    let (mut checker, mut violations) = (AccessChecker::default(), Violations::default());
    for what in steps {
        checker.observe(&Stamped { at: Time::ZERO, what: *what }, &mut violations);
    }
    let mut audit = Audit::default();
    checker.finish(&mut audit);
    audit.violations = violations.words().to_vec();
    audit
}

fn submitted(job: u64) -> Observation {
    Observation::Submitted { job: JobId(job), queue: QueueId(0) }
}

fn live(job: u64, access: Access) -> Observation {
    Observation::Live { job: JobId(job), page: PAGE, access }
}

fn stopped(job: u64) -> Observation {
    Observation::Stopped { job: JobId(job), cause: StopCause::Done }
}

fn ordered(before: u64, after: u64, by: OrderedBy) -> Observation {
    Observation::Ordered { before: JobId(before), after: JobId(after), by }
}

const ALLOCATED: Observation = Observation::PageAllocated { page: PAGE, owner: OwnerId(0) };
const FREED: Observation = Observation::PageFreed { page: PAGE };

#[test]
fn a_life_in_order_is_clean() {
    let audit = audit_of(&[
        ALLOCATED,
        submitted(1),
        live(1, Access::Write),
        live(1, Access::Read),
        stopped(1),
        submitted(2),
        live(2, Access::Write),
        stopped(2),
        FREED,
    ]);
    assert!(audit.is_clean(), "{audit:?}");
}

#[test]
fn a_page_laid_aside_is_as_good_as_free() {
    let (aside, taken_up) = (Observation::PageLaidAside { page: PAGE }, Observation::PageTakenUp { page: PAGE });
    let used = |job| [submitted(job), live(job, Access::Write)];
    let [first, second] = [used(1), used(2)];
    let in_order =
        [&[ALLOCATED], &first[..], &[stopped(1), aside, taken_up], &second[..], &[stopped(2), FREED]].concat();
    assert!(audit_of(&in_order).is_clean());
    let in_use = audit_of(&[&[ALLOCATED], &first[..], &[aside, taken_up]].concat());
    assert_eq!(in_use.released_while_hardware_busy, 1, "laid aside while a job uses it");
    let not_taken_up = audit_of(&[&[ALLOCATED, aside], &first[..]].concat());
    assert_eq!(not_taken_up.released_while_hardware_busy, 1, "used while it lies there");
}

#[test]
fn a_page_freed_under_a_job_is_counted_once() {
    let life = [ALLOCATED, submitted(1), live(1, Access::Read), FREED, live(1, Access::Read)];
    let audit = audit_of(&life);
    assert_eq!(audit.released_while_hardware_busy, 1);
    assert!(audit.violations[0].contains("freed while job 1"), "{:?}", audit.violations);
}

#[test]
fn a_touch_of_a_free_page_is_counted() {
    let audit = audit_of(&[ALLOCATED, FREED, submitted(1), live(1, Access::Read)]);
    assert_eq!(audit.released_while_hardware_busy, 1);
}

#[test]
fn a_page_reused_under_a_job_conflicts_with_its_next_user() {
    let audit = audit_of(&[
        ALLOCATED,
        submitted(1),
        live(1, Access::Write),
        FREED,
        ALLOCATED,
        submitted(2),
        live(2, Access::Read),
    ]);
    assert_eq!((audit.released_while_hardware_busy, audit.conflicting_accesses), (1, 1));
}

#[test]
fn a_touch_after_the_end_is_counted() {
    let audit = audit_of(&[ALLOCATED, submitted(1), stopped(1), live(1, Access::Write)]);
    assert_eq!(audit.released_while_hardware_busy, 1);
}

#[test]
fn a_payload_dropped_under_its_job_is_counted() {
    let born = Observation::PayloadCreated { payload: 9, job: JobId(1), bytes: 1 };
    let dropped = Observation::PayloadReleased { payload: 9 };
    assert_eq!(audit_of(&[born, submitted(1), dropped]).released_while_hardware_busy, 1);
    assert_eq!(audit_of(&[born, submitted(1), stopped(1), dropped]).released_while_hardware_busy, 0);
    assert_eq!(audit_of(&[born, dropped]).released_while_hardware_busy, 0, "never submitted");
}

#[test]
fn unordered_uses_conflict_if_one_writes() {
    let pair = |first, second| {
        let steps = [submitted(1), submitted(2), live(1, first), live(2, second)];
        audit_of(&steps).conflicting_accesses
    };
    assert_eq!(pair(Access::Write, Access::Read), 1);
    assert_eq!(pair(Access::Read, Access::Write), 1);
    assert_eq!(pair(Access::Write, Access::Write), 1);
    assert_eq!(pair(Access::Read, Access::Read), 0);
    assert_eq!(pair(Access::ControlWrite, Access::ControlWrite), 0, "fences share pages");
    assert_eq!(pair(Access::ControlRead, Access::Write), 1, "commands overwritten by another");
}

#[test]
fn a_conflict_is_counted_once() {
    let writes = live(2, Access::Write);
    let steps = [submitted(1), submitted(2), live(1, Access::Write), writes, writes];
    assert_eq!(audit_of(&steps).conflicting_accesses, 1);
}

#[test]
fn semaphores_order_and_promises_must_be_kept() {
    let overlap = |orders: &[Observation]| {
        let mut steps = orders.to_vec();
        steps.extend([submitted(1), submitted(3)]);
        steps.extend([live(1, Access::Write), live(3, Access::Write)]);
        audit_of(&steps)
    };
    let semaphore = OrderedBy::Hardware;
    assert_eq!(overlap(&[ordered(1, 3, semaphore)]).conflicting_accesses, 0);
    let through_another = [ordered(1, 2, semaphore), ordered(2, 3, semaphore)];
    assert_eq!(overlap(&through_another).conflicting_accesses, 0);
    let between_gone = [ordered(1, 2, semaphore), ordered(2, 3, semaphore), submitted(1), submitted(2), stopped(2)];
    assert_eq!(overlap(&between_gone).conflicting_accesses, 0);
    let promised = overlap(&[ordered(1, 3, OrderedBy::Host)]);
    assert_eq!(promised.conflicting_accesses, 1);
    assert!(promised.violations[0].contains("not kept apart"));
    assert!(overlap(&[]).violations[0].contains("in no order"));
}

#[test]
fn a_cycle_of_orders_is_survived() {
    let audit = audit_of(&[
        ordered(1, 2, OrderedBy::Host),
        ordered(2, 1, OrderedBy::Host),
        submitted(1),
        submitted(3),
        live(1, Access::Write),
        live(3, Access::Write),
    ]);
    assert_eq!(audit.conflicting_accesses, 1);
}

#[test]
fn the_host_conflicts_too() {
    let touch = |used, access| {
        let touched = Observation::HostTouched { page: PAGE, access };
        audit_of(&[submitted(1), live(1, used), touched, touched]).conflicting_accesses
    };
    assert_eq!(touch(Access::Read, Access::Write), 1);
    assert_eq!(touch(Access::Write, Access::Read), 1);
    assert_eq!(touch(Access::Read, Access::Read), 0);
    assert_eq!(touch(Access::ControlRead, Access::Write), 0, "rings and fences are shared");
}

#[test]
fn only_faults_that_nobody_asked_for_count() {
    let fault = Observation::PageFault { job: JobId(1), va: Va(Reach::Bits39.end().0 - 1), access: Access::Read };
    let asked = |kind| Observation::FaultRequested { job: JobId(1), kind };
    assert_eq!(audit_of(&[submitted(1), fault]).unexpected_page_faults, 1);
    let wanted = [asked(FaultKind::PageFault), submitted(1), fault];
    assert_eq!(audit_of(&wanted).unexpected_page_faults, 0);
    let other = [asked(FaultKind::Hang), submitted(1), fault];
    assert_eq!(audit_of(&other).unexpected_page_faults, 1);
}
