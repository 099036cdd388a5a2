//! Long-running queues, explored by shuttle: waiters arm the preempt fence while jobs complete, the context comes back, the
//! handles go. A fake hardware knows what is on it; whoever waited for a fence looks there.

use crate::sync::model;
use crate::{
    Completion, Device, Driver, Executor, JobCx, LongQueue, Off, PreemptToken, QueueConfig, ResetScope, ResetToken,
    Retired,
};
use core::time::Duration;
use shuttle::rand::Rng;
use shuttle::sync::Mutex;
use shuttle::thread;
use std::sync::Arc;
use std::vec::Vec;

/// What is on the hardware, each job with the number of the fence that guards it.
#[derive(Default)]
struct Hardware {
    on: Vec<(Completion, usize)>,
    saved: Vec<Completion>,
    asked: Vec<PreemptToken>,
    guards: Vec<Retired>,
    /// Its queue was closed: what is saved will not go on, and leaves (shuttle's time stands still, so no drain time ends).
    closed: bool,
    /// Says that it is off without having stopped.
    lies: bool,
}

impl Hardware {
    /// One step of what hardware does by itself; false if there was nothing to do.
    fn step(shared: &Mutex<Self>) -> bool {
        let mut hardware = shared.lock().unwrap();
        if let Some(token) = hardware.asked.pop() {
            if !hardware.lies {
                let stopped: Vec<Completion> = hardware.on.drain(..).map(|(done, _)| done).collect();
                hardware.saved.extend(stopped);
            }
            drop(hardware);
            token.off();
            return true;
        }
        // Jobs are long: most looks find them still at it.
        if !hardware.on.is_empty() && shuttle::rand::thread_rng().gen_range(0..32) > 0 {
            drop(hardware);
            thread::yield_now();
            return true;
        }
        let done = match hardware.on.pop() {
            Some((done, _)) => Some(done),
            None if hardware.closed => hardware.saved.pop(),
            None => None,
        };
        drop(hardware);
        done.map(|done| done.complete(Ok(()))).is_some()
    }

    fn is_free_of(&self, guard: usize) -> bool {
        self.on.iter().all(|(_, under)| *under > guard)
    }
}

struct Gpu(Arc<Mutex<Hardware>>);

impl Driver for Gpu {
    type Job = ();
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        let mut hardware = self.0.lock().unwrap();
        RUN.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        let under = hardware.guards.len();
        hardware.on.push((done, under));
    }

    fn preempt(&self, _queue: u64, _ring: &mut (), token: PreemptToken) {
        PRE.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        self.0.lock().unwrap().asked.push(token);
    }

    fn restore(&self, _queue: u64, _ring: &mut ()) {
        let mut hardware = self.0.lock().unwrap();
        let under = hardware.guards.len();
        let saved = core::mem::take(&mut hardware.saved);
        hardware.on.extend(saved.into_iter().map(|done| (done, under)));
    }

    fn resume(&self, off: Off) {
        bring_on(&self.0, off);
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        let stopped = {
            let mut hardware = self.0.lock().unwrap();
            let mut stopped = core::mem::take(&mut hardware.saved);
            stopped.extend(hardware.on.drain(..).map(|(done, _)| done));
            stopped
        };
        token.quiesced();
        drop(stopped);
    }
}

fn bring_on(hardware: &Mutex<Hardware>, off: Off) -> usize {
    let ready = off.reserve().unwrap();
    let mut locked = hardware.lock().unwrap();
    let (guard, restart) = ready.publish();
    locked.guards.push(guard);
    let number = locked.guards.len();
    drop(locked);
    restart.restart();
    number
}

static PRE: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
static RUN: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
struct World {
    executor: Executor,
    device: Device<Gpu>,
    hardware: Arc<Mutex<Hardware>>,
    queue: LongQueue<Gpu>,
}

impl World {
    fn new(lies: bool) -> Self {
        let executor = Executor::builder().threads().unwrap();
        let hardware = Arc::new(Mutex::new(Hardware { lies, ..Hardware::default() }));
        let device = Device::new(&executor, Gpu(hardware.clone())).unwrap();
        let queue = device.long_queue(QueueConfig::new("compute").credits(2), ()).unwrap();
        Self { executor, device, hardware, queue }
    }
}

/// Waits for guard `number`, if there is one, and looks at the hardware.
fn evict(hardware: &Mutex<Hardware>, number: usize) {
    let guard = hardware.lock().unwrap().guards.get(number - 1).cloned();
    let Some(guard) = guard else { return };
    guard.wait(Duration::MAX).unwrap();
    assert!(
        hardware.lock().unwrap().is_free_of(number),
        "its memory was said to be free while a job was on the hardware"
    );
}

fn evictions_completions_and_close(lies: bool) {
    let World { executor, device, hardware, queue } = World::new(lies);
    let done: Vec<_> = (0..2).map(|_| queue.reserve(()).unwrap().commit()).collect();
    let first = bring_on(&hardware, queue.off().unwrap());
    let stop = Arc::new(shuttle::sync::atomic::AtomicBool::new(false));
    let ticking = {
        let (hardware, stop) = (hardware.clone(), stop.clone());
        thread::spawn(move || {
            loop {
                let last = stop.load(core::sync::atomic::Ordering::SeqCst);
                if !Hardware::step(&hardware) {
                    if last {
                        return;
                    }
                    thread::yield_now();
                }
            }
        })
    };
    let evictor = {
        let hardware = hardware.clone();
        thread::spawn(move || {
            evict(&hardware, first);
            evict(&hardware, first + 1);
        })
    };
    let closed = hardware.clone();
    let closer = thread::spawn(move || {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..200) {
            thread::yield_now();
        }
        drop(queue);
        closed.lock().unwrap().closed = true;
    });
    evictor.join().unwrap();
    closer.join().unwrap();
    for done in &done {
        let _ = done.wait(Duration::MAX);
    }
    let gone = device.drained();
    let guards = hardware.lock().unwrap().guards.clone();
    for guard in guards {
        guard.wait(Duration::MAX).unwrap();
    }
    drop((executor, device));
    stop.store(true, core::sync::atomic::Ordering::SeqCst);
    ticking.join().unwrap();
    gone.wait(Duration::MAX).unwrap();
}

#[test]
fn shuttle_evictions_against_completions_resumption_and_close() {
    let body = || evictions_completions_and_close(false);
    model::explore("evictions against completions resumption and close", 2000, body);
    model::explore_by_priority("evictions against completions resumption and close", 3, 1000, body);
}

/// The check above sees a context that is said to be off and is not.
#[test]
#[should_panic(expected = "its memory was said to be free")]
fn shuttle_a_context_that_stays_on_is_seen() {
    model::explore("a context that stays on is seen", 2000, || evictions_completions_and_close(true));
    std::eprintln!("PRE {:?} RUN {:?}", PRE, RUN);
}
