//! Job queues under loom: who disposes of a job, and every way a queue, a device or a job can end while something else
//! happens to it. Each model is named for what races.
//!
//! The executor is manual. Where the signalling lane matters to the race, one of the threads steps it; the rest is done
//! after both have ended. At the end of every execution all fences have signaled, every payload is dropped or in
//! quarantine, every object is freed, and no memory is left.

mod ends;
mod starts;
mod turns;

use super::disposal::{Disposal, Hardware, News};
use crate::sync::model::{Model, race, race3};
use crate::{
    Acquired, Completion, Device, Driver, Executor, Fence, FenceError, JobCx, JobFences, JobQueue, QueueConfig,
    ResetScope, ResetToken, Status,
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
    /// This job was handed over, or has failed, before any other is handed over.
    ahead: Mutex<Option<JobFences>>,
}

impl Gpu {
    fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            held: Mutex::default(),
            stops: true,
            resource: Mutex::default(),
            ahead: Mutex::default(),
        }
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

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        add(&self.log.started);
        if let Some(ahead) = self.ahead.lock().unwrap().as_ref().filter(|ahead| ahead.finished().id() != cx.info().id) {
            let handed_over = ahead.scheduled().status() == Status::Signaled(Ok(()));
            assert!(handed_over || ahead.finished().is_signaled(), "ahead of the one it is to be behind");
        }
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
                assert_eq!(one.end(Ok(()), false), News::Tell, "nobody else says that the hardware is done");
                if one.verdict() == Some(Ok(())) {
                    add(&first);
                }
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
        assert!(disposal.start() && !disposal.leave_call());
        let (one, two) = (disposal.clone(), disposal.clone());
        let settled = Arc::new(AtomicUsize::new(0));
        let (first, second) = (settled.clone(), settled.clone());
        race3(
            move || {
                if one.end(Ok(()), true) == News::Tell {
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

/// A completion comes while the call that handed its job over ends: one of the two sees to the job.
#[test]
fn loom_disposal_completion_against_the_end_of_run() {
    Model::new("disposal: completion, end of run").check(|| {
        let disposal = loom::sync::Arc::new(Disposal::new());
        assert!(disposal.start());
        let other = disposal.clone();
        let told = Arc::new(AtomicUsize::new(0));
        let first = told.clone();
        race(
            move || {
                if other.end(Ok(()), true) == News::Tell {
                    add(&first);
                }
            },
            || {
                if disposal.leave_call() {
                    assert_eq!((disposal.verdict(), disposal.hardware()), (Some(Ok(())), Hardware::Free));
                    add(&told);
                }
            },
        );
        assert_eq!(get(&told), 1);
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

/// A lane, stepped by a thread of its own.
fn lane(executor: &Executor) -> impl FnOnce() + 'static {
    let executor = executor.clone();
    move || {
        executor.step();
        executor.step();
    }
}
