//! Signalling sections and what must not happen in them: the run-time half of rules 6 and 7, in the manner of the
//! kernel's `dma_fence_begin_signalling`.
//!
//! A *signalling section* is code on the path between a fence's publication and its signal. Inside one, nothing may
//! allocate, wait for a fence, take a lock whose class does not allow it, or run a foreign `Drop`. Freeing is allowed.
//! The library marks its own sections (every driver call of the signalling lane and every completion is in one); a
//! driver marks its interrupt handler with [`signalling`].
//!
//! # States
//! Per thread: a depth (sections nest), where the outermost began, and a slot for the first violation. The slot is filled
//! where the violation happens, without allocating or unwinding, and reported where the outermost section ends, with
//! both places: the offender keeps its stack, the culprit gets its name.
//!
//! # Contexts
//! Without `std` there is no per-thread state and every check is a no-op; run the same code under `std` to be checked.
//! Under loom and shuttle too, for there threads are not the system's.

#[cfg(all(feature = "std", not(loom), not(shuttle)))]
mod alloc;
mod copied;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
mod local;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
pub use self::alloc::{Alloc, Allocations, allocations, fail_nth_allocation};
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
pub use local::{reports, set_reporter, take_report};

#[cfg(not(all(feature = "std", not(loom), not(shuttle))))]
#[path = "none.rs"]
mod local;

pub use copied::{Place, Text};
pub(crate) use local::{after_unlock, before_lock, enter_lane, foreign_drop, may_wait};

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

/// A lock class's name, as a report keeps it.
pub type ClassName = Text<40>;

/// What was done that a signalling section, a callback or the order of locks forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Memory was allocated; seen by [`Alloc`](crate::check) where it is installed.
    Allocated {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A fence was waited for in a signalling section.
    Waited,
    /// A fence was waited for in a closure or waker on the notify lane.
    WaitedInCallback,
    /// A lock was taken whose class is not for signalling.
    WrongLock {
        /// Its class.
        class: ClassName,
    },
    /// A lock was taken while one of the same or a higher rank was held.
    LockOrder {
        /// The class taken.
        taken: ClassName,
        /// The class held.
        held: ClassName,
    },
    /// A value of a foreign type was dropped.
    ForeignDrop,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allocated { bytes } => {
                write!(f, "allocated {bytes} bytes; reserve them before the fence is published")
            }
            Self::Waited => f.write_str("waited for a fence; a signalling path may only arm callbacks"),
            Self::WaitedInCallback => {
                f.write_str("waited for a fence in a callback; register another callback instead")
            }
            Self::WrongLock { class } => {
                write!(f, "took lock `{class}`, which a waiter may hold; use one whose class is for signalling")
            }
            Self::LockOrder { taken, held } => write!(f, "took lock `{taken}` while holding `{held}`; take it first"),
            Self::ForeignDrop => f.write_str("dropped a foreign value; leave it to the reaper"),
        }
    }
}

/// A violation with both its places. It keeps nothing of the modules that it names.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// What happened.
    pub violation: Violation,
    /// Where; for an allocation the innermost mark before it, since an allocator is not told its caller.
    pub at: Place,
    /// Where the outermost section began; equal to `at` outside sections.
    pub section: Place,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outlive: at {}: {} (signalling section from {})", self.at, self.violation, self.section)
    }
}

/// A signalling section, until dropped. Not `Send`: a section belongs to one thread, so it cannot be held across an
/// `.await` of a task that migrates. Nests.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(outlive::check::signalling());
/// ```
#[must_use = "the section ends when this is dropped"]
#[derive(Debug)]
pub struct Signalling {
    /// The mark around this section, to be restored.
    around: Option<&'static Location<'static>>,
    thread_bound: PhantomData<*const ()>,
}

/// Begins a signalling section. Any context; never blocks. A driver calls it at the top of its interrupt handler.
#[inline]
#[track_caller]
pub fn signalling() -> Signalling {
    Signalling { around: local::begin(Location::caller()), thread_bound: PhantomData }
}

impl Drop for Signalling {
    #[inline]
    fn drop(&mut self) {
        local::end(self.around);
    }
}
