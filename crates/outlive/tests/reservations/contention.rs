//! Several threads at the same locks: who waits, who gives way, and that all get through.

use crate::resv;
use outlive::Retired;
use outlive::resv::{Locked, Plain, Reservation, Slot, Transaction, Usage};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread;

/// Locks `first`, meets the other at the barrier in the first attempt, locks `second`; how often it gave way, and its age.
fn cross(meet: &Barrier, first: &Reservation, second: &Reservation) -> (u64, u32) {
    let mut met = false;
    Transaction::new()
        .run::<Plain<()>, _>(
            |attempt| {
                attempt.lock(first)?;
                if !core::mem::replace(&mut met, true) {
                    meet.wait();
                }
                attempt.lock(second)?;
                Ok(Plain(()))
            },
            |sealed, _| (sealed.ticket(), sealed.retries()),
        )
        .unwrap()
}

/// Each has what the other wants: the younger gives way, the older never does.
#[test]
fn the_younger_gives_way() {
    for _ in 0..20 {
        let (one, two, meet) = (resv(), resv(), Barrier::new(2));
        let (mine, other) = thread::scope(|scope| {
            let other = scope.spawn(|| cross(&meet, &two, &one));
            (cross(&meet, &one, &two), other.join().unwrap())
        });
        let (older, younger) = if mine.0 < other.0 { (mine, other) } else { (other, mine) };
        assert_eq!(older.1, 0, "the older gave way");
        assert!(younger.1 >= 1, "nobody gave way");
        assert!(!one.is_locked() && !two.is_locked());
    }
}

/// A ring: everybody has one and wants the next one's.
#[test]
fn a_ring_resolves() {
    for count in 2..9 {
        let (ring, meet): (Vec<_>, _) = ((0..count).map(|_| resv()).collect(), Barrier::new(count));
        let done = thread::scope(|scope| {
            let all: Vec<_> = (0..count)
                .map(|at| {
                    let (ring, meet) = (&ring, &meet);
                    scope.spawn(move || cross(meet, &ring[at], &ring[(at + 1) % count]))
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let oldest = done.iter().min().unwrap();
        assert_eq!(oldest.1, 0, "the oldest gave way");
    }
}

/// One that owns nothing waits however young it is, and is served by age.
#[test]
fn those_who_wait_are_served_by_age() {
    let (on, order) = (resv(), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        Transaction::new()
            .run::<Locked<'_>, _>(
                |attempt| attempt.lock(&on),
                |_, _| {
                    for waiting in 1..=4 {
                        scope.spawn(|| {
                            Transaction::new()
                                .run::<Locked<'_>, _>(
                                    |attempt| attempt.lock(&on),
                                    |sealed, _| order.lock().unwrap().push((sealed.ticket(), sealed.retries())),
                                )
                                .unwrap();
                        });
                        while format!("{:#}", on.describe().unwrap()).matches("has waited").count() < waiting {
                            thread::yield_now();
                        }
                    }
                },
            )
            .unwrap();
    });
    let order = order.into_inner().unwrap();
    assert_eq!(order.len(), 4);
    assert!(order.is_sorted() && order.iter().all(|(_, retries)| *retries == 0), "{order:?}");
}

/// Random sets in random orders: exclusion holds, and all get through.
#[test]
fn random_subsets() {
    const LOCKS: usize = 16;
    const ROUNDS: u64 = if cfg!(debug_assertions) { 300 } else { 3000 };
    let all: Vec<_> = (0..LOCKS).map(|_| (resv(), AtomicBool::new(false))).collect();
    let worst = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let (all, worst) = (&all, &worst);
            scope.spawn(move || {
                let mut state = seed + 1;
                let mut next = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    usize::try_from(state >> 40).unwrap() % LOCKS
                };
                for _ in 0..ROUNDS {
                    let wanted: Vec<_> = (0..6).map(|_| next()).collect();
                    let retries = Transaction::new()
                        .run::<Vec<Slot<'_>>, _>(
                            |attempt| attempt.prepare_all(wanted.iter().map(|at| &all[*at].0)),
                            |sealed, slots| {
                                let mut own: Vec<_> = wanted.clone();
                                own.sort_unstable();
                                own.dedup();
                                assert!(own.iter().all(|at| !all[*at].1.swap(true, SeqCst)), "two have one lock");
                                slots.into_iter().for_each(|slot| sealed.add(slot, Usage::Read, &Retired::stub()));
                                own.iter().for_each(|at| all[*at].1.store(false, SeqCst));
                                sealed.retries()
                            },
                        )
                        .unwrap();
                    worst.fetch_max(u64::from(retries), SeqCst);
                }
            });
        }
    });
    println!("random subsets: at most {} retries", worst.into_inner());
    assert!(all.iter().all(|(on, _)| !on.is_locked() && on.poisoned().is_none()));
}
