//! A software timeline in the manner of `sw_sync`: a counter, and fences that signal when it reaches their values. The timeline's
//! owner has the producers, so only it advances (rule 2).

use crate::break_a_rule;
use outlive::{Executor, Fence, FenceContext, Names, Signaler, Status};
use std::collections::BTreeMap;
use std::sync::Mutex;

const NAMES: Names<'_> = Names { driver: "sw_sync", timeline: "software" };

pub struct SwTimeline {
    executor: Executor,
    state: Mutex<State>,
}

struct State {
    context: FenceContext,
    /// The highest value that the context has a fence for: its fences signal in order.
    newest: u64,
    counter: u64,
    pending: BTreeMap<u64, (Signaler, Fence)>,
    closed: bool,
}

/// How many of the fences that one is made of are in which state.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub active: usize,
    pub signaled: usize,
    pub failed: usize,
}

pub fn count(fence: &Fence) -> Count {
    let mut count = Count::default();
    fence.for_each_leaf(|leaf| match leaf.status() {
        Status::Pending => count.active += 1,
        Status::Signaled(Ok(())) => count.signaled += 1,
        Status::Signaled(Err(_)) => count.failed += 1,
    });
    count
}

impl SwTimeline {
    pub fn new(executor: &Executor) -> Self {
        break_a_rule();
        let context = FenceContext::new(executor, NAMES).unwrap();
        let state = State { context, newest: 0, counter: 0, pending: BTreeMap::new(), closed: false };
        Self { executor: executor.clone(), state: Mutex::new(state) }
    }

    /// The fence of `value`; the same one for the same value. What comes below the newest value gets a context of its own, for
    /// within one fences signal in the order of their making. `None` once the timeline is closed.
    pub fn create(&self, value: u64) -> Option<Fence> {
        let mut state = self.state.lock().unwrap();
        if state.closed {
            return None;
        }
        if let Some((_, fence)) = state.pending.get(&value) {
            return Some(fence.clone());
        }
        let reached = value <= state.counter;
        let (signaler, fence) = if !reached && value > state.newest {
            state.newest = value;
            state.context.allocate().unwrap().publish()
        } else {
            FenceContext::new(&self.executor, NAMES).unwrap().allocate().unwrap().publish()
        };
        if reached {
            signaler.signal(Ok(()));
        } else {
            state.pending.insert(value, (signaler, fence.clone()));
        }
        Some(fence)
    }

    pub fn fence(&self, value: u64) -> Fence {
        self.create(value).unwrap()
    }

    pub fn inc(&self, by: u64) {
        let mut state = self.state.lock().unwrap();
        state.counter += by;
        let above = state.counter + 1;
        let later = state.pending.split_off(&above);
        let due = std::mem::replace(&mut state.pending, later);
        drop(state);
        due.into_values().for_each(|(signaler, _)| signaler.signal(Ok(())));
    }

    /// What is pending fails: its producers are dropped.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.closed = true;
        let left = std::mem::take(&mut state.pending);
        drop(state);
        drop(left);
    }
}
