//! Fences made of fences: a merge of 1, 2, 8 and 64, and look-ups along a timeline. Beside them what one would write without: a
//! vector of counted objects, sorted and rid of duplicates, and a map under a mutex.

use crate::harness::{Contender, Effort, Row, race};
use crate::load;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering};
use outlive::{Executor, Fence, FenceContext, Names, Signaler, Timeline};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Points of a timeline that is walked.
pub const POINTS: u64 = 1_000;

/// Fences of contexts of their own.
pub struct Fences {
    fences: Vec<Fence>,
    /// They stay pending as long as their producers do.
    producers: Vec<Signaler>,
}

impl fmt::Debug for Fences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fences, {} pending", self.fences.len(), self.producers.len())
    }
}

fn bare(executor: &Executor) -> (Signaler, Fence) {
    let names = Names { driver: "bench", timeline: "containers" };
    FenceContext::new(executor, names).expect("memory").allocate().expect("memory").publish()
}

/// `pending` fences that are, after `signaled` that have signaled.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn fences(pending: usize, signaled: usize) -> Fences {
    let executor = load::manual(load::still_clock_ns);
    let mut made = Fences { fences: Vec::new(), producers: Vec::new() };
    for index in 0..signaled + pending {
        let (producer, fence) = bare(&executor);
        made.fences.push(fence);
        if index < signaled {
            producer.signal(Ok(()));
        } else {
            made.producers.push(producer);
        }
    }
    made
}

/// Merges them `n` times.
///
/// # Panics
/// Without memory.
pub fn merge(fences: &Fences, n: u64) {
    for _ in 0..n {
        drop(black_box(Fence::merge(black_box(&fences.fences)).expect("memory for an array")));
    }
}

/// A timeline of [`POINTS`] points that are pending.
pub struct Points {
    timeline: Timeline,
    _producers: Fences,
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timeline.fmt(f)
    }
}

/// See [`Points`].
///
/// # Panics
/// Without memory.
#[must_use]
pub fn points() -> Points {
    let fences = fences(POINTS as usize, 0);
    let timeline = Timeline::new("bench").expect("memory");
    for (number, fence) in (1..).zip(&fences.fences) {
        timeline.add(number, fence).expect("memory for a point");
    }
    Points { timeline, _producers: fences }
}

/// What is read: a fence, an array of two, or a point of a timeline.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn readable(kind: Kind) -> (Fence, Fences) {
    let fences = fences(2, 0);
    let fence = match kind {
        Kind::Leaf => fences.fences[0].clone(),
        Kind::Array => Fence::all_of(&fences.fences).expect("memory for an array"),
        Kind::Point => {
            let timeline = Timeline::new("bench").expect("memory");
            timeline.add(1, &fences.fences[0]).expect("memory for a point")
        }
    };
    (fence, fences)
}

/// What a fence is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// No container.
    Leaf,
    /// All of two.
    Array,
    /// A timeline's.
    Point,
}

/// Asks `n` times whether it has signaled.
pub fn read(fence: &Fence, n: u64) {
    for _ in 0..n {
        black_box(black_box(fence).is_signaled());
    }
}

/// Looks point `number` up `n` times.
///
/// # Panics
/// If there is no such point.
pub fn find(points: &Points, number: u64, n: u64) {
    for _ in 0..n {
        drop(black_box(points.timeline.find(black_box(number)).expect("it was submitted")));
    }
}

/// What a fence comes down to without a library.
#[derive(Debug)]
struct Plain {
    context: u64,
    seqno: u64,
    done: AtomicBool,
}

fn plain(context: u64, done: bool) -> Arc<Plain> {
    Arc::new(Plain { context, seqno: 1, done: AtomicBool::new(done) })
}

fn plain_merge(of: &[Arc<Plain>]) -> Vec<Arc<Plain>> {
    let mut kept: Vec<_> = of.iter().filter(|one| !one.done.load(Ordering::Acquire)).cloned().collect();
    kept.sort_unstable_by_key(|one| (one.context, u64::MAX - one.seqno));
    kept.dedup_by_key(|one| one.context);
    kept
}

/// Merges of `pending` fences that are and `signaled` that have signaled.
#[must_use]
pub fn run_merge(effort: Effort, pending: usize, signaled: usize) -> Vec<Row> {
    let ours = fences(pending, signaled);
    let theirs: Vec<_> = (1..).zip(0..signaled + pending).map(|(context, at)| plain(context, at < signaled)).collect();
    let mut contenders = [
        Contender::new("outlive, merge", move |n| {
            let start = Instant::now();
            merge(&ours, n);
            start.elapsed()
        }),
        Contender::new("Vec of Arcs, sorted, rid of duplicates; waits for nothing", move |n| {
            let start = Instant::now();
            for _ in 0..n {
                drop(black_box(plain_merge(black_box(&theirs))));
            }
            start.elapsed()
        }),
    ];
    race(&mut contenders, effort, 200_000 / (pending + signaled) as u64, 1)
}

/// Look-ups of point `number` of [`POINTS`].
#[must_use]
pub fn run_find(effort: Effort, number: u64) -> Vec<Row> {
    let ours = points();
    let map: BTreeMap<u64, Arc<Plain>> = (1..=POINTS).map(|number| (number, plain(number, false))).collect();
    let map = Mutex::new(map);
    let mut contenders = [
        Contender::new("outlive, a walk from the newest", move |n| {
            let start = Instant::now();
            find(&ours, number, n);
            start.elapsed()
        }),
        Contender::new("BTreeMap under a mutex", move |n| {
            let start = Instant::now();
            for _ in 0..n {
                let map = map.lock().unwrap_or_else(PoisonError::into_inner);
                drop(black_box(map.range(black_box(number)..).next().map(|(_, one)| Arc::clone(one))));
            }
            start.elapsed()
        }),
    ];
    race(&mut contenders, effort, 20_000, 1)
}
