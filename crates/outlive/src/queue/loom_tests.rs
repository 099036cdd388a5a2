//! Job queues under loom: who disposes of a job, and every way a queue, a device or a job can end while something else
//! happens to it. Each model is named for what races.
//!
//! The executor is manual. Where the signalling lane matters to the race, one of the threads steps it; the rest is done
//! after both have ended. At the end of every execution all fences have signaled, every payload is dropped or in
//! quarantine, every object is freed, and no memory is left.

#![expect(unsafe_code, reason = "a job's nodes, reached by hand; docs/unsafe.md, `queue::loom_tests`")]

use super::disposal::{Disposal, Hardware};
use crate::queue::deps;
use crate::sync::model::{Model, race, race3};
use crate::{
    Acquired, Completion, Device, Driver, Executor, Fence, FenceContext, FenceError, InFlight, Job, JobCx, JobFences,
    JobQueue, Names, QueueConfig, ResetScope, ResetToken, Signaler, Status, Time, UserFence,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// What a driver and its payloads have seen. Not loom's: it adds nothing to explore, and no order between threads.
#[derive(Default)]
struct Seen {
    made: AtomicUsize,
    dropped: AtomicUsize,
    drivers: AtomicUsize,
    started: AtomicUsize,
    canceled: AtomicUsize,
}

type Log = Arc<Seen>;

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

fn get(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

struct Payload(Log);

impl Payload {
    fn new(log: &Log) -> Self {
        add(&log.made);
        Self(log.clone())
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        add(&self.0.dropped);
        assert_eq!(get(&self.0.drivers), 0, "the driver goes last");
    }
}

struct Gpu {
    log: Log,
    /// Completions of what is on the hardware.
    held: Mutex<Vec<Completion>>,
    /// Whether it can exclude DMA.
    stops: bool,
    /// What `acquire` waits for.
    resource: Mutex<Option<Fence>>,
}

impl Gpu {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), held: Mutex::default(), stops: true, resource: Mutex::default() }
    }

    fn answer(&self, token: ResetToken) {
        if self.stops { token.quiesced() } else { token.failed() }
    }
}

impl Driver for Gpu {
    type Job = Payload;
    type Queue = ();
    const RESOURCES: bool = true;

    fn acquire(&self, _cx: &mut JobCx<'_, Self>) -> Acquired {
        match self.resource.lock().unwrap().take() {
            Some(fence) => Acquired::Wait(fence),
            None => Acquired::Yes,
        }
    }

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        add(&self.log.started);
        self.held.lock().unwrap().push(done);
    }

    fn cancel(&self, _cx: &mut JobCx<'_, Self>) {
        add(&self.log.canceled);
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        self.answer(token);
    }

    fn unplug(&self, token: ResetToken) {
        self.answer(token);
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        add(&self.log.drivers);
    }
}

/// A device with one queue, and what to check at its end.
struct World {
    executor: Executor,
    device: Device<Gpu>,
    queue: JobQueue<Gpu>,
    log: Log,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {}, QueueConfig::new("q"))
    }

    fn with(change: impl FnOnce(&mut Gpu), config: QueueConfig) -> Self {
        let executor = Executor::manual().unwrap();
        let log = Log::default();
        let mut gpu = Gpu::new(&log);
        change(&mut gpu);
        let device = Device::new(&executor, gpu).unwrap();
        let queue = device.queue(config, ()).unwrap();
        Self { executor, device, queue, log }
    }

    fn commit(&self) -> JobFences {
        self.queue.reserve(Payload::new(&self.log)).unwrap().commit()
    }

    fn take(&self) -> Completion {
        self.device.driver().held.lock().unwrap().remove(0)
    }

    /// Completes what is on the hardware still, lets every handle go, and looks that all has ended.
    fn end(self, jobs: &[JobFences]) {
        let Self { executor, device, queue, log } = self;
        executor.run_until_idle();
        loop {
            let held = device.driver().held.lock().unwrap().pop();
            let Some(done) = held else { break };
            done.complete(Ok(()));
            executor.run_until_idle();
        }
        let (quarantined, gone) = (device.quarantine().jobs, device.drained());
        drop((queue, device));
        executor.run_until_idle();
        for job in jobs {
            assert!(job.scheduled().is_signaled() && job.finished().is_signaled(), "{job:?}");
            let Status::Signaled(retired) = job.retired().status() else { panic!("{job:?} has not retired") };
            assert_eq!(retired.is_err(), quarantined > 0);
        }
        assert_eq!(get(&log.dropped) + usize::try_from(quarantined).unwrap(), get(&log.made), "a payload was lost");
        if quarantined == 0 {
            assert_eq!(get(&log.drivers), 1, "the driver is still there");
            assert!(gone.is_drained());
            assert_eq!(executor.live_objects(), 0);
        }
    }
}

/// Completion, close and a timeout give their verdicts: one counts, and everyone reads that one.
#[test]
fn loom_disposal_completion_against_close_against_timeout() {
    Model::new("disposal: completion, close, timeout").check(|| {
        let disposal = loom::sync::Arc::new(Disposal::new());
        assert!(disposal.start());
        let (one, two) = (disposal.clone(), disposal.clone());
        let winners = Arc::new(AtomicUsize::new(0));
        let (first, second) = (winners.clone(), winners.clone());
        let decide = |disposal: &Disposal, result, winners: &AtomicUsize| {
            if disposal.decide(result) {
                add(winners);
                assert_eq!(disposal.verdict(), Some(result));
            }
            assert!(disposal.verdict().is_some());
        };
        race3(
            move || {
                decide(&one, Ok(()), &first);
                assert!(one.free(), "nobody else says that the hardware is done");
            },
            move || decide(&two, Err(FenceError::Canceled), &second),
            || decide(&disposal, Err(FenceError::TimedOut), &winners),
        );
        assert_eq!(get(&winners), 1);
        assert_eq!(disposal.hardware(), Hardware::Free);
    });
}

/// A verdict comes while the job is being handed to the hardware: it starts before it, or never.
#[test]
fn loom_disposal_start_against_close_against_failed_dependency() {
    Model::new("disposal: start, close, failed dependency").check(|| {
        let disposal = loom::sync::Arc::new(Disposal::new());
        let (one, two) = (disposal.clone(), disposal.clone());
        let started = Arc::new(AtomicBool::new(false));
        let told = started.clone();
        race3(
            move || {
                one.decide(Err(FenceError::Canceled));
            },
            move || {
                two.decide(Err(FenceError::Innocent));
            },
            || {
                let decided = disposal.verdict().is_some();
                let start = disposal.start();
                assert!(!(decided && start), "a decided job was started");
                told.store(start, Ordering::SeqCst);
            },
        );
        assert!(disposal.verdict().is_some() && !disposal.start());
        let hardware = if started.load(Ordering::SeqCst) { Hardware::On } else { Hardware::Off };
        assert_eq!(disposal.hardware(), hardware);
    });
}

/// Completion, a reset that worked and one that did not say what became of the hardware: one of them settles the job.
#[test]
fn loom_disposal_completion_against_quiesced_against_quarantine() {
    Model::new("disposal: completion, quiesced, quarantine").check(|| {
        let disposal = loom::sync::Arc::new(Disposal::new());
        assert!(disposal.start());
        let (one, two) = (disposal.clone(), disposal.clone());
        let settled = Arc::new(AtomicUsize::new(0));
        let (first, second) = (settled.clone(), settled.clone());
        race3(
            move || {
                one.decide(Ok(()));
                if one.free() {
                    add(&first);
                }
            },
            move || {
                if two.free() {
                    two.decide(Err(FenceError::Innocent));
                    add(&second);
                }
            },
            || {
                if disposal.quarantine() {
                    disposal.decide(Err(FenceError::DeviceLost));
                    add(&settled);
                }
            },
        );
        assert_eq!(get(&settled), 1);
        assert!(disposal.verdict().is_some());
        assert!([Hardware::Free, Hardware::Quarantined].contains(&disposal.hardware()));
    });
}

/// A dropped completion tells the queue while the device says that the hardware is done: the job is not retired, and its
/// queue stays, until the news was given. `owing`: with [`Disposal::decide_owing`], as shipped.
fn owed_news(owing: bool, noted: &Arc<AtomicBool>) {
    struct Shared {
        disposal: Disposal,
        lock: loom::sync::Mutex<bool>,
    }
    let shared = loom::sync::Arc::new(Shared { disposal: Disposal::new(), lock: loom::sync::Mutex::new(false) });
    assert!(shared.disposal.start());
    let (dropped, noted) = (shared.clone(), noted.clone());
    race(
        move || {
            let result = Err(FenceError::Canceled);
            let news = if owing { dropped.disposal.decide_owing(result) } else { dropped.disposal.decide(result) };
            if news {
                let retired = dropped.lock.lock().unwrap();
                if *retired {
                    noted.store(true, Ordering::SeqCst);
                }
                dropped.disposal.pay();
            }
        },
        || {
            shared.disposal.free();
            shared.disposal.decide(Err(FenceError::Innocent));
            let mut retired = shared.lock.lock().unwrap();
            // As `QueueState::take_retire`; a job that is owed is looked at again by who pays.
            *retired = !shared.disposal.is_owed();
        },
    );
}

/// The protocol of [`owed_news`].
#[test]
fn loom_disposal_owed_news_against_quiesced() {
    Model::new("disposal: owed news, quiesced").check(|| {
        let found = Arc::new(AtomicBool::new(false));
        owed_news(true, &found);
        assert!(!found.load(Ordering::SeqCst), "the queue was gone when it was told");
    });
}

/// Without the debt, the queue is gone when it is told.
#[test]
#[should_panic(expected = "found, as it should be")]
fn loom_teeth_news_that_nobody_owes() {
    let found = Arc::new(AtomicBool::new(false));
    let noted = found.clone();
    Model::new("teeth: news that nobody owes").check(move || owed_news(false, &noted));
    assert!(!found.load(Ordering::SeqCst), "found, as it should be");
}

/// Asking first and then acting, instead of acting on the exchange's answer, lets two dispose of one job.
#[test]
#[should_panic(expected = "found, as it should be")]
fn loom_teeth_two_verdicts() {
    let found = Arc::new(AtomicBool::new(false));
    let noted = found.clone();
    Model::new("teeth: two verdicts").check(move || {
        let disposal = loom::sync::Arc::new(Disposal::new());
        let other = disposal.clone();
        let winners = Arc::new(AtomicUsize::new(0));
        let told = winners.clone();
        let decide = |disposal: &Disposal, result, winners: &AtomicUsize| {
            // The defect.
            if disposal.verdict().is_none() {
                disposal.decide(result);
                add(winners);
            }
        };
        race(
            move || decide(&other, Err(FenceError::Canceled), &told),
            || decide(&disposal, Err(FenceError::TimedOut), &winners),
        );
        noted.fetch_or(get(&winners) == 2, Ordering::SeqCst);
    });
    assert!(!found.load(Ordering::SeqCst), "found, as it should be");
}

/// A job on the hardware completes while its queue closes: its verdict is one of the two, and it retires once.
#[test]
fn loom_completion_against_close() {
    Model::new("completion against close").check(|| {
        let world = World::new();
        let job = world.commit();
        let done = world.take();
        race(
            move || done.complete(Ok(())),
            || {
                let _ = world.queue.close();
            },
        );
        world.executor.run_until_idle();
        assert!([Ok(()), Err(FenceError::Canceled)].map(Status::Signaled).contains(&job.finished().status()));
        assert_eq!(job.retired().status(), Status::Signaled(Ok(())));
        world.end(&[job]);
    });
}

/// The same, and the signalling lane is at it meanwhile; a second job waits behind.
#[test]
fn loom_completion_against_close_and_lane() {
    Model::shallow("completion against close and lane").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(1));
        let (first, second) = (world.commit(), world.commit());
        let done = world.take();
        race(
            move || done.complete(Ok(())),
            || {
                let _ = world.queue.close();
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        assert!(second.finished().is_signaled());
        world.end(&[first, second]);
    });
}

/// A completion is dropped by its driver while the device is unplugged and stops DMA.
#[test]
fn loom_drop_of_a_completion_against_quiesced() {
    Model::shallow("drop of a completion against quiesced").check(|| {
        let world = World::new();
        let job = world.commit();
        let done = world.take();
        race(
            move || drop(done),
            || {
                world.device.unplug();
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        assert!(job.retired().is_signaled());
        world.end(&[job]);
    });
}

/// A completion comes while the device is reset: the job fails as innocent or succeeds, and retires once.
#[test]
fn loom_completion_against_reset() {
    Model::shallow("completion against reset").check(|| {
        let world = World::new();
        let job = world.commit();
        let done = world.take();
        race(
            move || done.complete(Ok(())),
            || {
                world.device.reset();
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        assert!([Ok(()), Err(FenceError::Innocent)].map(Status::Signaled).contains(&job.finished().status()));
        // The queue goes on.
        let after = world.commit();
        assert!(after.scheduled().is_signaled() || world.executor.step());
        world.end(&[job, after]);
    });
}

/// A completion comes while a device that cannot stop DMA is unplugged: free, or in quarantine, never both.
#[test]
fn loom_completion_against_quarantine() {
    Model::shallow("completion against quarantine").check(|| {
        // What is in quarantine stays for ever, so this model does not count memory.
        let before = crate::sync::model::live_blocks();
        let world = World::with(|gpu| gpu.stops = false, QueueConfig::new("q"));
        let job = world.commit();
        let done = world.take();
        race(
            move || done.complete(Ok(())),
            || {
                world.device.unplug();
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        let quarantined = world.device.quarantine().jobs == 1;
        let retired = if quarantined { Err(FenceError::Quarantined) } else { Ok(()) };
        assert_eq!(job.retired().status(), Status::Signaled(retired));
        world.end(&[job]);
        if quarantined {
            crate::sync::model::forgive(before);
        }
    });
}

/// Two jobs complete at once, in any order: they finish in sequence order, and their credits come back.
#[test]
fn loom_completions_of_neighbours() {
    Model::new("completions of neighbours").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(2));
        let (first, second) = (world.commit(), world.commit());
        let (one, two) = (world.take(), world.take());
        race(move || two.complete(Ok(())), || one.complete(Err(FenceError::Faulted { code: 1 })));
        assert!(first.finished().is_signaled() && second.finished().is_signaled());
        assert!(first.retired().is_signaled() && second.retired().is_signaled());
        assert_eq!(world.queue.status().credits_free, 2);
        world.end(&[first, second]);
    });
}

/// The same, and somebody watches the order.
#[test]
fn loom_completions_of_neighbours_are_seen_in_order() {
    Model::shallow("completions of neighbours, watched").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(2));
        let jobs = [world.commit(), world.commit()];
        let (one, two) = (world.take(), world.take());
        let watched = jobs.clone();
        race3(
            move || two.complete(Ok(())),
            move || {
                let [first, second] = watched;
                if second.retired().is_signaled() {
                    assert!(first.retired().is_signaled() && second.finished().is_signaled());
                }
                if second.finished().is_signaled() {
                    assert!(first.finished().is_signaled());
                }
            },
            || one.complete(Ok(())),
        );
        world.end(&jobs);
    });
}

/// Two interrupts report the same progress of one ring.
#[test]
fn loom_complete_through_from_two_threads() {
    Model::shallow("complete_through from two threads").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(2));
        let jobs = [world.commit(), world.commit()];
        let ring = loom::sync::Arc::new(InFlight::with_capacity(2).unwrap());
        ring.insert(1, world.take()).unwrap();
        ring.insert(2, world.take()).unwrap();
        let (other, counted) = (ring.clone(), Arc::new(AtomicUsize::new(0)));
        let count = counted.clone();
        race(
            move || {
                count.fetch_add(other.complete_through(2), Ordering::SeqCst);
            },
            || {
                counted.fetch_add(ring.complete_through(2), Ordering::SeqCst);
            },
        );
        assert_eq!(get(&counted), 2);
        assert!(jobs[1].retired().is_signaled() && ring.is_empty());
        world.end(&jobs);
    });
}

fn dependency(executor: &Executor) -> (Signaler, Fence) {
    let context = FenceContext::new(executor, Names { driver: "loom", timeline: "dependency" }).unwrap();
    context.allocate().unwrap().publish()
}

/// The last dependency signals while the dependant's queue closes: its node is on the fence, in the signaller's hands, or
/// resolved; the job runs and is cancelled, or never starts.
#[test]
fn loom_last_dependency_against_close() {
    Model::new("last dependency against close").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap().commit();
        race(
            move || signaler.signal(Ok(())),
            || {
                let _ = world.queue.close();
            },
        );
        world.end(&[job]);
    });
}

/// The same, with the signalling lane at it, which takes the node off.
#[test]
fn loom_last_dependency_against_close_and_lane() {
    Model::shallow("last dependency against close and lane").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap().commit();
        race(
            move || signaler.signal(Ok(())),
            || {
                let _ = world.queue.close();
                world.executor.step();
            },
        );
        world.end(&[job]);
    });
}

/// Both dependencies of a job signal at once: one of them is the last, and the job starts.
#[test]
fn loom_two_dependencies_at_once() {
    Model::new("two dependencies at once").check(|| {
        let world = World::new();
        let (one, first) = dependency(&world.executor);
        let (two, second) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [first, second]).unwrap().commit();
        race(move || one.signal(Ok(())), || two.signal(Err(FenceError::Canceled)));
        world.executor.run_until_idle();
        assert_eq!(job.scheduled().status(), Status::Signaled(Ok(())), "an other client's error is no reason to fail");
        world.end(&[job]);
    });
}

/// A job is committed while what it depends on signals: the node is registered, or resolved at once.
#[test]
fn loom_commit_against_its_dependency() {
    Model::new("commit against its dependency").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let reserved = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap();
        let fences = Arc::new(Mutex::new(None));
        race(
            move || signaler.signal(Ok(())),
            || {
                *fences.lock().unwrap() = Some(reserved.commit());
            },
        );
        world.executor.run_until_idle();
        let job = fences.lock().unwrap().take().unwrap();
        assert_eq!(job.scheduled().status(), Status::Signaled(Ok(())));
        world.end(&[job]);
    });
}

/// A job is committed while its queue closes: its fences signal in any case.
#[test]
fn loom_commit_against_close() {
    Model::new("commit against close").check(|| {
        let world = World::new();
        let reserved = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let fences = Arc::new(Mutex::new(None));
        let committed = fences.clone();
        race(
            move || {
                let job = reserved.commit();
                *committed.lock().unwrap() = Some(job);
            },
            || {
                let _ = world.queue.close();
            },
        );
        let job = fences.lock().unwrap().take().unwrap();
        world.end(&[job]);
    });
}

/// Two submitters commit at once: one starts both, in sequence order, or each its own.
#[test]
fn loom_two_commits() {
    Model::new("two commits").check(|| {
        let world = World::new();
        let one = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let two = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let fences = Arc::new(Mutex::new(Vec::new()));
        let committed = fences.clone();
        race(
            move || {
                let job = one.commit();
                committed.lock().unwrap().push(job);
            },
            || {
                let job = two.commit();
                fences.lock().unwrap().push(job);
            },
        );
        world.executor.run_until_idle();
        assert_eq!(get(&world.log.started), 2, "a job was left behind");
        let held: Vec<_> = world.device.driver().held.lock().unwrap().iter().map(|done| done.id().seqno).collect();
        assert_eq!(held, [1, 2], "started out of order");
        let jobs = fences.lock().unwrap().clone();
        world.end(&jobs);
    });
}

/// A completion gives its credits back while the next job is committed: it starts there, or on the lane.
#[test]
fn loom_commit_against_completion() {
    Model::new("commit against completion").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(1));
        let first = world.commit();
        let done = world.take();
        let reserved = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let fences = Arc::new(Mutex::new(None));
        race(
            move || done.complete(Ok(())),
            || {
                *fences.lock().unwrap() = Some(reserved.commit());
            },
        );
        world.executor.run_until_idle();
        let second = fences.lock().unwrap().take().unwrap();
        assert_eq!(second.scheduled().status(), Status::Signaled(Ok(())), "lost wake-up");
        world.end(&[first, second]);
    });
}

/// The fence that `acquire` named signals while the queue closes.
#[test]
fn loom_resource_against_close() {
    Model::shallow("resource against close").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        *world.device.driver().resource.lock().unwrap() = Some(fence);
        let job = world.commit();
        assert!(!job.scheduled().is_signaled());
        race(
            move || signaler.signal(Ok(())),
            || {
                let _ = world.queue.close();
                world.executor.step();
            },
        );
        world.end(&[job]);
    });
}

/// The fence that `acquire` names signals while it is being named.
#[test]
fn loom_resource_against_commit() {
    Model::new("resource against commit").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        *world.device.driver().resource.lock().unwrap() = Some(fence);
        let reserved = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let fences = Arc::new(Mutex::new(None));
        race(
            move || signaler.signal(Ok(())),
            || {
                *fences.lock().unwrap() = Some(reserved.commit());
            },
        );
        world.executor.run_until_idle();
        let job = fences.lock().unwrap().take().unwrap();
        assert_eq!(job.scheduled().status(), Status::Signaled(Ok(())), "lost wake-up");
        world.end(&[job]);
    });
}

/// A user fence signals while the job that waits for it is cancelled: committed or cancelled, never both.
#[test]
fn loom_user_fence_against_cancel() {
    Model::shallow("user fence against cancel").check(|| {
        let world = World::new();
        let (source, user) = UserFence::new(&world.executor, "host").unwrap();
        let job = Job::new(Payload::new(&world.log)).user_waits(1);
        let pending = world.queue.reserve(job).unwrap().commit_when(&[user], Time::NEVER).unwrap();
        let canceled = Arc::new(AtomicBool::new(false));
        race(
            move || {
                source.signal(Ok(()));
            },
            || {
                world.executor.step();
                canceled.store(pending.cancel(), Ordering::SeqCst);
            },
        );
        world.executor.run_until_idle();
        let fences = pending.fences();
        assert_eq!(fences.is_none(), canceled.load(Ordering::SeqCst));
        assert_eq!(pending.done().is_signaled(), fences.is_none());
        drop(pending);
        world.end(fences.as_slice());
    });
}

/// A user fence signals while the queue closes.
#[test]
fn loom_user_fence_against_close() {
    Model::shallow("user fence against close").check(|| {
        let world = World::new();
        let (source, user) = UserFence::new(&world.executor, "host").unwrap();
        let job = Job::new(Payload::new(&world.log)).user_waits(1);
        let pending = world.queue.reserve(job).unwrap().commit_when(&[user], Time::NEVER).unwrap();
        race(
            move || {
                source.signal(Ok(()));
            },
            || {
                let _ = world.queue.close();
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        let (fences, done) = (pending.fences(), pending.done());
        drop(pending);
        world.end(fences.as_slice());
        assert!(done.is_signaled());
    });
}

/// The last handles of a queue, its device and a job's fences go from three threads.
#[test]
fn loom_last_handles_against_each_other() {
    Model::shallow("last handles of queue, device and job").check(|| {
        let World { executor, device, queue, log } = World::new();
        let job = queue.reserve(Payload::new(&log)).unwrap().commit();
        let done = device.driver().held.lock().unwrap().remove(0);
        race3(move || drop(queue), move || drop(device), || done.complete(Ok(())));
        executor.run_until_idle();
        assert!(job.retired().is_signaled());
        assert_eq!((get(&log.dropped), get(&log.drivers)), (1, 1));
        assert_eq!(executor.live_objects(), 0);
        drop(job);
    });
}

/// A dependency is counted down while the queue takes the node off: whoever has the node counts, once.
#[test]
fn loom_signal_against_disarm() {
    Model::new("signal against disarm").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap().commit();
        let core = super::job::JobCore::of(&job.finished());
        let core = core.as_ptr().expose_provenance();
        race(
            move || {
                let core = core::ptr::with_exposed_provenance_mut::<super::job::JobCore>(core);
                // SAFETY: `job` keeps the block, and the job is in the order until the lane runs.
                unsafe { deps::disarm(core::ptr::NonNull::new(core).unwrap()) };
            },
            || signaler.signal(Ok(())),
        );
        let core = core::ptr::with_exposed_provenance_mut::<super::job::JobCore>(core);
        // SAFETY: as above.
        assert_eq!(unsafe { &*core }.waiting.load(crate::sync::atomic::Ordering::Acquire), 0);
        world.queue.kick();
        world.end(&[job]);
    });
}
