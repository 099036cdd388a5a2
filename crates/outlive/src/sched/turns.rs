//! The mechanism under a policy: a pool of credits, who is ready, whose turn it is. A plain state machine, without lock or
//! clock.
//!
//! # States
//! A queue is *absent*, *idle* or *ready* (the job at its head could start, but for its turn). At most one queue has the *turn*:
//! it was chosen, and is called as soon as its credits are free. A called queue asks, and starts.
//!
//! ```text
//! ready ──ask, it has the turn or is the policy's pick, and its credits are free──▶ idle, credits taken
//! ```
//!
//! # Decisions
//! The turn is given anew when there is none, and whenever a job ends or a share changes; who asks without it takes it if the
//! policy would now choose him. So it is always the policy's latest word, and yet every answer to an ask is a start, or
//! leaves the turn with somebody who has been called: a policy that changes its mind for ever stops nobody.
//!
//! # More credits than are free
//! Whoever has the turn keeps it, and nobody else starts, unless the policy prefers him now, until enough jobs have ended. So
//! small jobs do not starve a large one: it starts when those have ended that are on the hardware when its turn comes, a pool
//! full of them at most. The others wait for these and for itself, no longer.
//!
//! # Bad answers
//! See [`policy`](super::policy).

#[cfg(all(test, not(loom), not(shuttle)))]
#[path = "turns_tests.rs"]
mod tests;

use super::Share;
use super::policy::{Head, Policy, STARVED_AFTER};
use crate::mem::tree::Tree;
use crate::mem::{AllocError, HeapBox, HeapVec, try_reserve};
use crate::time::Time;
use core::fmt;
use core::time::Duration;

/// What an ask is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Start now: the credits are taken.
    Start,
    /// Wait to be called.
    Wait,
}

pub(crate) struct Turns {
    policy: HeapBox<dyn Policy>,
    queues: HeapVec<Queue>,
    /// The first number nobody has.
    free: u32,
    /// Ready queues by when they became ready.
    oldest: Tree<(u64, u32), ()>,
    next_seqno: u64,
    credits: u32,
    credits_free: u32,
    turn: Option<u32>,
    /// Hardware time of all jobs that have ended.
    served_ns: u64,
    bad_answers: u64,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    place: Place,
    /// Hardware time of its own jobs that have ended.
    had_ns: u64,
    /// Told to ask, and has not yet.
    called: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// The next such number.
    Absent(u32),
    Idle,
    Ready {
        head: Head,
        /// Counted over all queues.
        seqno: u64,
        /// What all jobs, and its own, had had then.
        served_ns: u64,
        had_ns: u64,
    },
}

const NONE: u32 = u32::MAX;

impl Turns {
    /// `credits` for at most `queues` queues. Allocates.
    pub(crate) fn new(mut policy: HeapBox<dyn Policy>, credits: u32, most: u32) -> Result<Self, AllocError> {
        policy.reserve(most)?;
        let mut queues = HeapVec::new();
        try_reserve(&mut queues, most as usize)?;
        let absent = |next| Queue { place: Place::Absent(next), had_ns: 0, called: false };
        queues.extend((1..=most).map(|next| absent(if next < most { next } else { NONE })));
        let mut oldest = Tree::new();
        oldest.try_reserve(most as usize)?;
        Ok(Self {
            policy,
            queues,
            free: if most > 0 { 0 } else { NONE },
            oldest,
            next_seqno: 0,
            credits,
            credits_free: credits,
            turn: None,
            served_ns: 0,
            bad_answers: 0,
        })
    }

    pub(crate) fn policy_name(&self) -> &'static str {
        self.policy.name()
    }

    pub(crate) const fn credits_free(&self) -> u32 {
        self.credits_free
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.oldest.len()
    }

    pub(crate) const fn bad_answers(&self) -> u64 {
        self.bad_answers
    }

    fn at(&mut self, queue: u32) -> Option<&mut Queue> {
        self.queues.get_mut(queue as usize)
    }

    fn head(&self, queue: u32) -> Option<Head> {
        match self.queues.get(queue as usize)?.place {
            Place::Ready { head, .. } => Some(head),
            Place::Idle | Place::Absent(_) => None,
        }
    }

    /// Whether the credits of `queue`, which is ready, are free.
    fn fits(&self, queue: u32) -> bool {
        self.head(queue).is_some_and(|head| head.credits.min(self.credits) <= self.credits_free)
    }

    /// A new queue's number; none if there are as many as there may be.
    pub(crate) fn open(&mut self, client: u64, share: Share) -> Option<u32> {
        let number = self.free;
        let queue = self.at(number)?;
        let Place::Absent(next) = queue.place else { return None };
        *queue = Queue { place: Place::Idle, had_ns: 0, called: false };
        self.free = next;
        self.policy.opened(number, client, share);
        Some(number)
    }

    /// The queue is gone, and so are its jobs. Returns who is to be called.
    pub(crate) fn close(&mut self, queue: u32, now: Time) -> Option<u32> {
        let call = self.unready(queue, now);
        self.policy.closed(queue);
        let free = self.free;
        if let Some(at) = self.at(queue) {
            at.place = Place::Absent(free);
            self.free = queue;
        }
        call
    }

    /// It has another share from now on.
    pub(crate) fn change(&mut self, queue: u32, share: Share, now: Time) -> Option<u32> {
        self.policy.changed(queue, share);
        self.turn = None;
        self.call(now)
    }

    /// The job at its head could start; it does not ask yet.
    pub(crate) fn ready(&mut self, queue: u32, head: Head, now: Time) {
        self.next_seqno += 1;
        let (seqno, all_ns) = (self.next_seqno, self.served_ns);
        let Some(at) = self.at(queue) else { return };
        match &mut at.place {
            Place::Ready { head: before, .. } if *before == head => return,
            Place::Ready { head: before, .. } => {
                // Another job, and it has waited all the same: it keeps its place.
                *before = head;
                self.policy.unready(queue);
            }
            Place::Idle => {
                at.place = Place::Ready { head, seqno, served_ns: all_ns, had_ns: at.had_ns };
                // Room for every queue.
                let _ = self.oldest.insert((seqno, queue), ());
            }
            Place::Absent(_) => return,
        }
        self.policy.ready(queue, head, now);
    }

    /// Whether its head, the same that `ready` would name, starts now; and who else is to be called.
    pub(crate) fn ask(&mut self, queue: u32, head: Head, now: Time) -> (Answer, Option<u32>) {
        self.ready(queue, head, now);
        if let Some(at) = self.at(queue) {
            at.called = false;
        }
        if !self.fits(queue) {
            return (Answer::Wait, self.call(now));
        }
        if self.turn != Some(queue) {
            let chosen = self.choose(now);
            if chosen != Some(queue) {
                self.turn = self.turn.or(chosen);
                return (Answer::Wait, self.call(now));
            }
        }
        self.start(queue, head.credits, now);
        (Answer::Start, self.call(now))
    }

    fn start(&mut self, queue: u32, credits: u32, now: Time) {
        self.policy.started(queue, now);
        self.idle(queue);
        self.credits_free -= credits.min(self.credits);
        if self.turn == Some(queue) {
            self.turn = None;
        }
    }

    /// Takes a ready queue out; false if it was not ready.
    fn idle(&mut self, queue: u32) -> bool {
        let Some(at) = self.at(queue) else { return false };
        let Place::Ready { seqno, .. } = at.place else { return false };
        at.place = Place::Idle;
        at.called = false;
        self.oldest.remove(&(seqno, queue));
        true
    }

    /// Its head may not start any more. Returns who is to be called instead.
    pub(crate) fn unready(&mut self, queue: u32, now: Time) -> Option<u32> {
        if !self.idle(queue) {
            return None;
        }
        self.policy.unready(queue);
        if self.turn != Some(queue) {
            return None;
        }
        self.turn = None;
        self.call(now)
    }

    /// The start that `ask` allowed did not happen.
    pub(crate) fn give_back(&mut self, queue: u32, credits: u32, now: Time) -> Option<u32> {
        self.policy.returned(queue);
        self.free_credits(credits);
        self.call(now)
    }

    /// A job of `queue` has left the hardware, which it occupied for `active`.
    pub(crate) fn ended(&mut self, queue: u32, credits: u32, active: Duration, now: Time) -> Option<u32> {
        let ns = u64::try_from(active.as_nanos()).unwrap_or(u64::MAX);
        self.served_ns = self.served_ns.saturating_add(ns);
        if let Some(at) = self.at(queue) {
            at.had_ns = at.had_ns.saturating_add(ns);
        }
        self.policy.ended(queue, active, now);
        self.free_credits(credits);
        self.turn = None;
        self.call(now)
    }

    /// A reset was `queue`'s fault, and cost `time`.
    pub(crate) fn fine(&mut self, queue: u32, time: Duration, now: Time) -> Option<u32> {
        self.policy.fined(queue, time);
        self.turn = None;
        self.call(now)
    }

    fn free_credits(&mut self, credits: u32) {
        self.credits_free = self.credits_free.saturating_add(credits.min(self.credits)).min(self.credits);
    }

    /// Gives the turn, if nobody has it, and says who is to be called: whoever has it, if he can start and was not called yet.
    fn call(&mut self, now: Time) -> Option<u32> {
        if self.credits_free == 0 {
            return None;
        }
        if self.turn.is_none() {
            self.turn = self.choose(now);
        }
        let next = self.turn.filter(|next| self.fits(*next))?;
        let at = self.at(next)?;
        (!core::mem::replace(&mut at.called, true)).then_some(next)
    }

    /// Who is next: the one who was passed over for too long, or the policy's pick, or the one ready longest.
    fn choose(&mut self, now: Time) -> Option<u32> {
        let ((_, oldest), ()) = self.oldest.first()?;
        let oldest = *oldest;
        if self.is_starved(oldest) {
            return Some(oldest);
        }
        match self.policy.pick(now) {
            Some(queue) if self.head(queue).is_some() => Some(queue),
            _ => {
                self.bad_answers += 1;
                Some(oldest)
            }
        }
    }

    /// Whether others have had more hardware time since it became ready than rule 2 allows.
    fn is_starved(&self, queue: u32) -> bool {
        let Some(at) = self.queues.get(queue as usize) else { return false };
        let Place::Ready { served_ns, had_ns, .. } = at.place else { return false };
        let others = (self.served_ns - served_ns).saturating_sub(at.had_ns - had_ns);
        u128::from(others) >= STARVED_AFTER.as_nanos() * self.oldest.len() as u128
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Turns({}, {} ready, {} of {} credits)",
            self.policy.name(),
            self.oldest.len(),
            self.credits_free,
            self.credits
        )
    }
}
