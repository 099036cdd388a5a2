//! No per-thread state, no checks: without `std`, and where threads are a model checker's.

use super::Violation;
use crate::fence::Fence;
use crate::sync::LockClass;
use core::panic::Location;

use crate::exec::Lane;

/// Whether locks and fences are watched.
pub(crate) const ON: bool = false;

pub(crate) struct InLane;

pub(crate) fn enter_lane(_lane: Lane) -> InLane {
    InLane
}

#[inline]
pub(super) fn begin(_at: &'static Location<'static>) -> Option<&'static Location<'static>> {
    None
}

#[inline]
pub(super) fn end(_around: Option<&'static Location<'static>>) {}

#[inline]
pub(crate) fn before_lock<C: LockClass>() {}

#[inline]
pub(crate) fn after_unlock<C: LockClass>() {}

pub(crate) fn may_wait() -> Result<(), Violation> {
    Ok(())
}

#[inline]
pub(crate) fn foreign_drop() {}

#[inline]
pub(crate) fn dropped(_fence: &Fence) {}

#[inline]
pub(crate) fn expired(_fence: &Fence) {}

#[inline]
pub(crate) fn took(_fence: &Fence, _ns: u128) {}

#[inline]
pub(crate) fn waits_for(_fence: &Fence) -> InLane {
    InLane
}

#[inline]
pub(crate) fn published(_fence: &Fence) {}

#[inline]
pub(crate) fn job_depends(_job: &Fence, _on: &Fence) {}

#[inline]
pub(crate) fn signaled(_fence: &Fence) {}
