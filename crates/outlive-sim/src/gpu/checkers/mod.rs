//! Independent checkers: they see what the device and its host report, and nothing else.
//!
//! A checker shares no code and no state with what it checks: it is fed [`Stamped`] observations in their order and
//! keeps its own books. [`access`] watches pages, [`fences`] timelines, [`objects`] what must be given back. One who
//! feeds a defect sees it counted; each checker's tests do.

pub mod access;
pub mod fences;
pub mod objects;

pub(crate) mod ids;
pub(crate) mod window;

use super::memory::Memory;
use super::observe::{Observation, Stamped};
use access::AccessChecker;
use fences::FenceChecker;
use objects::ObjectChecker;

/// So many violations are kept in words.
pub const VIOLATIONS_MAX: usize = 20;

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Fences that were published.
    pub fences_created: u64,
    /// Fences that were signalled.
    pub fences_signaled: u64,
    /// Fences that were published and not signalled by the end.
    pub fences_unsignaled: u64,
    /// Signals of fences that were signalled already, or were never published.
    pub signaled_twice: u64,
    /// Signals that came before that of an earlier fence of the same context.
    pub out_of_order: u64,
    /// Payloads that came to life.
    pub payloads_created: u64,
    /// Payloads that were dropped.
    pub payloads_released: u64,
    /// Pages and payloads that were freed while a job on the hardware could touch them, and touches of free pages.
    pub released_while_hardware_busy: u64,
    /// Uses of one page by two at once, one writing, that nothing orders.
    pub conflicting_accesses: u64,
    /// Page faults that nobody asked for.
    pub unexpected_page_faults: u64,
    /// Accesses by a translation that the device remembered and that was not in its page tables any more.
    pub stale_translations: u64,
    /// Leases and credits that were not given back.
    pub leases_leaked: u64,
    /// Bytes of pages and payloads that were not given back and are not in quarantine.
    pub bytes_leaked: u64,
    /// Bytes of payloads that are never to be freed.
    pub quarantined_bytes: u64,
    /// The first violations, in words.
    pub violations: Vec<String>,
}

impl Audit {
    /// Whether all that must be zero is, and all that must be equal is.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let must_be_zero = [
            self.fences_unsignaled,
            self.signaled_twice,
            self.out_of_order,
            self.released_while_hardware_busy,
            self.conflicting_accesses,
            self.unexpected_page_faults,
            self.stale_translations,
            self.leases_leaked,
            self.bytes_leaked,
            self.quarantined_bytes,
        ];
        must_be_zero.iter().all(|count| *count == 0)
            && self.fences_created == self.fences_signaled
            && self.payloads_created == self.payloads_released
    }
}

/// Violations in words, up to [`VIOLATIONS_MAX`].
#[derive(Debug, Default)]
pub struct Violations {
    words: Vec<String>,
}

impl Violations {
    /// Adds one; the words are only made if there is room.
    pub(crate) fn add(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < VIOLATIONS_MAX {
            self.words.push(words());
        }
    }

    /// Those so far.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }
}

/// All checkers.
#[derive(Debug, Default)]
pub struct Checkers {
    access: AccessChecker,
    fences: FenceChecker,
    objects: ObjectChecker,
    violations: Violations,
}

impl Checkers {
    /// Checkers that have seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows one observation to the checkers that it concerns.
    pub fn observe(&mut self, seen: &Stamped) {
        let Self { access, fences, objects, violations } = self;
        match seen.what {
            Observation::FenceCreated { .. }
            | Observation::FenceSignaled { .. }
            | Observation::ContextClosed { .. }
            | Observation::Unordered { .. } => fences.observe(seen, violations),
            Observation::LeaseTaken { .. } | Observation::LeaseReturned { .. } | Observation::Quarantined { .. } => {
                objects.observe(seen, violations);
            }
            Observation::PageAllocated { .. }
            | Observation::PageFreed { .. }
            | Observation::PayloadCreated { .. }
            | Observation::PayloadReleased { .. } => {
                access.observe(seen, violations);
                objects.observe(seen, violations);
            }
            Observation::OnEngine { .. } | Observation::OffEngine { .. } => {}
            Observation::Submitted { .. }
            | Observation::FaultRequested { .. }
            | Observation::Ordered { .. }
            | Observation::PageLaidAside { .. }
            | Observation::PageTakenUp { .. }
            | Observation::HostTouched { .. }
            | Observation::Started { .. }
            | Observation::Live { .. }
            | Observation::PageFault { .. }
            | Observation::Stopped { .. } => access.observe(seen, violations),
        }
    }

    /// Shows all checkers what the memory's tap has collected, and clears it.
    pub fn drain(&mut self, memory: &mut Memory) {
        for seen in memory.tap().seen() {
            self.observe(seen);
        }
        memory.tap_mut().clear();
    }

    /// Entries in the books of each, pages left out.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.access.size(), self.fences.size(), self.objects.size()]
    }

    /// The counts, at the end of the world: what is outstanding now is leaked.
    #[must_use]
    pub fn finish(mut self) -> Audit {
        let mut audit = Audit::default();
        self.access.finish(&mut audit);
        self.fences.finish(&mut audit, &mut self.violations);
        self.objects.finish(&mut audit, &mut self.violations);
        audit.violations = self.violations.words;
        audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{FenceName, Time};

    #[test]
    fn nothing_seen_is_clean() {
        let audit = Checkers::new().finish();
        assert!(audit.is_clean());
        assert_eq!(audit, Audit::default());
    }

    #[test]
    fn counts_that_differ_are_not_clean() {
        let audit = Audit { payloads_created: 1, ..Audit::default() };
        assert!(!audit.is_clean());
        let audit = Audit { fences_created: 1, ..Audit::default() };
        assert!(!audit.is_clean());
    }

    #[test]
    fn only_the_first_violations_are_kept_in_words() {
        let mut checkers = Checkers::new();
        for seqno in 0..30 {
            let what = Observation::FenceSignaled { fence: FenceName { context: 1, seqno } };
            checkers.observe(&Stamped { at: Time::ZERO, what });
        }
        let audit = checkers.finish();
        assert_eq!((audit.signaled_twice, audit.violations.len()), (30, VIOLATIONS_MAX));
    }
}
