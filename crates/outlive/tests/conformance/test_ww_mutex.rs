//! Linux `kernel/locking/test-ww_mutex.c`, each group with Wait-Die. A lock is a reservation, a context a transaction; there are
//! no locks without one, so "without context" is a transaction of one lock, "with" of two.

use outlive::Retired;
use outlive::resv::{Injection, LockError, Plain, Reservation, Slot, Transaction, Usage};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

const SPIN: u32 = 1;
const TRY: u32 = 2;
const CTX: u32 = 4;

fn object() -> Reservation {
    Reservation::new().unwrap()
}

/// One has it; the other comes in only when the first is done.
fn mutex(flags: u32) {
    let (on, own) = (object(), object());
    let (ready, done, entered) = (Barrier::new(2), AtomicBool::new(false), AtomicBool::new(false));
    let lock = |attempt: &mut outlive::resv::Attempt<'_>| {
        if flags & CTX != 0 {
            attempt.lock(&own)?;
        }
        if flags & TRY == 0 {
            return attempt.lock(&on).map(|_| true);
        }
        Ok(attempt.try_lock(&on)?.is_some())
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            ready.wait();
            loop {
                let got = Transaction::new().run::<Plain<bool>, _>(
                    |attempt| lock(attempt).map(Plain),
                    |_, Plain(got)| {
                        if got {
                            assert!(done.load(SeqCst), "two have one lock");
                            entered.store(true, SeqCst);
                        }
                        got
                    },
                );
                if got.unwrap() {
                    break;
                }
                thread::yield_now();
            }
        });
        Transaction::new()
            .run::<(), _>(
                |attempt| attempt.lock(&on).map(|_| ()),
                |_, ()| {
                    ready.wait();
                    for _ in 0..if flags & SPIN == 0 { 20 } else { 200 } {
                        thread::yield_now();
                        assert!(!entered.load(SeqCst));
                    }
                    done.store(true, SeqCst);
                },
            )
            .unwrap();
    });
    assert!(entered.load(SeqCst));
}

#[test]
fn test_mutex() {
    for flags in 0..=SPIN | TRY | CTX {
        mutex(flags);
    }
}

/// Upstream's `-EALREADY`; and another cannot have it.
#[test]
fn test_aa() {
    for trylock in [false, true] {
        let on = object();
        let run = Transaction::new().refuse_duplicates().run::<(), _>(
            |attempt| {
                if trylock {
                    assert!(attempt.try_lock(&on)?.is_some());
                } else {
                    attempt.lock(&on)?;
                }
                let already = LockError::AlreadyLocked { reservation: on.id() };
                assert_eq!(attempt.try_lock(&on), Err(already));
                assert_eq!(attempt.lock(&on), Err(already));
                let other = thread::scope(|scope| {
                    let tried = || {
                        Transaction::new()
                            .run::<Plain<bool>, _>(
                                |attempt| Ok(Plain(attempt.try_lock(&on)?.is_some())),
                                |_, Plain(got)| got,
                            )
                            .unwrap()
                    };
                    scope.spawn(tried).join().unwrap()
                });
                assert!(!other, "two have one lock");
                Ok(())
            },
            |_, ()| (),
        );
        assert_eq!(run, Ok(()));
    }
}

/// Each has one and wants the other's. Without `resolve`, upstream only looks that somebody is told; that is what the attempts
/// that died say, and they are always resolved here.
#[test]
fn test_abba() {
    for trylock in [false, true] {
        let (a, b, meet, died) = (object(), object(), Barrier::new(2), AtomicU32::new(0));
        let cross = |first: &Reservation, second: &Reservation| {
            let mut met = false;
            Transaction::new().run::<(), _>(
                |attempt| {
                    if trylock && !met {
                        assert!(attempt.try_lock(first)?.is_some());
                    } else {
                        attempt.lock(first)?;
                    }
                    if !core::mem::replace(&mut met, true) {
                        meet.wait();
                    }
                    let second = attempt.lock(second);
                    if second == Err(LockError::Contended) {
                        died.fetch_add(1, SeqCst);
                    }
                    second.map(|_| ())
                },
                |sealed, ()| {
                    assert!(a.is_locked() && b.is_locked());
                    (sealed.ticket(), sealed.retries())
                },
            )
        };
        let (one, other) = thread::scope(|scope| {
            let other = scope.spawn(|| cross(&b, &a).unwrap());
            (cross(&a, &b).unwrap(), other.join().unwrap())
        });
        assert_eq!(one.min(other).1, 0, "the older gave way");
        assert!(died.into_inner() > 0, "nobody was told");
    }
}

/// A ring of threads, each of which has one lock and wants its neighbour's.
#[test]
fn test_cycle() {
    let most = thread::available_parallelism().map_or(2, usize::from) + 1;
    for count in 2..=most.min(9) {
        let ring: Vec<_> = (0..count).map(|_| object()).collect();
        let meet = Barrier::new(count);
        thread::scope(|scope| {
            for at in 0..count {
                let (ring, meet) = (&ring, &meet);
                scope.spawn(move || {
                    let mut met = false;
                    let run = Transaction::new().run::<(), _>(
                        |attempt| {
                            attempt.lock(&ring[at])?;
                            if !core::mem::replace(&mut met, true) {
                                meet.wait();
                            }
                            attempt.lock(&ring[(at + 1) % count]).map(|_| ())
                        },
                        |_, ()| (),
                    );
                    assert_eq!(run, Ok(()));
                });
            }
        });
        assert!(ring.iter().all(|on| !on.is_locked()));
    }
}

/// `count` locks, by threads of the three kinds upstream has: all in one random order, all in another order each time, one at a
/// time.
fn stress(count: usize, threads: u64, rounds: usize) {
    #[derive(Clone, Copy)]
    enum Kind {
        InOrder,
        Reordered,
        One,
    }
    let locks: Vec<_> = (0..count).map(|_| (object(), AtomicBool::new(false))).collect();
    thread::scope(|scope| {
        for seed in 0..threads {
            let kind = [Kind::InOrder, Kind::Reordered, Kind::One][usize::try_from(seed % 3).unwrap()];
            let locks = &locks;
            scope.spawn(move || {
                let mut state = seed;
                let mut random = |below: usize| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    usize::try_from(state >> 33).unwrap() % below
                };
                let mut order: Vec<_> = (0..count).collect();
                for round in 0..rounds {
                    if round == 0 || matches!(kind, Kind::Reordered) {
                        (1..count).rev().for_each(|at| order.swap(at, random(at + 1)));
                    }
                    let injected = random(1 << 20) as u64;
                    let wanted = if matches!(kind, Kind::One) { &order[round % count..][..1] } else { &order[..] };
                    Transaction::new()
                        .inject(Injection::seeded(injected).contention(64))
                        .run::<Vec<Slot<'_>>, _>(
                            |attempt| attempt.prepare_all(wanted.iter().map(|at| &locks[*at].0)),
                            |sealed, slots| {
                                assert!(wanted.iter().all(|at| !locks[*at].1.swap(true, SeqCst)), "two have one lock");
                                slots.into_iter().for_each(|slot| sealed.add(slot, Usage::Write, &Retired::stub()));
                                wanted.iter().for_each(|at| locks[*at].1.store(false, SeqCst));
                            },
                        )
                        .unwrap();
                }
            });
        }
    });
    assert!(locks.iter().all(|(on, _)| !on.is_locked()));
}

/// Upstream runs each for two seconds, the last with 2046 locks.
#[test]
fn stress_inorder_and_reorder_of_16() {
    stress(16, 6, if cfg!(debug_assertions) { 50 } else { 500 });
}

#[test]
fn stress_all_of_2046() {
    stress(2046, 3, if cfg!(debug_assertions) { 3 } else { 30 });
}
