//! The threaded queue under teardown, explored by shuttle: handles dropped in every order and place while the executor's
//! three threads, the hardware and submitters run. Each schedule ends with every fence signaled, every payload dropped once,
//! the driver gone, every thread ended and no memory left; a thread that never ends is a deadlock, which shuttle
//! reports. A failing schedule is printed by shuttle with what replays it.

use crate::sync::model;
use crate::{
    Completion, Device, Driver, Executor, FenceContext, Job, JobCx, JobFences, JobQueue, Names, QueueConfig,
    ResetScope, ResetToken, Status, Time, UserFence,
};
use core::time::Duration;
use shuttle::sync::Mutex;
use shuttle::thread;
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::vec::Vec;

/// Random orders, then ones that switch rarely but at unlucky moments.
fn explore(name: &str, body: fn()) {
    model::explore(name, 3000, body);
    model::explore_by_priority(name, 3, 1000, body);
}

#[derive(Default)]
struct Live {
    payloads: AtomicUsize,
    dropped: AtomicUsize,
    drivers: AtomicUsize,
}

struct Payload {
    live: Arc<Live>,
    /// Something to drop, of whatever kind, when this is dropped: on the reaper.
    _cargo: Option<Box<dyn Send>>,
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.live.dropped.fetch_add(1, SeqCst);
    }
}

/// Holds what it is given until the hardware thread of a test completes it.
struct Gpu {
    live: Arc<Live>,
    held: Arc<Mutex<Vec<Completion>>>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.live.drivers.fetch_sub(1, SeqCst);
    }
}

impl Driver for Gpu {
    type Job = Payload;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        self.held.lock().unwrap().push(done);
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        token.quiesced();
    }

    fn unplug(&self, token: ResetToken) {
        token.quiesced();
    }
}

/// A device on an executor of its own, with three threads.
struct World {
    executor: Executor,
    device: Device<Gpu>,
    live: Arc<Live>,
    held: Arc<Mutex<Vec<Completion>>>,
}

impl World {
    fn new() -> Self {
        let executor = Executor::builder().threads().unwrap();
        let live = Arc::new(Live::default());
        let held = Arc::new(Mutex::new(Vec::new()));
        live.drivers.fetch_add(1, SeqCst);
        let device = Device::new(&executor, Gpu { live: live.clone(), held: held.clone() }).unwrap();
        Self { executor, device, live, held }
    }

    fn queue(&self) -> JobQueue<Gpu> {
        self.device.queue(QueueConfig::new("q").credits(2), ()).unwrap()
    }

    fn payload(&self, cargo: Option<Box<dyn Send>>) -> Payload {
        payload(&self.live, cargo)
    }

    /// The hardware: completes what it finds until it is told that nothing more will come, and all is done.
    fn hardware(&self, stop: Arc<shuttle::sync::atomic::AtomicBool>) -> thread::JoinHandle<()> {
        let held = self.held.clone();
        thread::spawn(move || {
            loop {
                let last = stop.load(SeqCst);
                let done = held.lock().unwrap().pop();
                match done {
                    Some(done) => done.complete(Ok(())),
                    None if last => return,
                    None => thread::yield_now(),
                }
            }
        })
    }
}

fn payload(live: &Arc<Live>, cargo: Option<Box<dyn Send>>) -> Payload {
    live.payloads.fetch_add(1, SeqCst);
    Payload { live: live.clone(), _cargo: cargo }
}

fn flag() -> Arc<shuttle::sync::atomic::AtomicBool> {
    Arc::new(shuttle::sync::atomic::AtomicBool::new(false))
}

/// Everything of the world is gone, and every job had its end.
fn all_gone(gone: &crate::Drained, live: &Live, jobs: &[JobFences]) {
    gone.wait(Duration::MAX).unwrap();
    for job in jobs {
        assert_ne!(job.finished().status(), Status::Pending);
        assert_eq!(job.retired().status(), Status::Signaled(Ok(())));
    }
    assert_eq!(live.payloads.load(SeqCst), live.dropped.load(SeqCst), "each payload is dropped once");
    assert_eq!(live.drivers.load(SeqCst), 0, "the driver went last");
}

/// The last handles of queue, device, executor and fences, each dropped by a thread of its own.
#[test]
fn shuttle_last_handles_dropped_by_different_threads() {
    explore("last handles dropped by different threads", || {
        let world = World::new();
        let queue = world.queue();
        let jobs: Vec<JobFences> = (0..3).map(|_| queue.reserve(world.payload(None)).unwrap().commit()).collect();
        let stop = flag();
        let hardware = world.hardware(stop.clone());
        let World { executor, device, live, .. } = world;
        let gone = device.drained();
        let kept = jobs.clone();
        let droppers = [
            thread::spawn(move || drop(queue)),
            thread::spawn(move || drop(device)),
            thread::spawn(move || drop(executor)),
            thread::spawn(move || drop(jobs)),
        ];
        for dropper in droppers {
            dropper.join().unwrap();
        }
        for job in &kept {
            let _ = job.finished().wait(Duration::MAX);
            job.retired().wait(Duration::MAX).unwrap();
        }
        stop.store(true, SeqCst);
        hardware.join().unwrap();
        all_gone(&gone, &live, &kept);
    });
}

/// The last handles, dropped in a fence's callback (notify lane) and in a payload's drop (reaper lane).
#[test]
fn shuttle_last_handles_dropped_on_the_executors_own_lanes() {
    explore("last handles dropped on the executors own lanes", || {
        let world = World::new();
        let (first, second) = (world.queue(), world.queue());
        // The second queue dies in the first one's payload.
        let other = second.reserve(world.payload(None)).unwrap().commit();
        let cargo: Box<dyn Send> = Box::new(second);
        let job = first.reserve(world.payload(Some(cargo))).unwrap().commit();
        let stop = flag();
        let hardware = world.hardware(stop.clone());
        let World { executor, device, live, .. } = world;
        let gone = device.drained();
        // The rest dies in a callback of that queue's own job.
        let handles = (first, device, executor);
        if let Err(crate::Refused::AlreadySignaled(late)) =
            job.finished().on_signaled(move |_| drop(handles)).map(crate::Registration::keep)
        {
            late(Ok(()));
        }
        for job in [&job, &other] {
            let _ = job.finished().wait(Duration::MAX);
            job.retired().wait(Duration::MAX).unwrap();
        }
        stop.store(true, SeqCst);
        hardware.join().unwrap();
        all_gone(&gone, &live, &[job, other]);
    });
}

/// Two queues that close each other from their jobs' callbacks.
#[test]
fn shuttle_two_queues_close_each_other_from_their_callbacks() {
    explore("two queues close each other from their callbacks", || {
        let world = World::new();
        let queues = Arc::new([world.queue(), world.queue()]);
        let jobs: Vec<JobFences> =
            queues.iter().map(|queue| queue.reserve(world.payload(None)).unwrap().commit()).collect();
        for (index, job) in jobs.iter().enumerate() {
            let queues = queues.clone();
            let close = move |_| drop(queues[1 - index].close());
            job.finished().on_signaled(close).map(crate::Registration::keep).unwrap();
        }
        let stop = flag();
        let hardware = world.hardware(stop.clone());
        let closer = {
            let queues = queues.clone();
            thread::spawn(move || drop(queues[0].close()))
        };
        drop(queues);
        closer.join().unwrap();
        let World { executor, device, live, .. } = world;
        let gone = device.drained();
        drop((executor, device));
        for job in &jobs {
            job.retired().wait(Duration::MAX).unwrap();
        }
        stop.store(true, SeqCst);
        hardware.join().unwrap();
        all_gone(&gone, &live, &jobs);
    });
}

/// Commits from two threads, dependent on each other's queue, against close, unplug, reset and suspension.
#[test]
fn shuttle_commits_against_whatever_may_happen_to_a_device() {
    explore("commits against whatever may happen to a device", || {
        let world = World::new();
        let queues = Arc::new([world.queue(), world.queue()]);
        let stop = flag();
        let hardware = world.hardware(stop.clone());
        let committers: Vec<_> = (0..2)
            .map(|side: usize| {
                let (queues, live) = (queues.clone(), world.live.clone());
                thread::spawn(move || {
                    let mut jobs: Vec<JobFences> = Vec::new();
                    for turn in 0..2 {
                        let queue = &queues[(side + turn) % 2];
                        let after = jobs.last().map(JobFences::finished);
                        match queue.reserve_after(payload(&live, None), after) {
                            Ok(job) => jobs.push(job.commit()),
                            Err(refused) => drop(refused.payload),
                        }
                    }
                    jobs
                })
            })
            .collect();
        let device = world.device.clone();
        let trouble = {
            let queues = queues.clone();
            thread::spawn(move || match shuttle::rand::RngCore::next_u32(&mut shuttle::rand::thread_rng()) % 4 {
                0 => drop(queues[0].close()),
                1 => device.unplug(),
                2 => device.reset(),
                _ => {
                    queues[1].suspend();
                    queues[1].resume();
                }
            })
        };
        let jobs: Vec<JobFences> = committers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        trouble.join().unwrap();
        for job in &jobs {
            let _ = job.finished().wait(Duration::MAX);
            job.retired().wait(Duration::MAX).unwrap();
        }
        stop.store(true, SeqCst);
        hardware.join().unwrap();
        let World { executor, device, live, .. } = world;
        let gone = device.drained();
        drop((queues, executor, device));
        all_gone(&gone, &live, &jobs);
    });
}

/// A commit that waits for a user fence, against its signal, its cancellation and the queue's close.
#[test]
fn shuttle_commit_when_against_signal_cancel_and_close() {
    explore("commit when against signal cancel and close", || {
        let world = World::new();
        let queue = Arc::new(world.queue());
        let stop = flag();
        let hardware = world.hardware(stop.clone());
        let (source, user) = UserFence::new(&world.executor, "host").unwrap();
        let job = queue.reserve(Job::new(world.payload(None)).user_waits(1)).unwrap();
        let pending = Arc::new(job.commit_when(&[user], Time::NEVER).unwrap());
        let racers = [
            thread::spawn(move || {
                source.signal(Ok(()));
            }),
            {
                let pending = pending.clone();
                thread::spawn(move || {
                    pending.cancel();
                })
            },
            {
                let queue = queue.clone();
                thread::spawn(move || drop(queue.close()))
            },
        ];
        for racer in racers {
            racer.join().unwrap();
        }
        let _ = pending.done().wait(Duration::MAX);
        let jobs: Vec<JobFences> = pending.fences().into_iter().collect();
        drop(pending);
        for job in &jobs {
            job.retired().wait(Duration::MAX).unwrap();
        }
        stop.store(true, SeqCst);
        hardware.join().unwrap();
        let World { executor, device, live, .. } = world;
        let gone = device.drained();
        drop((queue, executor, device));
        all_gone(&gone, &live, &jobs);
    });
}

/// Bare fences of one context, signaled by two threads out of turn, with their context, executor and handles dropped
/// meanwhile.
#[test]
fn shuttle_bare_fences_out_of_turn_while_their_context_goes() {
    explore("bare fences out of turn while their context goes", || {
        let executor = Executor::builder().threads().unwrap();
        let context = FenceContext::new(&executor, Names { driver: "d", timeline: "t" }).unwrap();
        let (first, one) = context.allocate().unwrap().publish();
        let (second, two) = context.allocate().unwrap().publish();
        let ran = Arc::new(AtomicUsize::new(0));
        for fence in [&one, &two] {
            let ran = ran.clone();
            let count = move |_| {
                ran.fetch_add(1, SeqCst);
            };
            fence.on_signaled(count).map(crate::Registration::keep).unwrap();
        }
        let threads = [
            thread::spawn(move || second.signal(Ok(()))),
            thread::spawn(move || drop(first)),
            thread::spawn(move || drop((context, executor))),
        ];
        two.wait(Duration::MAX).unwrap();
        assert!(one.is_signaled(), "in their turn");
        for thread in threads {
            thread.join().unwrap();
        }
        while ran.load(SeqCst) < 2 {
            thread::yield_now();
        }
    });
}
