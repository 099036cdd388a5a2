//! Where page tables are still to follow their address space: the ranges that binds under way change, and until when.
//!
//! # Several bind queues
//! One bind queue's jobs go in order; several queues may change one address space. So a change waits for those before it that
//! touch the same addresses, and for no others. Each waits for earlier ones only, so none waits in a circle.
//!
//! # What was closed and is still to be cleared
//! Its entries may be in the way of what is mapped in its place. So whoever writes a mapping's entries takes out what is there
//! first, and whoever clears leaves out what is mapped there by now, unless that is still to be written. Both look here under
//! the machine's lock, so each address is cleared by one of the two.
//!
//! # Who touches what
//! Whoever has the turn at the address space adds; the rest is under the machine's lock.

use outlive::Fence;
use outlive::vm::VaRange;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::gpu::PAGE_BYTES;

#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    changes: Mutex<Vec<(VaRange, Fence)>>,
    /// Of mappings whose entries a bind is still to write.
    unwritten: Mutex<Vec<VaRange>>,
}

impl UnderWay {
    /// What still changes any of `ranges`.
    pub(crate) fn touching(&self, ranges: &[VaRange]) -> Vec<Fence> {
        let mut all = lock(&self.changes);
        all.retain(|(_, done)| !done.is_signaled());
        let touches = |range: VaRange| ranges.iter().any(|other| range.overlaps(*other));
        let mut found: Vec<Fence> = Vec::new();
        for (_, done) in all.iter().filter(|(range, _)| touches(*range)) {
            if !found.contains(done) {
                found.push(done.clone());
            }
        }
        found
    }

    /// They change until then.
    pub(crate) fn add(&self, ranges: Vec<VaRange>, done: &Fence) {
        lock(&self.changes).extend(ranges.into_iter().map(|range| (range, done.clone())));
    }

    /// Their entries are to be written.
    pub(crate) fn add_unwritten(&self, ranges: impl Iterator<Item = VaRange>) {
        lock(&self.unwritten).extend(ranges);
    }

    /// The entries of one are written next.
    pub(crate) fn writes(&self, range: VaRange) {
        let mut unwritten = lock(&self.unwritten);
        if let Some(at) = unwritten.iter().position(|other| *other == range) {
            unwritten.swap_remove(at);
        }
    }

    /// Where in `range` entries are still to be written.
    pub(crate) fn unwritten_in(&self, range: VaRange) -> Vec<VaRange> {
        let unwritten = lock(&self.unwritten);
        let there = unwritten.iter().filter(|other| other.overlaps(range));
        there
            .filter_map(|other| {
                let (base, last) = (other.base().max(range.base()), other.last().min(range.last()));
                VaRange::new(base, last - base + 1, PAGE_BYTES as u64).ok()
            })
            .collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
