//! `Arbiter`: the lock around the turns, and the way back to the queues.
//!
//! # Locks
//! The arbiter's lock ranks inside the queues': a queue asks, withdraws and reports under its own. Whoever is to be called is
//! only put to the signalling lane, from where it asks by itself; so no queue's lock is taken under the arbiter's, and
//! nobody waits.
//!
//! # Who may go away when
//! The arbiter's handle, at any time: its queues close. A queue, at any time: it has its number until its last job has left
//! the hardware, and pays for it.

use super::policy::Policy;
use super::turns::{Answer, Turns};
use super::{Fair, Head, Share};
use crate::exec::hub::Hub;
use crate::exec::{Executor, next_id};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapBox, HeapVec, try_box, try_reserve};
use crate::queue::turn::Caller;
use crate::sabotage::{self, Sabotage};
use crate::sync::{Lock, class};
use crate::time::Time;
use core::fmt;
use core::time::Duration;

/// How an arbiter is made; see each method for the default.
#[derive(Debug, Clone, Copy)]
pub struct ArbiterConfig {
    credits: u32,
    engines: u32,
    queues: u32,
    in_order: bool,
}

impl ArbiterConfig {
    /// One pool of `credits`, for hardware that executes one job at a time, and at most 256 queues.
    #[must_use]
    pub const fn new(credits: u32) -> Self {
        Self { credits, engines: 1, queues: 256, in_order: false }
    }

    /// How many jobs the hardware executes at once: realtime queues get half of that. Default 1.
    #[must_use]
    pub const fn engines(mut self, engines: u32) -> Self {
        self.engines = engines;
        self
    }

    /// How many queues there may be at a time, those included that are closed and have jobs on the hardware. All room is
    /// taken when the arbiter is made, with the default policy about 1.1 KiB a queue. Default 256.
    #[must_use]
    pub const fn queues(mut self, most: u32) -> Self {
        self.queues = most;
        self
    }

    /// Promises that the hardware executes the jobs of all its queues strictly in the order in which they are handed over, each
    /// after the one before. So a job may be handed over behind another queue's, if its submitter says so
    /// ([`Dependency::pipelined`](crate::Dependency::pipelined)). Default false.
    #[must_use]
    pub const fn in_order(mut self, in_order: bool) -> Self {
        self.in_order = in_order;
        self
    }
}

/// A handle on an arbiter: many queues, one pool of credits. Queues name it in
/// [`QueueConfig::arbiter`](crate::QueueConfig::arbiter). Dropping it closes them: their jobs fail with
/// [`Canceled`](crate::FenceError::Canceled). Never blocks; any context.
pub struct Arbiter {
    shared: Ref<ArbiterShared>,
}

/// How an arbiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArbiterStatus {
    /// Whose turn it is, by this policy.
    pub policy: &'static str,
    /// Credits nothing on the hardware holds.
    pub credits_free: u32,
    /// Queues whose head waits for its turn only.
    pub ready: usize,
    /// How often the policy named nobody, or a queue that was not ready.
    pub bad_answers: u64,
}

pub(crate) struct ArbiterShared {
    hub: Ref<Hub>,
    credits: u32,
    engines: u32,
    /// Its number, if its hardware executes in order; else 0.
    order: u64,
    state: Lock<class::ArbiterState, State>,
}

struct State {
    turns: Turns,
    callers: HeapVec<Option<Caller>>,
    closed: bool,
}

/// Why a queue was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full(u32),
    Gone,
}

impl Arbiter {
    /// An arbiter with the default policy, [`Fair`], for queues on `executor`. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(executor: &Executor, config: ArbiterConfig) -> Result<Self, AllocError> {
        Self::with_policy(executor, config, Fair::new(config.engines))
    }

    /// An arbiter with another policy. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn with_policy(executor: &Executor, config: ArbiterConfig, policy: impl Policy) -> Result<Self, AllocError> {
        let policy: HeapBox<dyn Policy> = try_box(policy).map_err(|(error, _)| error)?;
        let turns = Turns::new(policy, config.credits, config.queues)?;
        let mut callers = HeapVec::new();
        try_reserve(&mut callers, config.queues as usize)?;
        callers.extend((0..config.queues).map(|_| None));
        let state = Lock::new(State { turns, callers, closed: false });
        let order = if config.in_order { next_id() } else { 0 };
        let shared = ArbiterShared {
            hub: executor.hub().clone(),
            credits: config.credits,
            engines: config.engines,
            order,
            state,
        };
        Ok(Self { shared: Ref::try_new(shared)? })
    }

    /// How it stands now; a short look under its lock.
    #[must_use]
    pub fn status(&self) -> ArbiterStatus {
        let state = self.shared.state.lock();
        ArbiterStatus {
            policy: state.turns.policy_name(),
            credits_free: state.turns.credits_free(),
            ready: state.turns.ready_count(),
            bad_answers: state.turns.bad_answers(),
        }
    }

    pub(crate) const fn shared(&self) -> &Ref<ArbiterShared> {
        &self.shared
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        let most = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.callers.len()
        };
        for at in 0..most {
            // A queue's lock ranks outside the arbiter's: taken when that is free again.
            let queue = self.shared.state.lock().callers[at].as_ref().and_then(Caller::upgrade);
            if let Some(queue) = queue {
                queue.close();
            }
        }
    }
}

impl fmt::Debug for Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.state.lock().turns.fmt(f)
    }
}

impl ArbiterShared {
    /// The pool: no job of a queue may ask for more.
    pub(crate) const fn credits(&self) -> u32 {
        self.credits
    }

    pub(crate) const fn order(&self) -> u64 {
        self.order
    }

    /// Whether it is for queues on this executor: one lane calls them all, by one clock.
    pub(crate) fn is_on(&self, executor: &Executor) -> bool {
        self.hub.same(executor.hub())
    }

    /// A number for a new queue.
    pub(crate) fn open(&self, client: u64, share: Share) -> Result<u32, Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Gone);
        }
        let most = u32::try_from(state.callers.len()).unwrap_or(u32::MAX);
        state.turns.open(client, share).ok_or(Refused::Full(most))
    }

    /// The queue of that number can be called from now on; false if the arbiter has gone meanwhile.
    pub(crate) fn enlist(&self, queue: u32, caller: Caller) -> bool {
        let mut state = self.state.lock();
        state.callers[queue as usize] = Some(caller);
        !state.closed
    }

    /// The queue is dying: nobody calls it any more.
    pub(crate) fn close(&self, queue: u32) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        state.callers[queue as usize] = None;
        let call = state.turns.close(queue, now);
        state.call(call);
    }

    pub(crate) fn ready(&self, queue: u32, head: Head, now: Time) {
        self.state.lock().turns.ready(queue, head, now);
    }

    pub(crate) fn ask(&self, queue: u32, head: Head, now: Time) -> Answer {
        let mut state = self.state.lock();
        let (answer, call) = state.turns.ask(queue, head, now);
        state.call(call);
        answer
    }

    pub(crate) fn unready(&self, queue: u32) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        let call = state.turns.unready(queue, now);
        state.call(call);
    }

    pub(crate) fn give_back(&self, queue: u32, credits: u32) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        let call = state.turns.give_back(queue, credits, now);
        state.call(call);
    }

    /// How many jobs its hardware executes at once.
    pub(crate) const fn engines(&self) -> u32 {
        self.engines
    }

    pub(crate) fn fine(&self, queue: u32, time: Duration) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        let call = state.turns.fine(queue, time, now);
        state.call(call);
    }

    pub(crate) fn ended(&self, queue: u32, credits: u32, active: Duration) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        let call = state.turns.ended(queue, credits, active, now);
        state.call(call);
    }

    pub(crate) fn change(&self, queue: u32, share: Share) {
        let now = self.hub.now();
        let mut state = self.state.lock();
        let call = state.turns.change(queue, share, now);
        state.call(call);
    }
}

impl State {
    fn call(&self, queue: Option<u32>) {
        if sabotage::is(Sabotage::LoseTurn) {
            return;
        }
        if let Some(queue) = queue.and_then(|queue| self.callers.get(queue as usize)?.as_ref()?.upgrade()) {
            queue.poke();
        }
    }
}

impl fmt::Debug for ArbiterShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arbiter({} credits)", self.credits)
    }
}
