//! `UserFence`: what a user or a peer can hold open. It may wait for a [`Fence`]; nothing turns it into one, for a fence
//! must be finite and this need not be.
//!
//! ```compile_fail
//! let executor = outlive::Executor::manual().unwrap();
//! let (source, user) = outlive::UserFence::new(&executor, "host").unwrap();
//! let fence: outlive::Fence = user.into();
//! ```
#![expect(unsafe_code, reason = "a counted object; docs/unsafe.md, `fence::user`")]

use super::callback::{Refused, Registration};
use super::container::ContainerError;
use super::context::{Names, allocate_alone, decide_alone, info};
use super::error::FenceError;
use super::future::FenceFuture;
use super::state::Fence;
use super::status::Status;
use super::wait::WaitError;
use crate::check;
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::exec::{Executor, next_id};
use crate::mem::AllocError;
use core::time::Duration;

/// A promise without an end: host-signalled, a foreign descriptor, a point nobody has submitted yet, the end of a
/// long-running job. Waited for like a fence; never a dependency of a published job
/// ([`commit_when`](crate::Reserved::commit_when) publishes after it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFence {
    fence: Fence,
}

/// Signals a [`UserFence`]. Every holder may; the first result counts. Dropping it signals nothing: the user may hold it open.
#[derive(Debug, Clone)]
pub struct UserSource {
    /// Counted by the executor, so that its lanes are there for the fence's closures.
    inner: Object<UserInner>,
}

#[repr(C)]
#[derive(Debug)]
struct UserInner {
    header: ObjectHeader,
    fence: Fence,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for UserInner {}

impl UserFence {
    /// A user fence named `timeline`. Its waiters' closures run on `executor`'s notify lane. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(executor: &Executor, timeline: &str) -> Result<(UserSource, Self), AllocError> {
        let info = info(executor, Names { driver: "user", timeline }, 0, 0, 0, next_id())?;
        let fence = allocate_alone(info, 1)?;
        let source = fence.clone();
        let inner = Object::try_new(executor.hub(), |header| Ok::<_, AllocError>(UserInner { header, fence: source }))?;
        Ok((UserSource { inner }, Self { fence }))
    }

    /// A job's end, or a wait for sync objects, seen as something that need not come.
    pub(crate) const fn of(fence: Fence) -> Self {
        Self { fence }
    }

    /// Signals once all of `users` have, with the error of the first, in order, that failed; see [`Fence::all_of`]. Allocates.
    ///
    /// # Errors
    /// [`ContainerError::Nested`] for waits for sync objects among several: [`SyncobjWait::all_of`](crate::SyncobjWait::all_of)
    /// takes several points itself. [`ContainerError::OutOfMemory`].
    pub fn all_of(users: &[Self]) -> Result<Self, ContainerError> {
        Fence::all_of_each(users.iter().map(Self::inner)).map(Self::of)
    }

    /// Whether anybody has a handle on it, or a closure, besides its source.
    #[cfg(all(feature = "linux", target_os = "linux", not(loom), not(shuttle)))]
    pub(crate) fn is_heard(source: &UserSource) -> bool {
        source.inner.fence.is_shared()
    }

    pub(crate) const fn inner(&self) -> &Fence {
        &self.fence
    }

    /// Pending, or signaled with a result.
    #[must_use]
    pub fn status(&self) -> Status {
        self.fence.status()
    }

    /// Whether it has signaled: one acquire load.
    #[must_use]
    pub fn is_signaled(&self) -> bool {
        self.fence.is_signaled()
    }

    /// Waits, at most `timeout`; see [`Fence::wait`].
    ///
    /// # Errors
    /// As for [`Fence::wait`].
    #[track_caller]
    pub fn wait(&self, timeout: Duration) -> Result<(), WaitError> {
        self.fence.wait(timeout)
    }

    /// Runs `closure` once it has signaled; see [`Fence::on_signaled`].
    ///
    /// # Errors
    /// As for [`Fence::on_signaled`].
    pub fn on_signaled<F>(&self, closure: F) -> Result<Registration, Refused<F>>
    where
        F: FnOnce(Result<(), FenceError>) + Send + 'static,
    {
        self.fence.on_signaled(closure)
    }
}

impl UserSource {
    /// Signals with `result`; false if it had signaled. Any context; never blocks.
    #[expect(
        clippy::must_use_candidate,
        reason = "the first signal counts; most callers do not care whether they were it"
    )]
    pub fn signal(&self, result: Result<(), FenceError>) -> bool {
        let _section = check::signalling();
        let UserInner { header, fence } = &*self.inner;
        let first = decide_alone(fence);
        if first {
            fence.signal(result, header.hub().now(), header.hub());
        }
        first
    }
}

impl IntoFuture for UserFence {
    type Output = Result<(), FenceError>;
    type IntoFuture = FenceFuture;

    fn into_future(self) -> FenceFuture {
        FenceFuture::new(self.fence)
    }
}
