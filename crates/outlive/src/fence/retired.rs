//! `Retired`: the type that means "the memory is free", and the signaled stub.
#![expect(unsafe_code, reason = "a static block; docs/unsafe.md, `fence::retired`")]

use super::container::ContainerError;
use super::state::Fence;
use core::ops::Deref;

/// A fence whose `Ok` means that the hardware can no longer touch what its job touched (rule 4). Its `Err` means *never*.
/// Made by a job ([`JobFences::retired`](crate::JobFences::retired)), as the [`Retired::stub`], or of several
/// ([`Retired::all_of`]); nothing else is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired(Fence);

impl Retired {
    pub(crate) const fn new(fence: Fence) -> Self {
        Self(fence)
    }

    /// The one that has always been signaled, without error: "free since the beginning". Context 0, number 0.
    #[must_use]
    #[cfg(not(any(loom, shuttle)))]
    pub fn stub() -> Self {
        Self(stub())
    }

    /// Signals once all of `retired` have: with the error of the first, in order, that has one. See [`Fence::all_of`].
    ///
    /// # Errors
    /// [`ContainerError::OutOfMemory`].
    pub fn all_of(retired: &[Self]) -> Result<Self, ContainerError> {
        Self::all_of_each(retired.iter())
    }

    /// As [`Retired::all_of`].
    pub(crate) fn all_of_each<'a>(each: impl Iterator<Item = &'a Self> + Clone) -> Result<Self, ContainerError> {
        Fence::all_of_each(each.map(|Self(fence)| fence)).map(Self)
    }

    /// As a plain fence, for waiting and dependencies.
    #[must_use]
    pub fn into_fence(self) -> Fence {
        self.0
    }
}

impl Deref for Retired {
    type Target = Fence;

    fn deref(&self) -> &Fence {
        &self.0
    }
}

impl Fence {
    /// The one that has always been signaled, without error. Static: costs no memory.
    #[must_use]
    #[cfg(not(any(loom, shuttle)))]
    pub fn stub() -> Self {
        stub()
    }
}

#[cfg(not(any(loom, shuttle)))]
fn stub() -> Fence {
    use super::state::{Header, PackedLayout, Slot, State};
    use crate::sync::atomic::{AtomicU32, AtomicU64};
    use core::ptr::NonNull;

    #[repr(C)]
    struct Stub {
        header: Header,
        state: State,
    }
    // SAFETY: as a fence's block: everything in it is atomic or locked.
    unsafe impl Sync for Stub {}

    // A count that has saturated is never freed, which is what a static needs.
    static STUB: Stub = Stub {
        header: Header::new(PackedLayout::bare(), None, AtomicU32::new(u32::MAX / 2), AtomicU64::new(0)),
        state: State::stub(),
    };
    // SAFETY: a whole block with one state; the count is saturated, so taking one over is always right.
    unsafe { Fence::from_block(NonNull::from(&STUB).cast(), Slot::First) }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Retired;
    use crate::fence::{Fence, Status};

    #[test]
    fn the_stub_is_signaled_and_never_freed() {
        for _ in 0..3 {
            let stub = Fence::stub();
            assert_eq!((stub.context(), stub.seqno(), stub.timeline_name()), (0, 0, "stub"));
            assert_eq!(stub.clone().status(), Status::Signaled(Ok(())));
        }
        assert!(Retired::stub().is_signaled());
    }
}
