//! `Ref`: the one counted pointer for plain shared data (names, executors, principals). Like `Arc` without weak
//! references, but made fallibly and over the crate's own atomics, so that loom sees the count.
//!
//! Objects whose last reference must not be dropped where it happens to fall (queues, devices: they own foreign values)
//! are not `Ref`s but [`crate::exec::object::Object`]s.
#![expect(unsafe_code, reason = "reference count; docs/unsafe.md, `mem::shared`")]

use super::{AllocError, free, try_alloc, whole};
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::NonNull;

struct Counted<T> {
    refs: AtomicUsize,
    value: T,
}

/// A counted pointer to shared data.
pub(crate) struct Ref<T> {
    block: NonNull<Counted<T>>,
}

// SAFETY: `Ref` gives shared access from several threads and the last owner drops the value, wherever it is.
unsafe impl<T: Send + Sync> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Ref<T> {}

impl<T> Ref<T> {
    /// `value`, shared.
    pub(crate) fn try_new(value: T) -> Result<Self, AllocError> {
        let block = try_alloc(Layout::new::<Counted<T>>())?.cast::<Counted<T>>();
        // SAFETY: fresh memory of this layout.
        unsafe { block.write(Counted { refs: AtomicUsize::new(1), value }) };
        Ok(Self { block })
    }

    /// Takes over a reference that was forgotten.
    ///
    /// # Safety
    /// `value` is what a forgotten `Ref` dereferenced to, and that reference is taken over once.
    pub(crate) unsafe fn from_value(value: NonNull<T>) -> Self {
        // SAFETY: the value is the field of a `Counted`, whose address is that much lower.
        Self { block: unsafe { value.byte_sub(offset_of!(Counted<T>, value)) }.cast() }
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: alive while this reference is.
        unsafe { self.block.as_ref() }
    }

    /// Whether both point to the same value.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.block == other.block
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        // ORDERING: a new reference is made from an existing one, which already keeps the value alive.
        let before = self.counted().refs.fetch_add(1, Ordering::Relaxed);
        assert!(before < usize::MAX / 2, "reference count overflow");
        Self { block: self.block }
    }
}

impl<T> Drop for Ref<T> {
    fn drop(&mut self) {
        // ORDERING: Release pairs with the Acquire load of whoever frees: all uses come before the free. A load, for
        // ThreadSanitizer knows no fences.
        if self.counted().refs.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        self.counted().refs.load(Ordering::Acquire);
        let block = whole(self.block);
        // SAFETY: the last reference; nobody else can reach the value.
        unsafe { block.drop_in_place() };
        // SAFETY: allocated with this layout in `try_new`, not used any more.
        unsafe { free(block.cast(), Layout::new::<Counted<T>>()) };
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
