//! `WaitsFor`: what keeps a queue's next job from starting, as its dispatcher would find it now.
//!
//! One look under the queue's lock, bounded: the cursor, the credits, and at most 66 dependencies. Nothing is kept for it, so
//! nobody pays who does not ask.

use super::job::JobCore;
use super::order::{Next, QueueState};
use super::shared::QueueShared;
use crate::fence::{Fence, UserFence};
use crate::trace::Blocked;
use core::fmt;

/// See [`JobQueue::waits_for`](crate::JobQueue::waits_for). A fence in it says its names, number and age by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor {
    /// No job waits in it.
    Nothing,
    /// User fences: its oldest pending job is not committed yet, and no other waits.
    UserFences {
        /// One of them, unless they have signaled meanwhile.
        first: Option<UserFence>,
    },
    /// Dependencies.
    Dependencies {
        /// How many.
        count: u32,
        /// One of them, unless they have signaled meanwhile, or very many others have.
        first: Option<Fence>,
    },
    /// The queue's own credits.
    Credits {
        /// What the job will hold.
        needs: u32,
        /// What nothing on the hardware holds.
        free: u32,
    },
    /// Its turn with its arbiter, or credits of the arbiter's pool.
    Turn,
    /// Something scarce, for example a lease: the driver's `acquire` named this fence.
    Resource(Fence),
    /// A suspension.
    Suspension,
    /// Its device is being reset, or is gone.
    Reset,
    /// Its long-running context is off the hardware, or on its way, for somebody who needs its memory.
    Preempted,
    /// A job of it whose time was up and that has not left the hardware.
    Overdue,
    /// Nothing: the signalling lane, or whoever is at it, will start it.
    Start,
}

impl QueueShared {
    pub(crate) fn waits_for(&self) -> WaitsFor {
        let state = self.state.lock();
        match self.next(&state) {
            Next::Nothing => match state.pending.front() {
                Some(job) if state.refuse.is_none() => {
                    let first = state.awaited(JobCore::from_link(job), self.limits.pipelined).map(UserFence::of);
                    WaitsFor::UserFences { first }
                }
                _ => WaitsFor::Nothing,
            },
            Next::Blocked(reason) => self.blocked_on(&state, reason),
            Next::Start(_) if self.place.is_some() => WaitsFor::Turn,
            Next::Start(_) | Next::Skip => WaitsFor::Start,
        }
    }

    fn blocked_on(&self, state: &QueueState, reason: Blocked) -> WaitsFor {
        let Some(job) = state.next_start() else { return WaitsFor::Nothing };
        match reason {
            Blocked::Dependencies(count) => {
                WaitsFor::Dependencies { count, first: state.awaited(job, self.limits.pipelined) }
            }
            Blocked::Credits => WaitsFor::Credits { needs: state.cells(job).credits, free: state.credits_free },
            Blocked::Resource(_) => state.resource.clone().map_or(WaitsFor::Start, WaitsFor::Resource),
            Blocked::Gate => WaitsFor::Turn,
            Blocked::Suspended if state.suspended_at.is_some() => WaitsFor::Suspension,
            Blocked::Suspended if state.held => WaitsFor::Reset,
            Blocked::Suspended if state.is_parked() => WaitsFor::Preempted,
            Blocked::Suspended => WaitsFor::Overdue,
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::UserFences { first: None } => f.write_str("user fences"),
            Self::UserFences { first: Some(first) } => write!(f, "user fence {}", Named(first.inner())),
            Self::Dependencies { count, first: None } => write!(f, "{count} dependencies"),
            Self::Dependencies { count: 0 | 1, first: Some(first) } => write!(f, "dependency {}", Named(first)),
            Self::Dependencies { count, first: Some(first) } => {
                write!(f, "dependency {} and {} more", Named(first), count - 1)
            }
            Self::Credits { needs, free } => write!(f, "{needs} credits, {free} are free"),
            Self::Turn => f.write_str("its turn"),
            Self::Resource(fence) => write!(f, "resource {}", Named(fence)),
            Self::Suspension => f.write_str("the end of a suspension"),
            Self::Reset => f.write_str("the end of a reset"),
            Self::Preempted => f.write_str("its context to come back to the hardware"),
            Self::Overdue => f.write_str("a job whose time was up to leave the hardware"),
            Self::Start => f.write_str("the dispatcher"),
        }
    }
}

/// A fence by its names and number.
struct Named<'a>(&'a Fence);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.0.driver_name(), self.0.timeline_name(), self.0.id())
    }
}
