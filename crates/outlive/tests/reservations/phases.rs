//! The two phases: what is retried and what is not, what is carried from one to the other, and what is given back when.

use crate::common::ok;
use crate::{Hardware, Jobs, add, executor, resv, seen};
use outlive::Retired;
use outlive::check::{allocations, fail_nth_allocation};
use outlive::resv::Usage::{Bookkeep, Read, Write};
use outlive::resv::{Carry, Injection, LockError, Locked, Plain, Reservation, Slot, Transaction, Usage};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The example of a driver's submission, with a driver that completes inside `run` (bypass), and contention made up: each job
/// is committed once, and its fences hang on all its buffers, signaled.
#[test]
fn a_driver_that_completes_inside_run_while_everything_is_locked() {
    let executor = executor();
    let jobs = Jobs::inline(&executor);
    let buffers: Vec<Reservation> = (0..8).map(|_| resv()).collect();
    let mut retries = 0;
    for seed in 0..50 {
        let reserved = jobs.queue.reserve(()).unwrap();
        let injection = Injection::seeded(seed).contention(3);
        let (job, again) = Transaction::new()
            .inject(injection)
            .run::<Vec<Slot<'_>>, _>(
                |attempt| attempt.prepare_all(&buffers),
                |sealed, slots| {
                    let before = allocations().allocated;
                    let job = reserved.commit();
                    assert!(ok(&job.finished()) && ok(&job.retired()), "bypass: done before anything was added");
                    for slot in slots {
                        sealed.add(slot, Write, &job.retired());
                    }
                    assert_eq!(allocations().allocated, before);
                    (job, sealed.retries())
                },
            )
            .unwrap();
        assert_eq!(job.finished().seqno(), seed + 1, "committed once");
        assert!(buffers.iter().all(|buffer| buffer.is_idle(Bookkeep) == Ok(true) && !buffer.is_locked()));
        retries += again;
    }
    assert!(retries > 20, "contention was injected {retries} times only");
}

/// The hardware has the job, and the next submission waits for it: a chain through a reservation, implicit synchronisation.
#[test]
fn submissions_are_ordered_by_the_buffers_they_touch() {
    let executor = executor();
    let (writer, reader) = (Jobs::on(&executor), Jobs::on(&executor));
    let buffer = resv();
    let submit = |queue: &outlive::JobQueue<Hardware>, write: bool| {
        let usage = if write { Write } else { Read };
        Transaction::new()
            .run::<Slot<'_>, _>(
                |attempt| attempt.prepare(&buffer),
                |sealed, slot| {
                    let after = sealed.fences(slot.locked(), Usage::for_access(write));
                    let after: Vec<_> = after.map(|(_, fence)| fence.into_fence()).collect();
                    let job = queue.reserve_after((), after).unwrap().commit();
                    sealed.add(slot, usage, &job.retired());
                    job
                },
            )
            .unwrap()
    };
    let first = submit(&writer.queue, true);
    let second = submit(&reader.queue, false);
    let third = submit(&writer.queue, true);
    executor.run_until_idle();
    assert!(ok(&first.scheduled()) && !ok(&second.scheduled()) && !ok(&third.scheduled()));
    writer.end(1);
    executor.run_until_idle();
    assert!(ok(&second.scheduled()) && !ok(&third.scheduled()), "the writer waits for the reader");
    reader.end(1);
    executor.run_until_idle();
    assert!(ok(&third.scheduled()));
    writer.end(2);
}

/// What one's own plan looks like.
struct Draw<'a> {
    texture: Slot<'a>,
    target: Option<Slot<'a>>,
    note: &'static str,
}

impl Carry for Draw<'_> {
    type In<'a> = Draw<'a>;
}

#[test]
fn a_plan_of_ones_own_and_an_error_of_ones_own() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        Lock(LockError),
        NotToday,
    }
    impl From<LockError> for Mine {
        fn from(error: LockError) -> Self {
            Self::Lock(error)
        }
    }
    let (texture, target) = (resv(), resv());
    let draw = |today: bool| {
        Transaction::new().try_run::<Draw<'_>, _, Mine>(
            |attempt| {
                let texture = attempt.prepare(&texture)?;
                if !today {
                    return Err(Mine::NotToday);
                }
                Ok(Draw { texture, target: Some(attempt.prepare(&target)?), note: "drawn" })
            },
            |sealed, draw| {
                sealed.add(draw.texture, Read, &Retired::stub());
                sealed.add(draw.target.unwrap(), Write, &Retired::stub());
                draw.note
            },
        )
    };
    assert_eq!(draw(true), Ok("drawn"));
    assert_eq!(draw(false), Err(Mine::NotToday));
    assert!(!texture.is_locked() && !target.is_locked());
}

#[test]
fn contention_that_is_swallowed_is_contention_all_the_same() {
    let (one, two) = (resv(), resv());
    let mut attempts = 0;
    let done = Transaction::new().inject(Injection::seeded(1).contention(1)).run::<Plain<u32>, _>(
        |attempt| {
            attempts += 1;
            attempt.lock(&one)?;
            if attempt.lock(&two) == Err(LockError::Contended) {
                // Nothing more is to be had in this attempt, not even what it has.
                assert_eq!(attempt.lock(&one).unwrap_err(), LockError::Contended);
                assert_eq!(attempt.try_lock(&resv()).unwrap_err(), LockError::Contended);
            }
            Ok(Plain(attempt.retries()))
        },
        |_, Plain(retries)| {
            assert!(one.is_locked() && two.is_locked());
            retries
        },
    );
    let retries = done.unwrap();
    assert!(retries >= 1 && attempts == retries + 1, "{retries} retries in {attempts} attempts");
}

/// The attempt after the one that died begins with what it died for; if it is not wanted any more, it is given back.
#[test]
fn what_was_locked_ahead_and_is_not_wanted_is_given_back_before_the_sealed_phase() {
    let (one, two) = (resv(), resv());
    let mut first = true;
    Transaction::new()
        .inject(Injection::seeded(1).contention(1))
        .run::<Slot<'_>, _>(
            |attempt| {
                let slot = attempt.prepare(&one)?;
                if core::mem::take(&mut first) {
                    attempt.lock(&two)?;
                }
                assert!(two.is_locked(), "locked ahead");
                assert!(attempt.locked(&two).is_none(), "but not asked for");
                assert!(attempt.locked(&one).is_some());
                Ok(slot)
            },
            |sealed, slot| {
                assert!(!two.is_locked() && one.is_locked());
                sealed.add(slot, Read, &Retired::stub());
            },
        )
        .unwrap();
    assert!(!one.is_locked() && !two.is_locked());
}

/// Two buffers may share one lock. Locked ahead by one name and asked for by the other, it is one lock.
#[test]
fn duplicates_are_found_by_the_lock_also_when_it_was_locked_ahead() {
    let shared = resv();
    let (bo, other_bo, third) = (shared.clone(), shared.clone(), resv());
    let mut first = true;
    let done = Transaction::new().refuse_duplicates().inject(Injection::seeded(1).contention(1)).run::<Locked<'_>, _>(
        |attempt| {
            attempt.lock(&third)?;
            if core::mem::take(&mut first) {
                attempt.lock(&bo)?;
            }
            attempt.lock(&other_bo)
        },
        |sealed, locked| {
            assert!(shared.is_locked() && third.is_locked());
            sealed.reservation(locked).clone()
        },
    );
    assert_eq!(done, Ok(shared.clone()));
    let twice = Transaction::new().refuse_duplicates().run::<(), _>(
        |attempt| {
            attempt.lock(&bo)?;
            attempt.lock(&other_bo).map(|_| ())
        },
        |_, ()| (),
    );
    assert_eq!(twice, Err(LockError::AlreadyLocked { reservation: shared.id() }));
}

#[test]
fn injection_comes_back_with_its_seed_and_lets_everybody_through() {
    let all: Vec<_> = (0..64).map(|_| resv()).collect();
    let retries = |seed| {
        Transaction::new()
            .inject(Injection::seeded(seed).contention(8))
            .run::<Vec<Slot<'_>>, _>(|attempt| attempt.prepare_all(&all), |sealed, _| sealed.retries())
            .unwrap()
    };
    let once: Vec<_> = (0..20).map(retries).collect();
    assert_eq!(once, (0..20).map(retries).collect::<Vec<_>>());
    assert!(once.iter().any(|count| *count > 1) && once.iter().any(|count| *count != once[0]), "{once:?}");
}

#[test]
fn want_of_memory_made_up_or_real_leaves_everything_as_it_was() {
    let all: Vec<_> = (0..16).map(|_| resv()).collect();
    let mut refused = 0;
    for seed in 0..100 {
        let done = Transaction::new()
            .inject(Injection::seeded(seed).no_memory(20).contention(30))
            .run::<Vec<Slot<'_>>, _>(|attempt| attempt.prepare_all(&all), |_, slots| slots.len());
        assert!(all.iter().all(|one| !one.is_locked()));
        match done {
            Ok(count) => assert_eq!(count, all.len()),
            Err(LockError::OutOfMemory(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((20..80).contains(&refused), "refused {refused} of 100");
    for nth in 1.. {
        let fresh: Vec<_> = (0..16).map(|_| resv()).collect();
        fail_nth_allocation(nth);
        let done = Transaction::new().run::<Vec<Slot<'_>>, _>(
            |attempt| attempt.prepare_all([&fresh, &fresh, &fresh].into_iter().flatten()),
            |sealed, slots| slots.into_iter().for_each(|slot| sealed.add(slot, Read, &Retired::stub())),
        );
        assert!(fresh.iter().all(|one| !one.is_locked()));
        if fail_nth_allocation(0) > 0 {
            assert_eq!(done, Ok(()));
            assert!(nth > 16, "each of the fresh ones needed memory once");
            break;
        }
        assert!(matches!(done, Err(LockError::OutOfMemory(_))), "{done:?}");
    }
}

#[test]
fn a_panic_in_either_phase_gives_everything_back() {
    let executor = executor();
    let on = resv();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let lock = catch_unwind(AssertUnwindSafe(|| {
        Transaction::new().run::<(), _>(
            |attempt| {
                attempt.lock(&on)?;
                panic!("in the lock phase")
            },
            |_, ()| (),
        )
    }));
    let sealed = catch_unwind(AssertUnwindSafe(|| {
        Transaction::new().run::<Slot<'_>, ()>(|attempt| attempt.prepare(&on), |_, _slot| panic!("in the sealed phase"))
    }));
    std::panic::set_hook(hook);
    assert!(lock.is_err() && sealed.is_err());
    assert!(!on.is_locked());
    let jobs = Jobs::on(&executor);
    add(&on, Read, &jobs.job());
    assert_eq!(seen(&on, Read), [(Read, 1)]);
    jobs.end(1);
}

/// Whoever evicts waits for fences with the reservation locked: nothing that signals needs it.
#[test]
fn fences_may_be_waited_for_with_reservations_locked() {
    let executor = outlive::Executor::builder().threads().unwrap();
    let jobs = Jobs::on(&executor);
    let on = resv();
    add(&on, Bookkeep, &jobs.job());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !on.is_locked() {
                std::thread::yield_now();
            }
            jobs.end(1);
        });
        let evicted = Transaction::new().run::<Locked<'_>, _>(
            |attempt| attempt.lock(&on),
            |sealed, locked| sealed.reservation(locked).wait(Bookkeep, crate::common::SOON),
        );
        assert_eq!(evicted, Ok(Ok(())));
    });
}

/// What a sealed phase holds that does not run is dropped when nothing is locked any more.
#[test]
fn what_is_not_published_is_dropped_without_locks() {
    struct Looks<'a>(&'a Reservation, &'a mut Option<bool>);
    impl Drop for Looks<'_> {
        fn drop(&mut self) {
            *self.1 = Some(self.0.is_locked());
        }
    }
    let buffer = resv();
    let mut locked = None;
    let held = Looks(&buffer, &mut locked);
    let failed = Transaction::new().run::<Plain<()>, _>(
        |attempt| {
            attempt.lock(&buffer)?;
            Err(LockError::TimedOut)
        },
        |_, _| drop(held),
    );
    assert_eq!(failed, Err(LockError::TimedOut));
    assert_eq!(locked, Some(false));
}
