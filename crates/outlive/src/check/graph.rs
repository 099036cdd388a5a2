//! Who waits for what, through fences: found in debug builds where a thread begins to wait.
//!
//! # What is known
//! - A job waits for its dependencies, from its commit until it has signaled; and fences of one context signal in order.
//! - A thread waits for a fence, while it is in a wait that only that fence can end (not in a wait for any of several).
//! - A fence waits for a thread that said it would signal it ([`producing`]).
//!
//! Jobs can only depend on fences that are there already, so a cycle always runs through a thread: it is looked for when a
//! thread begins to wait. The report comes from the one who closes the cycle.
//!
//! # Limits
//! Fixed tables, so that nothing allocates here: what does not fit is left out and counted ([`edges_lost`]). A cycle through
//! more than [`SEEN_MAX`] contexts is not followed to its end. What is not declared is not known: no false reports.
//!
//! # Why it cannot deadlock
//! One mutex of the standard library, under every other lock, held for a few scans of the tables; nothing is called under it.

use super::local::ON;
use super::{FenceName, Place, Report, Violation};
use crate::fence::{Fence, Part, Signaler};
use core::convert::Infallible;
use core::fmt::{self, Write};
use core::marker::PhantomData;
use core::panic::Location;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

const EDGES_MAX: usize = 1024;
const THREADS_MAX: usize = 128;
const SEEN_MAX: usize = 64;

/// A fence, by its context and number; a job by the first of its three contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    context: u64,
    seqno: u64,
}

/// What a thread waits for, or has promised.
#[derive(Clone, Copy)]
struct Bound {
    thread: ThreadId,
    fence: Key,
    name: FenceName,
    at: Place,
}

struct Table<T, const N: usize> {
    rows: [Option<T>; N],
    len: usize,
}

struct Graph {
    /// A job, and what it depends on.
    edges: Table<(Key, Key), EDGES_MAX>,
    waits: Table<Bound, THREADS_MAX>,
    promises: Table<Bound, THREADS_MAX>,
    /// Where pending bare fences were published.
    published: Table<(Key, Place), EDGES_MAX>,
    lost: u64,
}

static GRAPH: Mutex<Graph> = Mutex::new(Graph {
    edges: Table::new(),
    waits: Table::new(),
    promises: Table::new(),
    published: Table::new(),
    lost: 0,
});

impl<T: Copy, const N: usize> Table<T, N> {
    const fn new() -> Self {
        Self { rows: [const { None }; N], len: 0 }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().take(self.len).flatten()
    }

    /// False if there is no room.
    fn push(&mut self, row: T) -> bool {
        let Some(slot) = self.rows.get_mut(self.len) else { return false };
        *slot = Some(row);
        self.len += 1;
        true
    }

    fn remove_where(&mut self, goes: impl Fn(&T) -> bool) {
        let mut at = 0;
        while at < self.len {
            if self.rows[at].as_ref().is_some_and(&goes) {
                self.len -= 1;
                self.rows.swap(at, self.len);
                self.rows[self.len] = None;
            } else {
                at += 1;
            }
        }
    }
}

impl Key {
    /// Containers have a context of their own.
    fn of(fence: &Fence) -> Self {
        let slot = if fence.is_jobs() { fence.slot() as u64 } else { 0 };
        Self { context: fence.context() - slot, seqno: fence.seqno() }
    }

    /// Whether this signals after `earlier`, or is it.
    fn is_behind(self, earlier: Self) -> bool {
        self.context == earlier.context && self.seqno >= earlier.seqno
    }
}

impl Graph {
    fn lock() -> MutexGuard<'static, Self> {
        GRAPH.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `thread` has promised that `from` waits for, through jobs and other threads.
    fn cycle(&self, from: Key, thread: ThreadId) -> Option<Bound> {
        let mut seen = [from; SEEN_MAX];
        let mut known = 1;
        let mut next = 0;
        while next < known {
            let fence = seen[next];
            next += 1;
            let mut follow = |key: Key| {
                if known < SEEN_MAX && !seen[..known].iter().any(|seen| seen.is_behind(key)) {
                    seen[known] = key;
                    known += 1;
                }
            };
            for promise in self.promises.iter().filter(|promise| fence.is_behind(promise.fence)) {
                if promise.thread == thread {
                    return Some(*promise);
                }
                self.waits.iter().filter(|wait| wait.thread == promise.thread).for_each(|wait| follow(wait.fence));
            }
            self.edges.iter().filter(|(job, _)| fence.is_behind(*job)).for_each(|(_, on)| follow(*on));
        }
        None
    }
}

/// How many edges of the graph did not fit into it so far.
#[must_use]
pub fn edges_lost() -> u64 {
    Graph::lock().lost
}

/// A job that is being committed depends on `on`.
#[inline]
pub(crate) fn job_depends(job: &Fence, on: &Fence) {
    if ON && !on.is_signaled() {
        let edge = (Key::of(job), Key::of(on));
        let mut graph = Graph::lock();
        if !graph.edges.push(edge) {
            graph.lost += 1;
        }
    }
}

/// `fence` has signaled: it waits for nothing any more.
#[inline]
pub(crate) fn signaled(fence: &Fence) {
    if ON {
        let key = Key::of(fence);
        let mut graph = Graph::lock();
        graph.edges.remove_where(|(job, _)| key.is_behind(*job));
        graph.promises.remove_where(|promise| promise.fence == key);
        graph.published.remove_where(|(fence, _)| *fence == key);
    }
}

/// A bare fence has been published here.
#[inline]
#[track_caller]
pub(crate) fn published(fence: &Fence) {
    if ON {
        let row = (Key::of(fence), Place::from(Location::caller()));
        let mut graph = Graph::lock();
        if !graph.published.push(row) {
            graph.lost += 1;
        }
    }
}

/// Where `fence` was published, if that is known.
pub(super) fn place_of(fence: &Fence) -> Option<Place> {
    let key = Key::of(fence);
    Graph::lock().published.iter().find(|(fence, _)| *fence == key).map(|(_, at)| *at)
}

/// A thread in a wait, until dropped.
pub(crate) struct Waiting {
    thread_bound: PhantomData<*const ()>,
}

/// This thread waits for `fence`, or for all that it is made of. In debug builds a wait that cannot end is reported.
#[inline]
#[track_caller]
pub(crate) fn waits_for(fence: &Fence) -> Waiting {
    if ON {
        let at = Location::caller();
        let Ok(()) = fence.parts(&mut |part| {
            // Of an array of which any will do, any may come.
            if let Part::Leaf(leaf) = part {
                wait_for_leaf(leaf, at);
            }
            Ok::<(), Infallible>(())
        });
    }
    Waiting { thread_bound: PhantomData }
}

fn wait_for_leaf(leaf: &Fence, at: &'static Location<'static>) {
    if leaf.is_signaled() {
        return;
    }
    let thread = thread::current().id();
    let wait = Bound { thread, fence: Key::of(leaf), name: name(leaf), at: at.into() };
    let cycle = {
        let mut graph = Graph::lock();
        if !graph.waits.push(wait) {
            graph.lost += 1;
        }
        graph.cycle(wait.fence, thread)
    };
    if let Some(promise) = cycle {
        report_cycle(wait, promise);
    }
}

fn report_cycle(wait: Bound, promise: Bound) {
    let violation = Violation::WaitCycle { waited: wait.name, promised: promise.name };
    super::local::report_now(Report { violation, at: wait.at, section: promise.at });
}

impl Drop for Waiting {
    #[inline]
    fn drop(&mut self) {
        if ON {
            let thread = thread::current().id();
            Graph::lock().waits.remove_where(|wait| wait.thread == thread);
        }
    }
}

/// A thread's promise to signal a fence, until it is signaled or this is dropped.
#[must_use = "the promise ends when this is dropped"]
#[derive(Debug)]
pub struct Producing {
    fence: Key,
    thread_bound: PhantomData<*const ()>,
}

/// Says that this thread, and nobody else, will signal the fence of `signaler`. From then on a wait of this thread that
/// cannot end because of it is reported in debug builds, and so is another thread's that closes a cycle with this one's.
/// The promise ends with the signal, or when what is returned is dropped. Any context that may block.
#[track_caller]
pub fn producing(signaler: &Signaler) -> Producing {
    let at = Location::caller();
    let Some(fence) = signaler.fence() else { unreachable!("a signaler has its fence until it signals") };
    let promise = Bound { thread: thread::current().id(), fence: Key::of(fence), name: name(fence), at: at.into() };
    if ON {
        let mut graph = Graph::lock();
        if !graph.promises.push(promise) {
            graph.lost += 1;
        }
    }
    Producing { fence: promise.fence, thread_bound: PhantomData }
}

impl Drop for Producing {
    fn drop(&mut self) {
        if ON {
            let (fence, thread) = (self.fence, thread::current().id());
            Graph::lock().promises.remove_where(|promise| promise.fence == fence && promise.thread == thread);
        }
    }
}

/// Text on the stack.
struct Buffer {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// `driver timeline context:seqno`; of a long one the end.
pub(super) fn name(fence: &Fence) -> FenceName {
    let mut text = Buffer { bytes: [0; 256], len: 0 };
    let id = fence.id();
    // Names that do not fit are left out: the number says which it is.
    let whole = write!(text, "{} {} {}", fence.driver_name(), fence.timeline_name(), id);
    if whole.is_err() {
        text.len = 0;
        let _ = write!(text, "{id}");
    }
    core::str::from_utf8(text.bytes.get(..text.len).unwrap_or(&[])).unwrap_or("").into()
}
