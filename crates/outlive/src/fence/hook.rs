//! The producer hook of a fence: what the issuer wants to hear while the fence is pending. Counted, and detached at the
//! signal, so a signaled fence reaches no driver code; the foreign part is dropped on the reaper.
#![expect(unsafe_code, reason = "a thin counted trait object; docs/unsafe.md, `fence::hook`")]

use crate::exec::Executor;
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::mem::AllocError;
use crate::time::Time;
use core::fmt;
use core::ptr::NonNull;

/// What a fence tells its producer. Both calls come from whoever waits or hints, in any context: they must not block,
/// allocate, or wait.
pub trait Producer: Send + Sync + 'static {
    /// Somebody waits for the fence or depends on it, for the first time. A mere query never arms.
    fn arm(&self) {}

    /// Somebody would like it signaled by `at`; called only when the hint moves earlier.
    fn deadline(&self, at: Time) {
        let _ = at;
    }
}

/// A counted [`Producer`], to be given to a fence before it is published.
#[derive(Clone)]
pub struct Hook {
    object: Object<HookShared>,
}

#[repr(C)]
struct HookShared {
    header: ObjectHeader,
    arm: unsafe fn(NonNull<Self>),
    deadline: unsafe fn(NonNull<Self>, Time),
}

#[repr(C)]
struct HookInner<P> {
    shared: HookShared,
    producer: P,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for HookShared {}
// SAFETY: `repr(C)`, the shared part is first.
unsafe impl<P: Producer> Counted for HookInner<P> {}

impl Hook {
    /// A hook around `producer`. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn try_new<P: Producer>(executor: &Executor, producer: P) -> Result<Self, AllocError> {
        let inner = Object::try_new(executor.hub(), |header| {
            let shared = HookShared { header, arm: arm::<P>, deadline: deadline::<P> };
            Ok::<_, AllocError>(HookInner { shared, producer })
        })?;
        // SAFETY: `HookShared` is the first field.
        Ok(Self { object: unsafe { inner.upcast() } })
    }

    pub(crate) fn arm(&self) {
        // SAFETY: made by `try_new` for this very type.
        unsafe { (self.object.arm)(self.object.as_ptr()) }
    }

    pub(crate) fn deadline(&self, at: Time) {
        // SAFETY: made by `try_new` for this very type.
        unsafe { (self.object.deadline)(self.object.as_ptr(), at) }
    }
}

unsafe fn arm<P: Producer>(at: NonNull<HookShared>) {
    // SAFETY: `at` is the first field of a `HookInner<P>`, alive while the caller's reference is.
    unsafe { at.cast::<HookInner<P>>().as_ref() }.producer.arm();
}

unsafe fn deadline<P: Producer>(at: NonNull<HookShared>, when: Time) {
    // SAFETY: as in `arm`.
    unsafe { at.cast::<HookInner<P>>().as_ref() }.producer.deadline(when);
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = &self.object.header;
        f.write_str("Hook")
    }
}
