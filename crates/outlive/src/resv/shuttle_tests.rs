//! Transactions under shuttle: eight threads, random subsets of 64 reservations in random orders. Nobody waits for ever, no lock
//! has two owners, the oldest never gives way, all memory is free at the end. What the longest wait was, is printed.

use super::{Reservation, Slot, Transaction, Usage};
use crate::Executor;
use crate::fence::{FenceContext, Names, Retired};
use crate::sync::model::{explore, explore_by_priority};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

const THREADS: usize = 8;
const RESERVATIONS: usize = 64;
const NAMES: Names<'_> = Names { driver: "shuttle", timeline: "reservation" };

/// The worst of all executions.
#[derive(Default)]
struct Worst {
    /// Transactions that others ended while one wanted its locks.
    overtaken: AtomicUsize,
    retries: AtomicUsize,
    died: AtomicUsize,
    ended: AtomicUsize,
}

/// One execution. What is not the library's is std's: no order of it is explored, and none is held while a thread may change.
struct World {
    all: Vec<(Reservation, AtomicBool)>,
    /// Tickets that want their locks or have them.
    active: Mutex<BTreeSet<u64>>,
    ended: AtomicUsize,
    fence: Retired,
}

fn transact(world: &World, worst: &Worst, most: usize) {
    let wanted: Vec<usize> = {
        let count = thread_rng().gen_range(1..=most);
        (0..count).map(|_| thread_rng().gen_range(0..RESERVATIONS)).collect()
    };
    let began = world.ended.load(SeqCst);
    let mut oldest = false;
    let (ticket, retries) = Transaction::new()
        .run::<Vec<Slot<'_>>, _>(
            |attempt| {
                assert!(!(oldest && attempt.retries() > 0), "the oldest gave way");
                {
                    let mut active = world.active.lock().unwrap();
                    active.insert(attempt.ticket());
                    oldest = active.first() == Some(&attempt.ticket());
                }
                attempt.prepare_all(wanted.iter().map(|at| &world.all[*at].0))
            },
            |sealed, slots| {
                let mut own = wanted.clone();
                own.sort_unstable();
                own.dedup();
                assert!(own.iter().all(|at| !world.all[*at].1.swap(true, SeqCst)), "two owners");
                thread::yield_now();
                slots.into_iter().for_each(|slot| sealed.add(slot, Usage::Write, &world.fence));
                own.iter().for_each(|at| world.all[*at].1.store(false, SeqCst));
                (sealed.ticket(), sealed.retries())
            },
        )
        .unwrap();
    world.active.lock().unwrap().remove(&ticket);
    let ended = world.ended.fetch_add(1, SeqCst);
    let retries = usize::try_from(retries).unwrap();
    worst.overtaken.fetch_max(ended - began, SeqCst);
    worst.retries.fetch_max(retries, SeqCst);
    worst.died.fetch_add(retries, SeqCst);
    worst.ended.fetch_add(1, SeqCst);
}

fn play(worst: &Arc<Worst>, most: usize, rounds: usize) {
    let executor = Executor::manual().unwrap();
    let context = FenceContext::new(&executor, NAMES).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    let world = Arc::new(World {
        all: (0..RESERVATIONS).map(|_| (Reservation::new().unwrap(), AtomicBool::new(false))).collect(),
        active: Mutex::default(),
        ended: AtomicUsize::new(0),
        fence: Retired::new(fence),
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (world, worst) = (world.clone(), worst.clone());
            thread::spawn(move || (0..rounds).for_each(|_| transact(&world, &worst, most)))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(world.ended.load(SeqCst), THREADS * rounds);
    assert!(world.all.iter().all(|(on, _)| !on.is_locked()));
    signaler.signal(Ok(()));
    assert!(world.all.iter().all(|(on, _)| on.is_idle(Usage::Bookkeep) == Ok(true)));
    drop((world, context));
    executor.run_until_idle();
}

fn tell(name: &str, worst: &Worst) {
    let [overtaken, retries, died, ended] =
        [&worst.overtaken, &worst.retries, &worst.died, &worst.ended].map(|count| count.load(SeqCst));
    std::println!(
        "shuttle: {name}: longest wait: {overtaken} other transactions, {retries} retries; {died} attempts of {ended} \
         transactions died"
    );
    assert!(died > 0, "no contention, so nothing was seen");
}

#[test]
fn shuttle_random_subsets_of_reservations() {
    let worst = Arc::new(Worst::default());
    let shared = worst.clone();
    explore("random subsets of 64 reservations", 300, move || play(&shared, 12, 4));
    tell("random subsets of 64 reservations", &worst);
}

/// The scheduler starves threads on purpose.
#[test]
fn shuttle_random_subsets_of_reservations_by_priority() {
    let worst = Arc::new(Worst::default());
    let shared = worst.clone();
    explore_by_priority("random subsets, priorities", 5, 200, move || play(&shared, 12, 4));
    tell("random subsets, priorities", &worst);
}

/// Nearly everybody wants nearly everything.
#[test]
fn shuttle_large_subsets_of_reservations() {
    let worst = Arc::new(Worst::default());
    let shared = worst.clone();
    explore("large subsets of 64 reservations", 50, move || play(&shared, 48, 2));
    tell("large subsets of 64 reservations", &worst);
}
