//! How jobs, queues and devices end while something else happens to them.

use super::Payload;
use super::{World, get, lane};
use crate::sync::model::{self, Model, race, race3};
use crate::{FenceError, InFlight, QueueConfig, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    Model::new("completion against close and lane").check(|| {
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

/// A completion, a close and the signalling lane, each on its own thread; a second job waits behind the first.
#[test]
fn loom_completion_against_close_against_lane() {
    Model::new("completion, close, lane").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(1));
        let jobs = [world.commit(), world.commit()];
        let done = world.take();
        race3(
            lane(&world.executor),
            move || done.complete(Ok(())),
            || {
                let _ = world.queue.close();
            },
        );
        world.end(&jobs);
    });
}

/// A completion is dropped by its driver while the device is unplugged and stops DMA.
#[test]
fn loom_drop_of_a_completion_against_quiesced() {
    Model::new("drop of a completion against quiesced").check(|| {
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

/// A dropped completion, an unplug that stops DMA, and the lane.
#[test]
fn loom_drop_of_a_completion_against_unplug_against_lane() {
    Model::new("drop of a completion, unplug, lane").check(|| {
        let world = World::new();
        let job = world.commit();
        let done = world.take();
        race3(lane(&world.executor), move || drop(done), || world.device.unplug());
        world.end(&[job]);
    });
}

/// A completion comes while the device is reset: the job fails as innocent or succeeds, and retires once.
#[test]
fn loom_completion_against_reset() {
    Model::new("completion against reset").check(|| {
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

/// A completion, a reset and the lane; the queue goes on after.
#[test]
fn loom_completion_against_reset_against_lane() {
    Model::new("completion, reset, lane").check(|| {
        let world = World::new();
        let job = world.commit();
        let done = world.take();
        race3(lane(&world.executor), move || done.complete(Ok(())), || world.device.reset());
        world.executor.run_until_idle();
        let after = world.commit();
        world.executor.run_until_idle();
        assert_eq!(after.scheduled().status(), Status::Signaled(Ok(())), "held for ever");
        world.end(&[job, after]);
    });
}

/// A completion comes while a device that cannot stop DMA is unplugged: free, or in quarantine, never both.
#[test]
fn loom_completion_against_quarantine() {
    Model::new("completion against quarantine").check(|| {
        // What is in quarantine stays for ever, so this model does not count memory.
        let before = model::live_blocks();
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
            model::forgive(before);
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

/// The same, and somebody watches the order. Too long for all preemptions asked for: one fewer.
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
    Model::new("complete_through from two threads").check(|| {
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

/// A submitter reaps in `reserve` while the reaper does, and while a completion retires another job.
#[test]
fn loom_reserve_against_reaper_against_completion() {
    Model::new("reserve, reaper, completion").check(|| {
        let world = World::with(|_| {}, QueueConfig::new("q").credits(2));
        let jobs = [world.commit(), world.commit()];
        world.take().complete(Ok(()));
        let done = world.take();
        let reaper = world.executor.clone();
        let unused = Payload::new(&world.log);
        race3(
            move || {
                reaper.reap();
            },
            move || done.complete(Ok(())),
            || drop(world.queue.reserve(unused).unwrap()),
        );
        world.end(&jobs);
    });
}

/// The last handles of a queue, its device and a job's fences go from three threads.
#[test]
fn loom_last_handles_against_each_other() {
    Model::new("last handles of queue, device and job").check(|| {
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

/// Every last handle of a queue with a job on the hardware goes, and the lanes run meanwhile. Too long for all preemptions
/// asked for: one fewer.
#[test]
fn loom_last_handles_against_lanes() {
    Model::shallow("last handles, lanes").check(|| {
        let World { executor, device, queue, log } = World::new();
        let job = queue.reserve(Payload::new(&log)).unwrap().commit();
        let done = device.driver().held.lock().unwrap().remove(0);
        let lanes = executor.clone();
        race3(
            move || {
                lanes.step();
                lanes.reap();
            },
            move || done.complete(Ok(())),
            || {
                drop(device);
                drop(queue);
            },
        );
        executor.run_until_idle();
        assert!(job.retired().is_signaled());
        assert_eq!((get(&log.dropped), get(&log.drivers)), (1, 1));
        assert_eq!(executor.live_objects(), 0);
        drop(job);
    });
}
