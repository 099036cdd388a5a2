//! Many locks at once: a transaction over random reservations, beside one mutex for all of them and a mutex for each that are
//! taken in sorted order. All hang the thread's fence on each object they locked, in place of the one before. Each object is a
//! piece of the heap of its own, as buffers are, and is found through a handle.

use crate::harness::{Contender, Effort, Row, race};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use outlive::resv::{Reservation, Slot, Transaction, Usage};
use outlive::{Completion, Device, Driver, Executor, InFlight, JobCx, JobQueue, QueueConfig, Retired};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Objects there are.
pub const OBJECTS: usize = 100_000;
/// What the sets name that a thread goes through again and again: more than there are objects, so that none is likely in a cache.
const NAMED: usize = 4 * OBJECTS;

/// Holds its jobs.
struct Holds(InFlight);

impl Driver for Holds {
    type Job = ();
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        if self.0.insert(cx.info().id.seqno, done).is_err() {
            unreachable!("one job each");
        }
    }
}

/// A thread's own: a job on the hardware, and what it locks.
struct Own {
    queue: JobQueue<Holds>,
    fence: Retired,
    sets: Vec<Vec<u32>>,
}

impl Drop for Own {
    /// What it hung anywhere is no longer in the way.
    fn drop(&mut self) {
        let _ = self.queue.device().driver().0.complete(1, Ok(()));
    }
}

fn own(seed: u64, size: usize) -> Own {
    let executor = Executor::manual().expect("memory");
    let device = Device::new(&executor, Holds(InFlight::with_capacity(1).expect("memory"))).expect("memory");
    let queue = device.queue(QueueConfig::new("bench"), ()).expect("memory");
    let fence = queue.reserve(()).expect("memory").commit().retired();
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % OBJECTS as u32
    };
    let sets = (0..NAMED / size).map(|_| (0..size).map(|_| random()).collect()).collect();
    Own { queue, fence, sets }
}

/// What is on an object of the other two: the least that a reservation does.
type List = Vec<(Usage, Retired)>;

fn put(list: &mut List, fence: &Retired) {
    list.retain(|(_, old)| !old.is_signaled());
    match list.iter_mut().find(|(_, old)| old.context() == fence.context()) {
        Some(old) => *old = (Usage::Write, fence.clone()),
        None => list.push((Usage::Write, fence.clone())),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `batches` of them, shared out to `threads`; how long until the last was done.
fn run(owns: &[Own], batches: u64, batch: impl Fn(&Own, &[u32]) + Sync) -> Duration {
    let each = batches.div_ceil(owns.len() as u64);
    let ready = Barrier::new(owns.len() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = owns
            .iter()
            .map(|own| {
                let (ready, batch) = (&ready, &batch);
                scope.spawn(move || {
                    ready.wait();
                    for set in own.sets.iter().cycle().take(each as usize) {
                        batch(own, set);
                    }
                    Instant::now()
                })
            })
            .collect();
        let began = Instant::now();
        ready.wait();
        let ends = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        ends.max().map_or(Duration::ZERO, |end| end.saturating_duration_since(began))
    })
}

/// The objects of all contenders, made once: a heap that other runs have left in pieces would be measured with the later ones.
#[derive(Debug)]
pub struct Objects {
    reservations: Vec<Reservation>,
    sorted: Vec<Arc<Mutex<List>>>,
    #[expect(clippy::vec_box, reason = "each object is a piece of the heap of its own, as with the others")]
    global: Mutex<Vec<Box<List>>>,
}

impl Objects {
    /// All of them.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            reservations: (0..OBJECTS).map(|_| Reservation::new().expect("memory")).collect(),
            sorted: (0..OBJECTS).map(|_| Arc::default()).collect(),
            global: Mutex::new((0..OBJECTS).map(|_| Box::default()).collect()),
        })
    }

    fn transaction(&self, own: &Own, set: &[u32]) -> u32 {
        let all = &self.reservations;
        let run = Transaction::new().run::<Vec<Slot<'_>>, _>(
            |attempt| attempt.prepare_all(set.iter().map(|at| &all[*at as usize])),
            |sealed, slots| {
                slots.into_iter().for_each(|slot| sealed.add(slot, Usage::Write, &own.fence));
                sealed.retries()
            },
        );
        run.expect("memory")
    }

    fn sorted(&self, own: &Own, set: &[u32]) {
        let mut order: Vec<_> = set.iter().map(|at| &self.sorted[*at as usize]).collect();
        order.sort_unstable_by_key(|one| Arc::as_ptr(one));
        order.dedup_by_key(|one| Arc::as_ptr(one));
        let mut guards: Vec<_> = order.into_iter().map(|one| locked(one)).collect();
        guards.iter_mut().for_each(|list| put(list, &own.fence));
    }

    fn global(&self, own: &Own, set: &[u32]) {
        let mut all = locked(&self.global);
        set.iter().for_each(|at| put(&mut all[*at as usize], &own.fence));
    }

    /// The fences of all threads on all objects, before anything is measured: room for them is not what is compared.
    fn fill(&self, owns: &[Own]) {
        for at in 0..OBJECTS as u32 {
            for own in owns {
                self.transaction(own, &[at]);
                self.sorted(own, &[at]);
                self.global(own, &[at]);
            }
        }
    }
}

/// What became of the transactions: attempts that died, of how many.
#[derive(Debug, Default)]
pub struct Deaths {
    died: AtomicU64,
    ended: AtomicU64,
}

impl Deaths {
    /// Attempts that died, per transaction.
    #[must_use]
    pub fn each(&self) -> f64 {
        self.died.load(Ordering::Relaxed) as f64 / self.ended.load(Ordering::Relaxed).max(1) as f64
    }
}

/// `size` of [`OBJECTS`] by `threads`: the transaction, sorted mutexes, the global mutex.
///
/// # Panics
/// Without memory.
pub fn locks(objects: &Arc<Objects>, effort: Effort, size: usize, threads: u64) -> (Vec<Row>, Arc<Deaths>) {
    let owns: Arc<Vec<Own>> = Arc::new((0..threads).map(|thread| own(thread + 1, size)).collect());
    objects.fill(&owns);
    let deaths = Arc::new(Deaths::default());
    let contender = |name, batch: fn(&Objects, &Own, &[u32], &Deaths)| {
        let (objects, owns, deaths) = (objects.clone(), owns.clone(), deaths.clone());
        Contender::new(name, move |batches| run(&owns, batches, |own, set| batch(&objects, own, set, &deaths)))
    };
    let mut contenders = [
        contender("outlive transaction", |objects, own, set, deaths| {
            let retries = objects.transaction(own, set);
            if retries > 0 {
                deaths.died.fetch_add(u64::from(retries), Ordering::Relaxed);
            }
        }),
        contender("a std mutex each, sorted", |objects, own, set, _| objects.sorted(own, set)),
        contender("one std mutex for all", |objects, own, set, _| objects.global(own, set)),
    ];
    let batches = (400_000 / size as u64).clamp(1_000, 100_000);
    let rows = race(&mut contenders, effort, batches, 1);
    let ended = effort.of(batches) * (effort.rounds as u64 + 1);
    deaths.ended.store(ended, Ordering::Relaxed);
    (rows, deaths)
}
