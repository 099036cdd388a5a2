//! What an arbiter asks, [`Policy`]: whose turn is it? Three answers are built in, two of them here; anybody may write another.
//! Plain state machines under the arbiter's lock: nothing here locks or waits.

use super::Share;
use crate::mem::tree::Tree;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::time::Time;
use core::time::Duration;

/// A ready queue is next, whatever the policy says, when others have had this much hardware time, 10 s, for each ready queue.
pub const STARVED_AFTER: Duration = Duration::from_secs(10);

/// The job at the head of a queue that could start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// When it was committed.
    pub committed: Time,
    /// What it will hold.
    pub credits: u32,
    /// Others wait behind it in its queue.
    pub more: bool,
}

/// Whose turn it is: a plain state machine that an arbiter asks.
///
/// # Protocol
/// A policy knows queues by small numbers that the arbiter gives out and uses again. For each of them
/// ```text
/// opened ─▶ idle ──ready──▶ ready ──started──▶ idle, one job more on the hardware
///            │ ▲              │
///            │ └──unready─────┘        returned, ended: one job fewer        changed: any time
///            ▼
///          closed (its jobs have all ended)                      fined: not while closed
/// ```
/// and [`Policy::pick`] names one that is ready. Time is an argument and never goes back.
///
/// # Guarantee
/// The arbiter looks at every answer: a number that is not ready counts as no answer, and then the queue that has been
/// ready longest is next. That one is next, too, once the others have had [`STARVED_AFTER`] of hardware time for each ready
/// queue since it became ready. So a bad policy is unfair, never unsound, and stops nobody for ever.
///
/// # Contexts
/// Every call but [`Policy::reserve`] is made in the signalling path, under the arbiter's lock: it may not allocate, block,
/// panic, or call the library.
pub trait Policy: Send + 'static {
    /// As reports call it.
    fn name(&self) -> &'static str;

    /// Makes room for queues numbered below `queues`. Called once, first, and the only one that may allocate.
    ///
    /// # Errors
    /// [`AllocError`].
    fn reserve(&mut self, queues: u32) -> Result<(), AllocError>;

    /// A queue of that number is there, with nothing ready and nothing on the hardware. `client`: whose it is, 0 if nobody's.
    fn opened(&mut self, queue: u32, client: u64, share: Share);

    /// It is gone: not ready, and all its jobs have ended.
    fn closed(&mut self, queue: u32);

    /// It has another share, ready or not.
    fn changed(&mut self, queue: u32, share: Share);

    /// Its head may start; it was not ready before.
    fn ready(&mut self, queue: u32, head: Head, now: Time);

    /// Its head may not start any more; it was ready.
    fn unready(&mut self, queue: u32);

    /// Which of the ready queues is next.
    fn pick(&mut self, now: Time) -> Option<u32>;

    /// Its head goes to the hardware, whether it was picked or not; it is not ready any more.
    fn started(&mut self, queue: u32, now: Time);

    /// A start of it did not happen after all: a resource was missing. Or it did, and the job was lost to a reset that was
    /// somebody else's fault. Either way it pays nothing.
    fn returned(&mut self, queue: u32);

    /// One of its jobs has left the hardware, which it occupied for `active`.
    fn ended(&mut self, queue: u32, active: Duration, now: Time);

    /// A reset was its fault, and cost that much: the time it took, and what others were on the hardware for in vain. Default:
    /// nothing.
    fn fined(&mut self, queue: u32, time: Duration) {
        let _ = (queue, time);
    }
}

/// First come, first served: by when the head was committed. Knows no priority, weight or group.
#[derive(Debug, Default)]
pub struct Fifo {
    ready: Line,
}

impl Policy for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn reserve(&mut self, queues: u32) -> Result<(), AllocError> {
        self.ready.reserve(queues)
    }

    fn opened(&mut self, _queue: u32, _client: u64, _share: Share) {}

    fn closed(&mut self, _queue: u32) {}

    fn changed(&mut self, _queue: u32, _share: Share) {}

    fn ready(&mut self, queue: u32, head: Head, _now: Time) {
        self.ready.enter(queue, head.committed.as_ns());
    }

    fn unready(&mut self, queue: u32) {
        self.ready.leave(queue);
    }

    fn pick(&mut self, _now: Time) -> Option<u32> {
        self.ready.first()
    }

    fn started(&mut self, queue: u32, _now: Time) {
        self.ready.leave(queue);
    }

    fn returned(&mut self, _queue: u32) {}

    fn ended(&mut self, _queue: u32, _active: Duration, _now: Time) {}
}

/// Each ready queue one job in turn. Knows no priority, weight or group.
#[derive(Debug, Default)]
pub struct RoundRobin {
    ready: Line,
    /// When each last had a turn.
    last: HeapVec<u64>,
    turns: u64,
}

impl RoundRobin {
    fn had_a_turn(&mut self, queue: u32) {
        self.turns += 1;
        if let Some(last) = self.last.get_mut(queue as usize) {
            *last = self.turns;
        }
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn reserve(&mut self, queues: u32) -> Result<(), AllocError> {
        try_reserve(&mut self.last, queues as usize)?;
        self.last.resize(queues as usize, 0);
        self.ready.reserve(queues)
    }

    fn opened(&mut self, queue: u32, _client: u64, _share: Share) {
        // A new one is last in turn, so that coming back gains nothing.
        self.had_a_turn(queue);
    }

    fn closed(&mut self, _queue: u32) {}

    fn changed(&mut self, _queue: u32, _share: Share) {}

    fn ready(&mut self, queue: u32, _head: Head, _now: Time) {
        let last = self.last.get(queue as usize).copied().unwrap_or(0);
        self.ready.enter(queue, last);
    }

    fn unready(&mut self, queue: u32) {
        self.ready.leave(queue);
    }

    fn pick(&mut self, _now: Time) -> Option<u32> {
        self.ready.first()
    }

    fn started(&mut self, queue: u32, _now: Time) {
        self.ready.leave(queue);
        self.had_a_turn(queue);
    }

    fn returned(&mut self, _queue: u32) {}

    fn ended(&mut self, _queue: u32, _active: Duration, _now: Time) {}
}

/// Ready queues in the order of one number.
#[derive(Debug, Default)]
pub(crate) struct Line {
    order: Tree<(u64, u32), ()>,
    /// Where each is, if it is.
    key: HeapVec<Option<u64>>,
}

impl Line {
    pub(crate) fn reserve(&mut self, queues: u32) -> Result<(), AllocError> {
        try_reserve(&mut self.key, queues as usize)?;
        self.key.resize(queues as usize, None);
        self.order.try_reserve(queues as usize)
    }

    pub(crate) fn enter(&mut self, queue: u32, key: u64) {
        self.leave(queue);
        if let Some(place) = self.key.get_mut(queue as usize) {
            *place = Some(key);
            // There is room for every queue, and each is in it at most once.
            let _ = self.order.insert((key, queue), ());
        }
    }

    pub(crate) fn leave(&mut self, queue: u32) {
        if let Some(key) = self.key.get_mut(queue as usize).and_then(Option::take) {
            self.order.remove(&(key, queue));
        }
    }

    pub(crate) fn first(&self) -> Option<u32> {
        self.order.first().map(|((_, queue), ())| *queue)
    }
}
