//! Rule 4 to its end: where DMA cannot be excluded, the memory is never free, and who would lock it to move or reuse it is
//! refused.

use crate::common::{Rig, SOON};
use crate::{add, resv};
use outlive::resv::Usage::{Bookkeep, Kernel, Read, Write};
use outlive::resv::{LockError, Locked, Reservation, Slot, Transaction};
use outlive::{Completion, FenceError, QueueConfig, ResetScope, Retired, Verdict, WaitError};
use std::time::Duration;

/// A device whose resets fail.
fn broken() -> Rig {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device)));
        script.reset = Some(Box::new(|_, token| token.failed()));
        script.unplug = Some(Box::new(|token| token.failed()));
    });
    rig
}

const QUARANTINED: FenceError = FenceError::Quarantined;

fn lock(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(on), |_, _| ())
}

#[test]
fn a_quarantined_job_poisons_its_reservations_for_ever() {
    let rig = broken();
    let queue = rig.queue(QueueConfig::new("q").timeout(Duration::from_millis(5)));
    let (on, other) = (resv(), resv());
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    add(&on, Bookkeep, &job.retired());
    rig.pass_ms(30_000);
    assert_eq!(on.poisoned(), None, "nobody has looked");
    let refused = LockError::Poisoned { reservation: on.id(), error: QUARANTINED };
    assert_eq!(lock(&on), Err(refused), "lock-all");
    let all = Transaction::new().run::<Vec<Slot<'_>>, _>(|attempt| attempt.prepare_all([&other, &on]), |_, _| ());
    assert_eq!(all, Err(refused));
    assert!(!other.is_locked() && !on.is_locked());
    assert_eq!(on.poisoned(), Some(QUARANTINED));
    // Whatever usage one asks for: it is the memory that is lost.
    assert_eq!(on.is_idle(Kernel), Err(QUARANTINED), "reuse");
    assert_eq!(on.wait(Kernel, SOON), Err(WaitError::Failed(QUARANTINED)), "eviction");
    assert_eq!(on.snapshot(Bookkeep).unwrap().len(), 1, "and what did it stays to be seen");
    assert_eq!(lock(&other), Ok(()));
    let found = Transaction::new()
        .run::<Option<Locked<'_>>, _>(|attempt| Ok(attempt.lock(&on).ok()), |_, locked| locked.is_some());
    assert_eq!(found, Ok(false), "who can do without it goes on");
}

#[test]
fn each_way_of_looking_finds_it() {
    type Look = fn(&Reservation);
    let looks: [Look; 5] = [
        |on| _ = on.is_idle(Kernel),
        |on| _ = on.snapshot(Bookkeep),
        |on| _ = on.wait(Read, Duration::ZERO),
        |on| _ = on.describe(),
        |on| _ = lock(on),
    ];
    for look in looks {
        let rig = broken();
        let queue = rig.queue(QueueConfig::new("q").timeout(Duration::from_millis(5)));
        let on = resv();
        add(&on, Write, &queue.reserve(rig.buffers(1)).unwrap().commit().retired());
        rig.pass_ms(30_000);
        look(&on);
        assert_eq!(on.poisoned(), Some(QUARANTINED));
    }
}

/// The second job of the context takes the first one's place on the list, and never starts: its own memory is free. The first
/// one's is not.
#[test]
fn an_error_on_a_fence_that_another_took_the_place_of_is_not_lost() {
    let rig = broken();
    let queue = rig.queue(QueueConfig::new("q").timeout(Duration::from_millis(5)).credits(1));
    let (on, later_only) = (resv(), resv());
    let first = queue.reserve(rig.buffers(1)).unwrap().commit();
    let second = queue.reserve(rig.buffers(2)).unwrap().commit();
    add(&on, Write, &first.retired());
    add(&on, Write, &second.retired());
    add(&later_only, Write, &second.retired());
    assert_eq!(on.snapshot(Bookkeep).unwrap().len(), 1);
    rig.pass_ms(30_000);
    assert_eq!(crate::common::error(&first.retired()), Some(QUARANTINED));
    assert!(crate::common::ok(&second.retired()), "it never started");
    assert_eq!(on.is_idle(Write), Err(QUARANTINED));
    assert_eq!(on.wait(Write, SOON), Err(WaitError::Failed(QUARANTINED)));
    assert_eq!(later_only.is_idle(Write), Ok(true), "what the first job never touched is free");
}

#[test]
fn an_error_is_not_lost_when_its_place_is_taken() {
    for replaced in [false, true] {
        let rig = broken();
        let queue = rig.queue(QueueConfig::new("q").timeout(Duration::from_millis(5)));
        let on = resv();
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        add(&on, Write, &job.retired());
        // Locked before anybody could see it, filled after.
        Transaction::new()
            .run::<Slot<'_>, _>(
                |attempt| attempt.prepare(&on),
                |sealed, slot| {
                    rig.pass_ms(30_000);
                    if replaced {
                        let count = sealed.replace(slot.locked(), job.retired().context(), Write, &Retired::stub());
                        assert_eq!(count, 1);
                    } else {
                        sealed.add(slot, Write, &Retired::stub());
                    }
                },
            )
            .unwrap();
        assert!(matches!(lock(&on), Err(LockError::Poisoned { error: QUARANTINED, .. })));
    }
}

/// A failed job is not a lost memory.
#[test]
fn a_job_that_fails_and_retires_poisons_nothing() {
    let rig = Rig::new();
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done: Completion| {
            done.complete(Err(FenceError::Faulted { code: 1 }));
            None
        }));
    });
    let queue = rig.queue(QueueConfig::new("q"));
    let on = resv();
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    add(&on, Write, &job.retired());
    assert!(crate::common::error(&job.finished()).is_some());
    assert_eq!(on.is_idle(Bookkeep), Ok(true));
    assert_eq!(lock(&on), Ok(()));
}
