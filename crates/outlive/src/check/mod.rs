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
//! # What waits for what
//! The kernel's order is built into the ranks of [`sync::class`](crate::sync::class): embedders' outer locks, reservations, then
//! reclaim ([`reclaiming`]), MMU notifiers, then waiting for a fence, then the library's own locks. A lock above the wait may
//! not be held while waiting, and one above reclaim not while allocating, since an allocation may reclaim and reclaim waits.
//! So one thread alone, without a deadlock, shows that two could. What lock classes cannot show, a cycle through fences, is
//! found in a graph of what waits for what, kept in debug builds (`check::graph`).
//!
//! # Contexts
//! Without `std` there is no per-thread state and every check is a no-op; run the same code under `std` to be checked.
//! Under loom and shuttle too, for there threads are not the system's.

#[cfg(all(feature = "std", not(loom), not(shuttle)))]
mod alloc;
mod copied;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
mod graph;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
mod local;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
pub use self::alloc::{Alloc, Allocations, allocations, fail_nth_allocation};
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
pub use graph::{Producing, edges_lost, producing};
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
pub use local::{reports, set_listener, set_reporter, set_slow_limit, take_report};

#[cfg(not(all(feature = "std", not(loom), not(shuttle))))]
#[path = "none.rs"]
mod local;
#[cfg(not(all(feature = "std", not(loom), not(shuttle))))]
use local as graph;

pub use copied::{Place, Text};
pub(crate) use graph::{job_depends, published, signaled, waits_for};
pub(crate) use local::{ON, after_unlock, before_lock, dropped, enter_lane, expired, foreign_drop, may_wait, took};

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

/// A lock class's name, as a report keeps it.
pub type ClassName = Text<40>;

/// A fence's names and number, as a report keeps them.
pub type FenceName = Text<48>;

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
    /// A fence was waited for while a lock was held that the way to a signal may need.
    WaitedHolding {
        /// Its class.
        class: ClassName,
    },
    /// Memory was allocated while a lock was held that reclaim, which waits for fences, may need; or in reclaim itself. Seen by
    /// [`Alloc`](crate::check) where it is installed.
    AllocatedHolding {
        /// Bytes asked for.
        bytes: usize,
        /// Its class.
        class: ClassName,
    },
    /// A wait that cannot end: what is waited for needs a fence that this thread has promised to signal.
    WaitCycle {
        /// What is waited for.
        waited: FenceName,
        /// What this thread has promised.
        promised: FenceName,
    },
    /// Its producer was dropped without a result, while somebody had the fence.
    Dropped {
        /// The fence; it failed with [`FenceError::Canceled`](crate::FenceError::Canceled).
        fence: FenceName,
    },
    /// Its producer let its watchdog's time go by.
    Expired {
        /// The fence; it failed with [`FenceError::TimedOut`](crate::FenceError::TimedOut).
        fence: FenceName,
    },
    /// Its producer took longer than [`set_slow_limit`](crate::check) allows.
    Slow {
        /// The fence.
        fence: FenceName,
        /// Nanoseconds its watchdog's clock ran.
        took_ns: u64,
    },
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
            Self::WaitedHolding { class } => {
                write!(f, "waited for a fence holding lock `{class}`, which its signal may need; release it first")
            }
            Self::AllocatedHolding { bytes, class } => write!(
                f,
                "allocated {bytes} bytes holding `{class}`: reclaim may wait for a fence that needs it; allocate first"
            ),
            Self::WaitCycle { waited, promised } => write!(
                f,
                "waits for fence {waited}, which waits for {promised}, which this thread is to signal: signal it first"
            ),
            Self::Dropped { fence } => {
                write!(f, "the producer of fence {fence} was dropped without a result; signal it with one")
            }
            Self::Expired { fence } => {
                write!(f, "fence {fence} was not signaled within its watchdog's time; its producer has lost it")
            }
            Self::Slow { fence, took_ns } => {
                write!(f, "fence {fence} took its producer {}.{:03} ms", took_ns / 1_000_000, took_ns / 1000 % 1000)
            }
        }
    }
}

/// A violation with both its places. It keeps nothing of the modules that it names.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Report {
    /// What happened.
    pub violation: Violation,
    /// Where; for an allocation the innermost mark before it, since an allocator is not told its caller.
    pub at: Place,
    /// Where the outermost section began; of a [`Violation::WaitCycle`], where the promise was made; equal to `at` where there
    /// is neither.
    pub section: Place,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outlive: at {}: {}", self.at, self.violation)?;
        match self.violation {
            Violation::WaitCycle { .. } => write!(f, " (promised at {})", self.section),
            _ if self.section == self.at => Ok(()),
            _ => write!(f, " (signalling section from {})", self.section),
        }
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

/// Work that frees memory because somebody needs some, until dropped: the kernel's `fs_reclaim`. In it a fence may be waited
/// for; allocating, or taking a reservation or any other lock of a class below [`class::Reclaim`](crate::sync::class::Reclaim),
/// is reported: whoever holds that lock may be the one who allocates. Not `Send`. Any context that may block.
#[must_use = "the section ends when this is dropped"]
#[derive(Debug)]
pub struct Reclaiming {
    thread_bound: PhantomData<*const ()>,
}

/// Begins a section of reclaim. An allocator that evicts, a shrinker, calls it.
#[inline]
#[track_caller]
pub fn reclaiming() -> Reclaiming {
    before_lock::<crate::sync::class::Reclaim>();
    Reclaiming { thread_bound: PhantomData }
}

impl Drop for Reclaiming {
    #[inline]
    fn drop(&mut self) {
        after_unlock::<crate::sync::class::Reclaim>();
    }
}

impl Drop for Signalling {
    #[inline]
    fn drop(&mut self) {
        local::end(self.around);
    }
}
