//! A queue and its arbiter: asking for a turn, giving it back, saying that a job has ended.
//!
//! # States
//! *idle* ──the head could start──▶ *asking* ──the answer is yes──▶ *granted* ──started, or given back──▶ *idle*. Under the
//! queue's lock, with the arbiter's inside it. *Granted* is the dispatcher's, between the answer and the start.
#![expect(unsafe_code, reason = "the way back to a queue; docs/unsafe.md, `queue::turn`")]

use super::job::JobCore;
use super::order::{Next, QueueState};
use super::shared::{QueueShared, StateGuard};
use crate::exec::object::Object;
use crate::mem::shared::Ref;
use crate::sched::{Answer, ArbiterShared, Head, Priority, Share};
use crate::sync::atomic::Ordering;
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

/// A queue's place with its arbiter.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) arbiter: Ref<ArbiterShared>,
    pub(crate) number: u32,
}

/// How a queue stands with it: see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Idle,
    Asking,
    Granted,
}

/// Who pays for a job's time on the hardware.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// Its queue.
    Pays(Duration),
    /// Not its queue: it was lost to a reset that was not its fault.
    Free(Duration),
}

/// The way back to a queue that may be dying.
pub(crate) struct Caller(NonNull<QueueShared>);

// SAFETY: only followed by `upgrade`, under the arbiter's lock; queues are `Sync`.
unsafe impl Send for Caller {}

impl Caller {
    /// To be given to the arbiter, and taken back in the queue's drop.
    pub(crate) fn new(queue: &QueueShared) -> Self {
        Self(NonNull::from(queue))
    }

    /// The queue, unless it is dying. Under the arbiter's lock.
    pub(crate) fn upgrade(&self) -> Option<Object<QueueShared>> {
        // SAFETY: a queue takes its caller out, under the arbiter's lock, before its memory goes.
        unsafe { Object::from_maybe_dying(self.0) }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The queue is being dropped: its jobs have left the hardware.
        self.arbiter.close(self.number);
    }
}

impl QueueShared {
    /// What it may claim now.
    pub(crate) fn share(&self) -> Share {
        Share {
            group: self.group.load(Ordering::Relaxed),
            group_weight: self.group_weight.load(Ordering::Relaxed),
            weight: self.weight.load(Ordering::Relaxed),
            priority: Priority::from_bits(self.priority.load(Ordering::Relaxed)),
        }
    }

    /// It claims something else from now on.
    pub(crate) fn share_changed(&self) {
        if let Some(place) = &self.place {
            place.arbiter.change(place.number, self.share());
        }
    }

    fn head(&self, state: &QueueState, job: NonNull<JobCore>) -> Head {
        let more = state.after(job).is_some();
        let cells = state.cells(job);
        Head { committed: cells.started, credits: cells.credits, more }
    }

    /// `job` was committed behind others.
    pub(crate) fn joined(&self, state: &QueueState, job: NonNull<JobCore>) {
        let Some(place) = self.place.as_ref().filter(|_| state.turn == Turn::Asking) else { return };
        if let Some(head) = state.next_start().filter(|head| state.after(*head) == Some(job)) {
            place.arbiter.ready(place.number, self.head(state, head), self.now());
        }
    }

    /// Whether `job`, at the head and ready, starts now. Without an arbiter it does.
    pub(crate) fn ask(&self, state: &mut QueueState, job: NonNull<JobCore>) -> bool {
        let Some(place) = &self.place else { return true };
        let now = self.now();
        let yes = place.arbiter.ask(place.number, self.head(state, job), now) == Answer::Start;
        if !yes {
            state.ready_since.get_or_insert(now);
        }
        state.turn = if yes { Turn::Granted } else { Turn::Asking };
        yes
    }

    /// The head cannot start now.
    #[inline]
    pub(crate) fn withdraw(&self, state: &mut QueueState) {
        if state.turn == Turn::Asking {
            self.stop_asking(state);
        }
    }

    fn stop_asking(&self, state: &mut QueueState) {
        let Some(place) = &self.place else { return };
        state.turn = Turn::Idle;
        place.arbiter.unready(place.number);
    }

    /// The job whose turn it was does not start.
    pub(crate) fn give_turn_back(&self, state: &mut QueueState, job: NonNull<JobCore>) {
        let Some(place) = self.place.as_ref().filter(|_| state.turn == Turn::Granted) else { return };
        state.turn = Turn::Idle;
        place.arbiter.give_back(place.number, state.cells(job).credits);
    }

    /// A started job has left the hardware. What waits in this queue is in the running for
    /// the turn that this frees.
    pub(crate) fn report_end(&self, state: &mut StateGuard<'_>, job: NonNull<JobCore>, cost: Cost) {
        let Some(place) = &self.place else { return };
        if state.turn == Turn::Idle {
            if let Next::Start(head) = self.next(state) {
                let now = self.now();
                state.turn = Turn::Asking;
                state.ready_since.get_or_insert(now);
                place.arbiter.ready(place.number, self.head(state, head), now);
            }
        }
        let credits = state.cells(job).credits;
        match cost {
            Cost::Pays(active) => place.arbiter.ended(place.number, credits, active),
            Cost::Free(_) => place.arbiter.give_back(place.number, credits),
        }
    }
}
