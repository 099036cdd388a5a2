//! How jobs come to start, or never do: dependencies, commits, credits, resources, user fences.
#![expect(unsafe_code, reason = "a job's nodes, reached by hand; docs/unsafe.md, `queue::loom_tests::starts`")]

use super::{Payload, World, get, lane};
use crate::queue::deps;
use crate::queue::job::JobCore;
use crate::sync::model::{Model, race, race3};
use crate::{Executor, Fence, FenceContext, FenceError, Job, Names, QueueConfig, Signaler, Status, Time, UserFence};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

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
    Model::new("last dependency against close and lane").check(|| {
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

/// The last dependency's signal, a close and the lane.
#[test]
fn loom_last_dependency_against_close_against_lane() {
    Model::new("last dependency, close, lane").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap().commit();
        race3(
            lane(&world.executor),
            move || signaler.signal(Err(FenceError::Canceled)),
            || {
                let _ = world.queue.close();
            },
        );
        world.end(&[job]);
    });
}

/// A dependency that fails with its own job still on the hardware: the dependant's node moves on to that one's `retired`,
/// while its queue closes and the lane takes the node off.
#[test]
fn loom_dependency_that_moves_on_to_retired_against_close_against_lane() {
    Model::new("dependency moves on, close, lane").check(|| {
        let world = World::new();
        let first = world.commit();
        let done = world.take();
        let other = world.device.queue(QueueConfig::new("other"), ()).unwrap();
        let second = other.reserve_after(Payload::new(&world.log), [first.finished()]).unwrap().commit();
        race3(
            lane(&world.executor),
            move || {
                // It fails, and is free, at two moments.
                drop(done);
            },
            || drop(other),
        );
        world.executor.run_until_idle();
        assert!(second.retired().is_signaled());
        world.device.unplug();
        world.end(&[first, second]);
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

/// A dependency is counted down while the queue takes the node off: whoever has the node counts, once.
#[test]
fn loom_signal_against_disarm() {
    Model::new("signal against disarm").check(|| {
        let world = World::new();
        let (signaler, fence) = dependency(&world.executor);
        let job = world.queue.reserve_after(Payload::new(&world.log), [fence]).unwrap().commit();
        let core = JobCore::of(&job.finished());
        let core = core.as_ptr().expose_provenance();
        race(
            move || {
                let core = core::ptr::with_exposed_provenance_mut::<JobCore>(core);
                // SAFETY: `job` keeps the block, and the job is in the order until the lane runs.
                unsafe { deps::disarm(core::ptr::NonNull::new(core).unwrap()) };
            },
            || signaler.signal(Ok(())),
        );
        let core = core::ptr::with_exposed_provenance_mut::<JobCore>(core);
        // SAFETY: as above.
        assert_eq!(unsafe { &*core }.waiting.load(crate::sync::atomic::Ordering::Acquire), 0);
        world.queue.inner.shared.poke();
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

/// A commit, a reset and the lane: the doorbell does not ring behind the reset's back, and the job starts in the end.
#[test]
fn loom_commit_against_reset_against_lane() {
    Model::new("commit, reset, lane").check(|| {
        let world = World::new();
        let reserved = world.queue.reserve(Payload::new(&world.log)).unwrap();
        let fences = Arc::new(Mutex::new(None));
        let committed = fences.clone();
        race3(
            lane(&world.executor),
            move || {
                let job = reserved.commit();
                *committed.lock().unwrap() = Some(job);
            },
            || world.device.reset(),
        );
        world.executor.run_until_idle();
        let job = fences.lock().unwrap().take().unwrap();
        assert_eq!(job.scheduled().status(), Status::Signaled(Ok(())), "held for ever");
        world.end(&[job]);
    });
}

/// A suspension, its end, and a commit: the job starts once nothing holds it.
#[test]
fn loom_suspend_and_resume_against_commit() {
    Model::new("suspend and resume against commit").check(|| {
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
                world.queue.suspend();
                world.queue.resume();
            },
        );
        world.executor.run_until_idle();
        let job = fences.lock().unwrap().take().unwrap();
        assert_eq!(job.scheduled().status(), Status::Signaled(Ok(())), "left behind");
        world.end(&[job]);
    });
}

/// The fence that `acquire` named signals while the queue closes.
#[test]
fn loom_resource_against_close() {
    Model::new("resource against close").check(|| {
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
    Model::new("user fence against cancel").check(|| {
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

/// A user fence's signal, a cancellation and the lane.
#[test]
fn loom_user_fence_against_cancel_against_lane() {
    Model::new("user fence, cancel, lane").check(|| {
        let world = World::new();
        let (source, user) = UserFence::new(&world.executor, "host").unwrap();
        let job = Job::new(Payload::new(&world.log)).user_waits(1);
        let pending = world.queue.reserve(job).unwrap().commit_when(&[user], Time::NEVER).unwrap();
        let canceled = Arc::new(AtomicBool::new(false));
        race3(
            lane(&world.executor),
            move || {
                source.signal(Ok(()));
            },
            || canceled.store(pending.cancel(), Ordering::SeqCst),
        );
        world.executor.run_until_idle();
        let fences = pending.fences();
        assert_eq!(fences.is_none(), canceled.load(Ordering::SeqCst), "cancelled and committed");
        drop(pending);
        world.end(fences.as_slice());
    });
}

/// A user fence signals while the queue closes.
#[test]
fn loom_user_fence_against_close() {
    Model::new("user fence against close").check(|| {
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

/// A closed queue with a job that is just being committed is not drained, however little is left for the reaper.
#[test]
fn loom_user_fence_on_the_lane_against_close_and_reaper() {
    Model::new("user fence on the lane against close and reaper").check(|| {
        let world = World::new();
        let first = world.commit();
        let (source, user) = UserFence::new(&world.executor, "host").unwrap();
        let job = Job::new(Payload::new(&world.log)).user_waits(1);
        let pending = world.queue.reserve(job).unwrap().commit_when(&[user], Time::NEVER).unwrap();
        world.executor.run_until_idle();
        world.take().complete(Ok(()));
        source.signal(Ok(()));
        drop(source);
        let (reaper, drained, log) = (world.executor.clone(), world.queue.drained(), world.log.clone());
        let shared = world.queue.inner.clone();
        race(
            move || {
                shared.shared.close();
                reaper.reap();
                if drained.is_drained() {
                    assert_eq!(get(&log.dropped), get(&log.made), "drained, with a payload left");
                }
            },
            || {
                world.executor.step();
            },
        );
        world.executor.run_until_idle();
        let fences = pending.fences();
        drop(pending);
        let jobs: Vec<_> = fences.into_iter().chain([first]).collect();
        world.end(&jobs);
    });
}
