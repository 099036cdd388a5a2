//! What must be given back: payloads, pages, leases and credits.
//!
//! Bytes are seen from two sides, as pages of memory and as what payloads are charged. Both may describe the same bytes,
//! so the larger of the two remainders counts as leaked, less what is in quarantine.

use alloc::format;

use super::ids::IdMap;
use super::window::Window;
use super::{Audit, Violations};
use crate::gpu::observe::{LeaseKind, Observation, Stamped};
use crate::gpu::types::JobId;

const PAGE: u64 = 4096;

/// A payload that is alive.
#[derive(Debug, Clone, Copy)]
struct Payload {
    bytes: u64,
    quarantined: bool,
}

/// Watches what must be given back.
#[derive(Debug, Default)]
pub struct ObjectChecker {
    payloads: Window<Payload>,
    /// What each job holds, where it is not zero; negative if it gave back more than it took.
    leases: IdMap<(JobId, LeaseKind), i128>,
    /// Allocated less freed; negative if the checker began to look late.
    pages: i64,
    created: u64,
    released: u64,
}

impl ObjectChecker {
    /// Sees one observation.
    pub fn observe(&mut self, seen: &Stamped, violations: &mut Violations) {
        let at = seen.at;
        match seen.what {
            Observation::PayloadCreated { payload, bytes, .. } => {
                self.created += 1;
                self.payloads.insert(payload, Payload { bytes, quarantined: false });
            }
            Observation::PayloadReleased { payload } => {
                self.released += 1;
                match self.payloads.remove(payload) {
                    None => violations.add(|| format!("{at}: payload {payload} was released but not alive")),
                    Some(Payload { quarantined: true, .. }) => {
                        violations.add(|| format!("{at}: payload {payload} left the quarantine"))
                    }
                    Some(_) => {}
                }
            }
            Observation::Quarantined { payload } => {
                if let Some(alive) = self.payloads.get_mut(payload) {
                    alive.quarantined = true;
                }
            }
            Observation::LeaseTaken { kind, job, count } => self.lease(job, kind, i128::from(count)),
            Observation::LeaseReturned { kind, job, count } => {
                self.lease(job, kind, -i128::from(count));
            }
            Observation::PageAllocated { .. } => self.pages += 1,
            Observation::PageFreed { .. } => self.pages -= 1,
            _ => {}
        }
    }

    fn lease(&mut self, job: JobId, kind: LeaseKind, change: i128) {
        let held = self.leases.entry((job, kind)).or_default();
        *held += change;
        if *held == 0 {
            self.leases.remove(&(job, kind));
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.payloads.len() + self.leases.len()
    }

    /// Counts what is outstanding as leaked.
    pub fn finish(&self, audit: &mut Audit, violations: &mut Violations) {
        audit.payloads_created = self.created;
        audit.payloads_released = self.released;
        let mut charged = 0;
        for (payload, alive) in self.payloads.iter() {
            charged += alive.bytes;
            if alive.quarantined {
                audit.quarantined_bytes += alive.bytes;
            } else {
                violations.add(|| format!("payload {payload} was never released"));
            }
        }
        let mut leases: Vec<(&(JobId, LeaseKind), &i128)> = self.leases.iter().collect();
        leases.sort_unstable();
        for ((job, kind), held) in leases {
            // Given back twice is as wrong as never.
            audit.leases_leaked += u64::try_from(held.unsigned_abs()).unwrap_or(u64::MAX);
            violations.add(|| format!("{job} ended holding {held} of {kind:?}"));
        }
        let paged = u64::try_from(self.pages).unwrap_or(0) * PAGE;
        audit.bytes_leaked = charged.max(paged).saturating_sub(audit.quarantined_bytes);
        if paged > audit.quarantined_bytes {
            violations.add(|| format!("{paged} bytes of pages were never freed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::types::{DomainId, OwnerId, PageId, Time};

    fn audit_of(steps: &[Observation]) -> Audit {
        let (mut checker, mut violations) = (ObjectChecker::default(), Violations::default());
        for what in steps {
            checker.observe(&Stamped { at: Time::ZERO, what: *what }, &mut violations);
        }
        let mut audit = Audit::default();
        checker.finish(&mut audit, &mut violations);
        audit.violations = violations.words().to_vec();
        audit
    }

    const BORN: Observation = Observation::PayloadCreated { payload: 1, job: JobId(1), bytes: 4096 };
    const DROPPED: Observation = Observation::PayloadReleased { payload: 1 };
    const PAGE_0: PageId = PageId { domain: DomainId::SYSTEM, index: 0 };

    #[test]
    fn given_back_is_clean() {
        let (kind, job, count) = (LeaseKind::Credits, JobId(1), 3);
        let audit = audit_of(&[
            BORN,
            Observation::LeaseTaken { kind, job, count },
            Observation::PageAllocated { page: PAGE_0, owner: OwnerId(0) },
            Observation::PageFreed { page: PAGE_0 },
            Observation::LeaseReturned { kind, job, count },
            DROPPED,
        ]);
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!((audit.payloads_created, audit.payloads_released), (1, 1));
    }

    #[test]
    fn a_leaked_payload_is_counted_in_bytes() {
        let audit = audit_of(&[BORN]);
        assert_eq!((audit.bytes_leaked, audit.payloads_released), (4096, 0));
        assert!(!audit.is_clean());
    }

    #[test]
    fn a_leaked_page_is_counted_once_with_its_payload() {
        let audit = audit_of(&[BORN, Observation::PageAllocated { page: PAGE_0, owner: OwnerId(0) }]);
        assert_eq!(audit.bytes_leaked, 4096);
    }

    #[test]
    fn a_payload_dropped_twice_is_not_clean() {
        let audit = audit_of(&[BORN, DROPPED, DROPPED]);
        assert!(!audit.is_clean() && audit.violations.len() == 1);
    }

    #[test]
    fn quarantine_is_no_leak_and_not_clean() {
        let audit = audit_of(&[BORN, Observation::Quarantined { payload: 1 }]);
        assert_eq!((audit.bytes_leaked, audit.quarantined_bytes), (0, 4096));
        assert!(!audit.is_clean());
    }

    #[test]
    fn leases_lost_and_given_back_twice_are_counted() {
        let (kind, job) = (LeaseKind::Resource, JobId(7));
        let lost = audit_of(&[Observation::LeaseTaken { kind, job, count: 2 }]);
        assert_eq!(lost.leases_leaked, 2);
        let twice = audit_of(&[Observation::LeaseReturned { kind, job, count: 1 }]);
        assert_eq!(twice.leases_leaked, 1);
        assert!(twice.violations[0].contains("job 7"));
    }
}
