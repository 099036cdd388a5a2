//! Who disposes of a job, and who may say that the hardware is done with it: two decisions in one word, each taken once.
//!
//! # States
//! ```text
//! verdict:   open ──decide──▶ decided(result)            once: completion, timeout, close, loss, failed dependency
//! hardware:  off ──start──▶ on ──free──▶ free            start only while the verdict is open
//!                            └──quarantine──▶ quarantined
//! ```
//! Completion, timeout, close and loss may all race; each asks by compare-exchange and exactly one is told yes. A job that
//! was decided never starts; a job that started is retired only after `free` or `quarantine`.
//!
//! While the driver's call that starts the job lasts, from `start` to `leave_call`, a completion may `end` the job and leave
//! the rest to whoever made the call: the word says so, and `leave_call` tells him, once.
//!
//! # Contexts
//! Any. Lock-free, never blocks.

use crate::fence::FenceError;
use crate::sync::atomic::{AtomicU32, Ordering};

const DECIDED: u32 = 1;
const HARDWARE: u32 = 0b110;
const OFF: u32 = 0;
const ON: u32 = 0b010;
const FREE: u32 = 0b100;
const QUARANTINED: u32 = 0b110;
const OWED: u32 = 0b1000;
const CALL: u32 = 0b1_0000;
const LEFT: u32 = 0b10_0000;

/// What is known of a job: see the module.
#[derive(Debug)]
pub(crate) struct Disposal {
    /// Bit 0: decided. Bits 1 and 2: the hardware. Bit 3: somebody still owes the queue the news of a verdict. Bit 4: the call
    /// that hands the job over is in progress. Bit 5: a completion has left the news to whoever made it. Bits 8 to 31: the
    /// verdict, as in a fence's word.
    word: AtomicU32,
}

/// What a completion has to do once it has ended its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// To tell the queue.
    Tell,
    /// Nothing: who handed the job over sees to it.
    Left,
    /// Nothing: somebody else said before that the hardware is done, or never will be.
    Old,
}

/// Whether the hardware may touch what a job touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hardware {
    /// It was never told.
    Off,
    /// It may.
    On,
    /// It was told, and cannot any more.
    Free,
    /// It was told, and that it cannot is not known.
    Quarantined,
}

impl Disposal {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(OFF) }
    }

    fn change(&self, edge: impl Fn(u32) -> Option<u32>) -> bool {
        self.change_from(edge).is_some()
    }

    /// The word from before, if it was changed.
    fn change_from(&self, edge: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let next = edge(seen)?;
            // ORDERING: AcqRel: what the winner did before is seen by whoever acts on the decision, under whatever lock.
            match self.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(seen),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives the verdict; true for the one who does.
    pub(crate) fn decide(&self, result: Result<(), FenceError>) -> bool {
        self.change(|seen| (seen & DECIDED == 0).then_some(seen | DECIDED | FenceError::encode(result)))
    }

    /// Gives the verdict and owes the queue the news: the job is not retired before [`Disposal::pay`], so its queue stays
    /// reachable. True for the one who does.
    pub(crate) fn decide_owing(&self, result: Result<(), FenceError>) -> bool {
        self.change(|seen| (seen & DECIDED == 0).then_some(seen | DECIDED | OWED | FenceError::encode(result)))
    }

    /// The news was given: under the queue's lock.
    pub(crate) fn pay(&self) {
        self.word.fetch_and(!OWED, Ordering::AcqRel);
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.word.load(Ordering::Acquire) & OWED != 0
    }

    /// Hands the job to the hardware, unless it has been decided, in a call that lasts until [`Disposal::leave_call`].
    pub(crate) fn start(&self) -> bool {
        self.change(|seen| (seen & (DECIDED | HARDWARE) == OFF).then_some(seen | ON | CALL))
    }

    /// The call that handed the job over has ended. True: so has the job, meanwhile, and the news was left to the caller.
    pub(crate) fn leave_call(&self) -> bool {
        // ORDERING: Acquire: as in `end`, which was the last that its completion did.
        let seen = self.word.load(Ordering::Acquire);
        // A completion that has left the news has no more to ask: the mark of the call may stay.
        (seen & LEFT != 0) || self.word.fetch_and(!CALL, Ordering::AcqRel) & LEFT != 0
    }

    /// The hardware is done with it, and its verdict is `result` unless it has one. `leave`: the news may be left to a call in
    /// progress.
    pub(crate) fn end(&self, result: Result<(), FenceError>, leave: bool) -> News {
        let verdict = DECIDED | FenceError::encode(result);
        let before = self.change_from(|seen| {
            let decided = if seen & DECIDED == 0 { seen | verdict } else { seen };
            let left = if leave && seen & CALL != 0 { LEFT } else { 0 };
            let ended = if seen & HARDWARE == ON { (decided & !HARDWARE) | FREE | left } else { decided };
            (ended != seen).then_some(ended)
        });
        match before {
            Some(seen) if seen & HARDWARE == ON && leave && seen & CALL != 0 => News::Left,
            Some(seen) if seen & HARDWARE == ON => News::Tell,
            _ => News::Old,
        }
    }

    /// The hardware is done with it; true for the one who says so first, who then owes the queue the news.
    pub(crate) fn free(&self) -> bool {
        self.change(|seen| (seen & HARDWARE == ON).then_some((seen & !HARDWARE) | FREE))
    }

    /// It will never be known whether the hardware is done with it; true for the one who says so first.
    pub(crate) fn quarantine(&self) -> bool {
        self.change(|seen| (seen & HARDWARE == ON).then_some(seen | QUARANTINED))
    }

    /// The verdict, once decided.
    pub(crate) fn verdict(&self) -> Option<Result<(), FenceError>> {
        // ORDERING: Acquire pairs with `change`.
        let word = self.word.load(Ordering::Acquire);
        (word & DECIDED != 0).then(|| FenceError::decode(word))
    }

    pub(crate) fn hardware(&self) -> Hardware {
        match self.word.load(Ordering::Acquire) & HARDWARE {
            OFF => Hardware::Off,
            ON => Hardware::On,
            FREE => Hardware::Free,
            _ => Hardware::Quarantined,
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Disposal, Hardware};
    use crate::fence::FenceError;

    #[test]
    fn a_decided_job_never_starts() {
        let job = Disposal::new();
        assert!(job.decide(Err(FenceError::Canceled)));
        assert!(!job.start());
        assert_eq!((job.verdict(), job.hardware()), (Some(Err(FenceError::Canceled)), Hardware::Off));
    }

    #[test]
    fn the_first_verdict_stays_and_the_hardware_is_a_question_of_its_own() {
        let job = Disposal::new();
        assert!(job.start());
        assert!(!job.start(), "it is on the hardware already");
        assert!(job.decide(Err(FenceError::TimedOut)));
        assert!(!job.decide(Ok(())), "a late completion changes no verdict");
        assert_eq!(job.hardware(), Hardware::On);
        assert!(job.free(), "but it retires the job");
        assert!(!job.free() && !job.quarantine());
        assert_eq!((job.verdict(), job.hardware()), (Some(Err(FenceError::TimedOut)), Hardware::Free));
    }

    #[test]
    fn what_never_started_cannot_be_freed_or_quarantined() {
        let job = Disposal::new();
        assert!(!job.free() && !job.quarantine());
        assert_eq!(job.verdict(), None);
    }
}
