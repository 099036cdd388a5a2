//! Where a transaction is not legal, or hopeless, it says so instead of hanging.

use crate::{Jobs, executor, resv};
use outlive::check::{self, Violation};
use outlive::resv::{Interrupt, LockError, Locked, Reservation, Transaction};
use outlive::{FenceContext, Names, sync};
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

fn lock(transaction: Transaction<'_>, on: &Reservation) -> Result<(), LockError> {
    transaction.run::<Locked<'_>, _>(|attempt| attempt.lock(on), |_, _| ())
}

/// Runs `body` while another thread has `on` locked.
fn while_locked(on: &Reservation, body: impl FnOnce()) {
    let (locked, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            Transaction::new()
                .run::<Locked<'_>, _>(
                    |attempt| attempt.lock(on),
                    |_, _| {
                        locked.wait();
                        done.wait();
                    },
                )
                .unwrap();
        });
        locked.wait();
        body();
        done.wait();
    });
}

#[test]
fn time_is_over() {
    let on = resv();
    while_locked(&on, || {
        let short = Transaction::new().timeout(Duration::from_millis(2));
        assert_eq!(lock(short, &on), Err(LockError::TimedOut));
        assert_eq!(lock(Transaction::new().timeout(Duration::ZERO), &on), Err(LockError::TimedOut));
    });
    let long = Transaction::new().timeout(Duration::from_secs(30));
    assert_eq!(lock(long, &on), Ok(()));
    assert_eq!(lock(Transaction::new().timeout(Duration::ZERO), &on), Ok(()), "what is free needs no time");
}

#[test]
fn interruption_ends_a_wait_and_nothing_else() {
    let on = resv();
    let mut interrupt = Interrupt::new().unwrap();
    let interrupter = interrupt.interrupter();
    interrupter.raise();
    assert_eq!(lock(Transaction::new().interruptible(&mut interrupt), &on), Ok(()), "it need not wait");
    while_locked(&on, || {
        assert_eq!(lock(Transaction::new().interruptible(&mut interrupt), &on), Err(LockError::Interrupted));
        assert!(interrupt.clear() && !interrupt.clear());
        thread::scope(|scope| {
            let waits = scope.spawn(|| lock(Transaction::new().interruptible(&mut interrupt), &on));
            // The description says when it waits.
            while !format!("{:#}", on.describe().unwrap()).contains("has waited") {
                thread::yield_now();
            }
            interrupter.raise();
            assert_eq!(waits.join().unwrap(), Err(LockError::Interrupted));
        });
        assert!(!format!("{:#}", on.describe().unwrap()).contains("has waited"), "it has left the line");
    });
    assert_eq!(lock(Transaction::new(), &on), Ok(()));
}

#[test]
fn trying_does_not_wait() {
    let (free, taken) = (resv(), resv());
    while_locked(&taken, || {
        let tried = Transaction::new().run::<(Locked<'_>, Option<Locked<'_>>, Option<Locked<'_>>), _>(
            |attempt| {
                let first = attempt.lock(&free)?;
                Ok((first, attempt.try_lock(&taken)?, attempt.try_lock(&free)?))
            },
            |sealed, (_, taken, free)| (taken.is_some(), free.is_some(), sealed.retries()),
        );
        assert_eq!(tried, Ok((false, true, 0)));
    });
}

/// One inside the other on one thread: the inner one would wait for its own thread.
#[test]
fn a_transaction_inside_another() {
    check::set_reporter(false);
    let (one, two) = (resv(), resv());
    let _ = check::take_report();
    let inner = Transaction::new().run::<Locked<'_>, _>(
        |attempt| attempt.lock(&one),
        |_, _| (lock(Transaction::new(), &one), lock(Transaction::new(), &two)),
    );
    assert_eq!(inner, Ok((Err(LockError::WouldDeadlock), Ok(()))));
    let reported = check::take_report().expect("two transactions of one thread are out of order").violation;
    let name = "outlive reservation";
    assert_eq!(reported, Violation::LockOrder { taken: name.into(), held: name.into() });
    assert!(check::take_report().is_none());
    assert_eq!(lock(Transaction::new(), &one), Ok(()));
    assert!(check::take_report().is_none(), "one after the other is fine");
}

/// Reservations are outside all of the library's locks, and inside those of embedders with a lower rank.
#[test]
fn ranks() {
    enum Outer {}
    impl sync::LockClass for Outer {
        const NAME: &'static str = "mmap lock";
        const RANK: u16 = 899;
        const SIGNALLING: bool = false;
    }
    enum Inner {}
    impl sync::LockClass for Inner {
        const NAME: &'static str = "page tables";
        const RANK: u16 = 901;
        const SIGNALLING: bool = false;
    }
    check::set_reporter(false);
    let _ = check::take_report();
    let on = resv();
    let (outer, inner) = (sync::Lock::<Outer, _>::new(()), sync::Lock::<Inner, _>::new(()));
    {
        let _outer = outer.lock();
        let both = Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&on), |_, _| drop(inner.lock()));
        assert_eq!(both, Ok(()));
    }
    assert!(check::take_report().is_none());
    {
        let _inner = inner.lock();
        assert_eq!(lock(Transaction::new(), &on), Ok(()));
    }
    let report = check::take_report().expect("a reservation under an inner lock").violation;
    assert_eq!(report, Violation::LockOrder { taken: "outlive reservation".into(), held: "page tables".into() });
    let under = Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&on), |_, _| drop(outer.lock()));
    assert_eq!(under, Ok(()));
    let report = check::take_report().expect("an outer lock under a reservation").violation;
    assert_eq!(report, Violation::LockOrder { taken: "mmap lock".into(), held: "outlive reservation".into() });
    // All that the library does itself is inside.
    let executor = executor();
    let jobs = Jobs::on(&executor);
    let job = Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&on), |_, _| jobs.job());
    jobs.end(1);
    assert!(job.unwrap().is_signaled());
    assert!(check::take_report().is_none());
}

#[test]
fn who_signals_may_not_lock() {
    check::set_reporter(false);
    let _ = check::take_report();
    let on = resv();
    {
        let _section = check::signalling();
        assert_eq!(lock(Transaction::new(), &on), Err(LockError::InSignallingSection));
    }
    assert_eq!(check::take_report().map(|report| report.violation), Some(Violation::Waited));
    let executor = executor();
    let context = FenceContext::new(&executor, Names { driver: "d", timeline: "t" }).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    let (said, says) = channel();
    let locked = on.clone();
    fence.on_signaled(move |_| said.send(lock(Transaction::new(), &locked)).unwrap()).unwrap().keep();
    signaler.signal(Ok(()));
    executor.run_until_idle();
    assert_eq!(says.recv().unwrap(), Err(LockError::InCallback));
    assert_eq!(check::take_report().map(|report| report.violation), Some(Violation::WaitedInCallback));
    assert_eq!(lock(Transaction::new(), &on), Ok(()));
}

#[test]
fn refusals_say_what_to_do() {
    let all = [
        LockError::Contended,
        LockError::Poisoned { reservation: 7, error: outlive::FenceError::Quarantined },
        LockError::AlreadyLocked { reservation: 7 },
        LockError::TimedOut,
        LockError::Interrupted,
        LockError::WouldDeadlock,
        LockError::InSignallingSection,
        LockError::InCallback,
    ];
    for error in all {
        let text = error.to_string();
        assert!(text.len() > 20 && !text.ends_with('.') && text.starts_with(char::is_lowercase), "{text}");
    }
}
