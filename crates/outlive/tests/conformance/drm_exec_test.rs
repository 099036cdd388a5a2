//! KUnit `drm_exec_test`. An object is a reservation: upstream's is found by its buffer, here by its lock.

use outlive::resv::{Locked, Reservation, Slot, Slots, Transaction};

fn object() -> Reservation {
    Reservation::new().unwrap()
}

#[test]
fn sanitycheck() {
    let ran = Transaction::new().run::<(), _>(|_| Ok(()), |_, ()| true);
    assert_eq!(ran, Ok(true));
}

#[test]
fn test_lock() {
    let object = object();
    let locked = Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&object), |_, _| object.is_locked());
    assert_eq!(locked, Ok(true));
    assert!(!object.is_locked());
}

/// Upstream gives one lock back and takes it again inside one transaction. Here a transaction gives all back at its end and
/// nothing before, so no token is ever stale; taking it again is another transaction.
#[test]
fn test_lock_unlock() {
    let object = object();
    for _ in 0..2 {
        let locked =
            Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&object), |_, _| object.is_locked());
        assert_eq!(locked, Ok(true));
        assert!(!object.is_locked());
    }
}

#[test]
fn test_duplicates() {
    let object = object();
    let run = Transaction::new().run::<(Locked<'_>, Locked<'_>), _>(
        |attempt| {
            let first = attempt.lock(&object)?;
            // By another handle on the same lock, too.
            let second = attempt.lock(&object.clone())?;
            assert!(attempt.try_lock(&object)?.is_some());
            Ok((first, second))
        },
        |sealed, (first, second)| {
            assert!(object.is_locked());
            assert_eq!(sealed.reservation(first), sealed.reservation(second));
        },
    );
    assert_eq!(run, Ok(()));
    assert!(!object.is_locked());
}

#[test]
fn test_prepare() {
    let object = object();
    let run = Transaction::new().run::<Slot<'_>, _>(|attempt| attempt.prepare(&object), |_, _slot| object.is_locked());
    assert_eq!(run, Ok(true));
}

#[test]
fn test_prepare_array() {
    let (one, two) = (object(), object());
    let run = Transaction::new().run::<Vec<Slot<'_>>, _>(
        |attempt| attempt.prepare_all([&one, &two]),
        |_, slots| (slots.len(), one.is_locked(), two.is_locked()),
    );
    assert_eq!(run, Ok((2, true, true)));
    let none = Transaction::new().run::<Vec<Slot<'_>>, _>(|attempt| attempt.prepare_all([]), |_, slots| slots.len());
    assert_eq!(none, Ok(0), "an array of none prepares nothing");
}

/// Upstream runs two loops one after the other with one context; a transaction is used up by running, so there are two.
#[test]
fn test_multiple_loops() {
    let object = object();
    for _ in 0..2 {
        let run = Transaction::new().run::<(), _>(|_| Ok(()), |_, ()| ());
        assert_eq!(run, Ok(()));
    }
    for slots in 1..3 {
        let run = Transaction::new()
            .run::<Slots<'_>, _>(|attempt| attempt.prepare_many(&object, slots), |_, slots| slots.len());
        assert_eq!(run, Ok(slots));
    }
}
