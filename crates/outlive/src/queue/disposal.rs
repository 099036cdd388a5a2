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

/// What is known of a job: see the module.
#[derive(Debug)]
pub(crate) struct Disposal {
    /// Bit 0: decided. Bits 1 and 2: the hardware. Bit 3: somebody still owes the queue the news of a verdict. Bits 8 to 31: the verdict, as in a fence's word.
    word: AtomicU32,
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
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let Some(next) = edge(seen) else { return false };
            // ORDERING: AcqRel: what the winner did before is seen by whoever acts on the decision, under whatever lock.
            match self.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
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

    /// Hands the job to the hardware, unless it has been decided.
    pub(crate) fn start(&self) -> bool {
        self.change(|seen| (seen & (DECIDED | HARDWARE) == OFF).then_some(seen | ON))
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
