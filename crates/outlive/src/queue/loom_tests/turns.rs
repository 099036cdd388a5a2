//! Queues under an arbiter: whatever happens when a credit comes free, whoever waits for it is not forgotten.

use super::{Gpu, Log, Payload, World, lane};
use crate::sabotage::{self, Sabotage};
use crate::sched::{Arbiter, ArbiterConfig, Priority};
use crate::sync::model::{Model, race, race3};
use crate::{
    Dependency, Device, Executor, FenceContext, FenceError, JobFences, JobQueue, Names, OnError, OpenError,
    QueueConfig, Status,
};

/// Queues of one device under one arbiter with one credit.
struct Many {
    world: World,
    arbiter: Option<Arbiter>,
    others: std::vec::Vec<JobQueue<Gpu>>,
}

impl Many {
    fn new(others: usize) -> Self {
        let executor = Executor::manual().unwrap();
        let config = ArbiterConfig::new(1).queues(4).in_order(true);
        let arbiter = Some(Arbiter::new(&executor, config).unwrap());
        let log = Log::default();
        let device = Device::new(&executor, Gpu::new(&log)).unwrap();
        let open = || device.queue(Self::config(arbiter.as_ref().unwrap()), ()).unwrap();
        let (queue, others) = (open(), (0..others).map(|_| open()).collect());
        Self { world: World { executor, device, queue, log }, arbiter, others }
    }

    fn config(arbiter: &Arbiter) -> QueueConfig {
        QueueConfig::new("q").arbiter(arbiter)
    }

    fn commit_to(&self, other: usize) -> JobFences {
        self.others[other].reserve(Payload::new(&self.world.log)).unwrap().commit()
    }

    fn complete(&self) -> impl FnOnce() + 'static {
        let done = self.world.take();
        move || done.complete(Ok(()))
    }

    /// What is left of a race happens; then one of `jobs` has the credit.
    fn somebody_runs(&self, jobs: &[&JobFences]) {
        self.world.executor.run_until_idle();
        let runs = |job: &&&JobFences| job.scheduled().status() == Status::Signaled(Ok(()));
        assert_eq!(jobs.iter().filter(runs).count(), 1, "the credit is free, and everybody waits");
    }

    fn end(self, jobs: &[JobFences]) {
        let Self { world, arbiter, others } = self;
        drop(others);
        world.executor.run_until_idle();
        let status = arbiter.as_ref().map(Arbiter::status);
        assert!(status.is_none_or(|status| status.ready == 0));
        drop(arbiter);
        world.end(jobs);
    }
}

fn completion_against_commit() {
    let many = Many::new(1);
    let first = many.world.commit();
    let reserved = many.others[0].reserve(Payload::new(&many.world.log)).unwrap();
    let mut second = None;
    race(many.complete(), || second = Some(reserved.commit()));
    let second = second.unwrap();
    many.somebody_runs(&[&second]);
    many.end(&[first, second]);
}

/// One job ends while another queue asks.
#[test]
fn loom_turn_completion_against_commit() {
    Model::new("turn: completion against commit").check(completion_against_commit);
}

/// The same, where the arbiter tells nobody.
#[test]
#[should_panic(expected = "everybody waits")]
fn loom_teeth_a_turn_that_nobody_is_told_of() {
    sabotage::commit(Some(Sabotage::LoseTurn));
    Model::new("teeth: a turn that nobody is told of").check(completion_against_commit);
}

/// One job ends while two other queues ask, the lane at it.
#[test]
fn loom_turn_completion_against_two_commits() {
    Model::new("turn: completion against two commits").check(|| {
        let many = Many::new(2);
        let first = many.world.commit();
        let log = many.world.log.clone();
        let [one, two] = [0, 1].map(|other| many.others[other].reserve(Payload::new(&log)).unwrap());
        let fences = std::sync::Arc::new(std::sync::Mutex::new(None));
        let told = fences.clone();
        let mut second = None;
        race3(many.complete(), move || *told.lock().unwrap() = Some(one.commit()), || second = Some(two.commit()));
        let (second, third) = (second.unwrap(), fences.lock().unwrap().take().unwrap());
        many.somebody_runs(&[&second, &third]);
        many.end(&[first, second, third]);
    });
}

/// A credit comes free while the one whose turn it is closes; another waits.
#[test]
fn loom_turn_completion_against_close_against_lane() {
    Model::new("turn: completion, close, lane").check(|| {
        let many = Many::new(2);
        let jobs = [many.world.commit(), many.commit_to(0), many.commit_to(1)];
        race3(lane(&many.world.executor), many.complete(), || drop(many.others[0].close()));
        many.world.executor.run_until_idle();
        // It may have been handed over before.
        if jobs[1].scheduled().status() == Status::Signaled(Ok(())) {
            many.complete()();
        }
        many.somebody_runs(&[&jobs[2]]);
        many.end(&jobs);
    });
}

/// The same with a suspension, which ends.
#[test]
fn loom_turn_completion_against_suspend_and_resume() {
    Model::new("turn: completion, suspend and resume").check(|| {
        let many = Many::new(2);
        let jobs = [many.world.commit(), many.commit_to(0), many.commit_to(1)];
        race(many.complete(), || {
            many.others[0].suspend();
            many.world.executor.step();
            many.others[0].resume();
        });
        many.somebody_runs(&[&jobs[1], &jobs[2]]);
        many.end(&jobs);
    });
}

/// A credit comes free while the last handle of the queue whose turn it is goes, with nothing of it left: the arbiter may be
/// calling it.
#[test]
fn loom_turn_completion_against_last_handle() {
    Model::new("turn: completion against the last handle").check(|| {
        let mut many = Many::new(2);
        let jobs = [many.world.commit(), many.commit_to(0), many.commit_to(1)];
        let gone = many.others.remove(0);
        race3(lane(&many.world.executor), many.complete(), || drop(gone));
        many.world.executor.run_until_idle();
        if jobs[1].scheduled().status() == Status::Signaled(Ok(())) {
            many.complete()();
        }
        many.somebody_runs(&[&jobs[2]]);
        many.end(&jobs);
    });
}

/// A credit comes free while a share changes.
#[test]
fn loom_turn_completion_against_another_priority_against_lane() {
    Model::new("turn: completion, priority, lane").check(|| {
        let many = Many::new(2);
        let jobs = [many.world.commit(), many.commit_to(0), many.commit_to(1)];
        race3(lane(&many.world.executor), many.complete(), || many.others[1].set_priority(Priority::High));
        many.somebody_runs(&[&jobs[1], &jobs[2]]);
        many.end(&jobs);
    });
}

/// The arbiter goes while a job ends and another is committed: all of them end.
#[test]
fn loom_turn_drop_of_the_arbiter_against_completion_against_commit() {
    Model::new("turn: drop of the arbiter, completion, commit").check(|| {
        let mut many = Many::new(1);
        let first = many.world.commit();
        let reserved = many.others[0].reserve(Payload::new(&many.world.log)).unwrap();
        let arbiter = many.arbiter.take();
        let mut second = None;
        race3(move || drop(arbiter), many.complete(), || second = Some(reserved.commit()));
        many.world.executor.run_until_idle();
        let jobs = [first, second.unwrap()];
        assert!(many.others[0].reserve(Payload::new(&many.world.log)).is_err(), "its queues are closed");
        many.end(&jobs);
    });
}

/// The arbiter goes while a queue is opened: it is not let in, or closed.
#[test]
fn loom_turn_drop_of_the_arbiter_against_open() {
    Model::new("turn: drop of the arbiter against open").check(|| {
        let mut many = Many::new(0);
        let arbiter = many.arbiter.take();
        let config = Many::config(arbiter.as_ref().unwrap());
        let mut opened = None;
        race(move || drop(arbiter), || opened = Some(many.world.device.queue(config, ())));
        match opened.unwrap() {
            Err(error) => assert_eq!(error, OpenError::ArbiterGone),
            Ok(queue) => assert!(queue.status().closed),
        }
        many.world.executor.run_until_idle();
        many.end(&[]);
    });
}

/// Whoever has the turn lacks a resource and gives the turn back, while that comes.
#[test]
fn loom_turn_given_back_for_a_resource_against_its_signal() {
    Model::new("turn: given back, the resource's signal, lane").check(|| {
        let many = Many::new(1);
        let context = FenceContext::new(&many.world.executor, Names { driver: "d", timeline: "t" }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        *many.world.device.driver().resource.lock().unwrap() = Some(fence);
        let reserved = many.world.queue.reserve(Payload::new(&many.world.log)).unwrap();
        let mut first = None;
        race3(lane(&many.world.executor), move || signaler.signal(Ok(())), || first = Some(reserved.commit()));
        let first = first.unwrap();
        many.somebody_runs(&[&first]);
        let second = many.commit_to(0);
        many.complete()();
        many.somebody_runs(&[&second]);
        drop(context);
        many.end(&[first, second]);
    });
}

/// A job is to go behind another, which never starts: it waits for that one's verdict.
#[test]
fn loom_pipelined_behind_a_job_that_never_starts() {
    Model::new("pipelined behind a job that never starts").check(|| {
        let many = Many::new(1);
        many.world.queue.suspend();
        let first = many.world.commit();
        *many.world.device.driver().ahead.lock().unwrap() = Some(first.clone());
        let behind = Dependency::on(first.finished()).on_error(OnError::Run).pipelined();
        let reserved = many.others[0].reserve_after(Payload::new(&many.world.log), [behind]).unwrap();
        drop(many.world.queue.close());
        let mut second = None;
        race(lane(&many.world.executor), || second = Some(reserved.commit()));
        let second = second.unwrap();
        many.somebody_runs(&[&second]);
        *many.world.device.driver().ahead.lock().unwrap() = None;
        many.end(&[first, second]);
    });
}

/// The end of a job is told before that of the one ahead, or at once with it: it reports the other's error.
#[test]
fn loom_pipelined_completion_against_the_failure_of_the_one_ahead() {
    Model::new("pipelined: completion against failure ahead").check(|| {
        let executor = Executor::manual().unwrap();
        let arbiter = Arbiter::new(&executor, ArbiterConfig::new(2).queues(4).in_order(true)).unwrap();
        let log = Log::default();
        let device = Device::new(&executor, Gpu::new(&log)).unwrap();
        let open = || device.queue(Many::config(&arbiter).client(1), ()).unwrap();
        let (queue, other) = (open(), open());
        let first = queue.reserve(Payload::new(&log)).unwrap().commit();
        let behind = Dependency::on(first.finished()).pipelined();
        let second = other.reserve_after(Payload::new(&log), [behind]).unwrap().commit();
        let world = World { executor, device, queue, log };
        let (fails, ends) = (world.take(), world.take());
        race3(
            lane(&world.executor),
            move || fails.complete(Err(FenceError::Faulted { code: 1 })),
            || ends.complete(Ok(())),
        );
        world.executor.run_until_idle();
        assert!(matches!(second.finished().status(), Status::Signaled(Err(FenceError::Dependency(_)))));
        drop((other, arbiter));
        world.end(&[first, second]);
    });
}
