//! Walks: from a point to those before it, without a lock, while others cut points off.
//!
//! `count` counts the walkers; a point that was cut off while there are any lies in `limbo`, with its count, until there are
//! none. Walker and collector meet in read-modify-writes of `count`: a collector that reads zero has cut before any later
//! walker looks, and after all earlier ones have left. If there is a walker at every moment, limbo grows. Nobody waits for
//! anybody.
#![expect(unsafe_code, reason = "counted links, walked without a lock; docs/unsafe.md, `fence::timeline::walk`")]

use super::Inner;
use super::point::{Point, own};
use crate::fence::state::{ARMED, Fence, Header, SIGNALED};
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::time::Time;
use core::ptr::{self, NonNull};

/// Who walks a timeline's points, and what may be freed once nobody does.
pub(super) struct Walkers {
    count: AtomicUsize,
    limbo: AtomicPtr<Header>,
}

impl Walkers {
    pub(super) fn new() -> Self {
        Self { count: AtomicUsize::new(0), limbo: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Gives up the count on a point that was cut off, once no walker can be on it.
    pub(super) fn retire(&self, cut: *mut Header) {
        if cut.is_null() {
            return;
        }
        self.bury(cut);
        self.collect();
    }

    fn bury(&self, cut: *mut Header) {
        // SAFETY: in limbo or on the way there, so counted.
        let Some(point) = (unsafe { Point::at(cut) }) else { return };
        let mut top = self.limbo.load(Ordering::Relaxed);
        loop {
            point.own.under.store(top, Ordering::Relaxed);
            // ORDERING: Release publishes `under`.
            match self.limbo.compare_exchange_weak(top, cut, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Empties limbo, unless somebody walks: then the last walker does.
    fn collect(&self) {
        loop {
            let mut cut = self.limbo.swap(ptr::null_mut(), Ordering::AcqRel);
            if cut.is_null() {
                return;
            }
            // ORDERING: a read-modify-write reads the latest value, and the next walker's reads from it.
            let walked = self.count.fetch_add(0, Ordering::AcqRel) != 0;
            // SAFETY: what is in limbo is counted.
            while let Some(point) = unsafe { Point::at(cut) } {
                let here = cut;
                cut = point.own.under.load(Ordering::Relaxed);
                if walked {
                    self.bury(here);
                } else if let Some(header) = NonNull::new(here) {
                    // SAFETY: limbo's count; no walker is on it, for it was cut off before there was none.
                    unsafe { Fence::release(header) };
                }
            }
            if !walked || self.count.fetch_add(0, Ordering::AcqRel) != 0 {
                return;
            }
        }
    }
}

/// While it lives, no point that can be reached through links is freed.
pub(super) struct Walk<'a> {
    walkers: &'a Walkers,
}

impl<'a> Walk<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        // ORDERING: AcqRel: see `collect`.
        inner.walkers.count.fetch_add(1, Ordering::AcqRel);
        Self { walkers: &inner.walkers }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        // ORDERING: Release: all looks come before the collector's free.
        let last = self.walkers.count.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.walkers.limbo.load(Ordering::Acquire).is_null() {
            self.walkers.collect();
        }
    }
}

/// Calls `visit` for the fence of this point, then of those before it, back to the oldest that is left.
pub(in crate::fence) fn contents<E>(point: &Fence, mut visit: impl FnMut(&Fence) -> Result<(), E>) -> Result<(), E> {
    let _walk = Walk::new(&own(point).inner);
    // SAFETY: held by the caller.
    let mut at = unsafe { Point::at(point.header_ptr().as_ptr()) };
    while let Some(point) = at {
        visit(&point.own.member.fence)?;
        // SAFETY: under a walk.
        at = unsafe { point.prev() };
    }
    Ok(())
}

/// Goes back from `point`, and on while `onward` says so of the next one.
fn back_from(point: &Fence, visit: impl Fn(&Fence), onward: impl Fn(&Fence) -> bool) {
    let _walk = Walk::new(&own(point).inner);
    // SAFETY: held by the caller.
    let mut at = unsafe { Point::at(point.header_ptr().as_ptr()) };
    while let Some(point) = at {
        visit(&point.own.member.fence);
        // SAFETY: under a walk.
        at = unsafe { point.prev() }.filter(|prev| onward(&prev.handle()));
    }
}

/// Arms all that `point`, which has just been armed, waits for. Before one that was armed earlier all are.
pub(in crate::fence) fn arm(point: &Fence) {
    let first = |prev: &Fence| prev.state().word.fetch_or(ARMED, Ordering::AcqRel) & (ARMED | SIGNALED) == 0;
    back_from(point, Fence::arm, first);
}

/// Passes a hint on. Before a point that has an earlier one all do.
pub(in crate::fence) fn deadline(point: &Fence, at: Time) {
    back_from(point, |fence| fence.set_deadline(at), |prev| prev.lower_deadline(at));
}
