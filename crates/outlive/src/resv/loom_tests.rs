//! Reservations under loom, over the shipped types: each model is named for what races.

use super::{Interrupt, LockError, Locked, Reservation, Slot, Transaction, Usage};
use crate::Executor;
use crate::fence::{Fence, FenceContext, Names, Retired, Signaler};
use crate::sync::model::{Model, race, race3};
use std::vec::Vec;

const NAMES: Names<'_> = Names { driver: "loom", timeline: "reservation" };

/// Two fences of one context, as if they were jobs' `retired`.
fn two(executor: &Executor) -> ([Signaler; 2], [Retired; 2]) {
    let context = FenceContext::new(executor, NAMES).unwrap();
    let make = || context.allocate().unwrap().publish();
    let ((one, first), (two, second)) = (make(), make());
    ([one, two], [first, second].map(Retired::new))
}

fn add(on: &Reservation, fence: &Retired) {
    Transaction::new()
        .run::<Slot<'_>, _>(|attempt| attempt.prepare(on), |sealed, slot| sealed.add(slot, Usage::Write, fence))
        .unwrap();
}

fn lock(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(on), |_, _| ())
}

fn end(executor: Executor) {
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

/// The second fence takes the first one's place while somebody copies the list: there is one of them, never none nor both.
#[test]
fn loom_reservation_replace_against_snapshot() {
    Model::new("reservation, replace against snapshot").check(|| {
        let executor = Executor::manual().unwrap();
        let (signalers, [first, second]) = two(&executor);
        let on = Reservation::new().unwrap();
        add(&on, &first);
        let (there, later) = (on.clone(), second.clone());
        race(
            move || add(&there, &later),
            || {
                let seen: Vec<Fence> =
                    on.snapshot(Usage::Write).unwrap().iter().map(|(_, it)| it.clone().into_fence()).collect();
                assert!(seen == [first.clone().into_fence()] || seen == [second.clone().into_fence()], "{seen:?}");
            },
        );
        drop((signalers, first, second, on));
        end(executor);
    });
}

/// As above, when the first signals meanwhile: then its place may be seen empty only before the second is there.
#[test]
fn loom_reservation_add_against_signal_and_look() {
    Model::new("reservation, add against a signal and a look").check(|| {
        let executor = Executor::manual().unwrap();
        let ([one, two], [first, second]) = two(&executor);
        let on = Reservation::new().unwrap();
        add(&on, &first);
        let (there, later) = (on.clone(), second.clone());
        race3(
            move || add(&there, &later),
            move || one.signal(Ok(())),
            || {
                let idle = on.is_idle(Usage::Write).unwrap();
                assert!(!idle || first.is_signaled(), "idle with a pending fence");
            },
        );
        assert_eq!(on.is_idle(Usage::Write), Ok(false));
        two.signal(Ok(()));
        assert_eq!(on.is_idle(Usage::Write), Ok(true));
        drop((first, second, on));
        end(executor);
    });
}

/// Each locks what the other has: both get through, whoever is older, and nobody sleeps for ever.
#[test]
fn loom_two_transactions_crosswise() {
    Model::new("two transactions crosswise").check(|| {
        let (one, two) = (Reservation::new().unwrap(), Reservation::new().unwrap());
        let both = |first: &Reservation, second: &Reservation| {
            let run = Transaction::new().run::<(Locked<'_>, Locked<'_>), _>(
                |attempt| Ok((attempt.lock(first)?, attempt.lock(second)?)),
                |_, _| assert!(first.is_locked() && second.is_locked()),
            );
            assert_eq!(run, Ok(()));
        };
        let (there_one, there_two) = (one.clone(), two.clone());
        race(move || both(&there_two, &there_one), || both(&one, &two));
        assert!(!one.is_locked() && !two.is_locked());
    });
}

/// Three at one lock: it passes from hand to hand.
#[test]
fn loom_one_lock_three_owners() {
    Model::new("one lock, three owners").check(|| {
        let on = Reservation::new().unwrap();
        let (one, two) = (on.clone(), on.clone());
        race3(move || lock(&one).unwrap(), move || lock(&two).unwrap(), || lock(&on).unwrap());
        assert!(!on.is_locked());
    });
}

/// The lock is not given back before the one who waits for it has been interrupted.
#[test]
fn loom_interruption_against_sleep() {
    Model::new("interruption against sleep").check(|| {
        let on = Reservation::new().unwrap();
        let mut interrupt = Interrupt::new().unwrap();
        let interrupter = interrupt.interrupter();
        let there = on.clone();
        let owned = Transaction::new().run::<Locked<'_>, _>(
            |attempt| attempt.lock(&on),
            |_, _| {
                race(
                    move || {
                        let run = Transaction::new()
                            .interruptible(&mut interrupt)
                            .run::<Locked<'_>, _>(|attempt| attempt.lock(&there), |_, _| ());
                        assert_eq!(run, Err(LockError::Interrupted));
                    },
                    || interrupter.raise(),
                );
            },
        );
        assert_eq!(owned, Ok(()));
        assert!(!on.is_locked());
    });
}
