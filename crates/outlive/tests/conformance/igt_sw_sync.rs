//! IGT `sw_sync`. `alloc_fence_invalid_timeline` does not compile: fences are made by a context, which is no number. What
//! crosses processes is in `igt_sw_sync_linux`.

use crate::LONG;
use crate::kselftest_sync::{producers_and_a_consumer, random_merge};
use crate::software::{Count, SwTimeline, count};
use outlive::{Executor, Fence, FenceError, Status, WaitError};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn manual() -> Executor {
    Executor::manual().unwrap()
}

fn poll(fence: &Fence) -> Result<(), WaitError> {
    fence.wait(Duration::ZERO)
}

fn merge(one: &Fence, other: &Fence) -> Fence {
    Fence::merge(&[one.clone(), other.clone()]).unwrap()
}

#[test]
fn alloc_timeline() {
    SwTimeline::new(&manual()).close();
}

#[test]
fn alloc_fence() {
    let timeline = SwTimeline::new(&manual());
    assert!(timeline.fence(0).is_signaled());
    timeline.close();
}

/// The wait is over, and says itself why; upstream's must be asked for the status.
#[test]
fn timeline_closed() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(1);
    timeline.close();
    assert_eq!(poll(&fence), Err(WaitError::Failed(FenceError::Canceled)));
    assert_eq!(fence.status(), Status::Signaled(Err(FenceError::Canceled)));
}

#[test]
fn timeline_closed_signaled() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(1);
    timeline.inc(1);
    timeline.close();
    assert_eq!(poll(&fence), Ok(()));
}

#[test]
fn alloc_merge_fence() {
    let executor = manual();
    let timelines = [(); 2].map(|()| SwTimeline::new(&executor));
    let merged = merge(&timelines[1].fence(1), &timelines[0].fence(1));
    assert_eq!(count(&merged).active, 2);
}

#[test]
fn sync_busy() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(5);
    assert_eq!(poll(&fence), Err(WaitError::TimedOut));
    for (by, done) in [(1, Err(WaitError::TimedOut)), (4, Ok(())), (5, Ok(()))] {
        timeline.inc(by);
        assert_eq!(poll(&fence), done);
    }
    let mut value = 10;
    let prime = |number: &u64| (2..*number).all(|divisor| number % divisor != 0);
    for prime in (2..100).filter(prime) {
        value += prime;
        let fence = timeline.fence(value);
        assert_eq!(poll(&fence), Err(WaitError::TimedOut));
        timeline.inc(prime);
        assert_eq!(poll(&fence), Ok(()));
    }
}

#[test]
fn sync_merge() {
    let timeline = SwTimeline::new(&manual());
    let fences = [1, 2, 3].map(|value| timeline.fence(value));
    let merged = merge(&fences[2], &merge(&fences[0], &fences[1]));
    for fence in fences.iter().chain([&merged]) {
        assert_eq!(count(fence).active, 1);
    }
    for fence in &fences {
        assert_eq!(count(&merged).active, 1, "before the last of them");
        timeline.inc(1);
        assert_eq!(count(fence).signaled, 1);
    }
    assert_eq!(count(&merged), Count { active: 0, signaled: 1, failed: 0 });
}

#[test]
fn sync_merge_same() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(1);
    let merged = merge(&fence, &fence);
    assert_eq!((count(&fence).signaled, count(&merged).signaled), (0, 0));
    timeline.inc(1);
    assert_eq!((count(&fence).signaled, count(&merged).signaled), (1, 1));
}

#[test]
fn sync_multi_timeline_wait() {
    let executor = manual();
    let timelines = [(); 3].map(|()| SwTimeline::new(&executor));
    let fences = timelines.each_ref().map(|timeline| timeline.fence(5));
    let merged = merge(&fences[2], &merge(&fences[0], &fences[1]));
    for (index, timeline) in timelines.iter().enumerate() {
        assert_eq!(count(&merged), Count { active: 3 - index, signaled: index, failed: 0 });
        assert_eq!(poll(&merged), Err(WaitError::TimedOut));
        timeline.inc(5);
    }
    assert_eq!(count(&merged), Count { active: 0, signaled: 3, failed: 0 });
    assert_eq!(poll(&merged), Ok(()));
}

/// As many threads as upstream's at most; 256 rounds each instead of 4096.
const THREADS: u64 = 8;
const ROUNDS: u64 = 256;

#[test]
fn sync_multi_consumer() {
    let executor = Executor::builder().threads().unwrap();
    let timeline = SwTimeline::new(&executor);
    let counter = AtomicU64::new(0);
    let (posts, waits) = mpsc::channel();
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (timeline, counter, posts) = (&timeline, &counter, posts.clone());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let point = round * THREADS + id;
                    timeline.fence(point).wait(LONG).unwrap();
                    assert_eq!(counter.load(SeqCst), point, "not its turn");
                    posts.send(()).unwrap();
                }
            });
        }
        for _ in 0..THREADS * ROUNDS {
            waits.recv_timeout(LONG).unwrap();
            counter.fetch_add(1, SeqCst);
            timeline.inc(1);
        }
    });
    assert_eq!(counter.load(SeqCst), THREADS * ROUNDS);
}

#[test]
fn sync_multi_consumer_producer() {
    let executor = Executor::builder().threads().unwrap();
    let timeline = SwTimeline::new(&executor);
    let counter = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (timeline, counter) = (&timeline, &counter);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let point = round * THREADS + id;
                    timeline.fence(point).wait(LONG).unwrap();
                    assert_eq!(counter.fetch_add(1, SeqCst), point, "not its turn");
                    timeline.inc(1);
                }
            });
        }
    });
    assert_eq!(counter.load(SeqCst), THREADS * ROUNDS);
}

/// For so many rounds, instead of a second.
#[test]
fn sync_multi_producer_single_consumer() {
    producers_and_a_consumer(256);
}

#[test]
fn sync_expired_merge() {
    let timeline = SwTimeline::new(&manual());
    timeline.inc(100);
    let expired = timeline.fence(1);
    assert_eq!(poll(&expired), Ok(()));
    for _ in 0..1000 {
        let merged = merge(&expired, &expired);
        assert_eq!(merged.wait(Duration::MAX), Ok(()));
    }
}

#[test]
fn sync_random_merge() {
    random_merge(1024);
}
