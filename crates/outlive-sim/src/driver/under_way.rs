//! Where page tables are still to follow their address space: the ranges that binds under way change, and until when.
//!
//! One bind queue's jobs go in order; several queues may change one address space. So a change waits for those before it that
//! touch the same addresses, and for no others. Each waits for earlier ones only, so none waits in a circle.
//!
//! Whoever has the turn at the address space looks and adds.

use outlive::Fence;
use outlive::vm::VaRange;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<Vec<(VaRange, Fence)>>);

impl UnderWay {
    /// What still changes any of `ranges`.
    pub(crate) fn touching(&self, ranges: &[VaRange]) -> Vec<Fence> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(ranges.into_iter().map(|range| (range, done.clone())));
    }
}
