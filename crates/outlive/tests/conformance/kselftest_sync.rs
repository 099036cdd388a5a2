//! kselftest `sync`. The stress tests take fewer rounds: upstream's are in each one's comment.

use crate::LONG;
use crate::software::{Count, SwTimeline, count};
use outlive::{Executor, Fence};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

fn manual() -> Executor {
    Executor::manual().unwrap()
}

fn merge(one: &Fence, other: &Fence) -> Fence {
    Fence::merge(&[one.clone(), other.clone()]).unwrap()
}

#[test]
fn alloc_timeline() {
    let _timeline = SwTimeline::new(&manual());
}

#[test]
fn alloc_fence() {
    let timeline = SwTimeline::new(&manual());
    assert!(!timeline.fence(1).is_signaled());
}

#[test]
fn fence_one_timeline_wait() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(5);
    for (by, signaled) in [(0, false), (1, false), (4, true), (10, true)] {
        timeline.inc(by);
        assert_eq!(fence.is_signaled(), signaled);
        assert_eq!(count(&fence).active, usize::from(!signaled));
    }
}

#[test]
fn fence_one_timeline_merge() {
    let timeline = SwTimeline::new(&manual());
    let fences = [1, 2, 3].map(|value| timeline.fence(value));
    let merged = merge(&fences[2], &merge(&fences[0], &fences[1]));
    for fence in fences.iter().chain([&merged]) {
        assert_eq!(count(fence).active, 1);
    }
    for (index, fence) in fences.iter().enumerate() {
        assert!(!merged.is_signaled(), "before the last of them");
        timeline.inc(1);
        assert_eq!((count(fence).signaled, merged.is_signaled()), (1, index == 2));
    }
    assert_eq!(count(&merged), Count { active: 0, signaled: 1, failed: 0 });
}

#[test]
fn fence_merge_same_fence() {
    let timeline = SwTimeline::new(&manual());
    let fence = timeline.fence(5);
    let merged = merge(&fence, &fence);
    assert_eq!(count(&merged), Count { active: 1, signaled: 0, failed: 0 });
    timeline.inc(5);
    assert_eq!(count(&merged), Count { active: 0, signaled: 1, failed: 0 });
}

#[test]
fn fence_multi_timeline_wait() {
    let executor = manual();
    let timelines = [(); 3].map(|()| SwTimeline::new(&executor));
    let fences = timelines.each_ref().map(|timeline| timeline.fence(5));
    let merged = merge(&fences[2], &merge(&fences[0], &fences[1]));
    for (index, timeline) in timelines.iter().enumerate() {
        assert_eq!(count(&merged), Count { active: 3 - index, signaled: index, failed: 0 });
        assert!(!merged.is_signaled());
        timeline.inc(5);
    }
    assert_eq!(count(&merged), Count { active: 0, signaled: 3, failed: 0 });
    assert!(merged.is_signaled());
}

/// 2 × 2048 rounds instead of 2 × 65536.
#[test]
fn stress_two_threads_shared_timeline() {
    const ROUNDS: u64 = 2048;
    let executor = Executor::builder().threads().unwrap();
    let timeline = SwTimeline::new(&executor);
    let counter = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..2 {
            let (timeline, counter) = (&timeline, &counter);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let turn = round * 2 + id;
                    timeline.fence(turn).wait(LONG).unwrap();
                    assert_eq!(counter.fetch_add(1, SeqCst), turn, "the other one's turn");
                    timeline.inc(1);
                }
            });
        }
    });
    assert_eq!(counter.load(SeqCst), 2 * ROUNDS);
}

/// 5 × 512 rounds instead of 5 × 4096.
#[test]
fn consumer_stress_multi_producer_single_consumer() {
    producers_and_a_consumer(512);
}

/// Five producers wait for the consumer, the consumer for all of them, in turn; who waits by asking again and again, and who
/// by sleeping, differs.
pub fn producers_and_a_consumer(rounds: u64) {
    const PRODUCERS: u64 = 5;
    let executor = Executor::builder().threads().unwrap();
    let consumed = SwTimeline::new(&executor);
    let produced = [(); 5].map(|()| SwTimeline::new(&executor));
    let counter = AtomicU64::new(0);
    let wait = |fence: &Fence, asks: bool| {
        while asks && count(fence).active > 0 {
            assert_eq!(count(fence).failed, 0);
            thread::yield_now();
        }
        fence.wait(LONG).unwrap();
    };
    thread::scope(|scope| {
        for (id, own) in produced.iter().enumerate() {
            let (consumed, counter) = (&consumed, &counter);
            scope.spawn(move || {
                // Until the consumer closes its timeline.
                for round in 0.. {
                    let Some(fence) = consumed.create(round) else { break };
                    if round == rounds {
                        break;
                    }
                    wait(&fence, id % 8 == 0);
                    counter.fetch_add(1, SeqCst);
                    own.inc(1);
                }
            });
        }
        for round in 1..=rounds {
            let each = produced.each_ref().map(|timeline| timeline.fence(round));
            let all = each.iter().skip(1).fold(each[0].clone(), |merged, fence| merge(fence, &merged));
            wait(&all, round % 8 == 0);
            assert_eq!(counter.load(SeqCst), round * PRODUCERS, "each of them, once");
            consumed.inc(1);
        }
        consumed.close();
    });
}

/// 2048 merges instead of 32768.
#[test]
fn merge_stress_random_merge() {
    random_merge(2048);
}

/// Random fences of 32 timelines are merged into one. A context's fences signal in the order of their making, so each timeline's
/// are made in the order of their values before they are merged in random order.
pub fn random_merge(merges: usize) {
    const TIMELINES: usize = 32;
    let executor = manual();
    let timelines: Vec<_> = (0..TIMELINES).map(|_| SwTimeline::new(&executor)).collect();
    let mut random = 7_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let points: Vec<_> = (0..merges).map(|_| (usize::try_from(next()).unwrap() % TIMELINES, next() + 1)).collect();
    let mut sorted = points.clone();
    sorted.sort_unstable();
    sorted.iter().for_each(|(timeline, value)| drop(timelines[*timeline].fence(*value)));
    let fence = |(timeline, value): (usize, u64)| timelines[timeline].fence(value);
    let merged = points.iter().skip(1).fold(fence(points[0]), |merged, point| merge(&fence(*point), &merged));
    let mut highest = [0; TIMELINES];
    points.iter().for_each(|(timeline, value)| highest[*timeline] = highest[*timeline].max(*value));
    let distinct: Vec<_> = (0..TIMELINES).filter(|timeline| highest[*timeline] > 0).collect();
    assert_eq!(count(&merged), Count { active: distinct.len(), signaled: 0, failed: 0 });
    for timeline in distinct {
        assert!(!merged.is_signaled(), "before the last of them");
        timelines[timeline].inc(highest[timeline]);
    }
    assert!(merged.is_signaled());
}
