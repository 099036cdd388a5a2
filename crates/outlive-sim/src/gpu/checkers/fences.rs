//! Fences: each is published once, signalled once, and in the order of its context.
//!
//! For every context the checker keeps the sequence numbers that are published and not signalled. A signal takes its
//! number out; one that finds no such number is a second signal (or one of a fence that never was), and one that leaves
//! an earlier number behind is out of order, unless the context promises none.

use alloc::collections::VecDeque;
use alloc::format;

use super::ids::IdMap;
use super::{Audit, Violations};
use crate::gpu::observe::{FenceName, Observation, Stamped};
use crate::gpu::types::Time;

/// One timeline.
#[derive(Debug, Default)]
struct Context {
    /// Published and not signalled, ascending.
    open: VecDeque<u64>,
    /// It promises no order.
    unordered: bool,
}

/// Watches fences.
#[derive(Debug, Default)]
pub struct FenceChecker {
    contexts: IdMap<u64, Context>,
    created: u64,
    signaled: u64,
    signaled_twice: u64,
    out_of_order: u64,
}

impl FenceChecker {
    /// Sees one observation.
    pub fn observe(&mut self, seen: &Stamped, violations: &mut Violations) {
        match seen.what {
            Observation::FenceCreated { fence } => self.created(fence),
            Observation::FenceSignaled { fence } => self.signaled(fence, seen.at, violations),
            Observation::Unordered { context } => {
                self.contexts.entry(context).or_default().unordered = true;
            }
            Observation::ContextClosed { context } => self.closed(context),
            _ => {}
        }
    }

    fn closed(&mut self, context: u64) {
        // What is open stays, to be counted in the end.
        if self.contexts.get(&context).is_some_and(|known| known.open.is_empty()) {
            self.contexts.remove(&context);
        }
    }

    fn created(&mut self, fence: FenceName) {
        self.created += 1;
        let open = &mut self.contexts.entry(fence.context).or_default().open;
        // Almost always the largest so far.
        if open.back().is_none_or(|last| *last < fence.seqno) {
            open.push_back(fence.seqno);
            return;
        }
        let place = open.iter().rposition(|seqno| *seqno < fence.seqno);
        open.insert(place.map_or(0, |before| before + 1), fence.seqno);
    }

    fn signaled(&mut self, fence: FenceName, at: Time, violations: &mut Violations) {
        let FenceName { context, seqno } = fence;
        let Context { open, unordered } = self.contexts.entry(context).or_default();
        let Some(place) = open.iter().position(|other| *other == seqno) else {
            self.signaled_twice += 1;
            violations.add(|| format!("{at}: fence {context}:{seqno} was signalled though it was not open"));
            return;
        };
        self.signaled += 1;
        open.remove(place);
        if place > 0 && !*unordered {
            self.out_of_order += 1;
            let earlier = open.front().copied().unwrap_or(0);
            violations.add(|| format!("{at}: fence {context}:{seqno} was signalled before {context}:{earlier}"));
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.contexts.len()
    }

    /// Counts what is open as never signalled.
    pub fn finish(&self, audit: &mut Audit, violations: &mut Violations) {
        audit.fences_created = self.created;
        audit.fences_signaled = self.signaled;
        audit.signaled_twice = self.signaled_twice;
        audit.out_of_order = self.out_of_order;
        let mut left: Vec<(&u64, &Context)> =
            self.contexts.iter().filter(|(_, known)| !known.open.is_empty()).collect();
        left.sort_unstable_by_key(|(context, _)| **context);
        for (context, known) in left {
            audit.fences_unsignaled += known.open.len() as u64;
            for seqno in &known.open {
                violations.add(|| format!("fence {context}:{seqno} was never signalled"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit_of(steps: &[(char, u64, u64)]) -> Audit {
        let (mut checker, mut violations) = (FenceChecker::default(), Violations::default());
        for (verb, context, seqno) in steps {
            let fence = FenceName { context: *context, seqno: *seqno };
            let what = match verb {
                'c' => Observation::FenceCreated { fence },
                'u' => Observation::Unordered { context: *context },
                _ => Observation::FenceSignaled { fence },
            };
            checker.observe(&Stamped { at: Time::ZERO, what }, &mut violations);
        }
        let mut audit = Audit::default();
        checker.finish(&mut audit, &mut violations);
        audit.violations = violations.words().to_vec();
        audit
    }

    #[test]
    fn in_order_is_clean_and_contexts_are_apart() {
        let audit = audit_of(&[('c', 1, 1), ('c', 1, 2), ('c', 2, 1), ('s', 2, 1), ('s', 1, 1), ('s', 1, 2)]);
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!(audit.fences_signaled, 3);
    }

    #[test]
    fn a_second_signal_is_counted() {
        let audit = audit_of(&[('c', 1, 1), ('s', 1, 1), ('s', 1, 1)]);
        assert_eq!((audit.signaled_twice, audit.fences_signaled), (1, 1));
        assert!(audit.violations[0].contains("1:1"));
    }

    #[test]
    fn an_early_signal_is_counted_once() {
        let audit = audit_of(&[('c', 1, 1), ('c', 1, 2), ('s', 1, 2), ('s', 1, 1)]);
        assert_eq!((audit.out_of_order, audit.fences_unsignaled), (1, 0));
    }

    #[test]
    fn where_no_order_is_promised_none_is_broken() {
        let audit = audit_of(&[('u', 1, 0), ('c', 1, 1), ('c', 1, 2), ('s', 1, 2), ('s', 1, 1)]);
        assert!(audit.is_clean(), "{audit:?}");
    }

    #[test]
    fn an_open_fence_is_counted_at_the_end() {
        let audit = audit_of(&[('c', 1, 1), ('c', 1, 2), ('s', 1, 1)]);
        assert_eq!((audit.fences_unsignaled, audit.fences_created), (1, 2));
        assert!(!audit.is_clean());
    }
}
