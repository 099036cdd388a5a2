//! Fences: the promise that something will have ended, and everything one may do with it.
//!
//! # Types
//! | type | right |
//! |---|---|
//! | [`Fence`] | read, wait, register, hint; never signal |
//! | [`Signaler`] | signal one fence, once; made by a [`FenceContext`] |
//! | [`Fence::all_of`], [`Fence::any_of`], [`Fence::merge`] | one fence made of several |
//! | [`Timeline`] | number points, look them up |
//! | [`Syncobj`] | hand fences on, and wait for those that are to come |
//! | [`Retired`] | a fence after which the hardware cannot touch a job's memory: what reservations accept |
//! | [`UserFence`], [`UserSource`] | a promise that need not be kept: waits for fences, never becomes one |
//! | [`Registration`] | take a closure back |
//!
//! # Contexts
//! Each type says it; in short: reading and signalling anywhere, interrupts included; registering closures and waiting
//! where allocation and blocking are legal.

mod array;
mod callback;
mod container;
pub(crate) mod context;
mod error;
mod future;
mod hook;
mod merge;
mod retired;
mod signal;
mod state;
mod status;
mod syncobj;
mod timeline;
mod user;
mod wait;

#[cfg(all(test, loom))]
mod loom_containers;
#[cfg(all(test, loom))]
mod loom_syncobj;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, shuttle))]
mod shuttle_syncobj;

pub use callback::{Refused, Registration, SignalSafe};
pub use container::ContainerError;
pub(crate) use container::Part;
pub use context::{FenceContext, Names, Signaler, Unpublished, WATCHDOG_DEFAULT};
pub use error::{Cause, FenceError};
pub use future::FenceFuture;
pub use hook::{Hook, Producer};
pub use retired::Retired;
pub use state::Fence;
pub(crate) use state::{ContextInfo, Header, PackedLayout, Slot, State};
pub use status::Status;
pub use syncobj::{PointReservation, Progress, Syncobj, SyncobjError, SyncobjWait, Until};
pub use timeline::{Timeline, TimelineError};
pub use user::{UserFence, UserSource};
pub use wait::WaitError;

use crate::sync::atomic::Ordering;
use crate::trace::FenceId;

/// So that nobody has to look at every fence of what he locks as long as all is well. Not the door's atomics: a model
/// checker's would have to be made anew for each execution.
static ANY_LOST: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

impl Fence {
    /// The context's number, never reused in a process; 0 is the stub's.
    #[must_use]
    pub fn context(&self) -> u64 {
        self.header().info.as_ref().map_or_else(|| self.container_context(), |info| info.base + self.slot() as u64)
    }

    /// The number within its context, from 1.
    #[must_use]
    pub fn seqno(&self) -> u64 {
        // ORDERING: written once, before the handle was given out.
        self.header().seqno.load(Ordering::Relaxed)
    }

    /// `context:seqno`.
    #[must_use]
    pub fn id(&self) -> FenceId {
        FenceId { context: self.context(), seqno: self.seqno() }
    }

    /// Who issued it. Readable for ever, unlike the kernel's, which forgets it at the signal.
    #[must_use]
    pub fn driver_name(&self) -> &str {
        self.header().info.as_ref().map_or_else(|| container::driver_name(self), |info| &info.driver)
    }

    /// What it was issued for. Readable for ever.
    #[must_use]
    pub fn timeline_name(&self) -> &str {
        self.header().info.as_ref().map_or_else(|| container::timeline_name(self), |info| &info.timeline)
    }

    /// The client whose job it belongs to, or to whose jobs all that it is made of; 0 for bare fences.
    #[must_use]
    pub fn client(&self) -> u64 {
        self.header().info.as_ref().map_or_else(|| container::client(self), |info| info.client)
    }

    /// Whether this is later than `other` in the same context; `None` across contexts, which have no order.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> Option<bool> {
        (self.context() == other.context()).then(|| self.seqno() > other.seqno())
    }

    /// See [`ContextInfo`].
    pub(crate) fn order(&self) -> u64 {
        self.header().info.as_ref().map_or(0, |info| info.order)
    }

    /// Whether anybody has waited for it, or asked to be told.
    pub(crate) fn is_armed(&self) -> bool {
        self.word() & state::ARMED != 0
    }

    /// An error is about to be signaled: if this may be a [`Retired`], memory may be lost.
    fn note_lost(&self) {
        if !self.is_jobs() || self.slot() == Slot::Retired {
            // ORDERING: before the signal, whose Release publishes it.
            ANY_LOST.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any fence of this process that may be a [`Retired`] has signaled an error. Who has seen such a signal sees this.
    pub(crate) fn any_lost() -> bool {
        // A model's executions must not depend on what happened outside it.
        // ORDERING: see `note_lost`.
        cfg!(any(loom, shuttle)) || ANY_LOST.load(Ordering::Relaxed)
    }

    /// Says that some memory behind its context is never free: before the signal, so that who sees that, or a later one's,
    /// sees this.
    pub(crate) fn quarantine_context(&self) {
        if let Some(info) = &self.header().info {
            // ORDERING: the signal's Release publishes it.
            info.quarantined.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a `retired` of its context, up to this one, signaled that memory is never free. Only of one that has signaled.
    pub(crate) fn context_is_quarantined(&self) -> bool {
        // ORDERING: whoever asks has seen this one's signal, with Acquire.
        self.header().info.as_ref().is_some_and(|info| info.quarantined.load(Ordering::Relaxed))
    }

    pub(crate) fn device(&self) -> u64 {
        self.header().info.as_ref().map_or(0, |info| info.device)
    }
}
