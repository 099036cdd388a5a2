//! Linux `lib/locking-selftest.c`, the 36 cases of ww mutexes: the ten that must pass, and of those that must be reported the ones
//! that compile. The rest does not: `tests/ui/ww_*.rs`.

use outlive::check::{self, Violation};
use outlive::resv::{Injection, LockError, Plain, Reservation, Transaction};
use outlive::sync::{Lock, LockClass};

fn object() -> Reservation {
    Reservation::new().unwrap()
}

/// An embedder's lock, taken under reservations.
enum Spin {}

impl LockClass for Spin {
    const NAME: &'static str = "spin";
    const RANK: u16 = 950;
    const SIGNALLING: bool = true;
}

/// An embedder's lock, taken around them.
enum Outer {}

impl LockClass for Outer {
    const NAME: &'static str = "outer";
    const RANK: u16 = 10;
    const SIGNALLING: bool = false;
}

/// What this thread reported meanwhile.
fn reported(body: impl FnOnce()) -> Option<Violation> {
    check::set_reporter(false);
    let _ = check::take_report();
    body();
    check::take_report().map(|report| report.violation)
}

fn order(taken: &str, held: &str) -> Option<Violation> {
    Some(Violation::LockOrder { taken: taken.into(), held: held.into() })
}

fn lock_both(one: &Reservation, two: &Reservation) {
    let run = Transaction::new().run::<(), _>(
        |attempt| {
            attempt.lock(one)?;
            attempt.lock(two).map(|_| ())
        },
        |_, ()| assert!(one.is_locked() && two.is_locked()),
    );
    assert_eq!(run, Ok(()));
}

#[test]
fn fail_acquire() {
    let on = object();
    let run = Transaction::new().refuse_duplicates().run::<(), _>(
        |attempt| {
            attempt.lock(&on)?;
            assert_eq!(attempt.lock(&on), Err(LockError::AlreadyLocked { reservation: on.id() }));
            Ok(())
        },
        |_, ()| (),
    );
    assert_eq!(run, Ok(()));
    assert!(!on.is_locked());
}

#[test]
fn normal() {
    let on = object();
    let none = reported(|| {
        for tries in [false, true] {
            let run = Transaction::new().run::<(), _>(
                |attempt| {
                    if tries {
                        assert!(attempt.try_lock(&on)?.is_some());
                    } else {
                        attempt.lock(&on)?;
                    }
                    Ok(())
                },
                |_, ()| assert!(on.is_locked()),
            );
            assert_eq!(run, Ok(()));
            assert!(!on.is_locked());
        }
    });
    assert_eq!(none, None);
}

/// Contention at the second lock, made up; what the lock phase does about it; how many attempts it took, if it got through.
fn after_contention(phase: impl Fn(&Reservation, &Reservation)) -> u32 {
    let (one, two) = (object(), object());
    let mut attempts = 0;
    // The first throw of this seed hits, the next ones do not.
    let injection = Injection::seeded(3).contention(1);
    let run = Transaction::new().inject(injection).run::<(), _>(
        |attempt| {
            attempts += 1;
            attempt.lock(&one)?;
            if attempt.lock(&two) == Err(LockError::Contended) {
                assert!(one.is_locked() && !two.is_locked());
                phase(&one, &two);
                // More of the same, or of another, is refused alike.
                assert_eq!(attempt.lock(&two), Err(LockError::Contended));
                assert_eq!(attempt.lock(&one), Err(LockError::Contended));
                assert_eq!(attempt.lock(&object()), Err(LockError::Contended));
                return Err(LockError::Contended);
            }
            Ok(())
        },
        |_, ()| assert!(one.is_locked() && two.is_locked()),
    );
    assert_eq!(run, Ok(()));
    assert!(!one.is_locked() && !two.is_locked());
    attempts
}

#[test]
fn edeadlk_normal() {
    assert!(after_contention(|_, _| ()) > 1);
}

/// The contended one comes first in the next attempt, while nothing else is owned.
#[test]
fn edeadlk_normal_slow() {
    let (one, two) = (object(), object());
    let mut first = true;
    let run = Transaction::new().inject(Injection::seeded(3).contention(1)).run::<Plain<bool>, _>(
        |attempt| {
            let ahead = !core::mem::take(&mut first) && two.is_locked() && !one.is_locked();
            attempt.lock(&one)?;
            attempt.lock(&two)?;
            Ok(Plain(ahead))
        },
        |_, Plain(ahead)| ahead,
    );
    assert_eq!(run, Ok(true));
}

/// `edeadlk_no_unlock`, `edeadlk_no_unlock_slow`: whoever is told of contention and goes on as if nothing had happened. Upstream
/// reports what is not given back; here it is given back whatever the phase says.
#[test]
fn edeadlk_no_unlock() {
    let (one, two) = (object(), object());
    let mut attempts = 0;
    let run = Transaction::new().inject(Injection::seeded(3).contention(1)).run::<(), _>(
        |attempt| {
            attempts += 1;
            attempt.lock(&one)?;
            let _ = attempt.lock(&two);
            Ok(())
        },
        |_, ()| assert!(one.is_locked() && two.is_locked(), "sealed without all it wanted"),
    );
    assert_eq!(run, Ok(()));
    assert!(attempts > 1 && !one.is_locked() && !two.is_locked());
}

/// `edeadlk_acquire_more`, `_more_slow`, `_more_edeadlk`, `_more_edeadlk_slow`: all that is asked for after contention is refused.
#[test]
fn edeadlk_acquire_more() {
    assert!(after_contention(|one, two| assert_ne!(one, two)) > 1);
}

/// `edeadlk_acquire_wrong`, `edeadlk_acquire_wrong_slow`: the lock phase cannot choose what is taken first after contention.
#[test]
fn edeadlk_acquire_wrong() {
    let (one, two, wrong) = (object(), object(), object());
    let mut attempts = 0;
    let run = Transaction::new().inject(Injection::seeded(3).contention(1)).run::<(), _>(
        |attempt| {
            attempts += 1;
            if attempts > 1 {
                assert!(two.is_locked() || attempts > 2, "what it died for comes first");
                attempt.lock(&wrong)?;
            }
            attempt.lock(&one)?;
            attempt.lock(&two).map(|_| ())
        },
        |_, ()| (),
    );
    assert_eq!(run, Ok(()));
    assert!(attempts > 1);
}

#[test]
fn spin_nest_lock() {
    let (on, spin) = (object(), Lock::<Spin, _>::new(0));
    let none = reported(|| {
        let run = Transaction::new().run::<(), _>(|attempt| attempt.lock(&on).map(|_| ()), |_, ()| *spin.lock() += 1);
        assert_eq!(run, Ok(()));
    });
    assert_eq!(none, None);
}

#[test]
fn context_context() {
    let (one, two) = (object(), object());
    let none = reported(|| {
        lock_both(&one, &two);
        lock_both(&two, &one);
    });
    assert_eq!(none, None, "any order will do");
}

/// `context_try`, `try_try`, `block_try`: trying comes in any order, after locks and after tries.
#[test]
fn context_try() {
    let (one, two) = (object(), object());
    let none = reported(|| {
        for (first, second) in [(&one, &two), (&two, &one)] {
            for tries in [false, true] {
                let run = Transaction::new().run::<(), _>(
                    |attempt| {
                        if tries {
                            assert!(attempt.try_lock(first)?.is_some());
                        } else {
                            attempt.lock(first)?;
                        }
                        assert!(attempt.try_lock(second)?.is_some());
                        Ok(())
                    },
                    |_, ()| (),
                );
                assert_eq!(run, Ok(()));
            }
        }
    });
    assert_eq!(none, None);
}

#[test]
fn spin_try() {
    let (on, outer) = (object(), Lock::<Outer, _>::new(()));
    let none = reported(|| {
        let _outer = outer.lock();
        let run = Transaction::new()
            .run::<(), _>(|attempt| attempt.try_lock(&on).map(|got| assert!(got.is_some())), |_, ()| ());
        assert_eq!(run, Ok(()));
    });
    assert_eq!(none, None);
}

/// Reported, and refused where it would hang.
#[test]
fn two_contexts() {
    let on = object();
    let violation = reported(|| {
        let inner = || Transaction::new().run::<(), _>(|attempt| attempt.lock(&on).map(|_| ()), |_, ()| ());
        let outer = Transaction::new().run::<(), _>(|attempt| attempt.lock(&on).map(|_| ()), |_, ()| inner());
        assert_eq!(outer, Ok(Err(LockError::WouldDeadlock)));
    });
    assert_eq!(violation, order("outlive reservation", "outlive reservation"));
}

/// `spin_context`, `spin_block`: a reservation under a lock that is taken under reservations elsewhere.
#[test]
fn spin_context() {
    let (on, spin) = (object(), Lock::<Spin, _>::new(()));
    let violation = reported(|| {
        let _spin = spin.lock();
        let run = Transaction::new().run::<(), _>(|attempt| attempt.lock(&on).map(|_| ()), |_, ()| ());
        assert_eq!(run, Ok(()));
    });
    assert_eq!(violation, order("outlive reservation", "spin"));
}
